//! Keys under wrong ids, roles with keys that are not there, thresholds that are none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Cases, set};
use crate::canonical::canonical;
use crate::hex;
use crate::key::Key;

pub(super) fn add(cases: &mut Cases) {
    ids(cases);
    thresholds(cases);
}

/// Files a key under another id, in the role's list and in the signatures too.
fn rename(signed: &mut Value, list: &str, from: &str, to: &str) {
    let text = signed.to_string().replace(from, to);
    assert!(signed[list].is_object() || signed.pointer(list).is_some(), "{list} is not there");
    *signed = serde_json::from_str(&text).expect("still JSON");
}

fn ids(cases: &mut Cases) {
    let why = "An id that is not the hash of its key could stand for any key.";
    cases.broken("KeyIdMismatch root", "root-made-up-key-id", why, |d| {
        let id = d.repo.keys("timestamp").keys[0].id();
        d.repo.file("root").edit(move |signed| rename(signed, "keys", &id, &"0".repeat(64)));
    });
    cases.broken("KeyIdMismatch root", "root-upper-case-key-id", why, |d| {
        let id = d.repo.keys("timestamp").keys[0].id();
        d.repo.file("root").edit(move |signed| rename(signed, "keys", &id, &id.to_uppercase()));
    });
    cases.broken("KeyIdMismatch root", "root-key-swapped-under-its-id", why, |d| {
        let id = d.repo.keys("timestamp").keys[0].id();
        let other = Key::p256("mallory");
        d.repo.file("timestamp").signers = vec![other.clone()];
        d.repo.file("root").edit(move |signed| signed["keys"][&id] = other.entry());
    });
    cases.broken("KeyIdMismatch targets", "targets-delegation-key-swapped-under-its-id", why, |d| {
        let id = Key::p256("alice").id();
        let other = Key::p256("mallory");
        d.repo.file("targets").edit(move |signed| signed["delegations"]["keys"][&id] = other.entry());
    });
    cases.broken("KeyIdMismatch targets", "targets-key-id-without-the-private-null", why, |d| {
        let key = Key::p256("alice");
        let bare = json!({"keytype": "ecdsa", "keyval": {"public": STANDARD.encode(key.public())}});
        let id = hex(&Sha256::digest(canonical(&bare)));
        d.repo.file("targets").edit(move |signed| rename(signed, "/delegations/keys", &key.id(), &id));
    });
    cases.broken("KeyIdMismatch targets", "targets-empty-key-id", why, |d| {
        let id = Key::p256("alice").id();
        d.repo.file("targets").edit(move |signed| rename(signed, "/delegations/keys", &id, ""));
    });
    cases.broken("KeyIdMismatch root", "root-unused-key-under-a-wrong-id", why, |d| {
        d.repo.file("root").edit(|signed| signed["keys"]["f00d"] = Key::p256("spare").entry());
    });
    let why = "A role must only name keys that its file holds.";
    cases.broken("UnknownKey root", "root-role-names-a-key-that-is-not-there", why, |d| {
        let id = d.repo.keys("snapshot").keys[0].id();
        d.repo.file("root").edit(move |signed| {
            signed["keys"].as_object_mut().and_then(|keys| keys.remove(&id));
        });
    });
    cases.broken("UnknownKey targets", "targets-delegation-names-a-key-that-is-not-there", why, |d| {
        let ids = json!([Key::p256("alice").id(), Key::p256("mallory").id()]);
        d.repo.file("targets").edit(set("/delegations/roles/1/keyids", ids));
    });
    cases.broken("UnknownKey targets", "targets-delegation-names-a-key-of-the-root", why, |d| {
        let ids = json!([d.repo.keys("targets").keys[0].id()]);
        d.repo.file("targets").edit(set("/delegations/roles/1/keyids", ids));
    });
}

fn thresholds(cases: &mut Cases) {
    let values = [
        ("zero", json!(0)),
        ("negative", json!(-1)),
        ("a-string", json!("1")),
        ("with-fraction", json!(1.0)),
        ("above-int64", json!(9_223_372_036_854_775_808_u64)),
    ];
    for (what, value) in values {
        let why = "A threshold is a whole number from 1 up; anything less would need no signature.";
        let of_root = value.clone();
        cases.broken("BadThreshold root", &format!("root-threshold-{what}"), why, move |d| {
            d.repo.file("root").edit(set("/roles/timestamp/threshold", of_root));
        });
        cases.broken("BadThreshold targets", &format!("targets-delegation-threshold-{what}"), why, move |d| {
            d.repo.file("targets").edit(set("/delegations/roles/1/threshold", value));
        });
    }
}
