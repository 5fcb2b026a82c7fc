//! The history of settings: every change is a revision with who and why, and one can go back to it.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard::rpc::convert::json_value;
use switchboard_client::Client;
use switchboard_client::apikey::v1::CreateApiKeyRequest;
use switchboard_client::settings::v1::{
    ListSettingRevisionsRequest, ResetSettingsRequest, RollbackSettingsRequest, SettingAction, SettingChange,
    SettingOrigin, SettingRevision, UpdateSettingsRequest,
};
use tonic::{Code, Status};

use crate::harness::{on_both, status};
use crate::settings::{change, get, in_database, letterhead, list, set, try_set, value};

/// Changes settings; answers the revision that this made.
pub async fn revise(client: &Client, values: Value) -> i64 {
    set(client, values).await.etag.parse().unwrap()
}

/// The newest revisions.
pub async fn history(client: &Client) -> Vec<SettingRevision> {
    let request = ListSettingRevisionsRequest { page_size: 500, ..Default::default() };
    client.settings().list_setting_revisions(request).await.unwrap().into_inner().revisions
}

async fn rollback(client: &Client, request: RollbackSettingsRequest) -> Result<i64, Status> {
    let answer = client.settings().rollback_settings(request).await?.into_inner();
    Ok(answer.etag.parse().unwrap())
}

fn to(revision: i64) -> RollbackSettingsRequest {
    RollbackSettingsRequest { revision, ..Default::default() }
}

/// A change that is not to a secret, as key, old and new value.
fn plain(change: &SettingChange) -> (&str, Value, Value) {
    let of = |value: &Option<_>| value.clone().map_or(Value::Null, |value| json_value(value, 0));
    (&change.key, of(&change.old_value), of(&change.new_value))
}

async fn revision_now(client: &Client) -> i64 {
    list(client).await.etag.parse().unwrap()
}

