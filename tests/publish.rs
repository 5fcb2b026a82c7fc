//! Publishing: one event, every channel, one commit.

use std::time::Duration;

use switchboard_client::delivery::v1::{Channel, DeliveryState};
use switchboard_client::event::v1::{BatchPublishEventsRequest, PublishEventRequest};
use tonic::Code;

use crate::harness::receiver::Receiver;
use crate::harness::server::event;
use crate::harness::{SOON, eventually, on_both, status};

const TICKET: &str = r#"{"ticket_id":42,"title":"Pump 3 <stopped>","priority":"critical","created_by":"jo"}"#;

on_both! {
    async fn one_event_reaches_every_channel(server: Server) {
        let receiver = Receiver::start().await;
        let (webhook, _) = server.webhook_to(&receiver, &["ticket.*"]).await;
        server.put_on_list("tickets_all", &["support@example.com"]).await;
        server.put_on_list("tickets_critical", &["Boss <boss@example.com>, second@example.com"]).await;
        let subscribe = switchboard_client::notification::v1::SubscribeRequest::default();
        let mut stream = server.client.notifications().subscribe(subscribe).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().unwrap().opened.is_some());

        let published = server.publish("ticket.created", TICKET).await;

        let frame = stream.message().await.unwrap().unwrap();
        assert_eq!(frame.events.len(), 1);
        assert_eq!((frame.events[0].id.as_str(), frame.events[0].data.as_str()), (published.event_id.as_str(), TICKET));
        assert_eq!(frame.cursor, published.cursor);

        let arrived = receiver.wait_for(1, SOON).await;
        assert_eq!(arrived[0].header("webhook-id"), Some(published.event_id.as_str()));
        let body = arrived[0].json();
        assert_eq!(body["event"], "ticket.created");
        assert_eq!(body["webhook_id"], webhook.id);
        assert_eq!(body["data"]["title"], "Pump 3 <stopped>");

        let outcomes = eventually("every channel ends", async || {
            let outcomes = server.event(&published.event_id).await.outcomes;
            outcomes.iter().all(|outcome| outcome.state() == DeliveryState::Succeeded).then_some(outcomes)
        })
        .await;
        let mut channels: Vec<_> = outcomes.iter().map(|outcome| (outcome.channel(), outcome.destination.as_str())).collect();
        channels.sort();
        assert_eq!(
            channels,
            [
                (Channel::Webhook, receiver.url("/").as_str()),
                (Channel::Email, "Boss <boss@example.com>"),
                (Channel::Email, "second@example.com"),
                (Channel::Email, "support@example.com"),
            ]
        );
        assert!(outcomes.iter().all(|outcome| outcome.attempts == 1 && outcome.last_error.is_empty()));
    }

    async fn a_repeat_with_the_same_request_id_publishes_nothing(server: Server) {
        let stranger = server.client_that_may(&["events:write"]).await;
        let receiver = Receiver::start().await;
        server.webhook_to(&receiver, &["*"]).await;
        let request = PublishEventRequest { request_id: "order-17".into(), ..event("ticket.created", TICKET) };
        let first = server.client.events().publish_event(request.clone()).await.unwrap().into_inner();
        assert!(!first.replayed);
        let again = server.client.events().publish_event(request.clone()).await.unwrap().into_inner();
        assert!(again.replayed);
        assert_eq!((&again.event_id, &again.cursor), (&first.event_id, &first.cursor));

        let other = PublishEventRequest { data: "{}".into(), ..request.clone() };
        let refused = server.client.events().publish_event(other).await.unwrap_err();
        status::expect(&refused, Code::InvalidArgument, "REQUEST_ID_REUSED");

        // Another key has request ids of its own.
        let theirs = stranger.events().publish_event(request).await.unwrap().into_inner();
        assert!(!theirs.replayed);
        assert_eq!(receiver.wait_for(2, SOON).await.len(), 2);
    }

    async fn many_callers_with_one_request_id_get_one_event(server: Server) {
        let request = PublishEventRequest { request_id: "same".into(), ..event("ticket.created", TICKET) };
        let calls = (0..32).map(|_| {
            let (client, request) = (server.client.clone(), request.clone());
            tokio::spawn(async move { client.events().publish_event(request).await.unwrap().into_inner() })
        });
        let mut answers = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            answers.push(call.await.unwrap());
        }
        assert!(answers.iter().all(|answer| answer.event_id == answers[0].event_id && answer.cursor == answers[0].cursor));
        assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    }

    async fn a_batch_is_published_whole_or_not_at_all(server: Server) {
        let receiver = Receiver::start().await;
        server.webhook_to(&receiver, &["batch.*"]).await;
        let requests: Vec<_> = (0..500).map(|n| event("batch.item", &format!(r#"{{"n":{n}}}"#))).collect();
        let request = BatchPublishEventsRequest { requests: requests.clone() };
        let answers = server.client.events().batch_publish_events(request).await.unwrap().into_inner().responses;
        let arrived = receiver.wait_for(500, Duration::from_secs(60)).await;
        let mut sent: Vec<_> = answers.iter().map(|answer| answer.event_id.as_str()).collect();
        let mut got: Vec<_> = arrived.iter().filter_map(|received| received.header("webhook-id")).collect();
        sent.sort_unstable();
        got.sort_unstable();
        assert_eq!(sent, got);

        let mut bad = requests[..3].to_vec();
        bad[1].data = "[]".into();
        bad[2].event_type = "Nope".into();
        let refused = server.client.events().batch_publish_events(BatchPublishEventsRequest { requests: bad }).await;
        status::expect_violations(&refused.unwrap_err(), &["requests[1].data", "requests[2].event_type"]);
        let none = server.client.events().batch_publish_events(BatchPublishEventsRequest::default()).await.unwrap_err();
        status::expect_violations(&none, &["requests"]);
        let list = switchboard_client::event::v1::ListEventsRequest { page_size: 500, ..Default::default() };
        assert_eq!(server.client.events().list_events(list).await.unwrap().into_inner().events.len(), 500);
    }

    async fn events_survive_a_restart_and_can_be_listed(server: Server) {
        for n in 0..5 {
            let request = PublishEventRequest { subject: format!("s{}", n % 2), ..event("a.b", &format!(r#"{{"n":{n}}}"#)) };
            server.client.events().publish_event(request).await.unwrap();
        }
        server.publish("a.c", "{}").await;
        let server = server.restart().await;
        let list = async |types: &[&str], subject: &str| {
            let request = switchboard_client::event::v1::ListEventsRequest {
                event_types: types.iter().map(|&name| name.into()).collect(),
                subject: subject.into(),
                page_size: 2,
                ..Default::default()
            };
            let (mut events, mut token) = (Vec::new(), String::new());
            loop {
                let request = switchboard_client::event::v1::ListEventsRequest { page_token: token, ..request.clone() };
                let page = server.client.events().list_events(request).await.unwrap().into_inner();
                events.extend(page.events.into_iter().map(|event| event.data));
                token = page.next_page_token;
                if token.is_empty() {
                    return events;
                }
            }
        };
        assert_eq!(list(&["a.*"], "").await.len(), 6);
        assert_eq!(list(&["a.b"], "").await.first().map(String::as_str), Some(r#"{"n":4}"#));
        assert_eq!(list(&["a.c", "x.*"], "").await, ["{}"]);
        assert_eq!(list(&[], "s1").await, [r#"{"n":3}"#, r#"{"n":1}"#]);
    }
}
