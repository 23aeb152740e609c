//! Which proofs each image of a workload needs.

pub mod cosign;
pub mod notary;

use std::collections::BTreeMap;

use countersign_image::{ImageReference, NotSha256, Wanted};
use countersign_notary::TrustServer;

use self::cosign::CosignAsk;
use self::notary::NotaryAsk;
use crate::evidence::Refusal;
use crate::mode::Mode;
use crate::policies::{Applies, Check, EntryRef, Match, PolicyKind, PolicySet};
use crate::proof_policy::ProofPolicy;
use crate::reason::DenyReason;
use crate::requirement::Requirement;
use crate::workload::ContainerImage;

/// Where the secrets of cluster policies are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterSecrets {
    /// In Countersign's own namespace, where no tenant can write.
    OwnNamespace(String),
    /// In the namespace of the workload. A tenant who may create secrets there chooses the key that is trusted.
    WorkloadNamespaceChosenByTenants,
}

/// What holds where a policy is silent.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Where the secrets of cluster policies are.
    pub cluster_secrets: ClusterSecrets,
    /// Trust servers of registries, by the registry's host (with its port, if it has one).
    pub trust_servers: BTreeMap<String, TrustServer>,
    /// The hosts (`HOST` or `HOST:PORT`) that an `ImagePolicy` may name as a trust server; anyone's, if nothing is said.
    pub tenants_may_name: Option<Vec<String>>,
    /// How a pinned image is written.
    pub pin: PinStyle,
}

/// How a pinned image is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PinStyle {
    /// `app:v1@sha256:…`: people go on seeing the version, and entries that name a tag go on matching.
    #[default]
    TagAndDigest,
    /// `app@sha256:…`, for CRI-O before 1.16, which refuses a tag and a digest together.
    Digest,
}

/// What is to become of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedImage {
    /// The image.
    pub image: ContainerImage,
    /// The entry that applies, if one does.
    pub entry: Option<EntryRef>,
    /// What is done with it if it is denied.
    pub mode: Mode,
    /// What is needed before it can be judged.
    pub need: Need,
}

/// What is needed before an image can be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it is allowed.
    Nothing,
    /// Nothing: it is denied.
    Denied(DenyReason),
    /// Proofs.
    Proof(Box<NeededProof>),
}

/// Who says that a server is the one to ask. It decides which credentials the server is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// The operator: by an entry of a `ClusterImagePolicy` for this registry, or by the configuration.
    Operator,
    /// The image alone, and so whoever writes a pod: the entry is for many registries, or is a tenant's.
    Image,
    /// A tenant's `ImagePolicy`.
    Tenant,
}

/// The proofs that an image needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededProof {
    /// The image, read.
    pub reference: ImageReference,
    /// What it asks for.
    pub wanted: Wanted,
    /// What must be proven. What is refused without asking anybody stands there as its refusal.
    pub requirement: Requirement<Result<Ask, Refusal>>,
    /// Whether the registry must have the signed content too.
    pub require_present: bool,
    /// Who says that the image's registry is the one to ask.
    pub registry_named_by: NamedBy,
    /// How the image is pinned once it is proven; not at all, if the entry says so.
    pub pin: Option<PinStyle>,
}

/// What is to be asked, by the format of the signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A trust server, for Docker Content Trust.
    Notary(NotaryAsk),
    /// A registry, for signatures of cosign.
    Cosign(Box<CosignAsk>),
}

/// Whose policies count for an image, and when.
#[derive(Debug, Clone, Copy)]
pub struct Within<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// What is done with a denied image whose entry says nothing, or that no entry lists.
    pub mode: Mode,
    /// Seconds since 1970; only the retirement of trust servers depends on it.
    pub now: i64,
}

/// Says what each image of a workload in a namespace needs.
#[must_use]
pub fn plan(
    policies: &PolicySet,
    within: Within<'_>,
    images: &[ContainerImage],
    defaults: &Defaults,
) -> Vec<PlannedImage> {
    images.iter().map(|image| plan_image(policies, within, image, defaults)).collect()
}

