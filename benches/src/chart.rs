//! The report as pictures: one SVG for each scenario, and one for each curve.
//!
//! A scenario's picture has a bar for each case and storage, of the first figure that its table shows. Where that figure is
//! held against a ceiling, a line stands where the ceiling was in the same run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::error::{Context, Result};
use crate::machine::Machine;
use crate::report::{Curve, Finding, Report, Series, Shown};
use crate::stats::spread;
use crate::table::{TITLES, number};

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 16.0;
const LINE: f64 = 22.0;
/// Where bars begin: before them stands what they are about.
const BARS: f64 = 330.0;
/// What is kept free behind the longest bar for its number.
const NUMBER: f64 = 90.0;
const HEAD: f64 = 64.0;
const CURVE: f64 = 260.0;
/// Of a storage, by its name.
const COLOURS: [(&str, &str); 2] = [("sqlite", "#2f6fde"), ("postgres", "#1a8f6a")];
const OTHER: &str = "#666666";
/// What begins the name of a figure that is a ratio to a ceiling.
const RATIO: &str = "× ";
/// Ratios to something that is no ceiling.
const NO_CEILINGS: [&str; 7] =
    ["× alone", "× peak", "× none pending", "× none stalled", "× empty", "× smtp-source", "× lettre"];

/// Writes the pictures into this folder, which is made if it is not there.
pub fn draw(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).context(&folder.display().to_string())?;
    let write = |name: &str, picture: String| {
        let file = folder.join(format!("{name}.svg"));
        fs::write(&file, picture).context(&file.display().to_string())
    };
    for (scenario, title) in TITLES {
        let findings: Vec<&Finding> =
            report.findings.iter().filter(|finding| finding.scenario == scenario).collect();
        if let Some(picture) = bars(title, &findings, &report.machine) {
            write(scenario, picture)?;
        }
    }
    for curve in &report.curves {
        let name = format!(
            "{}-{}-{}",
            curve.scenario,
            curve.backend,
            curve.name.split(' ').next().unwrap_or_default()
        );
        write(&name.to_lowercase(), line(curve, &report.machine))?;
    }
    Ok(())
}

/// A case on a storage, with its figure and the ceiling of that.
struct Bar<'a> {
    label: String,
    backend: &'a str,
    value: f64,
    ceiling: Option<f64>,
}

impl<'a> Bar<'a> {
    fn new(finding: &'a Finding, name: &str) -> Option<Self> {
        let middle = |series: &Series| spread(&series.runs).0;
        let value = middle(finding.figures.iter().find(|series| series.name == name)?);
        let is_ceiling =
            |series: &&Series| series.name.starts_with(RATIO) && !NO_CEILINGS.contains(&series.name);
        let ratio = finding.figures.iter().find(is_ceiling).map(middle).filter(|ratio| *ratio > 0.0);
        let label = format!("{}, {}", finding.case, finding.backend);
        Some(Self { label, backend: finding.backend, value, ceiling: ratio.map(|ratio| value / ratio) })
    }
}

fn bars(title: &str, findings: &[&Finding], machine: &Machine) -> Option<String> {
    let named = |finding: &&Finding| {
        finding.figures.iter().find(|series| series.shown == Shown::Spread).map(|series| series.name)
    };
    let name = findings.iter().find_map(named)?;
    let bars: Vec<Bar> = findings.iter().filter_map(|finding| Bar::new(finding, name)).collect();
    let most = bars
        .iter()
        .flat_map(|bar| [Some(bar.value), bar.ceiling])
        .flatten()
        .fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - BARS - NUMBER - MARGIN) / most;
    let height = HEAD + LINE * bars.len() as f64 + MARGIN;
    let mut picture = head(title, name, machine, height);
    for (row, bar) in bars.iter().enumerate() {
        let (y, width) = (HEAD + LINE * row as f64, (bar.value * scale).max(1.0));
        let middle = y + LINE / 2.0 + 4.0;
        text(&mut picture, BARS - 8.0, middle, "end", &bar.label);
        rectangle(&mut picture, BARS, y + 3.0, width, LINE - 6.0, colour(bar.backend));
        let mut said = number(bar.value);
        if let Some(ceiling) = bar.ceiling {
            let x = BARS + ceiling * scale;
            let _ = writeln!(
                picture,
                r##"<line x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{:.1}" stroke="#b3261e" stroke-width="2"/>"##,
                y + 1.0,
                y + LINE - 1.0,
            );
            let _ = write!(said, " of {}", number(ceiling));
        }
        // Behind the bar, unless the ceiling's line is just there.
        let behind = bar
            .ceiling
            .map_or(width, |ceiling| if ceiling * scale - width < NUMBER { ceiling * scale } else { width });
        text(&mut picture, BARS + behind.max(width) + 6.0, middle, "start", &said);
    }
    Some(picture + "</svg>\n")
}

