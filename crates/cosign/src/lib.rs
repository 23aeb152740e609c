//! Verification of cosign's signatures of images, made with keys.
//!
//! Bytes, a digest and keys go in; a [`Proof`] or an [`Error`] comes out. Nothing here reads a clock, a file or a socket.
//! [`Scan`] says of what a registry has which manifests and layers are worth fetching, and is given their bytes. A
//! [`Fact`], "this key signed this digest, with these claims", is made only where a signature has been verified, and
//! [`judge`] weighs facts by what a policy demands.
//!
//! There are three forms. `cosign` up to version 2 puts a simple signing payload under the tag `sha256-….sig`; the same
//! layers can stand in a manifest that refers to the image; version 3 makes such a manifest of a sigstore bundle. Users
//! sign with both versions side by side, so all forms are always taken.
//!
//! No signature here expires or names a tag: one that was ever made for a digest proves that digest for good.

#![forbid(unsafe_code)]

mod bundle;
mod demand;
mod document;
mod error;
mod found;
mod key;
pub mod limits;
mod manifest;
mod payload;
mod scan;
mod statement;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod verify;

pub use bundle::BundleProblem;
pub use countersign_image::Descriptor;
pub use demand::{Demand, DemandError};
pub use document::DocumentError;
pub use error::{Error, Shortfall};
pub use found::{Found, LeftOut};
pub use key::{Key, KeyError};
pub use manifest::{Form, Layer, ManifestProblem, referrer, sig_tag};
pub use payload::{PayloadProblem, guesses};
pub use scan::Scan;
pub use statement::StatementProblem;
pub use verify::{Budget, Candidate, Fact, Proof, SignedBy, Skipped, fact, judge};
