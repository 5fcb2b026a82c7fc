//! What carries a message to an SMTP server, and what comes back.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// A message that is ready for the wire.
#[derive(Debug, Clone)]
pub struct Message {
    /// The envelope's sender: an address without a name.
    pub from: String,
    /// The envelope's recipients: addresses without names, at least one.
    pub to: Vec<String>,
    /// Headers and body, every line ended by CRLF and the last one too.  Dots are doubled on the way.
    pub content: Bytes,
    /// Whether somebody waits for it: such messages go first, and a part of the connections is kept for them.
    pub urgent: bool,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What became of it for each recipient, in the order of the envelope.
    pub recipients: Vec<Verdict>,
    /// What was said for the message as a whole: the reply that decided, or why there was none.
    pub summary: String,
    /// The reply's code, if it came to a reply.
    pub code: Option<u16>,
    /// What was said between client and server, secrets left out; for a message that was not accepted for everybody.
    pub transcript: Option<String>,
}

/// What became of a message for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The server has taken it.
    Accepted,
    /// Not this time: it may be tried again.
    Deferred {
        /// The server's reply, or what went wrong.
        reply: String,
        /// When it asked to be tried again, or is known to want to be.
        after: Option<Duration>,
    },
    /// Never: trying again is of no use.
    Refused {
        /// The server's reply.
        reply: String,
        /// The reply's code.
        code: u16,
        /// Whether the address itself is bad, and nothing will ever reach it.
        bad_address: bool,
    },
    /// The server has all of it, and the link dropped before it said whether it takes it.
    Unknown {
        /// What went wrong.
        error: String,
    },
    /// Nothing was tried: nobody can take it now.
    Held {
        /// Why, in words that say what to do.
        why: String,
        /// When to look again.
        retry_in: Duration,
    },
}

/// Why mail waits, as a transport sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What it is, in words that say what to do.
    pub why: String,
    /// When it is looked at again.
    pub retry_in: Duration,
}

/// Carries messages.
pub trait Transport: Send + Sync + 'static {
    /// Hands one message over.  It ends by itself, within the deadlines of its steps.
    fn send(&self, message: Message) -> BoxFuture<'_, Report>;

    /// What keeps mail waiting now: empty when any provider would be tried.
    fn holds(&self) -> Vec<Hold>;
}
