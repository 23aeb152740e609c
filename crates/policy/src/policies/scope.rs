//! The policies that count together: those of one namespace, or those of the cluster.

use std::cmp::Reverse;
use std::sync::Arc;

use countersign_image::ImageReference;

use super::index::Index;
use super::{Applies, Match, Policy};
use crate::mode::Mode;

/// How many entries all policies of one namespace may have together: five policies of the greatest length. Who may write policies must
/// not take the memory, or the time that it takes to find an entry, for themselves.
pub(super) const MAX_ENTRIES_OF_NAMESPACE: usize = 10_000;

/// The policies that count together.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Sorted, so that the order in which they came decides nothing.
    policies: Vec<Arc<Policy>>,
    /// All entries; of those that match an image the first one applies.
    order: Vec<Place>,
    /// Where in this order those are that may match an image.
    index: Index,
    /// The first policy that cannot be used, if there is one.
    unusable: Option<usize>,
    /// Why none of the policies can be used, if there are too many entries.
    too_many: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    policy: usize,
    entry: usize,
}

impl Scope {
    /// Takes policies, at most so many entries of them.
    pub(super) fn new(mut policies: Vec<Arc<Policy>>, max_entries: usize) -> Self {
        // Policies of equal names cannot exist in a cluster, but in files: then their content decides, not their order.
        let content = |policy: &Policy| format!("{policy:?}");
        policies.sort_by(|one, other| one.name.cmp(&other.name).then_with(|| content(one).cmp(&content(other))));
        let unusable = policies.iter().position(|policy| policy.unusable.is_some());
        let entries: usize = policies.iter().map(|policy| policy.entries.len()).sum();
        let too_many = (entries > max_entries).then(|| {
            format!(
                "all policies of its namespace have {entries} entries together, and {max_entries} are the limit; put several names into one with `*`, or delete some"
            )
        });
        let (order, index) = if too_many.is_some() { Default::default() } else { indexed(&policies) };
        Self { policies, order, index, unusable, too_many }
    }

    /// The policies.
    pub(super) fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// Whether it is of these policies, and of no others: the very same ones, not such as say the same.
    pub(super) fn is_of(&self, policies: &[Arc<Policy>]) -> bool {
        let sorted = |policies: &[Arc<Policy>]| {
            let mut places: Vec<usize> = policies.iter().map(|policy| Arc::as_ptr(policy).addr()).collect();
            places.sort_unstable();
            places
        };
        self.policies.len() == policies.len() && sorted(&self.policies) == sorted(policies)
    }

    /// With how many entries an image is compared at most.
    pub(super) fn compared(&self) -> usize {
        self.index.most()
    }

    /// The policy because of which none can be used, if there is one.
    pub(super) fn unusable(&self) -> Option<Applies<'_>> {
        if let (Some(too_many), Some(first)) = (&self.too_many, self.policies.first()) {
            return Some(Applies::Unusable(first, too_many));
        }
        let policy = self.policies.get(self.unusable?)?;
        Some(Applies::Unusable(policy, policy.unusable.as_deref()?))
    }

    /// The first entry that matches an image.
    pub(super) fn first(&self, image: &ImageReference, mode: Mode) -> Option<Match<'_>> {
        let mut best = self.order.len();
        self.index.each(image, |numbers| {
            let better = numbers.iter().take_while(|number| **number < best);
            let found = better.copied().find(|number| self.at(*number).entry.matches(image, mode));
            best = found.unwrap_or(best);
        });
        (best < self.order.len()).then(|| self.at(best))
    }

    /// All entries that match an image, in their order.
    pub(super) fn all(&self, image: &ImageReference, mode: Mode) -> Vec<Match<'_>> {
        let mut found = Vec::new();
        self.index.each(image, |numbers| {
            found.extend(numbers.iter().filter(|number| self.at(**number).entry.matches(image, mode)));
        });
        found.sort_unstable();
        found.into_iter().map(|number| self.at(number)).collect()
    }

    fn at(&self, number: usize) -> Match<'_> {
        let place = self.order[number];
        let policy = self.policies[place.policy].as_ref();
        Match { policy, index: place.entry, entry: &policy.entries[place.entry] }
    }
}

/// The entries of sorted policies in the order in which they apply: the most exact first; of equals the one whose policy's name sorts
/// first, and then the first in it.
fn indexed(policies: &[Arc<Policy>]) -> (Vec<Place>, Index) {
    let mut order = Vec::new();
    let mut name = 0;
    for (number, policy) in policies.iter().enumerate() {
        if policies[name].name != policy.name {
            name = number;
        }
        let ranked = policy.entries.iter().enumerate().map(|(entry, found)| {
            let place = Place { policy: number, entry };
            ((Reverse(found.pattern.specificity()), name, entry, number), place)
        });
        order.extend(ranked);
    }
    order.sort_unstable_by_key(|(rank, _)| *rank);
    let order: Vec<Place> = order.into_iter().map(|(_, place)| place).collect();
    let index = Index::new(order.iter().map(|place| &policies[place.policy].entries[place.entry].pattern));
    (order, index)
}
