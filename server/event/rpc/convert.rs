//! Events on the wire.

use crate::event::catalogue::Field;
use crate::event::cursor::Cursor;
use crate::event::ephemeral::Ephemeral;
use crate::event::{Event, Fact, Outcome, Way};
use crate::pb::switchboard::delivery::v1::Channel;
use crate::pb::switchboard::event::v1 as pb;
use crate::rpc::convert::{next_attempt, state, timestamp};

/// An event, with its place in the log of this epoch.
pub fn event(event: &Event, epoch: i64) -> pb::Event {
    let cursor = Cursor { epoch, position: event.position }.encode();
    of_fact(&event.fact, cursor, String::new())
}

/// An event that has no place in the log.
pub fn ephemeral(event: &Ephemeral) -> pb::Event {
    of_fact(&event.fact, String::new(), event.collapse_key.clone())
}

fn of_fact(fact: &Fact, cursor: String, collapse_key: String) -> pb::Event {
    pb::Event {
        id: fact.id.to_string(),
        event_type: fact.event_type.to_string(),
        data: fact.data.clone(),
        actor: fact.actor.clone(),
        subject: fact.subject.clone(),
        create_time: Some(timestamp(fact.created_at)),
        cursor,
        topic: fact.topic.to_string(),
        collapse_key,
    }
}

impl From<Outcome> for pb::EventOutcome {
    fn from(outcome: Outcome) -> Self {
        let channel = match outcome.way {
            Way::Webhook => Channel::Webhook,
            Way::Email => Channel::Email,
            Way::Inbox => Channel::Inbox,
        };
        Self {
            channel: channel.into(),
            id: outcome.id,
            source_id: outcome.source_id,
            destination: outcome.destination,
            state: state(outcome.state).into(),
            attempts: outcome.attempts,
            last_error: outcome.last_error.unwrap_or_default(),
            next_attempt_time: next_attempt(outcome.state, outcome.next_attempt_at),
            update_time: Some(timestamp(outcome.updated_at)),
        }
    }
}

/// A field of a payload, from the wire.
pub(super) fn field(field: pb::EventField) -> Field {
    let pb::EventField { name, r#type, description, required } = field;
    Field { name, json_type: r#type, description, required }
}

/// A field of a payload, for the wire.
pub(super) fn of_field(field: Field) -> pb::EventField {
    let Field { name, json_type, description, required } = field;
    pb::EventField { name, r#type: json_type, description, required }
}
