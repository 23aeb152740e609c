//! What is remembered of repositories, by one process and by several, and what they make of one that goes back, is swapped,
//! or changes while it is looked at.

mod server;

use std::hash::Hasher as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_image::Wanted;
use countersign_notary::{Error, Memory, MemoryRecord, Repository, RootPins, TrustServer};
use countersign_remote::{
    Ask, Committed, Content, Failure, Login, NotaryClient, Options, RecordKey, Saved, StateDir, StateError, StateStore,
    Stored, record,
};
use forge::{Cert, Key, Repo, digest_of};
use futures::future::BoxFuture;
use server::{GUN, LONG, Scenario, client, fetch, look, options, serve, sound};
use tokio::sync::Semaphore;

type Meddling = Box<dyn FnOnce(&StateDir) + Send>;

/// A store that fails, sees nothing, or is written by others just before it is written by us.
struct Store {
    dir: StateDir,
    folder: PathBuf,
    unreadable: AtomicBool,
    unwritable: AtomicBool,
    blind: AtomicBool,
    /// Whether it knows without asking what has changed, as a store that is followed does.
    followed: AtomicBool,
    before_save: Mutex<Option<Meddling>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    fn open(path: &Path) -> Arc<Self> {
        Arc::new(Self {
            dir: StateDir::open(path).unwrap(),
            folder: path.to_owned(),
            unreadable: AtomicBool::default(),
            unwritable: AtomicBool::default(),
            blind: AtomicBool::default(),
            followed: AtomicBool::default(),
            before_save: Mutex::default(),
        })
    }

    fn meddle(&self, meddling: impl FnOnce(&StateDir) + Send + 'static) {
        *self.before_save.lock().unwrap() = Some(Box::new(meddling));
    }
}

impl StateStore for Store {
    fn mark(&self, name: &str) -> Option<u64> {
        if !self.followed.load(Ordering::SeqCst) {
            return None;
        }
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u8(self.unreadable.load(Ordering::SeqCst).into());
        hasher.write(&std::fs::read(self.folder.join(format!("{name}.json"))).unwrap_or_default());
        Some(hasher.finish())
    }

    fn place(&self, key: &RecordKey) -> String {
        self.dir.place(key)
    }

    fn load<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Stored>, StateError>> {
        if self.unreadable.load(Ordering::SeqCst) {
            return Box::pin(async move { Err(StateError::unreadable(&key.gun, "the test", "as it likes")) });
        }
        if self.blind.swap(false, Ordering::SeqCst) {
            return Box::pin(async { Ok(None) });
        }
        self.dir.load(key)
    }

    fn save<'a>(
        &'a self,
        key: &'a RecordKey,
        content: Content,
        over: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Saved, StateError>> {
        if let Some(meddling) = self.before_save.lock().unwrap().take() {
            meddling(&self.dir);
        }
        if self.unwritable.load(Ordering::SeqCst) {
            return Box::pin(async move { Err(StateError::unwritable(&key.gun, "the test", "as it likes")) });
        }
        self.dir.save(key, content, over)
    }
}

fn records(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect()
}

fn with(store: &Arc<Store>) -> NotaryClient {
    let state = Arc::clone(store) as Arc<dyn StateStore>;
    client(Options { on_trouble: Arc::new(|_| ()), ..options(Duration::ZERO, Some(state)) })
}

/// A repository of the same name that somebody else made, of this root version.
fn foreign(root_version: u64) -> Repo {
    let mut repo = Repo::new(GUN, forge::NOW);
    repo.set_key("root", &Key::p256("somebody else").certified(&Cert::new(GUN, forge::NOW)));
    repo.file("root").version = root_version;
    repo.tag("targets", "v1", &digest_of("foreign"));
    repo
}

/// What is remembered once this was seen.
async fn seen(repo: &Repo) -> MemoryRecord {
    let server = serve(Scenario::Files(Arc::new(Mutex::new(repo.clone().build())))).await;
    let repository = fetch(&client(options(Duration::ZERO, None)), &server.url).await.unwrap();
    MemoryRecord { memory: Memory::clone(repository.memory()), ..MemoryRecord::default() }
}

/// Writes a record in place of whatever is there.
fn put(dir: &StateDir, server: &str, seen: &MemoryRecord) {
    let key = RecordKey::new(server, GUN);
    dir.replace(&key, &record::write(&key, seen).unwrap()).unwrap();
}

fn digest(repository: &Repository) -> [u8; 32] {
    *repository.resolve(&Wanted::Tag("v1".into()), &[], forge::NOW).unwrap().digest().bytes()
}

