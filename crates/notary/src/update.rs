//! The update of a repository, as a machine without input or output: it says which files it needs, is given their bytes,
//! and ends with a verified [`Repository`] or an error.
//!
//! The order is Notary's (`docs/notary-v1.md#order-of-an-update`): the root that is trusted already is used until something does not
//! fit, and only then is a newer root looked for, once. What differs is said at each place; all of it is stricter, but for pins, which hold
//! for a root before the present one too.

mod delegations;
mod roots;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_image::to_hex;
use jiff::Timestamp as Time;

use self::delegations::children;
use crate::collection::{Repository, RoleState};
use crate::error::Error;
use crate::memory::{MAX_RECORD_BYTES, Memory, Seen};
use crate::metadata::{Delegation, FileMeta, Metadata, Snapshot, Targets, Timestamp};
use crate::role::RoleName;
use crate::root::{KnownRoot, MAX_ROOT_BYTES, RootPins};
use crate::signed::{Offered, Trusted, Wrong};

/// The most bytes a timestamp may have: Notary's own limit.
pub(crate) const MAX_TIMESTAMP_BYTES: u64 = 1 << 20;

/// The most bytes any other file may have, whatever length the metadata gives for it. Notary stops at 100 MiB; 100 000
/// tags take some 13 MiB.
pub const MAX_FILE_BYTES: u64 = 32 << 20;

/// How many signatures all files of one update may carry: eight for each of 500 delegations. To try them all takes a
/// second or two.
pub const MAX_UPDATE_SIGNATURES: usize = 4096;

/// A file that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The role whose file it is.
    pub role: RoleName,
    /// Its name below `<server>/v2/<GUN>/_trust/tuf/`.
    pub file: String,
    /// The most bytes worth reading. A reader should stop one byte later and hand over what it has: the check is made here.
    pub limit: u64,
    /// The sha256 that its bytes must have, where metadata gives one, of whatever length that is. Whoever has bytes of this hash already need
    /// not fetch the file: they are checked here like any others.
    pub sha256: Option<Vec<u8>>,
}

/// What the server had for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The file's bytes.
    Found(Vec<u8>),
    /// The server says that there is no such file (404).
    Missing,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// Fetch these files, in any order or at once, and hand their answers over in the order of the requests.
    Fetch(Vec<Request>),
    /// The repository is verified.
    Done(Box<Repository>),
}

/// An update under way.
#[derive(Debug)]
pub struct Update {
    gun: String,
    now: Time,
    pins: RootPins,
    memory: Memory,
    held: Option<Arc<Repository>>,
    root: Option<KnownRoot>,
    root_looked_for: bool,
    failure: Option<Error>,
    phase: Phase,
    requested: Vec<Request>,
    timestamp: Option<Arc<Trusted<Timestamp>>>,
    snapshot: Option<Arc<Trusted<Snapshot>>>,
    targets: Option<Arc<Trusted<Targets>>>,
    roles: BTreeMap<RoleName, RoleState>,
    /// Signatures that the files brought so far.
    signatures: usize,
    /// How many of them were wrong, by key.
    wrong: RefCell<Wrong>,
    /// How many bytes a record has for the roles below a signer, with those of this update.
    below: BTreeMap<String, usize>,
    /// Delegations that are still to be visited, with the paths that they may speak for.
    frontier: Vec<(Delegation, Vec<String>)>,
}

/// Which answers are awaited.
#[derive(Debug, Clone)]
enum Phase {
    Start,
    FirstRootAndTimestamp,
    /// Roots before the first trusted one, newest first, to find one that a pin holds.
    OlderRoots,
    Timestamp,
    Snapshot,
    Targets,
    Delegations,
    NewestRoot,
    Rotations {
        newest: Vec<u8>,
    },
}

