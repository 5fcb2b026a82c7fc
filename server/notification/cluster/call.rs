//! What is asked of the node that has a stream, as it is written into its box.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::notification::registry::Update;
use crate::rpc::{Principal, User};

/// A call about a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// The stream is to be about something else.
    Update {
        /// The stream.
        subscription_id: String,
        /// Who asks.
        caller: Caller,
        /// What it is to be about.
        update: Update,
    },
    /// The stream is to go on for this caller, in place of the one who opened it.
    Refresh {
        /// The stream.
        subscription_id: String,
        /// Who asks.
        caller: Caller,
    },
}

/// Who calls: what they may do, and neither the key nor the token that said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    key_id: String,
    scopes: Vec<String>,
    user: Option<CallingUser>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CallingUser {
    id: String,
    name: String,
    topics: Vec<String>,
    event_types: Vec<String>,
    /// In microseconds since 1970, as the next one.
    issued_at: i64,
    expires_at: i64,
}

impl From<&Principal> for Caller {
    fn from(principal: &Principal) -> Self {
        let user = principal.user.as_ref().map(|user| {
            let User { id, name, topics, event_types, issued_at, expires_at } = User::clone(user);
            let (issued_at, expires_at) = (issued_at.micros(), expires_at.micros());
            CallingUser { id, name, topics, event_types, issued_at, expires_at }
        });
        Self { key_id: principal.key_id.to_string(), scopes: principal.scopes.to_vec(), user }
    }
}

impl From<Caller> for Principal {
    fn from(caller: Caller) -> Self {
        let user = caller.user.map(|user| {
            let CallingUser { id, name, topics, event_types, issued_at, expires_at } = user;
            let (issued_at, expires_at) =
                (Timestamp::from_micros(issued_at), Timestamp::from_micros(expires_at));
            Arc::new(User { id, name, topics, event_types, issued_at, expires_at })
        });
        Self { key_id: caller.key_id.into(), scopes: caller.scopes.into(), user }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_the_same_on_the_other_side() {
        let user = User {
            id: "jo".into(),
            name: "Jo \u{1f600} \"quoted\"".into(),
            topics: vec!["chat:*".into()],
            event_types: vec!["ticket.*".into()],
            issued_at: Timestamp::from_micros(1),
            expires_at: Timestamp::from_micros(i64::MAX),
        };
        let scopes: Arc<[String]> = vec!["notifications:read".to_owned()].into();
        let of_user =
            Principal { key_id: "key_1".into(), scopes: Arc::clone(&scopes), user: Some(Arc::new(user)) };
        let of_key = Principal { key_id: "key_2".into(), scopes, user: None };
        for principal in [of_user, of_key] {
            let call = Call::Refresh { subscription_id: "sub_1".into(), caller: Caller::from(&principal) };
            let text = serde_json::to_string(&call).unwrap();
            let Call::Refresh { caller, .. } = serde_json::from_str(&text).unwrap() else {
                panic!("{text}");
            };
            assert_eq!(Principal::from(caller), principal);
        }
    }
}
