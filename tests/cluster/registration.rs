//! Installing, upgrading, rolling back and uninstalling: who is asked about what, and when.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_tests::{Countersign, Finished, Kubectl, Problem, Release, run, wait_for};
use serde_json::{Value, json};

use crate::world::{DENIED, World, pod, workload};

const MUTATING: &str = "mutatingwebhookconfiguration";
const VALIDATING: &str = "validatingwebhookconfiguration";

/// Every entry of both configurations.
fn entries(world: &World) -> Vec<Value> {
    let of = |configuration| world.plane.get(&[configuration, "countersign"]).unwrap_or_default();
    let lists = [MUTATING, VALIDATING].map(|configuration| of(configuration)["webhooks"].as_array().cloned());
    lists.into_iter().flatten().flatten().collect()
}

/// The same, to be compared: of a `caBundle` only whether there is one, as the authorities in it may change at any time.
fn registration(world: &World) -> Vec<Value> {
    let mut entries = entries(world);
    for entry in &mut entries {
        let bundle = &mut entry["clientConfig"]["caBundle"];
        *bundle = json!(bundle.as_str().is_some_and(|text| text.len() > 100));
    }
    entries
}

fn has_rules(entry: &Value) -> bool {
    entry["rules"].as_array().is_some_and(|rules| !rules.is_empty())
}

/// Waits until all entries are as a replica leaves them.
pub(crate) fn registered(world: &World) -> Result<(), Problem> {
    let mut last = Vec::new();
    wait_for("rules and caBundle of each webhook", || {
        last = registration(world);
        last.len() == 3 && last.iter().all(|entry| has_rules(entry) && entry["clientConfig"]["caBundle"] == true)
    })
    .map_err(|problem| format!("{problem}: {last:?}").into())
}

fn patch(world: &World, configuration: &str, patch: &Value) -> Result<String, Problem> {
    world.plane.kubectl("admin", &["patch", configuration, "countersign", "--type", "json", "-p", &patch.to_string()])
}

/// What the pod of `helm test` does, as the service account that it has: there is no kubelet here that would run it.
pub(crate) fn helm_test(world: &World) -> Result<Finished, Problem> {
    let kubeconfig = world.plane.service_account("countersign", "countersign")?.display().to_string();
    Countersign::run(&["doctor", "--require-registration", "--kubeconfig", &kubeconfig])
}

/// All is applied, and no replica ever starts, as when the image cannot be pulled: nothing is enforced, and nothing locked.
pub(crate) fn nobody_serves(world: &mut World) -> Result<(), Problem> {
    world.plane.apply(&world.installation()?)?;
    let stored = entries(world);
    assert!(stored.len() == 3 && !stored.iter().any(has_rules), "{stored:?}");
    let kubeconfig = world.plane.kubeconfig("admin").display().to_string();
    let doctor = Countersign::run(&["doctor", "--kubeconfig", &kubeconfig])?;
    let words = "WARN  registration";
    assert!(doctor.stdout.matches(words).count() == 3 && doctor.stdout.contains("no replica serves yet"), "{doctor:?}");
    assert_eq!(doctor.code, 0, "{doctor:?}");
    let tested = helm_test(world)?;
    assert!(tested.code == 3 && tested.stdout.matches("FAIL  registration").count() == 3, "{tested:?}");
    world.namespace("early")?;
    for namespace in ["early", "kube-system", "default"] {
        let created = world.plane.send("admin", "create", &pod(namespace, "early", "nginx").to_string())?;
        assert_eq!(created.code, 0, "{namespace}: {created:?}");
        world.plane.kubectl("admin", &["delete", "pod", "early", "-n", namespace, "--force", "--grace-period=0"])?;
    }
    let deployment = workload("apps/v1", "Deployment", "early", "early", "nginx");
    world.create(&deployment)??;
    wait_for("its pod", || world.pod_images("early", "early") == ["nginx"])?;
    world.plane.kubectl("admin", &["delete", "deployment", "early", "-n", "early"])?;
    Ok(())
}

