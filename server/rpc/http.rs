//! What the port serves beside gRPC: health for load balancers, metrics for Prometheus.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::routing::get;
use http::{StatusCode, header};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::server::HealthReporter;

use super::methods::Methods;
use crate::telemetry::Metrics;

/// Whether the server takes requests, for `/healthz`, `/readyz` and `grpc.health.v1`.
#[derive(Clone)]
pub struct Health {
    serving: Arc<AtomicBool>,
    /// Why it can not do all of its work now.
    trouble: Arc<Mutex<Option<&'static str>>>,
    reporter: HealthReporter,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            serving: Arc::new(AtomicBool::new(true)),
            trouble: Arc::default(),
            reporter: HealthReporter::new(),
        }
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

    /// Says why the server can not do all of its work now, or that it can.  It is alive in any case, and a service of which
    /// only the writing fails goes on serving: what turns is the state of the server as a whole.
    pub async fn set_trouble(&self, why: Option<&'static str>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
        if self.serving.load(Ordering::Relaxed) {
            let status = if why.is_none() { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.reporter.set_service_status("", status).await;
        }
    }

    fn readiness(&self) -> (StatusCode, String) {
        let why = *self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match why {
            _ if !self.serving.load(Ordering::Relaxed) => {
                (StatusCode::SERVICE_UNAVAILABLE, "draining\n".into())
            }
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            None => (StatusCode::OK, "ok\n".into()),
        }
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
    let ready = health.clone();
    let readyz = move || async move { ready.readiness() };
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
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}
