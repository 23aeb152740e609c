//! The values of the chart, which say what may differ between installations; `manifests` takes the same.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use super::pods::Pods;
use super::{Install, NoSource, Tls};
use crate::config::Mode;
use crate::crd::Platform;

/// The default of each value, as the chart has it: it stands there alone.
const DEFAULTS: &str = include_str!("../../../../charts/countersign/values.yaml");

/// Labels or annotations.
pub(crate) type Names = BTreeMap<String, String>;

/// Values that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum NoValues {
    /// They are no values of the chart.
    #[error("{0}")]
    Form(String),
    /// Who may connect.
    #[error("networkPolicy: {0:?} {1}")]
    Source(String, NoSource),
    /// The default policy.
    #[error("the default policy: {0}")]
    DefaultPolicy(String),
    /// Where the certificate comes from.
    #[error("{0}")]
    Tls(&'static str),
}

/// All values, each with its default where it is not given.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Values {
    pub platform: Platform,
    pub image: Image,
    #[serde(default)]
    image_pull_secrets: Vec<Value>,
    pub replicas: u32,
    #[serde(default)]
    namespace: Namespace,
    pub mode: Mode,
    pub timeout_seconds: u32,
    #[serde(default)]
    namespace_selector: NamespaceSelector,
    #[serde(default)]
    pub review_kube_system: bool,
    #[serde(default)]
    pub exempt_namespaces: Vec<String>,
    #[serde(default)]
    pub config: Value,
    pub tls: TlsValues,
    #[serde(default)]
    pub network_policy: NetworkPolicy,
    #[serde(default)]
    metrics: Metrics,
    #[serde(default)]
    run_as_user: Option<u32>,
    #[serde(default)]
    resources: Value,
    #[serde(default)]
    node_selector: Value,
    #[serde(default)]
    tolerations: Vec<Value>,
    #[serde(default)]
    affinity: Value,
    #[serde(default)]
    topology_spread_constraints: Vec<Value>,
    #[serde(default)]
    common_labels: Names,
    #[serde(default)]
    pod_labels: Names,
    #[serde(default)]
    pod_annotations: Names,
    #[serde(default)]
    service: Service,
    #[serde(default)]
    extra_env: Vec<Value>,
    #[serde(default)]
    extra_volumes: Vec<Value>,
    #[serde(default)]
    extra_volume_mounts: Vec<Value>,
    #[serde(default)]
    pub default_policy: Value,
    #[serde(default, rename = "image-security-enforcement")]
    image_security_enforcement: Value,
    #[serde(default)]
    cluster_image_policy: Value,
    /// What charts that have this one as a part say to all of their parts.
    #[serde(default, rename = "global")]
    _global: Value,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Image {
    repository: String,
    #[serde(default)]
    tag: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    pull_policy: String,
}

