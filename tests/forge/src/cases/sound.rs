//! Sound repositories: who signed what, and what happened to the repository before.

use super::Cases;
use crate::case::{Draft, GUN};
use crate::certificate::Cert;
use crate::digest_of;
use crate::key::Key;
use crate::repo::{Delegation, Repo};

pub(super) fn add(cases: &mut Cases) {
    released(cases);
    signers(cases);
    delegations(cases);
    rotations(cases);
    pins(cases);
    moments(cases);
    names(cases);
}

fn released(cases: &mut Cases) {
    cases.sound("signer-and-releases", "What docker trust sign makes.", |_| {});
    cases.sound("no-signers-asked-for", "What releases signs counts.", |d| {
        d.no_signers();
    });
    cases.sound("targets-only", "What notary add makes: no delegations at all.", |d| {
        *d = Draft::empty(GUN, d.repo.now());
        d.repo.tag("targets", "v1", &digest_of("v1"));
    });
    cases.sound("targets-where-releases-lacks-the-tag", "Releases has other tags.", |d| {
        d.no_signers().repo.file("targets/releases").targets.clear();
        d.repo.tag("targets/releases", "v2", &digest_of("v2")).tag("targets", "v1", &digest_of("v1"));
    });
    cases.sound("releases-before-targets", "Releases overrides an older digest in targets.", |d| {
        d.no_signers().repo.tag("targets", "v1", &digest_of("older"));
    });
    cases.sound("targets-where-releases-was-never-published", "The role is there, and has signed nothing.", |d| {
        d.no_signers().repo.tag("targets", "v1", &digest_of("v1"));
        d.repo.file("targets/releases").published = false;
    });
    cases.sound("asked-by-digest", "Some signed tag has the digest.", |d| {
        d.ask.tag = None;
        d.ask.digest = Some(digest_of("v1"));
    });
    cases.sound("asked-by-tag-and-digest", "The tag is signed with that digest.", |d| {
        d.ask.digest = Some(digest_of("v1"));
    });
}

fn signers(cases: &mut Cases) {
    cases.sound("two-signers-both-asked-for", "They agree.", |d| {
        let bob = Key::p256("bob");
        d.repo.signer("bob", &bob).sign("bob", "v1", &digest_of("v1"));
        d.require("bob", &bob);
    });
    cases.sound("two-signers-one-asked-for", "Bob signed another digest, and nobody asks him.", |d| {
        let bob = Key::p256("bob");
        d.repo.signer("bob", &bob).tag("targets/bob", "v1", &digest_of("other"));
    });
    cases.sound("other-signer-expired", "Bob's file has expired, and nobody asks him.", |d| {
        d.repo.signer("bob", &Key::p256("bob")).sign("bob", "v1", &digest_of("v1"));
        d.repo.file("targets/bob").expires = d.repo.hours(-1);
    });
    cases.sound("other-signer-signed-by-nobody-valid", "Bob's file is left out, and nobody asks him.", |d| {
        d.repo.signer("bob", &Key::p256("bob")).sign("bob", "v1", &digest_of("v1"));
        d.repo.file("targets/bob").signers = vec![Key::p256("mallory")];
    });
    cases.sound("removed-signer-still-served", "Bob was removed; his file is still in the snapshot.", |d| {
        d.repo.signer("bob", &Key::p256("bob")).tag("targets/bob", "v1", &digest_of("other"));
        d.repo.file("targets").delegations.retain(|delegation| delegation.name != "targets/bob");
    });
    cases.sound("signed-only-by-the-required-signer", "No digest is released, and alice signs one.", |d| {
        d.repo.file("targets/releases").targets.clear();
    });
    cases.sound("role-with-two-keys-signed-by-both", "Alice's key is one of those that signed.", |d| {
        d.repo.delegation("targets/alice").keys.push(Key::p256("alice 2"));
        d.repo.file("targets/alice").signers.push(Key::p256("alice 2"));
    });
    cases.sound("role-with-two-keys-signed-by-the-asked-one", "The other key's owner was asleep.", |d| {
        d.repo.delegation("targets/alice").keys.insert(0, Key::p256("alice 2"));
    });
}

