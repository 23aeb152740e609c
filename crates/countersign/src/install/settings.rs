//! The settings of the installed server: those that somebody gives, and those by which its parts fit each other.

use std::collections::BTreeMap;

use countersign_image::Sha256;
use serde_json::{Map, Value, json};

use super::{Install, InstallError, NAME, OPERATIONS_PORT, REVIEWS_PORT, TLS_SECRET, Tls};
use crate::config::{FurtherKind, Mode, Settings, Span};
use crate::crd::Platform;

pub(super) const CONFIG_FOLDER: &str = "/etc/countersign";
pub(super) const TRUST_CA_FOLDER: &str = "/etc/countersign-trust-ca";
pub(super) const TLS_FOLDER: &str = "/tls";

/// Settings for a server that is not installed in the cluster that it serves.
const ELSEWHERE: [&str; 4] = ["kubeconfig", "policies", "secrets-namespace", "self-signed"];

/// Settings that the installation decides, so that all of its parts fit each other.
const DECIDED: [&str; 6] = ["namespace", "service", "tls-cert", "tls-key", "tls-secret", "webhook-configuration"];

/// How much less than the API server waits a review may take, so that the answer is there in time.
const MARGIN_SECONDS: u32 = 2;

/// How long API servers wait that know no `timeoutSeconds`.
const OLD_TIMEOUT_SECONDS: u32 = 30;

/// The default of `timeoutSeconds`, which is all that [`Platform::OpenShift311`] can have.
const TIMEOUT_SECONDS: u32 = 10;

pub(super) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Warn => "warn",
        Mode::Audit => "audit",
    }
}

/// A setting as it is told: a text without quotation marks.
fn told(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn refused(setting: &str, problem: &str) -> InstallError {
    InstallError::Values(format!("config.{setting} {problem}"))
}

/// The same with the members of all objects in order, as Helm writes JSON.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<_, _> = members.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
            members.into_iter().collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        _ => value.clone(),
    }
}

impl Install {
    /// All settings of the server.
    ///
    /// # Errors
    /// Settings that contradict what else is installed.
    pub(super) fn settings(&self) -> Result<Value, InstallError> {
        let empty = Map::new();
        let given = self.config.as_object().unwrap_or(&empty);
        if let Some(name) = ELSEWHERE.iter().find(|name| given.contains_key(**name)) {
            return Err(refused(name, "makes no sense for a server that runs in its cluster; leave it out"));
        }
        let mut settings = Map::from_iter([
            ("mode".to_owned(), json!(mode_name(self.mode))),
            ("namespace".to_owned(), json!(self.namespace)),
            ("webhook-configuration".to_owned(), json!(NAME)),
        ]);
        let tls = match self.tls {
            Tls::SelfManaged => [("tls-secret", TLS_SECRET.to_owned()), ("service", NAME.to_owned())],
            Tls::CertManager | Tls::Secret { .. } => {
                [("tls-cert", format!("{TLS_FOLDER}/tls.crt")), ("tls-key", format!("{TLS_FOLDER}/tls.key"))]
            }
        };
        settings.extend(tls.map(|(name, value)| (name.to_owned(), json!(value))));
        if let Some(mode) = given.get("mode").filter(|mode| Some(*mode) != settings.get("mode")) {
            let problem = format!("is {}, and mode is {}; give mode alone", told(mode), mode_name(self.mode));
            return Err(refused("mode", &problem));
        }
        if let Some(name) =
            DECIDED.iter().find(|name| given.get(**name).is_some_and(|value| settings.get(**name) != Some(value)))
        {
            return Err(refused(name, "is not what the installation needs; leave it out"));
        }
        for (name, port) in [("listen", REVIEWS_PORT), ("ops-listen", OPERATIONS_PORT)] {
            let address = given.get(name).cloned().unwrap_or_else(|| json!(format!("0.0.0.0:{port}")));
            if !told(&address).ends_with(&format!(":{port}")) {
                return Err(refused(name, &format!("is {}; its port must be {port}", told(&address))));
            }
            settings.insert(name.to_owned(), address);
        }
        settings.insert("deadline".to_owned(), json!(self.deadline(given)?));
        settings
            .insert("shutdown-delay".to_owned(), given.get("shutdown-delay").cloned().unwrap_or_else(|| json!("5s")));
        let mut authorities = vec![json!(TRUST_CA_FOLDER)];
        authorities.extend(given.get("trust-ca").and_then(Value::as_array).into_iter().flatten().cloned());
        settings.insert("trust-ca".to_owned(), Value::Array(authorities));
        for (name, value) in given {
            settings.entry(name).or_insert_with(|| value.clone());
        }
        Ok(Value::Object(settings))
    }

