//! Tokens of users.

use tonic::{Request, Status};

use super::{Rpc, pb};

pub(super) async fn create_subscriber_token(
    _rpc: &Rpc,
    _request: Request<pb::CreateSubscriberTokenRequest>,
) -> Result<pb::CreateSubscriberTokenResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn revoke_subscriber_tokens(
    _rpc: &Rpc,
    _request: Request<pb::RevokeSubscriberTokensRequest>,
) -> Result<pb::RevokeSubscriberTokensResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}
