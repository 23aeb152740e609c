//! Simple signing, under the `.sig` tag.

use serde_json::json;

use super::{
    Case, INDEX, Image, MANIFEST, SIMPLE, Stored, alice, base64, bob, image_manifest, index, other, pae, payload,
    payload_of, sign, statement,
};

/// Alice's signature over the sound payload, changed.
fn of(image: &Image, change: impl FnOnce(String) -> String) -> Stored {
    Stored::new().sig(&alice(), &change(payload_of(image)))
}

/// The payload with one part replaced, and signed so.
fn replaced(name: &str, from: &'static str, to: &str) -> Case {
    let to = to.to_owned();
    Case::broken(name, move |image| {
        of(image, |payload| {
            let changed = payload.replacen(from, &to, 1);
            assert_ne!(changed, payload);
            changed
        })
    })
}

/// The sound payload, with another text for a signature.
fn text(name: &str, sound: bool, change: fn(String) -> String) -> Case {
    Case::new(name, sound, move |image| {
        let payload = payload_of(image);
        let right = base64(&sign(&alice(), payload.as_bytes()));
        Stored::new().sig_text(&payload, &change(right))
    })
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::sound("sig", |image| of(image, |payload| payload)),
        Case::broken("unsigned", |_| Stored::new()),
        Case::broken("sig-by-another", |image| Stored::new().sig(&bob(), &payload_of(image))),
        Case::sound("sig-beside-that-of-another", |image| {
            Stored::new().sig(&bob(), &payload_of(image)).sig(&alice(), &payload_of(image))
        }),
        Case::sound("sig-same-layer-twice", |image| {
            Stored::new().sig(&alice(), &payload_of(image)).sig(&alice(), &payload_of(image))
        }),
        Case::sound("sig-other-docker-reference", |image| {
            Stored::new().sig(&alice(), &payload("elsewhere.example.com/old/name", &image.hex))
        }),
        Case::sound("sig-optional-absent", |image| of(image, |payload| payload.replace(",\"optional\":null", ""))),
        Case::sound("sig-payload-with-spaces", |image| of(image, |payload| payload.replace("\":", "\" : \n"))),
        Case::sound("sig-with-claims", |image| {
            of(image, |payload| payload.replace("null", r#"{"env":"prod","build":7,"x":[{}]}"#))
        }),
        Case::sound("sig-in-docker-manifest", |image| {
            let mut stored = of(image, |payload| payload);
            let mut manifest = image_manifest(&stored.layers);
            manifest["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
            manifest["config"]["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
            stored.sig = Some(manifest);
            stored
        }),
        Case::sound("sig-900-layers-good-one-last", |image| {
            let payload = payload_of(image);
            let mut stored = Stored::new();
            for number in 0..899 {
                stored = stored.sig_text(&payload, &base64(format!("0{number}").as_bytes()));
            }
            stored.blobs.truncate(1);
            stored.sig(&alice(), &payload)
        }),
    ];
    cases.extend(texts());
    cases.extend(payloads());
    cases.extend(layers());
    cases
}

fn texts() -> Vec<Case> {
    vec![
        text("sig-annotation-empty", false, |_| String::new()),
        text("sig-annotation-line-break", false, |_| "\n".to_owned()),
        text("sig-base64-garbage", false, |_| "*".to_owned()),
        text("sig-base64-garbage-cut", false, |right| right[1..].to_owned()),
        text("sig-base64-garbage-space-after", false, |right| format!("{right} ")),
        text("sig-base64-garbage-space-before", false, |right| format!(" {right}")),
        text("sig-base64-garbage-more-after", false, |right| format!("{right}AAAA=")),
        text("sig-base64-garbage-without-padding", false, |right| format!("{}A", right.trim_end_matches('='))),
        text("sig-base64-long", false, |_| base64(&[0x30; 1025])),
        text("sig-base64-with-newlines", true, |right| {
            let (head, tail) = right.split_at(40);
            format!("{head}\n{tail}\r\n")
        }),
    ]
}

fn payloads() -> Vec<Case> {
    let twice = |first: &'static str, second: &'static str| {
        move |image: &Image| {
            let member = |which: &str| {
                let hex = if which == "own" { image.hex.clone() } else { other() };
                format!(r#""docker-manifest-digest":"sha256:{hex}""#)
            };
            of(image, |payload| payload.replace(&member("own"), &format!("{},{}", member(first), member(second))))
        }
    };
    let near = |change: fn(String) -> String| {
        move |image: &Image| of(image, |payload| payload.replace(&image.digest(), &change(image.digest())))
    };
    vec![
        Case::broken("sig-payload-other-digest", |image| {
            Stored::new().sig(&alice(), &payload(&image.repository, &other()))
        }),
        Case::broken("sig-payload-other-digest-upper", near(|digest| digest.to_uppercase())),
        Case::broken("sig-payload-other-digest-upper-hex", near(|digest| digest.to_uppercase().replace("SHA", "sha"))),
        Case::broken("sig-payload-other-digest-hex-only", near(|digest| digest.replace("sha256:", ""))),
        Case::broken("sig-payload-other-digest-space", near(|digest| digest + " ")),
        Case::broken("sig-payload-other-digest-sha512", near(|digest| digest.replace("sha256", "sha512"))),
        Case::broken("sig-payload-of-other-image-same-key", |image| {
            let elsewhere = payload(&image.repository, &other());
            Stored::new().sig_text(&payload_of(image), &base64(&sign(&alice(), elsewhere.as_bytes())))
        }),
        replaced("sig-type-binauthz", "cosign container image", "Google cloud binauthz container"),
        replaced("sig-type-atomic", "cosign container image", "atomic container"),
        replaced("sig-type-upper", "cosign container", "Cosign container"),
        replaced("sig-type-empty", "cosign container image signature", ""),
        replaced("sig-type-absent", r#","type":"cosign container image signature""#, ""),
        Case::broken("sig-duplicate-digest-member", twice("own", "other")),
        Case::broken("sig-duplicate-digest-member-own-last", twice("other", "own")),
        Case::broken("sig-duplicate-digest-member-same", twice("own", "own")),
        replaced("sig-digest-member-capital-D", "docker-manifest", "Docker-manifest"),
        Case::broken("sig-digest-member-both", |image| {
            let wrong = format!(r#""docker-manifest-digest":"sha256:{}","Docker-manifest"#, other());
            of(image, |payload| payload.replace("\"docker-manifest", &wrong))
        }),
        replaced("sig-critical-unknown-member", "\"critical\":{", "\"critical\":{\"expires\":\"2020-01-01\","),
        replaced("sig-unknown-member", "{\"critical\"", "{\"x\":1,\"critical\""),
        replaced("sig-identity-absent", "\"identity\":", "\"x\":"),
        replaced("sig-identity-null", "\"docker-reference\":\"", "\"docker-reference\":null,\"x\":\""),
        replaced("sig-optional-list", "null", "[]"),
        replaced("sig-optional-text", "null", "\"\""),
        replaced("sig-critical-capital", "\"critical\"", "\"Critical\""),
        Case::broken("sig-trailing-bytes", |image| of(image, |payload| payload + "x")),
        Case::broken("sig-trailing-bytes-object", |image| of(image, |payload| payload + "{}")),
        Case::broken("sig-trailing-bytes-nul", |image| of(image, |payload| payload + "\0")),
        Case::sound("sig-trailing-line-break", |image| of(image, |payload| payload + "\n")),
        Case::broken("sig-byte-order-mark", |image| of(image, |payload| format!("\u{feff}{payload}"))),
        Case::broken("sig-payload-empty", |image| of(image, |_| String::new())),
        Case::broken("sig-payload-null", |image| of(image, |_| "null".to_owned())),
        Case::broken("sig-payload-70-KB", |image| of(image, |payload| payload + &" ".repeat(70 << 10))),
        Case::broken("sig-payload-100000-levels", |image| {
            let deep = format!("{{\"x\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
            of(image, |payload| payload.replace("null", &deep))
        }),
    ]
}

/// The only layer, changed.
fn layer(name: &str, change: impl Fn(&mut serde_json::Value) + Send + Sync + 'static) -> Case {
    Case::broken(name, move |image| {
        let mut stored = of(image, |payload| payload);
        change(&mut stored.layers[0]);
        stored
    })
}

fn layers() -> Vec<Case> {
    let media_type = |name, kind: &'static str| layer(name, move |layer| layer["mediaType"] = json!(kind));
    let mut cases = vec![
        Case::broken("sig-zero-layers", |_| Stored { sig: Some(image_manifest(&[])), ..Stored::new() }),
        layer("sig-annotation-missing", |layer| layer["annotations"] = json!({"dev.cosignproject.cosign/other": "x"})),
        media_type("sig-layer-other-media-type", "application/octet-stream"),
        media_type("sig-layer-other-media-type-parameter", "application/vnd.dev.cosign.simplesigning.v1+json; a=b"),
        media_type("sig-layer-other-media-type-html", "text/html"),
        Case::broken("sig-dsse-as-layer", |image| dsse(image, SIMPLE)),
        Case::broken("sig-dsse-as-layer-of-its-type", |image| dsse(image, "application/vnd.dsse.envelope.v1+json")),
        Case::broken("sig-statement-as-layer", |image| Stored::new().sig(&alice(), &statement(&image.hex))),
        Case::broken("sig-tag-is-index", |image| {
            let mut stored = of(image, |payload| payload);
            let manifest = image_manifest(&stored.layers);
            let platform = json!({"platform": {"architecture": "amd64", "os": "linux"}});
            stored.sig = Some(index(&[(manifest.clone(), platform)]));
            stored.tags.push((String::new(), manifest));
            stored
        }),
        Case::broken("sig-tag-is-index-without-manifests", |_| Stored { sig: Some(index(&[])), ..Stored::new() }),
        Case::broken("sig-manifest-and-index-in-one", |image| both(image, MANIFEST)).only("referrers"),
        Case::broken("sig-index-and-manifest-in-one", |image| both(image, INDEX)).only("referrers"),
        Case::broken("sig-under-att-tag", |image| {
            let stored = of(image, |payload| payload);
            let tags = vec![(".att".to_owned(), image_manifest(&stored.layers))];
            Stored { layers: vec![], tags, ..stored }
        }),
        Case::broken("sig-under-other-tag", |image| {
            let stored = of(image, |payload| payload);
            let tags = vec![("x.sig".to_owned(), image_manifest(&stored.layers))];
            Stored { layers: vec![], tags, ..stored }
        }),
    ];
    for (name, size) in [("0", 0), ("short", 241), ("70000", 70_000), ("100000000", 100_000_000), ("negative", -1)] {
        cases.push(layer(&format!("sig-size-lies-{name}"), move |layer| layer["size"] = json!(size)));
    }
    cases
}

/// An envelope as cosign puts it under the `.att` tag.
fn dsse(image: &Image, media_type: &str) -> Stored {
    let text = statement(&image.hex);
    let signature = base64(&sign(&alice(), &pae(super::IN_TOTO, &text)));
    let envelope = json!({
        "payloadType": super::IN_TOTO, "payload": base64(text.as_bytes()), "signatures": [{"sig": signature}]
    });
    let mut stored = Stored::new().sig_text(&envelope.to_string(), &signature);
    stored.layers[0]["mediaType"] = json!(media_type);
    stored
}

/// What is a manifest and an index to whoever does not look twice.
fn both(image: &Image, media_type: &str) -> Stored {
    let mut stored = of(image, |payload| payload);
    let mut manifest = image_manifest(&stored.layers);
    manifest["mediaType"] = json!(media_type);
    manifest["manifests"] = json!([]);
    stored.sig = Some(manifest);
    stored
}
