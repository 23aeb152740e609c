//! Verification of cosign's signatures of images, made with keys.
//!
//! Nothing here reads a clock, a file or a socket. A [`Demand`] says whose signatures a digest needs: it is made of keys,
//! each of them once, and cannot be one that nothing would have to meet.

#![forbid(unsafe_code)]

mod demand;
mod key;
pub mod limits;
#[cfg(test)]
mod testing;

pub use demand::{Demand, DemandError};
pub use key::{Key, KeyError};
