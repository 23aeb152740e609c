//! A serving certificate that Countersign makes itself, shares among its replicas in a Secret, and rotates.
//!
//! There is no leader. Every replica does the same with what it reads, and a write only succeeds if nobody has written since.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, PostParams};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use tokio::sync::watch;
use tracing::{error, info};
use x509_cert::der::Decode as _;

use super::{ServingCertificate, TlsError, certified};
use crate::cluster;

/// How often the Secret is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How many times the life of a serving certificate an authority lives: some ten years, where that is ninety days.
const AUTHORITY_LIVES: i32 = 40;

/// For how long a new authority is only trusted before anything is signed with it: API servers must have read the new
/// `caBundle` before they meet such a certificate.
const OVERLAP: Duration = Duration::from_secs(3600);

/// How far back a certificate's life begins, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(300);

/// What is asked of the certificate.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The namespace of the Secret.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// The DNS names and addresses to serve under.
    pub names: Vec<String>,
    /// How long a serving certificate lives. It is replaced when a third of that is left.
    pub lifetime: Duration,
}

/// An authority, with its life.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    certificate: String,
    key: String,
    begins: i64,
    ends: i64,
    name: String,
}

/// What the Secret holds: authorities, newest first, and the certificate in use.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Material {
    authorities: Vec<Authority>,
    certificate: String,
    key: String,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("authorities", &self.authorities.len()).finish_non_exhaustive()
    }
}

/// What is read of a certificate.
struct Facts {
    begins: i64,
    ends: i64,
    subject: String,
    issuer: String,
}

fn facts(pem: &str) -> Option<Facts> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let certificate = x509_cert::Certificate::from_der(&der).ok()?;
    let body = certificate.tbs_certificate();
    let seconds = |time: x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
    Some(Facts {
        begins: seconds(body.validity().not_before),
        ends: seconds(body.validity().not_after),
        subject: body.subject().to_string(),
        issuer: body.issuer().to_string(),
    })
}

/// Cuts a text of several PEM blocks.
fn blocks(pem: &str) -> Vec<String> {
    let end = "-----END ";
    let mut blocks = Vec::new();
    let mut block = String::new();
    for line in pem.lines() {
        block.push_str(line);
        block.push('\n');
        if line.starts_with(end) {
            blocks.push(std::mem::take(&mut block));
        }
    }
    blocks
}

impl Material {
    /// Reads a Secret; nothing if what is in it cannot be used.
    fn read(secret: &Secret) -> Option<Self> {
        let text = |key: &str| {
            let bytes = secret.data.as_ref()?.get(key)?;
            String::from_utf8(bytes.0.clone()).ok()
        };
        let (certificates, keys) = (blocks(&text("ca.crt")?), blocks(&text("ca.key")?));
        if certificates.is_empty() || certificates.len() != keys.len() {
            return None;
        }
        let authorities = certificates.into_iter().zip(keys).map(|(certificate, key)| {
            let facts = facts(&certificate)?;
            KeyPair::from_pem(&key).ok()?;
            Some(Authority { certificate, key, begins: facts.begins, ends: facts.ends, name: facts.subject })
        });
        let material = Self {
            authorities: authorities.collect::<Option<_>>()?,
            certificate: text("tls.crt")?,
            key: text("tls.key")?,
        };
        material.serving().ok()?;
        Some(material)
    }

