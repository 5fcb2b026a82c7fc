//! Requests to webhook endpoints: how long one may take, when another is made, and those that somebody asks for.

use std::time::Duration;

use prost_types::Timestamp;
use serde_json::json;
use switchboard::app::{Ground, Machine};
use switchboard::clock::Clock;
use switchboard::webhook::stats::tidy;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::event::v1::{CreateEventTypeRequest, EventType};
use switchboard_client::webhook::v1::{
    CreateWebhookRequest, GetWebhookStatsRequest, GetWebhookStatsResponse, ListWebhookDeliveriesRequest,
    RetryFailedWebhookDeliveriesRequest, RetryWebhookDeliveryRequest, TestWebhookRequest,
    TestWebhookResponse, UpdateWebhookRequest, Webhook, WebhookDelivery, WebhookRateLimit,
    WebhookRetryPolicy,
};
use tonic::{Code, Status};

use crate::deliveries::{all_to, details, now, until, wait_of};
use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::server::Server;
use crate::harness::{SOON, eventually, on_both, status};
use crate::settings::{change, set, try_set};

pub fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

pub fn endpoint(receiver: &Receiver) -> Webhook {
    Webhook {
        name: "one".into(),
        url: receiver.url("/"),
        event_types: vec!["*".into()],
        ..Default::default()
    }
}

pub fn retries(waits: &[i64], retry_client_errors: bool) -> Option<WebhookRetryPolicy> {
    let schedule = waits.iter().map(|&wait| seconds(wait)).collect();
    Some(WebhookRetryPolicy { schedule, retry_client_errors })
}

pub async fn create(server: &Server, webhook: Webhook) -> Result<Webhook, Status> {
    let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
    Ok(server.client.webhooks().create_webhook(request).await?.into_inner().webhook.unwrap())
}

pub async fn retry(server: &Server, delivery_id: &str) -> Result<WebhookDelivery, Status> {
    let request = RetryWebhookDeliveryRequest { delivery_id: delivery_id.into() };
    Ok(server.client.webhooks().retry_webhook_delivery(request).await?.into_inner().delivery.unwrap())
}

pub async fn test(
    server: &Server,
    webhook_id: &str,
    event_type: &str,
) -> Result<TestWebhookResponse, Status> {
    let request = TestWebhookRequest { webhook_id: webhook_id.into(), event_type: event_type.into() };
    Ok(server.client.webhooks().test_webhook(request).await?.into_inner())
}

async fn stats(
    server: &Server,
    webhook_id: &str,
    start_time: Option<Timestamp>,
) -> Result<GetWebhookStatsResponse, Status> {
    let request = GetWebhookStatsRequest { webhook_id: webhook_id.into(), start_time, end_time: None };
    Ok(server.client.webhooks().get_webhook_stats(request).await?.into_inner())
}

fn micros(duration: &Option<prost_types::Duration>) -> i64 {
    let duration = duration.unwrap();
    duration.seconds * 1_000_000 + i64::from(duration.nanos) / 1_000
}

pub fn limit(requests: i32, period: i64) -> Option<WebhookRateLimit> {
    Some(WebhookRateLimit { requests, period: Some(seconds(period)) })
}

/// Waits until so many deliveries to an endpoint are held, and answers them.
pub async fn held(server: &Server, webhook_id: &str, number: usize) -> Vec<WebhookDelivery> {
    eventually(&format!("{number} deliveries are held"), async || {
        let mut all = all_to(server, webhook_id).await;
        all.retain(|one| one.state() == DeliveryState::Held);
        (all.len() == number).then_some(all)
    })
    .await
}

/// Waits until so many deliveries to an endpoint have ended.
pub async fn ended(server: &Server, webhook_id: &str, number: usize) {
    eventually(&format!("{number} deliveries have ended"), async || {
        let all = all_to(server, webhook_id).await;
        let done =
            all.iter().filter(|one| matches!(one.state(), DeliveryState::Succeeded | DeliveryState::Failed));
        (done.count() == number).then_some(())
    })
    .await;
}

