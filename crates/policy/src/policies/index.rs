//! Finds the few entries that may match an image among thousands: by the host, then by how the path begins and ends.
//!
//! It decides nothing. What it hands out is compared in full by whoever asks; it must only never leave out an entry that matches.

use std::cmp::Ordering;
use std::collections::HashMap;

use countersign_image::ImageReference;

use crate::pattern::{Pattern, Shape};

/// Numbers of entries, the least first.
type Numbers = Vec<usize>;

/// Entries, by the names that they may match.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Those for every image.
    everywhere: Numbers,
    /// Those for one host.
    hosts: HashMap<Box<str>, Paths>,
    /// Those with a wildcard in the host, by what is before its first and behind its last `*`.
    wild_hosts: Between<Paths>,
    /// See [`Self::most`].
    most: usize,
}

/// Entries for a host, or for some.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, Numbers>,
    wild: Between<Numbers>,
}

/// Things by the beginning and then by the end that a text must have.
type Between<T> = Affixes<Affixes<T, true>, false>;

impl Index {
    /// Takes entries in an order in which numbers are given to them, from 0.
    pub(super) fn new<'a>(patterns: impl Iterator<Item = &'a Pattern>) -> Self {
        let mut everywhere = Numbers::new();
        let (mut hosts, mut wild_hosts) = (HashMap::<_, PathsOf<'_>>::new(), BetweenOf::<PathsOf<'_>>::new());
        for (number, pattern) in patterns.enumerate() {
            let Some((host, path)) = pattern.shape() else {
                everywhere.push(number);
                continue;
            };
            let paths = match host {
                Shape::Exactly(host) => hosts.entry(host).or_default(),
                Shape::Between(before, behind) => wild_hosts.entry(before).or_default().entry(behind).or_default(),
            };
            match path {
                Shape::Exactly(path) => paths.exact.entry(path).or_default().push(number),
                Shape::Between(before, behind) => {
                    paths.wild.entry(before).or_default().entry(behind).or_default().push(number);
                }
            }
        }
        let hosts: HashMap<_, _> = hosts.into_iter().map(|(host, of)| (host.into(), Paths::of(of))).collect();
        let wild_hosts = between(wild_hosts, Paths::of);
        let of_one_host = hosts.values().map(Paths::most).max().unwrap_or_default();
        let of_hosts = wild_hosts.most(|ends| ends.most(Paths::most));
        let most = everywhere.len() + of_one_host + of_hosts;
        Self { everywhere, hosts, wild_hosts, most }
    }

    /// How many entries it hands out for an image at most.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Hands out all entries that may match an image, in groups: each has the least number first.
    pub(super) fn each(&self, image: &ImageReference, mut see: impl FnMut(&[usize])) {
        let (host, path) = (image.matched_host(), image.matched_path());
        if let Some(paths) = self.hosts.get(host) {
            paths.each(path, &mut see);
        }
        for paths in self.wild_hosts.of(host).flat_map(|ends| ends.of(host)) {
            paths.each(path, &mut see);
        }
        see(&self.everywhere);
    }
}

impl Paths {
    fn of(of: PathsOf<'_>) -> Self {
        let exact = of.exact.into_iter().map(|(path, numbers)| (path.into(), numbers)).collect();
        Self { exact, wild: between(of.wild, |numbers| numbers) }
    }

    fn most(&self) -> usize {
        let of_one_path = self.exact.values().map(Vec::len).max().unwrap_or_default();
        of_one_path + self.wild.most(|ends| ends.most(Vec::len))
    }

    fn each(&self, path: &str, see: &mut impl FnMut(&[usize])) {
        if let Some(numbers) = self.exact.get(path) {
            see(numbers);
        }
        self.wild.of(path).flat_map(|ends| ends.of(path)).for_each(|numbers| see(numbers));
    }
}

/// What [`Between`] is made from.
type BetweenOf<'a, T> = HashMap<&'a str, HashMap<&'a str, T>>;

/// What [`Paths`] is made from.
#[derive(Default)]
struct PathsOf<'a> {
    exact: HashMap<&'a str, Numbers>,
    wild: BetweenOf<'a, Numbers>,
}

fn between<T, U>(of: BetweenOf<'_, T>, make: impl Fn(T) -> U) -> Between<U> {
    let ends = |ends: HashMap<_, T>| Affixes::new(ends.into_iter().map(|(text, of)| (text, make(of))));
    Affixes::new(of.into_iter().map(|(text, of)| (text, ends(of))))
}

