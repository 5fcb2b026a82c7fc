//! Who calls: the key in a request, and what its holder may do.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, header};

use super::admission::quota::Standing;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::scope;

/// The holder of a valid key or token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The key's id; of a user, the id of the key that made the token, or what stands for the identity provider.
    pub key_id: Arc<str>,
    /// What it may do.
    pub scopes: Arc<[String]>,
    /// The user, when the caller is one and not an application.
    pub user: Option<Arc<User>>,
}

/// A user, as a token names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Who.
    pub id: String,
    /// What people call them; may be empty.
    pub name: String,
    /// The topics that they may see beside their own and everybody's: patterns.
    pub topics: Vec<String>,
    /// The event types that they may see: patterns; empty means all.
    pub event_types: Vec<String>,
    /// When the token was made.
    pub issued_at: Timestamp,
    /// When the token ends.
    pub expires_at: Timestamp,
}

impl Principal {
    /// Fails unless one of its scopes covers `needed`.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn require(&self, needed: &str) -> Result<()> {
        if scope::any_covers(&self.scopes, needed) {
            return Ok(());
        }
        let message = format!("the API key does not have the scope {needed}");
        Err(Error::new(Kind::PermissionDenied, "SCOPE_MISSING", message).with("required_scope", needed))
    }

    /// The caller of a request that went through the gate.
    ///
    /// # Errors
    /// When it did not.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<&Self> {
        request.extensions().get().ok_or_else(|| Error::internal("a request came past the gate"))
    }
}

/// Knows the keys.
pub trait Authenticate: Send + Sync + 'static {
    /// The holder of a key that is known in memory; `None` when the database has to be asked.
    fn cached(&self, key: &str) -> Option<Result<Principal>>;

    /// The holder of a key.
    fn authenticate<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Principal>>;

    /// Whether a key whose holder was found may be used now, and from this address; answers how it stands with its rate limit,
    /// or with the one of several that is used up the furthest.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for the address, `RESOURCE_EXHAUSTED` for a rate limit.
    fn admit(&self, key: &str, address: Option<IpAddr>) -> Result<Option<Standing>>;

    /// Whether a key that was valid still is, for a call that lasts.
    fn is_valid<'a>(&'a self, principal: &'a Principal) -> BoxFuture<'a, bool>;
}

/// Read from text it would be looked at letter by letter for each request.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The key in `x-api-key` or `authorization: Bearer`.
///
/// # Errors
/// `UNAUTHENTICATED` when there is none.
pub fn key(headers: &HeaderMap) -> Result<&str> {
    let own = headers.get(API_KEY).and_then(|value| value.to_str().ok());
    let bearer = || {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim_start())
    };
    own.or_else(bearer).ok_or_else(|| {
        let message = "an API key is needed, as x-api-key or authorization: Bearer";
        Error::new(Kind::Unauthenticated, "KEY_MISSING", message)
    })
}
