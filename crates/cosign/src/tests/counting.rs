//! Keys of every kind, and how many of them have signed.

use std::collections::BTreeMap;

use forge::Key as Secret;

use crate::testing::{
    Hash, IN_TOTO, Registry, alice, base64, bob, bundle, bundle_with, der, fixed, image, key, pae, payload, public,
    sign, statement,
};
use crate::{Budget, Candidate, Demand, Error, Key, Skipped, fact, sig_tag};

/// A signature in both forms.
fn both_forms(secret: &Secret, sign: impl Fn(&[u8]) -> Vec<u8>) -> [Registry; 2] {
    let (payload, statement) = (payload(image()), statement(image()));
    let message = pae(IN_TOTO, statement.as_bytes());
    [
        Registry::new().sig_with(&payload, &base64(&sign(payload.as_bytes()))),
        Registry::new().bundle_of(bundle_with(secret, &statement, &sign(&message))),
    ]
}

fn verifies(secret: &Secret, sign: impl Fn(&[u8]) -> Vec<u8>) -> bool {
    let judged = both_forms(secret, sign).map(|registry| registry.judge(&[public("k", secret)]).is_ok());
    assert_eq!(judged[0], judged[1], "both forms alike");
    judged[0]
}

fn demand(keys: &[Key], threshold: usize, required: &[&str]) -> Demand {
    let required = required.iter().map(|&name| name.to_owned()).collect();
    Demand::new(keys.to_vec(), Some(threshold), required, BTreeMap::new()).unwrap()
}

#[test]
fn p384_sha384_and_p384_sha256() {
    let secret = Secret::p384("a");
    assert!(verifies(&secret, |message| der(&fixed(&secret, Hash::Sha384, message))));
    assert!(verifies(&secret, |message| der(&fixed(&secret, Hash::Sha256, message))));
    assert!(!verifies(&secret, |message| der(&fixed(&secret, Hash::Sha512, message))));
}

#[test]
fn p521_sha512() {
    let secret = Secret::p521("a");
    assert!(verifies(&secret, |message| der(&fixed(&secret, Hash::Sha512, message))));
    assert!(verifies(&secret, |message| der(&fixed(&secret, Hash::Sha256, message))));
    assert!(!verifies(&secret, |message| der(&fixed(&secret, Hash::Sha384, message))));
}

#[test]
fn p256_sha256_only() {
    assert!(verifies(&alice(), |message| sign(&alice(), message)));
    assert!(!verifies(&alice(), |message| der(&fixed(&alice(), Hash::Sha384, message))));
}

#[test]
fn rsa_pkcs1v15_and_rsa_pss() {
    for secret in [Secret::rsa(0), Secret::rsa_4096()] {
        assert!(verifies(&secret, |message| secret.with_pkcs1v15().sign(message).bytes));
        assert!(verifies(&secret, |message| secret.sign(message).bytes));
        assert!(!verifies(&secret, |message| secret.with_salt(20).sign(message).bytes));
    }
}

#[test]
fn ed25519_pure() {
    let secret = Secret::ed25519("a");
    assert!(verifies(&secret, |message| secret.sign(message).bytes));
}

/// A signature of 64 bytes that is none by an Ed25519 key is what Ed25519ph looks like to who can not compute it.
#[test]
fn ed25519ph_said() {
    let secret = Secret::ed25519("a");
    // Ed25519ph is Ed25519 over other bytes.
    let registries = both_forms(&secret, |message| secret.sign(&[b"ph", message].concat()).bytes);
    for registry in &registries {
        let told = registry.judge(&[public("k", &secret)]).unwrap_err().to_string();
        assert!(told.contains("perhaps signed with Ed25519ph, which is not supported"), "{told}");
    }
    // Where a bundle hints at another key, it is not said, nor where no key is one of Ed25519.
    let told = registries[1].judge(&[public("k", &Secret::ed25519("b"))]).unwrap_err().to_string();
    assert!(!told.contains("Ed25519ph"), "{told}");
    assert!(!registries[0].refused().contains("Ed25519ph"));
}

