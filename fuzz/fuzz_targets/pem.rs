//! Any text as the public key of a signer or as a pinned root key.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = countersign_notary::Signer::new("alice", data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = countersign_notary::Signer::new(text, b"");
        let _ = countersign_notary::RootPins::none().add(text);
    }
});
