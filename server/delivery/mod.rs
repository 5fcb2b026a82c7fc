//! The delivery engine: it carries every channel's deliveries, and knows none of the channels.
//!
//! # Who is who
//! * A **delivery** is a row of `webhook_deliveries` or `email_queue` ([`Table`]): one piece of work for one destination.
//! * A **channel** ([`Channel`]) says how one attempt is made and what its outcome means; nothing else.
//! * A **lane** ([`lane`]) is the queue of one destination on this node, with its own workers: what waits for a slow
//!   destination occupies that destination's lane only.
//! * The **state machine** ([`machine`]) is a pure function; every change of state in the system is one of its steps.
//! * A **sequence** ([`order`]) is what must arrive in order: one delivery at a time, the others parked behind it.
//! * A **lease** says which node has a delivery in hand: an owner and a token that grows with every claim.
//!
//! # The flow
//! ```text
//! publish ── one commit ──▶ rows, those with room in their lane already leased to this node (`sending`)
//!        └─ after commit ─▶ lane ─▶ worker ─▶ Channel::attempt ─▶ completion (grouped commit)
//!                             ▲                                     ├─▶ state by machine::next, and an attempt row
//! poller: rows that are due ──┘ claims, for each lane with room     └─▶ frees the slot in the lane
//! ```
//!
//! # Guarantees
//! * What was acknowledged is attempted until it ends in a final state: it is a row before it is acknowledged, and rows
//!   in the hands of a node that died return to the queue (at start on SQLite, when the node's lease ends on
//!   PostgreSQL).
//! * A destination gets a delivery twice only when an attempt's result could not be made durable: after a crash, or when
//!   the remote outcome is unknown.  At most [`Limits::lane`] per destination are in that state at any time, because a
//!   slot is freed only by the commit of its result.  A repeat has the same id.
//! * A result is written only by the holder of the lease: a worker that comes late is refused.
//! * Nothing is delivered that was not committed: hand-over happens after the commit.
//! * A clock that is set back keeps nothing waiting ([`set_back`]).

pub mod attempt;
mod block;
mod completion;
pub mod engine;
pub mod lane;
pub mod limit;
pub mod machine;
pub mod model;
pub mod node;
pub mod order;
mod poller;
pub mod retention;
mod set_back;
pub mod store;
mod worker;

pub use block::{Hold, Room};
pub use completion::{Completion, Effect, Ledger};
pub use engine::{Attempt, Batching, Channel, Dispatch, Engine, Leased};
pub use lane::{CONCURRENCY, Limits, Slot};
pub use machine::{Input, Outcome, Policy, Status, next};
pub use model::{State, Table};
pub use node::Node;
pub use order::Sequence;
