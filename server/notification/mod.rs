//! Live notifications: streams of events that can be resumed.
//!
//! A **stream** ([`stream`]) is a position in the event log, a filter and a heartbeat.  It takes events from the bus as
//! fast as its subscriber reads, and no faster: nothing is queued for a subscriber, so that a slow one costs nothing.  A
//! **frame** ([`frame`]) is a message made of pieces that were encoded once for everybody.  Users come with a **token** ([`token`]).

pub mod frame;
pub mod rpc;
pub mod stream;
pub mod token;
