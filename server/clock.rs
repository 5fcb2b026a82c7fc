//! Time, as a value that is passed in.
//!
//! Nothing else in the server asks the machine for the time: retry, lease and schedule tests move a [`ManualClock`]
//! instead of waiting.
//!
//! There are two times.  [`Clock::now`] is the time of day: what is written down, and what tokens, schedules and retries are
//! judged by.  Somebody may set it, back too.  [`Clock::steady`] only ever passes: limits that are counted in memory, the
//! breakers of mail servers and presence go by it, so that setting the clock neither gives a quota back nor keeps anybody waiting.  The difference of both
//! changes when the clock is set; the engine looks for that ([`crate::delivery`]).

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An instant in UTC, in microseconds since 1970: what both databases can hold and compare exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since 1970.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The part below a second, in nanoseconds.
    pub const fn nanos_of_second(self) -> i32 {
        (self.0.rem_euclid(1_000_000) * 1_000) as i32
    }

    /// From seconds and nanoseconds, as a protobuf `Timestamp` has them.  Out-of-range values are clamped.
    pub const fn from_parts(seconds: i64, nanos: i32) -> Self {
        Self(seconds.saturating_mul(1_000_000).saturating_add(nanos as i64 / 1_000))
    }

    /// From RFC 3339, such as `2026-01-31T10:30:00.25Z`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|timestamp| Self(timestamp.as_microsecond()))
    }

    /// The time that passed since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0).max(0) as u64)
    }
}

/// RFC 3339 in UTC, such as `2026-01-31T10:30:00.25Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => timestamp.fmt(f),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// A time that passes as fast and that nobody can set; it means nothing in another process.
    fn steady(&self) -> Timestamp;
}

/// A clock that everybody shares.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn steady(&self) -> Timestamp {
        // From the time of day when it was first asked for: arithmetic far from zero stays what it is elsewhere.
        static START: LazyLock<(Timestamp, Instant)> = LazyLock::new(|| (SystemClock.now(), Instant::now()));
        START.0 + START.1.elapsed()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    steady: AtomicI64,
    /// How far the time of day is ahead of that.
    ahead: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub const fn new(start: Timestamp) -> Self {
        Self { steady: AtomicI64::new(start.0), ahead: AtomicI64::new(0) }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.steady.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Sets the time of day so many microseconds on, or back when it is below zero, while no time passes.
    pub fn set_by(&self, micros: i64) {
        self.ahead.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.steady.load(Ordering::SeqCst) + self.ahead.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Timestamp {
        Timestamp(self.steady.load(Ordering::SeqCst))
    }
}

/// Measures how long something takes; not a time of day, and not moved by a [`ManualClock`].
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The instant so long after the start.
    pub fn after(&self, time: Duration) -> Instant {
        self.0 + time
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// How much later it was started than another; zero when it was not.
    pub fn since(&self, earlier: &Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_rfc_3339() {
        assert_eq!(Timestamp::from_micros(1_763_893_800_000_000).to_string(), "2025-11-23T10:30:00Z");
        assert_eq!(Timestamp::from_micros(1_763_893_800_250_000).to_string(), "2025-11-23T10:30:00.25Z");
    }

    #[test]
    fn parts_survive_times_before_1970() {
        let timestamp = Timestamp::from_micros(-1);
        assert_eq!((timestamp.seconds(), timestamp.nanos_of_second()), (-1, 999_999_000));
        assert_eq!(Timestamp::from_parts(-1, 999_999_000), timestamp);
    }
}
