//! cosign's signatures in registries over TLS: where they are found, and what hostile and broken registries can not do to that.

mod signed;
mod tls;

use std::sync::Arc;

use countersign_cosign::Form;
use countersign_image::{ImageReference, Sha256};
use countersign_remote::{Authenticator, Login, NamedBy, Repository, Sharing, SignatureFailure};
use serde_json::json;

use signed::{
    BUNDLE, INDEX, MANIFEST, Registry, SIG, alice, bob, document, fallback, image, index, list, redirect, sig_tag,
};
use tls::{LONG, PASSWORD, answer, basic, config, path_of};

const CHALLENGE: &str = "WWW-Authenticate: Basic realm=\"x\"\r\n";

/// The digest of a tag, and all places at once: no blob, as what was signed is known.
#[tokio::test]
async fn a_tag_with_a_signature_takes_two_steps() {
    let registry = Registry::start().await;
    registry.sig(&alice());
    let named = format!("Content-Type: {MANIFEST}\r\nDocker-Content-Digest: {}\r\n", image());
    registry.put("manifests/v1", answer("200 OK", &named, b"image"));
    let client = registry.client();
    let tagged = ImageReference::parse(&format!("{}:v1", registry.name())).unwrap();
    let digest = client.cosign.digest(&tagged, &Login::none(), "team").await.unwrap();
    assert_eq!((digest, registry.server.asked()), (Some(image()), 1));
    let proof = client.prove(&["alice"]).await.unwrap();
    assert_eq!((proof.repository(), proof.digest()), (registry.name().as_str(), image()));
    assert!(registry.server.heads.lock().unwrap()[0].starts_with("HEAD "));
    client.prove(&["alice"]).await.unwrap();
    client.prove_now(&["alice"]).await.unwrap();
    // The two other places may have been asked by then, or not.
    assert_eq!((registry.asked_for("/manifests/v1"), registry.looks()), (1, 1), "what is known is not asked for");
    assert_eq!((registry.asked_for("/blobs/"), registry.asked_for("/manifests/sha256:")), (0, 0));
}

#[tokio::test]
async fn every_form_in_every_place() {
    for form in ["a", "a with claims", "a' listed", "a' tagged", "b listed", "b tagged"] {
        let registry = Registry::start().await;
        let old = |registry: &Registry| registry.referrer(SIG, &[registry.simple(&alice(), &registry.payload())]);
        match form {
            "a" => registry.sig(&alice()),
            "a with claims" => registry.sig_tag(&[registry.simple(&alice(), &registry.claiming("good"))]),
            "a' listed" => registry.list(&[old(&registry)]),
            "a' tagged" => registry.tagged(&[old(&registry)]),
            "b listed" => registry.list(&[registry.bundle(&alice())]),
            _ => registry.tagged(&[registry.bundle(&alice())]),
        };
        let proof = registry.client().prove(&["alice"]).await;
        assert!(proof.is_ok(), "{form}: {proof:?}");
        let other = registry.client().prove(&["bob"]).await;
        assert!(matches!(other, Err(SignatureFailure::NotProven(_))), "{form}: {other:?}");
    }
}

#[tokio::test]
async fn referrers_empty_but_fallback_has_it() {
    let registry = Registry::start().await;
    registry.list(&[]).tagged(&[registry.bundle(&alice())]);
    assert!(registry.client().prove(&["alice"]).await.is_ok());
}

/// What one list says wrongly of a manifest does not hide what the other one says.
#[tokio::test]
async fn referrers_listed_as_something_else() {
    let registry = Registry::start().await;
    let good = registry.bundle(&alice());
    let mut wrong = good.clone();
    wrong["artifactType"] = json!("application/vnd.cncf.notary.signature");
    registry.list(std::slice::from_ref(&wrong));
    assert!(registry.client().denial(&["alice"]).await.contains("a Notation signature was found"));
    registry.tagged(std::slice::from_ref(&good));
    assert!(registry.client().prove(&["alice"]).await.is_ok());
    registry.list(&[good]).tagged(&[wrong]);
    assert!(registry.client().prove(&["alice"]).await.is_ok());
}

