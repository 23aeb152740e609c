//! One HTTP client for everything that strangers serve.
//!
//! It follows no redirect to another origin, reads no more than it is told to, decompresses nothing, and says of a TLS
//! refusal what exactly was refused and what to do.

use std::collections::HashMap;
use std::error::Error as _;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::redirect::{Attempt, Policy};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;
use url::Url;

/// How long a connection may take to come about, TLS included: a second or two is slow already, and a review has 8 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many redirects within one origin are followed.
const MAX_REDIRECTS: usize = 3;

/// How long to wait before a request that broke at once is sent again; up to as long again is added.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// For how long a host is left alone that did not answer in time.
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// How often in a row a host may take a connection and not answer before it is left alone.
const SILENT_TIMES: u32 = 3;

/// How many such hosts are remembered.
const MAX_SILENT: usize = 1024;

/// How many clients with a pinned certificate are kept.
const MAX_PINNED: usize = 256;

/// The most bytes of headers that an answer may have.
const MAX_HEADER_BYTES: u32 = 64 << 10;

/// Why a client cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// PEM text without a certificate that can be read.
    #[error("{origin} holds no certificate in PEM that can be read")]
    BadCa {
        /// The file, or whatever the text came from.
        origin: String,
    },
    /// PEM text without a private key that can be read.
    #[error("{origin} holds no private key in PEM that can be read")]
    BadKey {
        /// The file, or whatever the text came from.
        origin: String,
    },
    /// An alias that is no host.
    #[error("the alias {alias:?} of {host} is not HOST or HOST:PORT")]
    BadAlias {
        /// The host that has it.
        host: String,
        /// The alias.
        alias: String,
    },
    /// The client could not be built.
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
}

/// How hosts are connected to: authorities that are trusted besides the public ones, and what is particular to a host.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    everywhere: Vec<CertificateDer<'static>>,
    by_host: HashMap<String, HostConnection>,
    proxied: bool,
}

/// What is particular to one host.
#[derive(Debug, Clone, Default)]
struct HostConnection {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<Arc<Identity>>,
    alias: Option<String>,
}

/// A client certificate with its key.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

impl Connections {
    /// Trusts the certificates of some PEM text for every host.
    ///
    /// # Errors
    /// Text without a certificate; `origin` names where it came from.
    pub fn add(&mut self, pem: &[u8], origin: &str) -> Result<(), TlsError> {
        self.everywhere.extend(read_certificates(pem, origin)?);
        Ok(())
    }

    /// Trusts the certificates of some PEM text for one host (`HOST` or `HOST:PORT`) only.
    ///
    /// # Errors
    /// Text without a certificate; `origin` names where it came from.
    pub fn add_for_host(&mut self, host: &str, pem: &[u8], origin: &str) -> Result<(), TlsError> {
        let certificates = read_certificates(pem, origin)?;
        self.by_host.entry(host.to_owned()).or_default().authorities.extend(certificates);
        Ok(())
    }

    /// Says whether the environment names a proxy, for messages.
    pub fn set_proxied(&mut self, proxied: bool) {
        self.proxied = proxied;
    }

    /// Shows a client certificate to one host.
    ///
    /// # Errors
    /// Text without a certificate or key; `origin` names where it came from.
    pub fn set_identity(&mut self, host: &str, chain: &[u8], key: &[u8], origin: &str) -> Result<(), TlsError> {
        let chain = read_certificates(chain, origin)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::BadKey { origin: origin.to_owned() })?;
        self.by_host.entry(host.to_owned()).or_default().identity = Some(Arc::new(Identity { chain, key }));
        Ok(())
    }

    /// Connects to another host (`HOST` or `HOST:PORT`) wherever this one is named: a mirror. Its certificate must be for
    /// the name of the mirror.
    ///
    /// # Errors
    /// An alias that no address can hold.
    pub fn set_alias(&mut self, host: &str, alias: &str) -> Result<(), TlsError> {
        let good =
            Url::parse(&format!("https://{alias}/")).is_ok_and(|url| url.path() == "/" && url.username().is_empty());
        if !good {
            return Err(TlsError::BadAlias { host: host.to_owned(), alias: alias.to_owned() });
        }
        self.by_host.entry(host.to_owned()).or_default().alias = Some(alias.to_owned());
        Ok(())
    }
}

