//! Names of hosts that are allowed.

use url::Host;

/// One name, or every name under one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPattern {
    name: String,
    below: bool,
}

impl HostPattern {
    /// Reads `hooks.example.com`, or `*.example.com` for all names under `example.com` and not that name itself.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        // The same reading as in a URL: lower case, and ASCII for names of other scripts.
        match Host::parse(name) {
            _ if name.contains('*') => {
                Err(format!("{text} must have its * at the beginning, as in *.example.com"))
            }
            Ok(Host::Domain(name)) => Ok(Self { name: trimmed(&name).to_owned(), below }),
            Ok(_) => Err(format!("{text} is an address: allow its network instead")),
            Err(error) => Err(format!("{text} is not the name of a host: {error}")),
        }
    }

    /// Whether this is about the host of a URL, which is in lower case.
    pub(super) fn matches(&self, host: &str) -> bool {
        let host = trimmed(host);
        if self.below {
            host.strip_suffix(&self.name).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
        } else {
            host == self.name
        }
    }
}

/// A name's last dot says that it is complete, and changes nothing else.
fn trimmed(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_one_name_or_all_below_one() {
        let matches = |pattern: &str, host: &str| HostPattern::parse(pattern).unwrap().matches(host);
        for (pattern, host) in [
            ("localhost", "localhost"),
            ("Hooks.Example.com", "hooks.example.com"),
            ("hooks.example.com", "hooks.example.com."),
            ("hooks.example.com.", "hooks.example.com"),
            ("*.example.com", "a.example.com"),
            ("*.example.com", "a.b.example.com."),
            ("bücher.example", "xn--bcher-kva.example"),
        ] {
            assert!(matches(pattern, host), "{pattern} and {host}");
        }
        for (pattern, host) in [
            ("example.com", "a.example.com"),
            ("example.com", "example.com.evil.net"),
            ("*.example.com", "example.com"),
            ("*.example.com", ".example.com"),
            ("*.example.com", "badexample.com"),
            ("*.example.com", "a.example.com.evil.net"),
        ] {
            assert!(!matches(pattern, host), "{pattern} and {host}");
        }
    }

    #[test]
    fn what_is_no_name_is_no_pattern() {
        for text in [
            "",
            "*",
            "*.",
            "a.*",
            "*.*.com",
            "**.com",
            "127.0.0.1",
            "[::1]",
            "2130706433",
            "a b",
            "a/b",
            "a:80",
        ] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }
}
