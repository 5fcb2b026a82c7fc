//! Signatures, checked the way receivers do: by the programs that others published, on requests as they arrived.

use serde_json::{Value, json};

use crate::harness::receiver::{Received, Receiver};
use crate::harness::{SOON, on_both, tools};
use crate::settings::set;

/// Payloads that a signature breaks on when anything between here and there reads and writes them anew.
const PAYLOADS: [&str; 8] = [
    r#"{"ticket_id":42,"title":"Pump 3 <stopped>","priority":"critical"}"#,
    r#"{}"#,
    r#"{ "spaced" :  [ 1 , 2 ] ,	"tabbed": null }"#,
    "{\n  \"lines\": \"two\",\r\n  \"of\": \"them\"\n}",
    r#"{"unicode":"Grüße, 世界, 🚀, \u00fc\ud83d\ude80, \u2028","العربية":"مرحبا"}"#,
    r#"{"big":12345678901234567890123456789,"exact":0.1000,"power":1e300,"zero":-0}"#,
    r#"{"z":1,"a":{"z":1,"a":2},"order":"kept"}"#,
    r#"{"escaped":"\"\\\/\b\f\n\r\t\u0000","html":"</script>&amp;'"}"#,
];

/// One question to the verifiers.
#[derive(Clone)]
pub struct Case {
    body: Vec<u8>,
    headers: Vec<(String, String)>,
    secret: String,
}

impl Case {
    /// A request as it arrived, with all its headers.
    pub fn of(request: &Received, secret: &str) -> Self {
        let header = |name: &http::HeaderName| {
            (name.to_string(), request.header(name.as_str()).expect("headers are text").to_owned())
        };
        Self {
            body: request.body.to_vec(),
            headers: request.headers.keys().map(header).collect(),
            secret: secret.to_owned(),
        }
    }

    fn with_header(mut self, name: &str, value: &str) -> Self {
        let header = self.headers.iter_mut().find(|(known, _)| known == name);
        header.unwrap_or_else(|| panic!("the request has no {name}")).1.replace_range(.., value);
        self
    }

    pub fn json(&self) -> Value {
        let headers: serde_json::Map<_, _> =
            self.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let body = str::from_utf8(&self.body).expect("the body is UTF-8");
        json!({ "body": body, "headers": headers, "secret": self.secret })
    }
}

/// What the verifiers say: one answer for each case.
pub async fn ask(program: &str, script: &str, cases: &[Case]) -> Vec<Value> {
    let lines: String = cases.iter().map(|case| format!("{}\n", case.json())).collect();
    let script = tools::tool(script);
    let output = tools::run(tools::tool(program), [&script], lines.as_bytes()).await;
    let answers = output.expect_success();
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), cases.len(), "{} does not answer every case", script.display());
    answers
}

/// Asserts what each verifier says of each case: the plain signature, and the standard one in both languages.
pub async fn assert_verdicts(cases: &[Case], plain: bool, standard: bool) {
    let python = ask("python", "verify.py", cases).await;
    let node = ask("node", "verify.mjs", cases).await;
    for ((case, python), node) in cases.iter().zip(python).zip(node) {
        let body = String::from_utf8_lossy(&case.body);
        assert_eq!(python, json!({ "seed": plain, "standard": standard }), "Python: {body}");
        assert_eq!(node, json!({ "standard": standard }), "JavaScript: {body}");
    }
}

on_both! {
    async fn published_verifiers_accept_what_arrives_and_nothing_else(server: Server) {
        let receiver = Receiver::start().await;
        let (webhook, secret) = server.webhook(&receiver.url("/one"), &["*"]).await;
        let (_, other_secret) = server.webhook(&receiver.url("/other"), &["*"]).await;
        for (number, payload) in (1..).zip(PAYLOADS) {
            server.publish("signed.event", payload).await;
            let got = receiver.wait_for_on("/one", number, SOON).await.remove(number - 1);
            let body = str::from_utf8(&got.body).unwrap();
            let start = r#"{"event":"signed.event","timestamp":""#;
            let end = format!(r#"","webhook_id":"{}","data":{payload}}}"#, webhook.id);
            assert!(body.starts_with(start) && body.ends_with(&end), "the payload is carried byte for byte: {body}");
        }
        let one = receiver.received_on("/one");
        let other = receiver.wait_for_on("/other", PAYLOADS.len(), SOON).await;
        let genuine: Vec<_> = one.iter().map(|request| Case::of(request, &secret)).collect();
        assert_verdicts(&genuine, true, true).await;
        let others: Vec<_> = other.iter().map(|request| Case::of(request, &other_secret)).collect();
        assert_verdicts(&others, true, true).await;

        let another_secret: Vec<_> = one.iter().map(|request| Case::of(request, &other_secret)).collect();
        assert_verdicts(&another_secret, false, false).await;
        // A bit of every part of the body: the envelope, the payload, the last byte.
        let flipped: Vec<_> = [2, 40, genuine[0].body.len() - 10, genuine[0].body.len() - 1]
            .into_iter()
            .map(|place| {
                let mut case = genuine[0].clone();
                case.body[place] ^= 1;
                case
            })
            .collect();
        assert_verdicts(&flipped, false, false).await;
        // The standard signature covers the id and the time as well, so that nothing can be replayed as something new.
        let replayed = [
            genuine[0].clone().with_header("webhook-id", "evt_00000000000000000000000000"),
            genuine[0].clone().with_header("webhook-timestamp", "1614265330"),
        ];
        assert_verdicts(&replayed, true, false).await;
    }

    async fn the_setting_says_which_signatures_there_are(server: Server) {
        let receiver = Receiver::start().await;
        server.webhook_to(&receiver, &["signed.event"]).await;
        for (number, setting, plain, standard) in
            [(0, "both", true, true), (1, "standard", false, true), (2, "plain", true, false), (3, "both", true, true)]
        {
            set(&server.client, json!({ "security.webhook_signature": setting })).await;
            server.publish("signed.event", "{}").await;
            let got = receiver.wait_for(number + 1, SOON).await;
            let has = |name: &str| got[number].header(name).is_some();
            assert_eq!((has("x-webhook-signature"), has("webhook-signature")), (plain, standard), "{setting}");
            assert!(has("webhook-id") && has("webhook-timestamp"), "what a repeat is known by stays");
        }
    }

    async fn every_attempt_is_signed_for_its_own_time(server: Server) {
        let receiver = Receiver::start().await;
        receiver.respond_with("/", crate::harness::receiver::Behaviour::StatusThen(vec![500, 200]));
        let (_, secret) = server.webhook_to(&receiver, &["*"]).await;
        let published = server.publish("signed.event", "{}").await;
        crate::harness::eventually("the first attempt is recorded", async || {
            let outcomes = server.event(&published.event_id).await.outcomes;
            (outcomes[0].attempts == 1).then_some(())
        })
        .await;
        server.advance(std::time::Duration::from_secs(66));
        let got = receiver.wait_for(2, SOON).await;
        let cases: Vec<_> = got.iter().map(|request| Case::of(request, &secret)).collect();
        assert_verdicts(&cases, true, true).await;
        let signature = |request: &Received| request.header("webhook-signature").map(str::to_owned);
        assert_ne!(signature(&got[0]), signature(&got[1]));
    }
}
