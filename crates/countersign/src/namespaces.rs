//! The mode that a namespace asks for by a label. It is followed only where the server's own mode is not the strictest: a label makes the
//! mode stricter, and never looser.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_policy::Mode;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt as _};
use tracing::{error, warn};

use crate::cluster::{self, News};

/// The label of a namespace; its value is a mode.
pub(crate) const LABEL: &str = "securityenforcement.admission.cloud.ibm.com/mode";

/// The labels of a cluster's namespaces.
#[derive(Clone)]
pub(crate) struct Namespaces {
    client: Client,
    /// `None` until they were listed once.
    known: Arc<Mutex<Option<Labels>>>,
}

/// What the namespaces ask for, by name.
type Labels = HashMap<String, Option<Mode>>;

impl std::fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Namespaces").finish_non_exhaustive()
    }
}

impl Namespaces {
    /// Begins to follow them.
    #[must_use]
    pub(crate) fn follow(client: Client) -> Self {
        let namespaces = Self { client: client.clone(), known: Arc::default() };
        let told = namespaces.clone();
        tokio::spawn(cluster::follow(Api::all(client), None, move |news| told.news(news)));
        namespaces
    }

    fn known(&self) -> MutexGuard<'_, Option<Labels>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn news(&self, news: News<Namespace>) {
        let entry = |namespace: &Namespace| (namespace.name_any(), mode_of(namespace));
        let mut known = self.known();
        match news {
            News::All(all) => *known = Some(all.iter().map(entry).collect()),
            News::Applied(namespace) => {
                if let Some(known) = known.as_mut() {
                    let (name, mode) = entry(&namespace);
                    known.insert(name, mode);
                }
            }
            News::Deleted(namespace) => {
                if let Some(known) = known.as_mut() {
                    known.remove(&namespace.name_any());
                }
            }
            News::Trouble(_, cause) => {
                error!(%cause, "namespaces cannot be followed, so their modes may be out of date");
            }
        }
    }

    /// Why no review should come here yet, if so.
    #[must_use]
    pub(crate) fn unready(&self) -> Option<String> {
        let unlisted = self.known().is_none();
        unlisted.then(|| {
            "the labels of namespaces are not known yet; if that goes on, apply countersign manifests again: in this mode it needs the right to list namespaces".to_owned()
        })
    }

    /// The mode that counts in a namespace, where the server's is `server`: the stricter one. Where the label cannot be read, the
    /// strictest, with the reason.
    pub(crate) async fn mode(&self, namespace: &str, server: Mode) -> (Mode, Option<String>) {
        let known = self.known().as_ref().and_then(|known| known.get(namespace).copied());
        if let Some(asked) = known {
            return (asked.map_or(server, |asked| asked.max(server)), None);
        }
        // One that was made just now may not be known yet.
        let api: Api<Namespace> = Api::all(self.client.clone());
        match cluster::in_time(api.get_opt(namespace)).await {
            Ok(found) => (found.as_ref().and_then(mode_of).map_or(server, |asked| asked.max(server)), None),
            Err((_, cause)) => {
                (Mode::Enforce, Some(format!("the mode of namespace {namespace} cannot be read: {cause}")))
            }
        }
    }
}

/// The mode that the label asks for. One that is misspelt asks for the strictest.
fn mode_of(namespace: &Namespace) -> Option<Mode> {
    let label = namespace.labels().get(LABEL)?;
    let mode = Mode::parse(label);
    if mode.is_none() {
        warn!(namespace = ?namespace.name_any(), label = ?label, "the label {LABEL} is none of enforce, warn and audit; enforce counts");
    }
    Some(mode.unwrap_or(Mode::Enforce))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labelled(name: &str, label: Option<&str>) -> serde_json::Value {
        let labels = label.map_or(json!({}), |label| json!({LABEL: label}));
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    }

    fn namespace(name: &str, label: Option<&str>) -> Namespace {
        serde_json::from_value(labelled(name, label)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_label_never_loosens() {
        let client = cluster::scripted(|_, uri| match uri {
            "/api/v1/namespaces/new?" | "/api/v1/namespaces/new" => Some((200, labelled("new", Some("enforce")))),
            uri if uri.contains("/gone") => Some((404, json!({"kind": "Status", "code": 404, "reason": "NotFound"}))),
            uri if uri.contains("/secret") => Some((403, json!({"kind": "Status", "code": 403, "message": "no"}))),
            _ => None,
        });
        let namespaces = Namespaces { client, known: Arc::default() };
        assert!(namespaces.unready().is_some());
        namespaces.news(News::All(vec![
            namespace("plain", None),
            namespace("strict", Some("enforce")),
            namespace("loose", Some("audit")),
            namespace("typo", Some("enforec")),
        ]));
        assert!(namespaces.unready().is_none());
        for (name, server, expected) in [
            ("plain", Mode::Audit, Mode::Audit),
            ("strict", Mode::Audit, Mode::Enforce),
            ("loose", Mode::Warn, Mode::Warn),
            ("typo", Mode::Audit, Mode::Enforce),
            ("new", Mode::Audit, Mode::Enforce),
            ("gone", Mode::Warn, Mode::Warn),
            ("secret", Mode::Audit, Mode::Enforce),
        ] {
            let (mode, trouble) = namespaces.mode(name, server).await;
            assert_eq!((mode, trouble.is_some()), (expected, name == "secret"), "{name}");
        }
        namespaces.news(News::Applied(namespace("strict", None)));
        namespaces.news(News::Trouble(None, "away".into()));
        assert_eq!(namespaces.mode("strict", Mode::Audit).await.0, Mode::Audit);
    }
}
