//! The wire: EmailService and TemplateService.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::service::{EmailFilter, EmailService, NewEmail};
use super::store::Queued;
use super::template::{self, Definition, Rendered};
use crate::delivery::store::AttemptRow;
use crate::delivery::{State, Table};
use crate::pb::switchboard::email::v1 as pb;
use crate::rpc::Principal;
use crate::rpc::convert::{
    duration, from_json, from_json_value, from_timestamp, json, next_attempt, state, states, timestamp,
};
use crate::rpc::page::Page;

/// Both services.
#[derive(Clone)]
pub struct Rpc(pub Arc<EmailService>);

#[tonic::async_trait]
impl pb::email_service_server::EmailService for Rpc {
    async fn send_email(
        &self,
        request: Request<pb::SendEmailRequest>,
    ) -> Result<Response<pb::SendEmailResponse>, Status> {
        let principal = Principal::of(&request)?.clone();
        let request = request.into_inner();
        let email = NewEmail {
            to: request.to,
            cc: request.cc,
            bcc: request.bcc,
            reply_to: request.reply_to,
            template: request.template,
            variables: request.variables.map(json).unwrap_or_default(),
            subject: request.subject,
            html_body: request.html_body,
            plain_body: request.plain_body,
            request_id: request.request_id,
        };
        let sent = self.0.send(&principal.key_id, email).await?;
        Ok(Response::new(pb::SendEmailResponse { email_id: sent.email_id, replayed: sent.replayed }))
    }

    async fn get_email(
        &self,
        request: Request<pb::GetEmailRequest>,
    ) -> Result<Response<pb::GetEmailResponse>, Status> {
        let (queued, attempts) = self.0.get(&request.get_ref().email_id).await?;
        let (html_body, plain_body) = match &queued.captured {
            Some(captured) => (captured.html_body.clone(), captured.plain_body.clone()),
            None => (queued.mail.html_body.clone(), queued.mail.plain_body.clone()),
        };
        let attempts = attempts.into_iter().map(pb::EmailAttempt::from).collect();
        Ok(Response::new(pb::GetEmailResponse {
            email: Some(queued.into()),
            html_body,
            plain_body,
            attempts,
            ..Default::default()
        }))
    }

    async fn list_emails(
        &self,
        request: Request<pb::ListEmailsRequest>,
    ) -> Result<Response<pb::ListEmailsResponse>, Status> {
        let request = request.into_inner();
        let page = Page::read(
            "emails",
            request.page_size,
            &request.page_token,
            &[
                &request.states,
                &request.event_id,
                &request.template,
                &request.created_after,
                &request.created_before,
            ],
        )?;
        let filter = EmailFilter {
            states: states(request.states()),
            event_id: request.event_id,
            template: request.template,
            created_after: request.created_after.map(from_timestamp),
            created_before: request.created_before.map(from_timestamp),
            before: page.after.clone(),
        };
        let mut emails = self.0.list(&filter, page.limit() as i64).await?;
        let next_page_token = page.cut(&mut emails, |queued| queued.mail.id.clone());
        let emails = emails.into_iter().map(pb::Email::from).collect();
        Ok(Response::new(pb::ListEmailsResponse { emails, next_page_token }))
    }

    async fn batch_send_emails(
        &self,
        _request: Request<pb::BatchSendEmailsRequest>,
    ) -> Result<Response<pb::BatchSendEmailsResponse>, Status> {
        Err(Status::unimplemented("BatchSendEmails"))
    }

    async fn get_email_stats(
        &self,
        _request: Request<pb::GetEmailStatsRequest>,
    ) -> Result<Response<pb::GetEmailStatsResponse>, Status> {
        Err(Status::unimplemented("GetEmailStats"))
    }

    async fn cancel_email(
        &self,
        _request: Request<pb::CancelEmailRequest>,
    ) -> Result<Response<pb::CancelEmailResponse>, Status> {
        Err(Status::unimplemented("CancelEmail"))
    }

    async fn retry_email(
        &self,
        _request: Request<pb::RetryEmailRequest>,
    ) -> Result<Response<pb::RetryEmailResponse>, Status> {
        Err(Status::unimplemented("RetryEmail"))
    }

    async fn retry_failed_emails(
        &self,
        _request: Request<pb::RetryFailedEmailsRequest>,
    ) -> Result<Response<pb::RetryFailedEmailsResponse>, Status> {
        Err(Status::unimplemented("RetryFailedEmails"))
    }

    async fn test_smtp(
        &self,
        _request: Request<pb::TestSmtpRequest>,
    ) -> Result<Response<pb::TestSmtpResponse>, Status> {
        Err(Status::unimplemented("TestSmtp"))
    }

