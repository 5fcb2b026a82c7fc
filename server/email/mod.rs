//! Email: mails rendered from templates, queued and sent.
//!
//! # Who is who
//! * A **template** ([`template`]) is compiled into the binary; it turns variables into subject, HTML and text.
//!   The **library** ([`library`]) has those, and the texts that are kept in their place or beside them.
//! * A **mail** ([`model`]) is a row of `email_queue`: recipients, and a template with variables or raw content.
//! * The **fan-out** ([`fanout`]) turns events into mails by the routes, inside the publish; the **intake** ([`intake`])
//!   checks what SendEmail and its batch ask for and keeps what is shared (bodies, files), and [`enqueue`] writes the mails.
//! * The **queue** ([`queue`]) is what is seen of them afterwards: list, counts, attempts, cancel, retry.
//! * The **limit** ([`limit`]) holds the lane back while as many as the settings allow have left within the hour.
//! * The **channel** ([`channel`]) makes one attempt: it renders, [`compose`]s, signs ([`dkim`]) and hands over to the
//!   [`transport`]; while no SMTP host is set, the mail is captured instead. The transport is [`smtp`], our own lane; a
//!   **trial** ([`trial`]) goes through it step by step and says what it met.
//! * HTML that was not written here gets its styles [`inline`] and a [`text`] part.
//! * A **recipient list** ([`recipient`]) is addresses by purpose; a **suppression** ([`suppression`]) is an address that
//!   gets no mail.
//! * **Links** ([`links`]) let recipients unsubscribe, and count opens and clicks; what they do, and what comes back
//!   ([`bounce`]), is the **activity** ([`activity`]) of a mail.

pub mod activity;
pub mod address;
pub mod bounce;
pub mod channel;
pub mod compose;
pub mod config;
pub mod dkim;
pub mod enqueue;
pub mod fanout;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod inline;
pub mod intake;
pub mod library;
pub mod limit;
pub mod links;
mod markup;
mod message;
pub mod model;
mod outcome;
pub mod queue;
pub mod recipient;
pub mod retention;
pub mod rpc;
mod send;
mod service;
pub mod smtp;
mod store;
pub mod suppression;
pub mod template;
pub mod text;
pub mod transport;
pub mod trial;

pub use channel::EmailChannel;
pub use config::{AuthMode, DkimKey, EmailConfig, OAuth, SharedConfig, Smtp, TlsMode};
pub use enqueue::EnqueueWrite;
pub use fanout::EmailFanout;
pub use message::Composer;
pub use send::{NewAttachment, NewEmail};
pub use service::EmailService;
