//! Any bytes as a sigstore bundle, and as the statement of one that a key really signed.
#![no_main]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_cosign::{Budget, Candidate, Descriptor, Key, fact, referrer};
use countersign_image::Sha256;
use libfuzzer_sys::fuzz_target;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const IN_TOTO: &str = "application/vnd.in-toto+json";

/// A key pair, and its public half in PEM (RFC 8410).
fn secret() -> (Ed25519KeyPair, Key) {
    const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let secret = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let spki = STANDARD.encode([&SPKI, secret.public_key().as_ref()].concat());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n");
    (secret, Key::from_pem("fuzz", pem.as_bytes()).expect("a key"))
}

/// Whether a bundle is a signature of the image that is the sha256 of nothing.
fn is_fact(blob: &[u8], key: &Key) -> bool {
    let image = Sha256::of(b"");
    let (digest, size) = (Sha256::of(blob), blob.len());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","subject":{{"digest":"{image}"}},"layers":[{{"mediaType":"{BUNDLE}","size":{size},"digest":"{digest}"}}]}}"#
    );
    let listed = Descriptor {
        media_type: MANIFEST.to_owned(),
        digest: Sha256::of(manifest.as_bytes()),
        size: manifest.len() as u64,
        artifact_type: None,
        annotations: std::collections::BTreeMap::new(),
    };
    let layers = referrer(manifest.as_bytes(), MANIFEST, &listed, image).expect("a sound manifest");
    let candidate = Candidate::new(&layers[0], blob);
    candidate.and_then(|candidate| fact(image, &candidate, std::slice::from_ref(key), &Budget::new())).is_ok()
}

fuzz_target!(|data: &[u8]| {
    let (secret, key) = secret();
    // Nobody signed this one, so that it is no fact whatever it says.
    assert!(!is_fact(data, &key));
    let message = [format!("DSSEv1 {} {IN_TOTO} {} ", IN_TOTO.len(), data.len()).as_bytes(), data].concat();
    let (payload, signature) = (STANDARD.encode(data), STANDARD.encode(secret.sign(&message)));
    let bundle = format!(
        r#"{{"mediaType":"{BUNDLE}","verificationMaterial":{{"publicKey":{{}}}},"dsseEnvelope":{{"payload":"{payload}","payloadType":"{IN_TOTO}","signatures":[{{"sig":"{signature}"}}]}}}}"#
    );
    if is_fact(bundle.as_bytes(), &key) {
        let text = std::str::from_utf8(data).expect("text");
        assert!(text.contains("predicateType") || text.contains("\\u"));
    }
});