#[tokio::test]
async fn referrers_200_html() {
    let registry = Registry::start().await;
    registry.put(&list(), document("text/html", b"<html>"));
    assert_eq!(
        registry.client().denial(&["alice"]).await,
        format!("the registry has no signature of {}", image()),
        "who has no lists says so in many ways"
    );
    registry.tagged(&[registry.bundle(&alice())]);
    assert!(registry.client().prove(&["alice"]).await.is_ok());
    // As a manifest it is garbage, which is told.
    registry.tagged(&[]).put(&sig_tag(), document("text/html", b"<html>"));
    let told = registry.client().denial(&["alice"]).await;
    assert!(told.contains("with a document of the type \"text/html\", which was not asked for"), "{told}");
}

#[tokio::test]
async fn referrers_endless_pages() {
    let registry = Registry::start().await;
    let next = format!("Content-Type: {INDEX}\r\nLink: <?again>; rel=\"next\"\r\n");
    for (descriptors, proven) in [(vec![], false), (vec![registry.bundle(&alice())], true)] {
        let page = answer("200 OK", &next, &index(&descriptors));
        registry.put(&list(), page.clone()).put(&format!("{}?again", list()), page);
        let before = registry.asked_for("/referrers/");
        let found = registry.client().prove(&["alice"]).await;
        assert_eq!(found.is_ok(), proven, "{found:?}");
        assert_eq!(registry.asked_for("/referrers/") - before, 10);
    }
    let empty = answer("200 OK", &next, &index(&[]));
    registry.put(&list(), empty.clone()).put(&format!("{}?again", list()), empty);
    let told = registry.client().denial(&["alice"]).await;
    assert!(told.contains("with more than 10 pages"), "{told}");
}

#[tokio::test]
async fn referrers_next_on_other_host() {
    let registry = Registry::start().await;
    let other = registry.storage(Arc::new(|_| document(INDEX, &index(&[])))).await;
    let next = format!("Content-Type: {INDEX}\r\nLink: <https://{}/x>; rel=\"next\"\r\n", other.host);
    registry.put(&list(), answer("200 OK", &next, &index(&[])));
    let told = registry.client().denial(&["alice"]).await;
    assert!(told.contains(&format!("a next page on another host, {}", other.host)), "{told}");
    assert_eq!(other.asked(), 0);
    registry.put(&list(), answer("200 OK", &next, &index(&[registry.bundle(&alice())])));
    assert!(registry.client().prove(&["alice"]).await.is_ok());
}

#[tokio::test]
async fn referrers_first_broken_second_good() {
    let registry = Registry::start().await;
    let broken = [
        registry.referrer(BUNDLE, &[registry.blob(BUNDLE, b"{")]),
        registry.referrer(BUNDLE, &[]),
        json!({"mediaType": MANIFEST, "digest": Sha256::of(b"gone").to_string(), "size": 7}),
        json!({"mediaType": MANIFEST, "digest": "sha256:none", "size": 7}),
    ];
    registry.list(&broken);
    let told = registry.client().denial(&["alice"]).await;
    for part in ["a bundle is not taken", "does not have it", "a bad digest"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    for at in 0..=broken.len() {
        let mut listed = broken.to_vec();
        listed.insert(at, registry.bundle(&alice()));
        registry.list(&listed);
        assert!(registry.client().prove(&["alice"]).await.is_ok(), "{at}");
    }
}

#[tokio::test]
async fn referrers_manifest_bytes_wrong() {
    let registry = Registry::start().await;
    let (good, forged) = (registry.bundle(&alice()), registry.bundle(&bob()));
    // Bob's is shown where alice's is listed, and the reverse.
    let at = |listed: &serde_json::Value| format!("manifests/{}", listed["digest"].as_str().unwrap());
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}).to_string();
    registry.put(&at(&forged), document(MANIFEST, manifest.as_bytes())).list(std::slice::from_ref(&forged));
    let told = registry.client().denial(&["bob"]).await;
    assert!(told.contains("with other content (sha256:") || told.contains("more than"), "{told}");
    registry.list(&[forged, good]);
    assert!(registry.client().prove(&["alice"]).await.is_ok());
    assert!(matches!(registry.client().prove(&["alice", "bob"]).await, Err(SignatureFailure::NotProven(_))));
}

