//! What the server says about itself: logs for people, metrics for Prometheus.

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
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process, as in tests, keeps the first.
    let _ = if json { subscriber.json().try_init() } else { subscriber.try_init() };
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

    /// All of it in the OpenMetrics text form.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to memory");
        text
    }
}
