//! The parts of a cluster test, and how they are put together.

use std::path::{Path, PathBuf};
use std::process::Command;

use countersign_tests::{
    Ca, Client, ControlPlane, Countersign, Front, NotaryServer, Problem, Pushed, Registry, Release, fixed_words,
    free_port, run, wait_for,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the API server puts in front of a denial.
pub(crate) const DENIED: &str =
    "admission webhook \"trust.hooks.securityenforcement.admission.cloud.ibm.com\" denied the request: ";

/// A cluster with everything around it.
pub(crate) struct World {
    pub(crate) platform: &'static str,
    pub(crate) folder: TempDir,
    pub(crate) ca: Ca,
    pub(crate) plane: ControlPlane,
    pub(crate) registry: Registry,
    pub(crate) notary: Option<NotaryServer>,
    pub(crate) notary_port: u16,
    pub(crate) front: Front,
    pub(crate) replicas: Vec<Countersign>,
    /// How long a serving certificate lives that a new replica makes.
    pub(crate) tls_lifetime: &'static str,
    started: usize,
}

impl World {
    pub(crate) fn start(platform: &'static str, release: Release) -> Result<Self, Problem> {
        let folder = tempfile::tempdir()?;
        let ca = Ca::make(folder.path())?;
        let plane = ControlPlane::start(release, &folder.path().join("plane"))?;
        let registry = Registry::start(&ca, folder.path())?;
        let notary_port = free_port()?;
        let notary = Some(NotaryServer::start_at(notary_port, &ca, folder.path())?);
        let front = Front::open()?;
        Ok(Self {
            platform,
            folder,
            ca,
            plane,
            registry,
            notary,
            notary_port,
            front,
            replicas: Vec::new(),
            tls_lifetime: "90d",
            started: 0,
        })
    }

    pub(crate) fn trust_server(&self) -> String {
        format!("https://127.0.0.1:{}", self.notary_port)
    }

    /// Everything that could explain a failure.
    pub(crate) fn logs(&self) -> String {
        let tail = |text: String| {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        self.replicas.iter().map(|replica| tail(replica.part.log_text())).collect::<Vec<_>>().join("\n----\n")
    }

    /// Whether a text stands in the log of a replica.
    pub(crate) fn logs_hold(&self, text: &str) -> bool {
        self.replicas.iter().any(|replica| replica.part.log_text().contains(text))
    }

    /// What `countersign manifests` prints.
    pub(crate) fn manifests(&self, more: &[&str]) -> Result<String, Problem> {
        let mut arguments = vec!["manifests", "--for", self.platform];
        if self.platform == "kubernetes" {
            arguments.extend(["--kube-version", self.plane.release.name()]);
        }
        let finished = Countersign::run(&[&arguments[..], more].concat())?;
        if finished.code != 0 {
            return Err(finished.stderr.into());
        }
        // There is no OpenShift API here: the constraints of pods are left out.
        let documents: Vec<_> = finished
            .stdout
            .split("---\n")
            .filter(|document| !document.contains("SecurityContextConstraints"))
            .collect();
        Ok(documents.join("---\n"))
    }

    /// The version of the API that has `CronJob`: v1 came with 1.21, v1beta1 went with 1.25.
    pub(crate) fn cron_jobs(&self) -> &'static str {
        match self.plane.release {
            Release::V1_20 => "batch/v1beta1",
            Release::V1_37 => "batch/v1",
        }
    }

    /// Runs Helm as the administrator, which must succeed, with the release `countersign` in the namespace of that name.
    pub(crate) fn helm(&self, verb: &str, more: &[&str]) -> Result<String, Problem> {
        let mut helm = self.helm_command()?;
        helm.args([verb, "countersign", "-n", "countersign"]).args(more);
        if verb != "uninstall" {
            helm.arg(root().join("charts/countersign"));
        }
        let done = run(&mut helm)?;
        if done.code == 0 { Ok(done.stdout) } else { Err(format!("helm {verb} {more:?}: {}", done.stderr).into()) }
    }

    /// The program helm, as the administrator.
    fn helm_command(&self) -> Result<Command, Problem> {
        let helm = run(&mut Command::new(root().join("scripts/helm")))?;
        let mut helm = Command::new(helm.stdout.trim());
        helm.env("KUBECONFIG", self.plane.kubeconfig("admin")).env("HOME", self.folder.path());
        Ok(helm)
    }

    /// `helm upgrade --install` of the chart, with its Service and webhooks pointed at this machine.
    pub(crate) fn helm_upgrade(&self, more: &[&str]) -> Result<(), Problem> {
        let chart = self.folder.path().join("chart");
        let _ = std::fs::remove_dir_all(&chart);
        run(Command::new("cp").arg("-r").arg(root().join("charts/countersign")).arg(&chart))?;
        let port = self.front.port;
        let service = format!("spec: {}\n---\napiVersion: apps/v1", self.service_here());
        let replaced = |file: &str, from: &str, to: &str| -> Result<(), Problem> {
            let path = chart.join("templates").join(file);
            let text = std::fs::read_to_string(&path)?;
            let (before, rest) = text.split_once(from).ok_or_else(|| format!("{file} has no {from}"))?;
            let after = rest.split_once("---\napiVersion: apps/v1").map_or(rest, |(_, after)| after);
            Ok(std::fs::write(&path, [before, to, after].concat())?)
        };
        replaced("webhook.yaml", "port: 443", &format!("port: {port}"))?;
        replaced("workload.yaml", "spec:\n", &service)?;
        let mut upgrade = self.helm_command()?;
        upgrade.args(["upgrade", "--install", "countersign", "-n", "countersign", "--take-ownership"]);
        let done = run(upgrade.args(more).arg(&chart))?;
        if done.code == 0 { Ok(()) } else { Err(format!("helm upgrade {more:?}: {}", done.stderr).into()) }
    }

    /// What the chart renders to.
    pub(crate) fn chart(&self) -> Result<String, Problem> {
        let values = "namespace.create=true,image.repository=countersign.example.com/countersign,image.tag=test";
        self.helm("template", &["--include-crds", "--set", values, "--kube-version", self.plane.release.name()])
    }

    /// The manifests as they are applied here: this control plane has no `OpenShift` API, so the constraints of pods are left out.
    pub(crate) fn installation(&self) -> Result<String, Problem> {
        let manifests = self.manifests(&["--image", "countersign.example.com/countersign:test"])?;
        let documents: Vec<_> =
            manifests.split("---\n").filter(|document| !document.contains("SecurityContextConstraints")).collect();
        Ok(documents.join("---\n"))
    }

    /// The same with the Service and all webhooks pointed at this machine, to be applied while they are.
    pub(crate) fn installation_here(&self, more: &[&str]) -> Result<Vec<Value>, Problem> {
        let manifests = self.manifests(more)?;
        let mut objects = Vec::new();
        for document in manifests.split("---\n").filter(|text| !text.contains("SecurityContextConstraints")) {
            let mut object: Value = serde_saphyr::from_str(document)?;
            if object["kind"] == "Service" {
                object["spec"] = self.service_here();
            }
            for entry in object["webhooks"].as_array_mut().into_iter().flatten() {
                entry["clientConfig"]["service"]["port"] = json!(self.front.port);
            }
            objects.push(object);
        }
        Ok(objects)
    }

    /// Its webhook configurations alone.
    pub(crate) fn webhooks_here(&self) -> Result<Vec<Value>, Problem> {
        let objects = self.installation_here(&[])?;
        Ok(objects.into_iter().filter(|object| object["webhooks"].is_array()).collect())
    }

    /// One more replica, as the service account that the manifests made.
    pub(crate) fn start_replica(&mut self) -> Result<Countersign, Problem> {
        self.start_replica_with(&[])
    }

    /// The same with further arguments.
    pub(crate) fn start_replica_with(&mut self, more: &[&str]) -> Result<Countersign, Problem> {
        let secret = ["--tls-secret", "countersign-tls", "--service", "countersign"];
        let self_managed = [&secret[..], &["--tls-lifetime", self.tls_lifetime]].concat();
        self.start_replica_of(&[&self_managed[..], more].concat())
    }

    /// The same with a certificate from files: that of the tests' own authority.
    pub(crate) fn start_replica_with_files(&mut self) -> Result<Countersign, Problem> {
        let [certificate, key] = [&self.ca.certificate, &self.ca.key].map(|path| path.display().to_string());
        self.start_replica_of(&["--tls-cert", &certificate, "--tls-key", &key])
    }

    /// One more replica that is another build of the program.
    pub(crate) fn start_replica_of_program(&mut self, program: &Path) -> Result<Countersign, Problem> {
        let secret = ["--tls-secret", "countersign-tls", "--service", "countersign"];
        self.start_program(program, &secret)
    }

    fn start_replica_of(&mut self, more: &[&str]) -> Result<Countersign, Problem> {
        self.start_program(Countersign::program(), more)
    }

    fn start_program(&mut self, program: &Path, more: &[&str]) -> Result<Countersign, Problem> {
        self.started += 1;
        let kubeconfig = self.plane.service_account("countersign", "countersign")?.display().to_string();
        let name = format!("countersign-{}", self.started);
        let arguments = [
            "--kubeconfig",
            &kubeconfig,
            "--namespace",
            "countersign",
            "--webhook-configuration",
            "countersign",
            "--shutdown-delay",
            "1s",
        ];
        Countersign::start_program(program, &name, &self.ca, self.folder.path(), &[&arguments, more].concat())
    }

    /// Replaces all replicas as a Deployment does: a new one, with these further arguments, is ready before an old one is asked to go.
    /// The readiness of the old one ends first, and it still answers while the Service learns of that.
    pub(crate) fn roll(&mut self, arguments: &[&str]) -> Result<(), Problem> {
        for _ in 0..self.replicas.len() {
            let replica = self.start_replica_with(arguments)?;
            replica.ready()?;
            self.replicas.push(replica);
            self.set_backends();
            let mut old = self.replicas.remove(0);
            let asked = run(Command::new("kill").args(["-TERM", &old.part.id().to_string()]))?;
            assert_eq!(asked.code, 0);
            wait_for("the end of readiness", || old.get("/readyz").map_or(true, |(status, _)| status == 503))?;
            self.set_backends();
            let status = old.part.ended()?;
            assert!(status.success(), "{status}");
        }
        Ok(())
    }

    pub(crate) fn set_backends(&self) {
        let ports: Vec<_> = self.replicas.iter().map(|replica| replica.port).collect();
        self.front.set(&ports);
    }

    /// Points the Service at this machine, where the replicas run: a control plane without a kubelet runs no pods.
    pub(crate) fn point_service_here(&self) -> Result<(), Problem> {
        let port = self.front.port;
        let mut service = json!({"spec": self.service_here()});
        service["spec"]["clusterIP"] = Value::Null;
        self.plane.kubectl(
            "admin",
            &["patch", "service", "countersign", "-n", "countersign", "--type", "merge", "-p", &service.to_string()],
        )?;
        self.set_webhook_port(port)
    }

    /// Points the Service at this machine in the way of a cluster with pods: its own port is 443, and an endpoint has the other
    /// one. Only an API server with `--enable-aggregator-routing` looks at endpoints itself.
    pub(crate) fn point_endpoints_here(&self) -> Result<(), Problem> {
        let ports = json!([{"name": "reviews", "port": 443, "targetPort": self.front.port, "protocol": "TCP"}]);
        let service = json!({"spec": {"type": "ClusterIP", "externalName": null, "selector": null, "ports": ports}});
        let patch = ["patch", "service", "countersign", "-n", "countersign", "--type", "merge", "-p"];
        self.plane.kubectl("admin", &[&patch[..], &[&service.to_string()]].concat())?;
        let ports = json!([{"name": "reviews", "port": self.front.port, "protocol": "TCP"}]);
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "countersign", "namespace": "countersign"},
            "subsets": [{"addresses": [{"ip": self.front.address.to_string()}], "ports": ports}],
        });
        self.plane.apply(&endpoints.to_string())?;
        self.set_webhook_port(443)
    }

    /// Writes the Service's port into both configurations, and every entry of theirs.
    fn set_webhook_port(&self, port: u16) -> Result<(), Problem> {
        for (configuration, entries) in [("mutatingwebhookconfiguration", 1), ("validatingwebhookconfiguration", 2)] {
            let add = |index| json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/service/port"), "value": port});
            let patch = json!((0..entries).map(add).collect::<Vec<_>>()).to_string();
            self.plane.kubectl("admin", &["patch", configuration, "countersign", "--type", "json", "-p", &patch])?;
        }
        Ok(())
    }

    fn service_here(&self) -> Value {
        let address = self.front.address.to_string();
        json!({"type": "ExternalName", "externalName": address, "ports": [{"name": "reviews", "port": self.front.port, "protocol": "TCP"}]})
    }

    /// The reference of a repository's tag.
    pub(crate) fn image(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.registry.host)
    }

    /// The client of whoever owns a repository.
    pub(crate) fn owner(&self, repository: &str) -> Client {
        let folder = self.folder.path().join(format!("owner-{}", repository.replace('/', "_")));
        Client::new(&self.trust_server(), &self.ca, &folder)
    }

    /// Pushes an image and signs it as `docker trust sign` does, by a signer of that name. Gives what was pushed; the
    /// signer's public key is in [`Self::public_key`].
    pub(crate) fn sign(&self, repository: &str, tag: &str, signer: &str) -> Result<Pushed, Problem> {
        let pushed = self.registry.push(repository, tag, tag)?;
        self.sign_pushed(repository, tag, signer, &pushed)?;
        Ok(pushed)
    }

    pub(crate) fn sign_pushed(
        &self,
        repository: &str,
        tag: &str,
        signer: &str,
        pushed: &Pushed,
    ) -> Result<(), Problem> {
        let gun = format!("{}/{repository}", self.registry.host);
        let owner = self.owner(repository);
        if owner.try_run(&["list", &gun])?.code != 0 {
            owner.run(&["init", &gun, "--publish"])?;
            owner.run(&["key", "rotate", &gun, "snapshot", "-r"])?;
            self.make_key(signer)?;
            let public = self.public_key(signer);
            for role in ["targets/releases".to_owned(), format!("targets/{signer}")] {
                owner.run(&["delegation", "add", &gun, &role, &public, "--all-paths"])?;
            }
            owner.run(&["publish", &gun])?;
        }
        let client = self.signer(repository, signer)?;
        let roles = format!("targets/releases,targets/{signer}");
        let size = pushed.size.to_string();
        client.run(&["addhash", &gun, tag, &size, "--sha256", &pushed.digest, "-r", &roles, "--publish"])?;
        Ok(())
    }

    /// The client of a signer, with the signer's key.
    pub(crate) fn signer(&self, repository: &str, signer: &str) -> Result<Client, Problem> {
        let folder = self.folder.path().join(format!("signer-{signer}-{}", repository.replace('/', "_")));
        let client = Client::new(&self.trust_server(), &self.ca, &folder);
        client.run(&["key", "import", &self.private_key(signer), "--role", signer])?;
        Ok(client)
    }

    pub(crate) fn public_key(&self, signer: &str) -> String {
        self.folder.path().join(format!("{signer}.pub")).display().to_string()
    }

    fn private_key(&self, signer: &str) -> String {
        self.folder.path().join(format!("{signer}.key")).display().to_string()
    }

    pub(crate) fn make_key(&self, signer: &str) -> Result<(), Problem> {
        let (private, public) = (self.private_key(signer), self.public_key(signer));
        if !Path::new(&private).exists() {
            let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
            for arguments in [
                [&["genpkey", "-out", &private], &curve[..]].concat(),
                vec!["pkey", "-in", &private, "-pubout", "-out", &public],
            ] {
                let finished = run(Command::new("openssl").args(arguments))?;
                assert_eq!(finished.code, 0, "{finished:?}");
            }
        }
        Ok(())
    }

    /// Applies a policy. `spec` is what stands below `spec:`.
    pub(crate) fn policy(&self, namespace: Option<&str>, name: &str, spec: &Value) -> Result<(), Problem> {
        let (kind, metadata) = match namespace {
            Some(namespace) => ("ImagePolicy", json!({"name": name, "namespace": namespace})),
            None => ("ClusterImagePolicy", json!({"name": name})),
        };
        let document = json!({
            "apiVersion": "securityenforcement.admission.cloud.ibm.com/v1beta1", "kind": kind, "metadata": metadata,
            "spec": spec,
        });
        self.plane.apply(&document.to_string())
    }

    /// Trust in these signers, on the server of the test.
    pub(crate) fn trust(&self, signers: &[&str]) -> Value {
        let secrets: Vec<_> = signers.iter().map(|name| json!({"name": name})).collect();
        json!({"trust": {"enabled": true, "trustServer": self.trust_server(), "signerSecrets": secrets}})
    }

    /// The documented command for a signer secret.
    pub(crate) fn signer_secret(&self, namespace: &str, name: &str, signer: &str) -> Result<(), Problem> {
        self.make_key(signer)?;
        let (name_key, public_key) =
            (format!("--from-literal=name={signer}"), format!("--from-file=publicKey={}", self.public_key(signer)));
        self.plane.kubectl("admin", &["create", "secret", "generic", name, "-n", namespace, &name_key, &public_key])?;
        Ok(())
    }

    pub(crate) fn namespace(&self, name: &str) -> Result<(), Problem> {
        self.plane.kubectl("admin", &["create", "namespace", name])?;
        self.plane.kubectl(
            "admin",
            &["create", "rolebinding", "developer", "-n", name, "--clusterrole=edit", "--user=developer"],
        )?;
        wait_for("the namespace's service account", || {
            self.plane.get(&["serviceaccount", "default", "-n", name]).is_ok()
        })
    }

    /// Creates an object as an ordinary user: what kubectl prints, if it is refused.
    pub(crate) fn create(&self, object: &Value) -> Result<Result<(), String>, Problem> {
        let done = self.plane.send("developer", "create", &object.to_string())?;
        Ok(if done.code == 0 { Ok(()) } else { Err(done.stderr.trim().to_owned()) })
    }

    /// Creates it until it is refused in these words: a policy may have been applied a moment ago.
    pub(crate) fn settled(&self, object: &Value, words: &str) -> Result<(), Problem> {
        let mut last = String::new();
        let refused = wait_for("a denial", || {
            last =
                self.create(object).map_or_else(|problem| problem.to_string(), |done| done.err().unwrap_or_default());
            last.split_once(DENIED).map(|(_, said)| fixed_words(said)).as_deref() == Some(words)
        });
        refused.map_err(|problem| format!("{problem}: {words}\nlast: {last}").into())
    }

    /// The images of the pods that carry a label `app`, each once.
    pub(crate) fn pod_images(&self, namespace: &str, app: &str) -> Vec<String> {
        let pods = self.plane.get(&["pods", "-n", namespace, "-l", &format!("app={app}")]).unwrap_or_default();
        pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .filter_map(|pod| pod["spec"]["containers"][0]["image"].as_str().map(str::to_owned))
            .collect()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A workload of one container.
pub(crate) fn workload(api_version: &str, kind: &str, namespace: &str, name: &str, image: &str) -> Value {
    let containers = json!([{"name": "web", "image": image}]);
    let labels = json!({"app": name});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": containers}});
    let mut once = template.clone();
    once["spec"]["restartPolicy"] = json!("Never");
    let spec = match kind {
        "Pod" => template["spec"].clone(),
        "Job" => json!({"template": once}),
        "CronJob" => json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": once}}}),
        "StatefulSet" => json!({"serviceName": name, "selector": {"matchLabels": labels}, "template": template}),
        _ => json!({"selector": {"matchLabels": labels}, "template": template}),
    };
    json!({
        "apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": spec,
    })
}

pub(crate) fn pod(namespace: &str, name: &str, image: &str) -> Value {
    workload("v1", "Pod", namespace, name, image)
}

/// That a creation was refused by the webhook, in these words.
pub(crate) fn assert_denied(result: &Result<(), String>, words: &str) {
    let message = result.as_ref().expect_err("it was admitted");
    let said = message.split_once(DENIED).map(|(_, said)| fixed_words(said));
    assert_eq!(said.as_deref(), Some(words), "{message}");
}
