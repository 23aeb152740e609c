//! The custom resource definitions of the policies, for today's clusters and for those of `apiextensions.k8s.io/v1beta1`.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{GROUP, entry_schema};

/// Which APIs a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Platform {
    /// Kubernetes from 1.16 to today.
    #[default]
    Kubernetes,
    /// OpenShift 3.11, which is Kubernetes 1.11.
    #[serde(rename = "openshift-3.11")]
    OpenShift311,
}

/// `ImagePolicy` and `ClusterImagePolicy`.
#[must_use]
pub(crate) fn policies(platform: Platform) -> Vec<Value> {
    [("ImagePolicy", "Namespaced"), ("ClusterImagePolicy", "Cluster")]
        .map(|(kind, scope)| definition(kind, scope, platform))
        .into()
}

/// `TrustRecord`: what is remembered of a repository, for all replicas and across restarts. Countersign's own; nobody else
/// needs to write one.
#[must_use]
pub(crate) fn records(platform: Platform) -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let schema = json!({
        "type": "object",
        "description": "What Countersign remembers of a repository on a trust server, so that it cannot go backwards or be swapped unnoticed. To delete it makes Countersign believe the next root that it sees.",
        "properties": {"spec": {
            "type": "object",
            "description": "What was seen.",
            "required": ["server", "gun", "data"],
            "properties": {
                "server": text("The trust server's address."),
                "gun": text("The repository's name there."),
                "pinnedIn": text("The namespace whose ImagePolicy pins the server's certificate, if it is that one's own record."),
                "accepted": text("When countersign trust accept wrote it, if it did."),
                "namespace": text("The namespace for which it was written last, for whose share of all records it counts."),
                "verified": text("When this was written: the last time that something newer was seen."),
                "rootVersion": {"type": "integer", "format": "int64", "description": "The version of the root that is trusted."},
                "rootKeys": {"type": "array", "description": "The ids of the keys that signed it.", "items": text("A key id, in hex.")},
                "timestampVersion": {"type": "integer", "format": "int64", "description": "The newest version of timestamp.json that was seen."},
                "data": text("All of it, as JSON: the root itself, and the version and content of each role's file."),
                "more": text("What releases after the first one add to data, as JSON: the keys that each role had then."),
            },
        }},
    });
    let column = |name: &str, kind: &str, path: &str| (name.to_owned(), kind.to_owned(), format!(".spec.{path}"));
    let columns = [
        column("Repository", "string", "gun"),
        column("Server", "string", "server"),
        column("For", "string", "namespace"),
        column("Root", "integer", "rootVersion"),
        column("Timestamp", "integer", "timestampVersion"),
        column("Verified", "date", "verified"),
    ];
    let columns = |path: &str| -> Vec<Value> {
        columns.iter().map(|(name, kind, at)| json!({"name": name, "type": kind, path: at})).collect()
    };
    let names = json!({"kind": "TrustRecord", "listKind": "TrustRecordList", "plural": "trustrecords", "singular": "trustrecord"});
    let metadata = json!({"name": format!("trustrecords.{GROUP}")});
    match platform {
        Platform::Kubernetes => json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": metadata,
            "spec": {
                "group": GROUP, "names": names, "scope": "Namespaced",
                "versions": [{
                    "name": "v1beta1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": schema}, "additionalPrinterColumns": columns("jsonPath"),
                }],
            },
        }),
        Platform::OpenShift311 => json!({
            "apiVersion": "apiextensions.k8s.io/v1beta1", "kind": "CustomResourceDefinition", "metadata": metadata,
            "spec": {
                "group": GROUP, "names": names, "scope": "Namespaced", "version": "v1beta1",
                "validation": {"openAPIV3Schema": schema}, "additionalPrinterColumns": columns("JSONPath"),
            },
        }),
    }
}

/// Everything that the API server must know before Countersign can use it.
#[must_use]
pub(crate) fn all(platform: Platform) -> Vec<Value> {
    let mut definitions = policies(platform);
    definitions.push(records(platform));
    definitions
}

