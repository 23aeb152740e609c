//! What is needed of the objects of a review, and nothing else of them.
//!
//! An object may be many times as large in memory as its text. So members that nobody looks at are never built, what is looked at
//! is bounded, and once the images are found the rest is dropped too.

use std::borrow::Cow;

use countersign_json::skim::{Kind, Skim, Unexpected};
use countersign_policy::{Kinds, Workload};
use serde_json::{Map, Value};

use crate::break_glass::ANNOTATION;

/// The annotation of a pod that a node made for a static pod of its own.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

/// The label that names the revision that a pod of a `StatefulSet` was made from.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";

/// How many values are built of an object: a pod with a thousand containers and as many volumes has seven thousand that are looked at.
const MAX_VALUES: usize = 16_384;

/// How many values are built of an object of which everything is looked at.
const MAX_VALUES_OF_ALL: usize = 131_072;

/// How many bytes a text may have to be kept as it is. An image reference has 455 at most, other names 253. Of a longer one so much is
/// kept, and a hash of the whole: it is no name, as it was none before, it is not blank, and it is equal to no other.
const MAX_TEXT: usize = 1024;

/// What the gate looks at besides the images: who the owner is, and whether a node made the pod.
const IDENTITY: [&str; 10] = [
    "apiVersion",
    "kind",
    "uid",
    "generateName",
    "controller",
    "ownerReferences",
    "labels",
    "annotations",
    "nodeName",
    REVISION_LABEL,
];

/// Reads an object.
struct Reader<'a> {
    /// Which members are built; `None` for all.
    members: Option<&'a dyn Fn(&str) -> bool>,
    /// How many more values may be built.
    left: usize,
    /// Whether long texts are cut.
    cuts: bool,
}

/// How deep what is built may nest. What is passed over may be deeper.
const MAX_DEPTH: usize = 128;

impl Reader<'_> {
    fn text(&self, text: Cow<'_, str>) -> String {
        if !self.cuts || text.len() <= MAX_TEXT {
            return text.into_owned();
        }
        let begin = &text[..text.floor_char_boundary(MAX_TEXT)];
        format!("{begin}… (sha256 {})", countersign_image::Sha256::of(text.as_bytes()).hex())
    }

    /// Builds the next value.
    fn value(&mut self, json: &mut Skim<'_>, depth: usize) -> Result<Value, String> {
        self.left = self.left.checked_sub(1).ok_or("it has more parts than any sound object")?;
        if depth > MAX_DEPTH {
            return Err("it is nested too deeply".to_owned());
        }
        let told = |problem: Unexpected| problem.to_string();
        let kind = json.kind().map_err(told)?;
        Ok(match kind {
            Kind::Text => Value::String(self.text(json.string().map_err(told)?)),
            Kind::Array => {
                json.enter(kind).map_err(told)?;
                let mut list = Vec::new();
                while json.item(list.is_empty()).map_err(told)? {
                    list.push(self.value(json, depth + 1)?);
                }
                Value::Array(list)
            }
            Kind::Object => {
                json.enter(kind).map_err(told)?;
                let (mut object, mut first) = (Map::new(), true);
                while let Some(name) = json.member(first).map_err(told)? {
                    first = false;
                    if self.members.is_none_or(|members| members(&name)) {
                        let name = self.text(name);
                        let value = self.value(json, depth + 1)?;
                        object.insert(name, value);
                    } else {
                        json.value().map_err(told)?;
                    }
                }
                Value::Object(object)
            }
            Kind::Null | Kind::Bool | Kind::Number => {
                serde_json::from_str(json.value().map_err(told)?).map_err(|error| error.to_string())?
            }
        })
    }
}

fn read(json: &str, mut reader: Reader<'_>) -> Result<Value, String> {
    let mut json = Skim::new(json);
    let value = reader.value(&mut json, 0)?;
    json.end().map_err(|problem| problem.to_string())?;
    Ok(value)
}

/// Reads everything of an object, within bounds.
///
/// # Errors
/// What is no JSON, or has more than 131 072 values.
pub(crate) fn read_all(json: &str) -> Result<Value, String> {
    read(json, Reader { members: None, left: MAX_VALUES_OF_ALL, cuts: false })
}

/// Reads members of these names alone, wherever they stand below one another, within bounds.
///
/// # Errors
/// What is no JSON, or has too many values.
pub(crate) fn read_members(json: &str, names: &[&str]) -> Result<Value, String> {
    let members = |name: &str| names.contains(&name);
    read(json, Reader { members: Some(&members), left: MAX_VALUES, cuts: true })
}

/// The images of an object, and what tells its owner.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Its images.
    pub workload: Workload,
    /// Its `metadata`, as far as it tells the owner, and `spec.nodeName`.
    pub identity: Value,
}

