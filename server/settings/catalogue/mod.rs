//! The catalogue of settings: every setting that there is.

mod authentication;
mod inbox;
mod live;
mod providers;
mod server;

use std::sync::LazyLock;

use super::definition::Definition;

/// All of them, by key.
pub static CATALOGUE: LazyLock<Vec<Definition>> = LazyLock::new(|| {
    let parts: [&[Definition]; 7] = [
        authentication::AUTHENTICATION,
        inbox::INBOX,
        live::LIVE,
        &providers::FIRST_PROVIDER,
        &providers::SECOND_PROVIDER,
        &providers::THIRD_PROVIDER,
        server::SERVER,
    ];
    let mut all = parts.concat();
    all.sort_by_key(|definition| definition.key);
    all
});
