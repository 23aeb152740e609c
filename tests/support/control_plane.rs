//! A real Kubernetes control plane: etcd, API server, controllers, and kubectl. No kubelet: pods stay pending, which is
//! all that admission needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::process::{Part, free_port, wait_for};
use crate::{Finished, Problem, run};

/// A release of Kubernetes that `scripts/control-plane` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// 1.20, which still serves the v1beta1 APIs of `OpenShift` 3.11 beside the v1 ones.
    V1_20,
    /// 1.37, a release of today.
    V1_37,
}

impl Release {
    /// What `scripts/control-plane` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_20 => "1.20",
            Self::V1_37 => "1.37",
        }
    }

    /// The folder with its programs, which are built when they are not there yet.
    fn programs(self) -> Result<PathBuf, Problem> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/control-plane");
        let output = Command::new(script).arg(self.name()).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| format!("scripts/control-plane cannot be run: {error}"))?;
        if !output.status.success() {
            return Err(format!("scripts/control-plane {} failed; it says why above", self.name()).into());
        }
        let text = String::from_utf8(output.stdout)?;
        Ok(PathBuf::from(text.lines().last().ok_or("scripts/control-plane prints a folder")?))
    }

    /// What only this release's API server is told.
    fn api_server_flags(self) -> &'static [&'static str] {
        match self {
            // Ephemeral containers were alpha.
            Self::V1_20 => &["--feature-gates=EphemeralContainers=true"],
            // It would write its address into the endpoints of the Service `kubernetes`, which may not be one of loopback.
            Self::V1_37 => &["--endpoint-reconciler-type=none"],
        }
    }

    /// What only this release's controllers are told.
    fn controller_flags(self) -> &'static [&'static str] {
        match self {
            // The port without TLS, which went with 1.24.
            Self::V1_20 => &["--port=0"],
            Self::V1_37 => &[],
        }
    }
}

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    /// `https://127.0.0.1:PORT`
    pub url: String,
    /// What it is.
    pub release: Release,
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    etcd_port: u16,
    _etcd: Part,
    api_server: Option<Part>,
    controllers: Part,
}

/// Makes the certificates of a control plane.
fn make_certificates(folder: &Path) -> Result<(), Problem> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "Kubernetes test CA");
    fs::write(folder.join("ca.pem"), ca.self_signed(&ca_key)?.pem())?;
    let issuer = Issuer::from_params(&ca, &ca_key);
    let people = [
        ("api-server", "kube-apiserver", ""),
        ("admin", "admin", "system:masters"),
        ("controllers", "system:kube-controller-manager", ""),
        ("developer", "developer", "developers"),
    ];
    for (file, name, group) in people {
        let names = if file == "api-server" {
            vec!["127.0.0.1".to_owned(), "localhost".to_owned(), "10.96.0.1".to_owned()]
        } else {
            Vec::new()
        };
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        fs::write(folder.join(format!("{file}.pem")), params.signed_by(&key, &issuer)?.pem())?;
        fs::write(folder.join(format!("{file}.key")), key.serialize_pem())?;
    }
    let tokens = KeyPair::generate()?;
    fs::write(folder.join("service-accounts.key"), tokens.serialize_pem())?;
    fs::write(folder.join("service-accounts.pub"), tokens.public_key_pem())?;
    Ok(())
}

