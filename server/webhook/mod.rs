//! Webhooks: events carried to HTTP endpoints.
//!
//! # Who is who
//! * An **endpoint** ([`model`]) has a URL, the events that it wants and a secret.
//! * The **directory** ([`directory`]) is every endpoint in memory, ready to use.
//! * The **fan-out** ([`fanout`]) makes a delivery of each event for each endpoint that wants it, inside the publish.
//! * A [`mode`] says how an endpoint wants its events: one by one, in order, in batches, or, where it can not be reached, by a [`pull`].
//! * The **channel** ([`channel`]) makes one attempt: its [`sender`] signs ([`signature`]), sends ([`client`]) and judges the
//!   answer; the [`policy`] says whether and when there is another.
//! * The **health** ([`health`]) of an endpoint decides whether it is probed, told of or disabled.
//! * An endpoint can have **trust** ([`trust`]) of its own: authorities, and a certificate that the server shows.
//! * A **secret** ([`mod@secret`]) can be replaced by a [`rotation`]; public [`keys`] are published.
//! * The [`log`] shows what was sent and answered.
//! * A [`replay`] sends once more what has ended, and tests an endpoint; a [`backfill`] sends what was published before.
//! * The **statistics** ([`stats`]) count requests without reading the log.
//! * The **guard** ([`guard`]) refuses addresses and ports that the server must not be led to, when a URL is saved and
//!   where it is connected to; a [`proxy`] can be the way there.

pub mod audited;
pub mod backfill;
mod channel;
pub mod client;
mod clients;
pub mod directory;
mod erase;
mod failure;
pub mod fanout;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod guard;
pub mod health;
pub mod keys;
pub mod log;
mod message;
pub mod mode;
pub mod model;
mod network;
pub mod policy;
mod portable;
pub mod proxy;
pub mod pull;
mod replay;
pub mod rotation;
pub mod rpc;
pub mod secret;
mod sender;
mod service;
pub mod signature;
pub mod stats;
mod store;
pub mod trust;

pub use channel::WebhookChannel;
pub use clients::Clients;
pub use directory::Directory;
pub use erase::WebhookTraces;
pub use failure::Failure;
pub use fanout::WebhookFanout;
pub use guard::Guard;
pub use mode::DeliveryMode;
pub use policy::{Defaults, RetryPolicy};
pub use proxy::Proxy;
pub use sender::Sender;
pub use service::{DeliveryFilter, NewSecret, RetryFilter, Rules, WebhookChange, WebhookService};
