//! Simple signing payloads: what a signature under a `.sig` tag is over.
//!
//! cosign itself compares the digest and nothing else. Others use the same JSON with another `type`, so all of it is
//! read as strictly as `signature/internal/json.go` of containers/image reads it: nothing twice, nothing unknown.

use std::collections::BTreeMap;

use countersign_image::{Sha256, quoted};
use countersign_json::Object;
use thiserror::Error;

use crate::document::{self, DocumentError};
use crate::limits::MAX_PAYLOAD_BYTES;

/// What `type` must be (`payload.CosignSignatureType` of sigstore).
const TYPE: &str = "cosign container image signature";

/// Why a payload that a key signed says nothing of a digest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PayloadProblem {
    /// It is no such document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// An object has a member that is not known. What it says, nobody would look at.
    #[error("{of} has an unknown member {name}")]
    Unknown {
        /// The object.
        of: &'static str,
        /// The member, in quotes.
        name: String,
    },
    /// It says that it is something else than a signature of an image.
    #[error("its type is {0}, which is no cosign signature")]
    Type(String),
    /// It is about another image.
    #[error("it is about {0}")]
    OtherDigest(String),
}

/// What a payload claims of the digest that it was read for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The repository for which it was made. Anybody may copy it to another, and cosign ignores it.
    pub(crate) docker_reference: String,
    pub(crate) claims: BTreeMap<String, String>,
}

impl Payload {
    /// Reads a payload, which must be about this digest.
    pub(crate) fn parse(bytes: &[u8], digest: Sha256) -> Result<Self, PayloadProblem> {
        let whole = document::read(bytes, MAX_PAYLOAD_BYTES)?;
        only(&whole, "the payload", &["critical", "optional"])?;
        let critical = document::object(&whole, "critical")?;
        only(critical, "critical", &["identity", "image", "type"])?;
        let kind = document::text(critical, "type")?;
        if kind != TYPE {
            return Err(PayloadProblem::Type(quoted(kind)));
        }
        let image = document::object(critical, "image")?;
        only(image, "image", &["docker-manifest-digest"])?;
        let about = document::text(image, "docker-manifest-digest")?;
        if about != digest.to_string() {
            return Err(PayloadProblem::OtherDigest(quoted(about)));
        }
        let identity = document::object(critical, "identity")?;
        only(identity, "identity", &["docker-reference"])?;
        let docker_reference = document::text(identity, "docker-reference")?.to_owned();
        let claims = document::optional_object(&whole, "optional")?.map(document::texts).unwrap_or_default();
        Ok(Self { docker_reference, claims })
    }
}

/// That an object has no members but these.
fn only(object: &Object<'_>, of: &'static str, known: &[&str]) -> Result<(), PayloadProblem> {
    match object.iter().find(|(name, _)| !known.contains(name)) {
        Some((name, _)) => Err(PayloadProblem::Unknown { of, name: quoted(name) }),
        None => Ok(()),
    }
}

/// The payloads that cosign makes of a digest in a repository without claims, byte for byte. A layer that has the size and
/// the sha256 of one of them holds just that, and need not be fetched ([`crate::Layer::guessed`]).
///
/// Docker Hub's images are named twice: cosign calls that registry `index.docker.io` (`DefaultRegistry` of
/// go-containerregistry).
#[must_use]
pub fn guesses(repository: &str, digest: Sha256) -> Vec<Vec<u8>> {
    let hub = repository.strip_prefix("docker.io/").map(|path| format!("index.docker.io/{path}"));
    let names = hub.iter().map(String::as_str).chain([repository]);
    names
        .map(|name| {
            // No repository has a sign in its name that JSON escapes; a text that has one just matches no layer.
            let identity = format!(r#"{{"docker-reference":"{name}"}}"#);
            let image = format!(r#"{{"docker-manifest-digest":"{digest}"}}"#);
            format!(r#"{{"critical":{{"identity":{identity},"image":{image},"type":"{TYPE}"}},"optional":null}}"#)
                .into_bytes()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cosign_writes_is_read_and_guessed() {
        let digest = Sha256::of(b"");
        // As `cosign sign` of v2.6.5 wrote it, but for the digest.
        let written = r#"{"critical":{"identity":{"docker-reference":"127.0.0.1:5901/demo/legacy"},"image":{"docker-manifest-digest":"DIGEST"},"type":"cosign container image signature"},"optional":null}"#
            .replace("DIGEST", &digest.to_string());
        assert_eq!(guesses("127.0.0.1:5901/demo/legacy", digest), [written.as_bytes()]);
        let read = Payload::parse(written.as_bytes(), digest).unwrap();
        assert_eq!(read.docker_reference, "127.0.0.1:5901/demo/legacy");
        assert_eq!(read.claims, BTreeMap::new());
        let hub = guesses("docker.io/library/nginx", digest);
        assert!(String::from_utf8_lossy(&hub[0]).contains(r#""index.docker.io/library/nginx""#));
        assert!(String::from_utf8_lossy(&hub[1]).contains(r#""docker.io/library/nginx""#));
    }

    #[test]
    fn only_texts_are_claims() {
        let digest = Sha256::of(b"");
        let text = String::from_utf8(guesses("h/r", digest).remove(0)).unwrap();
        let claimed = text.replace("null}", r#"{"env":"prod","build":7,"x":{"env":"y"}}}"#);
        let claims = Payload::parse(claimed.as_bytes(), digest).unwrap().claims;
        assert_eq!(claims, BTreeMap::from([("env".to_owned(), "prod".to_owned())]));
        for optional in ["[]}", "\"x\"}", "7}"] {
            let expected = DocumentError::Member { member: "optional", expected: "an object" };
            let odd = text.replace("null}", optional);
            assert_eq!(Payload::parse(odd.as_bytes(), digest), Err(expected.into()));
        }
    }

    #[test]
    fn other_payloads() {
        let digest = Sha256::of(b"");
        let text = String::from_utf8(guesses("h/r", digest).remove(0)).unwrap();
        let with = |from: &str, to: &str| {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            Payload::parse(changed.as_bytes(), digest).unwrap_err()
        };
        let member = |member, expected| PayloadProblem::Document(DocumentError::Member { member, expected });
        assert_eq!(with("\"critical\":{", "\"critical\":{\"type\":7}, \"x\":{"), {
            PayloadProblem::Unknown { of: "the payload", name: "\"x\"".into() }
        });
        assert_eq!(
            with("\"docker-reference\":\"h/r\"", "\"docker-reference\":7"),
            member("docker-reference", "a text")
        );
        assert_eq!(with("\"docker-reference\":\"h/r\"", ""), member("docker-reference", "a text"));
        assert_eq!(with("\"identity\":{\"docker-reference\":\"h/r\"},", ""), member("identity", "an object"));
        assert_eq!(with("h/r\"", "h/r\",\"a\":1"), PayloadProblem::Unknown { of: "identity", name: "\"a\"".into() });
        let long = [text.as_bytes(), &vec![b' '; MAX_PAYLOAD_BYTES]].concat();
        let expected = PayloadProblem::Document(DocumentError::TooLong { limit: MAX_PAYLOAD_BYTES });
        assert_eq!(Payload::parse(&long, digest), Err(expected));
        assert_eq!(Payload::parse(b"\xff", digest), Err(PayloadProblem::Document(DocumentError::NotUtf8)));
        assert_eq!(Payload::parse(b"[]", digest), Err(member("the document", "an object")));
    }
}
