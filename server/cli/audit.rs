//! `switchboard audit`: the audit log for whoever has the database and the master key, also when no server runs.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::options::DatabaseOptions;
use super::output;
use crate::app::{Ground, Machine};
use crate::audit::{AuditService, Checkpoint, Entry};
use crate::error::{Error, Result};

/// What to do with the log.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Check that the log is what was recorded.  Prints a checkpoint to keep elsewhere; fails, with the first entry that is
    /// wrong, when it is not.
    Verify(VerifyArguments),
    /// Print the log, the oldest entry first, each as a line of JSON.
    Export(ExportArguments),
}

/// What to check.
#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// The first entry to check.
    #[arg(long, default_value_t = 1)]
    from_seq: i64,
    /// A checkpoint that the log must still have.
    #[arg(long)]
    checkpoint: Option<String>,
    #[command(flatten)]
    database: DatabaseOptions,
}

/// What to print.
#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// Only entries after this one.
    #[arg(long, default_value_t = 0)]
    after_seq: i64,
    #[command(flatten)]
    database: DatabaseOptions,
}

/// Verifies or exports.
pub(super) async fn run(verb: Verb) -> ExitCode {
    let done = match verb {
        Verb::Verify(arguments) => verify(arguments).await,
        Verb::Export(arguments) => export(arguments).await.map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| output::fail(&error.to_string()))
}

async fn verify(arguments: VerifyArguments) -> Result<ExitCode> {
    let read = |text: String| text.parse::<Checkpoint>().map_err(|wrong| Error::field("--checkpoint", wrong));
    let checkpoint = arguments.checkpoint.map(read).transpose()?;
    let report = open(&arguments.database).await?.verify(arguments.from_seq, checkpoint).await?;
    Ok(match report.fault {
        None => {
            output::line(&format!("the audit log is well: {} entries checked", report.checked));
            output::line(&format!("checkpoint {}", report.checkpoint));
            ExitCode::SUCCESS
        }
        Some(fault) => {
            let (seq, what) = (fault.seq, fault.problem.explanation());
            output::fail(&format!(
                "the audit log is broken at entry {seq}: {what}; {} entries before it are well",
                report.checked
            ))
        }
    })
}

async fn export(arguments: ExportArguments) -> Result<()> {
    let service = open(&arguments.database).await?;
    let mut after = arguments.after_seq;
    loop {
        let entries = service.export(after).await?;
        let Some(last) = entries.last() else { return Ok(()) };
        after = last.seq;
        entries.iter().for_each(|entry| output::line(&line(entry)));
    }
}

async fn open(database: &DatabaseOptions) -> Result<AuditService> {
    let ground = Ground::open(&database.config()?, Machine::default()).await?;
    Ok(AuditService::new(ground.db.clone(), &ground.audit))
}

fn line(entry: &Entry) -> String {
    let object = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    json!({
        "seq": entry.seq,
        "create_time": entry.created_at.to_string(),
        "actor": entry.actor,
        "action": entry.action,
        "resource_type": entry.resource_type,
        "resource_id": entry.resource_id,
        "before": object(&entry.before),
        "after": object(&entry.after),
        "reason": entry.reason,
        "request_id": entry.request_id,
        "client_address": entry.address,
        "previous_hash": entry.prev_hash,
        "hash": entry.hash,
    })
    .to_string()
}
