//! Tests of what a scan reads, lists and folds.

use std::sync::Mutex;

use countersign_policy::{ContainerImage, Kinds, Workload};
use serde_json::{Value, json};

use super::fold::Owners;
use super::list::{self, List, Listed};
use super::object::{Head, Kind};
use crate::cluster::scripted;
use crate::config::FurtherKind;

fn head(kind: (&str, &str), object: &Value) -> Head {
    Head::of(&Kind::of(kind.0, kind.1), &object.to_string(), "default").unwrap()
}

fn workload(images: &[(&str, &str)]) -> Workload {
    let image = |(path, image): &(&str, &str)| ContainerImage {
        pointer: String::new(),
        path: (*path).to_owned(),
        image: (*image).to_owned(),
    };
    Workload { images: images.iter().map(image).collect(), ..Workload::default() }
}

fn owned(uid: &str, owners: &[(&str, bool)]) -> Value {
    let owners: Vec<_> = owners.iter().map(|(uid, controller)| json!({"uid": uid, "controller": controller})).collect();
    json!({"metadata": {"namespace": "n", "name": uid, "uid": uid, "ownerReferences": owners}})
}

#[test]
fn what_is_over_does_not_run() {
    let pod = |phase: &str| json!({"status": {"phase": phase}});
    let job = |kind: &str, status: &str| json!({"status": {"conditions": [{"type": kind, "status": status}]}});
    let set = |owned: bool, wanted: u64, there: Value| {
        let owners = if owned { json!([{"uid": "u", "controller": true}]) } else { json!([]) };
        json!({"metadata": {"ownerReferences": owners}, "spec": {"replicas": wanted}, "status": {"replicas": there}})
    };
    let cases = [
        (("v1", "Pod"), pod("Running"), false),
        (("v1", "Pod"), pod("Pending"), false),
        (("v1", "Pod"), pod("Succeeded"), true),
        (("v1", "Pod"), pod("Failed"), true),
        (("v1", "Pod"), json!({}), false),
        (("example.com/v1", "Pod"), pod("Failed"), false),
        (("batch/v1", "Job"), job("Complete", "True"), true),
        (("batch/v1", "Job"), job("Failed", "True"), true),
        (("batch/v1", "Job"), job("Complete", "False"), false),
        (("batch/v1", "Job"), job("Suspended", "True"), false),
        (("apps/v1", "ReplicaSet"), set(true, 0, json!(0)), true),
        (("apps/v1", "ReplicaSet"), set(true, 0, Value::Null), true),
        (("apps/v1", "ReplicaSet"), set(true, 0, json!(1)), false),
        (("apps/v1", "ReplicaSet"), set(true, 1, json!(0)), false),
        (("apps/v1", "ReplicaSet"), set(false, 0, json!(0)), false),
        (("v1", "ReplicationController"), set(true, 0, json!(0)), true),
        (("apps/v1", "Deployment"), set(true, 0, json!(0)), false),
    ];
    for (kind, object, expected) in cases {
        assert_eq!(head(kind, &object).is_over, expected, "{kind:?} {object}");
    }
}

#[test]
fn a_head_is_read_from_an_object_alone() {
    let pod = json!({
        "metadata": {"name": "p", "uid": "u", "annotations": {"kubernetes.io/config.mirror": "x", "name": "no"},
            "ownerReferences": [{"uid": "a", "controller": false}, {"uid": "b", "controller": true}]},
        "spec": {"containers": [{"name": "c"}]},
    });
    let read = head(("v1", "Pod"), &pod);
    assert_eq!((read.name.as_str(), read.uid.as_str(), read.namespace.as_str()), ("p", "u", "default"));
    assert_eq!((read.owner.as_deref(), read.is_mirror), (Some("b"), true));
    assert!(!head(("apps/v1", "Deployment"), &pod).is_mirror);
    // Two controllers are none.
    assert_eq!(head(("v1", "Pod"), &owned("p", &[("a", true), ("b", true)])).owner, None);
    assert!(Head::of(&Kind::of("v1", "Pod"), "{", "n").is_err());
}

