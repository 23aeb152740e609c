//! Bare public keys, and what a signature by each of them is.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::der;
use crate::fingerprint::Fingerprint;
use crate::problem::KeyProblem;

/// The smallest RSA modulus that is believed, in bits. Notary has the same bound.
const MIN_RSA_BITS: usize = 2048;
/// The largest RSA modulus that is tried, in bits: the largest that aws-lc verifies.
const MAX_RSA_BITS: usize = 8192;
/// The smallest RSA exponent that is believed (NIST SP 800-56B §6.2). Go takes 3.
const MIN_RSA_EXPONENT: u64 = 65_537;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// RFC 8410 §3.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
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
    /// ECDSA under SHA-256 on every curve; the signature is the DER of RFC 3279 §2.2.3.
    EcdsaSha256Der,
    /// ECDSA on P-384 under SHA-384; r and s, each as wide as the curve.
    EcdsaSha384Fixed,
    /// ECDSA on P-384 under SHA-384, in DER.
    EcdsaSha384Der,
    /// ECDSA on P-521 under SHA-512; r and s, each as wide as the curve.
    EcdsaSha512Fixed,
    /// ECDSA on P-521 under SHA-512, in DER.
    EcdsaSha512Der,
    /// RSASSA-PSS under SHA-256 with a salt of 32 bytes.
    RsaPssSha256,
    /// RSASSA-PKCS1-v1_5 under SHA-256.
    RsaPkcs1Sha256,
    /// Ed25519 over the message itself.
    Ed25519,
}

/// A bare key that can verify. Two that are equal are the same key, in whatever form each of them came: for each key there
/// is one `algorithm` and one `bytes`, and [`Self::spki`] is made of these two alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Material {
    algorithm: Algorithm,
    /// The uncompressed point of a curve, DER of an RFC 8017 `RSAPublicKey`, or the 32 bytes of RFC 8032.
    bytes: Vec<u8>,
}

impl Material {
    /// Reads the DER of a `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7) that holds an ECDSA, RSA or Ed25519 key.
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
        if info.algorithm.oid == ED25519 {
            // RFC 8410 §3: the parameters must be absent.
            return if info.algorithm.parameters.is_none() { Self::ed25519(bits) } else { Err(KeyProblem::Malformed) };
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

    /// DER of the key's `SubjectPublicKeyInfo`, made anew: the same for the same key, however it was encoded where it came
    /// from.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        let curve = |oid: ObjectIdentifier| [identifier(EC_PUBLIC_KEY), identifier(oid)].concat();
        let algorithm = match self.algorithm {
            Algorithm::P256 => curve(P256),
            Algorithm::P384 => curve(P384),
            Algorithm::P521 => curve(P521),
            Algorithm::Rsa => [identifier(RSA_ENCRYPTION), der::NULL.to_vec()].concat(),
            Algorithm::Ed25519 => identifier(ED25519),
        };
        let parts = [der::element(der::SEQUENCE, &algorithm), der::bit_string(&self.bytes)];
        der::element(der::SEQUENCE, &parts.concat())
    }

    /// The key's id: the sha256 of [`Self::spki`].
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.spki())
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
            (Algorithm::P256, Scheme::EcdsaSha256Der) => check(&signature::ECDSA_P256_SHA256_ASN1, signature),
            (Algorithm::P384, Scheme::EcdsaSha256Der) => check(&signature::ECDSA_P384_SHA256_ASN1, signature),
            (Algorithm::P521, Scheme::EcdsaSha256Der) => check(&signature::ECDSA_P521_SHA256_ASN1, signature),
            (Algorithm::P384, Scheme::EcdsaSha384Fixed) => check(&signature::ECDSA_P384_SHA384_FIXED, signature),
            (Algorithm::P384, Scheme::EcdsaSha384Der) => check(&signature::ECDSA_P384_SHA384_ASN1, signature),
            (Algorithm::P521, Scheme::EcdsaSha512Fixed) => check(&signature::ECDSA_P521_SHA512_FIXED, signature),
            (Algorithm::P521, Scheme::EcdsaSha512Der) => check(&signature::ECDSA_P521_SHA512_ASN1, signature),
            (Algorithm::Rsa, Scheme::RsaPssSha256) => check(&signature::RSA_PSS_2048_8192_SHA256, signature),
            (Algorithm::Rsa, Scheme::RsaPkcs1Sha256) => check(&signature::RSA_PKCS1_2048_8192_SHA256, signature),
            (Algorithm::Ed25519, Scheme::Ed25519) => check(&signature::ED25519, signature),
            _ => false,
        }
    }
}

