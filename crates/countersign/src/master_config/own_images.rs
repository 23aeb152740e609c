//! Where the images of the cluster's own pods come from (router, registry, deployers): `imageConfig.format` of the master's
//! configuration.

use countersign_image::ImageReference;
use countersign_policy::Pattern;
use serde_json::Value;

/// What stands in the format for the name of a part of the cluster.
const COMPONENT: &str = "${component}";

/// The images of the cluster's own pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnImages {
    /// `registry.redhat.io/openshift3/ose-${component}:${version}`
    pub format: String,
    /// Which entry of the default policy is about them.
    pub listed: Listed,
}

/// Which entry of a policy is about the cluster's own images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listed {
    /// None is, and this one would be.
    Missing(String),
    /// This one is, with whatever it asks for.
    By(String),
    /// None is, and the format does not say where they are more exactly than by a whole registry.
    Unclear,
}

/// What a configuration says of them; nothing where it has no format. `repositories` are those of the default policy.
pub(super) fn own_images(config: &Value, repositories: Option<&Value>) -> Option<OwnImages> {
    let format = config.pointer("/imageConfig/format")?.as_str().filter(|format| !format.is_empty())?;
    // A name that only an entry with a wildcard in its place can be meant for.
    let one = format.replace(COMPONENT, "component").replace("${version}", "v3.11");
    let patterns = repositories.and_then(Value::as_array).into_iter().flatten();
    let mut patterns = patterns.filter_map(|entry| Pattern::parse(entry["name"].as_str()?).ok());
    let by = ImageReference::parse(&one).ok().and_then(|one| patterns.find(|pattern| pattern.matches(&one)));
    let listed = match by {
        Some(pattern) => Listed::By(pattern.written().to_owned()),
        None => entry(format).map_or(Listed::Unclear, Listed::Missing),
    };
    Some(OwnImages { format: format.to_owned(), listed })
}

/// The folder of a registry, or of Docker Hub, in which they are: other parts of the cluster are beside them, under other names. Where
/// they are not in a folder, what their names begin with: everything in a registry is more than the cluster's own.
fn entry(format: &str) -> Option<String> {
    let (before, _) = format.split_once(COMPONENT)?;
    let folder = before.rfind('/').map_or("", |slash| &before[..=slash]);
    let (first, rest) = folder.split_once('/').unwrap_or_default();
    let is_registry = rest.is_empty() && (first.contains(['.', ':']) || first == "localhost");
    let name = if folder.is_empty() || is_registry { before } else { folder };
    let says_nothing = name.is_empty() || is_registry && name == folder;
    let entry = format!("{name}*");
    (!says_nothing && !name.contains(['$', '*']) && Pattern::parse(&entry).is_ok()).then_some(entry)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_folder_of_the_format_is_listed() {
        for (format, expected) in [
            ("registry.redhat.io/openshift3/ose-${component}:${version}", Some("registry.redhat.io/openshift3/*")),
            ("docker.io/openshift/origin-${component}:v3.11", Some("docker.io/openshift/*")),
            ("openshift/origin-${component}:${version}", Some("openshift/*")),
            ("mirror.example.com:5000/a/b/ose-${component}:${version}", Some("mirror.example.com:5000/a/b/*")),
            ("mirror.example.com:5000/ose-${component}:${version}", Some("mirror.example.com:5000/ose-*")),
            ("localhost/ose-${component}", Some("localhost/ose-*")),
            ("ose-${component}", Some("ose-*")),
            ("mirror.example.com/${component}:${version}", None),
            ("${component}:${version}", None),
            ("mirror.example.com/${version}/ose-${component}", None),
            ("*/ose-${component}", None),
            ("https://mirror.example.com/x/ose-${component}", None),
            ("registry.redhat.io/openshift3/ose-node", None),
        ] {
            let config = json!({"imageConfig": {"format": format, "latest": false}});
            let expected = expected.map_or(Listed::Unclear, |entry| Listed::Missing(entry.to_owned()));
            let found = own_images(&config, None).unwrap();
            assert_eq!((found.format.as_str(), found.listed), (format, expected));
        }
        for none in [json!({}), json!({"imageConfig": null}), json!({"imageConfig": {"format": ""}})] {
            assert_eq!(own_images(&none, None), None);
        }
    }

    /// An entry that is about them may ask for signatures; another beside it would take that away.
    #[test]
    fn an_entry_that_is_about_them_decides() {
        let config = json!({"imageConfig": {"format": "docker.io/openshift/origin-${component}:${version}"}});
        let listed = |entries: Value| own_images(&config, Some(&entries)).unwrap().listed;
        let trust = json!({"trust": {"enabled": true}});
        assert_eq!(
            listed(json!([{"name": "quay.io/*"}, {"name": "docker.io/*", "policy": trust}])),
            Listed::By("docker.io/*".into())
        );
        let one_alone = json!([{"name": "docker.io/openshift/origin-node"}, {"name": "docker.io/library/*"}]);
        assert_eq!(listed(one_alone), Listed::Missing("docker.io/openshift/*".into()));
    }
}
