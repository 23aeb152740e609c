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
}
