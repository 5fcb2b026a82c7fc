//! What every RPC shares: the one port, the layers around the services, and the conversions.
//!
//! ```text
//! socket ─▶ server (accept, TLS, HTTP/1.1 or h2) ─▶ CORS ─▶ gRPC-web ─▶ gate ─▶ <capability>/rpc.rs
//!                                               └─▶ /healthz, /metrics, routes of capabilities, behind the same admission
//! gate: address ─▶ method ─▶ key or token ─▶ scope (from the descriptor) ─▶ networks and limits of the key ─▶ deadline ─▶ service
//!       ─▶ ErrorInfo where it lacks, count
//! ```
//! CORS is outermost, so that a browser sees a refusal as what it is; then gRPC-web, so that everything below speaks gRPC.

pub mod address;
pub mod admission;
pub mod auth;
pub mod codec;
pub mod convert;
pub mod cut;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod gate;
pub mod gather;
mod head;
pub mod http;
pub mod mask;
pub mod meter;
pub mod methods;
mod origin;
pub mod page;
pub mod server;
pub mod status;
mod timely;
pub mod tls;
mod web;

pub use auth::{Access, Authenticate, Endings, Makers, Principal, User};

use std::sync::Arc;

use ::http::HeaderValue;
use axum::Router;
use tonic::service::Routes;
use tower::Layer;

use crate::error::{Error, Result};
use crate::pb;
use crate::telemetry::Metrics;
use admission::{Admission, Admitted, Door};
use gate::GateLayer;
use methods::Methods;

/// The greatest request, in bytes.  Fields have smaller limits of their own.
pub const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// What the port needs beside the services.
pub struct Shared {
    /// Knows the keys.
    pub authenticate: Arc<dyn Authenticate>,
    /// Counts the calls of each key.
    pub meter: Arc<dyn meter::Meter>,
    /// Decides by addresses.
    pub admission: Arc<Admission>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The origins whose pages may call; `*` alone means all.
    pub allowed_origins: Vec<HeaderValue>,
    /// Whether the server describes itself to clients without the proto files.
    pub reflection: bool,
}

/// Everything that the port serves.  Beside the services and the routes of this module there are routes that check keys
/// themselves, `api`, and those for anybody, `public`.
///
/// # Errors
/// When a method of a service has no scope: it could never be called.
pub async fn router(
    mut services: Routes,
    shared: &Shared,
    health: http::Health,
    api: Router,
    public: Router,
) -> Result<Router> {
    let methods = Methods::from_descriptor(pb::DESCRIPTOR)?;
    if shared.reflection {
        let v1 = reflection(&methods).build_v1().map_err(Error::internal)?;
        let v1alpha = reflection(&methods).build_v1alpha().map_err(Error::internal)?;
        services = services.add_service(v1).add_service(v1alpha);
    }
    services = services.add_service(health.service(&methods).await);
    let gate = GateLayer::new(
        Arc::new(methods),
        Arc::clone(&shared.authenticate),
        Arc::clone(&shared.admission),
        Arc::clone(&shared.meter),
        Arc::clone(&shared.metrics),
    );
    let grpc = services.prepare().into_axum_router().layer(gate).layer(tonic_web::GrpcWebLayer::new());
    let cors = web::cors(&shared.allowed_origins);
    let plain =
        http::routes(Arc::clone(&shared.metrics), health).merge(api).admitted(&shared.admission, Door::Api);
    let plain = plain.merge(public.admitted(&shared.admission, Door::Public));
    // tonic-web answers 400 to HTTP/1.1 requests that are not gRPC-web, so that the plain routes come before it.
    Ok(plain.fallback_service(cors.layer(grpc)))
}

fn reflection(methods: &Methods) -> tonic_reflection::server::Builder<'static> {
    let mut builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that clients without the proto files can read the details of errors.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET);
    for service in methods.services() {
        builder = builder.with_service_name(service);
    }
    builder.with_service_name("grpc.health.v1.Health")
}
