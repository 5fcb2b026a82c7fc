//! The ceiling of live streams: a server that does nothing but write the same messages again and again, to as many HTTP/2
//! streams, read by the same subscribers.
//!
//! It is a process of its own, as the server is, so that what it spends can be counted. It has the server's HTTP/2 library
//! with the server's settings and as many threads, gathers its writes as the server does, and has none of a stream's work: no
//! log, no filter, no cursor.

use std::future::poll_fn;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::pin::{Pin, pin};
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use switchboard::rpc::gather::gather;
use tokio::net::TcpListener;

use super::message::PREFIX;
use crate::error::{Context, Result};

/// The argument by which this program becomes the bare server.
pub const ARGUMENT: &str = "--bare-streams";
/// As the measured server has them.
const SEND_BUFFER: usize = 64 * 1024;
const STREAMS: u32 = 1_000;

/// The bare server as a child of this program.
pub struct Bare {
    child: std::process::Child,
    /// Where it listens.
    pub address: String,
}

impl Bare {
    /// Starts one that repeats these messages.
    pub fn start(folder: &Path, messages: &[Bytes]) -> Result<Self> {
        std::fs::create_dir_all(folder).context("a folder")?;
        let file = folder.join("messages");
        std::fs::write(&file, messages.concat()).context("the messages")?;
        let program = std::env::current_exe().context("the path of this program")?;
        let mut child = std::process::Command::new(program)
            .arg(ARGUMENT)
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the bare server")?;
        let output = child.stdout.take().ok_or("the bare server's output can not be read")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address).context("the bare server")?;
        std::fs::remove_dir_all(folder).context("a folder")?;
        Ok(Self { child, address: address.trim().to_owned() })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves the messages in this file until the input ends.
pub fn serve(file: &Path) -> Result<()> {
    let mut rest = Bytes::from(std::fs::read(file).context("the messages")?);
    let mut messages = Vec::new();
    while rest.len() >= PREFIX {
        let length = u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize;
        messages.push(rest.split_to(PREFIX + length));
    }
    // It ends with whoever started it, however that ends.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime")?;
    runtime.block_on(accept(messages.into()))
}

async fn accept(messages: Arc<[Bytes]>) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a port")?;
    let address = listener.local_addr().context("a port")?;
    writeln!(std::io::stdout(), "{address}").context("the output")?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(STREAMS).max_send_buf_size(SEND_BUFFER);
    loop {
        let (socket, _) = listener.accept().await.context("a connection")?;
        socket.set_nodelay(true).context("a connection")?;
        let messages = Arc::clone(&messages);
        let service = service_fn(move |_: Request<Incoming>| {
            let body = Endless { messages: Arc::clone(&messages), next: 0 };
            let response = Response::builder().header("content-type", "application/grpc").body(body);
            async { response }
        });
        // Without it, both would measure little but a system call for each message.
        let (socket, mut driver) = gather(socket);
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            poll_fn(|cx| driver.poll(connection.as_mut(), cx)).await;
        });
    }
}

/// The messages in turn, as fast as they are taken.
struct Endless {
    messages: Arc<[Bytes]>,
    next: usize,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Self::Error>>> {
        let message = self.messages.get(self.next).cloned();
        self.next = (self.next + 1) % self.messages.len().max(1);
        Poll::Ready(message.map(|message| Ok(Frame::data(message))))
    }
}
