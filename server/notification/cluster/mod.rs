//! What crosses nodes, on PostgreSQL.
//!
//! * Durable events need nothing of their own: every node reads the one log (`event::bus`).
//! * **Ephemeral events** ([`relay`]) go through a table that is not logged and keeps them for a minute: the node that they
//!   were published at writes them, a few at a time, and the others read what is new.  Of each topic and collapse key the
//!   newest stays longer, so that a node that starts has what a subscriber may ask for.
//! * **Calls about a stream** of another node ([`mailbox`]) go through a table too: a row is the request, the node that has
//!   the stream adds the answer, and the caller waits for it a moment.
//!
//! Everybody looks a few times a second; [hints](crate::db::hint) only make it faster.

pub mod call;
mod failure;
pub mod mailbox;
pub mod relay;
mod store;
