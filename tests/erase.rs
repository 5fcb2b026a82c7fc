//! Erasing a subject: nothing of it is left anywhere, nothing of another is touched, and nobody who watches stumbles.

use std::time::Duration;

use serde_json::json;
use switchboard_client::Client;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::event::v1::{
    BatchPublishEventsRequest, EraseEventsRequest, EraseEventsResponse, PublishEventRequest,
};
use switchboard_client::notification::v1::{
    CreateSubscriberTokenRequest, ListPresenceRequest, SubscribeRequest,
};
use switchboard_client::settings::v1::ListAuditEntriesRequest;
use tonic::{Code, Status};

use crate::deliveries::all_to;
use crate::emails::{raw, send, wait};
use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::server::{Backend, Server, event};
use crate::harness::{SOON, eventually, on_both, status};
use crate::live::{after, events, subscribe};
use crate::retention::{OF_EMAILS, is_kept, rows};
use crate::settings::{in_database, set};

const EVENTS: [&str; 3] = ["events", "webhook_deliveries", "delivery_attempts"];

async fn try_erase(client: &Client, subject: &str, validate_only: bool) -> Result<[i64; 3], Status> {
    let request = EraseEventsRequest { subject: subject.into(), validate_only };
    let EraseEventsResponse { events, webhook_deliveries, emails, .. } =
        client.events().erase_events(request).await?.into_inner();
    Ok([events, webhook_deliveries, emails])
}

async fn erase(server: &Server, subject: &str) -> [i64; 3] {
    try_erase(&server.client, subject, false).await.unwrap()
}

fn about(subject: &str, event_type: &str, data: &str) -> PublishEventRequest {
    PublishEventRequest { subject: subject.into(), ..event(event_type, data) }
}

async fn publish(client: &Client, request: PublishEventRequest) -> (String, String) {
    let published = client.events().publish_event(request).await.unwrap().into_inner();
    (published.event_id, published.cursor)
}

