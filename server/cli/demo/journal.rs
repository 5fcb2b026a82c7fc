//! All arrivals, by what they tell of.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use switchboard_client::email::v1::GetEmailResponse;
use switchboard_client::event::v1::Event;

use super::arrival::{Arrival, Delivered, Noted};
use super::plan::{Cause, Plan};

/// What was asked of the server: when, and the id that it gave.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Just before the request.
    pub at: Duration,
    /// The event's or the mail's id; empty until the answer.
    pub id: String,
}

/// All arrivals, each kind in its order.
#[derive(Debug, Default)]
pub struct Journal {
    events: BTreeMap<usize, Origin>,
    direct: BTreeMap<usize, Origin>,
    names: HashMap<String, String>,
    /// What the live stream brought.
    pub live: Vec<(Duration, Event)>,
    /// What the webhook receiver got.
    pub webhooks: Vec<(Duration, Delivered)>,
    /// Mails in their final state.
    pub mails: Vec<(Duration, Box<GetEmailResponse>)>,
    /// What must not happen and did.
    pub troubles: Vec<String>,
}

impl Journal {
    /// Keeps an arrival.
    pub fn add(&mut self, plan: &Plan, (at, arrival): Noted) {
        match arrival {
            Arrival::Publishing(index) => self.events.entry(index).or_default().at = at,
            Arrival::Accepted(index, id) => {
                self.names.insert(id.clone(), plan.events[index].event_type.to_owned());
                self.events.entry(index).or_default().id = id;
            }
            Arrival::Queueing(index) => self.direct.entry(index).or_default().at = at,
            Arrival::Queued(index, id) => self.direct.entry(index).or_default().id = id,
            Arrival::Live(event) => {
                self.names.insert(event.id.clone(), event.event_type.clone());
                self.live.push((at, event));
            }
            Arrival::Webhook(delivered) => self.webhooks.push((at, delivered)),
            Arrival::Mail(mail) => self.mails.push((at, mail)),
            Arrival::Trouble(trouble) => self.troubles.push(trouble),
        }
    }

    /// What was asked of the server for this part of the plan, once it has answered.
    pub fn origin(&self, cause: Cause) -> Option<&Origin> {
        let origin = match cause {
            Cause::Event(index) => self.events.get(&index),
            Cause::Direct(index) => self.direct.get(&index),
        };
        origin.filter(|origin| !origin.id.is_empty())
    }

    /// The place in the plan of the event with this id.
    pub fn place(&self, event_id: &str) -> Option<usize> {
        self.events.iter().find(|(_, origin)| origin.id == event_id).map(|(index, _)| *index)
    }

    /// The type of the event with this id, as far as it is known.
    pub fn event_type(&self, event_id: &str) -> Option<&str> {
        self.names.get(event_id).map(String::as_str)
    }
}
