//! One HTTP client for everything that strangers serve.
//!
//! It follows no redirect to another origin, reads no more than it is told to, decompresses nothing, and says of a TLS
//! refusal what exactly was refused and what to do.

use std::collections::HashMap;
use std::error::Error as _;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use rustls::CertificateError;
use thiserror::Error;
use url::Url;

use crate::connections::{Connections, HostConnection, PinnedCertificate, TlsError, build, is_link_local};
use crate::turns::{Ticket, Turns};

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

/// How many requests to one host there may be at once, and how many of them for one namespace: what a server of middling size
/// answers without delay. All that one update fetches at once are sixteen.
const REQUESTS: (usize, usize) = (32, 24);

/// From how many hosts on those that nobody asks any more are forgotten.
const MAX_HOSTS: usize = 1024;

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
    /// Too many requests of one namespace wait for this host.
    #[error("{host} is asked for too much at once, in this namespace; try again")]
    Busy {
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

/// The client. Requests to one host take turns.
#[derive(Clone)]
pub struct HttpClient {
    shared: Arc<Shared>,
    /// On whose behalf requests are made.
    ticket: Arc<Ticket>,
}

struct Shared {
    connections: Connections,
    timeout: Duration,
    everywhere: reqwest::Client,
    by_host: HashMap<String, reqwest::Client>,
    /// Clients that take one certificate only, by host and certificate.
    pinned: Mutex<HashMap<(String, PinnedCertificate), reqwest::Client>>,
    /// Hosts that did not answer a moment ago.
    silent: Mutex<HashMap<String, Silence>>,
    /// Turns at hosts, by `HOST:PORT`.
    hosts: Mutex<HashMap<String, Turns>>,
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
        f.debug_struct("HttpClient").field("timeout", &self.shared.timeout).finish_non_exhaustive()
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
        let shared = Arc::new(Shared {
            everywhere: build(connections, &general, None, timeout)?,
            by_host,
            connections: connections.clone(),
            timeout,
            pinned: Mutex::default(),
            silent: Mutex::default(),
            hosts: Mutex::default(),
        });
        Ok(Self { shared, ticket: Ticket::new("", "") })
    }

    /// The same client, whose requests are made on behalf of somebody.
    pub(crate) fn on_behalf(&self, ticket: &Arc<Ticket>) -> Self {
        Self { shared: Arc::clone(&self.shared), ticket: Arc::clone(ticket) }
    }

    /// The same client, whose requests are made for a namespace.
    #[must_use]
    pub fn for_namespace(&self, namespace: &str) -> Self {
        self.on_behalf(&Ticket::new(namespace, ""))
    }

    /// Turns at a host.
    fn turns(&self, host: &str) -> Turns {
        let mut hosts = self.shared.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(host) {
            hosts.retain(|_, turns| !turns.is_idle());
        }
        hosts.entry(host.to_owned()).or_insert_with(|| Turns::new(REQUESTS.0, REQUESTS.1)).clone()
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

    /// Whether a host is shown a certificate of ours.
    pub(crate) fn shows_certificate(&self, url: &Url) -> bool {
        let by_host = &self.shared.connections.by_host;
        let named = [host_port(url), url.host_str().unwrap_or_default().to_owned()];
        named.iter().any(|name| by_host.get(name).is_some_and(HostConnection::has_identity))
    }

    /// The client for a host, and the address to ask: another one if the host has an alias.
    fn client(&self, url: &Url, pinned: Option<&PinnedCertificate>) -> Result<(reqwest::Client, Url), HttpError> {
        let shared = &self.shared;
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
        let turns = self.turns(&host);
        let _turn = turns.take(&self.ticket).await.map_err(|_| HttpError::Busy { host: host.clone() })?;
        // While others had their turns it may have turned out that nobody answers there.
        self.left_alone(&host)?;
        match request.send().await {
            Ok(response) => {
                self.answers(&host);
                read_response(url, &host, response, limit).await
            }
            Err(error) => {
                let found = explain(&host, &error, self.shared.connections.proxied);
                if error.is_timeout() {
                    self.says_nothing(&host, &found, error.is_connect());
                }
                Err(found)
            }
        }
    }

    fn silent(&self) -> MutexGuard<'_, HashMap<String, Silence>> {
        self.shared.silent.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(crate) fn host_port(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
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

    /// A server that says nothing costs one review its time, and the others next to none.
    #[tokio::test]
    async fn a_dead_server_costs_one_timeout() {
        const LONG: Duration = Duration::from_secs(24 * 3600);
        // Connections come about without it, and wait for it to take them.
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let connections = || server.incoming().take_while(Result::is_ok).count();
        let url = Url::parse(&format!("https://{}/", server.local_addr().unwrap())).unwrap();
        let host = host_port(&url);
        let client = HttpClient::new(&Connections::default(), LONG).unwrap();
        let first = client.get(&url, None, 1).await.unwrap_err();
        assert_eq!((&first, connections()), (&HttpError::TimedOut { host: host.clone() }, 1));
        let left_alone_until = |until: Instant| {
            let before = client.silent().get_mut(&host).and_then(|silence| silence.until.replace(until));
            assert!(before.is_some(), "it is left alone");
        };
        // However slow the others are, they come while it is left alone.
        left_alone_until(Instant::now() + LONG);
        for _ in 0..20 {
            assert_eq!(client.get(&url, None, 1).await.unwrap_err(), first);
        }
        assert_eq!(connections(), 0);
        left_alone_until(Instant::now());
        assert_eq!((client.get(&url, None, 1).await.unwrap_err(), connections()), (first.clone(), 1));
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
