//! Signatures that are not what they should be, and expiry.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::{Cases, first_signature, set, unset};
use crate::certificate::Cert;
use crate::digest_of;
use crate::key::{Key, ecdsa_der};
use crate::repo::{Repo, signature_by};

pub(super) fn add(cases: &mut Cases) {
    wrong_bytes(cases);
    wrong_signers(cases);
    changed_content(cases);
    methods(cases);
    weak_keys(cases);
    counting(cases);
    expiry(cases);
}

fn wrong_bytes(cases: &mut Cases) {
    type Change = fn(Vec<u8>) -> Vec<u8>;
    let changes: [(&str, Change); 9] = [
        ("one-bit-flipped", |mut sig| {
            sig[40] ^= 1;
            sig
        }),
        ("all-zero", |sig| vec![0; sig.len()]),
        ("empty", |_| Vec::new()),
        ("cut-short", |sig| sig[..63].to_vec()),
        ("one-byte-longer", |sig| [sig, vec![0]].concat()),
        ("in-der-form", |sig| ecdsa_der(&sig)),
        ("r-and-s-swapped", |sig| [&sig[32..], &sig[..32]].concat()),
        ("s-zero", |sig| [&sig[..32], &[0; 32]].concat()),
        ("all-ones", |sig| vec![0xff; sig.len()]),
    ];
    for (what, change) in changes {
        let why = "Only the role key's own signature over these bytes counts.";
        cases.broken("ThresholdNotMet timestamp", &format!("timestamp-signature-{what}"), why, move |d| {
            d.repo.file("timestamp").edit_signatures(first_signature(change));
        });
    }
    for role in ["root", "snapshot", "targets"] {
        let expect = match role {
            "root" => "ThresholdNotMet root",
            "snapshot" => "ThresholdNotMet snapshot",
            _ => "ThresholdNotMet targets",
        };
        cases.broken(expect, &format!("{role}-signature-one-bit-flipped"), "A wrong signature counts nothing.", |d| {
            d.repo.file(role).edit_signatures(first_signature(|mut sig| {
                sig[3] ^= 0x10;
                sig
            }));
        });
    }
    let why = "The file of a required signer must verify.";
    cases.broken("SignerInvalid - ThresholdNotMet", "delegation-signature-one-bit-flipped", why, |d| {
        d.repo.file("targets/alice").edit_signatures(first_signature(|mut sig| {
            sig[3] ^= 0x10;
            sig
        }));
    });
}

fn wrong_signers(cases: &mut Cases) {
    let roles = [
        ("ThresholdNotMet root", "root", "targets"),
        ("ThresholdNotMet timestamp", "timestamp", "snapshot"),
        ("ThresholdNotMet snapshot", "snapshot", "timestamp"),
        ("ThresholdNotMet targets", "targets", "snapshot"),
    ];
    for (expect, role, by) in roles {
        cases.broken(expect, &format!("{role}-signed-by-{by}-key"), "Each role has keys of its own.", |d| {
            d.repo.file(role).signers = d.repo.keys(by).keys.clone();
        });
        let defect = format!("{role}-other-signature-under-its-key-id");
        cases.broken(expect, &defect, "The key id promises a key; the signature must keep that.", |d| {
            let id = d.repo.keys(role).keys[0].id();
            d.repo.file(role).signers = vec![Key::p256("mallory")];
            d.repo.file(role).edit_signatures(move |signatures, _| signatures[0]["keyid"] = id.clone().into());
        });
    }
    cases.broken(
        "ThresholdNotMet timestamp",
        "timestamp-key-id-in-upper-case",
        "An unknown key id counts nothing.",
        |d| {
            d.repo.file("timestamp").edit_signatures(|signatures, _| {
                let id = signatures[0]["keyid"].as_str().unwrap_or_default().to_uppercase();
                signatures[0]["keyid"] = id.into();
            });
        },
    );
    cases.broken("ThresholdNotMet targets", "targets-signed-by-a-delegation-key", "A signer is not the owner.", |d| {
        d.repo.file("targets").signers = vec![Key::p256("alice")];
    });
    let why = "The owner's key does not sign for a delegate.";
    cases.broken("SignerInvalid - ThresholdNotMet", "delegation-signed-by-the-targets-key", why, |d| {
        d.repo.file("targets/alice").signers = d.repo.keys("targets").keys.clone();
    });
    let why = "A file that bob's key should have signed is not bob's with alice's signature.";
    cases.broken("SignerInvalid - ThresholdNotMet", "delegation-is-another-signers-file", why, |d| {
        let bob = Key::p256("bob");
        d.repo.signer("bob", &bob).sign("bob", "v1", &digest_of("v1"));
        d.require("bob", &bob);
        d.repo.file("targets/bob").signers = vec![Key::p256("alice")];
    });
}

