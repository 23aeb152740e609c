//! How whoever collects metrics finds the pods.

use serde_json::{Value, json};

use super::values::Names;
use super::{Install, NAME, OPERATIONS_PORT};

/// The label by which the Service of the metrics is told from that of the webhooks.
const COMPONENT: &str = "app.kubernetes.io/component";

/// The alerts, in the form that Prometheus reads.
const ALERTS: &str = include_str!("../../../../charts/countersign/files/alerts.yaml");

/// The dashboard, as Grafana imports it.
const DASHBOARD: &str = include_str!("../../../../charts/countersign/files/dashboard.json");

/// An object with further labels.
fn labelled(mut object: Value, labels: &Names) -> Value {
    for (name, value) in labels {
        object["metadata"]["labels"][name] = json!(value);
    }
    object
}

impl Install {
    /// A Service for metrics, and for the Prometheus operator what it is to ask.
    pub(super) fn metrics(&self) -> Vec<Value> {
        let wanted = &self.metrics;
        let mut objects = Vec::new();
        if wanted.service.enabled || wanted.service_monitor.enabled {
            let ports =
                json!([{"name": "metrics", "port": OPERATIONS_PORT, "targetPort": "operations", "protocol": "TCP"}]);
            let spec = json!({"spec": {"selector": Self::selector(), "ports": ports}});
            let mut service = self.object("v1", "Service", spec);
            service["metadata"]["name"] = json!(format!("{NAME}-metrics"));
            service["metadata"]["labels"][COMPONENT] = json!("metrics");
            if !wanted.service.annotations.is_empty() {
                service["metadata"]["annotations"] = json!(wanted.service.annotations);
            }
            objects.push(service);
        }
        if wanted.service_monitor.enabled {
            let mut selector = Self::selector();
            selector[COMPONENT] = json!("metrics");
            let mut endpoint = json!({"port": "metrics"});
            for (member, span) in [
                ("interval", &wanted.service_monitor.interval),
                ("scrapeTimeout", &wanted.service_monitor.scrape_timeout),
            ] {
                if !span.is_empty() {
                    endpoint[member] = json!(span);
                }
            }
            let spec = json!({"spec": {"selector": {"matchLabels": selector}, "endpoints": [endpoint]}});
            let mut monitor = self.object("monitoring.coreos.com/v1", "ServiceMonitor", spec);
            monitor = labelled(monitor, &wanted.service_monitor.labels);
            objects.push(monitor);
        }
        if wanted.rules.enabled {
            let spec: Value = serde_saphyr::from_str(ALERTS).unwrap_or_default();
            let rules = self.object("monitoring.coreos.com/v1", "PrometheusRule", json!({"spec": spec}));
            objects.push(labelled(rules, &wanted.rules.labels));
        }
        if wanted.dashboard.enabled {
            let mut map = self.object("v1", "ConfigMap", json!({"data": {"countersign.json": DASHBOARD}}));
            map["metadata"]["name"] = json!(format!("{NAME}-dashboard"));
            let usual = Names::from([("grafana_dashboard".to_owned(), "1".to_owned())]);
            let labels = if wanted.dashboard.labels.is_empty() { &usual } else { &wanted.dashboard.labels };
            objects.push(labelled(map, labels));
        }
        objects
    }
}
