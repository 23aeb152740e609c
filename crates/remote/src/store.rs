//! Where it is remembered across restarts what was seen of repositories.

use std::fmt::Display;

use countersign_image::Sha256;
use futures::future::BoxFuture;
use serde_json::Value;
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

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// The server's address.
    pub server: String,
    /// The repository's name there.
    pub gun: String,
    /// The namespace whose policy says which certificate the server has: what comes over such a connection counts for that namespace
    /// alone. `None` if the authorities that everybody trusts say it, or the operator does.
    pub pinned_in: Option<String>,
}

impl RecordKey {
    /// That of a repository on a server that everybody means.
    #[must_use]
    pub fn new(server: &str, gun: &str) -> Self {
        Self { server: server.to_owned(), gun: gun.to_owned(), pinned_in: None }
    }

    /// A name for the record, made of hex digits alone.
    #[must_use]
    pub fn name(&self) -> String {
        let Self { server, gun, pinned_in } = self;
        let pinned_in = pinned_in.as_ref().map(|namespace| format!("\n{namespace}")).unwrap_or_default();
        Sha256::of(format!("{server}\n{gun}{pinned_in}").as_bytes()).hex()
    }
}

/// What a store keeps under a key. It does not read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// What each release can read: a JSON object. Its member `namespace` is [`Self::namespace`].
    pub text: Vec<u8>,
    /// What later releases add to that. Whoever does not know it drops it.
    pub more: Option<Vec<u8>>,
    /// The namespace for whose share of the store it counts, if it is for one.
    pub namespace: Option<String>,
    /// What people are shown of it, where a store can show something, by the name that the store has for it.
    pub summary: Vec<(&'static str, Value)>,
}

/// What is in a store under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What was saved; without a summary.
    pub content: Content,
    /// The identity that the store gave it when it was made, if it gives any: what was deleted and made anew has another one.
    pub uid: Option<String>,
    /// Another one after each change.
    pub revision: String,
}

/// What became of something that was to be saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// It is saved, with this identity.
    Done(Option<String>),
    /// It is not, since something else is there now. The next [`StateStore::load`] shows that, or what came after it.
    Changed,
}

/// Where what is remembered lives: bytes by key.
pub trait StateStore: Send + Sync + std::fmt::Debug {
    /// Whether it can be asked yet. Until then every load fails, and so every verification.
    fn is_ready(&self) -> bool {
        true
    }

    /// How many records there are, where that is known without looking.
    fn count(&self) -> Option<usize> {
        None
    }

    /// Where a record is, for whoever has to look at it: a file or a resource.
    fn place(&self, key: &RecordKey) -> String;

    /// A number for what is there now under a [`RecordKey::name`]: another one after each change, and [`UNKNOWN_MARK`] while that is not
    /// known. `None` where it takes asking somebody.
    fn mark(&self, name: &str) -> Option<u64> {
        let _ = name;
        None
    }

    /// What is there; `None` only if it is certain that there is nothing.
    ///
    /// # Errors
    /// It cannot be read, or it is not known whether there is anything. The repository must not be trusted then.
    fn load<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Stored>, StateError>>;

    /// Saves something in place of the revision that is there, or of nothing; not if something else is there.
    ///
    /// # Errors
    /// It could not be written; what was there is still there.
    fn save<'a>(
        &'a self,
        key: &'a RecordKey,
        content: Content,
        over: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Saved, StateError>>;
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
