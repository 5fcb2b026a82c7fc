//! The ceiling: Postfix's `smtp-source`, which repeats one message over sessions that stay open.

use std::process::Stdio;
use std::time::Instant;

use tokio::process::Command;

use super::message::LENGTH;
use super::{Round, Target};
use crate::error::{Context, Result};
use crate::load::WARM_UP;
use crate::mail::CONNECTIONS;
use crate::report::{Figure, Report};
use crate::smtp_sink::program;
use crate::usage::{Processes, Usage};

/// More than it can send in the time: it is ended when that is up.
const MESSAGES: &str = "2000000000";

/// Measures it by what the sink counts. Gives the messages per second.
pub async fn measure(round: &Round<'_>, report: &mut Report) -> Result<f64> {
    let case = round.case("smtp-source");
    let target = Target::start(round.far).await?;
    let (sessions, length) = (CONNECTIONS.to_string(), LENGTH.to_string());
    let address = format!("127.0.0.1:{}", target.port());
    let mut source = Command::new(program("smtp-source")?)
        .args(["-4", "-s", &sessions, "-m", MESSAGES, "-l", &length, "-d", &address])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("smtp-source")?;
    let load = vec![target.sink.pid(), source.id().ok_or("smtp-source ended")?];
    let processes = Processes { load, ..Processes::default() };

    tokio::time::sleep(WARM_UP).await;
    let before = Usage::now(&processes);
    let (begin, counted) = (Instant::now(), target.sink.counters().messages);
    tokio::time::sleep(round.time).await;
    let (messages, time) = (target.sink.counters().messages - counted, begin.elapsed());
    let spent = before.spent(&processes);
    if let Some(status) = source.try_wait().context("smtp-source")? {
        return Err(format!("smtp-source ended by itself: {status}").into());
    }
    let connections = target.sink.connections();
    source.kill().await.context("smtp-source")?;

    let rate = messages as f64 / time.as_secs_f64();
    let figures = [
        Figure::spread("messages/s", rate),
        Figure::median("connections", connections as f64),
        Figure::median("load cores", spent.bench_cores),
        Figure::median("other cores", spent.other_cores),
    ];
    report.add("email", &case, round.backend.name(), &figures);
    target.stop().await;
    if messages == 0 { Err("smtp-source sent nothing".into()) } else { Ok(rate) }
}