#[test]
fn children_are_folded_into_owners_that_were_seen() {
    let mut owners = Owners::default();
    let (web, mesh) = (("containers/web", "a@sha256:1"), ("containers/mesh", "m"));
    let deployment = head(("apps/v1", "Deployment"), &owned("d", &[]));
    let left = owners.take(&deployment, &workload(&[web]));
    assert_eq!((left.images.len(), left.is_child), (1, false));
    let set = head(("apps/v1", "ReplicaSet"), &owned("r", &[("d", true)]));
    assert!(owners.take(&set, &workload(&[web])).images.is_empty());
    let pod = head(("v1", "Pod"), &owned("p", &[("r", true)]));
    assert!(owners.take(&pod, &workload(&[web])).images.is_empty());

    // A sidecar is what is left; another image at the same place too, and a place that stands twice.
    let left = owners.take(&pod, &workload(&[web, mesh]));
    assert!(left.is_child && left.images == workload(&[mesh]).images);
    assert_eq!(owners.take(&pod, &workload(&[("containers/web", "other")])).images.len(), 1);
    assert_eq!(owners.take(&pod, &workload(&[web, web])).images.len(), 2);

    // That an owner is named is not enough: it must have been seen, as the controller, in the same namespace.
    for owner in [&[("x", true)][..], &[("r", false)], &[]] {
        let left = owners.take(&head(("v1", "Pod"), &owned("p", owner)), &workload(&[web]));
        assert_eq!((left.images.len(), left.is_child), (1, false), "{owner:?}");
    }
    let mut elsewhere = owned("p", &[("r", true)]);
    elsewhere["metadata"]["namespace"] = json!("other");
    assert!(!owners.take(&head(("v1", "Pod"), &elsewhere), &workload(&[web])).is_child);
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"namespace": "n", "name": name, "uid": name}})
}

fn page(names: &[&str], next: &str) -> (u16, Value) {
    let items: Vec<_> = names.iter().map(|name| pod(name)).collect();
    (200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"continue": next}, "items": items}))
}

fn failed(code: u16, next: &str, seconds: u32) -> (u16, Value) {
    let details = json!({"retryAfterSeconds": seconds});
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": format!("code {code}"),
        "reason": "x", "metadata": {"continue": next}, "details": details,
    });
    (code, status)
}

/// The names that are listed from an API server with these answers, and the URIs that it was asked.
async fn listed(answers: Vec<(u16, Value)>) -> (Result<Vec<String>, String>, Vec<String>) {
    let script = std::sync::Arc::new(Mutex::new((answers.into_iter(), Vec::new())));
    let answering = std::sync::Arc::clone(&script);
    let client = scripted(move |_, uri| {
        let mut script = answering.lock().unwrap();
        script.1.push(uri.to_owned());
        script.0.next()
    });
    let mut list = List::begin(&client, &Listed::new("", "v1", "Pod", "pods"), Some("n"), 2);
    let mut names = Vec::new();
    let result = loop {
        match list.next(&client).await {
            Ok(None) => break Ok(names),
            Ok(Some(items)) => names.extend(items.iter().map(|item| {
                let item: Value = serde_json::from_str(item.get()).unwrap();
                item["metadata"]["name"].as_str().unwrap().to_owned()
            })),
            Err(cause) => {
                assert_eq!(list.next(&client).await.map(|page| page.is_none()), Ok(true));
                break Err(cause);
            }
        }
    };
    let asked = script.lock().unwrap().1.clone();
    (result, asked)
}

#[tokio::test(start_paused = true)]
async fn lists_come_page_by_page() {
    let (names, asked) = listed(vec![page(&["a", "b"], "t1"), page(&["c"], "")]).await;
    assert_eq!(names, Ok(["a", "b", "c"].map(str::to_owned).to_vec()));
    assert_eq!(asked.len(), 2);
    assert!(asked[0].ends_with("/api/v1/namespaces/n/pods?&limit=2"), "{asked:?}");
    assert!(asked[1].contains("continue=t1") && asked[1].contains("limit=2"), "{asked:?}");
    assert_eq!(listed(vec![(200, json!({"metadata": {}, "items": null}))]).await.0, Ok(Vec::new()));
}

