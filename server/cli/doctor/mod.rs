//! `switchboard doctor`: looks at a running server and says what is wrong and what to do about it.  It changes nothing
//! and sends nothing.

mod finding;
mod mail;
mod queue;
mod sheet;
mod smtp;

use std::process::ExitCode;

use clap::Args;
use switchboard_client::Client;
use switchboard_client::settings::v1::ListSettingsRequest;

use self::finding::{Finding, Grade};
use self::sheet::Sheet;
use super::output;
use super::remote::ServerOptions;

/// Which server.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    server: ServerOptions,
}

/// Examines, prints each finding as it comes, and fails when something does not work.
pub(super) async fn run(arguments: Arguments) -> ExitCode {
    let mut findings = Vec::new();
    let mut tell = |finding: Finding| {
        output::line(&finding.lines());
        findings.push(finding);
    };
    match enter(&arguments.server).await {
        Err(error) => tell(Finding::failure("server", error)),
        Ok((client, sheet)) => {
            tell(Finding::good("server", format!("{} answers, and knows the key", arguments.server.server)));
            mail::findings(&sheet).into_iter().for_each(&mut tell);
            if sheet.sends() {
                for number in 1..=sheet.providers().len() {
                    tell(smtp::try_provider(&client, &arguments.server, number).await);
                }
            }
            queue::look(&client, &arguments.server).await.into_iter().for_each(&mut tell);
        }
    }
    output::line(&format!("\n{}", finding::summary(&findings)));
    if findings.iter().any(|finding| finding.grade == Grade::Failure) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Connects and reads the settings.
async fn enter(server: &ServerOptions) -> Result<(Client, Sheet), String> {
    let client = server.connect().await?;
    let listed = client.settings().list_settings(ListSettingsRequest::default()).await;
    let settings = listed.map_err(|status| server.explain(&status))?.into_inner().settings;
    Ok((client, Sheet::new(settings)))
}
