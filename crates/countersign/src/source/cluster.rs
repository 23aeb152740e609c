//! Policies and secrets of a cluster.
//!
//! Policies are followed, all of them. Secrets are read one by one, by the name that a policy gives; only those in
//! Countersign's own namespace are followed, since those of cluster policies are there. To follow a secret elsewhere would
//! take the right to list all that a cluster keeps secret.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use countersign_policy::{Mode, Policy, PolicyKind, PolicySet, SecretRef};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::definitions::{self, CURE};
use super::{Moment, NotAtHand, SecretData, Source, SourceError};
use crate::api::{self, GROUP, Problem};
use crate::cluster::{self, MAX_BLIND, News};
use crate::metrics::{Metrics, SharedMetrics};

/// For how long a secret of another namespace is not read again: a burst of pods costs one request.
const SECRET_FRESH: Duration = Duration::from_secs(1);

/// For how long one is kept so that its keys need not be parsed again, if it is read again and is the same.
const SECRET_KEPT: Duration = Duration::from_secs(60);

/// How many bytes of secrets of other namespaces are kept for that long, with what is made of them. Those that sign have a kilobyte, those
/// that pull some more; what is larger than all of it is read each time.
const MAX_SECRET_BYTES: usize = 16 << 20;

/// How often the definitions are looked at: they change with an upgrade.
const DEFINITIONS_AGAIN: Duration = Duration::from_secs(60);

/// Kind and plural of what is followed.
const KINDS: [(&str, &str); 2] = [("ImagePolicy", "imagepolicies"), ("ClusterImagePolicy", "clusterimagepolicies")];

/// The API resource of a kind of policy.
pub(crate) fn policies(kind: &PolicyKind) -> ApiResource {
    let (kind, plural) = KINDS[usize::from(*kind == PolicyKind::Cluster)];
    cluster::resource(GROUP, "v1beta1", kind, plural)
}

/// All policies of a cluster as they are stored, those of the cluster first; or which kind cannot be listed, and why.
pub(crate) async fn list_policies(client: &Client) -> Result<Vec<(PolicyKind, DynamicObject)>, String> {
    let mut found = Vec::new();
    for kind in [PolicyKind::Cluster, PolicyKind::Image { namespace: String::new() }] {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &policies(&kind));
        let listed = cluster::in_time(api.list(&ListParams::default())).await;
        let listed = listed.map_err(|(_, cause)| format!("{} objects cannot be listed: {cause}", kind.kind()))?;
        found.extend(listed.items.into_iter().map(|object| (kind.clone(), object)));
    }
    Ok(found)
}

/// A policy as the cluster has it.
#[derive(Debug)]
pub(crate) struct StoredPolicy {
    /// What the engine makes of it.
    pub policy: Arc<Policy>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// Its `metadata.generation`.
    pub generation: i64,
    /// Its `metadata.resourceVersion`.
    pub resource_version: String,
    /// Its status, as somebody wrote it last.
    pub status: Value,
}

/// How one kind of policy can be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sight {
    /// Nothing was listed yet, for this reason if one is known.
    Never(Option<String>),
    /// Followed.
    Clear,
    /// Known, but not followed any more since then.
    Blind(Instant, String),
    /// The API server does not know the kind.
    Unknown(String),
}

#[derive(Debug)]
struct Followed {
    sight: Sight,
    policies: HashMap<(Option<String>, String), Arc<StoredPolicy>>,
}

/// A cluster that is followed.
pub(crate) struct ClusterSource {
    client: Client,
    own_namespace: String,
    kinds: Mutex<[Followed; 2]>,
    set: ArcSwap<PolicySet>,
    /// Since when the API server does not answer at all, if it does not.
    silent: Mutex<Option<Instant>>,
    /// Whether all policies were known once.
    loaded: AtomicBool,
    /// When this began.
    began: Instant,
    /// The secrets of the own namespace, while they can be followed.
    own_secrets: Mutex<Option<HashMap<String, Arc<SecretData>>>>,
    /// When each was read, and what it was.
    other_secrets: Mutex<HashMap<SecretRef, (Instant, Arc<SecretData>)>>,
    /// Which kinds have a definition that drops what it does not know.
    prunes: Mutex<[bool; 2]>,
    /// Told when a policy or a secret changes.
    changed: Notify,
    metrics: SharedMetrics,
}

