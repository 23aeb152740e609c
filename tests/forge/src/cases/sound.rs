//! Sound repositories in all the forms that real tools write, and some that they never do but the real client takes.

use serde_json::{Value, json};

use super::{Cases, set, unset};
use crate::case::{Ask, Draft};
use crate::certificate::Cert;
use crate::key::Key;
use crate::repo::Delegation;
use crate::{GUN_WITH_PORT, digest_of};

pub(super) fn add(cases: &mut Cases) {
    questions(cases);
    signers(cases);
    delegations(cases);
    keys(cases);
    roots(cases);
    forms(cases);
    content(cases);
    history(cases);
}

fn questions(cases: &mut Cases) {
    cases.sound("tag-by-signer", "Alice signed v1.", |_| {});
    cases.sound("tag-released", "Without required signers the released digest counts.", |d| {
        d.no_signers();
    });
    cases.sound("tag-and-digest", "The tag is signed with the digest that is asked for.", |d| {
        d.ask.digest = Some(d.digest);
    });
    cases.sound("digest-by-signer", "Some tag of alice's has the digest.", |d| {
        d.ask = Ask { tag: None, digest: Some(d.digest) };
    });
    cases.sound("digest-released", "Some released tag has the digest.", |d| {
        d.ask = Ask { tag: None, digest: Some(d.digest) };
        d.no_signers();
    });
    cases.sound("tag-in-targets-only", "A repository without delegations.", |d| {
        let empty = Draft::empty(d.repo.gun(), d.repo.now());
        *d = empty;
        d.repo.tag("targets", "v1", &digest_of("v1"));
    });
    cases.sound("releases-before-targets", "An older digest in targets does not count.", |d| {
        d.repo.tag("targets", "v1", &digest_of("older"));
        d.no_signers();
    });
    cases.sound("signed-but-not-released", "A signer's tag counts where nothing is released for it.", |d| {
        d.repo.file("targets/releases").targets.remove("v1");
    });
    cases.sound("gun-with-port", "The port is part of the name.", |d| {
        let alice = Key::p256("alice");
        *d = Draft::empty(GUN_WITH_PORT, d.repo.now());
        d.repo.signer("alice", &alice).sign("alice", "v1", &digest_of("v1"));
        d.require("alice", &alice);
    });
}

fn signers(cases: &mut Cases) {
    cases.sound("two-signers", "Both signed the same digest.", |d| {
        let bob = Key::p256("bob");
        d.repo.signer("bob", &bob).sign("bob", "v1", &digest_of("v1"));
        d.require("bob", &bob);
    });
    cases.sound("other-signer-disagrees", "Bob is not asked.", |d| {
        d.repo.signer("bob", &Key::p256("bob")).tag("targets/bob", "v1", &digest_of("other"));
    });
    cases.sound("other-signer-invalid", "Bob's file does not verify, and is not asked for.", |d| {
        d.repo.signer("bob", &Key::p256("bob"));
        d.repo.file("targets/bob").signers = vec![Key::p256("mallory")];
    });
    cases.sound("other-signer-expired", "Bob's file has expired, and is not asked for.", |d| {
        d.repo.signer("bob", &Key::p256("bob"));
        d.repo.file("targets/bob").expires = d.repo.hours(-1);
    });
    cases.sound("removed-signers-file-left", "Removing a signer leaves the file in place.", |d| {
        d.repo.signer("bob", &Key::p256("bob"));
        d.repo.file("targets").delegations.retain(|delegation| delegation.name != "targets/bob");
    });
    cases.sound("one-of-two-keys-signed", "Threshold 1, and the key in the secret signed.", |d| {
        d.repo.delegation("targets/alice").keys.push(Key::p256("other"));
    });
}

