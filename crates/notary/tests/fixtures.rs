//! Hand-made repositories, one defect a folder: each must come to the answer that its `case.json` names.
//!
//! The folders are written by `forge`, which shares no code with this crate.

#![allow(clippy::disallowed_methods, reason = "a test reads its fixtures; the crate itself reads nothing")]

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_image::{Sha256, Wanted};
use countersign_notary::{Error, Memory, Repository, RootPins, Signer};
use forge::Files;
use jiff::Timestamp;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    gun: String,
    now: Timestamp,
    ask: Ask,
    signers: Vec<SignerText>,
    root_pins: Vec<String>,
    remembered: Option<String>,
    expect: Expect,
    why: String,
}

#[derive(Deserialize)]
struct Ask {
    tag: Option<String>,
    digest: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignerText {
    name: String,
    public_key: String,
}

#[derive(Deserialize)]
struct Expect {
    digest: Option<String>,
    error: Option<String>,
    role: Option<String>,
    inner: Option<String>,
}

fn fixtures(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(kind);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn digest_of(text: &str) -> Sha256 {
    Sha256::parse(text).unwrap_or_else(|| panic!("{text} is no digest"))
}

fn ask(repository: &Repository, case: &Case) -> Result<String, Error> {
    let signers: Vec<_> =
        case.signers.iter().map(|signer| Signer::new(&signer.name, signer.public_key.as_bytes()).unwrap()).collect();
    let wanted = match (&case.ask.tag, &case.ask.digest) {
        (Some(tag), None) => Wanted::Tag(tag.clone()),
        (Some(tag), Some(digest)) => Wanted::TagAndDigest(tag.clone(), digest_of(digest)),
        (None, Some(digest)) => Wanted::Digest(digest_of(digest)),
        (None, None) => panic!("the case asks nothing"),
    };
    repository.resolve(&wanted, &signers, case.now).map(|proof| proof.digest().to_string())
}

/// What is wrong with a case, if anything is.
fn check(folder: &Path) -> Result<(), String> {
    let text = fs::read_to_string(folder.join("case.json")).map_err(|error| error.to_string())?;
    let case: Case = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let mut pins = RootPins::none();
    for pin in &case.root_pins {
        pins.add(pin).map_err(|error| error.to_string())?;
    }
    let files = Files::read(folder).map_err(|error| error.to_string())?;
    let answer = |held: Option<Arc<Repository>>, memory: Option<&Memory>| {
        server::run(&case.gun, &files, held, memory, &pins, case.now).0.and_then(|repository| ask(&repository, &case))
    };
    let Some(before) = &case.remembered else {
        return compare(&case, &answer(None, None));
    };
    let before = Files::read(&folder.join(before)).map_err(|error| error.to_string())?;
    let before = server::run(&case.gun, &before, None, None, &RootPins::none(), case.now)
        .0
        .map_err(|error| format!("the moment before is not sound: {error}"))?;
    // The same must come whether the process still holds the repository, or was started anew and only remembers it.
    compare(&case, &answer(None, Some(before.memory()))).map_err(|problem| format!("remembered: {problem}"))?;
    compare(&case, &answer(Some(Arc::new(before)), None)).map_err(|problem| format!("held: {problem}"))
}

fn compare(case: &Case, answer: &Result<String, Error>) -> Result<(), String> {
    let expected = (&case.expect.digest, &case.expect.error);
    let wrong = |what: &str| Err(format!("{what}, but should be {expected:?}\n    since {}", case.why));
    match (answer, expected) {
        (Ok(found), (Some(digest), None)) if found == digest => Ok(()),
        (Ok(found), _) => wrong(&format!("answers {found}")),
        (Err(error), (None, Some(variant))) => {
            let shown = format!("{error:?}");
            let is = |prefix: &str, name: &str| {
                let starts = |at: usize| {
                    let rest = &shown[at + prefix.len()..];
                    rest.starts_with(name) && !rest[name.len()..].starts_with(|next: char| next.is_alphanumeric())
                };
                shown.match_indices(prefix).any(|(at, _)| starts(at))
            };
            let inner = |name: &str| {
                ["problem: Some(", "problem: Key(", "problem: ", "cause: "].iter().any(|prefix| is(prefix, name))
            };
            let role = |name: &str| shown.contains(&format!("RoleName({name:?})"));
            let good = shown.split(|next: char| !next.is_alphanumeric()).next() == Some(variant)
                && case.expect.inner.as_deref().is_none_or(inner)
                && case.expect.role.as_deref().is_none_or(role);
            if good {
                Ok(())
            } else {
                wrong(&format!(
                    "is refused with {shown} (wanted role {:?}, inner {:?})",
                    case.expect.role, case.expect.inner
                ))
            }
        }
        (Err(error), _) => wrong(&format!("is refused: {error}")),
    }
}

fn check_all(kind: &str, at_least: usize) {
    let folders = fixtures(kind);
    assert!(folders.len() >= at_least, "only {} {kind} repositories", folders.len());
    let name = |folder: &Path| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failures: Vec<_> = folders
        .iter()
        .filter_map(|folder| check(folder).err().map(|problem| format!("{}: {problem}", name(folder))))
        .collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), folders.len(), failures.join("\n"));
}

