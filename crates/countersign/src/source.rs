//! Where policies and secrets come from.

pub mod cluster;
pub mod definitions;
pub mod files;
pub mod status;

use std::sync::Arc;

use countersign_policy::{PolicySet, SecretRef};
use futures::future::BoxFuture;
use thiserror::Error;

/// The data of a secret that a policy names. Never shown: the same type holds whatever else the secret has.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData {
    /// The signer's name.
    pub name: Option<Vec<u8>>,
    /// The signer's key.
    pub public_key: Option<Vec<u8>>,
    /// Credentials, of a pull secret.
    pub pull: Option<PullData>,
}

/// The data of a pull secret, by its type.
#[derive(Clone, PartialEq, Eq)]
pub enum PullData {
    /// `kubernetes.io/dockerconfigjson`
    Config(Vec<u8>),
    /// `kubernetes.io/dockercfg`
    Legacy(Vec<u8>),
}

/// The data key of a pull secret, and what to make of its value.
pub type PullForm = (&'static str, fn(Vec<u8>) -> PullData);

impl PullData {
    /// The data key of a type of Secret that holds credentials, and what its value is; nothing for any other type.
    #[must_use]
    pub fn form(secret_type: &str) -> Option<PullForm> {
        match secret_type {
            "kubernetes.io/dockerconfigjson" => Some((".dockerconfigjson", Self::Config)),
            "kubernetes.io/dockercfg" => Some((".dockercfg", Self::Legacy)),
            _ => None,
        }
    }
}

impl SecretData {
    /// How many bytes it takes, with its place.
    #[must_use]
    pub fn size(&self) -> usize {
        let pull = self.pull.as_ref().map_or(0, |pull| match pull {
            PullData::Config(bytes) | PullData::Legacy(bytes) => bytes.len(),
        });
        size_of::<Self>()
            + 256
            + pull
            + [&self.name, &self.public_key].into_iter().flatten().map(Vec::len).sum::<usize>()
    }
}

impl std::fmt::Debug for SecretData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretData")
            .field("name", &self.name.is_some())
            .field("public_key", &self.public_key.is_some())
            .field("pull", &self.pull.is_some())
            .finish()
    }
}

/// Why a source cannot be asked. What it would have said is then unknown, so nothing is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// No policies were loaded yet.
    #[error("policies are not loaded yet")]
    NotReady,
    /// The policies are not known.
    #[error("the policies are not known: {cause}")]
    Policies {
        /// The reason.
        cause: String,
    },
    /// A service account could not be read.
    #[error("cannot read service account {name} in namespace {namespace}: {cause}")]
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The reason.
        cause: String,
    },
    /// A secret could not be read.
    #[error("cannot read secret {name} in namespace {namespace}: {cause}", namespace = .secret.namespace, name = .secret.name)]
    Secret {
        /// The secret.
        secret: SecretRef,
        /// The reason.
        cause: String,
    },
}

/// A moment of a source: what it said does not change while a review looks at it.
pub trait Moment: Send + Sync {
    /// The policies.
    fn policies(&self) -> &PolicySet;

    /// A secret; `None` if there is none of that name.
    fn secret<'a>(&'a self, secret: &'a SecretRef) -> BoxFuture<'a, Result<Option<SecretData>, SourceError>>;

    /// The names of the pull secrets of a service account; none if there is no such account.
    fn account_pull_secrets<'a>(
        &'a self,
        namespace: &'a str,
        account: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, SourceError>>;
}

/// Where policies and secrets come from.
pub trait Source: Send + Sync {
    /// What it says now.
    ///
    /// # Errors
    /// Nothing was loaded yet.
    fn now(&self) -> Result<Arc<dyn Moment>, SourceError>;

    /// Why others should be asked instead of this process, if so.
    fn unready(&self) -> Option<String> {
        self.now().err().map(|error| error.to_string())
    }
}
