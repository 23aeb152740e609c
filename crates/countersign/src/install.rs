//! Everything that is installed in a cluster, in the order in which it must be applied.

mod availability;
mod kube_version;
mod metrics;
mod network;
mod pods;
mod settings;
mod uninstall;
mod values;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_policy::Mode as Label;
use serde_json::{Value, json};
use thiserror::Error;

use crate::api::{API_VERSION, GROUP};
use crate::children;
use crate::config::Mode;
use crate::crd::{self, Platform};
use crate::decision::{Call, POLICIES_PATH, Webhook};
use crate::namespaces::LABEL as MODE_LABEL;
use pods::Pods;
use values::{Metrics, Names, NamespaceSelector};

pub(crate) use kube_version::{KubeVersion, NoRelease};
pub(crate) use network::{NoSource, Source};
pub(crate) use values::{TlsSource, Values};

/// The name of everything that is installed.
pub(crate) const NAME: &str = "countersign";

/// The Secret with the serving certificate.
pub(crate) const TLS_SECRET: &str = "countersign-tls";

/// The name of the webhook, which users see in denials.
pub(crate) const WEBHOOK: &str = "trust.hooks.securityenforcement.admission.cloud.ibm.com";

/// The name of the webhook that reviews for namespaces that do not enforce, under a server that does not.
pub(crate) const LENIENT_WEBHOOK: &str = "lenient.hooks.securityenforcement.admission.cloud.ibm.com";

/// The name of the webhook that reviews writes of policies.
pub(crate) const POLICIES_WEBHOOK: &str = "policies.hooks.securityenforcement.admission.cloud.ibm.com";

/// The namespace of what a cluster needs to run at all.
pub(crate) const KUBE_SYSTEM: &str = "kube-system";

/// The label of a namespace with its name. Kubernetes sets it itself since 1.21.
pub(crate) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The authority that cert-manager makes, and the Secret in which it is.
const AUTHORITY: &str = "countersign-ca";

const REVIEWS_PORT: u16 = 8443;
const OPERATIONS_PORT: u16 = 8081;

/// How the webhook gets its serving certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Tls {
    /// Countersign makes it, rotates it, and writes `caBundle` itself.
    #[default]
    SelfManaged,
    /// cert-manager makes it, and writes `caBundle`.
    CertManager,
    /// It is in a Secret that somebody else keeps.
    Secret {
        /// The name of a Secret of type `kubernetes.io/tls`.
        name: String,
        /// The authorities that the API server is to trust, PEM.
        ca_bundle: Vec<u8>,
    },
}

/// Why nothing can be printed.
#[derive(Debug, Error)]
pub(crate) enum InstallError {
    /// Something cannot be written as YAML.
    #[error(transparent)]
    Yaml(#[from] serde_saphyr::ser::Error),
    /// Values that contradict each other.
    #[error("{0}")]
    Values(String),
}

/// What may differ between installations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Install {
    /// The APIs of the cluster.
    pub platform: Platform,
    /// The release of Kubernetes; none for today's. Only [`Platform::Kubernetes`] differs by it.
    pub kube_version: Option<KubeVersion>,
    /// The namespace, which is exempt from review.
    pub namespace: String,
    /// Whether to make it.
    pub makes_namespace: bool,
    /// What is done with a workload that would be denied.
    pub mode: Mode,
    /// How long the API server waits for a review.
    pub timeout_seconds: u32,
    /// Which of the namespaces that are not exempt are reviewed; all if empty.
    pub namespace_selector: NamespaceSelector,
    /// Whether `kube-system` is reviewed on [`Platform::Kubernetes`], where it is exempt otherwise.
    pub review_kube_system: bool,
    /// Further namespaces that are exempt.
    pub exempt_namespaces: Vec<String>,
    /// Who may connect to the port of the reviews; empty for everybody.
    pub reviews_from: Vec<Source>,
    /// Who may connect to the port of probes and metrics; empty for everybody.
    pub operations_from: Vec<Source>,
    /// The container image.
    pub image: String,
    /// How many pods.
    pub replicas: u32,
    /// The serving certificate.
    pub tls: Tls,
    /// How metrics are collected.
    pub metrics: Metrics,
    /// Further labels of all objects.
    pub labels: Names,
    /// Annotations of the Service of the webhooks.
    pub service_annotations: Names,
    /// What the pods have.
    pub pods: Pods,
    /// Settings of `serve`, as they stand in a configuration file.
    pub config: Value,
    /// `spec.repositories` of the ClusterImagePolicy `default`; null or empty for none.
    pub default_policy: Value,
}

