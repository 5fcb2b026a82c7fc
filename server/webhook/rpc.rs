//! The wire: WebhookService.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::model::Webhook;
use super::policy::{RateLimit, RetryPolicy};
use super::replay::Tested;
use super::rotation::Rotation;
use super::secret::Signing;
use super::service::{DeliveryFilter, NewSecret, RetryFilter, WebhookChange, WebhookService};
use super::stats::Stats;
use super::store::Delivery;
use crate::delivery::store::AttemptRow;
use crate::delivery::{State, Table};
use crate::error::Error;
use crate::pb::switchboard::webhook::v1 as pb;
use crate::rpc::convert::{duration, from_duration, from_timestamp, next_attempt, state, states, timestamp};
use crate::rpc::mask::{self, Mask};
use crate::rpc::page::Page;
use crate::secret::SecretText;

/// The service.
pub struct Rpc(pub Arc<WebhookService>);

const CHANGEABLE: [&str; 9] = [
    "name",
    "url",
    "event_types",
    "description",
    "active",
    "headers",
    "timeout",
    "retry_policy",
    "rate_limit",
];

#[tonic::async_trait]
impl pb::webhook_service_server::WebhookService for Rpc {
    async fn create_webhook(
        &self,
        request: Request<pb::CreateWebhookRequest>,
    ) -> Result<Response<pb::CreateWebhookResponse>, Status> {
        let pb::CreateWebhookRequest { webhook, inactive, validate_only, secret } = request.into_inner();
        let webhook = webhook.ok_or_else(|| Error::field("webhook", "is required"))?;
        let signing = signing(webhook.signing()).unwrap_or(Signing::Hmac);
        let change = WebhookChange {
            name: Some(webhook.name),
            url: Some(webhook.url),
            event_types: Some(webhook.event_types),
            description: Some(webhook.description),
            active: Some(!inactive),
            headers: Some(webhook.headers.into_iter().collect()),
            timeout: Some(webhook.timeout.map(length)),
            retry_policy: Some(webhook.retry_policy.map(RetryPolicy::from)),
            rate_limit: Some(webhook.rate_limit.map(RateLimit::from)),
            version: None,
        };
        let new = NewSecret { secret: SecretText::new(secret), signing, validate_only };
        let (webhook, secret) = self.0.create(change, new).await?;
        let secret = shown(&webhook, &secret);
        Ok(Response::new(pb::CreateWebhookResponse { webhook: Some(self.wire(webhook)), secret }))
    }

    async fn get_webhook(
        &self,
        request: Request<pb::GetWebhookRequest>,
    ) -> Result<Response<pb::GetWebhookResponse>, Status> {
        let webhook = self.0.get(&request.get_ref().webhook_id).await?;
        Ok(Response::new(pb::GetWebhookResponse { webhook: Some(self.wire(webhook)) }))
    }

    async fn list_webhooks(
        &self,
        request: Request<pb::ListWebhooksRequest>,
    ) -> Result<Response<pb::ListWebhooksResponse>, Status> {
        let pb::ListWebhooksRequest { active, event_type, page_size, page_token } = request.into_inner();
        let page = Page::read("webhooks", page_size, &page_token, &[&active, &event_type])?;
        let after = page.after.as_deref().unwrap_or_default();
        let mut webhooks = self.0.list(after, active, &event_type, page.limit()).await?;
        let next_page_token = page.cut(&mut webhooks, |webhook| webhook.id.clone());
        let webhooks = webhooks.into_iter().map(|webhook| self.wire(webhook)).collect();
        Ok(Response::new(pb::ListWebhooksResponse { webhooks, next_page_token }))
    }

