//! Secrets that policies name.

use thiserror::Error;

/// A secret in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a secret is for, and so what it must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretUse {
    /// A signer: `name` and `publicKey`.
    Signer,
    /// A pinned root key of a repository: `publicKey`.
    RootKey,
    /// A signer with cosign: `publicKey` or `cosign.pub`, and `name` where the signer is not called as the secret is.
    CosignSigner,
}

/// What is wrong with a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SecretProblem {
    /// There is none.
    #[error("secret not found")]
    NotFound,
    /// It has no `name`, or an empty one.
    #[error("name is empty")]
    NoName,
    /// It has no `publicKey`, or an empty one.
    #[error("publicKey is empty")]
    NoPublicKey,
    /// It has no `publicKey` and no `cosign.pub`, or empty ones.
    #[error("publicKey and cosign.pub are empty")]
    NoCosignKey,
    /// Its `name` is no text, or longer than the name of any signer.
    #[error("name is not a text of at most 253 bytes")]
    BadName,
    /// It has two keys, and they differ.
    #[error("publicKey and cosign.pub are different keys")]
    TwoKeys,
}
