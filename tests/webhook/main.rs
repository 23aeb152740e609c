//! `countersign serve` as an API server and an operator meet it: over TLS, with a real Notary server behind it.

mod alternatives;
mod command_line;
mod scan;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_tests::{Ca, Client, Countersign, NotaryServer, Problem, run, wait_for};
use serde_json::{Value, json};

const CONTROLLER: &str = "system:serviceaccount:kube-system:replicaset-controller";

/// A repository with one tag in `targets`.
fn sign(server: &NotaryServer, ca: &Ca, folder: &Path, gun: &str, tag: &str) -> Result<(), Problem> {
    let owner = Client::new(&server.url, ca, folder);
    if owner.try_run(&["list", gun])?.code != 0 {
        owner.run(&["init", gun, "--publish"])?;
    }
    let digest = forge::hex(&forge::digest_of(tag));
    owner.run(&["addhash", gun, tag, "523", "--sha256", &digest, "--publish"])?;
    Ok(())
}

fn policy(name: &str, repository: &str, trust_server: Option<&str>) -> String {
    let policy = trust_server
        .map(|server| format!("{{trust: {{enabled: true, trustServer: \"{server}\"}}}}"))
        .unwrap_or_default();
    format!(
        "apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1\nkind: ClusterImagePolicy\nmetadata: {{name: {name}}}\nspec:\n  repositories:\n  - name: \"{repository}\"\n    policy: {policy}\n---\n"
    )
}

fn pod(image: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
           "spec": {"containers": [{"name": "web", "image": image}]}})
}

fn child(image: &str, owner: &Value) -> Value {
    let mut pod = pod(image);
    pod["metadata"]["ownerReferences"] = json!([owner]);
    pod
}

fn message(response: &Value) -> &str {
    response["status"]["message"].as_str().unwrap_or_default()
}

#[test]
fn any_body_gets_an_answer() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let policies = folder.path().join("policies");
    fs::create_dir(&policies)?;
    fs::write(policies.join("p.yaml"), policy("p", "docker.io/*", None))?;
    let served = Countersign::serve(&ca, folder.path(), &policies, &[])?;
    let review = |request: Value| {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string()
    };
    let request = |object: Value| json!({"uid": "u", "operation": "CREATE", "namespace": "n", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "object": object});
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bad = [
        String::new(),
        "null".into(),
        "[]".into(),
        "{".into(),
        "\u{0}".repeat(1000),
        deep.clone(),
        review(Value::Null),
        review(json!({})),
        review(json!({"uid": 5})),
        review(json!({"uid": "u", "operation": []})),
        json!({"apiVersion": "admission.k8s.io/v3", "kind": "AdmissionReview", "request": {"uid": "u"}}).to_string(),
        "x".repeat(17 << 20),
    ];
    for body in &bad {
        let (status, _) = served.post(body.as_bytes())?;
        assert_eq!(status, 400, "{}", &body[..body.len().min(80)]);
    }
    // Whoever makes an object so large that its review is not read gets a decision all the same: without one, the API server admits it
    // where its webhook says `Ignore`.
    let large =
        review(request(json!({"spec": {"containers": [{"image": "docker.io/x", "args": ["<".repeat(17 << 20)]}]}})));
    for path in ["/admit", "/validate", "/validate/enforced"] {
        let (status, answer) = served.post_to(path, large.as_bytes())?;
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains("\"allowed\":false") && answer.contains("larger than 16 MiB"), "{answer}");
    }
    let many: Vec<_> = (0..200_000).map(|index| json!({"name": index.to_string(), "image": "quay.io/x"})).collect();
    let denied = [
        json!({"uid": "u"}),
        json!({"uid": "u", "operation": "CREATE", "kind": {"kind": "Pod"}}),
        json!({"uid": "u", "operation": "EXPLODE"}),
        request(json!(5)),
        request(json!({"spec": 5})),
        request(json!({"spec": {"containers": {"name": "x"}}})),
        request(json!({"spec": {"containers": [{"image": 5}]}})),
        request(json!({"spec": {"containers": [{"image": "UPPER CASE"}]}})),
        request(json!({"spec": {"containers": [{"image": "x".repeat(10_000)}]}})),
        request(json!({"spec": {"containers": [{"image": "docker.io.evil.io/x"}]}})),
        request(
            json!({"spec": {"containers": [{"image": "docker.io/x"}], "ephemeralContainers": [{"image": "evil.io/x"}]}}),
        ),
        request(json!({"spec": {"containers": many}})),
    ];
    for request in denied {
        let short: String = request.to_string().chars().take(200).collect();
        let (status, body) = served.post(review(request).as_bytes())?;
        let answer: Value = serde_json::from_str(&body)?;
        assert_eq!((status, &answer["response"]["allowed"]), (200, &json!(false)), "{short}: {answer}");
        assert!(!message(&answer["response"]).is_empty(), "{short}");
    }
    // All that time, and after it, a sound review is answered.
    let response = served.admit(&pod("nginx"), "developer")?;
    assert_eq!(
        response,
        json!({"uid": "test", "allowed": true, "auditAnnotations": {
            "verdict": "unchecked", "mode": "enforce", "images": "containers/web nginx unchecked - [ClusterImagePolicy p, entry 1]",
        }})
    );
    let (_, metrics) = served.get("/metrics")?;
    assert!(
        metrics.contains(
            "countersign_reviews_total{webhook=\"mutate\",kind=\"other\",verdict=\"bad-request\",mode=\"enforce\"} 12"
        ),
        "{metrics}"
    );
    Ok(())
}

