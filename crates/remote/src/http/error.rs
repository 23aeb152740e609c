//! Why a request brought no answer.

use std::error::Error as _;
use std::fmt;

use rustls::CertificateError;

use super::redirects::RedirectProblem;

/// Why a request brought no answer that can be used. What helps is said by whoever asked ([`HttpError::with`]).
///
/// Each of these leaves open what the server would have said: nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection, or one that broke.
    Unreachable {
        /// `HOST:PORT`
        host: String,
        /// What went wrong.
        cause: String,
    },
    /// The server's certificate was refused, or TLS failed otherwise.
    Tls {
        /// `HOST:PORT`
        host: String,
        /// What was refused.
        problem: TlsProblem,
    },
    /// An address that no server has that is asked: cloud machines find their own credentials there.
    LinkLocal {
        /// `HOST:PORT`
        host: String,
    },
    /// An address to which no other server may send us: one of this machine, or one at which clouds keep credentials.
    OffLimits {
        /// `HOST:PORT`
        host: String,
    },
    /// The server sends us elsewhere.
    Redirected {
        /// `HOST:PORT`
        host: String,
        /// The host that it names.
        to: String,
        /// Why that is not followed.
        problem: RedirectProblem,
    },
    /// No answer in time.
    TimedOut {
        /// `HOST:PORT`
        host: String,
    },
    /// Too many requests of one namespace wait for this host.
    Busy {
        /// `HOST:PORT`
        host: String,
    },
    /// A status that tells nothing about what was asked.
    Status {
        /// `HOST:PORT`
        host: String,
        /// The status code.
        status: u16,
        /// The path that was asked for.
        path: String,
    },
}

/// What TLS did not like.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsProblem {
    /// The certificate is signed by an authority that is not trusted.
    UnknownAuthority,
    /// It is signed by an authority with the name of one that is trusted, but another key.
    Namesake,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    /// It is for another name.
    OtherName,
    /// It is not the one that is pinned.
    NotPinned,
    /// It is the certificate of an authority.
    Authority,
    /// It is refused otherwise.
    Certificate(String),
    /// TLS failed before it came to certificates.
    Other(String),
}

/// What helps, in the words of whoever asked: they know where a trusted authority or an address is written. Where a text is empty
/// nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cures {
    /// Against an authority that is not trusted.
    pub unknown_authority: &'static str,
    /// Against an authority that has the name of one that is trusted.
    pub namesake: &'static str,
    /// Against a redirect that is not asked for.
    pub redirect: &'static str,
    /// What pins a certificate.
    pub pin: &'static str,
}

impl TlsProblem {
    fn of(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(refused) = error else {
            return Self::Other(error.to_string());
        };
        match refused {
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::OtherName,
            CertificateError::ApplicationVerificationFailure => Self::NotPinned,
            CertificateError::BadSignature => Self::Namesake,
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => Self::Authority,
            other => Self::Certificate(other.to_string()),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, cures: &Cures) -> fmt::Result {
        match self {
            Self::UnknownAuthority => {
                f.write_str("its certificate is signed by an authority that is not trusted")?;
                cure(f, cures.unknown_authority)
            }
            Self::Namesake => {
                f.write_str("its certificate is not signed by the trusted authority of that name")?;
                cure(f, cures.namesake)
            }
            Self::Expired => f.write_str("its certificate has expired"),
            Self::NotYetValid => f.write_str("its certificate is not valid yet; are the clocks right?"),
            Self::OtherName => f.write_str(
                "its certificate is for another name (names count only as subject alternative names, not as common name)",
            ),
            Self::NotPinned if cures.pin.is_empty() => {
                f.write_str("it shows another certificate than the one that is pinned")
            }
            Self::NotPinned => write!(f, "it shows another certificate than {} pins", cures.pin),
            Self::Authority => f.write_str(
                "it serves a CA certificate (CA:TRUE) as its own; give it a certificate signed by that CA instead",
            ),
            Self::Certificate(refused) => write!(f, "its certificate is refused ({refused})"),
            Self::Other(problem) => f.write_str(problem),
        }
    }
}

/// After a semicolon, if there is one.
fn cure(f: &mut fmt::Formatter<'_>, cure: &str) -> fmt::Result {
    if cure.is_empty() { Ok(()) } else { write!(f, "; {cure}") }
}

impl HttpError {
    /// The error with what helps, for whoever reads it.
    #[must_use]
    pub fn with<'a>(&'a self, cures: &'a Cures) -> impl fmt::Display {
        fmt::from_fn(move |f| self.write(f, cures))
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, cures: &Cures) -> fmt::Result {
        match self {
            Self::Unreachable { host, cause } => write!(f, "cannot reach {host}: {cause}"),
            Self::Tls { host, problem } => {
                write!(f, "the TLS connection to {host} was refused: ")?;
                problem.write(f, cures)
            }
            Self::OffLimits { host } => write!(
                f,
                "{host} is an address of this machine itself, or one of those at which clouds keep credentials, and no other server may send us there"
            ),
            Self::LinkLocal { host } => write!(f, "{host} is at a link-local address, which is never asked"),
            Self::Redirected { host, to, problem } => {
                write!(f, "{host} redirects to {to}, {problem}")?;
                if *problem == RedirectProblem::NotAskedFor { cure(f, cures.redirect) } else { Ok(()) }
            }
            Self::TimedOut { host } => write!(f, "{host} did not answer in time"),
            Self::Busy { host } => {
                write!(f, "{host} is asked for too much at once, in this namespace; try again")
            }
            Self::Status { host, status, path } => write!(f, "{host} answered {status} to GET {path}"),
        }
    }
}

/// What is wrong, without what helps.
impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &Cures::default())
    }
}

impl std::error::Error for HttpError {}

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
            return HttpError::Tls { host, problem: TlsProblem::of(tls) };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Users read these, and search for them.
    #[test]
    fn words() {
        let cures = Cures { unknown_authority: "trust it", namesake: "look twice", redirect: "go there", pin: "x" };
        let tls = |problem| HttpError::Tls { host: "h:443".into(), problem };
        let redirected = |problem| HttpError::Redirected { host: "h:443".into(), to: "t:443".into(), problem };
        let cases = [
            (
                tls(TlsProblem::UnknownAuthority),
                "the TLS connection to h:443 was refused: its certificate is signed by an authority that is not trusted",
                "; trust it",
            ),
            (
                tls(TlsProblem::Namesake),
                "the TLS connection to h:443 was refused: its certificate is not signed by the trusted authority of that name",
                "; look twice",
            ),
            (tls(TlsProblem::Expired), "the TLS connection to h:443 was refused: its certificate has expired", ""),
            (redirected(RedirectProblem::NotAskedFor), "h:443 redirects to t:443, which is not followed", "; go there"),
            (
                redirected(RedirectProblem::NotHttps),
                "h:443 redirects to t:443, which is not followed since it is not https",
                "",
            ),
            (
                redirected(RedirectProblem::TooMany),
                "h:443 redirects to t:443, which is not followed since 3 redirects came before",
                "",
            ),
            (HttpError::TimedOut { host: "h:443".into() }, "h:443 did not answer in time", ""),
        ];
        for (error, said, cure) in cases {
            assert_eq!(error.to_string(), said);
            assert_eq!(error.with(&cures).to_string(), format!("{said}{cure}"));
        }
        let pinned = tls(TlsProblem::NotPinned);
        assert!(pinned.to_string().ends_with("refused: it shows another certificate than the one that is pinned"));
        assert!(pinned.with(&cures).to_string().ends_with("refused: it shows another certificate than x pins"));
    }
}
