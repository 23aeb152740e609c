//! A store in a directory: one file a record, and one beside it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_image::Sha256;
use futures::future::BoxFuture;
use serde::Deserialize;

use crate::shares::{self, MAX_RECORD_BYTES, NoRoom};
use crate::store::{Content, RecordKey, Saved, StateError, StateStore, Stored};

/// A directory with one file a record, and one beside it for what later releases add.
///
/// No file is named by anything that a stranger says: names are hashes. A file is written whole and then renamed into its
/// place, so that a crash leaves the old one or the new one; each text has the file
/// beside it that it was written with.
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
        let state = Self { path: path.to_owned(), namespaces: Arc::default() };
        {
            let _lock = state.lock()?;
            tidy(path)?;
        }
        Ok(state)
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

    fn file(&self, key: &RecordKey) -> PathBuf {
        self.path.join(format!("{}.json", key.name()))
    }

    fn read(&self, key: &RecordKey) -> Result<Option<Stored>, StateError> {
        let path = self.file(key);
        let found = read_pair(&path);
        found.or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound if self.is_there() => Ok(None),
            _ => Err(StateError::unreadable(&key.gun, path.display(), error)),
        })
    }

    fn swap(&self, key: &RecordKey, content: &Content, over: Option<&str>) -> Result<Saved, StateError> {
        let (path, gun) = (self.file(key), &key.gun);
        let no_access = |error: std::io::Error| StateError::unwritable(gun, path.display(), error);
        let _lock = self.lock().map_err(no_access)?;
        let there = self.read(key)?;
        if there.as_ref().map(|there| there.revision.as_str()) != over {
            return Ok(Saved::Changed);
        }
        let (text, more) = (content.text.len(), content.more.as_ref().map_or(0, Vec::len));
        let length = text + more;
        if length > MAX_RECORD_BYTES {
            return Err(StateError::no_room(gun, path.display(), NoRoom::TooLarge { kib: length >> 10 }));
        }
        // Most updates are small, and there is no need to look at all files for them.
        let size = shares::counted(text, more);
        if there.is_none() || size > 64 << 10 {
            let namespace = content.namespace.as_deref().unwrap_or_default();
            let room = self.has_room(&path, namespace, size).map_err(no_access)?;
            room.map_err(|why| StateError::no_room(gun, path.display(), why))?;
        }
        // It is for another namespace now, perhaps.
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).remove(path.file_name().unwrap_or_default());
        write_pair(&path, content).map(|()| Saved::Done(None)).map_err(no_access)
    }

    /// Whether what counts for so much may be written.
    fn has_room(&self, path: &Path, namespace: &str, size: usize) -> std::io::Result<Result<(), NoRoom>> {
        #[derive(Deserialize, Default)]
        struct For {
            #[serde(default)]
            namespace: Option<String>,
        }
        // The lengths of texts, and of what is beside them, by record.
        let (mut texts, mut mores) = (HashMap::new(), HashMap::<String, usize>::new());
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let length = entry.metadata().map_or(0, |file| usize::try_from(file.len()).unwrap_or(usize::MAX));
            let file = entry.file_name();
            let name = file.to_string_lossy();
            if name.ends_with(".json") {
                texts.insert(file, length);
            } else if let Some((record, _)) = name.strip_suffix(".more").and_then(|name| name.split_once('.')) {
                let more = mores.entry(format!("{record}.json")).or_default();
                *more = (*more).max(length);
            }
        }
        let counted = |(name, text): (&OsString, &usize)| {
            shares::counted(*text, mores.get(&*name.to_string_lossy()).copied().unwrap_or_default())
        };
        let mut sizes: HashMap<OsString, usize> = texts.iter().map(|of| (of.0.clone(), counted(of))).collect();
        let before = path.file_name().and_then(|name| sizes.remove(name));
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

    /// Everything that is in it.
    ///
    /// # Errors
    /// A directory or file that cannot be read.
    pub fn list(&self) -> Result<Vec<Stored>, StateError> {
        let failed =
            |place: &Path, cause: std::io::Error| StateError::unreadable("the repositories", place.display(), cause);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(|error| failed(&self.path, error))? {
            let path = entry.map_err(|error| failed(&self.path, error))?.path();
            if path.extension().is_some_and(|ending| ending == "json") {
                found.extend(read_pair(&path).map_err(|error| failed(&path, error))?);
            }
        }
        Ok(found)
    }

    /// Puts this in place of whatever is there.
    ///
    /// # Errors
    /// It could not be written.
    pub fn replace(&self, key: &RecordKey, content: &Content) -> Result<(), StateError> {
        let path = self.file(key);
        let written = self.lock().and_then(|_lock| write_pair(&path, content));
        written.map_err(|error| StateError::unwritable(&key.gun, path.display(), error))
    }
}

