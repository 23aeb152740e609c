//! A case: a repository, a question to it, and the answer that must come.

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::files::Files;
use crate::key::Key;
use crate::repo::Repo;
use crate::{digest_of, hex};

/// The repository of almost every case.
pub const GUN: &str = "registry.example.com/team/app";

/// What is asked of a repository: a tag, a digest, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// `name:tag`
    pub tag: Option<String>,
    /// `name@sha256:…`
    pub digest: Option<[u8; 32]>,
}

/// What must come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This digest.
    Digest([u8; 32]),
    /// An error.
    Error(Expect),
}

/// The error that must come, as far as it is laid down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// The verifier's error variant.
    pub variant: &'static str,
    /// The role that it speaks of.
    pub role: Option<&'static str>,
    /// The variant of its `problem`, or of the `cause` that it wraps.
    pub inner: Option<&'static str>,
}

/// The verifier's error variants that cases may name: the one place to change when they are renamed.
const VARIANTS: [&str; 39] = [
    "BadMember",
    "BadRoleName",
    "BadTarget",
    "BadThreshold",
    "BadTime",
    "BadVersion",
    "CaseVariantMember",
    "DigestDiffers",
    "DigestNotSigned",
    "DuplicateDelegation",
    "Expired",
    "HashMismatch",
    "Json",
    "KeyIdMismatch",
    "MissingFile",
    "MissingMember",
    "NoSha256",
    "NoTrustData",
    "NotInSnapshot",
    "NotSigned",
    "ReleasesInvalid",
    "Rollback",
    "RootCertificate",
    "RootNotChained",
    "RootNotPinned",
    "RootTooFar",
    "SameVersionOtherContent",
    "SignerInvalid",
    "SignerKeyDidNotSign",
    "SignerNotDelegated",
    "SignerNotPublished",
    "SignersDisagree",
    "ThresholdNotMet",
    "TooLong",
    "TooManyDelegations",
    "TooManySignatures",
    "UnknownKey",
    "Withdrawn",
    "WrongType",
];

impl Expect {
    /// Reads `VARIANT`, `VARIANT ROLE` or `VARIANT ROLE INNER`, with `-` for a role that is not laid down.
    ///
    /// # Panics
    /// If the verifier has no such variant.
    #[must_use]
    pub fn parse(text: &'static str) -> Self {
        let mut words = text.split(' ');
        let variant = words.next().unwrap_or_default();
        assert!(VARIANTS.contains(&variant), "{variant} is no error variant");
        let role = words.next().filter(|role| *role != "-");
        Self { variant, role, inner: words.next() }
    }

    /// The variant in kebab case, which begins the names of folders.
    #[must_use]
    pub fn label(&self) -> String {
        let mut label = String::new();
        for (at, character) in self.variant.char_indices() {
            if at > 0 && character.is_ascii_uppercase() {
                label.push('-');
            }
            label.push(character.to_ascii_lowercase());
        }
        label
    }
}

/// A repository, a question to it, and the answer that must come.
#[derive(Clone, Debug)]
pub struct Case {
    /// The name of the case, and of its folder: `sound/…` or `broken/<variant>--<defect>`.
    pub name: String,
    /// The repository's name.
    pub gun: String,
    /// When the question is asked.
    pub now: Timestamp,
    /// The question.
    pub ask: Ask,
    /// Required signers: name and PEM text.
    pub signers: Vec<(String, String)>,
    /// Pinned root keys: ids, or PEM text.
    pub root_pins: Vec<String>,
    /// What the server showed earlier, if the case is about memory. That moment is sound.
    pub before: Option<Files>,
    /// What the server shows.
    pub files: Files,
    /// The answer.
    pub verdict: Verdict,
    /// One sentence: why this answer.
    pub why: String,
    /// Whether the files are small enough to be kept as fixtures.
    pub on_disk: bool,
}

/// A case under construction: a sound repository with one signer, alice, who signed `v1`, to which something is done.
pub struct Draft {
    /// The repository.
    pub repo: Repo,
    /// The question: `v1`, unless changed.
    pub ask: Ask,
    /// Required signers: alice with her key, unless changed.
    pub signers: Vec<(String, String)>,
    /// Pinned root keys: none, unless changed.
    pub root_pins: Vec<String>,
    /// What was shown before; see [`Draft::remember`].
    pub before: Option<Files>,
    /// Whether the files are small enough to be kept as fixtures.
    pub on_disk: bool,
    /// The digest that a sound repository answers.
    pub digest: [u8; 32],
    after: Vec<Box<dyn FnOnce(&mut Files)>>,
}

