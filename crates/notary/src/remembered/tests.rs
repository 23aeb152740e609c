//! Everything that can happen to processes, a store and an administrator, in every order, one step at a time.
//!
//! The server, or who sits in front of it, shows whatever it likes: an older version, a newer one, and another one of the same number.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::rc::Rc;

use countersign_image::Sha256;

use super::*;
use crate::memory::Seen;
use crate::role::RoleName;

/// What a server can show: the second and the third follow on the first, and contradict each other.
const SHOWN: [(u64, u8); 3] = [(1, 0), (2, 0), (2, 1)];

fn shown(index: usize) -> Arc<Memory> {
    let (version, content) = SHOWN[index];
    let seen = Seen { version, content: Sha256::from_bytes([content; 32]) };
    Arc::new(Memory { seen: [(RoleName::timestamp(), seen.into())].into(), ..Memory::default() })
}

/// A number for what is known, for [`World::key`].
fn code(memory: Option<&Memory>) -> u8 {
    let index = |memory: &Memory| (0..3).find(|index| *shown(usize::from(*index)) == *memory).unwrap();
    memory.map_or(0, |memory| index(memory) + 1)
}

/// What was in the store when somebody looked, and how often an administrator had meddled with it by then.
#[derive(Debug, Clone)]
struct Floor {
    memory: Option<Arc<Memory>>,
    changes: u8,
}

/// What one review is at.
#[derive(Debug, Clone)]
enum Task {
    Idle,
    /// It has asked the store, and does not have the answer yet.
    Asking {
        as_of: AsOf,
        there: Option<MemoryRecord>,
        at: u8,
    },
    Flying {
        basis: Basis,
        floor: Floor,
    },
    Landed {
        memory: Arc<Memory>,
        target: Target,
        floor: Floor,
    },
    Writing {
        memory: Arc<Memory>,
        target: Target,
        floor: Floor,
    },
    Written {
        memory: Arc<Memory>,
        target: Target,
        floor: Floor,
        record: Option<RecordId>,
    },
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "what happened to it, in all combinations")]
struct Process {
    /// Whether it is of the last release, which knew no identities of records and did not look at them for what it had in memory.
    old: bool,
    generations: Generations,
    remembered: Remembered,
    kept: Option<Arc<Memory>>,
    tasks: Vec<Task>,
    /// What it answered with last, and how often an administrator had meddled when it looked.
    answered: Option<(Arc<Memory>, u8)>,
    /// How often an administrator had meddled when it looked last.
    looked: u8,
    /// What the store was known to have last, and how often an administrator had meddled by then.
    stored: Option<(Arc<Memory>, u8)>,
    /// Whether it could not write something.
    failed: bool,
    /// Whether it saw a record, and then that there is none.
    saw_it_gone: bool,
    saw_it: bool,
}

impl Process {
    fn new(old: bool, tasks: usize) -> Self {
        let mut generations = Generations::default();
        let remembered = Remembered::new(&mut generations);
        let tasks = vec![Task::Idle; tasks];
        let (kept, answered) = (None, None);
        Self {
            old,
            generations,
            remembered,
            kept,
            tasks,
            answered,
            looked: 0,
            stored: None,
            failed: false,
            saw_it_gone: false,
            saw_it: false,
        }
    }

    /// A record as this process reads it.
    fn read(&self, store: Option<&MemoryRecord>) -> Option<MemoryRecord> {
        store.map(|record| MemoryRecord { uid: record.uid.clone().filter(|_| !self.old), ..record.clone() })
    }

    /// Looks the record up.
    fn observe(&mut self, store: Option<&MemoryRecord>, changes: u8) -> (Basis, Floor) {
        let as_of = self.remembered.as_of();
        self.hear(&as_of, self.read(store), changes).expect("nothing happens meanwhile")
    }

