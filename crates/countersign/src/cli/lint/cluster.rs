//! The policies of a cluster, and the secrets that policies name.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use countersign_policy::{Policy, ProofPolicy, SecretRef};

use super::super::judging::{self, Unreachable};
use super::{Finding, Severity, Style, lint, no_policies};
use crate::api;
use crate::cluster::Cluster;
use crate::source::cluster::list_policies;
use crate::source::files::Loaded;
use crate::source::{Moment, SecretData};

/// What was found of each secret that policies name, or why it cannot be read.
pub(super) struct Secrets(HashMap<SecretRef, Result<Arc<SecretData>, String>>);

impl Secrets {
    /// Those of files.
    pub(super) fn of_files(loaded: &Loaded) -> Self {
        Self(loaded.secrets().map(|(secret, data)| (secret.clone(), Ok(Arc::clone(data)))).collect())
    }

    /// Those that policies of a cluster name.
    async fn of_cluster(moment: &dyn Moment, policies: &[&Policy], own_namespace: &str) -> Self {
        let mut wanted = BTreeSet::new();
        for policy in policies {
            let namespace = policy.kind.namespace().unwrap_or(own_namespace);
            for proof in policy.entries.iter().flat_map(|entry| entry.check.proofs()) {
                let names: Vec<&String> = match proof {
                    ProofPolicy::Trust(trust) => trust.signer_secrets.iter().chain(&trust.root_secrets).collect(),
                    ProofPolicy::Cosign(cosign) => cosign.signer_secrets.iter().collect(),
                };
                wanted.extend(names.into_iter().map(|name| (namespace.to_owned(), name.clone())));
            }
        }
        let mut found = HashMap::new();
        for (namespace, name) in wanted {
            let secret = SecretRef { namespace, name };
            match moment.secret(&secret).await {
                Ok(Some(data)) => found.insert(secret, Ok(data)),
                Ok(None) => None,
                Err(error) => found.insert(secret, Err(error.to_string())),
            };
        }
        Self(found)
    }

    /// A secret; `None` if there is none of that name.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn of(&self, secret: &SecretRef) -> Result<Option<&SecretData>, String> {
        self.0.get(secret).map(Result::as_deref).transpose().map_err(Clone::clone)
    }
}

/// The faults of the policies of a cluster.
pub(super) async fn findings(kubeconfig: Option<&Path>, style: &Style<'_>) -> anyhow::Result<Vec<Finding>> {
    let cluster = Cluster::connect(kubeconfig).await?;
    let (mut findings, mut policies) = (Vec::new(), Vec::new());
    for (kind, object) in list_policies(&cluster.client).await.map_err(Unreachable)? {
        let mut document = serde_json::to_value(&object)?;
        // Lists leave out what their items are.
        document["kind"] = kind.kind().into();
        document["apiVersion"] = format!("{}/v1beta1", api::GROUP).into();
        match api::check(&document) {
            Ok(checked) => {
                findings.extend(checked.warnings.iter().map(|fault| finding(Severity::Warning, fault)));
                policies.push(checked.policy);
            }
            Err(faults) => findings.extend(faults.iter().map(|fault| finding(Severity::Error, fault))),
        }
    }
    if policies.is_empty() && findings.is_empty() {
        findings.push(no_policies("the cluster"));
    }
    let policies: Vec<&Policy> = policies.iter().collect();
    let source = judging::listed(&cluster, style.own_namespace).await?;
    let secrets = Secrets::of_cluster(source.now()?.as_ref(), &policies, style.own_namespace).await;
    findings.extend(lint(&policies, &secrets, style));
    Ok(findings)
}

fn finding(severity: Severity, fault: &api::PolicyFault) -> Finding {
    Finding { severity, place: fault.policy.clone(), problem: format!("{} {}", fault.place, fault.problem) }
}
