//! The server's own record of what became of each event, which must agree with what arrived.

use std::collections::BTreeMap;
use std::time::Duration;

use switchboard_client::Client;
use switchboard_client::delivery::v1::{Channel, DeliveryState};
use switchboard_client::event::v1::{EventOutcome, GetEventRequest};

use super::arrival::Notes;
use super::check::{Tally, address};
use super::failure::{Failure, Result};
use super::journal::Journal;
use super::plan::{Cause, Plan};

/// Between two readings.
const PAUSE: Duration = Duration::from_millis(50);

/// Reads the record until every delivery in it has succeeded, or until `limit`; once in any case.
pub async fn read(
    client: &Client,
    plan: &Plan,
    journal: &Journal,
    notes: &Notes,
    limit: Duration,
) -> Result<Tally> {
    let mut outcomes = BTreeMap::new();
    loop {
        for index in 0..plan.events.len() {
            let Some(origin) = journal.origin(Cause::Event(index)) else {
                continue;
            };
            let request = GetEventRequest { event_id: origin.id.clone() };
            let failed = Failure::call("an event could not be read");
            let response = client.events().get_event(request).await.map_err(failed)?;
            outcomes.insert(index, response.into_inner().outcomes);
        }
        let tally = compare(plan, &outcomes);
        if tally.is_good() || notes.elapsed() >= limit {
            return Ok(tally);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn compare(plan: &Plan, outcomes: &BTreeMap<usize, Vec<EventOutcome>>) -> Tally {
    let deliveries = plan.events.iter().map(|event| 1 + recipients(event.mails).count()).sum();
    let mut tally = Tally::new("record", deliveries);
    for (index, event) in plan.events.iter().enumerate() {
        let found = outcomes.get(&index).map_or(&[][..], Vec::as_slice);
        let to_webhook = |outcome: &EventOutcome| {
            outcome.channel() == Channel::Webhook && outcome.source_id == plan.webhook_id
        };
        count(&mut tally, event.event_type, "the webhook", found.iter().find(|outcome| to_webhook(outcome)));
        for recipient in recipients(event.mails) {
            let to_recipient = |outcome: &EventOutcome| {
                outcome.channel() == Channel::Email && address(&outcome.destination) == recipient
            };
            count(
                &mut tally,
                event.event_type,
                recipient,
                found.iter().find(|outcome| to_recipient(outcome)),
            );
        }
        let expected = 1 + recipients(event.mails).count();
        if found.len() > expected {
            let more = found.len() - expected;
            tally.problem(format_args!("{} caused {more} deliveries too many", event.event_type));
        }
    }
    tally
}

fn recipients(mails: &[super::events::Mails]) -> impl Iterator<Item = &'static str> {
    mails.iter().flat_map(|mails| mails.recipients.iter().copied())
}

fn count(tally: &mut Tally, event_type: &str, destination: &str, outcome: Option<&EventOutcome>) {
    match outcome {
        Some(outcome) if outcome.state() == DeliveryState::Succeeded => tally.arrived += 1,
        Some(outcome) => {
            let state = outcome.state().as_str_name().trim_start_matches("DELIVERY_STATE_").to_lowercase();
            let error = if outcome.last_error.is_empty() { "no error noted" } else { &outcome.last_error };
            tally.problem(format_args!(
                "{event_type} to {destination} is {state} after {} attempts: {error}",
                outcome.attempts
            ));
        }
        None => tally.problem(format_args!("{event_type} has no delivery to {destination}")),
    }
}
