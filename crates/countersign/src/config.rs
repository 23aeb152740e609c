//! What was typed, in the environment, and in a file, made into what is meant: once, before anything starts.

mod choices;
mod clients;
mod kinds;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use countersign_image::reference::check_host;
use countersign_policy::{Mode as PolicyMode, PinStyle};
use serde::Deserialize;
use thiserror::Error;

pub(crate) use choices::{ClusterPolicySecrets, Mode, Pin};
pub(crate) use clients::ClientCertificates;
pub(crate) use kinds::FurtherKind;

use crate::break_glass::BreakGlass;
use crate::install::{NAME, TLS_SECRET};
use crate::telemetry::{LogFormat, LogLevel};

/// The service accounts of the kube-controller-manager that make pods and the objects that hold pod templates. Each is
/// `system:serviceaccount:kube-system:…`.
const CONTROLLERS: [&str; 8] = [
    "cronjob-controller",
    "daemon-set-controller",
    "deployment-controller",
    "job-controller",
    "replicaset-controller",
    "replication-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
];

/// The page with the messages, as its project has it.
pub(crate) const MESSAGES: &str = "docs/messages.md";

/// A span of time as people write it: `30s`, `500ms`, `5m`, `1h30m`, `90d`, `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a time span: write 500ms, 30s, 5m, 1h30m, 90d or 0");
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let span: jiff::Span = text.parse().map_err(|_| wrong())?;
        // Months and years have no length of their own.
        let length = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        Duration::try_from(length).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis.is_multiple_of(1000) { write!(f, "{}s", millis / 1000) } else { write!(f, "{millis}ms") }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The settings of `serve`, each as it may be given: on the command line, in the environment, in the file.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Folder of ImagePolicy, ClusterImagePolicy and Secret documents to use in place of a cluster
    #[arg(long, value_name = "DIR", env = "COUNTERSIGN_POLICIES")]
    pub policies: Option<PathBuf>,

    /// Kubeconfig of the cluster whose policies apply, to serve from outside it
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_KUBECONFIG", conflicts_with = "policies")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace that Countersign calls its own, in a cluster [default: that of its pod]
    #[arg(long, value_name = "NAMESPACE", env = "COUNTERSIGN_NAMESPACE")]
    pub namespace: Option<String>,

    /// Address for admission reviews [default: 0.0.0.0:8443]
    #[arg(long, value_name = "ADDR:PORT", env = "COUNTERSIGN_LISTEN")]
    pub listen: Option<SocketAddr>,

    /// Address for /livez, /readyz and /metrics, in plain HTTP [default: 0.0.0.0:8081]
    #[arg(long, value_name = "ADDR:PORT", env = "COUNTERSIGN_OPS_LISTEN")]
    pub ops_listen: Option<SocketAddr>,

    /// Serving certificate and its chain, PEM; read again when it changes
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Key of the serving certificate, PEM
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Take reviews only from clients that show a certificate of the authorities in this file, PEM; read again when it
    /// changes. Needs --client-name
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CLIENT_CA")]
    pub client_ca: Option<PathBuf>,

    /// Common name or DNS name that such a certificate must have (repeatable: one of them)
    #[arg(long, value_name = "NAME", env = "COUNTERSIGN_CLIENT_NAME", value_delimiter = ',')]
    #[serde(default)]
    pub client_name: Vec<String>,

    /// Make a certificate for local use, and write it to this file
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_SELF_SIGNED", conflicts_with_all = ["tls_cert", "tls_key"])]
    pub self_signed: Option<PathBuf>,

    /// Secret in which the serving certificate is kept that Countersign makes itself, in a cluster [default:
    /// countersign-tls]
    #[arg(long, value_name = "NAME", env = "COUNTERSIGN_TLS_SECRET", conflicts_with_all = ["tls_cert", "tls_key", "self_signed"])]
    pub tls_secret: Option<String>,

    /// Service that the certificate is for [default: countersign]
    #[arg(long, value_name = "NAME", env = "COUNTERSIGN_SERVICE")]
    pub service: Option<String>,

    /// Further name or address that the certificate is for (repeatable)
    #[arg(long, value_name = "NAME", env = "COUNTERSIGN_TLS_NAME", value_delimiter = ',')]
    #[serde(default)]
    pub tls_name: Vec<String>,

    /// How long a certificate lives; it is replaced when a third of that is left [default: 90d]
    #[arg(long, value_name = "DURATION", env = "COUNTERSIGN_TLS_LIFETIME")]
    pub tls_lifetime: Option<Span>,

    /// Name of the webhook configurations, mutating and validating, that are kept registered: rules, caBundle and
    /// matchConditions [default: none are]
    #[arg(long, value_name = "NAME", env = "COUNTERSIGN_WEBHOOK_CONFIGURATION")]
    pub webhook_configuration: Option<String>,

    /// For how long reviews are still taken once a stop was asked for, while others learn of it [default: 0]
    #[arg(long, value_name = "DURATION", env = "COUNTERSIGN_SHUTDOWN_DELAY")]
    pub shutdown_delay: Option<Span>,

    /// Certificates of authorities to trust for trust servers and registries: a PEM file, or a folder of *.crt and *.pem
    /// files (repeatable)
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_TRUST_CA", value_delimiter = ',')]
    #[serde(default)]
    pub trust_ca: Vec<PathBuf>,

    /// For how long verified trust data is used without asking its server again [default: 30s]
    #[arg(long, value_name = "DURATION", env = "COUNTERSIGN_TRUST_REFRESH")]
    pub trust_refresh: Option<Span>,

    /// For how long after that unexpired trust data may be used if its server cannot be reached [default: 0]
    #[arg(long, value_name = "DURATION", env = "COUNTERSIGN_TRUST_STALE")]
    pub trust_stale: Option<Span>,

    /// Folder that remembers repositories across restarts, against rollback
    #[arg(long, value_name = "DIR", env = "COUNTERSIGN_STATE_DIR")]
    pub state_dir: Option<PathBuf>,

    /// Docker config.json with credentials for trust servers
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_REGISTRY_CONFIG")]
    pub registry_config: Option<PathBuf>,

    /// For how long signatures of cosign that were found are believed before the registry is asked again [default: 1h]
    #[arg(long, value_name = "DURATION", env = "COUNTERSIGN_COSIGN_REFRESH")]
    pub cosign_refresh: Option<Span>,

    /// Hosts, with or without port, that an ImagePolicy may name as trust server (repeatable) [default: any]
    #[arg(long, value_name = "HOST", env = "COUNTERSIGN_NAMESPACE_TRUST_SERVERS", value_delimiter = ',')]
    pub namespace_trust_servers: Option<Vec<String>>,

    /// Ask the trust server for each pod whether its credentials may read a repository, although another's could
    #[arg(long, value_name = "BOOLEAN", env = "COUNTERSIGN_PRIVATE_TRUST", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new())]
    pub private_trust: Option<bool>,

    /// Namespace of the signer secrets of cluster policies, with --policies [default: countersign]
    #[arg(long, value_name = "NAMESPACE", env = "COUNTERSIGN_SECRETS_NAMESPACE")]
    pub secrets_namespace: Option<String>,

    /// Where the signer secrets of cluster policies are read [default: own-namespace]
    #[arg(long, value_name = "WHERE", env = "COUNTERSIGN_CLUSTER_POLICY_SECRETS")]
    pub cluster_policy_secrets: Option<ClusterPolicySecrets>,

    /// Users whose children of reviewed workloads are not verified again [default: the kube-controller-manager's]
    #[arg(long, value_name = "USER", env = "COUNTERSIGN_TRUSTED_CONTROLLERS", value_delimiter = ',')]
    pub trusted_controllers: Option<Vec<String>>,

    /// Verify children of reviewed workloads too
    #[arg(long, value_name = "BOOLEAN", env = "COUNTERSIGN_VERIFY_CHILDREN", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new())]
    pub verify_children: Option<bool>,

    /// How pinned images are written: with their tag, or as the digest alone for CRI-O before 1.16 [default: tag-and-digest]
    #[arg(long, value_name = "STYLE", env = "COUNTERSIGN_PIN")]
    pub pin: Option<Pin>,

    /// What to do with workloads that are denied [default: enforce]
    #[arg(long, value_name = "MODE", env = "COUNTERSIGN_MODE")]
    pub mode: Option<Mode>,

    /// User who may have an object admitted in spite of a denial, with the annotation
    /// securityenforcement.admission.cloud.ibm.com/break-glass and a reason (repeatable) [default: nobody]
    #[arg(long, value_name = "USER", env = "COUNTERSIGN_BREAK_GLASS_USER", value_delimiter = ',')]
    #[serde(default)]
    pub break_glass_user: Vec<String>,

    /// Group of users who may do the same (repeatable) [default: none]
    #[arg(long, value_name = "GROUP", env = "COUNTERSIGN_BREAK_GLASS_GROUP", value_delimiter = ',')]
    #[serde(default)]
    pub break_glass_group: Vec<String>,

    /// Where people find the page with the messages, for denials to name its sections [default: docs/messages.md]
    #[arg(long, value_name = "URL", env = "COUNTERSIGN_MESSAGES")]
    pub messages: Option<String>,

    /// Longest time for one review; less than the webhook's timeoutSeconds [default: 8s]
    #[arg(long, value_name = "DURATION", env = "COUNTERSIGN_DEADLINE")]
    pub deadline: Option<Span>,

    /// How log lines look [default: text]
    #[arg(long, value_name = "FORMAT", env = "COUNTERSIGN_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Least severe log lines to write [default: info]
    #[arg(long, value_name = "LEVEL", env = "COUNTERSIGN_LOG_LEVEL")]
    pub log_level: Option<LogLevel>,

    /// Settings for single hosts (file only): authorities, client certificates, mirrors, token servers
    #[arg(skip)]
    #[serde(default)]
    pub hosts: BTreeMap<String, HostSettings>,

    /// Trust servers of registries for entries that name none (file only)
    #[arg(skip)]
    #[serde(default)]
    pub trust_servers: BTreeMap<String, String>,

    /// Registries (HOST:PORT, or HOST) that are asked over plain http; they are shown no credentials (file only)
    #[arg(skip)]
    #[serde(default)]
    pub insecure_registries: Vec<String>,

    /// Further kinds that hold a pod template (file only)
    #[arg(skip)]
    #[serde(default)]
    pub kinds: Vec<FurtherKind>,
}

