//! Reviews of writes of policies: a misspelt field is refused when somebody writes it.
//!
//! The API server drops nothing of a policy, so kubectl no longer finds a misspelt field by itself. This says so at once, in the
//! words of `countersign lint`. A policy that gets in all the same, since this webhook never stops anybody by being away, denies by itself.

use serde_json::Value;

use crate::api;

/// Reviews a policy that is created or changed: `old` is what it was. Gives what is read but not enforced, as warnings.
///
/// A change of metadata alone is none of its business: somebody must be able to take a finalizer off a faulty policy.
///
/// # Errors
/// The message of the denial: every fault, a line each.
pub(crate) fn review_write(object: &Value, old: Option<&Value>) -> Result<Vec<String>, String> {
    let meant = |object: &Value| {
        let mut members = object.as_object().cloned().unwrap_or_default();
        members.retain(|member, _| !matches!(member.as_str(), "metadata" | "status"));
        members
    };
    let is_going = object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
    if is_going || old.is_some_and(|old| meant(old) == meant(object)) {
        return Ok(Vec::new());
    }
    match api::check(object) {
        Ok(converted) => Ok(api::told(&converted.warnings)),
        Err(faults) => Err(api::told(&faults).join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(spec: &Value) -> Value {
        json!({"apiVersion": api::API_VERSION, "kind": "ImagePolicy", "metadata": {"name": "p", "namespace": "n"}, "spec": spec})
    }

    #[test]
    fn faults_are_refused_with_their_place() {
        let good = policy(&json!({"repositories": [{"name": "h.io/*", "policy": {"va": {}}}]}));
        let warnings = review_write(&good, None).unwrap();
        assert!(warnings[0].contains("spec.repositories[0].policy.va"), "{warnings:?}");
        for (spec, expected) in [
            (
                json!({"repositories": [{"name": "h.io/*", "polcy": {}}]}),
                "ImagePolicy n/p: spec.repositories[0]: unknown field `polcy`",
            ),
            (json!({"repositories": [{"name": "h.io/*", "policy": {"trsut": {}}}]}), "unknown field `trsut`"),
            (json!({"repositories": []}), "spec.repositories: is empty"),
            (json!({"repositories": [{"name": "h.io/*"}], "repos": 1}), "spec.repos: is not known"),
        ] {
            let message = review_write(&policy(&spec), None).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        let mut at_root = good;
        at_root["sepc"] = json!({});
        assert!(review_write(&at_root, None).unwrap_err().contains("ImagePolicy n/p: sepc: is not known"));
    }

    #[test]
    fn a_faulty_policy_can_still_be_labelled_and_deleted() {
        let faulty = policy(&json!({"repositories": [{"name": "h.io/*", "polcy": {}}]}));
        let mut labelled = faulty.clone();
        labelled["metadata"]["labels"] = json!({"a": "b"});
        assert_eq!(review_write(&labelled, Some(&faulty)), Ok(Vec::new()));
        let mut changed = labelled.clone();
        changed["spec"]["repositories"][0]["name"] = json!("other.io/*");
        assert!(review_write(&changed, Some(&faulty)).is_err());
        changed["metadata"]["deletionTimestamp"] = json!("2026-11-27T00:00:00Z");
        assert_eq!(review_write(&changed, Some(&faulty)), Ok(Vec::new()));
    }
}
