//! Sound repositories with every sort of key.

use super::Cases;
use crate::case::Draft;
use crate::certificate::Cert;
use crate::digest_of;
use crate::key::Key;

pub(super) fn add(cases: &mut Cases) {
    every_type(cases);
    signer_forms(cases);
    root_certificates(cases);
}

/// A repository whose signer has this key; the secret holds `asked`.
fn with_signer(draft: &mut Draft, key: &Key, asked: &Key) {
    let now = draft.repo.now();
    *draft = Draft::empty(crate::case::GUN, now);
    draft.repo.signer("alice", key).sign("alice", "v1", &digest_of("v1"));
    draft.require("alice", asked);
}

fn every_type(cases: &mut Cases) {
    let keys = [
        ("p384", Key::p384("alice")),
        ("p521", Key::p521("alice")),
        ("rsa-pss", Key::rsa(0)),
        ("rsa-pkcs1", Key::rsa(0).with_pkcs1v15()),
        ("rsa-4096", Key::rsa_4096()),
    ];
    for (name, key) in keys {
        cases.sound(&format!("signer-{name}"), "A signer may have a key of this type.", |d| with_signer(d, &key, &key));
        let why = "Every role may have a key of this type.";
        cases.sound(&format!("all-roles-{name}"), why, |d| {
            let certificate = Cert::new(d.repo.gun(), d.repo.now());
            d.repo.set_key("root", &key.certified(&certificate));
            for role in ["targets", "snapshot", "timestamp"] {
                d.repo.set_key(role, &key);
            }
        });
    }
    cases.sound("server-keys-ed25519", "Timestamp and snapshot keys may be Ed25519.", |d| {
        d.repo.set_key("timestamp", &Key::ed25519("timestamp")).set_key("snapshot", &Key::ed25519("snapshot"));
    });
    cases.sound("one-key-for-everything", "The server's two keys are one, and so are all others.", |d| {
        let key = Key::p256("only");
        for role in ["targets", "snapshot", "timestamp"] {
            d.repo.set_key(role, &key);
        }
    });
}

fn signer_forms(cases: &mut Cases) {
    let bare = Key::p256("alice");
    let certified = |d: &Draft| Key::p256("alice").certified(&Cert::new("alice", d.repo.now()));
    cases.sound("signer-certificate", "The key is listed, and asked for, as a certificate.", |d| {
        let key = certified(d);
        with_signer(d, &key, &key);
    });
    cases.sound("signer-certificate-asked-for-as-bare-key", "It is the same key.", |d| {
        let key = certified(d);
        with_signer(d, &key, &bare);
    });
    cases.sound("signer-bare-key-asked-for-as-certificate", "It is the same key.", |d| {
        let key = certified(d);
        with_signer(d, &bare, &key);
    });
    cases.sound("signer-certificate-asked-for-as-another-certificate", "It is the same key.", |d| {
        let other = bare.certified(&Cert::new("alice of old", d.repo.now()));
        let key = certified(d);
        with_signer(d, &key, &other);
    });
    cases.sound("signer-rsa-certificate", "The key is listed, and asked for, as a certificate.", |d| {
        let key = Key::rsa(1).certified(&Cert::new("alice", d.repo.now()));
        with_signer(d, &key, &key);
    });
    cases.sound("signer-certificate-that-calls-itself-a-ca", "openssl req -x509 makes such ones.", |d| {
        let key = bare.certified(&Cert::new("alice", d.repo.now()).authority());
        with_signer(d, &key, &key);
    });
    type Change = fn(&str) -> String;
    let texts: [(&str, Change); 4] = [
        ("pem-with-role-header", |pem| pem.replacen("KEY-----\n", "KEY-----\nrole: alice\n\n", 1)),
        ("pem-with-windows-lines", |pem| pem.replace('\n', "\r\n")),
        ("pem-with-text-around", |pem| format!("Alice's key:\n\n{pem}\nbye\n")),
        ("pem-with-a-second-key", |pem| format!("{pem}{}", Key::p256("mallory").pem())),
    ];
    for (name, change) in texts {
        cases.sound(&format!("signer-{name}"), "What docker trust key generate writes, and what people make of it.", |d| {
            d.signers[0].1 = change(&d.signers[0].1);
        });
    }
}

fn root_certificates(cases: &mut Cases) {
    cases.sound("root-certificate-rsa", "Root keys may be RSA.", |d| {
        let key = Key::rsa(0).certified(&Cert::new(d.repo.gun(), d.repo.now()));
        d.repo.set_key("root", &key);
    });
    cases.sound("root-certificate-issued-by-a-ca", "The leaf first, then its CA.", |d| {
        let ca = Key::p256("ca");
        let authority = Cert::new("test CA", d.repo.now()).authority().issue(&ca);
        let leaf = Cert::new(d.repo.gun(), d.repo.now()).issued_by("test CA", &ca).followed_by(&authority);
        d.repo.set_key("root", &Key::p256("root").certified(&leaf));
    });
    cases.sound("root-certificate-starts-tomorrow", "Clocks differ: a day is allowed.", |d| {
        let certificate = Cert::new(d.repo.gun(), d.repo.now()).valid(d.repo.hours(12), d.repo.hours(9000));
        d.repo.set_key("root", &Key::p256("root").certified(&certificate));
    });
    cases.sound("one-root-certificate-of-two-unusable", "The other one is enough.", |d| {
        let other = Key::p256("other").certified(&Cert::new("registry.example.com/other", d.repo.now()));
        d.repo.keys("root").keys.insert(0, other);
    });
    cases.sound("two-root-keys", "Two of two signed.", |d| {
        let second = Key::p256("root 2").certified(&Cert::new(d.repo.gun(), d.repo.now()));
        d.repo.keys("root").keys.push(second.clone());
        d.repo.keys("root").threshold = 2;
        d.repo.file("root").signers.push(second);
    });
    cases.sound("root-certificate-until-2060", "Times from 2050 on are written differently in certificates.", |d| {
        let certificate = Cert::new(d.repo.gun(), d.repo.now()).valid(d.repo.hours(-24), d.repo.hours(300_000));
        d.repo.set_key("root", &Key::p256("root").certified(&certificate));
    });
}
