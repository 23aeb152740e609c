//! Delegations: their names and paths, and who signed them.

use serde_json::json;

use super::{Cases, set};
use crate::certificate::Cert;
use crate::digest_of;
use crate::key::Key;
use crate::repo::Delegation;

pub(super) fn add(cases: &mut Cases) {
    names(cases);
    paths(cases);
    signers(cases);
    keys_of_signers(cases);
    releases(cases);
}

fn names(cases: &mut Cases) {
    let long = format!("targets/{}", "a".repeat(300));
    let names = [
        ("in-upper-case", "targets/Alice"),
        ("dot-dot", "targets/../alice"),
        ("with-dot", "targets/./alice"),
        ("with-dots-in-name", "targets/alice..bob"),
        ("trailing-slash", "targets/alice/"),
        ("two-slashes", "targets//alice"),
        ("without-parent", "alice"),
        ("root", "root"),
        ("targets-itself", "targets"),
        ("grandchild", "targets/team/alice"),
        ("with-nul", "targets/alice\0"),
        ("percent-encoded", "targets/ali%2fce"),
        ("with-space", "targets/releases "),
        ("absolute", "/etc/passwd"),
        ("backslash", "targets\\alice"),
        ("cyrillic-letter", "targets/\u{430}lice"),
        ("empty", ""),
        ("of-308-bytes", &long),
    ];
    for (what, name) in names {
        let why = "A delegation has a legal name directly below its parent, or the whole file is refused.";
        cases.broken("BadRoleName targets", &format!("delegation-name-{what}"), why, |d| {
            d.repo.file("targets").delegations.push(Delegation::new(name, &Key::p256("mallory")));
        });
    }
    let why = "A delegate may not hand out names beside its own.";
    cases.broken("BadRoleName targets/alice", "delegation-name-of-a-sibling", why, |d| {
        d.repo.file("targets/alice").delegations.push(Delegation::new("targets/releases", &Key::p256("alice")));
    });
    cases.broken("TooManyDelegations targets", "delegations-1025", "Work is bounded.", |d| {
        let key = Key::p256("alice");
        for number in 0..1025 {
            d.repo.file("targets").delegations.push(Delegation::new(&format!("targets/s{number}"), &key));
        }
    });
}

fn paths(cases: &mut Cases) {
    cases.broken(
        "NotSigned targets/alice",
        "tag-outside-of-the-signers-paths",
        "Alice may speak for prod- only.",
        |d| {
            d.repo.delegation("targets/alice").paths = vec!["prod-".to_owned()];
        },
    );
    cases.broken("NotSigned targets/alice", "signer-without-paths", "No paths allow no tag.", |d| {
        d.repo.delegation("targets/alice").paths.clear();
    });
    cases.broken("NotSigned targets/alice", "signer-with-paths-null", "No paths allow no tag.", |d| {
        d.repo.file("targets").edit(set("/delegations/roles/1/paths", json!(null)));
    });
    cases.broken("NotSigned targets/alice", "paths-are-no-globs", "v* is not a prefix of v1.", |d| {
        d.repo.delegation("targets/alice").paths = vec!["v*".to_owned()];
    });
    cases.broken("NotSigned", "tag-outside-of-the-paths-of-releases", "Releases may speak for prod- only.", |d| {
        d.no_signers().repo.delegation("targets/releases").paths = vec!["prod-".to_owned()];
    });
    let why = "A child's paths must lie within its parent's; those that do not are dropped.";
    cases.broken("NotSigned targets/team/alice", "nested-role-with-wider-paths-than-its-parent", why, |d| {
        let key = Key::p256("alice");
        let mut team = Delegation::new("targets/team", &Key::p256("team"));
        team.paths = vec!["v".to_owned()];
        d.repo.delegate("targets", team);
        // The child may say "" but then has nothing, although v1 would lie within both.
        d.repo.delegate("targets/team", Delegation::new("targets/team/alice", &key));
        d.repo.tag("targets/team/alice", "v1", &digest_of("v1"));
        d.no_signers().require("team/alice", &key);
    });
}

