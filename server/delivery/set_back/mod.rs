//! A clock that is set back.
//!
//! What waits has the time in the database at which its turn comes.  When that was reckoned by a clock that was ahead, and the
//! clock is set right, it would wait for as long as the clock was wrong: a retry in a minute for a minute and a day.  So the
//! poller notices when the time of day has gone back, and what was written in what is the future now is moved: it waits from now
//! for as long as it had to wait from then.  What somebody scheduled for a time of day stays.
//!
//! A clock that is set on looks like time that has passed, and nobody can tell the difference.

pub(super) mod store;

use std::time::Duration;

use crate::clock::SharedClock;

/// Less is what a clock drifts and is corrected by all the time.
const NOTICED: Duration = Duration::from_secs(1);

/// Looks how the time of day runs beside the time that passes.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// How far the one is ahead of the other, in microseconds.
    ahead: Option<i64>,
}

impl Watch {
    /// How far the clock was set back since this was last asked, when that was noticeable.
    pub fn set_back(&mut self, clock: &SharedClock) -> Option<Duration> {
        let ahead = clock.now().micros().saturating_sub(clock.steady().micros());
        let before = self.ahead.replace(ahead)?;
        let back = Duration::from_micros(u64::try_from(before.saturating_sub(ahead)).ok()?);
        (back >= NOTICED).then_some(back)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    #[test]
    fn only_a_step_back_is_noticed_and_once() {
        let manual = Arc::new(ManualClock::new(Timestamp::from_micros(1_000_000_000)));
        let (clock, mut watch): (SharedClock, _) = (manual.clone(), Watch::default());
        assert_eq!(watch.set_back(&clock), None);
        manual.advance(Duration::from_secs(5));
        manual.set_by(3_600_000_000);
        assert_eq!(watch.set_back(&clock), None);
        manual.set_by(-900_000);
        assert_eq!(watch.set_back(&clock), None);
        manual.set_by(-60_000_000);
        manual.advance(Duration::from_secs(90));
        assert_eq!(watch.set_back(&clock), Some(Duration::from_secs(60)));
        assert_eq!(watch.set_back(&clock), None);
    }
}
