//! From settings to what they say about the tokens of users, the way to the keys of an identity provider, and the tasks that
//! look after what was ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::notification::token::provider::{Config, Fetch, Provider};
use crate::notification::token::{FOLLOW_INTERVAL, Revocations, TokenService};
use crate::settings::{SettingsService, Values};
use crate::webhook::Clients;
use crate::webhook::client::{BODY_LIMIT, Client};
use crate::webhook::trust::Trust;

const JWKS_URL: &str = "authentication.jwks_url";
const ISSUER: &str = "authentication.token_issuer";
const AUDIENCE: &str = "authentication.token_audience";
const LIFETIME: &str = "authentication.token_lifetime_minutes";
const FETCH_TIME: Duration = Duration::from_secs(5);
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Hands the settings to whom they concern, now and whenever they change.
pub(super) fn settings(settings: &SettingsService, tokens: Arc<TokenService>, provider: Arc<Provider>) {
    settings.follow(move |values| {
        tokens.set_lifetime(u32::try_from(values.integer(LIFETIME)).unwrap_or(1));
        provider.configure(of(values));
    });
}

fn of(values: &Values) -> Option<Config> {
    let text = |key| values.text(key).to_owned();
    let config = Config { jwks_url: text(JWKS_URL), issuer: text(ISSUER), audience: text(AUDIENCE) };
    // What is kept was checked; without any of the three nobody's tokens are believed.
    let whole = ![&config.jwks_url, &config.issuer, &config.audience].iter().any(|text| text.is_empty());
    whole.then_some(config)
}

/// What is wrong with values that the catalogue can not judge.
pub(super) fn check(values: &Values) -> Vec<(&'static str, String)> {
    let url = values.text(JWKS_URL);
    if url.is_empty() {
        return Vec::new();
    }
    let needed = |key| {
        let missing = values.text(key).is_empty();
        (key, missing.then(|| format!("is required with {JWKS_URL}")))
    };
    let wrong = [(JWKS_URL, Config::check_url(url).err()), needed(ISSUER), needed(AUDIENCE)];
    wrong.into_iter().filter_map(|(key, reason)| Some((key, reason?))).collect()
}

/// Gets documents the way that requests to webhooks go: where the guard permits, and through the same proxy.
pub(super) struct Web(Client);

impl Web {
    pub(super) fn new(clients: &Clients) -> Result<Self> {
        clients.of(&Trust::default()).map(Self).map_err(Error::internal)
    }
}

impl Fetch for Web {
    fn fetch(&self, url: String) -> BoxFuture<'static, Result<Bytes, String>> {
        let client = self.0.clone();
        async move {
            let request = Request::get(url)
                .header(header::ACCEPT, "application/jwk-set+json, application/json")
                .header(header::USER_AGENT, concat!("switchboard/", env!("CARGO_PKG_VERSION")))
                .body(Full::new(Bytes::new()))
                .map_err(|error| error.to_string())?;
            let answer =
                client.send(request, FETCH_TIME).await.map_err(|failure| failure.text().to_owned())?;
            if answer.status != StatusCode::OK {
                return Err(format!("the answer is {}", answer.status.as_u16()));
            }
            // A longer one is cut off there.
            if answer.body.len() >= BODY_LIMIT {
                return Err(format!("the answer has {BODY_LIMIT} bytes or more"));
            }
            Ok(answer.body)
        }
        .boxed()
    }
}

/// Learns whose tokens other nodes end.
pub(super) async fn follow(revocations: Arc<Revocations>, stop: CancellationToken) {
    while tokio::time::timeout(FOLLOW_INTERVAL, stop.cancelled()).await.is_err() {
        if let Err(error) = revocations.follow().await {
            tracing::warn!(%error, "what other nodes ended of tokens could not be read: it is asked at every use now");
        }
    }
}

/// Forgets what no living token is from before of.
pub(super) async fn forget(revocations: Arc<Revocations>, wake: Arc<Notify>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = wake.notified() => {}
            () = tokio::time::sleep(FORGET_INTERVAL) => {}
        }
        if let Err(error) = revocations.forget_old().await {
            tracing::warn!(%error, "old revocations of tokens could not be forgotten");
        }
    }
}
