//! One subscriber's stream.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::frame::{self, Frame, SubscribeFrame as _};
use crate::clock::{SharedClock, Stopwatch};
use crate::db::Db;
use crate::error::{Result, Violations};
use crate::event::bus::{Bus, Record, Watcher};
use crate::event::cursor::Cursor;
use crate::event::log;
use crate::event::pattern::{Pattern, parse_all};
use crate::pb::switchboard::notification::v1::{Closing, Opened, Resync, closing, resync};
use crate::rpc::convert::{duration, timestamp};
use crate::rpc::{Authenticate, Principal};

const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(20);
const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(1);
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(50);
const FILTER_LIMIT: usize = 100;
/// A frame takes no more events once it has this many, or this many bytes of payload.
const FRAME_EVENTS: usize = 64;
const FRAME_BYTES: usize = 16 * 1024;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a subscriber asks for.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Wish {
    pub event_types: Vec<String>,
    pub subjects: Vec<String>,
    pub cursor: String,
    pub heartbeat: Option<Duration>,
}

/// What streams need.
#[derive(Clone)]
pub struct Source {
    /// The database, for what is older than the bus remembers.
    pub db: Db,
    /// The live end of the log.
    pub bus: Arc<Bus>,
    /// Knows whether a key still works.
    pub authenticate: Arc<dyn Authenticate>,
    /// The time.
    pub clock: SharedClock,
    /// Ends all streams.
    pub stop: CancellationToken,
}

/// A stream.
pub struct Stream {
    source: Source,
    principal: Principal,
    watcher: Watcher,
    patterns: Vec<Pattern>,
    subjects: Vec<String>,
    heartbeat: Duration,
    position: i64,
    /// The first frame, until it is taken.
    first: Option<Frame>,
    /// What was read and not yet sent, newest first.
    pending: Vec<Arc<Record>>,
    sent: Stopwatch,
    checked: Stopwatch,
    /// Told when a key or token may have ended.
    revoked: watch::Receiver<u64>,
    ended: bool,
}

impl Stream {
    /// Opens a stream.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a bad filter, or for a cursor that is none.
    pub async fn open(source: Source, principal: Principal, wish: Wish) -> Result<Self> {
        let mut violations = Violations::default();
        violations.require(
            wish.event_types.len() <= FILTER_LIMIT,
            "event_types",
            "must have at most 100 entries",
        );
        violations.require(wish.subjects.len() <= FILTER_LIMIT, "subjects", "must have at most 100 entries");
        let patterns = parse_all(&mut violations, "event_types", &wish.event_types);
        let heartbeat = wish.heartbeat.unwrap_or(DEFAULT_HEARTBEAT);
        let sane = (SHORTEST_HEARTBEAT..=LONGEST_HEARTBEAT).contains(&heartbeat);
        violations.require(sane, "heartbeat_interval", "must be 1 to 50 seconds");
        let cursor = Cursor::decode(&wish.cursor);
        let readable = wish.cursor.is_empty() || cursor.is_some();
        violations.require(readable, "cursor", "is not a cursor of this server");
        violations.finish()?;

        let (watcher, mut revoked) = (source.bus.watch(), source.authenticate.revoked());
        // What was told between the gate and here was told to nobody.
        revoked.mark_changed();
        let (position, gap) = start(&source, cursor).await?;
        let opened = Opened {
            heartbeat_interval: Some(duration(heartbeat)),
            resumed: cursor.is_some() && gap.is_none(),
            server_time: Some(timestamp(source.clock.now())),
            max_filters: FILTER_LIMIT as i32,
            ..Opened::default()
        };
        let mut first = Frame::at(Cursor { epoch: source.bus.epoch(), position }).opened(&opened);
        if let Some(reason) = gap {
            first = first.resync(Resync { reason: reason.into() });
        }
        Ok(Self {
            source,
            principal,
            watcher,
            patterns,
            subjects: wish.subjects,
            heartbeat,
            position,
            first: Some(first),
            pending: Vec::new(),
            sent: Stopwatch::start(),
            checked: Stopwatch::start(),
            revoked,
            ended: false,
        })
    }

