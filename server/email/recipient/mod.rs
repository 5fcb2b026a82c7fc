//! Recipient lists: addresses by purpose, for routes to name.

mod portable;
pub mod rpc;
mod service;
pub mod store;

pub use service::{ListChange, RecipientListService};
pub use store::RecipientList;

use crate::clock::Timestamp;
use crate::db::Conn;
use crate::error::Result;

/// The lists that a new database starts with, empty: name and purpose.
const SEEDS: [(&str, &str); 5] = [
    ("tickets_critical", "Told of critical tickets"),
    ("tickets_all", "Told of every ticket"),
    ("low_stock", "Told of items below their reorder level"),
    ("user_created", "Told of new accounts"),
    ("system_alerts", "Told of critical notifications"),
];

/// Adds the default lists; to be called once, in the transaction that marks the database as seeded.
pub async fn seed(conn: &mut Conn, now: Timestamp) -> Result<()> {
    for (name, description) in SEEDS {
        let list = RecipientList {
            name: name.into(),
            description: description.into(),
            addresses: Vec::new().into(),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        store::insert(conn, &list).await?;
    }
    Ok(())
}
