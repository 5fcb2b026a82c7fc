//! Connections that remember the TLS error that broke them.
//!
//! Since TLS 1.3 a receiver judges the client's certificate when the client thinks that the handshake is over, and what
//! it says arrives instead of the answer.  Over HTTP/2 the requests then only learn that there is no connection.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower::Service;

use super::explain::explain;

/// Why a connection broke, once it has, in words for people.
#[derive(Clone, Default)]
struct Broken(Arc<OnceLock<String>>);

tokio::task_local! {
    /// That of the connection that the request under way makes, if it makes one.
    static OF_REQUEST: Broken;
}

/// Makes a request; with its error comes why its connection broke, if TLS is why.
pub(in crate::webhook) async fn watched<T>(
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, (Error, Option<String>)> {
    let broken = Broken::default();
    let made = OF_REQUEST.scope(broken.clone(), request).await;
    made.map_err(|error| {
        let mut extras = Extensions::new();
        // There are none where the connection broke before it was ready for a request.
        error.connect_info().inspect(|info| info.get_extras(&mut extras));
        let why = extras.get::<Broken>().unwrap_or(&broken).0.get().cloned();
        (error, why)
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
            // The first one is why.
            let _ = self.broken.0.set(words);
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
