//! Keys as metadata files list them, their ids, and the signers that a policy asks for.
//!
//! `docs/notary-v1.md#keys` and `#signers` have the rules.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_image::Sha256;
use countersign_keys::{Algorithm, Certificate, KeyProblem, Material, Scheme, pem};
use jiff::Timestamp;
use thiserror::Error;

/// The id of a key: sha256 over the canonical form of its type and public bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Sha256);

impl KeyId {
    /// Reads 64 lower-case hex digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        Sha256::from_hex(text).map(Self)
    }

    /// Its first bytes.
    pub(crate) fn prefix(self) -> [u8; 8] {
        self.0.bytes().first_chunk().copied().unwrap_or_default()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.hex())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// How the signature says that it was made: on every curve under SHA-256, as r and s of fixed width; RSA-PSS with a salt of 32 bytes
/// (`tuf/signed/verifiers.go` of Notary). Methods are compared without regard to case, as Notary does. An unknown one is no error:
/// its signature is not counted.
pub(crate) fn scheme(method: &str) -> Option<Scheme> {
    Some(match method.to_ascii_lowercase().as_str() {
        "ecdsa" => Scheme::EcdsaSha256Fixed,
        "rsapss" => Scheme::RsaPssSha256,
        "rsapkcs1v15" => Scheme::RsaPkcs1Sha256,
        "eddsa" => Scheme::Ed25519,
        _ => return None,
    })
}

/// What a bare key is called as `keytype`.
fn bare_type(material: &Material) -> &'static str {
    match material.algorithm() {
        Algorithm::P256 | Algorithm::P384 | Algorithm::P521 => "ecdsa",
        Algorithm::Rsa => "rsa",
        Algorithm::Ed25519 => "ed25519",
    }
}

/// A public key as a metadata file lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    canonical_id: KeyId,
    material_id: KeyId,
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
            Ok(Usable { material, certificate: Some(certificate) }) => key_id(bare_type(material), &certificate.spki),
            _ => id,
        };
        let material_id =
            usable.as_ref().map_or(id, |Usable { material, .. }| key_id(bare_type(material), &material.spki()));
        Self { id, canonical_id, material_id, usable }
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

    /// One id for each key, in whatever form it stands: in a certificate or bare, and with each way in which its parameters may be written.
    /// One that cannot be used has that of its form.
    pub(crate) fn material_id(&self) -> KeyId {
        self.material_id
    }

    /// Whether two keys are the same, in whatever form each of them stands.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        match (&self.usable, &other.usable) {
            (Ok(one), Ok(other)) => one.material == other.material,
            _ => self.id == other.id,
        }
    }

    /// Whether the key can be used at a time. A bare key always can; a certificate, a signer's too, only while it is
    /// valid (the Go client takes expired ones).
    pub(crate) fn check_time(&self, now: Timestamp) -> Result<(), KeyProblem> {
        self.certificate()?.map_or(Ok(()), |certificate| certificate.check_time(now))
    }

    /// The certificate that holds the key, if one does.
    pub(crate) fn certificate(&self) -> Result<Option<&Certificate>, KeyProblem> {
        self.usable.as_ref().map(|usable| usable.certificate.as_ref()).map_err(|problem| *problem)
    }

    /// Whether a signature over `message` is this key's. `Ok(false)` is a wrong signature, an error a key that cannot
    /// be used.
    pub(crate) fn verify(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> Result<bool, KeyProblem> {
        let usable = self.usable.as_ref().map_err(|problem| *problem)?;
        Ok(usable.material.verify(scheme, message, signature))
    }
}

