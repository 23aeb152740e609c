//! Repositories on trust servers: fetched, verified, kept, and fetched again when they may have changed.
//!
//! Concurrent reviews of one repository share one flight. What a flight verifies is kept and looked at again after
//! [`Options::refresh`]; a flight that ends badly is shared with those who waited for it and then forgotten. A flight
//! writes nothing: see [`NotaryClient::commit`].

mod ahead;
mod ask;
mod commit;
mod fetch;
mod guess;
mod kept;
mod manners;
// Public for who lists records, or writes one by hand.
pub mod record;
mod seen;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use countersign_notary::{
    Basis, Error, MemoryRecord, Repository, RoleName, RootPins, Signer, Step, TrustServer, Update,
};
use futures::FutureExt as _;
use jiff::Timestamp;

pub use self::ask::Ask;
use self::ask::{Key, Terms, host_of};
pub use self::commit::Committed;
use self::fetch::{Fetcher, weight};
use self::kept::{Flight, Slots};
use self::manners::Manners;
pub use self::seen::Seen;
use self::seen::{Kept, Outcome};
use crate::connections::PinnedCertificate;
use crate::credentials::Authenticator;
use crate::failure::Failure;
use crate::http::HttpClient;
use crate::load::{AllTurns, Load};
use crate::login::Login;
use crate::store::{RecordKey, StateError, StateStore, UNKNOWN_MARK};
use crate::threads::Threads;
use crate::turns::{Ticket, TooMany};

/// From how many bytes on the files of one step are heavy work: some milliseconds of it. Ordinary repositories have a tenth.
const HEAVY_BYTES: u64 = 256 << 10;

/// From how many bytes on that one step may bring a flight is a large one. A root and a timestamp may have 1.5 MiB.
const LARGE_BYTES: u64 = 2 << 20;

/// How often a repository is looked at because what is remembered changed in the meantime; by a flight, and by whoever is
/// told [`crate::Committed::Behind`].
pub const MAX_LOOKS: usize = 3;

/// How often a record is looked up that was written by others in this process each time before it was there.
const MAX_LOOK_UPS: usize = 8;

/// How old the metadata may be that a denial rests on (see [`Ask::max_age`]). What is in memory may lack what was signed since,
/// and another replica may have asked later: neither must deny what is signed by now. Two seconds are no time for who
/// signs and then deploys, and spare the server a question for each pod of a workload that is denied.
pub const DENIAL_AGE: Duration = Duration::from_secs(2);

/// The wall clock, which expiries are compared with.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Told of trouble that changes no decision, such as a memory that could not be written.
pub type OnTrouble = Arc<dyn Fn(&StateError) + Send + Sync>;

/// Who is shown a repository that is in memory since somebody's login brought it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody who asks.
    Everybody,
    /// Those alone who have shown that the same login is let in.
    SameLogin,
}

impl Sharing {
    /// As it is set: with the same login alone if what is trusted is private, with everybody otherwise.
    #[must_use]
    pub fn private(private: bool) -> Self {
        if private { Self::SameLogin } else { Self::Everybody }
    }
}

