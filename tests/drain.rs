//! The drain of a server in the middle of its work: it ends within its bounds, and nothing is lost or comes twice.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use switchboard_client::Client;
use switchboard_client::notification::v1::{SubscribeRequest, SubscribeResponse, closing};
use tokio::task::JoinHandle;
use tonic::Streaming;

use crate::harness::load::{Load, Manner, arrivals, missing};
use crate::harness::program::{Program, Start, admin_key};
use crate::harness::receiver::{Behaviour, Receiver};
use crate::harness::server::Backend;
use crate::harness::{eventually, postgres};

const STREAMS: usize = 300;
/// Connections that they share, as the instances of an application do.
const CLIENTS: usize = 10;
const MANNER: Manner = Manner { callers: 16, deadline: Duration::from_secs(60), bytes: 100 };
/// What the port gives requests under way (20 s), and the attempts after that, which here take a fraction of a second.
const BOUND: Duration = Duration::from_secs(25);

async fn subscribe(client: &Client, cursor: &str) -> Streaming<SubscribeResponse> {
    let request = SubscribeRequest { cursor: cursor.into(), ..Default::default() };
    let mut stream = client.notifications().subscribe(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().unwrap().opened.is_some());
    stream
}

/// What a stream told: the events in their order, its last cursor, and how it said good-bye.
#[derive(Default)]
struct Heard {
    events: Vec<String>,
    cursor: String,
    farewell: Option<closing::Reason>,
}

/// Reads a stream to its end.
fn listen(mut stream: Streaming<SubscribeResponse>) -> JoinHandle<Heard> {
    tokio::spawn(async move {
        let mut heard = Heard::default();
        while let Ok(Some(message)) = stream.message().await {
            assert!(message.resync.is_none(), "there is no gap");
            heard.events.extend(message.events.into_iter().map(|event| event.id));
            if !message.cursor.is_empty() {
                heard.cursor = message.cursor;
            }
            heard.farewell = message.closing.map(|closing| closing.reason()).or(heard.farewell);
        }
        heard
    })
}

async fn start(folder: &std::path::Path, key: &str, database: Option<&str>) -> Program {
    let (data, log) = (folder.join("data"), folder.join("log"));
    Start { data: &data, log: &log, key, database, arguments: &[] }.start().await
}

async fn run(backend: Backend) {
    let (receiver, key, folder) = (Receiver::start().await, admin_key().await, tempfile::tempdir().unwrap());
    let database = match backend {
        Backend::Sqlite => None,
        Backend::Postgres => Some(postgres::fresh_database().await),
    };
    receiver.respond_with("/", Behaviour::Delay(Duration::from_millis(200)));
    let server = start(folder.path(), &key, database.as_deref()).await;
    server.webhook_to(&receiver).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(server.url.clone(), &key).await.unwrap());
    }
    let mut listeners = Vec::new();
    for number in 0..STREAMS {
        listeners.push(listen(subscribe(&clients[number % CLIENTS], "").await));
    }
    // One that reads nothing, on a connection that is full soon.
    let silent = Client::connect(server.url.clone(), &key).await.unwrap();
    let never_read = subscribe(&silent, "").await;
    let load = Load::start(&server.client, "drain", MANNER);
    load.goes_on_by(1_000).await;
    eventually("attempts are under way", async || (receiver.in_flight("/") > 0).then_some(())).await;

    let asked = Instant::now();
    server.ask_to_end().await;
    let status = server.ended().await;
    let took = asked.elapsed();
    assert_eq!(status.code(), Some(0), "a drain is not a failure");
    assert!(took < BOUND, "it took {took:?}");
    assert_eq!(receiver.in_flight("/"), 0, "no attempt is cut off");
    let told = load.end().await;
    drop(never_read);
    eprintln!(
        "{backend:?}: {} acknowledged, {STREAMS} streams, drained in {took:?}",
        told.acknowledged.len()
    );

    let mut heard = Vec::new();
    for listener in listeners {
        heard.push(listener.await.unwrap());
    }
    assert!(
        heard.iter().all(|heard| heard.farewell == Some(closing::Reason::Drain)),
        "all are told why it ends"
    );
    let server = start(folder.path(), &key, database.as_deref()).await;
    let events: Vec<String> = server.events().await.into_iter().map(|(id, _)| id).collect();
    assert!(missing(&told, &events).is_empty(), "what was acknowledged is there");
    // From where each stream ended it goes on, so that together nobody missed anything or got it twice.
    let ends: BTreeSet<&str> = heard.iter().map(|heard| heard.cursor.as_str()).collect();
    let mut rests: HashMap<&str, Vec<String>> = HashMap::new();
    for end in ends {
        let whole = heard.iter().find(|heard| heard.cursor == end).expect("it is of one of them");
        let missed = events.len() - whole.events.len();
        rests.insert(end, rest(&server.client, end, missed).await);
    }
    for heard in &heard {
        let all: Vec<&String> = heard.events.iter().chain(&rests[heard.cursor.as_str()]).collect();
        let once: HashSet<&String> = all.iter().copied().collect();
        assert_eq!((all.len(), once.len()), (events.len(), events.len()), "each event once");
    }
    eventually("all of it arrives", async || {
        let arrived = arrivals(&receiver.received());
        events.iter().all(|id| arrived.contains_key(id)).then_some(())
    })
    .await;
    assert!(server.terminate().await.success());
    let arrived = arrivals(&receiver.received());
    assert_eq!(arrived.len(), events.len(), "nothing arrives that was not published");
    assert!(arrived.values().all(|&times| times == 1), "and nothing twice");
}

/// The events after a cursor, which are so many.
async fn rest(client: &Client, cursor: &str, count: usize) -> Vec<String> {
    let mut stream = subscribe(client, cursor).await;
    let mut rest = Vec::new();
    while rest.len() < count {
        let message = tokio::time::timeout(crate::harness::SOON, stream.message()).await.expect("they come");
        let message = message.unwrap().expect("it goes on");
        assert!(message.resync.is_none(), "there is no gap");
        rest.extend(message.events.into_iter().map(|event| event.id));
    }
    rest
}

mod a_server_under_load_with_many_streams_ends_in_time {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sqlite() {
        run(Backend::Sqlite).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres() {
        run(Backend::Postgres).await;
    }
}
