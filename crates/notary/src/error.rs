//! Why a repository, a file or a tag is not trusted: the words that users read behind `failed to get content trust information`.

use countersign_json::JsonError;
use countersign_keys::KeyProblem;
use jiff::Timestamp;
use thiserror::Error;

use crate::key::KeyId;
use crate::role::RoleName;

/// What helps against an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// To accept the repository as it is now, whatever was seen of it before.
    Accept,
}

/// Why a key of a root cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RootKeyProblem {
    /// As no such key can.
    #[error("{0}")]
    Key(KeyProblem),
    /// It is no certificate.
    #[error("a root key must be a certificate")]
    NotACertificate,
    /// Not exactly one certificate that is not a CA, or it does not stand first.
    #[error("the key's certificates are not one leaf followed by CAs")]
    CertificateBundle,
    /// The certificate names another repository.
    #[error("the key's certificate is for another repository")]
    CertificateName,
}

/// Why something could not be verified.
///
/// Every variant names the role (and so the file) it speaks of, and the numbers that decided. Texts carry no
/// trailing period and are shown to users behind `failed to get content trust information: `.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    // -- the whole repository -------------------------------------------------------------------------------
    /// The server has no `root.json` for the repository.
    #[error("the trust server does not have trust data for {gun}")]
    NoTrustData {
        /// The repository.
        gun: String,
    },

    // -- reading a file ---------------------------------------------------------------------------------------
    /// The file is not JSON that we read.
    #[error("{role}.json is not valid metadata: {problem}")]
    Json {
        /// The role whose file it is.
        role: RoleName,
        /// What is wrong, and where.
        problem: JsonError,
    },
    /// A member differs from a known one only in case. Go would read both as one; which of them was meant cannot be told.
    #[error("{role}.json has a member {found:?} where only {expected:?} may stand")]
    CaseVariantMember {
        /// The role whose file it is.
        role: RoleName,
        /// The member that stands there.
        found: String,
        /// The member that it resembles.
        expected: &'static str,
    },
    /// A member that must be there is not.
    #[error("{role}.json lacks {member:?}")]
    MissingMember {
        /// The role whose file it is.
        role: RoleName,
        /// The member's path.
        member: String,
    },
    /// A member has the wrong JSON type or an impossible value.
    #[error("{role}.json: {member:?} is not {expected}")]
    BadMember {
        /// The role whose file it is.
        role: RoleName,
        /// The member's path.
        member: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// `_type` is not the role's.
    #[error("{role}.json says it is of type {found:?}, not {expected:?}")]
    WrongType {
        /// The role whose file it is.
        role: RoleName,
        /// What `_type` says.
        found: String,
        /// What it must say.
        expected: &'static str,
    },
    /// `version` is not an integer of at least 1.
    #[error("{role}.json has the version {found}, which is not a whole number from 1 up")]
    BadVersion {
        /// The role whose file it is.
        role: RoleName,
        /// What stands there.
        found: String,
    },
    /// `expires` is not an RFC 3339 time with a zone.
    #[error("{role}.json expires at {found:?}, which is not an RFC 3339 time")]
    BadTime {
        /// The role whose file it is.
        role: RoleName,
        /// What stands there.
        found: String,
    },
    /// The file is longer than the metadata that names it says, or than any sound file is.
    #[error("{role}.json is longer than the {limit} bytes it may have")]
    TooLong {
        /// The role whose file it is.
        role: RoleName,
        /// The most bytes it may have.
        limit: u64,
    },
    /// The file's bytes are not those that the snapshot or timestamp names.
    #[error("{role}.json does not have the {algorithm} that {by}.json gives for it")]
    HashMismatch {
        /// The role whose file it is.
        role: RoleName,
        /// `sha256` or `sha512`.
        algorithm: &'static str,
        /// The role whose file names the hash.
        by: RoleName,
    },
    /// The snapshot or timestamp gives no sha256 for a file.
    #[error("{by}.json gives no sha256 for {role}.json")]
    NoSha256 {
        /// The role whose file lacks a hash.
        role: RoleName,
        /// The role whose file should name the hash.
        by: RoleName,
    },
    /// The snapshot does not list a file that every repository has.
    #[error("snapshot.json does not list {role}.json")]
    NotInSnapshot {
        /// The role that is not listed.
        role: RoleName,
    },
    /// The server does not have a file that other metadata says exists.
    #[error("the trust server does not have {file}, although other metadata of the repository names it")]
    MissingFile {
        /// The role whose file it is.
        role: RoleName,
        /// The file's name below `_trust/tuf/`.
        file: String,
    },
    /// More signatures than any sound file has.
    #[error("{role}.json has {found} signatures, more than {limit}")]
    TooManySignatures {
        /// The role whose file it is.
        role: RoleName,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// More delegations than a repository may have.
    #[error("{role}.json brings the repository's delegations to more than {limit}")]
    TooManyDelegations {
        /// The role whose file delegates.
        role: RoleName,
        /// How many there may be.
        limit: usize,
    },

    // -- keys, roles and signatures -----------------------------------------------------------------------------
    /// A key is filed under an id that is not its own.
    #[error("{role}.json lists a key as {listed:?} whose id is {actual}")]
    KeyIdMismatch {
        /// The role whose file it is.
        role: RoleName,
        /// The id in the file.
        listed: String,
        /// The id of the key.
        actual: KeyId,
    },
    /// A role names a key that the file does not hold.
    #[error("{role}.json gives {of} a key {key_id:?} that it does not hold")]
    UnknownKey {
        /// The role whose file it is.
        role: RoleName,
        /// The role that the key is for.
        of: String,
        /// The id in the file.
        key_id: String,
    },
    /// A threshold below one.
    #[error("{role}.json gives {of} the threshold {found}, which is not a whole number from 1 up")]
    BadThreshold {
        /// The role whose file it is.
        role: RoleName,
        /// The role that the threshold is for.
        of: String,
        /// What stands there.
        found: String,
    },
    /// A delegation's name is not legal, or not directly below the role that delegates.
    #[error("{role}.json delegates to {found:?}, which is not a legal name directly below {role}")]
    BadRoleName {
        /// The role whose file it is.
        role: RoleName,
        /// The name.
        found: String,
    },
    /// A role is delegated to twice.
    #[error("{role}.json delegates to {delegation:?} more than once, so its keys cannot be told", delegation = .delegation.as_str())]
    DuplicateDelegation {
        /// The role whose file it is.
        role: RoleName,
        /// The delegation.
        delegation: RoleName,
    },
    /// Fewer keys have made a valid signature than must.
    #[error("{role}.json has valid signatures by {valid} of its keys and needs {needed}{}", because(.problem.as_ref()))]
    ThresholdNotMet {
        /// The role whose file it is.
        role: RoleName,
        /// Distinct keys whose signature is valid.
        valid: usize,
        /// The role's threshold.
        needed: u64,
        /// The first thing that kept a signature from counting, if anything but a wrong signature did.
        problem: Option<KeyProblem>,
    },

    // -- time and order -------------------------------------------------------------------------------------------
    /// The file has expired.
    #[error("{role}.json expired at {}; whoever holds the {role} key must publish again", expiry(*.expired))]
    Expired {
        /// The role whose file it is.
        role: RoleName,
        /// When it expired; `None` where the file names no time at all.
        expired: Option<Timestamp>,
    },
    /// The file is older than one that was verified before.
    #[error(
        "{role}.json has version {offered}, but version {remembered} was verified before; the repository was rolled back"
    )]
    Rollback {
        /// The role whose file it is.
        role: RoleName,
        /// The version offered.
        offered: u64,
        /// The version remembered.
        remembered: u64,
    },
    /// The file has the version of one that was verified before, and says something else.
    #[error("{role}.json has version {version} like the one verified before, but other content")]
    SameVersionOtherContent {
        /// The role whose file it is.
        role: RoleName,
        /// The version of both.
        version: u64,
    },
    /// A role that was published before and is still delegated is no longer in the snapshot.
    #[error(
        "{role}.json was verified before at version {remembered} and is still delegated, but the snapshot no longer lists it"
    )]
    Withdrawn {
        /// The role whose file it was.
        role: RoleName,
        /// The version remembered.
        remembered: u64,
    },

    // -- the root ---------------------------------------------------------------------------------------------------
    /// None of the root's keys can be used.
    #[error("no root key of {gun} can be used: {problem}")]
    RootCertificate {
        /// The repository.
        gun: String,
        /// What is wrong with the first of them.
        problem: RootKeyProblem,
    },
    /// The root is not signed by a key that the policy pins, and no rotation leads to it from one that is.
    #[error("the root of {gun} (version {version}) is not signed by a pinned root key, nor is any root before it")]
    RootNotPinned {
        /// The repository.
        gun: String,
        /// The version of the root that was seen.
        version: u64,
    },
    /// The root is not signed by the keys of the root before it.
    #[error(
        "the root of {gun} changed from version {from} to version {to} without a signature by the former root key: the repository was made anew or swapped"
    )]
    RootNotChained {
        /// The repository.
        gun: String,
        /// The version of the root that is trusted.
        from: u64,
        /// The version of the root that is offered.
        to: u64,
    },
    /// Whoever makes the repository delegated to ever new names or keys.
    #[error("{gun} has had more roles, keys and roots than are remembered of one repository ({} KiB)", .limit >> 10)]
    TooMuchToRemember {
        /// The repository.
        gun: String,
        /// How many bytes a record may have.
        limit: usize,
    },
    /// The same below one signer.
    #[error("{role} is left out: below one signer more roles and keys have been seen than are remembered ({} KiB)", .limit >> 10)]
    TooMuchBelow {
        /// The role.
        role: RoleName,
        /// How many bytes of a record there may be.
        limit: usize,
    },
    /// The root changed too often to follow.
    #[error("the root of {gun} went from version {from} to version {to}, which is more than {limit} rotations at once")]
    RootTooFar {
        /// The repository.
        gun: String,
        /// The version of the root that is trusted.
        from: u64,
        /// The version of the root that is offered.
        to: u64,
        /// How many there may be.
        limit: u64,
    },

    // -- answers of a verified repository ---------------------------------------------------------------------------
    /// No role that counts has signed the tag.
    #[error("no signed target {tag} in {gun}{}", by_role(.role.as_ref()))]
    NotSigned {
        /// The repository.
        gun: String,
        /// The tag.
        tag: String,
        /// The role that should have signed it, where one was asked for.
        role: Option<RoleName>,
    },
    /// No signed tag has the digest.
    #[error("no signed target in {gun} has the digest sha256:{digest}")]
    DigestNotSigned {
        /// The repository.
        gun: String,
        /// The digest, in hex.
        digest: String,
    },
    /// The image asks for a digest, and the tag is signed with another one.
    #[error("{tag} in {gun} is signed with sha256:{signed}, not with sha256:{asked}")]
    DigestDiffers {
        /// The repository.
        gun: String,
        /// The tag.
        tag: String,
        /// The signed digest, in hex.
        signed: String,
        /// The digest in the reference, in hex.
        asked: String,
    },
    /// A signed target cannot name an image.
    #[error("{role}.json signs {tag} with {problem}")]
    BadTarget {
        /// The role whose file it is.
        role: RoleName,
        /// The tag.
        tag: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// `targets/releases` is delegated and published, but does not verify.
    #[error("{}, so what is released cannot be told", .cause)]
    ReleasesInvalid {
        /// Why not.
        cause: Box<Error>,
    },
    /// The repository does not know a required signer.
    #[error("{gun} has no signer {signer}: targets.json does not delegate to {signer:?}")]
    SignerNotDelegated {
        /// The repository.
        gun: String,
        /// The signer.
        signer: String,
    },
    /// A required signer has never signed anything.
    #[error("signer {signer} has not signed anything in {gun}")]
    SignerNotPublished {
        /// The repository.
        gun: String,
        /// The signer.
        signer: String,
    },
    /// A required signer's file does not verify.
    #[error("signer {signer}: {cause}")]
    SignerInvalid {
        /// The signer.
        signer: String,
        /// Why not.
        cause: Box<Error>,
    },
    /// The signer's file is valid, but not by the key in the signer secret.
    #[error("signer {signer} in {gun} did not sign with the key {expected} that the signer secret holds, but with {}", list(.actual))]
    SignerKeyDidNotSign {
        /// The repository.
        gun: String,
        /// The signer.
        signer: String,
        /// The canonical id of the key in the secret.
        expected: KeyId,
        /// The canonical ids of the keys that did sign.
        actual: Vec<KeyId>,
    },
    /// Two of the roles that must agree have signed different digests.
    #[error("{tag} in {gun} is signed with sha256:{one} by {one_role}, but with sha256:{other} by {other_role}")]
    SignersDisagree {
        /// The repository.
        gun: String,
        /// The tag.
        tag: String,
        /// A role.
        one_role: RoleName,
        /// Its digest, in hex.
        one: String,
        /// Another role.
        other_role: RoleName,
        /// Its digest, in hex.
        other: String,
    },
}

