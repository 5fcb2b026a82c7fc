//! The tables of inboxes.

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    notifications (user_id, id) {
        user_id -> Text,
        id -> Text,
        position -> BigInt,
        event_id -> Text,
        category -> Text,
        title -> Text,
        message -> Text,
        priority -> SmallInt,
        action_url -> Text,
        data -> Text,
        replace_key -> Nullable<Text>,
        created_at -> Instant,
        updated_at -> Instant,
        seen_at -> Nullable<Instant>,
        read_at -> Nullable<Instant>,
        archived_at -> Nullable<Instant>,
        expires_at -> Nullable<Instant>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    inboxes (user_id) {
        user_id -> Text,
        unread -> BigInt,
        unseen -> BigInt,
        total -> BigInt,
        version -> BigInt,
        preferences_version -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    broadcasts (id) {
        id -> Text,
        position -> BigInt,
        event_id -> Text,
        category -> Text,
        title -> Text,
        message -> Text,
        priority -> SmallInt,
        action_url -> Text,
        data -> Text,
        created_at -> Instant,
        updated_at -> Instant,
        expires_at -> Nullable<Instant>,
        withdrawn_at -> Nullable<Instant>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    broadcast_states (user_id, broadcast_id) {
        user_id -> Text,
        broadcast_id -> Text,
        position -> BigInt,
        seen_at -> Nullable<Instant>,
        read_at -> Nullable<Instant>,
        archived_at -> Nullable<Instant>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    notification_preferences (user_id, category, channel) {
        user_id -> Text,
        category -> Text,
        channel -> Text,
        enabled -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    notification_addresses (user_id) {
        user_id -> Text,
        email_address -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    notification_mails (user_id, notification_id) {
        user_id -> Text,
        notification_id -> Text,
        email_address -> Text,
        due_at -> Instant,
    }
}
