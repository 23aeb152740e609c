//! `POST /admit`, `POST /validate` (each with `/enforced` behind it for namespaces that enforce) and `POST /policies`: from a review's bytes, of which there is a most, to its answer.

use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::http::{Request as HttpRequest, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use countersign_policy::DenialCause;
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tracing::{error, warn};

use super::answer::AnswerBody;
use super::bodies::{Bodies, NoRoom, Room, SMALL};
use super::bytes::Bytes;
use super::seats::Seat;
use crate::admission_review::{Answer, Request, Review};
use crate::decision::{Call, Decision, POLICIES_PATH, Webhook};
use crate::gate::{Gate, Submitted};
use crate::journal::{Journal, Record};
use crate::metrics::SharedMetrics;
use crate::policy_review;
use crate::reading;

/// The largest review that is read: an object in etcd has at most 1.5 MiB, and a review may hold two of them. API servers write some
/// characters with six bytes, so a review may be larger all the same, if somebody means it to; then it is answered by its head.
const MAX_BODY_BYTES: usize = 16 << 20;

/// The largest review of a policy that is read: the API server takes 3 MiB from a user, and the policy that is there already has
/// at most 1.5 MiB. All of a policy is looked at, so it takes much more in memory than other objects.
const MAX_POLICY_BYTES: usize = 6 << 20;

/// How much of a body that is too large is read all the same, and thrown away.
const MAX_DISCARDED_BYTES: usize = 4 * MAX_BODY_BYTES;

/// How much is kept of the beginning of a body, which says who asks and for what, in case that the whole is too large.
const MAX_HEAD: usize = 16 << 10;

/// How long a body may take to arrive, once there is room for it.
const BODY_TIMEOUT: Duration = Duration::from_secs(6);

/// How many large bodies are read at once: to tell what is in them takes a processor, and some times their size.
const LARGE_READERS: usize = 2;

/// From how many bytes on the images of a review, and its answer, have room while it is judged: some hundred images.
const MUCH: usize = 16 << 10;

/// Answers reviews.
#[derive(Debug)]
pub(crate) struct Reviewer {
    gate: Gate,
    journal: Journal,
    metrics: SharedMetrics,
    bodies: Bodies,
    readers: Semaphore,
}

impl Reviewer {
    /// Answers what the gate decides, and writes it down.
    #[must_use]
    pub(crate) fn new(gate: Gate, journal: Journal, metrics: SharedMetrics) -> Arc<Self> {
        let readers = Semaphore::new(LARGE_READERS);
        Arc::new(Self { gate, journal, metrics, bodies: Bodies::default(), readers })
    }

    /// Brings the metrics of room for bodies up to date.
    pub(crate) fn refresh_metrics(&self) {
        self.metrics.bodies(self.bodies.used());
    }

    /// Another body lost its room.
    fn count_behind(&self) {
        self.metrics.body_refused("behind");
    }

    fn count_no_room(&self, problem: NoRoom) -> (StatusCode, String) {
        self.metrics.body_refused(problem.label());
        (StatusCode::SERVICE_UNAVAILABLE, problem.to_string())
    }
}

/// What is asked for a review: each has a path of its own.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// Of an object that holds a pod spec.
    Gate(Call),
    /// Of a policy.
    Policies,
}

impl Asked {
    /// As logs and metrics name it.
    fn label(self) -> &'static str {
        match self {
            Self::Gate(call) => call.webhook.label(),
            Self::Policies => "policies",
        }
    }

    fn max_body_bytes(self) -> usize {
        match self {
            Self::Gate(_) => MAX_BODY_BYTES,
            Self::Policies => MAX_POLICY_BYTES,
        }
    }
}

/// The routes of the webhooks.
pub(crate) fn router(reviewer: Arc<Reviewer>) -> Router {
    let route = |asked| post(async move |state, request| answer(asked, state, request).await);
    let mut router = Router::new().route(POLICIES_PATH, route(Asked::Policies));
    for webhook in [Webhook::Mutate, Webhook::Validate] {
        for enforced in [false, true] {
            let call = Call { webhook, enforced };
            router = router.route(call.path(), route(Asked::Gate(call)));
        }
    }
    router.with_state(reviewer)
}