    /// Takes note of what the store had at some time.
    fn hear(&mut self, as_of: &AsOf, there: Option<MemoryRecord>, changes: u8) -> Option<(Basis, Floor)> {
        let (basis, observed) = self.remembered.observe(as_of, there.as_ref(), &mut self.generations)?;
        let behind = |kept: &Arc<Memory>| basis.memory.as_ref().is_some_and(|memory| !kept.covers(memory));
        if observed == Observed::GivenUp || self.kept.as_ref().is_some_and(behind) {
            self.kept = None;
        }
        self.looked = changes;
        if let Some(there) = there.as_ref().filter(|_| !self.old) {
            // It may have been looked up before something was written.
            let is_older = |(stored, at): &(Arc<Memory>, u8)| *at >= changes && !there.memory.covers(stored);
            if !self.stored.as_ref().is_some_and(is_older) {
                self.stored = Some((Arc::new(there.memory.clone()), changes));
            }
        }
        if there.is_none() && self.saw_it {
            self.answered = None;
        }
        self.saw_it_gone = there.is_none() && (self.saw_it_gone || self.saw_it);
        self.saw_it = there.is_some();
        Some((basis, Floor { memory: there.map(|there| Arc::new(there.memory)), changes }))
    }
}

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The record is asked for.
    Look,
    /// The store has answered, and a flight begins.
    Begin,
    /// What is in memory is asked for.
    Hit,
    /// A flight ends with what the server shows.
    Land(usize),
    /// A flight ends without anything.
    Fail,
    /// It is to be answered with.
    Commit,
    /// The store takes a record, or not.
    Send(Store),
    /// The process hears of it.
    Hear,
}

#[derive(Debug, Clone, Copy)]
enum Store {
    Works,
    Unwritable,
    Unreadable,
    /// It writes, and its answer is lost.
    Silent,
}

#[derive(Debug, Clone)]
struct World {
    store: Option<MemoryRecord>,
    /// How many records were made.
    made: u8,
    /// How often an administrator accepted something, or deleted the record.
    changes: u8,
    /// How many of [`SHOWN`] may be shown. Which of the last two comes first makes no difference.
    choices: usize,
    processes: Vec<Process>,
    /// Whether a process hears from the store before anything else happens: what happens meanwhile in one process is tried with one alone.
    hears_at_once: bool,
    /// What happened last, and before.
    trail: Option<Rc<Trail>>,
}

/// How a world came to be.
#[derive(Debug)]
struct Trail {
    last: String,
    before: Option<Rc<Self>>,
}

/// What happened, in its order.
fn story(trail: Option<&Trail>) -> String {
    let steps = std::iter::successors(trail, |trail| trail.before.as_deref());
    let steps: Vec<_> = steps.map(|trail| trail.last.as_str()).collect();
    steps.into_iter().rev().collect::<Vec<_>>().join("; ")
}

impl World {
    fn new(processes: Vec<Process>) -> Self {
        let hears_at_once = processes.len() > 1;
        Self { store: None, made: 0, changes: 0, choices: 2, processes, hears_at_once, trail: None }
    }

    fn after(&self, last: String) -> Self {
        Self { trail: Some(Rc::new(Trail { last, before: self.trail.clone() })), ..self.clone() }
    }

    fn story(&self) -> String {
        story(self.trail.as_deref())
    }

    fn write(&mut self, memory: &Memory, accepted: Option<String>) {
        let uid = self.store.as_ref().and_then(|record| record.uid.clone()).unwrap_or_else(|| {
            self.made += 1;
            self.made.to_string()
        });
        self.store = Some(MemoryRecord { memory: memory.clone(), accepted, uid: Some(uid), ..MemoryRecord::default() });
    }

