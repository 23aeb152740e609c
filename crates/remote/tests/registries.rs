//! Registries over TLS: manifests, and blobs that are kept elsewhere, from sound and hostile ones.

mod pages;
mod tls;

use std::sync::Arc;

use countersign_image::{ImageReference, Sha256};
use countersign_remote::{
    AuthError, Authenticator, HttpError, Login, RedirectProblem, Referrers, RegistryClient, RegistryError, Which,
};
use serde_json::json;

use pages::{
    INDEX, MANIFEST, anybody, app, blob_at, certificate, client, document, guarded, index, list_at, manifest, pages,
    redirect,
};
use tls::{Authority, PASSWORD, Server, answer, basic, config, outside, path_of, trusting};

/// More than any blob here has.
const ENOUGH: u64 = 1 << 20;

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
    assert_eq!(alice.referrers(&app, subject, &login).await, Referrers::default());
    let heads = tokens.heads.lock().unwrap();
    assert_eq!(heads.len(), 1, "one token does for all");
    assert!(heads[0].contains("scope=repository%3Ateam%2Fapp%3Apull ") && !heads[0].contains("push"), "{}", heads[0]);
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
