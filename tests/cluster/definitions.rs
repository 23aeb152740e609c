//! Policies with members that nobody knows: nothing of them is dropped before they are read, and they are refused, or deny.

use countersign_tests::{Problem, wait_for};
use serde_json::{Value, json};

use crate::world::{World, pod};

const API: &str = "/apis/securityenforcement.admission.cloud.ibm.com/v1beta1";
const NAMESPACE: &str = "misspelt";

/// Policies with a member that is not known, at every level, and the member.
fn misspelt() -> Vec<(Value, &'static str)> {
    let of = |spec: Value| {
        json!({
            "apiVersion": "securityenforcement.admission.cloud.ibm.com/v1beta1", "kind": "ImagePolicy",
            "metadata": {"name": "p", "namespace": NAMESPACE}, "spec": spec,
        })
    };
    let entry = |more: Value| {
        let mut entry = more;
        entry["name"] = json!("open.example.com/*");
        of(json!({"repositories": [entry]}))
    };
    let mut at_root = entry(json!({}));
    at_root["sepc"] = json!({"repositories": []});
    let mut in_spec = entry(json!({}));
    in_spec["spec"]["repos"] = json!([]);
    vec![
        (at_root, "sepc"),
        (in_spec, "repos"),
        (entry(json!({"polcy": {"trust": {"enabled": true}}})), "polcy"),
        (entry(json!({"policy": {"trsut": {"enabled": true}}})), "trsut"),
        (entry(json!({"policy": {"trust": {"enabled": false, "signersecrets": [{"name": "a"}]}}})), "signersecrets"),
        (entry(json!({"policy": {"trust": {"enabled": false, "signerSecrets": [{"name": "a", "ky": "b"}]}}})), "ky"),
    ]
}

/// Posts it as it is: kubectl's own check of fields would find the fault.
fn post(world: &World, policy: &Value) -> Result<Result<(), String>, Problem> {
    let path = format!("{API}/namespaces/{NAMESPACE}/imagepolicies");
    let done = world.plane.user("admin").send_raw("create", &path, &policy.to_string())?;
    Ok(if done.code == 0 { Ok(()) } else { Err(done.stderr) })
}

/// The webhook for policies refuses them in the words of `lint`.
pub(crate) fn refused(world: &mut World) -> Result<(), Problem> {
    world.namespace(NAMESPACE)?;
    for (policy, member) in misspelt() {
        let message = post(world, &policy)?.expect_err(member);
        assert!(
            message.contains("policies.hooks.securityenforcement.admission.cloud.ibm.com")
                && message.contains(&format!("ImagePolicy {NAMESPACE}/p: "))
                && message.contains(member),
            "{message}"
        );
    }
    Ok(())
}

/// Does something while nobody reviews policies, as if that webhook could not be reached.
pub(crate) fn unreviewed(
    world: &mut World,
    act: impl FnOnce(&mut World) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let configuration = ["validatingwebhookconfiguration", "countersign"];
    let patch = |world: &World, patch: Value| -> Result<(), Problem> {
        let patch = patch.to_string();
        let arguments = [&["patch"], &configuration[..], &["--type", "json", "-p", &patch]].concat();
        world.plane.kubectl("admin", &arguments).map(drop)
    };
    let entry = world.plane.get(&configuration)?["webhooks"][1].clone();
    patch(world, json!([{"op": "remove", "path": "/webhooks/1"}]))?;
    let done = act(world);
    patch(world, json!([{"op": "add", "path": "/webhooks/1", "value": entry}]))?;
    done
}

/// What is stored all the same has lost nothing, says so in its status, and denies.
pub(crate) fn stored(world: &mut World) -> Result<(), Problem> {
    unreviewed(world, |world| {
        for (policy, member) in misspelt() {
            wait_for("the policy to be stored", || post(world, &policy).is_ok_and(|done| done.is_ok()))?;
            let mut last = Value::Null;
            wait_for("its status", || {
                last = world.plane.get(&["imagepolicy", "p", "-n", NAMESPACE]).unwrap_or_default();
                let condition = &last["status"]["conditions"][0];
                condition["status"] == "False"
                    && condition["message"].as_str().is_some_and(|text| text.contains(member))
            })
            .map_err(|problem| format!("{problem}: {member}: {last}"))?;
            assert!(last.to_string().contains(&format!("\"{member}\":")), "{member} was dropped: {last}");
            let denied = world.create(&pod(NAMESPACE, "attack", "open.example.com/evil:1"))?;
            let message = denied.expect_err(member);
            assert!(message.contains("cannot be used") && message.contains(member), "{message}");
            world.plane.kubectl("admin", &["delete", "imagepolicy", "p", "-n", NAMESPACE])?;
        }
        Ok(())
    })
}
