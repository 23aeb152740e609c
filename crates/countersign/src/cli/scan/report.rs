//! What a scan found, for people and for programs.

use std::collections::{BTreeMap, HashMap};

use countersign_image::{Sha256, shown};
use countersign_policy::{ContainerImage, EntryRef};
use serde::Serialize;

use super::exempt::Exempt;
use super::judge::{Judged, Verdict};
use super::object::Head;
use crate::cli::exit;
use crate::cli::output::{table, verdict_word};

/// What an image that runs is to whoever wants to enforce policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// It would be denied.
    Denied,
    /// It could not be decided.
    Undecided,
    /// It would be denied for its age alone.
    Superseded,
    /// It would not be allowed, and stands in a static pod, which no webhook keeps from running.
    Static,
    /// It would not be allowed, and its namespace is not reviewed.
    Exempt,
    /// It would be allowed and pinned, and is not pinned: it was never reviewed, or under another mode.
    Unpinned,
    /// It would be allowed.
    Allowed,
}

impl Class {
    /// All of them, in the order of reports.
    pub(super) const ALL: [Self; 7] =
        [Self::Denied, Self::Undecided, Self::Superseded, Self::Static, Self::Exempt, Self::Unpinned, Self::Allowed];

    /// As reports name it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Undecided => "undecided",
            Self::Superseded => "superseded",
            Self::Static => "static",
            Self::Exempt => "exempt",
            Self::Unpinned => "unpinned",
            Self::Allowed => "allowed",
        }
    }

    fn of(verdict: Verdict, is_static: bool, is_exempt: bool) -> Self {
        match verdict {
            Verdict::Denied | Verdict::Undecided | Verdict::Superseded if is_static => Self::Static,
            Verdict::Denied | Verdict::Undecided | Verdict::Superseded if is_exempt => Self::Exempt,
            Verdict::Denied => Self::Denied,
            Verdict::Undecided => Self::Undecided,
            Verdict::Superseded => Self::Superseded,
            // Where nobody is asked, nothing is pinned.
            Verdict::Unpinned if is_static || is_exempt => Self::Allowed,
            Verdict::Unpinned => Self::Unpinned,
            Verdict::Allowed => Self::Allowed,
        }
    }
}

impl Serialize for Class {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// How many images there are of each class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts([usize; Class::ALL.len()]);

impl Counts {
    fn add(&mut self, class: Class) {
        if let Some(at) = Class::ALL.iter().position(|one| *one == class) {
            self.0[at] += 1;
        }
    }

    /// Those of a class.
    pub(super) fn of(&self, class: Class) -> usize {
        Class::ALL.iter().zip(self.0).find(|(one, _)| **one == class).map_or(0, |(_, count)| count)
    }

    fn words(&self) -> serde_json::Map<String, serde_json::Value> {
        Class::ALL.iter().map(|class| (class.word().to_owned(), self.of(*class).into())).collect()
    }

    fn cells(&self) -> impl Iterator<Item = String> + '_ {
        Class::ALL.iter().map(|class| self.of(*class).to_string())
    }
}

/// An image that is to be told.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    pub(super) namespace: String,
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) container: String,
    pub(super) image: String,
    pub(super) class: Class,
    /// What the webhook would say: allowed, denied, superseded or undecided.
    pub(super) verdict: &'static str,
    pub(super) cause: Option<&'static str>,
    pub(super) reason: Option<String>,
    pub(super) pinned: Option<String>,
    pub(super) policy: Option<EntryRef>,
    /// How many further objects of the same owner have it at the same place.
    pub(super) alike: usize,
}

/// Something that could not be listed or read, and so was not judged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Unread {
    /// A kind, an object, or a file.
    pub(super) what: String,
    /// The namespace, where it is one's alone.
    pub(super) namespace: Option<String>,
    /// Why not.
    pub(super) cause: String,
}

impl Unread {
    /// Where, and what.
    pub(super) fn title(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} in namespace {}", shown(&self.what), shown(namespace)),
            None => shown(&self.what),
        }
    }
}

