//! How what was seen comes to be remembered across restarts, and by other replicas.

use countersign_notary::MemoryRecord;

use super::NotaryClient;
use super::seen::{Basis, Seen};
use crate::failure::Failure;
use crate::store::{Saved, StateError};

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
                if slot.has_settled(seen) { Err(Committed::Done) } else { Ok(slot.basis()) }
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
