//! Registries on plain http, which are asked only if they are named, and to which nobody says who they are.

mod tls;

use std::sync::{Arc, Mutex};

use countersign_remote::{
    AuthError, Authenticator, Connections, HttpClient, Login, RegistryClient, RegistryError, Repository, Which,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use tls::{LONG, PASSWORD, answer, config};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Registries on plain http are asked if they are named, and learn of nobody who they are.
#[tokio::test]
async fn plain_http_is_for_those_that_are_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            // What begins otherwise tries TLS here, and sends no head.
            while !head.ends_with(b"\r\n\r\n") && head.first().is_none_or(|first| *first == b'G') {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let body = if head.contains("/manifests/open") {
                answer("200 OK", &format!("Content-Type: {MANIFEST}\r\n"), br#"{"schemaVersion":2,"layers":[]}"#)
            } else {
                answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"{}")
            };
            told.lock().unwrap().push(head);
            let _ = stream.write_all(&body).await;
        }
    });
    let app = Repository::parse(&format!("{host}/team/app")).unwrap();
    let alice = || {
        let http = HttpClient::new(&Connections::default(), LONG).unwrap();
        RegistryClient::new(http, Arc::new(Authenticator::new(config(&host, "alice", PASSWORD))))
    };
    let login = Login::with(vec![Arc::new(config(&host, "alice", PASSWORD))]);
    let refused = alice().manifest(&app, Which::Tag("open"), &login).await;
    assert!(matches!(refused, Err(RegistryError::Http(_))), "{refused:?}");
    heads.lock().unwrap().clear();
    let alice = alice().with_insecure(["reg.example.com:80".to_owned()]).with_insecure([host.clone()]);
    assert!(alice.manifest(&app, Which::Tag("open"), &login).await.unwrap().is_some());
    let refused = alice.manifest(&app, Which::Tag("closed"), &login).await.unwrap_err();
    assert_eq!(refused, RegistryError::Auth(AuthError::NoCredentials { host: host.clone() }));
    let heads = heads.lock().unwrap();
    assert!(heads.iter().all(|head| head.starts_with("GET ") && !head.to_lowercase().contains("authorization")));
    assert_eq!(heads.len(), 2);
}
