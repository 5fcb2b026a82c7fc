//! Requests about settings, the audit log and the whole configuration.

use std::collections::BTreeMap;

use super::super::change::{Terms, checked};
use super::super::definition;
use super::pb;
use crate::audit::Checkpoint;
use crate::error::Violations;
use crate::fuzz::accepts;
use crate::fuzz::wire::{choose, decode, decode_as};
use crate::rpc::convert::{from_json_value, json_value};

fn update(request: pb::UpdateSettingsRequest) {
    let terms = Terms { reason: request.reason, ..Terms::default() };
    if accepts(|violations| terms.check(violations)) {
        assert!(terms.reason.chars().count() <= 500 && !terms.reason.contains('\0'), "{:?}", terms.reason);
    }
    let new: BTreeMap<_, _> =
        request.values.into_iter().map(|(key, value)| (key, json_value(value, 0))).collect();
    let mut violations = Violations::default();
    for (key, value) in checked(new, &mut violations, str::to_owned) {
        let (definition, value) =
            (definition::find(key).expect("it is a setting"), value.expect("it is set"));
        assert_eq!(definition.check(&value), Ok(()), "{key}");
        assert!(value.as_str().is_none_or(|text| !text.contains('\0')), "{key}");
        assert_eq!(json_value(from_json_value(value.clone()), 0), value, "{key} comes back as it went");
    }
}

/// A request, and which one it is.
pub fn settings_requests(data: &[u8]) {
    let Some((which, message)) = choose(data, 4) else { return };
    match which {
        0 | 1 => decode(message).into_iter().for_each(update),
        2 => {
            if let Some(pb::VerifyAuditLogRequest { checkpoint, .. }) = decode(message)
                && let Ok(read) = checkpoint.parse::<Checkpoint>()
            {
                assert_eq!(read.to_string().parse::<Checkpoint>().ok(), Some(read), "{checkpoint:?}");
            }
        }
        _ => decode_as!(message;
            ListAuditEntriesRequest ExportAuditLogRequest ExportConfigurationRequest
            ImportConfigurationRequest ListSettingsRequest GetSettingRequest ResetSettingsRequest
            ListSettingRevisionsRequest RollbackSettingsRequest WatchSettingsRequest
            ClearSettingsCacheRequest ExportSettingsRequest ImportSettingsRequest
            ListSettingDefinitionsRequest
        ),
    }
}