/// Things by the beginnings of texts, or `BY_END` by their ends, sorted: of all that a text begins with, the longest is the last
/// that does not sort behind the text, or one that this begins with.
#[derive(Debug)]
struct Affixes<T, const BY_END: bool>(Vec<Affix<T>>);

#[derive(Debug)]
struct Affix<T> {
    text: Box<str>,
    /// The longest other one that it begins with.
    shorter: Option<usize>,
    what: T,
}

impl<T, const BY_END: bool> Default for Affixes<T, BY_END> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const BY_END: bool> Affixes<T, BY_END> {
    fn new<'a>(things: impl Iterator<Item = (&'a str, T)>) -> Self {
        let affix = |(text, what): (&str, T)| Affix { text: text.into(), shorter: None, what };
        let mut all: Vec<_> = things.map(affix).collect();
        all.sort_by(|one, other| Self::order(&one.text, &other.text));
        // Each of these begins with the one before it, and the last one is the one that was seen last.
        let mut nested: Vec<usize> = Vec::new();
        for index in 0..all.len() {
            while nested.last().is_some_and(|last| !Self::is_affix(&all[*last].text, &all[index].text)) {
                nested.pop();
            }
            all[index].shorter = nested.last().copied();
            nested.push(index);
        }
        Self(all)
    }

    fn order(one: &str, other: &str) -> Ordering {
        if BY_END { one.bytes().rev().cmp(other.bytes().rev()) } else { one.cmp(other) }
    }

    fn is_affix(affix: &str, text: &str) -> bool {
        if BY_END { text.ends_with(affix) } else { text.starts_with(affix) }
    }

    /// All that a text begins with, the longest first.
    fn of(&self, text: &str) -> impl Iterator<Item = &T> {
        let after = self.0.partition_point(|affix| Self::order(&affix.text, text) != Ordering::Greater);
        let chain = std::iter::successors(after.checked_sub(1), |index| self.0[*index].shorter);
        let affixes = chain.map(|index| &self.0[index]);
        affixes.filter(move |affix| Self::is_affix(&affix.text, text)).map(|affix| &affix.what)
    }

    /// The most that what one text begins with counts for together.
    fn most(&self, count: impl Fn(&T) -> usize) -> usize {
        let mut sums = Vec::with_capacity(self.0.len());
        for affix in &self.0 {
            let shorter = affix.shorter.map_or(0, |index| sums[index]);
            sums.push(shorter + count(&affix.what));
        }
        sums.into_iter().max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_and_ends() {
        let texts = ["", "a", "aa", "aab", "ab", "b", "bab"];
        let all = || texts.into_iter().map(|text| (text, text));
        let (begins, ends) = (Affixes::<_, false>::new(all()), Affixes::<_, true>::new(all()));
        for text in ["", "a", "aa", "aaa", "aabc", "abc", "ac", "ba", "babab", "c", "xab", "xaab", "xb"] {
            let longest_first = |mut found: Vec<&'static str>| {
                found.sort_by_key(|affix| std::cmp::Reverse(affix.len()));
                found
            };
            let starting = texts.into_iter().filter(|affix| text.starts_with(affix)).collect();
            assert_eq!(begins.of(text).copied().collect::<Vec<_>>(), longest_first(starting), "{text}");
            let ending = texts.into_iter().filter(|affix| text.ends_with(affix)).collect();
            assert_eq!(ends.of(text).copied().collect::<Vec<_>>(), longest_first(ending), "{text}");
        }
        // "", "a", "aa" and "aab" are nested.
        assert_eq!((begins.most(|_| 1), ends.most(|text| text.len())), (4, 6));
        assert_eq!(Affixes::<&str, false>::default().of("x").count(), 0);
    }

    #[test]
    fn how_many_are_compared_at_most() {
        let most = |names: &[&str]| {
            let patterns: Vec<_> = names.iter().map(|name| Pattern::parse(name).unwrap()).collect();
            Index::new(patterns.iter()).most()
        };
        assert_eq!(most(&[]), 0);
        assert_eq!(most(&["h.io/a/*", "h.io/b/*", "g.io/a/*"]), 1);
        assert_eq!(most(&["h.io/a/*", "h.io/a/b/*", "h.io/*", "h.io/a/b:v1", "h.io/a/b:v2", "h.io/c"]), 5);
        assert_eq!(most(&["*.io/a", "*.h.io/*", "*.com/*", "*", "h.io/a"]), 4);
        assert_eq!(most(&["h.io/*a", "h.io/*b", "h.io/*c/x"]), 1);
    }
}
