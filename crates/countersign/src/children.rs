//! Which images of a child stand unchanged in the workload that it was made from.
//!
//! An `ownerReferences` entry proves nothing: any user can write one. So the owner counts only for objects that the cluster's
//! own controllers ask for, only if its kind is one that makes such children, and only as the API server has it stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_policy::{Kinds, KnownKind, Reviewed, Workload, known_kind};
use futures::future::BoxFuture;
use kube::Client;
use kube::api::{Api, DynamicObject, GetParams};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::cluster;
use crate::reading::{self, REVISION_LABEL};

/// For how long a pair of a place and an image counts that was seen in a stored owner. A rollout makes its pods from one state
/// of the owner, and may go on making them after the owner has changed again.
const SEEN_FOR: Duration = Duration::from_secs(600);

/// How many bytes what is remembered of all owners may take: some eighty thousand workloads.
const MAX_SEEN: usize = 16 << 20;

/// How many stored states of one owner are remembered; the oldest goes.
const MAX_STATES: usize = 8;

/// A kind of owner, by its group and kind.
type OwnerKind = (&'static str, &'static str);

const REPLICA_SET: [OwnerKind; 2] = [("apps", "ReplicaSet"), ("extensions", "ReplicaSet")];
const DAEMON_SET: [OwnerKind; 2] = [("apps", "DaemonSet"), ("extensions", "DaemonSet")];
const DEPLOYMENT: [OwnerKind; 2] = [("apps", "Deployment"), ("extensions", "Deployment")];
const STATEFUL_SET: OwnerKind = ("apps", "StatefulSet");
const REPLICATION_CONTROLLER: OwnerKind = ("", "ReplicationController");
const JOB: OwnerKind = ("batch", "Job");
const CRON_JOB: OwnerKind = ("batch", "CronJob");
const REVISION: OwnerKind = ("apps", "ControllerRevision");

/// The kinds that make children of a kind.
///
/// OpenShift's `DeploymentConfig` makes replication controllers, and is not among them: its subresource `instantiate` writes images into it
/// that no webhook is asked about, so that it stands there is no review.
fn makers(group: &str, kind: &str) -> Vec<&'static KnownKind> {
    let makers = match (group, kind) {
        ("", "Pod") => [&REPLICA_SET[..], &DAEMON_SET, &[STATEFUL_SET, REPLICATION_CONTROLLER, JOB]].concat(),
        ("apps" | "extensions", "ReplicaSet") => DEPLOYMENT.to_vec(),
        ("batch", "Job") => vec![CRON_JOB],
        ("apps", "ControllerRevision") => [&DAEMON_SET[..], &[STATEFUL_SET]].concat(),
        _ => Vec::new(),
    };
    known(&makers)
}

fn known(kinds: &[OwnerKind]) -> Vec<&'static KnownKind> {
    kinds.iter().filter_map(|(group, kind)| known_kind(group, kind)).collect()
}

/// Every kind whose objects are fetched, with its group and resource: what the right to `get` is needed for.
#[must_use]
pub(crate) fn fetched() -> Vec<(&'static str, &'static str)> {
    let kinds = ["Pod", "ReplicaSet", "Job", "ControllerRevision"];
    let of = |kind| ["", "apps", "batch"].into_iter().flat_map(move |group| makers(group, kind));
    let all = kinds.into_iter().flat_map(of).chain(known(&[REVISION]));
    let mut all: Vec<_> = all.map(|kind| (kind.group, kind.resource)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Reads owners.
pub(crate) trait Owners: Send + Sync {
    /// An object as it is stored; `None` if there is none of that name.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn get<'a>(&'a self, asked: &'a Asked) -> BoxFuture<'a, Result<Option<Value>, String>>;
}

/// The object that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Its group; empty for the core group.
    pub group: String,
    /// The version in which its controller named it.
    pub version: String,
    /// Its kind.
    pub kind: &'static str,
    /// Its resource.
    pub resource: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// How many owners are fetched at once: each may have 1.5 MiB.
const FETCHES: usize = 8;

/// Owners in a cluster.
pub(crate) struct ClusterOwners {
    client: Client,
    turns: Semaphore,
}

impl ClusterOwners {
    /// Reads them from here.
    #[must_use]
    pub(crate) fn new(client: Client) -> Self {
        Self { client, turns: Semaphore::new(FETCHES) }
    }
}

impl Owners for ClusterOwners {
    fn get<'a>(&'a self, asked: &'a Asked) -> BoxFuture<'a, Result<Option<Value>, String>> {
        Box::pin(async move {
            let resource = cluster::resource(&asked.group, &asked.version, asked.kind, asked.resource);
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &asked.namespace, &resource);
            let request = kube::core::Request::new(api.resource_url()).get(&asked.name, &GetParams::default());
            let request = request.map_err(|error| error.to_string())?;
            let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
            match cluster::in_time(self.client.request_text(request)).await {
                // It may be large, and most of it is never looked at.
                Ok(text) => reading::read_kept(&Kinds::known(), &asked.group, asked.kind, &text).map(Some),
                Err((Some(404), _)) => Ok(None),
                Err((_, cause)) => Err(cause),
            }
        })
    }
}

/// What the owner of a child says about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Excuse {
    /// The images that the owner has.
    pub reviewed: Reviewed,
    /// What a denial says of an image that is not among them: why it was judged. `None` if there is no owner that counts.
    pub note: Option<Note>,
}

