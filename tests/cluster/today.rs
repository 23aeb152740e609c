//! Installing, and the ordinary life of workloads.

use std::collections::BTreeMap;

use countersign_tests::{
    Client, Countersign, Finished, NotaryServer, Problem, Release, TokenServer, User, free_port, wait_for,
};
use serde_json::{Value, json};

use crate::definitions;
use crate::registration;
use crate::world::{World, assert_denied, pod, workload};

const SERVICE_ACCOUNT: &str = "system:serviceaccount:countersign:countersign";

/// Without the definitions it says so, is not ready, and goes on by itself once they are there.
pub(crate) fn nothing_installed(world: &mut World) -> Result<(), Problem> {
    let kubeconfig = world.plane.kubeconfig("admin").display().to_string();
    let arguments = ["--kubeconfig", &kubeconfig, "--namespace", "default", "--tls-secret", "early"];
    let early = countersign_tests::Countersign::start("early", &world.ca, world.folder.path(), &arguments)?;
    wait_for("a reason", || {
        early.get("/readyz").is_ok_and(|(status, text)| status == 503 && text.contains("manifests --only crds"))
    })?;
    world.plane.apply(&world.manifests(&["--only", "crds"])?)?;
    early.ready()?;
    world.plane.kubectl("admin", &["delete", "secret", "early", "-n", "default"])?;
    Ok(())
}

/// The manifests as they are printed, applied a second time, and two replicas as the service account that they make.
pub(crate) fn install(world: &mut World) -> Result<(), Problem> {
    // Applied a second time, nothing changes.
    let again = world.plane.send("admin", "apply", &world.installation()?)?;
    assert!(again.code == 0 && !again.stdout.contains("created"), "{again:?}");
    if world.platform == "kubernetes" {
        let rendered = world.chart()?;
        let done = world.plane.send("admin", "apply", &rendered)?;
        assert!(done.code == 0 && !done.stdout.contains("created"), "the chart is something else: {done:?}");
    }
    world.point_service_here()?;
    registration::first_replica(world)?;
    let second = world.start_replica()?;
    second.ready()?;
    world.replicas.push(second);
    world.set_backends();
    Ok(())
}

/// What the service account may do, and what it may not.
pub(crate) fn rights(world: &mut World) -> Result<(), Problem> {
    let can = |arguments: &[&str]| -> Result<bool, Problem> {
        let done =
            world.plane.try_kubectl("admin", &[&["auth", "can-i", "--as", SERVICE_ACCOUNT], arguments].concat())?;
        Ok(done.stdout.trim() == "yes")
    };
    let may = [
        &["list", "imagepolicies.securityenforcement.admission.cloud.ibm.com", "-A"][..],
        &[
            "patch",
            "imagepolicies.securityenforcement.admission.cloud.ibm.com",
            "--subresource=status",
            "-n",
            "default",
        ],
        &["get", "secret/any", "-n", "default"],
        &["watch", "secrets", "-n", "countersign"],
        &["update", "secret/countersign-tls", "-n", "countersign"],
        &["patch", "mutatingwebhookconfiguration/countersign"],
        &["patch", "validatingwebhookconfiguration/countersign"],
        &["get", "replicasets.apps/any", "-n", "default"],
        &["get", "controllerrevisions.apps/any", "-n", "default"],
        &["get", "cronjobs.batch/any", "-n", "default"],
        &["get", "replicationcontrollers/any", "-n", "default"],
    ];
    for arguments in may {
        assert!(can(arguments)?, "{arguments:?}");
    }
    let may_not = [
        &["list", "secrets", "-A"][..],
        &["watch", "secrets", "-n", "default"],
        &["list", "secrets", "-n", "kube-system"],
        &["update", "secret/alice", "-n", "countersign"],
        &["delete", "secret/countersign-tls", "-n", "countersign"],
        &["create", "secrets", "-n", "default"],
        &["patch", "mutatingwebhookconfiguration/other"],
        &["create", "mutatingwebhookconfigurations"],
        &["delete", "mutatingwebhookconfiguration/countersign"],
        &["update", "imagepolicies.securityenforcement.admission.cloud.ibm.com", "-n", "default"],
        &["create", "clusterimagepolicies.securityenforcement.admission.cloud.ibm.com"],
        &["get", "pods", "-A"],
        &["list", "replicasets.apps", "-A"],
        &["watch", "jobs.batch", "-n", "default"],
        &["update", "deployments.apps/any", "-n", "default"],
        &["create", "validatingwebhookconfigurations"],
        &["create", "pods", "-n", "countersign"],
        &["impersonate", "users"],
        &["create", "serviceaccounts", "--subresource=token", "-n", "countersign"],
    ];
    for arguments in may_not {
        assert!(!can(arguments)?, "{arguments:?}");
    }
    // People who may edit workloads may read policies, and not write them, until somebody gives them the role.
    world.namespace("roles")?;
    let developer = |arguments: &[&str]| -> Result<bool, Problem> {
        Ok(world.plane.try_kubectl("developer", &[&["auth", "can-i"], arguments].concat())?.stdout.trim() == "yes")
    };
    let policies = "imagepolicies.securityenforcement.admission.cloud.ibm.com";
    assert!(developer(&["get", policies, "-n", "roles"])? && !developer(&["create", policies, "-n", "roles"])?);
    world.plane.kubectl(
        "admin",
        &[
            "create",
            "rolebinding",
            "editor",
            "-n",
            "roles",
            "--clusterrole=countersign-namespace-policy-editor",
            "--user=developer",
        ],
    )?;
    assert!(developer(&["create", policies, "-n", "roles"])?);
    assert!(!developer(&["create", "clusterimagepolicies.securityenforcement.admission.cloud.ibm.com"])?);
    Ok(())
}

