//! The tables of presence and of what crosses nodes.

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    presence_users (user_id) {
        user_id -> Text,
        username -> Text,
        online -> Bool,
        generation -> BigInt,
        announced -> BigInt,
        changed_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    presence_nodes (node_id, user_id) {
        node_id -> BigInt,
        user_id -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    dashboard_turn (id) {
        id -> SmallInt,
        taken_at -> Instant,
        position -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    dashboard_nodes (node_id) {
        node_id -> BigInt,
        numbers -> Text,
        updated_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    live_ephemeral (seq) {
        seq -> BigInt,
        node_id -> BigInt,
        event_id -> Text,
        event_type -> Text,
        data -> Text,
        actor -> Text,
        subject -> Text,
        topic -> Text,
        collapse_key -> Text,
        created_at -> Instant,
        written_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    live_mailbox (id) {
        id -> BigInt,
        node_id -> BigInt,
        request -> Text,
        answer -> Nullable<Text>,
        written_at -> Instant,
    }
}
