//! The one place that verifies signatures and counts them: nothing else makes a [`Fact`] or a [`Proof`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use countersign_image::Sha256;
use countersign_keys::{Algorithm, Fingerprint, Material, Scheme};
use thiserror::Error;

use crate::bundle::{Bundle, BundleProblem};
use crate::demand::Demand;
use crate::document;
use crate::error::Error;
use crate::found::Found;
use crate::key::Key;
use crate::limits::{MAX_BUNDLE_BYTES, MAX_PAYLOAD_BYTES, MAX_SIGNATURE_BYTES, MAX_VERIFICATIONS};
use crate::manifest::{Form, Layer};
use crate::payload::{Payload, PayloadProblem};
use crate::statement::{self, StatementProblem};

/// Why something that was found is no fact. It is told, and never counts; it never keeps others from counting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Skipped {
    /// A layer of a type that holds no signature in its form.
    #[error("a layer is of another type")]
    LayerType,
    /// A layer of simple signing without a signature.
    #[error("a layer has no signature beside it")]
    NoSignature,
    /// A signature that is no base64, or longer than any.
    #[error("a signature is not base64 of 1 to {MAX_SIGNATURE_BYTES} bytes")]
    SignatureText,
    /// A blob longer than any of its sort.
    #[error("a {what} has more than {limit} bytes")]
    TooLong {
        /// `payload` or `bundle`.
        what: &'static str,
        /// How many it may have.
        limit: usize,
    },
    /// The blob is not the one that the manifest lists.
    #[error("the bytes of a blob are not those that its manifest lists")]
    OtherBytes,
    /// A bundle that holds no signature of an image.
    #[error("a bundle is not taken: {0}")]
    Bundle(#[from] BundleProblem),
    /// None of the keys made the signature. What is said of it beside that is as it was found, verified by nobody.
    #[error("a signature is by none of the keys")]
    OtherKeys {
        /// Which key the bundle says it is by.
        hint: Option<String>,
        /// The predicate of the statement.
        predicate: Option<String>,
        /// One of the keys is an Ed25519 key, and the signature could be one of its Ed25519ph signatures.
        perhaps_ed25519ph: bool,
    },
    /// So many signatures were computed that no more are.
    #[error("a signature was not looked at: {MAX_VERIFICATIONS} is the limit for one review")]
    BudgetSpent,
    /// A key signed a payload that does not do.
    #[error("a signature by {by} is not taken: {problem}")]
    Payload {
        /// Whose key.
        by: String,
        /// Why not.
        problem: PayloadProblem,
    },
    /// A key signed a statement that is no signature of the image.
    #[error("a statement by {by} is not taken: {problem}")]
    Statement {
        /// Whose key.
        by: String,
        /// Why not.
        problem: StatementProblem,
    },
}

/// How many signatures may still be computed: a review has one budget for all its images. A clone is the same budget.
#[derive(Debug, Clone)]
pub struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// That of one review.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(MAX_VERIFICATIONS)))
    }

    /// Takes one.
    fn spend(&self) -> Result<(), Skipped> {
        let spent = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        spent.map(|_| ()).map_err(|_| Skipped::BudgetSpent)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

/// A signature that can be verified: a layer, and the blob that it lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    form: Form,
    signature: Vec<u8>,
    content: Content<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content<'a> {
    Payload(&'a [u8]),
    Bundle(Bundle),
}

impl<'a> Candidate<'a> {
    /// Takes a layer and its blob.
    ///
    /// # Errors
    /// Other bytes than the layer lists, and what holds no signature.
    pub fn new(layer: &Layer, blob: &'a [u8]) -> Result<Self, Skipped> {
        let signature = before_fetching(layer)?;
        if !layer.is(blob) {
            return Err(Skipped::OtherBytes);
        }
        if let Some(signature) = signature {
            return Ok(Self { form: layer.form, signature, content: Content::Payload(blob) });
        }
        let bundle = Bundle::parse(blob)?;
        Ok(Self { form: layer.form, signature: bundle.signature.clone(), content: Content::Bundle(bundle) })
    }

    /// What the signature is over.
    fn message(&self) -> Cow<'_, [u8]> {
        match &self.content {
            Content::Payload(bytes) => Cow::Borrowed(bytes),
            Content::Bundle(bundle) => Cow::Owned(statement::pae(bundle.payload_type, &bundle.payload)),
        }
    }

    fn hint(&self) -> Option<&str> {
        match &self.content {
            Content::Payload(_) => None,
            Content::Bundle(bundle) => bundle.hint.as_deref(),
        }
    }
}

