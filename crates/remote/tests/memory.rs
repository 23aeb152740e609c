//! How much memory servers can make the client take that never stop sending, or send as much as they may. A process of its
//! own, as memory is counted for the whole process.

mod server;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_notary::{RootPins, TrustServer};
use countersign_remote::{Ask, Connections, HttpClient, Login, NotaryClient, Options, Sharing};
use forge::{Cert, Key, Repo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// The most memory that the process ever had, in KiB (proc(5)).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Sends headers, and then this again and again.
async fn endless(headers: &'static str, again: Vec<u8>) -> TrustServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = TrustServer::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let again = Arc::new(again);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let again = Arc::clone(&again);
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(headers.as_bytes()).await;
                while stream.write_all(&again).await.is_ok() {}
            });
        }
    });
    server
}

/// Begins to count anew (proc(5), `clear_refs`).
fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// One test at a time: they measure the same process.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A client that gives up nothing for the time that it takes.
fn client() -> NotaryClient {
    let http = HttpClient::new(&Connections::default(), server::LONG).unwrap();
    let options = Options {
        refresh: Duration::ZERO,
        stale: Duration::ZERO,
        flight: server::LONG,
        clock: Arc::new(|| forge::NOW),
        state: None,
        on_trouble: Arc::new(|_| ()),
        sharing: Sharing::Everybody,
    };
    NotaryClient::new(http, Arc::default(), options)
}

/// Eight repositories at once whose files are as large as they may be, or hold as many values.
#[tokio::test]
async fn large_repositories_take_turns() {
    let _turn = TURN.lock().await;
    let certified = Key::p256("root").certified(&Cert::new("h.io/*", forge::NOW));
    let mut tags = Repo::new("h.io/app", forge::NOW);
    tags.set_key("root", &certified);
    for tag in 0..200_000 {
        tags.tag("targets", &format!("tag-{tag:06}"), &[7; 32]);
    }
    let mut values = Repo::new("h.io/app", forge::NOW);
    values.set_key("root", &certified).tag("targets", "v1", &[7; 32]);
    values.file("targets").edit(|signed| signed["x"] = serde_json::Value::from(vec![1; 2_400_000]));
    for (what, repo) in [("tags", &mut tags), ("values", &mut values)] {
        let files = repo.build();
        let megabytes = files.role("targets").len() >> 20;
        let server = server::serve(server::Scenario::Files(Arc::new(Mutex::new(files)))).await;
        let (address, client) = (TrustServer::parse(&server.url).unwrap(), &client());
        forget_peak();
        let before = peak();
        let asked = (0..8).map(|index| {
            let address = &address;
            async move {
                let (gun, pins, login) = (format!("h.io/app{index}"), RootPins::none(), Login::none());
                let ask = Ask::new(address, &gun, &pins, &login);
                client.repository(ask).await.map(|_| ())
            }
        });
        let outcomes = futures::future::join_all(asked).await;
        let grown = (peak() - before) >> 10;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        println!("{what}: 8 repositories, the largest file {megabytes} MiB: {grown} MiB more at the peak");
        // What one takes to be read, four that are fetched (and served, by this process too), and what is kept.
        assert!(grown < 512, "{what}: {grown} MiB");
    }
}

/// Each of them ends because it is too much, and not because somebody lost patience.
#[tokio::test]
async fn endless_answers_take_little_memory() {
    let _turn = TURN.lock().await;
    let client = client();
    let open = "HTTP/1.1 200 OK\r\n\r\n";
    let chunk = format!("20\r\n{}\r\n", "[".repeat(32)).into_bytes();
    let servers = [
        endless(open, vec![b' '; 65_536]).await,
        endless(open, b"{\"signed\":{\"a\":".repeat(4096)).await,
        endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk.repeat(512)).await,
        endless("HTTP/1.1 200 OK\r\n", b"X-Header: some value\r\n".repeat(512)).await,
        endless("HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", vec![b'0'; 65_536]).await,
        endless("HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"", vec![b'x'; 65_536]).await,
    ];
    forget_peak();
    let before = peak();
    let client = &client;
    let asked = servers.iter().flat_map(|server| {
        (0..8).map(move |index| async move {
            let (gun, pins, login) = (format!("h.io/app{index}"), RootPins::none(), Login::none());
            client.repository(Ask::new(server, &gun, &pins, &login)).await
        })
    });
    for outcome in futures::future::join_all(asked).await {
        assert!(outcome.is_err());
    }
    let grown = (peak() - before) / 1024;
    println!("48 repositories on servers that never stop: {grown} MiB more at the peak");
    // A root of 4 MiB, a timestamp of 1 MiB, and what it takes to read them, 48 times at once.
    assert!(grown < 48 * 12, "{grown} MiB");
}
