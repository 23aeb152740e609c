//! What the two webhook configurations say of Countersign while it serves.
//!
//! The manifests bring the configurations with their entries, and without `rules`: a first install enforces nothing before
//! somebody answers. A replica that serves fills in the rest, and puts it back when somebody takes it away. It never makes
//! a configuration or an entry, so nobody's uninstall is undone.
//!
//! There is no leader. Every replica does the same with what it reads, and a write only succeeds if nobody has written since.

mod entries;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ParseExpressionError, Selector};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info};

use entries::{Aim, CONDITIONS, ENTRIES, Entry, MUTATING, VALIDATING, rules_of};

use crate::cluster::{self, News};
use crate::config::FurtherKind;
use crate::install::{LENIENT_WEBHOOK, NAME, WEBHOOK};
use crate::web::Stop;
use crate::web::health::Readiness;

const GROUP: &str = "admissionregistration.k8s.io";

/// Kind and resource of the webhook configurations that send reviews here.
const CONFIGURATIONS: [(&str, &str); 2] =
    [(MUTATING, "mutatingwebhookconfigurations"), (VALIDATING, "validatingwebhookconfigurations")];

/// How often the configurations are looked at when nothing was told.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How often it is asked whether this replica serves, until it has for a while.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// For how long a replica must have served before enforcement begins. The kubelet asks `/readyz` every five seconds, and the
/// endpoints of the Service follow: until then the API server has nobody to ask, and would deny everything.
const SETTLED: Duration = Duration::from_secs(10);

/// The pause after a write. Two who want different things, such as the replicas of two versions or a `GitOps` controller, must
/// not keep the API server busy.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// After how long an API server that dropped `matchConditions` is tried once more: it may have been upgraded.
const TRY_AGAIN: Duration = Duration::from_secs(600);

fn configurations(client: &Client, (kind, plural): (&str, &str), version: &str) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &cluster::resource(GROUP, version, kind, plural))
}

/// The newest version of the API for webhook configurations that the API server has.
async fn api_version(client: &Client) -> Result<&'static str, String> {
    let listed = client.list_api_group_resources("admissionregistration.k8s.io/v1");
    match cluster::in_time(listed).await {
        Ok(_) => Ok("v1"),
        Err((Some(404), _)) => Ok("v1beta1"),
        Err((_, cause)) => Err(format!("the versions of webhook configurations cannot be told: {cause}")),
    }
}

fn no_configuration(kind: &str, name: &str) -> String {
    let consequence = if kind == MUTATING {
        "nothing is pinned"
    } else {
        "nobody looks at what other webhooks change after Countersign"
    };
    format!("there is no {kind} {name}, so {consequence}; apply countersign manifests again")
}

fn no_entry(entry: &Entry, name: &str) -> String {
    let (configuration, path) = (entry.configuration, entry.paths()[0]);
    format!(
        "{configuration} {name} has no entry {} with the path {path}; apply countersign manifests again",
        entry.name
    )
}

/// What is registered, and for whom.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The name of both configurations.
    pub name: String,
    /// Further kinds that are reviewed.
    pub kinds: Vec<FurtherKind>,
    /// Whether the server's own mode is `enforce`.
    pub enforces: bool,
    /// Where Countersign makes its own certificate: the authorities that the API server is to trust, PEM, once they are
    /// known.
    pub authorities: Option<watch::Receiver<Option<String>>>,
}

