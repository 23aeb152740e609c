//! `trust`: Docker Content Trust, as an entry asks for it.

use countersign_notary::TrustServer;
use countersign_policy::TrustPolicy;
use countersign_remote::PinnedCertificate;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Problem;
use crate::cluster::is_object_name;

/// How many signers or root keys an entry may name. Each is read, and kept, for every image that the entry is about.
pub(super) const MAX_ITEMS: usize = 64;

/// How many bytes a key or certificate in a policy may have: those of a chain of several certificates. Whoever writes policies must not
/// make each review carry more.
pub(super) const MAX_PEM_BYTES: usize = 16 << 10;

/// Content trust, as an entry asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "they are called so in policies")]
pub(crate) struct Trust {
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
pub(crate) struct SecretName {
    /// Its name.
    pub name: String,
}

/// The names of secrets that a member lists, and what is wrong with them.
pub(super) fn names(member: &str, secrets: &[SecretName], faults: &mut Vec<Problem>) -> Vec<String> {
    for (index, secret) in secrets.iter().enumerate() {
        if secret.name.is_empty() {
            faults.push((format!("{member}[{index}].name"), "is empty; give the name of a secret".to_owned()));
        } else if !is_object_name(&secret.name) {
            faults.push((format!("{member}[{index}].name"), "cannot be the name of a secret".to_owned()));
        }
    }
    secrets.iter().map(|secret| secret.name.clone()).collect()
}

/// The engine's form of a section, and what is wrong with it: members of the section, and problems.
pub(super) fn convert(trust: &Trust) -> (TrustPolicy, Vec<Problem>) {
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
    let mut names = |member: &str, secrets: &[SecretName]| names(member, secrets, &mut faults);
    let (signer_secrets, root_secrets) =
        (names("signerSecrets", &trust.signer_secrets), names("rootSecrets", &trust.root_secrets));
    let mut pins = countersign_notary::RootPins::none();
    for (index, key) in trust.root_keys.iter().enumerate() {
        if key.len() > MAX_PEM_BYTES {
            faults.push((format!("rootKeys[{index}]"), too_long(key)));
        } else if let Err(error) = pins.add(key) {
            faults.push((
                format!("rootKeys[{index}]"),
                format!("is neither a key id nor a key or certificate in PEM: {error}"),
            ));
        }
    }
    let certificate = trust.trust_server_certificate.as_deref().filter(|text| !text.is_empty());
    if let Some(long) = certificate.filter(|pem| pem.len() > MAX_PEM_BYTES) {
        faults.push(("trustServerCertificate".to_owned(), too_long(long)));
    } else if let Some(Err(error)) = certificate.map(|pem| PinnedCertificate::parse(pem, "trustServerCertificate")) {
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
        },
        faults,
    )
}

pub(super) fn too_long(pem: &str) -> String {
    format!("has {} KiB, and {} KiB are the limit", pem.len() >> 10, MAX_PEM_BYTES >> 10)
}

/// The schema of a list of secrets.
pub(super) fn secrets(description: &str) -> Value {
    json!({
        "type": "array", "nullable": true,
        "description": description,
        "items": {
            "type": "object",
            "description": "A secret, by name.",
            "x-kubernetes-preserve-unknown-fields": true,
            "required": ["name"],
            "properties": {"name": {"type": "string", "minLength": 1, "description": "The secret's name."}},
        },
    })
}

/// The schema of a section. What may not be null is nullable all the same: an API server drops a null where it is not, and what is
/// dropped can be refused by nobody.
pub(super) fn schema() -> Value {
    json!({
        "type": "object", "nullable": true,
        "description": "Docker Content Trust: signatures that are kept on a Notary server.",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["enabled"],
        "properties": {
            "enabled": {"type": "boolean", "description": "Whether signatures are verified."},
            "trustServer": {
                "type": "string", "pattern": "^$|^https?://[^/?#@]+",
                "description": "The Notary server, with a port and a path where it has them: https://notary.example.com:8443/notary. If absent: the registry's own host at port 4443, and https://quay.io for quay.io. docker.io has none.",
            },
            "trustServerCertificate": {
                "type": "string",
                "description": "The one certificate that the trust server must show, PEM: for a server whose certificate no strict client takes (a CA used as its own leaf, a common name alone, expired). No other is taken then, and nothing else is asked of this one.",
            },
            "signerSecrets": secrets("Secrets of signers, every one of whom must have signed the image. Each has the data keys name (the signer, as registered in the repository) and publicKey (PEM). Those of an ImagePolicy are in its namespace, those of a ClusterImagePolicy in Countersign's own. If there are none, whatever the repository has released counts."),
            "rootKeys": {
                "type": "array", "nullable": true,
                "description": "Keys that the repository's root must be signed with, or rotated from: key ids in hex, or public keys or certificates in PEM. Without pins the first root that is seen is believed, and remembered.",
                "items": {"type": "string", "minLength": 1, "description": "A key id in hex, or a public key or certificate in PEM."},
            },
            "rootSecrets": secrets("Secrets whose publicKey is such a root key, in the namespaces of the signer secrets."),
        },
    })
}
