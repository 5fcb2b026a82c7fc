//! How many mails go out in an hour: over all, and to a domain.
//!
//! A limit is a row of `send_limits`: how much is used since its window began.  It is taken from inside the transaction
//! that takes the mails in hand, so that it holds over all nodes and over a crash.  A window begins with the first mail
//! after the one before has ended; what does not fit waits for its end, and none is lost.

pub mod store;

use std::time::Duration;

use super::config::EmailConfig;
use super::model::Priority;
use crate::clock::Timestamp;
use crate::delivery::Hold;

/// How long a window is.
pub const WINDOW: Duration = Duration::from_secs(60 * 60);
/// The limit over all mails.
pub const HOURLY: &str = "hourly";

/// What is used of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// When its window began.
    pub window_start: Timestamp,
    /// How many mails went out since.
    pub used: u64,
}

impl Usage {
    /// The usage at this time: nothing once the window has ended.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        if now >= self.window_start + WINDOW || now < self.window_start {
            Self { window_start: now, used: 0 }
        } else {
            self
        }
    }

    /// How many more may go out under this limit.
    pub fn left(self, limit: u64) -> u64 {
        limit.saturating_sub(self.used)
    }

    /// When the window ends.
    pub fn end(self) -> Timestamp {
        self.window_start + WINDOW
    }
}

/// How much of the hourly limit a lane may use; `None` when there is none.
///
/// A tenth is kept for mails that somebody waits for: bulk never uses all of it up.
pub fn of_lane(config: &EmailConfig, priority: Priority) -> Option<u64> {
    let limit = (config.sends() && config.hourly_limit > 0).then_some(config.hourly_limit)?;
    Some(match priority {
        Priority::Transactional => limit,
        Priority::Bulk => (limit - (limit / 10)).max(1),
    })
}

/// Why mails wait that are over the hourly limit.
pub fn hold(config: &EmailConfig, usage: Usage) -> Hold {
    let why = format!(
        "the limit of {} mails an hour is used up (email.hourly_limit): more go out at {}",
        config.hourly_limit,
        usage.end()
    );
    Hold { why, until: usage.end() }
}

/// The limit of a domain, as its row is named.
pub fn of_domain(domain: &str) -> String {
    format!("domain:{domain}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_window_ever_lets_more_through_than_the_limit(
            limit in 1..50u64,
            wishes in prop::collection::vec((0..4_000u64, 0..40u64), 1..60),
        ) {
            let (mut now, mut usage) = (Timestamp::from_micros(1), Usage { window_start: Timestamp::from_micros(0), used: 0 });
            let mut passed: Vec<(Timestamp, u64)> = Vec::new();
            for (seconds, wanted) in wishes {
                now = now + Duration::from_secs(seconds);
                usage = usage.at(now);
                let granted = wanted.min(usage.left(limit));
                usage.used += granted;
                passed.push((usage.window_start, granted));
            }
            for (window, _) in &passed {
                let sum: u64 = passed.iter().filter(|(start, _)| start == window).map(|(_, granted)| granted).sum();
                prop_assert!(sum <= limit);
            }
        }
    }
}
