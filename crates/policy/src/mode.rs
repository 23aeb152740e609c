//! What is done with an image that is denied.

/// What is done with an image that is denied. They are ordered: the later one is the stricter one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mode {
    /// It is admitted; the denial is logged and counted.
    Audit,
    /// It is admitted, and the user is warned.
    Warn,
    /// It is denied.
    #[default]
    Enforce,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Audit, Self::Warn, Self::Enforce];

    /// As policies, labels, logs and metrics write it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Warn => "warn",
            Self::Enforce => "enforce",
        }
    }

    /// Reads what [`Self::label`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.label() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_denies_is_the_strictest() {
        assert_eq!(Mode::ALL.into_iter().max(), Some(Mode::Enforce));
        assert_eq!(Mode::Audit.max(Mode::Warn), Mode::Warn);
        assert!(Mode::ALL.into_iter().all(|mode| Mode::parse(mode.label()) == Some(mode)));
        assert_eq!(Mode::parse("Enforce"), None);
    }
}
