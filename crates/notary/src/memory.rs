//! What is remembered of a repository, so that it cannot go backwards or be swapped unnoticed.
//!
//! `docs/notary-v1.md#memory` has the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_image::Sha256;

use crate::error::Error;
use crate::key::{KeyId, PublicKey};
use crate::metadata::{Metadata, RoleKeys};
use crate::role::RoleName;
use crate::root::{RootRecord, same_root};
use crate::signed::{Offered, Trusted};

/// How many bytes what is remembered of one repository may have as a record, with room for what a store adds: etcd takes 1.5 MiB in one
/// request by default. A repository that needs more is denied: what cannot be written would be forgotten at the next restart.
pub const MAX_RECORD_BYTES: usize = (1 << 20) - (16 << 10);

/// How many of these may be for the roles below one signer (`targets/NAME/…`). Whoever has a signer's key can make up any number of them,
/// and nothing that is remembered is ever dropped: a signer must not fill what others need.
pub const MAX_BYTES_BELOW: usize = 64 << 10;

/// The newest version of a role's file that was verified, and what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

    /// The later one of two; `None` if they are one version with different content.
    fn later(self, other: Self) -> Option<Self> {
        if self.version == other.version {
            return (self.content == other.content).then_some(self);
        }
        Some(if self.version > other.version { self } else { other })
    }
}

/// The newest versions of a role's file that were seen, below which none is believed.
///
/// Of a delegated role there is one for each key: the newest version that was seen while the role had that key. They count for a role that
/// still has the key. So a signer who is removed, and added again with other keys, begins anew; and a key that is taken from a role
/// and given back brings no file back that is older than those that were seen meanwhile with it.
///
/// A key counts as itself, see `PublicKey::material_id`: who lists it in another form has not taken it from the role.
///
/// One for no key counts whichever keys the role has: of the roles that the root names, and where a record did not say the keys. It stays
/// when the role is seen with its keys: which ones it had before nobody knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Floors(BTreeMap<Option<FloorKey>, Seen>);

/// The beginning of a key's `PublicKey::material_id`. Where two keys have one beginning, the floors of both count for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FloorKey([u8; 8]);

impl FloorKey {
    fn of(key: &PublicKey) -> Self {
        Self(key.material_id().prefix())
    }

    /// As it stands in a record.
    pub(crate) fn hex(self) -> String {
        countersign_image::to_hex(&self.0)
    }

    /// Reads that.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let whole = (text.len() == 16).then(|| KeyId::from_hex(&text.repeat(4)))??;
        Some(Self(whole.prefix()))
    }
}

impl From<Seen> for Floors {
    /// Counts whichever keys the role has.
    fn from(seen: Seen) -> Self {
        Self([(None, seen)].into())
    }
}

impl Floors {
    /// Of a version that was seen while a role had these keys.
    pub(crate) fn with_keys(seen: Seen, keys: &RoleKeys) -> Self {
        Self(keys.keys.iter().map(|key| (Some(FloorKey::of(key)), seen)).collect())
    }

    /// Of versions, each with a key.
    pub(crate) fn of_each(floors: impl IntoIterator<Item = (Option<FloorKey>, Seen)>) -> Self {
        Self(floors.into_iter().collect())
    }

    /// All of them, in the order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Option<FloorKey>, Seen)> {
        self.0.iter().map(|(key, seen)| (*key, *seen))
    }

    /// Whether one of them is for a key.
    pub(crate) fn have_keys(&self) -> bool {
        self.0.keys().any(Option::is_some)
    }

    /// The highest version, whichever keys it was seen with. Of two with one number the one whose key comes first.
    #[must_use]
    pub fn highest(&self) -> Option<Seen> {
        self.0.values().rev().max_by_key(|seen| seen.version).copied()
    }

    /// Those that count for a role which has these keys now; all, for a role that the root names.
    fn counting(&self, keys: Option<&RoleKeys>) -> Vec<Seen> {
        let Some(keys) = keys else {
            return self.0.values().copied().collect();
        };
        // There may be a hundred thousand of either.
        let keys = keys.keys.iter().map(|key| Some(FloorKey::of(key))).chain([None]);
        keys.filter_map(|key| self.0.get(&key)).copied().collect()
    }

    /// About how many bytes they take in a record, at most: what was seen stands there once for all keys that it was seen with.
    fn record_size(&self) -> usize {
        if !self.have_keys() {
            return 150;
        }
        let seen: BTreeSet<(bool, Seen)> = self.0.iter().map(|(key, seen)| (key.is_some(), *seen)).collect();
        180 + 150 * seen.len() + 22 * self.0.len()
    }

    /// Both together; `None` if one version was seen with different content under one key.
    fn join(&self, other: &Self) -> Option<Self> {
        let mut joined = self.0.clone();
        for (key, theirs) in &other.0 {
            let ours = joined.get(key).copied().unwrap_or(*theirs);
            joined.insert(*key, ours.later(*theirs)?);
        }
        Some(Self(joined))
    }
}

