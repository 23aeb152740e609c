//! The entries that Countersign answers, and what should stand in them.

use countersign_policy::KNOWN_KINDS;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::api::GROUP as POLICIES_GROUP;
use crate::config::FurtherKind;
use crate::decision::{Call, POLICIES_PATH, Webhook};
use crate::install::{LENIENT_WEBHOOK, POLICIES_WEBHOOK, WEBHOOK};

pub(super) const MUTATING: &str = "MutatingWebhookConfiguration";
pub(super) const VALIDATING: &str = "ValidatingWebhookConfiguration";

/// The member with the conditions under which an entry is asked.
pub(super) const CONDITIONS: &str = "matchConditions";

/// An update that leaves `spec` as it is changes no image: all workloads have their pod spec or pod template there. What has
/// no `spec`, such as a `PodTemplate` or a `ControllerRevision`, is always asked about. To the budget
/// of CEL it is a comparison of two maps by their number of members, which does not grow with the number of containers.
const CONDITION: &str =
    "request.operation != 'UPDATE' || !has(object.spec) || !has(oldObject.spec) || object.spec != oldObject.spec";

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Workloads,
    Policies,
}

/// An entry of a configuration that Countersign answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) configuration: &'static str,
    pub(super) name: &'static str,
    /// The webhook that it asks; none for policies.
    webhook: Option<Webhook>,
    pub(super) about: About,
    /// Whether it is there only where the server's own mode is not `enforce`.
    pub(super) lenient: bool,
}

pub(super) const ENTRIES: [Entry; 5] = [
    Entry::workloads(MUTATING, Webhook::Mutate, false),
    Entry::workloads(VALIDATING, Webhook::Validate, false),
    Entry { configuration: VALIDATING, name: POLICIES_WEBHOOK, webhook: None, about: About::Policies, lenient: false },
    Entry::workloads(MUTATING, Webhook::Mutate, true),
    Entry::workloads(VALIDATING, Webhook::Validate, true),
];

impl Entry {
    const fn workloads(configuration: &'static str, webhook: Webhook, lenient: bool) -> Self {
        let name = if lenient { LENIENT_WEBHOOK } else { WEBHOOK };
        Self { configuration, name, webhook: Some(webhook), about: About::Workloads, lenient }
    }

    /// The paths at which it may ask. Beside a lenient entry the other one is for namespaces that enforce, and says so.
    pub(super) fn paths(self) -> Vec<&'static str> {
        let Some(webhook) = self.webhook else { return vec![POLICIES_PATH] };
        let enforced: &[bool] = if self.lenient { &[false] } else { &[false, true] };
        enforced.iter().map(|&enforced| Call { webhook, enforced }.path()).collect()
    }

    /// Whether it must be in this configuration: a lenient one where the other is for the namespaces that enforce alone.
    pub(super) fn is_due(self, configuration: &DynamicObject) -> bool {
        let Some(webhook) = self.webhook.filter(|_| self.lenient) else { return true };
        let strict = Self::workloads(self.configuration, webhook, false).find(configuration);
        let enforced = Call { webhook, enforced: true }.path();
        self.find(configuration).is_some() || strict.is_some_and(|(_, entry)| path(entry) == Some(enforced))
    }

    /// Where it stands in a configuration, and how.
    pub(super) fn find(self, configuration: &DynamicObject) -> Option<(usize, &Value)> {
        let (entries, paths) = (configuration.data["webhooks"].as_array()?, self.paths());
        let known = |entry: &Value| entry["name"] == self.name && path(entry).is_some_and(|path| paths.contains(&path));
        entries.iter().enumerate().find(|(_, entry)| known(entry))
    }
}

/// The path at which an entry asks.
fn path(entry: &Value) -> Option<&str> {
    let client = &entry["clientConfig"];
    match client["url"].as_str() {
        Some(url) => url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])),
        None => client["service"]["path"].as_str(),
    }
}

pub(super) fn rules_of(entry: &Value) -> &[Value] {
    entry["rules"].as_array().map_or(&[], Vec::as_slice)
}

/// What should stand in the configurations.
#[derive(Debug, Clone)]
pub(super) struct Aim {
    workloads: Vec<Value>,
    policies: Vec<Value>,
    /// `None` where an update that leaves `spec` as it is may change an image.
    conditions: Option<Value>,
    /// Base64 of PEM, where Countersign makes its own certificate.
    pub(super) bundle: Option<String>,
    /// Whether enforcement may begin.
    pub(super) settled: bool,
    /// Whether the API server has `matchConditions`, as far as is known.
    pub(super) has_conditions: bool,
}

