//! The use cases of events: publish, read, list.

use std::sync::Arc;

use super::bus::Bus;
use super::catalogue;
use super::cursor::Cursor;
use super::ephemeral::{Ephemeral, EphemeralHub};
use super::erase::{Belongings, Traces};
use super::model::{self, Event, Fact};
use super::pattern::{self, Pattern};
use super::publish::{PublishWrite, Published};
use super::registry::Registry;
use super::request::{RequestKey, check_request_id};
use super::store;
pub use super::store::{ListFilter, Outcome, Way};
use super::topic;
use crate::audit::Recorder;
use crate::clock::SharedClock;
use crate::db::Db;
use crate::db::group::Lane;
use crate::error::{Error, Kind, Result, Violations};
use crate::id::{IdGenerator, Kind as IdKind};

/// The most events in one batch.
pub const BATCH_LIMIT: usize = 500;
const OUTCOME_LIMIT: i64 = 1_000;
const TYPE_FILTERS: usize = 20;

/// What an application wants to publish.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "as in `Fact`")]
pub struct NewEvent {
    pub event_type: String,
    pub data: String,
    pub actor: String,
    pub subject: String,
    pub topic: String,
    pub request_id: String,
    pub ephemeral: bool,
    pub collapse_key: String,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Requester<'a> {
    /// The API key's id; request ids are per key.
    pub principal: &'a str,
}

/// What became of an event: one entry per destination.
pub type Outcomes = Vec<Outcome>;

/// The use cases.
pub struct EventService {
    /// The database.
    pub db: Db,
    /// Where publishes go.
    pub publishes: Lane<PublishWrite>,
    /// The event types.
    pub registry: Arc<Registry>,
    /// The live end of the log.
    pub bus: Arc<Bus>,
    /// What goes to live subscribers only.
    pub hub: Arc<EphemeralHub>,
    /// What the channels have made of events.
    pub traces: Arc<[Arc<dyn Traces>]>,
    /// Records what is erased.
    pub audit: Recorder,
    /// What is kept of subjects beside their events.
    pub belongings: Arc<[Arc<dyn Belongings>]>,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
}

impl EventService {
    /// Publishes events, all or none, and answers once they are durable.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with every violation, under `requests[i]` when `batch` is true.
    pub async fn publish(
        &self,
        requester: Requester<'_>,
        events: Vec<NewEvent>,
        batch: bool,
    ) -> Result<Vec<Published>> {
        let mut violations = Violations::default();
        if batch && !(1..=BATCH_LIMIT).contains(&events.len()) {
            violations
                .add("requests", format!("must have 1 to {BATCH_LIMIT} events, and has {}", events.len()));
            violations.finish()?;
            unreachable!("a violation was noted");
        }
        let mut request_ids = std::collections::HashSet::new();
        for (index, event) in events.iter().enumerate() {
            let path = |field: &str| {
                if batch { format!("requests[{index}].{field}") } else { field.to_owned() }
            };
            self.check(event, &mut violations, &path);
            if !event.request_id.is_empty() && !request_ids.insert(event.request_id.as_str()) {
                violations.add(path("request_id"), "is used twice in this batch");
            }
        }
        violations.finish()?;
        if let Some(event) = events.iter().find(|event| catalogue::is_reserved(&event.event_type)) {
            let message =
                format!("events of the type {} are published by the server alone", event.event_type);
            return Err(Error::new(Kind::InvalidArgument, "EVENT_TYPE_RESERVED", message)
                .with("event_type", &event.event_type));
        }
        let now = self.clock.now();
        let key = |event: &NewEvent| {
            // A topic counts when there is one, so that requests from before there were topics are known again.
            let mut parts = vec![&event.event_type, &event.data, &event.actor, &event.subject];
            parts.extend((!event.topic.is_empty()).then_some(&event.topic));
            let parts: Vec<_> = parts.into_iter().map(String::as_bytes).collect();
            RequestKey::new(requester.principal, &event.request_id, "PublishEvent", &parts)
        };
        let fact = |event: NewEvent| {
            let data = if event.data.is_empty() { "{}".to_owned() } else { event.data };
            Arc::new(Fact {
                id: self.ids.next(IdKind::Event).into(),
                event_type: event.event_type.into(),
                data,
                actor: event.actor,
                subject: event.subject,
                topic: if event.topic.is_empty() { topic::DEFAULT.into() } else { event.topic.into() },
                created_at: now,
            })
        };
        let (mut facts, mut keys, mut ephemeral) = (Vec::new(), Vec::new(), Vec::new());
        for (place, mut event) in events.into_iter().enumerate() {
            if event.ephemeral {
                let collapse_key = std::mem::take(&mut event.collapse_key);
                ephemeral.push((place, Ephemeral::new(fact(event), collapse_key)));
            } else {
                keys.push(key(&event));
                facts.push(fact(event));
            }
        }
        let mut published = match facts.is_empty() {
            true => Vec::new(),
            false => self.publishes.write(PublishWrite { facts, keys }).await??,
        };
        // After the others are durable: all or none.
        for (place, event) in ephemeral {
            let (event_id, created_at) = (Arc::clone(&event.fact.id), event.fact.created_at);
            published.insert(place, Published { event_id, position: 0, created_at, replayed: false });
            self.hub.publish(event);
        }
        Ok(published)
    }

