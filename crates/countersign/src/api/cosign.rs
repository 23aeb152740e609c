//! `cosign`: signatures of cosign, made with keys, as an entry asks for them.

use std::collections::BTreeMap;

use countersign_cosign::{Demand, Key, limits};
use countersign_image::ImageReference;
use countersign_policy::CosignPolicy;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Problem;
use super::trust::{self, MAX_PEM_BYTES, SecretName};

/// How many claims an entry may ask for, and how many bytes they may have all together.
const MAX_ANNOTATIONS: (usize, usize) = (32, 4 << 10);

/// What a key of a service has in place of PEM, as cosign names them.
const SERVICES: [&str; 6] = ["awskms://", "azurekms://", "gcpkms://", "hashivault://", "k8s://", "pkcs11:"];

/// Signatures of cosign, as an entry asks for them. That the section is there is the demand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Cosign {
    /// Secrets of signers.
    #[serde(default)]
    pub signer_secrets: Vec<SecretName>,
    /// Further keys, PEM.
    #[serde(default)]
    pub keys: Vec<String>,
    /// How many keys must have signed; every one, if absent.
    #[serde(default)]
    pub threshold: Option<u32>,
    /// Signers that must have signed in any case.
    #[serde(default)]
    pub required: Vec<String>,
    /// The repository with the signatures; the image's own, if absent.
    #[serde(default)]
    pub repository: Option<String>,
    /// Claims that each signature must make.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The name of a key that a policy holds itself, by its place from 0.
fn name_of_key(index: usize) -> String {
    format!("keys[{index}]")
}

/// The engine's form of a section, and what is wrong with it: members of the section with a dot before them, or nothing for the section
/// as a whole, and problems.
pub(super) fn convert(cosign: &Cosign) -> (CosignPolicy, Vec<Problem>) {
    let mut faults = Vec::new();
    let all = cosign.signer_secrets.len() + cosign.keys.len();
    if all == 0 {
        faults.push((String::new(), "names no key; give it signerSecrets or keys".to_owned()));
    }
    if all > limits::MAX_KEYS {
        faults.push((String::new(), format!("names {all} keys, and {} are the limit", limits::MAX_KEYS)));
        return (CosignPolicy::default(), faults);
    }
    let signer_secrets = trust::names(".signerSecrets", &cosign.signer_secrets, &mut faults);
    for (index, name) in signer_secrets.iter().enumerate() {
        if signer_secrets[..index].contains(name) {
            faults.push((format!(".signerSecrets[{index}].name"), "is there twice; one key counts once".to_owned()));
        }
    }
    let mut keys = Vec::new();
    for (index, text) in cosign.keys.iter().enumerate() {
        match read_key(index, text) {
            Ok(key) => keys.push(key),
            Err(problem) => faults.push((format!(".keys[{index}]"), problem)),
        }
    }
    let threshold = cosign.threshold.map(|threshold| usize::try_from(threshold).unwrap_or(usize::MAX));
    if threshold == Some(0) {
        faults.push((".threshold".to_owned(), "is 0, so that nothing would be asked for".to_owned()));
    }
    if let Some(threshold) = threshold.filter(|&threshold| threshold > all) {
        faults.push((".threshold".to_owned(), format!("is {threshold}, and there are only {all} keys")));
    }
    if threshold.is_none() && !cosign.required.is_empty() {
        faults.push((".required".to_owned(), "goes with threshold; without that, all keys are required".to_owned()));
    }
    // What secrets hold is not known here. Keys that stand in the policy itself are compared at once.
    if let Err(problem) = Demand::new(keys.clone(), None, Vec::new(), BTreeMap::new())
        && !keys.is_empty()
    {
        faults.push((".keys".to_owned(), problem.to_string()));
    }
    if cosign.required.len() > limits::MAX_KEYS
        || cosign.required.iter().any(|name| name.is_empty() || name.len() > 253)
    {
        let problem = format!("has more than {} names, or one that no signer can have", limits::MAX_KEYS);
        faults.push((".required".to_owned(), problem));
    }
    let bytes: usize = cosign.annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    if cosign.annotations.len() > MAX_ANNOTATIONS.0 || bytes > MAX_ANNOTATIONS.1 {
        let (count, bytes) = MAX_ANNOTATIONS;
        faults
            .push((".annotations".to_owned(), format!("are more than {count}, or longer than {bytes} bytes together")));
    }
    let repository = cosign.repository.as_deref().and_then(|text| {
        let read = read_repository(text).ok_or_else(|| {
            (".repository".to_owned(), "is no repository, such as registry.example.com/signatures".to_owned())
        });
        read.map_err(|fault| faults.push(fault)).ok()
    });
    let policy = CosignPolicy {
        signer_secrets,
        keys,
        threshold,
        required: cosign.required.clone(),
        repository,
        annotations: cosign.annotations.clone(),
    };
    (policy, faults)
}

