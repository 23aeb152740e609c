//! Which kinds of objects hold a pod spec, and where: the one table of what is reviewed.

use std::collections::HashMap;

use serde_json::Value;
use thiserror::Error;

use crate::workload::{
    CONTAINER_LISTS, READ, Workload, WorkloadError, only_plain_names, only_the_template, read_pod_spec,
    stays_in_its_namespace,
};

/// Why a kind cannot be added to those that are known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KindError {
    /// Not a JSON pointer.
    #[error("the pod template of {kind:?} is {pointer:?}; it must be a JSON pointer such as /spec/template")]
    Pointer {
        /// The kind.
        kind: String,
        /// What was given.
        pointer: String,
    },
    /// The kind is known, or named twice, or has no name.
    #[error("the kind {kind:?} is known already")]
    Known {
        /// The kind.
        kind: String,
    },
}

/// Which kinds hold a pod spec, and where.
#[derive(Debug, Clone)]
pub struct Kinds {
    further: HashMap<(String, String), String>,
    /// The names of all members that are looked at, in lower case, by their length: each member of each object is looked up here.
    members: Vec<Vec<String>>,
}

/// The kind that keeps former pod templates of a `StatefulSet`, from which its controller makes pods again: `apps`.
const REVISION: &str = "ControllerRevision";

/// A kind of Kubernetes or `OpenShift` that holds a pod spec, in all versions of its API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownKind {
    /// Its API group; empty for the core group.
    pub group: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// Its resource, with a subresource if the kind is one's: what a webhook is registered for.
    pub resource: &'static str,
    /// JSON pointer to the pod spec.
    pub pod_spec: &'static str,
}

/// The kinds of Kubernetes and `OpenShift`, group by group. The group `""` of `DeploymentConfig` is that of `OpenShift` before 3.6, which 3.11
/// still serves. An `EphemeralContainers` is what Kubernetes before 1.22 sends of the subresource of that name.
pub const KNOWN_KINDS: [KnownKind; 16] = {
    const fn of(group: &'static str, kind: &'static str, resource: &'static str, pod_spec: &'static str) -> KnownKind {
        KnownKind { group, kind, resource, pod_spec }
    }
    const TEMPLATE: &str = "/spec/template/spec";
    [
        of("", "Pod", "pods", "/spec"),
        of("", "EphemeralContainers", "pods/ephemeralcontainers", ""),
        of("", "PodTemplate", "podtemplates", "/template/spec"),
        of("", "ReplicationController", "replicationcontrollers", TEMPLATE),
        of("", "DeploymentConfig", "deploymentconfigs", TEMPLATE),
        // Controllers of StatefulSets make pods from their revisions.
        of("apps", REVISION, "controllerrevisions", "/data/spec/template/spec"),
        of("apps", "DaemonSet", "daemonsets", TEMPLATE),
        of("apps", "Deployment", "deployments", TEMPLATE),
        of("apps", "ReplicaSet", "replicasets", TEMPLATE),
        of("apps", "StatefulSet", "statefulsets", TEMPLATE),
        of("extensions", "DaemonSet", "daemonsets", TEMPLATE),
        of("extensions", "Deployment", "deployments", TEMPLATE),
        of("extensions", "ReplicaSet", "replicasets", TEMPLATE),
        of("batch", "CronJob", "cronjobs", "/spec/jobTemplate/spec/template/spec"),
        of("batch", "Job", "jobs", TEMPLATE),
        of("apps.openshift.io", "DeploymentConfig", "deploymentconfigs", TEMPLATE),
    ]
};

/// A known kind, by its group and kind.
#[must_use]
pub fn known_kind(group: &str, kind: &str) -> Option<&'static KnownKind> {
    KNOWN_KINDS.iter().find(|known| (known.group, known.kind) == (group, kind))
}

/// Whether an object of this kind is a revision, which its controller lays over the workload as a whole: then every member of it is
/// looked at.
#[must_use]
pub fn is_revision(group: &str, kind: &str) -> bool {
    (group, kind) == ("apps", REVISION)
}

