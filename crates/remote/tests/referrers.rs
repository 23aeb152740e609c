//! Lists of what refers to a manifest, from sound and hostile registries over TLS.

mod pages;
mod tls;

use std::sync::Arc;

use countersign_image::{Descriptor, Sha256};
use countersign_remote::{HttpError, Login, RegistryError};

use pages::{INDEX, MANIFEST, anybody, app, certificate, document, index, list_at, manifest, pages, redirect, tag_at};
use tls::{Authority, Server, answer};

fn names(found: &[Descriptor]) -> Vec<&str> {
    found.iter().map(|descriptor| descriptor.annotations["name"].as_str()).collect()
}

async fn referrers(server: &Server, authority: &Authority) -> Result<Vec<Descriptor>, RegistryError> {
    let found = anybody(authority).referrers(&app(server), Sha256::of(b"subject"), &Login::none()).await;
    found.trouble.into_iter().next().map_or(Ok(found.descriptors), Err)
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

/// A descriptor that is none hides nothing that stands beside it, nor on the next page.
#[tokio::test]
async fn referrers_beside_garbage() {
    let authority = Authority::make();
    let subject = Sha256::of(b"subject");
    let garbled = String::from_utf8(index(&["a", "b"])).unwrap().replacen("\"size\":7", "\"size\":-7", 1);
    let next = format!("Content-Type: {INDEX}\r\nLink: <?page=2>; rel=\"next\"\r\n");
    let served = pages([
        (list_at(subject), answer("200 OK", &next, garbled.as_bytes())),
        (format!("{}?page=2", list_at(subject)), document(INDEX, &index(&["c"]))),
    ]);
    let server = Server::start(&certificate(&authority), served).await;
    let found = anybody(&authority).referrers(&app(&server), subject, &Login::none()).await;
    assert_eq!(names(&found.descriptors), ["b", "c"]);
    assert!(found.trouble[0].to_string().contains("a descriptor of the size -7"), "{:?}", found.trouble);
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
    for (number, (listed, tagged, expected)) in cases.into_iter().enumerate() {
        let server = Server::start(&certificate, pages([(list_at(subject), listed), (tag_at(subject), tagged)])).await;
        let found = anybody(&authority).referrers(&app(&server), subject, &Login::none()).await;
        let [refused] = found.trouble.as_slice() else { panic!("{expected}: {found:?}") };
        assert!(refused.to_string().contains(expected), "{refused}");
        // Only a registry that answered has said something.
        assert_eq!(refused.is_undecided(), number < 5, "{refused}");
        if number < 5 {
            assert_eq!(names(&found.descriptors), ["a"], "the other one counts");
        }
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
    assert_eq!(server.asked(), 11, "ten pages, and the tag");
}