/// The one certificate that a server must show, whatever else is wrong with it: for servers whose certificates no strict
/// client takes (a CA used as its own leaf, a common name without a subject alternative name, SHA-1, expired).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PinnedCertificate {
    der: Vec<u8>,
}

impl PinnedCertificate {
    /// Reads a certificate in PEM.
    ///
    /// # Errors
    /// Text that holds none, or more than one.
    pub fn parse(pem: &str) -> Result<Self, TlsError> {
        let mut certificates = read_certificates(pem.as_bytes(), "trustServerCertificate")?;
        match (certificates.pop(), certificates.is_empty()) {
            (Some(one), true) => Ok(Self { der: one.to_vec() }),
            _ => Err(TlsError::BadCa { origin: "trustServerCertificate".to_owned() }),
        }
    }
}

/// Takes exactly one certificate; that the server holds its key is checked as always.
#[derive(Debug)]
struct Exactly {
    pinned: PinnedCertificate,
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if end_entity.as_ref() == self.pinned.der.as_slice() {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn read_certificates(pem: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = || TlsError::BadCa { origin: origin.to_owned() };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| bad())?;
    if certificates.is_empty() { Err(bad()) } else { Ok(certificates) }
}

/// Why a request brought no answer that can be used.
///
/// Each of these leaves open what the server would have said: nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection, or one that broke.
    #[error("cannot reach {host}: {cause}")]
    Unreachable {
        /// `HOST:PORT`
        host: String,
        /// What went wrong.
        cause: String,
    },
    /// The server's certificate was refused, or TLS failed otherwise.
    #[error("the TLS connection to {host} was refused: {cause}")]
    Tls {
        /// `HOST:PORT`
        host: String,
        /// What was refused, and the cure.
        cause: String,
    },
    /// An address that no trust server has: cloud machines find their own credentials there.
    #[error("{host} is at a link-local address, which is never asked")]
    LinkLocal {
        /// `HOST:PORT`
        host: String,
    },
    /// The server sends us elsewhere.
    #[error("{host} redirects to {to}, which is not followed; name the final address as the trust server")]
    Redirected {
        /// `HOST:PORT`
        host: String,
        /// The host that it names.
        to: String,
    },
    /// No answer in time.
    #[error("{host} did not answer in time")]
    TimedOut {
        /// `HOST:PORT`
        host: String,
    },
    /// A status that tells nothing about what was asked.
    #[error("{host} answered {status} to GET {path}")]
    Status {
        /// `HOST:PORT`
        host: String,
        /// The status code.
        status: u16,
        /// The path that was asked for.
        path: String,
    },
}

/// An answer whose body is within its limit.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// All `WWW-Authenticate` headers.
    pub challenges: Vec<String>,
    /// `Docker-Content-Digest`, which registries give.
    pub digest: Option<String>,
    /// The body, cut one byte after its limit.
    pub body: Vec<u8>,
}

/// The client.
#[derive(Clone)]
pub struct HttpClient(Arc<Shared>);

struct Shared {
    connections: Connections,
    timeout: Duration,
    everywhere: reqwest::Client,
    by_host: HashMap<String, reqwest::Client>,
    /// Clients that take one certificate only, by host and certificate.
    pinned: Mutex<HashMap<(String, PinnedCertificate), reqwest::Client>>,
    /// Hosts that did not answer a moment ago.
    silent: Mutex<HashMap<String, Silence>>,
}

/// A host that did not answer in time since it last did.
struct Silence {
    /// How often.
    times: u32,
    /// Until when it is left alone, if it is.
    until: Option<Instant>,
    /// What was wrong.
    error: HttpError,
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").field("timeout", &self.0.timeout).finish_non_exhaustive()
    }
}

