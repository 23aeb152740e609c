//! That a large repository leaves others their time. The order is forced: nothing here depends on how long a step takes.

use std::collections::HashMap;
use std::sync::mpsc::channel;

use countersign_image::Wanted;
use forge::{Files, Repo, digest_of};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::flight::HEAVY_BYTES;
use super::*;
use crate::connections::Connections;

const GUN: &str = "registry.example.com/team/app";

/// Longer than the test takes.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// So that a client which waits for what cannot come fails its test.
const HANGS: Duration = Duration::from_secs(600);

fn tagged(tags: usize) -> Files {
    let mut repo = Repo::new(GUN, forge::NOW);
    for tag in 0..tags {
        repo.tag("targets", &format!("v{tag}"), &digest_of("v"));
    }
    repo.build()
}

/// Serves files below the path that each are named by, one request a connection. Gives the address.
async fn serve(served: HashMap<&'static str, Files>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = Arc::new(served);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let served = Arc::clone(&served);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap();
                let name = path.rsplit_once("/_trust/tuf/").unwrap().1;
                let which = path.split('/').nth(1).unwrap();
                let body = served[which].get(name);
                let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
                let body = body.unwrap_or_default();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
            });
        }
    });
    url
}

async fn ask(client: NotaryClient, server: TrustServer) -> Outcome {
    let (pins, login) = (RootPins::none(), Login::none());
    let ask = Ask::new(&server, GUN, &pins, &login);
    tokio::time::timeout(HANGS, client.repository(ask)).await.expect("it must end")
}

/// One that is large waits for a processor for as long as the test likes, and a small one that comes later is answered meanwhile.
#[tokio::test]
async fn a_heavy_repository_does_not_hold_up_others() {
    let (heavy, light) = (tagged(5000), tagged(1));
    assert!(heavy.role("targets").len() as u64 >= HEAVY_BYTES && (light.role("targets").len() as u64) < HEAVY_BYTES);
    let url = serve(HashMap::from([("heavy", heavy), ("light", light)])).await;
    let at = |name: &str| TrustServer::parse(&format!("{url}/{name}")).unwrap();
    let options = Options {
        refresh: LONG,
        stale: Duration::ZERO,
        flight: LONG,
        clock: Arc::new(|| forge::NOW),
        state: None,
        on_trouble: Arc::new(|problem| panic!("{problem}")),
        sharing: Sharing::Everybody,
    };
    let http = HttpClient::new(&Connections::default(), LONG).unwrap();
    let client = NotaryClient::new(http, Arc::default(), options);

    // Every thread for heavy work waits for the test.
    let (mut releases, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..client.heavy.threads() {
        let (release, held) = channel::<()>();
        let mut working = Box::pin(client.heavy.run(move || held.recv().is_err()));
        assert!(futures::poll!(&mut working).is_pending());
        releases.push(release);
        busy.push(working);
    }
    let large = tokio::spawn(ask(client.clone(), at("heavy")));
    while client.turns.heavy.load().0 == 0 {
        assert!(!large.is_finished(), "it was verified elsewhere");
        tokio::task::yield_now().await;
    }
    ask(client.clone(), at("light")).await.unwrap();
    assert!(!large.is_finished());

    drop(releases);
    assert!(futures::future::join_all(busy).await.into_iter().all(|done| done == Some(true)));
    let large = large.await.unwrap().unwrap();
    let resolved = large.resolve(&Wanted::Tag("v4999".into()), &[], forge::NOW).unwrap();
    assert_eq!(resolved.digest().bytes(), &digest_of("v"));
}
