//! The wire: ApiKeyService, and the keys of all other services.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tonic::{Request, Response, Status};

use super::service::{ApiKeyService, Creator, NewKey};
use super::store::ApiKey;
use super::verifier::Verifier;
use crate::error::Result as ServerResult;
use crate::pb::switchboard::apikey::v1 as pb;
use crate::rpc::convert::timestamp;
use crate::rpc::methods::Methods;
use crate::rpc::page::Page;
use crate::rpc::{Authenticate, Principal};

impl Authenticate for Verifier {
    fn cached(&self, key: &str) -> Option<ServerResult<Principal>> {
        Self::cached(self, key)
    }

    fn authenticate<'a>(&'a self, key: &'a str) -> BoxFuture<'a, ServerResult<Principal>> {
        self.verify(key).boxed()
    }

    fn is_valid<'a>(&'a self, principal: &'a Principal) -> BoxFuture<'a, bool> {
        Self::is_valid(self, principal).boxed()
    }
}

/// Scopes of the applications behind this server, and those that cover several of its own.
const KNOWN_SCOPES: [(&str, &str); 14] = [
    ("admin:*", "Everything on this server"),
    ("admin:read", "Everything on this server that only reads"),
    ("admin:write", "Everything on this server that writes"),
    ("inventory:*", "All of the inventory"),
    ("inventory:read", "View inventory items"),
    ("inventory:write", "Create and change inventory items"),
    ("inventory:delete", "Delete inventory items"),
    ("tickets:*", "All of the tickets"),
    ("tickets:read", "View tickets"),
    ("tickets:write", "Create and change tickets"),
    ("tickets:delete", "Delete tickets"),
    ("biofloc:*", "All of biofloc"),
    ("biofloc:read", "View biofloc data"),
    ("biofloc:write", "Change biofloc readings"),
];

/// The service.
pub struct Rpc {
    /// Keys.
    pub keys: Arc<ApiKeyService>,
    /// The methods, for their scopes.
    pub methods: Arc<Methods>,
}

impl Rpc {
    fn api_key(&self, key: ApiKey) -> pb::ApiKey {
        pb::ApiKey {
            active: key.active && key.expires_at > self.keys.clock.now(),
            id: key.id,
            name: key.name,
            description: key.description,
            scopes: key.scopes.0,
            key_prefix: key.key_prefix,
            create_time: Some(timestamp(key.created_at)),
            expire_time: Some(timestamp(key.expires_at)),
            revoke_time: key.revoked_at.map(timestamp),
        }
    }
}

#[tonic::async_trait]
impl pb::api_key_service_server::ApiKeyService for Rpc {
    async fn create_api_key(
        &self,
        request: Request<pb::CreateApiKeyRequest>,
    ) -> Result<Response<pb::CreateApiKeyResponse>, Status> {
        let principal = Principal::of(&request)?.clone();
        let pb::CreateApiKeyRequest { name, description, scopes, expires_in_days } = request.into_inner();
        let creator = Creator { id: &principal.key_id, scopes: &principal.scopes };
        let (api_key, text) =
            self.keys.create(creator, NewKey { name, description, scopes, expires_in_days }).await?;
        let api_key = Some(self.api_key(api_key));
        Ok(Response::new(pb::CreateApiKeyResponse { api_key, key: text.reveal().to_owned() }))
    }

    async fn get_api_key(
        &self,
        request: Request<pb::GetApiKeyRequest>,
    ) -> Result<Response<pb::GetApiKeyResponse>, Status> {
        let api_key = self.keys.get(&request.get_ref().api_key_id).await?;
        Ok(Response::new(pb::GetApiKeyResponse { api_key: Some(self.api_key(api_key)) }))
    }

    async fn list_api_keys(
        &self,
        request: Request<pb::ListApiKeysRequest>,
    ) -> Result<Response<pb::ListApiKeysResponse>, Status> {
        let pb::ListApiKeysRequest { active, page_size, page_token } = request.into_inner();
        let page = Page::read("API keys", page_size, &page_token, &[&active])?;
        let after = page.after.as_deref().unwrap_or_default();
        let mut keys = self.keys.list(after, active, page.limit() as i64).await?;
        let next_page_token = page.cut(&mut keys, |key| key.id.clone());
        let api_keys = keys.into_iter().map(|key| self.api_key(key)).collect();
        Ok(Response::new(pb::ListApiKeysResponse { api_keys, next_page_token }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<pb::RevokeApiKeyRequest>,
    ) -> Result<Response<pb::RevokeApiKeyResponse>, Status> {
        let api_key = self.keys.revoke(request.into_inner().api_key_id).await?;
        Ok(Response::new(pb::RevokeApiKeyResponse { api_key: Some(self.api_key(api_key)) }))
    }

    async fn list_scopes(
        &self,
        _request: Request<pb::ListScopesRequest>,
    ) -> Result<Response<pb::ListScopesResponse>, Status> {
        let mut scopes: BTreeMap<String, pb::Scope> = BTreeMap::new();
        for (name, description) in KNOWN_SCOPES {
            let scope = pb::Scope { name: name.into(), description: description.into(), methods: Vec::new() };
            scopes.insert(name.into(), scope);
        }
        for method in self.methods.all() {
            let (resource, action) = method.scope.split_once(':').unwrap_or_default();
            let one = scopes.entry(method.scope.into()).or_insert_with(|| pb::Scope {
                name: method.scope.into(),
                description: format!("The RPCs of this server that {action} {resource}"),
                methods: Vec::new(),
            });
            one.methods.push(method.path.trim_start_matches('/').to_owned());
            scopes.entry(format!("{resource}:*")).or_insert_with(|| pb::Scope {
                name: format!("{resource}:*"),
                description: format!("All of {resource}"),
                methods: Vec::new(),
            });
        }
        let mut scopes: Vec<_> = scopes.into_values().collect();
        scopes.iter_mut().for_each(|scope| scope.methods.sort());
        Ok(Response::new(pb::ListScopesResponse { scopes }))
    }
}
