//! What the process is given at its start: it pins settings, says where from, and is refused when it is wrong.

use serde_json::json;
use switchboard::app::App;
use switchboard::config::Config;
use switchboard_client::settings::v1::{ResetSettingsRequest, SettingOrigin};
use tonic::Code;

use crate::harness::{on_both, status};
use crate::settings::{change, get, letterhead, set, try_set, value};

const SECRET: &str = "correct-horse-battery";

/// Gives the server something of each kind.
fn give(config: &mut Config) {
    let file = config.data.join("switchboard.toml");
    let text = "[general]\ncompany_name = \"From the file\"\nsupport_email = \"help@example.com\"\n\n\
                [email]\nsmtp_port = 2525\nsmtp_user = \"file\"\n";
    std::fs::write(&file, text).unwrap();
    let password = config.data.join("password");
    std::fs::write(&password, format!("{SECRET}\n")).unwrap();
    config.file = Some(file);
    config.set = vec!["email.smtp_port=2526".into()];
    config.environment.insert("SMTP_PASSWORD_FILE".into(), password.to_str().unwrap().into());
    config.environment.insert("EMAIL_HOST_USER".into(), "environment".into());
}

/// The error of a start with a configuration file.
async fn refused(text: &str, configure: impl FnOnce(&mut Config)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::local(folder.path().to_owned());
    let file = folder.path().join("switchboard.toml");
    std::fs::write(&file, text).unwrap();
    config.file = Some(file);
    configure(&mut config);
    match App::start(config).await {
        Ok(_) => panic!("the server started"),
        Err(error) => error.to_string(),
    }
}

on_both! {
    async fn a_given_value_is_shown_with_its_origin_and_can_not_be_changed(server: Server = give) {
        let file = server.config.file.clone().unwrap().display().to_string();
        let line = |number: usize| format!("{file}:{number}");
        for (key, expected, origin, name, pinned_by) in [
            ("email.smtp_port", json!(2526), SettingOrigin::Flag, "flag", "--set email.smtp_port".into()),
            ("email.smtp_user", json!("environment"), SettingOrigin::Environment, "environment", "EMAIL_HOST_USER".into()),
            ("email.smtp_password", json!(null), SettingOrigin::EnvironmentFile, "environment_file", "SMTP_PASSWORD_FILE".into()),
            ("general.company_name", json!("From the file"), SettingOrigin::ConfigurationFile, "configuration_file", line(2)),
        ] {
            let shown = get(&server.client, key).await;
            assert_eq!((value(&shown), shown.origin()), (expected, origin), "{key}");
            assert_eq!(shown.pinned_by, pinned_by, "{key}");
            let new = if key == "email.smtp_port" { json!(25) } else { json!("new") };
            let refused = try_set(&server.client, change(&json!({ key: new, "general.site_url": "https://example.com" }))).await;
            let reset = ResetSettingsRequest { keys: vec!["general.site_url".into(), key.into()], ..Default::default() };
            let reset = server.client.settings().reset_settings(reset).await;
            for refused in [refused.unwrap_err(), reset.unwrap_err()] {
                assert!(refused.message().contains(&pinned_by), "{refused:?}");
                let details = status::expect(&refused, Code::FailedPrecondition, "SETTING_PINNED");
                let metadata = &details.error_info().unwrap().metadata;
                assert_eq!((metadata["key"].as_str(), metadata["origin"].as_str()), (key, name));
                assert_eq!(metadata["source"], pinned_by);
            }
        }
        assert!(get(&server.client, "email.smtp_password").await.secret_set);
        let free = get(&server.client, "general.site_url").await;
        assert_eq!((free.origin(), free.pinned_by.as_str()), (SettingOrigin::Default, ""), "all or none");
        assert!(letterhead(&server.client).await.contains("From the file"));
    }

    async fn what_is_given_goes_before_what_is_stored_and_leaves_it_alone(server: Server) {
        set(&server.client, json!({"general.company_name": "Stored"})).await;
        let mut server = server;
        server.config.set = vec!["general.company_name=Given".into()];
        let mut server = server.restart().await;
        assert!(letterhead(&server.client).await.contains("Given"));
        server.config.set.clear();
        let server = server.restart().await;
        let stored = get(&server.client, "general.company_name").await;
        assert_eq!((value(&stored), stored.origin()), (json!("Stored"), SettingOrigin::Stored));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_something_wrong_is_refused_and_says_all_of_it() {
    let text = "[email]\nsmtp_port = 0\n\n[generel]\ncompany_name = \"Zoo\"\n";
    let error = refused(text, |config| {
        config.environment.insert("SMTP_TLS".into(), "ssl".into());
        config.set = vec!["general.colour=red".into()];
    })
    .await;
    for part in [
        "switchboard.toml:2 email.smtp_port: must be a whole number from 1 to 65535",
        "switchboard.toml:4 generel: is not a setting",
        "SMTP_TLS: must be one of",
        "--set: general.colour must be a colour",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    let error = refused("[email]\nsmtp_host = mail\n", |_| {}).await;
    assert!(error.contains("switchboard.toml:2: "), "{error}");
    let error = refused("", |config| config.file = Some(config.data.join("nowhere.toml"))).await;
    assert!(error.contains("nowhere.toml: can not be read"), "{error}");
    // What the catalogue can not judge is judged as well.
    let error = refused("[webhook]\nretry_schedule = \"soon\"\n", |_| {}).await;
    assert!(error.contains("switchboard.toml:2: "), "{error}");
}
