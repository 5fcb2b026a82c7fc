//! Callers that publish without pause, and what they were told.
#![allow(dead_code, reason = "a shared harness offers more than each test uses")]
#![allow(clippy::disallowed_methods, reason = "a measuring instrument reads the real clock")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use switchboard_client::Client;
use switchboard_client::event::v1::PublishEventRequest;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Status};
use tonic_types::StatusExt;

use super::eventually;
use super::receiver::Received;

/// How long a caller that was refused waits before it asks again.
const PAUSE: Duration = Duration::from_millis(50);

/// How callers publish.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Calls at a time.
    pub callers: usize,
    /// What each call may take; the server is told.
    pub deadline: Duration,
    /// About how many bytes an event has.
    pub bytes: usize,
}

/// What was told so far.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// The number in an event's payload, by the event's id: those that were acknowledged.
    pub acknowledged: HashMap<String, usize>,
    /// How often a call was refused, by code and reason.
    pub refused: BTreeMap<(String, String), usize>,
    /// The longest that a call took, acknowledged or not.
    pub slowest: Duration,
}

/// Callers at work.  Each asks for the same event until it is acknowledged, by the same request id: what one call did not
/// learn, the next one does.
pub struct Load {
    told: Arc<Mutex<Told>>,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Load {
    /// Sets them to work.  `run` tells their request ids from those of others.
    pub fn start(client: &Client, run: &str, manner: Manner) -> Self {
        let load = Self { told: Arc::default(), stop: CancellationToken::new(), tracker: TaskTracker::new() };
        let next = Arc::new(AtomicUsize::new(0));
        for _ in 0..manner.callers {
            let (client, told, next) = (client.clone(), Arc::clone(&load.told), Arc::clone(&next));
            load.tracker.spawn(call(client, run.to_owned(), manner, told, next, load.stop.clone()));
        }
        load.tracker.close();
        load
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("no panic holds it")
    }

    /// What they were told so far.
    pub fn so_far(&self) -> Told {
        self.told().clone()
    }

    /// How many were acknowledged so far.
    pub fn count(&self) -> usize {
        self.told().acknowledged.len()
    }

    /// Forgets how long calls took.
    pub fn reset_slowest(&self) -> Duration {
        std::mem::take(&mut self.told().slowest)
    }

    /// Waits until so many more are acknowledged.
    pub async fn goes_on_by(&self, number: usize) {
        let enough = self.count() + number;
        eventually("events are acknowledged", async || (self.count() >= enough).then_some(())).await;
    }

    /// Waits until a call is refused for this reason, as often as `number`.
    pub async fn is_refused(&self, reason: &str, number: usize) {
        eventually("calls are refused", async || {
            let told = self.told();
            let count: usize =
                told.refused.iter().filter(|((_, one), _)| one == reason).map(|(_, n)| n).sum();
            (count >= number).then_some(())
        })
        .await;
    }

    /// Ends the callers, each after its call.
    pub async fn end(self) -> Told {
        self.stop.cancel();
        self.tracker.wait().await;
        self.told().clone()
    }
}

async fn call(
    client: Client,
    run: String,
    manner: Manner,
    told: Arc<Mutex<Told>>,
    next: Arc<AtomicUsize>,
    stop: CancellationToken,
) {
    let filling = "x".repeat(manner.bytes);
    while !stop.is_cancelled() {
        let number = next.fetch_add(1, Ordering::Relaxed);
        loop {
            let event = PublishEventRequest {
                event_type: "load.event".into(),
                data: format!(r#"{{"n":{number},"filling":"{filling}"}}"#),
                request_id: format!("{run}-{number}"),
                ..Default::default()
            };
            let mut request = Request::new(event);
            request.set_timeout(manner.deadline);
            let begun = Instant::now();
            let answer = client.events().publish_event(request).await;
            let begun = begun.elapsed();
            if note(&told, begun, number, answer.map(|answer| answer.into_inner().event_id)) {
                break;
            }
            if stop.is_cancelled() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Notes what a call was told; answers whether it was acknowledged.
fn note(told: &Mutex<Told>, took: Duration, number: usize, answer: Result<String, Status>) -> bool {
    let mut told = told.lock().expect("no panic holds it");
    told.slowest = told.slowest.max(took);
    match answer {
        Ok(event_id) => {
            told.acknowledged.insert(event_id, number);
            true
        }
        Err(status) => {
            let info = status.get_details_error_info();
            let reason = info.map_or_else(|| with_causes(&status), |info| info.reason);
            *told.refused.entry((format!("{:?}", status.code()), reason)).or_default() += 1;
            false
        }
    }
}

/// What a status says that comes from no server, and what it comes from.
fn with_causes(status: &Status) -> String {
    let causes = std::iter::successors(std::error::Error::source(status), |error| error.source());
    causes.fold(status.message().to_owned(), |text, cause| format!("{text}: {cause}"))
}

/// How often each event arrived, by its id.
pub fn arrivals(received: &[Received]) -> HashMap<String, usize> {
    let mut all = HashMap::new();
    for request in received {
        let id = request.header("webhook-id").expect("every request has an id");
        *all.entry(id.to_owned()).or_default() += 1;
    }
    all
}

/// The acknowledged events that are not among these.
pub fn missing<'a>(told: &'a Told, ids: impl IntoIterator<Item = &'a String>) -> Vec<&'a String> {
    let there: HashSet<&String> = ids.into_iter().collect();
    told.acknowledged.keys().filter(|id| !there.contains(id)).collect()
}
