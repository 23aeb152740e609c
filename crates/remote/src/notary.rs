//! Repositories on trust servers: fetched, verified, kept, and fetched again when they may have changed.
//!
//! Concurrent reviews of one repository share one flight. What a flight verifies is kept and looked at again after
//! [`Options::refresh`]; a flight that ends badly is shared with those who waited for it and then forgotten. A flight
//! writes nothing: see [`NotaryClient::commit`].

mod ahead;
mod ask;
mod commit;
mod fetch;
mod flight;
mod guess;
mod kept;
mod manners;
// Public for who lists records, or writes one by hand.
pub mod record;
mod seen;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use countersign_notary::{RootPins, TrustServer};
use jiff::Timestamp;

pub use self::ask::Ask;
use self::ask::{Key, Terms};
pub use self::commit::Committed;
use self::flight::Purpose;
use self::kept::{Flight, Slot, Slots};
use self::manners::Manners;
use self::seen::Outcome;
pub use self::seen::Seen;
use crate::connections::PinnedCertificate;
use crate::credentials::Authenticator;
use crate::failure::Failure;
use crate::http::HttpClient;
use crate::load::{AllTurns, Load};
use crate::login::Login;
use crate::store::{StateError, StateStore, UNKNOWN_MARK};
use crate::threads::Threads;
use crate::turns::{Ticket, TooMany};

/// How often a repository is looked at because what is remembered changed in the meantime; by a flight, and by whoever is
/// told [`crate::Committed::Behind`].
pub const MAX_LOOKS: usize = 3;

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
        let mut joins_ahead = true;
        loop {
            match self.ask(ask, joins_ahead).await {
                // The last of those who waited went just when this one came.
                (Err(Failure::Abandoned { .. }), _) => {}
                // It may have met a server that answers by now, and its time is not that of a review.
                (Err(failure), true) if failure.is_of_the_server() || failure.is_of_turns() => joins_ahead = false,
                (outcome, _) => return outcome,
            }
        }
    }

    /// The same repository if it is in memory and may be used without asking anybody, and without waiting for anything.
    #[must_use]
    pub fn at_hand(&self, ask: &Ask<'_>) -> Option<Seen> {
        let key = Arc::new(Key::of(ask));
        if self.options.state.is_some() && self.has_changed(&key) == Some(true) {
            return None;
        }
        self.slots().find(&key).and_then(|slot| self.kept(slot, &key, ask))
    }

    /// What is kept in a slot, if it may be handed out to whoever asks.
    fn kept(&self, slot: &mut Slot, key: &Arc<Key>, ask: &Ask<'_>) -> Option<Seen> {
        let refresh = self.options.refresh;
        let let_in = |(login, at): &(Login, Instant)| login == ask.login && at.elapsed() < refresh;
        let may_see = self.options.sharing == Sharing::Everybody || slot.let_in.iter().any(let_in);
        slot.used = Instant::now();
        if let Some(again) = slot.again.as_mut().filter(|_| may_see) {
            again.used_by(ask.login, slot.used);
        }
        slot.party.get_or_insert_with(|| ask.namespace.into());
        let kept = slot.kept.as_ref().filter(|kept| {
            may_see
                && kept.is_within(ask.max_age.map_or(refresh, |age| age.min(refresh)))
                && kept.repository.root().satisfies(ask.pins)
        })?;
        Some(slot.hand_out(key, kept, refresh, ask.pins))
    }

    /// What a flight brings, and whether that was one ahead of need, which is joined only where `joins_ahead`.
    async fn ask(&self, ask: Ask<'_>, joins_ahead: bool) -> (Outcome, bool) {
        let key = Arc::new(Key::of(&ask));
        if let Err(failure) = self.look_at_record(&key).await {
            return (Err(failure), false);
        }
        let (flight, is_ahead, _wanted) = {
            let mut slots = self.slots();
            let slot = slots.of(&key);
            if let Some(seen) = self.kept(slot, &key, &ask) {
                return (Ok(seen), false);
            }
            let terms = Terms { pins: ask.pins.clone(), login: ask.login.clone() };
            let young = |flight: &&Flight| ask.max_age.is_none_or(|age| flight.began.elapsed() < age);
            let suits = |flight: &&Flight| flight.terms == terms && (joins_ahead || !flight.is_ahead);
            let under_way = slot.flights.iter().filter(suits).rfind(young);
            if let Some(flight) = under_way {
                flight.ticket.join(ask.namespace);
                (flight.outcome.clone(), flight.is_ahead, Arc::clone(&flight.wanted))
            } else {
                let id = slots.next_flight();
                let flight = self.start(&key, terms, Purpose::Review(ask.signers.to_vec()), id, ask.namespace);
                let outcome = (flight.outcome.clone(), false, Arc::clone(&flight.wanted));
                slots.of(&key).flights.push(flight);
                outcome
            }
        };
        let outcome = match flight.await {
            Err(failure) if failure.is_of_the_server() && ask.max_age.is_none() => {
                self.stale(&key, ask.pins).ok_or(failure)
            }
            outcome => outcome,
        };
        (outcome, is_ahead)
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
}

#[cfg(test)]
mod tests;
