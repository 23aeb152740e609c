//! Trust servers on plain http, and clients that ask them.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_notary::{Repository, RootPins, TrustServer};
use countersign_remote::{
    Ask, Authenticator, Committed, Connections, DockerConfig, Failure, HttpClient, Login, MAX_LOOKS, NotaryClient,
    Options, Seen, Sharing, StateStore,
};
use forge::{Files, Repo, digest_of};
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub(crate) const GUN: &str = "registry.example.com/team/app";

/// Longer than any test takes: what is believed, or waited for, for so long does not end by the clock.
pub(crate) const LONG: Duration = Duration::from_secs(24 * 3600);

/// What the server does with a request.
#[derive(Clone)]
pub(crate) enum Scenario {
    /// Answers from files; what is not there is 404.
    Files(Arc<Mutex<Files>>),
    /// As before, but the file of this name takes a permit first; who waits for one is counted.
    Gated(Arc<Mutex<Files>>, String, Arc<Semaphore>, Arc<AtomicUsize>),
    /// Answers with what this makes of the head of a request, and of how many came before it.
    Made(Arc<dyn Fn(String, usize) -> BoxFuture<'static, Vec<u8>> + Send + Sync>),
    /// Sends this, whatever is asked.
    Text(String),
    /// Sends headers, and then a body without end.
    Endless,
    /// Sends a byte now and then.
    Dripping,
    /// Says nothing.
    Silent,
    /// Closes at once.
    Closing,
}

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) requests: Arc<AtomicUsize>,
    pub(crate) heads: Arc<Mutex<Vec<String>>>,
    pub(crate) sent: Arc<AtomicUsize>,
    /// Whether it closes every connection without a word.
    pub(crate) away: Arc<AtomicBool>,
}

pub(crate) async fn serve(scenario: Scenario) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        url: format!("http://{}", listener.local_addr().unwrap()),
        requests: Arc::default(),
        heads: Arc::default(),
        sent: Arc::default(),
        away: Arc::default(),
    };
    let (requests, heads, sent) = (Arc::clone(&server.requests), Arc::clone(&server.heads), Arc::clone(&server.sent));
    let away = Arc::clone(&server.away);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if away.load(Ordering::SeqCst) {
                continue;
            }
            let (scenario, requests, heads, sent, away) =
                (scenario.clone(), Arc::clone(&requests), Arc::clone(&heads), Arc::clone(&sent), Arc::clone(&away));
            tokio::spawn(async move {
                let _ = connection(stream, &scenario, &requests, &heads, &sent, &away).await;
            });
        }
    });
    server
}

async fn connection(
    mut stream: TcpStream,
    scenario: &Scenario,
    requests: &AtomicUsize,
    heads: &Mutex<Vec<String>>,
    sent: &AtomicUsize,
    away: &AtomicBool,
) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if away.load(Ordering::SeqCst) {
            return Ok(());
        }
        let before = requests.fetch_add(1, Ordering::SeqCst);
        let path = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
        heads.lock().unwrap().push(head.clone());
        match scenario {
            Scenario::Made(make) => stream.write_all(&make(head, before).await).await?,
            Scenario::Files(files) | Scenario::Gated(files, ..) => {
                let name = path.rsplit_once("/_trust/tuf/").map_or("", |(_, name)| name).to_owned();
                if let Scenario::Gated(_, gated, gate, waiting) = scenario
                    && name == *gated
                {
                    waiting.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                }
                let found = files.lock().unwrap().get(&name).map(<[u8]>::to_vec);
                let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
                let body = found.unwrap_or_default();
                stream
                    .write_all(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
                    .await?;
                stream.write_all(&body).await?;
            }
            Scenario::Text(text) => stream.write_all(text.as_bytes()).await?,
            Scenario::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                let spaces = vec![b' '; 65_536];
                loop {
                    stream.write_all(&spaces).await?;
                    sent.fetch_add(65_536, Ordering::SeqCst);
                }
            }
            Scenario::Dripping => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                loop {
                    stream.write_all(b" ").await?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Scenario::Silent => std::future::pending::<()>().await,
            Scenario::Closing => return Ok(()),
        }
    }
}

/// The file that a request asks for.
pub(crate) fn name_of(head: &str) -> String {
    let path = head.split_whitespace().nth(1).unwrap_or_default();
    path.rsplit_once("/_trust/tuf/").map_or("", |(_, name)| name).to_owned()
}

/// An answer on a connection that stays open.
pub(crate) fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// What a server of these files answers.
pub(crate) fn from(files: &Files, name: &str) -> Vec<u8> {
    files.get(name).map_or_else(|| response("404 Not Found", "", b""), |bytes| response("200 OK", "", bytes))
}

pub(crate) fn options(refresh: Duration, state: Option<Arc<dyn StateStore>>) -> Options {
    Options {
        refresh,
        stale: Duration::ZERO,
        flight: LONG,
        clock: Arc::new(|| forge::NOW),
        sharing: Sharing::Everybody,
        state,
        on_trouble: Arc::new(|problem| panic!("{problem}")),
    }
}

/// A client that waits somewhat less for an answer than for a flight.
pub(crate) fn client(options: Options) -> NotaryClient {
    let http = HttpClient::new(&Connections::default(), options.flight * 2 / 3).unwrap();
    let config = DockerConfig::parse(br#"{"auths": {"127.0.0.1": {"username": "alice", "password": "open sesame"}}}"#);
    NotaryClient::new(http, Arc::new(Authenticator::new(config.unwrap())), options)
}

pub(crate) async fn ask(client: &NotaryClient, server: &TrustServer, gun: &str) -> Result<Arc<Repository>, Failure> {
    for _ in 0..MAX_LOOKS {
        let seen = look_at(client, server, gun, None).await?;
        if client.commit(&seen, "").await? == Committed::Done {
            return Ok(Arc::clone(seen.repository()));
        }
    }
    Err(Failure::Contradicted { gun: gun.to_owned(), host: server.host_port().to_owned() })
}

async fn look_at(
    client: &NotaryClient,
    server: &TrustServer,
    gun: &str,
    max_age: Option<Duration>,
) -> Result<Seen, Failure> {
    let (pins, login) = (RootPins::none(), Login::none());
    client.repository(Ask { max_age, ..Ask::new(server, gun, &pins, &login) }).await
}

/// Asks as for a review that is admitted.
pub(crate) async fn fetch(client: &NotaryClient, url: &str) -> Result<Arc<Repository>, Failure> {
    ask(client, &TrustServer::parse(url).unwrap(), GUN).await
}

/// Asks, and has nothing remembered.
pub(crate) async fn look(client: &NotaryClient, url: &str, max_age: Option<Duration>) -> Result<Seen, Failure> {
    look_at(client, &TrustServer::parse(url).unwrap(), GUN, max_age).await
}

pub(crate) fn sound() -> Repo {
    let mut repo = Repo::new(GUN, forge::NOW);
    repo.tag("targets", "v1", &digest_of("v1"));
    repo
}
