//! Named places at which a test ends the process, and bugs that a test builds in to see that its checker finds them.
//!
//! Only the cargo feature `failpoints` gives them any effect, and only the tests of this package have it on; without it both
//! functions are empty, and the compiler removes the calls.  With it, `SWITCHBOARD_FAILPOINTS` says at the start of the
//! process what happens where, as `accept.committed=kill:17` or `attempt.begin=kill:3:50,cursor_off_by_one=bug:2`:
//! * `kill:N` ends the process at the Nth pass as `kill -9` would: nothing is unwound, flushed or told to anybody;
//! * `kill:N:MILLISECONDS` does so that long after the Nth pass, so that others get on meanwhile;
//! * `bug:N` makes the bug of that name happen at every Nth pass.
//!
//! The `fail` crate has no action that ends the process without unwinding it, and brings a second version of `rand`.

#[cfg(feature = "failpoints")]
pub use enabled::{bug, pass};

/// Ends the process here, if a test wants that.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn pass(_place: &str) {}

/// Whether the bug of this name is to happen here.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn bug(_name: &str) -> bool {
    false
}

#[cfg(feature = "failpoints")]
mod enabled {
    use std::collections::HashMap;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    const VARIABLE: &str = "SWITCHBOARD_FAILPOINTS";

    static POINTS: LazyLock<HashMap<String, Point>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        parse(&text).unwrap_or_else(|wrong| panic!("{VARIABLE}: {wrong}"))
    });

    struct Point {
        action: Action,
        passes: AtomicU64,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Action {
        Kill { at: u64, after: Duration },
        Bug { every: u64 },
    }

    /// Ends the process here, if a test wants that.
    pub fn pass(place: &str) {
        if let Some(Point { action: Action::Kill { at, after }, passes }) = POINTS.get(place)
            && passes.fetch_add(1, Ordering::Relaxed) + 1 == *at
        {
            std::thread::sleep(*after);
            std::process::abort();
        }
    }

    /// Whether the bug of this name is to happen here.
    pub fn bug(name: &str) -> bool {
        matches!(POINTS.get(name), Some(Point { action: Action::Bug { every }, passes })
            if (passes.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(*every))
    }

    fn parse(text: &str) -> Result<HashMap<String, Point>, String> {
        let one = |part: &str| {
            let (name, action) = part.split_once('=').ok_or_else(|| format!("no action in {part:?}"))?;
            let action = action_of(action).ok_or_else(|| format!("no such action: {action:?}"))?;
            Ok((name.to_owned(), Point { action, passes: AtomicU64::new(0) }))
        };
        text.split(',').filter(|part| !part.is_empty()).map(one).collect()
    }

    fn action_of(text: &str) -> Option<Action> {
        let mut words = text.split(':');
        let word = words.next()?;
        let number = words.next()?.parse().ok().filter(|number| *number > 0)?;
        let extra: Option<u64> = words.next().map(str::parse).transpose().ok()?;
        match (word, extra, words.next()) {
            ("kill", extra, None) => {
                Some(Action::Kill { at: number, after: Duration::from_millis(extra.unwrap_or_default()) })
            }
            ("bug", None, None) => Some(Action::Bug { every: number }),
            _ => None,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn actions_are_read() {
            let kill = |at, after| Some(Action::Kill { at, after: Duration::from_millis(after) });
            for (text, action) in [
                ("kill:1", kill(1, 0)),
                ("kill:17:250", kill(17, 250)),
                ("bug:3", Some(Action::Bug { every: 3 })),
                ("kill", None),
                ("kill:0", None),
                ("bug:1:2", None),
                ("kill:1:2:3", None),
                ("pause:1", None),
            ] {
                assert_eq!(action_of(text), action, "{text}");
            }
        }

        #[test]
        fn places_are_read() {
            assert_eq!(parse("").unwrap().len(), 0);
            let points = parse("a.b=kill:2,c=bug:1").unwrap();
            assert_eq!(points["c"].action, Action::Bug { every: 1 });
            assert_eq!(points.len(), 2);
            assert!(parse("a.b").is_err() && parse("a.b=stop:1").is_err());
        }
    }
}
