//! One entry of a policy: which images, and what is asked of them.

use std::sync::Arc;

use countersign_policy::{Check, Entry, Mode, Pattern, ProofPolicy, Requirement};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::Problem;
use super::cosign::{self, Cosign};
use super::trust::{self, Trust};

/// How many signers an entry may name in all its sections together: the key of each is read for every image that the entry is about.
const MAX_SIGNERS: usize = 64;

/// How many alternatives an entry may have. All of them are asked for each image; two are what a move from one format to
/// another takes.
const MAX_ALTERNATIVES: usize = 8;

/// An entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Repository {
    /// The images that it is about, with `*` as a wildcard.
    pub name: String,
    /// What it asks of them; absent or empty: nothing, they are allowed.
    #[serde(default)]
    pub policy: Option<EntryPolicy>,
}

/// What an entry asks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EntryPolicy {
    /// Whether admitted images are pinned to their signed digest; true if absent.
    #[serde(default)]
    pub mutate_image: Option<bool>,
    /// Whether the registry must have the signed content; goes with trust or cosign alone.
    #[serde(default)]
    pub require_present: Option<bool>,
    /// What is done with what the entry denies: `enforce`, `warn` or `audit`; absent: what the server and the namespace say.
    #[serde(default)]
    pub mode: Option<String>,
    /// Content trust, needed in any case.
    #[serde(default, deserialize_with = "not_null")]
    pub trust: Option<Trust>,
    /// Signatures of cosign, needed in any case.
    #[serde(default, deserialize_with = "not_null")]
    pub cosign: Option<Cosign>,
    /// Alternatives, one of which is enough; the first that holds gives the digest.
    #[serde(default, deserialize_with = "not_null")]
    pub any_of: Option<Vec<Alternative>>,
    /// Read without complaint, and not enforced.
    #[serde(default)]
    pub va: Option<Value>,
    /// Read without complaint, and not enforced.
    #[serde(default)]
    pub vulnerability: Option<Value>,
}

/// One of several alternatives. What stands in it must all hold, for one digest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Alternative {
    /// Content trust.
    #[serde(default, deserialize_with = "not_null")]
    pub trust: Option<Trust>,
    /// Signatures of cosign.
    #[serde(default, deserialize_with = "not_null")]
    pub cosign: Option<Cosign>,
}

/// A member with nothing behind it (`trust:`) is no way to ask for something, nor to do without.
fn not_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// kubectl drops members with nothing behind them, so this may be all that is left of an entry that asked for something.
const ASKS_NOTHING: &str = "is empty, so every image that the entry matches is allowed; leave it out if that is meant";

/// Reads an entry: the engine's form, and what of it is not enforced.
///
/// # Errors
/// Every problem, by the member of the entry.
pub(super) fn read(value: &Value) -> Result<(Entry, Vec<Problem>), Vec<Problem>> {
    let repository = only_objects(value)
        .and_then(|()| Repository::deserialize(value).map_err(|error| error.to_string()))
        .map_err(|problem| vec![(String::new(), problem)])?;
    let pattern = Pattern::parse(&repository.name).map_err(|error| ("name".to_owned(), error.to_string()));
    let asked = repository.policy.unwrap_or_default();
    let asks_nothing = value.get("policy").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty);
    let nothing = asks_nothing.then(|| ("policy".to_owned(), ASKS_NOTHING.to_owned()));
    let ignored = [("va", &asked.va), ("vulnerability", &asked.vulnerability)]
        .iter()
        .filter(|(_, value)| value.is_some())
        .map(|(name, _)| (format!("policy.{name}"), "is not enforced by Countersign".to_owned()))
        .chain(nothing)
        .collect();
    let mut problems = Vec::new();
    let requirement = requirement(&asked, &mut problems);
    let signers: usize = requirement.iter().flat_map(Requirement::asks).map(|proof| proof.secrets().len()).sum();
    if signers > MAX_SIGNERS && asked.any_of.is_some() {
        let problem = format!("asks for {signers} secrets in all, and {MAX_SIGNERS} are the limit");
        problems.push(("policy".to_owned(), problem));
    }
    let require_present = asked.require_present.unwrap_or_default();
    if require_present && requirement.is_none() && problems.is_empty() {
        let problem = "says which signed content must be there, so it needs trust.enabled or cosign".to_owned();
        problems.push(("policy.requirePresent".to_owned(), problem));
    }
    let mode = match asked.mode.as_deref().map(|mode| Mode::parse(mode).ok_or(mode)) {
        None => None,
        Some(Ok(mode)) => Some(mode),
        Some(Err(mode)) => {
            problems.push(("policy.mode".to_owned(), format!("is {mode:?}; write enforce, warn or audit")));
            None
        }
    };
    if mode.is_some() && requirement.is_none() && problems.is_empty() {
        let problem = "says what is done with what the entry denies, and it denies nothing; it needs trust.enabled, cosign or anyOf";
        problems.push(("policy.mode".to_owned(), problem.to_owned()));
    }
    match pattern {
        Ok(pattern) if problems.is_empty() => {
            let check = requirement.map_or(Check::Nothing, Check::Proof);
            let mutate_image = asked.mutate_image.unwrap_or(true);
            Ok((Entry { pattern, mutate_image, require_present, mode, check }, ignored))
        }
        pattern => Err(pattern.err().into_iter().chain(problems).collect()),
    }
}

