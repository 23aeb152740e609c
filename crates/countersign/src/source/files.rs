//! Policies and secrets from a folder of YAML and JSON files, read again when they change.
//!
//! What is in use is swapped as a whole. A change that cannot be read leaves the last good set in use, and says so.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_policy::{Policy, PolicySet, SecretRef};
use futures::future::BoxFuture;
use notify::EventKind;
use notify::event::{AccessKind, AccessMode};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::{Moment, SecretData, Source, SourceError};
use crate::api::{self, PolicyDocument, PolicyFault};
use crate::documents::{self, Document, DocumentError, Names};
use crate::metrics::SharedMetrics;

/// After a change, how long to wait for more of them: editors and mounts change several files in a row.
const SETTLE: Duration = Duration::from_millis(100);

/// How often the folder is read again although nobody said that it changed: some file systems say nothing.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// The most faults that a message lists.
const MAX_LISTED: usize = 20;

/// Why a folder is no set of policies.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file cannot be read.
    #[error("{0}")]
    Document(DocumentError),
    /// A document of a kind that has no place there.
    #[error("{place}: {kind:?} ({api_version:?}) is none of ImagePolicy, ClusterImagePolicy and Secret")]
    Kind {
        /// Where it stands.
        place: String,
        /// Its kind.
        kind: String,
        /// Its group and version.
        api_version: String,
    },
    /// A secret that cannot be read. Its data is not repeated.
    #[error("{place}: secret {name:?}: {problem}")]
    Secret {
        /// Where it stands.
        place: String,
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Policies with faults.
    #[error("{}", join(.0))]
    Policies(Vec<(String, PolicyFault)>),
    /// Two documents of one kind and name.
    #[error("{place}: {title} stands a second time; it was in {first} already")]
    Twice {
        /// Where it stands again.
        place: String,
        /// Kind and name.
        title: String,
        /// Where it stood first.
        first: String,
    },
}

fn join(faults: &[(String, PolicyFault)]) -> String {
    let lines: Vec<_> = faults.iter().take(MAX_LISTED).map(|(place, fault)| format!("{place}: {fault}")).collect();
    lines.join("\n")
}

/// A set of policies and secrets, as read at one moment.
#[derive(Debug, Default)]
pub struct Loaded {
    policies: PolicySet,
    secrets: HashMap<SecretRef, SecretData>,
    /// Pull secrets of service accounts, by namespace and name.
    accounts: HashMap<(String, String), Vec<String>>,
    /// What was read but is not enforced, with its place.
    pub warnings: Vec<(String, PolicyFault)>,
}

impl Moment for Loaded {
    fn policies(&self) -> &PolicySet {
        &self.policies
    }

    fn secret<'a>(&'a self, secret: &'a SecretRef) -> BoxFuture<'a, Result<Option<SecretData>, SourceError>> {
        let found = self.secrets.get(secret).cloned();
        Box::pin(async move { Ok(found) })
    }

    fn secret_at_hand(&self, secret: &SecretRef) -> Option<Option<SecretData>> {
        Some(self.secrets.get(secret).cloned())
    }

    fn account_pull_secrets<'a>(
        &'a self,
        namespace: &'a str,
        account: &'a str,
    ) -> BoxFuture<'a, Result<Vec<String>, SourceError>> {
        let found = self.accounts.get(&(namespace.to_owned(), account.to_owned())).cloned().unwrap_or_default();
        Box::pin(async move { Ok(found) })
    }
}

impl Loaded {
    /// All secrets.
    pub fn secrets(&self) -> impl Iterator<Item = (&SecretRef, &SecretData)> {
        self.secrets.iter()
    }

