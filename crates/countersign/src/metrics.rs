//! What is counted, for Prometheus. Every label comes from a closed set: the name of an image or a namespace never becomes one. Series that
//! alerts look at are there from the start, at zero, so that a first denial is an increase. `docs/metrics.md` is made from the help texts.

mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_policy::{DenialCause, KNOWN_KINDS, Mode};
use countersign_remote::Load;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::decision::{Answered, ReviewOutcome, Webhook};

/// Labels, each a struct: the library takes no others.
macro_rules! labels {
    ($($name:ident { $($label:ident),* })*) => {
        $(#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($label: &'static str),* })*
    };
}

labels! {
    ReviewLabels { webhook, kind, verdict, mode }
    WebhookLabels { webhook }
    PhaseLabels { phase }
    DenialLabels { cause, mode }
    ReasonLabels { reason }
    OutcomeLabels { outcome }
    PortLabels { port }
    ClosedLabels { port, reason }
    LaneLabels { lane }
    StateLabels { state }
    KindLabels { kind }
    PolicyLabels { kind, state }
    SourceLabels { source }
    BuildLabels { version }
}

/// The label of a kind that Countersign does not know by itself.
const OTHER_KIND: &str = "other";

/// The kinds whose writes the webhook for policies reviews.
const POLICY_KINDS: [&str; 2] = ["ClusterImagePolicy", "ImagePolicy"];

/// How long the parts of one review took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Phases {
    /// To read the request.
    pub read: Duration,
    /// To look at the owner of a child.
    pub owner: Duration,
    /// To find the entries that apply.
    pub plan: Duration,
    /// To ask for proofs.
    pub prove: Duration,
    /// To write down what was seen.
    pub record: Duration,
}

impl Phases {
    fn named(&self) -> [(&'static str, Duration); 5] {
        [
            ("read", self.read),
            ("owner", self.owner),
            ("plan", self.plan),
            ("prove", self.prove),
            ("record", self.record),
        ]
    }
}

/// The metrics of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    reviews: Family<ReviewLabels, Counter>,
    denials: Family<DenialLabels, Counter>,
    alternatives: Family<ReasonLabels, Counter>,
    broken_glass: Counter,
    duration: Family<WebhookLabels, Histogram, fn() -> Histogram>,
    phases: Family<PhaseLabels, Histogram, fn() -> Histogram>,
    events: Family<OutcomeLabels, Counter>,
    fetches: Family<OutcomeLabels, Counter>,
    refreshes: Family<OutcomeLabels, Counter>,
    reload_failures: Counter,
    policies_stale: Gauge,
    policies: Family<PolicyLabels, Gauge>,
    blind: Family<SourceLabels, Gauge<f64, AtomicU64>>,
    definitions_prune: Family<KindLabels, Gauge>,
    state_failures: Family<ReasonLabels, Counter>,
    certificate_expiry: Gauge<f64, AtomicU64>,
    metadata_expiry: Gauge<f64, AtomicU64>,
    connections: Family<PortLabels, Gauge>,
    connections_max: Family<PortLabels, Gauge>,
    closed_connections: Family<ClosedLabels, Counter>,
    repositories: Family<StateLabels, Gauge>,
    late_turns: Counter,
    records: Gauge,
    body_bytes: Family<LaneLabels, Gauge>,
    body_bytes_max: Family<LaneLabels, Gauge>,
    refused_bodies: Family<ReasonLabels, Counter>,
    refused_clients: Family<ReasonLabels, Counter>,
}

