//! Tokens of users: what each opens and for how long, and that nobody makes one, widens one or outlives the end of one.

use std::time::Duration;

use prost_types::Timestamp;
use serde_json::json;
use switchboard::clock::Clock as _;
use switchboard::notification::token::model::DEFAULT_SCOPES;
use switchboard::rpc::methods::Methods;
use switchboard::scope;
use switchboard_client::Client;
use switchboard_client::apikey::v1::{
    ApiKey, CreateApiKeyRequest, GetApiKeyUsageRequest, RateLimit, RevokeApiKeyRequest,
};
use switchboard_client::event::v1::{ListEventsRequest, PublishEventRequest};
use switchboard_client::notification::v1::{
    CreateSubscriberTokenRequest, CreateSubscriberTokenResponse, RevokeSubscriberTokensRequest,
    SubscribeRequest, SubscribeResponse, closing,
};
use switchboard_client::settings::v1::ListAuditEntriesRequest;
use switchboard_client::webhook::v1::{CreateWebhookRequest, Webhook};
use tonic::{Code, Request, Status, Streaming};

use crate::api_keys::{connection, open};
use crate::api_keys_change::{make, new_key, update};
use crate::harness::server::{Backend, Server, event};
use crate::harness::{SOON, breath, eventually, on_both, status};
use crate::live::{next, subscribe};
use crate::port::http1;
use crate::settings::set;

const SECOND: Duration = Duration::from_secs(1);
const MICROSECOND: Duration = Duration::from_micros(1);
const LIST_EVENTS: &str = "/switchboard.event.v1.EventService/ListEvents";
/// Enough for tokens that read events, and for those with the usual scopes.
const MAKER: [&str; 5] = ["tokens:write", "events:*", "notifications:read", "inbox:read", "inbox:write"];

/// A request for a token with these scopes.
pub fn new_token(user_id: &str, scopes: &[&str]) -> CreateSubscriberTokenRequest {
    CreateSubscriberTokenRequest {
        user_id: user_id.into(),
        scopes: scopes.iter().map(|&scope| scope.into()).collect(),
        ..Default::default()
    }
}

/// Makes a token.
pub async fn try_token(
    client: &Client,
    request: CreateSubscriberTokenRequest,
) -> Result<CreateSubscriberTokenResponse, Status> {
    Ok(client.notifications().create_subscriber_token(request).await?.into_inner())
}

/// Makes a token with these scopes.
pub async fn token(client: &Client, user_id: &str, scopes: &[&str]) -> String {
    try_token(client, new_token(user_id, scopes)).await.unwrap().token
}

async fn revoke(client: &Client, user_id: &str) -> Timestamp {
    let request = RevokeSubscriberTokensRequest { user_id: user_id.into() };
    client.notifications().revoke_subscriber_tokens(request).await.unwrap().into_inner().revoke_time.unwrap()
}

/// Any call that the scope `events:read` allows.
pub async fn read_events(server: &Server, token: &str) -> Result<(), Status> {
    open(&connection(server).await, Some(token), LIST_EVENTS, b"").await.map(drop)
}

#[track_caller]
pub fn expect_refused(result: Result<(), Status>, reason: &str) {
    status::expect(&result.unwrap_err(), Code::Unauthenticated, reason);
}

/// A client with a key that makes tokens, and the key.
async fn maker(server: &Server, scopes: &[&str]) -> (Client, ApiKey) {
    let (api_key, key) = make(&server.client, new_key(scopes)).await.unwrap();
    (server.client_with(&key).await, api_key)
}

async fn revoke_key(server: &Server, id: &str) {
    let request = RevokeApiKeyRequest { api_key_id: id.into() };
    server.client.api_keys().revoke_api_key(request).await.unwrap();
}

/// A stream whose heartbeat is far away: what ends it soon was told of the end.
async fn patient(client: &Client) -> Streaming<SubscribeResponse> {
    let heartbeat_interval = Some(prost_types::Duration { seconds: 50, nanos: 0 });
    subscribe(client, SubscribeRequest { heartbeat_interval, ..Default::default() }).await.0
}

