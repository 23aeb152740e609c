//! A signer and a registry for tests: they write what the real tools write, on other code than the verifier's.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_image::Sha256;
use forge::Key as Secret;
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::{Budget, Demand, Descriptor, Error, Key, Proof, Scan};

pub(crate) const REPOSITORY: &str = "registry.example.com/team/app";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
pub(crate) const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
const SIG: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The image of all tests.
pub(crate) fn image() -> Sha256 {
    Sha256::from_bytes(forge::digest_of("app"))
}

/// Another image.
pub(crate) fn other_image() -> Sha256 {
    Sha256::from_bytes(forge::digest_of("other"))
}

/// The public half of the P-256 key of that name.
pub(crate) fn key(name: &str) -> Key {
    public(name, &Secret::p256(name))
}

pub(crate) fn public(name: &str, secret: &Secret) -> Key {
    Key::from_pem(name, secret.pem().as_bytes()).unwrap()
}

/// How a key signs.
#[derive(Clone, Copy)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// r and s of fixed width.
pub(crate) fn fixed(secret: &Secret, hash: Hash, message: &[u8]) -> Vec<u8> {
    let hash = match hash {
        Hash::Sha256 => sha2::Sha256::digest(message).to_vec(),
        Hash::Sha384 => sha2::Sha384::digest(message).to_vec(),
        Hash::Sha512 => sha2::Sha512::digest(message).to_vec(),
    };
    secret.sign_hash(&hash).bytes
}

/// The DER of r and s.
pub(crate) fn der(fixed: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| {
        let mut digits: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
        if digits[0] >= 0x80 {
            digits.insert(0, 0);
        }
        [vec![2, u8::try_from(digits.len()).unwrap()], digits].concat()
    };
    let (r, s) = fixed.split_at(fixed.len() / 2);
    let body = [number(r), number(s)].concat();
    let length = u8::try_from(body.len()).unwrap();
    let head = if length < 0x80 { vec![0x30, length] } else { vec![0x30, 0x81, length] };
    [head, body].concat()
}

/// As cosign signs with P-256.
pub(crate) fn sign(secret: &Secret, message: &[u8]) -> Vec<u8> {
    der(&fixed(secret, Hash::Sha256, message))
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What cosign signs under a `.sig` tag.
pub(crate) fn payload(digest: Sha256) -> String {
    json!({
        "critical": {
            "identity": {"docker-reference": REPOSITORY},
            "image": {"docker-manifest-digest": digest.to_string()},
            "type": "cosign container image signature"
        },
        "optional": null
    })
    .to_string()
}

/// What cosign 3 signs, random spaces included.
pub(crate) fn statement(digest: Sha256) -> String {
    let hex = digest.hex();
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1",  "subject":[{{"digest":{{"sha256":"{hex}"}}, "annotations":{{}}}}],"predicateType":"{SIGN}", "predicate":{{}}}}"#
    )
}

/// The pre-authentication encoding, written a second time.
pub(crate) fn pae(kind: &str, payload: &[u8]) -> Vec<u8> {
    [b"DSSEv1 ", kind.len().to_string().as_bytes(), b" ", kind.as_bytes(), b" ", payload.len().to_string().as_bytes()]
        .concat()
        .into_iter()
        .chain(*b" ")
        .chain(payload.iter().copied())
        .collect()
}

pub(crate) const IN_TOTO: &str = "application/vnd.in-toto+json";

/// The bundle that cosign 3 writes with a key and without a log.
pub(crate) fn bundle(secret: &Secret, statement: &str) -> Value {
    bundle_with(secret, statement, &sign(secret, &pae(IN_TOTO, statement.as_bytes())))
}

pub(crate) fn bundle_with(secret: &Secret, statement: &str, signature: &[u8]) -> Value {
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": base64(&forge::sha256(&secret.spki()))}},
        "dsseEnvelope": {
            "payload": base64(statement.as_bytes()),
            "payloadType": IN_TOTO,
            "signatures": [{"sig": base64(signature)}]
        }
    })
}