    async fn report_bounce(
        &self,
        _request: Request<pb::ReportBounceRequest>,
    ) -> Result<Response<pb::ReportBounceResponse>, Status> {
        Err(Status::unimplemented("ReportBounce"))
    }
}

#[tonic::async_trait]
impl pb::template_service_server::TemplateService for Rpc {
    async fn list_templates(
        &self,
        _request: Request<pb::ListTemplatesRequest>,
    ) -> Result<Response<pb::ListTemplatesResponse>, Status> {
        let mut templates: Vec<_> = template::definitions().iter().map(pb::Template::from).collect();
        templates.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Response::new(pb::ListTemplatesResponse { templates }))
    }

    async fn get_template(
        &self,
        request: Request<pb::GetTemplateRequest>,
    ) -> Result<Response<pb::GetTemplateResponse>, Status> {
        let template = self.0.template(&request.get_ref().name)?;
        Ok(Response::new(pb::GetTemplateResponse { template: Some(template.into()) }))
    }

    async fn preview_template(
        &self,
        request: Request<pb::PreviewTemplateRequest>,
    ) -> Result<Response<pb::PreviewTemplateResponse>, Status> {
        let pb::PreviewTemplateRequest { name, variables, .. } = request.into_inner();
        let Rendered { subject, html, text } = self.0.preview(&name, variables.map(json))?;
        Ok(Response::new(pb::PreviewTemplateResponse {
            subject,
            html_body: html,
            plain_body: text,
            ..Default::default()
        }))
    }

    async fn create_template(
        &self,
        _request: Request<pb::CreateTemplateRequest>,
    ) -> Result<Response<pb::CreateTemplateResponse>, Status> {
        Err(Status::unimplemented("CreateTemplate"))
    }

    async fn update_template(
        &self,
        _request: Request<pb::UpdateTemplateRequest>,
    ) -> Result<Response<pb::UpdateTemplateResponse>, Status> {
        Err(Status::unimplemented("UpdateTemplate"))
    }

    async fn delete_template(
        &self,
        _request: Request<pb::DeleteTemplateRequest>,
    ) -> Result<Response<pb::DeleteTemplateResponse>, Status> {
        Err(Status::unimplemented("DeleteTemplate"))
    }

    async fn list_template_versions(
        &self,
        _request: Request<pb::ListTemplateVersionsRequest>,
    ) -> Result<Response<pb::ListTemplateVersionsResponse>, Status> {
        Err(Status::unimplemented("ListTemplateVersions"))
    }

    async fn rollback_template(
        &self,
        _request: Request<pb::RollbackTemplateRequest>,
    ) -> Result<Response<pb::RollbackTemplateResponse>, Status> {
        Err(Status::unimplemented("RollbackTemplate"))
    }
}

impl From<Queued> for pb::Email {
    fn from(queued: Queued) -> Self {
        let Queued { mail, standing, captured } = queued;
        let known = State::of_word(&standing.status, Table::EmailQueue);
        let is_captured = captured.is_some();
        let (from, subject) = captured.map_or((String::new(), mail.subject), |c| (c.from_address, c.subject));
        Self {
            id: mail.id,
            event_id: mail.event_id.unwrap_or_default(),
            route_id: mail.route_id.unwrap_or_default(),
            template: mail.template,
            variables: Some(from_json(mail.variables)),
            from,
            to: mail.to,
            cc: mail.cc,
            bcc: mail.bcc,
            reply_to: mail.reply_to,
            subject,
            state: state(known).into(),
            captured: is_captured,
            attempts: standing.attempts,
            last_error: standing.error_message.unwrap_or_default(),
            create_time: Some(timestamp(mail.created_at)),
            update_time: Some(timestamp(standing.updated_at)),
            next_attempt_time: next_attempt(known, standing.next_attempt_at),
            ..Self::default()
        }
    }
}

impl From<AttemptRow> for pb::EmailAttempt {
    fn from(attempt: AttemptRow) -> Self {
        let micros = u64::try_from(attempt.duration_micros).unwrap_or_default();
        Self {
            number: attempt.number,
            start_time: Some(timestamp(attempt.started_at)),
            duration: Some(duration(Duration::from_micros(micros))),
            reply: attempt.response_body.unwrap_or_default(),
            error: attempt.error_message.unwrap_or_default(),
            transcript: attempt.transcript.unwrap_or_default(),
        }
    }
}

impl From<&'static Definition> for pb::Template {
    fn from(definition: &'static Definition) -> Self {
        let variable = |variable: &template::Variable| pb::TemplateVariable {
            name: variable.name.into(),
            description: variable.description.into(),
            required: variable.required,
            sample: serde_json::from_str(variable.sample).ok().map(from_json_value),
        };
        Self {
            name: definition.name.into(),
            description: definition.description.into(),
            variables: definition.variables.iter().map(variable).collect(),
            built_in: true,
            ..Self::default()
        }
    }
}
