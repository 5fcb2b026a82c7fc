//! What is fuzzed: everything that reads what somebody outside wrote.
//!
//! ```text
//! fuzz/ (libFuzzer) ──▶ TARGETS ──▶ a function beside what it tests, such as email::smtp::fuzz::smtp_reply
//! cargo test ─ fuzz/corpus/<target>/* ─▶ the same
//! ```
//! A target takes any bytes and asserts laws of what reads them: that nothing panics is the least of them.  It is compiled
//! for the fuzzer and for the tests only, and lives beside what it tests, so that nothing has to be public for it.  Each
//! file of its corpus is an input that is kept: written by hand, found by the fuzzer because it reaches code that no other
//! does, or, when its name begins with `found-`, one that broke a law once.

pub mod scope;
pub mod sealed;
pub mod wire;

use std::sync::Arc;

use crate::error::Violations;
use crate::secret::{Random, SharedRandom};

/// A target: it panics when a law does not hold.
pub type Target = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("address_list", crate::email::fuzz::address_list),
    ("api_key", crate::apikey::fuzz::api_key),
    ("api_key_requests", crate::apikey::rpc::fuzz::api_key_requests),
    ("bounce", crate::email::bounce::fuzz::bounce),
    ("configuration_file", crate::settings::fuzz::configuration_file),
    ("cursor", crate::event::fuzz::cursor),
    ("email_requests", crate::email::rpc::fuzz::email_requests),
    ("event_data", crate::event::fuzz::event_data),
    ("event_pattern", crate::event::fuzz::event_pattern),
    ("event_requests", crate::event::rpc::fuzz::event_requests),
    ("export_document", crate::portable::fuzz::export_document),
    ("expression", crate::event::fuzz::expression),
    ("forwarded", crate::rpc::admission::fuzz::forwarded),
    ("html", crate::email::fuzz::html),
    ("identity_keys", crate::notification::token::fuzz::identity_keys),
    ("identity_token", crate::notification::token::fuzz::identity_token),
    ("mail_link", crate::email::links::fuzz::mail_link),
    ("networks", crate::rpc::admission::fuzz::networks),
    ("notification_requests", crate::notification::rpc::fuzz::notification_requests),
    ("page_token", crate::rpc::fuzz::page_token),
    ("retry_schedule", crate::webhook::fuzz::retry_schedule),
    ("scope", scope::scope),
    ("sealed_secret", sealed::sealed_secret),
    ("settings_document", crate::settings::fuzz::settings_document),
    ("settings_requests", crate::settings::rpc::fuzz::settings_requests),
    ("smtp_reply", crate::email::smtp::fuzz::smtp_reply),
    ("subscriber_token", crate::notification::token::fuzz::subscriber_token),
    ("template", crate::email::library::fuzz::template),
    ("topic_pattern", crate::event::fuzz::topic_pattern),
    ("url_guard", crate::webhook::fuzz::url_guard),
    ("webhook_requests", crate::webhook::rpc::fuzz::webhook_requests),
    ("webhook_secret", crate::webhook::fuzz::webhook_secret),
    ("webhook_signature", crate::webhook::fuzz::webhook_signature),
];

/// Runs a target.
///
/// # Panics
/// When there is none of this name, and when a law does not hold.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = found.unwrap_or_else(|| panic!("there is no target {name:?}"));
    target(data);
}

/// Takes an input apart at its NUL bytes: the last part is all that is left, and a part that is not there is empty.
/// `None` for what is no text.
pub fn texts<const N: usize>(data: &[u8]) -> Option<[&str; N]> {
    let mut parts = std::str::from_utf8(data).ok()?.splitn(N, '\0');
    Some(std::array::from_fn(|_| parts.next().unwrap_or_default()))
}

/// Whether a check finds nothing wrong.
pub fn accepts(check: impl FnOnce(&mut Violations)) -> bool {
    let mut violations = Violations::default();
    check(&mut violations);
    violations.finish().is_ok()
}

/// Bytes that are always the same, so that an input does the same each time.
#[derive(Debug, Clone, Copy)]
pub struct SameRandom(pub u8);

impl Random for SameRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut next = u32::from(self.0).wrapping_add(1);
        for byte in bytes {
            next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (next >> 24) as u8;
        }
    }
}

/// The same randomness for what keeps it.
pub fn random() -> SharedRandom {
    Arc::new(SameRandom(0))
}

#[cfg(test)]
mod tests;
