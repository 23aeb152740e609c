use countersign_notary::{Answer, Repository, RootPins, Update};
use forge::{Key, NOW, Repo, digest_of};

use super::*;
use crate::evidence::{Format, Proof, Refusal};

const IMAGE: &str = "registry.example.com/team/app:v1";

/// A verified repository in which some content is signed for the tag `v1`.
fn repository(gun: &str, content: &str) -> Repository {
    let mut repo = Repo::new(gun, NOW);
    repo.signer("alice", &Key::p256("alice")).sign("alice", "v1", &digest_of(content));
    let files = repo.build();
    let update = Update::start(gun, None, None, RootPins::none(), NOW).unwrap();
    let answer = |file: &str| files.get(file).map_or(Answer::Missing, |bytes| Answer::Found(bytes.to_vec()));
    update.run(|request| answer(&request.file)).unwrap()
}

fn proof(gun: &str, content: &str) -> Proof {
    Proof::Notary(repository(gun, content).resolve(&Wanted::Tag("v1".into()), &[], NOW).unwrap())
}

#[expect(clippy::unnecessary_wraps, reason = "it is evidence, like what is refused")]
fn one() -> Evidence {
    Ok(proof("registry.example.com/team/app", "one"))
}

#[expect(clippy::unnecessary_wraps, reason = "it is evidence, like what is refused")]
fn other() -> Evidence {
    Ok(proof("registry.example.com/team/app", "other"))
}

fn undecided() -> Evidence {
    Err(Refusal::Undecided {
        format: Format::Notary,
        why: DenialCause::Unreachable,
        cause: "n:1 did not answer in time".into(),
    })
}

fn refused(server: &str) -> Evidence {
    let error = countersign_notary::Error::NotSigned { gun: "g".into(), tag: "v1".into(), role: None };
    Err(Refusal::notary(server, error))
}

fn nothing_there(server: &str) -> Evidence {
    Err(Refusal::notary(server, countersign_notary::Error::NoTrustData { gun: "g".into() }))
}

fn judge(requirement: &Requirement<()>, evidence: &[Evidence]) -> Result<Proven, DenyReason> {
    let evidence: Vec<_> = evidence.iter().cloned().map(Some).collect();
    let image = ImageReference::parse(IMAGE).unwrap();
    assert!(evidence.len() != requirement.asks().count() || requirement.is_settled(&image, &evidence));
    requirement.judge(&image, &Wanted::of(&image).unwrap(), &evidence)
}

fn parts(count: usize) -> Vec<Requirement<()>> {
    vec![Requirement::One(()); count]
}

fn digest(name: &str) -> Sha256 {
    Sha256::from_bytes(digest_of(name))
}

#[test]
fn one_proof() {
    let proven = judge(&Requirement::One(()), &[one()]).unwrap();
    assert_eq!((proven.digest(), proven.rests_on()), (digest("one"), &[0][..]));
    let by = proven.proofs()[0].by();
    assert_eq!((by.len(), by[0].name.as_str(), proven.proofs()[0].tag()), (1, "alice", Some("v1")));
    assert!(judge(&Requirement::One(()), &[undecided()]).unwrap_err().is_undecided());
    let reason = judge(&Requirement::One(()), &[refused("n:1")]).unwrap_err();
    assert_eq!(reason.to_string(), "failed to get content trust information: no signed target v1 in g");
}

/// A proof says nothing of another repository, and none of a digest that the image does not name.
#[test]
fn a_proof_is_bound_to_its_subject() {
    let elsewhere = judge(&Requirement::One(()), &[Ok(proof("registry.example.com/team/other", "one"))]).unwrap_err();
    assert!(elsewhere.is_undecided() && elsewhere.to_string().contains("another repository"), "{elsewhere}");
    let image = ImageReference::parse(&format!("{IMAGE}@{}", digest("other"))).unwrap();
    let wanted = Wanted::of(&image).unwrap();
    let reason = Requirement::One(()).judge(&image, &wanted, &[Some(one())]).unwrap_err();
    assert!(reason.is_undecided() && reason.to_string().contains("another digest"), "{reason}");
}

