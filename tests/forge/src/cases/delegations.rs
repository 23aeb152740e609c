//! Delegations that do not count: outside their paths, no longer delegated, not published, missing, too many.

use serde_json::json;

use super::{Cases, set};
use crate::digest_of;
use crate::key::Key;
use crate::repo::Delegation;

pub(super) fn add(cases: &mut Cases) {
    signers(cases);
    paths(cases);
    names(cases);
    files(cases);
}

fn signers(cases: &mut Cases) {
    let why = "A file that is still served and still in the snapshot says nothing once nobody delegates to it.";
    cases.broken("SignerNotDelegated", "signer-removed-file-left", why, |d| {
        d.repo.file("targets").delegations.retain(|delegation| delegation.name != "targets/alice");
    });
    cases.broken("SignerNotDelegated", "signer-never-there", "The policy asks for somebody unknown.", |d| {
        d.require("bob", &Key::p256("bob"));
    });
    cases.broken("SignerNotPublished", "signer-signed-nothing-yet", "Delegated is not signed.", |d| {
        let bob = Key::p256("bob");
        d.repo.signer("bob", &bob);
        d.repo.file("targets/bob").published = false;
        d.repo.delegation("targets/releases").keys.truncate(1);
        d.require("bob", &bob);
    });
    let why = "A role with two keys and threshold 1, signed by the one that is not in the signer secret.";
    cases.broken("SignerKeyDidNotSign", "listed-key-did-not-sign", why, |d| {
        let other = Key::p256("other");
        d.repo.delegation("targets/alice").keys.push(other.clone());
        d.repo.file("targets/alice").signers = vec![other];
    });
    cases.broken("SignerKeyDidNotSign", "secret-holds-another-key", "The name alone proves nothing.", |d| {
        d.signers.clear();
        d.require("alice", &Key::p256("mallory"));
    });
    let why = "The file of bob's role, served and listed as alice's, is not signed by her key.";
    cases.broken("SignerInvalid - ThresholdNotMet", "file-of-another-signer", why, |d| {
        let bob = Key::p256("bob");
        d.repo.file("targets/alice").signers = vec![bob];
    });
    cases.broken(
        "ReleasesInvalid - ThresholdNotMet",
        "releases-signed-by-nobody-valid",
        "What is released cannot be told.",
        |d| {
            d.repo.tag("targets", "v1", &digest_of("older"));
            d.repo.file("targets/releases").signers = vec![Key::p256("mallory")];
            d.no_signers();
        },
    );
    let why =
        "After alice was removed, nobody signed the releases again; an older digest in targets must not come back.";
    cases.broken("ReleasesInvalid - ThresholdNotMet", "releases-signed-by-removed-signer", why, |d| {
        let bob = Key::p256("bob");
        d.repo.tag("targets", "v1", &digest_of("older"));
        d.repo.signer("bob", &bob);
        d.repo.delegation("targets/releases").keys = vec![bob];
        d.repo.file("targets/releases").signers = vec![Key::p256("alice")];
        d.no_signers();
    });
}

fn paths(cases: &mut Cases) {
    let why = "A role may not speak for tags outside its paths.";
    cases.broken("NotSigned targets/alice", "tag-outside-paths", why, |d| {
        d.repo.delegation("targets/alice").paths = vec!["release-".into()];
    });
    cases.broken("NotSigned targets/alice", "no-paths", "No paths is no tag at all.", |d| {
        d.repo.delegation("targets/alice").paths = Vec::new();
    });
    cases.broken("NotSigned", "releases-outside-paths", "Restricted releases do not release other tags.", |d| {
        d.repo.delegation("targets/releases").paths = vec!["w".into()];
        d.no_signers();
    });
    let why = "A child's path that does not start with one of its parent's is dropped.";
    cases.broken("NotSigned targets/alice/deputy", "nested-paths-wider-than-parents", why, |d| {
        let deputy = Key::p256("deputy");
        d.repo.delegation("targets/alice").paths = vec!["w".into()];
        d.repo.delegate("targets/alice", Delegation::new("targets/alice/deputy", &deputy));
        d.repo.tag("targets/alice/deputy", "v1", &digest_of("v1"));
        d.signers.clear();
        d.require("alice/deputy", &deputy);
    });
    let why = "A child of a role that does not count is never visited.";
    cases.broken("SignerNotDelegated", "nested-below-invalid-parent", why, |d| {
        let deputy = Key::p256("deputy");
        d.repo.delegate("targets/alice", Delegation::new("targets/alice/deputy", &deputy));
        d.repo.tag("targets/alice/deputy", "v1", &digest_of("v1"));
        d.repo.file("targets/alice").signers = vec![Key::p256("mallory")];
        d.signers.clear();
        d.require("alice/deputy", &deputy);
    });
}

fn names(cases: &mut Cases) {
    let long = format!("targets/{}", "a".repeat(300));
    let names = [
        ("upper-case", "targets/Alice"),
        ("dots", "targets/../root"),
        ("root", "root"),
        ("targets-itself", "targets"),
        ("empty-part", "targets/"),
        ("double-slash", "targets//alice"),
        ("grandchild", "targets/alice/deputy"),
        ("other-parent", "snapshot/alice"),
        ("blank", "targets/a b"),
        ("nul", "targets/a\0"),
        ("percent", "targets/%61lice"),
        ("not-ascii", "targets/\u{430}lice"),
        ("300-characters", long.leak()),
    ];
    for (what, name) in names {
        let why = "One illegal name condemns the file: such a name could stand for another role, or for a path.";
        cases.broken("BadRoleName targets", &format!("delegation-name-{what}"), why, |d| {
            d.repo.file("targets").edit(set("/delegations/roles/1/name", json!(name)));
        });
    }
    let why = "Which of two entries gives the role its keys and paths cannot be told; the Go client refuses them too.";
    cases.broken("DuplicateDelegation targets", "role-listed-twice", why, |d| {
        d.repo.file("targets").edit(|signed| {
            let mut again = signed["delegations"]["roles"][1].clone();
            again["paths"] = json!([]);
            signed["delegations"]["roles"].as_array_mut().expect("a list").push(again);
        });
    });
}

fn files(cases: &mut Cases) {
    let why = "The snapshot lists the file, and the server does not have it.";
    cases.broken("MissingFile targets/alice", "delegation-missing", why, |d| {
        d.after(|files| {
            files.remove("targets/alice.json");
        });
    });
    cases.broken("BadMember targets/alice", "delegation-without-content", "An empty object is no file.", |d| {
        d.repo
            .file("targets/alice")
            .edit_bytes(|_| b"{\"signed\":3,\"signatures\":[{\"keyid\":\"\",\"method\":\"\",\"sig\":\"\"}]}".to_vec());
    });
    cases.broken(
        "MissingMember targets/alice",
        "delegation-empty-object",
        "An empty object crashes the Go client.",
        |d| {
            d.repo.file("targets/alice").edit_bytes(|_| b"{}".to_vec());
        },
    );
    cases.broken("TooManyDelegations targets", "delegations-1100", "Work is bounded.", |d| {
        d.on_disk = false;
        let role = d.repo.file("targets");
        role.edit(|signed| {
            let one = signed["delegations"]["roles"][0].clone();
            let many: Vec<_> = (0..1100)
                .map(|index| {
                    let mut role = one.clone();
                    role["name"] = json!(format!("targets/s{index}"));
                    role
                })
                .collect();
            signed["delegations"]["roles"] = json!(many);
        });
    });
}
