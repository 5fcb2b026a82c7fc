//! Tokens of users.

use tonic::{Request, Status};

use super::super::token::NewToken;
use super::{Rpc, pb};
use crate::error::Error;
use crate::rpc::Principal;
use crate::rpc::convert::{from_duration, timestamp};

pub(super) async fn create_subscriber_token(
    rpc: &Rpc,
    request: Request<pb::CreateSubscriberTokenRequest>,
) -> Result<pb::CreateSubscriberTokenResponse, Status> {
    let maker = Principal::of(&request)?.clone();
    let new = new_token(request.into_inner())?;
    let (token, ends) = rpc.tokens.create(&maker, new)?;
    Ok(pb::CreateSubscriberTokenResponse {
        token: token.reveal().to_owned(),
        expire_time: Some(timestamp(ends)),
    })
}

pub(super) async fn revoke_subscriber_tokens(
    rpc: &Rpc,
    request: Request<pb::RevokeSubscriberTokensRequest>,
) -> Result<pb::RevokeSubscriberTokensResponse, Status> {
    let up_to = rpc.tokens.revoke(request.into_inner().user_id).await?;
    Ok(pb::RevokeSubscriberTokensResponse { revoke_time: Some(timestamp(up_to)) })
}

pub(super) fn new_token(request: pb::CreateSubscriberTokenRequest) -> Result<NewToken, Error> {
    let pb::CreateSubscriberTokenRequest { user_id, username, topics, event_types, scopes, lifetime } =
        request;
    let lifetime = match lifetime {
        None => None,
        Some(lifetime) => {
            Some(from_duration(lifetime).ok_or_else(|| Error::field("lifetime", "must not be negative"))?)
        }
    };
    Ok(NewToken { user_id, username, topics, event_types, scopes, lifetime })
}
