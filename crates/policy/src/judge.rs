//! From what was required, and what asking brought, to a proven digest.

use countersign_image::{ImageReference, Sha256, Wanted};

use crate::cause::DenialCause;
use crate::evidence::{Evidence, Proof};
use crate::reason::{DenyReason, Reason};
use crate::requirement::Requirement;

/// That an image's requirement is met, by one digest. Only [`Requirement::judge`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    digest: Sha256,
    proofs: Vec<Proof>,
    rests_on: Vec<usize>,
    warnings: Vec<Warning>,
}

impl Proven {
    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        self.digest
    }

    /// The proofs that it rests on.
    #[must_use]
    pub fn proofs(&self) -> &[Proof] {
        &self.proofs
    }

    /// Which of [`Requirement::asks`] those are, from 0.
    #[must_use]
    pub fn rests_on(&self) -> &[usize] {
        &self.rests_on
    }

    /// What should be known although the image is allowed.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

/// What should be known although an image is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// An alternative that comes before the one that counts could not be decided.
    Undecided {
        /// Which it is, from 1.
        number: usize,
        /// Why not.
        cause: String,
    },
    /// An alternative that comes before the one that counts contradicts what was seen there before: somebody may have tampered with it.
    Refused {
        /// Which it is, from 1.
        number: usize,
        /// What is wrong.
        cause: String,
    },
    /// A later alternative proves another digest than the one that counts.
    Differ {
        /// Which it is, from 1.
        number: usize,
        /// `sha256:…` of the one that counts.
        counts: String,
        /// `sha256:…` of the other one.
        other: String,
    },
}

impl Warning {
    /// The kind of warning: a closed set, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Undecided { .. } => "undecided",
            Self::Refused { .. } => "refused",
            Self::Differ { .. } => "differ",
        }
    }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Undecided { number, cause } => {
                write!(f, "alternative {number} could not be decided, and a later one was enough: {cause}")
            }
            Self::Refused { number, cause } => {
                write!(f, "alternative {number} is not what it was, and a later one was enough: {cause}")
            }
            Self::Differ { number, counts, other } => {
                write!(f, "alternatives prove different digests: {counts} counts, alternative {number} has {other}")
            }
        }
    }
}

/// A part that holds.
struct Held {
    digest: Sha256,
    /// Which asks it rests on.
    rests_on: Vec<usize>,
    warnings: Vec<Warning>,
}

/// A part that does not.
struct Failed {
    reasons: Vec<Reason>,
    undecided: bool,
}

impl Failed {
    fn fault(what: &str) -> Self {
        Self { reasons: vec![Reason::Fault(format!("{what}; this is a fault of Countersign"))], undecided: true }
    }
}

impl<A> Requirement<A> {
    /// Judges an image by what each of [`Self::asks`] came to, in that order; `None` where nobody waited for it, since
    /// [`Self::is_settled`].
    ///
    /// A proof counts only for the repository that it names. A digest in the reference is never replaced by another one.
    ///
    /// # Errors
    /// Why the image may not run.
    pub fn judge(
        &self,
        image: &ImageReference,
        wanted: &Wanted,
        evidence: &[Option<Evidence>],
    ) -> Result<Proven, DenyReason> {
        let bench = Bench { repository: image.repository(), evidence };
        let mut next = 0;
        let judged = match bench.judge(self, &mut next) {
            _ if next != evidence.len() => Err(Failed::fault("not every ask was answered")),
            Ok(held) if wanted.digest().is_some_and(|asked| asked != held.digest) => {
                Err(Failed::fault("the proof is for another digest than the image names"))
            }
            judged => judged,
        };
        let Held { digest, rests_on, warnings } = judged.map_err(reason)?;
        let proof = |index: &usize| evidence.get(*index)?.as_ref()?.as_ref().ok().cloned();
        let proofs = rests_on.iter().filter_map(proof).collect();
        Ok(Proven { digest, proofs, rests_on, warnings })
    }

    /// Whether what has come so far decides: what is still missing could only add warnings. So a server that is listed last and does
    /// not answer keeps nobody waiting.
    #[must_use]
    pub fn is_settled(&self, image: &ImageReference, evidence: &[Option<Evidence>]) -> bool {
        Bench { repository: image.repository(), evidence }.is_settled(self, &mut 0)
    }
}

fn reason(failed: Failed) -> DenyReason {
    let Failed { mut reasons, undecided } = failed;
    match reasons.pop() {
        Some(Reason::Part(refusal)) if reasons.is_empty() => DenyReason::Refused(refusal),
        Some(Reason::Fault(cause)) if reasons.is_empty() => DenyReason::undecided(DenialCause::Internal, cause),
        last => DenyReason::Several { reasons: reasons.into_iter().chain(last).collect(), undecided },
    }
}

/// What is judged by.
struct Bench<'a> {
    repository: String,
    evidence: &'a [Option<Evidence>],
}

