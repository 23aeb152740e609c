//! Turns at something of which there is little, fairly given: by namespace, and within a namespace by server.
//!
//! Whoever waits for nothing but their own things waits as long as these take. Nobody waits for all that somebody else has in mind:
//! the next turn is for the namespace that has the fewest at this moment, and of those for the one whose last turn is longest
//! ago; and in the same way for one of its servers. So a namespace that names ten thousand servers has one share.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use thiserror::Error;
use tokio::sync::oneshot;

/// How many of one namespace may wait for a turn at one thing. A review asks for 64 repositories at most, and API servers have some
/// hundred reviews under way.
const MAX_WAITING: usize = 4096;

/// Too many of the same namespace wait for a turn already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many of its namespace wait for a turn already")]
pub struct TooMany;

/// Those on whose behalf something is done, and with which server. Several namespaces may want the same repository: whoever joins
/// lends their own turn to it.
#[derive(Debug)]
pub(crate) struct Ticket {
    server: Arc<str>,
    state: Mutex<TicketState>,
}

#[derive(Debug)]
struct TicketState {
    parties: Vec<Arc<str>>,
    /// Where it waits just now.
    waiting: Vec<(Weak<Shared>, Weak<Entry>)>,
}

impl Ticket {
    /// For a namespace (empty where there is none), to do something with a server.
    pub(crate) fn new(party: &str, server: &str) -> Arc<Self> {
        let state = Mutex::new(TicketState { parties: vec![party.into()], waiting: Vec::new() });
        Arc::new(Self { server: server.into(), state })
    }

    fn state(&self) -> MutexGuard<'_, TicketState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The namespace for which it was begun.
    pub(crate) fn first(&self) -> Arc<str> {
        self.state().parties.first().map_or_else(|| "".into(), Arc::clone)
    }

    /// From now on it is done for this namespace too.
    pub(crate) fn join(&self, party: &str) {
        let mut state = self.state();
        if state.parties.iter().any(|known| **known == *party) {
            return;
        }
        let party: Arc<str> = party.into();
        state.parties.push(Arc::clone(&party));
        for (turns, entry) in &state.waiting {
            if let (Some(turns), Some(entry)) = (turns.upgrade(), entry.upgrade()) {
                turns.state().insert(&party, &self.server, entry);
                turns.grant();
            }
        }
    }

    /// Whether it waits for a turn.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state().waiting.iter().any(|(_, entry)| entry.upgrade().is_some_and(|entry| entry.is_waiting()))
    }
}

/// Somebody who waits.
#[derive(Debug)]
struct Entry {
    /// Who came first, where everything else is equal.
    number: u64,
    sender: Mutex<Option<oneshot::Sender<Turn>>>,
}

impl Entry {
    fn sender(&self) -> MutexGuard<'_, Option<oneshot::Sender<Turn>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody gave it a turn yet, and it is still wanted.
    fn is_waiting(&self) -> bool {
        self.sender().as_ref().is_some_and(|sender| !sender.is_closed())
    }
}

/// What a namespace, or one of its servers, has and had.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Account {
    /// How many turns it has now.
    has: usize,
    /// The number of its last turn.
    last: u64,
}

/// Who comes first: what the namespace has and had, then its server, then who asked first.
type Order = (Account, Account, u64);

#[derive(Debug, Default)]
struct Party {
    account: Account,
    servers: HashMap<Arc<str>, Line>,
}

#[derive(Debug, Default)]
struct Line {
    account: Account,
    waiting: VecDeque<Arc<Entry>>,
}

impl Line {
    /// Leaves out who does not wait any more.
    fn prune(&mut self) {
        while self.waiting.front().is_some_and(|entry| !entry.is_waiting()) {
            self.waiting.pop_front();
        }
    }
}

#[derive(Debug)]
struct State {
    free: usize,
    /// How many turns were given.
    number: u64,
    /// How many have asked for one.
    entries: u64,
    parties: HashMap<Arc<str>, Party>,
    /// How many turns there are with each server, over all namespaces.
    servers: HashMap<Arc<str>, usize>,
}

impl State {
    fn insert(&mut self, party: &Arc<str>, server: &Arc<str>, entry: Arc<Entry>) {
        let party = self.parties.entry(Arc::clone(party)).or_default();
        party.servers.entry(Arc::clone(server)).or_default().waiting.push_back(entry);
    }

