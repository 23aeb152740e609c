//! Any text as an image: what is read is read the same once normalised.
#![no_main]

use countersign_image::ImageReference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = ImageReference::parse(text) {
        let canonical = reference.canonical();
        let again = ImageReference::parse(&canonical).expect("a canonical name is a name");
        assert_eq!(again.canonical(), canonical);
        assert!(text.starts_with(reference.written_repository()));
    }
});
