//! Whose record it is, and what an older release makes of it.

mod server;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_notary::{Error, Memory, Repository, RootPins, TrustServer};
use countersign_remote::StateError;
use countersign_remote::shares::NoRoom;
use countersign_remote::{
    Ask, Committed, Content, Failure, Login, NotaryClient, Options, PinnedCertificate, RecordKey, Saved, StateDir,
    StateStore, Stored, record,
};
use forge::{Cert, Files, Key, Repo, digest_of};
use futures::future::BoxFuture;
use server::{GUN, Scenario, Server, client, fetch, options, serve, sound};

fn open(folder: &Path) -> NotaryClient {
    let state = Arc::new(StateDir::open(folder).unwrap()) as Arc<dyn StateStore>;
    client(Options { on_trouble: Arc::new(|_| ()), ..options(Duration::ZERO, Some(state)) })
}

async fn serve_files(files: &Arc<Mutex<Files>>) -> Server {
    serve(Scenario::Files(Arc::clone(files))).await
}

/// A repository of the same name that somebody else made.
fn foreign() -> Repo {
    let mut repo = Repo::new(GUN, forge::NOW);
    repo.set_key("root", &Key::p256("somebody else").certified(&Cert::new(GUN, forge::NOW)));
    repo.tag("targets", "v1", &digest_of("foreign"));
    repo
}

/// Asks as for a review that is admitted, for a namespace whose policy pins a certificate.
async fn fetch_in(
    client: &NotaryClient,
    url: &str,
    namespace: &str,
    certificate: &PinnedCertificate,
) -> Result<Arc<Repository>, Failure> {
    let (server, pins, login) = (TrustServer::parse(url).unwrap(), RootPins::none(), Login::none());
    let ask = Ask::new(&server, GUN, &pins, &login);
    let (certificate, pinned_in) = (Some(certificate), Some(namespace));
    let seen = client.repository(Ask { certificate, pinned_in, namespace, ..ask }).await?;
    assert_eq!(client.commit(&seen, namespace).await?, Committed::Done);
    Ok(Arc::clone(seen.repository()))
}

fn certificate(of: &str) -> PinnedCertificate {
    PinnedCertificate::parse(&Cert::new(of, forge::NOW).issue(&Key::p256(of)), "the test").unwrap()
}

#[track_caller]
fn refused(found: Result<Arc<Repository>, Failure>, expected: impl Fn(&Error) -> bool) {
    match found.map(drop) {
        Err(Failure::Untrusted(error)) => assert!(expected(&error), "{error:?}"),
        other => panic!("{other:?}"),
    }
}

fn is_swapped(error: &Error) -> bool {
    matches!(error, Error::RootNotChained { .. })
}

fn is_rollback(error: &Error) -> bool {
    matches!(error, Error::Rollback { .. })
}

/// Whoever pins a certificate for a namespace has what an impostor shows remembered for that one alone, also across restarts.
#[tokio::test]
async fn what_a_namespace_pins_counts_for_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let files = Arc::new(Mutex::new(foreign().build()));
    let server = serve_files(&files).await;
    let impostor = certificate("impostor");
    let first = open(folder.path());
    fetch_in(&first, &server.url, "evil", &impostor).await.unwrap();
    *files.lock().unwrap() = sound().build();
    for client in [first.clone(), open(folder.path())] {
        fetch(&client, &server.url).await.unwrap();
        fetch_in(&client, &server.url, "team", &impostor).await.unwrap();
        refused(fetch_in(&client, &server.url, "evil", &impostor).await, is_swapped);
    }
    *files.lock().unwrap() = foreign().build();
    for client in [first, open(folder.path())] {
        refused(fetch(&client, &server.url).await, is_swapped);
        refused(fetch_in(&client, &server.url, "team", &impostor).await, is_swapped);
        fetch_in(&client, &server.url, "evil", &impostor).await.unwrap();
    }
}

/// What everybody saw of a repository counts to begin with; what the namespace sees after that is its own.
#[tokio::test]
async fn a_namespace_begins_with_what_everybody_saw() {
    let folder = tempfile::tempdir().unwrap();
    let mut repo = sound();
    let (oldest, newer) = (repo.build(), repo.advance().build());
    let newest = repo.advance().build();
    let files = Arc::new(Mutex::new(newer.clone()));
    let server = serve_files(&files).await;
    let pinned = certificate("pinned");
    let client = open(folder.path());
    fetch(&client, &server.url).await.unwrap();
    *files.lock().unwrap() = oldest.clone();
    refused(fetch_in(&client, &server.url, "team", &pinned).await, is_rollback);
    *files.lock().unwrap() = newest;
    fetch_in(&client, &server.url, "team", &pinned).await.unwrap();
    // Its own record goes further, and says nothing to the others.
    *files.lock().unwrap() = newer;
    fetch(&client, &server.url).await.unwrap();
    refused(fetch_in(&client, &server.url, "team", &pinned).await, is_rollback);
    // Where its own one is deleted, an administrator says that whatever comes next is right.
    let key = RecordKey { pinned_in: Some("team".to_owned()), ..RecordKey::new(&server.url, GUN) };
    let own = folder.path().join(format!("{}.json", key.name()));
    std::fs::remove_file(&own).unwrap();
    *files.lock().unwrap() = oldest;
    fetch_in(&client, &server.url, "team", &pinned).await.unwrap();
    assert!(own.exists());
}

