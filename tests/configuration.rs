//! The configuration as a document: there and back over both databases, with secrets that still sign; all of it or nothing, and
//! the same a second time is no change.

use std::collections::HashMap;

use serde_json::{Value, json};
use switchboard_client::Client;
use switchboard_client::email::v1::{CreateTemplateRequest, Template, TemplateVariable};
use switchboard_client::event::v1::email_target::Recipients;
use switchboard_client::event::v1::route::Target;
use switchboard_client::event::v1::{
    CreateEventTypeRequest, CreateRouteRequest, EmailTarget, EventType, ListRoutesRequest, Route,
};
use switchboard_client::settings::v1::{
    ExportConfigurationRequest, ExportConfigurationResponse, ImportConfigurationRequest,
    ImportConfigurationResponse, ImportedSection, ListAuditEntriesRequest, VerifyAuditLogRequest,
};
use switchboard_client::webhook::v1::{CreateWebhookRequest, ListWebhooksRequest, Webhook, WebhookSigning};
use tonic::{Code, Status};

use crate::command_line::switchboard_in;
use crate::harness::receiver::Receiver;
use crate::harness::server::{Backend, Server};
use crate::harness::tls::Authority;
use crate::harness::{SOON, on_both, status};
use crate::settings::{get, in_database, set, value};
use crate::signatures::{Case, assert_verdicts};

const PASSPHRASE: &str = "a long passphrase";
const PASSWORD: &str = "correct-horse-battery";
const TOKEN: &str = "Bearer hunter-two-and-a-half";
const ALL: [&str; 6] = ["settings", "event_types", "recipient_lists", "templates", "routes", "webhooks"];

async fn export(client: &Client, passphrase: &str) -> ExportConfigurationResponse {
    let request = ExportConfigurationRequest { passphrase: passphrase.into(), sections: Vec::new() };
    client.configuration().export_configuration(request).await.unwrap().into_inner()
}

async fn import(
    client: &Client,
    request: ImportConfigurationRequest,
) -> Result<ImportConfigurationResponse, Status> {
    Ok(client.configuration().import_configuration(request).await?.into_inner())
}

fn open(document: &str) -> ImportConfigurationRequest {
    ImportConfigurationRequest { document: document.into(), ..Default::default() }
}

fn sealed(document: &str) -> ImportConfigurationRequest {
    ImportConfigurationRequest { passphrase: PASSPHRASE.into(), ..open(document) }
}

fn sections(document: &str) -> Value {
    serde_json::from_str::<Value>(document).unwrap()["sections"].clone()
}

fn is_unchanged(section: &ImportedSection) -> bool {
    section.created.is_empty() && section.updated.is_empty() && section.removed.is_empty()
}

async fn webhook(client: &Client, webhook: Webhook) -> (String, String) {
    let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
    let made = client.webhooks().create_webhook(request).await.unwrap().into_inner();
    (made.webhook.unwrap().id, made.secret)
}

async fn webhooks(client: &Client) -> Vec<Webhook> {
    client.webhooks().list_webhooks(ListWebhooksRequest::default()).await.unwrap().into_inner().webhooks
}

/// Configures something of everything; answers the id and the secret of the endpoint at the receiver.
async fn fill(server: &Server, receiver: &Receiver) -> (String, String) {
    let client = &server.client;
    set(
        client,
        json!({"email.smtp_password": PASSWORD, "email.smtp_port": 2525, "general.company_name": "Müller"}),
    )
    .await;
    let name = "ticket.moved";
    let event_type = EventType {
        name: name.into(),
        description: "A ticket was moved.".into(),
        json_schema: r#"{"type":"object"}"#.into(),
        sample: r#"{"ticket_id":"1"}"#.into(),
        ..Default::default()
    };
    let request = CreateEventTypeRequest { event_type: Some(event_type) };
    client.events().create_event_type(request).await.unwrap();
    server.put_on_list("low_stock", &["store@example.com", "keeper@example.com"]).await;
    let variable = TemplateVariable { name: "topic".into(), required: true, ..Default::default() };
    let note = Template {
        name: "note".into(),
        description: "A note.".into(),
        variables: vec![variable],
        subject: "About {{ topic }}".into(),
        html_body: "<p>{{ topic }}</p>".into(),
        ..Default::default()
    };
    let french = Template {
        locale: "fr".into(),
        description: String::new(),
        variables: Vec::new(),
        subject: "Sur {{ topic }}".into(),
        ..note.clone()
    };
    for template in [note, french] {
        let request = CreateTemplateRequest { template: Some(template) };
        client.templates().create_template(request).await.unwrap();
    }
    let email = EmailTarget {
        template: "note".into(),
        recipients: Some(Recipients::RecipientList("low_stock".into())),
        variables: HashMap::from([("topic".into(), "data.topic".into())]),
    };
    let target = Some(Target::Email(email));
    let (name, event_type) = ("notes".into(), name.into());
    let route = Some(Route { name, event_type, target, ..Default::default() });
    client.routes().create_route(CreateRouteRequest { route, inactive: false }).await.unwrap();

    let identity = Authority::new().await.client("switchboard").await;
    let mutual = Webhook {
        name: "mutual".into(),
        url: "https://127.0.0.1:9443/".into(),
        event_types: vec!["never.*".into()],
        client_certificate: identity.certificate,
        client_key: identity.key,
        signing: WebhookSigning::Ed25519.into(),
        ..Default::default()
    };
    webhook(client, mutual).await;
    let ours = Webhook {
        name: "ours".into(),
        url: receiver.url("/"),
        event_types: vec!["ticket.*".into()],
        headers: HashMap::from([("authorization".into(), TOKEN.into())]),
        ..Default::default()
    };
    webhook(client, ours).await
}

