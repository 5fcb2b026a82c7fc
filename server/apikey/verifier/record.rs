//! What is kept in memory of a key, in as few bytes as there can be: a million keys are to fit.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ipnet::{IpNet, Ipv6Net};

use super::store::Kept;
use crate::apikey::credits::lease::Lease;
use crate::apikey::limit::Limits;
use crate::apikey::model::{KeyKind, Rules};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::rpc::Principal;
use crate::rpc::admission::parse_network;

/// A key in memory.
#[derive(Debug)]
pub struct Record {
    /// What the MAC of the right key is.
    pub(super) mac: [u8; 32],
    /// Whether there is such a key.
    pub(super) exists: bool,
    /// Whether somebody ended it.
    pub revoked: bool,
    /// Whether somebody stopped it for a while.
    pub disabled: bool,
    /// What it is used for.
    pub kind: KeyKind,
    /// Its holder.
    pub principal: Principal,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The external id and, behind a NUL, the metadata; nothing for a key without both.  One text needs less memory than two.
    about: Box<str>,
    /// How much of the limit of keys without a limit of their own is used up.
    pub(super) used: AtomicI64,
    /// Most keys have no bounds.
    bounds: Option<Box<Bounds>>,
}

/// The network of no address from which anybody comes (RFC 4291, 2.5.2).
const NOWHERE: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128));

/// What bounds a key beside its scopes.
#[derive(Debug)]
pub struct Bounds {
    allowed: Box<[IpNet]>,
    denied: Box<[IpNet]>,
    /// How often it may be used.
    pub limits: Arc<Limits>,
    /// What is left of its uses.
    pub lease: Option<Arc<Lease>>,
}

/// What a prefix has that no key has: it is judged as a key is, in the same time.
pub(super) fn unknown() -> Record {
    Record {
        mac: [0; 32],
        exists: false,
        revoked: true,
        disabled: false,
        kind: KeyKind::Live,
        principal: Principal { key_id: "".into(), scopes: Arc::new([]), user: None },
        expires_at: Timestamp::default(),
        about: "".into(),
        used: AtomicI64::new(0),
        bounds: None,
    }
}

impl Record {
    /// What the database has; `before` is what it had before, whose counts go on.
    pub(super) fn new(kept: Kept, scopes: Arc<[String]>, before: Option<&Self>) -> Self {
        let Kept { key, mac, credits } = kept;
        let about = match key.metadata.as_str() {
            // An external id has no control characters.
            "{}" => key.external_id,
            metadata => format!("{}\0{metadata}", key.external_id),
        };
        let credits = key.credits_id.zip(credits);
        let used = AtomicI64::new(before.map_or(0, |before| before.used.load(Ordering::Acquire)));
        let before = before.and_then(|before| before.bounds.as_deref());
        Self {
            // A MAC of another length is none of ours, and nothing has the MAC of zeros.
            mac: mac.try_into().unwrap_or_default(),
            exists: true,
            revoked: !key.active,
            disabled: key.disabled,
            kind: key.kind,
            principal: Principal { key_id: key.id.into(), scopes, user: None },
            expires_at: key.expires_at,
            about: about.into(),
            used,
            bounds: Bounds::new(&key.rules, credits, before),
        }
    }

    /// Whether it works.
    pub(super) fn works(&self, now: Timestamp) -> bool {
        self.exists & !self.revoked & !self.disabled & (self.expires_at > now)
    }

    /// Whose it is, in the words of the application.
    pub fn external_id(&self) -> &str {
        self.about.split_once('\0').map_or(&self.about, |(external_id, _)| external_id)
    }

    /// What the application wants to know of it, as JSON.
    pub fn metadata(&self) -> &str {
        self.about.split_once('\0').map_or("{}", |(_, metadata)| metadata)
    }

    /// What bounds it.
    pub fn bounds(&self) -> Option<&Bounds> {
        self.bounds.as_deref()
    }

    /// Whether it may be used from an address; a key with rules may not be used from one that nobody knows.
    pub fn admits(&self, address: Option<IpAddr>) -> bool {
        self.bounds().is_none_or(|bounds| bounds.admit(address))
    }
}

impl Record {
    /// Fails unless it may be used from an address.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub(super) fn require_from(&self, address: Option<IpAddr>) -> Result<()> {
        if self.admits(address) {
            return Ok(());
        }
        let message = "the API key must not be used from this address";
        Err(Error::new(Kind::PermissionDenied, "IP_NOT_ALLOWED", message))
    }
}

impl Bounds {
    fn new(rules: &Rules, credits: Option<(String, i64)>, before: Option<&Self>) -> Option<Box<Self>> {
        if *rules == Rules::default() && credits.is_none() {
            return None;
        }
        // What can not be read lets nobody in, and a list with it is none that lets everybody in.
        let networks = |texts: &[String]| {
            texts.iter().map(|text| parse_network(text).unwrap_or(NOWHERE)).collect::<Box<[_]>>()
        };
        let same = before.map(|before| &before.limits).filter(|limits| limits.are(&rules.rate_limits));
        let limits = same.map_or_else(
            || Arc::new(Limits::new(&rules.rate_limits, before.map(|before| &*before.limits))),
            Arc::clone,
        );
        let lease = credits.map(|(id, version)| {
            let held = before.and_then(|before| before.lease.as_ref());
            match held.filter(|lease| lease.is_of(&id, version)) {
                Some(lease) => Arc::clone(lease),
                None => Arc::new(Lease::new(id, version)),
            }
        });
        let (allowed, denied) = (networks(&rules.allowed_networks), networks(&rules.denied_networks));
        Some(Box::new(Self { allowed, denied, limits, lease }))
    }

    fn admit(&self, address: Option<IpAddr>) -> bool {
        if self.allowed.is_empty() && self.denied.is_empty() {
            return true;
        }
        let Some(address) = address.map(|address| address.to_canonical()) else {
            return false;
        };
        let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !is_in(&self.denied) && (self.allowed.is_empty() || is_in(&self.allowed))
    }
}

#[cfg(test)]
pub(super) fn sample(number: u64, scopes: Arc<[String]>) -> Record {
    let key_id = format!("key_01jd{number:022}").into();
    let about = format!("user {number:08}").into();
    let principal = Principal { key_id, scopes, user: None };
    Record { exists: true, revoked: false, principal, about, ..unknown() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(allowed: &[&str], denied: &[&str]) -> Bounds {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let rules = Rules {
            rate_limits: Vec::new(),
            allowed_networks: texts(allowed),
            denied_networks: texts(denied),
        };
        *Bounds::new(&rules, None, None).unwrap()
    }

    #[test]
    fn what_is_denied_is_denied_whatever_is_allowed() {
        let admits = |bounds: &Bounds, address: &str| bounds.admit(address.parse().ok());
        let both = bounds(&["10.0.0.0/8", "2001:db8::/32"], &["10.6.0.0/16"]);
        assert!(
            admits(&both, "10.1.2.3") && admits(&both, "2001:db8::1") && admits(&both, "::ffff:10.1.2.3")
        );
        for refused in ["10.6.0.1", "::ffff:10.6.0.1", "192.0.2.1", "2001:db9::1", "", "unknown"] {
            assert!(!admits(&both, refused), "{refused}");
        }
        let denied = bounds(&[], &["192.0.2.0/24"]);
        assert!(admits(&denied, "192.0.3.1") && !admits(&denied, "192.0.2.1") && !admits(&denied, ""));
    }
}
