//! A cluster that begins anew, and one that Countersign leaves.

use std::collections::BTreeSet;

use countersign_tests::{Countersign, Finished, Problem, Release, wait_for};
use serde_json::{Value, json};

use crate::world::{World, pod, workload};

/// The documents of a YAML text.
fn documents(text: &str) -> Vec<&str> {
    text.split("---\n").filter(|document| !document.trim().is_empty()).collect()
}

/// Creates a pod of an image that nobody signed, as the administrator.
fn create_unsigned(world: &World, namespace: &str, name: &str) -> Result<Finished, Problem> {
    world.plane.send("admin", "create", &pod(namespace, name, "registry.example.com/unsigned:1").to_string())
}

/// What `doctor` says of the installation alone.
fn examine(world: &World) -> Result<Finished, Problem> {
    Countersign::run(&["doctor", "--kubeconfig", &world.plane.kubeconfig("admin").display().to_string()])
}

/// What is exempt by its label alone is told, and so is what nodes wait for.
pub(crate) fn doctor(world: &mut World) -> Result<(), Problem> {
    let mut network = workload("apps/v1", "DaemonSet", "shop", "network", &world.image("team/app", "v1"));
    network["spec"]["template"]["spec"]["priorityClassName"] = json!("system-node-critical");
    world.plane.apply(&network.to_string())?;
    let found = examine(world)?;
    assert!(found.code == 0 && found.stdout.contains("ok    definitions"), "{found:?}");
    let waits = "namespace shop is reviewed, and nodes wait for what is in it (network)";
    assert!(found.stdout.contains("WARN  exemptions") && found.stdout.contains(waits), "{found:?}");
    world.plane.kubectl("admin", &["delete", "daemonset", "network", "-n", "shop"])?;

    let forge = ["label", "namespace", "shop", "--overwrite", "kubernetes.io/metadata.name=countersign"];
    match world.plane.release {
        Release::V1_20 => {
            assert!(found.stdout.contains("namespace kube-system is to be exempt, and is reviewed"), "{found:?}");
            assert!(found.stdout.contains("not reviewed: countersign\n"), "{found:?}");
            world.plane.kubectl("admin", &forge)?;
            wait_for("the forged exemption", || {
                create_unsigned(world, "shop", "forged").is_ok_and(|done| done.code == 0)
            })?;
            let forged = examine(world)?;
            let hole = "namespace shop is not reviewed because of its label kubernetes.io/metadata.name";
            assert!(forged.code == 3 && forged.stdout.contains("FAIL  exemptions"), "{forged:?}");
            assert!(forged.stdout.contains(hole), "{forged:?}");
            // The cure that it names.
            let cure = ["label", "namespace", "shop", "--overwrite", "kubernetes.io/metadata.name=shop"];
            assert!(forged.stdout.contains(&format!("kubectl {}", cure.join(" "))), "{forged:?}");
            world.plane.kubectl("admin", &cure)?;
            world.plane.kubectl("admin", &["delete", "pod", "forged", "-n", "shop"])?;
            wait_for("the end of the exemption", || {
                create_unsigned(world, "shop", "forged")
                    .is_ok_and(|done| done.stderr.contains("no matching repositories"))
            })?;
        }
        Release::V1_37 => {
            // The API server puts its own label back.
            world.plane.kubectl("admin", &forge)?;
            let unsigned = create_unsigned(world, "shop", "forged")?;
            assert!(unsigned.stderr.contains("no matching repositories"), "{unsigned:?}");
        }
    }
    // By the rights of Countersign itself less can be seen, and the same is found.
    let tested = crate::registration::helm_test(world)?;
    assert!(tested.code == 0 && tested.stdout.contains("every webhook has rules"), "{tested:?}");
    assert!(tested.stdout.contains("ok    definitions"), "{tested:?}");
    let sound = examine(world)?;
    assert!(sound.code == 0 && !sound.stdout.contains("FAIL"), "{sound:?}");
    if world.plane.release == Release::V1_37 {
        assert!(sound.stdout.contains("not reviewed: countersign, kube-system\n"), "{sound:?}");
        assert!(!sound.stdout.contains("WARN"), "{sound:?}");
    }
    Ok(())
}

