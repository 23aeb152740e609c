//! `countersign scan` of dumps, with a real trust server: each image is in the class that it should be, is judged as the webhook judges it,
//! and what cannot be read is told.

use countersign_tests::{Client, Countersign, Finished, Problem};
use serde_json::{Value, json};

use super::command_line::{Bench, GUN, pinned};
use super::message;

/// An object of a dump.
fn object(api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    let uid = format!("uid-{kind}-{name}");
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace, "uid": uid}})
}

fn containers(images: &[(&str, &str)]) -> Value {
    let all: Vec<_> = images.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
    json!({"containers": all})
}

fn pod(namespace: &str, name: &str, images: &[(&str, &str)]) -> Value {
    let mut pod = object("v1", "Pod", namespace, name);
    pod["spec"] = containers(images);
    pod["status"] = json!({"phase": "Running"});
    pod
}

fn templated(api_version: &str, kind: &str, name: &str, images: &[(&str, &str)]) -> Value {
    let mut object = object(api_version, kind, "shop", name);
    object["spec"] = json!({"replicas": 1, "template": {"spec": containers(images)}});
    object
}

fn owned(mut object: Value, owner: &Value) -> Value {
    let (name, uid) = (&owner["metadata"]["name"], &owner["metadata"]["uid"]);
    let (api_version, kind) = (&owner["apiVersion"], &owner["kind"]);
    object["metadata"]["ownerReferences"] =
        json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true}]);
    object
}

/// What `kubectl get … -o yaml` prints of some objects.
fn list(objects: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects, "metadata": {"resourceVersion": ""}}).to_string()
}

fn scan(bench: &Bench, more: &[&str]) -> Result<Finished, Problem> {
    let ca = bench.ca.ca.display().to_string();
    Countersign::run(&[&["scan", "--trust-ca", &ca, "--policies", &bench.policies], more].concat())
}