/// The first replica: enforcement begins with it. Until then everything is admitted, and from then on Countersign
/// itself says no: at no moment is the API server without somebody to ask.
pub(crate) fn first_replica(world: &mut World) -> Result<(), Problem> {
    let replica = world.start_replica()?;
    world.replicas.push(replica);
    world.set_backends();
    let mut number = 0;
    let mut odd = None;
    wait_for("the first denial", || {
        number += 1;
        match world.create(&pod("early", &format!("p{number}"), "nginx")) {
            Ok(Ok(())) => false,
            Ok(Err(message)) => {
                odd = Some(message).filter(|message| !message.contains(DENIED));
                true
            }
            Err(problem) => {
                odd = Some(problem.to_string());
                true
            }
        }
    })?;
    assert_eq!(odd, None);
    registered(world)
}

/// What somebody takes away or changes comes back, and so do the rules of manifests of the former form, which `kubectl apply` removes.
pub(crate) fn put_back(world: &mut World) -> Result<(), Problem> {
    let before = registration(world);
    let same = |world: &World| wait_for("the registration as it was", || registration(world) == before);
    let only_pods =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]);
    for (configuration, index) in [(MUTATING, 0), (VALIDATING, 0), (VALIDATING, 1)] {
        let at = |member: &str| format!("/webhooks/{index}/{member}");
        patch(world, configuration, &json!([{"op": "remove", "path": at("rules")}]))?;
        same(world)?;
        patch(world, configuration, &json!([{"op": "replace", "path": at("rules"), "value": only_pods}]))?;
        same(world)?;
        if world.plane.release == Release::V1_37 {
            let never = json!([{"name": "never", "expression": "false"}]);
            patch(world, configuration, &json!([{"op": "add", "path": at("matchConditions"), "value": never}]))?;
            same(world)?;
        }
    }
    let manifests = world.webhooks_here()?;
    let former: Vec<String> = manifests
        .iter()
        .map(|object| {
            let mut object = object.clone();
            for entry in object["webhooks"].as_array_mut().into_iter().flatten() {
                entry["rules"] = only_pods.clone();
            }
            object.to_string()
        })
        .collect();
    for text in &former {
        world.plane.apply(text)?;
    }
    same(world)?;
    for object in &manifests {
        world.plane.apply(&object.to_string())?;
    }
    same(world)?;
    // Without kubectl's note of the former form, nothing is removed.
    for (text, object) in former.iter().zip(&manifests) {
        world.plane.apply(text)?;
        same(world)?;
        let kind = object["kind"].as_str().unwrap_or_default();
        let note = "kubectl.kubernetes.io/last-applied-configuration-";
        world.plane.kubectl("admin", &["annotate", kind, "countersign", note])?;
        world.plane.apply(&object.to_string())?;
        assert_eq!(registration(world), before);
    }
    Ok(())
}

/// What tools that compare a cluster with its manifests see: no difference. And what they apply leaves the registration as it is.
pub(crate) fn no_drift(world: &mut World) -> Result<(), Problem> {
    let before = registration(world);
    for object in world.webhooks_here()? {
        let text = object.to_string();
        world.plane.apply(&text)?;
        let difference = world.plane.send("admin", "diff", &text)?;
        assert!(difference.code == 0 && difference.stdout.is_empty(), "{difference:?}");
        let by_server = world.plane.send_with("admin", &["apply", "--server-side", "--force-conflicts"], &text)?;
        assert_eq!(by_server.code, 0, "{by_server:?}");
        let difference = world.plane.send_with("admin", &["diff", "--server-side", "--force-conflicts"], &text)?;
        assert!(difference.code == 0 && difference.stdout.is_empty(), "{difference:?}");
    }
    assert_eq!(registration(world), before);
    Ok(())
}

/// A chart that is upgraded, in both of helm's ways.
pub(crate) fn chart_upgrades(world: &mut World) -> Result<(), Problem> {
    let before = registration(world);
    for way in [&["--server-side=false"][..], &["--server-side=true", "--force-conflicts"]] {
        for replicas in ["replicas=2", "replicas=3"] {
            world.helm_upgrade(&[way, &["--set", replicas]].concat())?;
            let deployment = world.plane.get(&["deployment", "countersign", "-n", "countersign"])?;
            assert_eq!(format!("replicas={}", deployment["spec"]["replicas"]), replicas);
            assert_eq!(registration(world), before, "{way:?} {replicas}");
        }
    }
    Ok(())
}

