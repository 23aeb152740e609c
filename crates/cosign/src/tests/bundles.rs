//! Sigstore bundles.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::testing::{
    BUNDLE, IN_TOTO, Registry, SIGN, alice, base64, bob, bundle, bundle_with, image, key, other_image, pae, payload,
    sign, statement,
};
use crate::{Demand, Error, Form};

/// Alice's bundle of another statement.
fn of(statement: &str) -> Registry {
    Registry::new().bundle_of(bundle(&alice(), statement))
}

/// Alice's sound bundle, changed.
fn changed(change: impl FnOnce(&mut Value)) -> Registry {
    let mut bundle = bundle(&alice(), &statement(image()));
    change(&mut bundle);
    Registry::new().bundle_of(bundle)
}

#[test]
fn sound() {
    let registry = Registry::new().bundle(&alice());
    assert_eq!(registry.by_alice().unwrap().by()[0].signer, "alice");
    let scan = registry.scan(&[key("alice")]);
    assert_eq!((scan.facts()[0].form(), scan.facts()[0].docker_reference()), (Form::Bundle, None));
    let other_spelling =
        changed(|bundle| bundle["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.3"));
    assert!(other_spelling.by_alice().is_ok());
    assert!(changed(|bundle| bundle["unknown"] = json!({"a": 1})).by_alice().is_ok());
}

#[test]
fn bundle_attestation_only() {
    let slsa = statement(image()).replace(SIGN, "https://slsa.dev/provenance/v1");
    let expected = format!("{} has only attestations (https://slsa.dev/provenance/v1)", image());
    let error = of(&slsa).by_alice().unwrap_err();
    assert_eq!((error.to_string(), error.rank()), (expected.clone(), 1));
    // The same by a key that nobody asked for.
    let error = of(&slsa).judge(&[key("bob")]).unwrap_err();
    assert_eq!(error.to_string(), expected);
    for near in
        ["https://sigstore.dev/cosign/sign/v2", "https://sigstore.dev/cosign/sign/v1/", "", "cosign.sigstore.dev/sign"]
    {
        assert!(of(&statement(image()).replace(SIGN, near)).by_alice().is_err(), "{near}");
    }
    let untyped = statement(image()).replace("\"predicateType\"", "\"x\"");
    assert!(of(&untyped).refused().contains("predicateType is missing"));
}

#[test]
fn bundle_statement_type_garbage() {
    for other in ["garbage", "", "https://in-toto.io/Statement/v2", "https://in-toto.io/Statement/v1 "] {
        let text = statement(image()).replace("https://in-toto.io/Statement/v1", other);
        assert!(of(&text).refused().contains("which is no in-toto statement"), "{other}");
    }
    let old = statement(image()).replace("Statement/v1", "Statement/v0.1");
    assert!(of(&old).by_alice().is_ok());
}