fn changed_content(cases: &mut Cases) {
    // Whoever holds the snapshot and timestamp keys, that is the server, can name any file; it cannot sign one.
    let changes = [
        ("another-hash", "\"sha256\":\"", "\"sha256\":\"AAAA"),
        ("another-length", "\"length\":523", "\"length\":524"),
        ("another-tag", "\"v1\"", "\"v0\""),
        ("custom-added", "\"length\":523", "\"custom\":{\"released\":true},\"length\":523"),
        ("another-version", "\"version\":1}", "\"version\":9}"),
        ("another-expiry", "\"expires\":\"2", "\"expires\":\"3"),
        ("member-added", "\"version\":1}", "\"version\":1,\"x\":1}"),
    ];
    for (what, from, to) in changes {
        let why = "The server may name the changed file's hash, but no signature covers the change.";
        cases.broken("ReleasesInvalid - ThresholdNotMet", &format!("releases-{what}-after-signing"), why, |d| {
            d.no_signers().repo.file("targets/releases").edit_bytes(move |bytes| {
                let text = String::from_utf8(bytes).expect("a file of our own");
                assert!(text.contains(from), "{from} is not in {text}");
                if what == "another-hash" {
                    // As many letters as before, so that it is still 32 bytes.
                    let at = text.find(from).map_or(0, |at| at + from.len());
                    return format!("{}AAAA{}", &text[..at], &text[at + 4..]).into_bytes();
                }
                text.replacen(from, to, 1).into_bytes()
            });
        });
    }
    cases.broken(
        "ThresholdNotMet targets",
        "targets-delegation-added-after-signing",
        "Only the owner delegates.",
        |d| {
            let key = Key::p256("mallory");
            let entry = format!("\"delegations\":{{\"keys\":{{\"{}\":{},", key.id(), key.entry());
            d.repo.file("targets").replace("\"delegations\":{\"keys\":{", entry);
        },
    );
    let why = "Signatures cover the canonical form, not the bytes as they came.";
    cases.broken("ThresholdNotMet timestamp", "timestamp-signed-over-pretty-printed-bytes", why, |d| {
        let key = d.repo.keys("timestamp").keys[0].clone();
        d.repo.file("timestamp").edit_signatures(move |signatures, message| {
            let signed: serde_json::Value = serde_json::from_slice(message).unwrap_or_default();
            *signatures = vec![signature_by(&key, format!("{signed:#}").as_bytes())];
        });
    });
    let why = "Control characters are signed raw; the escaped form is another text.";
    cases.broken("SignerInvalid - ThresholdNotMet", "delegation-signed-over-escaped-control-characters", why, |d| {
        let file = d.repo.file("targets/alice");
        file.edit(set("/targets/v1/custom", json!("a\nb")));
        file.edit_signatures(|signatures, message| {
            let text = String::from_utf8_lossy(message).replace('\n', "\\n");
            *signatures = vec![signature_by(&Key::p256("alice"), text.as_bytes())];
        });
    });
}