impl Aim {
    /// `scoped`: whether rules can have a `scope`, which came with Kubernetes 1.14.
    pub(super) fn new(kinds: &[FurtherKind], scoped: bool) -> Self {
        let rule = |group: &str, resources: &[&str], scope: &str| {
            let mut rule = json!({
                "apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": resources,
            });
            if scoped {
                rule["scope"] = json!(scope);
            }
            rule
        };
        let mut workloads: Vec<Value> = KNOWN_KINDS
            .chunk_by(|one, other| one.group == other.group)
            .map(|kinds| {
                let resources: Vec<_> = kinds.iter().map(|kind| kind.resource).collect();
                rule(kinds[0].group, &resources, "Namespaced")
            })
            .collect();
        let further = kinds.iter().filter_map(|kind| Some(rule(&kind.group, &[kind.resource.as_deref()?], "*")));
        workloads.extend(further);
        Self {
            workloads,
            policies: vec![rule(POLICIES_GROUP, &["clusterimagepolicies", "imagepolicies"], "*")],
            // Further kinds may have their pod template outside of `spec`.
            conditions: kinds.is_empty().then(|| json!([{"name": "changes-the-spec", "expression": CONDITION}])),
            bundle: None,
            settled: false,
            has_conditions: scoped,
        }
    }

    fn rules(&self, about: About) -> &[Value] {
        match about {
            About::Workloads => &self.workloads,
            About::Policies => &self.policies,
        }
    }

    pub(super) fn conditions(&self, about: About) -> Option<&Value> {
        self.conditions.as_ref().filter(|_| about == About::Workloads)
    }

