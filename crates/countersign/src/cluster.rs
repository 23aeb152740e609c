//! The connection to a cluster, and how its objects are followed.

use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Config, Resource};
use serde::de::DeserializeOwned;
use thiserror::Error;

/// How long the API server may take to accept a connection or to answer a request that is no watch.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// After how many seconds a watch is begun anew.
const WATCH_SECONDS: u32 = 60;

/// How long a connection may go without a word while an answer is awaited: the API server ends a watch before. Also how long
/// a dead connection may go unnoticed.
const READ_TIMEOUT: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);

/// How long the API server may take for one page of a list: large ones take longer than other requests.
const LIST_TIMEOUT: Duration = Duration::from_secs(15);

/// For how long objects are believed that cannot be followed any more. An API server that is restarted, or moved, is back
/// well before that; after it, a policy may have been tightened, or more of a repository have been seen, that nobody here knows of.
pub(crate) const MAX_BLIND: Duration = Duration::from_secs(120);

/// The shortest and the longest pause after trouble with the API server.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

/// Why there is no cluster to talk to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ClusterError {
    /// The kubeconfig file cannot be used.
    #[error("--kubeconfig {path}: {cause}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// This is no pod.
    #[error(
        "there is no cluster around this process ({0}); give --policies DIR for policies from files, or --kubeconfig FILE for a cluster elsewhere"
    )]
    NotInCluster(String),
    /// The client cannot be made.
    #[error("cannot make a client for the cluster: {0}")]
    Client(String),
}

/// A cluster, and the namespace that Countersign calls its own there.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// The client.
    pub client: Client,
    /// The namespace that the kubeconfig or the pod names.
    pub namespace: String,
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Cluster {
    /// The cluster that a kubeconfig file names, or else the one around this pod. Nothing is sent yet.
    ///
    /// # Errors
    /// No usable file, or no cluster around.
    pub(crate) async fn connect(kubeconfig: Option<&Path>) -> Result<Self, ClusterError> {
        let mut config = match kubeconfig {
            Some(path) => {
                let failed = |cause: String| ClusterError::Kubeconfig { path: path.display().to_string(), cause };
                let file = Kubeconfig::read_from(path).map_err(|error| failed(error.to_string()))?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(file, &options).await.map_err(|error| failed(error.to_string()))?
            }
            None => Config::incluster().map_err(|error| ClusterError::NotInCluster(error.to_string()))?,
        };
        config.connect_timeout = Some(REQUEST_TIMEOUT);
        config.write_timeout = Some(REQUEST_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|error| ClusterError::Client(error.to_string()))?;
        Ok(Self { client, namespace })
    }
}

/// A resource that has no type of its own here.
#[must_use]
pub(crate) fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// Whether a text can be the name of an object (an RFC 1123 subdomain, as the API server has it). What cannot must not become part of an
/// address: it might name something else there.
#[must_use]
pub(crate) fn is_object_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_part)
}

/// A time as Kubernetes writes it.
#[must_use]
pub(crate) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What an error of the client comes to, without the client's own preamble.
#[must_use]
pub(crate) fn cause(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => {
            // The innermost source says what happened; the others only where.
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(inner) = source {
                text = inner.to_string();
                source = inner.source();
            }
            text
        }
    }
}

/// The HTTP status that the API server answered with, if it answered.
#[must_use]
pub(crate) fn status(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Waits for an answer, but not for ever.
///
/// # Errors
/// What the API server says, or that it says nothing.
pub(crate) async fn in_time<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, (Option<u16>, String)> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err((status(&error), cause(&error))),
        Err(_) => Err((None, format!("the API server did not answer within {} s", REQUEST_TIMEOUT.as_secs()))),
    }
}

/// What was learnt of the objects that are followed.
#[derive(Debug)]
pub(crate) enum News<K> {
    /// All of them, as they are now.
    All(Vec<K>),
    /// One is new or changed.
    Applied(K),
    /// One is gone.
    Deleted(K),
    /// They cannot be followed, for this reason, since the last news; the HTTP status comes too where there was one.
    Trouble(Option<u16>, String),
}

