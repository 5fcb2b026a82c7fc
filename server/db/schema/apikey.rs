//! The tables of what API keys are bound by and used for.

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    api_key_credits (id) {
        id -> Text,
        remaining -> BigInt,
        refill_amount -> BigInt,
        refill_interval -> Text,
        refill_at -> Nullable<Instant>,
        version -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    api_key_scopes (name) {
        name -> Text,
        description -> Text,
        created_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    api_key_usage (key_id, span, started_at, method, endpoint, status_class) {
        key_id -> Text,
        span -> SmallInt,
        started_at -> Instant,
        method -> Text,
        endpoint -> Text,
        status_class -> SmallInt,
        calls -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    api_key_durations (key_id, span, started_at, bucket) {
        key_id -> Text,
        span -> SmallInt,
        started_at -> Instant,
        bucket -> SmallInt,
        calls -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    api_key_logs (id) {
        id -> Text,
        key_id -> Text,
        method -> Text,
        endpoint -> Text,
        status -> SmallInt,
        code -> Text,
        ip_address -> Text,
        duration_micros -> BigInt,
        created_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    api_key_activity (key_id) {
        key_id -> Text,
        last_used_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    api_key_networks (key_id, network) {
        key_id -> Text,
        network -> Text,
        first_used_at -> Instant,
    }
}
