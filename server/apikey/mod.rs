//! API keys: who may call this server.
//!
//! A **key** ([`key`]) is text with a visible prefix, a secret and a checksum.  The database has the prefix and a MAC of
//! the whole key.  The **verifier** ([`verifier`]) answers from memory; it reads a key
//! again every half second, so that a revocation elsewhere takes effect within a second, and here at once.

pub mod key;
pub mod rpc;
mod service;
mod store;
mod verifier;

pub use service::{ApiKeyService, NewKey};
pub use store::ApiKey;
pub use verifier::Verifier;
