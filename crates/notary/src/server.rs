//! The address of a trust server.

use std::fmt;

use thiserror::Error;
use url::Url;

/// Why an address cannot be that of a trust server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrustServerError {
    /// Not a URL.
    #[error("{0:?} is not a URL; write for example https://notary.example.com:4443")]
    NotAUrl(String),
    /// Another scheme.
    #[error("{0:?} is not an https or http address; write for example https://notary.example.com:4443")]
    Scheme(String),
    /// A user, query or fragment. The text is not repeated, as it may hold a password.
    #[error(
        "the trust server's address must have no user, password, query or fragment; credentials come from pull secrets"
    )]
    Extra,
}

/// The address of a trust server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustServer {
    base: String,
    host_port: String,
}

impl TrustServer {
    /// Reads an address, which may have a path (`https://host:8443/notary`).
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, TrustServerError> {
        let shown = || text.chars().take(200).collect::<String>();
        // The URL standard mends much: a missing slash, a backslash, a tab in the middle of a host. Who writes such a thing
        // means another host than would be asked, so only what needs no mending is read.
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        let Some(authority) = authority.filter(|authority| !authority.is_empty()) else {
            return Err(TrustServerError::Scheme(shown()));
        };
        if authority.contains('@') {
            return Err(TrustServerError::Extra);
        }
        if text.contains(|character: char| character.is_whitespace() || character.is_control() || character == '\\') {
            return Err(TrustServerError::NotAUrl(shown()));
        }
        let url = Url::parse(text).map_err(|_| TrustServerError::NotAUrl(shown()))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(TrustServerError::Extra);
        }
        let (Some(host), Some(port @ 1..)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(TrustServerError::NotAUrl(shown()));
        };
        let host_port = format!("{host}:{port}");
        Ok(Self { base: url.as_str().trim_end_matches('/').to_owned(), host_port })
    }

    /// The address, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.base
    }

    /// `HOST:PORT`, as messages name the server.
    #[must_use]
    pub fn host_port(&self) -> &str {
        &self.host_port
    }

    /// Whether it stands below a path of its host, which other paths may not belong to.
    #[must_use]
    pub fn has_path(&self) -> bool {
        self.base.splitn(4, '/').nth(3).is_some_and(|path| !path.is_empty())
    }

    /// The host alone, without the dot that a fully qualified name may end in.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host_port.rsplit_once(':').map_or(self.host_port.as_str(), |(host, _)| host).trim_end_matches('.')
    }

    /// Whether anybody on the way can change what it says.
    #[must_use]
    pub fn is_plain_http(&self) -> bool {
        self.base.starts_with("http:")
    }
}

impl fmt::Display for TrustServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}
