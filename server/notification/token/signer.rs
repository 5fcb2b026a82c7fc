//! The tokens of this server: signed, and verified, with a key of the keyring.

use std::sync::Arc;

use ring::hmac;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::jwt::{self, Compact};
use super::model::{LEEWAY, Maker, Verified};
use crate::clock::Timestamp;
use crate::rpc::User;
use crate::secret::{KEY_LENGTH, Random, SecretText};

/// What every token of this server says of itself (RFC 8725, 3.11: a type of its own).  It is compared and never read, so that no
/// header chooses how a token is verified.
const HEADER: &str = r#"{"alg":"HS256","typ":"switchboard-user+jwt"}"#;
const JTI_LENGTH: usize = 12;

/// What a token of this server says (RFC 7519, 4.1; `scope` as in RFC 8693, 4.2).
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    /// This database.
    iss: String,
    sub: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    topics: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    event_types: Vec<String>,
    scope: String,
    iat: i64,
    /// The same as `iat` in microseconds: a token that was made right after others were ended is none of those.
    made: i64,
    exp: i64,
    jti: String,
    /// The key that it was made with.
    key: String,
}

/// Signs and verifies.
pub struct Signer {
    key: hmac::Key,
    issuer: String,
    header: String,
}

/// What is to be signed.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "explained by the API")]
pub struct Grant<'a> {
    pub user_id: &'a str,
    pub username: &'a str,
    pub topics: &'a [String],
    pub event_types: &'a [String],
    pub scopes: &'a [String],
    /// The key that makes it.
    pub key_id: &'a str,
    pub made: Timestamp,
    /// Its end; what is less than a second of it is cut off.
    pub ends: Timestamp,
}

