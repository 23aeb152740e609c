//! Hand-made repositories, judged by the real `notary` client and by Countersign. Where they differ, the reason stands in
//! `differences.json`; a difference without one fails, and so does a reason without a difference.

#![expect(clippy::result_large_err, reason = "the verifier's error names roles and numbers, and is made once a case")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use countersign_image::{Sha256, Wanted};
use countersign_notary::{Answer, Memory, Repository, RootPins, Signer, Update};
use countersign_tests::{Ca, Countersign, FileServer, Problem, run};
use forge::{Case, Files, Verdict, hex};
use jiff::{Timestamp, Unit};
use serde_json::{Value, json};

/// How many random changes to signed content are tried besides the cases.
const MUTATIONS: usize = 60;

/// What somebody makes of a case: the digest in hex, or nothing.
type Judgement = Option<String>;

/// A tag as `notary list` prints it.
struct Row {
    tag: String,
    digest: String,
    role: String,
}

/// The real client, with a folder of its own for one case.
struct Real<'a> {
    url: &'a str,
    ca: &'a Ca,
    folder: &'a Path,
    case: &'a Case,
}

impl Real<'_> {
    /// The tags of a role and the roles below it, or of the whole repository; nothing if the client refuses it.
    fn list(&self, role: Option<&str>) -> Result<Option<Vec<Row>>, Problem> {
        let mut command = Command::new("notary");
        command.args(["-s", self.url]).arg("--tlscacert").arg(&self.ca.ca).arg("-d").arg(self.folder);
        command.arg("-c").arg(self.folder.join("config.json")).args(["list", &self.case.gun]);
        if let Some(role) = role {
            command.args(["-r", role]);
        }
        let finished = run(&mut command)?;
        // Two lines of heading; then NAME, DIGEST, SIZE and ROLE, none of which has a space in it.
        let rows = finished.stdout.lines().filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [tag, digest, _size, role] if digest.len() == 64 => {
                Some(Row { tag: tag.to_owned(), digest: digest.to_owned(), role: role.to_owned() })
            }
            _ => None,
        });
        Ok((finished.code == 0).then(|| rows.collect()))
    }

    /// What a role itself, not one below it, signs for the question.
    fn signed_by(&self, role: &str) -> Result<Judgement, Problem> {
        let asked = self.case.ask.digest.as_ref().map(|digest| hex(digest));
        let wanted = |row: &Row| {
            row.role == role
                && self.case.ask.tag.as_ref().is_none_or(|tag| *tag == row.tag)
                && asked.as_ref().is_none_or(|digest| *digest == row.digest)
        };
        Ok(self.list(Some(role))?.and_then(|rows| rows.into_iter().find(wanted)).map(|row| row.digest))
    }

    /// What a careful user of the client would conclude: every signer's role has the tag, the released digest comes from
    /// `targets/releases` before `targets` as with `docker pull`, and all agree.
    fn judge(&self) -> Result<Judgement, Problem> {
        if self.list(None)?.is_none() {
            return Ok(None);
        }
        let released = match self.signed_by("targets/releases")? {
            Some(digest) => Some(digest),
            None => self.signed_by("targets")?,
        };
        let mut agreed = released;
        for (name, _) in &self.case.signers {
            let signed = self.signed_by(&format!("targets/{name}"))?;
            if signed.is_none() || agreed.as_ref().is_some_and(|other| Some(other) != signed.as_ref()) {
                return Ok(None);
            }
            agreed = signed;
        }
        Ok(agreed)
    }
}

/// The real client's judgement. What was seen before is shown to it first.
fn real(server: &FileServer, ca: &Ca, mount: &str, case: &Case) -> Result<Judgement, Problem> {
    let folder = tempfile::tempdir()?;
    let mut pins = BTreeMap::new();
    if !case.root_pins.is_empty() {
        pins.insert(&case.gun, &case.root_pins);
    }
    let config = json!({"trust_pinning": {"certs": pins}});
    fs::write(folder.path().join("config.json"), config.to_string())?;
    let url = server.mount(mount, case.before.clone().unwrap_or_else(|| case.files.clone()));
    let client = Real { url: &url, ca, folder: folder.path(), case };
    if case.before.is_some() {
        client.list(None)?.ok_or_else(|| format!("{}: the client refuses the moment before", case.name))?;
        server.mount(mount, case.files.clone());
    }
    client.judge()
}

