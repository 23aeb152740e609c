//! The roots of an update: the first one, newer ones, and those before that pins may want.

use super::{Answer, Phase, Step, Update, found, newest_root_request, root_version_request, timestamp_request};
use crate::error::Error;
use crate::metadata::{Metadata as _, Root};
use crate::role::RoleName;
use crate::root::{KnownRoot, Link, MAX_ROOT_BYTES, MAX_ROTATIONS};
use crate::signed::Offered;

impl Update {
    pub(super) fn take_first_root(&mut self, answer: Answer) -> Result<(), Error> {
        let Answer::Found(bytes) = answer else {
            return Err(Error::NoTrustData { gun: self.gun.clone() });
        };
        self.root = Some(KnownRoot::first(&self.gun, &bytes, self.now)?);
        Ok(())
    }

    /// The root that the update has by now.
    pub(super) fn root(&self) -> Result<&KnownRoot, Error> {
        self.root.as_ref().ok_or_else(|| Error::NoTrustData { gun: self.gun.clone() })
    }

    /// A failure with the root at hand: perhaps it was rotated. Tried once an update (`docs/notary-v1.md#order-of-an-update`).
    pub(super) fn look_for_newer_root(&mut self, failure: Error) -> Result<Step, Error> {
        if self.root_looked_for || self.root.is_none() {
            return Err(failure);
        }
        self.root_looked_for = true;
        self.failure = Some(failure);
        Ok(self.fetch(Phase::NewestRoot, vec![newest_root_request()]))
    }

    pub(super) fn take_newest_root(&mut self, answer: Answer) -> Result<Step, Error> {
        let Answer::Found(bytes) = answer else {
            return Err(Error::NoTrustData { gun: self.gun.clone() });
        };
        let offered = Offered::<Root>::read(&RoleName::root(), &bytes, MAX_ROOT_BYTES)?;
        let trusted = self.root()?.trusted();
        let (from, to) = (trusted.body().version(), offered.unverified().version());
        if to == from && offered.content() == trusted.content() {
            let held = self.root()?;
            if **held.bytes() != *bytes {
                // The same root, signed anew: the snapshot names the file with these signatures.
                let anew = held.signed_anew(&self.gun, &bytes, self.now)?;
                self.count_root(&anew)?;
                return Ok(self.start_over(anew));
            }
            // No newer root, so what went wrong did not come of a rotation.
            return Err(self.failure.take().unwrap_or_else(|| Error::NoTrustData { gun: self.gun.clone() }));
        }
        if to <= from {
            // An unrelated root is the likelier reason, and the graver one: a repository made anew starts at version 1.
            if offered.check(&trusted.body().root, None).is_err() {
                return Err(Error::RootNotChained { gun: self.gun.clone(), from, to });
            }
            return Err(if to == from {
                Error::SameVersionOtherContent { role: RoleName::root(), version: to }
            } else {
                Error::Rollback { role: RoleName::root(), offered: to, remembered: from }
            });
        }
        if to - from > MAX_ROTATIONS {
            return Err(Error::RootTooFar { gun: self.gun.clone(), from, to, limit: MAX_ROTATIONS });
        }
        if to == from + 1 {
            return self.take_rotations(Vec::new(), &bytes);
        }
        let requests = (from + 1..to).map(root_version_request).collect();
        Ok(self.fetch(Phase::Rotations { newest: bytes }, requests))
    }

    pub(super) fn take_rotations(&mut self, intermediate: Vec<Answer>, newest: &[u8]) -> Result<Step, Error> {
        let mut root = self.root()?.clone();
        for (request, answer) in self.requested.clone().iter().zip(intermediate) {
            root = root.next(&self.gun, &found(request, answer)?, Link::Intermediate, self.now)?;
            self.count_root(&root)?;
        }
        root = root.next(&self.gun, newest, Link::Newest, self.now)?;
        self.count_root(&root)?;
        Ok(self.start_over(root))
    }

    /// What was verified with keys of the old root proves nothing under the new one.
    pub(super) fn start_over(&mut self, root: KnownRoot) -> Step {
        self.root = Some(root);
        self.held = None;
        self.timestamp = None;
        self.roles.clear();
        self.frontier.clear();
        self.below.clear();
        self.fetch(Phase::Timestamp, vec![timestamp_request()])
    }

    /// The pins hold no key of the roots that are known: older roots may lead to one that they do hold.
    pub(super) fn need_older_roots(&mut self) -> Result<Step, Error> {
        let version = self.root()?.trusted().body().version();
        let oldest = version.saturating_sub(MAX_ROTATIONS).max(1);
        let requests: Vec<_> = (oldest..version).rev().map(root_version_request).collect();
        if requests.is_empty() {
            return Err(self.not_pinned()?);
        }
        Ok(self.fetch(Phase::OlderRoots, requests))
    }

    pub(super) fn not_pinned(&self) -> Result<Error, Error> {
        let version = self.root()?.trusted().body().version();
        Ok(Error::RootNotPinned { gun: self.gun.clone(), version })
    }

    /// Walks back until a root that a pin holds, then forward again to see that each was signed by the one before.
    pub(super) fn take_older_roots(&mut self, older: Vec<Answer>) -> Result<(), Error> {
        let newest = self.root()?.clone();
        let mut later: Vec<Vec<u8>> = vec![newest.bytes().to_vec()];
        for answer in older {
            let Answer::Found(bytes) = answer else {
                break;
            };
            let Ok(candidate) = KnownRoot::recall(&self.gun, &bytes, &[]) else {
                break;
            };
            self.count_root(&candidate)?;
            if !candidate.satisfies(&self.pins) {
                later.push(bytes);
                continue;
            }
            let mut chained = candidate;
            for (left, bytes) in later.iter().enumerate().rev() {
                let link = if left == 0 { Link::Newest } else { Link::Intermediate };
                chained = chained.next(&self.gun, bytes, link, self.now)?;
                self.count_root(&chained)?;
            }
            self.root = Some(chained);
            return Ok(());
        }
        Err(self.not_pinned()?)
    }

    // -- timestamp ----------------------------------------------------------------------------------------------------
}
