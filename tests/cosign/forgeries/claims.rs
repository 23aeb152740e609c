//! Claims beside the digest (`cosign sign -a NAME=VALUE`), of which one is demanded.

use super::{Case, Image, Stored, alice, bob, bundle, other, payload_of, statement};

const PROD: &str = r#"{"env":"prod"}"#;

/// The payload with these claims.
fn payload(image: &Image, claims: &str) -> String {
    payload_of(image).replace("null", claims)
}

/// The statement with these claims.
fn claiming(image: &Image, claims: &str) -> String {
    statement(&image.hex).replace("\"annotations\":{}", &format!("\"annotations\":{claims}"))
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::broken("claims-in-two-signatures", |image| {
            let by_bob = payload(image, PROD);
            Stored::new().sig(&alice(), &payload_of(image)).sig(&bob(), &by_bob)
        }),
        Case::sound("claims-in-second-signature", |image| {
            Stored::new().sig(&alice(), &payload_of(image)).sig(&alice(), &payload(image, PROD))
        }),
        Case::broken("claims-of-another-subject", |image| {
            let first = format!(r#""subject":[{{"digest":{{"sha256":"{}"}},"annotations":{PROD}}},"#, other());
            Stored::new().bundle(image, &bundle(&alice(), &statement(&image.hex).replace("\"subject\":[", &first)))
        }),
        Case::sound("claims-of-second-subject", |image| {
            let first = format!(r#""subject":[{{"digest":{{"sha256":"{}"}}}},"#, other());
            Stored::new().bundle(image, &bundle(&alice(), &claiming(image, PROD).replace("\"subject\":[", &first)))
        }),
        Case::broken("claims-in-sig-not-in-bundle", |image| {
            let stored = Stored::new().sig(&bob(), &payload(image, PROD));
            stored.bundle(image, &bundle(&alice(), &statement(&image.hex)))
        }),
    ];
    for (name, sound, claims) in [
        ("", true, PROD),
        ("-more", true, r#"{"env":"prod","x":"y"}"#),
        ("-empty", false, "{}"),
        ("-null", false, "null"),
        ("-other-value", false, r#"{"env":"test"}"#),
        ("-other-case", false, r#"{"Env":"prod"}"#),
        ("-list", false, r#"{"env":["prod"]}"#),
        ("-twice", false, r#"{"env":"test","env":"prod"}"#),
        ("-twice-other-last", false, r#"{"env":"prod","env":"test"}"#),
        ("-longer", false, r#"{"env":"prod "}"#),
    ] {
        cases.push(Case::new(&format!("sig-optional-claims{name}"), sound, move |image| {
            Stored::new().sig(&alice(), &payload(image, claims))
        }));
        cases.push(Case::new(&format!("bundle-claims{name}"), sound, move |image| {
            Stored::new().bundle(image, &bundle(&alice(), &claiming(image, claims)))
        }));
    }
    cases.into_iter().map(|case| Case { claim: Some(("env", "prod")), ..case }).collect()
}
