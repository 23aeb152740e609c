//! What no real registry would answer.

use serde_json::{Value, json};

use super::{
    Case, INDEX, Image, MANIFEST, Stored, alice, base64, bundle, digest, image_manifest, index, other, payload_of,
    sign, statement,
};
use crate::liar::Answer;

fn answer(kind: &str, body: &Value) -> Answer {
    Answer { kind: kind.to_owned(), head: String::new(), body: body.to_string().into_bytes() }
}

fn sig(image: &Image) -> Stored {
    Stored::new().sig(&alice(), &payload_of(image))
}

fn bundled(image: &Image) -> Stored {
    Stored::new().bundle(image, &bundle(&alice(), &statement(&image.hex)))
}

fn referrers(image: &Image) -> String {
    format!("referrers/{}", image.digest())
}

/// What is sound, and one answer that is another one.
fn lie(
    name: &str,
    sound: bool,
    of: fn(&Image) -> Stored,
    lie: impl Fn(&Image, &mut Stored) -> (String, Answer) + Send + Sync + 'static,
) -> Case {
    Case::new(name, sound, move |image| {
        let mut stored = of(image);
        let lie = lie(image, &mut stored);
        stored.lies.push(lie);
        stored
    })
}

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        Case::sound("lies-none-sig", sig),
        Case::sound("lies-none-bundle", bundled),
        // The blob alone would do: the manifest lists another of the same length.
        lie("sig-blob-bytes-differ-from-descriptor", false, sig, |_, stored| {
            let good = stored.blobs[0].clone();
            stored.layers[0]["digest"] = json!(format!("sha256:{}", other()));
            let answer = Answer { kind: "application/octet-stream".to_owned(), head: String::new(), body: good };
            (format!("blobs/sha256:{}", other()), answer)
        }),
        // The same the other way round: the manifest lists the good one, and another signed one comes.
        lie("sig-blob-bytes-are-of-other-image", false, sig, |image, stored| {
            let payload = super::payload(&image.repository, &other());
            let good = digest(&stored.blobs[0]);
            stored.layers[0]["annotations"]["dev.cosignproject.cosign/signature"] =
                json!(base64(&sign(&alice(), payload.as_bytes())));
            let kind = "application/octet-stream".to_owned();
            (format!("blobs/{good}"), Answer { kind, head: String::new(), body: payload.into_bytes() })
        }),
        lie("bundle-blob-bytes-differ-from-descriptor", false, bundled, |_, stored| {
            let good = stored.blobs[0].clone();
            stored.referrers[0].0["layers"][0]["digest"] = json!(format!("sha256:{}", other()));
            let answer = Answer { kind: "application/octet-stream".to_owned(), head: String::new(), body: good };
            (format!("blobs/sha256:{}", other()), answer)
        }),
        lie("referrers-manifest-bytes-wrong", false, bundled, |_, stored| {
            let good = stored.referrers[0].0.clone();
            stored.referrers[0].1["digest"] = json!(format!("sha256:{}", other()));
            (format!("manifests/sha256:{}", other()), answer(MANIFEST, &good))
        }),
        lie("referrers-empty-but-fallback-has-it", true, bundled, |image, _| {
            (referrers(image), answer(INDEX, &index(&[])))
        }),
        lie("referrers-200-html", true, bundled, |image, _| (referrers(image), answer("text/html", &json!("<html>")))),
        lie("referrers-on-later-page", true, bundled, |image, stored| {
            let list = index(&stored.referrers);
            stored.fallback = Some(index(&[]));
            let next = format!("{}?n=2", referrers(image));
            stored.lies.push((next.clone(), answer(INDEX, &list)));
            let repository = image.repository.split_once('/').map_or("", |(_, repository)| repository);
            let head = format!("Link: </v2/{repository}/{next}>; rel=\"next\"\r\n");
            (referrers(image), Answer { head, ..answer(INDEX, &index(&[])) })
        }),
        lie("sig-tag-as-json", false, sig, |image, stored| {
            let manifest = image_manifest(&stored.layers);
            (format!("manifests/sha256-{}.sig", image.hex), answer("application/json", &manifest))
        }),
        lie("sig-tag-as-docker-manifest", false, sig, |image, stored| {
            let kind = "application/vnd.docker.distribution.manifest.v2+json";
            (format!("manifests/sha256-{}.sig", image.hex), answer(kind, &image_manifest(&stored.layers)))
        }),
        lie("sig-tag-as-html", false, sig, |image, _| {
            (format!("manifests/sha256-{}.sig", image.hex), answer("text/html", &json!("<html>")))
        }),
        lie("sig-manifest-schema-1", false, sig, |image, stored| {
            let mut manifest = image_manifest(&stored.layers);
            manifest["schemaVersion"] = json!(1);
            (format!("manifests/sha256-{}.sig", image.hex), answer(MANIFEST, &manifest))
        }),
        lie("sig-manifest-without-media-type", true, sig, |image, stored| {
            let mut manifest = image_manifest(&stored.layers);
            manifest.as_object_mut().expect("an object").remove("mediaType");
            (format!("manifests/sha256-{}.sig", image.hex), answer(MANIFEST, &manifest))
        }),
    ];
    cases.into_iter().map(|case| case.only("liar")).collect()
}