    /// Who is next: the namespace, its server, and the one who waits.
    fn next(&mut self, shares: &Shares) -> Option<(Arc<str>, Arc<str>, oneshot::Sender<Turn>)> {
        let mut best: Option<(Order, Arc<str>, Arc<str>)> = None;
        let servers = &self.servers;
        let has_room = |server: &Arc<str>| servers.get(server).is_none_or(|has| *has < shares.server);
        self.parties.retain(|name, party| {
            party.servers.retain(|server, line| {
                line.prune();
                if let Some(first) = line.waiting.front()
                    && party.account.has < shares.party
                    && line.account.has < shares.server_of_party
                    && has_room(server)
                {
                    let order = (party.account, line.account, first.number);
                    if best.as_ref().is_none_or(|(best, ..)| order < *best) {
                        best = Some((order, Arc::clone(name), Arc::clone(server)));
                    }
                }
                !line.waiting.is_empty() || line.account.has > 0
            });
            // What it had counts for as long as it wants more: or it would always come first.
            !party.servers.is_empty()
        });
        let (_, name, server) = best?;
        let number = self.number + 1;
        let party = self.parties.get_mut(&name)?;
        let line = party.servers.get_mut(&server)?;
        let sender = line.waiting.pop_front()?.sender().take()?;
        for account in [&mut party.account, &mut line.account] {
            *account = Account { has: account.has + 1, last: number };
        }
        *self.servers.entry(Arc::clone(&server)).or_default() += 1;
        self.number = number;
        self.free -= 1;
        Some((name, server, sender))
    }

    fn give_back(&mut self, party: &Arc<str>, server: &Arc<str>) {
        self.free += 1;
        if let Some(has) = self.servers.get_mut(server) {
            *has -= 1;
            if *has == 0 {
                self.servers.remove(server);
            }
        }
        if let Some(party) = self.parties.get_mut(party) {
            party.account.has -= 1;
            if let Some(line) = party.servers.get_mut(server) {
                line.account.has -= 1;
            }
        }
    }

    /// Whether too many of a party wait. Those who wait no longer are only looked for when it seems so.
    fn is_long(&mut self, party: &str) -> bool {
        let Some(party) = self.parties.get_mut(party) else {
            return false;
        };
        let all = |party: &Party| party.servers.values().map(|line| line.waiting.len()).sum::<usize>();
        if all(party) >= MAX_WAITING {
            for line in party.servers.values_mut() {
                line.waiting.retain(|entry| entry.is_waiting());
            }
        }
        all(party) >= MAX_WAITING
    }
}

/// How many turns there may be at once.
#[derive(Debug)]
struct Shares {
    /// Of one namespace.
    party: usize,
    /// With one server.
    server: usize,
    /// With one server, of one namespace.
    server_of_party: usize,
}

#[derive(Debug)]
struct Shared {
    shares: Shares,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives turns as long as there are any, and somebody wants one.
    fn grant(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state();
                if state.free == 0 {
                    return;
                }
                state.next(&self.shares)
            };
            let Some((party, server, sender)) = next else {
                return;
            };
            // If it is not wanted any more it is dropped right here, and comes back.
            let _ = sender.send(Turn { turns: Arc::clone(self), party, server });
        }
    }
}

/// Turns at one thing.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Shared>);

/// A turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Shared>,
    party: Arc<str>,
    server: Arc<str>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.state().give_back(&self.party, &self.server);
        self.turns.grant();
    }
}

impl Turns {
    /// So many at once, and so many of one namespace.
    pub(crate) fn new(all: usize, share: usize) -> Self {
        Self::with_servers((all, share), (all, share))
    }

