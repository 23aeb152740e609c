//! `POST /admit`: from a review's bytes to its answer.

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
use countersign_policy::workload::changed_images;
use countersign_policy::{Kinds, Outcome as ImageOutcome, Verdict, Workload, patch};
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use serde_json::Value;
use serde_json::value::RawValue;
use tracing::{error, info, warn};

use crate::config::Mode;
use crate::enforce::Engine;
use crate::metrics::{Outcome, SharedMetrics};
use crate::review::{Answer, Request, Review};

/// The largest review that is read: an object in etcd has at most 1.5 MiB, and a review may hold two of them in an encoding
/// that escapes much.
const MAX_BODY_BYTES: usize = 16 << 20;

/// How much of a body that is too large is read all the same, and thrown away.
const MAX_DISCARDED_BYTES: usize = 4 * MAX_BODY_BYTES;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Decides about reviews.
#[derive(Debug)]
pub struct Reviewer {
    /// Decides about images.
    pub engine: Engine,
    /// Which kinds hold a pod spec.
    pub kinds: Kinds,
    /// Users whose children of reviewed workloads are not verified again.
    pub trusted_controllers: Vec<String>,
    /// Whether children are verified all the same.
    pub verify_children: bool,
    /// What is done with workloads that are denied.
    pub mode: Mode,
    /// What is counted.
    pub metrics: SharedMetrics,
}

/// The route of the webhook.
pub fn router(reviewer: Arc<Reviewer>) -> Router {
    Router::new().route("/admit", post(admit)).with_state(reviewer)
}

async fn admit(State(reviewer): State<Arc<Reviewer>>, request: HttpRequest<Body>) -> Response {
    let started = Instant::now();
    let refuse = |problem: String| {
        reviewer.metrics.review(Outcome::BadRequest, started.elapsed().as_secs_f64());
        warn!(problem = %shown(&problem), "refused a request that is no review");
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
    // A fault of ours is a denial with a cause, not a broken connection that the failure policy decides about.
    let decided = AssertUnwindSafe(reviewer.decide(&review.request)).catch_unwind().await;
    let decision = decided.unwrap_or_else(|_| {
        error!(uid = ?review.request.uid, "a review ended in a panic");
        Decision::denied("could not be decided because of a fault in Countersign".to_owned(), Outcome::Undecided)
    });
    let (outcome, answer) = reviewer.answer(decision);
    let seconds = started.elapsed().as_secs_f64();
    reviewer.metrics.review(outcome, seconds);
    log(&review.request, outcome, &answer, seconds);
    ([(header::CONTENT_TYPE, "application/json")], review.answer(&answer)).into_response()
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

/// What is to be said, before the mode is looked at.
struct Decision {
    outcome: Outcome,
    denied: Option<String>,
    patch: Option<Vec<u8>>,
    verdict: Verdict,
}

impl Decision {
    fn unchecked() -> Self {
        Self { outcome: Outcome::Unchecked, denied: None, patch: None, verdict: Verdict::default() }
    }

    fn denied(message: String, outcome: Outcome) -> Self {
        Self { outcome, denied: Some(message), patch: None, verdict: Verdict::default() }
    }
}

impl Reviewer {
    async fn decide(&self, request: &Request<'_>) -> Decision {
        match request.operation.as_str() {
            "DELETE" | "CONNECT" => return Decision::unchecked(),
            "CREATE" | "UPDATE" => {}
            other => {
                let message = format!("the operation \"{}\" is not known", shown(other));
                return Decision::denied(message, Outcome::Denied);
            }
        }
        let (object, workload) = match self.workload(request, request.object) {
            Ok(found) => found,
            Err(message) => return Decision::denied(message, Outcome::Denied),
        };
        let mut images = workload.images.clone();
        if request.operation == "UPDATE" {
            // An old object that cannot be read excuses nothing: then every image is looked at.
            if let Ok((_, old)) = self.workload(request, request.old_object) {
                images = changed_images(&old, &workload);
            }
        }
        if images.is_empty() || self.is_reviewed_child(request, &object) {
            return Decision::unchecked();
        }
        let Some(namespace) = request.namespace.as_deref().filter(|namespace| !namespace.is_empty()) else {
            let message = "the review names no namespace, so no policy can be found for it".to_owned();
            return Decision::denied(message, Outcome::Denied);
        };
        let verdict = self.engine.judge(namespace, &workload, &images).await;
        if verdict.allowed() {
            let proven = verdict.images.iter().any(|image| matches!(image.outcome, ImageOutcome::Proven(_)));
            let outcome = if proven { Outcome::Verified } else { Outcome::Unchecked };
            return Decision { outcome, denied: None, patch: patch::patch(&verdict), verdict };
        }
        let undecided = verdict.denied().all(countersign_policy::DenyReason::is_undecided);
        let outcome = if undecided { Outcome::Undecided } else { Outcome::Denied };
        Decision { outcome, denied: Some(verdict.message()), patch: None, verdict }
    }

    /// The object of a request and its images.
    fn workload(&self, request: &Request<'_>, object: Option<&RawValue>) -> Result<(Value, Workload), String> {
        let kind = shown(&request.kind.kind);
        let object = object.ok_or_else(|| format!("the review of a {kind} has no object"))?;
        let object: Value = serde_json::from_str(object.get())
            .map_err(|error| format!("the {kind} in the review cannot be read: {error}"))?;
        let workload = self.kinds.workload(&request.kind.group, &request.kind.kind, &object);
        workload
            .map(|workload| (object, workload))
            .map_err(|error| format!("the images of the {kind} cannot be told: {}", shown(&error.to_string())))
    }

    /// Whether the object is the child of a workload that was reviewed itself. An owner reference proves nothing, since any
    /// user can write one; only that the cluster's own controllers ask does.
    fn is_reviewed_child(&self, request: &Request<'_>, object: &Value) -> bool {
        if self.verify_children || !self.trusted_controllers.contains(&request.user_info.username) {
            return false;
        }
        let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        owners.into_iter().flatten().any(|owner| {
            let text = |member: &str| owner.get(member).and_then(Value::as_str).unwrap_or_default();
            let group = text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
            owner.get("controller") == Some(&Value::Bool(true)) && self.kinds.is_known(group, text("kind"))
        })
    }

    /// The answer that the mode makes of a decision, and what is counted for it.
    fn answer(&self, decision: Decision) -> (Outcome, Answer) {
        for reason in decision.verdict.denied() {
            self.metrics.denied_image(reason.label());
        }
        let mut answer = Answer { patch: decision.patch, ..Answer::default() };
        let Some(message) = decision.denied else {
            answer.audit.push(("verdict", decision.outcome.label().to_owned()));
            return (decision.outcome, answer);
        };
        answer.audit.push(("verdict", decision.outcome.label().to_owned()));
        answer.audit.push(("reason", message.clone()));
        match self.mode {
            Mode::Enforce => {
                answer.denied = Some(message);
                (decision.outcome, answer)
            }
            Mode::Warn => {
                answer.warnings = message.lines().map(str::to_owned).collect();
                (Outcome::Tolerated, answer)
            }
            Mode::Audit => (Outcome::Tolerated, answer),
        }
    }
}

/// One line a decision. Texts of users stand in quotes and escaped, so that none of them can pass for another line.
fn log(request: &Request<'_>, outcome: Outcome, answer: &Answer, seconds: f64) {
    let reason = answer.audit.iter().find(|(name, _)| *name == "reason").map(|(_, reason)| reason.as_str());
    info!(
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
        reason = ?reason.unwrap_or_default(),
        seconds,
        "review"
    );
}