    /// The members of an entry that must be written (`None`: removed), by their path in it.
    ///
    /// # Errors
    /// Why its rules cannot be written yet.
    pub(super) fn repairs(
        &self,
        about: About,
        entry: &Value,
    ) -> Result<Vec<(&'static str, Option<Value>)>, &'static str> {
        let mut repairs = Vec::new();
        let found = entry["clientConfig"]["caBundle"].as_str().unwrap_or_default();
        let begins = rules_of(entry).is_empty();
        match &self.bundle {
            Some(bundle) if found != bundle => repairs.push(("clientConfig/caBundle", Some(json!(bundle)))),
            None if begins && found.is_empty() && entry["clientConfig"]["url"].is_null() => {
                return Err(
                    "has no caBundle yet, so the API server could not verify who answers; cert-manager, or manifests --ca-bundle, must bring it",
                );
            }
            _ => {}
        }
        if !same_rules(rules_of(entry), self.rules(about)) && (self.settled || !begins) {
            repairs.push(("rules", Some(json!(self.rules(about)))));
        }
        let found = entry[CONDITIONS].as_array().filter(|found| !found.is_empty());
        match (self.conditions(about), found) {
            (Some(wanted), found) if self.has_conditions && found != wanted.as_array() => {
                repairs.push((CONDITIONS, Some(wanted.clone())));
            }
            (None, Some(_)) => repairs.push((CONDITIONS, None)),
            _ => {}
        }
        Ok(repairs)
    }
}

/// Whether the rules are the same to the API server, which fills in a `scope`.
fn same_rules(found: &[Value], wanted: &[Value]) -> bool {
    let members = ["apiGroups", "apiVersions", "operations", "resources"];
    let scope = |rule: &Value| rule["scope"].as_str().unwrap_or("*").to_owned();
    let same = |(found, wanted): (&Value, &Value)| {
        members.iter().all(|member| found[member] == wanted[member]) && scope(found) == scope(wanted)
    };
    found.len() == wanted.len() && found.iter().zip(wanted).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use crate::crd::Platform;
    use crate::install::Install;

    fn aim(kinds: &[FurtherKind]) -> Aim {
        Aim { settled: true, ..Aim::new(kinds, true) }
    }

    fn members(repairs: Result<Vec<(&'static str, Option<Value>)>, &'static str>) -> Vec<&'static str> {
        repairs.unwrap().into_iter().map(|(member, _)| member).collect()
    }

    fn entry() -> Value {
        json!({"clientConfig": {"service": {"path": "/admit"}, "caBundle": "x"}})
    }

    fn widget() -> FurtherKind {
        FurtherKind {
            group: "example.com".into(),
            kind: "Widget".into(),
            pod_template: "/pods/template".into(),
            resource: Some("widgets".into()),
        }
    }

    #[test]
    fn what_is_printed_is_known_and_has_no_rules() {
        let both = [Platform::Kubernetes, Platform::OpenShift311];
        for (platform, mode) in both.into_iter().flat_map(|one| [Mode::Enforce, Mode::Audit].map(|mode| (one, mode))) {
            let objects = Install { platform, mode, ..Install::default() }.objects().unwrap();
            let (mut found, lenient) = (0, usize::from(mode != Mode::Enforce));
            for object in objects.into_iter().filter(|object| object["webhooks"].is_array()) {
                let object: DynamicObject = serde_json::from_value(object).unwrap();
                let kind = object.types.clone().unwrap().kind;
                for known in ENTRIES.iter().filter(|entry| entry.configuration == kind && entry.is_due(&object)) {
                    let (_, entry) = known.find(&object).expect(known.name);
                    assert!(entry["rules"].is_null() && entry["matchConditions"].is_null(), "{entry}");
                    found += 1;
                }
                assert_eq!(
                    object.data["webhooks"].as_array().map(Vec::len),
                    Some(lenient + if kind == MUTATING { 1 } else { 2 })
                );
            }
            assert_eq!(found, 3 + 2 * lenient);
        }
    }

    #[test]
    fn an_entry_is_known_by_its_path_in_both_forms() {
        for (client, expected) in [
            (json!({"service": {"path": "/admit"}}), Some("/admit")),
            (json!({"url": "https://h.io:8443/admit"}), Some("/admit")),
            (json!({"url": "https://h.io"}), None),
            (json!({"service": {}}), None),
        ] {
            assert_eq!(path(&json!({"clientConfig": client})), expected, "{client}");
        }
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let aim = Aim { bundle: Some("AAAA".into()), ..aim(&[]) };
        let mut entry = entry();
        assert_eq!(
            members(aim.repairs(About::Workloads, &entry)),
            ["clientConfig/caBundle", "rules", "matchConditions"]
        );
        for (member, value) in aim.repairs(About::Workloads, &entry).unwrap() {
            *entry.pointer_mut("/clientConfig/caBundle").unwrap() = json!("AAAA");
            if member != "clientConfig/caBundle" {
                entry[member] = value.unwrap();
            }
        }
        assert_eq!(members(aim.repairs(About::Workloads, &entry)), [""; 0]);
        // The API server fills in what v1beta1 leaves out, and shows it.
        let old = Aim { has_conditions: false, ..Aim::new(&[], false) };
        let mut shown = json!({"clientConfig": {"caBundle": "x"}, "rules": old.workloads});
        for rule in shown["rules"].as_array_mut().unwrap() {
            rule["scope"] = json!("*");
        }
        assert_eq!(members(old.repairs(About::Workloads, &shown)), [""; 0]);
    }

    #[test]
    fn what_is_changed_is_put_back() {
        let aim = aim(&[]);
        let mut right = entry();
        for (member, value) in aim.repairs(About::Workloads, &right).unwrap() {
            right[member] = value.unwrap();
        }
        let with = |pointer: &str, value: Value| {
            let mut entry = right.clone();
            *entry.pointer_mut(pointer).expect(pointer) = value;
            members(aim.repairs(About::Workloads, &entry))
        };
        assert_eq!(with("/rules", json!([])), ["rules"]);
        assert_eq!(with("/rules/0/operations", json!(["CREATE"])), ["rules"]);
        assert_eq!(with("/rules/0/resources/0", json!("nodes")), ["rules"]);
        assert_eq!(with("/rules/1/apiGroups", json!(["x"])), ["rules"]);
        assert_eq!(with("/rules/1/apiVersions", json!(["v1"])), ["rules"]);
        assert_eq!(with("/rules/1/scope", json!("Cluster")), ["rules"]);
        assert_eq!(with("/matchConditions", json!([])), ["matchConditions"]);
        assert_eq!(with("/matchConditions/0/expression", json!("false")), ["matchConditions"]);
        // Policies have none, and lose what somebody gives them.
        let mut policies = json!({"clientConfig": {"caBundle": "x"}, "rules": aim.policies});
        assert_eq!(members(aim.repairs(About::Policies, &policies)), [""; 0]);
        policies["matchConditions"] = right["matchConditions"].clone();
        assert_eq!(aim.repairs(About::Policies, &policies), Ok(vec![("matchConditions", None)]));
    }

    #[test]
    fn further_kinds_are_registered_and_take_the_condition_away() {
        let known = aim(&[]);
        let further = aim(&[widget(), FurtherKind { resource: None, ..widget() }]);
        assert_eq!(further.workloads.len(), known.workloads.len() + 1);
        let last = further.workloads.last().unwrap();
        assert_eq!((&last["apiGroups"][0], &last["resources"][0]), (&json!("example.com"), &json!("widgets")));
        let mut entry = entry();
        entry["rules"] = json!(further.workloads);
        entry["matchConditions"] = known.conditions.unwrap();
        assert_eq!(further.repairs(About::Workloads, &entry), Ok(vec![("matchConditions", None)]));
        // One without a resource is asked about by whoever else registers it, so it counts as well.
        assert_eq!(aim(&[FurtherKind { resource: None, ..widget() }]).conditions, None);
    }

    #[test]
    fn enforcement_does_not_begin_before_anybody_can_answer() {
        let fresh = Aim::new(&[], true);
        assert_eq!(members(fresh.repairs(About::Workloads, &entry())), ["matchConditions"]);
        // Where it has begun, nothing is waited for.
        let mut changed = entry();
        changed["rules"] = json!([{"apiGroups": ["x"]}]);
        assert_eq!(members(fresh.repairs(About::Workloads, &changed)), ["rules", "matchConditions"]);
        let unverifiable = json!({"clientConfig": {"service": {"path": "/admit"}}});
        assert!(aim(&[]).repairs(About::Workloads, &unverifiable).is_err());
        assert!(aim(&[]).repairs(About::Workloads, &json!({"clientConfig": {"url": "https://h.io/admit"}})).is_ok());
        assert!(Aim { bundle: Some("AAAA".into()), ..aim(&[]) }.repairs(About::Workloads, &unverifiable).is_ok());
    }
}
