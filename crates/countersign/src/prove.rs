//! From an ask to a proof: who is asked, with which secrets, and what came of it. One file a signature format.

pub(crate) mod cosign;
pub(crate) mod notary;
mod pull_secrets;
mod shared;

use std::time::Duration;

use countersign_cosign::{Budget, Demand};
use countersign_image::Wanted;
use countersign_policy::{Ask, DenialCause, Evidence, Format, Refusal, SecretRef, SecretUse};
use countersign_remote::{CosignClient, NamedBy, NotaryClient, RegistryClient, Seen};
use jiff::Timestamp;
use tokio::time::Instant;

pub(crate) use self::cosign::{Beside, Digests};
use self::notary::Demands;

pub(crate) use self::pull_secrets::PullSecrets;
pub(crate) use self::shared::ByEntry;
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
    /// Where signatures of cosign come from.
    pub(crate) cosign: &'a CosignClient,
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
    /// What is asked for of trust servers, read once for each entry.
    pub(crate) demands: ByEntry<Demands>,
    /// The same for signatures of cosign.
    pub(crate) cosign_demands: ByEntry<Demand>,
    /// What tags name, asked once for each image.
    pub(crate) digests: Digests,
    /// How many signatures of cosign may still be computed.
    pub(crate) budget: Budget,
    /// The time at which everything is judged.
    pub(crate) now: Timestamp,
}

impl Search<'_> {
    /// Where images are, asked on behalf of the namespace.
    pub(crate) fn registry(&self) -> RegistryClient {
        self.registry.for_namespace(self.namespace)
    }

    /// Looks for the proof that is asked for of an image, until a time. `beside` is what stands beside it in the policy.
    pub(crate) async fn prove(&self, ask: &Ask, wanted: &Wanted, beside: Option<Beside>, until: Instant) -> Found {
        match ask {
            Ask::Notary(ask) => self.prove_by_notary(ask, wanted, until).await,
            // It is the larger one.
            Ask::Cosign(ask) => Box::pin(self.prove_by_cosign(ask, wanted, beside, until)).await,
        }
    }

    /// Why there is no proof of a format by a server if the namespace's turn does not come.
    fn no_turn(&self, format: Format, server: &str) -> Refusal {
        let cause = format!(
            "its turn to be verified with {server} did not come within {} s, as much else is asked for in namespace {}; try again",
            self.deadline.as_secs_f32(),
            self.namespace
        );
        Refusal::Undecided { format, why: DenialCause::Busy, cause }
    }

    /// The same if the server did not bring everything in time.
    fn late(&self, format: Format, server: &str) -> Refusal {
        let cause = format!("{server} did not bring an answer within {} s", self.deadline.as_secs_f32());
        Refusal::Undecided { format, why: DenialCause::Unreachable, cause }
    }
}

/// Who says that a server is the one to ask, for the login that it is asked with.
pub(crate) fn named_by(by: countersign_policy::NamedBy) -> NamedBy {
    match by {
        countersign_policy::NamedBy::Operator => NamedBy::Operator,
        countersign_policy::NamedBy::Image => NamedBy::Image,
        countersign_policy::NamedBy::Tenant => NamedBy::Tenant,
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
        SecretUse::CosignSigner => cosign::read_key(secret, data).map(|_| ()),
    }
}
