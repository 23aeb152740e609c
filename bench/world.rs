//! What benchmarks ask for: repositories with two signers, policies that name them, and bodies as an API server sends them.

use std::fs;
use std::path::Path;

use countersign_tests::{Ca, Countersign, FileServer};
use forge::{Cert, Key, Repo, digest_of};
use jiff::{Timestamp, Unit};
use serde_json::{Value, json};

pub use countersign_tests::Problem;

/// The registry of the images.
const HOST: &str = "registry.example.com";

/// The namespace of the objects.
const NAMESPACE: &str = "payments";

/// Everything that Countersign needs to judge the bodies.
#[derive(Debug)]
pub struct World {
    /// The certificates of all servers.
    pub ca: Ca,
    /// Where the files of all servers are.
    pub folder: tempfile::TempDir,
    /// The trust server.
    pub trust: FileServer,
}

impl World {
    /// Makes repositories that two people signed, and policies that ask for both.
    ///
    /// # Errors
    /// A folder that cannot be written, or no free port.
    pub fn make() -> Result<Self, Problem> {
        let folder = tempfile::tempdir()?;
        let ca = Ca::make(folder.path())?;
        let trust = FileServer::start(&ca)?;
        let now = Timestamp::now().round(Unit::Second)?;
        let mut repo = Repo::new(&format!("{HOST}/any"), now);
        repo.set_key("root", &Key::p256("root").certified(&Cert::new(&format!("{HOST}/*"), now)));
        let signers = ["alice", "release-bot"].map(|name| (name, Key::p256(name)));
        for (name, key) in &signers {
            repo.signer(name, key).sign(name, "v1.4.2", &digest_of("v1.4.2"));
        }
        let server = trust.mount("trust", repo.build());
        let secrets = signers.map(|(name, key)| {
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE},
                   "stringData": {"name": name, "publicKey": key.pem()}})
        });
        let policy = json!({
            "apiVersion": "securityenforcement.admission.cloud.ibm.com/v1beta1", "kind": "ImagePolicy",
            "metadata": {"name": "signed", "namespace": NAMESPACE},
            "spec": {"repositories": [{"name": format!("{HOST}/*"), "policy": {"trust": {
                "enabled": true, "trustServer": server, "signerSecrets": [{"name": "alice"}, {"name": "release-bot"}],
            }}}]},
        });
        let policies = folder.path().join("policies");
        fs::create_dir(&policies)?;
        fs::write(policies.join("policy.json"), policy.to_string())?;
        for (index, secret) in secrets.iter().enumerate() {
            fs::write(policies.join(format!("secret-{index}.json")), secret.to_string())?;
        }
        Ok(Self { ca, folder, trust })
    }

    /// Starts Countersign as it is shipped: enforcing, with a line of JSON a decision, in a file.
    ///
    /// # Errors
    /// It does not start.
    pub fn serve(&self) -> Result<Countersign, Problem> {
        self.serve_program(Countersign::program())
    }

    /// The same for another program that takes its arguments.
    ///
    /// # Errors
    /// It does not start.
    pub fn serve_program(&self, program: &Path) -> Result<Countersign, Problem> {
        let files = [&self.folder.path().join("policies"), &self.ca.certificate, &self.ca.key];
        let [policies, certificate, key] = files.map(|path| path.display().to_string());
        let arguments = [
            ["--policies", &policies, "--tls-cert", &certificate, "--tls-key", &key],
            ["--log-format", "json", "--log-level", "info", "--trust-refresh", "1h"],
        ];
        let served =
            Countersign::start_program(program, "countersign", &self.ca, self.folder.path(), &arguments.concat())?;
        served.ready()?;
        Ok(served)
    }

    /// Where Countersign logs to.
    #[must_use]
    pub fn log(&self) -> std::path::PathBuf {
        self.folder.path().join("countersign.log")
    }
}

/// A body, and how it is asked about.
#[derive(Debug, Clone)]
pub struct Case {
    /// As tables call it, and the name of its files.
    pub name: &'static str,
    /// The path that it is posted to.
    pub path: &'static str,
    /// The review.
    pub body: Vec<u8>,
    /// Countersign's answer to it.
    pub answer: Vec<u8>,
}

impl Case {
    /// The Pod of 6 KB with two images and the Deployment of 28 KB with ten, each for both webhooks. The answers are Countersign's, and they
    /// are what they should be: allowed, and pinned by the mutating webhook.
    ///
    /// # Errors
    /// Countersign answers something else.
    pub fn all(served: &Countersign) -> Result<Vec<Self>, Problem> {
        let mut cases = Vec::new();
        let objects = [
            ("pod-admit", "pod-validate", pod(false), pod(true)),
            ("deployment-admit", "deployment-validate", deployment(false), deployment(true)),
        ];
        for (admit, validate, plain, pinned) in objects {
            cases.push(Self::ask(served, admit, "/admit", &plain)?);
            cases.push(Self::ask(served, validate, "/validate", &pinned)?);
        }
        Ok(cases)
    }

    fn ask(served: &Countersign, name: &'static str, path: &'static str, object: &Value) -> Result<Self, Problem> {
        let body = review(object).to_string().into_bytes();
        let mut case = Self { name, path, body, answer: Vec::new() };
        case.answer = case.answered(served)?;
        Ok(case)
    }

