//! A server in this process, on a real port, with a clock that the test moves.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use switchboard::app::{App, Machine};
use switchboard::clock::{Clock, ManualClock, SystemClock};
use switchboard::config::Config;
use switchboard::db::Target;
use switchboard::secret::SecretText;
use switchboard_client::Client;
use switchboard_client::event::v1::{GetEventResponse, PublishEventRequest, PublishEventResponse};
use switchboard_client::webhook::v1::{CreateWebhookRequest, CreateWebhookResponse, Webhook};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::postgres;
use super::receiver::Receiver;
use super::tls::AUTHORITY;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// A running server.
pub struct Server {
    /// A client with the first admin key.
    pub client: Client,
    /// That key.
    pub key: SecretText,
    /// The server's clock; it stands still until the test moves it.
    pub clock: Arc<ManualClock>,
    /// What it was started with.
    pub config: Config,
    app: App,
    folder: tempfile::TempDir,
}

impl Server {
    /// A server with a fresh database.
    pub async fn start(backend: Backend) -> Self {
        Self::start_with(backend, |_| {}).await
    }

    /// A server with a fresh database and a changed configuration.
    pub async fn start_with(backend: Backend, configure: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::local(folder.path().to_owned());
        config.allow_network = vec!["127.0.0.0/8".parse().unwrap()];
        if backend == Backend::Postgres {
            config.database = Target::Postgres(postgres::fresh_database().await);
        }
        configure(&mut config);
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let app = start(&config, &clock).await;
        let key = app.new_admin_key().expect("a new database gets an admin key").clone();
        let client = connect(&config, &app, key.reveal()).await;
        Self { client, key, clock, config, app, folder }
    }

    /// The address of the port, as `http://…` or `https://…`.
    pub fn url(&self) -> String {
        self.app.url()
    }

    /// The address of the port.
    pub fn address(&self) -> String {
        self.app.address().to_string()
    }

    /// What verifies keys.
    pub fn verifier(&self) -> &switchboard::apikey::Verifier {
        self.app.verifier()
    }

    /// The folder of the server's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client with another key.
    pub async fn client_with(&self, key: &str) -> Client {
        connect(&self.config, &self.app, key).await
    }

    /// A client whose new key has just these scopes.
    pub async fn client_that_may(&self, scopes: &[&str]) -> Client {
        let request = switchboard_client::apikey::v1::CreateApiKeyRequest {
            name: "test".into(),
            scopes: scopes.iter().map(|&scope| scope.into()).collect(),
            ..Default::default()
        };
        let created = self.client.api_keys().create_api_key(request).await.unwrap().into_inner();
        self.client_with(&created.key).await
    }

    /// Moves the clock, and lets the server look for what is due.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.app.wake();
    }

    /// Sets the time of day so many seconds on, or back when it is below zero, and lets the server look for what is due.
    pub fn set_clock_by(&self, seconds: i64) {
        self.clock.set_by(seconds * 1_000_000);
        self.app.wake();
    }

    /// Drains the server, and starts another on the same database.
    pub async fn restart(self) -> Self {
        let Self { key, clock, config, app, folder, .. } = self;
        app.stop().await;
        let app = start(&config, &clock).await;
        assert!(app.new_admin_key().is_none(), "the admin key is made once");
        let client = connect(&config, &app, key.reveal()).await;
        Self { client, key, clock, config, app, folder }
    }

    /// Drains the server.
    pub async fn stop(self) {
        self.app.stop().await;
    }

    /// Another node on the same PostgreSQL database, with the same master key and clock.
    pub async fn another_node(&self) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let mut config = self.config.clone();
        config.data = folder.path().to_owned();
        config.master_key =
            Some(SecretText::new(std::fs::read_to_string(self.folder().join("master.key")).unwrap()));
        let app = start(&config, &self.clock).await;
        let client = connect(&config, &app, self.key.reveal()).await;
        Server { client, key: self.key.clone(), clock: Arc::clone(&self.clock), config, app, folder }
    }

    /// Adds an endpoint; answers it with its secret.
    pub async fn webhook(&self, url: &str, event_types: &[&str]) -> (Webhook, String) {
        let webhook = Webhook {
            name: "test".into(),
            url: url.into(),
            event_types: event_types.iter().map(|&event_type| event_type.into()).collect(),
            ..Default::default()
        };
        let request = CreateWebhookRequest { webhook: Some(webhook), ..Default::default() };
        let CreateWebhookResponse { webhook, secret } =
            self.client.webhooks().create_webhook(request).await.unwrap().into_inner();
        (webhook.unwrap(), secret)
    }

    /// Adds an endpoint at the receiver's root.
    pub async fn webhook_to(&self, receiver: &Receiver, event_types: &[&str]) -> (Webhook, String) {
        self.webhook(&receiver.url("/"), event_types).await
    }

    /// Publishes an event.
    pub async fn publish(&self, event_type: &str, data: &str) -> PublishEventResponse {
        self.client.events().publish_event(event(event_type, data)).await.unwrap().into_inner()
    }

    /// What became of an event.
    pub async fn event(&self, event_id: &str) -> GetEventResponse {
        let request = switchboard_client::event::v1::GetEventRequest { event_id: event_id.into() };
        self.client.events().get_event(request).await.unwrap().into_inner()
    }

    /// Puts addresses on a recipient list.
    pub async fn put_on_list(&self, name: &str, addresses: &[&str]) {
        let list = switchboard_client::email::v1::RecipientList {
            name: name.into(),
            addresses: addresses.iter().map(|&address| address.into()).collect(),
            ..Default::default()
        };
        let request = switchboard_client::email::v1::UpdateRecipientListRequest {
            recipient_list: Some(list),
            update_mask: None,
        };
        self.client.recipient_lists().update_recipient_list(request).await.unwrap();
    }
}

/// A request to publish.
pub fn event(event_type: &str, data: &str) -> PublishEventRequest {
    PublishEventRequest { event_type: event_type.into(), data: data.into(), ..Default::default() }
}

async fn start(config: &Config, clock: &Arc<ManualClock>) -> App {
    let machine = Machine { clock: clock.clone(), ..Machine::default() };
    App::start_on(config.clone(), machine).await.unwrap()
}

async fn connect(config: &Config, app: &App, key: &str) -> Client {
    let Some(tls) = &config.tls else {
        return Client::connect(app.url(), key).await.unwrap();
    };
    let authority = std::fs::read(tls.certificate.with_file_name(AUTHORITY)).unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
    let endpoint = Endpoint::from_shared(app.url()).unwrap().tls_config(tls).unwrap();
    Client::with_channel(endpoint.connect().await.unwrap(), key).unwrap()
}
