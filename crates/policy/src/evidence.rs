//! What asking brings: a proof of one of the signature formats, or why there is none, in the published words.

use countersign_cosign::{DemandError, Error as CosignError, KeyError, Proof as CosignProof};
use countersign_image::{Sha256, shown};
use countersign_notary::{Error as NotaryError, Proof as NotaryProof, Remedy, SignerError};
use thiserror::Error;

use crate::cause::DenialCause;
use crate::secret::{SecretProblem, SecretRef};

/// What one ask came to.
pub type Evidence = Result<Proof, Refusal>;

/// A proof that a digest is signed as a policy asks. Only the verifier of its format makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Docker Content Trust.
    Notary(NotaryProof),
    /// Signatures of cosign.
    Cosign(CosignProof),
}

/// Somebody who signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The signer's name, as the format has it.
    pub name: String,
    /// The ids of the keys that signed, as the tools of the format print them.
    pub keys: Vec<String>,
}

impl Proof {
    /// The repository whose content is proven, by its canonical name: what is proven for one says nothing of another.
    #[must_use]
    pub fn repository(&self) -> &str {
        match self {
            Self::Notary(proof) => proof.repository(),
            Self::Cosign(proof) => proof.repository(),
        }
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        match self {
            Self::Notary(proof) => proof.digest(),
            Self::Cosign(proof) => proof.digest(),
        }
    }

    /// The tag that is signed with the digest, where the format signs tags.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::Notary(proof) => Some(proof.tag()),
            Self::Cosign(_) => None,
        }
    }

    /// The names of those who signed.
    #[must_use]
    pub fn signers(&self) -> Vec<&str> {
        match self {
            Self::Notary(proof) => proof.by().iter().map(|by| by.signer.as_str()).collect(),
            Self::Cosign(proof) => proof.by().iter().map(|by| by.signer.as_str()).collect(),
        }
    }

    /// Who signed, with the keys as tools print them: it takes some time to write them out.
    #[must_use]
    pub fn by(&self) -> Vec<Identity> {
        match self {
            Self::Notary(proof) => {
                let identity = |by: &countersign_notary::SignedBy| Identity {
                    name: by.signer.clone(),
                    keys: by.keys.iter().map(ToString::to_string).collect(),
                };
                proof.by().iter().map(identity).collect()
            }
            Self::Cosign(proof) => {
                let identity = |by: &countersign_cosign::SignedBy| Identity {
                    name: by.signer.clone(),
                    keys: vec![by.key.base64()],
                };
                proof.by().iter().map(identity).collect()
            }
        }
    }
}

/// A signature format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Docker Content Trust.
    Notary,
    /// Signatures of cosign.
    Cosign,
}

impl Format {
    /// How the text of a refusal begins.
    fn failed(self) -> &'static str {
        match self {
            Self::Notary => "failed to get content trust information",
            Self::Cosign => "failed to verify cosign signatures",
        }
    }
}

/// Why an answer is no proof, by the format that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Docker Content Trust.
    Notary(Box<NotaryError>),
    /// Signatures of cosign.
    Cosign(Box<CosignError>),
}

/// Why there is no proof.
///
/// The wording is part of the product: people search for it, and runbooks quote it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Whoever was asked answered, and the answer is no proof.
    #[error("{}", not_trusted(at, cause))]
    NotTrusted {
        /// `HOST:PORT` of who was asked.
        at: String,
        /// Why not.
        cause: Cause,
    },
    /// A signer secret is missing or incomplete.
    #[error("could not get signerSecret from your cluster, name, or publicKey field in secret {} is empty ({problem})", shown(&secret.name))]
    SignerSecret {
        /// The secret.
        secret: SecretRef,
        /// What is wrong with it.
        problem: SecretProblem,
    },
    /// A signer secret is complete, but of no use.
    #[error(
        "failed to get content trust information: signer secret {} in namespace {}: {}",
        shown(&secret.name),
        shown(&secret.namespace),
        shown(&problem.to_string())
    )]
    SignerKey {
        /// The secret.
        secret: SecretRef,
        /// What is wrong with it.
        problem: SignerError,
    },
    /// A secret of a signer with cosign holds no key that can be used.
    #[error(
        "failed to verify cosign signatures: signer secret {} in namespace {}: {}",
        shown(&secret.name),
        shown(&secret.namespace),
        shown(&problem.to_string())
    )]
    CosignKey {
        /// The secret.
        secret: SecretRef,
        /// What is wrong with its key.
        problem: KeyError,
    },
    /// The keys of an entry with cosign do not go together.
    #[error("failed to verify cosign signatures: the entry asks for what cannot be: {}", shown(&problem.to_string()))]
    CosignDemand {
        /// What is wrong with them.
        problem: DemandError,
    },
    /// A namespace's policy names a registry for signatures that the administrator does not allow there.
    #[error(
        "failed to verify cosign signatures: the ImagePolicy names signatures on {host}, which is not a host that policies of namespaces may name; ask an administrator to allow it (namespace-trust-servers), or to put the entry into a ClusterImagePolicy"
    )]
    RegistryNotAllowed {
        /// `HOST` or `HOST:PORT`
        host: String,
    },
    /// Of an image for several platforms its parts are signed, and it is not itself.
    #[error(
        "failed to verify cosign signatures: {host} has no signature of {digest}, but of its part {part}, which is for one platform; sign the image itself: cosign sign signs what its tag names, with --recursive the parts too"
    )]
    OnlyPartsSigned {
        /// `HOST:PORT`
        host: String,
        /// `sha256:…` of the index.
        digest: String,
        /// `sha256:…` of a part that is signed as the entry asks.
        part: String,
    },
    /// The registry has no such image, so there is no digest that could be signed.
    #[error("failed to verify cosign signatures: {host} has no {image}; push the image, or correct its name")]
    NoImage {
        /// `HOST:PORT`
        host: String,
        /// Repository and tag.
        image: String,
    },
    /// A pinned root key is of no use.
    #[error(
        "failed to get content trust information: {} holds no root key id and no key or certificate in PEM",
        shown(origin)
    )]
    RootKey {
        /// Where the pin is written.
        origin: String,
    },
    /// The trust server is shut down for good.
    #[error(
        "failed to get content trust information: the trust server {host} was shut down on {day}; sign the image on a Notary server of your own and name it as trustServer in the policy"
    )]
    Retired {
        /// Its host.
        host: String,
        /// When.
        day: &'static str,
    },
    /// A namespace's policy names a trust server that the administrator does not allow there.
    #[error(
        "failed to get content trust information: the ImagePolicy names the trust server {host}, which is not one that policies of namespaces may name; ask an administrator to allow it, or to put the entry into a ClusterImagePolicy"
    )]
    TrustServerNotAllowed {
        /// `HOST:PORT`
        host: String,
    },
    /// The registry has no trust server, and the policy names none.
    #[error(
        "failed to get content trust information: {host} has no trust server (Docker retires notary.docker.io on 2026-12-08); sign the image on a Notary server of your own and name it as trustServer in the policy"
    )]
    NoTrustServer {
        /// The registry's host.
        host: String,
    },
    /// More repositories on trust servers than one review may ask for.
    #[error(
        "failed to get content trust information: the object has images of more than {limit} signed repositories, which is the limit for one review; split it into several objects"
    )]
    TooManyRepositories {
        /// How many one review may ask for.
        limit: usize,
    },
    /// It could not be decided.
    #[error("{}: {}", format.failed(), shown(cause))]
    Undecided {
        /// What was asked for.
        format: Format,
        /// The kind of reason.
        why: DenialCause,
        /// Why not.
        cause: String,
    },
}

