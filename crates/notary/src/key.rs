//! Keys, their ids, and what a signature by each of them is.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use thiserror::Error;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::certificate::Certificate;
use crate::pem;

/// The smallest RSA modulus that is believed, in bits. Notary has the same bound.
const MIN_RSA_BITS: usize = 2048;
/// The largest RSA modulus that is tried, in bits: the largest that aws-lc verifies.
const MAX_RSA_BITS: usize = 8192;
/// The smallest RSA exponent that is believed (NIST SP 800-56B §6.2). Go takes 3.
const MIN_RSA_EXPONENT: u64 = 65_537;

/// The id of a key: sha256 over the canonical form of its type and public bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 32]);

impl KeyId {
    /// Reads 64 lower-case hex digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Lower-case hex of some bytes.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The 32 bytes that 64 lower-case hex digits stand for.
#[must_use]
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyProblem {
    /// The bytes are not what the key type says.
    #[error("the key is malformed")]
    Malformed,
    /// A key type or curve that Notary does not have, or that is too weak.
    #[error("the key is of a type or curve that is not supported")]
    Unsupported,
    /// An RSA key outside 2048 to 8192 bits, or with an exponent below 65537.
    #[error("the RSA key is too weak (2048 to 8192 bits and an exponent from 65537 up are accepted)")]
    WeakRsa,
    /// The certificate was signed with SHA-1 or weaker.
    #[error("the key's certificate is signed with SHA-1 or a weaker hash")]
    WeakCertificate,
    /// The certificate has expired.
    #[error("the key's certificate has expired")]
    CertificateExpired,
    /// The certificate starts more than a day from now.
    #[error("the key's certificate is not valid yet")]
    CertificateNotYetValid,
    /// The certificate names another repository.
    #[error("the key's certificate is for another repository")]
    CertificateName,
    /// Not exactly one certificate that is not a CA, or it does not stand first.
    #[error("the key's certificates are not one leaf followed by CAs")]
    CertificateBundle,
    /// A root key that is not a certificate.
    #[error("a root key must be a certificate")]
    NotACertificate,
}

/// How a signature says it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Ecdsa,
    RsaPss,
    RsaPkcs1v15,
    Eddsa,
}

impl Method {
    /// Methods are compared without regard to case, as Notary does. An unknown one is no error: its signature is not counted.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "ecdsa" => Self::Ecdsa,
            "rsapss" => Self::RsaPss,
            "rsapkcs1v15" => Self::RsaPkcs1v15,
            "eddsa" => Self::Eddsa,
            _ => return None,
        })
    }
}

/// The bare key, ready to verify with. Two keys with equal material are the same key, in whatever form they were listed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Material {
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Vec<u8>),
    /// DER of an RFC 8017 `RSAPublicKey`.
    Rsa(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// A public key as a metadata file lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    canonical_id: KeyId,
    usable: Result<Usable, KeyProblem>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Usable {
    material: Material,
    certificate: Option<Certificate>,
}

impl PublicKey {
    /// Takes the members `keytype` and `keyval.public` (decoded). A key that cannot be used is still a key with an id; it
    /// just never verifies anything.
    pub(crate) fn new(key_type: &str, public: &[u8]) -> Self {
        let id = key_id(key_type, public);
        let usable = read_key(key_type, public);
        let canonical_id = match &usable {
            Ok(Usable { material, certificate: Some(certificate) }) => key_id(material.bare_type(), &certificate.spki),
            _ => id,
        };
        Self { id, canonical_id, usable }
    }

    /// The id under which metadata lists the key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The id of the bare key inside a certificate; the same as [`Self::id`] for a bare key. The `notary` and `docker`
    /// tools print this one.
    #[must_use]
    pub fn canonical_id(&self) -> KeyId {
        self.canonical_id
    }

    /// Whether two keys are the same, in whatever form each of them stands.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        match (&self.usable, &other.usable) {
            (Ok(one), Ok(other)) => one.material == other.material,
            _ => self.id == other.id,
        }
    }

    /// Whether the key can be used at a time. A bare key always can; a certificate, a signer's too, only while it is
    /// valid (the Go client takes expired ones, `notary-v1.md` §11).
    pub(crate) fn check_time(&self, now: Timestamp) -> Result<(), KeyProblem> {
        self.certificate()?.map_or(Ok(()), |certificate| certificate.check_time(now))
    }

    /// The certificate that holds the key, if one does.
    pub(crate) fn certificate(&self) -> Result<Option<&Certificate>, KeyProblem> {
        self.usable.as_ref().map(|usable| usable.certificate.as_ref()).map_err(|problem| *problem)
    }

    /// Whether a signature over `message` is this key's. `Ok(false)` is a wrong signature, an error a key that cannot
    /// be used.
    pub(crate) fn verify(&self, method: Method, message: &[u8], signature: &[u8]) -> Result<bool, KeyProblem> {
        let usable = self.usable.as_ref().map_err(|problem| *problem)?;
        Ok(usable.material.verify(method, message, signature))
    }
}

