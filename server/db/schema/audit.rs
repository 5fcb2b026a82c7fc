//! The audit log.

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    audit_log (seq) {
        seq -> BigInt,
        created_at -> Instant,
        actor -> Text,
        action -> Text,
        resource_type -> Text,
        resource_id -> Text,
        before -> Text,
        after -> Text,
        reason -> Text,
        request_id -> Text,
        address -> Text,
        prev_hash -> Text,
        hash -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    audit_head (id) {
        id -> BigInt,
        seq -> BigInt,
        hash -> Text,
        mac -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    audit_base (id) {
        id -> BigInt,
        seq -> BigInt,
        hash -> Text,
        mac -> Text,
    }
}
