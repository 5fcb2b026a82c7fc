//! Many small writes as one.
//!
//! h2 writes a frame of some hundred bytes by itself, and flushes it: a system call, and a way through TCP, for each message
//! of each stream.  So what a connection writes is gathered here, also across its flushes, and goes out once the connection
//! has nothing left to do at this moment, or when there is much of it:
//! ```text
//! connection.poll ─ write, flush, write, flush ─▶ Gathered ─┐
//! drive: connection.poll, then ─────────────────────────────┴─ one write ─▶ socket, or TLS
//! ```
//! A peer that does not read is felt as before: when the socket takes no more, and this is full, writes wait.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// From how many bytes on it is written out at once.
const FULL: usize = 32 * 1024;

/// A stream whose writes are gathered: one half for the connection, one for who drives it.
pub fn gather<S>(stream: S) -> (Gathered<S>, Driver<S>) {
    let shared = Arc::new(Mutex::new(Shared { stream, gathered: Vec::new(), written: 0, unflushed: false }));
    (Gathered(Arc::clone(&shared)), Driver { shared, ended: false })
}

/// What the connection reads from and writes to.
pub struct Gathered<S>(Arc<Mutex<Shared<S>>>);

/// Polls the connection, and writes out what it has written.
pub struct Driver<S> {
    shared: Arc<Mutex<Shared<S>>>,
    ended: bool,
}

struct Shared<S> {
    stream: S,
    gathered: Vec<u8>,
    /// How much of it the stream has taken.
    written: usize,
    /// Whether the stream has taken bytes that it may still hold: TLS does when the socket is full.
    unflushed: bool,
}

impl<S: AsyncWrite + Unpin> Shared<S> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            let left = &self.gathered[self.written..];
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, left))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.unflushed = true;
        }
        // An idle connection keeps no memory for what it may write one day.
        (self.gathered, self.written) = (Vec::new(), 0);
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Makes room for more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.len() < FULL { Poll::Ready(Ok(())) } else { self.poll_write_out(cx) }
    }
}

fn lock<S>(shared: &Mutex<Shared<S>>) -> MutexGuard<'_, Shared<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncWrite + Unpin> Driver<S> {
    /// Polls the connection and writes out; ready when the connection has ended and all of it is written, or when nothing
    /// more can be.
    pub fn poll<C: Future>(&mut self, connection: Pin<&mut C>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ended {
            self.ended = connection.poll(cx).is_ready();
        }
        match lock(&self.shared).poll_write_out(cx) {
            Poll::Ready(Ok(())) if !self.ended => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(from)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = lock(&self.0);
        ready!(shared.poll_room(cx))?;
        // All of it would be more than is meant to be here, when the writer has much at once.
        let mut room = (2 * FULL).saturating_sub(shared.gathered.len());
        let mut count = 0;
        for part in from {
            let taken = part.len().min(room);
            shared.gathered.extend_from_slice(&part[..taken]);
            (room, count) = (room - taken, count + taken);
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Without effect: the driver flushes when the connection has nothing left to do.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        ready!(shared.poll_write_out(cx))?;
        Pin::new(&mut shared.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Counts the writes that reach it.
    struct Counted<S>(S, Arc<AtomicUsize>);

    impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            from: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.0).poll_write(cx, from)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    /// What arrives of these writes, each flushed, through a pipe of this size; and in how many writes.
    async fn through(writes: &[Vec<u8>], pipe: usize) -> (Vec<u8>, usize) {
        let count = Arc::new(AtomicUsize::new(0));
        let (near, mut far) = duplex(pipe);
        let (mut gathered, mut driver) = gather(Counted(near, Arc::clone(&count)));
        let connection = async move {
            for write in writes {
                gathered.write_all(write).await.unwrap();
                gathered.flush().await.unwrap();
            }
        };
        let mut connection = pin!(connection);
        let mut arrived = Vec::new();
        let drive = async {
            poll_fn(|cx| driver.poll(connection.as_mut(), cx)).await;
            drop(driver);
        };
        let read = async { far.read_to_end(&mut arrived).await.unwrap() };
        // The pipe ends when both halves are gone.
        tokio::join!(drive, read);
        (arrived, count.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn many_small_writes_are_one() {
        let writes = vec![vec![7; 300]; 50];
        let (arrived, count) = through(&writes, 1 << 20).await;
        assert_eq!((arrived, count), (writes.concat(), 1));
    }

    /// Takes everything at once, and sends it on when it is flushed, as TLS does.
    struct Holding<S>(S, Vec<u8>);

    impl<S: AsyncWrite + Unpin> AsyncWrite for Holding<S> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            from: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1.extend_from_slice(from);
            Poll::Ready(Ok(from.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let Self(stream, held) = self.get_mut();
            while !held.is_empty() {
                let count = ready!(Pin::new(&mut *stream).poll_write(cx, held))?;
                held.drain(..count);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn what_the_stream_holds_back_goes_out_when_the_reader_has_room() {
        let (near, mut far) = duplex(16);
        let (mut gathered, mut driver) = gather(Holding(near, Vec::new()));
        let connection = async move {
            gathered.write_all(&[7; 1_000]).await.unwrap();
            std::future::pending::<()>().await;
        };
        let mut connection = pin!(connection);
        let mut arrived = [0; 1_000];
        tokio::select! {
            () = poll_fn(|cx| driver.poll(connection.as_mut(), cx)) => panic!("it has not ended"),
            read = far.read_exact(&mut arrived) => assert_eq!(read.unwrap(), 1_000),
        }
        assert_eq!(arrived, [7; 1_000]);
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_ends_the_connection() {
        let (near, far) = duplex(16);
        drop(far);
        let (mut gathered, mut driver) = gather(near);
        let connection = async move {
            gathered.write_all(b"words").await.unwrap();
            std::future::pending::<()>().await;
        };
        let mut connection = pin!(connection);
        poll_fn(|cx| driver.poll(connection.as_mut(), cx)).await;
    }

    #[tokio::test]
    async fn what_waits_for_a_reader_is_bounded() {
        let (near, _far) = duplex(16);
        let (mut gathered, mut driver) = gather(near);
        let shared = Arc::clone(&driver.shared);
        let connection = async move {
            loop {
                gathered.write_all(&[7; 1_000]).await.unwrap();
            }
        };
        let mut connection = pin!(connection);
        for _ in 0..10 {
            let polled = poll_fn(|cx| Poll::Ready(driver.poll(connection.as_mut(), cx))).await;
            assert!(polled.is_pending());
        }
        let held = lock(&shared).gathered.len();
        assert!((FULL..=2 * FULL).contains(&held), "{held}");
    }

    proptest! {
        #[test]
        fn all_of_it_arrives_in_order(
            writes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5_000), 0..40),
            pipe in 1_usize..100_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (arrived, _) = runtime.block_on(through(&writes, pipe));
            prop_assert_eq!(arrived, writes.concat());
        }
    }
}
