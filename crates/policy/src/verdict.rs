//! What a review comes to, in the published words.

use countersign_image::{ImageReference, Sha256, Wanted, quoted, shown};
use countersign_notary::{Error as NotaryError, Proof as NotaryProof, SignerError};
use thiserror::Error;

use crate::plan::{Need, PinStyle, PlannedImage, SecretRef, TrustNeed};
use crate::policies::{Match, Policy};
use crate::workload::ContainerImage;

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
        "failed to get content trust information: signer secret {} in namespace {}: {problem}",
        shown(&secret.name),
        shown(&secret.namespace)
    )]
    SignerKey {
        /// The secret.
        secret: SecretRef,
        /// What is wrong with it.
        problem: SignerError,
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
    /// The trust server knows nothing of the repository.
    #[error("failed to get content trust information: {server} does not have trust data for {gun}")]
    NoTrustData {
        /// `HOST:PORT`
        server: String,
        /// The repository.
        gun: String,
    },
    /// The repository, the tag or the digest is not trusted.
    #[error("failed to get content trust information: {}{}", shown(&error.to_string()), said_by(error, server))]
    Untrusted {
        /// `HOST:PORT`
        server: String,
        /// Why not.
        error: Box<NotaryError>,
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
    /// Signatures are over sha256.
    #[error(
        "failed to get content trust information: the image is named by a {algorithm} digest, but only sha256 digests are signed"
    )]
    DigestAlgorithm {
        /// The algorithm.
        algorithm: String,
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
    /// More repositories on trust servers than one review may ask for.
    #[error(
        "failed to get content trust information: the object has images of more than {limit} signed repositories, which is the limit for one review; split it into several objects"
    )]
    TooManyRepositories {
        /// How many one review may ask for.
        limit: usize,
    },
    /// It could not be decided.
    #[error("failed to get content trust information: {}", shown(cause))]
    Undecided {
        /// Why not.
        cause: String,
    },
    /// The text is no image reference.
    #[error("invalid image name")]
    InvalidName,
}

/// What is wrong with a signer secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SecretProblem {
    /// There is none.
    #[error("secret not found")]
    NotFound,
    /// It has no `name`, or an empty one.
    #[error("name is empty")]
    NoName,
    /// It has no `publicKey`, or an empty one.
    #[error("publicKey is empty")]
    NoPublicKey,
}

impl DenyReason {
    /// The variant's name: a closed set, so that a hostile image name cannot mint new time series.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotListedInCluster { .. } => "not-listed-in-cluster",
            Self::NotListedInNamespace => "not-listed-in-namespace",
            Self::NoPolicies => "no-policies",
            Self::PolicyUnusable { .. } => "policy-unusable",
            Self::SignerSecret { .. } => "signer-secret",
            Self::SignerKey { .. } => "signer-key",
            Self::RootKey { .. } => "root-key",
            Self::NoTrustData { .. } => "no-trust-data",
            Self::Untrusted { .. } => "untrusted",
            Self::Retired { .. } | Self::NoTrustServer { .. } => "no-trust-server",
            Self::TrustServerNotAllowed { .. } => "trust-server-not-allowed",
            Self::DigestAlgorithm { .. } => "digest-algorithm",
            Self::NotPresent { .. } => "not-present",
            Self::RevisionNotPinned { .. } | Self::LostPin { .. } => "not-pinned",
            Self::TooManyRepositories { .. } => "too-many-repositories",
            Self::Undecided { .. } => "undecided",
            Self::InvalidName => "invalid-name",
        }
    }

    /// What a policy that is at fault comes to.
    #[must_use]
    pub fn unusable(policy: &Policy, problem: &str) -> Self {
        Self::PolicyUnusable { policy: policy.title(), problem: problem.to_owned() }
    }

    /// What a verified refusal by a server comes to.
    #[must_use]
    pub fn untrusted(server: &str, error: NotaryError) -> Self {
        match error {
            NotaryError::NoTrustData { gun } => Self::NoTrustData { server: server.to_owned(), gun },
            error => Self::Untrusted { server: server.to_owned(), error: Box::new(error) },
        }
    }

    /// Whether nothing was decided.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::Undecided { .. })
    }
}

