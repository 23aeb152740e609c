//! Sound repositories whose files are written in unusual ways.

use serde_json::{Value, json};

use super::{Cases, set, unset};
use crate::key::Key;
use crate::repo::{Repo, signature_by};

const ROLES: [&str; 6] = ["root", "timestamp", "snapshot", "targets", "targets/alice", "targets/releases"];

pub(super) fn add(cases: &mut Cases) {
    layout(cases);
    absent(cases);
    times(cases);
    custom(cases);
    extras(cases);
    signatures(cases);
}

fn layout(cases: &mut Cases) {
    cases.sound("pretty-printed", "Signatures cover the canonical form, whatever the layout.", |d| {
        for role in ROLES {
            d.repo.file(role).edit_bytes(|bytes| {
                let document: Value = serde_json::from_slice(&bytes).expect("our own JSON");
                format!("{document:#}").into_bytes()
            });
        }
    });
    cases.sound("trailing-newline", "White space may follow.", |d| {
        for role in ROLES {
            d.repo.file(role).edit_bytes(|bytes| [bytes, b" \r\n\t".to_vec()].concat());
        }
    });
    cases.sound("members-in-another-order", "The canonical form sorts them.", |d| {
        for role in ROLES {
            d.repo.file(role).edit_bytes(|bytes| {
                let document: Value = serde_json::from_slice(&bytes).expect("our own JSON");
                backwards(&document).to_string().into_bytes()
            });
        }
    });
    cases.sound("letters-escaped", "An escaped letter is the same letter.", |d| {
        d.repo.file("targets/alice").replace("\"v1\"", "\"\\u0076\\u0031\"").replace("\"Targets\"", "\"T\\u0061rgets\"");
    });
}

/// The same value with every object's members in the opposite order.
fn backwards(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            Value::Object(members.iter().rev().map(|(name, member)| (name.clone(), backwards(member))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(backwards).collect()),
        other => other.clone(),
    }
}

fn absent(cases: &mut Cases) {
    cases.sound("delegations-absent", "A delegate that delegates to nobody.", |d| {
        d.repo.file("targets/alice").edit(unset("/delegations"));
    });
    cases.sound("delegations-null", "null is absence.", |d| {
        d.repo.file("targets/alice").edit(set("/delegations", json!(null)));
    });
    cases.sound("targets-null", "The owner signed no tags.", |d| {
        d.repo.file("targets").edit(set("/targets", json!(null)));
    });
    cases.sound("targets-absent", "The owner signed no tags.", |d| {
        d.repo.file("targets").edit(unset("/targets"));
    });
    cases.sound("consistent-snapshot-absent", "It is ignored.", |d| {
        d.repo.file("root").edit(unset("/consistent_snapshot"));
    });
    cases.sound("no-sha512-anywhere", "sha256 is enough.", |d| {
        d.repo.file("timestamp").edit(unset("/meta/snapshot/hashes/sha512"));
        d.repo.file("snapshot").edit(|signed| {
            for meta in signed["meta"].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
                meta["hashes"].as_object_mut().and_then(|hashes| hashes.remove("sha512"));
            }
        });
    });
    cases.sound("length-larger-than-the-file", "A length is an upper bound.", |d| {
        d.repo.file("timestamp").edit(set("/meta/snapshot/length", json!(100_000)));
        d.repo.file("snapshot").edit(set("/meta/targets~1alice/length", json!(100_000)));
    });
}

fn times(cases: &mut Cases) {
    let forms = [
        ("expires-with-offset", "%Y-%m-%dT%H:%M:%S+05:30"),
        ("expires-with-negative-offset", "%Y-%m-%dT%H:%M:%S-11:00"),
        ("expires-with-nanoseconds", "%Y-%m-%dT%H:%M:%S.123456789Z"),
        ("expires-with-one-digit-of-fraction", "%Y-%m-%dT%H:%M:%S.5Z"),
    ];
    for (name, form) in forms {
        cases.sound(name, "Signers write their local time.", |d| {
            for role in ROLES {
                let text = d.repo.hours(200).strftime(form).to_string();
                d.repo.file(role).edit(move |signed| signed["expires"] = text.clone().into());
            }
        });
    }
}

