//! A decision as one JSON object, for `jq` and whatever collects logs: every value in its own type, nothing within a text that would have
//! to be read a second time.

use std::time::Duration;

use countersign_image::shown;
use countersign_policy::{EntryRef, ImageVerdict, Proof};
use serde::Serialize;

use super::{Record, break_glass, causes, format_of, image_verdict};
use crate::decision::Owner;
use crate::metrics::Phases;

/// How many images of one object a line tells; denied ones come first.
const MAX_IMAGES: usize = 100;

/// How many bytes the texts of the images of a line may have together, before the others are left out.
const MAX_TEXTS: usize = 64 << 10;

/// How many bytes of a reason a line tells.
const MAX_REASON: usize = 2048;

/// The fields of a line, with what they mean: `docs/log.md` is made from it. Those of images begin with `images[].`.
pub(crate) const FIELDS: &[(&str, &str)] = &[
    ("timestamp", "when the review was answered, RFC 3339 in UTC"),
    ("level", "`INFO`"),
    ("message", "`review`: this line is a decision"),
    ("uid", "the review's uid; the API server gives both webhooks one of their own"),
    ("webhook", "`mutate`, `validate`, or `policies` for a review of a policy's write"),
    ("operation", "`CREATE`, `UPDATE`, …"),
    ("group", "the API group of the object; empty for the core group"),
    ("kind", "the kind of the object"),
    ("sub_resource", "`ephemeralcontainers`, or empty"),
    ("namespace", "the object's namespace"),
    ("name", "the object's name; empty where the API server makes it"),
    ("owner", "kind and name of the controller that the object names as its owner, or null"),
    ("user", "who asked"),
    ("dry_run", "whether nothing was to be kept"),
    ("verdict", "what it came to, whatever the mode makes of it: `unchecked`, `verified`, `denied` or `undecided`"),
    ("mode", "what answered: `enforce`, `warn`, `audit`, `break-glass` or `static-pod`"),
    ("admitted", "whether the object was admitted"),
    ("pinned", "whether the answer pins an image"),
    ("causes", "why the object, or images of it, are denied: the words of `docs/messages.md`, each once"),
    ("reason", "why the object as a whole is denied, or null"),
    ("break_glass", "the reason for which somebody broke the glass, or null"),
    ("images[].path", "the list and the name of the container"),
    ("images[].image", "the reference as it was written, with control characters escaped"),
    ("images[].verdict", "`unchecked`, `verified`, `put-back`, `denied` or `undecided`"),
    ("images[].mode", "the mode that counts for the image"),
    ("images[].digest", "the proven digest, or null"),
    ("images[].policy", "kind, namespace, name, entry and position (from 1) of the entry that applied, or null"),
    ("images[].formats", "the formats of the proofs that count: `notary`, `cosign`"),
    ("images[].signers", "who signed"),
    ("images[].cause", "why the image is denied, as one word, or null"),
    ("images[].reason", "why it is denied, in the words that the user reads, or null"),
    ("images[].milliseconds", "how long its proof took"),
    ("images_left_out", "how many images the line does not tell"),
    ("milliseconds.total", "how long the review took"),
    ("milliseconds.read", "of that, to read the request"),
    ("milliseconds.owner", "to look at the owner of a child"),
    ("milliseconds.plan", "to find the entries that apply"),
    ("milliseconds.prove", "to ask for proofs"),
    ("milliseconds.record", "to write down what was seen"),
];

/// A decision.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    uid: String,
    webhook: &'static str,
    operation: String,
    group: String,
    kind: String,
    sub_resource: String,
    namespace: String,
    name: String,
    owner: Option<&'a Owner>,
    user: String,
    dry_run: bool,
    verdict: &'static str,
    mode: &'static str,
    admitted: bool,
    pinned: bool,
    causes: Vec<&'static str>,
    reason: Option<&'a str>,
    break_glass: Option<String>,
    images: Vec<Image<'a>>,
    images_left_out: usize,
    milliseconds: Milliseconds,
}

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "they are called as the fields of the log")]
struct Image<'a> {
    path: String,
    image: String,
    verdict: &'static str,
    mode: &'static str,
    digest: Option<String>,
    policy: Option<Policy<'a>>,
    formats: Vec<&'static str>,
    signers: Vec<&'a str>,
    cause: Option<&'static str>,
    reason: Option<String>,
    milliseconds: f64,
}

