//! Deliveries of what was published before: to an endpoint that came later, or that was missing for a time.

mod store;

use std::sync::Arc;
use std::time::Duration;

use self::store::PastEvent;
use super::mode::DeliveryMode;
use super::service::WebhookService;
use super::store::{self as webhooks, NewDelivery};
use crate::clock::Timestamp;
use crate::error::{Result, Violations};
use crate::event::Fact;
use crate::event::pattern::Pattern;
use crate::event::topic;
use crate::id::{Kind as IdKind, lower_bound};

/// How many events are looked at in one transaction.
const BATCH: i64 = 500;
/// How many events one call looks at.
const CALL: usize = 10_000;
/// An id is made a moment after the time that its event bears; that moment is far shorter.
const LATER: Duration = Duration::from_secs(60);

/// Which events an endpoint is to get.
#[derive(Debug, Clone, Default)]
pub struct Backfill {
    /// The endpoint.
    pub webhook_id: String,
    /// Those accepted at or after this time.
    pub created_after: Timestamp,
    /// Those accepted before this time; `None` means now.
    pub created_before: Option<Timestamp>,
    /// What the call before answered, when this one is to go on there.
    pub go_on: Option<String>,
}

impl WebhookService {
    /// Makes the deliveries of wanted events that have none yet; answers how many were made, and where to go on when
    /// there is more than one call looks at.
    ///
    /// # Errors
    /// `NOT_FOUND`; `FAILED_PRECONDITION` with the reason `WEBHOOK_PULLED` or `WEBHOOK_INACTIVE`.
    pub async fn backfill(&self, backfill: Backfill) -> Result<(i64, Option<String>)> {
        let Backfill { webhook_id, created_after, created_before, go_on } = backfill;
        let mut violations = Violations::default();
        violations.require(
            created_before.is_none_or(|before| before > created_after),
            "created_before",
            "must be after created_after",
        );
        let place = match go_on {
            None => Some(Place { after: lower_bound(IdKind::Event, created_after), end: None }),
            Some(text) => violations.check(
                "page_token",
                Place::read(&text).ok_or_else(|| "is not a next_page_token of this call".to_owned()),
            ),
        };
        violations.finish()?;
        let place = place.expect("what is wrong with a place is a violation");
        // What is published meanwhile gets its deliveries anyway: a time without an end has one, so that the calls do.
        let now = self.clock.now() + Duration::from_micros(1);
        let end = place.end.or(created_before).map_or(now, |end| end.min(now));
        let within = created_after..end;

        let webhook = webhooks::find(&mut self.db.reader().await?, &webhook_id).await?;
        webhook.refuse_pulled()?;
        webhook.refuse_inactive()?;
        if within.is_empty() {
            return Ok((0, None));
        }
        let patterns: Vec<_> =
            webhook.event_types.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
        let wanted = |event: &PastEvent| {
            within.contains(&event.created_at)
                && patterns.iter().any(|pattern| pattern.matches(&event.event_type))
        };
        let last_id = lower_bound(IdKind::Event, end + LATER);
        let (mut after, mut count, mut seen) = (place.after, 0, 0);
        loop {
            let events = store::events(&mut self.db.reader().await?, &after, &last_id, BATCH).await?;
            let Some(last) = events.last() else { return Ok((count, None)) };
            after.clone_from(&last.id);
            seen += events.len();
            let more = events.len() == BATCH as usize;
            let events: Vec<_> = events.into_iter().filter(wanted).collect();
            if !events.is_empty() {
                count += self.make_missing(&webhook_id, events).await?;
                self.engine.wake();
            }
            if !more {
                return Ok((count, None));
            }
            if seen >= CALL {
                return Ok((count, Some(Place { after, end: Some(end) }.write())));
            }
        }
    }

    /// Makes a delivery of each of these events that has none to the endpoint; answers how many were made.
    async fn make_missing(&self, webhook_id: &str, events: Vec<PastEvent>) -> Result<i64> {
        let (webhook_id, now) = (Arc::<str>::from(webhook_id), self.clock.now());
        let ids = Arc::clone(&self.ids);
        self.db
            .transaction(move |conn| {
                Box::pin(async move {
                    // Under a lock, so that two calls at once do not both find that a delivery is missing.
                    store::lock(conn, &webhook_id).await?;
                    let webhook = webhooks::find(conn, &webhook_id).await?;
                    webhook.refuse_pulled()?;
                    webhook.refuse_inactive()?;
                    let found: Vec<_> = events.iter().map(|event| event.id.clone()).collect();
                    let delivered = store::delivered(conn, &webhook_id, &found).await?;
                    let missing = events.into_iter().filter(|event| !delivered.contains(&event.id));
                    let ordered = webhook.options.delivery_mode == DeliveryMode::Ordered;
                    let delivery = |event: PastEvent| NewDelivery {
                        id: ids.next(IdKind::WebhookDelivery),
                        webhook_id: Arc::clone(&webhook_id),
                        ordering: ordered.then(|| (event.subject.as_str().into(), event.position)),
                        parked: ordered,
                        fact: Arc::new(event.into()),
                        lease_owner: None,
                        now,
                    };
                    let rows: Vec<_> = missing.map(delivery).collect();
                    let count = rows.len() as i64;
                    if count > 0 {
                        webhooks::insert_waiting(conn, rows).await?;
                    }
                    Ok(count)
                })
            })
            .await
    }
}

impl From<PastEvent> for Fact {
    fn from(event: PastEvent) -> Self {
        let PastEvent { id, event_type, position: _, actor, subject, created_at } = event;
        let (id, event_type) = (id.into(), event_type.into());
        let topic = topic::DEFAULT.into();
        Self { id, event_type, data: String::new(), actor, subject, topic, created_at }
    }
}

/// Where a call goes on that another one left.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// After the event with this id.
    after: String,
    /// Until this time, which the first call chose.
    end: Option<Timestamp>,
}

impl Place {
    fn write(&self) -> String {
        format!("{} {}", self.after, self.end.unwrap_or_default().micros())
    }

    fn read(text: &str) -> Option<Self> {
        let (after, end) = text.split_once(' ')?;
        let end = Some(Timestamp::from_micros(end.parse().ok()?));
        Some(Self { after: after.to_owned(), end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let place = Place { after: "evt_1".into(), end: Some(Timestamp::from_micros(-5)) };
        assert_eq!(Place::read(&place.write()), Some(place));
        for other in ["", "evt_1", "evt_1 x", " "] {
            assert_eq!(Place::read(other), None, "{other:?}");
        }
    }
}