/// How the client behaves.
#[derive(Clone)]
pub struct Options {
    /// For how long a verified repository is believed without asking its server again.
    pub refresh: Duration,
    /// For how long after that an unexpired one may still be used if its server cannot be reached.
    pub stale: Duration,
    /// How long one flight may take in all.
    pub flight: Duration,
    /// The wall clock.
    pub clock: Clock,
    /// Where memories are kept across restarts, if anywhere.
    pub state: Option<Arc<dyn StateStore>>,
    /// Told of memories that could not be written.
    pub on_trouble: OnTrouble,
    /// Who is shown what one login brought.
    pub sharing: Sharing,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("refresh", &self.refresh)
            .field("stale", &self.stale)
            .field("flight", &self.flight)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Client of any number of trust servers.
#[derive(Clone)]
pub struct NotaryClient {
    http: HttpClient,
    auth: Arc<Authenticator>,
    options: Options,
    slots: Arc<Mutex<Slots>>,
    /// Verifies what is heavy.
    heavy: Threads,
    turns: Arc<AllTurns>,
    manners: Arc<Manners>,
}

impl std::fmt::Debug for NotaryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotaryClient").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What was known of a repository when a flight began.
struct Known {
    /// What is held of it; of use only if it is behind nothing that is remembered.
    held: Option<Arc<Repository>>,
    basis: Basis,
}

/// What a flight is begun for.
#[derive(Debug, Clone)]
enum Purpose {
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
    /// Makes a client.
    #[must_use]
    pub fn new(http: HttpClient, auth: Arc<Authenticator>, options: Options) -> Self {
        let heavy = Threads::start();
        let turns = AllTurns::new(heavy.threads());
        let (slots, manners) = (Arc::default(), Arc::default());
        Self { http, auth, options, slots, heavy, turns: Arc::new(turns), manners }
    }

    /// Who is shown what one login brought.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        self.options.sharing
    }

    /// What there is little of, shared with whatever else a namespace asks for.
    pub(crate) fn turns(&self) -> &Arc<AllTurns> {
        &self.turns
    }

    /// How long one flight may take in all.
    pub(crate) fn flight(&self) -> Duration {
        self.options.flight
    }

    /// Waits for a turn at a processor, for something that a namespace asks for and that takes some milliseconds; until what is
    /// returned is dropped.
    ///
    /// # Errors
    /// Too many of the namespace wait already.
    pub async fn processor(&self, namespace: &str) -> Result<impl Drop + Send + use<>, TooMany> {
        self.turns.light.take(&Ticket::new(namespace, "")).await
    }

    /// Waits for a turn to prove an image of a namespace by what a server has, until what is returned is dropped.
    ///
    /// # Errors
    /// Too many of the namespace wait already.
    pub async fn proof(&self, namespace: &str, server: &str) -> Result<impl Drop + Send + use<>, TooMany> {
        let turn = self.turns.proofs.take(&Ticket::new(namespace, server)).await;
        turn.inspect_err(|_| self.turns.count_late())
    }

    /// What it is at.
    #[must_use]
    pub fn load(&self) -> Load {
        let (kept, expires) = self.slots().kept();
        Load { kept, expires, ..self.turns.load() }
    }

