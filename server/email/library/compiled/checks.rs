use super::*;
use serde_json::json;

fn branding() -> Branding {
    Branding {
        company_name: "Pumps & Co".into(),
        site_url: "https://www.example.com/".into(),
        support_email: "help@example.com".into(),
        logo_url: None,
        colour: "#4CAF50".into(),
    }
}

fn variables() -> Vec<Variable> {
    let named = |name: &str| Variable {
        name: name.into(),
        description: String::new(),
        required: false,
        sample: None,
    };
    vec![named("url"), named("text")]
}

fn compile(text: &Text) -> Compiled {
    Compiled::new(text, &variables()).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

fn render(text: &Text, values: &Json, extras: &Extras<'_>) -> Rendered {
    let values = values.as_object().unwrap();
    compile(text).render(Context::new(&variables(), values, &branding(), "fr", extras)).unwrap()
}

fn html(html_body: &str, values: &Json) -> String {
    render(&Text { html_body: html_body.into(), ..Text::default() }, values, &Extras::default()).html
}

#[test]
fn html_is_escaped_and_the_rest_is_not() {
    let text = Text {
        subject: " {{ text }}\n".into(),
        html_body: "<p title=\"{{ text }}\">{{ text }}</p>{{ company_name }}".into(),
        plain_body: "{{ text }}\n".into(),
        preheader: String::new(),
    };
    let values = json!({"text": "<b>\"x\"\r\nBcc: eve@example.com\u{0}</b>{{ url }}"});
    let rendered = render(&text, &values, &Extras::default());
    assert_eq!(rendered.subject, "<b>\"x\" Bcc: eve@example.com </b>{{ url }}");
    let escaped = "&lt;b&gt;&quot;x&quot;\nBcc: eve@example.com &lt;/b&gt;{{ url }}";
    assert_eq!(rendered.html, format!("<p title=\"{escaped}\">{escaped}</p>Pumps &amp; Co"));
    assert_eq!(rendered.text, "<b>\"x\"\nBcc: eve@example.com </b>{{ url }}");
}

#[test]
fn a_subject_is_one_line_of_at_most_998_characters() {
    let text = Text { subject: "{{ text }}".into(), html_body: "x".into(), ..Text::default() };
    let rendered = render(&text, &json!({"text": "é\u{7}\u{2028}x ".repeat(900)}), &Extras::default());
    assert_eq!(rendered.subject.chars().count(), 998);
    assert!(!rendered.subject.contains(char::is_control) && rendered.text.is_empty());
}

#[test]
fn a_value_is_no_link_that_acts() {
    for target in
        ["javascript:alert(1)", "JAVA\nSCRIPT:x", "data:text/html,x", "vbscript:x", "java\u{0}script:x"]
    {
        assert_eq!(html("<a href=\"{{ url }}\">", &json!({"url": target})), "<a href=\"#\">", "{target}");
        assert_eq!(html("<a href='{{ url }}'>", &json!({"url": target})), "<a href='#'>", "{target}");
    }
    let good = json!({"url": "https://example.com/?a=b&c=d"});
    assert_eq!(html("<a href=\"{{ url }}\">", &good), "<a href=\"https://example.com/?a=b&amp;c=d\">");
    assert_eq!(
        html("<a href=\"{{ url }}\" title=\"\">", &json!({"url": "\" onclick=\"x"})),
        "<a href=\"&quot; onclick=&quot;x\" title=\"\">"
    );
}

#[test]
fn the_preheader_is_the_requests_or_the_templates() {
    let text = |html_body: &str| Text {
        subject: "s".into(),
        html_body: html_body.into(),
        preheader: "Own {{ text }}".into(),
        ..Text::default()
    };
    let given = Extras { preheader: "Given <1>", unsubscribe_url: Some("https://example.com/u") };
    let values = json!({"text": "T"});
    assert_eq!(render(&text("[{{ preheader }}]"), &values, &Extras::default()).html, "[Own T]");
    assert_eq!(render(&text("[{{ preheader }}]"), &values, &given).html, "[Given &lt;1&gt;]");
    let hidden =
        r#"<div style="display:none;max-height:0;overflow:hidden;mso-hide:all;">Given &lt;1&gt;</div>"#;
    assert_eq!(
        render(&text("<BODY class=a><p>x"), &values, &given).html,
        format!("<BODY class=a>{hidden}<p>x")
    );
    assert_eq!(render(&text("x"), &values, &given).html, format!("{hidden}x"));
    assert_eq!(
        render(&text("{{ unsubscribe_url }}{{ locale }}{{ site_url }}|{{ preheader }}"), &values, &given)
            .html,
        "https://example.com/ufrhttps://www.example.com|Given &lt;1&gt;"
    );
    let none =
        Text { html_body: "x{% if unsubscribe_url %}y{% endif %}{{ preheader }}".into(), ..Text::default() };
    assert_eq!(render(&none, &values, &Extras::default()).html, "x");
}

#[test]
fn every_fault_of_every_text_is_told() {
    let text = Text {
        subject: "{{ no }}".into(),
        html_body: "{{ nope }}\n{{ neither }}".into(),
        plain_body: "{{ text".into(),
        preheader: "{{ text + }}".into(),
    };
    let wrong = Compiled::new(&text, &variables()).err().unwrap();
    let fields: Vec<&str> = wrong.iter().map(|wrong| wrong.field).collect();
    assert_eq!(fields, ["subject", "html_body", "html_body", "plain_body", "preheader"]);
    assert!(
        wrong[2].message.starts_with(
            "line 2, column 4: there is no variable \"neither\"; known: url, text, company_name"
        )
    );
    assert!(wrong[4].message.starts_with("line 1, column "), "{:?}", wrong[4]);
}
