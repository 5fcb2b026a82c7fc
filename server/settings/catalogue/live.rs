//! The settings of live streams and presence.

use super::super::definition::{Definition, Type};

/// These.
pub(super) const LIVE: &[Definition] = &[
    Definition {
        key: "notifications.dashboard_interval_seconds",
        kind: Type::Integer(0, 3_600),
        default: "30",
        description: "How often the server publishes its own numbers as dashboard.update, at least 5. 0 means never.",
        environment: &[],
    },
    Definition {
        key: "notifications.live_enabled",
        kind: Type::Boolean,
        default: "true",
        description: "Whether there are live streams. When it becomes false, those that are open end.",
        environment: &[],
    },
    Definition {
        key: "notifications.max_stream_age_minutes",
        kind: Type::Integer(1, 1_440),
        default: "15",
        description: "How many minutes a live stream lasts, more or less by a tenth; then the server asks the client to come back.",
        environment: &[],
    },
    Definition {
        key: "notifications.max_streams",
        kind: Type::Integer(1, 1_000_000),
        default: "20000",
        description: "How many live streams may be open on one node.",
        environment: &[],
    },
    Definition {
        key: "notifications.max_streams_per_address",
        kind: Type::Integer(0, 1_000_000),
        default: "0",
        description: "How many live streams from one address may be open on one node; a /64 of IPv6 counts as one, and a trusted proxy does not count. 0 means any number.",
        environment: &[],
    },
    Definition {
        key: "notifications.max_streams_per_user",
        kind: Type::Integer(1, 1_000),
        default: "20",
        description: "How many live streams one user may have open on one node. Applications with an API key are not limited by it.",
        environment: &[],
    },
    Definition {
        key: "notifications.presence_linger_seconds",
        kind: Type::Integer(0, 300),
        default: "15",
        description: "How long a user stays online after their last stream was closed.",
        environment: &[],
    },
    Definition {
        key: "notifications.stream_opens_per_second",
        kind: Type::Integer(1, 100_000),
        default: "1000",
        description: "How many live streams may be opened within a second on one node.",
        environment: &[],
    },
];
