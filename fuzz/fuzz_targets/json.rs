//! Any bytes: the reader and the canonical form never panic, and the canonical form of a canonical form is itself.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = countersign_json::decode(data);
    let Ok(value) = countersign_json::parse(&text) else { return };
    let Ok(canonical) = countersign_json::canonical(&value) else { return };
    // Control characters stand raw in the canonical form, which is then no JSON any more.
    let again = countersign_json::decode(&canonical);
    if let Ok(value) = countersign_json::parse(&again) {
        assert_eq!(countersign_json::canonical(&value).ok().as_deref(), Some(canonical.as_slice()));
    }
});