fn ticket(secret: &str) -> String {
    format!(r#"{{"ticket_id":1,"title":"{secret}","priority":"low","created_by":"jo"}}"#)
}

on_both! {
    async fn nothing_of_the_subject_is_left_and_nothing_of_another_is_touched(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/down", Behaviour::Status(503));
        let (well, _) = server.webhook(&receiver.url("/well"), &["*"]).await;
        let (down, _) = server.webhook(&receiver.url("/down"), &["*"]).await;
        server.put_on_list("tickets_all", &["desk@example.com"]).await;
        let (first, _) = publish(&server.client, about("user:1", "ticket.created", &ticket("about-jo"))).await;
        let (other, _) = publish(&server.client, about("user:12", "ticket.created", &ticket("about-sam"))).await;
        let (second, _) = publish(&server.client, about("user:1", "a.b", r#"{"n":"about-jo"}"#)).await;
        let mail = send(&server, raw("kim@example.com", "No event")).await;
        wait(&server, &mail, DeliveryState::Succeeded, 1).await;
        eventually("all is attempted", async || {
            (rows(&server, &["delivery_attempts", "captured_emails"]).await == 6 + 3 + 3).then_some(())
        }).await;
        let before = rows(&server, &OF_EMAILS).await + rows(&server, &EVENTS).await;

        assert_eq!(try_erase(&server.client, "user:1", true).await.unwrap(), [2, 4, 1]);
        assert_eq!(rows(&server, &OF_EMAILS).await + rows(&server, &EVENTS).await, before, "that was asked, not done");
        assert_eq!(erase(&server, "user:1").await, [2, 4, 1]);
        assert!(!is_kept(&server, &first).await && !is_kept(&server, &second).await && is_kept(&server, &other).await);
        for webhook in [&well, &down] {
            let left = all_to(&server, &webhook.id).await;
            assert!(left.len() == 1 && left[0].event_id == other, "{left:?}");
        }
        assert_eq!(rows(&server, &["events", "webhook_deliveries", "email_queue", "captured_emails"]).await, 1 + 2 + 2 + 2);
        assert_eq!(rows(&server, &["delivery_attempts"]).await, 4);
        assert_eq!(erase(&server, "user:1").await, [0; 3], "a second time there is nothing left");
        let request = ListAuditEntriesRequest { action_prefix: "subject.erase".into(), ..Default::default() };
        let entries = server.client.audit().list_audit_entries(request).await.unwrap().into_inner().entries;
        let told: Vec<_> = entries.iter().map(|entry| entry.resource_id.starts_with("hmac:")).collect();
        assert_eq!(told, [true], "one entry, which does not name the subject: {entries:?}");

        // What was to be sent once more is not; what is another's is.
        server.advance(Duration::from_secs(66));
        receiver.wait_for_on("/down", 4, SOON).await;
        let again = receiver.received_on("/down").pop().unwrap();
        assert_eq!(again.json()["data"]["title"], "about-sam");
        // Stopped, so that everything is in the file.
        let server = server.restart().await;
        assert!(in_database(&server, "about-sam").await);
        assert!(!in_database(&server, "about-jo").await, "not in a free page either");
    }

    async fn what_is_remembered_of_who_was_online_goes_in_the_same_call(server: Server) {
        set(&server.client, json!({"notifications.presence_linger_seconds": 0})).await;
        let come = async |user_id: &str, username: &str| {
            let request = CreateSubscriberTokenRequest { user_id: user_id.into(), username: username.into(), ..Default::default() };
            let token = server.client.notifications().create_subscriber_token(request).await.unwrap().into_inner().token;
            subscribe(&server.client_with(&token).await, SubscribeRequest::default()).await.0
        };
        let online = async || {
            server.client.notifications().list_presence(ListPresenceRequest::default()).await.unwrap().into_inner().users
        };
        let (jo, sam, kim) = (come("jo", "name-of-jo").await, come("sam", "name-of-sam").await, come("kim", "name-of-kim").await);
        eventually("they are online", async || (online().await.len() == 3).then_some(())).await;
        drop((jo, sam));
        eventually("two are gone", async || (online().await.len() == 1).then_some(())).await;
        eventually("and all is told", async || (rows(&server, &["events"]).await == 5).then_some(())).await;
        assert_eq!(rows(&server, &["presence_users"]).await, 3);

        assert_eq!(try_erase(&server.client, "user:jo", true).await.unwrap(), [0; 3]);
        assert_eq!(rows(&server, &["presence_users"]).await, 3, "that was asked, not done");
        erase(&server, "user:jo").await;
        assert_eq!(rows(&server, &["presence_users"]).await, 2);
        assert_eq!(erase(&server, "jo").await, [2, 0, 0], "what was told of their coming and going");
        assert_eq!(erase(&server, "sam").await, [2, 0, 0]);
        assert_eq!(rows(&server, &["presence_users", "presence_nodes"]).await, 1 + 1);
        assert_eq!(erase(&server, "kim").await, [1, 0, 0]);
        let left = online().await;
        assert_eq!((left.len(), left[0].user_id.as_str(), left[0].username.as_str()), (1, "kim", ""), "who is here stays, without a name");
        let request = ListAuditEntriesRequest { action_prefix: "subject.erase".into(), ..Default::default() };
        let entries = server.client.audit().list_audit_entries(request).await.unwrap().into_inner().entries;
        assert_eq!(entries.len(), 4, "each call that removed something: {entries:?}");
        let _jo = come("jo", "name-of-jo").await;
        eventually("they come back as anybody", async || (online().await.len() == 2).then_some(())).await;
        drop(kim);
        eventually("kim goes", async || (online().await.len() == 1).then_some(())).await;
        let server = server.restart().await;
        assert!(!in_database(&server, "name-of-sam").await && !in_database(&server, "name-of-kim").await, "not in a free page either");
    }

    async fn watchers_pass_over_the_holes(server: Server) {
        let (mut live, first) = subscribe(&server.client, SubscribeRequest::default()).await;
        let mut cursors = Vec::new();
        for n in 0..6 {
            let subject = if n % 2 == 0 { "user:1" } else { "user:2" };
            cursors.push(publish(&server.client, about(subject, "a.b", &format!(r#"{{"n":{n}}}"#))).await.1);
        }
        assert_eq!(events(&mut live, 6).await.len(), 6);
        assert_eq!(erase(&server, "user:1").await, [3, 0, 0]);
        let kept = [1, 3, 5].map(|n| format!(r#"{{"n":{n}}}"#));
        for (cursor, expected) in [(&first.cursor, &kept[..]), (&cursors[0], &kept[..]), (&cursors[2], &kept[1..])] {
            let (mut stream, opened) = subscribe(&server.client, after(cursor)).await;
            assert!(opened.resync.is_none() && opened.opened.unwrap().resumed, "a hole is no gap");
            assert_eq!(events(&mut stream, expected.len()).await, expected);
        }
        let newest = publish(&server.client, about("user:1", "a.b", r#"{"n":6}"#)).await.1;
        assert_eq!(events(&mut live, 1).await, [r#"{"n":6}"#], "who watched goes on watching");
        assert_eq!(erase(&server, "user:1").await, [1, 0, 0]);
        let (mut stream, opened) = subscribe(&server.client, after(&newest)).await;
        assert!(opened.resync.is_none());
        publish(&server.client, about("user:2", "a.b", r#"{"n":7}"#)).await;
        assert_eq!(events(&mut stream, 1).await, [r#"{"n":7}"#]);
        assert_eq!(events(&mut live, 1).await, [r#"{"n":7}"#]);
    }

    async fn many_events_are_erased_in_many_transactions_beside_publishes(server: Server) {
        let receiver = Receiver::start().await;
        set(&server.client, json!({"webhook.hourly_limit": 0})).await;
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        for _ in 0..3 {
            let requests = (0..400).map(|n| about(if n % 4 == 0 { "user:2" } else { "user:1" }, "a.b", "{}")).collect();
            server.client.events().batch_publish_events(BatchPublishEventsRequest { requests }).await.unwrap();
        }
        let publishing = {
            let client = server.client.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    publish(&client, about("user:3", "a.b", "{}")).await;
                }
            })
        };
        assert_eq!(erase(&server, "user:1").await, [900, 900, 0]);
        publishing.await.unwrap();
        assert_eq!(rows(&server, &["events", "webhook_deliveries"]).await, 2 * 350);
        let settled = async || {
            let waits = "(SELECT 1 FROM webhook_deliveries WHERE status <> 'success') AS w";
            (rows(&server, &[waits]).await == 0).then_some(())
        };
        eventually("the others are delivered", settled).await;
        assert_eq!(rows(&server, &["delivery_attempts"]).await, 350, "no attempt is left of what is gone");
        assert_eq!(all_to(&server, &webhook.id).await.len(), 350);
    }

    async fn who_may_not_erase_and_what_can_not_be_erased(server: Server) {
        publish(&server.client, about("user:1", "a.b", "{}")).await;
        for scope in ["events:write", "admin:write", "events:admin"] {
            let client = server.client_that_may(&[scope]).await;
            let refused = try_erase(&client, "user:1", false).await.unwrap_err();
            status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");
        }
        for subject in ["", &"x".repeat(257), "a\nb"] {
            let refused = try_erase(&server.client, subject, true).await.unwrap_err();
            status::expect_violations(&refused, &["subject"]);
        }
        assert_eq!(rows(&server, &["(SELECT 1 FROM events WHERE subject = 'user:1') AS e"]).await, 1);
        let client = server.client_that_may(&["events:erase"]).await;
        assert_eq!(try_erase(&client, "user:1", false).await.unwrap(), [1, 0, 0]);
    }
}

/// What one node erases, another one forgets too, and its subscribers go on, also when it had never seen the events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_nodes_forget_what_was_erased() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    let (mut live, first) = subscribe(&other.client, SubscribeRequest::default()).await;
    for n in 0..4 {
        let subject = if n % 2 == 0 { "user:1" } else { "user:2" };
        publish(&one.client, about(subject, "a.b", &format!(r#"{{"n":{n}}}"#))).await;
    }
    assert_eq!(events(&mut live, 4).await.len(), 4);
    assert_eq!(erase(&one, "user:1").await, [2, 0, 0]);
    let kept = [r#"{"n":1}"#, r#"{"n":3}"#];
    eventually("the other node has forgotten", async || {
        let (mut stream, opened) = subscribe(&other.client, after(&first.cursor)).await;
        assert!(opened.resync.is_none());
        (events(&mut stream, 2).await == kept).then_some(())
    })
    .await;
    for _ in 0..5 {
        publish(&one.client, about("user:1", "a.b", r#"{"n":4}"#)).await;
        erase(&one, "user:1").await;
    }
    publish(&one.client, about("user:2", "a.b", r#"{"n":5}"#)).await;
    while events(&mut live, 1).await.pop().unwrap() != r#"{"n":5}"# {}
}
