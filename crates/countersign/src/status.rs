//! Says in each policy of a cluster whether it makes sense, and what is wrong with it if not.
//!
//! Every replica does so, and writes only what is not there yet; whoever comes second finds nothing to write.

use std::sync::Arc;
use std::time::Duration;

use countersign_policy::{Policy, PolicyKind, ProofPolicy, Refusal, SecretRef, SecretUse};
use jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tracing::{debug, warn};

use crate::prove::check_secret;
use crate::source::cluster::{ClusterSource, StoredPolicy, policies};
use crate::source::definitions::CURE;
use crate::{api, cluster};

/// How often the secrets of other namespaces are looked at when nothing was told.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// How long changes are left to come to rest.
const SETTLE: Duration = Duration::from_millis(100);

/// What an accepted policy says. Not empty: an API server that was built with a newer Go than it was written for takes an
/// empty text in a list for null, and refuses it (seen with Debian's Kubernetes 1.20.2).
const IN_FORCE: &str = "the policy is in force";

/// The condition's type.
const ACCEPTED: &str = "Accepted";

/// Keeps the status of all policies true, for ever. `own_namespace` is where the secrets of cluster policies are; `None` if
/// they are in the workload's namespace, so that nobody can tell whether they are there.
pub(crate) async fn keep(source: Arc<ClusterSource>, own_namespace: Option<String>, clock: countersign_remote::Clock) {
    loop {
        let _ = tokio::time::timeout(LOOK_AGAIN, source.changed()).await;
        tokio::time::sleep(SETTLE).await;
        for stored in source.stored() {
            let (reason, mut message) = judge(&source, &stored, own_namespace.as_deref()).await;
            if source.prunes(&stored.policy.kind) {
                message.push_str(
                    "; the definition of this kind drops fields that it does not know before they are read: ",
                );
                message.push_str(CURE);
            }
            if let Some(status) = status(&stored, reason, &message, clock()) {
                write(&source, &stored, status).await;
            }
        }
    }
}

async fn judge(source: &ClusterSource, stored: &StoredPolicy, own_namespace: Option<&str>) -> (&'static str, String) {
    if !stored.problems.is_empty() {
        return ("Invalid", api::in_one_line(&stored.problems));
    }
    let namespace = match &stored.policy.kind {
        PolicyKind::Image { namespace } => Some(namespace.as_str()),
        PolicyKind::Cluster => own_namespace,
    };
    let Some(namespace) = namespace else {
        return (ACCEPTED, IN_FORCE.to_owned());
    };
    let mut problems = Vec::new();
    for (name, purpose) in secret_names(&stored.policy) {
        let secret = SecretRef { namespace: namespace.to_owned(), name: name.to_owned() };
        let problem = match source.read_secret(&secret).await {
            // Nothing is known of it now; what was said before stays until something is.
            Err(_) => continue,
            Ok(data) => check_secret(&secret, purpose, data.as_deref()).err(),
        };
        if let Some(problem) = problem {
            problems.push(format!("secret {name} in namespace {namespace}: {}", short(&problem)));
        }
    }
    if problems.is_empty() {
        (ACCEPTED, IN_FORCE.to_owned())
    } else {
        ("SecretUnusable", api::told(&problems).join("; "))
    }
}

fn short(refusal: &Refusal) -> String {
    match refusal {
        Refusal::SignerSecret { problem, .. } => problem.to_string(),
        Refusal::SignerKey { problem, .. } => problem.to_string(),
        other => other.to_string(),
    }
}

/// The secrets of a policy, and what each is for.
fn secret_names(policy: &Policy) -> std::collections::BTreeSet<(&str, SecretUse)> {
    policy.entries.iter().flat_map(|entry| entry.check.proofs()).flat_map(ProofPolicy::secrets).collect()
}

/// The status to write; nothing if it is there already.
fn status(stored: &StoredPolicy, reason: &str, message: &str, now: Timestamp) -> Option<Value> {
    let accepted = if reason == ACCEPTED { "True" } else { "False" };
    let before = &stored.status["conditions"][0];
    let same = before["status"] == accepted && before["reason"] == reason && before["message"] == message;
    if same && stored.status["observedGeneration"] == stored.generation {
        return None;
    }
    let since = before["lastTransitionTime"].as_str().filter(|_| before["status"] == accepted);
    let now = cluster::time(now);
    Some(json!({
        "observedGeneration": stored.generation,
        "conditions": [{
            "type": ACCEPTED, "status": accepted, "reason": reason, "message": message,
            "lastTransitionTime": since.unwrap_or(&now), "observedGeneration": stored.generation,
        }],
    }))
}

async fn write(source: &ClusterSource, stored: &StoredPolicy, status: Value) {
    let policy = &stored.policy;
    let kind = policy.kind.kind();
    let resource = policies(&policy.kind);
    let api: Api<DynamicObject> = match policy.kind.namespace() {
        Some(namespace) => Api::namespaced_with(source.client().clone(), namespace, &resource),
        None => Api::all_with(source.client().clone(), &resource),
    };
    // With the version that was read: whoever changed it since brings a new event, and another look.
    let patch = json!({"metadata": {"resourceVersion": stored.resource_version}, "status": status});
    let (patch, params) = (Patch::Merge(patch), PatchParams::default());
    let patched = api.patch_status(&policy.name, &params, &patch);
    match cluster::in_time(patched).await {
        Ok(_) => debug!(kind, name = policy.name, "wrote the status"),
        Err((Some(404 | 409), _)) => {}
        Err((_, cause)) => warn!(kind, name = policy.name, %cause, "cannot write the status"),
    }
}
