//! Whether the cluster's definitions of policies drop members that they do not know.
//!
//! Older ones did: a misspelt `polcy:` was dropped before anybody here could read it, and so allowed everything. Helm never updates what is
//! in `crds/`, so a cluster may have them for a long time.

use kube::Client;
use kube::api::{Api, DynamicObject};
use serde_json::Value;

use crate::api::GROUP;
use crate::cluster;
use crate::crd::{self, PRESERVES};

/// What helps.
pub(crate) const CURE: &str = "apply the definitions of this version: countersign manifests --only crds | kubectl apply -f - (Helm never updates the definitions in crds/)";

/// Whether the definition of a kind of policy (`imagepolicies`) drops members that it does not know.
///
/// # Errors
/// The API server does not say.
pub(crate) async fn prunes(client: &Client, plural: &str) -> Result<bool, String> {
    let name = format!("{plural}.{GROUP}");
    let mut cause = format!("there is no definition {name}");
    for version in ["v1", "v1beta1"] {
        let resource =
            cluster::resource("apiextensions.k8s.io", version, "CustomResourceDefinition", "customresourcedefinitions");
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        match cluster::in_time(api.get(&name)).await {
            Ok(found) => return Ok(drops(version, &found.data["spec"])),
            // The API server may only have the other version.
            Err((Some(404), _)) => {}
            Err((_, problem)) => cause = problem,
        }
    }
    Err(cause)
}

fn drops(version: &str, spec: &Value) -> bool {
    match (version, spec["preserveUnknownFields"].as_bool()) {
        // So it is where nothing is said in v1beta1; Kubernetes 1.11 does not even know the member.
        (_, Some(true)) | ("v1beta1", None) => return false,
        _ => {}
    }
    let versions = spec["versions"].as_array();
    let of_version = versions.into_iter().flatten().find(|listed| listed["name"] == "v1beta1");
    let schema = of_version.map(|listed| &listed["schema"]).filter(|schema| !schema.is_null());
    let theirs = &schema.unwrap_or(&spec["validation"])["openAPIV3Schema"];
    !keeps(&crd::schema("ImagePolicy"), theirs)
}

/// Whether a schema keeps unknown members wherever ours does. A member that it does not describe is kept by the level above.
fn keeps(ours: &Value, theirs: &Value) -> bool {
    if ours[PRESERVES] == true && theirs[PRESERVES] != true {
        return false;
    }
    let below = ours["properties"].as_object().into_iter().flatten();
    let mut described = below.filter_map(|(name, ours)| theirs["properties"].get(name).map(|theirs| (ours, theirs)));
    let items = theirs.get("items").is_none_or(|theirs| keeps(&ours["items"], theirs));
    items && described.all(|(ours, theirs)| keeps(ours, theirs))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::crd::Platform;

    #[test]
    fn definitions_that_drop_members_are_told() {
        for definition in crd::policies(Platform::Kubernetes) {
            assert!(!drops("v1", &definition["spec"]));
            let text = definition["spec"].to_string();
            let former = text.replace(&format!("\"{PRESERVES}\":true"), "\"x\":true");
            assert!(drops("v1", &serde_json::from_str(&former).unwrap()));
            // One level is enough.
            let mut spec = definition["spec"].clone();
            let trust = "/versions/0/schema/openAPIV3Schema/properties/spec/properties/repositories/items/properties/policy/properties/trust";
            spec.pointer_mut(trust).unwrap().as_object_mut().unwrap().remove(PRESERVES);
            assert!(drops("v1", &spec));
        }
        for definition in crd::policies(Platform::OpenShift311) {
            assert!(!drops("v1beta1", &definition["spec"]));
            // As an API server of today shows what was made as v1beta1.
            let mut shown = definition["spec"].clone();
            shown["preserveUnknownFields"] = json!(true);
            assert!(!drops("v1", &shown));
            shown["preserveUnknownFields"] = json!(false);
            assert!(drops("v1beta1", &shown));
        }
    }
}