on_both! {
    async fn an_endpoint_has_its_own_schedule(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Status(503));
        let policy = retries(&[2, 7_200], false);
        let webhook = create(&server, Webhook { retry_policy: policy.clone(), ..endpoint(&receiver) }).await.unwrap();
        assert_eq!(webhook.retry_policy, policy);
        server.publish("a.b", "{}").await;
        for (attempt, wait) in [(1, 2), (2, 7_200)] {
            let delivery = until(&server, &webhook.id, DeliveryState::Retrying, attempt).await;
            let found = wait_of(&server, &delivery).as_secs_f64();
            let wait = f64::from(wait);
            assert!((wait..=wait * 1.1).contains(&found), "{found} s after attempt {attempt}");
            server.advance(Duration::from_secs_f64(wait * 1.1));
        }
        until(&server, &webhook.id, DeliveryState::Failed, 3).await;
    }

    async fn an_empty_schedule_tries_once_and_none_follows_the_settings(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Status(503));
        let once = create(&server, Webhook { retry_policy: retries(&[], false), ..endpoint(&receiver) }).await.unwrap();
        set(&server.client, json!({"webhook.retry_schedule": "40s, 2h"})).await;
        let default = create(&server, endpoint(&receiver)).await.unwrap();
        assert_eq!(default.retry_policy, None);
        server.publish("a.b", "{}").await;
        until(&server, &once.id, DeliveryState::Failed, 1).await;
        let delivery = until(&server, &default.id, DeliveryState::Retrying, 1).await;
        let wait = wait_of(&server, &delivery).as_secs();
        assert!((40..=44).contains(&wait), "{wait}");
        let refused = try_set(&server.client, change(&json!({"webhook.retry_schedule": "soon"}))).await.unwrap_err();
        status::expect_violations(&refused, &["values[webhook.retry_schedule]"]);
    }

    async fn client_errors_are_tried_again_when_the_endpoint_or_the_setting_says_so(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Status(404));
        receiver.respond_with("/gone", Behaviour::Status(410));
        // Not what is published of the one that is gone.
        let endpoint = |receiver: &Receiver| Webhook { event_types: vec!["a.b".into()], ..endpoint(receiver) };
        let eager = create(&server, Webhook { retry_policy: retries(&[60], true), ..endpoint(&receiver) }).await.unwrap();
        let gone = Webhook { url: receiver.url("/gone"), retry_policy: retries(&[60], true), ..endpoint(&receiver) };
        let gone = create(&server, gone).await.unwrap();
        let default = create(&server, endpoint(&receiver)).await.unwrap();
        server.publish("a.b", "{}").await;
        until(&server, &eager.id, DeliveryState::Retrying, 1).await;
        until(&server, &gone.id, DeliveryState::Failed, 1).await;
        let failed = until(&server, &default.id, DeliveryState::Failed, 1).await;
        set(&server.client, json!({"webhook.retry_client_errors": true})).await;
        retry(&server, &failed.id).await.unwrap();
        until(&server, &default.id, DeliveryState::Retrying, 2).await;
    }

    async fn an_endpoint_has_its_own_timeout(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Hang);
        let webhook = Webhook { timeout: Some(seconds(1)), retry_policy: retries(&[], false), ..endpoint(&receiver) };
        let webhook = create(&server, webhook).await.unwrap();
        assert_eq!(webhook.timeout, Some(seconds(1)));
        server.publish("a.b", "{}").await;
        let delivery = until(&server, &webhook.id, DeliveryState::Failed, 1).await;
        assert_eq!(delivery.last_error, "no complete answer within 1 seconds");
    }

    async fn what_no_endpoint_may_have_is_refused_and_changes_nothing(server: Server) {
        let receiver = Receiver::start().await;
        let webhook = create(&server, endpoint(&receiver)).await.unwrap();
        let bad = Webhook {
            id: webhook.id.clone(),
            timeout: Some(seconds(31)),
            retry_policy: retries(&[60, 0], false),
            ..Default::default()
        };
        let update = async |webhook: Webhook| {
            let request = UpdateWebhookRequest { webhook: Some(webhook), update_mask: None };
            server.client.webhooks().update_webhook(request).await.map(|answer| answer.into_inner().webhook.unwrap())
        };
        let refused = update(bad.clone()).await.unwrap_err();
        status::expect_violations(&refused, &["webhook.timeout", "webhook.retry_policy.schedule"]);
        let refused = create(&server, Webhook { timeout: Some(seconds(-1)), ..endpoint(&receiver) }).await.unwrap_err();
        status::expect_violations(&refused, &["webhook.timeout"]);
        for (bad, field) in [(limit(0, 60), "requests"), (limit(-1, 60), "requests"), (limit(1, 0), "period"), (limit(1, 86_401), "period")] {
            let refused = update(Webhook { id: webhook.id.clone(), rate_limit: bad, ..Default::default() }).await.unwrap_err();
            status::expect_violations(&refused, &[&format!("webhook.rate_limit.{field}")]);
        }
        let good = Webhook { timeout: Some(seconds(5)), retry_policy: retries(&[60], true), ..bad };
        let updated = update(good).await.unwrap();
        assert_eq!((updated.timeout, updated.retry_policy), (Some(seconds(5)), retries(&[60], true)));
        let renamed = update(Webhook { id: webhook.id, name: "two".into(), ..Default::default() }).await.unwrap();
        assert_eq!(renamed.timeout, Some(seconds(5)), "what is not named stays");
    }

    async fn what_has_ended_is_sent_once_more_when_asked_for(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::StatusThen(vec![503, 503, 503, 503, 200]));
        let webhook = Webhook { retry_policy: retries(&[60], false), ..endpoint(&receiver) };
        let webhook = create(&server, webhook).await.unwrap();
        server.publish("a.b", "{}").await;
        let waiting = until(&server, &webhook.id, DeliveryState::Retrying, 1).await;
        let refused = retry(&server, &waiting.id).await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "NOT_RETRYABLE");
        server.advance(Duration::from_secs(66));
        let failed = until(&server, &webhook.id, DeliveryState::Failed, 2).await;
        let again = retry(&server, &failed.id).await.unwrap();
        assert_eq!((again.id.as_str(), again.state(), again.attempts), (failed.id.as_str(), DeliveryState::Pending, 2));
        // It has the retries of a new one.
        until(&server, &webhook.id, DeliveryState::Retrying, 3).await;
        server.advance(Duration::from_secs(66));
        until(&server, &webhook.id, DeliveryState::Failed, 4).await;
        retry(&server, &failed.id).await.unwrap();
        until(&server, &webhook.id, DeliveryState::Succeeded, 5).await;
        let got = receiver.wait_for(5, SOON).await;
        assert!(got.iter().all(|request| request.header("webhook-id") == got[0].header("webhook-id")));
        let numbers: Vec<_> = details(&server, &failed.id).await.attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        let unknown = retry(&server, "whd_00000000000000000000000000").await.unwrap_err();
        status::expect(&unknown, Code::NotFound, "NOT_FOUND");
    }

    async fn all_that_failed_within_a_time_is_sent_once_more(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Status(400));
        let one = create(&server, endpoint(&receiver)).await.unwrap();
        let other = create(&server, Webhook { url: receiver.url("/other"), ..endpoint(&receiver) }).await.unwrap();
        receiver.respond_with("/other", Behaviour::Status(400));
        let failed = async |id: &str, number: usize| {
            eventually("they have failed", async || {
                let all = all_to(&server, id).await;
                (all.iter().filter(|one| one.state() == DeliveryState::Failed).count() == number).then_some(())
            }).await;
        };
        server.publish("a.old", "{}").await;
        failed(&one.id, 1).await;
        server.advance(Duration::from_secs(60));
        let since = now(&server);
        server.publish("a.new", "{}").await;
        server.publish("a.new", "{}").await;
        failed(&one.id, 3).await;
        failed(&other.id, 3).await;
        receiver.respond_with("/", Behaviour::Status(200));
        let request = RetryFailedWebhookDeliveriesRequest {
            webhook_id: one.id.clone(),
            created_after: Some(since),
            created_before: None,
        };
        // The end of the time is not within it.
        server.advance(Duration::from_secs(1));
        let answer = server.client.webhooks().retry_failed_webhook_deliveries(request).await.unwrap();
        assert_eq!(answer.into_inner().count, 2);
        eventually("they arrive", async || {
            let request = ListWebhookDeliveriesRequest { event_type: "a.new".into(), ..Default::default() };
            let all = server.client.webhooks().list_webhook_deliveries(request).await.unwrap().into_inner().deliveries;
            assert!(all.len() == 4 && all.iter().all(|one| one.event_type == "a.new"), "{all:?}");
            let done = all.iter().filter(|delivery| delivery.state() == DeliveryState::Succeeded);
            (done.filter(|delivery| delivery.webhook_id == one.id).count() == 2).then_some(())
        }).await;
        failed(&one.id, 1).await;
        failed(&other.id, 3).await;
        let refused = server.client.webhooks().retry_failed_webhook_deliveries(RetryFailedWebhookDeliveriesRequest::default()).await;
        status::expect_violations(&refused.unwrap_err(), &["created_after"]);
    }

    async fn what_is_over_the_hourly_limit_waits_and_none_is_lost(server: Server) {
        let receiver = Receiver::start().await;
        set(&server.client, json!({"webhook.hourly_limit": 3})).await;
        let one = create(&server, endpoint(&receiver)).await.unwrap();
        let free = Webhook { url: receiver.url("/free"), rate_limit: limit(100, 1), ..endpoint(&receiver) };
        let free = create(&server, free).await.unwrap();
        for _ in 0..5 {
            server.publish("a.b", "{}").await;
        }
        ended(&server, &free.id, 5).await;
        ended(&server, &one.id, 3).await;
        let held = held(&server, &one.id, 2).await;
        assert!(held.iter().all(|one| one.last_error.contains("the limit of 3 requests in 3600 s is used up")), "{held:?}");
        // What is used is kept.
        let server = server.restart().await;
        server.publish("a.b", "{}").await;
        ended(&server, &free.id, 6).await;
        assert_eq!(receiver.received_on("/").len(), 3);
        server.advance(Duration::from_secs(3_600));
        ended(&server, &one.id, 6).await;
        assert_eq!(receiver.received_on("/").len(), 6);
    }

    async fn a_limit_that_is_raised_lets_go_at_once_what_waited(server: Server) {
        let receiver = Receiver::start().await;
        let own = Webhook { rate_limit: limit(2, 86_400), ..endpoint(&receiver) };
        let own = create(&server, own).await.unwrap();
        assert_eq!(own.rate_limit, limit(2, 86_400));
        set(&server.client, json!({"webhook.hourly_limit": 1})).await;
        let default = create(&server, endpoint(&receiver)).await.unwrap();
        for _ in 0..4 {
            server.publish("a.b", "{}").await;
        }
        ended(&server, &own.id, 2).await;
        ended(&server, &default.id, 1).await;
        held(&server, &own.id, 2).await;
        held(&server, &default.id, 3).await;
        let request = UpdateWebhookRequest {
            webhook: Some(Webhook { id: own.id.clone(), rate_limit: limit(100, 86_400), ..Default::default() }),
            update_mask: None,
        };
        server.client.webhooks().update_webhook(request).await.unwrap();
        ended(&server, &own.id, 4).await;
        set(&server.client, json!({"webhook.hourly_limit": 0})).await;
        ended(&server, &default.id, 4).await;
    }

    async fn retries_count_and_a_new_window_begins_with_its_first_request(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::StatusThen(vec![503, 200]));
        let webhook = Webhook { rate_limit: limit(1, 60), retry_policy: retries(&[30], false), ..endpoint(&receiver) };
        let webhook = create(&server, webhook).await.unwrap();
        server.publish("a.b", "{}").await;
        until(&server, &webhook.id, DeliveryState::Retrying, 1).await;
        server.advance(Duration::from_secs(33));
        held(&server, &webhook.id, 1).await;
        assert_eq!(receiver.received().len(), 1);
        server.advance(Duration::from_secs(27));
        until(&server, &webhook.id, DeliveryState::Succeeded, 2).await;
    }

    async fn requests_are_counted_by_endpoint_and_time(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::StatusThen(vec![200, 400, 200]));
        receiver.respond_with("/other", Behaviour::Status(400));
        let one = create(&server, endpoint(&receiver)).await.unwrap();
        for number in 1..=3 {
            server.publish("a.b", "{}").await;
            receiver.wait_for(number, SOON).await;
            ended(&server, &one.id, number).await;
        }
        let other = create(&server, Webhook { url: receiver.url("/other"), ..endpoint(&receiver) }).await.unwrap();
        server.publish("a.b", "{}").await;
        ended(&server, &other.id, 1).await;
        ended(&server, &one.id, 4).await;
        let all = stats(&server, "", None).await.unwrap();
        let total = all.total.unwrap();
        assert_eq!((total.attempts, total.succeeded, total.failed), (5, 3, 2));
        assert!((total.success_rate - 0.6).abs() < 1e-9);
        let (p50, p99) = (micros(&total.p50_duration), micros(&total.p99_duration));
        assert!(p50 > 0 && p50 <= p99 && micros(&total.average_duration) > 0, "{total:?}");
        let by_endpoint: Vec<_> =
            all.webhooks.iter().map(|one| (one.webhook_id.as_str(), one.attempts, one.succeeded)).collect();
        assert_eq!(by_endpoint, [(one.id.as_str(), 4, 3), (other.id.as_str(), 1, 0)]);
        let just = stats(&server, &other.id, None).await.unwrap();
        assert_eq!((just.total.unwrap().attempts, just.webhooks.len()), (1, 1));

        let server = server.restart().await;
        server.advance(Duration::from_secs(2 * 86_400));
        assert_eq!(stats(&server, "", None).await.unwrap().total.unwrap().attempts, 0, "they are more than a day old");
        let long_ago = Some(Timestamp { seconds: now(&server).seconds - 3 * 86_400, nanos: 0 });
        let before = stats(&server, "", long_ago).await.unwrap();
        let machine = Machine { clock: server.clock.clone(), ..Machine::default() };
        let ground = Ground::open(&server.config, machine).await.unwrap();
        for _ in 0..2 {
            tidy(&ground.db, server.clock.now()).await.unwrap();
            assert_eq!(stats(&server, "", long_ago).await.unwrap(), before, "hours say what their minutes said");
        }
        tidy(&ground.db, server.clock.now() + Duration::from_secs(401 * 86_400)).await.unwrap();
        assert_eq!(stats(&server, "", long_ago).await.unwrap().total.unwrap().attempts, 0);

        let unknown = stats(&server, "wh_00000000000000000000000000", None).await.unwrap_err();
        status::expect(&unknown, Code::NotFound, "NOT_FOUND");
        let later = Some(Timestamp { seconds: now(&server).seconds + 1, nanos: 0 });
        status::expect_violations(&stats(&server, "", later).await.unwrap_err(), &["end_time"]);
    }

    async fn a_test_sends_a_sample_and_is_no_delivery(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Text(200, "thanks".into()));
        let created = server.webhook_to(&receiver, &["nothing.of_this"]).await.0;
        let off = UpdateWebhookRequest {
            webhook: Some(Webhook { id: created.id.clone(), ..Default::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["active".into()] }),
        };
        server.client.webhooks().update_webhook(off).await.unwrap();
        let answer = test(&server, &created.id, "ticket.created").await.unwrap();
        let attempt = answer.attempt.unwrap();
        assert!(answer.succeeded, "{attempt:?}");
        assert_eq!((attempt.number, attempt.response_status, attempt.response_body.as_str()), (1, 200, "thanks"));
        let [got] = receiver.received().try_into().unwrap();
        assert_eq!(got.json()["event"], "ticket.created");
        assert_eq!(got.json()["data"]["title"], "Pump 3 has stopped");
        assert!(got.header("x-webhook-signature").is_some() && got.header("webhook-signature").is_some());
        assert_eq!(all_to(&server, &created.id).await, []);

        receiver.respond_with("/", Behaviour::Status(500));
        let answer = test(&server, &created.id, "ticket.created").await.unwrap();
        let attempt = answer.attempt.unwrap();
        assert_eq!((answer.succeeded, attempt.response_status), (false, 500));
        assert_eq!(attempt.error, "answered 500 Internal Server Error");

        let own = EventType { name: "own.type".into(), ..Default::default() };
        let own = CreateEventTypeRequest { event_type: Some(own) };
        server.client.events().create_event_type(own).await.unwrap();
        let refused = test(&server, &created.id, "own.type").await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "SAMPLE_MISSING");
        for (webhook, event_type) in [(created.id.as_str(), "no.such"), ("wh_00000000000000000000000000", "ticket.created")] {
            status::expect(&test(&server, webhook, event_type).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
        }
        assert_eq!(receiver.received().len(), 2);
    }
}
