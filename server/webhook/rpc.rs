//! The wire: WebhookService.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::model::Webhook;
use super::service::{DeliveryFilter, WebhookChange, WebhookService};
use super::store::Delivery;
use crate::delivery::store::AttemptRow;
use crate::delivery::{State, Table};
use crate::error::Error;
use crate::pb::switchboard::webhook::v1 as pb;
use crate::rpc::convert::{duration, from_timestamp, next_attempt, state, states, timestamp};
use crate::rpc::mask::{self, Mask};
use crate::rpc::page::Page;

/// The service.
pub struct Rpc(pub Arc<WebhookService>);

const CHANGEABLE: [&str; 6] = ["name", "url", "event_types", "description", "active", "headers"];

#[tonic::async_trait]
impl pb::webhook_service_server::WebhookService for Rpc {
    async fn create_webhook(
        &self,
        request: Request<pb::CreateWebhookRequest>,
    ) -> Result<Response<pb::CreateWebhookResponse>, Status> {
        let pb::CreateWebhookRequest { webhook, inactive, validate_only } = request.into_inner();
        let webhook = webhook.ok_or_else(|| Error::field("webhook", "is required"))?;
        let change = WebhookChange {
            name: Some(webhook.name),
            url: Some(webhook.url),
            event_types: Some(webhook.event_types),
            description: Some(webhook.description),
            active: Some(!inactive),
            headers: Some(webhook.headers.into_iter().collect()),
            version: None,
        };
        let (webhook, secret) = self.0.create(change, validate_only).await?;
        let secret = secret.reveal().to_owned();
        Ok(Response::new(pb::CreateWebhookResponse { webhook: Some(webhook.into()), secret }))
    }

    async fn get_webhook(
        &self,
        request: Request<pb::GetWebhookRequest>,
    ) -> Result<Response<pb::GetWebhookResponse>, Status> {
        let webhook = self.0.get(&request.get_ref().webhook_id).await?;
        Ok(Response::new(pb::GetWebhookResponse { webhook: Some(webhook.into()) }))
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
        let webhooks = webhooks.into_iter().map(pb::Webhook::from).collect();
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
            version: mask::version(&webhook.etag)?,
        };
        let webhook = self.0.update(webhook.id, change).await?;
        Ok(Response::new(pb::UpdateWebhookResponse { webhook: Some(webhook.into()) }))
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
                &request.states,
                &request.created_after,
                &request.created_before,
            ],
        )?;
        let filter = DeliveryFilter {
            states: states(request.states()),
            webhook_id: request.webhook_id,
            event_id: request.event_id,
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
}

impl From<Webhook> for pb::Webhook {
    fn from(webhook: Webhook) -> Self {
        Self {
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
