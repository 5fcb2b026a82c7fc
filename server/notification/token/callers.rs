//! Who calls, by key or token: what has the form of a token is one, and everything else goes the way of keys.
//!
//! A token dies at its form, its size or its signature without anything being read for it.  One whose signature is right is
//! asked for its time, whether its user's tokens were ended, and whether the key that made it works: all of that is in memory,
//! but for the first use after a change.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::jwt::{self, Compact};
use super::memory::Memory;
use super::model::{LEEWAY, Maker, PROVIDER, Verified};
use super::provider::{Checked, Provider};
use super::revocations::Revocations;
use super::signer::Signer;
use crate::clock::{SharedClock, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::rpc::admission::quota::Standing;
use crate::rpc::auth::TOKEN_ENDED;
use crate::rpc::{Access, Authenticate, Makers, Principal, User};
use crate::scope;

/// Knows keys and tokens.
pub struct Callers {
    keys: Arc<dyn Authenticate>,
    makers: Arc<dyn Makers>,
    signer: Arc<Signer>,
    provider: Arc<Provider>,
    revocations: Arc<Revocations>,
    memory: Memory,
    clock: SharedClock,
}

/// What a text turned out to be.
enum Seen {
    Good(Arc<Verified>),
    Bad(Error),
    UnknownKey,
}

impl Callers {
    /// Those with the keys of `keys`, and with tokens of `signer` and `provider`.
    pub fn new(
        keys: Arc<dyn Authenticate>,
        makers: Arc<dyn Makers>,
        signer: Arc<Signer>,
        provider: Arc<Provider>,
        revocations: Arc<Revocations>,
        clock: SharedClock,
    ) -> Self {
        Self { keys, makers, signer, provider, revocations, memory: Memory::default(), clock }
    }

    /// Looks at a token's signature.
    fn look(&self, text: &str, token: &Compact<'_>) -> Seen {
        if text.len() > jwt::LIMIT {
            return Seen::Bad(invalid("it is too long"));
        }
        if let Some(verified) = self.memory.get(text, self.provider.generation()) {
            return Seen::Good(verified);
        }
        let verified = if self.signer.claims_to_be_ours(token) {
            self.signer.verify(token).ok_or_else(|| invalid("it is not signed by this server"))
        } else {
            match self.provider.check(token) {
                Checked::Good(verified) => Ok(*verified),
                Checked::Bad(reason) => Err(invalid(reason)),
                Checked::Over => Err(ended()),
                Checked::UnknownKey => return Seen::UnknownKey,
            }
        };
        match verified {
            Ok(verified) => {
                let verified = Arc::new(verified);
                self.memory.put(text, &verified, self.clock.now());
                Seen::Good(verified)
            }
            Err(error) => Seen::Bad(error),
        }
    }

    /// Whether a token is alive, as far as that is in the memory of this node.
    fn check(&self, verified: &Verified) -> Result<()> {
        let now = self.clock.now();
        if now < verified.from {
            return Err(invalid("it is from the future"));
        }
        let user = &verified.user;
        if verified.until <= now || self.revocations.has_ended(&user.id, user.issued_at) {
            return Err(ended());
        }
        if matches!(verified.maker, Maker::Provider(_)) {
            self.provider.keep_fresh();
        }
        Ok(())
    }

    fn cached_token(&self, text: &str, token: &Compact<'_>) -> Option<Result<Principal>> {
        let verified = match self.look(text, token) {
            Seen::Good(verified) => verified,
            Seen::Bad(error) => return Some(Err(error)),
            Seen::UnknownKey if self.provider.may_refresh() => return None,
            Seen::UnknownKey => return Some(Err(self.unknown_key())),
        };
        if let Err(error) = self.check(&verified) {
            return Some(Err(error));
        }
        if !self.revocations.is_current() {
            return None;
        }
        Some(match &verified.maker {
            Maker::Provider(_) => Ok(verified.principal(None)),
            Maker::Key(key_id) => {
                self.makers.known_maker(key_id)?.map(|held| verified.principal(Some(&held))).ok_or_else(ended)
            }
        })
    }

    async fn authenticate_token(&self, text: &str, token: &Compact<'_>) -> Result<Principal> {
        let mut seen = self.look(text, token);
        if matches!(seen, Seen::UnknownKey) {
            self.provider.refresh().await;
            seen = self.look(text, token);
        }
        let verified = match seen {
            Seen::Good(verified) => verified,
            Seen::Bad(error) => return Err(error),
            Seen::UnknownKey => return Err(self.unknown_key()),
        };
        self.revocations.make_current().await?;
        self.check(&verified)?;
        match &verified.maker {
            Maker::Provider(_) => Ok(verified.principal(None)),
            Maker::Key(key_id) => {
                let held = self.makers.find_maker(key_id).await?.ok_or_else(ended)?;
                Ok(verified.principal(Some(&held)))
            }
        }
    }

    fn unknown_key(&self) -> Error {
        self.provider.unknown_key().unwrap_or_else(|| invalid("its key is not known"))
    }

    async fn revalidate_token(&self, principal: &Principal, user: &User, scope: &str) -> Result<()> {
        let key_id = &*principal.key_id;
        let now = self.clock.now();
        let of_provider = key_id == PROVIDER;
        let until = if of_provider { user.expires_at + LEEWAY } else { user.expires_at };
        if until <= now {
            return Err(ended());
        }
        // A database that is away for a moment must not end every stream.
        if self.revocations.make_current().await.is_err() {
            return Ok(());
        }
        if self.revocations.has_ended(&user.id, user.issued_at) {
            return Err(ended());
        }
        if of_provider {
            return if self.provider.is_configured() { Ok(()) } else { Err(ended()) };
        }
        let maker = match self.makers.known_maker(key_id) {
            Some(maker) => maker,
            None => match self.makers.find_maker(key_id).await {
                Ok(maker) => maker,
                Err(_) => return Ok(()),
            },
        };
        // As when it was shown: what its maker may not do any more, it may not.
        let held = maker.ok_or_else(ended)?;
        let covers = |own: &String| scope::covers(own, scope) && scope::any_covers(&held, own);
        if principal.scopes.iter().any(covers) {
            return Ok(());
        }
        Principal { scopes: Arc::new([]), ..principal.clone() }.require(scope)
    }
}

impl Authenticate for Callers {
    fn cached(&self, key: &str) -> Option<Result<Principal>> {
        match Compact::split(key) {
            Some(token) => self.cached_token(key, &token),
            None => self.keys.cached(key),
        }
    }

    fn authenticate<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Principal>> {
        match Compact::split(key) {
            Some(token) => async move { self.authenticate_token(key, &token).await }.boxed(),
            None => self.keys.authenticate(key),
        }
    }

    fn admit(&self, key: &str, address: Option<IpAddr>) -> Result<Option<Standing>> {
        self.keys.admit(key, address)
    }

    fn revalidate<'a>(
        &'a self,
        principal: &'a Principal,
        access: &'a Access,
    ) -> BoxFuture<'a, Result<Option<Timestamp>>> {
        match &principal.user {
            // Whoever has a token knows when it ends.
            Some(user) => {
                async { self.revalidate_token(principal, user, access.scope).await.map(|()| None) }.boxed()
            }
            None => self.keys.revalidate(principal, access),
        }
    }

    fn revoked(&self) -> watch::Receiver<u64> {
        self.keys.revoked()
    }
}

/// What a token is answered that never was one; the reason is for the log alone.
fn invalid(reason: &str) -> Error {
    tracing::debug!(reason, "a token is not taken");
    Error::new(Kind::Unauthenticated, "TOKEN_INVALID", "Invalid token")
}

/// What a token is answered that was one: it has expired, or was revoked, or the key that made it has ended.
fn ended() -> Error {
    Error::new(Kind::Unauthenticated, TOKEN_ENDED, "The token has ended: get another one")
}
