//! The published keys: what receivers verify Ed25519 signatures with, by HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{StatusCode, header};
use serde_json::json;

use super::directory::Directory;
use crate::clock::SharedClock;

/// What the route needs.
pub struct PublishedKeys {
    /// The endpoints.
    pub directory: Arc<Directory>,
    /// The time.
    pub clock: SharedClock,
}

/// The route `/.well-known/webhooks/{webhook_id}/jwks.json`: a JSON Web Key Set (RFC 7517) with the Ed25519 keys (RFC 8037)
/// that sign now, newest first; none for an endpoint that signs with HMAC.  It needs no key: what it shows is public.
pub fn routes(keys: PublishedKeys) -> Router {
    Router::new().route("/.well-known/webhooks/{webhook_id}/jwks.json", get(show)).with_state(Arc::new(keys))
}

async fn show(State(keys): State<Arc<PublishedKeys>>, Path(webhook_id): Path<String>) -> Response {
    let Some(endpoint) = keys.directory.find(&webhook_id) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let set: Vec<_> = endpoint
        .signer
        .keys(keys.clock.now())
        .filter_map(|key| {
            let x = URL_SAFE_NO_PAD.encode(key.public_bytes()?);
            Some(json!({
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.public_text(), "x": x,
            }))
        })
        .collect();
    let headers =
        [(header::CONTENT_TYPE, "application/jwk-set+json"), (header::CACHE_CONTROL, "public, max-age=300")];
    (headers, json!({ "keys": set }).to_string()).into_response()
}
