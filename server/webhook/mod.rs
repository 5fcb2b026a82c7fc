//! Webhooks: events carried to HTTP endpoints.
//!
//! # Who is who
//! * An **endpoint** ([`model`]) has a URL, the events that it wants and a secret.
//! * The **directory** ([`directory`]) is every endpoint in memory, ready to use.
//! * The **fan-out** ([`fanout`]) makes a delivery of each event for each endpoint that wants it, inside the publish.
//! * The **channel** ([`channel`]) makes one attempt: it signs ([`signature`]), sends ([`client`]) and judges the answer.
//! * The **guard** ([`guard`]) refuses addresses and ports that the server must not be led to, when a URL is saved and
//!   where it is connected to.

pub mod channel;
pub mod client;
pub mod directory;
mod failure;
pub mod fanout;
pub mod guard;
pub mod model;
pub mod rpc;
mod service;
pub mod signature;
mod store;

pub use channel::WebhookChannel;
pub use directory::Directory;
pub use failure::Failure;
pub use fanout::WebhookFanout;
pub use guard::Guard;
pub use service::{DeliveryFilter, Rules, WebhookChange, WebhookService};