fn is_untrusted(found: &Result<Arc<Repository>, Failure>, expected: impl Fn(&Error) -> bool) -> bool {
    matches!(found, Err(Failure::Untrusted(error)) if expected(error))
}

#[tokio::test]
async fn what_is_remembered_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let state = || Some(Arc::new(StateDir::open(folder.path()).unwrap()) as Arc<dyn StateStore>);
    let mut repo = sound();
    let older = repo.build();
    let newer = repo.advance().build();
    let files = Arc::new(Mutex::new(newer.clone()));
    let server = serve(Scenario::Files(Arc::clone(&files))).await;
    fetch(&client(options(Duration::ZERO, state())), &server.url).await.unwrap();
    *files.lock().unwrap() = older;
    let found = fetch(&client(options(Duration::ZERO, state())), &server.url).await.unwrap_err();
    assert!(matches!(&found, Failure::Untrusted(error) if matches!(**error, Error::Rollback { .. })), "{found:?}");
    *files.lock().unwrap() = newer;
    fetch(&client(options(Duration::ZERO, state())), &server.url).await.unwrap();
    // Without a memory the older moment would have been believed: that is what it is for.
    assert_eq!(records(folder.path()).len(), 1, "one file a repository");
}

/// A flight that takes long and ends with an older moment takes nothing back of what another one saw meanwhile.
#[tokio::test]
async fn a_slow_flight_takes_nothing_back() {
    let mut repo = sound();
    let pin = repo.keys("root").keys[0].id();
    let older = repo.build();
    let newer = repo.tag("targets", "v1", &digest_of("newer")).advance().build();
    let held_back = older.checksum_name("targets");
    // Under no plain name, or it would come before anybody can hold it back.
    let mut shown = older.clone();
    shown.insert(&held_back, older.role("targets"));
    shown.remove("targets.json");
    let files = Arc::new(Mutex::new(shown));
    let (gate, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let server = serve(Scenario::Gated(Arc::clone(&files), held_back, Arc::clone(&gate), Arc::clone(&waiting))).await;
    let client = client(options(Duration::ZERO, None));
    let slow = tokio::spawn({
        let (client, url) = (client.clone(), server.url.clone());
        async move { fetch(&client, &url).await }
    });
    while waiting.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    {
        let mut files = files.lock().unwrap();
        *files = newer.clone();
        files.insert(&older.checksum_name("targets"), older.role("targets"));
    }
    let address = TrustServer::parse(&server.url).unwrap();
    let (mut pins, login) = (RootPins::none(), Login::none());
    pins.add(&pin).unwrap();
    let quick = client.repository(Ask::new(&address, GUN, &pins, &login));
    assert_eq!(digest(&quick.await.unwrap()), digest_of("newer"));
    gate.add_permits(100);
    assert_eq!(digest(&slow.await.unwrap().unwrap()), digest_of("newer"), "looked at once more");
    *files.lock().unwrap() = older;
    let found = fetch(&client, &server.url).await;
    assert!(is_untrusted(&found, |error| matches!(error, Error::Rollback { .. })), "{found:?}");
}

/// As before, where another replica is the quick one.
#[tokio::test]
async fn what_another_replica_saw_meanwhile_counts() {
    let mut repo = sound();
    let older = repo.build();
    let newer = repo.tag("targets", "v1", &digest_of("newer")).advance().build();
    let newer_seen = seen(&repo).await;
    for honest in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path());
        let files = Arc::new(Mutex::new(older.clone()));
        let server = serve(Scenario::Files(Arc::clone(&files))).await;
        let address = TrustServer::parse(&server.url).unwrap().as_str().to_owned();
        let (newer, newer_seen) = (newer.clone(), newer_seen.clone());
        store.meddle(move |dir| {
            put(dir, &address, &newer_seen);
            if honest {
                *files.lock().unwrap() = newer;
            }
        });
        let found = fetch(&with(&store), &server.url).await;
        if honest {
            assert_eq!(digest(&found.unwrap()), digest_of("newer"));
        } else {
            assert!(is_untrusted(&found, |error| matches!(error, Error::Rollback { .. })), "{found:?}");
        }
    }
}

