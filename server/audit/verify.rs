//! Verification: whether the log is what was recorded, and if not, where it begins to differ.

use std::fmt;
use std::str::FromStr;

use super::read::AuditService;
use super::store::{self, Entry, Head};
use crate::error::{Error, Result};

/// How many entries are in memory at a time.
const BATCH: i64 = 1_000;

/// The end of the log at some time, to be kept elsewhere: a log that has no such entry any more was put back to an older
/// state, or made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The number of its last entry; 0 for an empty log.
    pub seq: i64,
    /// The hash of that entry.
    pub hash: String,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Checkpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once(':').and_then(|(seq, hash)| Some((seq.parse().ok()?, hash)));
        match parts {
            Some((seq, hash)) if seq >= 0 => Ok(Self { seq, hash: hash.to_owned() }),
            _ => Err("is not a checkpoint of an audit log"),
        }
    }
}

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The entry is not there.
    Missing,
    /// The entry, or its hash, is not what was recorded.
    Altered,
    /// The entry does not follow the one before it.
    Unlinked,
    /// The entry has a number that none can have.
    Unexpected,
    /// The head is not there, or is not the one that was recorded with this entry, the last one.
    Head,
    /// The entry is another one than the checkpoint's.
    Checkpoint,
}

impl Problem {
    /// The problem in words.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Missing => "the entry is missing",
            Self::Altered => "the entry is not what was recorded",
            Self::Unlinked => "the entry does not follow the one before it",
            Self::Unexpected => "no entry can have this number",
            Self::Head => "the head of the log is not the one that was recorded with this entry",
            Self::Checkpoint => "the entry is not the one of the checkpoint",
        }
    }
}

/// The first entry that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Its number.
    pub seq: i64,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many entries are as they were recorded.
    pub checked: i64,
    /// The first one that is not.
    pub fault: Option<Fault>,
    /// The last entry that is, to be kept elsewhere.
    pub checkpoint: Checkpoint,
}

/// How far a verification is.
struct Walk {
    from: i64,
    checked: i64,
    /// The last entry that is well.  Its hash is empty until one was read.
    last: Checkpoint,
    expected: Option<Checkpoint>,
}

impl AuditService {
    /// Verifies the log from this entry on, or all of it that is kept; and that it has the entry of a checkpoint.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an entry that there is not yet, and for a checkpoint before it or before what is kept.
    pub async fn verify(&self, from: i64, checkpoint: Option<Checkpoint>) -> Result<Report> {
        let from = from.max(1);
        if from > 1 {
            let head = store::head(&mut self.db.reader().await?).await?;
            if head.is_some_and(|head| from > head.seq + 1) {
                return Err(Error::field("from_seq", "is newer than the newest entry"));
            }
        }
        if checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.seq < from - 1) {
            return Err(Error::field("checkpoint", "must not be older than from_seq"));
        }
        loop {
            let base = self.base().await?;
            let is_older = |checkpoint: &Checkpoint| checkpoint.seq < base.seq;
            if checkpoint.as_ref().is_some_and(is_older) {
                let what = format!("is older than the log, which goes on from entry {}", base.seq);
                return Err(Error::field("checkpoint", what));
            }
            let report = self.walk(from, &base, checkpoint.clone()).await?;
            // What was removed for its age meanwhile is not missing.
            if report.fault.is_none() || self.base().await? == base {
                return Ok(report);
            }
        }
    }

    /// The last entry that was removed for its age; the one before the first where there is no such, or none that the key made.
    async fn base(&self) -> Result<Checkpoint> {
        let base = store::base(&mut self.db.reader().await?).await?;
        let base = base.filter(|base| self.chain.is_base(base));
        Ok(base.map_or(Checkpoint { seq: 0, hash: String::new() }, |base| Checkpoint {
            seq: base.seq,
            hash: base.hash,
        }))
    }

    async fn walk(&self, from: i64, base: &Checkpoint, checkpoint: Option<Checkpoint>) -> Result<Report> {
        let whole = from <= base.seq + 1;
        let from = from.max(base.seq + 1);
        // One entry more than asked for, because the first is to follow it.
        let last = if whole { base.clone() } else { Checkpoint { seq: from - 2, hash: String::new() } };
        if let Some(wrong) =
            checkpoint.as_ref().filter(|one| base.seq > 0 && one.seq == base.seq && one.hash != base.hash)
        {
            let fault = Some(Fault { seq: wrong.seq, problem: Problem::Checkpoint });
            return Ok(Report { checked: 0, fault, checkpoint: last });
        }
        let start = last.seq;
        let mut walk = Walk { from, checked: 0, last, expected: checkpoint };
        let fault = loop {
            let mut conn = self.db.reader().await?;
            // The head first: what is recorded meanwhile is beyond it and no fault, and what it counts must be there.
            let head = store::head(&mut conn).await?;
            let after =
                if walk.last.seq == start && (whole || start == 0) { i64::MIN } else { walk.last.seq };
            let entries = store::after(&mut conn, after, BATCH).await?;
            drop(conn);
            if entries.is_empty() {
                break walk.end(self, head);
            }
            let mut entries = entries.iter();
            if let Some(fault) = entries.find_map(|entry| walk.step(self, entry)) {
                break Some(fault);
            }
        };
        Ok(Report { checked: walk.checked, fault, checkpoint: walk.last })
    }
}

impl Walk {
    /// What is wrong with the next entry.
    fn step(&mut self, service: &AuditService, entry: &Entry) -> Option<Fault> {
        let next = self.last.seq + 1;
        let is_anchor = next < self.from;
        let fault = |seq, problem| Some(Fault { seq, problem });
        if entry.seq > next {
            return fault(next, Problem::Missing);
        }
        if entry.seq < next {
            return fault(entry.seq, Problem::Unexpected);
        }
        if entry.hash != service.chain.hash(entry) {
            return fault(entry.seq, Problem::Altered);
        }
        if !is_anchor && entry.prev_hash != self.last.hash {
            return fault(entry.seq, Problem::Unlinked);
        }
        if self.expected.as_ref().is_some_and(|one| one.seq == entry.seq && one.hash != entry.hash) {
            return fault(entry.seq, Problem::Checkpoint);
        }
        self.last = Checkpoint { seq: entry.seq, hash: entry.hash.clone() };
        self.checked += i64::from(!is_anchor);
        None
    }

    /// What is wrong with the end.
    fn end(&self, service: &AuditService, head: Option<Head>) -> Option<Fault> {
        let last = &self.last;
        let is_short = self.expected.as_ref().is_some_and(|expected| expected.seq > last.seq);
        let (seq, problem) = match head {
            Some(head) if service.chain.is_head(&head) => {
                if head.seq > last.seq || is_short {
                    (last.seq + 1, Problem::Missing)
                } else if head.seq < last.seq {
                    (head.seq + 1, Problem::Unexpected)
                } else if head.hash != last.hash {
                    (last.seq, Problem::Head)
                } else {
                    return None;
                }
            }
            _ => (last.seq, Problem::Head),
        };
        Some(Fault { seq, problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_text() {
        let checkpoint = Checkpoint { seq: 7, hash: "ab".into() };
        assert_eq!(checkpoint.to_string(), "7:ab");
        assert_eq!("7:ab".parse(), Ok(checkpoint));
        for bad in ["", "7", "x:ab", "-1:ab"] {
            assert!(bad.parse::<Checkpoint>().is_err(), "{bad}");
        }
    }
}
