//! Live notifications: streams of events that can be resumed.
//!
//! A **stream** ([`stream`]) is a position in the event log, a [`view`] and a heartbeat.  It takes events from the bus and
//! from the ephemeral hub as fast as its subscriber reads, and no faster: nothing is queued for a subscriber, so that a slow
//! one costs nothing.  A **frame** ([`frame`]) is a message made of pieces that were encoded once for everybody.  The
//! **registry** ([`registry`]) has all open streams of this node, their limits, and what others change of them.  Users come
//! with a **token** ([`token`]).  **Presence** ([`presence`]) knows whose streams are open on any node, the **dashboard**
//! ([`dashboard`]) publishes the server's own numbers, and the **cluster** ([`cluster`]) carries between nodes what is not in
//! the log.
//!
//! An **inbox** ([`inbox`]) keeps for each user what they were told, and what they have seen of it.

pub mod attendance;
pub mod cluster;
pub mod dashboard;
pub mod frame;
pub mod inbox;
pub mod presence;
pub mod registry;
pub mod rpc;
pub mod stream;
pub mod token;
pub mod view;