impl std::fmt::Debug for ClusterSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterSource").field("own_namespace", &self.own_namespace).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClusterSource {
    /// Begins to follow a cluster. Until all policies were listed once, nothing is known.
    #[must_use]
    pub(crate) fn start(client: Client, own_namespace: &str, metrics: SharedMetrics) -> Arc<Self> {
        let never = || Followed { sight: Sight::Never(None), policies: HashMap::new() };
        let source = Arc::new(Self {
            client: client.clone(),
            own_namespace: own_namespace.to_owned(),
            kinds: Mutex::new([never(), never()]),
            set: ArcSwap::default(),
            silent: Mutex::default(),
            loaded: AtomicBool::new(false),
            began: Instant::now(),
            own_secrets: Mutex::new(None),
            other_secrets: Mutex::default(),
            prunes: Mutex::default(),
            changed: Notify::new(),
            metrics,
        });
        for (index, (kind, plural)) in KINDS.into_iter().enumerate() {
            let resource = cluster::resource(GROUP, "v1beta1", kind, plural);
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let told = Arc::clone(&source);
            tokio::spawn(cluster::follow(api, None, move |news| told.policies_news(index, news)));
            tokio::spawn(Arc::clone(&source).watch_definition(index));
        }
        let api: Api<Secret> = Api::namespaced(client, own_namespace);
        let told = Arc::clone(&source);
        tokio::spawn(cluster::follow(api, None, move |news| told.secrets_news(news)));
        source
    }

    fn policies_news(&self, index: usize, news: News<DynamicObject>) {
        let (kind, plural) = KINDS[index];
        let mut kinds = lock(&self.kinds);
        let followed = &mut kinds[index];
        let key = |object: &DynamicObject| {
            let metadata = &object.metadata;
            (metadata.namespace.clone().filter(|_| index == 0), metadata.name.clone().unwrap_or_default())
        };
        self.answers(!matches!(news, News::Trouble(None, _)));
        match news {
            News::All(objects) => {
                if followed.sight != Sight::Clear {
                    info!(kind, count = objects.len(), "policies are followed");
                }
                followed.sight = Sight::Clear;
                let before = std::mem::take(&mut followed.policies);
                let read = |object: &DynamicObject| {
                    let key = key(object);
                    let stored = read(index, object, before.get(&key));
                    (key, stored)
                };
                followed.policies = objects.iter().map(read).collect();
            }
            News::Applied(object) => {
                let key = key(&object);
                let stored = read(index, &object, followed.policies.get(&key));
                followed.policies.insert(key, stored);
            }
            News::Deleted(object) => {
                followed.policies.remove(&key(&object));
            }
            News::Trouble(code, cause) => {
                let sight = match (&followed.sight, code) {
                    (_, Some(404)) => Sight::Unknown(format!(
                        "the API server does not know {plural}.{GROUP}; install the definitions with countersign manifests --only crds"
                    )),
                    (Sight::Never(_), _) => Sight::Never(Some(cause.clone())),
                    (Sight::Blind(since, _), _) => Sight::Blind(*since, cause.clone()),
                    // It may never have been listed: what is known of it is nothing, not what it was.
                    (Sight::Unknown(before), _) => Sight::Unknown(before.clone()),
                    (Sight::Clear, _) => Sight::Blind(Instant::now(), cause.clone()),
                };
                // Said once for each trouble; the metric says how often.
                if std::mem::discriminant(&sight) != std::mem::discriminant(&followed.sight) {
                    error!(kind, %cause, "policies cannot be followed");
                }
                followed.sight = sight;
                self.metrics.policies_failed();
                return;
            }
        }
        // Both kinds must be known: without the namespaces' own policies the cluster's would decide for them.
        if kinds.iter().all(|followed| matches!(followed.sight, Sight::Clear | Sight::Blind(..))) {
            let policies = kinds.iter().flat_map(|followed| followed.policies.values());
            let set = self.set.load().followed_by(policies.map(|stored| Arc::clone(&stored.policy)));
            if kinds.iter().all(|followed| followed.sight == Sight::Clear) {
                self.metrics.policies_loaded();
            }
            self.set.store(Arc::new(set));
            self.loaded.store(true, Ordering::Relaxed);
        }
        drop(kinds);
        self.changed.notify_one();
    }

    fn secrets_news(&self, news: News<Secret>) {
        let mut secrets = lock(&self.own_secrets);
        match news {
            News::All(objects) => {
                let before = secrets.take().unwrap_or_default();
                let data = |object| {
                    let (name, data) = secret_data(object);
                    let data = same_or(before.get(&name), data);
                    (name, data)
                };
                *secrets = Some(objects.into_iter().map(data).collect());
            }
            News::Applied(object) => {
                let (name, data) = secret_data(object);
                let secrets = secrets.get_or_insert_default();
                let data = same_or(secrets.get(&name), data);
                secrets.insert(name, data);
            }
            News::Deleted(object) => {
                let (name, _) = secret_data(object);
                secrets.get_or_insert_default().remove(&name);
            }
            News::Trouble(_, cause) => {
                // From now on each is read when it is needed.
                if secrets.take().is_some() {
                    warn!(namespace = %self.own_namespace, %cause, "secrets cannot be followed, and are read one by one");
                }
                return;
            }
        }
        drop(secrets);
        self.changed.notify_one();
    }

    /// Takes note of whether the API server answers.
    fn answers(&self, answers: bool) {
        let mut silent = lock(&self.silent);
        *silent = if answers { None } else { silent.or_else(|| Some(Instant::now())) };
    }

    /// Why others should be asked instead of this replica, if so: it never knew all policies, or it cannot reach the API server for
    /// longer than policies may be used. Where the API server answers but refuses, others are told no better; then denials with
    /// their cause, and unchanged images that are admitted, are more than nobody who answers.
    fn unready(&self) -> Option<String> {
        if !self.loaded.load(Ordering::Relaxed) {
            return self.blind().or_else(|| Some("policies are not loaded yet".to_owned()));
        }
        let since = lock(&self.silent).filter(|since| since.elapsed() > MAX_BLIND)?;
        Some(format!("the API server does not answer for {} s", since.elapsed().as_secs()))
    }

    /// Why nothing can be decided, if so.
    fn blind(&self) -> Option<String> {
        let kinds = lock(&self.kinds);
        kinds.iter().zip(KINDS).find_map(|(followed, (_, plural))| match &followed.sight {
            Sight::Clear => None,
            Sight::Never(None) => Some(format!("{plural} are not listed yet")),
            Sight::Never(Some(cause)) => Some(format!("{plural} cannot be listed: {cause}")),
            Sight::Unknown(cause) => Some(cause.clone()),
            Sight::Blind(since, cause) => (since.elapsed() > MAX_BLIND)
                .then(|| format!("{plural} cannot be followed for {} s: {cause}", since.elapsed().as_secs())),
        })
    }

    /// Tells, now and again, whether a kind's definition drops what it does not know. That decides nothing: what was dropped nobody can know.
    async fn watch_definition(self: Arc<Self>, index: usize) {
        let (kind, plural) = KINDS[index];
        let mut said = String::new();
        loop {
            match definitions::prunes(&self.client, plural).await {
                Ok(prunes) => {
                    self.metrics.definition_prunes(kind, prunes);
                    let before = std::mem::replace(&mut lock(&self.prunes)[index], prunes);
                    if prunes && !before {
                        error!(
                            kind,
                            "the cluster's definition drops fields that it does not know, so a misspelt one allows everything; {CURE}"
                        );
                    }
                    if prunes != before {
                        self.changed.notify_one();
                    }
                    said.clear();
                }
                Err(cause) => {
                    // The same trouble is said once.
                    if cause != said {
                        warn!(kind, %cause, "cannot tell whether the cluster's definition drops fields that it does not know");
                    }
                    said = cause;
                }
            }
            tokio::time::sleep(DEFINITIONS_AGAIN).await;
        }
    }

    /// Whether the definition of a kind of policy drops what it does not know.
    #[must_use]
    pub(crate) fn prunes(&self, kind: &PolicyKind) -> bool {
        lock(&self.prunes)[usize::from(*kind == PolicyKind::Cluster)]
    }

    /// All policies, with what is wrong with them.
    #[must_use]
    pub(crate) fn stored(&self) -> Vec<Arc<StoredPolicy>> {
        lock(&self.kinds).iter().flat_map(|followed| followed.policies.values().cloned()).collect()
    }

    /// Waits until a policy or a secret of the own namespace changes.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The client.
    #[must_use]
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// A secret that is known without asking the API server.
    ///
    /// # Errors
    /// It would take asking.
    fn secret_at_hand(&self, secret: &SecretRef) -> Result<Option<Arc<SecretData>>, NotAtHand> {
        // It becomes part of an address, and there can be no such secret.
        if !cluster::is_object_name(&secret.name) {
            return Ok(None);
        }
        if secret.namespace == self.own_namespace {
            let found = lock(&self.own_secrets).as_ref().and_then(|secrets| secrets.get(&secret.name).cloned());
            // One that was made a moment ago may not have been told yet, so a missing one is asked for.
            if found.is_some() {
                return Ok(found);
            }
        }
        let other = lock(&self.other_secrets);
        let fresh = other.get(secret).filter(|(read, _)| read.elapsed() < SECRET_FRESH);
        fresh.map(|(_, data)| Some(Arc::clone(data))).ok_or(NotAtHand)
    }

    /// A secret as it is now, or was a second ago.
    ///
    /// # Errors
    /// The API server does not answer, or forbids it.
    pub(crate) async fn read_secret(&self, secret: &SecretRef) -> Result<Option<Arc<SecretData>>, SourceError> {
        if let Ok(found) = self.secret_at_hand(secret) {
            return Ok(found);
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &secret.namespace);
        let found = cluster::in_time(api.get_opt(&secret.name)).await;
        let found = found.map_err(|(_, cause)| SourceError::Secret { secret: secret.clone(), cause })?;
        let mut secrets = lock(&self.other_secrets);
        let before = secrets.remove(secret).map(|(_, data)| data);
        // What is not there may be made any moment, and whoever made it does not want to wait.
        let Some(found) = found else { return Ok(None) };
        let data = same_or(before.as_ref(), secret_data(found).1);
        secrets.retain(|_, (read, _)| read.elapsed() < SECRET_KEPT);
        let fits = |secrets: &HashMap<_, (Instant, Arc<SecretData>)>| {
            secrets.values().map(|(_, data)| data.size()).sum::<usize>() + data.size() <= MAX_SECRET_BYTES
        };
        if !fits(&secrets) {
            secrets.retain(|_, (read, _)| read.elapsed() < SECRET_FRESH);
        }
        if fits(&secrets) {
            secrets.insert(secret.clone(), (Instant::now(), Arc::clone(&data)));
        }
        Ok(Some(data))
    }

    /// The names of the pull secrets of a service account.
    async fn read_account(&self, namespace: &str, account: &str) -> Result<Vec<String>, SourceError> {
        if !cluster::is_object_name(account) {
            return Ok(Vec::new());
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let found = cluster::in_time(api.get_opt(account)).await.map_err(|(_, cause)| SourceError::ServiceAccount {
            namespace: namespace.to_owned(),
            name: account.to_owned(),
            cause,
        })?;
        let secrets = found.and_then(|found| found.image_pull_secrets).unwrap_or_default();
        Ok(secrets.into_iter().map(|secret| secret.name).filter(|name| !name.is_empty()).collect())
    }
}

