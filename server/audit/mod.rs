//! The audit log: who changed what, when and why.
//!
//! Every capability records its changes with a [`Recorder`], in the transaction of the change: no entry, no change, and no
//! entry without one.  The entries are a chain.  Each has the next number and a keyed hash (HMAC-SHA256, RFC 2104) over all of it
//! and the hash before it, and a head says where the chain ends, under a hash of its own.  The key is sealed by the master
//! key, which lives outside the database: whoever can write to the tables can break the chain and not mend it.

mod chain;
mod entry;
mod prune;
mod read;
pub mod rpc;
mod store;
mod verify;

use std::sync::Arc;

pub use entry::{Change, fields};
pub use read::{AuditService, Filter, WORD_LIMIT};
pub use store::Entry;
pub use verify::{Checkpoint, Fault, Problem, Report};

use self::chain::Chain;
use crate::clock::SharedClock;
use crate::db::{Conn, Db, revision};
use crate::error::{Error, Kind, Result};
use crate::failpoint;
use crate::origin;
use crate::secret::KEY_LENGTH;

/// Writes entries.
#[derive(Clone)]
pub struct Recorder {
    chain: Arc<Chain>,
    clock: SharedClock,
}

impl Recorder {
    /// A recorder with this key; gives a new database the head of its log.
    ///
    /// # Errors
    /// When the database can not be written.
    pub async fn open(db: &Db, key: &[u8; KEY_LENGTH], clock: SharedClock) -> Result<Self> {
        let chain = Arc::new(Chain::new(key));
        let first = chain.head(0, String::new());
        db.transaction(move |conn| {
            Box::pin(async move {
                // Once, and never again: a head that is gone later was taken away.
                if revision::mark(conn, "audit_head").await? {
                    store::insert_head(conn, first).await?;
                }
                Ok(())
            })
        })
        .await?;
        Ok(Self { chain, clock })
    }

    /// Records a change, in its transaction.  It comes last in it: other changes wait from here to the commit.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when the end of the log is not as this server left it; then nothing may be changed, because an
    /// entry would cover up what was done to the log.
    pub async fn record(&self, conn: &mut Conn, change: Change) -> Result<()> {
        self.record_all(conn, vec![change]).await
    }

    /// Records several changes, in their transaction.
    ///
    /// # Errors
    /// As [`Recorder::record`].
    pub async fn record_all(&self, conn: &mut Conn, changes: Vec<Change>) -> Result<()> {
        if changes.is_empty() || failpoint::bug("audit_entry_missing") {
            return Ok(());
        }
        let origin = origin::current();
        let now = self.clock.now();
        let head = store::hold_head(conn).await?.ok_or_else(broken)?;
        if !self.chain.is_head(&head) {
            return Err(broken());
        }
        let (mut seq, mut hash) = (head.seq, head.hash);
        for change in changes {
            seq += 1;
            let mut entry = change.entry(&origin, seq, now, hash);
            entry.hash = self.chain.hash(&entry);
            hash = entry.hash.clone();
            store::insert(conn, entry).await?;
        }
        store::set_head(conn, self.chain.head(seq, hash)).await
    }

    /// Stands for a secret in an entry: says whether two values of one place are the same, and nothing else.
    pub fn fingerprint(&self, place: &str, secret: &str) -> String {
        self.chain.fingerprint(place, secret)
    }
}

fn broken() -> Error {
    let message = "the end of the audit log is not as the server left it, and so nothing can be changed: see `switchboard \
                   audit verify`";
    Error::new(Kind::FailedPrecondition, "AUDIT_LOG_BROKEN", message)
}
