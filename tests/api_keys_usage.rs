//! What keys were used for: counted exactly, logged, put together with age, and what somebody should look at.

use std::time::Duration;

use serde_json::json;
use switchboard_client::apikey::v1::{
    ApiKey, ApiKeyLog, ApiKeyWarning, CreateApiKeyRequest, GetApiKeyRequest, GetApiKeyUsageRequest,
    GetApiKeyUsageResponse, ListApiKeyLogsRequest, RateLimit, VerifyApiKeyRequest,
};
use switchboard_client::event::v1::ListEventsRequest;
use tonic::Code;

use crate::api_keys_change::{make, new_key};
use crate::harness::server::{Backend, Server, event};
use crate::harness::{eventually, on_both, status};
use crate::settings::set;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn use_it(server: &Server, key: &str, method: &str, path: &str, from: &str, scope: &str) {
    let all_of = if scope.is_empty() { Vec::new() } else { vec![scope.to_owned()] };
    let request = VerifyApiKeyRequest {
        key: key.into(),
        method: method.into(),
        path: path.into(),
        client_ip: from.into(),
        all_of,
        ..Default::default()
    };
    server.client.api_keys().verify_api_key(request).await.unwrap();
}

async fn usage(server: &Server, id: &str) -> GetApiKeyUsageResponse {
    usage_from(server, id, None).await
}

async fn usage_from(server: &Server, id: &str, start: Option<i64>) -> GetApiKeyUsageResponse {
    let start_time = start.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 });
    let request = GetApiKeyUsageRequest { api_key_id: id.into(), start_time, end_time: None };
    server.client.api_keys().get_api_key_usage(request).await.unwrap().into_inner()
}

async fn logs(server: &Server, id: &str, errors_only: bool) -> Vec<ApiKeyLog> {
    let request = ListApiKeyLogsRequest { api_key_id: id.into(), errors_only, ..Default::default() };
    server.client.api_keys().list_api_key_logs(request).await.unwrap().into_inner().logs
}

async fn get(server: &Server, id: &str) -> ApiKey {
    let request = GetApiKeyRequest { api_key_id: id.into() };
    server.client.api_keys().get_api_key(request).await.unwrap().into_inner().api_key.unwrap()
}

async fn warnings(server: &Server, id: &str) -> Vec<ApiKeyWarning> {
    get(server, id).await.warnings().collect()
}

