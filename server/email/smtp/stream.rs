//! The link: TCP without delay, plain or under TLS, with replies read from one buffer.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::deadlines::Deadline;
use super::fault::Cause;
use super::reply::{self, Reply};
use super::tls;

/// How much is read at once, in bytes.
const CHUNK: usize = 4096;

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Given away to be protected.
    Gone,
}

/// A link to a server.
pub(super) struct Stream {
    io: Io,
    buffer: Vec<u8>,
    start: usize,
    handed_over: usize,
}

/// A reply in the buffer; its bytes are there until the next one is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    /// Its code.
    pub code: u16,
    start: usize,
    end: usize,
}

impl Stream {
    /// Uses a connection.
    pub(super) fn new(tcp: TcpStream) -> Result<Self, Cause> {
        // A message's last segment would wait for the server's delayed acknowledgement: 40 ms each.
        tcp.set_nodelay(true).map_err(|error| broken(&error))?;
        Ok(Self { io: Io::Plain(tcp), buffer: Vec::with_capacity(CHUNK), start: 0, handed_over: 0 })
    }

    /// Our own address.
    pub(super) fn local_address(&self) -> io::Result<std::net::SocketAddr> {
        match &self.io {
            Io::Plain(tcp) => tcp.local_addr(),
            Io::Tls(tls) => tls.get_ref().0.local_addr(),
            Io::Gone => Err(gone()),
        }
    }

    /// The version of TLS, if there is any.
    pub(super) fn tls_version(&self) -> Option<String> {
        match &self.io {
            Io::Plain(_) | Io::Gone => None,
            Io::Tls(tls) => {
                tls.get_ref().1.protocol_version().map(|version| format!("{version:?}").replace('_', "."))
            }
        }
    }

    /// Protects the link.  What the server sent before is refused: it could have been put there by anybody
    /// (CVE-2011-0411), and would be taken for an answer under TLS.
    pub(super) async fn protect(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        deadline: Deadline,
    ) -> Result<(), Cause> {
        if self.start < self.buffer.len() {
            let words = "the server sent more before TLS began; somebody on the way may have put it there";
            return Err(Cause::Protocol(words.into()));
        }
        let Io::Plain(tcp) = std::mem::replace(&mut self.io, Io::Gone) else {
            return Err(Cause::Protocol("TLS has begun already".into()));
        };
        let connecting = TlsConnector::from(config).connect(name, tcp);
        match timeout(deadline.remaining(), connecting).await {
            Err(_) => Err(Cause::Timeout),
            Ok(Err(error)) => Err(tls::explain(&error)),
            Ok(Ok(tls)) => {
                self.io = Io::Tls(Box::new(tls));
                Ok(())
            }
        }
    }

    /// Writes both one behind the other, and pushes them out.
    pub(super) async fn write(
        &mut self,
        first: &[u8],
        second: &[u8],
        deadline: Deadline,
    ) -> Result<(), Cause> {
        self.handed_over = 0;
        let Self { io, handed_over, .. } = self;
        let writing = async {
            match io {
                Io::Plain(tcp) => write_both(tcp, first, second, handed_over).await,
                Io::Tls(tls) => write_both(tls, first, second, handed_over).await,
                Io::Gone => Err(gone()),
            }
        };
        match timeout(deadline.remaining(), writing).await {
            Err(_) => Err(Cause::Timeout),
            Ok(Err(error)) => Err(broken(&error)),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// How many bytes of the last write, failed or not, may have reached the server.
    pub(super) fn handed_over(&self) -> usize {
        self.handed_over
    }

    /// The next reply, all of it before the deadline.
    pub(super) async fn reply(&mut self, deadline: Deadline) -> Result<Answer, Cause> {
        if let Some(answer) = self.buffered()? {
            return Ok(answer);
        }
        let reading = async {
            loop {
                self.fill().await?;
                if let Some(answer) = self.buffered()? {
                    return Ok(answer);
                }
            }
        };
        match timeout(deadline.remaining(), reading).await {
            Err(_) => Err(Cause::Timeout),
            Ok(answer) => answer,
        }
    }

    fn buffered(&mut self) -> Result<Option<Answer>, Cause> {
        let found =
            reply::find(&self.buffer[self.start..]).map_err(|error| Cause::Protocol(error.to_string()))?;
        Ok(found.map(|found| {
            let start = self.start;
            self.start += found.length;
            Answer { code: found.code, start, end: self.start }
        }))
    }

    /// Reads what comes next.  Nothing is lost when it is given up.
    pub(super) async fn fill(&mut self) -> Result<(), Cause> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.reserve(CHUNK);
        let read = match &mut self.io {
            Io::Plain(tcp) => tcp.read_buf(&mut self.buffer).await,
            Io::Tls(tls) => tls.read_buf(&mut self.buffer).await,
            Io::Gone => Err(gone()),
        };
        match read {
            Ok(0) => Err(Cause::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(broken(&error)),
        }
    }

    /// A reply's bytes.
    pub(super) fn bytes(&self, answer: Answer) -> &[u8] {
        &self.buffer[answer.start..answer.end]
    }

    /// A reply with its text.
    pub(super) fn read(&self, answer: Answer) -> Reply {
        Reply::read(answer.code, self.bytes(answer))
    }
}

async fn write_both<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    first: &[u8],
    second: &[u8],
    handed_over: &mut usize,
) -> io::Result<()> {
    let all = first.len() + second.len();
    while *handed_over < all {
        let written = if *handed_over < first.len() {
            let parts = [io::IoSlice::new(&first[*handed_over..]), io::IoSlice::new(second)];
            io.write_vectored(&parts).await?
        } else {
            io.write(&second[*handed_over - first.len()..]).await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        *handed_over += written;
    }
    io.flush().await
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// What an error of the link means.
pub(super) fn broken(error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => Cause::Closed,
        kind => Cause::Io(kind, error.to_string()),
    }
}
