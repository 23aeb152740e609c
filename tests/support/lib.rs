//! Starts the real parts that tests need, on loopback and free ports, and stops them.
//!
//! A part that does not start fails the test that wanted it, with the part's own log.

mod countersign;
mod notary;
mod process;

pub use countersign::{Countersign, Finished, run};
pub use notary::{Client, NotaryServer};
pub use process::{Ca, Part, free_port, wait_for};

/// What a test fails with.
pub type Problem = Box<dyn std::error::Error>;
