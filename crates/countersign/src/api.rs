//! ImagePolicy, ClusterImagePolicy and signer secrets as Kubernetes and YAML files have them, and their way into the
//! engine's types.
//!
//! Unknown members are refused: a misspelt `trsut` that was ignored would allow everything.

pub(crate) mod cosign;
pub(crate) mod entry;
pub(crate) mod trust;

use countersign_image::shown;
use countersign_policy::{Check, Entry, Pattern, Policy, PolicyKind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

pub(crate) use self::entry::Repository;
pub(crate) use self::entry::schema as entry_schema;

/// The group of the policies.
pub(crate) const GROUP: &str = "securityenforcement.admission.cloud.ibm.com";

/// Group and version of the policies, as documents say it.
pub(crate) const API_VERSION: &str = "securityenforcement.admission.cloud.ibm.com/v1beta1";

/// An ImagePolicy or a ClusterImagePolicy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PolicyDocument {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `ImagePolicy` or `ClusterImagePolicy`.
    pub kind: String,
    /// Name, and namespace of an ImagePolicy.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: PolicySpec,
    /// What the cluster says about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// What a policy says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicySpec {
    /// Entries; the most exact that matches an image applies to it.
    pub repositories: Vec<Repository>,
}

/// A fault in a policy, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{policy}: {place}: {problem}")]
pub struct PolicyFault {
    /// Kind and name.
    pub policy: String,
    /// The member, such as `spec.repositories[2].name`.
    pub place: String,
    /// What is wrong, and the cure.
    pub problem: String,
}

/// What a policy document comes to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Converted {
    /// The policy.
    pub policy: Policy,
    /// What is read but not enforced.
    pub warnings: Vec<PolicyFault>,
}

/// How many entries a policy may have. The largest policies seen have some hundreds.
const MAX_ENTRIES: usize = 2000;

/// The members of a policy's root. `status` is the cluster's.
const ROOT: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// Kind, namespace and name of a policy as somebody wrote it, for messages.
#[must_use]
pub(crate) fn title(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let kind = text("/kind").unwrap_or_default();
    // A name that the API server is yet to make is there as its beginning.
    let name = text("/metadata/name").or_else(|| text("/metadata/generateName")).unwrap_or("(no name)");
    match text("/metadata/namespace") {
        Some(namespace) if kind == "ImagePolicy" => format!("{kind} {namespace}/{name}"),
        _ => format!("{kind} {name}"),
    }
}

/// Reads a policy as somebody wrote it: from a file, or on its way into a cluster.
///
/// # Errors
/// Every fault, not only the first.
pub(crate) fn check(object: &Value) -> Result<Converted, Vec<PolicyFault>> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let kind = text("/kind").unwrap_or_default();
    let namespace = text("/metadata/namespace");
    let policy_kind = match kind {
        "ClusterImagePolicy" => PolicyKind::Cluster,
        // What kubectl would do with a document that names no namespace.
        _ => PolicyKind::Image { namespace: namespace.unwrap_or("default").to_owned() },
    };
    // A name that the API server is yet to make is there as its beginning.
    let name = text("/metadata/name").or_else(|| text("/metadata/generateName"));
    let title = title(object);
    let mut problems = Vec::new();
    if text("/apiVersion") != Some(API_VERSION) {
        let found = text("/apiVersion").unwrap_or_default();
        problems.push(("apiVersion".to_owned(), format!("{found:?} is not {API_VERSION}")));
    }
    if name.is_none() {
        problems.push(("metadata.name".to_owned(), "is missing".to_owned()));
    }
    let read = read_stored(policy_kind, name.unwrap_or_default(), object);
    problems.extend(read.problems);
    let fault = |(place, problem): Problem| PolicyFault { policy: title.clone(), place, problem };
    if problems.is_empty() {
        Ok(Converted { policy: read.policy, warnings: read.warnings.into_iter().map(fault).collect() })
    } else {
        Err(problems.into_iter().map(fault).collect())
    }
}

/// A member and what is wrong with it, or what is not enforced of it.
pub(crate) type Problem = (String, String);

/// How many problems of one policy are told. Whoever mends them finds the others.
const MAX_TOLD: usize = 20;

/// The first of several problems, escaped and cut, and how many more there are.
#[must_use]
pub(crate) fn told<T: std::fmt::Display>(problems: &[T]) -> Vec<String> {
    let mut lines: Vec<_> = problems.iter().take(MAX_TOLD).map(|problem| shown(&problem.to_string())).collect();
    if problems.len() > MAX_TOLD {
        lines.push(format!("and {} more", problems.len() - MAX_TOLD));
    }
    lines
}

