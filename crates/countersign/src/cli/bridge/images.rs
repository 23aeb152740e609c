//! Which images are looked at: those of a list, or those that run in a cluster.

use std::collections::BTreeMap;

use anyhow::{anyhow, bail};
use countersign_image::{ImageReference, Sha256, shown};
use countersign_policy::Workload;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::Value;

use crate::cluster;

/// How many different images are looked at: each takes several requests.
const MAX_IMAGES: usize = 10_000;

/// How many bytes a list of images may have: that many long names.
pub(super) const MAX_LIST_BYTES: u64 = 8 << 20;

/// How many pods come with one answer of the API server.
const PAGE: u32 = 500;

/// How many pods are looked at: more than clusters may have, so that an API server that never ends its list does not keep us.
const MAX_PODS: usize = 500_000;

/// How many pull secrets of pods are kept for one image: more are never tried.
const MAX_PULL_SECRETS: usize = 16;

/// An image that is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// The namespace.
    pub(super) namespace: String,
    /// The image, as a container names it.
    pub(super) image: String,
    /// The digest that runs, where it can be told.
    pub(super) running: Option<Sha256>,
    /// With which credentials it is pulled.
    pub(super) workload: Workload,
}

/// Images, each once.
#[derive(Debug, Default)]
struct Images {
    images: Vec<Asked>,
    seen: BTreeMap<(String, String, Option<Sha256>), usize>,
}

impl Images {
    /// Adds an image, or, to one that is there, the credentials of another pod.
    fn add(&mut self, asked: Asked) -> anyhow::Result<()> {
        let next = self.images.len();
        let at = *self.seen.entry((asked.namespace.clone(), asked.image.clone(), asked.running)).or_insert(next);
        let Some(there) = self.images.get_mut(at) else {
            if next == MAX_IMAGES {
                bail!(
                    "there are more than {MAX_IMAGES} different images; look at one namespace after the other (-n), or split the list"
                );
            }
            self.images.push(asked);
            return Ok(());
        };
        let known = &mut there.workload.pull_secrets;
        for name in asked.workload.pull_secrets {
            if known.len() < MAX_PULL_SECRETS && !known.contains(&name) {
                known.push(name);
            }
        }
        Ok(())
    }
}

/// Reads a list: a line for each image, with a namespace before it or not.
///
/// # Errors
/// A line that is neither, or too many of them.
pub(super) fn of_list(file: &str, text: &str, namespace: &str) -> anyhow::Result<Vec<Asked>> {
    let mut images = Images::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split_once(" #").map_or(line, |(line, _)| line).trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let (namespace, image) = match words[..] {
            [image] => (namespace, image),
            [namespace, image] => (namespace, image),
            _ => bail!("{file}:{number}: {} words; write IMAGE, or NAMESPACE IMAGE", words.len()),
        };
        if !cluster::is_object_name(namespace) {
            bail!(
                "{file}:{number}: {:?} cannot be the name of a namespace; write IMAGE, or NAMESPACE IMAGE",
                shown(namespace)
            );
        }
        ImageReference::parse(image)
            .map_err(|problem| anyhow!("{file}:{number}: {:?} is not an image reference: {problem}", shown(image)))?;
        images.add(Asked {
            namespace: namespace.to_owned(),
            image: image.to_owned(),
            running: None,
            workload: Workload::default(),
        })?;
    }
    Ok(images.images)
}

/// The images of all pods of a cluster, or of one namespace, that are not over.
///
/// # Errors
/// The pods cannot be listed, or have too many images.
pub(super) async fn of_cluster(client: &Client, namespace: Option<&str>) -> anyhow::Result<Vec<Asked>> {
    let resource = cluster::resource("", "v1", "Pod", "pods");
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) if !cluster::is_object_name(namespace) => {
            bail!("--namespace {:?} cannot be the name of a namespace", shown(namespace))
        }
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut images = Images::default();
    let mut params = ListParams::default().limit(PAGE);
    let mut pods = 0;
    loop {
        let listed = cluster::in_time(api.list(&params)).await;
        let listed = listed.map_err(|(_, cause)| {
            anyhow!("the pods cannot be listed: {cause} (the user of --kubeconfig needs the right to list pods; or give --images FILE)")
        })?;
        pods += listed.items.len();
        for pod in &listed.items {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            for asked in of_pod(namespace, &pod.data) {
                images.add(asked)?;
            }
        }
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(_) if pods >= MAX_PODS => {
                bail!("there are more than {MAX_PODS} pods; look at one namespace after the other (-n)")
            }
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    images.images.sort_by(|one, other| {
        (&one.namespace, &one.image, one.running).cmp(&(&other.namespace, &other.image, other.running))
    });
    Ok(images.images)
}

