//! Connections: how they are made, and how many are kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::guard::{Guard, GuardedConnector, GuardedResolver, Lookup};

/// How long a connection may take to be made.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How many connections to a host are kept for the next requests.  Several endpoints may share a host, each with its own
/// concurrency: fewer, and connections would be made anew.
pub(super) const SHARED_IDLE: usize = 512;
/// As many for endpoints with trust of their own, of which few share a host.
pub(super) const OWN_IDLE: usize = 64;
/// How many hosts' TLS sessions are kept by those, to be resumed.
const OWN_SESSIONS: usize = 8;
/// The greatest head of an answer, and over HTTP/1.1 the most headers in it and the greatest trailers.
const HEAD_LIMIT: usize = 32 * 1024;
const HEADER_COUNT: usize = 100;
/// What a destination may send ahead over HTTP/2, for one answer and for all on its connection.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// A connection over HTTP/2 carries many requests: when its peer is gone, the next ones must not wait for it in vain.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The way out that every client takes.
pub(super) struct Network {
    guard: Guard,
    lookup: Arc<dyn Lookup>,
}

impl Network {
    /// A way where `guard` permits, to what `lookup` finds.
    pub(super) fn new(guard: Guard, lookup: Arc<dyn Lookup>) -> Self {
        Self { guard, lookup }
    }
}

/// The certificate that is shown, with its chain and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// TLS that trusts these authorities, and shows this certificate where one is demanded.
///
/// # Errors
/// When the key and the certificate can not be used together.
pub(super) fn tls(
    roots: Arc<RootCertStore>,
    identity: Option<Identity>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// Has TLS keep the sessions of a few hosts only.
pub(super) fn with_few_sessions(mut tls: ClientConfig) -> ClientConfig {
    tls.resumption = Resumption::in_memory_sessions(OWN_SESSIONS);
    tls
}

/// Connections over one kind of TLS.
pub(super) type Connections = HyperClient<HttpsConnector<GuardedConnector>, Full<Bytes>>;

/// The connections of a client.
pub(super) struct Pool(Connections);

impl Pool {
    /// Connections over `network`, of which `idle` to each host are kept.
    pub(super) fn new(network: Arc<Network>, tls: ClientConfig, idle: usize) -> Self {
        Self(connections(&network, tls, idle))
    }

    /// The connections.
    pub(super) fn connections(&self) -> &Connections {
        &self.0
    }
}

fn connections(network: &Network, tls: ClientConfig, idle: usize) -> Connections {
    let Network { guard, lookup } = network;
    let mut tcp = HttpConnector::new_with_resolver(GuardedResolver::new(guard.clone(), Arc::clone(lookup)));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(GuardedConnector::new(guard.clone(), tcp));
    HyperClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(idle)
        .http1_max_buf_size(HEAD_LIMIT)
        .http1_max_headers(HEADER_COUNT)
        .http2_max_header_list_size(HEAD_LIMIT as u32)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(connector)
}
