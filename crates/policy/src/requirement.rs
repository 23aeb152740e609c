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
        assert_eq!(tree.map(&mut |number| number * 2).asks().copied().collect::<Vec<_>>(), [2, 4, 6]);
    }
}
