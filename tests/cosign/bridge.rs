//! The move from Docker Content Trust to cosign with real parts: what `countersign bridge` says of images, the script that it
//! writes, run by a shell with the real cosign, and the policies that it writes, by which images are reviewed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign_tests::{
    Ca, Client, ControlPlane, Cosign, Countersign, Finished, Form, KeyKind, KeyPair, NotaryServer, Problem, Pushed,
    Registry, Release, run, wait_for,
};
use serde_json::{Value, json};

struct World {
    ca: Ca,
    cosign: Cosign,
    registry: Registry,
    /// The trust server's address.
    trust_server: String,
    /// The trust server, until it is taken away.
    notary: Option<NotaryServer>,
    folder: tempfile::TempDir,
}

impl World {
    fn start() -> Result<Self, Problem> {
        let folder = tempfile::tempdir()?;
        let ca = Ca::make(folder.path())?;
        let cosign = Cosign::new(&ca, folder.path())?;
        let registry = Registry::start(&ca, folder.path())?;
        let notary = NotaryServer::start(&ca, folder.path())?;
        Ok(Self { ca, cosign, registry, trust_server: notary.url.clone(), notary: Some(notary), folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn repository(&self, name: &str) -> String {
        format!("{}/demo/{name}", self.registry.host)
    }

    fn at(&self, name: &str, image: &Pushed) -> String {
        format!("{}@sha256:{}", self.repository(name), image.digest)
    }

    /// Signs a digest for the tag `1` with Docker Content Trust.
    fn trust(&self, name: &str, image: &Pushed) -> Result<(), Problem> {
        let owner = Client::new(&self.trust_server, &self.ca, &self.path("owner"));
        let gun = self.repository(name);
        owner.run(&["init", &gun, "--publish"])?;
        owner.run(&["addhash", &gun, "1", &image.size.to_string(), "--sha256", &image.digest, "--publish"])?;
        Ok(())
    }

    /// Writes a list of images, each by its tag.
    fn list(&self, names: &[&str]) -> Result<PathBuf, Problem> {
        let path = self.path("images.txt");
        let lines: Vec<_> = names.iter().map(|name| format!("shop {}:1\n", self.repository(name))).collect();
        fs::write(&path, lines.concat())?;
        Ok(path)
    }

    fn bridge(&self, policies: &Path, images: &Path, key: Option<&KeyPair>, output: &str) -> Result<Finished, Problem> {
        let mut command = Countersign::command();
        command.arg("bridge").arg("--policies").arg(policies).arg("--images").arg(images);
        command.arg("--trust-ca").arg(&self.ca.ca).args(["-o", output]);
        if let Some(key) = key {
            command.arg("--cosign-key").arg(format!("alice={}", key.public.display()));
        }
        run(&mut command)
    }

    /// The state of each image, and whether it is ready; with the exit code.
    fn states(
        &self,
        policies: &Path,
        images: &Path,
        key: Option<&KeyPair>,
    ) -> Result<(i32, Vec<(String, bool)>), Problem> {
        let finished = self.bridge(policies, images, key, "json")?;
        let report: Value = serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {finished:?}"))?;
        let image = |image: &Value| (image["state"].as_str().unwrap_or_default().to_owned(), image["ready"] == true);
        let images = report["images"].as_array().ok_or("a report has images")?;
        Ok((finished.code, images.iter().map(image).collect()))
    }
}

fn states(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
    expected.iter().map(|(state, ready)| ((*state).to_owned(), *ready)).collect()
}

/// A folder with one policy.
fn folder_of(world: &World, name: &str, text: &str) -> Result<PathBuf, Problem> {
    let folder = world.path(name);
    fs::create_dir(&folder)?;
    fs::write(folder.join("policy.yaml"), text)?;
    Ok(folder)
}

/// What a review of a pod with an image comes to.
fn review(world: &World, policies: &Path, image: &str) -> Result<Finished, Problem> {
    let pod = world.path("pod.json");
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"},
                        "spec": {"containers": [{"name": "web", "image": image}]}});
    fs::write(&pod, object.to_string())?;
    run(Countersign::command()
        .arg("review")
        .arg("-f")
        .arg(&pod)
        .arg("--policies")
        .arg(policies)
        .arg("--trust-ca")
        .arg(&world.ca.ca))
}

#[test]
fn images_move_from_trust_to_cosign() -> Result<(), Problem> {
    let mut world = World::start()?;
    let registry = &world.registry;
    let alice = world.cosign.key("alice", KeyKind::P256)?;
    let push = |name: &str| registry.push(&format!("demo/{name}"), "1", name);
    let (both, dct, cosign, neither) = (push("both")?, push("dct")?, push("cosign")?, push("neither")?);
    // Another content is under the tag now than the one that is trusted.
    let trusted = registry.push("demo/differ", "trusted", "trusted")?;
    let differ = push("differ")?;
    world.trust("both", &both)?;
    world.trust("dct", &dct)?;
    world.trust("differ", &trusted)?;
    // One on each form that cosign writes by itself.
    world.cosign.sign(&world.at("both", &both), &alice, Form::Bundle)?;
    world.cosign.sign(&world.at("cosign", &cosign), &alice, Form::Tag)?;
    world.cosign.sign(&world.at("differ", &differ), &alice, Form::Bundle)?;

    let policy = format!(
        "apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1\nkind: ClusterImagePolicy\nmetadata: {{name: demo}}\nspec:\n  repositories:\n  - name: \"{}/demo/*\"\n    policy:\n      mutateImage: true\n      trust: {{enabled: true, trustServer: \"{}\"}}\n  - name: \"free.example.com/*\"\n",
        registry.host, world.trust_server
    );
    let policies = folder_of(&world, "policies", &policy)?;
    let names = ["both", "dct", "cosign", "neither", "differ"];
    let images = world.list(&names)?;
    let expected = [("both", true), ("dct", false), ("cosign", true), ("neither", false), ("differ", false)];
    assert_eq!(world.states(&policies, &images, Some(&alice))?, (1, states(&expected)));
    // Without a key a signature is seen, and not believed.
    let unverified = [("both", false), ("dct", false), ("cosign", false), ("neither", false), ("differ", false)];
    assert_eq!(world.states(&policies, &images, None)?, (1, states(&unverified)));
    // By another key there is none.
    let bob = world.cosign.key("bob", KeyKind::P256)?;
    let by_bob = [("dct", false), ("dct", false), ("neither", false), ("neither", false), ("dct", false)];
    assert_eq!(world.states(&policies, &images, Some(&bob))?, (1, states(&by_bob)));

    let table = world.bridge(&policies, &images, Some(&alice), "table")?;
    assert_eq!(table.code, 1, "{table:?}");
    for line in ["2 of 5 images are ready; sign 2 (countersign bridge -o script), see to the 1", "(all)"] {
        assert!(table.stdout.contains(line), "{line} in {}", table.stdout);
    }

    // The script signs what is trusted, and nothing else; run twice it does no harm.
    let script = world.bridge(&policies, &images, Some(&alice), "script")?;
    let file = world.path("sign.sh");
    fs::write(&file, &script.stdout)?;
    let calls: Vec<_> = script.stdout.lines().filter(|line| line.starts_with("cosign sign")).collect();
    assert_eq!(calls.len(), 2, "{}", script.stdout);
    assert!(calls[0].contains(&world.at("dct", &dct)) && calls[1].contains(&world.at("differ", &trusted)), "{calls:?}");
    let signed = sign(&world, &file, &alice)?;
    assert_eq!(signed.code, 0, "{signed:?}");
    for (name, image) in [("dct", &dct), ("differ", &trusted)] {
        assert_eq!(world.cosign.verify(&world.at(name, image), &alice, Form::Bundle)?.code, 0, "{name}");
    }
    assert_ne!(world.cosign.verify(&world.at("neither", &neither), &alice, Form::Bundle)?.code, 0);
    let after = [("both", true), ("both", true), ("cosign", true), ("neither", false), ("both", false)];
    assert_eq!(world.states(&policies, &images, Some(&alice))?, (1, states(&after)));
    let nothing = world.bridge(&policies, &images, Some(&alice), "script")?.stdout;
    assert!(nothing.contains("# There is nothing to sign."), "{nothing}");
    // The tag must name what is trusted: cosign alone would go by the tag.
    let manifest: Value = serde_json::from_slice(&fs::read(&trusted.manifest)?)?;
    assert_eq!(registry.push_manifest("demo/differ", "1", &manifest)?.digest, trusted.digest);

    // What is not signed at all is left out from here on.
    let images = world.list(&["both", "dct", "cosign", "differ"])?;
    let (code, found) = world.states(&policies, &images, Some(&alice))?;
    assert_eq!((code, found), (0, states(&[("both", true), ("both", true), ("cosign", true), ("both", true)])));

    // The policy's next steps: either, then cosign alone.
    let first = policies.clone();
    let mut policies = policies;
    for (step, expected) in [("either", "anyOf:"), ("alone", "cosign alone: all 4 images")] {
        let written = world.bridge(&policies, &images, Some(&alice), "policy")?;
        assert_eq!(written.code, 0, "{written:?}");
        assert!(written.stdout.contains(expected), "{}", written.stdout);
        policies = folder_of(&world, step, &written.stdout)?;
        let linted = run(Countersign::command().arg("lint").arg(&policies))?;
        assert_eq!(linted.code, 0, "{linted:?}");
        for (name, admitted) in [("both", true), ("dct", true), ("cosign", true), ("differ", true), ("neither", false)]
        {
            let reviewed = review(&world, &policies, &format!("{}:1", world.repository(name)))?;
            assert_eq!(reviewed.code, i32::from(!admitted), "{step} {name}: {reviewed:?}");
        }
    }
    // With the trust server gone nothing changes, and nothing is left to do.
    world.notary = None;
    let last = world.bridge(&policies, &images, None, "table")?;
    assert_eq!(last.code, 0, "{last:?}");
    assert!(last.stdout.contains("no entry asks for Docker Content Trust"), "{}", last.stdout);
    // Who did not get there is told that nothing is known, and not that all is well; no policy becomes laxer or stricter for that.
    let undecided = [("undecided", false); 4];
    for policies in [first, world.path("either")] {
        assert_eq!(world.states(&policies, &images, Some(&alice))?, (3, states(&undecided)));
    }
    let stays = world.bridge(&world.path("either"), &images, Some(&alice), "policy")?;
    assert!(stays.code == 3 && stays.stdout.contains("as it was: 0 of the 4 images"), "{stays:?}");
    let none = world.bridge(&world.path("either"), &images, Some(&alice), "script")?;
    assert!(none.stdout.contains("could not be decided") && !none.stdout.contains("\ncosign"), "{none:?}");
    Ok(())
}

/// Runs a script as a team would, but for what keeps cosign from the public log, and has it know the registry.
fn sign(world: &World, script: &Path, key: &KeyPair) -> Result<Finished, Problem> {
    let cosign = world.cosign.command("version");
    let path = Path::new(cosign.get_program()).parent().ok_or("cosign is in a folder")?.to_owned();
    let mut command = Command::new("/bin/sh");
    command.arg(script).env_clear();
    for (name, value) in cosign.get_envs() {
        command.envs(value.map(|value| (name, value)));
    }
    command.env("PATH", path).env("COSIGN_KEY", key.public.with_extension("key"));
    let flags = format!("--tlog-upload=false --use-signing-config=false --registry-cacert={}", world.ca.ca.display());
    run(command.env("COSIGN_FLAGS", flags))
}

/// The same in a cluster: its running images, its policies and its secrets. There is no kubelet, so the test says what runs.
#[test]
fn what_runs_in_a_cluster_is_looked_at() -> Result<(), Problem> {
    let world = World::start()?;
    let registry = &world.registry;
    let alice = world.cosign.key("alice", KeyKind::P256)?;
    let plane = ControlPlane::start(Release::V1_37, &world.path("plane"))?;
    plane.apply(&Countersign::run(&["manifests", "--only", "crds"])?.stdout)?;
    for namespace in ["shop", "countersign"] {
        plane.kubectl("admin", &["create", "namespace", namespace])?;
    }
    wait_for("the service account of the pods", || plane.get(&["serviceaccount", "default", "-n", "shop"]).is_ok())?;
    let key = alice.public.display().to_string();
    let from_file = format!("--from-file=cosign.pub={key}");
    plane.kubectl("admin", &["create", "secret", "generic", "demo-cosign", "-n", "countersign", &from_file])?;
    let app = registry.push("demo/app", "1", "app")?;
    let (amd64, arm64) =
        (registry.push("demo/multi", "amd64", "amd64")?, registry.push("demo/multi", "arm64", "arm64")?);
    let multi = registry.push_list("demo/multi", "1", &[("amd64", &amd64), ("arm64", &arm64)])?;
    world.trust("app", &app)?;
    world.trust("multi", &multi)?;
    world.cosign.sign(&world.at("multi", &multi), &alice, Form::Bundle)?;
    let policy = json!({
        "apiVersion": "securityenforcement.admission.cloud.ibm.com/v1beta1", "kind": "ClusterImagePolicy", "metadata": {"name": "demo"},
        "spec": {"repositories": [{"name": format!("{}/demo/*", registry.host), "policy": {"trust": {"enabled": true, "trustServer": world.trust_server}}}]},
    });
    wait_for("the definitions", || plane.apply(&policy.to_string()).is_ok())?;
    let pod = |name: &str, images: &[&str]| {
        let containers: Vec<_> = images
            .iter()
            .enumerate()
            .map(|(index, image)| json!({"name": format!("c{index}"), "image": image}))
            .collect();
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"}, "spec": {"containers": containers}}).to_string()
    };
    let (of_app, of_multi) = (format!("{}:1", world.repository("app")), format!("{}:1", world.repository("multi")));
    plane.apply(&pod("web", &[&of_app, &of_multi]))?;
    plane.apply(&pod("again", &[&of_app]))?;
    let status =
        |name: &str, id: &str| json!({"name": name, "image": "x", "imageID": id, "ready": true, "restartCount": 0});
    let runs = |pod: &str, ids: &[&str]| {
        let statuses: Vec<_> = ids.iter().enumerate().map(|(index, id)| status(&format!("c{index}"), id)).collect();
        let patch = json!({"status": {"phase": "Running", "containerStatuses": statuses}}).to_string();
        plane.kubectl(
            "admin",
            &["patch", "pod", pod, "-n", "shop", "--subresource=status", "--type=merge", "-p", &patch],
        )
    };
    // One runtime tells the digest of the platform's image, not that of the index.
    runs("web", &[&world.at("app", &app), &world.at("multi", &amd64)])?;
    runs("again", &[&world.at("app", &app)])?;

    let kubeconfig = plane.kubeconfig("admin");
    let bridge = |output: &str| {
        let mut command = Countersign::command();
        command
            .arg("bridge")
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .arg("--trust-ca")
            .arg(&world.ca.ca)
            .args(["-o", output]);
        command.args(["-n", "shop", "--cosign-key", &format!("alice={key}")]);
        run(&mut command)
    };
    let seen = || -> Result<(i32, Vec<(String, bool)>), Problem> {
        let finished = bridge("json")?;
        let report: Value = serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {finished:?}"))?;
        let image = |image: &Value| (image["state"].as_str().unwrap_or_default().to_owned(), image["ready"] == true);
        Ok((finished.code, report["images"].as_array().ok_or("a report has images")?.iter().map(image).collect()))
    };
    assert_eq!(seen()?, (1, states(&[("dct", false), ("both", true)])));
    // Something else runs in one pod than the tag names: cosign alone would go by the tag.
    runs("again", &[&world.at("app", &multi)])?;
    world.cosign.sign(&world.at("app", &app), &alice, Form::Tag)?;
    let (code, mut found) = seen()?;
    found.sort();
    assert_eq!((code, found), (1, states(&[("both", false), ("both", true), ("both", true)])));
    runs("again", &[&world.at("app", &app)])?;
    assert_eq!(seen()?, (0, states(&[("both", true), ("both", true)])));

    for expected in ["anyOf:", "cosign alone: all 2 images"] {
        let written = bridge("policy")?;
        assert!(written.code == 0 && written.stdout.contains(expected), "{written:?}");
        assert!(!written.stdout.contains("resourceVersion"), "{}", written.stdout);
        plane.apply(&written.stdout)?;
    }
    let done = bridge("table")?;
    assert!(done.code == 0 && done.stdout.contains("no entry asks for Docker Content Trust"), "{done:?}");
    Ok(())
}

/// Signatures that an entry wants elsewhere, with claims, and by two signers: the script signs so, once with each key.
#[test]
fn the_script_signs_as_the_entry_wants_it() -> Result<(), Problem> {
    let mut world = World::start()?;
    let referrers = world.path("referrers");
    fs::create_dir(&referrers)?;
    world.registry = Registry::start_with_referrers(&world.ca, &referrers)?;
    let registry = &world.registry;
    let (alice, bob) = (world.cosign.key("alice", KeyKind::P256)?, world.cosign.key("bob", KeyKind::P256)?);
    let app = registry.push("demo/app", "1", "app")?;
    world.trust("app", &app)?;
    let policy = json!({
        "apiVersion": "securityenforcement.admission.cloud.ibm.com/v1beta1", "kind": "ImagePolicy", "metadata": {"name": "demo", "namespace": "shop"},
        "spec": {"repositories": [{"name": format!("{}/demo/*", registry.host), "policy": {"anyOf": [
            {"cosign": {"keys": [alice.public_pem()?, bob.public_pem()?], "repository": format!("{}/signatures", registry.host), "annotations": {"env": "it's prod"}}},
            {"trust": {"enabled": true, "trustServer": world.trust_server}},
        ]}}]},
    });
    let policies = folder_of(&world, "policies", &policy.to_string())?;
    let images = world.list(&["app"])?;
    let file = world.path("sign.sh");
    for key in [&alice, &bob] {
        assert_eq!(world.states(&policies, &images, None)?, (1, states(&[("dct", false)])));
        let script = world.bridge(&policies, &images, None, "script")?.stdout;
        fs::write(&file, &script)?;
        let signed = sign(&world, &file, key)?;
        assert_eq!(signed.code, 0, "{signed:?}\n{script}");
    }
    assert_eq!(registry.tags("demo/app")?, ["1"]);
    assert_eq!(world.states(&policies, &images, None)?, (0, states(&[("both", true)])));
    let alone = world.bridge(&policies, &images, None, "policy")?;
    assert!(alone.code == 0 && alone.stdout.contains("cosign alone: all 1 images"), "{alone:?}");
    Ok(())
}