async fn answer(asked: Asked, State(reviewer): State<Arc<Reviewer>>, request: HttpRequest<Body>) -> Response {
    let started = Instant::now();
    let webhook = asked.label();
    let seat = request.extensions().get::<Arc<Seat>>().cloned();
    // Its head may be large, and nobody needs it any more.
    let body = request.into_body();
    let (review, asking, room) = match reviewer.read(asked, body, seat.as_ref()).await {
        Ok(read) => read,
        Err((status, problem)) => {
            reviewer.journal.bad_request(webhook, started.elapsed());
            warn!(webhook, problem = ?problem, "refused a request that is no review");
            return (status, problem + "\n").into_response();
        }
    };
    let read = started.elapsed();
    let (decision, answer) = match asking {
        Asking::Object(call, submitted) => reviewer.decide(call, &review.request, submitted).await,
        Asking::Policy(reviewed) => policy_answer(reviewed),
        Asking::Unread(call, cause, problem) => {
            let decision = reviewer.gate.unread(call, &review.request, cause, problem).await;
            let answer = reviewer.gate.answer(call.webhook, &decision);
            (decision, answer)
        }
    };
    let bytes = review.answer(&answer);
    let (pinned, total) = (answer.patch.is_some(), started.elapsed());
    reviewer.journal.review(&Record { webhook, request: &review.request, decision: &decision, pinned, read, total });
    drop((review, answer, decision));
    let body = match reviewer.answer_body(bytes, room, seat).await {
        Ok(body) => body,
        Err((status, problem)) => return (status, problem + "\n").into_response(),
    };
    ([(header::CONTENT_TYPE, "application/json")], Body::new(body)).into_response()
}

/// What a review comes to before anybody is asked.
enum Asking {
    /// It is about an object that holds a pod spec.
    Object(Call, Submitted),
    /// It is about a policy: the warnings, or the message of the denial.
    Policy(Result<Vec<String>, String>),
    /// There is no room to judge it, or it is too large to be read at all. That is a decision: where the API server admits what is not
    /// answered, somebody who takes all room, or makes an object large, must not have anything admitted by that.
    Unread(Call, DenialCause, String),
}

