//! The bare client: posts one request again and again over a connection of its own.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::{Context, Result};
use crate::load::Caller;
use crate::sink::Captured;

/// Posts without any of what makes a delivery: no storage, no queue, no signature, no pool.
pub struct PostCaller {
    sender: SendRequest<Full<Bytes>>,
    request: Captured,
}

impl PostCaller {
    /// Opens its connection.
    pub async fn connect(address: SocketAddr, request: Captured) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("a connection to the sink")?;
        stream.set_nodelay(true).context("a connection to the sink")?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.context("a connection to the sink")?;
        tokio::spawn(connection);
        Ok(Self { sender, request })
    }
}

impl Caller for PostCaller {
    async fn call(&mut self) -> Result<()> {
        let mut request =
            Request::post(self.request.path.as_str()).body(Full::new(self.request.body.clone()))?;
        *request.headers_mut() = self.request.headers.clone();
        self.sender.ready().await?;
        let mut response = self.sender.send_request(request).await.context("a POST")?;
        while let Some(frame) = response.body_mut().frame().await {
            frame?;
        }
        if response.status().is_success() {
            Ok(())
        } else {
            Err(format!("a POST got {}", response.status()).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::closed_loop;
    use crate::sink::Sink;

    #[tokio::test]
    async fn the_sink_counts_every_post() {
        let sink = Sink::start().unwrap();
        let headers = [("webhook-id", "evt_1"), ("content-type", "application/json"), ("host", "127.0.0.1")];
        let headers = headers
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let request = Captured { path: "/7".into(), headers, body: Bytes::from_static(b"{\"data\":{}}") };

        let capture = sink.capture();
        let mut callers = Vec::new();
        for _ in 0..4 {
            callers.push(PostCaller::connect(sink.address(), request.clone()).await.unwrap());
        }
        let (callers, calls) = closed_loop(callers, Duration::from_millis(200)).await.unwrap();

        assert_eq!(callers.len(), 4);
        let arrived = sink.arrived();
        assert!(arrived >= calls.latencies.len() as u64 && arrived <= calls.latencies.len() as u64 + 4);
        let arrivals = sink.take();
        assert_eq!(arrivals.len() as u64, arrived);
        assert!(arrivals.iter().all(|arrival| arrival.event == "evt_1" && arrival.endpoint == 7));
        assert_eq!(sink.arrived(), 0);
        let captured = capture.await.unwrap();
        assert_eq!((captured.path.as_str(), captured.body), ("/7", request.body));
        assert_eq!(captured.headers.get("webhook-id").unwrap(), "evt_1");
    }
}