    /// Everything that an administrator, a crash and the reviews can do now.
    fn next(&self, max_changes: u8) -> Vec<Self> {
        let mut all = Vec::new();
        if self.changes < max_changes {
            for index in 0..self.choices {
                let mut world = self.after(format!("accept {index}"));
                world.changes += 1;
                world.choices += usize::from(index == 1 && self.choices == 2);
                world.write(&shown(index), Some(world.changes.to_string()));
                all.push(world);
            }
            if self.store.is_some() {
                all.push(Self { store: None, changes: self.changes + 1, ..self.after("delete".to_owned()) });
            }
        }
        for (number, process) in self.processes.iter().enumerate() {
            let mut world = self.after(format!("{number} restarts"));
            world.processes[number] = Process::new(process.old, process.tasks.len());
            all.push(world);
            for task in 0..process.tasks.len() {
                for step in self.steps(number, task) {
                    let mut world = self.after(format!("{number}.{task} {step:?}"));
                    world.take(number, task, step);
                    all.push(world);
                }
            }
        }
        all
    }

    fn steps(&self, number: usize, task: usize) -> Vec<Step> {
        let process = &self.processes[number];
        match &process.tasks[task] {
            Task::Idle if process.kept.is_some() => vec![Step::Look, Step::Hit],
            Task::Idle => vec![Step::Look],
            Task::Asking { .. } => vec![Step::Begin],
            Task::Flying { basis, .. } => {
                let may_be_shown =
                    |index: &usize| basis.memory.as_ref().is_none_or(|least| shown(*index).covers(least));
                (0..self.choices).filter(may_be_shown).map(Step::Land).chain([Step::Fail]).collect()
            }
            // That of a dry run is not written.
            Task::Landed { .. } => vec![Step::Commit, Step::Fail],
            Task::Writing { .. } => {
                let all = [Store::Works, Store::Unwritable, Store::Silent, Store::Unreadable];
                // That it cannot be read is the same to others as a flight that failed.
                let count = if self.hears_at_once { 3 } else { 4 };
                all.into_iter().take(count).map(Step::Send).collect()
            }
            Task::Written { .. } => vec![Step::Hear],
        }
    }

    /// One step of a review, as the client of trust servers takes it.
    fn take(&mut self, number: usize, task: usize, step: Step) {
        let changes = self.changes;
        let store = self.store.clone();
        let process = &mut self.processes[number];
        let at = std::mem::replace(&mut process.tasks[task], Task::Idle);
        let after = match (at, step) {
            (_, Step::Look) => {
                let there = process.read(store.as_ref());
                Task::Asking { as_of: process.remembered.as_of(), there, at: changes }
            }
            (Task::Asking { as_of, there, at }, Step::Begin) => match process.hear(&as_of, there, at) {
                Some((basis, floor)) => Task::Flying { basis, floor },
                // It is asked for again.
                None => Task::Idle,
            },
            (_, Step::Hit) => {
                let floor = if process.old {
                    Floor { memory: None, changes: process.looked }
                } else {
                    process.observe(store.as_ref(), changes).1
                };
                let target = process.remembered.target();
                match process.kept.clone() {
                    Some(memory) => Task::Landed { memory, target, floor },
                    None => Task::Idle,
                }
            }
            (Task::Flying { basis, floor }, Step::Land(index)) => {
                let memory = shown(index);
                self.choices += usize::from(index == 1 && self.choices == 2);
                // The record is looked up once more. One of the last release did not.
                let (now, floor) =
                    if process.old { (basis.clone(), floor) } else { process.observe(store.as_ref(), changes) };
                if process.remembered.flight_ended(&basis, &now, &memory) {
                    process.kept = Some(Arc::clone(&memory));
                    Task::Landed { memory, target: process.remembered.target(), floor }
                } else {
                    Task::Idle
                }
            }
            (Task::Flying { .. }, Step::Fail) => {
                process.kept = None;
                Task::Idle
            }
            // One of a process writes at a time, and then the others look whether there is still something to do.
            (Task::Landed { memory, target, floor }, Step::Commit)
                if process.tasks.iter().any(|task| matches!(task, Task::Writing { .. } | Task::Written { .. }))
                    && matches!(process.remembered.to_write(&memory, target.generation), ToWrite::Write(_)) =>
            {
                Task::Landed { memory, target, floor }
            }
            (Task::Landed { memory, target, floor }, Step::Commit) => {
                match process.remembered.to_write(&memory, target.generation) {
                    ToWrite::Nothing => {
                        self.answer(number, &memory, &floor, false);
                        Task::Idle
                    }
                    ToWrite::Behind => Task::Idle,
                    ToWrite::Write(target) => Task::Writing { memory, target, floor },
                }
            }
            (Task::Writing { memory, target, floor }, Step::Send(how)) => self.send(number, memory, target, floor, how),
            (Task::Written { memory, target, floor, record }, Step::Hear) => {
                let written = record.is_some();
                process.saw_it_gone &= !written;
                process.saw_it |= written;
                if process.remembered.written(&memory, &target, record) {
                    self.answer(number, &memory, &floor, written);
                }
                Task::Idle
            }
            _ => Task::Idle,
        };
        self.processes[number].tasks[task] = after;
        match &self.processes[number].tasks[task] {
            Task::Written { .. } if self.hears_at_once => self.take(number, task, Step::Hear),
            Task::Asking { .. } if self.hears_at_once => self.take(number, task, Step::Begin),
            _ => {}
        }
    }