#[test]
fn policies_are_watched_and_a_broken_file_changes_nothing() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let policies = folder.path().join("policies");
    fs::create_dir_all(policies.join("sub"))?;
    let file = policies.join("sub/p.yaml");
    fs::write(&file, policy("p", "docker.io/*", None))?;
    let served = Countersign::serve(&ca, folder.path(), &policies, &[])?;
    let allowed = |image: &str| served.admit(&pod(image), "developer").is_ok_and(|answer| answer["allowed"] == true);
    let metric = |line: &str| served.get("/metrics").is_ok_and(|(_, text)| text.contains(line));
    assert!(allowed("nginx") && !allowed("quay.io/x"));

    fs::write(&file, policy("p", "quay.io/*", None))?;
    wait_for("the changed policy", || allowed("quay.io/x") && !allowed("nginx"))?;

    fs::write(
        &file,
        "kind: ClusterImagePolicy\napiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1\nspec: {repo: []}\n",
    )?;
    wait_for("the complaint", || metric("countersign_policies_stale 1"))?;
    assert!(allowed("quay.io/x") && !allowed("nginx"), "the last good policies stay in force");
    assert!(served.part.log_text().contains("the last good ones stay in force"), "{}", served.part.log_text());

    fs::write(&file, policy("p", "docker.io/*", None))?;
    wait_for("the mended policy", || allowed("nginx") && metric("countersign_policies_stale 0"))?;

    // At start, a broken file is fatal, and named with its line.
    fs::write(&file, "kind: Oops\n")?;
    let arguments = ["serve", "--policies", policies.to_str().unwrap_or_default(), "--self-signed", "/dev/null"];
    let finished = Countersign::run(&arguments)?;
    assert_eq!(finished.code, 2, "{finished:?}");
    assert!(finished.stderr.contains("p.yaml:1") && finished.stderr.contains("Oops"), "{finished:?}");
    Ok(())
}

#[test]
fn certificates_are_swapped_and_stopping_is_graceful() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let policies = folder.path().join("policies");
    fs::create_dir(&policies)?;
    fs::write(policies.join("p.yaml"), policy("p", "docker.io/*", None))?;
    let mut served = Countersign::serve(&ca, folder.path(), &policies, &[])?;
    served.admit(&pod("nginx"), "developer")?;
    // Another authority's certificate in the same files: who trusts only the first is refused from then on.
    let other = tempfile::tempdir()?;
    let new = Ca::make(other.path())?;
    fs::copy(&new.key, &ca.key)?;
    fs::copy(&new.certificate, &ca.certificate)?;
    wait_for("the new certificate", || served.admit(&pod("nginx"), "developer").is_err())?;
    fs::copy(&new.ca, &ca.ca)?;
    served.admit(&pod("nginx"), "developer")?;
    // Rubbish is not served.
    fs::write(&ca.certificate, "rubbish")?;
    wait_for("the complaint", || served.part.log_text().contains("the changed certificate cannot be used"))?;
    served.admit(&pod("nginx"), "developer")?;

    run(Command::new("kill").args(["-TERM", &served.part.id().to_string()]))?;
    assert!(served.part.ended()?.success(), "{}", served.part.log_text());
    assert!(served.part.log_text().contains("stopped"));
    Ok(())
}

