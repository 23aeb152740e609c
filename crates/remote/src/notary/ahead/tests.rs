use std::sync::Mutex;

use countersign_image::Wanted;
use countersign_notary::{Error, RootPins, TrustServer};
use forge::{Files, Repo, digest_of};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::connections::Connections;
use crate::docker_config::DockerConfig;
use crate::http::HttpClient;
use crate::login::Login;
use crate::notary::seen::Outcome;
use crate::notary::{Ask, Options, Sharing};

/// Longer than a test takes: nothing becomes due by itself.
const REFRESH: Duration = Duration::from_secs(24 * 3600);

/// A trust server that tells what it is asked for.
#[derive(Clone)]
struct Server {
    url: String,
    /// None while it closes every connection.
    files: Arc<Mutex<Option<Files>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(files: Files) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { url, files: Arc::new(Mutex::new(Some(files))), asked: Arc::default() };
        let it = server.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let it = it.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let name = head.split(' ').nth(1).unwrap().rsplit_once("/_trust/tuf/").unwrap().1.to_owned();
                    let found = it.files.lock().unwrap().as_ref().map(|files| files.get(&name).map(<[u8]>::to_vec));
                    it.asked.lock().unwrap().push(name);
                    let Some(found) = found else { return };
                    let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
                    let body = found.unwrap_or_default();
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
                });
            }
        });
        server
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// A repository whose root is for each name below `h.io`, and whose tag is signed to be this.
fn signed(version: u64, digest: &str) -> Files {
    let certified = forge::Key::p256("root").certified(&forge::Cert::new("h.io/*", forge::NOW));
    let mut repo = Repo::new("h.io/app", forge::NOW);
    repo.set_key("root", &certified).tag("targets", "v1", &digest_of(digest));
    for role in ["targets", "snapshot", "timestamp"] {
        repo.file(role).version = version;
    }
    repo.build()
}

fn client() -> NotaryClient {
    client_with(REFRESH)
}

fn client_with(refresh: Duration) -> NotaryClient {
    let options = Options {
        refresh,
        stale: Duration::ZERO,
        flight: REFRESH,
        clock: Arc::new(|| forge::NOW),
        state: None,
        on_trouble: Arc::new(|problem| panic!("{problem}")),
        sharing: Sharing::Everybody,
    };
    NotaryClient::new(HttpClient::new(&Connections::default(), REFRESH).unwrap(), Arc::default(), options)
}

async fn ask_as(client: &NotaryClient, server: &Server, gun: &str, login: &Login, namespace: &str) -> Outcome {
    let (address, pins) = (TrustServer::parse(&server.url).unwrap(), RootPins::none());
    client.repository(Ask { namespace, ..Ask::new(&address, gun, &pins, login) }).await
}

async fn ask(client: &NotaryClient, server: &Server) -> Outcome {
    ask_as(client, server, "h.io/app", &Login::none(), "n").await
}

fn digest(outcome: Outcome) -> [u8; 32] {
    *outcome.unwrap().resolve(&Wanted::Tag("v1".into()), &[], forge::NOW).unwrap().digest().bytes()
}

async fn look(client: &NotaryClient, due: Vec<Due>) {
    futures::future::join_all(due.into_iter().map(|due| client.look_ahead(due))).await;
}

/// When what was asked for just now is due.
fn then() -> Instant {
    Instant::now() + REFRESH / 3 * 2
}

fn queued(client: &NotaryClient) -> usize {
    client.slots().queue.entries.values().map(BTreeMap::len).sum()
}

