//! The tools for cosign's signatures do what the tests take for granted: each form is found where it should be, in a registry with
//! and one without the referrers API, and cosign takes what it wrote.

mod gate;

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_tests::{Answer, Ca, Cosign, Form, KeyKind, KeyPair, Problem, Pushed, Registry, Signing};
use serde_json::{Value, json};

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const REFERRER: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// Both kinds of registry, and who signs.
struct World {
    cosign: Cosign,
    plain: Registry,
    referrers: Registry,
    _folder: tempfile::TempDir,
}

impl World {
    fn start() -> Result<Self, Problem> {
        let folder = tempfile::tempdir()?;
        let ca = Ca::make(folder.path())?;
        Ok(Self {
            cosign: Cosign::new(&ca, folder.path())?,
            plain: Registry::start(&ca, folder.path())?,
            referrers: Registry::start_with_referrers(&ca, folder.path())?,
            _folder: folder,
        })
    }

    fn registries(&self) -> [&Registry; 2] {
        [&self.plain, &self.referrers]
    }
}

/// An image's digest, as registries say it.
fn digest(image: &Pushed) -> String {
    format!("sha256:{}", image.digest)
}

fn address(registry: &Registry, repository: &str, image: &Pushed) -> String {
    format!("{}/{repository}@sha256:{}", registry.host, image.digest)
}

/// The document of an answer that must be a good one.
fn document(answer: &Answer) -> Result<Value, Problem> {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    Ok(serde_json::from_slice(&answer.body)?)
}

/// What refers to a digest: from the API, or where there is none, from the tag that stands in for it.
fn referrers(registry: &Registry, repository: &str, digest: &str) -> Result<Vec<Value>, Problem> {
    let asked = registry.referrers(repository, digest)?;
    let answer = if asked.status == 404 { registry.manifest(repository, &digest.replace(':', "-"))? } else { asked };
    if answer.status == 404 {
        return Ok(Vec::new());
    }
    let index = document(&answer)?;
    let listed = index["manifests"].as_array().ok_or("an index lists manifests")?;
    listed
        .iter()
        .map(|entry| document(&registry.manifest(repository, entry["digest"].as_str().unwrap_or_default())?))
        .collect()
}

/// The only layer of a manifest: its descriptor and its bytes.
fn layer(registry: &Registry, repository: &str, manifest: &Value) -> Result<(Value, Vec<u8>), Problem> {
    let layers = manifest["layers"].as_array().ok_or("a manifest has layers")?;
    assert_eq!(layers.len(), 1, "{manifest}");
    let blob = layers[0]["digest"].as_str().ok_or("a layer has a digest")?;
    let answer = registry.get(&format!("{repository}/blobs/{blob}"), "*/*")?;
    assert_eq!(answer.status, 200);
    Ok((layers[0].clone(), answer.body))
}

fn verified(world: &World, image: &str, key: &KeyPair, how: Signing<'_>) -> Result<(), Problem> {
    let said = world.cosign.verify(image, key, how)?;
    assert_eq!(said.code, 0, "{image} {how:?}: {}", said.stderr);
    Ok(())
}

fn refused(world: &World, image: &str, key: &KeyPair, how: Signing<'_>) -> Result<(), Problem> {
    let said = world.cosign.verify(image, key, how)?;
    assert_ne!(said.code, 0, "{image} {how:?}: {}", said.stdout);
    Ok(())
}

/// The payload that is signed under a tag.
fn simple_signing(registry: &Registry, repository: &str, digest: &str, claims: &Value) -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{}/{repository}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":{claims}}}"#,
        registry.host
    )
}

/// The statement in a bundle.
fn statement(bundle: &[u8]) -> Result<Value, Problem> {
    let bundle: Value = serde_json::from_slice(bundle)?;
    assert_eq!(bundle["mediaType"], BUNDLE);
    let payload = bundle["dsseEnvelope"]["payload"].as_str().ok_or("a bundle has an envelope")?;
    Ok(serde_json::from_slice(&STANDARD.decode(payload)?)?)
}