/// What an entry says is done with what it denies, whatever else of it is at fault. A word that is no mode counts as the strictest.
pub(super) fn mode(value: &Value) -> Option<Mode> {
    let mode = value.get("policy")?.get("mode")?;
    Some(mode.as_str().and_then(Mode::parse).unwrap_or(Mode::Enforce))
}

/// What is asked for side by side, in an entry or in an alternative: a member for each signature format.
struct Sections<'a> {
    trust: Option<&'a Trust>,
    cosign: Option<&'a Cosign>,
}

impl<'a> Sections<'a> {
    fn of_entry(asked: &'a EntryPolicy) -> Self {
        Self { trust: asked.trust.as_ref(), cosign: asked.cosign.as_ref() }
    }

    fn of_alternative(alternative: &'a Alternative) -> Self {
        Self { trust: alternative.trust.as_ref(), cosign: alternative.cosign.as_ref() }
    }

    /// What each section that asks for something requires.
    fn requirements(&self, place: &str, problems: &mut Vec<Problem>) -> Vec<Requirement<ProofPolicy>> {
        let mut parts = Vec::new();
        let mut told = |section: &str, found: Vec<Problem>| {
            problems.extend(found.into_iter().map(|(member, problem)| (format!("{place}.{section}{member}"), problem)));
        };
        if let Some(trust) = self.trust.filter(|trust| trust.enabled) {
            let (policy, found) = trust::convert(trust);
            told("trust.", found);
            parts.push(Requirement::One(ProofPolicy::Trust(Arc::new(policy))));
        }
        if let Some(cosign) = self.cosign {
            let (policy, found) = cosign::convert(cosign);
            told("cosign", found);
            parts.push(Requirement::One(ProofPolicy::Cosign(Arc::new(policy))));
        }
        parts
    }
}

/// What all sections together require; nothing, if there is none that asks for something.
fn requirement(asked: &EntryPolicy, problems: &mut Vec<Problem>) -> Option<Requirement<ProofPolicy>> {
    let mut parts = Sections::of_entry(asked).requirements("policy", problems);
    if let Some(alternatives) = &asked.any_of {
        let place = "policy.anyOf";
        let problem = match alternatives.len() {
            0 => Some("is empty; list at least one alternative".to_owned()),
            count if count > MAX_ALTERNATIVES => {
                Some(format!("has {count} alternatives, and {MAX_ALTERNATIVES} are the limit"))
            }
            _ => None,
        };
        problems.extend(problem.map(|problem| (place.to_owned(), problem)));
        let read = |(index, alternative): (usize, &Alternative)| {
            alternative_requirement(alternative, &format!("{place}[{index}]"), problems)
        };
        let alternatives: Vec<_> = alternatives.iter().take(MAX_ALTERNATIVES).enumerate().filter_map(read).collect();
        parts.extend(Requirement::any(alternatives));
    }
    Requirement::all(parts)
}

