//! Root, timestamp, snapshot and targets as they stand in the files (`tuf/data` of Notary).
//!
//! `docs/notary-v1.md#documents` has the form.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_image::Sha256;
use countersign_json::{Object, Value};
use jiff::Timestamp as Time;

use crate::error::Error;
use crate::key::{KeyId, PublicKey};
use crate::role::RoleName;

/// How many delegations one repository may have, nested ones included. Real ones have a handful; 500 must work.
pub const MAX_DELEGATIONS: usize = 1024;

/// What the files of all roles have in common.
pub trait Metadata: Sized {
    /// What `_type` must say.
    const TYPE: &'static str;

    /// The version, at least 1.
    fn version(&self) -> u64;

    /// When it stops being valid; `None` where the file names no time, which counts as expired.
    fn expires(&self) -> Option<Time>;

    #[doc(hidden)]
    fn read(role: &RoleName, signed: &Value<'_>) -> Result<Self, Error>;
}

/// The keys of a role, and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleKeys {
    /// The keys.
    pub keys: Vec<Arc<PublicKey>>,
    /// How many must sign, at least 1.
    pub threshold: u64,
}

/// `root.json`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    version: u64,
    expires: Option<Time>,
    /// The keys of the root itself.
    pub root: RoleKeys,
    /// The keys of `targets.json`.
    pub targets: RoleKeys,
    /// The keys of `snapshot.json`.
    pub snapshot: RoleKeys,
    /// The keys of `timestamp.json`.
    pub timestamp: RoleKeys,
}

/// What one file says of another: enough to know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMeta {
    /// The most bytes it may have.
    pub length: u64,
    /// Its sha256, of whatever length it was given.
    pub sha256: Vec<u8>,
    /// Its sha512, where given.
    pub sha512: Option<Vec<u8>>,
}

/// `timestamp.json`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    version: u64,
    expires: Option<Time>,
    /// The snapshot of this moment.
    pub snapshot: FileMeta,
}

/// `snapshot.json`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    version: u64,
    expires: Option<Time>,
    /// The root of this moment.
    pub root: FileMeta,
    /// The top-level targets of this moment.
    pub targets: FileMeta,
    /// All published delegations, those that nobody delegates to any longer among them.
    pub delegations: BTreeMap<String, FileMeta>,
}

/// `targets.json`, and the file of each delegation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    version: u64,
    expires: Option<Time>,
    /// The signed tags.
    pub targets: BTreeMap<String, Target>,
    /// Roles to which this one delegates, in the order of the file, each once.
    pub delegations: Vec<Delegation>,
}

/// A signed tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The length of the manifest in bytes.
    pub length: u64,
    /// The sha256 of the manifest; what is wrong with it otherwise.
    pub sha256: Result<Sha256, &'static str>,
}

/// A role to which `targets` or another delegation delegates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// Its full name.
    pub name: RoleName,
    /// Its keys and threshold.
    pub keys: RoleKeys,
    /// Prefixes of the tags that it may speak for; none means no tag at all.
    pub paths: Vec<String>,
}

macro_rules! metadata {
    ($type:ident, $name:literal, $read:ident) => {
        impl Metadata for $type {
            const TYPE: &'static str = $name;

            fn version(&self) -> u64 {
                self.version
            }

            fn expires(&self) -> Option<Time> {
                self.expires
            }

            fn read(role: &RoleName, signed: &Value<'_>) -> Result<Self, Error> {
                $read(role, signed)
            }
        }
    };
}

metadata!(Root, "Root", read_root);
metadata!(Timestamp, "Timestamp", read_timestamp);
metadata!(Snapshot, "Snapshot", read_snapshot);
metadata!(Targets, "Targets", read_targets);

/// Members of one object of a file, with its path for messages.
pub(crate) struct Members<'r, 'v> {
    role: &'r RoleName,
    path: String,
    object: &'r Object<'v>,
}

