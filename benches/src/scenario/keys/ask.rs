//! Those who ask about keys, and those who ask nothing at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::uri::PathAndQuery;
use switchboard_client::apikey::v1::{
    BatchVerifyApiKeysRequest, BatchVerifyApiKeysResponse, VerificationCode, VerifyApiKeyRequest,
    VerifyApiKeyResponse,
};
use tonic::Request;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::error::{Context, Result};
use crate::key::numbered;
use crate::load::Caller;
use crate::past_keys::scope;

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const VERIFY: &str = "/switchboard.apikey.v1.ApiKeyService/VerifyApiKey";
const BATCH_VERIFY: &str = "/switchboard.apikey.v1.ApiKeyService/BatchVerifyApiKeys";
/// Keys are asked for in steps of a prime number: one after the other would find its neighbours in the processor's memory.
const STEP: u64 = 7_919;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub enum Question {
    /// The health of the server, which nobody needs a key for; the key is sent all the same.
    Empty,
    /// About no key: the gate has everything to do, the service nothing.
    Nothing,
    /// About one of so many keys in turn.
    Key {
        /// How many.
        of: u64,
    },
    /// The same, as an application asks before it serves a request: a scope, a method, a path and an address.
    Use {
        /// How many.
        of: u64,
    },
}

/// Nothing, as a message.
#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

/// Asks the same kind of question again and again.
pub struct Asker {
    grpc: Grpc<Channel>,
    key: MetadataValue<Ascii>,
    question: Question,
    next: u64,
}

impl Asker {
    /// One that uses this connection and this key; `number` tells it from others.
    pub fn new(channel: &Channel, key: &str, question: Question, number: usize) -> Result<Self> {
        let key = key.parse().context("the key")?;
        Ok(Self { grpc: Grpc::new(channel.clone()), key, question, next: number as u64 * 1_009 })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("x-api-key", self.key.clone());
        request
    }

    fn number(&mut self, of: u64) -> u64 {
        self.next += STEP;
        self.next % of
    }

    async fn verify(&mut self, message: VerifyApiKeyRequest, expected: VerificationCode) -> Result<()> {
        let codec: ProstCodec<VerifyApiKeyRequest, VerifyApiKeyResponse> = ProstCodec::default();
        let (request, path) = (self.request(message), PathAndQuery::from_static(VERIFY));
        let answer = self.grpc.unary(request, path, codec).await.context("VerifyApiKey")?.into_inner();
        if answer.code() == expected { Ok(()) } else { Err(format!("a key is {:?}", answer.code()).into()) }
    }
}

impl Caller for Asker {
    async fn call(&mut self) -> Result<()> {
        self.grpc.ready().await.context("a call")?;
        match self.question {
            Question::Empty => {
                let codec: ProstCodec<Empty, Empty> = ProstCodec::default();
                let request = self.request(Empty {});
                let path = PathAndQuery::from_static(HEALTH);
                self.grpc.unary(request, path, codec).await.map(drop).context("the health check")
            }
            Question::Nothing => self.verify(VerifyApiKeyRequest::default(), VerificationCode::Invalid).await,
            Question::Key { of } => {
                let key = numbered(self.number(of));
                let request = VerifyApiKeyRequest { key, ..VerifyApiKeyRequest::default() };
                self.verify(request, VerificationCode::Valid).await
            }
            Question::Use { of } => {
                let number = self.number(of);
                let request = VerifyApiKeyRequest {
                    key: numbered(number),
                    all_of: vec![scope(number)],
                    method: "GET".to_owned(),
                    path: format!("/orders/{number}"),
                    client_ip: "192.0.2.7".to_owned(),
                    ..VerifyApiKeyRequest::default()
                };
                self.verify(request, VerificationCode::Valid).await
            }
        }
    }
}

/// Verifies all keys once, a hundred in each call, together with others.
pub struct ReadCaller {
    asker: Asker,
    next: Arc<AtomicU64>,
    count: u64,
}

impl ReadCaller {
    /// How many are in a call.
    pub const BATCH: u64 = 100;

    /// So many that read `count` keys together.
    pub fn some(channels: &[Channel], callers: usize, key: &str, count: u64) -> Result<Vec<Self>> {
        let next = Arc::new(AtomicU64::new(0));
        let new = |number: usize| {
            let asker = Asker::new(&channels[number % channels.len()], key, Question::Nothing, number)?;
            Ok(Self { asker, next: Arc::clone(&next), count })
        };
        (0..callers).map(new).collect()
    }
}

impl Caller for ReadCaller {
    async fn call(&mut self) -> Result<()> {
        let from = self.next.fetch_add(Self::BATCH, Ordering::Relaxed);
        let numbers = from..self.count.min(from + Self::BATCH);
        let of = |number| VerifyApiKeyRequest { key: numbered(number), ..VerifyApiKeyRequest::default() };
        let message = BatchVerifyApiKeysRequest { requests: numbers.map(of).collect() };
        let codec: ProstCodec<BatchVerifyApiKeysRequest, BatchVerifyApiKeysResponse> = ProstCodec::default();
        self.asker.grpc.ready().await.context("BatchVerifyApiKeys")?;
        let (request, path) = (self.asker.request(message), PathAndQuery::from_static(BATCH_VERIFY));
        let answer =
            self.asker.grpc.unary(request, path, codec).await.context("BatchVerifyApiKeys")?.into_inner();
        match answer.responses.iter().find(|answer| !answer.valid) {
            None => Ok(()),
            Some(answer) => Err(format!("a key is {:?}", answer.code()).into()),
        }
    }
}
