//! The receivers: an HTTP server with two endpoints, a mail server, and subscribers of the live stream. They write down
//! what arrives, when, and when they have answered it.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use switchboard::event::cursor::Cursor;
use switchboard_client::Client;
use switchboard_client::notification::v1::SubscribeRequest;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::journal::{Arrived, Journal, Place, RunClock};

/// How long the quick endpoint takes: so long that something is under way at every kill.
const QUICK: Duration = Duration::from_millis(15);
/// How long the mail server takes, which gets less.
const MAIL: Duration = Duration::from_millis(60);
/// How long the slow endpoint takes.
const SLOW: Duration = Duration::from_millis(600);

/// What the receivers of a run share.
pub struct Book {
    journal: Arc<Journal<Arrived>>,
    clock: RunClock,
    /// What has arrived where, to know when all has.
    seen: Mutex<HashSet<(Place, u64)>>,
}

impl Book {
    /// An empty one.
    pub fn new(journal: Arc<Journal<Arrived>>, clock: RunClock) -> Arc<Self> {
        Arc::new(Self { journal, clock, seen: Mutex::default() })
    }

    /// Whether all of this has arrived.
    pub fn has(&self, expected: &HashSet<(Place, u64)>) -> bool {
        expected.is_subset(&self.seen.lock().expect("no panic holds it"))
    }

    fn arrived(&self, place: Place, number: u64, entry: Arrived) {
        self.journal.add(entry);
        self.seen.lock().expect("no panic holds it").insert((place, number));
    }

    async fn takes_its_time(&self, place: Place, delivery: String) {
        let time = match place {
            Place::Mail => MAIL,
            Place::Slow => SLOW,
            _ => QUICK,
        };
        tokio::time::sleep_until(self.clock.instant() + time).await;
        self.journal.add(Arrived::Answered { place, delivery, at: self.clock.now() });
    }
}

/// A receiver that listens until it is dropped.
pub struct Listening {
    /// The port on 127.0.0.1.
    pub port: u16,
    task: AbortHandle,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Listening
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let accepting = async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    stream.set_nodelay(true).expect("a TCP socket takes this option");
                    connections.spawn(serve(stream));
                },
                Some(_) = connections.join_next() => {}
            }
        }
    };
    Listening { port, task: tokio::spawn(accepting).abort_handle() }
}

/// Starts the HTTP server, with `/quick` and `/slow`.
pub async fn endpoints(book: Arc<Book>) -> Listening {
    listen(move |stream| {
        let book = Arc::clone(&book);
        async move {
            let answer = service_fn(move |request| answer(Arc::clone(&book), request));
            // How a connection ends is the client's affair.
            let _ =
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
        }
    })
    .await
}

async fn answer(book: Arc<Book>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let place = if head.uri.path() == "/slow" { Place::Slow } else { Place::Quick };
    // A body that broke off was never received.
    if let Ok(body) = body.collect().await {
        let body = body.to_bytes();
        let number = serde_json::from_slice::<serde_json::Value>(&body).ok();
        let number = number.and_then(|body| body["data"]["n"].as_u64()).expect("only ours come here");
        let text = |headers: &HeaderMap, name: &str| headers[name].to_str().expect("an id").to_owned();
        let (id, delivery) = (text(&head.headers, "webhook-id"), text(&head.headers, "x-webhook-delivery"));
        let (content, at) = (crc32fast::hash(&body), book.clock.now());
        let entry = Arrived::Delivery { place, number, id, delivery: delivery.clone(), content, at };
        book.arrived(place, number, entry);
        book.takes_its_time(place, delivery).await;
    }
    Ok(Response::new(Full::new(Bytes::new())))
}

/// Starts the mail server.
pub async fn mail_server(book: Arc<Book>) -> Listening {
    listen(move |stream| {
        let book = Arc::clone(&book);
        // A connection that breaks is what these tests are about.
        async move { drop(session(&book, stream).await) }
    })
    .await
}

/// One session, as much of RFC 5321 as a client needs that has nothing to hide.
async fn session(book: &Book, stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 torture ESMTP\r\n").await?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.split([' ', '\r']).next().unwrap_or_default().to_ascii_uppercase();
        let reply: &[u8] = match verb.as_str() {
            "EHLO" => b"250-torture\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let Some(mail) = content(&mut stream).await? else { return Ok(()) };
                received(book, &mail).await;
                b"250 2.0.0 taken\r\n"
            }
            "QUIT" => {
                stream.write_all(b"221 good-bye\r\n").await?;
                return Ok(());
            }
            _ => b"250 2.0.0 well\r\n",
        };
        stream.write_all(reply).await?;
    }
}

/// A mail up to its final dot; `None` when the connection ended before, and it was never received.
async fn content(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let (mut mail, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        if line == ".\r\n" {
            return Ok(Some(mail));
        }
        mail += &line;
    }
}

async fn received(book: &Book, mail: &str) {
    let header =
        |name: &str| mail.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let number: u64 = header("Subject: torture ").parse().expect("only ours come here");
    let (id, at) = (header("Message-ID:").to_owned(), book.clock.now());
    // The sender's number is all that names a mail beside its id.
    let delivery = number.to_string();
    let content = crc32fast::hash(mail.split_once("\r\n\r\n").unwrap_or_default().1.as_bytes());
    let entry = Arrived::Delivery { place: Place::Mail, number, id, delivery: delivery.clone(), content, at };
    book.arrived(Place::Mail, number, entry);
    book.takes_its_time(Place::Mail, delivery).await;
}

/// Subscribes with this number, and again from its last cursor whenever the stream ends, until it is aborted. Tells `ready`
/// when the first stream is open.
pub async fn subscribe(
    book: Arc<Book>,
    stream: usize,
    mut server: watch::Receiver<Client>,
    ready: tokio::sync::oneshot::Sender<()>,
) {
    let (mut cursor, mut ready) = (String::new(), Some(ready));
    loop {
        let client = server.borrow_and_update().clone();
        // It ends with the server, and that is no surprise.
        let _ = follow(&book, stream, &client, &mut cursor, &mut ready).await;
        // Another server takes over, or the same one after a moment.
        let _ = tokio::time::timeout(Duration::from_millis(50), server.changed()).await;
    }
}

async fn follow(
    book: &Book,
    stream: usize,
    client: &Client,
    cursor: &mut String,
    ready: &mut Option<tokio::sync::oneshot::Sender<()>>,
) -> Result<(), tonic::Status> {
    let request = SubscribeRequest {
        event_types: vec!["torture.*".into()],
        cursor: cursor.clone(),
        heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    };
    let asked = !cursor.is_empty();
    let mut messages = client.notifications().subscribe(request).await?.into_inner();
    while let Some(message) = messages.message().await? {
        if let Some(opened) = message.opened {
            book.journal.add(Arrived::Opened { stream, resumed: opened.resumed, asked });
            if let Some(ready) = ready.take() {
                let _ = ready.send(());
            }
        }
        if message.resync.is_some() {
            book.journal.add(Arrived::Gap { stream });
        }
        for event in message.events {
            let number = serde_json::from_str::<serde_json::Value>(&event.data).ok();
            let number = number.and_then(|data| data["n"].as_u64()).expect("only ours come here");
            let position = Cursor::decode(&event.cursor).expect("an event has a place").position;
            let (id, at) = (event.id, book.clock.now());
            book.arrived(Place::Stream(stream), number, Arrived::Event { stream, number, id, position, at });
        }
        if !message.cursor.is_empty() {
            *cursor = message.cursor;
        }
    }
    Ok(())
}
