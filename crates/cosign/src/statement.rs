//! in-toto statements, and the bytes that a DSSE signature over one covers.

use std::collections::BTreeMap;

use countersign_image::{Sha256, quoted, shown};
use countersign_json::{Object, Value};
use thiserror::Error;

use crate::document::{self, DocumentError};
use crate::limits::{MAX_BUNDLE_BYTES, MAX_SUBJECTS};

/// What a statement can call itself (in-toto attestation framework, `_type`).
const TYPES: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];

/// The predicate that makes a statement a signature of an image. Every other is an attestation: "the scan failed" is also
/// signed by the key of whoever scans.
pub(crate) const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";

/// Why a statement that a key signed is no signature of a digest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StatementProblem {
    /// It is no such document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It is of another type.
    #[error("its _type is {0}, which is no in-toto statement")]
    Type(String),
    /// It says something else of its subjects than that somebody signs them.
    #[error("it is an attestation ({0}), not a signature")]
    Attestation(String),
    /// It is about nothing.
    #[error("it has no subject")]
    NoSubject,
    /// It is about other images.
    #[error("none of its subjects is the image")]
    OtherSubjects,
}

/// What is signed: the decoded payload and its type, with the length of each before it (DSSE v1, "Pre-Authentication
/// Encoding").
pub(crate) fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// The claims that a statement makes of a digest which it signs.
pub(crate) fn claims(bytes: &[u8], digest: Sha256) -> Result<BTreeMap<String, String>, StatementProblem> {
    let statement = document::read(bytes, MAX_BUNDLE_BYTES)?;
    let kind = document::text(&statement, "_type")?;
    if !TYPES.contains(&kind) {
        return Err(StatementProblem::Type(quoted(kind)));
    }
    let predicate = document::text(&statement, "predicateType")?;
    if predicate != SIGNATURE {
        return Err(StatementProblem::Attestation(shown(predicate)));
    }
    // That somebody signs says nothing more, but what is there must be what a statement can have.
    document::optional_object(&statement, "predicate")?;
    let subjects = document::list(&statement, "subject", MAX_SUBJECTS)?;
    if subjects.is_empty() {
        return Err(StatementProblem::NoSubject);
    }
    // All subjects are read, so that a statement is sound or not whichever of them is asked for.
    let mut found = None;
    for subject in subjects {
        let claims = subject_claims(subject, digest)?;
        found = found.or(claims);
    }
    found.ok_or(StatementProblem::OtherSubjects)
}

/// The claims of one subject, if it is the digest.
fn subject_claims(subject: &Value<'_>, digest: Sha256) -> Result<Option<BTreeMap<String, String>>, DocumentError> {
    let Value::Object(subject) = subject else {
        return Err(DocumentError::Member { member: "subject", expected: "a list of objects" });
    };
    let digests = document::object(subject, "digest")?;
    let annotations = document::optional_object(subject, "annotations")?;
    // As text: the digits are lower-case, and cosign takes no others.
    let is_it = document::optional_text(digests, "sha256")? == Some(digest.hex().as_str());
    Ok(is_it.then(|| annotations.map(document::texts).unwrap_or_default()))
}

/// What a statement that nobody has verified says that it is: for messages.
pub(crate) fn said_predicate(bytes: &[u8]) -> Option<String> {
    let statement: Object<'_> = document::read(bytes, MAX_BUNDLE_BYTES).ok()?;
    document::text(&statement, "predicateType").ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the DSSE specification (protocol.md, "Test Vectors").
    #[test]
    fn the_encoding_of_the_specification() {
        let encoded = pae("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        // Bytes are counted, not letters.
        assert_eq!(pae("é", b""), "DSSEv1 2 é 0 ".as_bytes());
    }

    #[test]
    fn claims_are_those_of_the_subject_that_is_the_image() {
        let (image, other) = (Sha256::of(b"image"), Sha256::of(b"other"));
        let subject = |digest: Sha256, env: &str| {
            format!(r#"{{"digest":{{"sha256":"{}"}},"annotations":{{"env":"{env}","n":1}}}}"#, digest.hex())
        };
        let statement = format!(
            r#"{{"_type":"{}","predicateType":"{SIGNATURE}","subject":[{},{},{}]}}"#,
            TYPES[0],
            subject(other, "prod"),
            subject(image, "test"),
            subject(image, "prod"),
        );
        let expected = BTreeMap::from([("env".to_owned(), "test".to_owned())]);
        assert_eq!(claims(statement.as_bytes(), image), Ok(expected));
    }

    #[test]
    fn a_statement_is_sound_as_a_whole() {
        let image = Sha256::of(b"image");
        let good = format!(r#"{{"digest":{{"sha256":"{}"}}}}"#, image.hex());
        let with = |subjects: &str| {
            let text = format!(r#"{{"_type":"{}","predicateType":"{SIGNATURE}","subject":{subjects}}}"#, TYPES[1]);
            claims(text.as_bytes(), image)
        };
        assert!(with(&format!("[{good}]")).is_ok());
        assert!(with(&format!("[{good}],\"predicate\":{{}}")).is_ok());
        for predicate in ["7", "[]", "\"x\""] {
            let found = with(&format!("[{good}],\"predicate\":{predicate}"));
            assert!(matches!(found, Err(StatementProblem::Document(_))), "{predicate}");
        }
        for other in ["7", "{}", r#"{"digest":{"sha256":7}}"#, r#"{"digest":{},"annotations":[]}"#] {
            assert!(matches!(with(&format!("[{good},{other}]")), Err(StatementProblem::Document(_))), "{other}");
        }
        let expected = DocumentError::TooMany { member: "subject", limit: MAX_SUBJECTS };
        assert_eq!(with(&format!("[{}{good}]", format!("{good},").repeat(MAX_SUBJECTS))), Err(expected.into()));
    }
}
