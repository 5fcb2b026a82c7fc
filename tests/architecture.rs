//! Holds the tree to the architecture: who may name whom, which library stays behind which file, how large a file gets.
//!
//! The rules are the tables at the top; to add one, add a row. The scanner below them understands just enough Rust:
//! it blanks comments and literals, tells tests from production code, and lists every path with its `use` groups
//! expanded and `super` resolved. The tests at the end show each rule a made-up violation, so that none passes because
//! the scanner went blind.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// What the server offers, each on its own: they meet only in `event` and `delivery`.
const CAPABILITIES: &[&str] =
    &["email", "webhook", "apikey", "settings", "notification", "telegram", "chat", "schedule", "system"];

/// What everything may use, and what uses nothing of the server.
const LEAVES: &[&str] = &["clock", "id", "secret", "error", "failpoint", "instant", "origin", "telemetry"];

/// The places that put the server together, and so may name every part.
const ASSEMBLY: &[&str] = &["app", "cli", "main", "lib"];

/// Parts by the first segment of their path under `server/`, and the parts that they must not name. `CAPABILITIES`
/// stands for all of those, other than the part itself.
const DIRECTIONS: &[Direction] = &[
    Direction { of: CAPABILITIES, never: &["CAPABILITIES", "app", "cli"] },
    Direction { of: &["event", "delivery"], never: &["CAPABILITIES", "app", "cli"] },
    Direction { of: &["audit"], never: &["CAPABILITIES", "event", "delivery", "app", "cli"] },
    Direction { of: &["portable"], never: &["CAPABILITIES", "event", "delivery", "app", "cli"] },
    Direction { of: &["rpc"], never: &["CAPABILITIES", "app", "cli"] },
    Direction { of: &["db"], never: &["CAPABILITIES", "event", "delivery", "rpc", "app", "cli"] },
    Direction { of: LEAVES, never: &["CAPABILITIES", "db", "event", "delivery", "rpc", "app", "cli"] },
];

/// Libraries and calls, and the only places they may appear in. A place that ends with `/` is a folder, one that begins
/// with `/` is a file or folder of that name anywhere, and any other is one file.
const BOUNDARIES: &[Boundary] = &[
    Boundary {
        name: "tonic, prost and the generated types",
        paths: &[
            "crate::pb",
            "tonic",
            "tonic_health",
            "tonic_prost",
            "tonic_reflection",
            "tonic_types",
            "tonic_web",
            "prost",
            "prost_types",
        ],
        only_in: &[
            "/rpc.rs",
            "/rpc/",
            "server/pb.rs",
            "server/app.rs",
            "server/app/",
            "server/cli/",
            "server/notification/stream/",
            "server/notification/frame.rs",
        ],
    },
    Boundary {
        name: "diesel",
        paths: &["diesel", "diesel_async", "diesel_migrations"],
        only_in: &["/store.rs", "server/event/log.rs", "server/db/"],
    },
    Boundary { name: "lettre", paths: &["lettre"], only_in: &["server/email/"] },
    Boundary {
        name: "the HTTP client",
        paths: &["hyper::client", "hyper_util::client", "hyper_rustls"],
        only_in: &["server/webhook/", "server/telegram/", "server/chat/", "server/email/smtp/oauth.rs"],
    },
    Boundary {
        name: "the clock and chance, which come in as arguments",
        paths: &["..SystemTime::now", "..Instant::now", "..rand::rng", "..Ulid::new", "..Utc::now"],
        only_in: &["server/clock.rs", "server/id.rs", "server/secret.rs", "server/secret/"],
    },
];

/// What a test must not do: it would be slow, and wrong on a busy machine.
const SLEEPS: &[&str] = &["..thread::sleep", "..time::sleep"];

/// What no Rust file may hold, whitespace aside.
const UNFINISHED: &[&str] = &["todo!(", "unimplemented!(", "#[ignore"];

/// Notes to oneself, in two pieces so that this file holds none.
const NOTES: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];

