//! The documentation of IBM Cloud Private's image signing, told to a real API server.

use std::fs;
use std::path::Path;

use countersign_tests::Problem;

use crate::world::{World, assert_denied, workload};

const SEED_DEFINITIONS: &str = r"
apiVersion: apiextensions.k8s.io/v1beta1
kind: CustomResourceDefinition
metadata:
  name: imagepolicies.securityenforcement.admission.cloud.ibm.com
spec:
  group: securityenforcement.admission.cloud.ibm.com
  names:
    kind: ImagePolicy
    listKind: ImagePolicyList
    plural: imagepolicies
    singular: imagepolicy
  scope: Namespaced
  version: v1beta1
---
apiVersion: apiextensions.k8s.io/v1beta1
kind: CustomResourceDefinition
metadata:
  name: clusterimagepolicies.securityenforcement.admission.cloud.ibm.com
spec:
  group: securityenforcement.admission.cloud.ibm.com
  names:
    kind: ClusterImagePolicy
    listKind: ClusterImagePolicyList
    plural: clusterimagepolicies
    singular: clusterimagepolicy
  scope: Cluster
  version: v1beta1
";

/// Its own definitions, without a schema, are what many clusters have: ours go over them.
pub(crate) fn definitions(world: &mut World) -> Result<(), Problem> {
    world.plane.apply(SEED_DEFINITIONS)
}

/// Its three denials, word for word, for the situations that it describes.
pub(crate) fn messages(world: &mut World) -> Result<(), Problem> {
    let host = world.registry.host.clone();
    let server = world.trust_server().trim_start_matches("https://").to_owned();
    world.namespace("story")?;
    let deployment = |image: &str| workload("apps/v1", "Deployment", "story", "stsapp", image);

    // No policy at all, then a cluster policy that lists something else.
    let image = world.image("ibmcom/stsapp", "0.1");
    assert_denied(
        &world.create(&deployment(&image))?,
        &format!("Deny \"{image}\", no image policies or cluster polices"),
    );
    world.plane.apply(
        "apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: defaults\nspec:\n  repositories:\n  - name: \"docker.io/*\"\n    policy:\n  - name: \"quay.io/*\"\n    policy:\n",
    )?;
    let words = format!(
        "Deny \"{image}\", no matching repositories in ClusterImagePolicy and no ImagePolicies in the \"story\" namespace"
    );
    world.settled(&deployment(&image), &words)?;
    assert_eq!(world.create(&workload("apps/v1", "Deployment", "story", "nginx", "nginx"))?, Ok(()));

    // The policy of the documentation, and a signer secret without a name.
    let policy = format!(
        "apiVersion:  securityenforcement.admission.cloud.ibm.com/v1beta1\nkind:         ImagePolicy\nmetadata:\n   name:  icp-services-ns-image-policy\n   namespace: story\nspec:\n    repositories:\n    - name: {host}/ibmcom/*\n      policy:\n        trust:\n          enabled: true\n          signerSecrets:\n          - name: yannisigner\n          trustServer: https://{server}\n"
    );
    world.plane.apply(&policy)?;
    world.make_key("yanni")?;
    let key = format!("--from-file=publicKey={}", world.public_key("yanni"));
    world.plane.kubectl("admin", &["create", "secret", "generic", "yannisigner", "-n", "story", &key])?;
    let words = format!(
        "Deny \"{image}\", could not get signerSecret from your cluster, name, or publicKey field in secret yannisigner is empty"
    );
    world.settled(&deployment(&image), &format!("{words} (name is empty)"))?;

    // The secret as documented, and an image that is not signed.
    world.plane.kubectl("admin", &["delete", "secret", "yannisigner", "-n", "story"])?;
    world.signer_secret("story", "yannisigner", "yanni")?;
    let words = format!(
        "Deny \"{image}\", failed to get content trust information: {server} does not have trust data for {host}/ibmcom/stsapp"
    );
    world.settled(&deployment(&image), &words)?;

    // Signed, it runs.
    let pushed = world.sign("ibmcom/stsapp", "0.1", "yanni")?;
    let pinned = format!("{host}/ibmcom/stsapp:0.1@sha256:{}", pushed.digest);
    countersign_tests::wait_for("the signed Deployment", || {
        world.create(&deployment(&image)).is_ok_and(|done| done.is_ok())
    })?;
    countersign_tests::wait_for("its pods", || world.pod_images("story", "stsapp") == [pinned.clone()])?;
    let other = world.image("ibmcom/other", "1");
    world.plane.kubectl("admin", &["get", "imagepolicies", "-n", "story"])?;
    let outside = format!("{host}/elsewhere/app:1");
    assert_denied(
        &world.create(&workload("apps/v1", "Deployment", "story", "outside", &outside))?,
        &format!("Deny \"{outside}\", no matching repositories in the ImagePolicies"),
    );
    let result = world.create(&workload("apps/v1", "Deployment", "story", "other", &other))?;
    assert_denied(
        &result,
        &format!(
            "Deny \"{other}\", failed to get content trust information: {server} does not have trust data for {host}/ibmcom/other"
        ),
    );
    world.plane.kubectl("admin", &["delete", "clusterimagepolicy", "defaults"])?;
    Ok(())
}