#[test]
fn trust_server_gone_swapped_and_remembered() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let (policies, state) = (folder.path().join("policies"), folder.path().join("state"));
    fs::create_dir(&policies)?;
    let gun = "registry.example.com/team/app";
    let server = NotaryServer::start(&ca, folder.path())?;
    let port: u16 = server.url.rsplit(':').next().unwrap_or_default().parse()?;
    sign(&server, &ca, &folder.path().join("owner"), gun, "v1")?;
    fs::write(policies.join("p.yaml"), policy("p", "registry.example.com/*", Some(&server.url)))?;
    let state_text = state.to_str().unwrap_or_default();
    let serve = |refresh: &str| {
        Countersign::serve(&ca, folder.path(), &policies, &["--state-dir", state_text, "--trust-refresh", refresh])
    };

    let served = serve("0s")?;
    let image = format!("{gun}:v1");
    let response = served.admit(&pod(&image), "developer")?;
    assert_eq!(response["allowed"], true, "{response}");
    let patch = response["patch"].as_str().unwrap_or_default();
    assert_eq!(response["patchType"], "JSONPatch");
    assert!(!patch.is_empty());

    // A tag signed a moment later is seen at once, as nothing is kept longer than --trust-refresh.
    let denied = served.admit(&pod(&format!("{gun}:v2")), "developer")?;
    assert_eq!(
        message(&denied),
        format!(
            "Deny \"{gun}:v2\", failed to get content trust information: no signed target v2 in {gun} [ClusterImagePolicy p, entry 1] (see docs/messages.md#not-signed)"
        )
    );
    sign(&server, &ca, &folder.path().join("owner"), gun, "v2")?;
    assert_eq!(served.admit(&pod(&format!("{gun}:v2")), "developer")?["allowed"], true);

    // The server is gone: nothing can be decided, so nothing new is admitted…
    drop(server);
    let denied = served.admit(&pod(&image), "developer")?;
    assert_eq!(denied["allowed"], false);
    assert!(message(&denied).contains(&format!("cannot reach 127.0.0.1:{port}")), "{denied}");
    assert!(served.get("/metrics")?.1.contains(
        "countersign_reviews_total{webhook=\"mutate\",kind=\"Pod\",verdict=\"undecided\",mode=\"enforce\"} 1"
    ));
    // …but an update that changes no image passes, and one that changes one does not.
    let update = |old: &Value, new: &Value| -> Result<Value, Problem> {
        let review = json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {
            "uid": "u", "operation": "UPDATE", "namespace": "n", "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "userInfo": {"username": "developer"}, "object": new, "oldObject": old}});
        let answer: Value = serde_json::from_str(&served.post(review.to_string().as_bytes())?.1)?;
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1beta1");
        Ok(answer["response"]["allowed"].clone())
    };
    let mut labelled = pod(&image);
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(update(&pod(&image), &labelled)?, true);
    assert_eq!(update(&pod(&image), &pod(&format!("{gun}:v2")))?, false);
    assert_eq!(update(&Value::Null, &labelled)?, false);
    // With policies from files there is no cluster to ask for an owner, so a child is judged like anything else.
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1", "controller": true});
    for user in [CONTROLLER, "developer"] {
        assert_eq!(served.admit(&child(&image, &owner), user)?["allowed"], false);
    }
    drop(served);

    // Behind the same address the repository is made anew with other keys: refused, also by a process started since.
    let server = NotaryServer::start_at(port, &ca, folder.path())?;
    sign(&server, &ca, &folder.path().join("mallory"), gun, "v1")?;
    let served = serve("30s")?;
    let denied = served.admit(&pod(&image), "developer")?;
    assert_eq!(denied["allowed"], false);
    assert!(message(&denied).contains("without a signature by the former root key"), "{denied}");
    assert!(message(&denied).contains("an administrator accepts it with countersign trust accept ["), "{denied}");
    assert!(message(&denied).ends_with(" (see docs/messages.md#root-changed)"), "{denied}");
    let trust = |arguments: &[&str]| -> Result<countersign_tests::Finished, Problem> {
        let finished = Countersign::run(&[&["trust"], arguments, &["--state-dir", state_text]].concat())?;
        assert_eq!(finished.code, 0, "{finished:?}");
        Ok(finished)
    };
    let before = trust(&["list"])?.stdout;
    assert!(before.contains(gun) && before.contains(&server.url), "{before}");
    let ca_text = ca.ca.to_str().unwrap_or_default();
    let accepted = trust(&["accept", &image, "--trust-server", &server.url, "--trust-ca", ca_text])?.stdout;
    assert!(accepted.contains("root keys: ") && accepted.contains(", was "), "{accepted}");
    assert_ne!(trust(&["list"])?.stdout, before);
    // The webhook that runs already takes note.
    let response = served.admit(&pod(&image), "developer")?;
    assert_eq!(response["allowed"], true, "{response}");
    drop(served);

    // Without that memory the new repository is the first that is seen, and trusted.
    fs::remove_dir_all(&state)?;
    let served = serve("30s")?;
    let response = served.admit(&pod(&image), "developer")?;
    assert_eq!(response["allowed"], true, "{response}");
    drop(served);
    // A memory that cannot be read is no reason to trust.
    for file in fs::read_dir(&state)? {
        fs::write(file?.path(), "{")?;
    }
    let served = serve("30s")?;
    let denied = served.admit(&pod(&image), "developer")?;
    assert_eq!(denied["allowed"], false);
    assert!(message(&denied).contains("cannot read what is remembered"), "{denied}");
    trust(&["accept", &image, "--trust-server", &server.url, "--trust-ca", ca_text])?;
    assert_eq!(served.admit(&pod(&image), "developer")?["allowed"], true);
    drop(served);
    // What is taken away while the webhook runs is forgotten there too.
    let served = serve("0s")?;
    assert_eq!(served.admit(&pod(&image), "developer")?["allowed"], true);
    drop(server);
    let server = NotaryServer::start_at(port, &ca, folder.path())?;
    sign(&server, &ca, &folder.path().join("third"), gun, "v1")?;
    // But a directory that is gone, or an empty one in its place, is a volume that is gone.
    let away = folder.path().join("away");
    fs::rename(&state, &away)?;
    for _ in 0..2 {
        let denied = served.admit(&pod(&image), "developer")?;
        assert!(message(&denied).contains("cannot read what is remembered"), "{denied}");
        fs::create_dir_all(&state)?;
    }
    fs::remove_dir(&state)?;
    fs::rename(&away, &state)?;
    assert_eq!(served.admit(&pod(&image), "developer")?["allowed"], false);
    for record in fs::read_dir(&state)?.filter_map(Result::ok).map(|file| file.path()) {
        if record.extension().is_some_and(|ending| ending == "json") {
            fs::remove_file(record)?;
        }
    }
    assert_eq!(served.admit(&pod(&image), "developer")?["allowed"], true);
    drop(server);
    Ok(())
}

