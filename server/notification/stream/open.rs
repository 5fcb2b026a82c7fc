//! Opening a stream.

use std::sync::Arc;
use std::time::Duration;

use super::ending::Ending;
use super::ready::FRAME_EVENTS;
use super::{Source, Stream};
use crate::clock::Stopwatch;
use crate::error::{Result, Violations};
use crate::event::bus::Watcher;
use crate::event::cursor::Cursor;
use crate::failpoint;
use crate::notification::frame::{Frame, SubscribeFrame as _};
use crate::notification::registry;
use crate::notification::view::{self, FILTER_LIMIT};
use crate::pb::switchboard::notification::v1::{Opened, Resync, resync};
use crate::rpc::convert::{duration, timestamp};
use crate::rpc::{Access, Principal};

const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(20);
const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(1);
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(50);

/// What a subscriber asks for.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Wish {
    pub filter: view::Wish,
    pub cursor: String,
    pub heartbeat: Option<Duration>,
    pub snapshot: bool,
    pub invisible: bool,
}

impl Stream {
    /// Opens a stream for a caller whom the gate has let in so.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a bad filter, or for a cursor that is none; `PERMISSION_DENIED` with `TOPIC_DENIED` for
    /// topics that the caller may not see; what [`registry::Registry::enter`] says of limits.
    pub async fn open(source: Arc<Source>, principal: Principal, access: Access, wish: Wish) -> Result<Self> {
        let mut violations = Violations::default();
        let filter = Arc::new(wish.filter.read(&mut violations));
        let heartbeat = wish.heartbeat.unwrap_or(DEFAULT_HEARTBEAT);
        let sane = (SHORTEST_HEARTBEAT..=LONGEST_HEARTBEAT).contains(&heartbeat);
        violations.require(sane, "heartbeat_interval", "must be 1 to 50 seconds");
        let cursor = Cursor::decode(&wish.cursor);
        let readable = wish.cursor.is_empty() || cursor.is_some();
        violations.require(readable, "cursor", "is not a cursor of this server");
        violations.finish()?;
        let view = registry::view(&principal, &filter)?;
        let seat = source.registry.enter(&principal, source.valid.unit(&access), &filter, heartbeat)?;

        // Watched first and asked for its place then: what comes in between rings the bell.
        let watcher = source.bus.watch_topics(view.wanted(), Arc::clone(seat.bell()));
        let number = source.hub.head();
        let (mut position, gap) = start(&source, &watcher, cursor).await?;
        if cursor.is_some() && failpoint::bug("cursor_off_by_one") {
            position += 1;
        }
        let now = source.clock.now();
        let ending = Ending::new(&source.registry, now);
        let user = principal.user.as_deref();
        let attendance = user.filter(|_| !wish.invisible).map(|user| source.attendance.arrived(user));
        let opened = Opened {
            heartbeat_interval: Some(duration(heartbeat)),
            resumed: cursor.is_some() && gap.is_none(),
            server_time: Some(timestamp(now)),
            subscription_id: seat.id().to_owned(),
            max_age: Some(duration(ending.max_age(&source.registry.limits()))),
            token_expire_time: user.map(|user| timestamp(user.expires_at)),
            max_filters: FILTER_LIMIT as i32,
        };
        let mut first = Frame::at(Cursor { epoch: source.bus.epoch(), position }).opened(&opened);
        if let Some(reason) = gap {
            source.metrics.live_resync(reason.as_str_name());
            first = first.resync(Resync { reason: reason.into() });
        }
        source.metrics.set_subscribers(source.registry.len());
        Ok(Self {
            principal,
            access,
            view,
            next_view: None,
            watcher,
            ending,
            heartbeat,
            position,
            number: if wish.snapshot { 0 } else { number },
            snapshot: wish.snapshot.then_some(number),
            first: Some(first),
            batch: FRAME_EVENTS,
            sent: Stopwatch::start(),
            timer: Box::pin(tokio::time::sleep(heartbeat)),
            ended: false,
            _attendance: attendance,
            seat,
            source,
        })
    }
}

/// Where a stream starts, and why there is a gap before it, if there is one.
async fn start(
    source: &Source,
    watcher: &Watcher,
    cursor: Option<Cursor>,
) -> Result<(i64, Option<resync::Reason>)> {
    let known = watcher.head();
    let epoch = source.bus.epoch();
    match cursor {
        // Alone on its database, this node knows the end of the log.
        None if !source.db.is_shared() => return Ok((known, None)),
        _ => {}
    }
    let bounds = source.bus.bounds().await?;
    let Some(cursor) = cursor else {
        return Ok((bounds.head, None));
    };
    // Here it may be known of events that were not there yet when the bounds were read.
    let head = bounds.head.max(watcher.head());
    if cursor.epoch != epoch || cursor.position > head || cursor.position < 0 {
        return Ok((head, Some(resync::Reason::CursorUnknown)));
    }
    // What was removed for its age may still be in memory, and is not to be seen any more.
    if cursor.position < bounds.start {
        return Ok((head, Some(resync::Reason::CursorExpired)));
    }
    Ok((cursor.position, None))
}
