//! What ran before Countersign came, looked at by `countersign scan`: it says of each object what the API server answers when it is created.

use std::path::Path;

use countersign_tests::{Countersign, Finished, Problem, wait_for};
use serde_json::{Value, json};

use crate::world::{DENIED, World, pod, workload};

const NAMESPACE: &str = "older";

const REPOSITORY: &str = "older/app";

/// The objects that are made before the webhooks come: namespace, kind, and name.
const OBJECTS: [(&str, &str, &str); 8] = [
    (NAMESPACE, "deployment", "unpinned"),
    (NAMESPACE, "deployment", "unsigned"),
    (NAMESPACE, "statefulset", "pinned"),
    (NAMESPACE, "cronjob", "later"),
    (NAMESPACE, "pod", "superseded"),
    (NAMESPACE, "pod", "unlisted"),
    (NAMESPACE, "pod", "with-sidecar"),
    ("kube-system", "pod", "older-system"),
];

/// Workloads of every sort, while nobody looks.
pub(crate) fn before_the_install(world: &mut World) -> Result<(), Problem> {
    world.namespace(NAMESPACE)?;
    let signed = world.sign(REPOSITORY, "v1", "olga")?;
    let old = world.sign(REPOSITORY, "v2", "olga")?;
    let new = world.registry.push(REPOSITORY, "v2", "v2 again")?;
    world.sign_pushed(REPOSITORY, "v2", "olga", &new)?;
    let image = |tag: &str| world.image(REPOSITORY, tag);
    let create = |object: &Value| -> Result<(), Problem> {
        let done = world.plane.send("admin", "create", &object.to_string())?;
        if done.code == 0 { Ok(()) } else { Err(format!("{object}: {}", done.stderr).into()) }
    };
    let unpinned = image("v1");
    create(&workload("apps/v1", "Deployment", NAMESPACE, "unpinned", &unpinned))?;
    create(&workload("apps/v1", "Deployment", NAMESPACE, "unsigned", &image("v9")))?;
    let pinned = format!("{}@sha256:{}", image("v1"), signed.digest);
    create(&workload("apps/v1", "StatefulSet", NAMESPACE, "pinned", &pinned))?;
    let mut later = workload(world.cron_jobs(), "CronJob", NAMESPACE, "later", &image("v9"));
    later["spec"]["suspend"] = json!(true);
    create(&later)?;
    create(&pod(NAMESPACE, "superseded", &format!("{}@sha256:{}", image("v2"), old.digest)))?;
    create(&pod(NAMESPACE, "unlisted", "docker.io/library/nginx:1"))?;
    create(&pod("kube-system", "older-system", "docker.io/library/nginx:1"))?;
    let mut mirror = pod(NAMESPACE, "mirror", "docker.io/library/nginx:1");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    mirror["spec"]["nodeName"] = json!("node-1");
    create(&mirror)?;
    let owner = world.plane.get(&["deployment", "unpinned", "-n", NAMESPACE])?;
    let mut child = pod(NAMESPACE, "with-sidecar", &unpinned);
    child["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "Deployment", "name": "unpinned", "uid": owner["metadata"]["uid"], "controller": true,
    }]);
    if let Some(containers) = child["spec"]["containers"].as_array_mut() {
        containers.push(json!({"name": "mesh", "image": "mesh.example.com/proxy:1"}));
    }
    create(&child)?;
    for name in ["unpinned", "unsigned", "pinned"] {
        wait_for("its pod", || !world.pod_images(NAMESPACE, name).is_empty())?;
    }
    Ok(())
}

fn scan(world: &World, kubeconfig: &Path, more: &[&str]) -> Result<Finished, Problem> {
    let (kubeconfig, ca) = (kubeconfig.display().to_string(), world.ca.ca.display().to_string());
    Countersign::run(&[&["scan", "--kubeconfig", &kubeconfig, "--trust-ca", &ca, "-o", "json"], more].concat())
}

