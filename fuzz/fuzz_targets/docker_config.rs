//! Any bytes as a docker config.json, and as the older form of it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = countersign_remote::DockerConfig::parse(data);
    let _ = countersign_remote::DockerConfig::parse_legacy(data);
});
