//! The record of a memory: what a store keeps of one repository, and the text that it is written as.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_image::Sha256;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::key::KeyId;
use crate::memory::{Memory, Seen};
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
    /// The identity that the store gave the record when it was made, if it gives any. It is no part of the text.
    pub uid: Option<String>,
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
    /// The JSON text of what is remembered of a repository on a server.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn encode(&self, server: &str, gun: &str) -> Result<Vec<u8>, RecordError> {
        Ok(serde_json::to_vec(&Text::of(server, gun, self))?)
    }

    /// Reads such a text back.
    ///
    /// # Errors
    /// A text that is no record, or speaks of another repository.
    pub fn decode(server: &str, gun: &str, text: &[u8]) -> Result<Self, RecordError> {
        let text: Text = serde_json::from_slice(text)?;
        if text.server != server || text.gun != gun {
            return Err(RecordError::OtherRepository);
        }
        text.recall().ok_or(RecordError::Malformed)
    }

    /// Reads such a text back, of whichever repository it speaks: its server, its name, and what is remembered of it.
    ///
    /// # Errors
    /// A text that is no record.
    pub fn decode_any(text: &[u8]) -> Result<(String, String, Self), RecordError> {
        let text: Text = serde_json::from_slice(text)?;
        let (server, gun) = (text.server.clone(), text.gun.clone());
        Ok((server, gun, text.recall().ok_or(RecordError::Malformed)?))
    }
}

/// The JSON form, wherever it is kept. What is stored outlives releases, so its members keep their meaning.
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

impl Text {
    fn of(server: &str, gun: &str, record: &MemoryRecord) -> Self {
        let memory = &record.memory;
        let root = |root: &RootRecord| RootText {
            version: root.version,
            threshold: root.threshold,
            keys: root.keys.iter().map(|key| [key.id.to_string(), key.canonical_id.to_string()]).collect(),
        };
        let seen = |(role, seen): (&RoleName, &Seen)| {
            (role.to_string(), SeenText { version: seen.version, content: seen.content.hex() })
        };
        Self {
            server: server.to_owned(),
            gun: gun.to_owned(),
            accepted: record.accepted.clone(),
            namespace: record.namespace.clone(),
            root: STANDARD.encode(memory.root.as_deref().unwrap_or_default()),
            lineage: memory.lineage.iter().map(root).collect(),
            seen: memory.seen.iter().map(seen).collect(),
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
            Some((RoleName::parse(&role)?, Seen { version: seen.version, content: Sha256::from_hex(&seen.content)? }))
        };
        let memory = Memory {
            root: Some(root),
            lineage: self.lineage.into_iter().map(lineage).collect::<Option<_>>()?,
            seen: self.seen.into_iter().map(seen).collect::<Option<_>>()?,
        };
        Some(MemoryRecord { memory, accepted: self.accepted, namespace: self.namespace, uid: None })
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
            seen: [(RoleName::timestamp(), seen(7)), (RoleName::parse("targets/releases").unwrap(), seen(3))].into(),
        };
        MemoryRecord { memory, accepted: None, namespace: None, uid: None }
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
            assert_eq!(String::from_utf8(record.encode(SERVER, GUN).unwrap()).unwrap(), text);
            assert_eq!(MemoryRecord::decode(SERVER, GUN, text.as_bytes()), Ok(record.clone()));
            let read = MemoryRecord::decode_any(text.as_bytes());
            assert_eq!(read, Ok((SERVER.to_owned(), GUN.to_owned(), record)));
        }
    }

    #[test]
    fn what_is_no_record_of_the_repository_is_refused() {
        let decode = |text: &str| MemoryRecord::decode(SERVER, GUN, text.as_bytes()).unwrap_err();
        let sound = text("");
        assert!(MemoryRecord::decode(SERVER, "registry.example.com/other", sound.as_bytes()).is_err());
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
            assert_eq!(MemoryRecord::decode_any(text.as_bytes()), Err(RecordError::Malformed), "{text}");
        }
        for text in ["", "{", "[]", "{}", &text(r#""later":1,"#), &sound.replace("\"version\":7", "\"version\":-7")] {
            assert!(matches!(decode(text), RecordError::Json(_)), "{text}");
        }
    }
}