fn json_of(finished: &Finished) -> Result<Value, Problem> {
    Ok(serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {finished:?}"))?)
}

/// The findings, each as `NAMESPACE KIND/NAME CONTAINER CLASS CAUSE`.
fn findings(report: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let of = |finding: &Value| {
        let [namespace, kind, name, container, class, cause] =
            ["namespace", "kind", "name", "container", "class", "cause"].map(|member| text(&finding[member]));
        format!("{namespace} {kind}/{name} {container} {class} {cause}")
    };
    report["findings"].as_array().into_iter().flatten().map(of).collect()
}

/// Signs the tag `rolled` twice, and gives the digest that it had before.
fn roll(bench: &Bench) -> Result<String, Problem> {
    let owner = Client::new(&bench.server.url, &bench.ca, &bench.folder.path().join("owner"));
    let (old, new) = (forge::hex(&forge::digest_of("old")), forge::hex(&forge::digest_of("new")));
    for digest in [&old, &new] {
        owner.run(&["addhash", GUN, "rolled", "523", "--sha256", digest, "--publish"])?;
    }
    Ok(old)
}

#[test]
fn every_class_is_told_apart() -> Result<(), Problem> {
    let bench = Bench::new()?;
    let old = format!("{GUN}:rolled@sha256:{}", roll(&bench)?);
    let (signed, unsigned) = (pinned(), format!("{GUN}:v9"));
    let deployment = templated("apps/v1", "Deployment", "web", &[("web", &signed)]);
    let replica_set = owned(templated("apps/v1", "ReplicaSet", "web-1", &[("web", &signed)]), &deployment);
    // What a Deployment keeps of its past, and pods that have ended, do not run.
    let mut past = owned(templated("apps/v1", "ReplicaSet", "web-0", &[("web", &unsigned)]), &deployment);
    past["spec"]["replicas"] = json!(0);
    let mut ended = pod("shop", "ended", &[("web", &unsigned)]);
    ended["status"]["phase"] = json!("Succeeded");
    let sidecar = |name: &str| {
        let images = [("web", signed.as_str()), ("mesh", "mesh.example.com/proxy:1")];
        owned(pod("shop", name, &images), &replica_set)
    };
    let mut mirror = pod("shop", "static-node", &[("a", "k8s.example.com/apiserver:1")]);
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    mirror["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Node", "name": "node", "uid": "n", "controller": true}]);
    let objects = [
        // Children before their owners, as a dump may have them.
        owned(pod("shop", "web-1-a", &[("web", &signed)]), &replica_set),
        sidecar("web-1-b"),
        sidecar("web-1-c"),
        replica_set.clone(),
        deployment,
        past,
        ended,
        templated("apps/v1", "StatefulSet", "unsigned", &[("web", &unsigned)]),
        pod("shop", "superseded", &[("web", &old)]),
        pod("shop", "unpinned", &[("web", &format!("{GUN}:v1"))]),
        mirror,
        pod("kube-system", "dns", &[("dns", "k8s.example.com/dns:1")]),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "shop"}}),
    ];
    let dump = bench.file("dump.json", &list(&objects))?;
    let finished = scan(&bench, &["-f", &dump, "-o", "json"])?;
    let report = json_of(&finished)?;
    assert_eq!(finished.code, 1, "{finished:?}");
    let expected = [
        "kube-system Pod/dns containers/dns exempt no-match",
        "shop Pod/web-1-b containers/mesh denied no-match",
        "shop StatefulSet/unsigned containers/web denied not-signed",
        "shop Pod/superseded containers/web superseded digest-differs",
        "shop Pod/static-node containers/a static no-match",
        "shop Pod/unpinned containers/web unpinned -",
    ];
    assert_eq!(findings(&report), expected, "{report:#}");
    let all = report["findings"].as_array().ok_or("no findings")?;
    assert_eq!((&all[1]["alike"], &all[2]["alike"]), (&json!(1), &json!(0)), "{report:#}");
    assert_eq!(all[5]["pinned"], json!(signed), "{report:#}");
    assert_eq!(report["objects"], json!({"seen": 10, "folded": 2, "over": 2}), "{report:#}");
    let counts = json!({
        "denied": 2, "undecided": 0, "superseded": 1, "static": 1, "exempt": 1, "unpinned": 1, "allowed": 1,
    });
    assert_eq!(report["images"], counts);
    let pod = |index: usize| pod("shop", &format!("p{index}"), &[("web", &signed), ("other", &unsigned)]);
    let many = bench.file("many.json", &list(&(0..1200).map(pod).collect::<Vec<_>>()))?;
    let report_of_many = json_of(&scan(&bench, &["-f", &many, "-o", "json"])?)?;
    assert_eq!(report_of_many["reviews"], 1, "an image is asked for once");
    assert_eq!(
        (&report_of_many["images"]["denied"], &report_of_many["images"]["allowed"]),
        (&json!(1200), &json!(1200))
    );

    assert_eq!(report["byNamespace"][0]["namespace"], "kube-system");
    assert_eq!(report["exempt"]["namespaces"], json!(["countersign", "kube-system"]));

    let table = scan(&bench, &["-f", &dump])?;
    assert_eq!(table.code, 1);
    for words in ["Pod/web-1-b (and 1 like it)", "never-pinned", "NAMESPACE", "(all)", "no signed target v9"] {
        assert!(table.stdout.contains(words), "{words}: {}", table.stdout);
    }
    assert!(table.stderr.is_empty(), "progress is for terminals: {}", table.stderr);
    // One namespace alone, and what does not count unless somebody is strict.
    let system = scan(&bench, &["-f", &dump, "-n", "kube-system"])?;
    assert_eq!(system.code, 0, "{system:?}");
    assert!(!system.stdout.contains("shop"), "{system:?}");
    assert_eq!(scan(&bench, &["-f", &dump, "-n", "kube-system", "--strict"])?.code, 1);
    Ok(())
}

