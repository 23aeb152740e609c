//! Files that are not what they should be before any signature is looked at.

use serde_json::json;

use super::{Cases, set, unset};
use crate::digest_of;
use crate::repo::target;

pub(super) fn add(cases: &mut Cases) {
    syntax(cases);
    duplicates(cases);
    numbers(cases);
    case_variants(cases);
    missing_members(cases);
    wrong_members(cases);
    types_and_versions(cases);
    times(cases);
}

fn syntax(cases: &mut Cases) {
    cases.broken("Json root Syntax", "root-is-html", "A web page is not metadata.", |d| {
        d.after(|files| files.insert("root.json", "<html><body>Please log in</body></html>"));
    });
    cases.broken("Json root Syntax", "root-is-empty", "An empty answer is not metadata.", |d| {
        d.after(|files| files.insert("root.json", ""));
    });
    cases.broken("Json timestamp Syntax", "timestamp-cut-in-half", "Half a file is no file.", |d| {
        d.repo.file("timestamp").edit_bytes(|bytes| bytes[..bytes.len() / 2].to_vec());
    });
    cases.broken("Json timestamp TrailingBytes", "timestamp-bytes-after-object", "Go refuses what follows.", |d| {
        d.repo.file("timestamp").edit_bytes(|bytes| [bytes, b"{}".to_vec()].concat());
    });
    cases.broken("Json targets TrailingBytes", "targets-nul-after-object", "A NUL is no white space.", |d| {
        d.repo.file("targets").edit_bytes(|bytes| [bytes, vec![0]].concat());
    });
    cases.broken("Json snapshot Syntax", "snapshot-byte-order-mark", "Go refuses a byte order mark.", |d| {
        d.repo.file("snapshot").edit_bytes(|bytes| [b"\xef\xbb\xbf".to_vec(), bytes].concat());
    });
    cases.broken("Json targets/alice Syntax", "delegation-trailing-comma", "JSON has no trailing commas.", |d| {
        d.repo.file("targets/alice").replace("\"version\":1}", "\"version\":1,}");
    });
    cases.broken("Json targets/alice Syntax", "delegation-comment", "JSON has no comments.", |d| {
        d.repo.file("targets/alice").replace("\"version\":1}", "\"version\":1/* one */}");
    });
    cases.broken(
        "Json targets/alice Syntax",
        "delegation-raw-newline-in-string",
        "A newline is escaped in JSON.",
        |d| {
            d.repo.file("targets/alice").edit(set("/targets/v1/custom", json!("a\nb"))).replace("a\\nb", "a\nb");
        },
    );
    cases.broken("Json timestamp Syntax", "timestamp-leading-zero", "01 is no JSON number.", |d| {
        d.repo.file("timestamp").replace("\"version\":4", "\"version\":04");
    });
    cases.broken("Json timestamp Syntax", "timestamp-nan", "NaN is no JSON number.", |d| {
        d.repo.file("timestamp").replace("\"version\":4", "\"x\":NaN,\"version\":4");
    });
    cases.broken("Json targets/alice TooDeep", "delegation-nested-a-thousand-deep", "Nesting is bounded.", |d| {
        nest(d, 1_000);
    });
    cases.broken(
        "Json targets/alice TooDeep",
        "delegation-nested-100000-deep",
        "A reader must not recurse so far.",
        |d| {
            nest(d, 100_000);
            d.on_disk = false;
        },
    );
}

fn nest(draft: &mut crate::Draft, depth: usize) {
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let file = draft.repo.file("targets/alice");
    file.edit(set("/targets/v1/custom", json!("deep"))).replace("\"deep\"", deep);
}