impl StateStore for StateDir {
    fn place(&self, key: &RecordKey) -> String {
        self.file(key).display().to_string()
    }

    fn load<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Stored>, StateError>> {
        let (state, key) = (self.clone(), key.clone());
        Box::pin(async move {
            let broken = StateError::unreadable(&key.gun, state.path.display(), "reading broke off");
            tokio::task::spawn_blocking(move || state.read(&key)).await.unwrap_or(Err(broken))
        })
    }

    fn save<'a>(
        &'a self,
        key: &'a RecordKey,
        content: Content,
        over: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Saved, StateError>> {
        let (state, key, over) = (self.clone(), key.clone(), over.map(str::to_owned));
        Box::pin(async move {
            let broken = StateError::unwritable(&key.gun, state.path.display(), "writing broke off");
            let write = move || state.swap(&key, &content, over.as_deref());
            tokio::task::spawn_blocking(write).await.unwrap_or(Err(broken))
        })
    }
}

/// The file with what later releases add to a text: named after it, so that each text has its own. An older release writes the text
/// alone; then there is none for it.
fn beside(path: &Path, text: &[u8]) -> PathBuf {
    path.with_extension(format!("{}.more", &Sha256::of(text).hex()[..16]))
}

/// How often the two files are read anew, as somebody may have written others meanwhile.
const MAX_READS: usize = 3;

fn read_pair(path: &Path) -> std::io::Result<Option<Stored>> {
    let mut text = fs::read(path)?;
    for _ in 0..MAX_READS {
        let more = match fs::read(beside(path, &text)) {
            Ok(more) => Some(more),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // Without one there never was one, unless another text has taken its place.
        let again = fs::read(path)?;
        if more.is_some() || again == text {
            let revision = Sha256::of(&[&text[..], b"\n", more.as_deref().unwrap_or_default()].concat()).hex();
            let content = Content { text, more, ..Content::default() };
            return Ok(Some(Stored { content, uid: None, revision }));
        }
        text = again;
    }
    Err(std::io::Error::other("it is written by others all the time"))
}

/// Writes both files: first the one beside the text, which counts once the text is there. Until then what was there is whole.
fn write_pair(path: &Path, content: &Content) -> std::io::Result<()> {
    let now = beside(path, &content.text);
    let before = fs::read(path).ok().map(|text| beside(path, &text)).filter(|before| *before != now);
    match &content.more {
        Some(more) => write_whole(&now, more)?,
        None => remove(&now)?,
    }
    write_whole(path, &content.text)?;
    before.map_or(Ok(()), |before| remove(&before))
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the files beside texts that are not there any more: of a process that broke off, or an older release.
fn tidy(folder: &Path) -> std::io::Result<()> {
    let entries: Vec<_> = fs::read_dir(folder)?.collect::<std::io::Result<_>>()?;
    for path in entries.into_iter().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((record, _)) = name.strip_suffix(".more").and_then(|name| name.split_once('.')) else {
            continue;
        };
        let text = folder.join(format!("{record}.json"));
        let belongs = match fs::read(&text) {
            Ok(found) => beside(&text, &found) == path,
            // What cannot be read may be the text that it belongs to.
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        };
        if !belongs {
            remove(&path)?;
        }
    }
    Ok(())
}

fn write_whole(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut fresh = path.to_owned().into_os_string();
    fresh.push(format!(".{}.new", std::process::id()));
    let mut file = fs::File::create(&fresh)?;
    let written = file.write_all(text).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}
