//! Registries over TLS: manifests, blobs that are kept elsewhere, and lists of referrers, from sound and hostile ones.

mod tls;

use std::collections::HashMap;
use std::sync::Arc;

use countersign_image::{ImageReference, Sha256};
use countersign_remote::RedirectProblem;
use countersign_remote::{
    AuthError, Authenticator, Connections, HttpClient, HttpError, Login, RegistryClient, RegistryError,
};
use countersign_remote::{Descriptor, Repository, Which};
use rcgen::SanType;
use serde_json::{Value, json};

use tls::{Authority, Certificate, Handler, LONG, PASSWORD, Server, answer, basic, config, outside, path_of, trusting};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// More than any blob here has.
const ENOUGH: u64 = 1 << 20;

/// A certificate for all addresses of this machine that the tests use.
fn certificate(authority: &Authority) -> Certificate {
    authority.issue(|params| params.subject_alt_names.push(SanType::IpAddress(outside())))
}

/// Answers by path and query; everything else is 404.
fn pages<const N: usize>(pages: [(String, Vec<u8>); N]) -> Handler {
    let pages = HashMap::from(pages);
    Arc::new(move |head| pages.get(path_of(head)).cloned().unwrap_or_else(|| answer("404 Not Found", "", b"{}")))
}

/// Answers whoever sends this `Authorization`, and challenges everybody else.
fn guarded(challenge: &str, expected: String, open: Handler) -> Handler {
    let challenge = format!("WWW-Authenticate: {challenge}\r\n");
    Arc::new(move |head| {
        if head.lines().any(|line| line.eq_ignore_ascii_case(&format!("authorization: {expected}"))) {
            open(head)
        } else {
            answer("401 Unauthorized", &challenge, b"{}")
        }
    })
}

fn redirect(status: u16, to: &str) -> Vec<u8> {
    answer(&format!("{status} Elsewhere"), &format!("Location: {to}\r\n"), b"")
}

fn document(kind: &str, body: &[u8]) -> Vec<u8> {
    answer("200 OK", &format!("Content-Type: {kind}\r\n"), body)
}

fn client(connections: &Connections, authenticator: Authenticator) -> RegistryClient {
    RegistryClient::new(HttpClient::new(connections, LONG).unwrap(), Arc::new(authenticator))
}

fn anybody(authority: &Authority) -> RegistryClient {
    client(&trusting(authority), Authenticator::default())
}

fn app(server: &Server) -> Repository {
    Repository::parse(&format!("{}/team/app", server.host)).unwrap()
}

fn blob_at(digest: Sha256) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

async fn blob(client: &RegistryClient, server: &Server, bytes: &[u8]) -> Result<Option<Vec<u8>>, RegistryError> {
    client.blob(&app(server), Sha256::of(bytes), ENOUGH, &Login::none()).await
}

/// The storage learns of nobody who they are, however the registry sends there.
#[tokio::test]
async fn blobs_are_fetched_from_elsewhere_without_saying_who_we_are() {
    let authority = Authority::make();
    let certificate = certificate(&authority);
    for status in [301, 302, 303, 307, 308] {
        let storage =
            Server::start_outside(&certificate, pages([("/data?signed=1".into(), answer("200 OK", "", b"blob"))]))
                .await;
        let sends = redirect(status, &format!("https://u:p@{}/data?signed=1", storage.host));
        let open = pages([(blob_at(Sha256::of(b"blob")), sends)]);
        let registry = Server::start(&certificate, guarded("Basic realm=\"x\"", basic("alice", PASSWORD), open)).await;
        let alice = client(&trusting(&authority), Authenticator::new(config(&registry.host, "alice", PASSWORD)));
        assert_eq!(blob(&alice, &registry, b"blob").await.unwrap().as_deref(), Some(&b"blob"[..]), "{status}");
        assert!(registry.saw("uthorization"));
        let heads = storage.heads.lock().unwrap();
        assert_eq!(heads.len(), 1);
        for word in ["authorization", "cookie", "referer", "team/app"] {
            assert!(!heads[0].to_lowercase().contains(word), "{}", heads[0]);
        }
    }
}

