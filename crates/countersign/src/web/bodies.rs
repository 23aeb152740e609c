//! Room for the bodies of requests: those under way together take no more than a fixed number of bytes. What does not fit waits.
//!
//! There are two lanes. Ordinary reviews have some kilobytes, and a lane of their own, so that large ones never hold them up. In a
//! lane the smallest goes first, so that a few huge ones hold up nobody else. Who has room and does not send is found out as soon
//! as somebody else waits for it: the source that has most of the lane then loses the body that is furthest behind.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use tokio::sync::{Notify, oneshot};

/// Up to which size a body goes into the lane of small ones. The review of a pod has some ten kilobytes.
pub(crate) const SMALL: usize = 64 << 10;

/// How many bytes the small bodies under way may have: some 256 of the greatest size at once, and some thousand ordinary ones.
pub(crate) const SMALL_LANE: usize = 16 << 20;

/// How many bytes the large bodies under way may have, and what is kept of them while they are judged: three of the greatest size
/// at once.
pub(crate) const LARGE_LANE: usize = 48 << 20;

/// How fast a body must come, in bytes a second, so that it does not lose its room to somebody who waits. The network of a cluster
/// brings a hundred times as much.
const RATE: u64 = 1 << 20;

/// How far a body may be behind that before it can lose its room.
const LAG: Duration = Duration::from_secs(1);

/// How often whoever waits looks whether somebody is behind.
const LOOK: Duration = Duration::from_millis(200);

/// How long room is waited for. The API server gives up after 10 s.
const PATIENCE: Duration = Duration::from_secs(8);

/// How many bodies of one source may wait for room in the lane of small ones: more than an API server has reviews under way.
const SMALL_LINE: usize = 2048;

/// How many bodies of one source may wait for room in the lane of large ones.
const LARGE_LINE: usize = 64;

/// Why there is no room for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Too many of the same source wait already.
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
            Self::LongLine => write!(f, "too many requests of this client wait for room in memory; try again"),
            Self::TooLong => write!(
                f,
                "other requests left no room in memory for this one within {} s; try again",
                PATIENCE.as_secs()
            ),
        }
    }
}

/// Room that a body has in a lane, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    lane: Arc<Lane>,
    taken: Arc<Taken>,
}

#[derive(Debug)]
struct Taken {
    source: IpAddr,
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
    /// Since when they are awaited, and when the last one arrived; `None` once all have.
    since: Option<(Instant, Instant)>,
}

impl Taken {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is behind, if that is so far that it can lose its room: it comes too slowly, or comes no more.
    fn lag(&self, now: Instant) -> Option<Duration> {
        let progress = self.progress();
        let (since, last) = progress.since?;
        let due = Duration::from_micros(u64::try_from(progress.arrived).ok()?.saturating_mul(1_000_000) / RATE);
        let slow = now.saturating_duration_since(since).saturating_sub(due);
        Some(slow.max(now.saturating_duration_since(last))).filter(|lag| *lag >= LAG)
    }
}

#[derive(Debug)]
struct Waiting {
    bytes: usize,
    source: IpAddr,
    granted: oneshot::Sender<Room>,
}

#[derive(Debug, Default)]
struct Lane {
    size: usize,
    /// How many of one source may wait.
    line: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    taken: Vec<Arc<Taken>>,
    /// The smallest first, and of equals the one that came first.
    waiting: Vec<Waiting>,
}

