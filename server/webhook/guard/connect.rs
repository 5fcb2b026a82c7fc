//! The guard at work: what a name resolves to and what is connected to is checked here, and nowhere later.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{fmt, io, vec};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Semaphore;
use tower::Service;

use super::super::proxy::Tunnels;
use super::{Guard, Refused};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How many names are being resolved at a time.  Each takes one of the runtime's threads for blocking work until the
/// system gives up, and the embedded database needs those threads too.
const LOOKUPS: usize = 64;

/// Finds the addresses of a name.
pub trait Lookup: Send + Sync {
    /// The addresses of `name`; their ports mean nothing.
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver.
pub struct SystemLookup(Arc<Semaphore>);

impl Default for SystemLookup {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS)))
    }
}

impl Lookup for SystemLookup {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let permits = Arc::clone(&self.0);
        async move {
            let permit = permits.acquire_owned().await.map_err(io::Error::other)?;
            // A task of its own: who asked may be gone before the thread is free again.
            let looking = tokio::spawn(async move {
                let found = tokio::net::lookup_host((name, 0)).await.map(Iterator::collect);
                drop(permit);
                found
            });
            looking.await.map_err(io::Error::other)?
        }
        .boxed()
    }
}

/// A name has no address, or none could be asked for.
#[derive(Debug)]
pub struct Unresolved {
    name: String,
    cause: io::Error,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name {} does not resolve: {}", self.name, self.cause)
    }
}

impl std::error::Error for Unresolved {}

/// Resolves names to addresses that may be connected to.
#[derive(Clone)]
pub struct GuardedResolver {
    guard: Guard,
    lookup: Arc<dyn Lookup>,
}

impl GuardedResolver {
    /// A resolver that asks `lookup`, and passes on what `guard` permits.
    pub fn new(guard: Guard, lookup: Arc<dyn Lookup>) -> Self {
        Self { guard, lookup }
    }
}

impl Service<Name> for GuardedResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (guard, looking) = (self.guard.clone(), self.lookup.lookup(name.as_str().to_owned()));
        async move {
            let unresolved = |cause| Unresolved { name: name.as_str().to_owned(), cause };
            let found = looking.await.map_err(unresolved)?;
            let permitted: Vec<_> =
                found.iter().copied().filter(|found| guard.permits_name(name.as_str(), found.ip())).collect();
            match found.first() {
                None => Err(unresolved(io::Error::new(io::ErrorKind::NotFound, "it has no address")).into()),
                Some(first) if permitted.is_empty() => Err(Refused::Address(first.ip()).into()),
                Some(_) => Ok(permitted.into_iter()),
            }
        }
        .boxed()
    }
}

/// What happened before there was a connection.
#[derive(Debug)]
pub struct Unreachable(BoxError);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection")
    }
}

impl std::error::Error for Unreachable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// Connects where the guard permits: it checks the port, and an address that stands in the URL itself, which no
/// resolver sees.  It connects itself, or has a proxy do it.
#[derive(Clone)]
pub struct GuardedConnector {
    guard: Guard,
    tcp: HttpConnector<GuardedResolver>,
    tunnels: Option<Tunnels>,
}

impl GuardedConnector {
    /// A connector over `tcp`, or through `tunnels`, whose resolvers have the same guard.
    pub fn new(guard: Guard, tcp: HttpConnector<GuardedResolver>, tunnels: Option<Tunnels>) -> Self {
        Self { guard, tcp, tunnels }
    }
}

impl Service<Uri> for GuardedConnector {
    type Response = <HttpConnector<GuardedResolver> as Service<Uri>>::Response;
    type Error = Unreachable;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(|error| Unreachable(error.into()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let verdict = self.guard.check_uri(&uri);
        if let Some(tunnels) = self.tunnels.clone() {
            return async move {
                verdict.map_err(|refused| Unreachable(refused.into()))?;
                tunnels.connect(uri).await.map_err(Unreachable)
            }
            .boxed();
        }
        // It connects only when it is polled.
        let connecting = self.tcp.call(uri);
        async move {
            verdict.map_err(|refused| Unreachable(refused.into()))?;
            connecting.await.map_err(|error| Unreachable(error.into()))
        }
        .boxed()
    }
}