/// What the API server forgot goes on where it says, or begins anew; nothing comes twice, and nothing is left out.
#[tokio::test(start_paused = true)]
async fn a_list_that_was_forgotten_goes_on() {
    let all = Ok(["a", "b", "c", "d"].map(str::to_owned).to_vec());
    let (names, asked) = listed(vec![page(&["a", "b"], "t1"), failed(410, "t2", 0), page(&["c", "d"], "")]).await;
    assert_eq!(names, all);
    assert!(asked[2].contains("continue=t2"), "{asked:?}");
    let (names, asked) =
        listed(vec![page(&["a", "b"], "t1"), failed(410, "", 0), page(&["a", "b"], "t2"), page(&["c", "d"], "")]).await;
    assert_eq!(names, all);
    assert!(!asked[2].contains("continue="), "{asked:?}");
    // An API server that forgets each time brings nobody further.
    let again = [page(&["a", "b"], "t1"), failed(410, "", 0)];
    let (names, asked) = listed(again.iter().cycle().take(20).cloned().collect()).await;
    assert!(names.unwrap_err().contains("again and again"));
    assert_eq!(asked.len(), 4);
    assert!(listed(vec![failed(410, "", 0)]).await.0.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_busy_api_server_is_asked_again() {
    let (names, asked) = listed(vec![failed(429, "", 7), failed(503, "", 0), page(&["a"], "")]).await;
    assert_eq!((names, asked.len()), (Ok(vec!["a".to_owned()]), 3));
    let (names, asked) = listed((0..20).map(|_| failed(429, "", 1)).collect()).await;
    assert_eq!((names, asked.len()), (Err("code 429".to_owned()), 5));
    // One that refuses is not.
    let (names, asked) = listed(vec![failed(403, "", 0)]).await;
    assert_eq!((names, asked.len()), (Err("code 403".to_owned()), 1));
    // Nor is one waited for for ever.
    let (names, _) = listed(Vec::new()).await;
    assert!(names.unwrap_err().contains("did not answer"));
}

#[tokio::test(start_paused = true)]
async fn kinds_are_those_that_the_cluster_has() {
    let group = |name: &str, versions: &[&str]| {
        let version = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
        let versions: Vec<_> = versions.iter().map(version).collect();
        json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
    };
    let resources = |resources: &[(&str, &str, &str)]| {
        let resource = |(name, kind, verb): &(&str, &str, &str)| json!({"name": name, "singularName": "", "kind": kind, "namespaced": true, "verbs": [verb]});
        let all: Vec<_> = resources.iter().map(resource).collect();
        Some((200, json!({"kind": "APIResourceList", "groupVersion": "x", "resources": all})))
    };
    let client = scripted(move |_, uri| {
        let path = uri.split_once("/api").map_or("", |(_, path)| path);
        match path {
            "s" => {
                let groups = [
                    group("apps", &["v1"]),
                    group("batch", &["v1", "v1beta1"]),
                    group("extensions", &["v1beta1"]),
                    group("broken.io", &["v1"]),
                ];
                Some((200, json!({"kind": "APIGroupList", "groups": groups})))
            }
            "/v1" => {
                resources(&[("pods", "Pod", "list"), ("pods/log", "Pod", "get"), ("bindings", "Binding", "create")])
            }
            "s/apps/v1" => resources(&[("deployments", "Deployment", "list"), ("replicasets", "ReplicaSet", "list")]),
            "s/batch/v1" => resources(&[("jobs", "Job", "list")]),
            "s/batch/v1beta1" => resources(&[("cronjobs", "CronJob", "list"), ("jobs", "Job", "list")]),
            _ => Some((503, json!({"kind": "Status", "code": 503, "message": "broken", "reason": "x"}))),
        }
    });
    let further = |group: &str, kind: &str| FurtherKind {
        group: group.into(),
        kind: kind.into(),
        pod_template: "/spec/template".into(),
        resource: None,
    };
    let (found, unread) = list::kinds(&client, &[further("broken.io", "Broken"), further("absent.io", "Absent")]).await;
    let titles: Vec<_> =
        found.iter().map(|listed| format!("{} {}", listed.kind.api_version(), listed.title())).collect();
    assert_eq!(
        titles,
        [
            "apps/v1 deployments.apps",
            "batch/v1beta1 cronjobs.batch",
            "apps/v1 replicasets.apps",
            "batch/v1 jobs.batch",
            "v1 pods"
        ],
        "owners come before what they make"
    );
    let told: Vec<_> = unread.iter().map(|unread| format!("{}: {}", unread.what, unread.cause)).collect();
    assert_eq!(
        told,
        ["Absent.absent.io: the cluster has no such kind, or does not list it", "Broken.broken.io: broken"]
    );
}

/// The gate that a scan asks takes whatever is known to hold images.
#[test]
fn all_known_kinds_are_listed() {
    let kinds: Vec<_> = super::object::listed().collect();
    for kind in ["Pod", "PodTemplate", "ReplicationController", "CronJob", "Job", "DaemonSet", "StatefulSet"] {
        assert!(kinds.iter().any(|(_, known)| *known == kind), "{kind}");
    }
    assert_eq!(kinds.len(), 10);
    let object = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}}});
    assert_eq!(Kinds::known().workload("apps", "Deployment", &object).unwrap().images.len(), 1);
}
