//! Which denials say of an image that it is named by the digest of a tag that moved on.

use countersign_notary::Error as NotaryError;

use crate::evidence::{Cause, Refusal};
use crate::reason::{DenyReason, Reason};

impl Refusal {
    /// Whether the image is named by tag and digest, and the tag is signed as the policy asks, but with another digest.
    ///
    /// Signatures of cosign name no tag, so of them it cannot be said.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        matches!(self, Self::NotTrusted { cause: Cause::Notary(error), .. } if matches!(**error, NotaryError::DigestDiffers { .. }))
    }
}

impl DenyReason {
    /// Whether the image is denied for its age alone, as far as can be told: its tag is signed as the policy asks, but with another digest
    /// than the image names. That its own digest was ever signed is not proven by it.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_superseded(),
            Self::Several { reasons, undecided: false } => {
                let (mut alternatives, mut current) = (false, false);
                for reason in reasons {
                    match reason {
                        Reason::Part(refusal) if refusal.is_superseded() => {}
                        Reason::Alternative { refusal, .. } => {
                            alternatives = true;
                            current |= refusal.is_superseded();
                        }
                        Reason::Part(_) | Reason::Fault(_) | Reason::Differ { .. } => return false,
                    }
                }
                current || !alternatives
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DenialCause;

    fn differs() -> Refusal {
        let (gun, tag) = ("h.io/app".to_owned(), "v1".to_owned());
        Refusal::notary("h.io:4443", NotaryError::DigestDiffers { gun, tag, signed: "a".into(), asked: "b".into() })
    }

    fn unsigned() -> Refusal {
        let (gun, tag) = ("h.io/app".to_owned(), "v1".to_owned());
        Refusal::notary("h.io:4443", NotaryError::NotSigned { gun, tag, role: None })
    }

    #[test]
    fn only_a_tag_that_is_signed_supersedes() {
        assert!(DenyReason::from(differs()).is_superseded());
        let digest_alone = NotaryError::DigestNotSigned { gun: "h.io/app".into(), digest: "b".into() };
        for refusal in [unsigned(), Refusal::notary("h.io:4443", digest_alone)] {
            assert!(!DenyReason::from(refusal).is_superseded());
        }
        assert!(
            !DenyReason::NoPolicies.is_superseded()
                && !DenyReason::undecided(DenialCause::Internal, "x").is_superseded()
        );
    }

    /// Of parts that must all hold, each; of alternatives, one.
    #[test]
    fn of_several_reasons_those_that_are_needed_count() {
        let alternative = |refusal| Reason::Alternative { number: 1, of: 2, refusal };
        let cases = [
            (vec![Reason::Part(differs()), Reason::Part(differs())], true),
            (vec![Reason::Part(differs()), Reason::Part(unsigned())], false),
            (vec![alternative(unsigned()), alternative(differs())], true),
            (vec![alternative(unsigned()), alternative(unsigned())], false),
            (vec![Reason::Part(differs()), alternative(unsigned())], false),
            (vec![Reason::Part(unsigned()), alternative(differs())], false),
            (vec![Reason::Differ { one: "a".into(), other: "b".into() }], false),
            (vec![Reason::Part(differs()), Reason::Fault("x".into())], false),
        ];
        for (reasons, expected) in cases {
            let of = |undecided| DenyReason::Several { reasons: reasons.clone(), undecided };
            assert_eq!(of(false).is_superseded(), expected, "{reasons:?}");
            assert!(!of(true).is_superseded());
        }
    }
}
