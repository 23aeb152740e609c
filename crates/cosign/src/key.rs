//! Public keys that a policy lists, each under a name.

use countersign_image::shown;
use countersign_keys::{Fingerprint, KeyProblem, Material, pem};
use thiserror::Error;

/// Why a text is no public key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key has no name.
    #[error("the key has no name")]
    NoName,
    /// No PEM block, or a broken one.
    #[error("the public key is not PEM text (`-----BEGIN PUBLIC KEY-----`)")]
    NotPem,
    /// More than one PEM block: which of them is meant?
    #[error("the public key is a text of {blocks} PEM blocks, where exactly one is expected")]
    SeveralBlocks {
        /// How many begin.
        blocks: usize,
    },
    /// A certificate, which says more than its key does.
    #[error(
        "the public key is a certificate; a certificate is no key: give the bare key (`openssl x509 -pubkey -noout -in FILE`)"
    )]
    Certificate,
    /// A private key, which belongs to whoever signs and to nobody else.
    #[error(
        "this is a private key ({label}); give the public one: the file `cosign.pub` that `cosign generate-key-pair` wrote beside `cosign.key`, or the output of `cosign public-key --key cosign.key`"
    )]
    PrivateKey {
        /// What stands behind `BEGIN`.
        label: String,
    },
    /// A PEM block of another sort.
    #[error("the public key is a PEM block {0:?}, not a `PUBLIC KEY`")]
    Label(String),
    /// The key is no good.
    #[error("{0}")]
    Key(KeyProblem),
}

/// A public key under the name that a policy and its messages call it by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    name: String,
    material: Material,
}

impl Key {
    /// Takes a name and a key in PEM: exactly one block, `PUBLIC KEY`.
    ///
    /// # Errors
    /// An empty name, another text, or a key that is of no use.
    pub fn from_pem(name: &str, public_key_pem: &[u8]) -> Result<Self, KeyError> {
        if name.is_empty() {
            return Err(KeyError::NoName);
        }
        let text = std::str::from_utf8(public_key_pem).map_err(|_| KeyError::NotPem)?;
        // Counted by how they begin: the reader of PEM passes over everything behind a block that is broken.
        let begun = text.matches("-----BEGIN ").count();
        if begun > 1 {
            return Err(KeyError::SeveralBlocks { blocks: begun });
        }
        let block = pem::blocks(text).into_iter().next().ok_or(KeyError::NotPem)?;
        match block.label.as_str() {
            "PUBLIC KEY" => {}
            "CERTIFICATE" => return Err(KeyError::Certificate),
            label if label.ends_with("PRIVATE KEY") => return Err(KeyError::PrivateKey { label: shown(label) }),
            label => return Err(KeyError::Label(shown(label))),
        }
        let material = Material::from_spki(&block.der).map_err(KeyError::Key)?;
        Ok(Self { name: name.to_owned(), material })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key itself.
    #[must_use]
    pub fn material(&self) -> &Material {
        &self.material
    }

    /// The key's id: in base64 it is the `hint` of bundles that the key signed.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.material.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_kind_are_read() {
        for key in [
            forge::Key::p256("a"),
            forge::Key::p384("a"),
            forge::Key::p521("a"),
            forge::Key::rsa(0),
            forge::Key::rsa_4096(),
            forge::Key::ed25519("a"),
        ] {
            let read = Key::from_pem("alice", key.pem().as_bytes()).unwrap();
            assert_eq!(read.material().spki(), key.spki());
            assert_eq!(read.name(), "alice");
        }
    }

    #[test]
    fn rsa_1024() {
        for weak in [forge::Key::rsa_1024(), forge::Key::rsa_exponent_3()] {
            assert_eq!(Key::from_pem("a", weak.pem().as_bytes()), Err(KeyError::Key(KeyProblem::WeakRsa)));
        }
    }

    #[test]
    fn secret_two_pem_blocks() {
        let (one, other) = (forge::Key::p256("a").pem(), forge::Key::p256("b").pem());
        // A second block that is broken is a second block all the same.
        for second in [other.clone(), other.replace("-----END", "----END"), "-----BEGIN PUBLIC KEY-----\n*".into()] {
            let read = Key::from_pem("a", format!("{one}{second}").as_bytes());
            assert_eq!(read, Err(KeyError::SeveralBlocks { blocks: 2 }), "{second}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_what_to_give() {
        let certificate = forge::Key::p256("a").certified(&forge::Cert::new("a", forge::NOW)).pem();
        assert_eq!(Key::from_pem("a", certificate.as_bytes()), Err(KeyError::Certificate));
        for label in ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY"]
        {
            let read = Key::from_pem("a", pem::encode(label, b"secret").as_bytes());
            assert_eq!(read, Err(KeyError::PrivateKey { label: label.into() }));
            assert!(read.unwrap_err().to_string().contains("`cosign.pub`"));
        }
        assert_eq!(Key::from_pem("a", pem::encode("X", b"x").as_bytes()), Err(KeyError::Label("X".into())));
        for text in [&b""[..], b"\xff", b"MFkw", b"-----BEGIN PUBLIC KEY-----\nAAAA"] {
            assert_eq!(Key::from_pem("a", text), Err(KeyError::NotPem));
        }
        assert_eq!(Key::from_pem("", forge::Key::p256("a").pem().as_bytes()), Err(KeyError::NoName));
        let garbage = pem::encode("PUBLIC KEY", b"no key");
        assert_eq!(Key::from_pem("a", garbage.as_bytes()), Err(KeyError::Key(KeyProblem::Malformed)));
    }
}
