//! Mails that came back, and mails that were called spam, as reports that somebody hands in.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod parse;
mod rpc;
mod service;
mod status;
mod store;

pub use service::{BounceService, Bounced};
