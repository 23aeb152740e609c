//! How what was seen comes to be remembered across restarts, and by other replicas.

use countersign_notary::{Target, ToWrite};

use super::NotaryClient;
use super::seen::Seen;
use crate::failure::Failure;
use crate::store::{Saved, StateError, ToSave};

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
        if let Err(already) = self.unwritten(seen) {
            return Ok(already);
        }
        let _turn = seen.writing.lock().await;
        // Whoever had the turn before may have written it.
        match self.unwritten(seen) {
            Ok(target) => self.write(seen, target, namespace).await,
            Err(already) => Ok(already),
        }
    }

    /// Where it is to be written, or what became of it already.
    fn unwritten(&self, seen: &Seen) -> Result<Target, Committed> {
        let mut slots = self.slots();
        let has_store = self.options.state.is_some();
        let Some(slot) = slots.find(&seen.key) else {
            // Dropped, as there was too much; the store will tell.
            return if has_store { Ok(seen.target.clone()) } else { Err(Committed::Done) };
        };
        match slot.remembered.to_write(seen.repository().memory(), seen.target.generation) {
            ToWrite::Behind => return Err(Committed::Behind),
            ToWrite::Write(target) if has_store => {
                slot.admitted = true;
                return Ok(target);
            }
            ToWrite::Nothing | ToWrite::Write(_) => {}
        }
        slot.admitted = true;
        Err(Committed::Done)
    }

    async fn write(&self, seen: &Seen, target: Target, namespace: &str) -> Result<Committed, Failure> {
        let Some(state) = &self.options.state else {
            return Ok(Committed::Done);
        };
        let (key, memory) = (&seen.key, seen.repository().memory());
        let to_save = ToSave { over: target.over.as_deref(), memory, namespace };
        let written = match state.save(&key.server, &key.gun, to_save).await {
            Ok(Saved::Done(record)) => Some(record),
            Ok(Saved::Overtaken) => {
                // The repository in memory is looked at in that light, so that whoever asks anew is not given the same again.
                self.known(key).await?;
                return Ok(Committed::Behind);
            }
            // What is there by now may say more than was seen.
            Err(error @ StateError::Unreadable { .. }) => return Err(Failure::State(error)),
            // What was forgotten must not be so for want of a store.
            Err(error) if target.must => return Err(Failure::State(error)),
            Err(error @ (StateError::Unwritable { .. } | StateError::NoRoom { .. })) => {
                (self.options.on_trouble)(&error);
                None
            }
        };
        let mut slots = self.slots();
        let counts = slots.find(key).is_none_or(|slot| slot.remembered.written(memory, &target, written));
        Ok(if counts { Committed::Done } else { Committed::Behind })
    }
}