#[tokio::test]
async fn fallback_is_image_manifest() {
    let registry = Registry::start().await;
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}).to_string();
    registry.put(&fallback(), document(MANIFEST, manifest.as_bytes()));
    let told = registry.client().denial(&["alice"]).await;
    assert!(told.contains("which was not asked for"), "{told}");
    registry.sig(&alice());
    assert!(registry.client().prove(&["alice"]).await.is_ok());
}

#[tokio::test]
async fn sig_tag_is_index() {
    let registry = Registry::start().await;
    registry.put(&sig_tag(), document(INDEX, &index(&[registry.bundle(&alice())])));
    let told = registry.client().denial(&["alice"]).await;
    assert!(told.contains("which is no image manifest"), "{told}");
}

/// A blob of alice's whose page a test writes, and one of bob's that is sound.
async fn with_blob(page: impl FnOnce(&[u8]) -> Vec<u8>) -> Registry {
    let registry = Registry::start().await;
    let payload = registry.claiming("alice");
    let layers = [registry.simple(&bob(), &registry.claiming("bob")), registry.simple(&alice(), &payload)];
    registry.sig_tag(&layers).put(&format!("blobs/{}", Sha256::of(&payload)), page(&payload));
    assert!(registry.client().prove(&["bob"]).await.is_ok(), "whatever becomes of alice's");
    registry
}

#[tokio::test]
async fn blob_redirect_to_loopback() {
    let registry = with_blob(|_| redirect("https://127.0.0.1:1/x")).await;
    let told = registry.client().undecided(&["alice"]).await;
    assert!(told.contains("redirects to 127.0.0.1:1, which is not followed"), "{told}");
}

#[tokio::test]
async fn blobs_that_are_none() {
    for (page, told) in [
        (answer("200 OK", "", b"other bytes"), "with other content (sha256:"),
        (answer("200 OK", "", &vec![b' '; 70_000]), "more than "),
        (answer("404 Not Found", "", b"{}"), "and does not have it"),
    ] {
        let registry = with_blob(|_| page).await;
        let denial = registry.client().denial(&["alice"]).await;
        assert!(denial.contains(told), "{denial}");
    }
    for status in ["500 Oops", "429 Slowly", "503 Later", "403 Forbidden", "405 No"] {
        let registry = with_blob(|_| answer(status, "", b"")).await;
        registry.client().undecided(&["alice"]).await;
    }
}

#[tokio::test]
async fn blob_redirect_keeps_no_authorization() {
    let expected = basic("alice", PASSWORD);
    let registry = Registry::start_for(|open| {
        Arc::new(
            move |head| {
                if head.contains(&expected) { open(head) } else { answer("401 Unauthorized", CHALLENGE, b"{}") }
            },
        )
    })
    .await;
    let payload = registry.claiming("alice");
    let stored = answer("200 OK", "", &payload);
    let storage = registry.storage(Arc::new(move |_| stored.clone())).await;
    registry.sig_tag(&[registry.simple(&alice(), &payload)]);
    registry.put(&format!("blobs/{}", Sha256::of(&payload)), redirect(&format!("https://{}/x", storage.host)));
    let authenticator = Authenticator::new(config(&registry.server.host, "alice", PASSWORD));
    assert!(registry.client_with(authenticator, LONG, Sharing::Everybody).prove(&["alice"]).await.is_ok());
    assert_eq!((storage.asked(), storage.saw("uthorization")), (1, false));
    assert!(registry.server.saw("uthorization"));
}

