//! What is deleted when Countersign leaves a cluster, in the order in which nobody is locked out.

use serde_json::{Value, json};

use super::{AUTHORITY, Install, InstallError, TLS_SECRET, Tls};

impl Install {
    /// What `kubectl delete -f -` is to delete, in that order, each object by its name alone: the reverse of [`Self::objects`].
    /// So the webhook configurations go first, the validating one before the other: while it is asked, somebody must pin.
    ///
    /// Policies, records and the definitions of both stay, and so does the namespace with its signer secrets, unless `purge`.
    ///
    /// # Errors
    /// As [`Self::objects`].
    pub(crate) fn uninstall(&self, purge: bool) -> Result<Vec<Value>, InstallError> {
        let (mut gone, mut kept) = (Vec::new(), Vec::new());
        for object in self.objects()?.iter().rev() {
            match object["kind"].as_str() {
                // It goes with its definition; by itself kubectl would not know its kind a second time.
                Some("ClusterImagePolicy") => {}
                Some("CustomResourceDefinition" | "Namespace") => kept.push(named(object)),
                _ => gone.push(named(object)),
            }
        }
        let made: &[&str] = match self.tls {
            Tls::SelfManaged => &[TLS_SECRET],
            Tls::CertManager => &[TLS_SECRET, AUTHORITY],
            Tls::Secret { .. } => &[],
        };
        for name in made {
            // Whoever made it has no right to make it again by now.
            let mut secret = self.object("v1", "Secret", json!({}));
            secret["metadata"]["name"] = json!(name);
            gone.push(named(&secret));
        }
        if purge {
            gone.append(&mut kept);
        }
        Ok(gone)
    }
}

/// An object without anything that `kubectl delete` does not need.
fn named(object: &Value) -> Value {
    let mut metadata = json!({"name": object["metadata"]["name"]});
    if let Some(namespace) = object["metadata"].get("namespace") {
        metadata["namespace"] = namespace.clone();
    }
    json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::Platform;

    fn kinds(install: &Install, purge: bool) -> Vec<String> {
        let objects = install.uninstall(purge).unwrap();
        objects.iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn webhooks_go_first_and_the_namespace_last() {
        for platform in [Platform::Kubernetes, Platform::OpenShift311] {
            for tls in [Tls::SelfManaged, Tls::CertManager] {
                let install = Install { platform, tls, default_policy: json!([{"name": "*"}]), ..Install::default() };
                let kinds_kept = kinds(&install, false);
                assert_eq!(kinds_kept[..2], ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"]);
                let purged = kinds(&install, true);
                assert_eq!(purged[..kinds_kept.len()], kinds_kept);
                let last = ["CustomResourceDefinition"; 3].into_iter().chain(["Namespace"]).collect::<Vec<_>>();
                assert_eq!(purged[kinds_kept.len()..], last);
                // The Secret with the serving certificate goes last, when no replica has the right any more to make another one.
                let (role, secret) = (position(&purged, "RoleBinding"), position(&purged, "Secret"));
                assert!(position(&purged, "Deployment") < role && role < secret, "{purged:?}");
            }
        }
    }

    fn position(kinds: &[String], kind: &str) -> Option<usize> {
        let found = kinds.iter().position(|found| found == kind);
        assert!(found.is_some(), "no {kind} in {kinds:?}");
        found
    }

    #[test]
    fn a_certificate_of_somebody_else_stays() {
        let install =
            Install { tls: Tls::Secret { name: "mine".into(), ca_bundle: b"x".to_vec() }, ..Install::default() };
        let objects = install.uninstall(false).unwrap();
        assert!(objects.iter().all(|object| object["kind"] != "Secret"), "{objects:?}");
        // Names and nothing else: what is deleted does not depend on how it was set up.
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let metadata = json!({"name": "countersign", "namespace": "countersign"});
        assert_eq!(*deployment, json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata}));
    }
}