/// What was there before, if this says the same: what was made of it need not be made again.
fn same_or<T: PartialEq>(before: Option<&Arc<T>>, now: T) -> Arc<T> {
    before.filter(|before| ***before == now).map_or_else(|| Arc::new(now), Arc::clone)
}

/// A policy as the engine has it. The API server's schema refuses most faults; what it lets through, or let
/// through before there was a schema, denies. `before` is what it was: when only its status changes, the policy is the same one.
fn read(index: usize, object: &DynamicObject, before: Option<&Arc<StoredPolicy>>) -> Arc<StoredPolicy> {
    let metadata = &object.metadata;
    let name = metadata.name.clone().unwrap_or_default();
    let kind = match &metadata.namespace {
        Some(namespace) if index == 0 => PolicyKind::Image { namespace: namespace.clone() },
        _ => PolicyKind::Cluster,
    };
    let read = api::read_stored(kind, &name, &object.data);
    Arc::new(StoredPolicy {
        policy: same_or(before.map(|before| &before.policy), read.policy),
        problems: read.problems,
        generation: metadata.generation.unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        status: object.data["status"].clone(),
    })
}

fn secret_data(secret: Secret) -> (String, SecretData) {
    let mut data = secret.data.unwrap_or_default();
    let value = |key: &str| Ok::<_, Infallible>(data.remove(key).map(|bytes| bytes.0));
    let Ok(found) = SecretData::read(secret.type_.as_deref().unwrap_or_default(), value);
    (secret.metadata.name.unwrap_or_default(), found)
}