impl Bench<'_> {
    /// `next` counts the asks that were looked at.
    fn judge<A>(&self, requirement: &Requirement<A>, next: &mut usize) -> Result<Held, Failed> {
        match requirement {
            Requirement::One(_) => self.one(next),
            Requirement::All(parts) => all(parts.iter().map(|part| self.judge(part, next)).collect()),
            Requirement::Any(parts) => any(parts.iter().map(|part| self.judge(part, next)).collect()),
        }
    }

    /// Whether a part is decided, whatever is still missing of it.
    fn is_settled<A>(&self, requirement: &Requirement<A>, next: &mut usize) -> bool {
        match requirement {
            Requirement::One(_) => {
                *next += 1;
                self.evidence.get(*next - 1).is_some_and(Option::is_some)
            }
            Requirement::All(parts) => {
                let mut all = true;
                for part in parts {
                    all &= self.is_settled(part, next);
                }
                all
            }
            Requirement::Any(parts) => {
                // The first that holds decides, if none before it is open; one that does not hold leaves it to the next.
                let (mut decided, mut open) = (false, false);
                for part in parts {
                    let mut at = *next;
                    let settled = self.is_settled(part, next);
                    if !decided && !open {
                        decided = settled && self.judge(part, &mut at).is_ok();
                        open = !settled;
                    }
                }
                decided || !open
            }
        }
    }

    fn one(&self, next: &mut usize) -> Result<Held, Failed> {
        let index = *next;
        *next += 1;
        match self.evidence.get(index).and_then(Option::as_ref) {
            Some(Ok(proof)) if proof.repository() == self.repository => {
                Ok(Held { digest: proof.digest(), rests_on: vec![index], warnings: Vec::new() })
            }
            Some(Ok(_)) => Err(Failed::fault("the proof is for another repository")),
            Some(Err(refusal)) => {
                Err(Failed { undecided: refusal.is_undecided(), reasons: vec![Reason::Part(refusal.clone())] })
            }
            None => Err(Failed::fault("no proof was brought")),
        }
    }
}

/// All parts must hold, for one digest. One that is decidedly not proven decides; without one, an undecided part leaves it open.
fn all(parts: Vec<Result<Held, Failed>>) -> Result<Held, Failed> {
    let (mut held, mut failed): (Vec<Held>, Vec<Failed>) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Ok(part) => held.push(part),
            Err(part) => failed.push(part),
        }
    }
    if !failed.is_empty() {
        let undecided = failed.iter().all(|part| part.undecided);
        return Err(Failed { reasons: failed.into_iter().flat_map(|part| part.reasons).collect(), undecided });
    }
    let mut held = held.into_iter();
    let mut whole = held.next().ok_or_else(|| Failed::fault("nothing was required"))?;
    for part in held {
        if part.digest != whole.digest {
            let differ = Reason::Differ { one: whole.digest.to_string(), other: part.digest.to_string() };
            return Err(Failed { reasons: vec![differ], undecided: false });
        }
        whole.rests_on.extend(part.rests_on);
        whole.warnings.extend(part.warnings);
    }
    Ok(whole)
}

/// The first part that holds counts, in the order of the policy: which one was fastest must not decide what runs. If none holds, an
/// undecided one leaves it open.
fn any(parts: Vec<Result<Held, Failed>>) -> Result<Held, Failed> {
    let of = parts.len();
    let mut counts: Option<Held> = None;
    let (mut warnings, mut reasons, mut undecided) = (Vec::new(), Vec::new(), false);
    for (number, part) in (1..).zip(parts) {
        match (part, &mut counts) {
            (Ok(part), None) => counts = Some(part),
            (Ok(part), Some(first)) if part.digest != first.digest => {
                let (counts, other) = (first.digest.to_string(), part.digest.to_string());
                warnings.push(Warning::Differ { number, counts, other });
            }
            (Err(part), None) => {
                let causes: Vec<_> = part.reasons.iter().map(ToString::to_string).collect();
                let (cause, is_alarming) = (causes.join("; "), part.reasons.iter().any(Reason::is_alarming));
                if part.undecided {
                    warnings.push(Warning::Undecided { number, cause });
                } else if is_alarming {
                    warnings.push(Warning::Refused { number, cause });
                }
                undecided |= part.undecided;
                reasons.extend(part.reasons.into_iter().map(|reason| alternative(number, of, reason)));
            }
            (Ok(_) | Err(_), Some(_)) => {}
        }
    }
    match counts {
        Some(mut held) => {
            held.warnings.extend(warnings);
            Ok(held)
        }
        None if of == 0 => Err(Failed::fault("nothing was required")),
        None => {
            reasons.sort_by_key(rank);
            Err(Failed { reasons, undecided })
        }
    }
}

fn alternative(number: usize, of: usize, reason: Reason) -> Reason {
    match reason {
        Reason::Part(refusal) if of > 1 => Reason::Alternative { number, of, refusal },
        other => other,
    }
}

fn rank(reason: &Reason) -> u8 {
    match reason {
        Reason::Part(refusal) | Reason::Alternative { refusal, .. } => refusal.rank(),
        Reason::Fault(_) => 0,
        Reason::Differ { .. } => 1,
    }
}

#[cfg(test)]
mod tests;
