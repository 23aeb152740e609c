//! Repositories that went backwards since they were last seen.

use super::Cases;
use crate::case::Draft;
use crate::digest_of;
use crate::key::Key;

pub(super) fn add(cases: &mut Cases) {
    rollback(cases);
    same_version(cases);
    withdrawn(cases);
}

/// A repository with some history: every version but the root's is five higher than usual.
fn later(draft: &mut Draft) {
    for _ in 0..5 {
        draft.repo.advance();
    }
    draft.remember();
}

fn rollback(cases: &mut Cases) {
    let roles = [
        ("Rollback timestamp", "timestamp"),
        ("Rollback snapshot", "snapshot"),
        ("Rollback targets", "targets"),
        ("Rollback targets/alice", "targets/alice"),
        ("Rollback targets/releases", "targets/releases"),
    ];
    for (expect, role) in roles {
        let name = role.replace('/', "-");
        let why = "An older version than was seen is a rollback, however well it is signed.";
        cases.broken(expect, &format!("{name}-rolled-back"), why, |d| {
            later(d);
            d.repo.advance();
            d.repo.file(role).version -= 3;
        });
    }
    let why = "Everything is genuine, and older than what was seen.";
    cases.broken("Rollback timestamp", "whole-repository-rolled-back", why, |d| {
        let older = d.repo.build();
        later(d);
        d.after(|files| *files = older);
    });
    let why = "The timestamp of yesterday has not expired, but a newer one was seen: a freeze.";
    cases.broken("Rollback timestamp", "timestamp-frozen", why, |d| {
        let older = d.repo.build();
        d.repo.file("timestamp").version += 1;
        d.remember();
        d.after(|files| *files = older);
    });
    let why = "The root of an earlier version, though the same key signed it.";
    cases.broken("Rollback root", "root-rolled-back", why, |d| {
        let older = d.repo.clone();
        d.repo.rotate_root().set_key("timestamp", &Key::p256("timestamp 2"));
        d.remember();
        d.repo = older;
        d.repo.advance().advance();
    });
}

fn same_version(cases: &mut Cases) {
    let roles = [
        ("SameVersionOtherContent timestamp", "timestamp"),
        ("SameVersionOtherContent snapshot", "snapshot"),
        ("SameVersionOtherContent targets", "targets"),
        ("SameVersionOtherContent targets/alice", "targets/alice"),
        ("SameVersionOtherContent targets/releases", "targets/releases"),
    ];
    for (expect, role) in roles {
        let name = role.replace('/', "-");
        let why = "Two contents under one version: one of them is not for us.";
        cases.broken(expect, &format!("{name}-same-version-other-content"), why, |d| {
            d.remember();
            d.repo.advance();
            d.repo.file(role).version -= 1;
            d.repo.file(role).expires = d.repo.hours(200);
        });
    }
    let why = "Two roots under one version, both signed by the root key.";
    cases.broken("SameVersionOtherContent root", "root-same-version-other-content", why, |d| {
        d.remember();
        d.repo.advance().set_key("timestamp", &Key::p256("timestamp 2"));
    });
}

fn withdrawn(cases: &mut Cases) {
    let why = "It was published and is still delegated: the server has taken it away.";
    cases.broken("SignerInvalid - Withdrawn", "signer-dropped-from-the-snapshot", why, |d| {
        d.remember();
        d.repo.advance().file("targets/alice").published = false;
    });
    let why = "Without it, an older digest in targets would come back to life.";
    cases.broken("ReleasesInvalid - Withdrawn", "releases-dropped-from-the-snapshot", why, |d| {
        d.no_signers().repo.tag("targets", "v1", &digest_of("older"));
        d.remember();
        d.repo.advance().file("targets/releases").published = false;
    });
}
