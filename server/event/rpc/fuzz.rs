//! Requests about events and routes.

use super::convert::field;
use super::routes::{CHANGEABLE, changed_target, target};
use super::{change, pb};
use crate::event::registry::{Registry, check_type};
use crate::event::route::Target;
use crate::event::route::expression::{Expression, Text};
use crate::event::service::{NewEvent, check};
use crate::fuzz::accepts;
use crate::fuzz::wire::{choose, decode, decode_as};
use crate::rpc::mask::Mask;

fn publish(event: pb::PublishEventRequest) {
    let event = NewEvent::from(event);
    let registry = Registry::default();
    if !accepts(|violations| check(&registry, &event, violations, &str::to_owned)) {
        return;
    }
    assert!((1..=128).contains(&event.event_type.len()) && event.event_type.is_ascii());
    assert!(event.data.len() <= 1024 * 1024 && event.topic.len() <= 128);
    for text in [&event.actor, &event.subject, &event.request_id, &event.collapse_key] {
        assert!(!text.chars().any(char::is_control) && text.chars().count() <= 256);
    }
    assert!(event.ephemeral || event.collapse_key.is_empty());
    assert!(!event.ephemeral || event.request_id.is_empty());
}

fn event_type(event_type: pb::EventType, mask: Option<prost_types::FieldMask>) {
    let Ok(mask) = Mask::read(mask, &super::CHANGEABLE) else { return };
    let fields: Vec<_> = event_type.fields.iter().cloned().map(field).collect();
    let Ok(change) = change(event_type, &mask) else { return };
    assert!(change.fields.as_ref().is_none_or(|changed| *changed == fields));
    if !accepts(|violations| check_type(&change, violations)) {
        return;
    }
    let mut texts = change.description.iter().chain(&change.json_schema).chain(&change.sample);
    assert!(texts.all(|text| !text.contains('\0')), "the database has no place for NUL");
    assert!(change.json_schema.is_none_or(|schema| schema.len() <= 64 * 1024));
    assert!(change.fields.is_none_or(|fields| fields.len() <= 100));
}

fn route(route: pb::Route, mask: Option<prost_types::FieldMask>) {
    if let Ok(mask) = Mask::read(mask, &CHANGEABLE) {
        let _ = changed_target(&mask, route.target.clone());
    }
    let _ = Expression::compile(&route.condition);
    match route.target.map(target) {
        Some(Ok(Target::Email(email))) => {
            for text in email.variables.values() {
                let _ = Expression::compile(text);
            }
        }
        Some(Ok(Target::Inbox(inbox))) => {
            for text in [&inbox.title, &inbox.message, &inbox.priority, &inbox.action_url] {
                let _ = Text::compile(text);
            }
        }
        Some(Err(_)) | None => {}
    }
}

/// A request, and which one it is.
pub fn event_requests(data: &[u8]) {
    let Some((which, message)) = choose(data, 8) else { return };
    match which {
        0 => decode(message).into_iter().for_each(publish),
        1 => {
            if let Some(batch) = decode::<pb::BatchPublishEventsRequest>(message) {
                batch.requests.into_iter().for_each(publish);
            }
        }
        2 => {
            if let Some(pb::UpdateEventTypeRequest { event_type: Some(kind), update_mask }) = decode(message)
            {
                event_type(kind, update_mask);
            }
        }
        3 => {
            if let Some(pb::CreateEventTypeRequest { event_type: Some(kind) }) = decode(message) {
                event_type(kind, None);
            }
        }
        4 => {
            if let Some(pb::UpdateRouteRequest { route: Some(changed), update_mask }) = decode(message) {
                route(changed, update_mask);
            }
        }
        5 => {
            if let Some(pb::CreateRouteRequest { route: Some(new), .. }) = decode(message) {
                route(new, None);
            }
        }
        _ => decode_as!(message;
            GetEventRequest ListEventsRequest EraseEventsRequest GetEventTypeRequest ListEventTypesRequest
            DeleteEventTypeRequest GetRouteRequest ListRoutesRequest DeleteRouteRequest TestRouteRequest
        ),
    }
}
