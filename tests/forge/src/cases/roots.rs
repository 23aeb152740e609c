//! Roots that must not be believed: their certificates, pins, and rotations.

use super::Cases;
use crate::case::{Draft, GUN};
use crate::certificate::Cert;
use crate::key::Key;
use crate::repo::Repo;

pub(super) fn add(cases: &mut Cases) {
    certificates(cases);
    pins(cases);
    rotations(cases);
    gaps(cases);
}

/// Gives the root a key with this certificate.
fn certify(draft: &mut Draft, key: &Key, certificate: &Cert) {
    draft.repo.set_key("root", &key.certified(certificate));
}

fn certificates(cases: &mut Cases) {
    let names: [(&str, &str); 9] = [
        ("for-another-repository", "registry.example.com/team/other"),
        ("for-a-prefix-without-star", "registry.example.com/team"),
        ("for-a-longer-name", "registry.example.com/team/app2"),
        ("in-upper-case", "registry.example.com/team/APP"),
        ("for-another-prefix", "registry.example.com/other/*"),
        ("for-everything", "*"),
        ("with-star-inside", "registry.example.com/*/app"),
        ("with-nul", "registry.example.com/team/app\0.evil.example"),
        ("empty", ""),
    ];
    for (what, name) in names {
        let why = "A root key's certificate must name the repository.";
        cases.broken("RootCertificate - CertificateName", &format!("root-certificate-{what}"), why, |d| {
            certify(d, &Key::p256("root"), &Cert::new(name, d.repo.now()));
        });
    }
    cases.broken("RootCertificate - CertificateName", "root-certificate-without-name", "It names nothing.", |d| {
        certify(d, &Key::p256("root"), &Cert::new("", d.repo.now()).named(&[]));
    });
    cases.broken("RootCertificate - CertificateExpired", "root-certificate-expired", "It vouches no longer.", |d| {
        let certificate = Cert::new(GUN, d.repo.now()).valid(d.repo.hours(-9000), d.repo.hours(-1));
        certify(d, &Key::p256("root"), &certificate);
    });
    let why = "It starts in two days; one day is allowed for clocks.";
    cases.broken("RootCertificate - CertificateNotYetValid", "root-certificate-not-yet-valid", why, |d| {
        let certificate = Cert::new(GUN, d.repo.now()).valid(d.repo.hours(48), d.repo.hours(9000));
        certify(d, &Key::p256("root"), &certificate);
    });
    cases.broken("RootCertificate - WeakCertificate", "root-certificate-sha1", "SHA-1 can be forged.", |d| {
        certify(d, &Key::p256("root"), &Cert::new(GUN, d.repo.now()).sha1());
    });
    cases.broken("RootCertificate - WeakCertificate", "root-certificate-rsa-sha1", "SHA-1 can be forged.", |d| {
        certify(d, &Key::rsa(0), &Cert::new(GUN, d.repo.now()).sha1());
    });
    cases.broken("RootCertificate - WeakRsa", "root-certificate-rsa-1024", "1024 bits can be broken.", |d| {
        certify(d, &Key::rsa_1024(), &Cert::new(GUN, d.repo.now()));
    });
    cases.broken("RootCertificate - CertificateBundle", "root-certificate-is-a-ca", "A root key is a leaf.", |d| {
        certify(d, &Key::p256("root"), &Cert::new(GUN, d.repo.now()).authority());
    });
    let why = "Which of two leaves holds the key cannot be told.";
    cases.broken("RootCertificate - CertificateBundle", "root-certificate-two-leaves", why, |d| {
        let second = Cert::new(GUN, d.repo.now()).issue(&Key::p256("second"));
        let certificate = Cert::new(GUN, d.repo.now()).followed_by(&second);
        certify(d, &Key::p256("root"), &certificate);
    });
    cases.broken("RootCertificate - CertificateBundle", "root-certificate-ca-first", "The leaf comes first.", |d| {
        let ca = Key::p256("ca");
        let authority = Cert::new("test CA", d.repo.now()).authority().issue(&ca);
        let leaf = Cert::new(GUN, d.repo.now()).issued_by("test CA", &ca).preceded_by(&authority);
        // The key that is listed is then that of the CA, which signs too.
        let pem = leaf.issue(&Key::p256("root"));
        d.repo.set_key("root", &ca.with_certificates(pem));
    });
    cases.broken("RootCertificate - NotACertificate", "root-key-bare", "A root key must be certified.", |d| {
        d.repo.set_key("root", &Key::p256("root"));
    });
    cases.broken("RootCertificate - Malformed", "root-certificate-rubbish", "It is no certificate.", |d| {
        let pem = crate::der::pem("CERTIFICATE", b"not a certificate");
        d.repo.set_key("root", &Key::p256("root").with_certificates(pem));
    });
    cases.broken("RootCertificate - Malformed", "root-certificate-der-without-pem", "Notary wants PEM text.", |d| {
        d.repo.set_key("root", &Key::p256("root").with_certificates("0\u{1}"));
    });
}

