//! What is down, comes back, or changes while everything runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use countersign_tests::{Countersign, Kubectl, NotaryServer, Problem, wait_for};
use serde_json::{Value, json};

use crate::world::{DENIED, World, pod, workload};

/// Applies a Deployment of one signed image as a developer, in one of kubectl's two ways.
fn apply_again(world: &World, name: &str, more: &[&str]) -> Result<(), Problem> {
    let file = world.folder.path().join("applied.json");
    let object = workload("apps/v1", "Deployment", "shop", name, &world.image("team/app", "v1"));
    std::fs::write(&file, object.to_string())?;
    let file = file.display().to_string();
    world.plane.kubectl("developer", &[&["apply", "-f", &file], more].concat())?;
    Ok(())
}

/// Workloads that go on while the trust server is down: a `StatefulSet` half-way through an update, a Job, and
/// Deployments that were applied.
pub(crate) fn before_it_is_down(world: &mut World) -> Result<(), Problem> {
    let (v1, v2) = (world.image("team/app", "v1"), world.image("team/app", "v2"));
    let mut half = workload("apps/v1", "StatefulSet", "shop", "half", &v1);
    half["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    world.create(&half)??;
    wait_for("its pod", || world.pod_images("shop", "half").len() == 1)?;
    world.plane.kubectl("developer", &["set", "image", "statefulset/half", "-n", "shop", &format!("web={v2}")])?;
    world.create(&workload("batch/v1", "Job", "shop", "steady", &v1))??;
    wait_for("the Job's pod", || world.pod_images("shop", "steady").len() == 1)?;
    apply_again(world, "by-client", &[])?;
    apply_again(world, "by-server", &["--server-side"])
}

/// Deletes the pod of a workload, and waits for another one. Gives its image.
fn made_again(world: &World, app: &str) -> Result<String, Problem> {
    let label = format!("app={app}");
    let of_app = |world: &World| world.plane.get(&["pods", "-n", "shop", "-l", &label]).unwrap_or_default();
    let uid = |pods: &Value| pods["items"][0]["metadata"]["uid"].as_str().map(str::to_owned);
    let before = of_app(world);
    let name = before["items"][0]["metadata"]["name"].as_str().ok_or("no pod")?.to_owned();
    world.plane.kubectl("admin", &["delete", "pod", &name, "-n", "shop", "--force", "--grace-period=0"])?;
    let mut image = String::new();
    wait_for("another pod", || {
        let pods = of_app(world);
        pods["items"][0]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().clone_into(&mut image);
        uid(&pods).is_some() && uid(&pods) != uid(&before)
    })?;
    Ok(image)
}

/// The cluster's own controllers keep workloads alive that were admitted, whatever the trust server does.
pub(crate) fn trust_server_down(world: &mut World) -> Result<(), Problem> {
    world.notary = None;
    made_again(world, "replicas")?;
    // Nobody else is let through on that account: once what was verified is no longer fresh, it is a denial.
    let image = world.image("team/app", "v1");
    let mut last = Ok(());
    wait_for("a refusal, once the refresh time is over", || {
        last = world.create(&pod("shop", "while-down", &image)).unwrap_or(Ok(()));
        if last.is_ok() {
            let _ = world
                .plane
                .kubectl("admin", &["delete", "pod", "while-down", "-n", "shop", "--force", "--grace-period=0"]);
        }
        last.is_err()
    })?;
    let message = last.expect_err("refused");
    assert!(message.contains(DENIED) && message.contains(&format!("127.0.0.1:{}", world.notary_port)), "{message}");
    // The former template of a StatefulSet is in its revision alone; a Job's is in the Job.
    for app in ["half", "steady"] {
        let made = made_again(world, app)?;
        assert!(made.starts_with(&format!("{image}@sha256:")), "{app}: {made}");
    }
    // The same file once more takes the digest away, which nobody can find out anew just now: it is put back.
    for (name, more) in [("by-client", &[][..]), ("by-server", &["--server-side"])] {
        apply_again(world, name, more)?;
        let stored = world.plane.get(&["deployment", name, "-n", "shop"])?;
        let stored =
            stored["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
        assert!(stored.starts_with(&format!("{image}@sha256:")), "{name}: {stored}");
        world.plane.kubectl("developer", &["scale", &format!("deployment/{name}"), "-n", "shop", "--replicas=2"])?;
        let other = format!("web={}", world.image("team/app", "v2"));
        let update = ["set", "image", &format!("deployment/{name}"), "-n", "shop", &other];
        assert_ne!(world.plane.try_kubectl("developer", &update)?.code, 0, "nobody knows what v2 is just now");
    }
    // A server that comes back without its data (it keeps it in memory) has nothing for anybody.
    world.notary = Some(NotaryServer::start_at(world.notary_port, &world.ca, world.folder.path())?);
    let words = "failed to get content trust information";
    let result = world.create(&pod("shop", "while-down", &image))?;
    assert!(result.as_ref().is_err_and(|message| message.contains(words)), "{result:?}");
    Ok(())
}

/// All replicas remember a repository, in a record that says what. An administrator accepts what it has become, and both take
/// note.
pub(crate) fn made_anew(world: &mut World) -> Result<(), Problem> {
    let gun = format!("{}/team/app", world.registry.host);
    let records = world.plane.get(&["trustrecords", "-n", "countersign"])?;
    let of_app = |records: &Value| -> Option<Value> {
        let items = records["items"].as_array()?;
        items.iter().find(|record| record["spec"]["gun"] == gun.as_str()).cloned()
    };
    let before = of_app(&records).ok_or_else(|| format!("no record of {gun} in {records}"))?;
    assert!(before["spec"]["rootVersion"].is_u64() && before["spec"]["rootKeys"][0].is_string(), "{before}");
    let listed = world.plane.kubectl("admin", &["get", "trustrecords", "-n", "countersign"])?;
    assert!(listed.contains("REPOSITORY") && listed.contains(&gun), "{listed}");

    // The server lost it; somebody makes it anew, with other root keys and the same signer.
    std::fs::remove_dir_all(world.folder.path().join("owner-team_app"))?;
    std::fs::remove_dir_all(world.folder.path().join("signer-alice-team_app"))?;
    world.sign("team/app", "v1", "alice")?;
    let image = world.image("team/app", "v1");
    let remembers = |world: &World| {
        let result = world.create(&pod("shop", "anew", &image));
        result.is_ok_and(|done| {
            done.is_err_and(|message| {
                message.contains("without a signature by the former root key")
                    && message.contains("countersign trust accept")
            })
        })
    };
    // Each replica in turn, and one that was started since.
    for _ in 0..4 {
        assert!(remembers(world), "the repository was swapped, and that was not said");
    }
    let fresh = world.start_replica()?;
    fresh.ready()?;
    world.front.set(&[fresh.port]);
    wait_for("the fresh replica", || remembers(world))?;
    world.set_backends();
    drop(fresh);

    let kubeconfig = world.plane.kubeconfig("admin").display().to_string();
    let ca = world.ca.ca.display().to_string();
    let server = world.trust_server();
    let accept = ["trust", "accept", &image, "--trust-server", &server, "--trust-ca", &ca, "--kubeconfig", &kubeconfig];
    let accepted = Countersign::run(&accept)?;
    assert!(accepted.code == 0 && accepted.stdout.contains("root keys: "), "{accepted:?}");
    let after = of_app(&world.plane.get(&["trustrecords", "-n", "countersign"])?).unwrap_or_default();
    assert!(
        after["spec"]["accepted"].is_string() && after["spec"]["rootKeys"] != before["spec"]["rootKeys"],
        "{after}"
    );
    for round in 0..4 {
        let name = format!("anew-{round}");
        wait_for("both replicas", || world.create(&pod("shop", &name, &image)).is_ok_and(|done| done.is_ok()))?;
    }
    Ok(())
}

/// A policy decides soon after it is applied, and no more after it is deleted.
pub(crate) fn policies_change(world: &mut World) -> Result<(), Problem> {
    world.namespace("changes")?;
    for round in 0..5 {
        let name = format!("h{round}.example.com/app");
        let create =
            |name: &str, image: &str| world.create(&pod("changes", name, image)).is_ok_and(|done| done.is_ok());
        world.policy(Some("changes"), "p", &json!({"repositories": [{"name": name}]}))?;
        wait_for("the new policy", || create(&format!("p{round}"), &name))?;
        world.plane.kubectl("admin", &["delete", "imagepolicy", "p", "-n", "changes"])?;
        let mut tries = 0;
        wait_for("the policy to be gone", || {
            tries += 1;
            !create(&format!("q{round}-{tries}"), &name)
        })?;
    }
    Ok(())
}

/// Definitions that are deleted take all policies along: that is said, and everything denied, until they are back.
pub(crate) fn definitions_gone(world: &mut World) -> Result<(), Problem> {
    let definition = "clusterimagepolicies.securityenforcement.admission.cloud.ibm.com";
    let kept = world.plane.get(&["clusterimagepolicies"])?;
    world.plane.kubectl("admin", &["delete", "crd", definition])?;
    let mut last = String::new();
    let said = wait_for("a denial that says so", || {
        let result = world.create(&pod("changes", "gone", "h0.example.com/app"));
        last = result.map_or_else(|problem| problem.to_string(), |done| done.err().unwrap_or_default());
        last.contains("the policies are not known: the API server does not know clusterimagepolicies")
    });
    said.map_err(|problem| format!("{problem}: {last}"))?;
    // Others would know no better, so the replicas go on answering.
    for replica in &world.replicas {
        assert_eq!(replica.get("/readyz")?.0, 200);
    }
    world.plane.apply(&world.manifests(&["--only", "crds"])?)?;
    wait_for("the definition", || world.plane.get(&["clusterimagepolicies"]).is_ok())?;
    for item in kept["items"].as_array().into_iter().flatten() {
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        world.policy(None, name, &item["spec"])?;
    }
    for replica in &world.replicas {
        replica.ready()?;
    }
    Ok(())
}

/// An API server that keeps its connections and says nothing is noticed, and believed again once it speaks.
pub(crate) fn api_server_hangs(world: &mut World) -> Result<(), Problem> {
    let said = |world: &World, text: &str| {
        world.replicas.iter().map(|replica| replica.part.log_text().matches(text).count()).collect::<Vec<_>>()
    };
    let (lost, found) = ("policies cannot be followed", "policies are followed");
    let (lost_before, found_before) = (said(world, lost), said(world, found));
    let more = |now: Vec<usize>, before: &[usize]| now.iter().zip(before).all(|(now, before)| now > before);
    world.plane.freeze_api_server(true)?;
    let noticed = wait_for("word of it", || more(said(world, lost), &lost_before));
    world.plane.freeze_api_server(false)?;
    noticed?;
    wait_for("policies again", || more(said(world, found), &found_before))?;
    for replica in &world.replicas {
        replica.ready()?;
    }
    Ok(())
}

/// While workloads are created all the time: the API server restarts, each replica is killed and started anew, both roll,
/// and certificates rotate. Nothing is wrongly admitted, and each refusal says what it is about.
pub(crate) fn under_load(world: &mut World) -> Result<(), Problem> {
    world.namespace("load")?;
    world.sign("team/load", "good", "loader")?;
    world.signer_secret("load", "loader", "loader")?;
    let name = format!("{}/team/load", world.registry.host);
    world.policy(Some("load"), "p", &json!({"repositories": [{"name": name, "policy": world.trust(&["loader"])}]}))?;
    let (good, bad) = (world.image("team/load", "good"), world.image("team/load", "bad"));
    wait_for("the policy", || world.create(&pod("load", "first", &good)).is_ok_and(|done| done.is_ok()))?;
    let secret_before = world.plane.get(&["secret", "countersign-tls", "-n", "countersign"])?;

    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let loader = {
        let (stop, rounds, user) = (Arc::clone(&stop), Arc::clone(&rounds), world.plane.user("developer"));
        std::thread::spawn(move || load(&stop, &rounds, &user, &good, &bad))
    };
    let disturbed = disturb(world, &rounds);
    stop.store(true, Ordering::SeqCst);
    let outcome = loader.join().map_err(|_| "the load broke")?;
    disturbed?;
    eprintln!(
        "under load: {} admitted, {} denied, {} refused for trouble",
        outcome.admitted,
        outcome.denied,
        outcome.refusals.len()
    );
    assert!(outcome.admitted >= ENOUGH && outcome.denied >= ENOUGH, "{outcome:?}");
    assert!(outcome.wrong.is_empty(), "admitted without a signature: {:?}", outcome.wrong);
    for refusal in &outcome.refusals {
        // What is not the webhook's word is that of kubectl, or of the API server, while that one is away or has just begun:
        // it says so in a dozen ways, none of which is ours.
        let Some((_, ours)) = refusal.split_once(DENIED) else {
            assert!(!refusal.contains("Deny \""), "a denial in other words: {refusal}");
            eprintln!("not ours: {refusal}");
            continue;
        };
        let known = ["the policies are not known", "not listed yet", "cannot reach", "did not answer", "did not bring"];
        assert!(known.iter().any(|known| ours.contains(known)), "a refusal without its cause: {refusal}");
    }
    let pods = world.plane.get(&["pods", "-n", "load"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
        assert!(image.contains("@sha256:"), "{image}");
    }
    let secret_after = world.plane.get(&["secret", "countersign-tls", "-n", "countersign"])?;
    assert_ne!(secret_before["data"]["tls.crt"], secret_after["data"]["tls.crt"], "no certificate was rotated");
    Ok(())
}

/// What the load came to.
#[derive(Debug, Default)]
struct Load {
    admitted: usize,
    denied: usize,
    refusals: Vec<String>,
    wrong: Vec<String>,
}

/// How many pods of each kind the load must come to, so that it says something.
const ENOUGH: usize = 11;

/// How many rounds the load may go on for when it was stopped before that: a busy machine makes few pods while the parts restart.
const MORE_ROUNDS: usize = 100;

/// Creates pods with a signed and an unsigned image in turn until it is stopped, and there are enough; counts the rounds.
fn load(stop: &AtomicBool, rounds: &AtomicUsize, user: &Kubectl, good: &str, bad: &str) -> Load {
    let mut load = Load::default();
    let mut rounds_left = MORE_ROUNDS;
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            let enough = load.admitted >= ENOUGH && load.denied >= ENOUGH;
            if enough || rounds_left == 0 {
                break;
            }
            rounds_left -= 1;
        }
        for (image, signed) in [(good, true), (bad, false)] {
            let object = pod("load", &format!("load-{number}-{signed}"), image).to_string();
            match user.send("create", &object) {
                Ok(done) if done.code == 0 && signed => load.admitted += 1,
                Ok(done) if done.code == 0 => load.wrong.push(done.stdout),
                Ok(done) if !signed && done.stderr.contains("no signed target bad") => load.denied += 1,
                Ok(done) => load.refusals.push(done.stderr.trim().to_owned()),
                Err(problem) => load.refusals.push(problem.to_string()),
            }
        }
        rounds.fetch_add(1, Ordering::SeqCst);
    }
    load
}

fn disturb(world: &mut World, rounds: &AtomicUsize) -> Result<(), Problem> {
    let some_load = || {
        let before = rounds.load(Ordering::SeqCst);
        wait_for("some load", || rounds.load(Ordering::SeqCst) >= before + 3)
    };
    some_load()?;
    world.plane.restart_api_server(&[])?;
    // Killed, one after the other, each back before the next goes.
    for index in 0..2 {
        drop(world.replicas.remove(index));
        world.set_backends();
        let replica = world.start_replica()?;
        replica.ready()?;
        world.replicas.insert(index, replica);
        world.set_backends();
    }
    // Rolled. To replicas that want a certificate for four times as long, the one that is there has come to the last third of its life.
    let before = world.plane.get(&["secret", "countersign-tls", "-n", "countersign"])?;
    world.tls_lifetime = "360d";
    world.roll(&[])?;
    wait_for("a rotation", || {
        let now = world.plane.get(&["secret", "countersign-tls", "-n", "countersign"]).unwrap_or_default();
        now["data"]["tls.crt"].is_string() && now["data"]["tls.crt"] != before["data"]["tls.crt"]
    })?;
    // Somebody empties the caBundle, as an upgrade does: it is put back.
    let patch = r#"[{"op":"replace","path":"/webhooks/0/clientConfig/caBundle","value":""}]"#;
    world
        .plane
        .kubectl("admin", &["patch", "mutatingwebhookconfiguration", "countersign", "--type", "json", "-p", patch])?;
    wait_for("the caBundle", || {
        let found = world.plane.get(&["mutatingwebhookconfiguration", "countersign"]).unwrap_or_default();
        found["webhooks"][0]["clientConfig"]["caBundle"].as_str().is_some_and(|bundle| bundle.len() > 100)
    })?;
    some_load()
}
