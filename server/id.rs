//! Identifiers: a prefix that says what it names, then 26 characters that sort by time of creation.
//!
//! The 26 characters are a ULID in lower case: 48 bits of milliseconds and 80 random bits.  Ids made by one process
//! increase strictly, so that rows are appended at the right edge of their index whatever the clock does.

use std::sync::Mutex;

use ulid::Ulid;

use crate::clock::{SharedClock, Timestamp};
use crate::secret::SharedRandom;

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An event.
    Event,
    /// A webhook endpoint.
    Webhook,
    /// An event on its way to an endpoint.
    WebhookDelivery,
    /// A mail.
    Email,
    /// Something that happened to a mail.
    EmailActivity,
    /// A route.
    Route,
    /// An API key.
    ApiKey,
    /// A use of an API key.
    ApiKeyLog,
    /// A key that seals secrets.
    DataKey,
    /// A notification.
    Notification,
}

impl Kind {
    /// What the id begins with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Event => "evt_",
            Self::Webhook => "wh_",
            Self::WebhookDelivery => "whd_",
            Self::Email => "em_",
            Self::EmailActivity => "act_",
            Self::Route => "rt_",
            Self::ApiKey => "key_",
            Self::ApiKeyLog => "use_",
            Self::DataKey => "dk_",
            Self::Notification => "ntf_",
        }
    }
}

/// Makes ids.
pub struct IdGenerator {
    clock: SharedClock,
    random: SharedRandom,
    last: Mutex<Ulid>,
}

impl IdGenerator {
    /// A generator that reads this clock and this randomness.
    pub fn new(clock: SharedClock, random: SharedRandom) -> Self {
        Self { clock, random, last: Mutex::new(Ulid::nil()) }
    }

    /// A new id, greater than every one that this generator made before.
    pub fn next(&self, kind: Kind) -> String {
        let ulid = self.next_ulid(self.clock.now());
        let mut buffer = [0; ulid::ULID_LEN];
        let text = ulid.array_to_str(&mut buffer);
        text.make_ascii_lowercase();
        let mut id = String::with_capacity(kind.prefix().len() + ulid::ULID_LEN);
        id.push_str(kind.prefix());
        id.push_str(text);
        id
    }

    fn next_ulid(&self, now: Timestamp) -> Ulid {
        let millis = u64::try_from(now.micros() / 1_000).unwrap_or(0);
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A clock that was set back must not make ids that sort before those given out already.
        let next = if millis > last.timestamp_ms() {
            let mut bytes = [0; 16];
            self.random.fill(&mut bytes);
            Ulid::from_parts(millis, u128::from_le_bytes(bytes))
        } else {
            last.increment().unwrap_or_else(|| Ulid::from_parts(last.timestamp_ms() + 1, 0))
        };
        *last = next;
        next
    }
}

/// What every id of this kind that is made at `time` or later sorts after or equals.
pub fn lower_bound(kind: Kind, time: Timestamp) -> String {
    let millis = u64::try_from(time.micros() / 1_000).unwrap_or(0);
    format!("{}{}", kind.prefix(), Ulid::from_parts(millis, 0).to_string().to_ascii_lowercase())
}

/// Whether `text` has the form of an id of this kind.
pub fn is_valid(kind: Kind, text: &str) -> bool {
    text.strip_prefix(kind.prefix()).is_some_and(|rest| {
        rest.len() == ulid::ULID_LEN && rest.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::secret::SystemRandom;

    #[test]
    fn ids_increase_even_when_the_clock_stands_still_or_goes_back() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_800_000_000_000_000)));
        let ids = IdGenerator::new(clock.clone(), Arc::new(SystemRandom));
        let mut last = ids.next(Kind::Event);
        assert!(is_valid(Kind::Event, &last), "{last}");
        for _ in 0..1_000 {
            let next = ids.next(Kind::Event);
            assert!(next > last, "{next} after {last}");
            last = next;
        }
    }

    #[test]
    fn a_bound_is_below_the_ids_of_its_time_and_above_earlier_ones() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_800_000_000_000_000)));
        let ids = IdGenerator::new(clock.clone(), Arc::new(SystemRandom));
        let earlier = ids.next(Kind::Email);
        clock.advance(std::time::Duration::from_millis(1));
        let bound = lower_bound(Kind::Email, clock.now());
        let later = ids.next(Kind::Email);
        assert!(earlier < bound && bound <= later, "{earlier} {bound} {later}");
    }

    #[test]
    fn an_id_of_another_kind_is_not_valid() {
        assert!(!is_valid(Kind::Webhook, "evt_01jd0000000000000000000000"));
        assert!(!is_valid(Kind::Event, "evt_01JD0000000000000000000000"));
        assert!(!is_valid(Kind::Event, "evt_1"));
    }
}
