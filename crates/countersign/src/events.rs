//! Kubernetes Events for denials, for what would have been denied, and for glass that was broken: on the controller that owns the object,
//! else on the namespace.
//!
//! They are written after the review is answered. What somebody can cause by reviews is bounded: the same Event is counted up instead of
//! written anew, each namespace may have so many a minute, and Events beyond that are dropped and counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_image::{Sha256, shown};
use countersign_remote::Clock;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use crate::admission_review::Request;
use crate::cluster;
use crate::decision::{Answered, Decision, Excuse};
use crate::install::NAME;
use crate::metrics::SharedMetrics;

/// How many wait to be written.
const MAX_WAITING: usize = 256;

/// How many Events are remembered, to count them up.
const MAX_REMEMBERED: usize = 1024;

/// How many requests for Events of one namespace may be made at once, and how long it takes until there may be one more.
const OF_NAMESPACE: (u32, Duration) = (20, Duration::from_secs(10));

/// For how long an Event is only counted after it was written, before its count is written again.
const COUNTED: Duration = Duration::from_secs(30);

/// For how long an Event is counted up; after that it is written anew.
const SAME: Duration = Duration::from_secs(600);

/// How many bytes a message may have.
const MAX_MESSAGE: usize = 1024;

/// How many requests are made a second, at most.
const PAUSE: Duration = Duration::from_millis(100);

/// How long names of objects may be.
const MAX_NAME: usize = 253;

/// The reason of an Event that tells of broken glass.
const BREAK_GLASS: &str = "BreakGlass";

/// What an Event is about, and what it says: what is equal in all of it is the same Event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Told {
    namespace: String,
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    reason: &'static str,
    message: String,
}

/// Tells a cluster what was denied.
#[derive(Debug)]
pub(crate) struct Events {
    waiting: mpsc::Sender<Told>,
    shares: Waiting,
    metrics: SharedMetrics,
}

/// How many Events wait to be written, by whose share they count for: nobody's take the place of others'.
#[derive(Debug, Clone, Default)]
struct Waiting(Arc<Mutex<HashMap<(String, bool), u32>>>);

impl Waiting {
    fn shares(&self) -> MutexGuard<'_, HashMap<(String, bool), u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more may wait.
    fn begin(&self, share: (String, bool)) -> bool {
        let mut shares = self.shares();
        let waiting = shares.entry(share).or_default();
        let may = *waiting < OF_NAMESPACE.0;
        *waiting += u32::from(may);
        may
    }

    fn end(&self, share: &(String, bool)) {
        let mut shares = self.shares();
        if let Some(waiting) = shares.get_mut(share) {
            *waiting -= 1;
            if *waiting == 0 {
                shares.remove(share);
            }
        }
    }
}

impl Events {
    /// Begins to write what is told.
    #[must_use]
    pub(crate) fn start(client: Client, clock: Clock, metrics: SharedMetrics) -> Self {
        let (waiting, told) = mpsc::channel(MAX_WAITING);
        let shares = Waiting::default();
        let writer =
            Writer { client, clock, metrics: metrics.clone(), remembered: HashMap::new(), shares: HashMap::new() };
        tokio::spawn(writer.run(told, shares.clone()));
        Self { waiting, shares, metrics }
    }

    /// Tells of a decision whose denial is `denial`. It never waits.
    pub(crate) fn tell(&self, request: &Request<'_>, decision: &Decision, denial: &str) {
        let Some(told) = Told::of(request, decision, denial) else { return };
        let share = told.share();
        if !self.shares.begin(share.clone()) {
            self.metrics.event("dropped");
        } else if self.waiting.try_send(told).is_err() {
            self.shares.end(&share);
            self.metrics.event("dropped");
        }
    }
}

impl Told {
    fn of(request: &Request<'_>, decision: &Decision, denial: &str) -> Option<Self> {
        let namespace = request.namespace.clone().filter(|name| cluster::is_object_name(name))?;
        let owner = decision.owner.as_ref().filter(|owner| {
            let short = |text: &str| !text.is_empty() && text.len() <= MAX_NAME;
            cluster::is_object_name(&owner.name)
                && owner.kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
                && [&owner.kind, &owner.api_version, &owner.uid].iter().all(|text| short(text))
        });
        let (api_version, kind, name, uid) = match owner {
            Some(owner) => (owner.api_version.clone(), owner.kind.clone(), owner.name.clone(), owner.uid.clone()),
            None => ("v1".to_owned(), "Namespace".to_owned(), namespace.clone(), String::new()),
        };
        let object = match request.name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => format!("{} {}", shown(&request.kind.kind), shown(name)),
            None => shown(&request.kind.kind),
        };
        let user = shown(&request.user_info.username);
        let (reason, message) = match (decision.answered(), &decision.excuse) {
            (Answered::BreakGlass, Some(Excuse::BreakGlass(why))) => {
                (BREAK_GLASS, format!("{user} had {object} admitted by break glass ({}): {denial}", shown(why)))
            }
            _ if !decision.admits() => ("ImageDenied", format!("{object}: {denial}")),
            _ => ("ImageWouldBeDenied", format!("{object}: {denial}")),
        };
        let message = message[..message.floor_char_boundary(MAX_MESSAGE)].to_owned();
        Some(Self { namespace, api_version, kind, name, uid, reason, message })
    }

    /// Whose share it counts for: that somebody broke the glass has one of its own in each namespace, so that no denials hide it.
    fn share(&self) -> (String, bool) {
        (self.namespace.clone(), self.reason == BREAK_GLASS)
    }
}