#[test]
fn bundle_no_subject() {
    let subject = format!(r#"[{{"digest":{{"sha256":"{}"}}, "annotations":{{}}}}]"#, image().hex());
    for (none, told) in [("[]", "it has no subject"), ("null", "subject is missing"), ("{}", "subject is missing")] {
        let text = statement(image()).replace(&subject, none);
        assert_ne!(text, statement(image()));
        assert!(of(&text).refused().contains(told), "{none}");
    }
}

#[test]
fn bundle_subject_second() {
    let first = format!(r#"[{{"name":"x","digest":{{"sha256":"{}"}}}},"#, other_image().hex());
    let text = statement(image()).replace("\"subject\":[", &format!("\"subject\":{first}"));
    assert!(of(&text).by_alice().is_ok());
    assert!(of(&statement(other_image())).refused().contains("none of its subjects is the image"));
}

#[test]
fn bundle_subject_upper_hex() {
    let hex = image().hex();
    for other in [hex.to_uppercase(), format!("sha256:{hex}"), format!("{hex} "), hex[..63].to_owned()] {
        let text = statement(image()).replace(&hex, &other);
        assert!(of(&text).refused().contains("none of its subjects is the image"), "{other}");
    }
}

#[test]
fn bundle_subject_sha512_only() {
    for other in ["sha512", "SHA256", "sha1"] {
        let text = statement(image()).replace("\"sha256\"", &format!("\"{other}\""));
        assert!(of(&text).refused().contains("none of its subjects is the image"), "{other}");
    }
}

#[test]
fn bundle_two_signatures() {
    let two = changed(|bundle| {
        let signatures = bundle["dsseEnvelope"]["signatures"].as_array_mut().unwrap();
        let message = pae(IN_TOTO, statement(image()).as_bytes());
        signatures.push(json!({"sig": base64(&sign(&bob(), &message))}));
    });
    assert!(two.refused().contains("its envelope has 2 signatures, where exactly one is expected"));
}

#[test]
fn bundle_no_signature() {
    for (signatures, told) in [
        (json!([]), "has 0 signatures"),
        (json!(null), "signatures is missing"),
        (json!([{}]), "sig is missing"),
        (json!([{"sig": ""}]), "its signature is empty"),
        (json!([7]), "has 1 signatures"),
        (json!([{"sig": base64(&[0x30; 1025])}]), "or has more than 1024 bytes"),
    ] {
        let refused = changed(|bundle| bundle["dsseEnvelope"]["signatures"] = signatures.clone()).refused();
        assert!(refused.contains(told), "{signatures}: {refused}");
    }
}

/// The type is part of what is signed, so each of these is signed with the type that it has.
#[test]
fn bundle_payload_type_text() {
    for other in ["text/plain", "application/vnd.in-toto+json ", "application/json", ""] {
        let text = statement(image());
        let signature = sign(&alice(), &pae(other, text.as_bytes()));
        let mut bundle = bundle_with(&alice(), &text, &signature);
        bundle["dsseEnvelope"]["payloadType"] = json!(other);
        assert!(Registry::new().bundle_of(bundle).refused().contains("its payload is of the type"), "{other}");
    }
}

/// Signatures over anything but the encoding of the very payload.
#[test]
fn bundle_pae_length_tricks() {
    let text = statement(image());
    let length = text.len();
    let encoded = base64(text.as_bytes());
    for (what, message) in [
        ("the payload alone", text.clone()),
        ("one byte more", format!("DSSEv1 28 {IN_TOTO} {} {text}", length + 1)),
        ("a zero in front", format!("DSSEv1 28 {IN_TOTO} 0{length} {text}")),
        ("two spaces", format!("DSSEv1 28 {IN_TOTO}  {length} {text}")),
        ("a line break", format!("DSSEv1 28 {IN_TOTO} {length} {text}\n")),
        ("base64", format!("DSSEv1 28 {IN_TOTO} {} {encoded}", encoded.len())),
        ("no lengths", format!("DSSEv1 {IN_TOTO} {text}")),
        ("lower case", format!("dssev1 28 {IN_TOTO} {length} {text}")),
    ] {
        let bundle = bundle_with(&alice(), &text, &sign(&alice(), message.as_bytes()));
        assert!(matches!(Registry::new().bundle_of(bundle).by_alice(), Err(Error::NotSignedBy { .. })), "{what}");
    }
    let right = format!("DSSEv1 28 {IN_TOTO} {length} {text}");
    let bundle = bundle_with(&alice(), &text, &sign(&alice(), right.as_bytes()));
    assert!(Registry::new().bundle_of(bundle).by_alice().is_ok());
}

#[test]
fn bundle_payload_base64url() {
    // So that the alphabets differ: `?` and `>` at the right places become `/` and `+`.
    let text = (0..3)
        .map(|pad| statement(image()).replace("\"predicate\":{}", &format!("{}\"x\":\"??>>??>>\"", " ".repeat(pad))))
        .find(|text| base64(text.as_bytes()).contains(['+', '/']))
        .unwrap();
    assert!(of(&text).by_alice().is_ok());
    let encoded = base64(text.as_bytes());
    let unpadded = encoded.trim_end_matches('=').to_owned();
    let mut others =
        vec![encoded.replace('+', "-").replace('/', "_"), format!("{encoded}\n"), format!("{encoded}====")];
    others.extend((unpadded != encoded).then_some(unpadded));
    for other in others {
        let mut bundle = bundle(&alice(), &text);
        bundle["dsseEnvelope"]["payload"] = json!(other);
        assert!(Registry::new().bundle_of(bundle).refused().contains("payload is not base64 of the standard alphabet"));
    }
}

#[test]
fn bundle_both_contents() {
    let both = changed(|bundle| bundle["messageSignature"] = json!({"signature": "AAAA"}));
    assert!(both.refused().contains("it has 2 of dsseEnvelope, messageSignature"));
    let neither = changed(|bundle| bundle["dsseEnvelope"] = json!(null));
    assert!(neither.refused().contains("it has 0 of dsseEnvelope, messageSignature"));
}

#[test]
fn bundle_both_materials() {
    let both = changed(|bundle| bundle["verificationMaterial"]["certificate"] = json!({"rawBytes": "AAAA"}));
    assert!(both.refused().contains("it has 2 of publicKey, certificate, x509CertificateChain"));
    let neither = changed(|bundle| bundle["verificationMaterial"] = json!({}));
    assert!(neither.refused().contains("it has 0 of publicKey"));
    let twice = bundle(&alice(), &statement(image())).to_string().replacen(
        "\"publicKey\":",
        "\"publicKey\":{},\"publicKey\":",
        1,
    );
    assert!(Registry::new().bundle_bytes(twice.as_bytes()).refused().contains("stands twice"));
}

#[test]
fn bundle_message_signature() {
    let signature = json!({"messageDigest": {"algorithm": "SHA2_256", "digest": ""}, "signature": "AAAA"});
    let message = changed(|bundle| {
        bundle.as_object_mut().unwrap().remove("dsseEnvelope");
        bundle["messageSignature"] = signature;
    });
    assert!(message.refused().contains("it signs bytes (messageSignature), not an image"));
}

#[test]
fn bundle_key_hint_of_other_key() {
    let hints =
        [json!({"hint": base64(&forge::sha256(&bob().spki()))}), json!({}), json!({"hint": "x"}), json!({"hint": ""})];
    for hint in hints {
        let hinted = changed(|bundle| bundle["verificationMaterial"]["publicKey"] = hint.clone());
        assert!(hinted.judge(&[key("alice")]).is_ok(), "{hint}");
        // A hint at bob is no signature of bob's.
        let error = hinted.judge(&[key("alice"), key("bob")]).unwrap_err();
        assert_eq!(error.to_string(), format!("{} is signed by alice, but not by bob", image()));
    }
    let with_id = changed(|bundle| bundle["dsseEnvelope"]["signatures"][0]["keyid"] = json!("bob"));
    assert!(with_id.judge(&[key("alice")]).is_ok());
}

#[test]
fn bundle_certificate_with_policy_key() {
    for material in
        [json!({"certificate": {"rawBytes": "AAAA"}}), json!({"x509CertificateChain": {"certificates": []}})]
    {
        let certified = changed(|bundle| bundle["verificationMaterial"] = material);
        assert!(certified.by_alice().is_ok());
        assert!(certified.judge(&[key("bob")]).is_err());
    }
}

#[test]
fn bundle_predicate_absent() {
    // As version 2.6.5 writes it.
    let text = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{}"}}}}],"predicateType":"{SIGN}"}}"#,
        image().hex()
    );
    assert!(of(&text).by_alice().is_ok());
}

#[test]
fn bundle_two_layers() {
    let sound = Registry::new().bundle(&alice());
    let (digest, blob) = sound.blobs.iter().next().unwrap();
    let layer = json!({"mediaType": BUNDLE, "size": blob.len(), "digest": digest.to_string()});
    let other = json!({"mediaType": "text/plain", "size": 0, "digest": other_image().to_string()});
    for layers in [[layer.clone(), layer.clone()], [layer.clone(), other.clone()], [other, layer]] {
        let mut registry = Registry::new().refer(image(), BUNDLE, BUNDLE, &layers);
        registry.blobs = sound.blobs.clone();
        assert!(registry.refused().contains("it has 2 layers, where exactly one bundle is expected"));
    }
}

#[test]
fn bundle_10_mb() {
    let long = bundle(&alice(), &statement(image())).to_string() + &" ".repeat(10 << 20);
    assert!(Registry::new().bundle_bytes(long.as_bytes()).refused().contains("a bundle has more than 1048576 bytes"));
}

#[test]
fn bundle_100000_levels() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let text = bundle(&alice(), &statement(image())).to_string();
    let outside = text.replacen('{', &format!("{{\"x\":{deep},"), 1);
    assert!(Registry::new().bundle_bytes(outside.as_bytes()).refused().contains("nested deeper"));
    let inside = statement(image()).replace("\"predicate\":{}", &format!("\"predicate\":{deep}"));
    assert!(of(&inside).refused().contains("nested deeper"));
    let wide = statement(image()).replace("\"predicate\":{}", &format!("\"predicate\":[{}0]", "0,".repeat(100_000)));
    assert!(of(&wide).refused().contains("more values"));
}

