//! Tokens of an identity provider that publishes its keys over HTTP: a real one, with keys that each test makes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};
use switchboard::clock::Clock as _;
use tonic::Code;

use crate::api_keys::{connection, open};
use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::server::Server;
use crate::harness::tools::run;
use crate::harness::{eventually, on_both, status};
use crate::live::{next, subscribe};
use crate::settings::{change, set, try_set};
use crate::tokens::{expect_refused, read_events};

const KEYS: &str = "/keys";
const ISSUER: &str = "https://id.example.com/";
const AUDIENCE: &str = "switchboard";
const BETWEEN: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3_600);

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A provider with a key of each kind: `r`, `e` and `d`.
struct Provider {
    receiver: Receiver,
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Provider {
    async fn start() -> Self {
        let random = SystemRandom::new();
        let arguments = ["genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:2048"];
        let pem = run("openssl", arguments, b"").await.expect_success();
        let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let rsa = RsaKeyPair::from_pkcs8(&STANDARD.decode(base64).unwrap()).unwrap();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let p256 =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, p256.as_ref(), &random).unwrap();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed25519 = Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap();
        let provider = Self { receiver: Receiver::start().await, rsa, p256, ed25519 };
        provider.publish(&["r", "e", "d"]);
        provider
    }

    /// Publishes these keys, and one that is for something else.
    fn publish(&self, ids: &[&str]) {
        let mut keys: Vec<Value> = ids.iter().map(|id| self.jwk(id)).collect();
        keys.push(json!({"kty": "oct", "kid": "o", "k": "c2VjcmV0"}));
        self.receiver.respond_with(KEYS, Behaviour::Text(200, json!({ "keys": keys }).to_string()));
    }

    fn jwk(&self, id: &str) -> Value {
        match id {
            "r" => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
                json!({"kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": encode(n), "e": encode(e)})
            }
            "e" => {
                let point = self.p256.public_key().as_ref();
                let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y})
            }
            _ => json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": encode(self.ed25519.public_key())}),
        }
    }

    /// A token signed with the key that the header names.
    fn sign(&self, id: &str, claims: &Value) -> String {
        let random = SystemRandom::new();
        let alg = match id {
            "r" => "RS256",
            "e" => "ES256",
            _ => "EdDSA",
        };
        let header = json!({"alg": alg, "kid": id, "typ": "JWT"}).to_string();
        let signed = format!("{}.{}", encode(header), encode(claims.to_string()));
        let signature = match id {
            "r" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            "e" => self.p256.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            _ => self.ed25519.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", encode(signature))
    }

    fn fetches(&self) -> usize {
        self.receiver.received_on(KEYS).len()
    }

    /// Has a server take its tokens.
    async fn of(&self, server: &Server) {
        let settings = json!({
            "authentication.jwks_url": self.receiver.url(KEYS),
            "authentication.token_issuer": ISSUER,
            "authentication.token_audience": AUDIENCE,
        });
        set(&server.client, settings).await;
    }
}

/// What a token says of a user who may read events.
fn claims(server: &Server) -> Value {
    let now = server.clock.now().seconds();
    json!({
        "iss": ISSUER, "aud": [AUDIENCE, "other"], "sub": "jo", "preferred_username": "Jo", "iat": now, "exp": now + 600,
        "switchboard": {"topics": ["chat:*"], "scopes": ["events:read", "notifications:read"]},
    })
}

