//! What keeps enough pods of the installation running.

use serde_json::{Value, json};

use super::Install;

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

    pub(super) fn disruption_budget(&self) -> Value {
        let version = if self.since(21) { "policy/v1" } else { "policy/v1beta1" };
        let spec = json!({"minAvailable": 1, "selector": {"matchLabels": Self::labels()}});
        self.object(version, "PodDisruptionBudget", json!({"spec": spec}))
    }
}
