//! What is written down of a decision: a line in the log, metrics, and annotations in the audit log of the API server.

use countersign_image::shown;
use tracing::info;

use crate::admission_review::{Answer, Request};
use crate::decision::{Decision, ReviewOutcome, Webhook};
use crate::metrics::SharedMetrics;

/// Writes down what was decided.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    metrics: SharedMetrics,
}

/// A review that was answered.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// Which webhook was asked, as logs and metrics name it.
    pub(crate) webhook: &'static str,
    /// What it was asked.
    pub(crate) request: &'a Request<'a>,
    /// What it came to.
    pub(crate) outcome: ReviewOutcome,
    /// What was answered.
    pub(crate) answer: &'a Answer,
    /// How long it took.
    pub(crate) seconds: f64,
}

impl Journal {
    /// Counts in these metrics.
    #[must_use]
    pub(crate) fn new(metrics: SharedMetrics) -> Self {
        Self { metrics }
    }

    /// Counts what the images of an object came to.
    pub(crate) fn images(&self, decision: &Decision) {
        for reason in decision.verdict.denied() {
            self.metrics.denied_image(reason.label());
        }
        for warning in decision.verdict.warnings() {
            self.metrics.alternative(warning.1.label());
        }
    }

    /// Counts a request that is no review.
    pub(crate) fn bad_request(&self, webhook: &'static str, seconds: f64) {
        self.metrics.review(webhook, ReviewOutcome::BadRequest.label(), seconds);
    }

    /// Counts a review, and writes one line of it. Texts of users stand in quotes and escaped, so that none of them can pass for
    /// another line.
    pub(crate) fn review(&self, record: &Record<'_>) {
        let Record { webhook, request, outcome, answer, seconds } = record;
        self.metrics.review(webhook, outcome.label(), *seconds);
        info!(
            webhook,
            outcome = outcome.label(),
            operation = ?shown(&request.operation),
            kind = ?shown(&request.kind.kind),
            sub_resource = ?shown(request.sub_resource.as_deref().unwrap_or_default()),
            namespace = ?shown(request.namespace.as_deref().unwrap_or_default()),
            name = ?shown(request.name.as_deref().unwrap_or_default()),
            user = ?shown(&request.user_info.username),
            uid = ?shown(&request.uid),
            dry_run = request.dry_run.unwrap_or_default(),
            pinned = answer.patch.is_some(),
            reason = ?answer.reason.as_deref().unwrap_or_default(),
            signed_by = ?shown(&answer.signed_by),
            seconds,
            "review"
        );
    }
}

/// The audit annotations of a decision. The names of the validating webhook differ, as the API server keeps both.
pub(crate) fn annotations(
    webhook: Webhook,
    outcome: ReviewOutcome,
    denied: Option<&str>,
) -> Vec<(&'static str, String)> {
    let (verdict, reason) = match webhook {
        Webhook::Mutate => ("verdict", "reason"),
        Webhook::Validate => ("validate-verdict", "validate-reason"),
    };
    let denied = denied.map(|message| (reason, message.to_owned()));
    std::iter::once((verdict, outcome.label().to_owned())).chain(denied).collect()
}
