//! Who may come to the port, how often, and who that is when proxies stand before it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use switchboard::apikey::key::generate;
use switchboard::apikey::model::KeyKind;
use switchboard::db::Target;
use switchboard::secret::SystemRandom;
use switchboard_client::Client;
use switchboard_client::apikey::v1::{CreateApiKeyRequest, RateLimit};
use switchboard_client::event::v1::ListEventsRequest;
use tokio::net::TcpSocket;
use tonic::{Code, Status};

use crate::api_keys_change::{make, new_key};
use crate::command_line::switchboard;
use crate::harness::nginx::Nginx;
use crate::harness::{on_both, status};
use crate::settings::set;

const LIST_EVENTS: &str = "/switchboard.event.v1.EventService/ListEvents";
const MICROSECOND: Duration = Duration::from_micros(1);

/// Sends a request over a connection of its own, from `127.0.0.<from>`.
async fn send(from: u8, to: &str, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, from), 0).into()).unwrap();
    let stream = socket.connect(to.parse::<SocketAddr>().unwrap()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

async fn get(from: u8, to: &str, path: &str) -> StatusCode {
    let request = Request::get(path).header("host", "localhost").body(Full::default()).unwrap();
    send(from, to, request).await.status()
}

/// Asks to verify a key that nobody has; answers the status, the headers and the reason of a refusal.
async fn verify(from: u8, to: &str, key: &str) -> (StatusCode, HeaderMap, String) {
    let body = Bytes::from_static(br#"{"key":"swb_nope"}"#);
    let request = Request::post("/v1/verify").header("host", "localhost").header("x-api-key", key);
    let (parts, body) = send(from, to, request.body(Full::new(body)).unwrap()).await.into_parts();
    let said: Value = serde_json::from_slice(&body).unwrap();
    let reason = said["error"]["reason"].as_str().unwrap_or_default().to_owned();
    (parts.status, parts.headers, reason)
}

/// The code that gRPC-web answers, as what browsers send, with a line of `x-forwarded-for` for each of `forwarded`.
async fn web(from: u8, to: &str, key: &str, path: &str, forwarded: &[&str]) -> Code {
    let mut request = Request::post(path)
        .header("host", "localhost")
        .header("content-type", "application/grpc-web+proto")
        .header("x-api-key", key);
    for line in forwarded {
        request = request.header("x-forwarded-for", *line);
    }
    let response = send(from, to, request.body(Full::new(Bytes::from_static(&[0; 5]))).unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK, "what gRPC-web refuses it refuses by code");
    let code = response.headers().get("grpc-status").map_or("0", |value| value.to_str().unwrap());
    code.parse::<i32>().unwrap().into()
}

async fn list_events(client: &Client) -> Result<tonic::Response<()>, Status> {
    client.events().list_events(ListEventsRequest::default()).await.map(|response| response.map(drop))
}

/// What a refusal says: the limit, and when to come again, by all three ways.
#[track_caller]
fn expect_limited(refused: &Status, name: &str, policy: &str) -> Duration {
    let details = status::expect(refused, Code::ResourceExhausted, "RATE_LIMITED");
    assert_eq!(details.error_info().unwrap().metadata["rate_limit"], name);
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, name);
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let header = |name: &str| refused.metadata().get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(header("ratelimit-policy"), policy);
    assert_eq!(header("ratelimit"), format!("\"{name}\";r=0;t={seconds}"));
    assert_eq!(header("retry-after"), seconds.to_string());
    wait
}

fn stranger() -> String {
    generate(KeyKind::Live, &SystemRandom).reveal().to_owned()
}

on_both! {
    async fn only_trusted_proxies_are_believed(server: Server) {
        set(&server.client, json!({"security.ip_deny": "192.0.2.0/24 2001:db8::/32"})).await;
        let (to, key) = (server.address(), server.key.reveal());
        let code = async |from: u8, forwarded: &[&str]| web(from, &to, key, LIST_EVENTS, forwarded).await;
        assert_eq!(code(1, &["192.0.2.1"]).await, Code::Ok, "anybody can write that");
        set(&server.client, json!({"security.trusted_proxies": "127.0.0.1, 10.0.0.0/8"})).await;
        let table: &[(&[&str], Code)] = &[
            (&[], Code::Ok),
            (&["192.0.2.1"], Code::PermissionDenied),
            (&["192.0.2.1:4711"], Code::PermissionDenied),
            (&["[2001:db8::1]:443"], Code::PermissionDenied),
            (&["2001:db8::1"], Code::PermissionDenied),
            (&["::ffff:192.0.2.1"], Code::PermissionDenied),
            (&["198.51.100.7, 192.0.2.1, 10.0.0.1"], Code::PermissionDenied),
            (&["198.51.100.7", "192.0.2.1", "10.0.0.1"], Code::PermissionDenied),
            // What stands left of the first that is not trusted, or of what can not be read, is not looked at.
            (&["192.0.2.1, 198.51.100.7"], Code::Ok),
            (&["192.0.2.1", "198.51.100.7, 10.0.0.1"], Code::Ok),
            (&["192.0.2.1, unknown, 10.0.0.1"], Code::Ok),
        ];
        for (forwarded, expected) in table {
            assert_eq!(code(1, forwarded).await, *expected, "{forwarded:?}");
        }
        assert_eq!(code(9, &["192.0.2.1"]).await, Code::Ok, "another peer is no proxy");
        let mut request = tonic::Request::new(ListEventsRequest::default());
        request.metadata_mut().insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
        status::expect(&server.client.events().list_events(request).await.unwrap_err(), Code::PermissionDenied, "IP_NOT_ALLOWED");
    }

    async fn the_lists_say_who_may_come(server: Server) {
        let (to, key) = (server.address(), server.key.reveal());
        let code = async |from: u8| web(from, &to, key, LIST_EVENTS, &[]).await;
        let health = "/grpc.health.v1.Health/Check";
        set(&server.client, json!({"security.ip_allow": "127.0.0.1, 127.0.0.8/29"})).await;
        assert_eq!((code(1).await, code(9).await, code(2).await), (Code::Ok, Code::Ok, Code::PermissionDenied));
        assert_eq!(web(2, &to, key, "/nope", &[]).await, Code::PermissionDenied, "not even what there is");
        let (refused, _, reason) = verify(2, &to, key).await;
        assert_eq!((refused, reason.as_str()), (StatusCode::FORBIDDEN, "IP_NOT_ALLOWED"));
        assert_eq!(verify(9, &to, key).await.0, StatusCode::OK);
        assert_eq!(get(2, &to, "/metrics").await, StatusCode::FORBIDDEN);
        // Load balancers are anywhere, and so are those who follow a link in a mail.
        assert_eq!(get(2, &to, "/healthz").await, StatusCode::OK);
        assert_eq!(web(2, &to, key, health, &[]).await, Code::Ok);
        assert_ne!(get(2, &to, "/u/nope").await, StatusCode::FORBIDDEN);
        set(&server.client, json!({"security.ip_deny": "127.0.0.9, 127.0.0.2"})).await;
        assert_eq!((code(1).await, code(9).await), (Code::Ok, Code::PermissionDenied), "to deny wins");
        assert_eq!(get(2, &to, "/u/nope").await, StatusCode::FORBIDDEN);
        assert_eq!(get(2, &to, "/healthz").await, StatusCode::OK);
        set(&server.client, json!({"security.ip_deny": "", "security.ip_allow": ""})).await;
        assert_eq!((code(9).await, code(2).await), (Code::Ok, Code::Ok));
    }

    async fn an_address_has_a_limit_that_comes_back(server: Server) {
        let (to, key) = (server.address(), server.key.reveal());
        set(&server.client, json!({"security.rate_limit_per_ip": 7})).await;
        for _ in 0..7 {
            list_events(&server.client).await.unwrap();
        }
        let wait = expect_limited(&list_events(&server.client).await.unwrap_err(), "address", "\"address\";q=7;w=60");
        assert_eq!(web(1, &to, key, LIST_EVENTS, &[]).await, Code::ResourceExhausted);
        let (refused, headers, reason) = verify(1, &to, key).await;
        assert_eq!((refused, reason.as_str(), headers["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", "9"));
        assert_eq!(get(1, &to, "/metrics").await, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(get(1, &to, "/healthz").await, StatusCode::OK);
        assert_eq!(web(2, &to, key, LIST_EVENTS, &[]).await, Code::Ok, "another address has its own");
        server.clock.advance(wait - MICROSECOND);
        list_events(&server.client).await.unwrap_err();
        server.clock.advance(MICROSECOND);
        set(&server.client, json!({"security.rate_limit_per_ip": 0})).await;
        for _ in 0..20 {
            list_events(&server.client).await.unwrap();
        }
    }

    async fn a_key_without_a_limit_of_its_own_has_the_default(server: Server) {
        let (_, key) = make(&server.client, new_key(&["events:read"])).await.unwrap();
        let own = RateLimit { name: "own".into(), limit: 5, period: Some(prost_types::Duration { seconds: 60, nanos: 0 }) };
        let (_, bounded) = make(&server.client, CreateApiKeyRequest { rate_limits: vec![own], ..new_key(&["events:read"]) }).await.unwrap();
        set(&server.client, json!({"security.rate_limit_per_key": 3})).await;
        let client = server.client_with(&key).await;
        for left in [2, 1, 0] {
            let said = list_events(&client).await.unwrap();
            let header = |name: &str| said.metadata().get(name).unwrap().to_str().unwrap().to_owned();
            assert_eq!(header("ratelimit-policy"), "\"default\";q=3;w=3600");
            assert_eq!(header("ratelimit"), format!("\"default\";r={left};t={}", (3 - left) * 1_200));
        }
        // Health is not counted; the HTTP routes are, and tell the same.
        let (_, headers, _) = verify(1, &server.address(), server.key.reveal()).await;
        assert_eq!(headers["ratelimit-policy"], "\"default\";q=3;w=3600");
        let wait = expect_limited(&list_events(&client).await.unwrap_err(), "default", "\"default\";q=3;w=3600");
        assert_eq!(wait, Duration::from_secs(1_200));
        server.clock.advance(wait - MICROSECOND);
        list_events(&client).await.unwrap_err();
        server.clock.advance(MICROSECOND);
        list_events(&client).await.unwrap();
        list_events(&client).await.unwrap_err();
        let bounded = server.client_with(&bounded).await;
        for left in [4, 3, 2, 1, 0] {
            let said = list_events(&bounded).await.unwrap();
            assert!(said.metadata().get("ratelimit").unwrap().to_str().unwrap().starts_with(&format!("\"own\";r={left};")));
        }
        expect_limited(&list_events(&bounded).await.unwrap_err(), "own", "\"own\";q=5;w=60");
        set(&server.client, json!({"security.rate_limit_per_key": 0})).await;
        for _ in 0..5 {
            assert!(list_events(&client).await.unwrap().metadata().get("ratelimit").is_none(), "no limit, nothing to tell");
        }
    }

    async fn a_flood_of_bad_keys_hits_nobody_else(server: Server) {
        let (to, key) = (server.address(), server.key.reveal());
        set(&server.client, json!({"security.trusted_proxies": "127.0.0.1", "security.failed_keys_per_minute": 5})).await;
        let before = server.verifier().reads();
        for _ in 0..5 {
            assert_eq!(web(2, &to, &stranger(), LIST_EVENTS, &[]).await, Code::Unauthenticated);
        }
        assert_eq!(server.verifier().reads(), before + 5);
        for _ in 0..20 {
            assert_eq!(web(2, &to, &stranger(), LIST_EVENTS, &[]).await, Code::ResourceExhausted);
        }
        assert_eq!(server.verifier().reads(), before + 5, "nothing is looked up any more");
        let (refused, headers, reason) = verify(2, &to, key).await;
        assert_eq!((refused, reason.as_str(), headers["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", "12"));
        assert_eq!(web(3, &to, key, LIST_EVENTS, &[]).await, Code::Ok, "who comes from elsewhere is not asked to pay");
        // The same by way of nginx, which all of them come through.
        let nginx = Nginx::start(&format!("location / {{ proxy_pass http://{to}; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}")).await;
        let proxied = nginx.address();
        for _ in 0..5 {
            assert_eq!(verify(4, &proxied, &stranger()).await.0, StatusCode::UNAUTHORIZED);
        }
        assert_eq!(verify(4, &proxied, &stranger()).await.0, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(web(4, &proxied, key, LIST_EVENTS, &["127.0.0.5"]).await, Code::ResourceExhausted, "whatever it writes");
        assert_eq!(web(5, &proxied, key, LIST_EVENTS, &["127.0.0.4"]).await, Code::Ok);
        assert_eq!(verify(5, &proxied, key).await.0, StatusCode::OK);
        // The proxy itself is nobody.
        for _ in 0..20 {
            assert_eq!(web(1, &to, &stranger(), LIST_EVENTS, &[]).await, Code::Unauthenticated);
        }
        // A key each comes back after a while.
        server.clock.advance(Duration::from_secs(12));
        assert_eq!(web(2, &to, key, LIST_EVENTS, &[]).await, Code::Ok);
        assert_eq!(web(2, &to, &stranger(), LIST_EVENTS, &[]).await, Code::Unauthenticated);
        assert_eq!(web(2, &to, key, LIST_EVENTS, &[]).await, Code::ResourceExhausted);
    }

    async fn a_proxy_that_asks_about_a_request_says_whom_the_proxies_before_it_saw(server: Server) {
        let (to, proxy) = (server.address(), server.key.reveal());
        let request = CreateApiKeyRequest { allowed_networks: vec!["192.0.2.0/24".into()], ..new_key(&["orders:read"]) };
        let (_, key) = make(&server.client, request).await.unwrap();
        let asked = async |forwarded: &str| {
            let request = Request::get("/v1/forward-auth").header("host", "localhost").header("x-switchboard-key", proxy);
            let request = request.header("x-api-key", &key).header("x-forwarded-for", forwarded);
            send(1, &to, request.body(Full::default()).unwrap()).await.status()
        };
        let (ok, forbidden) = (StatusCode::OK, StatusCode::FORBIDDEN);
        assert_eq!((asked("192.0.2.1").await, asked("192.0.2.1, 10.0.0.1").await), (ok, forbidden));
        set(&server.client, json!({"security.trusted_proxies": "10.0.0.0/8, 127.0.0.1"})).await;
        assert_eq!((asked("192.0.2.1").await, asked("192.0.2.1, 10.0.0.1").await), (ok, ok));
        assert_eq!((asked("192.0.2.1, 6.6.6.6").await, asked("192.0.2.1, 6.6.6.6, 10.0.0.1").await), (forbidden, forbidden));
        // The lists are about the proxy there, and not about whoever it asks for.
        set(&server.client, json!({"security.ip_deny": "192.0.2.0/24"})).await;
        assert_eq!(asked("192.0.2.1").await, ok);
    }

    async fn nobody_locks_himself_out_and_the_command_line_is_the_way_back(server: Server) {
        use crate::settings::{change, try_set};
        for (key, value) in [("security.ip_allow", "10.0.0.0/8"), ("security.ip_deny", "::1, 127.0.0.0/8")] {
            let refused = try_set(&server.client, change(&json!({ key: value }))).await.unwrap_err();
            let details = status::expect(&refused, Code::InvalidArgument, "FIELD_INVALID");
            let violations = &details.bad_request().unwrap().field_violations;
            assert_eq!((violations.len(), &violations[0].field), (1, &format!("values[{key}]")));
            assert!(violations[0].description.contains("127.0.0.1"), "{violations:?}");
        }
        list_events(&server.client).await.unwrap();
        set(&server.client, json!({"security.ip_allow": "127.0.0.1/32, 192.0.2.1"})).await;
        // By way of a proxy the address is the one behind it.
        set(&server.client, json!({"security.trusted_proxies": "127.0.0.1"})).await;
        let mut behind = tonic::Request::new(change(&json!({"security.ip_deny": "192.0.2.1"})));
        behind.metadata_mut().insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
        let refused = server.client.settings().update_settings(behind).await.unwrap_err();
        status::expect_violations(&refused, &["values[security.ip_deny]"]);
        // Somebody may move away later.
        let code = async |server: &Server| web(9, &server.address(), server.key.reveal(), LIST_EVENTS, &[]).await;
        assert_eq!(code(&server).await, Code::PermissionDenied);
        let mut args = vec!["settings", "reset", "security.ip_allow", "--data", server.folder().to_str().unwrap()];
        if let Target::Postgres(url) = &server.config.database {
            args.extend(["--database-url", url]);
        }
        switchboard(&args).await.expect_success();
        let server = server.restart().await;
        assert_eq!(code(&server).await, Code::Ok);
    }

    async fn security_settings_are_checked(server: Server) {
        use crate::settings::{change, try_set};
        let wrong = json!({
            "security.ip_allow": "10.0.0.0/33",
            "security.ip_deny": "example.com",
            "security.rate_limit_per_key": -1,
            "security.trusted_proxies": "10.0.0.1;10.0.0.2",
        });
        let refused = try_set(&server.client, change(&wrong)).await.unwrap_err();
        let fields: Vec<_> = wrong.as_object().unwrap().keys().map(|key| format!("values[{key}]")).collect();
        status::expect_violations(&refused, &fields.iter().map(String::as_str).collect::<Vec<_>>());
        let refused = try_set(&server.client, change(&json!({"security.trusted_proxies": "0.0.0.0/0"}))).await.unwrap_err();
        status::expect_violations(&refused, &["values[security.trusted_proxies]"]);
    }
}
