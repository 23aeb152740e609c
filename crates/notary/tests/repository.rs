//! What a verified repository answers later, by digest, and to whom it is compared: what a folder of files cannot show.

mod server;

use std::sync::Arc;

use countersign_image::{Sha256, Wanted};
use countersign_notary::{
    Error, MAX_BYTES_BELOW, MAX_RECORD_BYTES, MAX_UPDATE_SIGNATURES, Memory, MemoryRecord, Repository, RoleName,
    RootPins, Signer, Status,
};
use forge::{Cert, Delegation, Files, Key, NOW, Repo, digest_of};
use jiff::{Timestamp, ToSpan as _};

const GUN: &str = "registry.example.com/team/app";

fn hours(hours: i64) -> Timestamp {
    NOW.checked_add(hours.hours()).unwrap()
}

/// An update of the repository of these tests, and the names of the files that it asked for.
fn run(
    files: &Files,
    held: Option<Arc<Repository>>,
    memory: Option<&Memory>,
    pins: &RootPins,
) -> (Result<Repository, Error>, Vec<String>) {
    server::run(GUN, files, held, memory, pins, NOW)
}

fn verified(repo: &Repo) -> Repository {
    run(&repo.clone().build(), None, None, &RootPins::none()).0.unwrap()
}

fn signer(name: &str, key: &Key) -> Signer {
    Signer::new(name, key.pem().as_bytes()).unwrap()
}

fn signed() -> (Repo, Key) {
    let alice = Key::p256("alice");
    let mut repo = Repo::new(GUN, NOW);
    repo.signer("alice", &alice).sign("alice", "v1", &digest_of("v1"));
    (repo, alice)
}

/// A repository that is kept answers nothing once any of its roles has expired, though it was sound when it was fetched.
#[test]
fn what_is_kept_expires() {
    let tag = Wanted::Tag("v1".into());
    for role in ["root", "timestamp", "snapshot", "targets"] {
        let (mut repo, _) = signed();
        repo.file(role).expires = hours(1);
        let repository = verified(&repo);
        assert!(repository.resolve(&tag, &[], NOW).is_ok(), "{role}");
        let late = repository.resolve(&tag, &[], hours(2)).unwrap_err();
        assert!(matches!(&late, Error::Expired { role: expired, .. } if expired.as_str() == role), "{role}: {late:?}");
        // To the second: at its expiry it has expired.
        assert!(repository.resolve(&tag, &[], hours(1)).is_err(), "{role}");
    }
    for (role, signers) in [("targets/releases", false), ("targets/alice", true)] {
        let (mut repo, alice) = signed();
        repo.file(role).expires = hours(1);
        let repository = verified(&repo);
        let signers = if signers { vec![signer("alice", &alice)] } else { Vec::new() };
        assert!(repository.resolve(&tag, &signers, NOW).is_ok(), "{role}");
        assert!(repository.resolve(&tag, &signers, hours(2)).is_err(), "{role}");
    }
}

/// The certificate of a signer, or of the root, may end before the file that it signed.
#[test]
fn certificates_end_too() {
    let alice = Key::p256("alice").certified(&Cert::new("alice", NOW).valid(hours(-1), hours(1)));
    let mut repo = Repo::new(GUN, NOW);
    repo.signer("alice", &alice).sign("alice", "v1", &digest_of("v1"));
    let repository = verified(&repo);
    let tag = Wanted::Tag("v1".into());
    assert!(repository.resolve(&tag, &[signer("alice", &alice)], NOW).is_ok());
    assert!(repository.resolve(&tag, &[signer("alice", &alice)], hours(2)).is_err());

    let (mut repo, _) = signed();
    let root = Key::p256("short").certified(&Cert::new(GUN, NOW).valid(hours(-1), hours(1)));
    repo.set_key("root", &root);
    let repository = verified(&repo);
    assert!(repository.resolve(&tag, &[], NOW).is_ok());
    assert!(matches!(repository.resolve(&tag, &[], hours(2)), Err(Error::ThresholdNotMet { .. })));
}

