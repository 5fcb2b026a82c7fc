//! Bodies of requests that have to come in time.
//!
//! A call has its place ([`super::admission`]) until it is answered, and is answered when its body is there: without a bound a
//! caller that sends none would keep it for ever.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;

use super::status;
use crate::error::{Error, Kind};

/// A body that fails when it is not all there in time.
pub struct Timely<B> {
    body: B,
    limit: Duration,
    /// Counts from the first moment that somebody waited: most bodies are there when they are asked for.
    late: Option<Pin<Box<Sleep>>>,
}

impl<B> Timely<B> {
    /// Gives a body so much time, from when it is first waited for.
    pub fn new(body: B, limit: Duration) -> Self {
        Self { body, limit, late: None }
    }
}

impl<B> Body for Timely<B>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = this.limit;
        let late = this.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(late.as_mut().poll(context));
        Poll::Ready(Some(Err(too_late(limit).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn too_late(limit: Duration) -> Status {
    let message = format!("the request did not come whole within {limit:?}");
    status::to_status(&Error::new(Kind::DeadlineExceeded, "DEADLINE_EXCEEDED", message))
}