/// What has no parts, or was answered in part only, must not pass for met.
#[test]
fn nothing_is_proven_by_nothing() {
    for requirement in [Requirement::All(Vec::new()), Requirement::Any(Vec::new())] {
        assert!(judge(&requirement, &[]).unwrap_err().is_undecided());
        assert!(judge(&requirement, &[one()]).unwrap_err().is_undecided());
        assert!(judge(&Requirement::All(vec![Requirement::One(()), requirement]), &[one()]).is_err());
    }
    assert!(judge(&Requirement::One(()), &[]).unwrap_err().is_undecided());
    assert!(judge(&Requirement::One(()), &[one(), one()]).unwrap_err().is_undecided());
    assert!(judge(&Requirement::Any(parts(2)), &[one()]).unwrap_err().is_undecided());
}

#[test]
fn all_must_hold_for_one_digest() {
    let all = Requirement::All(parts(2));
    let proven = judge(&all, &[one(), one()]).unwrap();
    assert_eq!((proven.digest(), proven.rests_on(), proven.proofs().len()), (digest("one"), &[0, 1][..], 2));
    let differ = judge(&all, &[one(), other()]).unwrap_err();
    assert!(!differ.is_undecided());
    for named in [digest("one"), digest("other")] {
        assert!(differ.to_string().contains(&named.to_string()), "{differ}");
    }
    // What is decided weighs more: the image is denied, whatever the other part would have been.
    for evidence in [[undecided(), refused("n:1")], [refused("n:1"), undecided()]] {
        let reason = judge(&all, &evidence).unwrap_err();
        assert!(!reason.is_undecided() && reason.lines().len() == 2, "{reason}");
    }
    assert!(judge(&all, &[one(), undecided()]).unwrap_err().is_undecided());
    assert!(!judge(&all, &[one(), refused("n:1")]).unwrap_err().is_undecided());
}

/// Of those that hold the first one listed counts, whatever came first.
#[test]
fn one_of_several_is_enough() {
    let any = Requirement::Any(parts(2));
    let proven = judge(&any, &[refused("n:1"), other()]).unwrap();
    assert_eq!((proven.digest(), proven.rests_on(), proven.warnings()), (digest("other"), &[1][..], &[][..]));
    assert_eq!(judge(&any, &[one(), refused("n:1")]).unwrap().digest(), digest("one"));
    assert_eq!(judge(&any, &[one(), undecided()]).unwrap().warnings(), []);
    let proven = judge(&any, &[undecided(), one()]).unwrap();
    assert!(matches!(proven.warnings(), [Warning::Undecided { number: 1, cause }] if cause.contains("in time")));
    let rollback = countersign_notary::Error::TooMuchToRemember { gun: "g".into(), limit: 1 };
    let rollback = || Err(Refusal::notary("n:1", rollback.clone()));
    let proven = judge(&any, &[rollback(), one()]).unwrap();
    assert!(matches!(proven.warnings(), [Warning::Refused { number: 1, cause }] if cause.contains("trust accept")));
    assert_eq!(judge(&any, &[one(), rollback()]).unwrap().warnings(), []);
    let proven = judge(&any, &[one(), other()]).unwrap();
    assert_eq!((proven.digest(), proven.rests_on()), (digest("one"), &[0][..]));
    assert!(matches!(proven.warnings(), [Warning::Differ { number: 2, .. }]));
    let told = proven.warnings()[0].to_string();
    assert!(told.contains(&digest("one").to_string()) && told.contains(&digest("other").to_string()), "{told}");
}

/// If none holds, and one could not be decided, it may yet turn out that it does.
#[test]
fn none_of_several() {
    let any = Requirement::Any(parts(2));
    for evidence in [[undecided(), refused("n:1")], [refused("n:1"), undecided()]] {
        let reason = judge(&any, &evidence).unwrap_err();
        assert!(reason.is_undecided() && reason.cause() == DenialCause::Unreachable, "{reason}");
        assert!(reason.lines()[0].1.contains("in time"), "{reason}");
    }
    // The one that is nearer to a proof is read first; each says which it is.
    let reason = judge(&any, &[nothing_there("n:1"), refused("n:2")]).unwrap_err();
    assert_eq!(
        reason.lines().into_iter().map(|(_, line)| line).collect::<Vec<_>>(),
        [
            "failed to get content trust information: no signed target v1 in g (alternative 2 of 2; one of them is enough)",
            "failed to get content trust information: n:1 does not have trust data for g (alternative 1 of 2; one of them is enough)",
        ]
    );
    assert!(!reason.is_undecided() && reason.cause() == DenialCause::Several);
    // An only alternative is told like anything else.
    let alone = judge(&Requirement::Any(parts(1)), &[refused("n:1")]).unwrap_err();
    assert_eq!(alone.to_string(), "failed to get content trust information: no signed target v1 in g");
}

