//! What there is: the data keys, what each seals, and whether everything opens.

use std::collections::HashMap;

use super::sealed::SEALED;
use super::{refresh, rows};
use crate::clock::Timestamp;
use crate::db::Db;
use crate::error::Result;
use crate::secret::{Sealer, named_by};

/// How many values are opened at a time.
const PAGE: i64 = 500;

/// A data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKey {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub purpose: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When another one took its place.
    pub retired_at: Option<Timestamp>,
    /// How many values it seals; `None` for one that does not seal.
    pub values: Option<i64>,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The keys, in the order in which they were made.
    pub keys: Vec<DataKey>,
    /// Values that do not name their key, from before they did: the oldest key sealed them.
    pub unnamed: i64,
}

/// Looks at the keys and counts what they seal.
pub async fn status(db: &Db) -> Result<Status> {
    let mut conn = db.reader().await?;
    let rows = rows(&mut conn).await?;
    let mut counts: HashMap<Vec<u8>, i64> = HashMap::new();
    for column in SEALED {
        for group in column.groups(&mut conn).await? {
            *counts.entry(group.head).or_default() += group.count;
        }
    }
    let keys: Vec<DataKey> = rows
        .into_iter()
        .map(|row| DataKey {
            values: row.seals().then(|| counts.remove(&named_by(row.number())).unwrap_or(0)),
            id: row.id,
            purpose: row.purpose,
            created_at: row.created_at,
            retired_at: row.retired_at,
        })
        .collect();
    Ok(Status { keys, unnamed: counts.into_values().sum() })
}

/// What came of opening every sealed value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// How many open.
    pub good: usize,
    /// The places of the others.
    pub broken: Vec<String>,
}

/// Opens every sealed value there is.
pub async fn check(db: &Db, sealer: &Sealer) -> Result<Check> {
    let mut check = Check::default();
    for column in SEALED {
        let mut after = None;
        loop {
            let mut conn = db.reader().await?;
            let page = column.page(&mut conn, after.as_ref(), PAGE).await?;
            refresh(&mut conn, sealer).await?;
            for value in &page {
                let row = column.row(value);
                match sealer.open(column.place(&row), &value.sealed) {
                    Ok(_) => check.good += 1,
                    Err(_) => check.broken.push(format!("{}.{} of {row}", column.table, column.column)),
                }
            }
            after = page.into_iter().last();
            if after.is_none() {
                break;
            }
        }
    }
    Ok(check)
}
