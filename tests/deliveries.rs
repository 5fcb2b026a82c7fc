//! Deliveries to webhook endpoints: what is recorded, what is tried again and when, what a slow endpoint costs the
//! others, and what becomes of all that when a server stops or another one helps.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::process::Stdio;
use std::time::Duration;

use prost_types::Timestamp;
use switchboard::clock::Clock;
use switchboard::config::Config;
use switchboard::db::Target;
use switchboard::delivery::Limits;
use switchboard_client::Client;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::event::v1::BatchPublishEventsRequest;
use switchboard_client::webhook::v1::{
    GetWebhookDeliveryRequest, GetWebhookDeliveryResponse, ListWebhookDeliveriesRequest,
    ListWebhookDeliveriesResponse, UpdateWebhookRequest, Webhook, WebhookDelivery,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tonic::Code;

use crate::harness::receiver::{Behaviour, Received, Receiver};
use crate::harness::server::{Backend, Server, event};
use crate::harness::tools::free_port;
use crate::harness::{SOON, eventually, on_both, postgres, status};

/// Past the waits of the default schedule, each with its tenth of jitter.
const WAITS: [Duration; 3] = [Duration::from_secs(66), Duration::from_secs(330), Duration::from_secs(990)];

/// So few in hand that a test fills them.
const FEW: Limits = Limits { concurrency: 4, lane: 8, total: 64 };

async fn list(server: &Server, request: ListWebhookDeliveriesRequest) -> ListWebhookDeliveriesResponse {
    let answer = server.client.webhooks().list_webhook_deliveries(request).await;
    answer.unwrap().into_inner()
}

/// All deliveries to an endpoint, at most 500.
pub async fn all_to(server: &Server, webhook_id: &str) -> Vec<WebhookDelivery> {
    let request =
        ListWebhookDeliveriesRequest { webhook_id: webhook_id.into(), page_size: 500, ..Default::default() };
    list(server, request).await.deliveries
}

async fn count(server: &Server, webhook_id: &str, state: DeliveryState) -> usize {
    let all = all_to(server, webhook_id).await;
    all.iter().filter(|delivery| delivery.state() == state).count()
}

/// Waits until so many deliveries to an endpoint have succeeded, and no other has been made.
pub async fn until_all_succeeded(server: &Server, webhook_id: &str, number: usize) {
    eventually(&format!("{number} deliveries succeed"), async || {
        let all = all_to(server, webhook_id).await;
        assert!(all.len() <= number, "more deliveries than events: {}", all.len());
        (count(server, webhook_id, DeliveryState::Succeeded).await == number).then_some(())
    })
    .await;
}

pub async fn details(server: &Server, delivery_id: &str) -> GetWebhookDeliveryResponse {
    let request = GetWebhookDeliveryRequest { delivery_id: delivery_id.into() };
    let answer = server.client.webhooks().get_webhook_delivery(request).await;
    answer.unwrap().into_inner()
}

/// Waits until the one delivery to an endpoint stands there after so many attempts.
pub async fn until(
    server: &Server,
    webhook_id: &str,
    state: DeliveryState,
    attempts: i32,
) -> WebhookDelivery {
    eventually(&format!("the delivery is {state:?} after {attempts} attempts"), async || {
        let all = all_to(server, webhook_id).await;
        assert!(all.len() <= 1, "one event makes one delivery: {all:?}");
        let reached = |one: &WebhookDelivery| one.state() == state && one.attempts == attempts;
        all.into_iter().find(reached)
    })
    .await
}

fn micros(time: &Timestamp) -> i64 {
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000
}

pub fn now(server: &Server) -> Timestamp {
    let now = server.clock.now();
    Timestamp { seconds: now.seconds(), nanos: now.nanos_of_second() }
}

/// How long from now until the next attempt.
pub fn wait_of(server: &Server, delivery: &WebhookDelivery) -> Duration {
    let due = delivery.next_attempt_time.as_ref().expect("a delivery that waits has a time");
    let wait = micros(due) - server.clock.now().micros();
    Duration::from_micros(u64::try_from(wait).expect("the next attempt lies ahead"))
}

/// Publishes so many events in one call; answers their ids.
pub async fn publish_many(client: &Client, event_type: &str, number: usize) -> Vec<String> {
    let requests = (0..number).map(|n| event(event_type, &format!(r#"{{"n":{n}}}"#)));
    let request = BatchPublishEventsRequest { requests: requests.collect() };
    let answer = client.events().batch_publish_events(request).await.unwrap();
    let responses = answer.into_inner().responses;
    responses.into_iter().map(|response| response.event_id).collect()
}

pub fn webhook_ids(received: &[Received]) -> Vec<String> {
    let id = |request: &Received| request.header("webhook-id").expect("every request has an id").to_owned();
    received.iter().map(id).collect()
}

/// Publishes what an endpoint answers at once, until it may have as many requests under way as any; answers the events' ids.
async fn win_trust(
    server: &Server,
    receiver: &Receiver,
    path: &str,
    event_type: &str,
    limits: Limits,
) -> Vec<String> {
    let published = publish_many(&server.client, event_type, limits.lane).await;
    receiver.wait_for_on(path, published.len(), SOON).await;
    published
}

/// Asserts that these events arrived, each once, and no others.
#[track_caller]
fn assert_each_once(received: &[Received], published: &[String]) {
    let mut times = BTreeMap::<String, usize>::new();
    for id in webhook_ids(received) {
        *times.entry(id).or_default() += 1;
    }
    let repeated: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(repeated.is_empty(), "these arrived more than once: {repeated:?}");
    let published: BTreeSet<_> = published.iter().collect();
    assert_eq!(times.keys().collect::<BTreeSet<_>>(), published, "what arrived is not what was published");
}

/// Waits until a draining server has closed its port, and so has begun to stop its deliveries.
async fn until_closed(address: &str) {
    eventually("the port is closed", async || {
        tokio::net::TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
}

on_both! {
    async fn a_success_is_recorded(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Text(202, "taken, thanks: ü\u{0}".into()));
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        let published = server.publish("a.b", "{}").await;
        let delivery = until(&server, &webhook.id, DeliveryState::Succeeded, 1).await;
        assert_eq!((&delivery.webhook_id, &delivery.event_id), (&webhook.id, &published.event_id));
        assert_eq!((delivery.event_type.as_str(), delivery.response_status), ("a.b", 202));
        assert_eq!((delivery.last_error.as_str(), delivery.next_attempt_time), ("", None));
        assert_eq!(delivery.create_time, Some(now(&server)));

        let GetWebhookDeliveryResponse { delivery: same, attempts } = details(&server, &delivery.id).await;
        assert_eq!(same, Some(delivery.clone()));
        assert_eq!(attempts.len(), 1);
        assert_eq!((attempts[0].number, attempts[0].response_status, attempts[0].error.as_str()), (1, 202, ""));
        assert_eq!(attempts[0].response_body, "taken, thanks: ü\u{fffd}", "NUL is replaced");
        assert_eq!(attempts[0].start_time, Some(now(&server)));
        let got = receiver.received().remove(0);
        assert_eq!(got.header("x-webhook-delivery"), Some(delivery.id.as_str()));

        let unknown = GetWebhookDeliveryRequest { delivery_id: "whd_00000000000000000000000000".into() };
        let refused = server.client.webhooks().get_webhook_delivery(unknown).await.unwrap_err();
        status::expect(&refused, Code::NotFound, "NOT_FOUND");
    }

    async fn an_attempt_has_its_duration_and_a_bounded_body(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/slow", Behaviour::Delay(Duration::from_millis(100)));
        receiver.respond_with("/large", Behaviour::Body(3 * 64 * 1024));
        let (slow, _) = server.webhook(&receiver.url("/slow"), &["*"]).await;
        let (large, _) = server.webhook(&receiver.url("/large"), &["*"]).await;
        server.publish("a.b", "{}").await;
        let slow = until(&server, &slow.id, DeliveryState::Succeeded, 1).await;
        let duration = details(&server, &slow.id).await.attempts[0].duration.unwrap();
        let duration = Duration::try_from(duration).unwrap();
        assert!((Duration::from_millis(100)..SOON).contains(&duration), "it took {duration:?}");
        let large = until(&server, &large.id, DeliveryState::Succeeded, 1).await;
        assert_eq!(details(&server, &large.id).await.attempts[0].response_body, "x".repeat(64 * 1024));
    }

    async fn a_failing_endpoint_is_tried_after_1_5_and_15_minutes(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Text(500, "out of order".into()));
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        let published = server.publish("a.b", r#"{"n":1}"#).await;
        for (attempts, wait) in (1..).zip(WAITS) {
            let waiting = until(&server, &webhook.id, DeliveryState::Retrying, attempts).await;
            assert!(waiting.last_error.contains("500"), "{}", waiting.last_error);
            let least = wait * 10 / 11;
            let next = wait_of(&server, &waiting);
            assert!((least..=wait).contains(&next), "attempt {attempts} is followed after {next:?}");
            server.advance(wait);
        }
        let failed = until(&server, &webhook.id, DeliveryState::Failed, 4).await;
        assert_eq!((failed.next_attempt_time, failed.response_status), (None, 500));
        assert!(failed.last_error.contains("500"), "{}", failed.last_error);

        let attempts = details(&server, &failed.id).await.attempts;
        assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(attempts.iter().all(|attempt| attempt.response_body == "out of order" && attempt.error == failed.last_error));
        let starts: Vec<_> = attempts.iter().map(|attempt| micros(attempt.start_time.as_ref().unwrap())).collect();
        let apart: Vec<_> = starts.windows(2).map(|pair| Duration::from_micros((pair[1] - pair[0]) as u64)).collect();
        assert_eq!(apart, WAITS);

        let got = receiver.received();
        assert_eq!(got.len(), 4);
        for request in &got {
            assert_eq!(request.header("webhook-id"), Some(published.event_id.as_str()));
            assert_eq!(request.header("x-webhook-delivery"), Some(failed.id.as_str()));
            assert_eq!(request.body, got[0].body, "every attempt has the same body");
        }
        let stamps: HashSet<_> = got.iter().map(|request| request.header("webhook-timestamp")).collect();
        assert_eq!(stamps.len(), 4, "every attempt is signed at its own time");

        // Failed is final: a day later another event comes, and that one only.
        receiver.respond_with("/", Behaviour::Status(200));
        server.advance(Duration::from_secs(86_400));
        let next = server.publish("a.b", "{}").await;
        eventually("the next one arrives", async || {
            let all = all_to(&server, &webhook.id).await;
            all.iter().any(|one| one.event_id == next.event_id && one.state() == DeliveryState::Succeeded).then_some(())
        })
        .await;
        assert_eq!(receiver.received().len(), 5);
    }

    async fn nothing_is_tried_again_before_its_time(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/late", Behaviour::StatusThen(vec![500, 200]));
        receiver.respond_with("/early", Behaviour::StatusThen(vec![500, 200]));
        // The older endpoint is looked at first: when the early one is taken, the late one has been passed over.
        let (late, _) = server.webhook(&receiver.url("/late"), &["late"]).await;
        let (early, _) = server.webhook(&receiver.url("/early"), &["early"]).await;
        server.publish("early", "{}").await;
        until(&server, &early.id, DeliveryState::Retrying, 1).await;
        server.advance(Duration::from_secs(10));
        server.publish("late", "{}").await;
        let waiting = until(&server, &late.id, DeliveryState::Retrying, 1).await;

        server.advance(Duration::from_secs(57));
        until(&server, &early.id, DeliveryState::Succeeded, 2).await;
        assert_eq!(until(&server, &late.id, DeliveryState::Retrying, 1).await, waiting);
        assert_eq!(receiver.received_on("/late").len(), 1);

        server.advance(Duration::from_secs(10));
        until(&server, &late.id, DeliveryState::Succeeded, 2).await;
        assert_eq!(receiver.received().len(), 4);
    }

    async fn an_endpoint_can_ask_for_more_time(server: Server) {
        let receiver = Receiver::start().await;
        let cases = [("/much", "600", 600), ("/little", "1", 60), ("/forever", "1000000", 3_600)];
        for (path, asked, seconds) in cases {
            receiver.respond_with(path, Behaviour::Headers(503, vec![("retry-after", asked.into())]));
            let (webhook, _) = server.webhook(&receiver.url(path), &[&path[1..]]).await;
            server.publish(&path[1..], "{}").await;
            let waiting = until(&server, &webhook.id, DeliveryState::Retrying, 1).await;
            let wait = wait_of(&server, &waiting);
            let least = Duration::from_secs(seconds);
            assert!((least..=least + Duration::from_secs(6)).contains(&wait), "{asked} gives {wait:?}");
        }
        receiver.respond_with("/much", Behaviour::Status(200));
        server.advance(Duration::from_secs(606));
        receiver.wait_for_on("/much", 2, SOON).await;
    }

    async fn what_may_pass_is_tried_again_and_what_will_not_is_final(server: Server) {
        let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
        let cases = [
            (408, DeliveryState::Retrying),
            (425, DeliveryState::Retrying),
            (429, DeliveryState::Retrying),
            (503, DeliveryState::Retrying),
            (301, DeliveryState::Failed),
            (307, DeliveryState::Failed),
            (400, DeliveryState::Failed),
            (404, DeliveryState::Failed),
            (410, DeliveryState::Failed),
        ];
        for (code, state) in cases {
            let path = format!("/{code}");
            receiver.respond_with(&path, Behaviour::Headers(code, vec![("location", elsewhere.url("/"))]));
            let (webhook, _) = server.webhook(&receiver.url(&path), &[&format!("s{code}")]).await;
            server.publish(&format!("s{code}"), "{}").await;
            let delivery = until(&server, &webhook.id, state, 1).await;
            assert_eq!(delivery.response_status, i32::from(code));
            assert!(delivery.last_error.contains(&code.to_string()), "{}", delivery.last_error);
            assert_eq!(delivery.next_attempt_time.is_some(), state == DeliveryState::Retrying);
            let redirect = delivery.last_error.contains("redirects are not followed");
            assert_eq!(redirect, (300..400).contains(&code), "{}", delivery.last_error);
        }
        assert_eq!(elsewhere.connections(), 0, "a redirect is not followed");

        server.advance(WAITS[0]);
        receiver.wait_for(cases.len() + 4, SOON).await;
        assert_eq!(receiver.received_on("/404").len() + receiver.received_on("/301").len(), 2);
    }

    async fn a_refused_connection_is_tried_again(server: Server) {
        let url = format!("http://127.0.0.1:{}/", free_port());
        let (webhook, _) = server.webhook(&url, &["*"]).await;
        server.publish("a.b", "{}").await;
        let waiting = until(&server, &webhook.id, DeliveryState::Retrying, 1).await;
        assert!(waiting.last_error.to_lowercase().contains("refused"), "{}", waiting.last_error);
        assert_eq!(waiting.response_status, 0);
        let attempts = details(&server, &waiting.id).await.attempts;
        assert_eq!((attempts[0].response_status, attempts[0].response_body.as_str()), (0, ""));
        assert_eq!(attempts[0].error, waiting.last_error);

        // Somebody listens there at last.
        let receiver = Receiver::start().await;
        let moved = Webhook { id: webhook.id.clone(), url: receiver.url("/"), ..Default::default() };
        let request = UpdateWebhookRequest { webhook: Some(moved), update_mask: None };
        server.client.webhooks().update_webhook(request).await.unwrap();
        server.advance(WAITS[0]);
        let done = until(&server, &webhook.id, DeliveryState::Succeeded, 2).await;
        assert_eq!(done.last_error, "");
    }

    async fn a_slow_endpoint_delays_no_other(server: Server = |config: &mut Config| config.webhooks = FEW) {
        let receiver = Receiver::start().await;
        let (hung, _) = server.webhook(&receiver.url("/hung"), &["*"]).await;
        let mut published = win_trust(&server, &receiver, "/hung", "a.b", FEW).await;
        until_all_succeeded(&server, &hung.id, 8).await;
        receiver.respond_with("/hung", Behaviour::Hang);
        let (well, _) = server.webhook(&receiver.url("/well"), &["*"]).await;
        let later = publish_many(&server.client, "a.b", 200).await;
        assert_each_once(&receiver.wait_for_on("/well", 200, SOON).await, &later);
        until_all_succeeded(&server, &well.id, 200).await;
        receiver.wait_for_in_flight("/hung", FEW.concurrency, SOON).await;
        assert_eq!(receiver.received_on("/hung").len(), 8 + FEW.concurrency, "what hangs occupies its own workers only");
        assert_eq!(count(&server, &hung.id, DeliveryState::Succeeded).await, 8);

        receiver.release("/hung");
        published.extend(later);
        assert_each_once(&receiver.wait_for_on("/hung", 208, SOON).await, &published);
        until_all_succeeded(&server, &hung.id, 208).await;
        assert_eq!(receiver.received().len(), 408);
        assert_eq!(receiver.most_in_flight("/hung"), FEW.concurrency);
        assert!(receiver.most_in_flight("/well") <= FEW.concurrency, "{}", receiver.most_in_flight("/well"));
    }

    async fn who_has_not_answered_yet_gets_one_request_at_a_time(server: Server = |config: &mut Config| config.webhooks = FEW) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/hung", Behaviour::Hang);
        let (hung, _) = server.webhook(&receiver.url("/hung"), &["*"]).await;
        let (well, _) = server.webhook(&receiver.url("/well"), &["*"]).await;
        let published = publish_many(&server.client, "a.b", 50).await;
        until_all_succeeded(&server, &well.id, 50).await;
        receiver.wait_for_in_flight("/hung", 1, SOON).await;
        assert_eq!(receiver.received_on("/hung").len(), 1);
        receiver.release("/hung");
        until_all_succeeded(&server, &hung.id, 50).await;
        assert_each_once(&receiver.received_on("/hung"), &published);
    }

    async fn what_does_not_fit_in_hand_waits_in_the_database(server: Server = |config: &mut Config| config.webhooks = FEW) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Hang);
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        let mut published = publish_many(&server.client, "a.b", 60).await;
        for _ in 0..40 {
            published.push(server.publish("a.b", "{}").await.event_id);
        }
        receiver.wait_for_in_flight("/", 1, SOON).await;
        assert_eq!(count(&server, &webhook.id, DeliveryState::Sending).await, FEW.lane);
        assert_eq!(count(&server, &webhook.id, DeliveryState::Pending).await, 100 - FEW.lane);

        receiver.release("/");
        until_all_succeeded(&server, &webhook.id, 100).await;
        assert_each_once(&receiver.received(), &published);
        assert!(receiver.most_in_flight("/") <= FEW.concurrency);
        assert!(all_to(&server, &webhook.id).await.iter().all(|delivery| delivery.attempts == 1));
    }

    async fn many_slow_endpoints_leave_room_for_one_that_is_well(
        server: Server = |config: &mut Config| config.webhooks = FEW
    ) {
        let receiver = Receiver::start().await;
        // More of them than the node can have in hand, if each could have its whole lane.
        let hung: Vec<_> = (0..12).map(|number| format!("/hung{number}")).collect();
        for path in &hung {
            receiver.respond_with(path, Behaviour::Hang);
            server.webhook(&receiver.url(path), &["*"]).await;
        }
        publish_many(&server.client, "a.b", 10).await;
        let (well, _) = server.webhook(&receiver.url("/well"), &["*"]).await;
        let published = publish_many(&server.client, "a.b", 50).await;
        assert_each_once(&receiver.wait_for_on("/well", 50, SOON).await, &published);
        until_all_succeeded(&server, &well.id, 50).await;
        for path in &hung {
            assert!(receiver.in_flight(path) >= 1, "{path} gets its turn as well");
            receiver.release(path);
        }
        for path in &hung {
            assert_eq!(receiver.wait_for_on(path, 60, SOON).await.len(), 60);
        }
    }

    async fn deliveries_are_listed_by_page_and_filter(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/ill", Behaviour::Status(500));
        receiver.respond_with("/gone", Behaviour::Status(404));
        let (well, _) = server.webhook(&receiver.url("/well"), &["*"]).await;
        let (ill, _) = server.webhook(&receiver.url("/ill"), &["*"]).await;
        let (gone, _) = server.webhook(&receiver.url("/gone"), &["b"]).await;
        let (mut events, mut times) = (Vec::new(), Vec::new());
        for event_type in ["a", "b", "c"] {
            times.push(now(&server));
            events.push(server.publish(event_type, "{}").await.event_id);
            server.advance(Duration::from_secs(10));
        }
        eventually("all were tried", async || {
            let all = list(&server, ListWebhookDeliveriesRequest::default()).await.deliveries;
            all.iter().all(|delivery| delivery.attempts == 1).then_some(())
        })
        .await;

        // What a list holds, as `event>endpoint`.
        let label = |delivery: &WebhookDelivery| {
            let to = [(&well, "well"), (&ill, "ill"), (&gone, "gone")];
            let (_, name) = to.iter().find(|(webhook, _)| webhook.id == delivery.webhook_id).unwrap();
            format!("{}>{name}", delivery.event_type)
        };
        let filtered = async |request: ListWebhookDeliveriesRequest| {
            let deliveries = list(&server, request).await.deliveries;
            assert!(deliveries.iter().rev().is_sorted_by_key(|one| micros(one.create_time.as_ref().unwrap())), "newest first");
            let mut labels: Vec<_> = deliveries.iter().map(label).collect();
            labels.sort();
            labels.join(" ")
        };
        let any = ListWebhookDeliveriesRequest::default();
        assert_eq!(filtered(any.clone()).await, "a>ill a>well b>gone b>ill b>well c>ill c>well");
        let of = |states: &[DeliveryState]| ListWebhookDeliveriesRequest {
            states: states.iter().map(|&state| state.into()).collect(),
            ..Default::default()
        };
        assert_eq!(filtered(of(&[DeliveryState::Succeeded])).await, "a>well b>well c>well");
        assert_eq!(filtered(of(&[DeliveryState::Retrying, DeliveryState::Failed])).await, "a>ill b>gone b>ill c>ill");
        assert_eq!(filtered(of(&[DeliveryState::Pending])).await, "");
        assert_eq!(filtered(of(&[DeliveryState::Unspecified])).await, filtered(any.clone()).await);
        let to_ill = ListWebhookDeliveriesRequest { webhook_id: ill.id.clone(), ..any.clone() };
        assert_eq!(filtered(to_ill.clone()).await, "a>ill b>ill c>ill");
        let of_b = ListWebhookDeliveriesRequest { event_id: events[1].clone(), ..any.clone() };
        assert_eq!(filtered(of_b.clone()).await, "b>gone b>ill b>well");
        let both = ListWebhookDeliveriesRequest { event_id: events[1].clone(), ..to_ill };
        assert_eq!(filtered(both).await, "b>ill");
        let after = ListWebhookDeliveriesRequest { created_after: Some(times[1]), ..any.clone() };
        assert_eq!(filtered(after.clone()).await, "b>gone b>ill b>well c>ill c>well", "`after` includes its time");
        let between = ListWebhookDeliveriesRequest { created_before: Some(times[2]), ..after };
        assert_eq!(filtered(between).await, "b>gone b>ill b>well", "`before` does not");

        let whole: Vec<_> = list(&server, any.clone()).await.deliveries;
        let request = ListWebhookDeliveriesRequest { page_size: 3, ..any };
        let (mut sizes, mut pages, mut token) = (Vec::new(), Vec::new(), String::new());
        loop {
            let page = list(&server, ListWebhookDeliveriesRequest { page_token: token, ..request.clone() }).await;
            sizes.push(page.deliveries.len());
            pages.extend(page.deliveries);
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
            let other = ListWebhookDeliveriesRequest { page_token: token.clone(), ..of_b.clone() };
            let refused = server.client.webhooks().list_webhook_deliveries(other).await.unwrap_err();
            status::expect_violations(&refused, &["page_token"]);
        }
        assert_eq!((sizes.as_slice(), pages), ([3, 3, 1].as_slice(), whole));
    }

    async fn what_waits_goes_on_after_a_restart(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::StatusThen(vec![500, 200]));
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        let published = server.publish("a.b", "{}").await;
        let waiting = until(&server, &webhook.id, DeliveryState::Retrying, 1).await;
        let server = server.restart().await;
        assert_eq!(until(&server, &webhook.id, DeliveryState::Retrying, 1).await, waiting);
        server.advance(WAITS[0]);
        let done = until(&server, &webhook.id, DeliveryState::Succeeded, 2).await;
        assert_eq!(details(&server, &done.id).await.attempts.len(), 2);
        let got = receiver.received();
        assert_eq!(webhook_ids(&got), [published.event_id.clone(), published.event_id]);
    }

    async fn a_restart_with_much_in_hand_loses_and_repeats_nothing(
        server: Server = |config: &mut Config| config.webhooks = FEW
    ) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Hang);
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        let published = publish_many(&server.client, "a.b", 30).await;
        receiver.wait_for_in_flight("/", 1, SOON).await;
        let address = server.address();
        let restarting = tokio::spawn(server.restart());
        until_closed(&address).await;
        receiver.release("/");
        let server = restarting.await.unwrap();
        until_all_succeeded(&server, &webhook.id, 30).await;
        assert_each_once(&receiver.received(), &published);
        assert!(all_to(&server, &webhook.id).await.iter().all(|delivery| delivery.attempts == 1));
    }
}

