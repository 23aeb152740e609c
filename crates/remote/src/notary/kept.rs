//! What is kept of repositories, within bounds: those that are verified, what is remembered of them against rollback, and
//! who is looking at them just now.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_notary::{AsOf, Basis, Generations, Memory, MemoryRecord, Observed, Remembered, RootPins, State};
use futures::future::{BoxFuture, Shared};

use super::ahead::{Again, Queue};
use super::ask::{Key, Terms};
use super::seen::{Kept, Outcome, Seen};
use crate::login::Login;
use crate::turns::Ticket;

/// Of how many repositories something is kept.
const MAX_SLOTS: usize = 16_384;

/// How many bytes the files of all verified repositories that are kept may have had, and what is remembered of them. It
/// takes two to three times as much to hold them.
const MAX_BYTES: usize = 128 << 20;

/// The part of a bound that is left after something had to go, so that not every newcomer has to look for the oldest again.
const AFTERWARDS: (usize, usize) = (15, 16);

/// Somebody who looks at a repository just now.
pub(crate) struct Flight {
    /// Two may have the same terms: who needs a fresh answer does not wait for one that began too early.
    pub(crate) id: u64,
    pub(crate) terms: Terms,
    pub(crate) began: Instant,
    /// Whether it began ahead of need, and not for a review.
    pub(crate) is_ahead: bool,
    pub(crate) outcome: Shared<BoxFuture<'static, Outcome>>,
    /// On whose behalf.
    pub(crate) ticket: Arc<Ticket>,
    /// Also held by everybody who waits for it.
    pub(crate) wanted: Arc<()>,
}

/// What is kept of one repository.
pub(crate) struct Slot {
    pub(crate) kept: Option<Kept>,
    /// What was kept before a verified newer one took its place.
    pub(crate) former: Option<Kept>,
    /// Against rollback: it stays where the repository is dropped.
    pub(crate) remembered: Remembered,
    /// What its record is called, where there is a store.
    pub(crate) name: Arc<str>,
    /// Which state of the record was looked at last, see [`crate::StateStore::mark`].
    pub(crate) mark: Option<u64>,
    /// Whether something was admitted that rests on it.
    pub(crate) admitted: bool,
    /// Held by whoever writes it to the store: one after the other, so that the second finds it written.
    pub(crate) writing: Arc<tokio::sync::Mutex<()>>,
    pub(crate) flights: Vec<Flight>,
    /// Which logins were let in, and when.
    pub(crate) let_in: Vec<(Login, Instant)>,
    /// When somebody last wanted it.
    pub(crate) used: Instant,
    /// How it is looked at ahead of need, if it is.
    pub(super) again: Option<Again>,
    /// The namespace that wanted it first, for whose share it counts.
    pub(crate) party: Option<Arc<str>>,
    /// What it counts for in [`Slots::bytes`].
    bytes: usize,
}

impl Slot {
    fn new(key: &Key, generations: &mut Generations) -> Self {
        Self {
            kept: None,
            former: None,
            remembered: Remembered::new(generations),
            name: key.record.name().into(),
            mark: None,
            admitted: false,
            writing: Arc::default(),
            flights: Vec::new(),
            let_in: Vec::new(),
            used: Instant::now(),
            again: None,
            party: None,
            bytes: 0,
        }
    }

    fn size(&self) -> usize {
        let repositories: usize = self.kept.iter().chain(&self.former).map(|kept| kept.repository.size()).sum();
        repositories + self.remembered.memory().map_or(0, |memory| memory.size())
    }

    /// What would be lost with it.
    fn worth(&self) -> Worth {
        let remembered = &self.remembered;
        if matches!(remembered.state(), State::Forgotten { .. }) {
            // That what comes next has to be written.
            Worth::Unsaved
        } else if !self.admitted && !remembered.has_record() && remembered.memory().is_some() {
            Worth::NeverAdmitted
        } else if remembered.is_written() || *remembered.state() == State::Unknown {
            Worth::Recoverable
        } else {
            Worth::Unsaved
        }
    }

