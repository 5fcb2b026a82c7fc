//! The wire: SettingsService.

mod convert;
#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{Stream, unfold};
use tonic::{Request, Response, Status};

use super::catalogue::CATALOGUE;
use super::change::Terms;
use super::definition::{self, Definition};
use super::portable::{Exported, Options};
use super::service::SettingsService;
use super::values::Values;
use super::watch::{Watch, Watches, Wish};
use crate::error::Error;
use crate::pb::switchboard::settings::v1 as pb;
use crate::rpc::address::ClientAddress;
use crate::rpc::convert::{from_duration, json_value};
use crate::rpc::mask;
use crate::rpc::page::Page;
use crate::rpc::{Access, Principal};

/// The service.
pub struct Rpc {
    /// The use cases.
    pub settings: Arc<SettingsService>,
    /// Who watches.
    pub watches: Watches,
}

#[tonic::async_trait]
impl pb::settings_service_server::SettingsService for Rpc {
    type WatchSettingsStream = Pin<Box<dyn Stream<Item = Result<pb::WatchSettingsResponse, Status>> + Send>>;

    async fn list_settings(
        &self,
        request: Request<pb::ListSettingsRequest>,
    ) -> Result<Response<pb::ListSettingsResponse>, Status> {
        let category = request.into_inner().category;
        let values = self.settings.values();
        let wanted = |definition: &&Definition| category.is_empty() || definition.category() == category;
        let keys = CATALOGUE.iter().filter(wanted).map(|definition| definition.key);
        let settings = keys.filter_map(|key| convert::setting(&values, key)).collect();
        Ok(Response::new(pb::ListSettingsResponse { settings, etag: values.revision.to_string() }))
    }

    async fn get_setting(
        &self,
        request: Request<pb::GetSettingRequest>,
    ) -> Result<Response<pb::GetSettingResponse>, Status> {
        let key = request.into_inner().key;
        let known = definition::find(&key).ok_or_else(|| Error::not_found("setting", &key))?;
        Ok(Response::new(pb::GetSettingResponse {
            setting: convert::setting(&self.settings.values(), known.key),
        }))
    }

