//! Repositories in use are looked at again before they are too old to be believed, so that reviews of known images wait for no server.
//!
//! This is a look like any other, and makes nothing last longer: what it brings counts from the moment at which its server was asked, what it finds
//! wrong counts at once, and what it cannot find out leaves everything as it was.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::NotaryClient;
use super::ask::{Key, Terms};
use super::fetch::is_too_much;
use super::flight::Purpose;
use super::kept::Slots;
use crate::failure::Failure;
use crate::http::HttpError;
use crate::login::Login;
use crate::turns::Ticket;

/// After which part of the time for which a repository is believed it is looked at again: a third is left for that.
const AFTER: (u32, u32) = (2, 3);

/// For how many times that time after a review last asked for it a repository is looked at ahead of need: some minutes.
const IN_USE: u32 = 10;

/// How many looks may be under way at once or wait for their turn, and how many of them for one namespace. Those that have turns are
/// fewer, see [`crate::load::AHEAD`].
const LOOKS: (usize, usize) = (256, 16);

/// How many entries of the queue are looked at before others get hold of the slots again.
const AT_ONCE: usize = 512;

/// How often it is seen what is due, at most and at least.
const TICKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How a repository is looked at again.
pub(crate) struct Again {
    terms: Terms,
    namespace: Arc<str>,
    id: u64,
    /// When; none while it is looked at.
    at: Option<Instant>,
    /// When a review last asked for it with the same login, and so on the word of somebody alike. Reviews of others do not have it looked at
    /// with credentials that they would not get.
    used: Instant,
}

impl Again {
    /// A review with this login was answered by what is in memory, and may see it.
    pub(super) fn used_by(&mut self, login: &Login, now: Instant) {
        if self.terms.login == *login {
            self.used = now;
        }
    }
}

/// A repository that is to be looked at.
pub(super) struct Due {
    key: Arc<Key>,
    terms: Terms,
    namespace: Arc<str>,
    /// When its server was asked last.
    asked: Instant,
    id: u64,
}

/// Repositories by when they are due.
type Entries = BTreeMap<(Instant, u64), Arc<Key>>;

/// What is to be looked at again, and when.
pub(crate) struct Queue {
    /// By namespace, and there by when they are due.
    entries: BTreeMap<Arc<str>, Entries>,
    /// The namespace that something was taken of last: those behind it come first the next time.
    last: Arc<str>,
    /// How many have ever been in it.
    ids: u64,
    /// How many looks are under way, by namespace.
    looks: HashMap<Arc<str>, usize>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), last: "".into(), ids: 0, looks: HashMap::new() }
    }
}

impl Queue {
    /// Forgets a repository.
    pub(super) fn leave(&mut self, again: Option<&Again>) {
        if let Some(Again { id, at: Some(at), namespace, .. }) = again {
            self.remove(namespace, (*at, *id));
        }
    }

    fn add(&mut self, namespace: &Arc<str>, at: (Instant, u64), key: Arc<Key>) {
        self.entries.entry(Arc::clone(namespace)).or_default().insert(at, key);
    }

    fn remove(&mut self, namespace: &str, at: (Instant, u64)) -> Option<Arc<Key>> {
        let entries = self.entries.get_mut(namespace)?;
        let removed = entries.remove(&at);
        if entries.is_empty() {
            self.entries.remove(namespace);
        }
        removed
    }

    /// The first entry of a namespace, if it is due.
    fn first_due(&self, namespace: &str, now: Instant) -> Option<(Instant, u64)> {
        let (at, _) = self.entries.get(namespace)?.first_key_value()?;
        (at.0 <= now).then_some(*at)
    }

    /// The namespaces of which something is due, in the order in which it is their turn.
    fn due(&self, now: Instant) -> Vec<Arc<str>> {
        let behind = self.entries.range::<str, _>((Bound::Excluded(&*self.last), Bound::Unbounded));
        let before = self.entries.range::<str, _>((Bound::Unbounded, Bound::Included(&*self.last)));
        let is_due = |entries: &Entries| entries.keys().next().is_some_and(|at| at.0 <= now);
        behind.chain(before).filter(|(_, entries)| is_due(entries)).map(|(name, _)| Arc::clone(name)).collect()
    }

