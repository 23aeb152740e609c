//! What `doctor` finds out about the installation in a cluster: whether definitions drop fields, what the registered webhooks leave
//! unreviewed, and what nodes need that is reviewed.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{Selector, SelectorExt as _};

use super::Walk;
use crate::cluster;
use crate::install::{NAME, NAME_LABEL, WEBHOOK};
use crate::registration;
use crate::source::definitions::{self, CURE};

/// The priority class of pods that a node needs before it can run any others: its network, say.
const NODE_CRITICAL: &str = "system-node-critical";

/// Looks at the installation. Gives whether nothing is wrong that lets images in; that nothing is reviewed yet counts only if it is
/// required to be.
pub(super) async fn look(client: &Client, walk: &mut Walk, required: bool) -> bool {
    let unregistered = if required { Walk::fail } else { Walk::warn };
    for plural in ["imagepolicies", "clusterimagepolicies"] {
        match definitions::prunes(client, plural).await {
            Ok(false) => walk.step("definitions", &format!("{plural}: every field is read")),
            Ok(true) => {
                let said = format!(
                    "{plural}: fields that are not known are dropped before anybody reads them, so a misspelt one allows everything; {CURE}"
                );
                walk.warn("definitions", &said);
            }
            Err(cause) => walk.warn("definitions", &format!("{plural}: cannot be read: {cause}")),
        }
    }
    let stored = match registration::stored(client, NAME).await {
        Ok(stored) => stored,
        Err(cause) => {
            unregistered(walk, "registration", &format!("cannot be read: {cause}"));
            return !required;
        }
    };
    let missing = registration::missing(&stored, NAME);
    if missing.is_empty() {
        walk.step("registration", "every webhook has rules");
    }
    for missing in &missing {
        unregistered(walk, "registration", missing);
    }
    let registered_as_required = missing.is_empty() || !required;
    let mut configurations = Vec::new();
    for (kind, found) in &stored {
        match registered(found) {
            Ok(reviewed) => configurations.push(reviewed),
            Err(problem) => walk.warn("webhooks", &format!("{kind} {NAME}: {problem}")),
        }
    }
    if configurations.is_empty() {
        return registered_as_required;
    }
    let (namespaces, daemon_sets) = match read(client).await {
        Ok(read) => read,
        Err(cause) => {
            walk.warn("exemptions", &format!("the namespaces and DaemonSets cannot be read: {cause}"));
            return registered_as_required;
        }
    };
    let found = findings(&configurations, &namespaces, &daemon_sets);
    for finding in &found {
        match finding {
            Finding::Good(said) => walk.step("exemptions", said),
            Finding::Odd(said) => walk.warn("exemptions", said),
            Finding::Hole(said) => walk.fail("exemptions", said),
        }
    }
    registered_as_required && !found.iter().any(|finding| matches!(finding, Finding::Hole(_)))
}

/// The namespaces that a registered configuration has reviewed.
fn registered(found: &Result<Option<DynamicObject>, String>) -> Result<Reviewed, String> {
    let found = found.as_ref().map_err(String::clone)?;
    let found =
        found.as_ref().ok_or("is not there, so not all is reviewed; apply what countersign manifests prints")?;
    let mut entries = found.data["webhooks"].as_array().into_iter().flatten();
    let entry = entries.find(|entry| entry["name"] == WEBHOOK);
    let entry = entry.ok_or_else(|| format!("has no webhook {WEBHOOK}; apply what countersign manifests prints"))?;
    if entry["rules"].as_array().is_none_or(Vec::is_empty) {
        return Err("has no rules, so nothing is reviewed; is a pod of Countersign ready?".to_owned());
    }
    registration::selectors(found).map(Reviewed)
}

/// The namespaces that a configuration has reviewed: those that one of its selectors matches.
struct Reviewed(Vec<Selector>);

impl Reviewed {
    fn has(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().any(|one| one.matches(labels))
    }
}

/// Labels by namespace.
type Labels = BTreeMap<String, BTreeMap<String, String>>;

/// The node-critical `DaemonSet`s by namespace.
type DaemonSets = BTreeMap<String, BTreeSet<String>>;

async fn read(client: &Client) -> Result<(Labels, DaemonSets), String> {
    let all = ListParams::default();
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespaces = cluster::in_time(namespaces.list(&all)).await.map_err(|(_, cause)| cause)?;
    let labels = |namespace: Namespace| {
        (namespace.metadata.name.unwrap_or_default(), namespace.metadata.labels.unwrap_or_default())
    };
    let daemon_sets = Api::<DaemonSet>::all(client.clone());
    let mut critical = DaemonSets::new();
    for set in cluster::in_time(daemon_sets.list(&all)).await.map_err(|(_, cause)| cause)? {
        let pod = set.spec.and_then(|spec| spec.template.spec);
        if pod.is_some_and(|pod| pod.priority_class_name.as_deref() == Some(NODE_CRITICAL)) {
            let names = critical.entry(set.metadata.namespace.unwrap_or_default()).or_default();
            names.insert(set.metadata.name.unwrap_or_default());
        }
    }
    Ok((namespaces.into_iter().map(labels).collect(), critical))
}

/// Something that is found of the exemptions.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Good(String),
    /// A cluster could get stuck.
    Odd(String),
    /// Images run unreviewed that nobody meant to exempt.
    Hole(String),
}

