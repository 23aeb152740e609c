//! Who we are to a server for one request, and who says that the server is the right one.

use std::sync::Arc;

use crate::docker_config::DockerConfig;

/// Who says that a server is the right one to ask. It decides which credentials the server is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum NamedBy {
    /// Not a tenant alone: the operator has set it up, or it is the usual one for the image.
    #[default]
    Operator,
    /// A tenant alone. Of the configured credentials such a server is shown only those that are for exactly its host, or for
    /// the image's registry on that host, and at no port that tenants may have; of the pod's, which are the tenant's own,
    /// none for a registry that merely seems to be of its domain.
    Tenant,
    /// A tenant alone, who also says which certificate the server must show. Nobody else checks who it is then, so it is
    /// shown none of the configured credentials; of the pod's the same as for [`Self::Tenant`].
    TenantWithCertificate,
}

impl NamedBy {
    /// Whether a tenant alone names the server, and whether the one certificate that it must show is named too.
    #[must_use]
    pub fn of(tenant: bool, certificate: bool) -> Self {
        match (tenant, certificate) {
            (false, _) => Self::Operator,
            (true, false) => Self::Tenant,
            (true, true) => Self::TenantWithCertificate,
        }
    }
}

/// The credentials that come with one request, in the order in which they are tried: a pod's pull secrets, and those of its
/// service account. The configured ones come after them, and no credential at all comes last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Login {
    pub(crate) configs: Vec<Arc<DockerConfig>>,
    pub(crate) named_by: NamedBy,
}

impl Login {
    /// Only what is configured.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// These first.
    #[must_use]
    pub fn with(configs: Vec<Arc<DockerConfig>>) -> Self {
        Self { configs, ..Self::default() }
    }

    /// The same, for a server that is named by somebody.
    #[must_use]
    pub fn at(&self, named_by: NamedBy) -> Self {
        Self { configs: self.configs.clone(), named_by }
    }

    /// How many bytes it takes, about.
    pub(crate) fn size(&self) -> usize {
        self.configs.iter().map(|config| config.size()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.configs.is_empty()
    }
}
