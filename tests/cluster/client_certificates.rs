//! Only the API server may ask: what it is told, what it then shows, and who is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign_tests::{Countersign, Finished, Problem, run, wait_for};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::world::{World, pod};

/// The common name of the API server's certificate.
const API_SERVER: &str = "kube-apiserver-webhook-client";

/// The host name of the webhook: what API servers look for among the users of their kubeconfig.
const HOST: &str = "countersign.countersign.svc";

/// An authority for the certificates of clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, PEM.
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn make(name: &str) -> Result<Self, Problem> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// A certificate for a client, in these files.
    fn issue(&self, common_name: &str, files: &Path) -> Result<Certificate, Problem> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let made = Certificate { certificate: files.with_extension("pem"), key: files.with_extension("key") };
        fs::write(&made.certificate, params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(&made.key, key.serialize_pem())?;
        Ok(made)
    }
}

/// The configuration that has the API server show a certificate, in files as the documentation has them. Gives the flag's file.
fn admission_configuration(world: &World, shown: &Certificate) -> Result<String, Problem> {
    let folder = world.folder.path();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config",
        "users": [{"name": HOST, "user": {"client-certificate": shown.certificate, "client-key": shown.key}}],
    });
    let kubeconfig_file = folder.join("webhook-clients.kubeconfig");
    fs::write(&kubeconfig_file, kubeconfig.to_string())?;
    // The words of before 1.17, which 1.20 still reads; OpenShift 3.11 has those of the plugins in its own file.
    let (whole, plugin, kind) = if world.platform == "kubernetes" {
        ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1", "WebhookAdmissionConfiguration")
    } else {
        ("apiserver.k8s.io/v1alpha1", "apiserver.config.k8s.io/v1alpha1", "WebhookAdmission")
    };
    let plugins = ["MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"].map(|name| {
        json!({"name": name, "configuration": {"apiVersion": plugin, "kind": kind, "kubeConfigFile": kubeconfig_file}})
    });
    let file = folder.join("admission.yaml");
    fs::write(&file, json!({"apiVersion": whole, "kind": "AdmissionConfiguration", "plugins": plugins}).to_string())?;
    Ok(file.display().to_string())
}

/// Asks a replica for a review, as curl does with a certificate, or with none.
fn ask(world: &World, replica: &Countersign, shown: Option<&Certificate>) -> Result<Finished, Problem> {
    let folder = world.folder.path();
    let secret = world.plane.kubectl(
        "admin",
        &[
            "get",
            "secret",
            "countersign-tls",
            "-n",
            "countersign",
            "-o",
            "go-template={{index .data \"ca.crt\" | base64decode}}",
        ],
    )?;
    let (authorities, review) = (folder.join("serving-ca.pem"), folder.join("review.json"));
    fs::write(&authorities, secret)?;
    let request = json!({
        "uid": "u", "operation": "CREATE", "namespace": "asked", "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "userInfo": {"username": "developer"}, "object": pod("asked", "p", "quay.io/unlisted"),
    });
    let text = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string();
    fs::write(&review, text)?;
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "600", "-H", "Content-Type: application/json", "--cacert"]).arg(authorities);
    curl.arg("--resolve").arg(format!("{HOST}:{}:127.0.0.1", replica.port));
    curl.arg("--data-binary").arg(format!("@{}", review.display()));
    if let Some(Certificate { certificate, key }) = shown {
        curl.arg("--cert").arg(certificate).arg("--key").arg(key);
    }
    run(curl.arg(format!("https://{HOST}:{}/admit", replica.port)))
}

fn answered(world: &World, replica: &Countersign, shown: &Certificate) -> Result<(), Problem> {
    let asked = ask(world, replica, Some(shown))?;
    let answer: Value = serde_json::from_str(&asked.stdout).map_err(|error| format!("{asked:?}: {error}"))?;
    assert_eq!(answer["response"]["allowed"], false, "{answer}");
    Ok(())
}

