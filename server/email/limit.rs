//! How many mails go out in an hour: over all, and to a domain.
//!
//! The limits are those of the engine ([`crate::delivery::limit`]): they hold over all nodes and over a crash, and what
//! does not fit waits.

use std::time::Duration;

use super::config::EmailConfig;
use super::model::Priority;
use crate::delivery::Hold;
use crate::delivery::limit::{Limit, Usage};

const WINDOW: Duration = Duration::from_secs(60 * 60);
const HOURLY: &str = "hourly";

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

/// The limit of a domain, as it is counted.
pub fn of_domain(domain: &str, most: u64) -> Limit {
    Limit { name: format!("domain:{domain}"), most, window: WINDOW }
}

/// The limit over all mails, as it is counted.
pub fn hourly(most: u64) -> Limit {
    Limit { name: HOURLY.into(), most, window: WINDOW }
}
