use super::*;
use crate::mode::Mode;
use crate::pattern::Pattern;
use crate::plan::{Ask, ClusterSecrets, Need, PinStyle, Within, plan};
use crate::policies::{Check, Entry, Policy, PolicySet};
use crate::proof_policy::ProofPolicy;
use crate::reason::DenyReason;
use crate::requirement::Requirement;
use crate::workload::ContainerImage;

/// The only thing that is asked.
fn asked(need: &Need) -> &NotaryAsk {
    let Need::Proof(need) = need else { panic!("{need:?}") };
    match &need.requirement {
        Requirement::One(Ok(Ask::Notary(ask))) => ask,
        other => panic!("{other:?}"),
    }
}

fn within(now: i64) -> Within<'static> {
    Within { namespace: "work", mode: Mode::Enforce, now }
}

fn trust(kind: PolicyKind, server: Option<&str>) -> PolicySet {
    trust_for(kind, "*", server)
}

fn trust_for(kind: PolicyKind, pattern: &str, server: Option<&str>) -> PolicySet {
    let trust = TrustPolicy {
        trust_server: server.map(|server| TrustServer::parse(server).unwrap()),
        signer_secrets: vec!["alice".into()],
        ..TrustPolicy::default()
    };
    let check = Check::Proof(Requirement::One(ProofPolicy::Trust(Arc::new(trust))));
    let entry = Entry {
        pattern: Pattern::parse(pattern).unwrap(),
        mutate_image: true,
        require_present: false,
        mode: None,
        check,
    };
    PolicySet::new([Policy { kind, name: "p".into(), strictest: entry.mode, entries: vec![entry], unusable: None }])
}

fn need(policies: &PolicySet, image: &str, cluster_secrets: ClusterSecrets, now: i64) -> Need {
    let image = ContainerImage { pointer: "/x".into(), path: "containers/x".into(), image: image.into() };
    let defaults =
        Defaults { cluster_secrets, trust_servers: BTreeMap::new(), tenants_may_name: None, pin: PinStyle::default() };
    plan(policies, within(now), &[image], &defaults).remove(0).need
}

fn own() -> ClusterSecrets {
    ClusterSecrets::OwnNamespace("countersign".into())
}

#[test]
fn where_secrets_are_read() {
    let secret_of = |kind, secrets| match need(&trust(kind, Some("https://n:1")), "h.io/a", secrets, 0) {
        need @ Need::Proof(_) => asked(&need).signer_secrets().next().unwrap().namespace,
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
        ("nginx", Err(Refusal::NoTrustServer { host: "docker.io".into() })),
        ("Docker.io:443/x", Err(Refusal::NoTrustServer { host: "docker.io".into() })),
        ("registry-1.docker.io/x", Err(Refusal::NoTrustServer { host: "registry-1.docker.io".into() })),
    ];
    for (image, expected) in cases {
        let found = match need(&trust(PolicyKind::Cluster, None), image, own(), 0) {
            need @ Need::Proof(_) => Ok(asked(&need).server.as_str().to_owned()),
            Need::Denied(DenyReason::Refused(refusal)) => Err(refusal),
            other => panic!("{image}: {other:?}"),
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
        let planned = plan(&trust(kind, server), within(0), std::slice::from_ref(&image), &defaults).remove(0);
        matches!(planned.need, Need::Proof(_))
    };
    let tenant = || PolicyKind::Image { namespace: "work".into() };
    assert!(allowed(tenant(), Some("https://good.io:1")) && allowed(tenant(), Some("https://other.io:4443")));
    assert!(!allowed(tenant(), Some("https://other.io:1")) && !allowed(tenant(), Some("https://127.0.0.1:1")));
    // The registry's own default is nobody's choice, and an administrator may choose freely.
    assert!(allowed(tenant(), None) && allowed(PolicyKind::Cluster, Some("https://127.0.0.1:1")));
}

#[test]
fn who_names_a_server() {
    use NamedBy::{Image, Operator, Tenant};
    let tenant = || PolicyKind::Image { namespace: "work".into() };
    let cluster = || PolicyKind::Cluster;
    let may: fn(&str) -> Option<Vec<String>> = |host| Some(vec![host.to_owned()]);
    let cases = [
        (tenant(), "*", Some("https://notary.h.io"), None, Tenant),
        (tenant(), "h.io/*", Some("https://h.io:4444"), None, Tenant),
        // The registry's own: the image says which, and whoever writes a pod writes the image.
        (tenant(), "*", Some("https://h.io:4443"), None, Image),
        (tenant(), "*", None, None, Image),
        (tenant(), "h.io/*", None, None, Image),
        (cluster(), "*", None, None, Image),
        (cluster(), "*.io/*", None, None, Image),
        (cluster(), "h.io/*", None, None, Operator),
        (cluster(), "h.io/a", Some("https://h.io:4443"), None, Operator),
        (cluster(), "*", Some("https://notary.h.io"), None, Operator),
        // Those that tenants may name.
        (tenant(), "*", Some("https://notary.h.io"), may("notary.h.io"), Operator),
        (tenant(), "*", Some("https://notary.h.io:30443"), may("notary.h.io"), Tenant),
        (tenant(), "*", Some("https://notary.h.io:30443"), may("notary.h.io:30443"), Operator),
        // At another path there may be somebody else.
        (tenant(), "*", Some("https://notary.h.io/tenants/mallory"), may("notary.h.io"), Tenant),
    ];
    for (kind, pattern, server, tenants_may_name, expected) in cases {
        let said = format!("{kind:?} {pattern} {server:?} {tenants_may_name:?}");
        let configured = BTreeMap::from([("other.io".to_owned(), TrustServer::parse("https://n.other.io").unwrap())]);
        let defaults =
            Defaults { cluster_secrets: own(), trust_servers: configured, tenants_may_name, pin: PinStyle::default() };
        let named_by = |image: &str| {
            let image = ContainerImage { pointer: "/x".into(), path: "containers/x".into(), image: image.into() };
            let planned = plan(&trust_for(kind.clone(), pattern, server), within(0), &[image], &defaults).remove(0);
            asked(&planned.need).named_by
        };
        assert_eq!(named_by("h.io/a"), expected, "{said}");
        if pattern == "*" && server.is_none() {
            assert_eq!(named_by("other.io/a"), Operator, "its server is configured: {said}");
        }
    }
}

#[test]
fn retired_servers() {
    let docker = trust(PolicyKind::Cluster, Some("https://notary.docker.io"));
    assert!(matches!(need(&docker, "nginx", own(), 1_796_687_999), Need::Proof(_)));
    let retired = Refusal::Retired { host: "notary.docker.io".into(), day: "2026-12-08" };
    assert_eq!(need(&docker, "nginx", own(), 1_796_688_000), Need::Denied(retired.into()));
    let azure = trust(PolicyKind::Cluster, Some("https://acme.azurecr.io"));
    assert!(matches!(
        need(&azure, "nginx", own(), 1_838_073_600),
        Need::Denied(DenyReason::Refused(Refusal::Retired { .. }))
    ));
}