fn delegations(cases: &mut Cases) {
    cases.sound("threshold-of-two", "Timestamp and alice need two keys each, and have them.", |d| {
        let second = Key::p256("second");
        d.repo.keys("timestamp").keys.push(second.clone());
        d.repo.keys("timestamp").threshold = 2;
        d.repo.file("timestamp").signers.push(second.clone());
        d.repo.delegation("targets/alice").keys.push(second.clone());
        d.repo.delegation("targets/alice").threshold = 2;
        d.repo.file("targets/alice").signers.push(second);
    });
    cases.sound("nested-delegation", "A required signer may be a role below another one.", |d| {
        let key = Key::p256("alice");
        d.repo.delegate("targets", Delegation::new("targets/team", &Key::p256("team")));
        d.repo.delegate("targets/team", Delegation::new("targets/team/alice", &key));
        d.repo.tag("targets/team/alice", "v1", &digest_of("v1"));
        d.no_signers().require("team/alice", &key);
    });
    cases.sound("restricted-paths", "Alice may speak for tags that start with v, and nothing else.", |d| {
        d.repo.delegation("targets/alice").paths = vec!["prod-".to_owned(), "v".to_owned()];
        d.repo.tag("targets/alice", "latest", &digest_of("latest"));
    });
    cases.sound("nested-paths", "The child's path lies within its parent's.", |d| {
        let key = Key::p256("alice");
        let mut team = Delegation::new("targets/team", &Key::p256("team"));
        team.paths = vec!["v".to_owned()];
        let mut alice = Delegation::new("targets/team/alice", &key);
        alice.paths = vec!["v1".to_owned(), "w".to_owned()];
        d.repo.delegate("targets", team).delegate("targets/team", alice);
        d.repo.tag("targets/team/alice", "v1", &digest_of("v1"));
        d.no_signers().require("team/alice", &key);
    });
    cases.sound("role-listed-twice", "The first entry counts.", |d| {
        d.repo.file("targets").delegations.push(Delegation::new("targets/alice", &Key::p256("mallory")));
    });
    cases.sound("longest-legal-role-name", "255 bytes are allowed.", |d| {
        let name = format!("targets/{}", "a".repeat(247));
        d.repo.delegate("targets", Delegation::new(&name, &Key::p256("bob")));
    });
    cases.sound("five-hundred-delegations", "Many, and within the bounds.", |d| {
        let key = Key::p256("bob");
        for number in 0..500 {
            d.repo.file("targets").delegations.push(Delegation::new(&format!("targets/s{number}"), &key));
        }
        d.on_disk = false;
    });
    cases.sound("hundred-thousand-tags", "Many, and within the bounds.", |d| {
        for number in 0..100_000 {
            d.repo.tag("targets", &format!("tag-{number}"), &digest_of("many"));
        }
        d.on_disk = false;
    });
}

/// A new root key for the repository, the second, third and so on.
fn next_root_key(repo: &Repo, number: usize) -> Key {
    Key::p256(&format!("root {number}")).certified(&Cert::new(repo.gun(), repo.now()))
}

fn rotations(cases: &mut Cases) {
    cases.sound("root-key-rotated", "Old and new key signed the new root.", |d| {
        d.remember();
        let key = next_root_key(&d.repo, 2);
        d.repo.rotate_root().set_root_key(&key).advance();
    });
    cases.sound("root-key-rotated-five-times", "Each step is signed by the key before.", |d| {
        d.remember();
        for number in 2..=6 {
            let key = next_root_key(&d.repo, number);
            d.repo.rotate_root().set_root_key(&key).advance();
        }
    });
    cases.sound("root-rotated-before-it-was-first-seen", "The newest root is trusted as it stands.", |d| {
        let key = next_root_key(&d.repo, 2);
        d.repo.rotate_root().set_root_key(&key);
    });
    cases.sound("root-step-in-between-expired", "Only the newest root must not have expired.", |d| {
        d.remember();
        d.repo.rotate_root().file("root").expires = d.repo.hours(-24);
        d.repo.rotate_root().file("root").expires = d.repo.hours(9000);
        d.repo.advance();
    });
    cases.sound("root-step-in-between-with-expired-certificate", "It has been replaced since.", |d| {
        d.remember();
        let certificate = Cert::new(GUN, d.repo.now()).valid(d.repo.hours(-9000), d.repo.hours(-1));
        d.repo.rotate_root().set_root_key(&Key::p256("root 2").certified(&certificate));
        let key = next_root_key(&d.repo, 3);
        d.repo.rotate_root().set_root_key(&key).advance();
    });
    for role in ["targets", "snapshot", "timestamp"] {
        cases.sound(&format!("{role}-key-rotated"), "The new root names the new key.", |d| {
            d.remember();
            d.repo.rotate_root().set_key(role, &Key::p256("new")).advance();
        });
    }
    cases.sound("old-root-key-left-in-the-list", "No role names it, so it counts nothing.", |d| {
        let key = next_root_key(&d.repo, 2);
        let old = d.repo.keys("root").keys[0].clone();
        d.repo.rotate_root().set_root_key(&key).spare_keys.push(old);
    });
}

