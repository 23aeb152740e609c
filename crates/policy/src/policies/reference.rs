//! What `docs/policies.md` says, in the plainest way: all entries are looked at, one after the other. What is quicker must come to the
//! same for any policies and images.

use std::cmp::Reverse;
use std::sync::Arc;

use countersign_image::ImageReference;
use proptest::prelude::*;
use proptest::sample::select;

use super::scope::MAX_ENTRIES_OF_NAMESPACE;
use super::{Applies, Check, Entry, Policy, PolicyKind, PolicySet};
use crate::mode::Mode;
use crate::pattern::Pattern;
use crate::proof_policy::ProofPolicy;
use crate::requirement::Requirement;

/// An entry: where its policy stands among all, and which of the policy's it is.
type Place = (usize, usize);

/// The policies that count in a namespace.
fn counting(policies: &[Policy], namespace: &str) -> Vec<usize> {
    let of = |kind: &PolicyKind| (0..policies.len()).filter(|index| policies[*index].kind == *kind).collect();
    let own: Vec<usize> = of(&PolicyKind::Image { namespace: namespace.to_owned() });
    if own.is_empty() { of(&PolicyKind::Cluster) } else { own }
}

/// All entries that match, the one that applies first.
fn matching(policies: &[Policy], namespace: &str, image: &ImageReference, mode: Mode) -> Vec<Place> {
    let mut found = Vec::new();
    for policy in counting(policies, namespace) {
        for (index, entry) in policies[policy].entries.iter().enumerate() {
            if entry.matches(image, mode) {
                found.push((policy, index));
            }
        }
    }
    found.sort_by_cached_key(|(policy, index)| {
        let (of, exact) = (&policies[*policy], policies[*policy].entries[*index].pattern.specificity());
        (Reverse(exact), of.name.clone(), *index, format!("{of:?}"))
    });
    found
}

/// What applies, in words.
fn applies(policies: &[Policy], namespace: &str, image: &ImageReference, mode: Mode) -> String {
    let counting = counting(policies, namespace);
    let own = counting.iter().any(|policy| policies[*policy].kind != PolicyKind::Cluster);
    let entries: usize = counting.iter().map(|policy| policies[*policy].entries.len()).sum();
    if own && entries > MAX_ENTRIES_OF_NAMESPACE {
        return "too many entries".to_owned();
    }
    let mut unusable: Vec<&Policy> = counting.iter().map(|policy| &policies[*policy]).collect();
    unusable.retain(|policy| policy.unusable.is_some());
    unusable.sort_by_cached_key(|policy| (policy.name.clone(), format!("{policy:?}")));
    if let Some(policy) = unusable.first() {
        return format!("unusable: {policy:?}");
    }
    match matching(policies, namespace, image, mode).first() {
        Some(first) => told(policies, *first),
        None if own => "not in the namespace's".to_owned(),
        None if policies.is_empty() => "no policies".to_owned(),
        None => "not in the cluster's".to_owned(),
    }
}

fn told(policies: &[Policy], (policy, index): Place) -> String {
    format!("{:?}, entry {index}", policies[policy])
}

/// What the set says, in the same words.
fn answer(set: &PolicySet, namespace: &str, image: &ImageReference, mode: Mode) -> String {
    match set.applies(namespace, image, mode) {
        Applies::Entry(found) => format!("{:?}, entry {}", found.policy, found.index),
        Applies::Unusable(policy, problem) if policy.unusable.as_deref() == Some(problem) => {
            format!("unusable: {policy:?}")
        }
        Applies::Unusable(..) => "too many entries".to_owned(),
        Applies::NotInNamespace => "not in the namespace's".to_owned(),
        Applies::NoPolicies => "no policies".to_owned(),
        Applies::NotInCluster => "not in the cluster's".to_owned(),
    }
}

const DIGEST: &str = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Names of entries that are alike, so that many match one image: with and without hosts, tags and digests, with `*` anywhere.
fn pattern() -> impl Strategy<Value = Pattern> {
    let host = select(vec![
        "",
        "",
        "h.io/",
        "H.io:443/",
        "h.io:5000/",
        "a.h.io/",
        "b.a.h.io/",
        "*/",
        "*.h.io/",
        "*.a.h.io/",
        "h*/",
        "h.*/",
        "*.*/",
        "*:5000/",
        "h.io:*/",
        "a.*.io/",
        "*h.io/",
        "docker.io/",
        "index.docker.io/",
        "localhost/",
        "*.io/",
    ]);
    let part = select(vec!["a", "b", "ab", "ba", "*", "**", "a*", "*a", "b*", "*b", "a*b", "a*a", "*a*", "ab*ba"]);
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let tag = select(vec!["", "", "", ":*", ":v1", ":v*", ":v1*", ":*1", ":latest"]);
    let digest = select(vec!["", "", "", "", DIGEST]);
    let name = (host, path, tag, digest).prop_map(|(host, path, tag, digest)| format!("{host}{path}{tag}{digest}"));
    let name = prop_oneof![20 => name, 1 => Just("*".to_owned()), 1 => Just("**".to_owned())];
    name.prop_filter_map("an image can have it", |name| Pattern::parse(&name).ok())
}

