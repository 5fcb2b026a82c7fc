//! The audit log: every change leaves one entry, no entry holds a secret, and what is done to the log is found.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use prost_types::FieldMask;
use serde_json::{Value, json};
use switchboard::audit::{AuditService, Change, Checkpoint, Fault, Problem, Recorder, Report, fields};
use switchboard::clock::SystemClock;
use switchboard::db::{Db, Target, execute};
use switchboard::rpc::convert::json as json_object;
use switchboard_client::Client;
use switchboard_client::apikey::v1::{
    ApiKey, CreateApiKeyRequest, CreateScopeRequest, DeleteScopeRequest, RevokeApiKeyRequest,
    RotateApiKeyRequest, UpdateApiKeyRequest,
};
use switchboard_client::email::v1::{
    CreateRecipientListRequest, CreateSuppressionRequest, CreateTemplateRequest, DeleteRecipientListRequest,
    DeleteSuppressionRequest, DeleteTemplateRequest, RecipientList, Suppression, Template,
    UpdateRecipientListRequest, UpdateSuppressionRequest, UpdateTemplateRequest,
};
use switchboard_client::event::v1::email_target::Recipients;
use switchboard_client::event::v1::route::Target as RouteTarget;
use switchboard_client::event::v1::{
    CreateEventTypeRequest, CreateRouteRequest, DeleteEventTypeRequest, DeleteRouteRequest, EmailTarget,
    EventType, Route, UpdateEventTypeRequest, UpdateRouteRequest,
};
use switchboard_client::settings::v1::{
    AuditEntry, AuditProblem, ExportAuditLogRequest, ListAuditEntriesRequest, ResetSettingsRequest,
    UpdateSettingsRequest, VerifyAuditLogRequest, VerifyAuditLogResponse,
};
use switchboard_client::webhook::v1::{
    CreateWebhookRequest, DeleteWebhookRequest, RotateWebhookSecretRequest, UpdateWebhookRequest, Webhook,
};
use tonic::{Code, Request};

use crate::command_line::switchboard;
use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::server::{Backend, Server};
use crate::harness::{eventually, on_both, postgres, status};
use crate::settings::{change, set};

const REASON: &str = "ticket 4711";

/// A request that says why, and how it is called.
fn why<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-change-reason", REASON.parse().unwrap());
    request.metadata_mut().insert("x-request-id", "request-7".parse().unwrap());
    request
}

fn mask(path: &str) -> Option<FieldMask> {
    Some(FieldMask { paths: vec![path.into()] })
}

async fn list(client: &Client, request: ListAuditEntriesRequest) -> Vec<AuditEntry> {
    client.audit().list_audit_entries(request).await.unwrap().into_inner().entries
}

/// The whole log, the oldest entry first.
async fn export(client: &Client) -> Vec<AuditEntry> {
    let stream =
        client.audit().export_audit_log(ExportAuditLogRequest::default()).await.unwrap().into_inner();
    stream.map_ok(|answer| answer.entry.unwrap()).try_collect().await.unwrap()
}

async fn verify(client: &Client) -> VerifyAuditLogResponse {
    client.audit().verify_audit_log(VerifyAuditLogRequest::default()).await.unwrap().into_inner()
}

/// Runs SQL as somebody who can write to the tables.
async fn tamper(db: &Db, sql: impl Into<String>) {
    let sql = sql.into();
    db.transaction(move |conn| Box::pin(async move { execute(conn, &sql).await })).await.unwrap();
}

fn before(entry: &AuditEntry) -> Value {
    json_object(entry.before.clone().unwrap()).into()
}

fn after(entry: &AuditEntry) -> Value {
    json_object(entry.after.clone().unwrap()).into()
}

/// Follows the log while changes are made.
struct Follower<'a> {
    server: &'a Server,
    actor: String,
    seen: usize,
}

impl<'a> Follower<'a> {
    async fn new(server: &'a Server) -> Self {
        let log = export(&server.client).await;
        Self { server, actor: log[0].resource_id.clone(), seen: log.len() }
    }

    async fn news(&mut self) -> Vec<AuditEntry> {
        let news = export(&self.server.client).await.split_off(self.seen);
        self.seen += news.len();
        news
    }

    /// The one entry since the last look, which tells this.
    async fn one(&mut self, action: &str, id: &str) -> AuditEntry {
        let mut news = self.news().await;
        assert_eq!(news.len(), 1, "{action}: {news:?}");
        let entry = news.remove(0);
        assert_eq!((entry.action.as_str(), entry.resource_id.as_str()), (action, id));
        assert_eq!(entry.resource_type, action.split('.').next().unwrap());
        assert_eq!((&entry.actor, entry.reason.as_str()), (&self.actor, REASON), "{action}");
        assert_eq!((entry.request_id.as_str(), entry.client_address.as_str()), ("request-7", "127.0.0.1"));
        assert_eq!(entry.seq, self.seen as i64);
        assert!(entry.create_time.is_some());
        entry
    }
}

/// Verifies with a checkpoint.
async fn verify_with(client: &Client, checkpoint: &str) -> Result<VerifyAuditLogResponse, tonic::Status> {
    let request = VerifyAuditLogRequest { checkpoint: checkpoint.into(), ..Default::default() };
    Ok(client.audit().verify_audit_log(request).await?.into_inner())
}

