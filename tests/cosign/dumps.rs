//! Writes down what the real cosign puts into registries: a folder for each way to sign, for tests that run without it.
//!
//! `scripts/cosign-dumps` runs it; `dumps/README.md` says what it writes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use countersign_tests::{Ca, Cosign, Form, KeyKind, KeyPair, Problem, Pushed, Registry, Signing};
use serde_json::{Value, json};

/// What is attested, where only that counts: its type and its predicate.
const ATTESTED: (&str, &str) = ("https://example.com/scan/v1", r#"{"passed":false}"#);

/// A registry, and its name in the dumps.
type Named<'a> = (&'a str, &'a Registry);

/// Whoever signs, and whatever is signed.
struct Dumps {
    cosign: Cosign,
    release: String,
    alice: KeyPair,
    bob: KeyPair,
    of_all_kinds: Vec<KeyPair>,
    out: PathBuf,
}

/// One case, under way.
struct Case<'a> {
    dumps: &'a Dumps,
    registry: &'a Registry,
    folder: PathBuf,
    about: Value,
    /// Where the image is.
    repository: String,
    /// What may have been signed.
    digests: Vec<String>,
}

impl Dumps {
    fn make(cosign: Cosign, out: &Path) -> Result<Self, Problem> {
        let release = cosign.release()?;
        let of_all_kinds: Result<Vec<_>, Problem> =
            KeyKind::ALL.into_iter().map(|kind| cosign.key(kind.name(), kind)).collect();
        let (alice, bob) = (cosign.key("alice", KeyKind::P256)?, cosign.key("bob", KeyKind::P256)?);
        let out = out.join(format!("v{release}"));
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        Ok(Self { alice, bob, of_all_kinds: of_all_kinds?, release, cosign, out })
    }

