//! The clients of commands that ask trust servers and registries, connected and logged in as flags and files say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use countersign_notary::TrustServer;
use countersign_policy::{ClusterSecrets, Defaults};
use countersign_remote::{
    Authenticator, Connections, CosignClient, DockerConfig, HttpClient, NotaryClient, Options, RegistryClient, Sharing,
};

use crate::config::{ClusterPolicySecrets, HostSettings, Settings};
use crate::telemetry;

use super::credential_helpers::Helpers;

/// How long one file may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(6);

/// How to reach trust servers.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Reach {
    /// Certificates of authorities to trust for trust servers, PEM (repeatable)
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_TRUST_CA", value_delimiter = ',')]
    pub(crate) trust_ca: Vec<PathBuf>,

    /// Docker config.json with credentials for trust servers [default: the user's own]
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_REGISTRY_CONFIG")]
    pub(crate) registry_config: Option<PathBuf>,

    /// Registry (HOST:PORT) that is asked over plain http (repeatable)
    #[arg(long, value_name = "HOST:PORT", env = "COUNTERSIGN_INSECURE_REGISTRY", value_delimiter = ',')]
    pub(crate) insecure_registry: Vec<String>,

    /// Longest time for one image
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    pub(crate) timeout: crate::config::Span,
}

impl Reach {
    /// Clients that ask each server once and remember nothing, as the settings have it where nothing was typed.
    pub(crate) fn clients(&self, settings: &Settings) -> anyhow::Result<Clients> {
        let authorities = if self.trust_ca.is_empty() { &settings.trust_ca } else { &self.trust_ca };
        let registry_config = self.registry_config.as_deref().or(settings.registry_config.as_deref());
        let trust_servers = trust_servers(&settings.trust_servers)?;
        let (connections, authenticator) =
            connect(authorities, authenticator(registry_config, true)?, &settings.hosts, &trust_servers)?;
        let insecure = [&self.insecure_registry[..], &settings.insecure_registries].concat();
        let options = Options {
            refresh: Duration::from_secs(30),
            stale: Duration::ZERO,
            flight: self.timeout.0,
            clock: telemetry::wall_clock(),
            sharing: Sharing::Everybody,
            state: None,
            on_trouble: Arc::new(|_| ()),
        };
        let registries = Registries { insecure, refresh: Duration::ZERO };
        clients(&connections, authenticator, options, registries)
    }
}

/// How hosts are connected to, and which credentials they are shown.
pub(crate) fn connect(
    authorities: &[PathBuf],
    mut authenticator: Authenticator,
    hosts: &BTreeMap<String, HostSettings>,
    trust_servers: &BTreeMap<String, TrustServer>,
) -> anyhow::Result<(Connections, Authenticator)> {
    let mut connections = Connections::default();
    for path in authorities {
        add_ca(&mut connections, path)?;
    }
    for (host, settings) in hosts {
        add_host(&mut connections, host, settings)?;
        authenticator.allow_realms(host, settings.token_servers.clone());
    }
    for (registry, server) in trust_servers {
        authenticator.allow_pair(registry, server.host_port());
    }
    Ok((connections, authenticator))
}

/// Trusts the authorities in a file, or in all `.crt` and `.pem` files of a folder.
fn add_ca(connections: &mut Connections, path: &std::path::Path) -> anyhow::Result<()> {
    if path.is_dir() {
        let listed = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut files: Vec<_> = listed
            .with_context(|| format!("cannot read --trust-ca {}", path.display()))?
            .into_iter()
            .map(|entry| entry.path())
            .filter(|file| file.extension().is_some_and(|ending| ending == "crt" || ending == "pem") && file.is_file())
            .collect();
        files.sort();
        return files.iter().try_for_each(|file| add_ca(connections, file));
    }
    let pem = std::fs::read(path).with_context(|| format!("cannot read --trust-ca {}", path.display()))?;
    Ok(connections.add(&pem, &format!("--trust-ca {}", path.display()))?)
}