#[test]
fn sound_repositories_answer() {
    check_all("sound", 30);
}

#[test]
fn broken_repositories_are_refused_for_their_defect() {
    check_all("broken", 90);
}

/// A broken repository is named after the error that it comes to.
#[test]
fn folders_are_named_after_their_error() {
    for folder in fixtures("broken") {
        let text = fs::read_to_string(folder.join("case.json")).unwrap();
        let case: Case = serde_json::from_str(&text).unwrap();
        let variant = case.expect.error.unwrap_or_default();
        let mut label = String::new();
        for (index, character) in variant.char_indices() {
            if index > 0 && character.is_ascii_uppercase() {
                label.push('-');
            }
            label.push(character.to_ascii_lowercase());
        }
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with(&format!("{label}--")), "{name} comes to {variant}");
    }
}

/// The folders are what `forge` writes now: `cargo run -p forge -- fixtures tests/fixtures` brings them up to date.
#[test]
fn folders_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let cases = forge::cases::all(forge::NOW);
    for case in cases.iter().filter(|case| case.on_disk) {
        let folder = root.join(&case.name);
        assert_eq!(Files::read(&folder).unwrap_or_default(), case.files, "{} is not up to date", case.name);
    }
    let on_disk = cases.iter().filter(|case| case.on_disk).count();
    assert_eq!(fixtures("sound").len() + fixtures("broken").len(), on_disk, "a folder has no case any more");
}

/// Cases too large for a folder: thousands of tags, hundreds of delegations, files of many megabytes.
#[test]
fn large_repositories() {
    let folder = std::env::temp_dir().join(format!("countersign-large-{}", std::process::id()));
    let mut failures = Vec::new();
    for case in forge::cases::all(forge::NOW).iter().filter(|case| !case.on_disk) {
        case.write(&folder).unwrap();
        failures.extend(check(&folder.join(&case.name)).err().map(|problem| format!("{}: {problem}", case.name)));
    }
    fs::remove_dir_all(&folder).unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// No single change to what is signed, in any role, is ever taken for genuine.
#[test]
fn no_mutation_verifies() {
    let case = forge::cases::all(forge::NOW).into_iter().find(|case| case.name == "sound/two-signers").unwrap();
    let mut tried = 0;
    for (what, files) in forge::mutations(&case.files, 7).take(400) {
        let (outcome, _) = server::run(&case.gun, &files, None, None, &RootPins::none(), case.now);
        let signers: Vec<_> =
            case.signers.iter().map(|(name, pem)| Signer::new(name, pem.as_bytes()).unwrap()).collect();
        let answer = outcome.and_then(|found| found.resolve(&Wanted::Tag("v1".into()), &signers, case.now));
        assert!(answer.is_err(), "{what}: {answer:?}");
        tried += 1;
    }
    assert!(tried >= 100, "only {tried} mutations");
}
