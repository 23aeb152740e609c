//! Any bytes as an AdmissionReview, and any object in it as a workload.
#![no_main]

use libfuzzer_sys::fuzz_target;

use countersign::review::{Answer, Review};
use countersign_policy::Kinds;

fuzz_target!(|data: &[u8]| {
    let Ok(review) = Review::parse(data) else { return };
    let _ = review.answer(&Answer::default());
    let Some(object) = review.request.object else { return };
    let Ok(object) = serde_json::from_str::<serde_json::Value>(object.get()) else { return };
    let kinds = Kinds::known();
    for kind in [review.request.kind.kind.as_str(), "Pod", "Deployment", "CronJob", "Unknown"] {
        if let Ok(workload) = kinds.workload(&review.request.kind.group, kind, &object) {
            for image in &workload.images {
                assert_eq!(object.pointer(&image.pointer).and_then(|text| text.as_str()), Some(image.image.as_str()));
            }
        }
    }
});