/// The most lines of production code in a file.
const LARGEST_FILE: usize = 500;

/// The most lines that the middle one of all files may have.
const MEDIAN_FILE: usize = 150;

/// The fewest files of `server/` that a scan has to find to count as one.
const FEWEST_FILES: usize = 20;

/// Folders that hold nothing written here.
const FOREIGN_FOLDERS: &[&str] =
    &["target", "node_modules", "switchboard-data", "bin", "dist", "__pycache__"];

/// Files that are read for notes to oneself.
const TEXT: &[&str] = &[
    "rs", "proto", "sql", "toml", "yaml", "py", "ts", "tsx", "js", "mjs", "go", "java", "html", "css", "txt",
    "md", "sh",
];

struct Direction {
    of: &'static [&'static str],
    never: &'static [&'static str],
}

struct Boundary {
    name: &'static str,
    /// A path and everything below it. After `..`, wherever it appears in a longer path.
    paths: &'static [&'static str],
    only_in: &'static [&'static str],
}

// --- The rules --------------------------------------------------------------------------------------------------------

#[test]
fn dependencies_point_inwards() {
    assert_none(&server().iter().flat_map(wrong_directions).collect::<Vec<_>>());
}

#[test]
fn libraries_stay_behind_their_boundary() {
    assert_none(&server().iter().flat_map(crossed_boundaries).collect::<Vec<_>>());
}

#[test]
fn files_stay_small() {
    assert_none(&oversized(&server()));
}

#[test]
fn tests_do_not_sleep() {
    let mut sources = server();
    sources
        .extend(rust_files("tests").into_iter().filter(|source| !source.path.starts_with("tests/harness/")));
    assert_none(&sources.iter().flat_map(sleeps).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_unfinished() {
    let mut sources = server();
    for folder in ["tests", "client-sdk", "benches"] {
        sources.extend(rust_files(folder));
    }
    let mut found: Vec<String> = sources.iter().flat_map(unfinished).collect();
    let texts = files("", TEXT);
    assert!(texts.len() >= FEWEST_FILES, "only {} files were read for notes", texts.len());
    found.extend(texts.iter().flat_map(|(path, text)| notes(path, text)));
    assert_none(&found);
}

fn wrong_directions(source: &Source) -> Vec<String> {
    let part = source.part();
    let mut found = Vec::new();
    let mut capabilities = BTreeSet::new();
    for path in source.production_paths() {
        let Some(named) = path.segments.get(1).filter(|_| path.segments[0] == "crate") else {
            continue;
        };
        let named = named.as_str();
        if CAPABILITIES.contains(&named) {
            capabilities.insert(named.to_owned());
        }
        let forbidden = DIRECTIONS.iter().filter(|direction| direction.of.contains(&part)).any(|direction| {
            let is_capability = CAPABILITIES.contains(&named) && direction.never.contains(&"CAPABILITIES");
            named != part && (is_capability || direction.never.contains(&named))
        });
        let assembly_named_from_below = ["app", "cli"].contains(&named) && !ASSEMBLY.contains(&part);
        if forbidden || assembly_named_from_below {
            found.push(source.at(path.line, &format!("`{part}` must not name `crate::{named}`")));
        }
    }
    if capabilities.len() > 1 && !ASSEMBLY.contains(&part) && found.is_empty() {
        found.push(source.at(1, &format!("`{part}` names several capabilities: {capabilities:?}")));
    }
    found
}

fn crossed_boundaries(source: &Source) -> Vec<String> {
    let paths = source.production_paths();
    let mut found = Vec::new();
    for boundary in BOUNDARIES {
        if boundary.only_in.iter().any(|place| is_in(&source.path, place)) {
            continue;
        }
        for path in &paths {
            if let Some(pattern) = boundary.paths.iter().find(|pattern| path.matches(pattern)) {
                let pattern = pattern.trim_start_matches("..");
                let message =
                    format!("`{pattern}` ({}) belongs in {}", boundary.name, boundary.only_in.join(", "));
                found.push(source.at(path.line, &message));
            }
        }
    }
    // A `use` group names a library once for each of its members.
    found.dedup();
    found
}

fn oversized(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    let mut sizes = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test) {
        let size = source.size();
        sizes.push(size);
        if size > LARGEST_FILE {
            found.push(source.at(1, &format!("{size} lines of code, and {LARGEST_FILE} are the most")));
        }
    }
    sizes.sort_unstable();
    let median = sizes.get(sizes.len() / 2).copied().unwrap_or_default();
    if median > MEDIAN_FILE {
        found.push(format!("server/: the median file has {median} lines, and {MEDIAN_FILE} are the most"));
    }
    found
}

fn sleeps(source: &Source) -> Vec<String> {
    paths(&source.tests, &source.module())
        .iter()
        .filter(|path| SLEEPS.iter().any(|pattern| path.matches(pattern)))
        .map(|path| source.at(path.line, "a test must wait for what it waits for, not for a time"))
        .collect()
}

fn unfinished(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in source.code.lines().enumerate() {
        let dense: String = line.chars().filter(|letter| !letter.is_whitespace()).collect();
        for word in UNFINISHED {
            if dense.contains(word) {
                found.push(source.at(number + 1, &format!("`{word}` has no place in a finished tree")));
            }
        }
    }
    found
}

fn notes(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        if words.any(|word| NOTES.contains(&word)) {
            found.push(format!("{path}:{}: a note to oneself", number + 1));
        }
    }
    found
}

