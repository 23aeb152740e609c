//! The gate, on images that the real cosign signed: what is signed is allowed and pinned, what is not is denied and told why.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_tests::{
    Ca, Client, Cosign, Countersign, Form, KeyKind, KeyPair, NotaryServer, Problem, Registry, Signing,
};
use serde_json::{Value, json};

/// Registries of both kinds, cosign, and a folder of policies.
struct World {
    ca: Ca,
    cosign: Cosign,
    plain: Registry,
    referrers: Registry,
    policies: PathBuf,
    folder: tempfile::TempDir,
}

impl World {
    fn start() -> Result<Self, Problem> {
        let folder = tempfile::tempdir()?;
        let ca = Ca::make(folder.path())?;
        let policies = folder.path().join("policies");
        fs::create_dir(&policies)?;
        Ok(Self {
            cosign: Cosign::new(&ca, folder.path())?,
            plain: Registry::start(&ca, folder.path())?,
            referrers: Registry::start_with_referrers(&ca, folder.path())?,
            ca,
            policies,
            folder,
        })
    }

    /// Writes one policy with these entries: an image's name, and what is asked of it.
    fn policy(&self, entries: &[(String, Value)]) -> Result<(), Problem> {
        let entries: Vec<_> = entries.iter().map(|(name, policy)| json!({"name": name, "policy": policy})).collect();
        let policy = json!({
            "apiVersion": "securityenforcement.admission.cloud.ibm.com/v1beta1", "kind": "ClusterImagePolicy",
            "metadata": {"name": "p"}, "spec": {"repositories": entries},
        });
        Ok(fs::write(self.policies.join("p.json"), policy.to_string())?)
    }

    /// What `review` says of a pod with these images: of each, its pinned text or the reason.
    fn review(&self, images: &[String]) -> Result<Vec<Result<String, String>>, Problem> {
        let manifest = self.folder.path().join("pod.json");
        fs::write(&manifest, pod(images).to_string())?;
        let text = |path: &Path| path.display().to_string();
        let (manifest, policies, ca) = (text(&manifest), text(&self.policies), text(&self.ca.ca));
        let finished =
            Countersign::run(&["review", "-f", &manifest, "--policies", &policies, "--trust-ca", &ca, "-o", "json"])?;
        let report: Value = serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {finished:?}"))?;
        let found = report["objects"][0]["images"].as_array().ok_or("a report of images")?;
        let outcome = |image: &Value| match image["pinned"].as_str() {
            Some(pinned) => Ok(pinned.to_owned()),
            None => Err(image["reason"].as_str().unwrap_or_default().to_owned()),
        };
        Ok(found.iter().map(outcome).collect())
    }
}

fn pod(images: &[String]) -> Value {
    let container = |(index, image): (usize, &String)| json!({"name": format!("c{index}"), "image": image});
    let containers: Vec<_> = images.iter().enumerate().map(container).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": containers},
    })
}

fn by(key: &KeyPair) -> Result<Value, Problem> {
    Ok(json!({"cosign": {"keys": [key.public_pem()?]}}))
}

/// Whatever the real cosign verifies with a key is allowed and pinned; whatever is allowed, cosign verifies.
#[test]
fn every_form_key_and_place() -> Result<(), Problem> {
    let world = World::start()?;
    let stranger = world.cosign.key("stranger", KeyKind::P256)?;
    let mut entries = Vec::new();
    let mut cases = Vec::new();
    for registry in [&world.plain, &world.referrers] {
        for kind in KeyKind::ALL {
            let key = world.cosign.key(&format!("{}-{}", kind.name(), registry.host.replace(':', "-")), kind)?;
            for form in Form::ALL {
                for elsewhere in [false, true] {
                    let repository = format!("demo/{}-{}-{elsewhere}", kind.name(), form.name());
                    let image = registry.push(&repository, "1", &repository)?;
                    let at = format!("{}/{repository}", registry.host);
                    // Of P-256 all, of the others what differs.
                    if elsewhere && (kind != KeyKind::P256 || form == Form::Referrer) {
                        continue;
                    }
                    let place = format!("{}/signatures", registry.host);
                    let how = Signing { repository: elsewhere.then_some(place.as_str()), ..form.into() };
                    world.cosign.sign(&format!("{at}@sha256:{}", image.digest), &key, how)?;
                    let mut policy = by(&key)?;
                    if elsewhere {
                        policy["cosign"]["repository"] = json!(place);
                    }
                    entries.push((at.clone(), policy));
                    let cosign_takes =
                        world.cosign.verify(&format!("{at}@sha256:{}", image.digest), &key, how)?.code == 0;
                    assert_eq!(cosign_takes, kind != KeyKind::Ed25519, "{at}");
                    cases.push((format!("{at}:1"), image.digest, cosign_takes));
                }
            }
        }
        // Signed, by somebody else.
        let image = registry.push("demo/other", "1", "other")?;
        let at = format!("{}/demo/other", registry.host);
        let other = world.cosign.key(&format!("other-{}", registry.host.replace(':', "-")), KeyKind::P256)?;
        world.cosign.sign(&format!("{at}@sha256:{}", image.digest), &other, Form::Tag)?;
        entries.push((at.clone(), by(&stranger)?));
        cases.push((format!("{at}:1"), image.digest, false));
    }
    world.policy(&entries)?;
    let images: Vec<_> = cases.iter().map(|(image, ..)| image.clone()).collect();
    for ((image, digest, signed), outcome) in cases.iter().zip(world.review(&images)?) {
        match outcome {
            Ok(pinned) => assert!(*signed && pinned == format!("{image}@sha256:{digest}"), "{image}: {pinned}"),
            Err(reason) => {
                assert!(!signed, "{image}: {reason}");
                assert!(reason.contains("failed to verify cosign signatures: 1 signature of sha256:"), "{reason}");
                assert!(image.contains("/other") || reason.contains("perhaps signed with Ed25519ph"), "{reason}");
            }
        }
    }
    Ok(())
}

