//! The one port: health and metrics beside gRPC, gRPC-web for browsers, and an end to every connection.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use prost::Message;
use switchboard_client::event::v1::{ListEventsRequest, ListEventsResponse, PublishEventResponse};
use switchboard_client::notification::v1::{SubscribeRequest, SubscribeResponse, closing};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tonic::Streaming;

use crate::harness::http2::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PING, Peer, RST_STREAM, call, put_frame,
};
use crate::harness::server::{Server, event};
use crate::harness::{SOON, eventually, on_both};

/// What clients in browsers send, and a server has to allow.
const CLIENT_HEADERS: [&str; 6] =
    ["authorization", "content-type", "grpc-timeout", "x-api-key", "x-grpc-web", "x-user-agent"];
/// What they have to be able to read.
const READABLE: [&str; 6] = [
    "grpc-message",
    "grpc-status",
    "grpc-status-details-bin",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
];
const PAGE: &str = "https://app.example.com";
const PUBLISH: &str = "/switchboard.event.v1.EventService/PublishEvent";
const SUBSCRIBE: &str = "/switchboard.notification.v1.NotificationService/Subscribe";
const LIST: &str = "/switchboard.event.v1.EventService/ListEvents";

/// Sends one request over HTTP/1.1, as a browser or a load balancer does.
pub async fn http1(server: &Server, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

pub async fn get(server: &Server, path: &str) -> Response<Bytes> {
    let request = Request::get(path).header("host", server.address());
    http1(server, request.body(Full::default()).unwrap()).await
}

/// A gRPC-web call from a page of this origin.
fn web(server: &Server, path: &str, origin: &str, message: &impl Message) -> Request<Full<Bytes>> {
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    body.extend(message.encode_to_vec());
    let request = Request::post(path)
        .header("host", server.address())
        .header("content-type", "application/grpc-web+proto")
        .header("x-grpc-web", "1")
        .header("origin", origin)
        .header("x-api-key", server.key.reveal());
    request.body(Full::from(body)).unwrap()
}

/// What a browser asks before a call.
fn preflight(server: &Server, origin: &str) -> Request<Full<Bytes>> {
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(PUBLISH)
        .header("host", server.address())
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", CLIENT_HEADERS.join(","));
    request.body(Full::default()).unwrap()
}

/// The frames of a gRPC-web body: whether it is the trailers, and what is in it.
fn frames(mut body: Bytes) -> Vec<(bool, Bytes)> {
    let mut frames = Vec::new();
    while body.has_remaining() {
        let trailers = body.get_u8() & 0x80 != 0;
        let length = body.get_u32() as usize;
        frames.push((trailers, body.split_to(length)));
    }
    frames
}

/// The next frame of a gRPC-web body that is still being sent, as [`frames`] has it; `None` at the end of the body.
async fn next_frame(body: &mut Incoming, read: &mut BytesMut) -> Option<(bool, Bytes)> {
    loop {
        if let Some(length) = read.get(1..5).map(|mut length| length.get_u32() as usize)
            && read.len() >= 5 + length
        {
            return frames(read.split_to(5 + length).freeze()).pop();
        }
        let more = tokio::time::timeout(SOON, body.frame()).await.expect("it goes on or ends")?;
        read.extend(more.unwrap().into_data().expect("gRPC-web has its trailers in the body"));
    }
}

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// Begins a call and never ends its message.
async fn begin_a_call(server: &Server, headers: &str) -> TcpStream {
    let key = server.key.reveal();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "POST {PUBLISH} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n{headers}\
         content-type: application/grpc-web+proto\r\ncontent-length: 999\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// The first line that begins so.
async fn find(mut lines: Lines<BufReader<TcpStream>>, start: &str) -> String {
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.starts_with(start) {
            return line;
        }
    }
    panic!("no line begins with {start}");
}

async fn subscribe(server: &Server) -> Streaming<SubscribeResponse> {
    let request = SubscribeRequest::default();
    let mut stream = server.client.notifications().subscribe(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().unwrap().opened.is_some());
    stream
}

/// Stops the server, which must not take longer than its limits allow.
async fn stop(server: Server) {
    tokio::time::timeout(SOON, server.stop()).await.expect("the server stops");
}

on_both! {
    async fn health_and_metrics_are_there_for_machines(server: Server) {
        let health = get(&server, "/healthz").await;
        assert_eq!((health.status(), health.body().as_ref()), (StatusCode::OK, &b"ok\n"[..]));
        server.put_on_list("tickets_all", &["jo@example.com"]).await;
        server.publish("ticket.created", r#"{"ticket_id":1,"title":"t","priority":"low","created_by":"jo"}"#).await;
        eventually("the mail and the publish are counted", async || {
            let metrics = get(&server, "/metrics").await;
            assert_eq!(metrics.status(), StatusCode::OK);
            assert!(header(&metrics, "content-type").unwrap().starts_with("application/openmetrics-text"));
            let text = String::from_utf8(metrics.into_body().to_vec()).unwrap();
            assert!(text.ends_with("# EOF\n"), "{text}");
            let counts = |name: &str, label: &str| {
                text.lines().any(|line| line.starts_with(name) && line.contains(label) && line.ends_with(" 1"))
            };
            let mail = counts("switchboard_delivery_attempts_total", "channel=\"email\"");
            (mail && counts("switchboard_rpc_requests_total", PUBLISH)).then_some(())
        })
        .await;
        assert!(!get(&server, "/metrics").await.body().windows(4).any(|part| part == b"swb_"), "no key is shown");
    }

    async fn a_page_of_an_allowed_origin_can_call(server: Server = |config| {
        config.allow_origin = vec![PAGE.parse().unwrap(), "https://other.example.com".parse().unwrap()];
    }) {
        let asked = http1(&server, preflight(&server, PAGE)).await;
        assert_eq!(asked.status(), StatusCode::OK);
        assert_eq!(header(&asked, "access-control-allow-origin"), Some(PAGE));
        assert_eq!(header(&asked, "access-control-allow-methods"), Some("POST"));
        let headers = header(&asked, "access-control-allow-headers").unwrap();
        assert!(CLIENT_HEADERS.iter().all(|name| headers.split(',').any(|one| one == *name)), "{headers}");
        assert_eq!(header(&asked, "access-control-max-age"), Some("7200"));
        let vary = header(&asked, "vary").unwrap();
        assert!(vary.contains("origin"), "{vary}");

        let answer = http1(&server, web(&server, PUBLISH, PAGE, &event("a.b", "{}"))).await;
        assert_eq!(header(&answer, "content-type"), Some("application/grpc-web+proto"));
        assert_eq!(header(&answer, "access-control-allow-origin"), Some(PAGE));
        let readable = header(&answer, "access-control-expose-headers").unwrap();
        assert!(READABLE.iter().all(|name| readable.split(',').any(|one| one == *name)), "{readable}");
        let [(false, message), (true, trailers)] = &frames(answer.into_body())[..] else { panic!("a message, then trailers") };
        assert!(trailers.starts_with(b"grpc-status:0"), "{trailers:?}");
        let published = PublishEventResponse::decode(message.clone()).unwrap();
        assert_eq!(server.event(&published.event_id).await.event.unwrap().event_type, "a.b");

        // A refusal reaches the page as what it is.
        let refused = http1(&server, web(&server, PUBLISH, PAGE, &event("Nope", "{}"))).await;
        assert_eq!((refused.status(), header(&refused, "access-control-allow-origin")), (StatusCode::OK, Some(PAGE)));
        assert_eq!(header(&refused, "grpc-status"), Some("3"));
        assert!(header(&refused, "grpc-status-details-bin").is_some());
        let mut unknown = web(&server, PUBLISH, PAGE, &event("a.b", "{}"));
        unknown.headers_mut().remove("x-api-key");
        let unknown = http1(&server, unknown).await;
        assert_eq!((header(&unknown, "grpc-status"), header(&unknown, "access-control-allow-origin")), (Some("16"), Some(PAGE)));
    }

    async fn a_stream_reaches_a_page_frame_by_frame_over_http1(server: Server) {
        let stream = TcpStream::connect(server.address()).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = web(&server, SUBSCRIBE, PAGE, &SubscribeRequest::default());
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/grpc-web+proto");
        let (mut body, mut read) = (response.into_body(), BytesMut::new());
        let next = async |body: &mut Incoming, read: &mut BytesMut| match next_frame(body, read).await {
            Some((false, message)) => SubscribeResponse::decode(message).unwrap(),
            other => panic!("{other:?}"),
        };
        // Each is there before anything follows that could push it out.
        assert!(next(&mut body, &mut read).await.opened.is_some());
        for n in 0..3 {
            let published = server.publish("a.b", &format!("{{\"n\":{n}}}")).await;
            let message = next(&mut body, &mut read).await;
            assert_eq!(message.events[0].id, published.event_id);
        }
        let stopped = tokio::spawn(stop(server));
        assert_eq!(next(&mut body, &mut read).await.closing.unwrap().reason(), closing::Reason::Drain);
        let (is_trailers, trailers) = next_frame(&mut body, &mut read).await.unwrap();
        assert!(is_trailers && trailers.starts_with(b"grpc-status:0"), "{trailers:?}");
        assert_eq!(next_frame(&mut body, &mut read).await, None, "the body ends well");
        stopped.await.unwrap();
    }

    async fn a_page_of_another_origin_is_not_let_in(server: Server = |config| {
        config.allow_origin = vec![PAGE.parse().unwrap()];
    }) {
        for origin in ["https://evil.example.com", "http://app.example.com", "null"] {
            let asked = http1(&server, preflight(&server, origin)).await;
            assert_eq!(header(&asked, "access-control-allow-origin"), None, "{origin}");
            let answer = http1(&server, web(&server, LIST, origin, &ListEventsRequest::default())).await;
            assert_eq!(header(&answer, "access-control-allow-origin"), None, "{origin}");
        }
    }

    async fn text_for_old_browsers_is_understood(server: Server) {
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD;
        server.publish("a.b", "{}").await;
        let binary = web(&server, LIST, PAGE, &ListEventsRequest::default());
        let (mut parts, body) = binary.into_parts();
        parts.headers.insert("content-type", "application/grpc-web-text+proto".parse().unwrap());
        parts.headers.insert("accept", "application/grpc-web-text+proto".parse().unwrap());
        let body = base64.encode(body.collect().await.unwrap().to_bytes());
        let answer = http1(&server, Request::from_parts(parts, Full::from(body))).await;
        assert_eq!(header(&answer, "content-type"), Some("application/grpc-web-text+proto"));
        // Each piece was encoded by itself, so that there may be padding in the middle.
        let binary: Vec<u8> = answer.body().chunks(4).flat_map(|four| base64.decode(four).unwrap()).collect();
        let [(false, message), (true, _)] = &frames(binary.into())[..] else { panic!("a message, then trailers") };
        assert_eq!(ListEventsResponse::decode(message.clone()).unwrap().events.len(), 1);
    }

    async fn the_deadline_of_a_caller_is_kept(server: Server) {
        // Its message never ends, so that only the deadline can end the call.
        let stream = begin_a_call(&server, "grpc-timeout: 50m\r\n").await;
        let answer = BufReader::new(stream).lines();
        let status = tokio::time::timeout(SOON, find(answer, "grpc-status: ")).await.expect("the call ends");
        assert_eq!(status, "grpc-status: 4");
        let mut patient = web(&server, PUBLISH, PAGE, &event("a.b", "{}"));
        patient.headers_mut().insert("grpc-timeout", "1H".parse().unwrap());
        assert_eq!(frames(http1(&server, patient).await.into_body()).len(), 2);
    }

    async fn who_is_refused_before_the_body_has_come_keeps_the_connection(server: Server) {
        // More than h2 bears of what it takes for a peer's errors, and in each go more than it remembers.
        const GOES: u32 = 12;
        const CALLS: u32 = 100;
        let block = call("/switchboard.event.v1.EventService/ListEvents", "swb_nope");
        let mut peer = Peer::connect(&server.address(), &[]).await;
        for go in 0..GOES {
            let streams = (go * CALLS..(go + 1) * CALLS).map(|number| 2 * number + 1);
            let (mut heads, mut bodies) = (Vec::new(), Vec::new());
            for stream in streams {
                put_frame(&mut heads, HEADERS, END_HEADERS, stream, &block);
                put_frame(&mut bodies, DATA, END_STREAM, stream, &[0; 5]);
            }
            assert!(peer.send(&heads).await);
            let answered = ((go + 1) * CALLS) as usize;
            eventually("all are refused", async || (peer.heard.frames(HEADERS) >= answered).then_some(())).await;
            assert!(peer.send(&bodies).await);
        }
        // What is said last has been read when the answer to this is there.
        assert!(peer.send(&{ let mut ping = Vec::new(); put_frame(&mut ping, PING, 0, 0, &[7; 8]); ping }).await);
        eventually("it answers", async || (peer.heard.frames(PING) > 0 || peer.heard.has_ended()).then_some(())).await;
        assert!(!peer.heard.has_ended(), "{:?}", peer.heard.goodbye());
        assert_eq!(peer.heard.frames(RST_STREAM), 0, "nothing that was said is an error");
    }

    async fn a_connection_that_says_nothing_is_closed(server: Server = |config| {
        config.port.first_byte = Duration::from_millis(200);
    }) {
        // One says nothing at all, one does not say which HTTP it speaks, one never ends its head.
        for said in [&b""[..], b"PRI * HT", b"POST /switchboard.event.v1.EventService/PublishEvent HTTP/1.1\r\nx-api-key: "] {
            let mut stream = TcpStream::connect(server.address()).await.unwrap();
            stream.write_all(said).await.unwrap();
            let mut rest = Vec::new();
            let closed = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
            // A reset is an end too: what it said was never read.
            let _ = closed.expect("it is closed");
            assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&rest));
        }
        get(&server, "/healthz").await;
    }

    async fn a_drain_says_good_bye_to_streams(server: Server) {
        let mut streams = vec![subscribe(&server).await, subscribe(&server).await];
        let client = server.client.clone();
        let published = server.publish("a.b", "{}").await;
        stop(server).await;
        for stream in &mut streams {
            let last = stream.message().await.unwrap().unwrap();
            assert_eq!((last.events.len(), last.cursor.as_str()), (1, published.cursor.as_str()), "nothing is lost");
            let last = stream.message().await.unwrap().unwrap();
            let closing = last.closing.unwrap();
            assert_eq!((closing.reason(), closing.reconnect), (closing::Reason::Drain, true));
            assert!(closing.retry_after.is_some() && last.cursor == published.cursor);
            assert_eq!(stream.message().await.unwrap(), None, "the stream ends well");
        }
        client.events().list_events(ListEventsRequest::default()).await.expect_err("nobody listens any more");
    }

    async fn a_drain_ends_whatever_a_client_does(server: Server = |config| {
        config.port.drain = Duration::from_millis(500);
    }) {
        // A stream whose reader has fallen far behind and never catches up.
        let stuck = subscribe(&server).await;
        let big = format!("{{\"a\":\"{}\"}}", "x".repeat(500_000));
        for _ in 0..8 {
            server.publish("a.b", &big).await;
        }
        // A request that never ends.
        let mut endless = begin_a_call(&server, "").await;
        // A connection that has said nothing yet, and one that is idle.
        let silent = TcpStream::connect(server.address()).await.unwrap();
        get(&server, "/healthz").await;
        stop(server).await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(SOON, endless.read_to_end(&mut rest)).await;
        assert!(ended.is_ok() && !rest.starts_with(b"HTTP/1.1 200"), "its request did not succeed");
        drop((stuck, silent));
    }
}
