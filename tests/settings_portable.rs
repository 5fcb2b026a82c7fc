//! Settings as a document: what is exported can be imported, and secrets only with the passphrase.

use serde_json::{Value, json};
use switchboard_client::Client;
use switchboard_client::settings::v1::{
    ExportSettingsRequest, ExportSettingsResponse, ImportSettingsRequest, ImportSettingsResponse,
    SettingAction, SettingOrigin,
};
use tonic::{Code, Status};

use crate::harness::{on_both, status};
use crate::settings::{get, in_database, list, set, value};
use crate::settings_history::history;

const PASSPHRASE: &str = "a long passphrase";
const PASSWORD: &str = "correct-horse-battery";

async fn export(client: &Client, passphrase: &str) -> ExportSettingsResponse {
    let request = ExportSettingsRequest { passphrase: passphrase.into() };
    client.settings().export_settings(request).await.unwrap().into_inner()
}

async fn import(client: &Client, request: ImportSettingsRequest) -> Result<ImportSettingsResponse, Status> {
    Ok(client.settings().import_settings(request).await?.into_inner())
}

fn document(document: &str) -> ImportSettingsRequest {
    ImportSettingsRequest { document: document.into(), ..Default::default() }
}

fn sealed(text: &str, passphrase: &str) -> ImportSettingsRequest {
    ImportSettingsRequest { passphrase: passphrase.into(), ..document(text) }
}

/// Sets something of everything.
async fn fill(client: &Client) {
    set(
        client,
        json!({
            "email.smtp_host": "mail.example.com",
            "email.smtp_password": PASSWORD,
            "email.smtp_port": 2525,
            "email.capture": true,
            "general.company_name": "Müller & Söhne",
        }),
    )
    .await;
}

