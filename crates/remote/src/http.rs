//! One HTTP client for everything that strangers serve.
//!
//! It follows no redirect to another origin, reads no more than it is told to, decompresses nothing, and says of a TLS
//! refusal what exactly was refused and what to do.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::redirect::{Attempt, Policy};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use thiserror::Error;
use url::Url;

/// How long a connection may take to come about, TLS included: a second or two is slow already, and a review has 8 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many redirects within one origin are followed.
const MAX_REDIRECTS: usize = 3;

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
    /// The client could not be built.
    #[error("cannot set up the HTTP client: {0}")]
    Client(String),
}

/// Certificates of authorities that are trusted besides the public ones.
#[derive(Debug, Clone, Default)]
pub struct TrustedCas {
    everywhere: Vec<CertificateDer<'static>>,
    by_host: HashMap<String, Vec<CertificateDer<'static>>>,
}

impl TrustedCas {
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
        self.by_host.entry(host.to_owned()).or_default().extend(certificates);
        Ok(())
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
    /// The body, cut one byte after its limit.
    pub body: Vec<u8>,
}

/// The client.
#[derive(Debug, Clone)]
pub struct HttpClient {
    everywhere: reqwest::Client,
    by_host: Arc<HashMap<String, reqwest::Client>>,
}

impl HttpClient {
    /// Makes a client that trusts the public authorities and the given ones, and waits `timeout` for a whole answer.
    ///
    /// # Errors
    /// A client that cannot be built.
    pub fn new(cas: &TrustedCas, timeout: Duration) -> Result<Self, TlsError> {
        let by_host = cas
            .by_host
            .iter()
            .map(|(host, extra)| Ok((host.clone(), build(cas.everywhere.iter().chain(extra), timeout)?)))
            .collect::<Result<_, TlsError>>()?;
        Ok(Self { everywhere: build(cas.everywhere.iter(), timeout)?, by_host: Arc::new(by_host) })
    }

    /// Fetches a URL, reading at most `limit` bytes of the body and one more.
    ///
    /// # Errors
    /// No answer, for whatever reason. Every status is an answer here.
    pub async fn get(&self, url: &Url, authorization: Option<HeaderValue>, limit: u64) -> Result<Response, HttpError> {
        let host = host_port(url);
        let client = self
            .by_host
            .get(&host)
            .or_else(|| self.by_host.get(url.host_str().unwrap_or_default()))
            .unwrap_or(&self.everywhere);
        let mut headers = HeaderMap::new();
        if let Some(mut value) = authorization {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let sent = client.get(url.clone()).headers(headers).send().await;
        let mut response = sent.map_err(|error| explain(&host, &error))?;
        let status = response.status().as_u16();
        if (300..400).contains(&status) {
            let target = response.headers().get(reqwest::header::LOCATION).and_then(|value| value.to_str().ok());
            let target = target.and_then(|target| url.join(target).ok());
            return Err(HttpError::Redirected {
                host,
                to: target.as_ref().map_or_else(|| "nowhere".into(), host_port),
            });
        }
        let challenges = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        let mut body = Vec::new();
        while body.len() as u64 <= limit {
            match response.chunk().await.map_err(|error| explain(&host, &error))? {
                Some(chunk) => body.extend_from_slice(&chunk),
                None => break,
            }
        }
        body.truncate(usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1));
        Ok(Response { status, challenges, body })
    }
}

/// `HOST:PORT` of a URL, with the port that its scheme implies.
#[must_use]
pub fn host_port(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

fn build<'a>(
    extra: impl Iterator<Item = &'a CertificateDer<'static>>,
    timeout: Duration,
) -> Result<reqwest::Client, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in extra {
        // A certificate that is no trust anchor (a leaf with an odd extension, say) must not keep the others from working;
        // the connection then fails with its reason.
        let _ = roots.add(certificate.clone());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Client(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(Policy::custom(follow))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .pool_idle_timeout(Duration::from_secs(60))
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .build()
        .map_err(|error| TlsError::Client(error.to_string()))
}

/// Only within the origin that was asked: elsewhere another party would answer in its place.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let same = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
    if same && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
}

/// Says what went wrong. The URL is left out of the cause, as the host is named already.
fn explain(host: &str, error: &reqwest::Error) -> HttpError {
    let host = host.to_owned();
    if error.is_timeout() {
        return HttpError::TimedOut { host };
    }
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
    HttpError::Unreachable { host, cause: last }
}

/// rustls' error, which arrives inside an I/O error.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = || error.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>();
    error.downcast_ref::<rustls::Error>().or_else(wrapped)
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
        CertificateError::BadSignature => "its certificate's signature is wrong".into(),
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it serves a CA certificate (CA:TRUE) as its own; give it a certificate signed by that CA instead".into()
        }
        other => format!("its certificate is refused ({other})"),
    }
}
