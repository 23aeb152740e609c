//! Images by name: references, digests, and what a reference asks for. Every signature format stands on it.
//!
//! Pure: nothing here reads a clock, a file or a socket.

#![forbid(unsafe_code)]

mod descriptor;
mod digest;
pub mod reference;
mod shown;
mod wanted;

pub use descriptor::Descriptor;
pub use digest::{Sha256, Sha256Hasher, to_hex};
pub use reference::{Digest, ImageReference, ReferenceError};
pub use shown::{quoted, shown};
pub use wanted::{NotSha256, Wanted};