/// What can be said of a layer before its blob is there; with the signature, where the layer has it.
pub(crate) fn before_fetching(layer: &Layer) -> Result<Option<Vec<u8>>, Skipped> {
    if !layer.is_candidate() {
        return Err(Skipped::LayerType);
    }
    let (what, limit) = match layer.form {
        Form::Bundle => ("bundle", MAX_BUNDLE_BYTES),
        Form::SigTag | Form::SigReferrer => ("payload", MAX_PAYLOAD_BYTES),
    };
    if layer.size > limit as u64 {
        return Err(Skipped::TooLong { what, limit });
    }
    if layer.form == Form::Bundle {
        return Ok(None);
    }
    let text = layer.signature.as_deref().filter(|text| !text.is_empty()).ok_or(Skipped::NoSignature)?;
    // Line breaks are no part of base64, and Go passes over just these two.
    let text: String = text.chars().filter(|character| !matches!(character, '\r' | '\n')).collect();
    let signature = document::base64(&text).ok_or(Skipped::SignatureText)?;
    if signature.is_empty() || signature.len() > MAX_SIGNATURE_BYTES {
        return Err(Skipped::SignatureText);
    }
    Ok(Some(signature))
}

/// That a key signed a digest. Only [`fact`] makes one; it stays true for ever, whatever policies say of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    digest: Sha256,
    material: Material,
    form: Form,
    claims: BTreeMap<String, String>,
    docker_reference: Option<String>,
}

impl Fact {
    /// What was signed.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        self.digest
    }

    /// By which key.
    #[must_use]
    pub fn material(&self) -> &Material {
        &self.material
    }

    /// In which form.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// What was claimed under the same signature (`cosign sign -a NAME=VALUE`).
    #[must_use]
    pub fn claims(&self) -> &BTreeMap<String, String> {
        &self.claims
    }

    /// The repository for which the signature was made, where its form has that. Copies keep it, so it decides nothing.
    #[must_use]
    pub fn docker_reference(&self) -> Option<&str> {
        self.docker_reference.as_deref()
    }
}

/// Verifies a signature, and only then reads what was signed.
///
/// # Errors
/// Why it is no fact.
pub fn fact(digest: Sha256, candidate: &Candidate<'_>, keys: &[Key], budget: &Budget) -> Result<Fact, Skipped> {
    let key = signer(candidate, keys, budget)?;
    let by = || key.name().to_owned();
    let (claims, docker_reference) = match &candidate.content {
        Content::Payload(bytes) => {
            let payload = Payload::parse(bytes, digest).map_err(|problem| Skipped::Payload { by: by(), problem })?;
            (payload.claims, Some(payload.docker_reference))
        }
        Content::Bundle(bundle) => {
            let claims = statement::claims(&bundle.payload, digest);
            (claims.map_err(|problem| Skipped::Statement { by: by(), problem })?, None)
        }
    };
    Ok(Fact { digest, material: key.material().clone(), form: candidate.form, claims, docker_reference })
}

/// The key that made the signature. The one that a bundle hints at is tried first; the hint decides nothing else.
fn signer<'k>(candidate: &Candidate<'_>, keys: &'k [Key], budget: &Budget) -> Result<&'k Key, Skipped> {
    let is_hinted = |key: &Key| candidate.hint() == Some(key.fingerprint().base64().as_str());
    let (hinted, others): (Vec<&Key>, Vec<&Key>) = keys.iter().partition(|key| is_hinted(key));
    let message = candidate.message();
    for key in hinted.iter().chain(&others) {
        for scheme in schemes(key.material().algorithm(), &candidate.signature) {
            budget.spend()?;
            if key.material().verify(*scheme, &message, &candidate.signature) {
                return Ok(key);
            }
        }
    }
    let meant = if candidate.hint().is_some() { &hinted } else { &others };
    let ed25519 = meant.iter().any(|key| key.material().algorithm() == Algorithm::Ed25519);
    Err(Skipped::OtherKeys {
        hint: candidate.hint().map(str::to_owned),
        // Read although nobody vouches for it, and after the last try: it only tells an attestation from a signature.
        predicate: match &candidate.content {
            Content::Payload(_) => None,
            Content::Bundle(bundle) => statement::said_predicate(&bundle.payload),
        },
        perhaps_ed25519ph: ed25519 && candidate.signature.len() == ED25519_BYTES,
    })
}

