//! Who may keep a connection open, and who loses one when there are too many.
//!
//! Anybody who reaches a port may open connections, and say nothing on them. So a connection has to earn its seat: it has some
//! seconds for its handshake and for its first request, and only some of one source may keep the server waiting for longer than
//! that takes honest clients. API servers are not held back by this. Those that reach a webhook through its Service open one
//! connection for each review under way, many at once and from one address; but they send the review at once, and while a
//! review is judged its connection neither counts nor is cut.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How many connections a port serves at once. An API server keeps some ten of them open, and as many more as it has reviews
/// under way: by default at most 200 to 400 requests that change something.
pub(crate) const SEATS: usize = 2048;

/// How many more there may be while all of them are in the middle of a request. A source gets one of these as long as it has fewer
/// seats than are left for all others.
const EXTRA_SEATS: usize = SEATS;

/// How many connections of one source may keep the server waiting before they have carried one whole request.
pub(crate) const UNPROVEN_PER_SOURCE: usize = 64;

/// How long a connection is waited for before it counts as one that keeps the server waiting. Clients send a handshake and a
/// request as soon as they can; a second is long for that even across continents.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// How long a handshake may take, and after it the head of the first request, and later the head of each further one.
pub(crate) const FIRST_BYTES: Duration = Duration::from_secs(5);

/// How long a connection may stay open without a request: longer than the 90 s after which clients written in Go, such as API
/// servers, close it themselves. Whoever closes first must not be the one who does not know whether a request is on its way.
pub(crate) const IDLE: Duration = Duration::from_secs(120);

/// How often the connections are looked at.
pub(crate) const SWEEP: Duration = Duration::from_millis(500);

/// Why a connection was closed, or not taken, by this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Closed {
    /// It kept the server waiting for a handshake or for the head of a request.
    Late,
    /// Too many of its source kept the server waiting, and it did so for longest.
    Crowded,
    /// All seats were taken, its source had most of them, and it was idle for longest.
    Displaced,
    /// It was not taken: all seats are in the middle of a request, and its source has more of them than are left.
    Refused,
    /// No request came for a long time.
    Idle,
}

impl Closed {
    /// As the metrics name it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Crowded => "crowded",
            Self::Displaced => "displaced",
            Self::Refused => "refused",
            Self::Idle => "idle",
        }
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// TLS comes about.
    Handshake,
    /// The head of the first request is awaited.
    First,
    /// Nothing: there may be another request, or not.
    Between,
    /// The head of a further request has begun.
    Head,
    /// There is at least one request.
    Busy,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Since when.
    since: Instant,
    /// When the client last sent anything that was waited for.
    heard: Instant,
    /// How many requests there are.
    requests: usize,
    /// Of how many of them the body is still coming.
    bodies: usize,
    /// Whether it has carried a whole request.
    proven: bool,
    /// Whether several requests may come at once: what arrives then need not be part of one.
    multiplexed: bool,
}

impl State {
    /// Since when the client keeps the server waiting; `None` in the middle of a request.
    fn waits_since(&self) -> Option<Instant> {
        (self.requests == self.bodies).then_some(self.heard)
    }

    /// Whether it was given long enough.
    fn is_over(&self, now: Instant) -> Option<Closed> {
        let spent = now.saturating_duration_since(self.since);
        match self.phase {
            Phase::Handshake | Phase::First | Phase::Head => (spent >= FIRST_BYTES).then_some(Closed::Late),
            Phase::Between => (spent >= IDLE).then_some(Closed::Idle),
            // How long a body may take is for whoever reads it.
            Phase::Busy => None,
        }
    }
}

/// A connection, as long as it has a seat.
#[derive(Debug)]
pub(crate) struct Seat {
    source: IpAddr,
    state: Mutex<State>,
    /// Told when it is to be closed.
    leave: Notify,
}

