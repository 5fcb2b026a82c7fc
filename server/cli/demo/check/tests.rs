use super::*;
use crate::cli::demo::arrival::Arrival;
use crate::cli::demo::events::EVENTS;
use crate::cli::demo::plan::DirectMail;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::{Email, GetEmailResponse};

const WEBHOOK: &str = "wh_1";

fn plan() -> Plan {
    let reset = DirectMail {
        template: "password_reset".to_owned(),
        variables: prost_types::Struct::default(),
        words: vec!["Ada".to_owned()],
    };
    Plan { webhook_id: WEBHOOK.to_owned(), events: EVENTS, direct: vec![reset] }
}

/// Everything that a good server brings.
fn arrivals(plan: &Plan) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    for (index, event) in plan.events.iter().enumerate() {
        let id = format!("evt_{index}");
        arrivals.push(Arrival::Publishing(index));
        arrivals.push(Arrival::Accepted(index, id.clone()));
        arrivals.push(Arrival::Live(Event {
            id: id.clone(),
            event_type: event.event_type.to_owned(),
            data: event.data.to_owned(),
            actor: event.actor.to_owned(),
            subject: event.subject.to_owned(),
            ..Default::default()
        }));
        arrivals.push(Arrival::Webhook(Delivered {
            event_id: id,
            body: body(event.event_type, WEBHOOK, event.data),
            status: 200,
            fault: None,
        }));
    }
    arrivals.push(Arrival::Queueing(0));
    arrivals.push(Arrival::Queued(0, "em_direct".to_owned()));
    for (index, expected) in plan.mails().into_iter().enumerate() {
        let (id, event_id) = match expected.cause {
            Cause::Event(event) => (format!("em_{index}"), format!("evt_{event}")),
            Cause::Direct(_) => ("em_direct".to_owned(), String::new()),
        };
        let words = expected.words.join("\n");
        arrivals.push(Arrival::Mail(Box::new(GetEmailResponse {
            email: Some(Email {
                id,
                event_id,
                template: expected.template.to_owned(),
                to: vec![format!("Somebody <{}>", expected.recipient)],
                subject: "A subject".to_owned(),
                state: DeliveryState::Succeeded.into(),
                captured: true,
                ..Default::default()
            }),
            html_body: words.replace('&', "&#38;").replace('<', "&lt;"),
            plain_body: words,
            attempts: Vec::new(),
            ..Default::default()
        })));
    }
    arrivals
}

