//! Any text: what is passed over is JSON as another reader has it, down to the depth that one reads, and texts are the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

use countersign_json::skim::{Kind, Skim};
use serde_json::Value;

/// How deep `serde_json` reads.
const MAX_DEPTH: usize = 127;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut json = Skim::new(text);
    let passed = json.value().and_then(|value| json.end().map(|()| value));
    let read = serde_json::from_str::<Value>(text);
    match (&passed, &read) {
        (Ok(passed), Ok(_)) => assert_eq!(*passed, text.trim_matches([' ', '\n', '\r', '\t'])),
        (Err(_), Ok(_)) => panic!("refused, and it is JSON"),
        // What is only passed over is neither a number that is too large nor a text that is none of Unicode, and may be deep.
        (Ok(passed), Err(_)) => {
            let deep = passed.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() > MAX_DEPTH;
            assert!(deep || passed.contains('\\') || passed.bytes().any(|byte| byte.is_ascii_digit()));
        }
        (Err(_), Err(_)) => {}
    }
    let mut json = Skim::new(text);
    if json.kind() == Ok(Kind::Text)
        && let Ok(read) = &read
    {
        assert_eq!(json.string().ok().as_deref(), read.as_str());
    }
});