    /// What was kept, as it is handed out under these pins.
    pub(crate) fn hand_out(&self, key: &Arc<Key>, kept: &Kept, refresh: Duration, pins: &RootPins) -> Seen {
        let former = self.former.as_ref().filter(|former| former.repository.root().satisfies(pins));
        let (target, writing) = (self.remembered.target(), Arc::clone(&self.writing));
        Seen { key: Arc::clone(key), kept: kept.clone(), former: former.cloned(), refresh, target, writing }
    }

    /// The repositories, to be freed elsewhere.
    fn take_repositories(&mut self) -> impl Iterator<Item = Kept> + use<> {
        self.kept.take().into_iter().chain(self.former.take())
    }
}

/// What would be lost with a slot; what is worth least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// What this process saw of a repository of which nothing was ever admitted. Whoever may ask for reviews can make any
    /// number of these with dry runs and denials; they push out each other, and nothing that others need.
    NeverAdmitted,
    /// Nothing that cannot be had again from its server and from the store.
    Recoverable,
    /// What the store does not have.
    Unsaved,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Slots {
    pub(super) by_key: HashMap<Key, Slot>,
    /// What is looked at ahead of need.
    pub(super) queue: Queue,
    bytes: usize,
    generations: Generations,
    flights: u64,
    /// What is to be freed once nobody waits for the slots: with a large repository it takes milliseconds.
    dropped: Vec<Kept>,
}

impl Slots {
    /// That of a repository, a new one if there is none.
    pub(crate) fn of(&mut self, key: &Key) -> &mut Slot {
        let generations = &mut self.generations;
        self.by_key.entry(key.clone()).or_insert_with(|| Slot::new(key, generations))
    }

    /// That of a repository, if there is one.
    pub(crate) fn find(&mut self, key: &Key) -> Option<&mut Slot> {
        self.by_key.get_mut(key)
    }

    /// How many repositories are kept, and when the first file of them expires that every answer rests on, in seconds since 1970.
    pub(crate) fn kept(&self) -> (usize, Option<i64>) {
        let kept = || self.by_key.values().filter_map(|slot| slot.kept.as_ref());
        let expires = kept().filter_map(|kept| kept.repository.expires()).min();
        (kept().count(), expires.map(jiff::Timestamp::as_second))
    }

    /// A name for a flight.
    pub(crate) fn next_flight(&mut self) -> u64 {
        self.flights += 1;
        self.flights
    }

    /// Takes note of what the store has of a repository, in this state; `None` if it has to be looked up again. What is kept and behind it
    /// may not be used again, not even if the server cannot be reached.
    pub(crate) fn observe(
        &mut self,
        key: &Key,
        as_of: &AsOf,
        there: Option<&MemoryRecord>,
        mark: Option<u64>,
    ) -> Option<Basis> {
        let generations = &mut self.generations;
        let slot = self.by_key.entry(key.clone()).or_insert_with(|| Slot::new(key, generations));
        let (basis, observed) = slot.remembered.observe(as_of, there, generations)?;
        slot.mark = mark;
        slot.admitted &= observed != Observed::GivenUp;
        let behind = |memory: &Arc<Memory>, kept: &Kept| {
            !Arc::ptr_eq(memory, kept.repository.memory()) && !kept.repository.memory().covers(memory)
        };
        let behind = basis.memory.as_ref().zip(slot.kept.as_ref()).is_some_and(|(memory, kept)| behind(memory, kept));
        match (observed, behind) {
            (Observed::GivenUp, _) | (Observed::Contradicts, true) => self.give_up(key),
            (Observed::Fits, true) => self.supersede(key),
            (Observed::Fits | Observed::Contradicts, false) => {}
        }
        Some(basis)
    }

