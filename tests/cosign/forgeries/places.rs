//! Where signatures stand, and what stands there in their place.

use countersign_tests::{Form, KeyKind};
use serde_json::{Value, json};

use super::{BUNDLE, Case, EMPTY, Image, Make, Stored, alice, bundle, index, other, payload_of, statement};

fn sound(image: &Image) -> Stored {
    Stored::new().bundle(image, &bundle(&alice(), &statement(&image.hex)))
}

/// What the index under the fall-back tag says of the sound bundle, changed.
fn listed(name: &str, sound_: bool, told: Value) -> Case {
    Case::new(name, sound_, move |image| {
        let mut stored = sound(image);
        stored.referrers[0].1 = told.clone();
        stored
    })
    .only("plain")
}

/// The bundle in a manifest that refers to `subject`, listed as one of this image.
fn of_other_subject(image: &Image, subject: &str) -> Stored {
    let mut stored = Stored::new();
    let layer = stored.blob(BUNDLE, bundle(&alice(), &statement(&image.hex)).to_string().as_bytes());
    stored.refer(subject, BUNDLE, EMPTY, &[layer])
}

pub(super) fn cases() -> Vec<Case> {
    let referrer = |case: Case| Case { referrer: true, ..case };
    let mut cases = vec![
        referrer(Case::sound("referrer", |image| Stored::new().sig_referrer(&alice(), &image.hex, &payload_of(image)))),
        Case::sound("referrer-without-its-flag", |image| {
            Stored::new().sig_referrer(&alice(), &image.hex, &payload_of(image))
        }),
        referrer(Case::broken("referrer-by-another", |image| {
            Stored::new().sig_referrer(&super::bob(), &image.hex, &payload_of(image))
        })),
        referrer(Case::broken("referrer-subject-other", |image| {
            Stored::new().sig_referrer(&alice(), &other(), &payload_of(image))
        })),
        Case::sound("referrers-first-broken-second-good", |image| {
            let broken = Stored::new().bundle_bytes(image, b"{");
            let broken = broken.refer(&image.hex, BUNDLE, EMPTY, &[]);
            broken.bundle(image, &bundle(&alice(), &statement(&image.hex)))
        }),
        Case::sound("referrers-first-old-second-good", |image| {
            let mut old = bundle(&alice(), &statement(&image.hex));
            old["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.2");
            Stored::new().bundle(image, &old).bundle(image, &bundle(&alice(), &statement(&image.hex)))
        }),
        Case::sound("broken-bundle-beside-sound-sig", |image| {
            Stored::new().bundle_bytes(image, b"{").sig(&alice(), &payload_of(image))
        }),
        Case::sound("attestation-beside-sound-sig", |image| {
            let attestation = statement(&image.hex).replace(super::SIGN, "https://slsa.dev/provenance/v1");
            Stored::new().bundle(image, &bundle(&alice(), &attestation)).sig(&alice(), &payload_of(image))
        }),
        Case::broken("referrers-subject-other", |image| of_other_subject(image, &other())),
        Case::broken("referrers-subject-absent", |image| {
            let mut stored = sound(image);
            stored.referrers[0].0.as_object_mut().expect("an object").remove("subject");
            stored
        }),
        Case::broken("fallback-is-image-manifest", |image| {
            let mut stored = sound(image);
            let (manifest, _) = stored.referrers.remove(0);
            stored.fallback = Some(manifest);
            stored
        })
        .only("plain"),
        Case::broken("fallback-lists-nothing", |_| Stored { fallback: Some(index(&[])), ..Stored::new() })
            .only("plain"),
        listed("referrers-type-oci-empty", true, json!({"artifactType": EMPTY})),
        listed("referrers-type-absent", true, json!({})),
        listed("referrers-type-other", false, json!({"artifactType": "application/spdx+json"})),
        listed("referrers-manifest-size-short", false, json!({"artifactType": BUNDLE, "size": 7})),
        listed("referrers-manifest-size-5-MB", false, json!({"artifactType": BUNDLE, "size": 5 << 20})),
    ];
    for (kind, form) in [(KeyKind::P256, Form::Tag), (KeyKind::P256, Form::Referrer), (KeyKind::P256, Form::Bundle)] {
        cases.push(real("", kind, form, true));
    }
    for form in [Form::Tag, Form::Bundle] {
        cases.push(real("ed25519ph-said-", KeyKind::Ed25519, form, false));
    }
    cases
}

/// Signed by the real cosign.
fn real(name: &str, kind: KeyKind, form: Form, sound: bool) -> Case {
    let referrer = form == Form::Referrer;
    let name = format!("{name}real-{}", form.name());
    Case { referrer, make: Make::Real(kind, form), ..Case::new(&name, sound, |_| Stored::new()) }
}