/// Keeps the registration right while this replica serves, until it is asked to stop.
pub(crate) async fn keep(client: Client, wanted: Wanted, readiness: Readiness, mut stop: Stop) {
    let registrar = Registrar {
        client,
        wanted,
        readiness,
        version: None,
        serves_since: None,
        dropped: None,
        wrote: false,
        said: String::new(),
    };
    // What it has not sent by then is never sent.
    tokio::select! {
        () = registrar.run() => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

struct Registrar {
    client: Client,
    wanted: Wanted,
    readiness: Readiness,
    /// The version of the API that the API server has.
    version: Option<&'static str>,
    serves_since: Option<Instant>,
    /// When the API server dropped `matchConditions`.
    dropped: Option<Instant>,
    wrote: bool,
    said: String,
}

impl Registrar {
    async fn run(mut self) {
        let look = Arc::new(Notify::new());
        let mut followed = JoinSet::new();
        loop {
            let outcome = if self.serves() { self.reconcile().await } else { Ok(()) };
            match outcome {
                Ok(()) => self.said.clear(),
                // The same trouble every few seconds is said once.
                Err(problem) if problem != self.said => {
                    error!(%problem, "the webhooks cannot be kept registered");
                    self.said = problem;
                }
                Err(_) => {}
            }
            if let (true, Some(version)) = (followed.is_empty(), self.version) {
                for configuration in CONFIGURATIONS {
                    let told = Arc::clone(&look);
                    let news = move |news: News<DynamicObject>| {
                        if !matches!(news, News::Trouble(..)) {
                            told.notify_one();
                        }
                    };
                    let api = configurations(&self.client, configuration, version);
                    followed.spawn(cluster::follow(api, Some(format!("metadata.name={}", self.wanted.name)), news));
                }
            }
            if std::mem::take(&mut self.wrote) {
                tokio::time::sleep(WRITE_PAUSE).await;
            }
            let pause = if self.settled() { LOOK_AGAIN } else { ASK_AGAIN };
            tokio::select! {
                () = look.notified() => {}
                () = changed(self.wanted.authorities.as_mut()) => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether this replica serves, as `/readyz` has it.
    fn serves(&mut self) -> bool {
        let serves = (self.readiness)().is_none();
        self.serves_since = serves.then(|| self.serves_since.unwrap_or_else(Instant::now));
        serves
    }

    fn settled(&self) -> bool {
        self.serves_since.is_some_and(|since| since.elapsed() >= SETTLED)
    }

    async fn reconcile(&mut self) -> Result<(), String> {
        let bundle = match &self.wanted.authorities {
            None => None,
            Some(authorities) => match authorities.borrow().as_deref() {
                Some(pem) => Some(STANDARD.encode(pem)),
                None => return Ok(()),
            },
        };
        let version = match self.version {
            Some(version) => version,
            None => *self.version.insert(api_version(&self.client).await?),
        };
        let mut aim = Aim::new(&self.wanted.kinds, version == "v1");
        (aim.bundle, aim.settled) = (bundle, self.settled());
        aim.has_conditions &= self.dropped.is_none_or(|dropped| dropped.elapsed() >= TRY_AGAIN);
        let mut outcome = Ok(());
        // What is wrong with one does not keep the other from being right.
        for configuration in CONFIGURATIONS {
            outcome = outcome.and(self.repair(configuration, version, &aim).await);
        }
        outcome
    }

    /// Brings a configuration up to date.
    async fn repair(&mut self, configuration: (&str, &str), version: &str, aim: &Aim) -> Result<(), String> {
        let (kind, name) = (configuration.0, self.wanted.name.clone());
        let explain = |(_, cause): (Option<u16>, String)| format!("{kind} {name}: {cause}");
        let api = configurations(&self.client, configuration, version);
        let found = cluster::in_time(api.get_opt(&name)).await.map_err(explain)?;
        let found = found.ok_or_else(|| no_configuration(kind, &name))?;
        let resource_version = &found.metadata.resource_version;
        let mut patch = vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": resource_version})];
        let mut written = Vec::new();
        let mut fault = Ok(());
        for entry in ENTRIES.iter().filter(|entry| entry.configuration == kind && entry.is_due(&found)) {
            let Some((index, stored)) = entry.find(&found) else {
                fault = Err(no_entry(entry, &name));
                continue;
            };
            if entry.lenient && self.wanted.enforces {
                fault = Err(format!(
                    "{kind} {name} has the entry {}, so what nobody answers is admitted in namespaces without a label, and the mode is enforce; apply countersign manifests again",
                    entry.name
                ));
            }
            match aim.repairs(entry.about, stored) {
                Ok(repairs) => {
                    for (member, value) in repairs {
                        let path = format!("/webhooks/{index}/{member}");
                        patch.push(match value {
                            Some(value) => json!({"op": "add", "path": path, "value": value}),
                            None => json!({"op": "remove", "path": path}),
                        });
                        written.push(format!("{} of {}", member.rsplit('/').next().unwrap_or(member), entry.name));
                    }
                }
                Err(cause) => fault = Err(format!("the entry {} of {kind} {name} {cause}", entry.name)),
            }
        }
        if written.is_empty() {
            return fault;
        }
        let patch = serde_json::from_value(json!(patch)).map_err(|error| error.to_string())?;
        let (patch, params) =
            (Patch::Json::<()>(patch), PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() });
        self.wrote = true;
        match cluster::in_time(api.patch(&name, &params, &patch)).await {
            Ok(stored) => {
                if self.dropped_conditions(aim, kind, &stored) {
                    written.retain(|written| !written.starts_with(CONDITIONS));
                }
                if !written.is_empty() {
                    info!(kind, name, written = written.join(", "), "registered");
                }
                fault
            }
            // Changed in between, which the patch is tested for: then there is news, and it is looked at again. If nobody
            // has changed it, the API server does not want what is to be written.
            Err((Some(409 | 422), cause)) => {
                let now = cluster::in_time(api.get_opt(&name)).await.map_err(explain)?;
                match now {
                    Some(now) if &now.metadata.resource_version == resource_version => Err(explain((None, cause))),
                    _ => fault,
                }
            }
            Err(error) => Err(explain(error)),
        }
    }

    /// Whether the API server has dropped `matchConditions`, which is noted.
    fn dropped_conditions(&mut self, aim: &Aim, kind: &str, stored: &DynamicObject) -> bool {
        let is_without = |entry: &Entry| {
            let found = entry.find(stored).map(|(_, stored)| stored[CONDITIONS].as_array().is_none_or(Vec::is_empty));
            entry.configuration == kind && aim.conditions(entry.about).is_some() && found == Some(true)
        };
        let dropped = aim.has_conditions && ENTRIES.iter().any(is_without);
        if dropped {
            if self.dropped.is_none() {
                info!("this API server has no matchConditions: updates that leave the spec as it is are reviewed too");
            }
            self.dropped = Some(Instant::now());
        }
        dropped
    }
}

/// Waits until there are other authorities; for ever where nobody makes any.
async fn changed(authorities: Option<&mut watch::Receiver<Option<String>>>) {
    match authorities {
        Some(authorities) if authorities.has_changed().is_ok() => {
            let _ = authorities.changed().await;
        }
        _ => std::future::pending().await,
    }
}

/// Both configurations as the API server has them, by their kind: none where one is not there, and why where one cannot be read.
pub(crate) type Stored = Vec<(&'static str, Result<Option<DynamicObject>, String>)>;

/// Reads both configurations.
///
/// # Errors
/// The API server does not say which version of them it has.
pub(crate) async fn stored(client: &Client, name: &str) -> Result<Stored, String> {
    let version = api_version(client).await?;
    let mut stored = Vec::new();
    for configuration in CONFIGURATIONS {
        let found = cluster::in_time(configurations(client, configuration, version).get_opt(name)).await;
        stored.push((configuration.0, found.map_err(|(_, cause)| format!("cannot be read: {cause}"))));
    }
    Ok(stored)
}

/// The namespaces that a configuration has reviewed: those that one of these matches.
///
/// # Errors
/// Why they cannot be told.
pub(crate) fn selectors(configuration: &DynamicObject) -> Result<Vec<Selector>, String> {
    let entries = configuration.data["webhooks"].as_array().into_iter().flatten();
    let of_workloads = entries.filter(|entry| [WEBHOOK, LENIENT_WEBHOOK].iter().any(|name| entry["name"] == *name));
    let selector = |entry: &Value| match entry.get("namespaceSelector").filter(|selector| !selector.is_null()) {
        None => Ok(Selector::default()),
        Some(selector) => serde_json::from_value::<LabelSelector>(selector.clone())
            .map_err(|error| error.to_string())
            .and_then(|selector| selector.try_into().map_err(|error: ParseExpressionError| error.to_string()))
            .map_err(|error| format!("its namespaceSelector: {error}")),
    };
    of_workloads.map(selector).collect()
}

/// What keeps the webhooks from being asked: configurations, entries or rules that are not there, or that cannot be read. Empty if all
/// is well.
#[must_use]
pub(crate) fn missing(stored: &Stored, name: &str) -> Vec<String> {
    let mut missing = Vec::new();
    for (kind, found) in stored {
        let found = match found {
            Ok(Some(found)) => found,
            Ok(None) => {
                missing.push(no_configuration(kind, name));
                continue;
            }
            Err(cause) => {
                missing.push(format!("{kind} {name}: {cause}"));
                continue;
            }
        };
        for entry in ENTRIES.iter().filter(|entry| entry.configuration == *kind && entry.is_due(found)) {
            match entry.find(found) {
                None => missing.push(no_entry(entry, name)),
                Some((_, stored)) if rules_of(stored).is_empty() => missing.push(format!(
                    "the entry {} of {kind} {name} has no rules, so nobody is asked: no replica serves yet; look at the pods of Countersign, and at /readyz", entry.name
                )),
                Some(_) => {}
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    /// Nothing is written by a replica that does not serve, or has been asked to stop.
    #[tokio::test(start_paused = true)]
    async fn only_replicas_that_serve_write() {
        let patches = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&patches);
        let client = cluster::scripted(move |method, uri| {
            if method == "PATCH" {
                counted.fetch_add(1, Ordering::SeqCst);
                return None;
            }
            let kind = if uri.contains("mutating") { MUTATING } else { VALIDATING };
            let entries: Vec<_> = ENTRIES
                .iter()
                .filter(|entry| entry.configuration == kind)
                .map(|entry| json!({"name": entry.name, "clientConfig": {"caBundle": "x", "service": {"path": entry.paths()[0]}}}))
                .collect();
            let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "c", "resourceVersion": "1"}, "webhooks": entries});
            let resources =
                json!({"kind": "APIResourceList", "groupVersion": "admissionregistration.k8s.io/v1", "resources": []});
            Some((200, if uri.ends_with("/v1") { resources } else { object }))
        });
        let serves = Arc::new(AtomicBool::new(false));
        let readiness: Readiness = {
            let serves = Arc::clone(&serves);
            Arc::new(move || (!serves.load(Ordering::SeqCst)).then(|| "not yet".to_owned()))
        };
        let (stop, stopped) = watch::channel(false);
        let wanted = Wanted { name: "c".into(), kinds: Vec::new(), enforces: true, authorities: None };
        let kept = tokio::spawn(keep(client, wanted, readiness, stopped));
        tokio::time::sleep(SETTLED * 3).await;
        assert_eq!(patches.load(Ordering::SeqCst), 0);
        serves.store(true, Ordering::SeqCst);
        tokio::time::sleep(SETTLED * 3).await;
        let patched = patches.load(Ordering::SeqCst);
        assert!(patched > 0);
        stop.send(true).unwrap();
        kept.await.unwrap();
        tokio::time::sleep(SETTLED * 3).await;
        assert_eq!(patches.load(Ordering::SeqCst), patched);
    }
}
