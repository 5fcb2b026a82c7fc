//! TLS on the port: a certificate from files, which are read again when they change.
//!
//! ```text
//! files ─▶ load ─▶ the configuration that new connections get
//!   └── look at them every few seconds: changed and good ─▶ the next configuration; changed and bad ─▶ a warning
//! ```
//! Connections that are open keep what they began with. HTTP/2 and HTTP/1.1 are agreed on in the handshake (ALPN).

mod load;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::error::Result;

/// Where the port's certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate with its chain, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
    /// The authorities whose clients may connect, as PEM; without it clients need no certificate.
    pub client_authority: Option<PathBuf>,
}

/// The table of the configuration file that has them.
pub const TABLE: &str = "tls";

/// What the port needs to speak TLS.
pub struct Tls {
    files: Files,
    current: ArcSwap<ServerConfig>,
    /// The files as they were before they were first read.
    first: [Mark; 3],
    handshakes: Semaphore,
}

/// What tells one state of a file from another: when it changed, how long it is, and which file it is.
type Mark = Option<(i64, i64, u64, u64)>;

/// The first byte of a connection that begins with a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// What is read of a client that was refused, so that it can read why.
const REST_LIMIT: u64 = 16 * 1024;
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 41\r\n\
    connection: close\r\n\r\nThis port speaks TLS: use an https:// URL";

impl Tls {
    /// Reads the files; `handshakes` is how many may be under way at a time.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with all that is wrong with them.
    pub fn load(files: Files, handshakes: usize) -> Result<Self> {
        let first = marks(&files);
        let current = ArcSwap::from_pointee(load::load(&files)?);
        Ok(Self { files, current, first, handshakes: Semaphore::new(handshakes) })
    }

    /// Looks at the files every `interval`, and takes what they have when it changed, until `stop`.
    pub async fn follow(self: Arc<Self>, interval: Duration, stop: CancellationToken) {
        let mut seen = self.first;
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = stop.cancelled() => return,
            }
            let now = marks(&self.files);
            if now == seen {
                continue;
            }
            // Whoever writes the certificate writes the key a moment later: then the marks change once more.
            seen = now;
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || load::load(&this.files)).await {
                Ok(Ok(config)) => {
                    self.current.store(Arc::new(config));
                    tracing::info!("the port's certificate was read anew");
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the port's certificate has changed and can not be used: the last one stays");
                }
                Err(error) => tracing::error!(%error, "reading the port's certificate failed"),
            }
        }
    }

    /// Makes the handshake; `None` when there is none to be had. Takes as long as the client does: the caller limits it.
    pub(super) async fn accept(&self, mut stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let mut first = [0];
        // Who says nothing takes no place of those who do.
        if stream.peek(&mut first).await.ok()? == 0 {
            return None;
        }
        if first[0] != HANDSHAKE {
            let _ = stream.write_all(PLAIN).await;
            end(stream).await;
            return None;
        }
        let permit = self.handshakes.acquire().await.ok()?;
        let acceptor = TlsAcceptor::from(self.current.load_full());
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Some(stream),
            Err((error, stream)) => {
                drop(permit);
                tracing::debug!(%error, "a handshake failed");
                end(stream).await;
                None
            }
        }
    }
}

fn marks(files: &Files) -> [Mark; 3] {
    let Files { certificate, key, client_authority } = files;
    [mark(certificate), mark(key), client_authority.as_deref().and_then(mark)]
}

fn mark(path: &Path) -> Mark {
    let file = fs::metadata(path).ok()?;
    Some((file.mtime(), file.mtime_nsec(), file.len(), file.ino()))
}

/// Ends a connection so that its peer can read what it was told: with something unread, the system would reset it.
async fn end(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let _ = tokio::io::copy(&mut stream.take(REST_LIMIT), &mut tokio::io::sink()).await;
}
