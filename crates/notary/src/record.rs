//! The record of a memory: what a store keeps of one repository, and the texts that it is written as.
//!
//! What is stored outlives releases. The first text is as the first release wrote it, and each release reads it. What came later stands in a
//! second text, which a release that does not know it drops when it writes; then what the first one says counts, which is never less.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_image::Sha256;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::key::KeyId;
use crate::memory::{FloorKey, Floors, Memory, Seen};
use crate::role::RoleName;
use crate::root::{RootKey, RootRecord};

/// What is remembered, and when an administrator last accepted a change of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryRecord {
    /// What was seen.
    pub memory: Memory,
    /// When `countersign trust accept` wrote it, as RFC 3339 text; what was seen before then counts no more.
    pub accepted: Option<String>,
    /// The namespace for which it was written last, and for whose share it counts.
    pub namespace: Option<String>,
    /// The namespace whose policy pins the certificate of the trust server, if it is for that one alone.
    pub pinned_in: Option<String>,
    /// The identity that the store gave the record when it was made, if it gives any. It is no part of the texts.
    pub uid: Option<String>,
}

/// What is written of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// What each release reads: JSON.
    pub text: Vec<u8>,
    /// What later ones add to it, if there is anything: JSON.
    pub more: Option<Vec<u8>>,
}

/// Why a record cannot be read or written down.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Not the JSON of a record.
    #[error("{0}")]
    Json(String),
    /// A sound record, but not the one that was looked for.
    #[error("it is about another repository")]
    OtherRepository,
    /// A value that cannot be what its place says.
    #[error("a key id, hash or role in it is malformed")]
    Malformed,
}

impl From<serde_json::Error> for RecordError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

impl MemoryRecord {
    /// The JSON texts of what is remembered of a repository on a server.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn encode(&self, server: &str, gun: &str) -> Result<Encoded, RecordError> {
        let text = serde_json::to_vec(&Text::of(server, gun, self))?;
        let more = More::of(self);
        let more = if more == More::default() { None } else { Some(serde_json::to_vec(&more)?) };
        Ok(Encoded { text, more })
    }

    /// Reads such texts back.
    ///
    /// # Errors
    /// Texts that are no record, or speak of another repository.
    pub fn decode(server: &str, gun: &str, text: &[u8], more: Option<&[u8]>) -> Result<Self, RecordError> {
        let (found_server, found_gun, record) = Self::decode_any(text, more)?;
        if found_server != server || found_gun != gun {
            return Err(RecordError::OtherRepository);
        }
        Ok(record)
    }

    /// Reads such texts back, of whichever repository they speak: its server, its name, and what is remembered of it.
    ///
    /// # Errors
    /// Texts that are no record.
    pub fn decode_any(text: &[u8], more: Option<&[u8]>) -> Result<(String, String, Self), RecordError> {
        let text: Text = serde_json::from_slice(text)?;
        let more: More = more.map(serde_json::from_slice).transpose()?.unwrap_or_default();
        let (server, gun) = (text.server.clone(), text.gun.clone());
        let record = text.recall().and_then(|record| more.add_to(record));
        Ok((server, gun, record.ok_or(RecordError::Malformed)?))
    }
}

/// The JSON form of the first text, wherever it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    server: String,
    gun: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepted: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    root: String,
    lineage: Vec<RootText>,
    seen: BTreeMap<String, SeenText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootText {
    version: u64,
    threshold: u64,
    /// Of each key its id and its canonical id.
    keys: Vec<[String; 2]>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeenText {
    version: u64,
    content: String,
}

/// The JSON form of the second text. Members that are not known are for later releases.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct More {
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned_in: Option<String>,
    /// Of each delegated role the versions that were seen, with the keys that it had then.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    keys: BTreeMap<String, Vec<WithKeys>>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WithKeys {
    /// What the first text says, if it does not stand there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// Beginnings of the ids of the keys themselves (`PublicKey::material_id`); none where it is not known which keys the role had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<String>,
}

impl More {
    fn of(record: &MemoryRecord) -> Self {
        let with_keys = |floors: &Floors| {
            let highest = floors.highest();
            let mut by_seen: BTreeMap<(bool, u64, String), Vec<String>> = BTreeMap::new();
            for (key, seen) in floors.iter() {
                let of_seen = by_seen.entry((key.is_some(), seen.version, seen.content.hex())).or_default();
                of_seen.extend(key.map(FloorKey::hex));
            }
            let text = |((_, version, content), keys): ((bool, u64, String), Vec<String>)| {
                // What the first text says is not said again.
                let is_said = highest.is_some_and(|seen| seen.version == version && seen.content.hex() == content);
                let said = (!is_said).then_some((version, content));
                WithKeys { version: said.as_ref().map(|said| said.0), content: said.map(|said| said.1), keys }
            };
            by_seen.into_iter().map(text).collect()
        };
        let delegated = record.memory.seen.iter().filter(|(_, floors)| floors.have_keys());
        let keys = delegated.map(|(role, floors)| (role.to_string(), with_keys(floors))).collect();
        Self { pinned_in: record.pinned_in.clone(), keys }
    }