/// Answers about a tag name the repository already; anything else is told with the server that it came from.
fn said_by(error: &NotaryError, server: &str) -> String {
    match error {
        NotaryError::NotSigned { .. } | NotaryError::DigestNotSigned { .. } | NotaryError::DigestDiffers { .. } => {
            String::new()
        }
        // What was seen before is kept on purpose; only somebody who knows better may say that it counts no more.
        NotaryError::Rollback { .. }
        | NotaryError::SameVersionOtherContent { .. }
        | NotaryError::Withdrawn { .. }
        | NotaryError::RootNotChained { .. }
        | NotaryError::RootTooFar { .. }
        | NotaryError::TooMuchToRemember { .. } => {
            format!(
                " (trust server {server}); if that is intended, an administrator accepts it with countersign trust accept"
            )
        }
        _ => format!(" (trust server {server})"),
    }
}

/// The entry that applied to an image, as reports name it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EntryRef {
    /// `ImagePolicy` or `ClusterImagePolicy`.
    pub kind: &'static str,
    /// The policy's namespace, if it has one.
    pub namespace: Option<String>,
    /// The policy's name.
    pub name: String,
    /// The name of the entry.
    pub entry: String,
}

impl EntryRef {
    /// Names an entry.
    #[must_use]
    pub fn of(found: &Match<'_>) -> Self {
        Self {
            kind: found.policy.kind.kind(),
            namespace: found.policy.kind.namespace().map(str::to_owned),
            name: found.policy.name.clone(),
            entry: found.entry.pattern.written().to_owned(),
        }
    }
}

/// What an image comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageVerdict {
    /// The image.
    pub image: ContainerImage,
    /// The entry that applied, if one did.
    pub entry: Option<EntryRef>,
    /// Whether it may run.
    pub outcome: Outcome,
    /// What a reader of the denial must know beside the reason, if anything: why this image was judged at all.
    pub note: Option<String>,
}

/// Whether an image may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It may, with no further check.
    Unchecked,
    /// It may: this digest is proven.
    Proven(Proof),
    /// It may, under the digest that an update took away while nothing could be decided: this is the image as it stood.
    PutBack(String),
    /// It may not.
    Denied(DenyReason),
}

/// A proven digest, and what it is to be written as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    digest: Sha256,
    pinned: Option<String>,
}

impl Proof {
    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        self.digest
    }

    /// The image pinned to the digest, in the style that is configured; as it was written where it names the digest already.
    /// `None` where the entry wants no pin.
    #[must_use]
    pub fn pinned(&self) -> Option<&str> {
        self.pinned.as_deref()
    }
}

impl ImageVerdict {
    /// Judges an image by what is planned for it and, where that is proof, by the proof.
    #[must_use]
    pub fn judge(planned: PlannedImage, evidence: Option<Result<NotaryProof, DenyReason>>) -> Self {
        let outcome = match (planned.need, evidence) {
            (Need::Nothing, _) => Outcome::Unchecked,
            (Need::Denied(reason), _) | (Need::Trust(_), Some(Err(reason))) => Outcome::Denied(reason),
            (Need::Trust(need), Some(Ok(proof))) => judge_proof(&need, proof.digest()),
            (Need::Trust(_), None) => Outcome::Denied(DenyReason::Undecided {
                cause: "no proof was brought; this is a fault of Countersign".into(),
            }),
        };
        Self { image: planned.image, entry: planned.entry, outcome, note: None }
    }

    /// The line of a denial: `Deny "IMAGE", REASON`.
    #[must_use]
    pub fn denial(&self) -> Option<String> {
        match &self.outcome {
            Outcome::Denied(reason) => {
                let note = self.note.as_deref().map_or_else(String::new, |note| format!(" ({})", shown(note)));
                Some(format!("Deny {}, {reason}{note}", quoted(&self.image.image)))
            }
            _ => None,
        }
    }
}

