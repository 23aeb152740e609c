//! Who we are to a server for one request, and who says that the server is the right one.

use std::hash::{Hash as _, Hasher};
use std::sync::Arc;

use countersign_image::{Sha256, Sha256Hasher};

use crate::docker_config::DockerConfig;

/// Who says that a server is the right one to ask. It decides which credentials the server is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum NamedBy {
    /// The operator: by a policy or the configuration.
    #[default]
    Operator,
    /// The image alone, and so whoever writes a pod. Of the configured credentials such a server is shown only those that name exactly
    /// its host, or the image's registry on that host, and at no port that tenants may have. A pattern of hosts would leave it to
    /// the pod who is shown them.
    Image,
    /// A tenant alone. Of the configured credentials the same as for [`Self::Image`]; of the pod's, which are the tenant's own,
    /// none for a registry that merely seems to be of its domain.
    Tenant,
    /// A tenant alone, who also says which certificate the server must show. Nobody else checks who it is then, so it is
    /// shown none of the configured credentials; of the pod's the same as for [`Self::Tenant`].
    TenantWithCertificate,
}

/// The credentials that come with one request, in the order in which they are tried: a pod's pull secrets, and those of its
/// service account. The configured ones come after them, and no credential at all comes last.
///
/// Two logins are the same if their credentials are, and who named the server.
#[derive(Debug, Clone, Default)]
pub struct Login {
    pub(crate) configs: Vec<Arc<DockerConfig>>,
    pub(crate) named_by: NamedBy,
    /// The hash of the configurations, if there are any. To compare them takes long where they are long.
    hash: Option<Sha256>,
}

/// Which login, without its secrets: fit to be kept, and to find by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LoginId {
    named_by: NamedBy,
    hash: Option<Sha256>,
}

impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Login {}

impl Login {
    /// Only what is configured.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// These first.
    #[must_use]
    pub fn with(configs: Vec<Arc<DockerConfig>>) -> Self {
        let mut hasher = BySha256(Sha256Hasher::new());
        configs.hash(&mut hasher);
        let hash = (!configs.is_empty()).then(|| hasher.0.finish());
        Self { configs, hash, ..Self::default() }
    }

    /// The same, for a server that is named by somebody.
    #[must_use]
    pub fn at(&self, named_by: NamedBy) -> Self {
        Self { configs: self.configs.clone(), named_by, hash: self.hash }
    }

    /// Which one it is.
    pub(crate) fn id(&self) -> LoginId {
        LoginId { named_by: self.named_by, hash: self.hash }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.configs.is_empty()
    }
}

/// Hashes so that nobody finds other credentials with the same hash.
struct BySha256(Sha256Hasher);

impl Hasher for BySha256 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of no use: the whole hash is asked for.
    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_told_apart_by_their_credentials() {
        let config = |password: &str| {
            let text = format!(r#"{{"auths": {{"h.io": {{"username": "alice", "password": "{password}"}}}}}}"#);
            Arc::new(DockerConfig::parse(text.as_bytes()).unwrap())
        };
        let login = |passwords: &[&str]| Login::with(passwords.iter().map(|password| config(password)).collect());
        assert_eq!(login(&["a", "b"]).id(), login(&["a", "b"]).id());
        for other in [login(&["b", "a"]), login(&["a"]), login(&["ab"]), login(&["a", "b", "b"]), Login::none()] {
            assert_ne!(login(&["a", "b"]), other);
        }
        assert_ne!(login(&["a"]), login(&["a"]).at(NamedBy::Tenant));
        assert_eq!(Login::with(Vec::new()), Login::none());
    }
}
