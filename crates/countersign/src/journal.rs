//! What is written down of each decision: a line in the log, metrics, an Event where something is denied, and annotations in the audit
//! log of the API server. `docs/log.md` lists the fields of a line.

mod line;

use std::sync::Arc;
use std::time::Duration;

use countersign_image::shown;
use countersign_policy::{DenialCause, ImageVerdict, Outcome, Proof};
use tracing::{Level, info};

pub(crate) use self::line::FIELDS;
use self::line::Line;
use crate::admission_review::Request;
use crate::decision::{Answered, Decision, Excuse, Webhook};
use crate::events::Events;
use crate::metrics::{Phases, SharedMetrics};
use crate::telemetry::{self, LogFormat};

/// How many bytes an audit annotation may have that names images: the API server keeps it with each request.
const MAX_AUDIT: usize = 4096;

/// Writes down what was decided.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    metrics: SharedMetrics,
    format: LogFormat,
    events: Option<Arc<Events>>,
}

/// A review that was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// Which webhook was asked, as logs and metrics name it.
    pub(crate) webhook: &'static str,
    /// What it was asked.
    pub(crate) request: &'a Request<'a>,
    /// What was decided.
    pub(crate) decision: &'a Decision,
    /// Whether images are pinned by the answer.
    pub(crate) pinned: bool,
    /// How long it took to read the request.
    pub(crate) read: Duration,
    /// How long it took in all.
    pub(crate) total: Duration,
}

impl Journal {
    /// Counts in these metrics, logs in this format, and tells a cluster, if there is one.
    #[must_use]
    pub(crate) fn new(metrics: SharedMetrics, format: LogFormat, events: Option<Arc<Events>>) -> Self {
        Self { metrics, format, events }
    }

    /// Counts a request that is no review.
    pub(crate) fn bad_request(&self, webhook: &'static str, total: Duration) {
        self.metrics.bad_request(webhook, total);
    }

    /// Counts a review, and writes one line of it. In text, words of users stand in quotes and escaped, so that none of them can pass for
    /// another line.
    pub(crate) fn review(&self, record: &Record<'_>) {
        let Record { webhook, request, decision, pinned, read, total } = *record;
        let (outcome, answered) = (decision.outcome(), decision.answered());
        let spent = &decision.spent;
        let phases = Phases {
            read,
            owner: decision.looked_at_owner,
            plan: spent.plan,
            prove: spent.prove,
            record: spent.record,
        };
        self.metrics.review(webhook, &request.kind.kind, outcome, answered, total);
        self.metrics.phases(&phases);
        if answered == Answered::BreakGlass {
            self.metrics.glass_broken();
        }
        for image in &decision.verdict.images {
            if let Some(reason) = image.reason() {
                self.metrics.denied_image(reason.cause(), image.mode);
            }
            image.warnings().iter().for_each(|warning| self.metrics.alternative(warning.label()));
        }
        if let (Some(events), Some(denial)) = (&self.events, decision.denial(|_| String::new()))
            && !request.dry_run.unwrap_or_default()
            // What is admitted in spite of it is told once, by the first of both webhooks.
            && (webhook == Webhook::Mutate.label() || webhook == Webhook::Validate.label() && !decision.admits())
        {
            events.tell(request, decision, &denial);
        }
        if !tracing::enabled!(Level::INFO) {
            return;
        }
        if self.format == LogFormat::Json {
            telemetry::write_line(&Line::of(record, &phases));
            return;
        }
        info!(
            webhook,
            verdict = outcome.label(),
            mode = answered.label(),
            admitted = decision.admits(),
            operation = ?shown(&request.operation),
            kind = ?shown(&request.kind.kind),
            sub_resource = ?shown(request.sub_resource.as_deref().unwrap_or_default()),
            namespace = ?shown(request.namespace.as_deref().unwrap_or_default()),
            name = ?shown(request.name.as_deref().unwrap_or_default()),
            user = ?shown(&request.user_info.username),
            uid = ?shown(&request.uid),
            dry_run = request.dry_run.unwrap_or_default(),
            pinned,
            break_glass = ?break_glass(decision).unwrap_or_default(),
            reason = ?decision.denial(|_| String::new()).unwrap_or_default(),
            signed_by = ?shown(&decision.verdict.signers().into_iter().collect::<Vec<_>>().join(", ")),
            seconds = total.as_secs_f64(),
            "review"
        );
    }
}

/// The reason for which somebody broke the glass, where that made the difference.
fn break_glass(decision: &Decision) -> Option<String> {
    match &decision.excuse {
        Some(Excuse::BreakGlass(reason)) if decision.answered() == Answered::BreakGlass => Some(shown(reason)),
        _ => None,
    }
}

/// The word for what an image came to.
fn image_verdict(image: &ImageVerdict) -> &'static str {
    match &image.outcome {
        Outcome::Unchecked => "unchecked",
        Outcome::Proven(_) => "verified",
        Outcome::PutBack(_) => "put-back",
        Outcome::Denied(reason) if reason.is_undecided() => "undecided",
        Outcome::Denied(_) => "denied",
    }
}

/// The name of a proof's format.
fn format_of(proof: &Proof) -> &'static str {
    match proof {
        Proof::Notary(_) => "notary",
        Proof::Cosign(_) => "cosign",
    }
}

/// The audit annotations of a decision. The names of the validating webhook differ, as the API server keeps both.
pub(crate) fn annotations(webhook: Webhook, decision: &Decision) -> Vec<(&'static str, String)> {
    let names = match webhook {
        Webhook::Mutate => ["verdict", "mode", "reason", "images", "break-glass"],
        Webhook::Validate => {
            ["validate-verdict", "validate-mode", "validate-reason", "validate-images", "validate-break-glass"]
        }
    };
    let mut annotations =
        vec![(names[0], decision.outcome().label().to_owned()), (names[1], decision.answered().label().to_owned())];
    annotations.extend(decision.denial(|_| String::new()).map(|denial| (names[2], denial)));
    let images = images(&decision.verdict.images);
    annotations.extend((!images.is_empty()).then_some((names[3], images)));
    annotations.extend(break_glass(decision).map(|reason| (names[4], reason)));
    annotations
}

/// A line for each judged image: where it stands, its name, its digest if one is proven, and the entry that applied.
fn images(images: &[ImageVerdict]) -> String {
    let mut text = String::new();
    for image in images {
        let digest = image.proven().map_or_else(|| "-".to_owned(), |proven| proven.digest().to_string());
        let entry = image.entry.as_ref();
        let entry =
            entry.map_or_else(|| "-".to_owned(), |entry| format!("{}, entry {}", entry.policy(), entry.position));
        let place = (shown(&image.image.path), shown(&image.image.image));
        let line = format!("{} {} {} {digest} [{}]", place.0, place.1, image_verdict(image), shown(&entry));
        if text.len() + line.len() > MAX_AUDIT {
            text.push('…');
            break;
        }
        text = if text.is_empty() { line } else { format!("{text}\n{line}") };
    }
    text
}

/// The causes of a decision's denial.
fn causes(decision: &Decision) -> Vec<DenialCause> {
    let mut causes: Vec<_> = decision.verdict.denied().map(countersign_policy::DenyReason::cause).collect();
    causes.extend(decision.whole.as_ref().map(|whole| whole.cause));
    causes.sort_unstable();
    causes.dedup();
    causes
}
