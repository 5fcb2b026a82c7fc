//! Routes, recipient lists and event types: which events become whose mails.

use std::collections::HashMap;

use prost_types::FieldMask;
use serde_json::{Value, json};
use switchboard::rpc::convert::json as to_json;
use switchboard_client::delivery::v1::{Channel, DeliveryState};
use switchboard_client::email::v1::{
    CreateRecipientListRequest, DeleteRecipientListRequest, GetRecipientListRequest,
    ListRecipientListsRequest, RecipientList, UpdateRecipientListRequest,
};
use switchboard_client::event::v1::{
    CreateEventTypeRequest, CreateRouteRequest, DeleteEventTypeRequest, DeleteRouteRequest, EmailTarget,
    EventField, EventOutcome, EventType, GetRouteRequest, ListEventTypesRequest, ListRoutesRequest, Route,
    TestRouteRequest, TestRouteResponse, UpdateEventTypeRequest, UpdateRouteRequest,
    email_target::Recipients, route::Target,
};
use tonic::{Code, Status};

use crate::harness::server::{Backend, Server, event};
use crate::harness::{eventually, on_both, status};
use crate::settings::set;

const ALERT: [(&str, &str); 3] =
    [("title", "data.title"), ("message", "data.text or 'nothing'"), ("severity", "'info'")];

fn email(template: &str, recipients: Recipients, variables: &[(&str, &str)]) -> Option<Target> {
    let variables: HashMap<_, _> =
        variables.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect();
    Some(Target::Email(EmailTarget { template: template.into(), recipients: Some(recipients), variables }))
}

fn to_list(name: &str) -> Recipients {
    Recipients::RecipientList(name.into())
}

fn to_field(path: &str) -> Recipients {
    Recipients::RecipientField(path.into())
}

/// A route that sends an alert.
fn alert(name: &str, event_type: &str, condition: &str, recipients: Recipients) -> Route {
    let target = email("system_alert", recipients, &ALERT);
    let (name, event_type, condition) = (name.into(), event_type.into(), condition.into());
    Route { name, event_type, condition, target, ..Default::default() }
}

async fn try_create(server: &Server, route: Route) -> Result<Route, Status> {
    let request = CreateRouteRequest { route: Some(route), inactive: false };
    Ok(server.client.routes().create_route(request).await?.into_inner().route.unwrap())
}

async fn create(server: &Server, route: Route) -> Route {
    try_create(server, route).await.unwrap()
}

async fn update(server: &Server, route: Route, paths: &[&str]) -> Result<Route, Status> {
    let paths = paths.iter().map(|&path| path.into()).collect();
    let request = UpdateRouteRequest { route: Some(route), update_mask: Some(FieldMask { paths }) };
    Ok(server.client.routes().update_route(request).await?.into_inner().route.unwrap())
}

async fn delete(server: &Server, route_id: &str) {
    let request = DeleteRouteRequest { route_id: route_id.into() };
    server.client.routes().delete_route(request).await.unwrap();
}

/// What a route would do.
async fn test(server: &Server, route: &Route, event_type: &str, data: Value) -> TestRouteResponse {
    let event = Some(event(event_type, &data.to_string()));
    let request = TestRouteRequest { route_id: route.id.clone(), event };
    server.client.routes().test_route(request).await.unwrap().into_inner()
}

/// Publishes, and answers the mails that came of it, as pairs of route and address, once all have ended.
async fn mails(server: &Server, event_type: &str, data: Value) -> Vec<(String, String)> {
    let outcomes = outcomes(server, event_type, data).await;
    assert!(outcomes.iter().all(|outcome| outcome.state() == DeliveryState::Succeeded), "{outcomes:?}");
    outcomes.into_iter().map(|outcome| (outcome.source_id, outcome.destination)).collect()
}

async fn outcomes(server: &Server, event_type: &str, data: Value) -> Vec<EventOutcome> {
    let published = server.publish(event_type, &data.to_string()).await;
    eventually("every mail has ended", async || {
        let outcomes = server.event(&published.event_id).await.outcomes;
        let ended = |outcome: &EventOutcome| {
            matches!(outcome.state(), DeliveryState::Succeeded | DeliveryState::Failed)
        };
        outcomes.iter().all(ended).then_some(outcomes)
    })
    .await
}

