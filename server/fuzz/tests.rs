//! Replays the corpus of each target.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{TARGETS, run, texts};

/// What one input may take here, without optimisation and beside other tests; the fuzzer itself allows one second.
const LONGEST: Duration = Duration::from_secs(10);
/// What a corpus may have: it is replayed with each run of the tests.
const FILES: usize = 64;
const BYTES: usize = 128 * 1024;
/// How many changed inputs are tried beside the corpus.
const CHANGES: usize = 300;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn replay(target: &str) {
    let folder = corpus().join(target);
    let files = names(&folder);
    assert!(files.len() >= 3, "{target} has {} inputs", files.len());
    assert!(files.len() <= FILES, "{target} has {} inputs", files.len());
    let inputs: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(folder.join(file)).unwrap()).collect();
    for (file, data) in files.iter().zip(&inputs) {
        hold(target, file, data);
    }
    let bytes: usize = inputs.iter().map(Vec::len).sum();
    assert!(bytes <= BYTES, "{target} has {bytes} bytes");
    // A run without a fuzzer: the same changed inputs each time, or as many as somebody asks for.
    let asked = std::env::var("SWITCHBOARD_FUZZ_CHANGES").ok().and_then(|text| text.parse().ok());
    let mut chance = Chance(0x2545_f491_4f6c_dd1d);
    for number in 0..asked.unwrap_or(CHANGES) {
        let data = changed(&inputs, &mut chance);
        hold(target, &format!("change {number}, {}", data.escape_ascii()), &data);
    }
}

/// Runs a target on an input, which must hold its laws and end.
fn hold(target: &str, what: &str, data: &[u8]) {
    let began = Instant::now();
    let ran = std::panic::catch_unwind(|| run(target, data));
    assert!(ran.is_ok(), "{target}: {what} breaks a law");
    assert!(began.elapsed() < LONGEST, "{target}: {what} takes {:?}", began.elapsed());
}

/// Numbers that look like chance and are the same each time (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// An input with some of its bytes changed, taken out, repeated, or put there from another.
fn changed(inputs: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    const TELLING: &[u8] = b"\0\n\r\"'*:.,@<>{}[]()%/\\=-+ 09azAZ\x1b\x7f\x80\xff";
    let mut data = inputs[chance.below(inputs.len())].clone();
    for _ in 0..=chance.below(4) {
        let (at, other) = (chance.below(data.len() + 1), &inputs[chance.below(inputs.len())]);
        let end = (at + chance.below(8)).min(data.len());
        match chance.below(6) {
            0 if at < data.len() => data[at] ^= 1 << chance.below(8),
            1 => data.insert(at, TELLING[chance.below(TELLING.len())]),
            2 => drop(data.drain(at..end)),
            3 => {
                let part = data[at..end].repeat(chance.below(40));
                data.splice(at..at, part);
            }
            4 => {
                let from = chance.below(other.len() + 1);
                let to = (from + chance.below(24)).min(other.len());
                data.splice(at..end, other[from..to].iter().copied());
            }
            _ if at < data.len() => data[at] = TELLING[chance.below(TELLING.len())],
            _ => {}
        }
    }
    data
}

macro_rules! replays {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target));
            }
        )*

        const REPLAYED: &[&str] = &[$(stringify!($target)),*];
    };
}

replays! {
    address_list
    api_key
    api_key_requests
    bounce
    configuration_file
    cursor
    email_requests
    event_data
    event_pattern
    event_requests
    export_document
    expression
    forwarded
    html
    identity_keys
    identity_token
    mail_link
    networks
    notification_requests
    page_token
    retry_schedule
    scope
    sealed_secret
    settings_document
    settings_requests
    smtp_reply
    subscriber_token
    template
    topic_pattern
    url_guard
    webhook_requests
    webhook_secret
    webhook_signature
}

#[test]
fn every_target_has_a_corpus_a_test_and_a_program_that_fuzzes_it() {
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(targets, REPLAYED);
    let known: BTreeSet<String> = targets.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(names(&corpus()), known);
    let manifest = std::fs::read_to_string(corpus().with_file_name("Cargo.toml")).unwrap();
    let programs: BTreeSet<String> = manifest
        .split("[[bin]]")
        .skip(1)
        .filter_map(|program| Some(program.split_once("name = \"")?.1.split_once('"')?.0.to_owned()))
        .collect();
    assert_eq!(programs, known);
}

#[test]
fn an_input_is_taken_apart_at_its_nul_bytes() {
    assert_eq!(texts(b"a\0b\0c\0d"), Some(["a", "b", "c\0d"]));
    assert_eq!(texts(b"a"), Some(["a", "", ""]));
    assert_eq!(texts::<1>(b"\xff"), None);
}

#[test]
fn a_target_that_is_not_there_is_told() {
    assert!(std::panic::catch_unwind(|| run("nothing", b"")).is_err());
}
