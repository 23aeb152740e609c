//! What a look at a repository brings.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_notary::{Repository, Target};
use tokio::sync::Mutex;

use super::ask::Key;
use crate::failure::Failure;

/// What a flight comes to.
pub(crate) type Outcome = Result<Seen, Failure>;

/// A verified repository.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) repository: Arc<Repository>,
    /// When its server was asked last: before its timestamp was fetched, so it shows nothing older than that.
    pub(crate) asked: Instant,
}

impl Kept {
    /// Whether its server was asked less than this long ago.
    pub(crate) fn is_within(&self, age: Duration) -> bool {
        self.asked.elapsed() < age
    }
}

/// A verified repository, as [`crate::NotaryClient::repository`] hands it out. This process remembers it; what is to be remembered by
/// others and after a restart is for [`crate::NotaryClient::commit`].
#[derive(Clone)]
pub struct Seen {
    pub(crate) key: Arc<Key>,
    pub(crate) kept: Kept,
    pub(crate) former: Option<Kept>,
    pub(crate) refresh: Duration,
    /// Where it is to be written.
    pub(crate) target: Target,
    pub(crate) writing: Arc<Mutex<()>>,
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