/// How often the webhooks were asked about an update of an object of that name.
fn updates(world: &World, name: &str) -> usize {
    let asked = format!("name=\"{name}\"");
    let of =
        |log: String| log.lines().filter(|line| line.contains("operation=\"UPDATE\"") && line.contains(&asked)).count();
    world.replicas.iter().map(|replica| of(replica.part.log_text())).sum()
}

/// An update that leaves the spec as it is reaches nobody where the API server can tell; one that changes an image does.
pub(crate) fn conditions(world: &mut World) -> Result<(), Problem> {
    const NAMESPACE: &str = "conditions";
    let has_conditions = world.plane.release == Release::V1_37;
    let with: Vec<bool> = entries(world).iter().map(|entry| entry["matchConditions"].is_array()).collect();
    assert_eq!(with, [has_conditions, has_conditions, false]);
    assert_eq!(world.logs_hold("has no matchConditions"), !has_conditions);
    world.namespace(NAMESPACE)?;
    world.policy(Some(NAMESPACE), "p", &json!({"repositories": [{"name": "listed.example.com/*"}]}))?;
    let image = "listed.example.com/app:1";
    let mut small = pod(NAMESPACE, "small", image);
    small["spec"]["initContainers"] = json!([{"name": "init", "image": image}]);
    let mut large = pod(NAMESPACE, "large", image);
    let many = (0..900).map(|number| json!({"name": format!("c{number}"), "image": image}));
    large["spec"]["containers"] = many.collect();
    wait_for("the policy", || world.create(&small).is_ok_and(|done| done.is_ok()))?;
    // The cost of a condition is bounded: one that grew with the containers would be an error for such a pod.
    let mut objects = vec![("pod/small", "small"), ("deployment/deployment", "deployment")];
    if has_conditions {
        world.create(&large)??;
        objects.push(("pod/large", "large"));
    }
    world.create(&workload("apps/v1", "Deployment", NAMESPACE, "deployment", image))??;
    let template = json!({"metadata": {}, "spec": {"containers": [{"name": "web", "image": image}]}});
    let template = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "template", "namespace": NAMESPACE}, "template": template});
    world.plane.apply(&template.to_string())?;
    let kubectl = |arguments: &[&str]| world.plane.try_kubectl("admin", &[arguments, &["-n", NAMESPACE]].concat());
    for (object, name) in objects {
        let before = updates(world, name);
        let labelled = kubectl(&["label", object, "seen=yes"])?;
        assert_eq!(labelled.code, 0, "{labelled:?}");
        assert_eq!(updates(world, name) > before, !has_conditions, "{object}");
    }
    // Of what has no spec, the API server can tell nothing.
    assert_eq!(kubectl(&["label", "podtemplate/template", "seen=yes"])?.code, 0);
    assert!(updates(world, "template") > 0);
    let evil = "evil.example.com/app:1";
    let images: &[(&str, &str)] = &[
        ("pod/small", "/spec/containers/0/image"),
        ("pod/small", "/spec/initContainers/0/image"),
        ("deployment/deployment", "/spec/template/spec/containers/0/image"),
        ("podtemplate/template", "/template/spec/containers/0/image"),
    ];
    let denied = |done: &Finished| done.code != 0 && done.stderr.contains(DENIED) && done.stderr.contains(evil);
    let refuse = |object: &str, path: &str| -> Result<(), Problem> {
        let patch = json!([{"op": "replace", "path": path, "value": evil}]).to_string();
        let refused = kubectl(&["patch", object, "--type", "json", "-p", &patch])?;
        assert!(denied(&refused), "{object} {path}: {refused:?}");
        Ok(())
    };
    for (object, path) in images {
        refuse(object, path)?;
    }
    let volumes = json!([{"name": "v", "image": {"reference": evil}}]);
    let volume = json!({"spec": {"template": {"spec": {"volumes": volumes}}}}).to_string();
    if has_conditions {
        refuse("pod/large", "/spec/containers/899/image")?;
        let refused = kubectl(&["patch", "deployment/deployment", "-p", &volume])?;
        assert!(denied(&refused), "an image volume: {refused:?}");
        let ephemeral = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": evil}]}}).to_string();
        for object in ["small", "large"] {
            let refused = kubectl(&["patch", "pod", object, "--subresource=ephemeralcontainers", "-p", &ephemeral])?;
            assert!(denied(&refused), "an ephemeral container: {refused:?}");
        }
    }
    Ok(())
}

