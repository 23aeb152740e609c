//! Random damage to signed content, for property tests.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::canonical::canonical;
use crate::files::Files;

/// Endless variants of a repository in which one byte of one signed part was changed, each with a description.
///
/// The change is made at the checksum name too, so that it is met wherever the file is asked for. Bytes outside of
/// `signed` are left alone: some of them may change without harm.
pub fn mutations(files: &Files, seed: u64) -> impl Iterator<Item = (String, Files)> {
    let originals: Vec<(String, Vec<u8>)> = files
        .iter()
        .filter(|(name, _)| {
            ["root.json", "timestamp.json", "snapshot.json", "targets.json"].contains(name)
                || name.starts_with("targets/")
        })
        .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))
        .collect();
    let files = files.clone();
    (0u64..).filter_map(move |count| {
        let chance = Sha256::digest([seed.to_be_bytes(), count.to_be_bytes()].concat());
        let number = |at: usize| chance[at..at + 4].iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
        let (name, bytes) = originals.get(number(0) % originals.len())?;
        // `signed` comes first in the files of this crate.
        let end = find(bytes, b",\"signatures\":")?;
        let start = find(bytes, b"{\"signed\":")? + 10;
        let at = start + number(4) % (end - start);
        let mut changed = bytes.clone();
        let what = match number(8) % 4 {
            0 => {
                changed[at] ^= 1 << (number(12) % 8);
                "a flipped bit"
            }
            1 => {
                changed[at] = u8::try_from(number(12) % 256).ok()?;
                "another byte"
            }
            2 => {
                changed.remove(at);
                "a missing byte"
            }
            _ => {
                changed.insert(at, b' ' + u8::try_from(number(12) % 95).ok()?);
                "an inserted byte"
            }
        };
        // White space, or another spelling of a string, is no change to what is signed.
        if signed_form(&changed) == signed_form(bytes) {
            return None;
        }
        let mut variant = files.clone();
        let role = name.strip_suffix(".json")?;
        variant.substitute(role, changed);
        Some((format!("{name} with {what} at {at}"), variant))
    })
}

fn signed_form(bytes: &[u8]) -> Option<Vec<u8>> {
    let document: Value = serde_json::from_slice(bytes).ok()?;
    document.get("signed").map(canonical)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
