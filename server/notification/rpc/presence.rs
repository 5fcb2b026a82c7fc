//! Who is online.

use tonic::{Request, Status};

use super::{Rpc, pb};
use crate::rpc::convert::timestamp;
use crate::rpc::page::Page;

pub(super) async fn list_presence(
    rpc: &Rpc,
    request: Request<pb::ListPresenceRequest>,
) -> Result<pb::ListPresenceResponse, Status> {
    let pb::ListPresenceRequest { user_ids, page_size, page_token } = request.into_inner();
    let page = Page::read("presence", page_size, &page_token, &[&user_ids])?;
    let (mut users, online) = rpc.presence.list(&user_ids, page.after.as_deref(), page.limit()).await?;
    let next_page_token = page.cut(&mut users, |user| user.user_id.clone());
    let users = users
        .into_iter()
        .map(|user| pb::Presence {
            user_id: user.user_id,
            username: user.username,
            online_since: Some(timestamp(user.changed_at)),
        })
        .collect();
    Ok(pb::ListPresenceResponse { users, next_page_token, online })
}
