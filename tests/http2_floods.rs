//! Peers that flood the port with what HTTP/2 allows: each beside a client that must not feel it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use switchboard_client::Client;
use switchboard_client::event::v1::{ListEventsRequest, PublishEventRequest};
use tokio::task::JoinHandle;

use crate::command_line::{Served, switchboard};
use crate::harness::SOON;
use crate::harness::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PING, Peer, RST_STREAM,
    SETTINGS, call, put_frame, put_header, put_remembered_header,
};
use crate::harness::process::{forget_peak, memory};

/// How long each flood lasts, unless the server ends it before.
const LONGEST: Duration = Duration::from_secs(3);
/// How much more memory a flood may take, in KiB.
const MOST_MEMORY: usize = 64 * 1024;
/// How long the other client waits for an answer at the most: the machine is shared with the flood and with other tests.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the other client is answered at the least, however short the flood.
const ANSWERS: usize = 20;
const LIST: &str = "/switchboard.event.v1.EventService/ListEvents";
/// How many readers read nothing, and what waits for each of them, in events of this many bytes.
const READERS: u32 = 1_000;
const EVENTS: usize = 4;
const EVENT_BYTES: usize = 8 * 1024;

/// The frames of one step of a flood: the `n`th.
type Step = Box<dyn Fn(u32) -> Vec<u8> + Send>;

/// A flood: its settings, what is said first, and what is said then again and again.
struct Flood {
    name: &'static str,
    settings: Vec<(u16, u32)>,
    first: Vec<u8>,
    step: Step,
    /// How many steps in a second; `None` for as many as go out.
    steps_per_second: Option<u32>,
    /// How many steps there are at the most.
    steps: u32,
    /// Whether the server has to end it.
    is_ended: bool,
}

