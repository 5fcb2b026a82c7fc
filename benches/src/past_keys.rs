//! Keys that were made before, as rows: a million calls would take too long.
//!
//! Their texts follow from their numbers, so that nobody has to keep them; their MACs are made with the server's own key, which
//! is opened as the server opens it.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use switchboard::apikey::key::{MacKey, prefix};
use switchboard::app::{Ground, Machine};
use switchboard::config::Config;
use switchboard::db::Target;

use crate::database::Database;
use crate::error::{Context, Result};
use crate::key::numbered;
use crate::options::Backend;

/// How many are made at a time.
const PORTION: u64 = 50_000;
/// How many are in one statement.
const ROWS: u64 = 500;
/// How long they live.
const LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The scope that a key has beside one that all have.
pub fn scope(number: u64) -> String {
    format!("orders{}:read", number % 100)
}

/// Puts keys with the numbers below `count` into a database that no server uses.
pub async fn fill(database: &Database<'_>, count: u64) -> Result<()> {
    let mac_key = mac_key(database).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?;
    let rows = Rows { backend: database.backend, mac_key, now };
    let file = database.folder().join("keys.sql");
    for from in (0..count).step_by(PORTION as usize) {
        std::fs::write(&file, rows.sql(from, count.min(from + PORTION))).context("the file of keys")?;
        let read = match database.backend {
            Backend::Sqlite => format!(".read {}", file.display()),
            Backend::Postgres => format!("\\i {}", file.display()),
        };
        database.sql(&read).await?;
    }
    std::fs::remove_file(&file).context("the file of keys")?;
    if database.backend == Backend::Postgres {
        database.sql("VACUUM (ANALYZE) api_keys").await?;
        database.sql("CHECKPOINT").await?;
    }
    Ok(())
}

/// What the server makes its MACs with.
async fn mac_key(database: &Database<'_>) -> Result<MacKey> {
    let mut config = Config::local(database.data());
    if let Some(url) = database.url() {
        config.database = Target::Postgres(url);
    }
    // To bring a database up to date may block, and so wants more threads than the load has.
    let opening = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let opened = runtime.context("the runtime")?.block_on(Ground::open(&config, Machine::default()));
        Ok(MacKey::new(&opened.context("the keys of the database")?.keyring.api_key_mac))
    });
    opening.await.context("the keys of the database")?
}

struct Rows {
    backend: Backend,
    mac_key: MacKey,
    now: Duration,
}

impl Rows {
    /// What makes the keys from one number to before another.
    fn sql(&self, from: u64, to: u64) -> String {
        let mut sql = String::new();
        if self.backend == Backend::Sqlite {
            // Nobody else is there, and a crash costs nothing but the time.
            sql.push_str("PRAGMA journal_mode = OFF;\nPRAGMA synchronous = OFF;\n");
        }
        sql.push_str("BEGIN;\n");
        for first in (from..to).step_by(ROWS as usize) {
            sql.push_str(
                "INSERT INTO api_keys (id, name, description, scopes, key_prefix, key_hash, active, created_by, \
                 expires_at, created_at, updated_at, external_id) VALUES\n",
            );
            for number in first..to.min(first + ROWS) {
                let comma = if number == first { "" } else { ",\n" };
                let row = self.row(number);
                let _ = write!(sql, "{comma}{row}");
            }
            sql.push_str(";\n");
        }
        sql.push_str("COMMIT;\n");
        sql
    }

    fn row(&self, number: u64) -> String {
        let text = numbered(number);
        let mac = self.mac_key.mac(&text).iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let (mac, scopes) = match self.backend {
            Backend::Sqlite => (format!("X'{mac}'"), format!(r#"'["{}","users:read"]'"#, scope(number))),
            Backend::Postgres => (format!(r"'\x{mac}'"), format!("ARRAY['{}', 'users:read']", scope(number))),
        };
        let (end, now) = (self.instant(self.now + LIFE), self.instant(self.now));
        format!(
            "('key_01bench{number:019}', 'Key {number}', '', {scopes}, '{}', {mac}, TRUE, 'bench', {end}, {now}, {now}, \
             'user {number:08}')",
            prefix(&text)
        )
    }

    fn instant(&self, since: Duration) -> String {
        match self.backend {
            Backend::Sqlite => since.as_micros().to_string(),
            Backend::Postgres => format!("to_timestamp({})", since.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_a_row_of_its_own_in_either_dialect() {
        for backend in [Backend::Sqlite, Backend::Postgres] {
            let rows = Rows { backend, mac_key: MacKey::new(&[7; 32]), now: Duration::from_secs(1_000) };
            let sql = rows.sql(10, 10 + ROWS + 3);
            assert_eq!(
                (sql.matches("INSERT INTO").count(), sql.matches("\n('key_").count()),
                (2, ROWS as usize + 3)
            );
            assert!(sql.contains("'key_01bench0000000000000000010', 'Key 10'"), "{sql}");
            assert!(sql.contains("'swb_benc0000010'"), "{sql}");
        }
    }
}