on_both! {
    async fn old_entries_go_and_what_is_left_is_verified(server: Server) {
        let (client, day) = (&server.client, Duration::from_secs(24 * 60 * 60));
        for name in ["one", "two"] {
            set(client, json!({"general.company_name": name})).await;
        }
        let old = export(client).await;
        let early = verify(client).await.checkpoint;
        server.clock.advance(31 * day);
        set(client, json!({"audit.retention_days": 30})).await;
        server.advance(Duration::from_secs(1));
        let left = eventually("what is old goes", async || {
            let left = export(client).await;
            (left[0].seq > old.len() as i64).then_some(left)
        }).await;
        let actions: Vec<_> = left.iter().map(|entry| entry.action.as_str()).collect();
        assert_eq!(actions, ["settings.update", "audit_log.prune"]);
        assert_eq!(after(&left[1])["last_seq"], json!(old.len()));
        let whole = verify(client).await;
        assert!(whole.ok && whole.checked == 2, "{whole:?}");
        // The last that went is still known, an older one is not.
        assert!(verify_with(client, &early).await.unwrap().ok);
        let older = format!("1:{}", early.split(':').next_back().unwrap());
        status::expect_violations(&verify_with(client, &older).await.unwrap_err(), &["checkpoint"]);

        // Whoever can write to the tables can not remove entries as if it were for their age.
        let db = Db::open(&server.config.database).await.unwrap();
        tamper(&db, format!("DELETE FROM audit_log WHERE seq = {}", old.len() + 1)).await;
        assert!(!verify(client).await.ok);
        tamper(&db, "UPDATE audit_base SET seq = seq + 1, hash = (SELECT prev_hash FROM audit_log ORDER BY seq LIMIT 1)").await;
        assert_eq!(verify(client).await.first_bad_seq, 1, "a base that the key did not make is none");
        server.clock.advance(31 * day);
        server.advance(Duration::from_secs(1));
        assert_eq!(export(client).await.len(), 1, "what was tampered with is not removed");
    }

    async fn every_change_leaves_one_entry(server: Server) {
        let client = &server.client;
        let mut log = Follower::new(&server).await;

        let mut wanted = change(&json!({"general.company_name": "Ours"}));
        wanted.reason = "a new name".into();
        let mut request = why(wanted);
        request.metadata_mut().remove("x-change-reason");
        client.settings().update_settings(request).await.unwrap();
        let news = log.news().await;
        assert_eq!((news.len(), news[0].action.as_str(), news[0].reason.as_str()), (1, "settings.update", "a new name"));
        assert_eq!((before(&news[0]), after(&news[0])), (json!({}), json!({"general.company_name": "Ours"})));
        let reset = ResetSettingsRequest { keys: vec!["general.company_name".into()], ..Default::default() };
        client.settings().reset_settings(why(reset)).await.unwrap();
        let entry = log.one("settings.reset", "").await;
        assert_eq!((before(&entry), after(&entry)), (json!({"general.company_name": "Ours"}), json!({})));

        let new = CreateApiKeyRequest { name: "till".into(), scopes: vec!["events:read".into()], ..Default::default() };
        let made = client.api_keys().create_api_key(why(new)).await.unwrap().into_inner().api_key.unwrap();
        let entry = log.one("api_key.create", &made.id).await;
        assert_eq!(after(&entry)["scopes"], json!(["events:read"]));
        let named = ApiKey { id: made.id.clone(), name: "desk".into(), ..Default::default() };
        let request = UpdateApiKeyRequest { api_key: Some(named), update_mask: mask("name") };
        client.api_keys().update_api_key(why(request)).await.unwrap();
        let entry = log.one("api_key.update", &made.id).await;
        assert_eq!((before(&entry), after(&entry)), (json!({"name": "till"}), json!({"name": "desk"})));
        let rotate = RotateApiKeyRequest { api_key_id: made.id.clone(), ..Default::default() };
        let new = client.api_keys().rotate_api_key(why(rotate)).await.unwrap().into_inner().api_key.unwrap();
        let entry = log.one("api_key.rotate", &made.id).await;
        assert_eq!(after(&entry)["replaced_by"], json!(new.id));
        let revoke = RevokeApiKeyRequest { api_key_id: new.id.clone() };
        client.api_keys().revoke_api_key(why(revoke.clone())).await.unwrap();
        assert_eq!(before(&log.one("api_key.revoke", &new.id).await), json!({"active": true}));
        client.api_keys().revoke_api_key(why(revoke)).await.unwrap();
        assert!(log.news().await.is_empty(), "it was revoked before");
        let scope = CreateScopeRequest { name: "tills:read".into(), description: "Tills".into() };
        client.api_keys().create_scope(why(scope)).await.unwrap();
        log.one("scope.create", "tills:read").await;
        client.api_keys().delete_scope(why(DeleteScopeRequest { name: "tills:read".into() })).await.unwrap();
        log.one("scope.delete", "tills:read").await;

        let webhook = Webhook {
            name: "desk".into(),
            url: "http://127.0.0.1:9/".into(),
            event_types: vec!["a.*".into()],
            ..Default::default()
        };
        let request = CreateWebhookRequest { webhook: Some(webhook.clone()), ..Default::default() };
        let made = client.webhooks().create_webhook(why(request)).await.unwrap().into_inner().webhook.unwrap();
        let created = log.one("webhook.create", &made.id).await;
        let webhook = Webhook { id: made.id.clone(), name: "till".into(), ..webhook };
        let request = UpdateWebhookRequest { webhook: Some(webhook), update_mask: mask("name") };
        client.webhooks().update_webhook(why(request)).await.unwrap();
        let entry = log.one("webhook.update", &made.id).await;
        assert_eq!((before(&entry), after(&entry)), (json!({"name": "desk"}), json!({"name": "till"})));
        let rotate = RotateWebhookSecretRequest { webhook_id: made.id.clone(), ..Default::default() };
        client.webhooks().rotate_webhook_secret(why(rotate)).await.unwrap();
        let entry = log.one("webhook.rotate_secret", &made.id).await;
        assert_eq!(before(&entry)["secret"], after(&created)["secret"], "the fingerprint tells them apart");
        assert_ne!(before(&entry)["secret"], after(&entry)["secret"]);
        let delete = DeleteWebhookRequest { webhook_id: made.id.clone(), ..Default::default() };
        client.webhooks().delete_webhook(why(delete)).await.unwrap();
        assert_eq!(before(&log.one("webhook.delete", &made.id).await)["name"], json!("till"));

        let named = |description: &str| EventType { name: "a.b".into(), description: description.into(), ..Default::default() };
        let request = CreateEventTypeRequest { event_type: Some(named("one")) };
        client.events().create_event_type(why(request)).await.unwrap();
        log.one("event_type.create", "a.b").await;
        let request = UpdateEventTypeRequest { event_type: Some(named("two")), update_mask: mask("description") };
        client.events().update_event_type(why(request)).await.unwrap();
        let entry = log.one("event_type.update", "a.b").await;
        assert_eq!((before(&entry), after(&entry)), (json!({"description": "one"}), json!({"description": "two"})));
        client.events().delete_event_type(why(DeleteEventTypeRequest { name: "a.b".into() })).await.unwrap();
        log.one("event_type.delete", "a.b").await;

        let crew = |address: &str| RecipientList { name: "crew".into(), addresses: vec![address.into()], ..Default::default() };
        let request = CreateRecipientListRequest { recipient_list: Some(crew("a@example.com")) };
        client.recipient_lists().create_recipient_list(why(request)).await.unwrap();
        log.one("recipient_list.create", "crew").await;
        let request = UpdateRecipientListRequest { recipient_list: Some(crew("b@example.com")), update_mask: None };
        client.recipient_lists().update_recipient_list(why(request)).await.unwrap();
        let entry = log.one("recipient_list.update", "crew").await;
        assert_eq!(after(&entry), json!({"addresses": ["b@example.com"]}));

        let email = EmailTarget {
            template: "system_alert".into(),
            recipients: Some(Recipients::RecipientList("crew".into())),
            ..Default::default()
        };
        let email = EmailTarget {
            variables: [("alert_message".to_owned(), "data.text".to_owned())].into(),
            ..email
        };
        let route = Route {
            name: "Crew".into(),
            event_type: "a.*".into(),
            target: Some(RouteTarget::Email(email)),
            ..Default::default()
        };
        let request = CreateRouteRequest { route: Some(route.clone()), ..Default::default() };
        let made = client.routes().create_route(why(request)).await.unwrap().into_inner().route.unwrap();
        log.one("route.create", &made.id).await;
        let route = Route { id: made.id.clone(), name: "All".into(), ..route };
        let request = UpdateRouteRequest { route: Some(route), update_mask: mask("name") };
        client.routes().update_route(why(request)).await.unwrap();
        let entry = log.one("route.update", &made.id).await;
        assert_eq!((before(&entry), after(&entry)), (json!({"name": "Crew"}), json!({"name": "All"})));
        client.routes().delete_route(why(DeleteRouteRequest { route_id: made.id.clone() })).await.unwrap();
        log.one("route.delete", &made.id).await;
        client.recipient_lists().delete_recipient_list(why(DeleteRecipientListRequest { name: "crew".into() })).await.unwrap();
        log.one("recipient_list.delete", "crew").await;

        let about = |detail: &str| Suppression { address: "A@Example.com".into(), detail: detail.into(), ..Default::default() };
        let request = CreateSuppressionRequest { suppression: Some(about("one")) };
        client.suppressions().create_suppression(why(request)).await.unwrap();
        log.one("suppression.create", "a@example.com").await;
        let request = UpdateSuppressionRequest { suppression: Some(about("two")), update_mask: mask("detail") };
        client.suppressions().update_suppression(why(request)).await.unwrap();
        let entry = log.one("suppression.update", "a@example.com").await;
        assert_eq!((before(&entry), after(&entry)), (json!({"detail": "one"}), json!({"detail": "two"})));
        let request = DeleteSuppressionRequest { address: "a@example.com".into(), topic: String::new() };
        client.suppressions().delete_suppression(why(request)).await.unwrap();
        log.one("suppression.delete", "a@example.com").await;

        let note = |subject: &str| Template {
            name: "note".into(),
            subject: subject.into(),
            html_body: format!("<p>{}</p>", "long ".repeat(2_000)),
            ..Default::default()
        };
        client.templates().create_template(why(CreateTemplateRequest { template: Some(note("One")) })).await.unwrap();
        let entry = log.one("template.create", "note").await;
        assert!(after(&entry)["html_body"].as_str().unwrap().starts_with("sha256:"), "{entry:?}");
        let request = UpdateTemplateRequest { template: Some(note("Two")), update_mask: mask("subject") };
        client.templates().update_template(why(request)).await.unwrap();
        let entry = log.one("template.update", "note").await;
        assert_eq!((before(&entry)["subject"].clone(), after(&entry)["subject"].clone()), (json!("One"), json!("Two")));
        let request = DeleteTemplateRequest { name: "note".into(), ..Default::default() };
        client.templates().delete_template(why(request)).await.unwrap();
        log.one("template.delete", "note").await;

        let verified = verify(client).await;
        assert_eq!((verified.ok, verified.checked), (true, log.seen as i64), "{verified:?}");
    }

    async fn a_refused_change_leaves_no_entry(server: Server) {
        let client = &server.client;
        let mut log = Follower::new(&server).await;
        let invalid = change(&json!({"general.company_name": 7}));
        client.settings().update_settings(invalid).await.unwrap_err();
        let trial = UpdateSettingsRequest { validate_only: true, ..change(&json!({"general.company_name": "Ours"})) };
        client.settings().update_settings(trial).await.unwrap();
        let late = UpdateSettingsRequest { etag: "77".into(), ..change(&json!({"general.company_name": "Ours"})) };
        client.settings().update_settings(late).await.unwrap_err();
        client.webhooks().create_webhook(CreateWebhookRequest::default()).await.unwrap_err();
        let webhook = Webhook { name: "a".into(), url: "http://127.0.0.1:9/".into(), event_types: vec!["a".into()], ..Default::default() };
        let trial = CreateWebhookRequest { webhook: Some(webhook), validate_only: true, ..Default::default() };
        client.webhooks().create_webhook(trial).await.unwrap();
        let nobody = RevokeApiKeyRequest { api_key_id: "key_x".into() };
        client.api_keys().revoke_api_key(nobody).await.unwrap_err();
        client.routes().delete_route(DeleteRouteRequest { route_id: "route_x".into() }).await.unwrap_err();
        let built_in = EventType { name: "ticket.created".into(), ..Default::default() };
        client.events().create_event_type(CreateEventTypeRequest { event_type: Some(built_in) }).await.unwrap_err();
        let mut request = why(change(&json!({"general.company_name": "Ours"})));
        request.metadata_mut().insert("x-change-reason", "a".repeat(501).parse().unwrap());
        let refused = client.settings().update_settings(request).await.unwrap_err();
        status::expect_violations(&refused, &["x-change-reason"]);
        assert!(log.news().await.is_empty());
        assert!(verify(client).await.ok);
    }

    async fn what_the_server_changes_itself_is_the_systems(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/gone", Behaviour::Status(410));
        let (webhook, _) = server.webhook(&receiver.url("/gone"), &["a.*"]).await;
        server.publish("a.b", "{}").await;
        let disabled = ListAuditEntriesRequest { action_prefix: "webhook.disable".into(), ..Default::default() };
        let entry = eventually("it is disabled", async || {
            server.advance(Duration::from_secs(60));
            list(&server.client, disabled.clone()).await.pop()
        });
        let entry = entry.await;
        assert_eq!((entry.actor.as_str(), &entry.resource_id), ("system", &webhook.id));
        assert_eq!(before(&entry), json!({"active": true}));
        assert_eq!(after(&entry)["active"], json!(false));
        assert!(after(&entry)["disabled_reason"].as_str().unwrap().contains("410"), "{entry:?}");
        let first = &export(&server.client).await[0];
        assert_eq!((first.actor.as_str(), first.action.as_str(), first.previous_hash.as_str()), ("system", "api_key.create", ""));
        assert!(verify(&server.client).await.ok);
    }

    async fn no_entry_holds_a_secret(server: Server) {
        let client = &server.client;
        let secrets = ["hunter2-hunter2", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4", "Bearer hush-hush"];
        set(client, json!({"email.smtp_password": secrets[0]})).await;
        set(client, json!({"email.smtp_password": "another-one-entirely"})).await;
        let webhook = Webhook {
            name: "desk".into(),
            url: "http://127.0.0.1:9/".into(),
            event_types: vec!["a.*".into()],
            headers: [("authorization".to_owned(), secrets[3].to_owned())].into(),
            ..Default::default()
        };
        let request = CreateWebhookRequest { webhook: Some(webhook), secret: secrets[1].into(), ..Default::default() };
        let webhook = client.webhooks().create_webhook(request).await.unwrap().into_inner().webhook.unwrap();
        let rotate = RotateWebhookSecretRequest { webhook_id: webhook.id, secret: secrets[2].into(), ..Default::default() };
        client.webhooks().rotate_webhook_secret(rotate).await.unwrap();
        let new = CreateApiKeyRequest { name: "till".into(), scopes: vec!["events:read".into()], ..Default::default() };
        let made = client.api_keys().create_api_key(new).await.unwrap().into_inner();
        let rotate = RotateApiKeyRequest { api_key_id: made.api_key.unwrap().id, ..Default::default() };
        let rotated = client.api_keys().rotate_api_key(rotate).await.unwrap().into_inner();

        let db = Db::open(&server.config.database).await.unwrap();
        let recorder = Recorder::open(&db, &[0; 32], Arc::new(SystemClock)).await.unwrap();
        let rows = AuditService::new(db, &recorder).export(0).await.unwrap();
        assert_eq!(rows.len(), 7);
        let rows = format!("{rows:?}");
        let keys = [server.key.reveal(), &made.key, &rotated.key, "another-one-entirely", "hush-hush"];
        for secret in secrets.into_iter().chain(keys) {
            assert!(!rows.contains(secret), "{secret}: {rows}");
        }
        let changed = list(client, ListAuditEntriesRequest { action_prefix: "settings.".into(), ..Default::default() }).await;
        let (old, new) = (before(&changed[0])["email.smtp_password"].clone(), after(&changed[0])["email.smtp_password"].clone());
        assert!(old != new && [old, new].iter().all(|told| told.as_str().unwrap().starts_with("hmac:")), "{changed:?}");
    }

    async fn entries_are_listed_by_what_they_tell(server: Server) {
        let client = &server.client;
        let mut ids = Vec::new();
        for name in ["a", "b", "c"] {
            server.clock.advance(Duration::from_secs(60));
            let new = CreateApiKeyRequest { name: name.into(), scopes: vec!["audit:read".into()], ..Default::default() };
            let made = client.api_keys().create_api_key(new).await.unwrap().into_inner();
            ids.push((made.api_key.unwrap().id, made.key));
        }
        let other = server.client_that_may(&["settings:write", "settings:read"]).await;
        set(&other, json!({"general.company_name": "Ours"})).await;

        let all = list(client, ListAuditEntriesRequest::default()).await;
        assert!(all.iter().rev().enumerate().all(|(at, entry)| entry.seq == at as i64 + 1), "{all:?}");
        let theirs = list(client, ListAuditEntriesRequest { actor: all[0].actor.clone(), ..Default::default() }).await;
        assert_eq!(theirs, all[..1]);
        let of = |id: &str| ListAuditEntriesRequest { resource_type: "api_key".into(), resource_id: id.into(), ..Default::default() };
        assert_eq!(list(client, of(&ids[1].0)).await[0].seq, 3);
        assert!(list(client, ListAuditEntriesRequest { resource_type: "route".into(), ..Default::default() }).await.is_empty());
        let between = ListAuditEntriesRequest {
            start_time: all[3].create_time,
            end_time: all[2].create_time,
            ..Default::default()
        };
        assert_eq!(list(client, between).await, [all[3].clone()]);
        let keys = ListAuditEntriesRequest { action_prefix: "api_key.".into(), page_size: 2, ..Default::default() };
        let first = client.audit().list_audit_entries(keys.clone()).await.unwrap().into_inner();
        assert_eq!(first.entries, all[1..3]);
        let next = ListAuditEntriesRequest { page_token: first.next_page_token, ..keys };
        let next = client.audit().list_audit_entries(next).await.unwrap().into_inner();
        assert_eq!(next.entries, all[3..5]);

        let reader = server.client_with(&ids[0].1).await;
        assert_eq!(list(&reader, ListAuditEntriesRequest::default()).await.len(), all.len());
        let refused = other.audit().list_audit_entries(ListAuditEntriesRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let wrong = ListAuditEntriesRequest {
            actor: "a".repeat(600),
            action_prefix: "a%".into(),
            end_time: all[3].create_time,
            start_time: all[2].create_time,
            ..Default::default()
        };
        let refused = client.audit().list_audit_entries(wrong).await.unwrap_err();
        status::expect_violations(&refused, &["actor", "action_prefix", "end_time"]);
        let wrong = VerifyAuditLogRequest { from_seq: 100, ..Default::default() };
        let refused = client.audit().verify_audit_log(wrong).await.unwrap_err();
        status::expect_violations(&refused, &["from_seq"]);
        let wrong = VerifyAuditLogRequest { checkpoint: "one".into(), ..Default::default() };
        let refused = client.audit().verify_audit_log(wrong).await.unwrap_err();
        status::expect_violations(&refused, &["checkpoint"]);
    }

    async fn nothing_is_changed_when_the_end_of_the_log_is_not_as_it_was_left(server: Server) {
        let client = &server.client;
        set(client, json!({"general.company_name": "One"})).await;
        let db = Db::open(&server.config.database).await.unwrap();
        tamper(&db, "UPDATE audit_head SET seq = seq - 1").await;
        let wanted = change(&json!({"general.company_name": "Two"}));
        let refused = client.settings().update_settings(wanted.clone()).await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "AUDIT_LOG_BROKEN");
        let revision = crate::settings::list(client).await.etag;
        assert_eq!(crate::settings::value(&crate::settings::get(client, "general.company_name").await), json!("One"));
        let verified = verify(client).await;
        assert_eq!((verified.ok, verified.problem()), (false, AuditProblem::Head), "{verified:?}");
        tamper(&db, "UPDATE audit_head SET seq = seq + 1").await;
        assert!(verify(client).await.ok);
        client.settings().update_settings(wanted).await.unwrap();
        assert_ne!(crate::settings::list(client).await.etag, revision);
    }

    async fn many_changes_at_once_leave_a_valid_log(server: Server) {
        let mut clients = vec![server.client.clone()];
        let mut others = Vec::new();
        if matches!(server.config.database, Target::Postgres(_)) {
            others.push(server.another_node().await);
            clients.push(others[0].client.clone());
        }
        let known = export(&server.client).await.len();
        let changes = (0..48).map(|number| {
            let client = clients[number % clients.len()].clone();
            async move {
                match number / 2 % 3 {
                    0 => drop(set(&client, json!({"general.company_name": format!("No. {number}")})).await),
                    1 => {
                        let scopes = vec!["events:read".into()];
                        let new = CreateApiKeyRequest { name: format!("{number}"), scopes, ..Default::default() };
                        client.api_keys().create_api_key(new).await.unwrap();
                    }
                    _ => {
                        let list = RecipientList { name: format!("list_{number}"), ..Default::default() };
                        let request = CreateRecipientListRequest { recipient_list: Some(list) };
                        client.recipient_lists().create_recipient_list(request).await.unwrap();
                    }
                }
            }
        });
        join_all(changes).await;
        let log = export(&server.client).await;
        assert_eq!(log.len(), known + 48);
        let verified = verify(&server.client).await;
        assert_eq!((verified.ok, verified.checked), (true, log.len() as i64), "{verified:?}");
        for other in others {
            other.stop().await;
        }
    }

    async fn the_commands_verify_and_export_the_log(server: Server) {
        set(&server.client, json!({"general.company_name": "One"})).await;
        set(&server.client, json!({"general.company_name": "Two"})).await;
        let data = server.folder().display().to_string();
        let database = match &server.config.database {
            Target::Postgres(url) => url.clone(),
            Target::Sqlite(path) => format!("sqlite:{}", path.display()),
        };
        let place = ["--data", &data, "--database-url", &database];
        let audit = async |arguments: &[&str]| switchboard(&[&["audit"], arguments, &place].concat()).await;

        let shown = audit(&["verify"]).await.expect_success();
        let (first, checkpoint) = shown.trim_end().split_once("\ncheckpoint ").unwrap();
        assert_eq!(first, "the audit log is well: 3 entries checked");
        assert!(checkpoint.starts_with("3:"), "{checkpoint}");
        set(&server.client, json!({"general.company_name": "Three"})).await;
        audit(&["verify", "--checkpoint", checkpoint]).await.expect_success();

        let lines = audit(&["export"]).await.expect_success();
        let entries: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(entries.iter().map(|entry| entry["seq"].clone()).collect::<Vec<_>>(), [json!(1), json!(2), json!(3), json!(4)]);
        assert_eq!(entries[2]["action"], json!("settings.update"));
        assert_eq!(entries[2]["before"], json!({"general.company_name": "One"}));
        assert_eq!(entries[2]["previous_hash"], entries[1]["hash"]);
        assert_eq!(audit(&["export", "--after-seq", "3"]).await.expect_success().lines().count(), 1);

        let db = Db::open(&server.config.database).await.unwrap();
        tamper(&db, "UPDATE audit_log SET after = replace(after, 'Two', 'Six') WHERE seq = 3").await;
        let broken = audit(&["verify"]).await;
        assert_eq!(broken.code, Some(1), "{broken:?}");
        assert!(broken.stderr.contains("broken at entry 3: the entry is not what was recorded; 2 entries"), "{broken:?}");
        tamper(&db, "UPDATE audit_log SET after = replace(after, 'Six', 'Two') WHERE seq = 3").await;
        audit(&["verify"]).await.expect_success();
        let wrong = audit(&["verify", "--checkpoint", "x"]).await;
        assert!(wrong.code == Some(1) && wrong.stderr.contains("--checkpoint"), "{wrong:?}");
    }
}

/// How many entries are in the log that is tampered with.
const ENTRIES: i64 = 10_000;
/// Everything in an entry but its number.
const COLUMNS: [&str; 12] = [
    "created_at",
    "actor",
    "action",
    "resource_type",
    "resource_id",
    "before",
    "after",
    "reason",
    "request_id",
    "address",
    "prev_hash",
    "hash",
];

/// A log of its own, without a server.
struct Log {
    db: Db,
    service: AuditService,
    _folder: tempfile::TempDir,
}

impl Log {
    async fn with(backend: Backend, entries: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let target = match backend {
            Backend::Sqlite => Target::Sqlite(folder.path().join("test.db")),
            Backend::Postgres => Target::Postgres(postgres::fresh_database().await),
        };
        let db = Db::open(&target).await.unwrap();
        db.migrate().await.unwrap();
        let recorder = Recorder::open(&db, &[7; 32], Arc::new(SystemClock)).await.unwrap();
        let log = Self { service: AuditService::new(db.clone(), &recorder), db, _folder: folder };
        assert_eq!(log.verify().await, Ok(0), "an empty log is well");
        let mut next = 1;
        while next <= entries {
            let numbers = next..=entries.min(next + 1_999);
            next = numbers.end() + 1;
            let changes = numbers.map(|number| {
                let (old, new) = (json!({"number": number - 1}), json!({"number": number}));
                let change = Change::new("settings", format!("{number}"), "update").because("a test");
                change.from(fields(&old)).to(fields(&new))
            });
            let (changes, recorder) = (changes.collect(), recorder.clone());
            let record = log
                .db
                .transaction(move |conn| Box::pin(async move { recorder.record_all(conn, changes).await }));
            record.await.unwrap();
        }
        log
    }

    /// How many entries were checked of a log that is well, or what is wrong with it.
    async fn verify(&self) -> Result<i64, (i64, Problem)> {
        self.verify_from(1).await
    }

    async fn verify_from(&self, from: i64) -> Result<i64, (i64, Problem)> {
        let Report { checked, fault, .. } = self.service.verify(from, None).await.unwrap();
        fault.map_or(Ok(checked), |Fault { seq, problem }| Err((seq, problem)))
    }
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    /// From 1 to `sides`.
    fn roll(&mut self, sides: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as i64 % sides + 1
    }
}

/// What somebody does to a log, how it is undone, and what is to be found.
struct Mutation {
    what: String,
    sql: String,
    undo: String,
    found: (i64, Problem),
}

fn flip(backend: Backend, seq: i64, column: &str) -> Mutation {
    let new = match (column, backend) {
        ("created_at", Backend::Sqlite) => "created_at + 1".to_owned(),
        ("created_at", Backend::Postgres) => "created_at + INTERVAL '1 microsecond'".to_owned(),
        (column, _) => format!("{column} || ' '"),
    };
    Mutation {
        what: format!("{column} of {seq}"),
        sql: format!("UPDATE audit_log SET {column} = {new} WHERE seq = {seq}"),
        undo: restore(&format!("seq = {seq}")),
        found: (seq, Problem::Altered),
    }
}

/// The rows as they were, from the copy.
fn restore(rows: &str) -> String {
    format!("DELETE FROM audit_log WHERE {rows}; INSERT INTO audit_log SELECT * FROM audit_copy WHERE {rows}")
}

fn delete(from: i64, to: i64) -> Mutation {
    let rows = format!("seq BETWEEN {from} AND {to}");
    Mutation {
        what: format!("without {from} to {to}"),
        sql: format!("DELETE FROM audit_log WHERE {rows}"),
        undo: restore(&rows),
        found: (from, Problem::Missing),
    }
}

fn swap(one: i64, other: i64) -> Mutation {
    Mutation {
        what: format!("{one} for {other}"),
        sql: format!(
            "UPDATE audit_log SET seq = -1 WHERE seq = {one}; UPDATE audit_log SET seq = {one} WHERE seq = {other}; \
             UPDATE audit_log SET seq = {other} WHERE seq = -1"
        ),
        undo: restore(&format!("seq IN ({one}, {other})")),
        found: (one.min(other), Problem::Altered),
    }
}

/// An entry between others, which move to make room; like the one before which it comes, or forged.
fn insert(seq: i64, forged: bool) -> Mutation {
    let (actor, found) = if forged { ("'key_forged'", seq) } else { ("actor", seq + 1) };
    let shift = format!(
        "UPDATE audit_log SET seq = -seq - 1 WHERE seq >= {seq}; UPDATE audit_log SET seq = -seq WHERE seq < 0"
    );
    let source = seq.min(ENTRIES);
    let rest: Vec<_> = COLUMNS.into_iter().filter(|&column| column != "actor").collect();
    let rest = rest.join(", ");
    Mutation {
        what: format!("one more at {seq}"),
        sql: format!(
            "{shift}; INSERT INTO audit_log (seq, actor, {rest}) SELECT {seq}, {actor}, {rest} FROM audit_copy \
             WHERE seq = {source}"
        ),
        undo: restore(&format!("seq >= {seq}")),
        found: (found, Problem::Altered),
    }
}

fn head(sql: &str, found: (i64, Problem)) -> Mutation {
    Mutation {
        what: sql.to_owned(),
        sql: sql.to_owned(),
        undo: "DELETE FROM audit_head; INSERT INTO audit_head SELECT * FROM audit_head_copy".to_owned(),
        found,
    }
}

fn mutations(backend: Backend) -> Vec<Mutation> {
    let mut dice = Dice(42);
    let mut all = vec![
        delete(1, 1),
        delete(ENTRIES, ENTRIES),
        delete(ENTRIES - 99, ENTRIES),
        delete(1, 100),
        delete(1, ENTRIES),
        swap(1, ENTRIES),
        swap(1, 2),
        swap(ENTRIES - 1, ENTRIES),
        insert(1, true),
        insert(1, false),
        insert(ENTRIES, true),
        insert(ENTRIES + 1, true),
        flip(backend, 1, "prev_hash"),
        flip(backend, ENTRIES, "hash"),
        head("UPDATE audit_head SET seq = seq - 1", (ENTRIES, Problem::Head)),
        head("UPDATE audit_head SET seq = seq + 1", (ENTRIES, Problem::Head)),
        head("UPDATE audit_head SET hash = mac", (ENTRIES, Problem::Head)),
        head("UPDATE audit_head SET mac = hash", (ENTRIES, Problem::Head)),
        head("DELETE FROM audit_head", (ENTRIES, Problem::Head)),
    ];
    for number in [0, -3] {
        let mut outside = insert(1, true);
        outside.sql = format!(
            "INSERT INTO audit_log (seq, {columns}) SELECT {number}, {columns} FROM audit_copy WHERE seq = 1",
            columns = COLUMNS.join(", ")
        );
        outside.what = format!("one more at {number}");
        outside.undo = format!("DELETE FROM audit_log WHERE seq = {number}");
        outside.found = (number, Problem::Unexpected);
        all.push(outside);
    }
    // The tail is cut off, and the head is made to look as if it never was.
    let mut cut = delete(ENTRIES - 9, ENTRIES);
    cut.sql += &format!(
        "; UPDATE audit_head SET seq = {end}, hash = (SELECT hash FROM audit_log WHERE seq = {end})",
        end = ENTRIES - 10
    );
    cut.undo += "; DELETE FROM audit_head; INSERT INTO audit_head SELECT * FROM audit_head_copy";
    cut.found = (ENTRIES - 10, Problem::Head);
    all.push(cut);
    for column in COLUMNS {
        all.push(flip(backend, dice.roll(ENTRIES), column));
    }
    for _ in 0..5 {
        let (one, other) = (dice.roll(ENTRIES - 1), dice.roll(ENTRIES - 1));
        all.push(delete(one, one));
        all.push(swap(one, if one == other { other + 1 } else { other }));
        all.push(insert(dice.roll(ENTRIES), true));
    }
    all
}

async fn whatever_is_done_to_one_entry_is_found(backend: Backend) {
    let log = Log::with(backend, ENTRIES).await;
    assert_eq!(log.verify().await, Ok(ENTRIES));
    tamper(&log.db, "CREATE TABLE audit_copy AS SELECT * FROM audit_log").await;
    tamper(&log.db, "CREATE TABLE audit_head_copy AS SELECT * FROM audit_head").await;
    let all = mutations(backend);
    assert!(all.len() >= 40);
    for (number, Mutation { what, sql, undo, found }) in all.into_iter().enumerate() {
        tamper(&log.db, sql).await;
        assert_eq!(log.verify().await, Err(found), "{what}");
        tamper(&log.db, undo).await;
        // All of it now and then, and otherwise from before what was done.
        let from = if number % 8 == 0 { 1 } else { found.0.clamp(1, ENTRIES) };
        assert_eq!(log.verify_from(from).await, Ok(ENTRIES - from + 1), "{what} is undone");
    }
    assert_eq!(log.verify().await, Ok(ENTRIES));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_done_to_one_entry_of_ten_thousand_is_found_on_sqlite() {
    whatever_is_done_to_one_entry_is_found(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_done_to_one_entry_of_ten_thousand_is_found_on_postgres() {
    whatever_is_done_to_one_entry_is_found(Backend::Postgres).await;
}

/// What can not be seen from inside the database: all of it put back to how it was.
async fn a_log_that_was_put_back_is_found_by_a_checkpoint(backend: Backend) {
    let log = Log::with(backend, 20).await;
    tamper(&log.db, "CREATE TABLE audit_head_copy AS SELECT * FROM audit_head").await;
    let early = log.service.verify(1, None).await.unwrap().checkpoint;
    assert_eq!(early.seq, 20);
    let recorder = Recorder::open(&log.db, &[7; 32], Arc::new(SystemClock)).await.unwrap();
    let record = async |id: &'static str| {
        let recorder = recorder.clone();
        let record = log.db.transaction(move |conn| {
            Box::pin(async move { recorder.record(conn, Change::new("route", id, "delete")).await })
        });
        record.await.unwrap();
    };
    record("one").await;
    let late = log.service.verify(1, Some(early.clone())).await.unwrap();
    assert_eq!((late.fault, late.checkpoint.seq), (None, 21));
    tamper(&log.db, "DELETE FROM audit_log WHERE seq = 21; DELETE FROM audit_head; INSERT INTO audit_head SELECT * FROM audit_head_copy").await;
    assert_eq!(log.verify().await, Ok(20), "the limit of what the log itself can tell");
    let found =
        async |checkpoint: &Checkpoint| log.service.verify(1, Some(checkpoint.clone())).await.unwrap().fault;
    assert_eq!(found(&early).await, None);
    assert_eq!(found(&late.checkpoint).await, Some(Fault { seq: 21, problem: Problem::Missing }));
    record("other").await;
    assert_eq!(log.verify().await, Ok(21));
    assert_eq!(found(&late.checkpoint).await, Some(Fault { seq: 21, problem: Problem::Checkpoint }));
    assert!(log.service.verify(30, None).await.is_err());
    assert!(log.service.verify(22, Some(early)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_put_back_is_found_by_a_checkpoint_on_sqlite() {
    a_log_that_was_put_back_is_found_by_a_checkpoint(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_put_back_is_found_by_a_checkpoint_on_postgres() {
    a_log_that_was_put_back_is_found_by_a_checkpoint(Backend::Postgres).await;
}