fn duplicates(cases: &mut Cases) {
    let unsigned = target(&digest_of("evil"), 523).to_string();
    let extra = format!("\"targets\":{{\"v1\":{unsigned}}},\"targets\":{{\"v1\"");
    cases.broken(
        "Json targets/releases DuplicateMember",
        "releases-two-targets-members",
        "Go signs the last of two members and reads both, so a server could add tags.",
        |d| {
            d.repo.file("targets/releases").replace("\"targets\":{\"v1\"", extra);
        },
    );
    let hashes = "\"hashes\":{\"sha256\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"},\"hashes\":";
    cases.broken(
        "Json targets/alice DuplicateMember",
        "delegation-two-hashes-members",
        "Which of two hashes was signed cannot be told.",
        |d| {
            d.repo.file("targets/alice").replace("\"hashes\":", hashes);
        },
    );
    cases.broken("Json root DuplicateMember", "root-two-signed-members", "Only one of them can be signed.", |d| {
        d.repo.file("root").edit_bytes(|bytes| [b"{\"signed\":{},".to_vec(), bytes[1..].to_vec()].concat());
    });
    cases.broken(
        "Json targets/alice DuplicateMember",
        "delegation-member-repeated-with-escape",
        "An escaped letter is the same letter, and so the same member.",
        |d| {
            d.repo.file("targets/alice").replace("\"version\":1}", "\"version\":1,\"vers\\u0069on\":2}");
        },
    );
    cases.broken(
        "Json targets/alice DuplicateMember",
        "delegation-two-lone-surrogates-as-names",
        "Both become U+FFFD, so they are one member twice.",
        |d| {
            let file = d.repo.file("targets/alice");
            file.edit(set("/targets/v1/custom", json!({"\u{fffd}": 2})));
            file.replace("{\"\u{fffd}\":2}", "{\"\\ud800\":1,\"\\udfff\":2}");
        },
    );
}

fn numbers(cases: &mut Cases) {
    cases.broken("Json targets/alice NotCanonical", "delegation-fraction-in-custom", "Notary cannot sign 5.5.", |d| {
        d.repo.file("targets/alice").edit(set("/targets/v1/custom", json!(5.5)));
    });
    cases.broken("Json targets/alice NotCanonical", "delegation-huge-number-in-custom", "1e300 is no int64.", |d| {
        d.repo.file("targets/alice").edit(set("/targets/v1/custom", json!(1e300)));
    });
    cases.broken("Json timestamp NotCanonical", "timestamp-fraction-in-unknown-member", "All of it is signed.", |d| {
        d.repo.file("timestamp").edit(set("/x", json!(0.5)));
    });
}

fn case_variants(cases: &mut Cases) {
    let why = "Go matches member names without regard to case, so the two could be read as one.";
    cases.broken("CaseVariantMember targets/alice", "delegation-second-targets-in-capitals", why, |d| {
        d.repo.file("targets/alice").edit(set("/Targets", json!({"v1": target(&digest_of("evil"), 523)})));
    });
    cases.broken("CaseVariantMember timestamp", "timestamp-expires-in-capitals", why, |d| {
        d.repo.file("timestamp").edit(|signed| {
            let expires = signed["expires"].take();
            signed["EXPIRES"] = expires;
        });
    });
    cases.broken("CaseVariantMember root", "root-signed-in-capitals", why, |d| {
        d.repo.file("root").replace("{\"signed\":", "{\"Signed\":{},\"signed\":");
    });
    cases.broken("CaseVariantMember snapshot", "snapshot-keyid-in-capitals", why, |d| {
        d.repo.file("snapshot").replace("\"keyid\":", "\"KeyID\":\"x\",\"keyid\":");
    });
    cases.broken("CaseVariantMember targets", "targets-threshold-in-capitals", why, |d| {
        d.repo.file("targets").edit(set("/delegations/roles/0/Threshold", json!(1)));
    });
    cases.broken("CaseVariantMember targets/alice", "delegation-sha256-in-capitals", why, |d| {
        d.repo.file("targets/alice").edit(set("/targets/v1/hashes/SHA256", json!("AAAA")));
    });
    cases.broken("CaseVariantMember timestamp", "timestamp-long-s-in-hashes", "Go folds U+017F to s.", |d| {
        d.repo.file("timestamp").edit(set("/meta/snapshot/ha\u{17f}hes", json!({})));
    });
    cases.broken("CaseVariantMember root", "root-kelvin-sign-in-keys", "Go folds U+212A to k.", |d| {
        d.repo.file("root").edit(set("/\u{212a}eys", json!({})));
    });
    cases.broken("CaseVariantMember snapshot", "snapshot-root-in-capitals", why, |d| {
        d.repo.file("snapshot").edit(|signed| signed["meta"]["ROOT"] = signed["meta"]["root"].clone());
    });
}

