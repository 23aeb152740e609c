//! What images come to, and what is written for them: states, the script and the policies, each read back by whoever will read it.

use std::collections::BTreeMap;
use std::process::Command;

use countersign_image::Sha256;
use countersign_policy::{Check, EntryRef, PolicyKind, ProofPolicy, Requirement, Workload};
use serde_json::{Value, json};

use super::images::Asked;
use super::next::{Signers, policies};
use super::script::script;
use super::state::{Alone, Counts, Dct, EntryAt, Looked, Manner, Outcome, Signatures, Signed, Stage, State, next_step};
use super::{api, code, documents, exit, report};

fn digest(name: &str) -> Sha256 {
    Sha256::of(name.as_bytes())
}

fn signatures(dct: Dct, alone: Alone, cosign: &[(&str, Signed)]) -> Signatures {
    Signatures {
        repository: "h.io/team/app".into(),
        stage: Stage::Trust,
        dct,
        alone,
        runs_of_index: false,
        cosign: cosign.iter().map(|(name, signed)| (digest(name), signed.clone())).collect(),
        manner: Manner::default(),
    }
}

fn looked(outcome: Outcome) -> Looked {
    let asked = Asked {
        namespace: "shop".into(),
        image: "h.io/team/app:v1".into(),
        running: None,
        workload: Workload::default(),
    };
    let at = EntryAt { kind: PolicyKind::Cluster, policy: "p".into(), index: 0 };
    let entry =
        EntryRef { kind: "ClusterImagePolicy", namespace: None, name: "p".into(), entry: "h.io/*".into(), position: 1 };
    Looked { asked, entry: Some((at, entry)), outcome }
}

fn with(dct: Dct, alone: Alone, cosign: &[(&str, Signed)]) -> Looked {
    looked(Outcome::Signatures(Box::new(signatures(dct, alone, cosign))))
}

fn proves(name: &str) -> Dct {
    Dct::Proves(digest(name))
}

fn tagged(name: &str) -> Alone {
    Alone::Tagged(digest(name))
}

fn no() -> Signed {
    Signed::No("h.io has no signature".into())
}

fn ready() -> Looked {
    with(proves("a"), tagged("a"), &[("a", Signed::Proven)])
}

fn to_sign() -> Looked {
    with(proves("a"), tagged("a"), &[("a", no())])
}