impl Seat {
    fn new(source: IpAddr, now: Instant) -> Self {
        let state = State {
            phase: Phase::Handshake,
            since: now,
            heard: now,
            requests: 0,
            bodies: 0,
            proven: false,
            multiplexed: false,
        };
        Self { source, state: Mutex::new(state), leave: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is at the other end.
    pub(crate) fn source(&self) -> IpAddr {
        self.source
    }

    /// Has the connection closed.
    pub(crate) fn leave(&self) {
        self.leave.notify_one();
    }

    /// Resolves when the connection is to be closed.
    pub(crate) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    /// The handshake is done, or there is none.
    pub(crate) fn established(&self, multiplexed: bool, now: Instant) {
        let mut state = self.state();
        (state.phase, state.since, state.heard, state.multiplexed) = (Phase::First, now, now, multiplexed);
    }

    /// Something has arrived.
    pub(crate) fn heard(&self, now: Instant) {
        let mut state = self.state();
        match state.phase {
            // With HTTP/2 it may be anything, and anything at all would keep an idle connection from being one.
            Phase::Between if state.multiplexed => {}
            Phase::Between => (state.phase, state.since, state.heard) = (Phase::Head, now, now),
            Phase::Handshake | Phase::First | Phase::Head | Phase::Busy => state.heard = now,
        }
    }

    /// The head of a request is there. It lasts until what is returned is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> Request {
        let mut state = self.state();
        state.phase = Phase::Busy;
        state.requests += 1;
        drop(state);
        Request(Arc::clone(self))
    }

    /// The body of a request is awaited from the client, until what is returned is dropped.
    pub(crate) fn body(self: &Arc<Self>, now: Instant) -> Body {
        let mut state = self.state();
        state.bodies += 1;
        state.heard = now;
        drop(state);
        Body(Arc::clone(self))
    }

    /// A whole request was carried.
    pub(crate) fn prove(&self) {
        self.state().proven = true;
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Request(Arc<Seat>);

impl Drop for Request {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.requests -= 1;
        if state.requests == 0 {
            let now = Instant::now();
            (state.phase, state.since, state.heard) = (Phase::Between, now, now);
        }
    }
}

/// A body that is awaited.
#[derive(Debug)]
pub(crate) struct Body(Arc<Seat>);

impl Drop for Body {
    fn drop(&mut self) {
        self.0.state().bodies -= 1;
    }
}

/// The connections of one port.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    by_source: HashMap<IpAddr, Vec<Arc<Seat>>>,
    count: usize,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a newcomer, and the reason if another one had to go for it.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn take(&self, source: IpAddr, now: Instant) -> Result<(Arc<Seat>, Option<Closed>), Closed> {
        // IPv4 in the clothes of IPv6 is the same source.
        let source = source.to_canonical();
        let mut taken = self.taken();
        let mut displaced = None;
        if taken.count >= SEATS {
            match taken.victim(now) {
                Some(victim) => {
                    taken.remove(&victim);
                    victim.leave();
                    displaced = Some(Closed::Displaced);
                }
                None if !taken.has_extra_seat(source) => return Err(Closed::Refused),
                None => {}
            }
        }
        let seat = Arc::new(Seat::new(source, now));
        taken.by_source.entry(source).or_default().push(Arc::clone(&seat));
        taken.count += 1;
        Ok((seat, displaced))
    }

    /// Gives a seat back.
    pub(crate) fn give_back(&self, seat: &Arc<Seat>) {
        self.taken().remove(seat);
    }

    /// How many are taken.
    pub(crate) fn count(&self) -> usize {
        self.taken().count
    }

    /// Closes what was given long enough, and of each source those beyond [`UNPROVEN_PER_SOURCE`] that keep the server waiting
    /// and have not carried a request. Gives the reasons.
    pub(crate) fn sweep(&self, now: Instant) -> Vec<Closed> {
        let mut taken = self.taken();
        let mut leaving = Vec::new();
        for seats in taken.by_source.values() {
            let mut waited_for = Vec::new();
            for seat in seats {
                let state = seat.state();
                if let Some(reason) = state.is_over(now) {
                    leaving.push((Arc::clone(seat), reason));
                } else if let Some(since) = state.waits_since()
                    && !state.proven
                    && now.saturating_duration_since(since) >= PATIENCE
                {
                    waited_for.push((since, Arc::clone(seat)));
                }
            }
            if waited_for.len() > UNPROVEN_PER_SOURCE {
                waited_for.sort_by_key(|(since, _)| *since);
                let beyond = waited_for.len() - UNPROVEN_PER_SOURCE;
                leaving.extend(waited_for.into_iter().take(beyond).map(|(_, seat)| (seat, Closed::Crowded)));
            }
        }
        for (seat, _) in &leaving {
            taken.remove(seat);
            seat.leave();
        }
        leaving.into_iter().map(|(_, reason)| reason).collect()
    }
}

impl Taken {
    fn remove(&mut self, seat: &Arc<Seat>) {
        let Some(seats) = self.by_source.get_mut(&seat.source) else {
            return;
        };
        if let Some(at) = seats.iter().position(|other| Arc::ptr_eq(other, seat)) {
            seats.swap_remove(at);
            self.count -= 1;
        }
        if seats.is_empty() {
            self.by_source.remove(&seat.source);
        }
    }

