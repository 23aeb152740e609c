//! Policies and secrets from a folder of YAML and JSON files, read again when they change.
//!
//! What is in use is swapped as a whole. A change that cannot be read leaves the last good set in use, and says so.

mod folder;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use countersign_policy::{PolicySet, SecretRef};
use futures::future::BoxFuture;
use notify::EventKind;
use notify::event::{AccessKind, AccessMode};
use thiserror::Error;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use self::folder::{Content, Folder, Piece};
use super::{Moment, NotAtHand, SecretData, Source, SourceError};
use crate::api::PolicyFault;
use crate::documents::{Document, DocumentError};
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
    secrets: HashMap<SecretRef, Arc<SecretData>>,
    /// Pull secrets of service accounts, by namespace and name.
    accounts: HashMap<(String, String), Vec<String>>,
    /// What was read but is not enforced, with its place.
    pub warnings: Vec<(String, PolicyFault)>,
}

impl Moment for Loaded {
    fn policies(&self) -> &PolicySet {
        &self.policies
    }

    fn secret<'a>(&'a self, secret: &'a SecretRef) -> BoxFuture<'a, Result<Option<Arc<SecretData>>, SourceError>> {
        let found = self.secrets.get(secret).cloned();
        Box::pin(async move { Ok(found) })
    }

    fn secret_at_hand(&self, secret: &SecretRef) -> Result<Option<Arc<SecretData>>, NotAtHand> {
        Ok(self.secrets.get(secret).cloned())
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
    pub fn secrets(&self) -> impl Iterator<Item = (&SecretRef, &Arc<SecretData>)> {
        self.secrets.iter()
    }

    /// Reads a folder, or a single file.
    ///
    /// # Errors
    /// The first file that cannot be read, or all faults of its policies.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        Folder::read(path).load(&Self::default())
    }

    /// Takes documents.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of(documents: &[Document]) -> Result<Self, LoadError> {
        Self::of_pieces(&folder::pieces(documents)?, &Self::default())
    }

    /// Takes what documents say. What was made of policies before is used again where they are the same.
    fn of_pieces<'a>(pieces: impl IntoIterator<Item = &'a Piece>, before: &Self) -> Result<Self, LoadError> {
        let mut policies = Vec::new();
        let mut loaded = Self::default();
        let mut faults = Vec::new();
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for Piece { place, title, content } in pieces {
            let at_place = |fault: &PolicyFault| (place.clone(), fault.clone());
            match content {
                Content::Policy(policy, warnings) => {
                    loaded.warnings.extend(warnings.iter().map(at_place));
                    policies.push(Arc::clone(policy));
                }
                Content::Faults(found) => faults.extend(found.iter().map(at_place)),
                Content::Secret(secret, data) => {
                    loaded.secrets.insert(secret.clone(), Arc::clone(data));
                }
                Content::Account(account, pull_secrets) => {
                    loaded.accounts.insert(account.clone(), pull_secrets.clone());
                }
            }
            if let Some(first) = seen.insert(title, place) {
                let (place, title, first) = (place.clone(), title.clone(), first.to_owned());
                return Err(LoadError::Twice { place, title, first });
            }
        }
        if !faults.is_empty() {
            return Err(LoadError::Policies(faults));
        }
        loaded.policies = before.policies.followed_by(policies);
        Ok(loaded)
    }
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
        let folder = Folder::read(path);
        let loaded = folder.load(&Loaded::default())?;
        say_loaded(&loaded, &metrics);
        let source = Self::fixed(loaded);
        tokio::spawn(Arc::clone(&source).watch(folder, metrics));
        Ok(source)
    }

    async fn watch(self: Arc<Self>, mut folder: Folder, metrics: SharedMetrics) {
        let path = folder.path().to_owned();
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
        let mut failing = false;
        loop {
            let announced = tokio::time::timeout(READ_AGAIN, changes.recv()).await;
            if announced == Ok(None) {
                tokio::time::sleep(READ_AGAIN).await;
            }
            tokio::time::sleep(SETTLE).await;
            while changes.try_recv().is_ok() {}
            let changed = folder.look_again();
            if !changed && !failing {
                continue;
            }
            match folder.load(&self.loaded.load()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents;

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
            Folder::read(folder.path()).look_again();
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
