//! Removes entries for their age, so that what is left can still be verified.
//!
//! The last entry that goes leaves its number and its hash, under a MAC: the base, from which the chain goes on.  Whoever can write
//! to the tables can make no other base, and without one the log begins at its first entry.

use super::store::{self, Entry};
use super::{Change, Recorder, broken, fields};
use crate::clock::Timestamp;
use crate::db::Db;
use crate::error::Result;

/// How many go in one transaction.
const BATCH: i64 = 1_000;

impl Recorder {
    /// Removes some entries that are older than `before`, but for the newest of all; answers whether there may be more.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when the log is not as this server left it: what was done to it must not go with its age.
    pub async fn prune(&self, db: &Db, before: Timestamp) -> Result<bool> {
        let recorder = self.clone();
        db.transaction(move |conn| {
            Box::pin(async move {
                let chain = &recorder.chain;
                let head = store::hold_head(conn).await?.ok_or_else(broken)?;
                let (mut seq, mut hash) = match store::base(conn).await? {
                    Some(base) if chain.is_base(&base) => (base.seq, base.hash),
                    Some(_) => return Err(broken()),
                    None => (0, String::new()),
                };
                let begin = seq;
                let old = |entry: &Entry| entry.created_at < before && entry.seq < head.seq;
                for entry in store::after(conn, seq, BATCH).await?.iter().take_while(|entry| old(entry)) {
                    if !chain.follows(entry, seq, &hash) {
                        return Err(broken());
                    }
                    (seq, hash) = (entry.seq, entry.hash.clone());
                }
                if seq == begin {
                    return Ok(false);
                }
                store::cut(conn, chain.base(seq, hash.clone())).await?;
                let last = fields(&serde_json::json!({ "last_seq": seq, "last_hash": hash }));
                recorder.record(conn, Change::new("audit_log", "", "prune").to(last)).await?;
                Ok(seq - begin == BATCH)
            })
        })
        .await
    }
}