/// A replica that could not see what is remembered puts nothing in its place, and believes nothing else.
#[tokio::test]
async fn who_was_blind_replaces_nothing() {
    for version in [1, 2, 40] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path());
        let files = Arc::new(Mutex::new(sound().build()));
        let server = serve(Scenario::Files(Arc::clone(&files))).await;
        fetch(&with(&store), &server.url).await.unwrap();
        let before = std::fs::read(&records(folder.path())[0]).unwrap();
        *files.lock().unwrap() = foreign(version).build();
        store.blind.store(true, Ordering::SeqCst);
        let found = fetch(&with(&store), &server.url).await;
        let unchained = |error: &Error| matches!(error, Error::RootNotChained { .. } | Error::MissingFile { .. });
        assert!(is_untrusted(&found, unchained), "{version}: {found:?}");
        assert!(!store.blind.load(Ordering::SeqCst));
        assert_eq!(std::fs::read(&records(folder.path())[0]).unwrap(), before);
    }
}

/// What an administrator accepts while a repository is looked at counts from then on; what was seen before does not replace it.
#[tokio::test]
async fn a_change_is_accepted_in_the_middle() {
    for server_follows in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path());
        let mut repo = sound();
        let files = Arc::new(Mutex::new(repo.build()));
        let server = serve(Scenario::Files(Arc::clone(&files))).await;
        let client = with(&store);
        fetch(&client, &server.url).await.unwrap();
        let accepted = MemoryRecord { accepted: Some("2026-01-01T00:00:00Z".into()), ..seen(&foreign(1)).await };
        let (address, to_store) = (TrustServer::parse(&server.url).unwrap().as_str().to_owned(), accepted.clone());
        *files.lock().unwrap() = repo.advance().build();
        let following = Arc::clone(&files);
        store.meddle(move |dir| {
            put(dir, &address, &to_store);
            if server_follows {
                *following.lock().unwrap() = foreign(1).build();
            }
        });
        let found = fetch(&client, &server.url).await;
        if server_follows {
            assert_eq!(digest(&found.unwrap()), digest_of("foreign"));
        } else {
            assert!(is_untrusted(&found, |error| matches!(error, Error::RootNotChained { .. })), "{found:?}");
        }
        let address = TrustServer::parse(&server.url).unwrap();
        let key = RecordKey::new(address.as_str(), GUN);
        let stored = store.dir.load(&key).await.unwrap().unwrap();
        assert_eq!(record::read(&key, &stored), Ok(accepted));
    }
}

/// What cannot be read is neither forgotten nor overlooked for the sake of `stale`; what is taken away is forgotten.
#[tokio::test]
async fn only_what_is_taken_away_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state"));
    let files = Arc::new(Mutex::new(sound().build()));
    let server = serve(Scenario::Files(Arc::clone(&files))).await;
    let state = Arc::clone(&store) as Arc<dyn StateStore>;
    let client = client(Options { stale: LONG, ..options(Duration::ZERO, Some(state)) });
    fetch(&client, &server.url).await.unwrap();
    store.unreadable.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let found = fetch(&client, &server.url).await;
        assert!(matches!(found, Err(Failure::State(_))), "{found:?}");
    }
    store.unreadable.store(false, Ordering::SeqCst);
    *files.lock().unwrap() = foreign(1).build();
    let swapped = |found: &_| is_untrusted(found, |error| matches!(error, Error::RootNotChained { .. }));
    let found = fetch(&client, &server.url).await;
    assert!(swapped(&found), "{found:?}");
    // A volume that is gone is no decision of an administrator's.
    let (there, away) = (folder.path().join("state"), folder.path().join("away"));
    std::fs::rename(&there, &away).unwrap();
    for empty in [false, true] {
        if empty {
            std::fs::create_dir(&there).unwrap();
            // To look at it, as countersign trust does, makes it no store.
            assert!(StateDir::existing(&there).is_none());
        }
        let found = fetch(&client, &server.url).await;
        assert!(matches!(found, Err(Failure::State(_))), "{found:?}");
    }
    std::fs::remove_dir(&there).unwrap();
    std::fs::rename(&away, &there).unwrap();
    let found = fetch(&client, &server.url).await;
    assert!(swapped(&found), "{found:?}");
    std::fs::remove_file(&records(&there)[0]).unwrap();
    assert_eq!(digest(&fetch(&client, &server.url).await.unwrap()), digest_of("foreign"));
}

