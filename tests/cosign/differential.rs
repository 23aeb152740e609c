//! Forged signatures in registries, judged by the real cosign and by Countersign. Where they differ, the reason stands in
//! `differences.json`; a difference without one fails, and so does a reason without a difference.

mod forgeries;
mod liar;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use countersign_tests::{Ca, Cosign, Countersign, Problem, Registry, run};
use serde_json::{Value, json};

use crate::forgeries::{Case, Image, Make, Stored, digest, index};
use crate::liar::Liar;

/// What both make of the cases, by the registry and the name; or why that is not known.
type Outcomes = BTreeMap<(&'static str, String), Result<Judgement, String>>;

/// A registry, and the word for its kind.
struct Place<'a> {
    kind: &'static str,
    store: Store,
    cosign: &'a Cosign,
    ca: &'a Ca,
    folder: &'a Path,
}

/// What holds images and signatures.
enum Store {
    Real(Registry),
    Liar(Liar),
}

impl Store {
    fn host(&self) -> &str {
        match self {
            Self::Real(registry) => &registry.host,
            Self::Liar(liar) => &liar.host,
        }
    }

    /// Pushes an image, and gives its digest in hex.
    fn push_image(&self, repository: &str, name: &str) -> Result<String, Problem> {
        match self {
            Self::Real(registry) => Ok(registry.push(repository, "1", name)?.digest),
            Self::Liar(liar) => {
                let config = json!({"architecture": "amd64", "os": "linux", "config": {"Labels": {"test": name}}});
                liar.blob(repository, config.to_string().as_bytes());
                let manifest = forgeries::image_of(&config);
                Ok(liar.manifest(repository, "1", &manifest).trim_start_matches("sha256:").to_owned())
            }
        }
    }

    fn push_blob(&self, repository: &str, bytes: &[u8]) -> Result<(), Problem> {
        match self {
            Self::Real(registry) => registry.push_blob(repository, bytes).map(drop),
            Self::Liar(liar) => {
                liar.blob(repository, bytes);
                Ok(())
            }
        }
    }

    fn push_manifest(&self, repository: &str, tag: &str, manifest: &Value) -> Result<(), Problem> {
        match self {
            Self::Real(registry) => registry.push_manifest(repository, tag, manifest).map(drop),
            Self::Liar(liar) => {
                liar.manifest(repository, tag, manifest);
                Ok(())
            }
        }
    }
}

/// Who admits an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Judgement {
    cosign: bool,
    ours: bool,
}

