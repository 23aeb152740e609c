//! Any bytes as a simple signing payload that a key really signed: what becomes a fact names the image.
#![no_main]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_cosign::{Budget, Candidate, Key, fact, sig_tag};
use countersign_image::Sha256;
use libfuzzer_sys::fuzz_target;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A key pair, and its public half in PEM (RFC 8410).
fn secret() -> (Ed25519KeyPair, Key) {
    const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let secret = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let spki = STANDARD.encode([&SPKI, secret.public_key().as_ref()].concat());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n");
    (secret, Key::from_pem("fuzz", pem.as_bytes()).expect("a key"))
}

fuzz_target!(|data: &[u8]| {
    let (secret, key) = secret();
    let (digest, size) = (Sha256::of(data), data.len());
    let signature = STANDARD.encode(secret.sign(data));
    let layer = format!(
        r#"{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","size":{size},"digest":"{digest}","annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}}}"#
    );
    let manifest = format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","layers":[{layer}]}}"#);
    let layers = sig_tag(manifest.as_bytes(), MANIFEST).expect("a sound manifest");
    let Ok(candidate) = Candidate::new(&layers[0], data) else { return };
    // The image that is the sha256 of nothing: a seed can name it.
    let image = Sha256::of(b"");
    if fact(image, &candidate, &[key], &Budget::new()).is_ok() {
        let text = std::str::from_utf8(data).expect("text");
        assert!(text.contains("docker-manifest-digest") || text.contains("\\u"));
    }
});
