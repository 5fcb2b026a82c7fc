//! The language of a text, as a BCP 47 tag (RFC 5646) of language, script and region.

/// A tag in its one written form: `fr`, `fr-CA`, `zh-Hant-TW`.  Empty stays empty: the text that others fall back to.
///
/// # Errors
/// What is wrong with it.
pub fn normalise(tag: &str) -> Result<String, String> {
    if tag.is_empty() {
        return Ok(String::new());
    }
    let mut parts = tag.split('-');
    let language = parts.next().unwrap_or_default();
    let mut rest = parts.next();
    let mut written = Some(language.to_ascii_lowercase())
        .filter(|language| (2..=3).contains(&language.len()) && is_letters(language));
    if let Some(script) = rest.filter(|part| part.len() == 4 && is_letters(part)) {
        let (first, others) = script.split_at(1);
        written =
            written.map(|tag| format!("{tag}-{}{}", first.to_ascii_uppercase(), others.to_ascii_lowercase()));
        rest = parts.next();
    }
    if let Some(region) = rest.filter(|part| part.len() == 2 && is_letters(part)) {
        written = written.map(|tag| format!("{tag}-{}", region.to_ascii_uppercase()));
        rest = parts.next();
    }
    written.filter(|_| rest.is_none()).ok_or_else(|| {
        "must be a language such as fr, with a script or a region as in fr-CA, or empty".into()
    })
}

/// The tags to look under, the closest first and the empty one last.  A tag that is none is the empty one.
pub fn chain(tag: &str) -> Vec<String> {
    let mut tag = normalise(tag).unwrap_or_default();
    let mut chain = Vec::with_capacity(4);
    while !tag.is_empty() {
        chain.push(tag.clone());
        tag.truncate(tag.rfind('-').unwrap_or_default());
    }
    chain.push(tag);
    chain
}

fn is_letters(part: &str) -> bool {
    part.bytes().all(|letter| letter.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_have_one_written_form() {
        for (given, written) in [
            ("", ""),
            ("fr", "fr"),
            ("FR-ca", "fr-CA"),
            ("zh-hANT-tw", "zh-Hant-TW"),
            ("sr-latn", "sr-Latn"),
            ("gsw", "gsw"),
        ] {
            assert_eq!(normalise(given).as_deref(), Ok(written));
        }
        for bad in [
            "f", "french", "fr_CA", "fr-", "-", "fr-CA-x", "fr-1", "fr-CAN", "é", "éé", "fr-é", "12", "fr CA",
        ] {
            assert!(normalise(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_language_falls_back_step_by_step() {
        assert_eq!(chain("zh-Hant-TW"), ["zh-Hant-TW", "zh-Hant", "zh", ""]);
        assert_eq!(chain("fr-ca"), ["fr-CA", "fr", ""]);
        assert_eq!(chain(""), [""]);
        assert_eq!(chain("no such tag"), [""]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_tag_or_is_none(tag in "\\PC{0,12}") {
            if let Ok(written) = normalise(&tag) {
                proptest::prop_assert_eq!(normalise(&written), Ok(written));
            }
            let chain = chain(&tag);
            proptest::prop_assert_eq!(chain.last().map(String::as_str), Some(""));
        }
    }
}
