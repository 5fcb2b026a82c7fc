//! Tells programs that load everything in a mail from readers, as far as they let one.

use http::{HeaderMap, header};

/// In lower case.  The proxies of mail services load a mail's pictures when it arrives or is opened; the scanners follow
/// its links before anybody reads it.
const PROGRAMS: [&str; 29] = [
    "googleimageproxy",
    "ggpht.com",
    // The browser that Gmail's prefetching claims to be.
    "edge/12.246",
    "yahoomailproxy",
    "barracuda",
    "proofpoint",
    "mimecast",
    "safelinks",
    "symantec",
    "trendmicro",
    "fireeye",
    "microsoft office existence discovery",
    "slackbot",
    "facebookexternalhit",
    "whatsapp/",
    "headlesschrome",
    "phantomjs",
    "curl/",
    "wget/",
    "python-",
    "go-http-client",
    "java/",
    "okhttp/",
    "apache-httpclient",
    "crawler",
    "spider",
    "bot/",
    "bot;",
    "+http",
];
/// All that Apple's Mail Privacy Protection says about itself.
const APPLE_PRIVACY: &str = "Mozilla/5.0";
const SHOWN: usize = 256;

/// What asked for a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Agent {
    /// What it calls itself, shortened.
    pub name: String,
    /// Whether it is a program rather than a person's reader.
    pub is_automated: bool,
}

impl Agent {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let name = text(header::USER_AGENT.as_str()).trim();
        let lower = name.to_ascii_lowercase();
        let is_program =
            name.is_empty() || name == APPLE_PRIVACY || PROGRAMS.iter().any(|p| lower.contains(p));
        let fetches_ahead = ["purpose", "sec-purpose", "x-purpose", "x-moz"]
            .iter()
            .map(|name| text(name).to_ascii_lowercase())
            .any(|purpose| purpose.contains("prefetch") || purpose.contains("preview"));
        // A header value that is text is ASCII without control characters, tabs aside.
        let name = name.chars().take(SHOWN).collect();
        Self { name, is_automated: is_program || fetches_ahead }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> Agent {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, name.parse().unwrap());
        Agent::of(&headers)
    }

    #[test]
    fn programs_are_told_from_readers() {
        for program in [
            "Mozilla/5.0",
            "",
            "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
            "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
            "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
            "curl/8.5.0",
        ] {
            assert!(agent(program).is_automated, "{program}");
        }
        for reader in [
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)",
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunderbird/128.5.0",
            "Mozilla/5.0 (Linux; Android 9; CUBOT NOTE 20) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36",
        ] {
            assert!(!agent(reader).is_automated, "{reader}");
        }
        assert!(Agent::of(&HeaderMap::new()).is_automated);
        assert_eq!(agent(&"x".repeat(1_000)).name.len(), SHOWN);
    }

    #[test]
    fn what_fetches_ahead_is_a_program() {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, "Mozilla/5.0 (X11) Firefox/128.0".parse().unwrap());
        headers.insert("sec-purpose", "prefetch;prerender".parse().unwrap());
        assert!(Agent::of(&headers).is_automated);
    }
}
