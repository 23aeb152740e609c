//! The first look at a repository: everything whose name can be guessed is asked for at once, what comes is believed no more than before, and a server
//! that does not bear it is asked in order. The server counts requests, and answers none before all have come: nothing here depends on time.

mod server;

use std::sync::Arc;

use countersign_image::Wanted;
use countersign_notary::{Error, Repository, RootPins, Signer, TrustServer};
use countersign_remote::{Ask, Failure, Login, NotaryClient, StateDir};
use forge::{Files, Key, Repo, digest_of};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use server::{GUN, LONG, Scenario, Server, client, from, name_of, options, response, serve};
use tokio::sync::Semaphore;

type Make = Arc<dyn Fn(String, usize) -> BoxFuture<'static, Vec<u8>> + Send + Sync>;

/// A repository that so many signers have signed, and the signers.
fn signed(count: usize) -> (Files, Vec<Signer>) {
    let mut repo = Repo::new(GUN, forge::NOW);
    let mut signers = Vec::new();
    for index in 0..count {
        let (name, key) = (format!("s{index}"), Key::p256(&format!("signer {index}")));
        repo.signer(&name, &key).sign(&name, "v1", &digest_of("v1"));
        signers.push(Signer::new(&name, key.pem().as_bytes()).unwrap());
    }
    (repo.build(), signers)
}

async fn ask(client: &NotaryClient, url: &str, signers: &[Signer]) -> Result<Arc<Repository>, Failure> {
    let (server, pins, login) = (TrustServer::parse(url).unwrap(), RootPins::none(), Login::none());
    let seen = client.repository(Ask { signers, ..Ask::new(&server, GUN, &pins, &login) }).await?;
    Ok(Arc::clone(seen.repository()))
}

fn accepted(repository: &Repository, signers: &[Signer]) {
    let resolved = repository.resolve(&Wanted::Tag("v1".into()), signers, forge::NOW).unwrap();
    assert_eq!(resolved.digest().bytes(), &digest_of("v1"));
}

/// Which files a server was asked for, in the order of the requests; names with hashes without these.
fn asked(server: &Server) -> Vec<String> {
    let heads = server.heads.lock().unwrap();
    heads.iter().map(|head| short(&name_of(head))).collect()
}

fn short(name: &str) -> String {
    let parts: Vec<_> = name.split('.').collect();
    if let [role, hash, _] = parts[..]
        && hash.len() == 64
    {
        return format!("{role} by hash");
    }
    name.to_owned()
}

