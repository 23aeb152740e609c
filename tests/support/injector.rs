//! A webhook of somebody else that changes pods: it adds a container, or writes another image, as annotations of the pod say.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::Problem;
use crate::https::{self, Response};
use crate::process::Ca;

/// The annotation that names the image of a container to add.
pub const ADD: &str = "injector.example.com/add";

/// The annotation that names the image to put into the first container.
pub const SWAP: &str = "injector.example.com/swap";

/// The annotation that names the uid to put into the first owner reference.
pub const OWNER_UID: &str = "injector.example.com/owner-uid";

/// A running injector. It ends with the test process.
#[derive(Debug)]
pub struct Injector {
    /// Where it listens.
    pub url: String,
    /// The authority of its certificate, in base64, as a webhook configuration has it.
    pub ca_bundle: String,
}

impl Injector {
    /// Starts it, with the certificate of the test.
    ///
    /// # Errors
    /// Certificates that cannot be read, or no free port.
    pub fn start(ca: &Ca) -> Result<Self, Problem> {
        let address = https::serve(ca, |request| answer(&request.body))?;
        Ok(Self { url: format!("https://{address}/inject"), ca_bundle: STANDARD.encode(fs::read(&ca.ca)?) })
    }

    /// The configuration that sends it every new pod of a namespace, after Countersign: configurations are asked in the order of
    /// their names.
    #[must_use]
    pub fn configuration(&self, api_version: &str, namespace_label: (&str, &str)) -> Value {
        json!({
            "apiVersion": api_version, "kind": "MutatingWebhookConfiguration", "metadata": {"name": "zz-injector"},
            "webhooks": [{
                "name": "injector.example.com",
                "clientConfig": {"url": self.url, "caBundle": self.ca_bundle},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {namespace_label.0: namespace_label.1}},
                "admissionReviewVersions": ["v1", "v1beta1"], "sideEffects": "None", "failurePolicy": "Fail",
            }],
        })
    }
}

fn answer(body: &[u8]) -> Result<Response, Problem> {
    let review: Value = serde_json::from_slice(body)?;
    let annotations = &review["request"]["object"]["metadata"]["annotations"];
    let mut patch = Vec::new();
    if let Some(image) = annotations[ADD].as_str() {
        let container = json!({"name": "injected", "image": image});
        patch.push(json!({"op": "add", "path": "/spec/containers/-", "value": container}));
    }
    if let Some(image) = annotations[SWAP].as_str() {
        patch.push(json!({"op": "replace", "path": "/spec/containers/0/image", "value": image}));
    }
    if let Some(uid) = annotations[OWNER_UID].as_str() {
        patch.push(json!({"op": "replace", "path": "/metadata/ownerReferences/0/uid", "value": uid}));
    }
    let response = json!({
        "apiVersion": review["apiVersion"], "kind": "AdmissionReview",
        "response": {
            "uid": review["request"]["uid"], "allowed": true,
            "patchType": "JSONPatch", "patch": STANDARD.encode(json!(patch).to_string()),
        },
    })
    .to_string();
    Ok(("200 OK", response.into_bytes()))
}