/// Everything that a scan found.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// How many objects were looked at.
    pub(super) objects: usize,
    /// How many of them had nothing that their owner has not.
    pub(super) folded: usize,
    /// How many were over.
    pub(super) over: usize,
    /// How often the gate was asked.
    pub(super) reviews: usize,
    /// What is to be told.
    pub(super) findings: Vec<Finding>,
    /// What was not read.
    pub(super) unread: Vec<Unread>,
    /// What is not reviewed.
    pub(super) exempt: Exempt,
    /// How many images there are, by namespace.
    pub(super) namespaces: BTreeMap<String, Counts>,
    /// The finding of an image that several children of one owner have, if it is one.
    alike: HashMap<Sha256, Option<usize>>,
}

impl Report {
    /// Whether an image of a child was told of another child of the same owner; it is counted there then.
    pub(super) fn is_alike(&mut self, head: &Head, image: &ContainerImage) -> bool {
        let key = alike(head, image);
        let Some(found) = self.alike.get(&key) else { return false };
        if let Some(finding) = found.and_then(|at| self.findings.get_mut(at)) {
            finding.alike += 1;
        }
        true
    }

    /// Takes in what became of an image. `is_child` says that the owner was seen, and has no such image.
    pub(super) fn add(&mut self, head: &Head, image: &ContainerImage, judged: &Judged, is_child: bool) {
        let class = Class::of(judged.verdict, head.is_mirror, self.exempt.has(&head.namespace));
        self.namespaces.entry(head.namespace.clone()).or_default().add(class);
        if is_child {
            let told = (class != Class::Allowed).then_some(self.findings.len());
            self.alike.insert(alike(head, image), told);
        }
        if class == Class::Allowed {
            return;
        }
        let Judged { verdict, cause, reason, pinned, policy } = judged.clone();
        self.findings.push(Finding {
            namespace: head.namespace.clone(),
            api_version: head.kind.api_version(),
            kind: head.kind.name.clone(),
            name: head.name.clone(),
            uid: head.uid.clone(),
            container: image.path.clone(),
            image: image.image.clone(),
            class,
            verdict: if verdict.is_allowed() { Verdict::Allowed.word() } else { verdict.word() },
            cause,
            reason,
            pinned,
            policy,
            alike: 0,
        });
    }

    /// Brings what was found into the order of reports.
    pub(super) fn sort(&mut self) {
        self.alike.clear();
        self.findings.sort_by(|one, other| {
            let key = |finding: &Finding| {
                let Finding { namespace, kind, name, container, .. } = finding;
                (namespace.clone(), finding.class, kind.clone(), name.clone(), container.clone())
            };
            key(one).cmp(&key(other))
        });
        self.unread.sort();
    }

    /// How many images there are in all.
    pub(super) fn counts(&self) -> Counts {
        let mut all = Counts::default();
        for counts in self.namespaces.values() {
            for (sum, count) in all.0.iter_mut().zip(counts.0) {
                *sum += count;
            }
        }
        all
    }

    /// The exit code. `strict` has what nothing is wrong with but its age, and what no webhook is asked about, count too.
    pub(super) fn code(&self, strict: bool) -> u8 {
        let counts = self.counts();
        let apart =
            [Class::Superseded, Class::Static, Class::Exempt].map(|class| counts.of(class)).iter().sum::<usize>();
        if !self.unread.is_empty() && self.objects == 0 {
            exit::USAGE
        } else if !self.unread.is_empty() || counts.of(Class::Undecided) > 0 {
            exit::UNDECIDED
        } else if counts.of(Class::Denied) > 0 || (strict && apart > 0) {
            exit::DENIED
        } else {
            exit::OK
        }
    }

    /// How many images there are that are told, by cause and then by class.
    fn causes(&self) -> Vec<(&'static str, Class, usize)> {
        let mut causes: BTreeMap<(&str, Class), usize> = BTreeMap::new();
        for finding in &self.findings {
            *causes.entry((finding.cause.unwrap_or("never-pinned"), finding.class)).or_default() += 1;
        }
        let mut causes: Vec<_> = causes.into_iter().map(|((cause, class), count)| (cause, class, count)).collect();
        causes.sort_by_key(|(_, class, count)| (*class, usize::MAX - count));
        causes
    }

