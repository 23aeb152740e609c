//! From bytes to proof: the one place that reads a signed file, counts its signatures and makes a [`Trusted`].

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use countersign_image::Sha256;
use countersign_json::{self as json, Value};
use countersign_keys::{KeyProblem, Scheme};
use jiff::Timestamp as Time;

use crate::error::Error;
use crate::key::{self, KeyId, PublicKey};
use crate::metadata::{FileMeta, Members, Metadata, RoleKeys};
use crate::role::RoleName;

/// How many signatures one file may carry. Thresholds above a handful are unheard of; the bound keeps a hostile file
/// from costing more than some milliseconds.
pub(crate) const MAX_SIGNATURES: usize = 256;

/// How many wrong signatures of one key are tried. A key of somebody honest has none; to try each of thousands would let whoever
/// serves them take a processor for as long as they like.
const MAX_WRONG_SIGNATURES: u32 = 4;

/// How many wrong signatures each key had so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wrong(HashMap<KeyId, u32>);

impl Wrong {
    /// Whether further signatures of a key are not worth trying.
    fn is_spent(&self, key: KeyId) -> bool {
        self.0.get(&key).is_some_and(|wrong| *wrong >= MAX_WRONG_SIGNATURES)
    }

    fn add(&mut self, key: KeyId) {
        *self.0.entry(key).or_default() += 1;
    }
}

/// Metadata whose signatures met the threshold of its role. Holding one is the proof: nothing outside this module can
/// make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted<T> {
    role: RoleName,
    body: T,
    file: FileHash,
    content: Sha256,
    signed_by: Vec<Arc<PublicKey>>,
    threshold: u64,
}

/// The hashes of a file's bytes as they came, and how many there were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileHash {
    sha256: Sha256,
    sha512: Vec<u8>,
    length: usize,
}

impl FileHash {
    fn of(bytes: &[u8]) -> Self {
        let sha512 = digest::digest(&digest::SHA512, bytes).as_ref().to_vec();
        Self { sha256: Sha256::of(bytes), sha512, length: bytes.len() }
    }

    /// The first of the hashes in `meta` that is not this file's.
    fn differs_from(&self, meta: &FileMeta) -> Option<&'static str> {
        if self.sha256.bytes()[..] != meta.sha256[..] {
            return Some("sha256");
        }
        let other = meta.sha512.as_ref().is_some_and(|hash| *hash != self.sha512);
        other.then_some("sha512")
    }
}

impl<T: Metadata> Trusted<T> {
    /// The role whose file it is.
    #[must_use]
    pub fn role(&self) -> &RoleName {
        &self.role
    }

    /// What the file says.
    #[must_use]
    pub fn body(&self) -> &T {
        &self.body
    }

    /// How many bytes the file had.
    pub(crate) fn length(&self) -> usize {
        self.file.length
    }

    /// The keys that signed it, each once, whatever forms it is listed in.
    #[must_use]
    pub fn signed_by(&self) -> &[Arc<PublicKey>] {
        &self.signed_by
    }

    /// sha256 of the canonical form of what was signed: the same for two files that differ only in their signatures.
    #[must_use]
    pub fn content(&self) -> Sha256 {
        self.content
    }

    /// Whether the file is the one that another names.
    pub(crate) fn is(&self, meta: &FileMeta) -> bool {
        self.file.differs_from(meta).is_none()
    }

    /// Fails once the file has expired, or too few of the certificates that signed it are still valid.
    pub(crate) fn check_expiry(&self, now: Time) -> Result<(), Error> {
        let expires = self.body.expires();
        if expires.is_none_or(|expires| expires <= now) {
            return Err(Error::Expired { role: self.role.clone(), expired: expires });
        }
        let valid = self.signed_by.iter().filter(|key| key.check_time(now).is_ok()).count();
        if (valid as u64) < self.threshold {
            let problem = self.signed_by.iter().find_map(|key| key.check_time(now).err());
            return Err(Error::ThresholdNotMet { role: self.role.clone(), valid, needed: self.threshold, problem });
        }
        Ok(())
    }
}

/// A signed file, read but not yet believed.
pub(crate) struct Offered<T> {
    role: RoleName,
    body: T,
    file: FileHash,
    canonical: Vec<u8>,
    signatures: Vec<Signature>,
}

struct Signature {
    key_id: Option<KeyId>,
    scheme: Option<Scheme>,
    bytes: Vec<u8>,
}

impl<T: Metadata> Offered<T> {
    /// Reads a file that nothing else names: a root or a timestamp by its plain name.
    pub(crate) fn read(role: &RoleName, bytes: &[u8], limit: u64) -> Result<Self, Error> {
        if bytes.len() as u64 > limit {
            return Err(Error::TooLong { role: role.clone(), limit });
        }
        Self::parse(role, bytes, FileHash::of(bytes))
    }

    /// Reads a file that `by` names: its length is a cap, and its hashes must all be right, before anything is parsed.
    pub(crate) fn read_named(role: &RoleName, bytes: &[u8], meta: &FileMeta, by: &RoleName) -> Result<Self, Error> {
        if bytes.len() as u64 > meta.length {
            return Err(Error::TooLong { role: role.clone(), limit: meta.length });
        }
        let file = FileHash::of(bytes);
        if let Some(algorithm) = file.differs_from(meta) {
            return Err(Error::HashMismatch { role: role.clone(), algorithm, by: by.clone() });
        }
        Self::parse(role, bytes, file)
    }

