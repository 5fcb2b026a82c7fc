//! Who calls: the key or token in a request, and what its holder may do.
//!
//! An **application** has an API key and acts for everybody.  A **user** has a token, short-lived and narrower than what made
//! it, and acts for nobody else ([`Principal::acting_for`]).  What made a token is asked at every use of it ([`Makers`]), and
//! calls that last are told when something ended or may do less ([`Endings`]), and ask anew what let them in ([`Access`]).

mod access;
mod endings;

pub use access::Access;
pub use endings::Endings;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, header};
use tokio::sync::watch;

use super::admission::quota::Standing;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::event::topic;
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
        let what = if self.user.is_some() { "token" } else { "API key" };
        let message = format!("the {what} does not have the scope {needed}");
        Err(Error::new(Kind::PermissionDenied, "SCOPE_MISSING", message).with("required_scope", needed))
    }

    /// For whom a call is that has a `user_id`: a user says nothing or names themselves, and an application names anybody.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` when a user names another one, `INVALID_ARGUMENT` when an application names nobody that there could
    /// be.
    pub fn acting_for(&self, user_id: &str) -> Result<String> {
        match &self.user {
            Some(user) if user_id.is_empty() || user_id == user.id => Ok(user.id.clone()),
            Some(_) => Err(Error::new(
                Kind::PermissionDenied,
                "USER_MISMATCH",
                "a user acts for nobody else: leave user_id empty",
            )),
            None => {
                topic::check_user_id(user_id).map_err(|wrong| Error::field("user_id", wrong))?;
                Ok(user_id.to_owned())
            }
        }
    }

    /// What records call it, and what tells its request ids from those of others: the key's id, or `user:` and the user's.
    pub fn actor(&self) -> Cow<'_, str> {
        match &self.user {
            Some(user) => Cow::Owned(topic::of_user(&user.id)),
            None => Cow::Borrowed(&self.key_id),
        }
    }

    /// Whether a call that `other` began may go on with this one: the same user, or the same key.
    pub fn is_who(&self, other: &Self) -> bool {
        match (&self.user, &other.user) {
            (Some(one), Some(other)) => one.id == other.id,
            (None, None) => self.key_id == other.key_id,
            _ => false,
        }
    }

    /// The caller of a request that went through the gate.
    ///
    /// # Errors
    /// When it did not.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<&Self> {
        request.extensions().get().ok_or_else(|| Error::internal("a request came past the gate"))
    }
}

/// The reason of a token that was good once.
pub const TOKEN_ENDED: &str = "TOKEN_ENDED";

/// Knows the keys and tokens.
pub trait Authenticate: Send + Sync + 'static {
    /// The holder of a key or token that is known in memory; `None` when somebody has to be asked.
    fn cached(&self, key: &str) -> Option<Result<Principal>>;

    /// The holder of a key or token.
    fn authenticate<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Principal>>;

    /// Whether a key whose holder was found may be used now, and from this address; answers how it stands with its rate limit,
    /// or with the one of several that is used up the furthest.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for the address, `RESOURCE_EXHAUSTED` for a rate limit.
    fn admit(&self, key: &str, address: Option<IpAddr>) -> Result<Option<Standing>>;

    /// Whether the holder of a key or token may go on with a call that lasts; answers when the key ends, if that is known.  It is
    /// answered from memory, but for the first time after a change.  A database that is away for a moment ends nothing.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when the key or token has ended, `PERMISSION_DENIED` when it works, but not for this scope or not from
    /// this address any more.
    fn revalidate<'a>(
        &'a self,
        principal: &'a Principal,
        access: &'a Access,
    ) -> BoxFuture<'a, Result<Option<Timestamp>>>;

    /// Changes whenever a key or token may have ended before its time, or may do less: whoever has a call that lasts asks
    /// [`Authenticate::revalidate`] then.
    fn revoked(&self) -> watch::Receiver<u64>;
}

/// Knows by their ids the keys that tokens are made with.
pub trait Makers: Send + Sync + 'static {
    /// What a key may do now, `Some(None)` when it does not work; `None` when the database has to be asked.
    fn known_maker(&self, key_id: &str) -> Option<Option<Arc<[String]>>>;

    /// What a key may do now; `None` when it does not work.
    fn find_maker<'a>(&'a self, key_id: &'a str) -> BoxFuture<'a, Result<Option<Arc<[String]>>>>;
}

/// Read from text it would be looked at letter by letter for each request.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The key or token in `x-api-key` or `authorization: Bearer`.
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
        let message = "an API key or a token is needed, as x-api-key or authorization: Bearer";
        Error::new(Kind::Unauthenticated, "KEY_MISSING", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Principal {
        Principal { key_id: id.into(), scopes: Arc::new([]), user: None }
    }

    fn user(id: &str) -> Principal {
        let user = User {
            id: id.into(),
            name: String::new(),
            topics: Vec::new(),
            event_types: Vec::new(),
            issued_at: Timestamp::default(),
            expires_at: Timestamp::default(),
        };
        Principal { user: Some(Arc::new(user)), ..key("key_1") }
    }

    #[test]
    fn a_user_acts_for_themselves_and_an_application_for_whom_it_names() {
        let jo = user("jo");
        assert_eq!(jo.acting_for("").unwrap(), "jo");
        assert_eq!(jo.acting_for("jo").unwrap(), "jo");
        for other in ["sam", "JO", "jo ", "*"] {
            let refused = jo.acting_for(other).unwrap_err();
            assert_eq!(
                (refused.kind(), refused.reason()),
                (Kind::PermissionDenied, "USER_MISMATCH"),
                "{other}"
            );
        }
        assert_eq!(key("key_1").acting_for("sam").unwrap(), "sam");
        for nobody in ["", "a b", "a:b", "*"] {
            let refused = key("key_1").acting_for(nobody).unwrap_err();
            assert_eq!(refused.violations()[0].field, "user_id", "{nobody}");
        }
    }

    #[test]
    fn who_goes_on_with_a_call_is_who_began_it() {
        assert!(user("jo").is_who(&user("jo")) && key("key_1").is_who(&key("key_1")));
        assert!(!user("jo").is_who(&user("sam")) && !key("key_1").is_who(&key("key_2")));
        assert!(!user("jo").is_who(&key("key_1")) && !key("key_1").is_who(&user("jo")));
    }

    #[test]
    fn records_tell_a_user_from_the_key_that_made_the_token() {
        assert_eq!(key("key_1").actor(), "key_1");
        assert_eq!(user("jo").actor(), "user:jo");
    }
}