fn list(name: &str, addresses: &[&str]) -> RecipientList {
    let addresses = addresses.iter().map(|&address| address.into()).collect();
    RecipientList { name: name.into(), addresses, ..Default::default() }
}

async fn create_list(server: &Server, list: RecipientList) -> Result<RecipientList, Status> {
    let request = CreateRecipientListRequest { recipient_list: Some(list) };
    Ok(server
        .client
        .recipient_lists()
        .create_recipient_list(request)
        .await?
        .into_inner()
        .recipient_list
        .unwrap())
}

async fn delete_list(server: &Server, name: &str) -> Result<(), Status> {
    let request = DeleteRecipientListRequest { name: name.into() };
    server.client.recipient_lists().delete_recipient_list(request).await.map(drop)
}

async fn create_type(server: &Server, event_type: EventType) -> Result<EventType, Status> {
    let request = CreateEventTypeRequest { event_type: Some(event_type) };
    Ok(server.client.events().create_event_type(request).await?.into_inner().event_type.unwrap())
}

async fn try_publish(server: &Server, event_type: &str, data: &str) -> Result<(), Status> {
    server.client.events().publish_event(event(event_type, data)).await.map(drop)
}

on_both! {
    async fn a_new_database_has_the_default_routes_and_lists(server: Server) {
        let routes = server.client.routes().list_routes(ListRoutesRequest::default()).await.unwrap().into_inner().routes;
        let found: Vec<_> = routes.iter().map(|route| (route.name.as_str(), route.event_type.as_str())).collect();
        assert_eq!(found, [
            ("Tickets: all", "ticket.created"),
            ("Tickets: critical", "ticket.created"),
            ("Tickets: updates", "ticket.updated"),
            ("Low stock", "inventory.low_stock"),
            ("Users: welcome", "user.created"),
            ("Users: tell the team", "user.created"),
            ("System alerts", "notification"),
            ("Registrations: welcome", "user.registered"),
            ("Applications: status", "application.status_changed"),
            ("Webhooks: failing", "webhook.failing"),
            ("Webhooks: disabled", "webhook.disabled"),
        ]);
        assert!(routes.iter().all(|route| route.active && route.id.starts_with("rt_") && !route.etag.is_empty()));
        let lists = server.client.recipient_lists().list_recipient_lists(ListRecipientListsRequest::default()).await;
        let lists = lists.unwrap().into_inner().recipient_lists;
        let names: Vec<_> = lists.iter().map(|list| list.name.as_str()).collect();
        assert_eq!(names, ["low_stock", "system_alerts", "tickets_all", "tickets_critical", "user_created"]);
        assert!(lists.iter().all(|list| list.addresses.is_empty() && !list.description.is_empty()));

        // Every default route makes a good mail of the sample of its event type.
        let types = server.client.events().list_event_types(ListEventTypesRequest::default()).await.unwrap().into_inner().event_types;
        for list in &lists {
            server.put_on_list(&list.name, &["jo@example.com"]).await;
        }
        for route in &routes {
            let kind = types.iter().find(|kind| kind.name == route.event_type).unwrap();
            let mut sample: Value = serde_json::from_str(&kind.sample).unwrap();
            sample["priority"] = "critical".into();
            let trial = test(&server, route, &kind.name, sample).await;
            assert!(trial.matched && trial.explanation.is_empty() && trial.recipients.len() == 1, "{}: {trial:?}", route.name);
        }
        // What was changed or removed does not come back.
        delete(&server, &routes[0].id).await;
        let server = server.restart().await;
        let left = server.client.routes().list_routes(ListRoutesRequest::default()).await.unwrap().into_inner().routes;
        assert_eq!(left.len(), 10);
    }

    async fn a_route_is_made_changed_and_removed(server: Server) {
        create_list(&server, list("night_shift", &["nia@example.com"])).await.unwrap();
        let route = create(&server, alert("Doors", "door.opened", "data.door > 3", to_list("night_shift"))).await;
        assert!(route.active && route.id.starts_with("rt_") && route.create_time.is_some(), "{route:?}");
        let get = async || {
            let request = GetRouteRequest { route_id: route.id.clone() };
            Ok::<_, Status>(server.client.routes().get_route(request).await?.into_inner().route.unwrap())
        };
        assert_eq!(get().await.unwrap(), route);
        let nia = vec![(route.id.clone(), "nia@example.com".to_owned())];
        assert_eq!(mails(&server, "door.opened", json!({"door": 4, "title": "Door"})).await, nia);
        assert_eq!(mails(&server, "door.opened", json!({"door": 3, "title": "Door"})).await, []);
        assert_eq!(mails(&server, "door.opened", json!({"title": "Door"})).await, [], "what is missing makes it false");

        let changed = Route { condition: "data.door == 3".into(), name: "ignored".into(), ..route.clone() };
        let changed = update(&server, changed, &["condition"]).await.unwrap();
        assert_eq!((changed.name.as_str(), changed.condition.as_str()), ("Doors", "data.door == 3"));
        assert_ne!(changed.etag, route.etag);
        assert_eq!(mails(&server, "door.opened", json!({"door": 3, "title": "Door"})).await, nia);
        let late = update(&server, Route { active: false, ..route.clone() }, &["active"]).await.unwrap_err();
        status::expect(&late, Code::Aborted, "ETAG_MISMATCH");
        let off = update(&server, Route { active: false, ..changed }, &["active"]).await.unwrap();
        assert_eq!(mails(&server, "door.opened", json!({"door": 3, "title": "Door"})).await, [], "it is not active");
        let trial = test(&server, &off, "door.opened", json!({"door": 3, "title": "Door"})).await;
        assert_eq!((trial.matched, trial.explanation.as_str()), (true, "the route is not active"));
        delete(&server, &route.id).await;
        status::expect(&get().await.unwrap_err(), Code::NotFound, "NOT_FOUND");
    }

    async fn a_wildcard_takes_all_below_a_word(server: Server) {
        create_list(&server, list("wide", &["wide@example.com"])).await.unwrap();
        create_list(&server, list("all", &["all@example.com"])).await.unwrap();
        create(&server, alert("Wide", "line.*", "actor != 'robot'", to_list("wide"))).await;
        create(&server, alert("All", "*", "", to_list("all"))).await;
        let to = async |event_type: &str| {
            let mails = mails(&server, event_type, json!({"title": "x"})).await;
            mails.into_iter().map(|(_, address)| address).collect::<Vec<_>>()
        };
        assert_eq!(to("line.stopped").await, ["wide@example.com", "all@example.com"]);
        assert_eq!(to("line.belt.slow").await, ["wide@example.com", "all@example.com"]);
        assert_eq!(to("lines.stopped").await, ["all@example.com"]);
        assert_eq!(to("line").await, ["all@example.com"]);
    }

    async fn an_address_can_come_from_the_event(server: Server) {
        let route = create(&server, alert("Theirs", "order.sent", "", to_field("customer.email"))).await;
        let data = json!({"title": "Sent", "customer": {"email": "Kim Roe <kim@example.com>"}});
        let [(source, destination)] = mails(&server, "order.sent", data).await.try_into().unwrap();
        assert_eq!((source, destination.as_str()), (route.id.clone(), "Kim Roe <kim@example.com>"));

        for data in [json!({"title": "Sent"}), json!({"title": "Sent", "customer": {"email": "nobody"}}), json!({"title": "x", "customer": [1]})] {
            let [lost] = outcomes(&server, "order.sent", data.clone()).await.try_into().unwrap();
            assert_eq!((lost.channel(), lost.state(), &lost.source_id), (Channel::Email, DeliveryState::Failed, &route.id), "{data}");
            assert!(lost.last_error.contains("no mail address"), "{data}: {}", lost.last_error);
            let trial = test(&server, &route, "order.sent", data).await;
            assert!(trial.matched && trial.recipients.is_empty() && trial.explanation.contains("no address"), "{trial:?}");
        }
        // A mail that its template can not make fails as visibly.
        let data = json!({"customer": {"email": "kim@example.com"}});
        let [lost] = outcomes(&server, "order.sent", data).await.try_into().unwrap();
        assert!(lost.state() == DeliveryState::Failed && lost.last_error.contains("title"), "{lost:?}");
    }

    async fn a_route_can_be_tried(server: Server) {
        server.put_on_list("low_stock", &["a@example.com", "B <b@example.com>"]).await;
        let route = create(&server, alert("Try", "a.*", "data.n > 1", to_list("low_stock"))).await;
        let trial = test(&server, &route, "a.b", json!({"n": 2, "title": "T", "extra": [1]})).await;
        assert_eq!((trial.matched, trial.explanation.as_str()), (true, ""));
        assert_eq!(trial.recipients, ["a@example.com", "B <b@example.com>"]);
        let variables = to_json(trial.variables.unwrap());
        let expected = json!({"n": 2, "title": "T", "extra": [1], "message": "nothing", "severity": "info"});
        assert_eq!(Value::Object(variables), expected);
        let trial = test(&server, &route, "b.b", json!({})).await;
        assert_eq!((trial.matched, trial.explanation.as_str()), (false, "the route takes a.*, and the event is b.b"));
        let trial = test(&server, &route, "a.b", json!({"n": 1})).await;
        assert_eq!((trial.matched, trial.explanation.as_str()), (false, "the condition is not true: data.n > 1"));
        let trial = test(&server, &route, "a.b", json!({"n": 2})).await;
        assert!(trial.matched && trial.explanation.contains("title"), "{trial:?}");
        let bad = TestRouteRequest { route_id: route.id.clone(), event: Some(event("A", "{")) };
        let refused = server.client.routes().test_route(bad).await.unwrap_err();
        status::expect_violations(&refused, &["event.event_type", "event.data"]);
        assert_eq!(server.client.events().list_events(switchboard_client::event::v1::ListEventsRequest::default()).await.unwrap().into_inner().events, []);
    }

    async fn everything_wrong_with_a_route_is_told_at_once(server: Server) {
        let target = email("nope", to_list("nowhere"), &[("a", "1 +"), ("b", "data.x")]);
        let bad = Route { name: "a\nb".into(), event_type: "Nope".into(), condition: "data.".into(), target, ..Default::default() };
        let wrong = ["route.name", "route.event_type", "route.condition", "route.email.variables[a]", "route.email.template", "route.email.recipient_list"];
        status::expect_violations(&try_create(&server, bad.clone()).await.unwrap_err(), &wrong);
        let good = create(&server, alert("Good", "a", "", to_list("low_stock"))).await;
        let changed = Route { id: good.id.clone(), etag: String::new(), ..bad };
        let refused = update(&server, changed, &["*"]).await.unwrap_err();
        status::expect_violations(&refused, &wrong);
        let field = alert("Field", "a", "", to_field("]["));
        status::expect_violations(&try_create(&server, field).await.unwrap_err(), &["route.email.recipient_field"]);
        let nowhere = Route { target: None, ..alert("None", "a", "", to_list("low_stock")) };
        status::expect_violations(&try_create(&server, nowhere).await.unwrap_err(), &["route.target"]);
        let nobody = EmailTarget { template: "welcome".into(), ..Default::default() };
        let nobody = Route { target: Some(Target::Email(nobody)), ..alert("Nobody", "a", "", to_list("x")) };
        status::expect_violations(&try_create(&server, nobody).await.unwrap_err(), &["route.email"]);
        let twin = try_create(&server, alert("Good", "b", "", to_list("low_stock"))).await.unwrap_err();
        status::expect(&twin, Code::AlreadyExists, "ALREADY_EXISTS");
        let request = GetRouteRequest { route_id: good.id.clone() };
        assert_eq!(server.client.routes().get_route(request).await.unwrap().into_inner().route.unwrap(), good, "unchanged");
    }

    async fn a_list_takes_addresses_with_commas_and_keeps_each_once(server: Server) {
        let written = list("crew", &["a@example.com, B <b@example.com>", "\"Doe, C\" <c@example.com>,A@Example.com", " b@example.com "]);
        let kept = create_list(&server, written).await.unwrap();
        assert_eq!(kept.addresses, ["a@example.com", "B <b@example.com>", "\"Doe, C\" <c@example.com>"]);
        create(&server, alert("Crew", "shift.*", "", to_list("crew"))).await;
        assert_eq!(mails(&server, "shift.ends", json!({"title": "x"})).await.len(), 3);

        let bad = list("crew", &["a@example.com", "fine@example.com, nobody"]);
        let request = UpdateRecipientListRequest { recipient_list: Some(bad), update_mask: None };
        let refused = server.client.recipient_lists().update_recipient_list(request).await.unwrap_err();
        status::expect_violations(&refused, &["recipient_list.addresses[1]"]);
        let stale = RecipientList { etag: "99".into(), ..list("crew", &["z@example.com"]) };
        let request = UpdateRecipientListRequest { recipient_list: Some(stale), update_mask: None };
        let refused = server.client.recipient_lists().update_recipient_list(request).await.unwrap_err();
        status::expect(&refused, Code::Aborted, "ETAG_MISMATCH");
        status::expect_violations(&create_list(&server, list("The Crew", &[])).await.unwrap_err(), &["recipient_list.name"]);
        status::expect(&create_list(&server, list("crew", &[])).await.unwrap_err(), Code::AlreadyExists, "ALREADY_EXISTS");
        let many: Vec<String> = (0..1001).map(|n| format!("n{n}@example.com")).collect();
        let many = create_list(&server, list("many", &[many.join(",").as_str()])).await.unwrap_err();
        status::expect_violations(&many, &["recipient_list.addresses"]);
        let request = GetRecipientListRequest { name: "crew".into() };
        assert_eq!(server.client.recipient_lists().get_recipient_list(request).await.unwrap().into_inner().recipient_list.unwrap(), kept);
    }

    async fn a_list_that_a_route_names_can_not_be_removed(server: Server) {
        create_list(&server, list("crew", &["a@example.com"])).await.unwrap();
        let route = create(&server, alert("Crew", "shift.*", "", to_list("crew"))).await;
        let refused = delete_list(&server, "crew").await.unwrap_err();
        let details = status::expect(&refused, Code::FailedPrecondition, "RECIPIENT_LIST_IN_USE");
        assert_eq!(details.error_info().unwrap().metadata["route"], "Crew");
        assert_eq!(mails(&server, "shift.ends", json!({"title": "x"})).await.len(), 1, "nothing has changed");
        delete(&server, &route.id).await;
        delete_list(&server, "crew").await.unwrap();
        status::expect(&delete_list(&server, "crew").await.unwrap_err(), Code::NotFound, "NOT_FOUND");
    }

    async fn an_application_registers_its_own_event_types(server: Server) {
        let schema = json!({
            "type": "object", "required": ["level"],
            "properties": {"level": {"type": "integer", "maximum": 3}, "place": {"type": "string"}},
        });
        let field = EventField { name: "level".into(), r#type: "integer".into(), description: "How high.".into(), required: true };
        let kind = EventType {
            name: "tank.level".into(), description: "A tank was measured.".into(), fields: vec![field],
            json_schema: schema.to_string(), sample: "{\"level\":2}".into(), ..Default::default()
        };
        let kept = create_type(&server, kind.clone()).await.unwrap();
        assert_eq!(kept, EventType { etag: kept.etag.clone(), ..kind.clone() });
        try_publish(&server, "tank.level", "{\"level\":3}").await.unwrap();
        for bad in ["{}", "{\"level\":4}", "{\"level\":\"2\"}"] {
            status::expect_violations(&try_publish(&server, "tank.level", bad).await.unwrap_err(), &["data"]);
        }
        let both = try_publish(&server, "tank.level", "{\"level\":4,\"place\":1}").await.unwrap_err();
        status::expect_violations(&both, &["data", "data"]);

        let wider = EventType { json_schema: schema.to_string().replace('3', "9"), name: kind.name.clone(), ..Default::default() };
        let request = UpdateEventTypeRequest { event_type: Some(wider), update_mask: Some(FieldMask { paths: vec!["json_schema".into()] }) };
        let changed = server.client.events().update_event_type(request).await.unwrap().into_inner().event_type.unwrap();
        assert_eq!((changed.description.as_str(), changed.fields.len()), ("A tank was measured.", 1));
        try_publish(&server, "tank.level", "{\"level\":9}").await.expect("the new schema is in force");

        status::expect(&create_type(&server, kind.clone()).await.unwrap_err(), Code::AlreadyExists, "ALREADY_EXISTS");
        let odd = EventField { r#type: "text".into(), ..Default::default() };
        let bad = EventType { name: "Bad".into(), json_schema: "{\"type\":\"nope\"}".into(), sample: "[]".into(), fields: vec![odd], ..Default::default() };
        let refused = create_type(&server, bad).await.unwrap_err();
        status::expect_violations(&refused, &["event_type.name", "event_type.json_schema", "event_type.sample", "event_type.fields[0].name", "event_type.fields[0].type"]);
        let request = DeleteEventTypeRequest { name: "tank.level".into() };
        server.client.events().delete_event_type(request).await.unwrap();
        try_publish(&server, "tank.level", "{}").await.expect("any object, without a schema");
    }

    async fn no_nesting_hides_a_payload_from_its_schema(server: Server) {
        let schema = json!({"required": ["level"]}).to_string();
        create_type(&server, EventType { name: "tank.level".into(), json_schema: schema, ..Default::default() }).await.unwrap();
        for depth in [100, 200, 1_000] {
            let deep = format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
            let refused = try_publish(&server, "tank.level", &deep).await.expect_err("it has no level");
            status::expect_violations(&refused, &["data"]);
        }
    }

    async fn only_known_types_are_taken_when_the_setting_says_so(server: Server) {
        try_publish(&server, "made.up", "{}").await.unwrap();
        set(&server.client, json!({"events.strict_types": true})).await;
        status::expect_violations(&try_publish(&server, "made.up", "{}").await.unwrap_err(), &["event_type"]);
        try_publish(&server, "user.login", "{}").await.expect("built in");
        create_type(&server, EventType { name: "made.up".into(), ..Default::default() }).await.unwrap();
        try_publish(&server, "made.up", "{}").await.expect("registered");
        set(&server.client, json!({"events.strict_types": false})).await;
        try_publish(&server, "made.up.too", "{}").await.unwrap();
    }

    async fn a_built_in_type_can_not_be_changed(server: Server) {
        let kind = EventType { name: "ticket.created".into(), description: "Mine".into(), ..Default::default() };
        let made = create_type(&server, kind.clone()).await.unwrap_err();
        let request = UpdateEventTypeRequest { event_type: Some(kind), update_mask: None };
        let updated = server.client.events().update_event_type(request).await.unwrap_err();
        let request = DeleteEventTypeRequest { name: "ticket.created".into() };
        let deleted = server.client.events().delete_event_type(request).await.unwrap_err();
        for refused in [made, updated, deleted] {
            status::expect(&refused, Code::FailedPrecondition, "EVENT_TYPE_BUILT_IN");
        }
        let types = server.client.events().list_event_types(ListEventTypesRequest::default()).await.unwrap().into_inner().event_types;
        assert!(types.iter().all(|kind| kind.built_in && !kind.fields.is_empty() && !kind.sample.is_empty()), "{types:?}");
        let names: Vec<_> = types.iter().map(|kind| kind.name.as_str()).collect();
        for name in [
            "ticket.created", "ticket.updated", "ticket.comment", "inventory.low_stock", "user.created", "user.login", "dashboard.update",
            "user.online", "user.offline", "notification", "user.registered", "application.status_changed",
        ] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_publish_on_any_node_follows_a_new_route() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    create_list(&one, list("crew", &["a@example.com"])).await.unwrap();
    create(&one, alert("Crew", "shift.*", "", to_list("crew"))).await;
    assert_eq!(mails(&other, "shift.ends", json!({"title": "x"})).await.len(), 1);
    one.put_on_list("crew", &["a@example.com", "b@example.com"]).await;
    assert_eq!(mails(&other, "shift.ends", json!({"title": "x"})).await.len(), 2);
    other.stop().await;
}
