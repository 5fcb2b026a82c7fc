//! Settings: typed, changed all or none, at once, and secrets that never come back.

use std::collections::HashMap;

use serde_json::{Value, json};
use switchboard::db::Target;
use switchboard::rpc::convert::{from_json_value, json_value};
use switchboard_client::Client;
use switchboard_client::email::v1::PreviewTemplateRequest;
use switchboard_client::settings::v1::{
    GetSettingRequest, ListSettingDefinitionsRequest, ListSettingsRequest, ListSettingsResponse,
    ResetSettingsRequest, Setting, SettingOrigin, SettingType, UpdateSettingsRequest, UpdateSettingsResponse,
};
use tonic::{Code, Status};

use crate::harness::server::{Backend, Server};
use crate::harness::tools::run;
use crate::harness::{eventually, on_both, postgres, status};

/// A request to change settings to the values of a JSON object.
pub fn change(values: &Value) -> UpdateSettingsRequest {
    let values = values.as_object().expect("an object").clone();
    let values = values.into_iter().map(|(key, value)| (key, from_json_value(value)));
    UpdateSettingsRequest { values: values.collect(), ..Default::default() }
}

/// Changes settings.
pub async fn set(client: &Client, values: Value) -> UpdateSettingsResponse {
    try_set(client, change(&values)).await.unwrap()
}

pub async fn try_set(
    client: &Client,
    request: UpdateSettingsRequest,
) -> Result<UpdateSettingsResponse, Status> {
    Ok(client.settings().update_settings(request).await?.into_inner())
}

pub async fn list(client: &Client) -> ListSettingsResponse {
    client.settings().list_settings(ListSettingsRequest::default()).await.unwrap().into_inner()
}

pub async fn get(client: &Client, key: &str) -> Setting {
    let request = GetSettingRequest { key: key.into() };
    client.settings().get_setting(request).await.unwrap().into_inner().setting.unwrap()
}

pub fn value(setting: &Setting) -> Value {
    setting.value.clone().map_or(Value::Null, |value| json_value(value, 0))
}

/// What a mail says the company is.
pub async fn letterhead(client: &Client) -> String {
    let request = PreviewTemplateRequest { name: "user_welcome".into(), ..Default::default() };
    client.templates().preview_template(request).await.unwrap().into_inner().html_body
}

/// Whether a text lies open anywhere in the server's database, as text or as the bytes of it.
pub async fn in_database(server: &Server, text: &str) -> bool {
    let haystack = match &server.config.database {
        Target::Postgres(url) => {
            let dump = run(postgres::bin("pg_dump"), ["--inserts", "-d", url], b"").await;
            dump.expect_success().into_bytes()
        }
        Target::Sqlite(path) => {
            let files = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
            let ours = files
                .filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("switchboard.db"));
            ours.flat_map(|file| std::fs::read(file).unwrap()).collect()
        }
    };
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let holds = |needle: &str| haystack.windows(needle.len()).any(|part| part == needle.as_bytes());
    holds(text) || holds(&hex)
}

