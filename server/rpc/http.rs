//! What the port serves beside gRPC: health for load balancers, metrics for Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use http::{StatusCode, header};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::server::HealthReporter;

use super::methods::Methods;
use crate::telemetry::Metrics;

/// Whether the server takes requests, for `/healthz` and `grpc.health.v1`.
#[derive(Clone)]
pub struct Health {
    serving: Arc<AtomicBool>,
    reporter: HealthReporter,
}

impl Default for Health {
    fn default() -> Self {
        Self { serving: Arc::new(AtomicBool::new(true)), reporter: HealthReporter::new() }
    }
}

impl Health {
    /// The gRPC service; every service of `methods` is serving.
    pub(super) async fn service(&self, methods: &Methods) -> HealthServer<impl HealthService> {
        for service in methods.services() {
            self.reporter.set_service_status(service, ServingStatus::Serving).await;
        }
        HealthServer::new(tonic_health::server::HealthService::from_health_reporter(self.reporter.clone()))
    }

    /// Says from now on that the server takes no more requests.
    pub async fn stop(&self, services: impl Iterator<Item = &str>) {
        self.serving.store(false, Ordering::Relaxed);
        for service in services.chain([""]) {
            self.reporter.set_service_status(service, ServingStatus::NotServing).await;
        }
    }
}

/// The routes.
pub(super) fn routes(metrics: Arc<Metrics>, health: Health) -> Router {
    let healthz = move || async move {
        if health.serving.load(Ordering::Relaxed) {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        }
    };
    let metrics = move || async move {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], metrics.encode())
    };
    Router::new().route("/healthz", get(healthz)).route("/metrics", get(metrics))
}
