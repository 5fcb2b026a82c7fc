//! The report as plain text: one table for each scenario, the storages side by side.

use std::fmt::{self, Display, Formatter};

use crate::report::{Finding, Report, Series, Shown};
use crate::stats::spread;

/// What each scenario's table says above itself.
pub const TITLES: [(&str, &str); 20] = [
    ("ceilings", "Ceilings: the least that a call costs here, and the least that a delivery costs"),
    ("publish", "Publishes acknowledged, of events that no endpoint wants"),
    ("batch", "Events published in batches of 100"),
    ("deliver", "Webhook deliveries, end to end: from the first publish to the last arrival"),
    ("latency", "From send to arrival at 100 events a second, open loop, one endpoint"),
    ("slow-neighbour", "The same, alone and beside an endpoint that answers after 10 s"),
    ("hostile", "20 events a second for 100 healthy endpoints, alone and beside 1,000 hostile ones"),
    ("overload", "Publishers in numbers, and what is still done and answered"),
    ("ordered", "Webhook deliveries to one endpoint in the order of each subject"),
    ("pending", "Webhook deliveries to one endpoint while others wait for another one"),
    ("history", "Webhook deliveries to one endpoint on a database with a past"),
    ("email", "Mails of 4 KiB to smtp-sink over 20 connections"),
    ("email-memory", "Mails queued for tomorrow, and what the server holds for them"),
    ("keys", "Verifications of keys, and any call behind the gate, beside the empty RPC"),
    (
        "live",
        "Events of 200 bytes to the subscribers of one topic, beside the same messages written by a bare server",
    ),
    ("live-idle", "Streams on which nothing happens, each on a topic of its own"),
    (
        "live-stalled",
        "Events to 10,000 subscribers of one topic, and beside them a hundredth that does not read",
    ),
    ("live-resume", "Subscribers whose server is killed and started again"),
    ("soak", "A server at half of what it can do, for long: whether it holds more and more"),
    ("timing", "The time in which a key is refused: unknown against a wrong secret"),
];

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{} s a measurement, {} run(s): median (least–greatest)", self.seconds, self.runs)?;
        for (scenario, title) in TITLES {
            let mut findings: Vec<&Finding> =
                self.findings.iter().filter(|finding| finding.scenario == scenario).collect();
            if findings.is_empty() {
                continue;
            }
            // The storages of one case stand together; the cases keep their order.
            let cases: Vec<&str> = findings.iter().map(|finding| finding.case.as_str()).collect();
            let place = |finding: &&Finding| cases.iter().position(|case| *case == finding.case);
            findings.sort_by_key(place);
            writeln!(f, "\n{title}")?;
            // What counts comes first; what explains it follows in a table of its own, or no screen is wide enough.
            for main in [true, false] {
                table(&findings, |series| (series.shown != Shown::Median) == main)
                    .iter()
                    .try_for_each(|line| writeln!(f, "  {line}"))?;
            }
        }
        Ok(())
    }
}

/// The lines of a table of the figures that are wanted.
fn table(findings: &[&Finding], wanted: impl Fn(&Series) -> bool) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    for series in findings.iter().flat_map(|finding| &finding.figures).filter(|series| wanted(series)) {
        if !names.contains(&series.name) {
            names.push(series.name);
        }
    }
    if names.is_empty() {
        return Vec::new();
    }
    let heading = ["case", "backend"].into_iter().chain(names.iter().copied()).map(str::to_owned).collect();
    let mut rows: Vec<Vec<String>> = vec![heading];
    for finding in findings {
        let cell =
            |name: &&str| finding.figures.iter().find(|series| series.name == *name).map_or("–".into(), show);
        let row =
            [finding.case.clone(), finding.backend.to_owned()].into_iter().chain(names.iter().map(cell));
        rows.push(row.collect());
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            // Words begin at the left, numbers end at the right.
            if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn show(series: &Series) -> String {
    let (median, least, greatest) = spread(&series.runs);
    match series.shown {
        Shown::Sum => format!("{:.0}", series.runs.iter().sum::<f64>()),
        Shown::Spread if series.runs.len() > 1 => {
            format!("{} ({}–{})", number(median), number(least), number(greatest))
        }
        Shown::Spread | Shown::Median => number(median),
    }
}

/// A number with three digits or more that mean something, and commas between the thousands.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 1.0 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => {
            let digits = format!("{:.0}", value.abs());
            let mut text = String::from(if value < 0.0 { "-" } else { "" });
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::report::Figure;

    #[test]
    fn numbers_are_short() {
        let values = [0.0, 0.12345, 1.5, 12.34, 123.4, -123.4, 1_234.0, -1_234_567.0];
        let texts: Vec<String> = values.into_iter().map(number).collect();
        assert_eq!(texts, ["0", "0.123", "1.50", "12.3", "123", "-123", "1,234", "-1,234,567"]);
    }

    #[test]
    fn runs_become_one_row_and_storages_stand_together() {
        let machine = Machine::of_a_test();
        let mut report = Report { machine, seconds: 8, runs: 2, findings: Vec::new(), curves: Vec::new() };
        for (case, backend, rate) in
            [("1 caller", "sqlite", 1_000.0), ("64 callers", "sqlite", 9.0), ("1 caller", "postgres", 500.0)]
        {
            report.add(
                "publish",
                case,
                backend,
                &[Figure::spread("publishes/s", rate), Figure::sum("lost", 1)],
            );
        }
        report.add(
            "publish",
            "1 caller",
            "sqlite",
            &[Figure::spread("publishes/s", 2_000.0), Figure::sum("lost", 2)],
        );
        let text = report.to_string();
        let rows: Vec<Vec<&str>> =
            text.lines().skip(5).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["case", "backend", "publishes/s", "lost"]);
        assert_eq!(rows[1], ["1", "caller", "sqlite", "1,500", "(1,000–2,000)", "3"]);
        assert_eq!(rows[2], ["1", "caller", "postgres", "500", "1"]);
        assert_eq!(rows[3][..3], ["64", "callers", "sqlite"]);
    }
}
