//! A point in time, as a reader would rather see it than a machine.

use super::Violation;
use super::field::Kind;
use super::value::Line;
use serde_json::Value;
use std::fmt;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A time stamp. RFC 3339 (`2026-03-14T09:26:53Z`) is spelled out; anything else is shown as given.
pub(super) struct Moment(String);

impl Kind for Moment {
    fn read(value: &Value, path: &str, violations: &mut Vec<Violation>) -> Option<Self> {
        let line = Line::read(value, path, violations)?.to_string();
        Some(Self(spelled_out(&line).unwrap_or(line)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// `14 March 2026, 09:26 UTC`; a date without a time is spelled out as a date.
fn spelled_out(stamp: &str) -> Option<String> {
    let (date, time) = match stamp.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (stamp, None),
    };
    let [year, month, day] = date.split('-').collect::<Vec<_>>()[..] else {
        return None;
    };
    let month = MONTHS.get(digits(month, 2)?.checked_sub(1)?)?;
    let (year, day) = (digits(year, 4)?, digits(day, 2)?);
    let date = format!("{day} {month} {year}");
    match time {
        None => Some(date),
        Some(time) => Some(format!("{date}, {}", clock(time)?)),
    }
}

fn clock(time: &str) -> Option<String> {
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let mut parts = clock.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let zone = match zone {
        "Z" | "z" | "+00:00" | "-00:00" => String::new(),
        offset => offset.to_owned(),
    };
    Some(format!("{hour:02}:{minute:02} UTC{zone}"))
}

/// The number that exactly this many decimal digits spell.
fn digits(text: &str, length: usize) -> Option<usize> {
    let is_number = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}
