//! The wire: WebhookService.

mod convert;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod pull;

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::mode::Batching;
use super::model::Webhook;
use super::policy::{RateLimit, RetryPolicy};
use super::rotation::Rotation;
use super::secret::Signing;
use super::service::{DeliveryFilter, NewSecret, RetryFilter, WebhookChange, WebhookService};
use crate::error::Error;
use crate::event::rpc::frame::Frame;
use crate::pb::switchboard::webhook::v1 as pb;
use crate::rpc::convert::{from_timestamp, states};
use crate::rpc::mask::{self, Mask};
use crate::rpc::page::Page;
use crate::secret::SecretText;
use convert::{length, mode, shown, signing};

/// The service.
pub struct Rpc(pub Arc<WebhookService>);

const CHANGEABLE: [&str; 14] = [
    "name",
    "url",
    "event_types",
    "description",
    "active",
    "headers",
    "timeout",
    "retry_policy",
    "rate_limit",
    "delivery_mode",
    "batching",
    "ca_certificates",
    "client_certificate",
    "client_key",
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
        let change = WebhookChange { active: Some(!inactive), ..convert::fields(webhook) };
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
        let mode = mode(webhook.delivery_mode());
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
            delivery_mode: mask.take("delivery_mode", mode).map(Option::unwrap_or_default),
            batching: mask.take("batching", webhook.batching.map(Batching::from)),
            ca_certificates: mask.take("ca_certificates", webhook.ca_certificates),
            client_certificate: mask.take("client_certificate", webhook.client_certificate),
            client_key: mask.take("client_key", SecretText::new(webhook.client_key)),
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

    async fn replay_webhook_events(
        &self,
        request: Request<pb::ReplayWebhookEventsRequest>,
    ) -> Result<Response<pb::ReplayWebhookEventsResponse>, Status> {
        Ok(Response::new(pull::replay_events(&self.0, request.into_inner()).await?))
    }

    async fn pull_webhook_events(
        &self,
        request: Request<pb::PullWebhookEventsRequest>,
    ) -> Result<Response<Frame>, Status> {
        Ok(Response::new(pull::pull(&self.0, request.into_inner()).await?))
    }

    async fn acknowledge_webhook_events(
        &self,
        request: Request<pb::AcknowledgeWebhookEventsRequest>,
    ) -> Result<Response<pb::AcknowledgeWebhookEventsResponse>, Status> {
        let pb::AcknowledgeWebhookEventsRequest { webhook_id, cursor } = request.into_inner();
        self.0.acknowledge(&webhook_id, &cursor).await?;
        Ok(Response::new(pb::AcknowledgeWebhookEventsResponse {}))
    }
}

impl Rpc {
    fn wire(&self, webhook: Webhook) -> pb::Webhook {
        let endpoint = self.0.directory.find(&webhook.id);
        let probing = endpoint.is_some_and(|endpoint| endpoint.pulse.is_open());
        convert::wire(webhook, probing, self.0.clock.now())
    }
}
