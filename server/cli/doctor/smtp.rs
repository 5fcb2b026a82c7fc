//! Tries each SMTP server, up to the sender's address: no mail is sent.

use std::time::Duration;

use switchboard_client::Client;
use switchboard_client::email::v1::{SmtpStep, SmtpTestStep, TestSmtpRequest, TestSmtpResponse};

use super::super::remote::{ServerOptions, one_line};
use super::finding::Finding;

/// Tries the provider with this number, 1 for the first.
pub(super) async fn try_provider(client: &Client, server: &ServerOptions, number: usize) -> Finding {
    let request =
        TestSmtpRequest { provider: i32::try_from(number).unwrap_or(i32::MAX), ..Default::default() };
    match client.emails().test_smtp(request).await {
        Ok(response) => finding(&response.into_inner()),
        Err(status) => {
            Finding::failure("smtp", format!("server {number} was not tried: {}", server.explain(&status)))
        }
    }
}

fn finding(response: &TestSmtpResponse) -> Finding {
    let failed = response.steps.iter().find(|step| !step.succeeded);
    let mut finding = match failed {
        None if response.succeeded => Finding::good("smtp", format!("{} takes mail", response.server)),
        None => Finding::failure("smtp", format!("{} takes no mail", response.server)),
        Some(step) => Finding::failure(
            "smtp",
            format!("{} takes no mail: {} failed", response.server, word(step.step())),
        ),
    };
    for step in &response.steps {
        finding = finding.with(line(step));
        if !step.succeeded && !step.reply.is_empty() {
            finding = finding.with(format!("          it said: {}", one_line(&step.reply)));
        }
    }
    finding
}

fn line(step: &SmtpTestStep) -> String {
    let duration = step.duration.unwrap_or_default();
    let duration = Duration::try_from(duration).unwrap_or_default();
    let (result, explanation) = (if step.succeeded { "ok" } else { "failed" }, one_line(&step.explanation));
    let line = format!("{:8}  {result} after {} ms", word(step.step()), duration.as_millis());
    if explanation.is_empty() { line } else { format!("{line}: {explanation}") }
}

fn word(step: SmtpStep) -> &'static str {
    match step {
        SmtpStep::Unspecified => "a step",
        SmtpStep::Resolve => "resolve",
        SmtpStep::Connect => "connect",
        SmtpStep::Tls => "tls",
        SmtpStep::Login => "login",
        SmtpStep::Sender => "sender",
        SmtpStep::Delivery => "delivery",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_named_with_what_was_said_and_what_to_do() {
        let step = |step: SmtpStep, reply: &str, explanation: &str| SmtpTestStep {
            step: step.into(),
            succeeded: reply.is_empty(),
            duration: Some(prost_types::Duration { seconds: 0, nanos: 12_000_000 }),
            reply: reply.into(),
            explanation: explanation.into(),
        };
        let response = TestSmtpResponse {
            succeeded: false,
            server: "mail.pumps.io:587".into(),
            steps: vec![
                step(SmtpStep::Tls, "", ""),
                step(SmtpStep::Login, "535 5.7.8 no\r\n", "Mend the password."),
            ],
            ..Default::default()
        };
        let expected = "FAIL  smtp         mail.pumps.io:587 takes no mail: login failed
                   tls       ok after 12 ms
                   login     failed after 12 ms: Mend the password.
                             it said: 535 5.7.8 no";
        assert_eq!(finding(&response).lines(), expected);
    }
}
