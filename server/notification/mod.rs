//! Live notifications: streams of events that can be resumed.
//!
//! A **stream** ([`stream`]) is a position in the event log, a filter and a heartbeat.  It takes events from the bus as
//! fast as its subscriber reads, and no faster: nothing is queued for a subscriber, so that a slow one costs nothing.  A
//! **frame** ([`frame`]) is a message made of pieces that were encoded once for everybody.
//!
//! An **inbox** ([`inbox`]) keeps for each user what they were told, and what they have seen of it.

pub mod frame;
pub mod inbox;
pub mod rpc;
pub mod stream;