#[cfg(test)]
impl Default for Install {
    fn default() -> Self {
        Values::of("").unwrap().install(NAME).unwrap()
    }
}

impl Install {
    /// All objects, in order: what others need comes first, and the webhook configurations last.
    ///
    /// # Errors
    /// Values that contradict each other.
    pub(crate) fn objects(&self) -> Result<Vec<Value>, InstallError> {
        let mut objects: Vec<Value> = self.makes_namespace.then(|| self.namespace()).into_iter().collect();
        objects.extend(crd::all(self.platform));
        objects.push(self.object("v1", "ServiceAccount", json!({})));
        if self.platform == Platform::OpenShift311 {
            objects.push(self.security_context_constraints());
        }
        objects.extend(self.cluster_roles());
        objects.extend(self.role());
        objects.push(self.config_map()?);
        objects.extend(self.cert_manager());
        objects.push(self.service());
        objects.extend(self.quota());
        objects.push(self.deployment()?);
        objects.extend(self.disruption_budget());
        objects.push(self.network_policy());
        objects.extend(self.metrics());
        objects.extend(default_cluster_policy(&self.default_policy));
        objects.extend(self.webhooks());
        let own = self.labels();
        // The definitions are the same in all installations.
        for object in objects.iter_mut().filter(|object| object["kind"] != "CustomResourceDefinition") {
            for (name, value) in own.as_object().into_iter().flatten() {
                if object["metadata"]["labels"].get(name).is_none() {
                    object["metadata"]["labels"][name] = value.clone();
                }
            }
        }
        Ok(objects)
    }

    /// The objects as one YAML text.
    ///
    /// # Errors
    /// As [`Self::objects`].
    pub(crate) fn yaml(&self) -> Result<String, InstallError> {
        Ok(to_yaml(&self.objects()?)?)
    }

    /// Whether this is Kubernetes 1.`minor` or later.
    fn since(&self, minor: u32) -> bool {
        let here = self.kube_version.is_none_or(|version| version >= KubeVersion::one(minor));
        self.platform == Platform::Kubernetes && here
    }

    /// Whether the server denies; without that it only warns or logs where nobody says more.
    fn enforces(&self) -> bool {
        self.mode == Mode::Enforce
    }

    /// The namespaces that are not reviewed. Its own pods must come up when no other is left to review them, and on Kubernetes what
    /// nodes need before any pod of it can run is in `kube-system`.
    fn exempt(&self) -> Vec<String> {
        let system = self.platform == Platform::Kubernetes && !self.review_kube_system;
        let named = system.then(|| KUBE_SYSTEM.to_owned()).into_iter().chain(self.exempt_namespaces.iter().cloned());
        let mut exempt = vec![self.namespace.clone()];
        for namespace in named {
            if !exempt.contains(&namespace) {
                exempt.push(namespace);
            }
        }
        exempt
    }

    /// The labels by which the pods are found. A Deployment keeps those that it was made with.
    fn selector() -> Value {
        json!({"app.kubernetes.io/name": NAME})
    }

    /// The labels of everything.
    fn labels(&self) -> Value {
        let mut labels = Self::selector();
        labels["app.kubernetes.io/instance"] = json!(NAME);
        labels["app.kubernetes.io/version"] = json!(env!("CARGO_PKG_VERSION"));
        for (name, value) in &self.labels {
            labels[name] = json!(value);
        }
        labels
    }

    /// An object of the installation's namespace.
    fn object(&self, api_version: &str, kind: &str, rest: Value) -> Value {
        let mut object = cluster_object(api_version, kind, NAME, rest);
        object["metadata"]["namespace"] = json!(self.namespace);
        object
    }

