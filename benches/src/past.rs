//! Deliveries that were made long ago, as SQL: ten million calls would take too long.
//!
//! Each has an event of its own and one attempt. They are written in the order of their times, as a server would have
//! written them, so that tables and indexes look as they would.

use std::time::Duration;

use crate::client::{WANTED, payload};
use crate::options::Backend;

/// The digits of an id, Crockford's base 32.
const DIGITS: &str = "0123456789abcdefghjkmnpqrstvwxyz";
/// Spreads numbers that follow each other over 32 bits.
const SPREAD: u64 = 2_654_435_761;

/// A history.
pub struct Past {
    /// The dialect.
    pub backend: Backend,
    /// The endpoints, which have deliveries in turn.
    pub webhooks: Vec<String>,
    /// How many deliveries there are.
    pub rows: u64,
    /// The time of the first, since 1970.
    pub begin: Duration,
    /// The time of the last.
    pub end: Duration,
    /// The position of the first event in the log.
    pub first_position: u64,
}

impl Past {
    /// What makes the deliveries with these numbers, which begin with 1.
    pub fn portion(&self, from: u64, to: u64) -> String {
        let (begin, step) =
            (self.begin.as_micros(), (self.end - self.begin).as_micros() / u128::from(self.rows));
        let numbers = match self.backend {
            Backend::Sqlite => format!(
                "WITH RECURSIVE numbers(n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM numbers WHERE n < {to}) "
            ),
            Backend::Postgres => {
                format!("WITH numbers(n) AS (SELECT generate_series({from}::bigint, {to})) ")
            }
        };
        let rows = format!("FROM (SELECT n, {begin} + n * {step} AS t FROM numbers) AS rows ORDER BY n;\n");
        let (event, delivery) = (self.id("evt_"), self.id("whd_"));
        let (at, later) = (self.instant("t"), self.instant("t + 2000"));
        let (webhook, data, position) = (self.webhook(), data(), self.first_position - 1);
        let inserts = format!(
            "INSERT INTO events (position, id, event_type, data, actor, subject, created_at)
             {numbers} SELECT {position} + n, {event}, '{WANTED}', {data}, 'jo.miller', 'ticket:' || n, {at} {rows}
             INSERT INTO webhook_deliveries (id, webhook_id, event_id, event_type, status, attempts, response_status,
                 next_attempt_at, lease_token, created_at, updated_at)
             {numbers} SELECT {delivery}, {webhook}, {event}, '{WANTED}', 'success', 1, 200, {at}, 1, {at}, {later} {rows}
             INSERT INTO delivery_attempts (delivery_id, number, started_at, duration_micros, response_status,
                 response_body)
             {numbers} SELECT {delivery}, 1, {at}, 500 + n % 1000, 200, '' {rows}"
        );
        match self.backend {
            // Nobody else is there, and a crash costs nothing but the time.
            Backend::Sqlite => format!(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -262144;
                 BEGIN;\n{inserts}COMMIT;"
            ),
            Backend::Postgres => inserts,
        }
    }

    /// An id: milliseconds in ten digits, and sixteen more that do not sort.
    fn id(&self, prefix: &str) -> String {
        let digit =
            |shift: u32| format!("substr('{DIGITS}', CAST((t / 1000 >> {shift}) & 31 AS INTEGER) + 1, 1)");
        let time: Vec<String> = (0..10).rev().map(|place| digit(place * 5)).collect();
        let spread = format!("n * {SPREAD} % 4294967296");
        let rest = match self.backend {
            Backend::Sqlite => format!("printf('%08x%08x', {spread}, n)"),
            Backend::Postgres => {
                format!("lpad(to_hex({spread}), 8, '0') || lpad(to_hex(n), 8, '0')")
            }
        };
        format!("'{prefix}' || {} || {rest}", time.join(" || "))
    }

    fn instant(&self, microseconds: &str) -> String {
        match self.backend {
            Backend::Sqlite => microseconds.to_owned(),
            Backend::Postgres => format!("timestamptz 'epoch' + ({microseconds}) * interval '1 microsecond'"),
        }
    }

    fn webhook(&self) -> String {
        let when = |(number, id): (usize, &String)| format!("WHEN {number} THEN '{id}'");
        let cases: Vec<String> = self.webhooks.iter().enumerate().map(when).collect();
        format!("CASE n % {} {} END", self.webhooks.len(), cases.join(" "))
    }
}

/// The payload of the row's event.
fn data() -> String {
    let text = payload(0).replace('\'', "''");
    // The number stands first.
    text.split_once('0')
        .map_or_else(|| format!("'{text}'"), |(before, after)| format!("'{before}' || n || '{after}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(backend: Backend) -> Past {
        let second = Duration::from_secs;
        let webhooks = vec!["wh_a".to_owned(), "wh_b".to_owned()];
        Past { backend, webhooks, rows: 10, begin: second(1_000), end: second(2_000), first_position: 7 }
    }

    #[test]
    fn columns_are_named_and_dialects_differ_where_they_must() {
        let (sqlite, postgres) = (past(Backend::Sqlite).portion(3, 5), past(Backend::Postgres).portion(3, 5));
        for sql in [&sqlite, &postgres] {
            assert_eq!(sql.matches("INSERT INTO").count(), 3);
            assert!(sql.contains("SELECT 6 + n, "), "{sql}");
            assert!(sql.contains("1000000000 + n * 100000000 AS t"), "{sql}");
            assert!(sql.contains(r#"'{"ticket_id":' || n || ',"title""#), "{sql}");
            assert!(sql.contains("CASE n % 2 WHEN 0 THEN 'wh_a' WHEN 1 THEN 'wh_b' END"), "{sql}");
        }
        assert!(sqlite.contains("WHERE n < 5") && !sqlite.contains("interval"));
        assert!(postgres.contains("generate_series(3::bigint, 5)") && !postgres.contains("PRAGMA"));
    }
}
