//! A real browser: a page of another origin subscribes through the TypeScript client, over gRPC-web, and stays up to date.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard_client::apikey::v1::CreateApiKeyRequest;

use crate::harness::chromium::{Chromium, Tab};
use crate::harness::pages::{Pages, build, package};
use crate::harness::server::{Backend, Server};
use crate::harness::tls::Authority;
use crate::harness::tools::{free_port, run_within, tool};
use crate::port::get;

/// How long a page may take: a drain spreads its streams over some time, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);
const SUBSCRIBE: &str = "/switchboard.notification.v1.NotificationService/Subscribe";

/// Waits until an expression in a page has this value.
async fn until(tab: &Tab, expression: &str, wanted: Value) {
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    let mut last = Value::Null;
    let waiting = async {
        while last != wanted {
            pause.tick().await;
            last = tab.evaluate(expression).await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        let page = tab.evaluate("JSON.stringify([window.page?.live.status, page.shown, page.errors])").await;
        panic!("{expression} is {last} and not {wanted}: {page}");
    }
}

async fn key_for_pages(server: &Server) -> String {
    let request = CreateApiKeyRequest {
        name: "page".into(),
        scopes: vec!["notifications:read".into(), "events:read".into()],
        ..Default::default()
    };
    server.client.api_keys().create_api_key(request).await.unwrap().into_inner().key
}

async fn publish(server: &Server, numbers: std::ops::Range<u32>) {
    for n in numbers {
        server.publish("page.told", &json!({ "n": n }).to_string()).await;
        server.publish("page.not_told", &json!({ "n": "wrong" }).to_string()).await;
    }
}

fn numbers(range: std::ops::Range<u32>) -> Value {
    range.collect()
}

/// How many streams the server counts.
async fn streams(server: &Server) -> String {
    let metrics = get(server, "/metrics").await;
    let text = String::from_utf8(metrics.into_body().to_vec()).unwrap();
    let count = text.lines().find_map(|line| line.strip_prefix("switchboard_live_subscribers "));
    count.expect("the streams are counted").to_owned()
}

/// The whole life of a page, over the protocol that the browser and the server agree on.
async fn a_page_lives(backend: Backend, protocol: &str, authority: Option<Authority>) {
    let (pages, strangers) = (Pages::start().await, Pages::start().await);
    let identity = match &authority {
        Some(authority) => Some((authority, authority.server().await)),
        None => None,
    };
    // The same port after a restart.
    let port = free_port();
    let server = Server::start_with(backend, |config| {
        config.listen.set_port(port);
        config.allow_origin = vec![pages.origin().parse().unwrap()];
        config.tls = identity.as_ref().map(|(authority, identity)| identity.files(authority, &config.data));
    })
    .await;
    let key = key_for_pages(&server).await;
    let query = format!("/?server={}&key={key}&user=jo&type=page.told", server.url());
    let browser = Chromium::start().await;

    // Events arrive, and the page shows how its stream is.
    let first = browser.open(&format!("{}{query}", pages.origin())).await;
    until(&first, "window.page?.live.status.state", json!("connected")).await;
    publish(&server, 0..5).await;
    until(&first, "page.events", numbers(0..5)).await;
    until(&first, "document.getElementById('state').textContent", json!("connected")).await;
    until(&first, "document.querySelectorAll('#events li').length", json!(5)).await;
    let protocols = first.protocols(SUBSCRIBE);
    assert!(!protocols.is_empty() && protocols.iter().all(|used| used == protocol), "{protocols:?}");

    // Other calls go the same way, and so do refusals.
    until(
        &first,
        "page.client.events.listEvents({ pageSize: 3 }).then(({ events }) => events.length)",
        json!(3),
    )
    .await;
    let missing = "page.client.events.getEvent({ eventId: 'evt_' }).catch((error) => [error.code, error.details.length > 0])";
    let refused = first.evaluate(missing).await;
    assert!(refused[0] == json!(3) || refused[0] == json!(5), "{refused}");
    assert_eq!(refused[1], json!(true), "{refused}");

    // The server restarts, and something happens before the page is back.
    let server = server.restart().await;
    publish(&server, 5..10).await;
    until(&first, "page.events", numbers(0..10)).await;
    until(&first, "page.resyncs", json!([])).await;
    let states = first.evaluate("page.shown").await;
    let states: Vec<&str> = states.as_array().unwrap().iter().map(|state| state.as_str().unwrap()).collect();
    assert_eq!(states[..3], ["connecting", "connected", "disconnected"], "{states:?}");
    assert_eq!(states[states.len() - 2..], ["connecting", "connected"], "{states:?}");

    // A second tab shares the stream, and takes it over when the first one is closed.
    let second = browser.open(&format!("{}{query}", pages.origin())).await;
    until(&second, "window.page?.live.status.state", json!("connected")).await;
    publish(&server, 10..15).await;
    until(&second, "page.events", numbers(10..15)).await;
    until(&first, "page.events", numbers(0..15)).await;
    if authority.is_none() {
        assert_eq!(streams(&server).await, "1");
    }
    assert_eq!(second.protocols(SUBSCRIBE), [""; 0], "it has no stream of its own");
    first.close().await;
    publish(&server, 15..20).await;
    until(&second, "page.events", numbers(10..20)).await;
    until(&second, "page.resyncs", json!([])).await;
    assert!(!second.protocols(SUBSCRIBE).is_empty(), "it has the stream now");

    // A page of an origin that may not call learns nothing, and says so.
    let stranger = browser.open(&format!("{}{query}", strangers.origin())).await;
    until(&stranger, "window.page?.live.status.reason", json!("lost")).await;
    publish(&server, 20..21).await;
    until(&second, "page.events", numbers(10..21)).await;
    until(&stranger, "page.events", json!([])).await;

    browser.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_lives_over_http1_in_the_clear() {
    a_page_lives(Backend::Sqlite, "http/1.1", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_lives_over_h2_with_tls() {
    a_page_lives(Backend::Postgres, "h2", Some(Authority::new().await)).await;
}

/// The package's own tests, with the freshness of its generated code.
#[tokio::test]
async fn the_typescript_client_passes_its_tests() {
    build().await;
    let folder = package().display().to_string();
    let output = run_within(PATIENCE, tool("npm"), ["--prefix", &folder, "test"], b"").await;
    let said = output.expect_success();
    assert!(said.contains("# fail 0"), "{said}");
}