fn pins(cases: &mut Cases) {
    cases.sound("root-pinned-by-key-id", "The id of the certificate.", |d| {
        let key = d.repo.keys("root").keys[0].clone();
        d.root_pins.push(key.id());
    });
    cases.sound("root-pinned-by-canonical-key-id", "The id of the bare key, as notary key list prints it.", |d| {
        d.root_pins.push(Key::p256("root").id());
    });
    cases.sound("root-pinned-by-certificate", "The PEM text of the certificate.", |d| {
        let key = d.repo.keys("root").keys[0].clone();
        d.root_pins.push(key.pem());
    });
    cases.sound("root-pinned-by-one-key-of-two", "One of the pins holds.", |d| {
        d.root_pins.push(Key::p256("other").id());
        d.root_pins.push(Key::p256("root").id());
    });
    cases.sound("root-pinned-before-two-rotations", "A chain leads from the pinned key to the present one.", |d| {
        d.root_pins.push(Key::p256("root").id());
        for number in 2..=3 {
            let key = next_root_key(&d.repo, number);
            d.repo.rotate_root().set_root_key(&key);
        }
    });
}

fn moments(cases: &mut Cases) {
    cases.sound("nothing-new", "The same files as before.", |d| {
        d.remember();
    });
    cases.sound("everything-newer", "Every version has gone up.", |d| {
        d.remember();
        d.repo.advance().advance();
    });
    cases.sound("only-the-timestamp-newer", "The server signed the timestamp anew.", |d| {
        d.remember();
        d.repo.file("timestamp").version += 1;
        d.repo.file("timestamp").expires = d.repo.hours(400);
    });
    cases.sound("digest-changed-since", "Alice signed the tag again, with a newer image.", |d| {
        d.repo.sign("alice", "v1", &digest_of("older"));
        d.remember();
        d.repo.advance().sign("alice", "v1", &digest_of("v1"));
    });
    cases.sound("signer-removed-since", "Bob's role is delegated no longer, which is no rollback.", |d| {
        d.repo.signer("bob", &Key::p256("bob")).sign("bob", "v1", &digest_of("v1"));
        d.remember();
        d.repo.advance().file("targets").delegations.retain(|delegation| delegation.name != "targets/bob");
    });
    cases.sound("expires-in-year-9999", "Far away is not wrong.", |d| {
        d.repo.file("timestamp").edit(super::set("/expires", "9999-12-31T23:59:59Z".into()));
    });
    cases.sound("expires-in-a-minute", "Still valid.", |d| {
        d.repo.file("timestamp").expires = d.repo.now() + jiff::SignedDuration::from_secs(60);
    });
}

fn names(cases: &mut Cases) {
    let guns = [
        ("gun-with-port", "registry.example.com:5000/team/app"),
        ("gun-of-docker-hub", "docker.io/library/alpine"),
        ("gun-with-deep-path", "registry.example.com/a/b/c/d/e/f"),
        ("gun-with-address", "192.0.2.1:5000/app"),
    ];
    for (name, gun) in guns {
        cases.sound(name, "A repository's name is host, port and path.", |d| {
            *d = Draft::empty(gun, d.repo.now());
            d.repo.signer("alice", &Key::p256("alice")).sign("alice", "v1", &digest_of("v1"));
            d.require("alice", &Key::p256("alice"));
        });
    }
    for (name, common_name) in [
        ("root-certificate-with-star", "registry.example.com/*"),
        ("root-certificate-with-plain-prefix", "registry.example.com/team/ap*"),
    ] {
        cases.sound(name, "A star stands for the rest of the name, whatever it is.", |d| {
            let key = Key::p256("root").certified(&Cert::new(common_name, d.repo.now()));
            d.repo.set_key("root", &key);
        });
    }
}
