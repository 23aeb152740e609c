//! What keeps enough pods of the installation running.

use serde_json::{Value, json};

use super::Install;
use crate::crd::Platform;

/// The class of pods that others make room for, and that are started first.
const PRIORITY_CLASS: &str = "system-cluster-critical";

/// How many pods of that class the quota permits: more than any installation has. It is there to permit them, not to limit
/// them.
const QUOTA_PODS: u32 = 1000;

impl Install {
    /// Before Kubernetes 1.17 pods outside `kube-system` may not be of this class.
    pub(super) fn priority_class(&self) -> Option<&'static str> {
        self.since(17).then_some(PRIORITY_CLASS)
    }

    /// Some providers let pods be of that class only in namespaces whose quota permits it.
    pub(super) fn quota(&self) -> Option<Value> {
        let class = self.priority_class()?;
        let spec = json!({
            "hard": {"pods": QUOTA_PODS.to_string()},
            "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": [class]}]},
        });
        Some(self.object("v1", "ResourceQuota", json!({"spec": spec})))
    }

    /// How many pods a drain may take at once. It must never wait for ever: with `minAvailable`, one pod alone could not be moved,
    /// and pods that are not ready count against it.
    pub(super) fn disruption_budget(&self) -> Option<Value> {
        let mut spec = json!({"selector": {"matchLabels": Self::selector()}});
        match self.platform {
            Platform::Kubernetes => spec["maxUnavailable"] = json!(1),
            // Before 1.15 a budget cannot be changed: an installation keeps the form that it has.
            Platform::OpenShift311 if self.replicas > 1 => spec["minAvailable"] = json!(1),
            Platform::OpenShift311 => return None,
        }
        if self.since(27) {
            spec["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
        }
        let version = if self.since(21) { "policy/v1" } else { "policy/v1beta1" };
        Some(self.object(version, "PodDisruptionBudget", json!({"spec": spec})))
    }
}
