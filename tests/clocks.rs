//! Clocks that are set: work goes on, nothing waits for a time that was never right, and no quota comes back by it.

use std::time::Duration;

use prost_types::Timestamp;
use serde_json::json;
use switchboard_client::apikey::v1::{CreateApiKeyRequest, VerificationCode, VerifyApiKeyRequest};
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::SendEmailRequest;
use switchboard_client::notification::v1::{SubscribeRequest, SubscribeResponse};
use switchboard_client::settings::v1::VerifyAuditLogRequest;
use switchboard_client::webhook::v1::WebhookDelivery;

use crate::api_keys_change::{make, new_key};
use crate::api_keys_verify::{ask, limit, of};
use crate::deliveries::{all_to, until, until_all_succeeded, wait_of};
use crate::emails::{get, raw, send, send_to, wait};
use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::server::Server;
use crate::harness::smtp::SmtpSink;
use crate::harness::{eventually, on_both};
use crate::live::{after, next, subscribe};
use crate::settings::set;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// The first retry is after a minute, give or take.
const RETRY: Duration = Duration::from_secs(120);

/// The delivery to the endpoint, once its next attempt is no further away than a retry may be.
async fn brought_forward(server: &Server, webhook_id: &str) -> WebhookDelivery {
    eventually("what waits is brought forward", async || {
        let delivery = all_to(server, webhook_id).await.remove(0);
        (wait_of(server, &delivery) <= RETRY).then_some(delivery)
    })
    .await
}

fn in_days(server: &Server, days: u64) -> Option<Timestamp> {
    let then = switchboard::clock::Clock::now(&*server.clock) + Duration::from_secs(days * DAY as u64);
    Some(Timestamp { seconds: then.seconds(), nanos: 0 })
}

on_both! {
    async fn nothing_waits_for_the_time_of_a_clock_that_was_ahead(server: Server) {
        let (receiver, sink) = (Receiver::start().await, SmtpSink::start().await);
        receiver.respond_with("/fails", Behaviour::StatusThen(vec![500, 200]));
        set(&server.client, json!({"email.hourly_limit": 1})).await;
        send_to(&server, sink.port()).await;
        let (failing, _) = server.webhook(&receiver.url("/fails"), &["ticket.created"]).await;
        let (healthy, _) = server.webhook(&receiver.url("/"), &["ticket.*"]).await;
        let scheduled = send(&server, SendEmailRequest { send_time: in_days(&server, 3), ..raw("jo@example.com", "Later") }).await;
        let planned = get(&server, &scheduled).await.email.unwrap().next_attempt_time;

        server.set_clock_by(DAY);
        server.publish("ticket.created", "{}").await;
        until(&server, &failing.id, DeliveryState::Retrying, 1).await;
        let first = send(&server, raw("a@example.com", "One")).await;
        wait(&server, &first, DeliveryState::Succeeded, 1).await;
        let second = send(&server, raw("b@example.com", "Two")).await;
        wait(&server, &second, DeliveryState::Held, 0).await;

        server.set_clock_by(-DAY);
        let waiting = brought_forward(&server, &failing.id).await;
        assert!(wait_of(&server, &waiting) > Duration::from_secs(30), "it is not sent early: {waiting:?}");
        assert_eq!(receiver.received_on("/fails").len(), 1);
        server.publish("ticket.closed", "{}").await;
        until_all_succeeded(&server, &healthy.id, 2).await;
        server.advance(RETRY);
        until(&server, &failing.id, DeliveryState::Succeeded, 2).await;
        assert_eq!(sink.received().len(), 1, "what was used of the hour stays used");
        server.advance(Duration::from_secs(HOUR as u64));
        wait(&server, &second, DeliveryState::Succeeded, 1).await;
        let email = get(&server, &scheduled).await.email.unwrap();
        assert_eq!((email.state(), email.next_attempt_time), (DeliveryState::Scheduled, planned));
    }

    async fn a_clock_that_was_set_back_before_the_start_keeps_nothing_waiting(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::StatusThen(vec![500, 200]));
        let (failing, _) = server.webhook_to(&receiver, &["*"]).await;
        server.set_clock_by(DAY);
        server.publish("ticket.created", "{}").await;
        until(&server, &failing.id, DeliveryState::Retrying, 1).await;
        server.clock.set_by(-DAY * 1_000_000);
        let server = server.restart().await;
        brought_forward(&server, &failing.id).await;
        server.advance(RETRY);
        until(&server, &failing.id, DeliveryState::Succeeded, 2).await;
    }

    async fn setting_the_clock_gives_no_quota_back(server: Server) {
        let request = CreateApiKeyRequest { rate_limits: vec![limit("a", 3, HOUR)], ..new_key(&["orders:read"]) };
        let (_, key) = make(&server.client, request).await.unwrap();
        let verified = async || ask(&server, VerifyApiKeyRequest { ..of(&key) }).await.unwrap().code();
        for _ in 0..3 {
            assert_eq!(verified().await, VerificationCode::Valid);
        }
        for by in [1, -1, HOUR, -HOUR, DAY, -DAY, -HOUR, HOUR, 60, -60] {
            server.set_clock_by(by);
            assert_eq!(verified().await, VerificationCode::RateLimited, "{by}");
        }
        server.advance(Duration::from_secs(HOUR as u64));
        assert_eq!(verified().await, VerificationCode::Valid);
    }

    async fn events_stay_in_order_and_the_audit_log_whole_whichever_way_the_clock_goes(server: Server) {
        let receiver = Receiver::start().await;
        let (endpoint, _) = server.webhook_to(&receiver, &["ticket.*"]).await;
        let tickets = |cursor: &str| SubscribeRequest { event_types: vec!["ticket.*".into()], ..after(cursor) };
        let (_, SubscribeResponse { mut cursor, .. }) = subscribe(&server.client, tickets("")).await;
        let jumps = [1, -1, HOUR, -HOUR, DAY, -2 * DAY, DAY, 10 * DAY, -10 * DAY, HOUR / 2, -HOUR];
        for (number, by) in jumps.into_iter().enumerate() {
            server.set_clock_by(by);
            let data = format!(r#"{{"n":{number}}}"#);
            server.publish("ticket.created", &data).await;
            // A stream may have come of age; whoever comes back gets what follows and nothing else.
            let (mut stream, first) = subscribe(&server.client, tickets(&cursor)).await;
            assert!(first.opened.unwrap().resumed && first.resync.is_none(), "after {by} s");
            let message = loop {
                let message = next(&mut stream).await;
                if !message.events.is_empty() {
                    break message;
                }
            };
            assert_eq!(message.events.iter().map(|event| &event.data).collect::<Vec<_>>(), [&data], "after {by} s");
            cursor = message.cursor;
            receiver.wait_for(number + 1, crate::harness::SOON).await;
            set(&server.client, json!({"email.hourly_limit": number + 1})).await;
        }
        until_all_succeeded(&server, &endpoint.id, jumps.len()).await;
        let verified = server.client.audit().verify_audit_log(VerifyAuditLogRequest::default()).await.unwrap().into_inner();
        assert!(verified.ok && verified.checked > jumps.len() as i64, "{verified:?}");
    }
}
