//! Between the wire and the model.

use std::collections::HashMap;
use std::time::Duration;

use super::super::health::Record;
use super::super::log::Exchange;
use super::super::log::store::Delivery;
use super::super::mode::{Batching, DeliveryMode};
use super::super::model::Webhook;
use super::super::policy::{RateLimit, RetryPolicy};
use super::super::replay::Tested;
use super::super::secret::Signing;
use super::super::service::WebhookChange;
use super::super::stats::Stats;
use crate::clock::Timestamp;
use crate::delivery::attempt::AttemptRow;
use crate::delivery::{State, Table};
use crate::pb::switchboard::webhook::v1 as pb;
use crate::rpc::convert::{duration, from_duration, next_attempt, state, timestamp};
use crate::secret::SecretText;

impl From<Stats> for pb::WebhookStats {
    fn from(stats: Stats) -> Self {
        let attempts = stats.attempts();
        let success_rate = if attempts == 0 { 0.0 } else { stats.succeeded as f64 / attempts as f64 };
        Self {
            attempts,
            succeeded: stats.succeeded,
            failed: stats.failed,
            success_rate,
            average_duration: Some(duration(stats.average())),
            p50_duration: Some(duration(stats.quantile(0.5))),
            p99_duration: Some(duration(stats.quantile(0.99))),
            webhook_id: stats.webhook_id,
        }
    }
}

/// The secret as it is shown: nobody but the server needs a private key.
pub(super) fn shown(webhook: &Webhook, secret: &SecretText) -> String {
    match webhook.signing() {
        Signing::Hmac => secret.reveal().to_owned(),
        Signing::Ed25519 => String::new(),
    }
}

/// A choice of the caller's; `None` when there is none.
pub(super) fn signing(choice: pb::WebhookSigning) -> Option<Signing> {
    match choice {
        pb::WebhookSigning::Unspecified => None,
        pb::WebhookSigning::HmacSha256 => Some(Signing::Hmac),
        pb::WebhookSigning::Ed25519 => Some(Signing::Ed25519),
    }
}

/// How events get to an endpoint, as the caller chose; `None` for no choice.
pub(super) fn mode(choice: pb::WebhookDeliveryMode) -> Option<DeliveryMode> {
    match choice {
        pb::WebhookDeliveryMode::Unspecified => None,
        pb::WebhookDeliveryMode::Concurrent => Some(DeliveryMode::Concurrent),
        pb::WebhookDeliveryMode::Ordered => Some(DeliveryMode::Ordered),
        pb::WebhookDeliveryMode::Batched => Some(DeliveryMode::Batched),
        pb::WebhookDeliveryMode::Pulled => Some(DeliveryMode::Pulled),
    }
}

fn shown_mode(mode: DeliveryMode) -> pb::WebhookDeliveryMode {
    match mode {
        DeliveryMode::Concurrent => pb::WebhookDeliveryMode::Concurrent,
        DeliveryMode::Ordered => pb::WebhookDeliveryMode::Ordered,
        DeliveryMode::Batched => pb::WebhookDeliveryMode::Batched,
        DeliveryMode::Pulled => pb::WebhookDeliveryMode::Pulled,
    }
}

impl From<pb::WebhookBatching> for Batching {
    fn from(batching: pb::WebhookBatching) -> Self {
        // A negative number is beyond every limit too.
        let max_events = u32::try_from(batching.max_events).unwrap_or(u32::MAX);
        Self { max_events, max_wait: batching.max_wait.map(length) }
    }
}

impl From<Batching> for pb::WebhookBatching {
    fn from(batching: Batching) -> Self {
        let max_events = i32::try_from(batching.max_events).unwrap_or(i32::MAX);
        Self { max_events, max_wait: batching.max_wait.map(duration) }
    }
}

/// What a new endpoint is like.
pub(super) fn fields(webhook: pb::Webhook) -> WebhookChange {
    let mode = mode(webhook.delivery_mode());
    WebhookChange {
        name: Some(webhook.name),
        url: Some(webhook.url),
        event_types: Some(webhook.event_types),
        description: Some(webhook.description),
        active: None,
        headers: Some(webhook.headers.into_iter().collect()),
        timeout: Some(webhook.timeout.map(length)),
        retry_policy: Some(webhook.retry_policy.map(RetryPolicy::from)),
        rate_limit: Some(webhook.rate_limit.map(RateLimit::from)),
        delivery_mode: mode,
        batching: Some(webhook.batching.map(Batching::from)),
        ca_certificates: Some(webhook.ca_certificates),
        client_certificate: Some(webhook.client_certificate),
        client_key: Some(SecretText::new(webhook.client_key)),
        version: None,
    }
}

/// A length of time from the wire; a negative one is beyond every limit.
pub(super) fn length(length: prost_types::Duration) -> Duration {
    from_duration(length).unwrap_or(Duration::MAX)
}

impl From<pb::WebhookRetryPolicy> for RetryPolicy {
    fn from(policy: pb::WebhookRetryPolicy) -> Self {
        let pb::WebhookRetryPolicy { schedule, retry_client_errors } = policy;
        Self { schedule: schedule.into_iter().map(length).collect(), retry_client_errors }
    }
}

impl From<RetryPolicy> for pb::WebhookRetryPolicy {
    fn from(policy: RetryPolicy) -> Self {
        let RetryPolicy { schedule, retry_client_errors } = policy;
        Self { schedule: schedule.into_iter().map(duration).collect(), retry_client_errors }
    }
}

impl From<pb::WebhookRateLimit> for RateLimit {
    fn from(limit: pb::WebhookRateLimit) -> Self {
        let requests = u32::try_from(limit.requests).unwrap_or(0);
        Self { requests, period: limit.period.map_or(Duration::ZERO, length) }
    }
}

