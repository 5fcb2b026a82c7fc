//! More publishers than the server has places for.
//!
//! The peak is what 256 callers reach. Then there are so many callers that all places that their key may have are taken and
//! several times as many calls are refused; who is refused comes back when the server said, as clients do. A crowd comes all at
//! once: the measurement begins when the server has had some seconds to tell it when to come back. What is done meanwhile is held against the peak. A refusal is timed by a caller with a connection of its own, and so are an
//! administrator's call and the health check, since a crowd's connections are full of the crowd.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use switchboard_client::event::v1::ListEventTypesRequest;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::say;
use crate::client::{Events, HealthCaller, PublishCaller, UNWANTED, callers, client, connections};
use crate::error::{Context, Result};
use crate::load::{Caller, WARM_UP, closed_loop};
use crate::report::{Figure, Report};
use crate::stage::Stage;
use crate::stats::quantile;
use crate::usage::Usage;

const PEAK_CALLERS: usize = 256;
/// As the setting `server.max_calls_under_way` is when nothing is set.
const PLACES: usize = 4_096;
const TIMES: [usize; 3] = [2, 5, 10];
/// HTTP/2 streams that the server allows on a connection.
const PER_CONNECTION: usize = 1_000;
/// What a caller waits who is refused without being told for how long.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a crowd has been there when the measurement begins.
const LEAD: Duration = Duration::from_secs(10);
/// After a crowd: as long as the server gives appointments ahead, which nobody else gets meanwhile.
const GONE: Duration = Duration::from_secs(60);
/// Between two calls of those who are timed.
const PROBE_PAUSE: Duration = Duration::from_millis(20);

