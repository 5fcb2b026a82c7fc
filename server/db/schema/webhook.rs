//! The tables of webhooks.

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    webhooks (id) {
        id -> Text,
        name -> Text,
        url -> Text,
        events -> StringList,
        description -> Text,
        active -> Bool,
        headers -> Text,
        secret -> Binary,
        version -> BigInt,
        created_at -> Instant,
        updated_at -> Instant,
        options -> Text,
        public_key -> Text,
        previous_secret_expires_at -> Nullable<Instant>,
        disabled_reason -> Text,
        client_key -> Nullable<Binary>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    webhook_stats (webhook_id, started_at, hourly, succeeded, bucket) {
        webhook_id -> Text,
        started_at -> Instant,
        hourly -> Bool,
        succeeded -> Bool,
        bucket -> SmallInt,
        attempts -> BigInt,
        duration_micros -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    webhook_health (webhook_id) {
        webhook_id -> Text,
        failing_since -> Nullable<Instant>,
        failures -> BigInt,
        last_success_at -> Nullable<Instant>,
        last_failure_at -> Nullable<Instant>,
        last_error -> Text,
        gone -> Bool,
        announced -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    webhook_notices (id) {
        id -> Text,
        webhook_id -> Text,
        event_type -> Text,
        data -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    webhook_former_secrets (webhook_id, version) {
        webhook_id -> Text,
        version -> BigInt,
        secret -> Binary,
        expires_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    webhook_deliveries (id) {
        id -> Text,
        webhook_id -> Text,
        event_id -> Text,
        event_type -> Text,
        status -> Text,
        attempts -> Integer,
        error_message -> Nullable<Text>,
        response_status -> Nullable<Integer>,
        next_attempt_at -> Instant,
        lease_owner -> Nullable<BigInt>,
        lease_token -> BigInt,
        created_at -> Instant,
        updated_at -> Instant,
        attempts_before -> Integer,
        ordering_key -> Nullable<Text>,
        ordering_position -> Nullable<BigInt>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    webhook_versions (webhook_id, version) {
        webhook_id -> Text,
        version -> BigInt,
        url -> Text,
        header_names -> StringList,
        created_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    webhook_cursors (webhook_id) {
        webhook_id -> Text,
        position -> BigInt,
        updated_at -> Instant,
    }
}