fn is_in(path: &str, place: &str) -> bool {
    if place.starts_with('/') && place.ends_with('/') {
        path.contains(place)
    } else if place.ends_with('/') {
        path.starts_with(place)
    } else if place.starts_with('/') {
        path.ends_with(place)
    } else {
        path == place
    }
}

#[track_caller]
fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

// --- The tree ---------------------------------------------------------------------------------------------------------

/// One Rust file, read for the rules.
struct Source {
    /// Relative to the root of the tree, with `/` between its parts.
    path: String,
    raw: String,
    /// The text with comments and literals blanked, line by line as it was.
    code: String,
    /// Of that, what is compiled without tests.
    production: String,
    /// Of that, the rest.
    tests: String,
    /// Whether the whole file is a test.
    is_test: bool,
}

impl Source {
    fn new(path: &str, raw: &str) -> Self {
        let code = blank_comments_and_literals(raw);
        let name = path.rsplit('/').next().unwrap_or(path);
        let is_test = path.starts_with("tests/") || name == "tests.rs" || path.contains("/tests/");
        let (production, tests) = if is_test { (String::new(), code.clone()) } else { split_tests(&code) };
        Self { path: path.to_owned(), raw: raw.to_owned(), code, production, tests, is_test }
    }

    /// The first segment of its path under `server/`: `email` for both `server/email.rs` and `server/email/rpc.rs`.
    fn part(&self) -> &str {
        let below = self.path.strip_prefix("server/").unwrap_or(&self.path);
        below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
    }

    /// The module that the file is, without `crate`.
    fn module(&self) -> Vec<String> {
        let below = self.path.strip_prefix("server/").unwrap_or(&self.path).trim_end_matches(".rs");
        let mut module: Vec<String> = below.split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "mod") || ["lib", "main"].contains(&below) {
            module.pop();
        }
        module
    }

    fn production_paths(&self) -> Vec<Named> {
        paths(&self.production, &self.module())
    }

    /// Lines of production code, blank ones included, comments not.
    fn size(&self) -> usize {
        self.raw
            .lines()
            .zip(self.production.lines())
            .filter(|(raw, production)| raw.trim().is_empty() || !production.trim().is_empty())
            .count()
    }

    fn at(&self, line: usize, message: &str) -> String {
        format!("{}:{line}: {message}", self.path)
    }
}

