//! The JSON patch (RFC 6902) that pins proven images, and nothing else.

use serde_json::{Value, json};

use crate::verdict::{Outcome, Verdict};

/// Which texts are to be replaced: pointer and pinned image. Those that stand pinned already are left out.
fn pins(verdict: &Verdict) -> impl Iterator<Item = (&str, &str)> {
    verdict.images.iter().filter_map(|image| match &image.outcome {
        Outcome::Proven(proof) => {
            let pinned = proof.pinned().filter(|pinned| *pinned != image.image.image)?;
            Some((image.image.pointer.as_str(), pinned))
        }
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

/// Makes the same changes to the object itself.
pub fn apply(verdict: &Verdict, object: &mut Value) {
    if !verdict.allowed() {
        return;
    }
    for (pointer, pinned) in pins(verdict) {
        if let Some(image) = object.pointer_mut(pointer) {
            *image = Value::String(pinned.to_owned());
        }
    }
}
