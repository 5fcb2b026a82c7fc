//! The use cases of whoever reads the log.

use std::sync::Arc;

use super::Recorder;
use super::chain::Chain;
use super::store::{self, Entry};
use crate::clock::Timestamp;
use crate::db::Db;
use crate::error::{Result, Violations};

/// How long a filter is at most, in bytes.
pub const WORD_LIMIT: usize = 512;
/// How many entries an export reads at a time.
const EXPORT_BATCH: i64 = 500;

/// Which entries to list; what is empty says nothing.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Filter {
    pub actor: String,
    pub action_prefix: String,
    pub resource_type: String,
    pub resource_id: String,
    /// From this time on.
    pub start: Option<Timestamp>,
    /// Before this time.
    pub end: Option<Timestamp>,
}

impl Filter {
    fn check(&self) -> Result<()> {
        let mut violations = Violations::default();
        for (field, text) in [
            ("actor", &self.actor),
            ("resource_type", &self.resource_type),
            ("resource_id", &self.resource_id),
        ] {
            let ok = text.len() <= WORD_LIMIT && !text.contains('\0');
            violations.require(ok, field, "must have at most 512 bytes");
        }
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_' || byte == b'.';
        let ok = self.action_prefix.len() <= WORD_LIMIT && self.action_prefix.bytes().all(letter);
        violations.require(ok, "action_prefix", "must be the begin of an action, of a-z, _ and .");
        if let (Some(start), Some(end)) = (self.start, self.end) {
            violations.require(start < end, "end_time", "must be later than start_time");
        }
        violations.finish()
    }
}

/// Reads and verifies the log.
#[derive(Clone)]
pub struct AuditService {
    pub(super) db: Db,
    pub(super) chain: Arc<Chain>,
}

impl AuditService {
    /// Reads what a recorder writes.
    pub fn new(db: Db, recorder: &Recorder) -> Self {
        Self { db, chain: Arc::clone(&recorder.chain) }
    }

    /// Entries before this number, the newest first.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with everything that is wrong with the filter.
    pub async fn list(&self, before: Option<i64>, filter: &Filter, limit: usize) -> Result<Vec<Entry>> {
        filter.check()?;
        let (before, limit) = (before.unwrap_or(i64::MAX), i64::try_from(limit).unwrap_or(i64::MAX));
        store::before(&mut self.db.reader().await?, before, filter, limit).await
    }

    /// The next entries after this number, the oldest first; none at the end.
    pub async fn export(&self, after: i64) -> Result<Vec<Entry>> {
        store::after(&mut self.db.reader().await?, after, EXPORT_BATCH).await
    }
}