/// A moment of a cluster: its policies stand still; secrets are read when they are asked for.
struct ClusterMoment {
    set: Arc<PolicySet>,
    source: Arc<ClusterSource>,
}

impl Moment for ClusterMoment {
    fn policies(&self) -> &PolicySet {
        &self.set
    }

    fn secret<'a>(&'a self, secret: &'a SecretRef) -> BoxFuture<'a, Result<Option<Arc<SecretData>>, SourceError>> {
        Box::pin(self.source.read_secret(secret))
    }

    fn secret_at_hand(&self, secret: &SecretRef) -> Result<Option<Arc<SecretData>>, NotAtHand> {
        self.source.secret_at_hand(secret)
    }

    fn account_pull_secrets<'a>(
        &'a self,
        namespace: &'a str,
        account: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, SourceError>> {
        Box::pin(self.source.read_account(namespace, account))
    }
}

/// A handle to a source that hands out moments of it.
#[derive(Debug, Clone)]
pub(crate) struct ClusterHandle(pub Arc<ClusterSource>);

impl Source for ClusterHandle {
    fn now(&self) -> Result<Arc<dyn Moment>, SourceError> {
        if let Some(cause) = self.0.blind() {
            return Err(SourceError::Policies { cause });
        }
        Ok(Arc::new(ClusterMoment { set: self.0.set.load_full(), source: Arc::clone(&self.0) }))
    }

