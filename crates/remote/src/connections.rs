//! How hosts are connected to: which authorities and certificates count, what is shown, and what is never connected to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;
use url::Url;

use crate::addresses::{Lookup, Reach};

/// How long a connection may take to come about, TLS included: a second or two is slow already, and a review has 8 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

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
    pub(crate) by_host: HashMap<String, HostConnection>,
    pub(crate) proxied: bool,
}

/// What is particular to one host.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostConnection {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<Arc<Identity>>,
    pub(crate) alias: Option<String>,
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

impl HostConnection {
    pub(crate) fn has_identity(&self) -> bool {
        self.identity.is_some()
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
    /// Reads a certificate in PEM. `origin` is where it stands, for messages.
    ///
    /// # Errors
    /// Text that holds none, or more than one.
    pub fn parse(pem: &str, origin: &str) -> Result<Self, TlsError> {
        let mut certificates = read_certificates(pem.as_bytes(), origin)?;
        match (certificates.pop(), certificates.is_empty()) {
            (Some(one), true) => Ok(Self { der: one.to_vec() }),
            _ => Err(TlsError::BadCa { origin: origin.to_owned() }),
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

/// A client for hosts that are reached in this way, and have this in particular.
pub(crate) fn build(
    connections: &Connections,
    particular: &HostConnection,
    pinned: Option<&PinnedCertificate>,
    reach: Reach,
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
        .dns_resolver(Arc::new(Lookup(reach)))
        // Each of them is a request of its own to whoever sends it.
        .redirect(Policy::none())
        // Less than the whole, so that a dead host is told from a slow answer.
        .connect_timeout(CONNECT_TIMEOUT.min(timeout * 2 / 3))
        .timeout(timeout)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .pool_idle_timeout(Duration::from_secs(60))
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| TlsError::Client(error.to_string()))
}