on_both! {
    async fn every_setting_has_a_definition_and_a_valid_default(server: Server) {
        let definitions = server.client.settings().list_setting_definitions(ListSettingDefinitionsRequest {}).await;
        let definitions = definitions.unwrap().into_inner().definitions;
        let settings = list(&server.client).await.settings;
        let keys: Vec<_> = settings.iter().map(|setting| setting.key.as_str()).collect();
        assert_eq!(definitions.iter().map(|definition| definition.key.as_str()).collect::<Vec<_>>(), keys);
        assert!(definitions.iter().map(|definition| &definition.key).is_sorted(), "by key");
        for (definition, setting) in definitions.iter().zip(&settings) {
            assert!(!definition.description.is_empty(), "{}", definition.key);
            assert!(definition.key.starts_with(&format!("{}.", definition.category)), "{}", definition.key);
            assert_eq!(setting.origin(), SettingOrigin::Default, "{}", setting.key);
            assert_eq!(setting.value, definition.default_value, "{}", setting.key);
            assert!(!setting.secret_set && setting.update_time.is_none(), "{}", setting.key);
        }
        let of = |key: &str| definitions.iter().find(|definition| definition.key == key).unwrap().clone();
        let port = of("email.smtp_port");
        assert_eq!((port.r#type(), port.minimum, port.maximum), (SettingType::Integer, Some(1), Some(65_535)));
        assert_eq!(port.environment, ["SWITCHBOARD_EMAIL_SMTP_PORT", "SMTP_PORT", "EMAIL_PORT"]);
        assert_eq!(of("email.smtp_tls").choices, ["starttls", "implicit", "none"]);
        assert_eq!(of("email.smtp_password").r#type(), SettingType::Secret);
        // What was listed as a default can be set.
        let defaults: HashMap<_, _> =
            definitions.into_iter().filter_map(|definition| Some((definition.key, definition.default_value?))).collect();
        try_set(&server.client, UpdateSettingsRequest { values: defaults, ..Default::default() }).await.unwrap();

        let request = ListSettingsRequest { category: "general".into() };
        let some = server.client.settings().list_settings(request).await.unwrap().into_inner().settings;
        assert_eq!(some.len(), 5);
        assert!(some.iter().all(|setting| setting.key.starts_with("general.")), "{some:?}");
    }

    async fn a_change_has_effect_at_once_and_can_be_taken_back(server: Server) {
        let before = list(&server.client).await;
        let changed = set(&server.client, json!({"general.company_name": "Müller & Söhne", "email.smtp_port": 2525})).await;
        let shown: Vec<_> = changed.settings.iter().map(|setting| (setting.key.as_str(), value(setting))).collect();
        assert_eq!(shown, [("email.smtp_port", json!(2525)), ("general.company_name", json!("Müller & Söhne"))]);
        assert!(changed.settings.iter().all(|setting| setting.origin() == SettingOrigin::Stored));
        assert!(changed.settings.iter().all(|setting| setting.update_time.is_some()));
        assert_ne!(changed.etag, before.etag);
        assert!(letterhead(&server.client).await.contains("Müller &#38; Söhne"), "in the next mail already");
        assert_eq!(value(&get(&server.client, "general.company_name").await), "Müller & Söhne");

        let server = server.restart().await;
        assert_eq!(value(&get(&server.client, "email.smtp_port").await), 2525, "it is kept");
        let keys = vec!["general.company_name".to_owned()];
        let reset = ResetSettingsRequest { keys, etag: list(&server.client).await.etag, ..Default::default() };
        let reset = server.client.settings().reset_settings(reset).await.unwrap().into_inner();
        assert_eq!((value(&reset.settings[0]), reset.settings[0].origin()), (json!("Switchboard"), SettingOrigin::Default));
        assert!(!letterhead(&server.client).await.contains("Söhne"));
        assert_eq!(value(&get(&server.client, "email.smtp_port").await), 2525, "only what was named is reset");
    }

    async fn bad_values_are_refused_by_field_and_nothing_changes(server: Server) {
        let before = list(&server.client).await;
        let bad = json!({
            "email.from_address": "nobody",
            "email.from_name": "Jo\r\nBcc: x@example.com",
            "email.smtp_port": 65_536,
            "email.smtp_tls": "ssl",
            "events.strict_types": "yes",
            "general.colour": "red",
            "general.company_name": "good",
            "general.logo_url": "ftp://example.com/logo.png",
            "general.site_url": "javascript:alert(1)",
            "general.slogan": "there is no such setting",
        });
        let refused = try_set(&server.client, change(&bad)).await.unwrap_err();
        status::expect_violations(&refused, &[
            "values[email.from_address]",
            "values[email.from_name]",
            "values[email.smtp_port]",
            "values[email.smtp_tls]",
            "values[events.strict_types]",
            "values[general.colour]",
            "values[general.logo_url]",
            "values[general.site_url]",
            "values[general.slogan]",
        ]);
        let none = try_set(&server.client, UpdateSettingsRequest::default()).await.unwrap_err();
        status::expect_violations(&none, &["values"]);
        for odd in [json!(1.5), json!("25"), json!(null), json!([25]), json!({"port": 25})] {
            let refused = try_set(&server.client, change(&json!({"email.smtp_port": odd}))).await.unwrap_err();
            status::expect_violations(&refused, &["values[email.smtp_port]"]);
        }
        let reset = ResetSettingsRequest { keys: vec!["general.colour".into(), "nope".into()], ..Default::default() };
        let refused = server.client.settings().reset_settings(reset).await.unwrap_err();
        status::expect_violations(&refused, &["keys[1]"]);
        let unknown = server.client.settings().get_setting(GetSettingRequest { key: "nope".into() }).await;
        status::expect(&unknown.unwrap_err(), Code::NotFound, "NOT_FOUND");
        assert_eq!(list(&server.client).await, before);
    }

    async fn a_change_can_be_tried_and_be_bound_to_what_was_read(server: Server) {
        let before = list(&server.client).await;
        let name = json!({"general.company_name": "Tried"});
        let tried = UpdateSettingsRequest { validate_only: true, ..change(&name) };
        try_set(&server.client, tried).await.unwrap();
        let bad = UpdateSettingsRequest { validate_only: true, ..change(&json!({"general.colour": "red"})) };
        status::expect_violations(&try_set(&server.client, bad).await.unwrap_err(), &["values[general.colour]"]);
        assert_eq!(list(&server.client).await, before);

        let bound = UpdateSettingsRequest { etag: before.etag, ..change(&name) };
        let after = try_set(&server.client, bound.clone()).await.unwrap();
        let late = try_set(&server.client, bound).await.unwrap_err();
        let details = status::expect(&late, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(details.error_info().unwrap().metadata.get("current_etag"), Some(&after.etag));
        let keys = vec!["general.company_name".to_owned()];
        let reset = ResetSettingsRequest { keys, etag: "no etag".into(), ..Default::default() };
        let refused = server.client.settings().reset_settings(reset).await.unwrap_err();
        status::expect(&refused, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(value(&get(&server.client, "general.company_name").await), "Tried");
    }

    async fn a_secret_is_never_shown_and_sealed_in_the_database(server: Server) {
        const PASSWORD: &str = "correct-horse-battery";
        let changed = set(&server.client, json!({"email.smtp_password": PASSWORD, "email.smtp_user": "postman"})).await;
        let secret = &changed.settings[0];
        assert!(secret.secret_set && secret.value.is_none(), "{secret:?}");
        let everything = format!("{changed:?} {:?} {:?}", list(&server.client).await, get(&server.client, "email.smtp_password").await);
        assert!(!everything.contains(PASSWORD), "{everything}");
        assert!(!in_database(&server, PASSWORD).await, "the password lies open in the database");
        assert!(in_database(&server, "postman").await, "the search finds what lies open");

        let server = server.restart().await;
        assert!(get(&server.client, "email.smtp_password").await.secret_set, "it can be opened after a restart");
        set(&server.client, json!({"email.smtp_password": ""})).await;
        assert!(!get(&server.client, "email.smtp_password").await.secret_set, "an empty one is none");
    }

    async fn the_environment_pins_a_setting(server: Server = |config| {
        config.environment.insert("COMPANY_NAME".into(), "Pinned Inc".into());
        config.environment.insert("EMAIL_USE_TLS".into(), "True".into());
        config.environment.insert("SMTP_PASSWORD".into(), "hidden".into());
    }) {
        let pinned = get(&server.client, "general.company_name").await;
        assert_eq!((value(&pinned), pinned.origin()), (json!("Pinned Inc"), SettingOrigin::Environment));
        assert_eq!(value(&get(&server.client, "email.smtp_tls").await), "starttls");
        let password = get(&server.client, "email.smtp_password").await;
        assert!(password.secret_set && password.value.is_none(), "{password:?}");
        let both = json!({"general.company_name": "Mine", "general.site_url": "https://example.com"});
        let refused = try_set(&server.client, change(&both)).await.unwrap_err();
        let details = status::expect(&refused, Code::FailedPrecondition, "SETTING_PINNED");
        assert_eq!(details.error_info().unwrap().metadata["key"], "general.company_name");
        let reset = ResetSettingsRequest { keys: vec!["general.company_name".into()], ..Default::default() };
        let refused = server.client.settings().reset_settings(reset).await.unwrap_err();
        status::expect(&refused, Code::FailedPrecondition, "SETTING_PINNED");
        assert_eq!(get(&server.client, "general.site_url").await.origin(), SettingOrigin::Default, "all or none");
        assert!(letterhead(&server.client).await.contains("Pinned Inc"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_follows_within_a_moment() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    set(&one.client, json!({"general.company_name": "Everywhere"})).await;
    eventually("the other node has the new name", async || {
        letterhead(&other.client).await.contains("Everywhere").then_some(())
    })
    .await;
    assert_eq!(list(&one.client).await.etag, list(&other.client).await.etag);
    other.stop().await;
}
