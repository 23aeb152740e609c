//! How whoever collects metrics finds the pods.

use serde_json::{Value, json};

use super::{Install, NAME, OPERATIONS_PORT};

/// The label by which the Service of the metrics is told from that of the webhooks.
const COMPONENT: &str = "app.kubernetes.io/component";

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
            for (name, value) in &wanted.service_monitor.labels {
                monitor["metadata"]["labels"][name] = json!(value);
            }
            objects.push(monitor);
        }
        objects
    }
}
