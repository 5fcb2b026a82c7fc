//! From settings to what they say about mail.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::email::address;
use crate::email::config::{check_certificates, parse_domain_limits};
use crate::email::dkim::{self, Signer};
use crate::email::template::Branding;
use crate::email::{AuthMode, DkimKey, EmailConfig, OAuth, Smtp, TlsMode};
use crate::error::Violations;
use crate::settings::{SettingsService, Values};

/// What is known of a provider: its host, port and protection, and where its access tokens come from.
struct Preset {
    host: &'static str,
    port: u16,
    tls: TlsMode,
    token_url: &'static str,
}

fn preset(name: &str) -> Option<Preset> {
    let submission = |host, token_url| Preset { host, port: 587, tls: TlsMode::StartTls, token_url };
    Some(match name {
        "gmail" => submission("smtp.gmail.com", "https://oauth2.googleapis.com/token"),
        "outlook" => {
            submission("smtp.office365.com", "https://login.microsoftonline.com/common/oauth2/v2.0/token")
        }
        "sendgrid" => submission("smtp.sendgrid.net", ""),
        "mailgun" => submission("smtp.mailgun.org", ""),
        "ses" => submission("email-smtp.us-east-1.amazonaws.com", ""),
        _ => return None,
    })
}

/// What the settings say about mail.
pub(super) fn config(values: &Values) -> EmailConfig {
    let logo = values.text("general.logo_url");
    EmailConfig {
        providers: ["email.smtp", "email.smtp2", "email.smtp3"]
            .into_iter()
            .filter_map(|key| provider(values, key))
            .collect(),
        capture: values.boolean("email.capture"),
        from_address: values.text("email.from_address").to_owned(),
        from_name: values.text("email.from_name").to_owned(),
        branding: Branding {
            company_name: values.text("general.company_name").to_owned(),
            site_url: values.text("general.site_url").to_owned(),
            support_email: values.text("general.support_email").to_owned(),
            logo_url: (!logo.is_empty()).then(|| logo.to_owned()),
            colour: values.text("general.colour").to_owned(),
        },
        dkim: dkim(values),
        hourly_limit: u64::try_from(values.integer("email.hourly_limit")).unwrap_or(0),
        domain_limits: parse_domain_limits(values.text("email.domain_limits")).unwrap_or_default(),
        public_url: values.text("email.public_url").trim_end_matches('/').to_owned(),
        track_opens: values.boolean("email.open_tracking"),
        track_clicks: values.boolean("email.click_tracking"),
    }
}

fn provider(values: &Values, key: &str) -> Option<Smtp> {
    let of = |name: &str| format!("{key}_{name}");
    let preset = preset(values.text(&of("preset")));
    let host = match (values.text(&of("host")), &preset) {
        ("", Some(preset)) => preset.host,
        ("", None) => return None,
        (host, _) => host,
    };
    let number = |name: &str| usize::try_from(values.integer(&of(name))).unwrap_or(1).max(1);
    let port = match &preset {
        Some(preset) if values.is_default(&of("port")) => preset.port,
        _ => u16::try_from(values.integer(&of("port"))).unwrap_or(587),
    };
    let tls = match (values.text(&of("tls")), &preset) {
        (_, Some(preset)) if values.is_default(&of("tls")) => preset.tls,
        ("implicit", _) => TlsMode::Implicit,
        ("none", _) => TlsMode::None,
        _ => TlsMode::StartTls,
    };
    let auth = match values.text(&of("auth")) {
        "plain" => AuthMode::Plain,
        "login" => AuthMode::Login,
        "xoauth2" => AuthMode::XOAuth2,
        _ => AuthMode::Auto,
    };
    let refresh_token = values.secret(&of("oauth_refresh_token"));
    let token_url = match (values.text(&of("oauth_token_url")), &preset) {
        ("", Some(preset)) => preset.token_url,
        (url, _) => url,
    };
    let oauth = (!refresh_token.reveal().is_empty() && !token_url.is_empty()).then(|| OAuth {
        token_url: token_url.to_owned(),
        client_id: values.text(&of("oauth_client_id")).to_owned(),
        client_secret: values.secret(&of("oauth_client_secret")),
        refresh_token,
    });
    Some(Smtp {
        host: host.to_owned(),
        port,
        user: values.text(&of("user")).to_owned(),
        password: values.secret(&of("password")),
        auth,
        oauth,
        tls,
        ca: values.text(&of("ca")).to_owned(),
        connections: number("connections"),
        messages_per_connection: number("messages_per_connection"),
    })
}

/// The settings of each DKIM key: its selector and the key.
const DKIM: [(&str, &str); 2] = [
    ("email.dkim_selector", "email.dkim_private_key"),
    ("email.dkim_second_selector", "email.dkim_second_private_key"),
];

fn dkim(values: &Values) -> Vec<DkimKey> {
    let domain = match values.text("email.dkim_domain") {
        "" => values.text("email.from_address").rsplit_once('@').map_or("", |(_, domain)| domain),
        domain => domain,
    };
    DKIM.into_iter()
        .map(|(selector, key)| DkimKey {
            domain: domain.to_owned(),
            selector: values.text(selector).to_owned(),
            private_key: values.secret(key),
        })
        .filter(|key| !key.private_key.reveal().trim().is_empty())
        .collect()
}

