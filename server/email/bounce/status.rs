//! What an enhanced status code (RFC 3463) says about an address.

/// Codes that say that the address is gone, and not that its server was full, busy, or did not like the mail.
const GONE: [&str; 6] = ["5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"];
/// Codes that say that it failed, and not why.
const VAGUE: [&str; 4] = ["", "5.0.0", "5.1.0", "5.5.0"];
/// How servers say that there is nobody of that name, in lower case.
const NOBODY: [&str; 12] = [
    "user unknown",
    "unknown user",
    "no such user",
    "no such recipient",
    "no such mailbox",
    "no mailbox here",
    "user does not exist",
    "recipient unknown",
    "unknown recipient",
    "invalid recipient",
    "mailbox not found",
    "recipient not found",
];

/// The code of a recipient: that of the field `Status`, unless what the server said is more exact.
pub(super) fn of(field: &str, diagnostic: &str) -> String {
    let field = first(field);
    let said = first(diagnostic);
    match (field, said) {
        (Some(field), Some(said)) if field.ends_with(".0.0") && said.as_bytes()[0] == field.as_bytes()[0] => {
            said
        }
        (Some(field), _) => field,
        (None, said) => said.unwrap_or_default(),
    }
    .to_owned()
}

/// Whether the address gets no more mail.
pub(super) fn is_gone(status: &str, diagnostic: &str) -> bool {
    if GONE.contains(&status) {
        return true;
    }
    let said = diagnostic.to_ascii_lowercase();
    // A refused sender is not the recipient's fault, and what passes is not for good.
    let is_for_good = !said.starts_with('4') && !said.contains("sender");
    VAGUE.contains(&status) && is_for_good && NOBODY.iter().any(|words| said.contains(words))
}

/// The first enhanced status code in a text.
fn first(text: &str) -> Option<&str> {
    let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.map(|word| word.trim_end_matches('.')).find(|word| is_code(word))
}

fn is_code(word: &str) -> bool {
    let mut parts = word.split('.');
    let class = parts.next().is_some_and(|class| matches!(class, "2" | "4" | "5"));
    let number = |part: Option<&str>| part.is_some_and(|part| (1..=3).contains(&part.len()));
    // Four numbers are the address of a server.
    class && number(parts.next()) && number(parts.next()) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_exact_code_counts() {
        for (field, diagnostic, code) in [
            ("5.1.1", "550 5.1.1 <x>: user unknown", "5.1.1"),
            ("5.1.1 (bad mailbox)", "", "5.1.1"),
            ("5.0.0", "550-5.1.1 The email account does not exist", "5.1.1"),
            ("5.0.0", "host 5.10.20.30 said: 550 no", "5.0.0"),
            ("5.7.1", "550 5.1.1 x", "5.7.1"),
            ("", "#5.1.10 smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound", "5.1.10"),
            ("5.0.0", "450 4.2.2 full", "5.0.0"),
            ("", "no", ""),
            ("no", "550 no", ""),
        ] {
            assert_eq!(of(field, diagnostic), code, "{field} {diagnostic}");
        }
    }

    #[test]
    fn only_an_address_that_is_gone_is_gone() {
        for (status, diagnostic, gone) in [
            ("5.1.1", "", true),
            ("5.1.2", "", true),
            ("5.1.10", "", true),
            ("5.2.1", "mailbox disabled", true),
            ("5.2.2", "mailbox full", false),
            ("5.7.1", "user unknown, they say", false),
            ("5.7.26", "", false),
            ("5.1.8", "", false),
            ("4.4.7", "", false),
            ("5.0.0", "550 No such user here", true),
            ("5.0.0", "550 sender: user unknown", false),
            ("5.0.0", "554 rejected", false),
            ("", "450 user unknown", false),
            ("", "550 user unknown", true),
            ("", "", false),
        ] {
            assert_eq!(is_gone(status, diagnostic), gone, "{status} {diagnostic}");
        }
    }
}
