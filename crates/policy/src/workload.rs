//! Every image that an object would run, with the place where it stands.

use std::collections::HashMap;

use serde_json::{Map, Value};
use thiserror::Error;

/// How many images one object may have. Pods are limited by their size; a thousand containers are far beyond any.
pub(crate) const MAX_IMAGES: usize = 1000;

/// Lists of containers in a pod spec.
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Where an image stands, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerImage {
    /// JSON pointer to the text: `/spec/template/spec/containers/0/image`.
    pub pointer: String,
    /// The list and the container's name, as people know it: `containers/web`.
    pub path: String,
    /// The reference, as written.
    pub image: String,
}

/// A pod spec that an object holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workload {
    /// Its images, in order. Those with an empty or absent `image` field are left to Kubernetes; so are those of only white
    /// space in a template, which OpenShift's image triggers fill in.
    pub images: Vec<ContainerImage>,
    /// Names of the secrets in `imagePullSecrets`.
    pub pull_secrets: Vec<String>,
    /// The service account that the pods run as.
    pub service_account: Option<String>,
    /// Whether pods are only made from it later.
    pub is_template: bool,
    /// Whether the object is kept by somebody who compares it with what it should be, so that it must not be changed.
    pub is_revision: bool,
}

/// Why an object's images cannot be told. Such an object is denied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// A member has the wrong type.
    #[error("{pointer} is not {expected}")]
    WrongType {
        /// Where.
        pointer: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// More images than are looked at.
    #[error("the object has more than {MAX_IMAGES} images")]
    TooManyImages,
    /// A revision that says of its workload what only the API server may say.
    #[error("{pointer} is nothing that a controller writes into a revision")]
    Metadata {
        /// Where.
        pointer: String,
    },
    /// A revision that would move its workload to another namespace.
    #[error("/data/metadata/namespace is {namespace:?}, which is not the namespace of the revision")]
    OtherNamespace {
        /// What stands there.
        namespace: String,
    },
}

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
#[derive(Debug, Clone, Default)]
pub struct Kinds {
    further: HashMap<(String, String), String>,
}

/// The kind that keeps former pod templates of a `StatefulSet`, from which its controller makes pods again: `apps`.
const REVISION: &str = "ControllerRevision";

/// Where the pod spec is in the kinds of Kubernetes and OpenShift, in all versions of their API. The group `""` of
/// `DeploymentConfig` is that of OpenShift before 3.6, which 3.11 still serves.
const KNOWN: [(&str, &str, &str); 16] = [
    ("", "Pod", "/spec"),
    ("", "PodTemplate", "/template/spec"),
    ("", "ReplicationController", "/spec/template/spec"),
    ("", "DeploymentConfig", "/spec/template/spec"),
    ("", "EphemeralContainers", ""),
    ("apps", "Deployment", "/spec/template/spec"),
    ("apps", "ReplicaSet", "/spec/template/spec"),
    ("apps", "DaemonSet", "/spec/template/spec"),
    ("apps", "StatefulSet", "/spec/template/spec"),
    ("apps", REVISION, "/data/spec/template/spec"),
    ("extensions", "Deployment", "/spec/template/spec"),
    ("extensions", "ReplicaSet", "/spec/template/spec"),
    ("extensions", "DaemonSet", "/spec/template/spec"),
    ("batch", "Job", "/spec/template/spec"),
    ("batch", "CronJob", "/spec/jobTemplate/spec/template/spec"),
    ("apps.openshift.io", "DeploymentConfig", "/spec/template/spec"),
];

