//! What is required of an image: one proof, all of several, or one of several.

/// A tree of what is asked for, over whatever stands for one ask: what a policy says, or what it comes to for one image.
///
/// [`Requirement::all`] and [`Requirement::any`] never make one without parts; whoever judges one that has none lets it fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement<A> {
    /// This one.
    One(A),
    /// Every part, and all of them for one digest.
    All(Vec<Self>),
    /// One part is enough; of those that hold, the first counts.
    Any(Vec<Self>),
}

impl<A> Requirement<A> {
    /// All of some parts; the part itself, if there is only one. `None` if there is none: nothing is required then.
    #[must_use]
    pub fn all(mut parts: Vec<Self>) -> Option<Self> {
        if parts.len() > 1 { Some(Self::All(parts)) } else { parts.pop() }
    }

    /// One of some parts, in the order of preference. `None` if there is none: nothing can fulfil that.
    #[must_use]
    pub fn any(parts: Vec<Self>) -> Option<Self> {
        if parts.is_empty() { None } else { Some(Self::Any(parts)) }
    }

    /// Everything that is asked for, in the order of the policy.
    pub fn asks(&self) -> impl Iterator<Item = &A> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found.into_iter()
    }

    fn collect<'a>(&'a self, found: &mut Vec<&'a A>) {
        match self {
            Self::One(ask) => found.push(ask),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.collect(found)),
        }
    }

    /// For each of [`Self::asks`], in that order: the place among them of the first one of a sort that must hold beside it, if there is
    /// one.
    #[must_use]
    pub fn beside(&self, is: impl Fn(&A) -> bool) -> Vec<Option<usize>> {
        let mut found = Vec::new();
        self.collect_beside(&is, None, &mut found);
        found
    }

    fn collect_beside(&self, is: &impl Fn(&A) -> bool, outer: Option<usize>, found: &mut Vec<Option<usize>>) {
        let parts = match self {
            Self::One(_) => return found.push(outer),
            Self::All(parts) | Self::Any(parts) => parts,
        };
        let (mut beside, mut at) = (outer, found.len());
        if matches!(self, Self::All(_)) {
            for part in parts {
                if matches!(part, Self::One(ask) if is(ask)) {
                    beside = beside.or(Some(at));
                }
                at += part.asks().count();
            }
        }
        for part in parts {
            part.collect_beside(is, beside, found);
        }
    }

    /// The same tree, with something else for each ask.
    #[must_use]
    pub fn map<B>(&self, each: &mut impl FnMut(&A) -> B) -> Requirement<B> {
        match self {
            Self::One(ask) => Requirement::One(each(ask)),
            Self::All(parts) => Requirement::All(parts.iter().map(|part| part.map(each)).collect()),
            Self::Any(parts) => Requirement::Any(parts.iter().map(|part| part.map(each)).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let one = |number: u8| Requirement::One(number);
        assert_eq!(Requirement::<u8>::all(vec![]), None);
        assert_eq!(Requirement::<u8>::any(vec![]), None);
        assert_eq!(Requirement::all(vec![one(1)]), Some(one(1)));
        let tree = Requirement::all(vec![one(1), Requirement::any(vec![one(2), one(3)]).unwrap()]).unwrap();
        assert_eq!(tree.asks().copied().collect::<Vec<_>>(), [1, 2, 3]);
        // What stands beside alternatives, and within one, but not in another one.
        let both = Requirement::all(vec![one(5), one(2)]).unwrap();
        let tree_of_pairs = Requirement::any(vec![one(1), both.clone()]).unwrap();
        let even = |number: &u8| number.is_multiple_of(2);
        assert_eq!(tree.beside(even), [None, None, None]);
        assert_eq!(tree_of_pairs.beside(even), [None, Some(2), Some(2)]);
        let whole = Requirement::all(vec![tree_of_pairs, one(4)]).unwrap();
        assert_eq!(whole.beside(even), [Some(3), Some(3), Some(3), Some(3)]);
        assert_eq!(tree.map(&mut |number| number * 2).asks().copied().collect::<Vec<_>>(), [2, 4, 6]);
    }
}
