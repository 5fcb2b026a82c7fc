//! Stored templates.

use serde_json::json;

use super::compiled::Context;
use super::engine::OUTPUT_LIMIT;
use super::model::{Text, Variable};
use super::{Extras, locale, validate};
use crate::email::template::Branding;
use crate::error::Violations;
use crate::fuzz::texts;

fn variables() -> Vec<Variable> {
    let variable = |name: &str, required, sample| Variable {
        name: name.into(),
        description: String::new(),
        required,
        sample: Some(sample),
    };
    vec![
        variable("a", true, json!("A")),
        variable("n", false, json!(3)),
        variable("list", false, json!([{"n": 1, "s": "x"}, {"n": 2, "s": "y"}])),
    ]
}

/// The four texts of a template and a value: a template that is kept renders in bounds, and a value is never more than
/// text in it.
pub fn template(data: &[u8]) {
    let Some([subject, html_body, plain_body, preheader, value]) = texts::<5>(data) else { return };
    if let Ok(tag) = locale::normalise(preheader) {
        assert_eq!(locale::normalise(&tag), Ok(tag.clone()));
        assert_eq!(locale::chain(&tag).last().map(String::as_str), Some(""));
    }
    let text = Text {
        subject: if subject.is_empty() { "s".into() } else { subject.into() },
        html_body: if html_body.is_empty() { "h".into() } else { html_body.into() },
        plain_body: plain_body.into(),
        preheader: preheader.into(),
    };
    let mut violations = Violations::default();
    let Some(compiled) = validate::text("template", &text, &variables(), &mut violations) else {
        let error = violations.finish().expect_err("what is refused is refused for a reason");
        assert!(error.violations().iter().all(|violation| violation.field.starts_with("template.")));
        return;
    };
    let marked = format!("<script src='javascript:{value}'>&\"`\r\n.\r\nBcc: x");
    let values = json!({"a": marked, "n": value.len(), "list": [{"n": 1, "s": marked}]});
    let branding = Branding {
        company_name: marked.clone(),
        site_url: String::new(),
        support_email: String::new(),
        logo_url: None,
        colour: String::new(),
    };
    let values = values.as_object().expect("it is an object");
    let context = Context::new(&variables(), values, &branding, "en", &Extras::default());
    let Ok(rendered) = compiled.render(context) else { return };
    assert!(!rendered.subject.chars().any(char::is_control) && rendered.subject.chars().count() <= 998);
    // The preheader is put in front, and each of its characters may have to be written with six.
    let most = OUTPUT_LIMIT + 4 * 1024;
    assert!(rendered.html.len() <= most && rendered.text.len() <= OUTPUT_LIMIT);
    if !html_body.to_ascii_lowercase().contains("script") && !html_body.contains('<') {
        assert!(!rendered.html.contains("<script"), "a value is markup: {}", rendered.html);
    }
}

/// Notes what is wrong with a description and with variables.
pub(in crate::email) fn check_declaration(
    description: &str,
    variables: &[Variable],
    violations: &mut Violations,
) {
    validate::declaration("template", description, variables, violations);
}