/// What strangers wrote is told, but not at any length.
#[test]
fn long_names_are_cut_in_messages() {
    let name = "x".repeat(100_000);
    let text = bundle(&alice(), &statement(image())).to_string();
    let twice = text.replacen('{', &format!("{{\"{name}\":1,\"{name}\":2,"), 1);
    let refused = Registry::new().bundle_bytes(twice.as_bytes()).refused();
    assert!(refused.contains("xxx") && refused.len() < 2000, "{}", refused.len());
    let long = statement(image()).replace(SIGN, &name);
    assert!(of(&long).refused().len() < 2000);
}

#[test]
fn bundle_simple_payload_in_dsse() {
    assert!(of(&payload(image())).refused().contains("_type is missing"));
}

#[test]
fn bundle_media_v0_2() {
    for version in ["0.1", "0.2", "0.4"] {
        let kind = format!("application/vnd.dev.sigstore.bundle+json;version={version}");
        let refused = changed(|bundle| bundle["mediaType"] = json!(kind)).refused();
        assert!(refused.contains(&format!("it is a bundle of the type \"{kind}\"; version 0.3 is")), "{refused}");
    }
    assert!(changed(|bundle| bundle["mediaType"] = json!("application/json")).refused().contains("which is no bundle"));
    assert!(changed(|bundle| bundle["mediaType"] = json!(null)).refused().contains("mediaType is missing"));
}

