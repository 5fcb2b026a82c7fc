//! Routes to inboxes: an event of the application's becomes a notification for those whom it concerns.

use prost_types::FieldMask;
use switchboard::rpc::convert::json as to_json;
use switchboard_client::event::v1::route::Target;
use switchboard_client::event::v1::{
    CreateRouteRequest, EmailTarget, InboxTarget, PublishEventRequest, Route, TestRouteRequest,
    UpdateRouteRequest, email_target::Recipients,
};
use switchboard_client::notification::v1::{
    NotificationContent, NotificationPriority, SendNotificationRequest,
};
use tonic::Status;

use crate::harness::server::{Server, event};
use crate::harness::{on_both, status};
use crate::inbox::{broadcast, list, messages, waiting};
use crate::live::{next, subscribe};
use crate::retention::rows;

const TICKET: &str = r#"{"ticket_id":42,"title":"Pump <3>","priority":"critical","created_by":"jo","assignee":"sam","watchers":["kim","jo",7,"a b",null]}"#;

fn inbox(user_ids: &[&str], user_field: &str) -> InboxTarget {
    InboxTarget {
        user_ids: user_ids.iter().map(|&user_id| user_id.into()).collect(),
        user_field: user_field.into(),
        category: "tickets".into(),
        title: "Ticket {{ ticket_id }}".into(),
        message: "{{ data.title }} by {{ data.created_by|upper }}{{ data.nothing }}".into(),
        priority: "{{ data.priority }}".into(),
        action_url: "/tickets/{{ ticket_id }}".into(),
    }
}

async fn create(
    server: &Server,
    name: &str,
    condition: &str,
    target: Option<Target>,
) -> Result<Route, Status> {
    let (name, condition) = (name.into(), condition.into());
    let route = Route { name, event_type: "ticket.*".into(), condition, target, ..Default::default() };
    let request = CreateRouteRequest { route: Some(route), inactive: false };
    Ok(server.client.routes().create_route(request).await?.into_inner().route.unwrap())
}

