//! The Deployment: what its pods run, where, and with what.

use serde_json::{Value, json};

use super::settings::{CONFIG_FOLDER, TLS_FOLDER, TRUST_CA_FOLDER};
use super::values::Names;
use super::{Install, InstallError, NAME, OPERATIONS_PORT, REVIEWS_PORT, TLS_SECRET, Tls};
use crate::crd::Platform;

/// The volumes that the pods have in any case, and that of a certificate in a Secret.
const VOLUMES: [&str; 4] = ["config", "trust-ca", "client-ca", "tls"];

/// What a stop may take beyond the time in which others learn of it: the longest review, and some room.
const STOP_SECONDS: u64 = 40;

/// What may differ between pods of installations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pods {
    /// When the image is pulled; the API server's own choice if none.
    pub pull_policy: Option<String>,
    /// Secrets with logins for the image.
    pub pull_secrets: Vec<Value>,
    /// The user and group of the container; none where the image or the cluster says it.
    pub run_as_user: Option<u32>,
    /// As a container has them.
    pub resources: Value,
    /// As a pod has it.
    pub node_selector: Value,
    /// As a pod has them.
    pub tolerations: Vec<Value>,
    /// As a pod has it; apart from each other if there is none.
    pub affinity: Value,
    /// As a pod has them; about these pods, where one does not say about which.
    pub topology_spread_constraints: Vec<Value>,
    /// Further labels.
    pub labels: Names,
    /// Further annotations.
    pub annotations: Names,
    /// Further variables.
    pub env: Vec<Value>,
    /// Further volumes.
    pub volumes: Vec<Value>,
    /// Where they are mounted.
    pub volume_mounts: Vec<Value>,
}