/// The server's files, with those that only tests bring in marked as tests.
fn server() -> Vec<Source> {
    let mut sources = rust_files("server");
    assert!(sources.len() >= FEWEST_FILES, "only {} files were found under server/", sources.len());
    mark_test_files(&mut sources);
    sources
}

/// Follows `#[cfg(test)] mod name;` to the file it names, whatever that is called.
fn mark_test_files(sources: &mut [Source]) {
    let mut marked = Vec::new();
    for source in sources.iter() {
        let module = source.module();
        for name in outlined_modules(&source.tests) {
            let path: String =
                module.iter().fold("server/".to_owned(), |path, part| path + part + "/") + name;
            marked.push(path);
        }
    }
    for source in sources {
        let is_marked = marked.iter().any(|path| {
            source.path.strip_prefix(path.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        });
        if is_marked && !source.is_test {
            source.is_test = true;
            source.tests = std::mem::take(&mut source.production);
        }
    }
}

/// The names in `mod name;`.
fn outlined_modules(code: &str) -> Vec<&str> {
    let tokens: Vec<&str> = tokens(code).into_iter().map(|(_, token)| token).collect();
    tokens
        .windows(3)
        .filter(|window| window[0] == "mod" && window[2] == ";")
        .map(|window| window[1])
        .collect()
}

fn rust_files(folder: &str) -> Vec<Source> {
    files(folder, &["rs"]).iter().map(|(path, text)| Source::new(path, text)).collect()
}

/// Every file below a folder with one of these extensions, as its path from the root of the tree and its text.
fn files(folder: &str, extensions: &[&str]) -> Vec<(String, String)> {
    fn walk(root: &Path, folder: &Path, extensions: &[&str], found: &mut Vec<(String, String)>) {
        let Ok(entries) = std::fs::read_dir(folder) else {
            return;
        };
        for entry in entries {
            let path = entry.expect("a folder can be listed").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("names are UTF-8").to_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !FOREIGN_FOLDERS.contains(&name.as_str()) {
                    walk(root, &path, extensions, found);
                }
            } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e)) {
                let text =
                    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                let relative = path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8");
                found.push((relative.to_owned(), text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(root, &root.join(folder), extensions, &mut found);
    found.sort();
    found
}

// --- The scanner ------------------------------------------------------------------------------------------------------

/// A path in the code, such as `crate::db::Connection`, and its line.
#[derive(Debug)]
struct Named {
    line: usize,
    segments: Vec<String>,
}

impl Named {
    fn matches(&self, pattern: &str) -> bool {
        let (anywhere, pattern) = match pattern.strip_prefix("..") {
            Some(pattern) => (true, pattern),
            None => (false, pattern),
        };
        let wanted: Vec<&str> = pattern.split("::").collect();
        let mut windows = self.segments.windows(wanted.len());
        let mut equal = windows.by_ref().map(|window| window.iter().zip(&wanted).all(|(a, b)| a == b));
        if anywhere { equal.any(|same| same) } else { equal.next() == Some(true) }
    }
}

/// Replaces comments by spaces, and string and character literals by quotes, keeping every line break.
fn blank_comments_and_literals(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let at = |index: usize| letters.get(index).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut here = 0;
    while here < letters.len() {
        let before_is_name = here > 0 && is_name(at(here - 1));
        let end = match at(here) {
            '/' if at(here + 1) == '/' => until(&letters, here, |i| at(i) == '\n'),
            '/' if at(here + 1) == '*' => end_of_block_comment(&letters, here),
            '"' => end_of_string(&letters, here + 1),
            'r' if !before_is_name || matches!(at(here.saturating_sub(1)), 'b' | 'c') => {
                let hashes = (here + 1..).take_while(|&i| at(i) == '#').count();
                let quote = here + 1 + hashes;
                if at(quote) != '"' {
                    here
                } else {
                    let closes = |i: usize| at(i) == '"' && (1..=hashes).all(|offset| at(i + offset) == '#');
                    (until(&letters, quote + 1, closes) + 1 + hashes).min(letters.len())
                }
            }
            // A lifetime has no closing quote; a character literal has it two places on, or begins with a backslash.
            '\'' if at(here + 1) == '\\' => until(&letters, here + 3, |i| at(i) == '\'') + 1,
            '\'' if at(here + 2) == '\'' => here + 3,
            _ => here,
        };
        if end == here {
            out.push(at(here));
            here += 1;
        } else {
            let end = end.min(letters.len());
            // A literal leaves a trace on each of its lines: they are code, and comments are not.
            let filler = if at(here) == '/' { ' ' } else { '"' };
            out.extend(letters[here..end].iter().map(|&letter| if letter == '\n' { '\n' } else { filler }));
            here = end;
        }
    }
    out
}

fn until(letters: &[char], from: usize, stop: impl Fn(usize) -> bool) -> usize {
    (from..letters.len()).find(|&index| stop(index)).unwrap_or(letters.len())
}

fn end_of_string(letters: &[char], from: usize) -> usize {
    let mut here = from;
    while here < letters.len() && letters[here] != '"' {
        here += if letters[here] == '\\' { 2 } else { 1 };
    }
    here + 1
}

fn end_of_block_comment(letters: &[char], from: usize) -> usize {
    let (mut here, mut depth) = (from, 0);
    while here + 1 < letters.len() {
        match (letters[here], letters[here + 1]) {
            ('/', '*') => (here, depth) = (here + 2, depth + 1),
            ('*', '/') => (here, depth) = (here + 2, depth - 1),
            _ => here += 1,
        }
        if depth == 0 {
            return here;
        }
    }
    letters.len()
}

/// Parts code into production and tests: every item below `#[cfg(test)]` is the latter. Both keep all line breaks.
fn split_tests(code: &str) -> (String, String) {
    // What the fuzzer calls is compiled for it and for the tests that replay what it found, and never for production.
    const MARKS: [&str; 2] = ["#[cfg(test)]", "#[cfg(any(test, fuzzing))]"];
    let next = |rest: &str| MARKS.iter().filter_map(|mark| Some((rest.find(mark)?, mark.len()))).min();
    let blank =
        |text: &str| text.chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }).collect::<String>();
    let (mut production, mut tests) = (String::new(), String::new());
    let mut rest = code;
    while let Some((start, length)) = next(rest) {
        let end = start + length + end_of_item(&rest[start + length..]);
        production += &rest[..start];
        production += &blank(&rest[start..end]);
        tests += &blank(&rest[..start]);
        tests += &rest[start..end];
        rest = &rest[end..];
    }
    production += rest;
    tests += &blank(rest);
    (production, tests)
}

/// Where the item that begins a text ends: at its semicolon, or at the brace that closes its first one.
fn end_of_item(code: &str) -> usize {
    let mut depth = 0_usize;
    for (index, letter) in code.char_indices() {
        match letter {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && letter == '}' {
                    return index + 1;
                }
            }
            ';' if depth == 0 => return index + 1,
            _ => {}
        }
    }
    code.len()
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Names, `::` and single other characters, each with its line.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut rest = code;
    while let Some(letter) = rest.chars().next() {
        let length = if is_name(letter) {
            rest.find(|letter| !is_name(letter)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            letter.len_utf8()
        };
        if letter == '\n' {
            line += 1;
        } else if !letter.is_whitespace() {
            found.push((line, &rest[..length]));
        }
        rest = &rest[length..];
    }
    found
}

/// Every path of two or more segments, and every path that `use` brings in; `module` is where `super` counts from.
fn paths(code: &str, module: &[String]) -> Vec<Named> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut here = 0;
    while here < tokens.len() {
        let (line, token) = tokens[here];
        if token == "use" {
            here = used_paths(&tokens, here + 1, &[], &mut found);
        } else if token.starts_with(is_name) {
            let mut segments = vec![token.to_owned()];
            while tokens.get(here + 1).is_some_and(|next| next.1 == "::")
                && tokens.get(here + 2).is_some_and(|next| next.1.starts_with(is_name))
            {
                segments.push(tokens[here + 2].1.to_owned());
                here += 2;
            }
            if segments.len() > 1 {
                found.push(Named { line, segments });
            }
            here += 1;
        } else {
            here += 1;
        }
    }
    for path in &mut found {
        resolve(&mut path.segments, module);
    }
    found
}

