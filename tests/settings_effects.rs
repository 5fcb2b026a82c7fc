//! Every setting has an effect, and a test that shows it: one that is in the catalogue and not in the table is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;
use switchboard::settings::catalogue::CATALOGUE;
use switchboard_client::delivery::v1::DeliveryState;

use crate::dkim::RSA;
use crate::emails::{raw, send, send_to, wait};
use crate::harness::smtp::SmtpSink;
use crate::harness::{SOON, on_both};
use crate::settings::{letterhead, set};

/// The settings, and the tests that show what they do.
const EFFECTS: &[(&str, &[&str])] = &[
    ("apikeys.default_expiry_days", &["the_settings_say_how_long_keys_live"]),
    ("apikeys.log_days", &["the_settings_say_how_long_uses_are_kept"]),
    ("apikeys.max_expiry_days", &["the_settings_say_how_long_keys_live"]),
    ("apikeys.usage_days", &["the_settings_say_how_long_uses_are_kept"]),
    ("audit.retention_days", &["old_entries_go_and_what_is_left_is_verified"]),
    ("authentication.jwks_url", &["the_settings_say_whose_tokens_are_taken"]),
    ("authentication.token_audience", &["the_settings_say_whose_tokens_are_taken"]),
    ("authentication.token_issuer", &["the_settings_say_whose_tokens_are_taken"]),
    ("authentication.token_lifetime_minutes", &["the_setting_says_how_long_tokens_live"]),
    ("email.capture", &["mails_are_from_whom_the_settings_say_and_stay_here_when_they_say_so"]),
    ("email.click_tracking", &["opens_and_clicks_are_counted_only_when_asked_for"]),
    ("email.dkim_domain", &["mails_are_signed_for_the_domain_and_at_the_selectors_of_the_settings"]),
    ("email.dkim_private_key", &["mails_are_signed_with_both_keys"]),
    ("email.dkim_second_private_key", &["mails_are_signed_with_both_keys"]),
    ("email.dkim_second_selector", &["mails_are_signed_for_the_domain_and_at_the_selectors_of_the_settings"]),
    ("email.dkim_selector", &["mails_are_signed_for_the_domain_and_at_the_selectors_of_the_settings"]),
    ("email.domain_limits", &["a_domain_has_a_limit_of_its_own"]),
    ("email.from_address", &["mails_are_from_whom_the_settings_say_and_stay_here_when_they_say_so"]),
    ("email.from_name", &["mails_are_from_whom_the_settings_say_and_stay_here_when_they_say_so"]),
    ("email.hourly_limit", &["mail_over_the_hourly_limit_is_held_and_none_is_lost"]),
    ("email.open_tracking", &["opens_and_clicks_are_counted_only_when_asked_for"]),
    ("email.public_url", &["a_reader_unsubscribes_with_one_click_and_only_from_that_topic"]),
    ("events.strict_types", &["only_known_types_are_taken_when_the_setting_says_so"]),
    ("general.colour", &["the_branding_is_in_every_mail"]),
    ("general.company_name", &["the_branding_is_in_every_mail"]),
    ("general.logo_url", &["the_branding_is_in_every_mail"]),
    ("general.site_url", &["the_branding_is_in_every_mail"]),
    ("general.support_email", &["the_branding_is_in_every_mail"]),
    ("notifications.dashboard_interval_seconds", &["the_servers_own_numbers_are_published_every_interval"]),
    ("notifications.presence_linger_seconds", &["the_setting_says_how_long_a_user_lingers"]),
    ("notifications.live_enabled", &["live_streams_can_be_switched_off"]),
    ("notifications.max_stream_age_minutes", &["a_stream_that_is_old_enough_is_asked_to_come_back"]),
    ("notifications.max_streams", &["a_node_has_so_many_streams_and_no_more"]),
    ("notifications.max_streams_per_address", &["an_address_has_so_many_streams_and_a_proxy_is_not_counted"]),
    ("notifications.max_streams_per_user", &["a_user_has_so_many_streams_and_is_there_while_one_is_open"]),
    ("notifications.stream_opens_per_second", &["streams_are_opened_at_a_limited_pace"]),
    ("notifications.retention_days", &["what_is_old_goes_as_the_setting_says"]),
    ("retention.deliveries_days", &["zero_days_keep_for_ever_and_what_has_no_event_is_not_tried_again"]),
    ("retention.emails_days", &["zero_days_keep_for_ever_and_what_has_no_event_is_not_tried_again"]),
    ("retention.events_days", &["zero_days_keep_for_ever_and_what_has_no_event_is_not_tried_again"]),
    ("security.failed_keys_per_minute", &["a_flood_of_bad_keys_hits_nobody_else"]),
    ("security.ip_allow", &["the_lists_say_who_may_come"]),
    ("security.ip_deny", &["the_lists_say_who_may_come"]),
    ("security.rate_limit_per_ip", &["an_address_has_a_limit_that_comes_back"]),
    ("security.rate_limit_per_key", &["a_key_without_a_limit_of_its_own_has_the_default"]),
    ("security.trusted_proxies", &["only_trusted_proxies_are_believed"]),
    ("security.webhook_signature", &["the_setting_says_which_signatures_there_are"]),
    ("server.max_calls_under_way", &["over_the_bound_bulk_is_refused_and_administrators_are_served"]),
    ("webhook.disable_after_days", &["who_fails_for_days_is_disabled_and_can_begin_anew"]),
    ("webhook.failing_after_hours", &["who_fails_for_days_is_disabled_and_can_begin_anew"]),
    ("webhook.hourly_limit", &["what_is_over_the_hourly_limit_waits_and_none_is_lost"]),
    ("webhook.proxy_password", &["a_proxy_can_want_a_login"]),
    ("webhook.proxy_url", &["the_setting_has_effect_at_once"]),
    ("webhook.proxy_username", &["a_proxy_can_want_a_login"]),
    (
        "webhook.retry_client_errors",
        &["client_errors_are_tried_again_when_the_endpoint_or_the_setting_says_so"],
    ),
    ("webhook.retry_schedule", &["an_empty_schedule_tries_once_and_none_follows_the_settings"]),
];