    async fn update_webhook(
        &self,
        request: Request<pb::UpdateWebhookRequest>,
    ) -> Result<Response<pb::UpdateWebhookResponse>, Status> {
        let pb::UpdateWebhookRequest { webhook, update_mask } = request.into_inner();
        let webhook = webhook.ok_or_else(|| Error::field("webhook", "is required"))?;
        let mask = Mask::read(update_mask, &CHANGEABLE)?;
        let change = WebhookChange {
            name: mask.take("name", webhook.name),
            url: mask.take("url", webhook.url),
            event_types: mask.take("event_types", webhook.event_types),
            description: mask.take("description", webhook.description),
            active: mask.take("active", webhook.active),
            headers: mask.take("headers", webhook.headers.into_iter().collect()),
            timeout: mask.take("timeout", webhook.timeout.map(length)),
            retry_policy: mask.take("retry_policy", webhook.retry_policy.map(RetryPolicy::from)),
            rate_limit: mask.take("rate_limit", webhook.rate_limit.map(RateLimit::from)),
            version: mask::version(&webhook.etag)?,
        };
        let webhook = self.0.update(webhook.id, change).await?;
        Ok(Response::new(pb::UpdateWebhookResponse { webhook: Some(self.wire(webhook)) }))
    }

    async fn delete_webhook(
        &self,
        request: Request<pb::DeleteWebhookRequest>,
    ) -> Result<Response<pb::DeleteWebhookResponse>, Status> {
        let pb::DeleteWebhookRequest { webhook_id, etag } = request.into_inner();
        self.0.delete(webhook_id, mask::version(&etag)?).await?;
        Ok(Response::new(pb::DeleteWebhookResponse {}))
    }

    async fn list_webhook_deliveries(
        &self,
        request: Request<pb::ListWebhookDeliveriesRequest>,
    ) -> Result<Response<pb::ListWebhookDeliveriesResponse>, Status> {
        let request = request.into_inner();
        let page = Page::read(
            "webhook deliveries",
            request.page_size,
            &request.page_token,
            &[
                &request.webhook_id,
                &request.event_id,
                &request.event_type,
                &request.states,
                &request.created_after,
                &request.created_before,
            ],
        )?;
        let filter = DeliveryFilter {
            states: states(request.states()),
            webhook_id: request.webhook_id,
            event_id: request.event_id,
            event_type: request.event_type,
            created_after: request.created_after.map(from_timestamp),
            created_before: request.created_before.map(from_timestamp),
            before: page.after.clone(),
        };
        let mut deliveries = self.0.deliveries(&filter, page.limit() as i64).await?;
        let next_page_token = page.cut(&mut deliveries, |delivery| delivery.id.clone());
        let deliveries = deliveries.into_iter().map(pb::WebhookDelivery::from).collect();
        Ok(Response::new(pb::ListWebhookDeliveriesResponse { deliveries, next_page_token }))
    }

    async fn get_webhook_delivery(
        &self,
        request: Request<pb::GetWebhookDeliveryRequest>,
    ) -> Result<Response<pb::GetWebhookDeliveryResponse>, Status> {
        let (delivery, attempts) = self.0.delivery(&request.get_ref().delivery_id).await?;
        let attempts = attempts.into_iter().map(pb::WebhookAttempt::from).collect();
        Ok(Response::new(pb::GetWebhookDeliveryResponse { delivery: Some(delivery.into()), attempts }))
    }

    async fn rotate_webhook_secret(
        &self,
        request: Request<pb::RotateWebhookSecretRequest>,
    ) -> Result<Response<pb::RotateWebhookSecretResponse>, Status> {
        let request = request.into_inner();
        let rotation = Rotation {
            signing: signing(request.signing()),
            webhook_id: request.webhook_id,
            secret: SecretText::new(request.secret),
            overlap: request.overlap.map_or(Duration::ZERO, length),
        };
        let (webhook, secret) = self.0.rotate(rotation).await?;
        let secret = shown(&webhook, &secret);
        Ok(Response::new(pb::RotateWebhookSecretResponse { webhook: Some(self.wire(webhook)), secret }))
    }

    async fn test_webhook(
        &self,
        request: Request<pb::TestWebhookRequest>,
    ) -> Result<Response<pb::TestWebhookResponse>, Status> {
        let pb::TestWebhookRequest { webhook_id, event_type } = request.into_inner();
        let tested = self.0.test(&webhook_id, &event_type).await?;
        let succeeded = tested.succeeded();
        Ok(Response::new(pb::TestWebhookResponse { succeeded, attempt: Some(tested.into()) }))
    }

