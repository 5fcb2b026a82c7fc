//! The first bytes of a connection: read to tell HTTP/1.1 from HTTP/2, and given back.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What an HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Waits until the first bytes tell HTTP/1.1 from HTTP/2; `None` when the peer goes away before.
pub(super) async fn read<S: AsyncRead + Unpin>(mut stream: S) -> Option<Begun<S>> {
    let mut head = [0; PREFACE.len()];
    let mut count = 0;
    while count < PREFACE.len() && head[..count] == PREFACE[..count] {
        match stream.read(&mut head[count..]).await {
            Ok(0) | Err(_) => return None,
            Ok(more) => count += more,
        }
    }
    Some(Begun { head: Bytes::copy_from_slice(&head[..count]), stream })
}

/// A connection of which the first bytes have been read, and come again.
pub(super) struct Begun<S> {
    head: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let count = self.head.len().min(into.remaining());
        into.put_slice(&self.head[..count]);
        self.head.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, duplex};

    /// What is read of a connection on which these come one after the other.
    async fn read_of(parts: &[&[u8]]) -> Option<Vec<u8>> {
        let (mut client, server) = duplex(64);
        let reading = tokio::spawn(read(server));
        for part in parts {
            client.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        let begun = reading.await.unwrap();
        drop(client);
        let mut all = Vec::new();
        begun?.read_to_end(&mut all).await.unwrap();
        Some(all)
    }

    #[tokio::test]
    async fn everything_that_was_said_is_read() {
        for parts in
            [&[&b"G"[..]][..], &[b"PRI", b"NT / HTTP/1.1"], &[b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\n"]]
        {
            assert_eq!(read_of(parts).await, Some(parts.concat()));
        }
    }

    #[tokio::test]
    async fn half_a_preface_is_no_beginning() {
        let (mut client, server) = duplex(64);
        client.write_all(b"PRI * HT").await.unwrap();
        drop(client);
        assert!(read(server).await.is_none());
    }
}
