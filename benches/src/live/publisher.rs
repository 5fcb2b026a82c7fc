//! Publishes events that subscribers recognize.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use switchboard_client::Authenticated;
use switchboard_client::event::v1::event_service_client::EventServiceClient;
use switchboard_client::event::v1::{BatchPublishEventsRequest, PublishEventRequest};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::message::data;
use super::{Subscribers, Tally};
use crate::client::{client, connections};
use crate::error::{Context, Result};
use crate::load::pace;

/// No route and no endpoint wants it.
const EVENT_TYPE: &str = "bench.live";
/// How many publish at once as fast as they may.
const CALLERS: usize = 8;
/// How long a server that was started anew may refuse.
const LAST_LIMIT: Duration = Duration::from_secs(10);

/// Publishes to one topic.
#[derive(Clone)]
pub struct Publisher {
    client: EventServiceClient<Authenticated>,
    topic: String,
    /// How many events are in a call.
    size: usize,
    zero: Instant,
    book: Arc<Book>,
}

/// What was published.
#[derive(Default)]
struct Book {
    next: AtomicU64,
    acknowledged: Mutex<Tally>,
}

impl Publisher {
    /// One that publishes so many events a call, for these subscribers.
    pub async fn new(address: &str, topic: &str, size: usize, subscribers: &Subscribers) -> Result<Self> {
        Self::at(address, topic, size, subscribers.zero()).await
    }

    /// One whose events count their time from `zero`.
    pub async fn at(address: &str, topic: &str, size: usize, zero: Instant) -> Result<Self> {
        let channel: Channel = connections(address, 1).await?.remove(0);
        let (client, book) = (client(channel)?.events(), Arc::default());
        Ok(Self { client, topic: topic.to_owned(), size, zero, book })
    }

    /// The same, publishing to another topic what the subscribers do not count.
    pub fn uncounted(&self, topic: &str, size: usize) -> Self {
        Self { topic: topic.to_owned(), size, book: Arc::default(), ..self.clone() }
    }

    /// What is durable.
    pub fn acknowledged(&self) -> Tally {
        *self.book.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many events have been sent.
    pub fn sent(&self) -> u64 {
        self.book.next.load(Ordering::Relaxed)
    }

    /// Publishes one event, again and again until the server takes it. Gives its number.
    pub async fn publish_at_last(&mut self) -> Result<u64> {
        let end = Instant::now() + LAST_LIMIT;
        loop {
            let number = self.sent();
            match self.publish(Instant::now()).await {
                Ok(()) => return Ok(number),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    fn event(&self, due: u64, number: u64) -> PublishEventRequest {
        PublishEventRequest {
            event_type: EVENT_TYPE.to_owned(),
            data: data(due, number),
            topic: self.topic.clone(),
            ..PublishEventRequest::default()
        }
    }

    /// Makes one call whose events were due at this time.
    pub async fn publish(&mut self, due: Instant) -> Result<()> {
        let due = due.saturating_duration_since(self.zero).as_nanos().max(1) as u64;
        let first = self.book.next.fetch_add(self.size as u64, Ordering::Relaxed);
        let numbers = first..first + self.size as u64;
        self.call(numbers.clone().map(|number| self.event(due, number)).collect()).await?;
        let mut acknowledged = self.book.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.for_each(|number| acknowledged.add(number));
        Ok(())
    }

    /// Makes one call with events that nobody counts.
    pub async fn publish_uncounted(&mut self) -> Result<()> {
        let events = (0..self.size as u64).map(|number| self.event(0, number)).collect();
        self.call(events).await
    }

    async fn call(&mut self, mut events: Vec<PublishEventRequest>) -> Result<()> {
        if events.len() == 1 {
            let event = events.remove(0);
            return self.client.publish_event(event).await.map(drop).context("PublishEvent");
        }
        let request = BatchPublishEventsRequest { requests: events };
        self.client.batch_publish_events(request).await.map(drop).context("BatchPublishEvents")
    }

    /// Publishes at a steady rate for so long, whatever the server does, and waits for the answers. Gives how many calls
    /// were made.
    pub async fn at_a_rate(&self, interval: Duration, time: Duration, counted: bool) -> Result<usize> {
        let count = (time.as_nanos() / interval.as_nanos()).max(1) as u32;
        let mut due = pace(interval, count);
        let mut calls = JoinSet::new();
        while let Some(at) = due.recv().await {
            let mut publisher = self.clone();
            calls.spawn(async move {
                if counted { publisher.publish(at).await } else { publisher.publish_uncounted().await }
            });
        }
        while let Some(call) = calls.join_next().await {
            call.context("a call")??;
        }
        Ok(count as usize)
    }

    /// Publishes as fast as the subscribers take it, until it is stopped: publishers wait while so many events are
    /// under way to a subscriber.
    pub fn flood(&self, subscribers: &Arc<Subscribers>, under_way: u64) -> Flood {
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (mut publisher, subscribers, stop) =
                (self.clone(), Arc::clone(subscribers), Arc::clone(&stop));
            callers.spawn(async move {
                let count = subscribers.count() as u64;
                while !stop.load(Ordering::Relaxed) {
                    if publisher.sent() * count >= subscribers.got().events + under_way * count {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        continue;
                    }
                    publisher.publish(Instant::now()).await?;
                }
                Result::Ok(())
            });
        }
        Flood { stop, callers }
    }
}

/// Publishers under way.
pub struct Flood {
    stop: Arc<AtomicBool>,
    callers: JoinSet<Result<()>>,
}

impl Flood {
    /// Stops them and waits for their last answers.
    pub async fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(caller) = self.callers.join_next().await {
            caller.context("a publisher")??;
        }
        Ok(())
    }

    /// The same where the server may have died meanwhile.
    pub async fn stop_whatever(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.callers.join_next().await.is_some() {}
    }
}