impl HttpClient {
    /// Makes a client that trusts the public authorities and the given ones, and waits `timeout` for a whole answer. The
    /// proxies that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name in the environment are used.
    ///
    /// # Errors
    /// A client that cannot be built.
    pub fn new(connections: &Connections, timeout: Duration) -> Result<Self, TlsError> {
        let general = HostConnection::default();
        let by_host = connections
            .by_host
            .iter()
            .map(|(host, particular)| Ok((host.clone(), build(connections, particular, None, timeout)?)))
            .collect::<Result<_, TlsError>>()?;
        Ok(Self(Arc::new(Shared {
            everywhere: build(connections, &general, None, timeout)?,
            by_host,
            connections: connections.clone(),
            timeout,
            pinned: Mutex::default(),
            silent: Mutex::default(),
        })))
    }

    /// Fetches a URL, reading at most `limit` bytes of the body and one more.
    ///
    /// # Errors
    /// No answer, for whatever reason. Every status is an answer here.
    pub async fn get(&self, url: &Url, authorization: Option<HeaderValue>, limit: u64) -> Result<Response, HttpError> {
        self.get_from(url, None, authorization, limit).await
    }

    /// As [`Self::get`], from a server that must show one certain certificate if one is given.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_from(
        &self,
        url: &Url,
        pinned: Option<&PinnedCertificate>,
        authorization: Option<HeaderValue>,
        limit: u64,
    ) -> Result<Response, HttpError> {
        let mut headers = HeaderMap::new();
        if let Some(mut value) = authorization {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let (client, target) = self.client(url, pinned)?;
        let request = || client.get(target.clone()).headers(headers.clone());
        match self.send(url, request(), limit).await {
            // Broken at once, most likely a connection that the server had closed. To ask again changes nothing there.
            Err(HttpError::Unreachable { .. }) => {
                tokio::time::sleep(RETRY_PAUSE + jitter()).await;
                self.send(url, request(), limit).await
            }
            other => other,
        }
    }

    /// As [`Self::get`], for one of the methods that read, with further headers; no body is read for HEAD.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn read(&self, method: Method, url: &Url, headers: HeaderMap, limit: u64) -> Result<Response, HttpError> {
        let (client, target) = self.client(url, None)?;
        self.send(url, client.request(method, target).headers(headers), limit).await
    }

    /// Posts a form. It is sent once: who knows what the other side made of it.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post_form(&self, url: &Url, form: &[(&str, &str)], limit: u64) -> Result<Response, HttpError> {
        let (client, target) = self.client(url, None)?;
        self.send(url, client.post(target).form(form), limit).await
    }

    /// The client for a host, and the address to ask: another one if the host has an alias.
    fn client(&self, url: &Url, pinned: Option<&PinnedCertificate>) -> Result<(reqwest::Client, Url), HttpError> {
        let shared = &self.0;
        let host = host_port(url);
        let name = [host.as_str(), url.host_str().unwrap_or_default()]
            .into_iter()
            .find(|name| shared.connections.by_host.contains_key(*name));
        let literal = match url.host() {
            Some(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(url::Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        if literal.is_some_and(is_link_local) {
            return Err(HttpError::LinkLocal { host });
        }
        let general = HostConnection::default();
        let particular = name.and_then(|name| shared.connections.by_host.get(name)).unwrap_or(&general);
        let target = match &particular.alias {
            None => url.clone(),
            Some(alias) => with_authority(url, alias).unwrap_or_else(|| url.clone()),
        };
        let Some(pinned) = pinned else {
            let client = name.and_then(|name| shared.by_host.get(name)).unwrap_or(&shared.everywhere);
            return Ok((client.clone(), target));
        };
        let mut clients = shared.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.unwrap_or_default().to_owned(), pinned.clone());
        if let Some(client) = clients.get(&key) {
            return Ok((client.clone(), target));
        }
        let built = build(&shared.connections, particular, Some(pinned), shared.timeout);
        let client = built.map_err(|error| HttpError::Unreachable { host, cause: error.to_string() })?;
        if clients.len() >= MAX_PINNED {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok((client, target))
    }

    async fn send(&self, url: &Url, request: reqwest::RequestBuilder, limit: u64) -> Result<Response, HttpError> {
        let host = host_port(url);
        self.left_alone(&host)?;
        match request.send().await {
            Ok(response) => {
                self.answers(&host);
                read_response(url, &host, response, limit).await
            }
            Err(error) => {
                let found = explain(&host, &error, self.0.connections.proxied);
                if error.is_timeout() {
                    self.says_nothing(&host, &found, error.is_connect());
                }
                Err(found)
            }
        }
    }

    fn silent(&self) -> MutexGuard<'_, HashMap<String, Silence>> {
        self.0.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails at once for a host that let somebody wait in vain a moment ago: a dead server costs one review its time, not
    /// every one.
    fn left_alone(&self, host: &str) -> Result<(), HttpError> {
        match self.silent().get(host) {
            Some(silence) if silence.until.is_some_and(|until| until > Instant::now()) => Err(silence.error.clone()),
            _ => Ok(()),
        }
    }

    fn answers(&self, host: &str) {
        self.silent().remove(host);
    }

    /// Takes note of a host that did not answer in time. One that does not even take a connection is down; one that does may
    /// be slow with one request, and is left alone when that goes on.
    fn says_nothing(&self, host: &str, error: &HttpError, unconnected: bool) {
        let mut silent = self.silent();
        let now = Instant::now();
        if silent.len() >= MAX_SILENT {
            silent.retain(|_, silence| silence.until.is_some_and(|until| until > now));
        }
        if silent.len() >= MAX_SILENT && !silent.contains_key(host) {
            return;
        }
        let silence =
            silent.entry(host.to_owned()).or_insert_with(|| Silence { times: 0, until: None, error: error.clone() });
        silence.times += 1;
        if unconnected || silence.times >= SILENT_TIMES {
            silence.until = Some(now + LEFT_ALONE);
        }
    }
}

async fn read_response(
    url: &Url,
    host: &str,
    mut response: reqwest::Response,
    limit: u64,
) -> Result<Response, HttpError> {
    let status = response.status().as_u16();
    if (300..400).contains(&status) {
        let target = response.headers().get(reqwest::header::LOCATION).and_then(|value| value.to_str().ok());
        let target = target.and_then(|target| url.join(target).ok());
        let to = target.as_ref().map_or_else(|| "nowhere".into(), host_port);
        return Err(HttpError::Redirected { host: host.to_owned(), to });
    }
    let headers = response.headers();
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let challenges = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(text).collect();
    let digest = headers.get("docker-content-digest").and_then(text);
    let mut body = Vec::new();
    while body.len() as u64 <= limit {
        match response.chunk().await.map_err(|error| explain(host, &error, false))? {
            Some(chunk) => body.extend_from_slice(&chunk),
            None => break,
        }
    }
    body.truncate(usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1));
    Ok(Response { status, challenges, digest, body })
}

/// The URL with another host, and another port or that of its scheme.
fn with_authority(url: &Url, authority: &str) -> Option<Url> {
    let other = Url::parse(&format!("{}://{authority}/", url.scheme())).ok()?;
    let mut target = url.clone();
    target.set_host(other.host_str()).ok()?;
    target.set_port(other.port()).ok()?;
    Some(target)
}

/// Up to as long again, so that many who failed together do not come back together.
fn jitter() -> Duration {
    let random = RandomState::new().build_hasher().finish();
    RETRY_PAUSE * u32::try_from(random % 1000).unwrap_or_default() / 1000
}

/// `HOST:PORT` of a URL, with the port that its scheme implies.
#[must_use]
pub fn host_port(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

fn build(
    connections: &Connections,
    particular: &HostConnection,
    pinned: Option<&PinnedCertificate>,
    timeout: Duration,
) -> Result<reqwest::Client, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in connections.everywhere.iter().chain(&particular.authorities) {
        // A certificate that is no trust anchor (a leaf with an odd extension, say) must not keep the others from working;
        // the connection then fails with its reason.
        let _ = roots.add(certificate.clone());
    }
    let failed = |error: rustls::Error| TlsError::Client(error.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(failed)?;
    let config = match pinned {
        Some(pinned) => config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Exactly { pinned: pinned.clone(), algorithms })),
        None => config.with_root_certificates(roots),
    };
    let mut tls = match &particular.identity {
        Some(identity) => {
            config.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).map_err(failed)?
        }
        None => config.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(NoLinkLocal))
        .redirect(Policy::custom(follow))
        // Less than the whole, so that a dead host is told from a slow answer.
        .connect_timeout(CONNECT_TIMEOUT.min(timeout * 2 / 3))
        .timeout(timeout)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .pool_idle_timeout(Duration::from_secs(60))
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| TlsError::Client(error.to_string()))
}

