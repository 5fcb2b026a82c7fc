//! API keys: who may call this server, and the applications behind it.
//!
//! A **key** ([`key`]) is text with a visible prefix, a secret and a checksum.  The database has the prefix and a MAC of
//! the whole key.  The **verifier** ([`verifier`]) answers from memory; it reads a key
//! again every half second, so that a revocation elsewhere takes effect within a second, and here at once.
//! What a key may say of itself is in [`model`], how long it may live in [`policy`].  [`credits`] are uses that run out.

mod announce;
mod change;
pub mod credits;
pub mod key;
pub mod model;
pub mod policy;
pub mod rpc;
pub mod scopes;
mod service;
mod store;
mod verifier;

pub use announce::ANNOUNCE_INTERVAL;
pub use change::Rotation;
pub use service::{ApiKeyService, Creator, NewKey};
pub use store::{ApiKey, KeyFilter};
pub use verifier::Verifier;
