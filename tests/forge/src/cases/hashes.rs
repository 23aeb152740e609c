//! Files that are missing, or not those that other files name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Cases, set, unset};
use crate::digest_of;

pub(super) fn add(cases: &mut Cases) {
    missing_files(cases);
    other_bytes(cases);
    lengths(cases);
    lists(cases);
}

fn missing_files(cases: &mut Cases) {
    cases.broken("NoTrustData", "nothing-at-all", "The server has never heard of the repository.", |d| {
        d.after(|files| *files = crate::Files::none());
    });
    cases.broken("NoTrustData", "root-missing", "Without a root nothing can be trusted.", |d| {
        d.after(|files| {
            files.remove("root.json");
        });
    });
    let missing = [
        ("MissingFile timestamp", "timestamp"),
        ("MissingFile snapshot", "snapshot"),
        ("MissingFile targets", "targets"),
        ("MissingFile targets/alice", "targets/alice"),
        ("MissingFile targets/releases", "targets/releases"),
    ];
    for (expect, role) in missing {
        let defect = format!("{}-missing", role.replace('/', "-"));
        cases.broken(expect, &defect, "A file that other files name must be there.", move |d| {
            d.after(move |files| {
                files.remove(&format!("{role}.json"));
            });
        });
    }
    cases.broken(
        "MissingFile targets/alice",
        "delegation-only-by-plain-name",
        "It is asked for by its checksum.",
        |d| {
            d.repo.tag("targets/alice", "v0", &crate::digest_of("v0"));
            d.after(|files| {
                let other = files.role("targets/releases").to_vec();
                files.insert("targets/alice.json", other);
            });
        },
    );
}

fn other_bytes(cases: &mut Cases) {
    let roles = [
        ("HashMismatch snapshot", "snapshot"),
        ("HashMismatch targets", "targets"),
        ("HashMismatch targets/alice", "targets/alice"),
    ];
    for (expect, role) in roles {
        let defect = format!("{}-one-byte-more", role.replace('/', "-"));
        cases.broken(expect, &defect, "White space changes no signature, but the file's hash.", move |d| {
            let file = if role == "snapshot" { "timestamp" } else { "snapshot" };
            d.repo.file(file).edit(move |signed| {
                let length = &mut signed["meta"][role]["length"];
                *length = (length.as_u64().unwrap_or_default() + 1).into();
            });
            d.after(move |files| {
                let bytes = [files.role(role), b"\n"].concat();
                files.substitute(role, bytes);
            });
        });
    }
    cases.broken(
        "HashMismatch targets/alice",
        "delegation-with-another-tag",
        "A changed tag changes the hash that the snapshot names.",
        |d| {
            d.after(|files| {
                let text = String::from_utf8_lossy(files.role("targets/alice")).replace("\"v1\"", "\"v2\"");
                files.substitute("targets/alice", text);
            });
        },
    );
    cases.broken(
        "HashMismatch targets",
        "targets-of-another-moment",
        "A genuine older file is not the one that the snapshot names: mix and match.",
        |d| {
            let older = d.repo.build().role("targets").to_vec();
            d.repo.advance().tag("targets", "v0", &digest_of("v0"));
            d.repo.file("snapshot").edit(set("/meta/targets/length", json!(100_000)));
            d.after(move |files| files.substitute("targets", older));
        },
    );
    cases.broken(
        "HashMismatch targets/alice",
        "delegation-sha512-wrong",
        "Every hash that is given must be right, not only the first.",
        |d| {
            let wrong = json!(STANDARD.encode([7; 64]));
            d.repo.file("snapshot").edit(set("/meta/targets~1alice/hashes/sha512", wrong));
        },
    );
    cases.broken("HashMismatch root", "root-not-the-one-of-the-snapshot", "The snapshot names another root.", |d| {
        let wrong = json!(STANDARD.encode([7; 32]));
        d.repo.file("snapshot").edit(set("/meta/root/hashes/sha256", wrong));
    });
    cases.broken("HashMismatch root", "root-sha512-wrong", "Every hash that is given must be right.", |d| {
        let wrong = json!(STANDARD.encode([7; 64]));
        d.repo.file("snapshot").edit(set("/meta/root/hashes/sha512", wrong));
    });
    cases.broken("HashMismatch targets", "targets-sha256-cut-to-16-bytes", "Half a hash proves nothing.", |d| {
        d.repo.file("snapshot").edit(|signed| {
            let hash = signed["meta"]["targets"]["hashes"]["sha256"].as_str().unwrap_or_default();
            let hash = STANDARD.decode(hash).unwrap_or_default();
            signed["meta"]["targets"]["hashes"]["sha256"] = STANDARD.encode(&hash[..16]).into();
        });
        d.after(|files| {
            let name = files.checksum_name("targets");
            let bytes = files.role("targets").to_vec();
            let hex = &name["targets.".len()..name.len() - ".json".len()];
            files.insert(&format!("targets.{}.json", &hex[..32]), bytes);
        });
    });
    cases.broken("HashMismatch targets", "targets-sha256-empty", "An empty hash proves nothing.", |d| {
        d.repo.file("snapshot").edit(set("/meta/targets/hashes/sha256", json!("")));
        d.after(|files| {
            let bytes = files.role("targets").to_vec();
            files.insert("targets..json", bytes);
        });
    });
}

