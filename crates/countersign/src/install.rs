//! Everything that is installed in a cluster, in the order in which it must be applied.

mod availability;
mod kube_version;
mod network;
mod uninstall;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::api::{API_VERSION, GROUP};
use crate::children;
use crate::crd::{self, Platform};

pub(crate) use kube_version::{KubeVersion, NoRelease};
pub(crate) use network::{NoSource, Source};

/// The name of everything that is installed.
pub(crate) const NAME: &str = "countersign";

/// The Secret with the serving certificate.
pub(crate) const TLS_SECRET: &str = "countersign-tls";

/// The name of the webhook, which users see in denials.
pub(crate) const WEBHOOK: &str = "trust.hooks.securityenforcement.admission.cloud.ibm.com";

/// The name of the webhook that reviews writes of policies.
pub(crate) const POLICIES_WEBHOOK: &str = "policies.hooks.securityenforcement.admission.cloud.ibm.com";

/// The namespace of what a cluster needs to run at all.
pub(crate) const KUBE_SYSTEM: &str = "kube-system";

/// The label of a namespace with its name. Kubernetes sets it itself since 1.21.
pub(crate) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The user that the container runs as where the platform does not choose one.
const USER: u32 = 65532;

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

/// What may differ between installations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Install {
    /// The APIs of the cluster.
    pub platform: Platform,
    /// The release of Kubernetes; none for today's. Only [`Platform::Kubernetes`] differs by it.
    pub kube_version: Option<KubeVersion>,
    /// The namespace, which is exempt from review.
    pub namespace: String,
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
    /// Settings of `serve`, as they stand in a configuration file.
    pub config: Value,
    /// `spec.repositories` of the ClusterImagePolicy `default`; null or empty for none.
    pub default_policy: Value,
}

impl Default for Install {
    fn default() -> Self {
        Self {
            platform: Platform::Kubernetes,
            kube_version: None,
            namespace: NAME.to_owned(),
            review_kube_system: false,
            exempt_namespaces: Vec::new(),
            reviews_from: Vec::new(),
            operations_from: Vec::new(),
            image: format!("countersign:{}", env!("CARGO_PKG_VERSION")),
            replicas: 2,
            tls: Tls::SelfManaged,
            config: json!({}),
            default_policy: Value::Null,
        }
    }
}

impl Install {
    /// All objects, in order: what others need comes first, and the webhook configurations last.
    ///
    /// # Errors
    /// A configuration that cannot be written as YAML.
    pub(crate) fn objects(&self) -> Result<Vec<Value>, serde_saphyr::ser::Error> {
        let mut objects = vec![self.namespace()];
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
        objects.push(self.deployment());
        objects.push(self.disruption_budget());
        objects.push(self.network_policy());
        objects.extend(self.default_cluster_policy());
        objects.extend(self.webhooks());
        Ok(objects)
    }

