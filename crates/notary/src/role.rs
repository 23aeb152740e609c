//! The names of roles.

use std::fmt;
use std::sync::Arc;

/// The longest name of a delegation, in bytes (`tuf/data/roles.go` of Notary).
const MAX_ROLE_NAME: usize = 255;

/// The name of a role: `root`, `timestamp`, `snapshot`, `targets`, or a delegation such as `targets/alice`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleName(Arc<str>);

impl RoleName {
    /// `root`
    #[must_use]
    pub fn root() -> Self {
        Self("root".into())
    }

    /// `timestamp`
    #[must_use]
    pub fn timestamp() -> Self {
        Self("timestamp".into())
    }

    /// `snapshot`
    #[must_use]
    pub fn snapshot() -> Self {
        Self("snapshot".into())
    }

    /// `targets`
    #[must_use]
    pub fn targets() -> Self {
        Self("targets".into())
    }

    /// The delegation that says what Docker's tools have released.
    #[must_use]
    pub fn releases() -> Self {
        Self("targets/releases".into())
    }

    /// The delegation of a signer, `targets/NAME`.
    #[must_use]
    pub fn signer(name: &str) -> Self {
        Self(format!("targets/{name}").into())
    }

    /// A role by its full name, where that is legal.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if matches!(name, "root" | "timestamp" | "snapshot" | "targets") {
            return Some(Self(name.into()));
        }
        Self::targets().child(name).or_else(|| Self(name.rsplit_once('/')?.0.into()).child(name))
    }

    /// The signer whose role this one is below (`NAME` of `targets/NAME/…`).
    pub(crate) fn signer_above(&self) -> Option<&str> {
        let below_targets = self.0.strip_prefix("targets/")?;
        below_targets.split_once('/').map(|(signer, _)| signer)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a delegation, if it is legal and directly below this role: one more part of `[-a-z0-9_]+`, under 256 bytes in all
    /// (`docs/notary-v1.md#names`).
    pub(crate) fn child(&self, name: &str) -> Option<Self> {
        let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        let last = name.strip_prefix(self.as_str())?.strip_prefix('/')?;
        let in_targets = self.as_str() == "targets" || self.as_str().starts_with("targets/");
        let good = in_targets && name.len() <= MAX_ROLE_NAME && !last.is_empty() && last.bytes().all(legal);
        good.then(|| Self(name.into()))
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