impl From<RateLimit> for pb::WebhookRateLimit {
    fn from(limit: RateLimit) -> Self {
        let requests = i32::try_from(limit.requests).unwrap_or(i32::MAX);
        Self { requests, period: Some(duration(limit.period)) }
    }
}

impl From<Tested> for pb::WebhookAttempt {
    fn from(tested: Tested) -> Self {
        Self {
            number: 1,
            start_time: Some(timestamp(tested.started_at)),
            duration: Some(duration(tested.duration)),
            response_status: tested.attempt.response_status.unwrap_or_default(),
            response_body: tested.attempt.response_body.unwrap_or_default(),
            error_kind: error_kind(
                &tested.exchange.failure,
                tested.attempt.error.is_some(),
                tested.attempt.response_status,
            )
            .into(),
            error: tested.attempt.error.unwrap_or_default(),
            url: tested.exchange.url,
            request_headers: joined(tested.exchange.request_headers),
            request_body: tested.exchange.request_body,
            response_headers: joined(tested.exchange.response_headers),
            remote_address: tested.exchange.remote_address,
        }
    }
}

impl From<Delivery> for pb::WebhookDelivery {
    fn from(delivery: Delivery) -> Self {
        let known = State::of_word(&delivery.status, Table::WebhookDeliveries);
        Self {
            id: delivery.id,
            webhook_id: delivery.webhook_id,
            event_id: delivery.event_id,
            event_type: delivery.event_type,
            state: state(known).into(),
            attempts: delivery.attempts,
            last_error: delivery.error_message.unwrap_or_default(),
            response_status: delivery.response_status.unwrap_or_default(),
            create_time: Some(timestamp(delivery.created_at)),
            update_time: Some(timestamp(delivery.updated_at)),
            next_attempt_time: next_attempt(known, delivery.next_attempt_at),
        }
    }
}

impl From<(AttemptRow, Exchange)> for pb::WebhookAttempt {
    fn from((attempt, exchange): (AttemptRow, Exchange)) -> Self {
        let micros = u64::try_from(attempt.duration_micros).unwrap_or_default();
        Self {
            number: attempt.number,
            start_time: Some(timestamp(attempt.started_at)),
            duration: Some(duration(std::time::Duration::from_micros(micros))),
            response_status: attempt.response_status.unwrap_or_default(),
            response_body: attempt.response_body.unwrap_or_default(),
            error_kind: error_kind(
                &exchange.failure,
                attempt.error_message.is_some(),
                attempt.response_status,
            )
            .into(),
            error: attempt.error_message.unwrap_or_default(),
            url: exchange.url,
            request_headers: joined(exchange.request_headers),
            request_body: exchange.request_body,
            response_headers: joined(exchange.response_headers),
            remote_address: exchange.remote_address,
        }
    }
}

/// Several values of one header in one (RFC 9110, 5.3).
fn joined(headers: Vec<(String, String)>) -> HashMap<String, String> {
    let mut map = HashMap::<String, String>::new();
    for (name, value) in headers {
        map.entry(name).and_modify(|known| *known = format!("{known}, {value}")).or_insert(value);
    }
    map
}

fn error_kind(failure: &str, failed: bool, status: Option<i32>) -> pb::WebhookErrorKind {
    match failure {
        "resolve" => pb::WebhookErrorKind::Resolve,
        "refused" => pb::WebhookErrorKind::AddressRefused,
        "connection" => pb::WebhookErrorKind::Connection,
        "tls" => pb::WebhookErrorKind::Tls,
        "timeout" => pb::WebhookErrorKind::Timeout,
        "protocol" => pb::WebhookErrorKind::Protocol,
        _ if failed && status.is_some() => pb::WebhookErrorKind::Status,
        _ => pb::WebhookErrorKind::Unspecified,
    }
}

/// How an endpoint fares, and whether this node only probes it.
fn health(record: Record, probing: bool) -> pb::WebhookHealth {
    pb::WebhookHealth {
        failing_since: record.failing_since.map(timestamp),
        failures: record.failures,
        last_success_time: record.last_success_at.map(timestamp),
        last_failure_time: record.last_failure_at.map(timestamp),
        last_error: record.last_error,
        probing,
    }
}

/// An endpoint as it is shown now.
pub(super) fn wire(webhook: Webhook, probing: bool, now: Timestamp) -> pb::Webhook {
    let signing = match webhook.signing() {
        Signing::Hmac => pb::WebhookSigning::HmacSha256,
        Signing::Ed25519 => pb::WebhookSigning::Ed25519,
    };
    let end = webhook.previous_secret_expires_at.filter(|end| *end > now);
    pb::Webhook {
        timeout: webhook.options.timeout.map(duration),
        retry_policy: webhook.options.retry_policy.map(pb::WebhookRetryPolicy::from),
        rate_limit: webhook.options.rate_limit.map(pb::WebhookRateLimit::from),
        ca_certificates: webhook.options.ca_certificates,
        client_certificate: webhook.options.client_certificate,
        client_key: String::new(),
        signing: signing.into(),
        delivery_mode: shown_mode(webhook.options.delivery_mode).into(),
        batching: webhook.options.batching.map(pb::WebhookBatching::from),
        public_key: webhook.public_key,
        previous_secret_expire_time: end.map(timestamp),
        health: Some(health(webhook.health, probing)),
        disabled_reason: webhook.disabled_reason,
        id: webhook.id,
        name: webhook.name,
        url: webhook.url,
        event_types: webhook.event_types,
        description: webhook.description,
        active: webhook.active,
        headers: webhook.headers.into_iter().collect(),
        etag: webhook.version.to_string(),
        create_time: Some(timestamp(webhook.created_at)),
        update_time: Some(timestamp(webhook.updated_at)),
    }
}
