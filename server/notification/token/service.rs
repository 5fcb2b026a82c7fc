//! The use cases: make a token, end all of a user's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::jwt;
use super::model::NewToken;
use super::revocations::Revocations;
use super::signer::{Grant, Signer};
use crate::audit::Recorder;
use crate::clock::{SharedClock, Timestamp};
use crate::error::{Error, Kind, Result, Violations};
use crate::event::topic;
use crate::rpc::Principal;
use crate::scope;
use crate::secret::{SecretText, SharedRandom};

/// The use cases.
pub struct TokenService {
    /// Signs.
    pub signer: Arc<Signer>,
    /// Ends.
    pub revocations: Arc<Revocations>,
    /// How many minutes a token lives at most.
    pub minutes: AtomicU32,
    /// Records what is ended.
    pub audit: Recorder,
    /// Makes what tells tokens apart.
    pub random: SharedRandom,
    /// The time.
    pub clock: SharedClock,
}

impl TokenService {
    /// Has tokens live for so many minutes at most, from now on.
    pub fn set_lifetime(&self, minutes: u32) {
        self.minutes.store(minutes, Ordering::Release);
    }

    /// Makes a token; answers it with its end.  No entry of the audit log tells of it: an application makes one for each page that
    /// somebody opens, and none outlives its day.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for a user, and for a scope that the maker does not hold.
    pub fn create(&self, maker: &Principal, new: NewToken) -> Result<(SecretText, Timestamp)> {
        if maker.user.is_some() {
            let message = "users make no tokens: their application does";
            return Err(Error::new(Kind::PermissionDenied, "USER_NOT_ALLOWED", message));
        }
        let longest = Duration::from_secs(60 * u64::from(self.minutes.load(Ordering::Acquire)));
        let new = new.with_scopes();
        let mut violations = Violations::default();
        new.check(longest, &mut violations);
        violations.finish()?;
        if let Some(beyond) = new.scopes.iter().find(|one| !scope::any_covers(&maker.scopes, one)) {
            let message = format!("nobody can give away what they do not hold: {beyond}");
            return Err(Error::new(Kind::PermissionDenied, "SCOPE_NOT_HELD", message).with("scope", beyond));
        }
        let made = self.clock.now();
        let ends = made + new.lifetime.unwrap_or(longest);
        let grant = Grant {
            user_id: &new.user_id,
            username: &new.username,
            topics: &new.topics,
            event_types: &new.event_types,
            scopes: &new.scopes,
            key_id: &maker.key_id,
            made,
            ends,
        };
        let token = self.signer.sign(grant, &*self.random);
        if token.reveal().len() > jwt::LIMIT {
            let what = "make a token of more than 8 KiB, together with the other lists: use patterns";
            return Err(Error::field("topics", what));
        }
        Ok((token, Timestamp::from_parts(ends.seconds(), 0)))
    }

    /// Ends every token that a user has now, whoever made it; answers up to when they were made.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for what is no user's id.
    pub async fn revoke(&self, user_id: String) -> Result<Timestamp> {
        topic::check_user_id(&user_id).map_err(|wrong| Error::field("user_id", wrong))?;
        self.revocations.end(user_id, self.audit.clone()).await
    }
}