/// Settings for one host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct HostSettings {
    /// Certificates of authorities to trust for this host only, PEM.
    #[serde(default)]
    pub trust_ca: Vec<PathBuf>,
    /// A certificate to show to this host, PEM, with its chain.
    #[serde(default)]
    pub client_cert: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(default)]
    pub client_key: Option<PathBuf>,
    /// The host, with its port, to connect to wherever this one is named.
    #[serde(default)]
    pub mirror: Option<String>,
    /// Hosts of token servers that get credentials for this one, besides those of its own domain.
    #[serde(default)]
    pub token_servers: Vec<String>,
}

/// Why settings make no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// The file cannot be read, or says something unknown.
    #[error("configuration file {path}: {problem}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Settings that contradict each other or are impossible.
    #[error("{0}")]
    Invalid(String),
}

/// The settings of `serve`, resolved.
#[derive(Debug, Clone)]
#[expect(clippy::struct_field_names, reason = "its fields are called as the settings that they come from")]
pub(crate) struct Config {
    /// Folder of policies; without one they come from the cluster.
    pub policies: Option<PathBuf>,
    /// Address for reviews.
    pub listen: SocketAddr,
    /// Address for probes and metrics.
    pub ops_listen: SocketAddr,
    /// The cluster's kubeconfig; without one it is the cluster around.
    pub kubeconfig: Option<PathBuf>,
    /// See [`Settings::namespace`].
    pub namespace: Option<String>,
    /// See [`Settings::shutdown_delay`].
    pub shutdown_delay: Duration,
    /// Where the certificate comes from.
    pub tls: TlsSource,
    /// Who may send reviews; without it, everybody.
    pub clients: Option<ClientCertificates>,
    /// See [`Settings::webhook_configuration`].
    pub webhook_configuration: Option<String>,
    /// Authorities to trust everywhere.
    pub trust_ca: Vec<PathBuf>,
    /// Settings for single hosts.
    pub hosts: BTreeMap<String, HostSettings>,
    /// See [`Settings::trust_refresh`].
    pub trust_refresh: Duration,
    /// See [`Settings::trust_stale`].
    pub trust_stale: Duration,
    /// See [`Settings::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// See [`Settings::registry_config`].
    pub registry_config: Option<PathBuf>,
    /// See [`Settings::namespace_trust_servers`].
    pub namespace_trust_servers: Option<Vec<String>>,
    /// See [`Settings::private_trust`].
    pub private_trust: bool,
    /// Countersign's own namespace.
    pub secrets_namespace: String,
    /// See [`Settings::cluster_policy_secrets`].
    pub cluster_policy_secrets: ClusterPolicySecrets,
    /// See [`Settings::trusted_controllers`].
    pub trusted_controllers: Vec<String>,
    /// See [`Settings::verify_children`].
    pub verify_children: bool,
    /// See [`Settings::pin`].
    pub pin: PinStyle,
    /// See [`Settings::mode`].
    pub mode: PolicyMode,
    /// Who may break the glass.
    pub break_glass: BreakGlass,
    /// See [`Settings::messages`].
    pub messages: String,
    /// See [`Settings::deadline`].
    pub deadline: Duration,
    /// See [`Settings::log_format`].
    pub log_format: LogFormat,
    /// See [`Settings::log_level`].
    pub log_level: LogLevel,
    /// See [`Settings::trust_servers`].
    pub trust_servers: BTreeMap<String, String>,
    /// See [`Settings::insecure_registries`].
    pub insecure_registries: Vec<String>,
    /// See [`Settings::cosign_refresh`].
    pub cosign_refresh: Duration,
    /// See [`Settings::kinds`].
    pub kinds: Vec<FurtherKind>,
}

