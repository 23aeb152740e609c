//! Releases of Kubernetes, by which what is printed differs.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A release of Kubernetes: `1.20`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KubeVersion {
    major: u32,
    minor: u32,
}

impl KubeVersion {
    /// The first release that serves `apiextensions.k8s.io/v1` and `admissionregistration.k8s.io/v1`.
    pub(crate) const FIRST: Self = Self::one(16);

    /// A release of the first major version.
    #[must_use]
    pub(crate) const fn one(minor: u32) -> Self {
        Self { major: 1, minor }
    }
}

/// A text that is no release of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is not a release of Kubernetes, such as 1.20")]
pub(crate) struct NoRelease;

impl FromStr for KubeVersion {
    type Err = NoRelease;

    /// Takes what `kubectl version` prints too: `v1.20.2`, and `1.20+` as some providers have it.
    fn from_str(text: &str) -> Result<Self, NoRelease> {
        let mut parts = text.strip_prefix('v').unwrap_or(text).splitn(3, '.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let minor = minor.strip_suffix('+').unwrap_or(minor);
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits).ok_or(NoRelease)
        };
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for KubeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_people_write_them() {
        for text in ["1.20", "v1.20", "1.20.2", "v1.20.15-eks-1", "1.20+"] {
            assert_eq!(text.parse(), Ok(KubeVersion::one(20)), "{text}");
        }
        for text in ["", "1", "1.", "1.x", "1.+20", "+1.20", "1.20x", "today", "1.99999999999"] {
            assert_eq!(text.parse::<KubeVersion>(), Err(NoRelease), "{text}");
        }
        assert!(KubeVersion::one(9) < KubeVersion::one(16) && KubeVersion::one(37) < "2.0".parse().unwrap());
    }
}
