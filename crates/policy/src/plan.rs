//! Which evidence each image of a workload needs.

use std::collections::BTreeMap;

use countersign_image::{ImageReference, NotSha256, Wanted};
use countersign_notary::TrustServer;

use crate::policies::{Applies, Check, Match, PolicyKind, PolicySet};
use crate::verdict::{DenyReason, EntryRef};
use crate::workload::ContainerImage;

/// Trust servers that are shut down for good: host, the registry whose default it was or that dropped content trust, and the
/// day, in seconds since 1970 and as people write it.
const RETIRED: [(&str, i64, &str); 2] = [
    // https://docs.docker.com/engine/security/trust/: the server stops on 2026-12-08.
    ("notary.docker.io", 1_796_688_000, "2026-12-08"),
    // Azure Container Registry ends content trust on 2028-03-31.
    (".azurecr.io", 1_838_073_600, "2028-03-31"),
];

/// A secret in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

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
    /// Proof of its signatures.
    Trust(Box<TrustNeed>),
}

/// The proof that an image needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustNeed {
    /// The image, read.
    pub reference: ImageReference,
    /// Where to ask.
    pub server: TrustServer,
    /// Whether only an `ImagePolicy` says that this is the place, and nothing that the operator has set up.
    pub named_by_tenant: bool,
    /// The one certificate that it must show, PEM.
    pub server_certificate: Option<String>,
    /// The repository's name there.
    pub gun: String,
    /// What to ask.
    pub wanted: Wanted,
    /// Signers that must have signed.
    pub signer_secrets: Vec<SecretRef>,
    /// Pinned root keys: ids or PEM.
    pub root_keys: Vec<String>,
    /// Secrets that hold pinned root keys.
    pub root_secrets: Vec<SecretRef>,
    /// Whether the registry must have the signed content too.
    pub require_present: bool,
    /// How the image is pinned once it is proven; not at all, if the entry says so.
    pub pin: Option<PinStyle>,
}

/// Says what each image of a workload in a namespace needs. `now` is in seconds since 1970; only the retirement of trust servers
/// depends on it.
#[must_use]
pub fn plan(
    policies: &PolicySet,
    namespace: &str,
    images: &[ContainerImage],
    defaults: &Defaults,
    now: i64,
) -> Vec<PlannedImage> {
    images.iter().map(|image| plan_image(policies, namespace, image, defaults, now)).collect()
}

fn plan_image(
    policies: &PolicySet,
    namespace: &str,
    image: &ContainerImage,
    defaults: &Defaults,
    now: i64,
) -> PlannedImage {
    let planned = |entry, need| PlannedImage { image: image.clone(), entry, need };
    let Ok(reference) = ImageReference::parse(&image.image) else {
        return planned(None, Need::Denied(DenyReason::InvalidName));
    };
    let found = match policies.applies(namespace, &reference) {
        Applies::Entry(found) => found,
        Applies::Unusable(policy, problem) => {
            return planned(None, Need::Denied(DenyReason::unusable(policy, problem)));
        }
        Applies::NoPolicies => return planned(None, Need::Denied(DenyReason::NoPolicies)),
        Applies::NotInNamespace => return planned(None, Need::Denied(DenyReason::NotListedInNamespace)),
        Applies::NotInCluster => {
            let reason = DenyReason::NotListedInCluster { namespace: namespace.to_owned() };
            return planned(None, Need::Denied(reason));
        }
    };
    let need = need_of(&found, namespace, reference, defaults, now).unwrap_or_else(Need::Denied);
    planned(Some(EntryRef::of(&found)), need)
}

fn need_of(
    found: &Match<'_>,
    namespace: &str,
    reference: ImageReference,
    defaults: &Defaults,
    now: i64,
) -> Result<Need, DenyReason> {
    let trust = match &found.entry.check {
        Check::Nothing => return Ok(Need::Nothing),
        Check::Unusable(problem) => return Err(DenyReason::unusable(found.policy, problem)),
        Check::Trust(trust) => trust,
    };
    let usual = default_trust_server(reference.matched_host(), &defaults.trust_servers);
    let server = match &trust.trust_server {
        Some(server) if !may_name(&found.policy.kind, server, defaults) => {
            return Err(DenyReason::TrustServerNotAllowed { host: server.host_port().to_owned() });
        }
        Some(server) => server.clone(),
        None => usual.clone()?,
    };
    // Whoever says which certificate the server has says who the server is.
    let by_tenant = matches!(found.policy.kind, PolicyKind::Image { .. });
    let vouched_for = usual.as_ref().ok() == Some(&server) || is_listed(&server, defaults);
    let named_by_tenant = by_tenant && (trust.server_certificate.is_some() || !vouched_for);
    if let Some((host, _, day)) = RETIRED.iter().find(|(host, since, _)| now >= *since && is_host(&server, host)) {
        return Err(DenyReason::Retired { host: host.trim_start_matches('.').to_owned(), day });
    }
    let secrets_in = match (&found.policy.kind, &defaults.cluster_secrets) {
        (PolicyKind::Image { namespace }, _) => namespace,
        (PolicyKind::Cluster, ClusterSecrets::OwnNamespace(own)) => own,
        (PolicyKind::Cluster, ClusterSecrets::WorkloadNamespaceChosenByTenants) => namespace,
    };
    let secrets = |names: &[String]| {
        names.iter().map(|name| SecretRef { namespace: secrets_in.to_owned(), name: name.clone() }).collect()
    };
    Ok(Need::Trust(Box::new(TrustNeed {
        gun: reference.repository(),
        wanted: Wanted::of(&reference).map_err(|NotSha256 { algorithm }| DenyReason::DigestAlgorithm { algorithm })?,
        server,
        named_by_tenant,
        server_certificate: trust.server_certificate.clone(),
        signer_secrets: secrets(&trust.signer_secrets),
        root_keys: trust.root_keys.clone(),
        root_secrets: secrets(&trust.root_secrets),
        require_present: trust.require_present,
        pin: found.entry.mutate_image.then_some(defaults.pin),
        reference,
    })))
}

