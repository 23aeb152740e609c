//! A verified repository, and the questions that it answers.
//!
//! `docs/notary-v1.md#answers` has the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_image::{Sha256, Wanted};
use jiff::Timestamp as Time;

use crate::error::Error;
use crate::key::{KeyId, Signer};
use crate::memory::Memory;
use crate::metadata::{Delegation, FileMeta, Metadata as _, Snapshot, Target, Targets, Timestamp};
use crate::role::RoleName;
use crate::root::KnownRoot;
use crate::signed::Trusted;

/// That the metadata of a repository vouches for a digest. Only a verified [`Repository`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    repository: String,
    tag: String,
    digest: Sha256,
    by: Vec<SignedBy>,
}

/// Who signed, and with which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBy {
    /// The signer, without `targets/`.
    pub signer: String,
    /// The keys that signed the signer's file, by the id that Docker's tools print.
    pub keys: Vec<KeyId>,
}

impl Proof {
    /// The repository's name: what is proven for one says nothing of another.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag that is signed with the digest; of several the first in the order of their bytes.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        self.digest
    }

    /// All signers whose valid files sign the tag with the digest, required or not.
    #[must_use]
    pub fn by(&self) -> &[SignedBy] {
        &self.by
    }
}

/// What became of a delegation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleState {
    delegation: Delegation,
    status: Status,
}

/// Whether a delegated role counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It has never published anything.
    NotPublished,
    /// It has, but what it published does not count.
    Invalid(Error),
    /// Its file is verified.
    Valid {
        /// The file.
        metadata: Arc<Trusted<Targets>>,
        /// Prefixes of the tags that it may speak for.
        paths: Vec<String>,
    },
}

impl RoleState {
    pub(crate) fn not_published(delegation: Delegation) -> Self {
        Self { delegation, status: Status::NotPublished }
    }

    pub(crate) fn invalid(delegation: Delegation, error: Error) -> Self {
        Self { delegation, status: Status::Invalid(error) }
    }

    pub(crate) fn valid(delegation: Delegation, paths: Vec<String>, metadata: Arc<Trusted<Targets>>) -> Self {
        Self { delegation, status: Status::Valid { metadata, paths } }
    }

    /// The role's full name.
    #[must_use]
    pub fn name(&self) -> &RoleName {
        &self.delegation.name
    }

    /// Its keys, threshold and paths as its parent lists them.
    #[must_use]
    pub fn delegation(&self) -> &Delegation {
        &self.delegation
    }

    /// Whether it counts.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// What it signs for a tag, if it may speak for it.
    fn target(&self, tag: &str) -> Option<Target> {
        match &self.status {
            Status::Valid { metadata, paths } if paths.iter().any(|prefix| tag.starts_with(prefix.as_str())) => {
                metadata.body().targets.get(tag).copied()
            }
            _ => None,
        }
    }
}

/// A repository whose metadata has been verified as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    gun: String,
    root: KnownRoot,
    timestamp: Arc<Trusted<Timestamp>>,
    snapshot: Arc<Trusted<Snapshot>>,
    targets: Arc<Trusted<Targets>>,
    roles: BTreeMap<RoleName, RoleState>,
    memory: Arc<Memory>,
}

impl Repository {
    pub(crate) fn new(
        gun: String,
        root: KnownRoot,
        timestamp: Arc<Trusted<Timestamp>>,
        snapshot: Arc<Trusted<Snapshot>>,
        targets: Arc<Trusted<Targets>>,
        roles: BTreeMap<RoleName, RoleState>,
        before: Memory,
    ) -> Self {
        let mut memory =
            Memory { root: Some(Arc::clone(root.bytes())), lineage: root.lineage().to_vec(), seen: before.seen };
        memory.note(&timestamp);
        memory.note(&snapshot);
        memory.note(&targets);
        for state in roles.values() {
            if let Status::Valid { metadata, .. } = &state.status {
                memory.note_delegated(metadata, &state.delegation.keys);
            }
        }
        Self { gun, root, timestamp, snapshot, targets, roles, memory: Arc::new(memory) }
    }

    /// The repository's name.
    #[must_use]
    pub fn gun(&self) -> &str {
        &self.gun
    }

    /// Its root, with the chain that led to it.
    #[must_use]
    pub fn root(&self) -> &KnownRoot {
        &self.root
    }

    /// Its timestamp.
    #[must_use]
    pub fn timestamp(&self) -> &Arc<Trusted<Timestamp>> {
        &self.timestamp
    }