on_both! {
    async fn an_event_becomes_a_notification_for_those_it_concerns(server: Server) {
        let field = create(&server, "Watchers", "data.priority == 'critical'", Some(Target::Inbox(inbox(&["max"], "watchers")))).await.unwrap();
        create(&server, "Assignee", "", Some(Target::Inbox(inbox(&[], "assignee")))).await.unwrap();
        let (mut stream, _) = subscribe(&server.client, Default::default()).await;
        let request = PublishEventRequest { subject: "ticket:42".into(), ..event("ticket.created", TICKET) };
        server.client.events().publish_event(request).await.unwrap();
        for user_id in ["kim", "jo", "7", "max", "sam"] {
            let listed = list(&server.client, user_id).await;
            assert_eq!(messages(&listed), ["Pump <3> by JO"], "{user_id}");
            let content = listed.notifications[0].content.clone().unwrap();
            assert_eq!((content.title.as_str(), content.category.as_str(), content.action_url.as_str(), content.priority()),
                ("Ticket 42", "tickets", "/tickets/42", NotificationPriority::Critical));
            let event = server.event(&listed.notifications[0].event_id).await.event.unwrap();
            assert_eq!((event.event_type.as_str(), event.subject.as_str(), event.topic), ("notification", "ticket:42", format!("user:{user_id}")));
        }
        let mut kinds = Vec::new();
        while kinds.len() < 6 {
            let events = next(&mut stream).await.events.into_iter().filter(|event| !event.cursor.is_empty());
            kinds.extend(events.map(|event| event.event_type));
        }
        assert_eq!((kinds[0].as_str(), kinds[1..].iter().all(|kind| kind == "notification")), ("ticket.created", true));

        server.publish("ticket.updated", r#"{"priority":"low","assignee":"eve"}"#).await;
        assert_eq!((waiting(&server.client, "max").await, waiting(&server.client, "eve").await), ((1, 1), (1, 1)));
        // A route that takes everything is not answered by what it brings.
        let all = Route { name: "All".into(), event_type: "*".into(), target: Some(Target::Inbox(inbox(&["boss"], ""))), ..Default::default() };
        server.client.routes().create_route(CreateRouteRequest { route: Some(all), inactive: false }).await.unwrap();
        server.publish("ticket.created", TICKET).await;
        assert_eq!(waiting(&server.client, "boss").await, (1, 1));

        // To the same people by mail instead.
        let email = EmailTarget { template: "system_alert".into(), recipients: Some(Recipients::RecipientList("system_alerts".into())), ..Default::default() };
        let changed = Route { id: field.id.clone(), target: Some(Target::Email(email)), ..Default::default() };
        let request = UpdateRouteRequest { route: Some(changed), update_mask: None };
        let route = server.client.routes().update_route(request).await.unwrap().into_inner().route.unwrap();
        assert!(matches!(route.target, Some(Target::Email(_))) && route.condition == field.condition);
        server.publish("ticket.created", TICKET).await;
        assert_eq!(waiting(&server.client, "max").await, (2, 2), "before that, and no more");
        let none = Route { id: field.id, ..Default::default() };
        let request = UpdateRouteRequest { route: Some(none), update_mask: Some(FieldMask { paths: vec!["inbox".into()] }) };
        status::expect_violations(&server.client.routes().update_route(request).await.unwrap_err(), &["route.inbox"]);
    }

    async fn critical_notifications_of_single_users_are_no_alerts(server: Server) {
        server.put_on_list("system_alerts", &["ops@example.com"]).await;
        let critical = |message: &str| NotificationContent {
            message: message.into(),
            priority: NotificationPriority::Critical.into(),
            ..Default::default()
        };
        let request = SendNotificationRequest {
            user_ids: vec!["jo".into(), "sam".into()],
            content: Some(critical("Yours alone")),
            ..Default::default()
        };
        server.client.notifications().send_notification(request).await.unwrap();
        broadcast(&server, critical("For everybody")).await;
        server.publish("notification", r#"{"message":"Of the application","priority":"critical"}"#).await;
        assert_eq!((waiting(&server.client, "jo").await, rows(&server, &["email_queue"]).await), ((2, 2), 2), "a mail for each of the last two");
    }

    async fn a_trial_says_what_would_be_told_to_whom(server: Server) {
        let route = create(&server, "Watchers", "data.priority == 'critical'", Some(Target::Inbox(inbox(&["max"], "watchers")))).await.unwrap();
        let trial = async |data: &str| {
            let request = TestRouteRequest { route_id: route.id.clone(), event: Some(event("ticket.created", data)) };
            server.client.routes().test_route(request).await.unwrap().into_inner()
        };
        let good = trial(TICKET).await;
        assert!(good.matched && good.explanation.is_empty(), "{good:?}");
        assert_eq!(good.recipients, ["7", "jo", "kim", "max"]);
        let variables = to_json(good.variables.unwrap());
        assert_eq!((&variables["message"], &variables["priority"]), (&"Pump <3> by JO".into(), &"critical".into()));
        let no = trial(r#"{"priority":"low"}"#).await;
        assert!(!no.matched && no.explanation.contains("condition"), "{no:?}");
        assert_eq!(waiting(&server.client, "max").await, (0, 0), "that was tried, not done");
    }

    async fn bad_targets_are_refused_with_all_that_is_wrong(server: Server) {
        let bad = InboxTarget {
            user_ids: vec!["a b".into()],
            user_field: "a b".into(),
            category: "Bad".into(),
            title: "{{ data. }}".into(),
            message: " ".into(),
            priority: "{% if %}".into(),
            action_url: "{{".into(),
        };
        let refused = create(&server, "Bad", "", Some(Target::Inbox(bad))).await.unwrap_err();
        status::expect_violations(&refused, &[
            "route.inbox.user_ids[0]", "route.inbox.user_field", "route.inbox.message", "route.inbox.title",
            "route.inbox.priority", "route.inbox.action_url", "route.inbox.category",
        ]);
        let refused = create(&server, "Nobody", "", Some(Target::Inbox(InboxTarget { message: "a".into(), ..Default::default() }))).await.unwrap_err();
        status::expect_violations(&refused, &["route.inbox.user_ids"]);
        status::expect_violations(&create(&server, "Nowhere", "", None).await.unwrap_err(), &["route.target"]);
    }
}