/// From half a millisecond to eight seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 15))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let metrics = Self {
            reviews: Family::default(),
            denials: Family::default(),
            alternatives: Family::default(),
            broken_glass: Counter::default(),
            duration: Family::new_with_constructor(seconds),
            phases: Family::new_with_constructor(seconds),
            events: Family::default(),
            fetches: Family::default(),
            refreshes: Family::default(),
            reload_failures: Counter::default(),
            policies_stale: Gauge::default(),
            policies: Family::default(),
            blind: Family::default(),
            definitions_prune: Family::default(),
            state_failures: Family::default(),
            certificate_expiry: Gauge::default(),
            metadata_expiry: Gauge::default(),
            connections: Family::default(),
            connections_max: Family::default(),
            closed_connections: Family::default(),
            repositories: Family::default(),
            late_turns: Counter::default(),
            records: Gauge::default(),
            body_bytes: Family::default(),
            body_bytes_max: Family::default(),
            refused_bodies: Family::default(),
            refused_clients: Family::default(),
            registry: Registry::default(),
        };
        metrics.register(registry.sub_registry_with_prefix("countersign"));
        // Under the names that every process has.
        registry.register_collector(Box::new(process::Process));
        metrics.begin();
        Self { registry, ..metrics }
    }
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "build",
            "The version that runs",
            Info::new(BuildLabels { version: env!("CARGO_PKG_VERSION") }),
        );
        registry.register(
            "reviews",
            "Admission reviews by webhook, by kind of object, by verdict (what it came to, whatever the mode makes of it: unchecked, verified, denied, undecided; bad-request for what is no review), and by mode (what answered: enforce, warn, audit, break-glass, static-pod). Denied in fact is what is denied or undecided under enforce",
            self.reviews.clone(),
        );
        registry.register(
            "denied_images",
            "Images denied, by cause (the sections of docs/messages.md) and by the mode that counts for the image",
            self.denials.clone(),
        );
        registry.register(
            "broken_glass",
            "Reviews in which a denial was set aside by the annotation break-glass",
            self.broken_glass.clone(),
        );
        registry.register(
            "alternatives",
            "Images allowed by one of several alternatives where an earlier one was undecided or contradicts what was seen of it, or a later one proves another digest",
            self.alternatives.clone(),
        );
        registry.register(
            "review_duration_seconds",
            "Time from a review's arrival to its answer, by webhook",
            self.duration.clone(),
        );
        registry.register(
            "review_phase_duration_seconds",
            "Time that a part of a review took: read (the request), owner (of a child), plan (which entries apply), prove (ask for proofs), record (write down what was seen)",
            self.phases.clone(),
        );
        registry.register(
            "events",
            "Kubernetes Events of denials: written, counted up, dropped for the share of their namespace, failed",
            self.events.clone(),
        );
        registry.register(
            "trust_fetches",
            "Looks at repositories on trust servers, by outcome: verified, untrusted, unreachable, failed (no turn, no login, no memory)",
            self.fetches.clone(),
        );
        registry.register(
            "trust_refreshes",
            "Those of trust_fetches that no review waited for: looks at repositories in use before they are too old, by the same outcomes",
            self.refreshes.clone(),
        );
        registry.register(
            "trust_metadata_expiry_timestamp_seconds",
            "When the first of the metadata that is kept in memory expires, in seconds since 1970; 0 where none is kept",
            self.metadata_expiry.clone(),
        );
        registry.register("policy_reload_failures", "Policies that could not be loaded", self.reload_failures.clone());
        registry.register(
            "policies_stale",
            "Whether the last attempt to load policies failed, so that older ones are in use",
            self.policies_stale.clone(),
        );
        registry.register(
            "policies",
            "Policies by kind and state: accepted, or faulty (what is at fault in them denies)",
            self.policies.clone(),
        );
        registry.register(
            "source_blind_seconds",
            "For how long a kind of object cannot be followed in the cluster; 0 where it is followed",
            self.blind.clone(),
        );
        registry.register(
            "definitions_prune",
            "Whether the cluster's definition of a kind of policy drops misspelt fields before they are read",
            self.definitions_prune.clone(),
        );
        registry.register(
            "state_write_failures",
            "Memories against rollback that were not written, by reason",
            self.state_failures.clone(),
        );
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the serving certificate expires, in seconds since 1970",
            self.certificate_expiry.clone(),
        );
        self.register_budgets(registry);
    }

    fn register_budgets(&self, registry: &mut Registry) {
        registry.register("connections", "Connections that are open, by port", self.connections.clone());
        registry.register(
            "connections_max",
            "Connections that may be open, by port, before idle ones have to go",
            self.connections_max.clone(),
        );
        registry.register(
            "closed_connections",
            "Connections that the server closed or did not take, by port and reason",
            self.closed_connections.clone(),
        );
        registry.register(
            "repositories",
            "Repositories on trust servers: verified (looked at now), waiting (for their turn), waiting-for-a-processor, kept (verified and in memory)",
            self.repositories.clone(),
        );
        registry.register("late_turns", "Verifications whose turn did not come in time", self.late_turns.clone());
        registry.register("records", "TrustRecords in the cluster, or files of --state-dir", self.records.clone());
        registry.register(
            "body_bytes",
            "Room that the bodies of requests take, in bytes, by the lane that they are in",
            self.body_bytes.clone(),
        );
        registry.register(
            "body_bytes_max",
            "Room that there is for the bodies of requests, in bytes, by lane",
            self.body_bytes_max.clone(),
        );
        registry.register(
            "refused_bodies",
            "Bodies that were not read to their end, by reason",
            self.refused_bodies.clone(),
        );
        registry.register(
            "refused_clients",
            "Connections for reviews that were refused for the client's certificate, by the kind of reason",
            self.refused_clients.clone(),
        );
    }

    /// Makes the series that alerts and dashboards look at.
    fn begin(&self) {
        for webhook in [Webhook::Mutate, Webhook::Validate] {
            let webhook = webhook.label();
            for verdict in ReviewOutcome::ALL.map(ReviewOutcome::label) {
                for mode in Answered::ALL.map(Answered::label) {
                    for kind in ["Pod", "Deployment"] {
                        let _ = self.reviews.get_or_create(&ReviewLabels { webhook, kind, verdict, mode });
                    }
                }
            }
            let _ = self.duration.get_or_create(&WebhookLabels { webhook });
        }
        for cause in DenialCause::ALL.map(DenialCause::label) {
            for mode in Mode::ALL.map(Mode::label) {
                let _ = self.denials.get_or_create(&DenialLabels { cause, mode });
            }
        }
        for (phase, _) in Phases::default().named() {
            let _ = self.phases.get_or_create(&PhaseLabels { phase });
        }
        for outcome in ["written", "counted", "dropped", "failed"] {
            let _ = self.events.get_or_create(&OutcomeLabels { outcome });
        }
        for reason in ["undecided", "refused", "differ"] {
            let _ = self.alternatives.get_or_create(&ReasonLabels { reason });
        }
        for reason in ["no-room", "error"] {
            let _ = self.state_failures.get_or_create(&ReasonLabels { reason });
        }
        for reason in ["behind", "line", "wait"] {
            let _ = self.refused_bodies.get_or_create(&ReasonLabels { reason });
        }
        for reason in ["no-certificate", "other-name", "not-trusted"] {
            let _ = self.refused_clients.get_or_create(&ReasonLabels { reason });
        }
        for reason in ["late", "crowded", "displaced", "refused", "idle"] {
            for port in ["reviews", "operations"] {
                let _ = self.closed_connections.get_or_create(&ClosedLabels { port, reason });
            }
        }
        self.verifying(&Load::default());
    }

    /// A review of one of the webhooks was answered.
    pub(crate) fn review(
        &self,
        webhook: &'static str,
        kind: &str,
        outcome: ReviewOutcome,
        answered: Answered,
        took: Duration,
    ) {
        let known = KNOWN_KINDS.iter().map(|known| known.kind).chain(POLICY_KINDS).find(|known| *known == kind);
        let (kind, verdict, mode) = (known.unwrap_or(OTHER_KIND), outcome.label(), answered.label());
        self.reviews.get_or_create(&ReviewLabels { webhook, kind, verdict, mode }).inc();
        self.duration.get_or_create(&WebhookLabels { webhook }).observe(took.as_secs_f64());
    }

    /// A request came that is no review.
    pub(crate) fn bad_request(&self, webhook: &'static str, took: Duration) {
        self.review(webhook, OTHER_KIND, ReviewOutcome::BadRequest, Answered::Mode(Mode::Enforce), took);
    }

    /// How long the parts of a review took; those that it did not have are left out.
    pub(crate) fn phases(&self, phases: &Phases) {
        for (phase, took) in phases.named().into_iter().filter(|(_, took)| !took.is_zero()) {
            self.phases.get_or_create(&PhaseLabels { phase }).observe(took.as_secs_f64());
        }
    }

    /// An image was denied, whatever its mode makes of it.
    pub(crate) fn denied_image(&self, cause: DenialCause, mode: Mode) {
        self.denials.get_or_create(&DenialLabels { cause: cause.label(), mode: mode.label() }).inc();
    }

    /// A denial was set aside.
    pub(crate) fn glass_broken(&self) {
        self.broken_glass.inc();
    }

    /// What became of an Event: `written`, `counted`, `dropped` or `failed`.
    pub(crate) fn event(&self, outcome: &'static str) {
        self.events.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// An image was allowed by one of several alternatives, and something is to be known of another; `reason` comes from
    /// `Warning::label`.
    pub(crate) fn alternative(&self, reason: &'static str) {
        self.alternatives.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Policies were loaded, all of those that there are.
    pub(crate) fn policies_loaded(&self) {
        self.policies_stale.set(0);
    }

    /// So many policies of a kind are in use, and in so many of them something is at fault.
    pub(crate) fn policies(&self, kind: &'static str, all: usize, faulty: usize) {
        for (state, count) in [("accepted", all.saturating_sub(faulty)), ("faulty", faulty)] {
            self.policies.get_or_create(&PolicyLabels { kind, state }).set(whole(count));
        }
    }

    /// Policies could not be loaded; the older ones stay in use.
    pub(crate) fn policies_failed(&self) {
        self.policies_stale.set(1);
        self.reload_failures.inc();
    }

    /// For how long a kind of object cannot be followed.
    pub(crate) fn blind(&self, source: &'static str, seconds: f64) {
        self.blind.get_or_create(&SourceLabels { source }).set(seconds);
    }

    /// Whether the definition of a kind of policy drops what it does not know.
    pub(crate) fn definition_prunes(&self, kind: &'static str, prunes: bool) {
        self.definitions_prune.get_or_create(&KindLabels { kind }).set(i64::from(prunes));
    }

    /// A memory was not written: there is no room for it, or something failed.
    pub(crate) fn state_failed(&self, reason: &'static str) {
        self.state_failures.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// What the verification of repositories is at.
    pub(crate) fn verifying(&self, load: &Load) {
        let counts = [
            ("verified", load.flights),
            ("waiting", load.waiting),
            ("waiting-for-a-processor", load.unverified),
            ("kept", load.kept),
        ];
        for (state, count) in counts {
            self.repositories.get_or_create(&StateLabels { state }).set(whole(count));
        }
        self.late_turns.inner().store(load.late, Ordering::Relaxed);
        for (family, outcomes) in [(&self.fetches, load.outcomes), (&self.refreshes, load.ahead)] {
            let outcomes = [
                ("verified", outcomes.verified),
                ("untrusted", outcomes.untrusted),
                ("unreachable", outcomes.unreachable),
                ("failed", outcomes.failed),
            ];
            for (outcome, count) in outcomes {
                family.get_or_create(&OutcomeLabels { outcome }).inner().store(count, Ordering::Relaxed);
            }
        }
        self.metadata_expiry.set(load.expires.map_or(0.0, float));
    }

    /// Something is remembered of so many repositories.
    pub(crate) fn remembered(&self, count: usize) {
        self.records.set(whole(count));
    }

    /// A serving certificate is in use.
    pub(crate) fn certificate_expires(&self, seconds: i64) {
        self.certificate_expiry.set(float(seconds));
    }

    /// So many connections are open at a port.
    pub(crate) fn connections(&self, port: &'static str, count: usize) {
        self.connections.get_or_create(&PortLabels { port }).set(whole(count));
    }

    /// So many connections may be open at a port.
    pub(crate) fn connections_max(&self, port: &'static str, count: usize) {
        self.connections_max.get_or_create(&PortLabels { port }).set(whole(count));
    }

    /// A connection was closed by the server, or not taken.
    pub(crate) fn connection_closed(&self, port: &'static str, reason: &'static str) {
        self.closed_connections.get_or_create(&ClosedLabels { port, reason }).inc();
    }

    /// The bodies under way take so many bytes of each lane, of so many that there are.
    pub(crate) fn bodies(&self, lanes: [(&'static str, usize, usize); 3]) {
        for (lane, used, most) in lanes {
            self.body_bytes.get_or_create(&LaneLabels { lane }).set(whole(used));
            self.body_bytes_max.get_or_create(&LaneLabels { lane }).set(whole(most));
        }
    }

    /// A body was given up.
    pub(crate) fn body_refused(&self, reason: &'static str) {
        self.refused_bodies.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A client was refused for its certificate; `reason` comes from `Refusal::label`.
    pub(crate) fn refused_client(&self, reason: &'static str) {
        self.refused_clients.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn float(seconds: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a float until the year 285 million")]
    {
        seconds as f64
    }
}

/// Metrics shared by the parts of a server.
pub(crate) type SharedMetrics = Arc<Metrics>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_what_was_counted() {
        let metrics = Metrics::default();
        let denied = Answered::Mode(Mode::Enforce);
        metrics.review("mutate", "Pod", ReviewOutcome::Denied, denied, Duration::from_millis(10));
        metrics.review("mutate", "../x", ReviewOutcome::Denied, Answered::BreakGlass, Duration::from_millis(10));
        metrics.review("policies", "ImagePolicy", ReviewOutcome::Unchecked, denied, Duration::ZERO);
        metrics.alternative("differ");
        metrics.denied_image(DenialCause::NoMatch, Mode::Warn);
        metrics.policies_failed();
        metrics.policies("ImagePolicy", 5, 2);
        metrics.verifying(&Load { flights: 2, late: 3, kept: 7, expires: Some(9), ..Load::default() });
        metrics.remembered(4);
        let text = metrics.text();
        for line in [
            "countersign_reviews_total{webhook=\"mutate\",kind=\"Pod\",verdict=\"denied\",mode=\"enforce\"} 1",
            "countersign_reviews_total{webhook=\"mutate\",kind=\"other\",verdict=\"denied\",mode=\"break-glass\"} 1",
            "countersign_reviews_total{webhook=\"validate\",kind=\"Pod\",verdict=\"undecided\",mode=\"enforce\"} 0",
            "countersign_reviews_total{webhook=\"policies\",kind=\"ImagePolicy\",verdict=\"unchecked\",mode=\"enforce\"} 1",
            "countersign_denied_images_total{cause=\"no-match\",mode=\"warn\"} 1",
            "countersign_denied_images_total{cause=\"rollback\",mode=\"enforce\"} 0",
            "countersign_alternatives_total{reason=\"differ\"} 1",
            "countersign_policies_stale 1",
            "countersign_policies{kind=\"ImagePolicy\",state=\"accepted\"} 3",
            "countersign_policies{kind=\"ImagePolicy\",state=\"faulty\"} 2",
            "countersign_repositories{state=\"verified\"} 2",
            "countersign_repositories{state=\"kept\"} 7",
            "countersign_trust_fetches_total{outcome=\"untrusted\"} 0",
            "countersign_refused_bodies_total{reason=\"wait\"} 0",
            "countersign_closed_connections_total{port=\"reviews\",reason=\"late\"} 0",
            "countersign_trust_metadata_expiry_timestamp_seconds 9.0",
            "countersign_late_turns_total 3",
            "countersign_records 4",
            "countersign_build_info{version=",
            "process_start_time_seconds ",
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
