//! The wire: ApiKeyService, and the keys of all other services.

mod convert;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod scopes;
mod usage;
mod verify;

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::change::Rotation;
use super::service::{ApiKeyService, Creator, KeyFilter, NewKey};
use super::store::ApiKey;
use super::usage::{LogFilter, UsageWindow};
use super::verifier::Verifier;
use super::verify::Verification;
use crate::clock::Timestamp;
use crate::error::{Error, Result as ServerResult};
use crate::origin;
use crate::pb::switchboard::apikey::v1 as pb;
use crate::rpc::admission::quota::Standing;
use crate::rpc::convert::{from_duration, from_timestamp};
use crate::rpc::mask::{self, Mask};
use crate::rpc::meter::{Meter, Use};
use crate::rpc::methods::Methods;
use crate::rpc::page::Page;
use crate::rpc::{Access, Authenticate, Principal};

impl Authenticate for Verifier {
    fn cached(&self, key: &str) -> Option<ServerResult<Principal>> {
        Self::cached(self, key)
    }

    fn authenticate<'a>(&'a self, key: &'a str) -> BoxFuture<'a, ServerResult<Principal>> {
        self.verify(key).boxed()
    }

    fn admit(&self, key: &str, address: Option<IpAddr>) -> ServerResult<Option<Standing>> {
        Self::admit(self, key, address)
    }

    fn revalidate<'a>(
        &'a self,
        principal: &'a Principal,
        access: &'a Access,
    ) -> BoxFuture<'a, ServerResult<Option<Timestamp>>> {
        Self::revalidate(self, principal, access).boxed()
    }

    fn revoked(&self) -> watch::Receiver<u64> {
        self.endings().watch()
    }
}

impl Meter for ApiKeyService {
    fn used(&self, used: Use) {
        self.usage.note_own(used, self.clock.now());
    }
}

/// The service.
pub struct Rpc {
    /// Keys.
    pub keys: Arc<ApiKeyService>,
    /// The methods, for their scopes.
    pub methods: Arc<Methods>,
}

impl Rpc {
    async fn wire(&self, key: ApiKey) -> ServerResult<Option<pb::ApiKey>> {
        Ok(self.wire_all(vec![key]).await?.pop())
    }

    async fn wire_all(&self, keys: Vec<ApiKey>) -> ServerResult<Vec<pb::ApiKey>> {
        let (credits, remarks) = (self.keys.credits(&keys).await?, self.keys.remarks(&keys).await?);
        let now = self.keys.clock.now();
        Ok(keys.into_iter().map(|key| convert::api_key(key, &credits, &remarks, now)).collect())
    }
}

fn creator(principal: &Principal) -> Creator<'_> {
    Creator { id: &principal.key_id, scopes: &principal.scopes }
}

/// Work that goes on when its caller vanishes: what the database has taken, this node's memory of the keys must learn.
async fn finished<T: Send + 'static>(
    work: impl Future<Output = ServerResult<T>> + Send + 'static,
) -> ServerResult<T> {
    tokio::spawn(origin::carried(work)).await.map_err(Error::internal)?
}

#[tonic::async_trait]
impl pb::api_key_service_server::ApiKeyService for Rpc {
    async fn create_api_key(
        &self,
        request: Request<pb::CreateApiKeyRequest>,
    ) -> Result<Response<pb::CreateApiKeyResponse>, Status> {
        let principal = Principal::of(&request)?.clone();
        let request = request.into_inner();
        let (kind, expires_in_days) = (convert::kind(request.kind()), request.expires_in_days);
        let new = NewKey { kind, expires_in_days, fields: convert::fields(request) };
        let (api_key, text) = self.keys.create(creator(&principal), new).await?;
        let api_key = self.wire(api_key).await?;
        Ok(Response::new(pb::CreateApiKeyResponse { api_key, key: text.reveal().to_owned() }))
    }

    async fn get_api_key(
        &self,
        request: Request<pb::GetApiKeyRequest>,
    ) -> Result<Response<pb::GetApiKeyResponse>, Status> {
        let api_key = self.keys.get(&request.get_ref().api_key_id).await?;
        Ok(Response::new(pb::GetApiKeyResponse { api_key: self.wire(api_key).await? }))
    }

    async fn list_api_keys(
        &self,
        request: Request<pb::ListApiKeysRequest>,
    ) -> Result<Response<pb::ListApiKeysResponse>, Status> {
        let pb::ListApiKeysRequest { active, page_size, page_token, external_id } = request.into_inner();
        let page = Page::read("API keys", page_size, &page_token, &[&active, &external_id])?;
        let after = page.after.as_deref().unwrap_or_default();
        let filter = KeyFilter { active, external_id: &external_id };
        let mut keys = self.keys.list(after, filter, page.limit() as i64).await?;
        let next_page_token = page.cut(&mut keys, |key| key.id.clone());
        let api_keys = self.wire_all(keys).await?;
        Ok(Response::new(pb::ListApiKeysResponse { api_keys, next_page_token }))
    }

    async fn update_api_key(
        &self,
        request: Request<pb::UpdateApiKeyRequest>,
    ) -> Result<Response<pb::UpdateApiKeyResponse>, Status> {
        let principal = Principal::of(&request)?.clone();
        let pb::UpdateApiKeyRequest { api_key, update_mask } = request.into_inner();
        let api_key = api_key.ok_or_else(|| Error::field("api_key", "is required"))?;
        let mask = Mask::read(update_mask, &convert::CHANGEABLE)?;
        let (id, version) = (api_key.id.clone(), mask::version(&api_key.etag)?);
        let change = convert::change(&mask, api_key, version);
        let keys = Arc::clone(&self.keys);
        let work = async move { keys.update(creator(&principal), id, change).await };
        let api_key = finished(work).await?;
        Ok(Response::new(pb::UpdateApiKeyResponse { api_key: self.wire(api_key).await? }))
    }

