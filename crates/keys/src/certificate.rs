//! The little of an X.509 certificate that decides whether its key may be used.

use jiff::Timestamp;
use x509_cert::Certificate as X509;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::BasicConstraints;

use crate::pem;
use crate::problem::KeyProblem;

/// Signature algorithms that rest on SHA-1 or MD5, or that say nothing we know: not believed in a certificate.
const WEAK_SIGNATURES: [ObjectIdentifier; 5] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.2"), // md2WithRSAEncryption
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"), // md5WithRSAEncryption
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"), // sha1WithRSAEncryption
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"),    // ecdsa-with-SHA1
    ObjectIdentifier::new_unwrap("1.2.840.10040.4.3"),    // dsa-with-SHA1
];

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The leaf of a key's certificates, read as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The key that is certified: DER of a `SubjectPublicKeyInfo`.
    pub spki: Vec<u8>,
    /// The subject's only common name.
    pub common_name: Option<String>,
    /// In seconds since 1970.
    pub not_before: i64,
    /// In seconds since 1970.
    pub not_after: i64,
    /// Whether it was signed with a hash that can be forged.
    pub weak_signature: bool,
    /// Whether exactly one certificate of its bundle is not a CA, and that one stands first.
    pub leads_bundle: bool,
}

impl Certificate {
    /// Reads PEM text of one or more certificates. The first is the one that holds the key.
    ///
    /// # Errors
    /// A text that holds anything else.
    pub fn of_bundle(pem_text: &str) -> Result<Self, KeyProblem> {
        let mut first = None;
        let mut leaves = Vec::new();
        for (index, block) in pem::blocks(pem_text).iter().enumerate() {
            if block.label != "CERTIFICATE" {
                return Err(KeyProblem::Malformed);
            }
            let certificate = X509::from_der(&block.der).map_err(|_| KeyProblem::Malformed)?;
            if !is_ca(&certificate)? {
                leaves.push(index);
            }
            if first.is_none() {
                first = Some(Self::read(&certificate)?);
            }
        }
        let first = first.ok_or(KeyProblem::Malformed)?;
        Ok(Self { leads_bundle: leaves == [0], ..first })
    }

    /// Reads the DER of one certificate, of whatever sort.
    ///
    /// # Errors
    /// Bytes that are none.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyProblem> {
        Self::read(&X509::from_der(der).map_err(|_| KeyProblem::Malformed)?)
    }

    fn read(certificate: &X509) -> Result<Self, KeyProblem> {
        let body = certificate.tbs_certificate();
        let validity = body.validity();
        let seconds =
            |time: x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
        let mut names = body.subject().iter().filter(|attribute| attribute.oid == COMMON_NAME);
        let common_name = names.next().and_then(|attribute| String::from_utf8(attribute.value.value().to_vec()).ok());
        Ok(Self {
            spki: body.subject_public_key_info().to_der().map_err(|_| KeyProblem::Malformed)?,
            common_name: if names.next().is_some() { None } else { common_name },
            not_before: seconds(validity.not_before),
            not_after: seconds(validity.not_after),
            leads_bundle: false,
            weak_signature: WEAK_SIGNATURES.contains(&certificate.signature_algorithm().oid),
        })
    }

    /// Whether it may be used at a time. Clocks differ, so one that starts within a day is accepted, as Notary's client does.
    ///
    /// # Errors
    /// It has expired, or starts later.
    pub fn check_time(&self, now: Timestamp) -> Result<(), KeyProblem> {
        const DAY: i64 = 24 * 60 * 60;
        if now.as_second() > self.not_after {
            return Err(KeyProblem::CertificateExpired);
        }
        if now.as_second() + DAY < self.not_before {
            return Err(KeyProblem::CertificateNotYetValid);
        }
        Ok(())
    }
}

/// When a certificate in DER expires, in seconds since 1970; nothing if it cannot be read.
#[must_use]
pub fn certificate_expiry(der: &[u8]) -> Option<i64> {
    Certificate::from_der(der).ok().map(|certificate| certificate.not_after)
}

fn is_ca(certificate: &X509) -> Result<bool, KeyProblem> {
    let constraints = certificate.tbs_certificate().get_extension::<BasicConstraints>();
    let constraints = constraints.map_err(|_| KeyProblem::Malformed)?;
    Ok(constraints.is_some_and(|(_, constraints)| constraints.ca))
}
