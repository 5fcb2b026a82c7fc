//! Reads from the log, for those whose place the ring does not reach back to.
//!
//! Whoever wants all, or is not far behind, shares what it reads: those who come back together after a restart read the
//! same few pieces of the log, each once.  Whoever wants a few topics and is far behind asks for these alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Mutex;

use super::wanted::Wanted;
use super::{BATCH, Read, Record};
use crate::db::Db;
use crate::error::Result;
use crate::event::{Event, log, topic};

/// How many pieces are kept for the next who needs them.
const PIECES: usize = 16;
/// How many bytes they have together at the most, if there is more than one.
const BYTES: usize = 16 * 1024 * 1024;
/// About as many bytes are read at a time.
const PIECE_BYTES: usize = 2 * 1024 * 1024;
const FEWEST: usize = 16;
/// Whoever is further behind than this and wants a few topics only asks for these.
const FAR: i64 = 4 * BATCH as i64;

/// What the ring says of itself when it is asked for what it does not have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// How far the log is known.
    pub last: i64,
    /// How often everything was forgotten.
    pub forgotten: u64,
}

/// What is read from the log.
pub(super) struct Behind {
    db: Db,
    /// The pieces that were read last, the newest first.
    pieces: Mutex<VecDeque<Piece>>,
    /// About how large events are.
    size: AtomicUsize,
}

struct Piece {
    after: i64,
    read: Read,
    bytes: usize,
    forgotten: u64,
}

impl Behind {
    pub fn new(db: Db) -> Self {
        Self { db, pieces: Mutex::default(), size: AtomicUsize::new(PIECE_BYTES / BATCH) }
    }

    /// What follows `position` and is wanted; `None` when the log no longer has all of it.
    pub async fn after(
        &self,
        position: i64,
        wanted: &Wanted,
        limit: usize,
        known: Known,
    ) -> Result<Option<Read>> {
        if let Wanted::Exactly(topics) = wanted
            // Most events are of the default topic: they are found by their position.
            && known.last - position > FAR
            && topics.iter().all(|topic| **topic != *topic::DEFAULT)
        {
            return self.of_topics(position, topics, limit, known).await;
        }
        let Some(read) = self.shared(position, known).await? else { return Ok(None) };
        let skip = read.records.partition_point(|record| record.event.position <= position);
        let takes = |record: &&Arc<Record>| wanted.takes(&record.event.fact.topic);
        let mut records: Vec<_> =
            read.records[skip..].iter().filter(takes).take(limit + 1).cloned().collect();
        let mut through = read.through;
        if records.len() > limit {
            records.truncate(limit);
            through = records.last().map_or(position, |record| record.event.position);
        }
        Ok(Some(Read { records, through }))
    }

    async fn of_topics(
        &self,
        position: i64,
        topics: &[Arc<str>],
        limit: usize,
        known: Known,
    ) -> Result<Option<Read>> {
        let limit = limit.min(self.batch());
        let mut conn = self.db.reader().await?;
        let events = log::read_topics_after(&mut conn, position, topics, limit as i64).await?;
        // Asked after they were read: what was there then is whole if the log still begins before it.
        if position < log::start(&mut conn).await? {
            return Ok(None);
        }
        Ok(Some(self.read(events, limit, known.last)))
    }

    /// A piece of the log that goes on from `position`, shared with all who need it.
    async fn shared(&self, position: i64, known: Known) -> Result<Option<Read>> {
        // Held while it is read, so that nobody reads the same again.
        let mut pieces = self.pieces.lock().await;
        pieces.retain(|piece| piece.forgotten == known.forgotten);
        if let Some(piece) =
            pieces.iter().find(|piece| piece.after <= position && position < piece.read.through)
        {
            return Ok(Some(piece.read.clone()));
        }
        let limit = self.batch();
        let mut conn = self.db.reader().await?;
        let events = log::read_after(&mut conn, position, limit as i64).await?;
        if position < log::start(&mut conn).await? {
            return Ok(None);
        }
        drop(conn);
        let read = self.read(events, limit, known.last);
        let bytes = read.records.iter().map(|record| record.weight()).sum();
        pieces.push_front(Piece { after: position, read: read.clone(), bytes, forgotten: known.forgotten });
        pieces.truncate(PIECES);
        while pieces.len() > 1 && pieces.iter().map(|piece| piece.bytes).sum::<usize>() > BYTES {
            pieces.pop_back();
        }
        Ok(Some(read))
    }

    fn read(&self, events: Vec<Event>, limit: usize, known: i64) -> Read {
        let all = events.len() < limit;
        let records: Vec<_> = events.into_iter().map(Record::new).collect();
        if !records.is_empty() {
            let bytes: usize = records.iter().map(|record| record.weight()).sum();
            self.size.store(bytes / records.len(), Ordering::Relaxed);
        }
        let last = records.last().map(|record| record.event.position);
        let through = match last {
            Some(last) if all => last.max(known),
            Some(last) => last,
            None => known,
        };
        Read { records, through }
    }

    /// How many events to read: fewer when they are large.
    fn batch(&self) -> usize {
        (PIECE_BYTES / self.size.load(Ordering::Relaxed).max(1)).clamp(FEWEST, BATCH)
    }
}