    /// Checks an event as a publish would.
    pub fn check(&self, event: &NewEvent, violations: &mut Violations, path: &dyn Fn(&str) -> String) {
        check(&self.registry, event, violations, path);
    }

    /// One event, and what became of it on every channel.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn get(&self, event_id: &str) -> Result<(Event, Outcomes)> {
        let mut conn = self.db.reader().await?;
        let event =
            store::find(&mut conn, event_id).await?.ok_or_else(|| Error::not_found("event", event_id))?;
        let outcomes = store::outcomes(&mut conn, event_id, OUTCOME_LIMIT).await?;
        Ok((event, outcomes))
    }

    /// Events, newest first, before `before`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a bad pattern.
    pub async fn list(&self, types: &[String], mut filter: ListFilter, limit: i64) -> Result<Vec<Event>> {
        let mut violations = Violations::default();
        violations.require(types.len() <= TYPE_FILTERS, "event_types", "must have at most 20 entries");
        let patterns = pattern::parse_all(&mut violations, "event_types", types);
        violations.finish()?;
        if !patterns.contains(&Pattern::All) {
            filter.patterns = patterns;
        }
        store::list(&mut self.db.reader().await?, &filter, limit).await
    }

    /// A place in this database's log, for callers; nothing for what has none.
    pub fn cursor(&self, position: i64) -> String {
        if position == 0 { String::new() } else { Cursor { epoch: self.bus.epoch(), position }.encode() }
    }

    /// Refuses what nobody can have asked for, before the database is asked.
    ///
    /// # Errors
    /// `NOT_FOUND` when `id` is not an event's.
    pub fn check_id(id: &str) -> Result<()> {
        if crate::id::is_valid(IdKind::Event, id) { Ok(()) } else { Err(Error::not_found("event", id)) }
    }
}

/// Checks an event as a publish would, with these event types.
pub(in crate::event) fn check(
    registry: &Registry,
    event: &NewEvent,
    violations: &mut Violations,
    path: &dyn Fn(&str) -> String,
) {
    let type_ok = violations.check(&path("event_type"), model::check_event_type(&event.event_type)).is_some();
    let data = if event.data.is_empty() { "{}" } else { &event.data };
    let data_ok = violations.check(&path("data"), model::check_data(data)).is_some();
    model::check_text(violations, &path("actor"), &event.actor);
    model::check_text(violations, &path("subject"), &event.subject);
    if !event.topic.is_empty() {
        violations.check(&path("topic"), topic::check(&event.topic));
    }
    check_request_id(violations, &path("request_id"), &event.request_id);
    if event.ephemeral {
        model::check_collapse_key(violations, &path("collapse_key"), &event.collapse_key);
        let ok = event.request_id.is_empty();
        violations.require(ok, &path("request_id"), "must be empty: nothing is kept of an ephemeral event");
    } else {
        let ok = event.collapse_key.is_empty();
        violations.require(ok, &path("collapse_key"), "must be empty: only ephemeral events have one");
    }
    if type_ok && data_ok {
        registry.check(&event.event_type, data, violations, path);
    }
}
