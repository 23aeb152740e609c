//! Registries over TLS that hold signatures as cosign makes them, and clients that look for these.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_cosign::{Budget, Demand, Key, Proof, guesses};
use countersign_image::Sha256;
use countersign_remote::{
    Authenticator, CosignClient, HttpClient, Login, NotaryClient, Options, RegistryClient, Repository, Sharing,
    SignatureFailure, SignaturesAsk,
};
use forge::Key as Secret;
use rcgen::SanType;
use serde_json::{Value, json};

use crate::tls::{Authority, Certificate, Handler, LONG, Server, answer, outside, path_of, trusting};

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
pub(crate) const SIG: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const IN_TOTO: &str = "application/vnd.in-toto+json";

/// What is signed.
pub(crate) fn image() -> Sha256 {
    Sha256::of(b"image")
}

pub(crate) fn alice() -> Secret {
    Secret::p256("alice")
}

pub(crate) fn bob() -> Secret {
    Secret::p256("bob")
}

pub(crate) fn key(name: &str) -> Key {
    Key::from_pem(name, Secret::p256(name).pem().as_bytes()).unwrap()
}

/// That all of these signed.
pub(crate) fn all_of(names: &[&str]) -> Demand {
    Demand::new(names.iter().map(|name| key(name)).collect(), None, vec![], BTreeMap::new()).unwrap()
}

/// A certificate for all addresses of this machine that the tests use.
pub(crate) fn certificate(authority: &Authority) -> Certificate {
    authority.issue(|params| params.subject_alt_names.push(SanType::IpAddress(outside())))
}

pub(crate) fn document(kind: &str, body: &[u8]) -> Vec<u8> {
    answer("200 OK", &format!("Content-Type: {kind}\r\n"), body)
}

/// A registry whose pages a test may change.
pub(crate) struct Registry {
    pub(crate) server: Server,
    pages: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    /// The authority of its certificate.
    pub(crate) authority: Authority,
}

impl Registry {
    /// One with nothing in it.
    pub(crate) async fn start() -> Self {
        Self::start_for(|open| open).await
    }

    /// One whose answers are changed on their way.
    pub(crate) async fn start_for(change: impl FnOnce(Handler) -> Handler) -> Self {
        let authority = Authority::make();
        let pages: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
        let shown = Arc::clone(&pages);
        let open: Handler = Arc::new(move |head| {
            let pages = shown.lock().unwrap();
            // Once something stands for everything, it is answered to everything.
            let page = pages.get("*").or_else(|| pages.get(path_of(head))).cloned();
            let page = page.unwrap_or_else(|| answer("404 Not Found", "", b"{}"));
            // A HEAD has the headers of a GET, and no body.
            let end = page.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            if head.starts_with("HEAD ") { page[..end].to_vec() } else { page }
        });
        let server = Server::start(&certificate(&authority), change(open)).await;
        Self { server, pages, authority }
    }

    /// Another server that clients of this one trust.
    pub(crate) async fn storage(&self, handler: Handler) -> Server {
        Server::start_outside(&certificate(&self.authority), handler).await
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/team/app", self.server.host)
    }

    pub(crate) fn repository(&self) -> Repository {
        Repository::parse(&self.name()).unwrap()
    }

    /// Puts something below the repository's address.
    pub(crate) fn put(&self, tail: &str, page: Vec<u8>) -> &Self {
        self.pages.lock().unwrap().insert(format!("/v2/team/app/{tail}"), page);
        self
    }

    pub(crate) fn remove(&self, tail: &str) {
        self.pages.lock().unwrap().remove(&format!("/v2/team/app/{tail}"));
    }

    /// Answers every request with this body from now on; with `None`, with the pages that were put here.
    pub(crate) fn answers(&self, everything: Option<Vec<u8>>) {
        let mut pages = self.pages.lock().unwrap();
        match everything {
            Some(page) => pages.insert("*".to_owned(), page),
            None => pages.remove("*"),
        };
    }