on_both! {
    async fn what_is_exported_can_be_imported_elsewhere(server: Server) {
        fill(&server.client).await;
        let exported = export(&server.client, PASSPHRASE).await;
        assert_eq!(exported.etag, list(&server.client).await.etag);
        assert!(exported.omitted_secrets.is_empty());
        assert!(!exported.document.contains(PASSWORD), "{}", exported.document);
        let other = Server::start(Backend::Sqlite).await;
        set(&other.client, json!({"general.company_name": "Before", "general.site_url": "https://example.com"})).await;
        let before = list(&other.client).await;

        let request = ImportSettingsRequest { reason: "moved".into(), ..sealed(&exported.document, PASSPHRASE) };
        let tried = import(&other.client, ImportSettingsRequest { validate_only: true, ..request.clone() }).await.unwrap();
        assert_eq!(tried.settings.len(), 5, "{tried:?}");
        assert_eq!(list(&other.client).await, before, "only tried");
        let imported = import(&other.client, request.clone()).await.unwrap();
        let keys: Vec<_> = imported.settings.iter().map(|setting| setting.key.as_str()).collect();
        assert_eq!(keys, ["email.capture", "email.smtp_host", "email.smtp_password", "email.smtp_port", "general.company_name"]);
        assert_eq!(value(&get(&other.client, "general.company_name").await), "Müller & Söhne");
        assert!(get(&other.client, "email.smtp_password").await.secret_set);
        assert_eq!(value(&get(&other.client, "general.site_url").await), "https://example.com", "not in the document");
        let revision = history(&other.client).await.remove(0);
        assert_eq!((revision.action(), revision.reason.as_str(), revision.changes.len()), (SettingAction::Import, "moved", 5));
        assert!(!in_database(&other, PASSWORD).await && !in_database(&other, PASSPHRASE).await);
        // The same again is no change.
        assert_eq!(import(&other.client, request.clone()).await.unwrap().etag, imported.etag);
        let late = ImportSettingsRequest { etag: before.etag, ..request.clone() };
        status::expect(&import(&other.client, late).await.unwrap_err(), Code::Aborted, "ETAG_MISMATCH");

        import(&other.client, ImportSettingsRequest { reset_others: true, ..request }).await.unwrap();
        assert_eq!(get(&other.client, "general.site_url").await.origin(), SettingOrigin::Default);
        // There and back: the documents say the same, secrets included.
        let settings = |text: &str| serde_json::from_str::<Value>(text).unwrap()["settings"].clone();
        let back = export(&other.client, PASSPHRASE).await;
        assert_eq!(settings(&back.document), settings(&exported.document));
        let here = import(&server.client, sealed(&back.document, PASSPHRASE)).await.unwrap();
        assert_eq!(here.etag, exported.etag, "nothing differs, the password neither");
        other.stop().await;
    }

    async fn a_wrong_passphrase_or_a_changed_document_changes_nothing(server: Server) {
        fill(&server.client).await;
        let exported = export(&server.client, PASSPHRASE).await.document;
        set(&server.client, json!({"email.smtp_port": 1, "email.smtp_password": ""})).await;
        let before = list(&server.client).await;
        for (request, field) in [
            (sealed(&exported, "another passphrase"), "passphrase"),
            (document(&exported), "passphrase"),
            // The password is bound to the server that it is for.
            (sealed(&exported.replace("mail.example.com", "evil.example.com"), PASSPHRASE), "passphrase"),
            (sealed(&exported.replace("\"iterations\": 3", "\"iterations\": 2"), PASSPHRASE), "passphrase"),
            (sealed(&exported.replace("\"memory_kib\": 65536", "\"memory_kib\": 4294967295"), PASSPHRASE), "document.secrets"),
            (sealed(&exported.replace("argon2id", "md5"), PASSPHRASE), "document.secrets"),
            (document("{"), "document"),
            (document("{}"), "document"),
            (document(&exported.replace("\"version\": 1", "\"version\": 2")), "document"),
            (document(&exported.replace("\"revision\"", "\"revisions\"")), "document"),
        ] {
            let refused = import(&server.client, request).await.unwrap_err();
            status::expect_violations(&refused, &[field]);
        }
        let skipped = ImportSettingsRequest { skip_secrets: true, ..document(&exported) };
        assert_eq!(list(&server.client).await, before);
        import(&server.client, skipped).await.unwrap();
        assert_eq!(value(&get(&server.client, "email.smtp_port").await), 2525);
        assert!(!get(&server.client, "email.smtp_password").await.secret_set);
        for passphrase in ["short", &"x".repeat(1_025)] {
            let request = ExportSettingsRequest { passphrase: passphrase.into() };
            let refused = server.client.settings().export_settings(request).await.unwrap_err();
            status::expect_violations(&refused, &["passphrase"]);
        }
    }

    async fn a_document_without_secrets_leaves_them_alone_and_bad_values_are_refused_by_field(server: Server) {
        fill(&server.client).await;
        let exported = export(&server.client, "").await;
        assert_eq!(exported.omitted_secrets, ["email.smtp_password"]);
        assert!(!exported.document.contains("sealed"), "{}", exported.document);
        let others = ImportSettingsRequest { reset_others: true, ..document(&exported.document) };
        assert_eq!(import(&server.client, others).await.unwrap().etag, exported.etag, "nothing differs");
        assert!(get(&server.client, "email.smtp_password").await.secret_set);

        let mut bad: Value = serde_json::from_str(&exported.document).unwrap();
        bad["settings"] = json!({"email.smtp_port": 0, "general.slogan": "x", "email.smtp_password": "open", "email.from_name": "fine"});
        let refused = import(&server.client, document(&bad.to_string())).await.unwrap_err();
        status::expect_violations(&refused, &[
            "document.settings[email.smtp_password]",
            "document.settings[email.smtp_port]",
            "document.settings[general.slogan]",
        ]);
        // What only the checks know, too.
        bad["settings"] = json!({"email.domain_limits": "slow"});
        let refused = import(&server.client, document(&bad.to_string())).await.unwrap_err();
        status::expect_violations(&refused, &["document.settings[email.domain_limits]"]);
        assert_eq!(list(&server.client).await.etag, exported.etag);
    }

    async fn pinned_settings_refuse_an_import_unless_they_are_skipped(server: Server = |config| {
        config.set = vec!["email.smtp_port=26".into()];
    }) {
        let other = Server::start(Backend::Sqlite).await;
        fill(&other.client).await;
        let exported = export(&other.client, PASSPHRASE).await.document;
        let refused = import(&server.client, sealed(&exported, PASSPHRASE)).await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "SETTING_PINNED");
        assert_eq!(get(&server.client, "email.smtp_host").await.origin(), SettingOrigin::Default, "all or none");
        let skipped = ImportSettingsRequest { skip_pinned: true, reset_others: true, ..sealed(&exported, PASSPHRASE) };
        assert_eq!(import(&server.client, skipped).await.unwrap().settings.len(), 4);
        assert_eq!(value(&get(&server.client, "email.smtp_port").await), 26);
        assert_eq!(value(&get(&server.client, "email.smtp_host").await), "mail.example.com");
        // What pins is the server's own, and no part of what it exports.
        assert!(!export(&server.client, "").await.document.contains("smtp_port"));
        other.stop().await;
    }

    async fn to_read_and_to_write_settings_is_not_to_export_them(server: Server) {
        let client = server.client_that_may(&["settings:read", "settings:write", "admin:read", "admin:write"]).await;
        let refused = client.settings().export_settings(ExportSettingsRequest::default()).await.unwrap_err();
        status::expect(&refused, Code::PermissionDenied, "SCOPE_MISSING");
        export(&server.client_that_may(&["settings:export"]).await, PASSPHRASE).await;
    }
}
