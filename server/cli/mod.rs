//! The command line: one file per command.

mod audit;
mod backup;
mod configuration;
pub mod demo;
mod doctor;
mod key;
mod migrate;
mod options;
mod output;
mod remote;
mod secrets;
mod serve;
mod settings;
mod test_email;
mod tls;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Result;

/// The communication server that an application hands its events to.
#[derive(Debug, Parser)]
#[command(name = "switchboard", version, about)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the server.
    Serve(serve::Arguments),
    /// Run the whole job once, in one process on a fresh database, and check it.
    Demo(demo::Arguments),
    /// Bring the database up to date, and say what was done.
    Migrate(options::DatabaseOptions),
    /// Make API keys.
    #[command(subcommand)]
    Key(key::Verb),
    /// Write the configuration of a running server to a file.
    Export(configuration::Export),
    /// Bring a configuration that was exported to a running server.
    Import(configuration::Import),
    /// Put settings back.
    #[command(subcommand)]
    Settings(settings::Verb),
    /// Verify the audit log, or print it.
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Look after the keys that secrets are sealed under.
    #[command(subcommand)]
    Secrets(secrets::Verb),
    /// Back the embedded database up to a file, while a server may use it.  The master key is not in it.
    Backup(backup::Backup),
    /// Bring a backup back, while no server runs.
    Restore(backup::Restore),
    /// Look at a running server, and say what is wrong and what to do about it.
    Doctor(doctor::Arguments),
    /// Send one mail template or all of them, with sample values, by a running server.
    TestEmail(test_email::Arguments),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let command = Command::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&format!("the runtime can not start: {error}")),
    };
    runtime.block_on(async {
        match command.verb {
            Verb::Serve(arguments) => exit(serve::run(arguments).await),
            Verb::Demo(arguments) => demo::run(arguments).await,
            Verb::Migrate(options) => exit(migrate::run(options).await),
            Verb::Key(verb) => exit(key::run(verb).await),
            Verb::Export(arguments) => configuration::export(arguments).await,
            Verb::Import(arguments) => configuration::import(arguments).await,
            Verb::Settings(verb) => exit(settings::run(verb).await),
            Verb::Audit(verb) => audit::run(verb).await,
            Verb::Secrets(verb) => exit(secrets::run(verb).await),
            Verb::Backup(arguments) => exit(backup::back_up(arguments).await),
            Verb::Restore(arguments) => exit(backup::restore(arguments).await),
            Verb::Doctor(arguments) => doctor::run(arguments).await,
            Verb::TestEmail(arguments) => test_email::run(arguments).await,
        }
    })
}

fn exit(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error.to_string()),
    }
}
