//! What a review comes to: the outcome of each image, its pin, and the text of a denial.

use std::collections::BTreeSet;

use countersign_image::{ImageReference, Sha256, quoted, shown};

use crate::cause::DenialCause;
use crate::evidence::{Evidence, Proof};
use crate::judge::{Proven, Warning};
use crate::mode::Mode;
use crate::plan::{Need, NeededProof, PinStyle, PlannedImage};
use crate::policies::EntryRef;
use crate::reason::DenyReason;
use crate::workload::ContainerImage;

/// What an image comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageVerdict {
    /// The image.
    pub image: ContainerImage,
    /// The entry that applied, if one did.
    pub entry: Option<EntryRef>,
    /// What is done with it if it is denied.
    pub mode: Mode,
    /// Whether it may run.
    pub outcome: Outcome,
    /// What a reader of the denial must know beside the reason, if anything: why this image was judged at all.
    pub note: Option<String>,
}

/// Whether an image may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It may, with no further check.
    Unchecked,
    /// It may: this digest is proven.
    Proven(Box<Pinned>),
    /// It may, under the digest that an update took away while nothing could be decided: this is the image as it stood.
    PutBack(String),
    /// It may not.
    Denied(DenyReason),
}

/// What is proven of an image, and what the image is to be written as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    proven: Proven,
    pinned: Option<String>,
}

impl Pinned {
    /// What is proven.
    #[must_use]
    pub fn proven(&self) -> &Proven {
        &self.proven
    }

    /// The image pinned to the digest, in the style that is configured; as it was written where it names the digest already.
    /// `None` where the entry wants no pin.
    #[must_use]
    pub fn pinned(&self) -> Option<&str> {
        self.pinned.as_deref()
    }
}

impl ImageVerdict {
    /// Judges an image by what is planned for it and, where that is proofs, by what each of [`crate::Requirement::asks`] came to.
    #[must_use]
    pub fn judge(planned: PlannedImage, evidence: &[Option<Evidence>]) -> Self {
        let outcome = match planned.need {
            Need::Nothing => Outcome::Unchecked,
            Need::Denied(reason) => Outcome::Denied(reason),
            Need::Proof(need) => match need.requirement.judge(&need.reference, &need.wanted, evidence) {
                Ok(proven) => Outcome::Proven(Box::new(pin(&need, proven))),
                Err(reason) => Outcome::Denied(reason),
            },
        };
        Self { image: planned.image, entry: planned.entry, mode: planned.mode, outcome, note: None }
    }

    /// An image that is denied, whatever its policy says. `mode` is what is done with it then.
    #[must_use]
    pub fn denied(image: ContainerImage, mode: Mode, reason: DenyReason) -> Self {
        Self { image, entry: None, mode, outcome: Outcome::Denied(reason), note: None }
    }

    /// Why it may not run, if so, whatever the mode makes of it.
    #[must_use]
    pub fn reason(&self) -> Option<&DenyReason> {
        match &self.outcome {
            Outcome::Denied(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether the object may not be admitted because of it.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.mode == Mode::Enforce && self.reason().is_some()
    }

    /// Whether what is proven of it is written into the object, and remembered: nothing rests on an image that is not enforced.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.mode == Mode::Enforce
    }

    /// What is proven of it, if anything is.
    #[must_use]
    pub fn proven(&self) -> Option<&Proven> {
        match &self.outcome {
            Outcome::Proven(pinned) => Some(pinned.proven()),
            _ => None,
        }
    }

    /// What should be known although the image is allowed.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        self.proven().map_or(&[], Proven::warnings)
    }

    /// The text of a denial: `Deny "IMAGE", REASON [POLICY, ENTRY]`, a line for each reason.
    #[must_use]
    pub fn denial(&self) -> Option<String> {
        let lines: Vec<_> = self.denials().into_iter().map(|(_, line)| line).collect();
        self.reason().map(|_| lines.join("\n"))
    }

    /// The lines of a denial, each with its cause.
    #[must_use]
    pub fn denials(&self) -> Vec<(DenialCause, String)> {
        let Some(reason) = self.reason() else { return Vec::new() };
        let note = self.note.as_deref().map_or_else(String::new, |note| format!(" ({})", shown(note)));
        let entry = self.entry.as_ref();
        let entry = entry.map(|entry| format!(" [{}, entry {}]", shown(&entry.policy()), entry.position));
        denied(&self.image.image, reason, &(note + &entry.unwrap_or_default()))
    }
}

fn pin(need: &NeededProof, proven: Proven) -> Pinned {
    let pinned = need.pin.map(|style| pinned(&need.reference, style, proven.digest()));
    Pinned { proven, pinned }
}

