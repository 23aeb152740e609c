//! The files of a repository, as a server holds them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::hex;

/// Files by their name below `<server>/v2/<GUN>/_trust/tuf/`: `root.json`, `targets/alice.json`, `1.root.json`.
///
/// Newest files stand under their plain names. By checksum and by version a file is found without a name of its own,
/// see [`Files::get`]; a name with checksum or version is only given to what could not be found that way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    files: BTreeMap<String, Vec<u8>>,
}

impl Files {
    /// No files at all.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// What a server answers for a name; `None` is a 404.
    ///
    /// The file of exactly that name if there is one. Else, for `ROLE.<64 hex digits>.json`, the file `ROLE.json` if
    /// that is its sha256 in lower case; and for `N.root.json` the file `root.json` if that is its version.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        if let Some(bytes) = self.files.get(name) {
            return Some(bytes);
        }
        let stem = name.strip_suffix(".json")?;
        if let Some((role, checksum)) = stem.rsplit_once('.')
            && checksum.len() == 64
        {
            let bytes = self.files.get(&format!("{role}.json"))?;
            return (hex(&Sha256::digest(bytes)) == checksum).then_some(bytes.as_slice());
        }
        let version: u64 = stem.strip_suffix(".root")?.parse().ok()?;
        let bytes = self.files.get("root.json")?;
        let root: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        (root["signed"]["version"].as_u64() == Some(version)).then_some(bytes.as_slice())
    }

    /// The newest file of a role.
    ///
    /// # Panics
    /// If the role has none.
    #[must_use]
    pub fn role(&self, role: &str) -> &[u8] {
        &self.files[&format!("{role}.json")]
    }

    /// Puts a file under a name.
    pub fn insert(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.files.insert(name.to_owned(), bytes.into());
    }

    /// Takes a file away, and gives its bytes.
    pub fn remove(&mut self, name: &str) -> Option<Vec<u8>> {
        self.files.remove(name)
    }

    /// The name by which a role's present file is asked for: with its checksum.
    #[must_use]
    pub fn checksum_name(&self, role: &str) -> String {
        format!("{role}.{}.json", hex(&Sha256::digest(self.role(role))))
    }

    /// Serves other bytes wherever a role's present file is asked for, by its checksum too.
    pub fn substitute(&mut self, role: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        let by_checksum = self.checksum_name(role);
        self.insert(&by_checksum, bytes.clone());
        self.insert(&format!("{role}.json"), bytes);
    }

    /// All files with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// Writes the files into a folder, delegations into folders of their own.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (name, bytes) in self.iter() {
            let path = folder.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, bytes)?;
        }
        Ok(())
    }

    /// Reads what [`Files::write`] wrote. `case.json` and the folder `before` are no part of it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let mut files = Self::none();
        files.read_folder(folder, "")?;
        files.remove("case.json");
        Ok(files)
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if !entry.file_type()?.is_dir() {
                self.insert(&name, fs::read(entry.path())?);
            } else if name != "before" {
                self.read_folder(&entry.path(), &format!("{name}/"))?;
            }
        }
        Ok(())
    }
}
