//! What happens while the demo runs, and when.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use switchboard_client::email::v1::GetEmailResponse;
use switchboard_client::event::v1::Event;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::clock::Stopwatch;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Arrival {
    /// An event of the plan, by its place there, is about to be published.
    Publishing(usize),
    /// It was accepted with this id.
    Accepted(usize, String),
    /// A mail of the plan that no event causes, by its place there, is about to be queued.
    Queueing(usize),
    /// It was accepted with this id.
    Queued(usize, String),
    /// The live stream brought an event.
    Live(Event),
    /// The receiver got a request.
    Webhook(Delivered),
    /// A mail is in its final state.
    Mail(Box<GetEmailResponse>),
    /// Something that must not happen did.
    Trouble(String),
}

/// A request that the webhook receiver got.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The event's id, as the header `webhook-id` has it; empty when it is missing.
    pub event_id: String,
    /// The body.
    pub body: Vec<u8>,
    /// The status that was answered.
    pub status: u16,
    /// What is wrong with the signatures; `None` when both are good.
    pub fault: Option<String>,
}

/// An arrival and its time since the start of the timeline.
pub type Noted = (Duration, Arrival);

/// Where arrivals are told to.
#[derive(Debug, Clone)]
pub struct Notes {
    since: Arc<OnceLock<Stopwatch>>,
    sender: UnboundedSender<Noted>,
}

impl Notes {
    /// Takes arrivals; those before [`Notes::begin`] count as at its start.
    pub fn new() -> (Self, UnboundedReceiver<Noted>) {
        let (sender, receiver) = unbounded_channel();
        (Self { since: Arc::default(), sender }, receiver)
    }

    /// Starts the clock of the timeline; once started, it goes on.
    pub fn begin(&self) {
        self.since.get_or_init(Stopwatch::start);
    }

    /// Tells of an arrival.
    pub fn tell(&self, arrival: Arrival) {
        // Nobody listens any more once the demo is over.
        let _ = self.sender.send((self.elapsed(), arrival));
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.since.get().map_or(Duration::ZERO, Stopwatch::elapsed)
    }
}