/// A digest that is there already stays as it is written; it was compared before.
fn pinned(reference: &ImageReference, style: PinStyle, digest: Sha256) -> String {
    let repository = reference.written_repository();
    match (style, reference.tag()) {
        (PinStyle::TagAndDigest, _) if reference.digest().is_some() => reference.as_written().to_owned(),
        (PinStyle::TagAndDigest, Some(tag)) => format!("{repository}:{tag}@{digest}"),
        (PinStyle::TagAndDigest, None) | (PinStyle::Digest, _) => format!("{repository}@{digest}"),
    }
}

/// The text of a denial of an image: `Deny "IMAGE", REASON`, a line for each reason.
#[must_use]
pub fn denial(image: &str, reason: &DenyReason) -> String {
    let lines: Vec<_> = denied(image, reason, "").into_iter().map(|(_, line)| line).collect();
    lines.join("\n")
}

fn denied(image: &str, reason: &DenyReason, tail: &str) -> Vec<(DenialCause, String)> {
    let image = quoted(image);
    let line = |(cause, reason)| (cause, format!("Deny {image}, {reason}{tail}"));
    reason.lines().into_iter().map(line).collect()
}

/// What a review comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// One for each image, in the order of the object.
    pub images: Vec<ImageVerdict>,
}

impl Verdict {
    /// Whether every image may run, whatever the modes make of it.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.denied().next().is_none()
    }

    /// Whether the object may be admitted: every image may run that is enforced.
    #[must_use]
    pub fn admitted(&self) -> bool {
        !self.images.iter().any(ImageVerdict::blocks)
    }

    /// The reasons of the images that may not run.
    pub fn denied(&self) -> impl Iterator<Item = &DenyReason> {
        self.images.iter().filter_map(ImageVerdict::reason)
    }

    /// What should be known of images although they are allowed, with the image as it was written.
    pub fn warnings(&self) -> impl Iterator<Item = (&str, &Warning)> {
        self.images
            .iter()
            .flat_map(|image| image.warnings().iter().map(|warning| (image.image.image.as_str(), warning)))
    }

    /// The names of those who signed the images, each once.
    #[must_use]
    pub fn signers(&self) -> BTreeSet<&str> {
        let proofs = self.images.iter().filter_map(ImageVerdict::proven).flat_map(Proven::proofs);
        proofs.flat_map(Proof::signers).collect()
    }

    /// The verdict on an object that is only to be looked at: a proven image that has no digest, and should have one, is
    /// denied, unless it is not enforced and so was never to be pinned. `is_revision` says that the object is one that cannot be changed at all.
    #[must_use]
    pub fn unchangeable(mut self, is_revision: bool) -> Self {
        for image in self.images.iter_mut().filter(|image| image.is_enforced()) {
            let Outcome::Proven(proven) = &image.outcome else {
                continue;
            };
            let Pinned { proven, pinned: Some(pinned) } = &**proven else {
                continue;
            };
            if ImageReference::parse(&image.image.image).is_ok_and(|reference| reference.digest().is_none()) {
                image.outcome = Outcome::Denied(if is_revision {
                    DenyReason::RevisionNotPinned { pinned: pinned.clone() }
                } else {
                    DenyReason::LostPin { digest: proven.digest().to_string() }
                });
            }
        }
        self
    }

    /// The message of a denial: a line for each denied image that `told` takes, the same line only once. Of so many that nobody reads
    /// them, the last line says how many are left out. `help` gives what stands behind a line for its cause.
    #[must_use]
    pub fn message(&self, told: impl Fn(&ImageVerdict) -> bool, help: impl Fn(DenialCause) -> String) -> String {
        let mut lines: Vec<String> = Vec::new();
        let (mut length, mut left_out) = (0, 0);
        for image in self.images.iter().filter(|image| told(image)) {
            let mut whole = true;
            for (cause, line) in image.denials() {
                let line = line + &help(cause);
                if lines.contains(&line) {
                    continue;
                }
                let line = cut(&line);
                if length > 0 && length + line.len() > MAX_MESSAGE {
                    whole = false;
                    break;
                }
                length += line.len() + 1;
                lines.push(line.to_owned());
            }
            left_out += usize::from(!whole);
        }
        if left_out > 0 {
            lines.push(format!("and {left_out} more images are denied"));
        }
        lines.join("\n")
    }
}

/// A line, or as much of it as a denial may have.
fn cut(line: &str) -> &str {
    &line[..line.floor_char_boundary(MAX_MESSAGE)]
}

/// How many bytes the lines of a denial may have together: some fifty of them. It stands in the answer, in an audit annotation and in the
/// log.
const MAX_MESSAGE: usize = 16 << 10;

#[cfg(test)]
mod tests;