/// Who was sent away and comes back is nobody: the other host chose what is asked for.
#[tokio::test]
async fn nobody_comes_back_with_a_password() {
    let authority = Authority::make();
    let certificate = certificate(&authority);
    let bytes = b"blob";
    // Each needs the other's port: the registry sends to whatever the path says.
    let storage =
        Server::start_outside(&certificate, Arc::new(|head| redirect(307, path_of(head).trim_start_matches("/to/"))))
            .await;
    let to = format!("https://{}/to/", storage.host);
    let registry = Server::start_outside(
        &certificate,
        Arc::new(move |head| {
            let host =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("host: ").map(str::to_owned)).unwrap();
            match path_of(head) {
                "/back" => answer("200 OK", "", bytes),
                _ if head.to_lowercase().contains("authorization: ") => {
                    redirect(307, &format!("{to}https://{host}/back"))
                }
                _ => answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
            }
        }),
    )
    .await;
    let alice = client(&trusting(&authority), Authenticator::new(config(&registry.host, "alice", PASSWORD)));
    assert_eq!(blob(&alice, &registry, bytes).await.unwrap().as_deref(), Some(&bytes[..]));
    let heads = registry.heads.lock().unwrap();
    let back: Vec<_> = heads.iter().filter(|head| path_of(head) == "/back").collect();
    assert!(back.len() == 1 && !back[0].to_lowercase().contains("authorization"), "{back:?}");
    assert_eq!(heads.len(), 3);
}

/// A certificate of ours is shown only to hosts for which it is configured.
#[tokio::test]
async fn client_certificates_stay_with_their_host() {
    let (authority, ours) = (Authority::make(), Authority::named("our CA"));
    let certificate = certificate(&authority);
    let me = ours.issue(|_| ());
    let storage =
        Server::start_outside_for(&certificate, &ours, pages([("/x".into(), answer("200 OK", "", b"blob"))])).await;
    let sends = pages([(blob_at(Sha256::of(b"blob")), redirect(307, &format!("https://{}/x", storage.host)))]);
    let registry = Server::start_for(&certificate, Some(&ours), sends).await;
    for (hosts, good) in [(vec![&registry.host], false), (vec![&registry.host, &storage.host], true)] {
        let mut connections = trusting(&authority);
        for host in hosts {
            connections.set_identity(host, me.pem.as_bytes(), me.key_pem().as_bytes(), "test").unwrap();
        }
        let found = blob(&client(&connections, Authenticator::default()), &registry, b"blob").await;
        assert_eq!(found.is_ok(), good, "{found:?}");
    }
}

/// Redirects that would lead to this machine, to a cloud's credentials, or off https.
#[tokio::test]
async fn redirects_to_places_that_are_not_asked() {
    use RedirectProblem::{NotAskedFor, NotHttps, OffLimits};
    let authority = Authority::make();
    let certificate = certificate(&authority);
    let storage = Server::start(&certificate, pages([("/x".into(), answer("200 OK", "", b"blob"))])).await;
    let port = storage.host.rsplit_once(':').unwrap().1;
    for (to, problem) in [
        (format!("https://127.0.0.1:{port}/x"), OffLimits),
        (format!("https://localhost:{port}/x"), OffLimits),
        (format!("https://[::ffff:127.0.0.1]:{port}/x"), OffLimits),
        (format!("https://0.0.0.0:{port}/x"), OffLimits),
        ("https://169.254.169.254/latest/meta-data".into(), OffLimits),
        ("https://[fe80::1]/".into(), OffLimits),
        (format!("http://{}:80/x", outside()), NotHttps),
        (format!("http://127.0.0.1:{port}/x"), NotHttps),
        ("https://[".into(), NotAskedFor),
    ] {
        let registry = Server::start(&certificate, pages([(blob_at(Sha256::of(b"blob")), redirect(307, &to))])).await;
        let refused = blob(&anybody(&authority), &registry, b"blob").await.unwrap_err();
        let RegistryError::Http(HttpError::Redirected { host, problem: found, .. }) = &refused else {
            panic!("{to}: {refused:?}")
        };
        assert_eq!((host, *found), (&registry.host, problem), "{to}");
        // The original address is another origin when somebody else sends us there.
        let middle = Server::start_outside(&certificate, Arc::new(move |_| redirect(307, &to))).await;
        let sends = redirect(307, &format!("https://{}/", middle.host));
        let registry = Server::start(&certificate, pages([(blob_at(Sha256::of(b"blob")), sends)])).await;
        let refused = blob(&anybody(&authority), &registry, b"blob").await.unwrap_err();
        let from_middle =
            matches!(&refused, RegistryError::Http(HttpError::Redirected { host, .. }) if *host == middle.host);
        assert!(from_middle, "{refused:?}");
    }
    assert!(storage.asked() == 0, "nothing is asked of it");
}