fn read_key(index: usize, text: &str) -> Result<Key, String> {
    if text.len() > MAX_PEM_BYTES {
        return Err(trust::too_long(text));
    }
    if let Some(service) = SERVICES.iter().find(|service| text.trim_start().starts_with(**service)) {
        return Err(format!(
            "is a key that a service keeps ({service}…), and no service is asked at admission; give its public key: cosign public-key --key {}",
            countersign_image::shown(text.trim())
        ));
    }
    Key::from_pem(&name_of_key(index), text.as_bytes()).map_err(|problem| problem.to_string())
}

/// A repository, with its registry, and without tag or digest.
fn read_repository(text: &str) -> Option<ImageReference> {
    let bare = |read: &ImageReference| read.digest().is_none() && read.written_repository() == text;
    ImageReference::parse(text).ok().filter(bare)
}

/// The schema of a section. On null see [`trust::schema`].
pub(super) fn schema() -> Value {
    json!({
        "type": "object", "nullable": true,
        "description": "Signatures of cosign, made with keys, which the registry has: under the .sig tag or as referrers, as simple signing or as bundles.",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "signerSecrets": trust::secrets("Secrets of signers, every one of whom must have signed unless threshold says otherwise. Each has the data key publicKey or cosign.pub (PEM), and name if the signer is not called as the secret is. Those of an ImagePolicy are in its namespace, those of a ClusterImagePolicy in Countersign's own."),
            "keys": {
                "type": "array", "nullable": true,
                "description": "Further public keys, called keys[0], keys[1] and so on.",
                "items": {"type": "string", "minLength": 1, "description": "A public key in PEM."},
            },
            "threshold": {
                "type": "integer", "format": "int32", "minimum": 1, "nullable": true,
                "description": "How many different keys must have signed. Every one, if absent.",
            },
            "required": {
                "type": "array", "nullable": true,
                "description": "Signers that must have signed in any case, where threshold asks for fewer than all.",
                "items": {"type": "string", "minLength": 1, "description": "The name of a signer."},
            },
            "repository": {
                "type": "string", "minLength": 1, "nullable": true,
                "description": "The repository that holds the signatures, if they were made with COSIGN_REPOSITORY. The image's own, if absent.",
            },
            "annotations": {
                "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true,
                "description": "Claims that each signature must make to count, as cosign sign -a NAME=VALUE writes them.",
                "additionalProperties": {"type": "string", "description": "The value of a claim."},
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use countersign_policy::{Check, PolicyKind, ProofPolicy, Requirement};

    use super::*;
    use crate::api::read_stored;

    /// What an entry comes to whose `policy` is this.
    fn read(policy: &Value) -> (Check, String) {
        let object = json!({"spec": {"repositories": [{"name": "h.io/*", "policy": policy}]}});
        let mut read = read_stored(PolicyKind::Cluster, "p", &object);
        (read.policy.entries.remove(0).check, crate::api::in_one_line(&read.problems))
    }

    fn pem(name: &str) -> String {
        forge::Key::p256(name).pem()
    }

    #[test]
    fn a_section_is_a_demand() {
        let section = json!({
            "signerSecrets": [{"name": "alice"}, {"name": "release-bot"}], "keys": [pem("c")], "threshold": 2,
            "required": ["release-bot"], "repository": "sigs.io:5000/all", "annotations": {"env": "prod"},
        });
        let (Check::Proof(Requirement::One(ProofPolicy::Cosign(cosign))), problems) = read(&json!({"cosign": section}))
        else {
            panic!()
        };
        assert_eq!(problems, "");
        assert_eq!((cosign.signer_secrets.join(","), cosign.threshold), ("alice,release-bot".into(), Some(2)));
        assert_eq!((cosign.keys[0].name(), cosign.required.join(",")), ("keys[0]", "release-bot".into()));
        assert_eq!(cosign.repository.as_ref().map(ImageReference::repository), Some("sigs.io:5000/all".into()));
        assert_eq!(cosign.annotations["env"], "prod");
        // Side by side with trust both must hold; among alternatives it is one.
        let secrets = json!({"signerSecrets": [{"name": "alice"}]});
        let (both, _) = read(&json!({"cosign": secrets, "trust": {"enabled": true}}));
        assert!(matches!(&both, Check::Proof(Requirement::All(parts)) if parts.len() == 2), "{both:?}");
        let (any, problems) = read(&json!({"anyOf": [{"cosign": secrets}, {"trust": {"enabled": true}}]}));
        assert!(matches!(&any, Check::Proof(Requirement::Any(parts)) if parts.len() == 2), "{any:?} {problems}");
    }

    /// What would demand less than it seems to, or what nothing could meet, denies, and says why.
    #[test]
    fn sections_at_fault_deny() {
        let one = pem("one");
        let many: Vec<_> = (0..33).map(|number| json!({"name": format!("s{number}")})).collect();
        for (section, told) in [
            (json!(null), "null"),
            (json!([]), "policy.cosign is not an object"),
            (json!({}), "policy.cosign names no key"),
            (json!({"signerSecrets": [], "keys": []}), "policy.cosign names no key"),
            (json!({"signerSecrets": null}), "null"),
            (json!({"keys": null}), "null"),
            (json!({"signerSecrets": [["alice"]]}), "an item of policy.cosign.signerSecrets is not an object"),
            (json!({"enabled": true, "signerSecrets": [{"name": "a"}]}), "enabled"),
            (json!({"signerSecrets": [{"name": "a"}], "treshold": 1}), "treshold"),
            (json!({"signerSecrets": [{"name": "a"}], "threshold": 0}), "policy.cosign.threshold is 0"),
            (json!({"signerSecrets": [{"name": "a"}], "threshold": 2}), "only 1 keys"),
            (json!({"signerSecrets": [{"name": "a"}], "threshold": -1}), "-1"),
            (json!({"signerSecrets": [{"name": "a"}, {"name": "a"}]}), "signerSecrets[1].name is there twice"),
            (json!({"signerSecrets": [{"name": "a"}], "required": ["a"]}), "goes with threshold"),
            (json!({"signerSecrets": many}), "names 33 keys, and 32 are the limit"),
            (json!({"keys": [one, one]}), "one and the same key"),
            (json!({"keys": ["x"]}), "policy.cosign.keys[0] the public key is not PEM text"),
            (json!({"keys": ["awskms:///alias/x"]}), "cosign public-key --key awskms:///alias/x"),
            (json!({"keys": [format!("{one}{one}")]}), "2 PEM blocks"),
            (json!({"keys": ["-----BEGIN PUBLIC KEY-----".repeat(1000)]}), "KiB are the limit"),
            (json!({"keys": [one], "repository": "sigs.io/all:v1"}), "policy.cosign.repository is no repository"),
            (json!({"keys": [one], "repository": "https://sigs.io/all"}), "policy.cosign.repository is no repository"),
            (json!({"keys": [one], "annotations": {"env": 1}}), "string"),
            (json!({"keys": [one], "annotations": {"env": "x".repeat(5000)}}), "policy.cosign.annotations are more"),
        ] {
            for (policy, at) in [
                (json!({"cosign": section}), "policy.cosign"),
                (json!({"anyOf": [{"cosign": section}, {"trust": {"enabled": true}}]}), "policy.anyOf[0].cosign"),
            ] {
                let (check, problems) = read(&policy);
                assert!(matches!(check, Check::Unusable(_)), "{policy}");
                let told = told.replace("policy.cosign", at);
                assert!(problems.contains(&told), "{policy}: {problems}");
            }
        }
    }
}
