//! Asks the gate about objects as if somebody created them, and about no image twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use countersign_image::{ImageReference, Sha256};
use countersign_policy::{ContainerImage, DenialCause, EntryRef, ImageVerdict, Outcome, Workload};
use futures::stream::{self, StreamExt as _};
use serde_json::json;
use serde_json::value::RawValue;

use super::object::{Head, Object};
use crate::admission_review::{GroupVersionKind, Request};
use crate::decision::Webhook;
use crate::gate::{Gate, Submitted};

/// How many objects are judged at once: trust servers serve others too.
const AT_ONCE: usize = 4;

/// How many images an object may have to be judged image by image. The gate limits what one review may ask for (64 repositories); so few
/// images, with as many alternatives as an entry may have, and two things asked for in each, are never beyond it.
const FEW: usize = 4;

/// What would become of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It would be allowed, and there is nothing to be told.
    Allowed,
    /// It would be allowed and pinned, and runs without a pin.
    Unpinned,
    /// It would be denied.
    Denied,
    /// It would be denied for its age alone: its tag is signed with another digest now.
    Superseded,
    /// It could not be decided.
    Undecided,
}

impl Verdict {
    /// As reports name it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Unpinned => "unpinned",
            Self::Denied => "denied",
            Self::Superseded => "superseded",
            Self::Undecided => "undecided",
        }
    }

    /// Whether it would be admitted.
    pub(super) fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed | Self::Unpinned)
    }
}

/// What the gate says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judged {
    /// What would become of it.
    pub(super) verdict: Verdict,
    /// The kind of reason, of a closed set.
    pub(super) cause: Option<&'static str>,
    /// The reason, in the published words.
    pub(super) reason: Option<String>,
    /// What it would be pinned to.
    pub(super) pinned: Option<String>,
    /// The entry that applies.
    pub(super) policy: Option<EntryRef>,
}

impl Judged {
    fn of(verdict: &ImageVerdict) -> Self {
        let mut judged =
            Self { verdict: Verdict::Allowed, cause: None, reason: None, pinned: None, policy: verdict.entry.clone() };
        match &verdict.outcome {
            Outcome::Unchecked => {}
            Outcome::PutBack(before) => judged.pinned = Some(before.clone()),
            Outcome::Proven(proven) => {
                judged.pinned = proven.pinned().map(str::to_owned);
                let has_digest =
                    ImageReference::parse(&verdict.image.image).is_ok_and(|image| image.digest().is_some());
                if judged.pinned.is_some() && !has_digest {
                    judged.verdict = Verdict::Unpinned;
                }
            }
            Outcome::Denied(reason) => {
                judged.verdict = match reason {
                    reason if reason.is_undecided() => Verdict::Undecided,
                    reason if reason.is_superseded() => Verdict::Superseded,
                    _ => Verdict::Denied,
                };
                judged.cause = Some(reason.cause().label());
                judged.reason = Some(reason.lines().into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("; "));
            }
        }
        judged
    }

    fn unanswered(cause: String) -> Self {
        let (cause, reason) = (Some(DenialCause::Internal.label()), Some(cause));
        Self { verdict: Verdict::Undecided, cause, reason, pinned: None, policy: None }
    }
}

/// The request of somebody who creates an object. Nothing is written down for it.
fn request<'a>(head: &Head, object: Option<&'a str>) -> Request<'a> {
    let kind = &head.kind;
    Request {
        kind: GroupVersionKind { group: kind.group.clone(), version: kind.version.clone(), kind: kind.name.clone() },
        name: Some(head.name.clone()),
        namespace: Some(head.namespace.clone()),
        operation: "CREATE".to_owned(),
        object,
        dry_run: Some(true),
        ..Request::default()
    }
}

/// An object as the gate reads it.
///
/// # Errors
/// What is no JSON.
pub(super) fn submitted(gate: &Gate, head: &Head, json: &str) -> Result<Submitted, String> {
    let object: &RawValue = serde_json::from_str(json).map_err(|error| error.to_string())?;
    Ok(gate.read(&request(head, Some(object.get()))))
}

/// An object, and those of its images that are to be judged.
#[derive(Debug)]
pub(super) struct Asked {
    /// The object.
    pub(super) object: Object,
    /// The images.
    pub(super) images: Vec<ContainerImage>,
}

