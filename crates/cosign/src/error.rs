//! Why signatures do not prove a digest, in words.

use std::collections::BTreeMap;

use countersign_image::{Sha256, shown};
use thiserror::Error;

use crate::demand::Demand;
use crate::found::Found;

/// Why there is no proof. The wording is part of the product: people search for it, and runbooks quote it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no signature.
    #[error("there is no signature of {digest}{}", found.asides(true))]
    NoSignature {
        /// The digest that was asked for.
        digest: Sha256,
        /// What there is in place of it.
        found: Box<Found>,
    },
    /// There are statements about the image, and none of them says that somebody signs it.
    #[error("{digest} has only attestations ({}){}", found.attestation_list(), found.asides(false))]
    OnlyAttestations {
        /// The digest that was asked for.
        digest: Sha256,
        /// What there is.
        found: Box<Found>,
    },
    /// There are signatures, and none of them counts as one by any of the keys.
    #[error("{}, none by {}{}", found.count(&digest.to_string()).unwrap_or_default(), any_of(keys), found.asides(true))]
    NotSignedBy {
        /// The digest that was asked for.
        digest: Sha256,
        /// The names of the keys.
        keys: Vec<String>,
        /// What there is.
        found: Box<Found>,
    },
    /// Some of the keys signed, and that is not what is demanded.
    #[error("{digest} is signed {}{}", short.told(), found.asides(true))]
    NotEnough {
        /// The digest that was asked for.
        digest: Sha256,
        /// Who signed, and who did not.
        short: Box<Shortfall>,
        /// What else there is.
        found: Box<Found>,
    },
}

/// How signatures fall short of a demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// Who signed as demanded.
    pub by: Vec<String>,
    /// Who signed without the claims that are demanded.
    pub without_claims: Vec<String>,
    /// Who must have signed, and did not.
    pub missing: Vec<String>,
    /// All names of the keys.
    pub keys: Vec<String>,
    /// How many of them must have signed.
    pub threshold: usize,
    /// The claims that are demanded.
    pub annotations: BTreeMap<String, String>,
}

impl Shortfall {
    /// What comes after `is signed`.
    fn told(&self) -> String {
        let mut parts = Vec::new();
        if !self.by.is_empty() {
            parts.push(format!("by {}", all_of(&self.by)));
        }
        if !self.without_claims.is_empty() {
            let claims: Vec<String> = self.annotations.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let annotations = if claims.len() == 1 { "annotation" } else { "annotations" };
            parts.push(format!("by {} without the {annotations} {}", all_of(&self.without_claims), all_of(&claims)));
        }
        let mut text = parts.join(" and ");
        if !self.missing.is_empty() {
            text += &format!(", but not by {}", any_of(&self.missing));
        }
        if self.by.len() < self.threshold && self.threshold < self.keys.len() {
            text += &format!(", but {} of {} must have signed", self.threshold, all_of(&self.keys));
        }
        text
    }
}

impl Error {
    pub(crate) fn of(
        digest: Sha256,
        demand: &Demand,
        by: Vec<String>,
        without_claims: Vec<String>,
        not: Vec<String>,
        found: &Found,
    ) -> Self {
        let keys: Vec<String> = demand.keys().iter().map(|key| key.name().to_owned()).collect();
        let found = Box::new(found.clone());
        if by.is_empty() && without_claims.is_empty() {
            return if found.count("").is_some() {
                Self::NotSignedBy { digest, keys, found }
            } else if found.attestations().next().is_some() {
                Self::OnlyAttestations { digest, found }
            } else {
                Self::NoSignature { digest, found }
            };
        }
        let missing = not.into_iter().filter(|name| demand.needs(name)).collect();
        let (threshold, annotations) = (demand.threshold(), demand.annotations().clone());
        let short = Box::new(Shortfall { by, without_claims, missing, keys, threshold, annotations });
        Self::NotEnough { digest, short, found }
    }

    /// The words, with the host that was asked.
    #[must_use]
    pub fn told(&self, host: &str) -> String {
        match self {
            Self::NoSignature { digest, found } => format!("{host} has no signature of {digest}{}", found.asides(true)),
            error => error.to_string(),
        }
    }

    /// What was found.
    #[must_use]
    pub fn found(&self) -> &Found {
        match self {
            Self::NoSignature { found, .. }
            | Self::OnlyAttestations { found, .. }
            | Self::NotSignedBy { found, .. }
            | Self::NotEnough { found, .. } => found,
        }
    }

    /// How near to a proof it was, to sort several reasons for a reader: 0 where the keys signed and that does not do, 1 where
    /// others did, 2 where there is nothing at all.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self {
            Self::NotEnough { .. } => 0,
            error if error.found().refused_of_keys() => 0,
            Self::NotSignedBy { .. } | Self::OnlyAttestations { .. } => 1,
            Self::NoSignature { .. } => 2,
        }
    }
}

/// `a, b and c`
fn all_of(names: &[String]) -> String {
    listed(names, "and")
}

/// `a, b or c`
fn any_of(names: &[String]) -> String {
    listed(names, "or")
}

fn listed(names: &[String], word: &str) -> String {
    let names: Vec<String> = names.iter().map(|name| shown(name)).collect();
    match names.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} {word} {last}", first.join(", ")),
    }
}
