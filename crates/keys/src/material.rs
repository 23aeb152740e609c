//! Bare public keys, and what a signature by each of them is.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::problem::KeyProblem;

/// The smallest RSA modulus that is believed, in bits. Notary has the same bound.
const MIN_RSA_BITS: usize = 2048;
/// The largest RSA modulus that is tried, in bits: the largest that aws-lc verifies.
const MAX_RSA_BITS: usize = 8192;
/// The smallest RSA exponent that is believed (NIST SP 800-56B §6.2). Go takes 3.
const MIN_RSA_EXPONENT: u64 = 65_537;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// What a key computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA on the curve P-256.
    P256,
    /// ECDSA on the curve P-384.
    P384,
    /// ECDSA on the curve P-521.
    P521,
    /// RSA.
    Rsa,
    /// Ed25519 (RFC 8032).
    Ed25519,
}

/// How a signature was made. Formats differ in it, also for one and the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// ECDSA under SHA-256 on every curve; the signature is r and s, each as wide as the curve.
    EcdsaSha256Fixed,
    /// RSASSA-PSS under SHA-256 with a salt of 32 bytes.
    RsaPssSha256,
    /// RSASSA-PKCS1-v1_5 under SHA-256.
    RsaPkcs1Sha256,
    /// Ed25519 over the message itself.
    Ed25519,
}

/// A bare key that can verify. Two that are equal are the same key, in whatever form each of them came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Material {
    algorithm: Algorithm,
    /// The uncompressed point of a curve, DER of an RFC 8017 `RSAPublicKey`, or the 32 bytes of RFC 8032.
    bytes: Vec<u8>,
}

impl Material {
    /// Reads the DER of a `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7) that holds an ECDSA or RSA key.
    ///
    /// # Errors
    /// Bytes that are none, another kind of key, or an RSA key that is too weak.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyProblem> {
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyProblem::Malformed)?;
        let bits = info.subject_public_key.as_bytes().ok_or(KeyProblem::Malformed)?;
        if info.algorithm.oid == RSA_ENCRYPTION {
            check_rsa(bits)?;
            return Ok(Self { algorithm: Algorithm::Rsa, bytes: bits.to_vec() });
        }
        if info.algorithm.oid != EC_PUBLIC_KEY {
            return Err(KeyProblem::Unsupported);
        }
        let curve = info.algorithm.parameters_oid().map_err(|_| KeyProblem::Malformed)?;
        let (width, algorithm) = match curve {
            P256 => (32, Algorithm::P256),
            P384 => (48, Algorithm::P384),
            P521 => (66, Algorithm::P521),
            _ => return Err(KeyProblem::Unsupported),
        };
        // One encoding for each key, or the same key could stand for two: only the uncompressed point is read.
        if bits.len() != 1 + 2 * width || bits[0] != 4 {
            return Err(KeyProblem::Malformed);
        }
        Ok(Self { algorithm, bytes: bits.to_vec() })
    }

    /// Takes the 32 bytes of an Ed25519 key.
    ///
    /// # Errors
    /// Another number of bytes.
    pub fn ed25519(bytes: &[u8]) -> Result<Self, KeyProblem> {
        if bytes.len() != 32 {
            return Err(KeyProblem::Malformed);
        }
        Ok(Self { algorithm: Algorithm::Ed25519, bytes: bytes.to_vec() })
    }

    /// What the key computes with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether a signature over `message` is this key's. One of a scheme that is not the key's is none.
    #[must_use]
    pub fn verify(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
        let check = |algorithm: &'static dyn VerificationAlgorithm, signature: &[u8]| {
            UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok()
        };
        match (self.algorithm, scheme) {
            (Algorithm::P256, Scheme::EcdsaSha256Fixed) => check(&signature::ECDSA_P256_SHA256_FIXED, signature),
            (Algorithm::P384, Scheme::EcdsaSha256Fixed) => {
                fixed_to_der(signature, 48).is_some_and(|der| check(&signature::ECDSA_P384_SHA256_ASN1, &der))
            }
            (Algorithm::P521, Scheme::EcdsaSha256Fixed) => {
                fixed_to_der(signature, 66).is_some_and(|der| check(&signature::ECDSA_P521_SHA256_ASN1, &der))
            }
            (Algorithm::Rsa, Scheme::RsaPssSha256) => check(&signature::RSA_PSS_2048_8192_SHA256, signature),
            (Algorithm::Rsa, Scheme::RsaPkcs1Sha256) => check(&signature::RSA_PKCS1_2048_8192_SHA256, signature),
            (Algorithm::Ed25519, Scheme::Ed25519) => check(&signature::ED25519, signature),
            _ => false,
        }
    }
}

/// DER of an ECDSA signature that came as r and s of `width` bytes each. aws-lc has no fixed-width form of P-384 or
/// P-521 under SHA-256.
fn fixed_to_der(signature: &[u8], width: usize) -> Option<Vec<u8>> {
    if signature.len() != 2 * width {
        return None;
    }
    let mut body = Vec::with_capacity(2 * width + 8);
    for half in signature.chunks_exact(width) {
        let digits = &half[half.iter().position(|byte| *byte != 0)?..];
        let pad = digits[0] >= 0x80;
        body.push(0x02);
        body.push(u8::try_from(digits.len() + usize::from(pad)).ok()?);
        if pad {
            body.push(0);
        }
        body.extend_from_slice(digits);
    }
    let mut der = vec![0x30];
    if body.len() >= 0x80 {
        der.push(0x81);
    }
    der.push(u8::try_from(body.len()).ok()?);
    der.extend_from_slice(&body);
    Some(der)
}

/// Checks the size of an RFC 8017 `RSAPublicKey`.
fn check_rsa(der: &[u8]) -> Result<(), KeyProblem> {
    use x509_cert::der::asn1::UintRef;
    let mut reader = SliceReader::new(der).map_err(|_| KeyProblem::Malformed)?;
    let numbers = reader
        .sequence(|body| -> Result<_, x509_cert::der::Error> { Ok((UintRef::decode(body)?, UintRef::decode(body)?)) })
        .and_then(|numbers| reader.finish().map(|()| numbers));
    let (modulus, exponent) = numbers.map_err(|_| KeyProblem::Malformed)?;
    let modulus = modulus.as_bytes();
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let exponent = exponent.as_bytes();
    let small = exponent.len() <= 8
        && exponent.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte)) < MIN_RSA_EXPONENT;
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) || small {
        return Err(KeyProblem::WeakRsa);
    }
    Ok(())
}