    fn namespace(&self) -> Value {
        let mut namespace = cluster_object("v1", "Namespace", &self.namespace, json!({}));
        // Before 1.21 the exemption of the webhook needs it here.
        namespace["metadata"]["labels"][NAME_LABEL] = json!(self.namespace);
        if self.platform == Platform::Kubernetes {
            namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = json!("restricted");
        }
        namespace
    }

    /// The container runs under this instead of whatever the cluster's default gives it.
    fn security_context_constraints(&self) -> Value {
        let rest = json!({
            "allowHostDirVolumePlugin": false, "allowHostIPC": false, "allowHostNetwork": false, "allowHostPID": false,
            "allowHostPorts": false, "allowPrivilegedContainer": false, "readOnlyRootFilesystem": true,
            "requiredDropCapabilities": ["ALL"],
            "runAsUser": {"type": "MustRunAsNonRoot"},
            "seLinuxContext": {"type": "MustRunAs"},
            "fsGroup": {"type": "MustRunAs"},
            "supplementalGroups": {"type": "RunAsAny"},
            "volumes": ["configMap", "secret"],
            "users": [format!("system:serviceaccount:{}:{NAME}", self.namespace)],
        });
        cluster_object("security.openshift.io/v1", "SecurityContextConstraints", NAME, rest)
    }