/// A session that keeps every node from renewing its lease.
struct Standstill {
    psql: Child,
    input: ChildStdin,
}

impl Standstill {
    async fn begin(database: &str) -> Self {
        let mut psql = Command::new(postgres::bin("psql"))
            .args(["-X", "-A", "-t", "-q", "-d", database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("psql starts");
        let mut input = psql.stdin.take().expect("stdin is piped");
        let lock = b"BEGIN; LOCK TABLE nodes IN SHARE ROW EXCLUSIVE MODE; SELECT 'locked';\n";
        input.write_all(lock).await.unwrap();
        let mut answer = BufReader::new(psql.stdout.take().expect("stdout is piped")).lines();
        assert_eq!(answer.next_line().await.unwrap().as_deref(), Some("locked"));
        Self { psql, input }
    }

    async fn end(mut self) {
        self.input.write_all(b"COMMIT;\n").await.unwrap();
        drop(self.input);
        assert!(self.psql.wait().await.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_lease_for_a_while_makes_all_its_deliveries() {
    let short = |config: &mut Config| config.lease = Duration::from_secs(1);
    let server = Server::start_with(Backend::Postgres, short).await;
    let Target::Postgres(database) = &server.config.database else {
        unreachable!("the server uses PostgreSQL")
    };
    let receiver = Receiver::start().await;
    let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
    let standstill = Standstill::begin(database).await;
    eventually("the lease has ended", async || {
        let alive =
            postgres::query(database, "SELECT count(*) FROM nodes WHERE lease_until > clock_timestamp()");
        (alive.await == "0").then_some(())
    })
    .await;
    let published = publish_many(&server.client, "a.b", 10).await;
    standstill.end().await;
    until_all_succeeded(&server, &webhook.id, 10).await;
    assert_each_once(&receiver.received(), &published);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_nodes_publish_arrives_once() {
    let one = Server::start(Backend::Postgres).await;
    let two = one.another_node().await;
    let receiver = Receiver::start().await;
    let (webhook, _) = one.webhook_to(&receiver, &["*"]).await;
    let publish = |client: &Client| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut published = Vec::new();
            for _ in 0..5 {
                published.extend(publish_many(&client, "a.b", 20).await);
            }
            published
        })
    };
    let (first, second) = (publish(&one.client), publish(&two.client));
    let mut published = first.await.unwrap();
    published.extend(second.await.unwrap());
    until_all_succeeded(&two, &webhook.id, 200).await;
    assert_each_once(&receiver.received(), &published);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_changes_another_publishes_by_at_once() {
    let one = Server::start(Backend::Postgres).await;
    let two = one.another_node().await;
    let receiver = Receiver::start().await;
    for round in 1..=5 {
        let (webhook, _) = one.webhook_to(&receiver, &["*"]).await;
        let published = two.publish("a.b", "{}").await;
        let outcomes = two.event(&published.event_id).await.outcomes;
        assert_eq!(outcomes.len(), 1, "round {round}: the new endpoint is known");
        assert_eq!(outcomes[0].source_id, webhook.id);
        receiver.wait_for(round, SOON).await;

        let off = Webhook { id: webhook.id.clone(), ..webhook };
        let request = UpdateWebhookRequest {
            webhook: Some(Webhook { active: false, ..off }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["active".into()] }),
        };
        one.client.webhooks().update_webhook(request).await.unwrap();
        let published = two.publish("a.b", "{}").await;
        let outcomes = two.event(&published.event_id).await.outcomes;
        assert!(outcomes.is_empty(), "round {round}: the endpoint is known to be off");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_not_heard_of_an_endpoint_does_not_withdraw_its_deliveries() {
    let one = Server::start_with(Backend::Postgres, |config| config.webhooks = FEW).await;
    let two = one.another_node().await;
    let receiver = Receiver::start().await;
    for round in 0..5 {
        let path = format!("/{round}");
        let (webhook, _) = one.webhook(&receiver.url(&path), &[&format!("round{round}")]).await;
        // What one node has no room for is there for both to take, at once.
        let published = publish_many(&one.client, &format!("round{round}"), 50).await;
        two.advance(Duration::ZERO);
        eventually("all have ended", async || {
            let all = all_to(&one, &webhook.id).await;
            let ended = [DeliveryState::Succeeded, DeliveryState::Failed, DeliveryState::Cancelled];
            all.iter().all(|delivery| ended.contains(&delivery.state())).then_some(())
        })
        .await;
        let withdrawn = count(&one, &webhook.id, DeliveryState::Cancelled).await;
        assert_eq!(
            withdrawn, 0,
            "round {round}: {withdrawn} of 50 deliveries to a new endpoint were withdrawn"
        );
        assert_each_once(&receiver.received_on(&path), &published);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_never_make_the_same_attempt() {
    let one = Server::start(Backend::Postgres).await;
    let two = one.another_node().await;
    let receiver = Receiver::start().await;
    receiver.respond_with("/", Behaviour::Status(500));
    let (webhook, _) = one.webhook_to(&receiver, &["*"]).await;
    let published = publish_many(&one.client, "a.b", 200).await;
    eventually("all have failed once", async || {
        (count(&one, &webhook.id, DeliveryState::Retrying).await == 200).then_some(())
    })
    .await;
    let first = receiver.received();
    assert_each_once(&first, &published);

    // The clock is one, and both look at once.
    receiver.respond_with("/", Behaviour::Status(200));
    one.advance(WAITS[0]);
    two.advance(Duration::ZERO);
    until_all_succeeded(&two, &webhook.id, 200).await;
    assert_each_once(&receiver.received()[200..], &published);
    assert!(all_to(&two, &webhook.id).await.iter().all(|delivery| delivery.attempts == 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_gives_back_what_it_has_in_hand() {
    let few = |config: &mut Config| {
        config.webhooks = Limits { concurrency: 4, lane: 64, total: 1_024 };
    };
    let one = Server::start_with(Backend::Postgres, few).await;
    let two = one.another_node().await;
    let Target::Postgres(database) = one.config.database.clone() else {
        unreachable!("the nodes share a PostgreSQL database")
    };
    let receiver = Receiver::start().await;
    let (webhook, _) = one.webhook_to(&receiver, &["hung"]).await;
    let mut published = win_trust(&one, &receiver, "/", "hung", FEW).await;
    until_all_succeeded(&one, &webhook.id, 8).await;
    receiver.respond_with("/", Behaviour::Hang);
    published.extend(publish_many(&one.client, "hung", 40).await);
    receiver.wait_for_in_flight("/", 4, SOON).await;
    assert_eq!(
        count(&two, &webhook.id, DeliveryState::Sending).await,
        40,
        "all are in the hands of one node"
    );

    // Its requests under way end in peace; whatever it has not begun is the other's.
    let address = one.address();
    let stopping = tokio::spawn(one.stop());
    until_closed(&address).await;
    two.webhook(&receiver.url("/marker"), &["marker"]).await;
    for _ in 0..5 {
        two.publish("marker", "{}").await;
    }
    receiver.wait_for_on("/marker", 5, SOON).await;
    receiver.release("/");
    stopping.await.unwrap();
    until_all_succeeded(&two, &webhook.id, 48).await;
    assert_each_once(&receiver.received_on("/"), &published);
    let taken_over = format!(
        "SELECT count(*) FROM webhook_deliveries WHERE webhook_id = '{}' AND lease_token = 2",
        webhook.id
    );
    assert_eq!(postgres::query(&database, &taken_over).await, "36", "the other node took the rest");
}
