//! What is remembered of repositories, where a look-up, a flight and a change of the record cross. The order is forced.

mod server;

use std::hash::Hasher as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_image::Wanted;
use countersign_notary::{Error, Memory, MemoryRecord, Repository, TrustServer};
use countersign_remote::{
    Committed, Content, Failure, NotaryClient, Options, RecordKey, Saved, StateDir, StateError, StateStore, Stored,
    record,
};
use forge::{Cert, Files, Key, Repo, digest_of};
use futures::future::BoxFuture;
use server::{GUN, LONG, Scenario, Server, client, fetch, look, options, serve, sound};
use tokio::sync::Semaphore;

/// A store whose next look-up can be held back after it has read what is there.
struct Store {
    dir: StateDir,
    folder: PathBuf,
    /// Whether it knows without asking what has changed.
    followed: bool,
    hold: Mutex<Option<(Arc<AtomicUsize>, Arc<Semaphore>)>>,
    saves: AtomicUsize,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    fn open(folder: &Path, followed: bool) -> Arc<Self> {
        let (hold, saves) = (Mutex::default(), AtomicUsize::default());
        Arc::new(Self { dir: StateDir::open(folder).unwrap(), folder: folder.to_owned(), followed, hold, saves })
    }

    /// Holds the next look-up back. Gives how many are held, and lets them go on.
    fn hold(&self) -> (Arc<AtomicUsize>, Arc<Semaphore>) {
        let held = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        *self.hold.lock().unwrap() = Some(held.clone());
        held
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }
}

impl StateStore for Store {
    fn mark(&self, name: &str) -> Option<u64> {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(&std::fs::read(self.file(name)).unwrap_or_default());
        self.followed.then(|| hasher.finish())
    }

    fn place(&self, key: &RecordKey) -> String {
        self.dir.place(key)
    }

    fn load<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Stored>, StateError>> {
        let hold = self.hold.lock().unwrap().take();
        Box::pin(async move {
            let found = self.dir.load(key).await;
            if let Some((waiting, gate)) = hold {
                waiting.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
            }
            found
        })
    }

    fn save<'a>(
        &'a self,
        key: &'a RecordKey,
        content: Content,
        over: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Saved, StateError>> {
        Box::pin(async move {
            let text = || std::fs::read(self.file(&key.name())).ok();
            let before = text();
            let saved = self.dir.save(key, content, over).await;
            self.saves.fetch_add(usize::from(before != text()), Ordering::SeqCst);
            saved
        })
    }
}

fn with(store: &Arc<Store>, refresh: Duration) -> NotaryClient {
    let state = Arc::clone(store) as Arc<dyn StateStore>;
    client(Options { on_trouble: Arc::new(|_| ()), ..options(refresh, Some(state)) })
}

/// A repository of the same name that somebody else made.
fn foreign() -> Repo {
    let mut repo = Repo::new(GUN, forge::NOW);
    repo.set_key("root", &Key::p256("somebody else").certified(&Cert::new(GUN, forge::NOW)));
    repo.tag("targets", "v1", &digest_of("foreign"));
    repo
}

async fn serve_files(files: &Arc<Mutex<Files>>) -> Server {
    serve(Scenario::Files(Arc::clone(files))).await
}

/// What is remembered once this was seen.
async fn seen(repo: &Repo) -> MemoryRecord {
    let server = serve_files(&Arc::new(Mutex::new(repo.clone().build()))).await;
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

async fn until(waiting: &AtomicUsize, count: usize) {
    while waiting.load(Ordering::SeqCst) < count {
        tokio::task::yield_now().await;
    }
}

/// Others see more while a flight is under way, and a review that begins after that joins it: what they saw counts for both.
#[tokio::test]
async fn what_others_see_during_a_flight_counts_for_all_who_wait_for_it() {
    for followed in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), followed);
        let mut repo = sound();
        let files = Arc::new(Mutex::new(repo.build()));
        let (gate, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let gated =
            Scenario::Gated(Arc::clone(&files), "timestamp.json".to_owned(), Arc::clone(&gate), Arc::clone(&waiting));
        let server = serve(gated).await;
        let address = TrustServer::parse(&server.url).unwrap();
        put(&store.dir, address.as_str(), &seen(&repo).await);
        let client = with(&store, LONG);
        let ask = || {
            let (client, url) = (client.clone(), server.url.clone());
            tokio::spawn(async move { fetch(&client, &url).await })
        };
        let first = ask();
        until(&waiting, 1).await;
        repo.tag("targets", "v1", &digest_of("newer")).advance();
        put(&store.dir, address.as_str(), &seen(&repo).await);
        let late = ask();
        gate.add_permits(100);
        for outcome in [first.await.unwrap(), late.await.unwrap()] {
            let is_rollback = |error: &Error| matches!(error, Error::Rollback { .. });
            let told = matches!(&outcome, Err(Failure::Untrusted(error)) if is_rollback(error));
            assert!(told, "{followed}: {outcome:?}");
        }
    }
}

