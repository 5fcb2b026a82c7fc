//! `switchboard test-email`: sends one template or all of them, with their sample values, and says what became of each.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use switchboard_client::Client;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::{
    GetEmailRequest, GetEmailResponse, ListTemplatesRequest, SendEmailRequest, Template,
};

use super::output;
use super::remote::{ServerOptions, one_line};

/// Between two looks at a mail that is under way.
const PAUSE: Duration = Duration::from_millis(200);

/// What to send.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where the mails go.
    #[arg(long)]
    to: String,
    /// The template to send.
    #[arg(long, required_unless_present = "all", conflicts_with = "all")]
    template: Option<String>,
    /// Send every template that there is.
    #[arg(long)]
    all: bool,
    /// The language, such as fr-CA.  The templates' own unless given.
    #[arg(long, default_value = "")]
    locale: String,
    /// How many seconds to wait for the outcome.
    #[arg(long, default_value_t = 60)]
    wait: u64,
    #[command(flatten)]
    server: ServerOptions,
}

/// What became of one mail.
struct Outcome {
    good: bool,
    word: &'static str,
    detail: String,
}

/// Sends, waits and reports; fails when any mail did.
pub(super) async fn run(arguments: Arguments) -> ExitCode {
    let chosen = async {
        let client = arguments.server.connect().await?;
        let templates = choose(&client, &arguments).await?;
        Ok::<_, String>((client, templates))
    };
    let (client, templates) = match chosen.await {
        Ok(chosen) => chosen,
        Err(error) => return output::fail(&error),
    };
    let width = templates.iter().map(|template| template.name.len()).max().unwrap_or_default();
    let mut sent = Vec::new();
    for template in templates {
        let request = request(&template, &arguments);
        let id = client.emails().send_email(request).await.map(|sent| sent.into_inner().email_id);
        sent.push((template.name, id.map_err(|status| arguments.server.explain(&status))));
    }
    let limit = Duration::from_secs(arguments.wait);
    // All of them wait at the same time, so that the limit is that of the whole.
    let outcomes = sent.into_iter().map(|(name, id)| {
        let (client, server) = (&client, &arguments.server);
        async move {
            let outcome = match id {
                Ok(id) => follow(client, server, &id, limit).await,
                Err(error) => Outcome { good: false, word: "refused", detail: error },
            };
            (name, outcome)
        }
    });
    let outcomes = futures_util::future::join_all(outcomes).await;
    let mut failed = 0;
    for (name, Outcome { good, word, detail }) in &outcomes {
        output::line(format!("{name:width$}  {word:9}  {detail}").trim_end());
        failed += usize::from(!good);
    }
    if failed > 0 {
        return output::fail(&format!("{failed} of {} mails did not go out", outcomes.len()));
    }
    ExitCode::SUCCESS
}

/// The templates to send, each once.
async fn choose(client: &Client, arguments: &Arguments) -> Result<Vec<Template>, String> {
    let listed = client.templates().list_templates(ListTemplatesRequest::default()).await;
    let mut templates = listed.map_err(|status| arguments.server.explain(&status))?.into_inner().templates;
    // One entry for each language, and the variables are those of all of them.
    templates.dedup_by(|later, earlier| later.name == earlier.name);
    if let Some(wanted) = &arguments.template {
        let names: Vec<_> = templates.iter().map(|template| template.name.clone()).collect();
        templates.retain(|template| template.name == *wanted);
        if templates.is_empty() {
            return Err(format!("there is no template {wanted:?}; there are: {}", names.join(", ")));
        }
    }
    Ok(templates)
}

fn request(template: &Template, arguments: &Arguments) -> SendEmailRequest {
    let samples = template.variables.iter();
    let samples = samples.filter_map(|variable| Some((variable.name.clone(), variable.sample.clone()?)));
    SendEmailRequest {
        to: vec![arguments.to.clone()],
        template: template.name.clone(),
        variables: Some(prost_types::Struct { fields: samples.collect() }),
        locale: arguments.locale.clone(),
        ..Default::default()
    }
}

/// Looks at a mail until it has ended or is held, at most for this time.
async fn follow(client: &Client, server: &ServerOptions, email_id: &str, limit: Duration) -> Outcome {
    let mut last = Outcome { good: false, word: "waiting", detail: "its state is not known yet".into() };
    let look = async {
        loop {
            let request = GetEmailRequest { email_id: email_id.into() };
            let (outcome, ended) = match client.emails().get_email(request).await {
                Ok(got) => outcome(&got.into_inner()),
                Err(status) => {
                    let detail = server.explain(&status);
                    (Outcome { good: false, word: "unseen", detail }, true)
                }
            };
            last = outcome;
            if ended {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    if tokio::time::timeout(limit, look).await.is_err() {
        let said = if last.detail.is_empty() { String::new() } else { format!(": {}", last.detail) };
        last.detail = format!("not at its end after {} s{said}", limit.as_secs());
    }
    last
}

/// What a mail's state means, and whether it is worth waiting for another one.
fn outcome(got: &GetEmailResponse) -> (Outcome, bool) {
    let email = got.email.clone().unwrap_or_default();
    let reply = got.attempts.last().map(|attempt| attempt.reply.as_str()).unwrap_or_default();
    let error = if email.last_error.is_empty() { reply } else { &email.last_error };
    let (good, word, detail, ended) = match email.state() {
        DeliveryState::Succeeded if email.captured => {
            (true, "captured", "kept, and nothing left the server: GetEmail shows it", true)
        }
        DeliveryState::Succeeded => (true, "sent", reply, true),
        DeliveryState::Failed => (false, "failed", error, true),
        DeliveryState::Cancelled => (false, "cancelled", error, true),
        DeliveryState::Unknown => (false, "unknown", error, true),
        // A limit, or a login that somebody has to mend: waiting here mends neither.
        DeliveryState::Held => (false, "held", error, true),
        DeliveryState::Retrying => (false, "retrying", error, false),
        _ => (false, "waiting", error, false),
    };
    (Outcome { good, word, detail: one_line(detail) }, ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_client::email::v1::{Email, EmailAttempt};

    fn got(state: DeliveryState, captured: bool) -> GetEmailResponse {
        GetEmailResponse {
            email: Some(Email {
                state: state.into(),
                captured,
                last_error: if state == DeliveryState::Succeeded { String::new() } else { "535 no".into() },
                ..Default::default()
            }),
            attempts: vec![EmailAttempt { reply: "250 2.0.0 queued\r\n".into(), ..Default::default() }],
            ..Default::default()
        }
    }

    #[test]
    fn only_what_was_taken_is_good_and_a_held_mail_is_not_waited_for() {
        let (sent, ended) = outcome(&got(DeliveryState::Succeeded, false));
        assert_eq!(
            (sent.good, sent.word, sent.detail.as_str(), ended),
            (true, "sent", "250 2.0.0 queued", true)
        );
        assert_eq!(outcome(&got(DeliveryState::Succeeded, true)).0.word, "captured");
        for state in
            [DeliveryState::Failed, DeliveryState::Cancelled, DeliveryState::Unknown, DeliveryState::Held]
        {
            let (outcome, ended) = outcome(&got(state, false));
            assert_eq!((outcome.good, outcome.detail.as_str(), ended), (false, "535 no", true), "{state:?}");
        }
        for state in [DeliveryState::Pending, DeliveryState::Sending, DeliveryState::Retrying] {
            assert!(!outcome(&got(state, false)).1, "{state:?}");
        }
    }
}
