//! Who may send reviews.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::ConfigError;

/// What a client's certificate must be, for its reviews to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificates {
    /// The authorities that sign it, PEM.
    pub authorities: PathBuf,
    /// The names, of which it must have one. Never empty: in most clusters the authority that signs API servers signs every
    /// node too.
    pub names: BTreeSet<String>,
}

impl ClientCertificates {
    /// Nothing, where neither is given.
    pub(super) fn resolve(authorities: Option<PathBuf>, names: Vec<String>) -> Result<Option<Self>, ConfigError> {
        let invalid = |text: &str| Err(ConfigError::Invalid(text.to_owned()));
        if names.iter().any(|name| name.trim().is_empty()) {
            return invalid("--client-name is empty: give the common name or DNS name of the API server's certificate");
        }
        match authorities {
            None if names.is_empty() => Ok(None),
            None => invalid("--client-name needs --client-ca, the authority that signs the API server's certificate"),
            Some(_) if names.is_empty() => invalid(
                "--client-ca needs --client-name, the common name or DNS name of the API server's certificate: without it, every certificate of that authority would do, such as a node's",
            ),
            Some(authorities) => Ok(Some(Self { authorities, names: names.into_iter().collect() })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_and_name_come_together() {
        let resolve = |authority: Option<&str>, names: &[&str]| {
            ClientCertificates::resolve(authority.map(PathBuf::from), names.iter().map(ToString::to_string).collect())
        };
        assert_eq!(resolve(None, &[]), Ok(None));
        let clients = resolve(Some("ca.pem"), &["b", "a"]).unwrap().unwrap();
        assert_eq!(clients.authorities, PathBuf::from("ca.pem"));
        assert!(clients.names.iter().eq(["a", "b"]));
        for (authority, names) in
            [(Some("ca.pem"), &[][..]), (None, &["a"]), (Some("ca.pem"), &["a", ""]), (None, &[" "])]
        {
            assert!(resolve(authority, names).is_err(), "{authority:?} {names:?}");
        }
    }
}
