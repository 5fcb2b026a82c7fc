//! `switchboard export` and `switchboard import`: the configuration of a running server as a file.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use switchboard_client::settings::v1::{
    ExportConfigurationRequest, ImportConfigurationRequest, ImportConfigurationResponse,
};
use tonic::{Request, Status};
use tonic_types::StatusExt;

use super::options::secret;
use super::output;
use super::remote::{ServerOptions, one_line};

/// Seals the secrets of a document; also from the file that `SWITCHBOARD_PASSPHRASE_FILE` names.
const PASSPHRASE: &str = "SWITCHBOARD_PASSPHRASE";

/// What to export.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// The file to write; standard output unless given.  Secrets are in it, sealed, when SWITCHBOARD_PASSPHRASE is set.
    #[arg(long)]
    out: Option<PathBuf>,
    /// A section to export, such as webhooks; can be given several times.  All unless given.
    #[arg(long)]
    section: Vec<String>,
    #[command(flatten)]
    server: ServerOptions,
}

/// What to import.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file that was exported; - is standard input.  SWITCHBOARD_PASSPHRASE opens its secrets.
    file: PathBuf,
    /// Check everything and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Remove what the file's sections do not have.
    #[arg(long)]
    prune: bool,
    /// Leave secrets as they are.
    #[arg(long)]
    skip_secrets: bool,
    /// Leave settings as they are that the server was given at its start.
    #[arg(long)]
    skip_pinned: bool,
    /// Why, for the audit log.
    #[arg(long, default_value = "imported by the command line")]
    reason: String,
    #[command(flatten)]
    server: ServerOptions,
}

/// Exports.
pub(super) async fn export(export: Export) -> ExitCode {
    match try_export(export).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error),
    }
}

async fn try_export(export: Export) -> Result<(), String> {
    let Export { out, section: sections, server } = export;
    let request = ExportConfigurationRequest { passphrase: passphrase()?, sections };
    let answer = server.connect().await?.configuration().export_configuration(request).await;
    let answer = answer.map_err(|status| explain(&server, &status))?.into_inner();
    match out {
        None => output::line(&answer.document),
        Some(path) => std::fs::write(&path, answer.document.as_bytes())
            .map_err(|error| format!("{} can not be written: {error}", path.display()))?,
    }
    for secret in answer.omitted_secrets {
        output::note(&format!("left out, because {PASSPHRASE} is not set: {secret}"));
    }
    for section in answer.omitted_sections {
        output::note(&format!("left out, because the key may not export it: {section}"));
    }
    Ok(())
}

/// Imports.
pub(super) async fn import(import: Import) -> ExitCode {
    match try_import(import).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error),
    }
}

async fn try_import(import: Import) -> Result<(), String> {
    let Import { file, dry_run, prune, skip_secrets, skip_pinned, reason, server } = import;
    let document = read(&file).map_err(|error| format!("{} can not be read: {error}", file.display()))?;
    let passphrase = passphrase()?;
    let mut request = Request::new(ImportConfigurationRequest {
        document,
        passphrase,
        skip_secrets,
        skip_pinned,
        prune,
        validate_only: dry_run,
    });
    let reason = reason.parse().map_err(|_| "the reason must be visible ASCII characters and spaces")?;
    request.metadata_mut().insert("x-change-reason", reason);
    let answer = server.connect().await?.configuration().import_configuration(request).await;
    tell(answer.map_err(|status| explain(&server, &status))?.into_inner(), dry_run);
    Ok(())
}

fn tell(answer: ImportConfigurationResponse, dry_run: bool) {
    let would = if dry_run { "would be " } else { "" };
    for section in answer.sections {
        let done = [("made", section.created), ("changed", section.updated), ("removed", section.removed)];
        for (word, names) in done {
            for name in names {
                output::line(&format!("{}: {name} {would}{word}", section.section));
            }
        }
        output::line(&format!("{}: {} as they are", section.section, section.unchanged));
    }
    for secret in answer.missing_secrets {
        output::note(&format!("the file does not have {secret}: set it anew"));
    }
}

fn passphrase() -> Result<String, String> {
    let text = secret(PASSPHRASE).map_err(|error| error.to_string())?;
    Ok(text.map(|text| text.reveal().to_owned()).unwrap_or_default())
}

fn read(path: &std::path::Path) -> std::io::Result<String> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}

/// What was refused, with every field that is wrong.
fn explain(server: &ServerOptions, status: &Status) -> String {
    let details = status.get_error_details();
    let fields = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
    let fields = fields.iter().map(|one| format!("\n  {}: {}", one.field, one_line(&one.description)));
    format!("{}{}", server.explain(status), fields.collect::<String>())
}
