//! The wire: SuppressionService.

use tonic::{Request, Response, Status};

use super::model::{Reason, Suppression, SuppressionFilter};
use super::service::{SuppressionChange, SuppressionService};
use crate::error::{Error, Result as Outcome};
use crate::pb::switchboard::email::v1 as pb;
use crate::rpc::convert::{from_timestamp, timestamp};
use crate::rpc::mask::Mask;
use crate::rpc::page::Page;

/// The service.
pub struct Rpc(pub SuppressionService);

const CHANGEABLE: [&str; 3] = ["reason", "detail", "expire_time"];
/// Between the two parts of a page's key; in neither.
const SEPARATOR: char = '\n';

#[tonic::async_trait]
impl pb::suppression_service_server::SuppressionService for Rpc {
    async fn create_suppression(
        &self,
        request: Request<pb::CreateSuppressionRequest>,
    ) -> Result<Response<pb::CreateSuppressionResponse>, Status> {
        let suppression = given(request.into_inner().suppression)?;
        let change = SuppressionChange {
            reason: reason("suppression.reason", suppression.reason)?,
            detail: Some(suppression.detail),
            expires_at: Some(suppression.expire_time.map(from_timestamp)),
        };
        let suppression = self.0.create(&suppression.address, &suppression.topic, change).await?;
        Ok(Response::new(pb::CreateSuppressionResponse { suppression: Some(suppression.into()) }))
    }

    async fn get_suppression(
        &self,
        request: Request<pb::GetSuppressionRequest>,
    ) -> Result<Response<pb::GetSuppressionResponse>, Status> {
        let pb::GetSuppressionRequest { address, topic } = request.into_inner();
        let suppression = self.0.get(&address, &topic).await?;
        Ok(Response::new(pb::GetSuppressionResponse { suppression: Some(suppression.into()) }))
    }

    async fn list_suppressions(
        &self,
        request: Request<pb::ListSuppressionsRequest>,
    ) -> Result<Response<pb::ListSuppressionsResponse>, Status> {
        let request = request.into_inner();
        let page = Page::read(
            "suppressions",
            request.page_size,
            &request.page_token,
            &[&request.reasons, &request.address_prefix, &request.topic],
        )?;
        let mut reasons = Vec::new();
        for (index, &number) in request.reasons.iter().enumerate() {
            reasons.push(reason(&format!("reasons[{index}]"), number)?);
        }
        let after = page.after.as_deref().and_then(|key| key.split_once(SEPARATOR));
        let filter = SuppressionFilter {
            // As in every filter, UNSPECIFIED means any.
            reasons: reasons.into_iter().collect::<Option<_>>().unwrap_or_default(),
            address_prefix: request.address_prefix,
            topic: request.topic,
            after: after.map(|(address, topic)| (address.to_owned(), topic.to_owned())),
        };
        let mut rows = self.0.list(filter, page.limit() as i64).await?;
        let next_page_token = page.cut(&mut rows, |row| format!("{}{SEPARATOR}{}", row.address, row.topic));
        let suppressions = rows.into_iter().map(pb::Suppression::from).collect();
        Ok(Response::new(pb::ListSuppressionsResponse { suppressions, next_page_token }))
    }

    async fn update_suppression(
        &self,
        request: Request<pb::UpdateSuppressionRequest>,
    ) -> Result<Response<pb::UpdateSuppressionResponse>, Status> {
        let pb::UpdateSuppressionRequest { suppression, update_mask } = request.into_inner();
        let suppression = given(suppression)?;
        let mask = Mask::read(update_mask, &CHANGEABLE)?;
        let reason = match mask.take("reason", suppression.reason) {
            None => None,
            Some(number) => Some(
                reason("suppression.reason", number)?
                    .ok_or_else(|| Error::field("suppression.reason", "is required"))?,
            ),
        };
        let change = SuppressionChange {
            reason,
            detail: mask.take("detail", suppression.detail),
            expires_at: mask.take("expire_time", suppression.expire_time).map(|end| end.map(from_timestamp)),
        };
        let suppression = self.0.update(&suppression.address, &suppression.topic, change).await?;
        Ok(Response::new(pb::UpdateSuppressionResponse { suppression: Some(suppression.into()) }))
    }

    async fn delete_suppression(
        &self,
        request: Request<pb::DeleteSuppressionRequest>,
    ) -> Result<Response<pb::DeleteSuppressionResponse>, Status> {
        let pb::DeleteSuppressionRequest { address, topic } = request.into_inner();
        self.0.delete(&address, &topic).await?;
        Ok(Response::new(pb::DeleteSuppressionResponse {}))
    }
}

fn given(suppression: Option<pb::Suppression>) -> Outcome<pb::Suppression> {
    suppression.ok_or_else(|| Error::field("suppression", "is required"))
}

/// The reason of a number; `None` for UNSPECIFIED.
fn reason(field: &str, number: i32) -> Outcome<Option<Reason>> {
    match pb::SuppressionReason::try_from(number) {
        Ok(pb::SuppressionReason::Unspecified) => Ok(None),
        Ok(pb::SuppressionReason::Bounce) => Ok(Some(Reason::Bounce)),
        Ok(pb::SuppressionReason::Complaint) => Ok(Some(Reason::Complaint)),
        Ok(pb::SuppressionReason::Unsubscribe) => Ok(Some(Reason::Unsubscribe)),
        Ok(pb::SuppressionReason::Manual) => Ok(Some(Reason::Manual)),
        Err(_) => Err(Error::field(field, format!("{number} is not a reason"))),
    }
}

impl From<Suppression> for pb::Suppression {
    fn from(suppression: Suppression) -> Self {
        let reason = match suppression.reason {
            Reason::Bounce => pb::SuppressionReason::Bounce,
            Reason::Complaint => pb::SuppressionReason::Complaint,
            Reason::Unsubscribe => pb::SuppressionReason::Unsubscribe,
            Reason::Manual => pb::SuppressionReason::Manual,
        };
        Self {
            address: suppression.address,
            topic: suppression.topic,
            reason: reason.into(),
            origin: suppression.origin,
            detail: suppression.detail,
            email_id: suppression.email_id.unwrap_or_default(),
            expire_time: suppression.expires_at.map(timestamp),
            create_time: Some(timestamp(suppression.created_at)),
            update_time: Some(timestamp(suppression.updated_at)),
        }
    }
}
