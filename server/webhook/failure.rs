//! Why there is no answer.

use std::error::Error as StdError;
use std::time::Duration;
use std::{fmt, io};

use hyper_util::client::legacy::Error as RequestError;

use super::guard::{Refused, Unreachable, Unresolved};
use super::trust::explain::explain;

/// Why there is no answer, each with a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The destination is not allowed.
    Refused(String),
    /// The name has no address now.
    Resolve(String),
    /// There was no connection, or it broke.
    Connection(String),
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls(String),
    /// A deadline passed.
    Timeout(String),
    /// What came is not the HTTP that was asked for, or more of it than is taken.
    Protocol(String),
}

impl Failure {
    /// The one word for it, for logs and figures.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Resolve(_) => "resolve",
            Self::Connection(_) => "connection",
            Self::Tls(_) => "tls",
            Self::Timeout(_) => "timeout",
            Self::Protocol(_) => "protocol",
        }
    }

    /// The text.
    pub fn text(&self) -> &str {
        match self {
            Self::Refused(text)
            | Self::Resolve(text)
            | Self::Connection(text)
            | Self::Tls(text)
            | Self::Timeout(text)
            | Self::Protocol(text) => text,
        }
    }

    /// The deadline over all of a request passed.
    pub(super) fn late(deadline: Duration) -> Self {
        let seconds = deadline.as_secs_f64();
        Self::Timeout(format!("no complete answer within {seconds} seconds"))
    }

    /// There was no head of an answer; `tls` is why the connection broke, if TLS is why.
    pub(super) fn of_request(error: &RequestError, tls: Option<String>) -> Self {
        if let Some(refused) = find::<Refused>(error) {
            return Self::Refused(refused.to_string());
        }
        if let Some(unresolved) = find::<Unresolved>(error) {
            return Self::Resolve(unresolved.to_string());
        }
        if let Some(text) = explain(error).or(tls) {
            return Self::Tls(text);
        }
        let text = chain(error);
        if !error.is_connect() {
            return Self::of_exchange(error, text);
        }
        match find::<Unreachable>(error) {
            Some(_) if timed_out(error) => Self::Timeout(text),
            Some(_) => Self::Connection(text),
            // What is left of connecting is the handshake.
            None => Self::Tls(text),
        }
    }

    /// The body broke off.
    pub(super) fn of_body(error: &hyper::Error) -> Self {
        explain(error).map_or_else(|| Self::of_exchange(error, chain(error)), Self::Tls)
    }

    fn of_exchange(error: &(dyn StdError + 'static), text: String) -> Self {
        match find::<hyper::Error>(error) {
            _ if timed_out(error) => Self::Timeout(text),
            Some(cause) if cause.is_timeout() => Self::Timeout(text),
            Some(cause) if cause.is_parse() => Self::Protocol(text),
            // The body's own framing, which is not a part of the head.
            _ if find::<io::Error>(error).is_some_and(|cause| {
                matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
            }) =>
            {
                Self::Protocol(text)
            }
            Some(cause) if cause.is_incomplete_message() || cause.is_closed() || cause.is_canceled() => {
                Self::Connection(text)
            }
            _ if find::<io::Error>(error).is_some() => Self::Connection(text),
            _ => Self::Protocol(text),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl StdError for Failure {}

/// The first error of this type among an error and its causes.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref::<E>())
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

fn timed_out(error: &(dyn StdError + 'static)) -> bool {
    find::<io::Error>(error).is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut)
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error).skip(1) {
        let more = cause.to_string();
        // Many errors repeat what lies behind them.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
    }
    text
}
