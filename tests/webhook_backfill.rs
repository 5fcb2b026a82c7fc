//! Events from before: an endpoint gets what it missed, each event once.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use switchboard::clock::{Clock, Timestamp};
use switchboard_client::event::v1::BatchPublishEventsRequest;
use switchboard_client::webhook::v1::{
    CreateWebhookRequest, ListWebhookDeliveriesRequest, ReplayWebhookEventsRequest,
    ReplayWebhookEventsResponse, UpdateWebhookRequest, Webhook, WebhookDelivery, WebhookDeliveryMode,
};
use tonic::{Code, Status};

use crate::harness::receiver::Receiver;
use crate::harness::server::{Server, event};
use crate::harness::{SOON, on_both, status};

const HOUR: Duration = Duration::from_secs(3_600);

fn wire(time: Timestamp) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: time.seconds(), nanos: time.nanos_of_second() })
}

/// All of the last hour.
fn last_hour(server: &Server, id: &str) -> ReplayWebhookEventsRequest {
    let created_after = wire(server.clock.now() - HOUR);
    ReplayWebhookEventsRequest { webhook_id: id.into(), created_after, ..Default::default() }
}

async fn try_replay(
    server: &Server,
    request: ReplayWebhookEventsRequest,
) -> Result<ReplayWebhookEventsResponse, Status> {
    Ok(server.client.webhooks().replay_webhook_events(request).await?.into_inner())
}

async fn replay(server: &Server, request: ReplayWebhookEventsRequest) -> i64 {
    let answer = try_replay(server, request).await.unwrap();
    assert_eq!(answer.next_page_token, "");
    answer.count
}

