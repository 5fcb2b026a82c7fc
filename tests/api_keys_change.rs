//! API keys that are changed, replaced and announced, and what nobody can do by it: get a scope that they do not hold.

use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{FieldMask, Struct, Value};
use switchboard_client::Client;
use switchboard_client::apikey::v1::{
    ApiKey, CreateApiKeyRequest, CreateApiKeyResponse, CreateScopeRequest, Credits, DeleteScopeRequest,
    GetApiKeyRequest, KeyKind, ListApiKeysRequest, ListScopesRequest, RateLimit, RefillInterval,
    RevokeApiKeyRequest, RotateApiKeyRequest, RotateApiKeyResponse, UpdateApiKeyRequest,
};
use switchboard_client::event::v1::{Event, ListEventsRequest};
use switchboard_client::settings::v1::UpdateSettingsRequest;
use tonic::{Code, Status};

use crate::harness::server::{Backend, Server};
use crate::harness::{eventually, on_both, status};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A request for a key with these scopes.
pub fn new_key(scopes: &[&str]) -> CreateApiKeyRequest {
    CreateApiKeyRequest {
        name: "test".into(),
        scopes: scopes.iter().map(|&scope| scope.into()).collect(),
        ..Default::default()
    }
}

/// Makes a key.
pub async fn make(client: &Client, request: CreateApiKeyRequest) -> Result<(ApiKey, String), Status> {
    let CreateApiKeyResponse { api_key, key } = client.api_keys().create_api_key(request).await?.into_inner();
    Ok((api_key.unwrap(), key))
}

/// Changes the named fields of a key.
pub async fn update(client: &Client, api_key: ApiKey, fields: &[&str]) -> Result<ApiKey, Status> {
    let paths = fields.iter().map(|&field| field.into()).collect();
    let request = UpdateApiKeyRequest { api_key: Some(api_key), update_mask: Some(FieldMask { paths }) };
    Ok(client.api_keys().update_api_key(request).await?.into_inner().api_key.unwrap())
}

async fn rotate(
    client: &Client,
    id: &str,
    overlap: Option<i64>,
    expires_in_days: i32,
) -> Result<(ApiKey, String, ApiKey), Status> {
    let overlap = overlap.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    let request =
        RotateApiKeyRequest { api_key_id: id.into(), overlap, expires_in_days, etag: String::new() };
    let RotateApiKeyResponse { api_key, key, replaced } =
        client.api_keys().rotate_api_key(request).await?.into_inner();
    Ok((api_key.unwrap(), key, replaced.unwrap()))
}

async fn get(server: &Server, id: &str) -> ApiKey {
    let request = GetApiKeyRequest { api_key_id: id.into() };
    server.client.api_keys().get_api_key(request).await.unwrap().into_inner().api_key.unwrap()
}

async fn revoke(server: &Server, id: &str) {
    let request = RevokeApiKeyRequest { api_key_id: id.into() };
    server.client.api_keys().revoke_api_key(request).await.unwrap();
}

/// Any call that the scope `events:read` allows.
async fn works(server: &Server, key: &str) -> bool {
    let client = server.client_with(key).await;
    client.events().list_events(ListEventsRequest::default()).await.is_ok()
}

/// The events of a type, oldest first.
async fn events(server: &Server, event_type: &str) -> Vec<Event> {
    let request = ListEventsRequest { event_types: vec![event_type.into()], ..Default::default() };
    let mut events = server.client.events().list_events(request).await.unwrap().into_inner().events;
    events.reverse();
    events
}

fn refused_scope(result: Result<impl std::fmt::Debug, Status>, scope: &str) {
    let details = status::expect(&result.unwrap_err(), Code::PermissionDenied, "SCOPE_NOT_HELD");
    assert_eq!(details.error_info().unwrap().metadata["scope"], scope);
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.into())) }
}

fn rate_limit(name: &str, limit: i64, seconds: i64) -> RateLimit {
    RateLimit { name: name.into(), limit, period: Some(prost_types::Duration { seconds, nanos: 0 }) }
}

/// A key that says everything of itself.
fn full() -> CreateApiKeyRequest {
    CreateApiKeyRequest {
        kind: KeyKind::Test.into(),
        external_id: "user 17".into(),
        metadata: Some(Struct { fields: [("plan".into(), text("gold"))].into() }),
        rate_limits: vec![rate_limit("requests", 100, 60), rate_limit("exports", 2, 86_400)],
        credits: Some(Credits {
            remaining: 5,
            refill_amount: 10,
            refill_interval: RefillInterval::Monthly.into(),
            refill_time: None,
        }),
        allowed_networks: vec!["127.0.0.0/8".into(), "2001:db8::/32".into()],
        denied_networks: vec!["10.6.6.6".into()],
        ..new_key(&["events:read"])
    }
}