/// What is there instead of a signature is told.
#[test]
fn what_is_missing_is_told() -> Result<(), Problem> {
    let world = World::start()?;
    let (alice, bob) = (world.cosign.key("alice", KeyKind::P256)?, world.cosign.key("bob", KeyKind::P256)?);
    for registry in [&world.plain, &world.referrers] {
        let at = |repository: &str| format!("{}/demo/{repository}", registry.host);
        let push = |repository: &str| registry.push(&format!("demo/{repository}"), "1", repository);
        let sign = |repository: &str, digest: &str, key: &KeyPair, how: Signing<'_>| {
            world.cosign.sign(&format!("{}@sha256:{digest}", at(repository)), key, how)
        };
        let claims = [("env", "prod"), ("team", "a&b <c>")];
        let of = |claims| Signing { annotations: claims, ..Form::Bundle.into() };
        push("unsigned")?;
        let attested = push("attested")?;
        let scan = ("https://example.com/scan/v1", r#"{"passed":false}"#);
        world.cosign.attest(&format!("{}@sha256:{}", at("attested"), attested.digest), &alice, scan, Form::Bundle)?;
        let one = push("one-of-two")?;
        sign("one-of-two", &one.digest, &alice, Form::Tag.into())?;
        let two = push("two-forms")?;
        sign("two-forms", &two.digest, &alice, Form::Tag.into())?;
        sign("two-forms", &two.digest, &bob, Form::Bundle.into())?;
        let claimed = push("claimed")?;
        sign("claimed", &claimed.digest, &alice, of(&claims))?;
        let (amd64, arm64) =
            (registry.push("demo/index", "amd64", "amd64")?, registry.push("demo/index", "arm64", "arm64")?);
        let index = registry.push_list("demo/index", "1", &[("amd64", &amd64), ("arm64", &arm64)])?;
        sign("index", &index.digest, &alice, Form::Bundle.into())?;
        // Somebody signed a part, and not what the tag names.
        let part = registry.push("demo/parts", "amd64", "part")?;
        let parts = registry.push_list("demo/parts", "1", &[("amd64", &part)])?;
        sign("parts", &part.digest, &alice, Form::Tag.into())?;

        let keys = |keys: &[&KeyPair]| -> Result<Value, Problem> {
            Ok(json!(keys.iter().map(|key| key.public_pem()).collect::<Result<Vec<_>, _>>()?))
        };
        let both = keys(&[&alice, &bob])?;
        world.policy(&[
            (at("unsigned"), by(&alice)?),
            (at("absent"), by(&alice)?),
            (at("attested"), by(&alice)?),
            (at("one-of-two"), json!({"cosign": {"keys": both}})),
            (format!("{}:threshold", at("one-of-two")), json!({"cosign": {"keys": both, "threshold": 1}})),
            (at("two-forms"), json!({"cosign": {"keys": both, "threshold": 2, "required": ["keys[1]"]}})),
            (
                at("claimed"),
                json!({"cosign": {"keys": keys(&[&alice])?, "annotations": {"env": "prod", "team": "a&b <c>"}}}),
            ),
            (
                format!("{}:test", at("claimed")),
                json!({"cosign": {"keys": keys(&[&alice])?, "annotations": {"env": "test"}}}),
            ),
            (at("index"), by(&alice)?),
            (at("parts"), by(&alice)?),
        ])?;
        let digest = |digest: &str| format!("sha256:{digest}");
        let cases = [
            (format!("{}:1", at("unsigned")), Some(format!("{} has no signature of sha256:", registry.host))),
            (
                format!("{}:1", at("absent")),
                Some(format!("{} has no {}:1; push the image", registry.host, at("absent"))),
            ),
            (
                format!("{}:1", at("attested")),
                Some(format!("{} has only attestations ({})", digest(&attested.digest), scan.0)),
            ),
            (
                format!("{}:1", at("one-of-two")),
                Some(format!("{} is signed by keys[0], but not by keys[1]", digest(&one.digest))),
            ),
            (format!("{}:threshold@{}", at("one-of-two"), digest(&one.digest)), None),
            (format!("{}:1", at("two-forms")), None),
            (format!("{}:1", at("claimed")), None),
            (
                format!("{}:test@{}", at("claimed"), digest(&claimed.digest)),
                Some("without the annotation env=test".into()),
            ),
            (format!("{}:1", at("index")), None),
            (
                format!("{}:1", at("parts")),
                Some(format!("no signature of {}, but of its part {}", digest(&parts.digest), digest(&part.digest))),
            ),
            (format!("{}@{}", at("index"), digest(&amd64.digest)), Some("has no signature of".into())),
        ];
        let images: Vec<_> = cases.iter().map(|(image, _)| image.clone()).collect();
        for ((image, expected), outcome) in cases.iter().zip(world.review(&images)?) {
            match (expected, &outcome) {
                (None, Ok(_)) => {}
                (Some(expected), Err(reason)) => {
                    let begins = format!("Deny \"{image}\", failed to verify cosign signatures: ");
                    assert!(reason.starts_with(&begins) && reason.contains(expected.as_str()), "{expected}: {reason}");
                }
                _ => panic!("{image}: {outcome:?}"),
            }
        }
    }
    Ok(())
}