/// A digest that only somebody signed, under a tag that was released with another one, is not released.
#[test]
fn a_digest_of_a_tag_that_moved() {
    let (mut repo, alice) = signed();
    repo.tag("targets/releases", "v1", &digest_of("newer"));
    let repository = verified(&repo);
    let by_digest = |name: &str| Wanted::Digest(Sha256::from_bytes(digest_of(name)));
    let old = repository.resolve(&by_digest("v1"), &[], NOW);
    assert!(matches!(old, Err(Error::DigestNotSigned { .. })), "{old:?}");
    let new = repository.resolve(&by_digest("newer"), &[], NOW).unwrap();
    assert_eq!((new.digest().bytes(), new.tag()), (&digest_of("newer"), "v1"));
    // Alice and the releases disagree about the only tag that has it.
    assert!(repository.resolve(&by_digest("v1"), &[signer("alice", &alice)], NOW).is_err());
    assert!(repository.resolve(&by_digest("newer"), &[signer("alice", &alice)], NOW).is_err());
    let never = repository.resolve(&by_digest("never"), &[], NOW);
    assert!(matches!(never, Err(Error::DigestNotSigned { .. })), "{never:?}");
}

#[test]
fn an_answer_names_digest_tag_and_signers() {
    let (mut repo, alice) = signed();
    let bob = Key::p256("bob");
    repo.signer("bob", &bob).tag("targets/bob", "v1", &digest_of("other")).tag("targets/bob", "v2", &digest_of("v1"));
    let carol = Key::p256("carol");
    repo.signer("carol", &carol).tag("targets/carol", "v1", &digest_of("v1"));
    repo.file("targets/carol").signers = vec![Key::p256("mallory")];
    let repository = verified(&repo);
    assert_eq!(repository.gun(), GUN);
    assert_eq!(repository.roles().count(), 4);
    let resolved = repository.resolve(&Wanted::Tag("v1".into()), &[signer("alice", &alice)], NOW).unwrap();
    assert_eq!(resolved.digest().bytes(), &digest_of("v1"));
    assert_eq!(resolved.digest().to_string(), format!("sha256:{}", forge::hex(&digest_of("v1"))));
    assert!(format!("{:?}", resolved.digest()).contains(&forge::hex(&digest_of("v1"))));
    // Bob signed another digest for it, and what Carol's role says is not hers.
    let by: Vec<_> = resolved.by().iter().map(|by| (by.signer.as_str(), by.keys.as_slice())).collect();
    assert_eq!(by, [("alice", &[signer("alice", &alice).key().canonical_id()][..])]);
    assert_eq!((resolved.repository(), resolved.tag()), (GUN, "v1"));
}

/// An update of what is held asks only for what changed, and believes no file under keys that it was not verified with.
#[test]
fn unchanged_files_are_not_asked_for_again() {
    let (mut repo, _) = signed();
    let bob = Key::p256("bob");
    repo.delegate("targets", Delegation::new("targets/bob", &bob));
    repo.tag("targets/bob", "v1", &digest_of("v1"));
    let held = Arc::new(verified(&repo));
    let files = repo.clone().build();
    let of_files = files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    assert_eq!(held.size(), of_files, "what is kept is counted by the lengths of all files");
    let (same, asked) = run(&files, Some(Arc::clone(&held)), None, &RootPins::none());
    assert!(same.is_ok() && asked == ["timestamp.json"], "{asked:?}");

    for role in ["timestamp", "snapshot", "targets/alice"] {
        repo.file(role).version += 1;
    }
    repo.tag("targets/alice", "v2", &digest_of("v2"));
    let (newer, asked) = run(&repo.clone().build(), Some(Arc::clone(&held)), None, &RootPins::none());
    assert!(newer.is_ok(), "{newer:?}");
    let of = |role: &str| asked.iter().filter(|file| file.starts_with(&format!("{role}."))).count();
    assert_eq!(
        (of("targets/alice"), of("targets/bob"), of("targets/releases"), asked.len()),
        (1, 0, 0, 3),
        "{asked:?}"
    );

    // The same file, delegated to somebody else since: it counts no more.
    for role in ["timestamp", "snapshot", "targets"] {
        repo.file(role).version += 1;
    }
    repo.delegation("targets/bob").keys = vec![Key::p256("mallory")];
    let (changed, _) = run(&repo.clone().build(), Some(held), None, &RootPins::none());
    let found = changed.unwrap().resolve(&Wanted::Tag("v1".into()), &[signer("bob", &bob)], NOW);
    assert!(found.is_err(), "{found:?}");
}

