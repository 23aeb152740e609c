//! What is decided of an object, and for whom.

use std::time::Duration;

use countersign_policy::{DenialCause, DenyReason, ImageVerdict, Mode, Outcome, Verdict};
use countersign_remote::DENIAL_AGE;
use serde::Serialize;

use crate::enforce::Spent;

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

/// A question to the gate, as the entry of a webhook configuration puts it by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// Who asks.
    pub(crate) webhook: Webhook,
    /// Whether the API server says that the namespace enforces: it knows the namespace's label at least as soon as anybody else.
    pub(crate) enforced: bool,
}

/// The path at which the API server asks about policies.
pub(crate) const POLICIES_PATH: &str = "/policies";

impl Call {
    /// The path at which the API server asks so.
    #[must_use]
    pub(crate) fn path(self) -> &'static str {
        match (self.webhook, self.enforced) {
            (Webhook::Mutate, false) => "/admit",
            (Webhook::Mutate, true) => "/admit/enforced",
            (Webhook::Validate, false) => "/validate",
            (Webhook::Validate, true) => "/validate/enforced",
        }
    }
}

impl From<Webhook> for Call {
    fn from(webhook: Webhook) -> Self {
        Self { webhook, enforced: false }
    }
}

/// What a review came to, whatever the mode makes of it.
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
    /// No review at all: answered with HTTP 400.
    BadRequest,
}

impl ReviewOutcome {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Unchecked, Self::Verified, Self::Denied, Self::Undecided, Self::BadRequest];

    /// As logs and metrics name it.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Verified => "verified",
            Self::Denied => "denied",
            Self::Undecided => "undecided",
            Self::BadRequest => "bad-request",
        }
    }
}

/// By what a review was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// By the mode: that of the images that decided, or that of the namespace where nothing is denied.
    Mode(Mode),
    /// Somebody broke the glass: what is denied is admitted.
    BreakGlass,
    /// A node runs the pod already: what is denied is admitted.
    StaticPod,
}

impl Answered {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Mode(Mode::Enforce), Self::Mode(Mode::Warn), Self::Mode(Mode::Audit), Self::BreakGlass, Self::StaticPod];

    /// As logs and metrics name it.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Mode(mode) => mode.label(),
            Self::BreakGlass => "break-glass",
            Self::StaticPod => "static-pod",
        }
    }
}

/// Why the object as a whole is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whole {
    /// The kind of reason.
    pub cause: DenialCause,
    /// The reason.
    pub message: String,
}

/// Why a denial is not to stop the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Excuse {
    /// The pod runs already: a denial would stop nothing.
    StaticPod,
    /// Somebody who may broke the glass, for this reason.
    BreakGlass(String),
}

/// The controller that owns an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Owner {
    /// Its `apiVersion`.
    #[serde(skip)]
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid, as the object says.
    #[serde(skip)]
    pub uid: String,
}

/// What the gate has decided, and how long the parts of that took.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    /// What the judged images came to; images that stand unchanged are not among them.
    pub verdict: Verdict,
    /// Why the object is denied as a whole, if so.
    pub whole: Option<Whole>,
    /// What is done with what no entry says anything of.
    pub mode: Mode,
    /// Why a denial is not to stop the object.
    pub excuse: Option<Excuse>,
    /// What is to be said to the user of the way in which it was decided.
    pub notes: Vec<String>,
    /// The controller that the object names as its owner.
    pub owner: Option<Owner>,
    /// Whether the object holds images at all, judged or not.
    pub has_images: bool,
    /// How long it took to look at the owner.
    pub looked_at_owner: Duration,
    /// How long the parts of the judgement took.
    pub spent: Spent,
}

impl Decision {
    pub(crate) fn unchanged(has_images: bool) -> Self {
        Self { has_images, ..Self::default() }
    }

    /// A denial of the whole object.
    #[must_use]
    pub(crate) fn denied(cause: DenialCause, message: String) -> Self {
        Self { whole: Some(Whole { cause, message }), has_images: true, ..Self::default() }
    }

