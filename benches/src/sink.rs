//! The receiver of webhooks: an HTTP server on a thread of its own, which answers 200, at once or after a while, and
//! remembers what came when.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::error::{Context, Result};

/// One request that arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The event, as the header `webhook-id` names it.
    pub event: String,
    /// Which endpoint's path it came to.
    pub endpoint: u32,
    /// When its last byte had been read.
    pub at: Instant,
}

/// A whole request, to be sent again.
#[derive(Debug, Clone)]
pub struct Captured {
    /// Its path.
    pub path: String,
    /// Its headers, without those that say how it was carried.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A receiver that listens until it is dropped.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Ends the thread by being dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    arrived: Arc<AtomicU64>,
    arrivals: Mutex<Vec<Arrival>>,
    /// How long it takes to answer.
    pause: Duration,
    capture: Mutex<Option<oneshot::Sender<Captured>>>,
}

impl Shared {
    fn note(&self, event: String, endpoint: u32) {
        let mut arrivals = lock(&self.arrivals);
        arrivals.push(Arrival { event, endpoint, at: Instant::now() });
        self.arrived.store(arrivals.len() as u64, Ordering::Relaxed);
    }
}

impl Sink {
    /// Listens on a free port of loopback.
    pub fn start() -> Result<Self> {
        Self::start_slow(Duration::ZERO)
    }

    /// One that takes so long to answer. What came counts as arrived before it is answered.
    pub fn start_slow(pause: Duration) -> Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("the sink's port")?;
        listener.set_nonblocking(true).context("the sink's port")?;
        let address = listener.local_addr().context("the sink's port")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the sink's runtime")?;
        let shared = Arc::new(Shared { pause, ..Shared::default() });
        let (stop, stopped) = oneshot::channel();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("sink".into()).spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else {
                    return;
                };
                tokio::select! {
                    () = accept(listener, for_thread) => {}
                    _ = stopped => {}
                }
            });
        });
        let thread = thread.context("the sink's thread")?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of an endpoint.
    pub fn url(&self, endpoint: u32) -> String {
        format!("http://{}/{endpoint}", self.address)
    }

    /// How many requests have arrived since they were last taken.
    pub fn arrived(&self) -> u64 {
        self.shared.arrived.load(Ordering::Relaxed)
    }

    /// The same count, for somebody who watches it.
    pub fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.arrived)
    }

    /// Takes what has arrived; the count starts again at 0.
    pub fn take(&self) -> Vec<Arrival> {
        let mut arrivals = lock(&self.shared.arrivals);
        self.shared.arrived.store(0, Ordering::Relaxed);
        std::mem::take(&mut arrivals)
    }

    /// The next request that arrives, whole.
    pub fn capture(&self) -> oneshot::Receiver<Captured> {
        let (sender, receiver) = oneshot::channel();
        *lock(&self.shared.capture) = Some(sender);
        receiver
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // An error concerns one connection, and whoever made it notices.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> hyper::Result<Response<Empty<Bytes>>> {
    let (head, mut body) = request.into_parts();
    let capture = lock(&shared.capture).take();
    match capture {
        Some(capture) => {
            let body = body.collect().await?.to_bytes();
            let _ = capture.send(captured(&head, body));
        }
        None => {
            while let Some(frame) = body.frame().await {
                frame?;
            }
        }
    }
    let event = head.headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let endpoint = head.uri.path().trim_start_matches('/').parse().unwrap_or(u32::MAX);
    shared.note(event, endpoint);
    if shared.pause > Duration::ZERO {
        tokio::time::sleep(shared.pause).await;
    }
    Ok(Response::new(Empty::new()))
}

fn captured(head: &http::request::Parts, body: Bytes) -> Captured {
    let mut headers = head.headers.clone();
    for carried in [http::header::CONNECTION, http::header::CONTENT_LENGTH, http::header::TRANSFER_ENCODING] {
        headers.remove(carried);
    }
    Captured { path: head.uri.path().to_owned(), headers, body }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
