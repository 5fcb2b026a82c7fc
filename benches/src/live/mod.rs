//! Subscribers of live streams, many of them: one thread reads for all.
//!
//! What they cost must be little beside what the server spends on them, so that frames are read by hand ([`wire`]) and
//! events counted without decoding them ([`message`]).

pub mod bare;
mod connection;
mod message;
pub mod publisher;
mod tally;
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use switchboard_client::notification::v1::SubscribeRequest;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use self::connection::{Connection, Shared, Stream, Streams, locked};
pub use self::tally::Tally;
use crate::error::{Context, Result};
use crate::key::admin_key;

/// How many subscribers share a connection, unless a scenario says otherwise.
pub const PER_CONNECTION: usize = 100;
/// How many begin at a time: of more calls of one key under way at once the server refuses some, and has them come back.
const OPENING: u64 = 1_000;
/// How long all of them may take to begin.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(1);

/// The thread that reads.
struct Reader {
    handle: Handle,
    // Dropping it ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Reader {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("the runtime")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::spawn(move || runtime.block_on(stopped));
        Ok(Self { handle, _stop: stop })
    }
}

/// Some subscribers. Dropping them ends their streams.
pub struct Subscribers {
    shared: Arc<Shared>,
    connections: Vec<(Arc<Mutex<Streams>>, Arc<Notify>)>,
    count: usize,
    _reader: Reader,
}

/// What all of them have got together.
#[derive(Debug, Clone, Copy)]
pub struct Got {
    /// When it was looked at.
    pub at: Instant,
    /// Events.
    pub events: u64,
    /// Messages that brought them.
    pub messages: u64,
}

/// What to subscribe to: events of one topic.
pub fn wish(topic: &str) -> SubscribeRequest {
    SubscribeRequest { topics: vec![topic.to_owned()], ..SubscribeRequest::default() }
}

impl Subscribers {
    /// Opens a stream for each wish, so many on a connection, and waits until all have begun.
    pub async fn open(address: &str, wishes: Vec<SubscribeRequest>, per_connection: usize) -> Result<Self> {
        let subscribers = Self::start(address, &wishes, per_connection, false)?;
        subscribers.all_open().await?;
        Ok(subscribers)
    }

    /// The same for subscribers that come back with their cursors when their connections end.
    pub async fn open_lasting(
        address: &str,
        wishes: Vec<SubscribeRequest>,
        per_connection: usize,
    ) -> Result<Self> {
        let subscribers = Self::start(address, &wishes, per_connection, true)?;
        subscribers.all_open().await?;
        Ok(subscribers)
    }

    fn start(
        address: &str,
        wishes: &[SubscribeRequest],
        per_connection: usize,
        returns: bool,
    ) -> Result<Self> {
        let address: SocketAddr =
            address.trim_start_matches("http://").parse().context("the server's address")?;
        let shared = Arc::new(Shared {
            zero: Instant::now(),
            delivered: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            open: AtomicU64::new(0),
            timed_from: AtomicU64::new(u64::MAX),
        });
        let reader = Reader::start()?;
        let mut connections = Vec::new();
        for (number, wishes) in wishes.chunks(per_connection).enumerate() {
            let all = wishes.iter().map(|_| Stream::default()).collect();
            let streams = Arc::new(Mutex::new(Streams { all, ..Streams::default() }));
            let wake = Arc::new(Notify::new());
            let connection = Connection {
                address,
                key: admin_key(),
                wishes: wishes.to_vec(),
                returns,
                streams: Arc::clone(&streams),
                wake: Arc::clone(&wake),
                shared: Arc::clone(&shared),
            };
            let (shared, before) = (Arc::clone(&shared), (number * per_connection) as u64);
            reader.handle.spawn(async move {
                while before >= shared.open.load(Ordering::Relaxed) + OPENING {
                    tokio::time::sleep(LOOK).await;
                }
                connection.run(number).await;
            });
            connections.push((streams, wake));
        }
        Ok(Self { shared, connections, count: wishes.len(), _reader: reader })
    }

