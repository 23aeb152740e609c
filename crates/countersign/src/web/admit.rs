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

/// What is asked for a review: each has a path of its own.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// Of an object that holds a pod spec.
    Gate(Webhook),
    /// Of a policy.
    Policies,
}

impl Asked {
    /// As logs and metrics name it.
    fn label(self) -> &'static str {
        match self {
            Self::Gate(webhook) => webhook.label(),
            Self::Policies => "policies",
        }
    }
}

/// The routes of the webhooks.
pub fn router(reviewer: Arc<Reviewer>) -> Router {
    let route = |asked| post(async move |state, request| answer(asked, state, request).await);
    Router::new()
        .route("/admit", route(Asked::Gate(Webhook::Mutate)))
        .route("/validate", route(Asked::Gate(Webhook::Validate)))
        .route("/policies", route(Asked::Policies))
        .with_state(reviewer)
}

async fn answer(asked: Asked, State(reviewer): State<Arc<Reviewer>>, request: HttpRequest<Body>) -> Response {
    let started = Instant::now();
    let webhook = asked.label();
    let refuse = |problem: String| {
        reviewer.metrics.review(webhook, Outcome::BadRequest, started.elapsed().as_secs_f64());
        warn!(webhook, problem = %shown(&problem), "refused a request that is no review");
        (StatusCode::BAD_REQUEST, problem + "\n").into_response()
    };
    let body = match tokio::time::timeout(BODY_TIMEOUT, read_body(request.into_body())).await {
        Ok(Ok(body)) => body,
        Ok(Err(problem)) => return refuse(problem),
        Err(_) => return refuse("the body did not arrive in time".to_owned()),
    };
    let review = match Review::parse(&body) {
        Ok(review) => review,
        Err(problem) => return refuse(problem.to_string()),
    };
    let (outcome, answer) = match asked {
        Asked::Gate(webhook) => reviewer.decide(webhook, &review.request).await,
        Asked::Policies => review_policy(&review.request),
    };
    let seconds = started.elapsed().as_secs_f64();
    reviewer.metrics.review(webhook, outcome, seconds);
    log(webhook, &review.request, outcome, &answer, seconds);
    ([(header::CONTENT_TYPE, "application/json")], review.answer(&answer)).into_response()
}

impl Reviewer {
    /// Asks the gate. A fault of ours is a denial with a cause, not a broken connection that the failure policy decides about.
    async fn decide(&self, webhook: Webhook, request: &Request<'_>) -> (Outcome, Answer) {
        let decided = AssertUnwindSafe(self.gate.decide(webhook, request)).catch_unwind().await;
        let decision = decided.unwrap_or_else(|_| {
            error!(uid = ?request.uid, "a review ended in a panic");
            let fault = Decision::denied("could not be decided because of a fault in Countersign".to_owned());
            Decision { undecided: true, ..fault }
        });
        for reason in decision.verdict.denied() {
            self.metrics.denied_image(reason.label());
        }
        self.gate.answer(webhook, decision)
    }
}

/// Reviews the write of a policy.
fn review_policy(request: &Request<'_>) -> (Outcome, Answer) {
    let read = |object: Option<&RawValue>| object.and_then(|object| serde_json::from_str::<Value>(object.get()).ok());
    if !matches!(request.operation.as_str(), "CREATE" | "UPDATE") {
        return (Outcome::Unchecked, Answer::default());
    }
    let object = read(request.object).unwrap_or_default();
    match policy_review::review_write(&object, read(request.old_object).as_ref()) {
        Ok(warnings) => (Outcome::Unchecked, Answer { warnings, ..Answer::default() }),
        Err(message) => {
            let answer = Answer { denied: Some(message.clone()), reason: Some(message), ..Answer::default() };
            (Outcome::Denied, answer)
        }
    }
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
