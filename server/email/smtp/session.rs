//! The way from a name to a session that takes mail: resolve, connect, TLS, greeting, EHLO, login.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::auth::{self, Mechanism};
use super::deadlines::{Deadline, Deadlines};
use super::ehlo::Extensions;
use super::fault::{Cause, Fault, Stage};
use super::oauth::Tokens;
use super::reply::Reply;
use super::stream::{self, Stream};
use super::tls;
use super::transcript::Transcript;
use crate::clock::{SharedClock, Stopwatch};
use crate::email::config::{Smtp, TlsMode};

/// A server, with what its connections share.
pub(super) struct Target {
    /// The settings.
    pub smtp: Smtp,
    /// How long each step may take.
    pub deadlines: Deadlines,
    /// Where access tokens come from.
    pub tokens: Option<Tokens>,
    tls: OnceLock<Result<Arc<ClientConfig>, Cause>>,
}

impl Target {
    /// A server with these settings.
    pub(super) fn new(smtp: Smtp, deadlines: Deadlines, clock: SharedClock) -> Self {
        let tokens = smtp.oauth.clone().map(|source| Tokens::new(source, clock, deadlines.token));
        Self { smtp, deadlines, tokens, tls: OnceLock::new() }
    }

    /// Its host and port.
    pub(super) fn name(&self) -> String {
        let Smtp { host, port, .. } = &self.smtp;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, Cause> {
        self.tls.get_or_init(|| tls::config(&self.smtp.ca)).clone()
    }
}

/// A link that commands go over, one at a time.
pub(super) struct Talk {
    /// The link.
    pub stream: Stream,
    /// What was said.
    pub transcript: Transcript,
}

impl Talk {
    /// Sends a line and waits for the answer; `shown` stands for it in the transcript.
    pub(super) async fn ask(
        &mut self,
        line: &[u8],
        shown: &[u8],
        deadline: Duration,
    ) -> Result<Reply, Cause> {
        let deadline = Deadline::after(deadline);
        self.transcript.client(shown);
        self.stream.write(line, b"", deadline).await?;
        self.hear(deadline).await
    }

    async fn hear(&mut self, deadline: Deadline) -> Result<Reply, Cause> {
        let answer = self.stream.reply(deadline).await?;
        self.transcript.server(self.stream.bytes(answer));
        Ok(self.stream.read(answer))
    }

    /// Asks what the server can do; one that only knows HELO can nothing.
    async fn introduce(&mut self, name: &str, deadline: Duration) -> Result<(Reply, Extensions), Cause> {
        let deadline = Deadline::after(deadline);
        for verb in ["EHLO", "HELO"] {
            let line = format!("{verb} {name}\r\n");
            self.transcript.client(line.as_bytes());
            self.stream.write(line.as_bytes(), b"", deadline).await?;
            let answer = self.stream.reply(deadline).await?;
            self.transcript.server(self.stream.bytes(answer));
            let reply = self.stream.read(answer);
            if reply.is_positive() {
                let extensions = Extensions::read(self.stream.bytes(answer));
                return Ok((reply, if verb == "EHLO" { extensions } else { Extensions::default() }));
            }
            if verb == "HELO" || !matches!(reply.code, 500 | 501 | 502 | 504 | 550) {
                return Err(Cause::Reply(reply));
            }
        }
        Err(Cause::Closed)
    }
}

/// A session that takes mail.
pub(super) struct Session {
    /// The link.
    pub talk: Talk,
    /// What the server can do.
    pub extensions: Extensions,
}

/// How far it came, for those who are told.
pub(super) struct Progress {
    /// The step that is being made.
    pub stage: Stage,
    /// The steps that were made, and how long each took.
    pub times: Vec<(Stage, Duration)>,
    /// What was said, if it failed.
    pub transcript: Transcript,
    /// The addresses of the name.
    pub addresses: Vec<SocketAddr>,
    /// How the server greeted.
    pub greeting: Option<Reply>,
    /// The version of TLS.
    pub tls: Option<String>,
    /// How the login was made.
    pub mechanism: Option<Mechanism>,
    watch: Stopwatch,
}

impl Progress {
    /// At the beginning.
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Resolve,
            times: Vec::new(),
            transcript: Transcript::default(),
            addresses: Vec::new(),
            greeting: None,
            tls: None,
            mechanism: None,
            watch: Stopwatch::start(),
        }
    }

    /// How long the step has taken so far.
    pub(super) fn elapsed(&self) -> Duration {
        self.watch.elapsed()
    }

    /// The step is over, and the next begins.
    pub(super) fn enter(&mut self, stage: Stage) {
        self.end();
        self.stage = stage;
    }

    /// The step is over.
    pub(super) fn end(&mut self) {
        self.times.push((self.stage, self.watch.elapsed()));
        self.watch = Stopwatch::start();
    }
}