/// The settings of each mail server: the first test shows what the lane does with it, and the second that each of the
/// three lanes gets its own.
const LANE: &str = "every_setting_of_a_server_reaches_its_lane";
const PROVIDER: &[(&str, &[&str])] = &[
    ("auth", &["access_tokens_are_got_once_and_again_when_refused", LANE]),
    ("ca", &["mail_goes_under_tls_and_only_to_whom_the_certificate_names", LANE]),
    ("connections", &["connections_are_opened_for_what_waits_and_closed_after_their_share", LANE]),
    ("host", &["a_fault_of_a_provider_is_not_the_mails_and_the_next_one_takes_it", LANE]),
    (
        "messages_per_connection",
        &["connections_are_opened_for_what_waits_and_closed_after_their_share", LANE],
    ),
    ("oauth_client_id", &["access_tokens_are_got_once_and_again_when_refused", LANE]),
    ("oauth_client_secret", &["access_tokens_are_got_once_and_again_when_refused", LANE]),
    ("oauth_refresh_token", &["access_tokens_are_got_once_and_again_when_refused", LANE]),
    ("oauth_token_url", &["access_tokens_are_got_once_and_again_when_refused", LANE]),
    ("password", &["a_refused_login_holds_the_mail_until_the_settings_change", LANE]),
    ("port", &["a_fault_of_a_provider_is_not_the_mails_and_the_next_one_takes_it", LANE]),
    ("preset", &["a_preset_gives_what_is_not_set", LANE]),
    ("tls", &["mail_goes_under_tls_and_only_to_whom_the_certificate_names", LANE]),
    ("user", &["a_refused_login_holds_the_mail_until_the_settings_change", LANE]),
];

