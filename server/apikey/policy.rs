//! How long keys may live and what is known of their use is kept, as the settings say.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// What holds for all keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The days of a key for which nobody says how many.
    pub default_days: u32,
    /// The most days.
    pub max_days: u32,
    /// For how many days uses are kept in the log.
    pub log_days: u32,
    /// For how many days their counts are kept.
    pub usage_days: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { default_days: 90, max_days: 365, log_days: 7, usage_days: 400 }
    }
}

impl Policy {
    /// The days of a key that is to have `wanted`; 0 leaves it to the policy.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn days(&self, wanted: i32) -> Result<u32, String> {
        match u32::try_from(wanted) {
            Ok(0) => Ok(self.default_days.min(self.max_days)),
            Ok(days) if days <= self.max_days => Ok(days),
            _ => Err(format!("must be 1 to {}, or 0 for {}", self.max_days, self.default_days)),
        }
    }
}

/// The policy that everybody shares.
pub type SharedPolicy = Arc<ArcSwap<Policy>>;
