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
use hyper_util::client::legacy::connect::HttpInfo;
use rustls::RootCertStore;
use tokio::sync::Notify;

use super::failure::Failure;
use super::guard::{Guard, Lookup};
use super::network::{Network, Pool, SHARED_IDLE, tls};
use super::trust::watch::watched;
use crate::error::{Error, Result};

/// How much of an answer's body is read and kept.
pub const BODY_LIMIT: usize = 64 * 1024;
/// The most interim answers (1xx; RFC 9110, 15.2) before the one that counts.
const INTERIM_LIMIT: usize = 32;

/// Sends requests; its copies share their connections.
#[derive(Clone)]
pub struct Client(pub(super) Arc<Pool>);

/// What a destination answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: http::StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it was sent, as far as it was read.
    pub body: Bytes,
    /// The address that answered: through a proxy, the proxy's.
    pub remote: Option<SocketAddr>,
}

impl Client {
    /// A client that connects where `guard` permits, to what `lookup` finds, and trusts these root certificates.
    ///
    /// # Errors
    /// When TLS can not be set up.
    pub fn trusting(guard: Guard, lookup: Arc<dyn Lookup>, roots: RootCertStore) -> Result<Self> {
        let tls = tls(Arc::new(roots), None).map_err(Error::internal)?;
        Ok(Self(Arc::new(Pool::new(Arc::new(Network::new(guard, lookup, None)), tls, SHARED_IDLE))))
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
        let connections = self.0.connections();
        let response = tokio::select! {
            response = watched(connections.request(request)) => response?,
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
