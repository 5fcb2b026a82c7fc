//! Tokens of users, and the keys of identity providers.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use super::jwt::{self, Compact};
use super::model::{LONGEST, NOT_FOR_USERS};
use super::provider::keys::{Algorithm, Keys};
use super::provider::{Checked, Config, Fetch, Provider};
use super::signer::{Grant, Signer};
use crate::clock::{ManualClock, Timestamp};
use crate::event::topic;
use crate::fuzz::{SameRandom, texts};
use crate::rpc::Endings;
use crate::scope;
use crate::secret::KEY_LENGTH;

const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
const ISSUER: &str = "https://id.example.com";
const AUDIENCE: &str = "switchboard";
/// The provider's own.
const SEED: [u8; 32] = [5; 32];

fn signer(key: u8) -> Signer {
    Signer::new(&Zeroizing::new([key; KEY_LENGTH]), 7)
}

fn own_token(signer: &Signer) -> String {
    let texts = |texts: &[&str]| -> Vec<String> { texts.iter().map(|&text| text.to_owned()).collect() };
    let (topics, scopes) = (texts(&["chat:9"]), texts(&["inbox:read", "inbox:write"]));
    let grant = Grant {
        user_id: "jo",
        username: "Jo",
        topics: &topics,
        event_types: &[],
        scopes: &scopes,
        key_id: "key_1",
        made: NOW,
        ends: Timestamp::from_parts(NOW.seconds() + 60, 0),
    };
    signer.sign(grant, &SameRandom(0)).reveal().to_owned()
}

/// A text, and an edit of a token of this server's: nothing but the token is believed.
pub fn subscriber_token(data: &[u8]) {
    let Some([text, edit]) = texts(data) else { return };
    let signer = signer(1);
    let own = own_token(&signer);
    let verify = |text: &str| Compact::split(text).and_then(|token| signer.verify(&token));
    assert!(verify(&own).is_some());
    assert_eq!(verify(text).is_some(), text == own, "{text:?} is believed");
    if let Some(token) = Compact::split(text) {
        let part = |bytes: Option<Vec<u8>>| bytes.map(jwt::encode);
        let parts = [part(token.header_bytes()), part(token.claims_bytes()), part(token.signature_bytes())];
        if let [Some(header), Some(claims), Some(signature)] = parts {
            assert_eq!(format!("{header}.{claims}.{signature}"), text, "a token has one form");
        }
    }
    // An edit: where, how much is taken out, and what is put there.
    let mut bytes = edit.bytes();
    let mut number = || usize::from(bytes.next().unwrap_or_default());
    let (at, length) = ((number() * 128 + number()) % own.len(), number() % 8);
    let put = edit.get(3..).unwrap_or_default();
    let mut bent = own.clone();
    bent.replace_range(at..(at + length).min(own.len()), put);
    assert_eq!(verify(&bent).is_some(), bent == own, "{bent} is believed");
    // Claims of one's own, in a token with the right header and a signature that is there already.
    let token = Compact::split(&own).expect("it is one");
    let signature = own.rsplit('.').next().unwrap_or_default();
    let forged = format!("{}.{}.{signature}", token.header, jwt::encode(text));
    assert!(verify(&forged).is_none(), "{text:?} is believed under another token's signature");
}

struct Published(Bytes);

impl Fetch for Published {
    fn fetch(&self, _url: String) -> BoxFuture<'static, Result<Bytes, String>> {
        std::future::ready(Ok(self.0.clone())).boxed()
    }
}

static PROVIDER: LazyLock<(Arc<Provider>, Ed25519KeyPair)> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("it is a seed");
    let x = jwt::encode(pair.public_key());
    let keys = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}]}}"#);
    let clock = Arc::new(ManualClock::new(NOW));
    let provider = Provider::new(Arc::new(Published(keys.into())), clock, Endings::default());
    let (jwks_url, issuer, audience) = (format!("{ISSUER}/keys"), ISSUER.to_owned(), AUDIENCE.to_owned());
    provider.configure(Some(Config { jwks_url, issuer, audience }));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(provider.refresh());
    (provider, pair)
});

