//! Deliveries to an endpoint that wants its events in order: how fast subjects go side by side, and one alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use switchboard_client::event::v1::{BatchPublishEventsRequest, PublishEventRequest};
use switchboard_client::webhook::v1::{Webhook, WebhookDeliveryMode};

use super::reconcile::{Reconciled, Sent};
use super::say;
use crate::client::{self, WANTED, payload};
use crate::error::{Context, Result};
use crate::report::{Figure, Report};
use crate::sink::Arrival;
use crate::stage::{Stage, endpoint};

/// How many events, of how many subjects.
const CASES: [(usize, usize); 2] = [(10_000, 50), (500, 1)];
/// How many events a call publishes.
const BATCH: usize = 100;
/// How long they may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures each case on the one endpoint.
pub async fn measure(stage: &Stage<'_>, report: &mut Report) -> Result<()> {
    let ordered =
        Webhook { delivery_mode: WebhookDeliveryMode::Ordered.into(), ..endpoint(stage.sink.url(0), WANTED) };
    stage.add([ordered]).await?;
    for (count, subjects) in CASES {
        let case = format!("{count} events of {subjects} subjects");
        say(&format!("ordered, {case}"));
        let begin = Instant::now();
        let sent = publish(stage, count, subjects).await?;
        stage.drained(count as u64, PATIENCE).await;
        let arrivals = stage.sink.take();
        let found = Reconciled::new(&sent, &arrivals, 1);
        let time = found.last.map_or(PATIENCE, |last| last.saturating_duration_since(begin));
        let mut figures =
            vec![Figure::spread("deliveries/s", found.from_send.len() as f64 / time.as_secs_f64())];
        figures.push(Figure::sum("order violations", violations(&sent, &arrivals, subjects)));
        figures.extend(found.faults());
        report.add("ordered", &case, stage.backend.name(), &figures);
    }
    Ok(())
}

/// Publishes them one call after the other, the subjects in turn.
async fn publish(stage: &Stage<'_>, count: usize, subjects: usize) -> Result<Vec<Sent>> {
    let channel = client::connections(stage.server.address(), 1).await?.remove(0);
    let mut events = client::client(channel)?.events();
    let mut sent = Vec::with_capacity(count);
    for first in (0..count).step_by(BATCH) {
        let request = |number: usize| PublishEventRequest {
            event_type: WANTED.to_owned(),
            data: payload(number as u64),
            subject: format!("machine:{}", number % subjects),
            ..PublishEventRequest::default()
        };
        let requests = (first..count.min(first + BATCH)).map(request).collect();
        let at = Instant::now();
        let answer = events.batch_publish_events(BatchPublishEventsRequest { requests }).await;
        let responses = answer.context("BatchPublishEvents")?.into_inner().responses;
        let acknowledged = Instant::now();
        sent.extend(responses.into_iter().map(|response| Sent {
            event: response.event_id,
            at,
            acknowledged,
        }));
    }
    Ok(sent)
}

/// How often an event arrived before one that was published earlier under the same subject.
fn violations(sent: &[Sent], arrivals: &[Arrival], subjects: usize) -> usize {
    let places: HashMap<&str, usize> =
        sent.iter().enumerate().map(|(place, sent)| (sent.event.as_str(), place)).collect();
    let mut last = vec![None; subjects];
    let mut violations = 0;
    for place in arrivals.iter().filter_map(|arrival| places.get(arrival.event.as_str()).copied()) {
        let of_subject = &mut last[place % subjects];
        violations += usize::from(of_subject.is_some_and(|last| place < last));
        *of_subject = Some(place);
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overtakes_another_of_its_subject_is_found() {
        let now = Instant::now();
        let sent = ["a", "b", "c", "d"].map(|event| Sent { event: event.into(), at: now, acknowledged: now });
        let arrived = |events: [&str; 4]| {
            let arrivals = events.map(|event| Arrival { event: event.into(), endpoint: 0, at: now });
            violations(&sent, &arrivals, 2)
        };
        assert_eq!(arrived(["b", "a", "c", "d"]), 0);
        assert_eq!(arrived(["c", "b", "a", "d"]), 1);
    }
}