/// Where the serving certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TlsSource {
    /// Files.
    Files {
        /// The certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Made at start, and written here for clients to trust.
    SelfSigned(PathBuf),
    /// Made and rotated by Countersign, and kept in a Secret of the cluster.
    Managed {
        /// The Secret.
        secret: String,
        /// The Service that the certificate is for.
        service: String,
        /// Further names.
        names: Vec<String>,
        /// How long a certificate lives.
        lifetime: Duration,
    },
}

impl Settings {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// A file that cannot be read, or says something unknown.
    pub(crate) fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let failed = |problem: String| ConfigError::File { path: path.display().to_string(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let settings: Self =
            serde_saphyr::from_str(&text).map_err(|error| failed(error.without_snippet().to_string()))?;
        settings.kinds.iter().try_for_each(FurtherKind::check).map_err(failed)?;
        Ok(settings)
    }

    /// These settings, completed by those of a file. What is given here wins. By hand, and not by a library for layers: the compiler says
    /// if a setting is forgotten, and a fault of the file is told with its line.
    #[must_use]
    pub(crate) fn or(self, file: Self) -> Self {
        Self {
            policies: self.policies.or(file.policies),
            kubeconfig: self.kubeconfig.or(file.kubeconfig),
            namespace: self.namespace.or(file.namespace),
            tls_secret: self.tls_secret.or(file.tls_secret),
            service: self.service.or(file.service),
            tls_name: if self.tls_name.is_empty() { file.tls_name } else { self.tls_name },
            tls_lifetime: self.tls_lifetime.or(file.tls_lifetime),
            webhook_configuration: self.webhook_configuration.or(file.webhook_configuration),
            shutdown_delay: self.shutdown_delay.or(file.shutdown_delay),
            listen: self.listen.or(file.listen),
            ops_listen: self.ops_listen.or(file.ops_listen),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            client_ca: self.client_ca.or(file.client_ca),
            client_name: if self.client_name.is_empty() { file.client_name } else { self.client_name },
            self_signed: self.self_signed.or(file.self_signed),
            trust_ca: if self.trust_ca.is_empty() { file.trust_ca } else { self.trust_ca },
            trust_refresh: self.trust_refresh.or(file.trust_refresh),
            trust_stale: self.trust_stale.or(file.trust_stale),
            state_dir: self.state_dir.or(file.state_dir),
            registry_config: self.registry_config.or(file.registry_config),
            namespace_trust_servers: self.namespace_trust_servers.or(file.namespace_trust_servers),
            private_trust: self.private_trust.or(file.private_trust),
            secrets_namespace: self.secrets_namespace.or(file.secrets_namespace),
            cluster_policy_secrets: self.cluster_policy_secrets.or(file.cluster_policy_secrets),
            trusted_controllers: self.trusted_controllers.or(file.trusted_controllers),
            verify_children: self.verify_children.or(file.verify_children),
            pin: self.pin.or(file.pin),
            mode: self.mode.or(file.mode),
            break_glass_user: if self.break_glass_user.is_empty() {
                file.break_glass_user
            } else {
                self.break_glass_user
            },
            break_glass_group: if self.break_glass_group.is_empty() {
                file.break_glass_group
            } else {
                self.break_glass_group
            },
            messages: self.messages.or(file.messages),
            deadline: self.deadline.or(file.deadline),
            log_format: self.log_format.or(file.log_format),
            log_level: self.log_level.or(file.log_level),
            hosts: file.hosts,
            trust_servers: file.trust_servers,
            insecure_registries: file.insecure_registries,
            cosign_refresh: self.cosign_refresh.or(file.cosign_refresh),
            kinds: file.kinds,
        }
    }

    /// Fills in the defaults and checks what can be checked before anything starts.
    ///
    /// # Errors
    /// Settings that make no sense.
    pub(crate) fn resolve(self) -> Result<Config, ConfigError> {
        let invalid = |text: &str| Err(ConfigError::Invalid(text.to_owned()));
        if self.policies.is_some() && self.kubeconfig.is_some() {
            return invalid("policies come from files or from a cluster: give --policies or --kubeconfig");
        }
        if self.policies.is_some() && self.webhook_configuration.is_some() {
            return invalid("--webhook-configuration needs a cluster: with --policies there is none");
        }
        let lifetime = self.tls_lifetime.map_or(Duration::from_secs(90 * 86_400), |span| span.0);
        if lifetime < Duration::from_secs(3) || lifetime > Duration::from_secs(3650 * 86_400) {
            return invalid("--tls-lifetime must be at least 3s, for tests, and at most 3650d");
        }
        let managed = self.tls_secret.is_some();
        let tls = match (self.tls_cert, self.tls_key, self.self_signed) {
            (Some(certificate), Some(key), None) if !managed => TlsSource::Files { certificate, key },
            (None, None, Some(path)) if !managed => TlsSource::SelfSigned(path),
            (None, None, None) if self.policies.is_none() => TlsSource::Managed {
                secret: self.tls_secret.unwrap_or_else(|| TLS_SECRET.to_owned()),
                service: self.service.unwrap_or_else(|| NAME.to_owned()),
                names: self.tls_name,
                lifetime,
            },
            (None, None, None) => {
                return invalid(
                    "no certificate to serve with: give --tls-cert and --tls-key, or --self-signed FILE to try things out",
                );
            }
            _ => return invalid("give --tls-cert together with --tls-key, or --self-signed or --tls-secret alone"),
        };
        let clients = ClientCertificates::resolve(self.client_ca, self.client_name)?;
        let shutdown_delay = self.shutdown_delay.map_or(Duration::ZERO, |span| span.0);
        if shutdown_delay > Duration::from_secs(300) {
            return invalid("--shutdown-delay must be at most 300s");
        }
        let deadline = self.deadline.map_or(Duration::from_secs(8), |span| span.0);
        if deadline.is_zero() || deadline > Duration::from_secs(30) {
            return invalid("--deadline must be more than 0 and at most 30s, the longest that an API server waits");
        }
        if let Some(host) = self.insecure_registries.iter().find(|host| check_host(host).is_err()) {
            return invalid(&format!("insecure-registries: {host:?} is no registry: write HOST:PORT, or HOST"));
        }
        let address = |given: Option<SocketAddr>, port| given.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], port)));
        let controllers = || {
            let user = |name: &&str| format!("system:serviceaccount:kube-system:{name}");
            CONTROLLERS.iter().map(user).collect()
        };
        Ok(Config {
            policies: self.policies,
            listen: address(self.listen, 8443),
            ops_listen: address(self.ops_listen, 8081),
            kubeconfig: self.kubeconfig,
            namespace: self.namespace,
            shutdown_delay,
            tls,
            clients,
            webhook_configuration: self.webhook_configuration,
            trust_ca: self.trust_ca,
            hosts: self.hosts,
            trust_refresh: self.trust_refresh.map_or(Duration::from_secs(30), |span| span.0),
            trust_stale: self.trust_stale.map_or(Duration::ZERO, |span| span.0),
            state_dir: self.state_dir,
            registry_config: self.registry_config,
            namespace_trust_servers: self.namespace_trust_servers,
            private_trust: self.private_trust.unwrap_or_default(),
            secrets_namespace: self.secrets_namespace.unwrap_or_else(|| "countersign".to_owned()),
            cluster_policy_secrets: self.cluster_policy_secrets.unwrap_or_default(),
            trusted_controllers: self.trusted_controllers.unwrap_or_else(controllers),
            verify_children: self.verify_children.unwrap_or_default(),
            pin: self.pin.unwrap_or_default().into(),
            mode: self.mode.unwrap_or_default().into(),
            break_glass: BreakGlass::new(self.break_glass_user, self.break_glass_group)?,
            messages: self.messages.unwrap_or_else(|| MESSAGES.to_owned()),
            deadline,
            log_format: self.log_format.unwrap_or_default(),
            log_level: self.log_level.unwrap_or_default(),
            trust_servers: self.trust_servers,
            insecure_registries: self.insecure_registries,
            cosign_refresh: self.cosign_refresh.map_or(Duration::from_secs(3600), |span| span.0),
            kinds: self.kinds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let millis = |text: &str| text.parse::<Span>().map(|span| span.0.as_millis());
        for (text, expected) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("90d", 7_776_000_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1mo", "1y", "99999999999999999999h", "18446744073709551615h"] {
            assert!(millis(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_file_completes_what_was_typed() {
        let file: Settings =
            serde_saphyr::from_str("trust-refresh: 1m\nmode: audit\nhosts: {h: {trust-ca: [a.pem]}}\n").unwrap();
        let typed = Settings { mode: Some(Mode::Warn), self_signed: Some("x".into()), ..Settings::default() };
        let config = typed.or(file).resolve().unwrap();
        assert_eq!((config.mode, config.trust_refresh), (PolicyMode::Warn, Duration::from_secs(60)));
        assert_eq!(config.hosts["h"].trust_ca, [PathBuf::from("a.pem")]);
        assert!(
            config.trusted_controllers.contains(&"system:serviceaccount:kube-system:replicaset-controller".to_owned())
        );
    }

    /// A flag wins over the environment, and that over the file, also where it says no.
    #[test]
    fn what_is_nearer_wins() {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            settings: Settings,
        }
        let file = || serde_saphyr::from_str::<Settings>("private-trust: true\nverify-children: true\n").unwrap();
        let typed = |flags: &[&str]| {
            let parsed = <Command as clap::Parser>::try_parse_from([&["x"], flags].concat());
            parsed.map(|command| command.settings.or(file()))
        };
        for (flags, expected) in [
            (&[][..], (Some(true), Some(true))),
            (&["--private-trust=false"], (Some(false), Some(true))),
            (&["--private-trust=no", "--verify-children"], (Some(false), Some(true))),
            (&["--private-trust", "--verify-children=0"], (Some(true), Some(false))),
        ] {
            let settings = typed(flags).unwrap();
            assert_eq!((settings.private_trust, settings.verify_children), expected, "{flags:?}");
        }
        for flags in [["--private-trust=maybe"], ["--log-level=banana"], ["--mode=banana"], ["--log-format=banana"]] {
            assert!(typed(&flags).is_err(), "{flags:?}");
        }
        for text in ["log-level: banana\n", "private-trust: maybe\n", "mode: banana\n"] {
            assert!(serde_saphyr::from_str::<Settings>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(serde_saphyr::from_str::<Settings>("no-such-setting: 1\n").is_err());
        // In a cluster a certificate is made; with policies from files there is no cluster to keep it in.
        assert!(matches!(Settings::default().resolve().unwrap().tls, TlsSource::Managed { .. }));
        let from_files = || Settings { policies: Some("p".into()), ..Settings::default() };
        assert!(from_files().resolve().is_err());
        assert!(Settings { tls_secret: Some("s".into()), ..from_files() }.resolve().is_err());
        assert!(Settings { kubeconfig: Some("k".into()), ..from_files() }.resolve().is_err());
        let deadline =
            Settings { deadline: Some(Span(Duration::ZERO)), self_signed: Some("x".into()), ..Settings::default() };
        assert!(deadline.resolve().is_err());
        let registered =
            Settings { webhook_configuration: Some("w".into()), self_signed: Some("x".into()), ..from_files() };
        assert!(registered.resolve().unwrap_err().to_string().contains("--webhook-configuration needs a cluster"));
    }
}
