//! Verification of keys for applications: every code, what it counts, and by HTTP what a proxy asks.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use switchboard::apikey::key::{generate, is_well_formed};
use switchboard::apikey::model::KeyKind as Kind;
use switchboard::secret::SystemRandom;
use switchboard_client::apikey::v1::{
    ApiKey, BatchVerifyApiKeysRequest, CreateApiKeyRequest, Credits, GetApiKeyRequest, KeyKind, RateLimit,
    RefillInterval, RevokeApiKeyRequest, RotateApiKeyRequest, VerificationCode, VerifyApiKeyRequest,
    VerifyApiKeyResponse,
};
use switchboard_client::event::v1::ListEventsRequest;
use tonic::{Code, Status};

use crate::api_keys_change::{make, new_key, update};
use crate::forged_keys::with_checksum;
use crate::harness::server::{Backend, Server};
use crate::harness::{eventually, on_both, status};
use crate::port::http1;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub async fn ask(server: &Server, request: VerifyApiKeyRequest) -> Result<VerifyApiKeyResponse, Status> {
    Ok(server.client.api_keys().verify_api_key(request).await?.into_inner())
}

pub fn of(key: &str) -> VerifyApiKeyRequest {
    VerifyApiKeyRequest { key: key.into(), ..Default::default() }
}

async fn verify(server: &Server, key: &str) -> VerifyApiKeyResponse {
    ask(server, of(key)).await.unwrap()
}

async fn code(server: &Server, request: VerifyApiKeyRequest) -> VerificationCode {
    ask(server, request).await.unwrap().code()
}

pub fn limit(name: &str, limit: i64, seconds: i64) -> RateLimit {
    RateLimit { name: name.into(), limit, period: Some(prost_types::Duration { seconds, nanos: 0 }) }
}

/// What the server says of a key that nobody made.
fn nothing() -> VerifyApiKeyResponse {
    VerifyApiKeyResponse { code: VerificationCode::Invalid.into(), ..Default::default() }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.into()).collect()
}

async fn post(server: &Server, key: &str, body: &Value) -> (StatusCode, Value) {
    let request = Request::post("/v1/verify")
        .header("host", server.address())
        .header("x-api-key", key)
        .body(Full::from(body.to_string()))
        .unwrap();
    let answer = http1(server, request).await;
    (answer.status(), serde_json::from_slice(answer.body()).unwrap())
}

async fn forward(server: &Server, query: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    let mut request = Request::get(format!("/v1/forward-auth{query}")).header("host", server.address());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    http1(server, request.body(Full::default()).unwrap()).await
}

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

