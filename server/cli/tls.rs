//! The port's certificate, as it is given to `switchboard serve`.

use std::path::{Path, PathBuf};

use clap::Args;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result, Violations};
use crate::rpc::tls::{Files, TABLE};

/// Where the certificate is.  A flag wins over its variable, and that over the table `tls` of the configuration file.
#[derive(Debug, Default, Args)]
pub(super) struct TlsOptions {
    /// The certificate that the port speaks TLS with, with its chain, as PEM.  Read again when it changes.
    #[arg(long, env = "SWITCHBOARD_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, as PEM.
    #[arg(long, env = "SWITCHBOARD_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// The authorities whose clients may connect, as PEM.  Others are turned away in the handshake.
    #[arg(long, env = "SWITCHBOARD_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
}

impl TlsOptions {
    /// The files; `None` when the port is not to speak TLS.
    ///
    /// # Errors
    /// When some are given and others lack, or the table has what is not known.
    pub(super) fn files(self, configuration: Option<&Path>) -> Result<Option<Files>> {
        let table = configuration.map(read).transpose()?.unwrap_or_default();
        let given = (
            self.tls_cert.or(table.tls_cert),
            self.tls_key.or(table.tls_key),
            self.tls_client_ca.or(table.tls_client_ca),
        );
        match given {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), client_authority) => {
                Ok(Some(Files { certificate, key, client_authority }))
            }
            (certificate, key, _) => {
                let mut violations = Violations::default();
                let what = "is needed to speak TLS, or SWITCHBOARD_TLS_CERT";
                violations.require(certificate.is_some(), "--tls-cert", what);
                let what = "is needed to speak TLS, or SWITCHBOARD_TLS_KEY";
                violations.require(key.is_some(), "--tls-key", what);
                violations.finish().map(|()| None)
            }
        }
    }
}

/// The table of a configuration file.  What is wrong with the rest of it is told by whoever reads that.
fn read(path: &Path) -> Result<TlsOptions> {
    let mut options = TlsOptions::default();
    let Ok(text) = std::fs::read_to_string(path) else {
        return Ok(options);
    };
    let (file, _) = DeTable::parse_recoverable(&text);
    let Some(DeValue::Table(table)) = file.get_ref().get(TABLE).map(|value| value.get_ref()) else {
        return Ok(options);
    };
    for (key, value) in table {
        let name = || format!("{} {TABLE}.{}", path.display(), key.get_ref());
        let place = match key.get_ref().as_ref() {
            "cert" => &mut options.tls_cert,
            "key" => &mut options.tls_key,
            "client_ca" => &mut options.tls_client_ca,
            _ => return Err(Error::field(name(), "is not known: there are cert, key and client_ca")),
        };
        let DeValue::String(file) = value.get_ref() else {
            return Err(Error::field(name(), "must be the path of a file, as text"));
        };
        // As in any file: what is relative is so to the file itself.
        *place = Some(path.parent().unwrap_or(Path::new("")).join(file.as_ref()));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(cert: Option<&str>, key: Option<&str>) -> TlsOptions {
        TlsOptions { tls_cert: cert.map(Into::into), tls_key: key.map(Into::into), tls_client_ca: None }
    }

    fn with_file(text: &str, options: TlsOptions) -> Result<Option<Files>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        let strip = |path: PathBuf| path.strip_prefix(folder.path()).map_or(path.clone(), Into::into);
        let found = options.files(Some(&file)).map_err(|error| error.to_string())?;
        Ok(found.map(|files| Files {
            certificate: strip(files.certificate),
            key: strip(files.key),
            client_authority: files.client_authority.map(strip),
        }))
    }

    #[test]
    fn files_come_from_flags_and_from_the_file() {
        let files = |certificate: &str, key: &str, authority: Option<&str>| Files {
            certificate: certificate.into(),
            key: key.into(),
            client_authority: authority.map(Into::into),
        };
        let text = "[tls]\ncert = \"a.pem\"\nkey = \"/k.pem\"\nclient_ca = \"ca.pem\"\n[email]\nx = 1\n";
        assert_eq!(with_file("", options(None, None)), Ok(None));
        assert_eq!(with_file("", options(Some("c"), Some("k"))), Ok(Some(files("c", "k", None))));
        assert_eq!(with_file(text, options(None, None)), Ok(Some(files("a.pem", "/k.pem", Some("ca.pem")))));
        let mixed = with_file(text, options(Some("c"), None));
        assert_eq!(mixed, Ok(Some(files("c", "/k.pem", Some("ca.pem")))), "a flag wins");
    }

    #[test]
    fn what_lacks_or_is_not_known_is_told() {
        for (text, options, words) in [
            ("", options(Some("c"), None), "--tls-key"),
            ("", options(None, Some("k")), "--tls-cert"),
            ("[tls]\nclient_ca = \"a\"\n", options(None, None), "--tls-cert"),
            ("[tls]\nport = 1\n", options(None, None), "tls.port"),
            ("[tls]\ncert = 1\n", options(None, None), "tls.cert"),
        ] {
            let error = with_file(text, options).unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