    fn send(&mut self, number: usize, memory: Arc<Memory>, target: Target, floor: Floor, how: Store) -> Task {
        let there = self.processes[number].read(self.store.as_ref());
        let mut record = None;
        if matches!(how, Store::Works | Store::Silent) {
            match weigh(&memory, target.over.as_deref(), there.as_ref()) {
                Weighed::Overtaken => {
                    let (store, changes) = (self.store.clone(), self.changes);
                    self.processes[number].observe(store.as_ref(), changes);
                    return Task::Idle;
                }
                Weighed::Same => {}
                Weighed::Newer => {
                    let accepted = target.over.as_ref().and_then(|over| over.accepted.clone());
                    if let Some(there) = &self.store {
                        assert!(memory.covers(&there.memory), "a record goes back: {}", self.story());
                        assert_eq!(
                            there.accepted,
                            accepted,
                            "what an administrator accepted is lost: {}",
                            self.story()
                        );
                    }
                    self.write(&memory, accepted);
                }
            }
            let there = self.processes[number].read(self.store.as_ref());
            record = there.as_ref().map(RecordId::of);
            if matches!(how, Store::Works) && !self.processes[number].old {
                self.processes[number].stored = there.map(|there| (Arc::new(there.memory), self.changes));
            }
        }
        let record = record.filter(|_| matches!(how, Store::Works));
        let process = &mut self.processes[number];
        process.failed |= record.is_none() && !process.old;
        if matches!(how, Store::Unreadable) || (record.is_none() && target.must) {
            return Task::Idle;
        }
        Task::Written { memory, target, floor, record }
    }

    /// A review is answered with this.
    fn answer(&mut self, number: usize, memory: &Arc<Memory>, floor: &Floor, written: bool) {
        let (changes, trail) = (self.changes, self.trail.clone());
        let process = &mut self.processes[number];
        if let Some((before, at)) = &process.answered
            && *at == floor.changes
        {
            assert!(memory.covers(before), "older than what this process answered with: {}", story(trail.as_deref()));
        }
        if let Some(least) = &floor.memory {
            assert!(memory.covers(least), "older than the record: {}", story(trail.as_deref()));
        }
        assert!(
            written || !process.saw_it_gone,
            "what was forgotten is answered with, and not written: {}",
            story(trail.as_deref())
        );
        // What an old one answers with, it may have read long ago.
        if !process.failed && !process.old {
            let (stored, at) = process.stored.as_ref().expect("a record");
            assert!(stored.covers(memory), "a restart would forget it: {}", story(trail.as_deref()));
            let recorded = self.store.as_ref().is_some_and(|record| record.memory.covers(memory));
            assert!(recorded || *at != changes, "the store has forgotten it: {}", story(trail.as_deref()));
        }
        process.answered = Some((Arc::clone(memory), floor.changes));
    }

