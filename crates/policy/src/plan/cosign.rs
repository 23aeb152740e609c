//! Which signatures of cosign are asked for of an image, and where they are.

use std::sync::Arc;

use countersign_image::ImageReference;

use super::{Asking, Defaults, NamedBy};
use crate::evidence::Refusal;
use crate::policies::PolicyKind;
use crate::proof_policy::CosignPolicy;
use crate::secret::SecretRef;

/// What is asked of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignAsk {
    /// The image.
    pub image: ImageReference,
    /// Whose repository holds the signatures: the image, or what the policy names.
    pub place: ImageReference,
    /// Who says that this is the place.
    pub named_by: NamedBy,
    /// Who says that the image's registry is the one to ask.
    pub registry_named_by: NamedBy,
    /// What the entry says.
    pub policy: Arc<CosignPolicy>,
    /// Where its secrets are.
    pub secrets_namespace: String,
}

impl CosignAsk {
    /// Secrets of signers.
    pub fn signer_secrets(&self) -> impl Iterator<Item = SecretRef> {
        let secret = |name: &String| SecretRef { namespace: self.secrets_namespace.clone(), name: name.clone() };
        self.policy.signer_secrets.iter().map(secret)
    }
}

/// What an entry with cosign asks for an image.
pub(crate) fn ask(cosign: &Arc<CosignPolicy>, asking: &Asking<'_>) -> Result<CosignAsk, Refusal> {
    let Asking { found, reference, defaults, .. } = asking;
    let by_tenant = matches!(found.policy.kind, PolicyKind::Image { .. });
    let elsewhere = cosign.repository.as_ref().filter(|place| place.matched_host() != reference.matched_host());
    if let Some(place) = elsewhere.filter(|place| by_tenant && !may_name(place.matched_host(), defaults)) {
        return Err(Refusal::RegistryNotAllowed { host: place.matched_host().to_owned() });
    }
    Ok(CosignAsk {
        image: (*reference).clone(),
        place: cosign.repository.as_ref().unwrap_or(reference).clone(),
        named_by: match elsewhere {
            Some(_) if by_tenant => NamedBy::Tenant,
            Some(_) => NamedBy::Operator,
            None => asking.registry_named_by(),
        },
        registry_named_by: asking.registry_named_by(),
        policy: Arc::clone(cosign),
        secrets_namespace: asking.secrets_namespace().to_owned(),
    })
}

/// Whoever writes a namespace's policy makes Countersign send requests into its network, so that may be restricted: to the hosts that
/// such a policy may name as trust servers. The image's own registry is asked in any case.
fn may_name(host: &str, defaults: &Defaults) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    defaults.tenants_may_name.as_ref().is_none_or(|hosts| hosts.iter().any(|listed| listed == host || listed == name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::mode::Mode;
    use crate::pattern::Pattern;
    use crate::plan::{Ask, ClusterSecrets, Need, PinStyle, Within, plan};
    use crate::policies::{Check, Entry, Policy, PolicySet};
    use crate::proof_policy::ProofPolicy;
    use crate::requirement::Requirement;
    use crate::workload::ContainerImage;

    fn within(now: i64) -> Within<'static> {
        Within { namespace: "work", mode: Mode::Enforce, now }
    }

    fn asked(kind: PolicyKind, place: Option<&str>, may_name: Option<&[&str]>) -> Result<CosignAsk, Refusal> {
        let cosign = CosignPolicy {
            signer_secrets: vec!["alice".into()],
            repository: place.map(|place| ImageReference::parse(place).unwrap()),
            ..CosignPolicy::default()
        };
        let check = Check::Proof(Requirement::Any(vec![Requirement::One(ProofPolicy::Cosign(Arc::new(cosign)))]));
        let entry = Entry {
            pattern: Pattern::parse("*").unwrap(),
            mutate_image: true,
            require_present: false,
            mode: None,
            check,
        };
        let set = PolicySet::new([Policy {
            kind,
            name: "p".into(),
            strictest: entry.mode,
            entries: vec![entry],
            unusable: None,
        }]);
        let defaults = Defaults {
            cluster_secrets: ClusterSecrets::OwnNamespace("countersign".into()),
            trust_servers: BTreeMap::new(),
            tenants_may_name: may_name.map(|hosts| hosts.iter().map(|&host| host.to_owned()).collect()),
            pin: PinStyle::default(),
        };
        let image = ContainerImage { pointer: "/x".into(), path: "x".into(), image: "reg.io:5000/team/app:v1".into() };
        let Need::Proof(need) = plan(&set, within(0), &[image], &defaults).remove(0).need else { panic!() };
        match need.requirement.asks().next().unwrap() {
            Ok(Ask::Cosign(ask)) => Ok((**ask).clone()),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.clone()),
        }
    }

    fn tenant() -> PolicyKind {
        PolicyKind::Image { namespace: "work".into() }
    }

    #[test]
    fn signatures_are_in_the_images_repository_or_where_the_policy_says() {
        let own = asked(tenant(), None, Some(&[])).unwrap();
        assert_eq!((own.place.repository().as_str(), own.named_by), ("reg.io:5000/team/app", NamedBy::Image));
        assert_eq!(own.signer_secrets().next().unwrap().namespace, "work");
        let beside = asked(tenant(), Some("reg.io:5000/sigs"), Some(&[])).unwrap();
        assert_eq!((beside.place.repository().as_str(), beside.named_by), ("reg.io:5000/sigs", NamedBy::Image));
        let elsewhere = asked(tenant(), Some("sigs.io/all"), None).unwrap();
        assert_eq!((elsewhere.place.repository().as_str(), elsewhere.named_by), ("sigs.io/all", NamedBy::Tenant));
        let of_operator = asked(PolicyKind::Cluster, Some("sigs.io/all"), Some(&[])).unwrap();
        assert_eq!((of_operator.named_by, of_operator.registry_named_by), (NamedBy::Operator, NamedBy::Image));
        assert_eq!(of_operator.signer_secrets().next().unwrap().namespace, "countersign");
    }

    #[test]
    fn tenants_name_registries_that_they_may() {
        for (place, may_name, allowed) in [
            ("sigs.io/all", &[][..], false),
            ("sigs.io/all", &["sigs.io"], true),
            ("sigs.io:444/all", &["sigs.io"], true),
            ("sigs.io:444/all", &["sigs.io:444"], true),
            ("sigs.io:444/all", &["sigs.io:443"], false),
            ("reg.io/all", &[], false),
        ] {
            let asked = asked(tenant(), Some(place), Some(may_name));
            assert_eq!(asked.is_ok(), allowed, "{place} {may_name:?}");
            assert!(allowed || matches!(asked, Err(Refusal::RegistryNotAllowed { .. })));
        }
    }
}
