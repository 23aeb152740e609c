//! A flight: a repository is fetched from its server and verified once, for all reviews that ask for it meanwhile.

use std::sync::{Arc, Weak};
use std::time::Instant;

use countersign_notary::{Basis, Error, MemoryRecord, Repository, RoleName, Signer, Step, Update};
use futures::FutureExt as _;

use super::ask::{Key, Terms, host_of};
use super::fetch::{Fetcher, weight};
use super::kept::Flight;
use super::seen::{Kept, Outcome, Seen};
use super::{MAX_LOOKS, NotaryClient, Sharing, commit, guess};
use crate::failure::Failure;
use crate::store::{RecordKey, StateError, StateStore};
use crate::turns::Ticket;

/// From how many bytes on the files of one step are heavy work: some milliseconds of it. Ordinary repositories have a tenth.
pub(super) const HEAVY_BYTES: u64 = 256 << 10;

/// From how many bytes on that one step may bring a flight is a large one. A root and a timestamp may have 1.5 MiB.
const LARGE_BYTES: u64 = 2 << 20;

/// How often a record is looked up that was written by others in this process each time before it was there.
const MAX_LOOK_UPS: usize = 8;

/// What was known of a repository when a flight began.
pub(super) struct Known {
    /// What is held of it; of use only if it is behind nothing that is remembered.
    held: Option<Arc<Repository>>,
    basis: Basis,
}

/// What a flight is begun for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// A review that asks for these signers.
    Review(Vec<Signer>),
    /// Reviews to come.
    Ahead,
}

impl Purpose {
    fn signers(&self) -> &[Signer] {
        match self {
            Self::Review(signers) => signers,
            Self::Ahead => &[],
        }
    }
}

/// What a store has of a repository.
enum There {
    Nothing,
    /// Its record.
    Record(MemoryRecord),
    /// None for the namespace that asks, but one of everybody.
    OfOthers(MemoryRecord),
}

impl NotaryClient {
    /// A flight runs on its own, so that a review which gives up takes nobody else's answer with it.
    pub(super) fn start(&self, key: &Arc<Key>, terms: Terms, purpose: Purpose, id: u64, namespace: &str) -> Flight {
        let broken = Failure::Broken { gun: key.record.gun.clone() };
        let began = Instant::now();
        let ticket = Ticket::new(namespace, &key.record.server);
        let wanted = Arc::new(());
        let is_ahead = matches!(purpose, Purpose::Ahead);
        let task = tokio::spawn({
            let (client, key, terms) = (self.clone(), Arc::clone(key), terms.clone());
            let (ticket, wanted) = (Arc::clone(&ticket), Arc::downgrade(&wanted));
            async move {
                // Ends it whatever happens, a panic in the verifier included.
                let _end = Landing { client: &client, key: &key, id };
                let outcome = client.take_off(&key, (&terms, purpose.signers()), &ticket, &wanted).await;
                client.turns.count_outcome(outcome.as_ref().err());
                client.land(&key, &purpose, outcome)
            }
        });
        let outcome = async move { task.await.unwrap_or(Err(broken)) }.boxed().shared();
        Flight { id, terms, began, is_ahead, outcome, ticket, wanted }
    }

    /// Waits for a turn, and looks at a repository if somebody still wants to know by then.
    async fn take_off(
        &self,
        key: &Arc<Key>,
        asked: (&Terms, &[Signer]),
        ticket: &Arc<Ticket>,
        wanted: &Weak<()>,
    ) -> Outcome {
        let turn = tokio::time::timeout(self.options.flight, self.turns.flights.take(ticket)).await;
        let Ok(Ok(_turn)) = turn else {
            self.turns.count_late();
            return Err(busy(key));
        };
        // The flight itself holds one.
        if wanted.strong_count() <= 1 {
            return Err(Failure::Abandoned { gun: key.record.gun.clone() });
        }
        self.look(key, asked, ticket).await
    }

