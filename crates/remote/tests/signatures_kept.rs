//! What is kept of cosign's signatures, for whom and for how long, and how often registries are asked for them.

mod signed;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_cosign::{Budget, Demand};
use countersign_image::{ImageReference, Sha256};
use countersign_remote::{Authenticator, Login, RegistryError, Sharing, SignatureFailure};
use futures::future::join_all;
use serde_json::json;

use signed::{Client, MANIFEST, Registry, alice, all_of, bob, image, key, redirect, sig_tag};
use tls::{LONG, PASSWORD, answer, basic, config};

const NEVER: Duration = Duration::ZERO;

fn down() -> Vec<u8> {
    answer("503 Later", "", b"")
}

/// A client that looks again at each question.
fn restless(registry: &Registry) -> Client {
    registry.client_with(Authenticator::default(), NEVER, Sharing::Everybody)
}

#[track_caller]
fn is_denied<T: std::fmt::Debug>(found: &Result<T, SignatureFailure>) {
    assert!(matches!(found, Err(SignatureFailure::NotProven(_))), "{found:?}");
}

#[track_caller]
fn is_undecided<T: std::fmt::Debug>(found: &Result<T, SignatureFailure>) {
    assert!(matches!(found, Err(SignatureFailure::Undecided(_))), "{found:?}");
}

#[tokio::test]
async fn eight_equal_containers_are_one_look() {
    let registry = Registry::start().await;
    registry.sig_tag(&[registry.simple(&alice(), &registry.claiming("good"))]);
    for (names, proven) in [(["alice"], true), (["bob"], false)] {
        let (client, before) = (registry.client(), registry.looks());
        // However young a look must be, one that began after the question is young enough.
        for found in join_all((0..8).map(|_| client.prove_now(&names))).await {
            assert_eq!(found.is_ok(), proven, "{found:?}");
        }
        // Those who came a moment after the look began may want another one, which they share.
        let looks = registry.looks() - before;
        assert!(if proven { looks == 1 } else { looks <= 2 }, "{looks}");
    }
    let (client, before) = (registry.client(), registry.looks());
    join_all((0..8).map(|_| client.prove(&["bob"]))).await.iter().for_each(is_denied);
    assert_eq!(registry.looks() - before, 1);
}

/// Nobody waits for the turn of another.
#[tokio::test]
async fn another_namespace_has_its_own_look() {
    let registry = Registry::start().await;
    registry.sig(&alice());
    let (client, demand, login) = (registry.client(), all_of(&["alice"]), Login::none());
    let both = ["team", "other", "team"].map(|namespace| client.ask(&demand, &login, namespace, LONG));
    assert!(join_all(both).await.iter().all(Result::is_ok));
    assert_eq!(registry.looks(), 2);
    // What was found is for all.
    client.ask(&demand, &login, "third", LONG).await.unwrap();
    assert_eq!(registry.looks(), 2);
}

#[tokio::test]
async fn a_demand_with_other_keys_looks_again() {
    let registry = Registry::start().await;
    registry.sig(&alice());
    let client = registry.client();
    client.prove(&["alice"]).await.unwrap();
    is_denied(&client.prove(&["bob"]).await);
    is_denied(&client.prove(&["alice", "bob"]).await);
    assert_eq!(registry.looks(), 3);
    let one_of = Demand::new(vec![key("alice"), key("bob")], Some(1), vec![], BTreeMap::new()).unwrap();
    client.ask(&one_of, &Login::none(), "team", LONG).await.unwrap();
    assert_eq!(registry.looks(), 3, "what is known does");
    let claims = BTreeMap::from([("is".to_owned(), "good".to_owned())]);
    let claimed = Demand::new(vec![key("alice")], None, vec![], claims).unwrap();
    is_denied(&client.ask(&claimed, &Login::none(), "team", LONG).await);
    assert_eq!(registry.looks(), 4);
    registry.sig_tag(&[registry.simple(&alice(), &registry.claiming("good"))]);
    client.ask(&claimed, &Login::none(), "team", NEVER).await.unwrap();
}

