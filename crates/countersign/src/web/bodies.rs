//! Room for the bodies of requests: those under way together take no more than a fixed number of bytes. What does not fit waits.
//!
//! There are three lanes: for bodies of ordinary reviews, which have some kilobytes; for large bodies; and for large reviews while they
//! are judged, with their answers. So a large one never holds up an ordinary one. Room is taken for a party: the address that sends a
//! body, or the namespace that a review is about. In a lane the party that has least of it comes first, and of one party the smallest,
//! so that a few huge ones hold up nobody else. Who has room and does not send, or does not take an answer, is found out while
//! somebody else waits for it: the party that has most of the lane then loses the body that is furthest behind.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

/// Up to which size a body goes into the lane of small ones. The review of a pod has some ten kilobytes.
pub(crate) const SMALL: usize = 64 << 10;

/// How many bytes the small bodies under way may have: some 256 of the greatest size at once, and some thousand ordinary ones.
pub(crate) const SMALL_LANE: usize = 16 << 20;

/// How many bytes the large bodies under way may have: two of the greatest size at once. One address has half of it at most, and of
/// the lane of small ones three quarters.
pub(crate) const LARGE_LANE: usize = 32 << 20;

/// How many bytes reviews with many images may take while they are judged, and their answers until they are taken; and how many of
/// them the reviews of one namespace. A review may wait for a trust server for as long as it has, so nobody may have all.
pub(crate) const JUDGED_LANE: (usize, usize) = (24 << 20, 12 << 20);

/// How fast a body must come, in bytes a second, so that it does not lose its room to somebody who waits; a large one within two
/// seconds. The network of a cluster brings a hundred times as much.
const RATE: u64 = 1 << 20;

/// How far a body may be behind that before it can lose its room.
const LAG: Duration = Duration::from_secs(1);

/// How often whoever waits looks whether somebody is behind.
const LOOK: Duration = Duration::from_millis(200);

/// How long room is waited for. The API server gives up after 10 s.
const PATIENCE: Duration = Duration::from_secs(8);

/// How many bytes the reviews that wait to be judged may have, and how many of them those of one address.
const WAITING: (usize, usize) = (32 << 20, 16 << 20);

/// How many bodies of one address may wait for room in the lane of small ones: more than an API server has reviews under way.
const SMALL_LINE: usize = 2048;

/// How many bodies of one address may wait for room in the lane of large ones, and reviews of one namespace in that of the judged.
const LARGE_LINE: usize = 64;

/// For whom room is taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Party {
    /// Whoever sends from there. More is not known of a body that was not read yet.
    Address(IpAddr),
    /// The namespace of the object that a review is about.
    Namespace(Arc<str>),
}

/// Why there is no room for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Too many of the same party wait already.
    LongLine,
    /// None came free in time.
    TooLong,
}

impl NoRoom {
    /// As the metrics name it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::LongLine => "line",
            Self::TooLong => "wait",
        }
    }
}

impl std::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LongLine => {
                write!(f, "too many requests of this client, or of this namespace, wait for room in memory; try again")
            }
            Self::TooLong => write!(
                f,
                "other requests left no room in memory for this one within {} s; try again",
                PATIENCE.as_secs()
            ),
        }
    }
}

/// The least that a body takes of its lane, in bytes: what it costs to wait for one. So the lanes bound how many there are, too.
const LEAST: usize = 4 << 10;

/// Room that a body has in a lane, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    lane: Arc<Lane>,
    number: u64,
    taken: Arc<Taken>,
}

#[derive(Debug)]
struct Taken {
    party: Party,
    progress: Mutex<Progress>,
    /// Told when the room is wanted by others and the body is behind.
    lost: Notify,
}

#[derive(Debug)]
struct Progress {
    /// How many bytes of room it has.
    bytes: usize,
    /// How many have arrived.
    arrived: usize,
    /// Since when they are awaited, and when the last one arrived.
    since: (Instant, Instant),
}

