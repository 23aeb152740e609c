//! The kinds of reasons for which an image is denied: a closed set, one word each, the same word in metrics, in the log, in the audit
//! log, and as the name of a section of `docs/messages.md`.

use countersign_cosign::Error as CosignError;
use countersign_notary::Error as NotaryError;

/// Why an image is denied, as one of a few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DenialCause {
    /// There is no policy at all.
    NoPolicies,
    /// There are policies, and no entry of those that count lists the image.
    NoMatch,
    /// A policy that counts, or the entry that applies, is at fault.
    PolicyUnusable,
    /// What the policies or the secrets say is not known.
    PoliciesUnknown,
    /// A secret is missing, or lacks a key.
    SecretMissing,
    /// A secret or a key that the policy names cannot be used: no PEM, or a key of another kind.
    KeyUnusable,
    /// The policy of a namespace names a host that the administrator does not allow there.
    NotAllowed,
    /// The images of the object cannot be told.
    UnreadableObject,
    /// The text is no image reference, or one with a digest that is no sha256.
    BadReference,
    /// The registry does not have the image, or what was signed of it.
    NotInRegistry,
    /// The image is proven, and is not pinned where a pin is due.
    NotPinned,
    /// The trust server has nothing for the repository.
    NoTrustData,
    /// Nobody who counts has signed the tag or the digest.
    NotSigned,
    /// Of an image for several platforms only parts are signed.
    OnlyPartsSigned,
    /// Somebody who must have signed has not.
    SignerMissing,
    /// It is signed, with other keys than the policy asks for.
    WrongKey,
    /// Those that must agree have signed different digests.
    SignersDisagree,
    /// The tag is signed, with another digest than the image names.
    DigestDiffers,
    /// What is released cannot be told.
    ReleasesInvalid,
    /// Metadata has expired.
    Expired,
    /// Metadata is not sound, or its signatures are not.
    MetadataInvalid,
    /// The repository is older than what was seen of it, or was changed without a new version.
    Rollback,
    /// The root changed without a signature by the root before it.
    RootChanged,
    /// The root is not the one that the policy pins.
    RootNotPinned,
    /// What is remembered of the repository cannot be read or written.
    MemoryUnreadable,
    /// The trust server is gone for good, or there is none.
    TrustServerRetired,
    /// A server could not be asked, or did not answer in time.
    Unreachable,
    /// A server wants a login that nobody gave.
    LoginFailed,
    /// The object has more than one review may ask for, or a repository more than is remembered of one.
    Limit,
    /// Its turn did not come in time.
    Busy,
    /// A fault of Countersign.
    Internal,
    /// Several reasons of different kinds.
    Several,
}

impl DenialCause {
    /// All of them.
    pub const ALL: [Self; 32] = [
        Self::NoPolicies,
        Self::NoMatch,
        Self::PolicyUnusable,
        Self::PoliciesUnknown,
        Self::SecretMissing,
        Self::KeyUnusable,
        Self::NotAllowed,
        Self::UnreadableObject,
        Self::BadReference,
        Self::NotInRegistry,
        Self::NotPinned,
        Self::NoTrustData,
        Self::NotSigned,
        Self::OnlyPartsSigned,
        Self::SignerMissing,
        Self::WrongKey,
        Self::SignersDisagree,
        Self::DigestDiffers,
        Self::ReleasesInvalid,
        Self::Expired,
        Self::MetadataInvalid,
        Self::Rollback,
        Self::RootChanged,
        Self::RootNotPinned,
        Self::MemoryUnreadable,
        Self::TrustServerRetired,
        Self::Unreachable,
        Self::LoginFailed,
        Self::Limit,
        Self::Busy,
        Self::Internal,
        Self::Several,
    ];

