//! Says in each policy of a cluster whether it makes sense, and what is wrong with it if not.
//!
//! Every replica does so, and writes only what is not there yet; whoever comes second finds nothing to write.

use std::collections::HashMap;
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

/// How many secrets of one namespace are looked at each time: whoever may write policies there may name any number, and each is a request
/// to the API server.
const MAX_SECRETS: usize = 64;

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
        let mut all = source.stored();
        // Those that nobody has to be asked for do not wait for the others.
        all.sort_by_cached_key(|stored| secret_names(&stored.policy).len());
        let mut left = HashMap::new();
        for stored in all {
            let left = left.entry(stored.policy.kind.namespace().map(str::to_owned)).or_insert(MAX_SECRETS);
            let (reason, mut message) = judge(&source, &stored, own_namespace.as_deref(), left).await;
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

/// What a policy comes to. So many more secrets of the namespace are looked at as are `left`; those of policies of the cluster all are, as only
/// operators name them.
async fn judge(
    source: &ClusterSource,
    stored: &StoredPolicy,
    own_namespace: Option<&str>,
    left: &mut usize,
) -> (&'static str, String) {
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
    let (mut problems, mut not_looked_at) = (Vec::new(), 0);
    for (name, purpose) in secret_names(&stored.policy) {
        if stored.policy.kind != PolicyKind::Cluster {
            if *left == 0 {
                not_looked_at += 1;
                continue;
            }
            *left -= 1;
        }
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
    if problems.is_empty() && not_looked_at > 0 {
        let message = format!(
            "{IN_FORCE}; {not_looked_at} of its secrets were not looked at, as policies of namespace {namespace} name more than {MAX_SECRETS}"
        );
        (ACCEPTED, message)
    } else if problems.is_empty() {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::metrics::SharedMetrics;

    /// Whoever names thousands of secrets has no thousands of requests made, and what is not looked at is said.
    #[tokio::test(start_paused = true)]
    async fn a_namespace_has_so_many_secrets_looked_at() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let client = cluster::scripted(move |_, uri| {
            counted.fetch_add(usize::from(uri.contains("/namespaces/n/secrets/")), Ordering::SeqCst);
            Some((
                404,
                json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "message": "", "code": 404}),
            ))
        });
        let source = ClusterSource::start(client, "countersign", SharedMetrics::default());
        let secrets: Vec<_> = (0..60).map(|index| json!({"name": format!("s{index}")})).collect();
        let entry = json!({"name": "h.io/*", "policy": {"trust": {"enabled": true, "signerSecrets": secrets}}});
        let object = json!({"spec": {"repositories": [entry]}});
        let kind = PolicyKind::Image { namespace: "n".into() };
        let read = api::read_stored(kind, "p", &object);
        let stored = StoredPolicy {
            policy: Arc::new(read.policy),
            problems: read.problems,
            generation: 1,
            resource_version: "1".into(),
            status: Value::Null,
        };
        assert!(stored.problems.is_empty());
        let mut left = MAX_SECRETS;
        let first = judge(&source, &stored, None, &mut left).await;
        assert_eq!((first.0, left, asked.load(Ordering::SeqCst)), ("SecretUnusable", MAX_SECRETS - 60, 60));
        left = 0;
        let later = judge(&source, &stored, None, &mut left).await;
        assert!(later.0 == ACCEPTED && later.1.contains("60 of its secrets were not looked at"), "{later:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 60);
    }
}
