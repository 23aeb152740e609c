//! Where policies and secrets come from.

pub(crate) mod cluster;
pub(crate) mod definitions;
pub(crate) mod files;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use countersign_cosign::Key;
use countersign_notary::{RootPins, Signer};
use countersign_policy::{Mode, PolicySet, Refusal, SecretRef};
use countersign_remote::DockerConfig;
use futures::future::{self, BoxFuture};
use thiserror::Error;

use crate::metrics::Metrics;

/// The keys of a secret's data that are read, besides that of a pull secret: a secret may hold anything else.
const KEYS: [&str; 3] = ["name", "publicKey", "cosign.pub"];

/// What is read of a secret that a policy or a workload names. Never shown: it may hold whatever a secret has.
#[derive(Default)]
pub struct SecretData {
    values: BTreeMap<&'static str, Vec<u8>>,
    pull: Option<PullData>,
    /// What it was taken for so far.
    pub(crate) taken: Taken,
}

/// What a secret was taken for. To parse keys takes longer than the rest of a review, so it is done once for as long as the secret stays
/// as it is: whoever reads another one makes another [`SecretData`].
#[derive(Default)]
pub(crate) struct Taken {
    /// For a signer on a trust server.
    pub(crate) signer: OnceLock<Result<Signer, Refusal>>,
    /// For a root key.
    pub(crate) pins: OnceLock<Result<RootPins, Refusal>>,
    /// For a key of cosign.
    pub(crate) cosign: OnceLock<Result<Key, Refusal>>,
    /// For credentials.
    pub(crate) login: OnceLock<Result<Arc<DockerConfig>, String>>,
}

impl PartialEq for SecretData {
    fn eq(&self, other: &Self) -> bool {
        (&self.values, &self.pull) == (&other.values, &other.pull)
    }
}

impl Eq for SecretData {}

/// The data of a pull secret, by its type.
#[derive(Clone, PartialEq, Eq)]
pub enum PullData {
    /// `kubernetes.io/dockerconfigjson`
    Config(Vec<u8>),
    /// `kubernetes.io/dockercfg`
    Legacy(Vec<u8>),
}

/// The data key of a pull secret, and what to make of its value.
type PullForm = (&'static str, fn(Vec<u8>) -> PullData);

impl PullData {
    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Config(bytes) | Self::Legacy(bytes) => bytes.len(),
        }
    }

    /// The data key of a type of Secret that holds credentials, and what its value is; nothing for any other type.
    #[must_use]
    fn form(secret_type: &str) -> Option<PullForm> {
        match secret_type {
            "kubernetes.io/dockerconfigjson" => Some((".dockerconfigjson", Self::Config)),
            "kubernetes.io/dockercfg" => Some((".dockercfg", Self::Legacy)),
            _ => None,
        }
    }
}

impl SecretData {
    /// Takes what is read of a secret of a type; `value` gives the value of a key, if there is one.
    ///
    /// # Errors
    /// Whatever `value` fails with.
    pub fn read<E>(secret_type: &str, mut value: impl FnMut(&str) -> Result<Option<Vec<u8>>, E>) -> Result<Self, E> {
        let mut read = Self::default();
        for key in KEYS {
            if let Some(found) = value(key)? {
                read.values.insert(key, found);
            }
        }
        if let Some((key, form)) = PullData::form(secret_type) {
            read.pull = value(key)?.map(form);
        }
        Ok(read)
    }

    /// The signer's name, if there is one that is not empty.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        self.present("name")
    }

    /// The signer's key, or a root key, if there is one that is not empty.
    #[must_use]
    pub fn public_key(&self) -> Option<&[u8]> {
        self.present("publicKey")
    }

    /// The public key as `cosign generate-key-pair k8s://NAMESPACE/NAME` writes it, if there is one that is not empty.
    #[must_use]
    pub fn cosign_pub(&self) -> Option<&[u8]> {
        self.present("cosign.pub")
    }

    /// Credentials, of a pull secret.
    #[must_use]
    pub fn pull(&self) -> Option<&PullData> {
        self.pull.as_ref()
    }

    fn present(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice).filter(|value| !value.trim_ascii().is_empty())
    }

    /// About how many bytes it takes, with its place and with what it is taken for: a key or a list of logins has no more than its text.
    #[must_use]
    pub fn size(&self) -> usize {
        let pull = self.pull.as_ref().map_or(0, PullData::size);
        size_of::<Self>() + 256 + 2 * (pull + self.values.values().map(Vec::len).sum::<usize>())
    }
}

impl std::fmt::Debug for SecretData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<_> = self.values.keys().collect();
        f.debug_struct("SecretData").field("keys", &keys).field("pull", &self.pull.is_some()).finish_non_exhaustive()
    }
}

/// Why a source cannot be asked. What it would have said is then unknown, so nothing is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(crate) enum SourceError {
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
pub(crate) trait Moment: Send + Sync {
    /// The policies.
    fn policies(&self) -> &PolicySet;

    /// A secret; `None` if there is none of that name.
    fn secret<'a>(&'a self, secret: &'a SecretRef) -> BoxFuture<'a, Result<Option<Arc<SecretData>>, SourceError>>;

    /// The same, without asking anybody.
    ///
    /// # Errors
    /// It would take asking.
    fn secret_at_hand(&self, secret: &SecretRef) -> Result<Option<Arc<SecretData>>, NotAtHand>;

    /// The names of the pull secrets of a service account; none if there is no such account.
    fn account_pull_secrets<'a>(
        &'a self,
        namespace: &'a str,
        account: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, SourceError>>;
}

/// To tell something, somebody would have to be asked.
#[derive(Debug)]
pub(crate) struct NotAtHand;

/// A moment of which nothing is asked that is not at hand: whoever wants more waits for ever, and has begun nothing.
pub(crate) struct AtHand<'a>(pub(crate) &'a dyn Moment);

impl Moment for AtHand<'_> {
    fn policies(&self) -> &PolicySet {
        self.0.policies()
    }

    fn secret<'a>(&'a self, secret: &'a SecretRef) -> BoxFuture<'a, Result<Option<Arc<SecretData>>, SourceError>> {
        match self.secret_at_hand(secret) {
            Ok(found) => Box::pin(future::ready(Ok(found))),
            Err(NotAtHand) => Box::pin(future::pending()),
        }
    }

    fn secret_at_hand(&self, secret: &SecretRef) -> Result<Option<Arc<SecretData>>, NotAtHand> {
        self.0.secret_at_hand(secret)
    }

    fn account_pull_secrets<'a>(
        &'a self,
        _namespace: &'a str,
        _account: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, SourceError>> {
        Box::pin(future::pending())
    }
}

/// Where policies and secrets come from.
pub(crate) trait Source: Send + Sync {
    /// What it says now.
    ///
    /// # Errors
    /// Nothing was loaded yet.
    fn now(&self) -> Result<Arc<dyn Moment>, SourceError>;

    /// The strictest mode that an image in a namespace may fall under, by what is known, or was last: for what cannot be told to fall under
    /// an entry. `mode` is what counts where policies say nothing.
    fn strictest(&self, namespace: &str, mode: Mode) -> Mode {
        self.now().map_or(mode, |moment| moment.policies().strictest(namespace, mode))
    }

    /// Brings metrics up to date that follow from what it knows now.
    fn tell(&self, _metrics: &Metrics) {}

    /// Why others should be asked instead of this process, if so.
    fn unready(&self) -> Option<String> {
        self.now().err().map(|error| error.to_string())
    }
}