fn lengths(cases: &mut Cases) {
    let roles = [
        ("TooLong snapshot", "timestamp", "snapshot", "snapshot-longer-than-told"),
        ("TooLong targets", "snapshot", "targets", "targets-longer-than-told"),
        ("TooLong targets/alice", "snapshot", "targets/alice", "delegation-longer-than-told"),
    ];
    for (expect, by, role, defect) in roles {
        cases.broken(expect, defect, "A file must not be longer than the metadata that names it says.", move |d| {
            d.repo.file(by).edit(move |signed| {
                let length = &mut signed["meta"][role]["length"];
                *length = (length.as_u64().unwrap_or_default() - 1).into();
            });
        });
    }
    cases.broken("TooLong timestamp", "timestamp-over-a-megabyte", "A timestamp has a few hundred bytes.", |d| {
        d.repo.file("timestamp").edit_bytes(|bytes| [bytes, vec![b' '; 1 << 20]].concat());
        d.on_disk = false;
    });
    cases.broken("TooLong targets/alice", "delegation-length-zero", "Nothing fits into no bytes.", |d| {
        d.repo.file("snapshot").edit(set("/meta/targets~1alice/length", json!(0)));
    });
}

fn lists(cases: &mut Cases) {
    let without = [
        ("NoSha256 snapshot", "timestamp", "timestamp-names-no-sha256", "/meta/snapshot/hashes/sha256"),
        ("NoSha256 snapshot", "timestamp", "timestamp-names-no-hashes", "/meta/snapshot/hashes"),
        ("NoSha256 targets", "snapshot", "snapshot-sha512-only-for-targets", "/meta/targets/hashes/sha256"),
        ("NoSha256 root", "snapshot", "snapshot-sha512-only-for-root", "/meta/root/hashes/sha256"),
        ("NoSha256 targets/alice", "snapshot", "snapshot-sha512-only-for-alice", "/meta/targets~1alice/hashes/sha256"),
    ];
    for (expect, by, defect, pointer) in without {
        cases.broken(expect, defect, "Files are bound to each other by sha256.", move |d| {
            d.repo.file(by).edit(unset(pointer));
        });
    }
    cases.broken("NotInSnapshot root", "root-not-in-snapshot", "Every repository has a root.", |d| {
        d.repo.file("snapshot").edit(unset("/meta/root"));
    });
    cases.broken("NotInSnapshot targets", "targets-not-in-snapshot", "Every repository has targets.", |d| {
        d.repo.file("snapshot").edit(unset("/meta/targets"));
    });
}