/// A digest in the reference is never replaced by another one, whatever was proven.
fn judge_proof(need: &TrustNeed, digest: Sha256) -> Outcome {
    let asked = match &need.wanted {
        Wanted::Tag(_) => None,
        Wanted::TagAndDigest(tag, asked) => Some((tag.as_str(), asked)),
        Wanted::Digest(asked) => Some(("the image", asked)),
    };
    if let Some((tag, asked)) = asked.filter(|(_, asked)| **asked != digest) {
        let error = NotaryError::DigestDiffers {
            gun: need.gun.clone(),
            tag: tag.to_owned(),
            signed: digest.hex(),
            asked: asked.hex(),
        };
        return Outcome::Denied(DenyReason::untrusted(need.server.host_port(), error));
    }
    let pinned = need.pin.map(|style| pinned(&need.reference, style, &digest.to_string()));
    Outcome::Proven(Proof { digest, pinned })
}

/// A digest that is there already stays as it is written; it was compared before.
fn pinned(reference: &ImageReference, style: PinStyle, digest: &str) -> String {
    let repository = reference.written_repository();
    match (style, reference.tag()) {
        (PinStyle::TagAndDigest, _) if reference.digest().is_some() => reference.as_written().to_owned(),
        (PinStyle::TagAndDigest, Some(tag)) => format!("{repository}:{tag}@{digest}"),
        (PinStyle::TagAndDigest, None) | (PinStyle::Digest, _) => format!("{repository}@{digest}"),
    }
}

/// What a review comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// One for each image, in the order of the object.
    pub images: Vec<ImageVerdict>,
}

impl Verdict {
    /// Whether every image may run.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.denied().next().is_none()
    }

    /// The reasons of the images that may not run.
    pub fn denied(&self) -> impl Iterator<Item = &DenyReason> {
        self.images.iter().filter_map(|image| match &image.outcome {
            Outcome::Denied(reason) => Some(reason),
            _ => None,
        })
    }

    /// The verdict on an object that is only to be looked at: a proven image that has no digest, and should have one, is
    /// denied. `is_revision` says that the object is one that cannot be changed at all.
    #[must_use]
    pub fn unchangeable(mut self, is_revision: bool) -> Self {
        for image in &mut self.images {
            let Outcome::Proven(Proof { digest, pinned: Some(pinned) }) = &image.outcome else {
                continue;
            };
            if ImageReference::parse(&image.image.image).is_ok_and(|reference| reference.digest().is_none()) {
                image.outcome = Outcome::Denied(if is_revision {
                    DenyReason::RevisionNotPinned { pinned: pinned.clone() }
                } else {
                    DenyReason::LostPin { digest: digest.to_string() }
                });
            }
        }
        self
    }

    /// The message of a denial: a line for each denied image, the same line only once. Of so many that nobody reads them, the last
    /// line says how many are left out.
    #[must_use]
    pub fn message(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        let (mut length, mut left_out) = (0, 0);
        for line in self.images.iter().filter_map(ImageVerdict::denial) {
            if lines.contains(&line) {
                continue;
            }
            if length > 0 && length + line.len() > MAX_MESSAGE {
                left_out += 1;
                continue;
            }
            length += line.len() + 1;
            lines.push(line);
        }
        if left_out > 0 {
            lines.push(format!("and {left_out} more images are denied"));
        }
        lines.join("\n")
    }
}

