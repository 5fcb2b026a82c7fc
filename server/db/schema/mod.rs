//! The tables, as diesel sees them.  `migrations/` makes them; a test compares the two.

#![expect(missing_docs, reason = "the columns are explained by the API and the migrations")]

mod apikey;

pub use apikey::*;
mod audit;

pub use audit::*;
mod token;

pub use token::*;
mod live;

pub use live::*;
mod inbox;

pub use inbox::*;
mod webhook;

pub use webhook::*;

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
        topic -> Text,
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

diesel::joinable!(webhook_health -> webhooks (webhook_id));

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
        options -> Text,
        expires_at -> Nullable<Instant>,
        attempts_before -> Integer,
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
        transcript -> Nullable<Text>,
        details -> Nullable<Text>,
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
        kind -> Text,
        external_id -> Text,
        metadata -> Text,
        disabled -> Bool,
        rules -> Text,
        credits_id -> Nullable<Text>,
        replaces -> Nullable<Text>,
        replaced_by -> Nullable<Text>,
        expiry_notice -> Nullable<SmallInt>,
        unannounced -> Text,
        version -> BigInt,
        revision -> BigInt,
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
        retired_at -> Nullable<Instant>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    email_contents (email_id) {
        email_id -> Text,
        html_body -> Text,
        plain_body -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    email_recipients (email_id, address) {
        email_id -> Text,
        address -> Text,
        status -> Nullable<Text>,
        response_status -> Nullable<Integer>,
        reply -> Nullable<Text>,
        updated_at -> Nullable<Instant>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    email_blobs (id) {
        id -> Text,
        content -> Binary,
        created_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    email_attachments (email_id, number) {
        email_id -> Text,
        number -> Integer,
        filename -> Text,
        content_type -> Text,
        content_id -> Text,
        size -> BigInt,
        blob_id -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    send_limits (name) {
        name -> Text,
        window_start -> Instant,
        used -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    email_templates (name, locale) {
        name -> Text,
        locale -> Text,
        description -> Text,
        variables -> Text,
        subject -> Text,
        html_body -> Text,
        plain_body -> Text,
        preheader -> Text,
        version -> BigInt,
        created_at -> Instant,
        updated_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    email_template_versions (name, locale, version) {
        name -> Text,
        locale -> Text,
        version -> BigInt,
        subject -> Text,
        html_body -> Text,
        plain_body -> Text,
        preheader -> Text,
        created_by -> Text,
        created_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    suppressions (address, topic) {
        address -> Text,
        topic -> Text,
        reason -> Text,
        origin -> Text,
        detail -> Text,
        email_id -> Nullable<Text>,
        expires_at -> Nullable<Instant>,
        created_at -> Instant,
        updated_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    email_activities (id) {
        id -> Text,
        email_id -> Text,
        address -> Text,
        kind -> Text,
        detail -> Text,
        automated -> Bool,
        created_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    event_log_start (id) {
        id -> SmallInt,
        position -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    settings_revisions (revision, key) {
        revision -> BigInt,
        key -> Text,
        secret -> Bool,
        old_value -> Nullable<Text>,
        new_value -> Nullable<Text>,
        action -> Text,
        actor -> Text,
        reason -> Text,
        created_at -> Instant,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    event_log,
    event_log_start,
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
    data_keys,
    email_contents,
    email_recipients,
    email_blobs,
    email_attachments,
    send_limits,
    email_templates,
    email_template_versions,
    suppressions,
    email_activities,
    webhook_former_secrets,
    webhook_health,
    webhook_notices,
    webhook_stats,
    webhook_versions,
    webhook_cursors,
    notifications,
    settings_revisions
);
