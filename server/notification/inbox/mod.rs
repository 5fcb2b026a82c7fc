//! Inboxes: what users were told, and what they have seen of it.
//!
//! # Who is who
//! * A **notification** ([`model`]) is a row in the inbox of one user, or one row for everybody: a **broadcast**, with what
//!   each user did with it beside it, from when they first do something.
//! * The **fan-out** ([`fanout`]) makes the inbox a channel: every change is an event of type `notification`,
//!   `notification.updated` or `notification.withdrawn` on the topic of a user or on `broadcast` ([`word`] reads and writes
//!   them), and [`apply`] does what they say in the publish's own transaction.  Devices that follow the topic do the same to
//!   what they show, and all agree.
//! * The **use cases** ([`service`], [`marks`]) publish these events.  They write nothing else.
//! * The **counts** of a user's own rows are kept beside them, changed by whoever changes the rows and under the same
//!   lock; those of broadcasts are counted when asked.  The [`herald`] tells devices after the commit.
//! * **Preferences** ([`preferences`]) keep notifications away, but for critical ones.
//! * A **mail** ([`mails`]) goes to who has not seen a notification in time.
//! * **Routes** ([`routes`]) turn other events into notifications.
//! * **Retention** ([`retention`]) takes what is old or expired, and counts again once a day.
//!
//! # The order
//! A row's place is the position of the event that brought it, so that "all up to this one" never takes what came later,
//! from whichever node it came.

pub mod apply;
mod erase;
pub mod fanout;
pub mod herald;
pub mod mails;
pub(in crate::notification) mod marks;
pub mod model;
pub mod preferences;
pub mod retention;
mod routes;
mod select;
mod service;
mod store;
mod word;

pub use erase::{InboxTraces, UserBelongings};
pub use fanout::InboxFanout;
pub use herald::{Changed, Devices, Herald};
pub use mails::{FallbackMail, Mails};
pub use model::{Content, Counts, Mark, Priority, Selection, Which};
pub use preferences::{Preference, Preferences};
pub use service::{InboxService, Listed, Listing, NewNotification, Sent};
pub use store::Row;
pub use word::Fallback;
