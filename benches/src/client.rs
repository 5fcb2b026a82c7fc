//! Callers of the server's RPCs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::uri::PathAndQuery;
use switchboard_client::event::v1::event_service_client::EventServiceClient;
use switchboard_client::event::v1::{BatchPublishEventsRequest, PublishEventRequest};
use switchboard_client::{Authenticated, Client};
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::error::{Context, Result};
use crate::key::admin_key;
use crate::load::Caller;

/// Callers share HTTP/2 connections, as the services of an application do: one for every so many.
const CALLERS_PER_CONNECTION: usize = 32;
const CONNECTIONS_LIMIT: usize = 8;

/// The type of the events that endpoints subscribe to.
pub const WANTED: &str = "ticket.created";
/// A type that no endpoint and no route wants.
pub const UNWANTED: &str = "bench.unwanted";

/// The connections for so many callers.
pub async fn connections(address: &str, callers: usize) -> Result<Vec<Channel>> {
    let count = (callers / CALLERS_PER_CONNECTION).clamp(1, CONNECTIONS_LIMIT);
    let endpoint =
        Endpoint::from_shared(address.to_owned()).context("the server's address")?.tcp_nodelay(true);
    let mut channels = Vec::new();
    for _ in 0..count {
        channels.push(endpoint.connect().await.context("a connection to the server")?);
    }
    Ok(channels)
}

/// A client with the admin key.
pub fn client(channel: Channel) -> Result<Client> {
    Client::with_channel(channel, &admin_key()).context("a client")
}

/// So many callers, made from the connections in turn.
pub async fn callers<C>(address: &str, count: usize, make: impl Fn(Channel) -> Result<C>) -> Result<Vec<C>> {
    let channels = connections(address, count).await?;
    channels.iter().cycle().take(count).map(|channel| make(channel.clone())).collect()
}

/// What `grpc.health.v1.Health/Check` takes.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// What it answers.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Makes empty RPCs: the least that any call costs.
pub struct HealthCaller(Grpc<Channel>);

impl HealthCaller {
    /// One that uses this connection.
    pub fn new(channel: Channel) -> Self {
        Self(Grpc::new(channel))
    }
}

impl Caller for HealthCaller {
    async fn call(&mut self) -> Result<()> {
        self.0.ready().await.context("the health check")?;
        let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let request = Request::new(HealthCheckRequest::default());
        self.0.unary(request, path, codec).await.map(drop).context("the health check")
    }
}

/// Makes events, each about another ticket.
#[derive(Clone, Default)]
pub struct Events(Arc<AtomicU64>);

impl Events {
    /// The next one.
    pub fn next(&self, event_type: &str) -> PublishEventRequest {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        PublishEventRequest {
            event_type: event_type.to_owned(),
            data: payload(number),
            actor: "jo.miller".to_owned(),
            subject: format!("ticket:{number}"),
            request_id: String::new(),
            ..PublishEventRequest::default()
        }
    }
}

/// About 300 bytes, as an application would send them.
pub fn payload(number: u64) -> String {
    format!(
        r#"{{"ticket_id":{number},"title":"Pump 3 in hall B has stopped and does not start again","priority":"high","created_by":"jo.miller","created_at":"2026-01-31T10:29:55Z","status":"open","location":"Hall B, line 2, next to the second cooling tower","tags":["pump","cooling","hall-b"],"assigned_to":"mechanics on duty"}}"#
    )
}

/// Publishes one event in each call.
#[derive(Clone)]
pub struct PublishCaller {
    /// The service.
    pub client: EventServiceClient<Authenticated>,
    /// The events.
    pub events: Events,
}

impl PublishCaller {
    /// One that uses this connection.
    pub fn new(channel: Channel, events: &Events) -> Result<Self> {
        Ok(Self { client: client(channel)?.events(), events: events.clone() })
    }

    /// Publishes an event of this type and gives its id.
    pub async fn publish(&mut self, event_type: &str) -> Result<String> {
        self.publish_on("", event_type).await
    }

    /// The same on a topic.
    pub async fn publish_on(&mut self, topic: &str, event_type: &str) -> Result<String> {
        let event = PublishEventRequest { topic: topic.to_owned(), ..self.events.next(event_type) };
        Ok(self.client.publish_event(event).await.context("PublishEvent")?.into_inner().event_id)
    }
}

impl Caller for PublishCaller {
    async fn call(&mut self) -> Result<()> {
        self.publish(UNWANTED).await.map(drop)
    }
}

/// Publishes many events in each call.
pub struct BatchCaller {
    publisher: PublishCaller,
    event_type: &'static str,
    size: usize,
}

impl BatchCaller {
    /// One that uses this connection, and so many events of this type a call.
    pub fn new(channel: Channel, events: &Events, event_type: &'static str, size: usize) -> Result<Self> {
        Ok(Self { publisher: PublishCaller::new(channel, events)?, event_type, size })
    }
}

impl Caller for BatchCaller {
    async fn call(&mut self) -> Result<()> {
        let requests = (0..self.size).map(|_| self.publisher.events.next(self.event_type)).collect();
        let request = BatchPublishEventsRequest { requests };
        let answer =
            self.publisher.client.batch_publish_events(request).await.context("BatchPublishEvents")?;
        let answered = answer.into_inner().responses.len();
        if answered == self.size {
            Ok(())
        } else {
            Err(format!("{answered} answers for {} events", self.size).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_json_of_about_300_bytes() {
        let data = payload(4_711);
        assert!((280..=340).contains(&data.len()), "{}", data.len());
        let value: serde_json::Value = serde_json::from_str(&data).unwrap();
        assert_eq!(value["ticket_id"], 4_711);
    }
}