    fn has_room(&self, namespace: &str) -> bool {
        self.looks.get(namespace).is_none_or(|looks| *looks < LOOKS.1)
    }

    fn begin(&mut self, namespace: &Arc<str>) {
        *self.looks.entry(Arc::clone(namespace)).or_default() += 1;
    }

    fn end(&mut self, namespace: &str) {
        if let Some(looks) = self.looks.get_mut(namespace) {
            *looks -= 1;
            if *looks == 0 {
                self.looks.remove(namespace);
            }
        }
    }
}

/// When a repository is to be looked at again whose server was asked at a moment, if that can be told.
fn due(asked: Instant, refresh: Duration) -> Option<Instant> {
    asked.checked_add(refresh / AFTER.1 * AFTER.0)
}

impl Slots {
    /// Has a repository that was just verified looked at again in time, as whoever asked for it did. Pull secrets of a pod are not used for that: they
    /// may have been deleted since. Where they are needed, reviews ask themselves.
    pub(super) fn look_again(&mut self, key: &Arc<Key>, terms: &Terms, namespace: Arc<str>, refresh: Duration) {
        let Some(slot) = self.by_key.get_mut(&**key) else { return };
        let before = slot.again.take();
        let (id, is_looked_at) = match &before {
            Some(again) => (again.id, again.at.is_none()),
            None => (self.queue.ids, false),
        };
        // To look at it ahead of need is no use of it.
        let used = before.as_ref().filter(|again| again.terms.login == terms.login).map(|again| again.used);
        let used = used.unwrap_or_else(Instant::now);
        self.queue.ids += u64::from(before.is_none());
        self.queue.leave(before.as_ref());
        let at = slot.kept.as_ref().and_then(|kept| due(kept.asked, refresh));
        let Some(at) = at.filter(|_| terms.login.is_empty() && !refresh.is_zero()) else { return };
        // Who looks at it now comes back to it.
        let at = (!is_looked_at).then_some(at);
        if let Some(at) = at {
            self.queue.add(&namespace, (at, id), Arc::clone(key));
        }
        slot.again = Some(Again { terms: terms.clone(), namespace, id, at, used });
    }

    /// What is due at a moment, of one namespace after the other. `paused` says of a server until when it is not to be asked.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        refresh: Duration,
        paused: impl Fn(&str) -> Option<Instant>,
    ) -> Vec<Due> {
        let (mut taken, queue) = (Vec::new(), &mut self.queue);
        let under_way: usize = queue.looks.values().sum();
        let mut waiting: VecDeque<_> = queue.due(now).into();
        for _ in 0..AT_ONCE {
            if under_way + taken.len() >= LOOKS.0 {
                break;
            }
            // One that has too many looks under way, or nothing more that is due, comes next time.
            let next = loop {
                let Some(namespace) = waiting.pop_front() else { return taken };
                let first = queue.first_due(&namespace, now).filter(|_| queue.has_room(&namespace));
                if let Some(first) = first {
                    break (namespace, first);
                }
            };
            let (namespace, (at, id)) = next;
            let Some(key) = queue.remove(&namespace, (at, id)) else { continue };
            queue.last = Arc::clone(&namespace);
            waiting.push_back(Arc::clone(&namespace));
            let Some(slot) = self.by_key.get_mut(&*key) else { continue };
            let in_use = |again: &Again| now.saturating_duration_since(again.used) < refresh.saturating_mul(IN_USE);
            let again = slot.again.as_mut().filter(|again| in_use(again));
            let (Some(kept), Some(again)) = (&slot.kept, again) else {
                slot.again = None;
                continue;
            };
            let later = due(kept.asked, refresh).filter(|at| *at > now);
            again.at = later.or_else(|| paused(&key.record.server));
            if let Some(at) = again.at {
                queue.add(&namespace, (at, id), key);
                continue;
            }
            queue.begin(&namespace);
            taken.push(Due { key, terms: again.terms.clone(), namespace, asked: kept.asked, id });
        }
        taken
    }

    /// A look came to its end. Comes back to the repository at a moment, or as soon as it is too old if there is none.
    fn look_ended(&mut self, looked: &Due, at: Option<Instant>, refresh: Duration) {
        self.queue.end(&looked.namespace);
        let Some(slot) = self.by_key.get_mut(&*looked.key) else { return };
        let Some(again) = slot.again.as_mut().filter(|again| again.id == looked.id) else { return };
        let at = at.or_else(|| slot.kept.as_ref().and_then(|kept| due(kept.asked, refresh)));
        let Some(at) = at.filter(|_| slot.kept.is_some()) else {
            slot.again = None;
            return;
        };
        again.at = Some(at);
        self.queue.add(&again.namespace, (at, looked.id), Arc::clone(&looked.key));
    }
}

