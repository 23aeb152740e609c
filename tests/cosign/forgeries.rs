//! Signatures as the real tools write them, and with one defect each: what a registry is to hold for an image.

mod bundles;
mod claims;
mod keys;
mod lies;
mod places;
mod probes;
mod simple_signing;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_tests::{Form, KeyKind};
use forge::Key;
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::liar::Answer;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIG: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// A case: what a registry holds for an image, and the key that is asked about.
pub(crate) struct Case {
    pub(crate) name: String,
    /// Whether Countersign must admit it.
    pub(crate) sound: bool,
    /// The public key, PEM.
    pub(crate) key: String,
    /// The hash that the real cosign must be told, where it is not SHA-256.
    pub(crate) hash: Option<&'static str>,
    /// Whether the real cosign is told to look for payloads of simple signing that refer to the image.
    pub(crate) referrer: bool,
    /// The only registry that it is for, if not both real ones.
    pub(crate) only: Option<&'static str>,
    /// The claim that is demanded of the signature, a name and a value.
    pub(crate) claim: Option<(&'static str, &'static str)>,
    pub(crate) make: Make,
}

/// Who writes the signature.
pub(crate) enum Make {
    Forged(Box<dyn Fn(&Image) -> Stored + Send + Sync>),
    /// The real cosign, with a key of its own that is asked about.
    Real(KeyKind, Form),
}

impl Case {
    fn new(name: &str, sound: bool, make: impl Fn(&Image) -> Stored + Send + Sync + 'static) -> Self {
        let make = Make::Forged(Box::new(make));
        Self {
            name: name.to_owned(),
            sound,
            key: alice().pem(),
            hash: None,
            referrer: false,
            only: None,
            claim: None,
            make,
        }
    }

    fn sound(name: &str, make: impl Fn(&Image) -> Stored + Send + Sync + 'static) -> Self {
        Self::new(name, true, make)
    }

    fn broken(name: &str, make: impl Fn(&Image) -> Stored + Send + Sync + 'static) -> Self {
        Self::new(name, false, make)
    }

    fn only(self, place: &'static str) -> Self {
        Self { only: Some(place), ..self }
    }
}

/// An image that was pushed.
pub(crate) struct Image {
    /// `HOST/REPOSITORY`
    pub(crate) repository: String,
    /// The digest in hex.
    pub(crate) hex: String,
}

impl Image {
    fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }
}

/// The hex of another image's digest.
fn other() -> String {
    forge::hex(&forge::digest_of("other"))
}

fn alice() -> Key {
    Key::p256("alice")
}

fn bob() -> Key {
    Key::p256("bob")
}

/// All cases; their names are those of the design, and of the unit tests.
pub(crate) fn all() -> Vec<Case> {
    [
        simple_signing::cases(),
        bundles::cases(),
        places::cases(),
        keys::cases(),
        claims::cases(),
        probes::cases(),
        lies::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The DER of r and s of fixed width.
fn der(fixed: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| {
        let mut digits: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
        if digits.first().is_none_or(|first| *first >= 0x80) {
            digits.insert(0, 0);
        }
        [vec![2, u8::try_from(digits.len()).expect("a short number")], digits].concat()
    };
    let (r, s) = fixed.split_at(fixed.len() / 2);
    let body = [number(r), number(s)].concat();
    let length = u8::try_from(body.len()).expect("two short numbers");
    let head = if length < 0x80 { vec![0x30, length] } else { vec![0x30, 0x81, length] };
    [head, body].concat()
}

/// As cosign signs with P-256.
fn sign(key: &Key, message: &[u8]) -> Vec<u8> {
    der(&key.sign(message).bytes)
}

fn sha384(message: &[u8]) -> Vec<u8> {
    sha2::Sha384::digest(message).to_vec()
}

fn sha512(message: &[u8]) -> Vec<u8> {
    sha2::Sha512::digest(message).to_vec()
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What is signed under a `.sig` tag.
fn payload(repository: &str, hex: &str) -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{repository}"}},"image":{{"docker-manifest-digest":"sha256:{hex}"}},"type":"cosign container image signature"}},"optional":null}}"#
    )
}

fn payload_of(image: &Image) -> String {
    payload(&image.repository, &image.hex)
}

/// What cosign 3 signs, with some of its random spaces.
fn statement(hex: &str) -> String {
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1",  "subject":[{{"digest":{{"sha256":"{hex}"}}, "annotations":{{}}}}],"predicateType":"{SIGN}", "predicate":{{}}}}"#
    )
}

/// The pre-authentication encoding of an envelope.
fn pae(kind: &str, payload: &str) -> Vec<u8> {
    format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len()).into_bytes()
}

