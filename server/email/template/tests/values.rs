//! How single values are read and shown.

use super::{rendered, violations};
use serde_json::{Value, json};

#[test]
fn all_violations_are_reported_at_once() {
    let missing = violations("ticket_created", json!({"ticket_url": "/tickets/1", "status": []}));
    assert_eq!(
        missing,
        ["ticket_id is required", "ticket_title is required", "ticket_url must be an http or https address"]
    );

    let wrong = json!({"ticket_id": true, "priority": {"level": 1}, "changes": "some"});
    assert_eq!(
        violations("ticket_updated", wrong),
        [
            "ticket_id must be text or a number",
            "priority must be text or a number",
            "changes must be an object of the changed fields",
        ]
    );

    let jobs = json!({"jobs": [
        {"title": "Welder"}, "Baker", {"url": "ftp://example.com", "salary": false}
    ]});
    assert_eq!(
        violations("job_alert", jobs),
        [
            "jobs[1] must be an object that describes a job",
            "jobs[2].title is required",
            "jobs[2].url must be an http or https address",
            "jobs[2].salary must be text or a number",
        ]
    );
    assert_eq!(violations("job_alert", json!({"jobs": 3})), ["jobs must be a list of jobs"]);
}

#[test]
fn only_web_addresses_are_linked() {
    for refused in [
        "javascript:alert(1)",
        "JavaScript://example.com/%0aalert(1)",
        "data:text/html,x",
        "/reset",
        "//example.com",
        "https://",
        "https:///x",
        "https://a\"b",
        "https://a b",
        "file:///x",
        "java\nscript:alert(1)",
        "https://example.com/\r\nx",
    ] {
        let found = violations("password_reset", json!({"reset_url": refused}));
        assert_eq!(found, ["reset_url must be an http or https address"], "{refused}");
    }
    for accepted in ["https://example.com", "HTTP://localhost:8080/x?a=1&b=[2]#c", "https://é.example/"] {
        let mail = rendered("password_reset", json!({"reset_url": accepted}));
        assert!(mail.text.lines().any(|line| line == accepted), "{accepted}");
    }
}

#[test]
fn numbers_and_strings_are_the_same_to_a_reader() {
    let mail = |id: Value| rendered("ticket_created", json!({"ticket_id": id, "ticket_title": 7}));
    assert_eq!(mail(json!(42)), mail(json!("42")));
    // A protobuf Struct knows doubles only.
    assert_eq!(mail(json!(42.0)), mail(json!("42")));

    let stock = |left: Value| {
        let variables = json!({"item_name": "Feed", "current_stock": left, "unit": "kg"});
        rendered("low_stock_alert", variables).subject
    };
    assert_eq!(stock(json!(3.5)), "Low stock: Feed (3.5 kg left)");
    assert_eq!(stock(json!("3.5")), "Low stock: Feed (3.5 kg left)");
    assert_eq!(stock(json!(0)), "Out of stock: Feed");
    assert_eq!(stock(json!("a little")), "Low stock: Feed (a little kg left)");
}

#[test]
fn times_are_spelled_out_where_they_can_be() {
    let opened = |stamp: Value| {
        let variables = json!({"ticket_id": 1, "ticket_title": "T", "created_at": stamp});
        let text = rendered("ticket_created", variables).text;
        let line = text.lines().find_map(|line| line.strip_prefix("Opened: "));
        line.unwrap().to_owned()
    };
    assert_eq!(opened(json!("2026-03-14T09:26:53.5Z")), "14 March 2026, 09:26 UTC");
    assert_eq!(opened(json!("2026-03-14 09:26:53+05:30")), "14 March 2026, 09:26 UTC+05:30");
    assert_eq!(opened(json!("2026-12-01")), "1 December 2026");
    for kept in ["2026-13-01", "2026-00-01", "yesterday at 9", "2026-03-14Tnoon", "14/03/2026"] {
        assert_eq!(opened(json!(kept)), kept);
    }
    assert_eq!(opened(json!(1_772_000_000)), "1772000000");
}

#[test]
fn bare_numbers_get_their_unit() {
    let reset = |time: Value| {
        let link = "https://example.com";
        rendered("password_reset", json!({"reset_url": link, "expires_in": time})).text
    };
    assert!(reset(json!(1)).contains("works for 1 minute."));
    assert!(reset(json!("45")).contains("works for 45 minutes."));
    assert!(reset(json!("two hours")).contains("works for two hours."));
}

#[test]
fn changes_show_any_value() {
    let changes = json!({
        "due_date": {"from": null, "to": "2026-04-01"}, "is_public": {"from": true, "to": false},
        "tags": ["a", 2], "watchers": {"from": "Ada"}, "custom": {"a": 1},
    });
    let text = rendered("ticket_updated", json!({"ticket_id": 1, "changes": changes})).text;
    for line in [
        "- Due date: none → 2026-04-01",
        "- Is public: yes → no",
        "- Tags: a, 2",
        "- Watchers: Ada → none",
        "- Custom: {\"a\":1}",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
    }
}

#[test]
fn long_values_are_cut_or_wrapped() {
    let title = "A long title ".repeat(40);
    let mail = rendered("ticket_created", json!({"ticket_id": 1, "ticket_title": title}));
    assert!(mail.subject.ends_with('…') && mail.subject.chars().count() <= 150);
    assert!(mail.text.lines().all(|line| line.chars().count() <= 72));

    let jobs: Vec<Value> = (1..=30).map(|number| json!({"title": number})).collect();
    let mail = rendered("job_alert", json!({"jobs": jobs}));
    assert_eq!(mail.subject, "30 new jobs for you");
    assert!(mail.text.contains("25. 25\n\nAnd 5 more"));
    assert!(mail.html.contains("And 5 more"));
}