/// Countersign's judgement: by its command line, or, where it must remember something, by its verifier.
fn ours(server: &FileServer, ca: &Ca, mount: &str, case: &Case) -> Result<Judgement, Problem> {
    if let Some(before) = &case.before {
        return remembering(case, before);
    }
    let folder = tempfile::tempdir()?;
    let url = server.mount(mount, case.files.clone());
    let tag = case.ask.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
    let digest = case.ask.digest.as_ref().map(|digest| format!("@sha256:{}", hex(digest))).unwrap_or_default();
    let mut arguments = vec!["verify".to_owned(), format!("{}{tag}{digest}", case.gun)];
    arguments.extend(["--trust-server".to_owned(), url, "--trust-ca".to_owned(), ca.ca.display().to_string()]);
    arguments.extend(["-o".to_owned(), "json".to_owned()]);
    for (index, (name, pem)) in case.signers.iter().enumerate() {
        let file = folder.path().join(format!("signer-{index}.pub"));
        fs::write(&file, pem)?;
        arguments.extend(["--signer".to_owned(), format!("{name}={}", file.display())]);
    }
    for (index, pin) in case.root_pins.iter().enumerate() {
        let file = folder.path().join(format!("root-{index}.pem"));
        fs::write(&file, pin)?;
        let pin = if pin.contains("BEGIN") { file.display().to_string() } else { pin.clone() };
        arguments.extend(["--root-key".to_owned(), pin]);
    }
    let finished = Countersign::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap_or_default();
    match (finished.code, answer["digest"].as_str()) {
        (0, Some(digest)) => Ok(Some(digest.trim_start_matches("sha256:").to_owned())),
        (1, None) => Ok(None),
        _ => Err(format!("{}: {finished:?}", case.name).into()),
    }
}

fn remembering(case: &Case, before: &Files) -> Result<Judgement, Problem> {
    let before = update(case, before, None, &RootPins::none()).map_err(|error| format!("{}: {error}", case.name))?;
    let mut pins = RootPins::none();
    for pin in &case.root_pins {
        pins.add(pin)?;
    }
    let mut signers = Vec::new();
    for (name, pem) in &case.signers {
        signers.push(Signer::new(name, pem.as_bytes())?);
    }
    let wanted = match (&case.ask.tag, case.ask.digest.map(Sha256::from_bytes)) {
        (Some(tag), Some(digest)) => Wanted::TagAndDigest(tag.clone(), digest),
        (Some(tag), None) => Wanted::Tag(tag.clone()),
        (None, digest) => Wanted::Digest(digest.ok_or("the case asks nothing")?),
    };
    let after = update(case, &case.files, Some(before.memory()), &pins);
    let answer = after.and_then(|repository| repository.resolve(&wanted, &signers, case.now));
    Ok(answer.ok().map(|resolved| resolved.digest().hex()))
}

fn update(
    case: &Case,
    files: &Files,
    memory: Option<&Memory>,
    pins: &RootPins,
) -> Result<Repository, countersign_notary::Error> {
    let update = Update::start(&case.gun, None, memory, pins.clone(), case.now)?;
    update.run(|request| files.get(&request.file).map_or(Answer::Missing, |bytes| Answer::Found(bytes.to_vec())))
}

/// The cases at this moment, as the client has no other clock, and random changes to one that is sound.
fn scenarios() -> Result<Vec<Case>, Problem> {
    let now = Timestamp::now().round(Unit::Second)?;
    let mut cases = forge::cases::all(now);
    let sound = cases.iter().find(|case| case.name == "sound/two-signers").cloned().ok_or("two-signers is gone")?;
    for (index, (_, files)) in forge::mutations(&sound.files, 11).take(MUTATIONS).enumerate() {
        let verdict = Verdict::Error(forge::Expect::default());
        cases.push(Case { name: format!("mutation/{index}"), files, verdict, ..sound.clone() });
    }
    Ok(cases)
}

/// Reasons by the name of the case.
fn known_differences() -> Result<BTreeMap<String, String>, Problem> {
    let groups: Vec<Value> = serde_json::from_str(include_str!("differences.json"))?;
    let mut known = BTreeMap::new();
    for group in &groups {
        let why = group["why"].as_str().filter(|why| !why.is_empty()).ok_or("a group without a reason")?;
        for name in group["cases"].as_array().ok_or("a group without cases")? {
            let name = name.as_str().ok_or("a case without a name")?.to_owned();
            if known.insert(name.clone(), why.to_owned()).is_some() {
                return Err(format!("{name} is listed twice").into());
            }
        }
    }
    Ok(known)
}

#[test]
fn same_judgement_as_the_real_client() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let server = FileServer::start(&ca)?;
    let cases = scenarios()?;
    assert!(cases.len() >= 150, "only {} scenarios", cases.len());
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mount = case.name.replace('/', "-");
            let judge = || Ok::<_, Problem>((real(&server, &ca, &mount, case)?, ours(&server, &ca, &mount, case)?));
            let outcome = judge().map_err(|problem| problem.to_string());
            outcomes.lock().expect("no thread panics while it writes").insert(case.name.clone(), outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let mut known = known_differences()?;
    let mut failures = Vec::new();
    for (name, outcome) in outcomes.into_inner()? {
        match outcome {
            Err(problem) => failures.push(format!("{name}: {problem}")),
            Ok((real, ours)) if real == ours => {}
            Ok((real, ours)) => {
                if known.remove(&name).is_none() {
                    failures.push(format!("{name}: notary says {real:?}, Countersign {ours:?}"));
                }
            }
        }
    }
    failures.extend(known.keys().map(|name| format!("{name}: listed in differences.json, and there is none")));
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    Ok(())
}
