//! How enforcement begins: audit, then warn, then enforce, on a namespace with mixed workloads; and breaking the glass.

use std::process::Command;

use countersign_tests::{Problem, run, wait_for};
use serde_json::{Value, json};

use crate::world::{DENIED, World, pod, workload};

const LABEL: &str = "securityenforcement.admission.cloud.ibm.com/mode";
const LENIENT: &str = "lenient.hooks.securityenforcement.admission.cloud.ibm.com";
const MUTATING: &str = "mutatingwebhookconfiguration";
const VALIDATING: &str = "validatingwebhookconfiguration";
const BREAK_GLASS: &str = "securityenforcement.admission.cloud.ibm.com/break-glass";

/// What `jq` makes of the decisions in the logs of all replicas, one line each.
fn jq(world: &World, filter: &str) -> Result<Vec<String>, Problem> {
    let all: Vec<_> = world.replicas.iter().map(|replica| replica.part.log_text()).collect();
    let file = world.folder.path().join("decisions.log");
    std::fs::write(&file, all.join("\n"))?;
    // Whatever a process writes before it reads its settings is no JSON.
    let filter = format!("fromjson? | select(.message == \"review\") | {filter}");
    let done = run(Command::new("jq").args(["-R", "-r", &filter]).arg(&file))?;
    assert_eq!(done.code, 0, "{done:?}");
    Ok(done.stdout.lines().map(str::to_owned).collect())
}

/// The Events of a namespace with this reason, as `KIND/NAME: MESSAGE`.
fn events(world: &World, namespace: &str, reason: &str) -> Vec<String> {
    let Ok(found) = world.plane.get(&["events", "-n", namespace]) else { return Vec::new() };
    let text =
        |event: &Value, pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let events = found["items"].as_array().into_iter().flatten().filter(|event| event["reason"] == reason);
    let told = |event: &Value| {
        format!(
            "{}/{}: {}",
            text(event, "/involvedObject/kind"),
            text(event, "/involvedObject/name"),
            text(event, "/message")
        )
    };
    events.map(told).collect()
}