#[test]
fn states() {
    let refuses = || Dct::Refuses("not signed".into());
    let lost = || Signed::Undecided("h.io is silent".into());
    for (image, state, is_ready, advice) in [
        (ready(), State::Both, true, "ready"),
        (to_sign(), State::Dct, false, "sign sha256:ca978112ca1b with cosign"),
        (with(refuses(), tagged("a"), &[("a", Signed::Proven)]), State::Cosign, true, "ready"),
        (with(Dct::NotAsked, tagged("a"), &[("a", Signed::Proven)]), State::Cosign, true, "ready"),
        (
            with(refuses(), tagged("a"), &[("a", no())]),
            State::Neither,
            false,
            "sign it: not signed; h.io has no signature",
        ),
        // The tag has other content than the trust server says.
        (
            with(proves("a"), tagged("b"), &[("a", no()), ("b", Signed::Proven)]),
            State::Differ,
            false,
            "sign the one that is meant",
        ),
        (
            with(proves("a"), tagged("b"), &[("a", Signed::Proven), ("b", no())]),
            State::Both,
            false,
            "push the trusted content",
        ),
        (
            with(proves("a"), tagged("b"), &[("a", Signed::Proven), ("b", Signed::Proven)]),
            State::Both,
            false,
            "push the trusted content",
        ),
        (
            with(proves("a"), Alone::Missing("h.io has no app".into()), &[("a", Signed::Proven)]),
            State::Both,
            false,
            "h.io has no app",
        ),
        // A signature by nobody knows whom is none to rely on.
        (with(proves("a"), tagged("a"), &[("a", Signed::Unverified)]), State::Both, false, "--cosign-key"),
        (with(refuses(), tagged("a"), &[("a", Signed::Unverified)]), State::Cosign, false, "--cosign-key"),
        // What could not be asked is never ready, whatever is known beside it.
        (with(Dct::Undecided("down".into()), tagged("a"), &[("a", Signed::Proven)]), State::Undecided, false, "down"),
        (with(proves("a"), tagged("a"), &[("a", lost())]), State::Undecided, false, "h.io is silent"),
        (
            with(proves("a"), tagged("b"), &[("a", Signed::Proven), ("b", lost())]),
            State::Undecided,
            false,
            "h.io is silent",
        ),
        (with(proves("a"), Alone::Undecided("gone".into()), &[("a", Signed::Proven)]), State::Undecided, false, "gone"),
        // An image that names its digest is what it is, wherever its tag is by now.
        (
            with(proves("b"), Alone::Named(digest("a")), &[("a", Signed::Proven), ("b", Signed::Proven)]),
            State::Both,
            true,
            "ready",
        ),
        (
            with(proves("b"), Alone::Named(digest("a")), &[("a", no()), ("b", Signed::Proven)]),
            State::Both,
            false,
            "roll out",
        ),
        (
            with(proves("b"), Alone::Named(digest("a")), &[("a", Signed::Proven), ("b", no())]),
            State::Differ,
            false,
            "sign the one",
        ),
        (looked(Outcome::Unchecked), State::Unchecked, false, "nothing"),
        (
            looked(Outcome::Denied { reason: "no entry".into(), unlisted: true }),
            State::Denied,
            false,
            "denied now: no entry",
        ),
    ] {
        assert_eq!((image.state(), image.ready()), (state, is_ready), "{image:?}");
        assert!(image.advice().contains(advice), "{} {image:?}", image.advice());
    }
    // What runs is not what the tag names any more.
    let mut old = ready();
    old.asked.running = Some(digest("old"));
    assert_eq!((old.state(), old.ready()), (State::Both, false));
    assert!(old.advice().contains("roll it out anew"), "{}", old.advice());
    old.asked.running = Some(digest("a"));
    assert!(old.ready());
    // An image for one platform runs as it should if the index is signed that lists it.
    old.asked.running = Some(digest("amd64"));
    assert!(!old.ready());
    if let Outcome::Signatures(signatures) = &mut old.outcome {
        signatures.runs_of_index = true;
    }
    assert!(old.ready());
}

#[test]
fn exit_codes_and_the_next_step() {
    let undecided = || with(Dct::Undecided("down".into()), tagged("a"), &[]);
    let unlisted = || looked(Outcome::Denied { reason: "no".into(), unlisted: true });
    let broken = || looked(Outcome::Denied { reason: "no".into(), unlisted: false });
    let unchecked = || looked(Outcome::Unchecked);
    let staged = |stage| {
        let mut image = ready();
        if let Outcome::Signatures(signatures) = &mut image.outcome {
            signatures.stage = stage;
        }
        image
    };
    let neither = || with(Dct::Refuses("no".into()), tagged("a"), &[("a", no())]);
    for (images, expected, step) in [
        (vec![ready(), unlisted(), unchecked()], exit::OK, "1 of 1 image is ready; put anyOf in place"),
        (vec![staged(Stage::Either)], exit::OK, "let the entries ask for cosign alone"),
        (vec![staged(Stage::Both)], exit::OK, "take trust out of"),
        (vec![staged(Stage::Cosign)], exit::OK, "the trust server is not needed"),
        (vec![unchecked(), unlisted()], exit::OK, "there is nothing to move"),
        (
            vec![ready(), to_sign(), to_sign()],
            exit::DENIED,
            "1 of 3 images is ready; sign the other 2 (countersign bridge -o script), then put anyOf in place",
        ),
        (vec![ready(), to_sign(), neither()], exit::DENIED, "sign 1 (countersign bridge -o script), see to the 1"),
        (vec![ready(), broken()], exit::DENIED, "see to the 1"),
        (vec![ready(), to_sign(), undecided()], exit::UNDECIDED, "1 could not be decided"),
    ] {
        assert_eq!(code(&images), expected, "{images:?}");
        assert!(next_step(&images).contains(step), "{}", next_step(&images));
    }
    let counts = Counts::of(&[ready(), to_sign(), unchecked()]);
    assert_eq!((counts.ready, counts.checked, counts.of_state(State::Unchecked)), (1, 2, 1));
    let table = report::as_table(&[ready(), to_sign()]);
    assert!(
        table.contains("(all)") && table.lines().any(|line| line.starts_with("shop       1      2   1")),
        "{table}"
    );
    let json = report::as_json(&[to_sign()]);
    assert_eq!((&json["images"][0]["state"], &json["all"]["states"]["dct"]), (&json!("dct"), &json!(1)));
}