impl Taken {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is behind, if that is so far that it can lose its room: it comes too slowly, or comes no more.
    fn lag(&self, now: Instant) -> Option<Duration> {
        let progress = self.progress();
        let (since, last) = progress.since;
        // However large it is, it must not take longer than others wait.
        let rate = RATE.max(u64::try_from(progress.bytes).ok()? / 2);
        let due = Duration::from_micros(u64::try_from(progress.arrived).ok()?.saturating_mul(1_000_000) / rate);
        let slow = now.saturating_duration_since(since).saturating_sub(due);
        Some(slow.max(now.saturating_duration_since(last))).filter(|lag| *lag >= LAG)
    }
}

/// Who waits, by size and then by who came first.
type Line = BTreeMap<(usize, u64), oneshot::Sender<Room>>;

#[derive(Debug)]
struct Lane {
    size: usize,
    /// How many bytes one party may have.
    share: usize,
    /// How many of one party may wait.
    line: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    used: usize,
    /// The number of the last one that asked.
    number: u64,
    by_party: HashMap<Party, Share>,
    /// Those that are still coming.
    awaited: HashMap<u64, Arc<Taken>>,
    /// When it was last looked whether one of them is behind.
    looked: Instant,
}

/// What one party has of a lane, and wants.
#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    line: Line,
}

impl Share {
    /// The size of the body that is next, if any waits. Whoever gave up waiting has left a closed channel behind.
    fn next(&mut self) -> Option<usize> {
        while let Some(first) = self.line.first_entry() {
            if !first.get().is_closed() {
                return Some(first.key().0);
            }
            first.remove();
        }
        None
    }
}

impl State {
    /// Who is next: of the party that has least of the lane, the smallest. Nobody goes before it, or bodies that are a little
    /// smaller could take all that comes free for ever.
    fn next(&mut self, share: usize) -> Option<(Party, usize)> {
        let mut best: Option<(usize, usize, Party)> = None;
        self.by_party.retain(|party, has| {
            let next = has.next();
            if let Some(bytes) = next
                && (has.bytes == 0 || has.bytes + bytes <= share)
                && best.as_ref().is_none_or(|best| (has.bytes, bytes, party) < (best.0, best.1, &best.2))
            {
                best = Some((has.bytes, bytes, party.clone()));
            }
            next.is_some() || has.bytes > 0
        });
        best.map(|(_, bytes, party)| (party, bytes))
    }

    fn give_back(&mut self, party: &Party, bytes: usize) {
        self.used -= bytes;
        if let Some(has) = self.by_party.get_mut(party) {
            has.bytes -= bytes;
        }
    }
}