#[tokio::test]
async fn redirects_end() {
    let authority = Authority::make();
    let certificate = certificate(&authority);
    // Round and round at one host, and away to one that goes round.
    let round = Server::start_outside(&certificate, Arc::new(|_| redirect(307, "/again"))).await;
    let away = Server::start(&certificate, {
        let to = format!("https://{}/", round.host);
        Arc::new(move |_| redirect(307, &to))
    })
    .await;
    for (server, asked) in [(&round, 4), (&away, 3)] {
        let before = round.asked();
        let refused = blob(&anybody(&authority), server, b"blob").await.unwrap_err();
        let RegistryError::Http(HttpError::Redirected { problem, .. }) = &refused else { panic!("{refused:?}") };
        assert_eq!((*problem, round.asked() - before), (RedirectProblem::TooMany, asked));
        assert!(refused.to_string().ends_with("which is not followed since 3 redirects came before"), "{refused}");
    }
    // A manifest comes from the registry itself.
    let refused = anybody(&authority).manifest(&app(&away), Which::Tag("v1"), &Login::none()).await.unwrap_err();
    let expected = format!(
        "registry: {} redirects to {}, which is not followed; name the final address as the trust server",
        away.host, round.host
    );
    assert_eq!(refused.to_string(), expected);
}

/// What the storage says of logins is not answered, neither there nor at the registry, with a login or without.
#[tokio::test]
async fn storage_asks_for_no_login() {
    let authority = Authority::make();
    let certificate = certificate(&authority);
    let digest = Sha256::of(b"blob");
    for status in ["401 Unauthorized", "403 Forbidden", "404 Not Found", "500 Oops"] {
        let answers = answer(status, "WWW-Authenticate: Basic realm=\"x\"\r\n", b"");
        let storage = Server::start_outside(&certificate, pages([("/x".into(), answers)])).await;
        let open = || pages([(blob_at(digest), redirect(307, &format!("https://{}/x", storage.host)))]);
        let closed = guarded("Basic realm=\"x\"", basic("alice", PASSWORD), open());
        for (handler, asked) in [(open(), 1), (closed, 2)] {
            let registry = Server::start(&certificate, handler).await;
            let alice = client(&trusting(&authority), Authenticator::new(config(&registry.host, "alice", PASSWORD)));
            let refused = blob(&alice, &registry, b"blob").await.unwrap_err();
            let expected = format!(
                "the registry {} answered {} for the blob {digest} of {} (at {}, to which it redirects)",
                registry.host,
                &status[..3],
                app(&registry),
                storage.host
            );
            assert_eq!(refused.to_string(), expected);
            assert_eq!((registry.asked(), registry.saw("uthorization")), (asked, asked == 2));
        }
        assert_eq!((storage.asked(), storage.saw("uthorization")), (2, false));
    }
}

#[tokio::test]
async fn blobs_are_what_was_asked_for() {
    let authority = Authority::make();
    let certificate = certificate(&authority);
    let (good, forged) = (Sha256::of(b"good"), Sha256::of(b"forged"));
    let served = pages([
        (blob_at(good), answer("200 OK", "", b"good")),
        (blob_at(forged), answer("200 OK", "", b"other bytes")),
    ]);
    let registry = Server::start(&certificate, served).await;
    let client = anybody(&authority);
    let fetch = async |digest, limit| client.blob(&app(&registry), digest, limit, &Login::none()).await;
    assert_eq!(fetch(good, 4).await.unwrap().as_deref(), Some(&b"good"[..]));
    assert_eq!(fetch(Sha256::of(b"missing"), 4).await.unwrap(), None);
    let long = fetch(good, 3).await.unwrap_err().to_string();
    assert!(long.contains("more than 3 bytes for the blob"), "{long}");
    let other = fetch(forged, ENOUGH).await.unwrap_err().to_string();
    assert!(other.contains(&format!("with other content ({})", Sha256::of(b"other bytes"))), "{other}");
}

fn manifest() -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": {}, "layers": []}).to_string().into_bytes()
}