/// What is wrong with settings of mail, by key.
pub(super) fn check(values: &Values) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    let mut note = |key, result: Result<(), String>| wrong.extend(result.err().map(|error| (key, error)));
    note("email.domain_limits", parse_domain_limits(values.text("email.domain_limits")).map(drop));
    note("email.from_address", address::parse(values.text("email.from_address")).map(drop));
    for key in ["email.smtp_ca", "email.smtp2_ca", "email.smtp3_ca"] {
        note(key, check_certificates(values.text(key)));
    }
    let domain = values.text("email.dkim_domain");
    if !domain.is_empty() {
        note("email.dkim_domain", address::domain_to_ascii(domain).map(drop));
    }
    let mut selectors = Vec::new();
    for (selector, key) in DKIM {
        note(selector, dkim::check_selector(values.text(selector)));
        let pem = values.secret(key);
        if pem.reveal().trim().is_empty() {
            continue;
        }
        note(key, Signer::new("example.com", "selector", pem.reveal()).map(drop));
        selectors.push(values.text(selector).to_ascii_lowercase());
    }
    if selectors.len() == 2 && selectors[0] == selectors[1] {
        note("email.dkim_second_selector", Err("must differ from that of the first key".into()));
        note("email.dkim_selector", Err("must differ from that of the second key".into()));
    }
    wrong.sort_by_key(|(key, _)| *key);
    wrong
}

/// What the settings would say about mail with these changes.
///
/// Whoever may try a server must not learn the secrets that are set for another one: with another server they have to be
/// given as well.
pub(super) fn preview(
    settings: &SettingsService,
    new: BTreeMap<String, Value>,
) -> crate::error::Result<EmailConfig> {
    let (mut violations, set) = (Violations::default(), settings.values());
    for provider in ["email.smtp", "email.smtp2", "email.smtp3"] {
        let of = |name: &str| format!("{provider}_{name}");
        let changes = |names: &[&str]| names.iter().any(|name| new.contains_key(&of(name)));
        let server = changes(&["host", "port", "preset", "tls", "ca"]);
        let tokens = server || changes(&["oauth_token_url"]);
        for (name, elsewhere) in
            [("password", server), ("oauth_client_secret", tokens), ("oauth_refresh_token", tokens)]
        {
            let key = of(name);
            if elsewhere && !new.contains_key(&key) && !set.secret(&key).reveal().is_empty() {
                let field = format!("settings[{key}]");
                violations.add(field, "must be given too: the one that is set is for the server that is set");
            }
        }
    }
    violations.finish()?;
    settings.preview(new).map(|values| config(&values))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::secret::SecretText;

    const PROVIDERS: [&str; 3] = ["email.smtp", "email.smtp2", "email.smtp3"];

    fn providers(prefix: &str, values: &[(&str, Value)]) -> Vec<Smtp> {
        let of = |(name, value): &(&str, Value)| (format!("{prefix}_{name}"), value.clone());
        config(&Values::of(&values.iter().map(of).collect::<Vec<_>>())).providers
    }

    #[test]
    fn every_setting_of_a_server_reaches_its_lane() {
        const CA: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";
        for prefix in PROVIDERS {
            let set = [
                ("auth", json!("login")),
                ("ca", json!(CA)),
                ("connections", json!(3)),
                ("host", json!("mail.example.com")),
                ("messages_per_connection", json!(7)),
                ("oauth_client_id", json!("client")),
                ("oauth_client_secret", json!("client secret")),
                ("oauth_refresh_token", json!("refresh token")),
                ("oauth_token_url", json!("https://id.example.com/token")),
                ("password", json!("correct-horse")),
                ("port", json!(2525)),
                ("preset", json!("gmail")),
                ("tls", json!("implicit")),
                ("user", json!("postman")),
            ];
            let expected = Smtp {
                host: "mail.example.com".into(),
                port: 2525,
                user: "postman".into(),
                password: SecretText::new("correct-horse"),
                auth: AuthMode::Login,
                oauth: Some(OAuth {
                    token_url: "https://id.example.com/token".into(),
                    client_id: "client".into(),
                    client_secret: SecretText::new("client secret"),
                    refresh_token: SecretText::new("refresh token"),
                }),
                tls: TlsMode::Implicit,
                ca: CA.into(),
                connections: 3,
                messages_per_connection: 7,
            };
            assert_eq!(providers(prefix, &set), [expected], "{prefix}");
            let host = ("host", json!("mail.example.com"));
            for (word, mode) in
                [("auto", AuthMode::Auto), ("plain", AuthMode::Plain), ("xoauth2", AuthMode::XOAuth2)]
            {
                assert_eq!(providers(prefix, &[host.clone(), ("auth", json!(word))])[0].auth, mode);
            }
            for (word, mode) in [("starttls", TlsMode::StartTls), ("none", TlsMode::None)] {
                assert_eq!(providers(prefix, &[host.clone(), ("tls", json!(word))])[0].tls, mode);
            }
            assert!(
                providers(prefix, &[("port", json!(25))]).is_empty(),
                "without a host there is no server"
            );
        }
    }

    #[test]
    fn a_preset_gives_what_is_not_set() {
        for prefix in PROVIDERS {
            for (preset, host, has_tokens) in [
                ("gmail", "smtp.gmail.com", true),
                ("outlook", "smtp.office365.com", true),
                ("sendgrid", "smtp.sendgrid.net", false),
                ("mailgun", "smtp.mailgun.org", false),
                ("ses", "email-smtp.us-east-1.amazonaws.com", false),
            ] {
                let token = ("oauth_refresh_token", json!("token"));
                let smtp = providers(prefix, &[("preset", json!(preset)), token]).remove(0);
                assert_eq!((smtp.host.as_str(), smtp.port, smtp.tls), (host, 587, TlsMode::StartTls));
                assert_eq!(smtp.oauth.is_some(), has_tokens, "{preset}");
            }
            assert!(providers(prefix, &[("preset", json!("custom"))]).is_empty());
        }
    }
}