fn plain(signers: usize) -> Vec<String> {
    let names = ["root", "timestamp", "snapshot", "targets", "targets/releases"].map(str::to_owned);
    let signers = (0..signers).map(|index| format!("targets/s{index}"));
    names.into_iter().chain(signers).map(|role| format!("{role}.json")).collect()
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

/// Answers each request by its name, and by how many came before it.
fn by_name(make: impl Fn(&str, usize) -> Vec<u8> + Send + Sync + 'static) -> Scenario {
    let make: Make = Arc::new(move |head, before| {
        let answer = make(&name_of(&head), before);
        async { answer }.boxed()
    });
    Scenario::Made(make)
}

/// Answers no request before so many have come.
fn together(count: usize, files: Files) -> Scenario {
    let gate = Arc::new(Semaphore::new(0));
    let make: Make = Arc::new(move |head, before| {
        if before + 1 == count {
            gate.close();
        }
        let (gate, answer) = (Arc::clone(&gate), from(&files, &name_of(&head)));
        async move {
            // It is only ever closed.
            let _ = gate.acquire().await;
            answer
        }
        .boxed()
    });
    Scenario::Made(make)
}

#[tokio::test]
async fn everything_is_asked_for_at_once() {
    for count in [0, 2, 10] {
        let (files, signers) = signed(count);
        let files = if count == 0 { server::sound().build() } else { files };
        let server = serve(together(5 + count, files)).await;
        accepted(&ask(&client(options(LONG, None)), &server.url, &signers).await.unwrap(), &signers);
        assert_eq!(sorted(asked(&server)), sorted(plain(count)), "each once, and nothing else");
    }
}

#[tokio::test]
async fn many_reviews_of_one_cold_image_ask_once() {
    let (files, signers) = signed(2);
    let server = serve(together(7, files)).await;
    let client = client(options(LONG, None));
    let all = futures::future::join_all((0..1000).map(|_| ask(&client, &server.url, &signers))).await;
    for repository in all {
        accepted(&repository.unwrap(), &signers);
    }
    assert_eq!(sorted(asked(&server)), sorted(plain(2)));
}

/// More signers than are asked for at once, and a signer whom nobody asks for: their files are fetched when the metadata names them.
#[tokio::test]
async fn what_was_not_guessed_is_fetched_by_its_hash() {
    let (files, signers) = signed(14);
    let server = serve(by_name(move |name, _| from(&files, name))).await;
    accepted(&ask(&client(options(LONG, None)), &server.url, &signers).await.unwrap(), &signers);
    let asked = asked(&server);
    assert_eq!(sorted(asked[..16].to_vec()), sorted(plain(11)));
    let late = (11..14).map(|index| format!("targets/s{index} by hash")).collect();
    assert_eq!(sorted(asked[16..].to_vec()), sorted(late));
}

/// What a plain name brings may be older than what the snapshot names, as caches keep it for minutes; or somebody else's; or rubbish.
#[tokio::test]
async fn other_bytes_than_the_snapshot_names_are_not_used() {
    let (files, signers) = signed(1);
    let mut older = Repo::new(GUN, forge::NOW);
    older.signer("s0", &Key::p256("signer 0")).sign("s0", "v1", &digest_of("old"));
    older.tag("targets", "v0", &digest_of("old"));
    let older = older.build();
    let hostile = Repo::new(GUN, forge::NOW).tag("targets", "v1", &digest_of("evil")).build();
    for role in ["snapshot", "targets", "targets/releases", "targets/s0"] {
        for bytes in [older.role(role), hostile.role("targets"), b"{}", b"", &b" ".repeat(1 << 20)[..]] {
            let mut shown = files.clone();
            shown.insert(&files.checksum_name(role), files.role(role));
            shown.insert(&format!("{role}.json"), bytes);
            let server = serve(by_name(move |name, _| from(&shown, name))).await;
            accepted(&ask(&client(options(LONG, None)), &server.url, &signers).await.unwrap(), &signers);
            let asked = asked(&server);
            assert_eq!(sorted(asked[..6].to_vec()), sorted(plain(1)));
            assert_eq!(asked[6..], [format!("{role} by hash")]);
        }
    }
    // Where the right bytes are nowhere, it is not trusted.
    let mut gone = files.clone();
    gone.substitute("targets/s0", older.role("targets/s0"));
    let server = serve(by_name(move |name, _| from(&gone, name))).await;
    let refused = ask(&client(options(LONG, None)), &server.url, &signers).await.unwrap_err();
    assert!(
        matches!(&refused, Failure::Untrusted(error) if matches!(**error, Error::HashMismatch { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_has_no_plain_name_is_no_error() {
    let (files, signers) = signed(2);
    let plain_names = plain(2);
    let hidden: Vec<_> = plain_names[2..].to_vec();
    let server = serve(by_name(move |name, _| {
        if hidden.iter().any(|hidden| hidden == name) { response("404 Not Found", "", b"") } else { from(&files, name) }
    }))
    .await;
    accepted(&ask(&client(options(LONG, None)), &server.url, &signers).await.unwrap(), &signers);
    let asked = asked(&server);
    assert_eq!(sorted(asked[..7].to_vec()), sorted(plain(2)));
    assert_eq!(asked[7..9], ["snapshot by hash", "targets by hash"]);
    assert_eq!(asked.len(), 12);
}

/// A server that refuses, breaks off or breaks down where much comes at once is asked in order, now and for a while.
#[tokio::test]
async fn a_server_that_does_not_bear_it_is_asked_in_order() {
    let in_order = ["snapshot by hash", "targets by hash", "targets/releases by hash", "targets/s0 by hash"];
    for refusal in [response("429 Too Many", "", b""), response("503 Busy", "", b""), response("500 No", "", b"")] {
        // Of what comes first it takes one, or two, or those that are needed.
        for taken in [1, 2, 6] {
            let (files, signers) = signed(1);
            let refusal = refusal.clone();
            let server = serve(by_name(move |name, before| {
                let is_guess = ["snapshot.json", "targets.json", "targets/releases.json", "targets/s0.json"];
                let too_much = if taken == 6 { is_guess.contains(&name) } else { (taken..6).contains(&before) };
                if too_much { refusal.clone() } else { from(&files, name) }
            }))
            .await;
            let client = client(options(LONG, None));
            accepted(&ask(&client, &server.url, &signers).await.unwrap(), &signers);
            let first = asked(&server).len();
            // Another repository there. It is not the one that these files are of, which shows when the first files have come.
            let (address, pins, login) = (TrustServer::parse(&server.url).unwrap(), RootPins::none(), Login::none());
            let other = Ask { signers: &signers, ..Ask::new(&address, "other.example.com/app", &pins, &login) };
            client.repository(other).await.unwrap_err();
            let later = asked(&server).split_off(first);
            assert_eq!(sorted(later), ["root.json", "timestamp.json"], "{taken}");
        }
    }
    let (files, signers) = signed(1);
    let server = serve(by_name(move |name, _| {
        let closes = !name.contains("root.json") && !name.contains("timestamp.json") && name.split('.').count() == 2;
        // The server closes the connection without an answer.
        if closes { b"\r\n".to_vec() } else { from(&files, name) }
    }))
    .await;
    accepted(&ask(&client(options(LONG, None)), &server.url, &signers).await.unwrap(), &signers);
    let asked = asked(&server);
    assert_eq!(sorted(asked[asked.len() - 4..].to_vec()), in_order);
}

/// It goes on without the files that never come.
#[tokio::test]
async fn a_guess_that_is_never_answered_holds_nothing_up() {
    let (files, signers) = signed(1);
    let make: Make = Arc::new(move |head, _| {
        let name = name_of(&head);
        let answer = from(&files, &name);
        async move {
            if name == "targets.json" {
                std::future::pending::<()>().await;
            }
            answer
        }
        .boxed()
    });
    let server = serve(Scenario::Made(make)).await;
    accepted(&ask(&client(options(LONG, None)), &server.url, &signers).await.unwrap(), &signers);
    assert_eq!(asked(&server)[6..], ["targets by hash"]);
}

/// All that is guessed brings no more than one bound together.
#[tokio::test]
async fn guesses_share_one_bound() {
    let (mut files, signers) = signed(3);
    // Each is within the bound, and all of them are not.
    for role in ["targets/s0", "targets/s1", "targets/s2"] {
        files.insert(&files.checksum_name(role), files.role(role).to_vec());
        files.insert(&format!("{role}.json"), b" ".repeat(300 << 10));
    }
    let server = serve(by_name(move |name, _| from(&files, name))).await;
    accepted(&ask(&client(options(LONG, None)), &server.url, &signers).await.unwrap(), &signers);
    let by_hash = asked(&server).iter().filter(|name| name.starts_with("targets/s") && name.ends_with("hash")).count();
    assert_eq!(by_hash, 3);
}

/// Nothing that was guessed logs in, and a server that is known to want a login is asked for one file first.
#[tokio::test]
async fn a_login_is_begun_once() {
    let challenge = "WWW-Authenticate: Basic realm=\"x\"\r\n";
    let refusal = response("401 No", challenge, b"");
    let server = serve(by_name(move |_, _| refusal.clone())).await;
    let (_, signers) = signed(2);
    let client = client(options(LONG, None));
    let refused = ask(&client, &server.url, &signers).await.unwrap_err();
    assert!(matches!(refused, Failure::Auth(_)), "{refused:?}");
    assert!(asked(&server).len() <= plain(2).len());
    server.heads.lock().unwrap().clear();
    ask(&client, &server.url, &signers).await.unwrap_err();
    assert_eq!(asked(&server), ["root.json"]);
}

/// What is remembered of a repository says which files there were, also of signers whom nobody asks for now.
#[tokio::test]
async fn a_repository_that_is_remembered_is_asked_for_at_once_too() {
    let (files, _) = signed(2);
    let folder = tempfile::tempdir().unwrap();
    let state = || Arc::new(StateDir::open(folder.path()).unwrap());
    let server = serve(by_name(move |name, _| from(&files, name))).await;
    server::fetch(&client(options(LONG, Some(state()))), &server.url).await.unwrap();
    server.heads.lock().unwrap().clear();
    // As after a restart. The root is remembered, so it is not asked for.
    server::fetch(&client(options(LONG, Some(state()))), &server.url).await.unwrap();
    assert_eq!(sorted(asked(&server)), sorted(plain(2).split_off(1)));
}