#[tokio::test]
async fn what_is_in_use_is_looked_at_in_time() {
    let server = Server::start(signed(1, "one")).await;
    let client = client();
    assert_eq!(digest(ask(&client, &server).await), digest_of("one"));
    server.asked();
    assert!(client.due(Instant::now()).is_empty());
    *server.files.lock().unwrap() = Some(signed(2, "two"));
    let due = client.due(then());
    assert_eq!((due.len(), queued(&client)), (1, 0));
    assert!(client.due(then()).is_empty(), "it is looked at already");
    look(&client, due).await;
    assert_eq!(server.asked().first().unwrap(), "timestamp.json");
    // The review asks nobody.
    assert_eq!(digest(ask(&client, &server).await), digest_of("two"));
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!((client.load().ahead.verified, client.load().outcomes.verified), (1, 2));
    // And again, where nothing has changed.
    look(&client, client.due(then())).await;
    assert_eq!(server.asked(), ["timestamp.json"]);
    assert_eq!(queued(&client), 1);
}

/// By itself, as a server does it.
#[tokio::test]
async fn what_is_due_is_looked_at_without_being_asked_for() {
    let server = Server::start(signed(1, "one")).await;
    let minute = Duration::from_secs(60);
    let client = client_with(minute);
    let seen = ask(&client, &server).await.unwrap();
    server.asked();
    let before = seen.asked().checked_sub(minute / 6 * 5).unwrap();
    {
        // As if it had been asked for most of a minute ago.
        let mut slots = client.slots();
        slots.find(&seen.key).unwrap().kept.as_mut().unwrap().asked = before;
        let terms = Terms { pins: RootPins::none(), login: Login::none() };
        slots.look_again(&seen.key, &terms, "n".into(), minute);
    }
    let looked = async {
        while client.load().ahead.verified == 0 {
            tokio::task::yield_now().await;
        }
    };
    futures::future::select(Box::pin(client.keep_fresh()), Box::pin(looked)).await;
    assert_eq!(server.asked(), ["timestamp.json"]);
    assert!(client.slots().find(&seen.key).unwrap().kept.as_ref().unwrap().asked > seen.asked());
    // Without a time for which anything is believed there is nothing to do ahead of need.
    client_with(Duration::ZERO).keep_fresh().await;
}

#[tokio::test]
async fn what_nobody_asks_for_any_more_is_let_go() {
    let server = Server::start(signed(1, "one")).await;
    let client = client();
    ask(&client, &server).await.unwrap();
    server.asked();
    assert!(client.due(Instant::now() + REFRESH * IN_USE).is_empty());
    assert_eq!(queued(&client), 0);
    assert!(client.due(Instant::now() + REFRESH * IN_USE * 2).is_empty());
    assert_eq!(server.asked(), [""; 0]);
}

