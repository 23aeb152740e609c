//! Who may send reviews: clients with a certificate of an authority, in one of some names. All others are refused in the
//! handshake.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use countersign_image::shown;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use tracing::{info, warn};
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::{DirectoryString, GeneralName};

use super::{TlsError, certificates, follow, malformed};
use crate::config::ClientCertificates;
use crate::metrics::SharedMetrics;

/// How long the log is silent about a reason after it was named once: anybody who reaches the port can be refused at will.
const QUIET: Duration = Duration::from_secs(60);

/// `commonName`, RFC 5280, appendix A.1.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Why a client was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It showed no certificate.
    NoCertificate,
    /// Its certificate is sound and has another name.
    OtherName,
    /// Its certificate is of another authority, not valid now, not for clients, or not its own.
    NotTrusted,
}

impl Refusal {
    /// As metrics name it.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no-certificate",
            Self::OtherName => "other-name",
            Self::NotTrusted => "not-trusted",
        }
    }

    fn explanation(self) -> &'static str {
        match self {
            Self::NoCertificate => {
                "it showed no certificate; an API server shows one where its admission configuration says so"
            }
            Self::OtherName => "no common name or DNS name of its certificate is one of --client-name",
            Self::NotTrusted => {
                "its certificate is of none of the authorities of --client-ca, not valid now, or not for clients"
            }
        }
    }
}

/// A certificate that was refused, as rustls passes it on.
#[derive(Debug, Error)]
#[error("{}; its names: {names}", .refusal.explanation())]
struct RefusedCertificate {
    refusal: Refusal,
    /// What the library found.
    cause: Option<String>,
    /// All its names, escaped.
    names: String,
}

/// What the log last said about one reason.
#[derive(Debug, Default)]
struct Said {
    last: Option<Instant>,
    since: u64,
}

impl Said {
    /// Whether to say it now: how many times it was not said since the last time.
    fn now(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < QUIET) {
            self.since += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

/// Verifies the certificates of clients, and keeps account of those that were refused.
#[derive(Debug)]
pub(crate) struct Clients {
    chains: ArcSwap<Chains>,
    names: BTreeSet<String>,
    metrics: SharedMetrics,
    /// By reason, so that one that is common does not hide the others.
    said: Mutex<BTreeMap<&'static str, Said>>,
}

/// Verifies all but names. In a box of its own, since what is swapped must have a size.
type Chains = Arc<dyn ClientCertVerifier>;

impl Clients {
    /// Reads the authorities.
    ///
    /// # Errors
    /// A file that cannot be read, or holds no certificate of an authority.
    pub(crate) fn load(wanted: &ClientCertificates, metrics: SharedMetrics) -> Result<Arc<Self>, TlsError> {
        let chains = ArcSwap::from_pointee(chains(&wanted.authorities)?);
        Ok(Arc::new(Self { chains, names: wanted.names.clone(), metrics, said: Mutex::default() }))
    }

    /// Reads the authorities again when their file changes, and counts only those from the next connection on. A file that
    /// cannot be used leaves the authorities that count. Ends when the returned task is aborted.
    pub(crate) fn watch(self: &Arc<Self>, authorities: &Path) -> tokio::task::JoinHandle<()> {
        let (clients, authorities) = (Arc::clone(self), authorities.to_owned());
        follow(vec![authorities.clone()], move || {
            clients.chains.store(Arc::new(chains(&authorities)?));
            info!(authorities = %authorities.display(), "clients must show a certificate of new authorities");
            Ok(())
        })
    }

    /// Counts and logs a client that a handshake ended with, if it was refused for its certificate.
    pub(crate) fn failed(&self, from: SocketAddr, problem: &io::Error) {
        let Some((refusal, cause, names)) = refused(problem) else { return };
        let reason = refusal.label();
        self.metrics.refused_client(reason);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let now = said.entry(reason).or_default().now(Instant::now());
        drop(said);
        if let Some(unsaid) = now {
            let problem = refusal.explanation();
            warn!(%from, reason, problem, cause, names, unsaid, "refused a client; for a minute, this reason is only counted");
        }
    }
}

/// What verifies certificates of the authorities in a file.
fn chains(authorities: &Path) -> Result<Chains, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities)? {
        roots.add(certificate).map_err(|_| malformed(authorities, "certificate of an authority"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| TlsError::Make(error.to_string()))
}

/// Why a client was refused for its certificate, if that is why a handshake failed: the reason, its cause in the words of the library,
/// and the names that were shown, escaped.
fn refused(problem: &io::Error) -> Option<(Refusal, Option<&str>, Option<&str>)> {
    match problem.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::NoCertificatesPresented => Some((Refusal::NoCertificate, None, None)),
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            let refused = other.downcast_ref::<RefusedCertificate>()?;
            Some((refused.refusal, refused.cause.as_deref(), Some(&refused.names)))
        }
        // Its chain and name are sound, and the signature of the handshake is another key's.
        rustls::Error::InvalidCertificate(_) => {
            Some((Refusal::NotTrusted, Some("the key of the certificate is not its own"), None))
        }
        _ => None,
    }
}

