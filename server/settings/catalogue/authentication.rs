//! The settings of the tokens of users.

use super::super::definition::{Definition, Type};

/// These.
pub(super) const AUTHENTICATION: &[Definition] = &[
    Definition {
        key: "authentication.jwks_url",
        kind: Type::OptionalUrl,
        default: "\"\"",
        description: "Where the application's identity provider publishes the keys of its tokens (JWKS): https, or http on this machine. Empty means that no such tokens are taken.",
        environment: &[],
    },
    Definition {
        key: "authentication.token_audience",
        kind: Type::Text,
        default: "\"\"",
        description: "What the identity provider's tokens must say that they are for (aud). Required with authentication.jwks_url.",
        environment: &[],
    },
    Definition {
        key: "authentication.token_issuer",
        kind: Type::Text,
        default: "\"\"",
        description: "What the identity provider's tokens must say that they are from (iss). Required with authentication.jwks_url.",
        environment: &[],
    },
    Definition {
        key: "authentication.token_lifetime_minutes",
        kind: Type::Integer(1, 1_440),
        default: "60",
        description: "How many minutes a token of CreateSubscriberToken lives at most, and when its maker says nothing.",
        environment: &[],
    },
];
