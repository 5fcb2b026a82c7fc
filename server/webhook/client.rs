//! The HTTP client: one request under one deadline, over connections that are reused per host.
//!
//! What a destination can cost is bounded in every direction: the time by the deadline, the head, its headers and the
//! interim answers before it, the body, what HTTP/2 may send ahead, and the connections that are kept.  Those in use
//! are as many as the attempts that the delivery engine makes at a time.  A body is never decompressed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::{HttpConnector, HttpInfo};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Notify;

use super::failure::Failure;
use super::guard::{Guard, GuardedConnector, GuardedResolver, Lookup};
use crate::error::{Error, Result};

/// How much of an answer's body is read and kept.
pub const BODY_LIMIT: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Several endpoints may share a host, each with its own concurrency: fewer, and connections would be made anew.
const IDLE_PER_HOST: usize = 512;
/// The greatest head of an answer, and over HTTP/1.1 the most headers in it and the greatest trailers.
const HEAD_LIMIT: usize = 32 * 1024;
const HEADER_COUNT: usize = 100;
/// The most interim answers (1xx; RFC 9110, 15.2) before the one that counts.
const INTERIM_LIMIT: usize = 32;
/// What a destination may send ahead over HTTP/2, for one answer and for all on its connection.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// A connection over HTTP/2 carries many requests: when its peer is gone, the next ones must not wait for it in vain.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends requests.
#[derive(Clone)]
pub struct Client(HyperClient<HttpsConnector<GuardedConnector>, Full<Bytes>>);

/// What a destination answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: http::StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it was sent, as far as it was read.
    pub body: Bytes,
    /// The address that answered.
    pub remote: Option<SocketAddr>,
}

impl Client {
    /// A client that connects where `guard` permits, to what `lookup` finds, and trusts the system's certificates.
    ///
    /// # Errors
    /// When the system has no root certificates, or they can not be read.
    pub fn new(guard: Guard, lookup: Arc<dyn Lookup>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (usable, _) = roots.add_parsable_certificates(found.certs);
        if usable == 0 {
            let first = found.errors.into_iter().next();
            let text = first.map_or_else(|| "there are none".to_owned(), |error| error.to_string());
            return Err(Error::internal(format!("the system's root certificates can not be used: {text}")));
        }
        Self::trusting(guard, lookup, roots)
    }

    /// As [`Client::new`], with these root certificates.
    ///
    /// # Errors
    /// When TLS can not be set up.
    pub fn trusting(guard: Guard, lookup: Arc<dyn Lookup>, roots: RootCertStore) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::internal)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new_with_resolver(GuardedResolver::new(guard.clone(), lookup));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(GuardedConnector::new(guard, tcp));
        let client = HyperClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .http1_max_buf_size(HEAD_LIMIT)
            .http1_max_headers(HEADER_COUNT)
            .http2_max_header_list_size(HEAD_LIMIT as u32)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(connector);
        Ok(Self(client))
    }

    /// Sends one request and reads the answer, all of it before `deadline` has passed.
    ///
    /// # Errors
    /// [`Failure`], when there is no complete answer.  An answer of any status is none.
    pub async fn send(&self, request: Request<Full<Bytes>>, deadline: Duration) -> Result<Answer, Failure> {
        match tokio::time::timeout(deadline, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::late(deadline)),
        }
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let too_many = Arc::new(Notify::new());
        let (interim, exceeded) = (AtomicUsize::new(0), Arc::clone(&too_many));
        hyper::ext::on_informational(&mut request, move |_| {
            if interim.fetch_add(1, Ordering::Relaxed) >= INTERIM_LIMIT {
                exceeded.notify_one();
            }
        });
        let response = tokio::select! {
            response = self.0.request(request) => response.map_err(|error| Failure::of_request(&error))?,
            () = too_many.notified() => {
                let text = format!("more than {INTERIM_LIMIT} interim answers");
                return Err(Failure::Protocol(text));
            }
        };
        let (head, body) = response.into_parts();
        let remote = head.extensions.get::<HttpInfo>().map(HttpInfo::remote_addr);
        let known_empty = head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
        let body = if known_empty { Bytes::new() } else { read(body).await? };
        Ok(Answer { status: head.status, headers: head.headers, body, remote })
    }
}

/// Reads up to the limit; what comes after it is not wanted, and closes the connection.
async fn read(mut body: Incoming) -> Result<Bytes, Failure> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::of_body(&error))?;
        if let Some(data) = frame.data_ref() {
            let room = BODY_LIMIT - read.len();
            read.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                break;
            }
        }
    }
    Ok(read.freeze())
}