#[test]
fn bundles_with_more_evidence() {
    let with = |entries: usize, timestamps: usize| {
        changed(|bundle| {
            bundle["verificationMaterial"]["tlogEntries"] = json!(vec![json!({}); entries]);
            bundle["verificationMaterial"]["timestampVerificationData"] =
                json!({"rfc3161Timestamps": vec![json!({}); timestamps]});
        })
    };
    assert!(with(32, 32).by_alice().is_ok());
    assert!(with(33, 0).refused().contains("tlogEntries has more than 32 items"));
    assert!(with(0, 33).refused().contains("rfc3161Timestamps has more than 32 items"));
}

#[test]
fn bundle_claims() {
    let claims = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    let demand = Demand::new(vec![key("alice")], None, vec![], claims).unwrap();
    let with = |annotations: &str| {
        let text = statement(image()).replace("\"annotations\":{}", &format!("\"annotations\":{annotations}"));
        of(&text).demand(&demand).is_ok()
    };
    assert!(with(r#"{"env":"prod"}"#));
    assert!(!with(r#"{"env":"test"}"#));
    assert!(!with("{}"));
    // Claims of another subject are not claims of the image.
    let first = format!(r#"{{"digest":{{"sha256":"{}"}},"annotations":{{"env":"prod"}}}},"#, other_image().hex());
    let text = statement(image()).replace("\"subject\":[", &format!("\"subject\":[{first}"));
    assert!(of(&text).demand(&demand).is_err());
}
