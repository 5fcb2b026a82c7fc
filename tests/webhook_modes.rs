//! How events get to an endpoint: in order, and several in one request.

use std::collections::BTreeMap;
use std::time::Duration;

use switchboard_client::Client;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::event::v1::{BatchPublishEventsRequest, PublishEventRequest};
use switchboard_client::webhook::v1::{
    UpdateWebhookRequest, Webhook, WebhookBatching, WebhookDelivery, WebhookDeliveryMode,
};
use tonic::Code;

use crate::deliveries::{all_to, details};
use crate::harness::receiver::{Behaviour, Received, Receiver};
use crate::harness::server::{Backend, Server, event};
use crate::harness::{SOON, eventually, on_both, status};
use crate::signatures::{Case, assert_verdicts};
use crate::webhook_requests::{create, ended, endpoint, held, limit, retries, retry, seconds};

const PLENTY: i32 = 1_000_000;

fn ordered(receiver: &Receiver) -> Webhook {
    Webhook {
        delivery_mode: WebhookDeliveryMode::Ordered.into(),
        rate_limit: limit(PLENTY, 3_600),
        ..endpoint(receiver)
    }
}

fn batched(receiver: &Receiver, max_events: i32, max_wait: i64) -> Webhook {
    Webhook {
        delivery_mode: WebhookDeliveryMode::Batched.into(),
        batching: Some(WebhookBatching { max_events, max_wait: Some(seconds(max_wait)) }),
        rate_limit: limit(PLENTY, 3_600),
        ..endpoint(receiver)
    }
}

