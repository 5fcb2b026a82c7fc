//! `switchboard key`: API keys for whoever has the database and the master key, as after the last admin key was lost.

use clap::{Args, Subcommand};

use super::options::DatabaseOptions;
use super::output;
use crate::apikey::model::KeyKind;
use crate::apikey::{NewKey, key};
use crate::app::{Ground, Machine};
use crate::error::Result;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a key in the database and print it.  A running server knows it at once.
    Create(Arguments),
    /// Print a key that no database knows, for SWITCHBOARD_ADMIN_KEY.
    Generate,
}

/// The key to make.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What people call it.
    #[arg(long)]
    name: String,
    /// What its holder may do, such as tickets:read.  May be given several times.
    #[arg(long = "scope", required = true, value_delimiter = ',')]
    scopes: Vec<String>,
    /// What it is for.
    #[arg(long, default_value = "")]
    description: String,
    /// Days until it stops working, 1 to 365.
    #[arg(long, default_value_t = 90)]
    expires_in_days: i32,
    #[command(flatten)]
    database: DatabaseOptions,
}

/// Makes keys.
pub(super) async fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Generate => output::line(key::generate(KeyKind::Live, &*Machine::default().random).reveal()),
        Verb::Create(arguments) => {
            let Arguments { name, scopes, description, expires_in_days, database } = arguments;
            let ground = Ground::open(&database.config()?, Machine::default()).await?;
            let new = NewKey::named(name, description, scopes, expires_in_days);
            let (_, text) = ground.api_keys().create_by_operator(new).await?;
            output::line(text.reveal());
        }
    }
    Ok(())
}