/// Members of a pod spec, and of what is in it, that are read.
const READ: [&str; 10] = [
    "containers",
    "initContainers",
    "ephemeralContainers",
    "volumes",
    "image",
    "reference",
    "name",
    "imagePullSecrets",
    "serviceAccountName",
    "serviceAccount",
];

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
        Self::default()
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
        self.further.insert((group.to_owned(), kind.to_owned()), format!("{pod_template}/spec"));
        Ok(())
    }

    /// Whether [`Self::workload`] looks at members of this name, given in lower case; in an object that is no revision
    /// (see [`is_revision`]) it looks at no others.
    #[must_use]
    pub fn looks_at(&self, lower: &str) -> bool {
        let steps = |pointer: &str| pointer.split('/').any(|step| step.eq_ignore_ascii_case(lower));
        lower == "metadata"
            || READ.iter().any(|name| name.eq_ignore_ascii_case(lower))
            || KNOWN.iter().any(|known| steps(known.2))
            || USUAL.into_iter().any(steps)
            || self.further.values().any(|pointer| steps(pointer))
    }

    /// Whether the kind is one whose pod spec we know where to find.
    fn is_known(&self, group: &str, kind: &str) -> bool {
        self.pointer(group, kind).is_some()
    }

    fn pointer(&self, group: &str, kind: &str) -> Option<&str> {
        let known = || KNOWN.iter().find(|known| (known.0, known.1) == (group, kind)).map(|known| known.2);
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
            if KNOWN.iter().any(|known| (known.0, known.1) == (group, kind)) {
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

/// Fails at a revision whose data names another namespace than the revision stands in: its controller lays the data over the
/// `StatefulSet`, and would make pods there.
fn stays_in_its_namespace(revision: &Value) -> Result<(), WorkloadError> {
    let Some(metadata) = step_to(revision, "/data/metadata")? else {
        return Ok(());
    };
    let Some(members) = metadata.as_object() else {
        return Err(WorkloadError::WrongType { pointer: "/data/metadata".to_owned(), expected: "an object" });
    };
    only_this_case(members, &["namespace"], "/data/metadata", "a member of metadata (its case is wrong)")?;
    let own = revision.pointer("/metadata/namespace").and_then(Value::as_str);
    match members.get("namespace") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(namespace)) if namespace.is_empty() || Some(namespace.as_str()) == own => Ok(()),
        Some(namespace) => {
            let namespace = namespace.as_str().map_or_else(|| namespace.to_string(), str::to_owned);
            Err(WorkloadError::OtherNamespace { namespace })
        }
    }
}

/// Fails at a revision of a pod template that brings metadata along. Controllers write none; old ones lay the data over the whole
/// `StatefulSet`, and would make pods under a uid and labels that somebody chose.
fn only_the_template(revision: &Value) -> Result<(), WorkloadError> {
    let metadata = revision.pointer("/data/metadata").and_then(Value::as_object);
    let mut members = metadata.into_iter().flatten();
    let brought = members.find(|(name, value)| *name != "namespace" && !value.is_null());
    brought.map_or(Ok(()), |(name, _)| Err(WorkloadError::Metadata { pointer: format!("/data/metadata/{name}") }))
}

/// Fails at a member whose name is not plain ASCII. Go's `encoding/json`, which reads what is in a revision, takes `ſ` for `s` and
/// the Kelvin sign for `k`; no member of a pod template has such a letter.
fn only_plain_names(value: &Value, at: &str) -> Result<(), WorkloadError> {
    match value {
        Value::Object(members) => members.iter().try_for_each(|(name, member)| {
            let here = format!("{at}/{name}");
            if name.is_ascii() {
                only_plain_names(member, &here)
            } else {
                Err(WorkloadError::WrongType { pointer: here, expected: "a member with a plain name" })
            }
        }),
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(index, item)| only_plain_names(item, &format!("{at}/{index}")))
        }
        _ => Ok(()),
    }
}

/// Fails at a member that differs from one of these names in nothing but its case: Go reads member names without regard to
/// it, and so may whoever reads the object later.
fn only_this_case(
    members: &Map<String, Value>,
    names: &[&str],
    at: &str,
    expected: &'static str,
) -> Result<(), WorkloadError> {
    let is_other = |member: &String| names.iter().any(|name| name.eq_ignore_ascii_case(member) && name != member);
    match members.keys().find(|member| is_other(member)) {
        Some(other) => Err(WorkloadError::WrongType { pointer: format!("{at}/{other}"), expected }),
        None => Ok(()),
    }
}

/// The value at a pointer, where every step on the way is absent, null, or an object.
fn step_to<'a>(object: &'a Value, pointer: &str) -> Result<Option<&'a Value>, WorkloadError> {
    let mut value = object;
    let mut at = String::new();
    for step in pointer.split('/').skip(1) {
        let wrong = || WorkloadError::WrongType { pointer: at.clone(), expected: "an object" };
        let members = value.as_object().ok_or_else(wrong)?;
        only_this_case(members, &[step], &at, "a member on the way to a pod spec (its case is wrong)")?;
        let Some(next) = members.get(step).filter(|next| !next.is_null()) else {
            return Ok(None);
        };
        value = next;
        at = format!("{at}/{step}");
    }
    Ok(Some(value))
}

