//! A provider whose keys a test makes, and a clock that it moves.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use proptest::prelude::*;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::super::jwt::encode;
use super::*;
use crate::clock::ManualClock;

const ISSUER: &str = "https://id.example.com/";
const AUDIENCE: &str = "switchboard";
const NOW: i64 = 1_700_000_000;
const HOUR: Duration = Duration::from_secs(3_600);

/// What the provider publishes, and how often it was asked.
#[derive(Default)]
struct Published {
    keys: Mutex<Option<Value>>,
    fetches: AtomicUsize,
}

impl Fetch for Arc<Published> {
    fn fetch(&self, url: String) -> BoxFuture<'static, Result<Bytes, String>> {
        assert_eq!(url, "https://id.example.com/keys");
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let keys = self.keys.lock().unwrap().clone();
        async move { keys.map(|keys| keys.to_string().into()).ok_or_else(|| "it is down".to_owned()) }.boxed()
    }
}

struct Pair(Ed25519KeyPair);

impl Pair {
    fn new() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn jwk(&self, id: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": encode(self.public())})
    }

    fn sign(&self, header: &Value, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims));
        format!("{signed}.{}", encode(self.0.sign(signed.as_bytes())))
    }
}

struct World {
    provider: Arc<Provider>,
    published: Arc<Published>,
    clock: Arc<ManualClock>,
    pair: Pair,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_parts(NOW, 0)));
        let published = Arc::new(Published::default());
        let provider =
            Provider::new(Arc::new(Arc::clone(&published)), clock.clone() as _, Endings::default());
        let world = Self { provider, published, clock, pair: Pair::new() };
        world.publish(&[world.pair.jwk("one")]);
        world.provider.configure(Some(config()));
        world.provider.refresh().await;
        world
    }

    fn publish(&self, keys: &[Value]) {
        *self.published.keys.lock().unwrap() = Some(json!({ "keys": keys }));
    }

    fn fetches(&self) -> usize {
        self.published.fetches.load(Ordering::Relaxed)
    }

    fn check(&self, text: &str) -> Checked {
        match Compact::split(text) {
            Some(token) => self.provider.check(&token),
            None => Checked::Bad("no token"),
        }
    }

    fn good(&self, text: &str) -> Box<Verified> {
        match self.check(text) {
            Checked::Good(verified) => verified,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn expect_bad(&self, text: &str) {
        let checked = self.check(text);
        assert!(matches!(checked, Checked::Bad(_)), "{checked:?}");
    }
}

fn config() -> Config {
    Config {
        jwks_url: "https://id.example.com/keys".into(),
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
    }
}

fn header() -> Value {
    json!({"alg": "EdDSA", "kid": "one", "typ": "JWT"})
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "jo", "name": "Jo", "iat": NOW, "exp": NOW + 600})
}

/// The claims with one of them changed, or taken away by null.
fn with(name: &str, value: Value) -> String {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims.to_string()
}