    /// Keeps a repository that was verified just now. What it replaces is kept beside it for as long as it could have been
    /// used had nobody looked again, see [`crate::Seen::former`].
    pub(crate) fn keep(&mut self, key: &Key, kept: Kept, refresh: Duration) {
        let slot = self.of(key);
        let before = slot.kept.replace(kept);
        let mut dropped: Vec<Kept> = slot.former.take_if(|former| !former.is_within(refresh)).into_iter().collect();
        match (before, &slot.kept) {
            (Some(before), Some(kept))
                if before.repository.memory() != kept.repository.memory() && before.is_within(refresh) =>
            {
                dropped.extend(slot.former.replace(before));
            }
            (before, _) => dropped.extend(before),
        }
        self.dropped.extend(dropped);
    }

    /// Others have seen a newer one than the one that is kept, which it leads to.
    pub(crate) fn supersede(&mut self, key: &Key) {
        let slot = self.of(key);
        if let Some(kept) = slot.kept.take() {
            let former = slot.former.replace(kept);
            self.dropped.extend(former);
        }
    }

    /// Gives up the repositories that are kept.
    pub(crate) fn give_up(&mut self, key: &Key) {
        let repositories = self.of(key).take_repositories();
        self.dropped.extend(repositories);
    }

    /// What nobody needs any more, to be freed elsewhere.
    pub(crate) fn take_dropped(&mut self) -> Vec<Kept> {
        std::mem::take(&mut self.dropped)
    }

    /// To be called when something of a repository has changed: counts anew, and drops what was not wanted for longest if
    /// there is too much of it.
    pub(crate) fn settle(&mut self, key: &Key) {
        let Some(slot) = self.by_key.get_mut(key) else {
            return;
        };
        let size = slot.size();
        self.bytes = self.bytes - slot.bytes + size;
        slot.bytes = size;
        let empty = slot.kept.is_none() && slot.former.is_none() && *slot.remembered.state() == State::Unknown;
        if empty && slot.flights.is_empty() {
            self.queue.leave(slot.again.as_ref());
            self.by_key.remove(key);
        }
        if self.by_key.len() > MAX_SLOTS || self.bytes > MAX_BYTES {
            self.drop_oldest(key);
        }
    }

    /// The namespace for which most is kept loses what is worth least to it, until there is room: first what nobody was admitted
    /// for, then what can be had again; then, where there is no store or it does not work, memories too. So nobody loses
    /// anything for a namespace that wants more than others.
    fn drop_oldest(&mut self, except: &Key) {
        let (of, whole) = AFTERWARDS;
        let (slots, bytes) = (MAX_SLOTS / whole * of, MAX_BYTES / whole * of);
        let mut shares: HashMap<Option<Arc<str>>, Share> = HashMap::new();
        for (key, slot) in &self.by_key {
            let share = shares.entry(slot.party.clone()).or_default();
            share.count += 1;
            share.bytes += slot.bytes;
            if key != except && slot.flights.is_empty() {
                share.victims.push((slot.worth(), slot.used, false, key.clone()));
            }
            if key != except && (slot.worth() == Worth::Unsaved || !slot.flights.is_empty()) {
                // Its repositories can be had again, and go before its memory. Somebody who looks at it just now does not keep them from
                // that: who has flights everywhere would have others lose theirs.
                share.victims.push((Worth::Recoverable, slot.used, true, key.clone()));
            }
        }
        let mut shares: Vec<Share> = shares.into_values().collect();
        for share in &mut shares {
            share.victims.sort_by_key(|victim| std::cmp::Reverse((victim.0, victim.1)));
        }
        while self.by_key.len() > slots || self.bytes > bytes {
            let heaviest =
                shares.iter_mut().filter(|share| !share.victims.is_empty()).max_by_key(|share| share.weight());
            let Some(share) = heaviest else {
                return;
            };
            let Some((_, _, repositories_only, key)) = share.victims.pop() else {
                return;
            };
            let Some(slot) = self.by_key.get_mut(&key) else {
                continue;
            };
            self.dropped.extend(slot.take_repositories());
            let left = if repositories_only { slot.size() } else { 0 };
            self.bytes -= slot.bytes - left;
            share.bytes -= slot.bytes - left;
            slot.bytes = left;
            if !repositories_only {
                share.count -= 1;
                self.queue.leave(slot.again.as_ref());
                self.by_key.remove(&key);
            }
        }
    }
}