impl Flood {
    fn new(name: &'static str, step: impl Fn(u32) -> Vec<u8> + Send + 'static) -> Self {
        let step = Box::new(step);
        Self {
            name,
            settings: Vec::new(),
            first: Vec::new(),
            step,
            steps_per_second: None,
            steps: u32::MAX,
            is_ended: false,
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    put_frame(&mut frame, kind, flags, stream, payload);
    frame
}

/// The number of a client's `n`th stream.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

fn floods(key: &str) -> Vec<Flood> {
    let block = call(LIST, key);
    let begin = block.clone();
    let rapid_reset = Flood {
        steps_per_second: Some(10_000),
        is_ended: true,
        ..Flood::new("rapid reset", move |n| {
            let mut frames = frame(HEADERS, END_HEADERS, stream(n), &block);
            put_frame(&mut frames, RST_STREAM, 0, stream(n), &8_u32.to_be_bytes());
            frames
        })
    };
    let mut more = Vec::new();
    put_header(&mut more, "x-more", &"m".repeat(64));
    let continuation = Flood {
        first: frame(HEADERS, END_STREAM, 1, &begin),
        is_ended: true,
        ..Flood::new("CONTINUATION", move |_| frame(CONTINUATION, 0, 1, &more))
    };
    let empty_continuation = Flood {
        first: frame(HEADERS, END_STREAM, 1, &begin),
        is_ended: true,
        ..Flood::new("empty CONTINUATION", |_| frame(CONTINUATION, 0, 1, b""))
    };
    let empty_data = Flood {
        first: frame(HEADERS, END_HEADERS, 1, &begin),
        ..Flood::new("empty DATA", |_| frame(DATA, 0, 1, b""))
    };
    let ping = Flood::new("PING", |n| frame(PING, 0, 0, &u64::from(n).to_be_bytes()));
    let settings = Flood::new("SETTINGS", |n| {
        let mut payload = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        payload.extend((65_535 - n % 2).to_be_bytes());
        frame(SETTINGS, 0, 0, &payload)
    });
    // Each asks for all events, and gives no leave to send any of them.
    let ask = begin.clone();
    let zero_window = Flood {
        settings: vec![(INITIAL_WINDOW_SIZE, 0)],
        steps: READERS,
        ..Flood::new("zero window", move |n| {
            let mut frames = frame(HEADERS, END_HEADERS, stream(n), &ask);
            put_frame(&mut frames, DATA, END_STREAM, stream(n), &[0; 5]);
            frames
        })
    };
    // A header that the server is to remember, and then to repeat 8 000 times a block, at a byte each.
    let mut bomb = begin;
    put_remembered_header(&mut bomb, "x-bomb", &"b".repeat(4_000));
    let first = frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb);
    let block = [&bomb[..2], &[0x80 | 62; 8_000][..]].concat();
    let header_bomb = Flood {
        first,
        steps: 2_000,
        ..Flood::new("header bomb", move |n| frame(HEADERS, END_HEADERS | END_STREAM, stream(n + 1), &block))
    };
    vec![rapid_reset, continuation, empty_continuation, empty_data, ping, settings, zero_window, header_bomb]
}

/// A client that does what clients do, and how long it waited.
struct Neighbour {
    stop: Arc<AtomicBool>,
    working: JoinHandle<Vec<Duration>>,
}

impl Neighbour {
    fn start(client: &Client) -> Self {
        let (client, stop) = (client.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let working = tokio::spawn(async move {
            let mut waits = Vec::new();
            let mut pause = tokio::time::interval(Duration::from_millis(10));
            // A flood that is ended at once is over before it could be felt.
            while !stopped.load(Ordering::Relaxed) || waits.len() < ANSWERS {
                pause.tick().await;
                let began = Instant::now();
                let request = ListEventsRequest { page_size: 1, ..Default::default() };
                let answer = tokio::time::timeout(PATIENCE, client.events().list_events(request)).await;
                answer.expect("the other client is answered").expect("the other client is served");
                waits.push(began.elapsed());
            }
            waits
        });
        Self { stop, working }
    }

    /// The waits, the shortest first.
    async fn waits(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let mut waits = self.working.await.unwrap();
        waits.sort_unstable();
        waits
    }
}

/// Floods the port; answers the connection, how many steps went out, and how long it took.
async fn flood(address: &str, flood: &Flood) -> (Peer, u32, Duration) {
    let mut peer = Peer::connect(address, &flood.settings).await;
    let began = Instant::now();
    peer.send(&flood.first).await;
    let mut pause = tokio::time::interval(Duration::from_millis(10));
    let mut sent = 0;
    while began.elapsed() < LONGEST && sent < flood.steps && !peer.heard.has_ended() {
        let due = match flood.steps_per_second {
            Some(rate) => {
                pause.tick().await;
                (u64::from(rate) * began.elapsed().as_millis() as u64 / 1_000) as u32
            }
            None => sent + 200,
        };
        let due = due.min(flood.steps);
        let batch: Vec<u8> = (sent..due).flat_map(&flood.step).collect();
        sent = due;
        let left = LONGEST.saturating_sub(began.elapsed());
        // A server that reads no more has bounded the flood, too.
        match tokio::time::timeout(left, peer.send(&batch)).await {
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
    }
    (peer, sent, began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_frames_takes_little_and_nobody_else_feels_it() {
    let folder = tempfile::tempdir().unwrap();
    let key = switchboard(&["key", "generate"]).await.expect_success().trim().to_owned();
    let unlimited =
        [("SWITCHBOARD_SECURITY_RATE_LIMIT_PER_KEY", "0"), ("SWITCHBOARD_SECURITY_RATE_LIMIT_PER_IP", "0")];
    let variables = [&[("SWITCHBOARD_ADMIN_KEY", key.as_str())][..], &unlimited].concat();
    let mut server = Served::start(folder.path(), &variables);
    let url = server.address().await;
    let address = url.strip_prefix("http://").unwrap().to_owned();
    let client = Client::connect(url.clone(), &key).await.unwrap();
    for _ in 0..EVENTS {
        let data = format!(r#"{{"text":"{}"}}"#, "x".repeat(EVENT_BYTES));
        let event = PublishEventRequest { event_type: "flood.ready".into(), data, ..Default::default() };
        client.events().publish_event(event).await.unwrap();
    }
    let id = server.id();
    for case in floods(&key) {
        // What one flood took and what is not given back yet is no part of the next.
        let before = memory(id, "VmRSS");
        forget_peak(id);
        let neighbour = Neighbour::start(&client);
        let (peer, sent, took) = flood(&address, &case).await;
        let waits = neighbour.waits().await;
        let taken = memory(id, "VmHWM").saturating_sub(before);
        let p99 = waits[waits.len() * 99 / 100];
        let heard = &peer.heard;
        eprintln!(
            "{}: {sent} steps in {took:?}, {taken} KiB more, p99 {p99:?} of {}, goodbye {:?}, {} streams reset",
            case.name,
            waits.len(),
            heard.goodbye(),
            heard.frames(RST_STREAM),
        );
        assert!(taken <= MOST_MEMORY, "{}: {taken} KiB more", case.name);
        assert!(!case.is_ended || heard.has_ended(), "{}: the flood is not ended", case.name);
        drop(peer);
        // It is as before: a new peer is served at once.
        let again = tokio::time::timeout(SOON, Client::connect(url.clone(), &key)).await;
        again.expect("a new client is served").expect("a new client is served");
    }
    drop(client);
    server.stop().await;
}
