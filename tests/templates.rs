//! Templates at run time: texts over the compiled ones and beside them, their languages, versions and checks.

use prost_types::FieldMask;
use serde_json::{Value, json};
use switchboard::rpc::convert::{from_json, from_json_value};
use switchboard_client::delivery::v1::DeliveryState;
use switchboard_client::email::v1::{
    CreateTemplateRequest, DeleteTemplateRequest, GetEmailRequest, GetEmailResponse, GetTemplateRequest,
    ListEmailsRequest, ListTemplateVersionsRequest, ListTemplatesRequest, PreviewTemplateRequest,
    PreviewTemplateResponse, RollbackTemplateRequest, SendEmailRequest, Template, TemplateVariable,
    TemplateVersion, UpdateTemplateRequest,
};
use switchboard_client::event::v1::{
    CreateRouteRequest, DeleteRouteRequest, EmailTarget, Route, email_target::Recipients, route::Target,
};
use tonic::{Code, Status};

use crate::harness::server::{Backend, Server};
use crate::harness::{eventually, on_both, status};
use crate::settings::set;

fn variable(name: &str, required: bool, sample: Value) -> TemplateVariable {
    TemplateVariable {
        name: name.into(),
        description: "A variable.".into(),
        required,
        sample: Some(from_json_value(sample)),
    }
}

/// A template of its own.
fn note(html_body: &str) -> Template {
    Template {
        name: "note".into(),
        description: "A note.".into(),
        variables: vec![variable("topic", true, json!("Pumps")), variable("who", false, json!("Jo"))],
        subject: "About {{ topic }}".into(),
        html_body: html_body.into(),
        ..Default::default()
    }
}

fn text(name: &str, locale: &str, subject: &str, html_body: &str) -> Template {
    let (name, locale, subject, html_body) = (name.into(), locale.into(), subject.into(), html_body.into());
    Template { name, locale, subject, html_body, ..Default::default() }
}

async fn create(server: &Server, template: Template) -> Result<Template, Status> {
    let request = CreateTemplateRequest { template: Some(template) };
    Ok(server.client.templates().create_template(request).await?.into_inner().template.unwrap())
}

async fn update(server: &Server, template: Template, paths: &[&str]) -> Result<Template, Status> {
    let paths: Vec<String> = paths.iter().map(|&path| path.into()).collect();
    let update_mask = (!paths.is_empty()).then_some(FieldMask { paths });
    let request = UpdateTemplateRequest { template: Some(template), update_mask };
    Ok(server.client.templates().update_template(request).await?.into_inner().template.unwrap())
}

async fn delete(server: &Server, name: &str, locale: &str, etag: &str) -> Result<(), Status> {
    let request = DeleteTemplateRequest { name: name.into(), locale: locale.into(), etag: etag.into() };
    server.client.templates().delete_template(request).await.map(drop)
}

async fn roll_back(server: &Server, name: &str, version: i64, etag: &str) -> Result<Template, Status> {
    let request =
        RollbackTemplateRequest { name: name.into(), version, etag: etag.into(), ..Default::default() };
    Ok(server.client.templates().rollback_template(request).await?.into_inner().template.unwrap())
}

async fn get(server: &Server, name: &str, locale: &str) -> Result<Template, Status> {
    let request = GetTemplateRequest { name: name.into(), locale: locale.into() };
    Ok(server.client.templates().get_template(request).await?.into_inner().template.unwrap())
}

async fn list(server: &Server) -> Vec<Template> {
    server.client.templates().list_templates(ListTemplatesRequest {}).await.unwrap().into_inner().templates
}

async fn versions(server: &Server, name: &str) -> Result<Vec<TemplateVersion>, Status> {
    let request = ListTemplateVersionsRequest { name: name.into(), ..Default::default() };
    Ok(server.client.templates().list_template_versions(request).await?.into_inner().versions)
}