    /// The source with most seats loses the one that keeps the server waiting for longest, and before all others one that has
    /// carried no request. Never one in the middle of a request. Other sources lose one only if that source has none to lose, and
    /// only what is no longer about to speak.
    fn victim(&self, now: Instant) -> Option<Arc<Seat>> {
        let most = self.by_source.values().map(Vec::len).max()?;
        let candidates = self.by_source.values().filter_map(|seats| {
            let waiting = seats.iter().filter_map(|seat| {
                let state = seat.state();
                let since = state.waits_since()?;
                let silent = now.saturating_duration_since(since) >= PATIENCE;
                (silent || seats.len() == most).then_some(((state.proven, since), seat))
            });
            let (order, seat) = waiting.min_by_key(|(order, _)| *order)?;
            Some(((std::cmp::Reverse(seats.len()), order), seat))
        });
        candidates.min_by_key(|(order, _)| *order).map(|(_, seat)| Arc::clone(seat))
    }

    /// Whether a source may have one of the extra seats: as long as it has fewer seats than are left for all others. So some are always
    /// left.
    fn has_extra_seat(&self, source: IpAddr) -> bool {
        let own = self.by_source.get(&source).map_or(0, Vec::len);
        own < (SEATS + EXTRA_SEATS).saturating_sub(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn source(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Connections of one source that say nothing.
    fn silent(seats: &Seats, from: u8, count: usize, now: Instant) -> Vec<Arc<Seat>> {
        (0..count).map(|_| seats.take(source(from), now).unwrap().0).collect()
    }

    /// Connections of one source in the middle of a request.
    fn busy(seats: &Seats, from: u8, count: usize, now: Instant) -> Vec<(Arc<Seat>, Request)> {
        let taken = silent(seats, from, count, now);
        taken
            .into_iter()
            .map(|seat| {
                seat.established(false, now);
                let request = seat.request();
                (seat, request)
            })
            .collect()
    }

    fn has(seats: &Seats, seat: &Arc<Seat>) -> bool {
        let taken = seats.taken();
        taken.by_source.get(&seat.source).is_some_and(|all| all.iter().any(|other| Arc::ptr_eq(other, seat)))
    }

    #[test]
    fn whoever_keeps_the_server_waiting_has_few_seats() {
        let (seats, now) = (Seats::default(), Instant::now());
        let first = silent(&seats, 1, 100, now);
        let others = silent(&seats, 2, 10, now);
        assert_eq!(seats.sweep(now + PATIENCE / 2), [], "they may still be about to speak");
        // Those that were heard of later stay.
        for seat in &first[36..] {
            seat.heard(now + SECOND / 10);
        }
        let closed = seats.sweep(now + PATIENCE * 11 / 10);
        assert_eq!(closed, vec![Closed::Crowded; 100 - UNPROVEN_PER_SOURCE]);
        assert!(first[..36].iter().all(|seat| !has(&seats, seat)) && first[36..].iter().all(|seat| has(&seats, seat)));
        assert!(others.iter().all(|seat| has(&seats, seat)));
        assert_eq!(seats.count(), UNPROVEN_PER_SOURCE + 10);
    }

    #[test]
    fn a_burst_of_reviews_is_not_held_back() {
        let (seats, now) = (Seats::default(), Instant::now());
        let reviews = busy(&seats, 1, 1000, now);
        assert_eq!(seats.sweep(now + 60 * SECOND), [], "none is cut in the middle of a request");
        for (seat, request) in reviews {
            seat.prove();
            drop(request);
        }
        assert_eq!(seats.sweep(Instant::now() + 60 * SECOND), [], "all have carried one");
        assert_eq!(seats.count(), 1000);
    }

    #[test]
    fn what_takes_too_long_is_closed() {
        let (seats, now) = (Seats::default(), Instant::now());
        let [handshake, first, head, between] = <[_; 4]>::try_from(silent(&seats, 1, 4, now)).unwrap();
        for seat in [&first, &head, &between] {
            seat.established(false, now);
        }
        for seat in [&head, &between] {
            drop(seat.request());
            seat.prove();
        }
        let now = Instant::now();
        head.heard(now);
        // To say something now and then does not help.
        handshake.heard(now + FIRST_BYTES);
        assert_eq!(seats.sweep(now + FIRST_BYTES + SECOND), [Closed::Late; 3]);
        assert!(has(&seats, &between));
        assert_eq!(seats.sweep(now + IDLE + SECOND), [Closed::Idle]);
        assert_eq!(seats.count(), 0);
    }

    #[test]
    fn what_arrives_on_an_idle_connection_of_many_requests_does_not_count() {
        let (seats, now) = (Seats::default(), Instant::now());
        let seat = silent(&seats, 1, 1, now).remove(0);
        seat.established(true, now);
        drop(seat.request());
        seat.prove();
        let now = Instant::now();
        seat.heard(now + IDLE);
        assert_eq!(seats.sweep(now + IDLE + SECOND), [Closed::Idle]);
    }

    #[test]
    fn a_body_that_does_not_come_keeps_the_server_waiting() {
        let (seats, now) = (Seats::default(), Instant::now());
        let requests = busy(&seats, 1, 100, now);
        let bodies: Vec<_> = requests.iter().map(|(seat, _)| seat.body(now)).collect();
        assert_eq!(seats.sweep(now + PATIENCE).len(), 100 - UNPROVEN_PER_SOURCE);
        drop(bodies);
        assert_eq!(seats.sweep(now + 60 * SECOND), [], "the others are judged");
    }

    #[test]
    fn the_source_with_most_seats_loses_one() {
        let (seats, now) = (Seats::default(), Instant::now());
        let honest = silent(&seats, 1, 40, now);
        for seat in &honest {
            seat.established(false, now);
            drop(seat.request());
            seat.prove();
        }
        let hostile = silent(&seats, 2, SEATS - 40, now + SECOND);
        let (_, displaced) = seats.take(source(3), now + 2 * SECOND).unwrap();
        assert_eq!(displaced, Some(Closed::Displaced));
        assert!(honest.iter().all(|seat| has(&seats, seat)), "the others keep theirs, though they are idle for longer");
        assert_eq!(hostile.iter().filter(|seat| !has(&seats, seat)).count(), 1);
        assert_eq!(seats.count(), SEATS);
    }

    #[test]
    fn of_one_source_what_has_carried_no_request_goes_first() {
        let (seats, now) = (Seats::default(), Instant::now());
        let proven = silent(&seats, 1, 1000, now);
        for seat in &proven {
            seat.established(false, now);
            drop(seat.request());
            seat.prove();
        }
        silent(&seats, 1, SEATS - 1000, Instant::now());
        for _ in 0..100 {
            assert_eq!(seats.take(source(1), Instant::now()).unwrap().1, Some(Closed::Displaced));
        }
        assert!(proven.iter().all(|seat| has(&seats, seat)));
    }

    #[test]
    fn nothing_is_cut_in_the_middle_of_a_request() {
        let (seats, now) = (Seats::default(), Instant::now());
        let hostile = busy(&seats, 1, SEATS, now);
        assert_eq!(seats.take(source(1), now).unwrap_err(), Closed::Refused);
        // Others still come in.
        let honest = busy(&seats, 2, 100, now);
        assert_eq!(seats.count(), SEATS + 100);
        assert!(hostile.iter().chain(&honest).all(|(seat, _)| has(&seats, seat)));
        for (seat, request) in hostile.into_iter().chain(honest) {
            drop(request);
            seats.give_back(&seat);
            seats.give_back(&seat);
        }
        assert_eq!(seats.count(), 0);
    }

    #[test]
    fn two_sources_do_not_take_all_seats() {
        let (seats, now) = (Seats::default(), Instant::now());
        let mut held = busy(&seats, 1, SEATS, now);
        for from in 2..=6 {
            while let Ok((seat, None)) = seats.take(source(from), now) {
                seat.established(false, now);
                let request = seat.request();
                held.push((seat, request));
            }
        }
        assert!(seats.count() < SEATS + EXTRA_SEATS);
        assert!(seats.take(source(7), now).is_ok());
    }

    #[test]
    fn an_address_has_one_form() {
        let (seats, now) = (Seats::default(), Instant::now());
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(seats.take(mapped, now).unwrap().0.source(), source(1));
    }
}
