//! What is remembered of a repository, so that it cannot go backwards or be swapped unnoticed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Error;
use crate::metadata::{Metadata, RoleName};
use crate::root::RootRecord;
use crate::signed::{Offered, Trusted};

/// The newest version of a role's file that was verified, and what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its version.
    pub version: u64,
    /// sha256 of the canonical form of what was signed.
    pub content: [u8; 32],
}

impl Seen {
    pub(crate) fn of<T: Metadata>(trusted: &Trusted<T>) -> Self {
        Self { version: trusted.body().version(), content: trusted.content() }
    }

    pub(crate) fn offered<T: Metadata>(offered: &Offered<T>) -> Self {
        Self { version: offered.unverified().version(), content: offered.content() }
    }
}

/// What is remembered of one repository on one server. It only ever grows out of a whole verified [`crate::Repository`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// The last root that was trusted, as it came. The next one must be chained to it.
    pub root: Option<Arc<[u8]>>,
    /// The roots that led to it, oldest first.
    pub lineage: Vec<RootRecord>,
    /// The newest version of each role's file, delegations included.
    pub seen: BTreeMap<RoleName, Seen>,
}

impl Memory {
    /// The version of a role that was seen last.
    pub(crate) fn version(&self, role: &RoleName) -> Option<u64> {
        self.seen.get(role).map(|seen| seen.version)
    }

    /// Refuses an older version than was seen, and the same version with another content.
    pub(crate) fn check(&self, role: &RoleName, offered: Seen) -> Result<(), Error> {
        match self.seen.get(role) {
            Some(seen) if offered.version < seen.version => {
                Err(Error::Rollback { role: role.clone(), offered: offered.version, remembered: seen.version })
            }
            Some(seen) if offered.version == seen.version && offered.content != seen.content => {
                Err(Error::SameVersionOtherContent { role: role.clone(), version: offered.version })
            }
            _ => Ok(()),
        }
    }

    /// What two who looked at the same repository know together: of each role the newer version, and the newer root. Where
    /// both saw one version with different content, what `self` saw stays, so that the other's is refused.
    #[must_use]
    pub fn join(mut self, other: &Self) -> Self {
        for (role, seen) in &other.seen {
            let newer = self.seen.get(role).is_none_or(|ours| ours.version < seen.version);
            if newer {
                self.seen.insert(role.clone(), *seen);
            }
        }
        let root_version = |memory: &Self| memory.lineage.last().map(|record| record.version);
        if root_version(other) > root_version(&self) {
            self.root.clone_from(&other.root);
            self.lineage.clone_from(&other.lineage);
        }
        self
    }

    /// Takes note of a verified file.
    pub(crate) fn note<T: Metadata>(&mut self, trusted: &Trusted<T>) {
        self.seen.insert(trusted.role().clone(), Seen::of(trusted));
    }
}
