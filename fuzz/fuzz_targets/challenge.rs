//! Any text as a WWW-Authenticate header.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for challenge in countersign_remote::challenge::parse(text) {
        let _ = (challenge.parameter("realm"), challenge.parameter("scope"));
    }
});
