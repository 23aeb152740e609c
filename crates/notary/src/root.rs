//! The root of a repository: the first one, its rotations, and pins.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_keys::Certificate;
use jiff::Timestamp as Time;

use crate::error::{Error, RootKeyProblem};
use crate::key::{KeyId, PublicKey, SignerError, read_public_key_pem};
use crate::metadata::{Metadata, RoleKeys, Root};
use crate::role::RoleName;
use crate::signed::{Offered, Trusted};

/// The most bytes a root may have. Notary reads up to 100 MiB; a root with a hundred certificates has some 150 KiB. Roots
/// are remembered whole, in a cluster in an object, which may have some 1.5 MiB.
pub(crate) const MAX_ROOT_BYTES: u64 = 512 << 10;

/// How many rotations are followed in one update. Roots live for ten years.
pub(crate) const MAX_ROTATIONS: u64 = 64;

/// Root keys of which a policy says that one must have signed the repository's root.
///
/// A key is named by its id, by the id of the bare key in its certificate (the one that `notary key list` prints), or by
/// its PEM text.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootPins(BTreeSet<KeyId>);

impl RootPins {
    /// No pins: the first root seen is remembered.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a key id in hex, or the PEM text of a public key or certificate.
    ///
    /// # Errors
    /// Text that is neither.
    pub fn add(&mut self, text: &str) -> Result<(), SignerError> {
        if let Some(id) = KeyId::from_hex(text.trim()) {
            self.0.insert(id);
            return Ok(());
        }
        let key = read_public_key_pem(text.as_bytes())?;
        self.0.insert(key.id());
        self.0.insert(key.canonical_id());
        Ok(())
    }

    /// Adds those of another set.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn holds(&self, key: &RootKey) -> bool {
        self.0.contains(&key.id) || self.0.contains(&key.canonical_id)
    }
}

/// A key that signed a root, by both of its ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootKey {
    /// The id under which the root lists it.
    pub id: KeyId,
    /// The id of the bare key.
    pub canonical_id: KeyId,
}

/// What is kept of each root that was verified on the way to the present one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRecord {
    /// Its version.
    pub version: u64,
    /// How many keys had to sign it.
    pub threshold: u64,
    /// The keys that did.
    pub keys: Vec<RootKey>,
}

impl RootRecord {
    /// Whether both are of roots of one version that the same quorum of keys signed. (Not all keys need be the same: of a
    /// root that is recalled those count too whose certificate has expired since.)
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let common =
            self.keys.iter().filter(|key| other.keys.iter().any(|theirs| theirs.canonical_id == key.canonical_id));
        self.version == other.version
            && self.threshold == other.threshold
            && common.count() as u64 >= self.threshold.max(1)
    }
}

/// A verified root, and the chain of roots that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRoot {
    trusted: Trusted<Root>,
    bytes: Arc<[u8]>,
    lineage: Vec<RootRecord>,
    signatures: usize,
}

impl KnownRoot {
    /// The root.
    #[must_use]
    pub fn trusted(&self) -> &Trusted<Root> {
        &self.trusted
    }

    /// The file as it came, to be remembered across restarts.
    #[must_use]
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// The roots that led here, oldest first; the last is the present one.
    #[must_use]
    pub fn lineage(&self) -> &[RootRecord] {
        &self.lineage
    }

    /// Believes the first root that is seen of a repository: its keys are certificates for the repository, and enough of
    /// them signed it (`trustpinning/certs.go` of Notary).
    pub(crate) fn first(gun: &str, bytes: &[u8], now: Time) -> Result<Self, Error> {
        let offered = Offered::<Root>::read(&RoleName::root(), bytes, MAX_ROOT_BYTES)?;
        let keys = usable_root_keys(gun, &offered.unverified().root, Some(now))?;
        let signatures = offered.signature_count();
        let trusted = offered.verify(&keys, Some(now))?;
        trusted.check_expiry(now)?;
        Ok(Self::new(trusted, bytes, Vec::new(), signatures))
    }

    /// Believes a root that was verified and written down before. Its expiry is looked at when it is used.
    pub(crate) fn recall(gun: &str, bytes: &[u8], lineage: &[RootRecord]) -> Result<Self, Error> {
        let offered = Offered::<Root>::read(&RoleName::root(), bytes, MAX_ROOT_BYTES)?;
        let keys = usable_root_keys(gun, &offered.unverified().root, None)?;
        let signatures = offered.signature_count();
        let trusted = offered.verify(&keys, None)?;
        let version = trusted.body().version();
        let before = lineage.iter().filter(|record| record.version < version).cloned().collect();
        Ok(Self::new(trusted, bytes, before, signatures))
    }