/// Why an image of a child was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// The owner has no such image.
    NotThere {
        /// Kind and name.
        owner: String,
    },
    /// The owner could not be read.
    Unread {
        /// Kind and name.
        owner: String,
        /// The reason.
        cause: String,
    },
}

impl Note {
    /// The words for an image at a place such as `containers/web`.
    #[must_use]
    pub(crate) fn of(&self, path: &str) -> String {
        match self {
            Self::NotThere { owner } => format!(
                "{path} is not in the template of {owner}, or not with this image: another webhook added or changed it, so it is judged like any image; sign it, or list it in a policy"
            ),
            Self::Unread { owner, cause } => {
                format!("{owner}, which made it, could not be read, so nothing is taken from there: {cause}")
            }
        }
    }
}

/// The owners of children, and what was seen of them lately.
pub(crate) struct Children {
    owners: Arc<dyn Owners>,
    seen: Mutex<Seen>,
}

impl std::fmt::Debug for Children {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Children").finish_non_exhaustive()
    }
}

/// A child, as its review has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Child<'a> {
    /// The group of its kind.
    pub group: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its metadata, as far as it tells the owner.
    pub object: &'a Value,
    /// Its images.
    pub workload: &'a Workload,
}

/// The owner that a child names, before anybody looked whether it is there.
struct Owner {
    asked: Asked,
    uid: String,
}

impl Owner {
    /// The one owner that says it is the controller, if its kind makes such children.
    fn of(child: &Child<'_>) -> Option<Self> {
        let listed = child.object.pointer("/metadata/ownerReferences")?.as_array()?;
        let mut controllers = listed.iter().filter(|owner| owner.get("controller") == Some(&Value::Bool(true)));
        let (owner, None) = (controllers.next()?, controllers.next()) else {
            return None;
        };
        let text = |member: &str| owner.get(member).and_then(Value::as_str).filter(|text| !text.is_empty());
        let api_version = text("apiVersion")?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let (name, uid, kind) = (text("name")?, text("uid")?, text("kind")?);
        // They become parts of an address.
        let is_version = version.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_version || !cluster::is_object_name(name) {
            return None;
        }
        let maker =
            makers(child.group, child.kind).into_iter().find(|maker| (maker.group, maker.kind) == (group, kind))?;
        let asked = Asked {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: maker.kind,
            resource: maker.resource,
            namespace: child.namespace.to_owned(),
            name: name.to_owned(),
        };
        Some(Self { asked, uid: uid.to_owned() })
    }

    fn title(&self) -> String {
        format!("{} {}", self.asked.kind, self.asked.name)
    }

    /// The revision that a pod of a `StatefulSet` says it was made from.
    fn revision(&self, child: &Child<'_>) -> Option<Asked> {
        if self.asked.kind != STATEFUL_SET.1 || child.kind != "Pod" {
            return None;
        }
        let name = child.object.pointer("/metadata/labels")?.get(REVISION_LABEL)?.as_str()?;
        let &KnownKind { kind, resource, .. } = known_kind(REVISION.0, REVISION.1)?;
        cluster::is_object_name(name).then(|| Asked { kind, resource, name: name.to_owned(), ..self.asked.clone() })
    }
}