/// Whether there is something in a value.
fn is_given(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

impl Install {
    pub(super) fn deployment(&self) -> Result<Value, InstallError> {
        self.refuse_pods()?;
        let pods = &self.pods;
        let secret = match &self.tls {
            Tls::SelfManaged => None,
            Tls::CertManager => Some(TLS_SECRET),
            Tls::Secret { name, .. } => Some(name.as_str()),
        };
        let mut volumes = vec![
            json!({"name": "config", "configMap": {"name": NAME}}),
            json!({"name": "trust-ca", "configMap": {"name": "countersign-trust-ca", "optional": true}}),
            json!({"name": "client-ca", "configMap": {"name": "countersign-client-ca", "optional": true}}),
        ];
        volumes.extend(secret.map(|secret| json!({"name": "tls", "secret": {"secretName": secret}})));
        volumes.extend(pods.volumes.iter().cloned());
        let mut pod = json!({
            "serviceAccountName": NAME,
            "terminationGracePeriodSeconds": self.shutdown_delay_seconds()? + STOP_SECONDS,
            "affinity": if is_given(&pods.affinity) { pods.affinity.clone() } else { apart() },
            "containers": [self.container(secret.is_some())],
            "volumes": volumes,
        });
        if self.platform == Platform::Kubernetes {
            // OpenShift gives each namespace a range of users; a fixed one would not fit it.
            pod["securityContext"] = json!({"runAsNonRoot": true});
        }
        if let Some(user) = pods.run_as_user {
            pod["securityContext"]["runAsUser"] = json!(user);
            pod["securityContext"]["runAsGroup"] = json!(user);
        }
        if self.since(19) {
            pod["securityContext"]["seccompProfile"] = json!({"type": "RuntimeDefault"});
        }
        if let Some(class) = self.priority_class() {
            pod["priorityClassName"] = json!(class);
        }
        let spread: Vec<_> = pods.topology_spread_constraints.iter().map(about_these_pods).collect();
        for (member, value) in [
            ("imagePullSecrets", json!(pods.pull_secrets)),
            ("nodeSelector", pods.node_selector.clone()),
            ("tolerations", json!(pods.tolerations)),
            ("topologySpreadConstraints", json!(spread)),
        ] {
            if is_given(&value) {
                pod[member] = value;
            }
        }
        let mut template = json!({"metadata": {"labels": self.labels(), "annotations": {}}, "spec": pod});
        for (name, value) in &pods.labels {
            template["metadata"]["labels"][name] = json!(value);
        }
        // Pods read their settings at start, so others must start when those change.
        template["metadata"]["annotations"]["checksum/config"] = json!(self.settings_checksum()?);
        for (name, value) in &pods.annotations {
            template["metadata"]["annotations"][name] = json!(value);
        }
        let spec = json!({
            "replicas": self.replicas,
            "selector": {"matchLabels": Self::selector()},
            // A new pod is ready before an old one goes: at no moment is the webhook short of one.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        });
        Ok(self.object("apps/v1", "Deployment", json!({"spec": spec})))
    }

    fn container(&self, has_tls: bool) -> Value {
        let pods = &self.pods;
        let mut mounts = vec![
            json!({"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": true}),
            json!({"name": "trust-ca", "mountPath": TRUST_CA_FOLDER, "readOnly": true}),
            json!({"name": "client-ca", "mountPath": "/etc/countersign-client-ca", "readOnly": true}),
        ];
        mounts.extend(has_tls.then(|| json!({"name": "tls", "mountPath": TLS_FOLDER, "readOnly": true})));
        mounts.extend(pods.volume_mounts.iter().cloned());
        let probe = |path: &str| json!({"httpGet": {"path": path, "port": "operations"}, "periodSeconds": 5});
        let mut container = json!({
            "name": NAME,
            "image": self.image,
            // All settings are in the file: a flag would win over it.
            "args": ["serve", format!("--config={CONFIG_FOLDER}/config.yaml")],
            "ports": [
                {"name": "reviews", "containerPort": REVIEWS_PORT, "protocol": "TCP"},
                {"name": "operations", "containerPort": OPERATIONS_PORT, "protocol": "TCP"},
            ],
            "livenessProbe": probe("/livez"),
            "readinessProbe": probe("/readyz"),
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": mounts,
        });
        if self.since(18) {
            // A minute to start in, on a node that is busy; then a pod that hangs is noticed soon.
            container["startupProbe"] = json!({
                "httpGet": {"path": "/livez", "port": "operations"}, "periodSeconds": 2, "failureThreshold": 30,
            });
        }
        if let Some(policy) = &pods.pull_policy {
            container["imagePullPolicy"] = json!(policy);
        }
        if is_given(&pods.resources) {
            container["resources"] = pods.resources.clone();
        }
        if !pods.env.is_empty() {
            container["env"] = json!(pods.env);
        }
        container
    }

    /// Refuses what would overrule something that is said elsewhere.
    fn refuse_pods(&self) -> Result<(), InstallError> {
        let refuse = |problem: String| Err(InstallError::Values(problem));
        let names = |list: &[Value]| -> Vec<String> {
            list.iter().map(|item| item["name"].as_str().unwrap_or_default().to_owned()).collect()
        };
        if let Some(name) = names(&self.pods.env).into_iter().find(|name| name.starts_with("COUNTERSIGN_")) {
            return refuse(format!("extraEnv: {name} would win over the settings; say it in config"));
        }
        if let Some(name) = names(&self.pods.volumes).into_iter().find(|name| VOLUMES.contains(&name.as_str())) {
            return refuse(format!("extraVolumes: the pods have a volume {name} already; give it another name"));
        }
        for (what, labels) in [("commonLabels", &self.labels), ("podLabels", &self.pods.labels)] {
            if let Some(label) =
                labels.keys().find(|label| label.starts_with("app.kubernetes.io/") || label.starts_with("helm.sh/"))
            {
                return refuse(format!("{what}: {label} is set by the installation itself"));
            }
        }
        if self.pods.annotations.contains_key("checksum/config") {
            return refuse("podAnnotations: checksum/config is set by the installation itself".to_owned());
        }
        if !self.pods.topology_spread_constraints.is_empty() && !self.since(18) {
            return refuse("topologySpreadConstraints: Kubernetes has them from 1.18 on".to_owned());
        }
        Ok(())
    }
}

/// On several nodes, if there are several.
fn apart() -> Value {
    json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": {
            "topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": Install::selector()},
        },
    }]}})
}

/// A constraint without a selector would be about no pods at all.
fn about_these_pods(constraint: &Value) -> Value {
    let mut constraint = constraint.clone();
    if constraint.get("labelSelector").is_none_or(Value::is_null) {
        constraint["labelSelector"] = json!({"matchLabels": Install::selector()});
    }
    constraint
}