/// Nothing that was proven is proven for a demand without the key that did it.
#[tokio::test]
async fn key_removed_from_policy_while_cached() {
    let registry = Registry::start().await;
    registry.sig_tag(&[registry.simple(&alice(), &registry.payload()), registry.simple(&bob(), &registry.payload())]);
    let client = registry.client();
    assert_eq!(client.prove(&["alice", "bob"]).await.unwrap().by().len(), 2);
    let by: Vec<_> = client.prove(&["bob"]).await.unwrap().by().iter().map(|by| by.signer.clone()).collect();
    assert_eq!((by, registry.looks()), (vec!["bob".to_owned()], 1));
    is_denied(&client.prove(&["carol"]).await);
    is_denied(&client.prove(&["bob", "carol"]).await);
}

#[tokio::test]
async fn deletion_is_noticed_when_it_is_looked_again() {
    let registry = Registry::start().await;
    registry.sig(&alice());
    let (calm, restless) = (registry.client(), restless(&registry));
    for client in [&calm, &restless] {
        client.prove(&["alice"]).await.unwrap();
    }
    registry.remove(&sig_tag());
    calm.prove(&["alice"]).await.unwrap();
    is_denied(&restless.prove(&["alice"]).await);
    // What is gone does not come back because nobody can be asked.
    registry.answers(Some(down()));
    is_undecided(&restless.prove_now(&["alice"]).await);
    calm.prove(&["alice"]).await.unwrap();
}

/// A look for other keys says nothing of those that it did not look for.
#[tokio::test]
async fn other_keys_are_not_forgotten() {
    let registry = Registry::start().await;
    registry.sig(&alice());
    let client = restless(&registry);
    client.prove(&["alice"]).await.unwrap();
    is_denied(&client.prove(&["bob"]).await);
    registry.answers(Some(down()));
    client.prove(&["alice"]).await.unwrap();
}

#[tokio::test]
async fn an_outage_takes_nothing_away() {
    let registry = Registry::start().await;
    registry.sig(&alice());
    let client = restless(&registry);
    is_denied(&client.prove_now(&["bob"]).await);
    client.prove(&["alice"]).await.unwrap();
    registry.answers(Some(down()));
    let before = registry.looks();
    client.prove(&["alice"]).await.unwrap();
    assert_eq!(registry.looks(), before + 1, "it was tried");
    is_undecided(&client.prove_now(&["bob"]).await);
    is_undecided(&client.prove(&["alice", "bob"]).await);
    // What is found in spite of it counts together with what was found before.
    registry.answers(None);
    registry.remove(&sig_tag());
    registry.put(&sig_tag(), down()).list(&[registry.bundle(&bob())]);
    client.prove(&["alice", "bob"]).await.unwrap();
    is_undecided(&client.prove(&["alice", "carol"]).await);
    registry.remove(&sig_tag());
    is_denied(&client.prove(&["alice", "bob"]).await);
}

#[tokio::test]
async fn a_denial_is_as_old_as_it_may_be() {
    let registry = Registry::start().await;
    let client = registry.client();
    for looks in [1, 1] {
        is_denied(&client.prove(&["alice"]).await);
        assert_eq!(registry.looks(), looks);
    }
    // For another question it is none: other keys, another namespace, another login, another repository.
    let (demand, login) = (all_of(&["alice"]), Login::with(vec![Arc::new(config("x.io", "alice", PASSWORD))]));
    is_denied(&client.prove(&["bob"]).await);
    is_denied(&client.ask(&demand, &Login::none(), "other", LONG).await);
    is_denied(&client.ask(&demand, &login, "team", LONG).await);
    let renamed = Client { repository: "x.io/y".into(), place: client.place.clone(), cosign: client.cosign.clone() };
    is_denied(&renamed.prove(&["alice"]).await);
    assert_eq!(registry.looks(), 5);
    registry.sig(&alice());
    is_denied(&client.prove(&["alice"]).await);
    client.prove_now(&["alice"]).await.unwrap();
    assert_eq!(registry.looks(), 6);
    client.prove(&["alice"]).await.unwrap();
    assert_eq!(registry.looks(), 6, "facts come before denials");
    // One that must not be believed at all is not kept.
    let other = registry.client();
    is_denied(&other.prove_now(&["bob"]).await);
    is_denied(&other.prove(&["bob"]).await);
    assert_eq!(registry.looks(), 8);
}

