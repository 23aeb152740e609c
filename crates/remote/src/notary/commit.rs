//! How what was seen comes to be remembered across restarts, and by other replicas.

use countersign_notary::{Memory, MemoryRecord, RecordId, Target, ToWrite, Weighed, weigh};

use super::NotaryClient;
use super::record;
use super::seen::Seen;
use crate::failure::Failure;
use crate::shares::NoRoom;
use crate::store::{RecordKey, Saved, StateError, StateStore, Stored};

/// How often a write is tried again that somebody else was faster with.
const MAX_TRIES: usize = 8;

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
    /// What is remembered cannot be read, or was taken away and cannot be written anew, or is too large for a record. Other trouble with writing is told
    /// to [`crate::Options::on_trouble`]: a failure once for each time that the server is asked, want of room each time.
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
        let written = match save(&**state, &key.record, &target, memory, namespace).await {
            Ok(Some(record)) => Some(record),
            Ok(None) => {
                // The repository in memory is looked at in that light, so that whoever asks anew is not given the same again.
                self.known(key).await?;
                return Ok(Committed::Behind);
            }
            // What is there by now may say more than was seen; and what is too large now is so at each review from now on, and would be
            // forgotten at each restart.
            Err(error @ (StateError::Unreadable { .. } | StateError::NoRoom { why: NoRoom::TooLarge { .. }, .. })) => {
                return Err(Failure::State(error));
            }
            // What was forgotten must not be so for want of a store.
            Err(error) if target.must => return Err(Failure::State(error)),
            // There is no room for this namespace. Another one, for which there is, tries for itself: one that has used up its share must
            // not keep what all others see from being remembered.
            Err(error @ StateError::NoRoom { .. }) => {
                (self.options.on_trouble)(&error);
                return Ok(Committed::Done);
            }
            Err(error @ StateError::Unwritable { .. }) => {
                (self.options.on_trouble)(&error);
                None
            }
        };
        let mut slots = self.slots();
        let counts = slots.find(key).is_none_or(|slot| slot.remembered.written(memory, &target, written));
        Ok(if counts { Committed::Done } else { Committed::Behind })
    }
}

/// Saves what was seen in place of what is there, if [`weigh`] says so. `None` if it does not: what was seen must be looked at again in the
/// light of what is there.
async fn save(
    state: &dyn StateStore,
    key: &RecordKey,
    target: &Target,
    memory: &Memory,
    namespace: &str,
) -> Result<Option<RecordId>, StateError> {
    let mut over = target.over.as_deref().cloned();
    // Where nothing is known to be there, the store says so when it is written.
    let mut there = if over.is_some() { load(state, key).await? } else { None };
    for _ in 0..MAX_TRIES {
        let record = there.as_ref().map(|(_, record)| record);
        let id = record.map(RecordId::of);
        match (weigh(memory, over.as_ref(), record), id) {
            (Weighed::Overtaken, _) => return Ok(None),
            (Weighed::Same, Some(id)) => return Ok(Some(id)),
            (Weighed::Same | Weighed::Newer, id) => over = id.or(over),
        }
        let accepted = over.as_ref().and_then(|over| over.accepted.clone());
        let former = record.and_then(|record| record.namespace.clone());
        let namespace = Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()).or(former.clone());
        let revision = there.as_ref().map(|(revision, _)| revision.as_str());
        let save = async |namespace: Option<String>| {
            let now = MemoryRecord {
                memory: memory.clone(),
                accepted: accepted.clone(),
                namespace,
                ..MemoryRecord::default()
            };
            let content =
                record::write(key, &now).map_err(|error| StateError::unwritable(&key.gun, state.place(key), error))?;
            state.save(key, content, revision).await
        };
        let saved = match save(namespace.clone()).await {
            // What is there goes on to count for whom it counts now.
            Err(StateError::NoRoom { why: NoRoom::Share { .. } | NoRoom::Full, .. })
                if former.is_some() && former != namespace =>
            {
                save(former).await
            }
            saved => saved,
        };
        match saved? {
            Saved::Done(uid) => return Ok(Some(RecordId { uid, accepted })),
            Saved::Changed => there = load(state, key).await?,
        }
    }
    Err(StateError::unwritable(&key.gun, state.place(key), "it is written by others all the time"))
}

/// The record that is there, and its revision.
pub(super) async fn load(
    state: &dyn StateStore,
    key: &RecordKey,
) -> Result<Option<(String, MemoryRecord)>, StateError> {
    let stored = state.load(key).await?;
    let read = |stored: Stored| match record::read(key, &stored) {
        Ok(record) => Ok((stored.revision, record)),
        Err(error) => Err(StateError::unreadable(&key.gun, state.place(key), error)),
    };
    stored.map(read).transpose()
}
