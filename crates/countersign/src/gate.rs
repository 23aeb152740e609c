//! The one gate: what becomes of an object that somebody wants to create or change.
//!
//! Everything that decides asks here: the mutating webhook, the validating webhook, and the command line. So the same object
//! gets the same answer from all of them. `docs/security.md` argues from this file why nothing unproven can be persisted.

use std::time::Duration;

use countersign_image::{quoted, shown};
use countersign_policy::{
    ContainerImage, DenialCause, ImageVerdict, Kinds, Mode, Outcome as ImageOutcome, Reviewed, Verdict, Warning,
    Workload, patch,
};
use serde_json::Value;
use tokio::time::Instant;

use crate::admission_review::{Answer, Request};
use crate::break_glass::{self, BreakGlass, Wish};
use crate::children::{Child, Children, Note};
use crate::decision::{Answered, Call, Decision, Excuse, Owner, Webhook};
use crate::enforce::{Engine, Job, Judged};
use crate::journal;
use crate::namespaces::Namespaces;
use crate::reading::{MIRROR, Reading};

/// How long a line of an admission warning may be: the API server cuts what is longer.
const MAX_WARNING: usize = 256;

/// How many bytes the warnings of one answer may have together: beyond it the API server cuts every one of them short.
const MAX_WARNINGS: usize = 4096;

/// How long it may take to find out which mode counts for a review that could not be decided.
const FAULT_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// What is done with what is denied, where neither the namespace nor the entry says more.
    pub mode: Mode,
    /// What the namespaces say; `None` where that could not make anything stricter, or there is no cluster to ask.
    pub namespaces: Option<Namespaces>,
    /// Who may have an object admitted in spite of a denial.
    pub break_glass: BreakGlass,
    /// Where the page with the messages is, for denials to name.
    pub messages: String,
}

