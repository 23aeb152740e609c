//! The policies of a moment: which entry applies to an image, and why; an entry for some tags that checks nothing is not about digests.

mod index;
mod scope;

use std::collections::HashMap;
use std::sync::Arc;

use countersign_image::ImageReference;

use self::scope::{MAX_ENTRIES_OF_NAMESPACE, Scope};
use crate::mode::Mode;
use crate::pattern::Pattern;
use crate::proof_policy::ProofPolicy;
use crate::requirement::Requirement;

/// Whose policy it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// A namespace's own.
    Image {
        /// The namespace.
        namespace: String,
    },
    /// The cluster's.
    Cluster,
}

impl PolicyKind {
    /// The Kubernetes kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Image { .. } => "ImagePolicy",
            Self::Cluster => "ClusterImagePolicy",
        }
    }

    /// The namespace, for an `ImagePolicy`.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Image { namespace } => Some(namespace),
            Self::Cluster => None,
        }
    }
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whose it is.
    pub kind: PolicyKind,
    /// Its name.
    pub name: String,
    /// Its entries, in order.
    pub entries: Vec<Entry>,
    /// The strictest mode that one of its entries says, those included that are at fault or whose name cannot be read.
    pub strictest: Option<Mode>,
    /// Why the policy as a whole cannot be used, if it cannot: nobody can tell which images it is about, so every image of
    /// its scope is denied.
    pub unusable: Option<String>,
}

impl Policy {
    /// Kind, namespace and name, for messages.
    #[must_use]
    pub fn title(&self) -> String {
        match self.kind.namespace() {
            Some(namespace) => format!("{} {namespace}/{}", self.kind.kind(), self.name),
            None => format!("{} {}", self.kind.kind(), self.name),
        }
    }
}

/// One entry of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it matches.
    pub pattern: Pattern,
    /// Whether an admitted image is pinned to its signed digest.
    pub mutate_image: bool,
    /// Whether the registry must have the signed content too.
    pub require_present: bool,
    /// What is done with what it denies; where it says nothing, what the server and the namespace say. That of an entry at fault only
    /// makes them stricter.
    pub mode: Option<Mode>,
    /// What it asks of a matching image.
    pub check: Check,
}

impl Entry {
    /// Whether an image falls under the entry.
    ///
    /// Runtimes ignore the tag of a reference that has a digest. So where nothing is checked, or a denial stops nothing, an entry about
    /// some tags would admit any content of the repository under one of them; it is about references without a digest only. `mode` is
    /// what counts where the entry says nothing.
    #[must_use]
    pub fn matches(&self, image: &ImageReference, mode: Mode) -> bool {
        let admits_all = self.check == Check::Nothing || self.mode_under(mode) != Mode::Enforce;
        let by_tag_alone = admits_all && self.pattern.is_about_tags();
        self.pattern.matches(image) && !(by_tag_alone && image.digest().is_some())
    }

    /// What is done with what it denies, where the server and the namespace say `mode`.
    #[must_use]
    pub fn mode_under(&self, mode: Mode) -> Mode {
        match &self.check {
            Check::Unusable(_) => self.mode.map_or(mode, |own| own.max(mode)),
            Check::Nothing | Check::Proof(_) => self.mode.unwrap_or(mode),
        }
    }
}

/// What an entry asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Nothing: the image is allowed.
    Nothing,
    /// Proofs.
    Proof(Requirement<ProofPolicy>),
    /// Nobody can tell, for this reason: what the entry matches is denied.
    Unusable(String),
}

impl Check {
    /// What is asked of each signature format, in the order of the policy.
    pub fn proofs(&self) -> impl Iterator<Item = &ProofPolicy> {
        let requirement = match self {
            Self::Proof(requirement) => Some(requirement),
            Self::Nothing | Self::Unusable(_) => None,
        };
        requirement.into_iter().flat_map(Requirement::asks)
    }
}