/// All nodes are new, and no pod of Countersign runs. What the cluster needs to come up can be created, Countersign's own pods among
/// it; everything else waits.
pub(crate) fn all_nodes_new(world: &mut World) -> Result<(), Problem> {
    world.replicas.clear();
    world.set_backends();
    let refused = |done: &Finished| done.code != 0 && done.stderr.contains("failed calling webhook");
    let elsewhere = create_unsigned(world, "shop", "early")?;
    assert!(refused(&elsewhere), "{elsewhere:?}");
    if world.plane.release == Release::V1_20 {
        // It does not label namespaces itself: until that was done, what is exempt by its name is not.
        let unlabelled = create_unsigned(world, "kube-system", "early")?;
        assert!(refused(&unlabelled), "{unlabelled:?}");
        let label = ["label", "namespace", "kube-system", "kubernetes.io/metadata.name=kube-system"];
        world.plane.kubectl("admin", &label)?;
    }
    wait_for("the exemption of kube-system", || {
        create_unsigned(world, "kube-system", "early").is_ok_and(|done| done.code == 0)
    })?;
    let mut network = workload("apps/v1", "DaemonSet", "kube-system", "network", "registry.example.com/network:1");
    network["spec"]["template"]["spec"]["priorityClassName"] = json!("system-node-critical");
    world.plane.apply(&network.to_string())?;
    wait_for("the network's pod", || world.pod_images("kube-system", "network").len() == 1)?;

    // Its own, in place of those that were on the nodes before. They go before others.
    let own = |world: &World| -> Vec<Value> {
        let found = world.plane.get(&["pods", "-n", "countersign", "-l", "app.kubernetes.io/name=countersign"]);
        found.unwrap_or_default()["items"].as_array().cloned().unwrap_or_default()
    };
    let uids = |pods: &[Value]| pods.iter().map(|pod| pod["metadata"]["uid"].to_string()).collect::<BTreeSet<_>>();
    wait_for("its pods", || own(world).len() == 2)?;
    let before = uids(&own(world));
    world.plane.kubectl("admin", &["delete", "pods", "--all", "-n", "countersign"])?;
    wait_for("its new pods", || {
        let now = uids(&own(world));
        now.len() == 2 && now.is_disjoint(&before)
    })?;
    for pod in own(world) {
        assert_eq!(pod["spec"]["priorityClassName"], "system-cluster-critical", "{pod}");
        assert_eq!(pod["spec"]["priority"], 2_000_000_000, "{pod}");
    }
    let elsewhere = create_unsigned(world, "shop", "early")?;
    assert!(refused(&elsewhere), "{elsewhere:?}");

    world.plane.kubectl("admin", &["delete", "pod/early", "daemonset/network", "-n", "kube-system"])?;
    for _ in 0..2 {
        let replica = world.start_replica()?;
        replica.ready()?;
        world.replicas.push(replica);
    }
    world.set_backends();
    wait_for("a denial with a cause", || {
        create_unsigned(world, "shop", "early").is_ok_and(|done| done.stderr.contains("no matching repositories"))
    })
}

/// What carries the installation's label, in the whole cluster.
fn labelled(world: &World) -> Result<BTreeSet<String>, Problem> {
    let resources = world.plane.kubectl("admin", &["api-resources", "--verbs=list,delete", "-o", "name"])?;
    let resources = resources.lines().collect::<Vec<_>>().join(",");
    let label = ["-A", "-l", "app.kubernetes.io/name=countersign", "-o", "name", "--ignore-not-found"];
    let found = world.plane.kubectl("admin", &[&["get", &resources], &label[..]].concat())?;
    Ok(found.lines().map(str::to_owned).collect())
}

/// The names of the objects of a kind in Countersign's namespace.
fn own(world: &World, kind: &str) -> Result<BTreeSet<String>, Problem> {
    let found = world.plane.kubectl("admin", &["get", kind, "-n", "countersign", "-o", "name"])?;
    Ok(found.lines().map(str::to_owned).collect())
}