impl NotaryClient {
    /// Looks at repositories that are in use before they are too old, for ever. For a process that answers reviews all the time; nothing
    /// comes of it where [`crate::Options::refresh`] is zero.
    pub async fn keep_fresh(&self) {
        let refresh = self.options.refresh;
        if refresh.is_zero() {
            return;
        }
        let mut ticks = tokio::time::interval((refresh / 30).clamp(TICKS.0, TICKS.1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = JoinSet::new();
        loop {
            ticks.tick().await;
            while looks.try_join_next().is_some() {}
            for due in self.due(Instant::now()) {
                let client = self.clone();
                looks.spawn(async move { client.look_ahead(due).await });
            }
        }
    }

    /// What is due at a moment; each of it is then to be given to [`Self::look_ahead`].
    fn due(&self, now: Instant) -> Vec<Due> {
        self.slots().take_due(now, self.options.refresh, |server| self.manners.paused_until(server, now))
    }

    /// Looks at one repository, at its turn and if nobody else has done so meanwhile.
    async fn look_ahead(&self, due: Due) {
        let refresh = self.options.refresh;
        let server = &due.key.record.server;
        let turn = self.turns.ahead.take(&Ticket::new(&due.namespace, server)).await;
        let at = match turn {
            Err(_) => Some(Instant::now() + refresh),
            Ok(_turn) => {
                let is_paused = self.manners.paused_until(server, Instant::now());
                match is_paused {
                    Some(until) => Some(until),
                    None => self.look_ahead_now(&due).await,
                }
            }
        };
        self.slots().look_ended(&due, at, refresh);
    }

    /// Gives when to come back to it where that is another moment than the usual one.
    async fn look_ahead_now(&self, due: &Due) -> Option<Instant> {
        let refresh = self.options.refresh;
        let server = &due.key.record.server;
        let (flight, _wanted) = {
            let mut slots = self.slots();
            let slot = slots.find(&due.key)?;
            // Somebody else has looked, or looks now.
            if slot.kept.as_ref().is_none_or(|kept| kept.asked != due.asked) {
                return None;
            }
            if !slot.flights.is_empty() {
                return Some(Instant::now() + refresh / AFTER.1);
            }
            let id = slots.next_flight();
            let flight = self.start(&due.key, due.terms.clone(), Purpose::Ahead, id, &due.namespace);
            let joined = (flight.outcome.clone(), Arc::clone(&flight.wanted));
            slots.of(&due.key).flights.push(flight);
            joined
        };
        let outcome = flight.await;
        self.turns.count_ahead(outcome.as_ref().err());
        let now = Instant::now();
        match outcome {
            Ok(_) => None,
            Err(failure) if is_of_all_repositories(&failure) => {
                self.manners.failed(server, refresh, now);
                self.manners.paused_until(server, now).or_else(|| now.checked_add(refresh))
            }
            Err(_) => now.checked_add(refresh),
        }
    }
}

/// Whether a failure is likely to meet whichever repository of the server is asked for. Somebody may have one for which the server answers
/// something odd: that must not keep the others from being looked at.
fn is_of_all_repositories(failure: &Failure) -> bool {
    match failure {
        Failure::TimedOut { .. } => true,
        Failure::Http(HttpError::Status { status, .. }) => is_too_much(*status),
        Failure::Http(error) => {
            matches!(error, HttpError::Unreachable { .. } | HttpError::TimedOut { .. } | HttpError::Tls { .. })
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
