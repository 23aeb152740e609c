//! Starts the real parts that tests need, on loopback and free ports, and stops them.
//!
//! A part that does not start fails the test that wanted it, with the part's own log.

mod control_plane;
mod cosign;
mod countersign;
mod front;
mod https;
mod injector;
mod notary;
mod process;
mod registry;
mod serve;
mod tokens;

pub use control_plane::{ControlPlane, Kubectl, Release};
pub use cosign::{Cosign, Form, KeyKind, KeyPair, Signing};
pub use countersign::{Countersign, Finished, run};
pub use front::Front;
pub use injector::{ADD, Injector, OWNER_UID, SWAP};
pub use notary::{Client, NotaryServer};
pub use process::{Ca, Part, free_port, wait_for};
pub use registry::{Answer, Pushed, Registry};
pub use serve::FileServer;
pub use tokens::{TokenServer, User};

/// What a test fails with.
pub type Problem = Box<dyn std::error::Error>;
