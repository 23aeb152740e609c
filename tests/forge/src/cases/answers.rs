//! Sound repositories that do not answer what is asked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Cases, set};
use crate::case::Ask;
use crate::digest_of;
use crate::key::Key;

pub(super) fn add(cases: &mut Cases) {
    tags(cases);
    digests(cases);
    disagreement(cases);
    targets(cases);
    nothing(cases);
}

fn tags(cases: &mut Cases) {
    cases.broken("NotSigned targets/alice", "signer-signed-another-tag", "Alice signed v1 only.", |d| {
        d.ask.tag = Some("v2".into());
    });
    cases.broken(
        "NotSigned",
        "nobody-signed-the-tag",
        "Without signers the released digest counts, and there is none.",
        |d| {
            d.ask.tag = Some("v2".into());
            d.no_signers();
        },
    );
    cases.broken(
        "NotSigned",
        "tag-in-signers-role-only",
        "Without required signers only what is released counts.",
        |d| {
            d.repo.file("targets/releases").targets.remove("v1");
            d.no_signers();
        },
    );
    cases.broken("NotSigned targets/alice", "tag-in-another-case", "Tags are case-sensitive.", |d| {
        d.ask.tag = Some("V1".into());
    });
    cases.broken(
        "NotSigned targets/bob",
        "one-of-two-signers-did-not-sign",
        "Every required signer must have signed.",
        |d| {
            let bob = Key::p256("bob");
            d.repo.signer("bob", &bob);
            d.require("bob", &bob);
        },
    );
}

fn digests(cases: &mut Cases) {
    cases.broken(
        "DigestDiffers",
        "tag-signed-with-another-digest",
        "A digest is never replaced by another one.",
        |d| {
            d.ask.digest = Some(digest_of("other"));
        },
    );
    cases.broken("DigestNotSigned", "digest-nobody-signed", "No tag has it.", |d| {
        d.ask = Ask { tag: None, digest: Some(digest_of("other")) };
        d.no_signers();
    });
    cases.broken("DigestNotSigned", "digest-nobody-signed-with-signers", "No tag of alice's has it.", |d| {
        d.ask = Ask { tag: None, digest: Some(digest_of("other")) };
    });
    let why = "The digest was signed for v1 once; the tag has moved, so the old image must not come back.";
    cases.broken("DigestNotSigned", "digest-of-an-older-signature", why, |d| {
        d.repo.sign("alice", "v1", &digest_of("newer"));
        d.ask = Ask { tag: None, digest: Some(digest_of("v1")) };
    });
    let why = "Only the signer's own role has the digest, and nothing is released with it.";
    cases.broken("SignersDisagree targets/alice", "digest-signed-but-another-released", why, |d| {
        d.repo.tag("targets/releases", "v1", &digest_of("newer"));
        d.ask = Ask { tag: None, digest: Some(digest_of("v1")) };
    });
}

fn disagreement(cases: &mut Cases) {
    cases.broken("SignersDisagree targets/bob", "signers-disagree", "Two signers, two digests.", |d| {
        let bob = Key::p256("bob");
        d.repo.signer("bob", &bob).tag("targets/bob", "v1", &digest_of("other"));
        d.require("bob", &bob);
    });
    cases.broken(
        "SignersDisagree targets/releases",
        "released-another-digest",
        "What is released must agree too.",
        |d| {
            d.repo.tag("targets/releases", "v1", &digest_of("other"));
        },
    );
    cases.broken(
        "SignersDisagree targets",
        "targets-another-digest",
        "Where releases is silent, targets counts.",
        |d| {
            d.repo.file("targets/releases").targets.remove("v1");
            d.repo.tag("targets", "v1", &digest_of("other"));
        },
    );
}

fn targets(cases: &mut Cases) {
    cases.broken("BadTarget targets/alice", "target-with-length-0", "No manifest is empty.", |d| {
        d.repo.file("targets/alice").edit(set("/targets/v1/length", json!(0)));
    });
    cases.broken("BadTarget targets/alice", "target-with-sha512-only", "Images are pinned by sha256.", |d| {
        d.repo.file("targets/alice").edit(set("/targets/v1/hashes", json!({"sha512": STANDARD.encode([7; 64])})));
    });
    cases.broken("BadTarget targets/alice", "target-without-hashes", "Nothing to pin.", |d| {
        d.repo.file("targets/alice").edit(set("/targets/v1/hashes", json!({})));
    });
    for (what, length) in [("short", 31), ("long", 33), ("empty", 0), ("64-bytes", 64)] {
        cases.broken("BadTarget targets/alice", &format!("target-sha256-{what}"), "A sha256 has 32 bytes.", |d| {
            d.repo
                .file("targets/alice")
                .edit(set("/targets/v1/hashes/sha256", json!(STANDARD.encode(vec![7; length]))));
        });
    }
    cases.broken("BadTarget targets/releases", "released-target-with-length-0", "No manifest is empty.", |d| {
        d.repo.file("targets/releases").edit(set("/targets/v1/length", json!(0)));
        d.no_signers();
    });
    cases.broken("BadMember targets/alice", "target-length-negative", "To the Go client that is no limit.", |d| {
        d.repo.file("targets/alice").edit(set("/targets/v1/length", json!(-1)));
    });
}

fn nothing(cases: &mut Cases) {
    cases.broken("NoTrustData", "no-root", "The server knows nothing of the repository.", |d| {
        d.after(|files| *files = crate::Files::none());
    });
    cases.broken("MissingFile timestamp", "no-timestamp", "Half a repository is none.", |d| {
        d.after(|files| {
            files.remove("timestamp.json");
        });
    });
    cases.broken(
        "NoTrustData",
        "repository-gone",
        "What was there a minute ago is gone: nothing proves that it still holds.",
        |d| {
            d.remember();
            d.after(|files| *files = crate::Files::none());
        },
    );
}