/// What a registry has for the image.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) sig_layers: Vec<Value>,
    pub(crate) referrers: Vec<(Descriptor, Vec<u8>)>,
    pub(crate) blobs: BTreeMap<Sha256, Vec<u8>>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Sha256::of(bytes);
        self.blobs.insert(digest, bytes.to_vec());
        json!({"mediaType": media_type, "size": bytes.len(), "digest": digest.to_string()})
    }

    fn simple(&mut self, payload: &str, signature: &str) -> Value {
        let mut layer = self.blob(SIMPLE, payload.as_bytes());
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
        layer
    }

    /// `cosign sign` of version 2.
    pub(crate) fn sig(self, secret: &Secret) -> Self {
        self.sig_of(secret, &payload(image()))
    }

    /// The same over another payload.
    pub(crate) fn sig_of(self, secret: &Secret, payload: &str) -> Self {
        let signature = base64(&sign(secret, payload.as_bytes()));
        self.sig_with(payload, &signature)
    }

    /// The same with another signature.
    pub(crate) fn sig_with(mut self, payload: &str, signature: &str) -> Self {
        let layer = self.simple(payload, signature);
        self.sig_layers.push(layer);
        self
    }

    /// A manifest that refers to an image.
    pub(crate) fn refer(mut self, subject: Sha256, artifact_type: &str, config: &str, layers: &[Value]) -> Self {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": config, "size": 2, "digest": Sha256::of(b"{}").to_string()},
            "layers": layers,
            "subject": {"mediaType": MANIFEST, "size": 400, "digest": subject.to_string()},
            "artifactType": artifact_type
        });
        let bytes = manifest.to_string().into_bytes();
        let descriptor = Descriptor {
            media_type: MANIFEST.to_owned(),
            digest: Sha256::of(&bytes),
            size: bytes.len() as u64,
            artifact_type: Some(artifact_type.to_owned()),
            annotations: BTreeMap::new(),
        };
        self.referrers.push((descriptor, bytes));
        self
    }

    /// `cosign sign --registry-referrers-mode=oci-1-1`.
    pub(crate) fn sig_referrer(mut self, secret: &Secret, subject: Sha256) -> Self {
        let payload = payload(image());
        let layer = self.simple(&payload, &base64(&sign(secret, payload.as_bytes())));
        self.refer(subject, SIG, SIG, &[layer])
    }

    /// `cosign sign` of version 3.
    pub(crate) fn bundle(self, secret: &Secret) -> Self {
        self.bundle_of(bundle(secret, &statement(image())))
    }

    /// Some JSON where a bundle should be.
    #[expect(clippy::needless_pass_by_value, reason = "so that a test can build it where it hands it over")]
    pub(crate) fn bundle_of(self, bundle: Value) -> Self {
        self.bundle_bytes(bundle.to_string().as_bytes())
    }

    pub(crate) fn bundle_bytes(mut self, bytes: &[u8]) -> Self {
        let layer = self.blob(BUNDLE, bytes);
        self.refer(image(), BUNDLE, EMPTY, &[layer])
    }

    pub(crate) fn sig_manifest(&self) -> Vec<u8> {
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": Sha256::of(b"{}").to_string()});
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": self.sig_layers})
            .to_string()
            .into_bytes()
    }

    /// Looks at all of it, as who fetches does.
    pub(crate) fn scan(&self, keys: &[Key]) -> Scan {
        let mut scan = Scan::new(image());
        let budget = Budget::new();
        let mut layers = scan.sig_tag(&self.sig_manifest(), MANIFEST);
        let listed = self.referrers.iter().map(|(descriptor, _)| descriptor.clone()).collect();
        for wanted in scan.referrers(listed) {
            let (_, bytes) = self.referrers.iter().find(|(listed, _)| *listed == wanted).unwrap();
            layers.extend(scan.referrer(&wanted, bytes, MANIFEST));
        }
        for layer in layers {
            let blob = self.blobs.get(&layer.digest()).cloned().unwrap_or_default();
            scan.blob(&layer, &blob, keys, &budget);
        }
        scan
    }

    /// Whether all of these keys signed.
    pub(crate) fn judge(&self, keys: &[Key]) -> Result<Proof, Error> {
        self.demand(&Demand::new(keys.to_vec(), None, vec![], BTreeMap::new()).unwrap())
    }

    pub(crate) fn demand(&self, demand: &Demand) -> Result<Proof, Error> {
        self.scan(demand.keys()).judge(REPOSITORY, demand)
    }

    /// Whether alice signed.
    pub(crate) fn by_alice(&self) -> Result<Proof, Error> {
        self.judge(&[key("alice")])
    }

    /// Why alice's signature, which is there, is none.
    pub(crate) fn refused(&self) -> String {
        self.by_alice().expect_err("a denial").to_string()
    }
}

pub(crate) fn alice() -> Secret {
    Secret::p256("alice")
}

pub(crate) fn bob() -> Secret {
    Secret::p256("bob")
}
