//! Compares what arrived with what was planned.

mod email;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use switchboard_client::event::v1::Event;

use super::arrival::Delivered;
use super::events::Planned;
use super::journal::{Journal, Origin};
use super::plan::{Cause, Plan};
pub use email::address;

/// What one channel brought.
#[derive(Debug)]
pub struct Tally {
    /// The channel.
    pub channel: &'static str,
    /// How much is to arrive.
    pub expected: usize,
    /// How much arrived exactly once, and as it should be.
    pub arrived: usize,
    /// The longest time from the request that caused it.
    pub slowest: Duration,
    /// What is wrong, in words.
    pub problems: Vec<String>,
}

impl Tally {
    /// Nothing arrived yet.
    pub fn new(channel: &'static str, expected: usize) -> Self {
        Self { channel, expected, arrived: 0, slowest: Duration::ZERO, problems: Vec::new() }
    }

    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.arrived == self.expected
    }

    /// Whether nothing is missing and nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.is_complete() && self.problems.is_empty()
    }

    /// Notes what is wrong.
    pub fn problem(&mut self, text: impl std::fmt::Display) {
        self.problems.push(format!("{}: {text}", self.channel));
    }

    /// Counts `what` if it was found exactly once and has no fault.
    fn take<T>(
        &mut self,
        what: &str,
        origin: Option<&Origin>,
        found: &[&(Duration, T)],
        fault: impl Fn(&T) -> Option<String>,
    ) {
        match found {
            [] => self.problem(format_args!("{what} did not arrive")),
            [(at, arrived)] => match fault(arrived) {
                Some(fault) => self.problem(format_args!("{what} arrived, but {fault}")),
                None => {
                    self.arrived += 1;
                    self.slowest =
                        self.slowest.max(at.saturating_sub(origin.map_or(*at, |origin| origin.at)));
                }
            },
            several => self.problem(format_args!("{what} arrived {} times", several.len())),
        }
    }
}

/// What every channel brought, so far.
pub fn check(plan: &Plan, journal: &Journal) -> [Tally; 3] {
    [live(plan, journal), webhook(plan, journal), email::check(plan, journal)]
}

fn live(plan: &Plan, journal: &Journal) -> Tally {
    let mut tally = Tally::new("live", plan.events.len());
    for (index, planned) in plan.events.iter().enumerate() {
        let origin = journal.origin(Cause::Event(index));
        let found: Vec<_> = journal
            .live
            .iter()
            .filter(|(_, event)| origin.is_some_and(|origin| origin.id == event.id))
            .collect();
        tally.take(planned.event_type, origin, &found, |event| live_fault(planned, event));
    }
    let mut last = 0;
    for (_, event) in &journal.live {
        match journal.place(&event.id) {
            Some(place) if place < last => {
                tally.problem(format_args!("{} came out of order", event.event_type));
            }
            Some(place) => last = place,
            None => tally.problem(format_args!("{} arrived and was never published", event.event_type)),
        }
    }
    tally.problems.extend(journal.troubles.iter().cloned());
    tally
}

fn live_fault(planned: &Planned, event: &Event) -> Option<String> {
    if event.event_type != planned.event_type {
        return Some(format!("as {}", event.event_type));
    }
    let same = event.data == planned.data && event.actor == planned.actor && event.subject == planned.subject;
    (!same).then(|| "not as it was published".to_owned())
}

fn webhook(plan: &Plan, journal: &Journal) -> Tally {
    let mut tally = Tally::new("webhook", plan.events.len());
    for (index, planned) in plan.events.iter().enumerate() {
        let origin = journal.origin(Cause::Event(index));
        let is_it = |delivered: &Delivered| origin.is_some_and(|origin| origin.id == delivered.event_id);
        let found: Vec<_> = journal.webhooks.iter().filter(|(_, delivered)| is_it(delivered)).collect();
        tally.take(planned.event_type, origin, &found, |delivered| {
            delivered.fault.clone().or_else(|| body_fault(planned, &plan.webhook_id, &delivered.body).err())
        });
    }
    for (_, stray) in
        journal.webhooks.iter().filter(|(_, delivered)| journal.place(&delivered.event_id).is_none())
    {
        tally.problem(format_args!(
            "a request arrived for an event that was never published: {:?}",
            stray.event_id
        ));
    }
    tally
}

#[derive(Deserialize)]
struct Body<'a> {
    event: String,
    timestamp: String,
    webhook_id: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

fn body_fault(planned: &Planned, webhook_id: &str, body: &[u8]) -> Result<(), String> {
    let body: Body<'_> =
        serde_json::from_slice(body).map_err(|error| format!("its body can not be read: {error}"))?;
    let is_time = body.timestamp.ends_with('Z') && body.timestamp.parse::<jiff::Timestamp>().is_ok();
    let wrong = if body.event != planned.event_type {
        "event"
    } else if !is_time {
        "timestamp"
    } else if body.webhook_id != webhook_id {
        "webhook_id"
    } else if body.data.get() != planned.data {
        "data"
    } else {
        return Ok(());
    };
    Err(format!("{wrong} in its body is not what it should be"))
}