#[tokio::test]
async fn manifests_by_tag_and_by_digest() {
    let authority = Authority::make();
    let (bytes, silent) = (manifest(), br#"{"schemaVersion":2,"config":{},"layers":[]}"#);
    let digest = Sha256::of(&bytes);
    let at = |name: &str| format!("/v2/team/app/manifests/{name}");
    let served = pages([
        (at("v1"), document(MANIFEST, &bytes)),
        (at(&digest.to_string()), document(&format!("{MANIFEST}; charset=utf-8"), &bytes)),
        (at("silent"), document(MANIFEST, silent)),
    ]);
    let registry = Server::start(&certificate(&authority), served).await;
    let client = anybody(&authority);
    let get = async |which| client.manifest(&app(&registry), which, &Login::none()).await;
    for which in [Which::Tag("v1"), Which::Digest(digest)] {
        let found = get(which).await.unwrap().unwrap();
        assert_eq!((&found.bytes, found.digest, found.media_type.as_str()), (&bytes, digest, MANIFEST));
    }
    assert_eq!(get(Which::Tag("silent")).await.unwrap().unwrap().digest, Sha256::of(silent));
    assert_eq!(get(Which::Tag("v2")).await.unwrap(), None);
    assert!(registry.saw("accept: application/vnd.oci.image.index.v1+json, "));
    let before = registry.asked();
    for tag in ["", "../v1", "v1?x=1", "a/b", "é", &"x".repeat(129)] {
        assert!(matches!(get(Which::Tag(tag)).await, Err(RegistryError::Nonsense { .. })), "{tag}");
    }
    assert_eq!(registry.asked(), before, "nothing is asked for what is no tag");
}

#[tokio::test]
async fn manifests_that_are_none() {
    let authority = Authority::make();
    let certificate = certificate(&authority);
    let (good, large) = (manifest(), vec![b' '; (4 << 20) + 1]);
    let other_type = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
    let both = json!({"schemaVersion": 2, "layers": [], "manifests": []}).to_string();
    let cases: [(&str, &[u8], &str); 9] = [
        (MANIFEST, b"{\"schemaVersion\":2}", "with other content (sha256:"),
        ("text/html", &good, "with a document of the type \"text/html\", which was not asked for,"),
        ("application/vnd.oci.image.manifest.v1+jsonx", &good, "which was not asked for,"),
        ("application/json", &good, "which was not asked for,"),
        ("", &good, "which was not asked for,"),
        (MANIFEST, other_type.as_bytes(), "for a document that says it is \"application/vnd.oci.image.index"),
        (MANIFEST, both.as_bytes(), "with a document that is a manifest and an index at once,"),
        (MANIFEST, b"<html>", "with a document that cannot be read"),
        (MANIFEST, &large, "more than 4 MiB for"),
    ];
    for (number, (kind, body, expected)) in cases.into_iter().enumerate() {
        let served = document(kind, body);
        let registry = Server::start(&certificate, Arc::new(move |_| served.clone())).await;
        // The first is asked for by a digest that it does not have.
        let which = if number == 0 { Sha256::of(b"else") } else { Sha256::of(body) };
        let client = anybody(&authority);
        let refused = client.manifest(&app(&registry), Which::Digest(which), &Login::none()).await.unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(expected) && text.contains(&registry.host), "{text}");
    }
}

/// A registry that asks for a token to push with gets one that can read.
#[tokio::test]
async fn tokens_are_for_pulling() {
    let authority = Authority::make();
    let certificate = certificate(&authority);
    let tokens = Server::start(&certificate, Arc::new(|_| answer("200 OK", "", b"{\"token\":\"good\"}"))).await;
    let challenge = format!(
        "Bearer realm=\"https://{}/token\",service=\"r\",scope=\"repository:team/app:pull,push repository:x:pull\"",
        tokens.host
    );
    let subject = Sha256::of(b"subject");
    let open = pages([
        ("/v2/team/app/manifests/v1".into(), document(MANIFEST, &manifest())),
        (blob_at(Sha256::of(b"blob")), answer("200 OK", "", b"blob")),
        (list_at(subject), document(INDEX, &index(&[]))),
    ]);
    let registry = Server::start(&certificate, guarded(&challenge, "Bearer good".into(), open)).await;
    let alice = client(&trusting(&authority), Authenticator::new(config(&registry.host, "alice", PASSWORD)));
    let (app, login) = (app(&registry), Login::none());
    assert!(alice.manifest(&app, Which::Tag("v1"), &login).await.unwrap().is_some());
    assert!(blob(&alice, &registry, b"blob").await.unwrap().is_some());
    assert_eq!(alice.referrers(&app, subject, &login).await.unwrap(), []);
    let heads = tokens.heads.lock().unwrap();
    assert_eq!(heads.len(), 1, "one token does for all");
    assert!(heads[0].contains("scope=repository%3Ateam%2Fapp%3Apull ") && !heads[0].contains("push"), "{}", heads[0]);
}

