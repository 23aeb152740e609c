//! Sound repositories from which this question gets no digest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Cases;
use crate::digest_of;
use crate::key::Key;
use crate::repo::Delegation;

pub(super) fn add(cases: &mut Cases) {
    not_signed(cases);
    digests(cases);
    bad_targets(cases);
    disagreement(cases);
}

fn not_signed(cases: &mut Cases) {
    cases.broken("NotSigned", "tag-that-nobody-signed", "Other tags are signed, this one is not.", |d| {
        d.no_signers().ask.tag = Some("v2".to_owned());
    });
    cases.broken("NotSigned", "tag-in-another-case", "Tags are case-sensitive.", |d| {
        d.no_signers().ask.tag = Some("V1".to_owned());
    });
    cases.broken("NotSigned", "tag-a-prefix-of-a-signed-one", "v1 is not v1.0.", |d| {
        d.no_signers().repo.tag("targets/releases", "v2.0", &digest_of("v2"));
        d.ask.tag = Some("v2".to_owned());
    });
    cases.broken("NotSigned", "nothing-signed-at-all", "The repository is there and empty.", |d| {
        *d = crate::Draft::empty(d.repo.gun(), d.repo.now());
    });
    cases.broken("NotSigned", "tag-only-in-a-signers-role", "Nobody released what alice signed.", |d| {
        d.no_signers().repo.tag("targets/alice", "v2", &digest_of("v2"));
        d.ask.tag = Some("v2".to_owned());
    });
    cases.broken("NotSigned", "tag-only-in-a-nested-role", "Only releases and targets release.", |d| {
        d.repo.delegate("targets/releases", Delegation::new("targets/releases/nightly", &Key::p256("nightly")));
        d.no_signers().repo.tag("targets/releases/nightly", "v2", &digest_of("v2"));
        d.ask.tag = Some("v2".to_owned());
    });
    cases.broken("NotSigned", "tag-only-in-a-role-delegated-no-longer", "A served file alone means nothing.", |d| {
        d.repo.signer("bob", &Key::p256("bob"));
        d.no_signers().repo.tag("targets/bob", "v2", &digest_of("v2"));
        d.repo.file("targets").delegations.retain(|delegation| delegation.name != "targets/bob");
        d.ask.tag = Some("v2".to_owned());
    });
    cases.broken("NotSigned targets/alice", "signer-signed-another-tag-only", "Alice signed v1, not v2.", |d| {
        d.repo.tag("targets/releases", "v2", &digest_of("v2"));
        d.ask.tag = Some("v2".to_owned());
    });
    let why = "Alice signed the tag, bob did not.";
    cases.broken("NotSigned targets/bob", "one-signer-of-two-did-not-sign-the-tag", why, |d| {
        d.repo.signer("bob", &Key::p256("bob")).sign("bob", "v2", &digest_of("v2"));
        d.require("bob", &Key::p256("bob"));
    });
}

fn digests(cases: &mut Cases) {
    cases.broken(
        "DigestDiffers",
        "tag-signed-with-another-digest",
        "A digest is never replaced by another one.",
        |d| {
            d.ask.digest = Some(digest_of("evil"));
        },
    );
    cases.broken("DigestDiffers", "tag-with-the-digest-of-another-tag", "The digest is signed, for v2.", |d| {
        d.repo.sign("alice", "v2", &digest_of("v2"));
        d.ask.digest = Some(digest_of("v2"));
    });
    cases.broken("DigestNotSigned", "digest-that-nobody-signed", "No tag has this digest.", |d| {
        d.ask.tag = None;
        d.ask.digest = Some(digest_of("evil"));
    });
    let why = "What targets signed was replaced when releases signed the tag anew.";
    cases.broken("DigestNotSigned", "digest-released-no-longer", why, |d| {
        d.no_signers().repo.tag("targets", "v1", &digest_of("older"));
        d.ask.tag = None;
        d.ask.digest = Some(digest_of("older"));
    });
    cases.broken("NotSigned", "digest-only-in-a-signers-role", "Nobody released what alice signed.", |d| {
        d.no_signers().repo.tag("targets/alice", "v2", &digest_of("v2"));
        d.ask.tag = None;
        d.ask.digest = Some(digest_of("v2"));
    });
    cases.broken(
        "NotSigned targets/alice",
        "digest-that-the-signer-did-not-sign",
        "It is released, not by alice.",
        |d| {
            d.repo.tag("targets/releases", "v2", &digest_of("v2"));
            d.ask.tag = None;
            d.ask.digest = Some(digest_of("v2"));
        },
    );
}

fn bad_targets(cases: &mut Cases) {
    let good = STANDARD.encode(digest_of("v1"));
    let targets: [(&str, Value); 6] = [
        ("sha512-only", json!({"hashes": {"sha512": STANDARD.encode([1; 64])}, "length": 523})),
        ("of-31-bytes", json!({"hashes": {"sha256": STANDARD.encode([1; 31])}, "length": 523})),
        ("of-33-bytes", json!({"hashes": {"sha256": STANDARD.encode([1; 33])}, "length": 523})),
        ("without-hashes", json!({"length": 523})),
        ("with-empty-hashes", json!({"hashes": {}, "length": 523})),
        ("of-length-zero", json!({"hashes": {"sha256": good}, "length": 0})),
    ];
    for (what, value) in targets {
        let why = "What is signed for the tag cannot be an image's digest.";
        cases.broken("BadTarget targets/releases", &format!("target-{what}"), why, |d| {
            d.no_signers().repo.file("targets/releases").targets["v1"] = value;
        });
    }
    cases.broken("BadTarget targets/alice", "signers-target-of-31-bytes", "A short digest is no digest.", |d| {
        d.repo.tag("targets/alice", "v1", &digest_of("v1"));
        d.repo.file("targets/alice").targets["v1"]["hashes"]["sha256"] = STANDARD.encode([1; 31]).into();
    });
}

fn disagreement(cases: &mut Cases) {
    cases.broken("SignersDisagree", "signers-disagree-with-each-other", "Bob signed v1 with another digest.", |d| {
        let bob = Key::p256("bob");
        d.repo.signer("bob", &bob).sign("bob", "v1", &digest_of("other")).tag(
            "targets/releases",
            "v1",
            &digest_of("v1"),
        );
        d.require("bob", &bob);
    });
    cases.broken("SignersDisagree", "signer-disagrees-with-releases", "Another digest was released since.", |d| {
        d.repo.tag("targets/releases", "v1", &digest_of("other"));
    });
    cases.broken("SignersDisagree", "signer-disagrees-with-targets", "The owner signed another digest.", |d| {
        d.repo.file("targets/releases").targets.clear();
        d.repo.tag("targets", "v1", &digest_of("other"));
    });
}
