//! A queue of a million: what the server holds in memory while the mails wait in its database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;

use super::super::say;
use crate::client::callers;
use crate::error::{Context, Result};
use crate::mail::{Mailer, Mails, configure};
use crate::options::Backend;
use crate::report::{Figure, Report};
use crate::smtp_sink::SmtpSink;
use crate::stage::Parts;
use crate::usage::{Usage, peak_resident, resident};

/// How many callers queue batches at once.
const CALLERS: usize = 8;
/// As many mails as a batch may have.
const BATCH: u64 = 500;
/// When the mails are due: not while this is measured.
const AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

/// Queues them, as fast as it goes, and looks.
pub async fn measure(parts: &Parts, backend: Backend, report: &mut Report) -> Result<()> {
    let count = parts.options.mails();
    let case = format!("{count} mails");
    say(&format!("email-memory, {case}"));
    let sink = SmtpSink::start().await?;
    let stage = parts.stage(backend).await?;
    let empty = resident(stage.server.pid());
    configure(stage.server.address(), sink.port()).await?;
    let mails = Mails::due_at((SystemTime::now() + AHEAD).into());
    let mailers = callers(stage.server.address(), CALLERS, |channel| Mailer::new(channel, &mails)).await?;

    let mut processes = stage.processes();
    processes.load.push(sink.pid());
    let before = Usage::now(&processes);
    let begin = Instant::now();
    let left = Arc::new(AtomicU64::new(count));
    let mut tasks = JoinSet::new();
    for mut mailer in mailers {
        let left = Arc::clone(&left);
        tasks.spawn(async move {
            loop {
                let batch = take(&left);
                if batch == 0 {
                    return Result::Ok(());
                }
                mailer.queue(batch as usize).await?;
            }
        });
    }
    while let Some(joined) = tasks.join_next().await {
        joined.context("a caller")??;
    }
    let took = begin.elapsed();
    let spent = before.spent(&processes);

    let mut figures = vec![
        Figure::spread("accepted/s", count as f64 / took.as_secs_f64()),
        Figure::spread("RSS MiB with all of them", resident(stage.server.pid())),
        Figure::spread("most ever", peak_resident(stage.server.pid())),
        Figure::spread("before", empty),
        // None is due, so none may come.
        Figure::sum("unknown", sink.counters().messages as usize),
    ];
    figures.extend(stage.costs(spent, count as usize));
    report.add("email-memory", &case, backend.name(), &figures);
    stage.stop().await?;
    sink.stop().await;
    Ok(())
}

/// Takes the next batch off what is left: its size, 0 at the end.
fn take(left: &AtomicU64) -> u64 {
    let rest = |left: u64| Some(left.saturating_sub(BATCH));
    // It can not fail: there is a rest of everything.
    let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).unwrap_or(0);
    before.min(BATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_batch_is_what_is_left() {
        let left = AtomicU64::new(1_200);
        let taken: Vec<u64> = (0..5).map(|_| take(&left)).collect();
        assert_eq!(taken, [500, 500, 200, 0, 0]);
    }
}
