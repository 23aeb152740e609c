//! What is remembered of repositories across restarts.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_notary::{KeyId, Memory, RoleName, RootKey, RootRecord, Seen, from_hex, to_hex};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why something could not be remembered or recalled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot {action} what is remembered of {gun} in {place}: {cause}")]
pub struct StateError {
    /// `read` or `write`.
    pub action: &'static str,
    /// The repository.
    pub gun: String,
    /// The file.
    pub place: String,
    /// What went wrong.
    pub cause: String,
}

impl StateError {
    /// Names what failed, and why.
    #[must_use]
    pub fn new(action: &'static str, gun: &str, place: impl std::fmt::Display, cause: impl std::fmt::Display) -> Self {
        Self { action, gun: gun.to_owned(), place: place.to_string(), cause: cause.to_string() }
    }
}

/// What is remembered, and when an administrator last accepted a change of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    /// What was seen.
    pub memory: Memory,
    /// When `countersign trust accept` wrote it, as RFC 3339 text; what was seen before then counts no more.
    pub accepted: Option<String>,
}

/// Where memories live.
pub trait StateStore: Send + Sync + std::fmt::Debug {
    /// Whether it can be asked yet. Until then every load fails, and so every verification.
    fn is_ready(&self) -> bool {
        true
    }

    /// What is remembered of a repository on a server; `None` if it was never seen.
    ///
    /// # Errors
    /// Something is there that cannot be read. The repository must not be trusted then.
    fn load<'a>(&'a self, server: &'a str, gun: &'a str) -> BoxFuture<'a, Result<Option<Remembered>, StateError>>;

    /// Remembers it, joined with what is remembered already. If an administrator accepted a change in the meantime, what
    /// is there stays as it is.
    ///
    /// # Errors
    /// It could not be written; what was remembered before is still there.
    fn save<'a>(&'a self, server: &'a str, gun: &'a str, seen: &'a Remembered)
    -> BoxFuture<'a, Result<(), StateError>>;
}

/// What is to be written, given what is there; nothing if that says it all.
#[must_use]
pub fn merged(there: Option<Remembered>, seen: &Remembered) -> Option<Remembered> {
    match there {
        Some(there) if there.accepted != seen.accepted => None,
        Some(there) => {
            let memory = there.memory.clone().join(&seen.memory);
            (memory != there.memory).then_some(Remembered { memory, accepted: there.accepted })
        }
        None => Some(seen.clone()),
    }
}

/// A directory with one file a repository.
///
/// No file is named by anything that a stranger says: names are hashes. A file is written whole and then renamed into its
/// place, so that a crash leaves the old one or the new one.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// The JSON form of what is remembered, wherever it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: String,
    gun: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepted: Option<String>,
    root: String,
    lineage: Vec<Record>,
    seen: BTreeMap<String, Version>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u64,
    threshold: u64,
    keys: Vec<[String; 2]>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    version: u64,
    content: String,
}

impl StateDir {
    /// Uses a directory, which is made if it is not there.
    ///
    /// # Errors
    /// A directory that cannot be made or written.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        fs::create_dir_all(path)?;
        let probe = path.join(".probe");
        fs::write(&probe, b"")?;
        fs::remove_file(&probe)?;
        Ok(Self { path: path.to_owned() })
    }

    fn file(&self, server: &str, gun: &str) -> PathBuf {
        self.path.join(format!("{}.json", name(server, gun)))
    }

    fn read(&self, server: &str, gun: &str) -> Result<Option<Remembered>, StateError> {
        let path = self.file(server, gun);
        let failed = |cause: String| StateError::new("read", gun, path.display(), cause);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        decode(server, gun, &text).map(Some).map_err(failed)
    }

    fn write(&self, server: &str, gun: &str, seen: &Remembered) -> Result<(), StateError> {
        let path = self.file(server, gun);
        let failed = |cause: String| StateError::new("write", gun, path.display(), cause);
        let text = encode(server, gun, seen).map_err(failed)?;
        write_whole(&path, &text).map_err(|error| failed(error.to_string()))
    }

    /// Everything that is remembered: server, repository, and what was seen.
    ///
    /// # Errors
    /// A directory or file that cannot be read.
    pub fn list(&self) -> Result<Vec<(String, String, Remembered)>, StateError> {
        let failed = |place: &Path, cause: String| StateError::new("read", "the repositories", place.display(), cause);
        let entries = fs::read_dir(&self.path).map_err(|error| failed(&self.path, error.to_string()))?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| failed(&self.path, error.to_string()))?.path();
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            let text = fs::read(&path).map_err(|error| failed(&path, error.to_string()))?;
            let file: File = serde_json::from_slice(&text).map_err(|error| failed(&path, error.to_string()))?;
            let (server, gun) = (file.server.clone(), file.gun.clone());
            let seen = recall(file).ok_or_else(|| failed(&path, "a key id, hash or role in it is malformed".into()))?;
            found.push((server, gun, seen));
        }
        found.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
        Ok(found)
    }

    /// Puts this in place of whatever is remembered.
    ///
    /// # Errors
    /// It could not be written.
    pub fn replace(&self, server: &str, gun: &str, seen: &Remembered) -> Result<(), StateError> {
        self.write(server, gun, seen)
    }
}