    /// The word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoPolicies => "no-policies",
            Self::NoMatch => "no-match",
            Self::PolicyUnusable => "policy-unusable",
            Self::PoliciesUnknown => "policies-unknown",
            Self::SecretMissing => "secret-missing",
            Self::KeyUnusable => "key-unusable",
            Self::NotAllowed => "not-allowed",
            Self::UnreadableObject => "unreadable-object",
            Self::BadReference => "bad-reference",
            Self::NotInRegistry => "not-in-registry",
            Self::NotPinned => "not-pinned",
            Self::NoTrustData => "no-trust-data",
            Self::NotSigned => "not-signed",
            Self::OnlyPartsSigned => "only-parts-signed",
            Self::SignerMissing => "signer-missing",
            Self::WrongKey => "wrong-key",
            Self::SignersDisagree => "signers-disagree",
            Self::DigestDiffers => "digest-differs",
            Self::ReleasesInvalid => "releases-invalid",
            Self::Expired => "expired",
            Self::MetadataInvalid => "metadata-invalid",
            Self::Rollback => "rollback",
            Self::RootChanged => "root-changed",
            Self::RootNotPinned => "root-not-pinned",
            Self::MemoryUnreadable => "memory-unreadable",
            Self::TrustServerRetired => "trust-server-retired",
            Self::Unreachable => "unreachable",
            Self::LoginFailed => "login-failed",
            Self::Limit => "limit",
            Self::Busy => "busy",
            Self::Internal => "internal",
            Self::Several => "several",
        }
    }

    /// Whether to ask again would bring the same: what was found is too much, or its name cannot be asked for.
    pub(crate) fn is_decided(self) -> bool {
        matches!(self, Self::Limit | Self::BadReference)
    }

    /// Reads what [`Self::label`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.label() == text)
    }

    /// What an answer of a trust server comes to.
    pub(crate) fn of_notary(error: &NotaryError) -> Self {
        match error {
            NotaryError::NoTrustData { .. } => Self::NoTrustData,
            NotaryError::NotSigned { role: Some(_), .. }
            | NotaryError::SignerNotPublished { .. }
            | NotaryError::SignerNotDelegated { .. } => Self::SignerMissing,
            NotaryError::NotSigned { role: None, .. } | NotaryError::DigestNotSigned { .. } => Self::NotSigned,
            NotaryError::DigestDiffers { .. } => Self::DigestDiffers,
            NotaryError::SignerKeyDidNotSign { .. } => Self::WrongKey,
            NotaryError::SignersDisagree { .. } => Self::SignersDisagree,
            NotaryError::ReleasesInvalid { .. } => Self::ReleasesInvalid,
            NotaryError::Expired { .. } => Self::Expired,
            NotaryError::Rollback { .. }
            | NotaryError::SameVersionOtherContent { .. }
            | NotaryError::Withdrawn { .. } => Self::Rollback,
            NotaryError::RootNotChained { .. } | NotaryError::RootTooFar { .. } => Self::RootChanged,
            NotaryError::RootNotPinned { .. } => Self::RootNotPinned,
            NotaryError::TooMuchToRemember { .. }
            | NotaryError::TooMuchBelow { .. }
            | NotaryError::TooLong { .. }
            | NotaryError::TooManySignatures { .. }
            | NotaryError::TooManyDelegations { .. } => Self::Limit,
            NotaryError::SignerInvalid { cause, .. } => Self::of_notary(cause),
            _ => Self::MetadataInvalid,
        }
    }

    /// What signatures of cosign come to.
    pub(crate) fn of_cosign(error: &CosignError) -> Self {
        match error {
            CosignError::NotSignedBy { .. } => Self::WrongKey,
            CosignError::NotEnough { .. } => Self::SignerMissing,
            _ => Self::NotSigned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_word_of_its_own() {
        for (index, cause) in DenialCause::ALL.into_iter().enumerate() {
            assert_eq!(DenialCause::parse(cause.label()), Some(cause));
            assert_eq!(cause as usize, index, "all of them are listed, in their order");
        }
        assert_eq!(DenialCause::parse("Expired"), None);
    }
}