    /// Whether a review that comes now may be answered with what a server shows that is asked: what [`Remembered`] promises.
    fn may_be_answered(&self, number: usize, index: usize) -> bool {
        let (process, server) = (&self.processes[number], shown(index));
        let (ours, id) = match process.remembered.state() {
            State::Unknown => (None, None),
            State::Seen { memory, record, .. } => (Some(memory), record.as_ref()),
            State::Forgotten { since } => (since.as_ref(), None),
        };
        let fits_ours = ours.is_none_or(|ours| server.covers(ours));
        let Some(there) = &process.read(self.store.as_ref()) else {
            return id.is_some() || fits_ours;
        };
        let another = match id {
            Some(id) => id.accepted != there.accepted || id.uid != there.uid,
            None => there.accepted.is_some(),
        };
        let forgotten = matches!(process.remembered.state(), State::Forgotten { .. });
        let another = another || (forgotten && ours.is_some_and(|ours| ours.join(&there.memory).is_none()));
        server.covers(&there.memory) && (another || fits_ours)
    }

    /// Whether one is answered, and at once, if nobody disturbs it.
    fn is_answered(&self, number: usize, index: usize) -> bool {
        let mut world = self.clone();
        let process = &mut world.processes[number];
        process.tasks.fill(Task::Idle);
        process.answered = None;
        world.take(number, 0, Step::Look);
        if matches!(world.processes[number].tasks[0], Task::Asking { .. }) {
            world.take(number, 0, Step::Begin);
        }
        let Task::Flying { basis, .. } = &world.processes[number].tasks[0] else { panic!() };
        if basis.memory.as_ref().is_some_and(|least| !shown(index).covers(least)) {
            return false;
        }
        for step in [Step::Land(index), Step::Commit, Step::Send(Store::Works), Step::Hear] {
            let fits = matches!(
                (&world.processes[number].tasks[0], step),
                (Task::Flying { .. }, Step::Land(_))
                    | (Task::Landed { .. }, Step::Commit)
                    | (Task::Writing { .. }, Step::Send(_))
                    | (Task::Written { .. }, Step::Hear)
            );
            if fits {
                world.take(number, 0, step);
            }
        }
        world.processes[number].answered.is_some()
    }

    /// The same for worlds in which the same can happen.
    fn key(&self) -> Vec<u8> {
        let mut processes: Vec<_> = self.processes.iter().map(Process::key).collect();
        // Which is which makes no difference.
        processes.sort();
        [vec![self.made, self.changes, u8::from(self.choices == 2)], key_of(self.store.as_ref()), processes.concat()]
            .concat()
    }

    /// The same for worlds in which a process answers the same if nobody disturbs it.
    fn key_for(&self, number: usize) -> Vec<u8> {
        let process = &self.processes[number];
        [vec![u8::from(process.old)], key_of(self.store.as_ref()), process.core()].concat()
    }
}

fn number(text: Option<&String>) -> u8 {
    text.map_or(0, |text| text.parse().unwrap())
}

fn key_of_id(id: Option<&RecordId>) -> [u8; 3] {
    id.map_or([0; 3], |id| [1, number(id.uid.as_ref()), number(id.accepted.as_ref())])
}

fn key_of(record: Option<&MemoryRecord>) -> Vec<u8> {
    let id = key_of_id(record.map(RecordId::of).as_ref());
    [[code(record.map(|record| &record.memory))].as_slice(), &id].concat()
}

impl Process {
    /// What it knows.
    fn core(&self) -> Vec<u8> {
        let mut key = vec![code(self.kept.as_deref())];
        match self.remembered.state() {
            State::Unknown => key.push(0),
            State::Seen { memory, record, written } => {
                key.extend([1, code(Some(memory)), *written as u8]);
                key.extend(key_of_id(record.as_deref()));
            }
            State::Forgotten { since } => key.extend([2, code(since.as_deref())]),
        }
        key
    }

