//! Connections that remember the TLS error that broke them.
//!
//! Since TLS 1.3 a receiver judges the client's certificate when the client thinks that the handshake is over, and what
//! it says arrives instead of the answer.  Over HTTP/2 the requests then only learn that there is no connection.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::sync::Notify;
use tower::Service;

use super::super::failure::Failure;
use super::explain::explain;

/// How long a request may take to learn that its connection broke.
const GRACE: Duration = Duration::from_secs(1);

/// Why a connection broke, once it has, in words for people.
#[derive(Clone, Default)]
struct Broken(Arc<Inner>);

#[derive(Default)]
struct Inner {
    why: OnceLock<String>,
    told: Notify,
}

impl Broken {
    fn tell(&self, why: String) {
        // The first one is why.
        let _ = self.0.why.set(why);
        self.0.told.notify_one();
    }

    fn why(&self) -> Option<String> {
        self.0.why.get().cloned()
    }

    /// Answers why it broke, some time after it has.
    async fn wait(&self) -> Option<String> {
        self.0.told.notified().await;
        tokio::time::sleep(GRACE).await;
        self.why()
    }
}

tokio::task_local! {
    /// That of the connection that the request under way makes, if it makes one.
    static OF_REQUEST: Broken;
}

/// Makes a request, and says why its connection broke where TLS is why.
///
/// # Errors
/// [`Failure`], when there is no head of an answer.
pub(in crate::webhook) async fn watched<T>(
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    let broken = Broken::default();
    let made = tokio::select! {
        made = OF_REQUEST.scope(broken.clone(), request) => made,
        // A request that begins in the moment in which its HTTP/2 connection breaks may never be told.
        Some(why) = broken.wait() => return Err(Failure::Tls(why)),
    };
    made.map_err(|error| {
        let mut extras = Extensions::new();
        // There are none where the connection broke before it was ready for a request.
        error.connect_info().inspect(|info| info.get_extras(&mut extras));
        Failure::of_request(&error, extras.get::<Broken>().unwrap_or(&broken).why())
    })
}

/// Has the connections of a connector remember what broke them.
#[derive(Clone)]
pub(in crate::webhook) struct Watch<C>(pub C);

impl<C> Service<Uri> for Watch<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
{
    type Response = Watched<C::Response>;
    type Error = C::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // A connection that nobody waits for any more is finished in a task of its own.
        let broken = OF_REQUEST.try_with(Broken::clone).unwrap_or_default();
        let connecting = self.0.call(uri);
        async move { Ok(Watched { stream: connecting.await?, broken }) }.boxed()
    }
}

/// A connection that remembers what broke it.
pub(in crate::webhook) struct Watched<S> {
    stream: S,
    broken: Broken,
}

impl<S: Connection> Connection for Watched<S> {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.broken.clone())
    }
}

impl<S: Read + Unpin> Read for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &read
            && let Some(words) = explain(error)
        {
            self.broken.tell(words);
        }
        read
    }
}

impl<S: Write + Unpin> Write for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }
}
