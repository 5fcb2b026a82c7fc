//! The wire: EventService and RouteService.

pub mod convert;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod routes;

pub use routes::RouteRpc;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::registry::{EventType, RegistryService, TypeChange};
use super::service::{EventService, ListFilter, NewEvent, Requester};
use crate::error::{Error, Result as ServerResult};
use crate::event::{Erased, Published};
use crate::pb::switchboard::event::v1 as pb;
use crate::rpc::Principal;
use crate::rpc::convert::{from_timestamp, timestamp};
use crate::rpc::mask::{self, Mask};
use crate::rpc::page::Page;

/// EventService.
pub struct EventRpc {
    /// Events.
    pub events: Arc<EventService>,
    /// Event types.
    pub registry: RegistryService,
}

const CHANGEABLE: [&str; 4] = ["description", "fields", "json_schema", "sample"];

impl EventRpc {
    async fn publish(
        &self,
        principal: &Principal,
        events: Vec<NewEvent>,
        batch: bool,
    ) -> ServerResult<Vec<pb::PublishEventResponse>> {
        let requester = Requester { principal: &principal.actor() };
        let published = self.events.publish(requester, events, batch).await?;
        Ok(published.iter().map(|published| self.response(published)).collect())
    }

    fn response(&self, published: &Published) -> pb::PublishEventResponse {
        pb::PublishEventResponse {
            event_id: published.event_id.to_string(),
            cursor: self.events.cursor(published.position),
            create_time: Some(timestamp(published.created_at)),
            replayed: published.replayed,
        }
    }
}

#[tonic::async_trait]
impl pb::event_service_server::EventService for EventRpc {
    async fn publish_event(
        &self,
        request: Request<pb::PublishEventRequest>,
    ) -> Result<Response<pb::PublishEventResponse>, Status> {
        let principal = Principal::of(&request)?.clone();
        let mut published = self.publish(&principal, vec![request.into_inner().into()], false).await?;
        let published = published.pop().ok_or_else(|| Error::internal("a publish has no answer"))?;
        Ok(Response::new(published))
    }

    async fn batch_publish_events(
        &self,
        request: Request<pb::BatchPublishEventsRequest>,
    ) -> Result<Response<pb::BatchPublishEventsResponse>, Status> {
        let principal = Principal::of(&request)?.clone();
        let events = request.into_inner().requests.into_iter().map(NewEvent::from).collect();
        let responses = self.publish(&principal, events, true).await?;
        Ok(Response::new(pb::BatchPublishEventsResponse { responses }))
    }

