//! The wire: ConfigurationService.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::service::{Configuration, Import, Outcome};
use crate::pb::switchboard::settings::v1 as pb;
use crate::rpc::Principal;

/// The service.
pub struct Rpc(pub Arc<Configuration>);

#[tonic::async_trait]
impl pb::configuration_service_server::ConfigurationService for Rpc {
    async fn export_configuration(
        &self,
        request: Request<pb::ExportConfigurationRequest>,
    ) -> Result<Response<pb::ExportConfigurationResponse>, Status> {
        let scopes = Arc::clone(&Principal::of(&request)?.scopes);
        let pb::ExportConfigurationRequest { passphrase, sections } = request.into_inner();
        let exported = self.0.export(&scopes, &passphrase, &sections).await?;
        Ok(Response::new(pb::ExportConfigurationResponse {
            document: exported.document,
            omitted_secrets: exported.omitted_secrets,
            omitted_sections: exported.omitted_sections.into_iter().map(str::to_owned).collect(),
        }))
    }

    async fn import_configuration(
        &self,
        request: Request<pb::ImportConfigurationRequest>,
    ) -> Result<Response<pb::ImportConfigurationResponse>, Status> {
        let scopes = Arc::clone(&Principal::of(&request)?.scopes);
        let pb::ImportConfigurationRequest {
            document,
            passphrase,
            skip_secrets,
            skip_pinned,
            prune,
            validate_only,
        } = request.into_inner();
        let import = Import { document, passphrase, skip_secrets, skip_pinned, prune, validate_only };
        let imported = self.0.import(&scopes, import).await?;
        Ok(Response::new(pb::ImportConfigurationResponse {
            sections: imported.sections.into_iter().map(pb::ImportedSection::from).collect(),
            missing_secrets: imported.missing_secrets,
        }))
    }
}

impl From<Outcome> for pb::ImportedSection {
    fn from(outcome: Outcome) -> Self {
        Self {
            section: outcome.section.to_owned(),
            created: outcome.created,
            updated: outcome.updated,
            removed: outcome.removed,
            unchanged: i64::try_from(outcome.unchanged).unwrap_or(i64::MAX),
        }
    }
}
