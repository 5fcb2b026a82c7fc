//! What the server says about itself: logs for people, metrics for Prometheus.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What is logged unless somebody says otherwise.  The TLS library warns of whatever a stranger sends to the port, in the
/// stranger's words.
const LOGGED: &str = "info,rustls=off";

/// Starts logging to standard error, by `SWITCHBOARD_LOG` (as `info` or `switchboard=debug`), as text or JSON.
pub fn start_logging(json: bool) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("SWITCHBOARD_LOG").unwrap_or_else(|_| EnvFilter::new(LOGGED));
    // Colour is made of the characters that are taken out.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(|| Lines(io::stderr()));
    // A second start in one process, as in tests, keeps the first.
    let _ = if json { subscriber.json().try_init() } else { subscriber.try_init() };
}

/// Writes each event as one line, and nothing in it that would do something on a terminal: what is logged of a request, or
/// of what another server said, is in the words of a stranger.
struct Lines<W>(W);

impl<W: io::Write> io::Write for Lines<W> {
    /// Takes an event, which comes as a whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
        let line = printable(text, |c| c == '\t');
        self.0.write_all(&[line.as_bytes(), end.as_bytes()].concat())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Text with every character written out (as `\u001b`) that would do something where it is shown, but for those to keep:
/// control characters, with those of 8 bits, ends of lines, and what turns the direction of writing.  In JSON it stays the same.
pub fn printable(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let acts = |c: char| {
        (c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')) && !keep(c)
    };
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            // Writing to memory does not fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    channel: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabels {
    channel: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// The server's counters.
pub struct Metrics {
    registry: Registry,
    attempts: Family<AttemptLabels, Counter>,
    attempt_seconds: Family<ChannelLabels, Histogram>,
    in_hand: Family<ChannelLabels, Gauge>,
    requests: Family<CodeLabels, Counter>,
    subscribers: Gauge,
    live_closed: Family<ReasonLabels, Counter>,
    live_resyncs: Family<ReasonLabels, Counter>,
    open_breakers: Gauge,
    connections: Gauge,
    database_usable: Gauge,
    runtime_tasks: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("switchboard");
        let attempts = Family::<AttemptLabels, Counter>::default();
        registry.register("delivery_attempts", "Attempts by channel and result", attempts.clone());
        let attempt_seconds = Family::<ChannelLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.001, 2.0, 16))
        });
        registry.register("delivery_attempt_seconds", "How long attempts take", attempt_seconds.clone());
        let in_hand = Family::<ChannelLabels, Gauge>::default();
        registry.register("deliveries_in_hand", "Deliveries in this node's hands", in_hand.clone());
        let requests = Family::<CodeLabels, Counter>::default();
        registry.register("rpc_requests", "Requests by method and code", requests.clone());
        let subscribers = Gauge::default();
        registry.register("live_subscribers", "Open live streams", subscribers.clone());
        let live_closed = Family::<ReasonLabels, Counter>::default();
        registry.register(
            "live_closed",
            "Live streams that the server ended, by reason",
            live_closed.clone(),
        );
        let live_resyncs = Family::<ReasonLabels, Counter>::default();
        registry.register("live_resyncs", "Gaps that subscribers were told of", live_resyncs.clone());
        let open_breakers = Gauge::default();
        registry.register("webhook_open_breakers", "Endpoints that are only probed", open_breakers.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        let database_usable = Gauge::default();
        registry.register("database_usable", "Whether the database takes writes", database_usable.clone());
        let runtime_tasks = Gauge::default();
        registry.register("runtime_tasks", "Tasks that have not ended", runtime_tasks.clone());
        Self {
            registry,
            attempts,
            attempt_seconds,
            in_hand,
            requests,
            subscribers,
            live_closed,
            live_resyncs,
            open_breakers,
            connections,
            database_usable,
            runtime_tasks,
        }
    }
}

impl Metrics {
    /// Counts an attempt.
    pub fn attempt(&self, channel: &'static str, result: &'static str, duration: Duration) {
        self.attempts.get_or_create(&AttemptLabels { channel, result }).inc();
        self.attempt_seconds.get_or_create(&ChannelLabels { channel }).observe(duration.as_secs_f64());
    }

    /// How many attempts ended so.
    pub fn attempts(&self, channel: &'static str, result: &'static str) -> u64 {
        self.attempts.get(&AttemptLabels { channel, result }).map_or(0, |count| count.get())
    }

    /// Counts an answered request.
    pub fn request(&self, method: &'static str, code: &'static str) {
        self.requests.get_or_create(&CodeLabels { method, code }).inc();
    }

    /// The counter of answers of a method with a code, for whoever counts many of them.
    pub fn requests(&self, method: &'static str, code: &'static str) -> Counter {
        self.requests.get_or_create_owned(&CodeLabels { method, code })
    }

    /// Says how many deliveries a channel has in hand.
    pub fn set_in_hand(&self, channel: &'static str, count: usize) {
        self.in_hand.get_or_create(&ChannelLabels { channel }).set(count as i64);
    }

    /// Says how many live streams are open.
    pub fn set_subscribers(&self, count: usize) {
        self.subscribers.set(count as i64);
    }

    /// Counts a live stream that the server ended.
    pub fn live_closed(&self, reason: &'static str) {
        self.live_closed.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a gap that a subscriber was told of.
    pub fn live_resync(&self, reason: &'static str) {
        self.live_resyncs.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Says how many endpoints are only probed.
    pub fn set_open_breakers(&self, count: usize) {
        self.open_breakers.set(count as i64);
    }

    /// The gauge of open connections.
    pub fn connections(&self) -> &Gauge {
        &self.connections
    }

    /// Says whether the database does its work.
    pub fn set_database_usable(&self, usable: bool) {
        self.database_usable.set(i64::from(usable));
    }

    /// All of it in the OpenMetrics text form.
    pub fn encode(&self) -> String {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.runtime_tasks.set(runtime.metrics().num_alive_tasks() as i64);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to memory");
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, part: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(part);
            Ok(part.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Lines<Self>;

        fn make_writer(&'a self) -> Self::Writer {
            Lines(self.clone())
        }
    }

    const ALL: &str =
        "a\r\n2026-01-01 ERROR forged\u{1b}[2J\u{1b}]0;t\u{7}\u{8}\u{9b}31m\u{85}\u{2028}\u{202e}\u{0}é\tz";

    #[test]
    fn what_a_stranger_wrote_is_one_line_of_a_log_and_does_nothing_there() {
        for json in [false, true] {
            let kept = Kept::default();
            let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(kept.clone());
            let log = || {
                tracing::warn!(text = %ALL, quoted = ?ALL, error = %Error(ALL), "{ALL}");
                tracing::warn!("the next");
            };
            if json {
                tracing::subscriber::with_default(subscriber.json().finish(), log);
            } else {
                tracing::subscriber::with_default(subscriber.finish(), log);
            }
            let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')), "{text:?}");
            assert!(!text.contains(['\u{2028}', '\u{202e}']) && text.contains('é'), "{text:?}");
            if json {
                let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
                assert_eq!(line["fields"]["text"], ALL, "a program reads what was written");
            }
        }
    }

    #[derive(Debug)]
    struct Error(&'static str);

    impl std::fmt::Display for Error {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Error {}

    #[test]
    fn text_without_such_characters_stays_as_it_is() {
        assert!(matches!(printable("ä 漢 🦀 \\u001b", |_| false), Cow::Borrowed(_)));
        assert_eq!(printable("a\tb\nc", |c| c == '\t'), "a\tb\\u000ac");
    }
}