fn image() -> impl Strategy<Value = ImageReference> {
    let host = select(vec![
        "",
        "h.io/",
        "H.IO/",
        "h.io:443/",
        "h.io:5000/",
        "a.h.io/",
        "b.a.h.io/",
        "a.b.io/",
        "hh.io/",
        "docker.io/",
        "index.docker.io/",
        "localhost/",
        "localhost:5000/",
        "h.com/",
    ]);
    let part = select(vec!["a", "b", "ab", "ba", "aa", "aba", "abba", "c"]);
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let tag = select(vec!["", ":v1", ":v11", ":v2", ":latest"]);
    let digest = select(vec!["", DIGEST]);
    (host, path, tag, digest)
        .prop_map(|(host, path, tag, digest)| ImageReference::parse(&format!("{host}{path}{tag}{digest}")).unwrap())
}

fn mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::Enforce, Mode::Warn, Mode::Audit])
}

fn entry() -> impl Strategy<Value = Entry> {
    let proof = || Check::Proof(Requirement::One(ProofPolicy::Trust(Arc::default())));
    let check = prop_oneof![Just(Check::Nothing), Just(Check::Unusable("at fault".into())), Just(proof())];
    (pattern(), prop::option::of(mode()), check).prop_map(|(pattern, mode, check)| Entry {
        pattern,
        mutate_image: true,
        require_present: false,
        mode,
        check,
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let kind = select(vec!["", "", "n", "other"]).prop_map(|namespace| match namespace {
        "" => PolicyKind::Cluster,
        namespace => PolicyKind::Image { namespace: namespace.into() },
    });
    let unusable = prop_oneof![30 => Just(None), 1 => Just(Some("unreadable".to_owned()))];
    let entries = prop::collection::vec(entry(), 0..12);
    (kind, select(vec!["p", "q", "r"]), entries, unusable).prop_map(|(kind, name, entries, unusable)| Policy {
        kind,
        name: name.into(),
        entries,
        strictest: None,
        unusable,
    })
}

/// That a set says the same as the plain definition, of all that can be asked.
fn compare(set: &PolicySet, policies: &[Policy], images: &[ImageReference], mode: Mode) -> Result<(), TestCaseError> {
    for namespace in ["n", "other", "third"] {
        for image in images {
            let plain = matching(policies, namespace, image, mode);
            let all = set.matching(namespace, image, mode);
            prop_assert!(all.len() <= set.compared(namespace), "{} are compared", set.compared(namespace));
            let all: Vec<_> = all.iter().map(|found| format!("{:?}, entry {}", found.policy, found.index)).collect();
            let plain: Vec<_> = plain.into_iter().map(|place| told(policies, place)).collect();
            prop_assert_eq!(&all, &plain, "{} in {}", image.canonical(), namespace);
            prop_assert_eq!(answer(set, namespace, image, mode), applies(policies, namespace, image, mode));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_index_comes_to_what_a_look_at_all_entries_does(
        policies in prop::collection::vec(policy(), 0..7),
        images in prop::collection::vec(image(), 4),
        mode in mode(),
    ) {
        compare(&PolicySet::new(policies.clone()), &policies, &images, mode)?;
    }

    /// One policy after the other is replaced, taken away or added.
    #[test]
    fn a_change_comes_to_what_a_new_set_does(
        policies in prop::collection::vec(policy(), 1..7),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(policy()), any::<bool>()), 1..6),
        images in prop::collection::vec(image(), 2),
        mode in mode(),
    ) {
        let mut policies: Vec<_> = policies.into_iter().map(Arc::new).collect();
        let mut set = PolicySet::default().followed_by(policies.clone());
        for (index, new, beside) in changes {
            if !beside && !policies.is_empty() {
                policies.swap_remove(index.index(policies.len()));
            }
            policies.extend(new.map(Arc::new));
            set = set.followed_by(policies.clone());
            let plain: Vec<Policy> = policies.iter().map(|policy| Policy::clone(policy)).collect();
            prop_assert_eq!(set.len(), plain.len());
            compare(&set, &plain, &images, mode)?;
        }
    }
}

/// That random names match random images often enough for the tests above to say something.
#[test]
fn many_entries_match_an_image() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut one, mut several) = (0, 0);
    for _ in 0..300 {
        let policies = prop::collection::vec(policy(), 5).new_tree(&mut runner).unwrap().current();
        let image = image().new_tree(&mut runner).unwrap().current();
        match matching(&policies, "third", &image, Mode::Enforce).len() {
            0 => {}
            1 => one += 1,
            _ => several += 1,
        }
    }
    assert!(one > 20 && several > 20, "{one} {several}");
}