/// The bundle that cosign 3 writes with a key and without a log.
fn bundle(key: &Key, statement: &str) -> Value {
    bundle_with(key, statement, &sign(key, &pae(IN_TOTO, statement)))
}

fn bundle_with(key: &Key, statement: &str, signature: &[u8]) -> Value {
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": base64(&forge::sha256(&key.spki()))}},
        "dsseEnvelope": {
            "payload": base64(statement.as_bytes()),
            "payloadType": IN_TOTO,
            "signatures": [{"sig": base64(signature)}]
        }
    })
}

/// What a registry is to hold beside the image.
#[derive(Default)]
pub(crate) struct Stored {
    pub(crate) blobs: Vec<Vec<u8>>,
    /// The layers under the `.sig` tag.
    layers: Vec<Value>,
    /// What stands under the `.sig` tag, if not a manifest of the layers.
    sig: Option<Value>,
    /// Manifests that refer to the image, and what the index says of each beyond its digest and size.
    pub(crate) referrers: Vec<(Value, Value)>,
    /// What stands under the tag that is for that index, if not the index.
    pub(crate) fallback: Option<Value>,
    /// What else is there, by the end of its name.
    pub(crate) tags: Vec<(String, Value)>,
    /// What is answered all the same, by the path in the repository. Only the liar does so.
    pub(crate) lies: Vec<(String, Answer)>,
}

impl Stored {
    fn new() -> Self {
        Self::default()
    }

    /// Keeps a blob, and gives the descriptor.
    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.blobs.push(bytes.to_vec());
        json!({"mediaType": media_type, "size": bytes.len(), "digest": digest(bytes)})
    }

    /// A layer of simple signing with this text for a signature.
    fn layer(&mut self, payload: &str, text: &str) -> Value {
        let mut layer = self.blob(SIMPLE, payload.as_bytes());
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": text});
        layer
    }

    fn sig_text(mut self, payload: &str, text: &str) -> Self {
        let layer = self.layer(payload, text);
        self.layers.push(layer);
        self
    }

    /// A payload under the `.sig` tag, signed as it stands.
    fn sig(self, key: &Key, payload: &str) -> Self {
        let signature = base64(&sign(key, payload.as_bytes()));
        self.sig_text(payload, &signature)
    }

    /// The manifest under the `.sig` tag.
    pub(crate) fn sig_manifest(&self) -> Option<Value> {
        (self.sig.clone()).or_else(|| (!self.layers.is_empty()).then(|| image_manifest(&self.layers)))
    }

    /// A manifest that refers to the image of that digest in hex.
    fn refer(mut self, subject: &str, artifact_type: &str, config: &str, layers: &[Value]) -> Self {
        let mut manifest = image_manifest(layers);
        manifest["config"]["mediaType"] = json!(config);
        manifest["artifactType"] = json!(artifact_type);
        manifest["subject"] = json!({"mediaType": MANIFEST, "size": 400, "digest": format!("sha256:{subject}")});
        self.referrers.push((manifest, json!({"artifactType": artifact_type})));
        self
    }

    /// Form a′.
    fn sig_referrer(mut self, key: &Key, subject: &str, payload: &str) -> Self {
        let layer = self.layer(payload, &base64(&sign(key, payload.as_bytes())));
        self.refer(subject, SIG, SIG, &[layer])
    }

    fn bundle(self, image: &Image, bundle: &Value) -> Self {
        self.bundle_bytes(image, bundle.to_string().as_bytes())
    }

    fn bundle_bytes(mut self, image: &Image, bytes: &[u8]) -> Self {
        let layer = self.blob(BUNDLE, bytes);
        self.refer(&image.hex, BUNDLE, EMPTY, &[layer])
    }
}

/// The digest of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", forge::hex(&forge::sha256(bytes)))
}

/// Its config is `{}`, which every repository has.
fn image_manifest(layers: &[Value]) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": digest(b"{}")},
    })
}

/// The manifest of an image with that config, and without layers.
pub(crate) fn image_of(config: &Value) -> Value {
    let text = config.to_string();
    let mut manifest = image_manifest(&[]);
    manifest["config"]["size"] = json!(text.len());
    manifest["config"]["digest"] = json!(digest(text.as_bytes()));
    manifest
}

/// An index that lists manifests, as whoever signs keeps it under a tag where the registry has no API for it.
pub(crate) fn index(manifests: &[(Value, Value)]) -> Value {
    let entry = |(manifest, told): &(Value, Value)| {
        let text = manifest.to_string();
        let mut entry =
            json!({"mediaType": manifest["mediaType"], "size": text.len(), "digest": digest(text.as_bytes())});
        for (name, value) in told.as_object().into_iter().flatten() {
            entry[name] = value.clone();
        }
        entry
    };
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests.iter().map(entry).collect::<Vec<_>>()})
}
