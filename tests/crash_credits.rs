//! The real binary, killed while a key with credits is verified: what was granted is never more than there was, and a kill
//! costs no more than the block that the server had in hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use switchboard_client::Client;
use switchboard_client::apikey::v1::{
    CreateApiKeyRequest, Credits, GetApiKeyRequest, VerificationCode, VerifyApiKeyRequest,
};
use tokio::task::JoinSet;

use crate::api_keys_change::{make, new_key};
use crate::crash::Ground;
use crate::harness::eventually;
use crate::harness::server::Backend;

const CREDITS: i64 = 3_000;
/// Calls at a time, and so the most whose answer a kill can swallow.
const CALLERS: i64 = 8;
/// The most that a server has in hand, as docs/api-keys.md says.
const BLOCK: i64 = 100;
/// When the server is killed, by the uses that were granted.
const KILLS: [i64; 3] = [450, 1_000, 1_600];

/// Verifies with many callers until the server is gone or the credits are used up; counts what was granted.
fn verify(client: &Client, key: &str, granted: &Arc<AtomicI64>) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (client, granted) = (client.clone(), Arc::clone(granted));
        let request = VerifyApiKeyRequest { key: key.into(), ..Default::default() };
        callers.spawn(async move {
            while let Ok(answer) = client.api_keys().verify_api_key(request.clone()).await {
                match answer.into_inner().code() {
                    VerificationCode::Valid => granted.fetch_add(1, Ordering::SeqCst),
                    VerificationCode::CreditsExhausted => return,
                    other => panic!("{other:?}"),
                };
            }
        });
    }
    callers
}

async fn stock(client: &Client, id: &str) -> i64 {
    let request = GetApiKeyRequest { api_key_id: id.into() };
    let api_key = client.api_keys().get_api_key(request).await.unwrap().into_inner().api_key.unwrap();
    api_key.credits.unwrap().remaining
}

async fn kill_in_the_middle(backend: Backend) {
    let ground = Ground::new(backend).await;
    let mut server = ground.start().await;
    let credits = Credits { remaining: CREDITS, ..Default::default() };
    let request = CreateApiKeyRequest { credits: Some(credits), ..new_key(&["events:read"]) };
    let (made, key) = make(&server.client, request).await.unwrap();
    let granted = Arc::new(AtomicI64::new(0));
    // What may have been granted to nobody's knowledge: the answers that the kill swallowed, and the block in hand.
    let mut unknown = 0;
    for at in KILLS {
        let mut callers = verify(&server.client, &key, &granted);
        eventually("enough were granted", async || (granted.load(Ordering::SeqCst) >= at).then_some(()))
            .await;
        server.kill().await;
        while let Some(ended) = callers.join_next().await {
            ended.unwrap();
        }
        unknown += BLOCK + CALLERS;
        server = ground.start().await;
        let (known, left) = (granted.load(Ordering::SeqCst), stock(&server.client, &made.id).await);
        assert!(left > 0, "it was killed in the middle");
        assert!(known + left <= CREDITS, "{known} granted and {left} left of {CREDITS}");
        assert!(
            known + left >= CREDITS - unknown,
            "{known} granted and {left} left: more than a block is lost"
        );
    }
    let mut callers = verify(&server.client, &key, &granted);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    let all = granted.load(Ordering::SeqCst);
    assert!((CREDITS - unknown..=CREDITS).contains(&all), "{all} of {CREDITS} were granted");
    assert_eq!(stock(&server.client, &made.id).await, 0);
    assert!(server.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_grants_nothing_twice_sqlite() {
    kill_in_the_middle(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_grants_nothing_twice_postgres() {
    kill_in_the_middle(Backend::Postgres).await;
}