/// What is remembered of one repository on one server. It only ever grows out of a whole verified [`crate::Repository`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// The last root that was trusted, as it came. The next one must be chained to it.
    pub root: Option<Arc<[u8]>>,
    /// The roots that led to it, oldest first.
    pub lineage: Vec<RootRecord>,
    /// The newest versions of each role's file, delegations included.
    pub seen: BTreeMap<RoleName, Floors>,
}

impl Memory {
    /// The highest version of a role's file that was seen, whichever keys the role had.
    #[must_use]
    pub fn highest(&self, role: &RoleName) -> Option<u64> {
        Some(self.seen.get(role)?.highest()?.version)
    }

    /// The highest version of a role's file that was seen, as far as it counts for a role that has these keys now.
    pub(crate) fn version(&self, role: &RoleName, keys: &RoleKeys) -> Option<u64> {
        self.seen.get(role)?.counting(Some(keys)).iter().map(|seen| seen.version).max()
    }

    /// Refuses an older version than was seen, and the same version with another content. `keys` are those that a delegated role has now;
    /// none for a role that the root names.
    pub(crate) fn check(&self, role: &RoleName, keys: Option<&RoleKeys>, offered: Seen) -> Result<(), Error> {
        let counting = self.seen.get(role).map(|floors| floors.counting(keys)).unwrap_or_default();
        if let Some(newest) = counting.iter().map(|seen| seen.version).max()
            && offered.version < newest
        {
            return Err(Error::Rollback { role: role.clone(), offered: offered.version, remembered: newest });
        }
        if counting.iter().any(|seen| seen.later(offered).is_none()) {
            return Err(Error::SameVersionOtherContent { role: role.clone(), version: offered.version });
        }
        Ok(())
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
            let together = joined.seen.get(role).map_or_else(|| Some(theirs.clone()), |ours| ours.join(theirs))?;
            joined.seen.insert(role.clone(), together);
        }
        Some(joined)
    }

    /// Whether it knows all that the other knows: whoever has this one needs the other no more.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.join(other).as_ref() == Some(self)
    }

    /// Whether a record with this says all of the other that it can say: a record of an older release says no keys, and the highest version
    /// of each role counts then, whichever keys it has. The keys are written with whatever is new next.
    #[must_use]
    pub fn says(&self, other: &Self) -> bool {
        self.covers(other) || (self.seen.values().all(|floors| !floors.have_keys()) && other.without_keys() == *self)
    }

    /// The same as a record of an older release says it.
    fn without_keys(&self) -> Self {
        let highest = |(role, floors): (&RoleName, &Floors)| Some((role.clone(), floors.highest()?.into()));
        Self { seen: self.seen.iter().filter_map(highest).collect(), ..self.clone() }
    }

    /// Whether its root is newer, or is the same one with more of the chain that led to it.
    fn is_further_than(&self, other: &Self) -> bool {
        let reach = |memory: &Self| (memory.lineage.last().map(|root| root.version), memory.lineage.len());
        reach(self) > reach(other)
    }

    /// About how many bytes it takes to keep it.
    #[must_use]
    pub fn size(&self) -> usize {
        let floor = size_of::<(Option<FloorKey>, Seen)>();
        let names: usize = self.seen.iter().map(|(role, floors)| role.as_str().len() + floors.0.len() * floor).sum();
        let keys: usize = self.lineage.iter().map(|root| size_of_val(root) + size_of_val(root.keys.as_slice())).sum();
        self.root.as_ref().map_or(0, |root| root.len()) + names + keys
    }

    /// About how many bytes it takes as a record, at most; see [`MAX_RECORD_BYTES`].
    #[must_use]
    pub fn record_size(&self) -> usize {
        let roots: usize = self.lineage.iter().map(|root| 100 + 150 * root.keys.len()).sum();
        let root = self.root.as_ref().map_or(0, |root| root.len().div_ceil(3) * 4);
        2048 + root + roots + self.seen.iter().map(|(role, floors)| role_size(role, floors)).sum::<usize>()
    }

    /// The same of the roles below one signer alone; see [`MAX_BYTES_BELOW`].
    pub(crate) fn record_size_below(&self, signer: &str) -> usize {
        let below = self.seen.iter().filter(|(role, _)| role.signer_above() == Some(signer));
        below.map(|(role, floors)| role_size(role, floors)).sum()
    }

    /// How much larger a record would be if this were noted of a delegated role.
    pub(crate) fn growth<T: Metadata>(&self, trusted: &Trusted<T>, keys: &RoleKeys) -> usize {
        let role = trusted.role();
        let mut after = self.seen.get(role).cloned().unwrap_or_default();
        let before = self.seen.get(role).map_or(0, |floors| role_size(role, floors));
        after.0.extend(Floors::with_keys(Seen::of(trusted), keys).0);
        role_size(role, &after).saturating_sub(before)
    }

    /// Takes note of a verified file of a role that the root names.
    pub(crate) fn note<T: Metadata>(&mut self, trusted: &Trusted<T>) {
        self.seen.insert(trusted.role().clone(), Seen::of(trusted).into());
    }

    /// Takes note of a verified file of a delegated role that has these keys. It was checked: nothing that counts for these keys is newer.
    pub(crate) fn note_delegated<T: Metadata>(&mut self, trusted: &Trusted<T>, keys: &RoleKeys) {
        let floors = self.seen.entry(trusted.role().clone()).or_default();
        floors.0.extend(Floors::with_keys(Seen::of(trusted), keys).0);
    }
}