/// Descriptors of artifacts of these names.
fn index(names: &[&str]) -> Vec<u8> {
    let descriptor = |name: &&str| {
        let digest = Sha256::of(name.as_bytes()).to_string();
        json!({"mediaType": MANIFEST, "digest": digest, "size": 7, "artifactType": "a/b", "annotations": {"name": name}})
    };
    let manifests: Vec<Value> = names.iter().map(descriptor).collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string().into_bytes()
}

fn list_at(subject: Sha256) -> String {
    format!("/v2/team/app/referrers/{subject}")
}

fn tag_at(subject: Sha256) -> String {
    format!("/v2/team/app/manifests/sha256-{}", subject.hex())
}

fn names(found: &[Descriptor]) -> Vec<&str> {
    found.iter().map(|descriptor| descriptor.annotations["name"].as_str()).collect()
}

async fn referrers(server: &Server, authority: &Authority) -> Result<Vec<Descriptor>, RegistryError> {
    anybody(authority).referrers(&app(server), Sha256::of(b"subject"), &Login::none()).await
}

/// What it is, what is listed, what is tagged, and which are found.
type Case<'a> = (&'a str, Vec<u8>, Vec<u8>, &'a [&'a str]);

/// The list of the registry and the tag of the clients, in all ways in which there may be none.
#[tokio::test]
async fn referrers_are_listed_or_tagged() {
    let authority = Authority::make();
    let certificate = certificate(&authority);
    let subject = Sha256::of(b"subject");
    let none = || answer("404 Not Found", "", b"{}");
    let tagged = || document(INDEX, &index(&["b", "c"]));
    let null = br#"{"schemaVersion":2,"manifests":null}"#;
    let cases: [Case<'_>; 12] = [
        ("listed", document(INDEX, &index(&["a", "b"])), none(), &["a", "b"]),
        ("listed and tagged", document(INDEX, &index(&["a", "b"])), tagged(), &["a", "b", "c"]),
        ("listed twice", document(INDEX, &index(&["a", "a"])), none(), &["a"]),
        ("no such list", none(), tagged(), &["b", "c"]),
        ("bad request", answer("400 Bad Request", "", b""), tagged(), &["b", "c"]),
        ("not acceptable", answer("406 Not Acceptable", "", b""), tagged(), &["b", "c"]),
        ("an empty list", document(INDEX, &index(&[])), tagged(), &["b", "c"]),
        ("an empty list of another kind", document(INDEX, null), tagged(), &["b", "c"]),
        ("a page for people", document("text/html", b"<html>"), tagged(), &["b", "c"]),
        ("the way to one", redirect(303, "https://registry.example.com/-/page"), tagged(), &["b", "c"]),
        ("nothing at all", none(), none(), &[]),
        ("empty, and no tag", document(INDEX, &index(&[])), none(), &[]),
    ];
    for (name, listed, tagged, expected) in cases {
        let server = Server::start(&certificate, pages([(list_at(subject), listed), (tag_at(subject), tagged)])).await;
        let found = referrers(&server, &authority).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(names(&found), expected, "{name}");
    }
    let server = Server::start(&certificate, pages([(list_at(subject), document(INDEX, &index(&["a"])))])).await;
    let found = referrers(&server, &authority).await.unwrap();
    let first = &found[0];
    assert_eq!((first.media_type.as_str(), first.digest, first.size), (MANIFEST, Sha256::of(b"a"), 7));
    assert_eq!(first.artifact_type.as_deref(), Some("a/b"));
}