    /// What it came to, whatever the mode makes of it.
    #[must_use]
    pub(crate) fn outcome(&self) -> ReviewOutcome {
        let proven = |image: &ImageVerdict| matches!(image.outcome, Outcome::Proven(_) | Outcome::PutBack(_));
        if let Some(whole) = &self.whole {
            let undecided = matches!(whole.cause, DenialCause::Internal | DenialCause::Busy);
            return if undecided { ReviewOutcome::Undecided } else { ReviewOutcome::Denied };
        }
        if !self.verdict.allowed() {
            // What was decided weighs more than what was not.
            let undecided = self.verdict.denied().all(DenyReason::is_undecided);
            return if undecided { ReviewOutcome::Undecided } else { ReviewOutcome::Denied };
        }
        if self.verdict.images.iter().any(proven) { ReviewOutcome::Verified } else { ReviewOutcome::Unchecked }
    }

    /// By what it is answered.
    #[must_use]
    pub(crate) fn answered(&self) -> Answered {
        let denied = self.verdict.images.iter().filter(|image| image.reason().is_some()).map(|image| image.mode);
        let strictest = denied.chain(self.whole.iter().map(|_| self.mode)).max();
        match (strictest, &self.excuse) {
            (None, _) => Answered::Mode(self.mode),
            (Some(_), Some(Excuse::StaticPod)) => Answered::StaticPod,
            (Some(Mode::Enforce), Some(Excuse::BreakGlass(_))) => Answered::BreakGlass,
            (Some(mode), _) => Answered::Mode(mode),
        }
    }

    /// Whether the object is admitted.
    #[must_use]
    pub(crate) fn admits(&self) -> bool {
        self.outcome_is_allowed() || self.answered() != Answered::Mode(Mode::Enforce)
    }

    fn outcome_is_allowed(&self) -> bool {
        self.whole.is_none() && self.verdict.allowed()
    }

    /// Why the object, or some of its images, would be denied if all of it were enforced; `help` gives what stands behind a line.
    #[must_use]
    pub(crate) fn denial(&self, help: impl Fn(DenialCause) -> String) -> Option<String> {
        match &self.whole {
            Some(Whole { cause, message }) => Some(message.clone() + &help(*cause)),
            None if self.verdict.allowed() => None,
            None => Some(self.verdict.message(|_| true, help)),
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_policy::ContainerImage;

    use super::*;

    fn decision(images: &[(Mode, bool)]) -> Decision {
        let image = |(mode, denied): &(Mode, bool)| {
            let image = ContainerImage { pointer: "/x".into(), path: "containers/x".into(), image: "a".into() };
            let mut verdict = ImageVerdict::denied(image, *mode, DenyReason::NoPolicies);
            if !denied {
                verdict.outcome = Outcome::Unchecked;
            }
            verdict
        };
        Decision { verdict: Verdict { images: images.iter().map(image).collect() }, ..Decision::default() }
    }

    /// The strictest of the modes of what is denied decides; what is allowed decides nothing.
    #[test]
    fn what_answers() {
        use Mode::{Audit, Enforce, Warn};
        for (images, expected, admits) in [
            (&[(Enforce, false), (Audit, true)][..], "audit", true),
            (&[(Audit, true), (Warn, true)], "warn", true),
            (&[(Warn, true), (Enforce, true)], "enforce", false),
            (&[(Warn, false)], "enforce", true),
            (&[], "enforce", true),
        ] {
            let mut decision = decision(images);
            assert_eq!((decision.answered().label(), decision.admits()), (expected, admits), "{images:?}");
            decision.excuse = Some(Excuse::BreakGlass("x".into()));
            assert!(decision.admits());
            assert_eq!(decision.answered() == Answered::BreakGlass, !admits, "{images:?}");
        }
        let mut whole = Decision::denied(DenialCause::Internal, "x".into());
        assert!(!whole.admits() && whole.outcome() == ReviewOutcome::Undecided);
        whole.mode = Audit;
        assert!(whole.admits());
        assert_eq!(Decision::denied(DenialCause::BadReference, "x".into()).outcome(), ReviewOutcome::Denied);
    }
}