    fn data(&self) -> std::collections::BTreeMap<String, ByteString> {
        let keys: String = self.authorities.iter().map(|authority| authority.key.as_str()).collect();
        [
            ("ca.crt", self.bundle()),
            ("ca.key", keys),
            ("tls.crt", self.certificate.clone()),
            ("tls.key", self.key.clone()),
        ]
        .map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())))
        .into()
    }

    /// The authorities that an API server is to trust, PEM.
    fn bundle(&self) -> String {
        self.authorities.iter().map(|authority| authority.certificate.as_str()).collect()
    }

    fn serving(&self) -> Result<rustls::sign::CertifiedKey, TlsError> {
        let broken = |_| TlsError::Make("the certificate in the Secret cannot be read".to_owned());
        let chain =
            CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect::<Result<_, _>>().map_err(broken)?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(broken)?;
        certified(chain, key).map_err(TlsError::Make)
    }

    /// What the Secret should hold now, given what it holds. Equal to what was given if nothing is to be done.
    ///
    /// # Errors
    /// Names that no certificate can hold.
    pub(super) fn advance(before: Option<&Self>, wanted: &Wanted, now: Timestamp) -> Result<Self, TlsError> {
        let now = now.as_second();
        let life = i64::try_from(wanted.lifetime.as_secs()).unwrap_or(i64::MAX / 100).max(1);
        let authority_life = life.saturating_mul(i64::from(AUTHORITY_LIVES));
        let mut authorities: Vec<Authority> = before.map(|before| before.authorities.clone()).unwrap_or_default();
        authorities.retain(|authority| authority.ends > now);
        // In time for one more serving certificate to live out under the old one.
        if authorities.first().is_none_or(|newest| newest.ends - now < authority_life / 5) {
            authorities.insert(0, Authority::make(now, authority_life)?);
        }
        let overlap = i64::try_from(OVERLAP.as_secs()).unwrap_or(i64::MAX).min(life / 10);
        let backdated = backdated(life);
        let settled = |authority: &&Authority| authority.begins + backdated + overlap <= now;
        let signer = authorities.iter().find(settled).or(authorities.last());
        let signer = signer.ok_or_else(|| TlsError::Make("no authority".to_owned()))?;
        let fine = before.filter(|before| {
            facts(&before.certificate).is_some_and(|facts| {
                facts.ends - now > life / 3
                    && facts.begins <= now
                    && facts.issuer == signer.name
                    && names(&before.certificate) == Some(sorted(&wanted.names))
            })
        });
        let (certificate, key) = match fine {
            Some(before) => (before.certificate.clone(), before.key.clone()),
            None => signer.issue(&wanted.names, now, life.min(signer.ends - now))?,
        };
        Ok(Self { authorities, certificate, key })
    }
}

fn backdated(life: i64) -> i64 {
    i64::try_from(BACKDATED.as_secs()).unwrap_or_default().min(life / 10)
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names
}

/// The names that a certificate is for.
fn names(pem: &str) -> Option<Vec<String>> {
    use x509_cert::ext::pkix::SubjectAltName;
    use x509_cert::ext::pkix::name::GeneralName;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let certificate = x509_cert::Certificate::from_der(&der).ok()?;
    let (_, names) = certificate.tbs_certificate().get_extension::<SubjectAltName>().ok()??;
    let text = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(address) => match address.as_bytes().len() {
            4 => <[u8; 4]>::try_from(address.as_bytes()).ok().map(|octets| std::net::IpAddr::from(octets).to_string()),
            16 => {
                <[u8; 16]>::try_from(address.as_bytes()).ok().map(|octets| std::net::IpAddr::from(octets).to_string())
            }
            _ => None,
        },
        _ => None,
    };
    Some(sorted(&names.0.iter().map(text).collect::<Option<Vec<_>>>()?))
}

fn failed(error: impl std::fmt::Display) -> TlsError {
    TlsError::Make(error.to_string())
}

fn moment(seconds: i64) -> Result<OffsetDateTime, TlsError> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(failed)
}

impl Authority {
    fn params(common_name: &str) -> Result<CertificateParams, TlsError> {
        let mut params = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        Ok(params)
    }