#[tokio::test]
async fn what_the_provider_says_of_a_user_is_taken() {
    let world = World::new().await;
    let plain = world.good(&world.pair.sign(&header(), &claims().to_string()));
    assert_eq!((plain.user.id.as_str(), plain.user.name.as_str()), ("jo", "Jo"));
    assert!(plain.user.topics.is_empty() && plain.user.event_types.is_empty());
    assert_eq!(&plain.scopes[..], ["notifications:read", "inbox:read", "inbox:write"]);
    assert_eq!(plain.user.expires_at.seconds(), NOW + 600);
    let principal = plain.principal(None);
    assert_eq!((&*principal.key_id, &*principal.actor()), ("identity-provider", "user:jo"));

    let grant =
        json!({"topics": ["chat:*"], "event_types": ["chat.*"], "scopes": ["events:write"], "user_id": "7"});
    let granted = world.good(&world.pair.sign(&header(), &with("switchboard", grant)));
    assert_eq!(granted.user.id, "7");
    assert_eq!(
        (&granted.user.topics[..], &granted.user.event_types[..]),
        (&["chat:*".to_owned()][..], &["chat.*".to_owned()][..])
    );
    assert_eq!(&granted.scopes[..], ["events:write"]);
    for fine in [
        with("aud", json!(["other", AUDIENCE])),
        with("exp", json!(NOW as f64 + 600.5)),
        with("nbf", json!(NOW + 30)),
        with("switchboard", json!({})),
        with("name", Value::Null),
    ] {
        world.good(&world.pair.sign(&header(), &fine));
    }
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn what_is_not_for_this_server_or_time_is_refused_without_a_fetch() {
    let world = World::new().await;
    let other_key = json!({"alg": "EdDSA", "kid": "unknown"});
    world.clock.advance(HOUR);
    for wrong in [
        with("iss", json!("https://id.example.com")),
        with("iss", Value::Null),
        with("aud", json!("another")),
        with("aud", json!([])),
        with("aud", Value::Null),
        with("sub", Value::Null),
        with("sub", json!(7)),
        with("exp", Value::Null),
        with("exp", json!("never")),
        with("exp", json!(-1)),
        with("exp", json!(1e300)),
        with("iat", Value::Null),
        with("iat", json!(NOW + 3_600 + 31)),
        with("nbf", json!(NOW + 3_600 + 31)),
        with("nbf", json!(1e300)),
        "[]".into(),
        "{".into(),
    ] {
        for header in [header(), other_key.clone()] {
            world.expect_bad(&world.pair.sign(&header, &wrong));
        }
    }
    let over = world.pair.sign(&other_key, &claims().to_string());
    assert!(matches!(world.check(&over), Checked::Over));
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn claims_that_come_twice_or_can_not_be_granted_are_refused() {
    let world = World::new().await;
    for twice in [r#""sub":"sam""#, r#""exp":9999999999"#, r#""aud":"switchboard""#, r#""switchboard":{}"#] {
        let claims = with("switchboard", json!({"topics": ["a"]}));
        world.expect_bad(&world.pair.sign(&header(), &format!("{{{twice},{}", &claims[1..])));
    }
    for grant in [
        json!({"scopes": ["admin:*"]}),
        json!({"scopes": ["tokens:write"]}),
        json!({"scopes": ["inbox"]}),
        json!({"topics": ["a*"]}),
        json!({"event_types": ["A"]}),
        json!({"user_id": "a b"}),
        json!({"roles": []}),
        json!("all"),
    ] {
        world.expect_bad(&world.pair.sign(&header(), &with("switchboard", grant)));
    }
    world.expect_bad(&world.pair.sign(&header(), &with("sub", json!("auth0|7"))));
    world.good(&world.pair.sign(&header(), &{
        let mut claims = claims();
        claims["sub"] = json!("auth0|7");
        claims["switchboard"] = json!({"user_id": "7"});
        claims.to_string()
    }));
}

#[tokio::test]
async fn no_header_makes_a_public_key_a_secret_or_brings_a_key_of_its_own() {
    let world = World::new().await;
    let claims = claims().to_string();
    // A MAC under every form of the public key that somebody could take for a secret.
    let jwk = world.pair.jwk("one").to_string();
    let encoded = encode(world.pair.public());
    for secret in [world.pair.public(), jwk.as_bytes(), encoded.as_bytes(), b""] {
        for alg in ["HS256", "HS384", "HS512", "hs256"] {
            let signed =
                format!("{}.{}", encode(json!({"alg": alg, "kid": "one"}).to_string()), encode(&claims));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
            world.expect_bad(&format!("{signed}.{}", encode(tag)));
        }
    }
    for alg in ["none", "None", "", "RS512", "PS256", "ES384", "eddsa", "EdDSA "] {
        let signed = format!("{}.{}", encode(json!({"alg": alg, "kid": "one"}).to_string()), encode(&claims));
        world.expect_bad(&format!("{signed}."));
        world.expect_bad(&format!("{signed}.AA"));
    }
    // The right key under another algorithm's name.
    let renamed = world.pair.sign(&json!({"alg": "ES256", "kid": "one"}), &claims);
    assert!(matches!(world.check(&renamed), Checked::UnknownKey));
    // Another's key, brought along or pointed to.
    let other = Pair::new();
    for more in ["jwk", "jku", "x5u", "x5c"] {
        let mut header = header();
        header[more] = other.jwk("one");
        world.expect_bad(&other.sign(&header, &claims));
    }
    for id in ["../one", "one\0", "file:///one", "' OR '1'='1"] {
        let injected = other.sign(&json!({"alg": "EdDSA", "kid": id}), &claims);
        assert!(matches!(world.check(&injected), Checked::UnknownKey), "{id}");
    }
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("typ", json!("logout+jwt")),
        ("typ", json!("switchboard-user+jwt")),
        ("kid", json!("a".repeat(257))),
        ("kid", json!(1)),
        ("padding", json!("a".repeat(1_000))),
    ] {
        let mut header = header();
        header[name] = value;
        world.expect_bad(&world.pair.sign(&header, &claims));
    }
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn keys_are_fetched_when_one_is_new_but_not_often() {
    let world = World::new().await;
    let new = Pair::new();
    let token = new.sign(&json!({"alg": "EdDSA", "kid": "two"}), &claims().to_string());
    world.publish(&[world.pair.jwk("one"), new.jwk("two")]);
    assert!(matches!(world.check(&token), Checked::UnknownKey));
    assert!(!world.provider.may_refresh());
    for _ in 0..3 {
        world.provider.refresh().await;
    }
    assert_eq!(world.fetches(), 1, "they were fetched a moment ago");
    world.clock.advance(BETWEEN);
    assert!(world.provider.may_refresh());
    let before = world.provider.generation();
    let refreshes = (0..50).map(|_| world.provider.refresh());
    futures_util::future::join_all(refreshes).await;
    assert_eq!(world.fetches(), 2, "one fetches for all");
    world.good(&token);
    assert_ne!(world.provider.generation(), before);
    world.good(&world.pair.sign(&header(), &claims().to_string()));
}

#[tokio::test]
async fn a_provider_that_is_down_is_believed_for_a_day() {
    let world = World::new().await;
    *world.published.keys.lock().unwrap() = None;
    let token = |now: i64| {
        world.pair.sign(&header(), &{
            let mut claims = claims();
            (claims["iat"], claims["exp"]) = (json!(now), json!(now + 600));
            claims.to_string()
        })
    };
    for hour in 1..24 {
        world.clock.advance(HOUR);
        world.good(&token(NOW + hour * 3_600));
        world.provider.refresh().await;
        assert_eq!(world.fetches(), 1 + usize::try_from(hour).unwrap());
        assert!(world.provider.unknown_key().is_none());
    }
    world.clock.advance(HOUR);
    let late = token(NOW + 24 * 3_600);
    assert!(matches!(world.check(&late), Checked::UnknownKey));
    assert_eq!(world.provider.unknown_key().unwrap().reason(), "UNAVAILABLE");
    assert!(world.provider.generation().is_none(), "nothing that was verified before is believed");
    world.publish(&[world.pair.jwk("one")]);
    world.provider.refresh().await;
    world.good(&late);
}

#[tokio::test]
async fn a_key_that_was_taken_back_is_soon_not_believed() {
    let world = World::new().await;
    let token = world.pair.sign(&header(), &claims().to_string());
    world.good(&token);
    let before = world.provider.generation();
    world.publish(&[Pair::new().jwk("two")]);
    world.provider.keep_fresh();
    assert_eq!(world.fetches(), 1, "they are fresh");
    world.clock.advance(FRESH);
    world.provider.keep_fresh();
    // Whoever holds the turn has fetched by the time that another one gets it.
    world.provider.refresh().await;
    while world.provider.generation() == before {
        tokio::task::yield_now().await;
    }
    assert!(matches!(world.check(&token), Checked::UnknownKey));
}

#[tokio::test]
async fn another_provider_is_another_one() {
    let world = World::new().await;
    let token = world.pair.sign(&header(), &claims().to_string());
    world.good(&token);
    for other in [
        Config { issuer: "https://other.example.com/".into(), ..config() },
        Config { audience: "other".into(), ..config() },
    ] {
        world.provider.configure(Some(other));
        world.expect_bad(&token);
    }
    world.provider.configure(None);
    world.expect_bad(&token);
    assert!(!world.provider.is_configured() && !world.provider.may_refresh());
    world.provider.configure(Some(config()));
    assert!(matches!(world.check(&token), Checked::UnknownKey), "its keys are fetched anew");
    assert!(world.provider.may_refresh(), "at once");
}

#[tokio::test]
async fn a_day_is_the_longest_whatever_the_provider_says() {
    let world = World::new().await;
    let token = world.pair.sign(&header(), &with("exp", json!(NOW + 30 * 24 * 3_600)));
    let verified = world.good(&token);
    assert_eq!(verified.user.expires_at.seconds(), NOW + 24 * 3_600);
    assert_eq!(verified.until.seconds(), NOW + 24 * 3_600);
    let short = world.good(&world.pair.sign(&header(), &claims().to_string()));
    assert_eq!(short.until.seconds(), NOW + 600 + 30, "clocks may differ");
}

#[test]
fn keys_are_fetched_over_tls_or_on_this_machine() {
    for good in
        ["https://id.example.com/keys", "http://127.0.0.1:9/k", "http://[::1]/k", "http://localhost/k"]
    {
        assert_eq!(Config::check_url(good), Ok(()), "{good}");
    }
    for bad in [
        "http://id.example.com/keys",
        "http://10.0.0.1/k",
        "http://localhost.example.com/",
        "ftp://127.0.0.1/k",
    ] {
        assert!(Config::check_url(bad).is_err(), "{bad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn a_token_with_any_bit_flipped_or_its_end_cut_off_is_none(name in "\\PC{0,20}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let text = world.pair.sign(&header(), &with("name", json!(name)));
            world.good(&text);
            for at in 0..text.len() {
                assert!(!matches!(world.check(&text[..at]), Checked::Good(_)), "{at} bytes");
                for bit in 0..8 {
                    let mut bent = text.clone().into_bytes();
                    bent[at] ^= 1 << bit;
                    let Ok(bent) = String::from_utf8(bent) else { continue };
                    assert!(!matches!(world.check(&bent), Checked::Good(_)), "bit {bit} of {at}: {bent}");
                }
            }
        });
    }

    #[test]
    fn anything_else_is_none_and_no_panic(text in "\\PC{0,200}") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            assert!(matches!(world.check(&text), Checked::Bad(_)));
            let parts = text.split(' ').map(encode).collect::<Vec<_>>().join(".");
            assert!(!matches!(world.check(&parts), Checked::Good(_)));
            for parts in [
                world.pair.sign(&json!(text), &claims().to_string()),
                world.pair.sign(&header(), &text),
                world.pair.sign(&header(), &json!(text).to_string()),
            ] {
                assert!(matches!(world.check(&parts), Checked::Bad(_)));
            }
        });
    }
}
