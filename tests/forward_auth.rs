//! A real nginx asks before it lets a request through.  The configuration is the one of `docs/api-keys.md`.

use http::StatusCode;
use switchboard_client::apikey::v1::{CreateApiKeyRequest, RateLimit};

use crate::api_keys_change::{make, new_key};
use crate::harness::nginx::Nginx;
use crate::harness::on_both;
use crate::harness::receiver::Receiver;

/// The example of the documentation, with this test's addresses and key.
fn site(switchboard: &str, application: &str, key: &str) -> String {
    let text = include_str!("../docs/api-keys.md");
    let (_, rest) = text.split_once("```nginx\n").expect("the documentation has an example for nginx");
    let (example, _) = rest.split_once("```").expect("the example has an end");
    let example =
        example.replace("http://127.0.0.1:8080", switchboard).replace("http://127.0.0.1:3000", application);
    let example = example.replace("swb_the_key_of_the_proxy", key);
    assert!(example.contains(switchboard) && example.contains(application) && example.contains(key));
    example
}

on_both! {
    async fn nginx_lets_through_what_the_key_may_do(server: Server) {
        let application = Receiver::start().await;
        let (_, proxy) = make(&server.client, new_key(&["apikeys:verify"])).await.unwrap();
        let limit = RateLimit { name: "a".into(), limit: 2, period: Some(prost_types::Duration { seconds: 60, nanos: 0 }) };
        let request = CreateApiKeyRequest {
            external_id: "user 17".into(), rate_limits: vec![limit], allowed_networks: vec!["127.0.0.0/8".into()], ..new_key(&["orders:read"])
        };
        let (made, key) = make(&server.client, request).await.unwrap();
        let (_, weak) = make(&server.client, new_key(&["orders:write"])).await.unwrap();
        let (_, elsewhere) = make(&server.client, CreateApiKeyRequest { allowed_networks: vec!["192.0.2.0/24".into()], ..new_key(&["orders:read"]) }).await.unwrap();
        let application_url = format!("http://{}", application.address());
        let nginx = Nginx::start(&site(&server.url(), &application_url, &proxy)).await;

        let good = nginx.get("/orders/17?x=1", &[("x-api-key", &key)]).await;
        assert_eq!(good.status(), StatusCode::OK);
        let arrived = application.received();
        assert_eq!((arrived.len(), arrived[0].path.as_str(), arrived[0].query.as_deref()), (1, "/orders/17", Some("x=1")));
        assert_eq!(arrived[0].header("x-api-key-id"), Some(made.id.as_str()));
        assert_eq!(arrived[0].header("x-api-key-external-id"), Some("user 17"));
        assert_eq!(arrived[0].header("x-switchboard-key"), None, "the proxy's key stays with it");

        assert_eq!(nginx.get("/orders/17", &[]).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(nginx.get("/orders/17", &[("x-api-key", "swb_nope")]).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(nginx.get("/orders/17", &[("x-api-key", &weak)]).await.status(), StatusCode::FORBIDDEN);
        let spoofed = nginx.get("/orders/17", &[("x-api-key", &elsewhere), ("x-forwarded-for", "192.0.2.1"), ("x-real-ip", "192.0.2.1")]).await;
        assert_eq!(spoofed.status(), StatusCode::FORBIDDEN);
        let bearer = format!("Bearer {key}");
        assert_eq!(nginx.get("/orders/17", &[("authorization", &bearer)]).await.status(), StatusCode::OK);
        let limited = nginx.get("/orders/17", &[("x-api-key", &key)]).await;
        assert_eq!(limited.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(limited.headers()["retry-after"], "30");
        assert_eq!(application.received().len(), 2);
    }
}