impl Update {
    /// Begins an update of a repository.
    ///
    /// `held` is what an earlier update verified, if it is still at hand: unchanged files are not asked for again. `memory`
    /// is what is remembered of the repository, by this process or by others; whatever is newer counts. A `held` that
    /// has another root, or is behind what is remembered, is of no use. `now` is the time of the whole update, so a
    /// slow server cannot stretch an expiry.
    ///
    /// # Errors
    /// A remembered root that does not verify.
    pub fn start(
        gun: &str,
        held: Option<Arc<Repository>>,
        memory: Option<&Memory>,
        pins: RootPins,
        now: Time,
    ) -> Result<Self, Error> {
        let memory = match (&held, memory) {
            (Some(held), None) => Memory::clone(held.memory()),
            // What is remembered counts where the two do not fit together.
            (Some(held), Some(memory)) => held.memory().join(memory).unwrap_or_else(|| memory.clone()),
            (None, memory) => memory.cloned().unwrap_or_default(),
        };
        // Files that are held are used again without a look at their versions, so only those of one that is behind nobody.
        let held = held.filter(|held| **held.memory() == memory);
        let root = match (&held, &memory.root) {
            (Some(held), _) => Some(held.root().clone()),
            (None, Some(bytes)) => Some(KnownRoot::recall(gun, bytes, &memory.lineage)?),
            (None, None) => None,
        };
        Ok(Self {
            gun: gun.to_owned(),
            now,
            pins,
            memory,
            held,
            root,
            root_looked_for: false,
            failure: None,
            phase: Phase::Start,
            requested: Vec::new(),
            timestamp: None,
            snapshot: None,
            targets: None,
            roles: BTreeMap::new(),
            signatures: 0,
            wrong: RefCell::default(),
            below: BTreeMap::new(),
            frontier: Vec::new(),
        })
    }

    /// Runs to the end, for whoever has all files at hand.
    ///
    /// # Errors
    /// Why the repository is not trusted.
    pub fn run(mut self, mut answer: impl FnMut(&Request) -> Answer) -> Result<Repository, Error> {
        let mut answers = Vec::new();
        loop {
            match self.advance(answers)? {
                Step::Done(repository) => return Ok(*repository),
                Step::Fetch(requests) => answers = requests.iter().map(&mut answer).collect(),
            }
        }
    }

    /// Takes the answers to the last requests (none at first) and says what to do next.
    ///
    /// # Errors
    /// Why the repository is not trusted. The update is over then.
    pub fn advance(&mut self, answers: Vec<Answer>) -> Result<Step, Error> {
        let phase = std::mem::replace(&mut self.phase, Phase::Start);
        debug_assert_eq!(answers.len(), self.requested.len(), "one answer for each request");
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or(Answer::Missing);
        let outcome = match phase {
            Phase::Start => return self.begin(),
            Phase::FirstRootAndTimestamp => {
                self.take_first_root(next())?;
                self.take_timestamp(next())
            }
            Phase::OlderRoots => {
                let answers = self.requested.clone().iter().map(|_| next()).collect();
                self.take_older_roots(answers)?;
                self.need_snapshot()
            }
            Phase::Timestamp => self.take_timestamp(next()),
            Phase::Snapshot => self.take_snapshot(next()),
            Phase::Targets => self.take_targets(next()),
            Phase::Delegations => {
                let answers = self.requested.clone().iter().map(|_| next()).collect();
                self.take_delegations(answers)
            }
            Phase::NewestRoot => return self.take_newest_root(next()),
            Phase::Rotations { newest } => {
                let answers = self.requested.clone().iter().map(|_| next()).collect();
                return self.take_rotations(answers, &newest);
            }
        };
        outcome.or_else(|failure| self.look_for_newer_root(failure))
    }

    fn fetch(&mut self, phase: Phase, requests: Vec<Request>) -> Step {
        self.phase = phase;
        self.requested.clone_from(&requests);
        Step::Fetch(requests)
    }