    /// How long a review may take: less than the API server waits for it.
    fn deadline(&self, given: &Map<String, Value>) -> Result<String, InstallError> {
        let timeout = match self.platform {
            Platform::Kubernetes => self.timeout_seconds,
            Platform::OpenShift311 if self.timeout_seconds != TIMEOUT_SECONDS => {
                let problem = "timeoutSeconds: the webhooks of OpenShift 3.11 have none; its API server waits 30 s";
                return Err(InstallError::Values(problem.to_owned()));
            }
            Platform::OpenShift311 => OLD_TIMEOUT_SECONDS,
        };
        let Some(deadline) = given.get("deadline") else {
            return Ok(format!("{}s", self.timeout_seconds.saturating_sub(MARGIN_SECONDS).max(1)));
        };
        let deadline = told(deadline);
        let span: Span = deadline.parse().map_err(|problem: String| refused("deadline", &problem))?;
        if span.0.as_secs_f64() >= f64::from(timeout) {
            let problem = format!("is {deadline}, and must be less than the {timeout} s that the API server waits");
            return Err(refused("deadline", &problem));
        }
        Ok(deadline)
    }

    /// For how long a pod still takes reviews once it is asked to stop, in whole seconds.
    pub(super) fn shutdown_delay_seconds(&self) -> Result<u64, InstallError> {
        let delay = told(&self.settings()?["shutdown-delay"]);
        let span: Span = delay.parse().map_err(|problem: String| refused("shutdown-delay", &problem))?;
        Ok(span.0.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX / 2))
    }

    /// The settings as the file that the server reads. What it would refuse is refused here, before it is in a cluster.
    fn settings_file(&self) -> Result<String, InstallError> {
        let text = format!("{}\n", serde_saphyr::to_string(&self.settings()?)?.trim_end());
        let wrong = |problem: String| InstallError::Values(format!("config: {problem}"));
        let read: Settings =
            serde_saphyr::from_str(&text).map_err(|error| wrong(error.without_snippet().to_string()))?;
        read.kinds.iter().try_for_each(FurtherKind::check).map_err(wrong)?;
        read.resolve().map_err(|error| wrong(error.to_string()))?;
        Ok(text)
    }

    /// Of what they say, and not of how it is written: so whoever goes from manifests to the chart, or back, gets no new pods for that.
    pub(super) fn settings_checksum(&self) -> Result<String, InstallError> {
        Ok(Sha256::of(sorted(&self.settings()?).to_string().as_bytes()).hex())
    }

    pub(super) fn config_map(&self) -> Result<Value, InstallError> {
        Ok(self.object("v1", "ConfigMap", json!({"data": {"config.yaml": self.settings_file()?}})))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(config: Value) -> Install {
        Install { config, ..Install::default() }
    }

    #[test]
    fn what_is_installed_is_what_the_server_reads() {
        for tls in [Tls::SelfManaged, Tls::CertManager] {
            let install = Install { tls, ..with(json!({"trust-ca": ["/more"], "listen": "[::]:8443"})) };
            let settings: Settings = serde_saphyr::from_str(&install.settings_file().unwrap()).unwrap();
            let config = settings.resolve().unwrap();
            assert_eq!(config.trust_ca.len(), 2);
            assert_eq!(config.listen, "[::]:8443".parse().unwrap());
            assert_eq!(config.deadline, std::time::Duration::from_secs(8));
            assert_eq!(config.webhook_configuration.as_deref(), Some(NAME));
        }
    }

    #[test]
    fn what_is_said_twice_must_be_the_same() {
        assert!(with(json!({"mode": "enforce", "namespace": "countersign", "deadline": "9s"})).settings().is_ok());
        for config in [
            json!({"mode": "warn"}),
            json!({"namespace": "other"}),
            json!({"tls-cert": "/tls/tls.crt"}),
            json!({"tls-secret": "other"}),
            json!({"listen": "0.0.0.0:443"}),
            json!({"ops-listen": "0.0.0.0:18081"}),
            json!({"deadline": "10s"}),
            json!({"deadline": "x"}),
            json!({"policies": "/policies"}),
        ] {
            assert!(with(config.clone()).settings().is_err(), "{config}");
        }
        assert!(
            Install { timeout_seconds: 5, platform: Platform::OpenShift311, ..Install::default() }.settings().is_err()
        );
    }

    #[test]
    fn what_the_server_would_refuse_is_refused() {
        for config in [
            json!({"no-such-setting": 1}),
            json!({"trust-refresh": "often"}),
            json!({"client-name": ["kube-apiserver"]}),
            json!({"shutdown-delay": "10m"}),
            json!({"kinds": [{"group": "x.io", "kind": "K", "pod-template": "/spec", "resource": "A B"}]}),
        ] {
            assert!(with(config.clone()).config_map().is_err(), "{config}");
        }
    }

    #[test]
    fn a_stop_may_take_as_long_as_it_is_told_to() {
        for (delay, seconds) in [("5s", 5), ("1500ms", 2), ("2m", 120)] {
            assert_eq!(with(json!({"shutdown-delay": delay})).shutdown_delay_seconds().unwrap(), seconds);
        }
    }
}
