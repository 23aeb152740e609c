//! What is counted, for Prometheus. Every label comes from a closed set: the name of an image or a namespace never becomes one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_remote::Load;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    webhook: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabels {
    port: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClosedLabels {
    port: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    lane: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// The metrics of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    reviews: Family<OutcomeLabels, Counter>,
    denials: Family<ReasonLabels, Counter>,
    alternatives: Family<ReasonLabels, Counter>,
    duration: Histogram,
    reload_failures: Counter,
    policies_stale: Gauge,
    policies: Gauge,
    definitions_prune: Family<KindLabels, Gauge>,
    state_failures: Family<ReasonLabels, Counter>,
    certificate_expiry: Gauge<f64, AtomicU64>,
    connections: Family<PortLabels, Gauge>,
    closed_connections: Family<ClosedLabels, Counter>,
    repositories: Family<StateLabels, Gauge>,
    late_turns: Counter,
    records: Gauge,
    body_bytes: Family<LaneLabels, Gauge>,
    refused_bodies: Family<ReasonLabels, Counter>,
    refused_clients: Family<ReasonLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("countersign");
        let reviews = Family::default();
        let denials = Family::default();
        let alternatives = Family::default();
        registry.register(
            "alternatives",
            "Images allowed by one of several alternatives where an earlier one was undecided or contradicts what was seen of it, or a later one proves another digest",
            alternatives.clone(),
        );
        let duration = Histogram::new(exponential_buckets(0.0005, 2.0, 15));
        let reload_failures = Counter::default();
        let policies_stale = Gauge::default();
        let policies = Gauge::default();
        let definitions_prune = Family::default();
        let state_failures = Family::default();
        let certificate_expiry = Gauge::default();
        let connections = Family::default();
        let closed_connections = Family::default();
        let repositories = Family::default();
        registry.register(
            "repositories",
            "Repositories on trust servers that are looked at now, and that wait for their turn",
            repositories.clone(),
        );
        let late_turns = Counter::default();
        registry.register("late_turns", "Verifications whose turn did not come in time", late_turns.clone());
        let records = Gauge::default();
        registry.register("records", "TrustRecords in the cluster", records.clone());
        let body_bytes = Family::default();
        let refused_bodies = Family::default();
        registry.register(
            "body_bytes",
            "Room that the bodies of requests take, in bytes, by the lane that they are in",
            body_bytes.clone(),
        );
        registry.register(
            "refused_bodies",
            "Bodies that were not read to their end, by reason",
            refused_bodies.clone(),
        );
        registry.register("connections", "Connections that are open, by port", connections.clone());
        registry.register(
            "closed_connections",
            "Connections that the server closed or did not take, by port and reason",
            closed_connections.clone(),
        );
        let refused_clients = Family::default();
        registry.register("reviews", "Admission reviews by webhook and by what they came to", reviews.clone());
        registry.register("denied_images", "Images denied, by the kind of reason", denials.clone());
        registry.register("review_duration_seconds", "Time from a review's arrival to its answer", duration.clone());
        registry.register("policy_reload_failures", "Policies that could not be loaded", reload_failures.clone());
        registry.register(
            "policies_stale",
            "Whether the last attempt to load policies failed, so that older ones are in use",
            policies_stale.clone(),
        );
        registry.register("policies", "Policies in use", policies.clone());
        registry.register(
            "definitions_prune",
            "Whether the cluster's definition of a kind of policy drops misspelt fields before they are read",
            definitions_prune.clone(),
        );
        registry.register(
            "state_write_failures",
            "Memories against rollback that were not written, by reason",
            state_failures.clone(),
        );
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the serving certificate expires, in seconds since 1970",
            certificate_expiry.clone(),
        );
        registry.register(
            "refused_clients",
            "Connections for reviews that were refused for the client's certificate, by the kind of reason",
            refused_clients.clone(),
        );
        Self {
            registry,
            reviews,
            denials,
            alternatives,
            duration,
            reload_failures,
            policies_stale,
            policies,
            definitions_prune,
            state_failures,
            certificate_expiry,
            connections,
            closed_connections,
            repositories,
            late_turns,
            records,
            body_bytes,
            refused_bodies,
            refused_clients,
        }
    }
}