    /// So many at once, and so many of one namespace; and how many of each with one server. One that does not answer has them for as long as
    /// anybody waits, and must not have all.
    pub(crate) fn with_servers((all, party): (usize, usize), (server, server_of_party): (usize, usize)) -> Self {
        let (parties, servers) = (HashMap::new(), HashMap::new());
        let state = Mutex::new(State { free: all, number: 0, entries: 0, parties, servers });
        Self(Arc::new(Shared { shares: Shares { party, server, server_of_party }, state }))
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// Too many of the namespace wait already.
    pub(crate) async fn take(&self, ticket: &Ticket) -> Result<Turn, TooMany> {
        let (sender, turn) = oneshot::channel();
        let entry = {
            let mut state = ticket.state();
            let mut turns = self.0.state();
            turns.entries += 1;
            let entry = Arc::new(Entry { number: turns.entries, sender: Mutex::new(Some(sender)) });
            if state.parties.iter().all(|party| turns.is_long(party)) {
                return Err(TooMany);
            }
            for party in &state.parties {
                turns.insert(party, &ticket.server, Arc::clone(&entry));
            }
            drop(turns);
            state.waiting.retain(|(_, entry)| entry.strong_count() > 0);
            state.waiting.push((Arc::downgrade(&self.0), Arc::downgrade(&entry)));
            entry
        };
        self.0.grant();
        let turn = turn.await.map_err(|_| TooMany);
        drop(entry);
        turn
    }

    /// Whether nobody has a turn, or waits for one.
    pub(crate) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// How many have a turn, and how many wait for one.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = self.0.state();
        let lines = || state.parties.values().flat_map(|party| party.servers.values());
        let has = state.parties.values().map(|party| party.account.has).sum();
        (has, lines().map(|line| line.waiting.iter().filter(|entry| entry.is_waiting()).count()).sum())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::stream::{FuturesUnordered, StreamExt as _};

    use super::*;

    /// Who gets the one turn there is, in which order, when all have waited before the first one is given.
    async fn order(wanted: &[(&str, &str)]) -> Vec<String> {
        let turns = Turns::new(1, 1);
        let first = turns.take(&Ticket::new("blocker", "s")).await.unwrap();
        let mut waiting = FuturesUnordered::new();
        for (party, server) in wanted {
            let (turns, name) = (turns.clone(), format!("{party} {server}"));
            waiting.push(async move {
                let turn = turns.take(&Ticket::new(party, server)).await.unwrap();
                drop(turn);
                name
            });
        }
        assert!(waiting.next().now_or_never().is_none());
        drop(first);
        waiting.collect().await
    }

    #[tokio::test]
    async fn namespaces_take_turns_and_then_servers() {
        let wanted = [("a", "1"), ("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), ("a", "1"), ("b", "1"), ("c", "9")];
        let expected = ["a 1", "b 1", "c 9", "a 2", "b 1", "a 3", "a 1", "a 1"];
        assert_eq!(order(&wanted).await, expected);
    }

    /// A namespace that wants any number of things has its share, and no more; others come at once.
    #[tokio::test]
    async fn a_namespace_has_its_share() {
        let turns = Turns::new(8, 3);
        let take = |party: &str, server: String| {
            let (turns, ticket) = (turns.clone(), Ticket::new(party, &server));
            async move { turns.take(&ticket).await.unwrap() }.boxed()
        };
        let mut greedy: Vec<_> = (0..1000).map(|index| take("a", index.to_string())).collect();
        let mut has = Vec::new();
        for turn in &mut greedy {
            has.extend(turn.now_or_never());
        }
        assert_eq!((has.len(), turns.load()), (3, (3, 997)));
        let other = take("b", "s".to_owned()).now_or_never();
        assert!(other.is_some());
        drop((other, greedy));
        drop(has);
        assert_eq!(turns.load(), (0, 0));
    }

    /// A server that keeps all its turns for ever leaves some for others, to a namespace that asks for nothing else too.
    #[tokio::test]
    async fn a_server_has_its_share() {
        let turns = Turns::with_servers((8, 4), (6, 3));
        let take = |party: &str, server: &str| {
            let (turns, ticket) = (turns.clone(), Ticket::new(party, server));
            async move { turns.take(&ticket).await.unwrap() }.boxed()
        };
        let mut asks: Vec<_> = (0..10).map(|_| take("a", "bad")).collect();
        let of_a: Vec<_> = asks.iter_mut().filter_map(FutureExt::now_or_never).collect();
        assert_eq!(of_a.len(), 3);
        let good = take("a", "good").now_or_never();
        assert!(good.is_some() && take("a", "good").now_or_never().is_none(), "the namespace has its share too");
        let mut more: Vec<_> = ["b", "b", "c", "d"].map(|party| take(party, "bad")).into();
        let others: Vec<_> = more.iter_mut().filter_map(FutureExt::now_or_never).collect();
        assert_eq!(others.len(), 3);
        assert!(take("e", "bad").now_or_never().is_none());
        assert!(take("e", "good").now_or_never().is_some());
        drop((asks, more, of_a, others, good));
        assert!(take("e", "bad").now_or_never().is_some());
        assert_eq!((turns.load(), turns.0.state().servers.len()), ((0, 0), 0));
    }

    #[tokio::test]
    async fn whoever_joins_lends_a_turn() {
        let turns = Turns::new(1, 1);
        let first = turns.take(&Ticket::new("a", "s")).await.unwrap();
        let line: Vec<_> = (0..10).map(|index| Ticket::new("a", &index.to_string())).collect();
        let wanted = Ticket::new("a", "wanted");
        let mut before: Vec<_> = line.iter().map(|ticket| turns.take(ticket).boxed()).collect();
        let mut last = turns.take(&wanted).boxed();
        for turn in before.iter_mut().chain([&mut last]) {
            assert!(turn.now_or_never().is_none());
        }
        assert!(wanted.is_waiting());
        wanted.join("b");
        wanted.join("b");
        drop(first);
        let turn = last.now_or_never().expect("the turn of b");
        assert!(!wanted.is_waiting() && turns.load() == (1, 10));
        drop(turn);
        assert!(before.iter_mut().filter_map(FutureExt::now_or_never).count() == 10);
    }

    #[tokio::test]
    async fn a_line_has_an_end() {
        let turns = Turns::new(1, 1);
        let _first = turns.take(&Ticket::new("a", "s")).await.unwrap();
        let (ticket, other) = (Ticket::new("a", "s"), Ticket::new("b", "s"));
        let mut line: Vec<_> = (0..MAX_WAITING).map(|_| turns.take(&ticket).boxed()).collect();
        assert!(line.iter_mut().all(|turn| turn.now_or_never().is_none()));
        assert!(matches!(turns.take(&ticket).await, Err(TooMany)));
        assert!(turns.take(&other).now_or_never().is_none(), "others still wait");
        drop(line);
        assert!(turns.take(&ticket).now_or_never().is_none());
    }
}
