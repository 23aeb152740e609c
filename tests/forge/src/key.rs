//! Keys with fixed secrets, in every form that Notary knows.

use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::rand_core::{TryCryptoRng, TryRng};
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::canonical::canonical;
use crate::certificate::Cert;
use crate::{der, hex};

/// A key pair, and the form in which metadata lists its public half. Two keys of one seed are the same pair.
#[derive(Clone)]
pub struct Key {
    secret: Arc<Secret>,
    /// PEM text of the certificates that hold the key, leaf first.
    certificates: Option<String>,
    key_type: Option<String>,
    salt: usize,
    pkcs1v15: bool,
}

enum Secret {
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    P521(p521::ecdsa::SigningKey),
    Rsa(Box<rsa::RsaPrivateKey>),
    Ed25519(ed25519_dalek::SigningKey),
}

/// A signature as a file carries it.
#[derive(Clone, Debug)]
pub struct Signature {
    /// `ecdsa`, `rsapss`, `rsapkcs1v15` or `eddsa`.
    pub method: String,
    /// The raw bytes, before base64.
    pub bytes: Vec<u8>,
}

impl Key {
    fn new(secret: Secret) -> Self {
        Self { secret: Arc::new(secret), certificates: None, key_type: None, salt: 32, pkcs1v15: false }
    }

    /// An ECDSA key on P-256.
    #[must_use]
    pub fn p256(seed: &str) -> Self {
        let scalar = Sha256::digest(format!("forge p256 {seed}"));
        Self::new(Secret::P256(p256::ecdsa::SigningKey::from_slice(&scalar).expect("a scalar below the order")))
    }

    /// An ECDSA key on P-384.
    #[must_use]
    pub fn p384(seed: &str) -> Self {
        let scalar = Sha384::digest(format!("forge p384 {seed}"));
        Self::new(Secret::P384(p384::ecdsa::SigningKey::from_slice(&scalar).expect("a scalar below the order")))
    }

    /// An ECDSA key on P-521.
    #[must_use]
    pub fn p521(seed: &str) -> Self {
        let mut scalar = vec![0; 2];
        scalar.extend(Sha512::digest(format!("forge p521 {seed}")));
        Self::new(Secret::P521(p521::ecdsa::SigningKey::from_slice(&scalar).expect("a scalar below the order")))
    }

    /// An Ed25519 key.
    #[must_use]
    pub fn ed25519(seed: &str) -> Self {
        let secret: [u8; 32] = Sha256::digest(format!("forge ed25519 {seed}")).into();
        Self::new(Secret::Ed25519(ed25519_dalek::SigningKey::from_bytes(&secret)))
    }

    /// An RSA key of 2048 bits; there are two, the others come round again.
    #[must_use]
    pub fn rsa(number: usize) -> Self {
        let pems = [include_str!("../keys/rsa-2048-1.pem"), include_str!("../keys/rsa-2048-2.pem")];
        Self::rsa_pem(pems[number % pems.len()])
    }

    /// An RSA key of 4096 bits.
    #[must_use]
    pub fn rsa_4096() -> Self {
        Self::rsa_pem(include_str!("../keys/rsa-4096.pem"))
    }

    /// An RSA key that is too short to be believed.
    #[must_use]
    pub fn rsa_1024() -> Self {
        Self::rsa_pem(include_str!("../keys/rsa-1024.pem"))
    }

    /// An RSA key of 2048 bits with the exponent 3.
    #[must_use]
    pub fn rsa_exponent_3() -> Self {
        Self::rsa_pem(include_str!("../keys/rsa-e3.pem"))
    }

    fn rsa_pem(pem: &str) -> Self {
        Self::new(Secret::Rsa(Box::new(rsa::RsaPrivateKey::from_pkcs8_pem(pem).expect("a committed key"))))
    }

    /// The same key inside a certificate, as root keys must be.
    #[must_use]
    pub fn certified(&self, certificate: &Cert) -> Self {
        Self { certificates: Some(certificate.issue(self)), ..self.clone() }
    }

    /// The same key with this text where its certificates should stand.
    #[must_use]
    pub fn with_certificates(&self, pem: impl Into<String>) -> Self {
        Self { certificates: Some(pem.into()), ..self.clone() }
    }