impl Signer {
    /// A signer of the database with this epoch.
    pub fn new(key: &Zeroizing<[u8; KEY_LENGTH]>, epoch: i64) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key[..]);
        Self { key, issuer: format!("switchboard:{epoch:016x}"), header: jwt::encode(HEADER) }
    }

    /// Makes a token.
    pub fn sign(&self, grant: Grant<'_>, random: &dyn Random) -> SecretText {
        let mut jti = [0; JTI_LENGTH];
        random.fill(&mut jti);
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: grant.user_id.to_owned(),
            name: grant.username.to_owned(),
            topics: grant.topics.to_vec(),
            event_types: grant.event_types.to_vec(),
            scope: grant.scopes.join(" "),
            iat: grant.made.seconds(),
            made: grant.made.micros(),
            exp: grant.ends.seconds(),
            jti: jwt::encode(jti),
            key: grant.key_id.to_owned(),
        };
        let claims = serde_json::to_vec(&claims).expect("claims are plain values");
        let mut text = Zeroizing::new(format!("{}.{}", self.header, jwt::encode(claims)));
        let tag = hmac::sign(&self.key, text.as_bytes());
        text.push('.');
        text.push_str(&jwt::encode(tag));
        SecretText::new(text.as_str())
    }

    /// Whether a token says that it is of this server.
    pub(super) fn claims_to_be_ours(&self, token: &Compact<'_>) -> bool {
        token.header == self.header
    }

    /// What a token says, when this server made it.
    pub(super) fn verify(&self, token: &Compact<'_>) -> Option<Verified> {
        if !self.claims_to_be_ours(token) {
            return None;
        }
        hmac::verify(&self.key, token.signed.as_bytes(), &token.signature_bytes()?).ok()?;
        let claims: Claims = serde_json::from_slice(&token.claims_bytes()?).ok()?;
        if claims.iss != self.issuer {
            return None;
        }
        let made = Timestamp::from_micros(claims.made);
        let ends = Timestamp::from_parts(claims.exp, 0);
        let user = User {
            id: claims.sub,
            name: claims.name,
            topics: claims.topics,
            event_types: claims.event_types,
            issued_at: made,
            expires_at: ends,
        };
        Some(Verified {
            user: Arc::new(user),
            scopes: claims.scope.split(' ').map(str::to_owned).collect(),
            maker: Maker::Key(claims.key.into()),
            // Another node may have made it, whose clock is ahead.
            from: made - LEEWAY,
            until: ends,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SystemRandom;

    fn signer(key: u8, epoch: i64) -> Signer {
        Signer::new(&Zeroizing::new([key; KEY_LENGTH]), epoch)
    }

    fn token(signer: &Signer) -> String {
        let topics = ["chat:9".to_owned(), "tenant:7:*".to_owned()];
        let scopes = ["inbox:read".to_owned(), "inbox:write".to_owned()];
        let grant = Grant {
            user_id: "jo",
            username: "Jo \"J\" Öhm",
            topics: &topics,
            event_types: &[],
            scopes: &scopes,
            key_id: "key_1",
            made: Timestamp::from_micros(1_700_000_000_250_001),
            ends: Timestamp::from_micros(1_700_000_060_999_999),
        };
        signer.sign(grant, &SystemRandom).reveal().to_owned()
    }

    fn verify(signer: &Signer, text: &str) -> Option<Verified> {
        signer.verify(&Compact::split(text)?)
    }

    #[test]
    fn what_was_signed_comes_back() {
        let signer = signer(1, 7);
        let verified = verify(&signer, &token(&signer)).unwrap();
        let user = &verified.user;
        assert_eq!((user.id.as_str(), user.name.as_str()), ("jo", "Jo \"J\" Öhm"));
        assert_eq!(user.topics, ["chat:9", "tenant:7:*"]);
        assert!(user.event_types.is_empty());
        assert_eq!(&verified.scopes[..], ["inbox:read", "inbox:write"]);
        assert_eq!(verified.maker, Maker::Key("key_1".into()));
        assert_eq!(user.issued_at.micros(), 1_700_000_000_250_001);
        assert_eq!(verified.until.micros(), 1_700_000_060_000_000, "never longer than was asked for");
        assert_ne!(token(&signer), token(&signer), "no two are the same");
    }

    #[test]
    fn another_key_or_database_has_other_tokens() {
        let text = token(&signer(1, 7));
        assert!(verify(&signer(2, 7), &text).is_none());
        assert!(verify(&signer(1, 8), &text).is_none());
    }

    #[test]
    fn a_token_with_any_bit_flipped_is_none() {
        let signer = signer(1, 7);
        let text = token(&signer);
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bent = text.clone().into_bytes();
                bent[at] ^= 1 << bit;
                let Ok(bent) = String::from_utf8(bent) else { continue };
                assert!(verify(&signer, &bent).is_none(), "bit {bit} of {at}: {bent}");
            }
        }
        for end in 0..text.len() {
            assert!(verify(&signer, &text[..end]).is_none(), "{end} bytes");
        }
    }

    #[test]
    fn a_header_chooses_nothing() {
        let signer = signer(1, 7);
        let text = token(&signer);
        let (_, rest) = text.split_once('.').unwrap();
        let claims = rest.split_once('.').unwrap().0;
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"none","typ":"switchboard-user+jwt"}"#,
            r#"{"alg":"HS256","typ":"JWT"}"#,
            r#"{"typ":"switchboard-user+jwt","alg":"HS256"}"#,
            r#"{"alg":"HS256","typ":"switchboard-user+jwt","kid":"../../dev/null"}"#,
        ] {
            let signed = format!("{}.{claims}", jwt::encode(header));
            assert!(verify(&signer, &format!("{signed}.")).is_none());
            let tag = jwt::encode(hmac::sign(&signer.key, signed.as_bytes()));
            assert!(verify(&signer, &format!("{signed}.{tag}")).is_none(), "{header}");
        }
    }

    #[test]
    fn claims_that_come_twice_are_no_claims() {
        let signer = signer(1, 7);
        let text = token(&signer);
        let claims = Compact::split(&text).unwrap().claims_bytes().unwrap();
        let claims = String::from_utf8(claims).unwrap();
        let sign = |claims: &str| {
            let signed = format!("{}.{}", signer.header, jwt::encode(claims));
            let tag = jwt::encode(hmac::sign(&signer.key, signed.as_bytes()));
            format!("{signed}.{tag}")
        };
        assert!(verify(&signer, &sign(&claims)).is_some());
        for more in [r#""sub":"sam","#, r#""exp":9999999999,"#, r#""scope":"admin:*","#] {
            let twice = format!("{{{more}{}", &claims[1..]);
            assert!(verify(&signer, &sign(&twice)).is_none(), "{twice}");
        }
    }
}