#[derive(Debug, Serialize)]
struct Policy<'a> {
    #[serde(flatten)]
    entry: &'a EntryRef,
    position: usize,
}

#[derive(Debug, Serialize)]
struct Milliseconds {
    total: f64,
    read: f64,
    owner: f64,
    plan: f64,
    prove: f64,
    record: f64,
}

impl<'a> Line<'a> {
    pub(super) fn of(record: &Record<'a>, phases: &Phases) -> Self {
        let Record { webhook, request, decision, pinned, total, .. } = *record;
        let text = |text: &Option<String>| shown(text.as_deref().unwrap_or_default());
        let judged = &decision.verdict.images;
        let spent = |index: usize| decision.spent.images.get(index).copied().unwrap_or_default();
        let mut images: Vec<_> = judged.iter().enumerate().map(|(index, image)| (image, spent(index))).collect();
        // The order is kept where all have room.
        if images.len() > MAX_IMAGES {
            images.sort_by_key(|(image, _)| image.reason().is_none());
            images.truncate(MAX_IMAGES);
        }
        let mut texts = 0;
        let told = images.into_iter().map(|(image, took)| Image::of(image, took)).take_while(|image| {
            texts += image.size();
            texts <= MAX_TEXTS
        });
        let told: Vec<_> = told.collect();
        Self {
            uid: shown(&request.uid),
            webhook,
            operation: shown(&request.operation),
            group: shown(&request.kind.group),
            kind: shown(&request.kind.kind),
            sub_resource: text(&request.sub_resource),
            namespace: text(&request.namespace),
            name: text(&request.name),
            owner: decision.owner.as_ref(),
            user: shown(&request.user_info.username),
            dry_run: request.dry_run.unwrap_or_default(),
            verdict: decision.outcome().label(),
            mode: decision.answered().label(),
            admitted: decision.admits(),
            pinned,
            causes: causes(decision).into_iter().map(countersign_policy::DenialCause::label).collect(),
            reason: decision.whole.as_ref().map(|whole| whole.message.as_str()),
            break_glass: break_glass(decision),
            images_left_out: judged.len() - told.len(),
            images: told,
            milliseconds: Milliseconds {
                total: milliseconds(total),
                read: milliseconds(phases.read),
                owner: milliseconds(phases.owner),
                plan: milliseconds(phases.plan),
                prove: milliseconds(phases.prove),
                record: milliseconds(phases.record),
            },
        }
    }
}

impl<'a> Image<'a> {
    fn of(image: &'a ImageVerdict, took: Duration) -> Self {
        let proofs = || image.proven().into_iter().flat_map(countersign_policy::Proven::proofs);
        let mut formats: Vec<_> = proofs().map(format_of).collect();
        formats.dedup();
        let cut = |text: String| text[..text.floor_char_boundary(MAX_REASON)].to_owned();
        Self {
            path: shown(&image.image.path),
            image: shown(&image.image.image),
            verdict: image_verdict(image),
            mode: image.mode.label(),
            digest: image.proven().map(|proven| proven.digest().to_string()),
            policy: image.entry.as_ref().map(|entry| Policy { entry, position: entry.position }),
            formats,
            signers: proofs().flat_map(Proof::signers).collect(),
            cause: image.reason().map(|reason| reason.cause().label()),
            reason: image.denial().map(cut),
            milliseconds: milliseconds(took),
        }
    }
}

impl Image<'_> {
    /// About how many bytes its texts have.
    fn size(&self) -> usize {
        let signers: usize = self.signers.iter().map(|signer| signer.len()).sum();
        256 + self.path.len() + self.image.len() + signers + self.reason.as_ref().map_or(0, String::len)
    }
}

/// With three digits behind the point.
fn milliseconds(time: Duration) -> f64 {
    f64::from(u32::try_from(time.as_micros()).unwrap_or(u32::MAX)) / 1000.0
}