    fn begin(&mut self) -> Result<Step, Error> {
        let Some(root) = &self.root else {
            let requests = vec![newest_root_request(), timestamp_request()];
            return Ok(self.fetch(Phase::FirstRootAndTimestamp, requests));
        };
        if let Err(expired) = root.trusted().check_expiry(self.now) {
            return self.look_for_newer_root(expired);
        }
        Ok(self.fetch(Phase::Timestamp, vec![timestamp_request()]))
    }

    // -- root -------------------------------------------------------------------------------------------------------

    fn take_timestamp(&mut self, answer: Answer) -> Result<Step, Error> {
        let bytes = found(&timestamp_request(), answer)?;
        let offered = Offered::<Timestamp>::read(&RoleName::timestamp(), &bytes, MAX_TIMESTAMP_BYTES)?;
        self.count(&offered)?;
        let root = self.root()?.trusted().body();
        let timestamp = self.believe(offered, &root.timestamp)?;
        timestamp.check_expiry(self.now)?;
        self.timestamp = Some(Arc::new(timestamp));
        if self.root()?.satisfies(&self.pins) { self.need_snapshot() } else { self.need_older_roots() }
    }

    /// Fails once the files of this update have brought more signatures than anybody needs, before they are tried.
    fn count<T: Metadata>(&mut self, offered: &Offered<T>) -> Result<(), Error> {
        self.signatures += offered.signature_count();
        if self.signatures > MAX_UPDATE_SIGNATURES {
            let (role, found) = (offered.role().clone(), self.signatures);
            return Err(Error::TooManySignatures { role, found, limit: MAX_UPDATE_SIGNATURES });
        }
        Ok(())
    }

    /// The same for a root. It was verified already; but one by one, so that little is done in vain.
    fn count_root(&mut self, root: &KnownRoot) -> Result<(), Error> {
        self.signatures += root.signatures();
        if self.signatures > MAX_UPDATE_SIGNATURES {
            let (role, found) = (RoleName::root(), self.signatures);
            return Err(Error::TooManySignatures { role, found, limit: MAX_UPDATE_SIGNATURES });
        }
        Ok(())
    }

    /// Signatures, then versions against what is remembered.
    fn believe<T: Metadata>(&self, offered: Offered<T>, keys: &crate::metadata::RoleKeys) -> Result<Trusted<T>, Error> {
        let trusted = offered.verify_counting(keys, Some(self.now), &mut self.wrong.borrow_mut())?;
        self.memory.check(trusted.role(), None, Seen::of(&trusted))?;
        Ok(trusted)
    }

    // -- snapshot ---------------------------------------------------------------------------------------------------------

    fn need_snapshot(&mut self) -> Result<Step, Error> {
        let meta = self.timestamp()?.body().snapshot.clone();
        let held = self.held.as_ref().map(|held| held.snapshot()).filter(|held| held.is(&meta)).cloned();
        match held {
            Some(snapshot) => self.use_snapshot(snapshot),
            None => Ok(self.fetch(Phase::Snapshot, vec![named_request(&RoleName::snapshot(), &meta)])),
        }
    }

    fn timestamp(&self) -> Result<&Arc<Trusted<Timestamp>>, Error> {
        self.timestamp.as_ref().ok_or_else(|| missing(&timestamp_request()))
    }

    fn take_snapshot(&mut self, answer: Answer) -> Result<Step, Error> {
        let meta = self.timestamp()?.body().snapshot.clone();
        let role = RoleName::snapshot();
        let bytes = found(&named_request(&role, &meta), answer)?;
        let offered = Offered::<Snapshot>::read_named(&role, &bytes, &meta, &RoleName::timestamp())?;
        self.count(&offered)?;
        let snapshot = self.believe(offered, &self.root()?.trusted().body().snapshot)?;
        self.use_snapshot(Arc::new(snapshot))
    }

