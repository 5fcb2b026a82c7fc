//! Compares the mails that were captured with those that were planned.

use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::GetEmailResponse;

use super::Tally;
use crate::cli::demo::journal::{Journal, Origin};
use crate::cli::demo::plan::{Cause, ExpectedMail, Plan, readable};

/// What the mail queue brought.
pub fn check(plan: &Plan, journal: &Journal) -> Tally {
    let expected = plan.mails();
    let mut tally = Tally::new("email", expected.len());
    for mail in &expected {
        let origin = journal.origin(mail.cause);
        let found: Vec<_> = journal.mails.iter().filter(|(_, found)| is_it(mail, origin, found)).collect();
        let what = format!("{} for {}", mail.template, mail.recipient);
        tally.take(&what, origin, &found, |found| mail_fault(mail, found));
    }
    for (_, found) in &journal.mails {
        if !expected.iter().any(|mail| is_it(mail, journal.origin(mail.cause), found)) {
            let email = found.email.clone().unwrap_or_default();
            tally.problem(format_args!("{} for {} was not asked for", email.template, email.to.join(", ")));
        }
    }
    tally
}

fn is_it(expected: &ExpectedMail<'_>, origin: Option<&Origin>, found: &GetEmailResponse) -> bool {
    let (Some(origin), Some(email)) = (origin, &found.email) else {
        return false;
    };
    let caused = match expected.cause {
        Cause::Event(_) => email.event_id == origin.id,
        Cause::Direct(_) => email.id == origin.id,
    };
    caused
        && email.template == expected.template
        && email.to.iter().any(|to| address(to) == expected.recipient)
}

/// The address in `address` or `name <address>`.
pub fn address(written: &str) -> &str {
    let inner = written.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or(written, |(address, _)| address).trim()
}

fn mail_fault(expected: &ExpectedMail<'_>, found: &GetEmailResponse) -> Option<String> {
    let email = found.email.as_ref()?;
    if email.state() != DeliveryState::Succeeded {
        return Some(format!("{}: {}", email.state().as_str_name(), email.last_error));
    }
    if !email.captured {
        return Some("it was sent instead of captured".to_owned());
    }
    if email.subject.trim().is_empty() {
        return Some("it has no subject".to_owned());
    }
    for (part, body) in [("HTML", &found.html_body), ("text", &found.plain_body)] {
        let body = readable(body);
        if body.is_empty() {
            return Some(format!("its {part} body is empty"));
        }
        if let Some(word) = expected.words.iter().find(|word| !body.contains(&readable(word))) {
            return Some(format!("its {part} body does not show {word:?}"));
        }
    }
    None
}