/// Docker Content Trust and cosign: one is enough where the policy says so, and both must be of one digest where it asks for both.
#[test]
fn either_and_both() -> Result<(), Problem> {
    let world = World::start()?;
    let notary = NotaryServer::start(&world.ca, world.folder.path())?;
    let owner = Client::new(&notary.url, &world.ca, world.folder.path());
    let alice = world.cosign.key("alice", KeyKind::P256)?;
    let registry = &world.referrers;
    let at = |repository: &str| format!("{}/demo/{repository}", registry.host);
    let push = |repository: &str, tag: &str, label: &str| registry.push(&format!("demo/{repository}"), tag, label);
    let trust = |repository: &str, digest: &str| -> Result<(), Problem> {
        owner.run(&["init", &at(repository), "--publish"])?;
        owner.run(&["addhash", &at(repository), "1", "500", "--sha256", digest, "--publish"])?;
        Ok(())
    };
    let sign = |repository: &str, digest: &str| {
        world.cosign.sign(&format!("{}@sha256:{digest}", at(repository)), &alice, Form::Bundle)
    };
    let both = push("both", "1", "both")?;
    trust("both", &both.digest)?;
    sign("both", &both.digest)?;
    let old = push("old", "1", "old")?;
    trust("old", &old.digest)?;
    let new = push("new", "1", "new")?;
    sign("new", &new.digest)?;
    // The tag has moved since trust was given; the new content is signed with cosign, and only that.
    let before = push("moved", "1", "before")?;
    trust("moved", &before.digest)?;
    sign("moved", &before.digest)?;
    let after = push("moved", "1", "after")?;
    sign("moved", &after.digest)?;
    // Each has signed something else.
    let one = push("differ", "other", "one")?;
    trust("differ", &one.digest)?;
    let other = push("differ", "1", "other")?;
    sign("differ", &other.digest)?;
    push("neither", "1", "neither")?;

    let cosign = by(&alice)?["cosign"].clone();
    let dct = json!({"enabled": true, "trustServer": notary.url});
    let images: Vec<String> =
        ["both", "old", "new", "moved", "differ", "neither"].iter().map(|name| format!("{}:1", at(name))).collect();
    let digests = |of: [Option<&str>; 6]| of.map(|digest| digest.map(|digest| format!("sha256:{digest}")));
    for (policy, expected) in [
        (
            json!({"anyOf": [{"cosign": cosign}, {"trust": dct}]}),
            digests([
                Some(&both.digest),
                Some(&old.digest),
                Some(&new.digest),
                Some(&after.digest),
                Some(&other.digest),
                None,
            ]),
        ),
        (
            json!({"anyOf": [{"trust": dct}, {"cosign": cosign}]}),
            digests([
                Some(&both.digest),
                Some(&old.digest),
                Some(&new.digest),
                Some(&before.digest),
                Some(&one.digest),
                None,
            ]),
        ),
        // Of what trust proves, cosign must have a signature too: the registry's tag does not count.
        (
            json!({"trust": dct, "cosign": cosign}),
            digests([Some(&both.digest), None, None, Some(&before.digest), None, None]),
        ),
        (
            json!({"anyOf": [{"trust": dct, "cosign": cosign}]}),
            digests([Some(&both.digest), None, None, Some(&before.digest), None, None]),
        ),
        (
            json!({"cosign": cosign}),
            digests([Some(&both.digest), None, Some(&new.digest), Some(&after.digest), Some(&other.digest), None]),
        ),
    ] {
        world.policy(&[(format!("{}/*", registry.host), policy.clone())])?;
        for ((image, expected), outcome) in images.iter().zip(&expected).zip(world.review(&images)?) {
            match (expected, &outcome) {
                (Some(digest), Ok(pinned)) => assert_eq!(*pinned, format!("{image}@{digest}"), "{policy}"),
                (None, Err(_)) => {}
                _ => panic!("{policy} {image}: {outcome:?}"),
            }
        }
    }
    // None of both: a line for each.
    world.policy(&[(format!("{}/*", registry.host), json!({"anyOf": [{"cosign": cosign}, {"trust": dct}]}))])?;
    let neither = world.review(&images[5..])?.remove(0).err().unwrap_or_default();
    assert!(
        neither.lines().count() == 2
            && neither.contains("(alternative 1 of 2")
            && neither.contains("(alternative 2 of 2"),
        "{neither}"
    );
    Ok(())
}

