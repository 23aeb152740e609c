//! JSON of strangers: strict, bounded, and with words for what is wrong.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_json::{JsonError, Object, Value, parse_within};
use thiserror::Error;

use crate::limits::MAX_VALUES;

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// More bytes than it may have.
    #[error("it has more than {limit} bytes")]
    TooLong {
        /// How many it may have.
        limit: usize,
    },
    /// Bytes that are no text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// Text that is no JSON, or that readers could take in two ways.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// A member is missing, or is not what it should be.
    #[error("{member} is missing or is not {expected}")]
    Member {
        /// Which.
        member: &'static str,
        /// What should stand there.
        expected: &'static str,
    },
    /// A list has more items than it may.
    #[error("{member} has more than {limit} items")]
    TooMany {
        /// Which.
        member: &'static str,
        /// How many it may have.
        limit: usize,
    },
}

/// The object that some bytes are.
pub(crate) fn read(bytes: &[u8], limit: usize) -> Result<Object<'_>, DocumentError> {
    if bytes.len() > limit {
        return Err(DocumentError::TooLong { limit });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| DocumentError::NotUtf8)?;
    match parse_within(text, MAX_VALUES)? {
        Value::Object(object) => Ok(object),
        _ => Err(DocumentError::Member { member: "the document", expected: "an object" }),
    }
}

/// The member of that name, unless it is null: writers of both kinds mean that it is not there.
pub(crate) fn present<'o, 'a>(object: &'o Object<'a>, member: &str) -> Option<&'o Value<'a>> {
    object.get(member).filter(|value| **value != Value::Null)
}

/// A member that must be a text.
pub(crate) fn text<'o>(object: &'o Object<'_>, member: &'static str) -> Result<&'o str, DocumentError> {
    match object.get(member) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(DocumentError::Member { member, expected: "a text" }),
    }
}

/// A member that is a text if it is there.
pub(crate) fn optional_text<'o>(
    object: &'o Object<'_>,
    member: &'static str,
) -> Result<Option<&'o str>, DocumentError> {
    present(object, member).map(|_| text(object, member)).transpose()
}

/// A member that must be an object.
pub(crate) fn object<'o, 'a>(object: &'o Object<'a>, member: &'static str) -> Result<&'o Object<'a>, DocumentError> {
    match object.get(member) {
        Some(Value::Object(inner)) => Ok(inner),
        _ => Err(DocumentError::Member { member, expected: "an object" }),
    }
}

/// A member that is an object if it is there.
pub(crate) fn optional_object<'o, 'a>(
    parent: &'o Object<'a>,
    member: &'static str,
) -> Result<Option<&'o Object<'a>>, DocumentError> {
    present(parent, member).map(|_| object(parent, member)).transpose()
}

/// A member that must be a list of at most so many items.
pub(crate) fn list<'o, 'a>(
    object: &'o Object<'a>,
    member: &'static str,
    limit: usize,
) -> Result<&'o [Value<'a>], DocumentError> {
    match object.get(member) {
        Some(Value::Array(items)) if items.len() > limit => Err(DocumentError::TooMany { member, limit }),
        Some(Value::Array(items)) => Ok(items),
        _ => Err(DocumentError::Member { member, expected: "a list" }),
    }
}

/// The members that are texts. What a claim is compared with is a text, so nothing else could ever be equal to it.
pub(crate) fn texts(object: &Object<'_>) -> BTreeMap<String, String> {
    object
        .iter()
        .filter_map(|(name, value)| match value {
            Value::String(text) => Some((name.to_owned(), text.to_string())),
            _ => None,
        })
        .collect()
}

/// Bytes in base64 of the standard alphabet, with padding and nothing else.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}
