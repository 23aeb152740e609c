//! A repository under construction.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use crate::canonical::canonical;
use crate::certificate::Cert;
use crate::files::Files;
use crate::key::Key;

type EditSigned = Arc<dyn Fn(&mut Value) + Send + Sync>;
type EditSignatures = Arc<dyn Fn(&mut Vec<Value>, &[u8]) + Send + Sync>;
type EditBytes = Arc<dyn Fn(Vec<u8>) -> Vec<u8> + Send + Sync>;

/// The keys of a role of the root, and how many of them must sign.
#[derive(Clone)]
pub struct RoleKeys {
    /// The keys.
    pub keys: Vec<Key>,
    /// How many must sign.
    pub threshold: u64,
}

/// A delegation as its parent lists it.
#[derive(Clone)]
pub struct Delegation {
    /// The full name, `targets/alice`.
    pub name: String,
    /// The keys.
    pub keys: Vec<Key>,
    /// How many must sign.
    pub threshold: u64,
    /// Prefixes of the tags that it may speak for.
    pub paths: Vec<String>,
}

impl Delegation {
    /// A delegation to one key, for all tags.
    #[must_use]
    pub fn new(name: &str, key: &Key) -> Self {
        Self { name: name.to_owned(), keys: vec![key.clone()], threshold: 1, paths: vec![String::new()] }
    }
}

/// One file: what it says, who signs it, and what is done to it before and after.
#[derive(Clone)]
pub struct FileSpec {
    /// Its version.
    pub version: u64,
    /// When it expires.
    pub expires: Timestamp,
    /// The keys that sign it.
    pub signers: Vec<Key>,
    /// Signed tags, of a targets file.
    pub targets: Map<String, Value>,
    /// Delegations, of a targets file.
    pub delegations: Vec<Delegation>,
    /// Whether it is made at all and listed in the snapshot.
    pub published: bool,
    edit_signed: Vec<EditSigned>,
    edit_signatures: Vec<EditSignatures>,
    edit_bytes: Vec<EditBytes>,
}

impl FileSpec {
    fn new(version: u64, expires: Timestamp, signer: Option<&Key>) -> Self {
        Self {
            version,
            expires,
            signers: signer.cloned().into_iter().collect(),
            targets: Map::new(),
            delegations: Vec::new(),
            published: true,
            edit_signed: Vec::new(),
            edit_signatures: Vec::new(),
            edit_bytes: Vec::new(),
        }
    }

    /// Changes what is signed, before it is signed.
    pub fn edit(&mut self, edit: impl Fn(&mut Value) + Send + Sync + 'static) -> &mut Self {
        self.edit_signed.push(Arc::new(edit));
        self
    }

    /// Changes the list of signatures; the bytes that they cover are handed over too.
    pub fn edit_signatures(&mut self, edit: impl Fn(&mut Vec<Value>, &[u8]) + Send + Sync + 'static) -> &mut Self {
        self.edit_signatures.push(Arc::new(edit));
        self
    }