on_both! {
    async fn a_key_keeps_what_it_says_of_itself(server: Server) {
        let (made, key) = make(&server.client, full()).await.unwrap();
        assert!(key.starts_with("swb_test") && made.key_prefix.starts_with("swb_test"), "{}", made.key_prefix);
        let asked = full();
        assert_eq!((made.kind(), &made.external_id, &made.metadata), (KeyKind::Test, &asked.external_id, &asked.metadata));
        assert_eq!((&made.rate_limits, &made.allowed_networks, &made.denied_networks),
            (&asked.rate_limits, &asked.allowed_networks, &asked.denied_networks));
        let credits = made.credits.unwrap();
        assert_eq!((credits.remaining, credits.refill_amount, credits.refill_interval()), (5, 10, RefillInterval::Monthly));
        assert!(credits.refill_time.unwrap().seconds > made.create_time.unwrap().seconds);
        assert_eq!(get(&server, &made.id).await, made);
        let (plain, _) = make(&server.client, new_key(&["events:read"])).await.unwrap();
        assert_eq!((plain.kind(), &plain.metadata, &plain.credits), (KeyKind::Live, &None, &None));
        let request = ListApiKeysRequest { external_id: "user 17".into(), ..Default::default() };
        let listed = server.client.api_keys().list_api_keys(request).await.unwrap().into_inner().api_keys;
        assert_eq!(listed, [made]);
    }

    async fn bad_fields_are_refused_all_at_once(server: Server) {
        let long = Struct { fields: [("x".into(), text(&"y".repeat(5_000)))].into() };
        let request = CreateApiKeyRequest {
            external_id: "x".repeat(257),
            metadata: Some(long),
            rate_limits: vec![rate_limit("Requests", 0, 0), rate_limit("a", 1, 60), rate_limit("a", 1, 60)],
            credits: Some(Credits { remaining: -1, refill_amount: 1, ..Default::default() }),
            allowed_networks: vec!["ten".into()],
            denied_networks: vec!["10.0.0.0/8".into(), "10.0.0.0/64".into()],
            ..new_key(&["events:read"])
        };
        let refused = make(&server.client, request).await.unwrap_err();
        status::expect_violations(&refused, &[
            "external_id", "metadata", "rate_limits[0].name", "rate_limits[0].limit", "rate_limits[0].period",
            "rate_limits[2].name", "credits.remaining", "credits.refill_interval", "allowed_networks[0]", "denied_networks[1]",
        ]);
    }

    async fn a_key_is_changed_field_by_field(server: Server) {
        let (made, key) = make(&server.client, full()).await.unwrap();
        let end = prost_types::Timestamp { seconds: made.expire_time.unwrap().seconds + 86_400, nanos: 0 };
        let wish = ApiKey { name: "other".into(), expire_time: Some(end), id: made.id.clone(), etag: made.etag.clone(), ..Default::default() };
        let changed = update(&server.client, wish.clone(), &["name", "expire_time", "metadata", "credits"]).await.unwrap();
        assert_eq!((changed.name.as_str(), changed.expire_time, &changed.metadata, &changed.credits), ("other", Some(end), &None, &None));
        assert_eq!((&changed.scopes, &changed.rate_limits), (&made.scopes, &made.rate_limits), "what is not named stays");
        assert_ne!(changed.etag, made.etag);
        let stale = update(&server.client, wish.clone(), &["name"]).await.unwrap_err();
        let details = status::expect(&stale, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(details.error_info().unwrap().metadata["current_etag"], changed.etag);

        assert!(works(&server, &key).await);
        let off = ApiKey { id: made.id.clone(), disabled: true, ..Default::default() };
        let disabled = update(&server.client, off, &["disabled"]).await.unwrap();
        assert!(!disabled.active && disabled.disabled && disabled.revoke_time.is_none());
        assert!(!works(&server, &key).await, "the next call is refused");
        let on = ApiKey { id: made.id.clone(), ..Default::default() };
        assert!(update(&server.client, on, &["disabled"]).await.unwrap().active);
        assert!(works(&server, &key).await, "and works again");

        let unknown = update(&server.client, ApiKey { id: made.id.clone(), ..Default::default() }, &["kind"]).await.unwrap_err();
        status::expect_violations(&unknown, &["update_mask"]);
        let never = update(&server.client, ApiKey { id: made.id.clone(), ..Default::default() }, &["expire_time"]).await.unwrap_err();
        status::expect_violations(&never, &["expire_time"]);
        let far = prost_types::Timestamp { seconds: made.create_time.unwrap().seconds + 366 * 86_400, nanos: 0 };
        let wish = ApiKey { id: made.id.clone(), expire_time: Some(far), ..Default::default() };
        status::expect_violations(&update(&server.client, wish.clone(), &["expire_time"]).await.unwrap_err(), &["expire_time"]);
        revoke(&server, &made.id).await;
        let wish = ApiKey { name: "late".into(), ..wish };
        let refused = update(&server.client, wish, &["name"]).await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "KEY_ENDED");
    }

    async fn nobody_gets_a_scope_by_a_change_or_a_replacement(server: Server) {
        let deputy = server.client_that_may(&["apikeys:write", "events:read", "tickets:*"]).await;
        let (strong, _) = make(&server.client, new_key(&["events:read", "events:write"])).await.unwrap();
        let (weak, _) = make(&server.client, new_key(&["events:read"])).await.unwrap();
        let with = |key: &ApiKey, scopes: &[&str]| ApiKey {
            scopes: scopes.iter().map(|&scope| scope.into()).collect(), id: key.id.clone(), ..Default::default()
        };
        refused_scope(update(&deputy, with(&weak, &["events:read", "admin:*"]), &["scopes"]).await, "admin:*");
        refused_scope(update(&deputy, with(&weak, &["events:*"]), &["scopes"]).await, "events:*");
        refused_scope(rotate(&deputy, &strong.id, None, 0).await, "events:write");
        for field in ["disabled", "allowed_networks", "rate_limits", "credits"] {
            refused_scope(update(&deputy, with(&strong, &[]), &[field]).await, "events:write");
        }
        assert_eq!(get(&server, &strong.id).await.etag, strong.etag, "nothing changed");
        let allowed = update(&deputy, with(&weak, &["tickets:read"]), &["scopes"]).await.unwrap();
        assert_eq!(allowed.scopes, ["tickets:read"]);
        let narrowed = update(&deputy, with(&strong, &["events:read"]), &["scopes"]).await.unwrap();
        assert_eq!(narrowed.scopes, ["events:read"], "less can be given by who holds the rest");
        let off = ApiKey { disabled: true, ..with(&strong, &[]) };
        assert!(update(&deputy, off, &["disabled"]).await.unwrap().disabled, "anybody may stop a key");
        rotate(&deputy, &weak.id, None, 0).await.unwrap();
    }

    async fn a_replaced_key_works_on_for_a_day(server: Server) {
        let (old, old_key) = make(&server.client, full()).await.unwrap();
        let (new, new_key, replaced) = rotate(&server.client, &old.id, None, 0).await.unwrap();
        assert_eq!((&new.replaces, &replaced.replaced_by, &replaced.id), (&old.id, &new.id, &old.id));
        assert_eq!((&new.scopes, &new.metadata, &new.rate_limits, &new.credits, new.kind()),
            (&old.scopes, &old.metadata, &old.rate_limits, &old.credits, old.kind()));
        let life = |key: &ApiKey| key.expire_time.unwrap().seconds - key.create_time.unwrap().seconds;
        assert_eq!((life(&new), life(&replaced)), (life(&old), 86_400));
        let again = rotate(&server.client, &old.id, None, 0).await.unwrap_err();
        let details = status::expect(&again, Code::FailedPrecondition, "KEY_REPLACED");
        assert_eq!(details.error_info().unwrap().metadata["replaced_by"], new.id);
        let longer = ApiKey { id: old.id.clone(), expire_time: old.expire_time, ..Default::default() };
        status::expect_violations(&update(&server.client, longer, &["expire_time"]).await.unwrap_err(), &["expire_time"]);
        server.advance(DAY - Duration::from_secs(1));
        assert!(works(&server, &old_key).await && works(&server, &new_key).await);
        server.advance(Duration::from_secs(1));
        assert!(!works(&server, &old_key).await && works(&server, &new_key).await);
    }

    async fn an_overlap_of_nothing_ends_the_old_key_and_none_makes_it_live_longer(server: Server) {
        let (old, old_key) = make(&server.client, new_key(&["events:read"])).await.unwrap();
        let (new, new_key, replaced) = rotate(&server.client, &old.id, Some(0), 7).await.unwrap();
        assert!(replaced.revoke_time.is_some() && !replaced.active);
        assert!(!works(&server, &old_key).await && works(&server, &new_key).await);
        assert_eq!(new.expire_time.unwrap().seconds - new.create_time.unwrap().seconds, 7 * 86_400);
        let (_, _, replaced) = rotate(&server.client, &new.id, Some(30 * 86_400), 0).await.unwrap();
        assert_eq!(replaced.expire_time, new.expire_time);
        let ended = rotate(&server.client, &old.id, None, 0).await.unwrap_err();
        status::expect(&ended, Code::FailedPrecondition, "KEY_ENDED");
    }

    async fn keys_are_announced(server: Server) {
        let (made, _) = make(&server.client, full()).await.unwrap();
        revoke(&server, &made.id).await;
        revoke(&server, &made.id).await;
        let [created] = events(&server, "key.created").await.try_into().unwrap();
        let data: serde_json::Value = serde_json::from_str(&created.data).unwrap();
        assert_eq!((data["key_id"].as_str(), data["external_id"].as_str()), (Some(made.id.as_str()), Some("user 17")));
        assert_eq!(created.subject, made.id);
        assert_eq!(events(&server, "key.revoked").await.len(), 1, "the second time changed nothing");
    }

    async fn the_end_of_a_key_is_announced_three_times(server: Server) {
        let (made, _) = make(&server.client, CreateApiKeyRequest { expires_in_days: 15, ..new_key(&["events:read"]) }).await.unwrap();
        server.advance(DAY / 2);
        let mut expected = Vec::new();
        for (wait, days) in [(1, 14), (7, 7), (6, 1)] {
            server.advance(DAY * wait);
            expected.push(days);
            eventually("the end is announced", async || {
                server.advance(Duration::ZERO);
                let found = events(&server, "key.expiring").await;
                let days: Vec<i64> = found.iter().map(|event| {
                    let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
                    assert_eq!(data["key_id"].as_str(), Some(made.id.as_str()));
                    data["days_left"].as_i64().unwrap()
                }).collect();
                (days == expected).then_some(())
            })
            .await;
        }
    }

    async fn the_settings_say_how_long_keys_live(server: Server) {
        let set = async |key: &str, days: f64| {
            let value = Value { kind: Some(Kind::NumberValue(days)) };
            let request = UpdateSettingsRequest { values: [(key.into(), value)].into(), ..Default::default() };
            server.client.settings().update_settings(request).await.unwrap();
        };
        set("apikeys.max_expiry_days", 30.0).await;
        let days = |days| CreateApiKeyRequest { expires_in_days: days, ..new_key(&["events:read"]) };
        status::expect_violations(&make(&server.client, days(31)).await.unwrap_err(), &["expires_in_days"]);
        let life = |key: &ApiKey| key.expire_time.unwrap().seconds - key.create_time.unwrap().seconds;
        assert_eq!(life(&make(&server.client, days(0)).await.unwrap().0), 30 * 86_400, "the default is never above the most");
        set("apikeys.default_expiry_days", 10.0).await;
        assert_eq!(life(&make(&server.client, days(0)).await.unwrap().0), 10 * 86_400);
    }

    async fn applications_register_scopes(server: Server) {
        let create = async |name: &str| {
            let request = CreateScopeRequest { name: name.into(), description: "Read orders".into() };
            server.client.api_keys().create_scope(request).await
        };
        assert!(create("orders:read").await.unwrap().into_inner().scope.unwrap().registered);
        for taken in ["orders:read", "events:read", "tickets:*"] {
            status::expect(&create(taken).await.unwrap_err(), Code::AlreadyExists, "ALREADY_EXISTS");
        }
        status::expect_violations(&create("orders").await.unwrap_err(), &["name"]);
        let listed = async || {
            let scopes = server.client.api_keys().list_scopes(ListScopesRequest {}).await.unwrap().into_inner().scopes;
            scopes.into_iter().filter(|scope| scope.registered).map(|scope| scope.name).collect::<Vec<_>>()
        };
        assert_eq!(listed().await, ["orders:read"]);
        let delete = async |name: &str| server.client.api_keys().delete_scope(DeleteScopeRequest { name: name.into() }).await;
        delete("orders:read").await.unwrap();
        assert!(listed().await.is_empty());
        status::expect(&delete("orders:read").await.unwrap_err(), Code::NotFound, "NOT_FOUND");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_announce_the_end_of_a_key_once() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    make(&one.client, CreateApiKeyRequest { expires_in_days: 7, ..new_key(&["events:read"]) }).await.unwrap();
    one.advance(DAY);
    eventually("the end is announced", async || {
        one.advance(Duration::ZERO);
        other.advance(Duration::ZERO);
        (!events(&one, "key.expiring").await.is_empty()).then_some(())
    })
    .await;
    for _ in 0..20 {
        one.advance(Duration::ZERO);
        other.advance(Duration::ZERO);
        crate::harness::breath().await;
    }
    assert_eq!(events(&one, "key.expiring").await.len(), 1, "of 14 and 7 days the one that is true");
    other.stop().await;
}