    /// The same key, outside of any certificate.
    #[must_use]
    pub fn bare(&self) -> Self {
        Self { certificates: None, ..self.clone() }
    }

    /// The same key under another `keytype`, which is what its id is made with.
    #[must_use]
    pub fn listed_as(&self, key_type: &str) -> Self {
        Self { key_type: Some(key_type.to_owned()), ..self.clone() }
    }

    /// The same key, signing with a PSS salt of another length than the right 32.
    #[must_use]
    pub fn with_salt(&self, length: usize) -> Self {
        Self { salt: length, ..self.clone() }
    }

    /// The same RSA key, signing by PKCS#1 v1.5.
    #[must_use]
    pub fn with_pkcs1v15(&self) -> Self {
        Self { pkcs1v15: true, ..self.clone() }
    }

    /// The member `keytype`.
    #[must_use]
    pub fn key_type(&self) -> String {
        if let Some(key_type) = &self.key_type {
            return key_type.clone();
        }
        let bare = match &*self.secret {
            Secret::P256(_) | Secret::P384(_) | Secret::P521(_) => "ecdsa",
            Secret::Rsa(_) => "rsa",
            Secret::Ed25519(_) => "ed25519",
        };
        if self.certificates.is_some() { format!("{bare}-x509") } else { bare.to_owned() }
    }

    /// The member `keyval.public`, before base64.
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        match (&self.certificates, &*self.secret) {
            (Some(pem), _) => pem.clone().into_bytes(),
            (None, Secret::Ed25519(key)) => key.verifying_key().to_bytes().to_vec(),
            (None, _) => self.spki(),
        }
    }

    /// DER of the `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        let elliptic = |curve: &[u32], point: &[u8]| {
            let algorithm = der::sequence(&[der::oid(&[1, 2, 840, 10045, 2, 1]), der::oid(curve)]);
            der::sequence(&[algorithm, der::bit_string(point)])
        };
        match &*self.secret {
            Secret::P256(key) => {
                elliptic(&[1, 2, 840, 10045, 3, 1, 7], key.verifying_key().to_sec1_point(false).as_bytes())
            }
            Secret::P384(key) => elliptic(&[1, 3, 132, 0, 34], key.verifying_key().to_sec1_point(false).as_bytes()),
            Secret::P521(key) => elliptic(&[1, 3, 132, 0, 35], key.verifying_key().to_sec1_point(false).as_bytes()),
            Secret::Rsa(key) => {
                let numbers = der::sequence(&[der::unsigned(&key.n_bytes()), der::unsigned(&key.e_bytes())]);
                let algorithm = der::sequence(&[der::oid(&[1, 2, 840, 113_549, 1, 1, 1]), der::null()]);
                der::sequence(&[algorithm, der::bit_string(&numbers)])
            }
            Secret::Ed25519(key) => {
                let algorithm = der::sequence(&[der::oid(&[1, 3, 101, 112])]);
                der::sequence(&[algorithm, der::bit_string(&key.verifying_key().to_bytes())])
            }
        }
    }

    /// The entry of a file's `keys`.
    #[must_use]
    pub fn entry(&self) -> Value {
        json!({"keytype": self.key_type(), "keyval": {"private": null, "public": STANDARD.encode(self.public())}})
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&Sha256::digest(canonical(&self.entry())))
    }

    /// What a signer secret holds: the certificate if there is one, else the bare key.
    #[must_use]
    pub fn pem(&self) -> String {
        self.certificates.clone().unwrap_or_else(|| der::pem("PUBLIC KEY", &self.spki()))
    }

    /// Signs as Notary does: SHA-256 on every curve, r and s of fixed width.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        let hash = Sha256::digest(message);
        match &*self.secret {
            Secret::Rsa(key) if self.pkcs1v15 => {
                let bytes = key.sign(rsa::Pkcs1v15Sign::new::<Sha256>(), &hash).expect("an RSA signature");
                Signature { method: "rsapkcs1v15".to_owned(), bytes }
            }
            Secret::Rsa(key) => {
                let padding = rsa::Pss::<Sha256>::new_with_salt(self.salt);
                let bytes = key.sign_with_rng(&mut Seeded::new(&hash), padding, &hash).expect("an RSA signature");
                Signature { method: "rsapss".to_owned(), bytes }
            }
            Secret::Ed25519(key) => {
                use ed25519_dalek::Signer as _;
                Signature { method: "eddsa".to_owned(), bytes: key.sign(message).to_bytes().to_vec() }
            }
            _ => self.sign_hash(&hash),
        }
    }

    /// An ECDSA signature over a hash that the caller made.
    ///
    /// # Panics
    /// If the key is not an ECDSA key.
    #[must_use]
    pub fn sign_hash(&self, hash: &[u8]) -> Signature {
        const WHY: &str = "a signature over a hash of reasonable length";
        let bytes = match &*self.secret {
            Secret::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash(hash).expect(WHY);
                signature.to_bytes().to_vec()
            }
            Secret::P384(key) => {
                let signature: p384::ecdsa::Signature = key.sign_prehash(hash).expect(WHY);
                signature.to_bytes().to_vec()
            }
            Secret::P521(key) => {
                let signature: p521::ecdsa::Signature = key.sign_prehash(hash).expect(WHY);
                signature.to_bytes().to_vec()
            }
            Secret::Rsa(_) | Secret::Ed25519(_) => panic!("not an ECDSA key"),
        };
        Signature { method: "ecdsa".to_owned(), bytes }
    }

    /// How an X.509 certificate is signed with this key: the algorithm's DER and the signature's bytes.
    pub(crate) fn sign_certificate(&self, body: &[u8], sha1: bool) -> (Vec<u8>, Vec<u8>) {
        if let Secret::Rsa(key) = &*self.secret {
            let (arc, signature) = if sha1 {
                (5, key.sign(rsa::Pkcs1v15Sign::new::<sha1::Sha1>(), &sha1::Sha1::digest(body)))
            } else {
                (11, key.sign(rsa::Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(body)))
            };
            let algorithm = der::sequence(&[der::oid(&[1, 2, 840, 113_549, 1, 1, arc]), der::null()]);
            return (algorithm, signature.expect("an RSA signature"));
        }
        let (algorithm, raw) = if sha1 {
            // ECDSA takes the hash as a number, so zeros in front change nothing but please the library's length check.
            let hash = [&[0; 12], &sha1::Sha1::digest(body)[..]].concat();
            (der::oid(&[1, 2, 840, 10045, 4, 1]), self.sign_hash(&hash).bytes)
        } else {
            (der::oid(&[1, 2, 840, 10045, 4, 3, 2]), self.sign_hash(&Sha256::digest(body)).bytes)
        };
        (der::sequence(&[algorithm]), ecdsa_der(&raw))
    }
}

