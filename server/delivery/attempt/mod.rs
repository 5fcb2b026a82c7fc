//! The log of attempts: what was tried for each delivery, and what the destination said.
//!
//! A row is written in the transaction that writes the attempt's result, and read by the channels' logs.

pub mod store;

pub use store::{AttemptRow, attempts};