async fn expect_closed(stream: &mut Streaming<SubscribeResponse>) {
    let closing = loop {
        if let Some(closing) = next(stream).await.closing {
            break closing;
        }
    };
    assert_eq!((closing.reason(), closing.reconnect), (closing::Reason::KeyEnded, false));
    assert!(stream.message().await.unwrap().is_none(), "the stream is over");
}

on_both! {
    async fn a_token_opens_what_its_scopes_say_and_nothing_else(server: Server) {
        let channel = connection(&server).await;
        let usual = token(&server.client, "jo", &[]).await;
        let narrow = token(&server.client, "jo", &["events:write"]).await;
        for method in Methods::from_descriptor(switchboard::pb::DESCRIPTOR).unwrap().all() {
            for (token, scopes) in [(&usual, &DEFAULT_SCOPES[..]), (&narrow, &["events:write"][..])] {
                let answer = match open(&channel, Some(token), method.path, b"").await {
                    Ok(mut answer) if !method.streaming => answer.message().await.map(drop),
                    Ok(_) => Ok(()),
                    Err(refused) => Err(refused),
                };
                let missing = answer.as_ref().is_err_and(|refused| {
                    refused.code() == Code::PermissionDenied && refused.message().contains(method.scope)
                });
                assert_eq!(missing, !scope::any_covers(scopes, method.scope), "{}: {answer:?}", method.path);
                assert!(!answer.is_err_and(|refused| refused.code() == Code::Unauthenticated), "{}", method.path);
            }
        }
    }

    async fn a_token_is_shown_as_a_bearer(server: Server) {
        let text = token(&server.client, "jo", &["events:read"]).await;
        let mut client = switchboard_client::event::v1::event_service_client::EventServiceClient::new(connection(&server).await);
        for (name, value) in [
            ("authorization", format!("Bearer {text}")),
            ("authorization", format!("bearer  {text}")),
            ("x-api-key", text.clone()),
        ] {
            let mut request = Request::new(ListEventsRequest::default());
            request.metadata_mut().insert(name, value.parse().unwrap());
            client.list_events(request).await.unwrap();
        }
        for value in [format!("Basic {text}"), text.clone()] {
            let mut request = Request::new(ListEventsRequest::default());
            request.metadata_mut().insert("authorization", value.parse().unwrap());
            expect_refused(client.list_events(request).await.map(drop), "KEY_MISSING");
        }
    }

    async fn the_routes_for_applications_take_keys_only(server: Server) {
        let text = token(&server.client, "jo", &["apikeys:verify"]).await;
        for (path, header) in [("/v1/verify", "authorization"), ("/v1/forward-auth", "x-switchboard-key")] {
            let value = if header == "authorization" { format!("Bearer {text}") } else { text.clone() };
            let request = http::Request::post(path).header("host", "localhost").header(header, value);
            let body = http_body_util::Full::new(bytes::Bytes::from_static(br#"{"key":"swb_nope"}"#));
            let answer = http1(&server, request.body(body).unwrap()).await;
            assert!(!answer.status().is_success(), "{path}: {answer:?}");
            assert!(String::from_utf8_lossy(answer.body()).contains("KEY_INVALID"), "{path}: {answer:?}");
        }
    }

    async fn a_maker_gives_away_what_it_holds_and_says_what_is_wrong(server: Server) {
        let (client, _) = maker(&server, &MAKER).await;
        try_token(&client, new_token("jo", &[])).await.unwrap();
        try_token(&client, new_token("jo", &["events:read", "events:write", "events:*"])).await.unwrap();
        for beyond in ["webhooks:read", "inbox:*", "admin:read"] {
            let refused = try_token(&client, new_token("jo", &["events:read", beyond])).await.unwrap_err();
            let details = status::expect(&refused, Code::PermissionDenied, "SCOPE_NOT_HELD");
            assert_eq!(details.error_info().unwrap().metadata["scope"], beyond);
        }
        let (few, _) = maker(&server, &["tokens:write", "inbox:read"]).await;
        let refused = try_token(&few, new_token("jo", &[])).await.unwrap_err();
        status::expect(&refused, Code::PermissionDenied, "SCOPE_NOT_HELD");
        for held in ["admin:*", "admin:write", "apikeys:write", "tokens:write", "settings:*"] {
            let refused = try_token(&server.client, new_token("jo", &[held])).await.unwrap_err();
            status::expect_violations(&refused, &["scopes[0]"]);
        }
        let bad = CreateSubscriberTokenRequest {
            user_id: "user:jo".into(),
            username: "\u{7}".into(),
            topics: vec!["a".into(), "a*".into()],
            event_types: vec!["A".into()],
            scopes: vec!["all".into()],
            lifetime: Some(prost_types::Duration { seconds: 9, nanos: 0 }),
        };
        let refused = try_token(&client, bad).await.unwrap_err();
        status::expect_violations(&refused, &["user_id", "username", "topics[1]", "event_types[0]", "scopes[0]", "lifetime"]);
        let negative = CreateSubscriberTokenRequest { lifetime: Some(prost_types::Duration { seconds: -1, nanos: 0 }), ..new_token("jo", &[]) };
        status::expect_violations(&try_token(&client, negative).await.unwrap_err(), &["lifetime"]);
        let topics = (0..100).map(|number| format!("{}:{number}", "a".repeat(100))).collect();
        let huge = CreateSubscriberTokenRequest { topics, ..new_token("jo", &[]) };
        status::expect_violations(&try_token(&client, huge).await.unwrap_err(), &["topics"]);
        let nobody = client.notifications().revoke_subscriber_tokens(RevokeSubscriberTokensRequest::default()).await.unwrap_err();
        status::expect_violations(&nobody, &["user_id"]);
    }

    async fn the_setting_says_how_long_tokens_live(server: Server) {
        let lifetime = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let ends = async |seconds: Option<i64>| {
            let request = CreateSubscriberTokenRequest { lifetime: seconds.and_then(lifetime), ..new_token("jo", &["events:read"]) };
            try_token(&server.client, request).await.map(|made| (made.token, made.expire_time.unwrap().seconds))
        };
        let now = server.clock.now().seconds();
        assert_eq!(ends(None).await.unwrap().1, now + 3_600);
        let (text, end) = ends(Some(10)).await.unwrap();
        assert_eq!(end, now + 10);
        status::expect_violations(&ends(Some(3_601)).await.unwrap_err(), &["lifetime"]);
        set(&server.client, json!({"authentication.token_lifetime_minutes": 1_440})).await;
        assert_eq!(ends(None).await.unwrap().1, now + 86_400);
        set(&server.client, json!({"authentication.token_lifetime_minutes": 1})).await;
        assert_eq!(ends(None).await.unwrap().1, now + 60);
        status::expect_violations(&ends(Some(61)).await.unwrap_err(), &["lifetime"]);

        read_events(&server, &text).await.unwrap();
        let left = (end * 1_000_000 - server.clock.now().micros()) as u64;
        server.advance(Duration::from_micros(left - 1));
        read_events(&server, &text).await.unwrap();
        server.advance(MICROSECOND);
        expect_refused(read_events(&server, &text).await, "TOKEN_ENDED");
        // Nor does it keep a stream open, or make another token.
        for method in ["RefreshSubscription", "UpdateSubscription", "CreateSubscriberToken"] {
            let path = format!("/switchboard.notification.v1.NotificationService/{method}");
            expect_refused(open(&connection(&server).await, Some(&text), &path, b"").await.map(drop), "TOKEN_ENDED");
        }
    }

    async fn the_tokens_of_a_user_end_all_at_once(server: Server) {
        let (client, maker) = maker(&server, &MAKER).await;
        let by_maker = token(&client, "jo", &["events:read"]).await;
        let by_admin = token(&server.client, "jo", &["events:read"]).await;
        let others = token(&client, "sam", &["events:read"]).await;
        for text in [&by_maker, &by_admin, &others] {
            read_events(&server, text).await.unwrap();
        }
        let up_to = revoke(&client, "jo").await;
        assert_eq!(up_to.seconds, server.clock.now().seconds());
        for text in [&by_maker, &by_admin] {
            expect_refused(read_events(&server, text).await, "TOKEN_ENDED");
        }
        read_events(&server, &others).await.unwrap();
        let same_moment = token(&client, "jo", &["events:read"]).await;
        expect_refused(read_events(&server, &same_moment).await, "TOKEN_ENDED");
        server.advance(MICROSECOND);
        let later = token(&client, "jo", &["events:read"]).await;
        read_events(&server, &later).await.unwrap();

        let request = ListAuditEntriesRequest { resource_type: "subscriber_tokens".into(), ..Default::default() };
        let entries = server.client.audit().list_audit_entries(request).await.unwrap().into_inner().entries;
        let [entry] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!((entry.actor.as_str(), entry.resource_id.as_str()), (maker.id.as_str(), "jo"));
        assert_eq!(entry.action, "subscriber_tokens.revoke");

        let server = server.restart().await;
        expect_refused(read_events(&server, &by_maker).await, "TOKEN_ENDED");
        read_events(&server, &later).await.unwrap();
        read_events(&server, &others).await.unwrap();
    }

    async fn the_tokens_that_a_key_made_end_with_it(server: Server) {
        let (client, api_key) = maker(&server, &MAKER).await;
        let text = token(&client, "jo", &["events:read", "events:write"]).await;
        read_events(&server, &text).await.unwrap();

        // A key that may do less has tokens that may do less.
        let narrowed = ApiKey { scopes: ["tokens:write", "events:write"].map(str::to_owned).to_vec(), ..api_key.clone() };
        let api_key = update(&server.client, narrowed, &["scopes"]).await.unwrap();
        let refused = read_events(&server, &text).await.unwrap_err();
        status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");
        let wide = ApiKey { scopes: MAKER.map(str::to_owned).to_vec(), ..api_key };
        let api_key = update(&server.client, wide, &["scopes"]).await.unwrap();
        read_events(&server, &text).await.unwrap();

        let api_key = update(&server.client, ApiKey { disabled: true, ..api_key }, &["disabled"]).await.unwrap();
        expect_refused(read_events(&server, &text).await, "TOKEN_ENDED");
        let api_key = update(&server.client, ApiKey { disabled: false, ..api_key }, &["disabled"]).await.unwrap();
        read_events(&server, &text).await.unwrap();
        revoke_key(&server, &api_key.id).await;
        expect_refused(read_events(&server, &text).await, "TOKEN_ENDED");

        let short = CreateApiKeyRequest { expires_in_days: 1, ..new_key(&MAKER) };
        let (_, key) = make(&server.client, short).await.unwrap();
        server.advance(Duration::from_secs(24 * 3_600) - 10 * SECOND);
        let text = token(&server.client_with(&key).await, "jo", &["events:read"]).await;
        read_events(&server, &text).await.unwrap();
        server.advance(10 * SECOND);
        expect_refused(read_events(&server, &text).await, "TOKEN_ENDED");
    }

    async fn a_stream_ends_at_once_with_its_token_or_key(server: Server) {
        let (client, api_key) = maker(&server, &MAKER).await;
        let user = async |user_id: &str| server.client_with(&token(&client, user_id, &[]).await).await;
        let (mut jo, mut sam) = (patient(&user("jo").await).await, patient(&user("sam").await).await);
        let mut application = patient(&client).await;
        revoke(&server.client, "jo").await;
        expect_closed(&mut jo).await;
        revoke_key(&server, &api_key.id).await;
        expect_closed(&mut sam).await;
        expect_closed(&mut application).await;
    }

    async fn users_have_a_limit_of_their_own_each(server: Server) {
        let limit = RateLimit { name: "requests".into(), limit: 20, period: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }) };
        let networks = vec!["192.0.2.0/24".to_owned(), "127.0.0.1".to_owned()];
        let request = CreateApiKeyRequest { rate_limits: vec![limit], allowed_networks: networks, ..new_key(&MAKER) };
        let (api_key, key) = make(&server.client, request).await.unwrap();
        let client = server.client_with(&key).await;
        let (jo, sam) = (token(&client, "jo", &["events:read"]).await, token(&client, "sam", &["events:read"]).await);
        let again = token(&client, "jo", &["events:read"]).await;
        // What the key is bound by is about the application: its users are elsewhere.
        let elsewhere = ApiKey { allowed_networks: vec!["192.0.2.0/24".into()], ..api_key.clone() };
        update(&server.client, elsewhere, &["allowed_networks"]).await.unwrap();
        set(&server.client, json!({"security.rate_limit_per_key": 30})).await;
        for text in [&jo, &sam] {
            for _ in 0..30 {
                read_events(&server, text).await.unwrap();
            }
            let refused = read_events(&server, text).await.unwrap_err();
            let details = status::expect(&refused, Code::ResourceExhausted, "RATE_LIMITED");
            assert_eq!(details.error_info().unwrap().metadata["rate_limit"], "user");
        }
        let refused = read_events(&server, &again).await.unwrap_err();
        status::expect(&refused, Code::ResourceExhausted, "RATE_LIMITED");
        server.advance(120 * SECOND);
        read_events(&server, &again).await.unwrap();

        // Nothing of it is counted for the key.
        set(&server.client, json!({"security.rate_limit_per_key": 10_000})).await;
        let usage = eventually("what was counted is written", async || {
            let request = GetApiKeyUsageRequest { api_key_id: api_key.id.clone(), ..Default::default() };
            let usage = server.client.api_keys().get_api_key_usage(request).await.unwrap().into_inner();
            (usage.calls > 0).then_some(usage)
        }).await;
        assert!(usage.endpoints.iter().all(|one| one.endpoint.contains("CreateSubscriberToken")), "{usage:?}");
    }

    async fn forged_tokens_are_counted_and_those_that_have_ended_are_not(server: Server) {
        set(&server.client, json!({"security.failed_keys_per_minute": 5})).await;
        let short = CreateSubscriberTokenRequest {
            lifetime: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
            ..new_token("jo", &["events:read"])
        };
        let over = try_token(&server.client, short).await.unwrap().token;
        let good = token(&server.client, "jo", &["events:read"]).await;
        server.advance(10 * SECOND);
        for _ in 0..20 {
            expect_refused(read_events(&server, &over).await, "TOKEN_ENDED");
        }
        read_events(&server, &good).await.unwrap();
        for number in 0..5 {
            let mut forged = good.clone();
            forged.replace_range(0..1, if number % 2 == 0 { "f" } else { "g" });
            expect_refused(read_events(&server, &forged).await, "TOKEN_INVALID");
        }
        let refused = read_events(&server, &good).await.unwrap_err();
        let details = status::expect(&refused, Code::ResourceExhausted, "RATE_LIMITED");
        assert_eq!(details.error_info().unwrap().metadata["rate_limit"], "failed_keys");
    }

    async fn no_forged_token_is_taken_and_none_reaches_the_database(server: Server = no_limit_of_failed_keys) {
        let (client, _) = maker(&server, &MAKER).await;
        let good = token(&client, "jo", &["events:read"]).await;
        read_events(&server, &good).await.unwrap();
        let other = Server::start(Backend::Sqlite).await;
        let foreign = token(&other.client, "jo", &["events:read"]).await;
        let channel = connection(&server).await;
        let before = server.verifier().reads();
        let [header, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
        let none = switchboard_header(r#"{"alg":"none"}"#);
        let sparse = (0..good.len()).step_by(7).flat_map(|at| [1, 4].map(|bit| {
            let mut bent = good.clone().into_bytes();
            bent[at] ^= bit;
            String::from_utf8(bent).unwrap()
        }));
        let other_user = switchboard_header(r#"{"sub":"sam"}"#);
        let texts: Vec<String> = sparse
            .chain([
                foreign,
                format!("{none}.{claims}."),
                format!("{none}.{claims}.{signature}"),
                format!("{header}.{other_user}.{signature}"),
                format!("{header}.{claims}"),
                format!("{header}.{claims}."),
                format!("{header}.{claims}.{signature}="),
                format!("{header}.{claims}.{signature}.{signature}"),
                format!("{good}A"),
                good[..good.len() - 1].to_owned(),
                format!("{header}.{}.{signature}", "A".repeat(9_000)),
                "a.b.c".into(),
                "...".into(),
            ])
            .filter(|text| *text != good && text.bytes().all(|byte| byte.is_ascii_graphic()))
            .collect();
        assert!(texts.len() > 100, "{}", texts.len());
        for text in &texts {
            let refused = open(&channel, Some(text), LIST_EVENTS, b"").await.expect_err(text);
            assert_eq!(refused.code(), Code::Unauthenticated, "{text}: {refused:?}");
        }
        assert_eq!(server.verifier().reads(), before, "none reached the database");
        open(&channel, Some(&good), LIST_EVENTS, b"").await.unwrap();
    }

    async fn what_a_user_does_is_theirs_and_not_the_keys(server: Server) {
        let user = async |user_id: &str| {
            let scopes = ["events:write", "webhooks:write"];
            server.client_with(&token(&server.client, user_id, &scopes).await).await
        };
        let (jo, sam) = (user("jo").await, user("sam").await);
        let publish = async |client: &Client, data: &str| {
            let request = PublishEventRequest { request_id: "one".into(), ..event("a.b", data) };
            client.events().publish_event(request).await.map(|made| made.into_inner())
        };
        // Three callers with one request id are three requests; one of them with another token is the same.
        let by_key = publish(&server.client, r#"{"n":1}"#).await.unwrap();
        let by_jo = publish(&jo, r#"{"n":2}"#).await.unwrap();
        let by_sam = publish(&sam, r#"{"n":3}"#).await.unwrap();
        assert!(by_key.event_id != by_jo.event_id && by_jo.event_id != by_sam.event_id);
        let again = publish(&user("jo").await, r#"{"n":2}"#).await.unwrap();
        assert!(again.replayed && again.event_id == by_jo.event_id);

        let webhook = Webhook { name: "mine".into(), url: "http://127.0.0.1:9/".into(), event_types: vec!["a.b".into()], ..Default::default() };
        jo.webhooks().create_webhook(CreateWebhookRequest { webhook: Some(webhook), ..Default::default() }).await.unwrap();
        let request = ListAuditEntriesRequest { actor: "user:jo".into(), ..Default::default() };
        let entries = server.client.audit().list_audit_entries(request).await.unwrap().into_inner().entries;
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!(entries[0].action, "webhook.create");
    }

    async fn what_was_ended_is_forgotten_once_nothing_is_from_before(server: Server) {
        let rows = async || crate::retention::rows(&server, &["token_revocations"]).await;
        revoke(&server.client, "jo").await;
        revoke(&server.client, "jo").await;
        server.advance(61 * SECOND);
        revoke(&server.client, "sam").await;
        assert_eq!(rows().await, 2);
        server.advance(Duration::from_secs(24 * 3_600));
        eventually("jo's is forgotten", async || (rows().await == 1).then_some(())).await;
        server.advance(61 * SECOND);
        eventually("sam's too", async || (rows().await == 0).then_some(())).await;
    }
}

fn switchboard_header(json: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json)
}

/// Nobody is turned away unread.
fn no_limit_of_failed_keys(config: &mut switchboard::config::Config) {
    config.set = vec!["security.failed_keys_per_minute=0".into()];
}

/// What one node ends, ends on every other within a second, streams too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_on_one_node_ends_on_the_others() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let (client, api_key) = maker(&one, &MAKER).await;
    let scopes = ["events:read", "notifications:read"];
    let (jo, sam) = (token(&client, "jo", &scopes).await, token(&client, "sam", &scopes).await);
    read_events(&other, &jo).await.unwrap();
    read_events(&other, &sam).await.unwrap();
    let mut streams =
        [patient(&other.client_with(&jo).await).await, patient(&other.client_with(&sam).await).await];

    let began = switchboard::clock::Stopwatch::start();
    revoke(&one.client, "jo").await;
    let ended = tokio::time::timeout(SOON, async {
        while read_events(&other, &jo).await.is_ok() {
            breath().await;
        }
    });
    ended.await.unwrap();
    expect_closed(&mut streams[0]).await;
    assert!(began.elapsed() < 5 * SECOND, "{:?}", began.elapsed());
    expect_refused(read_events(&other, &jo).await, "TOKEN_ENDED");
    read_events(&other, &sam).await.unwrap();

    revoke_key(&one, &api_key.id).await;
    expect_closed(&mut streams[1]).await;
    expect_refused(read_events(&other, &sam).await, "TOKEN_ENDED");
}
