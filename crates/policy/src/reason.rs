//! Why an image may not run, in the published words: what no single signature format says.

use countersign_image::{quoted, shown};
use thiserror::Error;

use crate::cause::DenialCause;
use crate::evidence::Refusal;
use crate::policies::Policy;

/// Why an image may not run.
///
/// The wording is part of the product: people search for it, and runbooks quote it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DenyReason {
    /// The namespace has no policy, and no cluster policy lists the image.
    #[error(
        "no matching repositories in ClusterImagePolicy and no ImagePolicies in the {} namespace",
        quoted(namespace)
    )]
    NotListedInCluster {
        /// The namespace.
        namespace: String,
    },
    /// The namespace has policies, and none lists the image.
    #[error("no matching repositories in the ImagePolicies")]
    NotListedInNamespace,
    /// There is no policy at all.
    #[error("no image policies or cluster polices")]
    NoPolicies,
    /// A policy that counts, or the entry that applies, is at fault.
    #[error("{policy} cannot be used: {}; correct or delete it", shown(problem))]
    PolicyUnusable {
        /// Kind and name.
        policy: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Signatures are over sha256.
    #[error(
        "failed to get content trust information: the image is named by a {algorithm} digest, but only sha256 digests are signed"
    )]
    DigestAlgorithm {
        /// The algorithm.
        algorithm: String,
    },
    /// It could not be decided, before anybody was asked or after.
    #[error("failed to get content trust information: {}", shown(cause))]
    Undecided {
        /// The kind of reason.
        why: DenialCause,
        /// Why not.
        cause: String,
    },
    /// There is no proof.
    #[error("{0}")]
    Refused(Refusal),
    /// There is none, for several reasons.
    #[error("{}", joined(reasons))]
    Several {
        /// Each of them; at least one.
        reasons: Vec<Reason>,
        /// Whether something else might come out once all could be decided.
        undecided: bool,
    },
    /// The content is signed, and the registry does not have it.
    #[error(
        "failed to get content trust information: {digest} is signed, but the registry {host} does not have it; push the signed image again"
    )]
    NotPresent {
        /// `sha256:…`
        digest: String,
        /// `HOST:PORT`
        host: String,
    },
    /// The image is proven, and stands in a revision, which cannot be pinned.
    #[error("the image must be named by its digest here, as nothing else can be put in its place: {pinned}")]
    RevisionNotPinned {
        /// How it must be named.
        pinned: String,
    },
    /// The image is proven, but reached the validating webhook without its digest.
    #[error(
        "not pinned to its signed digest {digest}: another webhook changed it after Countersign; let that webhook run earlier (webhooks of one kind run in the order of their configurations' names), or set mutateImage: false for the images that it adds"
    )]
    LostPin {
        /// `sha256:…`
        digest: String,
    },
    /// The text is no image reference.
    #[error("invalid image name")]
    InvalidName,
}

/// One of several reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A part that is needed in any case is not proven.
    Part(Refusal),
    /// An alternative is not proven.
    Alternative {
        /// Which it is, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Why not.
        refusal: Refusal,
    },
    /// What was brought to be judged makes no sense.
    Fault(String),
    /// Parts that must all hold prove different digests.
    Differ {
        /// `sha256:…` of the first.
        one: String,
        /// `sha256:…` of another one.
        other: String,
    },
}

impl Reason {
    /// [`Refusal::is_alarming`]
    pub(crate) fn is_alarming(&self) -> bool {
        match self {
            Self::Part(refusal) | Self::Alternative { refusal, .. } => refusal.is_alarming(),
            Self::Fault(_) | Self::Differ { .. } => false,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Part(refusal) => refusal.fmt(f),
            Self::Fault(what) => DenyReason::undecided(DenialCause::Internal, what.as_str()).fmt(f),
            Self::Alternative { number, of, refusal } => {
                write!(f, "{refusal} (alternative {number} of {of}; one of them is enough)")
            }
            Self::Differ { one, other } => write!(
                f,
                "failed to get content trust information: what the entry asks for must all hold for one digest, but {one} and {other} are signed; sign the same content everywhere"
            ),
        }
    }
}

impl Reason {
    fn is_undecided(&self) -> bool {
        matches!(self, Self::Part(refusal) | Self::Alternative { refusal, .. } if refusal.is_undecided())
    }

    /// The kind of reason.
    fn kind(&self) -> DenialCause {
        match self {
            Self::Part(refusal) | Self::Alternative { refusal, .. } => refusal.cause(),
            Self::Fault(_) => DenialCause::Internal,
            Self::Differ { .. } => DenialCause::SignersDisagree,
        }
    }
}

/// What several reasons come to, where they are of one kind.
fn together(mut causes: impl Iterator<Item = DenialCause>) -> DenialCause {
    match causes.next() {
        Some(first) if causes.all(|cause| cause == first) => first,
        _ => DenialCause::Several,
    }
}

fn joined(reasons: &[Reason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl DenyReason {
    /// The kind of reason.
    #[must_use]
    pub fn cause(&self) -> DenialCause {
        match self {
            Self::NotListedInCluster { .. } | Self::NotListedInNamespace => DenialCause::NoMatch,
            Self::NoPolicies => DenialCause::NoPolicies,
            Self::PolicyUnusable { .. } => DenialCause::PolicyUnusable,
            Self::Refused(refusal) => refusal.cause(),
            Self::Undecided { why, .. } => *why,
            // If one of them could be decided, the image might be allowed: so the cause is that of what could not.
            Self::Several { reasons, undecided: true } => {
                together(reasons.iter().filter(|reason| reason.is_undecided()).map(Reason::kind))
            }
            Self::Several { reasons, .. } => together(reasons.iter().map(Reason::kind)),
            Self::NotPresent { .. } => DenialCause::NotInRegistry,
            Self::RevisionNotPinned { .. } | Self::LostPin { .. } => DenialCause::NotPinned,
            Self::InvalidName | Self::DigestAlgorithm { .. } => DenialCause::BadReference,
        }
    }

    /// It could not be decided, for this reason.
    #[must_use]
    pub fn undecided(why: DenialCause, cause: impl Into<String>) -> Self {
        Self::Undecided { why, cause: cause.into() }
    }

    /// What a policy that is at fault comes to.
    #[must_use]
    pub fn unusable(policy: &Policy, problem: &str) -> Self {
        Self::PolicyUnusable { policy: policy.title(), problem: problem.to_owned() }
    }

    /// Whether nothing was decided.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        match self {
            Self::Undecided { .. } => true,
            Self::Refused(refusal) => refusal.is_undecided(),
            Self::Several { undecided, .. } => *undecided,
            _ => false,
        }
    }

    /// A text for each reason, with its kind.
    #[must_use]
    pub fn lines(&self) -> Vec<(DenialCause, String)> {
        match self {
            Self::Several { reasons, .. } => reasons.iter().map(|reason| (reason.kind(), reason.to_string())).collect(),
            other => vec![(other.cause(), other.to_string())],
        }
    }
}

impl From<Refusal> for DenyReason {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
