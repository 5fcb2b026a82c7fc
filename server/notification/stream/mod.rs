//! One subscriber's stream.
//!
//! A stream is a position in the log, a number in the ephemeral hub, a view and a heartbeat.  Each round it looks whether
//! it has to [end](ending), takes note of changes, makes a message of what is [ready](ready), and waits for its bell or for
//! the time.  It is asked for a message when its peer has room for one, and not before: that is all its flow control.

mod ending;
mod open;
mod ready;
#[cfg(test)]
mod tests;
mod valid;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::attendance::Attendance;
use super::frame::{Frame, SubscribeFrame as _};
use super::registry::{Changes, Registry, Seat};
use super::view::View;
use crate::clock::{SharedClock, Stopwatch};
use crate::db::Db;
use crate::error::Result;
use crate::event::bus::{Bus, Watcher};
use crate::event::cursor::Cursor;
use crate::event::ephemeral::EphemeralHub;
use crate::pb::switchboard::notification::v1::closing::Reason;
use crate::rpc::{Access, Principal};
use crate::telemetry::Metrics;
use ending::Ending;

pub use open::Wish;
pub use valid::Valid;

/// What streams need.
pub struct Source {
    /// The database, for what is older than the bus remembers.
    pub db: Db,
    /// The live end of the log.
    pub bus: Arc<Bus>,
    /// What is in no log.
    pub hub: Arc<EphemeralHub>,
    /// The open streams.
    pub registry: Arc<Registry>,
    /// Knows whether a caller may go on.
    pub valid: Valid,
    /// Is told who comes and goes.
    pub attendance: Arc<dyn Attendance>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: SharedClock,
}

/// What a stream is to be about, once it has passed what happened before it was asked to: nothing of that is the new view's.
struct NextView {
    view: View,
    generation: i64,
    /// The end of the log when it was asked.
    after: i64,
}

/// A stream.
pub struct Stream {
    source: Arc<Source>,
    principal: Principal,
    access: Access,
    view: View,
    next_view: Option<NextView>,
    watcher: Watcher,
    ending: Ending,
    heartbeat: Duration,
    /// Everything in the log up to here was sent.
    position: i64,
    /// Every ephemeral event up to here was sent.
    number: u64,
    /// The snapshot goes up to here, until it is complete.
    snapshot: Option<u64>,
    /// The first frame, until it is taken.
    first: Option<Frame>,
    /// How many events to ask for at a time.
    batch: usize,
    sent: Stopwatch,
    timer: Pin<Box<Sleep>>,
    ended: bool,
    // The user leaves before the seat is given back.
    _attendance: Option<Box<dyn Send>>,
    seat: Seat,
}

impl Stream {
    /// The next frame; `None` ends the stream.
    pub async fn next(&mut self) -> Option<Frame> {
        if self.ended {
            return None;
        }
        self.seat.polled();
        if let Some(first) = self.first.take() {
            self.sent = Stopwatch::start();
            return Some(first);
        }
        let frame = match self.advance().await {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(%error, "a live stream could not read the log");
                self.close(Reason::Unavailable, true)
            }
        };
        self.sent = Stopwatch::start();
        Some(frame)
    }

    async fn advance(&mut self) -> Result<Frame> {
        loop {
            self.seat.polled();
            if let Some((reason, reconnect)) = self.must_end().await {
                return Ok(self.close(reason, reconnect));
            }
            if let Some(changes) = self.seat.changes() {
                if let Some(frame) = self.change(changes) {
                    return Ok(frame);
                }
                // Another caller is asked about before anything is said to them.
                continue;
            }
            let position = self.position;
            if let Some(next) = self.next_view.take_if(|next| position >= next.after) {
                return Ok(self.switch(next));
            }
            let now = self.source.clock.now();
            if let Some(end) = self.ending.warning(&self.principal, now) {
                return Ok(Frame::at(self.cursor()).token_expire_time(end));
            }
            // What is ready goes out before a farewell that can wait.
            let farewell = self.ending.may_end(&self.seat, now);
            if let Some(frame) = self.ready().await? {
                return Ok(frame);
            }
            if let Some((reason, reconnect)) = farewell {
                return Ok(self.close(reason, reconnect));
            }
            if self.sent.elapsed() >= self.heartbeat {
                return Ok(Frame::at(self.cursor()));
            }
            if self.position < self.watcher.head() || self.number < self.source.hub.head() {
                // Nothing of what was read was wanted; there may be more behind it.
                tokio::task::yield_now().await;
                continue;
            }
            self.wait().await;
        }
    }

    /// Takes note of what others changed; answers what there is to say about it.
    fn change(&mut self, changes: Changes) -> Option<Frame> {
        let is_new_caller = changes.principal.is_some();
        if let Some(principal) = changes.principal {
            self.principal = principal;
            self.ending.refreshed();
        }
        if changes.lost {
            return Some(self.close(Reason::PermissionLost, false));
        }
        let view = changes.view?;
        let waiting = self.next_view.take().map(|next| next.generation);
        match changes.generation.or(waiting) {
            Some(generation) if !is_new_caller => {
                self.next_view = Some(NextView { view, generation, after: self.watcher.head() });
                None
            }
            // What another caller may not see is not shown for a moment longer.
            generation => {
                self.show(view);
                generation.map(|generation| Frame::at(self.cursor()).updated(generation))
            }
        }
    }

    /// Is about something else from here on.
    fn switch(&mut self, next: NextView) -> Frame {
        self.show(next.view);
        Frame::at(self.cursor()).updated(next.generation)
    }

    fn show(&mut self, view: View) {
        self.watcher.watch(view.wanted());
        self.view = view;
    }

    async fn wait(&mut self) {
        let now = self.source.clock.now();
        let left = self.heartbeat.saturating_sub(self.sent.elapsed());
        let left = self.ending.next(&self.seat, &self.principal, now).map_or(left, |next| next.min(left));
        // The timer stays where it is when it goes off early enough: most waits end by the bell.
        let due = Instant::from_std(Stopwatch::start().after(left));
        if self.timer.is_elapsed() || self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        }
        tokio::select! {
            () = self.watcher.changed() => {}
            () = self.timer.as_mut() => {}
        }
    }

    fn cursor(&self) -> Cursor {
        Cursor { epoch: self.source.bus.epoch(), position: self.position }
    }
}