/// The names of a certificate: its common name and its DNS names, to the letter. One that cannot be read has none.
fn names(leaf: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = x509_cert::Certificate::from_der(leaf) else { return Vec::new() };
    let body = certificate.tbs_certificate();
    let common: Vec<_> = body.subject().iter().filter(|attribute| attribute.oid == COMMON_NAME).collect();
    // Of several common names, authorities look at the last, or the first: the one that they did not look at may be anything.
    let common = match common[..] {
        [only] => DirectoryString::try_from(&only.value).ok().map(|name| name.value().into_owned()),
        _ => None,
    };
    let alternative =
        body.get_extension::<SubjectAltName>().ok().flatten().map(|(_, names)| names.0).unwrap_or_default();
    let dns = alternative.into_iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        _ => None,
    });
    common.into_iter().chain(dns).collect()
}

impl ClientCertVerifier for Clients {
    /// None: API servers do not choose by them, and others need not know.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let names = names(leaf);
        let refuse = |refusal, cause: Option<String>| {
            let all = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let refused = RefusedCertificate { refusal, cause, names: shown(&all) };
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
        };
        let verified = self.chains.load().verify_client_cert(leaf, intermediates, now);
        let verified = verified.map_err(|error| refuse(Refusal::NotTrusted, Some(error.to_string())))?;
        if names.iter().any(|name| self.names.contains(name)) {
            Ok(verified)
        } else {
            Err(refuse(Refusal::OtherName, None))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.load().verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.load().verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.load().supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };
    use rustls::client::ResolvesClientCert;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{PrivateKeyDer, ServerName};
    use tempfile::TempDir;
    use tokio::io::AsyncReadExt as _;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::metrics::Metrics;
    use crate::tls::{ServingCertificate, self_signed, server_config};

    const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

    struct Authority {
        params: CertificateParams,
        key: KeyPair,
        pem: String,
    }

    impl Authority {
        fn new(name: &str) -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            let pem = params.self_signed(&key).unwrap().pem();
            Self { params, key, pem }
        }

