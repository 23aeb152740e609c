//! Trust servers that are slow, broken or hostile, and what the client makes of them: it ends in time, reads no more than it
//! should, sends nothing where it must not go, and asks no more often than needed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_image::Wanted;
use countersign_notary::{Error, TrustServer};
use countersign_remote::{AuthError, Failure, HttpError, Options};
use forge::{Files, digest_of};

mod server;

use server::{GUN, LONG, Scenario, Server, ask, client, fetch, options, serve, sound};

/// So that a client which never gives up fails its test.
const HANGS: Duration = Duration::from_secs(600);

/// How a client that waits for so long fails.
async fn failure_within(patience: Duration, scenario: Scenario) -> (Failure, Server) {
    let server = serve(scenario).await;
    let client = client(Options { flight: patience, ..options(Duration::ZERO, None) });
    let failed = tokio::time::timeout(HANGS, fetch(&client, &server.url)).await;
    (failed.expect("it must end").unwrap_err(), server)
}

/// How it fails for another reason than the time that it takes.
async fn failure(scenario: Scenario) -> (Failure, Server) {
    failure_within(LONG, scenario).await
}

/// That it fails because the server does not come to an end: however slow everything is, nothing else can come first.
async fn takes_too_long(scenario: Scenario) {
    let (found, _) = failure_within(Duration::from_millis(500), scenario).await;
    assert!(found.is_undecided() && found.to_string().contains("did not answer in time"), "{found:?}");
}

#[tokio::test]
async fn hostile_servers() {
    let (found, server) = failure(Scenario::Endless).await;
    assert!(matches!(&found, Failure::Untrusted(error) if matches!(**error, Error::TooLong { .. })), "{found:?}");
    assert!(server.sent.load(Ordering::SeqCst) < 64 << 20, "no more is read than a root may have");
    let cut_short = Scenario::Text("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}".to_owned());
    for scenario in [Scenario::Dripping, Scenario::Silent, cut_short] {
        takes_too_long(scenario).await;
    }
    let (found, _) = failure(Scenario::Closing).await;
    assert!(matches!(found, Failure::Http(HttpError::Unreachable { .. })), "{found:?}");
    let texts = [
        ("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "answered 500"),
        (
            "HTTP/1.1 302 Found\r\nLocation: https://evil.example/x\r\nContent-Length: 0\r\n\r\n",
            "redirects to evil.example:443, which is not followed; name the final address as the trust server",
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
            "redirects to 169.254.169.254:80",
        ),
        ("HTTP/1.1 302 Found\r\nLocation: /v2/again\r\nContent-Length: 0\r\n\r\n", "redirects to 127.0.0.1"),
        ("rubbish\r\n\r\n", "cannot reach 127.0.0.1"),
        ("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "asks for a login of a kind that is not supported"),
        (
            "HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1:9/t\"\r\nContent-Length: 0\r\n\r\n",
            "not an https address",
        ),
        (
            "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n",
            "there are no credentials",
        ),
        ("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "gives no access"),
    ];
    for (text, expected) in texts {
        let (found, server) = failure(Scenario::Text(text.to_owned())).await;
        assert!(found.is_undecided() && found.to_string().contains(expected), "{text}: {found}");
        for head in server.heads.lock().unwrap().iter() {
            assert!(!head.to_ascii_lowercase().contains("authorization"), "nothing is sent over plain http: {head}");
        }
        assert!(!format!("{found:?}{found}").contains("sesame"));
    }
    let (found, _) = failure(Scenario::Text(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\u{1f}xx".into(),
    ))
    .await;
    assert!(matches!(found, Failure::Untrusted(_)), "nothing is decompressed: {found:?}");
    let (found, _) = failure(Scenario::Text("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".into())).await;
    assert_eq!(found, Failure::Untrusted(Box::new(Error::NoTrustData { gun: GUN.into() })));
}

#[tokio::test]
async fn a_bearer_realm_elsewhere_is_unreachable_and_not_given_a_password() {
    let text = "HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=\"https://127.0.0.1:1/t\",service=\"s\"\r\nContent-Length: 0\r\n\r\n";
    let (found, _) = failure(Scenario::Text(text.into())).await;
    assert!(matches!(found, Failure::Auth(AuthError::Http(HttpError::Unreachable { .. }))), "{found:?}");
}

#[tokio::test]
async fn one_flight_for_all_and_none_while_it_is_fresh() {
    let files = Arc::new(Mutex::new(sound().build()));
    let server = serve(Scenario::Files(Arc::clone(&files))).await;
    let fresh = client(options(LONG, None));
    let all: Vec<_> = (0..50).map(|_| fetch(&fresh, &server.url)).collect();
    for found in futures::future::join_all(all).await {
        let resolved = found.unwrap().resolve(&Wanted::Tag("v1".into()), &[], forge::NOW).unwrap();
        assert_eq!(resolved.digest().bytes(), &digest_of("v1"));
    }
    // Root, timestamp, snapshot, targets, and releases, which there might be: each once.
    assert_eq!(server.requests.load(Ordering::SeqCst), 5);
    fetch(&fresh, &server.url).await.unwrap();
    assert_eq!(server.requests.load(Ordering::SeqCst), 5);
    // Without a time of grace the timestamp is asked for each time, and nothing else if it is the same.
    let eager = client(options(Duration::ZERO, None));
    fetch(&eager, &server.url).await.unwrap();
    fetch(&eager, &server.url).await.unwrap();
    assert_eq!(server.requests.load(Ordering::SeqCst), 5 + 5 + 1);
    // What was there a minute ago and is gone is not trusted any more.
    *files.lock().unwrap() = Files::none();
    let found = fetch(&eager, &server.url).await.unwrap_err();
    assert_eq!(found, Failure::Untrusted(Box::new(Error::NoTrustData { gun: GUN.into() })));
}

#[tokio::test]
async fn names_that_an_address_would_change_are_not_asked_for() {
    let server = serve(Scenario::Files(Arc::new(Mutex::new(sound().build())))).await;
    let client = client(options(Duration::ZERO, None));
    let address = TrustServer::parse(&server.url).unwrap();
    for gun in ["a/../../b", "a/b?c", "a/b#c", "a b", "a/./b", "a%2fb/../c"] {
        let found = ask(&client, &address, gun).await.unwrap_err();
        assert!(matches!(found, Failure::BadName { .. }), "{gun}: {found:?}");
    }
    assert_eq!(server.requests.load(Ordering::SeqCst), 0);
}

/// A namespace that asks a server which never answers for more than it may ask for at all is answered where others answer.
#[tokio::test]
async fn a_server_that_hangs_leaves_turns_to_others() {
    let (silent, good) =
        (serve(Scenario::Silent).await, serve(Scenario::Files(Arc::new(Mutex::new(sound().build())))).await);
    let client = client(options(LONG, None));
    let (silent, address) = (TrustServer::parse(&silent.url).unwrap(), TrustServer::parse(&good.url).unwrap());
    let hanging: Vec<_> = (0..200)
        .map(|index| {
            let (client, silent) = (client.clone(), silent.clone());
            tokio::spawn(async move {
                let _turn = client.proof("", silent.as_str()).await.unwrap();
                ask(&client, &silent, &format!("registry.example.com/team/app{index}")).await
            })
        })
        .collect();
    while client.load().waiting == 0 {
        tokio::task::yield_now().await;
    }
    let _turn = client.proof("", address.as_str()).await.unwrap();
    ask(&client, &address, GUN).await.unwrap();
    assert!(hanging.iter().all(|hanging| !hanging.is_finished()));
}