/// The slots of one namespace.
#[derive(Default)]
struct Share {
    count: usize,
    bytes: usize,
    /// What may be dropped, and whether of it only the repositories; what goes first stands last.
    victims: Vec<(Worth, Instant, bool, Key)>,
}

impl Share {
    /// How many bytes its slots count for, to compare namespaces: a slot counts for at least the same part of all bytes as it is of all
    /// slots, so that many small ones weigh as much as few large ones.
    fn weight(&self) -> usize {
        self.bytes.max(self.count * (MAX_BYTES / MAX_SLOTS))
    }
}

#[cfg(test)]
mod tests {
    use countersign_image::Sha256;
    use countersign_notary::{Answer, RoleName, Seen, Update};

    use super::*;
    use crate::store::RecordKey;

    fn key(index: usize) -> Key {
        Key { record: RecordKey::new("https://h.io", &format!("h.io/{index}")), certificate: None }
    }

    fn memory(root: usize) -> Memory {
        Memory { root: Some(vec![0; root].into()), ..Memory::default() }
    }

    fn observe(slots: &mut Slots, index: usize, there: Option<&MemoryRecord>) -> Basis {
        let as_of = slots.of(&key(index)).remembered.as_of();
        slots.observe(&key(index), &as_of, there, None).unwrap()
    }

    /// What a flight saw, and whether it is in the store.
    fn fill(slots: &mut Slots, index: usize, root: usize, stored: bool) {
        let record = MemoryRecord { memory: memory(root), uid: Some("1".to_owned()), ..MemoryRecord::default() };
        observe(slots, index, Some(&record));
        let slot = slots.of(&key(index));
        slot.used = Instant::now();
        if !stored {
            let mut more = memory(root);
            more.seen.insert(RoleName::targets(), Seen { version: 1, content: Sha256::from_bytes([0; 32]) }.into());
            let basis = observe(slots, index, Some(&record));
            assert!(slots.of(&key(index)).remembered.flight_ended(&basis, &basis, &Arc::new(more)));
        }
        slots.settle(&key(index));
    }

    fn has(slots: &Slots, index: usize) -> bool {
        slots.by_key.contains_key(&key(index))
    }

    #[test]
    fn what_is_kept_is_bounded() {
        for (root, stored) in [(1, true), (1, false), (512 << 10, true), (512 << 10, false)] {
            let mut slots = Slots::default();
            for index in 0..MAX_SLOTS + 1000 {
                fill(&mut slots, index, root, stored);
                assert!(slots.by_key.len() <= MAX_SLOTS && slots.bytes <= MAX_BYTES);
            }
            let counted: usize = slots.by_key.values().map(Slot::size).sum();
            assert_eq!(counted, slots.bytes);
            // The newest stay.
            assert!(has(&slots, MAX_SLOTS + 999) && has(&slots, MAX_SLOTS + 900) && !has(&slots, 0));
        }
    }

    #[test]
    fn what_can_be_had_again_goes_first() {
        let mut slots = Slots::default();
        fill(&mut slots, 0, 1, false);
        for index in 1..MAX_SLOTS + 2 {
            fill(&mut slots, index, 1, true);
        }
        assert!(has(&slots, 0) && !has(&slots, 1));
    }