impl Children {
    /// Reads owners from here.
    #[must_use]
    pub(crate) fn new(owners: Arc<dyn Owners>) -> Self {
        Self { owners, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the owner of a child excuses. The caller has made sure that one of the cluster's own controllers asks.
    pub(crate) async fn excuse(&self, kinds: &Kinds, child: Child<'_>) -> Excuse {
        let Some(owner) = Owner::of(&child) else {
            return Excuse::default();
        };
        // A child may name any uid, that of an owner in another namespace too, whose policies are others.
        let key = format!("{}/{}/{}", child.namespace, owner.asked.resource, owner.uid);
        let mut reviewed = self.seen().of(&key);
        if reviewed.changed(child.workload).is_empty() {
            return Excuse { reviewed, note: None };
        }
        let not_there = Note::NotThere { owner: owner.title() };
        let unread = |cause| Note::Unread { owner: owner.title(), cause };
        match self.fetch(kinds, &owner.asked, |object| uid(object) == Some(&owner.uid)).await {
            Ok(Some(stored)) => {
                self.seen().add(&key, &stored);
                reviewed.extend(&stored);
            }
            Ok(None) => return Excuse { reviewed, note: Some(unread("there is no such object any more".to_owned())) },
            Err(cause) => return Excuse { reviewed, note: Some(unread(cause)) },
        }
        // A pod of a StatefulSet half-way through an update is made from the former template, which only its revision has.
        if let Some(asked) = owner.revision(&child)
            && !reviewed.changed(child.workload).is_empty()
            && let Ok(Some(stored)) = self.fetch(kinds, &asked, |object| is_controlled_by(object, &owner.uid)).await
        {
            self.seen().add(&key, &stored);
            reviewed.extend(&stored);
        }
        Excuse { reviewed, note: Some(not_there) }
    }

    /// The images of a stored object, if it is the one that is meant.
    async fn fetch(
        &self,
        kinds: &Kinds,
        asked: &Asked,
        is_meant: impl Fn(&Value) -> bool,
    ) -> Result<Option<Reviewed>, String> {
        let Some(object) = self.owners.get(asked).await? else {
            return Ok(None);
        };
        if !is_meant(&object) {
            return Ok(None);
        }
        let workload = kinds.workload(&asked.group, asked.kind, &object).map_err(|error| error.to_string())?;
        Ok(Some(Reviewed::of(&workload)))
    }
}

fn uid(object: &Value) -> Option<&str> {
    object.pointer("/metadata/uid").and_then(Value::as_str)
}

fn is_controlled_by(object: &Value, uid: &str) -> bool {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().any(|owner| {
        owner.get("controller") == Some(&Value::Bool(true)) && owner.get("uid").and_then(Value::as_str) == Some(uid)
    })
}

/// About how many bytes a state takes, with its place.
fn weight(reviewed: &Reviewed) -> usize {
    reviewed.size() + 128
}

/// What was seen of stored owners, by namespace, resource and uid.
#[derive(Default)]
struct Seen {
    states: HashMap<String, Vec<(Instant, Reviewed)>>,
    bytes: usize,
}

impl Seen {
    /// Everything that was seen of an owner lately.
    fn of(&self, key: &str) -> Reviewed {
        let mut all = Reviewed::default();
        for (at, reviewed) in self.states.get(key).into_iter().flatten() {
            if at.elapsed() < SEEN_FOR {
                all.extend(reviewed);
            }
        }
        all
    }

    fn add(&mut self, key: &str, stored: &Reviewed) {
        let states = self.states.entry(key.to_owned()).or_default();
        // The same state once more only renews it.
        if let Some(at) = states.iter().position(|(_, known)| known == stored) {
            states[at].0 = Instant::now();
            return;
        }
        if states.len() == MAX_STATES {
            self.bytes -= weight(&states.remove(0).1);
        }
        self.bytes += weight(stored);
        states.push((Instant::now(), stored.clone()));
        if self.bytes > MAX_SEEN {
            self.forget_old();
        }
    }

    /// What is lost is fetched again, so where it is not enough that the old ones go, all may.
    fn forget_old(&mut self) {
        for states in self.states.values_mut() {
            states.retain(|(at, _)| at.elapsed() < SEEN_FOR);
        }
        self.states.retain(|_, states| !states.is_empty());
        self.bytes = self.states.values().flatten().map(|(_, reviewed)| weight(reviewed)).sum();
        if self.bytes > MAX_SEEN {
            self.states.clear();
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A store of objects by resource and name, which counts how often it is asked.
    #[derive(Default)]
    struct Stored {
        objects: Mutex<HashMap<(String, String), Result<Value, String>>>,
        asked: Mutex<usize>,
    }

    impl Stored {
        fn put(&self, resource: &str, name: &str, object: Value) {
            self.answer(resource, name, Ok(object));
        }

        fn answer(&self, resource: &str, name: &str, object: Result<Value, String>) {
            self.objects.lock().unwrap().insert((resource.to_owned(), name.to_owned()), object);
        }

        fn asked(&self) -> usize {
            *self.asked.lock().unwrap()
        }
    }

    impl Owners for Stored {
        fn get<'a>(&'a self, asked: &'a Asked) -> BoxFuture<'a, Result<Option<Value>, String>> {
            *self.asked.lock().unwrap() += 1;
            let key = (asked.resource.to_owned(), asked.name.clone());
            let found = self.objects.lock().unwrap().get(&key).cloned();
            Box::pin(async move { found.transpose() })
        }
    }

    fn pod_spec(image: &str) -> Value {
        json!({"containers": [{"name": "web", "image": image}]})
    }

    fn stored(uid: &str, image: &str) -> Value {
        json!({"metadata": {"uid": uid}, "spec": {"template": {"spec": pod_spec(image)}}})
    }

    fn owner(api_version: &str, kind: &str, uid: &str) -> Value {
        json!({"apiVersion": api_version, "kind": kind, "name": "web", "uid": uid, "controller": true})
    }

    async fn excused(children: &Children, kind: (&str, &str), owners: Value, labels: Value, image: &str) -> bool {
        let object = json!({"metadata": {"ownerReferences": owners, "labels": labels}, "spec": pod_spec(image)});
        let kinds = Kinds::known();
        let workload = match kind.1 {
            "Pod" => kinds.workload("", "Pod", &object),
            _ => kinds.workload("apps", "ReplicaSet", &json!({"spec": {"template": {"spec": pod_spec(image)}}})),
        };
        let workload = workload.unwrap();
        let child = Child { group: kind.0, kind: kind.1, namespace: "n", object: &object, workload: &workload };
        let excuse = children.excuse(&kinds, child).await;
        excuse.reviewed.changed(&workload).is_empty()
    }

    const POD: (&str, &str) = ("", "Pod");

    #[tokio::test]
    async fn only_a_stored_owner_that_makes_such_children_excuses() {
        let api = Arc::new(Stored::default());
        api.put("replicasets", "web", stored("u1", "a:1"));
        api.put("deployments", "web", stored("u1", "a:1"));
        let children = || Children::new(Arc::clone(&api) as Arc<dyn Owners>);
        let replica_set = || owner("apps/v1", "ReplicaSet", "u1");
        let none = || json!({});
        assert!(excused(&children(), POD, json!([replica_set()]), none(), "a:1").await);
        let mut not_controller = replica_set();
        not_controller["controller"] = json!(false);
        let mut elsewhere = replica_set();
        elsewhere["name"] = json!("../../other/web");
        for (owners, image) in [
            (json!([replica_set()]), "a:2"),
            (json!([owner("apps/v1", "ReplicaSet", "u2")]), "a:1"),
            (json!([owner("apps/v1", "Deployment", "u1")]), "a:1"),
            (json!([owner("example.com/v1", "ReplicaSet", "u1")]), "a:1"),
            (json!([not_controller]), "a:1"),
            (json!([elsewhere]), "a:1"),
            (json!([replica_set(), replica_set()]), "a:1"),
            (json!([]), "a:1"),
            (Value::Null, "a:1"),
        ] {
            assert!(!excused(&children(), POD, owners.clone(), none(), image).await, "{owners}");
        }
        assert!(
            excused(&children(), ("apps", "ReplicaSet"), json!([owner("apps/v1", "Deployment", "u1")]), none(), "a:1")
                .await
        );
        api.answer("replicasets", "web", Err("forbidden".to_owned()));
        assert!(!excused(&children(), POD, json!([replica_set()]), none(), "a:1").await);
    }

    #[tokio::test]
    async fn a_pod_of_a_former_revision_is_excused_by_it() {
        let api = Arc::new(Stored::default());
        api.put("statefulsets", "web", stored("u1", "a:2"));
        let revision = |uid: &str| {
            json!({"metadata": {"uid": "r1", "ownerReferences": [owner("apps/v1", "StatefulSet", uid)]},
                "data": {"spec": {"template": {"spec": pod_spec("a:1")}}}})
        };
        api.put("controllerrevisions", "web-1", revision("u1"));
        api.put("controllerrevisions", "web-2", revision("other"));
        let set = || json!([owner("apps/v1", "StatefulSet", "u1")]);
        let label = |name: &str| json!({REVISION_LABEL: name});
        let children = || Children::new(Arc::clone(&api) as Arc<dyn Owners>);
        assert!(excused(&children(), POD, set(), label("web-1"), "a:1").await);
        assert!(excused(&children(), POD, set(), label("web-1"), "a:2").await);
        assert!(!excused(&children(), POD, set(), label("web-2"), "a:1").await);
        assert!(!excused(&children(), POD, set(), json!({}), "a:1").await);
        // Only StatefulSets make pods of former revisions.
        api.put("daemonsets", "web", stored("u1", "a:2"));
        let set = json!([owner("apps/v1", "DaemonSet", "u1")]);
        assert!(!excused(&children(), POD, set, label("web-1"), "a:1").await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_of_an_owner_counts_for_ten_minutes() {
        let api = Arc::new(Stored::default());
        api.put("replicasets", "web", stored("u1", "a:1"));
        let children = Children::new(Arc::clone(&api) as Arc<dyn Owners>);
        let set = || json!([owner("apps/v1", "ReplicaSet", "u1")]);
        assert!(excused(&children, POD, set(), json!({}), "a:1").await);
        api.put("replicasets", "web", stored("u1", "a:2"));
        // Both states count, and only the one that was not seen yet is asked for.
        assert!(excused(&children, POD, set(), json!({}), "a:1").await);
        assert_eq!(api.asked(), 1);
        assert!(excused(&children, POD, set(), json!({}), "a:2").await);
        assert_eq!(api.asked(), 2);
        tokio::time::advance(SEEN_FOR).await;
        assert!(!excused(&children, POD, set(), json!({}), "a:1").await);
        assert!(excused(&children, POD, set(), json!({}), "a:2").await);
    }

    /// The API server lets nobody choose a uid, but a child may name any: what was seen of an owner counts in its own namespace alone.
    #[tokio::test]
    async fn an_owner_of_another_namespace_excuses_nothing() {
        let api = Arc::new(Stored::default());
        api.put("replicasets", "web", stored("u1", "a:1"));
        let children = Children::new(Arc::clone(&api) as Arc<dyn Owners>);
        let object =
            json!({"metadata": {"ownerReferences": [owner("apps/v1", "ReplicaSet", "u1")]}, "spec": pod_spec("a:1")});
        let kinds = Kinds::known();
        let workload = kinds.workload("", "Pod", &object).unwrap();
        let child = |namespace| Child { group: "", kind: "Pod", namespace, object: &object, workload: &workload };
        assert!(children.excuse(&kinds, child("lax")).await.reviewed.changed(&workload).is_empty());
        // In the other namespace there is another one of that name.
        api.put("replicasets", "web", stored("u2", "b:1"));
        assert!(!children.excuse(&kinds, child("strict")).await.reviewed.changed(&workload).is_empty());
    }

    #[test]
    fn what_is_remembered_of_owners_is_bounded() {
        let kinds = Kinds::known();
        let mut seen = Seen::default();
        for index in 0..3000 {
            let object = stored(&index.to_string(), &format!("{}:{index}", "a".repeat(10_000)));
            let workload = kinds.workload("apps", "ReplicaSet", &object).unwrap();
            seen.add(&(index % 1000).to_string(), &Reviewed::of(&workload));
            let counted: usize = seen.states.values().flatten().map(|(_, reviewed)| weight(reviewed)).sum();
            assert!(counted == seen.bytes && counted <= MAX_SEEN);
        }
    }

    #[test]
    fn what_may_be_read_is_what_is_fetched() {
        let kinds: Vec<_> = fetched().into_iter().map(|(group, resource)| format!("{group}/{resource}")).collect();
        assert_eq!(
            kinds.join(" "),
            "/replicationcontrollers apps/controllerrevisions apps/daemonsets apps/deployments apps/replicasets apps/statefulsets batch/cronjobs batch/jobs extensions/daemonsets extensions/deployments extensions/replicasets"
        );
    }
}
