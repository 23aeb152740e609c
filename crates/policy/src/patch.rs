//! The JSON patch (RFC 6902) in which pins, and digests that are put back, are written; it decides nothing.

use serde_json::{Value, json};
use thiserror::Error;

use crate::verdict::{Outcome, Verdict};

/// Which texts are to be replaced: pointer and pinned image. Those that stand pinned already are left out.
fn pins(verdict: &Verdict) -> impl Iterator<Item = (&str, &str)> {
    verdict.images.iter().filter_map(|image| match &image.outcome {
        Outcome::Proven(proof) => {
            let pinned = proof.pinned().filter(|pinned| *pinned != image.image.image)?;
            Some((image.image.pointer.as_str(), pinned))
        }
        Outcome::PutBack(before) => Some((image.image.pointer.as_str(), before.as_str())),
        _ => None,
    })
}

/// The patch of a verdict: a `replace` for each image that is to be pinned. `None` where there is nothing to do, or the verdict
/// denies.
#[must_use]
pub fn patch(verdict: &Verdict) -> Option<Vec<u8>> {
    if !verdict.allowed() {
        return None;
    }
    let operations: Vec<Value> =
        pins(verdict).map(|(pointer, pinned)| json!({"op": "replace", "path": pointer, "value": pinned})).collect();
    if operations.is_empty() { None } else { serde_json::to_vec(&operations).ok() }
}

/// The object is not the one that was reviewed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{pointer} does not hold the image that was reviewed")]
pub struct PatchError {
    /// Where.
    pub pointer: String,
}

/// Makes the same changes to the object itself.
///
/// # Errors
/// An object that does not hold the reviewed images at their places. It may then be changed in part and is of no use.
pub fn apply(verdict: &Verdict, object: &mut Value) -> Result<(), PatchError> {
    if !verdict.allowed() {
        return Ok(());
    }
    let reviewed = verdict.images.iter().map(|image| (image.image.pointer.as_str(), image.image.image.as_str()));
    for (pointer, image) in reviewed {
        if object.pointer(pointer).and_then(Value::as_str) != Some(image) {
            return Err(PatchError { pointer: pointer.to_owned() });
        }
    }
    for (pointer, pinned) in pins(verdict) {
        if let Some(image) = object.pointer_mut(pointer) {
            *image = Value::String(pinned.to_owned());
        }
    }
    Ok(())
}
