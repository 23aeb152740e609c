//! Registries over TLS that answer with given pages, and clients for them.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::collections::HashMap;
use std::sync::Arc;

use countersign_image::Sha256;
use countersign_remote::{Authenticator, Connections, HttpClient, RegistryClient, Repository};
use rcgen::SanType;
use serde_json::{Value, json};

use crate::tls::{Authority, Certificate, Handler, LONG, Server, answer, outside, path_of, trusting};

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A certificate for all addresses of this machine that the tests use.
pub(crate) fn certificate(authority: &Authority) -> Certificate {
    authority.issue(|params| params.subject_alt_names.push(SanType::IpAddress(outside())))
}

/// Answers by path and query; everything else is 404.
pub(crate) fn pages<const N: usize>(pages: [(String, Vec<u8>); N]) -> Handler {
    let pages = HashMap::from(pages);
    Arc::new(move |head| pages.get(path_of(head)).cloned().unwrap_or_else(|| answer("404 Not Found", "", b"{}")))
}

/// Answers whoever sends this `Authorization`, and challenges everybody else.
pub(crate) fn guarded(challenge: &str, expected: String, open: Handler) -> Handler {
    let challenge = format!("WWW-Authenticate: {challenge}\r\n");
    Arc::new(move |head| {
        if head.lines().any(|line| line.eq_ignore_ascii_case(&format!("authorization: {expected}"))) {
            open(head)
        } else {
            answer("401 Unauthorized", &challenge, b"{}")
        }
    })
}

pub(crate) fn redirect(status: u16, to: &str) -> Vec<u8> {
    answer(&format!("{status} Elsewhere"), &format!("Location: {to}\r\n"), b"")
}

pub(crate) fn document(kind: &str, body: &[u8]) -> Vec<u8> {
    answer("200 OK", &format!("Content-Type: {kind}\r\n"), body)
}

pub(crate) fn client(connections: &Connections, authenticator: Authenticator) -> RegistryClient {
    RegistryClient::new(HttpClient::new(connections, LONG).unwrap(), Arc::new(authenticator))
}

pub(crate) fn anybody(authority: &Authority) -> RegistryClient {
    client(&trusting(authority), Authenticator::default())
}

pub(crate) fn app(server: &Server) -> Repository {
    Repository::parse(&format!("{}/team/app", server.host)).unwrap()
}

pub(crate) fn blob_at(digest: Sha256) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

pub(crate) fn manifest() -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": {}, "layers": []}).to_string().into_bytes()
}

/// Descriptors of artifacts of these names.
pub(crate) fn index(names: &[&str]) -> Vec<u8> {
    let descriptor = |name: &&str| {
        let digest = Sha256::of(name.as_bytes()).to_string();
        json!({"mediaType": MANIFEST, "digest": digest, "size": 7, "artifactType": "a/b", "annotations": {"name": name}})
    };
    let manifests: Vec<Value> = names.iter().map(descriptor).collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string().into_bytes()
}

pub(crate) fn list_at(subject: Sha256) -> String {
    format!("/v2/team/app/referrers/{subject}")
}

pub(crate) fn tag_at(subject: Sha256) -> String {
    format!("/v2/team/app/manifests/sha256-{}", subject.hex())
}
