//! Tokens of users: what a browser or an app shows in the place of an API key.
//!
//! ```text
//! application ─ CreateSubscriberToken ─▶ service ─▶ signer (a key of the keyring) ─▶ token ─▶ the user's browser
//! browser ─ authorization: Bearer ─▶ callers ─┬─▶ signer            made here: a MAC, from memory
//!                                             └─▶ provider ─▶ JWKS  made by the application's identity provider
//!                                   then: time ─▶ revocations ─▶ the key that made it ─▶ Principal with a User
//! ```
//! A token is a JWT in its compact form ([`jwt`]).  Those of this server begin with a header that never differs, so that it is
//! compared and not read ([`signer`]); every other one is the identity provider's ([`provider`]), whose keys are public ones and
//! whose algorithms are none that a public key could be used as a secret of.  What was verified is kept for a while ([`memory`]).
//!
//! A user's tokens are ended all at once ([`revocations`]), and those that a key made end with the key.

mod callers;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod jwt;
mod memory;
pub mod model;
pub mod provider;
mod revocations;
mod service;
pub mod signer;
mod store;

pub use callers::Callers;
pub use model::NewToken;
pub use revocations::{FOLLOW_INTERVAL, Revocations};
pub use service::TokenService;
pub use signer::Signer;