impl<'r, 'v> Members<'r, 'v> {
    /// Takes a value that must be an object whose members are read by name. A member that differs from a `known` one only
    /// in case is refused: Go would take one for the other.
    pub(crate) fn of(
        role: &'r RoleName,
        path: &str,
        value: &'r Value<'v>,
        known: &[&'static str],
    ) -> Result<Self, Error> {
        let object = as_object(role, path, value)?;
        for (found, _) in object.iter() {
            if let Some(expected) = known.iter().find(|name| **name != found && folds_to(found, name)) {
                return Err(Error::CaseVariantMember { role: role.clone(), found: found.to_owned(), expected });
            }
        }
        Ok(Self { role, path: path.to_owned(), object })
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A member that may be absent; `null` counts as absent, as in Go.
    pub(crate) fn optional(&self, name: &str) -> Option<&'r Value<'v>> {
        self.object.get(name).filter(|value| **value != Value::Null)
    }

    pub(crate) fn required(&self, name: &str) -> Result<&'r Value<'v>, Error> {
        self.optional(name).ok_or_else(|| Error::MissingMember { role: self.role.clone(), member: self.path_of(name) })
    }

    fn bad(&self, name: &str, expected: &'static str) -> Error {
        Error::BadMember { role: self.role.clone(), member: self.path_of(name), expected }
    }

    pub(crate) fn text(&self, name: &str) -> Result<&'r str, Error> {
        match self.required(name)? {
            Value::String(text) => Ok(text),
            _ => Err(self.bad(name, "a string")),
        }
    }

    /// Standard padded base64; a URL-safe alphabet is refused, as Go does.
    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        STANDARD.decode(self.text(name)?).map_err(|_| self.bad(name, "base64"))
    }

    fn whole_number(&self, name: &str) -> Result<u64, Error> {
        match self.required(name)? {
            Value::Number(number) => number.parse().map_err(|_| self.bad(name, "a whole number from 0 up")),
            _ => Err(self.bad(name, "a whole number from 0 up")),
        }
    }

    pub(crate) fn list(&self, name: &str) -> Result<&'r [Value<'v>], Error> {
        match self.optional(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(self.bad(name, "a list")),
        }
    }

    /// A list of strings; absent is empty.
    fn texts(&self, name: &str) -> Result<Vec<&'r str>, Error> {
        self.list(name)?
            .iter()
            .map(|item| match item {
                Value::String(text) => Ok(text.as_ref()),
                _ => Err(self.bad(name, "a list of strings")),
            })
            .collect()
    }

    /// An object whose member names are data (tags, key ids, roles); absent is empty.
    fn map(&self, name: &str) -> Result<impl Iterator<Item = (&'r str, &'r Value<'v>)>, Error> {
        let object = match self.optional(name) {
            None => None,
            Some(value) => Some(as_object(self.role, &self.path_of(name), value)?),
        };
        Ok(object.into_iter().flat_map(Object::iter))
    }
}

fn as_object<'r, 'v>(role: &RoleName, path: &str, value: &'r Value<'v>) -> Result<&'r Object<'v>, Error> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(Error::BadMember { role: role.clone(), member: path.to_owned(), expected: "an object" }),
    }
}

/// Whether Go's `encoding/json` would take one name for the other: ASCII letters without case, and the two signs that
/// Unicode folds to ASCII letters (U+017F to `s`, U+212A to `k`).
fn folds_to(found: &str, known: &str) -> bool {
    let fold = |character: char| match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    found.chars().map(fold).eq(known.chars().map(fold))
}

/// `_type`, `version` and `expires`.
fn read_common(members: &Members<'_, '_>, expected: &'static str) -> Result<(u64, Option<Time>), Error> {
    let role = members.role;
    let found = members.text("_type")?;
    if found != expected {
        return Err(Error::WrongType { role: role.clone(), found: found.chars().take(64).collect(), expected });
    }
    let version = members.required("version")?;
    let number = match version {
        Value::Number(number) => number.parse().ok().filter(|number: &u64| (1..=i64::MAX as u64).contains(number)),
        _ => None,
    };
    let number = number.ok_or_else(|| Error::BadVersion { role: role.clone(), found: version.to_string() })?;
    let expires = match members.optional("expires") {
        None => None,
        Some(value) => {
            Some(read_time(value).ok_or_else(|| Error::BadTime { role: role.clone(), found: value.to_string() })?)
        }
    };
    Ok((number, expires))
}

