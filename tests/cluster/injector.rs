//! Webhooks of others that change pods after Countersign: what they bring in is judged like anything else.

use countersign_tests::{ADD, Injector, OWNER_UID, Problem, Release, SWAP, wait_for};
use serde_json::{Value, json};

use crate::world::{DENIED, World, pod, workload};

/// The namespace whose pods the injector changes.
const NAMESPACE: &str = "injected";

fn annotated(mut object: Value, at: &str, annotation: &str, image: &str) -> Value {
    let metadata = object.pointer_mut(at).expect("it is there");
    metadata["annotations"] = json!({annotation: image});
    object
}

/// Registers the injector behind Countersign, for a namespace of its own.
pub(crate) fn install(world: &mut World) -> Result<(), Problem> {
    world.sign("team/app", "v1", "alice")?;
    world.namespace(NAMESPACE)?;
    world.plane.kubectl("admin", &["label", "namespace", NAMESPACE, "injected=yes"])?;
    let injector = Injector::start(&world.ca)?;
    world.plane.apply(&injector.configuration("admissionregistration.k8s.io/v1", ("injected", "yes")).to_string())?;
    // It is in force once a pod comes out changed. The image is one that no check is asked of.
    let open = json!({"repositories": [
        {"name": "injector.example.com/*"},
        {"name": format!("{}/*", world.registry.host), "policy": world.trust(&["alice"])},
    ]});
    world.signer_secret(NAMESPACE, "alice", "alice")?;
    world.policy(Some(NAMESPACE), "injected", &open)?;
    let probe = annotated(
        pod(NAMESPACE, "probe", "injector.example.com/probe:1"),
        "/metadata",
        ADD,
        "injector.example.com/added:1",
    );
    wait_for("the injector", || {
        let _ = world.create(&probe);
        let stored = world.plane.get(&["pod", "probe", "-n", NAMESPACE]).unwrap_or_default();
        let is_there = stored["spec"]["containers"].as_array().map(Vec::len) == Some(2);
        if !is_there {
            let _ = world
                .plane
                .kubectl("admin", &["delete", "pod", "probe", "-n", NAMESPACE, "--grace-period=0", "--force"]);
        }
        is_there
    })
}

/// A pod that a user makes, and a webhook adds an unsigned container to.
pub(crate) fn into_a_pod(world: &mut World) -> Result<(), Problem> {
    let (signed, unsigned) = (world.image("team/app", "v1"), world.image("team/app", "v3"));
    for annotation in [ADD, SWAP] {
        let attack = annotated(pod(NAMESPACE, "attack", &signed), "/metadata", annotation, &unsigned);
        let refused = world.create(&attack)?.expect_err("an unsigned image was brought in");
        assert!(refused.contains(DENIED) && refused.contains("no signed target v3"), "{refused}");
        // A dry run is refused as well; by the API server itself where a webhook cannot say that it has no side effects.
        let file = world.folder.path().join("attack.json");
        std::fs::write(&file, attack.to_string())?;
        let file = file.display().to_string();
        let dry = world.plane.try_kubectl("developer", &["create", "--dry-run=server", "-f", &file])?;
        let words = if world.platform == "kubernetes" { "no signed target v3" } else { "does not support dry run" };
        assert!(dry.code != 0 && dry.stderr.contains(words), "{dry:?}");
    }
    Ok(())
}

/// An update of nothing but annotations, which the mutating webhook need not be asked about, and in which a webhook swaps an image.
pub(crate) fn into_an_update(world: &mut World) -> Result<(), Problem> {
    let (signed, unsigned) = (world.image("team/app", "v1"), world.image("team/app", "v3"));
    world.create(&pod(NAMESPACE, "updated", &signed))??;
    let operations = |operations: Value| {
        let patch =
            json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": operations}]).to_string();
        let configuration = ["mutatingwebhookconfiguration", "zz-injector", "--type", "json", "-p", &patch];
        world.plane.kubectl("admin", &[&["patch"], &configuration[..]].concat())
    };
    operations(json!(["CREATE", "UPDATE"]))?;
    let mut number = 0;
    let mut annotate = |image: &str| {
        number += 1;
        let (swap, number) = (format!("{SWAP}={image}"), format!("number={number}"));
        world
            .plane
            .try_kubectl("admin", &["annotate", "--overwrite", "pod", "updated", "-n", NAMESPACE, &swap, &number])
    };
    wait_for("a refusal of the unsigned image", || {
        annotate(&unsigned).is_ok_and(|done| done.code != 0 && done.stderr.contains("no signed target v3"))
    })?;
    let swapped = annotate(&signed)?;
    match world.plane.release {
        // Both webhooks are asked about each update, and the mutating one again after the swap.
        Release::V1_20 => assert_eq!(swapped.code, 0, "{swapped:?}"),
        Release::V1_37 => {
            let words = "not pinned to its signed digest";
            assert!(swapped.code != 0 && swapped.stderr.contains(words), "{swapped:?}");
        }
    }
    let stored = world.pod_images(NAMESPACE, "updated");
    assert!(stored.len() == 1 && stored[0].starts_with(&format!("{signed}@sha256:")), "{stored:?}");
    operations(json!(["CREATE"])).map(drop)
}