/// Where kinds that we do not know usually hold a pod spec.
const USUAL: [&str; 4] = ["/spec/template/spec", "/spec/jobTemplate/spec/template/spec", "/template/spec", "/spec"];

impl Kinds {
    /// The known kinds and no others.
    #[must_use]
    pub fn known() -> Self {
        let pointers = KNOWN_KINDS.iter().map(|known| known.pod_spec).chain(USUAL);
        let names = pointers.flat_map(|pointer| pointer.split('/')).chain(READ).chain(["metadata"]);
        let mut kinds = Self { further: HashMap::new(), members: Vec::new() };
        names.for_each(|name| kinds.look_at(name));
        kinds
    }

    fn look_at(&mut self, name: &str) {
        if self.looks_at(name) {
            return;
        }
        if self.members.len() <= name.len() {
            self.members.resize(name.len() + 1, Vec::new());
        }
        self.members[name.len()].push(name.to_ascii_lowercase());
    }

    /// Adds a kind with the JSON pointer to its pod template (`/spec/template`).
    ///
    /// # Errors
    /// A pointer that is none, or a kind that is known already: its images would no longer be found.
    pub fn add(&mut self, group: &str, kind: &str, pod_template: &str) -> Result<(), KindError> {
        let mut steps = pod_template.split('/');
        if steps.next() != Some("")
            || !steps.clone().all(|step| !step.is_empty() && !step.contains('~'))
            || steps.next().is_none()
        {
            return Err(KindError::Pointer { kind: kind.to_owned(), pointer: pod_template.to_owned() });
        }
        if self.is_known(group, kind) || kind.is_empty() {
            return Err(KindError::Known { kind: kind.to_owned() });
        }
        pod_template.split('/').for_each(|name| self.look_at(name));
        self.further.insert((group.to_owned(), kind.to_owned()), format!("{pod_template}/spec"));
        Ok(())
    }

    /// Whether [`Self::workload`] looks at members of this name, in whatever case; in an object that is no revision
    /// (see [`is_revision`]) it looks at no others.
    #[must_use]
    pub fn looks_at(&self, name: &str) -> bool {
        let same = self.members.get(name.len());
        same.is_some_and(|names| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// Whether the kind is one whose pod spec we know where to find.
    fn is_known(&self, group: &str, kind: &str) -> bool {
        self.pointer(group, kind).is_some()
    }

    fn pointer(&self, group: &str, kind: &str) -> Option<&str> {
        let known = || known_kind(group, kind).map(|known| known.pod_spec);
        self.further.get(&(group.to_owned(), kind.to_owned())).map(String::as_str).or_else(known)
    }

    /// The images of an object.
    ///
    /// A kind that we do not know, but were sent all the same, is looked at where pod templates usually are. It has no images
    /// only if nothing there looks like a pod spec.
    ///
    /// # Errors
    /// Members of the wrong type: what Kubernetes would make of them cannot be told.
    pub fn workload(&self, group: &str, kind: &str, object: &Value) -> Result<Workload, WorkloadError> {
        let is_revision = is_revision(group, kind);
        let mut workload = Workload { is_revision, ..Workload::default() };
        if is_revision {
            only_plain_names(object.get("data").unwrap_or(&Value::Null), "/data")?;
            stays_in_its_namespace(object)?;
        }
        if let Some(pointer) = self.pointer(group, kind) {
            workload.is_template = !matches!(kind, "Pod" | "EphemeralContainers");
            read_pod_spec(object, pointer, &mut workload)?;
            if is_revision && !workload.images.is_empty() {
                only_the_template(object)?;
            }
            // A custom kind may hold more than its configuration says, and a wrong pointer must not hide it.
            if known_kind(group, kind).is_some() {
                return Ok(workload);
            }
        }
        let done = self.pointer(group, kind);
        for pointer in USUAL.into_iter().filter(|pointer| Some(*pointer) != done) {
            let spec = object.pointer(pointer);
            if spec.is_some_and(|spec| CONTAINER_LISTS.iter().any(|list| spec.get(list).is_some_and(Value::is_array))) {
                read_pod_spec(object, pointer, &mut workload)?;
            }
        }
        Ok(workload)
    }
}

#[cfg(test)]
mod tests;