/// Runs a script with a `cosign` that only says what it was told; gives what it said, a call a line with its words in brackets.
fn told(script: &str) -> Vec<String> {
    let fake = "cosign() { printf '%s' \"${COSIGN_REPOSITORY:-}\"; for word in \"$@\"; do printf '<%s>' \"$word\"; done; echo; }\n";
    let output = Command::new("sh")
        .args(["-c", &format!("{fake}{script}")])
        .env("COSIGN_KEY", "my key")
        .env("COSIGN_FLAGS", "--one --two")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}\n{script}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_script_signs_each_digest_once() {
    let twice = Looked { asked: Asked { namespace: "bank".into(), ..to_sign().asked }, ..to_sign() };
    let differ = with(proves("b"), tagged("c"), &[("b", no()), ("c", Signed::Proven)]);
    let unknown = with(proves("d"), tagged("d"), &[("d", Signed::Unverified)]);
    let undecided = with(Dct::Undecided("down".into()), tagged("e"), &[]);
    let text = script(&[to_sign(), twice, ready(), differ, unknown, undecided]);
    let call = |name| format!("<sign><--yes><--key><my key><--one><--two><h.io/team/app@{}>", digest(name));
    assert_eq!(told(&text), [call("a"), call("b")]);
    for line in [
        "# h.io/team/app:v1 in namespace shop\n# h.io/team/app:v1 in namespace bank\ncosign sign",
        "by which key is not known",
        "could not be decided",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let nothing = script(&[ready()]);
    assert!(nothing.contains("# There is nothing to sign.") && told(&nothing).is_empty());
    // Without a key nothing is begun, and a failure is told at the end.
    let run = |script: &str, key: Option<&str>| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env_remove("COSIGN_KEY").env_remove("COSIGN_FLAGS");
        command.envs(key.map(|key| ("COSIGN_KEY", key))).output().unwrap().status.code()
    };
    let counted = format!("cosign() {{ return 9; }}\n{text}");
    assert_ne!(run(&counted, None), Some(0));
    assert_eq!(run(&counted, Some("k")), Some(1));
}

#[test]
fn nothing_is_injected_into_the_script() {
    let evil = "'; echo hacked; ' $(echo hacked) `echo hacked` \\";
    let mut image = to_sign();
    image.asked.image = "h.io/a:1\necho hacked\u{2028}echo hacked\recho hacked".to_owned();
    image.asked.namespace = "n\necho hacked".into();
    if let Outcome::Signatures(signatures) = &mut image.outcome {
        signatures.repository = format!("h.io/{evil}");
        signatures.manner =
            Manner { repository: Some(evil.into()), annotations: BTreeMap::from([("a".to_owned(), evil.to_owned())]) };
    }
    let said = told(&script(&[image]));
    let key = "<--key><my key><--one><--two>";
    assert_eq!(said, [format!("{evil}<sign><--yes>{key}<-a><a={evil}><h.io/{evil}@{}>", digest("a"))]);
}

