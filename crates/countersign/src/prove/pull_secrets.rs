//! The credentials that a workload's pods pull their images with, the pod's and then its service account's: they may be shown to whoever is asked for signatures too.

use std::sync::Arc;

use countersign_image::shown;
use countersign_policy::{SecretRef, Workload};
use countersign_remote::{DockerConfig, Login};
use tokio::sync::OnceCell;
use tracing::warn;

use crate::source::{Moment, PullData, SecretData};

/// How many pull secrets of one workload are tried.
const MAX_PULL_SECRETS: usize = 16;

/// The credentials that a workload's pods pull their images with, read when somebody first asks for them.
pub(crate) struct PullSecrets<'a> {
    moment: &'a dyn Moment,
    namespace: &'a str,
    workload: &'a Workload,
    login: OnceCell<Login>,
}

impl<'a> PullSecrets<'a> {
    /// Those of a workload in a namespace.
    pub(crate) fn of(moment: &'a dyn Moment, namespace: &'a str, workload: &'a Workload) -> Self {
        Self { moment, namespace, workload, login: OnceCell::new() }
    }

    /// Those of the pod, then those of its service account, as the kubelet has them. What is not there, or cannot be read,
    /// is left out, as the kubelet does; the denial that may come of it says what was missing.
    pub(crate) async fn login(&self) -> &Login {
        self.login.get_or_init(|| self.read()).await
    }

    async fn read(&self) -> Login {
        let account = self.workload.service_account.as_deref().unwrap_or("default");
        let of_account = self.moment.account_pull_secrets(self.namespace, account).await.unwrap_or_else(|problem| {
            warn!(problem = ?problem.to_string(), "the pull secrets of a service account are left out");
            Vec::new()
        });
        let mut names: Vec<&String> = Vec::new();
        for name in self.workload.pull_secrets.iter().chain(&of_account) {
            if !names.contains(&name) && names.len() < MAX_PULL_SECRETS {
                names.push(name);
            }
        }
        let mut configs = Vec::new();
        for name in names {
            let secret = SecretRef { namespace: self.namespace.to_owned(), name: name.clone() };
            let read = match self.moment.secret(&secret).await {
                Ok(data) => match data.as_ref().and_then(SecretData::pull) {
                    Some(PullData::Config(text)) => DockerConfig::parse(text),
                    Some(PullData::Legacy(text)) => DockerConfig::parse_legacy(text),
                    None => continue,
                },
                Err(problem) => {
                    warn!(problem = ?problem.to_string(), "a pull secret is left out");
                    continue;
                }
            };
            match read {
                Ok(config) => configs.push(Arc::new(config)),
                Err(problem) => {
                    warn!(namespace = self.namespace, secret = ?shown(name), problem = ?problem.to_string(), "a pull secret is left out");
                }
            }
        }
        Login::with(configs)
    }
}