fn missing_members(cases: &mut Cases) {
    cases.broken("MissingMember timestamp", "timestamp-without-signed", "There is nothing to believe.", |d| {
        d.repo.file("timestamp").replace("{\"signed\":", "{\"unsigned\":");
    });
    cases.broken("MissingMember targets/alice", "delegation-is-an-empty-object", "The Go client crashes on it.", |d| {
        d.repo.file("targets/alice").edit_bytes(|_| b"{}".to_vec());
    });
    cases.broken("MissingMember targets/alice", "delegation-without-signatures", "Nobody vouches for it.", |d| {
        d.repo.file("targets/alice").replace("\"signatures\":", "\"signers\":");
    });
    cases.broken(
        "MissingMember targets/alice",
        "delegation-empty-signatures",
        "An empty list condemns the file.",
        |d| {
            d.repo.file("targets/alice").signers.clear();
        },
    );
    cases.broken("MissingMember snapshot", "snapshot-empty-signatures", "Nobody vouches for it.", |d| {
        d.repo.file("snapshot").signers.clear();
    });
    let lacks: [(&'static str, &'static str, &'static str, &'static str); 9] = [
        ("MissingMember timestamp", "timestamp", "timestamp-without-version", "/version"),
        ("MissingMember timestamp", "timestamp", "timestamp-without-meta", "/meta"),
        ("MissingMember timestamp", "timestamp", "timestamp-without-snapshot", "/meta/snapshot"),
        ("MissingMember root", "root", "root-without-type", "/_type"),
        ("MissingMember root", "root", "root-without-roles", "/roles"),
        ("MissingMember root", "root", "root-without-timestamp-role", "/roles/timestamp"),
        ("MissingMember root", "root", "root-without-threshold", "/roles/targets/threshold"),
        ("MissingMember snapshot", "snapshot", "snapshot-without-length", "/meta/targets/length"),
        ("MissingMember targets", "targets", "targets-delegation-without-name", "/delegations/roles/0/name"),
    ];
    for (expect, role, defect, pointer) in lacks {
        cases.broken(expect, defect, "A member that decides must be there.", |d| {
            d.repo.file(role).edit(unset(pointer));
        });
    }
    cases.broken("MissingMember timestamp", "timestamp-version-null", "null is absence.", |d| {
        d.repo.file("timestamp").edit(set("/version", json!(null)));
    });
}

fn wrong_members(cases: &mut Cases) {
    cases.broken("BadMember timestamp", "timestamp-is-an-array", "A file is an object.", |d| {
        d.repo.file("timestamp").edit_bytes(|_| b"[]".to_vec());
    });
    cases.broken("BadMember timestamp", "timestamp-signed-is-a-string", "What is signed is an object.", |d| {
        d.repo.file("timestamp").edit_bytes(|_| b"{\"signed\":\"trust me\",\"signatures\":[{}]}".to_vec());
    });
    cases.broken("BadMember targets/alice", "delegation-signature-url-safe-base64", "Go reads standard base64.", |d| {
        d.repo.file("targets/alice").edit_signatures(|signatures, _| {
            let sig = signatures[0]["sig"].as_str().unwrap_or_default();
            // A signature without these letters would be no test.
            signatures[0]["sig"] = format!("-_{}", &sig[2..]).into();
        });
    });
    cases.broken("BadMember snapshot", "snapshot-signature-unpadded-base64", "Base64 is padded.", |d| {
        d.repo.file("snapshot").edit_signatures(|signatures, _| {
            let sig = signatures[0]["sig"].as_str().unwrap_or_default();
            signatures[0]["sig"] = sig.trim_end_matches('=').into();
        });
    });
    let wrong: [(&'static str, &'static str, &'static str, &'static str, serde_json::Value); 12] = [
        ("BadMember root", "root", "root-keyids-a-string", "/roles/root/keyids", json!("all")),
        ("BadMember root", "root", "root-keys-a-list", "/keys", json!([])),
        ("BadMember root", "root", "root-roles-a-number", "/roles", json!(4)),
        ("BadMember timestamp", "timestamp", "timestamp-hash-hex", "/meta/snapshot/hashes/sha256", json!("zz")),
        ("BadMember timestamp", "timestamp", "timestamp-type-a-number", "/_type", json!(1)),
        ("BadMember timestamp", "timestamp", "timestamp-length-negative", "/meta/snapshot/length", json!(-1)),
        ("BadMember snapshot", "snapshot", "snapshot-length-a-string", "/meta/targets/length", json!("900")),
        ("BadMember snapshot", "snapshot", "snapshot-meta-a-list", "/meta", json!([])),
        ("BadMember targets", "targets", "targets-targets-a-list", "/targets", json!([])),
        ("BadMember targets", "targets", "targets-roles-an-object", "/delegations/roles", json!({})),
        ("BadMember targets", "targets", "targets-paths-numbers", "/delegations/roles/0/paths", json!([1])),
        ("BadMember targets/alice", "targets/alice", "delegation-hash-a-list", "/targets/v1/hashes/sha256", json!([1])),
    ];
    for (expect, role, defect, pointer, value) in wrong {
        cases.broken(expect, defect, "A member of the wrong kind is not guessed at.", |d| {
            d.repo.file(role).edit(set(pointer, value));
        });
    }
}

