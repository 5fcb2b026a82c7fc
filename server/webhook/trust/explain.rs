//! What a failed handshake means, in words for whoever runs the endpoint.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// What receivers say of the server's certificate, or of there being none (RFC 8446, 6.2).
const REFUSALS: [AlertDescription; 9] = [
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
    AlertDescription::CertificateRequired,
];

/// The words for the TLS error among an error and its causes, if there is one.
pub(in crate::webhook) fn explain(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut causes = std::iter::successors(Some(error), |&cause| cause.source());
    causes.find_map(|cause| within(cause.downcast_ref::<io::Error>()?))
}

/// An I/O error does not name as its source what it wraps, only what lies behind that.
fn within(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?;
    if let Some(tls) = inner.downcast_ref::<Error>() {
        return Some(words(tls));
    }
    within(inner.downcast_ref::<io::Error>()?)
}

fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(problem) => match problem {
            // The latter where another authority of the same name is trusted.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "the receiver's certificate is not signed by an authority that is \
                                                trusted: if it is to be, put the authority's into ca_certificates"
                .into(),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the receiver's certificate is not for the host in the URL".into()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the receiver's certificate has expired".into()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the receiver's certificate is not valid yet".into()
            }
            _ => format!("the receiver's certificate is not accepted: {error}"),
        },
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the receiver demands a client certificate: set client_certificate and client_key".into()
        }
        Error::AlertReceived(alert) if REFUSALS.contains(alert) => {
            format!("the receiver does not accept the client certificate, or that there is none: it says {alert:?}")
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the receiver does not speak TLS on this port".into()
        }
        _ => format!("TLS failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_found_however_deep_it_is_wrapped() {
        let refused = Error::AlertReceived(AlertDescription::CertificateRequired);
        let io = io::Error::new(io::ErrorKind::InvalidData, refused);
        let words = explain(&io).unwrap();
        assert!(words.contains("demands a client certificate"), "{words}");
        assert_eq!(explain(&io::Error::other(io)).unwrap(), words);
        assert_eq!(explain(&io::Error::other("something else")), None);
        assert_eq!(explain(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }

    #[test]
    fn each_problem_says_what_to_do() {
        let words = |problem| words(&Error::InvalidCertificate(problem));
        assert!(words(CertificateError::UnknownIssuer).contains("ca_certificates"));
        assert!(words(CertificateError::NotValidForName).contains("host in the URL"));
        assert!(words(CertificateError::Expired).contains("has expired"));
        assert!(words(CertificateError::NotValidYet).contains("not valid yet"));
        assert!(words(CertificateError::Revoked).contains("not accepted"));
    }
}
