//! One door for everything that strangers serve: one client, and one way to send a request.
//!
//! It follows redirects by itself, and only those that the request asks for; reads no more than it is told to; decompresses
//! nothing; and says of a TLS refusal what exactly was refused.

mod error;
mod pool;
mod redirects;
mod silent;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_image::{Sha256, Sha256Hasher};
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LINK, LOCATION, WWW_AUTHENTICATE};
use url::Url;

use crate::addresses::Reach;
use crate::connections::{Connections, HostConnection, PinnedCertificate, TlsError, build};
use crate::turns::{Ticket, Turn, Turns};

use error::explain;
use redirects::{Step, next_method, sends_on};
use silent::Silent;

pub use error::{Cures, HttpError, TlsProblem};
pub(crate) use pool::Pool;
pub use redirects::{RedirectProblem, Redirects};

/// How long to wait before a request that broke at once is sent again; up to as long again is added.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How many clients with a pinned certificate are kept.
const MAX_PINNED: usize = 256;

/// How many requests to one host there may be at once, and how many of them for one namespace: what a server of middling size
/// answers without delay. All that one update fetches at once are sixteen.
const REQUESTS: (usize, usize) = (32, 24);

/// From how many hosts on those that nobody asks any more are forgotten.
const MAX_HOSTS: usize = 1024;

/// Whether a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It is sent once: who knows what the other side made of it.
    Once,
    /// It is sent again if the connection broke, most likely one that the server had closed. For what changes nothing there.
    IfBroken,
}

/// What is asked for, of whom, and what may come of it.
#[derive(Clone)]
pub struct Request<'a> {
    method: Method,
    url: &'a Url,
    accept: Option<&'static str>,
    authorization: Option<HeaderValue>,
    form: Option<&'a [(&'a str, &'a str)]>,
    pinned: Option<&'a PinnedCertificate>,
    limit: u64,
    redirects: Redirects,
    retry: Retry,
    reach: Reach,
    hashed: bool,
    pool: Option<&'a Pool>,
}

/// Without the form and the URL's query, which may hold secrets.
impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Request");
        shown.field("method", &self.method).field("host", &host_port(self.url)).field("path", &self.url.path());
        shown.field("limit", &self.limit).field("redirects", &self.redirects).finish_non_exhaustive()
    }
}

impl<'a> Request<'a> {
    /// Gets a URL, and reads at most `limit` bytes of the body and one more. Redirects within the origin are followed, and it is
    /// sent once.
    #[must_use]
    pub fn get(url: &'a Url, limit: u64) -> Self {
        Self {
            method: Method::GET,
            url,
            accept: None,
            authorization: None,
            form: None,
            pinned: None,
            limit,
            redirects: Redirects::SameOrigin,
            retry: Retry::Once,
            reach: Reach::Named,
            hashed: false,
            pool: None,
        }
    }

    /// As [`Self::get`], for the headers alone.
    #[must_use]
    pub fn head(url: &'a Url) -> Self {
        Self { method: Method::HEAD, ..Self::get(url, 0) }
    }

    /// As [`Self::get`], for a form that is posted.
    #[must_use]
    pub fn post_form(url: &'a Url, form: &'a [(&'a str, &'a str)], limit: u64) -> Self {
        Self { method: Method::POST, form: Some(form), ..Self::get(url, limit) }
    }

    /// Asks for content of these types.
    #[must_use]
    pub fn accept(mut self, types: &'static str) -> Self {
        self.accept = Some(types);
        self
    }

    /// Says who we are, to the origin of the URL alone.
    #[must_use]
    pub fn authorization(mut self, authorization: Option<HeaderValue>) -> Self {
        self.authorization = authorization;
        self
    }

    /// The origin of the URL must show this certificate, if one is given.
    #[must_use]
    pub fn pinned(mut self, certificate: Option<&'a PinnedCertificate>) -> Self {
        self.pinned = certificate;
        self
    }

    /// Follows these redirects.
    #[must_use]
    pub fn redirects(mut self, redirects: Redirects) -> Self {
        self.redirects = redirects;
        self
    }

    /// The body is hashed as it comes, and not kept.
    #[must_use]
    pub(crate) fn hashed(mut self) -> Self {
        self.hashed = true;
        self
    }

