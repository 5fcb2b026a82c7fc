//! TLS: whom to trust, and what its errors mean.

use std::io;
use std::sync::{Arc, LazyLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};

use super::fault::{Cause, TlsProblem};
use super::stream;

/// Reading them takes longer than a handshake.
static SYSTEM_ROOTS: LazyLock<RootCertStore> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
});

/// What every connection to one server shares, its resumable sessions among it.
///
/// # Errors
/// When the certificates in `ca`, as PEM, can not be read.
pub(super) fn config(ca: &str) -> Result<Arc<ClientConfig>, Cause> {
    let mut roots = SYSTEM_ROOTS.clone();
    if !ca.trim().is_empty() {
        let unreadable = || Cause::Settings("the certificates to trust can not be read as PEM".into());
        let mut any = false;
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.map_err(|_| unreadable())?).map_err(|_| unreadable())?;
            any = true;
        }
        if !any {
            return Err(unreadable());
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Cause::Settings(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The name that the server's certificate must be for.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, Cause> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| Cause::Settings(format!("{host:?} is neither a host name nor an address")))
}

/// What a failed negotiation means.
pub(super) fn explain(error: &io::Error) -> Cause {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return stream::broken(error);
    };
    let problem = match tls {
        rustls::Error::InvalidMessage(_) => TlsProblem::NotTls,
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsProblem::WrongName
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => TlsProblem::Expired,
            _ => TlsProblem::Untrusted,
        },
        _ => TlsProblem::Other,
    };
    let words = match problem {
        TlsProblem::NotTls => "the server does not speak TLS here".to_owned(),
        _ => tls.to_string(),
    };
    Cause::Tls(problem, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_to_trust_are_read_or_refused() {
        assert!(config("").is_ok() && config(" \n").is_ok());
        for bad in ["nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(matches!(config(bad), Err(Cause::Settings(_))), "{bad}");
        }
    }

    #[test]
    fn errors_say_what_to_look_at() {
        let problem = |error: rustls::Error| match explain(&io::Error::new(io::ErrorKind::InvalidData, error))
        {
            Cause::Tls(problem, _) => problem,
            other => panic!("{other:?}"),
        };
        let certificate = |error| problem(rustls::Error::InvalidCertificate(error));
        assert_eq!(problem(rustls::InvalidMessage::InvalidContentType.into()), TlsProblem::NotTls);
        assert_eq!(certificate(CertificateError::UnknownIssuer), TlsProblem::Untrusted);
        assert_eq!(certificate(CertificateError::NotValidForName), TlsProblem::WrongName);
        assert_eq!(certificate(CertificateError::Expired), TlsProblem::Expired);
        assert_eq!(problem(rustls::Error::DecryptError), TlsProblem::Other);
        assert!(matches!(explain(&io::ErrorKind::UnexpectedEof.into()), Cause::Closed));
    }
}