/// An Event that was written.
#[derive(Debug)]
struct Written {
    name: String,
    first: Instant,
    last: Instant,
    count: u64,
}

/// How many requests a namespace may still make.
#[derive(Debug)]
struct Share {
    left: u32,
    since: Instant,
}

struct Writer {
    client: Client,
    clock: Clock,
    metrics: SharedMetrics,
    remembered: HashMap<Told, Written>,
    shares: HashMap<(String, bool), Share>,
}

/// What is to be done with what was told.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Create,
    /// The Event of this name has happened so many times.
    Count(String, u64),
    /// It is counted, and written later.
    Wait,
    /// The namespace has had its share.
    Drop,
}

impl Writer {
    async fn run(mut self, mut told: mpsc::Receiver<Told>, waiting: Waiting) {
        while let Some(told) = told.recv().await {
            waiting.end(&told.share());
            let now = Instant::now();
            match self.step(&told, now) {
                Step::Wait => continue,
                Step::Drop => {
                    self.metrics.event("dropped");
                    continue;
                }
                Step::Count(name, count) => {
                    if self.count_up(&told, &name, count).await == Some(404) {
                        self.create(told, now).await;
                    }
                }
                Step::Create => self.create(told, now).await,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn step(&mut self, told: &Told, now: Instant) -> Step {
        if let Some(written) = self.remembered.get_mut(told).filter(|written| now - written.first < SAME) {
            written.count += 1;
            if now - written.last < COUNTED {
                return Step::Wait;
            }
            let (name, count) = (written.name.clone(), written.count);
            if !self.may(told.share(), now) {
                return Step::Drop;
            }
            if let Some(written) = self.remembered.get_mut(told) {
                written.last = now;
            }
            return Step::Count(name, count);
        }
        if self.may(told.share(), now) { Step::Create } else { Step::Drop }
    }

    /// Whether there may be one more request for a share, which is counted.
    fn may(&mut self, share: (String, bool), now: Instant) -> bool {
        let (most, again) = OF_NAMESPACE;
        if self.shares.len() >= MAX_REMEMBERED {
            self.shares.retain(|_, share| now - share.since < again * most);
        }
        let share = self.shares.entry(share).or_insert(Share { left: most, since: now });
        let more = u32::try_from((now - share.since).as_secs() / again.as_secs()).unwrap_or(u32::MAX);
        if more > 0 {
            share.left = share.left.saturating_add(more).min(most);
            share.since = now;
        }
        let may = share.left > 0;
        share.left = share.left.saturating_sub(1);
        may
    }

    fn api(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &cluster::resource("", "v1", "Event", "events"))
    }

    async fn create(&mut self, told: Told, now: Instant) {
        let time = (self.clock)();
        let stamp = cluster::time(time);
        let name = format!("{NAME}.{}", &Sha256::of(format!("{time} {told:?}").as_bytes()).hex()[..16]);
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": told.namespace},
            "involvedObject": {
                "apiVersion": told.api_version, "kind": told.kind, "name": told.name, "namespace": told.namespace, "uid": told.uid,
            },
            "reason": told.reason, "message": told.message, "type": "Warning", "count": 1,
            "firstTimestamp": stamp, "lastTimestamp": stamp,
            "source": {"component": NAME}, "reportingComponent": NAME, "reportingInstance": "",
        });
        let Ok(event) = serde_json::from_value::<DynamicObject>(event) else { return };
        let created = cluster::in_time(self.api(&told.namespace).create(&PostParams::default(), &event)).await;
        match created {
            Ok(_) => {
                self.metrics.event("written");
                if self.remembered.len() >= MAX_REMEMBERED {
                    self.remembered.retain(|_, written| now - written.first < SAME);
                }
                if self.remembered.len() < MAX_REMEMBERED {
                    self.remembered.insert(told, Written { name, first: now, last: now, count: 1 });
                }
            }
            Err((_, cause)) => self.failed(&told, &cause),
        }
    }

    /// Writes how often an Event has happened. The status of a failure is returned.
    async fn count_up(&self, told: &Told, name: &str, count: u64) -> Option<u16> {
        let patch = json!({"count": count, "lastTimestamp": cluster::time((self.clock)())});
        let api = self.api(&told.namespace);
        let patched = cluster::in_time(api.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await;
        match patched {
            Ok(_) => {
                self.metrics.event("counted");
                None
            }
            Err((Some(404), _)) => Some(404),
            Err((code, cause)) => {
                self.failed(told, &cause);
                code
            }
        }
    }

    fn failed(&self, told: &Told, cause: &str) {
        self.metrics.event("failed");
        warn!(namespace = ?told.namespace, %cause, "an Event cannot be written; the log has the decision");
    }
}

#[cfg(test)]
mod tests {
    use countersign_policy::DenialCause;