/// What the configurations come to together.
fn findings(configurations: &[Reviewed], namespaces: &Labels, daemon_sets: &DaemonSets) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut unreviewed = Vec::new();
    for (name, labels) in namespaces {
        let labelled = labels.get(NAME_LABEL).map(String::as_str);
        let mut proper = labels.clone();
        proper.insert(NAME_LABEL.to_owned(), name.clone());
        let is_exempt = |labels: &BTreeMap<String, String>| configurations.iter().any(|one| !one.has(labels));
        let (is, should_be) = (is_exempt(labels), is_exempt(&proper));
        if is {
            unreviewed.push(name.as_str());
        }
        let cure = format!("kubectl label namespace {name} --overwrite {NAME_LABEL}={name}");
        let label = labelled.map_or_else(|| "it has none".to_owned(), |value| format!("it says {value}"));
        if is && !should_be {
            found.push(Finding::Hole(format!(
                "namespace {name} is not reviewed because of its label {NAME_LABEL}, which must be its name ({label}): whoever set that exempted it; {cure}"
            )));
        } else if should_be && !is {
            found.push(Finding::Odd(format!(
                "namespace {name} is to be exempt, and is reviewed because of its label {NAME_LABEL}, which must be its name ({label}); {cure}"
            )));
        }
        if let Some(sets) = daemon_sets.get(name).filter(|_| !is && !should_be) {
            let sets = sets.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            found.push(Finding::Odd(format!(
                "namespace {name} is reviewed, and nodes wait for what is in it ({sets}): list those images in a policy, or exempt it: countersign manifests --exempt-namespace {name} (chart: exemptNamespaces)"
            )));
        }
    }
    let said = if unreviewed.is_empty() { "no namespace".to_owned() } else { unreviewed.join(", ") };
    found.insert(0, Finding::Good(format!("not reviewed: {said}")));
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn labels(of: &[(&str, Option<&str>)]) -> Labels {
        of.iter()
            .map(|(name, label)| {
                let labels = label.map(|label| (NAME_LABEL.to_owned(), label.to_owned()));
                ((*name).to_owned(), labels.into_iter().collect())
            })
            .collect()
    }

    fn reviewed(webhooks: &Value) -> Result<Reviewed, String> {
        let object = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": NAME}, "webhooks": webhooks});
        registered(&Ok(Some(serde_json::from_value(object).unwrap())))
    }

    fn exempting(names: &[&str]) -> Reviewed {
        let rules = json!([{"resources": ["pods"]}]);
        let expression = json!({"key": NAME_LABEL, "operator": "NotIn", "values": names});
        let other = json!({"name": "policies", "rules": rules});
        let entry = json!({"name": WEBHOOK, "rules": rules, "namespaceSelector": {"matchExpressions": [expression]}});
        reviewed(&json!([other, entry])).unwrap()
    }

    #[test]
    fn what_is_exempt_by_its_label_alone_is_told() {
        let exempt = [exempting(&["countersign", "kube-system"]), exempting(&["countersign", "kube-system"])];
        let sound =
            labels(&[("countersign", Some("countersign")), ("kube-system", Some("kube-system")), ("shop", None)]);
        let good = || Finding::Good("not reviewed: countersign, kube-system".into());
        assert_eq!(findings(&exempt, &sound, &DaemonSets::new()), [good()]);

        let forged =
            labels(&[("countersign", Some("countersign")), ("kube-system", None), ("shop", Some("kube-system"))]);
        let found = findings(&exempt, &forged, &DaemonSets::new());
        assert_eq!(found[0], Finding::Good("not reviewed: countersign, shop".into()));
        assert!(matches!(&found[1], Finding::Odd(said) if said.starts_with("namespace kube-system is to be exempt")
            && said.ends_with("kubectl label namespace kube-system --overwrite kubernetes.io/metadata.name=kube-system")));
        assert!(matches!(&found[2], Finding::Hole(said) if said.starts_with("namespace shop is not reviewed")
            && said.contains("it says kube-system")));
        assert_eq!(found.len(), 3);

        // A wrong label that changes nothing is nobody's concern here, and one of the two webhooks is enough for a hole.
        let odd = labels(&[("shop", Some("x"))]);
        assert_eq!(findings(&exempt, &odd, &DaemonSets::new()), [Finding::Good("not reviewed: no namespace".into())]);
        let uneven = [exempting(&["countersign"]), exempting(&["countersign", "x"])];
        assert!(matches!(&findings(&uneven, &odd, &DaemonSets::new())[1], Finding::Hole(_)));
    }

    #[test]
    fn what_nodes_wait_for_is_told() {
        let exempt = [exempting(&["countersign", "kube-system"])];
        let namespaces = labels(&[("kube-system", Some("kube-system")), ("net", None)]);
        let sets = |namespace: &str| (namespace.to_owned(), BTreeSet::from(["agent".to_owned(), "proxy".to_owned()]));
        let found = findings(&exempt, &namespaces, &DaemonSets::from([sets("kube-system"), sets("net")]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            matches!(&found[1], Finding::Odd(said) if said.starts_with("namespace net is reviewed, and nodes wait for what is in it (agent, proxy)")
            && said.contains("--exempt-namespace net"))
        );
    }

    #[test]
    fn a_selector_is_that_of_the_webhook() {
        let refused = |webhooks: Value| reviewed(&webhooks).err().unwrap();
        assert!(refused(json!([])).contains(WEBHOOK));
        assert!(refused(json!([{"name": WEBHOOK}])).contains("no rules"));
        let rules = json!([{"resources": ["pods"]}]);
        let odd = json!({"matchExpressions": [{"key": "a", "operator": "Near", "values": []}]});
        assert!(
            refused(json!([{"name": WEBHOOK, "rules": rules, "namespaceSelector": odd}])).contains("namespaceSelector")
        );
        for everything in [Value::Null, json!({})] {
            let entry = json!({"name": WEBHOOK, "rules": rules, "namespaceSelector": everything});
            assert!(reviewed(&json!([entry])).unwrap().has(&BTreeMap::new()));
        }
    }
}
