//! A real webhook receiver: an HTTP server on loopback that records every request and answers as a test tells it to.
//!
//! It speaks HTTP/1.1 and HTTP/2 without TLS (by prior knowledge), whichever the client begins with.
#![allow(dead_code, reason = "a shared harness offers more than each test uses")]
#![allow(clippy::disallowed_methods, reason = "a measuring instrument reads the real clock")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// A request as it arrived, with its whole body.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// What followed the question mark.
    pub query: Option<String>,
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// All its headers.
    pub headers: HeaderMap,
    /// All its body, byte for byte.
    pub body: Bytes,
    /// When its last byte had been read.
    pub at: Instant,
    /// Its place among all requests of this receiver; the first is 1.
    pub number: usize,
    /// Which of the receiver's connections carried it; the first is 1.
    pub connection: usize,
}

impl Received {
    /// A header's value as text; `None` when it is missing or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body read as JSON.
    ///
    /// # Panics
    /// When it is not JSON, with what it is.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("the body is not JSON ({error}): {:?}", self.body))
    }
}

/// How a path answers.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// With this status.
    Status(u16),
    /// With one status after the other, a request each; the last one repeats.
    StatusThen(Vec<u16>),
    /// With 503 for this many of a hundred requests, spread by a sequence that the seed begins, and with 200 for the others.
    Unsteady { percent: u64, seed: u64 },
    /// With a status and these headers.
    Headers(u16, Vec<(&'static str, String)>),
    /// Not before [`Receiver::release`], and with 200 then.
    Hang,
    /// With 200, this long after the request was read.
    Delay(Duration),
    /// With 200 and a body of so many bytes.
    Body(usize),
    /// With a status and this text as the body.
    Text(u16, String),
}

struct Lane {
    behaviour: Behaviour,
    answered: usize,
    in_flight: usize,
    most_in_flight: usize,
    // Told to everybody who hangs. Replaced when the behaviour is, so that one release frees only those before it.
    released: watch::Sender<bool>,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            behaviour: Behaviour::Status(200),
            answered: 0,
            in_flight: 0,
            most_in_flight: 0,
            released: watch::Sender::new(false),
        }
    }
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    lanes: HashMap<String, Lane>,
    connections: usize,
    in_flight: usize,
    most_in_flight: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    // Says only that something changed; who waits looks for himself.
    changed: watch::Sender<()>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds the state")
    }
}