fn effects() -> BTreeMap<String, &'static [&'static str]> {
    let mut effects: BTreeMap<String, _> =
        EFFECTS.iter().map(|&(key, tests)| (key.to_owned(), tests)).collect();
    for provider in ["email.smtp", "email.smtp2", "email.smtp3"] {
        effects.extend(PROVIDER.iter().map(|&(name, tests)| (format!("{provider}_{name}"), tests)));
    }
    effects
}

/// The names of all functions in the Rust files below a folder.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_setting_has_a_test_of_its_effect() {
    let effects = effects();
    let known: BTreeSet<&str> = CATALOGUE.iter().map(|definition| definition.key).collect();
    let shown: BTreeSet<&str> = effects.keys().map(String::as_str).collect();
    let without: Vec<_> = known.difference(&shown).collect();
    assert!(
        without.is_empty(),
        "settings without a test of their effect: write one and name it here: {without:?}"
    );
    let gone: Vec<_> = shown.difference(&known).collect();
    assert!(gone.is_empty(), "no settings: {gone:?}");
    let mut found = BTreeSet::new();
    for folder in ["server", "tests"] {
        functions(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    }
    for (key, tests) in effects {
        assert!(!tests.is_empty(), "{key}");
        for test in tests {
            assert!(found.contains(*test), "{key}: there is no test {test}");
        }
    }
}

on_both! {
    async fn the_branding_is_in_every_mail(server: Server) {
        let branding = json!({
            "general.colour": "#123456",
            "general.company_name": "Zoo",
            "general.logo_url": "https://cdn.example.com/logo.png",
            "general.site_url": "https://zoo.example.com",
            "general.support_email": "help@zoo.example.com",
        });
        let before = letterhead(&server.client).await;
        set(&server.client, branding.clone()).await;
        let after = letterhead(&server.client).await;
        for (key, value) in branding.as_object().unwrap() {
            let value = value.as_str().unwrap();
            assert!(after.contains(value) && !before.contains(value), "{key}: {after}");
        }
    }

    async fn mails_are_from_whom_the_settings_say_and_stay_here_when_they_say_so(server: Server) {
        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        set(&server.client, json!({"email.from_address": "desk@zoo.example.com", "email.from_name": "Zoo"})).await;
        send(&server, raw("jo@example.com", "First")).await;
        let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
        assert!(mail.mail_from.starts_with("<desk@zoo.example.com>"), "{mail:?}");
        assert_eq!(mail.header("From").as_deref(), Some("Zoo <desk@zoo.example.com>"));
        set(&server.client, json!({"email.capture": true})).await;
        let email_id = send(&server, raw("jo@example.com", "Second")).await;
        let (email, _) = wait(&server, &email_id, DeliveryState::Succeeded, 1).await;
        assert!(email.captured);
        assert_eq!(sink.received().len(), 1, "it did not leave");
    }

    async fn mails_are_signed_for_the_domain_and_at_the_selectors_of_the_settings(server: Server) {
        let sink = SmtpSink::start().await;
        send_to(&server, sink.port()).await;
        set(&server.client, json!({
            "email.dkim_domain": "letters.example.com",
            "email.dkim_selector": "summer",
            "email.dkim_private_key": RSA,
            "email.dkim_second_selector": "winter",
            "email.dkim_second_private_key": RSA,
        })).await;
        send(&server, raw("jo@example.com", "Signed")).await;
        let [mail] = sink.wait_for(1, SOON).await.try_into().unwrap();
        let folded: String = mail.raw.split_whitespace().collect();
        assert_eq!(folded.matches("d=letters.example.com;").count(), 2, "{}", mail.raw);
        for selector in ["s=summer;", "s=winter;"] {
            assert_eq!(folded.matches(selector).count(), 1, "{}", mail.raw);
        }
    }
}