/// A kind that the configuration names is registered by its resource. As nobody knows where such a kind has its pod template,
/// there is no condition then.
pub(crate) fn further_kinds(world: &mut World) -> Result<(), Problem> {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"kind": "Widget", "plural": "widgets"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    world.plane.apply(&definition.to_string())?;
    wait_for("the definition", || world.plane.get(&["widgets.example.com", "-n", "early"]).is_ok())?;
    let config = world.folder.path().join("kinds.yaml");
    let kinds = json!({"kinds": [{"group": "example.com", "kind": "Widget", "resource": "widgets", "pod-template": "/pods/template"}, {"group": "example.com", "kind": "Gadget", "pod-template": "/pods/template"}]});
    std::fs::write(&config, kinds.to_string())?;
    let before = registration(world);
    world.roll(&["--config", &config.display().to_string()])?;
    assert!(world.logs_hold("this kind is not registered") && world.logs_hold("kind=\"Gadget\""), "nobody says so");
    wait_for("the rules of the kind", || {
        let entries = entries(world);
        let rules = |entry: &Value| entry["rules"].to_string().contains("widgets");
        entries.iter().map(rules).collect::<Vec<_>>() == [true, true, false]
            && entries.iter().all(|entry| entry["matchConditions"].is_null())
    })?;
    let widget = |image: &str| {
        let template = json!({"spec": {"containers": [{"name": "web", "image": image}]}});
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "early"}, "pods": {"template": template}}).to_string()
    };
    world.policy(Some("early"), "p", &json!({"repositories": [{"name": "listed.example.com/*"}]}))?;
    let listed = "listed.example.com/app:1";
    wait_for("the policy", || world.plane.send("admin", "create", &widget(listed)).is_ok_and(|done| done.code == 0))?;
    let refused = world.plane.send("admin", "replace", &widget("evil.example.com/app:1"))?;
    assert!(refused.code != 0 && refused.stderr.contains(DENIED), "{refused:?}");
    world.roll(&[])?;
    wait_for("the registration as it was", || registration(world) == before)
}

/// What came of pods that were created all the while.
#[derive(Debug, Default)]
struct Creations {
    honest: usize,
    unsigned: usize,
    wrong: Vec<String>,
}

fn create_all_the_while(stop: &AtomicBool, rounds: &AtomicUsize, user: &Kubectl) -> Creations {
    let mut creations = Creations::default();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let created = |name: &str, image: &str| {
            user.send("create", &pod("rolling", &format!("{name}-{number}"), image).to_string())
        };
        match created("honest", "listed.example.com/app:1") {
            Ok(done) if done.code == 0 => creations.honest += 1,
            other => creations.wrong.push(format!("{other:?}")),
        }
        match created("unsigned", "evil.example.com/app:1") {
            Ok(done) if done.code != 0 && done.stderr.contains(DENIED) => creations.unsigned += 1,
            other => creations.wrong.push(format!("{other:?}")),
        }
        rounds.store(number + 1, Ordering::SeqCst);
    }
    creations
}