/// What was read of a body, with the room that it takes while it is judged, if it is.
type Read = (Review<'static>, Asking, Option<Room>);

impl Reviewer {
    /// The body of an answer, with room until the client has taken it: that of the review, if it is enough.
    async fn answer_body(
        &self,
        bytes: Vec<u8>,
        room: Option<Room>,
        seat: Option<Arc<Seat>>,
    ) -> Result<AnswerBody, (StatusCode, String)> {
        if bytes.len() <= MUCH {
            return Ok(AnswerBody::small(bytes));
        }
        if let Some(room) = room.and_then(|room| room.for_answer(bytes.len())) {
            return Ok(AnswerBody::in_room(bytes, room, seat));
        }
        let (source, size) = (source_of(seat.as_ref()), bytes.len().max(SMALL + 1));
        let room = self.bodies.room(source, size, || self.count_behind()).await;
        let room = room.map_err(|problem| self.count_no_room(problem))?;
        Ok(AnswerBody::in_room(bytes, room, seat))
    }

    /// Reads a review, and lets go of its text.
    async fn read(
        self: &Arc<Self>,
        asked: Asked,
        body: Body,
        seat: Option<&Arc<Seat>>,
    ) -> Result<Read, (StatusCode, String)> {
        let source = source_of(seat);
        let most = asked.max_body_bytes();
        // API servers always say how long it is; who does not say it may send as much as is read at all.
        let length = body.size_hint().exact().map_or(most, |length| usize::try_from(length).unwrap_or(usize::MAX));
        let short = || self.count_behind();
        let no_room = |problem| self.count_no_room(problem);
        let room = self.bodies.room(source, length.min(most), short).await.map_err(no_room)?;
        let body = {
            // As long as it comes, it is the client that is waited for.
            let _awaited = seat.map(|seat| seat.body(Instant::now()));
            let mut reading = std::pin::pin!(read_body(body, length, most, &room));
            // Most bodies are there already, and need no timer.
            if let Some(body) = reading.as_mut().now_or_never() {
                body
            } else {
                tokio::select! {
                    body = tokio::time::timeout(BODY_TIMEOUT, reading) => body.unwrap_or_else(|_| Err(late("in time"))),
                    () = room.lost() => Err(late("while others waited for the room that it takes")),
                }
            }
        }?;
        let body = match body {
            Arrived::Whole(body) => body,
            Arrived::TooLarge(head) => {
                let problem = format!(
                    "the review of the object is larger than {} MiB, so nobody looked at its images; make the object smaller",
                    most >> 20
                );
                let review = Review::parse_head(&head).map(Review::without_objects);
                return match (review, asked) {
                    (Ok(review), Asked::Gate(call)) => {
                        Ok((review, Asking::Unread(call, DenialCause::UnreadableObject, problem), None))
                    }
                    _ => Err((StatusCode::BAD_REQUEST, format!("the body is larger than {} MiB", most >> 20))),
                };
            }
        };
        let large = body.len() > SMALL;
        let reviewer = Arc::clone(self);
        let read = move || {
            let review = Review::parse(&body).map_err(|problem| (StatusCode::BAD_REQUEST, problem.to_string()))?;
            let asking = match asked {
                Asked::Gate(call) => Asking::Object(call, reviewer.gate.read(&review.request)),
                Asked::Policies => Asking::Policy(review_policy(&review.request)),
            };
            Ok((review.without_objects(), asking))
        };
        let (review, asking) = if large {
            // Small ones need not wait for a thread.
            let _turn = self.readers.acquire().await;
            let broken = |_| (StatusCode::INTERNAL_SERVER_ERROR, "the reading of the body broke off".to_owned());
            tokio::task::spawn_blocking(read).await.map_err(broken)??
        } else {
            read()?
        };
        let kept = match &asking {
            // The answer names each image once more.
            Asking::Object(_, submitted) => 2 * submitted.size(),
            Asking::Policy(_) | Asking::Unread(..) => 0,
        };
        room.shrink(kept);
        let room = if kept <= MUCH {
            room
        } else {
            drop(room);
            let namespace = review.request.namespace.as_deref().unwrap_or_default();
            match self.bodies.judged(source, namespace, kept, short).await {
                Ok(room) => {
                    room.shrink(kept);
                    room
                }
                Err(problem) => {
                    let (status, problem) = self.count_no_room(problem);
                    let Asking::Object(call, _) = asking else { return Err((status, problem)) };
                    return Ok((review, Asking::Unread(call, DenialCause::Busy, problem), None));
                }
            }
        };
        Ok((review, asking, Some(room)))
    }

    /// Asks the gate. A fault of ours is a denial with a cause, not a broken connection that the failure policy decides about.
    async fn decide(&self, call: Call, request: &Request<'_>, submitted: Submitted) -> (Decision, Answer) {
        let decided = AssertUnwindSafe(self.gate.decide(call, request, submitted)).catch_unwind().await;
        let decision = if let Ok(decision) = decided {
            decision
        } else {
            error!(uid = ?request.uid, "a review ended in a panic");
            self.gate.fault(call, request).await
        };
        let answer = self.gate.answer(call.webhook, &decision);
        (decision, answer)
    }
}

/// Reviews the write of a policy. An old one that cannot be read is another one.
fn review_policy(request: &Request<'_>) -> Result<Vec<String>, String> {
    if !matches!(request.operation.as_str(), "CREATE" | "UPDATE") {
        return Ok(Vec::new());
    }
    let read = |object: Option<&str>| object.map(reading::read_all).transpose();
    let object = read(request.object).map_err(|problem| format!("the policy cannot be read: {problem}"))?;
    policy_review::review_write(&object.unwrap_or_default(), read(request.old_object).unwrap_or_default().as_ref())
}

fn policy_answer(reviewed: Result<Vec<String>, String>) -> (Decision, Answer) {
    match reviewed {
        Ok(warnings) => (Decision::default(), Answer { warnings, ..Answer::default() }),
        Err(message) => {
            let answer = Answer { denied: Some(message.clone()), ..Answer::default() };
            (Decision::denied(DenialCause::PolicyUnusable, message), answer)
        }
    }
}

fn source_of(seat: Option<&Arc<Seat>>) -> IpAddr {
    seat.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |seat| seat.source())
}

fn late(how: &str) -> (StatusCode, String) {
    (StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive {how}"))
}

/// What arrived of a body.
enum Arrived {
    /// All of it.
    Whole(Bytes),
    /// How it begins. It is larger than what is read.
    TooLarge(Vec<u8>),
}

/// Reads a body. What is too large is read on for a while and thrown away, as a client that is still sending may not look
/// at an answer.
async fn read_body(mut body: Body, length: usize, most: usize, room: &Room) -> Result<Arrived, (StatusCode, String)> {
    let no_memory = |_| (StatusCode::SERVICE_UNAVAILABLE, "there is no memory for the body; try again".to_owned());
    let mut bytes = Bytes::with_room(length.min(most)).map_err(no_memory)?;
    let (mut arrived, mut fits) = (0, length <= most);
    let mut head = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| (StatusCode::BAD_REQUEST, "the body broke off".to_owned()))?;
        if let Ok(data) = frame.into_data() {
            arrived += data.len();
            room.arrived(arrived, Instant::now());
            let left = MAX_HEAD - head.len();
            head.extend_from_slice(&data[..data.len().min(left)]);
            fits = fits && bytes.add(&data);
            if !fits && arrived > MAX_DISCARDED_BYTES {
                break;
            }
        }
    }
    Ok(if fits { Arrived::Whole(bytes) } else { Arrived::TooLarge(head) })
}
