//! What a token of an identity provider says, and what comes of it here.

use std::sync::Arc;

use serde::Deserialize;

use super::super::model::{DEFAULT_SCOPES, LEEWAY, LONGEST, Maker, NAME_LIMIT, Verified, check_grants};
use super::Config;
use crate::clock::Timestamp;
use crate::error::Violations;
use crate::event::topic;
use crate::rpc::User;

/// The types that a token may say it has: other JWTs of the same provider are not for access (RFC 8725, 3.11; RFC 9068, 2.1).
const TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];
/// The end of year 9999.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// What a token says of itself.  Where keys could be found (`jku`, `jwk`, `x5u`) is never read.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    pub alg: String,
    pub kid: Option<String>,
    typ: Option<String>,
    crit: Option<serde_json::Value>,
}

impl Header {
    /// Reads one that can be an access token's.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header: Self = serde_json::from_slice(bytes).ok()?;
        let typed = header.typ.as_ref().is_none_or(|typ| TYPES.contains(&typ.to_ascii_lowercase().as_str()));
        (typed && header.crit.is_none()).then_some(header)
    }
}

/// What a token says of its user.  A claim that comes twice makes it none.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: f64,
    iat: f64,
    nbf: Option<f64>,
    name: Option<String>,
    preferred_username: Option<String>,
    switchboard: Option<Grant>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// What a provider may say for this server.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Grant {
    user_id: Option<String>,
    topics: Vec<String>,
    event_types: Vec<String>,
    scopes: Option<Vec<String>>,
}

/// How a token stands before its signature is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is for this server, and it is its time.
    Good,
    /// It is not for this server, or not yet.
    Bad(&'static str),
    /// It was.
    Over,
}

impl Claims {
    pub fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Whom it is from and for, and when.
    pub fn stand(&self, config: &Config, now: Timestamp) -> Standing {
        let audience = &config.audience;
        let for_us = match &self.aud {
            Audience::One(one) => one == audience,
            Audience::Many(many) => many.contains(audience),
        };
        let times = (self.from(), self.until());
        match times {
            _ if self.iss != config.issuer => Standing::Bad("another issuer"),
            _ if !for_us => Standing::Bad("another audience"),
            (None, _) | (_, None) => Standing::Bad("a time that is none"),
            (Some(from), _) if now < from => Standing::Bad("not yet"),
            (_, Some(until)) if until <= now => Standing::Over,
            _ => Standing::Good,
        }
    }

    /// From when on it is taken.
    fn from(&self) -> Option<Timestamp> {
        let (iat, nbf) = (moment(self.iat)?, self.nbf.map(moment));
        let from = match nbf {
            None => iat,
            Some(nbf) => iat.max(nbf?),
        };
        Some(from - LEEWAY)
    }

    /// Until when it is taken: a day at most, because nobody remembers for longer that it was revoked.
    fn until(&self) -> Option<Timestamp> {
        Some((moment(self.exp)? + LEEWAY).min(moment(self.iat)? + LONGEST))
    }

    /// What it is here, when its signature is right.
    ///
    /// # Errors
    /// What the provider says that can not be taken.
    pub fn verified(self, generation: u64) -> Result<Verified, String> {
        let times = self.from().zip(self.until()).zip(moment(self.iat)).zip(moment(self.exp));
        let (((from, until), issued_at), exp) = times.ok_or("a time that is none")?;
        let grant = self.switchboard.unwrap_or_default();
        let id = grant.user_id.unwrap_or(self.sub);
        topic::check_user_id(&id).map_err(|wrong| format!("the user id {id:?} {wrong}"))?;
        let scopes = grant.scopes.unwrap_or_else(|| DEFAULT_SCOPES.map(str::to_owned).to_vec());
        let mut violations = Violations::default();
        check_grants(&grant.topics, &grant.event_types, &scopes, &mut violations);
        violations.finish().map_err(|error| format!("the claim `switchboard`: {error}"))?;
        let name = self.name.or(self.preferred_username).unwrap_or_default();
        let user = User {
            id,
            name: name.chars().filter(|c| !c.is_control()).take(NAME_LIMIT).collect(),
            topics: grant.topics,
            event_types: grant.event_types,
            issued_at,
            expires_at: exp.min(issued_at + LONGEST),
        };
        let (user, maker) = (Arc::new(user), Maker::Provider(generation));
        Ok(Verified { user, scopes: scopes.into(), maker, from, until })
    }
}

/// A time as a token has it (RFC 7519, 2): seconds, also with a part of one.
fn moment(seconds: f64) -> Option<Timestamp> {
    let micros = (seconds * 1_000_000.0).floor();
    (0.0..=LAST_SECOND).contains(&seconds).then_some(Timestamp::from_micros(micros as i64))
}
