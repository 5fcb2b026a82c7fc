//! A connection with the streams of some subscribers.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use switchboard_client::notification::v1::SubscribeRequest;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::Notify;

use super::message::{self, PREFIX};
use super::tally::Tally;
use super::wire::{self, Head};
use crate::error::{Context, Error, Result};

/// What is read at a time.
const READ: usize = 256 * 1024;
const PATH: &str = "/switchboard.notification.v1.NotificationService/Subscribe";
/// Who lost the connection tries again after this long, or up to three times as long.
const RETRY: Duration = Duration::from_millis(50);

thread_local! {
    /// What was just read: all connections of a thread share it, so that idle ones take no memory.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    /// The zero of the time that events carry.
    pub zero: Instant,
    /// Events that have arrived, those without a due time aside.
    pub delivered: AtomicU64,
    /// Messages that have arrived.
    pub messages: AtomicU64,
    /// Streams that have their first message and have not ended.
    pub open: AtomicU64,
    /// Times are taken of events that were due at this time or later.
    pub timed_from: AtomicU64,
}

/// One subscriber.
#[derive(Debug, Default)]
pub struct Stream {
    /// Whether it has its first message and has not ended.
    pub open: bool,
    /// Whether it has stopped to read.
    pub stalled: bool,
    /// What it has got.
    pub tally: Tally,
    /// The number of the last event that it has got.
    pub newest: u64,
    /// From where it resumes.
    pub cursor: Vec<u8>,
    /// Gaps that the server admitted, and farewells.
    pub notices: u64,
    /// The beginning of a message whose end is not there yet.
    partial: Vec<u8>,
    /// How much of its window is used.
    used: u32,
}

/// The subscribers of a connection.
#[derive(Debug, Default)]
pub struct Streams {
    /// Each.
    pub all: Vec<Stream>,
    /// From due to arrival, in microseconds, of all but the stalled ones.
    pub times: Vec<u32>,
    /// Messages of the first one, if somebody wants them.
    pub sample: Option<Vec<Bytes>>,
    /// Why the connection ended.
    pub failure: Option<String>,
}

/// How many messages are kept as a sample.
const SAMPLE: usize = 1_024;

/// A connection.
pub struct Connection {
    /// Where to.
    pub address: SocketAddr,
    /// The key that it calls with.
    pub key: String,
    /// What each of its subscribers asks for.
    pub wishes: Vec<SubscribeRequest>,
    /// Whether it comes back when it has ended.
    pub returns: bool,
    /// Its subscribers.
    pub streams: Arc<Mutex<Streams>>,
    /// Says that one who had stalled reads again.
    pub wake: Arc<Notify>,
    /// What all share.
    pub shared: Arc<Shared>,
}

