//! The settings as the doctor reads them.

use std::collections::HashMap;

use prost_types::value::Kind;
use switchboard_client::settings::v1::{Setting, SettingOrigin};

/// All settings by key.
pub(super) struct Sheet(HashMap<String, Setting>);

impl Sheet {
    /// From what ListSettings answers.
    pub(super) fn new(settings: Vec<Setting>) -> Self {
        Self(settings.into_iter().map(|setting| (setting.key.clone(), setting)).collect())
    }

    fn kind(&self, key: &str) -> Option<&Kind> {
        self.0.get(key)?.value.as_ref()?.kind.as_ref()
    }

    /// A text; empty when it is none, or not known to this server.
    pub(super) fn text(&self, key: &str) -> &str {
        match self.kind(key) {
            Some(Kind::StringValue(text)) => text,
            _ => "",
        }
    }

    /// A number; 0 when it is none.
    pub(super) fn number(&self, key: &str) -> f64 {
        match self.kind(key) {
            Some(Kind::NumberValue(number)) => *number,
            _ => 0.0,
        }
    }

    /// A switch; off when it is none.
    pub(super) fn is_on(&self, key: &str) -> bool {
        self.kind(key) == Some(&Kind::BoolValue(true))
    }

    /// Whether a secret has a value.
    pub(super) fn has_secret(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|setting| setting.secret_set)
    }

    /// Whether nobody has set it.
    pub(super) fn is_default(&self, key: &str) -> bool {
        self.0.get(key).is_none_or(|setting| setting.origin() == SettingOrigin::Default)
    }

    /// The providers that are set, by the beginning of their settings' keys, in the order in which they are tried.
    pub(super) fn providers(&self) -> Vec<&'static str> {
        let mut providers = vec!["email.smtp", "email.smtp2", "email.smtp3"];
        providers.retain(|prefix| {
            let preset = self.text(&format!("{prefix}_preset"));
            !self.text(&format!("{prefix}_host")).is_empty() || !["", "custom"].contains(&preset)
        });
        providers
    }

    /// Whether mail leaves the server.
    pub(super) fn sends(&self) -> bool {
        !self.is_on("email.capture") && !self.providers().is_empty()
    }
}