/// What was seen here and could not be written counts too, besides what others wrote.
#[tokio::test]
async fn what_does_not_fit_together_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path());
    let files = Arc::new(Mutex::new(sound().build()));
    let server = serve(Scenario::Files(Arc::clone(&files))).await;
    let client = with(&store);
    store.unwritable.store(true, Ordering::SeqCst);
    fetch(&client, &server.url).await.unwrap();
    store.unwritable.store(false, Ordering::SeqCst);
    let address = TrustServer::parse(&server.url).unwrap();
    put(&store.dir, address.as_str(), &seen(&foreign(1)).await);
    let found = fetch(&client, &server.url).await;
    assert!(is_untrusted(&found, |error| matches!(error, Error::RootNotChained { .. })), "{found:?}");
    *files.lock().unwrap() = foreign(1).build();
    let found = fetch(&client, &server.url).await;
    assert!(matches!(found, Err(Failure::Contradicted { .. })), "{found:?}");
    // To accept it is the way out.
    let accepted = MemoryRecord { accepted: Some("2026-01-01T00:00:00Z".into()), ..seen(&foreign(1)).await };
    put(&store.dir, address.as_str(), &accepted);
    assert_eq!(digest(&fetch(&client, &server.url).await.unwrap()), digest_of("foreign"));
}

/// What cannot be read when something is to be written may say more than was seen.
#[tokio::test]
async fn what_became_unreadable_meanwhile_is_not_overlooked() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path());
    let mut repo = sound();
    let files = Arc::new(Mutex::new(repo.build()));
    let server = serve(Scenario::Files(Arc::clone(&files))).await;
    let client = with(&store);
    fetch(&client, &server.url).await.unwrap();
    *files.lock().unwrap() = repo.advance().build();
    let record = records(folder.path()).remove(0);
    let text = std::fs::read(&record).unwrap();
    let broken = record.clone();
    store.meddle(move |_| std::fs::write(broken, "{").unwrap());
    let found = fetch(&client, &server.url).await;
    assert!(matches!(found, Err(Failure::State(_))), "{found:?}");
    std::fs::write(record, text).unwrap();
    fetch(&client, &server.url).await.unwrap();
}

/// While its server is away, `stale` serves the repository in memory; but not once others have seen more.
#[tokio::test]
async fn what_is_stale_is_not_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path());
    let mut repo = sound();
    let files = Arc::new(Mutex::new(repo.build()));
    let server = serve(Scenario::Files(Arc::clone(&files))).await;
    let address = TrustServer::parse(&server.url).unwrap();
    let state = Arc::clone(&store) as Arc<dyn StateStore>;
    let options = Options { stale: LONG, ..options(Duration::ZERO, Some(state)) };
    let client = client(options);
    fetch(&client, &server.url).await.unwrap();
    server.away.store(true, Ordering::SeqCst);
    fetch(&client, &server.url).await.unwrap();
    repo.advance();
    put(&store.dir, address.as_str(), &seen(&repo).await);
    let found = fetch(&client, &server.url).await;
    assert!(matches!(found, Err(Failure::Http(_))), "{found:?}");
}

/// Denials and dry runs leave no trace, but this process does not forget what they showed.
#[tokio::test]
async fn only_what_is_committed_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path());
    let mut repo = sound();
    let older = repo.build();
    let files = Arc::new(Mutex::new(repo.advance().build()));
    let server = serve(Scenario::Files(Arc::clone(&files))).await;
    let denying = with(&store);
    let seen = look(&denying, &server.url, None).await.unwrap();
    assert!(records(folder.path()).is_empty());
    let newer = std::mem::replace(&mut *files.lock().unwrap(), older);
    let found = look(&denying, &server.url, None).await;
    assert!(matches!(&found, Err(Failure::Untrusted(error)) if matches!(**error, Error::Rollback { .. })), "{found:?}");
    *files.lock().unwrap() = newer;
    assert_eq!(denying.commit(&seen, "").await, Ok(Committed::Done));
    assert_eq!(records(folder.path()).len(), 1);
    // The second time the store is not even asked.
    store.meddle(|_| panic!("it is written already"));
    assert_eq!(denying.commit(&seen, "").await, Ok(Committed::Done));
}

/// What others stored meanwhile is seen when an answer is about to be given, though it rests on what was in memory.
#[tokio::test]
async fn who_is_behind_asks_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path());
    let mut repo = sound();
    let files = Arc::new(Mutex::new(repo.build()));
    let server = serve(Scenario::Files(Arc::clone(&files))).await;
    let address = TrustServer::parse(&server.url).unwrap();
    let client = client(options(LONG, Some(Arc::clone(&store) as Arc<dyn StateStore>)));
    let seen = look(&client, &server.url, None).await.unwrap();
    repo.tag("targets", "v1", &digest_of("newer")).advance();
    put(&store.dir, address.as_str(), &self::seen(&repo).await);
    *files.lock().unwrap() = repo.build();
    assert_eq!(client.commit(&seen, "").await, Ok(Committed::Behind));
    let anew = look(&client, &server.url, None).await.unwrap();
    assert_eq!(digest(&anew), digest_of("newer"));
    assert_eq!(client.commit(&anew, "").await, Ok(Committed::Done));
    // Another replica may have pinned the former one just now.
    assert_eq!(digest(&anew.former().unwrap()), digest_of("v1"));
}