fn of(subject: &str, n: usize) -> PublishEventRequest {
    PublishEventRequest {
        subject: subject.into(),
        ..event("step.taken", &format!(r#"{{"subject":"{subject}","n":{n}}}"#))
    }
}

async fn publish(client: &Client, requests: Vec<PublishEventRequest>) {
    for requests in requests.chunks(100) {
        let request = BatchPublishEventsRequest { requests: requests.to_vec() };
        client.events().batch_publish_events(request).await.unwrap();
    }
}

/// The numbers that arrived of each subject, in the order of their arrival.
fn arrivals(received: &[Received]) -> BTreeMap<String, Vec<usize>> {
    let mut arrivals = BTreeMap::<String, Vec<usize>>::new();
    for request in received {
        let data = &request.json()["data"];
        let subject = data["subject"].as_str().unwrap().to_owned();
        arrivals.entry(subject).or_default().push(data["n"].as_u64().unwrap() as usize);
    }
    arrivals
}

/// Asserts that of each subject all numbers arrived in order; each as often as it was tried.
#[track_caller]
fn assert_in_order(received: &[Received], subjects: usize, each: usize) {
    let arrivals = arrivals(received);
    assert_eq!(arrivals.len(), subjects);
    for (subject, numbers) in arrivals {
        let mut distinct = numbers.clone();
        distinct.dedup();
        assert_eq!(distinct, (0..each).collect::<Vec<_>>(), "{subject} arrived as {numbers:?}");
    }
}

/// Lets time pass until so many deliveries to an endpoint have succeeded.
async fn until_succeeded(server: &Server, webhook: &Webhook, number: usize) {
    let stats = switchboard_client::webhook::v1::GetWebhookStatsRequest {
        webhook_id: webhook.id.clone(),
        ..Default::default()
    };
    let all = async {
        loop {
            server.advance(Duration::from_millis(1_100));
            let answer = server.client.webhooks().get_webhook_stats(stats.clone()).await.unwrap();
            if answer.into_inner().total.unwrap().succeeded as usize >= number {
                return;
            }
            crate::harness::breath().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(180), all).await.expect("all succeed in time");
}

fn numbers(request: &Received) -> Vec<u64> {
    let body = request.json();
    let elements = body.as_array().expect("a batch is an array");
    elements.iter().map(|element| element["data"]["n"].as_u64().unwrap()).collect()
}

on_both! {
    async fn ten_thousand_events_of_fifty_subjects_arrive_in_order(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Unsteady { percent: 5, seed: 7 });
        let policy = retries(&[1; 20], false);
        let webhook = create(&server, Webhook { retry_policy: policy, ..ordered(&receiver) }).await.unwrap();
        let events = (0..10_000).map(|n| of(&format!("subject-{}", n % 50), n / 50));
        publish(&server.client, events.collect()).await;
        until_succeeded(&server, &webhook, 10_000).await;
        let received = receiver.received();
        assert_in_order(&received, 50, 200);
        assert!(received.len() > 10_000, "some were refused and came again");
        ended(&server, &webhook.id, 500).await;
    }

    async fn a_subject_waits_for_its_own_and_for_no_other(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::StatusThen(vec![503, 200]));
        let policy = retries(&[3_600], false);
        let webhook = create(&server, Webhook { retry_policy: policy, ..ordered(&receiver) }).await.unwrap();
        publish(&server.client, vec![of("slow", 0)]).await;
        receiver.wait_for(1, SOON).await;
        publish(&server.client, vec![of("slow", 1), of("other", 0), of("other", 1), of("slow", 2)]).await;
        let received = receiver.wait_for(3, SOON).await;
        assert_eq!(arrivals(&received)["other"], [0, 1]);
        ended(&server, &webhook.id, 2).await;
        let states: Vec<_> = all_to(&server, &webhook.id).await.iter().rev().map(WebhookDelivery::state).collect();
        let (waits, done) = (DeliveryState::Pending, DeliveryState::Succeeded);
        assert_eq!(states, [DeliveryState::Retrying, waits, done, done, waits]);
        let parked = all_to(&server, &webhook.id).await.into_iter().find(|one| one.state() == waits).unwrap();
        assert_eq!(parked.next_attempt_time, None, "it waits for another, not for a time");
        server.advance(Duration::from_secs(3_970));
        ended(&server, &webhook.id, 5).await;
        assert_eq!(arrivals(&receiver.received())["slow"], [0, 0, 1, 2]);
    }

    async fn what_has_failed_for_good_keeps_nobody_back(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::StatusThen(vec![400, 200]));
        let webhook = create(&server, ordered(&receiver)).await.unwrap();
        publish(&server.client, vec![of("a", 0), of("a", 1), of("a", 2)]).await;
        ended(&server, &webhook.id, 3).await;
        assert_eq!(arrivals(&receiver.received())["a"], [0, 1, 2]);
        // Asked for once more, it comes again, and behind what is under way.
        receiver.respond_with("/", Behaviour::Hang);
        publish(&server.client, vec![of("a", 3)]).await;
        receiver.wait_for(4, SOON).await;
        let failed = all_to(&server, &webhook.id).await.into_iter().find(|one| one.state() == DeliveryState::Failed);
        let waiting = retry(&server, &failed.unwrap().id).await.unwrap();
        assert_eq!((waiting.state(), waiting.next_attempt_time), (DeliveryState::Pending, None));
        receiver.release("/");
        ended(&server, &webhook.id, 4).await;
        assert_eq!(arrivals(&receiver.received())["a"], [0, 1, 2, 3, 0]);
    }

    async fn order_outlives_a_restart_and_the_limit_of_an_endpoint(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Delay(Duration::from_millis(20)));
        let webhook = Webhook { rate_limit: limit(60, 3_600), ..ordered(&receiver) };
        let webhook = create(&server, webhook).await.unwrap();
        publish(&server.client, (0..100).map(|n| of(&format!("s{}", n % 2), n / 2)).collect()).await;
        receiver.wait_for(10, SOON).await;
        let server = server.restart().await;
        eventually("the limit is used up", async || {
            server.advance(Duration::ZERO);
            let all = all_to(&server, &webhook.id).await;
            let is_any = |state| all.iter().any(|one| one.state() == state);
            (is_any(DeliveryState::Held) && !is_any(DeliveryState::Sending)).then_some(())
        })
        .await;
        // What was in hand when the server stopped, one of each order at the most, has been counted and is counted again.
        let before = receiver.received().len();
        assert!((58..=60).contains(&before), "{before} of 60");
        server.advance(Duration::from_secs(3_600));
        ended(&server, &webhook.id, 100).await;
        assert_in_order(&receiver.received(), 2, 50);
    }

    async fn what_was_published_in_order_stays_so_when_the_mode_changes(server: Server) {
        let receiver = Receiver::start().await;
        let webhook = create(&server, ordered(&receiver)).await.unwrap();
        // Who has answered three may have three under way.
        publish(&server.client, vec![of("c", 0), of("c", 1), of("c", 2)]).await;
        ended(&server, &webhook.id, 3).await;
        receiver.respond_with("/", Behaviour::Hang);
        publish(&server.client, vec![of("a", 0), of("a", 1)]).await;
        receiver.wait_for(4, SOON).await;
        let changed = Webhook {
            id: webhook.id.clone(),
            delivery_mode: WebhookDeliveryMode::Concurrent.into(),
            ..Default::default()
        };
        let request = UpdateWebhookRequest { webhook: Some(changed), update_mask: None };
        let changed = server.client.webhooks().update_webhook(request).await.unwrap().into_inner();
        assert_eq!(changed.webhook.unwrap().delivery_mode(), WebhookDeliveryMode::Concurrent);
        publish(&server.client, vec![of("b", 0), of("b", 1)]).await;
        receiver.wait_for(6, SOON).await;
        assert_eq!(arrivals(&receiver.received())["a"], [0], "the second still waits for the first");
        receiver.release("/");
        ended(&server, &webhook.id, 7).await;
        assert_eq!(arrivals(&receiver.received())["a"], [0, 1]);
    }

    async fn what_was_published_before_comes_in_order_too(server: Server) {
        let receiver = Receiver::start().await;
        publish(&server.client, (0..40).map(|n| of(&format!("s{}", n % 2), n / 2)).collect()).await;
        let webhook = create(&server, ordered(&receiver)).await.unwrap();
        let request = switchboard_client::webhook::v1::ReplayWebhookEventsRequest {
            webhook_id: webhook.id.clone(),
            created_after: Some(crate::deliveries::now(&server)),
            ..Default::default()
        };
        let replayed = server.client.webhooks().replay_webhook_events(request).await.unwrap().into_inner();
        assert_eq!(replayed.count, 40);
        publish(&server.client, (40..60).map(|n| of(&format!("s{}", n % 2), n / 2)).collect()).await;
        ended(&server, &webhook.id, 60).await;
        assert_in_order(&receiver.received(), 2, 30);
    }

    async fn several_events_share_a_request_that_verifies(server: Server) {
        let receiver = Receiver::start().await;
        let request = switchboard_client::webhook::v1::CreateWebhookRequest {
            webhook: Some(batched(&receiver, 10, 60)),
            ..Default::default()
        };
        let created = server.client.webhooks().create_webhook(request).await.unwrap().into_inner();
        let webhook = created.webhook.unwrap();
        assert_eq!(webhook.delivery_mode(), WebhookDeliveryMode::Batched);
        publish(&server.client, (0..25).map(|n| of("a", n)).collect()).await;
        receiver.wait_for(2, SOON).await;
        ended(&server, &webhook.id, 20).await;
        publish(&server.client, (25..30).map(|n| of("a", n)).collect()).await;
        let received = receiver.wait_for(3, SOON).await;
        ended(&server, &webhook.id, 30).await;
        let mut all: Vec<u64> = received.iter().flat_map(numbers).collect();
        all.sort_unstable();
        assert_eq!(all, (0..30).collect::<Vec<_>>());
        assert!(received.iter().all(|request| numbers(request).len() == 10));
        let cases: Vec<_> = received.iter().map(|request| Case::of(request, &created.secret)).collect();
        assert_verdicts(&cases, true, true).await;
        let ids: std::collections::BTreeSet<_> =
            received.iter().map(|request| request.header("webhook-id").unwrap()).collect();
        assert_eq!(ids.len(), 3);
        // Every delivery shows its own part.
        for delivery in all_to(&server, &webhook.id).await {
            assert_eq!((delivery.state(), delivery.attempts), (DeliveryState::Succeeded, 1));
        }
        let one = all_to(&server, &webhook.id).await.remove(0);
        let attempt = details(&server, &one.id).await.attempts.remove(0);
        assert!(ids.contains(attempt.request_headers["webhook-id"].as_str()));
        let part: serde_json::Value = serde_json::from_str(&attempt.request_body).unwrap();
        assert_eq!(part["id"], one.event_id.as_str());
    }

    async fn a_batch_that_is_not_full_goes_when_its_first_has_waited_long_enough(server: Server) {
        let receiver = Receiver::start().await;
        let webhook = create(&server, batched(&receiver, 10, 60)).await.unwrap();
        publish(&server.client, (0..3).map(|n| of("a", n)).collect()).await;
        server.advance(Duration::from_secs(60));
        let received = receiver.wait_for(1, SOON).await;
        let mut first = numbers(&received[0]);
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2]);
        ended(&server, &webhook.id, 3).await;
        // What was not sent when a server stops goes out after it has started again, without a wait of its own.
        publish(&server.client, (3..5).map(|n| of("a", n)).collect()).await;
        let server = server.restart().await;
        server.advance(Duration::from_secs(60));
        ended(&server, &webhook.id, 5).await;
        assert_eq!(numbers(&receiver.received()[1]).len(), 2);
    }

    async fn a_batch_that_fails_is_tried_again_under_its_id(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::StatusThen(vec![503, 200]));
        let webhook = create(&server, batched(&receiver, 3, 60)).await.unwrap();
        publish(&server.client, (0..3).map(|n| of("a", n)).collect()).await;
        receiver.wait_for(1, SOON).await;
        eventually("all of them wait for another try", async || {
            let all = all_to(&server, &webhook.id).await;
            all.iter().all(|one| one.state() == DeliveryState::Retrying).then_some(())
        })
        .await;
        server.advance(Duration::from_secs(70));
        ended(&server, &webhook.id, 3).await;
        let received = receiver.received();
        assert_eq!(received.len(), 2);
        let sorted = |request: &Received| {
            let mut numbers = numbers(request);
            numbers.sort_unstable();
            numbers
        };
        assert_eq!(sorted(&received[0]), sorted(&received[1]));
        assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
        for delivery in all_to(&server, &webhook.id).await {
            assert_eq!((delivery.state(), delivery.attempts), (DeliveryState::Succeeded, 2));
        }
    }

    async fn the_limit_of_an_endpoint_counts_requests_and_not_what_is_in_them(server: Server) {
        let receiver = Receiver::start().await;
        let webhook = Webhook { rate_limit: limit(2, 3_600), ..batched(&receiver, 10, 60) };
        let webhook = create(&server, webhook).await.unwrap();
        publish(&server.client, (0..30).map(|n| of("a", n)).collect()).await;
        ended(&server, &webhook.id, 20).await;
        let waiting = held(&server, &webhook.id, 10).await;
        assert!(waiting.iter().all(|one| one.attempts == 0), "{waiting:?}");
        assert_eq!(receiver.received().len(), 2);
        server.advance(Duration::from_secs(3_600));
        ended(&server, &webhook.id, 30).await;
        assert_eq!(receiver.received().len(), 3);
    }

    async fn wrong_batches_are_refused(server: Server) {
        let receiver = Receiver::start().await;
        for bad in [
            batched(&receiver, 501, 5),
            batched(&receiver, -1, 5),
            batched(&receiver, 5, 61),
            batched(&receiver, 5, -1),
            Webhook { delivery_mode: WebhookDeliveryMode::Ordered.into(), ..batched(&receiver, 5, 5) },
        ] {
            let refused = create(&server, bad).await.unwrap_err();
            status::expect(&refused, Code::InvalidArgument, "FIELD_INVALID");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_keep_one_order() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let receiver = Receiver::start().await;
    let webhook = create(&one, ordered(&receiver)).await.unwrap();
    for n in 0..200 {
        let node = if n % 2 == 0 { &one } else { &other };
        let requests = ["a", "b"].map(|subject| of(subject, n));
        publish(&node.client, requests.to_vec()).await;
    }
    ended(&one, &webhook.id, 400).await;
    assert_in_order(&receiver.received(), 2, 200);
    other.stop().await;
}