    fn use_snapshot(&mut self, snapshot: Arc<Trusted<Snapshot>>) -> Result<Step, Error> {
        snapshot.check_expiry(self.now)?;
        // The root that is trusted must be the one of this moment; if not, it was rotated.
        if !self.root()?.trusted().is(&snapshot.body().root) {
            return Err(Error::HashMismatch { role: RoleName::root(), algorithm: "sha256", by: RoleName::snapshot() });
        }
        let meta = snapshot.body().targets.clone();
        self.snapshot = Some(snapshot);
        let held = self.held.as_ref().map(|held| held.targets()).filter(|held| held.is(&meta)).cloned();
        match held {
            Some(targets) => self.use_targets(targets),
            None => Ok(self.fetch(Phase::Targets, vec![named_request(&RoleName::targets(), &meta)])),
        }
    }

    fn snapshot(&self) -> Result<&Arc<Trusted<Snapshot>>, Error> {
        self.snapshot.as_ref().ok_or(Error::NotInSnapshot { role: RoleName::snapshot() })
    }

    // -- targets and delegations ------------------------------------------------------------------------------------------

    fn take_targets(&mut self, answer: Answer) -> Result<Step, Error> {
        let meta = self.snapshot()?.body().targets.clone();
        let role = RoleName::targets();
        let bytes = found(&named_request(&role, &meta), answer)?;
        let offered = Offered::<Targets>::read_named(&role, &bytes, &meta, &RoleName::snapshot())?;
        self.count(&offered)?;
        let targets = self.believe(offered, &self.root()?.trusted().body().targets)?;
        self.use_targets(Arc::new(targets))
    }

    fn use_targets(&mut self, targets: Arc<Trusted<Targets>>) -> Result<Step, Error> {
        targets.check_expiry(self.now)?;
        self.frontier = children(&targets, &[String::new()]);
        self.targets = Some(targets);
        self.need_delegations()
    }

    fn finish(&mut self) -> Result<Step, Error> {
        let root = self.root()?.clone();
        root.trusted().check_expiry(self.now)?;
        let targets = self.targets.clone().ok_or(Error::NotInSnapshot { role: RoleName::targets() })?;
        let repository = Repository::new(
            self.gun.clone(),
            root,
            Arc::clone(self.timestamp()?),
            Arc::clone(self.snapshot()?),
            targets,
            std::mem::take(&mut self.roles),
            std::mem::take(&mut self.memory),
        );
        if repository.memory().record_size() > MAX_RECORD_BYTES {
            return Err(Error::TooMuchToRemember { gun: self.gun.clone(), limit: MAX_RECORD_BYTES });
        }
        Ok(Step::Done(Box::new(repository)))
    }
}

fn newest_root_request() -> Request {
    Request { role: RoleName::root(), file: "root.json".to_owned(), limit: MAX_ROOT_BYTES, sha256: None }
}

fn root_version_request(version: u64) -> Request {
    Request { role: RoleName::root(), file: format!("{version}.root.json"), limit: MAX_ROOT_BYTES, sha256: None }
}

fn timestamp_request() -> Request {
    Request { role: RoleName::timestamp(), file: "timestamp.json".to_owned(), limit: MAX_TIMESTAMP_BYTES, sha256: None }
}

/// A file by its checksum, which the server looks up in lower-case hex.
fn named_request(role: &RoleName, meta: &FileMeta) -> Request {
    let file = format!("{role}.{}.json", to_hex(&meta.sha256));
    let (role, sha256) = (role.clone(), Some(meta.sha256.clone()));
    Request { role, file, limit: meta.length.min(MAX_FILE_BYTES), sha256 }
}

fn missing(request: &Request) -> Error {
    Error::MissingFile { role: request.role.clone(), file: request.file.clone() }
}

/// The bytes of an answer, within the request's limit.
fn found(request: &Request, answer: Answer) -> Result<Vec<u8>, Error> {
    match answer {
        Answer::Missing => Err(missing(request)),
        Answer::Found(bytes) if bytes.len() as u64 > request.limit => {
            Err(Error::TooLong { role: request.role.clone(), limit: request.limit })
        }
        Answer::Found(bytes) => Ok(bytes),
    }
}
