//! Connections: how they are made, and how many are kept.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
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
use super::proxy::{Proxy, Tunnels};
use super::trust::watch::Watch;

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
    route: ArcSwap<Route>,
}

/// Through which proxy, if through one.
type Route = Option<Arc<Proxy>>;

impl Network {
    /// A way where `guard` permits, to what `lookup` finds, through `proxy`.
    pub(super) fn new(guard: Guard, lookup: Arc<dyn Lookup>, proxy: Option<Proxy>) -> Self {
        Self { guard, lookup, route: ArcSwap::from_pointee(proxy.map(Arc::new)) }
    }

    /// Takes another way from now on: no request that begins later goes over a connection that was made before.
    pub(super) fn set_proxy(&self, proxy: Option<Proxy>) {
        if self.route.load().as_deref() != proxy.as_ref() {
            self.route.store(Arc::new(proxy.map(Arc::new)));
        }
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
pub(super) type Connections = HyperClient<Watch<HttpsConnector<GuardedConnector>>, Full<Bytes>>;

/// The connections of a client.
pub(super) struct Pool {
    network: Arc<Network>,
    tls: ClientConfig,
    idle: usize,
    current: ArcSwap<(Arc<Route>, Arc<Connections>)>,
}

impl Pool {
    /// Connections over `network`, of which `idle` to each host are kept.
    pub(super) fn new(network: Arc<Network>, tls: ClientConfig, idle: usize) -> Self {
        let route = network.route.load_full();
        let made = Arc::new(connections(&network, &route, tls.clone(), idle));
        Self { network, tls, idle, current: ArcSwap::from_pointee((route, made)) }
    }

    /// The connections over the network's way.
    pub(super) fn connections(&self) -> Arc<Connections> {
        let route = self.network.route.load();
        let current = self.current.load();
        if Arc::ptr_eq(&current.0, &route) {
            return Arc::clone(&current.1);
        }
        let route = Arc::clone(&route);
        let made = Arc::new(connections(&self.network, &route, self.tls.clone(), self.idle));
        // Of two that come here at once, one makes connections that only its own request uses.
        self.current.store(Arc::new((route, Arc::clone(&made))));
        made
    }
}

fn connections(network: &Network, route: &Route, tls: ClientConfig, idle: usize) -> Connections {
    let Network { guard, lookup, .. } = network;
    let resolver = GuardedResolver::new(guard.clone(), Arc::clone(lookup));
    let tunnels =
        route.as_ref().map(|proxy| Tunnels::new(Arc::clone(proxy), Arc::clone(lookup), resolver.clone()));
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(GuardedConnector::new(guard.clone(), tcp, tunnels));
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
        .build(Watch(connector))
}