#[cfg(test)]
mod tests {
    use countersign_policy::{ContainerImage, DenyReason, Mode, Verdict};
    use serde_json::Value;

    use super::*;
    use crate::admission_review::Request;
    use crate::decision::{Decision, Excuse};

    /// Every field that a line has, by its path.
    fn paths(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(members) if !at.ends_with(".policy") && !at.ends_with("owner") => {
                for (name, value) in members {
                    let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                    paths(value, &path, found);
                }
            }
            Value::Array(items) if items.first().is_some_and(Value::is_object) => {
                paths(&items[0], &format!("{at}[]"), found);
            }
            _ => found.push(at.to_owned()),
        }
    }

    fn line(images: usize) -> Value {
        let denied = |index: usize| {
            let path = format!("containers/{index}");
            let image = ContainerImage { pointer: "/x".into(), path, image: "h.io/a\n:1".into() };
            let mut verdict = ImageVerdict::denied(image, Mode::Enforce, DenyReason::NoPolicies);
            if index.is_multiple_of(2) {
                verdict.outcome = countersign_policy::Outcome::Unchecked;
            }
            verdict
        };
        let excuse = Some(Excuse::BreakGlass("INC-1\n".into()));
        let decision =
            Decision { verdict: Verdict { images: (0..images).map(denied).collect() }, excuse, ..Decision::default() };
        let request = Request { uid: "u".into(), ..Request::default() };
        let (read, total) = (Duration::from_micros(1500), Duration::from_secs(2));
        let record = Record { webhook: "mutate", request: &request, decision: &decision, pinned: false, read, total };
        serde_json::to_value(Line::of(&record, &Phases { read, ..Phases::default() })).unwrap()
    }

    #[test]
    fn every_field_is_documented() {
        let mut found = vec!["timestamp".to_owned(), "level".to_owned(), "message".to_owned()];
        paths(&line(2), "", &mut found);
        let mut documented: Vec<_> = FIELDS.iter().map(|(name, _)| (*name).to_owned()).collect();
        found.sort();
        documented.sort();
        assert_eq!(found, documented);
    }

    #[test]
    fn nothing_has_to_be_read_twice() {
        let line = line(2);
        assert_eq!(line["break_glass"], "INC-1\\n");
        assert_eq!((&line["mode"], &line["admitted"]), (&Value::from("break-glass"), &Value::from(true)));
        assert_eq!(
            line["images"][0]["image"], "h.io/a\\n:1",
            "nothing of it reaches a terminal, however it is printed"
        );
        assert_eq!(line["images"][1]["cause"], "no-policies");
        assert_eq!(line["milliseconds"]["read"], 1.5);
        assert_eq!(line["causes"], serde_json::json!(["no-policies"]));
    }

    /// Whoever may create pods must not fill a log with a few of them.
    #[test]
    fn a_line_has_an_end() {
        let long = |index: usize| {
            let path = format!("containers/{index}");
            let image = ContainerImage { pointer: "/x".into(), path, image: "x".repeat(1000) };
            ImageVerdict::denied(image, Mode::Enforce, DenyReason::NotListedInCluster { namespace: "n".repeat(3000) })
        };
        let decision = Decision { verdict: Verdict { images: (0..1000).map(long).collect() }, ..Decision::default() };
        let request = Request::default();
        let (read, total) = (Duration::ZERO, Duration::ZERO);
        let record = Record { webhook: "mutate", request: &request, decision: &decision, pinned: false, read, total };
        let line = serde_json::to_string(&Line::of(&record, &Phases::default())).unwrap();
        assert!(line.len() < 2 * MAX_TEXTS && line.contains("\"images_left_out\":9"), "{}", line.len());
    }

    #[test]
    fn of_many_images_the_denied_ones_are_told() {
        let line = line(150);
        assert_eq!((line["images"].as_array().unwrap().len(), &line["images_left_out"]), (100, &Value::from(50)));
        assert!(line["images"].as_array().unwrap()[..75].iter().all(|image| image["verdict"] == "denied"));
    }
}