#[test]
fn each_form_is_where_it_should_be() -> Result<(), Problem> {
    let world = World::start()?;
    assert_eq!(world.cosign.release()?, "3.1.3");
    let alice = world.cosign.key("alice", KeyKind::P256)?;
    let bob = world.cosign.key("bob", KeyKind::P256)?;
    for registry in world.registries() {
        let has_api = registry.host == world.referrers.host;
        for form in Form::ALL {
            let repository = format!("demo/{}", form.name());
            let image = registry.push(&repository, "1", form.name())?;
            let (address, digest) = (address(registry, &repository, &image), digest(&image));
            refused(&world, &address, &alice, form.into())?;
            world.cosign.sign(&address, &alice, form)?;

            let stem = digest.replace(':', "-");
            let tag = match form {
                Form::Tag => Some(format!("{stem}.sig")),
                Form::Referrer | Form::Bundle => (!has_api).then_some(stem),
            };
            let expected: Vec<_> = std::iter::once("1".to_owned()).chain(tag).collect();
            assert_eq!(registry.tags(&repository)?, expected, "{form:?}");

            let manifest = match form {
                Form::Tag => document(&registry.manifest(&repository, &expected[1])?)?,
                Form::Referrer | Form::Bundle => {
                    let found = referrers(registry, &repository, &digest)?;
                    assert_eq!(found.len(), 1, "{found:?}");
                    assert_eq!(found[0]["subject"]["digest"], digest.as_str());
                    assert_eq!(found[0]["artifactType"], if form == Form::Bundle { BUNDLE } else { REFERRER });
                    found[0].clone()
                }
            };
            let (descriptor, blob) = layer(registry, &repository, &manifest)?;
            if form == Form::Bundle {
                assert_eq!(descriptor["mediaType"], BUNDLE);
                let statement = statement(&blob)?;
                assert_eq!(statement["predicateType"], "https://sigstore.dev/cosign/sign/v1");
                assert_eq!(statement["subject"][0]["digest"]["sha256"], image.digest.as_str());
            } else {
                assert_eq!(descriptor["mediaType"], PAYLOAD);
                let payload = simple_signing(registry, &repository, &digest, &Value::Null);
                assert_eq!(String::from_utf8(blob)?, payload);
                assert!(descriptor["annotations"]["dev.cosignproject.cosign/signature"].is_string());
            }
            verified(&world, &address, &alice, form.into())?;
            refused(&world, &address, &bob, form.into())?;
        }
    }
    Ok(())
}

#[test]
fn every_kind_of_key_signs() -> Result<(), Problem> {
    let world = World::start()?;
    for kind in KeyKind::ALL {
        let key = world.cosign.key(kind.name(), kind)?;
        for form in [Form::Tag, Form::Bundle] {
            let repository = format!("demo/{}-{}", kind.name(), form.name());
            let image = world.plain.push(&repository, "1", &repository)?;
            let address = address(&world.plain, &repository, &image);
            world.cosign.sign(&address, &key, form)?;
            if kind == KeyKind::Ed25519 {
                // It signs Ed25519ph and verifies Ed25519.
                refused(&world, &address, &key, form.into())?;
            } else {
                verified(&world, &address, &key, form.into())?;
            }
        }
    }
    Ok(())
}

#[test]
fn signatures_may_be_placed_elsewhere_and_have_claims() -> Result<(), Problem> {
    let world = World::start()?;
    let alice = world.cosign.key("alice", KeyKind::P256)?;
    for registry in world.registries() {
        let place = format!("{}/signatures", registry.host);
        for form in Form::ALL {
            let repository = format!("demo/{}", form.name());
            let image = registry.push(&repository, "1", form.name())?;
            let (address, digest) = (address(registry, &repository, &image), digest(&image));
            let claims = [("env", "prod")];
            let how = Signing { annotations: &claims, repository: Some(&place), ..form.into() };
            world.cosign.sign(&address, &alice, how)?;
            // One form stays with the image all the same.
            let found_in = if form == Form::Referrer { repository.as_str() } else { "signatures" };
            if form != Form::Referrer {
                assert_eq!(registry.tags(&repository)?, ["1"], "{form:?}");
                assert!(referrers(registry, &repository, &digest)?.is_empty(), "{form:?}");
            }
            let manifest = if form == Form::Tag {
                document(&registry.manifest(found_in, &format!("{}.sig", digest.replace(':', "-")))?)?
            } else {
                referrers(registry, found_in, &digest)?.swap_remove(0)
            };
            let (_, blob) = layer(registry, found_in, &manifest)?;
            if form == Form::Bundle {
                assert_eq!(statement(&blob)?["subject"][0]["annotations"], json!({"env": "prod"}));
            } else {
                let payload = simple_signing(registry, &repository, &digest, &json!({"env": "prod"}));
                assert_eq!(String::from_utf8(blob)?, payload);
            }
            let at_its_place = if form == Form::Referrer { Signing { repository: None, ..how } } else { how };
            verified(&world, &address, &alice, at_its_place)?;
            refused(&world, &address, &alice, if form == Form::Referrer { how } else { form.into() })?;
            let others = [("env", "test")];
            refused(&world, &address, &alice, Signing { annotations: &others, ..at_its_place })?;
        }
    }
    Ok(())
}