/// Refused in the handshake, and counted. The alert may be lost on the way, where the request is already sent when it comes.
fn refused(world: &World, replica: &Countersign, shown: Option<&Certificate>, reason: &str) -> Result<(), Problem> {
    let count = || -> Result<u64, Problem> {
        let start = format!("countersign_refused_clients_total{{reason=\"{reason}\"}} ");
        let (_, text) = replica.get("/metrics")?;
        Ok(text.lines().find_map(|line| line.strip_prefix(&start)).map_or(Ok(0), str::parse)?)
    };
    let before = count()?;
    let asked = ask(world, replica, shown)?;
    assert!(asked.code != 0 && asked.stdout.is_empty(), "{asked:?}");
    wait_for("its count", || count().is_ok_and(|now| now > before))
}

/// In one cluster: first with an API server that shows nothing, then with one that does.
pub(crate) fn only_the_api_server(world: &mut World) -> Result<(), Problem> {
    world.namespace("asked")?;
    world.policy(Some("asked"), "p", &json!({"repositories": [{"name": "docker.io/*"}]}))?;
    let unlisted = pod("asked", "unlisted", "quay.io/unlisted");
    let words = "Deny \"quay.io/unlisted\", no matching repositories in the ImagePolicies";
    world.settled(&unlisted, words)?;

    let folder = world.folder.path().to_owned();
    let (cluster, other) = (Authority::make("cluster")?, Authority::make("cluster")?);
    let authorities = folder.join("client-ca.pem");
    fs::write(&authorities, &cluster.pem)?;
    let authorities_file = authorities.display().to_string();
    let flags = ["--client-ca", &authorities_file, "--client-name", API_SERVER];
    // Connections of the API server to those that ask for nothing end with them.
    world.replicas.clear();
    let replica = world.start_replica_with(&flags)?;
    replica.ready()?;
    world.replicas.push(replica);
    world.set_backends();

    // An API server that shows no certificate gets no answer, and nothing is admitted.
    for object in [&unlisted, &pod("asked", "listed", "nginx")] {
        let said = world.create(object)?.expect_err("admitted without a review");
        assert!(said.contains("failed calling webhook") && !said.contains("Deny"), "{said}");
    }
    let log = "refused a client; for a minute, this reason is only counted";
    assert!(world.logs_hold(log) && world.logs_hold("reason=\"no-certificate\""), "{}", world.logs());

    let api_server = cluster.issue(API_SERVER, &folder.join("api-server-client"))?;
    let configuration = admission_configuration(world, &api_server)?;
    world.point_endpoints_here()?;
    let configuration = format!("--admission-control-config-file={configuration}");
    world.plane.restart_api_server(&[&configuration, "--enable-aggregator-routing=true"])?;
    world.settled(&unlisted, words)?;
    world.create(&pod("asked", "listed", "nginx"))??;

    let node = cluster.issue("system:node:x", &folder.join("node"))?;
    let impostor = other.issue(API_SERVER, &folder.join("impostor"))?;
    let replica = &world.replicas[0];
    answered(world, replica, &api_server)?;
    refused(world, replica, None, "no-certificate")?;
    refused(world, replica, Some(&node), "other-name")?;
    refused(world, replica, Some(&impostor), "not-trusted")?;
    assert!(world.logs_hold("system:node:x"), "{}", world.logs());

    // Another authority in the file: its certificates count, and those of the old one no longer.
    let old = cluster.issue(API_SERVER, &folder.join("old"))?;
    answered(world, replica, &old)?;
    fs::write(&authorities, &other.pem)?;
    wait_for("the new authority", || world.logs_hold("clients must show a certificate of new authorities"))?;
    answered(world, replica, &impostor)?;
    refused(world, replica, Some(&old), "not-trusted")?;
    // An API server reads the files of its certificate again by itself.
    other.issue(API_SERVER, &folder.join("api-server-client"))?;
    world.replicas.clear();
    let replica = world.start_replica_with(&flags)?;
    replica.ready()?;
    world.replicas.push(replica);
    world.set_backends();
    world.settled(&unlisted, words)?;

    // For what comes next all is as it was before.
    world.replicas.clear();
    world.plane.restart_api_server(&[])?;
    world.point_service_here()?;
    for _ in 0..2 {
        let replica = world.start_replica()?;
        replica.ready()?;
        world.replicas.push(replica);
    }
    world.set_backends();
    world.settled(&unlisted, words)
}
