//! The certificate that the webhook serves: from files that are read again when they change, or made on the spot; and the
//! certificates that its clients must show.

pub(crate) mod clients;
pub(crate) mod managed;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tracing::{error, info};

use self::clients::Clients;
use crate::metrics::SharedMetrics;

/// How often certificate files are looked at. Kubernetes updates mounted secrets within a minute or so.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Why a certificate cannot be served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// The reason.
        cause: String,
    },
    /// A file does not hold what it should.
    #[error("{path} holds no {what} in PEM that can be read")]
    Malformed {
        /// The file.
        path: String,
        /// `certificate` or `private key`.
        what: &'static str,
    },
    /// The key is not the certificate's.
    #[error("the key in {key} does not belong to the certificate in {certificate}: {cause}")]
    Mismatch {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// The reason.
        cause: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
}

/// The certificate in use, which may be swapped under open connections: each keeps the one it began with.
#[derive(Debug)]
pub(crate) struct ServingCertificate {
    key: ArcSwapOption<CertifiedKey>,
    metrics: SharedMetrics,
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key.load_full()
    }
}

impl ServingCertificate {
    /// Serves a certificate, and tells the metrics when it expires.
    #[must_use]
    pub(crate) fn new(key: CertifiedKey, metrics: SharedMetrics) -> Arc<Self> {
        let serving = Self::none_yet(metrics);
        serving.swap(key);
        serving
    }

    /// Has no certificate to serve yet: until there is one, no connection comes about.
    #[must_use]
    pub(crate) fn none_yet(metrics: SharedMetrics) -> Arc<Self> {
        Arc::new(Self { key: ArcSwapOption::empty(), metrics })
    }

    /// Whether there is one.
    #[must_use]
    pub(crate) fn is_there(&self) -> bool {
        self.key.load().is_some()
    }

    /// Serves another one from now on.
    pub(crate) fn swap(&self, key: CertifiedKey) {
        note_expiry(&key, &self.metrics);
        self.key.store(Some(Arc::new(key)));
    }
}

fn note_expiry(key: &CertifiedKey, metrics: &SharedMetrics) {
    let expiry = key.cert.first().and_then(|der| countersign_keys::certificate_expiry(der));
    if let Some(seconds) = expiry {
        metrics.certificate_expires(seconds);
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable =
        |error: std::io::Error| TlsError::Unreadable { path: path.display().to_string(), cause: error.to_string() };
    fs::read(path).map_err(unreadable)
}

fn malformed(path: &Path, what: &'static str) -> TlsError {
    TlsError::Malformed { path: path.display().to_string(), what }
}

/// Reads the certificates of a PEM file, of which there must be one at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    read.ok().filter(|found| !found.is_empty()).ok_or_else(|| malformed(path, "certificate"))
}

/// Reads a certificate chain and its key.
///
/// # Errors
/// Files that cannot be read, or do not fit each other.
pub(crate) fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| malformed(key, "private key"))?;
    certified(chain, private).map_err(|cause| TlsError::Mismatch {
        certificate: certificate.display().to_string(),
        key: key.display().to_string(),
        cause,
    })
}

fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey, String> {
    CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())
        .map_err(|error| error.to_string())
}

/// Makes a certificate for this machine and the given names, for trying things out.
///
/// # Errors
/// Names that no certificate can hold.
pub(crate) fn self_signed(names: Vec<String>) -> Result<(CertifiedKey, String), TlsError> {
    let failed = |error: &dyn std::fmt::Display| TlsError::Make(error.to_string());
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| failed(&error))?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(|error| failed(&error))?;
    let key = certified(vec![made.cert.der().clone()], key).map_err(|error| failed(&error))?;
    Ok((key, made.cert.pem()))
}

/// The TLS side of the webhook: HTTP/2 and HTTP/1.1, TLS 1.2 and 1.3. With `clients`, all others are refused.
///
/// # Errors
/// A library that refuses its own defaults.
pub(crate) fn server_config(
    certificate: Arc<ServingCertificate>,
    clients: Option<Arc<Clients>>,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let demanded = clients.is_some();
    let verifier: Arc<dyn ClientCertVerifier> = match clients {
        Some(clients) => clients,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Make(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if demanded {
        // A session that is taken up again brings its certificate along, and nobody looks at that anew: it may have expired,
        // or be of an authority that no longer counts.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// Serves new files when they change; files that cannot be used leave the certificate that is in use. Goes on until the returned task is
/// aborted; to drop its handle does not end it.
pub(crate) fn watch(
    serving: Arc<ServingCertificate>,
    certificate: PathBuf,
    key: PathBuf,
) -> tokio::task::JoinHandle<()> {
    follow(vec![certificate.clone(), key.clone()], move || {
        serving.swap(load(&certificate, &key)?);
        info!(certificate = %certificate.display(), "serving a new certificate");
        Ok(())
    })
}

/// Calls `take` when files have changed, and again until it succeeds.
fn follow(
    files: Vec<PathBuf>,
    mut take: impl FnMut() -> Result<(), TlsError> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    let contents = move || files.iter().map(|file| fs::read(file).ok()).collect::<Vec<_>>();
    tokio::spawn(async move {
        let mut old = contents();
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let new = contents();
            if new == old {
                continue;
            }
            match take() {
                Ok(()) => old = new,
                // Half-written files come and go; the complaint is repeated until they fit.
                Err(problem) => error!(%problem, "the changed certificate cannot be used; the old one stays"),
            }
        }
    })
}
