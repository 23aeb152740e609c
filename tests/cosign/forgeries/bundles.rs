//! Sigstore bundles that refer to the image.

use serde_json::{Value, json};

use super::{
    BUNDLE, Case, IN_TOTO, Image, SIGN, Stored, alice, base64, bob, bundle, bundle_with, other, pae, payload_of, sign,
    statement,
};

/// Another text in place of one.
type Change = fn(&str) -> String;

/// Alice's bundle of a changed statement.
pub(super) fn of(image: &Image, change: impl FnOnce(String) -> String) -> Stored {
    Stored::new().bundle(image, &bundle(&alice(), &change(statement(&image.hex))))
}

/// The statement with one part replaced, and signed so.
pub(super) fn replaced(name: &str, sound: bool, from: &'static str, to: &str) -> Case {
    let to = to.to_owned();
    Case::new(name, sound, move |image| {
        of(image, |statement| {
            let changed = statement.replacen(from, &to, 1);
            assert_ne!(changed, statement);
            changed
        })
    })
}

/// Alice's sound bundle, changed.
pub(super) fn changed(name: &str, sound: bool, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Case {
    Case::new(name, sound, move |image| {
        let mut bundle = bundle(&alice(), &statement(&image.hex));
        change(&mut bundle);
        Stored::new().bundle(image, &bundle)
    })
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::sound("bundle", |image| of(image, |statement| statement)),
        Case::broken("bundle-by-another", |image| Stored::new().bundle(image, &bundle(&bob(), &statement(&image.hex)))),
        Case::sound("bundle-beside-that-of-another", |image| {
            let of = |key| bundle(key, &statement(&image.hex));
            Stored::new().bundle(image, &of(&bob())).bundle(image, &of(&alice()))
        }),
        Case::sound("sig-and-bundle-of-another", |image| {
            let stored = Stored::new().sig(&alice(), &payload_of(image));
            stored.bundle(image, &bundle(&bob(), &statement(&image.hex)))
        }),
    ];
    cases.extend(statements());
    cases.extend(envelopes());
    cases.extend(documents());
    cases
}

