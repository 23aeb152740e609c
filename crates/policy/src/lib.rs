//! What an operator's image policies say about the images of a workload.
//!
//! Pure: objects and policies go in; a plan of the proofs that are needed comes out, and with what asking for them brought a
//! verdict and a patch. Who asks is none of this crate's business.

#![forbid(unsafe_code)]

mod cause;
mod evidence;
mod judge;
mod kinds;
mod mode;
pub mod patch;
mod pattern;
pub mod plan;
mod policies;
mod proof_policy;
mod reason;
mod requirement;
mod reviewed;
mod secret;
mod superseded;
mod verdict;
mod workload;

pub use cause::DenialCause;
pub use evidence::{Cause, Evidence, Format, Identity, Proof, Refusal};
pub use judge::{Proven, Warning};
pub use kinds::{KNOWN_KINDS, KindError, Kinds, KnownKind, is_revision, known_kind};
pub use mode::Mode;
pub use pattern::{Pattern, PatternError};
pub use plan::cosign::CosignAsk;
pub use plan::notary::NotaryAsk;
pub use plan::{Ask, ClusterSecrets, Defaults, NamedBy, Need, NeededProof, PinStyle, PlannedImage, Within, plan};
pub use policies::{Applies, Check, Entry, EntryRef, Match, Policy, PolicyKind, PolicySet};
pub use proof_policy::{CosignPolicy, ProofPolicy, TrustPolicy};
pub use reason::{DenyReason, Reason};
pub use requirement::Requirement;
pub use reviewed::Reviewed;
pub use secret::{SecretProblem, SecretRef, SecretUse};
pub use verdict::{ImageVerdict, Outcome, Pinned, Verdict, denial};
pub use workload::{ContainerImage, Workload, WorkloadError};
