//! What no tool writes, and two readers could take in two ways: sound to the letter, with something odd in it.

use serde_json::{Value, json};

use super::bundles::{changed, of, replaced};
use super::{Case, alice, bundle, statement};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, sound, predicate) in [
        ("null", true, "null"),
        ("text", false, "\"x\""),
        ("list", false, "[]"),
        ("number", false, "7"),
        ("big-number", true, "{\"x\":1e999}"),
        ("members", true, "{\"x\":[1,{\"y\":null}]}"),
        ("long-integer", true, "{\"x\":123456789012345678901234567890}"),
    ] {
        let to = format!("\"predicate\":{predicate}");
        cases.push(replaced(&format!("statement-predicate-{name}"), sound, "\"predicate\":{}", &to));
    }
    for (name, sound, annotations) in [
        ("null", true, "null"),
        ("list", false, "[]"),
        ("text", false, "\"x\""),
        ("number-value", true, "{\"x\":7}"),
        ("object-value", true, "{\"x\":{}}"),
    ] {
        let to = format!("\"annotations\":{annotations}");
        cases.push(replaced(&format!("statement-annotations-{name}"), sound, "\"annotations\":{}", &to));
    }
    for (name, sound, from, to) in [
        ("unknown-member", true, "{\"_type\"", "{\"unknown\":1,\"_type\""),
        ("subject-unknown-member", true, "[{\"digest\"", "[{\"unknown\":1,\"digest\""),
        ("subject-name-number", true, "[{\"digest\"", "[{\"name\":7,\"digest\""),
        ("subject-uri", true, "[{\"digest\"", "[{\"uri\":\"x\",\"digest\""),
        ("subject-more-digests", true, "{\"sha256\"", "{\"sha1\":\"x\",\"sha256\""),
        ("subject-digest-number", true, "{\"sha256\"", "{\"sha1\":7,\"sha256\""),
        ("subject-first-empty", false, "\"subject\":[", "\"subject\":[{},"),
        ("subject-first-null", false, "\"subject\":[", "\"subject\":[null,"),
        ("subject-first-number", false, "\"subject\":[", "\"subject\":[7,"),
        ("subject-first-without-digest", false, "\"subject\":[", "\"subject\":[{\"name\":\"x\"},"),
        ("subject-first-digest-null", false, "\"subject\":[", "\"subject\":[{\"digest\":null},"),
        ("subject-first-digest-text", false, "\"subject\":[", "\"subject\":[{\"digest\":\"x\"},"),
        ("escaped-member", true, "\"_type\"", "\"_\\u0074ype\""),
    ] {
        cases.push(replaced(&format!("statement-{name}"), sound, from, to));
    }
    cases.push(Case::sound("statement-spaces-around", |image| of(image, |text| format!(" \n{text}\n\t "))));
    cases.push(Case::sound("bundle-spaces-around", |image| {
        let text = format!(" \n{}\n\t ", bundle(&alice(), &statement(&image.hex)));
        super::Stored::new().bundle_bytes(image, text.as_bytes())
    }));
    cases.extend(members());
    cases
}

/// Members of a bundle that decide nothing here.
fn members() -> Vec<Case> {
    let at = |name: &str, pointer: &'static str, member: &'static str, value: Value| {
        changed(&format!("bundle-with-{name}"), true, move |bundle| {
            bundle.pointer_mut(pointer).expect("a part of a bundle")[member] = value.clone();
        })
    };
    let material = "/verificationMaterial";
    vec![
        at("null-member", "", "messageSignature", Value::Null),
        at("null-certificate", material, "certificate", Value::Null),
        at("unknown-material", material, "unknown", json!(7)),
        at("no-log-entries", material, "tlogEntries", json!([])),
        at("null-log-entries", material, "tlogEntries", Value::Null),
        at("empty-log-entry", material, "tlogEntries", json!([{}])),
        at("garbage-log-entry", material, "tlogEntries", json!(["x"])),
        at("no-timestamps", material, "timestampVerificationData", json!({})),
        at("null-timestamps", material, "timestampVerificationData", Value::Null),
        at("empty-timestamp", material, "timestampVerificationData", json!({"rfc3161Timestamps": [{}]})),
        at(
            "garbage-timestamp",
            material,
            "timestampVerificationData",
            json!({"rfc3161Timestamps": [{"signedTimestamp": "AAAA"}]}),
        ),
        at("unknown-key-member", "/verificationMaterial/publicKey", "unknown", json!(7)),
        at("unknown-envelope-member", "/dsseEnvelope", "unknown", json!(7)),
        at("unknown-signature-member", "/dsseEnvelope/signatures/0", "unknown", json!(7)),
        at("keyid-null", "/dsseEnvelope/signatures/0", "keyid", Value::Null),
        at("keyid-number", "/dsseEnvelope/signatures/0", "keyid", json!(7)),
    ]
}