    /// Reads a folder, or a single file.
    ///
    /// # Errors
    /// The first file that cannot be read, or all faults of its policies.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        Self::of(&documents::read(path, Names::Plain).map_err(LoadError::Document)?)
    }

    /// Takes documents.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of(documents: &[Document]) -> Result<Self, LoadError> {
        let mut policies: Vec<Policy> = Vec::new();
        let mut loaded = Self::default();
        let mut faults = Vec::new();
        let mut seen: HashMap<String, String> = HashMap::new();
        for document in documents {
            let place = document.place.to_string();
            let title = match (document.text_of("/apiVersion"), document.text_of("/kind")) {
                (_, "ImagePolicy" | "ClusterImagePolicy") => {
                    // Says the line of a member that is not known.
                    let _: PolicyDocument = document.typed().map_err(LoadError::Document)?;
                    match api::check(&document.value) {
                        Ok(converted) => {
                            loaded
                                .warnings
                                .extend(converted.warnings.into_iter().map(|warning| (place.clone(), warning)));
                            policies.push(converted.policy);
                        }
                        Err(found) => faults.extend(found.into_iter().map(|fault| (place.clone(), fault))),
                    }
                    api::title(&document.value)
                }
                ("v1", "Secret") => {
                    let (secret, data) = read_secret(document)?;
                    let title = format!("Secret {}/{}", secret.namespace, secret.name);
                    loaded.secrets.insert(secret, data);
                    title
                }
                ("v1", "ServiceAccount") => {
                    let key = (namespace_of(document).to_owned(), document.text_of("/metadata/name").to_owned());
                    let title = format!("ServiceAccount {}/{}", key.0, key.1);
                    let listed = document.value.get("imagePullSecrets").and_then(Value::as_array);
                    let names = listed.into_iter().flatten().filter_map(|secret| secret["name"].as_str());
                    loaded.accounts.insert(key, names.map(str::to_owned).collect());
                    title
                }
                (api_version, kind) => {
                    let (kind, api_version) = (kind.to_owned(), api_version.to_owned());
                    return Err(LoadError::Kind { place, kind, api_version });
                }
            };
            if let Some(first) = seen.insert(title.clone(), place.clone()) {
                return Err(LoadError::Twice { place, title, first });
            }
        }
        if !faults.is_empty() {
            return Err(LoadError::Policies(faults));
        }
        loaded.policies = PolicySet::new(policies);
        Ok(loaded)
    }
}

/// `data` is base64, `stringData` is not, and wins where both have a key: as in Kubernetes.
fn read_secret(document: &Document) -> Result<(SecretRef, SecretData), LoadError> {
    let name = document.text_of("/metadata/name").to_owned();
    let failed = |problem: String| LoadError::Secret { place: document.place.to_string(), name: name.clone(), problem };
    if name.is_empty() {
        return Err(failed("metadata.name is missing".into()));
    }
    let value_of = |key: &str| -> Result<Option<Vec<u8>>, LoadError> {
        match document.value.pointer(&format!("/stringData/{key}")) {
            Some(Value::String(text)) => return Ok(Some(text.clone().into_bytes())),
            None | Some(Value::Null) => {}
            Some(_) => return Err(failed(format!("stringData.{key} is not a string"))),
        }
        match document.value.pointer(&format!("/data/{key}")) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => {
                let packed: String = text.split_ascii_whitespace().collect();
                let decoded = STANDARD.decode(packed);
                decoded.map(Some).map_err(|_| failed(format!("data.{key} is not base64 (stringData takes plain text)")))
            }
            Some(_) => Err(failed(format!("data.{key} is not a string"))),
        }
    };
    let data = SecretData::read(document.text_of("/type"), value_of)?;
    Ok((SecretRef { namespace: namespace_of(document).to_owned(), name: name.clone() }, data))
}

/// What kubectl would do with a document that names no namespace.
fn namespace_of(document: &Document) -> &str {
    Some(document.text_of("/metadata/namespace")).filter(|text| !text.is_empty()).unwrap_or("default")
}

/// A folder that is watched.
#[derive(Debug)]
pub(crate) struct FileSource {
    loaded: ArcSwap<Loaded>,
}

impl Source for FileSource {
    fn now(&self) -> Result<Arc<dyn Moment>, SourceError> {
        let moment: Arc<dyn Moment> = self.loaded.load_full();
        Ok(moment)
    }
}

impl FileSource {
    /// Uses what was read, without watching anything.
    #[must_use]
    pub(crate) fn fixed(loaded: Loaded) -> Arc<Self> {
        Arc::new(Self { loaded: ArcSwap::from_pointee(loaded) })
    }

    /// Reads a folder and watches it from then on.
    ///
    /// # Errors
    /// A folder that cannot be read at start; later that is only said.
    pub(crate) fn watched(path: &Path, metrics: SharedMetrics) -> Result<Arc<Self>, LoadError> {
        let loaded = Loaded::read(path)?;
        say_loaded(&loaded, &metrics);
        let source = Self::fixed(loaded);
        tokio::spawn(Arc::clone(&source).watch(path.to_owned(), metrics));
        Ok(source)
    }

