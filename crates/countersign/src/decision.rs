//! What is decided of an object, and for whom.

use std::time::Duration;

use countersign_policy::{ImageVerdict, Outcome, Verdict};
use countersign_remote::DENIAL_AGE;

/// Who asks the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Webhook {
    /// The mutating webhook: denies what is not proven, and pins the rest.
    Mutate,
    /// The validating webhook, which sees the object as it will be stored: denies what is not proven, or not pinned where a
    /// pin is due, and changes nothing.
    Validate,
}

impl Webhook {
    /// As logs and metrics name it.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Mutate => "mutate",
            Self::Validate => "validate",
        }
    }

    /// How old the metadata may be that a denial rests on. The validating webhook looks at what another replica may have pinned
    /// this very moment, so it asks anew each time before it denies. The mutating one has sorted out the rest by then, so that
    /// this is no way to make it ask at will.
    pub(crate) fn denial_age(self) -> Duration {
        match self {
            Self::Mutate => DENIAL_AGE,
            Self::Validate => Duration::ZERO,
        }
    }
}

/// What a review came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReviewOutcome {
    /// Allowed without asking anybody.
    Unchecked,
    /// Allowed after verification.
    Verified,
    /// Denied by a policy or a signature.
    Denied,
    /// Denied since it could not be decided.
    Undecided,
    /// Would have been denied, but the mode only warns or logs, or a node runs the pod already.
    Tolerated,
    /// No review at all: answered with HTTP 400.
    BadRequest,
}

impl ReviewOutcome {
    /// The label's value.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Verified => "verified",
            Self::Denied => "denied",
            Self::Undecided => "undecided",
            Self::Tolerated => "tolerated",
            Self::BadRequest => "bad-request",
        }
    }
}

/// What the gate has decided, before the mode is looked at.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    /// What the judged images came to; images that stand unchanged are not among them.
    pub verdict: Verdict,
    /// Why the object is denied.
    pub denied: Option<String>,
    /// Whether it is only denied because something could not be decided.
    pub undecided: bool,
    /// The JSON patch that pins the images.
    pub patch: Option<Vec<u8>>,
    /// Whether a denial would stop nothing: the pod runs already.
    pub runs_already: bool,
    /// Whether the object holds images at all, judged or not.
    pub has_images: bool,
}

impl Decision {
    pub(crate) fn unchanged(has_images: bool) -> Self {
        Self { has_images, ..Self::default() }
    }

    /// A denial of the whole object.
    #[must_use]
    pub(crate) fn denied(message: String) -> Self {
        Self { denied: Some(message), has_images: true, ..Self::default() }
    }

    /// What it counts as, whatever the mode makes of it.
    #[must_use]
    pub(crate) fn outcome(&self) -> ReviewOutcome {
        let proven = |image: &ImageVerdict| matches!(image.outcome, Outcome::Proven(_) | Outcome::PutBack(_));
        match &self.denied {
            Some(_) if self.undecided => ReviewOutcome::Undecided,
            Some(_) => ReviewOutcome::Denied,
            None if self.verdict.images.iter().any(proven) => ReviewOutcome::Verified,
            None => ReviewOutcome::Unchecked,
        }
    }
}
