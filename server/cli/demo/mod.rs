//! `switchboard demo`: the whole job in one process, on a database of its own, shown and checked.
//!
//! The demo is an outsider.  It starts the server as `serve` does and then knows it only by its address and its key:
//!
//! ```text
//!  publish (the application) ──▶ server ──▶ receiver (webhooks, verifies both signatures) ──┐
//!                                  ├──────▶ setup::subscribe (live stream) ─────────────────┼─▶ Notes ─▶ timeline,
//!                                  └──────▶ mails::watch (captured mail) ───────────────────┘           journal
//!  journal + plan ──▶ check, and the server's own record ──▶ report, exit code
//! ```
//! The exit code is 0 only when every channel got everything, once and as it should be.

mod arrival;
mod check;
mod events;
mod failure;
mod folder;
mod journal;
mod line;
mod mails;
mod next_steps;
mod page;
mod plan;
mod publish;
mod receiver;
mod record;
mod report;
mod setup;
pub(crate) mod signature;
mod timeline;

pub use next_steps::grpcurl_lines;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use switchboard_client::Client;
use tokio::task::JoinSet;

use crate::app::App;
use crate::config::Config;
use arrival::Notes;
use failure::{Failure, Result};
use folder::Folder;
use page::{Page, Tone};
use receiver::Receiver;
use timeline::Timeline;

/// How long everything may take to arrive.
const LIMIT: Duration = Duration::from_secs(15);
/// The exit code of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// What `switchboard demo` takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Arguments {
    /// Keep serving after the check, until Ctrl-C, so that the printed grpcurl lines can be tried.
    #[arg(long)]
    pub keep: bool,
    /// Where to make the folder with the database, instead of the system's temporary folder.  It is removed at the end.
    #[arg(long, value_name = "DIRECTORY")]
    pub data: Option<PathBuf>,
}

/// Runs the demo.
pub async fn run(arguments: Arguments) -> ExitCode {
    let page = Page::standard_output();
    match demonstrate(page, &arguments).await {
        Ok(code) => code,
        Err(failure) => {
            page.line("");
            page.toned(Tone::Bad, format!("The demo failed: {failure}."));
            ExitCode::FAILURE
        }
    }
}

async fn demonstrate(page: Page, arguments: &Arguments) -> Result<ExitCode> {
    let parent = arguments.data.clone().unwrap_or_else(std::env::temp_dir);
    let in_parent = format!("no folder could be made in {}", parent.display());
    let folder = Folder::new(&parent).map_err(|error| Failure::new(&in_parent, error))?;
    let mut config = Config::local(folder.path().to_owned());
    // The receiver is on this machine, where webhooks must not go unless they are told so.
    config.allow_network = vec!["127.0.0.0/8".parse().expect("a network")];
    let app = App::start(config).await.map_err(|error| Failure::new("the server did not start", error))?;
    let verdict = OnceLock::new();
    let outcome = tokio::select! {
        outcome = show(page, &app, &folder, arguments.keep, &verdict) => outcome,
        // The way to end `--keep`; before the verdict, there is none to answer with.
        () = interrupted() => Ok(verdict.get().copied().unwrap_or(ExitCode::from(INTERRUPTED))),
    };
    // Whatever came of it, the server is stopped before its folder goes.
    tokio::select! {
        () = app.stop() => {}
        // Asked twice: no more waiting.
        () = interrupted() => {}
    }
    outcome
}

/// Shows and checks everything.  If the server is to be kept, notes the verdict and goes on showing without end.
async fn show(
    page: Page,
    app: &App,
    folder: &Folder,
    keep: bool,
    verdict: &OnceLock<ExitCode>,
) -> Result<ExitCode> {
    let key = app
        .new_admin_key()
        .ok_or_else(|| Failure::new("the server made no key", "its database is not new"))?;
    let server = format!("http://{}", app.address());
    let failed = |error| Failure::new("the server could not be reached", error);
    let client = Client::connect(&server, key.reveal()).await.map_err(failed)?;
    let (notes, arrivals) = Notes::new();
    // Ends with this function, and everything in it.
    let mut background = JoinSet::new();
    let receiver = Receiver::start(&mut background, notes.clone()).await?;
    report::opening(page, &server, &folder.path().display().to_string(), &receiver.url());

    setup::fill_recipient_lists(&client).await?;
    let webhook_id = setup::create_webhook(&client, &receiver).await?;
    let plan = setup::plan(&client, webhook_id).await?;
    setup::subscribe(&client, &mut background, notes.clone()).await?;
    background.spawn(mails::watch(client.clone(), notes.clone(), LIMIT));

    notes.begin();
    let mut timeline = Timeline::new(page, &plan, arrivals);
    timeline.follow(publish::publish(&client, &plan, &notes), LIMIT).await?;
    let record = record::read(&client, &plan, timeline.journal(), &notes, LIMIT).await?;
    let mut tallies = Vec::from(check::check(&plan, timeline.journal()));
    tallies.push(record);
    let code = if report::verdict(page, &tallies) { ExitCode::SUCCESS } else { ExitCode::FAILURE };

    if keep {
        // Nobody else sets it.
        let _ = verdict.set(code);
        report::serving(page, app.address(), key.reveal());
        timeline.go_on().await;
    } else {
        report::ending(page, key.reveal());
    }
    Ok(code)
}

/// Waits for Ctrl-C, or for the request to end that a service manager sends.
async fn interrupted() {
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        Ok(()) = tokio::signal::ctrl_c() => {}
        () = terminated => {}
        else => std::future::pending().await,
    }
}