    /// Nobody needs the answer. Its body comes out of what several bodies may bring together, and ends where that does; that it does not come in
    /// time says nothing against its host.
    #[must_use]
    pub(crate) fn spare(mut self, pool: &'a Pool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Another server names this URL, and nobody who is trusted with it: it may not be at this machine, and who we are is not said.
    #[must_use]
    pub(crate) fn sent(mut self) -> Self {
        self.reach = Reach::Sent;
        self
    }

    /// Is sent again, or not.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }
}

/// An answer whose body is within its limit.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// All `WWW-Authenticate` headers of the origin that was asked. There are none where another one answered: who we are is not
    /// for it to ask.
    pub challenges: Vec<String>,
    /// `Docker-Content-Digest`, which registries give.
    pub digest: Option<String>,
    /// `Content-Type`
    pub content_type: Option<String>,
    /// All `Link` headers.
    pub links: Vec<String>,
    /// `HOST:PORT` of who answered, if that is not the origin that was asked.
    pub elsewhere: Option<String>,
    /// The body, cut one byte after its limit; nothing, where it was only hashed.
    pub body: Vec<u8>,
    /// Whether the body ended for another reason than its own end and its limit: others had taken what it may bring.
    pub(crate) cut: bool,
    /// The hash of a body that is within its limit, where that was asked for.
    pub hash: Option<Sha256>,
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
    /// For hosts that somebody named.
    named: Clients,
    /// For hosts that another server sends us to. They share no connections with the others.
    sent: Clients,
    /// Clients that take one certificate only, by host and certificate.
    pinned: Mutex<HashMap<(String, PinnedCertificate), reqwest::Client>>,
    /// Hosts that did not answer a moment ago.
    silent: Silent,
    /// Turns at hosts, by `HOST:PORT`.
    hosts: Mutex<HashMap<String, Turns>>,
}

/// Clients for all hosts that are reached in one way.
struct Clients {
    everywhere: reqwest::Client,
    by_host: HashMap<String, reqwest::Client>,
}

impl Clients {
    fn new(connections: &Connections, reach: Reach, timeout: Duration) -> Result<Self, TlsError> {
        let by_host = connections
            .by_host
            .iter()
            .map(|(host, particular)| Ok((host.clone(), build(connections, particular, None, reach, timeout)?)))
            .collect::<Result<_, TlsError>>()?;
        Ok(Self { everywhere: build(connections, &HostConnection::default(), None, reach, timeout)?, by_host })
    }

    /// The client for a host that has something particular under this name.
    fn of(&self, name: Option<&str>) -> reqwest::Client {
        name.and_then(|name| self.by_host.get(name)).unwrap_or(&self.everywhere).clone()
    }
}