    async fn rotate_api_key(
        &self,
        request: Request<pb::RotateApiKeyRequest>,
    ) -> Result<Response<pb::RotateApiKeyResponse>, Status> {
        let principal = Principal::of(&request)?.clone();
        let pb::RotateApiKeyRequest { api_key_id, overlap, expires_in_days, etag } = request.into_inner();
        let version = mask::version(&etag)?;
        let negative = || Error::field("overlap", "must not be negative");
        let overlap = overlap.map(|overlap| from_duration(overlap).ok_or_else(negative)).transpose()?;
        let rotation = Rotation { api_key_id, overlap, expires_in_days, version };
        let keys = Arc::clone(&self.keys);
        let work = async move { keys.rotate(creator(&principal), rotation).await };
        let (new, text, old) = finished(work).await?;
        let (api_key, replaced) = (self.wire(new).await?, self.wire(old).await?);
        Ok(Response::new(pb::RotateApiKeyResponse { api_key, key: text.reveal().to_owned(), replaced }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<pb::RevokeApiKeyRequest>,
    ) -> Result<Response<pb::RevokeApiKeyResponse>, Status> {
        let (keys, id) = (Arc::clone(&self.keys), request.into_inner().api_key_id);
        let api_key = finished(async move { keys.revoke(id).await }).await?;
        Ok(Response::new(pb::RevokeApiKeyResponse { api_key: self.wire(api_key).await? }))
    }

    async fn verify_api_key(
        &self,
        request: Request<pb::VerifyApiKeyRequest>,
    ) -> Result<Response<pb::VerifyApiKeyResponse>, Status> {
        let verdict = self.keys.verify(&request.into_inner().into()).await?;
        Ok(Response::new(verdict.into()))
    }

    async fn batch_verify_api_keys(
        &self,
        request: Request<pb::BatchVerifyApiKeysRequest>,
    ) -> Result<Response<pb::BatchVerifyApiKeysResponse>, Status> {
        let all: Vec<Verification> =
            request.into_inner().requests.into_iter().map(Verification::from).collect();
        let verdicts = self.keys.verify_batch(&all).await?;
        let responses = verdicts.into_iter().map(pb::VerifyApiKeyResponse::from).collect();
        Ok(Response::new(pb::BatchVerifyApiKeysResponse { responses }))
    }

    async fn get_api_key_usage(
        &self,
        request: Request<pb::GetApiKeyUsageRequest>,
    ) -> Result<Response<pb::GetApiKeyUsageResponse>, Status> {
        let pb::GetApiKeyUsageRequest { api_key_id, start_time, end_time } = request.into_inner();
        let (start, end) = (start_time.map(from_timestamp), end_time.map(from_timestamp));
        let report = self.keys.usage_report(&UsageWindow { key_id: api_key_id, start, end }).await?;
        let mut answer = pb::GetApiKeyUsageResponse::from(report);
        answer.dropped_logs = i64::try_from(self.keys.usage.dropped()).unwrap_or(i64::MAX);
        Ok(Response::new(answer))
    }

    async fn list_api_key_logs(
        &self,
        request: Request<pb::ListApiKeyLogsRequest>,
    ) -> Result<Response<pb::ListApiKeyLogsResponse>, Status> {
        let pb::ListApiKeyLogsRequest { api_key_id, errors_only, page_size, page_token } =
            request.into_inner();
        let page = Page::read("API key logs", page_size, &page_token, &[&api_key_id, &errors_only])?;
        let filter = LogFilter { key_id: &api_key_id, errors_only };
        let mut rows = self.keys.usage_log(page.after.as_deref(), filter, page.limit() as i64).await?;
        let next_page_token = page.cut(&mut rows, |row| row.id.clone());
        let logs = rows.into_iter().map(pb::ApiKeyLog::from).collect();
        Ok(Response::new(pb::ListApiKeyLogsResponse { logs, next_page_token }))
    }

    async fn list_scopes(
        &self,
        _request: Request<pb::ListScopesRequest>,
    ) -> Result<Response<pb::ListScopesResponse>, Status> {
        let mut all = scopes::own(&self.methods);
        for scope in self.keys.registered_scopes().await? {
            // What the server lists itself by now is its own.
            all.entry(scope.name.clone()).or_insert_with(|| scopes::registered(scope));
        }
        Ok(Response::new(pb::ListScopesResponse { scopes: all.into_values().collect() }))
    }

    async fn create_scope(
        &self,
        request: Request<pb::CreateScopeRequest>,
    ) -> Result<Response<pb::CreateScopeResponse>, Status> {
        let pb::CreateScopeRequest { name, description } = request.into_inner();
        let own = scopes::own(&self.methods);
        let scope = self.keys.register_scope(name, description, |name| own.contains_key(name)).await?;
        Ok(Response::new(pb::CreateScopeResponse { scope: Some(scopes::registered(scope)) }))
    }

    async fn delete_scope(
        &self,
        request: Request<pb::DeleteScopeRequest>,
    ) -> Result<Response<pb::DeleteScopeResponse>, Status> {
        self.keys.forget_scope(request.into_inner().name).await?;
        Ok(Response::new(pb::DeleteScopeResponse {}))
    }
}
