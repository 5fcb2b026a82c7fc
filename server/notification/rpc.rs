//! The wire: NotificationService.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{Stream as FuturesStream, unfold};
use tonic::{Request, Response, Status};

use super::frame::Frame;
use super::stream::{Source, Stream, Wish};
use crate::error::Error;
use crate::pb::switchboard::notification::v1 as pb;
use crate::rpc::Principal;
use crate::rpc::convert::from_duration;
use crate::telemetry::Metrics;

/// The service.
pub struct Rpc {
    /// What streams need.
    pub source: Source,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl pb::notification_service_server::NotificationService for Rpc {
    type SubscribeStream = Pin<Box<dyn FuturesStream<Item = Result<Frame, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let principal = Principal::of(&request)?.clone();
        let pb::SubscribeRequest { event_types, subjects, cursor, heartbeat_interval } = request.into_inner();
        let heartbeat = match heartbeat_interval {
            None => None,
            Some(interval) => Some(
                from_duration(interval)
                    .ok_or_else(|| Error::field("heartbeat_interval", "must be 1 to 50 seconds"))?,
            ),
        };
        let wish = Wish { event_types, subjects, cursor, heartbeat };
        let stream = Stream::open(self.source.clone(), principal, wish).await?;
        self.metrics.set_subscribers(self.source.bus.watchers());
        let next = |mut stream: Stream| async move { stream.next().await.map(|frame| (Ok(frame), stream)) };
        Ok(Response::new(Box::pin(unfold(stream, next))))
    }
}