impl ControlPlane {
    /// Starts one, in a folder of its own.
    ///
    /// # Errors
    /// A part that does not start, with its log.
    pub fn start(release: Release, folder: &Path) -> Result<Self, Problem> {
        let programs = release.programs()?;
        fs::create_dir_all(folder)?;
        make_certificates(folder)?;
        let (port, etcd_port, peer_port) = (free_port()?, free_port()?, free_port()?);
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let mut etcd = Command::new(programs.join("etcd"));
        etcd.arg("--data-dir").arg(folder.join("etcd")).args(["--listen-client-urls", &etcd_url]);
        etcd.args(["--advertise-client-urls", &etcd_url, "--listen-peer-urls", &peer_url]);
        etcd.args(["--initial-advertise-peer-urls", &peer_url, "--initial-cluster", &format!("default={peer_url}")]);
        let mut etcd = Part::start("etcd", &mut etcd, folder)?;
        etcd.listening_on(etcd_port)?;
        let url = format!("https://127.0.0.1:{port}");
        for user in ["admin", "controllers", "developer"] {
            let config = kubeconfig(
                &url,
                folder,
                &json!({"client-certificate": folder.join(format!("{user}.pem")), "client-key": folder.join(format!("{user}.key"))}),
            );
            fs::write(folder.join(format!("{user}.kubeconfig")), config.to_string())?;
        }
        let api_server = start_api_server(release, &programs, folder, port, etcd_port, &[])?;
        let mut controllers = Command::new(programs.join("kube-controller-manager"));
        controllers.arg("--kubeconfig").arg(folder.join("controllers.kubeconfig"));
        controllers.arg("--service-account-private-key-file").arg(folder.join("service-accounts.key"));
        controllers.arg("--root-ca-file").arg(folder.join("ca.pem"));
        controllers.args(["--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0"]);
        controllers.args(release.controller_flags());
        let controllers = Part::start("kube-controller-manager", &mut controllers, folder)?;
        let plane = Self {
            url,
            release,
            programs,
            folder: folder.to_owned(),
            port,
            etcd_port,
            _etcd: etcd,
            api_server: Some(api_server),
            controllers,
        };
        plane.ready()?;
        Ok(plane)
    }

    fn ready(&self) -> Result<(), Problem> {
        let mut last = None;
        let ready = wait_for("the API server and the controllers", || {
            let asked = [&["get", "--raw", "/readyz"][..], &["get", "serviceaccount", "default", "-n", "default"]];
            asked.iter().all(|arguments| {
                last = self.try_kubectl("admin", arguments).ok();
                last.as_ref().is_some_and(|done| done.code == 0)
            })
        });
        let logs = || {
            let parts = [self.api_server.as_ref(), Some(&self.controllers)];
            let tail = |part: &Part| {
                part.log_text().lines().rev().take(15).map(|line| format!("{line}\n")).collect::<Vec<_>>().concat()
            };
            parts.into_iter().flatten().map(tail).collect::<Vec<_>>().join("----\n")
        };
        ready.map_err(|problem| format!("{problem}: {last:?}\n{}", logs()).into())
    }

    /// Ends the API server, and starts it again with further flags.
    ///
    /// # Errors
    /// It does not come back.
    pub fn restart_api_server(&mut self, more: &[&str]) -> Result<(), Problem> {
        self.api_server = None;
        let (folder, port) = (&self.folder, self.port);
        self.api_server = Some(start_api_server(self.release, &self.programs, folder, port, self.etcd_port, more)?);
        self.ready()
    }

    /// Halts the API server where it is, or lets it go on: its connections stay open, and say nothing.
    ///
    /// # Errors
    /// It cannot be done.
    pub fn freeze_api_server(&self, frozen: bool) -> Result<(), Problem> {
        let server = self.api_server.as_ref().ok_or("there is no API server")?;
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let done = run(Command::new("kill").args([signal, &server.id().to_string()]))?;
        if done.code == 0 { Ok(()) } else { Err(done.stderr.into()) }
    }

    /// The audit annotations that the API server wrote for what was asked of an object of this name, of each request some.
    ///
    /// # Errors
    /// There is no audit log.
    pub fn audit_annotations(&self, resource: &str, name: &str) -> Result<Vec<Value>, Problem> {
        let mut found = Vec::new();
        for line in fs::read_to_string(self.folder.join("audit.log"))?.lines() {
            // The last line may not be there in full yet.
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            let about = &event["objectRef"];
            if about["resource"] == resource && about["name"] == name && event["annotations"].is_object() {
                found.push(event["annotations"].clone());
            }
        }
        Ok(found)
    }

