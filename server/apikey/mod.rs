//! API keys: who may call this server, and the applications behind it.
//!
//! A **key** ([`key`]) is text with a visible prefix, a secret and a checksum.  The database has the prefix and a MAC of
//! the whole key.  The **verifier** ([`verifier`]) answers from memory; a revocation takes effect here at once, and on every
//! other node within a second.  [`verify`] is the same for applications whose users have keys, with all that a key is bound by:
//! [`limit`] and [`credits`].
//! What it is used for is counted and logged ([`usage`]), and what somebody should look at is told ([`warnings`]).
//! What a key may say of itself is in [`model`], how long it may live in [`policy`].

mod announce;
mod audited;
mod change;
pub mod credits;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod key;
pub mod limit;
pub mod model;
pub mod policy;
pub mod rpc;
pub mod scopes;
mod service;
mod store;
pub mod usage;
mod verifier;
pub mod verify;
pub mod warnings;

pub use announce::ANNOUNCE_INTERVAL;
pub use change::Rotation;
pub use service::{ApiKeyService, Creator, NewKey};
pub use store::{ApiKey, KeyFilter};
pub use verifier::{FOLLOW_INTERVAL, Verifier};
