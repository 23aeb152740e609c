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
pub use countersign::{Countersign, Finished, pod_review, run};
pub use front::Front;
pub use injector::{ADD, Injector, OWNER_UID, SWAP};
pub use notary::{Client, NotaryServer};
pub use process::{Ca, Part, free_port, wait_for};
pub use registry::{Answer, Pushed, Registry};
pub use serve::FileServer;
pub use tokens::{TokenServer, User};

/// A denial without what stands behind its fixed words in each line: the entry, if one applied, and where to read on, which must be there.
///
/// # Panics
/// A line does not say where to read on.
#[must_use]
pub fn fixed_words(denial: &str) -> String {
    let fixed = |line: &str| {
        let (words, section) =
            line.rsplit_once(" (see docs/messages.md#").unwrap_or_else(|| panic!("no section: {line}"));
        assert!(section.ends_with(')'), "{line}");
        let entry = if words.ends_with(']') { words.rfind(" [") } else { None };
        words[..entry.unwrap_or(words.len())].to_owned()
    };
    denial.lines().map(fixed).collect::<Vec<_>>().join("\n")
}

/// What a test fails with.
pub type Problem = Box<dyn std::error::Error>;
