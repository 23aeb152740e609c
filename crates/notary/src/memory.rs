//! What is remembered of a repository, so that it cannot go backwards or be swapped unnoticed.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_image::Sha256;

use crate::error::Error;
use crate::metadata::Metadata;
use crate::role::RoleName;
use crate::root::{RootRecord, same_root};
use crate::signed::{Offered, Trusted};

/// Of how many roles of one repository the versions are remembered: those that are delegated now, and those that once were.
pub const MAX_SEEN: usize = 4096;

/// The newest version of a role's file that was verified, and what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its version.
    pub version: u64,
    /// sha256 of the canonical form of what was signed.
    pub content: Sha256,
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

    /// What two who looked at the same repository know together: of each role the newer version, and the newer root with all that is
    /// known of the chain which led to it.
    ///
    /// `None` if they do not fit together, so that one of them was shown something else: the chain of the newer root does
    /// not lead over the older one, or both saw one version with different content.
    #[must_use]
    pub fn join(&self, other: &Self) -> Option<Self> {
        let (older, newer) = if other.is_further_than(self) { (self, other) } else { (other, self) };
        let mut joined = Self { root: newer.root.clone(), lineage: newer.lineage.clone(), seen: self.seen.clone() };
        if let Some(last) = older.lineage.last() {
            let same = newer.lineage.last().is_some_and(|root| root.version == last.version);
            let fits =
                if same { is_one_root(newer, older) } else { newer.lineage.iter().any(|root| root.agrees(last)) };
            if !fits {
                return None;
            }
        }
        // The older one may reach further back, to a root that is pinned.
        let common = |first: &RootRecord| older.lineage.iter().position(|root| root.agrees(first));
        if let Some(common) = newer.lineage.first().and_then(common) {
            joined.lineage.splice(0..0, older.lineage.iter().take(common).cloned());
        }
        for (role, theirs) in &other.seen {
            match joined.seen.get(role) {
                Some(ours) if ours.version == theirs.version && ours.content != theirs.content => return None,
                Some(ours) if ours.version >= theirs.version => {}
                _ => {
                    joined.seen.insert(role.clone(), *theirs);
                }
            }
        }
        Some(joined)
    }

    /// Whether it knows all that the other knows: whoever has this one needs the other no more.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.join(other).as_ref() == Some(self)
    }

    /// Whether its root is newer, or is the same one with more of the chain that led to it.
    fn is_further_than(&self, other: &Self) -> bool {
        let reach = |memory: &Self| (memory.lineage.last().map(|root| root.version), memory.lineage.len());
        reach(self) > reach(other)
    }

    /// About how many bytes it takes to keep it.
    #[must_use]
    pub fn size(&self) -> usize {
        let names: usize = self.seen.keys().map(|role| role.as_str().len() + size_of::<Seen>()).sum();
        let keys: usize = self.lineage.iter().map(|root| size_of_val(root) + size_of_val(root.keys.as_slice())).sum();
        self.root.as_ref().map_or(0, |root| root.len()) + names + keys
    }

    /// Takes note of a verified file.
    pub(crate) fn note<T: Metadata>(&mut self, trusted: &Trusted<T>) {
        self.seen.insert(trusted.role().clone(), Seen::of(trusted));
    }
}

fn is_one_root(one: &Memory, other: &Memory) -> bool {
    match (&one.root, &other.root) {
        (Some(one), Some(other)) => same_root(one, other),
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyId;
    use crate::root::RootKey;

    #[test]
    fn all_that_is_kept_counts() {
        let empty = Memory::default();
        assert_eq!(empty.size(), 0);
        let key = KeyId::from_hex(&"a".repeat(64)).unwrap();
        let root_key = RootKey { id: key, canonical_id: key };
        let record = RootRecord { version: 1, threshold: 1, keys: vec![root_key; 3] };
        let rooted = Memory { root: Some(vec![0; 1000].into()), ..empty.clone() };
        assert_eq!(rooted.size(), 1000);
        let lined = Memory { lineage: vec![record.clone(), record.clone()], ..rooted.clone() };
        assert_eq!(lined.size(), 1000 + 2 * (size_of::<RootRecord>() + 3 * size_of::<RootKey>()));
        let seen = Seen { version: 1, content: Sha256::from_bytes([0; 32]) };
        let full = Memory { seen: [(RoleName::targets(), seen), (RoleName::root(), seen)].into(), ..lined.clone() };
        assert_eq!(full.size(), lined.size() + "targets".len() + "root".len() + 2 * size_of::<Seen>());
    }
}
