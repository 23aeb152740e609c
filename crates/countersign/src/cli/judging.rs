//! How commands judge: with the settings that the server has, and by the policies that it would have.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use countersign_policy::{Defaults, Kinds};
use thiserror::Error;

use super::clients;
use crate::cluster::Cluster;
use crate::config::{ClusterPolicySecrets, FurtherKind, Settings};
use crate::source::Source;
use crate::source::cluster::{ClusterHandle, ClusterSource};
use crate::source::files::{FileSource, Loaded};

/// How long the policies of a cluster may take to be listed.
const LISTING: Duration = Duration::from_secs(10);

/// The settings of the server.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct SettingsFile {
    /// File with the settings of serve, YAML, to judge as it does; flags and environment win over it
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CONFIG")]
    config: Option<PathBuf>,
}

impl SettingsFile {
    /// What the file says; nothing without one.
    pub(crate) fn read(&self) -> anyhow::Result<Settings> {
        Ok(self.config.as_deref().map(Settings::from_file).transpose()?.unwrap_or_default())
    }
}

/// Where policies and secrets come from.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Origin {
    /// Folder of ImagePolicy, ClusterImagePolicy and Secret documents
    #[arg(long, value_name = "DIR", env = "COUNTERSIGN_POLICIES")]
    pub(crate) policies: Option<PathBuf>,

    /// Kubeconfig of the cluster whose policies apply
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The policies of the cluster around this pod apply
    #[arg(long)]
    pub(crate) in_cluster: bool,

    #[command(flatten)]
    pub(crate) secrets: ClusterSecretsPlace,
}

/// Where the signer secrets of cluster policies are.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ClusterSecretsPlace {
    /// Namespace of the signer secrets of cluster policies [default: countersign]
    #[arg(long, value_name = "NAMESPACE", env = "COUNTERSIGN_SECRETS_NAMESPACE")]
    secrets_namespace: Option<String>,

    /// Where the signer secrets of cluster policies are read [default: own-namespace]
    #[arg(long, value_name = "WHERE", env = "COUNTERSIGN_CLUSTER_POLICY_SECRETS")]
    cluster_policy_secrets: Option<ClusterPolicySecrets>,
}

/// Where policies and secrets come from, once that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum From {
    /// Files.
    Folder(PathBuf),
    /// A cluster, by its kubeconfig; `None` is the one around this pod.
    Cluster(Option<PathBuf>),
}

/// A cluster that cannot be asked, so that nothing can be decided.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct Unreachable(pub(crate) String);

impl Origin {
    /// Where they come from: what was typed, or the settings' file. `None` if neither says.
    pub(crate) fn from(&self, settings: &Settings) -> anyhow::Result<Option<From>> {
        let typed = [
            self.policies.clone().map(From::Folder),
            self.kubeconfig.clone().map(|path| From::Cluster(Some(path))),
            self.in_cluster.then_some(From::Cluster(None)),
        ];
        let mut typed = typed.into_iter().flatten();
        match (typed.next(), typed.next()) {
            (Some(_), Some(_)) => {
                bail!(
                    "policies come from one place: give --policies (or COUNTERSIGN_POLICIES), --kubeconfig or --in-cluster"
                )
            }
            (Some(one), None) => return Ok(Some(one)),
            (None, _) => {}
        }
        let folder = settings.policies.clone().map(From::Folder);
        Ok(folder.or_else(|| settings.kubeconfig.clone().map(|path| From::Cluster(Some(path)))))
    }

    /// The same, where there must be one.
    pub(crate) fn required(&self, settings: &Settings) -> anyhow::Result<From> {
        let found = self.from(settings)?;
        found.context(
            "whose policies? Give --policies DIR, --kubeconfig FILE or --in-cluster, or --config FILE that says it",
        )
    }
}

impl ClusterSecretsPlace {
    /// Countersign's own namespace.
    pub(crate) fn namespace(&self, from: &From, settings: &Settings) -> String {
        let of_file = match from {
            From::Folder(_) => settings.secrets_namespace.clone(),
            From::Cluster(_) => settings.namespace.clone(),
        };
        self.secrets_namespace.clone().or(of_file).unwrap_or_else(|| crate::install::NAME.to_owned())
    }

    /// What the engine takes where a policy is silent.
    pub(crate) fn defaults(&self, from: &From, settings: &Settings) -> anyhow::Result<Defaults> {
        let place = self.cluster_policy_secrets.or(settings.cluster_policy_secrets).unwrap_or_default();
        let trust_servers = clients::trust_servers(&settings.trust_servers)?;
        Ok(Defaults {
            tenants_may_name: settings.namespace_trust_servers.clone(),
            pin: settings.pin.unwrap_or_default().into(),
            ..clients::defaults(&self.namespace(from, settings), place, trust_servers)
        })
    }
}

impl From {
    /// The policies and secrets.
    ///
    /// # Errors
    /// Files that cannot be used, or a cluster that cannot be asked: [`Unreachable`].
    pub(crate) async fn source(&self, own_namespace: &str) -> anyhow::Result<Arc<dyn Source>> {
        match self {
            Self::Folder(folder) => {
                let loaded = Loaded::read(folder).with_context(|| format!("--policies {}", folder.display()))?;
                Ok(FileSource::fixed(loaded))
            }
            Self::Cluster(kubeconfig) => {
                let cluster = Cluster::connect(kubeconfig.as_deref()).await?;
                Ok(listed(&cluster, own_namespace).await?)
            }
        }
    }
}

/// The policies of a cluster, once all are known.
pub(crate) async fn listed(cluster: &Cluster, own_namespace: &str) -> Result<Arc<dyn Source>, Unreachable> {
    let source = ClusterHandle(ClusterSource::start(cluster.client.clone(), own_namespace, Arc::default()));
    let end = Instant::now() + LISTING;
    loop {
        match source.now() {
            Ok(_) => return Ok(Arc::new(source)),
            Err(error) if Instant::now() > end => return Err(Unreachable(error.to_string())),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The kinds that hold images: those of Kubernetes, and those that the settings name.
pub(crate) fn kinds(further: &[FurtherKind]) -> anyhow::Result<Kinds> {
    let mut kinds = Kinds::known();
    for kind in further {
        kinds.add(&kind.group, &kind.kind, &kind.pod_template).context("kinds")?;
    }
    Ok(kinds)
}
