//! Who may come to the port at all: what is decided by a request's address and by what else is under way, before its key is
//! looked at and while it is.
//!
//! ```text
//! peer ─▶ forwarded (past trusted proxies) ─▶ deny list ─▶ allow list ─▶ limit of the address ─▶ calls under way
//!      ─▶ failed keys of the address
//! ```
//! All of it is in the memory of one node.  The addresses of trusted proxies are no unit of any limit: everybody comes from
//! there.

mod cells;
mod forwarded;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod load;
mod networks;
mod pause;
pub mod quota;
mod route;

pub use load::{Class, Place};
pub use networks::{Networks, parse_network};
pub(super) use route::Admitted;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{Extensions, HeaderMap};

use super::address::ClientAddress;
use super::auth::{Access, Authenticate, Principal, TOKEN_ENDED, User};
use crate::clock::{SharedClock, Timestamp};
use crate::error::{Error, Kind, Result};
use cells::Cells;
use load::{Caller, Load};
use quota::{Quota, Standing};

/// What the settings say of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The proxies whose word is taken for whom they were asked by.
    pub trusted_proxies: Networks,
    /// Who alone may come, unless it is empty.
    pub allowed: Networks,
    /// Who may not come, whatever is allowed.
    pub denied: Networks,
    /// How many requests an address may make.
    pub requests: Option<Quota>,
    /// How many keys that do not work an address may show.
    pub failed_keys: Option<Quota>,
    /// How many requests a user may make, with whatever tokens.
    pub users: Option<Quota>,
    /// How many calls may be under way.
    pub under_way: Option<usize>,
}

impl Policy {
    /// Whether the lists let an address call.
    pub fn admits(&self, address: Option<IpAddr>) -> bool {
        let is_in = |networks: &Networks| address.is_some_and(|address| networks.contain(address));
        // Who is not known can not be told from who is denied.
        let denied = !self.denied.is_empty() && (address.is_none() || is_in(&self.denied));
        !denied && (self.allowed.is_empty() || is_in(&self.allowed))
    }
}

/// What kind of door a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// What clients with keys call.
    Api,
    /// What anybody may ask for, such as the link in a mail: the allow list is not for it.
    Public,
    /// What a proxy asks about a request in hand: the headers are of that request and say nothing of the proxy.
    Proxy,
}

/// Decides by addresses.
pub struct Admission {
    clock: SharedClock,
    policy: ArcSwap<Policy>,
    requests: Cells,
    failed_keys: Cells,
    users: Cells,
    load: Load,
}

impl Admission {
    /// Lets everybody in until it is told otherwise.
    pub fn new(clock: SharedClock) -> Self {
        let policy = ArcSwap::default();
        Self {
            clock,
            policy,
            requests: Cells::default(),
            failed_keys: Cells::default(),
            users: Cells::default(),
            load: Load::default(),
        }
    }

    /// Has a policy hold from now on; what addresses have used up stays.  Answers whether its lists are others than before.
    pub fn set(&self, policy: Policy) -> bool {
        let policy = Arc::new(policy);
        let before = self.policy.swap(Arc::clone(&policy));
        (&before.allowed, &before.denied) != (&policy.allowed, &policy.denied)
    }

    /// The address that a request is from, when it may come.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for the lists, `RESOURCE_EXHAUSTED` for the limit of the address.
    pub fn enter(&self, headers: &HeaderMap, extensions: &Extensions, door: Door) -> Result<Option<IpAddr>> {
        let policy = self.policy.load();
        let peer = ClientAddress::of(extensions);
        let address = match door {
            Door::Proxy => peer,
            _ => peer.map(|peer| forwarded::client(peer, headers, &policy.trusted_proxies)),
        };
        let admitted = match door {
            Door::Public => policy.denied.is_empty() || address.is_none_or(|one| !policy.denied.contain(one)),
            _ => policy.admits(address),
        };
        if !admitted {
            return Err(not_admitted());
        }
        if let (Some(quota), Some(unit)) = (&policy.requests, policy.unit(address)) {
            let taken = self.requests.take(unit, quota, self.clock.steady());
            taken.map_err(|standing| standing.into_error("the rate limit of this address is used up"))?;
        }
        Ok(address)
    }

