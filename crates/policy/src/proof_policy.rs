//! What an entry asks of each signature format.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_cosign::Key;
use countersign_image::ImageReference;
use countersign_notary::TrustServer;

use crate::secret::SecretUse;

/// What an entry asks of one signature format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProofPolicy {
    /// Docker Content Trust.
    Trust(Arc<TrustPolicy>),
    /// Signatures of cosign, made with keys.
    Cosign(Arc<CosignPolicy>),
}

impl ProofPolicy {
    /// The names of the secrets that it takes, and what for.
    #[must_use]
    pub fn secrets(&self) -> Vec<(&str, SecretUse)> {
        match self {
            Self::Trust(trust) => {
                let signers = trust.signer_secrets.iter().map(|name| (name.as_str(), SecretUse::Signer));
                let roots = trust.root_secrets.iter().map(|name| (name.as_str(), SecretUse::RootKey));
                signers.chain(roots).collect()
            }
            Self::Cosign(cosign) => {
                cosign.signer_secrets.iter().map(|name| (name.as_str(), SecretUse::CosignSigner)).collect()
            }
        }
    }
}

/// What an entry with trust asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustPolicy {
    /// The trust server; without one the registry's default.
    pub trust_server: Option<TrustServer>,
    /// The one certificate that the trust server must show, PEM.
    pub server_certificate: Option<String>,
    /// Names of the signer secrets, every one of which must have signed.
    pub signer_secrets: Vec<String>,
    /// Pinned root keys: ids or PEM.
    pub root_keys: Vec<String>,
    /// Names of secrets that hold pinned root keys.
    pub root_secrets: Vec<String>,
}

/// What an entry with cosign asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CosignPolicy {
    /// Names of the secrets that hold signers' keys.
    pub signer_secrets: Vec<String>,
    /// Keys that the policy itself holds.
    pub keys: Vec<Key>,
    /// How many of all keys must have signed; without it, every one.
    pub threshold: Option<usize>,
    /// Signers that must have signed in any case.
    pub required: Vec<String>,
    /// The repository that holds the signatures, if it is not the image's own.
    pub repository: Option<ImageReference>,
    /// Claims that each signature must make to count.
    pub annotations: BTreeMap<String, String>,
}