/// The webhook, with a signer secret as cosign makes it, and what is said where the registry is gone.
#[test]
fn the_webhook_pins_what_is_signed() -> Result<(), Problem> {
    let world = World::start()?;
    let alice = world.cosign.key("alice", KeyKind::P256)?;
    let image = world.plain.push("demo/app", "1", "app")?;
    let at = format!("{}/demo/app", world.plain.host);
    world.cosign.sign(&format!("{at}@sha256:{}", image.digest), &alice, Form::Tag)?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "alice-cosign", "namespace": "countersign"},
        "stringData": {"cosign.pub": alice.public_pem()?, "cosign.key": "not read", "cosign.password": ""},
    });
    fs::write(world.policies.join("s.json"), secret.to_string())?;
    world.policy(&[(format!("{at}*"), json!({"cosign": {"signerSecrets": [{"name": "alice-cosign"}]}}))])?;
    let served = Countersign::serve(&world.ca, world.folder.path(), &world.policies, &[])?;
    let answer = served.admit(&pod(&[format!("{at}:1")]), "developer")?;
    assert_eq!(answer["allowed"], true, "{answer}");
    let patch = STANDARD.decode(answer["patch"].as_str().ok_or("a patch")?)?;
    let patch: Value = serde_json::from_slice(&patch)?;
    let pinned = format!("{at}:1@sha256:{}", image.digest);
    let operations = patch.as_array().into_iter().flatten();
    assert!(operations.into_iter().any(|operation| operation["value"] == pinned.as_str()), "{patch}");

    let mut eight = String::new();
    for name in ["inspect", "verify"] {
        let key = format!("alice={}", alice.public.display());
        let (image, ca) = (format!("{at}:1"), world.ca.ca.display().to_string());
        let mut arguments = vec![name, &image, "--cosign-key", &key, "--trust-ca", &ca];
        arguments.extend(["--cosign"].iter().filter(|_| name == "inspect"));
        let said = Countersign::run(&arguments)?;
        assert_eq!(said.code, 0, "{said:?}");
        write!(eight, "{}", said.stdout)?;
    }
    assert!(eight.contains(".sig tag") && eight.contains("alice"), "{eight}");
    assert!(eight.ends_with(&format!("sha256:{}\n", image.digest)), "{eight}");

    // What is verified goes on to count; of what is not, nobody can tell.
    let World { plain, referrers, .. } = world;
    drop((plain, referrers));
    let by_digest = format!("{at}@sha256:{}", image.digest);
    let answer = served.admit(&pod(&[by_digest]), "developer")?;
    assert_eq!(answer["allowed"], true, "{answer}");
    let other = format!("{at}@sha256:{}", "0".repeat(64));
    let answer = served.admit(&pod(&[other]), "developer")?;
    assert_eq!(
        (&answer["allowed"], &answer["auditAnnotations"]["verdict"]),
        (&json!(false), &json!("undecided")),
        "{answer}"
    );
    let message = answer["status"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("could not be asked: ") && message.contains("trying again may help"), "{message}");
    Ok(())
}
