//! Who is online.

use tonic::{Request, Status};

use super::{Rpc, pb};

pub(super) async fn list_presence(
    _rpc: &Rpc,
    _request: Request<pb::ListPresenceRequest>,
) -> Result<pb::ListPresenceResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}