impl Draft {
    /// The repository that cases start from.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let mut draft = Self::empty(GUN, now);
        let alice = Key::p256("alice");
        draft.repo.signer("alice", &alice).sign("alice", "v1", &digest_of("v1"));
        draft.require("alice", &alice);
        draft
    }

    /// A repository without signers and tags.
    #[must_use]
    pub fn empty(gun: &str, now: Timestamp) -> Self {
        Self {
            repo: Repo::new(gun, now),
            ask: Ask { tag: Some("v1".to_owned()), digest: None },
            signers: Vec::new(),
            root_pins: Vec::new(),
            before: None,
            on_disk: true,
            digest: digest_of("v1"),
            after: Vec::new(),
        }
    }

    /// Asks for one more signer.
    pub fn require(&mut self, name: &str, key: &Key) -> &mut Self {
        self.signers.push((name.to_owned(), key.pem()));
        self
    }

    /// Asks for no signer at all: what is released decides.
    pub fn no_signers(&mut self) -> &mut Self {
        self.signers.clear();
        self
    }

    /// Keeps the present moment as the one that was seen before.
    pub fn remember(&mut self) -> &mut Self {
        self.before = Some(self.repo.build());
        self
    }

    /// Changes the files once everything is signed.
    pub fn after(&mut self, edit: impl FnOnce(&mut Files) + 'static) -> &mut Self {
        self.after.push(Box::new(edit));
        self
    }

    /// Makes the case.
    #[must_use]
    pub fn finish(mut self, name: String, verdict: Option<Expect>, why: &str) -> Case {
        let mut files = self.repo.build();
        for edit in self.after {
            edit(&mut files);
        }
        Case {
            name,
            gun: self.repo.gun().to_owned(),
            now: self.repo.now(),
            ask: self.ask,
            signers: self.signers,
            root_pins: self.root_pins,
            before: self.before,
            files,
            verdict: verdict.map_or(Verdict::Digest(self.digest), Verdict::Error),
            why: why.to_owned(),
            on_disk: self.on_disk,
        }
    }
}

impl Case {
    /// What stands in `case.json`.
    #[must_use]
    pub fn describe(&self) -> Value {
        let digest = |digest: &[u8; 32]| format!("sha256:{}", hex(digest));
        let mut ask = serde_json::Map::new();
        if let Some(tag) = &self.ask.tag {
            ask.insert("tag".to_owned(), json!(tag));
        }
        if let Some(asked) = &self.ask.digest {
            ask.insert("digest".to_owned(), json!(digest(asked)));
        }
        let expect = match &self.verdict {
            Verdict::Digest(wanted) => json!({"digest": digest(wanted)}),
            Verdict::Error(error) => {
                let mut expect = serde_json::Map::new();
                expect.insert("error".to_owned(), json!(error.variant));
                if let Some(role) = error.role {
                    expect.insert("role".to_owned(), json!(role));
                }
                if let Some(inner) = error.inner {
                    expect.insert("inner".to_owned(), json!(inner));
                }
                Value::Object(expect)
            }
        };
        let signers: Vec<Value> =
            self.signers.iter().map(|(name, pem)| json!({"name": name, "publicKey": pem})).collect();
        let mut case = json!({
            "gun": self.gun,
            "now": self.now.to_string(),
            "ask": ask,
            "signers": signers,
            "root_pins": self.root_pins,
            "expect": expect,
            "why": self.why,
        });
        if self.before.is_some() {
            case["remembered"] = json!("before");
        }
        case
    }

    /// Writes the case into a folder of its name below `folder`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let folder = folder.join(&self.name);
        self.files.write(&folder)?;
        if let Some(before) = &self.before {
            before.write(&folder.join("before"))?;
        }
        let text = serde_json::to_string_pretty(&self.describe()).map_err(io::Error::other)?;
        fs::write(folder.join("case.json"), text + "\n")
    }
}