impl Refusal {
    /// What it comes to when a trust server was asked.
    #[must_use]
    pub fn notary(server: &str, error: NotaryError) -> Self {
        Self::NotTrusted { at: server.to_owned(), cause: Cause::Notary(Box::new(error)) }
    }

    /// What it comes to when a registry was asked.
    #[must_use]
    pub fn cosign(registry: &str, error: CosignError) -> Self {
        Self::NotTrusted { at: registry.to_owned(), cause: Cause::Cosign(Box::new(error)) }
    }

    /// The kind of refusal.
    #[must_use]
    pub fn cause(&self) -> DenialCause {
        match self {
            Self::NotTrusted { cause: Cause::Notary(error), .. } => DenialCause::of_notary(error),
            Self::NotTrusted { cause: Cause::Cosign(error), .. } => DenialCause::of_cosign(error),
            Self::SignerSecret { .. } => DenialCause::SecretMissing,
            Self::SignerKey { .. } | Self::CosignKey { .. } | Self::RootKey { .. } => DenialCause::KeyUnusable,
            Self::CosignDemand { .. } => DenialCause::PolicyUnusable,
            Self::RegistryNotAllowed { .. } | Self::TrustServerNotAllowed { .. } => DenialCause::NotAllowed,
            Self::NoImage { .. } => DenialCause::NotInRegistry,
            Self::OnlyPartsSigned { .. } => DenialCause::OnlyPartsSigned,
            Self::Retired { .. } | Self::NoTrustServer { .. } => DenialCause::TrustServerRetired,
            Self::TooManyRepositories { .. } => DenialCause::Limit,
            Self::Undecided { why, .. } => *why,
        }
    }

    /// Whether nothing was decided.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::Undecided { why, .. } if !why.is_decided())
    }

    /// Whether what was found contradicts what was seen before, so that an administrator should look at it even if the image is allowed.
    #[must_use]
    pub fn is_alarming(&self) -> bool {
        matches!(self, Self::NotTrusted { cause: Cause::Notary(error), .. } if error.remedy().is_some())
    }

    /// Of several reasons which is read first: the lower, the nearer the image was to a proof, or the more there is to mend.
    #[must_use]
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Undecided { .. } => 0,
            Self::NotTrusted { cause: Cause::Notary(error), .. } => 2 + error.rank(),
            Self::NotTrusted { cause: Cause::Cosign(error), .. } => 2 + error.rank(),
            Self::NoImage { .. } => 4,
            _ => 1,
        }
    }
}

fn not_trusted(at: &str, cause: &Cause) -> String {
    match cause {
        Cause::Notary(error) => format!("{}: {}", Format::Notary.failed(), not_trusted_by_notary(at, error)),
        Cause::Cosign(error) => format!("{}: {}", Format::Cosign.failed(), shown(&error.told(at))),
    }
}

/// Answers about a tag name the repository already; anything else is told with the server that it came from.
fn not_trusted_by_notary(at: &str, error: &NotaryError) -> String {
    let words = match error {
        NotaryError::NoTrustData { gun } => format!("{at} does not have trust data for {gun}"),
        error if error.is_answer() => shown(&error.to_string()),
        error => format!("{} (trust server {at})", shown(&error.to_string())),
    };
    let cure = match error.remedy() {
        Some(Remedy::Accept) => "; if that is intended, an administrator accepts it with countersign trust accept",
        None => "",
    };
    words + cure
}