/// Once a registry has let a look in, that is said at once; to nobody else, and in no other look.
#[tokio::test]
async fn private_registries() {
    let expected = basic("alice", PASSWORD);
    let registry = Registry::start_for(|open| {
        Arc::new(
            move |head| {
                if head.contains(&expected) { open(head) } else { answer("401 Unauthorized", CHALLENGE, b"{}") }
            },
        )
    })
    .await;
    registry.list(&[registry.bundle(&alice())]);
    let client = registry.client();
    let demand = signed::all_of(&["alice", "bob"]);
    let login = Login::with(vec![Arc::new(config(&registry.server.host, "alice", PASSWORD))]);
    for _ in 0..2 {
        registry.server.heads.lock().unwrap().clear();
        let denied = client.ask(&demand, &login, "team", std::time::Duration::ZERO).await;
        assert!(matches!(denied, Err(SignatureFailure::NotProven(_))), "{denied:?}");
        assert_eq!((registry.looks(), registry.asked_for("/referrers/")), (2, 2));
        assert_eq!((registry.asked_for("/manifests/sha256:"), registry.asked_for("/blobs/")), (1, 1));
    }
    registry.server.heads.lock().unwrap().clear();
    let stranger = client.ask(&demand, &Login::none(), "team", LONG).await;
    assert!(matches!(stranger, Err(SignatureFailure::Undecided(_))), "{stranger:?}");
    assert!(!registry.server.saw("uthorization: "));
}

/// A place that asks for a login has not said that there is nothing.
#[tokio::test]
async fn sig_tag_401_image_200() {
    for at in [sig_tag(), list(), fallback()] {
        for refusal in [answer("401 Unauthorized", CHALLENGE, b"{}"), answer("403 Forbidden", "", b"{}")] {
            let registry = Registry::start().await;
            registry.put(&at, refusal);
            let told = registry.client().undecided(&["alice"]).await;
            assert!(told.contains("there are no credentials") || told.contains("gives no access"), "{told}");
            if at == sig_tag() {
                registry.list(&[registry.bundle(&alice())]);
            } else {
                registry.sig(&alice());
            }
            assert!(registry.client().prove(&["alice"]).await.is_ok(), "another place proves it");
        }
    }
}

#[tokio::test]
async fn no_network_is_not_unsigned() {
    for at in [sig_tag(), list(), fallback()] {
        let registry = Registry::start().await;
        for status in ["500 Oops", "503 Later", "429 Slowly"] {
            registry.put(&at, answer(status, "", b""));
            let told = registry.client().undecided(&["alice"]).await;
            assert!(told.contains(&format!("answered {}", &status[..3])), "{told}");
        }
        // A connection that breaks says nothing either.
        registry.put(&at, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec());
        registry.client().undecided(&["alice"]).await;
    }
    let registry = Registry::start().await;
    let nobody = signed::Client { place: Repository::parse("127.0.0.1:1/team/app").unwrap(), ..registry.client() };
    let told = nobody.undecided(&["alice"]).await;
    assert!(told.contains("cannot reach 127.0.0.1:1"), "{told}");
    let login = Login::none();
    let refused = nobody.cosign.inspect(&nobody.place, "x/y", image(), &[], &login).await.unwrap_err();
    assert!(refused.is_undecided(), "{refused}");
}

/// Who is asked for signatures is not shown what is for the image's registry.
#[tokio::test]
async fn placement_on_other_host_without_secret() {
    let registry = Registry::start().await;
    let closed = registry.storage(Arc::new(|_| answer("401 Unauthorized", CHALLENGE, b"{}"))).await;
    let authenticator = Authenticator::new(config(&registry.server.host, "alice", PASSWORD));
    let mut client = registry.client_with(authenticator, LONG, Sharing::Everybody);
    client.place = Repository::parse(&format!("{}/signatures", closed.host)).unwrap();
    let told = client.undecided(&["alice"]).await;
    assert!(told.contains(&format!("{} asks for a login", closed.host)), "{told}");
    assert!(!closed.saw("uthorization") && closed.asked() == 3 && registry.server.asked() == 0);
}

