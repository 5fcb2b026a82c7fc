//! What can go wrong with a server, as against with a message.

use std::fmt;
use std::io;

use super::reply::Reply;

/// Where it went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The name becomes addresses.
    Resolve,
    /// A connection is made.
    Connect,
    /// The server greets.
    Greeting,
    /// It says what it can do.
    Ehlo,
    /// The upgrade to TLS is asked for.
    StartTls,
    /// TLS is negotiated.
    Tls,
    /// The login.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The content and the dot behind it.
    Content,
}

/// What went wrong with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsProblem {
    /// The server speaks, but not TLS.
    NotTls,
    /// Nobody who is trusted vouches for the certificate.
    Untrusted,
    /// The certificate is for another name.
    WrongName,
    /// The certificate's time is over, or has not come.
    Expired,
    /// Anything else.
    Other,
}

/// What went wrong.
#[derive(Debug, Clone)]
pub enum Cause {
    /// The link failed.
    Io(io::ErrorKind, String),
    /// The step's time passed.
    Timeout,
    /// The server closed the connection.
    Closed,
    /// The server said no.
    Reply(Reply),
    /// The server does not keep to the protocol.
    Protocol(String),
    /// The server does not have what the settings ask for.
    Missing(String),
    /// The settings can not be used.
    Settings(String),
    /// TLS failed.
    Tls(TlsProblem, String),
    /// There is no access token.
    Token {
        /// Whether the token endpoint refused for good.
        refused: bool,
        /// What it said.
        words: String,
    },
}

/// A server's fault.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Where it went wrong.
    pub stage: Stage,
    /// What went wrong.
    pub cause: Cause,
}

impl Fault {
    /// A fault.
    pub fn new(stage: Stage, cause: Cause) -> Self {
        Self { stage, cause }
    }

    /// The reply, if it came to one.
    pub fn reply(&self) -> Option<&Reply> {
        match &self.cause {
            Cause::Reply(reply) => Some(reply),
            _ => None,
        }
    }

    /// Whether somebody has to change the login before any mail can go.
    pub fn is_login(&self) -> bool {
        match &self.cause {
            Cause::Reply(reply) => (self.stage == Stage::Auth && reply.code >= 500) || is_login(reply),
            Cause::Token { refused, .. } => *refused,
            Cause::Missing(_) | Cause::Settings(_) => self.stage == Stage::Auth,
            _ => false,
        }
    }
}

/// Whether a reply says that the login is missing, or not good enough (RFC 4954, section 6).
pub fn is_login(reply: &Reply) -> bool {
    matches!(reply.code, 530 | 534 | 535 | 538) || (reply.code >= 500 && reply.is_about(7, &[8, 9]))
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "the name",
            Self::Connect => "the connection",
            Self::Greeting => "the greeting",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Tls => "TLS",
            Self::Auth => "the login",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Content => "the content",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = self.stage;
        match &self.cause {
            Cause::Io(io::ErrorKind::ConnectionRefused, _) => f.write_str("the connection was refused"),
            Cause::Io(_, words) => write!(f, "{stage}: {words}"),
            Cause::Timeout => write!(f, "{stage}: no answer in time"),
            Cause::Closed => write!(f, "{stage}: the server closed the connection"),
            Cause::Reply(reply) => write!(f, "{reply} (to {stage})"),
            Cause::Protocol(words) | Cause::Missing(words) | Cause::Settings(words) => {
                write!(f, "{stage}: {words}")
            }
            Cause::Tls(_, words) => write!(f, "TLS: {words}"),
            Cause::Token { words, .. } => write!(f, "no access token: {words}"),
        }
    }
}