/// Whoever is in memory is compared with its record each time, where the store is followed: what others saw, and what an administrator
/// did, counts at once and not from the next look on.
#[tokio::test]
async fn what_is_in_memory_is_compared_with_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path());
    store.followed.store(true, Ordering::SeqCst);
    let mut repo = sound();
    let files = Arc::new(Mutex::new(repo.build()));
    let server = serve(Scenario::Files(Arc::clone(&files))).await;
    let address = TrustServer::parse(&server.url).unwrap();
    let client = client(options(LONG, Some(Arc::clone(&store) as Arc<dyn StateStore>)));
    fetch(&client, &server.url).await.unwrap();
    fetch(&client, &server.url).await.unwrap();
    let asked = server.requests.load(Ordering::SeqCst);
    fetch(&client, &server.url).await.unwrap();
    assert_eq!(server.requests.load(Ordering::SeqCst), asked, "nothing has changed");
    // Another replica has seen more.
    repo.tag("targets", "v1", &digest_of("newer")).advance();
    put(&store.dir, address.as_str(), &seen(&repo).await);
    let found = fetch(&client, &server.url).await;
    assert!(is_untrusted(&found, |error| matches!(error, Error::Rollback { .. })), "{found:?}");
    *files.lock().unwrap() = repo.build();
    assert_eq!(digest(&fetch(&client, &server.url).await.unwrap()), digest_of("newer"));
    // An administrator has accepted another one.
    let accepted = MemoryRecord { accepted: Some("2026-01-01T00:00:00Z".into()), ..seen(&foreign(1)).await };
    put(&store.dir, address.as_str(), &accepted);
    let found = fetch(&client, &server.url).await;
    assert!(is_untrusted(&found, |error| matches!(error, Error::RootNotChained { .. })), "{found:?}");
    *files.lock().unwrap() = foreign(1).build();
    assert_eq!(digest(&fetch(&client, &server.url).await.unwrap()), digest_of("foreign"));
    // It cannot be read any more, and nobody knows what it says by now.
    store.unreadable.store(true, Ordering::SeqCst);
    let found = fetch(&client, &server.url).await;
    assert!(matches!(found, Err(Failure::State(_))), "{found:?}");
    store.unreadable.store(false, Ordering::SeqCst);
    assert_eq!(digest(&fetch(&client, &server.url).await.unwrap()), digest_of("foreign"));
    // It was deleted.
    std::fs::remove_file(&records(folder.path())[0]).unwrap();
    *files.lock().unwrap() = sound().build();
    assert_eq!(digest(&fetch(&client, &server.url).await.unwrap()), digest_of("v1"));
}

/// A record that was deleted and made anew by another replica, while this one did not look.
#[tokio::test]
async fn what_was_made_anew_is_not_held_against_what_was_deleted() {
    #[derive(Debug)]
    struct Made(Mutex<Option<Stored>>);
    impl StateStore for Made {
        fn place(&self, _: &RecordKey) -> String {
            "the test".to_owned()
        }

        fn load<'a>(&'a self, _: &'a RecordKey) -> BoxFuture<'a, Result<Option<Stored>, StateError>> {
            Box::pin(async { Ok(self.0.lock().unwrap().clone()) })
        }

        fn save<'a>(
            &'a self,
            _: &'a RecordKey,
            content: Content,
            over: Option<&'a str>,
        ) -> BoxFuture<'a, Result<Saved, StateError>> {
            let mut there = self.0.lock().unwrap();
            if there.as_ref().map(|there| there.revision.as_str()) != over {
                return Box::pin(async { Ok(Saved::Changed) });
            }
            let uid = Some("first".to_owned());
            *there = Some(Stored { content, uid: uid.clone(), revision: "1".to_owned() });
            Box::pin(async move { Ok(Saved::Done(uid)) })
        }
    }
    let made = Arc::new(Made(Mutex::default()));
    let files = Arc::new(Mutex::new(sound().build()));
    let server = serve(Scenario::Files(Arc::clone(&files))).await;
    let client = client(options(Duration::ZERO, Some(Arc::clone(&made) as Arc<dyn StateStore>)));
    fetch(&client, &server.url).await.unwrap();
    *files.lock().unwrap() = foreign(1).build();
    let found = fetch(&client, &server.url).await;
    assert!(is_untrusted(&found, |error| matches!(error, Error::RootNotChained { .. })), "{found:?}");
    let content = record::write(&RecordKey::new(&server.url, GUN), &seen(&foreign(1)).await).unwrap();
    let anew = |uid: &str| Stored { content: content.clone(), uid: Some(uid.to_owned()), revision: "2".to_owned() };
    *made.0.lock().unwrap() = Some(anew("first"));
    let found = fetch(&client, &server.url).await;
    assert!(matches!(found, Err(Failure::Contradicted { .. })), "the same record says something else: {found:?}");
    *made.0.lock().unwrap() = Some(anew("second"));
    assert_eq!(digest(&fetch(&client, &server.url).await.unwrap()), digest_of("foreign"));
}

