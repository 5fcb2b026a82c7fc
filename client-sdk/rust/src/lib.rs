//! Client for Switchboard, the communication server.
//!
//! ```no_run
//! # async fn publish() -> Result<(), Box<dyn std::error::Error>> {
//! use switchboard_client::{Client, event::v1::PublishEventRequest};
//!
//! let client = Client::connect("http://127.0.0.1:8080", "swb_…").await?;
//! let request = PublishEventRequest {
//!     event_type: "ticket.created".into(),
//!     data: r#"{"ticket_id": 42, "title": "Pump 3 has stopped", "priority": "critical", "created_by": "jo"}"#.into(),
//!     ..Default::default()
//! };
//! let published = client.events().publish_event(request).await?.into_inner();
//! println!("{}", published.event_id);
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

#[allow(clippy::all, clippy::pedantic, missing_docs, rustdoc::all)]
mod generated {
    include!("gen/mod.rs");
}

pub use generated::switchboard::*;

/// The greatest message that is accepted from the server, in bytes.
pub const MESSAGE_LIMIT: usize = 32 * 1024 * 1024;

/// A connection to a server, with a key.  Clones share the connection.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    key: ApiKey,
}

/// A channel that sends the key with every request.
pub type Authenticated = InterceptedService<Channel, ApiKey>;

/// Sends `x-api-key` with every request.
#[derive(Clone)]
pub struct ApiKey(MetadataValue<Ascii>);

impl Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("x-api-key", self.0.clone());
        Ok(request)
    }
}

/// Why there is no client.
#[derive(Debug)]
pub enum ConnectError {
    /// The key has characters that a header can not carry.
    Key,
    /// The address is not a URL, or nobody answers there.
    Transport(tonic::transport::Error),
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key => f.write_str("the API key has characters that a header can not carry"),
            Self::Transport(error) => write!(f, "the server can not be reached: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Key => None,
            Self::Transport(error) => Some(error),
        }
    }
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident: $package:ident, $module:ident, $client:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                pub fn $name(&self) -> $package::v1::$module::$client<Authenticated> {
                    $package::v1::$module::$client::with_interceptor(self.channel.clone(), self.key.clone())
                        .max_decoding_message_size(MESSAGE_LIMIT)
                }
            )*
        }
    };
}

services! {
    /// Publishes and reads events.
    events: event, event_service_client, EventServiceClient;
    /// Manages routes.
    routes: event, route_service_client, RouteServiceClient;
    /// Manages webhook endpoints and reads their deliveries.
    webhooks: webhook, webhook_service_client, WebhookServiceClient;
    /// Sends mails and reads the queue.
    emails: email, email_service_client, EmailServiceClient;
    /// Manages and previews mail templates.
    templates: email, template_service_client, TemplateServiceClient;
    /// Manages the addresses that get no mail.
    suppressions: email, suppression_service_client, SuppressionServiceClient;
    /// Manages recipient lists.
    recipient_lists: email, recipient_list_service_client, RecipientListServiceClient;
    /// Manages API keys.
    api_keys: apikey, api_key_service_client, ApiKeyServiceClient;
    /// Reads and changes settings.
    settings: settings, settings_service_client, SettingsServiceClient;
    /// Exports and imports the configuration as a whole.
    configuration: settings, configuration_service_client, ConfigurationServiceClient;
    /// Reads and verifies the audit log.
    audit: settings, audit_service_client, AuditServiceClient;
    /// Subscribes to live events.
    notifications: notification, notification_service_client, NotificationServiceClient;
}

impl Client {
    /// Connects to a server, over TLS when the address begins with `https`: then the server's certificate must be signed
    /// by an authority that this machine trusts, or by one of the file that `SSL_CERT_FILE` names.
    ///
    /// # Errors
    /// When nobody answers at the address, or the key can not be sent.
    pub async fn connect(address: impl Into<String>, key: &str) -> Result<Self, ConnectError> {
        let mut endpoint = Endpoint::from_shared(address.into())
            .map_err(ConnectError::Transport)?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        if endpoint.uri().scheme_str() == Some("https") {
            let tls = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint.tls_config(tls).map_err(ConnectError::Transport)?;
        }
        let channel = endpoint.connect().await.map_err(ConnectError::Transport)?;
        Self::with_channel(channel, key)
    }

    /// Uses a channel that was made elsewhere.
    ///
    /// # Errors
    /// When the key can not be sent.
    pub fn with_channel(channel: Channel, key: &str) -> Result<Self, ConnectError> {
        let mut key: MetadataValue<Ascii> = key.parse().map_err(|_| ConnectError::Key)?;
        key.set_sensitive(true);
        Ok(Self { channel, key: ApiKey(key) })
    }
}