    /// Waits until each has its first message, or its first since its connection ended.
    pub async fn all_open(&self) -> Result<()> {
        let end = Instant::now() + OPEN_LIMIT;
        while self.open_now() < self.count {
            if Instant::now() > end {
                let why = self.failure().unwrap_or_else(|| "they wait for their first message".to_owned());
                return Err(format!("{} of {} subscribers: {why}", self.open_now(), self.count).into());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// How many have a stream.
    pub fn open_now(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed) as usize
    }

    /// Why a connection failed, if one did.
    pub fn failure(&self) -> Option<String> {
        self.connections.iter().find_map(|(streams, _)| locked(streams).failure.clone())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The zero of the time that events carry.
    pub fn zero(&self) -> Instant {
        self.shared.zero
    }

    /// What they have got so far.
    pub fn got(&self) -> Got {
        Got {
            at: Instant::now(),
            events: self.shared.delivered.load(Ordering::Relaxed),
            messages: self.shared.messages.load(Ordering::Relaxed),
        }
    }

    /// Waits until they have got so many events, and a moment more for those that should not come.
    pub async fn drained(&self, events: u64, limit: Duration) {
        let end = Instant::now() + limit;
        while self.got().events < events && Instant::now() < end {
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    /// Waits until the last event that each of them has got is this one, and says since when.
    pub async fn all_have(&self, number: u64, limit: Duration) -> Result<Instant> {
        let end = Instant::now() + limit;
        let has_it = |stream: &Stream| stream.open && stream.newest == number;
        loop {
            let now = Instant::now();
            if self.connections.iter().all(|(streams, _)| locked(streams).all.iter().all(has_it)) {
                return Ok(now);
            }
            if now > end {
                let why = self.failure().unwrap_or_else(|| "no connection failed".to_owned());
                let open = self.open_now();
                return Err(
                    format!("an event does not reach all: {open} of {} streams, {why}", self.count).into()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// From where the first subscriber would resume.
    pub fn cursor(&self) -> String {
        let first = self.connections.first();
        let cursor = first.and_then(|(streams, _)| Some(locked(streams).all.first()?.cursor.clone()));
        String::from_utf8_lossy(&cursor.unwrap_or_default()).into_owned()
    }

    /// Takes the time of every event that is due from now on.
    pub fn time_from_now(&self) {
        let now = self.shared.zero.elapsed().as_nanos() as u64;
        self.shared.timed_from.store(now, Ordering::Relaxed);
    }

    /// Takes no more times, and gives those that were taken.
    pub fn take_times(&self) -> Vec<Duration> {
        self.shared.timed_from.store(u64::MAX, Ordering::Relaxed);
        let mut times = Vec::new();
        for (streams, _) in &self.connections {
            let taken = std::mem::take(&mut locked(streams).times);
            times.extend(taken.into_iter().map(|micros| Duration::from_micros(micros.into())));
        }
        times
    }

    /// Lets the first subscriber of each connection stop to read, or read again.
    pub fn stall(&self, stalled: bool) {
        for (streams, wake) in &self.connections {
            if let Some(stream) = locked(streams).all.first_mut() {
                stream.stalled = stalled;
            }
            wake.notify_one();
        }
    }

    /// Keeps the next messages of the first subscriber.
    pub fn sample(&self) {
        if let Some((streams, _)) = self.connections.first() {
            locked(streams).sample = Some(Vec::new());
        }
    }

    /// The messages that were kept, each with its length in front.
    pub fn take_sample(&self) -> Vec<Bytes> {
        let first = self.connections.first();
        first.and_then(|(streams, _)| locked(streams).sample.take()).unwrap_or_default()
    }

    /// What each has got.
    pub fn tallies(&self) -> Vec<Tally> {
        let of = |(streams, _): &(Arc<Mutex<Streams>>, _)| {
            locked(streams).all.iter().map(|stream| stream.tally).collect::<Vec<_>>()
        };
        self.connections.iter().flat_map(of).collect()
    }

    /// Gaps that the server admitted, and farewells.
    pub fn notices(&self) -> u64 {
        let of = |(streams, _): &(Arc<Mutex<Streams>>, _)| {
            locked(streams).all.iter().map(|stream| stream.notices).sum::<u64>()
        };
        self.connections.iter().map(of).sum()
    }
}