impl Error {
    /// Whether it answers what was asked about a tag or a digest, and names the repository; anything else says that the repository
    /// as a whole, or a signer's part of it, is not trusted.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::NotSigned { .. } | Self::DigestNotSigned { .. } | Self::DigestDiffers { .. })
    }

    /// How near to a proof it was, to sort several reasons for a reader: 0 where signatures are there and do not do, 1 where
    /// nobody signed what was asked for, 2 where there is nothing at all.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self {
            Self::NoTrustData { .. } => 2,
            Self::NotSigned { .. } | Self::DigestNotSigned { .. } => 1,
            _ => 0,
        }
    }

    /// What an administrator can do who knows that all is as it should be.
    #[must_use]
    pub fn remedy(&self) -> Option<Remedy> {
        // What was seen before is kept on purpose; only somebody who knows better may say that it counts no more.
        let is_remembered = matches!(
            self,
            Self::Rollback { .. }
                | Self::SameVersionOtherContent { .. }
                | Self::Withdrawn { .. }
                | Self::RootNotChained { .. }
                | Self::RootTooFar { .. }
                | Self::TooMuchToRemember { .. }
        );
        is_remembered.then_some(Remedy::Accept)
    }

    /// Whether the failure leaves only its own delegation out, rather than condemning the whole repository
    /// (`docs/notary-v1.md#delegations`; in `client/tufclient.go` of Notary an unmet threshold and an expiry are soft).
    pub(crate) fn is_soft(&self) -> bool {
        matches!(self, Self::ThresholdNotMet { .. } | Self::Expired { .. } | Self::Withdrawn { .. })
    }
}

fn because(problem: Option<&KeyProblem>) -> String {
    problem.map_or_else(String::new, |problem| format!(": {problem}"))
}

fn expiry(expired: Option<Timestamp>) -> String {
    expired.map_or_else(|| "no time at all".to_owned(), |time| format!("{time:.0}"))
}

fn by_role(role: Option<&RoleName>) -> String {
    role.map_or_else(String::new, |role| format!(" by {role}"))
}

fn list(ids: &[KeyId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