fn methods(cases: &mut Cases) {
    for (what, method) in [("unknown", "secp256k1"), ("of-rsa", "rsapss"), ("of-ed25519", "eddsa"), ("empty", "")] {
        let why = "A method that does not fit the key makes no signature.";
        cases.broken("ThresholdNotMet timestamp", &format!("timestamp-method-{what}"), why, move |d| {
            d.repo.file("timestamp").edit_signatures(move |signatures, _| signatures[0]["method"] = method.into());
        });
    }
    cases.broken("ThresholdNotMet timestamp", "timestamp-ecdsa-key-listed-as-rsa", "The key type decides.", |d| {
        d.repo.set_key("timestamp", &Key::p256("timestamp").listed_as("rsa"));
    });
    cases.broken("ThresholdNotMet timestamp", "timestamp-key-type-unknown", "The key type must be known.", |d| {
        d.repo.set_key("timestamp", &Key::p256("timestamp").listed_as("ecdsa-sha2-nistp256"));
    });
    cases.broken("ThresholdNotMet timestamp", "timestamp-pss-salt-of-20-bytes", "Notary's salt has 32 bytes.", |d| {
        d.repo.set_key("timestamp", &Key::rsa(0).with_salt(20));
    });
    cases.broken(
        "ThresholdNotMet timestamp",
        "timestamp-pkcs1-called-pss",
        "The method decides on the padding.",
        |d| {
            d.repo.set_key("timestamp", &Key::rsa(0).with_pkcs1v15());
            d.repo.file("timestamp").edit_signatures(|signatures, _| signatures[0]["method"] = "rsapss".into());
        },
    );
    cases.broken(
        "ThresholdNotMet timestamp",
        "timestamp-ed25519-over-a-hash",
        "Ed25519 signs the message itself.",
        |d| {
            let key = Key::ed25519("timestamp");
            d.repo.set_key("timestamp", &key);
            d.repo.file("timestamp").edit_signatures(move |signatures, message| {
                *signatures = vec![signature_by(&key, &Sha256::digest(message))];
            });
        },
    );
    let hashes: [(&str, Key, fn(&[u8]) -> Vec<u8>); 3] = [
        ("p256-with-sha512", Key::p256("timestamp"), |message| Sha512::digest(message).to_vec()),
        ("p384-with-sha384", Key::p384("timestamp"), |message| Sha384::digest(message).to_vec()),
        ("p521-with-sha512", Key::p521("timestamp"), |message| Sha512::digest(message).to_vec()),
    ];
    for (what, key, hash) in hashes {
        let why = "Notary hashes with SHA-256 on every curve.";
        cases.broken("ThresholdNotMet timestamp", &format!("timestamp-{what}"), why, move |d| {
            d.repo.set_key("timestamp", &key);
            d.repo.file("timestamp").edit_signatures(move |signatures, message| {
                let signature = key.sign_hash(&hash(message));
                signatures[0]["sig"] = STANDARD.encode(signature.bytes).into();
            });
        });
    }
}

fn weak_keys(cases: &mut Cases) {
    cases.broken("ThresholdNotMet timestamp WeakRsa", "timestamp-rsa-1024", "1024 bits can be broken.", |d| {
        d.repo.set_key("timestamp", &Key::rsa_1024());
    });
    cases.broken("ThresholdNotMet timestamp WeakRsa", "timestamp-rsa-exponent-3", "Go takes it; we do not.", |d| {
        d.repo.set_key("timestamp", &Key::rsa_exponent_3());
    });
    cases.broken("ThresholdNotMet timestamp", "timestamp-key-is-rubbish", "It is no key at all.", |d| {
        let entry = json!({"keytype": "ecdsa", "keyval": {"private": null, "public": "AAAA"}});
        let id = crate::hex(&Sha256::digest(crate::canonical::canonical(&entry)));
        d.repo.file("root").edit(move |signed| {
            signed["keys"][&id] = entry.clone();
            signed["roles"]["timestamp"]["keyids"] = json!([id]);
        });
    });
    let certificates: [(&'static str, &'static str, fn(&Repo) -> Cert); 2] = [
        ("SignerInvalid - ThresholdNotMet", "delegation-certificate-expired", |repo| {
            Cert::new("alice", repo.now()).valid(repo.hours(-9000), repo.hours(-24))
        }),
        ("SignerInvalid - ThresholdNotMet", "delegation-certificate-sha1", |repo| {
            Cert::new("alice", repo.now()).sha1()
        }),
    ];
    for (expect, defect, certificate) in certificates {
        cases.broken(expect, defect, "A certificate must be in force and soundly signed to vouch for a key.", |d| {
            let key = Key::p256("alice").certified(&certificate(&d.repo));
            for role in ["targets/alice", "targets/releases"] {
                d.repo.delegation(role).keys = vec![Key::p256("alice")];
            }
            d.repo.delegation("targets/alice").keys = vec![key.clone()];
            d.repo.file("targets/alice").signers = vec![key];
        });
    }
}

