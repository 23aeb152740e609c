//! What one process knows of what is remembered of a repository, and what it may answer for that. A pure machine: it has no clock, asks
//! no server and no store, and is told what happened.
//!
//! | state | what it means | what may be answered |
//! |---|---|---|
//! | [`State::Unknown`] | Nothing was seen of the repository, and no record of it. | Whatever its server shows first. |
//! | [`State::Seen`] | This process saw the repository, or a record of it. | What knows no less than this process and the record. |
//! | [`State::Forgotten`] | There was a record, and an administrator deleted it. | Whatever its server shows first, once it is written. |
//!
//! | what happens | told by | what becomes of the state |
//! |---|---|---|
//! | A record is looked up, and there is none. | [`Remembered::observe`] | `Seen` with a record becomes `Forgotten`; the others stay. |
//! | There is none, but another one of the same repository to begin with. | [`Remembered::begin_with`] | `Unknown` becomes `Seen`, without a record; the others stay. |
//! | A record appears. | [`Remembered::observe`] | `Seen`: what is known and the record together. If an administrator accepted it: the record alone. |
//! | The record has changed. | [`Remembered::observe`] | The same. |
//! | It is another record, or an administrator accepted a change. | [`Remembered::observe`] | `Seen`: the record alone. |
//! | It appears where one was deleted, and contradicts what was seen since. | [`Remembered::observe`] | The same: nothing was answered with that. |
//! | It was looked up before this process found or wrote another one. | [`Remembered::observe`] | It stays. The record must be looked up again. |
//! | A record cannot be read. | nobody | It stays. Nothing may be answered. |
//! | A flight ends. | [`Remembered::flight_ended`] | `Unknown` becomes `Seen`. What the flight saw takes the place of what was known, if it knows no less. |
//! | The record is written. | [`Remembered::written`] | `Forgotten` becomes `Seen`. |
//! | The record cannot be written. | [`Remembered::written`] | It stays. `Seen` may be answered all the same, `Forgotten` may not. |

use std::sync::Arc;

use crate::memory::Memory;
use crate::record::MemoryRecord;

/// Which record of a repository it is: a record that was deleted and made anew is another one, and so is one that an administrator
/// accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordId {
    /// The identity that the store gives a record when it is made; `None` from a store that gives none.
    pub uid: Option<String>,
    /// When an administrator last accepted a change, as RFC 3339 text.
    pub accepted: Option<String>,
}

impl RecordId {
    /// That of a record.
    #[must_use]
    pub fn of(record: &MemoryRecord) -> Self {
        Self { uid: record.uid.clone(), accepted: record.accepted.clone() }
    }

    /// Whether both may be one record. Without an identity two records cannot be told apart.
    fn is_same(&self, other: &Self) -> bool {
        let one_uid = match (&self.uid, &other.uid) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        one_uid && self.accepted == other.accepted
    }
}

/// What is to be done to remember something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighed {
    /// It is there already.
    Same,
    /// It is to be written.
    Newer,
    /// It must not be written, since what is there is something else now: others have seen more, an administrator accepted a
    /// change or deleted it, or what is there does not fit.
    Overtaken,
}

/// Weighs what was seen against the record that is there now. `before` is the record that was there when what was seen was looked at,
/// if there was one.
#[must_use]
pub fn weigh(seen: &Memory, before: Option<&RecordId>, there: Option<&MemoryRecord>) -> Weighed {
    let Some(there) = there else {
        return if before.is_some() { Weighed::Overtaken } else { Weighed::Newer };
    };
    let same_record = match before {
        Some(before) => before.is_same(&RecordId::of(there)),
        None => there.accepted.is_none(),
    };
    if !same_record || !seen.covers(&there.memory) {
        Weighed::Overtaken
    } else if there.memory.says(seen) {
        // Each knows all that the other knows: to write it would have two replicas write in turn for ever.
        Weighed::Same
    } else {
        Weighed::Newer
    }
}

/// Numbers for [`Remembered`], each given once.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub struct Generations(u64);

impl Generations {
    fn next(&mut self) -> Generation {
        self.0 += 1;
        Generation(self.0)
    }
}

/// Another one each time that what is remembered of a repository is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

/// What one process knows of what is remembered of one repository.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Remembered {
    state: State,
    generation: Generation,
}

/// The states; see the table above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing was seen of the repository, and no record of it.
    Unknown,
    /// This process saw the repository, or a record of it.
    Seen {
        /// What this process knows.
        memory: Arc<Memory>,
        /// The record that is in the store, if there is one.
        record: Option<Arc<RecordId>>,
        /// Whether the record says all of it.
        written: Written,
    },
    /// There was a record, and it was deleted.
    Forgotten {
        /// What was seen since.
        since: Option<Arc<Memory>>,
    },
}

