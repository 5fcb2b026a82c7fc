//! `dashboard.update`: the server's own numbers, published every now and then as an ephemeral event.
//!
//! A node tries when its time has come and somebody watches there; whoever moves the time of the last publish on is the one
//! who does it, so that it happens once in a cluster.  What only a node itself knows, such as its open streams, it
//! writes down at each interval, and the publisher adds it up.  What is counted in tables is counted through indexes of
//! what is not finished, and no further than [`COUNTED`].
//!
//! The numbers have a collapse key of their own, so that they and what an application publishes as `dashboard.update` do
//! not replace each other: who joins gets the last of both.

mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::clock::{SharedClock, Stopwatch, Timestamp};
use crate::db::Db;
use crate::error::Result;
use crate::event::ephemeral::Ephemeral;
use crate::event::{Fact, log, topic};
use crate::id::{IdGenerator, Kind};

/// The type of the event.
pub const UPDATE: &str = "dashboard.update";
/// The collapse key of the server's own numbers.
pub const COLLAPSE_KEY: &str = "server";
/// Who publishes.
const SERVER: &str = "switchboard";
/// How often it is looked whether it is time.
const TICK: Duration = Duration::from_millis(250);
/// How often it is looked whether somebody watches, while it is time.
const LOOK: Duration = Duration::from_secs(1);
/// How far rows are counted.
pub const COUNTED: i64 = 10_000;
/// How far keys are counted.
const KEYS_COUNTED: i64 = 100_000;

/// How attempts of one channel ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as the words for the states of deliveries")]
pub struct Attempts {
    pub succeeded: u64,
    pub retrying: u64,
    pub failed: u64,
}

impl Attempts {
    fn since(self, earlier: Self) -> Self {
        Self {
            succeeded: self.succeeded.saturating_sub(earlier.succeeded),
            retrying: self.retrying.saturating_sub(earlier.retrying),
            failed: self.failed.saturating_sub(earlier.failed),
        }
    }

    fn add(&mut self, other: Self) {
        self.succeeded += other.succeeded;
        self.retrying += other.retrying;
        self.failed += other.failed;
    }
}

/// What a node knows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeNumbers {
    /// Open live streams.
    pub streams: u64,
    /// Open connections.
    pub connections: u64,
    /// Attempts by channel: since the start when a node is asked, and in the last interval when it is written down.
    pub attempts: BTreeMap<String, Attempts>,
}

impl NodeNumbers {
    fn since(&self, earlier: &Self) -> Self {
        let before = |channel: &String| earlier.attempts.get(channel).copied().unwrap_or_default();
        let attempts = self
            .attempts
            .iter()
            .map(|(channel, attempts)| (channel.clone(), attempts.since(before(channel))))
            .collect();
        Self { streams: self.streams, connections: self.connections, attempts }
    }

    fn add(&mut self, other: &Self) {
        self.streams += other.streams;
        self.connections += other.connections;
        for (channel, attempts) in &other.attempts {
            self.attempts.entry(channel.clone()).or_default().add(*attempts);
        }
    }
}

/// What the dashboard needs.
pub struct Parts {
    /// The database.
    pub db: Db,
    /// This node.
    pub node_id: i64,
    /// What this node knows of itself.
    pub numbers: Box<dyn Fn() -> NodeNumbers + Send + Sync>,
    /// Whether somebody watches at this node.
    pub is_watched: Box<dyn Fn() -> bool + Send + Sync>,
    /// Publishes an ephemeral event.
    pub publish: Box<dyn Fn(Arc<Ephemeral>) + Send + Sync>,
    /// Makes ids.
    pub ids: Arc<IdGenerator>,
    /// The time.
    pub clock: SharedClock,
}

/// Publishes the server's own numbers.
pub struct Dashboard {
    parts: Parts,
    /// In seconds; 0 for never.
    interval: AtomicU64,
}

/// What a node remembers from one interval to the next.
#[derive(Default)]
struct Memory {
    /// When it last wrote down what it knows, and what that was.
    written: Option<(Timestamp, NodeNumbers)>,
    /// What it wrote down.
    own: NodeNumbers,
    /// When it may be somebody's turn again.
    next_turn: Timestamp,
    /// Since when it has not been looked whether somebody watches.
    looked: Option<Stopwatch>,
}