/// Follows the objects of an API for ever. After any trouble they are all listed again, so that nothing is missed; neither
/// bookmarks nor streamed lists are needed, which old clusters do not have.
pub(crate) async fn follow<K>(api: Api<K>, fields: Option<String>, mut tell: impl FnMut(News<K>))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut pause = PAUSES.0;
    loop {
        let mut config = watcher::Config::default().disable_bookmarks().timeout(WATCH_SECONDS);
        config.field_selector.clone_from(&fields);
        let mut events = Box::pin(watcher(api.clone(), config));
        let mut listed = Vec::new();
        let mut listing = true;
        loop {
            // A watch may well bring nothing for days; that its connection is dead is noticed by the client.
            let event = if listing {
                let Ok(event) = tokio::time::timeout(LIST_TIMEOUT, events.next()).await else {
                    let cause = format!("the API server did not answer within {} s", LIST_TIMEOUT.as_secs());
                    tell(News::Trouble(None, cause));
                    break;
                };
                event
            } else {
                events.next().await
            };
            match event {
                Some(Ok(Event::Init)) => {
                    listed.clear();
                    listing = true;
                }
                Some(Ok(Event::InitApply(object))) => listed.push(object),
                Some(Ok(Event::InitDone)) => {
                    pause = PAUSES.0;
                    listing = false;
                    tell(News::All(std::mem::take(&mut listed)));
                }
                Some(Ok(Event::Apply(object))) => tell(News::Applied(object)),
                Some(Ok(Event::Delete(object))) => tell(News::Deleted(object)),
                Some(Err(error)) => {
                    let (code, cause) = explain(&error);
                    // 410 Gone is how the API server says that its history is shorter than the watch: no trouble.
                    if code != Some(410) {
                        tell(News::Trouble(code, cause));
                    }
                    break;
                }
                None => break,
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn explain(error: &watcher::Error) -> (Option<u16>, String) {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => (status(error), cause(error)),
        watcher::Error::WatchError(status) => (Some(status.code), status.message.clone()),
        watcher::Error::NoResourceVersion => (None, error.to_string()),
    }
}

/// A client of an API server that answers a request, by method and URI, with a status and an object; or never. Its watches
/// bring nothing, and end in time.
#[cfg(test)]
pub(crate) fn scripted(
    answer: impl Fn(&str, &str) -> Option<(u16, serde_json::Value)> + Send + Sync + 'static,
) -> Client {
    use http::{Request, Response};
    use kube::client::Body;

    let answer = std::sync::Arc::new(answer);
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = std::sync::Arc::clone(&answer);
        async move {
            if request.uri().query().is_some_and(|query| query.contains("watch=")) {
                tokio::time::sleep(Duration::from_secs(WATCH_SECONDS.into())).await;
                return Response::builder().status(200).body(Body::empty());
            }
            let Some((status, object)) = answer(request.method().as_str(), &request.uri().to_string()) else {
                return std::future::pending().await;
            };
            let body = Body::from(serde_json::to_vec(&object).unwrap_or_default());
            Response::builder().status(status).body(body)
        }
    });
    Client::new(service, "default")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;

    /// What is told of the secrets of an API server within a time, and when.
    async fn told(
        answer: impl Fn() -> Option<(u16, serde_json::Value)> + Send + Sync + 'static,
        time: Duration,
    ) -> Vec<(Duration, News<Secret>)> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = Arc::clone(&told);
        let (begun, api) = (Instant::now(), Api::<Secret>::namespaced(scripted(move |_, _| answer()), "n"));
        let following = follow(api, None, move |news| telling.lock().unwrap().push((begun.elapsed(), news)));
        assert!(tokio::time::timeout(time, following).await.is_err());
        std::mem::take(&mut *told.lock().unwrap())
    }

    /// An API server that takes a request for a list and never answers is noticed.
    #[test]
    fn names_are_those_that_objects_can_have() {
        for (name, expected) in [
            ("alice", true),
            ("a.b-1", true),
            ("", false),
            ("../x", false),
            ("a?b", false),
            ("a\n", false),
            ("A", false),
            (".", false),
        ] {
            assert_eq!(is_object_name(name), expected, "{name:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_trouble() {
        let told = told(|| None, LIST_TIMEOUT * 2).await;
        let (after, news) = told.first().unwrap();
        assert!(matches!(news, News::Trouble(None, _)), "{told:?}");
        assert!(*after >= LIST_TIMEOUT && *after < LIST_TIMEOUT + Duration::from_secs(1), "{after:?}");
    }

    /// A cluster in which nothing happens is no trouble, and is not listed again.
    #[tokio::test(start_paused = true)]
    async fn quiet_is_no_trouble() {
        let list = json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []});
        let told = told(move || Some((200, list.clone())), Duration::from_secs(3600)).await;
        assert!(matches!(told.as_slice(), [(_, News::All(_))]), "{told:?}");
    }
}