    /// How often something was asked for in whose address this stands.
    pub(crate) fn asked_for(&self, text: &str) -> usize {
        self.server.heads.lock().unwrap().iter().filter(|head| path_of(head).contains(text)).count()
    }

    /// How often signatures were looked for.
    pub(crate) fn looks(&self) -> usize {
        self.asked_for(".sig")
    }

    /// Has a blob, and what a manifest says of it.
    pub(crate) fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = Sha256::of(bytes);
        self.put(&format!("blobs/{digest}"), answer("200 OK", "", bytes));
        json!({"mediaType": kind, "size": bytes.len(), "digest": digest.to_string()})
    }

    /// A layer of simple signing.
    pub(crate) fn simple(&self, secret: &Secret, payload: &[u8]) -> Value {
        let mut layer = self.blob(SIMPLE, payload);
        let signature = STANDARD.encode(secret.sign(payload).bytes);
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
        layer
    }

    /// The payload that cosign signs.
    pub(crate) fn payload(&self) -> Vec<u8> {
        guesses(&self.name(), image()).remove(0)
    }

    /// One with claims, which nobody guesses.
    pub(crate) fn claiming(&self, claim: &str) -> Vec<u8> {
        let text = String::from_utf8(self.payload()).unwrap();
        text.replace("\"optional\":null", &format!("\"optional\":{{\"is\":\"{claim}\"}}")).into_bytes()
    }

    /// Puts layers under the tag of signatures.
    pub(crate) fn sig_tag(&self, layers: &[Value]) -> &Self {
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": {}, "layers": layers});
        self.put(&sig_tag(), document(MANIFEST, manifest.to_string().as_bytes()))
    }

    /// `cosign sign` of version 2.
    pub(crate) fn sig(&self, secret: &Secret) -> &Self {
        self.sig_tag(&[self.simple(secret, &self.payload())])
    }

    /// Has a manifest that refers to the image, and what a list says of it.
    pub(crate) fn referrer(&self, artifact_type: &str, layers: &[Value]) -> Value {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {},
            "layers": layers,
            "subject": {"mediaType": MANIFEST, "size": 400, "digest": image().to_string()},
            "artifactType": artifact_type
        });
        let bytes = manifest.to_string().into_bytes();
        let digest = Sha256::of(&bytes).to_string();
        self.put(&format!("manifests/{digest}"), document(MANIFEST, &bytes));
        json!({"mediaType": MANIFEST, "digest": digest, "size": bytes.len(), "artifactType": artifact_type})
    }

    /// The bundle of cosign 3, in a manifest that refers to the image.
    pub(crate) fn bundle(&self, secret: &Secret) -> Value {
        self.referrer(BUNDLE, &[self.blob(BUNDLE, bundle(secret).to_string().as_bytes())])
    }

    /// Lists referrers.
    pub(crate) fn list(&self, descriptors: &[Value]) -> &Self {
        self.put(&list(), document(INDEX, &index(descriptors)))
    }

    /// Lists them under the tag in place of that.
    pub(crate) fn tagged(&self, descriptors: &[Value]) -> &Self {
        self.put(&fallback(), document(INDEX, &index(descriptors)))
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with(Authenticator::default(), LONG, Sharing::Everybody)
    }

    pub(crate) fn client_with(&self, authenticator: Authenticator, refresh: Duration, sharing: Sharing) -> Client {
        let cosign = cosign(&self.authority, authenticator, refresh, sharing);
        Client { cosign, repository: self.name(), place: self.repository() }
    }
}

/// A client for registries with certificates of this authority.
pub(crate) fn cosign(
    authority: &Authority,
    authenticator: Authenticator,
    refresh: Duration,
    sharing: Sharing,
) -> CosignClient {
    cosign_within(LONG, authority, authenticator, refresh, sharing)
}