    fn key(&self) -> Vec<u8> {
        let now = self.remembered.generation;
        let mut key = self.core();
        let answered = self.answered.as_ref();
        key.extend(answered.map_or([0; 2], |(memory, changes)| [code(Some(memory)), *changes]));
        key.push(self.looked);
        key.extend(self.stored.as_ref().map_or([0; 2], |(memory, changes)| [code(Some(memory)), *changes]));
        key.extend([self.old, self.failed, self.saw_it_gone, self.saw_it].map(u8::from));
        let mut tasks: Vec<_> = self.tasks.iter().map(|task| task.key(now)).collect();
        tasks.sort();
        key.extend(tasks.concat());
        key
    }
}

impl Floor {
    fn key(&self) -> [u8; 2] {
        [code(self.memory.as_deref()), self.changes]
    }
}

impl Task {
    fn key(&self, now: Generation) -> Vec<u8> {
        let of = |tag: u8, memory: &Memory, target: &Target, floor: &Floor| {
            let mut key = vec![tag, code(Some(memory)), u8::from(target.generation == now), u8::from(target.must)];
            key.extend(key_of_id(target.over.as_deref()));
            key.extend(floor.key());
            key
        };
        match self {
            Self::Idle => vec![0],
            Self::Asking { as_of, there, at } => {
                let as_of = [&key_of_id(as_of.record.as_deref())[..], &[u8::from(as_of.generation == now)]].concat();
                [vec![5, *at], as_of, key_of(there.as_ref())].concat()
            }
            Self::Flying { basis, floor } => {
                let basis = [code(basis.memory.as_deref()), u8::from(basis.generation == now)];
                [[1].as_slice(), &basis, &floor.key()].concat()
            }
            Self::Landed { memory, target, floor } => of(2, memory, target, floor),
            Self::Writing { memory, target, floor } => of(3, memory, target, floor),
            Self::Written { memory, target, floor, record } => {
                [of(4, memory, target, floor), key_of_id(record.as_ref()).to_vec()].concat()
            }
        }
    }
}

/// Looks at every world that can come to be, up to so many changes by an administrator. Gives how many there are.
fn explore(processes: Vec<Process>, max_changes: u8) -> usize {
    let (mut known, mut tried) = (HashSet::new(), HashSet::new());
    let mut seen_states = BTreeSet::new();
    let mut ahead = VecDeque::from([World::new(processes)]);
    while let Some(world) = ahead.pop_front() {
        for number in 0..world.processes.len() {
            if !tried.insert(world.key_for(number)) {
                continue;
            }
            for index in 0..SHOWN.len() {
                let (may, is) = (world.may_be_answered(number, index), world.is_answered(number, index));
                assert_eq!(may, is, "process {number} is shown {index} after {}: {world:#?}", world.story());
            }
            seen_states.insert(
                format!("{:?}", world.processes[number].remembered.state()).chars().take(8).collect::<String>(),
            );
        }
        for next in world.next(max_changes) {
            if known.insert(next.key()) {
                ahead.push_back(next);
            }
        }
    }
    assert_eq!(seen_states.len(), 3, "each state comes to be");
    known.len()
}

#[test]
fn two_reviews_in_one_process() {
    assert!(explore(vec![Process::new(false, 2)], 1) > 10_000);
}

#[test]
fn two_replicas() {
    assert!(explore(vec![Process::new(false, 1), Process::new(false, 1)], 1) > 10_000);
}

#[test]
fn a_replica_beside_one_of_the_last_release() {
    assert!(explore(vec![Process::new(false, 1), Process::new(true, 1)], 1) > 10_000);
}

