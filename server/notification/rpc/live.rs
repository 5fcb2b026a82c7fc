//! Streams.

use std::sync::Arc;

use futures_util::stream::unfold;
use tonic::{Request, Response, Status};

use super::super::registry::{Update, node_of};
use super::super::stream::{Stream, Wish};
use super::super::view;
use super::{Rpc, pb};
use crate::error::{Error, Result as ServerResult};
use crate::rpc::convert::{from_duration, timestamp};
use crate::rpc::{Access, Principal};

type Subscribed = <Rpc as pb::notification_service_server::NotificationService>::SubscribeStream;

pub(super) async fn subscribe(
    rpc: &Rpc,
    request: Request<pb::SubscribeRequest>,
) -> Result<Response<Subscribed>, Status> {
    let (principal, access) = (Principal::of(&request)?.clone(), Access::of(&request)?);
    let pb::SubscribeRequest {
        event_types,
        subjects,
        cursor,
        heartbeat_interval,
        topics,
        snapshot,
        invisible,
    } = request.into_inner();
    let heartbeat = match heartbeat_interval {
        None => None,
        Some(interval) => Some(
            from_duration(interval)
                .ok_or_else(|| Error::field("heartbeat_interval", "must be 1 to 50 seconds"))?,
        ),
    };
    let filter = view::Wish { event_types, subjects, topics };
    let wish = Wish { filter, cursor, heartbeat, snapshot, invisible };
    let stream = Stream::open(Arc::clone(&rpc.source), principal, access, wish).await?;
    let next = |mut stream: Stream| async move { stream.next().await.map(|frame| (Ok(frame), stream)) };
    Ok(Response::new(Box::pin(unfold(stream, next))))
}

pub(super) async fn update_subscription(
    rpc: &Rpc,
    request: Request<pb::UpdateSubscriptionRequest>,
) -> Result<pb::UpdateSubscriptionResponse, Status> {
    let caller = Principal::of(&request)?.clone();
    let pb::UpdateSubscriptionRequest { subscription_id, generation, event_types, subjects, topics } =
        request.into_inner();
    let update = Update { generation, wish: view::Wish { event_types, subjects, topics } };
    update.check()?;
    let registry = &rpc.source.registry;
    let generation = match node(&subscription_id)? {
        node if node == registry.node() => registry.update(&subscription_id, &caller, &update).await?,
        node => rpc.elsewhere.update(node, &subscription_id, &caller, &update).await?,
    };
    Ok(pb::UpdateSubscriptionResponse { generation })
}

pub(super) async fn refresh_subscription(
    rpc: &Rpc,
    request: Request<pb::RefreshSubscriptionRequest>,
) -> Result<pb::RefreshSubscriptionResponse, Status> {
    let caller = Principal::of(&request)?.clone();
    let pb::RefreshSubscriptionRequest { subscription_id } = request.into_inner();
    let registry = &rpc.source.registry;
    match node(&subscription_id)? {
        node if node == registry.node() => registry.refresh(&subscription_id, &caller).await?,
        node => rpc.elsewhere.refresh(node, &subscription_id, &caller).await?,
    }
    let token_expire_time = caller.user.as_ref().map(|user| timestamp(user.expires_at));
    Ok(pb::RefreshSubscriptionResponse { token_expire_time })
}

fn node(subscription_id: &str) -> ServerResult<i64> {
    node_of(subscription_id).ok_or_else(|| Error::not_found("subscription", subscription_id))
}