    /// Its snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Trusted<Snapshot>> {
        &self.snapshot
    }

    /// Its top-level targets.
    #[must_use]
    pub fn targets(&self) -> &Arc<Trusted<Targets>> {
        &self.targets
    }

    /// Its delegations, nested ones included, in the order of their names.
    pub fn roles(&self) -> impl Iterator<Item = &RoleState> {
        self.roles.values()
    }

    /// What is to be remembered of it.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// How many bytes all its files had. What is kept of them takes about as much again.
    #[must_use]
    pub fn size(&self) -> usize {
        let of = |state: &RoleState| match &state.status {
            Status::Valid { metadata, .. } => metadata.length(),
            Status::NotPublished | Status::Invalid(_) => 0,
        };
        let delegations: usize = self.roles.values().map(of).sum();
        let top =
            [self.root.trusted().length(), self.timestamp.length(), self.snapshot.length(), self.targets.length()];
        top.into_iter().sum::<usize>() + delegations
    }

    /// Whether nothing that every answer rests on has expired.
    ///
    /// # Errors
    /// The first role that has.
    pub fn check_expiry(&self, now: Time) -> Result<(), Error> {
        self.root.trusted().check_expiry(now)?;
        self.timestamp.check_expiry(now)?;
        self.snapshot.check_expiry(now)?;
        self.targets.check_expiry(now)
    }

    /// When the first of the files expires that every answer rests on; nothing, where one of them names no time.
    #[must_use]
    pub fn expires(&self) -> Option<Time> {
        let top = [
            self.root.trusted().body().expires(),
            self.timestamp.body().expires(),
            self.snapshot.body().expires(),
            self.targets.body().expires(),
        ];
        top.into_iter().collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// A delegation's file that was verified before and would verify just the same: the same bytes under the same keys.
    pub(crate) fn unchanged(&self, delegation: &Delegation, meta: &FileMeta) -> Option<Arc<Trusted<Targets>>> {
        let state = self.roles.get(&delegation.name)?;
        match &state.status {
            Status::Valid { metadata, .. } if metadata.is(meta) && state.delegation.keys == delegation.keys => {
                Some(Arc::clone(metadata))
            }
            _ => None,
        }
    }

    /// Answers an image reference, at a time and for the signers that a policy asks for (none: whatever is released).
    ///
    /// # Errors
    /// Why no digest can be given. Nothing is ever answered from metadata that has expired by `now`.
    pub fn resolve(&self, wanted: &Wanted, signers: &[Signer], now: Time) -> Result<Proof, Error> {
        self.check_expiry(now)?;
        match wanted {
            Wanted::Tag(tag) => self.resolve_tag(tag, signers, now),
            Wanted::TagAndDigest(tag, asked) => {
                let resolved = self.resolve_tag(tag, signers, now)?;
                if resolved.digest == *asked {
                    return Ok(resolved);
                }
                Err(Error::DigestDiffers {
                    gun: self.gun.clone(),
                    tag: tag.clone(),
                    signed: resolved.digest.hex(),
                    asked: asked.hex(),
                })
            }
            Wanted::Digest(asked) => self.resolve_digest(asked, signers, now),
        }
    }

    fn resolve_tag(&self, tag: &str, signers: &[Signer], now: Time) -> Result<Proof, Error> {
        // The signers come first: that one of them is missing says more than what it did to the releases.
        let mut signed = Vec::new();
        for signer in signers {
            let state = self.signer_role(signer, now)?;
            let target = state.target(tag).ok_or_else(|| self.not_signed(tag, Some(state.name().clone())))?;
            signed.push((state.name().clone(), usable_target(state.name(), tag, target)?));
        }
        let mut agreed: Option<(RoleName, Sha256)> = None;
        for (role, digest) in self.released(tag, now)?.into_iter().chain(signed) {
            let (one_role, one) = agreed.get_or_insert_with(|| (role.clone(), digest));
            if *one != digest {
                return Err(Error::SignersDisagree {
                    gun: self.gun.clone(),
                    tag: tag.to_owned(),
                    one_role: one_role.clone(),
                    one: one.hex(),
                    other_role: role,
                    other: digest.hex(),
                });
            }
        }
        let (_, digest) = agreed.ok_or_else(|| self.not_signed(tag, None))?;
        let (repository, tag) = (self.gun.clone(), tag.to_owned());
        Ok(Proof { repository, by: self.signers_of(&tag, digest, now), tag, digest })
    }

    /// Some tag that resolves to the digest under the same rules.
    fn resolve_digest(&self, asked: &Sha256, signers: &[Signer], now: Time) -> Result<Proof, Error> {
        // What would fail for every tag is said as it is, not as "no tag has this digest".
        for signer in signers {
            self.signer_role(signer, now)?;
        }
        self.releases(now)?;
        let mut failure = None;
        for tag in self.tags_with(asked) {
            match self.resolve_tag(tag, signers, now) {
                Ok(resolved) if resolved.digest == *asked => return Ok(resolved),
                Ok(_) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| Error::DigestNotSigned { gun: self.gun.clone(), digest: asked.hex() }))
    }

    /// Every tag that any valid role signs with a digest.
    fn tags_with(&self, digest: &Sha256) -> BTreeSet<&str> {
        let delegated = self.roles.values().filter_map(|state| match &state.status {
            Status::Valid { metadata, .. } => Some(metadata.body()),
            _ => None,
        });
        std::iter::once(self.targets.body())
            .chain(delegated)
            .flat_map(|targets| &targets.targets)
            .filter(|(_, target)| target.sha256 == Ok(*digest))
            .map(|(tag, _)| tag.as_str())
            .collect()
    }

    /// The digest that is released for a tag, and by which role: `targets/releases` if it signs the tag, else `targets`.
    fn released(&self, tag: &str, now: Time) -> Result<Option<(RoleName, Sha256)>, Error> {
        if let Some(target) = self.releases(now)?.and_then(|state| state.target(tag)) {
            let role = RoleName::releases();
            let digest = usable_target(&role, tag, target)?;
            return Ok(Some((role, digest)));
        }
        let Some(target) = self.targets.body().targets.get(tag) else {
            return Ok(None);
        };
        let role = RoleName::targets();
        let digest = usable_target(&role, tag, *target)?;
        Ok(Some((role, digest)))
    }

    /// `targets/releases`, if it is delegated and published. If what it published does not verify, there is no telling
    /// what is released: falling back to `targets` would be a silent downgrade, which the Go client makes.
    fn releases(&self, now: Time) -> Result<Option<&RoleState>, Error> {
        let Some(state) = self.roles.get(&RoleName::releases()) else {
            return Ok(None);
        };
        let invalid = |cause: Error| Error::ReleasesInvalid { cause: Box::new(cause) };
        match &state.status {
            Status::NotPublished => Ok(None),
            Status::Invalid(cause) => Err(invalid(cause.clone())),
            Status::Valid { metadata, .. } => metadata.check_expiry(now).map_err(invalid).map(|()| Some(state)),
        }
    }

    /// The role of a required signer: delegated, published, valid now, and signed with the key that is asked for. That
    /// the role lists the key is not enough, as another of its keys may have signed (`docs/notary-v1.md#signers`).
    fn signer_role(&self, signer: &Signer, now: Time) -> Result<&RoleState, Error> {
        let name = || signer.name().to_owned();
        let invalid = |cause: Error| Error::SignerInvalid { signer: name(), cause: Box::new(cause) };
        let role = RoleName::signer(signer.name());
        let Some(state) = self.roles.get(&role) else {
            return Err(Error::SignerNotDelegated { gun: self.gun.clone(), signer: name() });
        };
        let metadata = match &state.status {
            Status::NotPublished => {
                return Err(Error::SignerNotPublished { gun: self.gun.clone(), signer: name() });
            }
            Status::Invalid(cause) => return Err(invalid(cause.clone())),
            Status::Valid { metadata, .. } => metadata,
        };
        metadata.check_expiry(now).map_err(invalid)?;
        if let Err(problem) = signer.key().check_time(now) {
            let unmet = Error::ThresholdNotMet { role, valid: 0, needed: 1, problem: Some(problem) };
            return Err(invalid(unmet));
        }
        let by_key = metadata.signed_by().iter().any(|key| key.same_as(signer.key()) && key.check_time(now).is_ok());
        if !by_key {
            return Err(Error::SignerKeyDidNotSign {
                gun: self.gun.clone(),
                signer: name(),
                expected: signer.key().canonical_id(),
                actual: metadata.signed_by().iter().map(|key| key.canonical_id()).collect(),
            });
        }
        Ok(state)
    }

    /// The signers whose valid files sign a tag with a digest.
    fn signers_of(&self, tag: &str, digest: Sha256, now: Time) -> Vec<SignedBy> {
        let releases = RoleName::releases();
        let signs = |state: &&RoleState| state.target(tag).is_some_and(|target| target.sha256 == Ok(digest));
        let signer = |state: &RoleState| {
            let Status::Valid { metadata, .. } = &state.status else {
                return None;
            };
            metadata.check_expiry(now).ok()?;
            let signer = state.name().as_str().strip_prefix("targets/")?.to_owned();
            Some(SignedBy { signer, keys: metadata.signed_by().iter().map(|key| key.canonical_id()).collect() })
        };
        self.roles.values().filter(|state| *state.name() != releases).filter(signs).filter_map(signer).collect()
    }

    fn not_signed(&self, tag: &str, role: Option<RoleName>) -> Error {
        Error::NotSigned { gun: self.gun.clone(), tag: tag.to_owned(), role }
    }
}

fn usable_target(role: &RoleName, tag: &str, target: Target) -> Result<Sha256, Error> {
    let bad = |problem| Error::BadTarget { role: role.clone(), tag: tag.to_owned(), problem };
    target.sha256.map_err(bad)
}
