//! Mail addresses: read, checked, and written in one form.
//!
//! The local part is kept as it was written: only its own server knows whether case or dots matter there (RFC 5321,
//! section 2.4).  It has to be ASCII, because an address beyond that needs SMTPUTF8 (RFC 6531) on the whole way, which
//! neither this server nor most others have; an internationalised domain has a form in ASCII, and is written in it.

use lettre::Address;
use lettre::message::Mailbox;

/// A name and an address, in characters; longer names are of no use to anybody.
const LENGTH_LIMIT: usize = 512;
/// RFC 5321, section 4.5.3.1.1.
const LOCAL_LIMIT: usize = 64;
/// A path has 256 octets with its angle brackets (RFC 5321, section 4.5.3.1.3).
const ADDRESS_LIMIT: usize = 254;
/// RFC 1035, section 2.3.4, in text without the last dot.
const DOMAIN_LIMIT: usize = 253;
const LABEL_LIMIT: usize = 63;

/// Reads `address` or `name <address>`.  The domain of the result is in lower-case ASCII.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Mailbox, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.chars().count() > LENGTH_LIMIT {
        return Err(format!("must have at most {LENGTH_LIMIT} characters"));
    }
    if text.chars().any(breaks_lines) {
        return Err("must not have control characters".into());
    }
    let Some(inner) = text.strip_suffix('>') else {
        return Ok(Mailbox::new(None, address(text)?));
    };
    let wrong = || format!("{text:?} is not a mail address");
    let (name, bare) = inner.rsplit_once('<').ok_or_else(wrong)?;
    Ok(Mailbox::new(display(name.trim()).ok_or_else(wrong)?, address(bare.trim())?))
}

/// Whether a character is one that could end a header's line, for this server or for somebody who reads it later.
pub(super) fn breaks_lines(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The name before an address, without its quotes: `Some(None)` when it is empty, `None` when it is none.
fn display(text: &str) -> Option<Option<String>> {
    let mut name = String::with_capacity(text.len());
    if let Some(quoted) = text.strip_prefix('"') {
        let mut characters = quoted.strip_suffix('"')?.chars();
        while let Some(c) = characters.next() {
            name.push(match c {
                '\\' => characters.next()?,
                '"' => return None,
                c => c,
            });
        }
    } else {
        // These would make it another address, or part of a list.
        if text.contains(['"', '<', '>', '@', ',', ';', '\\']) {
            return None;
        }
        name.push_str(text);
    }
    let name = name.trim();
    Some((!name.is_empty()).then(|| name.to_owned()))
}

fn address(text: &str) -> Result<Address, String> {
    let wrong = || format!("{text:?} is not a mail address");
    let (local, domain) = text.rsplit_once('@').ok_or_else(wrong)?;
    if !local.is_ascii() {
        return Err(format!("{text:?} has characters before the @ that mail servers do not take"));
    }
    if local.len() > LOCAL_LIMIT {
        return Err(format!("{text:?} must have at most {LOCAL_LIMIT} characters before the @"));
    }
    // Programs that look for encoded words everywhere would read another address.
    if !is_local(local) || local.contains("=?") {
        return Err(wrong());
    }
    if domain.starts_with('[') {
        return Err(format!("{text:?} must have a domain, not an IP address"));
    }
    let domain = mail_domain(domain).ok_or_else(wrong)?;
    if local.len() + 1 + domain.len() > ADDRESS_LIMIT {
        return Err(format!("an address must have at most {ADDRESS_LIMIT} characters"));
    }
    Address::new(local, &domain).map_err(|_| wrong())
}

/// Whether this is a dot-atom, or a quoted one whose dots are where only quotes allow them, as some old mailboxes have
/// it.  Anything else that quotes allow is legal, used by nobody, and an invitation to whoever splits addresses by hand.
fn is_local(local: &str) -> bool {
    let quoted = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let atoms = quoted.unwrap_or(local);
    let plain = |atom: &str| atom.bytes().all(is_atom);
    !atoms.is_empty() && atoms.split('.').all(|atom| plain(atom) && (quoted.is_some() || !atom.is_empty()))
}

/// The characters of an atom (RFC 5322, section 3.2.3).
pub(super) fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn mail_domain(domain: &str) -> Option<String> {
    let ascii = domain_to_ascii(domain).ok()?;
    let label = |label: &str| {
        (1..=LABEL_LIMIT).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = ascii.rsplit('.').next()?;
    // Whose last label is a number is an IPv4 address, or pretends to be one.
    let number = last.bytes().all(|byte| byte.is_ascii_digit());
    (ascii.len() <= DOMAIN_LIMIT && ascii.split('.').all(label) && !number).then_some(ascii)
}

/// The bare address of `name <address>`, for the envelope.
pub fn envelope_address(text: &str) -> Option<String> {
    Some(parse(text).ok()?.email.to_string())
}

/// What two writings of one address have in common: the bare address in lower case.
pub fn suppression_key(text: &str) -> Option<String> {
    Some(parse(text).ok()?.email.to_string().to_ascii_lowercase())
}

/// Reads addresses separated by commas, semicolons or line ends; inside quotes these belong to a name.  Answers them in
/// their one written form, without duplicates.
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
    list.into_iter()
        .filter(|text| seen.insert(suppression_key(text).unwrap_or_else(|| text.to_ascii_lowercase())))
        .collect()
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        let is_escaped = escaped;
        escaped = quoted && c == '\\' && !is_escaped;
        quoted ^= c == '"' && !is_escaped;
        matches!(c, ',' | ';' | '\n' | '\r') && !quoted
    })
}