/// Of a pair that `cosign generate-key-pair` made.
const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEkhSSC1v85TSADW4yv/2sbSyy0k+O\noeINYmSkRRPdFFbgXrWLUFfpOYqpoqD6QY4Llj5gbGyW3Y1L3/s06dV/Iw==\n-----END PUBLIC KEY-----\n";

/// The API server refuses what has the wrong form, and explains the rest.
pub(crate) fn schema(world: &mut World) -> Result<(), Problem> {
    world.namespace("schema")?;
    let refused = [
        json!({}),
        json!({"repositories": {}}),
        json!({"repositories": [{"policy": {}}]}),
        json!({"repositories": [{"name": ""}]}),
        json!({"repositories": [{"name": "https://h.io/x"}]}),
        json!({"repositories": [{"name": "a b"}]}),
        json!({"repositories": [{"name": "h.io/x", "policy": {"trust": {}}}]}),
        json!({"repositories": [{"name": "h.io/x", "policy": {"trust": {"enabled": "yes"}}}]}),
        json!({"repositories": [{"name": "h.io/x", "policy": {"trust": {"enabled": true, "trustServer": "notary"}}}]}),
        json!({"repositories": [{"name": "h.io/x", "policy": {"trust": {"enabled": true, "signerSecrets": [{"name": ""}]}}}]}),
    ];
    for spec in refused {
        assert!(world.policy(Some("schema"), "p", &spec).is_err(), "{spec}");
    }
    // Not dropped on the way: an entry without its section would allow everything.
    let path = "/apis/securityenforcement.admission.cloud.ibm.com/v1beta1/namespaces/schema/imagepolicies";
    for policy in [
        json!({"anyOf": null}),
        json!({"trust": null}),
        json!({"anyOf": [{"trust": null}]}),
        json!({"trust": {"enabled": true, "signerSecrets": null}}),
        json!({"trust": {"enabled": true, "rootSecrets": null}}),
        json!({"trust": {"enabled": true, "rootKeys": null}}),
        json!({"cosign": null}),
        json!({"anyOf": [{"cosign": null}]}),
        json!({"cosign": {"signerSecrets": null, "keys": [KEY]}}),
        json!({"cosign": {"signerSecrets": [{"name": "a"}], "keys": null}}),
        json!({"cosign": {"keys": [KEY], "threshold": 1, "required": null}}),
        json!({"cosign": {"keys": [KEY], "annotations": null}}),
    ] {
        let document = json!({
            "apiVersion": "securityenforcement.admission.cloud.ibm.com/v1beta1", "kind": "ImagePolicy",
            "metadata": {"name": "nulls", "namespace": "schema"},
            "spec": {"repositories": [{"name": "h.io/x", "policy": policy}]},
        });
        let done = world.plane.user("admin").send_raw("create", path, &document.to_string())?;
        assert!(done.code != 0 && done.stderr.contains("null"), "{policy}: {done:?}");
    }
    let cosign = json!({
        "signerSecrets": [{"name": "a"}], "keys": [KEY], "threshold": 1, "required": ["a"],
        "repository": "h.io/signatures", "annotations": {"env": "prod"},
    });
    for policy in [json!({"cosign": cosign}), json!({"anyOf": [{"cosign": cosign}, {"trust": {"enabled": true}}]})] {
        world.policy(Some("schema"), "p", &json!({"repositories": [{"name": "h.io/x", "policy": policy}]}))?;
        let stored = world.plane.get(&["imagepolicy", "p", "-n", "schema"])?;
        assert_eq!(stored["spec"]["repositories"][0]["policy"], policy);
    }
    for cosign in [
        json!({}),
        json!({"keys": []}),
        json!({"keys": [KEY], "threshold": 0}),
        json!({"keys": [KEY], "annotations": {"env": 1}}),
        json!({"keys": [KEY], "enabled": true}),
    ] {
        let spec = json!({"repositories": [{"name": "h.io/x", "policy": {"cosign": cosign}}]});
        assert!(world.policy(Some("schema"), "p", &spec).is_err(), "{spec}");
    }
    for name in [
        "*",
        "nginx",
        "docker.io/*",
        "mycluster.icp:8500/*",
        "h.io:5000/a:v1.*",
        "*.h.io/x",
        "[::1]:5000/x",
        "h.io/x@sha256:0000000000000000000000000000000000000000000000000000000000000000",
    ] {
        world.policy(Some("schema"), "p", &json!({"repositories": [{"name": name, "policy": null}]}))?;
    }
    world.plane.kubectl("admin", &["delete", "imagepolicy", "p", "-n", "schema"])?;
    // The API description of 1.20 leaves out all of what keeps unknown members, so kubectl has nothing to explain there.
    let fields: &[_] = match world.plane.release {
        Release::V1_20 => &[],
        Release::V1_37 => &[
            ("", "Says which images may run in its namespace"),
            (".spec.repositories", "The most exact one that matches"),
            (".spec.repositories.policy", "signed on a Notary server"),
            (".spec.repositories.policy.trust.trustServer", "The Notary server, with a port"),
            (".status.conditions", "FIELDS:"),
        ],
    };
    for (field, part) in fields {
        let explained = wait_for("an explanation", || {
            let done = world.plane.try_kubectl("admin", &["explain", &format!("imagepolicy{field}")]);
            done.is_ok_and(|done| done.stdout.split_whitespace().collect::<Vec<_>>().join(" ").contains(part))
        });
        explained.map_err(|problem| format!("{problem}: {field}"))?;
    }
    Ok(())
}

