//! Where an answer may send us.

use reqwest::{Method, StatusCode};
use thiserror::Error;
use url::Url;

use crate::addresses::Reach;

/// How many redirects of one request are followed: a registry, its storage, and a cache in front of that.
pub(crate) const MAX_REDIRECTS: usize = 3;

/// Which redirects a request follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirects {
    /// Within the origin that was asked: elsewhere another party would answer in its place.
    SameOrigin,
    /// To other hosts too, for content that is known by its digest. Another host is not shown who we are: neither a password or
    /// token, nor a client certificate that is not configured for that host. It must be on https if the one that sends us
    /// there is. It is not at this machine's own addresses, nor at those where machines are told their secrets.
    ContentAddressed,
}

/// Why a redirect is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RedirectProblem {
    /// The request follows none that leads to another origin.
    #[error("which is not followed")]
    NotAskedFor,
    /// From https to something else.
    #[error("which is not followed since it is not https")]
    NotHttps,
    /// To this machine, or to where machines are told their secrets.
    #[error(
        "which is not followed since that is an address of this machine itself, or one of those at which clouds keep credentials"
    )]
    OffLimits,
    /// One too many.
    #[error("which is not followed since {MAX_REDIRECTS} redirects came before")]
    TooMany,
}

/// Where the next request goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To the same origin.
    Here(Url),
    /// To another one.
    Elsewhere(Url),
}

impl Redirects {
    /// Where a redirect leads, if it is followed. `made` says how many were followed before.
    pub(crate) fn step(self, from: &Url, to: Option<&Url>, made: usize) -> Result<Step, RedirectProblem> {
        let Some(to) = to else { return Err(RedirectProblem::NotAskedFor) };
        // Who sends us there does not choose as whom we come.
        let mut clean = to.clone();
        let _ = clean.set_username("");
        let _ = clean.set_password(None);
        let same = from.origin() == to.origin();
        match self {
            Self::SameOrigin if !same => Err(RedirectProblem::NotAskedFor),
            _ if made >= MAX_REDIRECTS => Err(RedirectProblem::TooMany),
            _ if same => Ok(Step::Here(clean)),
            Self::SameOrigin => Err(RedirectProblem::NotAskedFor),
            Self::ContentAddressed if to.scheme() != "https" && (from.scheme(), to.scheme()) != ("http", "http") => {
                Err(RedirectProblem::NotHttps)
            }
            Self::ContentAddressed if !Reach::Sent.allows_host(to) => Err(RedirectProblem::OffLimits),
            Self::ContentAddressed => Ok(Step::Elsewhere(clean)),
        }
    }
}

/// Whether a status sends us on (RFC 9110, 15.4); the other ones with a 3 do not.
pub(crate) fn sends_on(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The method of the next request: what was posted is not posted again, unless the status says so (RFC 9110, 15.4).
pub(crate) fn next_method(method: &Method, status: StatusCode) -> Method {
    match status.as_u16() {
        301 | 302 if *method == Method::POST => Method::GET,
        303 if *method != Method::HEAD => Method::GET,
        _ => method.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(redirects: Redirects, from: &str, to: &str, made: usize) -> Result<Step, RedirectProblem> {
        let from = Url::parse(from).unwrap();
        redirects.step(&from, from.join(to).ok().as_ref(), made)
    }

    #[test]
    fn within_one_origin() {
        use RedirectProblem::{NotAskedFor, TooMany};
        let from = "https://reg.example.com/v2/a";
        for (to, made, refused) in [
            ("/v2/b", 0, None),
            ("https://reg.example.com:443/b", 2, None),
            ("/v2/b", 3, Some(TooMany)),
            ("https://reg.example.com:444/b", 0, Some(NotAskedFor)),
            ("http://reg.example.com/b", 0, Some(NotAskedFor)),
            ("https://other.example.com/b", 0, Some(NotAskedFor)),
            ("//other.example.com/b", 3, Some(NotAskedFor)),
            ("https://[", 0, Some(NotAskedFor)),
        ] {
            let found = step(Redirects::SameOrigin, from, to, made);
            assert_eq!(matches!(found, Ok(Step::Here(_))), refused.is_none(), "{to} {made}");
            assert_eq!(found.err(), refused, "{to} {made}");
        }
    }

    #[test]
    fn to_where_the_content_is() {
        use RedirectProblem::{NotHttps, OffLimits, TooMany};
        let from = "https://127.0.0.1:5000/v2/a";
        for (to, made, refused) in [
            ("https://storage.example.com/b", 0, None),
            ("https://10.0.0.7:9000/b", 2, None),
            ("https://storage.example.com/b", 3, Some(TooMany)),
            ("/b", 3, Some(TooMany)),
            ("http://storage.example.com/b", 0, Some(NotHttps)),
            ("ftp://storage.example.com/b", 0, Some(NotHttps)),
            ("file:///etc/passwd", 0, Some(NotHttps)),
            ("http://127.0.0.1:5000/b", 0, Some(NotHttps)),
            ("https://127.0.0.1:5001/b", 0, Some(OffLimits)),
            ("https://127.1/b", 0, Some(OffLimits)),
            ("https://[::1]/b", 0, Some(OffLimits)),
            ("https://[::ffff:127.0.0.1]/b", 0, Some(OffLimits)),
            ("https://localhost:5000/b", 0, Some(OffLimits)),
            ("https://169.254.169.254/latest/meta-data", 0, Some(OffLimits)),
            ("https://0.0.0.0/b", 0, Some(OffLimits)),
        ] {
            assert_eq!(step(Redirects::ContentAddressed, from, to, made).err(), refused, "{to} {made}");
        }
        // At home it is nobody else's machine.
        let here = step(Redirects::ContentAddressed, from, "https://127.0.0.1:5000/b", 0).unwrap();
        assert_eq!(here, Step::Here(Url::parse("https://127.0.0.1:5000/b").unwrap()));
        let http = step(Redirects::ContentAddressed, "http://reg.example.com/", "http://other.example.com/", 0);
        assert!(matches!(http, Ok(Step::Elsewhere(_))));
        let ftp = step(Redirects::ContentAddressed, "http://reg.example.com/", "ftp://other.example.com/", 0);
        assert_eq!(ftp, Err(NotHttps));
    }

    #[test]
    fn nobody_says_as_whom_we_come() {
        for redirects in [Redirects::SameOrigin, Redirects::ContentAddressed] {
            let Ok(Step::Here(url)) = step(redirects, "https://a.example/x", "https://admin:admin@a.example/y", 0)
            else {
                panic!("{redirects:?}")
            };
            assert_eq!(url.as_str(), "https://a.example/y");
        }
        let Ok(Step::Elsewhere(url)) =
            step(Redirects::ContentAddressed, "https://a.example/x", "https://admin:admin@b.example/y", 0)
        else {
            panic!()
        };
        assert_eq!(url.as_str(), "https://b.example/y");
    }

    #[test]
    fn methods() {
        for (method, status, next) in [
            (Method::GET, 302, Method::GET),
            (Method::HEAD, 303, Method::HEAD),
            (Method::HEAD, 307, Method::HEAD),
            (Method::POST, 301, Method::GET),
            (Method::POST, 302, Method::GET),
            (Method::POST, 303, Method::GET),
            (Method::POST, 307, Method::POST),
            (Method::POST, 308, Method::POST),
        ] {
            assert_eq!(next_method(&method, StatusCode::from_u16(status).unwrap()), next, "{method} {status}");
        }
    }
}
