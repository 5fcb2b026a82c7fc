//! A stranger with grpcurl: it knows the address and a key, has no proto files, and does the whole job.

use serde_json::{Deserializer, Value, json};
use switchboard::cli::demo::grpcurl_lines;

use crate::harness::receiver::Receiver;
use crate::harness::server::Server;
use crate::harness::tools::{self, Output, run, run_until, tool};
use crate::harness::{SOON, eventually, on_both};

const TICKET: &str = r#"{"ticket_id":7,"title":"Gate 4 is stuck","priority":"critical","created_by":"sam"}"#;

/// Runs grpcurl without any proto file.
async fn grpcurl(address: &str, key: &str, options: &[&str], rest: &[&str]) -> Output {
    run(tool("grpcurl"), arguments(address, key, options, rest), b"").await
}

fn arguments(address: &str, key: &str, options: &[&str], rest: &[&str]) -> Vec<String> {
    let header = format!("x-api-key: {key}");
    [&["-plaintext", "-H", &header], options, &[address], rest]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// Makes a call that succeeds; answers its messages.
async fn call(server: &Server, key: &str, method: &str, request: Value) -> Value {
    let request = request.to_string();
    let output =
        grpcurl(&server.address(), key, &["-d", &request], &[&format!("switchboard.{method}")]).await;
    serde_json::from_str(&output.expect_success()).unwrap()
}

/// The messages of a stream, which grpcurl prints one after the other.
fn messages(text: &str) -> Vec<Value> {
    Deserializer::from_str(text).into_iter().map_while(Result::ok).collect()
}

/// A line as a reader pastes it into a shell that finds grpcurl.
fn pasted(line: &str) -> [String; 2] {
    let folder = tools::folder().join("bin");
    ["-c".to_owned(), format!("PATH=\"{}:$PATH\"; {line}", folder.display())]
}

on_both! {
    async fn the_server_describes_itself(server: Server) {
        let admin = server.key.reveal();
        let services = grpcurl(&server.address(), admin, &[], &["list"]).await.expect_success();
        let services: Vec<_> = services.lines().collect();
        for service in [
            "grpc.health.v1.Health",
            "switchboard.apikey.v1.ApiKeyService",
            "switchboard.email.v1.EmailService",
            "switchboard.email.v1.RecipientListService",
            "switchboard.email.v1.TemplateService",
            "switchboard.event.v1.EventService",
            "switchboard.event.v1.RouteService",
            "switchboard.notification.v1.NotificationService",
            "switchboard.settings.v1.AuditService",
            "switchboard.settings.v1.SettingsService",
            "switchboard.webhook.v1.WebhookService",
        ] {
            assert!(services.contains(&service), "{service} is not in {services:?}");
            let about = grpcurl(&server.address(), admin, &[], &["describe", service]).await.expect_success();
            assert!(about.contains(&format!("{service} is a service")), "{about}");
        }
        let about = grpcurl(&server.address(), "no key at all", &[], &["describe", "switchboard.event.v1.EventService"]).await;
        let about = about.expect_success();
        assert!(about.contains("rpc PublishEvent"), "{about}");
        assert!(about.contains(r#"(.switchboard.auth.v1.scope) = "events:write""#), "the scope is shown: {about}");
        assert!(about.contains("Publishes one event."), "and the comments: {about}");
    }

    async fn every_service_is_healthy(server: Server) {
        let methods = switchboard::rpc::methods::Methods::from_descriptor(switchboard::pb::DESCRIPTOR).unwrap();
        for service in methods.services().chain([""]) {
            let request = json!({ "service": service }).to_string();
            let args = ["-plaintext", "-d", &request, &server.address(), "grpc.health.v1.Health/Check"];
            let answer = crate::harness::tools::run(tool("grpcurl"), args, b"").await.expect_success();
            assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), json!({"status": "SERVING"}), "{service}");
        }
    }

    async fn a_stranger_does_the_whole_job(server: Server) {
        let receiver = Receiver::start().await;
        let request = json!({"name": "stranger", "scopes": ["admin:*"], "expires_in_days": 7});
        let made = call(&server, server.key.reveal(), "apikey.v1.ApiKeyService/CreateApiKey", request).await;
        let key = made["key"].as_str().unwrap();

        let webhook = json!({"webhook": {"name": "desk", "url": receiver.url("/hook"), "event_types": ["ticket.*"]}});
        let webhook = call(&server, key, "webhook.v1.WebhookService/CreateWebhook", webhook).await;
        assert!(webhook["secret"].as_str().unwrap().starts_with("whsec_"), "{webhook}");
        let list = json!({"recipient_list": {"name": "gate_keepers", "addresses": ["Kim <kim@example.com>"]}});
        call(&server, key, "email.v1.RecipientListService/CreateRecipientList", list).await;
        let email = json!({
            "template": "ticket_created",
            "recipient_list": "gate_keepers",
            "variables": {"ticket_title": "data.title"},
        });
        let route = json!({"route": {
            "name": "Gates", "event_type": "ticket.created", "condition": "data.priority == 'critical'", "email": email,
        }});
        let route = call(&server, key, "event.v1.RouteService/CreateRoute", route).await;

        let first = json!({"event_type": "shift.started"});
        let first = call(&server, key, "event.v1.EventService/PublishEvent", first).await;
        let ticket = json!({"event_type": "ticket.created", "data": TICKET, "subject": "ticket:7"});
        let ticket = call(&server, key, "event.v1.EventService/PublishEvent", ticket).await;
        let event_id = ticket["eventId"].as_str().unwrap();
        let arrived = receiver.wait_for(1, SOON).await;
        assert_eq!(arrived[0].header("webhook-id"), Some(event_id));

        let outcomes = eventually("both channels are done", async || {
            let event = call(&server, key, "event.v1.EventService/GetEvent", json!({ "event_id": event_id })).await;
            let outcomes = event["outcomes"].as_array()?.clone();
            let done = outcomes.iter().all(|outcome| outcome["state"] == "DELIVERY_STATE_SUCCEEDED");
            (outcomes.len() == 2 && done).then_some(outcomes)
        })
        .await;
        assert_eq!(outcomes[0]["sourceId"], webhook["webhook"]["id"]);
        assert_eq!(outcomes[1]["sourceId"], route["route"]["id"]);

        let deliveries = json!({"webhook_id": webhook["webhook"]["id"], "states": ["DELIVERY_STATE_SUCCEEDED"]});
        let deliveries = call(&server, key, "webhook.v1.WebhookService/ListWebhookDeliveries", deliveries).await;
        assert_eq!(deliveries["deliveries"][0]["eventId"], event_id);
        let delivery = json!({"delivery_id": deliveries["deliveries"][0]["id"]});
        let delivery = call(&server, key, "webhook.v1.WebhookService/GetWebhookDelivery", delivery).await;
        assert_eq!(delivery["attempts"][0]["responseStatus"], 200);

        let mails = call(&server, key, "email.v1.EmailService/ListEmails", json!({ "event_id": event_id })).await;
        let mail = json!({"email_id": mails["emails"][0]["id"]});
        let mail = call(&server, key, "email.v1.EmailService/GetEmail", mail).await;
        assert_eq!(mail["email"]["captured"], true);
        assert_eq!(mail["email"]["subject"], "Ticket 7: Gate 4 is stuck");
        assert!(mail["htmlBody"].as_str().unwrap().contains("Gate 4 is stuck"));

        let request = json!({"cursor": first["cursor"], "event_types": ["ticket.*"]}).to_string();
        let args = arguments(&server.address(), key, &["-d", &request], &["switchboard.notification.v1.NotificationService/Subscribe"]);
        let stream = run_until(tool("grpcurl"), args, |text| messages(text).len() >= 2).await;
        let frames = messages(&stream);
        assert_eq!(frames[0]["opened"]["resumed"], true, "{stream}");
        assert_eq!((&frames[1]["events"][0]["id"], &frames[1]["events"][0]["data"]), (&json!(event_id), &json!(TICKET)));
        // The message's own cursor may be further on: past what happened since and is none of this stream's.
        assert_eq!(frames[1]["events"][0]["cursor"], ticket["cursor"]);
    }

    async fn the_lines_that_the_demo_prints_work_as_printed(server: Server) {
        let lines = grpcurl_lines(server.address().parse().unwrap(), server.key.reveal());
        let (stream, others) = lines.split_last().unwrap();
        let mut answers = Vec::new();
        for line in others {
            let output = tools::run("sh", pasted(line), b"").await;
            assert!(output.success() && output.stderr.is_empty(), "{line}\n{output:?}");
            answers.push(output.stdout);
        }
        let [list, describe, publish, event, _mails, _webhooks, key] = answers.try_into().unwrap();
        assert!(list.contains("switchboard.event.v1.EventService"), "{list}");
        assert!(describe.contains("rpc PublishEvent"), "{describe}");
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(json(&event)["event"]["id"], json(&publish)["eventId"]);
        assert_eq!(json(&key)["apiKey"]["scopes"], json!(["events:read", "email:read"]));

        // The last one ends with Ctrl-C. The shell gives its place to grpcurl, so that its end is grpcurl's too.
        let line = stream.replacen("grpcurl ", "exec grpcurl ", 1);
        let opened = run_until("sh", pasted(&line), |text| !messages(text).is_empty()).await;
        assert_eq!(messages(&opened)[0]["opened"]["heartbeatInterval"], "20s", "{opened}");
    }
}