impl Metrics {
    /// A review of one of the webhooks was answered, after some seconds; `outcome` comes from `ReviewOutcome::label`.
    pub(crate) fn review(&self, webhook: &'static str, outcome: &'static str, seconds: f64) {
        self.reviews.get_or_create(&OutcomeLabels { webhook, outcome }).inc();
        self.duration.observe(seconds);
    }

    /// An image was denied; `reason` comes from `DenyReason::label`.
    pub(crate) fn denied_image(&self, reason: &'static str) {
        self.denials.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// An image was allowed by one of several alternatives, and something is to be known of another; `reason` comes from
    /// `Warning::label`.
    pub(crate) fn alternative(&self, reason: &'static str) {
        self.alternatives.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Policies were loaded.
    pub(crate) fn policies_loaded(&self, count: usize) {
        self.policies_stale.set(0);
        self.policies.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether the definition of a kind of policy drops what it does not know.
    pub(crate) fn definition_prunes(&self, kind: &'static str, prunes: bool) {
        self.definitions_prune.get_or_create(&KindLabels { kind }).set(i64::from(prunes));
    }

    /// Policies could not be loaded; the older ones stay in use.
    pub(crate) fn policies_failed(&self) {
        self.policies_stale.set(1);
        self.reload_failures.inc();
    }

    /// A memory was not written: there is no room for it, or something failed.
    pub(crate) fn state_failed(&self, reason: &'static str) {
        self.state_failures.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// What the verification of repositories is at.
    pub(crate) fn verifying(&self, load: Load) {
        let counts =
            [("verified", load.flights), ("waiting", load.waiting), ("waiting-for-a-processor", load.unverified)];
        for (state, count) in counts {
            self.repositories.get_or_create(&StateLabels { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.late_turns.inner().store(load.late, Ordering::Relaxed);
    }

    /// Something is remembered of so many repositories.
    pub(crate) fn remembered(&self, count: usize) {
        self.records.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A serving certificate is in use.
    pub(crate) fn certificate_expires(&self, seconds: i64) {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a float until the year 285 million")]
        self.certificate_expiry.set(seconds as f64);
    }

    /// So many connections are open at a port.
    pub(crate) fn connections(&self, port: &'static str, count: usize) {
        self.connections.get_or_create(&PortLabels { port }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A connection was closed by the server, or not taken.
    pub(crate) fn connection_closed(&self, port: &'static str, reason: &'static str) {
        self.closed_connections.get_or_create(&ClosedLabels { port, reason }).inc();
    }

    /// The bodies under way take so many bytes of each lane.
    pub(crate) fn bodies(&self, lanes: [(&'static str, usize); 3]) {
        for (lane, bytes) in lanes {
            self.body_bytes.get_or_create(&LaneLabels { lane }).set(i64::try_from(bytes).unwrap_or(i64::MAX));
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

/// Metrics shared by the parts of a server.
pub(crate) type SharedMetrics = Arc<Metrics>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_what_was_counted() {
        let metrics = Metrics::default();
        metrics.review("mutate", "denied", 0.01);
        metrics.alternative("differ");
        metrics.denied_image("not-listed");
        metrics.policies_failed();
        metrics.verifying(Load { flights: 2, late: 3, ..Load::default() });
        metrics.remembered(4);
        let text = metrics.text();
        for line in [
            "countersign_reviews_total{webhook=\"mutate\",outcome=\"denied\"} 1",
            "countersign_denied_images_total{reason=\"not-listed\"} 1",
            "countersign_alternatives_total{reason=\"differ\"} 1",
            "countersign_policies_stale 1",
            "countersign_repositories{state=\"verified\"} 2",
            "countersign_late_turns_total 3",
            "countersign_records 4",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