    /// Changes the finished file. Files that name its hash are made afterwards, and so name the changed one.
    pub fn edit_bytes(&mut self, edit: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> &mut Self {
        self.edit_bytes.push(Arc::new(edit));
        self
    }

    /// Replaces text of the finished file, which must be there.
    pub fn replace(&mut self, from: impl Into<String>, to: impl Into<String>) -> &mut Self {
        let (from, to) = (from.into(), to.into());
        self.edit_bytes(move |bytes| {
            let text = String::from_utf8(bytes).expect("a file is UTF-8 unless a case makes it otherwise");
            assert!(text.contains(&from), "{from:?} is not in {text}");
            text.replacen(&from, &to, 1).into_bytes()
        })
    }

    fn finish(&self, mut signed: Value) -> Vec<u8> {
        for edit in &self.edit_signed {
            edit(&mut signed);
        }
        let message = canonical(&signed);
        let mut signatures: Vec<Value> = self.signers.iter().map(|key| signature_by(key, &message)).collect();
        for edit in &self.edit_signatures {
            edit(&mut signatures, &message);
        }
        let mut bytes = json!({"signed": signed, "signatures": signatures}).to_string().into_bytes();
        for edit in &self.edit_bytes {
            bytes = edit(bytes);
        }
        bytes
    }

    fn targets(&self) -> Value {
        let mut keys = Map::new();
        for key in self.delegations.iter().flat_map(|delegation| &delegation.keys) {
            keys.insert(key.id(), key.entry());
        }
        let roles: Vec<Value> = self
            .delegations
            .iter()
            .map(|delegation| {
                json!({
                    "keyids": delegation.keys.iter().map(Key::id).collect::<Vec<_>>(),
                    "name": delegation.name,
                    "paths": delegation.paths,
                    "threshold": delegation.threshold,
                })
            })
            .collect();
        json!({
            "_type": "Targets",
            "delegations": {"keys": keys, "roles": roles},
            "expires": self.expires.to_string(),
            "targets": self.targets,
            "version": self.version,
        })
    }
}

/// An entry of `signatures`: that key's signature over those bytes.
#[must_use]
pub(crate) fn signature_by(key: &Key, message: &[u8]) -> Value {
    let signature = key.sign(message);
    json!({"keyid": key.id(), "method": signature.method, "sig": STANDARD.encode(signature.bytes)})
}

/// What the value of a tag looks like: sha256 only, as `docker trust sign` records it.
#[must_use]
pub(crate) fn target(digest: &[u8], length: u64) -> Value {
    json!({"hashes": {"sha256": STANDARD.encode(digest)}, "length": length})
}

/// A repository under construction. A clone is another moment of it.
#[derive(Clone)]
pub struct Repo {
    gun: String,
    now: Timestamp,
    /// Keys and thresholds of `root`, `targets`, `snapshot` and `timestamp`, as the root lists them.
    pub roles: BTreeMap<String, RoleKeys>,
    files: BTreeMap<String, FileSpec>,
    /// Keys that are in the root although no role names them.
    pub spare_keys: Vec<Key>,
    old_roots: BTreeMap<u64, Vec<u8>>,
}

impl Repo {
    /// A repository with a key for each role and without tags. `now` is the moment that its expiries are reckoned from.
    #[must_use]
    pub fn new(gun: &str, now: Timestamp) -> Self {
        let root = Key::p256("root").certified(&Cert::new(gun, now));
        let days = |days: i64| now.checked_add((days * 24).hours()).expect("a time near the reference");
        let mut repo = Self {
            gun: gun.to_owned(),
            now,
            roles: BTreeMap::new(),
            files: BTreeMap::new(),
            spare_keys: Vec::new(),
            old_roots: BTreeMap::new(),
        };
        let keys = [
            ("root", root, 1, 3650),
            ("targets", Key::p256("targets"), 2, 1095),
            ("snapshot", Key::p256("snapshot"), 3, 1095),
            ("timestamp", Key::p256("timestamp"), 4, 14),
        ];
        for (role, key, version, life) in keys {
            repo.files.insert(role.to_owned(), FileSpec::new(version, days(life), Some(&key)));
            repo.roles.insert(role.to_owned(), RoleKeys { keys: vec![key], threshold: 1 });
        }
        repo
    }

    /// Its name.
    #[must_use]
    pub fn gun(&self) -> &str {
        &self.gun
    }

    /// The moment that its expiries are reckoned from.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// That many hours from its moment.
    ///
    /// # Panics
    /// If that is outside of jiff's years.
    #[must_use]
    pub fn hours(&self, hours: i64) -> Timestamp {
        self.now.checked_add(hours.hours()).expect("a time near the reference")
    }

    /// A role's file.
    ///
    /// # Panics
    /// If there is no such role yet.
    pub fn file(&mut self, role: &str) -> &mut FileSpec {
        self.files.get_mut(role).unwrap_or_else(|| panic!("no role {role}"))
    }

    /// The keys of one of the root's roles.
    ///
    /// # Panics
    /// If it is none of the four.
    pub fn keys(&mut self, role: &str) -> &mut RoleKeys {
        self.roles.get_mut(role).unwrap_or_else(|| panic!("no role {role}"))
    }

    /// Gives one of the root's roles another key, which then signs alone.
    pub fn set_key(&mut self, role: &str, key: &Key) -> &mut Self {
        *self.keys(role) = RoleKeys { keys: vec![key.clone()], threshold: 1 };
        self.file(role).signers = vec![key.clone()];
        self
    }

    /// Delegates from `parent` as told, and publishes a file of that role, signed by all of the delegation's keys.
    pub fn delegate(&mut self, parent: &str, delegation: Delegation) -> &mut Self {
        let mut file = FileSpec::new(1, self.hours(26_280), None);
        file.signers.clone_from(&delegation.keys);
        self.files.insert(delegation.name.clone(), file);
        self.file(parent).delegations.push(delegation);
        self
    }