/// An `ImagePolicy` that pins the trust server's certificate has a record for its namespace, which is shown and accepted by itself.
#[test]
fn a_namespace_that_pins_has_a_record_of_its_own() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let (policies, state) = (folder.path().join("policies"), folder.path().join("state"));
    fs::create_dir(&policies)?;
    let gun = "registry.example.com/team/app";
    let server = NotaryServer::start(&ca, folder.path())?;
    let port: u16 = server.url.rsplit(':').next().unwrap_or_default().parse()?;
    sign(&server, &ca, &folder.path().join("owner"), gun, "v1")?;
    let (url, certificate) = (server.url.clone(), fs::read_to_string(&ca.certificate)?);
    let pinning = json!({
        "apiVersion": "securityenforcement.admission.cloud.ibm.com/v1beta1", "kind": "ImagePolicy",
        "metadata": {"name": "own", "namespace": "team"},
        "spec": {"repositories": [{"name": "registry.example.com/*", "policy": {"trust": {
            "enabled": true, "trustServer": server.url, "trustServerCertificate": certificate}}}]},
    });
    fs::write(policies.join("own.json"), pinning.to_string())?;
    fs::write(policies.join("p.yaml"), policy("p", "registry.example.com/*", Some(&server.url)))?;
    let state_text = state.to_str().unwrap_or_default();
    let served =
        Countersign::serve(&ca, folder.path(), &policies, &["--state-dir", state_text, "--trust-refresh", "0s"])?;
    let image = format!("{gun}:v1");
    let allowed = |namespace: &str| -> Result<Value, Problem> {
        let mut pod = pod(&image);
        pod["metadata"]["namespace"] = json!(namespace);
        Ok(served.admit(&pod, "developer")?["allowed"].clone())
    };
    let whose = || -> Result<Vec<(Value, bool)>, Problem> {
        let listed = Countersign::run(&["trust", "list", "--state-dir", state_text, "-o", "json"])?;
        let records: Vec<Value> =
            serde_json::from_str(&listed.stdout).map_err(|error| format!("{error}: {listed:?}"))?;
        assert!(records.iter().all(|record| record["repository"] == gun && record["server"] == url));
        Ok(records.into_iter().map(|record| (record["pinnedIn"].clone(), record["accepted"].is_string())).collect())
    };
    assert_eq!((allowed("team")?, allowed("other")?), (json!(true), json!(true)));
    assert_eq!(whose()?, [(Value::Null, false), (json!("team"), false)]);
    let table = Countersign::run(&["trust", "list", "--state-dir", state_text])?.stdout;
    assert!(table.contains("PINNED IN") && table.contains(" team "), "{table}");

    drop(server);
    let server = NotaryServer::start_at(port, &ca, folder.path())?;
    sign(&server, &ca, &folder.path().join("mallory"), gun, "v1")?;
    assert_eq!((allowed("team")?, allowed("other")?), (json!(false), json!(false)));
    let (ca_text, certificate) = (ca.ca.display().to_string(), ca.certificate.display().to_string());
    let accept = ["trust", "accept", &image, "--trust-server", &server.url, "--state-dir", state_text];
    let of_team = [&accept[..], &["--trust-server-certificate", &certificate, "--pinned-in", "team"]].concat();
    let accepted = Countersign::run(&of_team)?;
    assert_eq!(accepted.code, 0, "{accepted:?}");
    assert_eq!((allowed("team")?, allowed("other")?), (json!(true), json!(false)));
    assert_eq!(whose()?, [(Value::Null, false), (json!("team"), true)]);
    let accepted = Countersign::run(&[&accept[..], &["--trust-ca", &ca_text]].concat())?;
    assert_eq!(accepted.code, 0, "{accepted:?}");
    assert_eq!((allowed("team")?, allowed("other")?), (json!(true), json!(true)));
    let without = Countersign::run(&[&accept[..], &["--pinned-in", "team"]].concat())?;
    assert!(without.code == 2 && without.stderr.contains("--trust-server-certificate"), "{without:?}");
    drop(server);
    Ok(())
}