    /// The objects as one YAML text.
    ///
    /// # Errors
    /// As [`Self::objects`].
    pub(crate) fn yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        to_yaml(&self.objects()?)
    }

    /// Whether this is Kubernetes 1.`minor` or later.
    fn since(&self, minor: u32) -> bool {
        let here = self.kube_version.is_none_or(|version| version >= KubeVersion::one(minor));
        self.platform == Platform::Kubernetes && here
    }

    /// Whether the server denies; without that it only warns or logs where nobody says more.
    fn enforces(&self) -> bool {
        self.config.get("mode").and_then(Value::as_str).is_none_or(|mode| mode == "enforce")
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

    fn labels() -> Value {
        json!({"app.kubernetes.io/name": NAME})
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

    fn config_map(&self) -> Result<Value, serde_saphyr::ser::Error> {
        let text = serde_saphyr::to_string(&self.config)?;
        Ok(self.object("v1", "ConfigMap", json!({"data": {"config.yaml": format!("{}\n", text.trim_end())}})))
    }

    fn cert_manager(&self) -> Vec<Value> {
        if self.tls != Tls::CertManager {
            return Vec::new();
        }
        let certificate = json!({"spec": {
            "secretName": TLS_SECRET,
            "dnsNames": [format!("{NAME}.{}.svc", self.namespace)],
            "issuerRef": {"kind": "Issuer", "name": NAME},
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        }});
        vec![
            self.object("cert-manager.io/v1", "Issuer", json!({"spec": {"selfSigned": {}}})),
            self.object("cert-manager.io/v1", "Certificate", certificate),
        ]
    }

    fn service(&self) -> Value {
        let ports = json!([{"name": "reviews", "port": 443, "targetPort": "reviews", "protocol": "TCP"}]);
        self.object("v1", "Service", json!({"spec": {"selector": Self::labels(), "ports": ports}}))
    }

    fn deployment(&self) -> Value {
        let mut arguments = vec![
            "serve".to_owned(),
            "--config=/etc/countersign/config.yaml".to_owned(),
            format!("--listen=0.0.0.0:{REVIEWS_PORT}"),
            format!("--ops-listen=0.0.0.0:{OPERATIONS_PORT}"),
            "--trust-ca=/etc/countersign-trust-ca".to_owned(),
            "--shutdown-delay=5s".to_owned(),
            format!("--webhook-configuration={NAME}"),
        ];
        let mut mounts = vec![
            json!({"name": "config", "mountPath": "/etc/countersign", "readOnly": true}),
            json!({"name": "trust-ca", "mountPath": "/etc/countersign-trust-ca", "readOnly": true}),
            json!({"name": "client-ca", "mountPath": "/etc/countersign-client-ca", "readOnly": true}),
        ];
        let mut volumes = vec![
            json!({"name": "config", "configMap": {"name": NAME}}),
            json!({"name": "trust-ca", "configMap": {"name": "countersign-trust-ca", "optional": true}}),
            json!({"name": "client-ca", "configMap": {"name": "countersign-client-ca", "optional": true}}),
        ];
        let secret = match &self.tls {
            Tls::SelfManaged => {
                arguments.push(format!("--tls-secret={TLS_SECRET}"));
                arguments.push(format!("--service={NAME}"));
                None
            }
            Tls::CertManager => Some(TLS_SECRET),
            Tls::Secret { name, .. } => Some(name.as_str()),
        };
        if let Some(secret) = secret {
            arguments.extend(["--tls-cert=/tls/tls.crt".to_owned(), "--tls-key=/tls/tls.key".to_owned()]);
            mounts.push(json!({"name": "tls", "mountPath": "/tls", "readOnly": true}));
            volumes.push(json!({"name": "tls", "secret": {"secretName": secret}}));
        }
        let probe = |path: &str| json!({"httpGet": {"path": path, "port": "operations"}, "periodSeconds": 5});
        let container = json!({
            "name": NAME,
            "image": self.image,
            "args": arguments,
            "env": [{"name": "COUNTERSIGN_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
            "ports": [
                {"name": "reviews", "containerPort": REVIEWS_PORT, "protocol": "TCP"},
                {"name": "operations", "containerPort": OPERATIONS_PORT, "protocol": "TCP"},
            ],
            "livenessProbe": probe("/livez"),
            "readinessProbe": probe("/readyz"),
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": mounts,
        });
        let mut pod = json!({
            "serviceAccountName": NAME,
            "terminationGracePeriodSeconds": 45,
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
                "weight": 100,
                "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": Self::labels()}},
            }]}},
            "containers": [container],
            "volumes": volumes,
        });
        if self.platform == Platform::Kubernetes {
            // OpenShift gives each namespace a range of users; a fixed one would not fit it.
            pod["securityContext"] = json!({"runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": true});
        }
        if self.since(19) {
            pod["securityContext"]["seccompProfile"] = json!({"type": "RuntimeDefault"});
        }
        if let Some(class) = self.priority_class() {
            pod["priorityClassName"] = json!(class);
        }
        let spec = json!({
            "replicas": self.replicas,
            "selector": {"matchLabels": Self::labels()},
            // A new pod is ready before an old one goes: at no moment is the webhook short of one.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": Self::labels()}, "spec": pod},
        });
        self.object("apps/v1", "Deployment", json!({"spec": spec}))
    }

    /// The ClusterImagePolicy `default`, if there is to be one.
    pub(crate) fn default_cluster_policy(&self) -> Option<Value> {
        let repositories = self.default_policy.as_array().filter(|repositories| !repositories.is_empty())?;
        let spec = json!({"spec": {"repositories": repositories}});
        Some(cluster_object(API_VERSION, "ClusterImagePolicy", "default", spec))
    }

    /// The mutating webhook pins; the validating one, which the API server asks after every mutation, sees what will be stored.
    fn webhooks(&self) -> Vec<Value> {
        let mut reviewed_policies = self.webhook(POLICIES_WEBHOOK, "/policies");
        // A faulty policy denies by itself; this one only says so earlier, and must not keep anybody from mending it.
        reviewed_policies["failurePolicy"] = json!("Ignore");
        let mut mutating = self.webhook(WEBHOOK, "/admit");
        let mut validating = self.webhook(WEBHOOK, "/validate");
        let exempt = self.exempt();
        for webhook in [&mut mutating, &mut validating] {
            webhook["namespaceSelector"] = json!({"matchExpressions": [
                {"key": NAME_LABEL, "operator": "NotIn", "values": exempt},
            ]});
        }
        if self.platform == Platform::Kubernetes {
            // What another webhook puts into the object after this one is pinned too.
            mutating["reinvocationPolicy"] = json!("IfNeeded");
        }
        let version = match self.platform {
            Platform::Kubernetes => "admissionregistration.k8s.io/v1",
            Platform::OpenShift311 => "admissionregistration.k8s.io/v1beta1",
        };
        let configuration = |kind: &str, webhooks: &[Value]| {
            let mut object = cluster_object(version, kind, NAME, json!({"webhooks": webhooks}));
            if self.tls == Tls::CertManager {
                object["metadata"]["annotations"] =
                    json!({"cert-manager.io/inject-ca-from": format!("{}/{NAME}", self.namespace)});
            }
            object
        };
        vec![
            configuration("MutatingWebhookConfiguration", &[mutating]),
            configuration("ValidatingWebhookConfiguration", &[validating, reviewed_policies]),
        ]
    }

    /// A webhook entry of one of the configurations, without rules: the API server asks nobody before a replica that serves has
    /// filled them in (`registration.rs`).
    fn webhook(&self, name: &str, path: &str) -> Value {
        let mut webhook = json!({
            "name": name,
            "clientConfig": {"service": {"name": NAME, "namespace": self.namespace, "path": path}},
            // A server that only warns or logs must not stop anything by being away.
            "failurePolicy": if self.enforces() { "Fail" } else { "Ignore" },
        });
        if self.platform == Platform::Kubernetes {
            webhook["admissionReviewVersions"] = json!(["v1", "v1beta1"]);
            webhook["clientConfig"]["service"]["port"] = json!(443);
            webhook["matchPolicy"] = json!("Equivalent");
            webhook["sideEffects"] = json!("NoneOnDryRun");
            webhook["timeoutSeconds"] = json!(10);
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

/// An object of the whole cluster.
fn cluster_object(api_version: &str, kind: &str, name: &str, rest: Value) -> Value {
    let mut object = json!({
        "apiVersion": api_version, "kind": kind, "metadata": {"name": name, "labels": Install::labels()},
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
