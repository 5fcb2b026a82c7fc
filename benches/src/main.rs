//! Measures Switchboard over real sockets.
//!
//! The server is a process of its own, as its users run it. This program is the load and the sink: one thread publishes
//! ([`load`], [`client`], [`mail`]), one receives the webhooks ([`sink`]), and one reads live streams ([`live`]), so that
//! measuring costs little of the machine; mails go to Postfix's `smtp-sink` ([`smtp_sink`]). A run ([`scenario::run`]) measures the ceilings first and
//! holds everything else against them: no figure stands alone, since the machine under it is never twice the same.
//! `README.md` says what the figures mean.
#![allow(clippy::disallowed_methods, reason = "a measuring instrument reads the real clock")]
#![allow(clippy::cast_precision_loss, reason = "no count here needs more than 52 bits")]

mod chart;
mod client;
mod database;
mod error;
mod folder;
mod hostile;
mod key;
mod live;
mod load;
mod machine;
mod mail;
mod options;
mod past;
mod past_keys;
mod post;
mod postgres;
mod process;
mod report;
mod scenario;
mod server;
mod sink;
mod smtp_sink;
mod stage;
mod stats;
mod table;
mod usage;

use std::fs;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Context, Result};
use crate::machine::Machine;
use crate::options::Options;
use crate::postgres::Cluster;
use crate::report::Report;
use crate::stage::Parts;

/// What must be 0 wherever it is counted.
const FAULTS: [&str; 11] = [
    "lost",
    "duplicates",
    "unknown",
    "neighbour's duplicates",
    "neighbour's unknown",
    "followed",
    "order violations",
    "strays",
    "notices",
    "ended",
    "failed",
];

fn main() -> ExitCode {
    let outcome = bare_server().unwrap_or_else(measure_all);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benches/run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether this process is the ceiling of another one's live streams; then it has ended when this answers.
fn bare_server() -> Option<Result<()>> {
    let mut arguments = std::env::args_os().skip(1);
    let file = arguments.next().filter(|first| first == live::bare::ARGUMENT).and(arguments.next())?;
    Some(live::bare::serve(file.as_ref()))
}

fn measure_all() -> Result<()> {
    let options = Options::parse();
    // One thread makes all the load: with more, the callers would compete with the server for the cores.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the runtime")?.block_on(until_interrupted(options))
}

/// Measures, unless somebody asks this program to end. Either way whatever was started is ended.
async fn until_interrupted(options: Options) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    tokio::select! {
        outcome = measure(options) => outcome,
        _ = interrupt.recv() => Err("interrupted".into()),
        _ = terminate.recv() => Err("asked to end".into()),
    }
}

async fn measure(options: Options) -> Result<()> {
    let (json, charts) = (options.json.clone(), options.charts.clone());
    let parts = Parts::start(options).await?;
    let version = parts.cluster.as_ref().map(|cluster: &Cluster| cluster.version().to_owned());
    let machine = Machine::describe(parts.folders.file_system(), version).await;
    let (seconds, runs) = (parts.options.time().as_secs(), parts.options.runs());
    let mut report = Report { machine, seconds, runs, findings: Vec::new(), curves: Vec::new() };

    let outcome = all_runs(&parts, &mut report).await;
    parts.stop().await;

    // What was measured before a failure is shown all the same.
    if !report.findings.is_empty() {
        let mut output = std::io::stdout().lock();
        write!(output, "{report}").context("standard output")?;
        if let Some(file) = json {
            fs::write(&file, serde_json::to_vec_pretty(&report)?).context(&file.display().to_string())?;
        }
        if let Some(folder) = charts {
            chart::draw(&report, &folder)?;
        }
    }
    outcome?;
    let faults: f64 = FAULTS.into_iter().map(|fault| report.total(fault)).sum();
    if faults > 0.0 {
        Err(format!(
            "{faults} deliveries were lost, came twice or out of order, are unknown or went elsewhere"
        )
        .into())
    } else {
        Ok(())
    }
}

async fn all_runs(parts: &Parts, report: &mut Report) -> Result<()> {
    for run in 1..=report.runs {
        for &backend in parts.options.backends() {
            eprintln!("run {run} of {}, {}", report.runs, backend.name());
            scenario::run(parts, backend, report).await?;
        }
    }
    Ok(())
}
