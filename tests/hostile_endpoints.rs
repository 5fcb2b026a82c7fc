//! Endpoints that mean harm: what one can do to the client, and a thousand of them beside a hundred healthy ones.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use http::{Request, Response};
use http_body_util::{Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use switchboard::app::{App, Machine};
use switchboard::config::Config;
use switchboard::webhook::Failure;
use switchboard::webhook::client::{Answer, Client};
use switchboard::webhook::guard::{Guard, Lookup, SystemLookup};
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::webhook::v1::{
    CreateWebhookRequest, GetWebhookDeliveryRequest, ListWebhookDeliveriesRequest, Webhook, WebhookDelivery,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::hostile::certificate;
use crate::harness::hostile_http::{Attack, FORBIDDEN, HostileHttp, REBINDING};
use crate::harness::receiver::Receiver;
use crate::harness::server::{Server, event};
use crate::harness::{SOON, eventually, on_both, process, status};

const BODY_LIMIT: usize = 64 * 1024;
/// More than the system ever holds for a connection that nobody reads.
const HELD_BY_THE_SYSTEM: u64 = 32 * 1024 * 1024;

// --- One client -------------------------------------------------------------------------------------------------------

/// Answers a rebinding name with 127.0.0.1 once, and with the forbidden address ever after; everything else as the
/// system does.
#[derive(Default)]
struct Rebinding {
    seen: Mutex<HashMap<String, usize>>,
    system: SystemLookup,
}

impl Lookup for Rebinding {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        if !name.ends_with(REBINDING) {
            return self.system.lookup(name);
        }
        let mut seen = self.seen.lock().unwrap();
        let times = seen.entry(name).or_default();
        *times += 1;
        let address = if *times == 1 { [127, 0, 0, 1] } else { FORBIDDEN };
        async move { Ok(vec![SocketAddr::from((address, 0))]) }.boxed()
    }
}

fn only_one_address() -> Guard {
    Guard::new(vec!["127.0.0.1/32".parse().unwrap()])
}

fn client() -> Client {
    Client::trusting(only_one_address(), Arc::new(Rebinding::default()), RootCertStore::empty()).unwrap()
}

fn client_of(roots: &RootCertStore) -> Client {
    Client::trusting(only_one_address(), Arc::new(SystemLookup::default()), roots.clone()).unwrap()
}

async fn post(client: &Client, url: &str, deadline: Duration) -> Result<Answer, Failure> {
    let request = Request::post(url).body(Full::new(Bytes::from_static(b"{}"))).unwrap();
    client.send(request, deadline).await
}

#[tokio::test]
async fn each_attack_ends_as_it_should() {
    let (hostile, client) = (HostileHttp::start().await, client());
    let brief = Duration::from_secs(2);
    let strike = async |attack, deadline| post(&client, &hostile.url(attack, 1), deadline).await;

    for slow in [Attack::SlowHead, Attack::SlowBody, Attack::TlsStall] {
        let failure = strike(slow, brief).await.unwrap_err();
        let expected = Failure::Timeout("no complete answer within 2 seconds".into());
        assert_eq!(failure, expected, "{slow:?}");
    }
    for endless in [Attack::EndlessHeaders, Attack::EndlessInterim, Attack::EndlessTrailers] {
        let failure = strike(endless, SOON).await.unwrap_err();
        assert_eq!(failure.class(), "protocol", "{endless:?}: {failure}");
    }
    for long in [Attack::HugeBody, Attack::EndlessChunks] {
        let answer = strike(long, SOON).await.unwrap();
        assert!(answer.status.is_success());
        assert_eq!(answer.body, "x".repeat(BODY_LIMIT), "{long:?}");
        eventually("the connection is cut", async || {
            let taken = hostile.most_taken(long);
            (taken > 0).then(|| assert!(taken < HELD_BY_THE_SYSTEM, "{long:?}: {taken} bytes"))
        })
        .await;
    }
    let answer = strike(Attack::GzipBomb, SOON).await.unwrap();
    assert_eq!(answer.body.len(), hostile.bomb_size(), "it is kept as it came");
    let answer = strike(Attack::Redirect, SOON).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.len()), (301, 0));
    let failure = strike(Attack::Reset, SOON).await.unwrap_err();
    assert_eq!(failure.class(), "connection", "{failure}");

    let answer = strike(Attack::Rebinding, SOON).await.unwrap();
    assert_eq!(answer.remote.unwrap().ip().to_string(), "127.0.0.1");
    let failure = strike(Attack::Rebinding, SOON).await.unwrap_err();
    assert_eq!(failure, Failure::Refused("the address 127.0.0.2 is not allowed as a destination".into()));
    assert_eq!(hostile.forbidden_connections(), 0);
}

