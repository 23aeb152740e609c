//! What was found beside facts, for whoever reads a denial: "unsigned" must not stand where "signed otherwise" is meant.

use std::collections::{BTreeMap, BTreeSet};

use countersign_image::shown;

use crate::limits::MAX_TOLD;
use crate::manifest::{Form, ManifestProblem};
use crate::statement::{SIGNATURE, StatementProblem};
use crate::verify::{Fact, Skipped};

/// A bound that was hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// `manifests` or `layers`.
    pub what: &'static str,
    /// How many were read.
    pub read: usize,
    /// Of how many.
    pub of: usize,
}

/// What was found for a digest, whoever put it there. It decides nothing; texts in it are as they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    signatures: BTreeMap<Form, usize>,
    hints: BTreeSet<String>,
    attestations: BTreeSet<String>,
    notation: usize,
    other_types: BTreeSet<String>,
    perhaps_ed25519ph: bool,
    refused: Vec<String>,
    refused_of_keys: bool,
    left_out: Vec<LeftOut>,
}

impl Found {
    /// How many signatures there are in each form, by whatever keys.
    #[must_use]
    pub fn signatures(&self) -> &BTreeMap<Form, usize> {
        &self.signatures
    }

    /// The keys that bundles say they are by, where none of the policy's is it: [`countersign_keys::Fingerprint::base64`].
    pub fn hints(&self) -> impl Iterator<Item = &str> {
        self.hints.iter().map(String::as_str)
    }

    /// Predicates of attestations.
    pub fn attestations(&self) -> impl Iterator<Item = &str> {
        self.attestations.iter().map(String::as_str)
    }

    /// How many Notation signatures there are.
    #[must_use]
    pub fn notation(&self) -> usize {
        self.notation
    }

    /// Types of other artifacts and layers.
    pub fn other_types(&self) -> impl Iterator<Item = &str> {
        self.other_types.iter().map(String::as_str)
    }

    /// Whether a signature could be one of Ed25519ph by one of the keys.
    #[must_use]
    pub fn perhaps_ed25519ph(&self) -> bool {
        self.perhaps_ed25519ph
    }

    /// Why things that look like signatures are none; the first few.
    #[must_use]
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// Whether one of them is by a key that was asked for.
    #[must_use]
    pub fn refused_of_keys(&self) -> bool {
        self.refused_of_keys
    }

    /// Bounds that were hit.
    #[must_use]
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Notes what a candidate came to.
    pub(crate) fn candidate(&mut self, form: Form, result: &Result<Fact, Skipped>) {
        match result {
            Ok(_) => self.signature(form),
            Err(Skipped::OtherKeys { hint, predicate, perhaps_ed25519ph }) => {
                self.perhaps_ed25519ph |= perhaps_ed25519ph;
                match predicate {
                    Some(predicate) if predicate != SIGNATURE => told(&mut self.attestations, predicate),
                    _ => {
                        self.signature(form);
                        if let Some(hint) = hint {
                            told(&mut self.hints, hint);
                        }
                    }
                }
            }
            Err(Skipped::Statement { problem: StatementProblem::Attestation(predicate), .. }) => {
                told(&mut self.attestations, predicate);
            }
            Err(problem) => {
                self.refused_of_keys |= matches!(problem, Skipped::Payload { .. } | Skipped::Statement { .. });
                self.refuse(&problem.to_string());
            }
        }
    }

    /// Notes a manifest that is not looked at.
    pub(crate) fn manifest(&mut self, problem: &ManifestProblem) {
        self.refuse(&format!("a manifest of signatures is not taken: {problem}"));
    }

    /// Notes what came in place of something that could have held signatures.
    pub(crate) fn unusable(&mut self, why: &str) {
        self.refuse(why);
    }

    /// Notes a predicate that a list tells of.
    pub(crate) fn attestation(&mut self, predicate: &str) {
        told(&mut self.attestations, predicate);
    }

    pub(crate) fn notation_signature(&mut self) {
        self.notation += 1;
    }

    pub(crate) fn other_type(&mut self, media_type: &str) {
        told(&mut self.other_types, media_type);
    }

    pub(crate) fn leave_out(&mut self, what: &'static str, read: usize, of: usize) {
        if self.left_out.len() < MAX_TOLD {
            self.left_out.push(LeftOut { what, read, of });
        }
    }

    fn signature(&mut self, form: Form) {
        *self.signatures.entry(form).or_default() += 1;
    }

    fn refuse(&mut self, why: &str) {
        // A name in it can be as long as a document.
        let why = shown(why);
        if self.refused.len() < MAX_TOLD && !self.refused.contains(&why) {
            self.refused.push(why);
        }
    }

    /// `2 signatures of DIGEST found (1 under the .sig tag, 1 bundle)`; nothing if there are none.
    pub(crate) fn count(&self, digest: &str) -> Option<String> {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let parts = self.signatures.iter().map(|(form, count)| match form {
            Form::SigTag => format!("{count} under the .sig tag"),
            Form::SigReferrer => format!("{count} in a referrer"),
            Form::Bundle => format!("{count} bundle{}", plural(*count)),
        });
        let parts: Vec<String> = parts.collect();
        let all: usize = self.signatures.values().sum();
        (all > 0).then(|| format!("{all} signature{} of {digest} found ({})", plural(all), parts.join(", ")))
    }

    /// What else there is to say, each part after a semicolon.
    pub(crate) fn asides(&self, attestations_too: bool) -> String {
        // The empty one at the front makes the first semicolon.
        let mut parts = vec![String::new()];
        if attestations_too && !self.attestations.is_empty() {
            parts.push(format!("there are attestations ({}), which are no signatures", self.attestation_list()));
        }
        parts.extend(self.refused.iter().cloned());
        if self.perhaps_ed25519ph {
            parts.push("perhaps signed with Ed25519ph, which is not supported".to_owned());
        }
        if self.notation > 0 {
            parts.push("a Notation signature was found, which this entry does not ask for".to_owned());
        }
        let bound = |left: &LeftOut| format!("only {} of {} {} were read", left.read, left.of, left.what);
        parts.extend(self.left_out.iter().map(bound));
        parts.join("; ")
    }

    pub(crate) fn attestation_list(&self) -> String {
        self.attestations.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// Keeps a text for a message, if there are not enough yet.
fn told(texts: &mut BTreeSet<String>, text: &str) {
    if texts.len() < MAX_TOLD {
        texts.insert(shown(text));
    }
}
