//! Settings that are one of a few words.

use countersign_policy::{Mode as PolicyMode, PinStyle};
use serde::Deserialize;

/// What is done with a workload that would be denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Denied.
    #[default]
    Enforce,
    /// Admitted, with the message as a warning to the user.
    Warn,
    /// Admitted; logged and counted only.
    Audit,
}

impl From<Mode> for PolicyMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Enforce => Self::Enforce,
            Mode::Warn => Self::Warn,
            Mode::Audit => Self::Audit,
        }
    }
}

/// Where the signer secrets of cluster policies are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClusterPolicySecrets {
    /// In Countersign's own namespace, where tenants cannot write.
    #[default]
    OwnNamespace,
    /// In the workload's namespace, as IBM Cloud Private did: a tenant may then choose the trusted key.
    WorkloadNamespace,
}

/// How pinned images are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pin {
    /// `app:v1@sha256:…`
    #[default]
    TagAndDigest,
    /// `app@sha256:…`
    Digest,
}

impl From<Pin> for PinStyle {
    fn from(pin: Pin) -> Self {
        match pin {
            Pin::TagAndDigest => Self::TagAndDigest,
            Pin::Digest => Self::Digest,
        }
    }
}