/// A record is looked up, and before anybody takes note of it, an administrator accepts a change: what was looked up first counts no more.
#[tokio::test]
async fn what_was_accepted_is_not_undone_by_an_older_look() {
    for followed in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), followed);
        let files = Arc::new(Mutex::new(sound().build()));
        let server = serve_files(&files).await;
        let address = TrustServer::parse(&server.url).unwrap();
        let client = with(&store, Duration::ZERO);
        fetch(&client, &server.url).await.unwrap();
        fetch(&client, &server.url).await.unwrap();
        let (waiting, gate) = store.hold();
        let slow = tokio::spawn({
            let (client, url) = (client.clone(), server.url.clone());
            async move { look(&client, &url, Some(Duration::ZERO)).await }
        });
        until(&waiting, 1).await;
        let accepted = MemoryRecord { accepted: Some("2026-01-01T00:00:00Z".into()), ..seen(&foreign()).await };
        put(&store.dir, address.as_str(), &accepted);
        *files.lock().unwrap() = foreign().build();
        // It waits for no flight that began too early.
        let answered = look(&client, &server.url, Some(Duration::ZERO)).await.unwrap();
        assert_eq!(client.commit(&answered, "").await, Ok(Committed::Done));
        assert_eq!(digest(&answered), digest_of("foreign"));
        // Who sits in front of the server shows the old one again.
        *files.lock().unwrap() = sound().build();
        gate.add_permits(1);
        let old = slow.await.unwrap();
        assert!(old.is_err(), "{followed}: {old:?}");
    }
}

/// A look-up that found nothing, as nothing was written yet, is no deletion once something was.
#[tokio::test]
async fn an_older_look_that_found_nothing_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), false);
    let files = Arc::new(Mutex::new(sound().build()));
    let server = serve_files(&files).await;
    let client = with(&store, Duration::ZERO);
    let (waiting, gate) = store.hold();
    let slow = tokio::spawn({
        let (client, url) = (client.clone(), server.url.clone());
        async move { look(&client, &url, Some(Duration::ZERO)).await }
    });
    until(&waiting, 1).await;
    let seen = look(&client, &server.url, Some(Duration::ZERO)).await.unwrap();
    assert_eq!(client.commit(&seen, "").await, Ok(Committed::Done));
    *files.lock().unwrap() = foreign().build();
    gate.add_permits(1);
    assert!(slow.await.unwrap().is_err());
    *files.lock().unwrap() = sound().build();
    fetch(&client, &server.url).await.unwrap();
}

/// After a deletion a dry run is shown something else: that counts no more once a record is there that it contradicts.
#[tokio::test]
async fn what_a_dry_run_saw_after_a_deletion_denies_nothing_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), true);
    let files = Arc::new(Mutex::new(sound().build()));
    let server = serve_files(&files).await;
    let address = TrustServer::parse(&server.url).unwrap();
    let client = with(&store, Duration::ZERO);
    fetch(&client, &server.url).await.unwrap();
    let record = store.dir.load(&RecordKey::new(address.as_str(), GUN)).await.unwrap().unwrap();
    std::fs::remove_file(store.file(&RecordKey::new(address.as_str(), GUN).name())).unwrap();
    *files.lock().unwrap() = foreign().build();
    let dry = look(&client, &server.url, Some(Duration::ZERO)).await.unwrap();
    assert_eq!(digest(&dry), digest_of("foreign"));
    // Another replica has written what is right.
    store.dir.replace(&RecordKey::new(address.as_str(), GUN), &record.content).unwrap();
    assert_eq!(client.commit(&dry, "").await, Ok(Committed::Behind));
    *files.lock().unwrap() = sound().build();
    assert_eq!(digest(&fetch(&client, &server.url).await.unwrap()), digest_of("v1"));
}

/// Two who count the keys of one root differently (the certificate of one has expired) know all that the other knows.
#[tokio::test]
async fn replicas_do_not_write_in_turn_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), true);
    let mut repo = sound();
    let (from, to) = (repo.hours(-2000), repo.hours(-1000));
    let expired = Key::p256("expired").certified(&Cert::new(GUN, forge::NOW).valid(from, to));
    repo.keys("root").keys.push(expired.clone());
    repo.file("root").signers.push(expired);
    let server = serve_files(&Arc::new(Mutex::new(repo.build()))).await;
    let replicas = [with(&store, LONG), with(&store, LONG)];
    for _ in 0..2 {
        for replica in &replicas {
            fetch(replica, &server.url).await.unwrap();
        }
    }
    let before = store.saves.load(Ordering::SeqCst);
    for _ in 0..5 {
        for replica in &replicas {
            fetch(replica, &server.url).await.unwrap();
        }
    }
    assert_eq!(store.saves.load(Ordering::SeqCst), before);
    assert!(before <= 2, "{before}");
}