fn custom(cases: &mut Cases) {
    let values = [
        ("custom-object", json!({"released": true, "notes": ["a", null, {"b": -1}], "Released": false})),
        ("custom-control-characters", json!("a\nb\tc\u{0}d\u{1f}e\u{7f}")),
        ("custom-line-separators", json!("a\u{2028}b\u{2029}c<>&'\"\\/")),
        ("custom-sorted-by-bytes", json!({"\u{1f600}": 1, "\u{e000}": 2, "\u{e9}": 3, "z": 4, "Z": 5, "": 6})),
        ("custom-large-integers", json!([9_007_199_254_740_993_u64, 9_007_199_254_740_992_u64, -9_007_199_254_740_993_i64])),
        ("custom-nested-fifty-deep", (0..50).fold(json!(1), |inner, _| json!([inner]))),
        ("custom-member-named-like-others", json!({"signed": 1, "Signed": 2, "targets": 3, "HASHES": 4})),
    ];
    for (name, value) in values {
        cases.sound(name, "Custom data may be anything, and is signed.", |d| {
            d.repo.file("targets/alice").edit(set("/targets/v1/custom", value));
        });
    }
    let spellings = [
        ("custom-number-5.0", json!(5), "5.0"),
        ("custom-number-5e0", json!(5), "5e0"),
        ("custom-number-0.05e2", json!(5), "0.05E+2"),
        ("custom-number-minus-zero", json!(0), "-0"),
    ];
    for (name, value, spelling) in spellings {
        cases.sound(name, "Whole numbers are signed without fraction or exponent.", |d| {
            let file = d.repo.file("targets/alice");
            file.edit(set("/targets/v1/custom", json!({"x": value})));
            file.replace(format!("{{\"x\":{value}}}"), format!("{{\"x\":{spelling}}}"));
        });
    }
    cases.sound("custom-lone-surrogate", "It is read, and signed, as U+FFFD.", |d| {
        let file = d.repo.file("targets/alice");
        file.edit(set("/targets/v1/custom", json!("a\u{fffd}b"))).replace("a\u{fffd}b", "a\\ud800b");
    });
    cases.sound("custom-surrogate-pair", "Two escapes are one character.", |d| {
        let file = d.repo.file("targets/alice");
        file.edit(set("/targets/v1/custom", json!("a\u{1f600}b"))).replace("a\u{1f600}b", "a\\ud83d\\ude00b");
    });
    cases.sound("custom-invalid-utf8", "Each such byte is read, and signed, as U+FFFD.", |d| {
        let file = d.repo.file("targets/alice");
        file.edit(set("/targets/v1/custom", json!("a\u{fffd}\u{fffd}b"))).edit_bytes(|bytes| {
            let from = "a\u{fffd}\u{fffd}b".as_bytes();
            let at = bytes.windows(from.len()).position(|window| window == from).expect("it was put there");
            [&bytes[..at], b"a\xff\xc3b", &bytes[at + from.len()..]].concat()
        });
    });
}

fn extras(cases: &mut Cases) {
    cases.sound("unknown-members", "They are signed, and mean nothing.", |d| {
        for role in ROLES {
            d.repo.file(role).edit(set("/spec_version", json!("1.0.0")));
            d.repo.file(role).replace("{\"signed\":", "{\"comment\":[1,{}],\"signed\":");
        }
    });
    cases.sound("private-member-not-null", "A key is identified as if it were null.", |d| {
        let id = Key::p256("alice").id();
        d.repo.file("targets").edit(move |signed| {
            signed["delegations"]["keys"][&id]["keyval"]["private"] = "c2VjcmV0".into();
        });
    });
    cases.sound("private-member-absent", "A key is identified as if it were null.", |d| {
        let id = d.repo.keys("timestamp").keys[0].id();
        d.repo.file("root").edit(move |signed| {
            signed["keys"][&id]["keyval"].as_object_mut().and_then(|keyval| keyval.remove("private"));
        });
    });
    cases.sound("consistent-snapshot-true", "It is ignored.", |d| {
        d.repo.file("root").edit(set("/consistent_snapshot", json!(true)));
    });
    cases.sound("snapshot-lists-strangers", "Entries that nobody delegates to mean nothing.", |d| {
        d.repo.file("snapshot").edit(|signed| {
            for name in ["timestamp", "targets/mallory", "targets/Mallory", "nonsense"] {
                signed["meta"][name] = signed["meta"]["root"].clone();
            }
        });
    });
    cases.sound("target-with-sha512-too", "notary add records both.", |d| {
        let both = json!({"sha256": signed_hash(&mut d.repo), "sha512": "AAAA"});
        for role in ["targets/alice", "targets/releases"] {
            d.repo.file(role).targets["v1"]["hashes"] = both.clone();
        }
    });
}

fn signed_hash(repo: &mut Repo) -> Value {
    repo.file("targets/alice").targets["v1"]["hashes"]["sha256"].clone()
}

fn signatures(cases: &mut Cases) {
    cases.sound("signature-by-an-unknown-key-first", "It is not counted, and does no harm.", |d| {
        for role in ROLES {
            d.repo.file(role).edit_signatures(|signatures, message| {
                signatures.insert(0, signature_by(&Key::p256("stranger"), message));
            });
        }
    });
    cases.sound("wrong-signature-by-another-key", "One valid signature is enough.", |d| {
        let second = Key::p256("timestamp 2");
        d.repo.keys("timestamp").keys.push(second.clone());
        d.repo.file("timestamp").signers.insert(0, second);
        d.repo.file("timestamp").edit_signatures(super::first_signature(|sig| vec![7; sig.len()]));
    });
    cases.sound("same-signature-twice", "It counts once, and once is enough.", |d| {
        d.repo.file("targets/alice").edit_signatures(|signatures, _| signatures.push(signatures[0].clone()));
    });
    cases.sound("wrong-signature-before-the-right-one-by-the-same-key", "The right one counts.", |d| {
        d.repo.file("timestamp").edit_signatures(|signatures, _| {
            let mut wrong = signatures[0].clone();
            wrong["sig"] = "AAAA".into();
            signatures.insert(0, wrong);
        });
    });
    cases.sound("key-id-listed-twice", "It is one key, and one is enough.", |d| {
        let id = d.repo.keys("timestamp").keys[0].id();
        d.repo.file("root").edit(move |signed| signed["roles"]["timestamp"]["keyids"] = json!([id, id]));
    });
    cases.sound("signature-with-unknown-members", "They mean nothing.", |d| {
        d.repo.file("timestamp").edit_signatures(|signatures, _| signatures[0]["note"] = "x".into());
    });
    cases.sound("method-in-upper-case", "Methods are compared without regard to case.", |d| {
        for role in ROLES {
            d.repo.file(role).edit_signatures(|signatures, _| signatures[0]["method"] = "ECDSA".into());
        }
    });
    cases.sound("high-s", "Go does not normalise s, so half of all genuine signatures have a high one.", |d| {
        for role in ROLES {
            d.repo.file(role).edit_signatures(super::first_signature(|sig| crate::key::high_s(&sig)));
        }
    });
}
