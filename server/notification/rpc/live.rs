//! Streams.

use futures_util::stream::unfold;
use tonic::{Request, Response, Status};

use super::super::stream::{Stream, Wish};
use super::{Rpc, pb};
use crate::error::Error;
use crate::rpc::Principal;
use crate::rpc::convert::from_duration;

type Subscribed = <Rpc as pb::notification_service_server::NotificationService>::SubscribeStream;

pub(super) async fn subscribe(
    rpc: &Rpc,
    request: Request<pb::SubscribeRequest>,
) -> Result<Response<Subscribed>, Status> {
    let principal = Principal::of(&request)?.clone();
    let pb::SubscribeRequest { event_types, subjects, cursor, heartbeat_interval, .. } = request.into_inner();
    let heartbeat = match heartbeat_interval {
        None => None,
        Some(interval) => Some(
            from_duration(interval)
                .ok_or_else(|| Error::field("heartbeat_interval", "must be 1 to 50 seconds"))?,
        ),
    };
    let wish = Wish { event_types, subjects, cursor, heartbeat };
    let stream = Stream::open(rpc.source.clone(), principal, wish).await?;
    rpc.metrics.set_subscribers(rpc.source.bus.watchers());
    let next = |mut stream: Stream| async move { stream.next().await.map(|frame| (Ok(frame), stream)) };
    Ok(Response::new(Box::pin(unfold(stream, next))))
}

pub(super) async fn update_subscription(
    _rpc: &Rpc,
    _request: Request<pb::UpdateSubscriptionRequest>,
) -> Result<pb::UpdateSubscriptionResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}

pub(super) async fn refresh_subscription(
    _rpc: &Rpc,
    _request: Request<pb::RefreshSubscriptionRequest>,
) -> Result<pb::RefreshSubscriptionResponse, Status> {
    Err(Status::unimplemented("not there yet"))
}
