//! What the real cosign put into real registries, served again: it is proven of all who signed, and of nobody else.

mod signed;
mod tls;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign_cosign::{Budget, Demand, Key, Proof};
use countersign_image::Sha256;
use countersign_remote::{Authenticator, CosignClient, Login, Repository, Sharing, SignatureFailure, SignaturesAsk};
use serde_json::Value;

use signed::{INDEX, certificate, cosign, document};
use tls::{Authority, Certificate, LONG, Server, answer, path_of};

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn entries(folder: &Path) -> Vec<(String, std::path::PathBuf)> {
    let Ok(found) = std::fs::read_dir(folder) else { return Vec::new() };
    found.map(|entry| entry.unwrap()).map(|entry| (entry.file_name().into_string().unwrap(), entry.path())).collect()
}

/// All that the registry of a dump answers.
fn pages(dump: &Path) -> HashMap<String, Vec<u8>> {
    let mut pages = HashMap::new();
    let manifests: HashMap<String, Vec<u8>> = entries(&dump.join("manifests"))
        .into_iter()
        .map(|(name, path)| {
            let bytes = std::fs::read(path).unwrap();
            let kind = serde_json::from_slice::<Value>(&bytes).unwrap()["mediaType"].as_str().unwrap().to_owned();
            (name.replacen('-', ":", 1), document(&kind, &bytes))
        })
        .collect();
    let tags = json(&dump.join("tags.json"));
    for (repository, tags) in tags.as_object().unwrap() {
        for (digest, page) in &manifests {
            pages.insert(format!("/v2/{repository}/manifests/{digest}"), page.clone());
        }
        for (tag, digest) in tags.as_object().unwrap() {
            pages.insert(format!("/v2/{repository}/manifests/{tag}"), manifests[digest.as_str().unwrap()].clone());
        }
        for (name, path) in entries(&dump.join("blobs")) {
            let digest = name.replacen('-', ":", 1);
            pages.insert(
                format!("/v2/{repository}/blobs/{digest}"),
                answer("200 OK", "", &std::fs::read(path).unwrap()),
            );
        }
        for (name, path) in entries(&dump.join("referrers").join(repository.replace('/', "+"))) {
            let digest = name.trim_end_matches(".json").replacen('-', ":", 1);
            let list = document(INDEX, &std::fs::read(path).unwrap());
            pages.insert(format!("/v2/{repository}/referrers/{digest}"), list);
        }
    }
    pages
}

/// Whether a key alone proves the image of a dump, with signatures in one repository.
async fn prove(client: &CosignClient, place: &Repository, case: &Value, key: Key) -> Result<Proof, SignatureFailure> {
    let repository = format!("{}/{}", case["host"].as_str().unwrap(), case["repository"].as_str().unwrap());
    let demand = Demand::new(vec![key], None, vec![], BTreeMap::new()).unwrap();
    let digest = Sha256::parse(case["digest"].as_str().unwrap()).unwrap();
    let (login, budget) = (Login::none(), Budget::new());
    let ask = SignaturesAsk {
        repository: &repository,
        place,
        digest,
        demand: &demand,
        login: &login,
        namespace: "team",
        budget: &budget,
        denial_age: Duration::ZERO,
    };
    client.prove(&ask).await
}

async fn look_at(dump: &Path, authority: &Authority, certificate: &Certificate) {
    let (case, pages) = (json(&dump.join("case.json")), pages(dump));
    let not_there = answer("404 Not Found", "Content-Type: text/plain\r\n", b"404 page not found");
    let served = move |head: &str| pages.get(path_of(head)).unwrap_or(&not_there).clone();
    let server = Server::start(certificate, Arc::new(served)).await;
    let client = cosign(authority, Authenticator::default(), LONG, Sharing::Everybody);
    let tags = json(&dump.join("tags.json"));
    let places: Vec<Repository> = tags
        .as_object()
        .unwrap()
        .keys()
        .map(|name| Repository::parse(&format!("{}/{name}", server.host)).unwrap())
        .collect();
    let signers: Vec<&str> = case["signers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (file, path) in entries(dump) {
        let Some(name) = file.strip_suffix(".pub") else { continue };
        let key = Key::from_pem(name, &std::fs::read(path).unwrap()).unwrap();
        let mut proven = false;
        for place in &places {
            match prove(&client, place, &case, key.clone()).await {
                Ok(_) => proven = true,
                Err(SignatureFailure::NotProven(_)) => {}
                Err(other) => panic!("{}: {other}", dump.display()),
            }
        }
        // cosign signs with Ed25519ph, which is not supported.
        let expected = signers.contains(&name) && name != "ed25519";
        assert_eq!(proven, expected, "{}: {name}", dump.display());
    }
}

#[tokio::test]
async fn what_cosign_wrote() {
    let dumps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cosign/dumps");
    let authority = Authority::make();
    let certificate = certificate(&authority);
    let mut count = 0;
    for version in ["v2.6.5", "v3.1.3"] {
        for (_, dump) in entries(&dumps.join(version)) {
            look_at(&dump, &authority, &certificate).await;
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}