    /// Whether a repository that was asked for still waits for its turn to be looked at, or for a turn at something that it takes. To
    /// be asked by who waits no longer: it is counted.
    #[must_use]
    pub fn waits_for_its_turn(
        &self,
        server: &TrustServer,
        gun: &str,
        certificate: Option<PinnedCertificate>,
        pinned_in: Option<&str>,
    ) -> bool {
        let key = Key::new(server, gun, certificate, pinned_in);
        let mut slots = self.slots();
        let flights = slots.find(&key).map(|slot| &slot.flights);
        let waits = flights.into_iter().flatten().any(|flight| flight.ticket.is_waiting());
        if waits {
            self.turns.count_late();
        }
        waits
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what a repository takes now, and frees what is too much.
    fn settle(mut slots: MutexGuard<'_, Slots>, key: &Key) {
        slots.settle(key);
        let dropped = slots.take_dropped();
        drop(slots);
        if !dropped.is_empty() {
            tokio::task::spawn_blocking(move || drop(dropped));
        }
    }

    /// The verified repository of a server, whose root stands under the pins.
    ///
    /// Whether it is still valid is checked against the clock by whoever asks it something.
    ///
    /// # Errors
    /// Why it is not trusted, or could not be looked at.
    pub async fn repository(&self, ask: Ask<'_>) -> Outcome {
        loop {
            match self.ask(ask).await {
                // The last of those who waited went just when this one came.
                Err(Failure::Abandoned { .. }) => {}
                outcome => return outcome,
            }
        }
    }

    async fn ask(&self, ask: Ask<'_>) -> Outcome {
        let key = Arc::new(Key::of(&ask));
        let refresh = self.options.refresh;
        self.look_at_record(&key).await?;
        let (flight, _wanted) = {
            let mut slots = self.slots();
            let slot = slots.of(&key);
            let let_in = |(login, at): &(Login, Instant)| login == ask.login && at.elapsed() < refresh;
            let may_see = self.options.sharing == Sharing::Everybody || slot.let_in.iter().any(let_in);
            slot.used = Instant::now();
            slot.party.get_or_insert_with(|| ask.namespace.into());
            if let Some(kept) = &slot.kept
                && may_see
                && kept.is_within(ask.max_age.map_or(refresh, |age| age.min(refresh)))
                && kept.repository.root().satisfies(ask.pins)
            {
                return Ok(slot.hand_out(&key, kept, refresh, ask.pins));
            }
            let terms = Terms { pins: ask.pins.clone(), login: ask.login.clone() };
            let young = |flight: &&Flight| ask.max_age.is_none_or(|age| flight.began.elapsed() < age);
            let under_way = slot.flights.iter().filter(|flight| flight.terms == terms).rfind(young);
            if let Some(flight) = under_way {
                flight.ticket.join(ask.namespace);
                (flight.outcome.clone(), Arc::clone(&flight.wanted))
            } else {
                let id = slots.next_flight();
                let flight = self.start(&key, terms, Purpose::Review(ask.signers.to_vec()), id, ask.namespace);
                let outcome = (flight.outcome.clone(), Arc::clone(&flight.wanted));
                slots.of(&key).flights.push(flight);
                outcome
            }
        };
        match flight.await {
            Err(failure) if failure.is_of_the_server() && ask.max_age.is_none() => {
                self.stale(&key, ask.pins).ok_or(failure)
            }
            outcome => outcome,
        }
    }

    /// Looks at the record of what is in memory, if it has changed: others saw more of the repository, an administrator accepted something or
    /// deleted it, or records cannot be followed any more. Where that would take asking somebody, flights look alone.
    async fn look_at_record(&self, key: &Key) -> Result<(), Failure> {
        let is_kept = || self.slots().find(key).is_some_and(|slot| slot.kept.is_some());
        if self.options.state.is_some() && is_kept() && self.has_changed(key) == Some(true) {
            self.known(key).await.map(|_| ())
        } else {
            Ok(())
        }
    }

    /// Whether the record has changed since it was looked at; `None` where that takes asking somebody. Nobody waits for the store meanwhile
    /// who wants something else.
    fn has_changed(&self, key: &Key) -> Option<bool> {
        let state = self.options.state.as_ref()?;
        let (name, looked_at) = self.slots().find(key).map(|slot| (Arc::clone(&slot.name), slot.mark))?;
        let mark = state.mark(&name)?;
        Some(mark == UNKNOWN_MARK || Some(mark) != looked_at)
    }

    /// What may still do for a while though its server could not be reached.
    fn stale(&self, key: &Arc<Key>, pins: &RootPins) -> Option<Seen> {
        let options = &self.options;
        let mut slots = self.slots();
        let slot = slots.find(key)?;
        let kept = slot.kept.as_ref().filter(|kept| {
            kept.is_within(options.refresh + options.stale)
                && options.sharing == Sharing::Everybody
                && kept.repository.root().satisfies(pins)
        })?;
        Some(slot.hand_out(key, kept, options.refresh, pins))
    }

    /// A flight runs on its own, so that a review which gives up takes nobody else's answer with it.
    fn start(&self, key: &Arc<Key>, terms: Terms, purpose: Purpose, id: u64, namespace: &str) -> Flight {
        let broken = Failure::Broken { gun: key.record.gun.clone() };
        let began = Instant::now();
        let ticket = Ticket::new(namespace, &key.record.server);
        let wanted = Arc::new(());
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
        Flight { id, terms, began, outcome, ticket, wanted }
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
    async fn known(&self, key: &Key) -> Result<Known, Failure> {
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

#[cfg(test)]
mod tests;