/// What is written for one entry of a policy, and the checks before and after.
fn next(entry: &Value, images: &[Looked], keys: &[(String, String)]) -> (String, Value, Check, Check) {
    let document = json!({
        "apiVersion": api::API_VERSION, "kind": "ClusterImagePolicy",
        "metadata": {"name": "p", "labels": {"on": "yes"}, "annotations": {"a": "b: c\n# d"}},
        "spec": {"repositories": [entry, {"name": "other.io/*"}, {"name": "third.io/*", "policy": {"mutateImage": false, "trust": {"enabled": true}}}]},
        "status": {"x": 1},
    });
    let before = api::check(&document).unwrap().policy;
    let signers = Signers { keys, secrets_namespace: "countersign" };
    let text = policies(std::slice::from_ref(&document), images, &signers).unwrap();
    let read = documents::parse("next", &text).unwrap();
    assert_eq!(read.len(), 1, "{text}");
    let value = read[0].value.clone();
    let after = api::check(&value).unwrap().policy;
    assert_eq!(value["metadata"], document["metadata"]);
    assert!(value.get("status").is_none());
    assert_eq!((&after.name, &after.kind), (&before.name, &before.kind));
    // No other entry is touched, and no name.
    assert_eq!(after.entries.len(), before.entries.len());
    assert_eq!(after.entries[1..], before.entries[1..], "{text}");
    let (old, new) = (&before.entries[0], &after.entries[0]);
    assert_eq!(
        (old.pattern.written(), old.mutate_image, old.require_present),
        (new.pattern.written(), new.mutate_image, new.require_present)
    );
    (text.clone(), value["spec"]["repositories"][0].clone(), old.check.clone(), new.check.clone())
}

fn trust() -> Value {
    json!({"enabled": true, "trustServer": "https://notary.example.com:4443", "signerSecrets": [{"name": "alice"}, {"name": "bot"}]})
}

fn pem(name: &str) -> String {
    forge::Key::p256(name).pem()
}

#[test]
fn trust_alone_becomes_any_of() {
    let entry = json!({"name": "h.io/*", "policy": {"mutateImage": false, "requirePresent": true, "trust": trust(), "va": {"enabled": true}}});
    let (text, changed, Check::Proof(before), Check::Proof(after)) = next(&entry, &[to_sign()], &[]) else { panic!() };
    // The demand on Docker Content Trust stays what it was, as the second of two alternatives.
    let Requirement::Any(parts) = after else { panic!("{text}") };
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[1], before);
    let Requirement::One(ProofPolicy::Cosign(cosign)) = &parts[0] else { panic!("{text}") };
    assert_eq!(
        (&cosign.signer_secrets[..], cosign.threshold),
        (&["alice-cosign".to_owned(), "bot-cosign".to_owned()][..], None)
    );
    assert_eq!(changed["policy"]["va"], json!({"enabled": true}));
    for line in [
        "    # cosign or Docker Content Trust, where it was Docker Content Trust alone: 0 of the 1 images",
        "either of them is enough",
        "    #   cosign generate-key-pair k8s://countersign/alice-cosign\n    #   cosign generate-key-pair k8s://countersign/bot-cosign\n",
        "--from-file=cosign.pub",
        "    # as it was: no image was looked at to which this entry applies\n    - name: \"third.io/*\"",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }

    let keys = [("alice".to_owned(), pem("alice"))];
    let (text, changed, _, Check::Proof(after)) = next(&entry, &[ready()], &keys) else { panic!() };
    let Some(ProofPolicy::Cosign(cosign)) = after.asks().next() else { panic!("{text}") };
    assert_eq!((cosign.keys.len(), cosign.threshold), (1, None));
    assert_eq!(changed["policy"]["anyOf"][0], json!({"cosign": {"keys": [pem("alice")]}}));
    assert!(text.contains("fewer keys than signers (alice, bot): less is asked for than before"), "{text}");

    // Where whatever is released counts, the secret is called after the policy.
    let released = json!({"name": "h.io/*", "policy": {"trust": {"enabled": true}}});
    let (text, ..) = next(&released, &[ready()], &[]);
    assert!(text.contains("k8s://countersign/p-cosign"), "{text}");
}