/// A registry that only a tenant names is shown configured credentials for exactly its host, and none for a pattern.
#[tokio::test]
async fn placement_that_a_tenant_names() {
    for (by_name, with_port, shown) in [(false, false, false), (false, true, false), (true, true, true)] {
        let registry = Registry::start().await;
        let closed = registry.storage(Arc::new(|_| answer("401 Unauthorized", CHALLENGE, b"{}"))).await;
        let (host, port) = closed.host.rsplit_once(':').unwrap();
        let host = if by_name { host.to_owned() } else { format!("{}.*", host.rsplit_once('.').unwrap().0) };
        let key = if with_port { format!("{host}:{port}") } else { host };
        let authenticator = Authenticator::new(config(&key, "operator", PASSWORD));
        let mut client = registry.client_with(authenticator, LONG, Sharing::Everybody);
        client.place = Repository::parse(&format!("{}/signatures", closed.host)).unwrap();
        let (demand, login) = (signed::all_of(&["alice"]), Login::none().at(NamedBy::Tenant));
        let told = client.ask(&demand, &login, "team", LONG).await.unwrap_err();
        assert_eq!(closed.saw("uthorization"), shown, "{key}: {told}");
    }
}

/// Who may push can write megabytes where a signature belongs; no more is kept than the longest signature has.
#[tokio::test]
async fn sig_annotation_of_megabytes() {
    let registry = Registry::start().await;
    let mut layer = registry.simple(&alice(), &registry.claiming("good"));
    let whole = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap().to_owned();
    layer["annotations"]["dev.cosignproject.cosign/signature"] = (whole.clone() + &"\n".repeat(1 << 20)).into();
    registry.sig_tag(std::slice::from_ref(&layer));
    assert!(registry.client().prove(&["alice"]).await.is_ok());
    layer["annotations"]["dev.cosignproject.cosign/signature"] = ("\n".repeat(1 << 20) + &whole).into();
    registry.sig_tag(&[layer]);
    let told = registry.client().denial(&["alice"]).await;
    assert!(told.contains("a signature is not base64"), "{told}");
}

/// The proof is for the image's repository, wherever the signatures are, and no blob is fetched for either name.
#[tokio::test]
async fn placement() {
    let registry = Registry::start().await;
    for name in [registry.name(), "registry.example.com/team/app".to_owned()] {
        let payload = countersign_cosign::guesses(&name, image()).remove(0);
        registry.sig_tag(&[registry.simple(&alice(), &payload)]);
        let client = signed::Client { repository: "registry.example.com/team/app".into(), ..registry.client() };
        let proof = client.prove(&["alice"]).await.unwrap();
        assert_eq!(proof.repository(), "registry.example.com/team/app");
    }
    assert_eq!(registry.asked_for("/blobs/"), 0);
}

/// One blob never comes; another one proves.
#[tokio::test]
async fn slow_blob_deadline() {
    let registry = Registry::start().await;
    let storage = registry.storage(Arc::new(|_| answer("404 Not Found", "", b""))).await;
    let slow = registry.claiming("slow");
    // The newest is fetched first, and that is the slow one.
    let layers = [registry.simple(&bob(), &registry.claiming("bob")), registry.simple(&alice(), &slow)];
    registry.sig_tag(&layers);
    registry.put(&format!("blobs/{}", Sha256::of(&slow)), redirect(&format!("https://{}/silent/x", storage.host)));
    assert!(registry.client().prove(&["bob"]).await.is_ok());
}