fn signers(cases: &mut Cases) {
    let bob = || Key::p256("bob");
    cases.broken("SignerNotDelegated", "signer-unknown", "Bob is no signer of this repository.", |d| {
        d.require("bob", &bob());
    });
    cases.broken("SignerNotDelegated", "signer-name-a-prefix", "ali is not alice.", |d| {
        d.no_signers().require("ali", &Key::p256("alice"));
    });
    cases.broken("SignerNotDelegated", "signer-only-below-another-role", "targets/team/bob is not targets/bob.", |d| {
        d.repo.delegate("targets", Delegation::new("targets/team", &Key::p256("team")));
        d.repo.delegate("targets/team", Delegation::new("targets/team/bob", &bob()));
        d.repo.tag("targets/team/bob", "v1", &digest_of("v1"));
        d.require("bob", &bob());
    });
    let why = "The file is still served and in the snapshot, but the owner delegates to it no longer.";
    cases.broken("SignerNotDelegated", "signer-removed-but-still-served", why, |d| {
        d.repo.signer("bob", &bob()).sign("bob", "v1", &digest_of("v1"));
        d.repo.file("targets").delegations.retain(|delegation| delegation.name != "targets/bob");
        d.require("bob", &bob());
    });
    cases.broken("SignerNotPublished", "signer-never-signed", "Bob was added, and has signed nothing.", |d| {
        d.repo.signer("bob", &bob());
        d.repo.file("targets/bob").published = false;
        d.require("bob", &bob());
    });
    cases.broken("SignerNotDelegated", "signer-below-an-invalid-role", "Nobody valid delegates to bob.", |d| {
        d.repo.delegate("targets", Delegation::new("targets/team", &Key::p256("team")));
        d.repo.delegate("targets/team", Delegation::new("targets/team/bob", &bob()));
        d.repo.tag("targets/team/bob", "v1", &digest_of("v1"));
        d.repo.file("targets/team").signers = vec![Key::p256("mallory")];
        d.no_signers().require("team/bob", &bob());
    });
}

fn keys_of_signers(cases: &mut Cases) {
    cases.broken(
        "SignerKeyDidNotSign",
        "signer-with-another-key",
        "The secret holds a key that signed nothing.",
        |d| {
            d.no_signers().require("alice", &Key::p256("alice of old"));
        },
    );
    cases.broken("SignerKeyDidNotSign", "signer-key-listed-but-another-signed", "Listing is not signing.", |d| {
        d.repo.delegation("targets/alice").keys.push(Key::p256("mallory"));
        d.repo.file("targets/alice").signers = vec![Key::p256("mallory")];
    });
    let why = "The key's signature is there, but does not fit; another key of the role signed.";
    cases.broken("SignerKeyDidNotSign", "signer-key-signed-wrongly-and-another-rightly", why, |d| {
        d.repo.delegation("targets/alice").keys.push(Key::p256("mallory"));
        d.repo.file("targets/alice").signers.push(Key::p256("mallory"));
        d.repo.file("targets/alice").edit_signatures(super::first_signature(|sig| vec![1; sig.len()]));
    });
    let why = "The role alice belongs to bob's key, whatever its name says.";
    cases.broken("SignerKeyDidNotSign", "signer-role-holds-another-signers-key", why, |d| {
        d.repo.delegation("targets/alice").keys = vec![Key::p256("bob")];
        d.repo.file("targets/alice").signers = vec![Key::p256("bob")];
    });
    let why = "The same words on another key's certificate.";
    cases.broken("SignerKeyDidNotSign", "signer-certificate-with-the-same-name", why, |d| {
        let certificate = Cert::new("alice", d.repo.now());
        let mallory = Key::p256("mallory").certified(&certificate);
        d.repo.delegation("targets/alice").keys = vec![mallory.clone()];
        d.repo.file("targets/alice").signers = vec![mallory];
        d.no_signers().require("alice", &Key::p256("alice").certified(&certificate));
    });
    cases.broken("SignerKeyDidNotSign", "two-signers-one-secret-wrong", "Each of the signers is needed.", |d| {
        d.repo.signer("bob", &Key::p256("bob")).sign("bob", "v1", &digest_of("v1"));
        d.require("bob", &Key::p256("alice"));
    });
}

fn releases(cases: &mut Cases) {
    cases.broken("ReleasesInvalid - ThresholdNotMet", "releases-signed-by-nobody-valid", "Nobody released it.", |d| {
        d.no_signers().repo.file("targets/releases").signers = vec![Key::p256("mallory")];
    });
    let why = "The Go client would fall back to the older digest in targets.";
    cases.broken("ReleasesInvalid - Expired", "releases-expired-over-an-older-digest", why, |d| {
        d.no_signers().repo.tag("targets", "v1", &digest_of("older"));
        d.repo.file("targets/releases").expires = d.repo.hours(-1);
    });
    let why = "Alice's signature does not say what is released.";
    cases.broken("ReleasesInvalid - ThresholdNotMet", "releases-last-signed-by-a-removed-signer", why, |d| {
        d.repo.signer("bob", &Key::p256("bob"));
        d.repo.file("targets/releases").signers = vec![Key::p256("bob")];
        d.repo.delegation("targets/releases").keys.retain(|key| key.id() != Key::p256("bob").id());
        d.repo.file("targets").delegations.retain(|delegation| delegation.name != "targets/bob");
    });
}