/// An upgrade and a rollback, with the manifests applied before each: no unsigned pod gets in, and no honest one is refused.
pub(crate) fn upgrade_and_rollback(world: &mut World) -> Result<(), Problem> {
    world.namespace("rolling")?;
    world.policy(Some("rolling"), "p", &json!({"repositories": [{"name": "listed.example.com/*"}]}))?;
    wait_for("the policy", || {
        world.create(&pod("rolling", "first", "listed.example.com/app:1")).is_ok_and(|done| done.is_ok())
    })?;
    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let creating = {
        let (stop, rounds, user) = (Arc::clone(&stop), Arc::clone(&rounds), world.plane.user("developer"));
        std::thread::spawn(move || create_all_the_while(&stop, &rounds, &user))
    };
    // Two whole rounds in each state, however busy the machine is.
    let created = || {
        let before = rounds.load(Ordering::SeqCst);
        wait_for("more pods", || rounds.load(Ordering::SeqCst) > before + 2)
    };
    let rolled = (|| {
        for image in ["registry.example.com/countersign:next", "countersign.example.com/countersign:test"] {
            let objects = world.installation_here(&["--image", image])?;
            world.plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())?;
            created()?;
            world.roll(&[])?;
            created()?;
        }
        Ok::<_, Problem>(())
    })();
    stop.store(true, Ordering::SeqCst);
    let creations = creating.join().map_err(|_| "the creations broke")?;
    rolled?;
    assert!(creations.wrong.is_empty() && creations.honest >= 8 && creations.unsigned >= 8, "{creations:?}");
    Ok(())
}

/// The webhook configurations are deleted while replicas run: nobody makes them again, and nothing is locked. One that is
/// applied again is registered again.
pub(crate) fn deleted(world: &mut World) -> Result<(), Problem> {
    let text = "there is no MutatingWebhookConfiguration countersign";
    let said = |world: &World| {
        world.replicas.iter().map(|replica| replica.part.log_text().matches(text).count()).collect::<Vec<_>>()
    };
    let before = said(world);
    world.plane.kubectl("admin", &["delete", &format!("{MUTATING},{VALIDATING}"), "countersign"])?;
    wait_for("word of it from each replica", || said(world).iter().zip(&before).all(|(now, before)| now > before))?;
    let unsigned = |name: &str| pod("rolling", name, "evil.example.com/app:1");
    world.create(&unsigned("after-1"))??;
    for object in world.webhooks_here()? {
        world.plane.apply(&object.to_string())?;
    }
    registered(world)?;
    wait_for("enforcement", || {
        world.create(&unsigned("after-2")).is_ok_and(|done| done.is_err_and(|message| message.contains(DENIED)))
    })?;
    // Deleted once more, and then the replicas end as well.
    world.plane.kubectl("admin", &["delete", &format!("{MUTATING},{VALIDATING}"), "countersign"])?;
    for mut replica in world.replicas.drain(..) {
        run(Command::new("kill").args(["-TERM", &replica.part.id().to_string()]))?;
        assert!(replica.part.ended()?.success());
    }
    assert_eq!(entries(world), Vec::<Value>::new());
    world.create(&unsigned("after-3"))?.map_err(Problem::from)
}

/// With a certificate that Countersign does not make, enforcement waits for somebody to bring the `caBundle`: the API server
/// could not verify who answers.
pub(crate) fn certificate_of_somebody_else(world: &mut World) -> Result<(), Problem> {
    for object in world.webhooks_here()? {
        world.plane.apply(&object.to_string())?;
    }
    let replica = world.start_replica_with_files()?;
    replica.ready()?;
    world.replicas.push(replica);
    world.set_backends();
    wait_for("word of the caBundle", || world.logs_hold("has no caBundle yet"))?;
    assert!(!entries(world).iter().any(has_rules));
    world.create(&pod("rolling", "unverified", "evil.example.com/app:1"))??;
    // As cert-manager does it.
    let bundle = STANDARD.encode(std::fs::read(&world.ca.ca)?);
    for (configuration, index) in [(MUTATING, 0), (VALIDATING, 0), (VALIDATING, 1)] {
        let path = format!("/webhooks/{index}/clientConfig/caBundle");
        patch(world, configuration, &json!([{"op": "add", "path": path, "value": bundle}]))?;
    }
    registered(world)?;
    assert!(entries(world).iter().all(|entry| entry["clientConfig"]["caBundle"] == bundle.as_str()));
    let mut last = None;
    wait_for("enforcement", || {
        last = world.create(&pod("rolling", "verified", "evil.example.com/app:1")).ok().and_then(Result::err);
        last.is_some()
    })?;
    assert!(last.as_ref().is_some_and(|message| message.contains(DENIED)), "{last:?}");
    Ok(())
}