fn read_pod_spec(object: &Value, pointer: &str, workload: &mut Workload) -> Result<(), WorkloadError> {
    let Some(spec) = step_to(object, pointer)? else {
        return Ok(());
    };
    let wrong = |at: String, expected| WorkloadError::WrongType { pointer: at, expected };
    let members = spec.as_object().ok_or_else(|| wrong(pointer.to_owned(), "an object"))?;
    let lists = [&CONTAINER_LISTS[..], &["volumes"]].concat();
    only_this_case(members, &lists, pointer, "a member of a pod spec (its case is wrong)")?;
    for list in CONTAINER_LISTS {
        for (index, container) in list_of(members.get(list), || format!("{pointer}/{list}"))?.iter().enumerate() {
            let at = format!("{pointer}/{list}/{index}");
            push_image(workload, container, &at, "image", list)?;
        }
    }
    // An image volume (KEP-4639) brings an image into the pod just as a container does.
    for (index, volume) in list_of(members.get("volumes"), || format!("{pointer}/volumes"))?.iter().enumerate() {
        let at = format!("{pointer}/volumes/{index}");
        let volume = volume.as_object().ok_or_else(|| wrong(at.clone(), "an object"))?;
        only_this_case(volume, &["image"], &at, "a member of a volume (its case is wrong)")?;
        let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
        match volume.get("image") {
            None | Some(Value::Null) => {}
            Some(image) => {
                let at = format!("{at}/image");
                let image = image.as_object().ok_or_else(|| wrong(at.clone(), "an object"))?;
                only_this_case(image, &["reference"], &at, "a member of a volume (its case is wrong)")?;
                let named = serde_json::json!({"name": name, "reference": image.get("reference")});
                push_image(workload, &named, &at, "reference", "volumes")?;
            }
        }
    }
    workload.pull_secrets = list_of(members.get("imagePullSecrets"), || format!("{pointer}/imagePullSecrets"))?
        .iter()
        .filter_map(|secret| secret.get("name").and_then(Value::as_str).map(str::to_owned))
        .collect();
    let account = |name| members.get(name).and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned);
    workload.service_account = account("serviceAccountName").or_else(|| account("serviceAccount"));
    Ok(())
}

fn list_of(value: Option<&Value>, at: impl Fn() -> String) -> Result<&[Value], WorkloadError> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(WorkloadError::WrongType { pointer: at(), expected: "a list" }),
    }
}