/// Nothing is decompressed: what came is compared with what was asked for.
#[tokio::test]
async fn gzip_bomb_blob() {
    // Ten bytes of header, and the beginning of a member.
    let bomb = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xed, 0xc1];
    let registry = with_blob(|_| answer("200 OK", "Content-Encoding: gzip\r\n", &bomb)).await;
    let told = registry.client().denial(&["alice"]).await;
    assert!(told.contains(&format!("with other content ({})", Sha256::of(&bomb))), "{told}");
    let registry = with_blob(|payload| answer("200 OK", "Content-Encoding: gzip\r\n", payload)).await;
    assert!(registry.client().prove(&["alice"]).await.is_ok(), "the bytes are the right ones");
    assert!(!registry.server.heads.lock().unwrap().iter().any(|head| head.to_lowercase().contains("accept-encoding")));
}

/// What is long is asked for once more, at a turn for what is large.
#[tokio::test]
async fn sig_900_layers_good_one_last() {
    let registry = Registry::start().await;
    let mut layers = vec![registry.simple(&bob(), &registry.payload()); 900];
    for (number, layer) in layers.iter_mut().enumerate() {
        layer["annotations"]["number"] = json!(format!("{number:0100}"));
    }
    layers.push(registry.simple(&alice(), &registry.payload()));
    registry.sig_tag(&layers);
    assert!(registry.client().prove(&["alice"]).await.is_ok());
    assert_eq!(registry.looks(), 2);
    let mut listed = vec![registry.bundle(&bob())];
    listed[0]["annotations"] = json!({"of": "x".repeat(15 << 10)});
    for number in 0..30 {
        let mut other = listed[0].clone();
        other["digest"] = json!(Sha256::of(&[number]).to_string());
        other["artifactType"] = json!("application/spdx+json");
        listed.push(other);
    }
    registry.remove(&sig_tag());
    registry.list(&listed).tagged(&listed);
    assert!(registry.client().prove(&["bob"]).await.is_ok());
    let told = registry.client().denial(&["carol"]).await;
    assert!(told.contains("1 signature of"), "{told}");
}

/// The likeliest of both lists are looked at, however many the first one has.
#[tokio::test]
async fn a_long_list_does_not_crowd_out_the_other() {
    let registry = Registry::start().await;
    let mut attestations = Vec::new();
    for number in 0..100 {
        let mut listed = registry.referrer(BUNDLE, &[json!({"number": number})]);
        listed["annotations"] = json!({"dev.sigstore.bundle.predicateType": "https://slsa.dev/provenance/v1"});
        attestations.push(listed);
    }
    registry.list(&attestations).put("hop", redirect("hop2"));
    // The short one comes later, which makes no difference.
    registry.put("hop2", document(INDEX, &index(&[registry.bundle(&alice())])));
    registry.put(&fallback(), redirect("../hop"));
    assert!(registry.client().prove(&["alice"]).await.is_ok());
    let told = registry.client().denial(&["bob"]).await;
    assert!(told.contains(" manifests were read"), "{told}");
}

#[tokio::test]
async fn inspection_sees_everything() {
    let registry = Registry::start().await;
    registry.sig(&alice()).list(&[registry.bundle(&alice()), registry.bundle(&bob())]);
    registry.put(&fallback(), answer("500 Oops", "", b""));
    let client = registry.client();
    let keys = [signed::key("alice"), signed::key("bob")];
    for _ in 0..2 {
        let before = registry.server.asked();
        let seen = client.cosign.inspect(&client.place, &client.repository, image(), &keys, &Login::none()).await;
        let seen = seen.unwrap();
        let mut forms: Vec<_> = seen.facts.iter().map(countersign_cosign::Fact::form).collect();
        forms.sort_unstable();
        assert_eq!(forms, [Form::SigTag, Form::Bundle, Form::Bundle]);
        assert_eq!(seen.trouble.len(), 1, "{:?}", seen.trouble);
        assert_eq!(registry.server.asked() - before, 7, "three places, two manifests, and two bundles");
    }
    assert!(!registry.server.heads.lock().unwrap().iter().any(|head| path_of(head).contains("/v2/team/app/tags")));
}