/// A policy that pins the certificate that came after another one has the same record.
#[tokio::test]
async fn a_renewed_certificate_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut repo = sound();
    let (older, newer) = (repo.build(), repo.advance().build());
    let files = Arc::new(Mutex::new(newer));
    let server = serve_files(&files).await;
    let client = open(folder.path());
    fetch_in(&client, &server.url, "team", &certificate("last year's")).await.unwrap();
    *files.lock().unwrap() = older;
    refused(fetch_in(&client, &server.url, "team", &certificate("this year's")).await, is_rollback);
}

/// A repository with a signer, who has this key and published this version.
fn of_alice(key: &Key, version: u64, others: u64) -> Files {
    let mut repo = Repo::new(GUN, forge::NOW);
    repo.signer("alice", key).sign("alice", "v1", &digest_of("v1"));
    repo.file("targets/alice").version = version;
    for role in ["targets", "snapshot", "timestamp", "targets/releases"] {
        repo.file(role).version = others;
    }
    repo.build()
}

async fn stored(dir: &StateDir, key: &RecordKey) -> Stored {
    dir.load(key).await.unwrap().unwrap()
}

/// A replica of the last release writes its text alone. Then its versions count whichever keys a role has, and nobody writes without need.
#[tokio::test]
async fn an_older_release_writes_the_same_record() {
    let folder = tempfile::tempdir().unwrap();
    let dir = StateDir::open(folder.path()).unwrap();
    let (one, two) = (Key::p256("one"), Key::p256("two"));
    let files = Arc::new(Mutex::new(of_alice(&one, 5, 10)));
    let server = serve_files(&files).await;
    let key = RecordKey::new(TrustServer::parse(&server.url).unwrap().as_str(), GUN);
    let replica = open(folder.path());
    fetch(&replica, &server.url).await.unwrap();
    let with_keys = stored(&dir, &key).await;
    assert!(with_keys.content.more.is_some());
    let of_older_release = |found: &Stored| Content { more: None, ..found.content.clone() };
    dir.replace(&key, &of_older_release(&with_keys)).unwrap();
    for client in [replica.clone(), open(folder.path())] {
        fetch(&client, &server.url).await.unwrap();
        assert_eq!(
            stored(&dir, &key).await.content.more,
            None,
            "it says the same, and is not written for the keys alone"
        );
    }
    // With the next change the keys are written again. What they were before nobody knows, so the version counts for any.
    *files.lock().unwrap() = of_alice(&one, 5, 11);
    fetch(&replica, &server.url).await.unwrap();
    assert!(stored(&dir, &key).await.content.more.is_some());
    for (key, version) in [(&two, 1), (&one, 4), (&two, 4)] {
        *files.lock().unwrap() = of_alice(key, version, 12);
        for client in [&replica, &open(folder.path())] {
            refused(fetch(client, &server.url).await, is_rollback);
        }
    }
    // One that is higher takes no floor away from the others.
    *files.lock().unwrap() = of_alice(&two, 6, 13);
    fetch(&replica, &server.url).await.unwrap();
    *files.lock().unwrap() = of_alice(&one, 4, 14);
    for client in [&replica, &open(folder.path())] {
        refused(fetch(client, &server.url).await, is_rollback);
    }
}

/// Where all releases are of this kind, a signer with another key begins anew.
#[tokio::test]
async fn a_signer_with_another_key_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (Key::p256("one"), Key::p256("two"));
    let files = Arc::new(Mutex::new(of_alice(&one, 5, 10)));
    let server = serve_files(&files).await;
    let replica = open(folder.path());
    fetch(&replica, &server.url).await.unwrap();
    *files.lock().unwrap() = of_alice(&two, 2, 11);
    for client in [&replica, &open(folder.path())] {
        fetch(client, &server.url).await.unwrap();
    }
    // And what the earlier key signed does not come back, nor what this one signed before.
    for (key, version) in [(&one, 4), (&two, 1)] {
        *files.lock().unwrap() = of_alice(key, version, 12);
        for client in [&replica, &open(folder.path())] {
            refused(fetch(client, &server.url).await, is_rollback);
        }
    }
}