    fn add_to(self, mut record: MemoryRecord) -> Option<MemoryRecord> {
        for (role, texts) in self.keys {
            let role = RoleName::parse(&role)?;
            // What the first text says of a role that stands here is one of these.
            let said = record.memory.seen.get(&role)?.highest()?;
            let mut all = Vec::new();
            for text in texts {
                let seen = match (text.version, text.content) {
                    (Some(version), Some(content)) => Seen { version, content: Sha256::from_hex(&content)? },
                    (None, None) => said,
                    _ => return None,
                };
                if text.keys.is_empty() {
                    all.push((None, seen));
                }
                for key in text.keys {
                    all.push((Some(FloorKey::from_hex(&key)?), seen));
                }
            }
            record.memory.seen.insert(role, Floors::of_each(all));
        }
        record.pinned_in = self.pinned_in;
        Some(record)
    }
}

impl Text {
    fn of(server: &str, gun: &str, record: &MemoryRecord) -> Self {
        let memory = &record.memory;
        let root = |root: &RootRecord| RootText {
            version: root.version,
            threshold: root.threshold,
            keys: root.keys.iter().map(|key| [key.id.to_string(), key.canonical_id.to_string()]).collect(),
        };
        let seen = |(role, floors): (&RoleName, &Floors)| {
            let seen = floors.highest()?;
            Some((role.to_string(), SeenText { version: seen.version, content: seen.content.hex() }))
        };
        Self {
            server: server.to_owned(),
            gun: gun.to_owned(),
            accepted: record.accepted.clone(),
            namespace: record.namespace.clone(),
            root: STANDARD.encode(memory.root.as_deref().unwrap_or_default()),
            lineage: memory.lineage.iter().map(root).collect(),
            seen: memory.seen.iter().filter_map(seen).collect(),
        }
    }