/// A registry that did not say has not said that there are none.
#[tokio::test]
async fn referrers_that_cannot_be_known() {
    let authority = Authority::make();
    let certificate = certificate(&authority);
    let subject = Sha256::of(b"subject");
    let none = || answer("404 Not Found", "", b"{}");
    let sound = || document(INDEX, &index(&["a"]));
    let twice = br#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#;
    let many: Vec<String> = (0..1001).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let next = |to: &str| {
        answer("200 OK", &format!("Content-Type: {INDEX}\r\nLink: <{to}>; rel=\"next\"\r\n"), &index(&["a"]))
    };
    let cases: [(Vec<u8>, Vec<u8>, &str); 13] = [
        (answer("500 Oops", "", b""), sound(), "answered 500 for the referrers of"),
        (answer("429 Slowly", "", b""), sound(), "answered 429 for the referrers of"),
        (answer("405 No", "", b""), sound(), "answered 405 for the referrers of"),
        (
            answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b""),
            sound(),
            "there are no credentials",
        ),
        (sound(), answer("500 Oops", "", b""), "answered 500 for"),
        (none(), document(MANIFEST, &manifest()), "which was not asked for,"),
        (none(), document(INDEX, &manifest()), "for a document that says it is"),
        (document(INDEX, b"{\"schemaVersion\":2}"), none(), "an index without manifests"),
        (document(INDEX, twice), none(), "the member \"manifests\" stands twice"),
        (document(INDEX, &index(&many)), none(), "more than 1000 descriptors"),
        (next("https://other.example.com/v2/x"), none(), "with a next page on another host, other.example.com:443,"),
        (next("/v2/gone"), none(), "answered 404 for the referrers of"),
        (next("?again"), none(), "answered 404 for the referrers of"),
    ];
    for (listed, tagged, expected) in cases {
        let server = Server::start(&certificate, pages([(list_at(subject), listed), (tag_at(subject), tagged)])).await;
        let refused = referrers(&server, &authority).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    let gone = Server { host: "127.0.0.1:1".into(), heads: Arc::default() };
    let refused = referrers(&gone, &authority).await.unwrap_err();
    assert!(matches!(refused, RegistryError::Http(HttpError::Unreachable { .. })), "{refused:?}");
}

#[tokio::test]
async fn referrers_on_several_pages() {
    let authority = Authority::make();
    let certificate = certificate(&authority);
    let page = |name: &str, link: &str| answer("200 OK", &format!("Content-Type: {INDEX}\r\n{link}"), &index(&[name]));
    let first = list_at(Sha256::of(b"subject"));
    let served = pages([
        (first.clone(), page("a", "Link: <?page=2>; rel=\"next\"\r\n")),
        (
            format!("{first}?page=2"),
            page("b", &format!("Link: <{first}?page=1>; rel=prev, <{first}?page=3>; rel=next\r\n")),
        ),
        (format!("{first}?page=3"), page("c", "")),
    ]);
    let server = Server::start(&certificate, served).await;
    assert_eq!(names(&referrers(&server, &authority).await.unwrap()), ["a", "b", "c"]);
    // Pages that have no end.
    let endless = page("a", "Link: <?again>; rel=\"next\"\r\n");
    let server = Server::start(&certificate, Arc::new(move |_| endless.clone())).await;
    let refused = referrers(&server, &authority).await.unwrap_err().to_string();
    assert!(refused.contains("with more than 10 pages"), "{refused}");
    assert_eq!(server.asked(), 10);
}

/// What was there before is as it was: the digest of a tag by the header, or else by the bytes.
#[tokio::test]
async fn digests_of_tags() {
    let authority = Authority::make();
    let certificate = certificate(&authority);
    let body = manifest();
    let digest = Sha256::of(&body);
    let named = format!("Docker-Content-Digest: {digest}\r\n");
    for (headers, asked) in [(named.as_str(), 1), ("", 2)] {
        let served = answer("200 OK", headers, &body);
        let registry = Server::start(
            &certificate,
            Arc::new(move |head| {
                // A HEAD has the headers of a GET, and no body.
                let end = served.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
                if head.starts_with("HEAD ") { served[..end].to_vec() } else { served.clone() }
            }),
        )
        .await;
        let image = ImageReference::parse(&format!("{}/team/app:v1", registry.host)).unwrap();
        let client = anybody(&authority);
        assert_eq!(client.digest(&image, &Login::none()).await.unwrap(), Some(digest));
        assert_eq!(registry.asked(), asked);
        let other = client.has(&image, &Sha256::of(b"other"), &Login::none()).await.unwrap_err();
        assert!(other.to_string().ends_with("answered with other content than was asked for"), "{other}");
    }
    let closed = Server::start(&certificate, guarded("Basic realm=\"x\"", "never".into(), pages([]))).await;
    let image = ImageReference::parse(&format!("{}/team/app:v1", closed.host)).unwrap();
    let refused = anybody(&authority).digest(&image, &Login::none()).await.unwrap_err();
    assert_eq!(refused, RegistryError::Auth(AuthError::NoCredentials { host: closed.host.clone() }));
}
