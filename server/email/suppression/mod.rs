//! Addresses that get no mail: of any topic, or of one.
//!
//! An address is on the list once for each topic, and once for every mail (the topic `''`).  People put it there through
//! the API, the far side by refusing it for good, its owner by a complaint or by the link to unsubscribe.  What the
//! server adds by itself never weakens what is there: see [`add_sqlite`].

mod model;
pub mod rpc;
mod service;
mod store;

pub use model::{NewSuppression, Origin, Reason, Suppression, SuppressionFilter, key};
pub use service::{SuppressionChange, SuppressionService};
pub(in crate::email) use store::add;
pub use store::{add_postgres, add_sqlite, forget_expired, suppressed_postgres, suppressed_sqlite};