/// How many bytes the lines of a denial may have together: some fifty of them. It stands in the answer, in an audit annotation and in the
/// log.
const MAX_MESSAGE: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(image: &str, reason: DenyReason, expected: &str) {
        let image = ContainerImage { pointer: "/x".into(), path: "containers/x".into(), image: image.into() };
        let planned = PlannedImage { image, entry: None, need: Need::Denied(reason) };
        let verdict = Verdict { images: vec![ImageVerdict::judge(planned, None)] };
        assert!(!verdict.allowed());
        assert_eq!(verdict.message(), expected);
    }

    /// The texts of the published contract, word for word.
    #[test]
    fn published_texts() {
        let secret = || SecretRef { namespace: "kube-system".into(), name: "yannisigner".into() };
        let image = "registry.example.com/ibmcom/stsapp/stsapp:0.1";
        let gun = || "registry.example.com/ibmcom/stsapp/stsapp-nosign".to_owned();
        check(
            image,
            DenyReason::NotListedInCluster { namespace: "kube-system".into() },
            "Deny \"registry.example.com/ibmcom/stsapp/stsapp:0.1\", no matching repositories in ClusterImagePolicy and no ImagePolicies in the \"kube-system\" namespace",
        );
        check("a", DenyReason::NotListedInNamespace, "Deny \"a\", no matching repositories in the ImagePolicies");
        check("a", DenyReason::NoPolicies, "Deny \"a\", no image policies or cluster polices");
        for (problem, tail) in [
            (SecretProblem::NotFound, "secret not found"),
            (SecretProblem::NoName, "name is empty"),
            (SecretProblem::NoPublicKey, "publicKey is empty"),
        ] {
            check(
                image,
                DenyReason::SignerSecret { secret: secret(), problem },
                &format!(
                    "Deny \"registry.example.com/ibmcom/stsapp/stsapp:0.1\", could not get signerSecret from your cluster, name, or publicKey field in secret yannisigner is empty ({tail})"
                ),
            );
        }
        check(
            "a",
            DenyReason::untrusted("9.46.78.45:8443", NotaryError::NoTrustData { gun: gun() }),
            "Deny \"a\", failed to get content trust information: 9.46.78.45:8443 does not have trust data for registry.example.com/ibmcom/stsapp/stsapp-nosign",
        );
        check(
            "a",
            DenyReason::untrusted("n:1", NotaryError::NotSigned { gun: gun(), tag: "0.1".into(), role: None }),
            "Deny \"a\", failed to get content trust information: no signed target 0.1 in registry.example.com/ibmcom/stsapp/stsapp-nosign",
        );
        check("A!", DenyReason::InvalidName, "Deny \"A!\", invalid image name");
        check(
            "a",
            DenyReason::Undecided { cause: "cannot reach n:1: refused".into() },
            "Deny \"a\", failed to get content trust information: cannot reach n:1: refused",
        );
    }

    #[test]
    fn nothing_in_a_name_reaches_a_terminal() {
        check(
            "a\n\u{1b}[31m\"b\u{202e}",
            DenyReason::InvalidName,
            "Deny \"a\\n\\u{1b}[31m\\\"b\\u{202e}\", invalid image name",
        );
        let long = "x".repeat(10_000);
        check(&long, DenyReason::InvalidName, &format!("Deny \"{}…\", invalid image name", "x".repeat(1024)));
    }

    #[test]
    fn one_image_never_hides_another() {
        let image = |path: &str, need| PlannedImage {
            image: ContainerImage { pointer: path.into(), path: path.into(), image: "same".into() },
            entry: None,
            need,
        };
        let verdict = Verdict {
            images: vec![
                ImageVerdict::judge(image("containers/a", Need::Denied(DenyReason::NoPolicies)), None),
                ImageVerdict::judge(image("containers/a", Need::Nothing), None),
            ],
        };
        assert!(!verdict.allowed());
    }

    #[test]
    fn pins_keep_the_tag() {
        const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let (by_digest, by_both) = (format!("app@{D}"), format!("h.io:5000/app:v1@{D}"));
        for (image, with_tag, digest_alone) in [
            ("h.io/app:v1", format!("h.io/app:v1@{D}"), format!("h.io/app@{D}")),
            ("app", format!("app:latest@{D}"), by_digest.clone()),
            (&by_digest, by_digest.clone(), by_digest.clone()),
            (&by_both, by_both.clone(), format!("h.io:5000/app@{D}")),
        ] {
            let reference = ImageReference::parse(image).unwrap();
            assert_eq!(pinned(&reference, PinStyle::TagAndDigest, D), with_tag);
            assert_eq!(pinned(&reference, PinStyle::Digest, D), digest_alone);
        }
    }

    #[test]
    fn a_lost_pin_is_told_in_the_published_words() {
        check(
            "app:v1",
            DenyReason::LostPin { digest: "sha256:d".into() },
            "Deny \"app:v1\", not pinned to its signed digest sha256:d: another webhook changed it after Countersign; let that webhook run earlier (webhooks of one kind run in the order of their configurations' names), or set mutateImage: false for the images that it adds",
        );
    }
}