fn definition(kind: &str, scope: &str, platform: Platform) -> Value {
    let singular = kind.to_lowercase();
    let plural = format!("{}ies", singular.trim_end_matches('y'));
    let metadata = json!({"name": format!("{plural}.{GROUP}")});
    let names = json!({"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": singular});
    let columns = |path: &str| {
        let of_condition = |member: &str| format!(".status.conditions[?(@.type==\"Accepted\")].{member}");
        json!([
            {"name": "Accepted", "type": "string", "description": "Whether the policy makes sense and its secrets are there", path: of_condition("status")},
            {"name": "Reason", "type": "string", "description": "Accepted, Invalid or SecretUnusable", path: of_condition("reason")},
            {"name": "Message", "type": "string", "priority": 1, "description": "What is wrong with the policy", path: of_condition("message")},
            {"name": "Age", "type": "date", "description": "When it was made", path: ".metadata.creationTimestamp"},
        ])
    };
    match platform {
        Platform::Kubernetes => json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": metadata,
            "spec": {
                "group": GROUP, "names": names, "scope": scope,
                "versions": [{
                    "name": "v1beta1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": schema(kind)},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns("jsonPath"),
                }],
            },
        }),
        Platform::OpenShift311 => json!({
            "apiVersion": "apiextensions.k8s.io/v1beta1",
            "kind": "CustomResourceDefinition",
            "metadata": metadata,
            "spec": {
                "group": GROUP, "names": names, "scope": scope, "version": "v1beta1",
                "validation": {"openAPIV3Schema": before_nullable(schema(kind))},
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns("JSONPath"),
            },
        }),
    }
}

/// Kubernetes 1.11 knows no `nullable`, so what may be null must have no type there: then the members are only looked at
/// where there is an object. It knows no `x-kubernetes-…` either.
fn before_nullable(mut schema: Value) -> Value {
    if let Some(members) = schema.as_object_mut() {
        if members.remove("nullable").is_some() {
            members.remove("type");
        }
        members.retain(|name, _| !name.starts_with("x-kubernetes-"));
        for (name, value) in members.iter_mut() {
            if name == "properties" {
                for property in value.as_object_mut().into_iter().flat_map(|properties| properties.values_mut()) {
                    *property = before_nullable(property.take());
                }
            } else if name == "items" {
                *value = before_nullable(value.take());
            }
        }
    }
    schema
}

/// The member of a schema that has unknown members kept.
pub(crate) const PRESERVES: &str = "x-kubernetes-preserve-unknown-fields";

/// The schema of a kind of policy, as definitions of `v1` have it.
pub(crate) fn schema(kind: &str) -> Value {
    let about = match kind {
        "ImagePolicy" => {
            "Says which images may run in its namespace. A namespace that has an ImagePolicy is decided by its own ones alone: no ClusterImagePolicy is looked at."
        }
        _ => {
            "Says which images may run in all namespaces that have no ImagePolicy. All ClusterImagePolicies count together."
        }
    };
    json!({
        "type": "object",
        "description": about,
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "description": "Which images are allowed, and on which condition.",
                "x-kubernetes-preserve-unknown-fields": true,
                "required": ["repositories"],
                "properties": {"repositories": {
                    "type": "array",
                    "description": "The entries. The most exact one that matches an image applies to it: one without a wildcard before any with, else the one with the most characters that are no wildcard. An image that no entry matches is denied.",
                    "items": entry_schema(),
                }},
            },
            "status": status(),
        },
    })
}