    async fn retry_webhook_delivery(
        &self,
        request: Request<pb::RetryWebhookDeliveryRequest>,
    ) -> Result<Response<pb::RetryWebhookDeliveryResponse>, Status> {
        let delivery = self.0.retry(&request.get_ref().delivery_id).await?;
        Ok(Response::new(pb::RetryWebhookDeliveryResponse { delivery: Some(delivery.into()) }))
    }

    async fn retry_failed_webhook_deliveries(
        &self,
        request: Request<pb::RetryFailedWebhookDeliveriesRequest>,
    ) -> Result<Response<pb::RetryFailedWebhookDeliveriesResponse>, Status> {
        let request = request.into_inner();
        let after = request.created_after.ok_or_else(|| Error::field("created_after", "is required"))?;
        let filter = RetryFilter {
            webhook_id: request.webhook_id,
            created_after: from_timestamp(after),
            created_before: request.created_before.map_or_else(|| self.0.clock.now(), from_timestamp),
        };
        let count = self.0.retry_failed(filter).await?;
        Ok(Response::new(pb::RetryFailedWebhookDeliveriesResponse { count }))
    }

    async fn get_webhook_stats(
        &self,
        request: Request<pb::GetWebhookStatsRequest>,
    ) -> Result<Response<pb::GetWebhookStatsResponse>, Status> {
        let pb::GetWebhookStatsRequest { webhook_id, start_time, end_time } = request.into_inner();
        let (start, end) = (start_time.map(from_timestamp), end_time.map(from_timestamp));
        let (total, each) = self.0.stats(&webhook_id, start, end).await?;
        let webhooks = each.into_iter().map(pb::WebhookStats::from).collect();
        Ok(Response::new(pb::GetWebhookStatsResponse { total: Some(total.into()), webhooks }))
    }
}

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
fn shown(webhook: &Webhook, secret: &SecretText) -> String {
    match webhook.signing() {
        Signing::Hmac => secret.reveal().to_owned(),
        Signing::Ed25519 => String::new(),
    }
}

/// A choice of the caller's; `None` when there is none.
fn signing(choice: pb::WebhookSigning) -> Option<Signing> {
    match choice {
        pb::WebhookSigning::Unspecified => None,
        pb::WebhookSigning::HmacSha256 => Some(Signing::Hmac),
        pb::WebhookSigning::Ed25519 => Some(Signing::Ed25519),
    }
}

/// A length of time from the wire; a negative one is beyond every limit.
fn length(length: prost_types::Duration) -> Duration {
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
            error: tested.attempt.error.unwrap_or_default(),
        }
    }
}

impl Rpc {
    fn wire(&self, webhook: Webhook) -> pb::Webhook {
        let now = self.0.clock.now();
        let signing = match webhook.signing() {
            Signing::Hmac => pb::WebhookSigning::HmacSha256,
            Signing::Ed25519 => pb::WebhookSigning::Ed25519,
        };
        let end = webhook.previous_secret_expires_at.filter(|end| *end > now);
        pb::Webhook {
            timeout: webhook.options.timeout.map(duration),
            retry_policy: webhook.options.retry_policy.map(pb::WebhookRetryPolicy::from),
            rate_limit: webhook.options.rate_limit.map(pb::WebhookRateLimit::from),
            signing: signing.into(),
            public_key: webhook.public_key,
            previous_secret_expire_time: end.map(timestamp),
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

impl From<AttemptRow> for pb::WebhookAttempt {
    fn from(attempt: AttemptRow) -> Self {
        let micros = u64::try_from(attempt.duration_micros).unwrap_or_default();
        Self {
            number: attempt.number,
            start_time: Some(timestamp(attempt.started_at)),
            duration: Some(duration(std::time::Duration::from_micros(micros))),
            response_status: attempt.response_status.unwrap_or_default(),
            response_body: attempt.response_body.unwrap_or_default(),
            error: attempt.error_message.unwrap_or_default(),
        }
    }
}