fn report(finished: &Finished) -> Result<Value, Problem> {
    Ok(serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {finished:?}"))?)
}

/// The classes of the images of an object that are told.
fn classes(report: &Value, namespace: &str, kind: &str, name: &str) -> Vec<String> {
    let is_it = |finding: &&Value| {
        finding["namespace"] == namespace
            && finding["kind"].as_str().is_some_and(|found| found.eq_ignore_ascii_case(kind))
            && finding["name"] == name
    };
    let all = report["findings"].as_array().into_iter().flatten().filter(is_it);
    all.filter_map(|finding| finding["class"].as_str().map(str::to_owned)).collect()
}

/// Whether the API server takes the same object anew; nothing is stored.
fn is_created(world: &World, namespace: &str, kind: &str, name: &str) -> Result<bool, Problem> {
    let stored = world.plane.get(&[kind, name, "-n", namespace])?;
    let mut object = json!({"apiVersion": stored["apiVersion"], "kind": stored["kind"], "spec": stored["spec"]});
    object["metadata"] =
        json!({"namespace": namespace, "name": format!("{name}-again"), "labels": stored["metadata"]["labels"]});
    let done = world.plane.user("admin").send_with(&["create", "--dry-run=server"], &object.to_string())?;
    assert!(done.code == 0 || done.stderr.contains(DENIED), "{namespace} {kind} {name}: {done:?}");
    Ok(done.code == 0)
}

/// The rights that the documentation says it takes.
fn documented_rights() -> Result<String, Problem> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scan.md"))?;
    let block = text.split("```yaml\n").find(|block| block.contains("kind: ClusterRole")).ok_or("no rights")?;
    Ok(block.split("```").next().unwrap_or_default().to_owned())
}

/// What it says of them is what the API server answers; page by page, by one namespace, and as somebody with no further rights than it takes.
pub(crate) fn what_ran_before(world: &mut World) -> Result<(), Problem> {
    world.signer_secret(NAMESPACE, "olga", "olga")?;
    let name = format!("{}/older/*", world.registry.host);
    world.policy(Some(NAMESPACE), "p", &json!({"repositories": [{"name": name, "policy": world.trust(&["olga"])}]}))?;
    wait_for("the policy", || is_created(world, NAMESPACE, "statefulset", "pinned").unwrap_or_default())?;

    let admin = world.plane.kubeconfig("admin");
    let whole = scan(world, &admin, &[])?;
    let all = report(&whole)?;
    let told = |name: &str, kind: &str| classes(&all, NAMESPACE, kind, name);
    assert_eq!(all["notRead"], json!([]), "{all:#}");
    let one = |class: &str| vec![class.to_owned()];
    assert_eq!(told("unpinned", "Deployment"), one("unpinned"), "{all:#}");
    assert_eq!(told("unsigned", "Deployment"), one("denied"), "{all:#}");
    assert_eq!(told("pinned", "StatefulSet"), [""; 0], "{all:#}");
    assert_eq!(told("later", "CronJob"), one("denied"), "{all:#}");
    assert_eq!(told("superseded", "Pod"), one("superseded"), "{all:#}");
    assert_eq!(told("mirror", "Pod"), one("static"), "{all:#}");
    assert_eq!(told("with-sidecar", "Pod"), one("denied"), "what its owner has is told with the owner: {all:#}");
    let children = all["findings"].as_array().into_iter().flatten();
    let children: Vec<_> =
        children.filter(|finding| finding["kind"] == "ReplicaSet" && finding["namespace"] == NAMESPACE).collect();
    assert!(children.is_empty(), "{children:?}");
    assert_eq!(whole.code, 1, "{whole:?}");

    for (namespace, kind, name) in OBJECTS {
        let classes = classes(&all, namespace, kind, name);
        let refused = classes.iter().any(|class| class == "denied" || class == "superseded");
        assert_eq!(is_created(world, namespace, kind, name)?, !refused, "{namespace} {kind} {name}: {classes:?}");
    }
    // Where the API server asks nobody, it is told that nobody would be asked.
    let system = classes(&all, "kube-system", "pod", "older-system");
    let exempt = is_created(world, "kube-system", "pod", "older-system")?;
    assert_eq!(system, one(if exempt { "exempt" } else { "denied" }), "{all:#}");
    assert_eq!(all["exempt"]["assumed"], Value::Null, "{all:#}");

    let one_namespace = scan(world, &admin, &["-n", NAMESPACE])?;
    let alone = report(&one_namespace)?;
    let of_namespace = |report: &Value| {
        let all = report["findings"].as_array().into_iter().flatten();
        all.filter(|finding| finding["namespace"] == NAMESPACE).cloned().collect::<Vec<_>>()
    };
    assert_eq!(alone["findings"], json!(of_namespace(&all)));
    let paged = report(&scan(world, &admin, &["-n", NAMESPACE, "--page-size", "1"])?)?;
    assert_eq!(paged, alone, "small pages");
    let nowhere = scan(world, &admin, &["-n", "no-such-namespace"])?;
    assert!(nowhere.code == 2 && nowhere.stderr.contains("no such namespace"), "{nowhere:?}");

    // What kubectl prints of the same is judged the same.
    let dump = world.folder.path().join("dump.yaml");
    let kinds = "deployments,statefulsets,cronjobs,replicasets,jobs,pods";
    let printed = world.plane.kubectl("admin", &["get", kinds, "-n", NAMESPACE, "-o", "yaml"])?;
    std::fs::write(&dump, printed)?;
    let dumped = report(&scan(world, &admin, &["-f", &dump.display().to_string()])?)?;
    let without_versions = |report: &Value| {
        let mut findings = of_namespace(report);
        for finding in &mut findings {
            finding["apiVersion"] = Value::Null;
        }
        findings
    };
    assert_eq!(without_versions(&dumped), without_versions(&alone));
    as_somebody_else(world, &alone)?;

    world
        .plane
        .kubectl("admin", &["delete", "pod", "older-system", "-n", "kube-system", "--force", "--grace-period=0"])?;
    world.plane.kubectl("admin", &["delete", "pod", "mirror", "-n", NAMESPACE, "--force", "--grace-period=0"])?;
    world.plane.kubectl("admin", &["delete", "namespace", NAMESPACE])?;
    Ok(())
}

