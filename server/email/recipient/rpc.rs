//! The wire: RecipientListService.

use tonic::{Request, Response, Status};

use super::service::{ListChange, RecipientListService};
use super::store::RecipientList;
use crate::error::Error;
use crate::pb::switchboard::email::v1 as pb;
use crate::rpc::convert::timestamp;
use crate::rpc::mask::{self, Mask};
use crate::rpc::page::Page;

/// The service.
pub struct Rpc(pub RecipientListService);

const CHANGEABLE: [&str; 2] = ["description", "addresses"];

#[tonic::async_trait]
impl pb::recipient_list_service_server::RecipientListService for Rpc {
    async fn create_recipient_list(
        &self,
        request: Request<pb::CreateRecipientListRequest>,
    ) -> Result<Response<pb::CreateRecipientListResponse>, Status> {
        let list = request
            .into_inner()
            .recipient_list
            .ok_or_else(|| Error::field("recipient_list", "is required"))?;
        let change = ListChange {
            description: Some(list.description),
            addresses: Some(list.addresses),
            version: None,
        };
        let list = self.0.create(list.name, change).await?;
        Ok(Response::new(pb::CreateRecipientListResponse { recipient_list: Some(list.into()) }))
    }

    async fn get_recipient_list(
        &self,
        request: Request<pb::GetRecipientListRequest>,
    ) -> Result<Response<pb::GetRecipientListResponse>, Status> {
        let list = self.0.get(&request.get_ref().name).await?;
        Ok(Response::new(pb::GetRecipientListResponse { recipient_list: Some(list.into()) }))
    }

    async fn list_recipient_lists(
        &self,
        request: Request<pb::ListRecipientListsRequest>,
    ) -> Result<Response<pb::ListRecipientListsResponse>, Status> {
        let pb::ListRecipientListsRequest { page_size, page_token } = request.into_inner();
        let page = Page::read("recipient lists", page_size, &page_token, &[])?;
        let mut lists = self.0.list(page.after.as_deref().unwrap_or_default(), page.limit() as i64).await?;
        let next_page_token = page.cut(&mut lists, |list| list.name.clone());
        let recipient_lists = lists.into_iter().map(pb::RecipientList::from).collect();
        Ok(Response::new(pb::ListRecipientListsResponse { recipient_lists, next_page_token }))
    }

    async fn update_recipient_list(
        &self,
        request: Request<pb::UpdateRecipientListRequest>,
    ) -> Result<Response<pb::UpdateRecipientListResponse>, Status> {
        let pb::UpdateRecipientListRequest { recipient_list, update_mask } = request.into_inner();
        let list = recipient_list.ok_or_else(|| Error::field("recipient_list", "is required"))?;
        let mask = Mask::read(update_mask, &CHANGEABLE)?;
        let change = ListChange {
            description: mask.take("description", list.description),
            addresses: mask.take("addresses", list.addresses),
            version: mask::version(&list.etag)?,
        };
        let list = self.0.update(list.name, change).await?;
        Ok(Response::new(pb::UpdateRecipientListResponse { recipient_list: Some(list.into()) }))
    }

    async fn delete_recipient_list(
        &self,
        request: Request<pb::DeleteRecipientListRequest>,
    ) -> Result<Response<pb::DeleteRecipientListResponse>, Status> {
        self.0.delete(request.into_inner().name).await?;
        Ok(Response::new(pb::DeleteRecipientListResponse {}))
    }
}

impl From<RecipientList> for pb::RecipientList {
    fn from(list: RecipientList) -> Self {
        Self {
            name: list.name,
            description: list.description,
            addresses: list.addresses.0,
            etag: list.version.to_string(),
            create_time: Some(timestamp(list.created_at)),
            update_time: Some(timestamp(list.updated_at)),
        }
    }
}
