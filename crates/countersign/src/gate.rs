//! The one gate: what becomes of an object that somebody wants to create or change.
//!
//! Everything that decides asks here: the mutating webhook, the validating webhook, and the command line. So the same object
//! gets the same answer from all of them. `docs/security.md` argues from this file why nothing unproven can be persisted.

use countersign_image::{quoted, shown};
use countersign_policy::{
    ContainerImage, DenyReason, Kinds, Outcome as ImageOutcome, Reviewed, Verdict, Warning, Workload, patch,
};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::admission_review::{Answer, Request};
use crate::children::{Child, Children, Note};
use crate::config::Mode;
use crate::decision::{Decision, ReviewOutcome, Webhook};
use crate::enforce::{Engine, Job};
use crate::journal;
use crate::reading::{MIRROR, Reading};

/// How long a line of an admission warning may be: the API server cuts what is longer.
const MAX_WARNING: usize = 256;

/// How many bytes the warnings of one answer may have together: beyond it the API server cuts every one of them short.
const MAX_WARNINGS: usize = 4096;

/// Decides about objects.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Decides about images.
    pub engine: Engine,
    /// Which kinds hold a pod spec.
    pub kinds: Kinds,
    /// The owners of children; `None` where there is no cluster to ask, and then no owner excuses anything.
    pub children: Option<Children>,
    /// The users that are the cluster's own controllers: only for them an owner counts.
    pub trusted_controllers: Vec<String>,
    /// Whether children are judged like anything else.
    pub verify_children: bool,
    /// What is done with what is denied.
    pub mode: Mode,
}

/// What is needed of the objects of a request.
#[derive(Debug, Clone)]
pub(crate) struct Submitted {
    /// The object, or why its images cannot be told.
    object: Result<Reading, String>,
    /// What the old object of an UPDATE has.
    before: Reviewed,
    /// When it was read: what it waits for after that is part of the time that a review has.
    at: Instant,
}

impl Submitted {
    /// About how many bytes it takes.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        self.object.as_ref().map_or_else(String::len, Reading::size) + self.before.size()
    }

    /// The images of the object.
    ///
    /// # Errors
    /// Why they cannot be told.
    pub(crate) fn workload(&self) -> Result<&Workload, &str> {
        self.object.as_ref().map(|object| &object.workload).map_err(String::as_str)
    }

    /// The same object as if it had these images alone, and as if it were read now: for whoever has asked about the others before.
    #[must_use]
    pub(crate) fn with_only(&self, images: Vec<ContainerImage>) -> Self {
        let only = |object: &Reading| Reading {
            workload: Workload { images, ..object.workload.clone() },
            identity: object.identity.clone(),
        };
        Self {
            object: self.object.as_ref().map(only).map_err(String::clone),
            before: self.before.clone(),
            at: Instant::now(),
        }
    }
}

impl Gate {
    /// Reads the objects of a request: this takes a processor for as long as their texts are long, and asks nobody.
    #[must_use]
    pub(crate) fn read(&self, request: &Request<'_>) -> Submitted {
        match request.operation.as_str() {
            "CREATE" | "UPDATE" => {}
            _ => return Submitted { object: Ok(Reading::default()), before: Reviewed::default(), at: Instant::now() },
        }
        // An old object that cannot be read excuses nothing: then every image is judged.
        let old = (request.operation == "UPDATE").then(|| self.reading(request, request.old_object).ok()).flatten();
        let before = old.map(|old| Reviewed::of(&old.workload)).unwrap_or_default();
        Submitted { object: self.reading(request, request.object), before, at: Instant::now() }
    }

    /// Decides about a request. Whatever goes wrong on the way is a denial with its cause.
    pub(crate) async fn decide(&self, webhook: Webhook, request: &Request<'_>, submitted: Submitted) -> Decision {
        match request.operation.as_str() {
            "DELETE" | "CONNECT" => return Decision::unchanged(false),
            "CREATE" | "UPDATE" => {}
            other => return Decision::denied(format!("the operation \"{}\" is not known", shown(other))),
        }
        let Submitted { object, before, at } = submitted;
        let until = at + self.engine.deadline;
        let Reading { workload, identity } = match object {
            Ok(read) => read,
            Err(message) => return Decision::denied(message),
        };
        let mut reviewed = before.clone();
        if reviewed.changed(&workload).is_empty() {
            return Decision::unchanged(!workload.images.is_empty());
        }
        let Some(namespace) = request.namespace.as_deref().filter(|namespace| !namespace.is_empty()) else {
            return Decision::denied("the review names no namespace, so no policy can be found for it".to_owned());
        };
        let note = match self.excuse(request, namespace, &identity, &workload, until).await {
            Some((of_owner, note)) => {
                reviewed.extend(&of_owner);
                note
            }
            None => None,
        };
        let images = reviewed.changed(&workload);
        if images.is_empty() {
            return Decision::unchanged(true);
        }
        // What a dry run or a denial saw is written nowhere, and in the other modes nothing rests on it.
        let record = !request.dry_run.unwrap_or_default() && self.mode == Mode::Enforce;
        let denial_age = webhook.denial_age();
        // The validating webhook changes nothing, nor does a server that only warns or logs.
        let before = (webhook == Webhook::Mutate && self.mode == Mode::Enforce).then_some(&before);
        let job = Job { namespace, workload: &workload, images: &images, until, denial_age, before, record };
        let mut verdict = self.engine.judge(&job).await;
        if self.mode == Mode::Enforce && (webhook == Webhook::Validate || workload.is_revision) {
            // Whoever made a revision compares it with what it should be, and would make another one for each that was
            // changed; so a revision is only looked at, by both webhooks.
            verdict = verdict.unchangeable(workload.is_revision);
        }
        if let Some(note) = note {
            explain(&mut verdict, &note);
        }
        self.decision(verdict, is_mirror(request, &identity))
    }