async fn preview(
    server: &Server,
    request: PreviewTemplateRequest,
) -> Result<PreviewTemplateResponse, Status> {
    Ok(server.client.templates().preview_template(request).await?.into_inner())
}

fn of(name: &str, locale: &str) -> PreviewTemplateRequest {
    PreviewTemplateRequest { name: name.into(), locale: locale.into(), ..Default::default() }
}

fn struct_of(json: &Value) -> Option<prost_types::Struct> {
    json.as_object().map(|fields| from_json(fields.clone()))
}

async fn send(server: &Server, template: &str, variables: &Value) -> Result<String, Status> {
    let request = SendEmailRequest {
        to: vec!["jo@example.com".into()],
        template: template.into(),
        variables: struct_of(variables),
        ..Default::default()
    };
    Ok(server.client.emails().send_email(request).await?.into_inner().email_id)
}

/// The mail once it has ended.
async fn ended(server: &Server, email_id: &str, state: DeliveryState) -> GetEmailResponse {
    eventually(&format!("{email_id} is {state:?}"), async || {
        let request = GetEmailRequest { email_id: email_id.into() };
        let got = server.client.emails().get_email(request).await.unwrap().into_inner();
        (got.email.as_ref().unwrap().state() == state).then_some(got)
    })
    .await
}

/// What is wrong with each field.
#[track_caller]
fn violations(refused: &Status) -> Vec<(String, String)> {
    let details = status::expect(refused, Code::InvalidArgument, "FIELD_INVALID");
    let found = details.bad_request().unwrap().field_violations.clone();
    found.into_iter().map(|violation| (violation.field, violation.description)).collect()
}