/// What `scan` says of an object is what the webhook answers when it is created.
#[test]
fn scan_judges_as_the_webhook_does() -> Result<(), Problem> {
    let bench = Bench::new()?;
    let old = format!("{GUN}:rolled@sha256:{}", roll(&bench)?);
    let many: Vec<_> = (0..6).map(|index| (format!("c{index}"), format!("{GUN}:v{index}"))).collect();
    let many: Vec<_> = many.iter().map(|(name, image)| (name.as_str(), image.as_str())).collect();
    let objects = [
        pod("n", "signed", &[("web", &pinned())]),
        pod("n", "unpinned", &[("web", &format!("{GUN}:v1"))]),
        pod("n", "unsigned", &[("web", &format!("{GUN}:v9"))]),
        pod("n", "old", &[("web", &old), ("other", "docker.io/library/nginx:1")]),
        pod("n", "odd", &[("web", "NOT AN IMAGE")]),
        pod("n", "many", &many),
        templated("apps/v1", "Deployment", "web", &[("a", &format!("{GUN}:v1")), ("b", &format!("{GUN}:v9"))]),
    ];
    let served = Countersign::serve(&bench.ca, bench.folder.path(), std::path::Path::new(&bench.policies), &[])?;
    let dump = bench.file("dump.json", &list(&objects))?;
    let report = json_of(&scan(&bench, &["-f", &dump, "-o", "json"])?)?;
    let all = report["findings"].as_array().ok_or("no findings")?;
    for object in &objects {
        let answer = served.admit(object, "developer")?;
        let of = |finding: &&Value| finding["name"] == object["metadata"]["name"] && finding["kind"] == object["kind"];
        let denied: Vec<_> = all.iter().filter(of).filter(|finding| finding["class"] != "unpinned").collect();
        assert_eq!(answer["allowed"], json!(denied.is_empty()), "{object}: {answer} {denied:?}");
        for finding in denied {
            let line = format!(
                "Deny \"{}\", {}",
                finding["image"].as_str().unwrap_or_default(),
                finding["reason"].as_str().unwrap_or_default()
            );
            assert!(message(&answer).lines().any(|said| said.starts_with(&line)), "{line}\n{answer}");
        }
    }
    Ok(())
}

#[test]
fn nothing_is_lost_in_silence() -> Result<(), Problem> {
    let bench = Bench::new()?;
    let sound = pod("shop", "sound", &[("web", &pinned())]);
    let mut faulty = pod("shop", "faulty", &[("web", &pinned())]);
    faulty["spec"]["containers"] = json!({"name": "web"});
    let no_kind = json!({"metadata": {"name": "x"}, "spec": containers(&[("web", "x")])});
    bench.file("dumps/dump.json", &list(&[sound.clone(), faulty, no_kind]))?;
    bench.file("dumps/broken.yaml", "kind: Pod\n  x: [\n")?;
    let folder = bench.folder.path().join("dumps").display().to_string();
    let finished = scan(&bench, &["-f", &folder, "-o", "json"])?;
    let report = json_of(&finished)?;
    assert_eq!(finished.code, 3, "{finished:?}");
    let unread = report["notRead"].as_array().ok_or("nothing unread")?;
    let told = |words: &str| unread.iter().any(|unread| unread.to_string().contains(words));
    assert!(unread.len() == 3 && told("Pod/faulty") && told("no kind") && told("broken.yaml"), "{report:#}");
    assert_eq!(findings(&report), [""; 0], "{report:#}");
    let table = scan(&bench, &["-f", &folder])?;
    assert!(table.code == 3 && table.stdout.contains("NOT READ"), "{table:?}");

    // Where nothing could be read, or there was nothing, nobody may take it for a clean bill.
    let missing = bench.folder.path().join("missing.yaml").display().to_string();
    let empty = bench.file("empty.yaml", "kind: List\napiVersion: v1\nitems: []\n")?;
    for file in [&missing, &empty] {
        let finished = scan(&bench, &["-f", file])?;
        assert_eq!(finished.code, 2, "{finished:?}");
    }
    let nowhere = scan(&bench, &[])?;
    assert!(nowhere.code == 2 && nowhere.stderr.contains("what is to be looked at"), "{nowhere:?}");

    // A server that is gone decides nothing, and what was denied before stays so.
    let dump = bench.file("one.json", &list(&[sound, pod("shop", "nginx", &[("web", "docker.io/library/nginx")])]))?;
    let dead = super::policy("p", "registry.example.com/*", Some("https://127.0.0.1:9"));
    bench.file("policies/p.yaml", &dead)?;
    let finished = scan(&bench, &["-f", &dump, "-o", "json"])?;
    let report = json_of(&finished)?;
    assert_eq!(finished.code, 3, "{finished:?}");
    let expected =
        ["shop Pod/nginx containers/web denied no-match", "shop Pod/sound containers/web undecided unreachable"];
    assert_eq!(findings(&report), expected, "{report:#}");
    Ok(())
}

