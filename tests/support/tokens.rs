//! A token server, as registries and trust servers with `auth: token` ask for one: it checks passwords, and signs tokens
//! (ES256 or RS256, by the key of the test's authority) for what each user may read.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::SigningKey as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use crate::Problem;
use crate::https::{self, Request, Response};
use crate::process::Ca;

/// Who may do what.
#[derive(Debug, Clone)]
pub struct User {
    /// The password.
    pub password: String,
    /// Repositories that the user may read and write.
    pub repositories: Vec<String>,
}

/// A running token server. It ends with the test process.
#[derive(Debug)]
pub struct TokenServer {
    /// `https://127.0.0.1:PORT/token`
    pub realm: String,
    /// The certificate that tokens are checked with, PEM: that of the test's authority.
    pub root: std::path::PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

struct Signer {
    key: rcgen::KeyPair,
    /// DER of the certificate, in base64.
    certificate: String,
}

impl TokenServer {
    /// Starts it. It serves, and signs, with the certificate of the test.
    ///
    /// # Errors
    /// Certificates that cannot be read, or no free port.
    pub fn start(ca: &Ca, users: BTreeMap<String, User>) -> Result<Self, Problem> {
        let chain = CertificateDer::pem_slice_iter(&fs::read(&ca.certificate)?).collect::<Result<Vec<_>, _>>()?;
        let signer = Signer {
            key: rcgen::KeyPair::from_pem(&fs::read_to_string(&ca.key)?)?,
            certificate: STANDARD.encode(chain.first().ok_or("no certificate")?),
        };
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = Arc::clone(&asked);
        let address = https::serve(ca, move |request| answer(request, &users, &signer, &told))?;
        Ok(Self { realm: format!("https://{address}/token"), root: ca.ca.clone(), asked })
    }

    /// The names of those who asked, in order; empty for nobody.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(
    request: &Request,
    users: &BTreeMap<String, User>,
    signer: &Signer,
    told: &Mutex<Vec<String>>,
) -> Result<Response, Problem> {
    let (mut user, mut password) = (String::new(), String::new());
    if let Some(value) = request.headers.get("authorization") {
        let pair = String::from_utf8(STANDARD.decode(value.trim_start_matches("Basic "))?)?;
        let (name, secret) = pair.split_once(':').ok_or("no password")?;
        (user, password) = (name.to_owned(), secret.to_owned());
    }
    let query = request.path.split_once('?').map_or("", |(_, query)| query);
    let query: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    told.lock().unwrap_or_else(PoisonError::into_inner).push(user.clone());
    let known = users.get(&user);
    if !user.is_empty() && known.is_none_or(|known| known.password != password) {
        return Ok(("401 Unauthorized", b"{}".to_vec()));
    }
    let granted = known.map(|known| known.repositories.clone()).unwrap_or_default();
    let token = token(signer, &query, &user, &granted)?;
    Ok(("200 OK", json!({"token": token, "expires_in": 300}).to_string().into_bytes()))
}

/// A token for what was asked, as far as it is granted (the distribution token specification).
fn token(signer: &Signer, query: &BTreeMap<String, String>, user: &str, granted: &[String]) -> Result<String, Problem> {
    let mut access = Vec::new();
    for scope in query.get("scope").map_or("", String::as_str).split(' ') {
        // `repository:HOST:PORT/PATH:pull,push`: the name may have colons in it.
        let Some((kind, rest)) = scope.split_once(':') else { continue };
        let Some((name, actions)) = rest.rsplit_once(':') else { continue };
        if granted.iter().any(|allowed| allowed == name) {
            access.push(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}));
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let ecdsa = signer.key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256;
    let header = json!({"typ": "JWT", "alg": if ecdsa { "ES256" } else { "RS256" }, "x5c": [signer.certificate]});
    let claims = json!({
        "iss": "countersign-test", "sub": user, "aud": query.get("service"), "exp": now + 300, "nbf": now - 60,
        "iat": now, "jti": format!("{now}-{user}"), "access": access,
    });
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = signer.key.sign(text.as_bytes())?;
    if ecdsa {
        signature = raw(&signature).ok_or("a signature of an odd form")?;
    }
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The two numbers of an ECDSA signature in DER, each in 32 bytes (RFC 7518 §3.4).
fn raw(der: &[u8]) -> Option<Vec<u8>> {
    let mut rest = der.get(2..)?;
    let mut out = Vec::new();
    for _ in 0..2 {
        let length = usize::from(*rest.get(1)?);
        let number = rest.get(2..2 + length)?;
        let number = &number[number.len().saturating_sub(32)..];
        out.extend(std::iter::repeat_n(0, 32 - number.len()));
        out.extend_from_slice(number);
        rest = rest.get(2 + length..)?;
    }
    Some(out)
}
