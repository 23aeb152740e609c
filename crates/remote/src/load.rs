//! What of a client there is little of, and what it is at.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::Failure;
use crate::turns::Turns;

/// How many flights there may be at once, and how many of them for one namespace. Most take some milliseconds; those to servers
/// that do not answer take as long as a review has, and a namespace with many of those must not have all.
pub(crate) const FLIGHTS: (usize, usize) = (256, 32);

/// How many of these may be with one server: one that takes its time for each answer must leave some to the others, also within a
/// namespace. A host is asked for less at once in any case.
const FLIGHTS_OF_SERVER: (usize, usize) = (128, 24);

/// How many images may be proven at once, and how many of them of one namespace: each takes some ten kilobytes for as long as it waits
/// for a trust server.
const PROOFS: (usize, usize) = (1024, 128);

/// How many of these may wait for one server, for the same reason.
const PROOFS_OF_SERVER: (usize, usize) = (512, 96);

/// The most bytes that one update of one repository may bring in all: half more than the largest file that is read.
pub(crate) const MAX_UPDATE_BYTES: u64 = 48 << 20;

/// How many large flights there may be at once, and how many of them for one namespace: each may bring [`MAX_UPDATE_BYTES`], and
/// takes some times that.
const LARGE_FLIGHTS: (usize, usize) = (4, 1);

/// How many of these may be with one server.
const LARGE_FLIGHTS_OF_SERVER: (usize, usize) = (3, 1);

/// How many repositories may be looked at ahead of need at once, and how many of them for one namespace: reviews have the rest of
/// [`FLIGHTS`].
pub(crate) const AHEAD: (usize, usize) = (8, 2);

/// How many of these may be with one server.
const AHEAD_OF_SERVER: (usize, usize) = (4, 2);

/// Turns at everything of which there is little.
pub(crate) struct AllTurns {
    pub(crate) flights: Turns,
    /// Images that are proven.
    pub(crate) proofs: Turns,
    /// Flights that nobody waits for.
    pub(crate) ahead: Turns,
    /// Flights that bring much.
    pub(crate) large: Turns,
    /// Processors, for what takes them for some milliseconds.
    pub(crate) light: Turns,
    /// The threads of [`crate::threads::Threads`].
    pub(crate) heavy: Turns,
    /// How often a turn did not come in time.
    late: AtomicU64,
    /// All looks at repositories.
    looks: Counters,
    /// Those of them that were ahead of need.
    looks_ahead: Counters,
}

/// How looks ended.
#[derive(Debug, Default)]
struct Counters {
    verified: AtomicU64,
    untrusted: AtomicU64,
    unreachable: AtomicU64,
    failed: AtomicU64,
}

impl Counters {
    fn count(&self, failure: Option<&Failure>) {
        let counter = match failure {
            None => &self.verified,
            Some(Failure::Untrusted(_) | Failure::TooMuch { .. } | Failure::Contradicted { .. }) => &self.untrusted,
            Some(Failure::Http(_) | Failure::TimedOut { .. }) => &self.unreachable,
            Some(_) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn outcomes(&self) -> Outcomes {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Outcomes {
            verified: count(&self.verified),
            untrusted: count(&self.untrusted),
            unreachable: count(&self.unreachable),
            failed: count(&self.failed),
        }
    }
}

impl AllTurns {
    /// All of them, with so many threads for what is heavy.
    pub(crate) fn new(heavy: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            flights: Turns::with_servers(FLIGHTS, FLIGHTS_OF_SERVER),
            proofs: Turns::with_servers(PROOFS, PROOFS_OF_SERVER),
            ahead: Turns::with_servers(AHEAD, AHEAD_OF_SERVER),
            large: Turns::with_servers(LARGE_FLIGHTS, LARGE_FLIGHTS_OF_SERVER),
            light: Turns::new(processors, processors),
            heavy: Turns::new(heavy, heavy),
            late: AtomicU64::new(0),
            looks: Counters::default(),
            looks_ahead: Counters::default(),
        }
    }

    /// A turn did not come in time.
    pub(crate) fn count_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// A look at a repository ended; `failure` is why it brought nothing.
    pub(crate) fn count_outcome(&self, failure: Option<&Failure>) {
        self.looks.count(failure);
    }

    /// A look ended that was ahead of need. It was counted already as one of all.
    pub(crate) fn count_ahead(&self, failure: Option<&Failure>) {
        self.looks_ahead.count(failure);
    }

    /// How many have turns and how many wait.
    pub(crate) fn load(&self) -> Load {
        let (flights, waiting) = self.flights.load();
        let unverified = self.light.load().1 + self.heavy.load().1;
        let (late, outcomes, ahead) =
            (self.late.load(Ordering::Relaxed), self.looks.outcomes(), self.looks_ahead.outcomes());
        Load { flights, waiting, unverified, late, outcomes, ahead, ..Load::default() }
    }
}

/// What a client is at: how many repositories are looked at, and how many wait for their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Repositories that are looked at now.
    pub flights: usize,
    /// Repositories that wait for a turn to be looked at.
    pub waiting: usize,
    /// Verifications that wait for a processor.
    pub unverified: usize,
    /// How often since the start a turn did not come in time.
    pub late: u64,
    /// How looks at repositories ended since the start.
    pub outcomes: Outcomes,
    /// How those of them ended that were ahead of need.
    pub ahead: Outcomes,
    /// Verified repositories that are kept in memory.
    pub kept: usize,
    /// When the first file of those expires that every answer rests on, in seconds since 1970.
    pub expires: Option<i64>,
}

/// How looks at repositories ended, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcomes {
    /// The repository was verified.
    pub verified: u64,
    /// It was looked at, and is not trusted.
    pub untrusted: u64,
    /// Its server could not be asked, or did not answer in time.
    pub unreachable: u64,
    /// Something else was in the way: no turn, no login, no memory.
    pub failed: u64,
}
