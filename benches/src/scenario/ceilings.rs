//! The ceilings that the rest of the run is held against.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{callers_in_words, say};
use crate::client::{Events, HealthCaller, PublishCaller, WANTED, callers};
use crate::error::{Context, Result};
use crate::load::measured;
use crate::post::PostCaller;
use crate::report::{Figure, Report};
use crate::sink::Captured;
use crate::stage::Stage;
use crate::stats::quantile;
use crate::usage::Usage;

/// As many connections as the server opens to one endpoint at most.
const CONNECTIONS: usize = 64;

/// How long the server may take for the one delivery that the bare client repeats.
const CAPTURE_LIMIT: Duration = Duration::from_secs(30);

/// The most that can be had, measured a moment before what is held against it.
pub struct Ceilings {
    rpcs: BTreeMap<usize, f64>,
    posts: f64,
}

impl Ceilings {
    /// Which share of the empty RPCs by as many callers this rate is.
    pub fn of_rpcs(&self, callers: usize, rate: f64) -> Figure {
        Figure::spread("× empty RPC", self.rpcs.get(&callers).map_or(0.0, |ceiling| rate / ceiling))
    }

    /// Which share of the bare posts this rate is.
    pub fn of_posts(&self, rate: f64) -> Figure {
        Figure::spread("× bare POST", rate / self.posts)
    }
}

/// Measures empty RPCs with each of these numbers of callers, and bare posts.
pub async fn measure(
    stage: &Stage<'_>,
    counts: &BTreeSet<usize>,
    time: Duration,
    report: &mut Report,
) -> Result<Ceilings> {
    let backend = stage.backend.name();
    let mut rpcs = BTreeMap::new();
    for &count in counts {
        let case = format!("empty RPC, {}", callers_in_words(count));
        say(&case);
        let makers = callers(stage.server.address(), count, |channel| Ok(HealthCaller::new(channel))).await?;
        let before = Usage::now(&stage.processes());
        let (_, mut calls) = measured(makers, time).await?;
        let spent = before.spent(&stage.processes());
        rpcs.insert(count, calls.per_second);
        let figures = figures(calls.per_second, &mut calls.latencies, spent.bench_cores, spent.other_cores);
        report.add("ceilings", &case, backend, &figures);
    }

    let case = format!("bare POST, {CONNECTIONS} connections");
    say(&case);
    let request = one_delivery(stage).await?;
    let mut posters = Vec::new();
    for _ in 0..CONNECTIONS {
        posters.push(PostCaller::connect(stage.sink.address(), request.clone()).await?);
    }
    let before = Usage::now(&stage.processes());
    let (_, mut calls) = measured(posters, time).await?;
    let spent = before.spent(&stage.processes());
    stage.sink.take();
    let posts = calls.per_second;
    let figures = figures(posts, &mut calls.latencies, spent.bench_cores, spent.other_cores);
    report.add("ceilings", &case, backend, &figures);
    Ok(Ceilings { rpcs, posts })
}

fn figures(per_second: f64, latencies: &mut [Duration], bench_cores: f64, other_cores: f64) -> [Figure; 5] {
    [
        Figure::spread("calls/s", per_second),
        Figure::spread("p50 ms", quantile(latencies, 0.5)),
        Figure::spread("p99 ms", quantile(latencies, 0.99)),
        Figure::median("load cores", bench_cores),
        Figure::median("other cores", other_cores),
    ]
}

/// A request that the server really sent: the bare client posts the same headers and the same body.
async fn one_delivery(stage: &Stage<'_>) -> Result<Captured> {
    stage.add_endpoints(1).await?;
    let captured = stage.sink.capture();
    let mut publisher =
        callers(stage.server.address(), 1, |channel| PublishCaller::new(channel, &Events::default())).await?;
    publisher[0].publish(WANTED).await?;
    let request =
        tokio::time::timeout(CAPTURE_LIMIT, captured).await.context("the server delivers no webhook")?;
    let request = request.context("the sink ended")?;
    stage.sink.take();
    Ok(request)
}