/// RFC 3339 with a zone, exactly; jiff alone would take much more.
fn read_time(value: &Value<'_>) -> Option<Time> {
    let Value::String(text) = value else {
        return None;
    };
    let bytes = text.as_bytes();
    let (head, tail) = bytes.split_at_checked(19)?;
    let head_good = head.iter().zip(b"0000-00-00T00:00:00").all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    });
    // jiff reads a leap second as the second before it; Go refuses one.
    if !head_good || &head[17..] > b"59" {
        return None;
    }
    let zone = match tail.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 || digits > 9 {
                return None;
            }
            &fraction[digits..]
        }
        None => tail,
    };
    let zone_good = match zone {
        b"Z" => true,
        [b'+' | b'-', hours @ .., b':', minutes1, minutes2] => {
            matches!(hours, [b'0'..=b'1', b'0'..=b'9'] | [b'2', b'0'..=b'3'])
                && matches!((minutes1, minutes2), (b'0'..=b'5', b'0'..=b'9'))
        }
        _ => false,
    };
    if !zone_good {
        return None;
    }
    // jiff's times end a day before the year 9999 does, to leave room for zones; "never expires" is often written so.
    let at_the_end = || head.starts_with(b"9999-12-3") && text[..19].parse::<jiff::civil::DateTime>().is_ok();
    text.parse().ok().or_else(|| at_the_end().then_some(Time::MAX))
}

/// The map of keys, each checked to stand under its own id.
fn read_keys(members: &Members<'_, '_>) -> Result<BTreeMap<KeyId, Arc<PublicKey>>, Error> {
    let role = members.role;
    let mut keys = BTreeMap::new();
    for (listed, value) in members.map("keys")? {
        let entry = Members::of(role, &members.path_of("keys"), value, &["keytype", "keyval"])?;
        let keyval = Members::of(role, "keyval", entry.required("keyval")?, &["private", "public"])?;
        let key = PublicKey::new(entry.text("keytype")?, &keyval.bytes("public")?);
        if KeyId::from_hex(listed) != Some(key.id()) {
            return Err(Error::KeyIdMismatch {
                role: role.clone(),
                listed: listed.chars().take(80).collect(),
                actual: key.id(),
            });
        }
        keys.insert(key.id(), Arc::new(key));
    }
    Ok(keys)
}

/// `keyids` and `threshold` of a role. An id listed twice is one key.
fn read_role_keys(
    members: &Members<'_, '_>,
    of: &str,
    keys: &BTreeMap<KeyId, Arc<PublicKey>>,
) -> Result<RoleKeys, Error> {
    let role = members.role;
    let threshold = members.required("threshold")?;
    let number = match threshold {
        Value::Number(number) => number.parse().ok().filter(|number: &u64| (1..=i64::MAX as u64).contains(number)),
        _ => None,
    };
    let bad = || Error::BadThreshold { role: role.clone(), of: of.to_owned(), found: threshold.to_string() };
    let mut of_role: BTreeMap<KeyId, Arc<PublicKey>> = BTreeMap::new();
    for listed in members.texts("keyids")? {
        let key = KeyId::from_hex(listed).and_then(|id| keys.get(&id)).ok_or_else(|| Error::UnknownKey {
            role: role.clone(),
            of: of.to_owned(),
            key_id: listed.chars().take(80).collect(),
        })?;
        of_role.insert(key.id(), Arc::clone(key));
    }
    Ok(RoleKeys { keys: of_role.into_values().collect(), threshold: number.ok_or_else(bad)? })
}

fn read_root(role: &RoleName, signed: &Value<'_>) -> Result<Root, Error> {
    let members =
        Members::of(role, "", signed, &["_type", "version", "expires", "keys", "roles", "consistent_snapshot"])?;
    let (version, expires) = read_common(&members, Root::TYPE)?;
    let keys = read_keys(&members)?;
    let roles = Members::of(role, "roles", members.required("roles")?, &["root", "targets", "snapshot", "timestamp"])?;
    let role_keys = |name: &'static str| {
        let path = format!("roles.{name}");
        read_role_keys(&Members::of(role, &path, roles.required(name)?, &["keyids", "threshold"])?, name, &keys)
    };
    Ok(Root {
        version,
        expires,
        root: role_keys("root")?,
        targets: role_keys("targets")?,
        snapshot: role_keys("snapshot")?,
        timestamp: role_keys("timestamp")?,
    })
}

fn read_file_meta(role: &RoleName, of: &str, value: &Value<'_>) -> Result<FileMeta, Error> {
    let members = Members::of(role, &format!("meta.{of}"), value, &["hashes", "length"])?;
    let length = members.whole_number("length")?;
    let lacking = || Error::NoSha256 { role: RoleName::parse(of).unwrap_or_else(|| role.clone()), by: role.clone() };
    let hashes = members.optional("hashes").ok_or_else(lacking)?;
    let hashes = Members::of(role, &format!("meta.{of}.hashes"), hashes, &["sha256", "sha512"])?;
    hashes.optional("sha256").ok_or_else(lacking)?;
    Ok(FileMeta {
        length,
        sha256: hashes.bytes("sha256")?,
        sha512: hashes.optional("sha512").map(|_| hashes.bytes("sha512")).transpose()?,
    })
}

