//! Answers that are believed for a moment.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

/// How many answers are kept in all, and how many of one namespace. They are of the last seconds.
const MAX_ANSWERS: (usize, usize) = (1024, 64);

struct Answer<V> {
    value: V,
    until: Instant,
    party: Arc<str>,
}

/// The answers. Whoever fills this up makes others ask again, and those of their own namespace first.
pub(super) struct Recent<K, V>(HashMap<K, Answer<V>>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// An answer that is still believed.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let now = Instant::now();
        self.0.get(key).filter(|answer| now < answer.until).map(|answer| &answer.value)
    }

    /// Keeps an answer to a question of a namespace, until some time.
    pub(super) fn keep(&mut self, key: K, party: &str, value: V, until: Instant) {
        let now = Instant::now();
        self.0.retain(|_, answer| now < answer.until);
        self.0.remove(&key);
        if now >= until {
            return;
        }
        let of = |this: &Self, party: &str| this.0.values().filter(|answer| &*answer.party == party).count();
        if of(self, party) >= MAX_ANSWERS.1 {
            self.drop_first_of(party);
        }
        if self.0.len() >= MAX_ANSWERS.0 {
            let mut shares: HashMap<Arc<str>, usize> = HashMap::new();
            for answer in self.0.values() {
                *shares.entry(Arc::clone(&answer.party)).or_default() += 1;
            }
            if let Some((largest, _)) = shares.into_iter().max_by_key(|(_, count)| *count) {
                self.drop_first_of(&largest);
            }
        }
        self.0.insert(key, Answer { value, until, party: party.into() });
    }

    /// Drops the answer of a namespace that is believed no longer first.
    fn drop_first_of(&mut self, party: &str) {
        let own = self.0.iter().filter(|(_, answer)| &*answer.party == party);
        let first = own.min_by_key(|(_, answer)| answer.until).map(|(key, _)| key.clone());
        if let Some(first) = first {
            self.0.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_greedy_namespace_loses_its_own() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        let day = Duration::from_secs(24 * 3600);
        recent.keep((0, 0), "honest", "value", now + day);
        for index in 1..200 {
            recent.keep((1, index), "greedy", "value", now + day + Duration::from_secs(index));
            assert!(recent.0.len() <= 1 + MAX_ANSWERS.1);
        }
        assert!(recent.get(&(0, 0)).is_some() && recent.get(&(1, 1)).is_none() && recent.get(&(1, 199)).is_some());
        for party in 2..100 {
            for index in 0..20 {
                recent.keep((party, index), &party.to_string(), "value", now + day * 2);
            }
        }
        assert_eq!(recent.0.len(), MAX_ANSWERS.0);
        assert!(recent.get(&(0, 0)).is_some());
    }

    #[test]
    fn what_is_over_is_over() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        recent.keep(1, "a", "value", now);
        assert!(recent.get(&1).is_none() && recent.0.is_empty());
    }
}