/// RFC 8032; those of Ed25519ph have as many.
const ED25519_BYTES: usize = 64;

/// How a key may have signed, the likeliest first.
///
/// cosign signs with the hash of the curve's size; its older versions and containers/image use SHA-256 on all curves. It
/// is no downgrade: whoever has the key made either. Some KMS give ECDSA signatures as r and s of fixed width, which Go
/// takes too. RSA-PSS is what some KMS keys are made for.
fn schemes(algorithm: Algorithm, signature: &[u8]) -> &'static [Scheme] {
    use Scheme::{
        EcdsaSha256Der, EcdsaSha256Fixed, EcdsaSha384Der, EcdsaSha384Fixed, EcdsaSha512Der, EcdsaSha512Fixed, Ed25519,
        RsaPkcs1Sha256, RsaPssSha256,
    };
    // A signature in DER can be as long as one of fixed width, so that both are tried where both could be.
    let in_der = signature.first() == Some(&0x30);
    let (der, fixed, both, width): (&[Scheme], &[Scheme], &[Scheme], usize) = match algorithm {
        Algorithm::Rsa => return &[RsaPkcs1Sha256, RsaPssSha256],
        Algorithm::Ed25519 => return &[Ed25519],
        Algorithm::P256 => (&[EcdsaSha256Der], &[EcdsaSha256Fixed], &[EcdsaSha256Der, EcdsaSha256Fixed], 32),
        Algorithm::P384 => (
            &[EcdsaSha384Der, EcdsaSha256Der],
            &[EcdsaSha384Fixed, EcdsaSha256Fixed],
            &[EcdsaSha384Der, EcdsaSha256Der, EcdsaSha384Fixed, EcdsaSha256Fixed],
            48,
        ),
        Algorithm::P521 => (
            &[EcdsaSha512Der, EcdsaSha256Der],
            &[EcdsaSha512Fixed, EcdsaSha256Fixed],
            &[EcdsaSha512Der, EcdsaSha256Der, EcdsaSha512Fixed, EcdsaSha256Fixed],
            66,
        ),
    };
    match (in_der, signature.len() == 2 * width) {
        (true, true) => both,
        (true, false) => der,
        (false, true) => fixed,
        (false, false) => &[],
    }
}

/// That a digest is signed as was demanded. Only [`judge`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    repository: String,
    digest: Sha256,
    by: Vec<SignedBy>,
}

/// Who signed, and with which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBy {
    /// The name that the policy has for the key.
    pub signer: String,
    /// The key.
    pub key: Fingerprint,
}

impl Proof {
    /// The repository of the image that was asked about: what is proven for one says nothing of another.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        self.digest
    }

    /// All keys of the demand that signed it with the claims that were demanded, required or not.
    #[must_use]
    pub fn by(&self) -> &[SignedBy] {
        &self.by
    }
}

/// Whether facts are what is demanded of a digest. What counts are keys, which a [`Demand`] has once each: not signatures,
/// layers or names. A signature counts with its own claims only.
///
/// # Errors
/// Why not, with what was found.
pub fn judge(repository: &str, digest: Sha256, demand: &Demand, facts: &[Fact], found: &Found) -> Result<Proof, Error> {
    let claimed = |fact: &Fact| demand.annotations().iter().all(|(name, value)| fact.claims.get(name) == Some(value));
    let (mut by, mut without_claims, mut not) = (Vec::new(), Vec::new(), Vec::new());
    for key in demand.keys() {
        let mut own = facts.iter().filter(|fact| fact.digest == digest && fact.material == *key.material()).peekable();
        let signed = own.peek().is_some();
        if own.any(claimed) {
            by.push(key);
        } else if signed {
            without_claims.push(key.name().to_owned());
        } else {
            not.push(key.name().to_owned());
        }
    }
    let enough = by.len() >= demand.threshold();
    let all_required = without_claims.iter().chain(&not).all(|name| !demand.needs(name));
    if enough && all_required {
        let by = by.into_iter().map(|key| SignedBy { signer: key.name().to_owned(), key: key.fingerprint() }).collect();
        return Ok(Proof { repository: repository.to_owned(), digest, by });
    }
    let by: Vec<String> = by.into_iter().map(|key| key.name().to_owned()).collect();
    Err(Error::of(digest, demand, by, without_claims, not, found))
}