fn types_and_versions(cases: &mut Cases) {
    let types = [
        ("WrongType root", "root", "root-says-targets", "Targets"),
        ("WrongType timestamp", "timestamp", "timestamp-says-snapshot", "Snapshot"),
        ("WrongType snapshot", "snapshot", "snapshot-says-timestamp", "Timestamp"),
        ("WrongType targets", "targets", "targets-says-root", "Root"),
        ("WrongType targets/alice", "targets/alice", "delegation-type-in-lower-case", "targets"),
        ("WrongType targets/alice", "targets/alice", "delegation-says-delegation", "Delegation"),
    ];
    for (expect, role, defect, named) in types {
        cases.broken(expect, defect, "A file of one role must not pass as another's.", |d| {
            d.repo.file(role).edit(set("/_type", json!(named)));
        });
    }
    cases.broken("WrongType timestamp", "timestamp-is-the-snapshot", "A genuine file in another's place.", |d| {
        let key = d.repo.keys("snapshot").keys[0].clone();
        d.repo.set_key("timestamp", &key);
        d.after(|files| files.insert("timestamp.json", files.role("snapshot").to_vec()));
    });
    let versions = [
        ("BadVersion root", "root", "root-version-zero", json!(0)),
        ("BadVersion timestamp", "timestamp", "timestamp-version-negative", json!(-1)),
        ("BadVersion timestamp", "timestamp", "timestamp-version-above-int64", json!(9_223_372_036_854_775_808_u64)),
        ("BadVersion snapshot", "snapshot", "snapshot-version-a-string", json!("3")),
        ("BadVersion targets", "targets", "targets-version-with-fraction", json!(2.0)),
        ("BadVersion targets/alice", "targets/alice", "delegation-version-zero", json!(0)),
        ("BadVersion targets/alice", "targets/alice", "delegation-version-true", json!(true)),
    ];
    for (expect, role, defect, version) in versions {
        cases.broken(expect, defect, "Versions are whole numbers from 1 up.", |d| {
            d.repo.file(role).edit(set("/version", version));
        });
    }
}

fn times(cases: &mut Cases) {
    let times = [
        ("BadTime root", "root", "root-expires-without-zone", json!("2040-01-01T00:00:00")),
        ("BadTime timestamp", "timestamp", "timestamp-expires-a-date", json!("2040-01-01")),
        ("BadTime timestamp", "timestamp", "timestamp-expires-a-number", json!(2_208_988_800_u64)),
        ("BadTime timestamp", "timestamp", "timestamp-expires-with-a-space", json!("2040-01-01 00:00:00Z")),
        ("BadTime snapshot", "snapshot", "snapshot-expires-in-month-13", json!("2040-13-01T00:00:00Z")),
        ("BadTime snapshot", "snapshot", "snapshot-expires-on-february-30", json!("2040-02-30T00:00:00Z")),
        ("BadTime targets", "targets", "targets-expires-in-hour-25", json!("2040-01-01T25:00:00Z")),
        ("BadTime targets", "targets", "targets-expires-in-year-10000", json!("10000-01-01T00:00:00Z")),
        ("BadTime targets/alice", "targets/alice", "delegation-expires-never", json!("never")),
        ("BadTime targets/alice", "targets/alice", "delegation-expires-empty", json!("")),
    ];
    for (expect, role, defect, expires) in times {
        cases.broken(expect, defect, "A time is RFC 3339 with a zone, or the file is refused.", |d| {
            d.repo.file(role).edit(set("/expires", expires));
        });
    }
}