fn delegations(cases: &mut Cases) {
    cases.sound("nested-delegation", "A delegation of a delegation.", |d| {
        let deputy = Key::p256("deputy");
        d.repo.delegate("targets/alice", Delegation::new("targets/alice/deputy", &deputy));
        d.repo.tag("targets/alice/deputy", "v1", &digest_of("v1"));
        d.signers.clear();
        d.require("alice/deputy", &deputy);
    });
    for (what, expires) in [("year-9999", "9999-12-31T23:59:59Z"), ("year-9999-with-zone", "9999-12-31T23:59:59+02:00")]
    {
        cases.sound(&format!("expires-{what}"), "Some say never in this way.", |d| {
            d.repo.file("targets/alice").edit(set("/expires", json!(expires)));
        });
    }
    cases.sound("paths-that-fit", "The tag starts with one of the paths.", |d| {
        d.repo.delegation("targets/alice").paths = vec!["release-".into(), "v".into()];
    });
    cases.sound("releases-not-published", "Delegated, never signed: targets counts.", |d| {
        d.repo.file("targets/releases").published = false;
        d.repo.tag("targets", "v1", &digest_of("v1"));
        d.no_signers();
    });
    cases.sound("two-hundred-delegations", "Many signers are no trouble.", |d| {
        d.on_disk = false;
        for index in 0..200 {
            let name = format!("s{index}");
            d.repo.signer(&name, &Key::p256(&name));
        }
    });
}

fn keys(cases: &mut Cases) {
    type Make = fn() -> Key;
    let makes: [(&str, Make); 4] = [
        ("p384", || Key::p384("alice")),
        ("p521", || Key::p521("alice")),
        ("rsa-pss", || Key::rsa(1)),
        ("rsa-pkcs1v15", || Key::rsa(1).with_pkcs1v15()),
    ];
    for (name, make) in makes {
        cases.sound(&format!("signer-{name}"), "A key of another kind.", move |d| {
            let key = make();
            *d = Draft::empty(d.repo.gun(), d.repo.now());
            d.repo.signer("alice", &key).sign("alice", "v1", &digest_of("v1"));
            d.require("alice", &key);
        });
    }
    cases.sound("targets-ed25519", "An Ed25519 key for a role of the root.", |d| {
        d.repo.set_key("targets", &Key::ed25519("targets"));
    });
    cases.sound("signer-certified", "A signer's key in a certificate, and the certificate in the secret.", |d| {
        let key = Key::p256("alice").certified(&Cert::new("alice", d.repo.now()));
        *d = Draft::empty(d.repo.gun(), d.repo.now());
        d.repo.signer("alice", &key).sign("alice", "v1", &digest_of("v1"));
        d.require("alice", &key);
    });
    cases.sound("signer-certified-secret-bare", "The same key, once in a certificate and once bare.", |d| {
        let key = Key::p256("alice").certified(&Cert::new("alice", d.repo.now()));
        *d = Draft::empty(d.repo.gun(), d.repo.now());
        d.repo.signer("alice", &key).sign("alice", "v1", &digest_of("v1"));
        d.require("alice", &key.bare());
    });
    cases.sound("signer-bare-secret-certified", "The same key, once bare and once in a certificate.", |d| {
        d.signers.clear();
        let certified = Key::p256("alice").certified(&Cert::new("alice", d.repo.now()));
        d.require("alice", &certified);
    });
    cases.sound("signer-certificate-says-authority", "What `openssl req -x509` makes calls itself a CA.", |d| {
        let key = Key::p256("alice").certified(&Cert::new("alice", d.repo.now()).authority());
        *d = Draft::empty(d.repo.gun(), d.repo.now());
        d.repo.signer("alice", &key).sign("alice", "v1", &digest_of("v1"));
        d.require("alice", &key);
    });
    cases.sound("secret-with-role-header", "What `docker trust key generate` writes.", |d| {
        let pem = Key::p256("alice").pem().replacen("-----\n", "-----\nrole: alice\n\n", 1);
        d.signers = vec![("alice".into(), pem)];
    });
    cases.sound("threshold-two", "Two keys, two signatures.", |d| {
        let second = Key::p256("targets 2");
        let keys = d.repo.keys("targets");
        keys.keys.push(second.clone());
        keys.threshold = 2;
        d.repo.file("targets").signers.push(second);
    });
}

