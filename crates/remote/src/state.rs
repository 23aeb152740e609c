//! What is remembered of repositories across restarts.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_notary::{KeyId, Memory, RoleName, RootKey, RootRecord, Seen, from_hex, to_hex};
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

/// Where memories live.
pub trait StateStore: Send + Sync + std::fmt::Debug {
    /// What is remembered of a repository on a server; `None` if it was never seen.
    ///
    /// # Errors
    /// Something is there that cannot be read. The repository must not be trusted then.
    fn load(&self, server: &str, gun: &str) -> Result<Option<Memory>, StateError>;

    /// Remembers it, in place of what was remembered.
    ///
    /// # Errors
    /// It could not be written; what was remembered before is still there.
    fn save(&self, server: &str, gun: &str, memory: &Memory) -> Result<(), StateError>;
}

/// A directory with one file a repository.
///
/// No file is named by anything that a stranger says: names are hashes. A file is written whole and then renamed into its
/// place, so that a crash leaves the old one or the new one.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: String,
    gun: String,
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
        let name = countersign_notary::name_hash(&[server, gun]);
        self.path.join(format!("{name}.json"))
    }
}

impl StateStore for StateDir {
    fn load(&self, server: &str, gun: &str) -> Result<Option<Memory>, StateError> {
        let path = self.file(server, gun);
        let failed = |cause: String| StateError {
            action: "read",
            gun: gun.to_owned(),
            place: path.display().to_string(),
            cause,
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        let file: File = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
        if file.server != server || file.gun != gun {
            return Err(failed("the file is about another repository".to_owned()));
        }
        recall(file).map(Some).ok_or_else(|| failed("a key id, hash or role in it is malformed".to_owned()))
    }

    fn save(&self, server: &str, gun: &str, memory: &Memory) -> Result<(), StateError> {
        let path = self.file(server, gun);
        let failed = |cause: String| StateError {
            action: "write",
            gun: gun.to_owned(),
            place: path.display().to_string(),
            cause,
        };
        let text = serde_json::to_vec_pretty(&note(server, gun, memory)).map_err(|error| failed(error.to_string()))?;
        write_whole(&path, &text).map_err(|error| failed(error.to_string()))
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

fn note(server: &str, gun: &str, memory: &Memory) -> File {
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
        root: STANDARD.encode(memory.root.as_deref().unwrap_or_default()),
        lineage: memory.lineage.iter().map(record).collect(),
        seen: memory.seen.iter().map(seen).collect(),
    }
}

fn recall(file: File) -> Option<Memory> {
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
    Some(Memory {
        root: Some(root),
        lineage: file.lineage.into_iter().map(record).collect::<Option<_>>()?,
        seen: file.seen.into_iter().map(seen).collect::<Option<_>>()?,
    })
}