/// Expands one tree of a `use`, and gives the place of the token behind it.
fn used_paths(tokens: &[(usize, &str)], from: usize, prefix: &[String], found: &mut Vec<Named>) -> usize {
    let mut segments = prefix.to_vec();
    let mut here = from;
    let mut is_group = false;
    let mut line = tokens.get(from).map_or(1, |token| token.0);
    while let Some(&(at, token)) = tokens.get(here) {
        match token {
            ";" | "," | "}" => break,
            "{" => {
                is_group = true;
                here += 1;
                while tokens.get(here).is_some_and(|token| token.1 != "}") {
                    let next = used_paths(tokens, here, &segments, found);
                    here = if tokens.get(next).is_some_and(|token| token.1 == ",") { next + 1 } else { next };
                    // A token that fits nowhere must not hold this up for ever.
                    if tokens.get(here).is_some_and(|token| token.1 == ";") {
                        return here;
                    }
                }
            }
            // What it is called here does not change what it is.
            "as" => here += 1,
            name if name.starts_with(is_name) => {
                line = at;
                segments.push(name.to_owned());
            }
            _ => {}
        }
        here += 1;
    }
    if !is_group && segments.len() > prefix.len() {
        found.push(Named { line, segments });
    }
    here
}

/// Turns a path that begins with `self` or `super` into one that begins with `crate`.
fn resolve(segments: &mut Vec<String>, module: &[String]) {
    let ups = segments.iter().take_while(|segment| *segment == "super").count();
    let is_self = segments.first().is_some_and(|first| first == "self");
    // Deeper than the file's own module is an inline module: what it names cannot be told from here.
    if (ups == 0 && !is_self) || ups > module.len() {
        return;
    }
    let kept = module[..module.len() - ups].to_vec();
    let rest = segments.split_off(if is_self { 1 } else { ups });
    *segments = std::iter::once("crate".to_owned()).chain(kept).chain(rest).collect();
}

