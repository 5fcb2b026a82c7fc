//! What was measured, collected over all runs.

use serde::{Serialize, Serializer};

use crate::machine::Machine;
use crate::stats::spread;

/// One figure of one measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// Its name with its unit: the heading of its column.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// How the runs become one.
    pub shown: Shown,
}

/// How the figures of several runs are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// The median, the least and the greatest.
    Spread,
    /// The median.
    Median,
    /// All of them together.
    Sum,
}

impl Figure {
    /// A figure whose spread matters.
    pub fn spread(name: &'static str, value: f64) -> Self {
        Self { name, value, shown: Shown::Spread }
    }

    /// A figure of which the median is enough.
    pub fn median(name: &'static str, value: f64) -> Self {
        Self { name, value, shown: Shown::Median }
    }

    /// A count that must not hide in a median.
    pub fn sum(name: &'static str, value: usize) -> Self {
        Self { name, value: value as f64, shown: Shown::Sum }
    }
}

/// A figure over all runs.
#[derive(Debug)]
pub struct Series {
    /// The figure's name.
    pub name: &'static str,
    /// How the runs become one.
    pub shown: Shown,
    /// Its values, one for each run.
    pub runs: Vec<f64>,
}

impl Serialize for Series {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Row<'a> {
            name: &'a str,
            shown: Shown,
            median: f64,
            least: f64,
            greatest: f64,
            sum: f64,
            runs: &'a [f64],
        }
        let (median, least, greatest) = spread(&self.runs);
        let (name, shown, runs) = (self.name, self.shown, self.runs.as_slice());
        Row { name, shown, median, least, greatest, sum: runs.iter().sum(), runs }.serialize(serializer)
    }
}

/// What one scenario found in one case on one storage.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// The scenario.
    pub scenario: &'static str,
    /// What was varied, such as the number of callers.
    pub case: String,
    /// The storage.
    pub backend: &'static str,
    /// Its figures, in the order of their columns.
    pub figures: Vec<Series>,
}

/// What was seen again and again in the course of one measurement.
#[derive(Debug, Serialize)]
pub struct Curve {
    /// The scenario.
    pub scenario: &'static str,
    /// What was varied.
    pub case: String,
    /// The storage.
    pub backend: &'static str,
    /// What was looked at, with its unit.
    pub name: &'static str,
    /// In what the other is counted.
    pub over: &'static str,
    /// When, and what was seen.
    pub points: Vec<(f64, f64)>,
}

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// How long each measurement lasted.
    pub seconds: u64,
    /// How often everything was measured.
    pub runs: u64,
    /// What was found.
    pub findings: Vec<Finding>,
    /// What was seen in the course of it.
    pub curves: Vec<Curve>,
}

impl Report {
    /// Adds one measurement to those of the same case.
    pub fn add(&mut self, scenario: &'static str, case: &str, backend: &'static str, figures: &[Figure]) {
        let same = |finding: &Finding| {
            (finding.scenario, finding.case.as_str(), finding.backend) == (scenario, case, backend)
        };
        let index = self.findings.iter().position(same).unwrap_or_else(|| {
            self.findings.push(Finding { scenario, case: case.to_owned(), backend, figures: Vec::new() });
            self.findings.len() - 1
        });
        let series = &mut self.findings[index].figures;
        for figure in figures {
            match series.iter_mut().find(|series| series.name == figure.name) {
                Some(series) => series.runs.push(figure.value),
                None => {
                    series.push(Series { name: figure.name, shown: figure.shown, runs: vec![figure.value] });
                }
            }
        }
    }

    /// The sum of a figure over everything that was found.
    pub fn total(&self, name: &str) -> f64 {
        let series =
            self.findings.iter().flat_map(|finding| &finding.figures).filter(|series| series.name == name);
        series.flat_map(|series| &series.runs).sum()
    }
}