/// What is needed of the objects of a request.
#[derive(Debug, Clone)]
pub(crate) struct Submitted {
    /// The object, or why its images cannot be told.
    object: Result<Reading, String>,
    /// What the old object of an UPDATE has.
    before: Reviewed,
    /// The annotation for breaking the glass of that object.
    reason_before: Option<String>,
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
            reason_before: self.reason_before.clone(),
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
            _ => {
                let (before, object) = (Reviewed::default(), Ok(Reading::default()));
                return Submitted { object, before, reason_before: None, at: Instant::now() };
            }
        }
        // An old object that cannot be read excuses nothing: then every image is judged.
        let old = (request.operation == "UPDATE").then(|| self.reading(request, request.old_object).ok()).flatten();
        let object = self.reading(request, request.object);
        // What stands in an old object that cannot be read may well be the same.
        let stood = if request.operation == "UPDATE" { old.as_ref().or(object.as_ref().ok()) } else { None };
        let reason_before = stood.and_then(|read| break_glass::reason(&read.identity)).map(str::to_owned);
        let before = old.map(|old| Reviewed::of(&old.workload)).unwrap_or_default();
        Submitted { object, before, reason_before, at: Instant::now() }
    }

    /// Decides about a request. Whatever goes wrong on the way is a denial with its cause.
    pub(crate) async fn decide(&self, call: Call, request: &Request<'_>, submitted: Submitted) -> Decision {
        let Call { webhook, enforced } = call;
        let mode = if enforced { Mode::Enforce } else { self.mode };
        match request.operation.as_str() {
            "DELETE" | "CONNECT" => return Decision { mode, ..Decision::unchanged(false) },
            "CREATE" | "UPDATE" => {}
            other => {
                let message = format!("the operation \"{}\" is not known", shown(other));
                return Decision { mode, ..Decision::denied(DenialCause::UnreadableObject, message) };
            }
        }
        let Submitted { object, before, reason_before, at } = submitted;
        let until = at + self.engine.deadline;
        let namespace = request.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        let Reading { workload, identity } = match object {
            Ok(read) => read,
            Err(message) => return self.unknown(call, namespace, until, DenialCause::UnreadableObject, message).await,
        };
        let mut reviewed = before.clone();
        if reviewed.changed(&workload).is_empty() {
            return Decision { mode, ..Decision::unchanged(!workload.images.is_empty()) };
        }
        let Some(namespace) = namespace else {
            let message = "the review names no namespace, so no policy can be found for it".to_owned();
            return Decision { mode, ..Decision::denied(DenialCause::UnreadableObject, message) };
        };
        let began = Instant::now();
        let note = match self.excuse(request, namespace, &identity, &workload, until).await {
            Some((of_owner, note)) => {
                reviewed.extend(&of_owner);
                note
            }
            None => None,
        };
        let looked_at_owner = began.elapsed();
        let images = reviewed.changed(&workload);
        if images.is_empty() {
            return Decision { mode, looked_at_owner, ..Decision::unchanged(true) };
        }
        let (mode, notes) = self.mode_in(call, Some(namespace), until).await;
        // What a dry run or a denial saw is written nowhere.
        let record = !request.dry_run.unwrap_or_default();
        let denial_age = webhook.denial_age();
        // The validating webhook changes nothing.
        let before = (webhook == Webhook::Mutate).then_some(&before);
        let job = Job { namespace, workload: &workload, images: &images, mode, until, denial_age, before, record };
        let Judged { mut verdict, spent } = self.engine.judge(&job).await;
        if webhook == Webhook::Validate || workload.is_revision {
            // Whoever made a revision compares it with what it should be, and would make another one for each that was
            // changed; so a revision is only looked at, by both webhooks.
            verdict = verdict.unchangeable(workload.is_revision);
        }
        if let Some(note) = note {
            explain(&mut verdict, &note);
        }
        let mut decision = Decision {
            verdict,
            mode,
            notes,
            owner: owner(&identity),
            has_images: true,
            looked_at_owner,
            spent,
            ..Decision::default()
        };
        if is_mirror(request, &identity) {
            decision.excuse = Some(Excuse::StaticPod);
        } else if !decision.verdict.admitted() {
            let wish = self.break_glass.wish(request, &identity, reason_before.as_deref(), &self.trusted_controllers);
            match wish {
                Wish::None => {}
                Wish::Granted(reason) => decision.excuse = Some(Excuse::BreakGlass(reason)),
                Wish::Refused(why) => decision.notes.push(why),
            }
        }
        decision
    }

    /// What a review comes to that could not be decided because of a fault of ours.
    pub(crate) async fn fault(&self, call: Call, request: &Request<'_>) -> Decision {
        let fault = "could not be decided because of a fault in Countersign".to_owned();
        let until = Instant::now() + FAULT_TIMEOUT;
        self.unknown(call, request.namespace.as_deref(), until, DenialCause::Internal, fault).await
    }

    /// What a review comes to whose objects were not read, or that there is no room to judge.
    pub(crate) async fn unread(
        &self,
        call: Call,
        request: &Request<'_>,
        cause: DenialCause,
        problem: String,
    ) -> Decision {
        let until = Instant::now() + FAULT_TIMEOUT;
        self.unknown(call, request.namespace.as_deref(), until, cause, problem).await
    }

    /// The denial of an object whose images nobody looked at: an entry may enforce one of them.
    async fn unknown(
        &self,
        call: Call,
        namespace: Option<&str>,
        until: Instant,
        cause: DenialCause,
        message: String,
    ) -> Decision {
        let (mode, notes) = self.mode_in(call, namespace, until).await;
        let mode = self.engine.source.strictest(namespace.unwrap_or_default(), mode);
        Decision { mode, notes, ..Decision::denied(cause, message) }
    }

    /// The mode that counts in a namespace where no entry says more, and what is to be said of that.
    async fn mode_in(&self, call: Call, namespace: Option<&str>, until: Instant) -> (Mode, Vec<String>) {
        if call.enforced {
            return (Mode::Enforce, Vec::new());
        }
        let (Some(namespaces), Some(namespace)) = (&self.namespaces, namespace) else {
            return (self.mode, Vec::new());
        };
        let asked = tokio::time::timeout_at(until, namespaces.mode(namespace, self.mode)).await;
        let late = || (Mode::Enforce, Some(format!("the mode of namespace {namespace} could not be read in time")));
        let (mode, trouble) = asked.unwrap_or_else(|_| late());
        (mode, trouble.into_iter().collect())
    }

    /// The images of an object of a request.
    fn reading(&self, request: &Request<'_>, object: Option<&str>) -> Result<Reading, String> {
        let kind = shown(&request.kind.kind);
        let object = object.ok_or_else(|| format!("the review of a {kind} has no object"))?;
        Reading::of(&self.kinds, &request.kind.group, &request.kind.kind, object)
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

    /// The answer that the mode makes of a decision.
    #[must_use]
    pub(crate) fn answer(&self, webhook: Webhook, decision: &Decision) -> Answer {
        let mut answer = Answer { audit: journal::annotations(webhook, decision), ..Answer::default() };
        let verdict = &decision.verdict;
        let alternatives = verdict.warnings().map(|(image, warning)| told(image, warning));
        let notes = decision.notes.iter().map(|note| short(shown(note)));
        if decision.admits() {
            // Of what a node runs already, or somebody admitted in spite of a denial, nothing is changed.
            let unchanged = webhook == Webhook::Validate || decision.excuse.is_some();
            answer.patch = if unchanged { None } else { patch::patch(verdict) };
        } else {
            let blocking = || verdict.message(ImageVerdict::blocks, |cause| self.help(cause));
            let whole = decision.whole.as_ref();
            answer.denied = Some(whole.map_or_else(blocking, |whole| whole.message.clone() + &self.help(whole.cause)));
        }
        let would_be = match decision.answered() {
            Answered::BreakGlass => verdict.message(ImageVerdict::blocks, |_| String::new()),
            Answered::Mode(Mode::Enforce | Mode::Warn) => {
                let whole = decision.whole.as_ref().filter(|_| decision.admits()).map(|whole| whole.message.clone());
                whole.unwrap_or_else(|| verdict.message(|image| image.mode == Mode::Warn, |_| String::new()))
            }
            Answered::Mode(Mode::Audit) | Answered::StaticPod => String::new(),
        };
        let prefix = match decision.answered() {
            Answered::BreakGlass => "admitted by break glass",
            _ => "would be denied",
        };
        let would_be = would_be.lines().map(|line| short(format!("{prefix}: {line}"))).collect::<Vec<_>>();
        answer.warnings = few(would_be.into_iter().chain(notes).chain(alternatives).collect());
        answer
    }

    /// What stands behind a line of a denial.
    fn help(&self, cause: DenialCause) -> String {
        help(&self.messages, cause)
    }
}

/// What stands behind a line of a denial: where to read what helps. `messages` is where the page with the messages is.
pub(crate) fn help(messages: &str, cause: DenialCause) -> String {
    format!(" (see {messages}#{})", cause.label())
}

/// Tells why the images of a child were judged.
fn explain(verdict: &mut Verdict, note: &Note) {
    for image in &mut verdict.images {
        if matches!(image.outcome, ImageOutcome::Denied(_)) {
            image.note = Some(note.of(&image.image.path));
        }
    }
}

/// The controller that an object names as its owner.
fn owner(object: &Value) -> Option<Owner> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let text = |member: &str| shown(owner[member].as_str().unwrap_or_default());
    Some(Owner { api_version: text("apiVersion"), kind: text("kind"), name: text("name"), uid: text("uid") })
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
