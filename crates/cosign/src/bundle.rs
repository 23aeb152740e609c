//! Sigstore bundles in JSON: what was signed, the signature, and what the bundle says of the key.
//!
//! Written after `sigstore_bundle.proto` of protobuf-specs 0.5. Go reads `snake_case` members and base64url too; no writer
//! of them is known, and they are refused.

use countersign_image::{quoted, shown};
use countersign_json::{Object, Value};
use thiserror::Error;

use crate::document::{self, DocumentError};
use crate::limits::{MAX_BUNDLE_BYTES, MAX_SIGNATURE_BYTES, MAX_WITNESSES};

/// The two spellings of version 0.3.
const CURRENT: [&str; 2] =
    ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.sigstore.bundle+json;version=0.3"];
/// How all media types of bundles begin.
const FAMILY: &str = "application/vnd.dev.sigstore.bundle";
/// What an envelope's payload must be.
const IN_TOTO: &str = "application/vnd.in-toto+json";

/// Why a bundle holds no signature that could be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BundleProblem {
    /// It is no such document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A version that cosign does not take for images either.
    #[error("it is a bundle of the type {0}; version 0.3 is the one that is verified")]
    Version(String),
    /// Its type is that of something else.
    #[error("its type is {0}, which is no bundle")]
    Type(String),
    /// It must have exactly one of several members.
    #[error("it has {found} of {members}, where exactly one is expected")]
    NotOne {
        /// How many it has.
        found: usize,
        /// Of which.
        members: &'static str,
    },
    /// It signs the bytes of an artifact, as `cosign sign-blob` does.
    #[error("it signs bytes (messageSignature), not an image")]
    MessageSignature,
    /// An envelope with none or several signatures.
    #[error("its envelope has {0} signatures, where exactly one is expected")]
    Signatures(usize),
    /// The payload is of another type.
    #[error("its payload is of the type {0}, not {IN_TOTO}")]
    PayloadType(String),
    /// A member is not base64 of the standard alphabet.
    #[error("{0} is not base64 of the standard alphabet")]
    Base64(&'static str),
    /// The signature is longer than any signature.
    #[error("its signature is empty or has more than {MAX_SIGNATURE_BYTES} bytes")]
    SignatureLength,
}

/// What a bundle holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bundle {
    /// The decoded payload: what is parsed is what was verified.
    pub(crate) payload: Vec<u8>,
    pub(crate) payload_type: &'static str,
    pub(crate) signature: Vec<u8>,
    /// Which key it says it is by. It orders the tries, and decides nothing.
    pub(crate) hint: Option<String>,
}

/// Whether a media type is that of a bundle, of whatever version.
pub(crate) fn is_bundle(media_type: &str) -> bool {
    media_type.starts_with(FAMILY)
}

impl Bundle {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BundleProblem> {
        let bundle = document::read(bytes, MAX_BUNDLE_BYTES)?;
        let media_type = document::text(&bundle, "mediaType")?;
        if !CURRENT.contains(&media_type) {
            let told = quoted(media_type);
            return Err(if is_bundle(media_type) { BundleProblem::Version(told) } else { BundleProblem::Type(told) });
        }
        let material = document::object(&bundle, "verificationMaterial")?;
        one_of(material, &["publicKey", "certificate", "x509CertificateChain"], KEYS)?;
        witnesses(material)?;
        // A certificate says nothing where a policy lists the key: the mathematics is the same.
        let hint = match document::optional_object(material, "publicKey")? {
            Some(key) => document::optional_text(key, "hint")?.map(shown),
            None => None,
        };
        match one_of(&bundle, &["dsseEnvelope", "messageSignature"], CONTENTS)? {
            "dsseEnvelope" => Self::of_envelope(document::object(&bundle, "dsseEnvelope")?, hint),
            _ => Err(BundleProblem::MessageSignature),
        }
    }

    fn of_envelope(envelope: &Object<'_>, hint: Option<String>) -> Result<Self, BundleProblem> {
        let payload_type = document::text(envelope, "payloadType")?;
        if payload_type != IN_TOTO {
            return Err(BundleProblem::PayloadType(quoted(payload_type)));
        }
        let signatures = document::list(envelope, "signatures", MAX_WITNESSES)?;
        let [Value::Object(signature)] = signatures else {
            return Err(BundleProblem::Signatures(signatures.len()));
        };
        let payload = document::base64(document::text(envelope, "payload")?).ok_or(BundleProblem::Base64("payload"))?;
        let signature = document::base64(document::text(signature, "sig")?).ok_or(BundleProblem::Base64("sig"))?;
        if signature.is_empty() || signature.len() > MAX_SIGNATURE_BYTES {
            return Err(BundleProblem::SignatureLength);
        }
        Ok(Self { payload, payload_type: IN_TOTO, signature, hint })
    }
}

const KEYS: &str = "publicKey, certificate, x509CertificateChain";
const CONTENTS: &str = "dsseEnvelope, messageSignature";

/// The one of some members that is there.
fn one_of(object: &Object<'_>, members: &[&'static str], told: &'static str) -> Result<&'static str, BundleProblem> {
    let mut there = members.iter().filter(|member| document::present(object, member).is_some());
    match (there.next(), there.count()) {
        (Some(only), 0) => Ok(only),
        (first, more) => Err(BundleProblem::NotOne { found: usize::from(first.is_some()) + more, members: told }),
    }
}

/// That there are not too many log entries and timestamps. A policy of keys asks for neither.
fn witnesses(material: &Object<'_>) -> Result<(), BundleProblem> {
    if document::present(material, "tlogEntries").is_some() {
        document::list(material, "tlogEntries", MAX_WITNESSES)?;
    }
    if let Some(data) = document::optional_object(material, "timestampVerificationData")?
        && document::present(data, "rfc3161Timestamps").is_some()
    {
        document::list(data, "rfc3161Timestamps", MAX_WITNESSES)?;
    }
    Ok(())
}
