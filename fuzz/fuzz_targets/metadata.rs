//! Any bytes for any file of a repository: an update ends, and never in trust.
#![no_main]

use libfuzzer_sys::fuzz_target;

use countersign_notary::{Answer, RootPins, Step, Update};

fuzz_target!(|data: &[u8]| {
    let now = jiff::Timestamp::constant(1_893_456_000, 0);
    let Ok(mut update) = Update::start("registry.example.com/team/app", None, None, RootPins::none(), now) else {
        return;
    };
    let mut parts = data.split(|byte| *byte == 0xff);
    let mut answers = Vec::new();
    loop {
        match update.advance(answers) {
            Ok(Step::Fetch(requests)) => {
                answers = requests
                    .iter()
                    .map(|_| parts.next().map_or(Answer::Missing, |part| Answer::Found(part.to_vec())))
                    .collect();
            }
            Ok(Step::Done(_)) | Err(_) => break,
        }
    }
});