/// Whether the environment names a proxy for https: it then looks names up and connects itself.
pub(crate) fn proxied() -> bool {
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    names.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// Connects to a host as its settings say.
fn add_host(connections: &mut Connections, host: &str, settings: &HostSettings) -> anyhow::Result<()> {
    let read = |path: &std::path::Path| {
        let named = format!("hosts: {host}: {}", path.display());
        std::fs::read(path).map(|text| (text, named.clone())).with_context(|| named.clone())
    };
    for path in &settings.trust_ca {
        let (pem, named) = read(path)?;
        connections.add_for_host(host, &pem, &named)?;
    }
    match (&settings.client_cert, &settings.client_key) {
        (None, None) => {}
        (Some(certificate), Some(key)) => {
            let ((chain, named), (key, _)) = (read(certificate)?, read(key)?);
            connections.set_identity(host, &chain, &key, &named)?;
        }
        _ => bail!("hosts: {host}: give client-cert together with client-key"),
    }
    if let Some(mirror) = &settings.mirror {
        connections.set_alias(host, mirror)?;
    }
    Ok(())
}

/// The configured credentials: of a file, or, where nobody names one, of the user who runs a command.
pub(crate) fn authenticator(registry_config: Option<&std::path::Path>, of_user: bool) -> anyhow::Result<Authenticator> {
    let own = || {
        let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let folder = folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
        folder.map(|folder| folder.join("config.json")).filter(|path| path.exists())
    };
    let Some(path) = registry_config.map(std::path::Path::to_owned).or_else(|| own().filter(|_| of_user)) else {
        return Ok(Authenticator::new(DockerConfig::default()));
    };
    let named = || match registry_config {
        Some(path) => format!("--registry-config {}", path.display()),
        None => format!("the docker configuration {}", path.display()),
    };
    let text = std::fs::read(&path).with_context(named)?;
    let authenticator = Authenticator::new(DockerConfig::parse(&text).with_context(named)?);
    Ok(match Helpers::of(&text).filter(|_| of_user) {
        Some(helpers) => authenticator.with_helper(Arc::new(helpers)),
        None => authenticator,
    })
}

/// The clients of a command.
pub(crate) struct Clients {
    /// For anything.
    pub(crate) http: HttpClient,
    /// For trust servers.
    pub(crate) notary: NotaryClient,
    /// For registries.
    pub(crate) registry: RegistryClient,
    /// For signatures of cosign.
    pub(crate) cosign: CosignClient,
}

/// How registries are asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registries {
    /// Those (`HOST:PORT`) that are asked over plain http.
    pub(crate) insecure: Vec<String>,
    /// For how long signatures that were found are believed before their registry is asked again.
    pub(crate) refresh: Duration,
}

/// The clients, connected as given.
pub(crate) fn clients(
    connections: &Connections,
    authenticator: Authenticator,
    options: Options,
    registries: Registries,
) -> anyhow::Result<Clients> {
    let mut connections = connections.clone();
    connections.set_proxied(proxied());
    let http = HttpClient::new(&connections, REQUEST_TIMEOUT.min(options.flight))?;
    let auth = Arc::new(authenticator);
    let notary = NotaryClient::new(http.clone(), Arc::clone(&auth), options);
    let registry = RegistryClient::new(http.clone(), auth).with_insecure(registries.insecure);
    let cosign = CosignClient::new(registry.clone(), &notary, registries.refresh);
    Ok(Clients { http, notary, registry, cosign })
}

/// The trust servers that are configured for registries.
pub(crate) fn trust_servers(given: &BTreeMap<String, String>) -> anyhow::Result<BTreeMap<String, TrustServer>> {
    let read = |(registry, address): (&String, &String)| {
        let server = TrustServer::parse(address).with_context(|| format!("trust-servers: {registry}"))?;
        Ok((registry.clone(), server))
    };
    given.iter().map(read).collect()
}

/// The defaults of the engine.
pub(crate) fn defaults(
    secrets_namespace: &str,
    secrets: ClusterPolicySecrets,
    trust_servers: BTreeMap<String, TrustServer>,
) -> Defaults {
    let cluster_secrets = match secrets {
        ClusterPolicySecrets::OwnNamespace => ClusterSecrets::OwnNamespace(secrets_namespace.to_owned()),
        ClusterPolicySecrets::WorkloadNamespace => ClusterSecrets::WorkloadNamespaceChosenByTenants,
    };
    Defaults { cluster_secrets, trust_servers, tenants_may_name: None, pin: countersign_policy::PinStyle::default() }
}

/// A runtime for a command that asks servers.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}
