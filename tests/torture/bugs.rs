//! Bugs of the kinds that such a server has, each built into it at its real place (`server/failpoint.rs`), and each found: a
//! checker that finds nothing has to show that it would.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::check::Guarantee::{self, G1, G2, G3, G4, G5, G8};
use super::run::{Plan, run};
use crate::harness::server::Backend::{self, Postgres, Sqlite};

/// How many are looked for at once.
const AT_ONCE: usize = 4;
/// Lets a server live until the end of its time.
const NOWHERE: &str = "nowhere=kill:1";
/// Whether a kill meets what a bug does is chance: so often it is looked for.
const TRIES: u64 = 4;

/// A bug, what shows it, and what it violates.
struct Bug {
    /// Its name, and at which passes it happens.
    bug: &'static str,
    backend: Backend,
    kills: usize,
    /// Where the servers are killed; empty for any moment.
    failpoint: &'static str,
    violates: Guarantee,
}

const fn bug(
    bug: &'static str,
    backend: Backend,
    kills: usize,
    failpoint: &'static str,
    violates: Guarantee,
) -> Bug {
    Bug { bug, backend, kills, failpoint, violates }
}

impl Bug {
    fn plan(&self, seed: u64) -> Plan {
        // An attempt counts as noted three seconds after its answer, so that a server that does not note it lives longer.
        let life = if self.failpoint == NOWHERE { 5_000 } else { 1_500 };
        Plan {
            backend: self.backend,
            seed,
            kills: self.kills,
            rate: 150,
            bug: self.bug,
            failpoint: Some(self.failpoint),
            life: Duration::from_millis(life),
            last: Duration::from_secs(1),
            settle: Duration::from_secs(if self.violates == G8 { 8 } else { 3 }),
            patience: 1,
        }
    }
}

static BUGS: [Bug; 14] = [
    // Callers are answered before the commit, and the process ends between the two.
    bug("acknowledged_before_commit=bug:1", Sqlite, 3, "acknowledged.uncommitted=kill:4:100", G1),
    // Deliveries are handed over before the commit.
    bug("attempted_before_commit=bug:1", Sqlite, 3, "accept.uncommitted=kill:4:120", G3),
    // A delivery in hand is never given to a worker: a wake-up is lost.
    bug("handover_lost=bug:25", Sqlite, 1, "", G1),
    // What a dead process had in hand stays in its hands.
    bug("recovery_forgotten=bug:1", Sqlite, 2, "attempt.begin=kill:80", G1),
    // What a dead process had in hand is looked for late.
    bug("recovery_late=bug:1", Sqlite, 2, "attempt.begin=kill:80", G8),
    // What living nodes have in hand is taken from them.
    bug("lease_ignored=bug:1", Postgres, 3, "", G2),
    // A worker makes an attempt again without a reason.
    bug("attempt_made_twice=bug:40", Sqlite, 1, "", G2),
    // The result of an attempt is not written.
    bug("completion_lost=bug:1", Sqlite, 2, NOWHERE, G2),
    // A repeated request is taken for a new one.
    bug("request_id_ignored=bug:1", Sqlite, 3, "accept.committed=kill:50", G3),
    // A mail has another Message-ID at each attempt.
    bug("message_id_changes=bug:1", Sqlite, 5, "attempt.end=kill:60", G2),
    // A stream that is resumed begins one event too late.
    bug("cursor_off_by_one=bug:1", Sqlite, 4, "", G1),
    // A stream leaves an event out.
    bug("stream_event_skipped=bug:60", Sqlite, 1, "", G1),
    // A change has no entry in the audit log.
    bug("audit_entry_missing=bug:2", Sqlite, 1, "", G4),
    // A revoked key is still known from before.
    bug("revocation_forgotten=bug:1", Sqlite, 1, "", G5),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bug_that_is_built_in_is_found() {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut looking = JoinSet::new();
    for (seed, bug) in (1..).zip(&BUGS) {
        let room = Arc::clone(&room);
        looking.spawn(async move {
            let _place = room.acquire_owned().await.unwrap();
            for attempt in 1..=TRIES {
                let verdict = run(&bug.plan(seed * TRIES + attempt)).await;
                if verdict.violates(bug.violates) || attempt == TRIES {
                    return (bug, attempt, verdict);
                }
            }
            unreachable!("the last try answers")
        });
    }
    let mut missed = Vec::new();
    while let Some(looked) = looking.join_next().await {
        let (bug, tries, verdict) = looked.unwrap();
        let found = verdict.violates(bug.violates);
        let said = verdict.violations.iter().find(|violation| violation.guarantee == bug.violates);
        eprintln!(
            "{}, tried {tries} times: {}",
            bug.bug,
            said.map_or("not found", |violation| violation.what.as_str())
        );
        if !found {
            missed.push(format!("{} is not found: {verdict:?}", bug.bug));
        }
    }
    assert!(missed.is_empty(), "{} of {} are missed: {missed:#?}", missed.len(), BUGS.len());
}