/// What is written in a pod's spec, with what its status says of it.
const LISTS: [(&str, &str); 3] = [
    ("initContainers", "initContainerStatuses"),
    ("containers", "containerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
];

/// The images of one pod; none if it is over.
fn of_pod(namespace: &str, pod: &Value) -> Vec<Asked> {
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let items = |value: &Value| value.as_array().map(Vec::as_slice).unwrap_or_default().to_vec();
    let secrets = items(&pod["spec"]["imagePullSecrets"]);
    let workload = Workload {
        pull_secrets: secrets.iter().filter_map(|secret| secret["name"].as_str().map(str::to_owned)).collect(),
        service_account: pod["spec"]["serviceAccountName"].as_str().map(str::to_owned),
        ..Workload::default()
    };
    let asked = |image: &str, running| Asked {
        namespace: namespace.to_owned(),
        image: image.to_owned(),
        running,
        workload: workload.clone(),
    };
    let mut found = Vec::new();
    for (containers, statuses) in LISTS {
        let statuses = items(&pod["status"][statuses]);
        for container in items(&pod["spec"][containers]) {
            let Some(image) = container["image"].as_str().filter(|image| !image.is_empty()) else { continue };
            let status = statuses.iter().find(|status| status["name"] == container["name"]);
            let running = status.and_then(|status| running(image, status["imageID"].as_str()?));
            found.push(asked(image, running));
        }
    }
    let volumes = items(&pod["spec"]["volumes"]);
    found.extend(
        volumes.iter().filter_map(|volume| volume["image"]["reference"].as_str()).map(|image| asked(image, None)),
    );
    found
}

/// The digest that runs, of an image that a container names: `docker-pullable://REPOSITORY@sha256:…` or without the first part. What names
/// another repository, or none (`docker://sha256:…`, the id of the image on its node), is no digest that anybody signs.
fn running(image: &str, image_id: &str) -> Option<Sha256> {
    let id = image_id.split_once("://").map_or(image_id, |(_, id)| id);
    let (_, digest) = id.rsplit_once('@')?;
    let (image, found) = (ImageReference::parse(image).ok()?, ImageReference::parse(id).ok()?);
    let same = image.matched_host() == found.matched_host() && image.matched_path() == found.matched_path();
    Sha256::parse(digest).filter(|_| same)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_read() {
        let text = "# all of them\n\nh.io/a:1\n  shop h.io/a:1  # twice\nshop h.io/a:1\nh.io/b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";
        let read = of_list("f", text, "default").unwrap();
        let read: Vec<_> = read.iter().map(|asked| (asked.namespace.as_str(), &asked.image[..8])).collect();
        assert_eq!(read, [("default", "h.io/a:1"), ("shop", "h.io/a:1"), ("default", "h.io/b@s")]);
        for (text, problem) in [
            ("a b c", "f:1: 3 words"),
            ("\nN h.io/a", "f:2: \"N\" cannot be the name of a namespace"),
            ("n h.io/A:x:y", "f:1: \"h.io/A:x:y\" is not an image reference"),
            ("h.io/$(id)", "f:1: "),
        ] {
            let error = of_list("f", text, "n").unwrap_err().to_string();
            assert!(error.starts_with(problem), "{error}");
        }
        let many: Vec<_> = (0..=MAX_IMAGES).map(|index| format!("h.io/a:{index}\n")).collect();
        assert!(of_list("f", &many.concat(), "n").unwrap_err().to_string().contains("more than 10000"));
    }

    #[test]
    fn what_runs_is_told_by_the_status() {
        let digest = Sha256::of(b"");
        for (image, id, expected) in [
            ("nginx", format!("docker-pullable://nginx@{digest}"), Some(digest)),
            ("nginx:1", format!("docker.io/library/nginx@{digest}"), Some(digest)),
            ("h.io/a:1", format!("h.io/a@{digest}"), Some(digest)),
            ("h.io/a:1", format!("mirror.io/a@{digest}"), None),
            ("h.io/a:1", format!("docker://{digest}"), None),
            ("h.io/a:1", digest.to_string(), None),
            ("h.io/a:1", String::new(), None),
        ] {
            assert_eq!(running(image, &id), expected, "{id}");
        }
    }

    #[test]
    fn all_images_of_a_pod_count() {
        let digest = Sha256::of(b"");
        let pod = json!({
            "spec": {
                "serviceAccountName": "web", "imagePullSecrets": [{"name": "pull"}],
                "initContainers": [{"name": "i", "image": "h.io/i"}], "containers": [{"name": "c", "image": "h.io/c"}, {"name": "none"}],
                "ephemeralContainers": [{"name": "e", "image": "h.io/e"}], "volumes": [{"image": {"reference": "h.io/v"}}, {"emptyDir": {}}],
            },
            "status": {"phase": "Running", "containerStatuses": [{"name": "c", "imageID": format!("h.io/c@{digest}")}]},
        });
        let found = of_pod("n", &pod);
        let images: Vec<_> = found.iter().map(|asked| (asked.image.as_str(), asked.running)).collect();
        assert_eq!(images, [("h.io/i", None), ("h.io/c", Some(digest)), ("h.io/e", None), ("h.io/v", None)]);
        assert_eq!(found[0].workload.pull_secrets, ["pull"]);
        assert_eq!(found[0].workload.service_account.as_deref(), Some("web"));
        let mut images = Images::default();
        let mut another = found[0].clone();
        another.workload.pull_secrets = vec!["pull".into(), "other".into()];
        images.add(found[0].clone()).unwrap();
        images.add(another).unwrap();
        assert_eq!(
            (images.images.len(), &images.images[0].workload.pull_secrets[..]),
            (1, &["pull".to_owned(), "other".to_owned()][..])
        );
        let mut over = pod;
        over["status"]["phase"] = json!("Succeeded");
        assert!(of_pod("n", &over).is_empty());
    }
}