fn statements() -> Vec<Case> {
    let mut cases = vec![
        replaced("bundle-attestation-only", false, SIGN, "https://slsa.dev/provenance/v1"),
        replaced("bundle-predicate-type-v2", false, SIGN, "https://sigstore.dev/cosign/sign/v2"),
        replaced("bundle-predicate-type-empty", false, SIGN, ""),
        replaced("bundle-predicate-type-absent", false, "\"predicateType\"", "\"x\""),
        replaced("bundle-statement-type-garbage", false, "https://in-toto.io/Statement/v1", "garbage"),
        replaced(
            "bundle-statement-type-v2",
            false,
            "https://in-toto.io/Statement/v1",
            "https://in-toto.io/Statement/v2",
        ),
        replaced("bundle-statement-type-v0.1", true, "Statement/v1", "Statement/v0.1"),
        replaced("bundle-subject-sha512-only", false, "\"sha256\"", "\"sha512\""),
        replaced("bundle-subject-SHA256", false, "\"sha256\"", "\"SHA256\""),
        replaced("bundle-predicate-absent", true, ", \"predicate\":{}", ""),
        Case::sound("bundle-subject-second", |image| {
            let first = format!(r#""subject":[{{"name":"x","digest":{{"sha256":"{}"}}}},"#, other());
            of(image, |statement| statement.replace("\"subject\":[", &first))
        }),
        Case::broken("bundle-subject-other", |image| {
            Stored::new().bundle(image, &bundle(&alice(), &statement(&other())))
        }),
        Case::broken("bundle-simple-payload-in-dsse", |image| of(image, |_| payload_of(image))),
        Case::broken("bundle-statement-twice", |image| of(image, |statement| statement.clone() + &statement)),
        Case::broken("bundle-statement-100000-levels", |image| {
            let deep = format!("\"predicate\":{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
            of(image, |statement| statement.replace("\"predicate\":{}", &deep))
        }),
        Case::broken("bundle-duplicate-subject", |image| {
            let first = format!(r#""subject":[{{"digest":{{"sha256":"{}"}}}}],"subject""#, other());
            of(image, |statement| statement.replace("\"subject\"", &first))
        }),
        Case::broken("bundle-duplicate-predicate-type", |image| {
            of(image, |statement| statement.replace("\"predicateType\"", "\"predicateType\":\"x\",\"predicateType\""))
        }),
    ];
    for (name, subject) in [("", "[]"), ("-null", "null"), ("-object", "{}")] {
        cases.push(Case::broken(&format!("bundle-no-subject{name}"), move |image| {
            let own = format!(r#"[{{"digest":{{"sha256":"{}"}}, "annotations":{{}}}}]"#, image.hex);
            of(image, |statement| {
                assert!(statement.contains(&own));
                statement.replace(&own, subject)
            })
        }));
    }
    let near: [(&str, Change); 4] = [
        ("upper-hex", str::to_uppercase),
        ("prefix", |hex| format!("sha256:{hex}")),
        ("space", |hex| format!("{hex} ")),
        ("cut", |hex| hex[..63].to_owned()),
    ];
    for (name, change) in near {
        let name = format!("bundle-subject-{name}");
        cases.push(Case::broken(&name, move |image| of(image, |text| text.replace(&image.hex, &change(&image.hex)))));
    }
    cases
}

fn envelopes() -> Vec<Case> {
    let mut cases = vec![
        Case::broken("bundle-two-signatures", |image| {
            let text = statement(&image.hex);
            let mut bundle = bundle(&alice(), &text);
            let second = json!({"sig": base64(&sign(&bob(), &pae(IN_TOTO, &text)))});
            let first = bundle["dsseEnvelope"]["signatures"][0].clone();
            bundle["dsseEnvelope"]["signatures"] = json!([first, second]);
            Stored::new().bundle(image, &bundle)
        }),
        changed("bundle-payload-base64-line-break", false, |bundle| {
            let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap_or_default().to_owned();
            bundle["dsseEnvelope"]["payload"] = json!(payload + "\n");
        }),
        Case::broken("bundle-payload-base64url", |image| {
            let different = |text: &String| base64(text.as_bytes()).contains(['+', '/']);
            let text = (0..3)
                .map(|pad| {
                    let more = format!("{}\"predicate\":{{\"x\":\"??>>??>>\"}}", " ".repeat(pad));
                    statement(&image.hex).replace("\"predicate\":{}", &more)
                })
                .find(different)
                .unwrap_or_default();
            let mut bundle = bundle(&alice(), &text);
            bundle["dsseEnvelope"]["payload"] = json!(base64(text.as_bytes()).replace('+', "-").replace('/', "_"));
            Stored::new().bundle(image, &bundle)
        }),
        changed("bundle-keyid-of-another", true, |bundle| {
            bundle["dsseEnvelope"]["signatures"][0]["keyid"] = json!("bob");
        }),
    ];
    for (name, signatures) in [
        ("", json!([])),
        ("-null", Value::Null),
        ("-without-sig", json!([{}])),
        ("-empty", json!([{"sig": ""}])),
        ("-number", json!([7])),
        ("-long", json!([{"sig": base64(&[0x30; 1025])}])),
    ] {
        cases.push(changed(&format!("bundle-no-signature{name}"), false, move |bundle| {
            bundle["dsseEnvelope"]["signatures"] = signatures.clone();
        }));
    }
    // The type is part of what is signed, so each of these is signed with the type that it has.
    for (name, kind) in [("text", "text/plain"), ("space", "application/vnd.in-toto+json "), ("empty", "")] {
        cases.push(Case::broken(&format!("bundle-payload-type-{name}"), move |image| {
            let text = statement(&image.hex);
            let mut bundle = bundle_with(&alice(), &text, &sign(&alice(), &pae(kind, &text)));
            bundle["dsseEnvelope"]["payloadType"] = json!(kind);
            Stored::new().bundle(image, &bundle)
        }));
    }
    let tricks: [(&str, Change); 5] = [
        ("payload-alone", str::to_owned),
        ("one-more", |text| format!("DSSEv1 28 {IN_TOTO} {} {text}", text.len() + 1)),
        ("zero-in-front", |text| format!("DSSEv1 28 {IN_TOTO} 0{} {text}", text.len())),
        ("two-spaces", |text| format!("DSSEv1 28 {IN_TOTO}  {} {text}", text.len())),
        ("base64", |text| {
            let text = base64(text.as_bytes());
            format!("DSSEv1 28 {IN_TOTO} {} {text}", text.len())
        }),
    ];
    for (name, message) in tricks {
        cases.push(Case::broken(&format!("bundle-pae-length-tricks-{name}"), move |image| {
            let text = statement(&image.hex);
            let signature = sign(&alice(), message(&text).as_bytes());
            Stored::new().bundle(image, &bundle_with(&alice(), &text, &signature))
        }));
    }
    cases
}

fn documents() -> Vec<Case> {
    let mut cases = vec![
        changed("bundle-unknown-member", true, |bundle| bundle["unknown"] = json!({"a": 1})),
        changed("bundle-both-contents", false, |bundle| bundle["messageSignature"] = json!({"signature": "AAAA"})),
        changed("bundle-neither-content", false, |bundle| bundle["dsseEnvelope"] = Value::Null),
        changed("bundle-both-materials", false, |bundle| {
            bundle["verificationMaterial"]["certificate"] = json!({"rawBytes": "AAAA"});
        }),
        changed("bundle-neither-material", false, |bundle| bundle["verificationMaterial"] = json!({})),
        changed("bundle-message-signature", false, |bundle| {
            let digest = json!({"algorithm": "SHA2_256", "digest": ""});
            bundle["messageSignature"] = json!({"messageDigest": digest, "signature": "AAAA"});
            bundle.as_object_mut().expect("an object").remove("dsseEnvelope");
        }),
        Case::broken("bundle-message-signature-over-digest", |image| {
            let hash: Vec<u8> =
                (0..32).filter_map(|at| u8::from_str_radix(&image.hex[2 * at..2 * at + 2], 16).ok()).collect();
            let signature = base64(&super::der(&alice().sign_hash(&hash).bytes));
            let digest = json!({"algorithm": "SHA2_256", "digest": base64(&hash)});
            let mut bundle = bundle(&alice(), &statement(&image.hex));
            bundle["messageSignature"] = json!({"messageDigest": digest, "signature": signature});
            bundle.as_object_mut().expect("an object").remove("dsseEnvelope");
            Stored::new().bundle(image, &bundle)
        }),
        changed("bundle-certificate-with-policy-key", true, |bundle| {
            bundle["verificationMaterial"] = json!({"certificate": {"rawBytes": "AAAA"}});
        }),
        changed("bundle-certificate-chain-with-policy-key", true, |bundle| {
            bundle["verificationMaterial"] = json!({"x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}]}});
        }),
        Case::broken("bundle-10-MB", |image| {
            let long = bundle(&alice(), &statement(&image.hex)).to_string() + &" ".repeat(10 << 20);
            Stored::new().bundle_bytes(image, long.as_bytes())
        }),
        Case::broken("bundle-100000-levels", |image| {
            let deep = format!("{{\"x\":{}{},", "[".repeat(100_000), "]".repeat(100_000));
            let text = bundle(&alice(), &statement(&image.hex)).to_string().replacen('{', &deep, 1);
            Stored::new().bundle_bytes(image, text.as_bytes())
        }),
        Case::broken("bundle-key-twice", |image| {
            let text = bundle(&alice(), &statement(&image.hex)).to_string();
            let twice = text.replacen("\"publicKey\":", "\"publicKey\":{},\"publicKey\":", 1);
            Stored::new().bundle_bytes(image, twice.as_bytes())
        }),
        Case::broken("bundle-trailing-bytes", |image| {
            let text = bundle(&alice(), &statement(&image.hex)).to_string() + "{}";
            Stored::new().bundle_bytes(image, text.as_bytes())
        }),
        Case::broken("bundle-snake-case", |image| {
            let text = bundle(&alice(), &statement(&image.hex)).to_string();
            Stored::new().bundle_bytes(image, text.replace("dsseEnvelope", "dsse_envelope").as_bytes())
        }),
        Case::broken("bundle-two-layers", |image| {
            let mut stored = Stored::new();
            let layer = stored.blob(BUNDLE, bundle(&alice(), &statement(&image.hex)).to_string().as_bytes());
            stored.refer(&image.hex, BUNDLE, BUNDLE, &[layer.clone(), layer])
        }),
        Case::broken("bundle-two-layers-one-text", |image| {
            let mut stored = Stored::new();
            let layer = stored.blob(BUNDLE, bundle(&alice(), &statement(&image.hex)).to_string().as_bytes());
            let other = stored.blob("text/plain", b"x");
            stored.refer(&image.hex, BUNDLE, BUNDLE, &[layer, other])
        }),
    ];
    for (name, hint) in [
        ("of-other-key", json!({"hint": base64(&forge::sha256(&bob().spki()))})),
        ("absent", json!({})),
        ("garbage", json!({"hint": "x"})),
    ] {
        let change = move |bundle: &mut Value| bundle["verificationMaterial"]["publicKey"] = hint.clone();
        cases.push(changed(&format!("bundle-key-hint-{name}"), true, change));
    }
    for (name, sound, kind) in [
        ("other-spelling", true, "application/vnd.dev.sigstore.bundle+json;version=0.3"),
        ("v0.1", false, "application/vnd.dev.sigstore.bundle+json;version=0.1"),
        ("v0.2", false, "application/vnd.dev.sigstore.bundle+json;version=0.2"),
        ("v0.4", false, "application/vnd.dev.sigstore.bundle.v0.4+json"),
        ("json", false, "application/json"),
    ] {
        cases.push(changed(&format!("bundle-media-{name}"), sound, move |bundle| bundle["mediaType"] = json!(kind)));
    }
    cases
}