/// DER of an ECDSA signature that came as r and s of `width` bytes each. aws-lc has no fixed-width form of P-384 under
/// SHA-256.
fn fixed_to_der(signature: &[u8], width: usize) -> Option<Vec<u8>> {
    if signature.len() != 2 * width {
        return None;
    }
    let (r, s) = signature.split_at(width);
    Some(der::element(der::SEQUENCE, &[der::positive(r)?, der::positive(s)?].concat()))
}

fn identifier(oid: ObjectIdentifier) -> Vec<u8> {
    der::element(der::OBJECT_IDENTIFIER, oid.as_bytes())
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

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use forge::Key;

    use super::*;

    /// The keys of the forge, which writes DER on its own.
    fn keys() -> [Key; 6] {
        [Key::p256("a"), Key::p384("a"), Key::p521("a"), Key::rsa(0), Key::rsa_4096(), Key::ed25519("a")]
    }

    #[test]
    fn what_is_read_is_written_anew_byte_for_byte() {
        for key in keys() {
            let material = Material::from_spki(&key.spki()).unwrap();
            assert_eq!(material.spki(), key.spki());
            let hash = forge::sha256(&key.spki());
            assert_eq!(material.fingerprint().to_string(), forge::hex(&hash));
            assert_eq!(material.fingerprint().base64(), STANDARD.encode(hash));
        }
    }

    /// RFC 3279 wants a NULL behind the identifier of RSA, and readers take keys without it.
    #[test]
    fn one_key_has_one_id_however_it_is_encoded() {
        let spki = Key::rsa(0).spki();
        let material = Material::from_spki(&spki).unwrap();
        let without = [identifier(RSA_ENCRYPTION)].concat();
        let parts = [der::element(der::SEQUENCE, &without), der::bit_string(&material.bytes)];
        let other = Material::from_spki(&der::element(der::SEQUENCE, &parts.concat())).unwrap();
        assert_eq!(other, material);
        assert_eq!(other.fingerprint(), material.fingerprint());
    }

    #[test]
    fn ed25519_is_32_bytes_without_parameters() {
        let spki = |parameters: &[u8], bytes: &[u8]| {
            let algorithm = [identifier(ED25519), parameters.to_vec()].concat();
            let parts = [der::element(der::SEQUENCE, &algorithm), der::bit_string(bytes)];
            Material::from_spki(&der::element(der::SEQUENCE, &parts.concat())).map(|material| material.algorithm())
        };
        assert_eq!(spki(&[], &[7; 32]), Ok(Algorithm::Ed25519));
        for (parameters, bytes) in [(&der::NULL[..], &[7; 32][..]), (&[], &[7; 31]), (&[], &[7; 33]), (&[], &[])] {
            assert_eq!(spki(parameters, bytes), Err(KeyProblem::Malformed));
        }
    }

    fn der_of(fixed: &[u8]) -> Vec<u8> {
        fixed_to_der(fixed, fixed.len() / 2).unwrap()
    }

    /// Every scheme against every hash: only the pairs that are listed verify.
    #[test]
    fn a_scheme_takes_one_hash_and_one_encoding() {
        use Scheme::{
            EcdsaSha256Der, EcdsaSha256Fixed, EcdsaSha384Der, EcdsaSha384Fixed, EcdsaSha512Der, EcdsaSha512Fixed,
        };
        use aws_lc_rs::digest;
        let message = b"signed";
        let hash = |algorithm| digest::digest(algorithm, message).as_ref().to_vec();
        let hashes = [hash(&digest::SHA256), hash(&digest::SHA384), hash(&digest::SHA512)];
        let schemes = [
            [EcdsaSha256Fixed, EcdsaSha256Der],
            [EcdsaSha384Fixed, EcdsaSha384Der],
            [EcdsaSha512Fixed, EcdsaSha512Der],
        ];
        // For each curve, under which of the three hashes a signature is one.
        for (key, taken) in [
            (Key::p256("a"), [true, false, false]),
            (Key::p384("a"), [true, true, false]),
            (Key::p521("a"), [true, false, true]),
        ] {
            let material = Material::from_spki(&key.spki()).unwrap();
            for (made, hash) in hashes.iter().enumerate() {
                let fixed = key.sign_hash(hash).bytes;
                for (asked, [in_fixed, in_der]) in schemes.into_iter().enumerate() {
                    let expected = made == asked && taken[asked];
                    assert_eq!(material.verify(in_fixed, message, &fixed), expected, "{in_fixed:?}");
                    assert_eq!(material.verify(in_der, message, &der_of(&fixed)), expected, "{in_der:?}");
                    assert!(!material.verify(in_fixed, message, &der_of(&fixed)));
                    assert!(!material.verify(in_der, message, &fixed));
                    assert!(!material.verify(in_der, message, &[der_of(&fixed), vec![0]].concat()), "trailing");
                    assert!(!material.verify(in_der, b"other", &der_of(&fixed)));
                }
            }
        }
    }
}