#[test]
fn the_command_line() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let policies = folder.path().join("policies");
    fs::create_dir(&policies)?;
    let server = NotaryServer::start(&ca, folder.path())?;
    let gun = "registry.example.com/team/app";
    sign(&server, &ca, &folder.path().join("owner"), gun, "v1")?;
    fs::write(policies.join("p.yaml"), policy("p", "registry.example.com/*", Some(&server.url)))?;
    let digest = forge::hex(&forge::digest_of("v1"));
    let file = |name: &str, text: &str| -> Result<String, Problem> {
        let path = folder.path().join(name);
        fs::write(&path, text)?;
        Ok(path.to_str().unwrap_or_default().to_owned())
    };
    let manifest = |tag: &str| {
        format!(
            "# a comment\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  annotations: {{b: \"yes\", a: \"1e3\"}}\nspec:\n  replicas: 3\n  template:\n    spec:\n      containers:\n      - name: web\n        image: {gun}:{tag}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{n: \"007\", t: \"on\", empty: \"\", z: \"null\", f: \"1.10\"}}\n"
        )
    };
    let signed = file("signed.yaml", &manifest("v1"))?;
    let unsigned = file("unsigned.yaml", &manifest("v9"))?;
    let (policies, trust_ca) = (policies.to_str().unwrap_or_default(), ca.ca.to_str().unwrap_or_default());
    let review = |manifest: &str, output: &str| {
        Countersign::run(&["review", "-f", manifest, "--policies", policies, "--trust-ca", trust_ca, "-o", output])
    };

    let finished = review(&signed, "json")?;
    let report: Value = serde_json::from_str(&finished.stdout)?;
    assert_eq!(finished.code, 0);
    let expected = json!({"allowed": true, "objects": [{
        "apiVersion": "apps/v1", "kind": "Deployment", "namespace": "default", "name": "web", "allowed": true,
        "images": [{"path": "containers/web", "image": format!("{gun}:v1"), "allowed": true,
                    "pinned": format!("{gun}:v1@sha256:{digest}"), "reason": null,
                    "policy": {"kind": "ClusterImagePolicy", "namespace": null, "name": "p", "entry": "registry.example.com/*"}}],
    }]});
    assert_eq!(report, expected);

    let finished = review(&unsigned, "json")?;
    let report: Value = serde_json::from_str(&finished.stdout)?;
    assert_eq!((finished.code, &report["allowed"]), (1, &json!(false)));
    let reason = format!(
        "Deny \"{gun}:v9\", failed to get content trust information: no signed target v9 in {gun} [ClusterImagePolicy p, entry 1] (see docs/messages.md#not-signed)"
    );
    assert_eq!(report["objects"][0]["images"][0]["reason"], reason);

    let finished = review(&signed, "yaml")?;
    assert_eq!(finished.code, 0);
    let pinned = file("pinned.yaml", &finished.stdout)?;
    assert!(finished.stdout.contains(&format!("{gun}:v1@sha256:{digest}")), "{}", finished.stdout);
    for kept in ["replicas: 3", "\"yes\"", "\"1e3\"", "\"007\"", "\"on\"", "\"null\"", "\"1.10\""] {
        let single = kept.replace('"', "'");
        assert!(finished.stdout.contains(kept) || finished.stdout.contains(&single), "{kept} in\n{}", finished.stdout);
    }
    assert_eq!(review(&pinned, "json")?.code, 0, "what was pinned is allowed");
    let finished = review(&unsigned, "yaml")?;
    assert_eq!((finished.code, finished.stdout.as_str()), (1, ""), "nothing to apply where something is denied");

    let finished =
        Countersign::run(&["inspect", gun, "--trust-server", &server.url, "--trust-ca", trust_ca, "-o", "json"])?;
    let report: Value = serde_json::from_str(&finished.stdout)?;
    assert_eq!(report["tags"], json!([{"tag": "v1", "digest": format!("sha256:{digest}"), "roles": ["targets"]}]));
    let finished = Countersign::run(&["explain", "nginx", "--policies", policies])?;
    assert_eq!(finished.code, 1);
    assert!(finished.stdout.contains("no entry of a ClusterImagePolicy matches"), "{finished:?}");
    let finished = Countersign::run(&["lint", policies])?;
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.stdout.contains("trust without signerSecrets"), "{finished:?}");

    drop(server);
    assert_eq!(review(&signed, "json")?.code, 3, "a server that is gone leaves it open");
    assert_eq!(Countersign::run(&["review", "-f", &signed])?.code, 2, "no policies");
    assert_eq!(Countersign::run(&["review", "-f", "/no/such/file", "--policies", policies])?.code, 2);
    assert_eq!(Countersign::run(&["verify", "UPPER CASE"])?.code, 2);
    assert_eq!(Countersign::run(&["verify", "nginx"])?.code, 2, "Docker Hub has no trust server");
    assert_eq!(Countersign::run(&["no-such-command"])?.code, 2);
    assert_eq!(Countersign::run(&["--help"])?.code, 0);
    Ok(())
}