/// What a crowd has met so far.
#[derive(Default)]
struct Met {
    stop: AtomicBool,
    done: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// Measures the peak, and the same with crowds.
pub async fn measure(stage: &Stage<'_>, time: Duration, report: &mut Report) -> Result<()> {
    let events = Events::default();
    say("overload, the peak");
    let address = stage.server.address();
    let makers = callers(address, PEAK_CALLERS, |channel| PublishCaller::new(channel, &events)).await?;
    let (makers, _) = closed_loop(makers, WARM_UP).await?;
    let usage = Usage::now(&stage.processes());
    let (_, mut calls) = closed_loop(makers, time).await?;
    let (spent, all) = (usage.spent(&stage.processes()), calls.latencies.len());
    let peak = calls.per_second;
    let mut figures = vec![
        Figure::spread("events/s", peak),
        Figure::spread("p99 ms", quantile(&mut calls.latencies, 0.99)),
    ];
    figures.extend(stage.costs(spent, all));
    report.add("overload", &format!("the peak, {PEAK_CALLERS} callers"), stage.backend.name(), &figures);
    for (number, times) in TIMES.into_iter().enumerate() {
        if number > 0 {
            tokio::time::sleep(GONE).await;
        }
        say(&format!("overload, {times} times"));
        let figures = crowd(stage, &events, times * PLACES, peak, time).await?;
        let case = format!("{} callers", times * PLACES);
        report.add("overload", &case, stage.backend.name(), &figures);
    }
    Ok(())
}

async fn crowd(
    stage: &Stage<'_>,
    events: &Events,
    count: usize,
    peak: f64,
    time: Duration,
) -> Result<Vec<Figure>> {
    let met = Arc::new(Met::default());
    let mut channels = Vec::new();
    while channels.len() * PER_CONNECTION < count {
        channels.extend(connections(stage.server.address(), 1).await?);
    }
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let caller = PublishCaller::new(channels[number % channels.len()].clone(), events)?;
        tasks.spawn(one(caller, Arc::clone(&met), number as u32));
    }
    tokio::time::sleep(LEAD).await;
    let probes = Probes::start(stage.server.address(), events, &met)?;
    let (begin, done, refused) = (Instant::now(), load(&met.done), load(&met.refused));
    let usage = Usage::now(&stage.processes());
    tokio::time::sleep(time).await;
    let (seconds, spent) = (begin.elapsed().as_secs_f64(), usage.spent(&stage.processes()));
    let done = load(&met.done) - done;
    let rate = done as f64 / seconds;
    let refusals = (load(&met.refused) - refused) as f64 / seconds;
    met.stop.store(true, Ordering::Relaxed);
    let mut figures = vec![
        Figure::spread("events/s", rate),
        Figure::spread("× peak", rate / peak),
        Figure::spread("refused/s", refusals),
    ];
    figures.extend(probes.end().await?);
    tasks.shutdown().await;
    figures.push(Figure::spread("failed", load(&met.failed) as f64));
    figures.extend(stage.costs(spent, done as usize));
    Ok(figures)
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// Whether a call was refused because too many are under way: on the server, or of the one key that all of them have.
fn is_refusal(status: &Status) -> bool {
    let gives = |reason: &[u8]| status.details().windows(reason.len()).any(|part| part == reason);
    match status.code() {
        Code::Unavailable => gives(b"OVERLOADED"),
        Code::ResourceExhausted => gives(b"CALL_LIMIT"),
        _ => false,
    }
}

/// What `grpc-status-details-bin` holds: `google.rpc.Status`, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

/// When the server says that the call may come again.
fn pause_of(status: &Status) -> Option<Duration> {
    let details = Details::decode(status.details()).ok()?.details;
    let info = details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?.try_into().ok()
}

/// One of the crowd.
async fn one(mut caller: PublishCaller, met: Arc<Met>, number: u32) {
    // Spread, as those are who come by themselves.
    tokio::time::sleep(PAUSE / 100 * (number % 100)).await;
    while !met.stop.load(Ordering::Relaxed) {
        match caller.client.publish_event(caller.events.next(UNWANTED)).await {
            Ok(_) => met.done.fetch_add(1, Ordering::Relaxed),
            Err(status) if is_refusal(&status) => {
                met.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(pause_of(&status).unwrap_or(PAUSE)).await;
                continue;
            }
            Err(_) => met.failed.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// What callers met who are timed.
struct Timed {
    refusals: Vec<Duration>,
    administrator: Vec<Duration>,
    health: Vec<Duration>,
}

/// Those who are timed: on a thread of their own, since on the crowd's they would wait for the crowd's turns.
struct Probes(std::thread::JoinHandle<Result<Timed>>);

impl Probes {
    fn start(address: &str, events: &Events, met: &Arc<Met>) -> Result<Self> {
        let (address, events, met) = (address.to_owned(), events.clone(), Arc::clone(met));
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
        let probe = move || runtime.block_on(probe(&address, &events, met));
        Ok(Self(std::thread::Builder::new().name("probes".to_owned()).spawn(probe).context("a thread")?))
    }

    async fn end(self) -> Result<Vec<Figure>> {
        let timed = tokio::task::spawn_blocking(move || self.0.join()).await.context("the timed callers")?;
        let timed = timed.map_err(|_| "a caller that is timed panicked")??;
        let named = [
            ("refusal p99 ms", timed.refusals),
            ("administrator p99 ms", timed.administrator),
            ("health p99 ms", timed.health),
        ];
        // Of what nobody met there is no time.
        let met = named.into_iter().filter(|(_, times)| !times.is_empty());
        Ok(met.map(|(name, mut times)| Figure::spread(name, quantile(&mut times, 0.99))).collect())
    }
}

async fn probe(address: &str, events: &Events, met: Arc<Met>) -> Result<Timed> {
    let mut channels = connections(address, 1).await?;
    channels.extend(connections(address, 1).await?);
    channels.extend(connections(address, 1).await?);
    let publisher = PublishCaller::new(channels[0].clone(), events)?;
    let refusals = repeat(Arc::clone(&met), || {
        let mut publisher = publisher.clone();
        async move {
            let answer = publisher.client.publish_event(publisher.events.next(UNWANTED)).await;
            // Now and then there is a place.
            Ok(answer.is_err_and(|status| is_refusal(&status)))
        }
    });
    let types = client(channels[1].clone())?.events();
    let administrator = repeat(Arc::clone(&met), || {
        let mut types = types.clone();
        async move {
            types.list_event_types(ListEventTypesRequest::default()).await.context("ListEventTypes")?;
            Ok(true)
        }
    });
    let health = repeat(Arc::clone(&met), || {
        let mut caller = HealthCaller::new(channels[2].clone());
        async move { caller.call().await.map(|()| true) }
    });
    let (refusals, administrator, health) = tokio::try_join!(refusals, administrator, health)?;
    Ok(Timed { refusals, administrator, health })
}

/// Calls until the crowd ends; the times of the calls that count.
async fn repeat<F: Future<Output = Result<bool>>>(
    met: Arc<Met>,
    mut call: impl FnMut() -> F,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    while !met.stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        if call().await? {
            times.push(begin.elapsed());
        }
        tokio::time::sleep(PROBE_PAUSE).await;
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_when_to_come_again() {
        let info = RetryInfo { retry_delay: Some(prost_types::Duration { seconds: 3, nanos: 500_000_000 }) };
        let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
        let detail = prost_types::Any { type_url, value: info.encode_to_vec() };
        let other =
            prost_types::Any { type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(), value: vec![1] };
        let details = Details { details: vec![other, detail] }.encode_to_vec();
        let status = Status::with_details(Code::Unavailable, "full", details.into());
        assert_eq!(pause_of(&status), Some(Duration::from_millis(3_500)));
        assert_eq!(pause_of(&Status::unavailable("gone")), None);
    }
}