/// A receiver that listens until it is dropped; its connections are cut then.
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Receiver {
    /// Listens on a free port of 127.0.0.1. Every path answers 200 until told otherwise.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self { address, shared, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Decides how a path answers from now on. Requests that hang go on hanging until released.
    pub fn respond_with(&self, path: &str, behaviour: Behaviour) {
        let mut state = self.shared.state();
        let lane = state.lanes.entry(path.to_owned()).or_default();
        lane.behaviour = behaviour;
        lane.answered = 0;
        // Without this, a path released once would never hang again. Who hangs now keeps the sender's old value alive.
        if *lane.released.borrow() {
            lane.released = watch::Sender::new(false);
        }
    }

    /// Lets every request that hangs on a path go, now and later, until [`Receiver::respond_with`] is called again.
    pub fn release(&self, path: &str) {
        self.shared.state().lanes.entry(path.to_owned()).or_default().released.send_replace(true);
    }

    /// Everything that arrived, in the order in which the bodies were complete.
    pub fn received(&self) -> Vec<Received> {
        self.shared.state().received.clone()
    }

    /// What arrived on one path, in the same order.
    pub fn received_on(&self, path: &str) -> Vec<Received> {
        self.shared.state().received.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// How many requests of a path are being answered at this moment.
    pub fn in_flight(&self, path: &str) -> usize {
        self.shared.state().lanes.get(path).map_or(0, |lane| lane.in_flight)
    }

    /// The most requests of a path that were ever being answered at once.
    pub fn most_in_flight(&self, path: &str) -> usize {
        self.shared.state().lanes.get(path).map_or(0, |lane| lane.most_in_flight)
    }

    /// The most requests that were ever being answered at once, over all paths.
    pub fn most_in_flight_overall(&self) -> usize {
        self.shared.state().most_in_flight
    }

    /// Waits until at least `number` requests have arrived, and gives all that have.
    ///
    /// # Panics
    /// When they have not arrived `within` that time, with those that have.
    pub async fn wait_for(&self, number: usize, within: Duration) -> Vec<Received> {
        self.wait(&format!("{number} requests"), within, |state| state.received.len() >= number).await;
        self.received()
    }

    /// As [`Receiver::wait_for`], counting one path only.
    pub async fn wait_for_on(&self, path: &str, number: usize, within: Duration) -> Vec<Received> {
        let what = format!("{number} requests on {path}");
        self.wait(&what, within, |state| {
            state.received.iter().filter(|request| request.path == path).count() >= number
        })
        .await;
        self.received_on(path)
    }

    /// Waits until exactly `number` requests of a path are being answered at once.
    ///
    /// # Panics
    /// When that does not happen `within` that time.
    pub async fn wait_for_in_flight(&self, path: &str, number: usize, within: Duration) {
        let what = format!("{number} requests in flight on {path}");
        self.wait(&what, within, |state| state.lanes.get(path).map_or(0, |lane| lane.in_flight) == number)
            .await;
    }

    async fn wait(&self, what: &str, within: Duration, reached: impl Fn(&State) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        let waiting = async {
            // Subscribed before looking: a change in between is noticed.
            while !reached(&self.shared.state()) {
                changed.changed().await.expect("the receiver outlives its borrow");
            }
        };
        if tokio::time::timeout(within, waiting).await.is_err() {
            let state = self.shared.state();
            let seen: Vec<String> = state
                .received
                .iter()
                .map(|request| format!("  {} {} {}", request.number, request.method, request.path))
                .collect();
            let seen = if seen.is_empty() { "  none".to_owned() } else { seen.join("\n") };
            let in_flight = state.in_flight;
            drop(state);
            panic!("waited {within:?} for {what}; {in_flight} are in flight, and these arrived:\n{seen}");
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Owned here, so that ending this task cuts its connections.
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // A client that was gone before it was accepted.
                Err(_) => continue,
            },
            Some(_) = connections.join_next() => continue,
        };
        stream.set_nodelay(true).expect("a TCP socket takes this option");
        let connection = {
            let mut state = shared.state();
            state.connections += 1;
            state.connections
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let answer = service_fn(move |request| answer(request, connection, Arc::clone(&shared)));
            // How a connection ends is the client's affair.
            let _ =
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// Counts a request while it lives: the future that owns this is dropped when the client goes away.
struct InFlight {
    shared: Arc<Shared>,
    path: String,
}

impl InFlight {
    fn new(shared: &Arc<Shared>, path: &str) -> Self {
        let mut state = shared.state();
        state.in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.in_flight);
        let lane = state.lanes.entry(path.to_owned()).or_default();
        lane.in_flight += 1;
        lane.most_in_flight = lane.most_in_flight.max(lane.in_flight);
        drop(state);
        shared.changed.send_replace(());
        Self { shared: Arc::clone(shared), path: path.to_owned() }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // A panic elsewhere must not become a second one here, which would end the whole process.
        if let Ok(mut state) = self.shared.state.lock() {
            state.in_flight -= 1;
            state.lanes.entry(self.path.clone()).or_default().in_flight -= 1;
        }
        self.shared.changed.send_replace(());
    }
}

async fn answer(
    request: Request<Incoming>,
    connection: usize,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let _in_flight = InFlight::new(&shared, &path);
    let Ok(body) = body.collect().await else {
        // A body that broke off was never received.
        return Ok(reply(400, Bytes::new()));
    };

    let (behaviour, turn, mut released) = {
        let mut state = shared.state();
        let number = state.received.len() + 1;
        state.received.push(Received {
            method: head.method,
            path: path.clone(),
            query: head.uri.query().map(str::to_owned),
            version: head.version,
            headers: head.headers,
            body: body.to_bytes(),
            at: Instant::now(),
            number,
            connection,
        });
        let lane = state.lanes.entry(path).or_default();
        let turn = lane.answered;
        lane.answered += 1;
        (lane.behaviour.clone(), turn, lane.released.subscribe())
    };
    shared.changed.send_replace(());

    Ok(match behaviour {
        Behaviour::Status(status) => reply(status, Bytes::new()),
        Behaviour::StatusThen(statuses) => {
            let status = statuses.get(turn).or(statuses.last()).copied().unwrap_or(200);
            reply(status, Bytes::new())
        }
        Behaviour::Unsteady { percent, seed } => {
            let failed = scattered(seed.wrapping_add(turn as u64)) % 100 < percent;
            reply(if failed { 503 } else { 200 }, Bytes::new())
        }
        Behaviour::Headers(status, headers) => {
            let mut response = reply(status, Bytes::new());
            for (name, value) in headers {
                response.headers_mut().append(name, value.parse().expect("a header value"));
            }
            response
        }
        Behaviour::Hang => {
            // An error says that the sender was replaced: then nobody can release this request any more.
            if released.wait_for(|released| *released).await.is_err() {
                std::future::pending::<()>().await;
            }
            reply(200, Bytes::new())
        }
        Behaviour::Delay(time) => {
            tokio::time::sleep(time).await;
            reply(200, Bytes::new())
        }
        Behaviour::Body(size) => reply(200, Bytes::from(vec![b'x'; size])),
        Behaviour::Text(status, text) => reply(status, Bytes::from(text)),
    })
}

/// A number that looks like chance and is the same each time (the finaliser of SplitMix64).
fn scattered(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn reply(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status code");
    response
}
