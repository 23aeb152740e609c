//! Any bytes as a docker config.json.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(config) = countersign_remote::DockerConfig::parse(data) {
        let _ = config.for_host("registry.example.com:5000");
    }
});