/// `hex(sha256(canonical({"keytype":T,"keyval":{"private":null,"public":B64}})))`: `TUFKey.ID` in `tuf/data/keys.go` of Notary.
fn key_id(key_type: &str, public: &[u8]) -> KeyId {
    let quoted = key_type.replace('\\', "\\\\").replace('"', "\\\"");
    let text =
        format!(r#"{{"keytype":"{quoted}","keyval":{{"private":null,"public":"{}"}}}}"#, STANDARD.encode(public));
    KeyId(Sha256::of(text.as_bytes()))
}

/// Reads a key of ECDSA or RSA. Notary lists an Ed25519 key as its 32 bytes and has no other form of it (`NewPublicKey` in
/// `tuf/data/keys.go`), so one in a `SubjectPublicKeyInfo` is none of its keys, although other formats take it.
fn from_spki(der: &[u8]) -> Result<Material, KeyProblem> {
    let material = Material::from_spki(der)?;
    match material.algorithm() {
        Algorithm::P256 | Algorithm::P384 | Algorithm::P521 | Algorithm::Rsa => Ok(material),
        Algorithm::Ed25519 => Err(KeyProblem::Unsupported),
    }
}

fn read_key(key_type: &str, public: &[u8]) -> Result<Usable, KeyProblem> {
    let wanted = match key_type {
        "ed25519" => {
            return Ok(Usable { material: Material::ed25519(public)?, certificate: None });
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
    let material = from_spki(certificate.as_ref().map_or(public, |certificate| &certificate.spki))?;
    if bare_type(&material) != wanted {
        return Err(KeyProblem::Malformed);
    }
    Ok(Usable { material, certificate })
}

/// How much of a PEM block's label is repeated.
const MAX_LABEL: usize = 64;

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
        _ => return Err(SignerError::Label(block.label.chars().take(MAX_LABEL).collect())),
    };
    let key_type = format!("{}{suffix}", bare_type(&from_spki(&spki).map_err(SignerError::Key)?));
    let public = if suffix.is_empty() { block.der } else { pem::encode("CERTIFICATE", &block.der).into_bytes() };
    let key = PublicKey::new(&key_type, &public);
    match key.usable {
        Ok(_) => Ok(key),
        Err(problem) => Err(SignerError::Key(problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ed25519_in_an_spki_is_no_key_of_notary() {
        let key = forge::Key::ed25519("a");
        for key_type in ["ecdsa", "rsa"] {
            assert_eq!(PublicKey::new(key_type, &key.spki()).usable, Err(KeyProblem::Unsupported));
        }
        assert_eq!(PublicKey::new("ed25519", &key.spki()).usable, Err(KeyProblem::Malformed));
        assert!(PublicKey::new("ed25519", &key.public()).usable.is_ok());
        let signer = Signer::new("alice", key.pem().as_bytes());
        assert_eq!(signer, Err(SignerError::Key(KeyProblem::Unsupported)));
        let certified = key.certified(&forge::Cert::new("app", forge::NOW).issued_by("ca", &forge::Key::p256("ca")));
        for key_type in ["ecdsa-x509", "rsa-x509"] {
            let usable = PublicKey::new(key_type, &certified.public()).usable;
            assert_eq!(usable, Err(KeyProblem::Unsupported), "{key_type}");
        }
    }

    /// Two forms of one key have two ids, and one for the key itself.
    #[test]
    fn a_key_has_one_id_in_whatever_form() {
        let rsa = forge::Key::rsa(0);
        let with_null = rsa.spki();
        let start = with_null.windows(2).position(|bytes| bytes == [5, 0]).unwrap();
        let mut without = [&with_null[..start], &with_null[start + 2..]].concat();
        // The lengths of both sequences that the NULL was in.
        assert_eq!((without[0], without[1], without[4]), (0x30, 0x82, 0x30));
        without[3] -= 2;
        without[5] -= 2;
        let (one, other) = (PublicKey::new("rsa", &with_null), PublicKey::new("rsa", &without));
        assert!(one.usable.is_ok() && one.same_as(&other), "{other:?}");
        assert!(one.id() != other.id() && one.canonical_id() != other.canonical_id());
        assert_eq!(one.material_id(), other.material_id());
        let bare = forge::Key::p256("a");
        let certified = bare.certified(&forge::Cert::new("app", forge::NOW));
        let [bare, certified] = [bare, certified].map(|key| PublicKey::new(&key.key_type(), &key.public()));
        assert!(bare.id() != certified.id());
        assert_eq!(bare.material_id(), certified.material_id());
        assert_ne!(one.material_id(), bare.material_id());
    }
}
