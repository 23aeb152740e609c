//! X.509 certificates as Notary's tools make them, and as they should not be.

use jiff::{Timestamp, ToSpan as _, Unit, tz::TimeZone};
use sha2::{Digest as _, Sha256};

use crate::der;
use crate::key::Key;

/// What a certificate says. By default it is like the self-signed ones of `notary init`.
#[derive(Clone)]
pub struct Cert {
    names: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
    authority: bool,
    sha1: bool,
    issuer: Option<(String, Key)>,
    before: String,
    after: String,
}

impl Cert {
    /// A certificate for a repository, valid from a year before `now` until nine years after.
    #[must_use]
    pub fn new(common_name: &str, now: Timestamp) -> Self {
        let days = |days: i64| now.checked_add((days * 24).hours()).expect("a time near the reference");
        Self {
            names: vec![common_name.to_owned()],
            not_before: days(-365),
            not_after: days(9 * 365),
            authority: false,
            sha1: false,
            issuer: None,
            before: String::new(),
            after: String::new(),
        }
    }

    /// Common names in place of the one: none, or several.
    #[must_use]
    pub fn named(mut self, names: &[&str]) -> Self {
        self.names = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Valid from then until then.
    #[must_use]
    pub fn valid(mut self, not_before: Timestamp, not_after: Timestamp) -> Self {
        self.not_before = not_before;
        self.not_after = not_after;
        self
    }

    /// Says that it is a CA.
    #[must_use]
    pub fn authority(mut self) -> Self {
        self.authority = true;
        self
    }

    /// Signed with SHA-1.
    #[must_use]
    pub fn sha1(mut self) -> Self {
        self.sha1 = true;
        self
    }

    /// Signed by a CA of that name and key.
    #[must_use]
    pub fn issued_by(mut self, name: &str, key: &Key) -> Self {
        self.issuer = Some((name.to_owned(), key.clone()));
        self
    }

    /// Puts further PEM text after it in its bundle.
    #[must_use]
    pub fn followed_by(mut self, pem: &str) -> Self {
        self.after.push_str(pem);
        self
    }

    /// Puts further PEM text before it in its bundle.
    #[must_use]
    pub fn preceded_by(mut self, pem: &str) -> Self {
        self.before.push_str(pem);
        self
    }

    /// The PEM text of the certificate for a key, and of what else its bundle holds.
    #[must_use]
    pub fn issue(&self, key: &Key) -> String {
        let signer = self.issuer.as_ref().map_or(key, |(_, issuer)| issuer);
        let subject = name(&self.names);
        let issuer = self.issuer.as_ref().map_or_else(|| subject.clone(), |(issuer, _)| name(&[issuer.clone()]));
        // The algorithm stands in the signed part too, so it must be known first.
        let (algorithm, _) = signer.sign_certificate(b"", self.sha1);
        let serial = Sha256::digest([self.names.concat().as_bytes(), &key.spki()].concat());
        let body = der::sequence(&[
            der::element(0xa0, &der::unsigned(&[2])),
            der::unsigned(&serial[..16]),
            algorithm.clone(),
            issuer,
            der::sequence(&[time(self.not_before), time(self.not_after)]),
            subject,
            key.spki(),
            der::element(0xa3, &der::sequence(&self.extensions())),
        ]);
        let (_, signature) = signer.sign_certificate(&body, self.sha1);
        let certificate = der::sequence(&[body, algorithm, der::bit_string(&signature)]);
        format!("{}{}{}", self.before, der::pem("CERTIFICATE", &certificate), self.after)
    }

    fn extensions(&self) -> Vec<Vec<u8>> {
        let extension = |arcs: &[u32], content: Vec<u8>| {
            let critical = der::element(0x01, &[0xff]);
            der::sequence(&[der::oid(arcs), critical, der::octet_string(&content)])
        };
        // Key usage is a bit string whose first octet counts the unused bits: keyCertSign, or digitalSignature.
        let usage = if self.authority { [2, 0x04] } else { [5, 0xa0] };
        let code_signing = der::oid(&[1, 3, 6, 1, 5, 5, 7, 3, 3]);
        let constraints = if self.authority { vec![der::element(0x01, &[0xff])] } else { Vec::new() };
        let mut extensions = vec![extension(&[2, 5, 29, 15], der::element(0x03, &usage))];
        if !self.authority {
            extensions
                .push(der::sequence(&[der::oid(&[2, 5, 29, 37]), der::octet_string(&der::sequence(&[code_signing]))]));
        }
        extensions.push(extension(&[2, 5, 29, 19], der::sequence(&constraints)));
        extensions
    }
}

fn name(common_names: &[String]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = common_names
        .iter()
        .map(|text| {
            let value = der::element(0x0c, text.as_bytes());
            der::set(&[der::sequence(&[der::oid(&[2, 5, 4, 3]), value])])
        })
        .collect();
    der::sequence(&parts)
}

/// `UTCTime` before 2050, `GeneralizedTime` from then on (RFC 5280 §4.1.2.5).
fn time(moment: Timestamp) -> Vec<u8> {
    let moment = moment.round(Unit::Second).expect("a time in range").to_zoned(TimeZone::UTC);
    if moment.year() < 2050 {
        der::element(0x17, moment.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        der::element(0x18, moment.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    }
}