on_both! {
    async fn a_verification_says_what_the_key_is(server: Server) {
        let metadata = prost_types::Struct {
            fields: [("plan".into(), prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("gold".into())) })].into(),
        };
        let request = CreateApiKeyRequest {
            kind: KeyKind::Test.into(), external_id: "user 17".into(), metadata: Some(metadata.clone()), ..new_key(&["orders:*"])
        };
        let (made, key) = make(&server.client, request).await.unwrap();
        let said = ask(&server, VerifyApiKeyRequest { all_of: texts(&["orders:read"]), ..of(&key) }).await.unwrap();
        assert!(said.valid && said.code() == VerificationCode::Valid);
        assert_eq!((&said.api_key_id, said.kind(), &said.external_id), (&made.id, KeyKind::Test, &made.external_id));
        assert_eq!((said.metadata, said.scopes, said.expire_time), (Some(metadata), made.scopes, made.expire_time));
        assert_eq!((said.remaining_credits, said.retry_after), (None, None));
    }

    async fn every_reason_has_a_code_and_none_is_told_without_the_secret(server: Server) {
        let (made, key) = make(&server.client, CreateApiKeyRequest { expires_in_days: 1, ..new_key(&["orders:read"]) }).await.unwrap();
        let mut wrong = generate(Kind::Live, &SystemRandom).reveal().to_owned();
        let mut stranger = wrong.clone();
        // The right prefix with another secret, its checksum made right.
        wrong.replace_range(..15, &made.key_prefix);
        wrong = with_checksum(&wrong);
        assert!(is_well_formed(&wrong));
        stranger = with_checksum(&stranger);
        let silent = async |server: &Server| {
            for key in [wrong.as_str(), stranger.as_str(), "", "swb_", "x", &key[..key.len() - 1]] {
                assert_eq!(verify(server, key).await, nothing(), "{key}");
            }
        };
        silent(&server).await;
        let scoped = |all: &[&str], any: &[&str]| VerifyApiKeyRequest { all_of: texts(all), any_of: texts(any), ..of(&key) };
        assert_eq!(code(&server, scoped(&[], &["orders:write", "orders:read"])).await, VerificationCode::Valid);
        let lacking = ask(&server, scoped(&["orders:read", "orders:write"], &["admin:*", "a:b"])).await.unwrap();
        assert_eq!((lacking.code(), lacking.valid), (VerificationCode::ScopeMissing, false));
        assert_eq!(lacking.missing_scopes, ["orders:write", "admin:*", "a:b"]);
        let off = ApiKey { id: made.id.clone(), disabled: true, ..Default::default() };
        update(&server.client, off, &["disabled"]).await.unwrap();
        assert_eq!(verify(&server, &key).await.code(), VerificationCode::Disabled);
        silent(&server).await;
        server.advance(DAY);
        assert_eq!(verify(&server, &key).await.code(), VerificationCode::Expired);
        silent(&server).await;
        let request = RevokeApiKeyRequest { api_key_id: made.id.clone() };
        server.client.api_keys().revoke_api_key(request).await.unwrap();
        let revoked = verify(&server, &key).await;
        assert_eq!((revoked.code(), &revoked.api_key_id), (VerificationCode::Revoked, &made.id));
        silent(&server).await;
    }

    async fn a_key_is_used_from_its_networks_only(server: Server) {
        let request = CreateApiKeyRequest {
            allowed_networks: texts(&["10.0.0.0/8", "2001:db8::/32"]), denied_networks: texts(&["10.6.0.0/16"]), ..new_key(&["events:read"])
        };
        let (_, key) = make(&server.client, request).await.unwrap();
        let from = async |address: &str| code(&server, VerifyApiKeyRequest { client_ip: address.into(), ..of(&key) }).await;
        for good in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7"] {
            assert_eq!(from(good).await, VerificationCode::Valid, "{good}");
        }
        for bad in ["10.6.1.1", "::ffff:10.6.1.1", "192.0.2.1", "2001:db9::7", ""] {
            assert_eq!(from(bad).await, VerificationCode::IpNotAllowed, "{bad}");
        }
        let refused = ask(&server, VerifyApiKeyRequest { client_ip: "10.0.0".into(), ..of(&key) }).await.unwrap_err();
        status::expect_violations(&refused, &["client_ip"]);
        // The calls of this server come from 127.0.0.1.
        let own = server.client_with(&key).await.events().list_events(ListEventsRequest::default()).await.unwrap_err();
        status::expect(&own, Code::PermissionDenied, "IP_NOT_ALLOWED");
    }

    async fn rate_limits_are_counted_by_name_and_cost(server: Server) {
        let request = CreateApiKeyRequest {
            rate_limits: vec![limit("requests", 10, 10), limit("exports", 1, 3_600)], ..new_key(&["events:read"])
        };
        let (made, key) = make(&server.client, request).await.unwrap();
        let use_of = async |cost: i64, names: &[&str]| {
            ask(&server, VerifyApiKeyRequest { cost: Some(cost), rate_limits: texts(names), ..of(&key) }).await.unwrap()
        };
        let first = use_of(4, &["requests"]).await;
        assert_eq!((first.code(), first.rate_limits.len(), first.rate_limits[0].remaining), (VerificationCode::Valid, 1, 6));
        assert!(use_of(1, &[]).await.valid);
        let limited = use_of(1, &[]).await;
        assert_eq!((limited.code(), limited.retry_after), (VerificationCode::RateLimited, Some(prost_types::Duration { seconds: 3_600, nanos: 0 })));
        assert_eq!(limited.rate_limits[0].remaining, 5, "a use that is refused counts nowhere");
        let asked = use_of(0, &["requests"]).await;
        assert_eq!((asked.code(), asked.rate_limits[0].remaining), (VerificationCode::Valid, 5));
        let never = use_of(11, &["requests"]).await;
        assert_eq!((never.code(), never.retry_after), (VerificationCode::RateLimited, None));
        // A change of something else does not give the uses back.
        let renamed = ApiKey { id: made.id.clone(), name: "other".into(), ..Default::default() };
        update(&server.client, renamed, &["name"]).await.unwrap();
        assert_eq!(use_of(0, &["requests"]).await.rate_limits[0].remaining, 5);
        server.advance(Duration::from_secs(3));
        assert_eq!(use_of(0, &["requests"]).await.rate_limits[0].remaining, 8);
        // On this server's own RPCs they hold as well.
        let client = server.client_with(&key).await;
        let refused = client.events().list_events(ListEventsRequest::default()).await.unwrap_err();
        let details = status::expect(&refused, Code::ResourceExhausted, "RATE_LIMITED");
        assert_eq!(details.error_info().unwrap().metadata["rate_limit"], "exports");
        assert!(details.retry_info().unwrap().retry_delay.unwrap() > Duration::from_secs(3_500));
    }

    async fn credits_run_out_and_are_filled_up(server: Server) {
        let credits = Credits { remaining: 50, refill_amount: 3, refill_interval: RefillInterval::Daily.into(), refill_time: None };
        let (made, key) = make(&server.client, CreateApiKeyRequest { credits: Some(credits), ..new_key(&["events:read"]) }).await.unwrap();
        for left in (0..50).rev() {
            let said = verify(&server, &key).await;
            assert_eq!((said.code(), said.remaining_credits), (VerificationCode::Valid, Some(left)));
        }
        let out = verify(&server, &key).await;
        assert_eq!((out.code(), out.remaining_credits), (VerificationCode::CreditsExhausted, Some(0)));
        let wait = out.retry_after.unwrap().seconds;
        assert!((0..=86_400).contains(&wait), "{wait}");
        server.advance(DAY);
        let mut uses = 0;
        while verify(&server, &key).await.valid {
            uses += 1;
        }
        assert_eq!(uses, 3);
        // The key that replaces it goes on with what is left, and so does the old one.
        let more = Credits { remaining: 4, ..Default::default() };
        let wish = ApiKey { id: made.id.clone(), credits: Some(more), ..Default::default() };
        update(&server.client, wish, &["credits"]).await.unwrap();
        let request = RotateApiKeyRequest { api_key_id: made.id.clone(), ..Default::default() };
        let rotated = server.client.api_keys().rotate_api_key(request).await.unwrap().into_inner();
        let mut uses = 0;
        for key in [&key, &rotated.key].into_iter().cycle().take(20) {
            uses += usize::from(verify(&server, key).await.valid);
        }
        assert_eq!(uses, 4);
        // Set anew for one, they are set anew for both.
        let many = ApiKey { id: made.id.clone(), credits: Some(Credits { remaining: 500, ..Default::default() }), ..Default::default() };
        update(&server.client, many, &["credits"]).await.unwrap();
        assert!(verify(&server, &key).await.valid && verify(&server, &rotated.key).await.valid);
        let few = ApiKey { id: rotated.api_key.unwrap().id, credits: Some(Credits { remaining: 1, ..Default::default() }), ..Default::default() };
        update(&server.client, few, &["credits"]).await.unwrap();
        assert!(verify(&server, &key).await.valid);
        assert!(!verify(&server, &key).await.valid && !verify(&server, &rotated.key).await.valid);
    }

    async fn what_a_node_did_not_use_of_the_credits_is_given_back(server: Server) {
        let credits = Credits { remaining: 1_000, ..Default::default() };
        let (made, key) = make(&server.client, CreateApiKeyRequest { credits: Some(credits), ..new_key(&["events:read"]) }).await.unwrap();
        for _ in 0..7 {
            assert!(verify(&server, &key).await.valid);
        }
        let left = async |server: &Server| {
            let request = GetApiKeyRequest { api_key_id: made.id.clone() };
            server.client.api_keys().get_api_key(request).await.unwrap().into_inner().api_key.unwrap().credits.unwrap().remaining
        };
        assert_eq!(left(&server).await, 993);
        let server = server.restart().await;
        assert_eq!(left(&server).await, 993);
    }

    async fn a_batch_answers_each_for_itself_or_is_refused_whole(server: Server) {
        let (_, key) = make(&server.client, CreateApiKeyRequest { rate_limits: vec![limit("a", 2, 60)], ..new_key(&["events:read"]) }).await.unwrap();
        let batch = async |requests: Vec<VerifyApiKeyRequest>| {
            server.client.api_keys().batch_verify_api_keys(BatchVerifyApiKeysRequest { requests }).await
        };
        let bad = vec![of(&key), VerifyApiKeyRequest { all_of: texts(&["no scope"]), cost: Some(-1), ..of(&key) }];
        status::expect_violations(&batch(bad).await.unwrap_err(), &["requests[1].all_of[0]", "requests[1].cost"]);
        status::expect_violations(&batch(vec![]).await.unwrap_err(), &["requests"]);
        status::expect_violations(&batch(vec![of(&key); 101]).await.unwrap_err(), &["requests"]);
        let answers = batch(vec![of(&key), of("swb_"), of(&key), of(&key)]).await.unwrap().into_inner().responses;
        let codes: Vec<_> = answers.iter().map(VerifyApiKeyResponse::code).collect();
        use VerificationCode::{Invalid, RateLimited, Valid};
        assert_eq!(codes, [Valid, Invalid, Valid, RateLimited], "what was refused counted nothing");
    }

    async fn any_number_of_callers_of_a_key_are_one_query(server: Server) {
        let (_, key) = make(&server.client, new_key(&["events:read"])).await.unwrap();
        let verifier = server.verifier();
        let before = verifier.reads();
        let found = futures_util::future::join_all((0..500).map(|_| verifier.find(&key))).await;
        assert!(found.into_iter().all(|found| found.unwrap().is_some()));
        assert!(verifier.reads() <= before + 2, "{} after {before}", verifier.reads());
    }

    async fn a_rest_application_verifies_by_http(server: Server) {
        let request = CreateApiKeyRequest { external_id: "user 17".into(), rate_limits: vec![limit("a", 1, 60)], ..new_key(&["orders:read"]) };
        let (made, key) = make(&server.client, request).await.unwrap();
        let (_, host) = make(&server.client, new_key(&["apikeys:verify"])).await.unwrap();
        let question = json!({ "key": key, "all_of": ["orders:read"], "method": "GET", "path": "/orders/17" });
        let (status, said) = post(&server, &host, &question).await;
        assert_eq!((status, &said["valid"], &said["code"]), (StatusCode::OK, &json!(true), &json!("VALID")), "{said}");
        assert_eq!((&said["api_key_id"], &said["external_id"]), (&json!(made.id), &json!("user 17")));
        let (status, said) = post(&server, &host, &question).await;
        assert_eq!((status, &said["code"], &said["retry_after_seconds"]), (StatusCode::OK, &json!("RATE_LIMITED"), &json!(60)));
        let (_, said) = post(&server, &host, &json!({ "key": "swb_nope" })).await;
        assert_eq!(said, json!({ "valid": false, "code": "INVALID" }));
        let (status, said) = post(&server, &host, &json!({ "key": key, "cost": -1 })).await;
        assert_eq!((status, &said["error"]["violations"][0]["field"]), (StatusCode::BAD_REQUEST, &json!("cost")));
        assert_eq!(post(&server, &host, &json!({ "kee": key })).await.0, StatusCode::BAD_REQUEST);
        assert_eq!(post(&server, "swb_nope", &question).await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(post(&server, &key, &question).await.0, StatusCode::FORBIDDEN, "it lacks the scope");
    }

    async fn a_proxy_is_told_by_the_status(server: Server) {
        let (_, proxy) = make(&server.client, new_key(&["apikeys:verify"])).await.unwrap();
        let request = CreateApiKeyRequest {
            external_id: "user 17".into(), rate_limits: vec![limit("a", 2, 60)], allowed_networks: texts(&["192.0.2.0/24"]), ..new_key(&["orders:read"])
        };
        let (made, key) = make(&server.client, request).await.unwrap();
        let bearer = format!("Bearer {key}");
        let ask = async |query: &str, from: &str| {
            forward(&server, query, &[("x-switchboard-key", &proxy), ("authorization", &bearer), ("x-forwarded-for", from)]).await
        };
        let good = ask("?all_of=orders:read", "6.6.6.6, 192.0.2.1").await;
        assert_eq!(good.status(), StatusCode::OK);
        assert_eq!((header(&good, "x-api-key-id"), header(&good, "x-api-key-external-id"), header(&good, "x-api-key-scopes")),
            (made.id.as_str(), "user 17", "orders:read"));
        assert_eq!((header(&good, "ratelimit-policy"), header(&good, "ratelimit")), ("\"a\";q=2;w=60", "\"a\";r=1;t=30"));
        assert_eq!(ask("", "192.0.2.1, 6.6.6.6").await.status(), StatusCode::FORBIDDEN, "what stands left came with the request");
        let lacking = ask("?all_of=orders:write", "192.0.2.1").await;
        assert_eq!((lacking.status(), header(&lacking, "x-api-key-code")), (StatusCode::FORBIDDEN, "SCOPE_MISSING"));
        assert_eq!(ask("", "192.0.2.1").await.status(), StatusCode::OK);
        let limited = ask("", "192.0.2.1").await;
        assert_eq!((limited.status(), header(&limited, "retry-after")), (StatusCode::TOO_MANY_REQUESTS, "30"));
        let none = forward(&server, "", &[("x-switchboard-key", &proxy)]).await;
        assert_eq!((none.status(), header(&none, "www-authenticate")), (StatusCode::UNAUTHORIZED, "Bearer"));
        let unknown = forward(&server, "", &[("x-switchboard-key", &proxy), ("x-api-key", "swb_nope")]).await;
        assert_eq!(unknown.status(), StatusCode::UNAUTHORIZED);
        for wrong in ["swb_nope", &key] {
            let answer = forward(&server, "", &[("x-switchboard-key", wrong), ("x-api-key", &key)]).await;
            assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR, "the proxy is at fault");
        }
        assert_eq!(ask("?scope=orders:read", "192.0.2.1").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_never_grant_more_credits_than_there_are() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let credits = Credits { remaining: 300, ..Default::default() };
    let (made, key) =
        make(&one.client, CreateApiKeyRequest { credits: Some(credits), ..new_key(&["events:read"]) })
            .await
            .unwrap();
    let use_up = async |server: &Server| {
        let mut uses = 0;
        while verify(server, &key).await.valid {
            uses += 1;
        }
        uses
    };
    let (first, second) = tokio::join!(use_up(&one), use_up(&other));
    assert_eq!(first + second, 300);
    // Set anew on one node, they are worth something on the other.
    let wish = ApiKey {
        id: made.id.clone(),
        credits: Some(Credits { remaining: 5, ..Default::default() }),
        ..Default::default()
    };
    update(&one.client, wish, &["credits"]).await.unwrap();
    eventually("the other node has credits", async || verify(&other, &key).await.valid.then_some(())).await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_on_one_node_is_seen_by_the_other_within_a_second() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let (made, key) = make(&one.client, new_key(&["events:read"])).await.unwrap();
    assert!(verify(&other, &key).await.valid && verify(&one, &key).await.valid);
    let off = ApiKey { id: made.id.clone(), disabled: true, ..Default::default() };
    update(&one.client, off, &["disabled"]).await.unwrap();
    let since = switchboard::clock::Stopwatch::start();
    assert_eq!(verify(&one, &key).await.code(), VerificationCode::Disabled, "at once here");
    let disabled = eventually("the other node sees it", async || {
        (verify(&other, &key).await.code() == VerificationCode::Disabled).then(|| since.elapsed())
    });
    let took = disabled.await;
    assert!(took < Duration::from_millis(1_500), "{took:?}: a second, and some for a busy machine");
    other.stop().await;
}