/// All policies of a moment, ready to be asked.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {
    namespaces: HashMap<String, Arc<Scope>>,
    cluster: Arc<Scope>,
    count: usize,
}

/// An entry, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Which of its entries, from 0.
    pub index: usize,
    /// The entry.
    pub entry: &'a Entry,
}

/// The entry that applied to an image, as reports name it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EntryRef {
    /// `ImagePolicy` or `ClusterImagePolicy`.
    pub kind: &'static str,
    /// The policy's namespace, if it has one.
    pub namespace: Option<String>,
    /// The policy's name.
    pub name: String,
    /// The name of the entry.
    pub entry: String,
    /// Which of the policy's entries it is, from 1.
    #[serde(skip)]
    pub position: usize,
}

impl EntryRef {
    /// Names an entry.
    #[must_use]
    pub fn of(found: &Match<'_>) -> Self {
        Self {
            kind: found.policy.kind.kind(),
            namespace: found.policy.kind.namespace().map(str::to_owned),
            name: found.policy.name.clone(),
            entry: found.entry.pattern.written().to_owned(),
            position: found.index + 1,
        }
    }

    /// Kind, namespace and name of the policy, for messages.
    #[must_use]
    pub fn policy(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} {namespace}/{}", self.kind, self.name),
            None => format!("{} {}", self.kind, self.name),
        }
    }
}

/// Which entry applies to an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Applies<'a> {
    /// This one.
    Entry(Match<'a>),
    /// One of the policies that count cannot be used, so no other may decide.
    Unusable(&'a Policy, &'a str),
    /// There is no policy at all.
    NoPolicies,
    /// The namespace has policies, and none matches.
    NotInNamespace,
    /// The namespace has none, and no cluster policy matches.
    NotInCluster,
}

impl PolicySet {
    /// Takes the policies, in whatever order they come: it never decides anything.
    #[must_use]
    pub fn new(policies: impl IntoIterator<Item = Policy>) -> Self {
        Self::default().followed_by(policies.into_iter().map(Arc::new))
    }

    /// The set of these policies, which may be the set's own: what was made of those of a namespace, or of the cluster, is used
    /// again where all of them are the same.
    #[must_use]
    pub fn followed_by(&self, policies: impl IntoIterator<Item = Arc<Policy>>) -> Self {
        let (mut namespaces, mut cluster, mut count) = (HashMap::<&str, Vec<_>>::new(), Vec::new(), 0);
        let policies: Vec<_> = policies.into_iter().collect();
        for policy in &policies {
            count += 1;
            match &policy.kind {
                PolicyKind::Image { namespace } => namespaces.entry(namespace).or_default().push(Arc::clone(policy)),
                PolicyKind::Cluster => cluster.push(Arc::clone(policy)),
            }
        }
        let scope = |before: Option<&Arc<Scope>>, policies: Vec<_>, max_entries| match before {
            Some(before) if before.is_of(&policies) => Arc::clone(before),
            _ => Arc::new(Scope::new(policies, max_entries)),
        };
        let of_namespace = |(namespace, policies): (&str, _)| {
            let scope = scope(self.namespaces.get(namespace), policies, MAX_ENTRIES_OF_NAMESPACE);
            (namespace.to_owned(), scope)
        };
        Self {
            namespaces: namespaces.into_iter().map(of_namespace).collect(),
            cluster: scope(Some(&self.cluster), cluster, usize::MAX),
            count,
        }
    }

    /// With how many entries an image in a namespace is compared at most, to find the one that applies.
    #[must_use]
    pub fn compared(&self, namespace: &str) -> usize {
        self.scope(namespace).compared()
    }

    fn scope(&self, namespace: &str) -> &Scope {
        self.namespaces.get(namespace).unwrap_or(&self.cluster)
    }

    /// The strictest mode that an image in a namespace may fall under, where it cannot be told under which: `mode` is that of entries
    /// that say nothing.
    #[must_use]
    pub fn strictest(&self, namespace: &str, mode: Mode) -> Mode {
        let policies = self.scope(namespace).policies();
        policies.iter().filter_map(|policy| policy.strictest).fold(mode, Mode::max)
    }