/// Beside alternatives there may be something that is needed in any case.
#[test]
fn a_part_and_alternatives() {
    let both = Requirement::All(vec![Requirement::One(()), Requirement::Any(parts(2))]);
    assert_eq!(judge(&both, &[one(), refused("n:1"), one()]).unwrap().rests_on(), [0, 2]);
    assert!(judge(&both, &[one(), other(), one()]).is_err(), "the alternative that counts has another digest");
    assert!(judge(&both, &[refused("n:1"), one(), one()]).is_err());
    let reason = judge(&both, &[refused("n:1"), refused("n:2"), undecided()]).unwrap_err();
    assert!(!reason.is_undecided() && reason.lines().len() == 3, "{reason}");
}

/// What is listed later is not waited for once something holds; what is listed before must be known.
#[test]
fn what_is_not_waited_for() {
    let image = ImageReference::parse(IMAGE).unwrap();
    let wanted = Wanted::of(&image).unwrap();
    let any = Requirement::Any(parts(3));
    let settled = |evidence: &[Option<Evidence>]| any.is_settled(&image, evidence);
    assert!(settled(&[Some(one()), None, None]));
    assert!(settled(&[Some(refused("n:1")), Some(one()), None]));
    assert!(settled(&[Some(undecided()), Some(one()), None]));
    assert!(!settled(&[None, Some(one()), Some(one())]));
    assert!(!settled(&[Some(refused("n:1")), None, Some(one())]));
    assert!(!settled(&[Some(refused("n:1")), Some(undecided()), None]));
    assert!(settled(&[Some(refused("n:1")), Some(undecided()), Some(refused("n:1"))]));
    // A proof that does not hold leaves it to the next.
    let elsewhere = || Some(Ok(proof("registry.example.com/team/other", "one")));
    assert!(!settled(&[elsewhere(), None, None]));
    assert!(settled(&[elsewhere(), Some(one()), None]));
    let proven = any.judge(&image, &wanted, &[Some(refused("n:1")), Some(one()), None]).unwrap();
    assert_eq!((proven.digest(), proven.rests_on(), proven.warnings()), (digest("one"), &[1][..], &[][..]));
    // Whatever comes later, the digest stays.
    for late in [one(), other(), undecided(), refused("n:1")] {
        let whole = any.judge(&image, &wanted, &[Some(refused("n:1")), Some(one()), Some(late)]).unwrap();
        assert_eq!((whole.digest(), whole.rests_on()), (proven.digest(), proven.rests_on()));
    }
    let all = Requirement::All(vec![Requirement::One(()), Requirement::Any(parts(2))]);
    assert!(!all.is_settled(&image, &[Some(one()), None, Some(one())]));
    assert!(all.is_settled(&image, &[Some(one()), Some(one()), None]));
    assert!(!all.is_settled(&image, &[None, Some(one()), None]));
    assert!(!all.is_settled(&image, &[Some(refused("n:1")), None, None]), "the reader is told all that is missing");
    // Of an alternative whose parts do not fit together, nothing holds.
    let pairs = Requirement::Any(vec![Requirement::All(parts(2)), Requirement::One(())]);
    assert!(!pairs.is_settled(&image, &[Some(one()), Some(other()), None]));
    assert!(pairs.is_settled(&image, &[Some(one()), Some(one()), None]));
    // What is missing, and was not settled, is never taken for proven.
    assert!(any.judge(&image, &wanted, &[None, None, None]).is_err());
    assert!(Requirement::All(parts(2)).judge(&image, &wanted, &[Some(one()), None]).is_err());
}
