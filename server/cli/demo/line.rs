//! How an arrival is written: one line of the timeline.

use std::time::Duration;

use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::GetEmailResponse;

use super::arrival::{Arrival, Delivered, Noted};
use super::journal::Journal;
use super::page::Tone;
use super::plan::Plan;

/// The line above the first one.
pub fn heading() -> String {
    columns("time", "event", "channel", "what happened")
}

/// The line for an arrival that the journal does not hold yet; `None` when there is nothing to see.
pub fn line(plan: &Plan, journal: &Journal, (at, arrival): &Noted) -> Option<(Tone, String)> {
    let line = |tone, event: &str, channel: &str, what: &str| {
        Some((tone, columns(&time(*at), &clean(event), channel, &clean(what))))
    };
    match arrival {
        Arrival::Publishing(index) => {
            let event = &plan.events[*index];
            line(
                Tone::Plain,
                event.event_type,
                "publish",
                &format!("by {}, about {}", event.actor, event.subject),
            )
        }
        Arrival::Queueing(index) => line(
            Tone::Plain,
            "(SendEmail)",
            "send",
            &format!("{}, with its samples", plan.direct[*index].template),
        ),
        Arrival::Accepted(..) | Arrival::Queued(..) => None,
        Arrival::Live(event) => {
            let what = format!("number {} in the stream", journal.live.len() + 1);
            line(Tone::Plain, &event.event_type, "live", &what)
        }
        Arrival::Webhook(delivered) => {
            let (tone, what) = webhook(delivered);
            line(tone, &event_in(delivered), "webhook", &what)
        }
        Arrival::Mail(mail) => {
            let event_id = mail.email.as_ref().map_or("", |email| &email.event_id);
            let event =
                if event_id.is_empty() { "(SendEmail)" } else { journal.event_type(event_id).unwrap_or("?") };
            let (tone, what) = email(mail);
            line(tone, event, "email", &what)
        }
        Arrival::Trouble(trouble) => line(Tone::Bad, "", "trouble", trouble),
    }
}

fn webhook(delivered: &Delivered) -> (Tone, String) {
    match &delivered.fault {
        None => (Tone::Plain, format!("{}, both signatures good", delivered.status)),
        Some(fault) => (Tone::Bad, format!("{}, {fault}", delivered.status)),
    }
}

/// The event's type, read from the body: the request may be here before the publisher has its answer.
fn event_in(delivered: &Delivered) -> String {
    let body: Option<serde_json::Value> = serde_json::from_slice(&delivered.body).ok();
    body.as_ref().and_then(|body| body.get("event")?.as_str()).unwrap_or("?").to_owned()
}

fn email(mail: &GetEmailResponse) -> (Tone, String) {
    let Some(email) = &mail.email else {
        return (Tone::Bad, "a mail without content".to_owned());
    };
    let recipients = email.to.join(", ");
    if email.state() == DeliveryState::Succeeded {
        let did = if email.captured { "captured" } else { "sent" };
        (Tone::Plain, format!("{did} {} for {recipients}: \"{}\"", email.template, email.subject))
    } else {
        let state = email.state().as_str_name().trim_start_matches("DELIVERY_STATE_").to_lowercase();
        (Tone::Bad, format!("{state} {} for {recipients}: {}", email.template, email.last_error))
    }
}

fn columns(time: &str, event: &str, channel: &str, what: &str) -> String {
    format!("  {time:>11}  {event:<26}  {channel:<7}  {what}").trim_end().to_owned()
}

/// What comes from outside must not move the cursor or change colours.
fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// A time for people: milliseconds at first, then seconds, then minutes.
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{} ms", time.as_millis()),
        10..600 => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_grow_into_larger_units() {
        assert_eq!(time(Duration::from_micros(12_700)), "12 ms");
        assert_eq!(time(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(time(Duration::from_secs(725)), "12 min 05 s");
    }

    #[test]
    fn a_subject_can_not_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\n"), "a [2Jb ");
    }
}