impl Lane {
    fn new(size: usize, line: usize) -> Arc<Self> {
        Arc::new(Self { size, line, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room. `behind` is told each time that another body lost its room for it.
    async fn room(self: &Arc<Self>, source: IpAddr, bytes: usize, behind: impl Fn()) -> Result<Room, NoRoom> {
        let bytes = bytes.min(self.size);
        let (granted, room) = oneshot::channel();
        {
            let mut state = self.state();
            // Whoever gave up waiting has left a closed channel behind.
            state.waiting.retain(|waiting| !waiting.granted.is_closed());
            if state.waiting.iter().filter(|waiting| waiting.source == source).count() >= self.line {
                return Err(NoRoom::LongLine);
            }
            let at = state.waiting.partition_point(|other| other.bytes <= bytes);
            state.waiting.insert(at, Waiting { bytes, source, granted });
        }
        self.grant();
        let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + LOOK, LOOK);
        let waiting = async {
            let mut room = std::pin::pin!(room);
            loop {
                tokio::select! {
                    // A lane outlives whoever waits for it.
                    granted = &mut room => return granted.map_err(|_| NoRoom::TooLong),
                    _ = looks.tick() => if self.free_one(Instant::now()) {
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
            state.waiting.retain(|waiting| !waiting.granted.is_closed());
            let fits = state.waiting.first().is_some_and(|first| state.used + first.bytes <= self.size);
            if !fits {
                return;
            }
            let next = state.waiting.remove(0);
            let now = Instant::now();
            let progress = Progress { bytes: next.bytes, arrived: 0, since: Some((now, now)) };
            let taken = Arc::new(Taken { source: next.source, progress: Mutex::new(progress), lost: Notify::new() });
            state.used += next.bytes;
            state.taken.push(Arc::clone(&taken));
            drop(state);
            // If nobody waits for it any more it is dropped right here, and comes back.
            let _ = next.granted.send(Room { lane: Arc::clone(self), taken });
        }
    }

    /// Takes the room of the source that has most, from its body that is furthest behind, if any is.
    fn free_one(&self, now: Instant) -> bool {
        let state = self.state();
        let of_source = |source| -> usize {
            let own = state.taken.iter().filter(|taken| taken.source == source);
            own.map(|taken| taken.progress().bytes).sum()
        };
        let behind = state.taken.iter().filter_map(|taken| Some(((of_source(taken.source), taken.lag(now)?), taken)));
        let Some((_, victim)) = behind.max_by_key(|(order, _)| *order) else {
            return false;
        };
        // Told once: it is not behind any more, as nothing more is awaited.
        victim.progress().since = None;
        victim.lost.notify_one();
        true
    }
}

impl Room {
    /// So many bytes have arrived in all by now.
    pub(crate) fn arrived(&self, bytes: usize, now: Instant) {
        let mut progress = self.taken.progress();
        progress.arrived = bytes;
        if let Some((_, last)) = &mut progress.since {
            *last = now;
        }
    }

    /// Resolves when others want the room and the body is behind.
    pub(crate) async fn lost(&self) {
        self.taken.lost.notified().await;
    }

    /// Everything has arrived, and so many bytes are needed from now on; no more than before.
    pub(crate) fn shrink(&self, bytes: usize) {
        let freed = {
            let mut progress = self.taken.progress();
            progress.since = None;
            let bytes = bytes.min(progress.bytes);
            std::mem::replace(&mut progress.bytes, bytes) - bytes
        };
        self.lane.state().used -= freed;
        self.lane.grant();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.lane.state();
        state.used -= self.taken.progress().bytes;
        state.taken.retain(|taken| !Arc::ptr_eq(taken, &self.taken));
        drop(state);
        self.lane.grant();
    }
}

/// The bytes of a body.
///
/// A large one is mapped from the system and goes back there as it is. From an allocator it may not: what smaller things are put
/// beside it keeps the whole from being given back, and each large body would leave the process a little larger.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// Up to [`SMALL`].
    Allocated(Vec<u8>),
    /// More than that: the mapping, and how much of it has arrived.
    Mapped(MmapMut, usize),
}

impl Bytes {
    /// None yet, with room for so many.
    ///
    /// # Errors
    /// The system has no memory.
    pub(crate) fn with_room(length: usize) -> std::io::Result<Self> {
        if length <= SMALL {
            return Ok(Self::Allocated(Vec::with_capacity(length)));
        }
        // Pages that nothing is written to take no memory.
        Ok(Self::Mapped(MmapMut::map_anon(length)?, 0))
    }

    /// Adds what has arrived; false if there is no room for it.
    pub(crate) fn add(&mut self, data: &[u8]) -> bool {
        match self {
            Self::Allocated(bytes) => {
                let fits = bytes.len() + data.len() <= SMALL;
                if fits {
                    bytes.extend_from_slice(data);
                }
                fits
            }
            Self::Mapped(bytes, length) => {
                let Some(room) = bytes.get_mut(*length..*length + data.len()) else {
                    return false;
                };
                room.copy_from_slice(data);
                *length += data.len();
                true
            }
        }
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Allocated(bytes) => bytes,
            Self::Mapped(bytes, length) => &bytes[..*length],
        }
    }
}

/// The room for all bodies of a server.
#[derive(Debug)]
pub(crate) struct Bodies {
    small: Arc<Lane>,
    large: Arc<Lane>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { small: Lane::new(SMALL_LANE, SMALL_LINE), large: Lane::new(LARGE_LANE, LARGE_LINE) }
    }
}

impl Bodies {
    /// Waits for room for a body of a source. `behind` is told each time that another body lost its room for it.
    ///
    /// # Errors
    /// Too many wait, or for too long.
    pub(crate) async fn room(&self, source: IpAddr, bytes: usize, behind: impl Fn()) -> Result<Room, NoRoom> {
        let lane = if bytes <= SMALL { &self.small } else { &self.large };
        lane.room(source, bytes, behind).await
    }

    /// How many bytes are taken, of the small lane and of the large one.
    pub(crate) fn used(&self) -> (usize, usize) {
        (self.small.state().used, self.large.state().used)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn source(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Room that is there at once.
    fn at_once(lane: &Arc<Lane>, from: u8, bytes: usize) -> Room {
        lane.room(source(from), bytes, || ()).now_or_never().expect("room").unwrap()
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_and_the_smallest_goes_first() {
        let lane = Lane::new(100, 10);
        let first = at_once(&lane, 1, 60);
        let (mut huge, mut small) =
            (Box::pin(lane.room(source(1), 90, || ())), Box::pin(lane.room(source(2), 50, || ())));
        assert!(futures::poll!(&mut huge).is_pending() && futures::poll!(&mut small).is_pending());
        assert_eq!(lane.state().used, 60);
        drop(first);
        assert!(futures::poll!(&mut huge).is_pending());
        let small = small.await.unwrap();
        assert_eq!(lane.state().used, 50);
        small.shrink(10);
        let huge = huge.await.unwrap();
        assert_eq!(lane.state().used, 100);
        drop((small, huge));
        assert_eq!(lane.state().used, 0);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_holds_up_nobody() {
        let lane = Lane::new(100, 10);
        let first = at_once(&lane, 1, 100);
        let mut given_up = Box::pin(lane.room(source(1), 10, || ()));
        let mut waiting = Box::pin(lane.room(source(2), 20, || ()));
        assert!(futures::poll!(&mut given_up).is_pending() && futures::poll!(&mut waiting).is_pending());
        drop(given_up);
        drop(first);
        drop(waiting.await.unwrap());
        assert_eq!(lane.state().used, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let lane = Lane::new(100, 10);
        let first = at_once(&lane, 1, 100);
        first.shrink(100);
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
        let lane = Lane::new(100, 10);
        drop(at_once(&lane, 1, 1000));
        assert_eq!(lane.state().used, 0);
    }

    /// Of two sources the one with more loses, of its bodies the one that is furthest behind; and what comes fast enough, or has
    /// arrived, loses nothing.
    #[tokio::test]
    async fn who_is_behind_loses_to_who_waits() {
        const SECOND: Duration = Duration::from_secs(1);
        let lane = Lane::new(100, 10);
        let slow = at_once(&lane, 1, 10);
        let (late, stalled) = (at_once(&lane, 2, 20), at_once(&lane, 2, 20));
        let (fast, arrived) = (at_once(&lane, 2, 20), at_once(&lane, 2, 20));
        arrived.shrink(20);
        let begun = Instant::now();
        assert!(!lane.free_one(begun), "nobody is behind yet");
        // Much has arrived of one, but nothing any more.
        let much = 100 << 20;
        stalled.arrived(much, begun + SECOND);
        let now = begun + 3 * SECOND;
        slow.arrived(1, now);
        fast.arrived(much, now);
        let lost = |room: &Room| room.lost().now_or_never().is_some();
        assert!(lane.free_one(now) && lost(&late) && !lost(&stalled));
        assert!(lane.free_one(now) && lost(&stalled) && !lost(&slow));
        assert!(lane.free_one(now) && lost(&slow));
        assert!(!lane.free_one(now) && !lost(&fast) && !lost(&arrived));
    }

    #[test]
    fn bytes_are_those_that_were_added() {
        for length in [0, 5, SMALL, SMALL + 1, 16 << 20] {
            let mut bytes = Bytes::with_room(length).unwrap();
            let mut expected = Vec::new();
            for part in [&b"abc"[..], &vec![7; SMALL - 3]] {
                if bytes.add(part) {
                    expected.extend_from_slice(part);
                }
            }
            assert_eq!(*bytes, expected, "{length}");
            assert_eq!(expected.len(), SMALL);
            assert_eq!(bytes.add(b"de"), length > SMALL + 1, "{length}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_do_not_hold_up_small_ones() {
        let bodies = Bodies::default();
        let large: Vec<_> = (0..3).map(|_| bodies.room(source(1), 16 << 20, || ()).now_or_never()).collect();
        assert!(large.iter().all(Option::is_some));
        assert!(bodies.room(source(1), SMALL + 1, || ()).now_or_never().is_none());
        assert!(bodies.room(source(1), SMALL, || ()).now_or_never().is_some());
        assert_eq!(bodies.used(), (0, LARGE_LANE));
    }
}
