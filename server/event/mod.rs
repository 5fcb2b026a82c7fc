//! Events: published once, carried everywhere.
//!
//! # Who is who
//! * An **event** ([`model`]) is a fact with a type and a JSON payload.  It is never changed.
//! * The **log** ([`log`]) is the table of all events in the order of their commit; a [`cursor`] names a place in it.
//! * A **fan-out** ([`fanout`]) is what a channel adds to a publish: the deliveries that it wants.
//! * A **route** ([`route`]) is a rule, kept as data, that turns events into messages; channels read the routes.
//! * A **topic** ([`topic`]) says who may see an event live.
//! * The **registry** ([`registry`]) is the catalogue of event types, built in and the applications' own.
//! * **Retention** ([`retention`]) removes events by their age; **erasing** removes all that is known of a subject.
//! * The **bus** ([`bus`]) is the live end of the log, shared by all subscribers of this node.
//! * **Ephemeral** events ([`ephemeral`]) go to these subscribers only, and into no log.
//!
//! # The flow
//! ```text
//! service::publish ─▶ publish (grouped write) ── one transaction ──▶ events, deliveries of every channel, request id
//!                                             └─ after its commit ─▶ engines (hand-over), bus (live), then the caller
//! ```

pub mod bus;
pub mod catalogue;
pub mod cursor;
pub mod ephemeral;
mod erase;
pub mod fanout;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod log;
pub mod model;
pub mod pattern;
mod publish;
pub mod registry;
pub mod request;
pub mod retention;
pub mod route;
pub mod rpc;
mod service;
mod store;
pub mod topic;

pub use erase::{Belongings, Erased, Trace, Traces};
pub use fanout::{Fanout, Planned};
pub use model::{Event, Fact};
pub use publish::{PublishContext, PublishWrite, Published};
pub use service::{EventService, ListFilter, NewEvent, Outcome, Outcomes, Requester, Way};