    fn make(now: i64, life: i64) -> Result<Self, TlsError> {
        let key = KeyPair::generate().map_err(failed)?;
        // The name tells authorities apart; a key id is in it, so that two replicas never make equal ones.
        let id =
            key.public_key_raw().iter().skip(1).take(6).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let common_name = format!("Countersign CA {now} {id}");
        let mut params = Self::params(&common_name)?;
        let begins = now - backdated(life / i64::from(AUTHORITY_LIVES));
        (params.not_before, params.not_after) = (moment(begins)?, moment(now.saturating_add(life))?);
        let certificate = params.self_signed(&key).map_err(failed)?.pem().replace("\r\n", "\n");
        let facts = facts(&certificate).ok_or_else(|| failed("the authority cannot be read"))?;
        let key = key.serialize_pem().replace("\r\n", "\n");
        Ok(Self { certificate, key, begins: facts.begins, ends: facts.ends, name: facts.subject })
    }

    /// A serving certificate and its key.
    fn issue(&self, names: &[String], now: i64, life: i64) -> Result<(String, String), TlsError> {
        let common_name = self.name.strip_prefix("CN=").unwrap_or(&self.name);
        let signer = Issuer::new(Self::params(common_name)?, KeyPair::from_pem(&self.key).map_err(failed)?);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "countersign");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let begins = now - backdated(life);
        (params.not_before, params.not_after) = (moment(begins)?, moment(now.saturating_add(life))?);
        let certificate = params.signed_by(&key, &signer).map_err(failed)?.pem().replace("\r\n", "\n");
        Ok((certificate, key.serialize_pem().replace("\r\n", "\n")))
    }
}