/// The same, which has so long for a look.
pub(crate) fn cosign_within(
    flight: Duration,
    authority: &Authority,
    authenticator: Authenticator,
    refresh: Duration,
    sharing: Sharing,
) -> CosignClient {
    let http = HttpClient::new(&trusting(authority), LONG).unwrap();
    let auth = Arc::new(authenticator);
    let options = Options {
        refresh: LONG,
        stale: Duration::ZERO,
        flight,
        clock: Arc::new(|| forge::NOW),
        sharing,
        state: None,
        on_trouble: Arc::new(|problem| panic!("{problem}")),
    };
    let notary = NotaryClient::new(http.clone(), Arc::clone(&auth), options);
    CosignClient::new(RegistryClient::new(http, auth), &notary, refresh)
}

/// A client, and what it asks about.
pub(crate) struct Client {
    pub(crate) cosign: CosignClient,
    pub(crate) repository: String,
    pub(crate) place: Repository,
}

impl Client {
    /// Whether all of these signed; a denial may rest on what was found whenever.
    pub(crate) async fn prove(&self, names: &[&str]) -> Result<Proof, SignatureFailure> {
        self.ask(&all_of(names), &Login::none(), "team", LONG).await
    }

    /// The same, where a denial rests on a look of its own.
    pub(crate) async fn prove_now(&self, names: &[&str]) -> Result<Proof, SignatureFailure> {
        self.ask(&all_of(names), &Login::none(), "team", Duration::ZERO).await
    }

    pub(crate) async fn ask(
        &self,
        demand: &Demand,
        login: &Login,
        namespace: &str,
        denial_age: Duration,
    ) -> Result<Proof, SignatureFailure> {
        self.spend(demand, login, namespace, denial_age, &Budget::new()).await
    }

    pub(crate) async fn spend(
        &self,
        demand: &Demand,
        login: &Login,
        namespace: &str,
        denial_age: Duration,
        budget: &Budget,
    ) -> Result<Proof, SignatureFailure> {
        let (repository, place, digest) = (self.repository.as_str(), &self.place, image());
        let ask = SignaturesAsk { repository, place, digest, demand, login, namespace, budget, denial_age };
        self.cosign.prove(&ask).await
    }

    /// What is told of a denial.
    pub(crate) async fn denial(&self, names: &[&str]) -> String {
        match self.prove(names).await {
            Err(SignatureFailure::NotProven(error)) => error.told("the registry"),
            other => panic!("no denial: {other:?}"),
        }
    }

    /// Why nothing is decided.
    pub(crate) async fn undecided(&self, names: &[&str]) -> String {
        match self.prove(names).await {
            Err(SignatureFailure::Undecided(error)) => error.to_string(),
            other => panic!("it is decided: {other:?}"),
        }
    }
}

pub(crate) fn sig_tag() -> String {
    format!("manifests/sha256-{}.sig", image().hex())
}

pub(crate) fn list() -> String {
    format!("referrers/{}", image())
}

pub(crate) fn fallback() -> String {
    format!("manifests/sha256-{}", image().hex())
}

pub(crate) fn index(descriptors: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors}).to_string().into_bytes()
}

/// The bundle that cosign 3 writes with a key and without a log.
pub(crate) fn bundle(secret: &Secret) -> Value {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": image().hex()}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {}
    });
    let statement = statement.to_string();
    let signed = format!("DSSEv1 {} {IN_TOTO} {} {statement}", IN_TOTO.len(), statement.len());
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": STANDARD.encode(forge::sha256(&secret.spki()))}},
        "dsseEnvelope": {
            "payload": STANDARD.encode(&statement),
            "payloadType": IN_TOTO,
            "signatures": [{"sig": STANDARD.encode(secret.sign(signed.as_bytes()).bytes)}]
        }
    })
}

/// Sends to another address.
pub(crate) fn redirect(to: &str) -> Vec<u8> {
    answer("307 Elsewhere", &format!("Location: {to}\r\n"), b"")
}