impl Material {
    fn bare_type(&self) -> &'static str {
        match self {
            Self::P256(_) | Self::P384(_) | Self::P521(_) => "ecdsa",
            Self::Rsa(_) => "rsa",
            Self::Ed25519(_) => "ed25519",
        }
    }

    /// `notary-v1.md` §5: ECDSA is r and s of fixed width under SHA-256 on every curve; RSA-PSS has a salt of 32 bytes.
    fn verify(&self, method: Method, message: &[u8], signature: &[u8]) -> bool {
        let check = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8], signature: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        match (self, method) {
            (Self::P256(point), Method::Ecdsa) => check(&signature::ECDSA_P256_SHA256_FIXED, point, signature),
            (Self::P384(point), Method::Ecdsa) => {
                fixed_to_der(signature, 48).is_some_and(|der| check(&signature::ECDSA_P384_SHA256_ASN1, point, &der))
            }
            (Self::P521(point), Method::Ecdsa) => {
                fixed_to_der(signature, 66).is_some_and(|der| check(&signature::ECDSA_P521_SHA256_ASN1, point, &der))
            }
            (Self::Rsa(key), Method::RsaPss) => check(&signature::RSA_PSS_2048_8192_SHA256, key, signature),
            (Self::Rsa(key), Method::RsaPkcs1v15) => check(&signature::RSA_PKCS1_2048_8192_SHA256, key, signature),
            (Self::Ed25519(key), Method::Eddsa) => check(&signature::ED25519, key, signature),
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

/// `hex(sha256(canonical({"keytype":T,"keyval":{"private":null,"public":B64}})))`, `notary-v1.md` §5.
fn key_id(key_type: &str, public: &[u8]) -> KeyId {
    let quoted = key_type.replace('\\', "\\\\").replace('"', "\\\"");
    let text =
        format!(r#"{{"keytype":"{quoted}","keyval":{{"private":null,"public":"{}"}}}}"#, STANDARD.encode(public));
    KeyId(sha256(text.as_bytes()))
}

/// The sha256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn read_key(key_type: &str, public: &[u8]) -> Result<Usable, KeyProblem> {
    let bare = |material| Usable { material, certificate: None };
    let wanted = match key_type {
        "ed25519" => {
            return if public.len() == 32 {
                Ok(bare(Material::Ed25519(public.to_vec())))
            } else {
                Err(KeyProblem::Malformed)
            };
        }
        "ecdsa" | "rsa" => key_type,
        "ecdsa-x509" => "ecdsa",
        "rsa-x509" => "rsa",
        _ => return Err(KeyProblem::Unsupported),
    };
    let certificate = if key_type == wanted {
        None
    } else {
        let text = std::str::from_utf8(public).map_err(|_| KeyProblem::Malformed)?;
        let certificate = Certificate::of_bundle(text)?;
        if certificate.weak_signature {
            return Err(KeyProblem::WeakCertificate);
        }
        Some(certificate)
    };
    let material = read_spki(certificate.as_ref().map_or(public, |certificate| &certificate.spki))?;
    if material.bare_type() != wanted {
        return Err(KeyProblem::Malformed);
    }
    Ok(Usable { material, certificate })
}

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

fn read_spki(der: &[u8]) -> Result<Material, KeyProblem> {
    let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyProblem::Malformed)?;
    let bits = info.subject_public_key.as_bytes().ok_or(KeyProblem::Malformed)?;
    if info.algorithm.oid == RSA_ENCRYPTION {
        check_rsa(bits)?;
        return Ok(Material::Rsa(bits.to_vec()));
    }
    if info.algorithm.oid != EC_PUBLIC_KEY {
        return Err(KeyProblem::Unsupported);
    }
    let curve = info.algorithm.parameters_oid().map_err(|_| KeyProblem::Malformed)?;
    let (width, make): (usize, fn(Vec<u8>) -> Material) = match curve {
        P256 => (32, Material::P256),
        P384 => (48, Material::P384),
        P521 => (66, Material::P521),
        _ => return Err(KeyProblem::Unsupported),
    };
    // One encoding for each key, or the same key could stand for two: only the uncompressed point is read.
    if bits.len() != 1 + 2 * width || bits[0] != 4 {
        return Err(KeyProblem::Malformed);
    }
    Ok(make(bits.to_vec()))
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

/// Why a signer's public key cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignerError {
    /// The name cannot be that of a Docker signer.
    #[error(
        "{0:?} cannot be a signer's name: lower-case letters, digits, `-` and `_` are allowed, and `releases` is reserved"
    )]
    Name(String),
    /// No PEM block, or a broken one.
    #[error("the public key is not PEM text (`-----BEGIN PUBLIC KEY-----` or `-----BEGIN CERTIFICATE-----`)")]
    NotPem,
    /// A PEM block of another sort.
    #[error("the public key is a PEM block {0:?}, not a `PUBLIC KEY` or a `CERTIFICATE`")]
    Label(String),
    /// The key is no good.
    #[error("{0}")]
    Key(KeyProblem),
}

