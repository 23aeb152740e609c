//! What is remembered of repositories across restarts.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_image::Sha256;
use countersign_notary::{KeyId, Memory, RoleName, RootKey, RootRecord, Seen};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::shares::{self, MAX_RECORD_BYTES, NoRoom};

/// What is done with what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateAction {
    /// It is read. Where that fails there may be more than anybody here knows of, so nothing may be believed.
    Read,
    /// It is written.
    Write,
}

impl std::fmt::Display for StateAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// Why something could not be remembered or recalled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot {action} what is remembered of {gun} in {place}: {cause}")]
pub struct StateError {
    /// What was tried.
    pub action: StateAction,
    /// The repository.
    pub gun: String,
    /// The file.
    pub place: String,
    /// What went wrong.
    pub cause: String,
    /// Whether there is no room for it, rather than that anything failed.
    pub no_room: bool,
}

impl StateError {
    /// Names what failed, and why.
    #[must_use]
    pub fn new(action: StateAction, gun: &str, place: impl std::fmt::Display, cause: impl std::fmt::Display) -> Self {
        let (gun, place, cause) = (gun.to_owned(), place.to_string(), cause.to_string());
        Self { action, gun, place, cause, no_room: false }
    }

    /// There is no room for what was seen.
    #[must_use]
    pub fn no_room(gun: &str, place: impl std::fmt::Display, why: &NoRoom) -> Self {
        Self { no_room: true, ..Self::new(StateAction::Write, gun, place, why) }
    }
}

/// What is remembered, and when an administrator last accepted a change of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    /// What was seen.
    pub memory: Memory,
    /// When `countersign trust accept` wrote it, as RFC 3339 text; what was seen before then counts no more.
    pub accepted: Option<String>,
    /// The namespace for which it was written last, and for whose share it counts.
    pub namespace: Option<String>,
}

/// Where memories live.
pub trait StateStore: Send + Sync + std::fmt::Debug {
    /// Whether it can be asked yet. Until then every load fails, and so every verification.
    fn is_ready(&self) -> bool {
        true
    }

    /// Of how many repositories something is remembered, where that is known without looking.
    fn count(&self) -> Option<usize> {
        None
    }

    /// What is remembered of a repository on a server; `None` only if it is certain that there is nothing.
    ///
    /// # Errors
    /// It cannot be read, or it is not known whether there is anything. The repository must not be trusted then.
    fn load<'a>(&'a self, server: &'a str, gun: &'a str) -> BoxFuture<'a, Result<Option<Remembered>, StateError>>;

    /// Remembers what was seen, in place of what is there, if that is no more than what was seen. `there` says whether
    /// there was anything when it was looked up.
    ///
    /// # Errors
    /// It could not be written; what was remembered before is still there.
    fn save<'a>(
        &'a self,
        server: &'a str,
        gun: &'a str,
        there: bool,
        seen: &'a Remembered,
    ) -> BoxFuture<'a, Result<Saved, StateError>>;
}

/// What became of something that was to be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// It is remembered.
    Done,
    /// It is not, since what is there is something else now: others have seen more, an administrator accepted a change or
    /// took it away, or what is there does not fit. What was seen must be looked at again in that light.
    Overtaken,
}

/// What is to be done to remember something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighed {
    /// It is there already.
    Same,
    /// It is to be written.
    Newer,
    /// See [`Saved::Overtaken`].
    Overtaken,
}

/// Weighs what was seen against what is there now, where `there_before` says whether there was anything before.
#[must_use]
pub fn weigh(there: Option<&Remembered>, there_before: bool, seen: &Remembered) -> Weighed {
    match there {
        None if there_before => Weighed::Overtaken,
        Some(there) if there.accepted != seen.accepted || !seen.memory.covers(&there.memory) => Weighed::Overtaken,
        Some(there) if there.memory == seen.memory => Weighed::Same,
        None | Some(_) => Weighed::Newer,
    }
}

/// A directory with one file a repository.
///
/// No file is named by anything that a stranger says: names are hashes. A file is written whole and then renamed into its
/// place, so that a crash leaves the old one or the new one.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
    /// For which namespaces the files are, as far as they were looked into.
    namespaces: Arc<Mutex<HashMap<OsString, String>>>,
}

/// The file that is locked while something is written, and that tells the directory from an empty one in its place.
const LOCK: &str = ".lock";