    fn recall(self) -> Option<MemoryRecord> {
        let root: Arc<[u8]> = STANDARD.decode(self.root).ok().filter(|root| !root.is_empty())?.into();
        let key = |[id, canonical]: [String; 2]| {
            Some(RootKey { id: KeyId::from_hex(&id)?, canonical_id: KeyId::from_hex(&canonical)? })
        };
        let lineage = |root: RootText| {
            let keys = root.keys.into_iter().map(key).collect::<Option<_>>()?;
            Some(RootRecord { version: root.version, threshold: root.threshold, keys })
        };
        let seen = |(role, seen): (String, SeenText)| {
            let seen = Seen { version: seen.version, content: Sha256::from_hex(&seen.content)? };
            Some((RoleName::parse(&role)?, Floors::from(seen)))
        };
        let memory = Memory {
            root: Some(root),
            lineage: self.lineage.into_iter().map(lineage).collect::<Option<_>>()?,
            seen: self.seen.into_iter().map(seen).collect::<Option<_>>()?,
        };
        Some(MemoryRecord { memory, accepted: self.accepted, namespace: self.namespace, ..MemoryRecord::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "https://notary.example.com:4443";
    const GUN: &str = "registry.example.com/app";

    fn record() -> MemoryRecord {
        let key = |digit: &str| KeyId::from_hex(&digit.repeat(64)).unwrap();
        let keys = vec![RootKey { id: key("a"), canonical_id: key("b") }];
        let seen = |version| Seen { version, content: Sha256::from_bytes([0xcc; 32]) };
        let memory = Memory {
            root: Some(b"{\"signed\":{}}".as_slice().into()),
            lineage: vec![RootRecord { version: 1, threshold: 1, keys }],
            seen: [
                (RoleName::timestamp(), seen(7).into()),
                (RoleName::parse("targets/releases").unwrap(), seen(3).into()),
            ]
            .into(),
        };
        MemoryRecord { memory, ..MemoryRecord::default() }
    }

    /// A text as it stands in the stores of installations, with these members in it.
    fn text(more: &str) -> String {
        let (a, b, c) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
        format!(
            r#"{{"server":"https://notary.example.com:4443","gun":"registry.example.com/app",{more}"root":"eyJzaWduZWQiOnt9fQ==","lineage":[{{"version":1,"threshold":1,"keys":[["{a}","{b}"]]}}],"seen":{{"targets/releases":{{"version":3,"content":"{c}"}},"timestamp":{{"version":7,"content":"{c}"}}}}}}"#
        )
    }

    #[test]
    fn stored_texts_are_read_and_written_as_ever() {
        let plain = record();
        let full = MemoryRecord {
            accepted: Some("2026-01-01T00:00:00Z".to_owned()),
            namespace: Some("team".to_owned()),
            ..record()
        };
        for (record, more) in [(plain, ""), (full, r#""accepted":"2026-01-01T00:00:00Z","namespace":"team","#)] {
            let text = text(more);
            let written = record.encode(SERVER, GUN).unwrap();
            assert_eq!((String::from_utf8(written.text).unwrap(), written.more), (text.clone(), None));
            assert_eq!(MemoryRecord::decode(SERVER, GUN, text.as_bytes(), None), Ok(record.clone()));
            let read = MemoryRecord::decode_any(text.as_bytes(), None);
            assert_eq!(read, Ok((SERVER.to_owned(), GUN.to_owned(), record)));
        }
    }

    #[test]
    fn what_is_no_record_of_the_repository_is_refused() {
        let decode = |text: &str| MemoryRecord::decode(SERVER, GUN, text.as_bytes(), None).unwrap_err();
        let sound = text("");
        assert!(MemoryRecord::decode(SERVER, "registry.example.com/other", sound.as_bytes(), None).is_err());
        assert_eq!(decode(&sound.replace("/app", "/other")), RecordError::OtherRepository);
        assert_eq!(decode(&sound.replace("notary.", "other.")), RecordError::OtherRepository);
        let broken = [
            sound.replace("eyJzaWduZWQiOnt9fQ==", ""),
            sound.replace("eyJz", "!!!!"),
            sound.replace("aaaa", "xxxx"),
            sound.replace("cccc", "xxxx"),
            sound.replace("targets/releases", "Targets"),
        ];
        for text in broken {
            assert_eq!(decode(&text), RecordError::Malformed, "{text}");
            assert_eq!(MemoryRecord::decode_any(text.as_bytes(), None), Err(RecordError::Malformed), "{text}");
        }
        for text in ["", "{", "[]", "{}", &text(r#""later":1,"#), &sound.replace("\"version\":7", "\"version\":-7")] {
            assert!(matches!(decode(text), RecordError::Json(_)), "{text}");
        }
    }

    /// What later releases add stands in a text of its own; the first text says of each role the highest version, for those before.
    #[test]
    fn keys_stand_in_a_text_of_their_own() {
        let key = |digit: &str| FloorKey::from_hex(&digit.repeat(16)).unwrap();
        let seen = |version, content| Seen { version, content: Sha256::from_bytes([content; 32]) };
        let mut record = MemoryRecord { pinned_in: Some("team".to_owned()), ..record() };
        let releases = RoleName::parse("targets/releases").unwrap();
        let each = [(None, seen(4, 1)), (Some(key("d")), seen(3, 0xcc)), (Some(key("e")), seen(2, 2))];
        let each = each.into_iter().chain([(Some(key("f")), seen(2, 2))]);
        record.memory.seen.insert(releases, Floors::of_each(each));
        let written = record.encode(SERVER, GUN).unwrap();
        let first = text("").replace(
            &format!(r#""version":3,"content":"{}""#, "c".repeat(64)),
            &format!(r#""version":4,"content":"{}""#, "01".repeat(32)),
        );
        assert_eq!(String::from_utf8(written.text.clone()).unwrap(), first);
        let (two, old) = ("02".repeat(32), "c".repeat(64));
        let (d, e, f) = ("d".repeat(16), "e".repeat(16), "f".repeat(16));
        let more = format!(
            r#"{{"pinnedIn":"team","keys":{{"targets/releases":[{{}},{{"version":2,"content":"{two}","keys":["{e}","{f}"]}},{{"version":3,"content":"{old}","keys":["{d}"]}}]}}}}"#
        );
        assert_eq!(String::from_utf8(written.more.unwrap()).unwrap(), more);
        let read = |more: &str| MemoryRecord::decode(SERVER, GUN, &written.text, Some(more.as_bytes()));
        assert_eq!(read(&more), Ok(record.clone()));
        assert_eq!(read(&more.replace(r#"{"pinnedIn""#, r#"{"later":1,"pinnedIn""#)), Ok(record));
        // Without it, the highest version counts whichever keys there are.
        let without = MemoryRecord::decode(SERVER, GUN, &written.text, None).unwrap();
        assert_eq!(without.memory.seen[&RoleName::releases()], Floors::from(seen(4, 1)));
        assert_eq!(without.pinned_in, None);
        let half = more.replace(r#""version":3,"#, "");
        for (broken, expected) in [
            (more.replace("dddd", "xxxx"), RecordError::Malformed),
            (more.replace("0202", "xxxx"), RecordError::Malformed),
            (more.replace("targets/releases", "Targets"), RecordError::Malformed),
            (half, RecordError::Malformed),
            (more.replace("targets/releases", "targets/other"), RecordError::Malformed),
            (more.replace("dddddddddddddddd", "dd"), RecordError::Malformed),
        ] {
            assert_eq!(read(&broken), Err(expected), "{broken}");
        }
        assert!(matches!(read("{"), Err(RecordError::Json(_))));
    }
}