/// The header and the claims of a token that the provider signed, or a token that nobody did: what is believed is for this
/// server, in its time, and gives nobody more than a user may have.
pub fn identity_token(data: &[u8]) {
    let Some([header, claims]) = texts(data) else { return };
    let (provider, pair) = &*PROVIDER;
    let check = |text: &str| Compact::split(text).map(|token| provider.check(&token));
    assert!(!matches!(check(header), Some(Checked::Good(_))), "{header:?} is believed");
    let signed = format!("{}.{}", jwt::encode(header), jwt::encode(claims));
    for forged in [format!("{signed}."), format!("{signed}.{}", jwt::encode([0; 64]))] {
        assert!(!matches!(check(&forged), Some(Checked::Good(_))), "{header} {claims} is believed unsigned");
    }
    let text = format!("{signed}.{}", jwt::encode(pair.sign(signed.as_bytes())));
    let Some(Checked::Good(verified)) = check(&text) else { return };

    let header: serde_json::Value = serde_json::from_str(header).expect("the header is JSON");
    assert!(header["alg"] == "EdDSA" && header.get("crit").is_none_or(serde_json::Value::is_null));
    assert!(header["kid"] == "k" || header["kid"].is_null());
    let claims: serde_json::Value = serde_json::from_str(claims).expect("the claims are JSON");
    assert_eq!(claims["iss"], ISSUER);
    let named = |value: &serde_json::Value| value == AUDIENCE;
    assert!(named(&claims["aud"]) || claims["aud"].as_array().is_some_and(|many| many.iter().any(named)));
    let seconds = |name: &str| claims[name].as_f64();
    let (now, leeway) = (NOW.seconds() as f64, 30.0);
    assert!(seconds("exp").is_some_and(|exp| exp + leeway > now), "it is over");
    assert!(seconds("iat").is_some_and(|iat| iat - leeway <= now), "it is from the future");
    assert!(seconds("nbf").is_none_or(|nbf| nbf - leeway <= now), "it is not yet");
    assert!(verified.from <= NOW && verified.until > NOW);
    assert!(verified.until.since(verified.user.issued_at) <= LONGEST, "nobody remembers for as long");
    assert_eq!(topic::check_user_id(&verified.user.id), Ok(()));
    assert!(verified.user.name.chars().count() <= 256 && !verified.user.name.chars().any(char::is_control));
    for held in verified.scopes.iter() {
        assert_eq!(scope::check(held), Ok(()));
        assert!(!NOT_FOR_USERS.iter().any(|needed| scope::covers(held, needed)), "a user gets {held}");
    }
}

/// A set of keys that somebody publishes: few, and none of them takes a signature that nobody made.
pub fn identity_keys(data: &[u8]) {
    let keys = Keys::parse(data);
    if let Some([url]) = texts(data)
        && Config::check_url(url).is_ok()
    {
        let url = url::Url::parse(url).expect("it is a URL");
        let here = url
            .host_str()
            .is_some_and(|host| host == "localhost" || host.starts_with("127.") || matches!(host, "[::1]"));
        assert!(url.scheme() == "https" || (url.scheme() == "http" && here), "{url}");
    }
    let Ok(keys) = keys else { return };
    assert_eq!(Keys::parse(data).as_ref(), Ok(&keys));
    let names = ["k", "", "a"].map(Some).into_iter().chain([None]);
    for (name, algorithm) in names.flat_map(|name| ["RS256", "ES256", "EdDSA"].map(|one| (name, one))) {
        let algorithm = Algorithm::named(algorithm).expect("it is one of the three");
        let found = keys.find(algorithm, name);
        assert!(found.len() <= 100 && (name.is_some() || found.len() <= 1));
        for key in found.into_iter().take(3) {
            for length in [0, 1, 256] {
                assert!(
                    !key.signed(b"message", &vec![0xff; length]),
                    "a key takes {length} bytes of nothing"
                );
            }
        }
    }
    for none in ["none", "HS256", "HS512", "RS512", "rs256", ""] {
        assert_eq!(Algorithm::named(none), None);
    }
}