/// Whether an address is one that a machine's own cloud answers at, with credentials for whoever asks (169.254.169.254).
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_unspecified(),
        IpAddr::V6(address) => {
            address.to_ipv4_mapped().is_some_and(|mapped| mapped.is_link_local() || mapped.is_unspecified())
                || address.is_unicast_link_local()
                || address.is_unspecified()
                // The metadata service of one large cloud, which is not link-local there.
                || address.segments() == [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254]
        }
    }
}

/// Looks names up as the system does, and leaves out what is never asked. The check stands here, and not before the
/// connection, so that a name cannot have another address by then.
#[derive(Debug)]
struct NoLinkLocal;

impl Resolve for NoLinkLocal {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (bad, good): (Vec<SocketAddr>, Vec<SocketAddr>) = found.partition(|found| is_link_local(found.ip()));
            if good.is_empty() && !bad.is_empty() {
                return Err("its name leads to a link-local address, which is never asked".into());
            }
            let addresses: Addrs = Box::new(good.into_iter());
            Ok(addresses)
        })
    }
}

/// Only within the origin that was asked: elsewhere another party would answer in its place.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let same = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
    if same && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
}

/// Says what went wrong. The URL is left out of the cause, as the host is named already.
fn explain(host: &str, error: &reqwest::Error, proxied: bool) -> HttpError {
    let host = host.to_owned();
    if error.is_timeout() {
        return HttpError::TimedOut { host };
    }
    let failed = if error.is_connect() { "" } else { "the connection broke: " };
    let mut cause = error.source();
    let mut last = String::new();
    while let Some(inner) = cause {
        if let Some(tls) = tls_error(inner) {
            return HttpError::Tls { host, cause: explain_tls(tls) };
        }
        last = inner.to_string();
        cause = inner.source();
    }
    if last.is_empty() {
        last = error.to_string();
    }
    if last.starts_with("tunnel error") {
        last = format!("the proxy does not let the connection through ({last})");
    } else if proxied {
        last.push_str(" (a proxy is set in the environment, and may be what fails)");
    }
    HttpError::Unreachable { host, cause: format!("{failed}{last}") }
}