/// What an administrator took away is not forgotten for want of a store, however often somebody asks.
#[tokio::test]
async fn what_was_taken_away_has_to_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path());
    let server = serve(Scenario::Files(Arc::new(Mutex::new(sound().build())))).await;
    let client = with(&store);
    fetch(&client, &server.url).await.unwrap();
    std::fs::remove_file(&records(folder.path())[0]).unwrap();
    store.unwritable.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let found = fetch(&client, &server.url).await;
        assert!(matches!(found, Err(Failure::State(_))), "{found:?}");
    }
    store.unwritable.store(false, Ordering::SeqCst);
    fetch(&client, &server.url).await.unwrap();
}

/// The former repository is there while it could have been used, and not once what was seen is given up.
#[tokio::test]
async fn the_former_one_is_there_for_a_while() {
    for (refresh, taken_away, expected) in [(LONG, false, true), (Duration::ZERO, false, false), (LONG, true, false)] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path());
        let mut repo = sound();
        let files = Arc::new(Mutex::new(repo.build()));
        let server = serve(Scenario::Files(Arc::clone(&files))).await;
        let client = client(options(refresh, Some(Arc::clone(&store) as Arc<dyn StateStore>)));
        fetch(&client, &server.url).await.unwrap();
        let again = look(&client, &server.url, Some(Duration::ZERO)).await.unwrap();
        assert!(again.former().is_none(), "nothing changed");
        if taken_away {
            std::fs::remove_file(&records(folder.path())[0]).unwrap();
        }
        *files.lock().unwrap() = repo.tag("targets", "v1", &digest_of("newer")).advance().build();
        let newer = look(&client, &server.url, Some(Duration::ZERO)).await.unwrap();
        assert_eq!(digest(&newer), digest_of("newer"));
        let former = newer.former().map(|former| digest(&former));
        assert_eq!(former, expected.then(|| digest_of("v1")), "{refresh:?} {taken_away}");
        let warm = look(&client, &server.url, None).await.unwrap();
        assert_eq!(warm.former().is_some(), expected);
    }
}

/// Who needs a fresh answer is served neither from memory, nor by a flight that began too early.
#[tokio::test]
async fn a_fresh_answer_is_asked_for() {
    let files = Arc::new(Mutex::new(sound().build()));
    let (gate, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let name = "timestamp.json".to_owned();
    let server = serve(Scenario::Gated(files, name, Arc::clone(&gate), Arc::clone(&waiting))).await;
    let client = client(options(LONG, None));
    let start = |max_age| {
        let (client, url) = (client.clone(), server.url.clone());
        tokio::spawn(async move { look(&client, &url, max_age).await })
    };
    let (slow, joining) = (start(None), start(None));
    while waiting.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    let fresh = start(Some(Duration::ZERO));
    while waiting.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    let answered = std::time::Instant::now();
    gate.add_permits(100);
    for flight in [slow, joining, fresh] {
        assert!(flight.await.unwrap().unwrap().asked() <= answered, "asked is when a flight began");
    }
    assert_eq!(waiting.load(Ordering::SeqCst), 2, "two began together");
    look(&client, &server.url, None).await.unwrap();
    look(&client, &server.url, Some(LONG)).await.unwrap();
    assert_eq!(waiting.load(Ordering::SeqCst), 2, "it is in memory");
    look(&client, &server.url, Some(Duration::ZERO)).await.unwrap();
    assert_eq!(waiting.load(Ordering::SeqCst), 3);
}