/// Of a pod that is gone the secret may be gone too.
#[tokio::test]
async fn nobodys_pull_secrets_are_used_ahead_of_need() {
    let server = Server::start(signed(1, "one")).await;
    let client = client();
    let config = DockerConfig::parse(br#"{"auths": {"h.io": {"username": "alice", "password": "x"}}}"#).unwrap();
    let login = Login::with(vec![Arc::new(config)]);
    ask_as(&client, &server, "h.io/app", &login, "n").await.unwrap();
    assert_eq!(queued(&client), 0);
    ask_as(&client, &server, "h.io/other", &Login::none(), "n").await.unwrap();
    assert_eq!(queued(&client), 1);
}

/// What is in memory stays as long as it would have, and no longer; the server is asked ever more seldom.
#[tokio::test]
async fn a_server_that_fails_is_left_alone() {
    let server = Server::start(signed(1, "one")).await;
    let client = client();
    let asked = ask(&client, &server).await.unwrap().asked();
    server.asked();
    let files = server.files.lock().unwrap().take();
    for failures in 1..4 {
        let due = client.due(then());
        assert_eq!(due.len(), 1);
        look(&client, due).await;
        assert_eq!(client.load().ahead.unreachable, failures);
        assert!(!server.asked().is_empty());
        let address = TrustServer::parse(&server.url).unwrap();
        let until = client.manners.paused_until(address.as_str(), Instant::now()).unwrap();
        assert!(client.due(until.checked_sub(Duration::from_millis(1)).unwrap()).is_empty(), "it is not asked before");
        assert_eq!(queued(&client), 1);
        assert_eq!(ask(&client, &server).await.unwrap().asked(), asked, "nothing lasts longer for that");
        assert_eq!(server.asked(), [""; 0]);
        // As if that time had passed.
        client.manners.end_pause(address.as_str());
    }
    *server.files.lock().unwrap() = files;
    look(&client, client.due(then())).await;
    assert!(ask(&client, &server).await.unwrap().asked() > asked);
    assert_eq!((client.load().ahead.verified, queued(&client)), (1, 1));
}

#[tokio::test]
async fn what_is_found_wrong_counts_at_once() {
    let server = Server::start(signed(2, "two")).await;
    let client = client();
    ask(&client, &server).await.unwrap();
    *server.files.lock().unwrap() = Some(signed(1, "one"));
    look(&client, client.due(then())).await;
    assert_eq!((client.load().ahead.untrusted, queued(&client)), (1, 0));
    let refused = ask(&client, &server).await.unwrap_err();
    assert!(matches!(&refused, Failure::Untrusted(error) if matches!(**error, Error::Rollback { .. })), "{refused:?}");
}

#[tokio::test]
async fn whom_a_review_was_faster_for_is_not_asked_again() {
    let server = Server::start(signed(1, "one")).await;
    let client = client();
    ask(&client, &server).await.unwrap();
    let due = client.due(then());
    let (address, pins, login) = (TrustServer::parse(&server.url).unwrap(), RootPins::none(), Login::none());
    let fresh = Ask { max_age: Some(Duration::ZERO), ..Ask::new(&address, "h.io/app", &pins, &login) };
    client.repository(fresh).await.unwrap();
    server.asked();
    look(&client, due).await;
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!((client.load().ahead.verified, queued(&client)), (0, 1));
}

/// A namespace with any number of repositories has its part, and the others theirs.
#[tokio::test]
async fn namespaces_share_what_is_looked_at() {
    let server = Server::start(signed(1, "one")).await;
    let client = client();
    for index in 0..LOOKS.1 + 5 {
        ask_as(&client, &server, &format!("h.io/app{index}"), &Login::none(), "greedy").await.unwrap();
    }
    ask_as(&client, &server, "h.io/last", &Login::none(), "n").await.unwrap();
    let due = client.due(then());
    let of = |namespace: &str| due.iter().filter(|due| *due.namespace == *namespace).count();
    assert_eq!((of("greedy"), of("n"), queued(&client)), (LOOKS.1, 1, 5));
    look(&client, due).await;
    assert_eq!(client.due(then()).len(), LOOKS.1 + 1, "those that were put off are among them");
}

/// However many repositories of a namespace are due, those of another one come in time.
#[tokio::test]
async fn nobody_stands_behind_all_repositories_of_another_namespace() {
    let server = Server::start(signed(1, "one")).await;
    let client = client();
    let first = ask_as(&client, &server, "h.io/first", &Login::none(), "greedy").await.unwrap();
    ask(&client, &server).await.unwrap();
    {
        let mut slots = client.slots();
        let terms = Terms { pins: RootPins::none(), login: Login::none() };
        for index in 0..2 * AT_ONCE {
            let record = crate::store::RecordKey::new(&server.url, &format!("h.io/greedy{index}"));
            let key = Arc::new(Key { record, certificate: None });
            let (repository, asked) = (Arc::clone(first.repository()), first.asked());
            slots.keep(&key, crate::notary::seen::Kept { repository, asked }, REFRESH);
            slots.look_again(&key, &terms, "greedy".into(), REFRESH);
        }
    }
    let due = client.due(then());
    let of = |namespace: &str| due.iter().filter(|due| *due.namespace == *namespace).count();
    assert_eq!((of("greedy"), of("n")), (LOOKS.1, 1));
}

/// Reviews on the word of a tenant do not have a repository looked at as the operator, with whatever credentials that brings.
#[tokio::test]
async fn what_others_ask_for_is_not_looked_at_as_somebody_who_asks_no_more() {
    let server = Server::start(signed(1, "one")).await;
    let client = client();
    let seen = ask(&client, &server).await.unwrap();
    let (operator, tenant) = (Login::none(), Login::none().at(crate::login::NamedBy::Tenant));
    let later = then() + REFRESH * IN_USE;
    for (login, looks) in [(tenant, 0), (operator, 1)] {
        let mut slots = client.slots();
        let slot = slots.find(&seen.key).unwrap();
        slot.used = later;
        let terms = Terms { pins: RootPins::none(), login: Login::none() };
        slot.again.iter_mut().for_each(|again| again.used_by(&login, later));
        drop(slots);
        assert_eq!(client.due(later).len(), looks);
        client.slots().look_again(&seen.key, &terms, "n".into(), REFRESH);
    }
}

/// A review that waits for a look ahead of need asks itself where that fails.
#[tokio::test]
async fn a_look_ahead_that_fails_takes_no_review_with_it() {
    let server = Server::start(signed(1, "one")).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = Server { url: format!("http://{}", listener.local_addr().unwrap()), ..server.clone() };
    let target = server.url.strip_prefix("http://").unwrap().to_owned();
    let (hangs, breaks) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(tokio::sync::Notify::new()));
    let (to_hang, told) = (Arc::clone(&hangs), Arc::clone(&breaks));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (target, told) = (target.clone(), Arc::clone(&told));
            let hangs = to_hang.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_ok();
            tokio::spawn(async move {
                if hangs {
                    told.notified().await;
                    let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    let _ = stream.write_all(answer).await;
                    return;
                }
                let mut behind = tokio::net::TcpStream::connect(&target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
            });
        }
    });
    let client = client();
    let seen = ask(&client, &front).await.unwrap();
    hangs.add_permits(1);
    let due = client.due(then());
    let ahead = client.clone();
    let looking = tokio::spawn(async move { look(&ahead, due).await });
    let wanted = || {
        let mut slots = client.slots();
        let flights = &slots.find(&seen.key).unwrap().flights;
        flights.first().map_or(0, |flight| Arc::strong_count(&flight.wanted))
    };
    // The flight itself, and who looks ahead.
    while wanted() < 2 || hangs.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    // It has become too old.
    client.slots().find(&seen.key).unwrap().kept = None;
    let (asker, address) = (client.clone(), front.clone());
    let review = tokio::spawn(async move { ask(&asker, &address).await });
    while wanted() < 3 {
        tokio::task::yield_now().await;
    }
    breaks.notify_waiters();
    assert_eq!(digest(review.await.unwrap()), digest_of("one"));
    looking.await.unwrap();
    assert_eq!(client.load().ahead.unreachable, 1);
}

/// Of a repository that was dropped meanwhile nothing is left to look at.
#[tokio::test]
async fn what_is_dropped_is_not_looked_at() {
    let server = Server::start(signed(1, "one")).await;
    let client = client();
    ask(&client, &server).await.unwrap();
    let under_way = client.due(then());
    client.slots().by_key.clear();
    server.asked();
    look(&client, under_way).await;
    ask_as(&client, &server, "h.io/other", &Login::none(), "n").await.unwrap();
    client.slots().by_key.clear();
    server.asked();
    assert!(client.due(then()).is_empty());
    let slots = client.slots();
    assert!(slots.queue.entries.is_empty() && slots.queue.looks.is_empty());
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn an_odd_answer_is_of_one_repository() {
    let host = || "h:443".to_owned();
    let status = |status| Failure::Http(HttpError::Status { host: host(), status, path: "/".into() });
    for failure in [status(429), status(503), Failure::TimedOut { host: host() }] {
        assert!(is_of_all_repositories(&failure), "{failure:?}");
    }
    for failure in [status(400), Failure::Http(HttpError::Busy { host: host() }), Failure::Abandoned { gun: host() }] {
        assert!(!is_of_all_repositories(&failure), "{failure:?}");
    }
}
