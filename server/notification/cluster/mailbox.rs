//! Calls about a stream that another node has.
//!
//! The caller's node writes a request into the box of the node that has the stream and waits for the answer, a moment and no
//! longer.  A request may have been carried out when its answer comes too late: what is asked for can be asked again.
//! Callers go as what they may do, and never with the key or token that said so.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::call::{Call, Caller};
use super::failure;
use super::store;
use crate::clock::Stopwatch;
use crate::db::Db;
use crate::db::hint::{Hint, Hints};
use crate::error::{Error, Result};
use crate::notification::registry::{Elsewhere, Registry, Update};
use crate::rpc::Principal;
use crate::secret::SharedRandom;

/// How long a caller waits for the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked for an answer, and for requests, when no hint comes.
const ANSWER_POLL: Duration = Duration::from_millis(50);
const REQUEST_POLL: Duration = Duration::from_millis(200);
/// How many requests are read at a time.
const BATCH: i64 = 100;
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Carries out what is asked of this node.
pub type Carry = Arc<dyn Fn(Value) -> BoxFuture<'static, Result<Value>> + Send + Sync>;

/// The boxes of all nodes.
#[derive(Clone)]
pub struct Mailbox {
    /// The database.
    pub db: Db,
    /// This node.
    pub node_id: i64,
    /// Says that there is something to look at.
    pub hints: Arc<Hints>,
    /// Makes ids of requests.
    pub random: SharedRandom,
}

impl Mailbox {
    /// Asks another node; `None` when it does not live.
    ///
    /// # Errors
    /// What that node answers; `UNAVAILABLE` when it does not in time.
    pub async fn ask(&self, node_id: i64, request: &Value) -> Result<Option<Value>> {
        let mut heard = self.hints.heard(Hint::Mailbox);
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        let (id, request) = (i64::from_le_bytes(bytes), request.to_string());
        if !store::lives(&mut self.db.reader().await?, node_id).await? {
            return Ok(None);
        }
        let put = self
            .db
            .transaction(move |conn| Box::pin(async move { store::ask(conn, id, node_id, &request).await }));
        put.await?;
        self.hints.give(Hint::Mailbox);
        let asked = Stopwatch::start();
        let answer = loop {
            if let Some(answer) = store::answer(&mut self.db.reader().await?, id).await? {
                break Some(answer);
            }
            if asked.elapsed() >= PATIENCE {
                break None;
            }
            // Who goes away here leaves a request that is removed for its age.
            tokio::select! {
                _ = heard.changed() => {}
                () = tokio::time::sleep(ANSWER_POLL) => {}
            }
        };
        self.db.transaction(move |conn| Box::pin(async move { store::forget(conn, id).await })).await?;
        match answer {
            Some(answer) => failure::read(&answer).map(Some),
            None => {
                Err(Error::unavailable("the node that has the stream does not answer", "no answer in time"))
            }
        }
    }

    /// Has `carry` carry out what is asked of this node, until `stop`.
    pub async fn run(self, carry: Carry, stop: CancellationToken) {
        let mut heard = self.hints.heard(Hint::Mailbox);
        loop {
            let wait = match self.look(&carry).await {
                Ok(()) => REQUEST_POLL,
                Err(error) => {
                    tracing::warn!(%error, "calls from other nodes could not be answered");
                    PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = heard.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn look(&self, carry: &Carry) -> Result<()> {
        loop {
            let requests = store::requests(&mut self.db.reader().await?, self.node_id, BATCH).await?;
            if requests.is_empty() {
                return Ok(());
            }
            let mut answers = Vec::with_capacity(requests.len());
            for store::Request { id, request } in requests {
                let answer = match serde_json::from_str(&request) {
                    Ok(request) => carry(request).await,
                    Err(error) => Err(Error::internal(error)),
                };
                answers.push((id, failure::write(&answer)));
            }
            self.db
                .transaction(move |conn| Box::pin(async move { store::give(conn, &answers).await }))
                .await?;
            self.hints.give(Hint::Mailbox);
        }
    }
}

impl Mailbox {
    async fn call(&self, node: i64, id: &str, call: &Call) -> Result<Value> {
        let request = serde_json::to_value(call).map_err(Error::internal)?;
        // The streams of a node that does not live are gone.
        self.ask(node, &request).await?.ok_or_else(|| Error::not_found("subscription", id))
    }
}

impl Elsewhere for Mailbox {
    fn update<'a>(
        &'a self,
        node: i64,
        id: &'a str,
        caller: &'a Principal,
        update: &'a Update,
    ) -> BoxFuture<'a, Result<i64>> {
        async move {
            let (subscription_id, caller) = (id.to_owned(), Caller::from(caller));
            let call = Call::Update { subscription_id, caller, update: update.clone() };
            let generation = self.call(node, id, &call).await?;
            generation.as_i64().ok_or_else(|| Error::internal("an answer without a generation"))
        }
        .boxed()
    }

    fn refresh<'a>(&'a self, node: i64, id: &'a str, caller: &'a Principal) -> BoxFuture<'a, Result<()>> {
        async move {
            let call = Call::Refresh { subscription_id: id.to_owned(), caller: Caller::from(caller) };
            self.call(node, id, &call).await.map(drop)
        }
        .boxed()
    }
}

/// Carries out calls about the streams of this node.
pub fn carry(registry: Arc<Registry>) -> Carry {
    Arc::new(move |request| {
        let registry = Arc::clone(&registry);
        async move {
            match serde_json::from_value(request).map_err(Error::internal)? {
                Call::Update { subscription_id, caller, update } => {
                    Ok(json!(registry.update(&subscription_id, &caller.into(), &update).await?))
                }
                Call::Refresh { subscription_id, caller } => {
                    registry.refresh(&subscription_id, &caller.into()).await?;
                    Ok(Value::Null)
                }
            }
        }
        .boxed()
    })
}