/// Puts wrong signatures of the role's own key before the right one.
fn before(signatures: &mut Vec<serde_json::Value>, wrong: usize) {
    let mut one = signatures[0].clone();
    one["sig"] = STANDARD.encode([7; 64]).into();
    let right = std::mem::replace(signatures, vec![one; wrong]);
    signatures.extend(right);
}

fn counting(cases: &mut Cases) {
    cases.broken("ThresholdNotMet timestamp", "timestamp-one-signature-of-two", "The threshold is two.", |d| {
        d.repo.keys("timestamp").keys.push(Key::p256("timestamp 2"));
        d.repo.keys("timestamp").threshold = 2;
    });
    cases.broken("ThresholdNotMet timestamp", "timestamp-same-signature-twice", "One key counts once.", |d| {
        d.repo.keys("timestamp").keys.push(Key::p256("timestamp 2"));
        d.repo.keys("timestamp").threshold = 2;
        d.repo.file("timestamp").edit_signatures(|signatures, _| signatures.push(signatures[0].clone()));
    });
    cases.broken("ThresholdNotMet timestamp", "timestamp-two-signatures-by-one-key", "One key counts once.", |d| {
        d.repo.keys("timestamp").keys.push(Key::p256("timestamp 2"));
        d.repo.keys("timestamp").threshold = 2;
        d.repo.file("timestamp").edit_signatures(|signatures, _| {
            // The other valid signature by the same key, over the same bytes.
            let mut other = signatures[0].clone();
            let sig = STANDARD.decode(other["sig"].as_str().unwrap_or_default()).unwrap_or_default();
            other["sig"] = STANDARD.encode(crate::key::other_s(&sig)).into();
            signatures.push(other);
        });
    });
    cases.broken("ThresholdNotMet timestamp", "timestamp-key-id-listed-twice", "One key counts once.", |d| {
        let id = d.repo.keys("timestamp").keys[0].id();
        d.repo.keys("timestamp").threshold = 2;
        d.repo.file("root").edit(move |signed| signed["roles"]["timestamp"]["keyids"] = json!([id, id]));
        d.repo.file("timestamp").edit_signatures(|signatures, _| signatures.push(signatures[0].clone()));
    });
    let why = "A bare key and the same key in a certificate have two ids and are one key.";
    cases.broken("ThresholdNotMet timestamp", "timestamp-bare-and-certified-key", why, |d| {
        let bare = Key::p256("timestamp");
        let certified = bare.certified(&Cert::new("timestamp", d.repo.now()));
        d.repo.keys("timestamp").keys = vec![bare.clone(), certified.clone()];
        d.repo.keys("timestamp").threshold = 2;
        d.repo.file("timestamp").signers = vec![bare, certified];
    });
    cases.broken("ThresholdNotMet targets", "targets-second-signature-wrong", "Only valid signatures count.", |d| {
        let second = Key::p256("targets 2");
        d.repo.keys("targets").keys.push(second.clone());
        d.repo.keys("targets").threshold = 2;
        d.repo.file("targets").signers.push(second);
        d.repo.file("targets").edit_signatures(|signatures, _| signatures[1]["sig"] = signatures[0]["sig"].clone());
    });
    cases.broken("ThresholdNotMet timestamp", "timestamp-threshold-higher-than-keys", "It can never be met.", |d| {
        d.repo.keys("timestamp").threshold = 2_147_483_648;
    });
    let why = "The signer's role needs two keys, and only one signed.";
    cases.broken("SignerInvalid - ThresholdNotMet", "delegation-one-signature-of-two", why, |d| {
        d.repo.delegation("targets/alice").keys.push(Key::p256("alice 2"));
        d.repo.delegation("targets/alice").threshold = 2;
    });
    cases.sound("timestamp-three-wrong-signatures-before", "Wrong signatures count nothing, and do no harm.", |d| {
        d.repo.file("timestamp").edit_signatures(|signatures, _| before(signatures, 3));
    });
    let why =
        "Of one key four wrong signatures are tried, in all files of an update: whoever has more is up to something.";
    cases.broken("ThresholdNotMet timestamp", "timestamp-four-wrong-signatures-before", why, |d| {
        d.repo.file("timestamp").edit_signatures(|signatures, _| before(signatures, 4));
    });
    cases.broken("SignerInvalid - ThresholdNotMet", "delegation-wrong-signatures-in-several-files", why, |d| {
        let alice = Key::p256("alice");
        for (name, file) in [("s1", "targets/s1"), ("s2", "targets/s2"), ("s3", "targets/s3"), ("s4", "targets/s4")] {
            d.repo.signer(name, &alice).sign(name, "v1", &crate::digest_of("v1"));
            d.repo.file(file).edit_signatures(|signatures, _| before(signatures, 1));
        }
        d.repo.file("targets/alice").edit_signatures(|signatures, _| before(signatures, 1));
        d.require("s4", &alice);
    });
    cases.broken("TooManySignatures timestamp", "timestamp-300-signatures", "Work is bounded.", |d| {
        d.repo.file("timestamp").edit_signatures(|signatures, _| {
            let one = json!({"keyid": "00", "method": "ecdsa", "sig": ""});
            signatures.extend(vec![one; 299]);
        });
    });
}

