//! ImagePolicy, ClusterImagePolicy and signer secrets as Kubernetes and YAML files have them, and their way into the
//! engine's types.
//!
//! Unknown members are refused: a misspelt `trsut` that was ignored would allow everything.

use countersign_image::shown;
use countersign_notary::TrustServer;
use countersign_policy::{Check, Entry, Pattern, Policy, PolicyKind, TrustPolicy};
use countersign_remote::PinnedCertificate;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::cluster::is_object_name;

/// The group of the policies.
pub const GROUP: &str = "securityenforcement.admission.cloud.ibm.com";

/// Group and version of the policies, as documents say it.
pub const API_VERSION: &str = "securityenforcement.admission.cloud.ibm.com/v1beta1";

/// An ImagePolicy or a ClusterImagePolicy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyDocument {
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
pub struct PolicySpec {
    /// Entries; the most exact that matches an image applies to it.
    pub repositories: Vec<Repository>,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// The images that it is about, with `*` as a wildcard.
    pub name: String,
    /// What it asks of them; absent or empty: nothing, they are allowed.
    #[serde(default)]
    pub policy: Option<EntryPolicy>,
}

/// What an entry asks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntryPolicy {
    /// Whether admitted images are pinned to their signed digest; true if absent.
    #[serde(default)]
    pub mutate_image: Option<bool>,
    /// Whether the registry must have the signed content; goes with trust alone.
    #[serde(default)]
    pub require_present: Option<bool>,
    /// Content trust.
    #[serde(default, deserialize_with = "not_null")]
    pub trust: Option<Trust>,
    /// Read without complaint, and not enforced.
    #[serde(default)]
    pub va: Option<Value>,
    /// Read without complaint, and not enforced.
    #[serde(default)]
    pub vulnerability: Option<Value>,
}

/// Content trust, as an entry asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trust {
    /// Whether signatures are verified. Must be said.
    pub enabled: bool,
    /// The trust server; the registry's default if absent.
    #[serde(default)]
    pub trust_server: Option<String>,
    /// The one certificate that the trust server must show, PEM.
    #[serde(default)]
    pub trust_server_certificate: Option<String>,
    /// Secrets of signers, every one of which must have signed.
    #[serde(default)]
    pub signer_secrets: Vec<SecretName>,
    /// Pinned root keys: ids or PEM.
    #[serde(default)]
    pub root_keys: Vec<String>,
    /// Secrets whose `publicKey` is a pinned root key.
    #[serde(default)]
    pub root_secrets: Vec<SecretName>,
}

/// A secret, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretName {
    /// Its name.
    pub name: String,
}