#[tokio::test]
async fn what_is_undecided_is_asked_again() {
    let registry = Registry::start().await;
    let client = registry.client();
    registry.answers(Some(down()));
    is_undecided(&client.prove(&["alice"]).await);
    registry.answers(None);
    registry.sig(&alice());
    client.prove(&["alice"]).await.unwrap();
}

/// A look that takes longer than it may has not said that there is nothing.
#[tokio::test]
async fn a_look_has_an_end() {
    let registry = Registry::start().await;
    for page in [None, Some(redirect("/silent/x"))] {
        registry.answers(page);
        let cosign =
            signed::cosign_within(NEVER, &registry.authority, Authenticator::default(), LONG, Sharing::Everybody);
        let told = Client { cosign, ..registry.client() }.undecided(&["alice"]).await;
        assert!(told.contains("did not answer in time"), "{told}");
    }
}

/// What one login brought is for that login, where it is not for everybody.
#[tokio::test]
async fn private_signatures() {
    let expected = basic("alice", PASSWORD);
    for (sharing, shared) in [(Sharing::Everybody, true), (Sharing::SameLogin, false)] {
        let expected = expected.clone();
        let registry = Registry::start_for(|open| {
            Arc::new(move |head| {
                let challenge = "WWW-Authenticate: Basic realm=\"x\"\r\n";
                if head.contains(&expected) { open(head) } else { answer("401 Unauthorized", challenge, b"{}") }
            })
        })
        .await;
        registry.sig(&alice());
        for refresh in [LONG, NEVER] {
            let client = registry.client_with(Authenticator::default(), refresh, sharing);
            let login = |password| Login::with(vec![Arc::new(config(&registry.server.host, "alice", password))]);
            let demand = all_of(&["alice"]);
            is_undecided(&client.ask(&demand, &login("wrong"), "team", LONG).await);
            client.ask(&demand, &login(PASSWORD), "team", LONG).await.unwrap();
            for stranger in [Login::none(), login("wrong")] {
                let found = client.ask(&demand, &stranger, "team", LONG).await;
                assert_eq!(found.is_ok(), shared, "{found:?}");
            }
            client.ask(&demand, &login(PASSWORD), "team", LONG).await.unwrap();
        }
    }
}

/// Signatures that were found with a login are kept from it once the registry refuses that login; not while the registry is down.
#[tokio::test]
async fn a_login_that_was_taken_away() {
    let registry = Registry::start().await;
    registry.sig(&alice());
    let client = registry.client_with(Authenticator::default(), NEVER, Sharing::SameLogin);
    client.prove(&["alice"]).await.unwrap();
    registry.answers(Some(down()));
    client.prove(&["alice"]).await.unwrap();
    registry.answers(Some(answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"{}")));
    is_undecided(&client.prove(&["alice"]).await);
}

/// A review that has spent its budget is denied, and no other one for it.
#[tokio::test]
async fn spent_budgets() {
    let registry = Registry::start().await;
    // As many signatures by nobody as are looked at, over a payload that need not be fetched.
    let mut layers = Vec::new();
    for number in 0..64_u8 {
        let mut layer = registry.simple(&alice(), &registry.payload());
        let signature = STANDARD.encode([number + 1; 64]);
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
        layers.push(layer);
    }
    registry.sig_tag(&layers);
    let names: Vec<String> = (0..32).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (client, login, budget) = (registry.client(), Login::none(), Budget::new());
    is_denied(&client.spend(&all_of(&names), &login, "team", LONG, &budget).await);
    registry.sig(&alice());
    let demand = all_of(&["alice"]);
    let denied = client.spend(&demand, &login, "team", LONG, &budget).await;
    is_denied(&denied);
    assert!(denied.unwrap_err().to_string().contains("2048 is the limit for one review"));
    // Somebody else who asks at the same time has a look of their own.
    let fresh = Budget::new();
    let (poor, rich) = futures::join!(
        client.spend(&demand, &login, "team", LONG, &budget),
        client.spend(&demand, &login, "team", LONG, &fresh)
    );
    is_denied(&poor);
    rich.unwrap();
}