/// Whether the record says all that this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It does not, and it could not be written. That is tried again when the record was looked up, or a flight has ended.
    Failed,
}

/// What is known of the record when it is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsOf {
    generation: Generation,
    record: Option<Arc<RecordId>>,
}

/// What a flight begins with.
#[derive(Debug, Clone)]
pub struct Basis {
    /// What it must know at the end, at least.
    pub memory: Option<Arc<Memory>>,
    /// What it began in.
    pub generation: Generation,
}

/// What an observation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// What this process saw, and what the record says, fit together.
    Fits,
    /// They do not: the server has to show what fits both.
    Contradicts,
    /// What this process saw counts no more.
    GivenUp,
}

/// What is to be done before something is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToWrite {
    /// Nothing: it may be answered with.
    Nothing,
    /// It may not be answered with. It must be looked at anew.
    Behind,
    /// It must be written.
    Write(Target),
}

/// Where something is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The record that is there, as far as this process knows.
    pub over: Option<Arc<RecordId>>,
    /// Whether it may be answered with only if it is written: what was forgotten must not be so for want of a store.
    pub must: bool,
    /// What it was seen in.
    pub generation: Generation,
}

impl Remembered {
    /// Of a repository of which this process knows nothing.
    #[must_use]
    pub fn new(generations: &mut Generations) -> Self {
        Self { state: State::Unknown, generation: generations.next() }
    }

    /// What is known.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What this process saw, or read in a record.
    #[must_use]
    pub fn memory(&self) -> Option<&Arc<Memory>> {
        match &self.state {
            State::Seen { memory, .. } => Some(memory),
            State::Unknown => None,
            State::Forgotten { since } => since.as_ref(),
        }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.state == State::Unknown
    }

    /// There is no record, but another one of the same repository: where nothing else is known, what it says counts to begin with.
    pub fn begin_with(&mut self, other: &MemoryRecord) -> Basis {
        if self.is_unknown() {
            let memory = Arc::new(other.memory.clone());
            self.state = State::Seen { memory, record: None, written: Written::No };
        }
        self.basis()
    }

    /// Whether there is a record, as far as this process knows.
    #[must_use]
    pub fn has_record(&self) -> bool {
        self.record().is_some()
    }

    fn record(&self) -> Option<&Arc<RecordId>> {
        match &self.state {
            State::Seen { record, .. } => record.as_ref(),
            State::Unknown | State::Forgotten { .. } => None,
        }
    }

    /// Whether the record says all that this process knows.
    #[must_use]
    pub fn is_written(&self) -> bool {
        matches!(self.state, State::Seen { written: Written::Yes, .. })
    }

    /// To be asked before the record is looked up, for [`Self::observe`].
    #[must_use]
    pub fn as_of(&self) -> AsOf {
        AsOf { generation: self.generation, record: self.record().cloned() }
    }

    /// The record was looked up: it is this one, or there is none. `None` if others found another one, or wrote it, while it was looked
    /// up: it may be older than that, and must be looked up again.
    pub fn observe(
        &mut self,
        as_of: &AsOf,
        there: Option<&MemoryRecord>,
        generations: &mut Generations,
    ) -> Option<(Basis, Observed)> {
        (self.as_of() == *as_of).then(|| self.take_note(there, generations))
    }

    fn take_note(&mut self, there: Option<&MemoryRecord>, generations: &mut Generations) -> (Basis, Observed) {
        let Some(there) = there else {
            let observed = if self.has_record() {
                (self.state, self.generation) = (State::Forgotten { since: None }, generations.next());
                Observed::GivenUp
            } else {
                Observed::Fits
            };
            return (self.basis(), observed);
        };
        let id = Arc::new(RecordId::of(there));
        let recorded = |memory| State::Seen { memory, record: Some(Arc::clone(&id)), written: Written::Yes };
        let (ours, same_record) = match &self.state {
            State::Unknown => (None, true),
            State::Seen { memory, record: Some(record), .. } => (Some(memory), record.is_same(&id)),
            State::Seen { memory, record: None, .. } => (Some(memory), id.accepted.is_none()),
            // Nothing was answered with it that is not in the store.
            State::Forgotten { since } => {
                let fits = since.as_ref().is_none_or(|since| since.join(&there.memory).is_some());
                (since.as_ref(), id.accepted.is_none() && fits)
            }
        };
        let Some(ours) = ours.filter(|_| same_record) else {
            let observed = if same_record { Observed::Fits } else { Observed::GivenUp };
            if !same_record {
                self.generation = generations.next();
            }
            self.state = recorded(Arc::new(there.memory.clone()));
            return (self.basis(), observed);
        };
        if **ours == there.memory {
            self.state = recorded(Arc::clone(ours));
            return (self.basis(), Observed::Fits);
        }
        let Some(joined) = ours.join(&there.memory) else {
            let memory = Arc::clone(ours);
            self.state = State::Seen { memory, record: Some(id), written: Written::No };
            // What is seen next must not fall behind the record; that it does not fall behind this process is looked at when it is here.
            let basis = Basis { memory: Some(Arc::new(there.memory.clone())), generation: self.generation };
            return (basis, Observed::Contradicts);
        };
        let written = if there.memory.says(&joined) { Written::Yes } else { Written::No };
        let memory = if joined == **ours { Arc::clone(ours) } else { Arc::new(joined) };
        self.state = State::Seen { memory, record: Some(id), written };
        (self.basis(), Observed::Fits)
    }