/// How often a trust server was asked for a timestamp: every look at a repository begins with that.
fn looks(server: &NotaryServer) -> usize {
    server.log_text().lines().filter(|line| line.contains("timestamp.json") && line.contains("GET")).count()
}

/// The pod as the answer's patch makes it.
fn patched(pod: &Value, response: &Value) -> Result<Value, Problem> {
    let patch = STANDARD.decode(response["patch"].as_str().ok_or_else(|| format!("no patch: {response}"))?)?;
    let operations: Vec<Value> = serde_json::from_slice(&patch)?;
    let mut pod = pod.clone();
    for operation in operations {
        assert_eq!(operation["op"], "replace", "nothing else is ever done");
        let place = pod.pointer_mut(operation["path"].as_str().unwrap_or_default()).ok_or("no such place")?;
        *place = operation["value"].clone();
    }
    Ok(pod)
}

/// The mutating webhook pins, and the validating one looks at what came of it, on whichever replica.
#[test]
fn what_is_stored_is_what_was_judged() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let policies = folder.path().join("policies");
    fs::create_dir(&policies)?;
    let gun = "registry.example.com/team/app";
    let server = NotaryServer::start(&ca, folder.path())?;
    let owner = folder.path().join("owner");
    sign(&server, &ca, &owner, gun, "v1")?;
    let unpinned = policy("q", "registry.example.com/team/app:left*", Some(&server.url));
    let unpinned = unpinned.replace("{trust:", "{mutateImage: false, trust:");
    fs::write(policies.join("p.yaml"), policy("p", "registry.example.com/*", Some(&server.url)) + &unpinned)?;
    // Nothing here depends on how long a step takes.
    let replica = |name: &str| -> Result<Countersign, Problem> {
        let folder = folder.path().join(name);
        fs::create_dir(&folder)?;
        Countersign::serve(&ca, &folder, &policies, &["--trust-refresh", "1h"])
    };
    let (one, other) = (replica("one")?, replica("other")?);
    let asked = pod(&format!("{gun}:v1"));
    let pinned = patched(&asked, &one.admit(&asked, "developer")?)?;
    let digest = forge::hex(&forge::digest_of("v1"));
    assert_eq!(pinned["spec"]["containers"][0]["image"], format!("{gun}:v1@sha256:{digest}"));

    // The second look costs nothing where the first was, and one look elsewhere. It changes nothing.
    let before = looks(&server);
    let judged = one.validate(&pinned, "developer")?;
    assert!(judged["allowed"] == true && judged["patch"].is_null(), "{judged}");
    assert_eq!(judged["auditAnnotations"]["validate-verdict"], "verified");
    assert!(
        judged["auditAnnotations"]["validate-images"].as_str().unwrap().ends_with(" [ClusterImagePolicy p, entry 1]")
    );
    assert_eq!(looks(&server), before);
    assert_eq!(other.validate(&pinned, "developer")?["allowed"], true);
    assert_eq!(looks(&server), before + 1);
    let metrics = one.get("/metrics")?.1;
    assert!(
        metrics.contains(
            "countersign_reviews_total{webhook=\"validate\",kind=\"Pod\",verdict=\"verified\",mode=\"enforce\"} 1"
        ),
        "{metrics}"
    );
    assert!(one.part.log_text().contains("webhook=\"validate\""), "{}", one.part.log_text());

    // What lost its pin on the way is refused, with the cure; what needs none passes.
    let lost = one.validate(&asked, "developer")?;
    let fixed = format!(
        "Deny \"{gun}:v1\", not pinned to its signed digest sha256:{digest}: another webhook changed it after Countersign"
    );
    assert!(message(&lost).starts_with(&fixed) && message(&lost).contains("mutateImage: false"), "{lost}");
    sign(&server, &ca, &owner, gun, "left1")?;
    // A denial rests on a look of the last two seconds, however long an admission may: so this is a matter of two seconds, not
    // of an hour.
    let admits = |replica: &Countersign, object: &Value| {
        replica.validate(object, "developer").is_ok_and(|judged| judged["allowed"] == true)
    };
    wait_for("an image without a pin", || admits(&one, &pod(&format!("{gun}:left1"))))?;

    // The tag is signed anew. One replica has seen it and the other not; neither refuses what the other has pinned.
    let client = Client::new(&server.url, &ca, &owner);
    client.run(&["remove", gun, "v1", "--publish"])?;
    let second = forge::hex(&forge::digest_of("second"));
    client.run(&["addhash", gun, "v1", "523", "--sha256", &second, "--publish"])?;
    let anew = pod(&format!("{gun}:v1@sha256:{second}"));
    wait_for("a fresh look at the tag that was signed anew", || admits(&other, &anew))?;
    let pinned_now =
        |replica: &Countersign| -> Result<Value, Problem> { patched(&asked, &replica.admit(&asked, "developer")?) };
    let (by_one, by_other) = (pinned_now(&one)?, pinned_now(&other)?);
    assert_ne!(by_one, by_other, "the replicas have seen different things");
    for (replica, object) in [(&one, &by_other), (&other, &by_one), (&one, &by_one), (&other, &by_other)] {
        let judged = replica.validate(object, "developer")?;
        assert_eq!(judged["allowed"], true, "{judged}");
    }
    // A digest that was never signed is refused by both all the same.
    let forged = pod(&format!("{gun}:v1@sha256:{}", forge::hex(&forge::digest_of("forged"))));
    for replica in [&one, &other] {
        assert_eq!(replica.validate(&forged, "developer")?["allowed"], false);
    }
    Ok(())
}