/// Several problems in one line, as short as a status may be.
#[must_use]
pub(crate) fn in_one_line(problems: &[Problem]) -> String {
    let problems: Vec<_> = problems.iter().map(|(place, problem)| format!("{place} {problem}")).collect();
    told(&problems).join("; ")
}

/// What a policy comes to as it is written, faults included.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Read {
    /// The engine's form of it: what is at fault denies.
    pub policy: Policy,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// What is read but not enforced.
    pub warnings: Vec<Problem>,
}

/// The one way from what somebody wrote to the engine's form. In a cluster a policy cannot be sent back, so whatever is at fault in it
/// denies the images that it is about: those that an entry matches whose name can be read, else all images of the policy's scope.
/// `object` is the whole object; `apiVersion`, `kind` and `metadata` may be left out.
#[must_use]
pub(crate) fn read_stored(kind: PolicyKind, name: &str, object: &Value) -> Read {
    let policy = Policy { kind, name: name.to_owned(), entries: Vec::new(), strictest: None, unusable: None };
    let mut read = Read { policy, problems: Vec::new(), warnings: Vec::new() };
    let unknown = |value: Option<&Value>, known: &[&str], at: &str| -> Vec<Problem> {
        let members = value.and_then(Value::as_object).into_iter().flatten();
        let unknown = members.filter(|(member, _)| !known.contains(&member.as_str()));
        let listed = known.join(", ");
        unknown
            .take(MAX_TOLD + 1)
            .map(|(member, _)| (format!("{at}{member}"), format!("is not known; known are {listed}")))
            .collect()
    };
    let spec = object.get("spec");
    read.problems.extend(unknown(Some(object), &ROOT, ""));
    read.problems.extend(unknown(spec, &["repositories"], "spec."));
    let repositories = spec.and_then(|spec| spec.get("repositories")).and_then(Value::as_array);
    if repositories.is_none() {
        read.problems.push(("spec.repositories".to_owned(), "is not a list of repositories".to_owned()));
    }
    read.policy.strictest = repositories.into_iter().flatten().filter_map(entry::mode).max();
    if let Some(count) = repositories.map(Vec::len).filter(|count| *count > MAX_ENTRIES) {
        let problem = format!("has {count} entries, and {MAX_ENTRIES} are the limit; split the policy");
        read.problems.push(("spec.repositories".to_owned(), problem));
        read.policy.unusable = Some(in_one_line(&read.problems));
        return read;
    }
    let mut whole = !read.problems.is_empty();
    if repositories.is_some_and(Vec::is_empty) {
        let problem = "is empty, so the policy matches no image; list at least one repository".to_owned();
        read.problems.push(("spec.repositories".to_owned(), problem));
    }
    for (index, value) in repositories.into_iter().flatten().enumerate() {
        let place = format!("spec.repositories[{index}]");
        let placed = |(member, problem): Problem| match member.as_str() {
            "" => (place.clone(), problem),
            member => (format!("{place}.{member}"), problem),
        };
        let found = match entry::read(value) {
            Ok((entry, ignored)) => {
                read.policy.entries.push(entry);
                read.warnings.extend(ignored.into_iter().map(placed));
                continue;
            }
            Err(found) => found.into_iter().map(placed).collect::<Vec<_>>(),
        };
        // Where the name can be read, only what it matches is in doubt.
        match value.get("name").and_then(Value::as_str).map(Pattern::parse) {
            Some(Ok(pattern)) => {
                let check = Check::Unusable(in_one_line(&found));
                read.policy.entries.push(Entry {
                    pattern,
                    mutate_image: true,
                    require_present: false,
                    mode: entry::mode(value),
                    check,
                });
            }
            _ => whole = true,
        }
        read.problems.extend(found);
    }
    if whole {
        read.policy.unusable = Some(in_one_line(&read.problems));
    }
    read
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use countersign_policy::{Mode, ProofPolicy, Requirement};

    use super::trust::MAX_ITEMS;
    use super::*;

    fn convert(text: &str) -> Result<Converted, String> {
        let _: PolicyDocument = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let document: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let joined = |faults: Vec<PolicyFault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        check(&document).map_err(joined)
    }

    fn with_repositories(text: &str) -> String {
        format!(
            "apiVersion: {API_VERSION}\nkind: ClusterImagePolicy\nmetadata: {{name: p}}\nspec:\n  repositories:\n{text}"
        )
    }

    #[test]
    fn an_empty_policy_asks_nothing() {
        for policy in ["", "policy:", "policy: {}", "policy: {trust: {enabled: false}}"] {
            let converted = convert(&with_repositories(&format!("  - name: \"docker.io/*\"\n    {policy}\n"))).unwrap();
            assert_eq!(converted.policy.entries[0].check, Check::Nothing, "{policy}");
            // kubectl drops what is null, so this may have been meant otherwise.
            let told: Vec<_> = converted.warnings.iter().map(ToString::to_string).collect();
            assert_eq!(told.iter().any(|told| told.contains("policy: is empty")), policy == "policy: {}", "{told:?}");
        }
    }

    #[test]
    fn trust_is_read() {
        let text = "  - name: \"mycluster.icp:8500/kube-system/*\"\n    policy:\n      mutateImage: false\n      trust:\n        enabled: true\n        signerSecrets:\n        - name: signername\n        trustServer: https://10.0.0.1:8443/notary\n      va: {enabled: true}\n";
        let converted = convert(&with_repositories(text)).unwrap();
        let entry = &converted.policy.entries[0];
        assert!(!entry.mutate_image);
        let Some(ProofPolicy::Trust(trust)) = entry.check.proofs().next() else { panic!("{entry:?}") };
        assert_eq!(trust.signer_secrets, ["signername"]);
        assert_eq!(trust.trust_server.as_ref().unwrap().host_port(), "10.0.0.1:8443");
        assert_eq!(converted.warnings[0].place, "spec.repositories[0].policy.va");
    }

    #[test]
    fn alternatives_are_read() {
        let policy = |policy: &str| convert(&with_repositories(&format!("  - name: h.io/*\n    policy: {policy}\n")));
        let check = |text: &str| policy(text).unwrap().policy.entries[0].check.clone();
        let trust = |server: &str| format!("trust: {{enabled: true, trustServer: \"https://{server}\"}}");
        let servers = |check: &Check| -> Vec<String> {
            let host = |proof: &ProofPolicy| match proof {
                ProofPolicy::Trust(trust) => trust.trust_server.as_ref().unwrap().host().to_owned(),
                ProofPolicy::Cosign(_) => "cosign".to_owned(),
            };
            check.proofs().map(host).collect()
        };
        let any = check(&format!("{{anyOf: [{{{}}}, {{{}}}]}}", trust("new.io"), trust("old.io")));
        assert!(matches!(&any, Check::Proof(Requirement::Any(parts)) if parts.len() == 2), "{any:?}");
        assert_eq!(servers(&any), ["new.io", "old.io"]);
        let beside = check(&format!("{{{}, anyOf: [{{{}}}]}}", trust("both.io"), trust("old.io")));
        assert!(matches!(&beside, Check::Proof(Requirement::All(parts)) if parts.len() == 2), "{beside:?}");
        assert_eq!(servers(&beside), ["both.io", "old.io"]);
        let off =
            check(&format!("{{requirePresent: true, trust: {{enabled: false}}, anyOf: [{{{}}}]}}", trust("old.io")));
        assert_eq!(servers(&off), ["old.io"]);
        // What asks for nothing would hold for every image.
        let many = vec![format!("{{{}}}", trust("old.io")); 9].join(", ");
        for (text, expected) in [
            ("{anyOf: }", "anyOf"),
            ("{anyOf: []}", "policy.anyOf: is empty"),
            ("{anyOf: {}}", "sequence"),
            ("{anyOf: [{}]}", "policy.anyOf[0]: asks for nothing"),
            ("{anyOf: [{trust: }]}", "expected mapping"),
            ("{anyOf: [{trust: {enabled: false}}]}", "policy.anyOf[0].trust.enabled: is false"),
            ("{anyOf: [{trust: {enabled: true, trustServer: x}}]}", "policy.anyOf[0].trust.trustServer"),
            ("{anyOf: [{trsut: {enabled: true}}]}", "trsut"),
            ("{anyOf: [{anyOf: []}]}", "anyOf"),
            ("{anyof: [{trust: {enabled: true}}]}", "anyof"),
            (&format!("{{anyOf: [{many}]}}"), "policy.anyOf: has 9 alternatives"),
        ] {
            let error = policy(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for entry in [
            json!({"anyOf": []}),
            json!({"anyOf": [{}]}),
            json!({"anyOf": [[]]}),
            json!({"anyOf": [{"trust": [true]}]}),
            json!({"anyOf": [{"trust": {"enabled": false}}]}),
        ] {
            let object = json!({"spec": {"repositories": [{"name": "h.io/*", "policy": entry}]}});
            let read = read_stored(PolicyKind::Cluster, "p", &object);
            assert!(matches!(read.policy.entries[0].check, Check::Unusable(_)), "{object}");
        }
    }

    #[test]
    fn faults_are_refused_all_at_once() {
        let cases = [
            ("  - name: a\n    polcy: {}\n", "polcy"),
            ("  - name: a\n    policy: {trust: {}}\n", "enabled"),
            ("  - name: a\n    policy: {trust: }\n", "trust"),
            ("  - name: a\n    policy: {trust: {enabled: true, trustserver: x}}\n", "trustserver"),
            ("  - policy: {}\n", "name"),
            ("    []\n", "spec.repositories: is empty"),
            (
                "  - name: https://a\n  - name: b\n    policy: {trust: {enabled: true, trustServer: nope, signerSecrets: [{name: \"\"}], rootKeys: [x]}}\n",
                "spec.repositories[0].name",
            ),
            (
                "  - name: https://a\n  - name: b\n    policy: {trust: {enabled: true, trustServer: nope, signerSecrets: [{name: \"\"}], rootKeys: [x]}}\n",
                "spec.repositories[1].policy.trust.trustServer",
            ),
            (
                "  - name: b\n    policy: {trust: {enabled: true, signerSecrets: [{name: \"\"}], rootKeys: [x]}}\n",
                "rootKeys[0]",
            ),
        ];
        for (text, expected) in cases {
            let error = convert(&with_repositories(text)).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_stored_with_a_fault_denies() {
        let read = |spec: Value| read_stored(PolicyKind::Cluster, "p", &json!({"spec": spec}));
        let good = read(json!({"repositories": [{"name": "h.io/*", "policy": null}]}));
        assert_eq!((good.policy.entries.len(), good.policy.unusable, good.problems.len()), (1, None, 0));
        // Where the name can be read, what it matches is denied, and nothing else.
        for (member, policy) in [
            ("enabled", json!({"policy": {"trust": {}}})),
            ("trustServer", json!({"policy": {"trust": {"enabled": true, "trustServer": "x"}}})),
            ("signers", json!({"policy": {"trust": {"enabled": true, "signers": []}}})),
            ("trsut", json!({"policy": {"trsut": {"enabled": true}}})),
            ("polcy", json!({"polcy": {"trust": {"enabled": true}}})),
            ("key", json!({"policy": {"trust": {"enabled": true, "signerSecrets": [{"name": "a", "key": "b"}]}}})),
            ("Policy", json!({"Policy": {"trust": {"enabled": true}}})),
        ] {
            let mut entry = policy;
            entry["name"] = json!("h.io/*");
            let read = read(json!({"repositories": [entry]}));
            assert!(
                matches!(read.policy.entries[0].check, Check::Unusable(_)) && read.policy.unusable.is_none(),
                "{read:?}"
            );
            assert!(in_one_line(&read.problems).contains(member), "{read:?}");
        }
        for spec in [
            json!(null),
            json!({"repositories": {}}),
            json!({"repositories": [], "repos": []}),
            json!({"repositories": [{"policy": {}}]}),
            json!({"repositories": [{"name": "https://h.io"}]}),
            json!({"repositories": ["h.io/*"]}),
        ] {
            let read = read(spec.clone());
            assert!(read.policy.unusable.is_some() && !read.problems.is_empty(), "{spec}");
        }
        let at_root = json!({"spec": {"repositories": [{"name": "h.io/*"}]}, "sepc": {}});
        let read = read_stored(PolicyKind::Cluster, "p", &at_root);
        assert!(read.policy.unusable.is_some_and(|unusable| unusable.contains("sepc is not known")));
    }

    /// Under a server that only warns, a fault must not take away what an entry enforces.
    #[test]
    fn the_mode_of_what_is_at_fault_is_read() {
        let read = |repositories: Value| {
            read_stored(PolicyKind::Cluster, "p", &json!({"spec": {"repositories": repositories}})).policy
        };
        let entry = |name: &str, mode: Value| json!({"name": name, "policy": {"trsut": {}, "mode": mode}});
        for (mode, expected) in [
            (json!("enforce"), Some(Mode::Enforce)),
            (json!("warn"), Some(Mode::Warn)),
            (json!("enforec"), Some(Mode::Enforce)),
            (json!(["enforce"]), Some(Mode::Enforce)),
        ] {
            let policy = read(json!([entry("h.io/*", mode.clone())]));
            assert_eq!((policy.entries[0].mode, policy.strictest), (expected, expected), "{mode}");
            // Nobody can tell what this one is about, but that it is meant.
            let policy = read(json!([{"name": "other.io/*"}, entry("https://h.io", mode)]));
            assert!(policy.unusable.is_some());
            assert_eq!((policy.entries.len(), policy.strictest), (1, expected));
        }
        assert_eq!(read(json!([{"name": "h.io/*", "policy": {"trsut": {}}}])).strictest, None);
    }

    /// A reader of structures takes a list for an object, and an empty one for an object without members: nothing would be asked.
    #[test]
    fn a_list_is_no_object() {
        for entry in [
            json!({"policy": []}),
            json!({"policy": [true]}),
            json!({"policy": [false, null]}),
            json!({"policy": {"trust": [false]}}),
            json!({"policy": {"trust": {"enabled": true, "signerSecrets": [["a"]]}}}),
        ] {
            let mut entry = entry;
            entry["name"] = json!("h.io/*");
            let object = json!({"spec": {"repositories": [entry]}});
            let read = read_stored(PolicyKind::Cluster, "p", &object);
            assert!(matches!(read.policy.entries[0].check, Check::Unusable(_)), "{object}");
        }
        let object = json!({"spec": {"repositories": [["h.io/*"]]}});
        assert!(read_stored(PolicyKind::Cluster, "p", &object).policy.unusable.is_some());
    }

    #[test]
    fn policies_are_bounded() {
        let entries = |count: usize| json!({"spec": {"repositories": vec![json!({"name": "a*"}); count]}});
        let read = |object: &Value| read_stored(PolicyKind::Cluster, "p", object);
        assert!(read(&entries(MAX_ENTRIES)).problems.is_empty());
        let over = read(&entries(MAX_ENTRIES + 1)).policy;
        assert!(over.entries.is_empty() && over.unusable.is_some_and(|problem| problem.contains("2001 entries")));
        for member in ["signerSecrets", "rootSecrets", "rootKeys"] {
            let item = if member == "rootKeys" { json!("a".repeat(64)) } else { json!({"name": "a"}) };
            let with = |count: usize| {
                let policy = json!({"trust": {"enabled": true, member: vec![item.clone(); count]}});
                read(&json!({"spec": {"repositories": [{"name": "h.io/*", "policy": policy}]}}))
            };
            assert!(with(MAX_ITEMS).problems.is_empty(), "{member}");
            assert!(matches!(with(MAX_ITEMS + 1).policy.entries[0].check, Check::Unusable(_)), "{member}");
        }
        let pem = |bytes: usize| format!("-----BEGIN PUBLIC KEY-----\n{}", "A".repeat(bytes));
        for (member, value) in [("rootKeys", json!([pem(20 << 10)])), ("trustServerCertificate", json!(pem(20 << 10)))]
        {
            let policy = json!({"trust": {"enabled": true, member: value}});
            let read = read(&json!({"spec": {"repositories": [{"name": "h.io/*", "policy": policy}]}}));
            assert!(matches!(read.policy.entries[0].check, Check::Unusable(_)), "{member}");
            assert!(in_one_line(&read.problems).contains("has 20 KiB, and 16 KiB are the limit"), "{read:?}");
        }
        // Alternatives have no more together than one alone.
        let secrets =
            |count: usize| json!({"trust": {"enabled": true, "signerSecrets": vec![json!({"name": "a"}); count]}});
        let with = |alternatives: Value| {
            read(&json!({"spec": {"repositories": [{"name": "h.io/*", "policy": {"anyOf": alternatives}}]}}))
        };
        assert!(with(json!([secrets(32), secrets(32)])).problems.is_empty());
        let over = with(json!([secrets(33), secrets(32)]));
        assert!(matches!(over.policy.entries[0].check, Check::Unusable(_)), "{over:?}");
        assert!(in_one_line(&over.problems).contains("policy asks for 65 secrets in all"), "{over:?}");
        let members: serde_json::Map<_, _> = (0..1000).map(|index| (format!("m{index}"), json!(1))).collect();
        let told = read(&Value::Object(members)).policy.unusable.unwrap_or_default();
        assert!(told.len() < 4000 && told.ends_with("more"), "{told}");
    }

    #[test]
    fn a_secret_has_a_name_that_secrets_can_have() {
        let policy = json!({"trust": {"enabled": true, "signerSecrets": [{"name": "x\nDeny"}]}});
        let object = json!({"spec": {"repositories": [{"name": "h.io/*", "policy": policy}]}});
        let read = read_stored(PolicyKind::Cluster, "p", &object);
        assert_eq!(read.problems[0].1, "cannot be the name of a secret");
    }
}
