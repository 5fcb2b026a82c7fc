//! What the mail queue tells: the last day's mails, what waits, and why.

use switchboard_client::Client;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::{GetEmailStatsRequest, GetEmailStatsResponse};

use super::super::remote::{ServerOptions, one_line};
use super::finding::Finding;
use crate::rpc::convert::from_timestamp;

/// Asks for the queue.
pub(super) async fn look(client: &Client, server: &ServerOptions) -> Vec<Finding> {
    match client.emails().get_email_stats(GetEmailStatsRequest::default()).await {
        Ok(stats) => findings(&stats.into_inner()),
        Err(status) => {
            vec![Finding::failure("queue", format!("it can not be read: {}", server.explain(&status)))]
        }
    }
}

fn findings(stats: &GetEmailStatsResponse) -> Vec<Finding> {
    let counts = stats.counts.iter().filter(|count| count.count > 0);
    let counts: Vec<_> = counts.map(|count| format!("{} {}", count.count, word(count.state()))).collect();
    let counts = if counts.is_empty() { "no mails".into() } else { counts.join(", ") };
    let what = format!("in the last 24 hours: {counts}");
    let lost = |state| stats.counts.iter().any(|count| count.state() == state && count.count > 0);
    let mut queue = if lost(DeliveryState::Failed) || lost(DeliveryState::Unknown) {
        Finding::warning("queue", what)
            .with("GetEmail says why each failed; RetryFailedEmails sends them again")
    } else {
        Finding::good("queue", what)
    };
    if let Some(due) = stats.oldest_due_time {
        queue = queue.with(format!("the oldest that waits was due at {}", from_timestamp(due)));
    }
    let holds = stats.holds.iter().map(|hold| {
        let finding = Finding::warning("held", one_line(&hold.description));
        match hold.until_time {
            Some(until) => finding.with(format!("looked at again at {}", from_timestamp(until))),
            None => finding,
        }
    });
    std::iter::once(queue).chain(holds).collect()
}

fn word(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Unspecified => "of no known state",
        DeliveryState::Scheduled => "scheduled",
        DeliveryState::Pending => "pending",
        DeliveryState::Sending => "sending",
        DeliveryState::Retrying => "retrying",
        DeliveryState::Succeeded => "sent or captured",
        DeliveryState::Failed => "failed",
        DeliveryState::Cancelled => "cancelled",
        DeliveryState::Held => "held",
        DeliveryState::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_client::email::v1::{EmailHold, EmailStateCount};

    #[test]
    fn failed_mails_and_holds_are_warnings() {
        let count = |state: DeliveryState, count| EmailStateCount { state: state.into(), count };
        let mut stats = GetEmailStatsResponse {
            counts: vec![count(DeliveryState::Succeeded, 12), count(DeliveryState::Held, 3)],
            total: 15,
            oldest_due_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            holds: vec![EmailHold { description: "the hourly limit is used up".into(), until_time: None }],
        };
        let lines = |stats: &_| findings(stats).iter().map(Finding::lines).collect::<Vec<_>>().join("\n");
        let expected = "ok    queue        in the last 24 hours: 12 sent or captured, 3 held
                   the oldest that waits was due at 2023-11-14T22:13:20Z
warn  held         the hourly limit is used up";
        assert_eq!(lines(&stats), expected);
        stats.counts.push(count(DeliveryState::Failed, 1));
        assert!(lines(&stats).starts_with("warn  queue"));
        assert_eq!(
            lines(&GetEmailStatsResponse::default()),
            "ok    queue        in the last 24 hours: no mails"
        );
    }
}