    use super::*;
    use crate::decision::Owner;

    fn request(namespace: &str, name: &str) -> Request<'static> {
        Request { namespace: Some(namespace.into()), name: Some(name.into()), ..Request::default() }
    }

    fn denied() -> Decision {
        Decision::denied(DenialCause::NoPolicies, "no".into())
    }

    fn writer(client: Client) -> Writer {
        let (clock, metrics) = (crate::telemetry::wall_clock(), SharedMetrics::default());
        Writer { client, clock, metrics, remembered: HashMap::new(), shares: HashMap::new() }
    }

    #[test]
    fn on_the_owner_else_on_the_namespace() {
        let owner = |name: &str| Owner {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: name.into(),
            uid: "u".into(),
        };
        let told = |owner: Option<Owner>| {
            let decision = Decision { owner, ..denied() };
            Told::of(&request("n", "p"), &decision, "Deny \"a\"").map(|told| format!("{} {}", told.kind, told.name))
        };
        assert_eq!(told(Some(owner("web"))).as_deref(), Some("ReplicaSet web"));
        for odd in [None, Some(owner("../x")), Some(owner("")), Some(Owner { uid: "x".repeat(300), ..owner("web") })] {
            assert_eq!(told(odd).as_deref(), Some("Namespace n"));
        }
        assert!(Told::of(&request("../x", "p"), &denied(), "x").is_none());
        let long = Told::of(&request("n", "p"), &denied(), &"é".repeat(4000)).unwrap();
        assert!(long.message.len() <= MAX_MESSAGE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_is_counted_and_a_namespace_has_its_share() {
        let mut writer = writer(cluster::scripted(|_, _| None));
        let told = |name: &str| Told::of(&request("n", name), &denied(), "x").unwrap();
        let now = Instant::now();
        assert_eq!(writer.step(&told("a"), now), Step::Create);
        let written = Written { name: "e".into(), first: now, last: now, count: 1 };
        writer.remembered.insert(told("a"), written);
        assert_eq!(writer.step(&told("a"), now), Step::Wait);
        assert_eq!(writer.step(&told("a"), now + COUNTED), Step::Count("e".into(), 3));
        assert_eq!(writer.step(&told("a"), now + SAME), Step::Create);
        let many = |writer: &mut Writer, namespace: &str, now: Instant| {
            let told = |index: usize| Told::of(&request(namespace, &format!("p{index}")), &denied(), "x").unwrap();
            (0..100).filter(|index| writer.step(&told(*index), now) == Step::Create).count()
        };
        assert_eq!(many(&mut writer, "greedy", now), 20);
        assert_eq!(many(&mut writer, "greedy", now + OF_NAMESPACE.1 * 3), 3);
        assert_eq!(many(&mut writer, "other", now), 20);
        let glass = Decision { excuse: Some(Excuse::BreakGlass("x".into())), ..denied() };
        let glass = Told::of(&request("greedy", "p"), &glass, "x").unwrap();
        assert_eq!(writer.step(&glass, now), Step::Create, "no denials hide it");
    }

    /// A namespace whose denials come faster than they are written takes no place of another's.
    #[tokio::test(start_paused = true)]
    async fn waiting_has_shares_too() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let client = cluster::scripted(move |_, uri| {
            seen.lock().unwrap().push(uri.to_owned());
            Some((201, json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}})))
        });
        let events = Events::start(client, crate::telemetry::wall_clock(), SharedMetrics::default());
        for namespace in ["greedy", "quiet"] {
            (0..2 * MAX_WAITING)
                .for_each(|index| events.tell(&request(namespace, &format!("p{index}")), &denied(), "x"));
        }
        tokio::time::sleep(Duration::from_secs(9)).await;
        let of = |namespace: &str| asked.lock().unwrap().iter().filter(|uri| uri.contains(namespace)).count();
        assert_eq!((of("/greedy/"), of("/quiet/")), (20, 20));
        assert!(events.shares.shares().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_is_written() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let client = cluster::scripted(move |method, uri| {
            seen.lock().unwrap().push(format!("{method} {}", uri.split('?').next().unwrap_or_default()));
            let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}});
            Some(if method == "PATCH" { (404, json!({"kind": "Status", "code": 404})) } else { (201, event) })
        });
        let events = Events::start(client, crate::telemetry::wall_clock(), SharedMetrics::default());
        let tell = || events.tell(&request("n", "p"), &denied(), "Deny \"a\"");
        tell();
        tokio::time::sleep(COUNTED + Duration::from_secs(1)).await;
        tell();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let asked = asked.lock().unwrap().clone();
        assert!(asked[0].ends_with("/namespaces/n/events") && asked[0].starts_with("POST"), "{asked:?}");
        assert!(asked[1].starts_with("PATCH") && asked[1].contains("/namespaces/n/events/countersign."), "{asked:?}");
        assert!(asked[2].starts_with("POST"), "one that is gone is written anew: {asked:?}");
    }
}