/// Reads what is looked at of an object of a kind: its images, and what tells its owner.
///
/// # Errors
/// What is no JSON, or has too many values.
pub(crate) fn read_kept(kinds: &Kinds, group: &str, kind: &str, json: &str) -> Result<Value, String> {
    let of_use = |name: &str| is_of_use(kinds, name);
    // Of a revision everything is looked at, as its controller lays all of it over the workload.
    let reader = if countersign_policy::is_revision(group, kind) {
        Reader { members: None, left: MAX_VALUES_OF_ALL, cuts: true }
    } else {
        Reader { members: Some(&of_use), left: MAX_VALUES, cuts: true }
    };
    read(json, reader)
}

impl Reading {
    /// Reads an object of a kind.
    ///
    /// # Errors
    /// Why its images cannot be told.
    pub fn of(kinds: &Kinds, group: &str, kind: &str, json: &str) -> Result<Self, String> {
        let object = read_kept(kinds, group, kind, json).map_err(|error| format!("it cannot be read: {error}"))?;
        let workload = kinds.workload(group, kind, &object).map_err(|error| error.to_string())?;
        Ok(Self { workload, identity: identity(object) })
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        let image = |image: &countersign_policy::ContainerImage| {
            size_of_val(image) + image.pointer.len() + image.path.len() + image.image.len()
        };
        let images: usize = self.workload.images.iter().map(image).sum();
        images + self.workload.pull_secrets.iter().map(String::len).sum::<usize>() + size_of_value(&self.identity)
    }
}