    fn parse(role: &RoleName, bytes: &[u8], file: FileHash) -> Result<Self, Error> {
        let bad = |problem| Error::Json { role: role.clone(), problem };
        let text = json::decode(bytes);
        let document = json::parse(&text).map_err(bad)?;
        let members = Members::of(role, "", &document, &["signed", "signatures"])?;
        let signed = members.required("signed")?;
        let signatures = members.list("signatures")?;
        if signatures.len() > MAX_SIGNATURES {
            let found = signatures.len();
            return Err(Error::TooManySignatures { role: role.clone(), found, limit: MAX_SIGNATURES });
        }
        // An empty list condemns the repository, unlike signatures that are merely wrong (`VerifySignatures` in `tuf/signed/verify.go` of Notary).
        if signatures.is_empty() {
            return Err(Error::MissingMember { role: role.clone(), member: "signatures".to_owned() });
        }
        Ok(Self {
            role: role.clone(),
            body: T::read(role, signed)?,
            file,
            canonical: json::canonical(signed).map_err(bad)?,
            signatures: signatures.iter().map(|value| read_signature(role, value)).collect::<Result<_, _>>()?,
        })
    }

    /// The role whose file it is.
    pub(crate) fn role(&self) -> &RoleName {
        &self.role
    }

    /// How many signatures it brings.
    pub(crate) fn signature_count(&self) -> usize {
        self.signatures.len()
    }

    /// sha256 of the canonical form of what is signed.
    pub(crate) fn content(&self) -> Sha256 {
        Sha256::of(&self.canonical)
    }

    /// What the file says, before it is believed: its version, and of a root the keys that must have signed it.
    pub(crate) fn unverified(&self) -> &T {
        &self.body
    }

    /// The keys of `among` that made a valid signature: each once, whatever forms it is listed in. This is the one place
    /// where signatures are counted (`docs/notary-v1.md#signatures`). With a time, certificates that are not valid then do not count.
    fn signers(
        &self,
        among: &[Arc<PublicKey>],
        at: Option<Time>,
        wrong: &mut Wrong,
    ) -> (Vec<Arc<PublicKey>>, Option<KeyProblem>) {
        let mut signers: Vec<Arc<PublicKey>> = Vec::new();
        let mut first_problem = None;
        for signature in &self.signatures {
            let (Some(key_id), Some(scheme)) = (signature.key_id, signature.scheme) else {
                continue;
            };
            let Some(key) = among.iter().find(|key| key.id() == key_id) else {
                continue;
            };
            if signers.iter().any(|signer| signer.same_as(key)) || wrong.is_spent(key_id) {
                continue;
            }
            let in_time = at.map_or(Ok(()), |time| key.check_time(time));
            match in_time.and_then(|()| key.verify(scheme, &self.canonical, &signature.bytes)) {
                Ok(true) => signers.push(Arc::clone(key)),
                Ok(false) => wrong.add(key_id),
                Err(problem) => first_problem = first_problem.or(Some(problem)),
            }
        }
        (signers, first_problem)
    }

    /// Checks the signatures against the keys and threshold of the role. With a time, certificates must be valid then.
    pub(crate) fn check(&self, keys: &RoleKeys, at: Option<Time>) -> Result<Vec<Arc<PublicKey>>, Error> {
        self.check_counting(keys, at, &mut Wrong::default())
    }

    fn check_counting(
        &self,
        keys: &RoleKeys,
        at: Option<Time>,
        wrong: &mut Wrong,
    ) -> Result<Vec<Arc<PublicKey>>, Error> {
        let (signers, problem) = self.signers(&keys.keys, at, wrong);
        if (signers.len() as u64) < keys.threshold {
            return Err(Error::ThresholdNotMet {
                role: self.role.clone(),
                valid: signers.len(),
                needed: keys.threshold,
                problem,
            });
        }
        Ok(signers)
    }

    /// Believes the file if a threshold of the role's keys signed it.
    pub(crate) fn verify(self, keys: &RoleKeys, at: Option<Time>) -> Result<Trusted<T>, Error> {
        self.verify_counting(keys, at, &mut Wrong::default())
    }

    /// The same, where `wrong` says how many wrong signatures each key had in the files before this one.
    pub(crate) fn verify_counting(
        self,
        keys: &RoleKeys,
        at: Option<Time>,
        wrong: &mut Wrong,
    ) -> Result<Trusted<T>, Error> {
        let signed_by = self.check_counting(keys, at, wrong)?;
        let content = self.content();
        let Self { role, body, file, .. } = self;
        Ok(Trusted { role, body, file, content, signed_by, threshold: keys.threshold })
    }
}

fn read_signature(role: &RoleName, value: &Value<'_>) -> Result<Signature, Error> {
    let members = Members::of(role, "signatures", value, &["keyid", "method", "sig"])?;
    Ok(Signature {
        key_id: KeyId::from_hex(members.text("keyid")?),
        scheme: key::scheme(members.text("method")?),
        bytes: members.bytes("sig")?,
    })
}