impl Lane {
    fn new(size: usize, share: usize, line: usize) -> Arc<Self> {
        let state =
            State { used: 0, number: 0, by_party: HashMap::new(), awaited: HashMap::new(), looked: Instant::now() };
        Arc::new(Self { size, share, line, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room. `behind` is told each time that another body lost its room for it.
    async fn room(self: &Arc<Self>, party: Party, bytes: usize, behind: impl Fn()) -> Result<Room, NoRoom> {
        let bytes = bytes.clamp(LEAST.min(self.size), self.size);
        let (granted, mut room) = oneshot::channel();
        {
            let mut state = self.state();
            state.number += 1;
            let number = state.number;
            let line = &mut state.by_party.entry(party).or_default().line;
            if line.len() >= self.line {
                line.retain(|_, waiting| !waiting.is_closed());
            }
            if line.len() >= self.line {
                return Err(NoRoom::LongLine);
            }
            line.insert((bytes, number), granted);
        }
        self.grant();
        // Most need not wait, and need no timers.
        if let Ok(room) = room.try_recv() {
            return Ok(room);
        }
        let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + LOOK, LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let waiting = async {
            let mut room = std::pin::pin!(room);
            loop {
                tokio::select! {
                    // A lane outlives whoever waits for it.
                    granted = &mut room => return granted.map_err(|_| NoRoom::TooLong),
                    _ = looks.tick() => if self.look(Instant::now()) {
                        behind();
                    },
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or(Err(NoRoom::TooLong))
    }

    /// Gives room to those who wait, as far as there is any.
    fn grant(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            let next = state.next(self.share);
            let Some((party, bytes)) = next.filter(|(_, bytes)| state.used + bytes <= self.size) else {
                return;
            };
            let Some(has) = state.by_party.get_mut(&party) else {
                return;
            };
            let Some(((_, number), granted)) = has.line.pop_first() else {
                return;
            };
            has.bytes += bytes;
            let now = Instant::now();
            let progress = Progress { bytes, arrived: 0, since: (now, now) };
            let taken = Arc::new(Taken { party, progress: Mutex::new(progress), lost: Notify::new() });
            state.used += bytes;
            state.awaited.insert(number, Arc::clone(&taken));
            drop(state);
            // If nobody waits for it any more it is dropped right here, and comes back.
            let _ = granted.send(Room { lane: Arc::clone(self), number, taken });
        }
    }

    /// Looks whether somebody is behind, unless somebody else looked just now: however many wait, it is done now and then.
    fn look(&self, now: Instant) -> bool {
        let mut state = self.state();
        if now.saturating_duration_since(state.looked) < LOOK {
            return false;
        }
        state.looked = now;
        free_one(&mut state, now)
    }
}

/// Takes the room of the party that has most, from its body that is furthest behind, if any is.
fn free_one(state: &mut State, now: Instant) -> bool {
    let behind = state.awaited.iter().filter_map(|(number, taken)| {
        let lag = taken.lag(now)?;
        let has = state.by_party.get(&taken.party).map_or(0, |has| has.bytes);
        Some(((has, lag), *number))
    });
    let Some((_, victim)) = behind.max() else {
        return false;
    };
    // Told once: nothing more is awaited of it.
    if let Some(victim) = state.awaited.remove(&victim) {
        victim.lost.notify_one();
    }
    true
}

impl Room {
    /// So many bytes have arrived in all by now.
    pub(crate) fn arrived(&self, bytes: usize, now: Instant) {
        let mut progress = self.taken.progress();
        progress.arrived = bytes;
        progress.since.1 = now;
    }

    /// Resolves when others want the room and the body is behind.
    pub(crate) async fn lost(&self) {
        self.taken.lost.notified().await;
    }

    /// Everything has arrived, and so many bytes are needed from now on; no more than before.
    pub(crate) fn shrink(&self, bytes: usize) {
        let freed = {
            let mut progress = self.taken.progress();
            let bytes = bytes.min(progress.bytes);
            std::mem::replace(&mut progress.bytes, bytes) - bytes
        };
        let mut state = self.lane.state();
        state.awaited.remove(&self.number);
        state.give_back(&self.taken.party, freed);
        drop(state);
        self.lane.grant();
    }

    /// The same room for so many bytes that somebody is to take from now on, if it is large enough.
    pub(crate) fn for_answer(self, bytes: usize) -> Option<Self> {
        let now = Instant::now();
        {
            let mut progress = self.taken.progress();
            if progress.bytes < bytes {
                return None;
            }
            (progress.arrived, progress.since) = (0, (now, now));
        }
        self.shrink(bytes);
        self.lane.state().awaited.insert(self.number, Arc::clone(&self.taken));
        Some(self)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.lane.state();
        state.awaited.remove(&self.number);
        state.give_back(&self.taken.party, self.taken.progress().bytes);
        drop(state);
        self.lane.grant();
    }
}

/// Bytes of a review that waits to be judged, until it is dropped.
struct WaitingBytes<'a> {
    all: &'a Mutex<HashMap<IpAddr, usize>>,
    source: IpAddr,
    bytes: usize,
}

impl<'a> WaitingBytes<'a> {
    /// Nothing if too many wait.
    fn add(all: &'a Mutex<HashMap<IpAddr, usize>>, source: IpAddr, bytes: usize) -> Option<Self> {
        let mut waiting = all.lock().unwrap_or_else(PoisonError::into_inner);
        let own = waiting.get(&source).copied().unwrap_or_default();
        let sum: usize = waiting.values().sum();
        if own + bytes > WAITING.1 || sum + bytes > WAITING.0 {
            return None;
        }
        waiting.insert(source, own + bytes);
        Some(Self { all, source, bytes })
    }
}

impl Drop for WaitingBytes<'_> {
    fn drop(&mut self) {
        let mut waiting = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = waiting.get_mut(&self.source) {
            *own -= self.bytes;
            if *own == 0 {
                waiting.remove(&self.source);
            }
        }
    }
}

/// The room for all bodies of a server.
#[derive(Debug)]
pub(crate) struct Bodies {
    small: Arc<Lane>,
    large: Arc<Lane>,
    judged: Arc<Lane>,
    /// How many bytes the reviews that wait for room to be judged have meanwhile, by who sent them.
    waiting: Mutex<HashMap<IpAddr, usize>>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self {
            small: Lane::new(SMALL_LANE, SMALL_LANE / 4 * 3, SMALL_LINE),
            large: Lane::new(LARGE_LANE, LARGE_LANE / 2, LARGE_LINE),
            judged: Lane::new(JUDGED_LANE.0, JUDGED_LANE.1, LARGE_LINE),
            waiting: Mutex::default(),
        }
    }
}

impl Bodies {
    /// Waits for room for a body from an address. `behind` is told each time that another body lost its room for it.
    ///
    /// # Errors
    /// Too many wait, or for too long.
    pub(crate) async fn room(&self, source: IpAddr, bytes: usize, behind: impl Fn()) -> Result<Room, NoRoom> {
        let lane = if bytes <= SMALL { &self.small } else { &self.large };
        lane.room(Party::Address(source), bytes, behind).await
    }

    /// Waits for room for a review with many images, of a namespace, and for its answer.
    ///
    /// # Errors
    /// Too many wait, or for too long.
    pub(crate) async fn judged(
        &self,
        source: IpAddr,
        namespace: &str,
        bytes: usize,
        behind: impl Fn(),
    ) -> Result<Room, NoRoom> {
        // Anybody may name any number of namespaces, and what waits takes memory too.
        let _waiting = WaitingBytes::add(&self.waiting, source, bytes).ok_or(NoRoom::LongLine)?;
        self.judged.room(Party::Namespace(namespace.into()), bytes, behind).await
    }

    /// How many bytes are taken of each lane, and how many it has.
    pub(crate) fn used(&self) -> [(&'static str, usize, usize); 3] {
        [("small", &self.small), ("large", &self.large), ("judged", &self.judged)]
            .map(|(name, lane)| (name, lane.state().used, lane.size))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn source(last: u8) -> Party {
        Party::Address(address(last))
    }

    /// Room that is there at once.
    fn at_once(lane: &Arc<Lane>, from: u8, bytes: usize) -> Room {
        lane.room(source(from), bytes, || ()).now_or_never().expect("room").unwrap()
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_and_the_smallest_goes_first() {
        let lane = Lane::new(100 * LEAST, 100 * LEAST, 10);
        let first = at_once(&lane, 1, 60 * LEAST);
        let (mut huge, mut small) =
            (Box::pin(lane.room(source(1), 90 * LEAST, || ())), Box::pin(lane.room(source(2), 50 * LEAST, || ())));
        assert!(futures::poll!(&mut huge).is_pending() && futures::poll!(&mut small).is_pending());
        assert_eq!(lane.state().used, 60 * LEAST);
        drop(first);
        assert!(futures::poll!(&mut huge).is_pending());
        let small = small.await.unwrap();
        assert_eq!(lane.state().used, 50 * LEAST);
        small.shrink(10 * LEAST);
        let huge = huge.await.unwrap();
        assert_eq!(lane.state().used, 100 * LEAST);
        drop((small, huge));
        assert_eq!(lane.state().used, 0);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_holds_up_nobody() {
        let lane = Lane::new(100 * LEAST, 100 * LEAST, 10);
        let first = at_once(&lane, 1, 100 * LEAST);
        let mut given_up = Box::pin(lane.room(source(1), 10, || ()));
        let mut waiting = Box::pin(lane.room(source(2), 20, || ()));
        assert!(futures::poll!(&mut given_up).is_pending() && futures::poll!(&mut waiting).is_pending());
        drop(given_up);
        drop(first);
        drop(waiting.await.unwrap());
        assert_eq!(lane.state().used, 0);
    }

    /// One source has the whole lane, and asks for more all the time, in pieces that are smaller than what another one wants.
    #[tokio::test]
    async fn smaller_bodies_of_one_source_starve_nobody() {
        let lane = Lane::new(100 * LEAST, 100 * LEAST, 1000);
        let mut held: Vec<_> = (0..100).map(|_| at_once(&lane, 1, LEAST)).collect();
        let mut honest = Box::pin(lane.room(source(2), 4 * LEAST, || ()));
        assert!(futures::poll!(&mut honest).is_pending());
        let mut greedy: Vec<_> = (0..100).map(|_| Box::pin(lane.room(source(1), LEAST, || ()))).collect();
        for more in &mut greedy {
            assert!(futures::poll!(more).is_pending());
        }
        held.truncate(96);
        assert!(honest.now_or_never().is_some());
    }

    /// However many wait, and however many are coming, it is looked now and then whether somebody is behind.
    #[tokio::test]
    async fn many_who_wait_look_once() {
        let lane = Lane::new(100 * LEAST, 100 * LEAST, 10_000);
        let held: Vec<_> = (0..100).map(|_| at_once(&lane, 1, LEAST)).collect();
        let now = Instant::now() + LAG * 2;
        assert_eq!((0..10_000).filter(|_| lane.look(now)).count(), 1);
        assert_eq!((0..10_000).filter(|_| lane.look(now + LOOK)).count(), 1);
        assert_eq!(held.iter().filter(|room| room.lost().now_or_never().is_some()).count(), 2);
    }

    /// Whoever waits may name any number of parties: of those that gave up nothing is left.
    #[tokio::test]
    async fn who_gave_up_leaves_nothing() {
        let lane = Lane::new(100 * LEAST, 100 * LEAST, 10);
        let first = at_once(&lane, 1, 100 * LEAST);
        for name in 0..1000 {
            let mut waiting = Box::pin(lane.room(Party::Namespace(name.to_string().into()), LEAST, || ()));
            assert!(futures::poll!(&mut waiting).is_pending());
        }
        assert!(lane.state().by_party.len() <= 2, "{}", lane.state().by_party.len());
        drop(first);
        assert!(lane.state().by_party.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let lane = Lane::new(100 * LEAST, 100 * LEAST, 10);
        let first = at_once(&lane, 1, 100 * LEAST);
        first.shrink(100 * LEAST);
        let waiting: Vec<_> = (0..10).map(|_| lane.room(source(1), 1, || ())).collect();
        let mut waiting = Box::pin(futures::future::join_all(waiting));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(lane.room(source(1), 1, || ()).await.unwrap_err(), NoRoom::LongLine);
        assert_eq!(lane.room(source(2), 1, || ()).await.unwrap_err(), NoRoom::TooLong);
        assert!(waiting.await.into_iter().all(|room| matches!(room, Err(NoRoom::TooLong))));
        drop(first);
        assert_eq!(lane.state().used, 0);
    }

    #[tokio::test]
    async fn more_than_the_lane_has_is_all_of_it() {
        let lane = Lane::new(100 * LEAST, 100 * LEAST, 10);
        drop(at_once(&lane, 1, 1000 * LEAST));
        assert_eq!(lane.state().used, 0);
    }

    /// Of two sources the one with more loses, of its bodies the one that is furthest behind; and what comes fast enough, or has
    /// arrived, loses nothing.
    #[tokio::test]
    async fn who_is_behind_loses_to_who_waits() {
        const SECOND: Duration = Duration::from_secs(1);
        let lane = Lane::new(100 * LEAST, 100 * LEAST, 10);
        let slow = at_once(&lane, 1, 10 * LEAST);
        let (late, stalled) = (at_once(&lane, 2, 20 * LEAST), at_once(&lane, 2, 20 * LEAST));
        let (fast, arrived) = (at_once(&lane, 2, 20 * LEAST), at_once(&lane, 2, 20 * LEAST));
        arrived.shrink(20 * LEAST);
        let begun = Instant::now();
        assert!(!free_one(&mut lane.state(), begun), "nobody is behind yet");
        // Much has arrived of one, but nothing any more.
        let much = 100 << 20;
        stalled.arrived(much, begun + SECOND);
        let now = begun + 3 * SECOND;
        slow.arrived(1, now);
        fast.arrived(much, now);
        let lost = |room: &Room| room.lost().now_or_never().is_some();
        assert!(free_one(&mut lane.state(), now) && lost(&late) && !lost(&stalled));
        assert!(free_one(&mut lane.state(), now) && lost(&stalled) && !lost(&slow));
        assert!(free_one(&mut lane.state(), now) && lost(&slow));
        assert!(!free_one(&mut lane.state(), now) && !lost(&fast) && !lost(&arrived));
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_do_not_hold_up_small_ones() {
        let bodies = Bodies::default();
        let large: Vec<_> = (1..=2).map(|from| bodies.room(address(from), 16 << 20, || ()).now_or_never()).collect();
        assert!(large.iter().all(Option::is_some));
        assert!(bodies.room(address(1), SMALL + 1, || ()).now_or_never().is_none());
        assert!(bodies.room(address(1), SMALL, || ()).now_or_never().is_some());
        assert_eq!(bodies.used().map(|(_, used, _)| used), [0, LARGE_LANE, 0]);
        assert_eq!(bodies.used().map(|(_, _, most)| most), [SMALL_LANE, LARGE_LANE, JUDGED_LANE.0]);
    }

    /// However many large reviews of one namespace are judged, another one's finds room at once.
    #[tokio::test]
    async fn a_namespace_has_half_of_the_judged() {
        const SIZE: usize = 1 << 20;
        let bodies = Bodies::default();
        let mut greedy = Vec::new();
        while let Some(room) = bodies.judged(address(1), "greedy", SIZE, || ()).now_or_never() {
            greedy.push(room.unwrap());
        }
        assert_eq!(greedy.len() * SIZE, JUDGED_LANE.1);
        let other = bodies.judged(address(1), "other", SIZE, || ()).now_or_never().expect("room").unwrap();
        // Its answer has the same room, as long as that is enough.
        let answer = other.for_answer(SIZE / 2).expect("room");
        assert_eq!(bodies.used()[2].1, JUDGED_LANE.1 + SIZE / 2);
        assert!(answer.for_answer(SIZE).is_none());
        assert_eq!(bodies.used()[2].1, JUDGED_LANE.1);
    }

    /// Whoever names any number of namespaces has only so much waiting.
    #[tokio::test]
    async fn what_waits_to_be_judged_is_bounded() {
        const SIZE: usize = 1 << 20;
        let bodies = Bodies::default();
        let mut held = Vec::new();
        for namespace in ["a", "b"] {
            while let Some(room) = bodies.judged(address(1), namespace, SIZE, || ()).now_or_never() {
                held.push(room.unwrap());
            }
        }
        assert_eq!(held.len() * SIZE, JUDGED_LANE.0);
        let names: Vec<_> = (0..100).map(|index| index.to_string()).collect();
        let mut waiting = Vec::new();
        for name in &names {
            let mut room = Box::pin(bodies.judged(address(1), name, SIZE, || ()));
            match futures::poll!(&mut room) {
                std::task::Poll::Pending => waiting.push(room),
                std::task::Poll::Ready(refused) => assert_eq!(refused.unwrap_err(), NoRoom::LongLine),
            }
        }
        assert_eq!(waiting.len() * SIZE, WAITING.1);
        assert!(bodies.judged(address(2), "c", SIZE, || ()).now_or_never().is_none(), "another address waits");
        drop(waiting);
        assert!(bodies.waiting.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn one_address_has_no_whole_lane() {
        let bodies = Bodies::default();
        let first = bodies.room(address(1), 16 << 20, || ()).now_or_never();
        assert!(first.is_some() && bodies.room(address(1), 16 << 20, || ()).now_or_never().is_none());
        assert!(bodies.room(address(2), 16 << 20, || ()).now_or_never().is_some());
        let mut small = Vec::new();
        // Not interrupted, as the runtime otherwise does with a task that goes on for long.
        while let Some(room) = tokio::task::unconstrained(bodies.room(address(1), SMALL, || ())).now_or_never() {
            small.push(room.unwrap());
        }
        assert_eq!(small.len() * SMALL, SMALL_LANE / 4 * 3);
        assert!(tokio::task::unconstrained(bodies.room(address(2), SMALL, || ())).now_or_never().is_some());
    }
}