fn body(event: &str, webhook_id: &str, data: &str) -> Vec<u8> {
    let head =
        format!(r#"{{"event":"{event}","timestamp":"2026-01-31T10:30:00.25Z","webhook_id":"{webhook_id}""#);
    format!(r#"{head},"data":{data}}}"#).into_bytes()
}

/// The problems after `change` was made to all that a good server brings.
fn problems(change: impl FnOnce(&mut Vec<Arrival>)) -> Vec<String> {
    let plan = plan();
    let mut arrivals = arrivals(&plan);
    change(&mut arrivals);
    let mut journal = Journal::default();
    for (tick, arrival) in arrivals.into_iter().enumerate() {
        journal.add(&plan, (Duration::from_millis(tick as u64), arrival));
    }
    check(&plan, &journal).into_iter().flat_map(|tally| tally.problems).collect()
}

fn lives(arrivals: &[Arrival]) -> Vec<usize> {
    let is_live = |(index, arrival): (usize, &Arrival)| matches!(arrival, Arrival::Live(_)).then_some(index);
    arrivals.iter().enumerate().filter_map(is_live).collect()
}

fn first_webhook(arrivals: &mut [Arrival]) -> &mut Delivered {
    let found = arrivals.iter_mut().find_map(|arrival| match arrival {
        Arrival::Webhook(delivered) => Some(delivered),
        _ => None,
    });
    found.expect("a webhook")
}

fn first_mail(arrivals: &mut [Arrival]) -> &mut GetEmailResponse {
    let found = arrivals.iter_mut().find_map(|arrival| match arrival {
        Arrival::Mail(mail) => Some(mail),
        _ => None,
    });
    found.expect("a mail")
}

#[test]
fn finds_nothing_wrong_with_what_a_good_server_brings() {
    assert_eq!(problems(|_| {}), Vec::<String>::new());
}

#[test]
fn finds_what_is_missing_on_each_channel() {
    let found = problems(|arrivals| {
        arrivals
            .retain(|arrival| !matches!(arrival, Arrival::Live(_) | Arrival::Webhook(_) | Arrival::Mail(_)));
    });
    assert_eq!(found.len(), 2 * EVENTS.len() + plan().mails().len());
    assert!(found.iter().all(|problem| problem.ends_with("did not arrive")), "{found:?}");
}

#[test]
fn finds_what_came_twice() {
    let found = problems(|arrivals| {
        let again: Vec<_> =
            arrivals.iter().filter(|arrival| !matches!(arrival, Arrival::Publishing(_))).cloned().collect();
        arrivals.extend(again.into_iter().rev().take(60));
    });
    assert!(found.contains(&"live: notification arrived 2 times".to_owned()), "{found:?}");
    assert!(found.contains(&"webhook: notification arrived 2 times".to_owned()), "{found:?}");
    assert!(
        found.contains(&"email: password_reset for sam@example.com arrived 2 times".to_owned()),
        "{found:?}"
    );
}

#[test]
fn finds_a_wrong_order_a_changed_event_and_one_that_nobody_published() {
    let found = problems(|arrivals| {
        let lives = lives(arrivals);
        arrivals.swap(lives[0], lives[1]);
    });
    assert_eq!(found, ["live: ticket.created came out of order"]);

    let found = problems(|arrivals| {
        let first = lives(arrivals)[0];
        if let Arrival::Live(event) = &mut arrivals[first] {
            event.data = event.data.replace(": ", ":");
        }
        arrivals.push(Arrival::Live(Event {
            id: "evt_x".into(),
            event_type: "x".into(),
            ..Default::default()
        }));
    });
    assert_eq!(
        found,
        [
            "live: ticket.created arrived, but not as it was published",
            "live: x arrived and was never published",
        ]
    );
}

#[test]
fn finds_a_bad_signature_and_each_wrong_part_of_a_body() {
    let data = EVENTS[0].data;
    let wrong = |body: Vec<u8>| problems(|arrivals| first_webhook(arrivals).body = body).concat();
    assert!(wrong(body("ticket.updated", WEBHOOK, data)).contains("event in its body"));
    assert!(wrong(body("ticket.created", "wh_2", data)).contains("webhook_id in its body"));
    assert!(wrong(body("ticket.created", WEBHOOK, &data.replace(": ", ":"))).contains("data in its body"));
    assert!(wrong(b"{}".to_vec()).contains("can not be read"));
    let found = problems(|arrivals| first_webhook(arrivals).fault = Some("the signature is bad".to_owned()));
    assert_eq!(found, ["webhook: ticket.created arrived, but the signature is bad"]);
}

#[test]
fn finds_what_is_wrong_with_a_mail() {
    type Change = fn(&mut GetEmailResponse);
    let changes: [(Change, &str); 6] = [
        (|mail| mail.plain_body.clear(), "text body is empty"),
        (|mail| mail.html_body = "<p></p>".to_owned(), "HTML body does not show \"42\""),
        (|mail| mail.email.as_mut().unwrap().subject.clear(), "no subject"),
        (|mail| mail.email.as_mut().unwrap().captured = false, "sent instead of captured"),
        (|mail| mail.email.as_mut().unwrap().set_state(DeliveryState::Failed), "FAILED"),
        (
            |mail| mail.email.as_mut().unwrap().to = vec!["x@example.com".to_owned()],
            "for x@example.com was not asked for",
        ),
    ];
    for (change, expected) in changes {
        let found = problems(|arrivals| change(first_mail(arrivals)));
        assert!(found.concat().contains(expected), "{expected}: {found:?}");
    }
}
