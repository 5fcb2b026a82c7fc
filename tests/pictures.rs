//! Every mail template as a browser shows it: on a desktop's 600 pixels and on a phone, with its samples and with
//! values that are hard on a layout.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use switchboard::rpc::convert::{from_json, json_value};
use switchboard_client::email::v1::{ListTemplatesRequest, PreviewTemplateRequest, Template};

use crate::harness::server::{Backend, Server};
use crate::harness::tools::{folder, is_root, run_within, tool};
use crate::settings::set;

/// The width that mails are made for, and those of phones.
const WIDTHS: [u32; 3] = [600, 375, 320];

/// A browser that starts on a busy machine.
const BROWSER: Duration = Duration::from_secs(120);

/// A picture of 800 × 100 pixels, in place of the logo: nothing here asks the network.
const WIDE_PICTURE: &str =
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='800' height='100'%3E%3C/svg%3E";
const LOGO: &str = "https://pumps.example/logo.svg";

/// What a browser made of one mail at one width.
#[derive(Debug, Deserialize)]
struct Measured {
    name: String,
    width: u32,
    height: u32,
    viewport: u32,
    content: u32,
    sticks_out: Vec<String>,
    texts: u32,
    small: Vec<String>,
    links: Vec<Link>,
    pictures: Vec<Picture>,
}

#[derive(Debug, Deserialize)]
struct Link {
    href: String,
    text: String,
}

#[derive(Debug, Deserialize)]
struct Picture {
    alt: String,
    loaded: bool,
    width: f64,
    height: f64,
}

/// The template's sample values.
fn samples(template: &Template) -> Map<String, Value> {
    let sample = |value: &_| json_value(Clone::clone(value), 0);
    let variables = template.variables.iter();
    variables.filter_map(|one| Some((one.name.clone(), sample(one.sample.as_ref()?)))).collect()
}

/// Puts `text` in the place of every text, links aside, and makes every list this long.
fn replace(value: &mut Value, text: &str, length: usize) {
    match value {
        Value::String(old) if !old.starts_with("https://") => text.clone_into(old),
        Value::Array(entries) => {
            *entries = entries.iter().cycle().take(length).cloned().collect();
            entries.iter_mut().for_each(|entry| replace(entry, text, length));
        }
        Value::Object(entries) => entries.values_mut().for_each(|entry| replace(entry, text, length)),
        _ => {}
    }
}

/// The values that each template is shown with, by what they are.
fn variants(template: &Template) -> Vec<(&'static str, Map<String, Value>)> {
    let samples = samples(template);
    let with = |text: &str, length| {
        let mut value = Value::Object(samples.clone());
        replace(&mut value, text, length);
        value.as_object().cloned().expect("it was an object")
    };
    let required = template.variables.iter().filter(|one| one.required).map(|one| &one.name);
    vec![
        ("samples", samples.clone()),
        ("required only", required.map(|name| (name.clone(), samples[name].clone())).collect()),
        ("a word of 300 letters", with(&"Donaudampfschiff".repeat(19)[..300], 3)),
        ("forty of each", with("A title of usual length, with several words", 40)),
        ("right to left", with("توقفت المضخة الثالثة عن العمل وتحتاج إلى صيانة عاجلة قبل نهاية اليوم", 3)),
        ("wide letters", with(&"ＷＷＷ漢字😀".repeat(20), 3)),
    ]
}