    async fn watch(self: Arc<Self>, path: PathBuf, metrics: SharedMetrics) {
        let (sender, mut changes) = mpsc::channel::<()>(1);
        let told = move |event: notify::Result<notify::Event>| {
            if event.as_ref().is_ok_and(|event| !may_change(event.kind)) {
                return;
            }
            // A full channel holds a notice already.
            let _ = sender.try_send(());
        };
        let watcher = notify::recommended_watcher(told).and_then(|mut watcher| {
            notify::Watcher::watch(&mut watcher, &path, notify::RecursiveMode::Recursive).map(|()| watcher)
        });
        if let Err(problem) = &watcher {
            warn!(path = %path.display(), %problem, "changes are not announced here; reading every {READ_AGAIN:?}");
        }
        let mut last = fingerprint(&path);
        let mut failing = false;
        loop {
            let announced = tokio::time::timeout(READ_AGAIN, changes.recv()).await;
            if announced == Ok(None) {
                tokio::time::sleep(READ_AGAIN).await;
            }
            tokio::time::sleep(SETTLE).await;
            while changes.try_recv().is_ok() {}
            let print = fingerprint(&path);
            if print == last && !failing {
                continue;
            }
            let changed = print != last;
            last = print;
            match Loaded::read(&path) {
                Ok(loaded) => {
                    say_loaded(&loaded, &metrics);
                    self.loaded.store(Arc::new(loaded));
                    failing = false;
                }
                Err(problem) => {
                    if changed {
                        error!(path = %path.display(), %problem, "the changed policies cannot be used; the last good ones stay in force");
                    }
                    metrics.policies_failed();
                    failing = true;
                }
            }
        }
    }
}

/// Whether files may have changed: to read them is told too, and would have them read again and again.
fn may_change(kind: EventKind) -> bool {
    !kind.is_access() || kind == EventKind::Access(AccessKind::Close(AccessMode::Write))
}

fn say_loaded(loaded: &Loaded, metrics: &SharedMetrics) {
    for (place, warning) in &loaded.warnings {
        warn!(%place, "{warning}");
    }
    metrics.policies_loaded();
    let of = |kind: &str| loaded.policies.policies().filter(|policy| policy.kind.kind() == kind).count();
    // A folder with a faulty policy is not used at all.
    for kind in ["ImagePolicy", "ClusterImagePolicy"] {
        metrics.policies(kind, of(kind), 0);
    }
    info!(policies = loaded.policies.len(), secrets = loaded.secrets.len(), "policies loaded");
}

/// Something that differs when any file of the folder does: all their bytes. Folders of policies are small.
fn fingerprint(path: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let files = documents::files(path, Names::Plain).unwrap_or_default();
    files.into_iter().map(|file| (file.clone(), std::fs::read(&file).ok())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Loaded, LoadError> {
        Loaded::of(&documents::parse("f.yaml", text).map_err(LoadError::Document)?)
    }

    /// What this process reads itself is no change.
    #[test]
    fn to_read_a_folder_announces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.yaml");
        std::fs::write(&file, POLICY).unwrap();
        let (sender, events) = std::sync::mpsc::channel();
        let mut watcher = notify::recommended_watcher(move |event| {
            let _ = sender.send(event);
        })
        .unwrap();
        notify::Watcher::watch(&mut watcher, folder.path(), notify::RecursiveMode::Recursive).unwrap();
        for _ in 0..3 {
            Loaded::read(folder.path()).unwrap();
            fingerprint(folder.path());
        }
        // Events come in their order.
        let last = folder.path().join("last.yaml");
        std::fs::write(&last, POLICY).unwrap();
        let mut reads = 0;
        for event in events {
            let event: notify::Event = event.unwrap();
            if event.paths.contains(&last) {
                if may_change(event.kind) {
                    break;
                }
            } else {
                reads += 1;
                assert!(!may_change(event.kind), "{event:?}");
            }
        }
        assert!(reads > 0, "it is told that files are read");
    }

    const POLICY: &str = "apiVersion: securityenforcement.admission.cloud.ibm.com/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p}\nspec: {repositories: [{name: '*'}]}\n";

    #[test]
    fn secrets_come_plain_or_in_base64() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: ns}\ndata: {name: YWxpY2U=, publicKey: eA==}\nstringData: {publicKey: key}\n";
        let loaded = load(text).unwrap();
        let data = &loaded.secrets[&SecretRef { namespace: "ns".into(), name: "s".into() }];
        assert_eq!((data.name(), data.public_key()), (Some(&b"alice"[..]), Some(&b"key"[..])));
        assert!(!format!("{data:?}").contains("alice"));
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let misspelt = POLICY.replace("spec: {repositories", "spec: {repos");
        let twice = format!("{POLICY}---\n{POLICY}");
        let cases = [
            ("apiVersion: v1\nkind: ConfigMap\n", "none of ImagePolicy"),
            (misspelt.as_str(), "f.yaml:4: "),
            (twice.as_str(), "f.yaml:5: ClusterImagePolicy p stands a second time; it was in f.yaml:1"),
            (
                "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {publicKey: '***'}\n",
                "publicKey is not base64",
            ),
            ("apiVersion: v1\nkind: Secret\n", "metadata.name"),
            ("apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: n}\n", "metadata.namespace is not text"),
        ];
        for (text, expected) in cases {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert_eq!(load(POLICY).unwrap().policies.len(), 1);
    }
}
