//! Whether a provider is tried: a pure state, moved by what happens and by the time that is passed in.

use std::time::Duration;

use crate::clock::Timestamp;

/// After how many faults in a row a provider is left alone.
const FAULTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How long a provider that refused the login is left alone.
const PAUSE: Duration = Duration::from_secs(600);
/// After how long a probe that said nothing is given up.
const PROBE: Duration = Duration::from_secs(120);
/// When to look again while another message probes.
const SOON: Duration = Duration::from_secs(5);

/// What a provider's messages have met.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Breaker {
    faults: u32,
    wait: Duration,
    shut: Option<Shut>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Shut {
    until: Timestamp,
    probe: Option<Timestamp>,
    paused: bool,
    why: String,
}

/// What a step changed, for those who are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that anybody has to know.
    None,
    /// The provider is left alone from now on.
    Shut,
    /// The provider is used again.
    Open,
}

impl Breaker {
    /// Lets a message through, or says why not and when to look again.  When the time is over one message is let
    /// through, and the others wait for what becomes of it.
    pub(super) fn admit(&mut self, now: Timestamp) -> Result<(), (String, Duration)> {
        let Some(shut) = &mut self.shut else {
            return Ok(());
        };
        if now < shut.until {
            return Err((shut.why.clone(), shut.until.since(now)));
        }
        if shut.probe.is_some_and(|since| now < since + PROBE) {
            return Err((shut.why.clone(), SOON));
        }
        shut.probe = Some(now);
        Ok(())
    }

    /// Whether nothing at all is let through.
    pub(super) fn is_shut(&self, now: Timestamp) -> bool {
        self.shut.as_ref().is_some_and(|shut| now < shut.until)
    }

    /// Why a message would not be let through, and when to look again.
    pub(super) fn hold(&self, now: Timestamp) -> Option<(String, Duration)> {
        self.clone().admit(now).err()
    }

    /// A fault: `jitter` in 0..=1 lengthens the wait by up to a tenth, so that nodes do not come back together.
    pub(super) fn fault(&mut self, now: Timestamp, why: &str, jitter: f64) -> Change {
        self.faults = self.faults.saturating_add(1);
        match &self.shut {
            None if self.faults < FAULTS => return Change::None,
            // What was under way when it was shut says nothing new.
            Some(shut) if now < shut.until => return Change::None,
            _ => {}
        }
        self.wait = if self.wait.is_zero() { FIRST_WAIT } else { (self.wait * 2).min(LONGEST_WAIT) };
        let until = now + self.wait.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0);
        self.shut(until, false, why)
    }

    /// The login was refused, and somebody has to do something about it.
    pub(super) fn pause(&mut self, now: Timestamp, why: &str) -> Change {
        self.shut(now + PAUSE, true, why)
    }

    fn shut(&mut self, until: Timestamp, paused: bool, why: &str) -> Change {
        let known = self.shut.as_ref().is_some_and(|shut| shut.paused == paused);
        self.shut = Some(Shut { until, probe: None, paused, why: why.to_owned() });
        if known { Change::None } else { Change::Shut }
    }

    /// The provider did its work.
    pub(super) fn success(&mut self) -> Change {
        self.faults = 0;
        self.wait = Duration::ZERO;
        if self.shut.take().is_some() { Change::Open } else { Change::None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn shut(breaker: &mut Breaker, now: Timestamp) {
        for _ in 0..FAULTS {
            breaker.fault(now, "down", 0.0);
        }
    }

    #[test]
    fn five_faults_in_a_row_shut_it_and_one_success_opens_it() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            assert_eq!(breaker.fault(NOW, "down", 0.0), Change::None);
        }
        breaker.success();
        for _ in 0..4 {
            assert_eq!(breaker.fault(NOW, "down", 0.0), Change::None);
            assert_eq!(breaker.admit(NOW), Ok(()));
        }
        assert_eq!(breaker.fault(NOW, "down", 0.0), Change::Shut);
        assert_eq!(breaker.admit(NOW), Err(("down".into(), seconds(30))));
        assert_eq!(breaker.success(), Change::Open);
        assert_eq!((breaker.admit(NOW), breaker.success()), (Ok(()), Change::None));
    }

    #[test]
    fn one_message_probes_and_each_failure_doubles_the_wait() {
        let mut breaker = Breaker::default();
        shut(&mut breaker, NOW);
        let mut now = NOW;
        for wait in [30, 60, 120, 240, 300, 300] {
            assert_eq!(breaker.admit(now), Err(("down".into(), seconds(wait))));
            now = now + seconds(wait);
            assert_eq!(breaker.admit(now), Ok(()));
            assert_eq!(breaker.admit(now), Err(("down".into(), SOON)), "one is enough");
            assert_eq!(breaker.fault(now, "down", 0.0), Change::None);
        }
    }

    #[test]
    fn a_probe_that_says_nothing_is_given_up() {
        let mut breaker = Breaker::default();
        shut(&mut breaker, NOW);
        let later = NOW + seconds(30);
        assert_eq!(breaker.admit(later), Ok(()));
        assert!(breaker.admit(later + seconds(119)).is_err());
        assert_eq!(breaker.admit(later + seconds(120)), Ok(()));
    }

    #[test]
    fn a_refused_login_pauses_at_once() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.pause(NOW, "login"), Change::Shut);
        assert_eq!(breaker.fault(NOW, "late", 0.0), Change::None);
        assert_eq!(breaker.hold(NOW), Some(("login".into(), PAUSE)));
        assert_eq!(breaker.admit(NOW + PAUSE), Ok(()));
        assert_eq!(breaker.pause(NOW + PAUSE, "login"), Change::None, "known already");
        assert!(breaker.admit(NOW + PAUSE + seconds(599)).is_err());
        assert_eq!(breaker.success(), Change::Open);
    }

    proptest! {
        #[test]
        fn it_never_stays_shut_for_longer_than_the_longest_wait(
            steps in prop::collection::vec((0..4u8, 0..400u64), 0..60)
        ) {
            let mut breaker = Breaker::default();
            let mut now = NOW;
            for (step, wait) in steps {
                now = now + seconds(wait);
                match step {
                    0 => { breaker.fault(now, "down", 1.0); }
                    1 => { breaker.pause(now, "login"); }
                    2 => { breaker.success(); }
                    _ => { let _ = breaker.admit(now); }
                }
                if let Some((_, wait)) = breaker.hold(now) {
                    prop_assert!(wait <= PAUSE);
                }
                prop_assert_eq!(breaker.hold(now + PAUSE.max(PROBE)), None);
            }
        }
    }
}
