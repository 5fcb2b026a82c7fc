//! The two logs of a run: what was asked and acknowledged, and what arrived.
//!
//! Each is a file that only grows, a line of JSON for each entry. A thread of its own writes and syncs it, many entries at
//! once when many come, so that the load and the receivers never wait for the disk that the server writes to.
#![allow(clippy::disallowed_methods, reason = "a measuring instrument reads the real clock")]

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Microseconds since the run began.
pub type Moment = u64;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// An event for the quick endpoint.
    Quick,
    /// An event for both endpoints.
    Slow,
    /// A mail.
    Mail,
}

/// Where something arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// The endpoint that answers soon.
    Quick,
    /// The endpoint that takes its time.
    Slow,
    /// The mail server.
    Mail,
    /// A live stream, by its number.
    Stream(usize),
}

impl Kind {
    /// Where it is to arrive, beside the live streams.
    pub fn places(self) -> &'static [Place] {
        match self {
            Self::Quick => &[Place::Quick],
            Self::Slow => &[Place::Quick, Place::Slow],
            Self::Mail => &[Place::Mail],
        }
    }
}

/// What was asked of the server, what it answered, and what was done to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// Something is about to be sent under this number; it is asked again with the same request id until it is acknowledged.
    Sent { number: u64, kind: Kind },
    /// It was acknowledged; events have a position in the log.
    Acknowledged { number: u64, id: String, position: i64, at: Moment },
    /// A setting is about to be changed, under this number, once.
    Change { number: u64 },
    /// That was acknowledged.
    Changed { number: u64 },
    /// The audit log has an entry for the change of this number.
    Audited { number: u64 },
    /// A key was revoked: that was acknowledged at this moment.
    Revoked { key: String, at: Moment },
    /// A key was verified, and was valid or not; the call began at this moment.
    Verified { key: String, began: Moment, valid: bool },
    /// A server process was started.
    Started { node: usize, at: Moment },
    /// It said that it is ready.
    Ready { node: usize, at: Moment },
    /// It was killed, or ended itself at a failpoint.
    Killed { node: usize, at: Moment, place: String },
    /// Another process of the binary was killed, which served nobody.
    KilledBeside { place: String },
    /// So many deliveries or mails have come to no end when all had had its time.
    Unfinished { what: String, count: usize },
    /// What it used a moment before: resident memory in KiB, and open files.
    Used { node: usize, memory: u64, files: u64 },
    /// All sending has ended, and what was under way has had its time.
    Ended { at: Moment },
}

/// What a receiver got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arrived {
    /// A request, or a mail: its number, what names it (`webhook-id`, `Message-ID`), and the delivery; `content` is a sum of
    /// its bytes.
    Delivery { place: Place, number: u64, id: String, delivery: String, content: u32, at: Moment },
    /// The same was answered.
    Answered { place: Place, delivery: String, at: Moment },
    /// A stream was opened, and went on where it was before, or not.
    Opened { stream: usize, resumed: bool, asked: bool },
    /// A stream admitted that it has left something out.
    Gap { stream: usize },
    /// An event of a stream.
    Event { stream: usize, number: u64, id: String, position: i64, at: Moment },
}

/// The clock of a run.
#[derive(Debug, Clone, Copy)]
pub struct RunClock(Instant);

impl RunClock {
    /// Starts at zero.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Now.
    pub fn now(self) -> Moment {
        self.0.elapsed().as_micros() as Moment
    }

    /// Now, for timers.
    pub fn instant(self) -> tokio::time::Instant {
        tokio::time::Instant::now()
    }
}

/// In milliseconds, for people.
pub fn milliseconds(duration: Moment) -> u64 {
    Duration::from_micros(duration).as_millis() as u64
}

/// Writes one log.
pub struct Journal<E> {
    path: PathBuf,
    entries: Mutex<Option<Sender<E>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl<E: Serialize + DeserializeOwned + Send + 'static> Journal<E> {
    /// Begins a log in a new file.
    pub fn create(path: PathBuf) -> Arc<Self> {
        let file = File::options().append(true).create_new(true).open(&path).expect("a new file");
        let (sender, receiver) = channel();
        let writer = std::thread::spawn(move || write(file, &receiver));
        Arc::new(Self { path, entries: Mutex::new(Some(sender)), writer: Mutex::new(Some(writer)) })
    }

    /// Adds an entry. What is added after the end is not part of the run.
    pub fn add(&self, entry: E) {
        if let Some(entries) = &*self.entries.lock().expect("no panic holds it") {
            entries.send(entry).expect("the writer goes on until the end");
        }
    }

    /// Ends the log, and reads it back.
    pub fn end(&self) -> Vec<E> {
        drop(self.entries.lock().expect("no panic holds it").take());
        if let Some(writer) = self.writer.lock().expect("no panic holds it").take() {
            writer.join().expect("everything could be written");
        }
        read(&self.path)
    }
}

fn write<E: Serialize>(file: File, entries: &Receiver<E>) {
    let mut file = BufWriter::new(file);
    while let Ok(entry) = entries.recv() {
        for entry in std::iter::once(entry).chain(entries.try_iter()) {
            serde_json::to_writer(&mut file, &entry).expect("the disk has room");
            file.write_all(b"\n").expect("the disk has room");
        }
        file.flush().expect("the disk has room");
        file.get_ref().sync_data().expect("the disk works");
    }
}

/// Reads a log.
pub fn read<E: DeserializeOwned>(path: &Path) -> Vec<E> {
    let lines = BufReader::new(File::open(path).expect("the log is there")).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).expect("what was written can be read")).collect()
}
