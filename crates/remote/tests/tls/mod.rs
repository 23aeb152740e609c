//! Servers over TLS, with authorities of their own.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_notary::TrustServer;
use countersign_remote::{Connections, DockerConfig};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A password that must turn up nowhere but where it belongs.
pub(crate) const PASSWORD: &str = "open-sesame-42";

/// An authority of the test.
pub(crate) struct Authority {
    pub(crate) params: CertificateParams,
    pub(crate) key: KeyPair,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn make() -> Self {
        Self::named("test CA")
    }

    pub(crate) fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    pub(crate) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        change(&mut params);
        let issuer = Issuer::from_params(&self.params, &self.key);
        Certificate::of(&params.signed_by(&key, &issuer).unwrap(), &key)
    }
}

#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    pub(crate) key: Vec<u8>,
}

impl Certificate {
    pub(crate) fn of(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self { der: certificate.der().clone(), pem: certificate.pem(), key: key.serialize_der() }
    }

    /// The private key in PEM.
    pub(crate) fn key_pem(&self) -> String {
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(&self.key))
    }

    pub(crate) fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        Self::of(&params.self_signed(&key).unwrap(), &key)
    }
}

/// Longer than any test takes: what is believed, or waited for, for so long does not end by the clock.
pub(crate) const LONG: Duration = Duration::from_secs(24 * 3600);

pub(crate) type Handler = Arc<dyn Fn(&str) -> Vec<u8> + Send + Sync>;

/// A server that answers each request with whatever bytes its handler makes of the head, and closes. What is asked
/// for below `/silent/` it never answers.
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) async fn start(certificate: &Certificate, handler: Handler) -> Self {
        Self::start_for(certificate, None, handler).await
    }

    /// At another address of this machine than the loopback one.
    pub(crate) async fn start_outside(certificate: &Certificate, handler: Handler) -> Self {
        Self::start_at(outside(), certificate, None, handler).await
    }

    /// There, for clients with a certificate of this authority.
    pub(crate) async fn start_outside_for(certificate: &Certificate, clients: &Authority, handler: Handler) -> Self {
        Self::start_at(outside(), certificate, Some(clients), handler).await
    }

    /// For clients with a certificate of this authority, if one is given.
    pub(crate) async fn start_for(certificate: &Certificate, clients: Option<&Authority>, handler: Handler) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), certificate, clients, handler).await
    }

    async fn start_at(
        address: IpAddr,
        certificate: &Certificate,
        clients: Option<&Authority>,
        handler: Handler,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(certificate.key.clone()).unwrap();
        let config =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
                let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let config = config.with_single_cert(vec![certificate.der.clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, handler, told) = (acceptor.clone(), Arc::clone(&handler), Arc::clone(&told));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let mut head = String::from_utf8_lossy(&head).into_owned();
                    let length = head
                        .to_lowercase()
                        .split_once("content-length: ")
                        .and_then(|(_, rest)| rest.split("\r\n").next().and_then(|number| number.parse().ok()));
                    let mut body = vec![0; length.unwrap_or(0)];
                    if stream.read_exact(&mut body).await.is_err() {
                        return;
                    }
                    head.push_str(&String::from_utf8_lossy(&body));
                    told.lock().unwrap().push(head.clone());
                    if path_of(&head).starts_with("/silent/") {
                        std::future::pending::<()>().await;
                    }
                    let _ = stream.write_all(&handler(&head)).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { host, heads }
    }

    pub(crate) fn url(&self) -> TrustServer {
        TrustServer::parse(&format!("https://{}", self.host)).unwrap()
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.heads.lock().unwrap().len()
    }

    pub(crate) fn saw(&self, text: &str) -> bool {
        self.heads.lock().unwrap().iter().any(|head| head.contains(text))
    }
}

pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(crate) fn path_of(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

pub(crate) fn config(host: &str, user: &str, password: &str) -> DockerConfig {
    let text = serde_json::json!({"auths": {host: {"username": user, "password": password}}}).to_string();
    DockerConfig::parse(text.as_bytes()).unwrap()
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

pub(crate) fn trusting(authority: &Authority) -> Connections {
    let mut connections = Connections::default();
    connections.add(authority.pem.as_bytes(), "test").unwrap();
    connections
}

/// An address of this machine that others reach it at. What is tested with it cannot be tested at the loopback address, so a
/// machine without a network fails here, and says so.
pub(crate) fn outside() -> IpAddr {
    // Nothing is sent: this asks from where it would be. The destination is one of documentation (RFC 5737).
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let asked = socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).and_then(|()| socket.local_addr());
    let address = asked.expect("this test needs a network interface besides loopback, with a default route").ip();
    assert!(!address.is_loopback(), "this test needs a network interface besides loopback, with a default route");
    address
}