fn roots(cases: &mut Cases) {
    cases.sound("root-named-by-prefix", "A common name that ends in a star.", |d| {
        let root = Key::p256("root").certified(&Cert::new("registry.example.com/team/*", d.repo.now()));
        d.repo.set_key("root", &root);
    });
    cases.sound("root-pinned-by-id", "The pin names the root key.", |d| {
        d.root_pins = vec![d.repo.keys("root").keys[0].id()];
    });
    cases.sound("root-pinned-by-bare-id", "The pin names the bare key, as `notary key list` prints it.", |d| {
        d.root_pins = vec![d.repo.keys("root").keys[0].bare().id()];
    });
    cases.sound("root-pinned-by-pem", "The pin is the certificate.", |d| {
        d.root_pins = vec![d.repo.keys("root").keys[0].pem()];
    });
    cases.sound("root-rotated-pinned-by-old-key", "A chain leads from the pinned key.", |d| {
        d.root_pins = vec![d.repo.keys("root").keys[0].id()];
        let now = d.repo.now();
        for name in ["root 2", "root 3"] {
            let key = Key::p256(name).certified(&Cert::new(d.repo.gun(), now));
            d.repo.rotate_root().set_root_key(&key);
        }
    });
    cases.sound("old-root-key-left-in-keys", "Only the ids of the role count.", |d| {
        let old = Key::p256("old root").certified(&Cert::new(d.repo.gun(), d.repo.now()));
        d.repo.spare_keys.push(old);
    });
}

fn forms(cases: &mut Cases) {
    cases.sound("pretty-printed", "Signatures are over the canonical form.", |d| {
        for role in ["root", "timestamp", "snapshot", "targets", "targets/alice"] {
            d.repo.file(role).edit_bytes(|bytes| {
                let value: Value = serde_json::from_slice(&bytes).expect("JSON of our own making");
                let mut pretty = serde_json::to_vec_pretty(&value).expect("JSON can be written");
                pretty.push(b'\n');
                pretty
            });
        }
    });
    cases.sound("delegations-absent", "An absent member is an empty one.", |d| {
        d.repo.file("targets/alice").edit(unset("/delegations"));
    });
    cases.sound("delegations-null", "null is an empty one.", |d| {
        d.repo.file("targets/alice").edit(set("/delegations", Value::Null));
    });
    cases.sound("targets-null", "null is an empty one.", |d| {
        d.repo.file("targets").edit(set("/targets", Value::Null));
    });
    cases.sound("private-member-set", "The id is reckoned as if it were null.", |d| {
        d.repo.file("targets").edit(|signed| {
            let keys = signed["delegations"]["keys"].as_object_mut().expect("keys");
            keys.values_mut().for_each(|key| key["keyval"]["private"] = json!(""));
        });
    });
    cases.sound("local-time-and-fraction", "Signers write their own zone.", |d| {
        let local = d.repo.hours(100).strftime("%Y-%m-%dT%H:%M:%S.123456789+05:30").to_string();
        d.repo.file("targets/alice").edit(move |signed| signed["expires"] = json!(local));
    });
    cases.sound("method-in-upper-case", "Methods are compared without case.", |d| {
        d.repo.file("targets/alice").edit_signatures(|signatures, _| signatures[0]["method"] = json!("ECDSA"));
    });
    cases.sound("unknown-members", "What is not known is signed and passed over.", |d| {
        d.repo.file("targets/alice").edit(set("/x-note", json!({"a": [1, null]})));
    });
    cases.sound("unknown-signature-beside", "A signature by an unknown key counts nothing, and does no harm.", |d| {
        let stranger = Key::p256("stranger");
        d.repo.file("targets/alice").signers.push(stranger);
    });
    cases.sound("length-larger-than-file", "The length is an upper bound.", |d| {
        d.repo.file("snapshot").edit(|signed| {
            let length = signed["meta"]["targets/alice"]["length"].as_u64().expect("a length");
            signed["meta"]["targets/alice"]["length"] = json!(length + 1000);
        });
    });
    cases.sound("high-s", "Go does not normalise S, so a high one is genuine.", |d| {
        d.repo.file("targets/alice").edit_signatures(|signatures, _| {
            use base64::Engine as _;
            use base64::engine::general_purpose::STANDARD;
            let sig = STANDARD.decode(signatures[0]["sig"].as_str().unwrap_or_default()).unwrap_or_default();
            signatures[0]["sig"] = STANDARD.encode(crate::key::high_s(&sig)).into();
        });
    });
}