/// A signer that a policy asks for: a name, and the key that must have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    name: String,
    key: PublicKey,
}

impl Signer {
    /// Takes the signer's name (`alice`, or the role `targets/alice`) and its public key or certificate in PEM, with or
    /// without headers. Only the first block counts. An expired certificate is refused where it is used, not here.
    ///
    /// # Errors
    /// A name that is no signer's, text that is not PEM, or a key that is of no use.
    pub fn new(name: &str, public_key_pem: &[u8]) -> Result<Self, SignerError> {
        let short = name.strip_prefix("targets/").unwrap_or(name);
        let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'/');
        let segments_legal = short.split('/').all(|segment| !segment.is_empty() && !segment.starts_with(['-', '_']));
        if short.len() > 200 || !short.bytes().all(legal) || !segments_legal || short == "releases" {
            return Err(SignerError::Name(name.chars().take(200).collect()));
        }
        Ok(Self { name: short.to_owned(), key: read_public_key_pem(public_key_pem)? })
    }

    /// The name, without `targets/`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key that must have signed.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
}

/// Reads the first PEM block as Notary reads a signer's key: `PUBLIC KEY` over the DER as given, `CERTIFICATE` over the
/// certificate encoded anew.
pub(crate) fn read_public_key_pem(text: &[u8]) -> Result<PublicKey, SignerError> {
    let text = std::str::from_utf8(text).map_err(|_| SignerError::NotPem)?;
    let block = pem::blocks(text).into_iter().next().ok_or(SignerError::NotPem)?;
    let (spki, suffix) = match block.label.as_str() {
        "PUBLIC KEY" => (block.der.clone(), ""),
        "CERTIFICATE" => (Certificate::from_der(&block.der).map_err(SignerError::Key)?.spki, "-x509"),
        _ => return Err(SignerError::Label(block.label)),
    };
    let key_type = format!("{}{suffix}", read_spki(&spki).map_err(SignerError::Key)?.bare_type());
    let public = if suffix.is_empty() { block.der } else { pem::encode("CERTIFICATE", &block.der).into_bytes() };
    let key = PublicKey::new(&key_type, &public);
    match key.usable {
        Ok(_) => Ok(key),
        Err(problem) => Err(SignerError::Key(problem)),
    }
}

/// A name made of other names that is fit for a file: hex of a hash, without anything that a stranger chose.
#[must_use]
pub fn name_hash(parts: &[&str]) -> String {
    to_hex(&sha256(parts.join("\n").as_bytes()))
}