/// About how many bytes a role takes in a record, at most. Where there are keys its name stands there twice.
fn role_size(role: &RoleName, floors: &Floors) -> usize {
    let names = if floors.have_keys() { 2 } else { 1 };
    names * role.as_str().len() + floors.record_size()
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
    use crate::root::RootKey;

    /// Of a request of 1.5 MiB to etcd; and of the record fifteen signers can fill no more than there is.
    #[test]
    fn bounds_fit_into_what_stores_take() {
        assert_eq!((MAX_RECORD_BYTES, MAX_BYTES_BELOW), (1_032_192, 65_536));
    }

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
        let two = Floors::of_each([(None, seen), (Some(self::key(1)), seen)]);
        let full =
            Memory { seen: [(RoleName::targets(), seen.into()), (RoleName::root(), two)].into(), ..lined.clone() };
        let floor = size_of::<(Option<FloorKey>, Seen)>();
        assert_eq!(full.size(), lined.size() + "targets".len() + "root".len() + 3 * floor);
    }

    /// Whatever is remembered takes no more in a record than it counts for, also as text within the JSON of a `TrustRecord`.
    #[test]
    fn a_record_is_no_larger_than_it_counts_for() {
        let quoted = |text: Vec<u8>| serde_json::to_string(&String::from_utf8(text).unwrap()).unwrap().len();
        let seen = |version: u64| Seen { version, content: Sha256::from_bytes([9; 32]) };
        for (keys, versions) in [(0, 1), (1, 1), (40, 1), (40, 40), (200, 3), (200, 200)] {
            let floor = |number: u8| (Some(key(number)), seen((1 << 53) - u64::from(number) % versions));
            let floors = Floors::of_each((0..keys).map(floor).chain([(None, seen(1 << 52))]));
            let name = |role: usize| RoleName::parse(&format!("targets/{role:0240}")).unwrap();
            for (roles, roots) in [(1, 0), (30, 0), (1, 1), (1, 20)] {
                let id = KeyId::from_hex(&"a".repeat(64)).unwrap();
                let root_keys = vec![RootKey { id, canonical_id: id }; 50];
                let lineage = vec![RootRecord { version: 1 << 52, threshold: 1 << 52, keys: root_keys }; roots];
                let seen = (0..roles).map(|role| (name(role), floors.clone())).collect();
                let root = Some(vec![b'"'; 5000].into());
                let memory = Memory { root, lineage, seen };
                let record = crate::record::MemoryRecord { memory, ..Default::default() };
                let written = record.encode("https://h.io", "h.io/x").unwrap();
                let size = quoted(written.text) + written.more.map_or(0, quoted);
                let counted = record.memory.record_size();
                assert!(size <= counted && counted < 2 * size + 3000, "{keys} {versions} {roles}: {size} {counted}");
            }
        }
    }

    const KEYS: [u8; 2] = [1, 2];

    fn public(number: u8) -> PublicKey {
        PublicKey::new("of no use", &[number])
    }

    fn key(number: u8) -> FloorKey {
        FloorKey::of(&public(number))
    }

    fn keys(numbers: &[u8]) -> RoleKeys {
        RoleKeys { keys: numbers.iter().map(|number| Arc::new(public(*number))).collect(), threshold: 1 }
    }

    /// All floors with up to two keys, two versions and two contents; with those that count whichever keys there are, or without.
    fn all(any: bool) -> Vec<Floors> {
        let mut seen = vec![None];
        for version in [1, 2] {
            seen.extend([0, 1].map(|content| Some(Seen { version, content: Sha256::from_bytes([content; 32]) })));
        }
        let mut found: Vec<Floors> = Vec::new();
        for whichever in seen.iter().filter(|seen| any || seen.is_none()) {
            for one in &seen {
                for two in &seen {
                    let each = [(None, whichever), (Some(key(1)), one), (Some(key(2)), two)];
                    found.push(Floors::of_each(each.into_iter().filter_map(|(key, seen)| Some((key, (*seen)?)))));
                }
            }
        }
        found
    }

    #[test]
    fn floors_of_two_count_together() {
        let floors = all(true);
        assert_eq!(floors.len(), 125);
        for one in &floors {
            assert_eq!(one.join(one).as_ref(), Some(one), "each knows what it knows");
            for two in &floors {
                let joined = one.join(two);
                assert_eq!(joined, two.join(one));
                let Some(joined) = joined else {
                    continue;
                };
                for part in [one, two] {
                    assert_eq!(joined.join(part).as_ref(), Some(&joined), "{one:?} {two:?}");
                }
                for three in &floors {
                    let (left, right) = (joined.join(three), two.join(three).and_then(|rest| one.join(&rest)));
                    assert!(left == right || left.is_none() || right.is_none(), "{one:?} {two:?} {three:?}");
                }
            }
        }
    }

    /// What either refuses, both together refuse, whichever keys a role has.
    #[test]
    fn nothing_is_forgotten_of_two() {
        let memory =
            |floors: &Floors| Memory { seen: [(RoleName::releases(), floors.clone())].into(), ..Memory::default() };
        let sets = [keys(&[]), keys(&KEYS[..1]), keys(&KEYS[1..]), keys(&KEYS)];
        let offers = all(false).into_iter().filter_map(|floors| floors.highest()).collect::<Vec<_>>();
        let mut refused = 0;
        for one in &all(true) {
            for two in &all(true) {
                let Some(joined) = one.join(two) else {
                    continue;
                };
                for (set, offered) in sets.iter().flat_map(|set| offers.iter().map(move |offered| (set, offered))) {
                    let check = |floors| memory(floors).check(&RoleName::releases(), Some(set), *offered);
                    if check(one).is_err() {
                        refused += 1;
                        assert!(check(&joined).is_err(), "{one:?} {two:?} {offered:?}");
                    }
                }
            }
        }
        assert!(refused > 1000);
    }

    /// A record without keys refuses no less than the same with keys.
    #[test]
    fn a_record_without_keys_says_no_less() {
        let memory =
            |floors: &Floors| Memory { seen: [(RoleName::releases(), floors.clone())].into(), ..Memory::default() };
        let sets = [keys(&[]), keys(&KEYS[..1]), keys(&KEYS[1..]), keys(&KEYS)];
        for floors in all(false).iter().filter(|floors| floors.have_keys()) {
            let (with, without) = (memory(floors), memory(floors).without_keys());
            assert!(without.says(&with) && with.says(&with) && !with.covers(&without) && !without.covers(&with));
            // Only where it says just that.
            let older = memory(&Floors::from(Seen { version: 0, content: Sha256::from_bytes([0; 32]) }));
            assert!(!older.says(&with) && !Memory::default().says(&with));
            for set in &sets {
                assert!(without.version(&RoleName::releases(), set) >= with.version(&RoleName::releases(), set));
            }
        }
    }
}
