//! Access tokens for XOAUTH2, got with a refresh token (RFC 6749, section 6).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::{Host, Url};

use super::fault::Cause;
use crate::clock::{SharedClock, Timestamp};
use crate::email::config::OAuth;
use crate::secret::SecretText;

/// The greatest answer, in bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// How long before its end a token is not used any more.
const MARGIN: Duration = Duration::from_secs(60);
/// How long a token is good for when the endpoint does not say.
const USUAL: Duration = Duration::from_secs(300);

/// The access token of one login: got when it is needed, one request at a time, and kept until shortly before its end.
pub(super) struct Tokens {
    source: OAuth,
    clock: SharedClock,
    deadline: Duration,
    // Held while a token is got, so that the others wait for it.
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    token: SecretText,
    until: Timestamp,
}

/// A token.
pub(super) struct Token {
    /// The token.
    pub text: SecretText,
    /// Whether it was got just now.
    pub is_new: bool,
}

impl Tokens {
    /// Tokens from this source.
    pub(super) fn new(source: OAuth, clock: SharedClock, deadline: Duration) -> Self {
        Self { source, clock, deadline, kept: Mutex::default() }
    }

    /// The token that is kept, or a new one; `refused` is one that the SMTP server did not take.
    ///
    /// # Errors
    /// [`Cause::Token`], in words.
    pub(super) async fn get(&self, refused: Option<&SecretText>) -> Result<Token, Cause> {
        let mut kept = self.kept.lock().await;
        if let Some(own) = &*kept
            && self.clock.now() < own.until
            && refused != Some(&own.token)
        {
            return Ok(Token { text: own.token.clone(), is_new: false });
        }
        *kept = None;
        let failed = |refused, words: String| Cause::Token { refused, words };
        let answer = match timeout(self.deadline, self.ask()).await {
            Err(_) => return Err(failed(false, "the token endpoint did not answer in time".into())),
            Ok(answer) => answer?,
        };
        let token = SecretText::new(answer.access_token);
        let life = answer.expires_in.map_or(USUAL, Duration::from_secs);
        let until = self.clock.now() + life.saturating_sub(MARGIN);
        *kept = Some(Kept { token: token.clone(), until });
        Ok(Token { text: token, is_new: true })
    }

    fn form(&self) -> String {
        let OAuth { client_id, client_secret, refresh_token, .. } = &self.source;
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", refresh_token.reveal())
            .append_pair("client_id", client_id);
        if !client_secret.reveal().is_empty() {
            form.append_pair("client_secret", client_secret.reveal());
        }
        form.finish()
    }

    async fn ask(&self) -> Result<Granted, Cause> {
        let unusable = |words: String| Cause::Token { refused: true, words };
        let network = |words: String| Cause::Token { refused: false, words };
        let url = endpoint(&self.source.token_url).map_err(unusable)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(url.as_str())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(self.form())))
            .map_err(|error| unusable(error.to_string()))?;
        let tls = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| network(error.to_string()))?
            .https_or_http()
            .enable_http1()
            .wrap_connector({
                let mut tcp = HttpConnector::new();
                tcp.enforce_http(false);
                tcp
            });
        // A token is got about once an hour: nothing is kept open for it.
        let client: Client<_, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(tls);
        let response = client
            .request(request)
            .await
            .map_err(|error| network(format!("the token endpoint can not be reached: {error}")))?;
        let status = response.status();
        let mut body = response.into_body();
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| network(error.to_string()))?;
            read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
            if read.len() > BODY_LIMIT {
                return Err(network("the token endpoint's answer is too large".into()));
            }
        }
        judge(status, &read)
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<u64>,
}

#[derive(Deserialize, Default)]
struct Denied {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

fn judge(status: StatusCode, body: &[u8]) -> Result<Granted, Cause> {
    if status.is_success() {
        return serde_json::from_slice::<Granted>(body)
            .ok()
            .filter(|granted| {
                !granted.access_token.is_empty()
                    && granted.access_token.bytes().all(|byte| byte.is_ascii_graphic())
            })
            .ok_or_else(|| Cause::Token {
                refused: false,
                words: "the token endpoint answered without a token".into(),
            });
    }
    let denied: Denied = serde_json::from_slice(body).unwrap_or_default();
    let said: String = format!("{} {}", denied.error, denied.error_description)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect();
    // RFC 6749, section 5.2: what is wrong with the request will stay wrong; 429 is no such answer.
    let refused = status.is_client_error()
        && !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    Err(Cause::Token {
        refused,
        words: format!("the token endpoint answered {} {}", status.as_u16(), said.trim()),
    })
}

/// The endpoint: `https`, or `http` on this machine.
fn endpoint(url: &str) -> Result<Url, String> {
    let url = Url::parse(url).map_err(|error| format!("the token endpoint {url:?} is no URL: {error}"))?;
    let is_here = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_here => Ok(url),
        _ => Err(format!("the token endpoint {url} must be https")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_protected_unless_it_is_on_this_machine() {
        for good in
            ["https://example.com/token", "http://127.0.0.1:1/t", "http://[::1]/t", "http://localhost/t"]
        {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in
            ["http://example.com/token", "http://10.0.0.1/", "ftp://127.0.0.1/", "file:///etc/passwd", "x"]
        {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_are_judged() {
        let judged = |status: u16, body: &str| judge(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        let granted =
            judged(200, r#"{"access_token":"a.b","expires_in":3599,"token_type":"Bearer"}"#).unwrap();
        assert_eq!((granted.access_token.as_str(), granted.expires_in), ("a.b", Some(3599)));
        for (status, body, expected) in [
            (200, "{}", false),
            (200, r#"{"access_token":"a\r\nb"}"#, false),
            (400, r#"{"error":"invalid_grant","error_description":"Token has been revoked."}"#, true),
            (401, "<html>", true),
            (429, "", false),
            (503, "", false),
        ] {
            match judged(status, body) {
                Err(Cause::Token { refused, words }) => {
                    assert_eq!(refused, expected, "{status} {body}: {words}");
                    assert!(
                        status != 400 || words.contains("invalid_grant Token has been revoked."),
                        "{words}"
                    );
                }
                _ => panic!("{status} {body}"),
            }
        }
    }
}
