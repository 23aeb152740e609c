//! Any text as the name of an entry, against any image.
#![no_main]

use countersign_image::ImageReference;
use countersign_policy::Pattern;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: (&str, &str)| {
    if let (Ok(pattern), Ok(image)) = (Pattern::parse(texts.0), ImageReference::parse(texts.1)) {
        let _ = (pattern.matches(&image), pattern.specificity());
        // What an entry is normalised to means the same.
        if let Ok(again) = Pattern::parse(&pattern.normalised()) {
            assert_eq!(again.matches(&image), pattern.matches(&image));
        }
    }
});
