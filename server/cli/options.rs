//! Options that several commands share.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::secret::SecretText;

/// Where the server keeps what it knows.
#[derive(Debug, Clone, Args)]
pub(super) struct DatabaseOptions {
    /// The folder for the server's files.
    #[arg(long, env = "SWITCHBOARD_DATA", default_value = "switchboard-data")]
    pub data: PathBuf,
    /// The database: sqlite:PATH, or postgres://USER:PASSWORD@HOST/DATABASE.  The embedded one in the data folder unless
    /// set.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
}

impl DatabaseOptions {
    /// The configuration that they lead to, with defaults for everything else.
    pub(super) fn config(&self) -> Result<Config> {
        let mut config = Config::local(self.data.clone());
        config.database = config::database(self.database_url.as_deref(), &self.data)?;
        config.master_key = secret("SWITCHBOARD_MASTER_KEY")?;
        config.new_master_key = secret("SWITCHBOARD_NEW_MASTER_KEY")?;
        Ok(config)
    }
}

/// A secret from the environment, or from the file that `<name>_FILE` names.
///
/// # Errors
/// When the file can not be read.
pub(super) fn secret(name: &str) -> Result<Option<SecretText>> {
    if let Some(text) = std::env::var(name).ok().filter(|text| !text.is_empty()) {
        return Ok(Some(SecretText::new(text)));
    }
    match std::env::var_os(format!("{name}_FILE")) {
        None => Ok(None),
        Some(path) => {
            crate::app::warn_of_readers(Path::new(&path));
            let text = std::fs::read_to_string(Path::new(&path))
                .map_err(|error| Error::field(format!("{name}_FILE"), format!("can not be read: {error}")))?;
            Ok(Some(SecretText::new(text.trim())))
        }
    }
}
