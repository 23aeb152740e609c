//! What the signatures of an image come to: its state, whether it is ready for cosign alone, and what is to be done.

use std::collections::BTreeMap;

use countersign_image::Sha256;
use countersign_policy::{EntryRef, PolicyKind};

use super::images::Asked;

/// What an image is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Docker Content Trust and cosign prove the same digest.
    Both,
    /// They prove different digests.
    Differ,
    /// Docker Content Trust alone proves it.
    Dct,
    /// cosign alone has signed it.
    Cosign,
    /// Neither.
    Neither,
    /// No entry asks for anything.
    Unchecked,
    /// It is denied before anybody is asked.
    Denied,
    /// It could not be found out.
    Undecided,
}

impl State {
    /// In the order of reports.
    pub(super) const ALL: [Self; 8] = [
        Self::Both,
        Self::Cosign,
        Self::Dct,
        Self::Differ,
        Self::Neither,
        Self::Undecided,
        Self::Denied,
        Self::Unchecked,
    ];

    /// The word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Differ => "differ",
            Self::Dct => "dct",
            Self::Cosign => "cosign",
            Self::Neither => "neither",
            Self::Unchecked => "unchecked",
            Self::Denied => "denied",
            Self::Undecided => "undecided",
        }
    }
}

/// Where an entry stands: its policy, and its number there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryAt {
    /// Whose policy.
    pub(super) kind: PolicyKind,
    /// The policy's name.
    pub(super) policy: String,
    /// Which of its entries, from 0.
    pub(super) index: usize,
}

/// How far an entry is on the road.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It asks for Docker Content Trust, and not for cosign.
    Trust,
    /// One of both is enough.
    Either,
    /// It asks for both.
    Both,
    /// It asks for cosign alone.
    Cosign,
}

/// An image that was looked at.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    /// The image.
    pub(super) asked: Asked,
    /// The entry that applies, if one does.
    pub(super) entry: Option<(EntryAt, EntryRef)>,
    /// What came of it.
    pub(super) outcome: Outcome,
}

/// What came of looking at an image.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// No entry asks for anything.
    Unchecked,
    /// It is denied without asking anybody, for this reason.
    Denied {
        /// Why.
        reason: String,
        /// Whether that is since no entry is about it: then it is no concern of a move to cosign.
        unlisted: bool,
    },
    /// These are its signatures.
    Signatures(Box<Signatures>),
}

/// What Docker Content Trust says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dct {
    /// The entry does not ask for it.
    NotAsked,
    /// This digest is proven.
    Proves(Sha256),
    /// Nothing is, for this reason.
    Refuses(String),
    /// It could not be asked.
    Undecided(String),
}

/// What cosign's signatures of one digest come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signed {
    /// Signed as the policy, or the keys of the command line, demand.
    Proven,
    /// There are signatures, and nobody said by which keys they should be: they prove nothing.
    Unverified,
    /// Not signed so, for this reason.
    No(String),
    /// It could not be found out.
    Undecided(String),
}

/// The digest by which cosign alone would go: the one that the image names, else what the registry has under the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Alone {
    /// The image names it.
    Named(Sha256),
    /// The registry has it under the tag.
    Tagged(Sha256),
    /// The registry has no such image.
    Missing(String),
    /// The registry did not say.
    Undecided(String),
}

impl Alone {
    /// The digest, if it is known.
    pub(super) fn digest(&self) -> Option<Sha256> {
        match self {
            Self::Named(digest) | Self::Tagged(digest) => Some(*digest),
            Self::Missing(_) | Self::Undecided(_) => None,
        }
    }
}

/// What is to be told to cosign when an image is signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// The repository for signatures, if it is not the image's own.
    pub(super) repository: Option<String>,
    /// The claims that signatures must make.
    pub(super) annotations: BTreeMap<String, String>,
}

/// The signatures of an image.
#[derive(Debug, Clone)]
pub(super) struct Signatures {
    /// Its repository, canonical.
    pub(super) repository: String,
    /// How far its entry is.
    pub(super) stage: Stage,
    /// What Docker Content Trust says of it.
    pub(super) dct: Dct,
    /// By which digest cosign alone would go.
    pub(super) alone: Alone,
    /// Whether what runs is an image for one platform that the index lists by which cosign alone would go: some runtimes tell that digest.
    pub(super) runs_of_index: bool,
    /// What cosign has of each digest that comes into question.
    pub(super) cosign: BTreeMap<Sha256, Signed>,
    /// How it is signed, if it is to be.
    pub(super) manner: Manner,
}