/// Whoever writes a namespace's policy makes Countersign send requests into its network, so that may be restricted.
fn may_name(kind: &PolicyKind, server: &TrustServer, defaults: &Defaults) -> bool {
    match (kind, &defaults.tenants_may_name) {
        (PolicyKind::Cluster, _) | (_, None) => true,
        (PolicyKind::Image { .. }, Some(hosts)) => {
            hosts.iter().any(|host| host == server.host_port() || host == server.host())
        }
    }
}

/// Whether the operator lists exactly this server as one that tenants may name. A host without a port stands for the ports that such servers
/// have; at others it may be named too, but anybody might listen there.
fn is_listed(server: &TrustServer, defaults: &Defaults) -> bool {
    let usual = [":443", ":4443"].iter().any(|port| server.host_port().ends_with(port));
    let listed = |host: &String| host == server.host_port() || (usual && host == server.host());
    defaults.tenants_may_name.iter().flatten().any(listed)
}

/// The trust server of a registry for entries that name none: the configured one; `quay.io` has its own; for any other it is the
/// registry's host at port 4443.
///
/// # Errors
/// Docker Hub, which has none any more.
pub fn default_trust_server(host: &str, configured: &BTreeMap<String, TrustServer>) -> Result<TrustServer, DenyReason> {
    if let Some(server) = configured.get(host) {
        return Ok(server.clone());
    }
    // Docker Hub goes by other names too, none of which has a server at port 4443.
    let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
    if name == "docker.io" || name.ends_with(".docker.io") {
        return Err(DenyReason::NoTrustServer { host: host.to_owned() });
    }
    let address = match host {
        "quay.io" => "https://quay.io".to_owned(),
        _ => format!("https://{}:4443", without_port(host)),
    };
    TrustServer::parse(&address).map_err(|_| DenyReason::NoTrustServer { host: host.to_owned() })
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if !name.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') =>
        {
            name
        }
        _ => host,
    }
}

fn is_host(server: &TrustServer, host: &str) -> bool {
    if host.starts_with('.') { server.host().ends_with(host) } else { server.host() == host }
}

