//! Admission to routes that are not gRPC.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use http::{HeaderValue, StatusCode, header};

use super::{Admission, Class, Door, quota};
use crate::error::{Error, Kind};
use crate::rpc::address::ClientAddress;

/// The path whose callers are proxies that ask about a request.
const FORWARD_AUTH: &str = "/v1/forward-auth";
/// What is looked at when something is wrong.
const METRICS: &str = "/metrics";
/// What load balancers ask.
const HEALTH: &str = "/healthz";
const READY: &str = "/readyz";

/// Routes behind the admission.
pub(in crate::rpc) trait Admitted {
    /// Puts the admission before each of them.
    fn admitted(self, admission: &Arc<Admission>, door: Door) -> Self;
}

impl Admitted for Router {
    fn admitted(self, admission: &Arc<Admission>, door: Door) -> Self {
        let admission = Arc::clone(admission);
        self.route_layer(middleware::from_fn(move |request: Request, next: Next| {
            let admission = Arc::clone(&admission);
            async move { pass(&admission, door, request, next).await }
        }))
    }
}

async fn pass(admission: &Admission, door: Door, mut request: Request, next: Next) -> Response {
    let door = match request.uri().path() {
        HEALTH | READY => return next.run(request).await,
        FORWARD_AUTH => Door::Proxy,
        _ => door,
    };
    let class = if request.uri().path() == METRICS { Class::Administration } else { Class::Bulk };
    let entered = admission.enter(request.headers(), request.extensions(), door);
    let entered = entered.and_then(|address| Ok((address, admission.begin(class)?)));
    match entered {
        Ok((address, _place)) => {
            put(request.extensions_mut(), address);
            next.run(request).await
        }
        Err(error) => refusal(&error),
    }
}

/// Puts the address that was found in the place of the peer's.
pub(in crate::rpc) fn put(extensions: &mut http::Extensions, address: Option<IpAddr>) {
    if let Some(address) = address {
        extensions.insert(ClientAddress(address));
    }
}

fn refusal(error: &Error) -> Response {
    let status = match error.kind() {
        Kind::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::FORBIDDEN,
    };
    let body = serde_json::json!({ "error": { "reason": error.reason(), "message": error.message(), "violations": [] } });
    let mut response = (status, Body::from(body.to_string())).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    quota::tell_refusal(error, headers);
    response
}