/// Where a request goes.
struct Place {
    client: reqwest::Client,
    /// The address: another one than is named, if the host has an alias.
    url: Url,
    /// `HOST:PORT` as it is named.
    host: String,
    reach: Reach,
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
        let shared = Arc::new(Shared {
            named: Clients::new(connections, Reach::Named, timeout)?,
            sent: Clients::new(connections, Reach::Sent, timeout)?,
            connections: connections.clone(),
            timeout,
            pinned: Mutex::default(),
            silent: Silent::default(),
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

    /// Sends a request, and follows those redirects that it asks for. One of several hosts on the way has turns of its own, and may
    /// be left alone; all of them together have the time of one.
    ///
    /// # Errors
    /// No answer, for whatever reason. Every status is an answer here, but for a redirect that is not followed.
    pub async fn send(&self, request: Request<'_>) -> Result<Response, HttpError> {
        match self.send_once(&request).await {
            Err(HttpError::Unreachable { .. }) if request.retry == Retry::IfBroken => {
                tokio::time::sleep(RETRY_PAUSE + jitter()).await;
                self.send_once(&request).await
            }
            other => other,
        }
    }

    async fn send_once(&self, request: &Request<'_>) -> Result<Response, HttpError> {
        let mut place = self.place(request.url, request.pinned, request.reach)?;
        let mut method = request.method.clone();
        let mut left = self.shared.timeout;
        let mut turn = self.turn(&place.host).await?;
        let mut made = 0;
        loop {
            let begun = Instant::now();
            let response = self.knock(&place, method.clone(), request, left).await?;
            left = left.saturating_sub(begun.elapsed());
            let status = response.status();
            if !status.is_redirection() {
                return read_response(&place, response, request).await;
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let to = location.filter(|_| sends_on(status)).and_then(|location| place.url.join(location).ok());
            let step = request.redirects.step(&place.url, to.as_ref(), made).map_err(|problem| {
                // Where it would lead, seen from the host as it is named.
                let named = if place.reach == Reach::Named { request.url } else { &place.url };
                let to = location.and_then(|location| named.join(location).ok());
                let to = to.as_ref().map_or_else(|| "nowhere".into(), host_port);
                HttpError::Redirected { host: place.host.clone(), to, problem }
            })?;
            made += 1;
            method = next_method(&method, status);
            match step {
                Step::Here(url) => place.url = url,
                Step::Elsewhere(url) => {
                    // Nobody holds one turn and waits for another.
                    drop(turn);
                    place = self.place(&url, None, Reach::Sent).map_err(|_| HttpError::Redirected {
                        host: place.host.clone(),
                        to: host_port(&url),
                        problem: RedirectProblem::OffLimits,
                    })?;
                    turn = self.turn(&place.host).await?;
                }
            }
        }
    }

    /// Asks one address, without following anything.
    async fn knock(
        &self,
        place: &Place,
        method: Method,
        request: &Request<'_>,
        time: Duration,
    ) -> Result<reqwest::Response, HttpError> {
        let mut headers = HeaderMap::new();
        if let Some(types) = request.accept {
            headers.insert(ACCEPT, HeaderValue::from_static(types));
        }
        // Once we were sent elsewhere it is not said again, not even on the way back: who sent us there chose what is asked.
        if let Some(mut value) = request.authorization.clone().filter(|_| place.reach == Reach::Named) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let posts = method == Method::POST;
        let mut asked = place.client.request(method, place.url.clone()).headers(headers).timeout(time);
        if let Some(form) = request.form.filter(|_| posts) {
            asked = asked.form(form);
        }
        match asked.send().await {
            Ok(response) => {
                self.shared.silent.answers(&self.ticket.first(), &place.host);
                Ok(response)
            }
            Err(error) => {
                let found = explain(&place.host, &error, self.shared.connections.proxied);
                // One that was given little time, since a redirect led to it late, is not dead for that.
                if error.is_timeout() && time >= self.shared.timeout / 2 && request.pool.is_none() {
                    self.shared.silent.says_nothing(&self.ticket.first(), &place.host, &found, error.is_connect());
                }
                Err(found)
            }
        }
    }

    /// A turn at a host, unless it is left alone just now.
    async fn turn(&self, host: &str) -> Result<Turn, HttpError> {
        self.shared.silent.left_alone(&self.ticket.first(), host)?;
        let turns = self.turns(host);
        let turn = turns.take(&self.ticket).await.map_err(|_| HttpError::Busy { host: host.to_owned() })?;
        // While others had their turns it may have turned out that nobody answers there.
        self.shared.silent.left_alone(&self.ticket.first(), host)?;
        Ok(turn)
    }

    /// Turns at a host.
    fn turns(&self, host: &str) -> Turns {
        let mut hosts = self.shared.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(host) {
            hosts.retain(|_, turns| !turns.is_idle());
        }
        hosts.entry(host.to_owned()).or_insert_with(|| Turns::new(REQUESTS.0, REQUESTS.1)).clone()
    }

    /// Whether a host is shown a certificate of ours.
    pub(crate) fn shows_certificate(&self, url: &Url) -> bool {
        self.particular(&host_port(url), url).is_some_and(|(_, host)| host.has_identity())
    }

    /// Whether the operator has set up something for a host.
    pub(crate) fn is_set_up(&self, url: &Url) -> bool {
        self.particular(&host_port(url), url).is_some()
    }

    /// What the operator has set up for a host, and under which of its names: with its port, or else without.
    fn particular<'a>(&self, host: &'a str, url: &'a Url) -> Option<(&'a str, &HostConnection)> {
        let by_host = &self.shared.connections.by_host;
        let names = [host, url.host_str().unwrap_or_default()];
        names.into_iter().find_map(|name| Some((name, by_host.get(name)?)))
    }

    /// The client for a host, and the address to ask: another one if the host has an alias.
    fn place(&self, url: &Url, pinned: Option<&PinnedCertificate>, reach: Reach) -> Result<Place, HttpError> {
        let shared = &self.shared;
        let host = host_port(url);
        let general = HostConnection::default();
        let (name, particular) = match self.particular(&host, url) {
            Some((name, particular)) => (Some(name), particular),
            None => (None, &general),
        };
        let target = match &particular.alias {
            None => url.clone(),
            Some(alias) => with_authority(url, alias).unwrap_or_else(|| url.clone()),
        };
        // An alias is the operator's, who may well have something on this machine; but not for whoever sends us there.
        if reach == Reach::Sent && !(reach.allows_host(url) && reach.allows_host(&target)) {
            return Err(HttpError::OffLimits { host });
        }
        if !reach.allows_host(url) {
            return Err(HttpError::LinkLocal { host });
        }
        let client = match (pinned, reach) {
            (Some(pinned), _) => self.pinned(name.unwrap_or_default(), particular, pinned, &host)?,
            (None, Reach::Named) => shared.named.of(name),
            (None, Reach::Sent) => shared.sent.of(name),
        };
        Ok(Place { client, url: target, host, reach })
    }

    /// The client that takes one certificate only. `name` is that under which the host has something particular.
    fn pinned(
        &self,
        name: &str,
        particular: &HostConnection,
        pinned: &PinnedCertificate,
        host: &str,
    ) -> Result<reqwest::Client, HttpError> {
        let shared = &self.shared;
        let mut clients = shared.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_owned(), pinned.clone());
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let built = build(&shared.connections, particular, Some(pinned), Reach::Named, shared.timeout);
        let client =
            built.map_err(|error| HttpError::Unreachable { host: host.to_owned(), cause: error.to_string() })?;
        if clients.len() >= MAX_PINNED {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

async fn read_response(
    place: &Place,
    mut response: reqwest::Response,
    request: &Request<'_>,
) -> Result<Response, HttpError> {
    let status = response.status().as_u16();
    let headers = response.headers();
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let all = |name| headers.get_all(name).iter().filter_map(text).collect::<Vec<_>>();
    let elsewhere = (place.reach == Reach::Sent).then(|| place.host.clone());
    let challenges = if elsewhere.is_none() { all(WWW_AUTHENTICATE) } else { Vec::new() };
    let (digest, content_type) = (headers.get("docker-content-digest"), headers.get(CONTENT_TYPE));
    let (digest, content_type, links) = (digest.and_then(text), content_type.and_then(text), all(LINK));
    let most = usize::try_from(request.limit).unwrap_or(usize::MAX).saturating_add(1);
    let (mut body, mut hasher, mut length, mut cut) = (Vec::new(), Sha256Hasher::new(), 0, false);
    while length < most {
        let Some(chunk) = response.chunk().await.map_err(|error| explain(&place.host, &error, false))? else { break };
        let taken = &chunk[..chunk.len().min(most - length)];
        if request.pool.is_some_and(|pool| !pool.take(taken.len())) {
            cut = true;
            break;
        }
        length += taken.len();
        if request.hashed {
            hasher.update(taken);
        } else {
            // Not twice as much as there is: many bodies come at once.
            if body.capacity() - body.len() < taken.len() {
                body.reserve_exact(taken.len().max(body.len() / 8));
            }
            body.extend_from_slice(taken);
        }
    }
    let hash = (request.hashed && length < most && !cut).then(|| hasher.finish());
    Ok(Response { status, challenges, digest, content_type, links, elsewhere, body, cut, hash })
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
        let first = client.send(Request::get(&url, 1)).await.unwrap_err();
        assert_eq!((&first, connections()), (&HttpError::TimedOut { host: host.clone() }, 1));
        let left_alone_until = |until: Instant| {
            assert!(client.shared.silent.leave_alone_until("", &host, until), "it is left alone");
        };
        // However slow the others are, they come while it is left alone.
        left_alone_until(Instant::now() + LONG);
        for _ in 0..20 {
            assert_eq!(client.send(Request::get(&url, 1)).await.unwrap_err(), first);
        }
        assert_eq!(connections(), 0);
        left_alone_until(Instant::now());
        assert_eq!((client.send(Request::get(&url, 1)).await.unwrap_err(), connections()), (first.clone(), 1));
    }

    #[tokio::test]
    async fn link_local_addresses_are_refused_as_written() {
        let client = HttpClient::new(&Connections::default(), Duration::from_secs(1)).unwrap();
        for text in
            ["http://169.254.169.254/latest", "https://[fe80::1]/", "https://[::ffff:a9fe:a9fe]/", "http://2852039166/"]
        {
            let refused = client.send(Request::get(&Url::parse(text).unwrap(), 1)).await.unwrap_err();
            assert!(matches!(refused, HttpError::LinkLocal { .. }), "{text}: {refused}");
        }
    }

    /// Who is sent to a name is not connected to this machine by it, whatever stands in the URL.
    #[tokio::test]
    async fn names_that_one_is_sent_to_lead_nowhere_near() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let client = HttpClient::new(&Connections::default(), Duration::from_secs(24 * 3600)).unwrap();
        let url = format!("https://localhost:{}/", server.local_addr().unwrap().port());
        let refused = client.shared.sent.everywhere.get(&url).send().await.unwrap_err();
        let told = explain("localhost:1", &refused, false).to_string();
        assert_eq!(told, "cannot reach localhost:1: its name leads to an address that no other server may send us to");
        assert!(server.accept().is_err(), "nobody came");
    }

    /// A server that answers so many connections with this, and then ends.
    fn answers(count: usize, answer: &'static str) -> (Url, std::thread::JoinHandle<()>) {
        use std::io::{Read as _, Write as _};
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/", server.local_addr().unwrap())).unwrap();
        let serve = move || {
            for _ in 0..count {
                let (mut stream, _) = server.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer.as_bytes());
            }
        };
        (url, std::thread::spawn(serve))
    }

    #[tokio::test]
    async fn what_is_only_hashed_is_not_kept() {
        let (url, answers) = answers(2, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody");
        let client = HttpClient::new(&Connections::default(), Duration::from_secs(24 * 3600)).unwrap();
        for (limit, hash) in [(4, Some(Sha256::of(b"body"))), (3, None)] {
            let response = client.send(Request::get(&url, limit).hashed()).await.unwrap();
            assert_eq!((response.body.capacity(), response.hash), (0, hash));
        }
        answers.join().unwrap();
    }

    /// What one namespace asks for may be slow by its own doing; others are answered.
    #[tokio::test]
    async fn silence_is_of_one_namespace() {
        let (url, answers) = answers(1, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let host = host_port(&url);
        let client = HttpClient::new(&Connections::default(), Duration::from_secs(24 * 3600)).unwrap();
        let silence = HttpError::TimedOut { host: host.clone() };
        client.shared.silent.says_nothing("mallory", &host, &silence, true);
        let until = Instant::now() + Duration::from_secs(24 * 3600);
        assert!(client.shared.silent.leave_alone_until("mallory", &host, until));
        let of = |namespace: &str| client.for_namespace(namespace);
        assert_eq!(of("mallory").send(Request::get(&url, 1)).await.unwrap_err(), silence);
        assert_eq!(of("team").send(Request::get(&url, 1)).await.unwrap().status, 200);
        assert_eq!(of("mallory").send(Request::get(&url, 1)).await.unwrap_err(), silence);
        answers.join().unwrap();
    }

    /// A host that is left alone is left alone too when another one sends us there, and has turns of its own.
    #[tokio::test]
    async fn hosts_on_the_way_are_hosts() {
        let (url, answers) = answers(
            2,
            "HTTP/1.1 307 There\r\nLocation: http://198.51.100.1:9/x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
        let client = HttpClient::new(&Connections::default(), Duration::from_secs(24 * 3600)).unwrap();
        let there = "198.51.100.1:9".to_owned();
        let silence = HttpError::TimedOut { host: there.clone() };
        client.shared.silent.says_nothing("", &there, &silence, true);
        assert!(client.shared.silent.leave_alone_until("", &there, Instant::now() + Duration::from_secs(24 * 3600)));
        let sent = Request::get(&url, 1).redirects(Redirects::ContentAddressed);
        assert_eq!(client.send(sent).await.unwrap_err(), silence);
        // Nobody was sent there, and it would have been followed.
        let stays = client.send(Request::get(&url, 1)).await.unwrap_err();
        let problem = RedirectProblem::NotAskedFor;
        assert_eq!(stays, HttpError::Redirected { host: host_port(&url), to: there, problem });
        answers.join().unwrap();
    }

    #[test]
    fn secrets_are_not_shown() {
        let url = Url::parse("https://h.example/token?secret=open-sesame").unwrap();
        let form = [("refresh_token", "open-sesame")];
        let request = Request::post_form(&url, &form, 1).authorization(Some(HeaderValue::from_static("open-sesame")));
        let shown = format!("{request:?}");
        assert!(shown.contains("h.example:443") && !shown.contains("open-sesame"), "{shown}");
    }
}