/// Whether a trust server is one that is shut down now or will be: its host and the day, for `lint`.
#[must_use]
pub fn retirement(server: &TrustServer) -> Option<(&'static str, &'static str)> {
    let found = RETIRED.iter().find(|(host, ..)| is_host(server, host))?;
    Some((found.0.trim_start_matches('.'), found.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;
    use crate::policies::{Entry, Policy, TrustPolicy};

    fn trust(kind: PolicyKind, server: Option<&str>) -> PolicySet {
        let trust = TrustPolicy {
            trust_server: server.map(|server| TrustServer::parse(server).unwrap()),
            signer_secrets: vec!["alice".into()],
            ..TrustPolicy::default()
        };
        let entry = Entry { pattern: Pattern::parse("*").unwrap(), mutate_image: true, check: Check::Trust(trust) };
        PolicySet::new([Policy { kind, name: "p".into(), entries: vec![entry], unusable: None }])
    }

    fn need(policies: &PolicySet, image: &str, cluster_secrets: ClusterSecrets, now: i64) -> Need {
        let image = ContainerImage { pointer: "/x".into(), path: "containers/x".into(), image: image.into() };
        let defaults = Defaults {
            cluster_secrets,
            trust_servers: BTreeMap::new(),
            tenants_may_name: None,
            pin: PinStyle::default(),
        };
        plan(policies, "work", &[image], &defaults, now).remove(0).need
    }

    fn own() -> ClusterSecrets {
        ClusterSecrets::OwnNamespace("countersign".into())
    }

    #[test]
    fn where_secrets_are_read() {
        let secret_of = |kind, secrets| match need(&trust(kind, Some("https://n:1")), "h.io/a", secrets, 0) {
            Need::Trust(need) => need.signer_secrets[0].namespace.clone(),
            other => panic!("{other:?}"),
        };
        let image = || PolicyKind::Image { namespace: "work".into() };
        assert_eq!(secret_of(image(), own()), "work");
        assert_eq!(secret_of(PolicyKind::Cluster, own()), "countersign");
        assert_eq!(secret_of(PolicyKind::Cluster, ClusterSecrets::WorkloadNamespaceChosenByTenants), "work");
    }

    #[test]
    fn default_servers() {
        let cases = [
            ("quay.io/a/b", Ok("https://quay.io")),
            ("registry.example.com/a", Ok("https://registry.example.com:4443")),
            ("registry.example.com:5000/a", Ok("https://registry.example.com:4443")),
            ("[::1]:5000/a", Ok("https://[::1]:4443")),
            ("[::1]/a", Ok("https://[::1]:4443")),
            ("nginx", Err(DenyReason::NoTrustServer { host: "docker.io".into() })),
            ("Docker.io:443/x", Err(DenyReason::NoTrustServer { host: "docker.io".into() })),
            ("registry-1.docker.io/x", Err(DenyReason::NoTrustServer { host: "registry-1.docker.io".into() })),
        ];
        for (image, expected) in cases {
            let found = match need(&trust(PolicyKind::Cluster, None), image, own(), 0) {
                Need::Trust(need) => Ok(need.server.as_str().to_owned()),
                Need::Denied(reason) => Err(reason),
                Need::Nothing => panic!("{image}"),
            };
            assert_eq!(found, expected.map(str::to_owned), "{image}");
        }
    }

    #[test]
    fn tenants_name_only_what_they_may() {
        let image = ContainerImage { pointer: "/x".into(), path: "containers/x".into(), image: "h.io/a".into() };
        let allowed = |kind, server| {
            let hosts = vec!["good.io".to_owned(), "other.io:4443".to_owned()];
            let defaults = Defaults {
                cluster_secrets: own(),
                trust_servers: BTreeMap::new(),
                tenants_may_name: Some(hosts),
                pin: PinStyle::default(),
            };
            let planned = plan(&trust(kind, server), "work", std::slice::from_ref(&image), &defaults, 0).remove(0);
            matches!(planned.need, Need::Trust(_))
        };
        let tenant = || PolicyKind::Image { namespace: "work".into() };
        assert!(allowed(tenant(), Some("https://good.io:1")) && allowed(tenant(), Some("https://other.io:4443")));
        assert!(!allowed(tenant(), Some("https://other.io:1")) && !allowed(tenant(), Some("https://127.0.0.1:1")));
        // The registry's own default is nobody's choice, and an administrator may choose freely.
        assert!(allowed(tenant(), None) && allowed(PolicyKind::Cluster, Some("https://127.0.0.1:1")));
    }

    #[test]
    fn who_names_a_server() {
        let image = ContainerImage { pointer: "/x".into(), path: "containers/x".into(), image: "h.io/a".into() };
        let by_tenant = |kind, server, tenants_may_name| {
            let configured =
                BTreeMap::from([("other.io".to_owned(), TrustServer::parse("https://n.other.io").unwrap())]);
            let defaults = Defaults {
                cluster_secrets: own(),
                trust_servers: configured,
                tenants_may_name,
                pin: PinStyle::default(),
            };
            let planned = plan(&trust(kind, server), "work", std::slice::from_ref(&image), &defaults, 0).remove(0);
            let Need::Trust(need) = planned.need else { panic!("{:?}", planned.need) };
            need.named_by_tenant
        };
        let tenant = || PolicyKind::Image { namespace: "work".into() };
        assert!(by_tenant(tenant(), Some("https://notary.h.io"), None));
        assert!(by_tenant(tenant(), Some("https://h.io:4444"), None));
        assert!(!by_tenant(tenant(), Some("https://h.io:4443"), None), "that is the registry's own");
        assert!(!by_tenant(tenant(), None, None));
        assert!(!by_tenant(tenant(), Some("https://notary.h.io"), Some(vec!["notary.h.io".into()])));
        assert!(by_tenant(tenant(), Some("https://notary.h.io:30443"), Some(vec!["notary.h.io".into()])));
        assert!(!by_tenant(tenant(), Some("https://notary.h.io:30443"), Some(vec!["notary.h.io:30443".into()])));
        assert!(!by_tenant(PolicyKind::Cluster, Some("https://notary.h.io"), None));
    }

    #[test]
    fn retired_servers() {
        let docker = trust(PolicyKind::Cluster, Some("https://notary.docker.io"));
        assert!(matches!(need(&docker, "nginx", own(), 1_796_687_999), Need::Trust(_)));
        let retired = DenyReason::Retired { host: "notary.docker.io".into(), day: "2026-12-08" };
        assert_eq!(need(&docker, "nginx", own(), 1_796_688_000), Need::Denied(retired));
        let azure = trust(PolicyKind::Cluster, Some("https://acme.azurecr.io"));
        assert!(matches!(need(&azure, "nginx", own(), 1_838_073_600), Need::Denied(DenyReason::Retired { .. })));
    }
}
