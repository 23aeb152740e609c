//! `POST /admit`, `POST /validate` and `POST /policies`: from a review's bytes to its answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request as HttpRequest, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use countersign_policy::verdict::shown;
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use serde_json::Value;
use serde_json::value::RawValue;
use tracing::{error, info, warn};

use crate::gate::{Decision, Gate, Webhook};
use crate::metrics::{Outcome, SharedMetrics};
use crate::policy_review;
use crate::review::{Answer, Request, Review};

/// The largest review that is read: an object in etcd has at most 1.5 MiB, and a review may hold two of them in an encoding
/// that escapes much.
const MAX_BODY_BYTES: usize = 16 << 20;

/// How much of a body that is too large is read all the same, and thrown away.
const MAX_DISCARDED_BYTES: usize = 4 * MAX_BODY_BYTES;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers reviews.
#[derive(Debug)]
pub struct Reviewer {
    /// Decides.
    pub gate: Gate,
    /// What is counted.
    pub metrics: SharedMetrics,
}

/// The routes of the webhooks.
pub fn router(reviewer: Arc<Reviewer>) -> Router {
    Router::new()
        .route("/admit", post(async |state, request| answer(Webhook::Mutate, state, request).await))
        .route("/validate", post(async |state, request| answer(Webhook::Validate, state, request).await))
        .route("/policies", post(policies))
        .with_state(reviewer)
}

async fn answer(webhook: Webhook, State(reviewer): State<Arc<Reviewer>>, request: HttpRequest<Body>) -> Response {
    let started = Instant::now();
    let body = match read_in_time(request).await {
        Ok(body) => body,
        Err(problem) => return reviewer.refuse(webhook.label(), started, problem),
    };
    let review = match Review::parse(&body) {
        Ok(review) => review,
        Err(problem) => return reviewer.refuse(webhook.label(), started, problem.to_string()),
    };
    // A fault of ours is a denial with a cause, not a broken connection that the failure policy decides about.
    let decided = AssertUnwindSafe(reviewer.gate.decide(webhook, &review.request)).catch_unwind().await;
    let decision = decided.unwrap_or_else(|_| {
        error!(uid = ?review.request.uid, "a review ended in a panic");
        let fault = Decision::denied("could not be decided because of a fault in Countersign".to_owned());
        Decision { undecided: true, ..fault }
    });
    for reason in decision.verdict.denied() {
        reviewer.metrics.denied_image(reason.label());
    }
    let (outcome, answer) = reviewer.gate.answer(webhook, decision);
    reviewer.finish(webhook.label(), started, &review, outcome, &answer)
}

/// The name of the webhook for policies in logs and metrics.
const POLICIES: &str = "policies";

async fn policies(State(reviewer): State<Arc<Reviewer>>, request: HttpRequest<Body>) -> Response {
    let started = Instant::now();
    let body = match read_in_time(request).await {
        Ok(body) => body,
        Err(problem) => return reviewer.refuse(POLICIES, started, problem),
    };
    let review = match Review::parse(&body) {
        Ok(review) => review,
        Err(problem) => return reviewer.refuse(POLICIES, started, problem.to_string()),
    };
    let read = |object: Option<&RawValue>| object.and_then(|object| serde_json::from_str::<Value>(object.get()).ok());
    let request = &review.request;
    let mut answer = Answer::default();
    if matches!(request.operation.as_str(), "CREATE" | "UPDATE") {
        let object = read(request.object).unwrap_or_default();
        match policy_review::review_write(&object, read(request.old_object).as_ref()) {
            Ok(warnings) => answer.warnings = warnings,
            Err(message) => {
                answer.reason = Some(message.clone());
                answer.denied = Some(message);
            }
        }
    }
    let outcome = if answer.denied.is_some() { Outcome::Denied } else { Outcome::Unchecked };
    reviewer.finish(POLICIES, started, &review, outcome, &answer)
}

impl Reviewer {
    /// Answers a request that is no review.
    fn refuse(&self, webhook: &'static str, started: Instant, problem: String) -> Response {
        self.metrics.review(webhook, Outcome::BadRequest, started.elapsed().as_secs_f64());
        warn!(webhook, problem = %shown(&problem), "refused a request that is no review");
        (StatusCode::BAD_REQUEST, problem + "\n").into_response()
    }

    /// Counts, logs and answers a review.
    fn finish(
        &self,
        webhook: &'static str,
        started: Instant,
        review: &Review<'_>,
        outcome: Outcome,
        answer: &Answer,
    ) -> Response {
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.review(webhook, outcome, seconds);
        log(webhook, &review.request, outcome, answer, seconds);
        ([(header::CONTENT_TYPE, "application/json")], review.answer(answer)).into_response()
    }
}

async fn read_in_time(request: HttpRequest<Body>) -> Result<Vec<u8>, String> {
    let read = tokio::time::timeout(BODY_TIMEOUT, read_body(request.into_body())).await;
    read.unwrap_or_else(|_| Err("the body did not arrive in time".to_owned()))
}

/// Reads a body. What is too large is read on for a while and thrown away, as a client that is still sending may not look
/// at an answer.
async fn read_body(mut body: Body) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "the body broke off".to_owned())?;
        if let Ok(data) = frame.into_data() {
            length += data.len();
            if length <= MAX_BODY_BYTES {
                bytes.extend_from_slice(&data);
            } else if length > MAX_DISCARDED_BYTES {
                break;
            }
        }
    }
    if length > MAX_BODY_BYTES {
        return Err(format!("the body is larger than {} MiB", MAX_BODY_BYTES >> 20));
    }
    Ok(bytes)
}

/// One line a decision. Texts of users stand in quotes and escaped, so that none of them can pass for another line.
fn log(webhook: &'static str, request: &Request<'_>, outcome: Outcome, answer: &Answer, seconds: f64) {
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
        seconds,
        "review"
    );
}