fn size_of_value(value: &Value) -> usize {
    let inner = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size_of_value).sum(),
        Value::Object(members) => members.iter().map(|(name, value)| 64 + name.len() + size_of_value(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    size_of::<Value>() + inner
}

/// Whether somebody looks at a member of this name. Those that differ from it in their case are looked at too: to be refused.
fn is_of_use(kinds: &Kinds, name: &str) -> bool {
    kinds.looks_at(name)
        || name == MIRROR
        || name == ANNOTATION
        || IDENTITY.iter().any(|identity| identity.eq_ignore_ascii_case(name))
}

/// The part of an object that tells its owner.
fn identity(mut object: Value) -> Value {
    let node = object.pointer_mut("/spec/nodeName").map(Value::take);
    let metadata = object.get_mut("metadata").map(Value::take);
    serde_json::json!({"metadata": metadata, "spec": {"nodeName": node}})
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is found in the whole object.
    fn of_all(kinds: &Kinds, group: &str, kind: &str, object: &Value) -> Result<Workload, String> {
        kinds.workload(group, kind, object).map_err(|error| error.to_string())
    }

    fn same(group: &str, kind: &str, object: &Value) {
        let mut kinds = Kinds::known();
        kinds.add("example.com", "Runner", "/deep/Down/podTemplate").unwrap();
        let read = Reading::of(&kinds, group, kind, &object.to_string()).map(|read| read.workload);
        assert_eq!(read, of_all(&kinds, group, kind, object), "{kind}: {object}");
    }

    /// Whatever is left out of an object, its images, or what is wrong with it, are those of the whole.
    #[test]
    fn the_images_are_those_of_the_whole_object() {
        let spec = json!({
            "containers": [{"name": "web", "image": "a:1", "env": [{"name": "x", "value": "y"}], "args": ["--image"]}, {"image": "b"}],
            "initContainers": [{"name": "setup", "image": "c:1"}],
            "ephemeralContainers": [{"name": "debug", "image": "d:1", "targetContainerName": "web"}],
            "volumes": [{"name": "v", "image": {"reference": "e:1", "pullPolicy": "Always"}}, {"name": "w", "emptyDir": {}}],
            "imagePullSecrets": [{"name": "p"}], "serviceAccountName": "s", "nodeName": "n", "securityContext": {"name": 1},
        });
        let with = |change: &dyn Fn(&mut Value)| {
            let mut changed = spec.clone();
            change(&mut changed);
            changed
        };
        let specs = [
            spec.clone(),
            with(&|spec| spec["Containers"] = json!([])),
            with(&|spec| spec["containers"][0]["Image"] = json!("x")),
            with(&|spec| spec["containers"] = json!({"name": 1})),
            with(&|spec| spec["containers"][1] = json!(7)),
            with(&|spec| spec["containers"][1]["name"] = json!(["x"])),
            with(&|spec| spec["containers"][1]["image"] = json!(1.5)),
            with(&|spec| spec["volumes"][0]["image"] = json!("x")),
            with(&|spec| spec["volumes"][1]["IMAGE"] = json!({})),
            with(&|spec| spec["imagePullSecrets"] = json!([1, {"name": "q"}, {"key": "r"}])),
            with(&|spec| spec["serviceAccountName"] = Value::Null),
            with(&|spec| spec["initContainers"] = json!([{"name": "a", "image": " "}, {"name": "b", "image": ""}])),
            json!(null),
            json!([]),
            json!("text"),
        ];
        for spec in &specs {
            same("", "Pod", &json!({"metadata": {"name": "p"}, "spec": spec}));
            same("", "Pod", &json!({"Spec": spec}));
            same("", "PodTemplate", &json!({"template": {"spec": spec}}));
            same("", "EphemeralContainers", spec);
            same("apps", "Deployment", &json!({"spec": {"replicas": 1, "template": {"metadata": {}, "spec": spec}}}));
            same("apps", "Deployment", &json!({"spec": {"replicas": 1, "Template": {"metadata": {}, "spec": spec}}}));
            same("batch", "CronJob", &json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}}));
            same("example.com", "Runner", &json!({"deep": {"Down": {"podTemplate": {"spec": spec}}}, "spec": spec}));
            same("example.com", "Other", &json!({"spec": {"template": {"spec": spec}}, "template": {"spec": spec}}));
            for metadata in
                [json!({}), json!({"labels": {"a": "b"}}), json!({"namespace": "x"}), json!({"Namespace": "n"})]
            {
                let data = json!({"metadata": metadata, "spec": {"template": {"spec": spec}}});
                same("apps", "ControllerRevision", &json!({"metadata": {"namespace": "n"}, "data": data}));
            }
            let odd = json!({"spec": {"template": {"spec": spec, "metadata": {"annotations": {"\u{17f}pec": "x"}}}}});
            same("apps", "ControllerRevision", &json!({"data": odd}));
        }
    }

    /// A text that is cut is not blank, is no name of an image, and is equal to no other that begins like it.
    #[test]
    fn what_is_cut_is_taken_for_nothing_else() {
        let of = |image: String| {
            let object = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": image}]}}}});
            let read = Reading::of(&Kinds::known(), "apps", "Deployment", &object.to_string()).unwrap();
            read.workload.images.into_iter().map(|image| image.image).collect::<Vec<_>>()
        };
        for spaces in [MAX_TEXT, 100 * MAX_TEXT] {
            let (one, other) = (of(" ".repeat(spaces) + "evil.io/bad:1"), of(" ".repeat(spaces) + "evil.io/bad:2"));
            assert!(one.len() == 1 && one != other);
            assert!(countersign_image::ImageReference::parse(&one[0]).is_err());
        }
        assert_eq!(of(" ".repeat(MAX_TEXT)), [""; 0], "what OpenShift's triggers fill in");
    }

    #[test]
    fn what_tells_the_owner_is_read() {
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true});
        let labels = json!({REVISION_LABEL: "web-1", "app": "web"});
        let pod = json!({
            "metadata": {"name": "p", "labels": labels, "annotations": {MIRROR: "x", "a": "b"}, "ownerReferences": [owner]},
            "spec": {"nodeName": "node-1", "containers": [{"name": "web", "image": "a"}]},
        });
        let read = Reading::of(&Kinds::known(), "", "Pod", &pod.to_string()).unwrap();
        let expected = json!({
            "metadata": {
                "name": "p", "labels": {REVISION_LABEL: "web-1"}, "annotations": {MIRROR: "x"},
                "ownerReferences": [owner],
            },
            "spec": {"nodeName": "node-1"},
        });
        assert_eq!(read.identity, expected);
    }

    #[test]
    fn what_is_looked_at_is_bounded() {
        let kinds = Kinds::known();
        let of = |object: String| Reading::of(&kinds, "", "Pod", &object);
        let many = format!(r#"{{"spec":{{"containers":[{}{{}}]}}}}"#, "{},".repeat(MAX_VALUES));
        assert!(of(many).unwrap_err().contains("more parts than any sound object"));
        let junk = format!(
            r#"{{"spec":{{"junk":[{}{{}}],"containers":[{{"name":"a","image":"b"}}]}}}}"#,
            "{},".repeat(1 << 20)
        );
        assert_eq!(of(junk).unwrap().workload.images.len(), 1);
        let long = "\u{e9}".repeat(MAX_TEXT);
        let read = of(json!({"spec": {"containers": [{"name": "a", "image": long}]}}).to_string()).unwrap();
        assert!(read.workload.images[0].image.len() <= MAX_TEXT + 100 && read.size() < 2 * MAX_TEXT);
        assert!(countersign_image::ImageReference::parse(&read.workload.images[0].image).is_err());
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES_OF_ALL));
        assert!(read_all(&many).is_err() && read_all("[0] 1").is_err());
        assert_eq!(read_all(r#"{"a":[1,-1,1.5,true,null,"x"]}"#).unwrap(), json!({"a": [1, -1, 1.5, true, null, "x"]}));
    }
}
