//! Any text as a file of policies and secrets.
#![no_main]

use libfuzzer_sys::fuzz_target;

use countersign::Loaded;

fuzz_target!(|text: &str| {
    if let Ok(documents) = countersign::parse_documents("fuzz.yaml", text) {
        let _ = Loaded::of(&documents);
    }
});
