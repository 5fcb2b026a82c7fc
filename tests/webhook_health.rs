//! How webhook endpoints fare: who only fails is told of and in the end disabled, and a dead host is only probed.

use std::collections::HashSet;
use std::time::Duration;

use prost_types::FieldMask;
use serde_json::{Value, json};
use switchboard::config::Config;
use switchboard::db::{Db, execute};
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::ListEmailsRequest;
use switchboard_client::event::v1::{Event, ListEventsRequest, ListRoutesRequest};
use switchboard_client::webhook::v1::{
    CreateWebhookRequest, GetWebhookRequest, UpdateWebhookRequest, Webhook, WebhookDelivery,
    WebhookRetryPolicy,
};

use crate::deliveries::{all_to, now, publish_many, until, webhook_ids};
use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::server::{Backend, Server};
use crate::harness::{SOON, eventually, on_both};
use crate::port::get as get_path;
use crate::settings::set;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An endpoint that gets `a.b`, and whose requests are made again after these times.
async fn endpoint(server: &Server, url: String, waits: &[i64]) -> Webhook {
    let schedule = waits.iter().map(|&seconds| prost_types::Duration { seconds, nanos: 0 }).collect();
    let webhook = Webhook {
        name: "Accounting".into(),
        url,
        event_types: vec!["a.b".into(), "webhook.*".into()],
        retry_policy: Some(WebhookRetryPolicy { schedule, retry_client_errors: false }),
        ..Default::default()
    };
    let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
    server.client.webhooks().create_webhook(request).await.unwrap().into_inner().webhook.unwrap()
}

async fn get(server: &Server, webhook_id: &str) -> Webhook {
    let request = GetWebhookRequest { webhook_id: webhook_id.into() };
    server.client.webhooks().get_webhook(request).await.unwrap().into_inner().webhook.unwrap()
}

/// The endpoint once it satisfies this.
async fn when(server: &Server, webhook_id: &str, what: &str, holds: impl Fn(&Webhook) -> bool) -> Webhook {
    eventually(what, async || Some(get(server, webhook_id).await).filter(|webhook| holds(webhook))).await
}

/// The endpoint once so many failures of it are known.
async fn failures(server: &Server, webhook_id: &str, number: i64) -> Webhook {
    when(server, webhook_id, &format!("{number} failures are known"), |webhook| {
        webhook.health.as_ref().unwrap().failures == number
    })
    .await
}

async fn events(server: &Server, event_type: &str) -> Vec<Event> {
    let request = ListEventsRequest { event_types: vec![event_type.into()], ..Default::default() };
    server.client.events().list_events(request).await.unwrap().into_inner().events
}

/// The events of this type once there are so many.
async fn events_when(server: &Server, event_type: &str, number: usize) -> Vec<Event> {
    eventually(&format!("there are {number} of {event_type}"), async || {
        let found = events(server, event_type).await;
        assert!(found.len() <= number, "too many: {found:?}");
        (found.len() == number).then_some(found)
    })
    .await
}

/// The subjects of the mails that an event caused, once there are some.
async fn mails(server: &Server, event: &Event, address: &str) -> Vec<String> {
    eventually("a mail is captured", async || {
        let request = ListEmailsRequest { event_id: event.id.clone(), ..Default::default() };
        let emails = server.client.emails().list_emails(request).await.unwrap().into_inner().emails;
        let ended = emails.iter().all(|email| email.state() == DeliveryState::Succeeded && email.captured);
        assert!(emails.iter().all(|email| email.to == [address]), "{emails:?}");
        (ended && !emails.is_empty()).then(|| emails.into_iter().map(|email| email.subject).collect())
    })
    .await
}

async fn activate(server: &Server, webhook_id: &str) -> Webhook {
    let webhook = Webhook { id: webhook_id.into(), active: true, ..Default::default() };
    let update_mask = Some(FieldMask { paths: vec!["active".into()] });
    let request = UpdateWebhookRequest { webhook: Some(webhook), update_mask };
    server.client.webhooks().update_webhook(request).await.unwrap().into_inner().webhook.unwrap()
}

async fn publish(server: &Server, number: usize) {
    publish_many(&server.client, "a.b", number).await;
}

/// Runs SQL on the server's database, beside the server.
async fn run_sql(server: &Server, sql: &'static str) {
    let db = Db::open(&server.config.database).await.unwrap();
    db.transaction(move |conn| Box::pin(async move { execute(conn, sql).await })).await.unwrap();
}