/// What two processes saw is put together; neither can lose what the other knows.
#[test]
fn memories_are_joined() {
    let (mut repo, _) = signed();
    let older = Memory::clone(verified(&repo).memory());
    let new_root = Key::p256("root 2").certified(&Cert::new(GUN, NOW));
    repo.rotate_root().set_root_key(&new_root).advance();
    let (newer, _) = run(&repo.clone().build(), None, Some(&older), &RootPins::none());
    let newer = Memory::clone(newer.unwrap().memory());
    assert!(newer.lineage.len() == 2 && older.lineage.len() == 1);
    for (one, other) in [(&older, &newer), (&newer, &older)] {
        assert_eq!(one.join(other).as_ref(), Some(&newer));
    }
    assert_eq!(older.join(&older).as_ref(), Some(&older));
    assert_eq!(Memory::default().join(&newer).as_ref(), Some(&newer));
    assert!(newer.covers(&older) && newer.covers(&newer) && !older.covers(&newer));
    // Of two that know the same root, the one that knows more of its chain knows more.
    let mut shorter = newer.clone();
    shorter.lineage.remove(0);
    assert!(newer.covers(&shorter) && !shorter.covers(&newer));
    assert_eq!(shorter.join(&newer).as_ref(), Some(&newer));
    // Of a chain that is as long, what is known here stays.
    let mut other_keys = newer.clone();
    other_keys.lineage[0].keys.clear();
    assert!(newer.covers(&other_keys) && other_keys.covers(&newer));
    // What does not fit together is not joined: one version with two contents, two roots of one version, and a newer root
    // to which no chain leads from the older one.
    let mut content = newer.clone();
    let timestamp = content.seen.get_mut(&RoleName::timestamp()).unwrap();
    *timestamp =
        countersign_notary::Seen { content: Sha256::from_bytes([7; 32]), ..timestamp.highest().unwrap() }.into();
    let mut root = newer.clone();
    root.root = Some(b"another root of that version".as_slice().into());
    for other in [&content, &root] {
        assert!(newer.join(other).is_none() && other.join(&newer).is_none());
        assert!(!newer.covers(other) && !other.covers(&newer));
    }
    assert!(older.join(&shorter).is_none() && shorter.join(&older).is_none());
    let mut foreign = newer.clone();
    foreign.lineage[0].keys = foreign.lineage[1].keys.clone();
    assert!(older.join(&foreign).is_none() && foreign.join(&older).is_none());
    // An update from a joined memory refuses what either has seen the end of.
    let (mut old_repo, _) = signed();
    let (refused, _) = run(&old_repo.advance().build(), None, older.join(&newer).as_ref(), &RootPins::none());
    assert!(refused.is_err());
}

/// A remembered root is recalled with the roots before it, and not with those after.
#[test]
fn a_recalled_root_keeps_its_line() {
    let (mut repo, _) = signed();
    let first = repo.keys("root").keys[0].clone();
    let before = Memory::clone(verified(&repo).memory());
    let new_root = Key::p256("root 2").certified(&Cert::new(GUN, NOW));
    repo.rotate_root().set_root_key(&new_root).advance();
    let (after, _) = run(&repo.clone().build(), None, Some(&before), &RootPins::none());
    let memory = Memory::clone(after.unwrap().memory());
    let mut pins = RootPins::none();
    let mut more = RootPins::none();
    more.add(&first.id()).unwrap();
    pins.extend(more);
    assert!(!pins.is_empty());
    // Pinned to the first root, which a process that was started since knows only from its memory.
    let (recalled, asked) = run(&repo.clone().build(), None, Some(&memory), &pins);
    let recalled = recalled.unwrap();
    assert!(!asked.iter().any(|file| file.contains("root")), "{asked:?}");
    let versions: Vec<_> = recalled.root().lineage().iter().map(|record| record.version).collect();
    assert_eq!(versions, [memory.lineage[0].version, memory.lineage[1].version]);
    assert_eq!(recalled.memory().lineage, memory.lineage);
}

