//! Bad input: each gets the right status with what a program and a person need, and changes nothing.

use std::time::Duration;

use prost_types::FieldMask;
use serde_json::json;
use switchboard::apikey::model::KeyKind;
use switchboard_client::apikey::v1::{
    CreateApiKeyRequest, GetApiKeyRequest, ListApiKeysRequest, RevokeApiKeyRequest,
};
use switchboard_client::email::v1::{
    DeleteRecipientListRequest, GetEmailRequest, GetRecipientListRequest, GetTemplateRequest,
    ListEmailsRequest, ListRecipientListsRequest, RecipientList, SendEmailRequest,
    UpdateRecipientListRequest,
};
use switchboard_client::event::v1::event_service_client::EventServiceClient;
use switchboard_client::event::v1::{
    BatchPublishEventsRequest, DeleteEventTypeRequest, DeleteRouteRequest, EventType, GetEventRequest,
    GetEventTypeRequest, GetRouteRequest, ListEventTypesRequest, ListEventsRequest, ListRoutesRequest, Route,
    TestRouteRequest, UpdateEventTypeRequest, UpdateRouteRequest,
};
use switchboard_client::notification::v1::SubscribeRequest;
use switchboard_client::webhook::v1::{
    CreateWebhookRequest, DeleteWebhookRequest, GetWebhookDeliveryRequest, GetWebhookRequest,
    ListWebhookDeliveriesRequest, ListWebhooksRequest, UpdateWebhookRequest, Webhook,
};
use tonic::{Code, Status};

use crate::api_keys::call;
use crate::harness::server::{Server, event};
use crate::harness::{on_both, status};
use crate::settings::set;

const PUBLISH: &str = "/switchboard.event.v1.EventService/PublishEvent";
const MIB: usize = 1024 * 1024;

/// The error of a call that must fail; the call is `service.method(request)`.
macro_rules! refused {
    ($server:ident . $service:ident . $method:ident ($request:expr)) => {
        $server.client.$service().$method($request).await.map(drop).unwrap_err()
    };
}

/// How much there is of everything that a caller can make.
async fn counts(server: &Server) -> [usize; 6] {
    let client = &server.client;
    let events = ListEventsRequest { page_size: 500, ..Default::default() };
    let emails = ListEmailsRequest { page_size: 500, ..Default::default() };
    let webhooks = ListWebhooksRequest { page_size: 500, ..Default::default() };
    let keys = ListApiKeysRequest { page_size: 500, ..Default::default() };
    let routes = ListRoutesRequest { page_size: 500, ..Default::default() };
    let types = ListEventTypesRequest { page_size: 500, ..Default::default() };
    [
        client.events().list_events(events).await.unwrap().into_inner().events.len(),
        client.emails().list_emails(emails).await.unwrap().into_inner().emails.len(),
        client.webhooks().list_webhooks(webhooks).await.unwrap().into_inner().webhooks.len(),
        client.api_keys().list_api_keys(keys).await.unwrap().into_inner().api_keys.len(),
        client.routes().list_routes(routes).await.unwrap().into_inner().routes.len(),
        client.events().list_event_types(types).await.unwrap().into_inner().event_types.len(),
    ]
}

fn webhook(url: &str) -> CreateWebhookRequest {
    let webhook =
        Webhook { name: "bad".into(), url: url.into(), event_types: vec!["*".into()], ..Default::default() };
    CreateWebhookRequest { webhook: Some(webhook), ..Default::default() }
}

fn mail(to: &str) -> SendEmailRequest {
    let (subject, plain_body) = ("Hi".into(), "Hello.".into());
    SendEmailRequest { to: vec![to.into()], subject, plain_body, ..Default::default() }
}

fn mask(path: &str) -> Option<FieldMask> {
    Some(FieldMask { paths: vec![path.into()] })
}

/// What the server says to a caller that lists events with this key, or with none.
async fn said_to(server: &Server, key: &str) -> Status {
    server.client_with(key).await.events().list_events(ListEventsRequest::default()).await.unwrap_err()
}

