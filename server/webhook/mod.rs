//! Webhooks: events carried to HTTP endpoints.
//!
//! # Who is who
//! * An **endpoint** ([`model`]) has a URL, the events that it wants and a secret.
//! * The **directory** ([`directory`]) is every endpoint in memory, ready to use.
//! * The **fan-out** ([`fanout`]) makes a delivery of each event for each endpoint that wants it, inside the publish.
//! * The **channel** ([`channel`]) makes one attempt: it signs ([`signature`]), sends ([`client`]) and judges the answer; the
//!   [`policy`] says whether and when there is another.
//! * A **secret** ([`mod@secret`]) can be replaced by a [`rotation`]; public [`keys`] are published.
//! * A [`replay`] sends once more what has ended, and tests an endpoint.
//! * The **health** ([`health`]) of an endpoint decides whether it is probed, told of or disabled.
//! * The **statistics** ([`stats`]) count requests without reading the log.
//! * The **guard** ([`guard`]) refuses addresses and ports that the server must not be led to, when a URL is saved and
//!   where it is connected to.

pub mod channel;
pub mod client;
pub mod directory;
mod failure;
pub mod fanout;
pub mod guard;
pub mod health;
pub mod keys;
pub mod model;
pub mod policy;
mod replay;
pub mod rotation;
pub mod rpc;
pub mod secret;
mod service;
pub mod signature;
pub mod stats;
mod store;

pub use channel::{Sender, WebhookChannel};
pub use directory::Directory;
pub use failure::Failure;
pub use fanout::WebhookFanout;
pub use guard::Guard;
pub use policy::{Defaults, RetryPolicy};
pub use service::{DeliveryFilter, NewSecret, RetryFilter, Rules, WebhookChange, WebhookService};