const GROUP: &str = "securityenforcement.admission.cloud.ibm.com";

/// The definitions of the policies and records that are there.
fn definitions(world: &World) -> Result<usize, Problem> {
    let all = world.plane.kubectl("admin", &["get", "crds", "-o", "name"])?;
    Ok(all.lines().filter(|name| name.ends_with(GROUP)).count())
}

/// Step by step, while its replicas run: at none of them is anybody locked out. What people wrote and what is remembered stays.
pub(crate) fn uninstall(world: &mut World) -> Result<(), Problem> {
    world.namespace("leaving")?;
    world.sign("team/leaving", "v1", "leaver")?;
    world.signer_secret("leaving", "leaver", "leaver")?;
    world.signer_secret("countersign", "stays", "leaver")?;
    let name = format!("{}/team/leaving", world.registry.host);
    let spec = json!({"repositories": [{"name": name, "policy": world.trust(&["leaver"])}]});
    world.policy(Some("leaving"), "p", &spec)?;
    world.policy(None, "stays", &json!({"repositories": [{"name": "stays.example.com/*"}]}))?;
    let image = world.image("team/leaving", "v1");
    let signed = |world: &World, name: &str| world.create(&pod("leaving", name, &image));
    wait_for("the policy", || signed(world, "first").is_ok_and(|done| done.is_ok()))?;
    wait_for("a record", || own(world, "trustrecords").is_ok_and(|records| !records.is_empty()))?;
    let unsigned = create_unsigned(world, "leaving", "unsigned")?;
    assert!(unsigned.stderr.contains("no matching repositories"), "{unsigned:?}");
    let (records, secrets) = (own(world, "trustrecords")?, own(world, "secrets")?);
    let (labelled_before, definitions_before) = (labelled(world)?, definitions(world)?);

    let printed = world.manifests(&["--uninstall"])?;
    for (step, document) in documents(&printed).into_iter().enumerate() {
        let done = world.plane.send("admin", "delete", document)?;
        assert_eq!(done.code, 0, "{document}: {done:?}");
        let created = signed(world, &format!("step-{step}"))?;
        assert_eq!(created, Ok(()), "after {document}");
    }
    // Replicas that still run bring nothing back.
    let left = examine(world)?;
    assert!(left.stdout.contains("WARN  webhooks") && left.stdout.contains("MutatingWebhookConfiguration"), "{left:?}");
    wait_for("the end of enforcement", || {
        create_unsigned(world, "leaving", "unsigned").is_ok_and(|done| done.code == 0)
    })?;
    let stays: BTreeSet<_> = labelled_before
        .into_iter()
        .filter(|name| name.starts_with("namespace/") || name.starts_with("clusterimagepolicy."))
        .collect();
    wait_for("all the rest to be gone", || labelled(world).is_ok_and(|found| found == stays))?;
    assert!(stays.contains("namespace/countersign") && definitions_before == 3);
    assert_eq!(definitions(world)?, 3);
    assert_eq!(own(world, "trustrecords")?, records);
    let gone: Vec<_> = secrets.difference(&own(world, "secrets")?).cloned().collect();
    // On 1.20 the token of the service account is a Secret, and goes with it.
    let of_account = |name: &String| name.starts_with("secret/countersign-token-");
    assert!(gone.contains(&"secret/countersign-tls".to_owned()), "{gone:?}");
    assert!(gone.iter().all(|name| name == "secret/countersign-tls" || of_account(name)), "{gone:?}");
    world.plane.get(&["clusterimagepolicy", "stays"])?;
    world.plane.get(&["imagepolicy", "p", "-n", "leaving"])?;
    world.replicas.clear();
    Ok(())
}