on_both! {
    async fn tokens_of_all_three_kinds_are_taken_and_keys_fetched_once(server: Server) {
        let provider = Provider::start().await;
        provider.of(&server).await;
        assert_eq!(provider.fetches(), 0);
        for id in ["r", "e", "d"] {
            let text = provider.sign(id, &claims(&server));
            for _ in 0..3 {
                read_events(&server, &text).await.unwrap();
            }
            let others = open(&connection(&server).await, Some(&text), "/switchboard.webhook.v1.WebhookService/ListWebhooks", b"").await;
            status::expect(&others.unwrap_err(), Code::PermissionDenied, "SCOPE_MISSING");
        }
        assert_eq!(provider.fetches(), 1);

        // Without a grant it is a token as the server's own are when nobody says more.
        let mut plain = claims(&server);
        plain.as_object_mut().unwrap().remove("switchboard");
        let plain = provider.sign("e", &plain);
        status::expect(&read_events(&server, &plain).await.unwrap_err(), Code::PermissionDenied, "SCOPE_MISSING");
        subscribe(&server.client_with(&plain).await, Default::default()).await;
    }

    async fn the_settings_say_whose_tokens_are_taken(server: Server) {
        let provider = Provider::start().await;
        let text = provider.sign("d", &claims(&server));
        expect_refused(read_events(&server, &text).await, "TOKEN_INVALID");
        provider.of(&server).await;
        read_events(&server, &text).await.unwrap();
        for (key, other, own) in [
            ("authentication.token_issuer", "https://id.example.com".to_owned(), ISSUER.to_owned()),
            ("authentication.token_audience", "another".to_owned(), AUDIENCE.to_owned()),
            ("authentication.jwks_url", provider.receiver.url("/nothing"), provider.receiver.url(KEYS)),
        ] {
            set(&server.client, json!({key: other})).await;
            let refused = read_events(&server, &text).await.unwrap_err();
            assert!([Code::Unauthenticated, Code::Unavailable].contains(&refused.code()), "{key}: {refused:?}");
            set(&server.client, json!({key: own})).await;
            read_events(&server, &text).await.unwrap();
        }
        let heartbeat_interval = Some(prost_types::Duration { seconds: 50, nanos: 0 });
        let request = switchboard_client::notification::v1::SubscribeRequest { heartbeat_interval, ..Default::default() };
        let (mut stream, _) = subscribe(&server.client_with(&text).await, request).await;
        set(&server.client, json!({"authentication.jwks_url": ""})).await;
        expect_refused(read_events(&server, &text).await, "TOKEN_INVALID");
        while next(&mut stream).await.closing.is_none() {}

        for (values, wrong) in [
            (json!({"authentication.jwks_url": "http://id.example.com/keys"}), "authentication.jwks_url"),
            (json!({"authentication.jwks_url": provider.receiver.url(KEYS), "authentication.token_issuer": ""}), "authentication.token_issuer"),
            (json!({"authentication.jwks_url": provider.receiver.url(KEYS), "authentication.token_audience": ""}), "authentication.token_audience"),
        ] {
            let refused = try_set(&server.client, change(&values)).await.unwrap_err();
            let details = status::expect(&refused, Code::InvalidArgument, "FIELD_INVALID");
            let fields: Vec<_> = details.bad_request().unwrap().field_violations.iter().map(|one| one.field.clone()).collect();
            assert!(fields.iter().any(|field| field.contains(wrong)), "{wrong}: {fields:?}");
        }
    }

    async fn a_new_key_is_fetched_and_strangers_make_few_fetches(server: Server) {
        let provider = Provider::start().await;
        provider.publish(&["r"]);
        provider.of(&server).await;
        read_events(&server, &provider.sign("r", &claims(&server))).await.unwrap();
        provider.publish(&["r", "e"]);
        let text = provider.sign("e", &claims(&server));
        expect_refused(read_events(&server, &text).await, "TOKEN_INVALID");
        assert_eq!(provider.fetches(), 1, "they were fetched a moment ago");
        server.advance(BETWEEN);
        read_events(&server, &text).await.unwrap();
        assert_eq!(provider.fetches(), 2);
        set(&server.client, json!({"security.failed_keys_per_minute": 0})).await;
        server.advance(BETWEEN);
        let channel = connection(&server).await;
        let before = server.verifier().reads();
        for number in 0..50 {
            let header = json!({"alg": "RS256", "kid": format!("{number}")}).to_string();
            let text = format!("{}.{}.{}", encode(header), encode(claims(&server).to_string()), encode([7; 256]));
            let refused = open(&channel, Some(&text), "/switchboard.event.v1.EventService/ListEvents", b"").await.unwrap_err();
            status::expect(&refused, Code::Unauthenticated, "TOKEN_INVALID");
        }
        assert_eq!(provider.fetches(), 3);
        assert_eq!(server.verifier().reads(), before);
    }

    async fn a_provider_that_is_down_is_believed_for_a_day(server: Server) {
        let provider = Provider::start().await;
        provider.receiver.respond_with(KEYS, Behaviour::Status(503));
        provider.of(&server).await;
        let refused = read_events(&server, &provider.sign("r", &claims(&server))).await.unwrap_err();
        status::expect(&refused, Code::Unavailable, "UNAVAILABLE");
        provider.publish(&["r"]);
        server.advance(BETWEEN);
        read_events(&server, &provider.sign("r", &claims(&server))).await.unwrap();

        provider.receiver.respond_with(KEYS, Behaviour::Status(503));
        server.advance(23 * HOUR);
        read_events(&server, &provider.sign("r", &claims(&server))).await.unwrap();
        server.advance(HOUR);
        // Whether somebody fetches at this moment or did so just before: nothing comes.
        let refused = read_events(&server, &provider.sign("r", &claims(&server))).await.unwrap_err();
        status::expect(&refused, Code::Unavailable, "UNAVAILABLE");
        for answer in [json!({"keys": []}).to_string(), "<html>".into(), "x".repeat(70_000)] {
            provider.receiver.respond_with(KEYS, Behaviour::Text(200, answer));
            server.advance(BETWEEN);
            let refused = read_events(&server, &provider.sign("r", &claims(&server))).await.unwrap_err();
            status::expect(&refused, Code::Unavailable, "UNAVAILABLE");
        }
        provider.publish(&["r"]);
        server.advance(BETWEEN);
        read_events(&server, &provider.sign("r", &claims(&server))).await.unwrap();
    }

    async fn a_key_that_is_taken_back_is_soon_refused(server: Server) {
        let provider = Provider::start().await;
        provider.of(&server).await;
        let mut long = claims(&server);
        long["exp"] = json!(server.clock.now().seconds() + 7_200);
        let text = provider.sign("d", &long);
        read_events(&server, &text).await.unwrap();
        provider.publish(&["r", "e"]);
        server.advance(Duration::from_secs(300));
        eventually("the key is not believed", async || read_events(&server, &text).await.err()).await;
    }

    async fn what_the_provider_says_has_an_end_and_so_has_what_it_said(server: Server) {
        let provider = Provider::start().await;
        provider.of(&server).await;
        let text = provider.sign("e", &claims(&server));
        read_events(&server, &text).await.unwrap();
        server.advance(Duration::from_secs(600));
        read_events(&server, &text).await.unwrap();
        server.advance(Duration::from_secs(30));
        expect_refused(read_events(&server, &text).await, "TOKEN_ENDED");

        let text = provider.sign("e", &claims(&server));
        read_events(&server, &text).await.unwrap();
        let request = switchboard_client::notification::v1::RevokeSubscriberTokensRequest { user_id: "jo".into() };
        server.client.notifications().revoke_subscriber_tokens(request).await.unwrap();
        expect_refused(read_events(&server, &text).await, "TOKEN_ENDED");
        server.advance(Duration::from_secs(1));
        read_events(&server, &provider.sign("e", &claims(&server))).await.unwrap();

        let mut early = claims(&server);
        early["iat"] = json!(server.clock.now().seconds() + 31);
        expect_refused(read_events(&server, &provider.sign("e", &early)).await, "TOKEN_INVALID");
        let mut wrong = claims(&server);
        wrong["switchboard"]["scopes"] = json!(["admin:*"]);
        expect_refused(read_events(&server, &provider.sign("e", &wrong)).await, "TOKEN_INVALID");
    }

    async fn no_public_key_is_a_secret_and_no_key_comes_along(server: Server) {
        set(&server.client, json!({"security.failed_keys_per_minute": 0})).await;
        let provider = Provider::start().await;
        provider.of(&server).await;
        read_events(&server, &provider.sign("r", &claims(&server))).await.unwrap();
        let body = encode(claims(&server).to_string());
        let n = STANDARD.decode("c2VjcmV0").unwrap();
        let jwk = provider.jwk("r");
        let secrets = [jwk.to_string(), jwk["n"].as_str().unwrap().to_owned(), String::from_utf8(n).unwrap()];
        for secret in &secrets {
            for id in ["r", "o"] {
                let signed = format!("{}.{body}", encode(json!({"alg": "HS256", "kid": id}).to_string()));
                let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
                expect_refused(read_events(&server, &format!("{signed}.{}", encode(tag))).await, "TOKEN_INVALID");
            }
        }
        for header in [json!({"alg": "none"}), json!({"alg": "none", "kid": "r"}), json!({"kid": "r"})] {
            let signed = format!("{}.{body}", encode(header.to_string()));
            expect_refused(read_events(&server, &format!("{signed}.AA")).await, "TOKEN_INVALID");
        }
        // Another provider's key, which the token points to.
        let other = Provider::start().await;
        let random = SystemRandom::new();
        let header = json!({"alg": "ES256", "kid": "e", "jwk": other.jwk("e"), "jku": other.receiver.url(KEYS)});
        let signed = format!("{}.{body}", encode(header.to_string()));
        let signature = other.p256.sign(&random, signed.as_bytes()).unwrap();
        expect_refused(read_events(&server, &format!("{signed}.{}", encode(signature))).await, "TOKEN_INVALID");
        assert_eq!((other.fetches(), provider.fetches()), (0, 1));
    }
}