impl Dashboard {
    /// A dashboard that publishes nothing until it has an interval.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self { parts, interval: AtomicU64::new(0) })
    }

    /// Says how often to publish; zero means never.
    pub fn set_interval(&self, interval: Duration) {
        self.interval.store(interval.as_secs(), Ordering::Relaxed);
    }

    /// Publishes when it is time, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut memory = Memory::default();
        while tokio::time::timeout(TICK, stop.cancelled()).await.is_err() {
            let interval = Duration::from_secs(self.interval.load(Ordering::Relaxed));
            if !interval.is_zero()
                && let Err(error) = self.tick(&mut memory, interval).await
            {
                tracing::warn!(%error, "the server's own numbers could not be published; it is tried again");
                // Not at every tick.
                memory.next_turn = self.parts.clock.now() + interval;
            }
        }
    }

    async fn tick(&self, memory: &mut Memory, interval: Duration) -> Result<()> {
        let (now, numbers) = (self.parts.clock.now(), (self.parts.numbers)());
        let streams = numbers.streams;
        let steady = self.parts.clock.steady();
        if memory.written.as_ref().is_none_or(|(at, _)| steady.since(*at) >= interval) {
            let (_, before) = memory.written.take().unwrap_or_default();
            memory.own = numbers.since(&before);
            memory.written = Some((steady, numbers));
            if self.parts.db.is_shared() {
                self.write_down(&memory.own, now).await?;
            }
        }
        // A clock that was set back by far must not keep everybody waiting.
        let due = memory.next_turn <= now || memory.next_turn > now + 2 * interval;
        if streams == 0 || !due || memory.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return Ok(());
        }
        if !(self.parts.is_watched)() {
            memory.looked = Some(Stopwatch::start());
            return Ok(());
        }
        let turn = self
            .parts
            .db
            .transaction(move |conn| Box::pin(async move { store::take_turn(conn, now, interval).await }))
            .await?;
        memory.next_turn = turn.next;
        if let Some(since) = turn.taken {
            memory.own.streams = streams;
            let data = self.data(&memory.own, since, now, interval).await?;
            (self.parts.publish)(self.event(&data, now));
        }
        Ok(())
    }

    async fn write_down(&self, own: &NodeNumbers, now: Timestamp) -> Result<()> {
        let numbers = serde_json::to_string(own).map_err(crate::error::Error::internal)?;
        let node_id = self.parts.node_id;
        self.parts
            .db
            .transaction(move |conn| {
                Box::pin(async move { store::write_down(conn, node_id, &numbers, now).await })
            })
            .await
    }

    /// The numbers of all nodes; `own` are those of this one.
    async fn data(
        &self,
        own: &NodeNumbers,
        since: store::Since,
        now: Timestamp,
        interval: Duration,
    ) -> Result<Value> {
        let mut conn = self.parts.db.reader().await?;
        let (mut all, mut nodes) = (own.clone(), 1);
        for numbers in store::of_others(&mut conn, self.parts.node_id, now - 2 * interval).await? {
            // A node of another version may count something else.
            if let Ok(numbers) = serde_json::from_str(&numbers) {
                all.add(&numbers);
                nodes += 1;
            }
        }
        let (_, head) = log::head(&mut conn).await?;
        let seconds = since.at.map_or(0.0, |at| now.since(at).as_secs_f64());
        let published = since.at.map_or(0, |_| (head - since.position).max(0));
        let per_second = if seconds > 0.0 { published as f64 / seconds } else { 0.0 };
        Ok(json!({ "stats": {
            "emails": store::queue(&mut conn, store::EMAILS).await?,
            "webhook_deliveries": store::queue(&mut conn, store::WEBHOOKS).await?,
            "counted_up_to": COUNTED,
            "attempts": all.attempts,
            "interval_seconds": interval.as_secs(),
            "events": { "published": published, "per_second": (per_second * 100.0).round() / 100.0 },
            "api_keys": { "active": store::active_keys(&mut conn, now, KEYS_COUNTED).await? },
            "live": {
                "streams": all.streams,
                "connections": all.connections,
                "users_online": store::online(&mut conn).await?,
            },
            "nodes": nodes,
        }}))
    }

    fn event(&self, data: &Value, now: Timestamp) -> Arc<Ephemeral> {
        let fact = Fact {
            id: self.parts.ids.next(Kind::Event).into(),
            event_type: UPDATE.into(),
            data: data.to_string(),
            actor: SERVER.into(),
            subject: String::new(),
            topic: topic::DASHBOARD.into(),
            created_at: now,
        };
        Ephemeral::new(Arc::new(fact), COLLAPSE_KEY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_nodes_add_up_and_attempts_are_those_of_the_interval() {
        let numbers = |streams, succeeded| NodeNumbers {
            streams,
            connections: 1,
            attempts: BTreeMap::from([("email".to_owned(), Attempts { succeeded, ..Attempts::default() })]),
        };
        let mut one = numbers(3, 100).since(&numbers(9, 60));
        assert_eq!(one, numbers(3, 40));
        one.add(&numbers(2, 5));
        assert_eq!((one.streams, one.connections, one.attempts["email"].succeeded), (5, 2, 45));
        assert_eq!(numbers(1, 2).since(&numbers(1, 9)).attempts["email"].succeeded, 0, "a node began anew");
    }
}
