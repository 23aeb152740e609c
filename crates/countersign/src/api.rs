//! ImagePolicy, ClusterImagePolicy and signer secrets as Kubernetes and YAML files have them, and their way into the
//! engine's types.
//!
//! Unknown members are refused: a misspelt `trsut` that was ignored would allow everything.

use countersign_policy::{Check, Entry, Pattern, Policy, PolicyKind, TrustPolicy, TrustServer};
use countersign_remote::PinnedCertificate;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use thiserror::Error;

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

impl PolicyDocument {
    /// Kind and name, for messages.
    #[must_use]
    pub fn title(&self) -> String {
        let name = self.metadata.name.as_deref().unwrap_or("(no name)");
        match &self.metadata.namespace {
            Some(namespace) if self.kind == "ImagePolicy" => format!("{} {namespace}/{name}", self.kind),
            _ => format!("{} {name}", self.kind),
        }
    }

    /// The engine's form of it.
    ///
    /// # Errors
    /// Every fault, not only the first.
    pub fn convert(&self) -> Result<Converted, Vec<PolicyFault>> {
        let mut faults = Vec::new();
        let mut warnings = Vec::new();
        let fault = |place: String, problem: String| PolicyFault { policy: self.title(), place, problem };
        if self.api_version != API_VERSION {
            faults.push(fault("apiVersion".into(), format!("{:?} is not {API_VERSION}", self.api_version)));
        }
        let name = self.metadata.name.clone().unwrap_or_default();
        if name.is_empty() {
            faults.push(fault("metadata.name".into(), "is missing".into()));
        }
        let kind = match (self.kind.as_str(), &self.metadata.namespace) {
            ("ClusterImagePolicy", _) => PolicyKind::Cluster,
            // What kubectl would do with a document that names no namespace.
            (_, namespace) => {
                PolicyKind::Image { namespace: namespace.clone().unwrap_or_else(|| "default".to_owned()) }
            }
        };
        if self.spec.repositories.is_empty() {
            let problem = "is empty, so the policy matches no image; list at least one repository".to_owned();
            faults.push(fault("spec.repositories".into(), problem));
        }
        let mut entries = Vec::new();
        for (index, repository) in self.spec.repositories.iter().enumerate() {
            let placed = |(member, problem)| fault(format!("spec.repositories[{index}].{member}"), problem);
            match convert_entry(repository) {
                Ok((entry, ignored)) => {
                    entries.push(entry);
                    warnings.extend(ignored.into_iter().map(placed));
                }
                Err(problems) => faults.extend(problems.into_iter().map(placed)),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Converted { policy: Policy { kind, name, entries, unusable: None }, warnings })
    }
}

/// A member and what is wrong with it, or what is not enforced of it.
pub type Problem = (String, String);

/// Several problems in one line.
#[must_use]
pub fn in_one_line(problems: &[Problem]) -> String {
    problems.iter().map(|(place, problem)| format!("{place} {problem}")).collect::<Vec<_>>().join("; ")
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

/// A policy as a cluster has it, where it cannot be sent back: whatever makes no sense in it denies the images that it is
/// about, and where that cannot be told, all images of its scope. Gives what is wrong with it too.
#[must_use]
pub fn read_stored(kind: PolicyKind, name: &str, spec: &Value) -> (Policy, Vec<Problem>) {
    let mut policy = Policy { kind, name: name.to_owned(), entries: Vec::new(), unusable: None };
    let mut problems = Vec::new();
    let members = spec.as_object();
    let repositories = members.and_then(|members| members.get("repositories")).and_then(Value::as_array);
    let unknown = members.and_then(|members| members.keys().find(|member| *member != "repositories"));
    match (repositories, unknown) {
        (None, _) => problems.push(("spec.repositories".to_owned(), "is not a list of repositories".to_owned())),
        (_, Some(unknown)) => problems.push((format!("spec.{unknown}"), "is not known".to_owned())),
        _ => {}
    }
    let mut whole = !problems.is_empty();
    for (index, value) in repositories.into_iter().flatten().enumerate() {
        let place = format!("spec.repositories[{index}]");
        let converted = Repository::deserialize(value)
            .map_err(|error| vec![(String::new(), error.to_string())])
            .and_then(|repository| convert_entry(&repository));
        let found = match converted {
            Ok((entry, _)) => {
                policy.entries.push(entry);
                continue;
            }
            Err(found) => found,
        };
        let found: Vec<Problem> = found
            .into_iter()
            .map(|(member, problem)| match member.as_str() {
                "" => (place.clone(), problem),
                member => (format!("{place}.{member}"), problem),
            })
            .collect();
        // Where the name can be read, only what it matches is in doubt.
        match value.get("name").and_then(Value::as_str).map(Pattern::parse) {
            Some(Ok(pattern)) => {
                let check = Check::Unusable(in_one_line(&found));
                policy.entries.push(Entry { pattern, mutate_image: true, check });
            }
            _ => whole = true,
        }
        problems.extend(found);
    }
    if whole {
        policy.unusable = Some(in_one_line(&problems));
    }
    (policy, problems)
}

fn convert_trust(trust: &Trust) -> (TrustPolicy, Vec<Problem>) {
    let mut faults = Vec::new();
    let trust_server = trust.trust_server.as_deref().filter(|text| !text.is_empty()).and_then(|text| {
        TrustServer::parse(text).map_err(|error| faults.push(("trustServer".to_owned(), error.to_string()))).ok()
    });
    let mut names = |member: &str, secrets: &[SecretName]| {
        for (index, _) in secrets.iter().enumerate().filter(|(_, secret)| secret.name.is_empty()) {
            faults.push((format!("{member}[{index}].name"), "is empty; give the name of a secret".to_owned()));
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
        let document: PolicyDocument = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let joined = |faults: Vec<PolicyFault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        document.convert().map_err(joined)
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
        let read = |spec: Value| read_stored(PolicyKind::Cluster, "p", &spec);
        let good = json!({"repositories": [{"name": "h.io/*", "policy": null}]});
        let (policy, problems) = read(good);
        assert_eq!((policy.entries.len(), policy.unusable, problems.len()), (1, None, 0));
        // Where the name can be read, what it matches is denied, and nothing else.
        for trust in [json!({}), json!({"enabled": true, "trustServer": "x"}), json!({"enabled": true, "signers": []})]
        {
            let (policy, problems) = read(json!({"repositories": [{"name": "h.io/*", "policy": {"trust": trust}}]}));
            assert!(matches!(policy.entries[0].check, Check::Unusable(_)) && policy.unusable.is_none(), "{policy:?}");
            assert_eq!(problems.len(), 1);
        }
        for spec in [
            json!(null),
            json!({"repositories": {}}),
            json!({"repositories": [], "repos": []}),
            json!({"repositories": [{"policy": {}}]}),
            json!({"repositories": [{"name": "https://h.io"}]}),
            json!({"repositories": ["h.io/*"]}),
        ] {
            let (policy, problems) = read(spec.clone());
            assert!(policy.unusable.is_some() && !problems.is_empty(), "{spec}");
        }
    }
}