        fn issuer(&self) -> Issuer<'_, &KeyPair> {
            Issuer::from_params(&self.params, &self.key)
        }

        /// A client's certificate, changed before it is signed, and its key.
        fn issue(&self, common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> Shown {
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, common_name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            change(&mut params);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer()).unwrap();
            Shown { chain: vec![certificate.der().clone()], key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
        }
    }

    /// What a client shows.
    struct Shown {
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    }

    /// Shows whatever it is told to, also what does not belong together.
    #[derive(Debug)]
    struct Shows(Option<Arc<CertifiedKey>>);

    impl ResolvesClientCert for Shows {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            self.0.clone()
        }

        fn has_certs(&self) -> bool {
            self.0.is_some()
        }
    }

    /// A webhook's side, which takes API servers called `kube-apiserver` or `api.example.com`.
    struct Port {
        folder: TempDir,
        clients: Arc<Clients>,
        metrics: SharedMetrics,
        acceptor: TlsAcceptor,
        trusted: Arc<dyn ServerCertVerifier>,
    }

    impl Port {
        fn open(authorities: &[&Authority]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let metrics: SharedMetrics = Arc::new(Metrics::default());
            let wanted = ClientCertificates {
                authorities: folder.path().join("ca.pem"),
                names: ["kube-apiserver", "api.example.com"].map(str::to_owned).into(),
            };
            let pem: String = authorities.iter().map(|authority| authority.pem.as_str()).collect();
            std::fs::write(&wanted.authorities, pem).unwrap();
            let clients = Clients::load(&wanted, Arc::clone(&metrics)).unwrap();
            let (key, pem) = self_signed(vec!["localhost".to_owned()]).unwrap();
            let serving = ServingCertificate::new(key, Arc::clone(&metrics));
            let config = server_config(serving, Some(Arc::clone(&clients))).unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
            Self {
                folder,
                clients,
                metrics,
                acceptor: TlsAcceptor::from(Arc::new(config)),
                trusted: verifier.build().unwrap(),
            }
        }

        fn client(&self, version: &'static SupportedProtocolVersion, shown: Option<&Shown>) -> TlsConnector {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let certified = shown.map(|shown| {
                let key = provider.key_provider.load_private_key(shown.key.clone_key()).unwrap();
                Arc::new(CertifiedKey::new(shown.chain.clone(), key))
            });
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::clone(&self.trusted))
                .with_client_cert_resolver(Arc::new(Shows(certified)));
            TlsConnector::from(Arc::new(config))
        }

        /// Shakes hands: how, or the reason of the refusal, which is noted as by the server.
        async fn meet(&self, client: &TlsConnector) -> Result<HandshakeKind, (Refusal, String)> {
            let (near, far) = tokio::io::duplex(1 << 16);
            let talk = async {
                let mut stream = client.connect(ServerName::try_from("localhost").unwrap(), near).await?;
                // The server's word on the certificate comes after the client's handshake, with TLS 1.3.
                stream.read_to_end(&mut Vec::new()).await
            };
            let (met, told) = tokio::join!(
                async {
                    let met = self.acceptor.accept(far).await;
                    met.map(|stream| stream.get_ref().1.handshake_kind().unwrap())
                },
                talk
            );
            met.map_err(|problem| {
                assert!(told.unwrap_err().to_string().contains("alert"), "the client is told");
                self.clients.failed(SocketAddr::from(([192, 0, 2, 7], 4711)), &problem);
                let (refusal, _, names) = refused(&problem).unwrap();
                (refusal, names.unwrap_or_default().to_owned())
            })
        }

        fn counted(&self, refusal: Refusal) -> u64 {
            let start = format!("countersign_refused_clients_total{{reason=\"{}\"}} ", refusal.label());
            let text = self.metrics.text();
            text.lines().find_map(|line| line.strip_prefix(&start)).map_or(0, |count| count.parse().unwrap())
        }
    }

    #[tokio::test]
    async fn only_the_named_are_served() {
        let (ours, other) = (Authority::new("cluster"), Authority::new("cluster"));
        let intermediate_key = KeyPair::generate().unwrap();
        let mut below = CertificateParams::new(Vec::<String>::new()).unwrap();
        below.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        below.distinguished_name.push(DnType::CommonName, "below");
        let signed = below.signed_by(&intermediate_key, &ours.issuer()).unwrap();
        let intermediate = Authority { params: below, key: intermediate_key, pem: signed.pem() };
        let dns = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| rcgen::SanType::DnsName((*name).try_into().unwrap())).collect();
            move |params: &mut CertificateParams| params.subject_alt_names = names
        };
        let second_common_name = |name: &'static str| {
            // A type of its own for the library that makes it, and the same in the certificate.
            move |params: &mut CertificateParams| {
                params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), name);
            }
        };
        let mut by_intermediate = intermediate.issue("kube-apiserver", |_| {});
        by_intermediate.chain.push(signed.der().clone());
        let mut stolen = ours.issue("kube-apiserver", |_| {});
        stolen.key = PrivateKeyDer::try_from(KeyPair::generate().unwrap().serialize_der()).unwrap();
        let unlimited = ours.issue("kube-apiserver", |params| params.extended_key_usages.clear());
        let served = [
            ours.issue("kube-apiserver", |_| {}),
            ours.issue("something else", dns(&["first.example.com", "api.example.com"])),
            by_intermediate,
            unlimited,
        ];
        let other_name = [
            ours.issue("system:node:x", |_| {}),
            ours.issue("Kube-Apiserver", |_| {}),
            ours.issue("kube-apiserver ", |_| {}),
            ours.issue("xkube-apiserver", |_| {}),
            ours.issue("x", dns(&["*.example.com", "a.api.example.com"])),
            ours.issue("system:node:x", second_common_name("kube-apiserver")),
            ours.issue("kube-apiserver", second_common_name("system:node:x")),
            ours.issue("x", |params| params.distinguished_name.push(DnType::OrganizationName, "kube-apiserver")),
            ours.issue("x", |params| {
                params.subject_alt_names = vec![rcgen::SanType::Rfc822Name("kube-apiserver".try_into().unwrap())];
            }),
            ours.issue("\u{1b}[31mx\n\u{202e}", |_| {}),
        ];
        let not_trusted = [
            other.issue("kube-apiserver", |_| {}),
            ours.issue("kube-apiserver", |params| params.not_after = rcgen::date_time_ymd(2000, 1, 1)),
            ours.issue("kube-apiserver", |params| params.not_before = rcgen::date_time_ymd(4000, 1, 1)),
            ours.issue("kube-apiserver", |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
            intermediate.issue("kube-apiserver", |_| {}),
            stolen,
        ];
        let port = Port::open(&[&Authority::new("unrelated"), &ours]);
        for version in VERSIONS {
            let meet = async |shown: Option<&Shown>| port.meet(&port.client(version, shown)).await;
            for (index, shown) in served.iter().enumerate() {
                assert_eq!(meet(Some(shown)).await, Ok(HandshakeKind::Full), "{version:?} {index}");
            }
            assert_eq!(meet(None).await, Err((Refusal::NoCertificate, String::new())));
            for (reason, refused) in [(Refusal::OtherName, &other_name[..]), (Refusal::NotTrusted, &not_trusted)] {
                for (index, shown) in refused.iter().enumerate() {
                    let (refusal, names) = meet(Some(shown)).await.unwrap_err();
                    assert_eq!(refusal, reason, "{version:?} {reason:?} {index}");
                    assert!(!names.contains(['\u{1b}', '\n', '\u{202e}']), "{names}");
                }
            }
            assert_eq!(meet(Some(&other_name[0])).await, Err((Refusal::OtherName, "system:node:x".to_owned())));
        }
        let counted =
            [Refusal::NoCertificate, Refusal::OtherName, Refusal::NotTrusted].map(|refusal| port.counted(refusal));
        assert_eq!(counted, [2, 22, 12]);
    }

    /// A client that was served once comes back with the same certificate, which no longer counts.
    #[tokio::test]
    async fn no_session_outlives_its_certificate() {
        let (old, new) = (Authority::new("old"), Authority::new("new"));
        for version in VERSIONS {
            let port = Port::open(&[&old]);
            let client = port.client(version, Some(&old.issue("kube-apiserver", |_| {})));
            for _ in 0..2 {
                assert_eq!(port.meet(&client).await, Ok(HandshakeKind::Full), "{version:?}");
            }
            let authorities = port.folder.path().join("ca.pem");
            std::fs::write(&authorities, &new.pem).unwrap();
            port.clients.chains.store(Arc::new(chains(&authorities).unwrap()));
            assert_eq!(port.meet(&client).await.unwrap_err().0, Refusal::NotTrusted, "{version:?}");
            let client = port.client(version, Some(&new.issue("kube-apiserver", |_| {})));
            assert_eq!(port.meet(&client).await, Ok(HandshakeKind::Full), "{version:?}");
        }
    }

    #[test]
    fn files_without_an_authority_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        assert!(matches!(chains(&file), Err(TlsError::Unreadable { .. })));
        let rubbish = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "rubbish", rubbish, &format!("{}{rubbish}", Authority::new("a").pem)] {
            std::fs::write(&file, text).unwrap();
            assert!(matches!(chains(&file), Err(TlsError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn a_reason_is_logged_once_a_minute() {
        let (mut said, start) = (Said::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        let seen = [0, 1, 30, 59, 60, 61, 120, 3600].map(|seconds| said.now(later(seconds)));
        assert_eq!(seen, [Some(0), None, None, None, Some(3), None, Some(1), Some(0)]);
    }
}