/// The DER form of an ECDSA signature, which Notary does not take.
pub(crate) fn ecdsa_der(raw: &[u8]) -> Vec<u8> {
    let (r, s) = raw.split_at(raw.len() / 2);
    der::sequence(&[der::unsigned(r), der::unsigned(s)])
}

/// The other of the two valid signatures on P-256: s replaced by the group's order less s.
pub(crate) fn other_s(raw: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
        0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (r, s) = raw.split_at(32);
    let mut other = r.to_vec();
    other.resize(64, 0);
    let mut borrow = 0i16;
    for at in (0..32).rev() {
        let digit = i16::from(ORDER[at]) - i16::from(s[at]) - borrow;
        borrow = i16::from(digit < 0);
        other[32 + at] = u8::try_from(digit.rem_euclid(256)).expect("a byte");
    }
    other
}

/// Of the two valid signatures on P-256 the one with the larger s, which some libraries refuse and Notary makes.
pub(crate) fn high_s(raw: &[u8]) -> Vec<u8> {
    let other = other_s(raw);
    if other[32..] > raw[32..] { other } else { raw.to_vec() }
}

/// Bytes that look random and are the same every time: salts and blinding of RSA, where no secret is at stake.
struct Seeded {
    seed: [u8; 32],
    count: u64,
}

impl Seeded {
    fn new(seed: &[u8]) -> Self {
        Self { seed: Sha256::digest(seed).into(), count: 0 }
    }
}

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for chunk in out.chunks_mut(32) {
            self.count += 1;
            let block = Sha256::new().chain_update(self.seed).chain_update(self.count.to_be_bytes()).finalize();
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Seeded {}