fn content(cases: &mut Cases) {
    let customs = [
        ("control-characters", json!("a\nb\tc\u{0}d")),
        ("line-separator", json!("\u{2028}<>&é😀")),
        ("large-integer", json!(9_007_199_254_740_993_u64)),
        ("nested", json!({"a": [[[{"b": "\"\\"}]]], "\u{e000}": 1, "\u{1f600}": 2})),
    ];
    for (name, custom) in customs {
        cases.sound(&format!("custom-{name}"), "custom may hold anything.", move |d| {
            d.repo.file("targets/alice").edit(set("/targets/v1/custom", custom.clone()));
        });
    }
    cases.sound("custom-written-as-float", "5.0 and 5e0 are signed as 5.", |d| {
        d.repo.file("targets/alice").edit(set("/targets/v1/custom", json!({"five": 5, "also": 5})));
        d.repo.file("targets/alice").replace("\"five\":5", "\"five\":5.0").replace("\"also\":5", "\"also\":5e0");
    });
    cases.sound("tags-that-differ-in-case", "Tags are case-sensitive, and none stands for another.", |d| {
        d.repo.sign("alice", "V1", &digest_of("other"));
    });
    cases.sound("five-thousand-tags", "Many tags are no trouble.", |d| {
        d.on_disk = false;
        for index in 0..5000 {
            d.repo.sign("alice", &format!("build-{index}"), &digest_of("other"));
        }
    });
}

fn history(cases: &mut Cases) {
    cases.sound("seen-before-unchanged", "Nothing has changed.", |d| {
        d.remember();
    });
    cases.sound("seen-before-newer", "Every file has a newer version.", |d| {
        d.remember();
        d.repo.advance();
    });
    cases.sound("seen-before-tag-moved", "The tag was signed anew.", |d| {
        d.repo.sign("alice", "v1", &digest_of("older"));
        d.remember();
        d.repo.advance().sign("alice", "v1", &digest_of("v1"));
    });
    cases.sound("seen-before-root-rotated-twice", "The chain leads from the root that was seen.", |d| {
        d.remember();
        let now = d.repo.now();
        for name in ["root 2", "root 3"] {
            let key = Key::p256(name).certified(&Cert::new(d.repo.gun(), now));
            d.repo.rotate_root().set_root_key(&key);
        }
        d.repo.advance();
    });
    for role in ["targets", "snapshot", "timestamp"] {
        cases.sound(&format!("seen-before-{role}-key-rotated"), "A new root names the new key.", |d| {
            d.remember();
            d.repo.rotate_root().set_key(role, &Key::p256("rotated"));
            d.repo.advance();
        });
    }
    cases.sound(
        "seen-before-signed-again-by-other-hands",
        "The same content with fresh signatures is no other content.",
        |d| {
            d.remember();
            d.repo.file("timestamp").edit_signatures(|signatures, _| signatures.push(signatures[0].clone()));
        },
    );
    cases.sound("seen-before-signer-removed", "Removing a signer is no rollback.", |d| {
        d.repo.signer("bob", &Key::p256("bob"));
        d.remember();
        d.repo.advance();
        d.repo.file("targets").delegations.retain(|delegation| delegation.name != "targets/bob");
        d.repo.delegation("targets/releases").keys.truncate(1);
        d.repo.file("targets/releases").signers.truncate(1);
    });
}