    /// A kubeconfig for a user: `admin`, `developer`, or one of [`Self::service_account`].
    #[must_use]
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.join(format!("{user}.kubeconfig"))
    }

    /// Makes a kubeconfig with the token of a service account, and gives its path.
    ///
    /// # Errors
    /// No token comes.
    pub fn service_account(&self, namespace: &str, name: &str) -> Result<PathBuf, Problem> {
        // What a pod has, and what every release gives: a token of the API, not a secret that a controller makes.
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}).to_string();
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let done = self.user("admin").send_raw("create", &path, &request)?;
        let answer: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        let token = answer["status"]["token"].as_str().ok_or_else(|| format!("no token of {name}: {}", done.stderr))?;
        let path = self.kubeconfig(&format!("{namespace}-{name}"));
        fs::write(&path, kubeconfig(&self.url, &self.folder, &json!({"token": token})).to_string())?;
        Ok(path)
    }

    /// kubectl as a user.
    #[must_use]
    pub fn user(&self, name: &str) -> Kubectl {
        Kubectl {
            program: self.programs.join("kubectl"),
            kubeconfig: self.kubeconfig(name),
            folder: self.folder.clone(),
        }
    }

    /// Runs kubectl as a user.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn try_kubectl(&self, user: &str, arguments: &[&str]) -> Result<Finished, Problem> {
        self.user(user).run(arguments)
    }

    /// Runs kubectl as a user, which must succeed.
    ///
    /// # Errors
    /// It does not; with what it said.
    pub fn kubectl(&self, user: &str, arguments: &[&str]) -> Result<String, Problem> {
        let done = self.try_kubectl(user, arguments)?;
        if done.code == 0 { Ok(done.stdout) } else { Err(format!("kubectl {arguments:?}: {}", done.stderr).into()) }
    }

    /// `kubectl VERB -f` of a text, as a user.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn send(&self, user: &str, verb: &str, text: &str) -> Result<Finished, Problem> {
        self.user(user).send(verb, text)
    }

    /// kubectl with these arguments and `-f` of a text, as a user.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn send_with(&self, user: &str, arguments: &[&str], text: &str) -> Result<Finished, Problem> {
        self.user(user).send_with(arguments, text)
    }

    /// `kubectl apply` of a text by the administrator, which must succeed.
    ///
    /// # Errors
    /// It does not; with what it said.
    pub fn apply(&self, text: &str) -> Result<(), Problem> {
        let done = self.send("admin", "apply", text)?;
        if done.code == 0 { Ok(()) } else { Err(format!("{}\n{text}", done.stderr).into()) }
    }

    /// `kubectl get … -o json` by the administrator.
    ///
    /// # Errors
    /// There is no such thing.
    pub fn get(&self, arguments: &[&str]) -> Result<Value, Problem> {
        Ok(serde_json::from_str(&self.kubectl("admin", &[&["get", "-o", "json"], arguments].concat())?)?)
    }
}

/// kubectl, as some user.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    folder: PathBuf,
}

impl Kubectl {
    /// Runs it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Finished, Problem> {
        let mut command = Command::new(&self.program);
        run(command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.folder).args(arguments))
    }

    /// `kubectl VERB -f` of a text.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn send(&self, verb: &str, text: &str) -> Result<Finished, Problem> {
        self.send_with(&[verb], text)
    }

    /// Runs it with these arguments and `-f` of a text.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn send_with(&self, arguments: &[&str], text: &str) -> Result<Finished, Problem> {
        let file = self.file(text)?;
        self.run(&[arguments, &["-f", &file.path().display().to_string()]].concat())
    }

    /// `kubectl VERB --raw PATH -f` of a text: `create` is a POST to that path of the API, `replace` a PUT.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn send_raw(&self, verb: &str, path: &str, text: &str) -> Result<Finished, Problem> {
        let file = self.file(text)?;
        self.run(&[verb, "--raw", path, "-f", &file.path().display().to_string()])
    }

    fn file(&self, text: &str) -> Result<tempfile::NamedTempFile, Problem> {
        use std::io::Write as _;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    }
}

fn kubeconfig(url: &str, folder: &Path, user: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": folder.join("ca.pem")}}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    })
}

fn start_api_server(
    release: Release,
    programs: &Path,
    folder: &Path,
    port: u16,
    etcd_port: u16,
    more: &[&str],
) -> Result<Part, Problem> {
    let mut command = Command::new(programs.join("kube-apiserver"));
    let file = |name: &str| folder.join(name).display().to_string();
    command.args([
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", file("api-server.pem")),
        format!("--tls-private-key-file={}", file("api-server.key")),
        format!("--client-ca-file={}", file("ca.pem")),
        "--authorization-mode=RBAC".to_owned(),
        format!("--service-account-key-file={}", file("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", file("service-accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
    ]);
    let policy = folder.join("audit-policy.yaml");
    let rules = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]});
    fs::write(&policy, rules.to_string())?;
    command.arg("--audit-policy-file").arg(&policy).arg("--audit-log-path").arg(folder.join("audit.log"));
    command.args(release.api_server_flags()).args(more);
    let mut part = Part::start("kube-apiserver", &mut command, folder)?;
    part.listening_on(port)?;
    Ok(part)
}