    /// A delegation as its parent lists it.
    ///
    /// # Panics
    /// If the parent does not delegate to it.
    pub fn delegation(&mut self, name: &str) -> &mut Delegation {
        self.files
            .values_mut()
            .flat_map(|file| &mut file.delegations)
            .find(|delegation| delegation.name == name)
            .unwrap_or_else(|| panic!("no delegation {name}"))
    }

    /// What `docker trust signer add` does: the signer's own role, and its key in `targets/releases`.
    pub fn signer(&mut self, name: &str, key: &Key) -> &mut Self {
        if self.files.contains_key("targets/releases") {
            self.delegation("targets/releases").keys.push(key.clone());
        } else {
            self.delegate("targets", Delegation::new("targets/releases", key));
        }
        self.delegate("targets", Delegation::new(&format!("targets/{name}"), key))
    }

    /// What `docker trust sign` does: the tag goes into the signer's role and into `targets/releases`.
    pub fn sign(&mut self, signer: &str, tag: &str, digest: &[u8; 32]) -> &mut Self {
        self.tag(&format!("targets/{signer}"), tag, digest).tag("targets/releases", tag, digest)
    }

    /// Puts a tag into a role's file.
    pub fn tag(&mut self, role: &str, tag: &str, digest: &[u8; 32]) -> &mut Self {
        self.file(role).targets.insert(tag.to_owned(), target(digest, 523));
        self
    }

    /// Begins a new root: the present one is kept under its version, and its keys will sign the next one too.
    pub fn rotate_root(&mut self) -> &mut Self {
        let bytes = self.root_bytes();
        let former = self.keys("root").keys.clone();
        let root = self.file("root");
        let version = root.version;
        root.version += 1;
        root.signers = former;
        self.old_roots.insert(version, bytes);
        self
    }

    /// Gives the root another key after [`Repo::rotate_root`]; the former one still signs.
    pub fn set_root_key(&mut self, key: &Key) -> &mut Self {
        self.keys("root").keys = vec![key.clone()];
        self.file("root").signers.push(key.clone());
        self
    }

    /// A new moment in which every file but the root has the next version.
    pub fn advance(&mut self) -> &mut Self {
        for (_, file) in self.files.iter_mut().filter(|(role, _)| *role != "root") {
            file.version += 1;
        }
        self
    }

    fn root_bytes(&mut self) -> Vec<u8> {
        let mut keys = Map::new();
        for key in self.roles.values().flat_map(|role| &role.keys).chain(&self.spare_keys) {
            keys.insert(key.id(), key.entry());
        }
        let mut roles = Map::new();
        for (role, of_role) in &self.roles {
            let ids: Vec<String> = of_role.keys.iter().map(Key::id).collect();
            roles.insert(role.clone(), json!({"keyids": ids, "threshold": of_role.threshold}));
        }
        let root = self.file("root");
        root.finish(json!({
            "_type": "Root",
            "consistent_snapshot": false,
            "expires": root.expires.to_string(),
            "keys": keys,
            "roles": roles,
            "version": root.version,
        }))
    }

    /// Signs everything.
    pub fn build(&mut self) -> Files {
        let mut files = Files::none();
        for (version, bytes) in &self.old_roots {
            files.insert(&format!("{version}.root.json"), bytes.clone());
        }
        let mut meta = Map::new();
        let root = self.root_bytes();
        meta.insert("root".to_owned(), meta_of(&root));
        files.insert("root.json", root);
        for (role, file) in &self.files {
            if file.published && (role == "targets" || role.starts_with("targets/")) {
                let bytes = file.finish(file.targets());
                meta.insert(role.clone(), meta_of(&bytes));
                files.insert(&format!("{role}.json"), bytes);
            }
        }
        let snapshot = self.file("snapshot");
        let snapshot = snapshot.finish(json!({
            "_type": "Snapshot", "expires": snapshot.expires.to_string(), "meta": meta, "version": snapshot.version,
        }));
        let timestamp = self.file("timestamp");
        let timestamp = timestamp.finish(json!({
            "_type": "Timestamp",
            "expires": timestamp.expires.to_string(),
            "meta": {"snapshot": meta_of(&snapshot)},
            "version": timestamp.version,
        }));
        files.insert("snapshot.json", snapshot);
        files.insert("timestamp.json", timestamp);
        files
    }
}

/// What a snapshot or timestamp says of a file.
fn meta_of(bytes: &[u8]) -> Value {
    json!({
        "hashes": {
            "sha256": STANDARD.encode(Sha256::digest(bytes)),
            "sha512": STANDARD.encode(Sha512::digest(bytes)),
        },
        "length": bytes.len(),
    })
}
