use countersign_notary::Error as NotaryError;

use super::*;
use crate::evidence::Refusal;
use crate::secret::{SecretProblem, SecretRef};

fn message(verdict: &Verdict) -> String {
    verdict.message(ImageVerdict::blocks, |_| String::new())
}

fn check(image: &str, reason: DenyReason, expected: &str) {
    let image = ContainerImage { pointer: "/x".into(), path: "containers/x".into(), image: image.into() };
    let verdict = Verdict { images: vec![ImageVerdict::denied(image, Mode::Enforce, reason)] };
    assert!(!verdict.allowed());
    assert_eq!(message(&verdict), expected);
}

/// The texts of the published contract, word for word.
#[test]
fn published_texts() {
    let secret = || SecretRef { namespace: "kube-system".into(), name: "yannisigner".into() };
    let image = "registry.example.com/ibmcom/stsapp/stsapp:0.1";
    let gun = || "registry.example.com/ibmcom/stsapp/stsapp-nosign".to_owned();
    check(
        image,
        DenyReason::NotListedInCluster { namespace: "kube-system".into() },
        "Deny \"registry.example.com/ibmcom/stsapp/stsapp:0.1\", no matching repositories in ClusterImagePolicy and no ImagePolicies in the \"kube-system\" namespace",
    );
    check("a", DenyReason::NotListedInNamespace, "Deny \"a\", no matching repositories in the ImagePolicies");
    check("a", DenyReason::NoPolicies, "Deny \"a\", no image policies or cluster polices");
    for (problem, tail) in [
        (SecretProblem::NotFound, "secret not found"),
        (SecretProblem::NoName, "name is empty"),
        (SecretProblem::NoPublicKey, "publicKey is empty"),
    ] {
        check(
            image,
            Refusal::SignerSecret { secret: secret(), problem }.into(),
            &format!(
                "Deny \"registry.example.com/ibmcom/stsapp/stsapp:0.1\", could not get signerSecret from your cluster, name, or publicKey field in secret yannisigner is empty ({tail})"
            ),
        );
    }
    check(
        "a",
        Refusal::notary("9.46.78.45:8443", NotaryError::NoTrustData { gun: gun() }).into(),
        "Deny \"a\", failed to get content trust information: 9.46.78.45:8443 does not have trust data for registry.example.com/ibmcom/stsapp/stsapp-nosign",
    );
    check(
        "a",
        Refusal::notary("n:1", NotaryError::NotSigned { gun: gun(), tag: "0.1".into(), role: None }).into(),
        "Deny \"a\", failed to get content trust information: no signed target 0.1 in registry.example.com/ibmcom/stsapp/stsapp-nosign",
    );
    check("A!", DenyReason::InvalidName, "Deny \"A!\", invalid image name");
    check(
        "a",
        DenyReason::undecided(DenialCause::Unreachable, "cannot reach n:1: refused"),
        "Deny \"a\", failed to get content trust information: cannot reach n:1: refused",
    );
}

#[test]
fn nothing_in_a_name_reaches_a_terminal() {
    check(
        "a\n\u{1b}[31m\"b\u{202e}",
        DenyReason::InvalidName,
        "Deny \"a\\n\\u{1b}[31m\\\"b\\u{202e}\", invalid image name",
    );
    let long = "x".repeat(10_000);
    check(&long, DenyReason::InvalidName, &format!("Deny \"{}…\", invalid image name", "x".repeat(1024)));
}

/// What only warns or logs does not deny the object, and what denies it is told without it.
#[test]
fn the_mode_of_each_image_counts() {
    let image = |mode: Mode, name: &str| {
        let image = ContainerImage { pointer: "/x".into(), path: name.into(), image: name.into() };
        ImageVerdict::denied(image, mode, DenyReason::NoPolicies)
    };
    let verdict = Verdict { images: vec![image(Mode::Audit, "a"), image(Mode::Warn, "b")] };
    assert!(verdict.admitted() && !verdict.allowed());
    let images = vec![image(Mode::Audit, "a"), image(Mode::Enforce, "c")];
    let mut verdict = Verdict { images };
    assert!(!verdict.admitted());
    let entry =
        EntryRef { kind: "ImagePolicy", namespace: Some("n".into()), name: "p".into(), entry: "*".into(), position: 2 };
    verdict.images[1].entry = Some(entry);
    let told = verdict.message(ImageVerdict::blocks, |cause| format!(" ({})", cause.label()));
    assert_eq!(told, "Deny \"c\", no image policies or cluster polices [ImagePolicy n/p, entry 2] (no-policies)");
}

/// Whatever stands in a secret or at a server, a denial has an end.
#[test]
fn a_denial_has_an_end() {
    let image = |name: &str, cause: String| {
        let image = ContainerImage { pointer: "/x".into(), path: "containers/x".into(), image: name.into() };
        ImageVerdict::denied(image, Mode::Enforce, DenyReason::undecided(DenialCause::Unreachable, cause))
    };
    let alone = Verdict { images: vec![image("a", "x".repeat(100_000))] };
    assert!(message(&alone).len() <= MAX_MESSAGE);
    let many = (0..100).map(|number| image(&format!("a{number}"), "x".repeat(500))).collect();
    let message = message(&Verdict { images: many });
    assert!(message.len() <= MAX_MESSAGE + 40, "{}", message.len());
    let told = message.lines().count() - 1;
    assert!(message.ends_with(&format!("and {} more images are denied", 100 - told)), "{message}");
    let secret = SecretRef { namespace: "n".into(), name: "s".into() };
    let label = countersign_notary::SignerError::Label("é".repeat(100_000));
    let problem = Refusal::SignerKey { secret, problem: label }.to_string();
    assert!(problem.len() < 4096, "{}", problem.len());
}

#[test]
fn one_image_never_hides_another() {
    let image = |path: &str, need| PlannedImage {
        image: ContainerImage { pointer: path.into(), path: path.into(), image: "same".into() },
        entry: None,
        mode: Mode::Enforce,
        need,
    };
    let verdict = Verdict {
        images: vec![
            ImageVerdict::judge(image("containers/a", Need::Denied(DenyReason::NoPolicies)), &[]),
            ImageVerdict::judge(image("containers/a", Need::Nothing), &[]),
        ],
    };
    assert!(!verdict.allowed());
}

#[test]
fn pins_keep_the_tag() {
    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let (by_digest, by_both) = (format!("app@{D}"), format!("h.io:5000/app:v1@{D}"));
    for (image, with_tag, digest_alone) in [
        ("h.io/app:v1", format!("h.io/app:v1@{D}"), format!("h.io/app@{D}")),
        ("app", format!("app:latest@{D}"), by_digest.clone()),
        (&by_digest, by_digest.clone(), by_digest.clone()),
        (&by_both, by_both.clone(), format!("h.io:5000/app@{D}")),
    ] {
        let (reference, digest) = (ImageReference::parse(image).unwrap(), Sha256::parse(D).unwrap());
        assert_eq!(pinned(&reference, PinStyle::TagAndDigest, digest), with_tag);
        assert_eq!(pinned(&reference, PinStyle::Digest, digest), digest_alone);
    }
}

#[test]
fn a_lost_pin_is_told_in_the_published_words() {
    check(
        "app:v1",
        DenyReason::LostPin { digest: "sha256:d".into() },
        "Deny \"app:v1\", not pinned to its signed digest sha256:d: another webhook changed it after Countersign; let that webhook run earlier (webhooks of one kind run in the order of their configurations' names), or set mutateImage: false for the images that it adds",
    );
}
