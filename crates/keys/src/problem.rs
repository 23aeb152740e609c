//! Why a key is of no use.

use thiserror::Error;

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyProblem {
    /// The bytes are not what the key type says.
    #[error("the key is malformed")]
    Malformed,
    /// A key type or curve that is not verified here, or that is too weak.
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
}
