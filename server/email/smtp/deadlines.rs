//! How long each step may take.
//!
//! RFC 5321, section 4.5.3.2, asks for minutes, because it has relays between strangers in mind.  A server that mail is
//! handed over to answers within seconds, or it is better to try another.

use std::time::Duration;

use crate::clock::Stopwatch;

/// How long each step may take, and how long connections live.
///
/// A step's time is for all of it: a server that sends a byte a second gains nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadlines {
    /// Until the name is resolved and a connection is made: 15 s.
    pub connect: Duration,
    /// Until the server has greeted: 15 s (RFC 5321 has 5 minutes).
    pub greeting: Duration,
    /// Until the connection is protected: 15 s.
    pub tls: Duration,
    /// Until a group of commands is answered, all of it: 30 s (RFC 5321 has 5 minutes).
    pub commands: Duration,
    /// Until the content is written, for a small one: 60 s.  A larger one gets a second more for each 50 KiB.
    pub content: Duration,
    /// Until the server has answered the dot: 60 s (RFC 5321 has 10 minutes).
    pub dot: Duration,
    /// For a message on a connection, from its envelope to the answer: 10 minutes.
    pub message: Duration,
    /// Until a connection takes a message that waits for one: 5 minutes.
    pub queue: Duration,
    /// Until an access token is there: 15 s.
    pub token: Duration,
    /// Until QUIT is answered: 2 s.  Nothing depends on it.
    pub quit: Duration,
    /// After how long without work a connection is closed: 20 s.
    pub idle: Duration,
    /// The greatest age of a connection: 5 minutes.
    pub age: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(15),
            greeting: seconds(15),
            tls: seconds(15),
            commands: seconds(30),
            content: seconds(60),
            dot: seconds(60),
            message: seconds(600),
            queue: seconds(300),
            token: seconds(15),
            quit: seconds(2),
            idle: seconds(20),
            age: seconds(300),
        }
    }
}

impl Deadlines {
    /// The time for a content of so many bytes.
    pub(super) fn content_of(&self, length: usize) -> Duration {
        const BYTES_A_SECOND: u64 = 50 * 1024;
        self.content + Duration::from_secs(length as u64 / BYTES_A_SECOND)
    }
}

/// A time that has begun to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    since: Stopwatch,
    length: Duration,
}

impl Deadline {
    /// Begins now.
    pub(super) fn after(length: Duration) -> Self {
        Self { since: Stopwatch::start(), length }
    }

    /// Begins now, and ends no later than another.
    pub(super) fn within(length: Duration, other: Deadline) -> Self {
        Self::after(length.min(other.remaining()))
    }

    /// What is left of it; zero when it has passed.
    pub(super) fn remaining(&self) -> Duration {
        self.length.saturating_sub(self.since.elapsed())
    }
}