#[test]
fn limits_are_as_said() {
    let spaces = |count: usize| {
        move |bytes: Vec<u8>| {
            let missing = count - bytes.len();
            [vec![b' '; missing], bytes].concat()
        }
    };
    for (role, limit) in [("root", 512_usize << 10), ("timestamp", 1 << 20)] {
        for (length, fits) in [(limit, true), (limit + 1, false)] {
            let (mut repo, _) = signed();
            repo.file(role).edit_bytes(spaces(length));
            let (outcome, _) = run(&repo.clone().build(), None, None, &RootPins::none());
            let too_long = matches!(outcome, Err(Error::TooLong { .. }));
            assert_eq!((outcome.is_ok(), too_long), (fits, !fits), "{role} {length}");
        }
    }
    let many = |count: usize| {
        let (mut repo, alice) = signed();
        repo.file("targets/alice").signers = vec![alice; count];
        run(&repo.clone().build(), None, None, &RootPins::none()).0
    };
    assert!(many(256).is_ok());
    assert!(matches!(many(257), Err(Error::TooManySignatures { limit: 256, .. })));
    // All files together: each may have 256, but not all of them.
    let flood = |total: usize| {
        let mut repo = Repo::new(GUN, NOW);
        let key = Key::p256("flood");
        // Three come with timestamp, snapshot and targets.
        let mut left = total - 3;
        for index in 0.. {
            let name = format!("targets/s{index}");
            repo.delegate("targets", Delegation::new(&name, &key));
            repo.file(&name).signers = vec![key.clone(); left.min(200)];
            left -= left.min(200);
            if left == 0 {
                break;
            }
        }
        run(&repo.build(), None, None, &RootPins::none()).0
    };
    assert!(flood(MAX_UPDATE_SIGNATURES).is_ok());
    assert!(matches!(
        flood(MAX_UPDATE_SIGNATURES + 1),
        Err(Error::TooManySignatures { limit: MAX_UPDATE_SIGNATURES, .. })
    ));
}

/// What is held is of no use where another root is remembered: an administrator has accepted it since.
#[test]
fn what_is_held_under_another_root() {
    let (repo, _) = signed();
    let held = Arc::new(verified(&repo));
    let mut anew = Repo::new(GUN, NOW);
    anew.set_key("root", &Key::p256("anew").certified(&Cert::new(GUN, NOW)));
    anew.tag("targets", "v1", &digest_of("anew"));
    let files = anew.clone().build();
    let accepted = Memory::clone(verified(&anew).memory());
    let (outcome, _) = run(&files, Some(Arc::clone(&held)), Some(&accepted), &RootPins::none());
    let resolved = outcome.unwrap().resolve(&Wanted::Tag("v1".into()), &[], NOW).unwrap();
    assert_eq!(resolved.digest().bytes(), &digest_of("anew"));
    // Without that, it was swapped.
    for memory in [None, Some(&**held.memory())] {
        let (outcome, _) = run(&files, Some(Arc::clone(&held)), memory, &RootPins::none());
        assert!(matches!(outcome, Err(Error::RootNotChained { .. })), "{outcome:?}");
    }
}