    /// Believes the next root: signed by a threshold of this root's keys, and by a threshold of its own. A jump over a
    /// version is never accepted, though the Go client takes one. The expiry of a root that is
    /// itself replaced (`Link::Intermediate`) is not held against it; its certificates must be in time, as for the Go client
    /// (`docs/notary-v1.md#rotation`).
    pub(crate) fn next(&self, gun: &str, bytes: &[u8], link: Link, now: Time) -> Result<Self, Error> {
        let offered = Offered::<Root>::read(&RoleName::root(), bytes, MAX_ROOT_BYTES)?;
        let held = self.trusted.body();
        let (from, to) = (held.version(), offered.unverified().version());
        let unchained = || Error::RootNotChained { gun: gun.to_owned(), from, to };
        if to != from + 1 || offered.check(&held.root, None).is_err() {
            return Err(unchained());
        }
        let keys = usable_root_keys(gun, &offered.unverified().root, Some(now))?;
        let signatures = offered.signature_count();
        let trusted = offered.verify(&keys, Some(now))?;
        if link == Link::Newest {
            trusted.check_expiry(now)?;
        }
        // By the keys of the former root, and by its own.
        Ok(Self::new(trusted, bytes, self.lineage.clone(), 2 * signatures))
    }

    /// Believes this same root with other signatures: signed by a threshold of its keys, like any other.
    pub(crate) fn signed_anew(&self, gun: &str, bytes: &[u8], now: Time) -> Result<Self, Error> {
        let offered = Offered::<Root>::read(&RoleName::root(), bytes, MAX_ROOT_BYTES)?;
        let keys = usable_root_keys(gun, &self.trusted.body().root, Some(now))?;
        let signatures = offered.signature_count();
        let trusted = offered.verify(&keys, Some(now))?;
        trusted.check_expiry(now)?;
        let mut before = self.lineage.clone();
        before.pop();
        Ok(Self::new(trusted, bytes, before, signatures))
    }

    /// Whether a pinned key signed this root, or one before it on the chain: for some root of the chain, as many pinned
    /// keys signed it as its threshold asks for (`docs/notary-v1.md#pins`).
    #[must_use]
    pub fn satisfies(&self, pins: &RootPins) -> bool {
        pins.is_empty()
            || self
                .lineage
                .iter()
                .any(|record| record.keys.iter().filter(|key| pins.holds(key)).count() as u64 >= record.threshold)
    }

    /// How many signatures were tried for it.
    pub(crate) fn signatures(&self) -> usize {
        self.signatures
    }

    fn new(trusted: Trusted<Root>, bytes: &[u8], mut lineage: Vec<RootRecord>, signatures: usize) -> Self {
        lineage.push(RootRecord {
            version: trusted.body().version(),
            threshold: trusted.body().root.threshold,
            keys: trusted
                .signed_by()
                .iter()
                .map(|key| RootKey { id: key.id(), canonical_id: key.canonical_id() })
                .collect(),
        });
        Self { trusted, bytes: bytes.into(), lineage, signatures }
    }
}

/// Whether two files are the same root: what is signed is the same, whatever signatures each carries (a root may be signed
/// anew without another version, which the Go client takes).
pub(crate) fn same_root(one: &[u8], other: &[u8]) -> bool {
    let content = |bytes| Offered::<Root>::read(&RoleName::root(), bytes, MAX_ROOT_BYTES).map(|root| root.content());
    one == other || content(one).is_ok_and(|one| content(other).is_ok_and(|other| one == other))
}

/// Which place in a chain of rotations a root has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// The one that is to be used.
    Newest,
    /// One that was replaced since.
    Intermediate,
}

/// The root keys that count: certificates made for the repository, one leaf each, and in time if a time is given. The
/// others are left out, and an error says what is wrong with the first of them if none is left (`docs/notary-v1.md#root`).
fn usable_root_keys(gun: &str, root: &RoleKeys, at: Option<Time>) -> Result<RoleKeys, Error> {
    let mut first_problem = None;
    let mut usable = Vec::new();
    for key in &root.keys {
        match check_root_key(gun, key, at) {
            Ok(()) => usable.push(Arc::clone(key)),
            Err(problem) => first_problem = first_problem.or(Some(problem)),
        }
    }
    if usable.is_empty() {
        let problem = first_problem.unwrap_or(RootKeyProblem::NotACertificate);
        return Err(Error::RootCertificate { gun: gun.to_owned(), problem });
    }
    Ok(RoleKeys { keys: usable, threshold: root.threshold })
}

/// Of signers' certificates less is asked: they are often made with `openssl req -x509`, and call themselves a CA.
fn check_root_key(gun: &str, key: &PublicKey, at: Option<Time>) -> Result<(), RootKeyProblem> {
    let certificate = key.certificate().map_err(RootKeyProblem::Key)?.ok_or(RootKeyProblem::NotACertificate)?;
    if !certificate.leads_bundle {
        return Err(RootKeyProblem::CertificateBundle);
    }
    if !names(certificate, gun) {
        return Err(RootKeyProblem::CertificateName);
    }
    at.map_or(Ok(()), |time| certificate.check_time(time).map_err(RootKeyProblem::Key))
}

/// Whether the common name of a certificate stands for a repository: equal, or a prefix that ends in `*`. A lone `*`, which the Go
/// client takes, stands for every repository in the world and so for none here.
fn names(certificate: &Certificate, gun: &str) -> bool {
    let Some(name) = certificate.common_name.as_deref() else {
        return false;
    };
    name == gun || name.strip_suffix('*').is_some_and(|prefix| !prefix.is_empty() && gun.starts_with(prefix))
}