/// The sum of all series of a metric that have these labels, over all replicas.
fn metric(world: &World, name: &str, labels: &[&str]) -> Result<f64, Problem> {
    let mut sum = 0.0;
    for replica in &world.replicas {
        let (_, text) = replica.get("/metrics")?;
        for line in
            text.lines().filter(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")))
        {
            if labels.iter().all(|label| line.contains(label)) {
                sum += line.rsplit_once(' ').map_or(Ok(0.0), |(_, value)| value.parse::<f64>())?;
            }
        }
    }
    Ok(sum)
}

/// Creates an object as a user, and gives what kubectl wrote: the warnings, or the denial.
fn create(world: &World, user: &str, object: &Value) -> Result<(bool, String), Problem> {
    let done = world.plane.send(user, "create", &object.to_string())?;
    Ok((done.code == 0, done.stderr))
}

/// Applies what depends on the mode: the rights, and the webhooks.
fn apply_mode(world: &World, arguments: &[&str]) -> Result<(), Problem> {
    for object in world.installation_here(arguments)? {
        if object["kind"] == "ClusterRole" || object["webhooks"].is_array() {
            world.plane.apply(&object.to_string())?;
        }
    }
    Ok(())
}

pub(crate) fn from_audit_to_enforce(world: &mut World) -> Result<(), Problem> {
    // A server that does not enforce reads the labels of namespaces, and has webhooks of its own for those that do not enforce.
    apply_mode(world, &["--mode", "audit"])?;
    wait_for("rules of the lenient webhooks", || {
        [MUTATING, VALIDATING].iter().all(|kind| {
            let found = world.plane.get(&[kind, "countersign"]).unwrap_or_default();
            let mut entries = found["webhooks"].as_array().into_iter().flatten();
            entries.any(|entry| entry["name"] == LENIENT && entry["rules"].is_array())
        })
    })?;
    for (namespace, label) in [("rollout", None), ("strict", Some("enforce")), ("rollout-misspelt", Some("enforec"))] {
        world.namespace(namespace)?;
        if let Some(label) = label {
            world.plane.kubectl("admin", &["label", "namespace", namespace, &format!("{LABEL}={label}")])?;
        }
        world.signer_secret(namespace, "alice", "alice")?;
        let entry = json!({"name": format!("{}/team/*", world.registry.host), "policy": world.trust(&["alice"])});
        world.policy(Some(namespace), "p", &json!({"repositories": [entry]}))?;
    }
    world.registry.push("team/app", "unsigned", "unsigned")?;
    let (signed, unsigned) = (world.image("team/app", "v1"), world.image("team/app", "unsigned"));
    world.roll(&["--mode", "audit", "--log-format", "json"])?;

    // Audit: everything is admitted as it is; what would be denied is in the log, the metrics, the audit log, and an Event.
    let mixed = workload("apps/v1", "Deployment", "rollout", "mixed", &unsigned);
    for object in [&pod("rollout", "good", &signed), &pod("rollout", "bad", &unsigned), &mixed] {
        let (admitted, said) = create(world, "developer", object)?;
        assert!(admitted && !said.contains("would be denied"), "{said}");
    }
    let image = |name: &str| {
        world.plane.get(&["pod", name, "-n", "rollout"]).map(|pod| pod["spec"]["containers"][0]["image"].clone())
    };
    assert_eq!((image("good")?, image("bad")?), (json!(signed), json!(unsigned)), "nothing is changed");
    wait_for("the Deployment's pod", || world.pod_images("rollout", "mixed") == [unsigned.clone()])?;
    wait_for("an Event", || {
        events(world, "rollout", "ImageWouldBeDenied")
            .iter()
            .any(|event| event.starts_with("Namespace/rollout: Pod bad: Deny"))
    })?;
    let audited = world.plane.audit_annotations("pods", "bad")?;
    let key = format!("{LENIENT}/verdict");
    let told = audited.iter().any(|of| of[&key] == "denied" && of[&key.replace("verdict", "mode")] == "audit");
    assert!(told, "{audited:?}");
    let (denied, under) = (r#"verdict="denied""#, r#"mode="audit""#);
    assert!(metric(world, "countersign_reviews_total", &[denied, under, r#"webhook="mutate""#])? >= 2.0);
    let causes = metric(world, "countersign_denied_images_total", &[r#"cause="not-signed""#, under])?
        + metric(world, "countersign_denied_images_total", &[r#"cause="signer-missing""#, under])?;
    assert!(causes >= 2.0, "{causes}");
    // A label makes it stricter at once, also for a namespace that is new.
    let (admitted, said) = create(world, "developer", &pod("strict", "bad", &unsigned))?;
    assert!(!admitted && said.contains(DENIED), "{said}");
    assert!(create(world, "developer", &pod("strict", "good", &signed))?.0);
    let good = world.plane.get(&["pod", "good", "-n", "strict"])?;
    assert!(good["spec"]["containers"][0]["image"].as_str().unwrap_or_default().contains("@sha256:"), "{good}");

    // While nobody answers, what is not enforced goes on, and what is enforced stands still.
    world.front.nobody();
    for (namespace, expected) in [("rollout", true), ("strict", false), ("rollout-misspelt", false)] {
        let (admitted, said) = create(world, "developer", &pod(namespace, "unanswered", &unsigned))?;
        assert_eq!(admitted, expected, "{namespace}: {said}");
        assert!(admitted || said.contains("failed calling webhook"), "{said}");
    }
    world.set_backends();
    wait_for("an answer", || {
        create(world, "developer", &pod("strict", "good", &signed))
            .is_ok_and(|(_, said)| !said.contains("failed calling"))
    })?;

    // What the log answers by itself.
    let since =
        "select(.timestamp >= \"2020-01-01T12:00:00Z\") | select(.namespace == \"strict\" and .webhook == \"mutate\")";
    let by_entry = jq(
        world,
        &format!(
            "{since} | .images[] | select(.verdict == \"denied\") | \"\\(.image) \\(.policy.kind) \\(.policy.name) \\(.policy.position) \\(.cause)\""
        ),
    )?;
    assert!(by_entry.contains(&format!("{unsigned} ImagePolicy p 1 signer-missing")), "{by_entry:?}");
    let would = jq(
        world,
        "select(.webhook == \"mutate\" and .namespace == \"rollout\" and .admitted and (.verdict == \"denied\" or .verdict == \"undecided\")) | \"\\(.kind) \\(.name) \\(.mode)\"",
    )?;
    assert!(
        would.contains(&"Pod bad audit".to_owned()) && would.contains(&"Deployment mixed audit".to_owned()),
        "{would:?}"
    );

    // Warn: the same, and the user reads it.
    world.roll(&["--mode", "warn", "--log-format", "json"])?;
    let (admitted, said) = create(world, "developer", &pod("rollout", "bad-2", &unsigned))?;
    assert!(admitted && said.contains(&format!("Warning: would be denied: Deny \"{unsigned}\"")), "{said}");
    let (admitted, said) = create(world, "developer", &pod("rollout", "good-2", &signed))?;
    assert!(admitted && !said.contains("Warning"), "{said}");

    // Enforce, by the namespace's label, while the server still warns.
    world.plane.kubectl("admin", &["label", "namespace", "rollout", &format!("{LABEL}=enforce")])?;
    let bad = |index: usize| pod("rollout", &format!("bad-{index}"), &unsigned);
    let mut index = 10;
    wait_for("the label", || {
        index += 1;
        create(world, "developer", &bad(index)).is_ok_and(|(admitted, said)| !admitted && said.contains(DENIED))
    })?;
    // What was admitted before goes on: the owner of its pods was never proven, and `scan` tells of it.
    world.plane.kubectl("developer", &["scale", "deployment/mixed", "-n", "rollout", "--replicas=2"])?;
    wait_for("two pods", || world.pod_images("rollout", "mixed").len() == 2)?;

    // Enforce for the server, and one entry that only warns.
    apply_mode(world, &[])?;
    for kind in [MUTATING, VALIDATING] {
        let entries = world.plane.get(&[kind, "countersign"])?["webhooks"].clone();
        assert!(entries.as_array().is_some_and(|all| all.iter().all(|entry| entry["name"] != LENIENT)), "{entries}");
    }
    world.roll(&["--log-format", "json"])?;
    let (admitted, _) = create(world, "developer", &pod("rollout", "bad-3", &unsigned))?;
    assert!(!admitted);
    let mut policy = world.trust(&["alice"]);
    policy["mode"] = json!("warn");
    let entries = json!([{"name": format!("{}/team/*", world.registry.host), "policy": policy}]);
    world.policy(Some("rollout"), "p", &json!({"repositories": entries}))?;
    let mut last = String::new();
    wait_for("the entry's mode", || {
        index += 1;
        create(world, "developer", &bad(index)).is_ok_and(|(admitted, said)| {
            last = said;
            admitted && last.contains("would be denied")
        })
    })
    .map_err(|problem| format!("{problem}: {last}"))?;
    // It says nothing of images that it does not match.
    let (admitted, said) = create(world, "developer", &pod("rollout", "other", "quay.io/unlisted"))?;
    assert!(!admitted && said.contains(DENIED), "{said}");
    wait_for("an Event of a denial", || {
        events(world, "rollout", "ImageDenied")
            .iter()
            .any(|event| event.starts_with("Namespace/rollout: Pod other: Deny"))
    })
}

/// Somebody whom the configuration names admits an object in spite of a denial; it is told everywhere. Nobody else does.
pub(crate) fn break_glass(world: &mut World) -> Result<(), Problem> {
    world.roll(&["--log-format", "json", "--break-glass-group", "system:masters"])?;
    let unsigned = world.image("team/app", "unsigned");
    let annotated = |name: &str, reason: &str| {
        let mut pod = pod("strict", name, &unsigned);
        pod["metadata"]["annotations"] = json!({BREAK_GLASS: reason});
        pod
    };
    let (admitted, said) = create(world, "developer", &annotated("glass", "glass: INC-4711"))?;
    assert!(
        !admitted && said.contains(DENIED) && said.contains("user \"developer\" may not break the glass"),
        "{said}"
    );
    let (admitted, said) = create(world, "admin", &annotated("glass", "  "))?;
    assert!(!admitted && said.contains("it gives no reason"), "{said}");
    let (admitted, said) = create(world, "admin", &annotated("glass", "glass: INC-4711"))?;
    assert!(admitted && said.contains("Warning: admitted by break glass: Deny"), "{said}");
    wait_for("an Event", || {
        let told = |event: &String| event.contains("Pod glass admitted by break glass (glass: INC-4711): Deny");
        events(world, "strict", "BreakGlass").iter().any(told)
    })?;
    assert!(metric(world, "countersign_broken_glass_total", &[])? >= 1.0);
    let logged =
        jq(world, "select(.break_glass != null) | \"\\(.user) \\(.name) \\(.break_glass) \\(.mode) \\(.admitted)\"")?;
    assert!(logged.iter().any(|line| line.ends_with(" glass glass: INC-4711 break-glass true")), "{logged:?}");
    let audited = world.plane.audit_annotations("pods", "glass")?;
    let key = "trust.hooks.securityenforcement.admission.cloud.ibm.com/break-glass";
    assert!(audited.iter().any(|of| of[key] == "glass: INC-4711"), "{audited:?}");

    // A developer leaves the annotation behind, and the administrator changes something else: it does not count again.
    let mut planted = workload("apps/v1", "Deployment", "strict", "planted", &world.image("team/app", "v1"));
    planted["metadata"]["annotations"] = json!({BREAK_GLASS: "planted: INC-4711"});
    let (admitted, said) = create(world, "developer", &planted)?;
    assert!(admitted, "{said}");
    let set = format!("web={unsigned}");
    let done = world.plane.try_kubectl("admin", &["set", "image", "deployment/planted", "-n", "strict", &set])?;
    assert!(done.code != 0 && done.stderr.contains("it stood there before"), "{done:?}");
    // Nor does what a controller copies from a template.
    let mut template = workload("apps/v1", "Deployment", "strict", "template", &world.image("team/app", "v1"));
    template["spec"]["template"]["metadata"]["annotations"] = json!({BREAK_GLASS: "template: INC-4711"});
    template["spec"]["template"]["spec"]["containers"][0]["image"] = json!(unsigned);
    let (admitted, said) = create(world, "admin", &template)?;
    assert!(!admitted && said.contains(DENIED), "{said}");
    // The cluster goes on as it was before.
    world.roll(&[])
}