    /// What Countersign may do in all namespaces, and the roles that an administrator gives to people.
    fn cluster_roles(&self) -> Vec<Value> {
        let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
        let both = ["clusterimagepolicies", "imagepolicies"];
        let write = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        let read = ["get", "list", "watch"];
        let mut own = vec![
            rule(GROUP, &both, &read),
            rule(GROUP, &["clusterimagepolicies/status", "imagepolicies/status"], &["patch"]),
            // One by one, by name: never a list of what a cluster keeps secret.
            rule("", &["secrets", "serviceaccounts"], &["get"]),
        ];
        // Of denials; the log has them in any case.
        own.push(rule("", &["events"], &["create", "patch"]));
        if !self.enforces() {
            // Their labels may make the mode stricter.
            own.push(rule("", &["namespaces"], &read));
        }
        // Whether they drop what they do not know.
        let mut definitions = rule("apiextensions.k8s.io", &["customresourcedefinitions"], &["get"]);
        definitions["resourceNames"] = json!(both.map(|plural| format!("{plural}.{GROUP}")));
        own.push(definitions);
        // The owners of children: read one by one, when one of the cluster's controllers makes a child.
        for (group, resources) in owners() {
            own.push(rule(group, &resources, &["get"]));
        }
        // To fill in the rules and to put them back; never to create.
        let mut webhooks = rule(
            "admissionregistration.k8s.io",
            &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
            &["get", "list", "patch", "watch"],
        );
        webhooks["resourceNames"] = json!([NAME]);
        own.push(webhooks);
        let role = |name: &str, rules: Vec<Value>| {
            cluster_object("rbac.authorization.k8s.io/v1", "ClusterRole", name, json!({"rules": rules}))
        };
        let mut viewer = role("countersign-policy-viewer", vec![rule(GROUP, &both, &read)]);
        viewer["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] = json!("true");
        let binding = json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": self.namespace}],
        });
        vec![
            role(NAME, own),
            cluster_object("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", NAME, binding),
            role("countersign-policy-admin", vec![rule(GROUP, &both, &write)]),
            role("countersign-namespace-policy-editor", vec![rule(GROUP, &["imagepolicies"], &write)]),
            viewer,
        ]
    }

    /// What it may do in its own namespace: watch the signer secrets of cluster policies, keep its certificate, and remember
    /// what it saw.
    fn role(&self) -> Vec<Value> {
        let mut rules = vec![
            json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}),
            json!({"apiGroups": [GROUP], "resources": ["trustrecords"], "verbs": ["create", "get", "list", "update", "watch"]}),
        ];
        if self.tls == Tls::SelfManaged {
            rules.push(json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}));
            rules.push(json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": [TLS_SECRET], "verbs": ["update"]}));
        }
        let binding = json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": self.namespace}],
        });
        vec![
            self.object("rbac.authorization.k8s.io/v1", "Role", json!({"rules": rules})),
            self.object("rbac.authorization.k8s.io/v1", "RoleBinding", binding),
        ]
    }

    /// An authority that lives for ten years, and a certificate of it that is renewed often: the API server trusts the authority, so
    /// that a new certificate changes nothing for it. The authority keeps its key when it is renewed itself, so that what it
    /// has signed stays good, whichever of both the API server knows.
    fn cert_manager(&self) -> Vec<Value> {
        if self.tls != Tls::CertManager {
            return Vec::new();
        }
        let named = |kind: &str, name: &str, spec: Value| {
            let mut object = self.object("cert-manager.io/v1", kind, json!({"spec": spec}));
            object["metadata"]["name"] = json!(name);
            object
        };
        let authority = json!({
            "isCA": true,
            "commonName": AUTHORITY,
            "secretName": AUTHORITY,
            "duration": "87600h",
            "issuerRef": {"kind": "Issuer", "name": "countersign-self-signed"},
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Never"},
        });
        let certificate = json!({
            "secretName": TLS_SECRET,
            "dnsNames": [format!("{NAME}.{}.svc", self.namespace)],
            "duration": "2160h",
            "usages": ["digital signature", "server auth"],
            "issuerRef": {"kind": "Issuer", "name": AUTHORITY},
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        });
        vec![
            named("Issuer", "countersign-self-signed", json!({"selfSigned": {}})),
            named("Certificate", AUTHORITY, authority),
            named("Issuer", AUTHORITY, json!({"ca": {"secretName": AUTHORITY}})),
            named("Certificate", NAME, certificate),
        ]
    }

    fn service(&self) -> Value {
        let ports = json!([{"name": "reviews", "port": 443, "targetPort": "reviews", "protocol": "TCP"}]);
        let mut service = self.object("v1", "Service", json!({"spec": {"selector": Self::selector(), "ports": ports}}));
        if !self.service_annotations.is_empty() {
            service["metadata"]["annotations"] = json!(self.service_annotations);
        }
        service
    }

    /// The mutating webhook pins; the validating one, which the API server asks after every mutation, sees what will be stored.
    fn webhooks(&self) -> Vec<Value> {
        let mut mutating = self.workload_webhooks(Webhook::Mutate);
        let mut validating = self.workload_webhooks(Webhook::Validate);
        // A faulty policy denies by itself; this one only says so earlier, and must not keep anybody from mending it.
        validating.insert(1, self.webhook(POLICIES_WEBHOOK, POLICIES_PATH, "Ignore"));
        if self.platform == Platform::Kubernetes {
            for webhook in &mut mutating {
                // What another webhook puts into the object after this one is pinned too.
                webhook["reinvocationPolicy"] = json!("IfNeeded");
            }
        }
        let version = match self.platform {
            Platform::Kubernetes => "admissionregistration.k8s.io/v1",
            Platform::OpenShift311 => "admissionregistration.k8s.io/v1beta1",
        };
        let configuration = |kind: &str, webhooks: &[Value]| {
            let mut object = cluster_object(version, kind, NAME, json!({"webhooks": webhooks}));
            if self.tls == Tls::CertManager {
                object["metadata"]["annotations"] =
                    json!({"cert-manager.io/inject-ca-from": format!("{}/{AUTHORITY}", self.namespace)});
            }
            object
        };
        vec![
            configuration("MutatingWebhookConfiguration", &mutating),
            configuration("ValidatingWebhookConfiguration", &validating),
        ]
    }

    /// The entries about workloads. A server that only warns or logs must not stop anything by being away, but what a namespace enforces
    /// must not be passed by keeping it from answering; so it has an entry for each of both.
    fn workload_webhooks(&self, webhook: Webhook) -> Vec<Value> {
        let entry = |name: &str, enforced: bool, failure_policy: &str, of_label: Vec<Value>| {
            let mut expressions = vec![json!({"key": NAME_LABEL, "operator": "NotIn", "values": self.exempt()})];
            expressions.extend(of_label);
            expressions.extend(self.namespace_selector.match_expressions.iter().cloned());
            let mut entry = self.webhook(name, Call { webhook, enforced }.path(), failure_policy);
            entry["namespaceSelector"] = json!({"matchExpressions": expressions});
            if !self.namespace_selector.match_labels.is_empty() {
                entry["namespaceSelector"]["matchLabels"] = json!(self.namespace_selector.match_labels);
            }
            entry
        };
        if self.enforces() {
            return vec![entry(WEBHOOK, false, "Fail", Vec::new())];
        }
        let not_in = |modes: &[Label]| {
            let modes: Vec<_> = modes.iter().map(|mode| mode.label()).collect();
            json!({"key": MODE_LABEL, "operator": "NotIn", "values": modes})
        };
        // A label that is none of the three counts as `enforce`. Selectors have no "or", so such a namespace is asked about by both.
        let enforces = vec![json!({"key": MODE_LABEL, "operator": "Exists"}), not_in(&[Label::Audit, Label::Warn])];
        vec![
            entry(WEBHOOK, true, "Fail", enforces),
            entry(LENIENT_WEBHOOK, false, "Ignore", vec![not_in(&[Label::Enforce])]),
        ]
    }

    /// A webhook entry of one of the configurations, without rules: the API server asks nobody before a replica that serves has
    /// filled them in (`registration.rs`).
    fn webhook(&self, name: &str, path: &str, failure_policy: &str) -> Value {
        let mut webhook = json!({
            "name": name,
            "clientConfig": {"service": {"name": NAME, "namespace": self.namespace, "path": path}},
            "failurePolicy": failure_policy,
        });
        if self.platform == Platform::Kubernetes {
            webhook["admissionReviewVersions"] = json!(["v1", "v1beta1"]);
            webhook["clientConfig"]["service"]["port"] = json!(443);
            webhook["matchPolicy"] = json!("Equivalent");
            webhook["sideEffects"] = json!("NoneOnDryRun");
            webhook["timeoutSeconds"] = json!(self.timeout_seconds);
        }
        if let Tls::Secret { ca_bundle, .. } = &self.tls {
            webhook["clientConfig"]["caBundle"] = json!(STANDARD.encode(ca_bundle));
        }
        webhook
    }
}

