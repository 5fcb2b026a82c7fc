//! Bodies of requests: they have to come in time, and what nobody wants of them is read all the same.
//!
//! A call has its place ([`super::admission`]) until it is answered, and is answered when its body is there: without a bound a
//! caller that sends none would keep it for ever.
//!
//! A call that is refused is answered before its body has come.  Were the body dropped then, the stream would be reset, and h2
//! would take what still comes on it for an error of the peer's: an honest client that was refused a thousand times would
//! lose its connection, with all streams on it.  So the rest of a body that is dropped is read to its end and thrown away, as
//! far as it is short and comes soon.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::body::{Body, Buf, Frame, SizeHint};
use tokio::sync::Semaphore;
use tokio::time::Sleep;
use tonic::Status;

use super::status;
use crate::error::{Error, Kind};

/// How much of a body is thrown away before its stream is reset after all.
const UNWANTED: usize = 64 * 1024;
/// How long that may take.
const UNWANTED_FOR: Duration = Duration::from_secs(5);
/// How many are waited for at a time: whoever opens streams by the thousand and says nothing on them has the others reset.
static WAITING: Semaphore = Semaphore::const_new(4_096);

/// A body that fails when it is not all there in time.
pub struct Timely<B: Unwanted> {
    /// There until this is dropped.
    body: Option<B>,
    limit: Duration,
    /// Counts from the first moment that somebody waited: most bodies are there when they are asked for.
    late: Option<Pin<Box<Sleep>>>,
}

/// A body that can be read on when nobody wants it.
pub trait Unwanted: Body<Data: Send> + Unpin + Send + 'static {}

impl<B: Body<Data: Send> + Unpin + Send + 'static> Unwanted for B {}

impl<B: Unwanted> Timely<B> {
    /// Gives a body so much time, from when it is first waited for.
    pub fn new(body: B, limit: Duration) -> Self {
        Self { body: Some(body), limit, late: None }
    }
}

impl<B: Unwanted> Drop for Timely<B> {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let mut rest = Rest { body, left: UNWANTED };
        // Most of the time it has come meanwhile.
        if Pin::new(&mut rest).poll(&mut Context::from_waker(Waker::noop())).is_pending()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
            && let Ok(permit) = WAITING.try_acquire()
        {
            runtime.spawn(async move {
                let _ = tokio::time::timeout(UNWANTED_FOR, rest).await;
                drop(permit);
            });
        }
    }
}

/// Reads a body to its end, unless it is long.
struct Rest<B> {
    body: B,
    left: usize,
}

impl<B: Unwanted> Future for Rest<B> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        while let Some(Ok(frame)) = ready!(Pin::new(&mut this.body).poll_frame(context)) {
            let count = frame.data_ref().map_or(0, Buf::remaining);
            match this.left.checked_sub(count) {
                Some(left) => this.left = left,
                None => break,
            }
        }
        Poll::Ready(())
    }
}

impl<B> Body for Timely<B>
where
    B: Unwanted,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = this.limit;
        let late = this.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(late.as_mut().poll(context));
        Poll::Ready(Some(Err(too_late(limit).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

fn too_late(limit: Duration) -> Status {
    let message = format!("the request did not come whole within {limit:?}");
    status::to_status(&Error::new(Kind::DeadlineExceeded, "DEADLINE_EXCEEDED", message))
}