    async fn get_event(
        &self,
        request: Request<pb::GetEventRequest>,
    ) -> Result<Response<pb::GetEventResponse>, Status> {
        let (event, outcomes) = self.events.get(&request.get_ref().event_id).await?;
        let outcomes = outcomes.into_iter().map(pb::EventOutcome::from).collect();
        Ok(Response::new(pb::GetEventResponse {
            event: Some(convert::event(&event, self.events.bus.epoch())),
            outcomes,
        }))
    }

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let request = request.into_inner();
        let page = Page::read(
            "events",
            request.page_size,
            &request.page_token,
            &[
                &request.event_types,
                &request.subject,
                &request.topic,
                &request.created_after,
                &request.created_before,
            ],
        )?;
        let filter = ListFilter {
            patterns: Vec::new(),
            subject: request.subject,
            topic: request.topic,
            created_after: request.created_after.map(from_timestamp),
            created_before: request.created_before.map(from_timestamp),
            before: page.after.as_ref().and_then(|key| key.parse().ok()),
        };
        let mut events = self.events.list(&request.event_types, filter, page.limit() as i64).await?;
        let next_page_token = page.cut(&mut events, |event| event.position.to_string());
        let epoch = self.events.bus.epoch();
        let events = events.iter().map(|event| convert::event(event, epoch)).collect();
        Ok(Response::new(pb::ListEventsResponse { events, next_page_token }))
    }

    async fn erase_events(
        &self,
        request: Request<pb::EraseEventsRequest>,
    ) -> Result<Response<pb::EraseEventsResponse>, Status> {
        let pb::EraseEventsRequest { subject, validate_only } = request.into_inner();
        let Erased { events, deliveries, emails, notifications, .. } =
            self.events.erase(&subject, validate_only).await?;
        let webhook_deliveries = deliveries;
        Ok(Response::new(pb::EraseEventsResponse { events, webhook_deliveries, emails, notifications }))
    }

    async fn create_event_type(
        &self,
        request: Request<pb::CreateEventTypeRequest>,
    ) -> Result<Response<pb::CreateEventTypeResponse>, Status> {
        let event_type =
            request.into_inner().event_type.ok_or_else(|| Error::field("event_type", "is required"))?;
        let mask = Mask::read(None, &CHANGEABLE)?;
        let name = event_type.name.clone();
        let event_type = self.registry.create(name, change(event_type, &mask)?).await?;
        Ok(Response::new(pb::CreateEventTypeResponse { event_type: Some(event_type.into()) }))
    }

    async fn get_event_type(
        &self,
        request: Request<pb::GetEventTypeRequest>,
    ) -> Result<Response<pb::GetEventTypeResponse>, Status> {
        let event_type = self.registry.get(&request.get_ref().name).await?;
        Ok(Response::new(pb::GetEventTypeResponse { event_type: Some(event_type.into()) }))
    }

    async fn list_event_types(
        &self,
        request: Request<pb::ListEventTypesRequest>,
    ) -> Result<Response<pb::ListEventTypesResponse>, Status> {
        let pb::ListEventTypesRequest { page_size, page_token } = request.into_inner();
        let page = Page::read("event types", page_size, &page_token, &[])?;
        let mut types = self.registry.list(page.after.as_deref(), page.limit()).await?;
        let next_page_token = page.cut(&mut types, |event_type| event_type.name.clone());
        let event_types = types.into_iter().map(pb::EventType::from).collect();
        Ok(Response::new(pb::ListEventTypesResponse { event_types, next_page_token }))
    }

    async fn update_event_type(
        &self,
        request: Request<pb::UpdateEventTypeRequest>,
    ) -> Result<Response<pb::UpdateEventTypeResponse>, Status> {
        let pb::UpdateEventTypeRequest { event_type, update_mask } = request.into_inner();
        let event_type = event_type.ok_or_else(|| Error::field("event_type", "is required"))?;
        let mask = Mask::read(update_mask, &CHANGEABLE)?;
        let name = event_type.name.clone();
        let event_type = self.registry.update(name, change(event_type, &mask)?).await?;
        Ok(Response::new(pb::UpdateEventTypeResponse { event_type: Some(event_type.into()) }))
    }

    async fn delete_event_type(
        &self,
        request: Request<pb::DeleteEventTypeRequest>,
    ) -> Result<Response<pb::DeleteEventTypeResponse>, Status> {
        self.registry.delete(request.into_inner().name).await?;
        Ok(Response::new(pb::DeleteEventTypeResponse {}))
    }
}

fn change(event_type: pb::EventType, mask: &Mask) -> ServerResult<TypeChange> {
    Ok(TypeChange {
        description: mask.take("description", event_type.description),
        fields: mask.take("fields", event_type.fields.into_iter().map(convert::field).collect()),
        json_schema: mask.take("json_schema", event_type.json_schema),
        sample: mask.take("sample", event_type.sample),
        version: mask::version(&event_type.etag)?,
    })
}

impl From<pb::PublishEventRequest> for NewEvent {
    fn from(request: pb::PublishEventRequest) -> Self {
        let pb::PublishEventRequest {
            event_type,
            data,
            actor,
            subject,
            request_id,
            topic,
            ephemeral,
            collapse_key,
        } = request;
        Self { event_type, data, actor, subject, topic, request_id, ephemeral, collapse_key }
    }
}

impl From<EventType> for pb::EventType {
    fn from(event_type: EventType) -> Self {
        Self {
            name: event_type.name,
            description: event_type.description,
            fields: event_type.fields.into_iter().map(convert::of_field).collect(),
            json_schema: event_type.json_schema,
            sample: event_type.sample,
            built_in: event_type.built_in,
            etag: event_type.version.to_string(),
        }
    }
}
