//! A record of what is remembered of a repository, as a store keeps it.

use countersign_notary::{MemoryRecord, RecordError, RoleName};
use serde_json::Value;

use crate::store::{Content, RecordKey, Stored};

/// What a store is to keep of a record.
///
/// # Errors
/// It cannot be written down.
pub fn write(key: &RecordKey, record: &MemoryRecord) -> Result<Content, RecordError> {
    let record = MemoryRecord { pinned_in: key.pinned_in.clone(), ..record.clone() };
    let encoded = record.encode(&key.server, &key.gun)?;
    let root = record.memory.lineage.last();
    let root_keys = root.map(|root| root.keys.iter().map(|key| Value::from(key.id.to_string())).collect::<Vec<_>>());
    let timestamp = record.memory.highest(&RoleName::timestamp());
    let summary = [
        ("accepted", record.accepted.map(Value::from)),
        ("rootVersion", root.map(|root| root.version.into())),
        ("rootKeys", Some(root_keys.unwrap_or_default().into())),
        ("timestampVersion", timestamp.map(Value::from)),
    ];
    let summary = summary.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    Ok(Content { text: encoded.text, more: encoded.more, namespace: record.namespace, summary })
}

/// What a store keeps, read.
///
/// # Errors
/// It is no record, or one of another repository.
pub fn read(key: &RecordKey, stored: &Stored) -> Result<MemoryRecord, RecordError> {
    let (found, record) = read_any(stored)?;
    // A name is a hash: a record of another repository under it is somebody's doing.
    if (&found.server, &found.gun) != (&key.server, &key.gun) {
        return Err(RecordError::OtherRepository);
    }
    Ok(record)
}

/// What a store keeps, read, and what it is about.
///
/// # Errors
/// It is no record.
pub fn read_any(stored: &Stored) -> Result<(RecordKey, MemoryRecord), RecordError> {
    let Stored { content, uid, .. } = stored;
    let (server, gun, record) = MemoryRecord::decode_any(&content.text, content.more.as_deref())?;
    let key = RecordKey { server, gun, pinned_in: record.pinned_in.clone() };
    let namespace = content.namespace.clone().or(record.namespace);
    Ok((key, MemoryRecord { namespace, uid: uid.clone(), ..record }))
}