fn condition(policy: &Value) -> (String, String, String) {
    let condition = &policy["status"]["conditions"][0];
    let text = |member: &str| condition[member].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

/// The command line judges by the policies and secrets of the cluster, as the webhook in it does.
pub(crate) fn command_line(world: &mut World) -> Result<(), Problem> {
    let (kubeconfig, ca) = (world.plane.kubeconfig("admin").display().to_string(), world.ca.ca.display().to_string());
    let with_cluster = |command: &[&str]| Countersign::run(&[command, &["--kubeconfig", &kubeconfig]].concat());
    for (tag, code) in [("v1", 0), ("v3", 1)] {
        let image = world.image("team/app", tag);
        let manifest = world.folder.path().join("reviewed.json");
        std::fs::write(&manifest, pod("shop", "reviewed", &image).to_string())?;
        let manifest = manifest.display().to_string();
        let reviewed = with_cluster(&["review", "-f", &manifest, "--trust-ca", &ca, "-o", "json"])?;
        let report: Value = serde_json::from_str(&reviewed.stdout).map_err(|error| format!("{error}: {reviewed:?}"))?;
        let created = world.create(&pod("shop", &format!("reviewed-{tag}"), &image))?;
        assert_eq!((reviewed.code, report["allowed"].as_bool()), (code, Some(created.is_ok())), "{report} {created:?}");
        let explained = with_cluster(&["explain", &image, "-n", "shop", "-o", "json"])?;
        let report: Value =
            serde_json::from_str(&explained.stdout).map_err(|error| format!("{error}: {explained:?}"))?;
        assert_eq!(report["applies"]["policy"]["namespace"], "shop", "{report}");
    }
    let sound = with_cluster(&["lint", "-o", "json"])?;
    let entry = json!({"repositories": [{"name": "lint.example.com/*", "policy": world.trust(&["nobody"])}]});
    world.policy(Some("status"), "lint", &entry)?;
    let linted = with_cluster(&["lint", "-o", "json"])?;
    assert_eq!((sound.code, linted.code), (0, 1), "{sound:?} {linted:?}");
    let words = "signer secret nobody in namespace status: could not get signerSecret";
    assert!(linted.stdout.contains(words) && linted.stdout.contains("ImagePolicy status/lint: "), "{linted:?}");
    assert!(!sound.stdout.contains("zoe") && !linted.stdout.contains("zoe"), "a secret that is there is no fault");
    world.plane.kubectl("admin", &["delete", "imagepolicy", "lint", "-n", "status"])?;
    // Who may not read policies is told so, and nothing is decided.
    let nobody = world.plane.kubeconfig("developer").display().to_string();
    let refused = Countersign::run(&["lint", "--kubeconfig", &nobody])?;
    assert!(refused.code == 3 && refused.stderr.contains("cannot be listed"), "{refused:?}");
    Ok(())
}

/// Each policy says whether it is accepted, and why not.
pub(crate) fn status(world: &mut World) -> Result<(), Problem> {
    world.namespace("status")?;
    let get = |world: &World| world.plane.get(&["imagepolicy", "p", "-n", "status"]).unwrap_or_default();
    let expect = |world: &World, expected: (&str, &str), part: &str| {
        let mut last = Value::Null;
        let told = wait_for("a status", || {
            last = get(world);
            let (status, reason, message) = condition(&last);
            (status.as_str(), reason.as_str()) == expected
                && message.contains(part)
                && last["status"]["observedGeneration"] == last["metadata"]["generation"]
        });
        told.map_err(|problem| Problem::from(format!("{problem}: {expected:?} {part}, but {}", last["status"])))
    };
    let spec = |policy: Value| json!({"repositories": [{"name": "h.io/*", "policy": policy}]});
    world.policy(Some("status"), "p", &spec(json!({})))?;
    expect(world, ("True", "Accepted"), "")?;
    world.policy(Some("status"), "p", &spec(world.trust(&["zoe"])))?;
    expect(world, ("False", "SecretUnusable"), "secret zoe in namespace status: secret not found")?;
    let faulty = spec(json!({"trust": {"enabled": true, "rootKeys": ["x"]}}));
    let refused = world.policy(Some("status"), "p", &faulty).expect_err("it is refused").to_string();
    assert!(refused.contains("policies.hooks.") && refused.contains("rootKeys[0]"), "{refused}");
    definitions::unreviewed(world, |world| {
        wait_for("the policy", || world.policy(Some("status"), "p", &faulty).is_ok())
    })?;
    expect(world, ("False", "Invalid"), "rootKeys[0]")?;
    let image = "h.io/app:1";
    let result = world.create(&pod("status", "p", image))?;
    let message = result.expect_err("a policy that is at fault allows nothing");
    assert!(
        message.contains("Deny \"h.io/app:1\", ImagePolicy status/p cannot be used: spec.repositories[0]"),
        "{message}"
    );
    let listed = world.plane.kubectl("admin", &["get", "imagepolicies", "-n", "status"])?;
    assert!(listed.contains("ACCEPTED") && listed.contains("False"), "{listed}");
    world.signer_secret("status", "zoe", "zoe")?;
    world.policy(Some("status"), "p", &spec(world.trust(&["zoe"])))?;
    expect(world, ("True", "Accepted"), "")
}

/// Every kind of workload, by the real controllers.
pub(crate) fn workloads(world: &mut World) -> Result<(), Problem> {
    world.namespace("shop")?;
    let pushed = world.sign("team/app", "v1", "alice")?;
    let second = world.sign("team/app", "v2", "alice")?;
    let child = world.registry.push("team/app", "child", "child")?;
    let list = world.registry.push_list("team/app", "multi", &[("amd64", &child)])?;
    world.sign_pushed("team/app", "multi", "alice", &list)?;
    world.signer_secret("shop", "alice", "alice")?;
    let repository = format!("{}/team/app", world.registry.host);
    world.policy(
        Some("shop"),
        "p",
        &json!({"repositories": [{"name": repository, "policy": world.trust(&["alice"])}]}),
    )?;
    let (v1, v2) = (world.image("team/app", "v1"), world.image("team/app", "v2"));
    let pinned = |tag: &str, digest: &str| format!("{repository}:{tag}@sha256:{digest}");
    wait_for("the policy", || {
        world.create(&workload("apps/v1", "Deployment", "shop", "web", &v1)).is_ok_and(|done| done.is_ok())
    })?;
    wait_for("the Deployment's pod", || world.pod_images("shop", "web") == [pinned("v1", &pushed.digest)])?;
    world.plane.kubectl("developer", &["scale", "deployment/web", "-n", "shop", "--replicas=3"])?;
    wait_for("three pods", || world.pod_images("shop", "web").len() == 3)?;
    world.plane.kubectl("developer", &["set", "image", "deployment/web", "-n", "shop", &format!("web={v2}")])?;
    let rolled = pinned("v2", &second.digest);
    wait_for("a rolling update", || world.pod_images("shop", "web").contains(&rolled))?;
    let unsigned = world.image("team/app", "v3");
    let update = world
        .plane
        .try_kubectl("developer", &["set", "image", "deployment/web", "-n", "shop", &format!("web={unsigned}")])?;
    assert!(update.code != 0 && update.stderr.contains("no signed target v3"), "{update:?}");
    // A node, so that the DaemonSet has somewhere to go.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}});
    assert_eq!(world.plane.send("admin", "create", &node.to_string())?.code, 0);
    let kinds = [
        ("apps/v1", "StatefulSet", "stateful"),
        ("apps/v1", "DaemonSet", "daemon"),
        ("apps/v1", "ReplicaSet", "replicas"),
        ("v1", "ReplicationController", "controller"),
        ("batch/v1", "Job", "job"),
        (world.cron_jobs(), "CronJob", "cron"),
        ("v1", "Pod", "bare"),
    ];
    for (api_version, kind, name) in kinds {
        let mut object = workload(api_version, kind, "shop", name, &v1);
        let mut denied = workload(api_version, kind, "shop", &format!("{name}-unsigned"), &unsigned);
        if kind == "ReplicationController" {
            for object in [&mut object, &mut denied] {
                object["spec"]["selector"] = object["metadata"]["labels"].clone();
            }
        }
        assert_eq!(world.create(&object)?, Ok(()), "{kind}");
        let said = format!(
            "Deny \"{unsigned}\", failed to get content trust information: no signed target v3 in {repository}: targets/alice"
        );
        let result = world.create(&denied)?;
        let message = result.as_ref().err().map(String::as_str).unwrap_or_default();
        assert!(message.contains(&said[..said.len() - ": targets/alice".len()]), "{kind}: {result:?}");
    }
    for name in ["stateful", "daemon", "replicas", "controller", "job", "bare"] {
        wait_for(name, || world.pod_images("shop", name) == [pinned("v1", &pushed.digest)])?;
    }
    let multi = world.image("team/app", "multi");
    assert_eq!(world.create(&pod("shop", "multi", &multi))?, Ok(()));
    assert_eq!(world.pod_images("shop", "multi"), [pinned("multi", &list.digest)]);
    deployment_config(world, &v1, &unsigned, &pinned("v1", &pushed.digest))
}

/// A kind that only `OpenShift` has, which this API server only knows by a definition.
fn deployment_config(world: &World, signed: &str, unsigned: &str, pinned: &str) -> Result<(), Problem> {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "deploymentconfigs.apps.openshift.io", "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
        "spec": {
            "group": "apps.openshift.io", "scope": "Namespaced", "names": {"kind": "DeploymentConfig", "plural": "deploymentconfigs"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    world.plane.apply(&definition.to_string())?;
    wait_for("the definition", || world.plane.get(&["deploymentconfigs.apps.openshift.io", "-n", "shop"]).is_ok())?;
    let object =
        |name: &str, image: &str| workload("apps.openshift.io/v1", "DeploymentConfig", "shop", name, image).to_string();
    let created = world.plane.send("admin", "create", &object("dc", signed))?;
    assert_eq!(created.code, 0, "{created:?}");
    let stored = world.plane.get(&["deploymentconfigs.apps.openshift.io", "dc", "-n", "shop"])?;
    assert_eq!(stored["spec"]["template"]["spec"]["containers"][0]["image"], pinned);
    let denied = world.plane.send("admin", "create", &object("dc2", unsigned))?;
    assert!(denied.code != 0 && denied.stderr.contains("no signed target v3"), "{denied:?}");
    Ok(())
}

/// Puts a container into the running pod `bare`, in one way, once with an unsigned image and once with a signed one.
fn ephemeral_container(
    world: &World,
    container: &str,
    add: impl Fn(&str) -> Result<Finished, Problem>,
) -> Result<(), Problem> {
    let denied = add(&world.image("team/app", "v3"))?;
    assert!(denied.code != 0 && denied.stderr.contains("no signed target v3"), "{denied:?}");
    let added = add(&world.image("team/app", "v1"))?;
    assert_eq!(added.code, 0, "{added:?}");
    let pod = world.plane.get(&["pod", "bare", "-n", "shop"])?;
    let containers = pod["spec"]["ephemeralContainers"].as_array().cloned().unwrap_or_default();
    let found = containers.iter().find(|found| found["name"] == container).ok_or("it was not added")?;
    assert!(found["image"].as_str().is_some_and(|image| image.contains("@sha256:")), "{found}");
    Ok(())
}

/// A container that is put into a running pod is looked at like any other: as an object of its own.
pub(crate) fn ephemeral_containers_object(world: &mut World) -> Result<(), Problem> {
    ephemeral_container(world, "debug", |image| {
        let containers = json!({
            "apiVersion": "v1", "kind": "EphemeralContainers", "metadata": {"name": "bare", "namespace": "shop"},
            "ephemeralContainers": [{"name": "debug", "image": image}],
        });
        let path = "/api/v1/namespaces/shop/pods/bare/ephemeralcontainers";
        world.plane.user("admin").send_raw("replace", path, &containers.to_string())
    })
}

/// The same, as `kubectl debug` does it and as anybody can: by a change of the pod through the subresource.
pub(crate) fn ephemeral_containers_debug(world: &mut World) -> Result<(), Problem> {
    ephemeral_container(world, "debug", |image| {
        let image = format!("--image={image}");
        world.plane.try_kubectl("admin", &["debug", "bare", "-n", "shop", "--container=debug", &image])
    })?;
    ephemeral_container(world, "patched", |image| {
        let patch = json!({"spec": {"ephemeralContainers": [{"name": "patched", "image": image}]}}).to_string();
        let subresource = "--subresource=ephemeralcontainers";
        world.plane.try_kubectl("admin", &["patch", "pod", "bare", "-n", "shop", subresource, "-p", &patch])
    })
}

/// The former templates of a `StatefulSet`, from which its controller makes pods, are no way around the gate: the controller may
/// write them, and everybody else only with signed images in them.
pub(crate) fn revisions(world: &mut World) -> Result<(), Problem> {
    let of_stateful = |world: &World| world.plane.get(&["controllerrevisions", "-n", "shop", "-l", "app=stateful"]);
    let v2 = world.image("team/app", "v2");
    world.plane.kubectl("developer", &["set", "image", "statefulset/stateful", "-n", "shop", &format!("web={v2}")])?;
    wait_for("a second revision", || {
        of_stateful(world).is_ok_and(|found| found["items"].as_array().map(Vec::len) == Some(2))
    })?;
    world.plane.kubectl("developer", &["rollout", "undo", "statefulset/stateful", "-n", "shop"])?;
    let stored = of_stateful(world)?["items"][0].clone();
    let name = stored["metadata"]["name"].as_str().ok_or("a revision without a name")?.to_owned();
    let image = "/data/spec/template/spec/containers/0/image";
    let signed = stored.pointer(image).and_then(Value::as_str).ok_or("a revision without an image")?.to_owned();
    assert!(signed.contains("@sha256:"), "the controller's revision is of the pinned template: {signed}");
    let with = |image_now: &str, owners: Value| {
        let mut forged = stored.clone();
        forged["metadata"] = json!({"name": name, "namespace": "shop", "labels": stored["metadata"]["labels"], "ownerReferences": owners});
        *forged.pointer_mut(image).expect("it is there") = json!(image_now);
        forged.to_string()
    };
    world.plane.kubectl("admin", &["delete", "controllerrevision", &name, "-n", "shop", "--cascade=orphan"])?;
    let owners = stored["metadata"]["ownerReferences"].clone();
    let mut of_nobody_known = owners.clone();
    of_nobody_known[0]["kind"] = json!("Odd");
    of_nobody_known[0]["apiVersion"] = json!("example.com/v1");
    let unsigned = world.image("team/app", "v3");
    for owners in [owners.clone(), of_nobody_known, json!([])] {
        let denied = world.plane.send("admin", "create", &with(&unsigned, owners))?;
        assert!(denied.code != 0 && denied.stderr.contains("no signed target v3"), "{denied:?}");
    }
    // What would be pinned elsewhere must be so here: a revision is never changed.
    let tag = world.image("team/app", "v1");
    let denied = world.plane.send("admin", "create", &with(&tag, owners.clone()))?;
    let repository = format!("{}/team/app", world.registry.host);
    let said = format!(
        "Deny \"{tag}\", the image must be named by its digest here, as nothing else can be put in its place: {repository}:v1@sha256:"
    );
    assert!(denied.code != 0 && denied.stderr.contains(&said), "{denied:?}");
    let created = world.plane.send("admin", "create", &with(&signed, owners))?;
    assert!(created.code == 0 || created.stderr.contains("AlreadyExists"), "{created:?}");
    Ok(())
}

/// An owner reference that anybody can write is no pass.
pub(crate) fn forged_owners(world: &mut World) -> Result<(), Problem> {
    let owner = world.plane.get(&["replicaset", "replicas", "-n", "shop"])?;
    let mut forged = pod("shop", "forged", &world.image("team/app", "v3"));
    forged["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "replicas", "uid": owner["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    }]);
    let result = world.create(&forged)?;
    assert!(result.as_ref().is_err_and(|message| message.contains("no signed target v3")), "{result:?}");
    Ok(())
}

/// A cluster policy's signer is not whoever a tenant says.
pub(crate) fn tenants_secret(world: &mut World) -> Result<(), Problem> {
    world.namespace("tenant")?;
    world.sign("team/shared", "v1", "mallory")?;
    let name = format!("{}/team/shared", world.registry.host);
    world.policy(None, "shared", &json!({"repositories": [{"name": name, "policy": world.trust(&["owner"])}]}))?;
    // Mallory signed it, and puts her key where a careless webhook would look.
    world.signer_secret("tenant", "owner", "mallory")?;
    let image = world.image("team/shared", "v1");
    let words = format!(
        "Deny \"{image}\", could not get signerSecret from your cluster, name, or publicKey field in secret owner is empty (secret not found)"
    );
    world.settled(&pod("tenant", "p", &image), &words)?;
    world.signer_secret("countersign", "owner", "mallory")?;
    wait_for("the owner's secret", || world.create(&pod("tenant", "p", &image)).is_ok_and(|done| done.is_ok()))?;
    assert_denied(
        &world.create(&pod("tenant", "q", "nginx"))?,
        "Deny \"nginx\", no matching repositories in ClusterImagePolicy and no ImagePolicies in the \"tenant\" namespace",
    );
    Ok(())
}

/// A trust server that wants a login gets that of the pod, or of its service account, and no other.
pub(crate) fn pull_secrets(world: &mut World) -> Result<(), Problem> {
    const PASSWORD: &str = "a-secret-of-the-cluster-test";
    let folder = world.folder.path().join("private");
    std::fs::create_dir(&folder)?;
    let gun = format!("{}/private/app", world.registry.host);
    let alice = User { password: PASSWORD.to_owned(), repositories: vec![gun.clone()] };
    let tokens = TokenServer::start(&world.ca, BTreeMap::from([("alice".to_owned(), alice)]))?;
    let address = format!("127.0.0.1:{}", free_port()?);
    let notary = NotaryServer::start_as(&address, Some(&tokens), &world.ca, &folder)?;
    let owner = Client::new(&notary.url, &world.ca, &folder.join("owner")).with_login(&format!("alice:{PASSWORD}"));
    owner.run(&["init", &gun, "--publish"])?;
    let pushed = world.registry.push("private/app", "v1", "private")?;
    owner.run(&["addhash", &gun, "v1", "523", "--sha256", &pushed.digest, "--publish"])?;

    world.namespace("private")?;
    let trust = json!({"trust": {"enabled": true, "trustServer": notary.url}});
    world.policy(Some("private"), "p", &json!({"repositories": [{"name": gun, "policy": trust}]}))?;
    for (name, password) in [("right", PASSWORD), ("wrong", "another password")] {
        let (server, password) =
            (format!("--docker-server={}", world.registry.host), format!("--docker-password={password}"));
        let create = [
            "create",
            "secret",
            "docker-registry",
            name,
            "-n",
            "private",
            &server,
            "--docker-username=alice",
            &password,
        ];
        world.plane.kubectl("admin", &create)?;
    }
    let image = world.image("private/app", "v1");
    let with = |name: &str, secret: Option<&str>| {
        let mut object = pod("private", name, &image);
        if let Some(secret) = secret {
            object["spec"]["imagePullSecrets"] = json!([{"name": secret}]);
        }
        object
    };
    let none = format!(
        "Deny \"{image}\", failed to get content trust information: {address} asks for a login, and there are no credentials for it; add a pull secret to the pod or its service account"
    );
    world.settled(&with("none", None), &none)?;
    let wrong = world.create(&with("wrong", Some("wrong")))?;
    assert!(wrong.as_ref().is_err_and(|message| message.contains("wrong user name, password or token")), "{wrong:?}");
    let account = r#"{"imagePullSecrets":[{"name":"right"}]}"#;
    world.plane.kubectl("admin", &["create", "serviceaccount", "builder", "-n", "private"])?;
    world.plane.kubectl("admin", &["patch", "serviceaccount", "builder", "-n", "private", "-p", account])?;
    let mut built = with("built", None);
    built["spec"]["serviceAccountName"] = json!("builder");
    wait_for("the account's token", || world.create(&built).is_ok_and(|done| done.is_ok()))?;
    assert_eq!(world.create(&with("own", Some("right")))?, Ok(()));
    assert!(!world.logs_hold(PASSWORD), "a password is in a log");
    Ok(())
}

/// The walk of `doctor`, with the policies and secrets of the cluster.
pub(crate) fn doctor(world: &mut World) -> Result<(), Problem> {
    let kubeconfig = world.plane.kubeconfig("admin").display().to_string();
    let ca = world.ca.ca.display().to_string();
    let walk = |image: &str| {
        Countersign::run(&["doctor", image, "-n", "shop", "--kubeconfig", &kubeconfig, "--trust-ca", &ca])
    };
    let good = walk(&world.image("team/app", "v1"))?;
    let steps = ["registration", "policy", "name", "connection", "https", "metadata", "signatures", "registry"];
    assert!(good.code == 0 && steps.iter().all(|step| good.stdout.contains(&format!("ok    {step}"))), "{good:?}");
    let unsigned = walk(&world.image("team/app", "v3"))?;
    assert!(
        unsigned.code == 1
            && unsigned.stdout.contains("FAIL  signatures")
            && unsigned.stdout.contains("docker trust sign"),
        "{unsigned:?}"
    );
    let unlisted = walk("nginx")?;
    assert!(unlisted.code == 1 && unlisted.stdout.contains("FAIL  policy"), "{unlisted:?}");
    Ok(())
}

/// The schedule's minute has come by now, or will.
pub(crate) fn cron_job(world: &mut World) -> Result<(), Problem> {
    wait_for("the CronJob's pod", || {
        let pods = world.plane.get(&["pods", "-n", "shop"]).unwrap_or_default();
        pods["items"].as_array().into_iter().flatten().any(|pod| {
            let job = pod["metadata"]["labels"]["job-name"].as_str().unwrap_or_default();
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
            job.starts_with("cron-") && image.contains("@sha256:")
        })
    })
}