#[test]
fn any_of_becomes_cosign_when_all_is_ready() {
    let cosign = json!({"signerSecrets": [{"name": "alice-cosign"}], "annotations": {"env": "prod"}});
    let either =
        json!({"name": "h.io/*", "policy": {"mutateImage": false, "anyOf": [{"cosign": cosign}, {"trust": trust()}]}});
    let (text, changed, Check::Proof(before), Check::Proof(after)) = next(&either, &[ready(), ready()], &[]) else {
        panic!()
    };
    assert_eq!(changed["policy"], json!({"mutateImage": false, "cosign": cosign}));
    // It is what was the first alternative, word for word.
    let Requirement::Any(parts) = before else { panic!() };
    assert_eq!(after, parts[0]);
    assert!(text.contains("    # cosign alone: all 2 images that were looked at are ready"), "{text}");

    let same = |entry: &Value, images: &[Looked], why: &str| {
        let (text, value, before, after) = next(entry, images, &[]);
        assert_eq!((&value, &before), (entry, &after), "{text}");
        assert!(text.contains(why), "{text}");
    };
    // One that is not ready, or not decided, is enough.
    let undecided = with(Dct::Undecided("down".into()), tagged("a"), &[("a", Signed::Proven)]);
    same(&either, &[ready(), to_sign()], "as it was: 1 of the 2 images");
    same(&either, &[ready(), undecided], "as it was: 1 of the 2 images");
    same(&either, &[], "no image was looked at");
    let old_first = json!({"name": "h.io/*", "policy": {"anyOf": [{"trust": trust()}, {"cosign": cosign}]}});
    same(&old_first, &[to_sign()], "list cosign first");
    // An alternative that wants both falls away; what is left is no less than one that there was.
    let three = json!({"name": "h.io/*", "policy": {"anyOf": [{"cosign": cosign}, {"cosign": {"keys": [pem("b")]}}, {"trust": trust()}, {"cosign": cosign, "trust": trust()}]}});
    let (_, changed, ..) = next(&three, &[ready()], &[]);
    assert_eq!(changed["policy"]["anyOf"], json!([{"cosign": cosign}, {"cosign": {"keys": [pem("b")]}}]));
    same(
        &json!({"name": "h.io/*", "policy": {"anyOf": [{"cosign": cosign, "trust": trust()}, {"trust": trust()}]}}),
        &[ready()],
        "none of its alternatives is cosign alone",
    );
    // What asks for both goes on asking for both.
    same(
        &json!({"name": "h.io/*", "policy": {"cosign": cosign, "trust": trust()}}),
        &[ready()],
        "trust is needed here in any case",
    );
    same(
        &json!({"name": "h.io/*", "policy": {"trust": trust(), "anyOf": [{"cosign": cosign}, {"trust": trust()}]}}),
        &[ready()],
        "in any case",
    );
    same(
        &json!({"name": "h.io/*", "policy": {"cosign": cosign, "anyOf": [{"cosign": {"keys": [pem("b")]}}, {"trust": trust()}]}}),
        &[ready()],
        "cosign stands beside anyOf",
    );
    for quiet in [
        json!({"name": "h.io/*", "policy": {"cosign": cosign}}),
        json!({"name": "h.io/*"}),
        json!({"name": "h.io/*", "policy": {"trust": {"enabled": false}}}),
    ] {
        same(&quiet, &[ready()], "- name: \"h.io/*\"");
    }
}

#[test]
fn a_policy_with_faults_is_not_rewritten() {
    let document = json!({"apiVersion": api::API_VERSION, "kind": "ClusterImagePolicy", "metadata": {"name": "p"}, "spec": {"repositories": [{"name": "a", "polcy": {}}]}});
    let error = policies(&[document], &[], &Signers { keys: &[], secrets_namespace: "c" }).unwrap_err();
    assert!(format!("{error:#}").contains("polcy"), "{error:#}");
}

#[test]
fn what_a_cluster_keeps_of_a_policy_is_not_written() {
    let object: kube::api::DynamicObject = serde_json::from_value(json!({
        "apiVersion": api::API_VERSION, "kind": "ImagePolicy",
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1", "managedFields": [], "labels": {"a": "b"},
                     "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {"repositories": [{"name": "h.io/*"}]}, "status": {"conditions": []},
    }))
    .unwrap();
    let written = super::next::written(&PolicyKind::Image { namespace: String::new() }, &object);
    assert_eq!(
        written,
        json!({"apiVersion": api::API_VERSION, "kind": "ImagePolicy", "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}},
               "spec": {"repositories": [{"name": "h.io/*"}]}})
    );
}