/// Each text has a file beside it of its own. An older release writes a text without one, and a write that fails leaves both as they were.
#[tokio::test]
async fn a_file_beside_belongs_to_its_own_text() {
    let folder = tempfile::tempdir().unwrap();
    let dir = StateDir::open(folder.path()).unwrap();
    let key = RecordKey::new("https://h.io", "h.io/x");
    let content = |text: &str, more: Option<&str>| Content {
        text: text.into(),
        more: more.map(Into::into),
        ..Content::default()
    };
    let text = folder.path().join(format!("{}.json", key.name()));
    let beside = || {
        let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|ending| ending == "more")).collect::<Vec<_>>()
    };
    let kept = async || stored(&dir, &key).await.content;
    assert_eq!(dir.load(&key).await, Ok(None));
    assert_eq!(dir.save(&key, content("a", Some("1")), None).await, Ok(Saved::Done(None)));
    assert_eq!(kept().await, content("a", Some("1")));
    let first = stored(&dir, &key).await.revision;
    for wrong in [None, Some("other")] {
        assert_eq!(dir.save(&key, content("b", None), wrong).await, Ok(Saved::Changed), "{wrong:?}");
    }
    // Only what stands beside it changes, and that is a change.
    assert_eq!(dir.save(&key, content("a", Some("2")), Some(&first)).await, Ok(Saved::Done(None)));
    assert_eq!(dir.save(&key, content("a", Some("3")), Some(&first)).await, Ok(Saved::Changed));
    assert_eq!(kept().await, content("a", Some("2")));
    // The text cannot be written.
    let second = stored(&dir, &key).await.revision;
    let blocked = folder.path().join(format!("{}.json.{}.new", key.name(), std::process::id()));
    std::fs::create_dir(&blocked).unwrap();
    for after in [content("b", Some("3")), content("b", None)] {
        assert!(dir.save(&key, after, Some(&second)).await.is_err());
        assert_eq!(kept().await, content("a", Some("2")), "what was there is still there");
    }
    std::fs::remove_dir(&blocked).unwrap();
    assert_eq!(dir.save(&key, content("b", Some("3")), Some(&second)).await, Ok(Saved::Done(None)));
    assert_eq!(beside().len(), 1, "that of the former text is gone");
    std::fs::write(&text, "c").unwrap();
    assert_eq!(kept().await, content("c", None), "an older release wrote it");
    let third = stored(&dir, &key).await.revision;
    assert_eq!(dir.save(&key, content("d", None), Some(&third)).await, Ok(Saved::Done(None)));
    StateDir::open(folder.path()).unwrap();
    assert_eq!(beside(), Vec::<PathBuf>::new(), "nobody needs it any more");
    let fourth = stored(&dir, &key).await.revision;
    assert_eq!(dir.save(&key, content("d", Some("4")), Some(&fourth)).await, Ok(Saved::Done(None)));
    StateDir::open(folder.path()).unwrap();
    assert_eq!(kept().await, content("d", Some("4")));
    assert_eq!(
        dir.list().unwrap().iter().map(|stored| &stored.content).collect::<Vec<_>>(),
        [&content("d", Some("4"))]
    );
    std::fs::remove_file(&text).unwrap();
    assert_eq!(dir.load(&key).await, Ok(None));
    assert_eq!(dir.save(&key, content("e", Some("5")), None).await, Ok(Saved::Done(None)));
    // Both together are what one record may have.
    let large = "x".repeat(600 << 10);
    let revision = stored(&dir, &key).await.revision;
    assert!(dir.save(&key, content(&large, Some(&large)), Some(&revision)).await.is_err());
    assert_eq!(kept().await, content("e", Some("5")));
}

/// What is written of a memory is read again.
#[tokio::test]
async fn records_are_read_as_they_were_written() {
    let server = serve_files(&Arc::new(Mutex::new(of_alice(&Key::p256("one"), 5, 10)))).await;
    let repository = fetch(&client(options(Duration::ZERO, None)), &server.url).await.unwrap();
    let written = countersign_notary::MemoryRecord {
        memory: Memory::clone(repository.memory()),
        accepted: Some("2026-01-01T00:00:00Z".to_owned()),
        namespace: Some("team".to_owned()),
        pinned_in: Some("team".to_owned()),
        uid: Some("1".to_owned()),
    };
    let key = RecordKey { pinned_in: Some("team".to_owned()), ..RecordKey::new("https://h.io", GUN) };
    let content = record::write(&key, &written).unwrap();
    let shown: Vec<_> = content.summary.iter().map(|(name, _)| *name).collect();
    assert_eq!(shown, ["accepted", "rootVersion", "rootKeys", "timestampVersion"]);
    let stored = Stored { content, uid: Some("1".to_owned()), revision: String::new() };
    assert_eq!(record::read(&key, &stored), Ok(written.clone()));
    assert_eq!(record::read_any(&stored), Ok((key.clone(), written)));
    assert!(record::read(&RecordKey { gun: "h.io/other".to_owned(), ..key }, &stored).is_err());
}

