//! The tokens of users.

diesel::table! {
    use diesel::sql_types::*;
    use crate::db::types::sql::*;

    token_revocations (user_id) {
        user_id -> Text,
        revoked_at -> Instant,
        revision -> BigInt,
    }
}
