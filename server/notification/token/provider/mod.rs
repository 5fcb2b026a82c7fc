//! Tokens of the application's own identity provider, verified with the public keys that it publishes.
//!
//! The keys are fetched when a token names one that is not known, and again every few minutes while tokens come, so that a key
//! that the provider took back is soon not believed any more.  Between two fetches there are ten seconds, whatever comes; while
//! the provider can not be reached, what it published last is believed for a day.  What is not for this server, or not in its
//! time, makes no fetch at all.

mod claims;
pub mod keys;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use url::{Host, Url};

use self::claims::{Claims, Header, Standing};
use self::keys::{Algorithm, Keys};
use super::jwt::Compact;
use super::model::Verified;
use crate::clock::{SharedClock, Timestamp};
use crate::error::Error;
use crate::rpc::Endings;

/// The least time between two fetches.
const BETWEEN: Duration = Duration::from_secs(10);
/// How old keys are when they are fetched again.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// How old keys may be when the provider can not be reached.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
const HEADER_LIMIT: usize = 1_024;

/// Gets the document at a URL, or says why it can not.
pub trait Fetch: Send + Sync + 'static {
    /// Gets it.
    fn fetch(&self, url: String) -> BoxFuture<'static, Result<Bytes, String>>;
}

/// What the settings say of the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where its keys are.
    pub jwks_url: String,
    /// What its tokens say that they are from.
    pub issuer: String,
    /// What its tokens say that they are for.
    pub audience: String,
}

impl Config {
    /// Whether the keys may be fetched from this URL: over TLS, or on this machine.  Whoever can change the answer could be
    /// anybody.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_url(url: &str) -> Result<(), String> {
        let parsed = Url::parse(url).map_err(|error| format!("is no URL: {error}"))?;
        let is_here = match parsed.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        match parsed.scheme() {
            "https" => Ok(()),
            "http" if is_here => Ok(()),
            _ => Err("must be https: whoever can change the keys on the way can be anybody".into()),
        }
    }
}

/// What is known of the provider.
#[derive(Debug, Default)]
struct State {
    config: Option<Config>,
    keys: Keys,
    /// Grows with every change of the settings or the keys.
    generation: u64,
    /// When the keys were fetched; `None` while there are none.
    fetched: Option<Timestamp>,
    /// When a fetch last ended, well or not.
    tried: Option<Timestamp>,
}

impl State {
    /// Whether the keys may still be believed.
    fn has_keys(&self, now: Timestamp) -> bool {
        self.fetched.is_some_and(|fetched| now.since(fetched) < STALE)
    }

    fn may_fetch(&self, now: Timestamp) -> bool {
        self.config.is_some() && self.tried.is_none_or(|tried| now.since(tried) >= BETWEEN)
    }

    fn wants_fetch(&self, now: Timestamp) -> bool {
        self.fetched.is_some_and(|fetched| now.since(fetched) >= FRESH) && self.may_fetch(now)
    }
}

/// What a token turned out to be.
#[derive(Debug)]
pub(super) enum Checked {
    /// Its signature is right.
    Good(Box<Verified>),
    /// It is none, for this reason.
    Bad(&'static str),
    /// It was one.
    Over,
    /// The key that it names is not known.
    UnknownKey,
}

/// The identity provider.
pub struct Provider {
    source: Arc<dyn Fetch>,
    clock: SharedClock,
    endings: Endings,
    state: ArcSwap<State>,
    /// Held by the one who fetches.
    turn: Arc<Mutex<()>>,
}

impl Provider {
    /// No provider, until it is told of one.
    pub fn new(source: Arc<dyn Fetch>, clock: SharedClock, endings: Endings) -> Arc<Self> {
        Arc::new(Self { source, clock, endings, state: ArcSwap::default(), turn: Arc::default() })
    }

    /// Believes this provider from now on, and no other.
    pub fn configure(&self, config: Option<Config>) {
        let before = self.state.load();
        if before.config != config {
            let generation = before.generation + 1;
            self.state.store(Arc::new(State { config, generation, ..State::default() }));
            self.endings.tell();
        }
    }

    /// Whether there is one.
    pub(super) fn is_configured(&self) -> bool {
        self.state.load().config.is_some()
    }

    /// Tells what was verified with other keys from what was verified with these; `None` while none are believed.
    pub(super) fn generation(&self) -> Option<u64> {
        let state = self.state.load();
        state.has_keys(self.clock.now()).then_some(state.generation)
    }