    /// What a flight begins with that begins now.
    #[must_use]
    pub fn basis(&self) -> Basis {
        Basis { memory: self.memory().cloned(), generation: self.generation }
    }

    /// Where what is handed out now is to be written.
    #[must_use]
    pub fn target(&self) -> Target {
        let must = matches!(self.state, State::Forgotten { .. });
        Target { over: self.record().cloned(), must, generation: self.generation }
    }

    /// A flight that began so ended, and saw this. `now` is what one would begin with that begins now, after the record was looked up
    /// once more. False if it does not count: what was known when it began was given up, or others, in this process or not, saw more, or
    /// something else, meanwhile.
    #[must_use]
    pub fn flight_ended(&mut self, began: &Basis, now: &Basis, saw: &Arc<Memory>) -> bool {
        let mut known = now.memory.as_ref().into_iter().chain(self.memory());
        if [began.generation, now.generation] != [self.generation; 2] || known.any(|known| !saw.covers(known)) {
            return false;
        }
        match &mut self.state {
            State::Unknown => {
                self.state = State::Seen { memory: Arc::clone(saw), record: None, written: Written::No };
            }
            State::Seen { memory, written, .. } => {
                if *written != Written::Yes || **memory != **saw {
                    *written = Written::No;
                }
                *memory = Arc::clone(saw);
            }
            State::Forgotten { since } => *since = Some(Arc::clone(saw)),
        }
        true
    }

    /// What is to be done before this is answered with, which was handed out in a generation.
    #[must_use]
    pub fn to_write(&self, seen: &Arc<Memory>, handed_out: Generation) -> ToWrite {
        if self.generation != handed_out {
            return ToWrite::Behind;
        }
        match &self.state {
            State::Seen { memory, written: Written::Yes | Written::Failed, .. }
                if Arc::ptr_eq(memory, seen) || memory == seen =>
            {
                ToWrite::Nothing
            }
            // Somebody else here has seen more meanwhile.
            State::Seen { memory, .. } | State::Forgotten { since: Some(memory) }
                if !Arc::ptr_eq(memory, seen) && !seen.covers(memory) =>
            {
                ToWrite::Behind
            }
            State::Seen { .. } | State::Unknown | State::Forgotten { .. } => ToWrite::Write(self.target()),
        }
    }

    /// It was written, as this record, or could not be: `None`. False if it must not be answered with: what it was seen in was given up
    /// meanwhile, or others in this process saw more, or it must be written.
    #[must_use]
    pub fn written(&mut self, seen: &Arc<Memory>, target: &Target, record: Option<RecordId>) -> bool {
        if self.generation != target.generation {
            return false;
        }
        let newest = self.memory().is_none_or(|memory| memory == seen);
        let counts = self.memory().is_none_or(|memory| seen.covers(memory));
        match (&mut self.state, record) {
            // What was looked up since is not older than what was written.
            (State::Seen { record, .. }, Some(_)) if *record != target.over => {}
            (State::Seen { record, written, .. }, Some(id)) => {
                *record = Some(Arc::new(id));
                if newest {
                    *written = Written::Yes;
                }
            }
            (State::Seen { written, .. }, None) => {
                if newest && *written == Written::No {
                    *written = Written::Failed;
                }
            }
            (State::Unknown | State::Forgotten { .. }, Some(id)) => {
                let memory = Arc::clone(self.memory().unwrap_or(seen));
                let written = if newest { Written::Yes } else { Written::No };
                self.state = State::Seen { memory, record: Some(Arc::new(id)), written };
            }
            (State::Unknown, None) => {}
            (State::Forgotten { .. }, None) => return false,
        }
        counts
    }
}

#[cfg(test)]
mod tests;
