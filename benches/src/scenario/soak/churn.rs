//! What comes and goes: each second a connection, a stream, a key and an endpoint.

use std::time::Duration;

use switchboard_client::apikey::v1::{CreateApiKeyRequest, RevokeApiKeyRequest, VerifyApiKeyRequest};
use switchboard_client::webhook::v1::{CreateWebhookRequest, DeleteWebhookRequest};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::subscribers::opened;
use crate::client::{client, connections};
use crate::error::{Context, Result};
use crate::stage::{Stage, endpoint};

const INTERVAL: Duration = Duration::from_secs(1);
/// A type that nobody publishes.
const EVENT_TYPE: &str = "bench.churn";

/// Somebody who makes and ends.
pub struct Churn {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<usize>>,
}

impl Churn {
    /// Goes on until it is stopped.
    pub async fn start(stage: &Stage<'_>) -> Result<Self> {
        let (address, url) = (stage.server.address().to_owned(), stage.sink.url(u32::MAX));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let (mut ticks, mut done) = (tokio::time::interval(INTERVAL), 0);
            while !*stopped.borrow() {
                ticks.tick().await;
                once(&address, &url).await?;
                done += 1;
            }
            Ok(done)
        });
        Ok(Self { stop, task })
    }

    /// How often it was done. One failure ends it.
    pub async fn stop(self) -> Result<usize> {
        let _ = self.stop.send(true);
        self.task.await.context("what comes and goes")?
    }
}

async fn once(address: &str, url: &str) -> Result<()> {
    let client = client(connections(address, 1).await?.remove(0))?;
    opened(&mut client.notifications(), &mut String::new()).await?;

    let mut keys = client.api_keys();
    let new = CreateApiKeyRequest {
        name: "Comes and goes".to_owned(),
        scopes: vec!["tickets:read".to_owned()],
        ..CreateApiKeyRequest::default()
    };
    let made = keys.create_api_key(new).await.context("CreateApiKey")?.into_inner();
    let verified = |key: &str| VerifyApiKeyRequest { key: key.to_owned(), ..VerifyApiKeyRequest::default() };
    let valid = keys.verify_api_key(verified(&made.key)).await.context("VerifyApiKey")?.into_inner().valid;
    let api_key_id = made.api_key.unwrap_or_default().id;
    keys.revoke_api_key(RevokeApiKeyRequest { api_key_id }).await.context("RevokeApiKey")?;
    let still = keys.verify_api_key(verified(&made.key)).await.context("VerifyApiKey")?.into_inner().valid;
    if !valid || still {
        return Err(format!("a new key is valid: {valid}; a revoked one: {still}").into());
    }

    let mut webhooks = client.webhooks();
    let new = CreateWebhookRequest {
        webhook: Some(endpoint(url.to_owned(), EVENT_TYPE)),
        ..CreateWebhookRequest::default()
    };
    let made = webhooks.create_webhook(new).await.context("CreateWebhook")?.into_inner();
    let webhook_id = made.webhook.unwrap_or_default().id;
    webhooks
        .delete_webhook(DeleteWebhookRequest { webhook_id, ..Default::default() })
        .await
        .context("DeleteWebhook")?;
    Ok(())
}