/// Serves what the Secret holds, keeps it right for ever, and hands over the authorities that an API server is to trust, PEM.
pub(crate) async fn keep(
    client: Client,
    wanted: Wanted,
    serving: Arc<ServingCertificate>,
    authorities: watch::Sender<Option<String>>,
    clock: countersign_remote::Clock,
) {
    let mut keeper = Keeper { client, wanted, serving, authorities, clock, in_use: None };
    let mut said = String::new();
    loop {
        match keeper.reconcile().await {
            Ok(()) => said.clear(),
            // The same trouble every few seconds is said once.
            Err(problem) if problem != said => {
                error!(%problem, "the serving certificate cannot be kept up to date");
                said = problem;
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

struct Keeper {
    client: Client,
    wanted: Wanted,
    serving: Arc<ServingCertificate>,
    authorities: watch::Sender<Option<String>>,
    clock: countersign_remote::Clock,
    in_use: Option<Material>,
}

impl Keeper {
    async fn reconcile(&mut self) -> Result<(), String> {
        let material = self.secret().await?;
        if self.in_use.as_ref().is_none_or(|in_use| in_use.certificate != material.certificate) {
            self.serving.swap(material.serving().map_err(|error| error.to_string())?);
            info!(secret = self.wanted.secret, "serving a certificate from the Secret");
        }
        self.authorities.send_if_modified(|authorities| {
            let bundle = Some(material.bundle());
            let modified = *authorities != bundle;
            *authorities = bundle;
            modified
        });
        self.in_use = Some(material);
        Ok(())
    }

    /// What the Secret holds, once it holds what it should.
    async fn secret(&self) -> Result<Material, String> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.wanted.namespace);
        let name = &self.wanted.secret;
        let explain = |(_, cause): (Option<u16>, String)| format!("Secret {name}: {cause}");
        for _ in 0..10 {
            let found = cluster::in_time(api.get_opt(name)).await.map_err(explain)?;
            let before = found.as_ref().and_then(Material::read);
            let after =
                Material::advance(before.as_ref(), &self.wanted, (self.clock)()).map_err(|error| error.to_string())?;
            if before.as_ref() == Some(&after) {
                return Ok(after);
            }
            let mut secret = found.clone().unwrap_or_default();
            secret.metadata.name = Some(name.clone());
            secret.data = Some(after.data());
            let written = match found {
                None => {
                    secret.type_ = Some("Opaque".to_owned());
                    cluster::in_time(api.create(&PostParams::default(), &secret)).await
                }
                // With the resourceVersion that was read.
                Some(_) => cluster::in_time(api.replace(name, &PostParams::default(), &secret)).await,
            };
            match written {
                Ok(_) => {
                    info!(secret = name, "wrote a new certificate");
                    return Ok(after);
                }
                // Another replica was faster: what it wrote will do.
                Err((Some(409), _)) => {}
                Err(error) => return Err(explain(error)),
            }
        }
        Err(format!("Secret {name} is written by others all the time"))
    }
}

#[cfg(test)]
mod tests {
    use rustls::client::danger::ServerCertVerifier as _;

    use super::*;

    const DAY: i64 = 24 * 3600;

    fn wanted() -> Wanted {
        Wanted {
            namespace: "n".into(),
            secret: "s".into(),
            names: vec!["countersign.n.svc".into(), "127.0.0.1".into()],
            lifetime: Duration::from_secs(90 * 24 * 3600),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn advance(before: Option<&Material>, seconds: i64) -> Material {
        Material::advance(before, &wanted(), at(seconds)).unwrap()
    }

    #[test]
    fn a_certificate_lives_until_a_third_is_left() {
        let first = advance(None, 0);
        assert_eq!((first.authorities.len(), names(&first.certificate)), (1, Some(sorted(&wanted().names))));
        assert_eq!(advance(Some(&first), 59 * DAY), first);
        let second = advance(Some(&first), 61 * DAY);
        assert!(second.certificate != first.certificate && second.authorities == first.authorities);
        let mut other = wanted();
        other.names.push("countersign.n.svc.cluster.local".into());
        let renamed = Material::advance(Some(&first), &other, at(0)).unwrap();
        assert_ne!(renamed.certificate, first.certificate);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let material = advance(None, 0);
        let secret = Secret { data: Some(material.data()), ..Secret::default() };
        assert_eq!(Material::read(&secret), Some(material.clone()));
        for key in ["ca.crt", "ca.key", "tls.crt", "tls.key"] {
            for value in ["", "rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
                let mut data = material.data();
                data.insert(key.into(), ByteString(value.into()));
                assert_eq!(Material::read(&Secret { data: Some(data), ..Secret::default() }), None, "{key} {value}");
            }
        }
        assert!(!format!("{material:?}").contains("PRIVATE"));
    }

    /// Through all its life, whatever is served is signed by an authority that has been in the bundle for an hour.
    #[test]
    fn authorities_overlap() {
        let mut material = advance(None, 0);
        let mut bundle_since: std::collections::HashMap<String, i64> = std::collections::HashMap::new();
        bundle_since.insert(material.authorities[0].name.clone(), -3600);
        let mut most = 0;
        for step in 0..(20 * 365 * 4) {
            let now = step * DAY / 4;
            material = advance(Some(&material), now);
            most = most.max(material.authorities.len());
            for authority in &material.authorities {
                bundle_since.entry(authority.name.clone()).or_insert(now);
            }
            let issued = facts(&material.certificate).unwrap();
            assert!(issued.ends > at(now).as_second(), "served while expired");
            let since = bundle_since[&issued.issuer];
            assert!(material.authorities.iter().any(|authority| authority.name == issued.issuer), "not in the bundle");
            assert!(now - since >= 3600 || since == -3600, "served too early");
        }
        assert!(bundle_since.len() > 1 && most == 2, "{} authorities, {most} at once", bundle_since.len());
    }

    #[test]
    fn the_chain_is_what_a_client_accepts() {
        let material = advance(None, 0);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(material.bundle().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let leaf = CertificateDer::from_pem_slice(material.certificate.as_bytes()).unwrap();
        let time = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_001));
        for (name, good) in [("countersign.n.svc", true), ("127.0.0.1", true), ("other.n.svc", false)] {
            let name = rustls_pki_types::ServerName::try_from(name).unwrap();
            assert_eq!(verifier.verify_server_cert(&leaf, &[], &name, &[], time).is_ok(), good, "{name:?}");
        }
    }
}