/// The JSON form of what is remembered, wherever it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: String,
    gun: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepted: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
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
        fs::OpenOptions::new().create(true).append(true).open(path.join(LOCK))?;
        Ok(Self { path: path.to_owned(), namespaces: Arc::default() })
    }

    /// Uses a directory that [`Self::open`] has made usable before, and makes nothing: what is empty stays so.
    #[must_use]
    pub fn existing(path: &Path) -> Option<Self> {
        Some(Self { path: path.to_owned(), namespaces: Arc::default() }).filter(Self::is_there)
    }

    /// Keeps other threads and processes from writing as long as it is held.
    fn lock(&self) -> std::io::Result<fs::File> {
        // Open for writing, as network file systems lock nothing else for one alone.
        let file = fs::OpenOptions::new().append(true).open(self.path.join(LOCK))?;
        file.lock()?;
        Ok(file)
    }

    /// Whether this is still the directory that was opened, and not what is left when a volume is gone.
    fn is_there(&self) -> bool {
        self.path.join(LOCK).is_file()
    }

    fn file(&self, server: &str, gun: &str) -> PathBuf {
        self.path.join(format!("{}.json", name(server, gun)))
    }

    fn read(&self, server: &str, gun: &str) -> Result<Option<Remembered>, StateError> {
        let path = self.file(server, gun);
        let failed = |cause: String| StateError::new(StateAction::Read, gun, path.display(), cause);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.is_there() => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        decode(server, gun, &text).map(Some).map_err(failed)
    }

    fn swap(&self, server: &str, gun: &str, there_before: bool, seen: &Remembered) -> Result<Saved, StateError> {
        let path = self.file(server, gun);
        let failed = |cause: String| StateError::new(StateAction::Write, gun, path.display(), cause);
        let no_access = |error: std::io::Error| failed(error.to_string());
        let _lock = self.lock().map_err(no_access)?;
        let there = self.read(server, gun)?;
        match weigh(there.as_ref(), there_before, seen) {
            Weighed::Overtaken => return Ok(Saved::Overtaken),
            Weighed::Same => return Ok(Saved::Done),
            Weighed::Newer => {}
        }
        let text = encode(server, gun, seen).map_err(failed)?;
        if text.len() > MAX_RECORD_BYTES {
            return Err(StateError::no_room(gun, path.display(), &NoRoom::TooLarge { kib: text.len() >> 10 }));
        }
        // Most updates are small, and there is no need to look at all files for them.
        if there.is_none() || text.len() > 64 << 10 {
            let room =
                self.has_room(&path, seen.namespace.as_deref().unwrap_or_default(), text.len()).map_err(no_access)?;
            room.map_err(|why| StateError::no_room(gun, path.display(), &why))?;
        }
        // It is for another namespace now, perhaps.
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).remove(path.file_name().unwrap_or_default());
        write_whole(&path, &text).map(|()| Saved::Done).map_err(no_access)
    }

    fn has_room(&self, path: &Path, namespace: &str, size: usize) -> std::io::Result<Result<(), NoRoom>> {
        #[derive(Deserialize, Default)]
        struct For {
            #[serde(default)]
            namespace: Option<String>,
        }
        let (mut sizes, mut before) = (HashMap::new(), None);
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let length = entry.metadata().map_or(0, |file| usize::try_from(file.len()).unwrap_or(usize::MAX));
            if entry.path() == path {
                before = Some(length);
            } else if entry.path().extension().is_some_and(|ending| ending == "json") {
                sizes.insert(entry.file_name(), length);
            }
        }
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        namespaces.retain(|name, _| sizes.contains_key(name));
        for name in sizes.keys() {
            if !namespaces.contains_key(name) {
                // One that cannot be read counts for nobody in particular.
                let text = fs::read(self.path.join(name)).unwrap_or_default();
                let wanted = serde_json::from_slice::<For>(&text).unwrap_or_default();
                namespaces.insert(name.clone(), wanted.namespace.unwrap_or_default());
            }
        }
        let others = sizes.iter().map(|(name, size)| (namespaces.get(name).map_or("", String::as_str), *size));
        Ok(shares::has_room(others, namespace, before, size))
    }

    /// Everything that is remembered: server, repository, and what was seen.
    ///
    /// # Errors
    /// A directory or file that cannot be read.
    pub fn list(&self) -> Result<Vec<(String, String, Remembered)>, StateError> {
        let failed = |place: &Path, cause: String| {
            StateError::new(StateAction::Read, "the repositories", place.display(), cause)
        };
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
        let path = self.file(server, gun);
        let failed = |cause: String| StateError::new(StateAction::Write, gun, path.display(), cause);
        let text = encode(server, gun, seen).map_err(failed)?;
        let written = self.lock().and_then(|_lock| write_whole(&path, &text));
        written.map_err(|error| failed(error.to_string()))
    }
}

/// A name for what is remembered of a repository, made of hex digits alone.
#[must_use]
pub fn name(server: &str, gun: &str) -> String {
    Sha256::of(format!("{server}\n{gun}").as_bytes()).hex()
}

/// The JSON text of what is remembered.
///
/// # Errors
/// Why it cannot be written down.
pub fn encode(server: &str, gun: &str, seen: &Remembered) -> Result<Vec<u8>, String> {
    serde_json::to_vec(&note(server, gun, seen)).map_err(|error| error.to_string())
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
            let broken = StateError::new(StateAction::Read, &gun, state.path.display(), "reading broke off");
            tokio::task::spawn_blocking(move || state.read(&server, &gun)).await.unwrap_or(Err(broken))
        })
    }

    fn save<'a>(
        &'a self,
        server: &'a str,
        gun: &'a str,
        there: bool,
        seen: &'a Remembered,
    ) -> BoxFuture<'a, Result<Saved, StateError>> {
        let (state, server, gun, seen) = (self.clone(), server.to_owned(), gun.to_owned(), seen.clone());
        Box::pin(async move {
            let broken = StateError::new(StateAction::Write, &gun, state.path.display(), "writing broke off");
            let write = move || state.swap(&server, &gun, there, &seen);
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
        (role.to_string(), Version { version: seen.version, content: seen.content.hex() })
    };
    File {
        server: server.to_owned(),
        gun: gun.to_owned(),
        accepted: remembered.accepted.clone(),
        namespace: remembered.namespace.clone(),
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
        Some((RoleName::parse(&role)?, Seen { version: seen.version, content: Sha256::from_hex(&seen.content)? }))
    };
    let memory = Memory {
        root: Some(root),
        lineage: file.lineage.into_iter().map(record).collect::<Option<_>>()?,
        seen: file.seen.into_iter().map(seen).collect::<Option<_>>()?,
    };
    Some(Remembered { memory, accepted: file.accepted, namespace: file.namespace })
}