    #[test]
    fn what_nothing_was_admitted_for_pushes_out_nothing_else() {
        let mut slots = Slots::default();
        for index in 0..MAX_SLOTS + 1000 {
            let basis = observe(&mut slots, index, None);
            let slot = slots.of(&key(index));
            assert!(slot.remembered.flight_ended(&basis, &basis, &Arc::new(memory(1))));
            (slot.admitted, slot.used) = (index == 0, Instant::now());
            slots.settle(&key(index));
        }
        assert!(has(&slots, 0) && !has(&slots, 1));
        assert!(slots.by_key.len() <= MAX_SLOTS);
    }

    /// However much one namespace wants, another one keeps what it has, even if it was not wanted for longest.
    #[test]
    fn nobody_loses_anything_to_a_greedy_namespace() {
        for (root, count) in [(1, MAX_SLOTS + 2000), (512 << 10, 600)] {
            let mut slots = Slots::default();
            for index in 0..count {
                let party = if index < 100 { "honest" } else { "greedy" };
                slots.of(&key(index)).party = Some(party.into());
                fill(&mut slots, index, root, index >= 100);
            }
            assert!(slots.by_key.len() <= MAX_SLOTS && slots.bytes <= MAX_BYTES);
            assert!((0..100).all(|index| has(&slots, index)), "{root}");
        }
    }

    /// Who has flights at all of their own slots has nothing of others dropped for that. Memories stand for repositories here.
    #[test]
    fn flights_keep_nothing_from_being_dropped() {
        let mut slots = Slots::default();
        for index in 0..100 {
            slots.of(&key(index)).party = Some("honest".into());
            fill(&mut slots, index, 1, false);
            slots.of(&key(index)).admitted = true;
        }
        let mut repo = forge::Repo::new("h.io/1000", forge::NOW);
        for tag in 0..4000 {
            repo.tag("targets", &format!("v{tag}"), &forge::digest_of("v"));
        }
        let files = repo.build();
        let update = Update::start("h.io/1000", None, None, RootPins::none(), forge::NOW).unwrap();
        let answer = |name: &str| files.get(name).map_or(Answer::Missing, |bytes| Answer::Found(bytes.to_vec()));
        let repository = Arc::new(update.run(|request| answer(&request.file)).unwrap());
        let count = 2 * MAX_BYTES / repository.size();
        for index in 1000..1000 + count {
            let terms = Terms { pins: RootPins::none(), login: Login::none() };
            let outcome = futures::FutureExt::boxed(std::future::pending::<Outcome>());
            let outcome = futures::FutureExt::shared(outcome);
            let (ticket, began) = (Ticket::new("greedy", ""), Instant::now());
            let slot = slots.of(&key(index));
            slot.party = Some("greedy".into());
            slot.flights.push(Flight { id: 1, terms, began, is_ahead: false, outcome, ticket, wanted: Arc::default() });
            slot.kept = Some(Kept { repository: Arc::clone(&repository), asked: Instant::now() });
            slots.settle(&key(index));
        }
        assert!((0..100).all(|index| has(&slots, index)));
        assert!(slots.bytes <= MAX_BYTES);
        assert!((1000..1000 + count).all(|index| has(&slots, index)), "somebody waits at each");
    }

    #[test]
    fn what_was_deleted_is_another_generation() {
        let mut slots = Slots::default();
        fill(&mut slots, 1, 1, true);
        let before = slots.of(&key(1)).remembered.target().generation;
        observe(&mut slots, 1, None);
        let slot = slots.of(&key(1));
        assert!(
            slot.remembered.target().generation != before && matches!(slot.remembered.state(), State::Forgotten { .. })
        );
        slots.settle(&key(1));
        assert!(has(&slots, 1), "that it was deleted must not be forgotten");
        let basis = observe(&mut slots, 1, None);
        let slot = slots.of(&key(1));
        assert!(slot.remembered.flight_ended(&basis, &basis, &Arc::new(memory(1))));
        assert_eq!(slot.worth(), Worth::Unsaved);
    }
}