async fn deliveries_to(server: &Server, id: &str) -> Vec<WebhookDelivery> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListWebhookDeliveriesRequest {
            webhook_id: id.into(),
            page_size: 500,
            page_token,
            ..Default::default()
        };
        let page = server.client.webhooks().list_webhook_deliveries(request).await.unwrap().into_inner();
        all.extend(page.deliveries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

async fn publish_batch(server: &Server, types: impl Iterator<Item = &'static str>) {
    let requests = types.map(|event_type| event(event_type, "{}")).collect();
    server.client.events().batch_publish_events(BatchPublishEventsRequest { requests }).await.unwrap();
}

on_both! {
    async fn a_new_endpoint_gets_the_history_once(server: Server) {
        let receiver = Receiver::start().await;
        for (n, event_type) in ["ticket.created", "other", "ticket.a.b", "ticket", "user.login"].into_iter().enumerate() {
            server.publish(event_type, &format!(r#"{{ "n": {n}.0 }}"#)).await;
        }
        let (webhook, _) = server.webhook_to(&receiver, &["ticket.*", "user.login"]).await;
        server.publish("ticket.closed", r#"{ "n": 5.0 }"#).await;
        receiver.wait_for(1, SOON).await;

        assert_eq!(replay(&server, last_hour(&server, &webhook.id)).await, 3);
        let arrived = receiver.wait_for(4, SOON).await;
        let bodies: HashSet<_> = arrived.iter().map(|request| String::from_utf8(request.body.to_vec()).unwrap()).collect();
        for n in [0, 2, 4, 5] {
            let wanted = format!(r#""data":{{ "n": {n}.0 }}"#);
            assert!(bodies.iter().any(|body| body.contains(&wanted)), "{wanted} is not in {bodies:?}");
        }
        assert_eq!(replay(&server, last_hour(&server, &webhook.id)).await, 0, "each has its delivery now");
        server.publish("ticket.closed", "{}").await;
        receiver.wait_for(5, SOON).await;
        assert_eq!(replay(&server, last_hour(&server, &webhook.id)).await, 0);
        assert_eq!(deliveries_to(&server, &webhook.id).await.len(), 5);
    }

    async fn only_what_was_accepted_within_the_time(server: Server) {
        let receiver = Receiver::start().await;
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(server.publish("a", "{}").await.event_id);
            server.advance(HOUR);
        }
        let start = server.clock.now() - 4 * HOUR;
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        let within = |after, before| ReplayWebhookEventsRequest {
            webhook_id: webhook.id.clone(),
            created_after: wire(after),
            created_before: wire(before),
            page_token: String::new(),
        };
        let tick = Duration::from_micros(1);
        assert_eq!(replay(&server, within(start + tick, start + HOUR)).await, 0);
        assert_eq!(replay(&server, within(start + HOUR, start + 2 * HOUR + tick)).await, 2);
        let made: HashSet<_> = deliveries_to(&server, &webhook.id).await.into_iter().map(|made| made.event_id).collect();
        assert_eq!(made, HashSet::from([ids[1].clone(), ids[2].clone()]));
        assert_eq!(replay(&server, within(start + 24 * HOUR, start + 48 * HOUR)).await, 0, "nothing is from the future");
        assert_eq!(replay(&server, within(Timestamp::from_micros(0), start + 1_000_000 * HOUR)).await, 2);
    }

    async fn two_at_once_make_each_delivery_once(server: Server) {
        for _ in 0..3 {
            publish_batch(&server, std::iter::repeat_n("a", 400)).await;
        }
        let receiver = Receiver::start().await;
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        let calls = (0..4).map(|_| replay(&server, last_hour(&server, &webhook.id)));
        let counts = join_all(calls).await;
        assert_eq!(counts.iter().sum::<i64>(), 1_200, "{counts:?}");
        let deliveries = deliveries_to(&server, &webhook.id).await;
        let events: HashSet<_> = deliveries.iter().map(|delivery| &delivery.event_id).collect();
        assert_eq!((deliveries.len(), events.len()), (1_200, 1_200));
    }

    async fn a_long_history_takes_several_calls(server: Server) {
        for _ in 0..42 {
            publish_batch(&server, std::iter::once("rare").chain(std::iter::repeat_n("common", 249))).await;
        }
        let receiver = Receiver::start().await;
        let (webhook, _) = server.webhook_to(&receiver, &["rare"]).await;
        let request = last_hour(&server, &webhook.id);
        let first = try_replay(&server, request.clone()).await.unwrap();
        assert_eq!(first.count, 40);
        let page_token = first.next_page_token;
        let other = ReplayWebhookEventsRequest { created_before: request.created_after, ..request.clone() };
        let refused = try_replay(&server, ReplayWebhookEventsRequest { page_token: page_token.clone(), ..other }).await;
        status::expect_violations(&refused.unwrap_err(), &["page_token"]);
        assert_eq!(replay(&server, ReplayWebhookEventsRequest { page_token, ..request }).await, 2);
        receiver.wait_for(42, SOON).await;
    }

    async fn what_can_not_be_made_is_refused(server: Server) {
        let receiver = Receiver::start().await;
        server.publish("a", "{}").await;
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        let request = last_hour(&server, &webhook.id);
        let without = ReplayWebhookEventsRequest { created_after: None, ..request.clone() };
        status::expect_violations(&try_replay(&server, without).await.unwrap_err(), &["created_after"]);
        let backwards = ReplayWebhookEventsRequest { created_before: request.created_after, ..request.clone() };
        status::expect_violations(&try_replay(&server, backwards).await.unwrap_err(), &["created_before"]);
        let token = ReplayWebhookEventsRequest { page_token: "none".into(), ..request.clone() };
        status::expect_violations(&try_replay(&server, token).await.unwrap_err(), &["page_token"]);
        let nobody = ReplayWebhookEventsRequest { webhook_id: "wh_none".into(), ..request.clone() };
        status::expect(&try_replay(&server, nobody).await.unwrap_err(), Code::NotFound, "NOT_FOUND");

        let update = UpdateWebhookRequest {
            webhook: Some(Webhook { id: webhook.id.clone(), active: false, ..Default::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["active".into()] }),
        };
        server.client.webhooks().update_webhook(update).await.unwrap();
        let refused = try_replay(&server, request.clone()).await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "WEBHOOK_INACTIVE");

        let pulled = Webhook {
            name: "pulled".into(),
            event_types: vec!["*".into()],
            delivery_mode: WebhookDeliveryMode::Pulled.into(),
            ..Default::default()
        };
        let create = CreateWebhookRequest { webhook: Some(pulled), ..Default::default() };
        let pulled = server.client.webhooks().create_webhook(create).await.unwrap().into_inner().webhook.unwrap();
        let refused = try_replay(&server, last_hour(&server, &pulled.id)).await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "WEBHOOK_PULLED");
        assert!(deliveries_to(&server, &webhook.id).await.is_empty());
    }
}