impl Signatures {
    /// The digest that Docker Content Trust proves.
    pub(super) fn proven_by_dct(&self) -> Option<Sha256> {
        match self.dct {
            Dct::Proves(digest) => Some(digest),
            _ => None,
        }
    }

    fn signed(&self, digest: Sha256) -> bool {
        matches!(self.cosign.get(&digest), Some(Signed::Proven | Signed::Unverified))
    }

    /// The cause, if something could not be found out.
    fn undecided(&self) -> Option<&str> {
        if let Dct::Undecided(cause) = &self.dct {
            return Some(cause);
        }
        if let Alone::Undecided(cause) = &self.alone {
            return Some(cause);
        }
        self.cosign.values().find_map(|signed| match signed {
            Signed::Undecided(cause) => Some(cause.as_str()),
            _ => None,
        })
    }

    fn state(&self) -> State {
        if self.undecided().is_some() {
            return State::Undecided;
        }
        let any = self.cosign.keys().any(|digest| self.signed(*digest));
        match self.proven_by_dct() {
            Some(digest) if self.signed(digest) => State::Both,
            Some(_) if any => State::Differ,
            Some(_) => State::Dct,
            None if any => State::Cosign,
            None => State::Neither,
        }
    }

    /// What keeps an image that cosign has signed from being admitted by cosign alone, with the content that counts now.
    fn obstacle(&self, running: Option<Sha256>) -> Option<String> {
        let (alone, tagged) = match &self.alone {
            Alone::Named(digest) => (*digest, false),
            Alone::Tagged(digest) => (*digest, true),
            Alone::Missing(cause) | Alone::Undecided(cause) => return Some(cause.clone()),
        };
        let trusted = self.proven_by_dct().filter(|trusted| *trusted != alone);
        if let Some(trusted) = trusted.filter(|_| tagged) {
            return Some(format!(
                "the registry has {} under the tag, and Docker Content Trust proves {}: push the trusted content there again",
                short(alone),
                short(trusted)
            ));
        }
        if let Some(running) = running.filter(|running| *running != alone && !self.runs_of_index) {
            return Some(format!(
                "{} runs, and the image is {} now: roll it out anew, or push the tag again",
                short(running),
                short(alone)
            ));
        }
        match self.cosign.get(&alone) {
            Some(Signed::Proven) => None,
            Some(Signed::Unverified) => Some(
                "signed, but by which key is not known: give --cosign-key NAME=FILE to have it verified".to_owned(),
            ),
            _ => Some(format!(
                "the image names {}, which cosign has not signed: roll out the content that is signed{}",
                short(alone),
                trusted.map_or_else(String::new, |trusted| format!(", {}", short(trusted)))
            )),
        }
    }
}

/// As much of a digest as people compare.
pub(super) fn short(digest: Sha256) -> String {
    format!("sha256:{}", &digest.hex()[..12])
}

impl Looked {
    /// Its state.
    pub(super) fn state(&self) -> State {
        match &self.outcome {
            Outcome::Unchecked => State::Unchecked,
            Outcome::Denied { .. } => State::Denied,
            Outcome::Signatures(signatures) => signatures.state(),
        }
    }

    /// Its signatures, if they were looked at.
    pub(super) fn signatures(&self) -> Option<&Signatures> {
        match &self.outcome {
            Outcome::Signatures(signatures) => Some(signatures),
            _ => None,
        }
    }

    /// Whether it takes part in the move: something is asked of it.
    pub(super) fn counts(&self) -> bool {
        !matches!(self.outcome, Outcome::Unchecked | Outcome::Denied { unlisted: true, .. })
    }

    /// Whether cosign alone would admit it, with the digest that Docker Content Trust proves and that runs.
    pub(super) fn ready(&self) -> bool {
        let signed = matches!(self.state(), State::Both | State::Cosign);
        signed && self.signatures().is_some_and(|signatures| signatures.obstacle(self.asked.running).is_none())
    }

    /// The digest that it is about, if one is known.
    pub(super) fn digest(&self) -> Option<Sha256> {
        let signatures = self.signatures()?;
        signatures.proven_by_dct().or(self.asked.running).or(signatures.alone.digest())
    }