    /// What a token is, by the keys that are known.
    pub(super) fn check(self: &Arc<Self>, token: &Compact<'_>) -> Checked {
        let (state, now) = (self.state.load_full(), self.clock.now());
        let Some(config) = &state.config else { return Checked::Bad("there is no identity provider") };
        if token.header.len() > HEADER_LIMIT {
            return Checked::Bad("the header is too long");
        }
        let Some(header) = token.header_bytes().and_then(|bytes| Header::read(&bytes)) else {
            return Checked::Bad("the header is none of an access token");
        };
        let Some(algorithm) = Algorithm::named(&header.alg) else {
            return Checked::Bad("the algorithm is not RS256, ES256 or EdDSA");
        };
        if header.kid.as_ref().is_some_and(|id| id.len() > keys::ID_LIMIT) {
            return Checked::Bad("the name of the key is too long");
        }
        let Some(claims) = token.claims_bytes().and_then(|bytes| Claims::read(&bytes)) else {
            return Checked::Bad("the claims can not be read");
        };
        match claims.stand(config, now) {
            Standing::Good => {}
            Standing::Bad(reason) => return Checked::Bad(reason),
            Standing::Over => return Checked::Over,
        }
        let found = state.keys.find(algorithm, header.kid.as_deref());
        if found.is_empty() || !state.has_keys(now) {
            return Checked::UnknownKey;
        }
        let Some(signature) = token.signature_bytes() else {
            return Checked::Bad("the signature can not be read");
        };
        if !found.iter().any(|key| key.signed(token.signed.as_bytes(), &signature)) {
            return Checked::Bad("the signature is wrong");
        }
        match claims.verified(state.generation) {
            Ok(verified) => Checked::Good(Box::new(verified)),
            Err(reason) => {
                tracing::info!(%reason, "the identity provider made a token that can not be taken");
                Checked::Bad("the claims can not be taken")
            }
        }
    }

    /// Has keys that are getting old fetched again; nobody waits for it.
    pub(super) fn keep_fresh(self: &Arc<Self>) {
        if self.state.load().wants_fetch(self.clock.now())
            && let Ok(turn) = Arc::clone(&self.turn).try_lock_owned()
        {
            tokio::spawn(Arc::clone(self).fetch(turn));
        }
    }

    /// Whether it makes sense to [`Provider::refresh`].
    pub(super) fn may_refresh(&self) -> bool {
        // Whoever comes while another one fetches waits for what that brings.
        self.turn.try_lock().is_err() || self.state.load().may_fetch(self.clock.now())
    }

    /// Fetches the keys, unless that was done a moment ago.
    pub(super) async fn refresh(self: &Arc<Self>) {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if self.state.load().may_fetch(self.clock.now()) {
            // A task of its own: the next one needs the keys, whatever becomes of this caller.
            let _ = tokio::spawn(Arc::clone(self).fetch(turn)).await;
        }
    }

    /// Why a token is not taken whose key is not known.
    pub(super) fn unknown_key(&self) -> Option<Error> {
        let has_keys = self.state.load().has_keys(self.clock.now());
        (!has_keys).then(|| {
            let message = "the keys of the identity provider can not be fetched: try again later";
            Error::unavailable(message, "the log has the reason").retry_after(BETWEEN)
        })
    }

    async fn fetch(self: Arc<Self>, _turn: tokio::sync::OwnedMutexGuard<()>) {
        let before = self.state.load_full();
        let Some(config) = before.config.clone() else { return };
        let got = self.source.fetch(config.jwks_url.clone()).await;
        let got = got.and_then(|text| Keys::parse(&text));
        if let Err(reason) = &got {
            let url = &config.jwks_url;
            tracing::warn!(%reason, %url, "the keys of the identity provider could not be fetched");
        }
        let now = self.clock.now();
        let mut changed = false;
        self.state.rcu(|current| {
            // Another provider, of which this answer says nothing.
            if current.config.as_ref() != Some(&config) {
                changed = false;
                return Arc::clone(current);
            }
            let mut next = State {
                config: current.config.clone(),
                keys: current.keys.clone(),
                generation: current.generation,
                fetched: current.fetched,
                tried: Some(now),
            };
            if let Ok(keys) = &got {
                changed = *keys != next.keys;
                next.generation += u64::from(changed);
                (next.keys, next.fetched) = (keys.clone(), Some(now));
            }
            Arc::new(next)
        });
        if changed {
            tracing::info!(url = %config.jwks_url, "the identity provider has other keys now");
        }
    }
}

#[cfg(test)]
mod tests;
