//! Replays the corpus of each target.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{TARGETS, run, texts};

/// What one input may take here, without optimisation and beside other tests; the fuzzer itself allows one second.
const LONGEST: Duration = Duration::from_secs(10);
/// What a corpus may have: it is replayed with each run of the tests.
const FILES: usize = 64;
const BYTES: u64 = 128 * 1024;

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
    let mut bytes = 0;
    for file in &files {
        let data = std::fs::read(folder.join(file)).unwrap();
        bytes += data.len() as u64;
        let began = Instant::now();
        let ran = std::panic::catch_unwind(|| run(target, &data));
        assert!(ran.is_ok(), "{target}/{file} breaks a law");
        assert!(began.elapsed() < LONGEST, "{target}/{file} takes {:?}", began.elapsed());
    }
    assert!(bytes <= BYTES, "{target} has {bytes} bytes");
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
