//! The wire: TemplateService.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::model::{Template, Text, Variable, Version};
use super::preview::PreviewOf;
use super::service::{LibraryService, TemplateChange};
use crate::error::Error;
use crate::pb::switchboard::email::v1 as pb;
use crate::rpc::Principal;
use crate::rpc::convert::{from_json_value, json, json_value, timestamp};
use crate::rpc::mask::{self, Mask};

/// The service.
#[derive(Clone)]
pub struct Rpc(pub Arc<LibraryService>);

const CHANGEABLE: [&str; 6] = ["description", "variables", "subject", "html_body", "plain_body", "preheader"];

#[tonic::async_trait]
impl pb::template_service_server::TemplateService for Rpc {
    async fn list_templates(
        &self,
        _request: Request<pb::ListTemplatesRequest>,
    ) -> Result<Response<pb::ListTemplatesResponse>, Status> {
        let templates = self.0.list().await?.into_iter().map(pb::Template::from).collect();
        Ok(Response::new(pb::ListTemplatesResponse { templates }))
    }

    async fn get_template(
        &self,
        request: Request<pb::GetTemplateRequest>,
    ) -> Result<Response<pb::GetTemplateResponse>, Status> {
        let pb::GetTemplateRequest { name, locale } = request.into_inner();
        let template = self.0.get(&name, &locale).await?;
        Ok(Response::new(pb::GetTemplateResponse { template: Some(template.into()) }))
    }

    async fn create_template(
        &self,
        request: Request<pb::CreateTemplateRequest>,
    ) -> Result<Response<pb::CreateTemplateResponse>, Status> {
        let principal = Principal::of(&request)?.clone();
        let template = request.into_inner().template.ok_or_else(required)?;
        let change = TemplateChange {
            description: Some(template.description),
            variables: Some(variables(template.variables)),
            subject: Some(template.subject),
            html_body: Some(template.html_body),
            plain_body: Some(template.plain_body),
            preheader: Some(template.preheader),
            version: None,
        };
        let template = self.0.create(&principal.actor(), template.name, &template.locale, change).await?;
        Ok(Response::new(pb::CreateTemplateResponse { template: Some(template.into()) }))
    }

    async fn update_template(
        &self,
        request: Request<pb::UpdateTemplateRequest>,
    ) -> Result<Response<pb::UpdateTemplateResponse>, Status> {
        let principal = Principal::of(&request)?.clone();
        let pb::UpdateTemplateRequest { template, update_mask } = request.into_inner();
        let template = template.ok_or_else(required)?;
        let mask = Mask::read(update_mask, &CHANGEABLE)?;
        let change = TemplateChange {
            description: mask.take("description", template.description),
            variables: mask.take("variables", template.variables).map(variables),
            subject: mask.take("subject", template.subject),
            html_body: mask.take("html_body", template.html_body),
            plain_body: mask.take("plain_body", template.plain_body),
            preheader: mask.take("preheader", template.preheader),
            version: mask::version(&template.etag)?,
        };
        let template = self.0.update(&principal.actor(), template.name, &template.locale, change).await?;
        Ok(Response::new(pb::UpdateTemplateResponse { template: Some(template.into()) }))
    }

    async fn delete_template(
        &self,
        request: Request<pb::DeleteTemplateRequest>,
    ) -> Result<Response<pb::DeleteTemplateResponse>, Status> {
        let pb::DeleteTemplateRequest { name, locale, etag } = request.into_inner();
        self.0.delete(name, &locale, mask::version(&etag)?).await?;
        Ok(Response::new(pb::DeleteTemplateResponse {}))
    }

    async fn preview_template(
        &self,
        request: Request<pb::PreviewTemplateRequest>,
    ) -> Result<Response<pb::PreviewTemplateResponse>, Status> {
        let pb::PreviewTemplateRequest { name, variables: values, locale, version, draft } =
            request.into_inner();
        let draft = draft.map(|draft| {
            let pb::Template { subject, html_body, plain_body, preheader, .. } = draft;
            (Text { subject, html_body, plain_body, preheader }, variables(draft.variables))
        });
        let of = PreviewOf { name, locale, variables: values.map(json), version, draft };
        let preview = self.0.preview(of).await?;
        Ok(Response::new(pb::PreviewTemplateResponse {
            subject: preview.rendered.subject,
            html_body: preview.rendered.html,
            plain_body: preview.rendered.text,
            locale: preview.locale,
            version: preview.version,
        }))
    }

    async fn list_template_versions(
        &self,
        request: Request<pb::ListTemplateVersionsRequest>,
    ) -> Result<Response<pb::ListTemplateVersionsResponse>, Status> {
        let pb::ListTemplateVersionsRequest { name, locale } = request.into_inner();
        let versions = self.0.versions(&name, &locale).await?;
        let versions = versions.into_iter().map(pb::TemplateVersion::from).collect();
        Ok(Response::new(pb::ListTemplateVersionsResponse { versions }))
    }

    async fn rollback_template(
        &self,
        request: Request<pb::RollbackTemplateRequest>,
    ) -> Result<Response<pb::RollbackTemplateResponse>, Status> {
        let principal = Principal::of(&request)?.clone();
        let pb::RollbackTemplateRequest { name, locale, version, etag } = request.into_inner();
        let etag = mask::version(&etag)?;
        let template = self.0.roll_back(&principal.actor(), name, &locale, version, etag).await?;
        Ok(Response::new(pb::RollbackTemplateResponse { template: Some(template.into()) }))
    }
}

fn required() -> Error {
    Error::field("template", "is required")
}

pub(in crate::email) fn variables(variables: Vec<pb::TemplateVariable>) -> Vec<Variable> {
    let variable = |variable: pb::TemplateVariable| Variable {
        name: variable.name,
        description: variable.description,
        required: variable.required,
        sample: variable.sample.map(|sample| json_value(sample, 0)),
    };
    variables.into_iter().map(variable).collect()
}

impl From<Variable> for pb::TemplateVariable {
    fn from(variable: Variable) -> Self {
        let Variable { name, description, required, sample } = variable;
        Self { name, description, required, sample: sample.map(from_json_value) }
    }
}

impl From<Template> for pb::Template {
    fn from(template: Template) -> Self {
        let Template { name, locale, description, variables, built_in, stored } = template;
        let overridden = built_in && stored.is_some();
        let version = stored.as_ref().map_or(0, |stored| stored.version);
        let create_time = stored.as_ref().map(|stored| timestamp(stored.created_at));
        let update_time = stored.as_ref().map(|stored| timestamp(stored.updated_at));
        let Text { subject, html_body, plain_body, preheader } =
            stored.map(|stored| stored.text).unwrap_or_default();
        Self {
            name,
            description,
            variables: variables.into_iter().map(pb::TemplateVariable::from).collect(),
            built_in,
            locale,
            subject,
            html_body,
            plain_body,
            preheader,
            overridden,
            version,
            etag: version.to_string(),
            create_time,
            update_time,
        }
    }
}

impl From<Version> for pb::TemplateVersion {
    fn from(version: Version) -> Self {
        let Version { version, text, created_by, created_at } = version;
        let Text { subject, html_body, plain_body, preheader } = text;
        Self {
            version,
            subject,
            html_body,
            plain_body,
            preheader,
            created_by,
            create_time: Some(timestamp(created_at)),
        }
    }
}
