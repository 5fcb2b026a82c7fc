//! More calls than the server has places for.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, StatusCode};
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use switchboard_client::Client;
use switchboard_client::event::v1::ListEventsRequest;
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::api_keys_change::new_key;
use crate::harness::server::event;
use crate::harness::{breath, eventually, on_both, status};
use crate::settings::set;

/// Seven eighths of it are for what applications do in bulk.
const PLACES: usize = 16;
const BULK: usize = 14;
/// What one key may have of them.
const OF_ONE: usize = 7;

/// A body that never comes.
fn never() -> StreamBody<stream::Pending<Result<Frame<Bytes>, Infallible>>> {
    StreamBody::new(stream::pending())
}

/// Publishes whose bodies never end, over a connection of their own: they are under way until this is dropped.
struct Held(Vec<tokio::task::JoinHandle<()>>);

impl Held {
    async fn calls(count: usize, to: &str, key: &str) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        let mut tasks = vec![tokio::spawn(async { drop(connection.await) })];
        for _ in 0..count {
            let uri = format!("http://{to}/switchboard.event.v1.EventService/PublishEvent");
            let (mut sender, key) = (sender.clone(), key.to_owned());
            tasks.push(tokio::spawn(async move {
                loop {
                    let request = Request::post(&uri)
                        .header("content-type", "application/grpc")
                        .header("x-api-key", &key)
                        .body(never())
                        .unwrap();
                    // It is answered only when it is refused, as when somebody else had the last place for a moment.
                    drop(sender.send_request(request).await);
                    breath().await;
                }
            }));
        }
        Self(tasks)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// What a request over HTTP/1.1 is answered: the status, and when to come again.
async fn ask(to: &str, request: Request<Full<Bytes>>) -> (StatusCode, Option<String>) {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let again = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    (response.status(), again)
}

async fn get(to: &str, path: &str) -> (StatusCode, Option<String>) {
    ask(to, Request::get(path).header("host", "localhost").body(Full::default()).unwrap()).await
}

/// Asks to verify a key that nobody has.
async fn verify(to: &str, key: &str) -> (StatusCode, Option<String>) {
    let request = Request::post("/v1/verify").header("host", "localhost").header("x-api-key", key);
    ask(to, request.body(Full::new(Bytes::from_static(br#"{"key":"swb_nope"}"#))).unwrap()).await
}

on_both! {
    async fn over_the_bound_bulk_is_refused_and_administrators_are_served(server: Server) {
        set(&server.client, json!({"server.max_calls_under_way": PLACES})).await;
        let (to, key) = (server.address(), server.key.reveal());
        let other = server.client.api_keys().create_api_key(new_key(&["events:write"])).await.unwrap().into_inner();
        let held = [Held::calls(OF_ONE, &to, key).await, Held::calls(OF_ONE, &to, &other.key).await];
        let publish = async |name| server.client.events().publish_event(event(name, "{}")).await;
        // Before all of the others are there, this key has too many first.
        let full = |refused: &Status| refused.code() == Code::Unavailable;
        eventually("bulk is refused", async || publish("app.taken").await.err().filter(full)).await;
        let refused = publish("app.refused").await.unwrap_err();
        let details = status::expect(&refused, Code::Unavailable, "OVERLOADED");
        let pause = details.retry_info().unwrap().retry_delay.unwrap();
        assert!((1..=60).contains(&pause.as_secs()), "{pause:?}");
        let (status, after) = verify(&to, key).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(after.as_deref().is_some_and(|after| (1..=60).contains(&after.parse::<u64>().unwrap())), "{after:?}");

        let list = async || server.client.events().list_events(ListEventsRequest::default()).await;
        let seen = list().await.unwrap().into_inner();
        assert!(seen.events.iter().all(|event| event.event_type != "app.refused"), "what is refused changes nothing");

        // More of the same do not take what is left for administrators.
        let more = Held::calls(PLACES, &to, &other.key).await;
        status::expect(&publish("app.refused").await.unwrap_err(), Code::Unavailable, "OVERLOADED");
        list().await.unwrap();
        let (health, _) = get(&to, "/healthz").await;
        assert_eq!(health, StatusCode::OK);

        drop((held, more));
        eventually("places come back", async || publish("app.taken").await.ok()).await;
    }

    async fn no_key_has_all_places_and_others_are_served(server: Server) {
        set(&server.client, json!({"server.max_calls_under_way": PLACES})).await;
        let other = server.client.api_keys().create_api_key(new_key(&["events:write"])).await.unwrap().into_inner();
        let client = Client::connect(server.url(), &other.key).await.unwrap();
        let held = Held::calls(BULK, &server.address(), &other.key).await;
        let publish = async |client: &Client| client.events().publish_event(event("app.asked", "{}")).await;
        // Those who are refused have a place until they are, and come again: for a moment there may be none for anybody.
        let refused = eventually("it has what it may have", async || {
            publish(&client).await.err().filter(|refused| refused.code() == Code::ResourceExhausted)
        });
        let details = status::expect(&refused.await, Code::ResourceExhausted, "CALL_LIMIT");
        assert_eq!(details.error_info().unwrap().metadata["limit"], OF_ONE.to_string());
        assert!(details.retry_info().is_some());
        eventually("others are served", async || publish(&server.client).await.ok()).await;
        drop(held);
        eventually("its places come back", async || publish(&client).await.ok()).await;
    }

    async fn a_body_that_does_not_come_is_not_waited_for(server: Server = |config| config.port.body = Duration::from_millis(300)) {
        let request = |path: &str| Request::post(format!("http://{}{path}", server.address())).header("x-api-key", server.key.reveal());
        let stream = TcpStream::connect(server.address()).await.unwrap();
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let publish = request("/switchboard.event.v1.EventService/PublishEvent").header("content-type", "application/grpc");
        let answer = sender.send_request(publish.body(never()).unwrap()).await.unwrap();
        let refused = tonic::Status::from_header_map(answer.headers()).unwrap();
        status::expect(&refused, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
        let verify = sender.send_request(request("/v1/verify").body(never()).unwrap()).await.unwrap();
        assert!(verify.status().is_client_error(), "{verify:?}");
    }
}