fn line(curve: &Curve, machine: &Machine) -> String {
    let title = format!("{}, {}: {}", curve.scenario, curve.case, curve.backend);
    let mut picture = head(&title, curve.name, machine, HEAD + CURVE + LINE + MARGIN);
    let end = |of: fn(&(f64, f64)) -> f64| curve.points.iter().map(of).fold(f64::MIN_POSITIVE, f64::max);
    let (last, most) = (end(|point| point.0), end(|point| point.1));
    let (left, width) = (MARGIN + 60.0, WIDTH - 2.0 * MARGIN - 60.0);
    // From zero: a curve that is cut off below looks steeper than it is.
    let place = |(x, y): &(f64, f64)| {
        format!("{:.1},{:.1}", left + x / last * width, HEAD + CURVE - y / most * CURVE)
    };
    let points: Vec<String> = curve.points.iter().map(place).collect();
    let _ = writeln!(
        picture,
        r##"<polyline points="{}" fill="none" stroke="{}" stroke-width="1.5"/>"##,
        points.join(" "),
        colour(curve.backend),
    );
    text(&mut picture, left - 6.0, HEAD + 10.0, "end", &number(most));
    text(&mut picture, left - 6.0, HEAD + CURVE, "end", "0");
    text(&mut picture, left, HEAD + CURVE + LINE, "start", "0");
    text(&mut picture, left + width, HEAD + CURVE + LINE, "end", &format!("{} {}", number(last), curve.over));
    picture + "</svg>\n"
}

fn head(title: &str, name: &str, machine: &Machine, height: f64) -> String {
    let mut picture = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
"##
    );
    let _ = writeln!(
        picture,
        r##"<text x="{MARGIN}" y="22" font-size="15" fill="#111111">{}</text>"##,
        escaped(title)
    );
    let told = format!("{name}, {} cores, {}, commit {}", machine.cores, machine.date, machine.commit);
    let _ = writeln!(picture, r##"<text x="{MARGIN}" y="42" fill="#555555">{}</text>"##, escaped(&told));
    picture
}

fn text(picture: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(
        picture,
        r##"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="#111111">{words}</text>"##
    );
}

fn rectangle(picture: &mut String, x: f64, y: f64, width: f64, height: f64, colour: &str) {
    let _ = writeln!(
        picture,
        r##"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/>"##
    );
}

fn colour(backend: &str) -> &'static str {
    COLOURS.iter().find(|(name, _)| *name == backend).map_or(OTHER, |(_, colour)| colour)
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Figure;

    fn report() -> Report {
        let mut report = Report {
            machine: Machine::of_a_test(),
            seconds: 8,
            runs: 1,
            findings: Vec::new(),
            curves: Vec::new(),
        };
        let figures = [Figure::spread("deliveries/s", 500.0), Figure::spread("× bare POST", 0.25)];
        report.add("deliver", "1 endpoint & more", "sqlite", &figures);
        report.add("deliver", "1 endpoint & more", "postgres", &[Figure::spread("deliveries/s", 250.0)]);
        report
    }

    #[test]
    fn a_bar_is_as_long_as_its_figure_and_its_ceiling_stands_where_it_was() {
        let report = report();
        let findings: Vec<&Finding> = report.findings.iter().collect();
        let picture = bars("Deliveries", &findings, &report.machine).unwrap();
        let longest = WIDTH - BARS - NUMBER - MARGIN;
        for (part, x) in [("width", longest / 4.0), ("width", longest / 8.0), ("x1", BARS + longest)] {
            assert!(picture.contains(&format!("{part}=\"{x:.1}\"")), "{part} {x}: {picture}");
        }
        assert!(picture.contains(">500 of 2,000<") && picture.contains(">250<"), "{picture}");
        assert!(picture.contains("1 endpoint &amp; more, sqlite"), "{picture}");
    }

    #[test]
    fn a_curve_begins_at_zero() {
        let points = vec![(0.0, 50.0), (5.0, 100.0), (10.0, 100.0)];
        let curve = Curve {
            scenario: "soak",
            case: "half".into(),
            backend: "sqlite",
            name: "RSS MiB",
            over: "minutes",
            points,
        };
        let picture = line(&curve, &Machine::of_a_test());
        let bottom = HEAD + CURVE;
        assert!(picture.contains(&format!("76.0,{:.1} ", bottom - CURVE / 2.0)), "{picture}");
        assert!(picture.contains(&format!("884.0,{HEAD:.1}\"")), "{picture}");
    }

    #[test]
    fn every_scenario_that_was_measured_has_a_picture() {
        let folder = std::env::temp_dir().join(format!("switchboard-charts-{}", std::process::id()));
        draw(&report(), &folder).unwrap();
        let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, ["deliver.svg"]);
    }
}