/// Locks the subscribers. A panic of another thread ends the measurement anyway.
pub fn locked(streams: &Mutex<Streams>) -> MutexGuard<'_, Streams> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// Reads until the other side ends it, or for ever.
    pub async fn run(self, number: usize) {
        // Spread, as those of real subscribers are.
        let pause = RETRY + RETRY / 50 * (number as u32 * 37 % 100);
        loop {
            let outcome = self.once().await;
            {
                let mut streams = locked(&self.streams);
                if let Err(error) = outcome {
                    streams.failure = Some(error.to_string());
                }
                streams.all.iter_mut().for_each(|stream| self.close(stream));
            }
            if !self.returns {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn once(&self) -> Result<()> {
        let socket = TcpStream::connect(self.address).await.context("a connection for subscribers")?;
        socket.set_nodelay(true).context("a connection for subscribers")?;
        let (reader, mut writer) = socket.into_split();
        let mut out = Vec::new();
        wire::greeting(&mut out);
        self.requests(&mut out);
        let (mut leftover, mut used) = (Vec::new(), 0);
        loop {
            if !out.is_empty() {
                writer.write_all(&out).await.context("a connection for subscribers")?;
                out.clear();
            }
            tokio::select! {
                ready = reader.readable() => {
                    ready.context("a connection for subscribers")?;
                    let read = |scratch: &mut Box<[u8]>| {
                        self.read(&reader, scratch, &mut leftover, &mut used, &mut out)
                    };
                    if !SCRATCH.with_borrow_mut(read)? {
                        return Ok(());
                    }
                }
                () = self.wake.notified() => {
                    let mut streams = locked(&self.streams);
                    for (index, stream) in streams.all.iter_mut().enumerate() {
                        open_window(&mut out, index, stream);
                    }
                }
            }
        }
    }

    fn requests(&self, out: &mut Vec<u8>) {
        let authority = self.address.to_string();
        let streams = locked(&self.streams);
        for (index, (wish, stream)) in self.wishes.iter().zip(&streams.all).enumerate() {
            let mut wish = wish.clone();
            if !stream.cursor.is_empty() {
                wish.cursor = String::from_utf8_lossy(&stream.cursor).into_owned();
            }
            wire::request(out, id(index), &authority, PATH, &self.key, &wish.encode_to_vec());
        }
    }

    /// Reads what there is; `false` at the end.
    fn read(
        &self,
        reader: &OwnedReadHalf,
        scratch: &mut [u8],
        leftover: &mut Vec<u8>,
        used: &mut u32,
        out: &mut Vec<u8>,
    ) -> Result<bool> {
        let kept = leftover.len();
        scratch[..kept].copy_from_slice(leftover);
        let read = match reader.try_read(&mut scratch[kept..]) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error).context("a connection for subscribers"),
        };
        let mut rest = &scratch[..kept + read];
        let mut batch = Batch { now: self.now(), ..Batch::default() };
        let mut streams = locked(&self.streams);
        while let Some(head) = Head::read(rest) {
            let Some(payload) = rest.get(wire::HEAD..wire::HEAD + head.length) else { break };
            rest = &rest[wire::HEAD + head.length..];
            self.frame(head, payload, &mut streams, &mut batch, out)?;
        }
        drop(streams);
        leftover.clear();
        leftover.extend_from_slice(rest);
        *used += batch.octets;
        if *used >= wire::CONNECTION_CREDIT {
            wire::window_update(out, 0, *used);
            *used = 0;
        }
        self.shared.delivered.fetch_add(batch.events, Ordering::Relaxed);
        self.shared.messages.fetch_add(batch.messages, Ordering::Relaxed);
        Ok(true)
    }

    fn now(&self) -> u64 {
        self.shared.zero.elapsed().as_nanos() as u64
    }

    fn frame(
        &self,
        head: Head,
        payload: &[u8],
        streams: &mut Streams,
        batch: &mut Batch,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        match head.kind {
            wire::SETTINGS | wire::PING if head.flags & wire::ACK == 0 => {
                let payload = if head.kind == wire::PING { payload } else { &[] };
                wire::acknowledge(out, head.kind, payload);
            }
            wire::DATA => {
                batch.octets += head.length as u32;
                self.data(head, payload, streams, batch, out)?;
            }
            wire::GOAWAY if head.length > 8 => {
                return Err(format!("the server says {}", String::from_utf8_lossy(&payload[8..])).into());
            }
            _ => {}
        }
        let ends = matches!(head.kind, wire::DATA | wire::HEADERS) && head.flags & wire::END_STREAM != 0;
        if ends || head.kind == wire::RST_STREAM {
            let stream = streams.all.get_mut(index(head.stream)).ok_or("an unknown stream has ended")?;
            if !stream.open {
                return Err(refused(payload));
            }
            self.close(stream);
        }
        Ok(())
    }

    fn data(
        &self,
        head: Head,
        payload: &[u8],
        streams: &mut Streams,
        batch: &mut Batch,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let at = index(head.stream);
        if head.flags & wire::PADDED != 0 {
            return Err("the server pads its frames".into());
        }
        let Streams { all, times, sample, .. } = streams;
        let stream = all.get_mut(at).ok_or("there is data of an unknown stream")?;
        let sample = sample.as_mut().filter(|_| at == 0);
        stream.used += head.length as u32;
        let partial = std::mem::take(&mut stream.partial);
        if partial.is_empty() {
            let rest = self.messages(payload, stream, times, sample, batch)?;
            stream.partial = rest.to_vec();
        } else {
            let mut whole = partial;
            whole.extend_from_slice(payload);
            let left = self.messages(&whole, stream, times, sample, batch)?.len();
            whole.drain(..whole.len() - left);
            stream.partial = whole;
        }
        if stream.used >= wire::STREAM_WINDOW / 2 {
            open_window(out, at, stream);
        }
        Ok(())
    }

    /// Takes the whole messages and gives what is left.
    fn messages<'a>(
        &self,
        bytes: &'a [u8],
        stream: &mut Stream,
        times: &mut Vec<u32>,
        mut sample: Option<&mut Vec<Bytes>>,
        batch: &mut Batch,
    ) -> Result<&'a [u8]> {
        let mut rest = bytes;
        let from = self.shared.timed_from.load(Ordering::Relaxed);
        while let Some(prefix) = rest.get(..PREFIX) {
            let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            let Some(message) = rest.get(PREFIX..PREFIX + length) else { break };
            let around = message::scan(message, |event| {
                if event.due == 0 {
                    return;
                }
                batch.events += 1;
                stream.tally.add(event.number);
                stream.newest = event.number;
                if event.due >= from && !stream.stalled {
                    times.push((batch.now.saturating_sub(event.due) / 1_000) as u32);
                }
            });
            let around = around.ok_or("a message can not be read")?;
            if !around.cursor.is_empty() {
                stream.cursor.clear();
                stream.cursor.extend_from_slice(around.cursor);
            }
            stream.notices += u64::from(around.resync) + u64::from(around.closing);
            if !stream.open {
                stream.open = true;
                self.shared.open.fetch_add(1, Ordering::Relaxed);
            }
            batch.messages += 1;
            if let Some(sample) = sample.as_mut().filter(|sample| sample.len() < SAMPLE) {
                sample.push(Bytes::copy_from_slice(&rest[..PREFIX + length]));
            }
            rest = &rest[PREFIX + length..];
        }
        Ok(rest)
    }

    fn close(&self, stream: &mut Stream) {
        if stream.open {
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
        }
        (stream.open, stream.used) = (false, 0);
        stream.partial = Vec::new();
    }
}

/// What one reading brought.
#[derive(Default)]
struct Batch {
    now: u64,
    events: u64,
    messages: u64,
    octets: u32,
}

/// The stream of the subscriber with this index, and back.
fn id(index: usize) -> u32 {
    index as u32 * 2 + 1
}

fn index(id: u32) -> usize {
    id as usize / 2
}

fn open_window(out: &mut Vec<u8>, index: usize, stream: &mut Stream) {
    if stream.used > 0 && !stream.stalled && stream.open {
        wire::window_update(out, id(index), std::mem::take(&mut stream.used));
    }
}

/// Most of what the server says in the head of a refusal is compressed: what can be read of it has to do.
fn refused(head: &[u8]) -> Error {
    let readable: String =
        head.iter().filter(|octet| octet.is_ascii_graphic()).map(|&octet| octet as char).collect();
    format!("the server refuses a subscriber: {readable}").into()
}
