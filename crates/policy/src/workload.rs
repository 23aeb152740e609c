//! Every image that a pod spec would run, with the place where it stands.

use serde_json::{Map, Value};
use thiserror::Error;

/// How many images one object may have. Pods are limited by their size; a thousand containers are far beyond any.
pub(crate) const MAX_IMAGES: usize = 1000;

/// Lists of containers in a pod spec.
pub(crate) const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

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

/// Members of a pod spec, and of what is in it, that are read.
pub(crate) const READ: [&str; 10] = [
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

/// Fails at a revision whose data names another namespace than the revision stands in: its controller lays the data over the
/// `StatefulSet`, and would make pods there.
pub(crate) fn stays_in_its_namespace(revision: &Value) -> Result<(), WorkloadError> {
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
pub(crate) fn only_the_template(revision: &Value) -> Result<(), WorkloadError> {
    let metadata = revision.pointer("/data/metadata").and_then(Value::as_object);
    let mut members = metadata.into_iter().flatten();
    let brought = members.find(|(name, value)| *name != "namespace" && !value.is_null());
    brought.map_or(Ok(()), |(name, _)| Err(WorkloadError::Metadata { pointer: format!("/data/metadata/{name}") }))
}

/// Fails at a member whose name is not plain ASCII. Go's `encoding/json`, which reads what is in a revision, takes `ſ` for `s` and
/// the Kelvin sign for `k`; no member of a pod template has such a letter.
pub(crate) fn only_plain_names(value: &Value, at: &str) -> Result<(), WorkloadError> {
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

pub(crate) fn read_pod_spec(object: &Value, pointer: &str, workload: &mut Workload) -> Result<(), WorkloadError> {
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
