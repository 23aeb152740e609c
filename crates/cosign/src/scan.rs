//! What is worth fetching of what a registry has for a digest, in which order, and what it came to.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use countersign_image::{Descriptor, Sha256};

use crate::bundle::is_bundle;
use crate::demand::Demand;
use crate::error::Error;
use crate::found::Found;
use crate::key::Key;
use crate::limits::{MAX_LAYERS, MAX_MANIFEST_BYTES, MAX_MANIFESTS};
use crate::manifest::{self, Layer, ManifestProblem};
use crate::statement::SIGNATURE;
use crate::verify::{self, Budget, Candidate, Fact, Proof, Skipped};

const COSIGN_SIGNATURE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const NOTATION_SIGNATURE: &str = "application/vnd.cncf.notary.signature";
/// What cosign 2.6 and 3.0 let registries list for a bundle (sigstore/cosign#4641).
const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";
const CREATED: &str = "org.opencontainers.image.created";

/// The look at one digest. It is given whatever comes, in whatever order, and keeps the bounds of all of it together.
///
/// What cannot be fetched is not its business: a caller that missed something must not say that it is not there.
#[derive(Debug)]
pub struct Scan {
    digest: Sha256,
    manifests_left: usize,
    layers_left: usize,
    seen: BTreeSet<Layer>,
    facts: Vec<Fact>,
    found: Found,
}

impl Scan {
    /// Begins to look for signatures of a digest.
    #[must_use]
    pub fn new(digest: Sha256) -> Self {
        Self {
            digest,
            manifests_left: MAX_MANIFESTS,
            layers_left: MAX_LAYERS,
            seen: BTreeSet::new(),
            facts: Vec::new(),
            found: Found::default(),
        }
    }

    /// Which of the manifests that refer to the digest are to be fetched, the likeliest first. What a list says of them is
    /// not signed: it orders, and only what is surely of another format is left out.
    pub fn referrers(&mut self, listed: Vec<Descriptor>) -> Vec<Descriptor> {
        let mut wanted: Vec<(usize, Descriptor)> =
            listed.into_iter().enumerate().filter(|(_, descriptor)| self.is_wanted(descriptor)).collect();
        // What stands later was added later, where nothing says when it was made: clients append to the tag's list.
        wanted.sort_by_cached_key(|(at, descriptor)| {
            (likelihood(descriptor), Reverse(created(descriptor).map(str::to_owned)), Reverse(*at))
        });
        let all = wanted.len();
        let read = all.min(self.manifests_left);
        if read < all {
            self.found.leave_out("manifests", read, all);
            let told = wanted[read..].iter().filter_map(|(_, descriptor)| descriptor.annotations.get(PREDICATE));
            for predicate in told.filter(|predicate| *predicate != SIGNATURE) {
                self.found.attestation(predicate);
            }
        }
        self.manifests_left -= read;
        wanted.into_iter().take(read).map(|(_, descriptor)| descriptor).collect()
    }

    /// Whether a manifest can hold signatures; notes it if it can not.
    fn is_wanted(&mut self, descriptor: &Descriptor) -> bool {
        let kind = descriptor.artifact_type.as_deref();
        match kind {
            Some(NOTATION_SIGNATURE) => {
                self.found.notation_signature();
                return false;
            }
            None | Some(COSIGN_SIGNATURE | EMPTY_CONFIG) => {}
            Some(kind) if is_bundle(kind) => {}
            Some(other) => {
                self.found.other_type(other);
                return false;
            }
        }
        if descriptor.size > MAX_MANIFEST_BYTES as u64 {
            self.found
                .manifest(&ManifestProblem::Document(crate::DocumentError::TooLong { limit: MAX_MANIFEST_BYTES }));
            return false;
        }
        true
    }

    /// Looks at the manifest that the tag `sha256-….sig` names, and says which of its layers are to be fetched, in which
    /// order. `media_type` is what the registry said that it is, without parameters.
    pub fn sig_tag(&mut self, bytes: &[u8], media_type: &str) -> Vec<Layer> {
        let layers = manifest::sig_tag(bytes, media_type);
        self.layers(layers)
    }

    /// The same for a manifest that [`Self::referrers`] named.
    pub fn referrer(&mut self, listed: &Descriptor, bytes: &[u8], media_type: &str) -> Vec<Layer> {
        let layers = manifest::referrer(bytes, media_type, listed, self.digest);
        self.layers(layers)
    }

    fn layers(&mut self, layers: Result<Vec<Layer>, ManifestProblem>) -> Vec<Layer> {
        let layers = match layers {
            Ok(layers) => layers,
            Err(problem) => {
                self.found.manifest(&problem);
                return Vec::new();
            }
        };
        let (mut wanted, mut here) = (Vec::new(), BTreeSet::new());
        // cosign appends, so the newest is the last.
        for layer in layers.into_iter().rev() {
            match verify::before_fetching(&layer) {
                // Listed twice, it is one signature still.
                Ok(_) if self.seen.contains(&layer) || !here.insert(layer.clone()) => {}
                Ok(_) => wanted.push(layer),
                Err(Skipped::LayerType) => self.found.other_type(&layer.media_type),
                Err(problem) => self.found.candidate(layer.form, &Err(problem)),
            }
        }
        let all = wanted.len();
        wanted.truncate(self.layers_left);
        if wanted.len() < all {
            self.found.leave_out("layers", wanted.len(), all);
        }
        self.layers_left -= wanted.len();
        self.seen.extend(wanted.iter().cloned());
        wanted
    }

    /// Looks at the blob of a layer that was named.
    pub fn blob(&mut self, layer: &Layer, blob: &[u8], keys: &[Key], budget: &Budget) {
        let candidate = Candidate::new(layer, blob);
        self.take(layer, candidate.and_then(|candidate| verify::fact(self.digest, &candidate, keys, budget)));
    }

    /// Takes what a layer came to, for callers that verify elsewhere: on another thread, for one.
    pub fn take(&mut self, layer: &Layer, result: Result<Fact, Skipped>) {
        self.found.candidate(layer.form, &result);
        self.facts.extend(result);
    }

    /// Takes note that a registry sent something that is no manifest, blob or list, and why. A denial tells it; it decides nothing.
    pub fn unusable(&mut self, why: &str) {
        self.found.unusable(why);
    }

    /// The facts so far.
    #[must_use]
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// What was found so far.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Whether the facts so far are what is demanded: the caller may stop as soon as they are.
    ///
    /// # Errors
    /// Why not, as far as is known.
    pub fn judge(&self, repository: &str, demand: &Demand) -> Result<Proof, Error> {
        verify::judge(repository, self.digest, demand, &self.facts, &self.found)
    }
}

/// 0 for what says that it is a signature, 1 for what says nothing, 2 for what says that it is an attestation.
fn likelihood(descriptor: &Descriptor) -> u8 {
    match descriptor.annotations.get(PREDICATE).map(String::as_str) {
        Some(SIGNATURE) => 0,
        None => 1,
        Some(_) => 2,
    }
}

/// When it was made, if that is a time in UTC as tools write it (RFC 3339): such texts sort as their times do.
fn created(descriptor: &Descriptor) -> Option<&str> {
    let time = descriptor.annotations.get(CREATED)?;
    (time.len() >= "2026-11-25T00:00:00Z".len() && time.ends_with('Z') && time.is_ascii()).then_some(time)
}
