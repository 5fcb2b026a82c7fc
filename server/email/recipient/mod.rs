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

/// Checks a list: what is taken is addresses in their one written form.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(description: String, addresses: Vec<String>) {
    let change = ListChange { description: Some(description), addresses: Some(addresses), version: None };
    let mut violations = crate::error::Violations::default();
    let read = service::check(&change, &mut violations);
    if violations.finish().is_ok() {
        let read = read.expect("addresses were given");
        assert!(read.len() <= 1_000);
        for text in &read {
            assert_eq!(super::address::parse(text).expect("it is an address").to_string(), *text);
        }
    }
}

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
