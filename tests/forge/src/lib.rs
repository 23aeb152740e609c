//! Makes Notary v1 repositories for tests: sound ones, and ones with any defect.
//!
//! Nothing here is shared with the verifier: keys, canonical JSON and certificates are written a second time, on other
//! cryptography, so that a misunderstanding on one side shows on the other. All output is deterministic: keys come from
//! fixed seeds, ECDSA nonces from RFC 6979, and time is an argument.
//!
//! A [`Repo`] is a repository under construction; [`Repo::build`] signs it and gives its [`Files`]. [`cases::all`] gives
//! every [`Case`]: a repository, a question to it, and the answer that must come.

#![allow(
    clippy::missing_panics_doc,
    clippy::type_complexity,
    clippy::single_match_else,
    clippy::struct_field_names,
    clippy::cloned_ref_to_slice_refs,
    reason = "test support: what cannot be made must fail loudly, and cases are tables"
)]

pub mod canonical;
pub mod case;
pub mod cases;
mod certificate;
mod der;
mod files;
mod key;
mod mutate;
mod repo;

use jiff::Timestamp;

pub use case::{Ask, Case, Draft, Expect, Verdict};
pub use certificate::Cert;
pub use files::Files;
pub use key::{Key, Signature};
pub use mutate::mutations;
pub use repo::{Delegation, FileSpec, Repo, RoleKeys};

/// A repository on a registry with a port.
pub(crate) const GUN_WITH_PORT: &str = "registry.example.com:5000/a/b/c/app";

/// The moment of all fixtures: 2030-01-01T00:00:00Z.
pub const NOW: Timestamp = Timestamp::constant(1_893_456_000, 0);

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The digest of the image that stands for `name` in tests: sha256 over the words `manifest of NAME`.
#[must_use]
pub fn digest_of(name: &str) -> [u8; 32] {
    sha256(format!("manifest of {name}").as_bytes())
}

/// sha256
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}