/// Measures all mails in one run of the browser.
async fn measure(mails: &[(String, String)]) -> Vec<Measured> {
    let cases: Vec<Value> = mails
        .iter()
        .flat_map(|(name, html)| WIDTHS.map(|width| json!({"name": name, "width": width, "html": html})))
        .collect();
    // An element of a script ends at the first `</`, wherever that is.
    let cases = serde_json::to_string(&cases).unwrap().replace("</", "<\\/").replace("<!--", "<\\u0021--");
    let page = std::fs::read_to_string(folder().join("measure.html")).unwrap().replace("/* cases */", &cases);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("page.html");
    std::fs::write(&file, page).unwrap();

    let profile = format!("--user-data-dir={}", home.path().join("profile").display());
    let page = format!("file://{}", file.display());
    let variable = format!("HOME={}", home.path().display());
    let browser = tool("chromium");
    let mut args =
        vec![variable.as_str(), browser.to_str().unwrap(), "--headless=new", "--dump-dom", &profile];
    args.extend([
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-breakpad",
        // No name leads anywhere.
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]);
    if is_root() {
        args.push("--no-sandbox");
    }
    args.push(&page);
    let output = run_within(BROWSER, "env", args, b"").await;
    let (said, dom) = (output.stderr.clone(), output.expect_success());
    let measured = dom.split_once(r#"<pre id="measured">"#).and_then(|(_, rest)| rest.split_once("</pre>"));
    let measured = measured.unwrap_or_else(|| panic!("no measures: {said}")).0;
    let measured = BASE64_STANDARD.decode(measured).unwrap();
    serde_json::from_slice(&measured).unwrap_or_else(|error| panic!("no measures ({error}): {said}"))
}

/// What is wrong with a mail as it was shown.
fn faults(mail: &Measured) -> Vec<String> {
    let Measured { name, width, .. } = mail;
    let mut faults = Vec::new();
    let mut fault = |what: String| faults.push(format!("{name} at {width}: {what}"));
    if mail.viewport != *width {
        fault(format!("the frame was {} wide", mail.viewport));
    }
    if mail.content > *width {
        fault(format!("the content is {} wide", mail.content));
    }
    if mail.texts < 4 || mail.height < 200 || mail.height > 12_000 {
        fault(format!("{} texts in a height of {}", mail.texts, mail.height));
    }
    for element in &mail.sticks_out {
        fault(format!("sticks out: {element}"));
    }
    for element in &mail.small {
        fault(format!("too small to read: {element}"));
    }
    for Link { href, text } in &mail.links {
        let good = ["https://", "mailto:"].iter().any(|start| href.starts_with(start));
        if !good || text.is_empty() {
            fault(format!("a link to {href:?} by {text:?}"));
        }
    }
    for Picture { alt, loaded, width: shown, height } in &mail.pictures {
        if alt.is_empty() || !loaded || *shown > f64::from(*width) || *height < 20.0 {
            fault(format!("a picture of {shown} × {height} for {alt:?}"));
        }
    }
    faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_template_fits_a_desktop_and_a_phone() {
    let server = Server::start(Backend::Sqlite).await;
    let mut templates = server.client.templates();
    let listed = templates.list_templates(ListTemplatesRequest::default()).await.unwrap().into_inner();
    let mut mails = Vec::new();
    let brand = |name: &str, logo: &str| {
        json!({
            "general.company_name": name,
            "general.site_url": "https://pumps.example",
            "general.support_email": "help@pumps.example",
            "general.logo_url": logo,
        })
    };
    let long_name = "Donaudampfschifffahrtsgesellschaftskapitänsmützenverleih und Söhne";
    for (branding, company, logo) in [("", "Pumps & more", ""), (", branded", long_name, LOGO)] {
        set(&server.client, brand(company, logo)).await;
        for template in listed.templates.iter().filter(|template| template.locale.is_empty()) {
            for (values, variables) in variants(template) {
                let request = PreviewTemplateRequest {
                    name: template.name.clone(),
                    variables: Some(from_json(variables)),
                    ..Default::default()
                };
                let shown = templates.preview_template(request).await.unwrap().into_inner();
                let name = format!("{} with {values}{branding}", template.name);
                assert!(!shown.subject.is_empty(), "{name} has a subject");
                assert!(shown.plain_body.lines().count() > 3, "{name} has a text: {}", shown.plain_body);
                let tag = ["<p", "<td", "&#", "</"].into_iter().find(|tag| shown.plain_body.contains(tag));
                assert_eq!(tag, None, "{name} has a text without markup: {}", shown.plain_body);
                mails.push((name, shown.html_body.replace(LOGO, WIDE_PICTURE)));
            }
        }
    }
    server.stop().await;

    let measured = measure(&mails).await;
    assert_eq!(measured.len(), mails.len() * WIDTHS.len());
    assert!(measured.iter().any(|mail| !mail.pictures.is_empty()), "some have a logo");
    let faults: Vec<String> = measured.iter().flat_map(faults).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