/// Installed again where no pod of it ever runs, and purged: from the second step on nobody is locked out, and nothing stays. Then
/// once more, with a default policy, in the documented steps.
pub(crate) fn purge(world: &mut World) -> Result<(), Problem> {
    world.plane.apply(&world.manifests(&[])?)?;
    let printed = world.manifests(&["--uninstall", "--purge"])?;
    for (step, document) in documents(&printed).into_iter().enumerate() {
        // The Secret of a certificate that nobody made is not there.
        let done = world.plane.send("admin", "delete", document)?;
        let missing = done.stderr.contains("NotFound") && document.contains("kind: Secret");
        assert!(done.code == 0 || missing, "{document}: {done:?}");
        if step > 0 {
            wait_for("an open gate", || {
                create_unsigned(world, "leaving", &format!("purge-{step}")).is_ok_and(|done| done.code == 0)
            })?;
        }
    }
    assert_eq!(definitions(world)?, 0);
    wait_for("everything to be gone", || labelled(world).is_ok_and(|found| found.is_empty()))?;

    world.plane.apply(&world.manifests(&["--only", "crds"])?)?;
    let definition = format!("crd/clusterimagepolicies.{GROUP}");
    world.plane.kubectl("admin", &["wait", "--for=condition=Established", &definition])?;
    let repositories = world.folder.path().join("repositories.yaml");
    std::fs::write(&repositories, "- name: \"docker.io/*\"\n")?;
    let repositories = repositories.display().to_string();
    let from = ["--reviews-from", "10.0.0.0/28", "--operations-from", "monitoring"];
    world.plane.apply(&world.manifests(&[&["--default-policy", &repositories], &from[..]].concat())?)?;
    world.plane.get(&["clusterimagepolicy", "default"])?;
    let kubectl = world.plane.user("admin");
    let file = world.folder.path().join("purge.yaml");
    std::fs::write(&file, &printed)?;
    let deleted = kubectl.run(&["delete", "--ignore-not-found", "-f", &file.display().to_string()])?;
    assert_eq!(deleted.code, 0, "{deleted:?}");
    assert_eq!(definitions(world)?, 0);
    wait_for("everything to be gone", || labelled(world).is_ok_and(|found| found.is_empty()))
}

