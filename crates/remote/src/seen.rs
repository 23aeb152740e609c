//! What a look at a repository brought, and how it comes to be remembered across restarts.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_notary::{MemoryRecord, Repository, RootPins};
use tokio::sync::Mutex;

use crate::failure::Failure;
use crate::kept::{Kept, Key, Slot};
use crate::notary::NotaryClient;
use crate::store::{Saved, StateError};

/// A verified repository, as [`NotaryClient::repository`] hands it out. This process remembers it; what is to be remembered by
/// others and after a restart is for [`NotaryClient::commit`].
#[derive(Clone)]
pub struct Seen {
    key: Arc<Key>,
    kept: Kept,
    former: Option<Kept>,
    refresh: Duration,
    basis: Basis,
}

/// What was known of the store when a repository was looked at.
#[derive(Clone)]
struct Basis {
    epoch: u64,
    /// Whether the store had something.
    there: bool,
    taken_away: bool,
    accepted: Option<String>,
    writing: Arc<Mutex<()>>,
}

impl Basis {
    fn of(slot: &Slot) -> Self {
        Self {
            epoch: slot.epoch,
            there: slot.stored,
            taken_away: slot.taken_away,
            accepted: slot.accepted.clone(),
            writing: Arc::clone(&slot.writing),
        }
    }
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").field("repository", &self.kept.repository).finish_non_exhaustive()
    }
}

impl Deref for Seen {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        &self.kept.repository
    }
}

impl Seen {
    pub(crate) fn of(key: &Arc<Key>, slot: &Slot, kept: &Kept, refresh: Duration, pins: &RootPins) -> Self {
        let former = slot.former.as_ref().filter(|former| former.repository.root().satisfies(pins));
        Self { key: Arc::clone(key), kept: kept.clone(), former: former.cloned(), refresh, basis: Basis::of(slot) }
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Arc<Repository> {
        &self.kept.repository
    }

    /// When its server was asked for it; what it shows is no older than that.
    #[must_use]
    pub fn asked(&self) -> Instant {
        self.kept.asked
    }

    /// The repository that this one took the place of a moment ago, for as long as it could itself still have been used.
    ///
    /// Another replica that has not looked again yet may just have pinned what it says. To believe it is no weaker than not
    /// having looked again: it was verified by this process under the same pins, its server was asked less than
    /// [`crate::Options::refresh`] ago, and until then each answer could have rested on it. It is given up as soon as this
    /// process learns that the repository is not trusted any more, or that an administrator accepted a change or took away
    /// what was remembered. Its expiry is checked by whoever asks it something. It says nothing of where a tag points by now.
    #[must_use]
    pub fn former(&self) -> Option<Arc<Repository>> {
        let former = self.former.as_ref().filter(|former| former.is_within(self.refresh))?;
        Some(Arc::clone(&former.repository))
    }
}

/// What became of a repository that was to be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an answer that rests on a repository which is behind must not be given"]
pub enum Committed {
    /// It is remembered, wherever that is possible.
    Done,
    /// It is not, since others have stored more than it shows, or an administrator accepted a change or took away what was
    /// remembered. The caller must ask and judge anew, at most [`crate::MAX_LOOKS`] times.
    Behind,
}

impl NotaryClient {
    /// Has a repository remembered across restarts and by other replicas. To be called before an answer is given that
    /// rests on it, as a restart right after must not forget it; but not for a denial or a dry run, which leave no trace.
    ///
    /// Only a repository that changed is written, so for most answers this costs nothing. What is new counts for the share of
    /// the namespace that it is written for.
    ///
    /// # Errors
    /// What is remembered cannot be read, or was taken away and cannot be written anew. Other trouble with writing is told
    /// to [`crate::Options::on_trouble`], once for each time that the server is asked.
    pub async fn commit(&self, seen: &Seen, namespace: &str) -> Result<Committed, Failure> {
        let writing = match self.unwritten(seen) {
            Ok(basis) => basis.writing,
            Err(already) => return Ok(already),
        };
        let _turn = writing.lock().await;
        // Whoever had the turn before may have written it.
        match self.unwritten(seen) {
            Ok(basis) => self.write(seen, basis, namespace).await,
            Err(already) => Ok(already),
        }
    }

    /// What is known by now of the store that has to be given this, or what became of it already.
    fn unwritten(&self, seen: &Seen) -> Result<Basis, Committed> {
        let mut slots = self.slots();
        let slot = slots.find(&seen.key);
        if self.options.state.is_none() {
            if let Some(slot) = slot {
                slot.admitted = true;
            }
            return Err(Committed::Done);
        }
        match slot {
            Some(slot) if slot.epoch != seen.basis.epoch => Err(Committed::Behind),
            Some(slot) => {
                slot.admitted = true;
                if seen.is_settled(slot) { Err(Committed::Done) } else { Ok(Basis::of(slot)) }
            }
            // Dropped, as there was too much; the store will tell.
            None => Ok(seen.basis.clone()),
        }
    }

    async fn write(&self, seen: &Seen, basis: Basis, namespace: &str) -> Result<Committed, Failure> {
        let Some(state) = &self.options.state else {
            return Ok(Committed::Done);
        };
        let (key, memory) = (&seen.key, seen.kept.repository.memory());
        let namespace = Some(namespace.to_owned());
        let remembered = MemoryRecord { memory: memory.clone(), accepted: basis.accepted, namespace };
        let stored = match state.save(&key.server, &key.gun, basis.there, &remembered).await {
            Ok(Saved::Done) => true,
            Ok(Saved::Overtaken) => {
                // The repository in memory is looked at in that light, so that whoever asks anew is not given the same again.
                self.known(key).await?;
                return Ok(Committed::Behind);
            }
            // What is there by now may say more than was seen.
            Err(error @ StateError::Unreadable { .. }) => return Err(Failure::State(error)),
            // What was forgotten must not be so for want of a store.
            Err(error) if basis.taken_away => return Err(Failure::State(error)),
            Err(error @ (StateError::Unwritable { .. } | StateError::NoRoom { .. })) => {
                (self.options.on_trouble)(&error);
                false
            }
        };
        let mut slots = self.slots();
        let Some(slot) = slots.find(key) else {
            return Ok(Committed::Done);
        };
        if slot.epoch != basis.epoch {
            return Ok(Committed::Behind);
        }
        let newest = slot.memory.as_ref() == Some(memory);
        if stored {
            (slot.stored, slot.taken_away) = (true, false);
            slot.saved |= newest;
        } else {
            slot.unwritable |= newest;
        }
        Ok(Committed::Done)
    }
}

impl Seen {
    /// Whether there is nothing to do for it: it is the newest one that this process knows, and the store has it, or it was
    /// tried in vain to write it.
    fn is_settled(&self, slot: &Slot) -> bool {
        let ours = &self.kept.repository;
        let newest = slot.kept.as_ref().is_some_and(|kept| Arc::ptr_eq(&kept.repository, ours))
            || slot.memory.as_ref() == Some(ours.memory());
        newest && (slot.saved || (slot.unwritable && !slot.taken_away))
    }
}