    /// Looks at a repository until what was seen is no less than what anybody in this process knew of it at the end.
    async fn look(&self, key: &Arc<Key>, (terms, signers): (&Terms, &[Signer]), ticket: &Arc<Ticket>) -> Outcome {
        for _ in 0..MAX_LOOKS {
            let known = self.known(key).await?;
            let timed_out = Failure::TimedOut { host: host_of(&key.record.server) };
            let asked = Instant::now();
            let flown =
                tokio::time::timeout(self.options.flight, self.fly(key, (terms, signers), &known, ticket)).await;
            let repository = flown.unwrap_or(Err(timed_out))?;
            // Others may have seen more meanwhile; and who came later waits for this, too.
            let now = match self.has_changed(key) {
                Some(false) => known.basis.clone(),
                Some(true) | None => self.known(key).await?.basis,
            };
            if let Some(seen) = self.note(key, (terms, ticket), (&known.basis, &now), &Kept { repository, asked }) {
                self.manners.answered(&key.record.server);
                return Ok(seen);
            }
        }
        Err(Failure::Contradicted { gun: key.record.gun.clone(), host: host_of(&key.record.server) })
    }

    async fn fly(
        &self,
        key: &Key,
        (terms, signers): (&Terms, &[Signer]),
        known: &Known,
        ticket: &Arc<Ticket>,
    ) -> Result<Arc<Repository>, Failure> {
        let now = (self.options.clock)();
        let untrusted = |error| Failure::Untrusted(Box::new(error));
        let (gun, pins) = (key.record.gun.clone(), terms.pins.clone());
        let mut update =
            Update::start(&gun, known.held.clone(), known.basis.memory.as_deref(), pins, now).map_err(untrusted)?;
        let http = self.http.on_behalf(ticket);
        let guesses = self.guesses(key, signers, known);
        let mut fetcher = Fetcher::new(&http, &self.auth, &self.manners, (key, &terms.login), guesses);
        let mut answers = Vec::new();
        let mut large = None;
        loop {
            // To verify a large or hostile repository takes a processor seconds; others must not wait for a thread, nor find
            // every processor taken.
            let heavy = weight(&answers) >= HEAVY_BYTES;
            let turns = if heavy { &self.turns.heavy } else { &self.turns.light };
            let turn = turns.take(ticket).await.map_err(|_| busy(key))?;
            let work = move || {
                let step = update.advance(answers);
                (update, step)
            };
            let worked = if heavy { self.heavy.run(work).await } else { tokio::task::spawn_blocking(work).await.ok() };
            drop(turn);
            let (after, step) = worked.ok_or_else(|| Failure::Broken { gun: key.record.gun.clone() })?;
            update = after;
            match step.map_err(untrusted)? {
                Step::Done(repository) => return Ok(Arc::new(*repository)),
                Step::Fetch(requests) => {
                    // Kept to the end: what was fetched is still at hand.
                    if large.is_none() && fetcher.most(&requests) > LARGE_BYTES {
                        large = Some(self.turns.large.take(ticket).await.map_err(|_| busy(key))?);
                    }
                    answers = fetcher.fetch_all(&requests).await?;
                }
            }
        }
    }

    /// The roles whose files are asked for before the metadata names them. Where the repository is at hand there are none: most often
    /// nothing but its timestamp has changed.
    fn guesses(&self, key: &Key, signers: &[Signer], known: &Known) -> Vec<RoleName> {
        if known.held.is_some() || !self.manners.bears_much(&key.record.server, Instant::now()) {
            return Vec::new();
        }
        let memory = known.basis.memory.as_deref();
        // The root that is remembered is not asked for.
        guess::roles(signers, memory, if memory.is_some() { 1 } else { 2 })
    }

    /// What is held of a repository, and what is remembered. A store, where there is one, says what is remembered: others
    /// write to it too, and an administrator may take something away or accept a change.
    pub(super) async fn known(&self, key: &Key) -> Result<Known, Failure> {
        let Some(state) = &self.options.state else {
            let mut slots = self.slots();
            let basis = slots.of(key).remembered.basis();
            let held = slots.of(key).kept.as_ref().map(|kept| Arc::clone(&kept.repository));
            return Ok(Known { held, basis });
        };
        for _ in 0..MAX_LOOK_UPS {
            let (name, as_of) = {
                let mut slots = self.slots();
                let slot = slots.of(key);
                (Arc::clone(&slot.name), slot.remembered.as_of())
            };
            // What changes after this is found by whoever comes next.
            let mark = state.mark(&name);
            let there = self.look_up(&**state, key).await;
            let mut slots = self.slots();
            let basis = there.map(|there| match there {
                There::Record(record) => slots.observe(key, &as_of, Some(&record), mark),
                There::Nothing => slots.observe(key, &as_of, None, mark),
                There::OfOthers(record) => {
                    let observed = slots.observe(key, &as_of, None, mark);
                    observed.map(|_| slots.of(key).remembered.begin_with(&record))
                }
            });
            let held = slots.of(key).kept.as_ref().map(|kept| Arc::clone(&kept.repository));
            Self::settle(slots, key);
            if let Some(basis) = basis.map_err(Failure::State)? {
                return Ok(Known { held, basis });
            }
        }
        Err(Failure::Contradicted { gun: key.record.gun.clone(), host: host_of(&key.record.server) })
    }