#[test]
fn ecdsa_fixed_width() {
    assert!(verifies(&alice(), |message| fixed(&alice(), Hash::Sha256, message)));
    let p384 = Secret::p384("a");
    assert!(verifies(&p384, |message| fixed(&p384, Hash::Sha384, message)));
    assert!(verifies(&p384, |message| fixed(&p384, Hash::Sha256, message)));
    let p521 = Secret::p521("a");
    assert!(verifies(&p521, |message| fixed(&p521, Hash::Sha512, message)));
    assert!(verifies(&p521, |message| fixed(&p521, Hash::Sha256, message)));
    // r that begins like DER does not keep it from being read as r.
    let payloads = (0..2000).map(|number| payload(image()).replace("null", &format!("{{\"n\":\"{number}\"}}")));
    let odd =
        payloads.map(|text| (fixed(&alice(), Hash::Sha256, text.as_bytes()), text)).find(|(raw, _)| raw[0] == 0x30);
    let (raw, text) = odd.expect("one in 256");
    assert!(Registry::new().sig_with(&text, &base64(&raw)).by_alice().is_ok());
}

#[test]
fn ecdsa_der_trailing() {
    let odd = |signature: &[u8], how: usize| match how {
        0 => [signature, &[0]].concat(),
        1 => [&[0], signature].concat(),
        2 => signature[..signature.len() - 1].to_vec(),
        // The same length in two bytes, which BER allows.
        3 => [&[0x30, 0x81], &signature[1..]].concat(),
        _ => signature.to_vec(),
    };
    for how in 0..=4 {
        assert_eq!(verifies(&alice(), |message| odd(&sign(&alice(), message), how)), how == 4, "{how}");
        let wide = |message: &[u8]| odd(&fixed(&alice(), Hash::Sha256, message), how.min(2));
        assert!(!verifies(&alice(), wide), "{how}");
    }
    for zero in [vec![0; 64], vec![0x30, 6, 2, 1, 0, 2, 1, 0], vec![0x30, 0]] {
        assert!(!verifies(&alice(), |_| zero.clone()));
    }
}

#[test]
fn key_of_other_curve() {
    let secrets = [
        alice(),
        bob(),
        Secret::p384("alice"),
        Secret::p521("alice"),
        Secret::rsa(0),
        Secret::rsa(1),
        Secret::ed25519("alice"),
    ];
    let registry = Registry::new().sig(&alice()).bundle(&alice());
    for secret in &secrets[1..] {
        let error = registry.judge(&[public("k", secret)]).unwrap_err();
        let expected = format!("2 signatures of {} found (1 under the .sig tag, 1 bundle), none by k", image());
        assert_eq!((error.to_string(), error.rank()), (expected, 1));
        let hint = key("alice").fingerprint().base64();
        assert_eq!(error.found().hints().collect::<Vec<_>>(), [hint]);
    }
    let keys: Vec<Key> = secrets.iter().enumerate().map(|(n, secret)| public(&format!("k{n}"), secret)).collect();
    let proof = registry.demand(&demand(&keys, 1, &[])).unwrap();
    assert_eq!(proof.by().iter().map(|by| by.signer.as_str()).collect::<Vec<_>>(), ["k0"]);
}

