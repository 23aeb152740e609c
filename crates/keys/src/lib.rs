//! Public keys, whatever signature format they serve: PEM, certificates, and whether a signature is a key's.
//!
//! Pure. Which keys count, and what they must have signed, is for the format's own crate to say.

#![forbid(unsafe_code)]

mod certificate;
mod der;
mod fingerprint;
mod material;
pub mod pem;
mod problem;

pub use certificate::{Certificate, certificate_expiry};
pub use fingerprint::Fingerprint;
pub use material::{Algorithm, Material, Scheme};
pub use problem::KeyProblem;