// --- The rules, shown what they have to find --------------------------------------------------------------------------

/// What a rule says of one made-up file.
fn lines(found: &[String]) -> String {
    let mut text = String::new();
    for line in found {
        let place: Vec<&str> = line.splitn(3, ':').take(2).collect();
        let _ = writeln!(text, "{}", place.join(":"));
    }
    text
}

#[test]
fn a_capability_that_names_another_is_found() {
    let code = "use crate::email::Sender;\n\
                use crate::{db::Connection, webhook::{self, Target}};\n\
                fn f() { crate::chat::g(); super::system::h(); self::i(); crate::webhook::j(); }\n\
                // crate::telegram in a comment\n\
                const TEXT: &str = \"crate::telegram\";\n\
                use {crate::app::Wiring as App, std::fmt};\n";
    let found = wrong_directions(&Source::new("server/webhook/mod.rs", code));
    let expected = "server/webhook/mod.rs:1\nserver/webhook/mod.rs:3\nserver/webhook/mod.rs:3\nserver/webhook/mod.rs:6\n";
    assert_eq!(lines(&found), expected, "{found:#?}");
}

#[test]
fn super_is_followed_to_the_root() {
    let found =
        wrong_directions(&Source::new("server/email/template/mod.rs", "use super::super::chat::Session;\n"));
    assert_eq!(found.len(), 1);
    let inside = Source::new("server/email/template/mod.rs", "use super::chat::Session;\n");
    assert_eq!(wrong_directions(&inside), [""; 0]);
}

