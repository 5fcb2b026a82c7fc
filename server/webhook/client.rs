//! The HTTP client: one request under one deadline, over connections that are reused per host.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::guard::{Guard, GuardedResolver, Refused};
use crate::error::{Error, Result};

/// How much of an answer's body is read and kept.
pub const BODY_LIMIT: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Several endpoints may share a host, each with its own concurrency: fewer, and connections would be made anew.
const IDLE_PER_HOST: usize = 512;
/// The greatest head of an answer over HTTP/1.1, and the most headers in it.
const HEAD_LIMIT: usize = 32 * 1024;
const HEADER_COUNT: usize = 100;

/// Sends requests.
#[derive(Clone)]
pub struct Client(HyperClient<HttpsConnector<HttpConnector<GuardedResolver>>, Full<Bytes>>);

/// What a destination answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: http::StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as far as it was read.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The address is not allowed.
    Refused(String),
    /// The deadline passed.
    Timeout,
    /// The connection or the protocol failed.
    Network(String),
}

impl Client {
    /// A client that connects where `guard` permits.
    ///
    /// # Errors
    /// When the system's root certificates can not be read.
    pub fn new(guard: Guard) -> Result<Self> {
        let mut tcp = HttpConnector::new_with_resolver(GuardedResolver(guard));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let tls = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(Error::internal)?
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = HyperClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .http1_max_buf_size(HEAD_LIMIT)
            .http1_max_headers(HEADER_COUNT)
            .http2_max_header_list_size(HEAD_LIMIT as u32)
            .build(tls);
        Ok(Self(client))
    }

    /// Sends one request and reads the answer, all of it before `deadline` has passed.
    pub async fn send(&self, request: Request<Full<Bytes>>, deadline: Duration) -> Result<Answer, Failure> {
        match tokio::time::timeout(deadline, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Timeout),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let response = self.0.request(request).await.map_err(|error| explain(&error))?;
        let (head, body) = response.into_parts();
        let known_empty = head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
        let body = if known_empty { Bytes::new() } else { read(body).await? };
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// Reads up to the limit; what comes after it is not wanted, and closes the connection.
async fn read(mut body: Incoming) -> Result<Bytes, Failure> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Network(chain(&error)))?;
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

fn explain(error: &hyper_util::client::legacy::Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(refused) = current.downcast_ref::<Refused>() {
            return Failure::Refused(refused.to_string());
        }
        cause = current.source();
    }
    Failure::Network(chain(error))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let more = current.to_string();
        // Many errors repeat what lies behind them.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = current.source();
    }
    text
}
