//! The tables, as diesel sees them.  `migrations/` makes them; a test compares the two.

#![expect(missing_docs, reason = "the columns are explained by the API and the migrations")]

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    event_log (id) {
        id -> SmallInt,
        epoch -> BigInt,
        next_position -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    events (position) {
        position -> BigInt,
        id -> Text,
        event_type -> Text,
        data -> Text,
        actor -> Text,
        subject -> Text,
        created_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    event_types (name) {
        name -> Text,
        description -> Text,
        fields -> Text,
        json_schema -> Text,
        sample -> Text,
        version -> BigInt,
        created_at -> Instant,
        updated_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    routes (id) {
        id -> Text,
        name -> Text,
        event_type -> Text,
        condition -> Text,
        active -> Bool,
        target -> Text,
        version -> BigInt,
        created_at -> Instant,
        updated_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    requests (principal, request_id) {
        principal -> Text,
        request_id -> Text,
        fingerprint -> Binary,
        result -> Text,
        created_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    revisions (name) {
        name -> Text,
        value -> BigInt,
    }
}

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
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    email_queue (id) {
        id -> Text,
        event_id -> Nullable<Text>,
        route_id -> Nullable<Text>,
        template -> Text,
        variables -> Text,
        to_addresses -> StringList,
        cc_addresses -> StringList,
        bcc_addresses -> StringList,
        reply_to -> Text,
        subject -> Text,
        html_body -> Text,
        plain_body -> Text,
        destination -> Text,
        status -> Text,
        attempts -> Integer,
        error_message -> Nullable<Text>,
        response_status -> Nullable<Integer>,
        next_attempt_at -> Instant,
        lease_owner -> Nullable<BigInt>,
        lease_token -> BigInt,
        created_at -> Instant,
        updated_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    captured_emails (email_id) {
        email_id -> Text,
        from_address -> Text,
        subject -> Text,
        html_body -> Text,
        plain_body -> Text,
        created_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    recipient_lists (name) {
        name -> Text,
        description -> Text,
        addresses -> StringList,
        version -> BigInt,
        created_at -> Instant,
        updated_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    delivery_attempts (delivery_id, number) {
        delivery_id -> Text,
        number -> Integer,
        started_at -> Instant,
        duration_micros -> BigInt,
        response_status -> Nullable<Integer>,
        response_body -> Nullable<Text>,
        error_message -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    nodes (id) {
        id -> BigInt,
        started_at -> Instant,
        lease_until -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    api_keys (id) {
        id -> Text,
        name -> Text,
        description -> Text,
        scopes -> StringList,
        key_prefix -> Text,
        key_hash -> Binary,
        active -> Bool,
        created_by -> Text,
        expires_at -> Instant,
        revoked_at -> Nullable<Instant>,
        created_at -> Instant,
        updated_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    settings (key) {
        key -> Text,
        value -> Nullable<Text>,
        sealed -> Nullable<Binary>,
        updated_by -> Text,
        updated_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    data_keys (id) {
        id -> Text,
        purpose -> Text,
        wrapped -> Binary,
        created_at -> Instant,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    event_log,
    events,
    event_types,
    routes,
    requests,
    revisions,
    webhooks,
    webhook_deliveries,
    email_queue,
    captured_emails,
    recipient_lists,
    delivery_attempts,
    nodes,
    api_keys,
    settings,
    data_keys
);