/// A store that has room for nothing, for this reason.
#[derive(Debug)]
struct NoRoomAtAll(NoRoom);

impl StateStore for NoRoomAtAll {
    fn place(&self, _: &RecordKey) -> String {
        "the test".to_owned()
    }

    fn load<'a>(&'a self, _: &'a RecordKey) -> BoxFuture<'a, Result<Option<Stored>, StateError>> {
        Box::pin(async { Ok(None) })
    }

    fn save<'a>(
        &'a self,
        key: &'a RecordKey,
        _: Content,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Saved, StateError>> {
        Box::pin(async { Err(StateError::no_room(&key.gun, "the test", self.0.clone())) })
    }
}

/// What is too large for a record would be forgotten at each restart, so nothing is answered with it; a store that is full is another matter.
#[tokio::test]
async fn what_is_too_large_for_a_record_is_denied() {
    let server = serve_files(&Arc::new(Mutex::new(sound().build()))).await;
    for (why, denied) in [(NoRoom::TooLarge { kib: 2000 }, true), (NoRoom::Full, false)] {
        let state = Arc::new(NoRoomAtAll(why)) as Arc<dyn StateStore>;
        let client = client(Options { on_trouble: Arc::new(|_| ()), ..options(Duration::ZERO, Some(state)) });
        let found = fetch(&client, &server.url).await.map(drop);
        assert_eq!(matches!(found, Err(Failure::State(_))), denied, "{found:?}");
        assert_eq!(found.is_err(), denied);
    }
}

/// A store in which there is room for some namespaces alone.
#[derive(Debug)]
struct RoomFor {
    namespaces: Vec<&'static str>,
    store: StateDir,
}

impl StateStore for RoomFor {
    fn place(&self, key: &RecordKey) -> String {
        self.store.place(key)
    }

    fn load<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Stored>, StateError>> {
        self.store.load(key)
    }

    fn save<'a>(
        &'a self,
        key: &'a RecordKey,
        content: Content,
        over: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Saved, StateError>> {
        let namespace = content.namespace.clone().unwrap_or_default();
        if self.namespaces.contains(&namespace.as_str()) {
            return self.store.save(key, content, over);
        }
        let why = NoRoom::Share { namespace, repositories: 1, kib: 1 };
        Box::pin(async move { Err(StateError::no_room(&key.gun, "the test", why)) })
    }
}

/// Asks, and answers, for a namespace.
async fn admit_for(client: &NotaryClient, url: &str, namespace: &str) -> Result<(), Failure> {
    let (server, pins, login) = (TrustServer::parse(url).unwrap(), RootPins::none(), Login::none());
    let seen = client.repository(Ask { namespace, ..Ask::new(&server, GUN, &pins, &login) }).await?;
    assert_eq!(client.commit(&seen, namespace).await?, Committed::Done);
    Ok(())
}

/// A namespace that has used up its share keeps nobody else from having remembered what both see: neither what is new, nor what is there.
#[tokio::test]
async fn whose_share_is_used_up_keeps_nobody_from_remembering() {
    for (namespaces, who) in [(vec!["bank"], "bank"), (vec!["first"], "mallory")] {
        let folder = tempfile::tempdir().unwrap();
        let mut repo = sound();
        let (older, newer) = (repo.build(), repo.advance().build());
        let files = Arc::new(Mutex::new(older.clone()));
        let server = serve_files(&files).await;
        let store = StateDir::open(folder.path()).unwrap();
        let with = |namespaces: Vec<&'static str>| {
            let state = Arc::new(RoomFor { namespaces, store: store.clone() }) as Arc<dyn StateStore>;
            // Both see what was fetched once.
            client(Options { on_trouble: Arc::new(|_| ()), ..options(Duration::from_secs(3600), Some(state)) })
        };
        admit_for(&with(vec!["first"]), &server.url, "first").await.unwrap();
        let replica = with(namespaces);
        *files.lock().unwrap() = newer;
        // The one without room comes first, each time.
        for namespace in ["mallory", who, "mallory"] {
            admit_for(&replica, &server.url, namespace).await.unwrap();
        }
        *files.lock().unwrap() = older;
        match admit_for(&open(folder.path()), &server.url, "bank").await {
            Err(Failure::Untrusted(error)) => assert!(is_rollback(&error), "{error:?}"),
            other => panic!("{who}: {other:?}"),
        }
    }
}