/// The endpoint of this server gets an event, signed with this secret.
async fn delivers(server: &Server, receiver: &Receiver, secret: &str) {
    let before = receiver.received().len();
    server.publish("ticket.moved", r#"{"ticket_id":"7","topic":"x"}"#).await;
    let request = receiver.wait_for(before + 1, SOON).await.remove(before);
    assert_eq!(request.header("authorization"), Some(TOKEN));
    assert_verdicts(&[Case::of(&request, secret)], true, true).await;
}

async fn there_and_back(from: Backend, to: Backend) {
    let receiver = Receiver::start().await;
    let (one, other) = (Server::start(from).await, Server::start(to).await);
    let (id, secret) = fill(&one, &receiver).await;
    delivers(&one, &receiver, &secret).await;
    let exported = export(&one.client, PASSPHRASE).await;
    assert!(exported.omitted_secrets.is_empty() && exported.omitted_sections.is_empty(), "{exported:?}");
    for text in [PASSWORD, TOKEN, &secret, "PRIVATE KEY"] {
        assert!(!exported.document.contains(text), "{}", exported.document);
    }

    let request = sealed(&exported.document);
    let before = export(&other.client, "").await;
    let tried = ImportConfigurationRequest { validate_only: true, ..request.clone() };
    let tried = import(&other.client, tried).await.unwrap();
    let now = export(&other.client, "").await;
    assert_eq!(sections(&now.document), sections(&before.document), "it was only tried");
    let done = import(&other.client, request.clone()).await.unwrap();
    assert_eq!(done, tried, "what was tried is what is done");
    assert_eq!(done.sections.iter().map(|one| one.section.as_str()).collect::<Vec<_>>(), ALL);
    let of = |name: &str| done.sections.iter().find(|one| one.section == name).unwrap();
    assert_eq!(of("templates").created, ["note", "note/fr"]);
    assert_eq!(
        (&of("routes").created[..], &of("recipient_lists").updated[..]),
        (&["notes".to_owned()][..], &["low_stock".to_owned()][..])
    );
    assert!(of("webhooks").created.contains(&id) && of("webhooks").created.len() == 2);
    assert!(done.missing_secrets.is_empty());
    assert!(!in_database(&other, PASSWORD).await && !in_database(&other, &secret).await);
    delivers(&other, &receiver, &secret).await;

    // The same again changes nothing, and leaves no entry.
    let entries = audited(&other.client).await;
    let again = import(&other.client, ImportConfigurationRequest { prune: true, ..request }).await.unwrap();
    assert!(again.sections.iter().all(is_unchanged), "{again:?}");
    assert_eq!(audited(&other.client).await, entries);

    // And back: here everything is as it is there.
    let back = export(&other.client, PASSPHRASE).await;
    assert_eq!(sections(&back.document), sections(&exported.document));
    let here = ImportConfigurationRequest { prune: true, ..sealed(&back.document) };
    let here = import(&one.client, here).await.unwrap();
    assert!(here.sections.iter().all(is_unchanged), "the secrets neither: {here:?}");
    delivers(&one, &receiver, &secret).await;
    other.stop().await;
}

async fn audited(client: &Client) -> Vec<String> {
    let request = ListAuditEntriesRequest { page_size: 500, ..Default::default() };
    let entries = client.audit().list_audit_entries(request).await.unwrap().into_inner().entries;
    let verified = client.audit().verify_audit_log(VerifyAuditLogRequest::default()).await.unwrap();
    assert!(verified.into_inner().ok);
    entries.into_iter().map(|entry| format!("{} {}", entry.action, entry.resource_id)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_sqlite_to_postgres_and_back_nothing_is_lost() {
    there_and_back(Backend::Sqlite, Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_postgres_to_sqlite_and_back_nothing_is_lost() {
    there_and_back(Backend::Postgres, Backend::Sqlite).await;
}

on_both! {
    async fn what_can_not_be_read_or_opened_changes_nothing(server: Server) {
        let receiver = Receiver::start().await;
        fill(&server, &receiver).await;
        let exported = export(&server.client, PASSPHRASE).await.document;
        set(&server.client, json!({"email.smtp_port": 1})).await;
        let entries = audited(&server.client).await;
        let wrong = ImportConfigurationRequest { passphrase: "another passphrase".into(), ..open(&exported) };
        for (request, field) in [
            (wrong, "passphrase"),
            (open(&exported), "passphrase"),
            // A secret is bound to the address that it is for.
            (sealed(&exported.replace(&receiver.url("/"), "https://evil.example.com/")), "passphrase"),
            (sealed(&exported.replace("argon2id", "md5")), "document.secrets"),
            (sealed(&exported[..exported.len() / 2]), "document"),
            (sealed(&exported.replace("\"version\": 1", "\"version\": 2")), "document"),
            (sealed(&exported.replace("switchboard.configuration", "switchboard.settings")), "document"),
            (sealed(&exported.replace("\"exported_at\"", "\"exported\"")), "document"),
        ] {
            let refused = import(&server.client, request).await.unwrap_err();
            status::expect_violations(&refused, &[field]);
        }
        assert_eq!(audited(&server.client).await, entries);
        assert_eq!(value(&get(&server.client, "email.smtp_port").await), 1);
    }

    async fn all_that_is_wrong_is_named_and_nothing_of_it_is_kept(server: Server) {
        let before = export(&server.client, "").await.document;
        let mut document: Value = serde_json::from_str(&before).unwrap();
        document["sections"] = json!({
            "settings": {"general.company_name": "Kept?", "email.smtp_port": 0},
            "recipient_lists": {"fine": {"addresses": ["a@example.com"]}, "Not Fine": {"addresses": []}},
            "templates": {"note": {"subject": "{{ nothing }}", "html_body": "<p>x</p>", "plain_body": ""}},
            "routes": {"lost": {"event_type": "a.b", "active": true,
                "target": {"email": {"template": "none", "recipients": {"list": "fine"}, "variables": {}}}}},
            "webhooks": {"wh_1": {"name": "x", "event_types": ["*"], "active": true, "signing": "hmac"}},
        });
        let refused = import(&server.client, open(&document.to_string())).await.unwrap_err();
        status::expect_violations(&refused, &[
            "document.sections.settings[email.smtp_port]",
            "document.sections.recipient_lists[Not Fine].name",
            "document.sections.templates[note].subject",
            "document.sections.routes[lost].email.template",
            "document.sections.webhooks[wh_1].id",
        ]);
        document["sections"] = json!({"chats": {}});
        let refused = import(&server.client, open(&document.to_string())).await.unwrap_err();
        status::expect_violations(&refused, &["document.sections[chats]"]);
        assert_eq!(sections(&export(&server.client, "").await.document), sections(&before));
    }

    async fn without_secrets_those_that_are_there_stay_and_a_new_endpoint_gets_its_own(server: Server) {
        let receiver = Receiver::start().await;
        let (id, secret) = fill(&server, &receiver).await;
        let exported = export(&server.client, "").await;
        assert!(exported.omitted_secrets.contains(&"settings/email.smtp_password/value".to_owned()));
        for kind in ["secret", "headers"] {
            assert!(exported.omitted_secrets.contains(&format!("webhooks/{id}/{kind}")), "{exported:?}");
        }
        let everything = ImportConfigurationRequest { prune: true, ..open(&exported.document) };
        let here = import(&server.client, everything.clone()).await.unwrap();
        assert!(here.sections.iter().all(is_unchanged), "{here:?}");
        assert!(get(&server.client, "email.smtp_password").await.secret_set);
        delivers(&server, &receiver, &secret).await;

        let other = Server::start(Backend::Sqlite).await;
        let there = import(&other.client, everything).await.unwrap();
        assert!(there.missing_secrets.contains(&format!("webhooks/{id}/secret")), "{there:?}");
        assert!(there.missing_secrets.iter().any(|name| name.ends_with("/client_key")), "{there:?}");
        assert_eq!(webhooks(&other.client).await.len(), 2);
        other.stop().await;
    }

    async fn what_is_pruned_goes_and_what_is_not_spoken_of_stays(server: Server) {
        let receiver = Receiver::start().await;
        let empty = export(&server.client, "").await.document;
        fill(&server, &receiver).await;
        let kept = import(&server.client, open(&empty)).await.unwrap();
        assert!(kept.sections.iter().all(|section| section.removed.is_empty()), "{kept:?}");
        assert_eq!(webhooks(&server.client).await.len(), 2);
        let pruned = import(&server.client, ImportConfigurationRequest { prune: true, ..open(&empty) }).await.unwrap();
        let removed = |name: &str| &pruned.sections.iter().find(|one| one.section == name).unwrap().removed;
        assert_eq!((removed("templates").len(), removed("routes").len(), removed("webhooks").len()), (2, 1, 2));
        assert_eq!(removed("settings"), &["email.smtp_password", "email.smtp_port", "general.company_name"]);
        assert_eq!(sections(&export(&server.client, "").await.document), sections(&empty));
        assert!(webhooks(&server.client).await.is_empty());
        let routes = server.client.routes().list_routes(ListRoutesRequest::default()).await.unwrap().into_inner().routes;
        assert!(routes.iter().all(|route| route.name != "notes"));
        // One section alone touches no other.
        let lists = ExportConfigurationRequest { sections: vec!["recipient_lists".into()], ..Default::default() };
        let lists = server.client.configuration().export_configuration(lists).await.unwrap().into_inner().document;
        let done = import(&server.client, ImportConfigurationRequest { prune: true, ..open(&lists) }).await.unwrap();
        assert_eq!(done.sections.len(), 1);
    }

    async fn a_section_needs_its_own_scope(server: Server) {
        let receiver = Receiver::start().await;
        fill(&server, &receiver).await;
        let narrow = server.client_that_may(&["settings:export", "settings:write", "routes:read", "webhooks:read"]).await;
        let some = export(&narrow, PASSPHRASE).await;
        assert_eq!(some.omitted_sections, ["event_types", "recipient_lists", "templates", "webhooks"]);
        let sections: Value = sections(&some.document);
        assert_eq!(sections.as_object().unwrap().keys().collect::<Vec<_>>(), ["routes", "settings"]);
        let asked = ExportConfigurationRequest { sections: vec!["webhooks".into()], ..Default::default() };
        let refused = narrow.configuration().export_configuration(asked).await.unwrap_err();
        status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");
        let refused = import(&narrow, sealed(&some.document)).await.unwrap_err();
        status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");
        let wider = server.client_that_may(&["settings:write", "routes:write"]).await;
        import(&wider, sealed(&some.document)).await.unwrap();
    }

    async fn pinned_settings_refuse_all_of_it_unless_they_are_skipped(server: Server = |config| {
        config.set = vec!["email.smtp_port=26".into()];
    }) {
        let (other, receiver) = (Server::start(Backend::Sqlite).await, Receiver::start().await);
        fill(&other, &receiver).await;
        let exported = export(&other.client, PASSPHRASE).await.document;
        let refused = import(&server.client, sealed(&exported)).await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "SETTING_PINNED");
        assert!(webhooks(&server.client).await.is_empty(), "all or nothing");
        let skipped = ImportConfigurationRequest { skip_pinned: true, prune: true, ..sealed(&exported) };
        import(&server.client, skipped).await.unwrap();
        assert_eq!(value(&get(&server.client, "email.smtp_port").await), 26);
        assert_eq!(webhooks(&server.client).await.len(), 2);
        other.stop().await;
    }

    async fn the_command_line_exports_and_imports(server: Server) {
        let receiver = Receiver::start().await;
        let (_, secret) = fill(&server, &receiver).await;
        let other = Server::start(Backend::Sqlite).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("configuration.json").display().to_string();
        let passphrase = format!("SWITCHBOARD_PASSPHRASE={PASSPHRASE}");
        let (here, there) = (server.url(), other.url());
        let args = ["export", "--out", &file, "--server", &here, "--key", server.key.reveal()];
        switchboard_in(&[&passphrase], &args).await.expect_success();
        let args = ["import", &file, "--server", &there, "--key", other.key.reveal()];
        let tried = switchboard_in(&[&passphrase], &[&args[..], &["--dry-run"]].concat()).await.expect_success();
        assert!(tried.contains("routes: notes would be made"), "{tried}");
        let refused = switchboard_in(&[], &args).await;
        assert!(refused.code == Some(1) && refused.stderr.contains("passphrase: must be given"), "{refused:?}");
        let done = switchboard_in(&[&passphrase], &args).await.expect_success();
        assert!(done.contains("templates: note/fr made"), "{done}");
        delivers(&other, &receiver, &secret).await;
        other.stop().await;
    }
}