    /// What is to be done about it.
    pub(super) fn advice(&self) -> String {
        let signatures = match &self.outcome {
            Outcome::Unchecked => return "nothing: the entry asks for no signature".to_owned(),
            Outcome::Denied { reason, .. } => return format!("denied now: {reason}"),
            Outcome::Signatures(signatures) => signatures,
        };
        let signed: Vec<_> = signatures.cosign.keys().filter(|digest| signatures.signed(**digest)).collect();
        match (signatures.state(), signatures.proven_by_dct()) {
            (State::Undecided, _) => signatures.undecided().unwrap_or_default().to_owned(),
            (State::Dct, Some(digest)) => format!("sign {} with cosign", short(digest)),
            (State::Differ, Some(digest)) => format!(
                "Docker Content Trust proves {}, cosign {}: sign the one that is meant on both sides",
                short(digest),
                signed.first().map_or_else(String::new, |digest| short(**digest))
            ),
            (State::Both | State::Cosign, _) => {
                signatures.obstacle(self.asked.running).unwrap_or_else(|| "ready".to_owned())
            }
            _ => {
                let mut reasons = Vec::new();
                match (&signatures.dct, &signatures.alone) {
                    (Dct::Refuses(reason), _) | (_, Alone::Missing(reason)) => reasons.push(reason.clone()),
                    _ => {}
                }
                reasons.extend(signatures.cosign.values().filter_map(|signed| match signed {
                    Signed::No(reason) => Some(reason.clone()),
                    _ => None,
                }));
                format!("sign it: {}", reasons.join("; "))
            }
        }
    }
}

/// How many images there are of each state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Those of each state.
    pub(super) states: BTreeMap<State, usize>,
    /// Those that take part in the move.
    pub(super) checked: usize,
    /// Those of them that are ready.
    pub(super) ready: usize,
}

impl Counts {
    /// Counts images.
    pub(super) fn of<'a>(images: impl IntoIterator<Item = &'a Looked>) -> Self {
        let mut counts = Self::default();
        for image in images {
            *counts.states.entry(image.state()).or_default() += 1;
            counts.checked += usize::from(image.counts());
            counts.ready += usize::from(image.ready());
        }
        counts
    }

    /// How many there are of a state.
    pub(super) fn of_state(&self, state: State) -> usize {
        self.states.get(&state).copied().unwrap_or_default()
    }
}

/// What the next step is, in one sentence.
pub(super) fn next_step(images: &[Looked]) -> String {
    let counts = Counts::of(images);
    let (checked, ready) = (counts.checked, counts.ready);
    let undecided = counts.of_state(State::Undecided);
    let at = |stage: Stage| {
        images.iter().any(|image| image.signatures().is_some_and(|signatures| signatures.stage == stage))
    };
    let of = |count: usize| format!("{count} of {checked} image{}", if checked == 1 { "" } else { "s" });
    if checked == 0 {
        return "No entry asks for signatures of any of these images, so there is nothing to move.".to_owned();
    }
    if undecided > 0 {
        return format!(
            "{} {} ready, and {undecided} could not be decided: see to the cause that stands there, and look again.",
            of(ready),
            are(ready)
        );
    }
    if ready < checked {
        let to_sign = counts.of_state(State::Dct) + counts.of_state(State::Differ);
        let others = checked - ready - to_sign;
        let mut steps = Vec::new();
        if to_sign > 0 {
            let the_others = if others == 0 { "the other " } else { "" };
            steps.push(format!("sign {the_others}{to_sign} (countersign bridge -o script)"));
        }
        if others > 0 {
            steps.push(format!("see to the {others} for which another thing is said above"));
        }
        if at(Stage::Trust) {
            steps.push("then put anyOf in place (countersign bridge -o policy)".to_owned());
        }
        return format!("{} {} ready; {}.", of(ready), are(ready), steps.join(", "));
    }
    let all = format!("{} {} ready", of(ready), are(ready));
    if at(Stage::Trust) {
        return format!("{all}; put anyOf in place (countersign bridge -o policy).");
    }
    if at(Stage::Either) {
        return format!("{all}; let the entries ask for cosign alone (countersign bridge -o policy).");
    }
    if at(Stage::Both) {
        return format!("{all}; take trust out of the entries that ask for both before its server goes away.");
    }
    format!("{all}, and no entry asks for Docker Content Trust: the trust server is not needed for them any more.")
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}