/// Names of a cluster may hold anything that a dump says: a terminal must not obey them.
#[test]
fn terminals_obey_nothing_of_a_dump() -> Result<(), Problem> {
    let bench = Bench::new()?;
    let odd = pod("shop\u{1b}[2J", "x\u{202e}y\nz", &[("web\r", "evil.example.com/a\u{1b}]0;t\u{7}")]);
    let dump = bench.file("dump.json", &list(&[odd]))?;
    let table = scan(&bench, &["-f", &dump])?;
    assert_eq!(table.code, 1);
    for character in ['\u{1b}', '\u{202e}', '\r', '\u{7}'] {
        assert!(!table.stdout.contains(character), "{:?}", table.stdout);
    }
    Ok(())
}

#[test]
fn policy_reports_are_of_the_published_shape() -> Result<(), Problem> {
    let bench = Bench::new()?;
    let many: Vec<_> =
        (0..700).map(|index| pod("shop", &format!("p{index}"), &[("web", "docker.io/library/nginx")])).collect();
    let dump =
        bench.file("dump.json", &list(&[&many[..], &[pod("team", "signed", &[("web", &pinned())])]].concat()))?;
    bench.file("broken.yaml", "kind: [\n")?;
    let broken = bench.folder.path().join("broken.yaml").display().to_string();
    let finished = scan(&bench, &["-f", &dump, "-f", &broken, "-o", "policyreport"])?;
    assert!(finished.code == 3 && finished.stderr.contains("broken.yaml"), "{}", finished.stderr);
    let (mut results, mut kinds) = (0, Vec::new());
    for document in finished.stdout.split("---\n") {
        let report: Value = serde_saphyr::from_str(document)?;
        assert_eq!(report["apiVersion"], "wgpolicyk8s.io/v1alpha2");
        assert!(report.to_string().len() < 200 << 10, "kubectl apply keeps it in an annotation");
        let (kind, name) = (&report["kind"], &report["metadata"]["name"]);
        kinds.push(format!("{} {} {}", kind, report["metadata"]["namespace"], name).replace('"', ""));
        let listed = report["results"].as_array().ok_or("no results")?;
        let of = |word: &str| listed.iter().filter(|result| result["result"] == word).count();
        for word in ["fail", "warn", "error", "skip"] {
            assert_eq!(report["summary"][word], json!(of(word)), "{word}");
        }
        for result in listed {
            assert!(result["policy"].is_string() && result["message"].is_string(), "{result}");
            let all = result["properties"].as_object().ok_or("no properties")?;
            assert!(all.values().all(Value::is_string), "{result}");
            results += 1;
        }
        if report["metadata"]["namespace"] == "team" {
            assert_eq!(report["summary"]["pass"], 1);
        }
    }
    assert_eq!(results, 701);
    assert!(kinds.len() > 3 && kinds.contains(&"PolicyReport shop countersign-2".to_owned()), "{kinds:?}");
    assert!(kinds.contains(&"ClusterPolicyReport null countersign".to_owned()), "{kinds:?}");
    Ok(())
}