    /// Pushes an image of the case's own, lets it be signed, and writes down what is in the registry then.
    fn case(
        &self,
        (place, registry): Named<'_>,
        name: &str,
        about: Value,
        sign: impl FnOnce(&mut Case<'_>, &str) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let name = format!("{name}--{place}");
        let repository = format!("demo/{name}");
        let image = registry.push(&repository, "1", &name)?;
        self.case_of((place, registry), &name, repository, &[image], about, sign)
    }

    fn case_of(
        &self,
        (place, registry): Named<'_>,
        name: &str,
        repository: String,
        images: &[Pushed],
        mut about: Value,
        sign: impl FnOnce(&mut Case<'_>, &str) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let digests: Vec<_> = images.iter().map(|image| format!("sha256:{}", image.digest)).collect();
        about["cosign"] = json!(self.release);
        about["registry"] = json!(place);
        about["host"] = json!(registry.host);
        about["repository"] = json!(repository);
        about["digest"] = json!(digests[0]);
        let folder = self.out.join(name);
        let address = format!("{}/{repository}@{}", registry.host, digests[0]);
        let mut case = Case { dumps: self, registry, folder, about, repository, digests };
        sign(&mut case, &address)?;
        let written = case.write();
        written.map_err(|error| format!("{name}: {error}").into())
    }

    /// Every case of one registry.
    fn all(&self, registry: Named<'_>) -> Result<(), Problem> {
        for form in Form::ALL {
            let form_name = form.name();
            for key in &self.of_all_kinds {
                let kind = key.kind.name();
                self.case(registry, &format!("{form_name}-{kind}"), json!({}), |case, image| {
                    case.sign(image, (kind, key), form)
                })?;
            }
            self.case(registry, &format!("{form_name}-two-signers"), json!({}), |case, image| {
                case.sign(image, ("alice", &self.alice), form)?;
                case.sign(image, ("bob", &self.bob), form)
            })?;
            self.case(registry, &format!("{form_name}-twice"), json!({}), |case, image| {
                case.sign(image, ("alice", &self.alice), form)?;
                case.sign(image, ("alice", &self.alice), form)
            })?;
            let claims = [("env", "prod"), ("team", "a&b <c>")];
            let about = json!({"annotations": {"env": "prod", "team": "a&b <c>"}});
            self.case(registry, &format!("{form_name}-annotations"), about, |case, image| {
                case.sign(image, ("alice", &self.alice), Signing { annotations: &claims, ..form.into() })
            })?;
            let name = format!("{form_name}-placement");
            let signatures = format!("signatures/{name}--{}", registry.0);
            self.case(registry, &name, json!({"placement": signatures}), |case, image| {
                let place = format!("{}/{signatures}", case.registry.host);
                case.sign(image, ("alice", &self.alice), Signing { repository: Some(&place), ..form.into() })
            })?;
            self.recursive(registry, form)?;
        }
        for form in [Form::Tag, Form::Bundle] {
            let name = format!("{}-attestation-only", form.name());
            let about = json!({"attested": {"type": ATTESTED.0}});
            self.case(registry, &name, about, |case, image| case.attest(image, ("alice", &self.alice), form))?;
            let name = format!("{}-attested-and-signed", form.name());
            let about = json!({"attested": {"type": ATTESTED.0}});
            self.case(registry, &name, about, |case, image| {
                case.attest(image, ("bob", &self.bob), form)?;
                case.sign(image, ("alice", &self.alice), form)
            })?;
        }
        self.case(registry, "both-forms", json!({}), |case, image| {
            case.sign(image, ("alice", &self.alice), Form::Tag)?;
            case.sign(image, ("bob", &self.bob), Form::Bundle)
        })?;
        self.case(registry, "unsigned", json!({}), |_, _| Ok(()))?;
        self.attached(registry)
    }

    /// An index of two images, signed with all that it lists.
    fn recursive(&self, (place, registry): Named<'_>, form: Form) -> Result<(), Problem> {
        let name = format!("{}-recursive--{place}", form.name());
        let repository = format!("demo/{name}");
        let images = ["amd64", "arm64"].map(|arch| registry.push(&repository, arch, &format!("{name} {arch}")));
        let [amd64, arm64] = images;
        let (amd64, arm64) = (amd64?, arm64?);
        let index = registry.push_list(&repository, "1", &[("amd64", &amd64), ("arm64", &arm64)])?;
        let images = [index, amd64, arm64];
        self.case_of((place, registry), &name, repository, &images, json!({}), |case, image| {
            case.sign(image, ("alice", &self.alice), Signing { recursive: true, ..form.into() })
        })
    }

    /// Signatures that cosign does not make, and that `cosign attach` puts into the registry.
    fn attached(&self, registry: Named<'_>) -> Result<(), Problem> {
        let pss: &[&str] = &["-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
        let ways = [
            ("attached-p384-sha256", KeyKind::P384, "ECDSA with SHA-256", &["-sha256"][..]),
            ("attached-rsa3072-pss", KeyKind::Rsa3072, "RSA-PSS with SHA-256", pss),
        ];
        for (name, kind, algorithm, dgst) in ways {
            let key = self.of_all_kinds.iter().find(|key| key.kind == kind).ok_or("a key of each kind")?;
            self.case(registry, name, json!({"algorithm": algorithm}), |case, image| {
                case.signer((kind.name(), key))?;
                case.dumps.cosign.attach(image, key, dgst)
            })?;
        }
        Ok(())
    }
}

impl Case<'_> {
    fn sign<'s>(&mut self, image: &str, signer: (&str, &KeyPair), how: impl Into<Signing<'s>>) -> Result<(), Problem> {
        self.signer(signer)?;
        self.dumps.cosign.sign(image, signer.1, how)
    }

    fn attest(&mut self, image: &str, (name, key): (&str, &KeyPair), form: Form) -> Result<(), Problem> {
        self.about["attested"]["by"] = json!(name);
        write(&self.folder.join(format!("{name}.pub")), key.public_pem()?.as_bytes())?;
        self.dumps.cosign.attest(image, key, ATTESTED, form)
    }

    /// Writes a signer's public key beside the rest.
    fn signer(&mut self, (name, key): (&str, &KeyPair)) -> Result<(), Problem> {
        write(&self.folder.join(format!("{name}.pub")), key.public_pem()?.as_bytes())?;
        let mut signers: BTreeSet<_> = self.about["signers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|name| Some(name.as_str()?.to_owned()))
            .collect();
        signers.insert(name.to_owned());
        self.about["signers"] = json!(signers);
        Ok(())
    }

    /// Writes all that a client could find of the image and its signatures.
    fn write(mut self) -> Result<(), Problem> {
        if self.about["signers"].is_null() {
            self.about["signers"] = json!([]);
        }
        write(&self.folder.join("case.json"), pretty(&self.about).as_bytes())?;
        let mut repositories = vec![self.repository.clone()];
        if let Some(place) = self.about["placement"].as_str() {
            repositories.push(place.to_owned());
        }
        let mut tags = json!({});
        for repository in &repositories {
            tags[repository] = json!({});
            for tag in self.registry.tags(repository)? {
                tags[repository][&tag] = json!(self.manifest(repository, &tag)?);
            }
            for digest in self.digests.clone() {
                self.referrers(repository, &digest)?;
            }
        }
        write(&self.folder.join("tags.json"), pretty(&tags).as_bytes())
    }

    /// Writes the answer to a question for referrers, as it came, and what it lists.
    fn referrers(&self, repository: &str, digest: &str) -> Result<(), Problem> {
        let answer = self.registry.referrers(repository, digest)?;
        if answer.status != 200 {
            return Ok(());
        }
        let name = format!("{}.json", digest.replace(':', "-"));
        write(&self.folder.join("referrers").join(repository.replace('/', "+")).join(name), &answer.body)?;
        self.named_by(repository, &answer.body)
    }

    /// Writes a manifest or index and all that it names; gives its digest.
    fn manifest(&self, repository: &str, reference: &str) -> Result<String, Problem> {
        let answer = self.registry.manifest(repository, reference)?;
        if answer.status != 200 {
            return Err(format!("{repository} has no {reference}: {}", answer.status).into());
        }
        // So that the dump need not say it.
        let document: Value = serde_json::from_slice(&answer.body)?;
        if document["mediaType"] != answer.kind.as_str() {
            return Err(format!("{repository}: {reference} is served as {}", answer.kind).into());
        }
        let digest = format!("sha256:{}", forge::hex(&forge::sha256(&answer.body)));
        let path = self.folder.join("manifests").join(digest.replace(':', "-"));
        if !path.exists() {
            write(&path, &answer.body)?;
            self.named_by(repository, &answer.body)?;
        }
        Ok(digest)
    }

    fn named_by(&self, repository: &str, document: &[u8]) -> Result<(), Problem> {
        let document: Value = serde_json::from_slice(document)?;
        let listed = |member: &str| document[member].as_array().cloned().unwrap_or_default();
        for manifest in listed("manifests") {
            self.manifest(repository, manifest["digest"].as_str().ok_or("an entry has no digest")?)?;
        }
        for blob in listed("layers").iter().chain(document.get("config")) {
            let digest = blob["digest"].as_str().ok_or("a blob has no digest")?;
            let answer = self.registry.get(&format!("{repository}/blobs/{digest}"), "*/*")?;
            if answer.status != 200 {
                return Err(format!("{repository} has no {digest}: {}", answer.status).into());
            }
            write(&self.folder.join("blobs").join(digest.replace(':', "-")), &answer.body)?;
        }
        Ok(())
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    fs::create_dir_all(path.parent().ok_or("a file in no folder")?)?;
    Ok(fs::write(path, bytes)?)
}

fn main() -> Result<(), Problem> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let with_v2 = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--with-v2"] => true,
        _ => return Err("usage: scripts/cosign-dumps [--with-v2]".into()),
    };
    let folder = tempfile::tempdir()?;
    let ca = Ca::make(folder.path())?;
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("cosign/dumps");
    let mut all = vec![Cosign::new(&ca, folder.path())?];
    if with_v2 {
        all.push(Cosign::version_2(&ca, folder.path())?);
    }
    for cosign in all {
        // New ones: the images are the same, and what another version signed must not be there.
        let plain = Registry::start(&ca, folder.path())?;
        let referrers = Registry::start_with_referrers(&ca, folder.path())?;
        let dumps = Dumps::make(cosign, &out)?;
        for registry in [("fallback", &plain), ("referrers", &referrers)] {
            dumps.all(registry)?;
        }
        println!("wrote {}", dumps.out.display());
    }
    Ok(())
}
