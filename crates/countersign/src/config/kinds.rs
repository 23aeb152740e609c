//! Kinds that the configuration adds to those that Kubernetes and `OpenShift` have.

use serde::Deserialize;

use crate::cluster::is_object_name;

/// A kind that holds a pod template, besides those that Kubernetes and `OpenShift` have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct FurtherKind {
    /// Its API group.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// JSON pointer to its pod template, such as `/spec/template`.
    pub pod_template: String,
    /// Its resource, the plural name in lower case (`rollouts`): without it the kind is judged, and not registered.
    #[serde(default)]
    pub resource: Option<String>,
}

impl FurtherKind {
    /// One name that no API server takes would keep all webhooks from being registered; one with an asterisk would register more
    /// than was meant.
    pub(crate) fn check(&self) -> Result<(), String> {
        let wrong = |what: &str, found: &str, example: &str| {
            let kind = &self.kind;
            Err(format!("kinds: the {what} of {kind:?} is {found:?}; it must be a name such as {example}"))
        };
        if !self.group.is_empty() && !is_object_name(&self.group) {
            return wrong("group", &self.group, "argoproj.io");
        }
        match &self.resource {
            Some(resource) if resource.contains('.') || !is_object_name(resource) => {
                wrong("resource", resource, "rollouts, in lower case")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;

    #[test]
    fn kinds_are_named_as_the_api_server_names_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let read = |group: &str, resource: &str| {
            std::fs::write(
                &path,
                format!("kinds: [{{group: {group:?}, kind: K, pod-template: /spec/template, resource: {resource}}}]"),
            )
            .unwrap();
            Settings::from_file(&path)
                .map(|settings| settings.kinds[0].resource.clone())
                .map_err(|error| error.to_string())
        };
        assert_eq!(read("argoproj.io", "rollouts"), Ok(Some("rollouts".to_owned())));
        assert_eq!(read("", "null"), Ok(None));
        for (group, resource) in [
            ("*", "rollouts"),
            ("a b", "rollouts"),
            ("x.io", "Rollouts"),
            ("x.io", "'*'"),
            ("x.io", "a.b"),
            ("x.io", "a/b"),
            ("x.io", "''"),
        ] {
            let refused = read(group, resource).unwrap_err();
            assert!(refused.contains("config.yaml: kinds: the "), "{refused}");
        }
    }
}