/// Waits until the `ReplicaSet` of a Deployment was refused its pods for an unsigned image. Gives what was said.
fn refused_its_pods(world: &World, app: &str) -> Result<String, Problem> {
    let label = format!("app={app}");
    let mut said = String::new();
    wait_for("the ReplicaSet to be refused its pods", || {
        let sets = world.plane.get(&["replicasets", "-n", NAMESPACE, "-l", &label]).unwrap_or_default();
        sets["items"][0]["status"]["conditions"][0]["message"].as_str().unwrap_or_default().clone_into(&mut said);
        said.contains("no signed target v3")
    })
    .map_err(|problem| format!("{problem}: {said}"))?;
    Ok(said)
}

/// A Deployment that is signed, and whose pods a webhook adds a container to.
pub(crate) fn into_a_child(world: &mut World) -> Result<(), Problem> {
    let (signed, unsigned) = (world.image("team/app", "v1"), world.image("team/app", "v3"));
    let deployment = |name: &str, image: &str| {
        let object = workload("apps/v1", "Deployment", NAMESPACE, name, &signed);
        annotated(object, "/spec/template/metadata", ADD, image)
    };
    world.create(&deployment("attack", &unsigned))?.map_err(|message| format!("the Deployment itself: {message}"))?;
    let said = refused_its_pods(world, "attack")?;
    assert!(said.contains("containers/injected is not in the template of ReplicaSet attack-"), "{said}");
    assert_eq!(world.pod_images(NAMESPACE, "attack"), Vec::<String>::new());
    world.plane.kubectl("admin", &["delete", "deployment", "attack", "-n", NAMESPACE])?;

    // One that is signed comes in, and pinned, as the mutating webhook is asked once more.
    world.create(&deployment("good", &signed))?.map_err(|message| format!("a signed sidecar: {message}"))?;
    wait_for("a pod with a signed sidecar", || {
        let pods = world.plane.get(&["pods", "-n", NAMESPACE, "-l", "app=good"]).unwrap_or_default();
        let images = pods["items"][0]["spec"]["containers"].as_array().cloned().unwrap_or_default();
        images.len() == 2
            && images.iter().all(|container| {
                container["image"].as_str().is_some_and(|image| image.starts_with(&format!("{signed}@sha256:")))
            })
    })
}

/// A pod that names the uid of an owner elsewhere, whose images no policy asks anything of: what was seen there counts there alone.
pub(crate) fn under_a_foreign_owner(world: &mut World) -> Result<(), Problem> {
    let (signed, unsigned) = (world.image("team/app", "v1"), world.image("team/app", "v3"));
    world.namespace("lax")?;
    world.policy(Some("lax"), "p", &json!({"repositories": [{"name": "*"}]}))?;
    let mut source = workload("apps/v1", "ReplicaSet", "lax", "source", &unsigned);
    source["spec"]["template"]["spec"]["containers"][0]["name"] = json!("injected");
    // So many that both replicas have seen the owner.
    source["spec"]["replicas"] = json!(8);
    wait_for("the lax policy", || world.create(&source).is_ok_and(|done| done.is_ok()))?;
    wait_for("the pods of the lax owner", || world.pod_images("lax", "source").len() == 8)?;
    let uid = world.plane.get(&["replicaset", "source", "-n", "lax"])?["metadata"]["uid"].clone();
    let mut attack = workload("apps/v1", "Deployment", NAMESPACE, "foreign", &signed);
    attack["spec"]["template"]["metadata"]["annotations"] = json!({ADD: unsigned, OWNER_UID: uid});
    world.create(&attack)??;
    refused_its_pods(world, "foreign")?;
    world.plane.kubectl("admin", &["delete", "deployment", "foreign", "-n", NAMESPACE])?;
    Ok(())
}

/// On `OpenShift` 3.11 nobody asks the mutating webhook again: what has lost its pin is refused, in words that help.
pub(crate) fn without_reinvocation(world: &mut World) -> Result<(), Problem> {
    let signed = world.image("team/app", "v1");
    for annotation in [ADD, SWAP] {
        let object = annotated(pod(NAMESPACE, "lost", &signed), "/metadata", annotation, &signed);
        let refused = world.create(&object)?.expect_err("it is not pinned");
        let said = format!("{DENIED}Deny \"{signed}\", not pinned to its signed digest sha256:");
        assert!(
            refused.contains(&said) && refused.contains("another webhook changed it after Countersign"),
            "{refused}"
        );
    }
    Ok(())
}