on_both! {
    async fn every_change_is_a_revision_with_who_why_and_what(server: Server) {
        let before = revision_now(&server.client).await;
        let named = UpdateSettingsRequest { reason: "the merger".into(), ..change(&json!({"general.company_name": "Zoo", "email.smtp_port": 25})) };
        try_set(&server.client, named.clone()).await.unwrap();
        revise(&server.client, json!({"general.company_name": "Aquarium"})).await;
        // What changes nothing, is only tried, or is refused makes no revision.
        try_set(&server.client, change(&json!({"general.company_name": "Aquarium"}))).await.unwrap();
        try_set(&server.client, UpdateSettingsRequest { validate_only: true, ..named.clone() }).await.unwrap();
        let long = UpdateSettingsRequest { reason: "x".repeat(501), ..named };
        status::expect_violations(&try_set(&server.client, long).await.unwrap_err(), &["reason"]);
        let keys = vec!["email.smtp_port".to_owned()];
        let reset = ResetSettingsRequest { keys: keys.clone(), validate_only: true, reason: "tidy".into(), ..Default::default() };
        let tried = server.client.settings().reset_settings(reset.clone()).await.unwrap().into_inner();
        assert_eq!((value(&tried.settings[0]), tried.settings[0].origin()), (json!(587), SettingOrigin::Default));
        assert_eq!(value(&get(&server.client, "email.smtp_port").await), 25, "only tried");
        let reset = ResetSettingsRequest { validate_only: false, ..reset };
        server.client.settings().reset_settings(reset).await.unwrap();

        let history = history(&server.client).await;
        let numbers: Vec<_> = history.iter().map(|revision| revision.revision).collect();
        assert_eq!(numbers, [before + 3, before + 2, before + 1], "the newest first, without gaps");
        assert_eq!(list(&server.client).await.etag, (before + 3).to_string());
        let [reset, renamed, first] = &history[..] else { panic!("{history:?}") };
        assert_eq!((first.reason.as_str(), first.action()), ("the merger", SettingAction::Update));
        assert_eq!((reset.reason.as_str(), reset.action()), ("tidy", SettingAction::Reset));
        assert!(history.iter().all(|revision| revision.actor.starts_with("key_") && revision.create_time.is_some()), "{history:?}");
        let changes: Vec<_> = first.changes.iter().map(plain).collect();
        assert_eq!(changes, [
            ("email.smtp_port", json!(587), json!(25)),
            ("general.company_name", json!("Switchboard"), json!("Zoo")),
        ]);
        assert_eq!((first.changes[0].old_origin(), first.changes[0].new_origin()), (SettingOrigin::Default, SettingOrigin::Stored));
        assert_eq!(plain(&renamed.changes[0]), ("general.company_name", json!("Zoo"), json!("Aquarium")));
        assert_eq!(reset.changes[0].new_origin(), SettingOrigin::Default);

        let mut request = ListSettingRevisionsRequest { key: "email.smtp_port".into(), page_size: 1, ..Default::default() };
        for (number, more) in [(before + 3, true), (before + 1, false)] {
            let page = server.client.settings().list_setting_revisions(request.clone()).await.unwrap().into_inner();
            assert_eq!(page.revisions.len(), 1);
            assert_eq!((page.revisions[0].revision, page.revisions[0].changes.len()), (number, 1), "only what was asked for");
            assert_eq!(!page.next_page_token.is_empty(), more);
            request.page_token = page.next_page_token;
        }
    }

    async fn settings_go_back_to_a_revision_as_a_new_one(server: Server) {
        let start = revise(&server.client, json!({"general.company_name": "Zoo", "email.smtp_port": 25})).await;
        revise(&server.client, json!({"general.company_name": "Aquarium", "general.site_url": "https://example.com"})).await;
        let last = revise(&server.client, json!({"email.smtp_port": 26})).await;
        assert_eq!(rollback(&server.client, RollbackSettingsRequest { validate_only: true, ..to(start) }).await.unwrap(), last);
        assert_eq!(value(&get(&server.client, "email.smtp_port").await), 26, "only tried");
        let late = RollbackSettingsRequest { etag: start.to_string(), ..to(start) };
        status::expect(&rollback(&server.client, late).await.unwrap_err(), Code::Aborted, "ETAG_MISMATCH");

        let back = RollbackSettingsRequest { reason: "as it was".into(), ..to(start) };
        assert_eq!(rollback(&server.client, back).await.unwrap(), last + 1);
        assert!(letterhead(&server.client).await.contains("Zoo"), "at once");
        assert_eq!(value(&get(&server.client, "email.smtp_port").await), 25);
        assert_eq!(get(&server.client, "general.site_url").await.origin(), SettingOrigin::Default);
        let newest = history(&server.client).await.remove(0);
        assert_eq!((newest.action(), newest.reason.as_str(), newest.changes.len()), (SettingAction::Rollback, "as it was", 3));
        // And forth again: nothing is lost by going back. Some of it, too.
        let some = RollbackSettingsRequest { keys: vec!["email.smtp_port".into()], ..to(last) };
        rollback(&server.client, some).await.unwrap();
        assert_eq!(value(&get(&server.client, "email.smtp_port").await), 26);
        assert_eq!(value(&get(&server.client, "general.company_name").await), "Zoo");
        // To where they are already is no change.
        let now = revision_now(&server.client).await;
        assert_eq!(rollback(&server.client, to(now)).await.unwrap(), now);
        status::expect_violations(&rollback(&server.client, to(now + 1)).await.unwrap_err(), &["revision"]);
        let unknown = RollbackSettingsRequest { keys: vec!["nope".into()], ..to(now) };
        status::expect_violations(&rollback(&server.client, unknown).await.unwrap_err(), &["keys[0]"]);
    }

    async fn a_secret_has_a_fingerprint_in_the_history_and_can_not_be_brought_back(server: Server) {
        const OLD: &str = "correct-horse-battery";
        const NEW: &str = "staple-paper-clip";
        let start = revision_now(&server.client).await;
        let old = revise(&server.client, json!({"email.smtp_password": OLD, "email.smtp2_password": OLD})).await;
        revise(&server.client, json!({"email.smtp_password": NEW, "email.smtp_user": "postman"})).await;
        revise(&server.client, json!({"email.smtp_password": OLD})).await;
        let new = revise(&server.client, json!({"email.smtp_password": NEW})).await;
        let history = history(&server.client).await;
        let shown = format!("{history:?}");
        assert!(!shown.contains(OLD) && !shown.contains(NEW), "{shown}");
        assert!(!in_database(&server, OLD).await && !in_database(&server, NEW).await);
        let [fourth, third, second, first] = &history[..] else { panic!("{history:?}") };
        let (one, two) = (&first.changes[1], &first.changes[0]);
        assert!(one.old_fingerprint.is_empty() && one.new_fingerprint.len() == "hmac:0123456789abcdef".len(), "{one:?}");
        assert!(one.new_value.is_none() && one.old_value.is_none());
        assert_ne!(one.new_fingerprint, two.new_fingerprint, "the same secret in two settings");
        assert_eq!(third.changes[0].new_fingerprint, one.new_fingerprint, "the same secret again");
        assert_eq!(second.changes[0].new_fingerprint, fourth.changes[0].new_fingerprint);
        assert_ne!(second.changes[0].new_fingerprint, one.new_fingerprint);

        let refused = rollback(&server.client, to(old)).await.unwrap_err();
        let details = status::expect(&refused, Code::FailedPrecondition, "SECRET_NOT_KEPT");
        assert_eq!(details.error_info().unwrap().metadata["keys"], "email.smtp_password");
        assert_eq!(revision_now(&server.client).await, new, "all or none");
        // A secret that was the same then does not matter, and one that was not set then can be taken away.
        rollback(&server.client, to(start)).await.unwrap();
        assert!(!get(&server.client, "email.smtp_password").await.secret_set);
        let user = RollbackSettingsRequest { keys: vec!["email.smtp_user".into()], ..to(new) };
        rollback(&server.client, user).await.unwrap();
        assert_eq!(value(&get(&server.client, "email.smtp_user").await), "postman");
    }

    async fn a_pinned_setting_is_not_rolled_back(server: Server) {
        let start = revise(&server.client, json!({"general.company_name": "Zoo"})).await;
        revise(&server.client, json!({"general.company_name": "Aquarium", "email.smtp_port": 25})).await;
        let mut server = server;
        server.config.set = vec!["general.company_name=Pinned".into()];
        let server = server.restart().await;
        let refused = rollback(&server.client, to(start)).await.unwrap_err();
        let details = status::expect(&refused, Code::FailedPrecondition, "SETTING_PINNED");
        assert_eq!(details.error_info().unwrap().metadata["key"], "general.company_name");
        assert_eq!(value(&get(&server.client, "email.smtp_port").await), 25, "all or none");
        let some = RollbackSettingsRequest { keys: vec!["email.smtp_port".into()], ..to(start) };
        rollback(&server.client, some).await.unwrap();
        assert_eq!(value(&get(&server.client, "email.smtp_port").await), 587);
    }

    async fn the_history_is_bounded_in_age_and_number(server: Server) {
        let old = revise(&server.client, json!({"email.smtp_port": 1})).await;
        server.clock.advance(Duration::from_secs(60 * 24 * 60 * 60));
        // The first key ends before the history does.
        let (name, scopes) = ("late".into(), vec!["settings:*".into()]);
        let request = CreateApiKeyRequest { name, scopes, expires_in_days: 365, ..Default::default() };
        let key = server.client.api_keys().create_api_key(request).await.unwrap().into_inner().key;
        let late = server.client_with(&key).await;
        let kept = revise(&late, json!({"email.smtp_port": 2})).await;
        assert_eq!(history(&late).await.len(), 2);
        server.clock.advance(Duration::from_secs(341 * 24 * 60 * 60));
        let newest = revise(&late, json!({"email.smtp_port": 3})).await;
        let numbers: Vec<_> = history(&late).await.iter().map(|revision| revision.revision).collect();
        assert_eq!(numbers, [newest, kept], "400 days");
        let refused = rollback(&late, to(old - 1)).await.unwrap_err();
        let details = status::expect(&refused, Code::OutOfRange, "REVISION_COMPACTED");
        assert_eq!(details.error_info().unwrap().metadata["oldest_revision"], old.to_string());
        // The state at the oldest revision but one is still known: it is what the oldest one started from.
        rollback(&late, to(old)).await.unwrap();
        assert_eq!(value(&get(&late, "email.smtp_port").await), 1);

        let mut last = 0;
        for port in 0..1_001 {
            last = revise(&late, json!({"email.smtp_port": 1_000 + port})).await;
        }
        rollback(&late, RollbackSettingsRequest { validate_only: true, ..to(last - 1_000) }).await.unwrap();
        status::expect(&rollback(&late, to(last - 1_001)).await.unwrap_err(), Code::OutOfRange, "REVISION_COMPACTED");
    }
}