#[test]
fn sig_same_layer_twice_threshold_2() {
    let mut registry = Registry::new().sig(&alice());
    registry.sig_layers.push(registry.sig_layers[0].clone());
    let both = [key("alice"), key("bob")];
    let error = registry.demand(&demand(&both, 2, &[])).unwrap_err();
    assert_eq!(error.to_string(), format!("{} is signed by alice, but not by bob", image()));
    // Nor are two signatures by one key, in two encodings or over two payloads.
    let claimed = payload(image()).replace("null", r#"{"a":"b"}"#);
    let text = payload(image());
    let registry =
        registry.sig_of(&alice(), &claimed).sig_with(&text, &base64(&fixed(&alice(), Hash::Sha256, text.as_bytes())));
    assert_eq!(registry.scan(&both).facts().len(), 3);
    assert!(registry.demand(&demand(&both, 2, &[])).is_err());
    assert!(registry.sig(&bob()).demand(&demand(&both, 2, &[])).is_ok());
}

#[test]
fn alice_in_sig_bob_in_bundle_threshold_2() {
    let both = [key("alice"), key("bob")];
    let proof = Registry::new().sig(&alice()).bundle(&bob()).demand(&demand(&both, 2, &[])).unwrap();
    assert_eq!(proof.by().iter().map(|by| by.signer.as_str()).collect::<Vec<_>>(), ["alice", "bob"]);
    assert!(Registry::new().sig(&alice()).bundle(&bob()).judge(&both).is_ok());
}

#[test]
fn one_key_both_forms_threshold_2() {
    let both = [key("alice"), key("bob")];
    let error = Registry::new().sig(&alice()).bundle(&alice()).demand(&demand(&both, 2, &[])).unwrap_err();
    assert!(matches!(error, Error::NotEnough { .. }));
    let three = [key("alice"), key("bob"), key("carol")];
    let error = Registry::new().sig(&alice()).bundle(&alice()).demand(&demand(&three, 2, &[])).unwrap_err();
    let expected = format!("{} is signed by alice, but 2 of alice, bob and carol must have signed", image());
    assert_eq!((error.to_string(), error.rank()), (expected, 0));
}

#[test]
fn required_missing_threshold_met() {
    let three = [key("alice"), key("bob"), key("carol")];
    let registry = Registry::new().sig(&alice()).bundle(&bob());
    assert!(registry.demand(&demand(&three, 2, &[])).is_ok());
    assert!(registry.demand(&demand(&three, 2, &["bob"])).is_ok());
    let error = registry.demand(&demand(&three, 2, &["carol"])).unwrap_err();
    assert_eq!(error.to_string(), format!("{} is signed by alice and bob, but not by carol", image()));
    // Two that are required are two, whatever the threshold.
    assert!(registry.demand(&demand(&three, 1, &["alice", "carol"])).is_err());
}

#[test]
fn a_claim_is_the_signers_own() {
    let claims = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    let demand = Demand::new(vec![key("alice"), key("bob")], None, vec![], claims).unwrap();
    let claimed = statement(image()).replace("\"annotations\":{}", r#""annotations":{"env":"prod"}"#);
    let registry = Registry::new().bundle_of(bundle(&alice(), &claimed)).bundle(&bob());
    let told = registry.demand(&demand).unwrap_err().to_string();
    assert_eq!(told, format!("{} is signed by alice and by bob without the annotation env=prod", image()));
}

/// Facts are kept, and asked again with other policies and of other images.
#[test]
fn facts_prove_their_own_digest_only() {
    let scan = Registry::new().sig(&alice()).scan(&[key("alice"), key("bob")]);
    let judge = |digest, name: &str| {
        crate::judge("h/r", digest, &demand(&[key(name)], 1, &[]), scan.facts(), scan.found()).is_ok()
    };
    assert!(judge(image(), "alice"));
    assert!(!judge(crate::testing::other_image(), "alice"));
    assert!(!judge(image(), "bob"));
}

#[test]
fn a_budget_ends() {
    let registry = Registry::new().sig(&alice());
    let layer = sig_tag(&registry.sig_manifest(), crate::testing::MANIFEST).unwrap().remove(0);
    let text = payload(image());
    let candidate = Candidate::new(&layer, text.as_bytes()).unwrap();
    let budget = Budget::new();
    let keys = [key("bob")];
    for _ in 0..crate::limits::MAX_VERIFICATIONS {
        assert!(matches!(fact(image(), &candidate, &keys, &budget), Err(Skipped::OtherKeys { .. })));
    }
    assert_eq!(fact(image(), &candidate, &[key("alice")], &budget), Err(Skipped::BudgetSpent));
}
