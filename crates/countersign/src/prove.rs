//! From an ask to a proof: who is asked, with which secrets, and what came of it. One file a signature format.

pub mod notary;
mod pull_secrets;

use countersign_policy::{Ask, Evidence};
use countersign_remote::Seen;
use jiff::Timestamp;

pub(crate) use self::pull_secrets::PullSecrets;
use crate::enforce::{Engine, Job};
use crate::source::Moment;

/// What one ask came to.
pub(crate) struct Found {
    /// A proof, or why there is none.
    pub(crate) evidence: Evidence,
    /// What must be remembered before an answer is given that rests on the proof.
    pub(crate) seen: Option<Seen>,
}

/// What is known to everybody who looks for proofs for one review.
pub(crate) struct Search<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) moment: &'a dyn Moment,
    pub(crate) pull: &'a PullSecrets<'a>,
    pub(crate) job: &'a Job<'a>,
    pub(crate) now: Timestamp,
}

impl Search<'_> {
    /// Looks for the proof that is asked for of an image.
    pub(crate) async fn prove(&self, ask: &Ask, wanted: &countersign_image::Wanted) -> Found {
        match ask {
            Ask::Notary(ask) => self.prove_by_notary(ask, wanted).await,
        }
    }
}
