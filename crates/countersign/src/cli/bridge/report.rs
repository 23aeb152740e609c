//! The report of a look at images, for people and for programs.

use std::collections::BTreeMap;

use countersign_image::shown;
use serde_json::{Value, json};

use super::state::{Alone, Counts, Dct, Looked, Signed, State, next_step, short};
use crate::cli::output::{table, verdict_word};

/// Counts by namespace, and in all at the end.
fn counts(images: &[Looked]) -> Vec<(String, Counts)> {
    let mut by_namespace: BTreeMap<&str, Vec<&Looked>> = BTreeMap::new();
    for image in images {
        by_namespace.entry(&image.asked.namespace).or_default().push(image);
    }
    let of = |(namespace, images): (&str, Vec<&Looked>)| (namespace.to_owned(), Counts::of(images));
    by_namespace.into_iter().map(of).collect()
}

/// A line for each image, then the counts, then the next step.
pub(super) fn as_table(images: &[Looked]) -> String {
    let row = |image: &Looked| {
        vec![
            shown(&image.asked.namespace),
            shown(&image.asked.image),
            if image.counts() {
                verdict_word(image.state().word(), image.ready())
            } else {
                image.state().word().to_owned()
            },
            image.digest().map_or_else(|| "-".to_owned(), short),
            shown(&image.advice()),
        ]
    };
    let mut text =
        table(&["NAMESPACE", "IMAGE", "STATE", "DIGEST", "WHAT TO DO"], &images.iter().map(row).collect::<Vec<_>>());
    let mut rows = counts(images);
    rows.push(("(all)".to_owned(), Counts::of(images)));
    let head = ["NAMESPACE", "READY", "OF"].into_iter().chain(State::ALL.map(State::word));
    let head: Vec<_> = head.map(str::to_uppercase).collect();
    let row = |(namespace, counts): &(String, Counts)| {
        let numbers = [counts.ready, counts.checked].into_iter().chain(State::ALL.map(|state| counts.of_state(state)));
        std::iter::once(shown(namespace)).chain(numbers.map(|number| number.to_string())).collect()
    };
    text.push('\n');
    text += &table(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows.iter().map(row).collect::<Vec<_>>());
    text += &format!("\n{}\n", next_step(images));
    text
}

/// The same as JSON.
pub(super) fn as_json(images: &[Looked]) -> Value {
    let number = |counts: &Counts| {
        let states: serde_json::Map<_, _> =
            State::ALL.iter().map(|state| (state.word().to_owned(), json!(counts.of_state(*state)))).collect();
        json!({"ready": counts.ready, "checked": counts.checked, "states": states})
    };
    let namespaces: serde_json::Map<_, _> =
        counts(images).iter().map(|(namespace, counts)| (namespace.clone(), number(counts))).collect();
    json!({
        "images": images.iter().map(image).collect::<Vec<_>>(),
        "namespaces": namespaces,
        "all": number(&Counts::of(images)),
        "next": next_step(images),
    })
}

fn image(image: &Looked) -> Value {
    let mut report = json!({
        "namespace": image.asked.namespace,
        "image": image.asked.image,
        "state": image.state().word(),
        "ready": image.ready(),
        "checked": image.counts(),
        "digest": image.digest().map(|digest| digest.to_string()),
        "running": image.asked.running.map(|digest| digest.to_string()),
        "todo": image.advice(),
        "policy": image.entry.as_ref().map(|(_, entry)| entry),
    });
    if let Some(signatures) = image.signatures() {
        report["dct"] = match &signatures.dct {
            Dct::NotAsked => Value::Null,
            Dct::Proves(digest) => json!({"digest": digest.to_string()}),
            Dct::Refuses(reason) => json!({"digest": null, "reason": reason}),
            Dct::Undecided(cause) => json!({"digest": null, "reason": cause, "undecided": true}),
        };
        report["content"] = match &signatures.alone {
            Alone::Named(digest) => json!({"digest": digest.to_string(), "by": "image"}),
            Alone::Tagged(digest) => json!({"digest": digest.to_string(), "by": "registry"}),
            Alone::Missing(reason) => json!({"digest": null, "reason": reason}),
            Alone::Undecided(cause) => json!({"digest": null, "reason": cause, "undecided": true}),
        };
        let signed = signatures.cosign.iter().map(|(digest, signed)| match signed {
            Signed::Proven => json!({"digest": digest.to_string(), "signed": true}),
            Signed::Unverified => json!({"digest": digest.to_string(), "signed": true, "verified": false}),
            Signed::No(reason) => json!({"digest": digest.to_string(), "signed": false, "reason": reason}),
            Signed::Undecided(cause) => {
                json!({"digest": digest.to_string(), "signed": false, "reason": cause, "undecided": true})
            }
        });
        report["cosign"] = signed.collect();
    }
    report
}