/// The keys that a signer has, and the version that is published, signed with the first of them.
type Published<'a> = (&'a [&'a Key], u64);

/// Follows a repository through these states, each at a later version of everything but alice's file, and says what becomes of the last.
fn follow(states: &[Published<'_>]) -> Result<(), Error> {
    let mut memory: Option<Arc<Memory>> = None;
    for (index, (keys, version)) in states.iter().enumerate() {
        let mut repo = Repo::new(GUN, NOW);
        repo.signer("alice", keys[0]).tag("targets/alice", "v1", &digest_of(&format!("{version}")));
        repo.delegation("targets/alice").keys = keys.iter().copied().cloned().collect();
        repo.file("targets/alice").version = *version;
        for role in ["targets", "snapshot", "timestamp", "targets/releases"] {
            repo.file(role).version = 10 + index as u64;
        }
        let (outcome, _) = run(&repo.build(), None, memory.as_deref(), &RootPins::none());
        memory = Some(Arc::clone(outcome?.memory()));
    }
    Ok(())
}

/// A signer who is removed and added again with other keys begins anew, and brings nothing back that an earlier key signed.
#[test]
fn versions_count_for_the_keys_that_a_role_has() {
    let [one, two, three] = ["one", "two", "three"].map(Key::p256);
    let [one, two, three] = [&one, &two, &three];
    let accepted: [&[Published<'_>]; 5] = [
        &[(&[one], 5), (&[two], 1)],
        &[(&[one], 5), (&[two], 1), (&[two], 2)],
        &[(&[one, two], 5), (&[three], 1)],
        &[(&[one], 5), (&[two, one], 5)],
        &[(&[one], 5), (&[two], 1), (&[one], 6)],
    ];
    for states in accepted {
        assert_eq!(follow(states), Ok(()));
    }
    let certified = &one.certified(&Cert::new("alice", NOW));
    let refused: [(&[Published<'_>], u64); 8] = [
        (&[(&[one], 5), (&[one], 4)], 5),
        // The same key in another form.
        (&[(&[one], 5), (&[certified], 4)], 5),
        // A key in common, and be it not the one that signed.
        (&[(&[one], 5), (&[two, one], 4)], 5),
        (&[(&[two, one], 5), (&[one], 4)], 5),
        // One key takes another one's place in steps.
        (&[(&[one], 3), (&[two, one], 5), (&[one], 4)], 5),
        (&[(&[one], 5), (&[two, one], 6), (&[two], 7), (&[two], 6)], 7),
        // The earlier key comes back, with what it signed then.
        (&[(&[one], 5), (&[two], 1), (&[one], 4)], 5),
        (&[(&[one], 5), (&[two], 1), (&[two, one], 2)], 5),
    ];
    for (states, newest) in refused {
        let refused = follow(states).unwrap_err();
        let is_rollback = matches!(&refused, Error::Rollback { role, remembered, .. } if role.as_str() == "targets/alice" && *remembered == newest);
        assert!(is_rollback, "{refused:?}");
    }
}

/// A role whose file is gone was taken away, unless it has none of the keys any more that it was seen with.
#[test]
fn a_role_with_other_keys_may_have_published_nothing_yet() {
    let [one, two] = ["one", "two"].map(Key::p256);
    for (key, may) in [(&one, false), (&two, true)] {
        let mut repo = Repo::new(GUN, NOW);
        repo.signer("alice", &one).sign("alice", "v1", &digest_of("v1"));
        let before = verified(&repo);
        let mut files = Repo::new(GUN, NOW);
        files.delegate("targets", Delegation::new("targets/alice", key));
        files.tag("targets", "v1", &digest_of("v1")).file("targets/alice").published = false;
        for role in ["targets", "snapshot", "timestamp"] {
            files.file(role).version = 10;
        }
        let after = run(&files.build(), None, Some(before.memory()), &RootPins::none()).0.unwrap();
        let alice = after.roles().find(|state| state.name().as_str() == "targets/alice").unwrap();
        assert_eq!(matches!(alice.status(), Status::NotPublished), may);
        assert_eq!(matches!(alice.status(), Status::Invalid(Error::Withdrawn { .. })), !may);
    }
}

/// Where a record of an older release does not say which keys a role had, its versions count for any keys.
#[test]
fn versions_without_keys_count_for_any() {
    let [one, two] = ["one", "two"].map(Key::p256);
    let of = |key: &Key, version: u64, all: u64| {
        let mut repo = Repo::new(GUN, NOW);
        repo.signer("alice", key).tag("targets/alice", "v1", &digest_of("v1"));
        repo.file("targets/alice").version = version;
        for role in ["targets", "snapshot", "timestamp", "targets/releases"] {
            repo.file(role).version = all;
        }
        repo.build()
    };
    let first = run(&of(&one, 5, 10), None, None, &RootPins::none()).0.unwrap();
    let record = MemoryRecord { memory: Memory::clone(first.memory()), ..MemoryRecord::default() };
    let written = record.encode("https://h.io", GUN).unwrap();
    let read = |more: Option<&[u8]>| MemoryRecord::decode("https://h.io", GUN, &written.text, more).unwrap().memory;
    let (with, without) = (read(written.more.as_deref()), read(None));
    assert_eq!(with, **first.memory());
    assert!(without != with && without.says(&with) && !with.covers(&without) && !without.covers(&with));
    let after = |files: &Files, memory: &Memory| run(files, None, Some(memory), &RootPins::none()).0;
    assert!(after(&of(&two, 1, 11), &with).is_ok());
    let refused = after(&of(&two, 1, 11), &without).map(drop).unwrap_err();
    assert!(matches!(refused, Error::Rollback { remembered: 5, .. }), "{refused:?}");
    // Which keys it had before nobody knows, so a key that is seen with it, or with a later one, changes nothing for the others.
    for (key, version) in [(&one, 5), (&two, 5), (&one, 6), (&two, 6)] {
        let seen = after(&of(key, version, 11), &without).unwrap();
        assert!(seen.memory().covers(&without) && !with.says(seen.memory()));
        for other in [&one, &two] {
            let refused = after(&of(other, 4, 12), seen.memory()).map(drop).unwrap_err();
            assert!(matches!(refused, Error::Rollback { .. }), "{refused:?}");
        }
    }
}

/// What could not be written would be forgotten at the next restart, so a repository that needs more is refused.
#[test]
fn what_is_remembered_is_bounded() {
    let (mut repo, _) = signed();
    let key = Key::p256("one of many");
    let with_names = |size: usize| {
        let mut memory = Memory::clone(verified(&signed().0).memory());
        let seen = memory.seen[&RoleName::targets()].clone();
        let mut index = 0;
        while memory.record_size() < size {
            memory.seen.insert(RoleName::parse(&format!("targets/n{index:06}")).unwrap(), seen.clone());
            index += 1;
        }
        memory
    };
    repo.delegate("targets", Delegation::new("targets/new", &key));
    repo.file("targets/new");
    repo.advance();
    let files = repo.build();
    let sound = run(&files, None, Some(&with_names(MAX_RECORD_BYTES - 2000)), &RootPins::none()).0.unwrap();
    // The bound is on the safe side of what is written, and of what a TrustRecord makes of it: text within text.
    let record = MemoryRecord { memory: Memory::clone(sound.memory()), ..MemoryRecord::default() };
    let written = record.encode("https://h.io", GUN).unwrap();
    let quoted = |text: Vec<u8>| serde_json::to_string(&String::from_utf8(text).unwrap()).unwrap().len();
    let size = quoted(written.text) + quoted(written.more.unwrap());
    assert!(size < sound.memory().record_size() && size > sound.memory().record_size() / 3, "{size}");
    let (refused, _) = run(&files, None, Some(&with_names(MAX_RECORD_BYTES)), &RootPins::none());
    let refused = refused.map(drop);
    assert!(matches!(refused, Err(Error::TooMuchToRemember { limit: MAX_RECORD_BYTES, .. })), "{refused:?}");
}

/// A signer can make up as many roles and keys below as they like: those that are too many are left out, and nothing else suffers.
#[test]
fn a_signer_fills_nobody_elses_memory() {
    let keys: Vec<Key> = (0..3000).map(|number| Key::p256("made up").listed_as(&format!("kind {number}"))).collect();
    let (mut repo, alice) = signed();
    let below = Key::p256("below");
    let mut many = Delegation::new("targets/alice/many", &below);
    many.keys.extend(keys.iter().cloned());
    repo.delegate("targets/alice", many).file("targets/alice/many").signers = vec![below.clone()];
    repo.delegate("targets/alice", Delegation::new("targets/alice/few", &Key::p256("few"))).file("targets/alice/few");
    let repository = verified(&repo);
    let status = |name: &str| repository.roles().find(|state| state.name().as_str() == name).unwrap().status().clone();
    assert!(matches!(
        status("targets/alice/many"),
        Status::Invalid(Error::TooMuchBelow { limit: MAX_BYTES_BELOW, .. })
    ));
    assert!(matches!(status("targets/alice/few"), Status::Valid { .. }));
    assert!(repository.memory().record_size() < MAX_BYTES_BELOW);
    assert!(repository.resolve(&Wanted::Tag("v1".into()), &[signer("alice", &alice)], NOW).is_ok());
    // Over time, too: one update fills the room, and later ones find it filled.
    let mut memory = Arc::clone(repository.memory());
    for round in 0..4_u64 {
        let (mut repo, _) = signed();
        let mut some = Delegation::new("targets/alice/some", &below);
        some.keys.extend((0..1000).map(|number| Key::p256("x").listed_as(&format!("kind {round} {number}"))));
        repo.delegate("targets/alice", some).file("targets/alice/some").signers = vec![below.clone()];
        for role in ["targets/alice", "targets/alice/some", "targets/releases", "targets", "snapshot", "timestamp"] {
            repo.file(role).version = 10 + round;
        }
        let (outcome, _) = run(&repo.build(), None, Some(&memory), &RootPins::none());
        memory = Arc::clone(outcome.unwrap().memory());
        assert!(memory.record_size() < MAX_BYTES_BELOW + (8 << 10), "{}", memory.record_size());
    }
    // What the owner lists counts for the owner.
    let (mut repo, _) = signed();
    let mut many = Delegation::new("targets/many", &below);
    many.keys.extend(keys);
    repo.delegate("targets", many).file("targets/many").signers = vec![below];
    assert!(verified(&repo).memory().record_size() > MAX_BYTES_BELOW);
}

#[test]
fn rotations_are_bounded() {
    for (jump, too_far) in [(64, false), (65, true)] {
        let (mut repo, _) = signed();
        let before = Memory::clone(verified(&repo).memory());
        let version = repo.file("root").version + jump;
        repo.rotate_root().file("root").version = version;
        let (outcome, asked) = run(&repo.build(), None, Some(&before), &RootPins::none());
        let refused = outcome.unwrap_err();
        assert_eq!(matches!(refused, Error::RootTooFar { .. }), too_far, "{jump}: {refused:?}");
        let steps = asked.iter().filter(|file| file.ends_with(".root.json")).count() as u64;
        assert_eq!(steps, if too_far { 0 } else { jump - 1 });
    }
}

/// Of a root that was replaced since, the expiry does not matter; of the one in use it does.
#[test]
fn a_pin_reaches_over_an_expired_step() {
    let certified = |name: &'static str| Key::p256(name).certified(&Cert::new(GUN, NOW));
    let (mut repo, _) = signed();
    let mut pins = RootPins::none();
    pins.add(&repo.keys("root").keys[0].id()).unwrap();
    repo.rotate_root().set_root_key(&certified("root 2")).file("root").expires = hours(-1);
    repo.rotate_root().set_root_key(&certified("root 3")).file("root").expires = hours(1000);
    let (outcome, asked) = run(&repo.clone().build(), None, None, &pins);
    assert!(outcome.is_ok() && asked.iter().any(|file| file.ends_with(".root.json")), "{outcome:?} {asked:?}");
    repo.file("root").expires = hours(-1);
    assert!(matches!(run(&repo.build(), None, None, &pins).0, Err(Error::Expired { .. })));
}

/// A replica that is behind the others refuses what they have seen the end of, though it held it itself.
#[test]
fn what_is_held_is_no_older_than_what_others_saw() {
    let (mut repo, _) = signed();
    let held = Arc::new(verified(&repo));
    // The server, who has the timestamp's key, names the old snapshot anew.
    let mut hostile = repo.clone();
    hostile.file("timestamp").version += 2;
    let files = hostile.build();
    assert!(run(&files, Some(Arc::clone(&held)), Some(held.memory()), &RootPins::none()).0.is_ok());
    repo.tag("targets/alice", "v2", &digest_of("v2")).advance();
    let newer = Arc::new(verified(&repo));
    let (outcome, _) = run(&files, Some(Arc::clone(&held)), Some(newer.memory()), &RootPins::none());
    assert!(matches!(outcome, Err(Error::Rollback { .. })), "{outcome:?}");
    // Nor does it matter which of the two is the newer one.
    let (outcome, _) = run(&files, Some(newer), Some(held.memory()), &RootPins::none());
    assert!(matches!(outcome, Err(Error::Rollback { .. })), "{outcome:?}");
}

/// A pin that is older than what is remembered is found, however long the remembered line is.
#[test]
fn a_pin_older_than_a_line_of_two() {
    let certified = |name: &'static str| Key::p256(name).certified(&Cert::new(GUN, NOW));
    let (mut repo, _) = signed();
    let mut pins = RootPins::none();
    pins.add(&repo.keys("root").keys[0].id()).unwrap();
    repo.rotate_root().set_root_key(&certified("root 2")).advance();
    let first_seen = Memory::clone(verified(&repo).memory());
    repo.rotate_root().set_root_key(&certified("root 3")).advance();
    let files = repo.build();
    let memory = run(&files, None, Some(&first_seen), &RootPins::none()).0;
    let memory = Memory::clone(memory.unwrap().memory());
    assert_eq!(memory.lineage.len(), 2);
    assert!(run(&files, None, Some(&memory), &pins).0.is_ok());
}

/// Of two who began to look at different times, both chains are kept: one reaches further back, and the other further on. So a root that
/// only one of them has seen may be pinned, even if the server has it no more.
#[test]
fn joined_chains_keep_the_older_roots() {
    let certified = |name: &'static str| Key::p256(name).certified(&Cert::new(GUN, NOW));
    let (mut repo, _) = signed();
    let mut pins = RootPins::none();
    pins.add(&repo.keys("root").keys[0].id()).unwrap();
    let remember = |repo: &Repo, before: Option<&Memory>| {
        let (outcome, _) = run(&repo.clone().build(), None, before, &RootPins::none());
        Memory::clone(outcome.unwrap().memory())
    };
    let versions = |memory: &Memory| memory.lineage.iter().map(|root| root.version).collect::<Vec<_>>();
    let first = remember(&repo, None);
    repo.rotate_root().set_root_key(&certified("root 2")).advance();
    let (early, late) = (remember(&repo, Some(&first)), remember(&repo, None));
    repo.rotate_root().set_root_key(&certified("root 3")).advance();
    let late = remember(&repo, Some(&late));
    assert_eq!((versions(&early), versions(&late)), (vec![1, 2], vec![2, 3]));
    let joined = early.join(&late).unwrap();
    assert_eq!(late.join(&early).as_ref(), Some(&joined));
    assert_eq!(versions(&joined), [1, 2, 3]);
    assert!(joined.covers(&early) && joined.covers(&late) && !late.covers(&early));
    let mut files = repo.clone().build();
    assert!(files.remove("1.root.json").is_some());
    assert!(run(&files, None, Some(&joined), &pins).0.is_ok());
    let (refused, _) = run(&files, None, Some(&late), &pins);
    assert!(matches!(refused, Err(Error::RootNotPinned { .. })), "{refused:?}");
}

/// Roots are counted like all others: a long chain of roots with many signatures is not tried to its end.
#[test]
fn signatures_of_roots_are_counted() {
    let (mut repo, _) = signed();
    let before = Memory::clone(verified(&repo).memory());
    let key = repo.keys("root").keys[0].clone();
    for _ in 0..20 {
        repo.rotate_root().file("root").signers = vec![key.clone(); 250];
    }
    repo.advance();
    let (refused, _) = run(&repo.build(), None, Some(&before), &RootPins::none());
    assert!(matches!(refused, Err(Error::TooManySignatures { .. })), "{refused:?}");
}

/// A root may be signed anew without another version: it is the same root, for who has seen it before and in what is remembered.
#[test]
fn a_root_signed_anew_is_the_same_root() {
    let (mut repo, _) = signed();
    let before = verified(&repo);
    let key = repo.keys("root").keys[0].clone();
    let again = |repo: &mut Repo, signers: Vec<Key>| {
        repo.file("root").signers = signers;
        run(&repo.advance().build(), None, Some(before.memory()), &RootPins::none()).0
    };
    let anew = again(&mut repo, vec![key.clone(); 2]).unwrap();
    assert!(anew.root().bytes() != before.root().bytes());
    assert!(anew.memory().covers(before.memory()));
    // Its signatures count as ever.
    let forged = again(&mut repo, vec![Key::p256("mallory")]);
    assert!(matches!(forged, Err(Error::ThresholdNotMet { .. })), "{forged:?}");
    repo.file("root").expires = hours(1000);
    let other = again(&mut repo, vec![key]);
    assert!(matches!(other, Err(Error::SameVersionOtherContent { .. })), "{other:?}");
    assert!(verified(&repo).memory().join(before.memory()).is_none());
}
