//! The accept loop: one port for HTTP/1.1 and HTTP/2, limits on both, and a drain that ends.
//!
//! With a certificate it speaks TLS alone.  It is our own because tonic's waits for open streams for ever when it shuts down, and knows no limits.  The drain:
//! no new connections, GOAWAY on the open ones, time for requests under way, then every connection is dropped.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::address::ClientAddress;
use super::cut::{self, Executor};
use super::gather::gather;
use super::head;
use super::timely::Timely;
use super::tls::Tls;
use crate::telemetry::Metrics;

/// Limits of the port.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time; more wait to be accepted.
    pub connections: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub streams_per_connection: u32,
    /// How long an HTTP/2 connection may be silent before it is asked for a sign of life.
    pub keep_alive_interval: Duration,
    /// How long that sign may take.
    pub keep_alive_timeout: Duration,
    /// How long a new connection may take for its TLS handshake, to say something, and an HTTP/1.1 one to send its head:
    /// for each of them.
    pub first_byte: Duration,
    /// How long the body of a request may take once it is waited for.
    pub body: Duration,
    /// TLS handshakes at a time; more wait, and not for longer than a handshake may take.
    pub handshakes: usize,
    /// How often to look whether the certificate has changed.
    pub certificate_check: Duration,
    /// How long requests under way may take once the server shuts down.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            streams_per_connection: 1_000,
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(20),
            first_byte: Duration::from_secs(10),
            body: Duration::from_secs(60),
            handshakes: 1_000,
            certificate_check: Duration::from_secs(10),
            drain: Duration::from_secs(20),
        }
    }
}

/// How many may wait to be accepted, if the system allows it.
const BACKLOG: u32 = 65_535;
/// The greatest size of all headers of a request.
const HEADER_LIMIT: u32 = 16 * 1024;
/// What may wait to be sent on one stream before its producer waits too.
const SEND_BUFFER: usize = 64 * 1024;
/// After an error of accept, such as too many open files, a moment for it to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Opens the port.
///
/// As many may wait to be accepted as the system allows: the standard library's 128 are too few for all who come back after
/// a restart, and the system ignores the others, who try again after a second, two, four.
///
/// # Errors
/// When the address can not be listened on.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The connections of the process before may not be forgotten yet.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop`, then drains; answers when the last connection is gone.  With `tls`, over TLS only.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    tls: Option<Arc<Tls>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let port =
        Arc::new(Port { builder: builder(&limits), first_byte: limits.first_byte, body: limits.body, tls });
    let permits = Arc::new(Semaphore::new(limits.connections));
    let tracker = TaskTracker::new();
    let drop_all = CancellationToken::new();
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit.expect("the semaphore is never closed"),
            () = stop.cancelled() => break,
        };
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        let (port, router, metrics) = (Arc::clone(&port), router.clone(), Arc::clone(&metrics));
        let (stop, drop_all) = (stop.clone(), drop_all.clone());
        cut::spawn(&tracker, async move {
            let _counted = Counted::new(metrics);
            tokio::select! {
                () = connection(stream, peer.ip(), &port, router, stop) => {}
                () = drop_all.cancelled() => {}
            }
            drop(permit);
        });
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(limits.drain, tracker.wait()).await.is_err() {
        tracing::warn!(
            connections = tracker.len(),
            "the drain took too long: the last connections are dropped"
        );
        drop_all.cancel();
        tracker.wait().await;
    }
}

/// A connection, as long as it is counted; also one that is cut off.
struct Counted(Arc<Metrics>);

impl Counted {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.connections().inc();
        Self(metrics)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections().dec();
    }
}

fn builder(limits: &Limits) -> auto::Builder<Executor> {
    let mut builder = auto::Builder::new(Executor);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.first_byte);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .keep_alive_interval(limits.keep_alive_interval)
        .keep_alive_timeout(limits.keep_alive_timeout)
        .max_header_list_size(HEADER_LIMIT)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(1_024);
    builder
}

/// What every connection needs.
struct Port {
    builder: auto::Builder<Executor>,
    first_byte: Duration,
    body: Duration,
    tls: Option<Arc<Tls>>,
}

async fn connection(stream: TcpStream, peer: IpAddr, port: &Port, router: Router, stop: CancellationToken) {
    // Small frames must not wait for the peer's acknowledgement of the last ones.
    let _ = stream.set_nodelay(true);
    let Some(tls) = &port.tls else {
        return talk(stream, peer, port, router, stop).await;
    };
    let stream = tokio::select! {
        accepted = tokio::time::timeout(port.first_byte, tls.accept(stream)) => accepted.ok().flatten(),
        () = stop.cancelled() => None,
    };
    if let Some(stream) = stream {
        // By itself: a connection without TLS would be as large.
        Box::pin(talk(stream, peer, port, router, stop)).await;
    }
}

async fn talk<S>(stream: S, peer: IpAddr, port: &Port, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Until it is known whether this is HTTP/1.1 or HTTP/2, hyper would wait for ever.
    let begun = tokio::select! {
        begun = tokio::time::timeout(port.first_byte, head::read(stream)) => begun.ok().flatten(),
        () = stop.cancelled() => None,
    };
    let Some(stream) = begun else { return };
    let time = port.body;
    let router = router.map_request(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(ClientAddress(peer));
        request.map(|body| Timely::new(body, time))
    });
    let service = TowerToHyperService::new(router);
    let (stream, mut driver) = gather(stream);
    let connection = port.builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut draining = false;
    loop {
        tokio::select! {
            // How a connection ends is the peer's affair: requests report their own errors.
            () = poll_fn(|cx| driver.poll(connection.as_mut(), cx)) => return,
            () = stop.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
