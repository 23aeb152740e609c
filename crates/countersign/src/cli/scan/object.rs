//! What is known of an object besides its images: whose it is, and whether it still runs.

use countersign_policy::known_kind;
use serde_json::Value;

use crate::gate::{Gate, Submitted};
use crate::reading::{self, MIRROR};

/// A kind of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    /// Its group; empty for the core group.
    pub(super) group: String,
    /// A version of its API.
    pub(super) version: String,
    /// Its name.
    pub(super) name: String,
}

impl Kind {
    /// That of an object that says so itself.
    pub(super) fn of(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        Self { group: group.to_owned(), version: version.to_owned(), name: kind.to_owned() }
    }

    /// As it stands in an object.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Where it stands among those that make each other: owners come before what they make.
    pub(super) fn rank(&self) -> u8 {
        match (self.group.as_str(), self.name.as_str()) {
            ("", "Pod") => 3,
            ("", "ReplicationController") | ("apps" | "extensions", "ReplicaSet") | ("batch", "Job") => 2,
            (group, kind) if known_kind(group, kind).is_some() => 1,
            _ => 0,
        }
    }

    /// Whether its objects are kept for somebody who goes back, and nothing runs from them.
    pub(super) fn is_history(&self) -> bool {
        (self.group.as_str(), self.name.as_str()) == ("apps", "ControllerRevision")
    }
}

/// What is known of an object besides its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Its kind.
    pub(super) kind: Kind,
    /// Its namespace.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
    /// Its uid; empty for one that never was in a cluster.
    pub(super) uid: String,
    /// The uid of the one owner that says it is the controller.
    pub(super) owner: Option<String>,
    /// Whether a node says with it that it runs a static pod.
    pub(super) is_mirror: bool,
    /// Whether it is over: a pod or a job that has ended, or what an owner keeps of its past.
    pub(super) is_over: bool,
}

/// The members that are read for it.
const MEMBERS: [&str; 14] = [
    "metadata",
    "name",
    "namespace",
    "uid",
    "ownerReferences",
    "controller",
    "annotations",
    MIRROR,
    "spec",
    "replicas",
    "status",
    "phase",
    "conditions",
    "type",
];

impl Head {
    /// Reads it. `namespace` is that of objects that name none.
    ///
    /// # Errors
    /// What is no JSON, or has more parts than any sound object.
    pub(super) fn of(kind: &Kind, json: &str, namespace: &str) -> Result<Self, String> {
        let object = reading::read_members(json, &MEMBERS)?;
        let text = |member: &str| object["metadata"][member].as_str().unwrap_or_default().to_owned();
        let mut namespace = namespace.to_owned();
        if let Some(own) = object["metadata"]["namespace"].as_str().filter(|own| !own.is_empty()) {
            own.clone_into(&mut namespace);
        }
        let owner = controller(&object["metadata"]);
        let is_pod = (kind.group.as_str(), kind.name.as_str()) == ("", "Pod");
        Ok(Self {
            is_mirror: is_pod && object["metadata"]["annotations"].get(MIRROR).is_some(),
            is_over: is_over(kind, &object, owner.is_some()),
            kind: kind.clone(),
            namespace,
            name: text("name"),
            uid: text("uid"),
            owner,
        })
    }

    /// Kind and name.
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.kind.name, self.name)
    }
}

fn controller(metadata: &Value) -> Option<String> {
    let mut controllers =
        metadata["ownerReferences"].as_array()?.iter().filter(|owner| owner["controller"] == Value::Bool(true));
    let (owner, None) = (controllers.next()?, controllers.next()) else { return None };
    owner["uid"].as_str().filter(|uid| !uid.is_empty()).map(str::to_owned)
}

fn is_over(kind: &Kind, object: &Value, is_owned: bool) -> bool {
    let status = &object["status"];
    match (kind.group.as_str(), kind.name.as_str()) {
        ("", "Pod") => matches!(status["phase"].as_str(), Some("Succeeded" | "Failed")),
        ("batch", "Job") => status["conditions"].as_array().into_iter().flatten().any(|condition| {
            condition["status"] == "True" && matches!(condition["type"].as_str(), Some("Complete" | "Failed"))
        }),
        // Who goes back to it writes its template into the owner, which is reviewed then.
        ("apps" | "extensions", "ReplicaSet") | ("", "ReplicationController") => {
            let none = |replicas: &Value| replicas.as_u64().unwrap_or_default() == 0;
            is_owned && object["spec"]["replicas"] == 0 && none(&status["replicas"])
        }
        _ => false,
    }
}

/// An object that is to be looked at.
#[derive(Debug, Clone)]
pub(super) struct Object {
    /// What is known of it besides its images.
    pub(super) head: Head,
    /// It, as the gate has read it.
    pub(super) submitted: Submitted,
}

/// What became of an object that was read.
#[derive(Debug)]
pub(super) enum Read {
    /// It is to be looked at.
    Object(Box<Object>),
    /// It is over.
    Over,
    /// It holds no images.
    Empty,
    /// It cannot be read. Its namespace and name are told as far as they are known.
    Faulty(Option<Box<Head>>, String),
}

/// Reads an object as the gate reads one that somebody creates.
pub(super) fn read(gate: &Gate, kind: &Kind, json: &str, namespace: &str) -> Read {
    let head = match Head::of(kind, json, namespace) {
        Ok(head) => head,
        Err(cause) => return Read::Faulty(None, cause),
    };
    if head.is_over || kind.is_history() {
        return Read::Over;
    }
    let submitted = match super::judge::submitted(gate, &head, json) {
        Ok(submitted) => submitted,
        Err(cause) => return Read::Faulty(Some(Box::new(head)), cause),
    };
    match submitted.workload() {
        Err(cause) => {
            let cause = cause.to_owned();
            Read::Faulty(Some(Box::new(head)), cause)
        }
        Ok(workload) if workload.images.is_empty() => Read::Empty,
        // A kind that no namespace has is sent to no webhook that looks for the policies of one.
        Ok(_) if head.namespace.is_empty() => {
            Read::Faulty(Some(Box::new(head)), "it is in no namespace, so no policy can be found for it".to_owned())
        }
        Ok(_) => Read::Object(Box::new(Object { head, submitted })),
    }
}

/// The kinds of Kubernetes and `OpenShift` that are listed in a cluster, by group and kind. Left out is what other kinds show too
/// (`extensions`, and `OpenShift`'s first group), `EphemeralContainers`, which are part of a pod, and `ControllerRevision`, which keeps former
/// pod templates.
pub(super) fn listed() -> impl Iterator<Item = (&'static str, &'static str)> {
    countersign_policy::KNOWN_KINDS.iter().map(|known| (known.group, known.kind)).filter(|(group, kind)| {
        *group != "extensions"
            && !(group.is_empty() && matches!(*kind, "DeploymentConfig" | "EphemeralContainers"))
            && !countersign_policy::is_revision(group, kind)
    })
}