/// The documented rights are enough, and without one of them it is told what was not listed.
fn as_somebody_else(world: &World, expected: &Value) -> Result<(), Problem> {
    let rights = documented_rights()?;
    world.plane.apply(&rights)?;
    world.plane.kubectl("admin", &["create", "serviceaccount", "scanner", "-n", NAMESPACE])?;
    let account = format!("--serviceaccount={NAMESPACE}:scanner");
    let binding = ["create", "clusterrolebinding", "scanner", "--clusterrole=countersign-scan", account.as_str()];
    world.plane.kubectl("admin", &binding)?;
    let scanner = world.plane.service_account(NAMESPACE, "scanner")?;
    let mut last = None;
    let enough = wait_for("the rights", || {
        last = scan(world, &scanner, &["-n", NAMESPACE]).ok();
        last.as_ref().is_some_and(|done| report(done).is_ok_and(|found| found == *expected))
    });
    enough.map_err(|problem| format!("{problem}: {last:?}"))?;

    let fewer = rights.replace("statefulsets, ", "");
    assert_ne!(rights, fewer);
    world.plane.apply(&fewer)?;
    let missed = wait_for("a right less", || {
        last = scan(world, &scanner, &["-n", NAMESPACE]).ok();
        last.as_ref().is_some_and(|done| done.code == 3 && done.stdout.contains("statefulsets.apps"))
    });
    missed.map_err(|problem| format!("{problem}: {last:?}"))?;
    let found = report(last.as_ref().ok_or("no scan")?)?;
    let unread = found["notRead"].as_array().ok_or("nothing unread")?;
    assert!(unread.len() == 1 && unread[0]["cause"].to_string().contains("forbidden"), "{found:#}");
    for kind in [["clusterrolebinding", "scanner"], ["clusterrole", "countersign-scan"]] {
        world.plane.kubectl("admin", &["delete", kind[0], kind[1]])?;
    }
    Ok(())
}
