//! What a template has to be to be kept.

use std::collections::BTreeSet;

use serde_json::Map;

use super::compiled::{COMMON, Compiled, Context};
use super::model::{Text, Variable, is_given, samples};
use super::{Extras, grammar, locale};
use crate::email::template::Branding;
use crate::error::Violations;

const NAME_LIMIT: usize = 64;
const DESCRIPTION_LIMIT: usize = 1_024;
const VARIABLE_LIMIT: usize = 100;
const SAMPLE_LIMIT: usize = 16 * 1024;
const SUBJECT_LIMIT: usize = 998;
const BODY_LIMIT: usize = 256 * 1024;
const PREHEADER_LIMIT: usize = 255;

/// Notes a name that is none.
pub(super) fn name(field: &str, name: &str, violations: &mut Violations) {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let ok = (1..=NAME_LIMIT).contains(&name.len()) && name.bytes().all(word);
    violations.require(ok, field, "must have 1 to 64 of a-z, 0-9 and _");
}

/// The language in its one written form.
pub(super) fn language(field: &str, tag: &str, violations: &mut Violations) -> String {
    violations.check(field, locale::normalise(tag)).unwrap_or_default()
}

/// Notes what is wrong with a description and with variables.
pub(super) fn declaration(at: &str, description: &str, variables: &[Variable], violations: &mut Violations) {
    let short = |text: &str| text.chars().count() <= DESCRIPTION_LIMIT && !text.contains('\0');
    let too_long = "must have at most 1024 characters";
    violations.require(short(description), &format!("{at}.description"), too_long);
    let field = format!("{at}.variables");
    violations.require(variables.len() <= VARIABLE_LIMIT, &field, "must have at most 100 entries");
    let mut names = BTreeSet::new();
    for (index, variable) in variables.iter().enumerate().take(VARIABLE_LIMIT) {
        let field = |name: &str| format!("{field}[{index}].{name}");
        let Variable { name: word, description, sample, .. } = variable;
        name(&field("name"), word, violations);
        let begins_well = !word.starts_with(|c: char| c.is_ascii_digit());
        violations.require(begins_well, &field("name"), "must not begin with a digit");
        let is_free = !COMMON.contains(&word.as_str());
        violations.require(is_free, &field("name"), "is in every template already");
        let means_nothing = !grammar::KEYWORDS.contains(&word.as_str())
            && !["loop", "range", "self"].contains(&word.as_str());
        violations.require(means_nothing, &field("name"), "is a word of the language of templates");
        violations.require(names.insert(word), &field("name"), "is there already");
        violations.require(short(description), &field("description"), too_long);
        if let Some(sample) = sample {
            let written = sample.to_string();
            let ok = written.len() <= SAMPLE_LIMIT && !written.contains("\\u0000");
            violations.require(ok, &field("sample"), "must have at most 16 KiB, without NUL characters");
        }
    }
}

/// Notes what is wrong with texts; answers them compiled when nothing is.
pub(super) fn text(
    at: &str,
    text: &Text,
    variables: &[Variable],
    violations: &mut Violations,
) -> Option<Compiled> {
    let mut wrong = false;
    let mut require = |ok: bool, name: &str, description: &str| {
        wrong |= !ok;
        violations.require(ok, &format!("{at}.{name}"), description);
    };
    let Text { subject, html_body, plain_body, preheader } = text;
    let length_ok = (1..=SUBJECT_LIMIT).contains(&subject.chars().count());
    require(length_ok && !subject.trim().is_empty(), "subject", "must have 1 to 998 characters");
    require(!html_body.trim().is_empty(), "html_body", "is required");
    for (name, body) in [("html_body", html_body), ("plain_body", plain_body)] {
        require(body.len() <= BODY_LIMIT, name, "must have at most 256 KiB");
    }
    require(preheader.chars().count() <= PREHEADER_LIMIT, "preheader", "must have at most 255 characters");
    for (name, part) in
        [("subject", subject), ("html_body", html_body), ("plain_body", plain_body), ("preheader", preheader)]
    {
        require(!part.contains('\0'), name, "must not have NUL characters");
    }
    if wrong {
        return None;
    }
    match Compiled::new(text, variables) {
        Ok(compiled) => trial(at, &compiled, variables, violations).then_some(compiled),
        Err(found) => {
            for wrong in found {
                violations.add(format!("{at}.{}", wrong.field), wrong.message);
            }
            None
        }
    }
}

