//! Any bytes as a manifest of signatures: bounds hold, and no layer that is to be fetched is longer than it may be.
#![no_main]

use countersign_cosign::limits::{MAX_BUNDLE_BYTES, MAX_LAYERS};
use countersign_cosign::{Descriptor, Scan};
use countersign_image::Sha256;
use libfuzzer_sys::fuzz_target;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fuzz_target!(|data: &[u8]| {
    let mut scan = Scan::new(Sha256::of(b""));
    let listed = Descriptor {
        media_type: MANIFEST.to_owned(),
        digest: Sha256::of(data),
        size: data.len() as u64,
        artifact_type: None,
        annotations: std::collections::BTreeMap::new(),
    };
    let mut layers = scan.sig_tag(data, MANIFEST);
    layers.extend(scan.referrer(&listed, data, MANIFEST));
    assert!(layers.len() <= MAX_LAYERS);
    assert!(layers.iter().all(|layer| layer.size() <= MAX_BUNDLE_BYTES as u64));
    assert!(scan.facts().is_empty());
});
