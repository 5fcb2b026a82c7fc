//! Webhook endpoints: made, found, changed and removed, and what each of these does to what is sent to them.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_types::FieldMask;
use switchboard::db::Target;
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::webhook::v1::{
    CreateWebhookRequest, CreateWebhookResponse, DeleteWebhookRequest, GetWebhookDeliveryRequest,
    GetWebhookRequest, ListWebhookDeliveriesRequest, ListWebhooksRequest, UpdateWebhookRequest, Webhook,
    WebhookDelivery,
};
use tonic::{Code, Status};

use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::server::Server;
use crate::harness::{SOON, eventually, on_both, postgres, status, tools};

/// Past the first wait of the schedule: a minute, and up to a tenth more.
const FIRST_WAIT: Duration = Duration::from_secs(66);

fn endpoint(name: &str, url: &str, event_types: &[&str]) -> Webhook {
    Webhook {
        name: name.into(),
        url: url.into(),
        event_types: event_types.iter().map(|&event_type| event_type.into()).collect(),
        ..Default::default()
    }
}

async fn create(server: &Server, request: CreateWebhookRequest) -> Result<CreateWebhookResponse, Status> {
    let answer = server.client.webhooks().create_webhook(request).await?;
    Ok(answer.into_inner())
}

async fn try_create(server: &Server, webhook: Webhook) -> Result<Webhook, Status> {
    let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
    Ok(create(server, request).await?.webhook.expect("the answer has the endpoint"))
}

async fn get(server: &Server, id: &str) -> Result<Webhook, Status> {
    let request = GetWebhookRequest { webhook_id: id.into() };
    let answer = server.client.webhooks().get_webhook(request).await?.into_inner();
    Ok(answer.webhook.expect("the answer has the endpoint"))
}

async fn list(server: &Server, request: ListWebhooksRequest) -> Vec<Webhook> {
    let answer = server.client.webhooks().list_webhooks(request).await.unwrap();
    answer.into_inner().webhooks
}

fn names(webhooks: &[Webhook]) -> Vec<&str> {
    webhooks.iter().map(|webhook| webhook.name.as_str()).collect()
}

async fn try_update(server: &Server, webhook: Webhook, mask: Option<&[&str]>) -> Result<Webhook, Status> {
    let request = UpdateWebhookRequest {
        webhook: Some(webhook),
        update_mask: mask.map(|paths| FieldMask { paths: paths.iter().map(|&path| path.into()).collect() }),
    };
    let answer = server.client.webhooks().update_webhook(request).await?.into_inner();
    Ok(answer.webhook.expect("the answer has the endpoint"))
}

async fn set_active(server: &Server, id: &str, active: bool) {
    let webhook = Webhook { id: id.into(), active, ..Default::default() };
    let updated = try_update(server, webhook, Some(&["active"])).await.unwrap();
    assert_eq!(updated.active, active);
}

async fn try_delete(server: &Server, id: &str, etag: &str) -> Result<(), Status> {
    let request = DeleteWebhookRequest { webhook_id: id.into(), etag: etag.into() };
    server.client.webhooks().delete_webhook(request).await.map(drop)
}

async fn deliveries_to(server: &Server, id: &str) -> Vec<WebhookDelivery> {
    let request = ListWebhookDeliveriesRequest { webhook_id: id.into(), ..Default::default() };
    let answer = server.client.webhooks().list_webhook_deliveries(request).await.unwrap();
    answer.into_inner().deliveries
}

/// Waits until the one delivery to an endpoint stands there.
async fn until(server: &Server, id: &str, state: DeliveryState) -> WebhookDelivery {
    eventually(&format!("the delivery to {id} is {state:?}"), async || {
        let deliveries = deliveries_to(server, id).await;
        assert!(deliveries.len() <= 1, "one event makes one delivery: {deliveries:?}");
        deliveries.into_iter().find(|delivery| delivery.state() == state)
    })
    .await
}

