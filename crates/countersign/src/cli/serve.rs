//! `countersign serve`: the webhook.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use countersign_notary::TrustServer;
use countersign_policy::{Defaults, Kinds, Mode};
use countersign_remote::{Clock, NotaryClient, Options, Sharing, StateDir, StateError, StateStore};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{clients, exit, judging};
use crate::children::{Children, ClusterOwners};
use crate::cluster::Cluster;
use crate::config::{ClusterPolicySecrets, Config, Settings, TlsSource};
use crate::enforce::Engine;
use crate::events::Events;
use crate::gate::Gate;
use crate::journal::Journal;
use crate::metrics::{Metrics, SharedMetrics};
use crate::namespaces::Namespaces;
use crate::records::Records;
use crate::registration;
use crate::source::Source;
use crate::source::cluster::{ClusterHandle, ClusterSource};
use crate::source::files::FileSource;
use crate::status;
use crate::telemetry::{self, LogLevel};
use crate::tls::clients::Clients;
use crate::tls::managed::{self, Wanted};
use crate::tls::{self, ServingCertificate};
use crate::web::admit::Reviewer;
use crate::web::{self, Port, admit, health};

/// How often it is looked whether others should be asked instead of this process.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// For how long it is not said again that there is no room to remember something; it is counted.
const NO_ROOM_AGAIN: Duration = Duration::from_secs(60);