/// Dry runs and denials leave no record behind.
#[test]
fn what_is_not_admitted_leaves_no_trace() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let (policies, state) = (folder.path().join("policies"), folder.path().join("state"));
    fs::create_dir(&policies)?;
    let server = NotaryServer::start(&ca, folder.path())?;
    let gun = |index: u8| format!("registry.example.com/team/app{index}");
    for index in 0..3 {
        sign(&server, &ca, &folder.path().join("owner"), &gun(index), "v1")?;
    }
    fs::write(policies.join("p.yaml"), policy("p", "registry.example.com/*", Some(&server.url)))?;
    let state_text = state.to_str().unwrap_or_default();
    let served = Countersign::serve(&ca, folder.path(), &policies, &["--state-dir", state_text])?;
    let records = || -> Result<usize, Problem> {
        let files = fs::read_dir(&state)?.collect::<Result<Vec<_>, _>>()?;
        Ok(files.iter().filter(|file| file.path().extension().is_some_and(|end| end == "json")).count())
    };
    let empty = records()?;
    for path in ["/admit", "/validate"] {
        let dry = served.review(path, &pod(&format!("{}:v1", gun(0))), "developer", true)?;
        assert_eq!(dry["allowed"], path == "/admit", "{dry}");
        // One image of two is signed: the pod is refused, so the signed one leaves nothing either.
        let mut both = pod(&format!("{}:v1", gun(1)));
        let unsigned = json!({"name": "unsigned", "image": format!("{}:v9", gun(2))});
        both["spec"]["containers"].as_array_mut().ok_or("no list")?.push(unsigned);
        assert_eq!(served.review(path, &both, "developer", false)?["allowed"], false);
        assert_eq!(records()?, empty, "{path}");
    }
    assert_eq!(served.admit(&pod(&format!("{}:v1", gun(0))), "developer")?["allowed"], true);
    assert_eq!(records()?, empty + 1, "what is admitted is remembered");

    // An update of two images: the digest of one is put back, as its server is away, and the other one is new. That is an admission too.
    let away = policy("q", "away.example.com/*", Some("https://127.0.0.1:1"));
    fs::write(policies.join("q.yaml"), away)?;
    let pinned = format!("away.example.com/a:v1@sha256:{}", forge::hex(&forge::digest_of("v1")));
    let mut object = pod("away.example.com/a:v1");
    let new = json!({"name": "new", "image": format!("{}:v1", gun(1))});
    object["spec"]["containers"].as_array_mut().ok_or("no list")?.push(new);
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "operation": "UPDATE", "namespace": "n", "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "userInfo": {"username": "developer"}, "object": object, "oldObject": pod(&pinned)}});
    wait_for("both to be admitted", || {
        let answered = served.post(review.to_string().as_bytes());
        answered.is_ok_and(|(_, answer)| answer.contains("\"allowed\":true"))
    })?;
    assert_eq!(records()?, empty + 2, "what is admitted beside it is remembered");
    Ok(())
}

