//! Settings between the contract's types and the server's.

use serde_json::Value;

use super::super::definition::{self, Definition, Type};
use super::super::history::{Action, Change, Revision};
use super::super::values::{Origin, Values};
use super::super::watch::Step;
use crate::pb::switchboard::settings::v1 as pb;
use crate::rpc::convert::{from_json_value, timestamp};

/// A setting's value for the wire.
pub(super) fn setting(values: &Values, key: &'static str) -> Option<pb::Setting> {
    let entry = values.entry(key)?;
    let secret = definition::find(key).is_some_and(|known| known.kind.is_secret());
    Some(pb::Setting {
        key: key.into(),
        value: (!secret).then(|| from_json_value(entry.value.clone())),
        origin: origin(entry.origin).into(),
        secret_set: !entry.secret.reveal().is_empty(),
        update_time: entry.updated_at.map(timestamp),
        pinned_by: entry.source.clone(),
    })
}

fn origin(origin: Origin) -> pb::SettingOrigin {
    match origin {
        Origin::Default => pb::SettingOrigin::Default,
        Origin::Stored => pb::SettingOrigin::Stored,
        Origin::Flag => pb::SettingOrigin::Flag,
        Origin::Environment => pb::SettingOrigin::Environment,
        Origin::EnvironmentFile => pb::SettingOrigin::EnvironmentFile,
        Origin::ConfigurationFile => pb::SettingOrigin::ConfigurationFile,
    }
}

/// What comes of a watch, for the wire.
pub(super) fn step(step: Step) -> pb::WatchSettingsResponse {
    pb::WatchSettingsResponse { revision: step.position, change: step.revision.map(revision) }
}

/// A revision for the wire.
pub(super) fn revision(revision: Revision) -> pb::SettingRevision {
    let action = revision.action.map_or(pb::SettingAction::Unspecified, |action| match action {
        Action::Update => pb::SettingAction::Update,
        Action::Reset => pb::SettingAction::Reset,
        Action::Rollback => pb::SettingAction::Rollback,
        Action::Import => pb::SettingAction::Import,
    });
    pb::SettingRevision {
        revision: revision.number,
        create_time: Some(timestamp(revision.created_at)),
        actor: revision.actor,
        action: action.into(),
        reason: revision.reason,
        changes: revision.changes.into_iter().map(change).collect(),
    }
}

fn change(change: Change) -> pb::SettingChange {
    let Change { key, secret, old, new } = change;
    let origin = |value: &Option<Value>| {
        if value.is_some() { pb::SettingOrigin::Stored } else { pb::SettingOrigin::Default }
    };
    let (old_origin, new_origin) = (origin(&old).into(), origin(&new).into());
    let mut shown = pb::SettingChange { old_origin, new_origin, ..Default::default() };
    if secret {
        let fingerprint = |value: Option<Value>| value.and_then(|value| Some(value.as_str()?.to_owned()));
        shown.old_fingerprint = fingerprint(old).unwrap_or_default();
        shown.new_fingerprint = fingerprint(new).unwrap_or_default();
    } else {
        let default = || definition::find(&key).map(Definition::default_value);
        shown.old_value = old.or_else(default).map(from_json_value);
        shown.new_value = new.or_else(default).map(from_json_value);
    }
    shown.key = key;
    shown
}

impl From<&Definition> for pb::SettingDefinition {
    fn from(definition: &Definition) -> Self {
        let (kind, choices, range) = match definition.kind {
            Type::Integer(least, greatest) => (pb::SettingType::Integer, &[][..], Some((least, greatest))),
            Type::Boolean => (pb::SettingType::Boolean, &[][..], None),
            Type::Choice(words) => (pb::SettingType::Choice, words, None),
            Type::Secret | Type::PrivateKey => (pb::SettingType::Secret, &[][..], None),
            Type::Text
            | Type::Address
            | Type::Url
            | Type::OptionalUrl
            | Type::Colour
            | Type::Networks
            | Type::Certificates => (pb::SettingType::String, &[][..], None),
        };
        let default = (!definition.kind.is_secret()).then(|| from_json_value(definition.default_value()));
        Self {
            key: definition.key.into(),
            category: definition.category().into(),
            r#type: kind.into(),
            default_value: default,
            description: definition.description.into(),
            choices: choices.iter().map(|&word| word.into()).collect(),
            minimum: range.map(|(least, _)| least),
            maximum: range.map(|(_, greatest)| greatest),
            environment: definition.variables(),
        }
    }
}