    /// The next frame; `None` ends the stream.
    pub async fn next(&mut self) -> Option<Frame> {
        if self.ended {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let frame = match self.advance().await {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(%error, "a live stream could not read the log");
                self.close(closing::Reason::Unavailable, true)
            }
        };
        self.sent = Stopwatch::start();
        Some(frame)
    }

    async fn advance(&mut self) -> Result<Frame> {
        loop {
            if self.source.stop.is_cancelled() {
                return Ok(self.close(closing::Reason::Drain, true));
            }
            // A key that ends must end its streams, busy ones too: at once when it is ended, and soon when its time is over.
            let told = self.revoked.has_changed().unwrap_or(false);
            if told || self.checked.elapsed() >= self.heartbeat {
                self.revoked.mark_unchanged();
                self.checked = Stopwatch::start();
                if !self.source.authenticate.is_valid(&self.principal).await {
                    return Ok(self.close(closing::Reason::KeyEnded, false));
                }
            }
            if self.pending.is_empty() {
                self.pending = self.watcher.after(self.position).await?;
                self.pending.reverse();
            }
            let read = !self.pending.is_empty();
            if let Some(frame) = self.take() {
                return Ok(frame);
            }
            let left = self.heartbeat.saturating_sub(self.sent.elapsed());
            if left.is_zero() {
                return Ok(Frame::at(self.cursor()));
            }
            if read {
                // Nothing of it was wanted; there may be more behind it.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = self.watcher.changed() => {}
                _ = self.revoked.changed() => self.revoked.mark_changed(),
                () = tokio::time::sleep(left) => {}
                () = self.source.stop.cancelled() => {}
            }
        }
    }

    /// A frame of what is pending and wanted; `None` when nothing is.
    fn take(&mut self) -> Option<Frame> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        while events.len() < FRAME_EVENTS && bytes < FRAME_BYTES {
            let Some(record) = self.pending.pop() else { break };
            self.position = record.event.position;
            if self.wants(&record) {
                let piece = frame::encoded(&record, self.source.bus.epoch());
                bytes += piece.len();
                events.push(piece);
            }
        }
        if events.is_empty() {
            return None;
        }
        let mut frame = Frame::at(self.cursor());
        events.into_iter().for_each(|event| frame.push(event));
        Some(frame)
    }

    fn wants(&self, record: &Record) -> bool {
        let fact = &record.event.fact;
        (self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(&fact.event_type)))
            && (self.subjects.is_empty() || self.subjects.contains(&fact.subject))
    }

    fn cursor(&self) -> Cursor {
        Cursor { epoch: self.source.bus.epoch(), position: self.position }
    }

    fn close(&mut self, reason: closing::Reason, reconnect: bool) -> Frame {
        self.ended = true;
        let retry_after = reconnect.then(|| duration(RETRY_AFTER));
        Frame::at(self.cursor()).closing(&Closing { reason: reason.into(), reconnect, retry_after })
    }
}

/// Where a stream starts, and why there is a gap before it, if there is one.
async fn start(source: &Source, cursor: Option<Cursor>) -> Result<(i64, Option<resync::Reason>)> {
    let mut conn = source.db.reader().await?;
    let (epoch, head) = log::head(&mut conn).await?;
    let Some(cursor) = cursor else {
        return Ok((head, None));
    };
    if cursor.epoch != epoch || cursor.position > head || cursor.position < 0 {
        return Ok((head, Some(resync::Reason::CursorUnknown)));
    }
    if cursor.position < log::start(&mut conn).await? {
        return Ok((head, Some(resync::Reason::CursorExpired)));
    }
    Ok((cursor.position, None))
}