fn tagged(registry: &Registry) -> ImageReference {
    ImageReference::parse(&format!("{}:v1", registry.name())).unwrap()
}

fn points(registry: &Registry, digest: Sha256) {
    let named = format!("Content-Type: {MANIFEST}\r\nDocker-Content-Digest: {digest}\r\n");
    registry.put("manifests/v1", answer("200 OK", &named, b""));
}

/// What is proven is the digest that the tag had when it was asked, whatever it has by then.
#[tokio::test]
async fn tag_moves_between_requests() {
    let registry = Registry::start().await;
    let (client, login) = (registry.client(), Login::none());
    registry.sig(&alice());
    points(&registry, image());
    let image = tagged(&registry);
    let digest = client.cosign.clone().with_tag_age(LONG).digest(&image, &login, "team").await.unwrap();
    points(&registry, Sha256::of(b"other"));
    assert_eq!(client.prove(&["alice"]).await.unwrap().digest(), digest.unwrap());
    assert_eq!(registry.asked_for("/manifests/v1"), 1, "the tag is asked for once");
    // For as long as it is believed, and then no longer; by another namespace or login it is asked for anew.
    let patient = client.cosign.clone().with_tag_age(LONG);
    assert_eq!(patient.digest(&image, &login, "team").await.unwrap(), digest);
    let other = Some(Sha256::of(b"other"));
    assert_eq!(patient.digest(&image, &login, "other").await.unwrap(), other);
    let alice = Login::with(vec![Arc::new(config("x.io", "alice", PASSWORD))]);
    assert_eq!(patient.digest(&image, &alice, "team").await.unwrap(), other);
    let fresh = registry.client().cosign.with_tag_age(NEVER);
    for digest in [Sha256::of(b"one"), Sha256::of(b"two")] {
        points(&registry, digest);
        assert_eq!(fresh.digest(&image, &login, "team").await.unwrap(), Some(digest));
    }
}

#[tokio::test]
async fn tags_are_asked_for_once_by_all() {
    let registry = Registry::start().await;
    points(&registry, image());
    let (cosign, login, tag) = (registry.client().cosign.with_tag_age(NEVER), Login::none(), tagged(&registry));
    for found in join_all((0..8).map(|_| cosign.digest(&tag, &login, "team"))).await {
        assert_eq!(found.unwrap(), Some(image()));
    }
    assert_eq!(registry.server.asked(), 1);
    let named = ImageReference::parse(&format!("{}:v1@{}", registry.name(), Sha256::of(b"named"))).unwrap();
    assert_eq!(cosign.digest(&named, &login, "team").await.unwrap(), Some(Sha256::of(b"named")));
    let of_512 = ImageReference::parse(&format!("{}@sha512:{}", registry.name(), "0".repeat(128))).unwrap();
    let refused = cosign.digest(&of_512, &login, "team").await.unwrap_err();
    assert!(matches!(refused, RegistryError::NotSha256(_)), "{refused:?}");
    assert_eq!(registry.server.asked(), 1, "nobody is asked for a digest");
}

/// That a tag is not there, or could not be asked for, is not kept.
#[tokio::test]
async fn tags_that_are_not_there() {
    let registry = Registry::start().await;
    let (cosign, login, tag) = (registry.client().cosign.with_tag_age(LONG), Login::none(), tagged(&registry));
    assert_eq!(cosign.digest(&tag, &login, "team").await.unwrap(), None);
    registry.answers(Some(down()));
    assert!(cosign.digest(&tag, &login, "team").await.unwrap_err().is_undecided());
    registry.answers(None);
    points(&registry, image());
    assert_eq!(cosign.digest(&tag, &login, "team").await.unwrap(), Some(image()));
}