/// The block of the master configuration becomes a cluster policy.
pub(crate) fn default_policies(world: &mut World) -> Result<(), Problem> {
    let file = world.folder.path().join("master-config.yaml");
    fs::write(
        &file,
        "admissionConfig:\n  pluginConfig: {}\nimageConfig:\n  format: registry.redhat.io/openshift3/ose-${component}:${version}\n  latest: false\nimage-security-enforcement:\nclusterImagePolicy:\n - name: \"docker.io/*\"\n   policy:\n - name: \"mycluster.icp:8500/*\"\n   policy:\n - name: \"quay.io/*\"\n   policy:\n",
    )?;
    let run = |arguments: &[&str]| countersign_tests::Countersign::run(arguments);
    let path = |path: &Path| path.display().to_string();
    let checked = run(&["openshift", "check", &path(&file)])?;
    assert!(checked.code == 1 && checked.stdout.contains("mycluster.icp:8500/*"), "{checked:?}");
    let policy = run(&["openshift", "check", "-o", "policy", &path(&file)])?;
    assert_eq!(policy.code, 0, "{policy:?}");
    assert!(policy.stdout.starts_with("# imageConfig.format is registry.redhat.io/"), "{policy:?}");
    world.plane.apply(&policy.stdout)?;
    world.namespace("defaults")?;
    let image = "mycluster.icp:8500/kube-system/x:1";
    countersign_tests::wait_for("the default policy", || {
        world.create(&workload("v1", "Pod", "defaults", "listed", image)).is_ok_and(|done| done.is_ok())
    })?;
    // The cluster's own pods, which the block does not list.
    let own = "registry.redhat.io/openshift3/ose-haproxy-router:v3.11.784";
    assert_eq!(world.create(&workload("v1", "Pod", "defaults", "router", own))?, Ok(()));
    let words = "Deny \"ghcr.io/x/y\", no matching repositories in ClusterImagePolicy and no ImagePolicies in the \"defaults\" namespace";
    assert_denied(&world.create(&workload("v1", "Pod", "defaults", "unlisted", "ghcr.io/x/y"))?, words);
    let enabled = run(&["openshift", "enable", "--write", &path(&file)])?;
    assert!(enabled.code == 0 && enabled.stdout.contains("/usr/local/bin/master-restart api"), "{enabled:?}");
    assert_eq!(run(&["openshift", "check", &path(&file)])?.code, 0);
    let backup = fs::read_to_string(world.folder.path().join("master-config.yaml.bak"))?;
    assert!(backup.contains("pluginConfig: {}"), "{backup}");
    let stored = world.plane.get(&["clusterimagepolicy", "default"])?;
    // What stands there as null, today's `kubectl apply` leaves out; to Countersign it is the same.
    let entries = stored["spec"]["repositories"].as_array().cloned().unwrap_or_default();
    let names: Vec<_> = entries.iter().map(|entry| entry["name"].clone()).collect();
    assert_eq!(names, ["docker.io/*", "mycluster.icp:8500/*", "quay.io/*", "registry.redhat.io/openshift3/*"]);
    assert!(entries.iter().all(|entry| entry["policy"].is_null()), "{stored}");
    Ok(())
}
