//! A store in a directory: one file a repository.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_notary::{MemoryRecord, RecordId, Weighed, weigh};
use futures::future::BoxFuture;
use serde::Deserialize;

use crate::shares::{self, MAX_RECORD_BYTES, NoRoom};
use crate::store::{Saved, StateError, StateStore, ToSave, record_name};

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
        self.path.join(format!("{}.json", record_name(server, gun)))
    }

    fn read(&self, server: &str, gun: &str) -> Result<Option<MemoryRecord>, StateError> {
        let path = self.file(server, gun);
        let failed = |cause: String| StateError::unreadable(gun, path.display(), cause);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.is_there() => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        MemoryRecord::decode(server, gun, &text).map(Some).map_err(|error| failed(error.to_string()))
    }

    fn swap(&self, server: &str, gun: &str, over: Option<&RecordId>, seen: &MemoryRecord) -> Result<Saved, StateError> {
        let path = self.file(server, gun);
        let failed = |cause: String| StateError::unwritable(gun, path.display(), cause);
        let no_access = |error: std::io::Error| failed(error.to_string());
        let _lock = self.lock().map_err(no_access)?;
        let there = self.read(server, gun)?;
        let saved = || Saved::Done(RecordId::of(seen));
        match weigh(&seen.memory, over, there.as_ref()) {
            Weighed::Overtaken => return Ok(Saved::Overtaken),
            Weighed::Same => return Ok(saved()),
            Weighed::Newer => {}
        }
        let text = seen.encode(server, gun).map_err(|error| failed(error.to_string()))?;
        if text.len() > MAX_RECORD_BYTES {
            return Err(StateError::no_room(gun, path.display(), NoRoom::TooLarge { kib: text.len() >> 10 }));
        }
        // Most updates are small, and there is no need to look at all files for them.
        if there.is_none() || text.len() > 64 << 10 {
            let room =
                self.has_room(&path, seen.namespace.as_deref().unwrap_or_default(), text.len()).map_err(no_access)?;
            room.map_err(|why| StateError::no_room(gun, path.display(), why))?;
        }
        // It is for another namespace now, perhaps.
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).remove(path.file_name().unwrap_or_default());
        write_whole(&path, &text).map(|()| saved()).map_err(no_access)
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
    pub fn list(&self) -> Result<Vec<(String, String, MemoryRecord)>, StateError> {
        let failed = |place: &Path, cause: String| StateError::unreadable("the repositories", place.display(), cause);
        let entries = fs::read_dir(&self.path).map_err(|error| failed(&self.path, error.to_string()))?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| failed(&self.path, error.to_string()))?.path();
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            let text = fs::read(&path).map_err(|error| failed(&path, error.to_string()))?;
            let read = MemoryRecord::decode_any(&text).map_err(|error| failed(&path, error.to_string()))?;
            found.push(read);
        }
        found.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
        Ok(found)
    }

    /// Puts this in place of whatever is remembered.
    ///
    /// # Errors
    /// It could not be written.
    pub fn replace(&self, server: &str, gun: &str, seen: &MemoryRecord) -> Result<(), StateError> {
        let path = self.file(server, gun);
        let failed = |cause: String| StateError::unwritable(gun, path.display(), cause);
        let text = seen.encode(server, gun).map_err(|error| failed(error.to_string()))?;
        let written = self.lock().and_then(|_lock| write_whole(&path, &text));
        written.map_err(|error| failed(error.to_string()))
    }
}

impl StateStore for StateDir {
    fn load<'a>(&'a self, server: &'a str, gun: &'a str) -> BoxFuture<'a, Result<Option<MemoryRecord>, StateError>> {
        let (state, server, gun) = (self.clone(), server.to_owned(), gun.to_owned());
        Box::pin(async move {
            let broken = StateError::unreadable(&gun, state.path.display(), "reading broke off");
            tokio::task::spawn_blocking(move || state.read(&server, &gun)).await.unwrap_or(Err(broken))
        })
    }

    fn save<'a>(&'a self, server: &'a str, gun: &'a str, seen: ToSave<'a>) -> BoxFuture<'a, Result<Saved, StateError>> {
        let (state, server, gun) = (self.clone(), server.to_owned(), gun.to_owned());
        let (over, seen) = (seen.over.cloned(), seen.record());
        Box::pin(async move {
            let broken = StateError::unwritable(&gun, state.path.display(), "writing broke off");
            let write = move || state.swap(&server, &gun, over.as_ref(), &seen);
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