    /// How many policies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All policies.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.namespaces.values().chain([&self.cluster]).flat_map(|scope| scope.policies()).map(AsRef::as_ref)
    }

    /// Which entry applies to an image in a namespace: of the namespace's own policies if it has any, else of the cluster's; the
    /// most exact that matches; of equals the one whose policy's name sorts first, and then the first in it. `mode` is that of entries
    /// that say nothing.
    #[must_use]
    pub fn applies(&self, namespace: &str, image: &ImageReference, mode: Mode) -> Applies<'_> {
        let own = self.namespaces.get(namespace);
        let scope = own.unwrap_or(&self.cluster);
        if let Some(unusable) = scope.unusable() {
            return unusable;
        }
        match scope.first(image, mode) {
            Some(best) => Applies::Entry(best),
            None if own.is_some() => Applies::NotInNamespace,
            None if self.count == 0 => Applies::NoPolicies,
            None => Applies::NotInCluster,
        }
    }

    /// All entries that match an image in a namespace, the one that applies first. `mode` is that of entries that say nothing.
    #[must_use]
    pub fn matching(&self, namespace: &str, image: &ImageReference, mode: Mode) -> Vec<Match<'_>> {
        self.scope(namespace).all(image, mode)
    }
}

#[cfg(test)]
mod reference;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use countersign_notary::TrustServer;

    use super::*;

    fn policy(namespace: Option<&str>, name: &str, patterns: &[&str]) -> Policy {
        let kind = namespace.map_or(PolicyKind::Cluster, |namespace| PolicyKind::Image { namespace: namespace.into() });
        let entry = |pattern: &&str| Entry {
            pattern: Pattern::parse(pattern).unwrap(),
            mutate_image: true,
            require_present: false,
            mode: None,
            check: Check::Nothing,
        };
        Policy {
            kind,
            name: name.into(),
            entries: patterns.iter().map(entry).collect(),
            strictest: None,
            unusable: None,
        }
    }

    fn answer(set: &PolicySet, namespace: &str, image: &str) -> String {
        match set.applies(namespace, &ImageReference::parse(image).unwrap(), Mode::Enforce) {
            Applies::Entry(found) => {
                let all = set.matching(namespace, &ImageReference::parse(image).unwrap(), Mode::Enforce);
                assert_eq!(all[0], found, "the first that matches is the one that applies");
                let (kind, others) = (found.policy.kind.kind(), all.len() - 1);
                format!("{kind} {} {} (+{others})", found.policy.name, found.entry.pattern)
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_namespace_has_so_many_entries_and_no_more() {
        let many = |count: usize| {
            let patterns: Vec<_> = (0..count).map(|index| format!("h.io/{index}/*")).collect();
            policy(Some("greedy"), "many", &patterns.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let with = |count| {
            PolicySet::new([many(count), policy(Some("greedy"), "one", &["h.io/x"]), policy(None, "all", &["*"])])
        };
        let set = with(MAX_ENTRIES_OF_NAMESPACE - 1);
        assert!(answer(&set, "greedy", "h.io/x").starts_with("ImagePolicy one"));
        assert_eq!((set.compared("greedy"), set.compared("other")), (2, 1));
        let set = with(MAX_ENTRIES_OF_NAMESPACE);
        assert!(answer(&set, "greedy", "h.io/x").contains("10001 entries together, and 10000 are the limit"));
        assert!(answer(&set, "other", "h.io/x").starts_with("ClusterImagePolicy all"));
    }

    #[test]
    fn namespace_before_cluster_and_exact_before_wild() {
        let set = PolicySet::new([
            policy(None, "b", &["*", "docker.io/*", "docker.io/*"]),
            policy(None, "a", &["docker.io/*", "nginx", "nginx:1*"]),
            policy(Some("own"), "p", &["h.io/*"]),
        ]);
        let cases = [
            ("other", "redis", "ClusterImagePolicy a docker.io/* (+3)"),
            ("other", "nginx:1", "ClusterImagePolicy a nginx:1* (+5)"),
            ("other", "quay.io/x", "ClusterImagePolicy b * (+0)"),
            ("own", "h.io/x", "ImagePolicy p h.io/* (+0)"),
            ("own", "nginx", "NotInNamespace"),
        ];
        for (namespace, image, expected) in cases {
            assert_eq!(answer(&set, namespace, image), expected, "{namespace} {image}");
        }
        assert_eq!(answer(&PolicySet::default(), "n", "nginx"), "NoPolicies");
        assert_eq!(answer(&PolicySet::new([policy(Some("x"), "p", &["*"])]), "n", "nginx"), "NotInCluster");
        assert_eq!(answer(&PolicySet::new([policy(Some("n"), "p", &[])]), "n", "nginx"), "NotInNamespace");
    }

    /// What a tag says is not looked at by whoever pulls `name:tag@digest`.
    #[test]
    fn an_unchecked_tag_is_no_pass_for_a_digest() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let mut set = policy(None, "a", &["h.io/app:v1", "h.io/all:*", "h.io/app"]);
        set.entries[2].check = Check::Unusable("checked".into());
        let set = PolicySet::new([set]);
        assert_eq!(answer(&set, "n", "h.io/app:v1"), "ClusterImagePolicy a h.io/app:v1 (+1)");
        assert_eq!(answer(&set, "n", &format!("h.io/app:v1@{digest}")), "ClusterImagePolicy a h.io/app (+0)");
        assert_eq!(answer(&set, "n", &format!("h.io/all:v1@{digest}")), "ClusterImagePolicy a h.io/all:* (+0)");
        let mut checked = policy(None, "a", &["h.io/app:v1"]);
        checked.entries[0].check = Check::Proof(Requirement::One(ProofPolicy::Trust(Arc::default())));
        let checked = PolicySet::new([checked]);
        assert_eq!(answer(&checked, "n", &format!("h.io/app:v1@{digest}")), "ClusterImagePolicy a h.io/app:v1 (+0)");
    }

    /// Where nobody can tell which entry it is about, the strictest one counts.
    #[test]
    fn the_strictest_mode_of_a_namespace() {
        let mut strict = policy(None, "a", &["h.io/*", "h.io/prod/*"]);
        strict.strictest = Some(Mode::Enforce);
        let set = PolicySet::new([strict, policy(Some("own"), "p", &["*"])]);
        for (namespace, mode, expected) in [
            ("other", Mode::Audit, Mode::Enforce),
            ("own", Mode::Audit, Mode::Audit),
            ("own", Mode::Enforce, Mode::Enforce),
        ] {
            assert_eq!(set.strictest(namespace, mode), expected, "{namespace} {mode:?}");
        }
    }

    /// What is wrong with an entry must not loosen anything.
    #[test]
    fn an_entry_at_fault_is_at_least_as_strict_as_its_surroundings() {
        let mut entry = policy(None, "a", &["h.io/*"]).entries.remove(0);
        entry.check = Check::Unusable("x".into());
        for (own, mode, expected) in [
            (None, Mode::Audit, Mode::Audit),
            (Some(Mode::Enforce), Mode::Audit, Mode::Enforce),
            (Some(Mode::Audit), Mode::Enforce, Mode::Enforce),
            (Some(Mode::Audit), Mode::Warn, Mode::Warn),
        ] {
            entry.mode = own;
            assert_eq!(entry.mode_under(mode), expected, "{own:?} {mode:?}");
        }
        (entry.check, entry.mode) = (Check::Nothing, Some(Mode::Audit));
        assert_eq!(entry.mode_under(Mode::Enforce), Mode::Audit);
    }

    /// An entry for some tags that only warns would, by its mode, admit any content of the repository under one of them.
    #[test]
    fn a_tag_that_is_not_enforced_is_no_pass_for_a_digest() {
        let image = |digest: &str| ImageReference::parse(&format!("h.io/app:v1{digest}")).unwrap();
        let digest = image("@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let proof = || Check::Proof(Requirement::One(ProofPolicy::Trust(Arc::default())));
        let set = |mode: Option<Mode>| {
            let mut set = policy(None, "a", &["h.io/app:v1", "h.io/app"]);
            set.entries.iter_mut().for_each(|entry| entry.check = proof());
            (set.entries[0].mode, set.entries[1].mode) = (mode, Some(Mode::Enforce));
            PolicySet::new([set])
        };
        let index = |set: &PolicySet, image: &ImageReference, mode: Mode| match set.applies("n", image, mode) {
            Applies::Entry(found) => found.index,
            other => panic!("{other:?}"),
        };
        for (entry, elsewhere, expected) in [
            (None, Mode::Enforce, 0),
            (Some(Mode::Enforce), Mode::Audit, 0),
            (Some(Mode::Warn), Mode::Enforce, 1),
            (None, Mode::Audit, 1),
        ] {
            assert_eq!(index(&set(entry), &digest, elsewhere), expected, "{entry:?} {elsewhere:?}");
            assert_eq!(index(&set(entry), &image(""), elsewhere), 0);
        }
    }

    #[test]
    fn the_spelling_of_a_host_is_no_way_around_an_entry() {
        let set = PolicySet::new([policy(None, "a", &["*", "docker.io/library/nginx", "registry.example.com/*"])]);
        for (image, entry) in [
            ("DOCKER.io:443/nginx", "docker.io/library/nginx (+1)"),
            ("Registry.Example.com/x", "registry.example.com/* (+1)"),
            ("registry.example.com:443/x", "registry.example.com/* (+1)"),
            ("registry.example.com:5000/x", "* (+0)"),
        ] {
            assert_eq!(answer(&set, "n", image), format!("ClusterImagePolicy a {entry}"), "{image}");
        }
    }

    #[test]
    fn trust_servers() {
        for (text, base, host_port) in [
            ("https://n.example.com:4443", "https://n.example.com:4443", "n.example.com:4443"),
            ("https://n.example.com:8443/notary/", "https://n.example.com:8443/notary", "n.example.com:8443"),
            ("https://n.example.com", "https://n.example.com", "n.example.com:443"),
            ("http://[::1]:80/", "http://[::1]", "[::1]:80"),
        ] {
            let server = TrustServer::parse(text).unwrap();
            assert_eq!((server.as_str(), server.host_port()), (base, host_port), "{text}");
        }
        for text in [
            "",
            "n.example.com:4443",
            "ftp://x",
            "https://u:p@x",
            "https://x?a",
            "https://x#a",
            "file:///x",
            "https:h",
            "https:///h",
            "https:\\\\h",
            "https://h\t.evil.com",
            "https://@h",
            "https://h:0",
            " https://h",
            "https://h:x",
        ] {
            let error = TrustServer::parse(text).unwrap_err();
            assert!(!error.to_string().contains("u:p"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn order_never_decides(order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle(), image in r"(nginx|h\.io/[ab]/[ab]|team/app)(:v[12])?") {
            let all = [
                policy(None, "a", &["*", "h.io/*"]),
                policy(None, "b", &["h.io/a*", "h.io/*a", "nginx*"]),
                policy(None, "b", &["h.io/*", "*/a/b", "team/*"]),
                policy(None, "c", &["h.io/a/b", "nginx:v1"]),
                policy(None, "d", &["h.io/a/b", "team/app:*"]),
                policy(Some("x"), "a", &["*"]),
            ];
            let straight = PolicySet::new(all.clone());
            let shuffled = PolicySet::new(order.into_iter().map(|index| all[index].clone()));
            prop_assert_eq!(answer(&straight, "n", &image), answer(&shuffled, "n", &image));
        }
    }
}