    async fn update_settings(
        &self,
        request: Request<pb::UpdateSettingsRequest>,
    ) -> Result<Response<pb::UpdateSettingsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let pb::UpdateSettingsRequest { values, etag, validate_only, reason } = request.into_inner();
        let terms = terms(&caller, reason, &etag, validate_only)?;
        let keys: Vec<String> = values.keys().cloned().collect();
        let new = values.into_iter().map(|(key, value)| (key, json_value(value, 0))).collect();
        let values = self.settings.update(new, terms).await?;
        let (settings, etag) = answer(&values, &keys);
        Ok(Response::new(pb::UpdateSettingsResponse { settings, etag }))
    }

    async fn reset_settings(
        &self,
        request: Request<pb::ResetSettingsRequest>,
    ) -> Result<Response<pb::ResetSettingsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let pb::ResetSettingsRequest { keys, etag, validate_only, reason } = request.into_inner();
        let values = self.settings.reset(&keys, terms(&caller, reason, &etag, validate_only)?).await?;
        let (settings, etag) = answer(&values, &keys);
        Ok(Response::new(pb::ResetSettingsResponse { settings, etag }))
    }

    async fn list_setting_revisions(
        &self,
        request: Request<pb::ListSettingRevisionsRequest>,
    ) -> Result<Response<pb::ListSettingRevisionsResponse>, Status> {
        let pb::ListSettingRevisionsRequest { key, page_size, page_token } = request.into_inner();
        let page = Page::read("setting revisions", page_size, &page_token, &[&key])?;
        let (revisions, next_page_token) = self.settings.revisions(&key, &page).await?;
        let revisions = revisions.into_iter().map(convert::revision).collect();
        Ok(Response::new(pb::ListSettingRevisionsResponse { revisions, next_page_token }))
    }

    async fn rollback_settings(
        &self,
        request: Request<pb::RollbackSettingsRequest>,
    ) -> Result<Response<pb::RollbackSettingsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let pb::RollbackSettingsRequest { revision, keys, etag, validate_only, reason } =
            request.into_inner();
        let terms = terms(&caller, reason, &etag, validate_only)?;
        let values = self.settings.rollback(revision, &keys, terms).await?;
        let settings = CATALOGUE.iter().filter_map(|known| convert::setting(&values, known.key)).collect();
        Ok(Response::new(pb::RollbackSettingsResponse { settings, etag: values.revision.to_string() }))
    }

    async fn watch_settings(
        &self,
        request: Request<pb::WatchSettingsRequest>,
    ) -> Result<Response<Self::WatchSettingsStream>, Status> {
        let (principal, access) = (Principal::of(&request)?.clone(), Access::of(&request)?);
        let pb::WatchSettingsRequest { after_revision, keys, heartbeat_interval } = request.into_inner();
        let heartbeat = match heartbeat_interval {
            None => None,
            Some(interval) => Some(
                from_duration(interval)
                    .ok_or_else(|| Error::field("heartbeat_interval", "must be 1 to 50 seconds"))?,
            ),
        };
        let wish = Wish { after: after_revision, keys, heartbeat };
        let watch = self.watches.open(&self.settings, principal, access, wish).await?;
        let next = |mut watch: Watch| async move {
            let step = watch.next().await?;
            Some((step.map(convert::step).map_err(Status::from), watch))
        };
        Ok(Response::new(Box::pin(unfold(watch, next))))
    }

    async fn clear_settings_cache(
        &self,
        _request: Request<pb::ClearSettingsCacheRequest>,
    ) -> Result<Response<pb::ClearSettingsCacheResponse>, Status> {
        let values = self.settings.clear_cache().await?;
        Ok(Response::new(pb::ClearSettingsCacheResponse { etag: values.revision.to_string() }))
    }

    async fn export_settings(
        &self,
        request: Request<pb::ExportSettingsRequest>,
    ) -> Result<Response<pb::ExportSettingsResponse>, Status> {
        let exported = self.settings.export(&request.into_inner().passphrase).await?;
        let Exported { document, revision, omitted_secrets } = exported;
        Ok(Response::new(pb::ExportSettingsResponse {
            document,
            etag: revision.to_string(),
            omitted_secrets,
        }))
    }

    async fn import_settings(
        &self,
        request: Request<pb::ImportSettingsRequest>,
    ) -> Result<Response<pb::ImportSettingsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let terms = terms(&caller, request.reason, &request.etag, request.validate_only)?;
        let options = Options {
            passphrase: request.passphrase,
            skip_secrets: request.skip_secrets,
            skip_pinned: request.skip_pinned,
            reset_others: request.reset_others,
        };
        let (values, keys) = self.settings.import(&request.document, options, terms).await?;
        let settings = keys.into_iter().filter_map(|key| convert::setting(&values, key)).collect();
        Ok(Response::new(pb::ImportSettingsResponse { settings, etag: values.revision.to_string() }))
    }

    async fn list_setting_definitions(
        &self,
        _request: Request<pb::ListSettingDefinitionsRequest>,
    ) -> Result<Response<pb::ListSettingDefinitionsResponse>, Status> {
        let definitions = CATALOGUE.iter().map(pb::SettingDefinition::from).collect();
        Ok(Response::new(pb::ListSettingDefinitionsResponse { definitions }))
    }
}

/// Who makes a change, and from where.
struct Caller {
    actor: String,
    address: Option<IpAddr>,
}

impl Caller {
    fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let actor = Principal::of(request)?.actor().into_owned();
        Ok(Self { actor, address: ClientAddress::of(request.extensions()) })
    }
}

fn terms(caller: &Caller, reason: String, etag: &str, validate_only: bool) -> Result<Terms, Status> {
    let expected = mask::version(etag)?;
    let Caller { actor, address } = caller;
    Ok(Terms { actor: actor.clone(), address: *address, reason, expected, validate_only })
}

fn answer(values: &Values, keys: &[String]) -> (Vec<pb::Setting>, String) {
    let mut keys: Vec<_> =
        keys.iter().filter_map(|key| definition::find(key)).map(|known| known.key).collect();
    keys.sort_unstable();
    (keys.into_iter().filter_map(|key| convert::setting(values, key)).collect(), values.revision.to_string())
}