fn push_image(
    workload: &mut Workload,
    container: &Value,
    at: &str,
    field: &str,
    list: &str,
) -> Result<(), WorkloadError> {
    let wrong = |pointer: String, expected| WorkloadError::WrongType { pointer, expected };
    let members = container.as_object().ok_or_else(|| wrong(at.to_owned(), "an object"))?;
    let name = match members.get("name") {
        None | Some(Value::Null) => "",
        Some(Value::String(name)) => name,
        Some(_) => return Err(wrong(format!("{at}/name"), "a string")),
    };
    only_this_case(members, &[field], at, "a member of a container (its case is wrong)")?;
    match members.get(field) {
        None | Some(Value::Null) => {}
        Some(Value::String(image)) if image.is_empty() => {}
        Some(Value::String(image)) if workload.is_template && image.trim().is_empty() => {}
        Some(Value::String(image)) => {
            if workload.images.len() == MAX_IMAGES {
                return Err(WorkloadError::TooManyImages);
            }
            workload.images.push(ContainerImage {
                pointer: format!("{at}/{field}"),
                path: format!("{list}/{name}"),
                image: image.clone(),
            });
        }
        Some(_) => return Err(wrong(format!("{at}/{field}"), "a string")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn images(group: &str, kind: &str, object: &Value) -> Result<Vec<(String, String, String)>, String> {
        let workload = Kinds::known().workload(group, kind, object).map_err(|error| error.to_string())?;
        Ok(workload.images.into_iter().map(|image| (image.pointer, image.path, image.image)).collect())
    }

    #[test]
    fn every_kind_has_its_pod_spec() {
        let spec = json!({"containers": [{"name": "web", "image": "nginx"}]});
        for (group, kind, pointer) in KNOWN {
            let mut object = spec.clone();
            for step in pointer.rsplit('/').filter(|step| !step.is_empty()) {
                object = json!({ step: object });
            }
            let expected = vec![(format!("{pointer}/containers/0/image"), "containers/web".into(), "nginx".into())];
            assert_eq!(images(group, kind, &object), Ok(expected), "{group} {kind}");
        }
    }

    #[test]
    fn all_lists_of_a_pod_count() {
        let pod = json!({"spec": {
            "containers": [{"name": "a", "image": "i1"}, {"name": "a", "image": "i2"}, {"name": "c"}, {"name": "d", "image": ""}],
            "initContainers": [{"name": "a", "image": "i3"}],
            "ephemeralContainers": [{"name": "e", "image": "i4"}],
            "volumes": [{"name": "v", "image": {"reference": "i5", "pullPolicy": "Always"}}, {"name": "w", "emptyDir": {}}],
            "imagePullSecrets": [{"name": "s1"}, {"name": "s2"}],
            "serviceAccountName": "sa",
        }});
        let workload = Kinds::known().workload("", "Pod", &pod).unwrap();
        let found: Vec<_> = workload.images.iter().map(|image| (image.pointer.as_str(), image.path.as_str())).collect();
        let expected = [
            ("/spec/initContainers/0/image", "initContainers/a"),
            ("/spec/containers/0/image", "containers/a"),
            ("/spec/containers/1/image", "containers/a"),
            ("/spec/ephemeralContainers/0/image", "ephemeralContainers/e"),
            ("/spec/volumes/0/image/reference", "volumes/v"),
        ];
        assert_eq!(found, expected);
        for image in &workload.images {
            assert_eq!(pod.pointer(&image.pointer).and_then(Value::as_str), Some(image.image.as_str()));
        }
        assert_eq!(
            (workload.pull_secrets, workload.service_account),
            (vec!["s1".into(), "s2".into()], Some("sa".into()))
        );
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        let cases = [
            (json!({"spec": []}), "/spec is not an object"),
            (json!({"spec": {"containers": {}}}), "/spec/containers is not a list"),
            (json!({"spec": {"containers": ["x"]}}), "/spec/containers/0 is not an object"),
            (json!({"spec": {"containers": [{"image": 5}]}}), "/spec/containers/0/image is not a string"),
            (json!({"spec": {"containers": [{"name": {}}]}}), "/spec/containers/0/name is not a string"),
            (json!({"Spec": {}}), "/Spec is not a member on the way to a pod spec (its case is wrong)"),
            (json!({"spec": {"Containers": []}}), "/spec/Containers is not a member of a pod spec (its case is wrong)"),
            (
                json!({"spec": {"containers": [{"Image": "x"}]}}),
                "/spec/containers/0/Image is not a member of a container (its case is wrong)",
            ),
            (json!({"spec": {"volumes": [{"image": "x"}]}}), "/spec/volumes/0/image is not an object"),
            (json!({"spec": {"volumes": ["x"]}}), "/spec/volumes/0 is not an object"),
            (json!([]), " is not an object"),
        ];
        for (pod, expected) in cases {
            assert_eq!(images("", "Pod", &pod), Err(expected.to_owned()), "{pod}");
        }
        let many: Vec<_> = (0..=MAX_IMAGES).map(|_| json!({"image": "x"})).collect();
        assert!(images("", "Pod", &json!({"spec": {"containers": many}})).is_err());
        assert_eq!(images("", "Pod", &json!({"spec": null})), Ok(vec![]));
        assert_eq!(images("", "Pod", &json!({})), Ok(vec![]));
    }

    /// As controllers write them: a patch of the object that they belong to. Others keep other things in them.
    #[test]
    fn revisions() {
        let patch = |template: Value| json!({"data": {"spec": {"template": template}}, "revision": 1});
        let spec = json!({"$patch": "replace", "metadata": {}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
        let found = images("apps", REVISION, &patch(spec)).unwrap();
        assert_eq!(found[0].0, "/data/spec/template/spec/containers/0/image");
        for other in [json!({}), json!({"data": null}), json!({"data": {"spec": {"domain": {}}}})] {
            assert_eq!(images("apps", REVISION, &other), Ok(vec![]));
        }
        let hidden = json!({"spec": {"Containers": [{"name": "a", "image": "i"}]}});
        assert!(images("apps", REVISION, &patch(hidden)).is_err());
        assert!(images("apps", REVISION, &json!({"data": {"spec": {"Template": {}}}})).is_err());
        // The long s is an s to Go, and the Kelvin sign a k.
        let inner = json!({"containers": [{"name": "a", "image": "i"}]});
        for data in [
            json!({"\u{17f}pec": {"template": {"spec": inner}}}),
            json!({"spec": {"template": {"\u{17f}pec": inner}}}),
            json!({"spec": {"template": {"spec": {"container\u{17f}": [{"name": "a", "image": "i"}]}}}}),
            json!({"spec": {"template": {"spec": {"volumes": [{"name": "v", "Image": {"reference": "i"}}]}}}}),
            json!({"spec": {"template": {"spec": {"volumes": [{"name": "v", "image": {"Reference": "i"}}]}}}}),
        ] {
            assert!(images("apps", REVISION, &json!({ "data": data })).is_err(), "{data}");
        }
    }

    #[test]
    fn kinds_that_are_not_known() {
        let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}}});
        assert_eq!(images("argoproj.io", "Rollout", &template).unwrap().len(), 1);
        assert_eq!(images("autoscaling", "Scale", &json!({"spec": {"replicas": 1}})), Ok(vec![]));
        let mut kinds = Kinds::known();
        assert_eq!(kinds.add("x.io", "Odd", "/spec/inner/podTemplate"), Ok(()));
        for pointer in ["", "/", "spec/template", "spec.template", "/spec/template/", "/spec//template"] {
            assert!(matches!(kinds.add("x.io", "Other", pointer), Err(KindError::Pointer { .. })), "{pointer}");
        }
        assert!(matches!(kinds.add("", "Pod", "/nowhere"), Err(KindError::Known { .. })));
        let odd = json!({"spec": {"inner": {"podTemplate": {"spec": {"containers": [{"image": "i"}]}}}}});
        assert_eq!(kinds.workload("x.io", "Odd", &odd).unwrap().images.len(), 1);
        // Nothing is hidden by an empty list at one of the usual places, nor by a configured place that is wrong.
        let two = json!({"spec": {"containers": [{"image": "i"}], "template": {"spec": {"containers": []}}}});
        assert_eq!(kinds.workload("y.io", "Any", &two).unwrap().images.len(), 1);
        assert_eq!(kinds.workload("x.io", "Odd", &two).unwrap().images.len(), 1);
    }

    #[test]
    fn white_space_is_left_alone_in_templates_only() {
        let spec = json!({"containers": [{"name": "web", "image": " "}]});
        let template = json!({"spec": {"template": {"spec": spec}}});
        assert_eq!(images("apps", "Deployment", &template), Ok(Vec::new()));
        assert_eq!(images("", "Pod", &json!({"spec": spec})).map(|images| images.len()), Ok(1));
    }

    #[test]
    fn a_revision_says_nothing_of_its_workload_but_the_template() {
        let revision = |metadata: Value, spec: Value| json!({"metadata": {"namespace": "own"}, "data": {"metadata": metadata, "spec": {"template": {"spec": spec}}}});
        let spec = json!({"containers": [{"name": "web", "image": "a"}]});
        for metadata in [json!({}), json!({"creationTimestamp": null, "namespace": "own"}), Value::Null] {
            assert!(images("apps", REVISION, &revision(metadata, spec.clone())).is_ok());
        }
        for member in ["uid", "name", "labels", "UID", "ownerReferences"] {
            let error = images("apps", REVISION, &revision(json!({member: "x"}), spec.clone())).unwrap_err();
            assert!(error.starts_with(&format!("/data/metadata/{member} is nothing")), "{error}");
        }
        // Revisions of other things hold whole objects.
        assert_eq!(images("apps", REVISION, &revision(json!({"uid": "x"}), json!({}))), Ok(Vec::new()));
    }

    #[test]
    fn a_revision_stays_in_its_namespace() {
        let revision = |namespace: Value| json!({"metadata": {"namespace": "own"}, "data": {"metadata": {"namespace": namespace}, "spec": {"template": {"spec": {}}}}});
        for namespace in [json!("own"), json!(""), Value::Null] {
            assert_eq!(images("apps", REVISION, &revision(namespace)), Ok(Vec::new()));
        }
        for namespace in [json!("other"), json!(1)] {
            let error = images("apps", REVISION, &revision(namespace)).unwrap_err();
            assert!(error.contains("not the namespace of the revision"), "{error}");
        }
        let other_case = json!({"metadata": {"namespace": "own"}, "data": {"metadata": {"Namespace": "other"}}});
        assert!(images("apps", REVISION, &other_case).is_err());
        let other_case = json!({"metadata": {"namespace": "own"}, "data": {"Metadata": {"namespace": "other"}}});
        assert!(images("apps", REVISION, &other_case).is_err());
    }
}