/// rustls' error, which arrives inside an I/O error, or inside several.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    tls_error(error.downcast_ref::<std::io::Error>()?.get_ref()?)
}

fn explain_tls(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(refused) = error else {
        return error.to_string();
    };
    match refused {
        CertificateError::UnknownIssuer => {
            "its certificate is signed by an authority that is not trusted; give that authority's certificate with --trust-ca".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; are the clocks right?".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name (names count only as subject alternative names, not as common name)".into()
        }
        CertificateError::ApplicationVerificationFailure => "it shows another certificate than trustServerCertificate pins".into(),
        CertificateError::BadSignature => {
            "its certificate is not signed by the trusted authority of that name; if another one has the same name, give its certificate with --trust-ca".into()
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it serves a CA certificate (CA:TRUE) as its own; give it a certificate signed by that CA instead".into()
        }
        other => format!("its certificate is refused ({other})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_are_not_asked_for_their_credentials() {
        let cases = [
            ("169.254.169.254", true),
            ("169.254.0.1", true),
            ("0.0.0.0", true),
            ("::ffff:169.254.169.254", true),
            ("fe80::1", true),
            ("fd00:ec2::254", true),
            ("::", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("::1", false),
            ("fd00::1", false),
        ];
        for (text, expected) in cases {
            assert_eq!(is_link_local(text.parse().unwrap()), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn link_local_addresses_are_refused_as_written() {
        let client = HttpClient::new(&Connections::default(), Duration::from_secs(1)).unwrap();
        for text in
            ["http://169.254.169.254/latest", "https://[fe80::1]/", "https://[::ffff:a9fe:a9fe]/", "http://2852039166/"]
        {
            let refused = client.get(&Url::parse(text).unwrap(), None, 1).await.unwrap_err();
            assert!(matches!(refused, HttpError::LinkLocal { .. }), "{text}: {refused}");
        }
    }
}