on_both! {
    async fn who_only_fails_is_told_of_once_and_the_owner_gets_a_mail(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Status(503));
        server.put_on_list("system_alerts", &["ops@example.com"]).await;
        let webhook = endpoint(&server, receiver.url("/?token=1"), &[]).await;
        endpoint(&server, receiver.url("/watch"), &[]).await;
        assert_eq!(webhook.health.as_ref().map(|health| health.failures), Some(0));
        let since = now(&server);
        publish(&server, 3).await;
        let health = failures(&server, &webhook.id, 3).await.health.unwrap();
        assert_eq!((health.failing_since, health.last_failure_time, health.last_success_time), (Some(since), Some(since), None));
        assert!(health.last_error.starts_with("answered 503") && !health.probing, "{health:?}");

        server.advance(HOUR);
        let [event] = events_when(&server, "webhook.failing", 1).await.try_into().unwrap();
        assert_eq!((event.actor.as_str(), event.subject.as_str()), ("switchboard", webhook.id.as_str()));
        let data: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!((&data["webhook_id"], &data["name"], &data["failures"]), (&json!(webhook.id), &json!("Accounting"), &json!(3)));
        assert_eq!(data["url"], receiver.url("/"), "without the query");
        assert_eq!(mails(&server, &event, "ops@example.com").await, ["Webhook failing: Accounting"]);
        // The other endpoint is told; the one that fails is not asked to take that it takes nothing.
        let told = receiver.wait_for_on("/watch", 4, SOON).await;
        assert_eq!(told.last().unwrap().json()["event"], "webhook.failing");
        assert_eq!(all_to(&server, &webhook.id).await.len(), 3);

        // It goes on failing, recovers, and fails again: that is told anew, and nothing else is.
        publish(&server, 1).await;
        failures(&server, &webhook.id, 4).await;
        receiver.respond_with("/", Behaviour::Status(200));
        publish(&server, 1).await;
        let well = failures(&server, &webhook.id, 0).await.health.unwrap();
        assert_eq!((well.failing_since, well.last_success_time), (None, Some(now(&server))));
        assert!(!well.last_error.is_empty() && well.last_failure_time.is_some(), "what it last failed for is kept");
        receiver.respond_with("/", Behaviour::Status(500));
        server.advance(HOUR);
        publish(&server, 3).await;
        failures(&server, &webhook.id, 3).await;
        server.advance(HOUR);
        let found = events_when(&server, "webhook.failing", 2).await;
        assert_ne!(found[0].data, found[1].data);
        assert!(get(&server, &webhook.id).await.active);
    }

    async fn who_fails_for_days_is_disabled_and_can_begin_anew(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Status(503));
        server.put_on_list("system_alerts", &["ops@example.com"]).await;
        set(&server.client, json!({"webhook.failing_after_hours": 0, "webhook.disable_after_days": 2})).await;
        let webhook = endpoint(&server, receiver.url("/"), &[]).await;
        publish(&server, 3).await;
        failures(&server, &webhook.id, 3).await;
        // That nothing was sent to it for days says nothing.
        server.advance(2 * DAY);
        publish(&server, 1).await;
        let [event] = events_when(&server, "webhook.disabled", 1).await.try_into().unwrap();
        let disabled = get(&server, &webhook.id).await;
        assert!(!disabled.active && disabled.etag != webhook.etag && disabled.update_time == Some(now(&server)));
        assert!(disabled.disabled_reason.starts_with("all of 4 requests since"), "{}", disabled.disabled_reason);
        let data: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!((&data["reason"], &data["failures"]), (&json!(disabled.disabled_reason), &json!(4)));
        assert_eq!(mails(&server, &event, "ops@example.com").await, ["Webhook disabled: Accounting"]);
        publish(&server, 1).await;
        assert_eq!(all_to(&server, &webhook.id).await.len(), 4, "it gets nothing more");
        assert!(events(&server, "webhook.failing").await.is_empty(), "0 means never");

        receiver.respond_with("/", Behaviour::Status(200));
        let again = activate(&server, &webhook.id).await;
        let health = again.health.unwrap();
        assert_eq!((again.active, again.disabled_reason.as_str(), health.failures), (true, "", 0));
        assert!(health.failing_since.is_none() && health.last_error.is_empty());
        publish(&server, 1).await;
        receiver.wait_for(5, SOON).await;
        when(&server, &webhook.id, "the success is known", |webhook| webhook.health.as_ref().unwrap().last_success_time.is_some()).await;
        events_when(&server, "webhook.disabled", 1).await;
    }

    async fn a_success_in_between_begins_the_days_anew(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Status(503));
        set(&server.client, json!({"webhook.failing_after_hours": 0})).await;
        let webhook = endpoint(&server, receiver.url("/"), &[]).await;
        publish(&server, 3).await;
        failures(&server, &webhook.id, 3).await;
        server.advance(3 * DAY);
        receiver.respond_with("/", Behaviour::Status(200));
        publish(&server, 1).await;
        failures(&server, &webhook.id, 0).await;
        receiver.respond_with("/", Behaviour::Status(503));
        server.advance(HOUR);
        let since = now(&server);
        publish(&server, 3).await;
        failures(&server, &webhook.id, 3).await;
        server.advance(4 * DAY);
        publish(&server, 1).await;
        let found = failures(&server, &webhook.id, 4).await;
        assert_eq!((found.active, found.health.unwrap().failing_since), (true, Some(since)), "a week after the first failure");
        server.advance(DAY);
        publish(&server, 1).await;
        when(&server, &webhook.id, "it is disabled", |webhook| !webhook.active).await;
    }

    async fn who_answers_410_is_disabled_at_once_whatever_the_settings_say(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/gone", Behaviour::Status(410));
        receiver.respond_with("/bad", Behaviour::Status(503));
        set(&server.client, json!({"webhook.failing_after_hours": 0, "webhook.disable_after_days": 0})).await;
        let bad = endpoint(&server, receiver.url("/bad"), &[]).await;
        publish(&server, 3).await;
        failures(&server, &bad.id, 3).await;
        server.advance(100 * DAY);
        publish(&server, 1).await;
        failures(&server, &bad.id, 4).await;

        let gone = endpoint(&server, receiver.url("/gone"), &[60]).await;
        publish(&server, 1).await;
        let [event] = events_when(&server, "webhook.disabled", 1).await.try_into().unwrap();
        assert_eq!(event.subject, gone.id);
        let disabled = get(&server, &gone.id).await;
        assert!(!disabled.active && disabled.disabled_reason.contains("410"), "{disabled:?}");
        until(&server, &gone.id, DeliveryState::Failed, 1).await;
        // What was decided about the one was decided about the other at the same time.
        assert!(get(&server, &bad.id).await.active && events(&server, "webhook.failing").await.is_empty());
        activate(&server, &gone.id).await;
        publish(&server, 1).await;
        events_when(&server, "webhook.disabled", 2).await;
    }

    async fn what_was_decided_is_published_once_even_after_a_crash(server: Server) {
        let webhook = server.webhook("http://127.0.0.1:9/", &["*"]).await.0;
        let notice = r#"INSERT INTO webhook_notices (id, webhook_id, event_type, data) VALUES
            ('webhook.failing/wh_1/5', 'wh_1', 'webhook.failing', '{"webhook_id":"wh_1","name":"lost"}')"#;
        run_sql(&server, notice).await;
        let server = server.restart().await;
        let [event] = events_when(&server, "webhook.failing", 1).await.try_into().unwrap();
        assert_eq!((event.subject.as_str(), event.data.as_str()), ("wh_1", r#"{"webhook_id":"wh_1","name":"lost"}"#));
        assert_eq!(all_to(&server, &webhook.id).await.len(), 1);
        // The process died after the publish and before it could forget. What comes after it shows that it was looked at.
        run_sql(&server, notice).await;
        run_sql(&server, r#"INSERT INTO webhook_notices (id, webhook_id, event_type, data) VALUES
            ('webhook.failing/wh_2/5', 'wh_2', 'webhook.failing', '{"webhook_id":"wh_2"}')"#).await;
        let server = server.restart().await;
        let found = events_when(&server, "webhook.failing", 2).await;
        assert_eq!((found[0].subject.as_str(), &found[1]), ("wh_2", &event));
    }

    async fn an_older_database_gets_the_routes_once(server: Server) {
        let routes = async |server: &Server| {
            let routes = server.client.routes().list_routes(ListRoutesRequest::default()).await.unwrap().into_inner().routes;
            routes.into_iter().filter(|route| route.event_type.starts_with("webhook.")).map(|route| route.name).collect::<Vec<_>>()
        };
        run_sql(&server, "DELETE FROM revisions WHERE name = 'seeded_webhook_health'").await;
        run_sql(&server, "DELETE FROM routes WHERE name = 'Webhooks: failing'").await;
        // Somebody has a route of this name.
        run_sql(&server, "UPDATE routes SET event_type = 'a.b' WHERE name = 'Webhooks: disabled'").await;
        let server = server.restart().await;
        assert_eq!(routes(&server).await, ["Webhooks: failing"]);
        run_sql(&server, "DELETE FROM routes WHERE name = 'Webhooks: failing'").await;
        let server = server.restart().await;
        assert!(routes(&server).await.is_empty(), "what was removed does not come back");
    }

    async fn a_dead_host_is_only_probed_and_gets_everything_once_it_lives(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Status(503));
        let dead = endpoint(&server, receiver.url("/"), &[3_600]).await;
        let well = endpoint(&server, receiver.url("/well"), &[]).await;
        let is_probed = async |probing: bool| {
            when(&server, &dead.id, "it is probed, or not", |webhook| webhook.health.as_ref().unwrap().probing == probing).await;
        };
        let mut published = publish_many(&server.client, "a.b", 9).await;
        failures(&server, &dead.id, 9).await;
        server.advance(Duration::from_secs(6));
        published.extend(publish_many(&server.client, "a.b", 1).await);
        is_probed(true).await;
        eventually("the metrics count it", async || {
            let metrics = get_path(&server, "/metrics").await;
            let text = String::from_utf8_lossy(metrics.body()).into_owned();
            text.contains("switchboard_webhook_open_breakers 1").then_some(())
        })
        .await;

        published.extend(publish_many(&server.client, "a.b", 500).await);
        let waiting = eventually("500 deliveries wait", async || {
            let all = all_to(&server, &dead.id).await;
            all.iter().all(|one| one.state() == DeliveryState::Held).then_some(all)
        })
        .await;
        assert!(waiting.iter().all(|one| one.attempts == 0 && one.last_error.contains("only probes")), "{:?}", waiting[0]);
        receiver.wait_for_on("/well", 510, SOON).await;
        assert_eq!(receiver.received_on("/").len(), 10);

        // One probe after ten seconds and one after twenty more, each with up to a tenth.
        for (wait, total) in [(11, 11), (22, 12)] {
            server.advance(Duration::from_secs(wait));
            failures(&server, &dead.id, total).await;
            assert_eq!(receiver.received_on("/").len(), total as usize);
        }
        receiver.respond_with("/", Behaviour::Status(200));
        server.advance(Duration::from_secs(44));
        receiver.wait_for_on("/", 12 + 498, SOON).await;
        is_probed(false).await;
        // Those that were tried follow their own schedule.
        server.advance(HOUR + HOUR / 10);
        let received = receiver.wait_for_on("/", 12 + 510, SOON).await;
        eventually("all have succeeded", async || {
            let all = all_to(&server, &dead.id).await;
            all.iter().all(|one| one.state() == DeliveryState::Succeeded).then_some(())
        })
        .await;
        let arrived: HashSet<_> = webhook_ids(&received[12..]).into_iter().collect();
        assert_eq!(arrived, published.into_iter().collect());
        let well = get(&server, &well.id).await.health.unwrap();
        assert_eq!((well.failures, well.probing), (0, false));
    }

    async fn another_url_is_not_blamed_for_a_dead_host(server: Server = |config: &mut Config| config.webhooks.concurrency = 1) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Status(503));
        let webhook = endpoint(&server, receiver.url("/"), &[]).await;
        publish(&server, 9).await;
        failures(&server, &webhook.id, 9).await;
        server.advance(Duration::from_secs(6));
        // The first of these fails, and the others are in hand already.
        publish(&server, 5).await;
        when(&server, &webhook.id, "it is probed", |webhook| webhook.health.as_ref().unwrap().probing).await;
        eventually("the others are held", async || {
            let all = all_to(&server, &webhook.id).await;
            let held = |one: &&WebhookDelivery| one.state() == DeliveryState::Held && one.attempts == 0;
            (all.iter().filter(held).count() == 4).then_some(())
        })
        .await;
        assert_eq!(receiver.received().len(), 10);
        let moved = Webhook { id: webhook.id.clone(), url: receiver.url("/new"), ..Default::default() };
        let request = UpdateWebhookRequest { webhook: Some(moved), update_mask: None };
        server.client.webhooks().update_webhook(request).await.unwrap();
        receiver.wait_for_on("/new", 4, SOON).await;
        when(&server, &webhook.id, "it is well", |webhook| webhook.health.as_ref().unwrap().failures == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_nodes_know_together_and_announce_once() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let receiver = Receiver::start().await;
    receiver.respond_with("/", Behaviour::Status(503));
    let webhook = endpoint(&one, receiver.url("/"), &[]).await;
    for node in [&one, &other, &one] {
        publish(node, 3).await;
    }
    failures(&other, &webhook.id, 9).await;
    // A success on one node ends the failures of both.
    receiver.respond_with("/", Behaviour::Status(200));
    publish(&other, 1).await;
    failures(&one, &webhook.id, 0).await;
    receiver.respond_with("/", Behaviour::Status(503));
    one.advance(HOUR);
    publish(&one, 2).await;
    publish(&other, 2).await;
    failures(&one, &webhook.id, 4).await;
    one.advance(HOUR);
    events_when(&one, "webhook.failing", 1).await;
    one.advance(5 * DAY);
    publish(&other, 1).await;
    when(&one, &webhook.id, "it is disabled", |webhook| !webhook.active).await;
    events_when(&one, "webhook.disabled", 1).await;
    // Both have written everything once they have stopped.
    other.stop().await;
    let one = one.restart().await;
    assert_eq!(
        (events(&one, "webhook.failing").await.len(), events(&one, "webhook.disabled").await.len()),
        (1, 1)
    );
    publish(&one, 1).await;
    assert_eq!(all_to(&one, &webhook.id).await.len(), 15);
}
