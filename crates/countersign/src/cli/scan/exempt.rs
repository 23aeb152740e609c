//! Which namespaces no webhook is asked about.

use std::collections::{BTreeMap, BTreeSet};

use countersign_image::shown;
use kube::core::{Selector, SelectorExt as _};
use serde_json::{Value, json};

use crate::install::{KUBE_SYSTEM, NAME};
use crate::registration::{self, Stored};

/// The labels of namespaces, by name.
pub(super) type Labels = BTreeMap<String, BTreeMap<String, String>>;

/// The namespaces that are exempt from review.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Exempt {
    names: BTreeSet<String>,
    /// Why this is what an installation exempts, and not what this cluster does; nothing if it is this cluster's.
    assumed: Option<String>,
}

impl Exempt {
    /// What an installation exempts where nothing else is said.
    pub(super) fn usual(own_namespace: &str, why: &str) -> Self {
        let names = [own_namespace, KUBE_SYSTEM].map(str::to_owned);
        Self { names: names.into(), assumed: Some(why.to_owned()) }
    }

    /// Those of some namespaces, by their labels, that neither webhook selects.
    pub(super) fn by(selectors: &[Selector], namespaces: &Labels) -> Self {
        let is_exempt = |labels: &BTreeMap<String, String>| !selectors.iter().any(|one| one.matches(labels));
        let names = namespaces.iter().filter(|(_, labels)| is_exempt(labels)).map(|(name, _)| name.clone());
        Self { names: names.collect(), assumed: None }
    }

    /// Whether a namespace is among them.
    pub(super) fn has(&self, namespace: &str) -> bool {
        self.names.contains(namespace)
    }

    /// Which they are, for people.
    pub(super) fn told(&self) -> String {
        let names = if self.names.is_empty() {
            "none".to_owned()
        } else {
            self.names.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ")
        };
        let assumed = self.assumed.as_deref().map_or_else(String::new, |why| format!(" (assumed: {})", shown(why)));
        format!("Namespaces that are not reviewed: {names}{assumed}")
    }

    /// The same for programs.
    pub(super) fn as_json(&self) -> Value {
        json!({"namespaces": self.names, "assumed": self.assumed})
    }
}

/// Which namespaces the webhooks of a cluster select; one for each webhook that is there.
///
/// # Errors
/// Why they cannot be told.
pub(super) fn selectors(stored: &Stored) -> Result<Vec<Selector>, String> {
    let mut selectors = Vec::new();
    for (kind, found) in stored {
        let found = found.as_ref().map_err(|cause| format!("{kind} {NAME} {cause}"))?;
        let Some(found) = found else { continue };
        selectors.extend(registration::selectors(found).map_err(|problem| format!("{kind} {NAME}: {problem}"))?);
    }
    if selectors.is_empty() {
        return Err("no webhook is registered".to_owned());
    }
    Ok(selectors)
}

/// What is registered in a cluster.
///
/// # Errors
/// Why it cannot be told.
pub(super) async fn registered(client: &kube::Client) -> Result<Vec<Selector>, String> {
    selectors(&registration::stored(client, NAME).await?)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    use super::*;
    use crate::install::WEBHOOK;

    fn exempt(selector: &Value) -> Vec<String> {
        let stored = |selector: &Value| {
            let entries = json!([{"name": "other"}, {"name": WEBHOOK, "namespaceSelector": selector}]);
            let object = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": NAME}, "webhooks": entries});
            Ok(Some(serde_json::from_value(object).unwrap()))
        };
        let selectors = selectors(&vec![("K", stored(selector)), ("L", stored(selector))]).unwrap();
        let labels = |labels: &[(&str, &str)]| {
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let namespaces = [
            ("bare", labels(&[])),
            ("own", labels(&[("kubernetes.io/metadata.name", "own")])),
            ("team", labels(&[("kubernetes.io/metadata.name", "team"), ("env", "prod"), ("off", "")])),
        ];
        let namespaces = namespaces.map(|(name, labels)| (name.to_owned(), labels));
        Exempt::by(&selectors, &namespaces.into()).names.into_iter().collect()
    }

    #[test]
    fn selectors_are_read_as_the_api_server_reads_them() {
        let expression = |key: &str, operator: &str, values: &[&str]| {
            let mut expression = json!({"key": key, "operator": operator});
            if !values.is_empty() {
                expression["values"] = json!(values);
            }
            json!({"matchExpressions": [expression]})
        };
        let name = "kubernetes.io/metadata.name";
        let cases = [
            (Value::Null, &[][..]),
            (json!({}), &[]),
            (expression(name, "NotIn", &["own", "kube-system"]), &["own"]),
            (expression(name, "In", &["team"]), &["bare", "own"]),
            (expression("off", "DoesNotExist", &[]), &["team"]),
            (expression("off", "Exists", &[]), &["bare", "own"]),
            (json!({"matchLabels": {"env": "prod"}}), &["bare", "own"]),
            (
                json!({"matchLabels": {"env": "prod"}, "matchExpressions": [{"key": "off", "operator": "DoesNotExist"}]}),
                &["bare", "own", "team"],
            ),
        ];
        for (selector, expected) in cases {
            assert_eq!(exempt(&selector), expected, "{selector}");
        }
    }

    /// One webhook is enough for a review.
    #[test]
    fn exempt_is_what_no_webhook_selects() {
        let all = Selector::default();
        let none: Selector =
            serde_json::from_value::<LabelSelector>(json!({"matchLabels": {"x": "y"}})).unwrap().try_into().unwrap();
        let namespaces = BTreeMap::from([("n".to_owned(), BTreeMap::new())]);
        assert!(!Exempt::by(&[all, none.clone()], &namespaces).has("n"));
        assert!(Exempt::by(&[none], &namespaces).has("n"));
        assert!(selectors(&vec![("K", Ok(None))]).is_err() && selectors(&vec![("K", Err("x".into()))]).is_err());
        let usual = Exempt::usual("own", "a dump");
        assert!(usual.has("own") && usual.has("kube-system") && !usual.has("n"));
        assert_eq!(usual.told(), "Namespaces that are not reviewed: kube-system, own (assumed: a dump)");
    }
}
