//! Email: mails rendered from templates, queued and sent.
//!
//! # Who is who
//! * A **template** ([`template`]) is compiled into the binary; it turns variables into subject, HTML and text.
//! * A **mail** ([`model`]) is a row of `email_queue`: recipients, and a template with variables or raw content.
//! * The **fan-out** ([`fanout`]) turns events into mails by the routes, inside the publish; [`enqueue`] is SendEmail's way
//!   into the queue.
//! * The **channel** ([`channel`]) makes one attempt: it renders, [`compose`]s and hands over to the [`transport`]; while
//!   no SMTP host is set, the mail is captured instead.
//! * A **recipient list** ([`recipient`]) is addresses by purpose.

pub mod address;
pub mod channel;
mod compose;
pub mod config;
pub mod enqueue;
pub mod fanout;
pub mod model;
pub mod recipient;
pub mod rpc;
mod service;
pub mod smtp;
mod store;
pub mod template;
pub mod transport;

pub use channel::EmailChannel;
pub use config::{AuthMode, DkimKey, EmailConfig, OAuth, SharedConfig, Smtp, TlsMode};
pub use enqueue::EnqueueWrite;
pub use fanout::EmailFanout;
pub use service::{EmailFilter, EmailService, NewEmail};