fn expiry(cases: &mut Cases) {
    let roles = [
        ("Expired root", "root"),
        ("Expired timestamp", "timestamp"),
        ("Expired snapshot", "snapshot"),
        ("Expired targets", "targets"),
        ("SignerInvalid - Expired", "targets/alice"),
        ("ReleasesInvalid - Expired", "targets/releases"),
    ];
    for (expect, role) in roles {
        let name = role.replace('/', "-");
        cases.broken(expect, &format!("{name}-expired-a-minute-ago"), "What has expired proves nothing.", |d| {
            d.repo.file(role).expires = d.repo.hours(0) - jiff::SignedDuration::from_secs(60);
        });
        cases.broken(expect, &format!("{name}-without-expiry"), "No expiry is the year 1 to Go.", |d| {
            d.repo.file(role).edit(unset("/expires"));
        });
    }
    cases.broken("Expired timestamp", "timestamp-expires-null", "null is no expiry, and so the year 1.", |d| {
        d.repo.file("timestamp").edit(set("/expires", json!(null)));
    });
    cases.broken("Expired timestamp", "timestamp-expired-in-year-1", "That was long ago.", |d| {
        d.repo.file("timestamp").edit(set("/expires", json!("0001-01-01T00:00:00Z")));
    });
    cases.broken("Expired timestamp", "timestamp-expires-this-moment", "At its expiry a file has expired.", |d| {
        d.repo.file("timestamp").expires = d.repo.now();
    });
    let why = "The offset counts: this looks like the next hour and is the one before.";
    cases.broken("Expired timestamp", "timestamp-expired-by-its-offset", why, |d| {
        let local = d.repo.hours(1).strftime("%Y-%m-%dT%H:%M:%S+02:00").to_string();
        d.repo.file("timestamp").edit(move |signed| signed["expires"] = local.clone().into());
    });
}
