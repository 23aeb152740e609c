//! Whatever is done to the bytes of a signature, nothing panics and nothing that was not signed becomes a fact.

use countersign_image::Sha256;
use proptest::prelude::*;
use serde_json::json;

use crate::manifest::{Form, Layer};
use crate::testing::{
    BUNDLE, IN_TOTO, Registry, SIMPLE, alice, base64, bundle, image, key, other_image, pae, payload, sign, statement,
};
use crate::{Budget, Candidate, Descriptor, Fact, Scan, Skipped, fact, sig_tag};

/// What becomes of a blob whose manifest lists it as it is.
fn look(form: Form, blob: &[u8], signature: Option<&str>) -> Result<Fact, Skipped> {
    let media_type = if form == Form::Bundle { BUNDLE } else { SIMPLE }.to_owned();
    let signature = signature.map(str::to_owned);
    let layer = Layer { form, media_type, digest: Sha256::of(blob), size: blob.len() as u64, signature };
    fact(image(), &Candidate::new(&layer, blob)?, &[key("alice"), key("bob")], &Budget::new())
}

fn is_alices(fact: &Fact) -> bool {
    fact.digest() == image() && fact.material() == key("alice").material()
}

/// Replaces, inserts or removes one byte.
fn mutated(bytes: &[u8], at: usize, how: u8, byte: u8) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let at = at % out.len();
    match how % 3 {
        0 => out[at] = byte,
        1 => out.insert(at, byte),
        _ => drop(out.remove(at)),
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_mutated_payload_is_no_fact(at: usize, how: u8, byte: u8) {
        let text = payload(image());
        let signature = base64(&sign(&alice(), text.as_bytes()));
        prop_assert!(look(Form::SigTag, text.as_bytes(), Some(&signature)).is_ok());
        let odd = mutated(text.as_bytes(), at, how, byte);
        prop_assume!(odd != text.as_bytes());
        prop_assert!(look(Form::SigTag, &odd, Some(&signature)).is_err());
    }

    #[test]
    fn a_mutated_statement_is_no_fact(at: usize, how: u8, byte: u8) {
        let text = statement(image());
        let signature = base64(&sign(&alice(), &pae(IN_TOTO, text.as_bytes())));
        let odd = mutated(text.as_bytes(), at, how, byte);
        prop_assume!(odd != text.as_bytes());
        let bundle = json!({
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {}},
            "dsseEnvelope": {"payload": base64(&odd), "payloadType": IN_TOTO, "signatures": [{"sig": signature}]}
        });
        prop_assert!(look(Form::Bundle, bundle.to_string().as_bytes(), None).is_err());
    }

    /// Parts of a bundle are not signed, so a fact may be left: then of the same digest, by the same key.
    #[test]
    fn a_mutated_bundle_says_nothing_new(at: usize, how: u8, byte: u8) {
        let odd = mutated(bundle(&alice(), &statement(image())).to_string().as_bytes(), at, how, byte);
        if let Ok(fact) = look(Form::Bundle, &odd, None) {
            prop_assert!(is_alices(&fact));
            prop_assert!(fact.claims().is_empty());
        }
        let other = mutated(bundle(&alice(), &statement(other_image())).to_string().as_bytes(), at, how, byte);
        prop_assert!(look(Form::Bundle, &other, None).is_err());
    }

    #[test]
    fn a_mutated_signature_is_another_encoding_at_most(at: usize, how: u8, byte: u8) {
        let text = payload(other_image());
        let signature = mutated(&sign(&alice(), text.as_bytes()), at, how, byte);
        prop_assert!(look(Form::SigTag, payload(image()).as_bytes(), Some(&base64(&signature))).is_err());
        let text = payload(image());
        let right = sign(&alice(), text.as_bytes());
        let signature = mutated(&right, at, how, byte);
        prop_assume!(signature != right);
        prop_assert!(look(Form::SigTag, text.as_bytes(), Some(&base64(&signature))).is_err());
    }

    /// Strict as cosign is not, over what a key really signs: any payload but the right one is refused.
    #[test]
    fn a_signed_payload_that_is_mutated_says_nothing_new(at: usize, how: u8, byte: u8) {
        let odd = mutated(payload(image()).as_bytes(), at, how, byte);
        if let Ok(fact) = look(Form::SigTag, &odd, Some(&base64(&sign(&alice(), &odd)))) {
            // What is left are white space and the repository's name.
            prop_assert!(fact.claims().is_empty());
            let text = String::from_utf8(odd).unwrap();
            prop_assert!(text.contains(&image().hex()));
        }
    }

    #[test]
    fn a_mutated_manifest_lists_other_bytes_at_most(at: usize, how: u8, byte: u8) {
        let registry = Registry::new().sig(&alice()).bundle(&alice());
        let mut scan = Scan::new(image());
        let odd = mutated(&registry.sig_manifest(), at, how, byte);
        for layer in scan.sig_tag(&odd, crate::testing::MANIFEST) {
            scan.blob(&layer, payload(image()).as_bytes(), &[key("alice")], &Budget::new());
        }
        let (descriptor, bytes) = &registry.referrers[0];
        let odd = mutated(bytes, at, how, byte);
        let listed = Descriptor { digest: Sha256::of(&odd), size: odd.len() as u64, ..descriptor.clone() };
        let blob = bundle(&alice(), &statement(image())).to_string();
        for layer in scan.referrer(&listed, &odd, crate::testing::MANIFEST) {
            scan.blob(&layer, blob.as_bytes(), &[key("alice")], &Budget::new());
        }
        prop_assert!(scan.facts().iter().all(is_alices));
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,100}") {
        prop_assert!(look(Form::SigTag, &bytes, Some(&text)).is_err());
        prop_assert!(look(Form::SigReferrer, text.as_bytes(), Some(&base64(&bytes))).is_err());
        prop_assert!(look(Form::Bundle, &bytes, None).is_err());
        prop_assert!(sig_tag(&bytes, crate::testing::MANIFEST).is_err());
        prop_assert!(crate::Key::from_pem("a", &bytes).is_err());
    }
}
