//! How pinned images are written, as settings say it.

use countersign_policy::PinStyle;
use serde::Deserialize;

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
