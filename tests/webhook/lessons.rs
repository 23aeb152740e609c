//! What went wrong in systems like this one, tried here. `tests/lessons.md` has the whole list, with where each is tested.

use std::fs;
use std::path::{Path, PathBuf};

use countersign_tests::{Ca, Countersign, Problem};
use serde_json::{Value, json};

const POLICIES: &str = r#"
apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1
kind: ClusterImagePolicy
metadata: {name: p}
spec:
  repositories:
  - name: "good.io/*"
  - name: "silent.io/*"
    policy: {trust: {enabled: true, trustServer: "https://SILENT"}}
"#;

struct World {
    served: Countersign,
    _folder: tempfile::TempDir,
    _silent: std::net::TcpListener,
}

fn world(more: &[&str]) -> Result<World, Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let policies = folder.path().join("policies");
    fs::create_dir(&policies)?;
    // Takes connections, and says nothing for as long as the test takes.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    fs::write(policies.join("p.yaml"), POLICIES.replace("SILENT", &silent.local_addr()?.to_string()))?;
    let served = Countersign::serve(&ca, folder.path(), &policies, more)?;
    Ok(World { served, _folder: folder, _silent: silent })
}

fn pod(image: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
           "spec": {"containers": [{"name": "web", "image": image}]}})
}

impl World {
    fn review(&self, request: &Value) -> Result<Value, Problem> {
        let mut whole = json!({"uid": "u", "namespace": "n", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "userInfo": {"username": "developer"}});
        for (name, value) in request.as_object().ok_or("no object")? {
            whole[name] = value.clone();
        }
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": whole});
        let (status, body) = self.served.post(review.to_string().as_bytes())?;
        assert_eq!(status, 200, "{body}");
        Ok(serde_json::from_str::<Value>(&body)?["response"].clone())
    }

    fn allowed(&self, request: &Value) -> Result<bool, Problem> {
        Ok(self.review(request)?["allowed"] == true)
    }
}

/// S6: an object that is being deleted, or says so, is looked at like any other.
#[test]
fn a_deletion_timestamp_excuses_nothing() -> Result<(), Problem> {
    let world = world(&[])?;
    let mut dying = pod("evil.io/x");
    dying["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z");
    dying["metadata"]["finalizers"] = json!(["x/y"]);
    assert!(!world.allowed(&json!({"operation": "CREATE", "object": dying}))?);
    assert!(!world.allowed(&json!({"operation": "UPDATE", "object": dying, "oldObject": pod("good.io/x")}))?);
    Ok(())
}

/// S8: nothing in the object is a verdict, whatever it calls itself.
#[test]
fn annotations_are_no_verdict() -> Result<(), Problem> {
    let world = world(&[])?;
    let mut object = pod("evil.io/x");
    object["metadata"]["annotations"] = json!({
        "trust.hooks.securityenforcement.admission.cloud.ibm.com": "allowed", "verdict": "verified",
        "securityenforcement.admission.cloud.ibm.com/exempt": "true", "helm.sh/hook": "pre-install",
    });
    object["metadata"]["labels"] = json!({"securityenforcement.admission.cloud.ibm.com/exempt": "true", "kubernetes.io/metadata.name": "countersign"});
    assert!(!world.allowed(&json!({"operation": "CREATE", "object": object}))?);
    Ok(())
}

/// S9: every list of containers, and every sub-resource that carries one.
#[test]
fn no_place_for_an_image_is_forgotten() -> Result<(), Problem> {
    let world = world(&[])?;
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let mut object = pod("good.io/x");
        let own = json!({"name": "more", "image": "evil.io/x"});
        match object["spec"][list].as_array_mut() {
            Some(containers) => containers.push(own),
            None => object["spec"][list] = json!([own]),
        }
        assert!(!world.allowed(&json!({"operation": "CREATE", "object": object}))?, "{list}");
        for sub_resource in ["", "status", "resize", "ephemeralcontainers"] {
            let update = json!({"operation": "UPDATE", "subResource": sub_resource, "object": object, "oldObject": pod("good.io/x")});
            assert!(!world.allowed(&update)?, "{list} {sub_resource}");
        }
    }
    let mut object = pod("good.io/x");
    object["spec"]["volumes"] = json!([{"name": "v", "image": {"reference": "evil.io/x"}}]);
    assert!(!world.allowed(&json!({"operation": "CREATE", "object": object}))?);
    // What has no image passes: a scale.
    let scale = json!({"kind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}, "operation": "UPDATE",
        "subResource": "scale", "object": {"spec": {"replicas": 3}}, "oldObject": {"spec": {"replicas": 1}}});
    assert!(world.allowed(&scale)?);
    Ok(())
}

/// S9: a revision may change hands, so its images are looked at whoever it belongs to; what is in it never changes.
#[test]
fn revisions_are_no_hiding_place() -> Result<(), Problem> {
    let world = world(&[])?;
    let revision = |image: &str, owner: &str| {
        json!({
            "metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": owner, "controller": true}]},
            "data": {"spec": {"template": {"$patch": "replace", "spec": {"containers": [{"name": "a", "image": image}]}}}},
        })
    };
    let kind = json!({"group": "apps", "version": "v1", "kind": "ControllerRevision"});
    let (good, evil) = (revision("good.io/x", "StatefulSet"), revision("evil.io/x", "StatefulSet"));
    let create = |object: &Value| json!({"kind": kind, "operation": "CREATE", "object": object});
    assert!(world.allowed(&create(&good))? && !world.allowed(&create(&evil))?);
    assert!(!world.allowed(&create(&revision("evil.io/x", "Odd")))?);
    let update = |old: &Value| json!({"kind": kind, "operation": "UPDATE", "object": evil, "oldObject": old});
    assert!(!world.allowed(&update(&good))?);
    // The garbage collector takes owners away where a StatefulSet goes and its pods stay.
    assert!(world.allowed(&update(&revision("evil.io/x", "Odd")))?);
    let mut by_controller = create(&evil);
    by_controller["userInfo"] = json!({"username": "system:serviceaccount:kube-system:statefulset-controller"});
    assert!(!world.allowed(&by_controller)?, "there is no cluster here that could show the owner");
    Ok(())
}

