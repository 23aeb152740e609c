//! The credentials that a workload's pods pull their images with, the pod's and then its service account's: they may be shown to whoever is asked for signatures too.

use std::sync::Arc;

use countersign_image::shown;
use countersign_policy::{SecretRef, Workload};
use countersign_remote::{DockerConfig, Login};
use tokio::sync::OnceCell;
use tracing::warn;

use crate::source::{Moment, PullData};

/// How many pull secrets of one workload are tried.
const MAX_PULL_SECRETS: usize = 16;

/// How many bytes of pull secrets of one workload are read. One for a registry has some hundred; who may write secrets must not make each
/// of their reviews hold megabytes.
const MAX_PULL_BYTES: usize = 512 << 10;

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
        let mut left = MAX_PULL_BYTES;
        for name in names {
            let secret = SecretRef { namespace: self.namespace.to_owned(), name: name.clone() };
            let read = match self.moment.secret(&secret).await {
                Ok(None) => continue,
                Ok(Some(data)) => match data.pull() {
                    Some(pull) if pull.size() > left => {
                        warn!(namespace = self.namespace, secret = ?shown(name), "a pull secret is left out: those of one workload are too long together");
                        continue;
                    }
                    Some(pull) => {
                        left -= pull.size();
                        data.taken.login.get_or_init(|| parse(pull)).clone()
                    }
                    None => continue,
                },
                Err(problem) => {
                    warn!(problem = ?problem.to_string(), "a pull secret is left out");
                    continue;
                }
            };
            match read {
                Ok(config) => configs.push(config),
                Err(problem) => {
                    warn!(namespace = self.namespace, secret = ?shown(name), problem = ?problem, "a pull secret is left out");
                }
            }
        }
        Login::with(configs)
    }
}

fn parse(pull: &PullData) -> Result<Arc<DockerConfig>, String> {
    let config = match pull {
        PullData::Config(text) => DockerConfig::parse(text),
        PullData::Legacy(text) => DockerConfig::parse_legacy(text),
    };
    config.map(Arc::new).map_err(|problem| problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source as _;
    use crate::source::files::{FileSource, Loaded};

    /// Who may write secrets does not make their reviews hold megabytes of them.
    #[tokio::test]
    async fn pull_secrets_have_a_bound_together() {
        let secret = |name: &str, bytes: usize| {
            let config =
                format!(r#"{{"auths":{{"h.io":{{"username":"{name}","password":"{}"}}}}}}"#, "x".repeat(bytes));
            let secret = serde_json::json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "n"},
                "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config},
            });
            format!("{secret}\n---\n")
        };
        let text = secret("long", MAX_PULL_BYTES / 2) + &secret("longer", MAX_PULL_BYTES / 2) + &secret("short", 10);
        let loaded = Loaded::of(&crate::documents::parse("s.yaml", &text).unwrap()).unwrap();
        let moment = FileSource::fixed(loaded).now().unwrap();
        let pull_secrets = ["long", "longer", "short"].map(str::to_owned).to_vec();
        let workload = Workload { pull_secrets, ..Workload::default() };
        let login = PullSecrets::of(moment.as_ref(), "n", &workload).login().await.clone();
        let without = Workload { pull_secrets: vec!["long".to_owned(), "short".to_owned()], ..workload };
        let fits = PullSecrets::of(moment.as_ref(), "n", &without).login().await.clone();
        assert!(!fits.is_empty() && login == fits, "the one that is too much is left out, and no other");
    }
}