    /// By what was known last, also where it is too old to decide by.
    fn strictest(&self, namespace: &str, mode: Mode) -> Mode {
        self.0.set.load().strictest(namespace, mode)
    }

    fn tell(&self, metrics: &Metrics) {
        for (followed, (kind, plural)) in lock(&self.0.kinds).iter().zip(KINDS) {
            let faulty = followed.policies.values().filter(|stored| !stored.problems.is_empty()).count();
            metrics.policies(kind, followed.policies.len(), faulty);
            let blind = match &followed.sight {
                Sight::Blind(since, _) => since.elapsed(),
                Sight::Clear => Duration::ZERO,
                // It was never listed, or is not known to the API server any more.
                Sight::Never(_) | Sight::Unknown(_) => self.0.began.elapsed(),
            };
            metrics.blind(plural, blind.as_secs_f64());
        }
    }

    fn unready(&self) -> Option<String> {
        self.0.unready()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A kind that was never listed stays unknown whatever the API server says next: without the policies of namespaces those
    /// of the cluster would decide alone.
    #[tokio::test(start_paused = true)]
    async fn what_was_never_listed_is_not_known_for_two_minutes() {
        let client = cluster::scripted(|_, _| None);
        let source = ClusterSource::start(client, "countersign", SharedMetrics::default());
        source.policies_news(1, News::All(Vec::new()));
        for code in [Some(404), Some(503), None] {
            source.policies_news(0, News::Trouble(code, "no".to_owned()));
            source.policies_news(1, News::All(Vec::new()));
            assert!(source.blind().is_some(), "{code:?}");
        }
        source.policies_news(0, News::All(Vec::new()));
        assert!(source.blind().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_is_ready_as_long_as_the_api_server_answers() {
        let client = cluster::scripted(|_, _| None);
        let source = ClusterSource::start(client, "countersign", SharedMetrics::default());
        let trouble = |code| (0..2).for_each(|kind| source.policies_news(kind, News::Trouble(code, "no".to_owned())));
        let later = || tokio::time::advance(MAX_BLIND + Duration::from_secs(1));
        trouble(Some(404));
        assert!(source.unready().is_some(), "it never knew any policies");
        (0..2).for_each(|kind| source.policies_news(kind, News::All(Vec::new())));
        assert_eq!(source.unready(), None);
        for code in [403, 404, 500] {
            trouble(Some(code));
            later().await;
            assert!(source.blind().is_some() && source.unready().is_none(), "{code}");
        }
        trouble(None);
        assert_eq!(source.unready(), None, "policies are still believed for a while");
        later().await;
        assert!(source.unready().unwrap().contains("does not answer"));
        trouble(Some(403));
        assert_eq!(source.unready(), None);
    }

    fn object(spec: &Value, version: &str, status: &Value) -> DynamicObject {
        let object = json!({
            "apiVersion": format!("{GROUP}/v1beta1"), "kind": "ClusterImagePolicy",
            "metadata": {"name": "p", "resourceVersion": version}, "spec": spec, "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    /// What was made of policies is made anew where they say something else, and only there: each status that is written comes back.
    #[tokio::test(start_paused = true)]
    async fn a_policy_is_the_same_until_it_says_something_else() {
        let source = ClusterSource::start(cluster::scripted(|_, _| None), "countersign", SharedMetrics::default());
        source.policies_news(0, News::All(Vec::new()));
        let spec = json!({"repositories": [{"name": "h.io/*"}]});
        let policy = || Arc::clone(&source.stored()[0].policy);
        let told = |news| {
            source.policies_news(1, news);
            source.set.load().policies().next().map(|policy| policy.entries[0].pattern.written().to_owned())
        };
        assert_eq!(told(News::All(vec![object(&spec, "1", &Value::Null)])).as_deref(), Some("h.io/*"));
        let first = policy();
        for news in [News::Applied, |object| News::All(vec![object])] {
            told(news(object(&spec, "2", &json!({"observedGeneration": 1}))));
            assert!(Arc::ptr_eq(&first, &policy()));
            assert_eq!(source.stored()[0].resource_version, "2");
        }
        let other = json!({"repositories": [{"name": "h.io/a"}]});
        assert_eq!(told(News::Applied(object(&other, "3", &Value::Null))).as_deref(), Some("h.io/a"));
        assert_eq!(told(News::Deleted(object(&other, "4", &Value::Null))), None);
    }

    fn secret(key: &str) -> Secret {
        let secret = json!({"metadata": {"name": "s"}, "stringData": {}, "data": {"publicKey": base64(key)}});
        serde_json::from_value(secret).unwrap()
    }

    fn base64(text: &str) -> String {
        use ::base64::Engine as _;
        ::base64::engine::general_purpose::STANDARD.encode(text)
    }

    /// What was made of a secret goes with it.
    #[tokio::test(start_paused = true)]
    async fn a_secret_is_the_same_until_it_says_something_else() {
        let stored = Arc::new(Mutex::new("one"));
        let answered = Arc::clone(&stored);
        let client = cluster::scripted(move |_, uri| {
            let key = *lock(&answered);
            uri.ends_with("/namespaces/n/secrets/s").then(|| (200, serde_json::to_value(secret(key)).unwrap()))
        });
        let source = ClusterSource::start(client, "countersign", SharedMetrics::default());
        let read = async |namespace: &str| {
            let secret = SecretRef { namespace: namespace.to_owned(), name: "s".to_owned() };
            source.read_secret(&secret).await.unwrap().unwrap()
        };
        let key = |data: Arc<SecretData>| String::from_utf8(data.public_key().unwrap().to_vec()).unwrap();
        source.secrets_news(News::All(vec![secret("one")]));
        let own = read("countersign").await;
        for news in [News::Applied, |secret| News::All(vec![secret])] {
            source.secrets_news(news(secret("one")));
            assert!(Arc::ptr_eq(&own, &read("countersign").await));
        }
        source.secrets_news(News::Applied(secret("two")));
        assert_eq!(key(read("countersign").await), "two");
        // Those of other namespaces are read again after a second.
        let later = || tokio::time::advance(SECRET_FRESH + Duration::from_millis(1));
        let other = read("n").await;
        later().await;
        assert!(Arc::ptr_eq(&other, &read("n").await));
        *lock(&stored) = "two";
        assert_eq!(key(read("n").await), "one", "within the second");
        later().await;
        assert_eq!(key(read("n").await), "two");
    }
}