    /// Asks, and checks that the answer is right.
    ///
    /// # Errors
    /// It is not.
    pub fn answered(&self, served: &Countersign) -> Result<Vec<u8>, Problem> {
        let (status, text) = served.post_to(self.path, &self.body)?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{status} {text}: {error}"))?;
        let response = &answer["response"];
        let verified = response["auditAnnotations"].as_object().and_then(|told| {
            told.iter().find(|(name, _)| name.ends_with("verdict")).map(|(_, verdict)| verdict == "verified")
        });
        let pinned = response["patch"].is_string() == (self.path == "/admit");
        if status == 200 && response["allowed"] == true && verified == Some(true) && pinned {
            return Ok(text.into_bytes());
        }
        Err(format!("{}: {status} {text}", self.name).into())
    }
}

/// The reference of an image, as somebody writes it or as it is pinned.
fn image(name: &str, pinned: bool) -> String {
    let digest = if pinned { format!("@sha256:{}", forge::hex(&digest_of("v1.4.2"))) } else { String::new() };
    format!("{HOST}/payments/{name}:v1.4.2{digest}")
}

fn container(name: &str, pinned: bool) -> Value {
    let variable = |index: usize| json!({"name": format!("SETTING_{index}"), "value": format!("https://{name}.payments.svc.cluster.local:8443/v{index}")});
    let from =
        |name: &str, key: &str| json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "database", "key": key}}});
    let environment: Vec<_> =
        (0..8).map(variable).chain([from("USER", "username"), from("PASSWORD", "password")]).collect();
    let probe = |path: &str| {
        json!({"httpGet": {"path": path, "port": 8443, "scheme": "HTTPS"}, "initialDelaySeconds": 3, "periodSeconds": 10,
               "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3})
    };
    json!({
        "name": name, "image": image(name, pinned), "args": ["--config=/etc/config/config.yaml", "--log-level=info"],
        "ports": [{"name": "https", "containerPort": 8443, "protocol": "TCP"}], "env": environment,
        "resources": {"limits": {"cpu": "500m", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/config", "readOnly": true},
            {"name": "kube-api-access", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
        "livenessProbe": probe("/healthz"), "readinessProbe": probe("/readyz"), "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent",
        "securityContext": {"capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false},
    })
}

fn pod_spec(containers: &[&str], pinned: bool) -> Value {
    json!({
        "volumes": [{"name": "config", "configMap": {"name": "app-config", "defaultMode": 420}},
            {"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ]}}],
        "containers": containers.iter().map(|name| container(name, pinned)).collect::<Vec<_>>(),
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "app", "serviceAccount": "app", "securityContext": {"fsGroup": 1000},
        "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
        "tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
    })
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name, "namespace": NAMESPACE, "creationTimestamp": "2026-03-01T12:00:00Z",
        "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "payments", "pod-template-hash": "7c5ddbdf54"},
        "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8443"},
        "managedFields": [{"manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "v1",
            "time": "2026-03-01T12:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {".": {},
            "f:app.kubernetes.io/name": {}, "f:app.kubernetes.io/part-of": {}}}, "f:spec": {"f:containers": {}, "f:volumes": {}}}}],
    })
}

fn pod(pinned: bool) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata("checkout-7c5ddbdf54-x2x4v"),
           "spec": pod_spec(&["checkout", "proxy"], pinned), "status": {"phase": "Pending", "qosClass": "Burstable"}})
}

fn deployment(pinned: bool) -> Value {
    let names: Vec<_> = (0..10).map(|index| format!("service-{index}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut meta = metadata("checkout");
    // What `kubectl apply` writes; some of it, so that all has the size that it has elsewhere.
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": pod_spec(&names[..2], pinned)}}});
    meta["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = applied.to_string().into();
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {
        "replicas": 3, "selector": {"matchLabels": {"app.kubernetes.io/name": "checkout"}},
        "template": {"metadata": metadata("checkout"), "spec": pod_spec(&names, pinned)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}})
}

/// A review of the creation of an object, as an API server asks for it.
fn review(object: &Value) -> Value {
    let kind = object["kind"].as_str().unwrap_or_default();
    let (group, version) = if kind == "Pod" { ("", "v1") } else { ("apps", "v1") };
    let kinds = json!({"group": group, "version": version, "kind": kind});
    let resource = json!({"group": group, "version": version, "resource": format!("{}s", kind.to_lowercase())});
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": "0df28fbd-5f5f-11e8-bc74-36e6bb280816", "kind": kinds, "resource": resource, "requestKind": kinds,
        "requestResource": resource, "name": object["metadata"]["name"], "namespace": NAMESPACE, "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:ci:deployer", "uid": "014fbff9-a07e-4d1b-8b3f-3f1c7c3d3f0a",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:ci", "system:authenticated"],
            "extra": {"authentication.kubernetes.io/pod-name": ["runner-1"]}},
        "object": object, "oldObject": null, "dryRun": false,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "kubectl-client-side-apply"}}})
}

/// The folder of the programs that were built beside the running one.
///
/// # Errors
/// The running program has no path.
pub fn built() -> Result<std::path::PathBuf, Problem> {
    let program = std::env::current_exe()?;
    Ok(program.parent().map(Path::to_owned).ok_or("a program lies in a folder")?)
}