/// What an alternative requires. One that asks for nothing would hold for every image.
fn alternative_requirement(
    alternative: &Alternative,
    place: &str,
    problems: &mut Vec<Problem>,
) -> Option<Requirement<ProofPolicy>> {
    if alternative.trust.as_ref().is_some_and(|trust| !trust.enabled) {
        let problem = "is false, so that it asks for nothing; take it out".to_owned();
        problems.push((format!("{place}.trust.enabled"), problem));
        return None;
    }
    let required = Requirement::all(Sections::of_alternative(alternative).requirements(place, problems));
    if required.is_none() {
        problems.push((place.to_owned(), "asks for nothing; give it trust or cosign".to_owned()));
    }
    required
}

/// Fails where a list stands in place of an object: the reader takes its items for the members in their order, and an empty one for an
/// object without members.
fn only_objects(entry: &Value) -> Result<(), String> {
    is_object(entry, "the entry", false)?;
    let policy = entry.get("policy").unwrap_or(&Value::Null);
    is_object(policy, "policy", true)?;
    only_objects_in_sections(policy, "policy")?;
    for (index, alternative) in policy.get("anyOf").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let place = format!("policy.anyOf[{index}]");
        is_object(alternative, &place, false)?;
        only_objects_in_sections(alternative, &place)?;
    }
    Ok(())
}

fn only_objects_in_sections(whole: &Value, place: &str) -> Result<(), String> {
    for (name, lists) in [("trust", &["signerSecrets", "rootSecrets"][..]), ("cosign", &["signerSecrets"])] {
        let section = whole.get(name).unwrap_or(&Value::Null);
        is_object(section, &format!("{place}.{name}"), true)?;
        for list in lists {
            for item in section.get(list).and_then(Value::as_array).into_iter().flatten() {
                is_object(item, &format!("an item of {place}.{name}.{list}"), false)?;
            }
        }
    }
    Ok(())
}

fn is_object(value: &Value, place: &str, nullable: bool) -> Result<(), String> {
    match value {
        Value::Object(_) => Ok(()),
        Value::Null if nullable => Ok(()),
        _ => Err(format!("{place} is not an object")),
    }
}

/// The schema of an entry.
pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "description": "An entry: images, and what is asked of them.",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["name"],
        "properties": {
            "name": {
                "type": "string", "minLength": 1, "maxLength": 1024, "pattern": r"^[^\s:/]([^\s:]|:[^\s/]|:$)*$",
                "description": "The images: a registry host, a path and perhaps a tag, with * for any run of characters, also across slashes. Without a tag it means every tag. The wildcards of the host match in the host alone. Examples: registry.example.com:5000/payments/*, docker.io/library/nginx:1.*, *",
            },
            "policy": {
                "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true,
                "description": "What is asked of the images: trust, that they are signed on a Notary server; cosign, that the registry has signatures of cosign; anyOf, that one of several alternatives holds; mutateImage, whether they are pinned to the signed digest. Empty or absent: nothing, they are allowed.",
                "properties": {
                    "mutateImage": {
                        "type": "boolean", "nullable": true,
                        "description": "Whether an admitted image is pinned to the digest that was signed. True if absent. Without it the kubelet may pull other content than was verified.",
                    },
                    "requirePresent": {
                        "type": "boolean", "nullable": true,
                        "description": "Whether the registry must have the signed content as well. False if absent: then it is the kubelet that finds it missing.",
                    },
                    "mode": {
                        "type": "string", "nullable": true,
                        "description": "What is done with an image that the entry denies: enforce, it is denied; warn, it is admitted as it is and the user is warned; audit, it is admitted as it is, logged and counted. Absent: what the server and the namespace say.",
                    },
                    "trust": trust::schema(),
                    "cosign": cosign::schema(),
                    "anyOf": {
                        "type": "array", "nullable": true,
                        "description": "Alternatives: one of them is enough. All are asked at once; of those that hold, the first in this list gives the digest. What stands beside anyOf is needed as well, for the same digest.",
                        "items": {
                            "type": "object",
                            "description": "An alternative. What stands in it must all hold, for one digest.",
                            "x-kubernetes-preserve-unknown-fields": true,
                            "properties": {"trust": trust::schema(), "cosign": cosign::schema()},
                        },
                    },
                    "va": {
                        "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true,
                        "description": "Vulnerability Advisor of IBM Cloud Private: kept, and not enforced.",
                    },
                    "vulnerability": {
                        "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true,
                        "description": "Vulnerability checks of older policies: kept, and not enforced.",
                    },
                },
            },
        },
    })
}