impl Place<'_> {
    fn judge(&self, case: &Case) -> Result<Judgement, Problem> {
        let repository = format!("demo/{}", case.name.to_lowercase());
        let hex = self.store.push_image(&repository, &case.name)?;
        let image = Image { repository: format!("{}/{repository}", self.store.host()), hex };
        let address = format!("{}@sha256:{}", image.repository, image.hex);
        let mut key = case.key.clone();
        match &case.make {
            Make::Forged(make) => self.put(&repository, &image.hex, &make(&image))?,
            Make::Real(kind, form) => {
                let pair = self.cosign.key(&format!("{}-{}", self.kind, case.name), *kind)?;
                self.cosign.sign(&address, &pair, *form)?;
                key = pair.public_pem()?;
            }
        }
        let file = self.folder.join(format!("{}.pub", case.name));
        fs::write(&file, key)?;
        Ok(Judgement { cosign: self.cosign(case, &address, &file)?, ours: self.ours(case, &address, &file)? })
    }

    /// Pushes all that is to be there.
    fn put(&self, repository: &str, hex: &str, stored: &Stored) -> Result<(), Problem> {
        self.store.push_blob(repository, b"{}")?;
        for blob in &stored.blobs {
            self.store.push_blob(repository, blob)?;
        }
        let push = |tag: &str, manifest: &Value| self.store.push_manifest(repository, tag, manifest);
        for (end, manifest) in &stored.tags {
            let tag =
                if end.is_empty() { digest(manifest.to_string().as_bytes()) } else { format!("sha256-{hex}{end}") };
            push(&tag, manifest)?;
        }
        if let Some(manifest) = stored.sig_manifest() {
            push(&format!("sha256-{hex}.sig"), &manifest)?;
        }
        for (manifest, _) in &stored.referrers {
            push(&digest(manifest.to_string().as_bytes()), manifest)?;
        }
        if self.kind != "referrers" {
            let listed = (!stored.referrers.is_empty()).then(|| index(&stored.referrers));
            if let Some(fallback) = stored.fallback.clone().or(listed) {
                push(&format!("sha256-{hex}"), &fallback)?;
            }
        }
        if let Store::Liar(liar) = &self.store {
            stored.lies.iter().for_each(|(path, answer)| liar.say(&format!("{repository}/{path}"), answer.clone()));
        }
        Ok(())
    }

    fn cosign(&self, case: &Case, address: &str, key: &Path) -> Result<bool, Problem> {
        let mut command = self.cosign.command("verify");
        command.args(["--insecure-ignore-tlog=true", "--registry-cacert"]).arg(&self.ca.ca).arg("--key").arg(key);
        if let Some(hash) = case.hash {
            command.args(["--signature-digest-algorithm", hash]);
        }
        if case.referrer {
            command.env("COSIGN_EXPERIMENTAL", "1").args(["--experimental-oci11", "--new-bundle-format=false"]);
        }
        if let Some((name, value)) = case.claim {
            command.args(["--annotations", &format!("{name}={value}")]);
        }
        let finished = run(command.arg(address))?;
        Ok(finished.code == 0)
    }

    fn ours(&self, case: &Case, address: &str, key: &Path) -> Result<bool, Problem> {
        if let Some((name, value)) = case.claim {
            return self.reviewed(&case.name, address, &json!({"keys": [case.key], "annotations": {name: value}}));
        }
        let (key, ca) = (format!("alice={}", key.display()), self.ca.ca.display().to_string());
        let mut arguments = vec!["verify", address, "--cosign-key", &key, "--trust-ca", &ca];
        if matches!(self.store, Store::Liar(_)) {
            arguments.extend(["--insecure-registry", self.store.host()]);
        }
        let finished = Countersign::run(&arguments)?;
        match finished.code {
            0 => Ok(true),
            1 | 3 => Ok(false),
            // Such a key is refused before anything is asked.
            2 if case.name.contains("rsa-1024") || case.name.contains("rsa-e3") => Ok(false),
            _ => Err(format!("{finished:?}").into()),
        }
    }

    /// Whether a pod with the image is admitted: only a policy can demand claims.
    fn reviewed(&self, name: &str, address: &str, cosign: &Value) -> Result<bool, Problem> {
        let folder = self.folder.join(format!("{name}-policies"));
        fs::create_dir(&folder)?;
        let (pod, policy) = (self.folder.join(format!("{name}-pod.json")), folder.join("policy.json"));
        let entry = json!({"name": "*", "policy": {"cosign": cosign}});
        fs::write(
            policy,
            json!({
                "apiVersion": "securityenforcement.admission.cloud.ibm.com/v1beta1", "kind": "ClusterImagePolicy",
                "metadata": {"name": "p"}, "spec": {"repositories": [entry]},
            })
            .to_string(),
        )?;
        fs::write(
            &pod,
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
                "spec": {"containers": [{"name": "c", "image": address}]},
            })
            .to_string(),
        )?;
        let [pod, folder, ca] = [&pod, &folder, &self.ca.ca].map(|path| path.display().to_string());
        let finished =
            Countersign::run(&["review", "-f", &pod, "--policies", &folder, "--trust-ca", &ca, "-o", "json"])?;
        let report: Value = serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {finished:?}"))?;
        let image = &report["objects"][0]["images"][0];
        if image["pinned"].is_string() != (finished.code == 0)
            || (image["pinned"].is_string() == image["reason"].is_string())
        {
            return Err(format!("{finished:?}").into());
        }
        Ok(finished.code == 0)
    }

    /// What is made of each case that the registry can hold.
    fn judge_all(&self, cases: &[Case]) -> Outcomes {
        let here = cases.iter().filter(|case| case.only.map_or(self.kind != "liar", |only| only == self.kind));
        let judged = |case: &Case| self.judge(case).map_err(|problem| problem.to_string());
        here.map(|case| ((self.kind, case.name.clone()), judged(case))).collect()
    }
}