/// Everything that the database holds, as bytes.
async fn everything_stored(server: &Server) -> Vec<u8> {
    match &server.config.database {
        Target::Sqlite(_) => {
            let files = std::fs::read_dir(server.folder()).unwrap();
            let files = files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
            files.flat_map(|path| std::fs::read(path).unwrap()).collect()
        }
        Target::Postgres(url) => {
            let dump = tools::run(postgres::bin("pg_dump"), ["-d", url.as_str()], b"").await;
            dump.expect_success().into_bytes()
        }
    }
}

fn holds(stored: &[u8], wanted: &[u8]) -> bool {
    stored.windows(wanted.len()).any(|window| window == wanted)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

on_both! {
    async fn the_secret_is_shown_once_and_kept_sealed(server: Server) {
        let receiver = Receiver::start().await;
        let (webhook, secret) = server.webhook_to(&receiver, &["*"]).await;
        let coded = secret.strip_prefix("whsec_").expect("a secret says what it is");
        let key = STANDARD.decode(coded).expect("the rest of a secret is base64");
        assert_eq!(key.len(), 32);
        let (_, other) = server.webhook_to(&receiver, &["x"]).await;
        assert_ne!(secret, other, "every endpoint has a secret of its own");

        server.publish("a.b", "{}").await;
        receiver.wait_for(1, SOON).await;
        let renamed = Webhook { id: webhook.id.clone(), name: "renamed".into(), ..Default::default() };
        let answers = [
            format!("{:?}", get(&server, &webhook.id).await.unwrap()),
            format!("{:?}", list(&server, ListWebhooksRequest::default()).await),
            format!("{:?}", try_update(&server, renamed, None).await.unwrap()),
            format!("{:?}", deliveries_to(&server, &webhook.id).await),
            format!("{:?}", receiver.received()),
        ];
        for answer in answers {
            assert!(!answer.contains(coded), "the secret is shown again: {answer}");
        }

        let stored = everything_stored(&server).await;
        assert!(holds(&stored, webhook.id.as_bytes()), "the right database was searched");
        for form in [coded.as_bytes(), &key, hexadecimal(&key).as_bytes(), hexadecimal(coded.as_bytes()).as_bytes()] {
            assert!(!holds(&stored, form), "the database holds the secret in clear");
        }
    }

    async fn endpoints_are_listed_by_page_and_filter(server: Server) {
        let kinds: [&[&str]; 7] =
            [&["*"], &["ticket.*"], &["ticket.created"], &["ticket"], &["user.*"], &["user.login", "ticket.created"], &["*"]];
        for (number, event_types) in kinds.iter().enumerate() {
            let webhook = endpoint(&format!("n{number}"), "https://example.com/", event_types);
            let request = CreateWebhookRequest { webhook: Some(webhook), inactive: number >= 5, ..Default::default() };
            create(&server, request).await.unwrap();
        }

        let request = ListWebhooksRequest { page_size: 3, ..Default::default() };
        let (mut pages, mut token) = (Vec::new(), String::new());
        loop {
            let request = ListWebhooksRequest { page_token: token, ..request.clone() };
            let page = server.client.webhooks().list_webhooks(request).await.unwrap().into_inner();
            pages.push(names(&page.webhooks).join(" "));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(pages, ["n0 n1 n2", "n3 n4 n5", "n6"], "oldest first");

        let filtered = async |active: Option<bool>, event_type: &str| {
            let request = ListWebhooksRequest { active, event_type: event_type.into(), ..Default::default() };
            names(&list(&server, request).await).join(" ")
        };
        assert_eq!(filtered(Some(true), "").await, "n0 n1 n2 n3 n4");
        assert_eq!(filtered(Some(false), "").await, "n5 n6");
        assert_eq!(filtered(None, "ticket.created").await, "n0 n1 n2 n5 n6");
        assert_eq!(filtered(Some(true), "ticket.created").await, "n0 n1 n2");
        assert_eq!(filtered(None, "ticket").await, "n0 n3 n6");
        assert_eq!(filtered(Some(false), "user.login").await, "n5 n6");

        let request = ListWebhooksRequest { event_type: "ticket.created".into(), page_size: 2, ..Default::default() };
        let first = server.client.webhooks().list_webhooks(request.clone()).await.unwrap().into_inner();
        assert_eq!(names(&first.webhooks), ["n0", "n1"]);
        let request = ListWebhooksRequest { page_token: first.next_page_token, ..request };
        assert_eq!(names(&list(&server, request.clone()).await), ["n2", "n5"]);

        let other = ListWebhooksRequest { event_type: "user.login".into(), ..request };
        let refused = server.client.webhooks().list_webhooks(other).await.unwrap_err();
        status::expect_violations(&refused, &["page_token"]);
        let negative = ListWebhooksRequest { page_size: -1, ..Default::default() };
        let refused = server.client.webhooks().list_webhooks(negative).await.unwrap_err();
        status::expect_violations(&refused, &["page_size"]);
    }

    async fn an_update_changes_what_its_mask_names(server: Server) {
        let webhook = Webhook {
            description: "first".into(),
            headers: HashMap::from([("x-one".into(), "1".into())]),
            ..endpoint("before", "https://example.com/before", &["a.*"])
        };
        let made = try_create(&server, webhook).await.unwrap();
        assert!(made.id.starts_with("wh_") && made.id.len() == 29, "{}", made.id);
        assert!(made.active && made.create_time == made.update_time);
        assert_eq!(get(&server, &made.id).await.unwrap(), made);

        server.advance(Duration::from_secs(1));
        let all = Webhook {
            id: made.id.clone(),
            active: true,
            ..endpoint("after", "https://example.com/after", &["b.*"])
        };
        let named = try_update(&server, all.clone(), Some(&["name", "description"])).await.unwrap();
        let expected = Webhook {
            name: "after".into(),
            description: String::new(),
            etag: named.etag.clone(),
            update_time: named.update_time,
            ..made.clone()
        };
        assert_eq!(named, expected, "only what the mask names has changed");
        assert_ne!(named.etag, made.etag);
        assert_eq!(named.update_time.unwrap().seconds, made.update_time.unwrap().seconds + 1);

        let set = Webhook { id: made.id.clone(), url: "https://example.com/set".into(), ..Default::default() };
        let set = try_update(&server, set, None).await.unwrap();
        assert_eq!((set.url.as_str(), set.name.as_str(), set.active), ("https://example.com/set", "after", true));
        assert_eq!(set.headers.len(), 1, "without a mask, what is not set stays");

        let replaced = try_update(&server, all.clone(), Some(&["*"])).await.unwrap();
        assert_eq!((replaced.url.as_str(), replaced.event_types[0].as_str()), ("https://example.com/after", "b.*"));
        assert!(replaced.headers.is_empty(), "the mask * takes everything");
        assert_eq!(get(&server, &made.id).await.unwrap(), replaced);

        let refused = try_update(&server, all.clone(), Some(&["name", "etag"])).await.unwrap_err();
        status::expect_violations(&refused, &["update_mask"]);
        let bad = Webhook { id: made.id.clone(), url: "ftp://example.com/".into(), ..endpoint("new", "", &["A"]) };
        let refused = try_update(&server, bad, None).await.unwrap_err();
        status::expect_violations(&refused, &["webhook.url", "webhook.event_types[0]"]);
        let stranger = Webhook { id: "wh_00000000000000000000000000".into(), ..all };
        status::expect(&try_update(&server, stranger, None).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
        let nothing = UpdateWebhookRequest::default();
        let refused = server.client.webhooks().update_webhook(nothing).await.unwrap_err();
        status::expect_violations(&refused, &["webhook"]);
        assert_eq!(get(&server, &made.id).await.unwrap(), replaced, "what was refused has changed nothing");
    }

    async fn a_change_of_something_newer_is_refused(server: Server) {
        let made = try_create(&server, endpoint("one", "https://example.com/", &["*"])).await.unwrap();
        let mine = Webhook { name: "mine".into(), ..made.clone() };
        let theirs = Webhook { name: "theirs".into(), ..made.clone() };
        let now = try_update(&server, mine, Some(&["name"])).await.unwrap();

        let refused = try_update(&server, theirs.clone(), Some(&["name"])).await.unwrap_err();
        let details = status::expect(&refused, Code::Aborted, "ETAG_MISMATCH");
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(metadata.get("current_etag"), Some(&now.etag));
        let refused = try_delete(&server, &made.id, &made.etag).await.unwrap_err();
        status::expect(&refused, Code::Aborted, "ETAG_MISMATCH");
        let foreign = Webhook { etag: "not one of ours".into(), ..theirs };
        let refused = try_update(&server, foreign, Some(&["name"])).await.unwrap_err();
        status::expect(&refused, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(get(&server, &made.id).await.unwrap(), now);

        try_delete(&server, &made.id, &now.etag).await.unwrap();
        status::expect(&get(&server, &made.id).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
    }

    async fn of_many_updates_with_one_etag_one_wins(server: Server) {
        let made = try_create(&server, endpoint("one", "https://example.com/", &["*"])).await.unwrap();
        let updates: Vec<_> = (0..16)
            .map(|number| {
                let (client, webhook) = (server.client.clone(), Webhook { name: format!("w{number}"), ..made.clone() });
                let request = UpdateWebhookRequest { webhook: Some(webhook), update_mask: None };
                tokio::spawn(async move { client.webhooks().update_webhook(request).await })
            })
            .collect();
        let mut won = Vec::new();
        for update in updates {
            match update.await.unwrap() {
                Ok(answer) => won.push(answer.into_inner().webhook.unwrap()),
                Err(refused) => drop(status::expect(&refused, Code::Aborted, "ETAG_MISMATCH")),
            }
        }
        assert_eq!(won, [get(&server, &made.id).await.unwrap()]);
    }

    async fn deleting_an_endpoint_takes_its_history(server: Server) {
        let receiver = Receiver::start().await;
        let (gone, _) = server.webhook(&receiver.url("/gone"), &["*"]).await;
        let (kept, _) = server.webhook(&receiver.url("/kept"), &["*"]).await;
        let published = server.publish("a.b", "{}").await;
        let delivery = until(&server, &gone.id, DeliveryState::Succeeded).await;
        until(&server, &kept.id, DeliveryState::Succeeded).await;

        try_delete(&server, &gone.id, "").await.unwrap();
        status::expect(&get(&server, &gone.id).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
        let request = GetWebhookDeliveryRequest { delivery_id: delivery.id };
        let refused = server.client.webhooks().get_webhook_delivery(request).await.unwrap_err();
        status::expect(&refused, Code::NotFound, "NOT_FOUND");
        assert!(deliveries_to(&server, &gone.id).await.is_empty());
        let left: Vec<_> = server.event(&published.event_id).await.outcomes;
        assert_eq!(left.iter().map(|outcome| outcome.source_id.as_str()).collect::<Vec<_>>(), [kept.id.as_str()]);
        if let Target::Postgres(url) = &server.config.database {
            assert_eq!(postgres::query(url, "SELECT count(*) FROM delivery_attempts").await, "1");
            let limits = "SELECT count(*) FROM send_limits WHERE name LIKE 'webhook:%'";
            assert_eq!(postgres::query(url, limits).await, "1");
        }

        let next = server.publish("a.b", "{}").await;
        assert_eq!(server.event(&next.event_id).await.outcomes.len(), 1);
        receiver.wait_for_on("/kept", 2, SOON).await;
        assert_eq!(receiver.received_on("/gone").len(), 1);
        status::expect(&try_delete(&server, &gone.id, "").await.unwrap_err(), Code::NotFound, "NOT_FOUND");
    }

    async fn deleting_an_endpoint_with_a_request_under_way_harms_nothing(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/gone", Behaviour::Hang);
        let (gone, _) = server.webhook(&receiver.url("/gone"), &["*"]).await;
        let (kept, _) = server.webhook(&receiver.url("/kept"), &["*"]).await;
        server.publish("a.b", "{}").await;
        receiver.wait_for_in_flight("/gone", 1, SOON).await;
        try_delete(&server, &gone.id, "").await.unwrap();
        receiver.release("/gone");
        receiver.wait_for_in_flight("/gone", 0, SOON).await;

        server.publish("a.b", "{}").await;
        receiver.wait_for_on("/kept", 2, SOON).await;
        eventually("both are recorded", async || {
            let done = deliveries_to(&server, &kept.id).await;
            (done.len() == 2 && done.iter().all(|one| one.state() == DeliveryState::Succeeded)).then_some(())
        })
        .await;
        assert!(deliveries_to(&server, &gone.id).await.is_empty());
        assert_eq!(receiver.received_on("/gone").len(), 1);
    }

    async fn an_inactive_endpoint_gets_nothing_and_keeps_its_history(server: Server) {
        let receiver = Receiver::start().await;
        let (paused, _) = server.webhook(&receiver.url("/paused"), &["*"]).await;
        server.webhook(&receiver.url("/other"), &["*"]).await;
        let never = CreateWebhookRequest {
            webhook: Some(endpoint("never", &receiver.url("/never"), &["*"])),
            inactive: true,
            ..Default::default()
        };
        assert!(!create(&server, never).await.unwrap().webhook.unwrap().active);

        server.publish("a.first", "{}").await;
        let first = until(&server, &paused.id, DeliveryState::Succeeded).await;
        set_active(&server, &paused.id, false).await;
        let second = server.publish("a.second", "{}").await;
        assert_eq!(server.event(&second.event_id).await.outcomes.len(), 1, "it makes no delivery at all");
        receiver.wait_for_on("/other", 2, SOON).await;
        assert_eq!(deliveries_to(&server, &paused.id).await, [first]);

        set_active(&server, &paused.id, true).await;
        server.publish("a.third", "{}").await;
        let got = receiver.wait_for_on("/paused", 2, SOON).await;
        let events: Vec<_> = got.iter().map(|received| received.json()["event"].clone()).collect();
        assert_eq!(events, ["a.first", "a.third"]);
        receiver.wait_for_on("/other", 3, SOON).await;
        assert!(receiver.received_on("/never").is_empty());
    }

    async fn switching_an_endpoint_off_withdraws_what_waits(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", Behaviour::Status(500));
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        server.publish("a.b", "{}").await;
        until(&server, &webhook.id, DeliveryState::Retrying).await;
        set_active(&server, &webhook.id, false).await;
        server.advance(FIRST_WAIT);
        let withdrawn = until(&server, &webhook.id, DeliveryState::Cancelled).await;
        assert_eq!((withdrawn.attempts, withdrawn.last_error.as_str()), (1, "the endpoint is not active"));
        assert_eq!(withdrawn.next_attempt_time, None);
        assert_eq!(receiver.received().len(), 1);
    }

    async fn a_new_url_is_used_by_the_next_attempt(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/old", Behaviour::Status(500));
        let (webhook, _) = server.webhook(&receiver.url("/old"), &["*"]).await;
        let published = server.publish("a.b", "{}").await;
        until(&server, &webhook.id, DeliveryState::Retrying).await;
        let moved = Webhook { id: webhook.id.clone(), url: receiver.url("/new"), ..Default::default() };
        try_update(&server, moved, Some(&["url"])).await.unwrap();

        server.advance(FIRST_WAIT);
        let got = receiver.wait_for_on("/new", 1, SOON).await;
        assert_eq!(got[0].header("webhook-id"), Some(published.event_id.as_str()));
        assert_eq!(until(&server, &webhook.id, DeliveryState::Succeeded).await.attempts, 2);
        server.publish("a.b", "{}").await;
        receiver.wait_for_on("/new", 2, SOON).await;
        assert_eq!(receiver.received_on("/old").len(), 1);
    }

    async fn patterns_choose_events(server: Server) {
        let receiver = Receiver::start().await;
        let wanted: [(&str, &[&str]); 5] = [
            ("/all", &["*"]),
            ("/below", &["shop.*"]),
            ("/one", &["shop.order.paid"]),
            ("/deep", &["shop.order.*"]),
            ("/twice", &["shop.order.paid", "shop.*"]),
        ];
        for (path, event_types) in wanted {
            server.webhook(&receiver.url(path), event_types).await;
        }
        let published: [(&str, &[&str]); 5] = [
            ("shop.order.paid", &["/all", "/below", "/deep", "/one", "/twice"]),
            ("shop.order.paid.late", &["/all", "/below", "/deep", "/twice"]),
            ("shop.cart", &["/all", "/below", "/twice"]),
            ("shop", &["/all"]),
            ("shopping.order", &["/all"]),
        ];
        let mut total = 0;
        for (event_type, expected) in published {
            let id = server.publish(event_type, "{}").await.event_id;
            let mut outcomes: Vec<_> =
                server.event(&id).await.outcomes.into_iter().map(|outcome| outcome.destination).collect();
            outcomes.sort();
            let expected: Vec<_> = expected.iter().map(|path| receiver.url(path)).collect();
            assert_eq!(outcomes, expected, "{event_type}");
            total += expected.len();
        }
        assert_eq!(receiver.wait_for(total, SOON).await.len(), total);
        let deep: Vec<_> = receiver.received_on("/deep").iter().map(|received| received.json()["event"].clone()).collect();
        assert_eq!(deep.len(), 2);
        assert!(deep.contains(&"shop.order.paid".into()) && deep.contains(&"shop.order.paid.late".into()), "{deep:?}");
    }

    async fn validating_keeps_nothing(server: Server) {
        let receiver = Receiver::start().await;
        let request = CreateWebhookRequest {
            webhook: Some(endpoint("idea", &receiver.url("/"), &["*"])),
            validate_only: true,
            ..Default::default()
        };
        let answer = create(&server, request.clone()).await.unwrap();
        assert_eq!((answer.secret.as_str(), answer.webhook.unwrap().name.as_str()), ("", "idea"));
        assert!(list(&server, ListWebhooksRequest::default()).await.is_empty());
        let published = server.publish("a.b", "{}").await;
        assert!(server.event(&published.event_id).await.outcomes.is_empty());
        let bad = CreateWebhookRequest { webhook: Some(endpoint("idea", "idea", &["*"])), ..request };
        status::expect_violations(&create(&server, bad).await.unwrap_err(), &["webhook.url"]);
    }

    async fn headers_of_ones_own_arrive(server: Server) {
        let receiver = Receiver::start().await;
        let headers = HashMap::from([
            ("X-Tenant".to_owned(), "blue, or so".to_owned()),
            ("authorization".to_owned(), "Bearer of good news".to_owned()),
        ]);
        let webhook = Webhook { headers, ..endpoint("one", &receiver.url("/hook?a=b%20c&d"), &["*"]) };
        let webhook = try_create(&server, webhook).await.unwrap();
        server.publish("a.b", "{}").await;
        let got = receiver.wait_for(1, SOON).await.remove(0);
        assert_eq!((got.method.as_str(), got.path.as_str(), got.query.as_deref()), ("POST", "/hook", Some("a=b%20c&d")));
        let address = receiver.address().to_string();
        let expected = [
            ("x-tenant", "blue, or so"),
            ("authorization", "Bearer of good news"),
            ("content-type", "application/json"),
            ("user-agent", concat!("Switchboard/", env!("CARGO_PKG_VERSION"))),
            ("host", &address),
        ];
        for (name, value) in expected {
            assert_eq!(got.headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
        }

        let other = HashMap::from([("x-other".to_owned(), "2".to_owned())]);
        let change = Webhook { id: webhook.id, headers: other, ..Default::default() };
        try_update(&server, change, Some(&["headers"])).await.unwrap();
        server.publish("a.b", "{}").await;
        let got = receiver.wait_for(2, SOON).await.remove(1);
        assert_eq!((got.header("x-other"), got.header("x-tenant"), got.header("authorization")), (Some("2"), None, None));
    }

    async fn everything_wrong_with_an_endpoint_is_said_at_once(server: Server) {
        let webhook = Webhook {
            description: "d".repeat(1_025),
            headers: HashMap::from([("Host".into(), "example.com".into())]),
            ..endpoint("", "ftp://example.com/", &["fine.*", "Not Fine", "*.created"])
        };
        let fields = [
            "webhook.name",
            "webhook.description",
            "webhook.url",
            "webhook.event_types[1]",
            "webhook.event_types[2]",
            "webhook.headers[Host]",
        ];
        status::expect_violations(&try_create(&server, webhook).await.unwrap_err(), &fields);

        let headers = |names: &[&str]| names.iter().map(|&name| (name.to_owned(), "x".to_owned())).collect();
        let with = |names: &[&str]| Webhook { headers: headers(names), ..endpoint("n", "https://example.com/", &["*"]) };
        for name in ["webhook-id", "X-Webhook-Signature", "content-type", "transfer-encoding", "a b", ""] {
            let field = format!("webhook.headers[{name}]");
            status::expect_violations(&try_create(&server, with(&[name])).await.unwrap_err(), &[&field]);
        }
        let many: Vec<_> = (0..21).map(|number| format!("x-{number}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        status::expect_violations(&try_create(&server, with(&many)).await.unwrap_err(), &["webhook.headers"]);
        try_create(&server, with(&many[..20])).await.unwrap();

        let none = endpoint("n", "https://example.com/", &[]);
        status::expect_violations(&try_create(&server, none).await.unwrap_err(), &["webhook.event_types"]);
        let long = format!("https://example.com/{}", "x".repeat(2_048));
        for url in ["", "example.com/hook", "https://", "https://u:p@example.com/", "https://example.com/#x", &long] {
            let refused = try_create(&server, endpoint("n", url, &["*"])).await.unwrap_err();
            status::expect_violations(&refused, &["webhook.url"]);
        }
        let refused = create(&server, CreateWebhookRequest::default()).await.unwrap_err();
        status::expect_violations(&refused, &["webhook"]);
        assert_eq!(list(&server, ListWebhooksRequest::default()).await.len(), 1);
    }

    async fn private_addresses_are_refused(
        server: Server = |config: &mut switchboard::config::Config| config.allow_network.clear()
    ) {
        let receiver = Receiver::start().await;
        let port = receiver.address().port();
        let urls = [
            receiver.url("/"),
            format!("http://2130706433:{port}/"),
            format!("http://0x7f.1:{port}/"),
            format!("http://[::1]:{port}/"),
            format!("http://[::ffff:127.0.0.1]:{port}/"),
            format!("http://0.0.0.0:{port}/"),
            "http://10.0.0.1/".into(),
            "https://192.168.1.1/".into(),
            "http://169.254.169.254/latest/meta-data/".into(),
            "http://[fd00:ec2::254]/".into(),
        ];
        for url in &urls {
            let refused = try_create(&server, endpoint("n", url, &["*"])).await.unwrap_err();
            status::expect_violations(&refused, &["webhook.url"]);
        }

        // What a name leads to is known only when it is resolved, and it may change: the delivery is refused.
        let named = endpoint("n", &format!("http://localhost:{port}/"), &["*"]);
        let webhook = try_create(&server, named).await.unwrap();
        for url in &urls {
            let moved = Webhook { id: webhook.id.clone(), url: url.clone(), ..Default::default() };
            let refused = try_update(&server, moved, Some(&["url"])).await.unwrap_err();
            status::expect_violations(&refused, &["webhook.url"]);
        }
        server.publish("a.b", "{}").await;
        let failed = until(&server, &webhook.id, DeliveryState::Failed).await;
        assert!(failed.last_error.contains("not allowed"), "{}", failed.last_error);
        assert_eq!((failed.attempts, failed.response_status), (1, 0), "it is not tried again");
        assert_eq!(receiver.connections(), 0);
    }

    async fn an_address_that_is_not_allowed_any_more_gets_nothing(server: Server) {
        let receiver = Receiver::start().await;
        let (webhook, _) = server.webhook_to(&receiver, &["*"]).await;
        let mut server = server;
        server.config.allow_network.clear();
        let server = server.restart().await;
        server.publish("a.b", "{}").await;
        let failed = until(&server, &webhook.id, DeliveryState::Failed).await;
        assert!(failed.last_error.contains("127.0.0.1 is not allowed"), "{}", failed.last_error);
        assert_eq!(receiver.connections(), 0);
    }

    async fn in_production_only_https_is_taken(
        server: Server = |config: &mut switchboard::config::Config| config.production = true
    ) {
        let refused = try_create(&server, endpoint("n", "http://example.com/", &["*"])).await.unwrap_err();
        status::expect_violations(&refused, &["webhook.url"]);
        let webhook = try_create(&server, endpoint("n", "https://example.com/", &["x"])).await.unwrap();
        let moved = Webhook { url: "http://example.com/".into(), ..webhook };
        let refused = try_update(&server, moved, None).await.unwrap_err();
        status::expect_violations(&refused, &["webhook.url"]);
    }
}
