//! The wire: SettingsService.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::catalogue::CATALOGUE;
use super::definition::{self, Definition, Type};
use super::service::SettingsService;
use super::values::{Origin, Values};
use crate::error::Error;
use crate::pb::switchboard::settings::v1 as pb;
use crate::rpc::Principal;
use crate::rpc::convert::{from_json_value, json_value, timestamp};
use crate::rpc::mask;

/// The service.
pub struct Rpc(pub Arc<SettingsService>);

#[tonic::async_trait]
impl pb::settings_service_server::SettingsService for Rpc {
    async fn list_settings(
        &self,
        request: Request<pb::ListSettingsRequest>,
    ) -> Result<Response<pb::ListSettingsResponse>, Status> {
        let category = request.into_inner().category;
        let values = self.0.values();
        let wanted = |definition: &&Definition| category.is_empty() || definition.category() == category;
        let keys = CATALOGUE.iter().filter(wanted).map(|definition| definition.key);
        let settings = keys.filter_map(|key| setting(&values, key)).collect();
        Ok(Response::new(pb::ListSettingsResponse { settings, etag: values.revision.to_string() }))
    }

    async fn get_setting(
        &self,
        request: Request<pb::GetSettingRequest>,
    ) -> Result<Response<pb::GetSettingResponse>, Status> {
        let key = request.into_inner().key;
        let known = definition::find(&key).ok_or_else(|| Error::not_found("setting", &key))?;
        Ok(Response::new(pb::GetSettingResponse { setting: setting(&self.0.values(), known.key) }))
    }

    async fn update_settings(
        &self,
        request: Request<pb::UpdateSettingsRequest>,
    ) -> Result<Response<pb::UpdateSettingsResponse>, Status> {
        let principal = Principal::of(&request)?.clone();
        let pb::UpdateSettingsRequest { values, etag, validate_only } = request.into_inner();
        let keys: Vec<String> = values.keys().cloned().collect();
        let new = values.into_iter().map(|(key, value)| (key, json_value(value, 0))).collect();
        let values = self.0.update(&principal.key_id, new, mask::version(&etag)?, validate_only).await?;
        let (settings, etag) = answer(&values, &keys);
        Ok(Response::new(pb::UpdateSettingsResponse { settings, etag }))
    }

    async fn reset_settings(
        &self,
        request: Request<pb::ResetSettingsRequest>,
    ) -> Result<Response<pb::ResetSettingsResponse>, Status> {
        let pb::ResetSettingsRequest { keys, etag } = request.into_inner();
        let values = self.0.reset(&keys, mask::version(&etag)?).await?;
        let (settings, etag) = answer(&values, &keys);
        Ok(Response::new(pb::ResetSettingsResponse { settings, etag }))
    }

    async fn list_setting_definitions(
        &self,
        _request: Request<pb::ListSettingDefinitionsRequest>,
    ) -> Result<Response<pb::ListSettingDefinitionsResponse>, Status> {
        let definitions = CATALOGUE.iter().map(pb::SettingDefinition::from).collect();
        Ok(Response::new(pb::ListSettingDefinitionsResponse { definitions }))
    }
}

fn answer(values: &Values, keys: &[String]) -> (Vec<pb::Setting>, String) {
    let mut keys: Vec<_> =
        keys.iter().filter_map(|key| definition::find(key)).map(|known| known.key).collect();
    keys.sort_unstable();
    (keys.into_iter().filter_map(|key| setting(values, key)).collect(), values.revision.to_string())
}

fn setting(values: &Values, key: &'static str) -> Option<pb::Setting> {
    let entry = values.entry(key)?;
    let secret = definition::find(key).is_some_and(|known| known.kind.is_secret());
    let origin = match entry.origin {
        Origin::Default => pb::SettingOrigin::Default,
        Origin::Stored => pb::SettingOrigin::Stored,
        Origin::Environment => pb::SettingOrigin::Environment,
    };
    Some(pb::Setting {
        key: key.into(),
        value: (!secret).then(|| from_json_value(entry.value.clone())),
        origin: origin.into(),
        secret_set: !entry.secret.reveal().is_empty(),
        update_time: entry.updated_at.map(timestamp),
    })
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
            environment: definition.environment.iter().map(|&name| name.into()).collect(),
        }
    }
}