/// `trust:` with nothing behind it is no way to ask for trust, nor to do without.
fn not_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Trust>, D::Error> {
    Trust::deserialize(deserializer).map(Some)
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
pub struct Converted {
    /// The policy.
    pub policy: Policy,
    /// What is read but not enforced.
    pub warnings: Vec<PolicyFault>,
}

/// How many signers or root keys an entry may name. Each is read, and kept, for every image that the entry is about.
const MAX_ITEMS: usize = 64;

/// How many entries a policy may have: each image is compared with all of them. The largest policies seen have some hundreds.
const MAX_ENTRIES: usize = 2000;

/// The members of a policy's root. `status` is the cluster's.
const ROOT: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// Kind, namespace and name of a policy as somebody wrote it, for messages.
#[must_use]
pub fn title(object: &Value) -> String {
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
pub fn check(object: &Value) -> Result<Converted, Vec<PolicyFault>> {
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
pub type Problem = (String, String);

/// How many problems of one policy are told. Whoever mends them finds the others.
const MAX_TOLD: usize = 20;

/// The first of several problems, escaped and cut, and how many more there are.
#[must_use]
pub fn told<T: std::fmt::Display>(problems: &[T]) -> Vec<String> {
    let mut lines: Vec<_> = problems.iter().take(MAX_TOLD).map(|problem| shown(&problem.to_string())).collect();
    if problems.len() > MAX_TOLD {
        lines.push(format!("and {} more", problems.len() - MAX_TOLD));
    }
    lines
}

/// Several problems in one line, as short as a status may be.
#[must_use]
pub fn in_one_line(problems: &[Problem]) -> String {
    let problems: Vec<_> = problems.iter().map(|(place, problem)| format!("{place} {problem}")).collect();
    told(&problems).join("; ")
}

fn convert_entry(repository: &Repository) -> Result<(Entry, Vec<Problem>), Vec<Problem>> {
    let pattern = Pattern::parse(&repository.name).map_err(|error| ("name".to_owned(), error.to_string()));
    let asked = repository.policy.clone().unwrap_or_default();
    let ignored = [("va", &asked.va), ("vulnerability", &asked.vulnerability)]
        .iter()
        .filter(|(_, value)| value.is_some())
        .map(|(name, _)| (format!("policy.{name}"), "is not enforced by Countersign".to_owned()))
        .collect();
    let require_present = asked.require_present.unwrap_or_default();
    let (check, problems) = match asked.trust.filter(|trust| trust.enabled) {
        None if require_present => {
            let problem = "says which signed content must be there, so it needs trust.enabled".to_owned();
            (Check::Nothing, vec![("policy.requirePresent".to_owned(), problem)])
        }
        None => (Check::Nothing, Vec::new()),
        Some(trust) => {
            let (trust, problems) = convert_trust(&trust);
            let trust = TrustPolicy { require_present, ..trust };
            let placed = |(member, problem)| (format!("policy.trust.{member}"), problem);
            (Check::Trust(trust), problems.into_iter().map(placed).collect())
        }
    };
    match pattern {
        Ok(pattern) if problems.is_empty() => {
            Ok((Entry { pattern, mutate_image: asked.mutate_image.unwrap_or(true), check }, ignored))
        }
        pattern => Err(pattern.err().into_iter().chain(problems).collect()),
    }
}

/// What a policy comes to as it is written, faults included.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
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
pub fn read_stored(kind: PolicyKind, name: &str, object: &Value) -> Read {
    let policy = Policy { kind, name: name.to_owned(), entries: Vec::new(), unusable: None };
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
        let converted = only_objects(value)
            .and_then(|()| Repository::deserialize(value).map_err(|error| error.to_string()))
            .map_err(|problem| vec![(String::new(), problem)])
            .and_then(|repository| convert_entry(&repository));
        let found = match converted {
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
                read.policy.entries.push(Entry { pattern, mutate_image: true, check });
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

/// Fails where a list stands in place of an object: the reader takes its items for the members in their order, and an empty one for an
/// object without members.
fn only_objects(entry: &Value) -> Result<(), String> {
    let is_object = |value: &Value, at: &str, nullable: bool| match value {
        Value::Object(_) => Ok(()),
        Value::Null if nullable => Ok(()),
        _ => Err(format!("{at} is not an object")),
    };
    is_object(entry, "the entry", false)?;
    let policy = entry.get("policy").unwrap_or(&Value::Null);
    is_object(policy, "policy", true)?;
    let trust = policy.get("trust").unwrap_or(&Value::Null);
    is_object(trust, "policy.trust", true)?;
    for list in ["signerSecrets", "rootSecrets"] {
        for item in trust.get(list).and_then(Value::as_array).into_iter().flatten() {
            is_object(item, &format!("an item of policy.trust.{list}"), false)?;
        }
    }
    Ok(())
}

fn convert_trust(trust: &Trust) -> (TrustPolicy, Vec<Problem>) {
    let mut faults = Vec::new();
    for (member, count) in [
        ("signerSecrets", trust.signer_secrets.len()),
        ("rootKeys", trust.root_keys.len()),
        ("rootSecrets", trust.root_secrets.len()),
    ] {
        if count > MAX_ITEMS {
            faults.push((member.to_owned(), format!("has {count} items, and {MAX_ITEMS} are the limit")));
            return (TrustPolicy::default(), faults);
        }
    }
    let trust_server = trust.trust_server.as_deref().filter(|text| !text.is_empty()).and_then(|text| {
        TrustServer::parse(text).map_err(|error| faults.push(("trustServer".to_owned(), error.to_string()))).ok()
    });
    let mut names = |member: &str, secrets: &[SecretName]| {
        for (index, secret) in secrets.iter().enumerate() {
            if secret.name.is_empty() {
                faults.push((format!("{member}[{index}].name"), "is empty; give the name of a secret".to_owned()));
            } else if !is_object_name(&secret.name) {
                faults.push((format!("{member}[{index}].name"), "cannot be the name of a secret".to_owned()));
            }
        }
        secrets.iter().map(|secret| secret.name.clone()).collect()
    };
    let (signer_secrets, root_secrets) =
        (names("signerSecrets", &trust.signer_secrets), names("rootSecrets", &trust.root_secrets));
    let mut pins = countersign_notary::RootPins::none();
    for (index, key) in trust.root_keys.iter().enumerate() {
        if let Err(error) = pins.add(key) {
            faults.push((
                format!("rootKeys[{index}]"),
                format!("is neither a key id nor a key or certificate in PEM: {error}"),
            ));
        }
    }
    let certificate = trust.trust_server_certificate.as_deref().filter(|text| !text.is_empty());
    if let Some(Err(error)) = certificate.map(PinnedCertificate::parse) {
        faults.push(("trustServerCertificate".to_owned(), error.to_string()));
    }
    let server_certificate = certificate.map(str::to_owned);
    (
        TrustPolicy {
            trust_server,
            server_certificate,
            signer_secrets,
            root_keys: trust.root_keys.clone(),
            root_secrets,
            require_present: false,
        },
        faults,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        }
    }

    #[test]
    fn trust_is_read() {
        let text = "  - name: \"mycluster.icp:8500/kube-system/*\"\n    policy:\n      mutateImage: false\n      trust:\n        enabled: true\n        signerSecrets:\n        - name: signername\n        trustServer: https://10.0.0.1:8443/notary\n      va: {enabled: true}\n";
        let converted = convert(&with_repositories(text)).unwrap();
        let entry = &converted.policy.entries[0];
        assert!(!entry.mutate_image);
        let Check::Trust(trust) = &entry.check else { panic!("{entry:?}") };
        assert_eq!(trust.signer_secrets, ["signername"]);
        assert_eq!(trust.trust_server.as_ref().unwrap().host_port(), "10.0.0.1:8443");
        assert_eq!(converted.warnings[0].place, "spec.repositories[0].policy.va");
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