#[test]
fn each_layer_is_held_below_the_next() {
    let cases = [
        ("server/db/mod.rs", "crate::event::Log", true),
        ("server/db/mod.rs", "crate::delivery::Job", true),
        ("server/db/mod.rs", "crate::clock::Clock", false),
        ("server/event/publish.rs", "crate::email::Email", true),
        ("server/event/publish.rs", "crate::delivery::Job", false),
        ("server/delivery/store.rs", "crate::webhook::Webhook", true),
        ("server/rpc/auth.rs", "crate::apikey::Key", true),
        ("server/clock.rs", "crate::db::Connection", true),
        ("server/error.rs", "crate::rpc::status", true),
        ("server/id.rs", "crate::error::Error", false),
        ("server/config/mod.rs", "crate::cli::Arguments", true),
        ("server/app/mod.rs", "crate::cli::Arguments", false),
        ("server/cli/serve.rs", "crate::app::run", false),
    ];
    for (path, named, forbidden) in cases {
        let found = wrong_directions(&Source::new(path, &format!("use {named};\n")));
        assert_eq!(!found.is_empty(), forbidden, "{path} naming {named}: {found:?}");
    }
    let several = "use crate::email::A;\nuse crate::chat::B;\n";
    assert_eq!(wrong_directions(&Source::new("server/config/mod.rs", several)).len(), 1);
    assert_eq!(wrong_directions(&Source::new("server/app.rs", several)), [""; 0]);
}

#[test]
fn each_boundary_is_held() {
    let cases = [
        ("server/email/service.rs", "fn f() -> tonic::Status { }", true),
        ("server/email/service.rs", "use crate::{id, pb::email::v1};", true),
        ("server/email/rpc.rs", "use tonic::Status;", false),
        ("server/notification/frame.rs", "use prost::Message;", false),
        ("server/email/service.rs", "#[derive(diesel::Queryable)]", true),
        ("server/email/store.rs", "use diesel::prelude::*;", false),
        ("server/event/log.rs", "use diesel_async::RunQueryDsl;", false),
        ("server/webhook/sign.rs", "use lettre::Message;", true),
        ("server/email/smtp/lane.rs", "use lettre::Message;", false),
        ("server/email/smtp/lane.rs", "use hyper_util::{rt, client::legacy::Client};", true),
        ("server/webhook/client.rs", "use hyper_util::client::legacy::Client;", false),
        ("server/rpc/serve.rs", "use hyper_util::server::conn::auto;", false),
        ("server/email/service.rs", "let now = std::time::SystemTime::now();", true),
        ("server/email/service.rs", "let now = tokio::time::Instant::now();", true),
        ("server/clock.rs", "let now = Instant::now();", false),
        ("server/email/service.rs", "let id = Ulid::new();", true),
        ("server/email/service.rs", "let now = clock.now();", false),
    ];
    for (path, code, forbidden) in cases {
        let found = crossed_boundaries(&Source::new(path, code));
        assert_eq!(!found.is_empty(), forbidden, "{path}: {code}: {found:?}");
    }
}

#[test]
fn tests_may_cross_what_production_may_not() {
    let code = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use diesel::prelude::*;\n    fn g() { { } }\n}\nuse diesel::Queryable;\n";
    let found = crossed_boundaries(&Source::new("server/email/service.rs", code));
    assert_eq!(lines(&found), "server/email/service.rs:7\n");
    assert_eq!(crossed_boundaries(&Source::new("server/email/tests.rs", "use diesel::prelude::*;")), [""; 0]);
}

#[test]
fn files_that_only_tests_bring_in_are_tests() {
    for mark in ["#[cfg(test)]", "#[cfg(any(test, fuzzing))]"] {
        let mut sources = vec![
            Source::new("server/email/mod.rs", &format!("{mark}\npub mod samples;\nmod service;\n")),
            Source::new("server/email/samples.rs", "use diesel::prelude::*;\n"),
            Source::new("server/email/service.rs", "use diesel::prelude::*;\n"),
        ];
        mark_test_files(&mut sources);
        let found: Vec<String> = sources.iter().flat_map(crossed_boundaries).collect();
        assert_eq!(lines(&found), "server/email/service.rs:1\n", "{mark}");
    }
}

