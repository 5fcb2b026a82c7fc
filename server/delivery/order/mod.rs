//! Deliveries in order: of those of one lane with one ordering key, one at a time, in the order of their places.
//!
//! The first of a key is a delivery like every other.  Those behind it are *parked*: they wait for a time that never comes
//! ([`PARKED`]), so that no poll ever looks at them, however many they are.  Whoever ends a delivery makes the next of its
//! key due, in the same transaction ([`store::release`]); whatever the end: a delivery that has failed for good does not
//! keep the others from their destination for ever.
//!
//! On PostgreSQL a publish that parks a delivery and a completion that finds none to release could miss each other.  Both
//! hold a lock of the lane until they have committed ([`store::lock`]).

pub mod store;

use std::sync::Arc;

use crate::clock::Timestamp;

/// When a delivery is due that waits for the one before it.
pub const PARKED: Timestamp = Timestamp::from_micros(253_402_300_799_000_000);

/// What is in order: a lane and a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence {
    /// The lane.
    pub lane: Arc<str>,
    /// The key.
    pub key: Arc<str>,
}