    /// A line for each image that is to be told, then what was not read, then how many there are by namespace and by cause.
    pub(super) fn as_table(&self) -> String {
        let row = |finding: &Finding| {
            let alike = if finding.alike > 0 { format!(" (and {} like it)", finding.alike) } else { String::new() };
            let class = finding.class;
            let class = match class {
                Class::Denied | Class::Undecided => verdict_word(class.word(), false),
                _ => class.word().to_owned(),
            };
            let said = if let (Some(cause), Some(reason)) = (&finding.cause, &finding.reason) {
                format!("{cause}: {reason}")
            } else {
                let digest = finding.pinned.as_deref().and_then(|pinned| pinned.rsplit_once('@'));
                format!("never-pinned: {} is signed", digest.map_or("", |(_, digest)| digest))
            };
            vec![
                shown(&finding.namespace),
                shown(&format!("{}/{}", finding.kind, finding.name)) + &alike,
                shown(&finding.container),
                shown(&finding.image),
                class,
                said,
            ]
        };
        let mut text = String::new();
        if !self.findings.is_empty() {
            let head = ["NAMESPACE", "WORKLOAD", "CONTAINER", "IMAGE", "CLASS", "CAUSE"];
            text += &table(&head, &self.findings.iter().map(row).collect::<Vec<_>>());
            text.push('\n');
        }
        if !self.unread.is_empty() {
            let row = |unread: &Unread| vec![unread.title(), shown(&unread.cause)];
            text += &table(&["NOT READ", "CAUSE"], &self.unread.iter().map(row).collect::<Vec<_>>());
            text.push('\n');
        }
        let head: Vec<_> =
            ["namespace"].into_iter().chain(Class::ALL.map(Class::word)).map(str::to_uppercase).collect();
        let of = |namespace: &str, counts: &Counts| std::iter::once(shown(namespace)).chain(counts.cells()).collect();
        let mut rows: Vec<Vec<String>> =
            self.namespaces.iter().map(|(namespace, counts)| of(namespace, counts)).collect();
        rows.push(of("(all)", &self.counts()));
        text += &table(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows);
        let causes = self.causes();
        if !causes.is_empty() {
            let row = |(cause, class, count): &(&str, Class, usize)| {
                vec![(*cause).to_owned(), class.word().to_owned(), count.to_string()]
            };
            text.push('\n');
            text += &table(&["CAUSE", "CLASS", "IMAGES"], &causes.iter().map(row).collect::<Vec<_>>());
        }
        let Self { objects, folded, over, reviews, .. } = self;
        text += &format!(
            "\n{objects} objects were looked at, in {reviews} reviews; {folded} of them have what their owners have, and {over} more are over.\n{}\n",
            self.exempt.told()
        );
        text
    }

    /// The same as JSON.
    pub(super) fn as_json(&self) -> serde_json::Value {
        let namespaces: Vec<_> = self
            .namespaces
            .iter()
            .map(|(namespace, counts)| serde_json::json!({"namespace": namespace, "images": counts.words()}))
            .collect();
        let cause = |(cause, class, count): (&str, Class, usize)| serde_json::json!({"cause": cause, "class": class.word(), "images": count});
        serde_json::json!({
            "objects": {"seen": self.objects, "folded": self.folded, "over": self.over},
            "reviews": self.reviews,
            "images": self.counts().words(),
            "byNamespace": namespaces,
            "byCause": self.causes().into_iter().map(cause).collect::<Vec<_>>(),
            "findings": self.findings,
            "notRead": self.unread,
            "exempt": self.exempt.as_json(),
        })
    }
}

fn alike(head: &Head, image: &ContainerImage) -> Sha256 {
    let owner = head.owner.as_deref().unwrap_or_default();
    let key = serde_json::json!([head.namespace, head.kind.name, owner, image.path, image.image]);
    Sha256::of(key.to_string().as_bytes())
}