on_both! {
    async fn uses_are_counted_by_endpoint_and_status(server: Server) {
        let (made, key) = make(&server.client, new_key(&["events:read", "orders:read"])).await.unwrap();
        for number in 0..20 {
            use_it(&server, &key, "GET", &format!("/orders/{number}?page=2"), "192.0.2.7", "orders:read").await;
        }
        for _ in 0..5 {
            use_it(&server, &key, "DELETE", "/orders/17", "192.0.2.7", "orders:write").await;
        }
        let client = server.client_with(&key).await;
        for _ in 0..3 {
            client.events().list_events(ListEventsRequest::default()).await.unwrap();
        }
        let refused = client.events().publish_event(event("a.b", "{}")).await.unwrap_err();
        status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");

        let said = usage(&server, &made.id).await;
        assert_eq!((said.calls, said.errors), (29, 6));
        assert!((said.error_rate - 6.0 / 29.0).abs() < 1e-9);
        let statuses: Vec<_> = said.statuses.iter().map(|one| (one.status_class, one.calls)).collect();
        assert_eq!(statuses, [(2, 23), (4, 6)]);
        let endpoints: Vec<_> = said.endpoints.iter().map(|one| (one.method.as_str(), one.endpoint.as_str(), one.calls, one.errors)).collect();
        assert_eq!(endpoints, [
            ("GET", "/orders/{id}", 20, 0),
            ("DELETE", "/orders/{id}", 5, 5),
            ("POST", "/switchboard.event.v1.EventService/ListEvents", 3, 0),
            ("POST", "/switchboard.event.v1.EventService/PublishEvent", 1, 1),
        ]);
        let micros = |duration: Option<prost_types::Duration>| duration.unwrap().nanos + duration.unwrap().seconds as i32;
        assert!(micros(said.p50_duration) > 0 && said.p99_duration.unwrap().seconds < 10);
        assert!(said.last_use_time.is_some() && said.last_use_time == get(&server, &made.id).await.last_use_time);
        assert_eq!(said.dropped_logs, 0);

        let log = logs(&server, &made.id, false).await;
        assert_eq!(log.len(), 29);
        let own = &log[0];
        assert_eq!((own.endpoint.as_str(), own.status, own.code.as_str(), own.ip_address.as_str()),
            ("/switchboard.event.v1.EventService/PublishEvent", 403, "PERMISSION_DENIED", "127.0.0.1"));
        let errors = logs(&server, &made.id, true).await;
        assert_eq!(errors.len(), 6);
        let verified = &errors[1];
        assert_eq!((verified.method.as_str(), verified.endpoint.as_str(), verified.code.as_str(), verified.ip_address.as_str()),
            ("DELETE", "/orders/17", "SCOPE_MISSING", "192.0.2.7"));
        assert!(log.iter().all(|one| !one.endpoint.contains('?')), "a query may have secrets");
    }

    async fn the_keys_with_the_most_uses_are_told(server: Server) {
        let mut made = Vec::new();
        for uses in [3, 7, 5] {
            let (api_key, key) = make(&server.client, new_key(&["orders:read"])).await.unwrap();
            for _ in 0..uses {
                use_it(&server, &key, "GET", "/orders", "", "").await;
            }
            made.push(api_key.id);
        }
        let said = usage(&server, "").await;
        let top: Vec<_> = said.top_keys.iter().filter(|one| made.contains(&one.api_key_id)).collect();
        let order: Vec<_> = top.iter().map(|one| (&one.api_key_id, one.calls)).collect();
        assert_eq!(order, [(&made[1], 7), (&made[2], 5), (&made[0], 3)]);
        assert!(said.calls >= 15 && said.top_keys.len() == 4, "and the admin's own");
        let request = GetApiKeyUsageRequest { api_key_id: "key_nope".into(), ..Default::default() };
        let unknown = server.client.api_keys().get_api_key_usage(request).await.unwrap_err();
        status::expect(&unknown, Code::NotFound, "NOT_FOUND");
    }

    async fn counts_grow_old_and_stay_exact(server: Server) {
        let (made, key) = make(&server.client, CreateApiKeyRequest { expires_in_days: 365, ..new_key(&["orders:read"]) }).await.unwrap();
        let begin = made.create_time.unwrap().seconds;
        for _ in 0..4 {
            for _ in 0..3 {
                use_it(&server, &key, "GET", "/orders", "", "").await;
            }
            server.advance(Duration::from_secs(60 * 40));
        }
        let all = async || usage_from(&server, &made.id, Some(begin)).await;
        assert_eq!(all().await.calls, 12);
        let first = all().await.last_use_time;
        for wait in [2, 40, 300] {
            server.advance(DAY * wait);
            assert_eq!(all().await.calls, 12);
        }
        eventually("the log is forgotten", async || {
            server.advance(Duration::ZERO);
            logs(&server, &made.id, false).await.is_empty().then_some(())
        })
        .await;
        let said = all().await;
        assert_eq!((said.calls, said.last_use_time, said.statuses[0].calls), (12, first, 12));
        assert!(said.p50_duration.unwrap().nanos > 0);
        assert_eq!(usage(&server, &made.id).await.calls, 0, "in the last day there were none");
    }

    async fn the_settings_say_how_long_uses_are_kept(server: Server) {
        set(&server.client, json!({"apikeys.log_days": 2, "apikeys.usage_days": 40})).await;
        let (made, key) = make(&server.client, CreateApiKeyRequest { expires_in_days: 365, ..new_key(&["orders:read"]) }).await.unwrap();
        let begin = made.create_time.unwrap().seconds;
        use_it(&server, &key, "GET", "/orders", "", "").await;
        let calls = async || usage_from(&server, &made.id, Some(begin)).await.calls;
        assert_eq!((calls().await, logs(&server, &made.id, false).await.len()), (1, 1));
        server.advance(DAY * 3);
        eventually("the log is forgotten", async || {
            server.advance(Duration::ZERO);
            logs(&server, &made.id, false).await.is_empty().then_some(())
        })
        .await;
        assert_eq!(calls().await, 1);
        server.advance(DAY * 40);
        eventually("and then the count", async || {
            server.advance(Duration::ZERO);
            (calls().await == 0).then_some(())
        })
        .await;
    }

    async fn a_restart_loses_no_use(server: Server) {
        let (made, key) = make(&server.client, new_key(&["orders:read"])).await.unwrap();
        for _ in 0..50 {
            use_it(&server, &key, "GET", "/orders", "", "").await;
        }
        let server = server.restart().await;
        assert_eq!((usage(&server, &made.id).await.calls, logs(&server, &made.id, false).await.len()), (50, 50));
    }

    async fn what_somebody_should_look_at_is_told(server: Server) {
        let of = |owner: &str| CreateApiKeyRequest { external_id: owner.into(), expires_in_days: 365, ..new_key(&["orders:read"]) };
        let (calm, calm_key) = make(&server.client, of("jo")).await.unwrap();
        assert!(warnings(&server, &calm.id).await.is_empty());
        let mut last = String::new();
        for number in 0..11 {
            last = make(&server.client, of("sam")).await.unwrap().0.id;
            let expected: &[ApiKeyWarning] = if number < 10 { &[] } else { &[ApiKeyWarning::TooManyKeys] };
            assert_eq!(warnings(&server, &last).await, expected, "{number}");
        }
        assert_eq!(warnings(&server, &last).await, [ApiKeyWarning::TooManyKeys]);

        use_it(&server, &calm_key, "GET", "/orders", "192.0.2.7", "").await;
        usage(&server, &calm.id).await;
        assert!(warnings(&server, &calm.id).await.is_empty(), "the first network is none that is new");
        server.advance(DAY * 2);
        use_it(&server, &calm_key, "GET", "/orders", "192.0.2.200", "").await;
        usage(&server, &calm.id).await;
        assert!(warnings(&server, &calm.id).await.is_empty(), "the same network");
        use_it(&server, &calm_key, "GET", "/orders", "198.51.100.7", "").await;
        usage(&server, &calm.id).await;
        assert_eq!(warnings(&server, &calm.id).await, [ApiKeyWarning::NewNetwork]);
        server.advance(DAY * 2);
        for _ in 0..20 {
            use_it(&server, &calm_key, "GET", "/orders", "198.51.100.7", "orders:write").await;
        }
        usage(&server, &calm.id).await;
        assert_eq!(warnings(&server, &calm.id).await, [ApiKeyWarning::ErrorBurst]);
        server.advance(DAY * 30);
        assert_eq!(warnings(&server, &calm.id).await, [ApiKeyWarning::Unused]);
        use_it(&server, &calm_key, "GET", "/orders", "198.51.100.7", "").await;
        usage(&server, &calm.id).await;
        assert!(warnings(&server, &calm.id).await.is_empty());
    }

    async fn a_key_that_is_used_too_often_is_seen_in_its_usage(server: Server) {
        let limit = RateLimit { name: "a".into(), limit: 1, period: Some(prost_types::Duration { seconds: 60, nanos: 0 }) };
        let (made, key) = make(&server.client, CreateApiKeyRequest { rate_limits: vec![limit], ..new_key(&["events:read"]) }).await.unwrap();
        let client = server.client_with(&key).await;
        for _ in 0..4 {
            let _ = client.events().list_events(ListEventsRequest::default()).await;
        }
        let said = usage(&server, &made.id).await;
        assert_eq!((said.calls, said.errors), (4, 3));
        assert_eq!(logs(&server, &made.id, true).await[0].status, 429);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_count_into_the_same_rows() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let (made, key) = make(&one.client, new_key(&["orders:read"])).await.unwrap();
    let (first, second) = tokio::join!(
        async {
            for _ in 0..100 {
                use_it(&one, &key, "GET", "/orders", "192.0.2.1", "").await;
            }
        },
        async {
            for _ in 0..100 {
                use_it(&other, &key, "GET", "/orders", "192.0.2.1", "").await;
            }
        }
    );
    let ((), ()) = (first, second);
    eventually("both have written", async || (usage(&one, &made.id).await.calls == 200).then_some(())).await;
    other.stop().await;
}