/// Values that set everything which an API server of this release may know. What it does not know it would drop, or kubectl refuse.
fn everything(release: Release, authority: &str) -> Value {
    let mut values = json!({
        "image": {"repository": "h.io:5000/countersign", "tag": "v7", "digest": format!("sha256:{}", "0a".repeat(32)), "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "login"}],
        "replicas": 1,
        "mode": "audit",
        "timeoutSeconds": 20,
        "namespaceSelector": {
            "matchLabels": {"reviewed": "yes"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
        },
        "exemptNamespaces": ["cilium"],
        "config": {"shutdown-delay": "1500ms", "listen": "[::]:8443"},
        "tls": {"source": "secret", "caBundle": authority},
        "networkPolicy": {"reviewsFrom": ["10.0.0.0/28", "fd00::/8"], "operationsFrom": ["monitoring"]},
        "metrics": {"service": {"enabled": true, "annotations": {"a.io/b": "c"}}},
        "resources": {"limits": {"cpu": "1500m"}},
        "runAsUser": 1_234_567,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": 6}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "x", "operator": "Exists"}]},
        ]}}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "commonLabels": {"team": "security"},
        "podLabels": {"only": "pods"},
        "podAnnotations": {"prometheus.io/scrape": "true"},
        "service": {"annotations": {"a.io/s": "t"}},
        "extraEnv": [
            {"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "extraVolumes": [{"name": "login", "secret": {"secretName": "registry-login"}}],
        "extraVolumeMounts": [{"name": "login", "mountPath": "/etc/login", "readOnly": true}],
        "defaultPolicy": [{"name": "docker.io/*"}],
    });
    if release == Release::V1_37 {
        values["topologySpreadConstraints"][0]["minDomains"] = json!(2);
        values["topologySpreadConstraints"][0]["whenUnsatisfiable"] = json!("DoNotSchedule");
    }
    values
}

/// The members of an object that another has not, or has otherwise, by their path.
fn lost(path: &str, wanted: &Value, stored: &Value, found: &mut Vec<String>) {
    match (wanted, stored) {
        (Value::Object(members), _) => {
            for (name, below) in members.iter().filter(|(_, below)| !below.is_null()) {
                lost(&format!("{path}.{name}"), below, &stored[name], found);
            }
        }
        (Value::Array(items), Value::Array(stored)) if items.len() == stored.len() => {
            items.iter().zip(stored).for_each(|(item, stored)| lost(path, item, stored, found));
        }
        _ if wanted == stored => {}
        // A quantity, as API servers write it.
        _ if wanted == "1000" && stored == "1k" => {}
        _ => found.push(format!("{path}: {wanted} became {stored}")),
    }
}

/// With every value set, the API server keeps all that the chart renders to, and its own kinds have room for it.
fn with_every_value(world: &World) -> Result<(), Problem> {
    let values = world.folder.path().join("every-value.yaml");
    let authority = std::fs::read_to_string(&world.ca.ca)?;
    std::fs::write(&values, everything(world.plane.release, &authority).to_string())?;
    let values = values.display().to_string();
    // The definitions and the namespace are there from before.
    world.helm("upgrade", &["--values", &values])?;
    let rendered = world.helm("template", &["--values", &values, "--kube-version", world.plane.release.name()])?;
    let mut compared = 0;
    for document in documents(&rendered) {
        let wanted: Value = serde_saphyr::from_str(document)?;
        let (Some(kind), Some(name)) = (wanted["kind"].as_str(), wanted["metadata"]["name"].as_str()) else { continue };
        if name == "countersign-test" {
            // Helm makes it for a test alone.
            let done = world.plane.send_with("admin", &["apply", "--dry-run=server"], document)?;
            assert_eq!(done.code, 0, "{done:?}");
            continue;
        }
        let stored = world.plane.get(&[kind, name, "-n", "countersign"])?;
        let mut missing = Vec::new();
        lost(kind, &wanted, &stored, &mut missing);
        assert_eq!(missing, Vec::<String>::new());
        compared += 1;
    }
    assert!(compared > 15, "{compared}: {rendered}");
    // One pod, and it is ready: a drain may move it.
    wait_for("a budget that permits a drain", || {
        let pods = world.plane.get(&["pods", "-n", "countersign"]).unwrap_or_default();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let _ = make_ready(world, pod.clone());
        }
        let budget = world.plane.get(&["poddisruptionbudget", "countersign", "-n", "countersign"]).unwrap_or_default();
        budget["status"]["expectedPods"] == 1 && budget["status"]["disruptionsAllowed"] == 1
    })
}

/// What a kubelet says of a pod that serves.
fn make_ready(world: &World, mut pod: Value) -> Result<(), Problem> {
    let path =
        format!("/api/v1/namespaces/countersign/pods/{}/status", pod["metadata"]["name"].as_str().unwrap_or_default());
    let since = "2026-01-01T00:00:00Z";
    pod["status"] =
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]});
    let done = world.plane.user("admin").send_raw("replace", &path, &pod.to_string())?;
    if done.code == 0 { Ok(()) } else { Err(done.stderr.into()) }
}

/// Helm learns from the cluster what it serves, and leaves what people wrote.
pub(crate) fn helm(world: &mut World) -> Result<(), Problem> {
    world.helm("install", &["--create-namespace"])?;
    world.plane.get(&["poddisruptionbudget", "countersign", "-n", "countersign"])?;
    world.plane.get(&["resourcequota", "countersign", "-n", "countersign"])?;
    with_every_value(world)?;
    world.signer_secret("countersign", "stays", "leaver")?;
    wait_for("a policy", || {
        world.policy(None, "stays", &json!({"repositories": [{"name": "stays.example.com/*"}]})).is_ok()
    })?;
    world.helm("uninstall", &[])?;
    wait_for("everything of the chart to be gone", || labelled(world).is_ok_and(|found| found.is_empty()))?;
    let unsigned = create_unsigned(world, "leaving", "after-helm")?;
    assert_eq!(unsigned.code, 0, "{unsigned:?}");
    assert_eq!(definitions(world)?, 3);
    world.plane.get(&["clusterimagepolicy", "stays"])?;
    world.plane.get(&["secret", "stays", "-n", "countersign"])?;
    Ok(())
}
