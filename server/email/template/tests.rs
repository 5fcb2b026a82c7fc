//! Every compiled mail as it looks, and what no value may do to it.

mod values;

use super::*;
use serde_json::json;

fn branding() -> Branding {
    Branding {
        company_name: "Northwind Tools".to_owned(),
        site_url: "https://www.example.com".to_owned(),
        support_email: "help@example.com".to_owned(),
        logo_url: None,
        colour: "#4CAF50".to_owned(),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("not an object: {other}"),
    }
}

fn rendered(name: &str, variables: Value) -> Rendered {
    render(name, &object(variables), &branding()).unwrap()
}

fn violations(name: &str, variables: Value) -> Vec<String> {
    match check(name, &object(variables)) {
        Err(RenderError::InvalidVariables(found)) => found.iter().map(ToString::to_string).collect(),
        other => panic!("expected violations, got {other:?}"),
    }
}

/// The variables without which a template is refused, and no others.
fn required(definition: &Definition) -> Map<String, Value> {
    let mut sample = definition.sample();
    for variable in definition.variables.iter().filter(|one| !one.required) {
        sample.remove(variable.name);
    }
    sample
}

/// Replaces all text in a value, except links, so that hostile values reach every place.
fn poison(value: &mut Value, with: &str) {
    match value {
        Value::String(text) if !text.starts_with("https://") => with.clone_into(text),
        Value::Array(entries) => entries.iter_mut().for_each(|entry| poison(entry, with)),
        Value::Object(entries) => entries.values_mut().for_each(|entry| poison(entry, with)),
        _ => {}
    }
}

#[test]
fn every_template_looks_as_recorded() {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for definition in definitions() {
            let name = definition.name;
            let mail = render(name, &definition.sample(), &branding()).unwrap();
            insta::assert_snapshot!(format!("{name}.subject"), mail.subject);
            insta::assert_snapshot!(format!("{name}.html"), mail.html);
            insta::assert_snapshot!(format!("{name}.text"), mail.text);

            let mail = render(name, &required(definition), &branding()).unwrap();
            let bare = format!("{}\n\n{}", mail.subject, mail.text);
            insta::assert_snapshot!(format!("{name}.required_only"), bare);
        }
    });
}

#[test]
fn every_definition_documents_its_variables() {
    assert_eq!(definitions().len(), 14);
    for definition in definitions() {
        assert!(definition.description.ends_with('.'), "{}", definition.name);
        assert_eq!(definition.sample().len(), definition.variables.len());
        for variable in definition.variables {
            assert!(variable.description.ends_with('.'), "{}", variable.name);
        }
        assert!(check(definition.name, &definition.sample()).is_ok());
    }
    assert!(definition("nothing").is_none());
    let unknown = render("nothing", &Map::new(), &branding());
    assert!(matches!(unknown, Err(RenderError::UnknownTemplate)));
}

#[test]
fn what_is_not_given_leaves_no_trace() {
    for definition in definitions() {
        let mail = render(definition.name, &required(definition), &branding()).unwrap();
        for trace in ["Hi ,", "None", "Some(", "<td></td>", "href=\"\"", "<tr></tr>"] {
            assert!(!mail.html.contains(trace), "{}: {trace}", definition.name);
        }
        for trace in ["Hi ,", "None", ": \n", "\n\n\n", " \n"] {
            assert!(!mail.text.contains(trace), "{}: {trace}", definition.name);
        }
        assert!(mail.html.lines().all(|line| !line.trim().is_empty()));
    }
}

#[test]
fn null_and_empty_values_count_as_not_given() {
    let named = json!({"ticket_id": 1, "ticket_title": "T", "user_name": " ", "status": null});
    let bare = json!({"ticket_id": 1, "ticket_title": "T"});
    assert_eq!(rendered("ticket_created", named), rendered("ticket_created", bare));
    assert_eq!(violations("job_alert", json!({"jobs": []})), ["jobs is required"]);
}

#[test]
fn hostile_values_are_escaped_everywhere() {
    let hostile = "<script>alert('x')</script>\" onload=\"y\r\nBcc: eve@example.com\u{0}{{x}}{% y %}";
    for definition in definitions() {
        let mut variables = Value::Object(definition.sample());
        poison(&mut variables, hostile);
        let mail = rendered(definition.name, variables);
        assert!(!mail.html.contains("<script"), "{}", definition.name);
        assert!(!mail.html.contains("\" onload"), "{}", definition.name);
        assert!(!mail.subject.contains(char::is_control), "{}", definition.name);
        assert!(!mail.text.contains(['\r', '\0']), "{}", definition.name);
        assert!(mail.subject.chars().count() <= 150);
    }
    let mail = rendered("ticket_created", json!({"ticket_id": "{{x}}", "ticket_title": hostile}));
    assert!(mail.html.contains("&#60;script&#62;alert(&#39;x&#39;)"));
    assert_eq!(
        mail.subject,
        "Ticket {{x}}: <script>alert('x')</script>\" onload=\"y Bcc: eve@example.com {{x}}{% y %}"
    );
}

#[test]
fn hostile_branding_is_left_out() {
    let hostile = Branding {
        company_name: "<b>Evil</b>\r\nBcc: eve@example.com".to_owned(),
        site_url: "javascript:alert(1)".to_owned(),
        support_email: "eve@example.com?bcc=all@example.com".to_owned(),
        logo_url: Some("data:image/png;base64,AAAA".to_owned()),
        colour: "red;background:url(https://example.com)".to_owned(),
    };
    let mail = render("welcome", &Map::new(), &hostile).unwrap();
    for trace in ["<b>", "javascript:", "mailto:", "<img", "url("] {
        assert!(!mail.html.contains(trace), "{trace}");
    }
    assert!(mail.html.contains("background-color:#4caf50"));
    assert_eq!(mail.subject, "Welcome to <b>Evil</b> Bcc: eve@example.com");
}

#[test]
fn a_logo_takes_the_place_of_the_name_and_a_dark_colour_gets_light_text() {
    let branding = Branding {
        logo_url: Some("https://www.example.com/logo.png".to_owned()),
        colour: "#024".to_owned(),
        ..branding()
    };
    let mail = render("welcome", &Map::new(), &branding).unwrap();
    let logo = "<img src=\"https://www.example.com/logo.png\" alt=\"Northwind Tools\"";
    assert!(mail.html.contains(logo));
    assert!(mail.html.contains("background-color:#002244"));
    assert!(mail.html.contains("color:#ffffff"));
}
