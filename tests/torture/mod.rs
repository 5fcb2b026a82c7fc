//! The torture of the server: its processes are killed at random moments, and at the worst ones, while webhooks, mails and
//! live streams are under load, and what it acknowledged is held against what arrived.
//!
//! # Who is who
//! * The [`load`] calls the server from outside, and writes down what was acknowledged; the [`receivers`] write down what
//!   arrives ([`journal`]).
//! * The [`run`] starts the servers, which are [processes](process) of the real binary, and kills them: half of the times at
//!   any moment, and half at a failpoint (`server/failpoint.rs`): between a commit and its answer, before and after an attempt,
//!   in the middle of a group, of a migration, of a rotation of the keys.
//! * The [`check`] decides from the two logs alone whether the guarantees of docs/reliability.md held.
//! * The [`bugs`] show that it would have noticed: each is built into the server, and is found.
//!
//! `tests/torture/run KILLS SEED` runs as many kills as one likes. What chance decides follows from `TORTURE_SEED`; when the
//! machine does what, does not, so that a seed makes the same kills again, and meets the same moments often, not always.

mod bugs;
mod check;
mod check_tests;
mod journal;
mod load;
mod process;
mod receivers;
mod run;

use std::time::Duration;

use self::check::Verdict;
use self::journal::milliseconds;
use self::run::Plan;
use crate::harness::server::Backend;

/// A seed that nobody chose, so that each build of the suite looks elsewhere.
fn seed() -> u64 {
    number("TORTURE_SEED").unwrap_or_else(|| {
        let moment = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970");
        moment.as_millis() as u64 % 1_000_000
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

async fn torture(backend: Backend, kills: usize, rate: u32) {
    let kills = number("TORTURE_KILLS").map_or(kills, |kills| kills as usize);
    let plan = Plan {
        backend,
        seed: seed(),
        kills,
        rate: number("TORTURE_RATE").map_or(rate, |rate| rate as u32),
        bug: "",
        failpoint: None,
        life: Duration::from_millis(2_500),
        last: Duration::from_secs(2),
        settle: Duration::from_secs(60),
        // The suite runs beside itself: there the times are those of the machine.  A run by itself says how many kills.
        patience: if number("TORTURE_KILLS").is_some() { 1 } else { 20 },
    };
    eprintln!("TORTURE_SEED={} TORTURE_KILLS={kills} on {backend:?}", plan.seed);
    let verdict = run::run(&plan).await;
    eprintln!("{}", record(&plan, &verdict));
    assert!(verdict.violations.is_empty(), "seed {}: {:#?}", plan.seed, verdict.violations);
    let figures = &verdict.figures;
    assert!(figures.kills >= kills, "{figures:?}");
    assert!(
        figures.arrivals > kills * 20 && figures.stream_events > kills * 20,
        "little happened: {figures:?}"
    );
    assert!(figures.changes > 0 && figures.revocations > 0, "little happened: {figures:?}");
}

/// A line for the table in docs/reliability.md.
fn record(plan: &Plan, verdict: &Verdict) -> String {
    let figures = &verdict.figures;
    let commit = std::env::var("TORTURE_COMMIT").unwrap_or_else(|_| "this".into());
    let time = |time: Option<u64>| time.map_or("-".into(), |time| format!("{} ms", milliseconds(time)));
    let columns = [
        commit,
        format!("{:?}", plan.backend),
        plan.seed.to_string(),
        figures.kills.to_string(),
        figures.acknowledged.to_string(),
        figures.arrivals.to_string(),
        figures.stream_events.to_string(),
        figures.duplicates.to_string(),
        figures.most_per_kill.to_string(),
        figures.lost.to_string(),
        figures.phantom.to_string(),
        time(figures.first_send),
        time(figures.taken_over),
        time(Some(figures.neighbour)),
        format!("{} MiB", figures.memory / 1024),
        verdict.violations.len().to_string(),
    ];
    format!("| {} |\nkills by place: {:?}", columns.join(" | "), figures.places)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_every_kill_sqlite() {
    torture(Backend::Sqlite, 6, 240).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_every_kill_postgres() {
    torture(Backend::Postgres, 4, 120).await;
}