fn status() -> Value {
    json!({
        "type": "object",
        "description": "What Countersign makes of the policy.",
        "properties": {
            "observedGeneration": {
                "type": "integer", "format": "int64", "description": "The metadata.generation that this is about.",
            },
            "conditions": {
                "type": "array",
                "description": "The one condition is Accepted: whether the policy makes sense and its secrets are there.",
                "items": {
                    "type": "object",
                    "description": "A condition, as Kubernetes has them everywhere.",
                    "required": ["type", "status"],
                    "properties": {
                        "type": {"type": "string", "description": "Accepted."},
                        "status": {"type": "string", "description": "True or False."},
                        "reason": {"type": "string", "description": "Accepted, Invalid or SecretUnusable."},
                        "message": {"type": "string", "description": "What is wrong with the policy, and where."},
                        "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When the status last changed."},
                        "observedGeneration": {"type": "integer", "format": "int64", "description": "The metadata.generation that this is about."},
                    },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use countersign_policy::Pattern;
    use serde::Deserialize as _;

    use super::*;
    use crate::api::PolicySpec;
    use crate::api::cosign::Cosign;
    use crate::api::entry::{Alternative, EntryPolicy, Repository};
    use crate::api::trust::{SecretName, Trust};

    /// The members that a type knows, as it lists them itself.
    fn known<T: serde::de::DeserializeOwned>() -> BTreeSet<String> {
        let error = serde_json::from_value::<T>(json!({"?": 1})).err().map(|error| error.to_string());
        let error = error.expect("unknown members are refused");
        error.split('`').skip(3).step_by(2).map(str::to_owned).collect()
    }

    fn described(schema: &Value) -> BTreeSet<String> {
        let properties = schema["properties"].as_object().expect("an object");
        properties.keys().cloned().collect()
    }

    #[test]
    fn schema_and_types_know_the_same_members() {
        let spec = &schema("ImagePolicy")["properties"]["spec"];
        let entry = &spec["properties"]["repositories"]["items"];
        let policy = &entry["properties"]["policy"];
        let trust = &policy["properties"]["trust"];
        assert_eq!(described(spec), known::<PolicySpec>());
        assert_eq!(described(entry), known::<Repository>());
        assert_eq!(described(policy), known::<EntryPolicy>());
        assert_eq!(described(trust), known::<Trust>());
        let alternative = &policy["properties"]["anyOf"]["items"];
        assert_eq!(described(alternative), known::<Alternative>());
        assert_eq!(&alternative["properties"]["trust"], trust);
        let cosign = &policy["properties"]["cosign"];
        assert_eq!(described(cosign), known::<Cosign>());
        assert_eq!(&alternative["properties"]["cosign"], cosign);
        assert_eq!(described(&trust["properties"]["signerSecrets"]["items"]), known::<SecretName>());
    }

    /// What the API server drops before this program reads it can no longer be refused: `polcy:` would allow everything.
    #[test]
    fn nothing_is_pruned() {
        fn walk(at: &str, schema: &Value) {
            if schema["type"] == "object" {
                assert_eq!(schema["x-kubernetes-preserve-unknown-fields"], true, "{at}");
            }
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let is_required = schema["required"].as_array().is_some_and(|required| required.contains(&json!(name)));
                // Where null is not allowed an API server drops it, and leaves an entry that asks for nothing.
                if !is_required && matches!(property["type"].as_str(), Some("object" | "array")) {
                    assert_eq!(property["nullable"], true, "{at}.{name}");
                }
                walk(&format!("{at}.{name}"), property);
            }
            if schema.get("items").is_some() {
                walk(&format!("{at}[]"), &schema["items"]);
            }
        }
        for kind in ["ImagePolicy", "ClusterImagePolicy"] {
            let schema = schema(kind);
            assert_eq!(schema["x-kubernetes-preserve-unknown-fields"], true);
            walk("spec", &schema["properties"]["spec"]);
        }
        // Definitions of v1beta1 prune only where they say `preserveUnknownFields: false`, which Kubernetes 1.11 does not know.
        for definition in policies(Platform::OpenShift311) {
            assert!(definition["spec"].get("preserveUnknownFields").is_none());
        }
    }

    #[test]
    fn everything_is_described() {
        fn walk(at: &str, schema: &Value) {
            assert!(schema["description"].as_str().is_some_and(|text| text.len() > 8), "{at}");
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                walk(&format!("{at}.{name}"), property);
            }
            if schema.get("items").is_some() {
                walk(&format!("{at}[]"), &schema["items"]);
            }
        }
        walk("ImagePolicy", &schema("ImagePolicy"));
        walk("ClusterImagePolicy", &schema("ClusterImagePolicy"));
    }

    #[test]
    fn names_are_those_that_users_know() {
        for platform in [Platform::Kubernetes, Platform::OpenShift311] {
            let names: Vec<_> = policies(platform).iter().map(|crd| crd["metadata"]["name"].clone()).collect();
            assert_eq!(names, [format!("imagepolicies.{GROUP}"), format!("clusterimagepolicies.{GROUP}")]);
        }
        let old = policies(Platform::OpenShift311);
        let text = serde_json::to_string(&old).unwrap();
        assert!(!text.contains("nullable") && !text.contains("x-kubernetes"), "{text}");
        let entry = &old[0]["spec"]["validation"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["repositories"]
            ["items"];
        assert_eq!(entry["properties"]["policy"].get("type"), None);
    }

    /// What the pattern of the schema refuses must be what can be no entry: it is there to say so early.
    #[test]
    fn the_schema_refuses_no_good_name() {
        let _ = Repository::deserialize(json!({"name": "x"})).unwrap();
        for name in
            ["*", "nginx", "docker.io/*", "mycluster.icp:8500/*", "h.io:5000/a:v1.*", "*.h.io/x", "[::1]:5000/x"]
        {
            assert!(Pattern::parse(name).is_ok(), "{name}");
        }
    }
}
