//! From an ask to a proof: who is asked, with which secrets, and what came of it. One file a signature format.

pub(crate) mod notary;
mod pull_secrets;

use std::time::Duration;

use countersign_image::Wanted;
use countersign_policy::{Ask, Evidence, Refusal, SecretRef, SecretUse};
use countersign_remote::{NotaryClient, RegistryClient, Seen};
use jiff::Timestamp;
use tokio::time::Instant;

pub(crate) use self::pull_secrets::PullSecrets;
use crate::source::{Moment, SecretData};

/// What one ask came to.
pub(crate) struct Found {
    /// A proof, or why there is none.
    pub(crate) evidence: Evidence,
    /// What must be remembered before an answer is given that rests on the proof.
    pub(crate) seen: Option<Seen>,
}

/// Who can be asked, and on whose behalf: the same for all images of one review.
pub(crate) struct Search<'a> {
    /// Where signatures come from.
    pub(crate) notary: &'a NotaryClient,
    /// Where images are.
    pub(crate) registry: &'a RegistryClient,
    /// Where secrets come from.
    pub(crate) moment: &'a dyn Moment,
    /// The credentials of the workload.
    pub(crate) pull: &'a PullSecrets<'a>,
    /// The namespace that it is asked for.
    pub(crate) namespace: &'a str,
    /// How long a review may take in all, for messages.
    pub(crate) deadline: Duration,
    /// How old the metadata may be that a denial rests on.
    pub(crate) denial_age: Duration,
    /// What trust servers are asked for, read once for each entry.
    pub(crate) demands: notary::ReadDemands,
    /// The time at which everything is judged.
    pub(crate) now: Timestamp,
}

impl Search<'_> {
    /// Looks for the proof that is asked for of an image, until a time.
    pub(crate) async fn prove(&self, ask: &Ask, wanted: &Wanted, until: Instant) -> Found {
        match ask {
            Ask::Notary(ask) => self.prove_by_notary(ask, wanted, until).await,
        }
    }
}

/// Whether a secret holds what it is for.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_secret(secret: &SecretRef, purpose: SecretUse, data: Option<&SecretData>) -> Result<(), Refusal> {
    match purpose {
        SecretUse::Signer => notary::read_signer(secret, data).map(|_| ()),
        SecretUse::RootKey => notary::read_pin(secret, data).map(|_| ()),
    }
}