/// Run the admission webhook
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  countersign serve   (in a pod, as `countersign manifests` sets it up)\n  countersign serve --policies ./policies --self-signed ./webhook.pem \\\n    --listen 127.0.0.1:8443 --ops-listen 127.0.0.1:8081\n\nEvery setting can also stand in the file that --config names, under the same name without dashes in front."
)]
pub(crate) struct Args {
    /// File with settings, YAML; flags and environment win over it
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CONFIG")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

/// `quiet` and `verbose` count where the settings do not say which lines are written.
pub(crate) fn run(args: Args, quiet: bool, verbose: bool) -> anyhow::Result<u8> {
    let file = args.config.as_deref().map(Settings::from_file).transpose()?.unwrap_or_default();
    let mut settings = args.settings.or(file);
    let default = if quiet { LogLevel::Warn } else { LogLevel::Debug };
    settings.log_level = settings.log_level.or((quiet || verbose).then_some(default));
    let config = settings.resolve()?;
    let _log = telemetry::start_logging(config.log_format, config.log_level)?;
    clients::runtime()?.block_on(serve(config))?;
    Ok(exit::OK)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    web::raise_file_limit();
    if config.cluster_policy_secrets == ClusterPolicySecrets::WorkloadNamespace {
        warn!(
            "signer secrets of cluster policies are read in the workload's namespace: whoever may create secrets there chooses the keys that cluster policies trust"
        );
    }
    let metrics: SharedMetrics = Arc::new(Metrics::default());
    let clock = telemetry::wall_clock();
    let around = match config.policies {
        Some(_) => None,
        None => Some(Cluster::connect(config.kubeconfig.as_deref()).await?),
    };
    let own_namespace = match (&around, &config.namespace) {
        (None, _) => config.secrets_namespace.clone(),
        (Some(_), Some(namespace)) => namespace.clone(),
        (Some(cluster), None) => cluster.namespace.clone(),
    };
    let source = source(&config, around.as_ref(), &own_namespace, &metrics, &clock)?;
    let state = state_store(&config, around.as_ref(), &own_namespace, &clock)?;
    let trust_servers = clients::trust_servers(&config.trust_servers)?;
    let clients = clients(&config, &trust_servers, state.clone(), &metrics, &clock)?;
    let notary = clients.notary.clone();
    let engine = Engine {
        source: Arc::clone(&source),
        notary: clients.notary,
        registry: clients.registry,
        cosign: clients.cosign,
        defaults: Defaults {
            tenants_may_name: config.namespace_trust_servers.clone(),
            pin: config.pin,
            ..clients::defaults(&own_namespace, config.cluster_policy_secrets, trust_servers)
        },
        clock: Arc::clone(&clock),
        deadline: config.deadline,
    };
    let (reviewer, namespaces) = reviewer(&config, around.as_ref(), engine, &metrics)?;
    let ahead = notary.clone();
    tokio::spawn(async move { ahead.keep_fresh().await });
    let refresh = refresh(notary, Arc::clone(&source), state.clone(), Arc::clone(&reviewer), Arc::clone(&metrics));
    let (serving, authorities) = certificate(&config, around.as_ref(), &own_namespace, &metrics, &clock)?;
    let api_servers = api_servers(&config, &metrics)?;
    let tls = tls::server_config(Arc::clone(&serving), api_servers.clone())?;
    let reviews = web::listen(config.listen, "--listen").await?;
    let operations = web::listen(config.ops_listen, "--ops-listen").await?;
    info!(reviews = %reviews.local_addr()?, operations = %operations.local_addr()?, mode = config.mode.label(), "serving");
    let (asked_to_stop, stop) = web::stop_on_signals(config.shutdown_delay)?;
    let ready_source = Arc::clone(&source);
    let asked = asked_to_stop.clone();
    let readiness: health::Readiness = Arc::new(move || {
        if *asked.borrow() {
            return Some("stopping".to_owned());
        }
        if !serving.is_there() {
            return Some("there is no serving certificate yet".to_owned());
        }
        // That there are no definitions says more than that one of them is missing.
        if let Some(cause) = ready_source.unready() {
            return Some(cause);
        }
        if let Some(cause) = namespaces.as_ref().and_then(Namespaces::unready) {
            return Some(cause);
        }
        let unread = state.as_ref().is_some_and(|state| !state.is_ready());
        unread.then(|| "what is remembered of repositories is not listed yet; if that goes on, apply countersign manifests again".to_owned())
    });
    if let (Some(name), Some(cluster)) = (&config.webhook_configuration, &around) {
        let wanted = registration::Wanted {
            name: name.clone(),
            kinds: config.kinds.clone(),
            enforces: config.mode == Mode::Enforce,
            authorities,
        };
        let (readiness, asked_to_stop) = (Arc::clone(&readiness), asked_to_stop.clone());
        tokio::spawn(registration::keep(cluster.client.clone(), wanted, readiness, asked_to_stop));
    }
    let leaving = asked_to_stop.clone();
    let (turn_away, away) = tokio::sync::watch::channel(0);
    tokio::spawn(turn_connections_away(source, turn_away));
    let router = admit::router(reviewer);
    let (tls, clients) = (Some(tls), api_servers);
    let reviews = Port {
        listener: reviews,
        tls,
        clients,
        router,
        name: "reviews",
        leaving: leaving.clone(),
        turn_away: Some(away),
    };
    let router = health::router(readiness, Arc::clone(&metrics), refresh);
    let operations =
        Port { listener: operations, tls: None, clients: None, router, name: "operations", leaving, turn_away: None };
    tokio::join!(web::serve(reviews, Arc::clone(&metrics), stop.clone()), web::serve(operations, metrics, stop));
    info!("stopped");
    Ok(())
}

/// Who answers reviews, and what the namespaces say of modes where that counts. With policies from files there is no cluster to ask for
/// owners and labels, nor to tell of denials.
fn reviewer(
    config: &Config,
    around: Option<&Cluster>,
    engine: Engine,
    metrics: &SharedMetrics,
) -> anyhow::Result<(Arc<Reviewer>, Option<Namespaces>)> {
    let client = || around.map(|cluster| cluster.client.clone());
    let events = client().map(|client| Arc::new(Events::start(client, Arc::clone(&engine.clock), Arc::clone(metrics))));
    // A label can only make the mode stricter.
    let namespaces = client().filter(|_| config.mode != Mode::Enforce).map(Namespaces::follow);
    let gate = Gate {
        engine,
        kinds: kinds(config)?,
        children: client().map(|client| Children::new(Arc::new(ClusterOwners::new(client)))),
        trusted_controllers: config.trusted_controllers.clone(),
        verify_children: config.verify_children,
        mode: config.mode,
        namespaces: namespaces.clone(),
        break_glass: config.break_glass.clone(),
        messages: config.messages.clone(),
    };
    let journal = Journal::new(Arc::clone(metrics), config.log_format, events);
    Ok((Reviewer::new(gate, journal, Arc::clone(metrics)), namespaces))
}

/// Brings metrics up to date that are counted elsewhere.
fn refresh(
    notary: NotaryClient,
    source: Arc<dyn Source>,
    state: Option<Arc<dyn StateStore>>,
    reviewer: Arc<Reviewer>,
    metrics: SharedMetrics,
) -> health::Refresh {
    Arc::new(move || {
        reviewer.refresh_metrics();
        metrics.verifying(&notary.load());
        source.tell(&metrics);
        if let Some(count) = state.as_ref().and_then(|state| state.count()) {
            metrics.remembered(count);
        }
    })
}

/// Has connections closed each time that others should be asked instead: those that an API server keeps open lead here whatever the
/// Service says.
async fn turn_connections_away(source: Arc<dyn Source>, turn_away: tokio::sync::watch::Sender<u64>) {
    let mut was_ready = false;
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let is_ready = source.unready().is_none();
        if was_ready && !is_ready {
            turn_away.send_modify(|times| *times += 1);
        }
        was_ready = is_ready;
    }
}

/// Policies from files, or from the cluster; there, their status is kept too.
fn source(
    config: &Config,
    around: Option<&Cluster>,
    own_namespace: &str,
    metrics: &SharedMetrics,
    clock: &Clock,
) -> anyhow::Result<Arc<dyn Source>> {
    if let Some(folder) = &config.policies {
        let source = FileSource::watched(folder, Arc::clone(metrics));
        return Ok(source.with_context(|| format!("cannot use the policies in {}", folder.display()))?);
    }
    let cluster = around.context("there is no cluster")?;
    let source = ClusterSource::start(cluster.client.clone(), own_namespace, Arc::clone(metrics));
    let secrets_in = match config.cluster_policy_secrets {
        ClusterPolicySecrets::OwnNamespace => Some(own_namespace.to_owned()),
        ClusterPolicySecrets::WorkloadNamespace => None,
    };
    tokio::spawn(status::keep(Arc::clone(&source), secrets_in, Arc::clone(clock)));
    Ok(Arc::new(ClusterHandle(source)))
}

