//! When a stream ends, and what it says then.

use std::time::Duration;

use super::Stream;
use crate::clock::{Stopwatch, Timestamp};
use crate::error::Kind;
use crate::notification::frame::{Frame, SubscribeFrame as _};
use crate::notification::registry::{Limits, Registry, Seat};
use crate::pb::switchboard::notification::v1::Closing;
use crate::pb::switchboard::notification::v1::closing::Reason;
use crate::rpc::convert::duration;
use crate::rpc::{Principal, User};

/// A token's end is told so long before it, or in the last tenth of a life that is short.
const WARNING: Duration = Duration::from_secs(30);
/// How long a stream goes on without a valid token, for whoever is about to bring one.
const GRACE: Duration = Duration::from_secs(25);
/// By how much the ages of streams differ.
const SPREAD: f64 = 0.1;
/// Clients come back within this time.
const RETRY: Duration = Duration::from_secs(2);

/// What a stream keeps for its end.
pub(super) struct Ending {
    opened_at: Timestamp,
    /// A number from 0 to 1 that differs from stream to stream.
    luck: f64,
    warned: bool,
    /// When the caller was last found valid.
    checked: Stopwatch,
    rechecks: u64,
    /// When the caller's key ends, if that was said then.
    until: Option<Timestamp>,
}

impl Ending {
    pub fn new(registry: &Registry, now: Timestamp) -> Self {
        Self {
            opened_at: now,
            luck: registry.chance(),
            warned: false,
            checked: Stopwatch::start(),
            // What was told between the gate and here was told to nobody: the caller is asked about once more.
            rechecks: registry.rechecks().wrapping_sub(1),
            until: None,
        }
    }

    /// How long this stream lasts: as the settings say, and somewhat more or less, so that those who came together do not
    /// come back together.
    pub fn max_age(&self, limits: &Limits) -> Duration {
        limits.max_age.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * self.luck)
    }

    /// Another token or key has come: it was let in where it was shown, and has still to be for this stream.
    pub fn refreshed(&mut self) {
        self.warned = false;
        self.until = None;
        self.rechecks = self.rechecks.wrapping_sub(1);
    }

    /// The end of the token, when it is time to tell it.
    pub fn warning(&mut self, principal: &Principal, now: Timestamp) -> Option<Timestamp> {
        let user = principal.user.as_ref().filter(|user| !self.warned && now >= warn_at(user))?;
        self.warned = true;
        Some(user.expires_at)
    }

    /// Why the stream ends as soon as nothing is ready any more, and whether coming back makes sense.
    pub fn may_end(&self, seat: &Seat, now: Timestamp) -> Option<(Reason, bool)> {
        if seat.draining().is_some_and(|drain| drain.began.elapsed() >= drain.window.mul_f64(self.luck)) {
            return Some((Reason::Drain, true));
        }
        (now >= self.opened_at + self.max_age(&seat.limits())).then_some((Reason::MaxAge, true))
    }

    /// How long until there is something to look at.
    pub fn next(&self, seat: &Seat, principal: &Principal, now: Timestamp) -> Option<Duration> {
        let age = (self.opened_at + self.max_age(&seat.limits())).since(now);
        let token = principal.user.as_ref().map(|user| {
            let next = if self.warned { user.expires_at + GRACE } else { warn_at(user) };
            next.since(now)
        });
        let drain = seat
            .draining()
            .map(|drain| drain.window.mul_f64(self.luck).saturating_sub(drain.began.elapsed()));
        let key = self.until.map(|until| until.since(now));
        [Some(age), token, key, drain].into_iter().flatten().min()
    }
}

fn warn_at(user: &User) -> Timestamp {
    user.expires_at - WARNING.min(user.expires_at.since(user.issued_at) / 10)
}

impl Stream {
    /// Why the stream ends at once, and whether coming back makes sense.
    pub(super) async fn must_end(&mut self) -> Option<(Reason, bool)> {
        if !self.seat.limits().enabled {
            return Some((Reason::Disabled, false));
        }
        if self.seat.is_slow() {
            return Some((Reason::SlowSubscriber, true));
        }
        if let Some(expires_at) = self.expired() {
            // It is known to be over: nothing is asked until somebody has brought another, or nobody has.
            let over = self.source.clock.now() >= expires_at + GRACE;
            return (over && !self.seat.is_changed()).then_some((Reason::KeyEnded, true));
        }
        let (rechecks, now) = (self.source.registry.rechecks(), self.source.clock.now());
        let is_over = self.ending.until.is_some_and(|until| now >= until);
        // A caller that ends must end its streams, busy ones too.
        if is_over || self.ending.checked.elapsed() >= self.heartbeat || self.ending.rechecks != rechecks {
            (self.ending.checked, self.ending.rechecks) = (Stopwatch::start(), rechecks);
            let valid = self.source.valid.ask(&self.principal, &self.access, rechecks, now).await;
            // It may have ended while it was asked.
            if self.expired().is_none() && !self.seat.is_changed() {
                match valid {
                    Ok(until) => self.ending.until = until,
                    Err(error) if error.kind() == Kind::PermissionDenied => {
                        return Some((Reason::PermissionLost, false));
                    }
                    Err(_) => return Some((Reason::KeyEnded, false)),
                }
            }
        }
        None
    }

    /// When the token ended, if it has.
    fn expired(&self) -> Option<Timestamp> {
        let end = self.principal.user.as_ref()?.expires_at;
        (self.source.clock.now() >= end).then_some(end)
    }

    /// The last frame.
    pub(super) fn close(&mut self, reason: Reason, reconnect: bool) -> Frame {
        self.ended = true;
        self.source.metrics.live_closed(reason.as_str_name());
        let registry = &self.source.registry;
        let longest = registry.draining().map_or(RETRY, |drain| drain.window + RETRY);
        let retry_after = reconnect.then(|| duration(registry.jitter(longest)));
        Frame::at(self.cursor()).closing(&Closing { reason: reason.into(), reconnect, retry_after })
    }
}
