//! Keys: how fast they are verified beside the empty RPC, what a million of them take in memory, and what it costs any call to
//! pass the gate.

mod ask;

use std::time::{Duration, Instant};

use switchboard_client::apikey::v1::{CreateApiKeyRequest, RateLimit};

use self::ask::{Asker, Question, ReadCaller};
use super::{callers_in_words, in_words, say};
use crate::client::connections;
use crate::error::{Context, Result};
use crate::load::{WARM_UP, closed_loop, make_calls};
use crate::options::Backend;
use crate::past_keys;
use crate::report::{Figure, Report};
use crate::stage::{Parts, Stage};
use crate::stats::quantile;
use crate::usage::{Usage, resident};

/// How many callers ask at once.
const CALLERS: usize = 64;
/// How many read all keys.
const READERS: usize = 16;
/// In how many slices each measurement is made, in turn with the others: what the machine does meanwhile meets all of them.
const SLICES: u32 = 8;
/// Keys that are in use where not all of them are.
const IN_USE: u64 = 1_000;

/// Measures on a database with keys that were made before.
pub async fn measure(parts: &Parts, backend: Backend, report: &mut Report) -> Result<()> {
    let (time, count) = (parts.options.time(), parts.options.keys());
    say(&format!("keys, {}", in_words(count)));
    let database = parts.stage(backend).await?.halt().await;
    let begin = Instant::now();
    past_keys::fill(&database, count).await?;
    let filling = begin.elapsed();
    let stage = parts.stage_on(database).await?;
    let host = host_key(&stage).await?;

    let mut figures = read_all(&stage, &host, count).await?;
    figures.push(Figure::median("filling s", filling.as_secs_f64()));
    report.add("keys", &format!("{} keys once each", in_words(count)), backend.name(), &figures);

    let callers = callers_in_words(CALLERS);
    let few = Question::Key { of: IN_USE.min(count) };
    let cases = [
        (format!("empty RPC, {callers}"), Question::Empty),
        (format!("the gate alone, {callers}"), Question::Nothing),
        (format!("VerifyApiKey, {callers}"), few),
        (format!("… with scope and path, {callers}"), Question::Use { of: IN_USE.min(count) }),
    ];
    in_turn(&stage, &host, &cases, time, report).await?;
    // Apart, because to write down what a million keys were used for takes the server's time from whoever comes next.
    let all = [
        (format!("empty RPC again, {callers}"), Question::Empty),
        (format!("VerifyApiKey, all keys, {callers}"), Question::Key { of: count }),
    ];
    in_turn(&stage, &host, &all, time, report).await?;
    stage.stop().await
}

/// The key of an application that verifies others: with a rate limit that is never reached and a network that it is in, since
/// what it costs to look at them belongs to the measurement.
async fn host_key(stage: &Stage<'_>) -> Result<String> {
    let second = prost_types::Duration { seconds: 1, nanos: 0 };
    let request = CreateApiKeyRequest {
        name: "Host".to_owned(),
        scopes: vec!["apikeys:verify".to_owned()],
        rate_limits: vec![RateLimit { name: "calls".to_owned(), limit: 1_000_000, period: Some(second) }],
        allowed_networks: vec!["127.0.0.0/8".to_owned()],
        ..CreateApiKeyRequest::default()
    };
    let answer = stage.client().await?.api_keys().create_api_key(request).await.context("CreateApiKey")?;
    Ok(answer.into_inner().key)
}

/// Verifies every key once, so that all of them are in memory then.
async fn read_all(stage: &Stage<'_>, host: &str, count: u64) -> Result<Vec<Figure>> {
    say("each of them once");
    let channels = connections(stage.server.address(), READERS).await?;
    let batches = count.div_ceil(ReadCaller::BATCH);
    let readers = ReadCaller::some(&channels, READERS, host, count)?;
    stage.settled().await?;
    let before = resident(stage.server.pid());
    let begin = Instant::now();
    make_calls(readers, batches).await?;
    let took = begin.elapsed();
    // What was counted of the uses is written, and not in memory any more.
    stage.settled().await?;
    let after = resident(stage.server.pid());
    Ok(vec![
        Figure::spread("RSS bytes each", (after - before) * 1_048_576.0 / count as f64),
        Figure::spread("keys/s", count as f64 / took.as_secs_f64()),
        Figure::median("RSS MiB before", before),
        Figure::median("RSS MiB with all", after),
    ])
}

/// What one case has found so far.
#[derive(Default)]
struct Found {
    latencies: Vec<Duration>,
    server: f64,
    postgres: Option<f64>,
    bench_cores: f64,
    other_cores: f64,
}

/// Measures the cases slice by slice in turn, and holds them against the first one.
async fn in_turn(
    stage: &Stage<'_>,
    host: &str,
    cases: &[(String, Question)],
    time: Duration,
    report: &mut Report,
) -> Result<()> {
    let channels = connections(stage.server.address(), CALLERS).await?;
    let mut askers = Vec::new();
    for (case, question) in cases {
        say(case);
        let new = (0..CALLERS)
            .map(|number| Asker::new(&channels[number % channels.len()], host, *question, number));
        let new = new.collect::<Result<Vec<_>>>()?;
        askers.push(closed_loop(new, WARM_UP).await?.0);
    }
    let mut found: Vec<Found> = cases.iter().map(|_| Found::default()).collect();
    for _ in 0..SLICES {
        for (asking, found) in askers.iter_mut().zip(&mut found) {
            let before = Usage::now(&stage.processes());
            let (back, calls) = closed_loop(std::mem::take(asking), time / SLICES).await?;
            let spent = before.spent(&stage.processes());
            *asking = back;
            found.latencies.extend(calls.latencies);
            found.server += spent.server;
            found.postgres = spent.postgres.map(|seconds| found.postgres.unwrap_or(0.0) + seconds);
            found.bench_cores += spent.bench_cores / f64::from(SLICES);
            found.other_cores += spent.other_cores / f64::from(SLICES);
        }
    }
    let empty = (found[0].latencies.len() as f64, found[0].server);
    for ((case, _), found) in cases.iter().zip(&mut found) {
        report.add("keys", case, stage.backend.name(), &found.figures(empty, time));
    }
    Ok(())
}

impl Found {
    /// The figures; `empty` is how many empty RPCs were answered in the same time, and what they took of the server.
    fn figures(&mut self, empty: (f64, f64), time: Duration) -> Vec<Figure> {
        let calls = self.latencies.len().max(1) as f64;
        let each = |seconds: f64| seconds * 1_000_000.0 / calls;
        let empty_each = empty.1 * 1_000_000.0 / empty.0.max(1.0);
        let mut figures = vec![
            Figure::spread("calls/s", self.latencies.len() as f64 / time.as_secs_f64()),
            Figure::spread("× empty RPC", self.latencies.len() as f64 / empty.0.max(1.0)),
            Figure::spread("p50 ms", quantile(&mut self.latencies, 0.5)),
            Figure::spread("p99 ms", quantile(&mut self.latencies, 0.99)),
            Figure::spread("server CPU × empty", each(self.server) / empty_each),
            Figure::median("server CPU µs each", each(self.server)),
        ];
        figures.extend(self.postgres.map(|seconds| Figure::median("postgres CPU µs each", each(seconds))));
        figures.push(Figure::median("load cores", self.bench_cores));
        figures.push(Figure::median("other cores", self.other_cores));
        figures
    }
}