fn kinds(config: &Config) -> anyhow::Result<Kinds> {
    for kind in &config.kinds {
        if config.webhook_configuration.is_some() && kind.resource.is_none() {
            warn!(
                kind = kind.kind,
                "this kind is not registered, so nobody asks about it: give it a resource, its plural name, below kinds in the configuration"
            );
        }
    }
    judging::kinds(&config.kinds)
}

/// Where repositories are remembered: in a folder, or in the cluster.
fn state_store(
    config: &Config,
    around: Option<&Cluster>,
    own_namespace: &str,
    clock: &Clock,
) -> anyhow::Result<Option<Arc<dyn StateStore>>> {
    Ok(match (&config.state_dir, around) {
        (Some(path), _) => {
            let opened = StateDir::open(path);
            Some(Arc::new(opened.with_context(|| format!("--state-dir {} cannot be written", path.display()))?))
        }
        (None, Some(cluster)) => Some(Records::follow(cluster.client.clone(), own_namespace, clock)),
        (None, None) => None,
    })
}

fn clients(
    config: &Config,
    trust_servers: &BTreeMap<String, TrustServer>,
    state: Option<Arc<dyn StateStore>>,
    metrics: &SharedMetrics,
    clock: &Clock,
) -> anyhow::Result<clients::Clients> {
    let authenticator = clients::authenticator(config.registry_config.as_deref(), false)?;
    let (connections, authenticator) = clients::connect(&config.trust_ca, authenticator, &config.hosts, trust_servers)?;
    let metrics = Arc::clone(metrics);
    let said = Mutex::new(None);
    let options = Options {
        refresh: config.trust_refresh,
        stale: config.trust_stale,
        flight: config.deadline,
        clock: Arc::clone(clock),
        sharing: Sharing::private(config.private_trust),
        state,
        on_trouble: Arc::new(move |problem| {
            let no_room = matches!(problem, StateError::NoRoom { .. });
            metrics.state_failed(if no_room { "no-room" } else { "error" });
            // Where there is no room, each review says so.
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            if no_room && said.is_some_and(|said: Instant| said.elapsed() < NO_ROOM_AGAIN) {
                return;
            }
            *said = no_room.then(Instant::now);
            error!(%problem, "a repository is verified, but will be forgotten at the next restart");
        }),
    };
    let registries =
        clients::Registries { insecure: config.insecure_registries.clone(), refresh: config.cosign_refresh };
    clients::clients(&connections, authenticator, options, registries)
}

/// Who may send reviews, where that is not everybody.
fn api_servers(config: &Config, metrics: &SharedMetrics) -> anyhow::Result<Option<Arc<Clients>>> {
    let Some(wanted) = &config.clients else { return Ok(None) };
    let clients = Clients::load(wanted, Arc::clone(metrics)).context("--client-ca")?;
    clients.watch(&wanted.authorities);
    info!(authorities = %wanted.authorities.display(), names = ?wanted.names, "reviews are taken only from clients with such a certificate");
    Ok(Some(clients))
}
/// The authorities of a certificate that Countersign makes itself, PEM, once they are known.
type Authorities = watch::Receiver<Option<String>>;

fn certificate(
    config: &Config,
    around: Option<&Cluster>,
    own_namespace: &str,
    metrics: &SharedMetrics,
    clock: &Clock,
) -> anyhow::Result<(Arc<ServingCertificate>, Option<Authorities>)> {
    match &config.tls {
        TlsSource::Files { certificate, key } => {
            let serving = ServingCertificate::new(tls::load(certificate, key)?, Arc::clone(metrics));
            tls::watch(Arc::clone(&serving), certificate.clone(), key.clone());
            Ok((serving, None))
        }
        TlsSource::SelfSigned(path) => {
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
            let (key, pem) = tls::self_signed(names)?;
            std::fs::write(path, pem).with_context(|| format!("--self-signed {} cannot be written", path.display()))?;
            info!(path = %path.display(), "made a certificate for local use; clients must trust this file");
            Ok((ServingCertificate::new(key, Arc::clone(metrics)), None))
        }
        TlsSource::Managed { secret, service, names, lifetime } => {
            let cluster = around.context("without a cluster there is no Secret to keep a certificate in")?;
            let host = format!("{service}.{own_namespace}.svc");
            let wanted = Wanted {
                namespace: own_namespace.to_owned(),
                secret: secret.clone(),
                names: [host.clone(), format!("{host}.cluster.local")]
                    .into_iter()
                    .chain(names.iter().cloned())
                    .collect(),
                lifetime: *lifetime,
            };
            let serving = ServingCertificate::none_yet(Arc::clone(metrics));
            let (sender, authorities) = watch::channel(None);
            let (client, clock) = (cluster.client.clone(), Arc::clone(clock));
            tokio::spawn(managed::keep(client, wanted, Arc::clone(&serving), sender, clock));
            Ok((serving, Some(authorities)))
        }
    }
}