/// Who admits what the other refuses, by the case, with its registry where it differs in that one only.
fn known_differences() -> Result<BTreeMap<String, Judgement>, Problem> {
    let groups: Vec<Value> = serde_json::from_str(include_str!("differences.json"))?;
    let mut known = BTreeMap::new();
    for group in &groups {
        group["why"].as_str().filter(|why| !why.is_empty()).ok_or("a group without a reason")?;
        let judgement = match group["admitted_by"].as_str() {
            Some("cosign") => Judgement { cosign: true, ours: false },
            Some("countersign") => Judgement { cosign: false, ours: true },
            other => return Err(format!("admitted by {other:?}").into()),
        };
        for name in group["cases"].as_array().ok_or("a group without cases")? {
            let name = name.as_str().ok_or("a case without a name")?.to_owned();
            if known.insert(name.clone(), judgement).is_some() {
                return Err(format!("{name} is listed twice").into());
            }
        }
    }
    Ok(known)
}

/// What is not as it should be.
fn compare(cases: &[Case], outcomes: &Outcomes, known: &BTreeMap<String, Judgement>) -> Vec<String> {
    let sound: BTreeMap<_, _> = cases.iter().map(|case| (&case.name, case.sound)).collect();
    let mut failures = Vec::new();
    if sound.len() != cases.len() {
        failures.push("two cases have one name".to_owned());
    }
    let mut unseen: BTreeSet<&String> = known.keys().collect();
    for ((kind, name), outcome) in outcomes {
        let judged = match outcome {
            Ok(judged) => *judged,
            Err(problem) => {
                failures.push(format!("{kind}/{name}: {problem}"));
                continue;
            }
        };
        if judged.ours != sound[name] {
            failures.push(format!("{kind}/{name}: it is {}, and there is {judged:?}", sound_or_not(sound[name])));
        }
        let listed = [name.clone(), format!("{kind}/{name}")].into_iter().find_map(|name| known.get_key_value(&name));
        match listed {
            Some((name, difference)) if *difference == judged => {
                unseen.remove(name);
            }
            Some((name, _)) => {
                failures.push(format!("{kind}/{name}: listed in differences.json, and there is {judged:?}"));
            }
            None if judged.cosign != judged.ours => failures.push(format!("{kind}/{name}: {judged:?}")),
            None => {}
        }
    }
    failures.extend(unseen.iter().map(|name| format!("{name}: listed in differences.json, and there is none")));
    failures
}

fn sound_or_not(sound: bool) -> &'static str {
    if sound { "sound" } else { "broken" }
}

#[test]
fn same_judgement_as_the_real_cosign() -> Result<(), Problem> {
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let cosign = Cosign::new(&ca, folder.path())?;
    let folders = ["plain", "referrers", "liar"].map(|kind| folder.path().join(kind));
    for folder in &folders {
        fs::create_dir(folder)?;
    }
    let place = |kind, store, folder| Place { kind, store, cosign: &cosign, ca: &ca, folder };
    let plain = place("plain", Store::Real(Registry::start(&ca, &folders[0])?), &folders[0]);
    let referrers = place("referrers", Store::Real(Registry::start_with_referrers(&ca, &folders[1])?), &folders[1]);
    let liar = place("liar", Store::Liar(Liar::start()?), &folders[2]);
    let cases = forgeries::all();
    let outcomes = std::thread::scope(|scope| {
        let other = scope.spawn(|| referrers.judge_all(&cases));
        let mut outcomes = plain.judge_all(&cases);
        outcomes.extend(liar.judge_all(&cases));
        outcomes.extend(other.join().expect("a thread that does not panic"));
        outcomes
    });
    let failures = compare(&cases, &outcomes, &known_differences()?);
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    Ok(())
}
