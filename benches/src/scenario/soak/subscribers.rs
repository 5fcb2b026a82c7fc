//! Subscribers that stay for as long as the server lets them, and come back with their cursor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use switchboard_client::Authenticated;
use switchboard_client::notification::v1::SubscribeRequest;
use switchboard_client::notification::v1::notification_service_client::NotificationServiceClient;
use tokio::task::JoinSet;

use super::round::TOPIC;
use crate::client::{client, connections};
use crate::error::{Context, Result};

/// Before a stream that has ended is opened again.
const PAUSE: Duration = Duration::from_millis(100);

/// Some who read one topic.
pub struct Subscribers {
    events: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

/// What opens streams.
pub type Streams = NotificationServiceClient<Authenticated>;

impl Subscribers {
    /// So many on one connection; they are there when this answers.
    pub async fn start(address: &str, count: usize) -> Result<Self> {
        let streams = client(connections(address, 1).await?.remove(0))?.notifications();
        let (events, mut tasks) = (Arc::default(), JoinSet::new());
        for _ in 0..count {
            let mut cursor = String::new();
            opened(&mut streams.clone(), &mut cursor).await?;
            tasks.spawn(read(streams.clone(), cursor, Arc::clone(&events)));
        }
        Ok(Self { events, tasks })
    }

    /// How many events they have got together.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Lets them go.
    pub fn stop(mut self) {
        self.tasks.abort_all();
    }
}

/// Opens a stream, learns where it begins, and closes it.
pub async fn opened(streams: &mut Streams, cursor: &mut String) -> Result<()> {
    let mut stream = streams.subscribe(request(cursor)).await.context("Subscribe")?.into_inner();
    while cursor.is_empty() {
        match stream.message().await.context("a live stream")? {
            Some(message) => *cursor = message.cursor,
            None => return Err("a live stream ended before it began".into()),
        }
    }
    Ok(())
}

fn request(cursor: &str) -> SubscribeRequest {
    SubscribeRequest {
        topics: vec![TOPIC.to_owned()],
        cursor: cursor.to_owned(),
        ..SubscribeRequest::default()
    }
}

/// Reads for ever. What is missed in between comes after the cursor; a gap shows in the count.
async fn read(mut streams: Streams, mut cursor: String, events: Arc<AtomicU64>) {
    loop {
        if let Ok(answer) = streams.subscribe(request(&cursor)).await {
            let mut stream = answer.into_inner();
            while let Ok(Some(message)) = stream.message().await {
                events.fetch_add(message.events.len() as u64, Ordering::Relaxed);
                if !message.cursor.is_empty() {
                    cursor = message.cursor;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