#[test]
fn an_index_is_signed_with_all_that_it_lists() -> Result<(), Problem> {
    let world = World::start()?;
    let alice = world.cosign.key("alice", KeyKind::P256)?;
    let registry = &world.plain;
    let amd64 = registry.push("demo/index", "amd64", "amd64")?;
    let arm64 = registry.push("demo/index", "arm64", "arm64")?;
    let index = registry.push_list("demo/index", "1", &[("amd64", &amd64), ("arm64", &arm64)])?;
    let of_index = address(registry, "demo/index", &index);
    world.cosign.sign(&of_index, &alice, Form::Bundle)?;
    refused(&world, &address(registry, "demo/index", &amd64), &alice, Form::Bundle.into())?;
    world.cosign.sign(&of_index, &alice, Signing { recursive: true, ..Form::Bundle.into() })?;
    for image in [&index, &amd64, &arm64] {
        verified(&world, &address(registry, "demo/index", image), &alice, Form::Bundle.into())?;
    }
    Ok(())
}

#[test]
fn attestations_are_beside_signatures() -> Result<(), Problem> {
    let world = World::start()?;
    let alice = world.cosign.key("alice", KeyKind::P256)?;
    let attested = ("https://example.com/scan/v1", r#"{"passed":false}"#);
    for registry in world.registries() {
        let old = registry.push("demo/old", "1", "old")?;
        world.cosign.attest(&address(registry, "demo/old", &old), &alice, attested, Form::Tag)?;
        assert_eq!(registry.tags("demo/old")?, ["1".to_owned(), format!("sha256-{}.att", old.digest)]);
        refused(&world, &address(registry, "demo/old", &old), &alice, Form::Tag.into())?;

        let new = registry.push("demo/new", "1", "new")?;
        world.cosign.attest(&address(registry, "demo/new", &new), &alice, attested, Form::Bundle)?;
        let found = referrers(registry, "demo/new", &digest(&new))?;
        assert_eq!(found.len(), 1);
        let (_, blob) = layer(registry, "demo/new", &found[0])?;
        assert_eq!(statement(&blob)?["predicateType"], attested.0);
        // cosign takes any statement by the key for a signature; Countersign must not.
        verified(&world, &address(registry, "demo/new", &new), &alice, Form::Bundle.into())?;
    }
    Ok(())
}

#[test]
fn two_signers_and_signatures_of_others() -> Result<(), Problem> {
    let world = World::start()?;
    let registry = &world.plain;
    let image = registry.push("demo/two", "1", "two")?;
    let at = address(registry, "demo/two", &image);
    let keys = [world.cosign.key("alice", KeyKind::P256)?, world.cosign.key("bob", KeyKind::P384)?];
    for key in &keys {
        world.cosign.sign(&at, key, Form::Tag)?;
    }
    let signed = document(&registry.manifest("demo/two", &format!("sha256-{}.sig", image.digest))?)?;
    let layers = signed["layers"].as_array().ok_or("layers")?;
    assert_eq!(layers.len(), 2);
    assert_eq!(layers[0]["digest"], layers[1]["digest"]);
    for key in &keys {
        verified(&world, &at, key, Form::Tag.into())?;
    }

    // What cosign does not make, but others do.
    let pss = world.cosign.key("pss", KeyKind::Rsa3072)?;
    let other = registry.push("demo/pss", "1", "pss")?;
    let at = address(registry, "demo/pss", &other);
    world.cosign.attach(
        &at,
        &pss,
        &["-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"],
    )?;
    assert_eq!(registry.tags("demo/pss")?, ["1".to_owned(), format!("sha256-{}.sig", other.digest)]);
    refused(&world, &at, &pss, Form::Tag.into())
}

/// What is under a folder of a dump, by name; nothing if the case has no such folder.
fn named(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, Problem> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder)?.map(|entry| {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok::<_, Problem>((name, fs::read(path)?))
    });
    entries.collect()
}

#[test]
fn dumps_are_whole() -> Result<(), Problem> {
    let mut cases = 0;
    for version in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("cosign/dumps"))? {
        let version = version?.path();
        if !version.is_dir() {
            continue;
        }
        for case in fs::read_dir(version)? {
            let case = case?.path();
            let read =
                |name: &str| -> Result<Value, Problem> { Ok(serde_json::from_slice(&fs::read(case.join(name))?)?) };
            let about = read("case.json")?;
            for name in about["signers"].as_array().ok_or("a case has signers")? {
                assert!(case.join(format!("{}.pub", name.as_str().unwrap_or_default())).exists(), "{}", case.display());
            }
            for folder in ["manifests", "blobs"] {
                for (name, bytes) in named(&case.join(folder))? {
                    assert_eq!(name, format!("sha256-{}", forge::hex(&forge::sha256(&bytes))), "{}", case.display());
                }
            }
            for tags in read("tags.json")?.as_object().ok_or("tags by repository")?.values() {
                for digest in tags.as_object().into_iter().flatten().filter_map(|(_, digest)| digest.as_str()) {
                    assert!(case.join("manifests").join(digest.replace(':', "-")).exists(), "{}", case.display());
                }
            }
            cases += 1;
        }
    }
    assert!(cases > 80, "only {cases} dumps");
    Ok(())
}
