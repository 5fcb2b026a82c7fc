//! The wire: AuditService.

use std::pin::Pin;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use serde_json::{Map, Value};
use tonic::{Request, Response, Status};

use super::read::{AuditService, Filter};
use super::store::Entry;
use super::verify::{Checkpoint, Problem};
use crate::error::{Error, Result as ServerResult};
use crate::pb::switchboard::settings::v1 as pb;
use crate::rpc::convert::{from_json, from_timestamp, timestamp};
use crate::rpc::page::Page;

/// The service.
pub struct Rpc(pub AuditService);

#[tonic::async_trait]
impl pb::audit_service_server::AuditService for Rpc {
    type ExportAuditLogStream =
        Pin<Box<dyn Stream<Item = Result<pb::ExportAuditLogResponse, Status>> + Send>>;

    async fn list_audit_entries(
        &self,
        request: Request<pb::ListAuditEntriesRequest>,
    ) -> Result<Response<pb::ListAuditEntriesResponse>, Status> {
        let request = request.into_inner();
        let filter = Filter {
            actor: request.actor,
            action_prefix: request.action_prefix,
            resource_type: request.resource_type,
            resource_id: request.resource_id,
            start: request.start_time.map(from_timestamp),
            end: request.end_time.map(from_timestamp),
        };
        let page = Page::read("audit entries", request.page_size, &request.page_token, &[&filter])?;
        let wrong = |_| Error::field("page_token", "is not a next_page_token of this list");
        let before = page.after.as_ref().map(|seq| seq.parse().map_err(wrong)).transpose()?;
        let mut entries = self.0.list(before, &filter, page.limit()).await?;
        let next_page_token = page.cut(&mut entries, |entry| entry.seq.to_string());
        let entries = entries.into_iter().map(pb::AuditEntry::from).collect();
        Ok(Response::new(pb::ListAuditEntriesResponse { entries, next_page_token }))
    }

    async fn verify_audit_log(
        &self,
        request: Request<pb::VerifyAuditLogRequest>,
    ) -> Result<Response<pb::VerifyAuditLogResponse>, Status> {
        let pb::VerifyAuditLogRequest { from_seq, checkpoint } = request.into_inner();
        if from_seq < 0 {
            return Err(Error::field("from_seq", "must not be negative").into());
        }
        let report = self.0.verify(from_seq, expected(&checkpoint)?).await?;
        let (first_bad_seq, problem, explanation) = match report.fault {
            None => (0, pb::AuditProblem::Unspecified, ""),
            Some(fault) => (fault.seq, fault.problem.into(), fault.problem.explanation()),
        };
        Ok(Response::new(pb::VerifyAuditLogResponse {
            ok: report.fault.is_none(),
            checked: report.checked,
            first_bad_seq,
            problem: problem.into(),
            explanation: explanation.to_owned(),
            checkpoint: report.checkpoint.to_string(),
        }))
    }

    async fn export_audit_log(
        &self,
        request: Request<pb::ExportAuditLogRequest>,
    ) -> Result<Response<Self::ExportAuditLogStream>, Status> {
        let (service, after) = (self.0.clone(), request.into_inner().after_seq);
        let batches = stream::try_unfold((service, after), |(service, after)| async move {
            let entries = service.export(after).await.map_err(Status::from)?;
            let Some(last) = entries.last() else { return Ok(None) };
            let next = (service, last.seq);
            let answer = |entry: Entry| pb::ExportAuditLogResponse { entry: Some(entry.into()) };
            let answers: Vec<_> = entries.into_iter().map(answer).map(Ok).collect();
            Ok::<_, Status>(Some((stream::iter(answers), next)))
        });
        Ok(Response::new(batches.try_flatten().boxed()))
    }
}

fn expected(text: &str) -> ServerResult<Option<Checkpoint>> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|wrong: &str| Error::field("checkpoint", wrong)),
    }
}

impl From<Problem> for pb::AuditProblem {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Missing => Self::Missing,
            Problem::Altered => Self::Altered,
            Problem::Unlinked => Self::Unlinked,
            Problem::Unexpected => Self::Unexpected,
            Problem::Head => Self::Head,
            Problem::Checkpoint => Self::Checkpoint,
        }
    }
}

impl From<Entry> for pb::AuditEntry {
    fn from(entry: Entry) -> Self {
        let object = |text: &str| serde_json::from_str::<Map<String, Value>>(text).ok().map(from_json);
        Self {
            seq: entry.seq,
            before: object(&entry.before),
            after: object(&entry.after),
            create_time: Some(timestamp(entry.created_at)),
            actor: entry.actor,
            action: entry.action,
            resource_type: entry.resource_type,
            resource_id: entry.resource_id,
            reason: entry.reason,
            request_id: entry.request_id,
            client_address: entry.address,
            previous_hash: entry.prev_hash,
            hash: entry.hash,
        }
    }
}
