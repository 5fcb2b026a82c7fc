//! The envelope's commands, and what may stand in them.

use super::ehlo::Extensions;

/// The longest address, in bytes (RFC 3696 with its erratum has 254; some are generous).
const ADDRESS_LIMIT: usize = 320;

/// What is wrong with an address on the wire, where anything but an address would become a command.
pub(super) fn check(address: &str) -> Result<(), &'static str> {
    if address.is_empty() {
        return Err("it is empty");
    }
    if address.len() > ADDRESS_LIMIT {
        return Err("it is too long");
    }
    // Separators of lines in Unicode count as whitespace.
    if address.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>')) {
        return Err("it has characters that no address has");
    }
    match address.rsplit_once('@') {
        Some((local, domain)) if !local.is_empty() && !domain.is_empty() => Ok(()),
        _ => Err("it is not of the form name@domain"),
    }
}

/// MAIL, with the parameters that the server knows and the message needs.
pub(super) fn mail(
    out: &mut Vec<u8>,
    from: &str,
    size: usize,
    eight_bit: bool,
    utf8: bool,
    server: &Extensions,
) {
    out.extend_from_slice(b"MAIL FROM:<");
    out.extend_from_slice(from.as_bytes());
    out.push(b'>');
    if server.size {
        out.extend_from_slice(format!(" SIZE={size}").as_bytes());
    }
    if eight_bit && server.eight_bit {
        out.extend_from_slice(b" BODY=8BITMIME");
    }
    if utf8 && server.utf8 {
        out.extend_from_slice(b" SMTPUTF8");
    }
    out.extend_from_slice(b"\r\n");
}

/// RCPT.
pub(super) fn recipient(out: &mut Vec<u8>, to: &str) {
    out.extend_from_slice(b"RCPT TO:<");
    out.extend_from_slice(to.as_bytes());
    out.extend_from_slice(b">\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_sent_only_when_known_and_needed() {
        let all = Extensions { size: true, eight_bit: true, utf8: true, ..Default::default() };
        let line = |eight_bit, utf8, server: &Extensions| {
            let mut out = Vec::new();
            mail(&mut out, "a@example.com", 10, eight_bit, utf8, server);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(line(true, true, &Extensions::default()), "MAIL FROM:<a@example.com>\r\n");
        assert_eq!(line(false, false, &all), "MAIL FROM:<a@example.com> SIZE=10\r\n");
        assert_eq!(line(true, true, &all), "MAIL FROM:<a@example.com> SIZE=10 BODY=8BITMIME SMTPUTF8\r\n");
    }

    #[test]
    fn what_is_no_address_stays_off_the_wire() {
        for good in ["a@example.com", "\"a\"@example.com", "a+b@[127.0.0.1]", "ü@example.com"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a",
            "@example.com",
            "a@",
            "a b@example.com",
            "a>@example.com",
            "<a@example.com",
            "a@example.com\r\nDATA",
            "a@example.com\n",
            "a@example.com\0",
            "a\u{2028}@example.com",
            "a\u{85}@example.com",
            "\"a\r\nRSET\r\n\"@example.com",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check(&format!("{}@example.com", "a".repeat(400))).is_err());
    }

    proptest! {
        #[test]
        fn an_address_that_passes_is_one_line(address in "\\PC{0,20}[\r\n<> a@.]{0,6}\\PC{0,20}") {
            if check(&address).is_ok() {
                let mut out = Vec::new();
                recipient(&mut out, &address);
                let text = String::from_utf8(out).unwrap();
                prop_assert_eq!(text.matches(['\r', '\n']).count(), 2);
                prop_assert_eq!(text.matches(['<', '>']).count(), 2);
            }
        }
    }
}