/// A name for what is remembered of a repository, made of hex digits alone.
#[must_use]
pub fn name(server: &str, gun: &str) -> String {
    countersign_notary::name_hash(&[server, gun])
}

/// The JSON text of what is remembered.
///
/// # Errors
/// Why it cannot be written down.
pub fn encode(server: &str, gun: &str, seen: &Remembered) -> Result<Vec<u8>, String> {
    serde_json::to_vec_pretty(&note(server, gun, seen)).map_err(|error| error.to_string())
}

/// Reads such a text back.
///
/// # Errors
/// Text that says nothing, or speaks of another repository.
pub fn decode(server: &str, gun: &str, text: &[u8]) -> Result<Remembered, String> {
    let file: File = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if file.server != server || file.gun != gun {
        return Err("it is about another repository".to_owned());
    }
    recall(file).ok_or_else(|| "a key id, hash or role in it is malformed".to_owned())
}

impl StateStore for StateDir {
    fn load<'a>(&'a self, server: &'a str, gun: &'a str) -> BoxFuture<'a, Result<Option<Remembered>, StateError>> {
        let (state, server, gun) = (self.clone(), server.to_owned(), gun.to_owned());
        Box::pin(async move {
            let broken = StateError::new("read", &gun, state.path.display(), "reading broke off");
            tokio::task::spawn_blocking(move || state.read(&server, &gun)).await.unwrap_or(Err(broken))
        })
    }

    fn save<'a>(
        &'a self,
        server: &'a str,
        gun: &'a str,
        seen: &'a Remembered,
    ) -> BoxFuture<'a, Result<(), StateError>> {
        let (state, server, gun, seen) = (self.clone(), server.to_owned(), gun.to_owned(), seen.clone());
        Box::pin(async move {
            let broken = StateError::new("write", &gun, state.path.display(), "writing broke off");
            let write = move || match merged(state.read(&server, &gun)?, &seen) {
                Some(merged) => state.write(&server, &gun, &merged),
                None => Ok(()),
            };
            tokio::task::spawn_blocking(write).await.unwrap_or(Err(broken))
        })
    }
}

fn write_whole(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::File::create(&fresh)?;
    let written = file.write_all(text).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

fn note(server: &str, gun: &str, remembered: &Remembered) -> File {
    let memory = &remembered.memory;
    let record = |record: &RootRecord| Record {
        version: record.version,
        threshold: record.threshold,
        keys: record.keys.iter().map(|key| [key.id.to_string(), key.canonical_id.to_string()]).collect(),
    };
    let seen = |(role, seen): (&RoleName, &Seen)| {
        (role.to_string(), Version { version: seen.version, content: to_hex(&seen.content) })
    };
    File {
        server: server.to_owned(),
        gun: gun.to_owned(),
        accepted: remembered.accepted.clone(),
        root: STANDARD.encode(memory.root.as_deref().unwrap_or_default()),
        lineage: memory.lineage.iter().map(record).collect(),
        seen: memory.seen.iter().map(seen).collect(),
    }
}

fn recall(file: File) -> Option<Remembered> {
    let root: Arc<[u8]> = STANDARD.decode(file.root).ok().filter(|root| !root.is_empty())?.into();
    let key = |[id, canonical]: [String; 2]| {
        Some(RootKey { id: KeyId::from_hex(&id)?, canonical_id: KeyId::from_hex(&canonical)? })
    };
    let record = |record: Record| {
        let keys = record.keys.into_iter().map(key).collect::<Option<_>>()?;
        Some(RootRecord { version: record.version, threshold: record.threshold, keys })
    };
    let seen = |(role, seen): (String, Version)| {
        Some((RoleName::parse(&role)?, Seen { version: seen.version, content: from_hex(&seen.content)? }))
    };
    let memory = Memory {
        root: Some(root),
        lineage: file.lineage.into_iter().map(record).collect::<Option<_>>()?,
        seen: file.seen.into_iter().map(seen).collect::<Option<_>>()?,
    };
    Some(Remembered { memory, accepted: file.accepted })
}