    /// Looks a record up, and where there is none for a namespace that pins a certificate, and nothing is known, the one of everybody.
    async fn look_up(&self, state: &dyn StateStore, key: &Key) -> Result<There, StateError> {
        if let Some((_, record)) = commit::load(state, &key.record).await? {
            return Ok(There::Record(record));
        }
        let is_unknown = || self.slots().of(key).remembered.is_unknown();
        if key.record.pinned_in.is_none() || !is_unknown() {
            return Ok(There::Nothing);
        }
        let of_others = RecordKey { pinned_in: None, ..key.record.clone() };
        Ok(commit::load(state, &of_others).await?.map_or(There::Nothing, |(_, record)| There::OfOthers(record)))
    }

    /// Takes note in this process of what a flight saw, if that is no less than what was seen by others in it meanwhile.
    fn note(
        &self,
        key: &Arc<Key>,
        (terms, ticket): (&Terms, &Ticket),
        (began, now): (&Basis, &Basis),
        kept: &Kept,
    ) -> Option<Seen> {
        let refresh = self.options.refresh;
        let memory = kept.repository.memory();
        let mut slots = self.slots();
        let slot = slots.of(key);
        if !slot.remembered.flight_ended(began, now, memory) {
            return None;
        }
        if self.options.sharing == Sharing::SameLogin {
            slot.let_in.retain(|(login, at)| *login != terms.login && at.elapsed() < refresh);
            slot.let_in.push((terms.login.clone(), kept.asked));
        }
        // Of two flights the one that began first may end last.
        let later = |other: &Kept| other.asked > kept.asked && other.repository.memory() == memory;
        if !slot.kept.as_ref().is_some_and(later) {
            slots.keep(key, kept.clone(), refresh);
            slots.look_again(key, terms, ticket.first(), refresh);
        }
        let seen = slots.of(key).hand_out(key, kept, refresh, &terms.pins);
        Self::settle(slots, key);
        Some(seen)
    }

    /// What a flight comes to. The repository in memory stays where the server could not be reached, and where it refused this
    /// login alone. It is dropped where the server was reached and the repository is not trusted; and where what is remembered cannot be
    /// read, if a review would rest on that.
    fn land(&self, key: &Key, purpose: &Purpose, outcome: Outcome) -> Outcome {
        // Pins are one policy's demand; that they are not met says nothing to the others.
        let of_one_policy = |failure: &Failure| matches!(failure, Failure::Untrusted(error) if matches!(**error, Error::RootNotPinned { .. }));
        if let Err(failure) = &outcome
            && !matches!(failure, Failure::Auth(_))
            && !failure.is_of_the_server()
            && !failure.is_of_turns()
            && !of_one_policy(failure)
            && !(matches!(failure, Failure::State(_)) && matches!(purpose, Purpose::Ahead))
        {
            let mut slots = self.slots();
            slots.give_up(key);
            Self::settle(slots, key);
        }
        outcome
    }
}

/// The end of a flight, whichever it is: others begin a new one from now on.
struct Landing<'a> {
    client: &'a NotaryClient,
    key: &'a Key,
    id: u64,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut slots = self.client.slots();
        slots.of(self.key).flights.retain(|flight| flight.id != self.id);
        NotaryClient::settle(slots, self.key);
    }
}

fn busy(key: &Key) -> Failure {
    Failure::Busy { gun: key.record.gun.clone(), host: host_of(&key.record.server) }
}
