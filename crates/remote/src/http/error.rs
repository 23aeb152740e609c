//! Why a request brought no answer.

use std::error::Error as _;

use rustls::CertificateError;
use thiserror::Error;

use super::redirects::RedirectProblem;

/// Why a request brought no answer that can be used.
///
/// Each of these leaves open what the server would have said: nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection, or one that broke.
    #[error("cannot reach {host}: {cause}")]
    Unreachable {
        /// `HOST:PORT`
        host: String,
        /// What went wrong.
        cause: String,
    },
    /// The server's certificate was refused, or TLS failed otherwise.
    #[error("the TLS connection to {host} was refused: {cause}")]
    Tls {
        /// `HOST:PORT`
        host: String,
        /// What was refused, and the cure.
        cause: String,
    },
    /// An address that no trust server has: cloud machines find their own credentials there.
    #[error("{host} is at a link-local address, which is never asked")]
    LinkLocal {
        /// `HOST:PORT`
        host: String,
    },
    /// The server sends us elsewhere.
    #[error("{host} redirects to {to}, {problem}; name the final address as the trust server")]
    Redirected {
        /// `HOST:PORT`
        host: String,
        /// The host that it names.
        to: String,
        /// Why that is not followed.
        problem: RedirectProblem,
    },
    /// No answer in time.
    #[error("{host} did not answer in time")]
    TimedOut {
        /// `HOST:PORT`
        host: String,
    },
    /// Too many requests of one namespace wait for this host.
    #[error("{host} is asked for too much at once, in this namespace; try again")]
    Busy {
        /// `HOST:PORT`
        host: String,
    },
    /// A status that tells nothing about what was asked.
    #[error("{host} answered {status} to GET {path}")]
    Status {
        /// `HOST:PORT`
        host: String,
        /// The status code.
        status: u16,
        /// The path that was asked for.
        path: String,
    },
}

/// Says what went wrong. The URL is left out of the cause, as the host is named already.
pub(super) fn explain(host: &str, error: &reqwest::Error, proxied: bool) -> HttpError {
    let host = host.to_owned();
    if error.is_timeout() {
        return HttpError::TimedOut { host };
    }
    let failed = if error.is_connect() { "" } else { "the connection broke: " };
    let mut cause = error.source();
    let mut last = String::new();
    while let Some(inner) = cause {
        if let Some(tls) = tls_error(inner) {
            return HttpError::Tls { host, cause: explain_tls(tls) };
        }
        last = inner.to_string();
        cause = inner.source();
    }
    if last.is_empty() {
        last = error.to_string();
    }
    if last.starts_with("tunnel error") {
        last = format!("the proxy does not let the connection through ({last})");
    } else if proxied {
        last.push_str(" (a proxy is set in the environment, and may be what fails)");
    }
    HttpError::Unreachable { host, cause: format!("{failed}{last}") }
}

/// rustls' error, which arrives inside an I/O error, or inside several.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    tls_error(error.downcast_ref::<std::io::Error>()?.get_ref()?)
}

fn explain_tls(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(refused) = error else {
        return error.to_string();
    };
    match refused {
        CertificateError::UnknownIssuer => {
            "its certificate is signed by an authority that is not trusted; give that authority's certificate with --trust-ca".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; are the clocks right?".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name (names count only as subject alternative names, not as common name)".into()
        }
        CertificateError::ApplicationVerificationFailure => "it shows another certificate than trustServerCertificate pins".into(),
        CertificateError::BadSignature => {
            "its certificate is not signed by the trusted authority of that name; if another one has the same name, give its certificate with --trust-ca".into()
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it serves a CA certificate (CA:TRUE) as its own; give it a certificate signed by that CA instead".into()
        }
        other => format!("its certificate is refused ({other})"),
    }
}
