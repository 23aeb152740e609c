//! What an operator's image policies say about the images of a workload.
//!
//! Pure: objects and policies go in; a plan of the evidence that is needed comes out, and with that evidence a verdict and
//! a patch. Who brings the evidence is none of this crate's business.

#![forbid(unsafe_code)]

pub mod patch;
pub mod pattern;
pub mod plan;
pub mod policies;
pub mod reviewed;
pub mod verdict;
pub mod workload;

pub use pattern::{Pattern, PatternError};
pub use plan::{ClusterSecrets, Defaults, Need, PinStyle, PlannedImage, SecretRef, TrustNeed, plan};
pub use policies::{Applies, Check, Entry, Match, Policy, PolicyKind, PolicySet, TrustPolicy};
pub use reviewed::Reviewed;
pub use verdict::{DenyReason, EntryRef, ImageVerdict, Outcome, Proof, SecretProblem, Verdict};
pub use workload::{ContainerImage, KindError, Kinds, Workload, WorkloadError, is_revision};