#[test]
fn only_what_covers_the_record_that_is_there_takes_its_place() {
    let record = |index: usize, uid: &str, accepted: Option<&str>| MemoryRecord {
        memory: Memory::clone(&shown(index)),
        accepted: accepted.map(str::to_owned),
        namespace: None,
        pinned_in: None,
        uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
    };
    let there = record(1, "1", None);
    let of = |record: &MemoryRecord| Some(RecordId::of(record));
    let weighed =
        |seen: usize, before: Option<&RecordId>, there: &MemoryRecord| weigh(&shown(seen), before, Some(there));
    assert_eq!(weigh(&shown(1), None, None), Weighed::Newer);
    assert_eq!(weigh(&shown(1), of(&there).as_ref(), None), Weighed::Overtaken, "it was deleted");
    let elsewhere = MemoryRecord { namespace: Some("team".to_owned()), ..there.clone() };
    for before in [None, of(&there)] {
        assert_eq!(weighed(1, before.as_ref(), &there), Weighed::Same);
        assert_eq!(weighed(1, before.as_ref(), &elsewhere), Weighed::Same, "for whom it is changes nothing");
        assert_eq!(weighed(0, before.as_ref(), &there), Weighed::Overtaken, "older");
        assert_eq!(weighed(2, before.as_ref(), &there), Weighed::Overtaken, "one version, two contents");
        assert_eq!(weighed(1, before.as_ref(), &record(0, "1", None)), Weighed::Newer);
        assert_eq!(weighed(1, before.as_ref(), &record(0, "1", Some("now"))), Weighed::Overtaken, "accepted since");
    }
    let accepted = of(&record(0, "1", Some("now")));
    assert_eq!(weighed(1, accepted.as_ref(), &record(0, "1", Some("now"))), Weighed::Newer);
    assert_eq!(weighed(1, accepted.as_ref(), &record(0, "1", Some("later"))), Weighed::Overtaken);
    assert_eq!(weighed(1, accepted.as_ref(), &record(0, "1", None)), Weighed::Overtaken);
    assert_eq!(weighed(1, of(&there).as_ref(), &record(0, "2", None)), Weighed::Overtaken, "deleted and made anew");
    // A directory gives no identities.
    assert_eq!(weighed(1, of(&record(0, "", None)).as_ref(), &record(0, "2", None)), Weighed::Newer);
    assert_eq!(weighed(1, of(&there).as_ref(), &record(0, "", None)), Weighed::Newer);
}

/// What is written already is not written again, and what could not be written is tried again after each flight.
#[test]
fn what_is_written_is_written_once() {
    let mut generations = Generations::default();
    let mut remembered = Remembered::new(&mut generations);
    let fly = |remembered: &mut Remembered, index: usize| {
        let basis = remembered.basis();
        assert!(remembered.flight_ended(&basis, &basis, &shown(index)));
        remembered.target()
    };
    let id = RecordId { uid: Some("1".to_owned()), accepted: None };
    let first = fly(&mut remembered, 0);
    assert_eq!(remembered.to_write(&shown(0), first.generation), ToWrite::Write(first.clone()));
    assert_eq!((&first.over, first.must), (&None, false));
    assert!(remembered.written(&shown(0), &first, Some(id.clone())));
    let there = Target { over: Some(Arc::new(id.clone())), ..first.clone() };
    for _ in 0..2 {
        assert_eq!(remembered.to_write(&shown(0), first.generation), ToWrite::Nothing);
        assert_eq!(fly(&mut remembered, 0), there, "and nothing new is seen");
    }
    assert_eq!(fly(&mut remembered, 1), there);
    assert_eq!(remembered.to_write(&shown(0), first.generation), ToWrite::Behind, "others here have seen more");
    assert!(!remembered.written(&shown(0), &there, Some(id)), "while it was written");
    assert!(!remembered.written(&shown(0), &there, None), "that says nothing of what was seen since");
    for _ in 0..2 {
        assert_eq!(remembered.to_write(&shown(1), first.generation), ToWrite::Write(there.clone()));
        assert!(remembered.written(&shown(1), &there, None));
        assert_eq!(remembered.to_write(&shown(1), first.generation), ToWrite::Nothing);
        fly(&mut remembered, 1);
    }
    let as_of = remembered.as_of();
    assert!(remembered.observe(&as_of, None, &mut generations).is_some());
    assert_eq!(remembered.to_write(&shown(1), first.generation), ToWrite::Behind, "it was deleted");
    assert!(remembered.observe(&as_of, None, &mut generations).is_none(), "that was looked up before");
    assert!(fly(&mut remembered, 2).must);
}

