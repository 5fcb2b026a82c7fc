//! What the commands share that are clients of a running server.

use clap::Args;
use switchboard_client::{Client, ConnectError};
use tonic::{Code, Status};

use super::options::secret;

/// Which server, and as whom.
#[derive(Debug, Clone, Args)]
pub(super) struct ServerOptions {
    /// The running server.
    #[arg(long, env = "SWITCHBOARD_SERVER", default_value = "http://127.0.0.1:8080")]
    pub server: String,
    /// An API key of that server.  SWITCHBOARD_API_KEY unless given.
    #[arg(long)]
    key: Option<String>,
}

impl ServerOptions {
    /// Connects.
    ///
    /// # Errors
    /// Why there is no connection, and what to do about it.
    pub(super) async fn connect(&self) -> Result<Client, String> {
        let key = match &self.key {
            Some(key) => key.clone(),
            None => match secret("SWITCHBOARD_API_KEY").map_err(|error| error.to_string())? {
                Some(key) => key.reveal().to_owned(),
                None => return Err("there is no API key: give --key, or set SWITCHBOARD_API_KEY".into()),
            },
        };
        Client::connect(self.server.clone(), &key).await.map_err(|error| match error {
            ConnectError::Key => "the API key has characters that no key has".into(),
            ConnectError::Transport(error) => self.unreachable(&error),
        })
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> String {
        // The innermost says what happened; those around it say that something did.
        let innermost = std::iter::successors(Some(error), |error| error.source()).last();
        let why = innermost.map(ToString::to_string).unwrap_or_default();
        format!("the server at {} can not be reached ({why}): start it, or give --server", self.server)
    }

    /// What a refused call means for whoever ran the command.
    pub(super) fn explain(&self, status: &Status) -> String {
        let message = one_line(status.message());
        match status.code() {
            Code::Unauthenticated => {
                format!(
                    "the key is refused ({message}): give another by --key, or make one with `switchboard key create`"
                )
            }
            Code::PermissionDenied => format!("the key may not do this: {message}"),
            Code::Unimplemented => "the server can not do this: it is older than this command".into(),
            Code::Unavailable => format!("the server at {} can not be reached ({message})", self.server),
            code => format!("the server refused it ({code:?}): {message}"),
        }
    }
}

/// A text from elsewhere as a part of one line: nothing in it moves the cursor of whoever reads it.
pub(super) fn one_line(text: &str) -> String {
    let spaced: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_stays_on_its_line() {
        assert_eq!(one_line("550 5.1.1\r\n\u{1b}[2J  gone"), "550 5.1.1 [2J gone");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let options = ServerOptions { server: "http://127.0.0.1:1".into(), key: None };
        let said = options.explain(&Status::unauthenticated("Invalid or revoked API key"));
        assert!(said.contains("--key") && said.contains("Invalid or revoked"), "{said}");
        assert!(options.explain(&Status::permission_denied("needs email:write")).contains("email:write"));
    }
}
