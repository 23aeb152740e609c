//! Starts the real parts that tests need, on loopback and free ports, and stops them.
//!
//! A part that does not start fails the test that wanted it, with the part's own log.

mod countersign;
mod notary;
mod process;
mod serve;

pub use countersign::{Countersign, Finished, run};
pub use notary::{Client, NotaryServer};
pub use process::{Ca, Part, free_port, wait_for};
pub use serve::FileServer;

/// What a test fails with.
pub type Problem = Box<dyn std::error::Error>;