/// A record is written, deleted and made anew by another replica; that one is looked up before this process hears of its own.
#[test]
fn what_was_looked_up_since_is_not_older_than_what_was_written() {
    let mut generations = Generations::default();
    let mut remembered = Remembered::new(&mut generations);
    let basis = remembered.basis();
    assert!(remembered.flight_ended(&basis, &basis, &shown(1)));
    let target = remembered.target();
    let id = |uid: &str| RecordId { uid: Some(uid.to_owned()), accepted: None };
    let anew = MemoryRecord { memory: Memory::clone(&shown(0)), uid: Some("2".to_owned()), ..MemoryRecord::default() };
    let as_of = remembered.as_of();
    assert_eq!(remembered.observe(&as_of, Some(&anew), &mut generations).unwrap().1, Observed::Fits);
    assert!(remembered.written(&shown(1), &target, Some(id("1"))));
    assert_eq!(remembered.target().over.as_deref(), Some(&id("2")));
    assert!(matches!(remembered.to_write(&shown(1), target.generation), ToWrite::Write(_)), "the other one has less");
}

/// What others have of a repository counts where nothing else is known, and says nothing where something is: seen, recorded, or forgotten.
#[test]
fn what_others_have_counts_to_begin_with() {
    let mut generations = Generations::default();
    let others =
        MemoryRecord { memory: Memory::clone(&shown(1)), uid: Some("9".to_owned()), ..MemoryRecord::default() };
    let mut remembered = Remembered::new(&mut generations);
    assert!(remembered.is_unknown());
    let basis = remembered.begin_with(&others);
    assert_eq!(basis.memory.as_deref(), Some(&others.memory));
    assert!(!remembered.is_unknown() && !remembered.has_record() && !remembered.is_written());
    assert!(!remembered.flight_ended(&basis, &basis, &shown(0)), "older than what others saw");
    assert!(!remembered.flight_ended(&basis, &basis, &shown(2)), "something else than what others saw");
    assert!(remembered.flight_ended(&basis, &basis, &shown(1)));
    // It must be written under its own name, over nothing.
    let target = remembered.target();
    assert_eq!((&target.over, target.must), (&None, false));
    assert_eq!(remembered.to_write(&shown(1), target.generation), ToWrite::Write(target.clone()));

    let seen = || {
        let mut generations = Generations::default();
        let mut remembered = Remembered::new(&mut generations);
        let basis = remembered.basis();
        assert!(remembered.flight_ended(&basis, &basis, &shown(0)));
        (remembered, generations)
    };
    let (mut only_seen, _) = seen();
    let (mut recorded, mut generations) = seen();
    let own = MemoryRecord { memory: Memory::clone(&shown(0)), uid: Some("1".to_owned()), ..MemoryRecord::default() };
    let as_of = recorded.as_of();
    assert!(!recorded.is_written());
    assert!(recorded.observe(&as_of, Some(&own), &mut generations).is_some());
    assert!(recorded.is_written());
    let mut forgotten = recorded.clone();
    let as_of = forgotten.as_of();
    assert!(forgotten.observe(&as_of, None, &mut generations).is_some());
    assert!(matches!(forgotten.state(), State::Forgotten { since: None }));
    for remembered in [&mut only_seen, &mut recorded, &mut forgotten] {
        let before = (remembered.state().clone(), remembered.basis().memory);
        assert_eq!(remembered.begin_with(&others).memory, before.1);
        assert_eq!((remembered.state().clone(), remembered.basis().memory), before);
    }
}