impl Image {
    /// A tag beside a digest is for people, and only there where somebody gave one: CRI-O before 1.16 refuses both together.
    fn reference(&self) -> String {
        let tag = match (self.tag.as_str(), self.digest.as_str()) {
            ("", "") => env!("CARGO_PKG_VERSION"),
            (tag, _) => tag,
        };
        let tag = if tag.is_empty() { String::new() } else { format!(":{tag}") };
        let digest = if self.digest.is_empty() { String::new() } else { format!("@{}", self.digest) };
        format!("{}{tag}{digest}", self.repository)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Namespace {
    /// In a chart it is not printed unless somebody says so, as Helm wants it to be there; `manifests` prints it.
    #[serde(default)]
    create: Option<bool>,
}

/// Which namespaces are reviewed, besides that some are exempt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NamespaceSelector {
    #[serde(default)]
    pub match_labels: Names,
    #[serde(default)]
    pub match_expressions: Vec<Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TlsValues {
    pub source: TlsSource,
    #[serde(default)]
    pub secret_name: String,
    #[serde(default)]
    pub ca_bundle: String,
}

/// Where the serving certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TlsSource {
    /// Countersign makes and rotates it
    SelfManaged,
    /// cert-manager makes it
    CertManager,
    /// A Secret holds it
    Secret,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NetworkPolicy {
    #[serde(default)]
    pub reviews_from: Vec<String>,
    #[serde(default)]
    pub operations_from: Vec<String>,
}

/// How metrics are collected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Metrics {
    #[serde(default)]
    pub service: MetricsService,
    #[serde(default)]
    pub service_monitor: ServiceMonitor,
    #[serde(default)]
    pub rules: Labelled,
    #[serde(default)]
    pub dashboard: Labelled,
}

/// An object that others select by its labels.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Labelled {
    #[serde(default)]
    pub enabled: bool,
    #[serde(default)]
    pub labels: Names,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MetricsService {
    #[serde(default)]
    pub enabled: bool,
    #[serde(default)]
    pub annotations: Names,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ServiceMonitor {
    #[serde(default)]
    pub enabled: bool,
    #[serde(default)]
    pub labels: Names,
    #[serde(default)]
    pub interval: String,
    #[serde(default)]
    pub scrape_timeout: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    #[serde(default)]
    annotations: Names,
}

/// Values over others, as Helm does it: objects are joined, all else is replaced, and null takes a default away.
fn over(defaults: &mut Map<String, Value>, given: Map<String, Value>) {
    for (name, value) in given {
        match (defaults.get_mut(&name), value) {
            (Some(_), Value::Null) => {
                defaults.shift_remove(&name);
            }
            (Some(Value::Object(below)), Value::Object(value)) => over(below, value),
            (_, value) => {
                defaults.insert(name, value);
            }
        }
    }
}

impl Values {
    /// The values of a document, and the defaults of those that it does not give.
    ///
    /// # Errors
    /// A document that has not the form of the chart's values.
    pub(crate) fn of(document: &str) -> Result<Self, NoValues> {
        let read = |text: &str| -> Result<Map<String, Value>, NoValues> {
            match serde_saphyr::from_str(text) {
                Ok(Value::Object(members)) => Ok(members),
                Ok(Value::Null) => Ok(Map::new()),
                Ok(_) => Err(NoValues::Form("is no YAML mapping".to_owned())),
                Err(error) => Err(NoValues::Form(error.without_snippet().to_string())),
            }
        };
        let mut all = read(DEFAULTS)?;
        // Helm wants to be told to make a namespace; whoever prints manifests has nothing else that makes one.
        all.shift_remove("namespace");
        over(&mut all, read(document)?);
        serde_json::from_value(Value::Object(all)).map_err(|error| NoValues::Form(error.to_string()))
    }

    /// Where the certificate comes from.
    ///
    /// # Errors
    /// A certificate in a Secret without its authorities.
    pub(crate) fn tls(&self) -> Result<Tls, NoValues> {
        let ca_bundle = self.tls.ca_bundle.as_bytes();
        match self.tls.source {
            _ if !ca_bundle.is_empty() && !ca_bundle.starts_with(b"-----BEGIN") => {
                Err(NoValues::Tls("tls.caBundle is not PEM"))
            }
            TlsSource::SelfManaged | TlsSource::CertManager if !ca_bundle.is_empty() => {
                Err(NoValues::Tls("tls.caBundle goes with tls.source secret alone"))
            }
            TlsSource::SelfManaged => Ok(Tls::SelfManaged),
            TlsSource::CertManager => Ok(Tls::CertManager),
            TlsSource::Secret if ca_bundle.is_empty() => {
                Err(NoValues::Tls("tls.source secret needs tls.caBundle, the authorities of that certificate"))
            }
            TlsSource::Secret => Ok(Tls::Secret { name: self.tls.secret_name.clone(), ca_bundle: ca_bundle.to_vec() }),
        }
    }

    /// What they install in a namespace.
    ///
    /// # Errors
    /// Values that make no sense.
    pub(crate) fn install(self, namespace: &str) -> Result<Install, NoValues> {
        let sources = |texts: &[String]| {
            let parse = |text: &String| text.parse().map_err(|error| NoValues::Source(text.clone(), error));
            texts.iter().map(parse).collect::<Result<Vec<_>, _>>()
        };
        let mut repositories = Vec::new();
        for part in [&self.default_policy, &self.image_security_enforcement, &self.cluster_image_policy] {
            // Chart and manifests take the block of IBM Cloud Private in either indentation.
            if part.as_object().is_some_and(|block| block.get("clusterImagePolicy").is_none_or(Value::is_null)) {
                continue;
            }
            if !part.is_null() {
                let found = crate::master_config::default_repositories(part);
                let found = found.map_err(|error| NoValues::DefaultPolicy(format!("{error:#}")))?;
                repositories.extend(found.as_array().cloned().unwrap_or_default());
            }
        }
        Ok(Install {
            platform: self.platform,
            kube_version: None,
            namespace: namespace.to_owned(),
            makes_namespace: self.namespace.create.unwrap_or(true),
            mode: self.mode,
            timeout_seconds: self.timeout_seconds,
            namespace_selector: self.namespace_selector.clone(),
            review_kube_system: self.review_kube_system,
            reviews_from: sources(&self.network_policy.reviews_from)?,
            operations_from: sources(&self.network_policy.operations_from)?,
            image: self.image.reference(),
            replicas: self.replicas,
            tls: self.tls()?,
            metrics: self.metrics,
            labels: self.common_labels,
            service_annotations: self.service.annotations,
            pods: Pods {
                pull_policy: Some(self.image.pull_policy).filter(|policy| !policy.is_empty()),
                pull_secrets: self.image_pull_secrets,
                run_as_user: self.run_as_user,
                resources: self.resources,
                node_selector: self.node_selector,
                tolerations: self.tolerations,
                affinity: self.affinity,
                topology_spread_constraints: self.topology_spread_constraints,
                labels: self.pod_labels,
                annotations: self.pod_annotations,
                env: self.extra_env,
                volumes: self.extra_volumes,
                volume_mounts: self.extra_volume_mounts,
            },
            exempt_namespaces: self.exempt_namespaces,
            config: self.config,
            default_policy: Value::Array(repositories),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_chart() {
        let install = Values::of("").unwrap().install("countersign").unwrap();
        assert_eq!(install, Install::default());
        assert_eq!((install.replicas, install.mode, install.makes_namespace), (2, Mode::Enforce, true));
        assert_eq!(install.image, format!("countersign:{}", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn objects_are_joined_and_null_takes_away() {
        let install = |text: &str| Values::of(text).unwrap().install("x").unwrap();
        let joined = install("resources: {limits: {cpu: 1}}");
        assert_eq!(joined.pods.resources["limits"], json!({"memory": "1Gi", "cpu": 1}));
        assert_eq!(joined.pods.resources["requests"]["cpu"], "100m");
        assert!(install("resources: null").pods.resources.is_null());
        assert!(install("resources: {limits: null}").pods.resources.get("limits").is_none());
        assert!(!install("namespace: {create: false}").makes_namespace);
    }

    #[test]
    fn an_image_has_a_tag_a_digest_or_both() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (given, expected) in [
            ("{repository: h.io/c}".to_owned(), format!("h.io/c:{}", env!("CARGO_PKG_VERSION"))),
            ("{repository: h.io/c, tag: v1}".to_owned(), "h.io/c:v1".to_owned()),
            (format!("{{repository: h.io/c, digest: '{digest}'}}"), format!("h.io/c@{digest}")),
            (format!("{{repository: h.io/c, tag: v1, digest: '{digest}'}}"), format!("h.io/c:v1@{digest}")),
        ] {
            let install = Values::of(&format!("image: {given}")).unwrap().install("x").unwrap();
            assert_eq!(install.image, expected, "{given}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["replica: 3", "[]", "mode: banana", "tls: {source: none}", "image: {tags: x}", "metrics: {x: 1}"] {
            assert!(matches!(Values::of(text), Err(NoValues::Form(_))), "{text}");
        }
        for text in ["tls: {source: secret}", "tls: {caBundle: x}", "networkPolicy: {reviewsFrom: [10.0.0.1]}"] {
            assert!(Values::of(text).unwrap().install("x").is_err(), "{text}");
        }
    }
}