fn pins(cases: &mut Cases) {
    cases.broken("RootNotPinned", "root-pinned-to-another-key-id", "The pin names another key.", |d| {
        d.root_pins.push(Key::p256("other").certified(&Cert::new(GUN, d.repo.now())).id());
    });
    cases.broken("RootNotPinned", "root-pinned-to-another-certificate", "The pin holds another key.", |d| {
        d.root_pins.push(Key::p256("other").certified(&Cert::new(GUN, d.repo.now())).pem());
    });
    cases.broken("RootNotPinned", "root-pinned-key-listed-but-not-signing", "Listing is not signing.", |d| {
        let pinned = Key::p256("pinned").certified(&Cert::new(GUN, d.repo.now()));
        d.root_pins.push(pinned.id());
        d.repo.keys("root").keys.push(pinned);
    });
    cases.broken("RootNotPinned", "root-pinned-key-of-another-role", "Only root keys can be pinned.", |d| {
        d.root_pins.push(Key::p256("targets").id());
    });
    let why = "The root before this one has the pinned key, but did not sign this one.";
    cases.broken("RootNotChained", "root-pinned-but-swapped-since", why, |d| {
        let old = d.repo.keys("root").keys[0].clone();
        d.root_pins.push(old.id());
        let new = Key::p256("mallory").certified(&Cert::new(GUN, d.repo.now()));
        d.repo.rotate_root().set_root_key(&new);
        d.repo.file("root").signers = vec![new];
    });
}

fn rotations(cases: &mut Cases) {
    cases.broken("RootNotChained", "root-swapped-for-an-unrelated-one", "The repository was made anew.", |d| {
        d.remember();
        swap(&mut d.repo);
        d.repo.advance();
    });
    cases.broken("RootNotChained", "root-rotated-without-the-old-key", "The old key must hand over.", |d| {
        d.remember();
        d.repo.rotate_root();
        swap(&mut d.repo);
    });
    cases.broken("RootNotChained", "root-swapped-with-a-high-version", "No chain leads there.", |d| {
        d.remember();
        for _ in 0..3 {
            d.repo.rotate_root();
            swap(&mut d.repo);
        }
    });
    cases.broken("ThresholdNotMet root", "root-rotated-without-the-new-key", "The new key must take over.", |d| {
        d.remember();
        let new = Key::p256("root 2").certified(&Cert::new(GUN, d.repo.now()));
        d.repo.rotate_root().keys("root").keys = vec![new];
    });
    cases.broken("RootNotChained", "root-rotated-by-one-old-key-of-two", "The old threshold was two.", |d| {
        let second = Key::p256("root 2").certified(&Cert::new(GUN, d.repo.now()));
        d.repo.keys("root").keys.push(second.clone());
        d.repo.keys("root").threshold = 2;
        d.repo.file("root").signers.push(second);
        d.remember();
        let new = Key::p256("root 3").certified(&Cert::new(GUN, d.repo.now()));
        d.repo.rotate_root().set_root_key(&new);
        d.repo.keys("root").threshold = 1;
        d.repo.file("root").signers.remove(0);
    });
    cases.broken("RootCertificate - CertificateName", "root-rotated-to-another-name", "It names another one.", |d| {
        d.remember();
        let new = Key::p256("root 2").certified(&Cert::new("registry.example.com/team/other", d.repo.now()));
        d.repo.rotate_root().set_root_key(&new);
    });
    cases.broken("Expired root", "root-rotated-to-an-expired-one", "The newest root has expired.", |d| {
        d.remember();
        d.repo.rotate_root().file("root").expires = d.repo.hours(-1);
    });
}

fn gaps(cases: &mut Cases) {
    cases.broken("MissingFile root", "root-rotated-twice-with-a-gap", "Each step must be there to check.", |d| {
        d.remember();
        d.repo.rotate_root().rotate_root();
        d.after(|files| {
            files.remove("2.root.json");
        });
    });
    cases.broken("RootNotChained", "root-step-in-between-not-chained", "The second root was swapped.", |d| {
        d.remember();
        let first = d.repo.keys("root").keys[0].clone();
        d.repo.rotate_root();
        swap(&mut d.repo);
        // The third has the first key's signature again, so that only the second betrays the swap.
        d.repo.rotate_root().set_root_key(&first);
    });
    cases.broken("RootNotChained", "root-step-in-between-is-the-third", "A version has its own file.", |d| {
        d.remember();
        d.repo.rotate_root().rotate_root();
        d.after(|files| {
            let third = files.role("root").to_vec();
            files.insert("2.root.json", third);
        });
    });
    let why = "A step of the way is no better than its certificate, as for the Go client.";
    cases.broken("RootCertificate - CertificateExpired", "root-step-in-between-with-expired-certificate", why, |d| {
        d.remember();
        let expired = Cert::new(GUN, d.repo.now()).valid(d.repo.hours(-9000), d.repo.hours(-1));
        d.repo.rotate_root().set_root_key(&Key::p256("root 2").certified(&expired));
        let sound = Cert::new(GUN, d.repo.now());
        d.repo.rotate_root().set_root_key(&Key::p256("root 3").certified(&sound));
    });
    cases.broken("RootTooFar", "root-seventy-rotations-at-once", "A walk along the chain is bounded.", |d| {
        d.repo.rotate_root().rotate_root();
        d.remember();
        d.repo.rotate_root().file("root").version = 3 + 70;
    });
}

/// Takes another root key, without a signature by the former one.
fn swap(repo: &mut Repo) {
    let new = Key::p256("mallory").certified(&Cert::new(repo.gun(), repo.now()));
    repo.set_key("root", &new);
}
