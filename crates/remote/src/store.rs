//! Where it is remembered across restarts what was seen of repositories.

use std::fmt::Display;

use countersign_image::Sha256;
use countersign_notary::{Memory, MemoryRecord, RecordId};
use futures::future::BoxFuture;
use thiserror::Error;

use crate::shares::NoRoom;

/// Why something could not be remembered or recalled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StateError {
    /// It cannot be read. There may be more than anybody here knows of, so nothing may be believed.
    #[error("cannot read what is remembered of {gun} in {place}: {cause}")]
    Unreadable {
        /// The repository.
        gun: String,
        /// The file, or the resource.
        place: String,
        /// What went wrong.
        cause: String,
    },
    /// It cannot be written. What was remembered before is still there.
    #[error("cannot write what is remembered of {gun} in {place}: {cause}")]
    Unwritable {
        /// The repository.
        gun: String,
        /// The file, or the resource.
        place: String,
        /// What went wrong.
        cause: String,
    },
    /// Nothing failed, but it is not written, since there is no room for it.
    #[error("cannot write what is remembered of {gun} in {place}: {why}")]
    NoRoom {
        /// The repository.
        gun: String,
        /// The file, or the resource.
        place: String,
        /// What it would be too much for.
        why: NoRoom,
    },
}

impl StateError {
    /// It cannot be read.
    #[must_use]
    pub fn unreadable(gun: &str, place: impl Display, cause: impl Display) -> Self {
        Self::Unreadable { gun: gun.to_owned(), place: place.to_string(), cause: cause.to_string() }
    }

    /// It cannot be written.
    #[must_use]
    pub fn unwritable(gun: &str, place: impl Display, cause: impl Display) -> Self {
        Self::Unwritable { gun: gun.to_owned(), place: place.to_string(), cause: cause.to_string() }
    }

    /// There is no room for it.
    #[must_use]
    pub fn no_room(gun: &str, place: impl Display, why: NoRoom) -> Self {
        Self::NoRoom { gun: gun.to_owned(), place: place.to_string(), why }
    }
}

/// The mark of what is not known; it is no mark of anything that is.
pub const UNKNOWN_MARK: u64 = u64::MAX;

/// Where memories live.
pub trait StateStore: Send + Sync + std::fmt::Debug {
    /// Whether it can be asked yet. Until then every load fails, and so every verification.
    fn is_ready(&self) -> bool {
        true
    }

    /// Of how many repositories something is remembered, where that is known without looking.
    fn count(&self) -> Option<usize> {
        None
    }

    /// A number for what is remembered now under a [`record_name`]: another one after each change, and [`UNKNOWN_MARK`] while that is not
    /// known. `None` where it takes asking somebody.
    fn mark(&self, name: &str) -> Option<u64> {
        let _ = name;
        None
    }

    /// What is remembered of a repository on a server; `None` only if it is certain that there is nothing.
    ///
    /// # Errors
    /// It cannot be read, or it is not known whether there is anything. The repository must not be trusted then.
    fn load<'a>(&'a self, server: &'a str, gun: &'a str) -> BoxFuture<'a, Result<Option<MemoryRecord>, StateError>>;

    /// Remembers what was seen, in place of what is there, if [`countersign_notary::weigh`] says so.
    ///
    /// # Errors
    /// It could not be written; what was remembered before is still there.
    fn save<'a>(&'a self, server: &'a str, gun: &'a str, seen: ToSave<'a>) -> BoxFuture<'a, Result<Saved, StateError>>;
}

/// What is to be remembered of a repository.
#[derive(Debug, Clone, Copy)]
pub struct ToSave<'a> {
    /// The record that was there when it was looked at.
    pub over: Option<&'a RecordId>,
    /// What was seen.
    pub memory: &'a Memory,
    /// The namespace for whose share it counts; empty for none.
    pub namespace: &'a str,
}

impl ToSave<'_> {
    /// The record to be written.
    #[must_use]
    pub fn record(&self) -> MemoryRecord {
        MemoryRecord {
            memory: self.memory.clone(),
            accepted: self.over.and_then(|over| over.accepted.clone()),
            namespace: Some(self.namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
            uid: None,
        }
    }
}

/// What became of something that was to be remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// It is remembered, in this record.
    Done(RecordId),
    /// It is not, since what is there is something else now: others have seen more, an administrator accepted a change or
    /// took it away, or what is there does not fit. What was seen must be looked at again in that light.
    Overtaken,
}

/// A name for what is remembered of a repository, made of hex digits alone.
#[must_use]
pub fn record_name(server: &str, gun: &str) -> String {
    Sha256::of(format!("{server}\n{gun}").as_bytes()).hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_was_tried() {
        let why = NoRoom::TooLarge { kib: 2000 };
        let cases = [
            (
                StateError::unreadable("h.io/x", "a place", "why"),
                "cannot read what is remembered of h.io/x in a place: why",
            ),
            (
                StateError::unwritable("h.io/x", "a place", "why"),
                "cannot write what is remembered of h.io/x in a place: why",
            ),
            (
                StateError::no_room("h.io/x", "a place", why),
                "cannot write what is remembered of h.io/x in a place: it would be 2000 KiB, and a record may have 1024 KiB",
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(error.to_string(), expected);
        }
    }
}
