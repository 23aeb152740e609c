//! The JSON patch (RFC 6902) in which pins, and digests that are put back, are written; it decides nothing.

use serde_json::{Value, json};

use crate::verdict::{Outcome, Verdict};

/// Which texts are to be replaced: pointer and pinned image. Those that stand pinned already are left out, and those of images that
/// are not enforced.
pub fn pins(verdict: &Verdict) -> impl Iterator<Item = (&str, &str)> {
    verdict.images.iter().filter(|image| image.is_enforced()).filter_map(|image| match &image.outcome {
        Outcome::Proven(proof) => {
            let pinned = proof.pinned().filter(|pinned| *pinned != image.image.image)?;
            Some((image.image.pointer.as_str(), pinned))
        }
        Outcome::PutBack(before) => Some((image.image.pointer.as_str(), before.as_str())),
        _ => None,
    })
}

/// The patch of a verdict: a `replace` for each image that is to be pinned. `None` where there is nothing to do, or the object
/// is denied.
#[must_use]
pub fn patch(verdict: &Verdict) -> Option<Vec<u8>> {
    if !verdict.admitted() {
        return None;
    }
    let operations: Vec<Value> =
        pins(verdict).map(|(pointer, pinned)| json!({"op": "replace", "path": pointer, "value": pinned})).collect();
    if operations.is_empty() { None } else { serde_json::to_vec(&operations).ok() }
}