/// What was not read is not passed: nothing is cut, and where nothing was found, somebody must have wanted that.
#[test]
fn review_passes_nothing_unread() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let policies = folder.path().join("p.yaml");
    fs::write(&policies, policy("p", "open.example.com/*", None))?;
    let review = |input: &str, more: &[&str]| -> Result<(i32, String), Problem> {
        use std::io::Write as _;
        let mut command = Countersign::command();
        command.args(["review", "--policies"]).arg(&policies).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut input_of_child = child.stdin.take().ok_or("no input")?;
        // It may have said no before it has read everything.
        let _ = input_of_child.write_all(input.as_bytes());
        drop(input_of_child);
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.code().ok_or("it was killed")?, said))
    };
    let pod = |image: &str| format!("---\n{}\n", pod(image));
    let open = pod("open.example.com/a:1");
    let evil = pod("evil.example.com/a:1");
    assert_eq!(review(&open, &[])?.0, 0);
    assert_eq!(review(&(open.clone() + &evil), &[])?.0, 1);
    let behind = open.clone() + &format!("# {}\n", "x".repeat(1000)).repeat(33 * 1048) + &evil;
    let (code, said) = review(&behind, &[])?;
    assert!(code == 2 && said.contains("standard input is too large: more than 32 MiB"), "{code} {said}");
    let config_map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n";
    for nothing in ["", "---\n# nothing\n", config_map] {
        let (code, said) = review(nothing, &[])?;
        assert!(code == 2 && said.contains("--allow-empty"), "{code} {said}");
        assert_eq!(review(nothing, &["--allow-empty"])?.0, 0);
    }
    // A server that cannot be reached decides nothing, and that has a word of its own.
    fs::write(&policies, policy("p", "signed.example.com/*", Some("https://127.0.0.1:1")))?;
    let signed = pod("signed.example.com/a:1");
    let (code, table) = review(&signed, &[])?;
    assert!(code == 3 && table.contains("undecided"), "{code} {table}");
    let (_, report) = review(&signed, &["-o", "json"])?;
    let report: Value = serde_json::from_str(&report)?;
    assert!(report["undecided"] == true && report["objects"][0]["images"][0]["undecided"] == true, "{report}");
    // To kubectl whatever has items is a List.
    let hidden = format!("{config_map}items:\n- {}\n", evil.trim_start_matches("---\n"));
    assert_eq!(review(&hidden, &["--allow-empty"])?.0, 1);
    Ok(())
}

/// Entries about some tags have their own traps, and `lint` knows them.
#[test]
fn lint_knows_what_tags_miss() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let policies = folder.path().join("p.yaml");
    let trusted = policy("a", "h.io/trusted:v*", Some("https://notary.example.com"));
    fs::write(&policies, trusted + &policy("b", "h.io/open:v*", None))?;
    let policies = policies.display().to_string();
    let by_default = Countersign::run(&["lint", &policies])?.stdout;
    assert!(
        by_default.contains("images with a digest do not match it") && !by_default.contains("--pin=digest"),
        "{by_default}"
    );
    let by_digest = Countersign::run(&["lint", "--pin=digest", &policies])?.stdout;
    assert!(by_digest.contains("with --pin=digest a pinned image has no tag"), "{by_digest}");
    Ok(())
}
