//! Whether callers may go on, asked once for all streams of a key from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Stopwatch, Timestamp};
use crate::error::Result;
use crate::rpc::admission::Admission;
use crate::rpc::{Access, Authenticate, Principal};

/// How long it is believed that a key is valid.
const BELIEVED: Duration = Duration::from_secs(1);
const REMEMBERED: usize = 4_096;

/// Remembers for a moment which keys are valid: thousands of streams of one application are not thousands of questions.
pub struct Valid {
    authenticate: Arc<dyn Authenticate>,
    admission: Arc<Admission>,
    known: Mutex<HashMap<Place, Known>>,
}

/// A key, and the address that it is used from.
type Place = (Arc<str>, Option<IpAddr>);

/// That a key was found valid.
#[derive(Clone, Copy)]
struct Known {
    when: Stopwatch,
    /// How many rechecks there had been.
    rechecks: u64,
    /// When the key ends.
    until: Option<Timestamp>,
}

impl Valid {
    /// Asks these.
    pub fn new(authenticate: Arc<dyn Authenticate>, admission: Arc<Admission>) -> Self {
        Self { authenticate, admission, known: Mutex::default() }
    }

    /// What counts as one address where streams are counted.
    pub(super) fn unit(&self, access: &Access) -> Option<u128> {
        self.admission.unit(access.address)
    }

    /// Whether a caller may go on; nothing from before the last recheck is believed.  Answers when the key ends, if that is known.
    ///
    /// # Errors
    /// As [`Admission::revalidate`].
    pub(super) async fn ask(
        &self,
        principal: &Principal,
        access: &Access,
        rechecks: u64,
        now: Timestamp,
    ) -> Result<Option<Timestamp>> {
        let ask = || self.admission.revalidate(&*self.authenticate, principal, access);
        // Users differ, and what is asked about them is in memory.
        if principal.user.is_some() {
            return ask().await;
        }
        // All streams need the same scope.
        let place = (Arc::clone(&principal.key_id), access.address);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&place).copied();
        if let Some(Known { when, rechecks: then, until }) = known
            && then == rechecks
            && when.elapsed() < BELIEVED
            && until.is_none_or(|until| now < until)
        {
            return Ok(until);
        }
        let when = Stopwatch::start();
        let until = ask().await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(place, Known { when, rechecks, until });
        Ok(until)
    }
}
