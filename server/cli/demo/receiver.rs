//! The webhook receiver: what an application would write to take webhooks.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::arrival::{Arrival, Delivered, Notes};
use super::failure::{Failure, Result};
use super::signature;
use crate::clock::{Clock, SystemClock};
use crate::secret::SecretText;

/// A receiver that listens.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    secret: Arc<OnceLock<SecretText>>,
}

impl Receiver {
    /// Listens on a free port of this machine for as long as `background` lives.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub async fn start(background: &mut JoinSet<()>, notes: Notes) -> Result<Self> {
        let failed = |error| Failure::new("the webhook receiver could not listen", error);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let secret = Arc::new(OnceLock::new());
        background.spawn(accept(listener, Arc::clone(&secret), notes));
        Ok(Self { address, secret })
    }

    /// Where webhooks are to go.
    pub fn url(&self) -> String {
        format!("http://{}/webhook", self.address)
    }

    /// Takes what this secret signed from now on, and nothing before.
    pub fn trust(&self, secret: SecretText) {
        // One endpoint, one secret: there is no second call.
        let _ = self.secret.set(secret);
    }
}

async fn accept(listener: TcpListener, secret: Arc<OnceLock<SecretText>>, notes: Notes) {
    // Owned here, so that the end of this task cuts its connections.
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
        let (secret, notes) = (Arc::clone(&secret), notes.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&secret), notes.clone()));
            // How a connection ends is the client's affair.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    secret: Arc<OnceLock<SecretText>>,
    notes: Notes,
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return Ok(reply(StatusCode::METHOD_NOT_ALLOWED));
    }
    let Ok(body) = body.collect().await else {
        // A body that broke off was never received.
        return Ok(reply(StatusCode::BAD_REQUEST));
    };
    let body = body.to_bytes();
    let verified = match secret.get() {
        Some(secret) => signature::verify(&head.headers, &body, secret.reveal(), SystemClock.now().seconds()),
        None => Err("it came before the endpoint was made".to_owned()),
    };
    let status = if verified.is_ok() { StatusCode::OK } else { StatusCode::FORBIDDEN };
    let event_id = head.headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    notes.tell(Arrival::Webhook(Delivered {
        event_id: event_id.to_owned(),
        body: body.to_vec(),
        status: status.as_u16(),
        fault: verified.err(),
    }));
    Ok(reply(status))
}

fn reply(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
