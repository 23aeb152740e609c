//! Kinds of keys, and how they sign.

use forge::Key;

use super::{
    Case, IN_TOTO, Image, Stored, alice, base64, bundle_with, der, pae, payload_of, sha384, sha512, sign, statement,
};

/// How a key signs a message.
type Signing = fn(&Key, &[u8]) -> Vec<u8>;

/// The same key and way of signing in both forms.
fn both(name: &str, sound: bool, key: &Key, hash: Option<&'static str>, signs: Signing) -> [Case; 2] {
    let (pem, key, other) = (key.pem(), key.clone(), key.clone());
    let sig = Case::new(&format!("sig-{name}"), sound, move |image: &Image| {
        let payload = payload_of(image);
        Stored::new().sig_text(&payload, &base64(&signs(&key, payload.as_bytes())))
    });
    let bundle = Case::new(&format!("bundle-{name}"), sound, move |image: &Image| {
        let statement = statement(&image.hex);
        Stored::new().bundle(image, &bundle_with(&other, &statement, &signs(&other, &pae(IN_TOTO, &statement))))
    });
    [sig, bundle].map(|case| Case { key: pem.clone(), hash, ..case })
}

pub(super) fn cases() -> Vec<Case> {
    let (p384, p521, rsa) = (Key::p384("alice"), Key::p521("alice"), Key::rsa(1));
    let mut cases: Vec<Case> = [
        both("p384-sha384", true, &p384, Some("sha384"), |key, message| der(&key.sign_hash(&sha384(message)).bytes)),
        both("p384-sha256", true, &p384, None, |key, message| der(&key.sign(message).bytes)),
        both("p384-sha512", false, &p384, Some("sha512"), |key, message| der(&key.sign_hash(&sha512(message)).bytes)),
        both("p521-sha512", true, &p521, Some("sha512"), |key, message| der(&key.sign_hash(&sha512(message)).bytes)),
        both("p521-sha256", true, &p521, None, |key, message| der(&key.sign(message).bytes)),
        both("p256-sha384", false, &alice(), Some("sha384"), |key, message| {
            der(&key.sign_hash(&sha384(message)).bytes)
        }),
        both("rsa", true, &rsa.with_pkcs1v15(), None, |key, message| key.sign(message).bytes),
        both("rsa-4096", true, &Key::rsa_4096().with_pkcs1v15(), None, |key, message| key.sign(message).bytes),
        both("rsa-1024", false, &Key::rsa_1024().with_pkcs1v15(), None, |key, message| key.sign(message).bytes),
        both("rsa-e3", false, &Key::rsa_exponent_3().with_pkcs1v15(), None, |key, message| key.sign(message).bytes),
        both("rsa-pss", true, &rsa, None, |key, message| key.sign(message).bytes),
        both("rsa-pss-salt-20", false, &rsa.with_salt(20), None, |key, message| key.sign(message).bytes),
        both("ed25519", true, &Key::ed25519("alice"), None, |key, message| key.sign(message).bytes),
        both("ecdsa-fixed-width", true, &alice(), None, |key, message| key.sign(message).bytes),
        both("ecdsa-fixed-width-p384-sha384", true, &p384, Some("sha384"), |key, message| {
            key.sign_hash(&sha384(message)).bytes
        }),
        both("ecdsa-der-trailing", false, &alice(), None, |key, message| [sign(key, message), vec![0]].concat()),
        both("ecdsa-der-long-length", false, &alice(), None, |key, message| {
            let right = sign(key, message);
            [&[0x30, 0x81], &right[1..]].concat()
        }),
        both("ecdsa-der-zeros-in-front", false, &alice(), None, |key, message| {
            let fixed = key.sign(message).bytes;
            let number = |bytes: &[u8]| [&[2, 34, 0, 0], bytes].concat();
            [vec![0x30, 72], number(&fixed[..32]), number(&fixed[32..])].concat()
        }),
        both("ecdsa-zeros", false, &alice(), None, |_, _| vec![0x30, 6, 2, 1, 0, 2, 1, 0]),
        both("ecdsa-cut", false, &alice(), None, |key, message| sign(key, message)[1..].to_vec()),
    ]
    .into_iter()
    .flatten()
    .collect();
    // Asked about a key of another curve than the one that signed.
    let of_other_curve = both("key-of-other-curve", false, &alice(), None, sign);
    cases.extend(of_other_curve.map(|case| Case { key: Key::p384("alice").pem(), ..case }));
    cases
}
