//! Mail addresses: read, checked, and written in one form.

use lettre::message::Mailbox;

const LENGTH_LIMIT: usize = 320;

/// Reads `address` or `name <address>`.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Mailbox, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.len() > LENGTH_LIMIT {
        return Err(format!("must have at most {LENGTH_LIMIT} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not have control characters".into());
    }
    text.parse().map_err(|_| format!("{text:?} is not a mail address"))
}

/// Reads addresses separated by commas; a comma inside quotes belongs to a name.  Answers them in their one written form,
/// without duplicates.
///
/// # Errors
/// What is wrong with the first bad one.
pub fn parse_list(text: &str) -> Result<Vec<String>, String> {
    let mut list = Vec::new();
    for part in split(text) {
        if !part.trim().is_empty() {
            list.push(parse(part)?.to_string());
        }
    }
    Ok(without_duplicates(list))
}

/// The list without repeated addresses; the first of each stays.
pub fn without_duplicates(list: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let key = |text: &String| parse(text).map_or_else(|_| text.clone(), |mailbox| mailbox.email.to_string());
    list.into_iter().filter(|text| seen.insert(key(text).to_ascii_lowercase())).collect()
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

/// A domain in its one written form: lower case, and in ASCII (UTS 46, as browsers have it).
///
/// # Errors
/// What is wrong with it.
pub fn domain_to_ascii(domain: &str) -> Result<String, String> {
    let plain = !domain.is_empty() && domain.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.'));
    let ascii =
        plain.then(|| idna::domain_to_ascii_cow(domain.as_bytes(), idna::AsciiDenyList::STD3).ok()).flatten();
    ascii.map(String::from).ok_or_else(|| format!("{domain:?} is not a domain"))
}

/// The name in `name <address>`, if there is one.
pub fn display_name(text: &str) -> Option<String> {
    parse(text).ok()?.name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_bad_ones_refused() {
        for good in [
            "jo@example.com",
            " Jo Doe <jo@example.com> ",
            "\"Doe, Jo\" <jo@example.com>",
            "jo+tag@example.co.uk",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "jo",
            "@example.com",
            "jo@",
            "jo@@example.com",
            "jo@example.com\r\nBcc: x@example.com",
            "jo@exa mple.com",
            "a@b@c",
            "<jo@example.com",
            "jo@example.com, sam@example.com",
            "Jo\0 <jo@example.com>",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_list_may_be_written_with_commas_and_loses_its_duplicates() {
        let list =
            parse_list("a@example.com, B <b@example.com>,\"C, D\" <c@example.com>, A@EXAMPLE.com,").unwrap();
        assert_eq!(list, ["a@example.com", "B <b@example.com>", "\"C, D\" <c@example.com>"]);
        assert!(parse_list("a@example.com, nobody").is_err());
    }
}
