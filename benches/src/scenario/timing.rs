//! Whether the time in which a key is refused tells one that nobody has from one whose secret is wrong: dudect's test (Reparaz,
//! Balasch and Verbauwhede, "Dude, is my code constant time?", 2017).
//!
//! The verifier is called as a library, in this process: over a socket the noise would hide what an attacker with more patience
//! finds.  Both kinds are in memory, as they are from the second try on.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use switchboard::apikey::key::generate;
use switchboard::apikey::model::KeyKind;
use switchboard::apikey::{NewKey, Verifier};
use switchboard::app::{Ground, Machine};
use switchboard::config::Config;
use switchboard::secret::{Random, SystemRandom};

use super::say;
use crate::error::{Context, Result};
use crate::key::with_checksum;
use crate::report::{Figure, Report};
use crate::stage::Parts;

const SAMPLES: usize = 100_000;
/// Different texts of each kind.
const TEXTS: usize = 32;
/// The part of the samples that is kept: the slowest were interrupted.
const KEPT: f64 = 0.95;
/// Where the secret begins.
const SECRET: usize = 15;
/// The length of a key without its checksum.
const BODY: usize = 59;

/// Two kinds of keys that do not work.
struct Case {
    name: &'static str,
    kinds: [Vec<String>; 2],
}

/// Measures in a database of its own.
pub async fn measure(parts: &Parts, report: &mut Report) -> Result<()> {
    say("timing");
    let folder = parts.folders.create("timing")?;
    let measured = measure_in(&folder, report).await;
    fs::remove_dir_all(&folder).context("the folder of the keys")?;
    measured
}

async fn measure_in(folder: &Path, report: &mut Report) -> Result<()> {
    let ground =
        Ground::open(&Config::local(folder.to_owned()), Machine::default()).await.context("a database")?;
    let keys = ground.api_keys();
    let (mut wrong, mut unknown, mut malformed) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..TEXTS {
        let new = NewKey::named(format!("Key {number}"), String::new(), vec!["events:read".to_owned()], 1);
        let (_, text) = keys.create_by_operator(new).await.context("a key")?;
        let (one, other) = (generate(KeyKind::Live, &SystemRandom), generate(KeyKind::Live, &SystemRandom));
        wrong.push(with_checksum(format!("{}{}", &text.reveal()[..SECRET], &one.reveal()[SECRET..BODY])));
        malformed.push(format!("{}0", &other.reveal()[..other.reveal().len() - 1]));
        unknown.push(other.reveal().to_owned());
    }
    let cases = [
        Case { name: "unknown, wrong secret", kinds: [unknown, wrong.clone()] },
        // What the first case must not be like: it shows that the instrument sees a difference where there is one.
        Case { name: "malformed, wrong secret (a control)", kinds: [malformed, wrong] },
    ];
    for case in &cases {
        let samples = sample(&keys.verifier, case).await?;
        report.add("timing", case.name, "memory", &figures(&samples));
    }
    Ok(())
}

/// Times both kinds, interleaved at random; answers which it was, and how long it took in nanoseconds.
async fn sample(verifier: &Verifier, case: &Case) -> Result<Vec<(usize, f64)>> {
    let mut samples = Vec::with_capacity(SAMPLES);
    let (mut random, mut left) = ([0; 4_096], 0);
    let mut text = String::with_capacity(BODY * 2);
    while samples.len() < SAMPLES {
        if left == 0 {
            SystemRandom.fill(&mut random);
            left = random.len();
        }
        left -= 1;
        let (kind, which) = (usize::from(random[left] >> 7), usize::from(random[left]) % TEXTS);
        // Whatever it is, it lies in the same place.
        text.clear();
        text.push_str(&case.kinds[kind][which]);
        let begin = Instant::now();
        let found = black_box(verifier.look(black_box(&text)));
        let took = begin.elapsed();
        match found {
            Some(None) => samples.push((kind, took.as_nanos() as f64)),
            Some(Some(_)) => return Err("a key that is wrong was accepted".into()),
            // That nobody has it is believed for a while only.
            None => {
                verifier.find(&text).await.context("a key")?;
            }
        }
    }
    Ok(samples)
}

fn figures(samples: &[(usize, f64)]) -> Vec<Figure> {
    let mut all: Vec<f64> = samples.iter().map(|(_, took)| *took).collect();
    let at = (all.len() as f64 * KEPT) as usize;
    let (_, most, _) = all.select_nth_unstable_by(at, f64::total_cmp);
    let most = *most;
    let kind = |wanted: usize| {
        let of = samples.iter().filter(move |(kind, took)| *kind == wanted && *took <= most);
        Moments::of(of.map(|(_, took)| *took))
    };
    let (one, other) = (kind(0), kind(1));
    vec![
        Figure::spread("|t|", one.t(&other).abs()),
        Figure::spread("n", one.count + other.count),
        Figure::spread("difference ns", one.mean - other.mean),
        Figure::median("first ns", one.mean),
        Figure::median("second ns", other.mean),
        Figure::median("standard deviation ns", other.variance.sqrt()),
    ]
}

/// How many there are, their mean and their variance.
struct Moments {
    count: f64,
    mean: f64,
    variance: f64,
}

impl Moments {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let count = values.clone().count() as f64;
        let mean = values.clone().sum::<f64>() / count.max(1.0);
        let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
        Self { count, mean, variance: squares / (count - 1.0).max(1.0) }
    }

    /// Welch's t.
    fn t(&self, other: &Self) -> f64 {
        let error = self.variance / self.count.max(1.0) + other.variance / other.count.max(1.0);
        (self.mean - other.mean) / error.sqrt().max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_is_welchs() {
        let (one, other) =
            (Moments::of([1.0, 2.0, 3.0, 4.0].into_iter()), Moments::of([2.0, 4.0, 6.0].into_iter()));
        assert_eq!((one.mean, other.mean, other.variance), (2.5, 4.0, 4.0));
        // -1.5 / sqrt(5/12 + 4/3)
        assert!((one.t(&other) + 1.133_893).abs() < 1e-5, "{}", one.t(&other));
    }

    #[test]
    fn a_difference_is_seen_and_its_absence_too() {
        let wave = |number: usize| (number * 7_919 % 101) as f64;
        let of = |shift: f64| -> Vec<(usize, f64)> {
            (0..10_000)
                .map(|number| (number % 2, 500.0 + wave(number) + (number % 2) as f64 * shift))
                .collect()
        };
        assert!(figures(&of(0.0))[0].value < 4.5);
        assert!(figures(&of(10.0))[0].value > 4.5);
    }
}