fn plan_image(policies: &PolicySet, within: Within<'_>, image: &ContainerImage, defaults: &Defaults) -> PlannedImage {
    let Within { namespace, mode, now } = within;
    let planned = |entry, need| PlannedImage { image: image.clone(), entry, mode, need };
    let Ok(reference) = ImageReference::parse(&image.image) else {
        return planned(None, Need::Denied(DenyReason::InvalidName));
    };
    let found = match policies.applies(namespace, &reference, mode) {
        Applies::Entry(found) => found,
        Applies::Unusable(policy, problem) => {
            // It may be about an image that another entry enforces.
            let mode = policies.strictest(namespace, mode);
            let need = Need::Denied(DenyReason::unusable(policy, problem));
            return PlannedImage { mode, ..planned(None, need) };
        }
        Applies::NoPolicies => return planned(None, Need::Denied(DenyReason::NoPolicies)),
        Applies::NotInNamespace => return planned(None, Need::Denied(DenyReason::NotListedInNamespace)),
        Applies::NotInCluster => {
            let reason = DenyReason::NotListedInCluster { namespace: namespace.to_owned() };
            return planned(None, Need::Denied(reason));
        }
    };
    let asking = Asking { found, namespace, reference: &reference, defaults, now };
    let need = need_of(&asking).unwrap_or_else(Need::Denied);
    PlannedImage { mode: found.entry.mode_under(mode), ..planned(Some(EntryRef::of(&found)), need) }
}

/// What an ask is made from.
pub(crate) struct Asking<'a> {
    pub(crate) found: Match<'a>,
    pub(crate) namespace: &'a str,
    pub(crate) reference: &'a ImageReference,
    pub(crate) defaults: &'a Defaults,
    pub(crate) now: i64,
}

impl Asking<'_> {
    /// Who says that the image's registry is the one to ask.
    pub(crate) fn registry_named_by(&self) -> NamedBy {
        let is_operators = self.found.policy.kind == PolicyKind::Cluster;
        let exact = self.found.entry.pattern.exact_host().is_some();
        if is_operators && exact { NamedBy::Operator } else { NamedBy::Image }
    }

    /// Where the secrets of the entry's policy are.
    pub(crate) fn secrets_namespace(&self) -> &str {
        match (&self.found.policy.kind, &self.defaults.cluster_secrets) {
            (PolicyKind::Image { namespace }, _) => namespace,
            (PolicyKind::Cluster, ClusterSecrets::OwnNamespace(own)) => own,
            (PolicyKind::Cluster, ClusterSecrets::WorkloadNamespaceChosenByTenants) => self.namespace,
        }
    }
}

fn need_of(asking: &Asking<'_>) -> Result<Need, DenyReason> {
    let entry = asking.found.entry;
    let asked = match &entry.check {
        Check::Nothing => return Ok(Need::Nothing),
        Check::Unusable(problem) => return Err(DenyReason::unusable(asking.found.policy, problem)),
        Check::Proof(requirement) => requirement,
    };
    let requirement = asked.map(&mut |policy| match policy {
        ProofPolicy::Trust(trust) => notary::ask(trust, asking).map(Ask::Notary),
        ProofPolicy::Cosign(cosign) => cosign::ask(cosign, asking).map(Box::new).map(Ask::Cosign),
    });
    if let Requirement::One(Err(refusal)) = requirement {
        return Err(refusal.into());
    }
    let wanted = Wanted::of(asking.reference);
    Ok(Need::Proof(Box::new(NeededProof {
        wanted: wanted.map_err(|NotSha256 { algorithm }| DenyReason::DigestAlgorithm { algorithm })?,
        requirement,
        require_present: entry.require_present,
        registry_named_by: asking.registry_named_by(),
        pin: entry.mutate_image.then_some(asking.defaults.pin),
        reference: asking.reference.clone(),
    })))
}
