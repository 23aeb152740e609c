//! What is printed for an old release has only fields that it knows: its `kubectl` refuses others, and its API server drops them.

use std::fs;
use std::path::Path;

use countersign_tests::{Countersign, Problem};
use serde_json::{Value, json};

/// The API group whose definitions are printed beside its objects, so every release knows their fields.
const OWN_GROUP: &str = "securityenforcement.admission.cloud.ibm.com/";

/// The fields that a release knows, from `tests/chart/fields`.
struct Known(Value);

impl Known {
    fn of(release: &str) -> Result<Self, Problem> {
        let name = format!("chart/fields/kubernetes-{release}.json");
        Ok(Self(serde_json::from_str(&fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))?)?))
    }

    /// The fields of an object that are not known, by their path.
    fn unknown(&self, object: &Value) -> Vec<String> {
        let kind =
            [&object["apiVersion"], &object["kind"]].map(|part| part.as_str().unwrap_or_default().to_owned()).join(" ");
        let mut found = Vec::new();
        match self.0["kinds"][&kind].as_str() {
            Some(definition) => self.walk(&kind, object, definition, &mut found),
            None => found.push(kind),
        }
        found
    }

    fn walk(&self, path: &str, value: &Value, definition: &str, found: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.walk(path, item, definition, found)),
            Value::Object(members) => {
                for (name, below) in members {
                    let path = format!("{path}.{name}");
                    match self.0["definitions"][definition].get(name) {
                        None => found.push(format!("{path} ({definition})")),
                        Some(Value::String(definition)) => self.walk(&path, below, definition, found),
                        Some(Value::Object(map)) => {
                            let definition = map["each"].as_str().unwrap_or_default();
                            for (name, below) in below.as_object().into_iter().flatten() {
                                self.walk(&format!("{path}.{name}"), below, definition, found);
                            }
                        }
                        Some(_) => {}
                    }
                }
            }
            _ => {}
        }
    }
}

fn printed(flags: &[&str]) -> Result<Vec<Value>, Problem> {
    let printed = Countersign::run(&[&["manifests"], flags].concat())?;
    assert_eq!(printed.code, 0, "{flags:?}: {}", printed.stderr);
    let documents = printed.stdout.split("---\n").map(|document| Ok(serde_saphyr::from_str(document)?));
    documents.collect()
}

#[test]
fn old_releases_know_all_that_is_printed_for_them() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<String, Problem> {
        let path = folder.path().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let ca = file("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")?;
    let repositories = file("repositories.yaml", "- name: \"docker.io/*\"\n")?;
    let settings = file("config.yaml", "pin: digest\n")?;
    // All that is written by what they say. What is put in as it is given is for whoever gives it to know.
    let values = json!({
        "image": {"pullPolicy": "Always"}, "runAsUser": 7,
        "namespaceSelector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]},
        "metrics": {"service": {"enabled": true, "annotations": {"a": "b"}}},
        "nodeSelector": {"a": "b"},
        "extraEnv": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "extraVolumes": [{"name": "x", "secret": {"secretName": "x"}}],
        "extraVolumeMounts": [{"name": "x", "mountPath": "/x", "readOnly": true}],
    });
    let values = file("values.yaml", &values.to_string())?;
    let more = [
        "--tls",
        "secret",
        "--ca-bundle",
        &ca,
        "--default-policy",
        &repositories,
        "--config",
        &settings,
        "--reviews-from",
        "10.0.0.0/8",
        "--operations-from",
        "x",
        "--mode",
        "warn",
        "--values",
        &values,
    ];
    let forms = [
        ("1.11", ["--for", "openshift-3.11"], "/spec/validation/openAPIV3Schema/properties/spec"),
        ("1.16", ["--kube-version", "1.16"], "/spec/versions/0/schema/openAPIV3Schema/properties/spec"),
    ];
    for (release, form, schema) in forms {
        let known = Known::of(release)?;
        for flags in [form.to_vec(), [&form[..], &more].concat()] {
            let objects = printed(&flags)?;
            assert!(objects.len() > 10, "{flags:?}");
            for object in objects {
                let own = object["apiVersion"].as_str().is_some_and(|version| version.starts_with(OWN_GROUP));
                assert!(own || known.unknown(&object).is_empty(), "{flags:?}: {:?}", known.unknown(&object));
            }
        }
        // It would be noticed: at the top, in a list, and in a map.
        for (kind, at, field) in [
            ("ConfigMap", "", "immutable"),
            ("Deployment", "/spec/template/spec/containers/0/securityContext", "seccompProfile"),
            ("CustomResourceDefinition", schema, "x-kubernetes-validations"),
        ] {
            let objects = printed(&form)?;
            let mut object = objects.into_iter().find(|object| object["kind"] == kind).ok_or(kind)?;
            object.pointer_mut(at).ok_or(at)?[field] = Value::Null;
            let unknown = known.unknown(&object);
            assert!(unknown.len() == 1 && unknown[0].contains(field), "{release} {kind} {at}: {unknown:?}");
        }
    }
    Ok(())
}