    fn decision(&self, verdict: Verdict, runs_already: bool) -> Decision {
        let mut decision = Decision { has_images: true, runs_already, ..Decision::default() };
        if verdict.allowed() {
            let pins = self.mode == Mode::Enforce && !runs_already;
            decision.patch = if pins { patch::patch(&verdict) } else { None };
        } else {
            decision.undecided = verdict.denied().all(DenyReason::is_undecided);
            decision.denied = Some(verdict.message());
        }
        decision.verdict = verdict;
        decision
    }

    /// The images of an object of a request.
    fn reading(&self, request: &Request<'_>, object: Option<&RawValue>) -> Result<Reading, String> {
        let kind = shown(&request.kind.kind);
        let object = object.ok_or_else(|| format!("the review of a {kind} has no object"))?;
        Reading::of(&self.kinds, &request.kind.group, &request.kind.kind, object.get())
            .map_err(|error| format!("the images of the {kind} cannot be told: {}", shown(&error)))
    }

    /// What the owner of a child excuses, and what to say of its other images. `None` if no owner counts here.
    async fn excuse(
        &self,
        request: &Request<'_>,
        namespace: &str,
        object: &Value,
        workload: &Workload,
        until: Instant,
    ) -> Option<(Reviewed, Option<Note>)> {
        let children = self.children.as_ref().filter(|_| !self.verify_children)?;
        if !self.trusted_controllers.contains(&request.user_info.username) {
            return None;
        }
        let kind = &request.kind;
        let child = Child { group: &kind.group, kind: &kind.kind, namespace, object, workload };
        let excuse = tokio::time::timeout_at(until, children.excuse(&self.kinds, child)).await.ok()?;
        Some((excuse.reviewed, excuse.note))
    }

    /// The answer that the mode makes of a decision, and what it counts as.
    #[must_use]
    pub(crate) fn answer(&self, webhook: Webhook, decision: Decision) -> (ReviewOutcome, Answer) {
        let outcome = decision.outcome();
        let audit = journal::annotations(webhook, outcome, decision.denied.as_deref());
        let signed_by = decision.verdict.signers().into_iter().collect::<Vec<_>>().join(", ");
        let mut answer = Answer { patch: decision.patch, audit, signed_by, ..Answer::default() };
        let Some(message) = decision.denied else {
            answer.warnings = few(decision.verdict.warnings().map(|(image, warning)| told(image, warning)).collect());
            return (outcome, answer);
        };
        answer.reason = Some(message.clone());
        match self.mode {
            Mode::Enforce if !decision.runs_already => {
                answer.denied = Some(message);
                return (outcome, answer);
            }
            Mode::Warn => answer.warnings = few(message.lines().map(warning).collect()),
            Mode::Enforce | Mode::Audit => {}
        }
        (ReviewOutcome::Tolerated, answer)
    }
}

/// Tells why the images of a child were judged.
fn explain(verdict: &mut Verdict, note: &Note) {
    for image in &mut verdict.images {
        if matches!(image.outcome, ImageOutcome::Denied(_)) {
            image.note = Some(note.of(&image.image.path));
        }
    }
}

/// Whether a node says with this pod that it runs a static pod. It would go on running it whatever the answer is. Only the
/// node itself may say so: the API server lets nobody take the annotation off again, and no kubelet runs a pod that has it.
fn is_mirror(request: &Request<'_>, object: &Value) -> bool {
    let user = &request.user_info;
    let node = user.username.strip_prefix("system:node:").filter(|node| !node.is_empty());
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    request.operation == "CREATE"
        && (request.kind.group.as_str(), request.kind.kind.as_str()) == ("", "Pod")
        && user.groups.iter().any(|group| group == "system:nodes")
        && node.is_some()
        && text("/spec/nodeName") == node
        && object.pointer("/metadata/annotations").and_then(|annotations| annotations.get(MIRROR)).is_some()
}

/// A line of a denial as a warning.
fn warning(line: &str) -> String {
    short(format!("would be denied: {line}"))
}

/// What is to be known of an image that is allowed, as a warning. Of a long image the end is said, which has its name and tag, so that
/// there is room for what is to be known.
fn told(image: &str, warning: &Warning) -> String {
    let (image, warning) = (quoted(image), warning.to_string());
    let room = MAX_WARNING.saturating_sub(warning.chars().count() + 2).max(MAX_WARNING / 6);
    let length = image.chars().count();
    let image =
        if length > room { format!("…{}", image.chars().skip(length + 1 - room).collect::<String>()) } else { image };
    short(format!("{image}: {warning}"))
}

/// As many warnings as there is room for, and how many more there are.
fn few(mut lines: Vec<String>) -> Vec<String> {
    let more = |count: usize| format!("and {count} more");
    let (mut length, mut fits, all) = (0, 0, lines.len());
    for line in &lines {
        length += line.len();
        fits += usize::from(length <= MAX_WARNINGS - more(all).len());
    }
    if length > MAX_WARNINGS {
        lines.truncate(fits);
        lines.push(more(all - fits));
    }
    lines
}

fn short(whole: String) -> String {
    if whole.chars().count() <= MAX_WARNING {
        return whole;
    }
    whole.chars().take(MAX_WARNING - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests;