    /// A place for a call as long as it is under way.
    ///
    /// # Errors
    /// `UNAVAILABLE` with `OVERLOADED` when there are too many.
    pub fn begin(&self, class: Class) -> Result<Place> {
        self.load.enter(class, self.policy.load().under_way)
    }

    /// Counts a call for who makes it.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` with `CALL_LIMIT` when they have too many under way.
    pub fn claim(&self, place: &mut Place, principal: &Principal) -> Result<()> {
        let caller = match &principal.user {
            Some(user) => Caller::User(&user.id),
            None => Caller::Key(&principal.key_id),
        };
        place.claim(caller, self.policy.load().under_way)
    }

    /// The holder of a key that was shown from an address.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when it does not work, `RESOURCE_EXHAUSTED` when too many from this address did not: then nothing is
    /// looked up.
    pub async fn authenticate(
        &self,
        keys: &dyn Authenticate,
        key: &str,
        address: Option<IpAddr>,
    ) -> Result<Principal> {
        self.with_failed_keys(address, |quota, unit| self.failed_keys.ask(unit, quota, self.clock.steady()))?;
        let found = match keys.cached(key) {
            Some(known) => known,
            None => keys.authenticate(key).await,
        };
        // Browsers that wake up show tokens that have ended, many from one address: nobody guesses by those.
        let is_bad = |error: &Error| error.kind() == Kind::Unauthenticated && error.reason() != TOKEN_ENDED;
        if found.as_ref().is_err_and(is_bad) {
            // Those that were looked up at the same time may be more than there were left.
            self.with_failed_keys(address, |quota, unit| {
                self.failed_keys.take(unit, quota, self.clock.steady())
            })?;
        }
        found
    }

    /// Whether a caller may go on with a call that lasts; answers when the key ends, if that is known.
    ///
    /// # Errors
    /// As [`Authenticate::revalidate`], and `PERMISSION_DENIED` when the lists do not let the address call any more.
    pub async fn revalidate(
        &self,
        keys: &dyn Authenticate,
        principal: &Principal,
        access: &Access,
    ) -> Result<Option<Timestamp>> {
        if !self.policy.load().admits(access.address) {
            return Err(not_admitted());
        }
        keys.revalidate(principal, access).await
    }

    /// What counts as one address where calls from it are counted: a /64 of IPv6 does.  `None` for those that are no unit of any
    /// limit.
    pub fn unit(&self, address: Option<IpAddr>) -> Option<u128> {
        self.policy.load().unit(address).map(cells::unit)
    }

    /// Counts a request of a user.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when the user's limit is used up.
    pub fn admit_user(&self, user: &User) -> Result<()> {
        let policy = self.policy.load();
        let Some(quota) = &policy.users else { return Ok(()) };
        let taken = self.users.take_unit(cells::unit_of_name(&user.id), quota, self.clock.steady());
        taken.map_err(|standing| standing.into_error("the rate limit of this user is used up"))
    }

    fn with_failed_keys(
        &self,
        address: Option<IpAddr>,
        judge: impl FnOnce(&Quota, IpAddr) -> Result<(), Standing>,
    ) -> Result<()> {
        let policy = self.policy.load();
        let (Some(quota), Some(unit)) = (&policy.failed_keys, policy.unit(address)) else { return Ok(()) };
        let message = "too many API keys that do not work came from this address";
        judge(quota, unit).map_err(|standing| standing.into_error(message))
    }

    /// Whom a request is from that a proxy asks about: what the proxy saw, or, where that is a trusted proxy again, whom that
    /// one was asked by.
    pub fn asked_about(&self, seen: String, headers: &HeaderMap) -> String {
        let policy = self.policy.load();
        match seen.parse() {
            Ok(address) if policy.trusted_proxies.contain(address) => {
                forwarded::client(address, headers, &policy.trusted_proxies).to_string()
            }
            _ => seen,
        }
    }
}

fn not_admitted() -> Error {
    Error::new(Kind::PermissionDenied, "IP_NOT_ALLOWED", "requests from this address are not allowed")
}

impl Policy {
    /// The address that limits count, if they count any.
    fn unit(&self, address: Option<IpAddr>) -> Option<IpAddr> {
        address.filter(|address| !self.trusted_proxies.contain(*address))
    }
}