fn read_timestamp(role: &RoleName, signed: &Value<'_>) -> Result<Timestamp, Error> {
    let members = Members::of(role, "", signed, &["_type", "version", "expires", "meta"])?;
    let (version, expires) = read_common(&members, Timestamp::TYPE)?;
    let meta = Members::of(role, "meta", members.required("meta")?, &["snapshot"])?;
    Ok(Timestamp { version, expires, snapshot: read_file_meta(role, "snapshot", meta.required("snapshot")?)? })
}

fn read_snapshot(role: &RoleName, signed: &Value<'_>) -> Result<Snapshot, Error> {
    let members = Members::of(role, "", signed, &["_type", "version", "expires", "meta"])?;
    let (version, expires) = read_common(&members, Snapshot::TYPE)?;
    let meta = Members::of(role, "meta", members.required("meta")?, &["root", "targets"])?;
    let of_file = |name: &str, role_name: RoleName| match meta.optional(name) {
        None => Err(Error::NotInSnapshot { role: role_name }),
        Some(value) => read_file_meta(role, name, value),
    };
    let mut delegations = BTreeMap::new();
    for (name, value) in members.map("meta")? {
        // Go keeps entries for anything; only those that can be a delegation's are ever looked up.
        if name.starts_with("targets/") {
            delegations.insert(name.to_owned(), read_file_meta(role, name, value)?);
        }
    }
    Ok(Snapshot {
        version,
        expires,
        root: of_file("root", RoleName::root())?,
        targets: of_file("targets", RoleName::targets())?,
        delegations,
    })
}

fn read_targets(role: &RoleName, signed: &Value<'_>) -> Result<Targets, Error> {
    let members = Members::of(role, "", signed, &["_type", "version", "expires", "targets", "delegations"])?;
    let (version, expires) = read_common(&members, Targets::TYPE)?;
    let mut targets = BTreeMap::new();
    for (tag, value) in members.map("targets")? {
        let members = Members::of(role, &format!("targets.{tag}"), value, &["hashes", "length", "custom"])?;
        targets.insert(tag.to_owned(), read_target(&members)?);
    }
    let delegations = match members.optional("delegations") {
        None => Vec::new(),
        Some(value) => read_delegations(&Members::of(role, "delegations", value, &["keys", "roles"])?)?,
    };
    Ok(Targets { version, expires, targets, delegations })
}

fn read_target(members: &Members<'_, '_>) -> Result<Target, Error> {
    let length = members.whole_number("length")?;
    let sha256 = match members.optional("hashes") {
        None => Err("no hashes"),
        Some(value) => {
            let hashes = Members::of(members.role, "hashes", value, &["sha256", "sha512"])?;
            if hashes.optional("sha256").is_none() {
                Err("no sha256")
            } else {
                let bytes = hashes.bytes("sha256")?.try_into();
                bytes.map(Sha256::from_bytes).map_err(|_| "a sha256 that is not 32 bytes long")
            }
        }
    };
    let sha256 = if length == 0 { Err("a length of 0 bytes, which no manifest has") } else { sha256 };
    Ok(Target { length, sha256 })
}

fn read_delegations(members: &Members<'_, '_>) -> Result<Vec<Delegation>, Error> {
    let role = members.role;
    let keys = read_keys(members)?;
    let mut delegations: Vec<Delegation> = Vec::new();
    for value in members.list("roles")? {
        let entry = Members::of(role, "delegations.roles", value, &["name", "keyids", "threshold", "paths"])?;
        let found = entry.text("name")?;
        let name = role
            .child(found)
            .ok_or_else(|| Error::BadRoleName { role: role.clone(), found: found.chars().take(300).collect() })?;
        let keys = read_role_keys(&entry, found, &keys)?;
        let paths = entry.texts("paths")?.into_iter().map(str::to_owned).collect();
        if delegations.len() == MAX_DELEGATIONS {
            return Err(Error::TooManyDelegations { role: role.clone(), limit: MAX_DELEGATIONS });
        }
        delegations.push(Delegation { name, keys, paths });
    }
    // Two entries of one name may differ in keys and paths, and readers in which of them they take.
    let mut seen = std::collections::BTreeSet::new();
    match delegations.iter().find(|delegation| !seen.insert(&delegation.name)) {
        Some(twice) => Err(Error::DuplicateDelegation { role: role.clone(), delegation: twice.name.clone() }),
        None => Ok(delegations),
    }
}