/// Asks the gate.
#[derive(Debug)]
pub(super) struct Judge {
    gate: Gate,
    known: HashMap<Sha256, Arc<Judged>>,
    reviews: usize,
}

impl Judge {
    /// Asks this gate.
    pub(super) fn new(gate: Gate) -> Self {
        Self { gate, known: HashMap::new(), reviews: 0 }
    }

    /// The gate.
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// How many reviews there were.
    pub(super) fn reviews(&self) -> usize {
        self.reviews
    }

    /// What becomes of the images of some objects, in their order. `tell` is told how many reviews there were, after each.
    pub(super) async fn judge(&mut self, asked: &[Asked], mut tell: impl FnMut(usize)) -> Vec<Vec<Arc<Judged>>> {
        let (mut reviews, mut under_way) = (Vec::new(), HashSet::new());
        for Asked { object, images } in asked {
            let Ok(workload) = object.submitted.workload() else { continue };
            let place = Place::of(&object.head, workload);
            let is_new = |image: &&ContainerImage, under_way: &mut HashSet<Sha256>| {
                let key = place.key(image);
                !self.known.contains_key(&key) && under_way.insert(key)
            };
            // Where all of its images are judged together, none of them says anything without the others.
            let new: Vec<_> = if place.together.is_none() {
                images.iter().filter(|image| is_new(image, &mut under_way)).cloned().collect()
            } else if images.iter().filter(|image| is_new(image, &mut under_way)).count() > 0 {
                under_way.extend(workload.images.iter().map(|image| place.key(image)));
                workload.images.clone()
            } else {
                Vec::new()
            };
            if !new.is_empty() {
                reviews.push((object, place, new));
            }
        }
        let gate = &self.gate;
        let decided = stream::iter(reviews).map(|(object, place, images)| async move {
            let request = request(&object.head, None);
            let decision =
                gate.decide(Webhook::Mutate.into(), &request, object.submitted.with_only(images.clone())).await;
            (place, images, decision)
        });
        let mut decided = decided.buffer_unordered(AT_ONCE);
        let mut found = Vec::new();
        while let Some((place, images, decision)) = decided.next().await {
            self.reviews += 1;
            tell(self.reviews);
            for verdict in &decision.verdict.images {
                found.push((place.key(&verdict.image), Judged::of(verdict)));
            }
            if decision.verdict.images.is_empty() {
                let cause = decision.whole.map_or_else(|| "the gate said nothing".to_owned(), |whole| whole.message);
                found.extend(images.iter().map(|image| (place.key(image), Judged::unanswered(cause.clone()))));
            }
        }
        drop(decided);
        self.known.extend(found.into_iter().map(|(key, judged)| (key, Arc::new(judged))));
        let of = |Asked { object, images }: &Asked| {
            let Ok(workload) = object.submitted.workload() else { return Vec::new() };
            let place = Place::of(&object.head, workload);
            let judged = |image: &ContainerImage| {
                let unanswered = || Arc::new(Judged::unanswered("the gate said nothing".to_owned()));
                self.known.get(&place.key(image)).cloned().unwrap_or_else(unanswered)
            };
            images.iter().map(judged).collect()
        };
        asked.iter().map(of).collect()
    }
}

/// What an answer about an image rests on, besides the image.
struct Place<'a> {
    namespace: &'a str,
    workload: &'a Workload,
    /// All images of the object, where they are so many that they may keep each other from being looked at.
    together: Option<String>,
}

impl<'a> Place<'a> {
    fn of(head: &'a Head, workload: &'a Workload) -> Self {
        let together = (workload.images.len() > FEW).then(|| {
            let images: Vec<_> = workload.images.iter().map(|image| image.image.as_str()).collect();
            Sha256::of(json!(images).to_string().as_bytes()).to_string()
        });
        Self { namespace: &head.namespace, workload, together }
    }

    fn key(&self, image: &ContainerImage) -> Sha256 {
        let Workload { pull_secrets, service_account, .. } = self.workload;
        let key = json!([self.namespace, pull_secrets, service_account, self.together, image.image]);
        Sha256::of(key.to_string().as_bytes())
    }
}