#[tokio::test]
async fn what_can_not_be_reached_has_a_class() {
    let client = client();
    let class = async |url: &str| post(&client, url, SOON).await.unwrap_err().class();
    assert_eq!(class("http://10.0.0.1/").await, "refused");
    assert_eq!(class("http://127.0.0.1:1/").await, "connection", "an allowed address may use any port");
    assert_eq!(class("http://no.such.name.invalid:25/").await, "refused");
    assert_eq!(class("http://no.such.name.invalid/").await, "resolve");
    let port = crate::harness::tools::free_port();
    assert_eq!(class(&format!("http://127.0.0.1:{port}/")).await, "connection");
    let receiver = Receiver::start().await;
    assert_eq!(class(&format!("https://{}/", receiver.address())).await, "tls", "it does not speak TLS");
}

/// A server on loopback that speaks TLS as `localhost`, and answers with the version of HTTP that it was asked in; at
/// `/endless` again and again.
struct TlsServer {
    url: String,
    roots: RootCertStore,
    connections: Arc<AtomicUsize>,
    accepting: tokio::task::AbortHandle,
}

impl TlsServer {
    async fn start(protocols: &[&str]) -> Self {
        let (config, pem) = certificate("localhost").await;
        let mut config = (*config).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                let acceptor = acceptor.clone();
                serving.spawn(async move {
                    // A client that does not trust it goes away.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let answer = service_fn(async |request: Request<Incoming>| {
                        let version = format!("{:?}", request.version());
                        let pieces = if request.uri().path() == "/endless" {
                            // Of pieces much smaller, HTTP/2 takes only so many.
                            stream::repeat(Bytes::from(version.repeat(1024))).boxed()
                        } else {
                            stream::iter([Bytes::from(version)]).boxed()
                        };
                        let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
                        Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Self { url, roots, connections, accepting: accepting.abort_handle() }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_over_tls_and_connections_are_reused() {
    for (protocols, version) in
        [(&["h2", "http/1.1"][..], "HTTP/2.0"), (&["http/1.1"], "HTTP/1.1"), (&[], "HTTP/1.1")]
    {
        let server = TlsServer::start(protocols).await;
        let client = client_of(&server.roots);
        for _ in 0..10 {
            let answer = post(&client, &server.url, SOON).await.unwrap();
            assert_eq!(answer.body, version);
            assert_eq!(answer.remote.unwrap().ip().to_string(), "127.0.0.1");
        }
        assert_eq!(server.connections.load(Ordering::Relaxed), 1, "{version}");

        let answer = post(&client, &format!("{}endless", server.url), SOON).await.unwrap();
        assert_eq!(answer.body.len(), BODY_LIMIT);
        post(&client, &server.url, SOON).await.unwrap();
        // Over HTTP/1.1 only a closed connection ends what was not read; over HTTP/2 it is one stream of many.
        let expected = if version == "HTTP/2.0" { 1 } else { 2 };
        assert_eq!(server.connections.load(Ordering::Relaxed), expected, "{version}");

        let stranger = client_of(&RootCertStore::empty());
        let failure = post(&stranger, &server.url, SOON).await.unwrap_err();
        assert_eq!(failure.class(), "tls", "{failure}");
    }
}

// --- What may be allowed ----------------------------------------------------------------------------------------------

fn only_localhost(config: &mut Config) {
    config.allow_network.clear();
    config.allow_host = vec!["LocalHost".into(), "*.corp.example".into()];
}

async fn try_webhook(server: &Server, url: &str) -> Result<Webhook, tonic::Status> {
    let webhook =
        Webhook { name: "n".into(), url: url.into(), event_types: vec!["*".into()], ..Default::default() };
    let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
    Ok(server.client.webhooks().create_webhook(request).await?.into_inner().webhook.unwrap())
}

on_both! {
    async fn an_allowed_host_is_reached_and_nothing_else_on_its_network(server: Server = only_localhost) {
        let receiver = Receiver::start().await;
        let port = receiver.address().port();
        let literal = try_webhook(&server, &receiver.url("/")).await.unwrap_err();
        status::expect_violations(&literal, &["webhook.url"]);
        try_webhook(&server, &format!("http://localhost:{port}/named")).await.unwrap();
        server.publish("a.b", "{}").await;
        assert_eq!(receiver.wait_for(1, SOON).await[0].path, "/named");
    }

    async fn ports_of_other_protocols_are_refused_when_a_url_is_saved(server: Server = only_localhost) {
        for url in ["http://example.com:25/", "https://example.com:22/", "http://example.com:0/", "http://corp.example:6667/"] {
            let refused = try_webhook(&server, url).await.unwrap_err();
            status::expect_violations(&refused, &["webhook.url"]);
            assert!(refused.message().contains("not valid"), "{}", refused.message());
        }
        for url in ["http://hooks.corp.example:6667/", "https://example.com:8443/", "http://example.com:81/"] {
            try_webhook(&server, url).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_server_does_not_start_with_hosts_that_are_no_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::local(folder.path().to_owned());
    config.allow_host = vec!["10.0.0.1".into(), "good.example".into(), "*".into()];
    let error = App::start(config).await.err().expect("it refuses to start");
    assert_eq!(error.violations().len(), 2, "{error}");
}

// --- A crowd ----------------------------------------------------------------------------------------------------------

const EACH: usize = 100;
const HEALTHY: usize = 100;
/// Events for the healthy endpoints alone, while the others are at their worst.
const EVENTS: usize = 20;
const MEMORY: usize = 64 * 1024;
/// The deadline of a request, and as much again for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const FOLDER: &str = "SWITCHBOARD_TEST_SERVER_FOLDER";
const READY: &str = "the server is ready: ";

/// Not a test by itself: the body of the process that [`a_thousand_hostile_endpoints_harm_nobody`] starts, so that its
/// memory is its own while its names change their answers.  It ends with its input.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_process() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let mut config = Config::local(folder.into());
    config.allow_network = vec!["127.0.0.1/32".parse().unwrap()];
    let machine = Machine { lookup: Arc::new(Rebinding::default()), ..Machine::default() };
    let app = App::start_on(config, machine).await.unwrap();
    let key = app.new_admin_key().unwrap().reveal().to_owned();
    writeln!(io::stdout(), "\n{READY}http://{} {key}", app.address()).unwrap();
    tokio::io::stdin().read_to_end(&mut Vec::new()).await.unwrap();
    app.stop().await;
}

struct ServerProcess {
    child: Child,
    client: switchboard_client::Client,
}

impl ServerProcess {
    async fn start(folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "hostile_endpoints::server_process", "--nocapture"])
            .env(FOLDER, folder)
            // The binary has an allocator of its own; the system's keeps memory for every thread that ever asked.
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reading = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(ready) = line.strip_prefix(READY) {
                    return ready.to_owned();
                }
            }
            panic!("the server did not become ready");
        };
        let ready = tokio::time::timeout(SOON, reading).await.expect("the server starts");
        let (url, key) = ready.split_once(' ').unwrap();
        let client = switchboard_client::Client::connect(url.to_owned(), key).await.unwrap();
        // After a minute the test runner in the process says so, and would end with its output.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, client }
    }

    fn id(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    async fn webhook(&self, url: String, event_types: &[&str]) -> String {
        let webhook = Webhook {
            name: "one of many".into(),
            url,
            event_types: event_types.iter().map(|&event_type| event_type.into()).collect(),
            ..Default::default()
        };
        let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
        let answer = self.client.webhooks().create_webhook(request).await.unwrap();
        answer.into_inner().webhook.unwrap().id
    }

    async fn publish(&self, event_type: &str) -> String {
        let answer = self.client.events().publish_event(event(event_type, "{}")).await.unwrap();
        answer.into_inner().event_id
    }

    async fn deliveries(&self, event_id: &str) -> Vec<WebhookDelivery> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListWebhookDeliveriesRequest {
                event_id: event_id.into(),
                page_size: 500,
                page_token,
                ..Default::default()
            };
            let page = self.client.webhooks().list_webhook_deliveries(request).await.unwrap().into_inner();
            all.extend(page.deliveries);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }

    /// Waits until every delivery of an event has been attempted to its end.
    async fn attempted(&self, event_id: &str) -> Vec<WebhookDelivery> {
        let waiting = async {
            let mut pause = tokio::time::interval(Duration::from_millis(500));
            loop {
                pause.tick().await;
                let all = self.deliveries(event_id).await;
                if all.iter().all(|one| one.attempts > 0) {
                    return all;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("every attempt ends")
    }
}

/// What became of the deliveries to a kind of endpoint, and how often.
type Ends = BTreeMap<(DeliveryState, i32, String), usize>;

fn ends<'a>(deliveries: impl Iterator<Item = &'a WebhookDelivery>) -> Ends {
    let mut ends = Ends::new();
    for delivery in deliveries {
        // On a slow machine the next attempt may have begun.
        let state = match delivery.state() {
            DeliveryState::Pending | DeliveryState::Sending => DeliveryState::Retrying,
            state => state,
        };
        *ends.entry((state, delivery.response_status, delivery.last_error.clone())).or_default() += 1;
    }
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hostile_endpoints_harm_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (hostile, healthy) = (HostileHttp::start().await, Receiver::start().await);
    let server = ServerProcess::start(folder.path()).await;
    let victims = Attack::KINDS.into_iter().flat_map(|kind| (0..EACH).map(move |number| (kind, number)));
    let creating = victims.map(async |(kind, number)| {
        let again =
            if kind == Attack::Rebinding { &["crowd.first", "crowd.again"][..] } else { &["crowd.first"] };
        (server.webhook(hostile.url(kind, number), again).await, kind)
    });
    let kinds: HashMap<_, _> = stream::iter(creating).buffer_unordered(16).collect().await;
    let creating =
        (0..HEALTHY).map(|number| server.webhook(healthy.url(&format!("/{number}")), &["crowd.*"]));
    stream::iter(creating).buffer_unordered(16).collect::<Vec<_>>().await;
    server.publish("crowd.healthy").await;
    healthy.wait_for(HEALTHY, SOON).await;
    process::forget_peak(server.id());
    let before = process::memory(server.id(), "VmRSS");

    let first = server.publish("crowd.first").await;
    for _ in 0..EVENTS {
        server.publish("crowd.healthy").await;
    }
    // The slow ones hold their requests for longer than this waits.
    healthy.wait_for(HEALTHY * (2 + EVENTS), SOON).await;
    let of = |deliveries: &[WebhookDelivery], kind| {
        ends(deliveries.iter().filter(|one| kinds.get(&one.webhook_id) == Some(&kind)))
    };
    let all_of = |state, status, error: &str| Ends::from([((state, status, error.to_owned()), EACH)]);
    let succeeded = all_of(DeliveryState::Succeeded, 200, "");
    eventually("the names have led to where they may", async || {
        (of(&server.deliveries(&first).await, Attack::Rebinding) == succeeded).then_some(())
    })
    .await;
    let again = server.publish("crowd.again").await;
    healthy.wait_for(HEALTHY * (3 + EVENTS), SOON).await;
    let (first, again) = (server.attempted(&first).await, server.attempted(&again).await);
    let growth = process::memory(server.id(), "VmHWM").saturating_sub(before);

    assert_eq!((first.len(), again.len()), (kinds.len() + HEALTHY, EACH + HEALTHY));
    for kind in [Attack::HugeBody, Attack::EndlessChunks, Attack::GzipBomb, Attack::Rebinding] {
        assert_eq!(of(&first, kind), succeeded, "{kind:?}");
    }
    let late = all_of(DeliveryState::Retrying, 0, "no complete answer within 30 seconds");
    for kind in [Attack::SlowHead, Attack::SlowBody, Attack::TlsStall] {
        assert_eq!(of(&first, kind), late, "{kind:?}");
    }
    for (kind, text) in [(Attack::EndlessHeaders, "too large"), (Attack::Reset, "onnection")] {
        for ((state, status, error), _) in of(&first, kind) {
            assert_eq!((state, status), (DeliveryState::Retrying, 0), "{kind:?}: {error}");
            assert!(error.contains(text), "{kind:?}: {error}");
        }
    }
    for ((state, status, error), _) in of(&first, Attack::Redirect) {
        assert_eq!(state, DeliveryState::Failed, "{error}");
        assert!((300..400).contains(&status) && error.contains("redirects are not followed"), "{error}");
    }
    let refused = all_of(DeliveryState::Failed, 0, "the address 127.0.0.2 is not allowed as a destination");
    assert_eq!(of(&again, Attack::Rebinding), refused);
    assert_eq!(hostile.forbidden_connections(), 0, "nothing connects to what is refused");
    assert!(hostile.connections_in_all() >= 10 * EACH, "every endpoint was connected to");

    let mut bodies = 0;
    for delivery in first.iter().filter(|one| kinds.get(&one.webhook_id) == Some(&Attack::GzipBomb)).take(3) {
        let request = GetWebhookDeliveryRequest { delivery_id: delivery.id.clone() };
        let answer = server.client.webhooks().get_webhook_delivery(request).await.unwrap().into_inner();
        let body = &answer.attempts[0].response_body;
        // What is not UTF-8 is replaced, three bytes for one.
        assert!(!body.is_empty() && body.len() <= 3 * hostile.bomb_size(), "it stays compressed");
        bodies += 1;
    }
    assert_eq!(bodies, 3);
    for number in 0..HEALTHY {
        assert_eq!(healthy.received_on(&format!("/{number}")).len(), 3 + EVENTS, "each event once");
    }
    assert!(growth <= MEMORY, "the memory grew by {growth} KiB");
}
