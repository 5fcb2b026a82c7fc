//! Requests that somebody asks for: deliveries once more, and tests.

use std::time::Duration;

use super::log::Exchange;
use super::log::store::{self as log, Delivery, Version};
use super::service::{RetryFilter, WebhookService};
use super::store;
use crate::clock::{Stopwatch, Timestamp};
use crate::delivery::{Attempt, Outcome, State, Table};
use crate::error::{Error, Kind, Result};
use crate::event::Fact;
use crate::id::Kind as IdKind;

/// How many are put back into the queue in one transaction.
const BATCH: i64 = 500;

/// A request that was made as a test.
pub struct Tested {
    /// When it was made.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// What came of it.
    pub attempt: Attempt,
    /// The request and the answer.
    pub exchange: Exchange,
}

impl Tested {
    /// Whether it was answered with 2xx.
    pub fn succeeded(&self) -> bool {
        self.attempt.outcome == Outcome::Succeeded
    }
}

impl WebhookService {
    /// Puts a delivery that has ended back into the queue.
    ///
    /// # Errors
    /// `NOT_FOUND`, or `FAILED_PRECONDITION` with the reason `NOT_RETRYABLE` when it has not ended, or `EVENT_GONE` when
    /// what it should deliver is no longer kept.
    pub async fn retry(&self, id: &str) -> Result<Delivery> {
        let (key, now) = (id.to_owned(), self.clock.now());
        let delivery = self
            .db
            .transaction(move |conn| {
                Box::pin(async move {
                    let ended = State::ALL.into_iter().filter(|state| state.is_final()).collect::<Vec<_>>();
                    let count = store::requeue(conn, std::slice::from_ref(&key), &ended, now).await?;
                    let delivery = log::find(conn, &key).await?;
                    if count == 1 {
                        return Ok(delivery);
                    }
                    let state = State::of_word(&delivery.status, Table::WebhookDeliveries);
                    if state.is_some_and(State::is_final) {
                        let message = "the event is no longer kept: there is nothing to deliver";
                        let error = Error::new(Kind::FailedPrecondition, "EVENT_GONE", message);
                        return Err(error.with("event_id", delivery.event_id));
                    }
                    let message = format!("the delivery is {}: it has not ended", delivery.status);
                    let error = Error::new(Kind::FailedPrecondition, "NOT_RETRYABLE", message);
                    Err(error.with("state", delivery.status))
                })
            })
            .await?;
        self.engine.wake();
        Ok(delivery)
    }

    /// Puts every delivery of a time that failed back into the queue; answers how many were.
    pub async fn retry_failed(&self, filter: RetryFilter) -> Result<i64> {
        let (mut total, mut after) = (0, String::new());
        loop {
            let (batch, now) = (filter.clone(), self.clock.now());
            // From id to id: one that has failed again meanwhile is not taken twice.
            let (count, last) = self
                .db
                .transaction(move |conn| {
                    Box::pin(async move {
                        let ids = store::failed(conn, &batch, &after, BATCH).await?;
                        let count = store::requeue(conn, &ids, &[State::Failed], now).await?;
                        Ok((count, ids.into_iter().next_back()))
                    })
                })
                .await?;
            total += count as i64;
            let Some(last) = last else { return Ok(total) };
            after = last;
            self.engine.wake();
        }
    }

    /// Sends the sample of an event type to an endpoint, active or not.
    ///
    /// # Errors
    /// `NOT_FOUND` when there is no such endpoint or type, `FAILED_PRECONDITION` with the reason `SAMPLE_MISSING` when the
    /// type has no sample, or `WEBHOOK_PULLED` when nothing is sent to the endpoint.
    pub async fn test(&self, webhook_id: &str, event_type: &str) -> Result<Tested> {
        let mut conn = self.db.reader().await?;
        let webhook = store::find(&mut conn, webhook_id).await?;
        webhook.refuse_pulled()?;
        // Another node may have changed it a moment ago.
        self.directory.refresh(&mut conn).await?;
        drop(conn);
        let sample = self.event_types.get(event_type).await?.sample;
        if sample.is_empty() {
            let message = format!("the event type {event_type:?} has no sample");
            return Err(Error::new(Kind::FailedPrecondition, "SAMPLE_MISSING", message));
        }
        let endpoint = self
            .directory
            .find(webhook_id)
            .ok_or_else(|| Error::internal("the endpoint can not be made ready: the log says why"))?;
        let fact = Fact {
            id: self.ids.next(IdKind::Event).into(),
            event_type: event_type.into(),
            data: sample,
            actor: String::new(),
            subject: String::new(),
            topic: crate::event::topic::DEFAULT.into(),
            created_at: self.clock.now(),
        };
        let (started_at, stopwatch) = (self.clock.now(), Stopwatch::start());
        let delivery = self.ids.next(IdKind::WebhookDelivery);
        let attempt = self.sender.send(&endpoint, &delivery, &fact).await;
        let duration = stopwatch.elapsed();
        let details = attempt.details.as_deref();
        let exchange =
            Exchange::of(details, Some(&Version::of(&webhook)), webhook_id, &delivery, Some(&fact));
        Ok(Tested { started_at, duration, attempt, exchange })
    }
}