/// Opens a session.
///
/// # Errors
/// What went wrong; `progress` has the stage and what was said until then.
pub(super) async fn open(target: &Target, progress: &mut Progress) -> Result<Session, Fault> {
    let opened = connect(target, progress).await;
    let mut talk = match opened {
        Ok(stream) => Talk { stream, transcript: std::mem::take(&mut progress.transcript) },
        Err(cause) => return Err(Fault::new(progress.stage, cause)),
    };
    match prepare(target, &mut talk, progress).await {
        Ok(extensions) => {
            progress.end();
            Ok(Session { talk, extensions })
        }
        Err(cause) => {
            progress.transcript = talk.transcript;
            Err(Fault::new(progress.stage, cause))
        }
    }
}

async fn connect(target: &Target, progress: &mut Progress) -> Result<Stream, Cause> {
    let Target { smtp, deadlines, .. } = target;
    let deadline = Deadline::after(deadlines.connect);
    let looking = tokio::net::lookup_host((smtp.host.as_str(), smtp.port));
    let found = timeout(deadline.remaining(), looking).await.map_err(|_| Cause::Timeout)?;
    progress.addresses = found.map_err(|error| Cause::Io(error.kind(), error.to_string()))?.collect();
    let mut stream = {
        progress.enter(Stage::Connect);
        let addresses = progress.addresses.clone();
        let mut last = Cause::Io(std::io::ErrorKind::NotFound, "the name has no address".into());
        let mut connected = None;
        for (at, address) in addresses.iter().enumerate() {
            // One address that swallows everything leaves time for the others.
            let share = deadline.remaining() / u32::try_from(addresses.len() - at).unwrap_or(1);
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => {
                    connected = Some(tcp);
                    progress.transcript.note(&format!("connected to {address}"));
                    break;
                }
                Ok(Err(error)) => {
                    progress.transcript.note(&format!("{address}: {error}"));
                    last = stream::broken(&error);
                }
                Err(_) => {
                    progress.transcript.note(&format!("{address}: no connection in time"));
                    last = Cause::Timeout;
                }
            }
        }
        Stream::new(connected.ok_or(last)?)?
    };
    if smtp.tls == TlsMode::Implicit {
        protect(target, &mut stream, progress).await?;
    }
    Ok(stream)
}

async fn protect(target: &Target, stream: &mut Stream, progress: &mut Progress) -> Result<(), Cause> {
    progress.enter(Stage::Tls);
    let name = tls::server_name(&target.smtp.host)?;
    stream.protect(target.tls()?, name, Deadline::after(target.deadlines.tls)).await?;
    progress.tls = stream.tls_version();
    Ok(())
}

async fn prepare(target: &Target, talk: &mut Talk, progress: &mut Progress) -> Result<Extensions, Cause> {
    let Target { smtp, deadlines, .. } = target;
    progress.enter(Stage::Greeting);
    let greeting = talk.hear(Deadline::after(deadlines.greeting)).await?;
    progress.greeting = Some(greeting.clone());
    if greeting.code != 220 {
        return Err(Cause::Reply(greeting));
    }
    progress.enter(Stage::Ehlo);
    let name = own_name(&talk.stream);
    let (_, mut extensions) = talk.introduce(&name, deadlines.commands).await?;
    if smtp.tls == TlsMode::StartTls {
        progress.enter(Stage::StartTls);
        if !extensions.starttls {
            return Err(Cause::Missing("the server does not offer it".into()));
        }
        let reply = talk.ask(b"STARTTLS\r\n", b"STARTTLS\r\n", deadlines.commands).await?;
        if reply.code != 220 {
            return Err(Cause::Reply(reply));
        }
        protect(target, &mut talk.stream, progress).await?;
        talk.transcript.note("protected from here on");
        // What was said before could have been put there by anybody (RFC 3207, section 4.2).
        extensions = talk.introduce(&name, deadlines.commands).await?.1;
    }
    if !smtp.user.is_empty() {
        progress.enter(Stage::Auth);
        progress.mechanism = Some(auth::log_in(target, talk, extensions.auth).await?);
    }
    Ok(extensions)
}

/// Our name: the address, as RFC 5321, section 4.1.3, writes it.  What the machine calls itself rarely means anything
/// to others.
fn own_name(stream: &Stream) -> String {
    match stream.local_address() {
        Ok(SocketAddr::V4(address)) => format!("[{}]", address.ip()),
        Ok(SocketAddr::V6(address)) => format!("[IPv6:{}]", address.ip()),
        Err(_) => "localhost".into(),
    }
}
