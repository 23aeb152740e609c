use serde_json::json;

use super::*;
use crate::workload::MAX_IMAGES;

fn images(group: &str, kind: &str, object: &Value) -> Result<Vec<(String, String, String)>, String> {
    let workload = Kinds::known().workload(group, kind, object).map_err(|error| error.to_string())?;
    Ok(workload.images.into_iter().map(|image| (image.pointer, image.path, image.image)).collect())
}

#[test]
fn every_kind_has_its_pod_spec() {
    let spec = json!({"containers": [{"name": "web", "image": "nginx"}]});
    for KnownKind { group, kind, pod_spec: pointer, .. } in KNOWN_KINDS {
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
    assert_eq!((workload.pull_secrets, workload.service_account), (vec!["s1".into(), "s2".into()], Some("sa".into())));
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