on_both! {
    async fn bad_events_are_refused_by_field(server: Server) {
        server.put_on_list("tickets_all", &["jo@example.com"]).await;
        let before = counts(&server).await;
        let long = "x".repeat(257);
        let big = format!("{{\"a\":\"{}\"}}", "x".repeat(5 * MIB));
        for (event_type, data, fields) in [
            ("", "{}", &["event_type"][..]),
            ("Ticket Created", "{}", &["event_type"]),
            ("ticket.*", "{}", &["event_type"]),
            ("ticket.created", "{", &["data"]),
            ("ticket.created", "[]", &["data"]),
            ("ticket.created", "{\"a\":NaN}", &["data"]),
            ("ticket.created", &big, &["data"]),
            ("a..b", "null", &["event_type", "data"]),
        ] {
            let answer = server.client.events().publish_event(event(event_type, data)).await;
            let refused = answer.err().unwrap_or_else(|| panic!("{event_type} was taken with {data:.40}"));
            status::expect_violations(&refused, fields);
        }
        let mut all = event("ticket.created", "{}");
        (all.actor, all.subject, all.request_id) = (long.clone(), "a\nb".into(), long);
        status::expect_violations(&refused!(server.events.publish_event(all)), &["actor", "subject", "request_id"]);
        let many = BatchPublishEventsRequest { requests: vec![event("a", "{}"); 501] };
        status::expect_violations(&refused!(server.events.batch_publish_events(many)), &["requests"]);

        set(&server.client, json!({"events.strict_types": true})).await;
        let unknown = event("nobody.registered_this", "{}");
        status::expect_violations(&refused!(server.events.publish_event(unknown)), &["event_type"]);
        assert_eq!(counts(&server).await, before);
    }

    async fn nesting_without_end_is_refused(server: Server) {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        let answer = server.client.events().publish_event(event("ticket.created", &deep)).await;
        status::expect_violations(&answer.expect_err("nobody can read it"), &["data"]);
        assert_eq!(counts(&server).await[0], 0);
    }

    async fn an_item_of_a_batch_is_named_for_every_field(server: Server) {
        let mut second = event("b", "{}");
        (second.actor, second.request_id) = ("x".repeat(257), "x".repeat(129));
        let batch = BatchPublishEventsRequest { requests: vec![event("a", "{}"), second] };
        let refused = refused!(server.events.batch_publish_events(batch));
        status::expect_violations(&refused, &["requests[1].actor", "requests[1].request_id"]);
        assert_eq!(counts(&server).await[0], 0);
    }

    async fn bad_mails_are_refused_by_field(server: Server) {
        let before = counts(&server).await;
        for address in ["", "jo", "jo@", "@example.com", "jo@@example.com", "jo@exa mple.com", "a@example.com, b@example.com"] {
            status::expect_violations(&refused!(server.emails.send_email(mail(address))), &["to[0]"]);
        }
        let template = |name: &str| SendEmailRequest { to: vec!["jo@example.com".into()], template: name.into(), ..Default::default() };
        status::expect_violations(&refused!(server.emails.send_email(template("nope"))), &["template"]);
        let without = refused!(server.emails.send_email(template("ticket_created")));
        status::expect_violations(&without, &["variables.ticket_id", "variables.ticket_title"]);
        let both = SendEmailRequest { template: "welcome".into(), ..mail("jo@example.com") };
        status::expect_violations(&refused!(server.emails.send_email(both)), &["subject", "plain_body"]);
        let nothing = refused!(server.emails.send_email(SendEmailRequest::default()));
        status::expect_violations(&nothing, &["to", "subject", "html_body"]);
        let many = SendEmailRequest { bcc: vec!["jo@example.com".into(); 50], ..mail("jo@example.com") };
        status::expect_violations(&refused!(server.emails.send_email(many)), &["to"]);
        let big = SendEmailRequest { html_body: "x".repeat(MIB + 1), subject: "x".repeat(999), ..mail("jo@example.com") };
        status::expect_violations(&refused!(server.emails.send_email(big)), &["subject", "html_body"]);
        assert_eq!(counts(&server).await, before);
    }

    async fn bad_endpoints_are_refused_by_field(server: Server) {
        let before = counts(&server).await;
        for url in [
            "", "example.com/hook", "/hook", "ftp://example.com/", "javascript:alert(1)", "http://", "http://jo:pw@example.com/",
            "https://example.com/#top", "http://10.0.0.1/", "http://169.254.169.254/latest", "http://[::1]/", "http://2886729729/",
        ] {
            status::expect_violations(&refused!(server.webhooks.create_webhook(webhook(url))), &["webhook.url"]);
        }
        let nothing = CreateWebhookRequest { webhook: Some(Webhook::default()), ..Default::default() };
        let nothing = refused!(server.webhooks.create_webhook(nothing));
        status::expect_violations(&nothing, &["webhook.name", "webhook.url", "webhook.event_types"]);
        status::expect_violations(&refused!(server.webhooks.create_webhook(CreateWebhookRequest::default())), &["webhook"]);
        assert_eq!(counts(&server).await, before);
    }

    async fn a_message_beyond_the_limit_is_refused_whole(server: Server) {
        let before = counts(&server).await;
        let refused = refused!(server.events.publish_event(event("a", &"x".repeat(16 * MIB))));
        status::expect(&refused, Code::ResourceExhausted, "MESSAGE_TOO_LARGE");
        assert_eq!(counts(&server).await, before, "and the connection goes on");
    }

    async fn bytes_that_are_no_message_are_refused(server: Server) {
        let before = counts(&server).await;
        let key = Some(server.key.reveal());
        for garbage in [&b"\xff\xff\xff\xff"[..], b"\x0a\x05abc", b"\x0a\x02\xff\xfe", b"\x08\x01"] {
            let refused = call(&server, key, PUBLISH, garbage).await.unwrap_err();
            // gRPC's own code for it, whoever is at fault.
            status::expect(&refused, Code::Internal, "MESSAGE_INVALID");
        }
        assert_eq!(counts(&server).await, before);
    }

    async fn a_method_that_does_not_exist_is_told_so(server: Server) {
        let key = Some(server.key.reveal());
        for unknown in ["/switchboard.event.v1.EventService/Nope", "/switchboard.nope.v1.NopeService/Go", "/nope", "/"] {
            let refused = call(&server, key, unknown, b"").await.unwrap_err();
            status::expect(&refused, Code::Unimplemented, "METHOD_UNKNOWN");
        }
    }

    async fn a_key_that_does_not_work_is_told_the_same_whatever_is_wrong_with_it(server: Server) {
        let make = async |days: i32| {
            let request = CreateApiKeyRequest { name: "k".into(), scopes: vec!["events:read".into()], expires_in_days: days, ..Default::default() };
            server.client.api_keys().create_api_key(request).await.unwrap().into_inner()
        };
        let (revoked, expired) = (make(2).await, make(1).await);
        let request = RevokeApiKeyRequest { api_key_id: revoked.api_key.unwrap().id };
        server.client.api_keys().revoke_api_key(request).await.unwrap();
        server.advance(Duration::from_secs(25 * 60 * 60));
        // Well formed, with its checksum, and known to no database.
        let stranger = switchboard::apikey::key::generate(KeyKind::Live, &switchboard::secret::SystemRandom);
        let mut bent = server.key.reveal().to_owned();
        let last = if bent.ends_with('0') { "1" } else { "0" };
        bent.replace_range(bent.len() - 1.., last);
        let expected = said_to(&server, stranger.reveal()).await;
        status::expect(&expected, Code::Unauthenticated, "KEY_INVALID");
        assert_eq!(expected.message(), "Invalid or revoked API key");
        for key in [&revoked.key, &expired.key, &bent, "swb_", "", "nonsense", &"x".repeat(4_000)] {
            let said = said_to(&server, key).await;
            assert_eq!((said.code(), said.message(), said.details()), (expected.code(), expected.message(), expected.details()), "{key}");
        }
    }

    async fn a_key_must_be_there_and_have_the_scope(server: Server) {
        let channel = tonic::transport::Endpoint::from_shared(server.url()).unwrap().connect().await.unwrap();
        let mut without = EventServiceClient::new(channel);
        let refused = without.list_events(ListEventsRequest::default()).await.unwrap_err();
        status::expect(&refused, Code::Unauthenticated, "KEY_MISSING");
        let mut bearer = tonic::Request::new(ListEventsRequest::default());
        bearer.metadata_mut().insert("authorization", format!("bearer {}", server.key.reveal()).parse().unwrap());
        without.list_events(bearer).await.expect("the other way to send a key");
        let mut basic = tonic::Request::new(ListEventsRequest::default());
        basic.metadata_mut().insert("authorization", "Basic am86am8=".parse().unwrap());
        status::expect(&without.list_events(basic).await.unwrap_err(), Code::Unauthenticated, "KEY_MISSING");

        let reader = server.client_that_may(&["events:read"]).await;
        let before = counts(&server).await;
        let refused = reader.events().publish_event(event("a", "{}")).await.unwrap_err();
        let details = status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");
        assert_eq!(details.error_info().unwrap().metadata["required_scope"], "events:write");
        assert_eq!(counts(&server).await[0], before[0]);
    }

    async fn bad_pages_are_refused(server: Server) {
        for n in 0..3 {
            server.publish("a.b", &format!("{{\"n\":{n}}}")).await;
        }
        let negative = ListEventsRequest { page_size: -1, ..Default::default() };
        status::expect_violations(&refused!(server.events.list_events(negative)), &["page_size"]);
        status::expect_violations(&refused!(server.emails.list_emails(ListEmailsRequest { page_size: i32::MIN, ..Default::default() })), &["page_size"]);
        let request = ListEventsRequest { page_size: 1, event_types: vec!["a.*".into()], ..Default::default() };
        let token = server.client.events().list_events(request.clone()).await.unwrap().into_inner().next_page_token;
        let next = ListEventsRequest { page_token: token.clone(), page_size: 500, ..request.clone() };
        assert_eq!(server.client.events().list_events(next).await.unwrap().into_inner().events.len(), 2);
        for other in [
            ListEventsRequest { page_token: token.clone(), ..Default::default() },
            ListEventsRequest { page_token: token.clone(), subject: "s".into(), ..request.clone() },
            ListEventsRequest { page_token: "garbage".into(), ..request.clone() },
            ListEventsRequest { page_token: "\u{0}".into(), ..request.clone() },
            ListEventsRequest { page_token: format!("{token}AA=="), ..request },
        ] {
            status::expect_violations(&refused!(server.events.list_events(other)), &["page_token"]);
        }
        let routes = ListRoutesRequest { page_token: token.clone(), ..Default::default() };
        status::expect_violations(&refused!(server.routes.list_routes(routes)), &["page_token"]);
        let keys = ListApiKeysRequest { page_token: token.clone(), ..Default::default() };
        status::expect_violations(&refused!(server.api_keys.list_api_keys(keys)), &["page_token"]);
        let webhooks = ListWebhooksRequest { page_token: token.clone(), ..Default::default() };
        status::expect_violations(&refused!(server.webhooks.list_webhooks(webhooks)), &["page_token"]);
        let deliveries = ListWebhookDeliveriesRequest { page_token: token, ..Default::default() };
        status::expect_violations(&refused!(server.webhooks.list_webhook_deliveries(deliveries)), &["page_token"]);
    }

    async fn a_page_token_is_good_for_its_own_list_only(server: Server) {
        let request = ListRoutesRequest { page_size: 1, ..Default::default() };
        let page_token = server.client.routes().list_routes(request).await.unwrap().into_inner().next_page_token;
        let lists = ListRecipientListsRequest { page_token, ..Default::default() };
        status::expect_violations(&refused!(server.recipient_lists.list_recipient_lists(lists)), &["page_token"]);
    }

    async fn bad_filters_and_masks_are_refused(server: Server) {
        let types = ListEventsRequest { event_types: vec!["a.*".into(), "*.b".into()], ..Default::default() };
        status::expect_violations(&refused!(server.events.list_events(types)), &["event_types[1]"]);
        let subscribe = SubscribeRequest {
            event_types: vec!["Nope".into()],
            cursor: "no cursor".into(),
            heartbeat_interval: Some(prost_types::Duration { seconds: 51, nanos: 0 }),
            ..Default::default()
        };
        let refused = refused!(server.notifications.subscribe(subscribe));
        status::expect_violations(&refused, &["event_types[0]", "heartbeat_interval", "cursor"]);
        let (webhook, _) = server.webhook("http://127.0.0.1:9/", &["a"]).await;
        let update = UpdateWebhookRequest { webhook: Some(webhook), update_mask: mask("secret") };
        status::expect_violations(&refused!(server.webhooks.update_webhook(update)), &["update_mask"]);
        let update = UpdateRouteRequest { route: Some(Route::default()), update_mask: mask("id") };
        status::expect_violations(&refused!(server.routes.update_route(update)), &["update_mask"]);
        let list = RecipientList { name: "low_stock".into(), ..Default::default() };
        let update = UpdateRecipientListRequest { recipient_list: Some(list), update_mask: mask("etag") };
        status::expect_violations(&refused!(server.recipient_lists.update_recipient_list(update)), &["update_mask"]);
        let update = UpdateEventTypeRequest { event_type: Some(EventType::default()), update_mask: mask("name") };
        status::expect_violations(&refused!(server.events.update_event_type(update)), &["update_mask"]);
    }

    async fn what_does_not_exist_is_not_found(server: Server) {
        let id = || "nope".to_owned();
        let webhook = Webhook { id: id(), name: "x".into(), ..Default::default() };
        let route = Route { id: id(), name: "x".into(), ..Default::default() };
        let list = RecipientList { name: id(), ..Default::default() };
        let kind = EventType { name: id(), description: "x".into(), ..Default::default() };
        for refused in [
            refused!(server.events.get_event(GetEventRequest { event_id: id() })),
            refused!(server.events.get_event_type(GetEventTypeRequest { name: id() })),
            refused!(server.events.update_event_type(UpdateEventTypeRequest { event_type: Some(kind), update_mask: None })),
            refused!(server.events.delete_event_type(DeleteEventTypeRequest { name: id() })),
            refused!(server.routes.get_route(GetRouteRequest { route_id: id() })),
            refused!(server.routes.update_route(UpdateRouteRequest { route: Some(route), update_mask: None })),
            refused!(server.routes.delete_route(DeleteRouteRequest { route_id: id() })),
            refused!(server.routes.test_route(TestRouteRequest { route_id: id(), event: Some(event("a", "{}")) })),
            refused!(server.webhooks.get_webhook(GetWebhookRequest { webhook_id: id() })),
            refused!(server.webhooks.update_webhook(UpdateWebhookRequest { webhook: Some(webhook), update_mask: None })),
            refused!(server.webhooks.delete_webhook(DeleteWebhookRequest { webhook_id: id(), ..Default::default() })),
            refused!(server.webhooks.get_webhook_delivery(GetWebhookDeliveryRequest { delivery_id: id() })),
            refused!(server.emails.get_email(GetEmailRequest { email_id: id() })),
            refused!(server.templates.get_template(GetTemplateRequest { name: id(), ..Default::default() })),
            refused!(server.recipient_lists.get_recipient_list(GetRecipientListRequest { name: id() })),
            refused!(server.recipient_lists.update_recipient_list(UpdateRecipientListRequest { recipient_list: Some(list), update_mask: None })),
            refused!(server.recipient_lists.delete_recipient_list(DeleteRecipientListRequest { name: id() })),
            refused!(server.api_keys.get_api_key(GetApiKeyRequest { api_key_id: id() })),
            refused!(server.api_keys.revoke_api_key(RevokeApiKeyRequest { api_key_id: id() })),
        ] {
            let details = status::expect(&refused, Code::NotFound, "NOT_FOUND");
            assert_eq!(details.error_info().unwrap().metadata["id"], "nope");
            assert!(!details.resource_info().unwrap().resource_type.is_empty(), "{refused:?}");
        }
    }
}