/// The kinds whose objects excuse children, by group.
fn owners() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (group, resource) in children::fetched() {
        groups.entry(group).or_default().push(resource);
    }
    groups
}

/// The ClusterImagePolicy `default`, if there is to be one.
pub(crate) fn default_cluster_policy(repositories: &Value) -> Option<Value> {
    let repositories = repositories.as_array().filter(|repositories| !repositories.is_empty())?;
    let spec = json!({"spec": {"repositories": repositories}});
    Some(cluster_object(API_VERSION, "ClusterImagePolicy", "default", spec))
}

/// An object of the whole cluster.
fn cluster_object(api_version: &str, kind: &str, name: &str, rest: Value) -> Value {
    let mut object = json!({
        "apiVersion": api_version, "kind": kind, "metadata": {"name": name, "labels": Install::selector()},
    });
    if let (Some(object), Value::Object(rest)) = (object.as_object_mut(), rest) {
        object.extend(rest);
    }
    object
}

/// Objects as one YAML text of several documents.
///
/// # Errors
/// Objects that cannot be written as YAML.
pub(crate) fn to_yaml(objects: &[Value]) -> Result<String, serde_saphyr::ser::Error> {
    let documents = objects.iter().map(serde_saphyr::to_string).collect::<Result<Vec<_>, _>>()?;
    Ok(documents.iter().map(|document| format!("{}\n", document.trim_end())).collect::<Vec<_>>().join("---\n"))
}

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use kube::core::SelectorExt as _;

    use super::*;
    use crate::registration;

    fn found(install: &Install, kind: &str, name: &str) -> Value {
        let objects = install.objects().unwrap();
        let found = objects.into_iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.unwrap_or_default()
    }

    /// Whatever a namespace's label says, it is asked about; and where it enforces, what is not answered is denied.
    #[test]
    fn what_a_namespace_enforces_fails_closed_under_every_mode() {
        for mode in [Mode::Enforce, Mode::Warn, Mode::Audit] {
            let install = Install { mode, ..Install::default() };
            for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
                let configuration: DynamicObject = serde_json::from_value(found(&install, kind, NAME)).unwrap();
                let selectors = registration::selectors(&configuration).unwrap();
                let entries = configuration.data["webhooks"].as_array().unwrap();
                let of_workloads = entries.iter().filter(|entry| entry["name"] != POLICIES_WEBHOOK);
                let reviews: Vec<_> = selectors.iter().zip(of_workloads).collect();
                for label in [None, Some("audit"), Some("warn"), Some("enforce"), Some("enforec"), Some("")] {
                    let labels = label.map(|label| (MODE_LABEL.to_owned(), label.to_owned())).into_iter().collect();
                    let asked = reviews.iter().filter(|(selector, _)| selector.matches(&labels));
                    let mut asked: Vec<_> = asked.map(|(_, entry)| entry["failurePolicy"].as_str().unwrap()).collect();
                    asked.sort_unstable();
                    let expected: &[&str] = match (mode, label) {
                        (Mode::Enforce, _) | (_, Some("enforce")) => &["Fail"],
                        (_, None | Some("audit" | "warn")) => &["Ignore"],
                        _ => &["Fail", "Ignore"],
                    };
                    assert_eq!(asked, expected, "{kind} {mode:?} {label:?}");
                }
                for (_, entry) in reviews {
                    let path = entry["clientConfig"]["service"]["path"].as_str().unwrap();
                    let enforced = mode != Mode::Enforce && entry["name"] == WEBHOOK;
                    assert_eq!(path.ends_with("/enforced"), enforced, "{entry}");
                }
            }
        }
    }

    /// What the API server trusts is not what is renewed every few weeks.
    #[test]
    fn a_renewed_certificate_has_the_same_authority() {
        let install = Install { tls: Tls::CertManager, ..Install::default() };
        let serving = found(&install, "Certificate", NAME);
        let issuer = found(&install, "Issuer", serving["spec"]["issuerRef"]["name"].as_str().unwrap());
        let authority = found(&install, "Certificate", issuer["spec"]["ca"]["secretName"].as_str().unwrap());
        assert_eq!(authority["spec"]["isCA"], true);
        assert_eq!(authority["spec"]["privateKey"]["rotationPolicy"], "Never");
        for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
            let annotations = &found(&install, kind, NAME)["metadata"]["annotations"];
            assert_eq!(annotations["cert-manager.io/inject-ca-from"], format!("{NAME}/{AUTHORITY}"));
        }
    }

    /// Of pods that say which user or group they are, OpenShift 4's `restricted-v2` admits none but those of the namespace's range.
    #[test]
    fn pods_say_not_who_they_are_unless_they_are_told_to() {
        let security = |install: &Install| {
            found(install, "Deployment", NAME)["spec"]["template"]["spec"]["securityContext"].clone()
        };
        let expected = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        assert_eq!(security(&Install::default()), expected);
        let mut told = Install::default();
        told.pods.run_as_user = Some(7);
        assert_eq!((&security(&told)["runAsUser"], &security(&told)["runAsGroup"]), (&json!(7), &json!(7)));
    }

    /// No number of pods is one of which a drain could move none.
    #[test]
    fn a_budget_always_permits_a_drain() {
        for platform in [Platform::Kubernetes, Platform::OpenShift311] {
            for replicas in [1, 2, 5] {
                let install = Install { platform, replicas, ..Install::default() };
                let spec = &found(&install, "PodDisruptionBudget", NAME)["spec"];
                let least = spec["minAvailable"].as_u64().unwrap_or(0);
                assert!(least < u64::from(replicas), "{replicas}: {spec}");
            }
        }
    }
}