/// A domain in its one written form: lower case, and in ASCII (UTS 46, as browsers have it).
///
/// # Errors
/// What is wrong with it.
pub fn domain_to_ascii(domain: &str) -> Result<String, String> {
    let plain = !domain.is_empty()
        && domain.chars().all(|c| !c.is_ascii() || c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
    let ascii =
        plain.then(|| idna::domain_to_ascii_cow(domain.as_bytes(), idna::AsciiDenyList::STD3).ok()).flatten();
    ascii
        .filter(|ascii| !ascii.is_empty())
        .map(String::from)
        .ok_or_else(|| format!("{domain:?} is not a domain"))
}

/// The domain in `name <address>`, as domains are compared.
pub fn domain(text: &str) -> Option<String> {
    suppression_key(text)?.rsplit_once('@').map(|(_, domain)| domain.to_owned())
}

/// The name in `name <address>`, if there is one.
pub fn display_name(text: &str) -> Option<String> {
    parse(text).ok()?.name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_and_bad_ones_refused() {
        for good in [
            "jo@example.com",
            " Jo Doe <jo@example.com> ",
            "\"Doe, Jo\" <jo@example.com>",
            "Jo (Sales) B. Doe <jo@example.com>",
            "jo+tag@example.co.uk",
            "\"jo..doe\"@example.com",
            "root@localhost",
            "<jo@example.com>",
            "o'neil/sales=a@example.com",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(65));
        let far = format!("jo@{}.com", "a.".repeat(130));
        let label = format!("jo@{}.com", "a".repeat(64));
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
            "jo@example.com, Sam <sam@example.com>",
            "Jo\0 <jo@example.com>",
            "Jo\u{2028}Doe <jo@example.com>",
            "\"Jo\" Doe\" <jo@example.com>",
            "\"Jo\\\" <jo@example.com>",
            "Jo <jo@example.com> <sam@example.com>",
            "jo@[127.0.0.1]",
            "jo@[IPv6:::1]",
            "jo@127.0.0.1",
            "jo@example.com.",
            "jo@.example.com",
            "jo@-example.com",
            "jo..doe@example.com",
            ".jo@example.com",
            "\"jo doe\"@example.com",
            "\"jo\\\"\"@example.com",
            "\"\"@example.com",
            "jö@example.com",
            "jo@exa_mple.com",
            "=?utf-8?q?evil=40example.net=3e=00?=@example.com",
            &long,
            &far,
            &label,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_domain_has_one_written_form_and_the_local_part_keeps_its_own() {
        for (text, written) in [
            ("Jo.Doe@EXAMPLE.com", "Jo.Doe@example.com"),
            ("jo@Bücher.example", "jo@xn--bcher-kva.example"),
            ("jo@ｅｘａｍｐｌｅ。com", "jo@example.com"),
            ("jo@हिन्दी.example", "jo@xn--j2bd4cyah0f.example"),
            ("Zoë <jo@例え.テスト>", "Zoë <jo@xn--r8jz45g.xn--zckzah>"),
            ("\"Doe, Jo\" <JO@example.com>", "\"Doe, Jo\" <JO@example.com>"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), written);
        }
        assert_eq!(envelope_address("Jo <Jo@Example.com>").as_deref(), Some("Jo@example.com"));
        assert_eq!(suppression_key("Jo <Jo@Example.com>").as_deref(), Some("jo@example.com"));
        assert_eq!((envelope_address("nobody"), suppression_key("")), (None, None));
    }

    #[test]
    fn a_list_may_be_written_with_separators_and_loses_its_duplicates() {
        let list =
            parse_list("a@example.com, B <b@example.com>,\"C, \\\"D\" <c@example.com>, A@EXAMPLE.com,")
                .unwrap();
        assert_eq!(list, ["a@example.com", "B <b@example.com>", "\"C, \\\"D\" <c@example.com>"]);
        let list = parse_list("a@example.com;b@example.com\r\nc@bücher.example\n\n;C@xn--bcher-kva.example")
            .unwrap();
        assert_eq!(list, ["a@example.com", "b@example.com", "c@xn--bcher-kva.example"]);
        assert!(parse_list("a@example.com, nobody").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again_as_the_same(name in "\\PC{0,40}", local in "[a-zA-Z0-9.'+]{1,20}") {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(one) = parse(&format!("\"{quoted}\" <{local}@Example.com>")) {
                prop_assert_eq!(one.name.as_deref().unwrap_or_default(), name.trim());
                prop_assert_eq!(parse(&one.to_string()), Ok(one));
            }
        }

        #[test]
        fn nothing_that_is_read_breaks_a_line(text in "(?s).{0,40}") {
            if let Ok(mailbox) = parse(&text) {
                prop_assert!(!mailbox.to_string().chars().any(breaks_lines));
                prop_assert!(mailbox.email.to_string().is_ascii());
            }
        }
    }
}
