//! Which images of an object need no new proof, because they stand unchanged in an object that was reviewed.

use std::collections::{BTreeMap, HashMap, HashSet};

use countersign_image::ImageReference;

use crate::workload::{ContainerImage, Workload};

/// What stands unchanged, and so needs no new proof: for each place, the image that a reviewed object has there.
///
/// A place is a list and a container's name. Where a name stands twice in one object, nobody can tell which is which, so that
/// object says nothing about it. Several objects may be added; an image is excused if any of them has it at its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reviewed {
    pairs: BTreeMap<String, Vec<String>>,
}

impl Reviewed {
    /// What one object has.
    #[must_use]
    pub fn of(workload: &Workload) -> Self {
        let mut reviewed = Self::default();
        reviewed.add(workload);
        reviewed
    }

    /// Adds what a further object has.
    pub fn add(&mut self, workload: &Workload) {
        for image in workload.once() {
            self.insert(&image.path, &image.image);
        }
    }

    /// Adds all that another one has.
    pub fn extend(&mut self, other: &Self) {
        for (path, images) in &other.pairs {
            for image in images {
                self.insert(path, image);
            }
        }
    }

    fn insert(&mut self, path: &str, image: &str) {
        let images = self.pairs.entry(path.to_owned()).or_default();
        if !images.iter().any(|known| known == image) {
            images.push(image.to_owned());
        }
    }

    /// How many pairs of a place and an image there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// About how many bytes they take.
    #[must_use]
    pub fn size(&self) -> usize {
        let of = |text: &String| size_of::<String>() + text.len();
        self.pairs.iter().map(|(path, images)| of(path) + images.iter().map(of).sum::<usize>()).sum()
    }

    /// Whether some object has the image at this place.
    #[must_use]
    pub fn has(&self, path: &str, image: &str) -> bool {
        self.pairs.get(path).is_some_and(|images| images.iter().any(|known| known == image))
    }

    /// The images of an object that do not stand unchanged: all of them must be judged.
    #[must_use]
    pub fn changed(&self, workload: &Workload) -> Vec<ContainerImage> {
        let once: HashSet<&str> = workload.once().map(|image| image.path.as_str()).collect();
        let unchanged =
            |image: &&ContainerImage| once.contains(image.path.as_str()) && self.has(&image.path, &image.image);
        workload.images.iter().filter(|image| !unchanged(image)).cloned().collect()
    }

    /// The image at the same place that differs from this one in nothing but that it has a digest as well, if there is
    /// exactly one: what an `apply` of a file takes away that says nothing of the digest.
    #[must_use]
    pub fn with_digest(&self, image: &ContainerImage) -> Option<&str> {
        let asked = ImageReference::parse(&image.image).ok().filter(|asked| asked.digest().is_none())?;
        let mut found = self.pairs.get(&image.path)?.iter().filter(|before| {
            ImageReference::parse(before).is_ok_and(|before| {
                before.digest().is_some()
                    && before.tag() == asked.tag()
                    && before.written_repository() == asked.written_repository()
            })
        });
        let only = found.next()?;
        found.next().is_none().then_some(only.as_str())
    }
}

impl Workload {
    /// Its images, without those of a place that stands twice.
    fn once(&self) -> impl Iterator<Item = &ContainerImage> {
        let mut times: HashMap<&str, usize> = HashMap::new();
        for image in &self.images {
            *times.entry(&image.path).or_default() += 1;
        }
        self.images.iter().filter(move |image| times.get(image.path.as_str()) == Some(&1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(images: &[(&str, &str)]) -> Workload {
        let image = |(path, image): &(&str, &str)| ContainerImage {
            pointer: String::new(),
            path: (*path).to_owned(),
            image: (*image).to_owned(),
        };
        Workload { images: images.iter().map(image).collect(), ..Workload::default() }
    }

    #[test]
    fn what_changes_is_told_by_list_and_name() {
        let changed = |old: &[(&str, &str)], new: &[(&str, &str)]| {
            let changed = Reviewed::of(&workload(old)).changed(&workload(new));
            changed.into_iter().map(|image| format!("{}={}", image.path, image.image)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(changed(&[("c/a", "1"), ("c/b", "2")], &[("c/b", "2"), ("c/a", "1")]), "");
        assert_eq!(changed(&[("c/a", "1"), ("c/b", "2")], &[("c/a", "2"), ("c/b", "1")]), "c/a=2 c/b=1");
        assert_eq!(changed(&[("c/a", "1")], &[("i/a", "1"), ("c/a", "1")]), "i/a=1");
        assert_eq!(changed(&[("c/a", "1"), ("c/a", "1")], &[("c/a", "1")]), "c/a=1");
        assert_eq!(changed(&[("c/a", "1")], &[("c/a", "1"), ("c/a", "1")]), "c/a=1 c/a=1");
        assert_eq!(changed(&[], &[("c/a", "1")]), "c/a=1");
        assert_eq!(changed(&[("c/a", "1"), ("c/b", "2")], &[("c/a", "1")]), "");
    }

    #[test]
    fn several_objects_excuse_what_any_of_them_has() {
        let mut reviewed = Reviewed::of(&workload(&[("c/a", "2")]));
        reviewed.add(&workload(&[("c/a", "1"), ("c/b", "1")]));
        assert_eq!(reviewed.changed(&workload(&[("c/a", "1"), ("c/b", "1")])), []);
        assert_eq!(reviewed.changed(&workload(&[("c/a", "3")])).len(), 1);
        assert_eq!(reviewed.len(), 3);
    }

    #[test]
    fn a_digest_that_was_taken_away_is_found_for_the_same_name_and_tag_only() {
        let d = format!("sha256:{}", "a".repeat(64));
        let found = |old: &str, new: &str| {
            let reviewed = Reviewed::of(&workload(&[("c/a", old)]));
            let image = workload(&[("c/a", new)]).images.remove(0);
            reviewed.with_digest(&image).map(str::to_owned)
        };
        let pinned = format!("h.io/app:v1@{d}");
        assert_eq!(found(&pinned, "h.io/app:v1"), Some(pinned.clone()));
        assert_eq!(found(&format!("app:latest@{d}"), "app"), Some(format!("app:latest@{d}")));
        for (old, new) in [
            (pinned.as_str(), "h.io/app:v2"),
            (pinned.as_str(), "h.io/other:v1"),
            (pinned.as_str(), "h.io/app"),
            (pinned.as_str(), &pinned),
            ("h.io/app:v1", "h.io/app:v1"),
            // Nobody can tell which tag this digest was of.
            (&format!("h.io/app@{d}"), "h.io/app:v1"),
        ] {
            assert_eq!(found(old, new), None, "{old} {new}");
        }
    }
}