#[test]
fn large_files_are_found_and_comments_not_counted() {
    let source = |code: String| vec![Source::new("server/email/mod.rs", &code)];
    let code = "let a = 1;\n".repeat(LARGEST_FILE);
    let commented = format!("{code}{}/*\n * more\n */\n", "    // why\n".repeat(9));
    let tested = format!("{code}#[cfg(test)]\nmod tests {{\n{}}}\n", "    let a = 1;\n".repeat(9));
    let quoted =
        format!("{}const A: &str = r#\"\n\n// text\n\"#;\n", "let a = 1;\n".repeat(LARGEST_FILE - 3));
    for (name, code, expected) in [
        ("as large as may be", code.clone(), 1),
        ("comments do not count", commented, 1),
        ("tests do not count", tested, 1),
        ("one line more", format!("{code}let b = 2;\n"), 2),
        ("blank lines count", format!("{code}\n"), 2),
        ("text counts", quoted, 2),
    ] {
        // One finding is always the median, which a single file of this size exceeds.
        assert_eq!(oversized(&source(code)).len(), expected, "{name}");
    }
    assert_eq!(oversized(&source("let a = 1;\n".repeat(MEDIAN_FILE))), [""; 0]);
}

#[test]
fn sleeping_tests_are_found() {
    let code = "async fn f() { tokio::time::sleep(d).await }\n#[cfg(test)]\nmod tests {\n    use std::thread::sleep;\n}\n";
    assert_eq!(lines(&sleeps(&Source::new("server/email/mod.rs", code))), "server/email/mod.rs:4\n");
    let found = sleeps(&Source::new("tests/email.rs", "async fn f() {\n    time::sleep(second).await;\n}\n"));
    assert_eq!(lines(&found), "tests/email.rs:2\n");
}

#[test]
fn unfinished_code_and_notes_are_found() {
    let code =
        format!("fn f() {{ {}!() }}\n#[{}]\nfn g() {{ unimplemented !() }}\n", "todo", "ignore = \"slow\"");
    assert_eq!(
        lines(&unfinished(&Source::new("server/a.rs", &code))),
        "server/a.rs:1\nserver/a.rs:2\nserver/a.rs:3\n"
    );
    assert_eq!(unfinished(&Source::new("server/a.rs", "/// Never `todo!()`.\nfn todo() {}\n")), [""; 0]);
    assert_eq!(lines(&notes("a.md", &format!("fine\n// {}: later\n", NOTES[0]))), "a.md:2\n");
    assert_eq!(notes("a.md", "TODOS and todo are words\n"), [""; 0]);
}

#[test]
fn comments_and_literals_are_blanked() {
    let text = "a /* b /* c */ d */ e // f\n'g' '\\'' 'h: \"i\\\"j\" r#\"k\"l\"# b\"m\" br\"n\" r#type o\n\"p\nq\" s";
    let code = blank_comments_and_literals(text);
    let names: Vec<(usize, &str)> =
        tokens(&code).into_iter().filter(|(_, token)| token.starts_with(is_name)).collect();
    let expected =
        [(1, "a"), (1, "e"), (2, "h"), (2, "b"), (2, "b"), (2, "r"), (2, "type"), (2, "o"), (4, "s")];
    assert_eq!(names, expected, "{code}");
}

#[test]
fn paths_are_listed_whole() {
    let code =
        "pub use a::{b, c::{self, d as e}, f::*};\nlet x = g::<h::i>::j();\n::k::l();\nimpl m for n {}\n";
    let found: Vec<String> = paths(code, &[]).into_iter().map(|path| path.segments.join("::")).collect();
    assert_eq!(found, ["a::b", "a::c::self", "a::c::d", "a::f", "h::i", "k::l"]);
}
