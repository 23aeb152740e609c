//! Any bytes as an AdmissionReview, and any object in it as a workload. The images found in the members that are read of an object are
//! those of all of it.
#![no_main]

use libfuzzer_sys::fuzz_target;

use countersign::{Answer, Reading, Review};
use countersign_policy::Kinds;

fuzz_target!(|data: &[u8]| {
    let Ok(review) = Review::parse(data) else { return };
    let _ = review.answer(&Answer::default());
    let Some(text) = review.request.object else { return };
    let Ok(object) = serde_json::from_str::<serde_json::Value>(text) else { return };
    let kinds = Kinds::known();
    for kind in [review.request.kind.kind.as_str(), "Pod", "Deployment", "CronJob", "ControllerRevision", "Unknown"] {
        for group in [review.request.kind.group.as_str(), "", "apps", "batch"] {
            let whole = kinds.workload(group, kind, &object);
            // Only inputs of a megabyte could be beyond the bounds, or have texts that are cut.
            if data.len() < 1024 {
                let kept = Reading::of(&kinds, group, kind, text).map(|kept| kept.workload);
                assert_eq!(kept, whole.clone().map_err(|error| error.to_string()));
            }
            for image in whole.map(|workload| workload.images).unwrap_or_default() {
                assert_eq!(object.pointer(&image.pointer).and_then(|text| text.as_str()), Some(image.image.as_str()));
            }
        }
    }
});