on_both! {
    async fn a_text_takes_the_place_of_a_compiled_one_until_it_is_deleted(server: Server) {
        let compiled = get(&server, "welcome", "").await.unwrap();
        assert!((compiled.version, compiled.overridden, compiled.html_body.is_empty()) == (0, false, true), "{compiled:?}");
        let made = text("welcome", "", "Hello {{ user_name|default('you') }}", "<p>Mine, {{ user_name }}, from {{ company_name }}</p>");
        let kept = update(&server, made, &[]).await.unwrap();
        assert!(kept.overridden && kept.built_in, "{kept:?}");
        assert_eq!((kept.version, kept.etag.as_str(), kept.variables.len()), (1, "1", 2));
        assert_eq!(get(&server, "welcome", "").await.unwrap(), kept);
        set(&server.client, json!({"general.company_name": "Pumps & Co"})).await;

        let email_id = send(&server, "welcome", &json!({"user_name": "<b>Jo</b>"})).await.unwrap();
        let got = ended(&server, &email_id, DeliveryState::Succeeded).await;
        assert_eq!(got.email.unwrap().subject, "Hello <b>Jo</b>");
        assert_eq!(got.html_body, "<p>Mine, &lt;b&gt;Jo&lt;/b&gt;, from Pumps &amp; Co</p>");

        delete(&server, "welcome", "", "1").await.unwrap();
        assert_eq!(get(&server, "welcome", "").await.unwrap(), compiled);
        let email_id = send(&server, "welcome", &json!({})).await.unwrap();
        assert!(ended(&server, &email_id, DeliveryState::Succeeded).await.html_body.contains("<!DOCTYPE html>"));
        let again = delete(&server, "welcome", "", "").await.unwrap_err();
        status::expect(&again, Code::FailedPrecondition, "TEMPLATE_BUILT_IN");

        // Its versions stayed: it can be brought back.
        let back = roll_back(&server, "welcome", 1, "0").await.unwrap();
        assert_eq!((back.version, back.html_body, back.overridden), (2, kept.html_body, true));
        assert_eq!(preview(&server, of("welcome", "")).await.unwrap().version, 2);
    }

    async fn a_template_of_its_own_is_made_changed_and_removed(server: Server) {
        let made = create(&server, Template { plain_body: "T {{ topic }}".into(), ..note("<p>{{ topic }}{% if who %} for {{ who }}{% endif %}</p>") }).await.unwrap();
        assert_eq!((made.version, made.built_in, made.overridden, made.etag.as_str()), (1, false, false, "1"));
        assert!(made.create_time.is_some() && made.create_time == made.update_time);
        assert_eq!(get(&server, "note", "").await.unwrap(), made);
        let listed = list(&server).await;
        assert_eq!(listed.len(), 15);
        let shown = listed.iter().find(|template| template.name == "note").unwrap();
        assert_eq!((&shown.description, &shown.variables, shown.version), (&made.description, &made.variables, 1));
        assert!(shown.html_body.is_empty() && shown.subject.is_empty(), "lists have no texts: {shown:?}");
        let names: Vec<_> = listed.iter().map(|template| &template.name).collect();
        assert!(names.is_sorted(), "{names:?}");

        let refused = send(&server, "note", &json!({"who": "Jo"})).await.unwrap_err();
        status::expect_violations(&refused, &["variables.topic"]);
        let email_id = send(&server, "note", &json!({"topic": "Valves", "other": 1})).await.unwrap();
        let got = ended(&server, &email_id, DeliveryState::Succeeded).await;
        assert_eq!((got.html_body.as_str(), got.plain_body.as_str()), ("<p>Valves</p>", "T Valves"));

        let changed = update(&server, Template { name: "note".into(), subject: "Now {{ topic }}".into(), etag: "1".into(), ..Default::default() }, &[]).await.unwrap();
        assert_eq!((changed.version, changed.subject.as_str(), &changed.html_body), (2, "Now {{ topic }}", &made.html_body));
        let cleared = update(&server, Template { name: "note".into(), ..Default::default() }, &["plain_body", "description"]).await.unwrap();
        assert_eq!((cleared.version, cleared.plain_body.as_str(), cleared.description.as_str()), (3, "", ""));

        status::expect(&create(&server, note("x")).await.unwrap_err(), Code::AlreadyExists, "ALREADY_EXISTS");
        let stale = delete(&server, "note", "", "2").await.unwrap_err();
        status::expect(&stale, Code::Aborted, "ETAG_MISMATCH");
        delete(&server, "note", "", "3").await.unwrap();
        for refused in [get(&server, "note", "").await.unwrap_err(), versions(&server, "note").await.unwrap_err(),
                        delete(&server, "note", "", "").await.unwrap_err(), roll_back(&server, "note", 1, "").await.unwrap_err(),
                        preview(&server, of("note", "")).await.unwrap_err(), update(&server, note("x"), &[]).await.unwrap_err()] {
            status::expect(&refused, Code::NotFound, "NOT_FOUND");
        }
        status::expect_violations(&send(&server, "note", &json!({"topic": "x"})).await.unwrap_err(), &["template"]);
        assert_eq!(create(&server, note("x")).await.unwrap().version, 1, "nothing is left of the first");
    }

    async fn the_closest_language_is_taken(server: Server) {
        let missing = create(&server, text("note", "fr", "s", "x")).await.unwrap_err();
        status::expect(&missing, Code::FailedPrecondition, "TEMPLATE_DEFAULT_MISSING");
        create(&server, note("default {{ topic }}")).await.unwrap();
        create(&server, text("note", "fr", "s", "fr {{ topic }} {{ locale }}")).await.unwrap();
        let canadian = create(&server, text("note", "FR-ca", "s", "fr-CA {{ topic }}")).await.unwrap();
        assert_eq!((canadian.locale.as_str(), canadian.variables.len(), canadian.description.as_str()), ("fr-CA", 2, "A note."));
        create(&server, text("welcome", "pt", "s", "pt")).await.unwrap();
        for (name, asked, taken, html) in [
            ("note", "fr-CA", "fr-CA", "fr-CA Pumps"), ("note", "fr-ca", "fr-CA", "fr-CA Pumps"), ("note", "fr-CH", "fr", "fr Pumps fr"),
            ("note", "fr", "fr", "fr Pumps fr"), ("note", "de", "", "default Pumps"), ("note", "", "", "default Pumps"), ("welcome", "pt-BR", "pt", "pt"),
        ] {
            let shown = preview(&server, of(name, asked)).await.unwrap();
            assert_eq!((shown.locale.as_str(), shown.html_body.as_str()), (taken, html), "{name} {asked}");
        }
        let fallen = preview(&server, of("welcome", "de")).await.unwrap();
        assert!(fallen.html_body.contains("<!DOCTYPE html>") && fallen.version == 0, "{fallen:?}");
        status::expect(&get(&server, "note", "de").await.unwrap_err(), Code::NotFound, "NOT_FOUND");
        status::expect_violations(&get(&server, "note", "french!").await.unwrap_err(), &["locale"]);
        status::expect_violations(&create(&server, text("note", "x", "s", "x")).await.unwrap_err(), &["template.locale"]);

        // Variables are the same in every language.
        let other = Template { variables: vec![variable("else", true, json!(1))], ..text("note", "es", "s", "x") };
        status::expect_violations(&create(&server, other).await.unwrap_err(), &["template.variables"]);
        let without = Template { variables: vec![variable("who", true, json!("Jo"))], html_body: "{{ who }}".into(), subject: "s".into(), ..note("") };
        let refused = update(&server, without, &[]).await.unwrap_err();
        let found = violations(&refused);
        assert!(found.iter().all(|(field, _)| field == "template.variables") && found.len() == 2, "{found:?}");
        assert!(found[0].1.contains("the text in fr: line 1, column 7"), "{found:?}");

        // With the default language the whole template goes.
        delete(&server, "note", "fr", "").await.unwrap();
        assert_eq!(preview(&server, of("note", "fr-CH")).await.unwrap().locale, "");
        delete(&server, "note", "", "").await.unwrap();
        status::expect(&get(&server, "note", "fr-CA").await.unwrap_err(), Code::NotFound, "NOT_FOUND");
        assert_eq!(list(&server).await.len(), 15, "the built-in ones, and one language of one");
    }

    async fn versions_are_kept_and_rolled_back_to(server: Server) {
        let made = create(&server, note("one {{ topic }}")).await.unwrap();
        for number in 2..=53 {
            let change = Template { name: "note".into(), html_body: format!("{number} {{{{ topic }}}}"), ..Default::default() };
            assert_eq!(update(&server, change, &[]).await.unwrap().version, number);
        }
        let kept = versions(&server, "note").await.unwrap();
        let numbers: Vec<i64> = kept.iter().map(|version| version.version).collect();
        assert_eq!(numbers, (4..=53).rev().collect::<Vec<_>>(), "the newest 50");
        assert!(kept.iter().all(|version| version.created_by.starts_with("key_") && version.create_time.is_some()));
        assert_eq!((kept[49].html_body.as_str(), kept[49].subject.as_str()), ("4 {{ topic }}", made.subject.as_str()));

        let old = preview(&server, PreviewTemplateRequest { version: 4, ..of("note", "") }).await.unwrap();
        assert_eq!((old.html_body.as_str(), old.version), ("4 Pumps", 4));
        let stale = roll_back(&server, "note", 4, "52").await.unwrap_err();
        let details = status::expect(&stale, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(details.error_info().unwrap().metadata["current_etag"], "53");
        for gone in [1, 54, 0, -1] {
            status::expect(&roll_back(&server, "note", gone, "").await.unwrap_err(), Code::NotFound, "NOT_FOUND");
        }
        let back = roll_back(&server, "note", 4, "53").await.unwrap();
        assert_eq!((back.version, back.html_body.as_str(), back.variables), (54, "4 {{ topic }}", made.variables));
        assert_eq!(versions(&server, "note").await.unwrap()[0].html_body, "4 {{ topic }}");
        assert_eq!(versions(&server, "welcome").await.unwrap(), [], "nothing was kept of it");
        let gone = preview(&server, PreviewTemplateRequest { version: 1, ..of("note", "") }).await.unwrap_err();
        status::expect(&gone, Code::NotFound, "NOT_FOUND");
    }

    async fn a_bad_text_is_refused_with_line_and_column_and_nothing_changes(server: Server) {
        let before = update(&server, text("ticket_created", "", "T {{ ticket_id }}", "<p>{{ ticket_title }}</p>"), &[]).await.unwrap();
        let bad = text("ticket_created", "", "T {{ ticket_id }", "<h1>T</h1>\n<p>\n  {{ title }}{{ tikcet_id }}</p>{% include 'x' %}");
        let found = violations(&update(&server, bad.clone(), &[]).await.unwrap_err());
        assert_eq!(found[0].0, "template.subject");
        assert!(found[0].1.starts_with("line 1, column "), "{found:?}");
        let html: Vec<&str> = found.iter().filter(|(field, _)| field == "template.html_body").map(|(_, text)| text.as_str()).collect();
        assert!(html[0].starts_with("line 3, column 6: there is no variable \"title\"; known: user_name, ticket_id"), "{html:?}");
        assert!(html[1].starts_with("line 3, column 17: there is no variable \"tikcet_id\""), "{html:?}");
        assert!(html[2].starts_with("line 3, column 36: a template stands for itself"), "{html:?}");
        for (part, wrong) in [
            ("{{ ticket_id + }}", "line 1, column "), ("{{ ticket_id|safe }}", "line 1, column 14: there is no filter"),
            ("{% if ticket_id %}", "does not end"), ("{{ ticket_id.up() }}", "there is no method"), ("{{ 1 // 0 }}", "line 1, column "),
            ("{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}", "go round too often"),
        ] {
            for paths in [["html_body"], ["plain_body"]] {
                let text = Template { name: "ticket_created".into(), html_body: part.into(), plain_body: part.into(), ..Default::default() };
                let found = violations(&update(&server, text, &paths).await.unwrap_err());
                assert_eq!((found.len(), found[0].0.as_str()), (1, format!("template.{}", paths[0]).as_str()), "{found:?}");
                assert!(found[0].1.contains(wrong), "{part}: {found:?}");
            }
        }
        assert_eq!(get(&server, "ticket_created", "").await.unwrap(), before);
        assert_eq!(versions(&server, "ticket_created").await.unwrap().len(), 1);

        for (template, fields) in [
            (Template::default(), &["template.name"][..]),
            (Template { name: "Bad Name".into(), ..note("x") }, &["template.name"]),
            (Template { subject: String::new(), ..note("") }, &["template.subject", "template.html_body"]),
            (Template { subject: "x".repeat(999), preheader: "x".repeat(256), ..note(&"x".repeat(256 * 1024 + 1)) }, &["template.subject", "template.html_body", "template.preheader"]),
            (Template { description: "x".repeat(1025), ..note("x\0") }, &["template.description", "template.html_body"]),
            (Template { variables: vec![variable("topic", true, json!(1)), variable("topic", true, json!(1)), variable("locale", true, json!(1))], ..note("x") }, &["template.variables[1].name", "template.variables[2].name"]),
        ] {
            status::expect_violations(&create(&server, template).await.unwrap_err(), fields);
        }
        assert_eq!(list(&server).await.len(), 14);
        let fixed = Template { description: "Mine".into(), variables: vec![variable("x", true, json!(1))], ..before.clone() };
        status::expect_violations(&update(&server, fixed, &[]).await.unwrap_err(), &["template.description", "template.variables"]);
        update(&server, before, &[]).await.expect("what was read can be given back");
        let taken = create(&server, text("ticket_created", "", "s", "x")).await.unwrap_err();
        status::expect(&taken, Code::FailedPrecondition, "TEMPLATE_BUILT_IN");
        status::expect_violations(&update(&server, text("note", "", "s", "x"), &["name"]).await.unwrap_err(), &["update_mask"]);
        let request = CreateTemplateRequest { template: None };
        status::expect_violations(&server.client.templates().create_template(request).await.unwrap_err(), &["template"]);
    }

    async fn every_built_in_can_be_previewed_in_every_way(server: Server) {
        for template in list(&server).await {
            let name = template.name.as_str();
            let compiled = preview(&server, of(name, "")).await.unwrap();
            assert!(!compiled.subject.is_empty() && !compiled.html_body.is_empty() && !compiled.plain_body.is_empty(), "{name}");
            assert_eq!((compiled.version, compiled.locale.as_str()), (0, ""), "{name}");
            // A text that prints every variable, as a draft, then kept, then in another language.
            let prints: String = template.variables.iter().map(|variable| format!("<p>{{{{ {} }}}}</p>", variable.name)).collect();
            let draft = text(name, "", "Draft {{ company_name }}", &prints);
            let shown = preview(&server, PreviewTemplateRequest { draft: Some(draft.clone()), ..of(name, "") }).await.unwrap();
            assert_eq!((shown.subject.as_str(), shown.version), ("Draft Switchboard", 0), "{name}");
            assert_eq!(preview(&server, of(name, "")).await.unwrap(), compiled, "a draft is not kept");
            update(&server, draft, &[]).await.unwrap();
            let kept = preview(&server, of(name, "fr")).await.unwrap();
            assert_eq!((&kept.html_body, kept.version), (&shown.html_body, 1), "{name}");
            create(&server, text(name, "fr", "Bonjour", "fr")).await.unwrap();
            assert_eq!(preview(&server, of(name, "fr-CA")).await.unwrap().subject, "Bonjour", "{name}");
            // With variables of the caller's.
            let required: Vec<&str> = template.variables.iter().filter(|variable| variable.required).map(|variable| variable.name.as_str()).collect();
            let without = PreviewTemplateRequest { variables: struct_of(&json!({})), ..of(name, "") };
            match preview(&server, without).await {
                Ok(_) => assert!(required.is_empty(), "{name}"),
                Err(refused) => {
                    let fields: Vec<String> = required.iter().map(|name| format!("variables.{name}")).collect();
                    status::expect_violations(&refused, &fields.iter().map(String::as_str).collect::<Vec<_>>());
                }
            }
        }
        let bad = PreviewTemplateRequest { draft: Some(text("", "", "s", "{{ nope }}")), ..of("welcome", "") };
        status::expect_violations(&preview(&server, bad).await.unwrap_err(), &["draft.html_body"]);
        let fresh = PreviewTemplateRequest { draft: Some(note("<a href=\"{{ who }}\">{{ topic }}</a>")), variables: struct_of(&json!({"topic": "T", "who": "javascript:x"})), ..of("fresh", "") };
        assert_eq!(preview(&server, fresh).await.unwrap().html_body, "<a href=\"#\">T</a>");
    }

    async fn a_route_sends_a_template_of_its_own_and_keeps_it(server: Server) {
        let target = |template: &str| {
            let variables = [("topic".to_owned(), "data.what".to_owned())].into();
            let recipients = Some(Recipients::RecipientField("mail".into()));
            Some(Target::Email(EmailTarget { template: template.into(), recipients, variables }))
        };
        let route = |template: &str| Route { name: "Notes".into(), event_type: "note.made".into(), target: target(template), ..Default::default() };
        let request = |template: &str| CreateRouteRequest { route: Some(route(template)), inactive: false };
        let refused = server.client.routes().create_route(request("note")).await.unwrap_err();
        status::expect_violations(&refused, &["route.email.template"]);
        create(&server, note("<p>{{ topic }}</p>")).await.unwrap();
        let route_id = server.client.routes().create_route(request("note")).await.unwrap().into_inner().route.unwrap().id;

        let published = server.publish("note.made", r#"{"what":"<Valves>","mail":"jo@example.com"}"#).await;
        let emails = ListEmailsRequest { event_id: published.event_id, ..Default::default() };
        let emails = server.client.emails().list_emails(emails).await.unwrap().into_inner().emails;
        let got = ended(&server, &emails[0].id, DeliveryState::Succeeded).await;
        assert_eq!((got.email.unwrap().subject.as_str(), got.html_body.as_str()), ("About <Valves>", "<p>&lt;Valves&gt;</p>"));

        let used = delete(&server, "note", "", "").await.unwrap_err();
        let details = status::expect(&used, Code::FailedPrecondition, "TEMPLATE_IN_USE");
        assert_eq!(details.error_info().unwrap().metadata["route"], "Notes");
        server.client.routes().delete_route(DeleteRouteRequest { route_id }).await.unwrap();
        delete(&server, "note", "", "").await.unwrap();
    }

    async fn a_text_that_fails_gives_way_to_the_compiled_one(server: Server) {
        // The text asks of each job what not every job has; the samples have it.
        let picky = text("job_recommendations", "", "Jobs", "{% for job in jobs %}{{ job.url }}{% endfor %}");
        update(&server, picky, &[]).await.unwrap();
        let jobs = json!({"jobs": [{"title": "Baker"}]});
        let email_id = send(&server, "job_recommendations", &jobs).await.unwrap();
        let got = ended(&server, &email_id, DeliveryState::Succeeded).await;
        assert!(got.html_body.contains("Baker") && got.html_body.contains("<!DOCTYPE html>"), "{}", got.html_body);
        let refused = preview(&server, PreviewTemplateRequest { variables: struct_of(&jobs), ..of("job_recommendations", "") }).await.unwrap_err();
        let found = violations(&refused);
        assert!(found[0].1.contains("html_body, line 1, column 25: undefined value: job.url"), "{found:?}");

        // There is nothing that a template of its own could give way to.
        create(&server, Template { variables: vec![variable("entries", true, json!([{"n": 1}]))], subject: "s".into(), ..note("{% for entry in entries %}{{ entry.n }}{% endfor %}") }).await.unwrap();
        let email_id = send(&server, "note", &json!({"entries": [{"m": 1}]})).await.unwrap();
        let got = ended(&server, &email_id, DeliveryState::Failed).await;
        let error = got.email.unwrap().last_error;
        assert!(error.contains("html_body, line 1, column ") && error.contains("undefined"), "{error}");
    }

    async fn texts_outlive_a_restart(server: Server) {
        create(&server, note("kept {{ topic }}")).await.unwrap();
        update(&server, text("welcome", "", "s", "kept"), &[]).await.unwrap();
        let server = server.restart().await;
        let email_id = send(&server, "note", &json!({"topic": "T"})).await.unwrap();
        assert_eq!(ended(&server, &email_id, DeliveryState::Succeeded).await.html_body, "kept T");
        let email_id = send(&server, "welcome", &json!({})).await.unwrap();
        assert_eq!(ended(&server, &email_id, DeliveryState::Succeeded).await.html_body, "kept");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_follows_within_a_moment() {
    let one = Server::start(Backend::Postgres).await;
    let other = one.another_node().await;
    create(&one, note("first {{ topic }}")).await.unwrap();
    eventually("the other node takes mails of the new template", async || {
        send(&other, "note", &json!({"topic": "T"})).await.ok()
    })
    .await;
    update(
        &one,
        Template {
            name: "note".into(),
            variables: vec![variable("topic", false, json!("T"))],
            ..Default::default()
        },
        &["variables"],
    )
    .await
    .unwrap_or_else(|error| panic!("{error:?}"));
    eventually("the other node takes the new variables", async || {
        send(&other, "note", &json!({})).await.ok()
    })
    .await;
    delete(&one, "note", "", "").await.unwrap();
    eventually("the template is gone on the other node", async || {
        send(&other, "note", &json!({"topic": "T"})).await.err()
    })
    .await;
    other.stop().await;
}
