//! Whether callers are still valid, asked once for all streams of a key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::rpc::{Authenticate, Principal};

/// How long it is believed that a key is valid.
const BELIEVED: Duration = Duration::from_secs(1);
const REMEMBERED: usize = 4_096;

/// Remembers for a moment which keys are valid: thousands of streams of one application are not thousands of questions.
pub struct Valid {
    authenticate: Arc<dyn Authenticate>,
    /// When a key was last found valid, and how many rechecks there had been.
    keys: Mutex<HashMap<Arc<str>, (Stopwatch, u64)>>,
}

impl Valid {
    /// Asks this one.
    pub fn new(authenticate: Arc<dyn Authenticate>) -> Self {
        Self { authenticate, keys: Mutex::default() }
    }

    /// Whether a caller is still valid; nothing from before the last recheck is believed.
    pub(super) async fn ask(&self, principal: &Principal, rechecks: u64) -> bool {
        // Users differ, and what is asked about them is in memory.
        if principal.user.is_some() {
            return self.authenticate.is_valid(principal).await;
        }
        let known = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&principal.key_id).copied();
        if known.is_some_and(|(when, then)| then == rechecks && when.elapsed() < BELIEVED) {
            return true;
        }
        let asked = Stopwatch::start();
        let valid = self.authenticate.is_valid(principal).await;
        if valid {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            if keys.len() >= REMEMBERED {
                keys.clear();
            }
            keys.insert(Arc::clone(&principal.key_id), (asked, rechecks));
        }
        valid
    }
}