/// Renders with all there can be, and with no more than there must be.
fn trial(at: &str, compiled: &Compiled, variables: &[Variable], violations: &mut Violations) -> bool {
    let branding = Branding {
        company_name: "Example".into(),
        site_url: "https://example.com".into(),
        support_email: "help@example.com".into(),
        logo_url: Some("https://example.com/logo.png".into()),
        colour: "#4CAF50".into(),
    };
    let all = samples(variables);
    let required: Map<_, _> = all
        .iter()
        .filter(|(name, value)| {
            is_given(value) && variables.iter().any(|variable| variable.required && variable.name == **name)
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let full = Extras { preheader: "", unsubscribe_url: Some("https://example.com/unsubscribe") };
    let trials = [
        (all, full, "with the samples"),
        (required, Extras::default(), "without what is not required, which reads as nothing"),
    ];
    for (values, extras, how) in trials {
        if let Err(wrong) = compiled.render(Context::new(variables, &values, &branding, "en", &extras)) {
            violations.add(format!("{at}.{}", wrong.field), format!("{} ({how})", wrong.message));
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn variables() -> Vec<Variable> {
        let variable = |name: &str, required, sample| Variable {
            name: name.into(),
            description: String::new(),
            required,
            sample: Some(sample),
        };
        vec![variable("a", true, json!("A")), variable("list", false, json!([{"n": 1}, {"n": 2}]))]
    }

    fn wrong(html_body: &str) -> String {
        let text = Text { subject: "s".into(), html_body: html_body.into(), ..Text::default() };
        let mut violations = Violations::default();
        super::text("template", &text, &variables(), &mut violations);
        violations.finish().err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_fails_with_the_samples_is_refused() {
        assert_eq!(
            wrong("{{ a }}{% for x in list %}{{ x.n }}{% endfor %}{{ company_name }}{{ preheader }}"),
            ""
        );
        assert!(wrong("<p>\n{{ list[0].m }}</p>").contains("template.html_body: line 2, column"));
        let absent = wrong("{{ list|first ~ (list|first).n }}\n{{ 3 // (list|length) }}");
        assert!(absent.contains("(without what is not required"), "{absent}");
        assert!(wrong("{{ a - 1 }}").contains("(with the samples)"));
        let round = "{% for i in range(9999) %}{% for j in range(9999) %}{{ j }}{% endfor %}{% endfor %}";
        assert!(wrong(round).contains("go round too often"), "{}", wrong(round));
        assert!(wrong("{% for i in range(99999) %}{{ a }}{% endfor %}").contains("html_body"));
    }

    #[test]
    fn declarations_are_checked() {
        let mut violations = Violations::default();
        let named = |name: &str| Variable {
            name: name.into(),
            description: String::new(),
            required: true,
            sample: None,
        };
        let bad = ["", "A", "1a", "locale", "loop", "if", "x", "x"].map(named);
        declaration("template", "", &bad, &mut violations);
        let error = violations.finish().unwrap_err();
        let fields: Vec<&str> = error.violations().iter().map(|violation| violation.field.as_str()).collect();
        let at = |index: usize| format!("template.variables[{index}].name");
        assert_eq!(fields, [0, 1, 2, 3, 4, 5, 7].map(at));
    }

    #[test]
    fn nothing_is_too_deep_for_the_stack() {
        for piece in [
            "(",
            "[",
            "{{",
            "{%if a%}",
            "{%for x in list%}",
            "{%if a%}{%else%}",
            "{#",
            "{%raw%}",
            "not ",
            "-",
            "{%elif a%}",
        ] {
            let many = piece.repeat(100_000);
            for source in [
                format!("{{%{many}"),
                format!("{{{{ {many} }}}}"),
                format!("{{% if {many}"),
                format!("{{% if a %}}{many}"),
                format!("{{% if a %}}{many}{{% if a %}}"),
            ] {
                assert_ne!(wrong(&source[..source.len().min(BODY_LIMIT)]), "", "{piece}");
            }
        }
    }

    /// Pieces that templates are made of, and some that they are not.
    fn source() -> impl Strategy<Value = String> {
        let pieces = [
            "{{",
            "}}",
            "{%",
            "%}",
            "{#",
            "#}",
            "{{ a }}",
            "{% if a %}",
            "{% else %}",
            "{% elif list %}",
            "{% endif %}",
            "{% for x in list %}",
            "{% endfor %}",
            "{{ x.n }}",
            "{{ loop.index }}",
            " a ",
            " list ",
            "|upper",
            "|join('x')",
            "|sort",
            "|map(attribute='n')",
            "|replace('A', 'AAAA')",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            "~",
            "+",
            "**",
            "-",
            "*",
            "'",
            "\"",
            "\\",
            ".",
            ",",
            "=",
            "==",
            " not ",
            " in ",
            " is defined ",
            " if ",
            "9999999",
            "1e308",
            "é",
            "\n",
            "{% raw %}",
            "{% endraw %}",
            "range(3)",
            "[1:",
            "<a href=\"",
            "javascript:",
            "preheader",
        ];
        let piece = prop_oneof![9 => proptest::sample::select(pieces.to_vec()).prop_map(String::from), 1 => "\\PC{0,4}"];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_source_is_taken_or_refused(source in source()) {
            let text = Text { subject: source.clone(), html_body: source.clone(), plain_body: source.clone(), preheader: source };
            let mut violations = Violations::default();
            if let Some(compiled) = super::text("template", &text, &variables(), &mut violations) {
                let values = json!({"a": "<script>alert(1)</script>", "list": []});
                let values = values.as_object().unwrap();
                let branding = Branding {
                    company_name: String::new(), site_url: String::new(), support_email: String::new(),
                    logo_url: None, colour: String::new(),
                };
                let context = Context::new(&variables(), values, &branding, "", &Extras::default());
                if let Ok(rendered) = compiled.render(context) {
                    prop_assert!(!rendered.html.contains("<script"));
                    prop_assert!(!rendered.subject.contains(char::is_control));
                    prop_assert!(rendered.subject.chars().count() <= SUBJECT_LIMIT);
                }
            } else {
                prop_assert!(violations.finish().is_err());
            }
        }
    }
}
