//! What a policy demands of the signatures of a digest.

use std::collections::{BTreeMap, BTreeSet};

use countersign_image::shown;
use thiserror::Error;

use crate::key::Key;
use crate::limits::MAX_KEYS;

/// Why something cannot be demanded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DemandError {
    /// No keys: everything would be signed by all of them.
    #[error("there are no keys")]
    NoKeys,
    /// More keys than can be tried.
    #[error("there are {given} keys, and {MAX_KEYS} is the limit")]
    TooManyKeys {
        /// How many.
        given: usize,
    },
    /// A threshold of nothing is met by nothing.
    #[error("threshold is 0, which would be met without any signature")]
    NoThreshold,
    /// More than all keys can never sign.
    #[error("threshold is {threshold}, but there are only {keys} keys")]
    ThresholdTooHigh {
        /// As given.
        threshold: usize,
        /// How many keys there are.
        keys: usize,
    },
    /// One key under two names would count as two.
    #[error("{one} and {other} are one and the same key")]
    SameKey {
        /// A name.
        one: String,
        /// The other name.
        other: String,
    },
    /// One name for two keys: which of them is required, and who signed?
    #[error("two keys have the name {0}")]
    SameName(String),
    /// Who is required must have a key.
    #[error("{} is required, but is none of the keys", shown(.0))]
    UnknownRequired(String),
}

/// What a policy demands. One that nothing could meet, or that nothing would have to meet, cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Demand {
    keys: Vec<Key>,
    threshold: usize,
    required: Vec<String>,
    annotations: BTreeMap<String, String>,
}

impl Demand {
    /// Takes the keys, how many of them must have signed (all if it is not said), the names of those that must have signed
    /// in any case, and the claims that each signature must make to count.
    ///
    /// # Errors
    /// What makes no sense, or would demand less than it seems to.
    pub fn new(
        keys: Vec<Key>,
        threshold: Option<usize>,
        required: Vec<String>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Self, DemandError> {
        if keys.is_empty() {
            return Err(DemandError::NoKeys);
        }
        if keys.len() > MAX_KEYS {
            return Err(DemandError::TooManyKeys { given: keys.len() });
        }
        for (index, key) in keys.iter().enumerate() {
            for before in &keys[..index] {
                if before.name() == key.name() {
                    return Err(DemandError::SameName(key.name().to_owned()));
                }
                if before.material() == key.material() {
                    return Err(DemandError::SameKey { one: before.name().to_owned(), other: key.name().to_owned() });
                }
            }
        }
        let threshold = threshold.unwrap_or(keys.len());
        if threshold == 0 {
            return Err(DemandError::NoThreshold);
        }
        if threshold > keys.len() {
            return Err(DemandError::ThresholdTooHigh { threshold, keys: keys.len() });
        }
        let names: BTreeSet<&str> = keys.iter().map(Key::name).collect();
        if let Some(unknown) = required.iter().find(|name| !names.contains(name.as_str())) {
            return Err(DemandError::UnknownRequired(unknown.clone()));
        }
        Ok(Self { keys, threshold, required, annotations })
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// How many of them must have signed.
    #[must_use]
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// Who must have signed, whoever else has.
    #[must_use]
    pub fn required(&self) -> &[String] {
        &self.required
    }

    /// Whether a key must have signed, whoever else has.
    pub(crate) fn needs(&self, name: &str) -> bool {
        self.threshold == self.keys.len() || self.required.iter().any(|required| required == name)
    }

    /// What each signature must claim to count.
    #[must_use]
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::key;

    fn demand(keys: &[Key], threshold: Option<usize>, required: &[&str]) -> Result<Demand, DemandError> {
        let required = required.iter().map(|&name| name.to_owned()).collect();
        Demand::new(keys.to_vec(), threshold, required, BTreeMap::new())
    }

    #[test]
    fn demands_that_make_no_sense() {
        let (alice, bob) = (key("alice"), key("bob"));
        let both = [alice.clone(), bob.clone()];
        assert_eq!(demand(&[], None, &[]), Err(DemandError::NoKeys));
        assert_eq!(demand(&[], Some(0), &[]), Err(DemandError::NoKeys));
        assert_eq!(demand(&both, Some(0), &[]), Err(DemandError::NoThreshold));
        assert_eq!(demand(&both, Some(3), &[]), Err(DemandError::ThresholdTooHigh { threshold: 3, keys: 2 }));
        assert_eq!(demand(&both, Some(1), &["carol"]), Err(DemandError::UnknownRequired("carol".into())));
        let many: Vec<_> = (0..=MAX_KEYS).map(|index| key(&format!("k{index}"))).collect();
        assert_eq!(demand(&many, Some(1), &[]), Err(DemandError::TooManyKeys { given: MAX_KEYS + 1 }));
        assert!(demand(&many[1..], Some(1), &[]).is_ok());
        assert_eq!(demand(&[alice.clone(), alice], None, &[]), Err(DemandError::SameName("alice".into())));
        assert_eq!(demand(&both, None, &[]).unwrap().threshold(), 2);
    }

    #[test]
    fn two_names_one_key() {
        let pem = forge::Key::p256("alice").pem();
        let twice = [key("alice"), Key::from_pem("bob", pem.as_bytes()).unwrap()];
        for threshold in [None, Some(1), Some(2)] {
            let expected = Err(DemandError::SameKey { one: "alice".into(), other: "bob".into() });
            assert_eq!(demand(&twice, threshold, &[]), expected);
        }
    }
}