/// S11, and the one image that spoils them all: the last of many alone can deny, and is named.
#[test]
fn the_last_of_many_can_deny() -> Result<(), Problem> {
    let world = world(&[])?;
    let containers: Vec<_> = (0..200).map(|index| json!({"name": format!("c{index}"), "image": "good.io/x"})).collect();
    let mut object = pod("good.io/x");
    object["spec"]["containers"] = json!(containers);
    assert!(world.allowed(&json!({"operation": "CREATE", "object": object}))?);
    for at in [0, 100, 199] {
        let mut spoilt = object.clone();
        spoilt["spec"]["containers"][at]["image"] = json!("evil.io/x");
        let response = world.review(&json!({"operation": "CREATE", "object": spoilt}))?;
        let message = response["status"]["message"].as_str().unwrap_or_default();
        assert!(response["allowed"] == false && message.matches("Deny").count() == 1, "{at}: {response}");
    }
    Ok(())
}

/// S25: what strangers name never becomes a time series.
#[test]
fn metrics_do_not_grow_with_names() -> Result<(), Problem> {
    let world = world(&[])?;
    let _ = world.allowed(&json!({"operation": "CREATE", "object": pod("evil.io/first")}))?;
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let (_, before) = world.served.get("/metrics")?;
    for index in 0..50 {
        let object = pod(&format!("evil{index}.io/unlikely-name-{index}\u{1b}[31m\n"));
        let request = json!({"operation": "CREATE", "namespace": format!("unlikely-{index}"), "object": object, "userInfo": {"username": format!("unlikely-{index}")}});
        assert!(!world.allowed(&request)?);
    }
    let (_, after) = world.served.get("/metrics")?;
    assert!(series(&after) <= series(&before) + 1 && !after.contains("unlikely"), "{after}");
    // S20 of the threats: no escape reaches a log, and each decision is one line there.
    let log = world.served.part.log_text();
    assert!(!log.contains('\u{1b}'), "an escape in the log");
    assert_eq!(log.lines().filter(|line| line.contains("unlikely-49")).count(), 1, "{log}");
    Ok(())
}

/// S31: the old object excuses only what it really holds, whoever made it up.
#[test]
fn old_objects_that_play_tricks() -> Result<(), Problem> {
    let world = world(&[])?;
    let new = pod("evil.io/x");
    let mut renamed = pod("evil.io/x");
    renamed["spec"]["containers"][0]["name"] = json!("other");
    let mut elsewhere = pod("good.io/x");
    elsewhere["spec"]["initContainers"] = json!([{"name": "web", "image": "evil.io/x"}]);
    let mut twice = pod("good.io/x");
    twice["spec"]["containers"] = json!([{"name": "web", "image": "evil.io/x"}, {"name": "web", "image": "good.io/x"}]);
    let mut other_case = json!({"metadata": {}, "spec": {}});
    other_case["spec"]["Containers"] = new["spec"]["containers"].clone();
    let olds = [
        Value::Null,
        json!({}),
        json!([]),
        json!({"spec": null}),
        renamed,
        elsewhere,
        twice,
        other_case,
        pod("good.io/x"),
    ];
    for old in olds {
        assert!(!world.allowed(&json!({"operation": "UPDATE", "object": new, "oldObject": old}))?, "{old}");
    }
    // Two that change places are two changes.
    let pair = |one: &str, other: &str| json!({"spec": {"containers": [{"name": "a", "image": one}, {"name": "b", "image": other}]}});
    let (before, swapped) = (pair("good.io/x", "evil.io/x"), pair("evil.io/x", "good.io/x"));
    assert!(!world.allowed(&json!({"operation": "UPDATE", "object": swapped, "oldObject": before}))?);
    assert!(world.allowed(&json!({"operation": "UPDATE", "object": before, "oldObject": before}))?);
    Ok(())
}

/// S37: a server that says nothing is a denial: there is an answer, though it gives none.
#[test]
fn a_deadline_is_a_denial() -> Result<(), Problem> {
    let world = world(&["--deadline", "2s"])?;
    let response = world.review(&json!({"operation": "CREATE", "object": pod("silent.io/x:v1")}))?;
    let message = response["status"]["message"].as_str().unwrap_or_default();
    assert!(
        response["allowed"] == false
            && (message.contains("did not answer in time") || message.contains("did not bring an answer within 2 s")),
        "{response}"
    );
    Ok(())
}

/// Each row of the list names tests that exist, or says why there is none.
#[test]
fn the_list_of_lessons_is_true() -> Result<(), Problem> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let list = fs::read_to_string(root.join("tests/lessons.md"))?;
    let mut sources = String::new();
    let mut folders: Vec<PathBuf> = vec![root.join("crates"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("fixtures") && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                sources.push_str(&fs::read_to_string(path)?);
            }
        }
    }
    for number in 1..=39 {
        let row = list.lines().find(|line| line.starts_with(&format!("| S{number} |")));
        let row = row.ok_or_else(|| format!("S{number} is missing"))?;
        let named: Vec<_> = row.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() || row.contains("does not apply: "), "{row}");
        for name in named {
            let case = name.contains("--") && root.join("tests/fixtures/broken").join(name).is_dir();
            assert!(case || sources.contains(&format!("fn {name}(")), "S{number}: there is no test {name}");
        }
    }
    Ok(())
}
