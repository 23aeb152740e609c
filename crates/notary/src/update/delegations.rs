//! The delegations of an update, level by level: which are needed, and which count.
//!
//! `docs/notary-v1.md#delegations` has the rules.

use std::sync::Arc;

use super::{Answer, Phase, Step, Update, found, named_request};
use crate::collection::RoleState;
use crate::error::Error;
use crate::memory::{MAX_BYTES_BELOW, Seen};
use crate::metadata::{Delegation, MAX_DELEGATIONS, Targets};
use crate::role::RoleName;
use crate::signed::{Offered, Trusted};

impl Update {
    /// Visits delegations level by level, parents before children; all files of a level are asked for at once.
    pub(super) fn need_delegations(&mut self) -> Result<Step, Error> {
        let mut awaited = Vec::new();
        let mut requests = Vec::new();
        while !self.frontier.is_empty() && requests.is_empty() {
            for (delegation, paths) in std::mem::take(&mut self.frontier) {
                if self.roles.len() + awaited.len() >= MAX_DELEGATIONS {
                    return Err(Error::TooManyDelegations { role: RoleName::targets(), limit: MAX_DELEGATIONS });
                }
                let Some(meta) = self.snapshot()?.body().delegations.get(delegation.name.as_str()).cloned() else {
                    self.leave_out(delegation);
                    continue;
                };
                let held = self.held.as_ref().and_then(|held| held.unchanged(&delegation, &meta));
                if let Some(metadata) = held {
                    self.use_delegation(delegation, paths, metadata);
                } else {
                    requests.push(named_request(&delegation.name, &meta));
                    awaited.push((delegation, paths));
                }
            }
        }
        if requests.is_empty() {
            return self.finish();
        }
        // Children of roles that were at hand wait for the next level.
        awaited.append(&mut self.frontier);
        self.frontier = awaited;
        Ok(self.fetch(Phase::Delegations, requests))
    }

    /// A role without a file was never published. One that was published before and is still delegated has been taken
    /// away by whoever holds the snapshot key; with `targets/releases` that would bring back older digests. A role that has none of the keys
    /// which it had then is another one, by what the holder of its parent's key says.
    pub(super) fn leave_out(&mut self, delegation: Delegation) {
        let state = match self.memory.version(&delegation.name, &delegation.keys) {
            None => RoleState::not_published(delegation),
            Some(remembered) => {
                let withdrawn = Error::Withdrawn { role: delegation.name.clone(), remembered };
                RoleState::invalid(delegation, withdrawn)
            }
        };
        self.roles.insert(state.name().clone(), state);
    }

    pub(super) fn take_delegations(&mut self, answers: Vec<Answer>) -> Result<Step, Error> {
        let requests = self.requested.clone();
        let later = self.frontier.split_off(requests.len().min(self.frontier.len()));
        let awaited = std::mem::replace(&mut self.frontier, later);
        for (((delegation, paths), request), answer) in awaited.into_iter().zip(&requests).zip(answers) {
            let bytes = found(request, answer)?;
            let meta = self.snapshot()?.body().delegations.get(delegation.name.as_str()).cloned();
            let meta = meta.ok_or_else(|| Error::NotInSnapshot { role: delegation.name.clone() })?;
            let offered = Offered::<Targets>::read_named(&delegation.name, &bytes, &meta, &RoleName::snapshot())?;
            self.count(&offered)?;
            self.memory.check(offered.role(), Some(&delegation.keys), Seen::offered(&offered))?;
            let verified = offered.verify_counting(&delegation.keys, Some(self.now), &mut self.wrong.borrow_mut());
            match verified {
                Ok(metadata) => self.use_delegation(delegation, paths, Arc::new(metadata)),
                Err(error) if error.is_soft() => {
                    let state = RoleState::invalid(delegation, error);
                    self.roles.insert(state.name().clone(), state);
                }
                Err(error) => return Err(error),
            }
        }
        self.need_delegations()
    }

    pub(super) fn use_delegation(
        &mut self,
        delegation: Delegation,
        paths: Vec<String>,
        metadata: Arc<Trusted<Targets>>,
    ) {
        let state = match metadata.check_expiry(self.now).and_then(|()| self.count_below(&delegation, &metadata)) {
            Ok(()) => {
                self.frontier.extend(children(&metadata, &paths));
                RoleState::valid(delegation, paths, metadata)
            }
            Err(error) => RoleState::invalid(delegation, error),
        };
        self.roles.insert(state.name().clone(), state);
    }
}

impl Update {
    /// Counts what is to be remembered of a role below a signer. What is too much leaves the role out, and nobody else's.
    fn count_below(&mut self, delegation: &Delegation, metadata: &Trusted<Targets>) -> Result<(), Error> {
        let Some(signer) = delegation.name.signer_above() else {
            return Ok(());
        };
        let growth = self.memory.growth(metadata, &delegation.keys);
        let memory = &self.memory;
        let below = self.below.entry(signer.to_owned()).or_insert_with(|| memory.record_size_below(signer));
        // What is remembered already stays so.
        if growth > 0 && *below + growth > MAX_BYTES_BELOW {
            return Err(Error::TooMuchBelow { role: delegation.name.clone(), limit: MAX_BYTES_BELOW });
        }
        *below += growth;
        Ok(())
    }
}

/// The delegations of a role, with the paths that each may speak for: those of its own that start with one of its
/// parent's. The others are dropped (`docs/notary-v1.md#paths`; `RestrictChild` in `tuf/data/roles.go` of Notary).
pub(super) fn children(parent: &Trusted<Targets>, parent_paths: &[String]) -> Vec<(Delegation, Vec<String>)> {
    let allowed = |path: &&String| parent_paths.iter().any(|prefix| path.starts_with(prefix.as_str()));
    let with_paths = |delegation: &Delegation| {
        let paths = delegation.paths.iter().filter(allowed).cloned().collect();
        (delegation.clone(), paths)
    };
    parent.body().delegations.iter().map(with_paths).collect()
}
