//! Requests that go out through an HTTP proxy.

use std::time::Duration;

use serde_json::json;
use switchboard::config::Config;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::webhook::v1::Webhook;

use crate::deliveries::until;
use crate::harness::proxy::Proxy;
use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::tls::{Authority, TlsReceiver};
use crate::harness::tools::free_port;
use crate::harness::{SOON, on_both, status};
use crate::settings::{change, set, try_set};
use crate::webhook_trust::{create, endpoint, probe};

/// The receivers' address alone: the proxy's is not allowed.
fn only_the_receivers(config: &mut Config) {
    config.allow_network = vec!["127.0.0.1/32".parse().unwrap()];
}

on_both! {
    async fn a_proxy_is_asked_for_the_address_that_was_checked(server: Server = only_the_receivers) {
        let proxy = Proxy::start("127.0.0.3", None).await;
        let receiver = Receiver::start().await;
        let port = receiver.address().port();
        let webhook = create(&server.client, endpoint(&format!("http://localhost:{port}/"))).await.unwrap();
        set(&server.client, json!({"webhook.proxy_url": proxy.url()})).await;
        server.publish("a.b", "{}").await;
        let received = receiver.wait_for(1, SOON).await;
        assert_eq!(received[0].header("host"), Some(format!("localhost:{port}").as_str()));
        assert_eq!(proxy.wait_for(1).await, [format!("127.0.0.1:{port}")]);
        // A tunnel is used again.
        assert_eq!(probe(&server.client, &webhook.id).await, "");
        assert_eq!((proxy.asked().len(), receiver.connections()), (1, 1));

        let authority = Authority::new().await;
        for protocols in [&["http/1.1"][..], &["h2", "http/1.1"]] {
            let receiver = TlsReceiver::start(&authority.server().await, protocols, None).await;
            let webhook = endpoint(&receiver.url("/"));
            let strange = create(&server.client, webhook.clone()).await.unwrap();
            let refused = probe(&server.client, &strange.id).await;
            assert!(refused.contains("ca_certificates"), "{refused}");
            let trusted = Webhook { ca_certificates: authority.certificate.clone(), ..webhook };
            let trusted = create(&server.client, trusted).await.unwrap();
            let asked = proxy.asked().len();
            assert_eq!(probe(&server.client, &trusted.id).await, "");
            let destination = format!("127.0.0.1:{}", receiver.address().port());
            assert_eq!(proxy.wait_for(asked + 1).await.last(), Some(&destination));
        }
    }

    async fn the_setting_has_effect_at_once(server: Server) {
        let (first, second) = (Proxy::start("127.0.0.1", None).await, Proxy::start("127.0.0.1", None).await);
        let receiver = Receiver::start().await;
        let webhook = create(&server.client, endpoint(&receiver.url("/"))).await.unwrap();
        let next = async |url: &str| {
            set(&server.client, json!({"webhook.proxy_url": url})).await;
            assert_eq!(probe(&server.client, &webhook.id).await, "");
            receiver.received().last().unwrap().connection
        };
        // No connection of before is used again, although each could be.
        assert_eq!(next("").await, 1);
        assert_eq!(next(&first.url()).await, 2);
        assert_eq!(next(&second.url()).await, 3);
        assert_eq!(next("").await, 4);
        assert_eq!(next(&first.url()).await, 5);
        assert_eq!(next(&first.url()).await, 5, "nothing has changed");
        assert_eq!((first.wait_for(2).await.len(), second.wait_for(1).await.len()), (2, 1));
        drop(first);
        let gone = probe(&server.client, &webhook.id).await;
        assert!(!gone.is_empty());
        assert_eq!(next("").await, 6);
    }

    async fn a_proxy_can_want_a_login(server: Server) {
        let proxy = Proxy::start("127.0.0.1", Some(("switchboard", "s3cret"))).await;
        let receiver = Receiver::start().await;
        let webhook = create(&server.client, endpoint(&receiver.url("/"))).await.unwrap();
        set(&server.client, json!({"webhook.proxy_url": proxy.url()})).await;
        let refused = probe(&server.client, &webhook.id).await;
        assert!(refused.contains("the proxy refused to connect: it answered 407"), "{refused}");
        let wrong = json!({"webhook.proxy_username": "switchboard", "webhook.proxy_password": "guessed"});
        set(&server.client, wrong).await;
        server.publish("a.b", "{}").await;
        let waiting = until(&server, &webhook.id, DeliveryState::Retrying, 1).await;
        assert!(waiting.last_error.contains("the proxy refused to connect: it answered 401"), "{waiting:?}");
        assert!(waiting.last_error.contains("webhook.proxy_password") && !waiting.last_error.contains("guessed"));
        set(&server.client, json!({"webhook.proxy_password": "s3cret"})).await;
        server.advance(Duration::from_secs(66));
        until(&server, &webhook.id, DeliveryState::Succeeded, 2).await;
        assert!(!crate::settings::in_database(&server, "s3cret").await);
        let server = server.restart().await;
        let asked = proxy.asked().len();
        assert_eq!(probe(&server.client, &webhook.id).await, "");
        proxy.wait_for(asked + 1).await;
    }

    async fn a_proxy_leads_nowhere_that_is_refused(server: Server = |config: &mut Config| config.allow_network.clear()) {
        let proxy = Proxy::start("127.0.0.1", None).await;
        let receiver = Receiver::start().await;
        set(&server.client, json!({"webhook.proxy_url": proxy.url()})).await;
        // What its name means is known only when it is connected to.
        let url = format!("http://localhost:{}/", receiver.address().port());
        let webhook = create(&server.client, endpoint(&url)).await.unwrap();
        let refused = probe(&server.client, &webhook.id).await;
        assert!(refused.contains("is not allowed as a destination"), "{refused}");
        let refused = create(&server.client, endpoint("http://10.0.0.1/")).await.unwrap_err();
        status::expect_violations(&refused, &["webhook.url"]);
        assert_eq!((proxy.asked().len(), receiver.connections()), (0, 0));
    }

    async fn what_a_proxy_can_not_do_is_told(server: Server) {
        let proxy = Proxy::start("127.0.0.1", None).await;
        let closed = free_port();
        let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let webhook = Webhook { timeout: second, ..endpoint(&format!("http://127.0.0.1:{closed}/")) };
        let webhook = create(&server.client, webhook).await.unwrap();
        let through = async |url: String| {
            set(&server.client, json!({"webhook.proxy_url": url})).await;
            probe(&server.client, &webhook.id).await
        };
        let refused = through(proxy.url()).await;
        assert!(refused.contains("the proxy refused to connect: it answered 5"), "{refused}");
        let unreachable = through(format!("http://127.0.0.1:{}", free_port())).await;
        assert!(unreachable.contains("the proxy can not be reached"), "{unreachable}");
        // One that accepts and says nothing: the endpoint's time is all that there is.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let late = through(format!("http://{}", silent.local_addr().unwrap())).await;
        assert_eq!(late, "no complete answer within 1 seconds");
        // Another server than a proxy.
        let receiver = Receiver::start().await;
        receiver.respond_with("", Behaviour::Status(404));
        let refused = through(receiver.url("")).await;
        assert!(refused.contains("the proxy refused to connect: it answered 404"), "{refused}");
    }

    async fn what_is_no_proxy_is_refused(server: Server) {
        for bad in ["https://proxy.example", "http://user:pass@proxy.example", "http://proxy.example/path", "proxy:3128"] {
            let refused = try_set(&server.client, change(&json!({"webhook.proxy_url": bad}))).await.unwrap_err();
            status::expect_violations(&refused, &["values[webhook.proxy_url]"]);
        }
        let refused = try_set(&server.client, change(&json!({"webhook.proxy_username": "a:b"}))).await.unwrap_err();
        status::expect_violations(&refused, &["values[webhook.proxy_username]"]);
    }
}
